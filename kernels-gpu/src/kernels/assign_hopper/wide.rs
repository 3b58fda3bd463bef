//! Points of any number of dimensions: tiles of points and of centroids come in panels of 64 features.
//!
//! ```text
//! producer warp    bulk copies of panels of 128 centroids, a ring of stages
//! 3 warps          copies of panels of 256 points: once an item if all of its panels have room, else for each tile
//! 2 warpgroups     128 points each; for each tile and panel, issue the products of both halves of 64 points and
//!                  wait for them; after the last panel fold the tile
//! ```
//! One warpgroup waits and folds while the other multiplies.
use super::*;
use cuda_std::async_copy::{cp_async_cg_16, cp_async_commit_group, cp_async_wait_group};

const SHARED: WideShared = WideShared::new();

/// See [`super::assign_hopper`].
#[inline(always)]
pub(super) unsafe fn assign<C: Operand>(arrays: Arrays, params: HopperParams) {
    if thread_idx_x() == 0 {
        let mut stage = 0;
        while stage < WIDE_STAGES {
            barrier(SHARED.full.here(), stage).init(1);
            barrier(SHARED.empty.here(), stage).init(HOPPER_WARPS);
            barrier(SHARED.points_full.here(), stage).init(HOPPER_POINT_THREADS);
            barrier(SHARED.points_empty.here(), stage).init(HOPPER_WARPS);
            stage += 1;
        }
        barrier(SHARED.rows_full.here(), 0).init(HOPPER_POINT_THREADS);
        barrier(SHARED.rows_empty.here(), 0).init(HOPPER_WARPS);
        fence_mbarrier_init();
    }
    // Features past the pitch are never copied to: something finite there, to meet the zeros of the centroids.
    let words = SHARED.points.here();
    let mut word = thread_idx_x() * 4;
    while word < SHARED.points.bytes() {
        Shared::<u32>::of(words.address() + word).set(0, 0);
        word += HOPPER_THREADS * 4;
    }
    fence_proxy_async();
    sync_threads();

    if warp_id() < 4 {
        setmaxnreg_dec_40();
        if warp_id() == 0 {
            // One lane: others could fall behind it by more than a round of the ring, whose parity they would miss.
            if lane_id() == 0 {
                produce_centroids(arrays, params);
            }
        } else {
            produce_points(arrays, params);
        }
    } else {
        setmaxnreg_inc_232();
        consume::<C>(arrays, params);
    }
}

/// The lane that copies centroids: panels, as stages become free, and a tile's biases with its first.
#[inline(always)]
unsafe fn produce_centroids(arrays: Arrays, params: HopperParams) {
    let (tiles, panels) = (params.centroid_tiles(), hopper_panels(params.shape.d));
    let mut ring = Ring::<WIDE_STAGES>(0);
    // A slot of biases comes round again when its tile has long been folded.
    let mut slot = Ring::<WIDE_STAGES>(0);
    let mut item = next_item(block_idx_x(), arrays.states, params);
    while item < params.items() {
        let batch = Item::of(item, params).batch;
        let mut tile = 0;
        while tile < tiles {
            let tile_of_all = batch as u64 * tiles as u64 + tile as u64;
            let mut panel = 0;
            while panel < panels {
                ring.wait_empty(SHARED.empty.here());
                let full = barrier(SHARED.full.here(), ring.stage());
                let biases = if panel == 0 { HOPPER_BIASES * 4 } else { 0 };
                full.arrive_expect_tx(HOPPER_PANEL_BYTES + biases);
                let place = (tile_of_all * panels as u64 + panel as u64) * HOPPER_PANEL_BYTES as u64;
                bulk_copy(
                    SHARED.centroids.here().address() + ring.stage() * HOPPER_PANEL_BYTES,
                    arrays.packed.cast::<u8>().add(place as usize),
                    HOPPER_PANEL_BYTES,
                    full,
                );
                if panel == 0 {
                    bulk_copy(
                        SHARED.biases.here().add(slot.stage() * HOPPER_BIASES).address(),
                        arrays.biases.add((tile_of_all * HOPPER_BIASES as u64) as usize).cast(),
                        HOPPER_BIASES * 4,
                        full,
                    );
                }
                ring = ring.next();
                panel += 1;
            }
            slot = slot.next();
            tile += 1;
        }
        item = next_item(item + grid_dim_x(), arrays.states, params);
    }
}

/// The warps that copy points, in the order in which the products want them.
#[inline(always)]
unsafe fn produce_points(arrays: Arrays, params: HopperParams) {
    let shape = params.shape;
    let panels = hopper_panels(shape.d);
    let rounds = if panels <= WIDE_STAGES { 1 } else { params.centroid_tiles() };
    let me = thread_idx_x() - WARP_SIZE;
    let mut ring = Ring::<WIDE_STAGES>(0);
    let mut items = Ring::<1>(0);
    let mut item = next_item(block_idx_x(), arrays.states, params);
    while item < params.items() {
        let here = Item::of(item, params);
        items.wait_empty(SHARED.rows_empty.here());
        rows_here().at(items.0 % 2 * HOPPER_POINTS).load(me, here, arrays, shape);
        barrier(SHARED.rows_full.here(), 0).arrive();
        let mut round = 0;
        while round < rounds {
            let mut panel = 0;
            while panel < panels {
                ring.wait_empty(SHARED.points_empty.here());
                let first = panel * HOPPER_PANEL_FEATURES;
                let left = (shape.pitch - first) / 8;
                let chunks = if left < 8 { left } else { 8 };
                let stage = SHARED.points.here().address() + ring.stage() * WIDE_POINT_BYTES;
                // Eight threads a row, so that rows are read whole.
                let column = me % 8;
                let mut row = me / 8;
                while row < HOPPER_POINTS {
                    if column < chunks {
                        let x = arrays.points.add(here.place(row, shape) * shape.pitch as usize);
                        let place = stage + row * 128 + (column ^ row & 7) * 16;
                        cp_async_cg_16(Shared::of(place), x.add((first + column * 8) as usize));
                    }
                    row += HOPPER_POINT_THREADS / 8;
                }
                cp_async_commit_group();
                // The panel before has had the time of this one's copies to arrive.
                if round + panel > 0 {
                    cp_async_wait_group::<1>();
                    arrived(ring.0 - 1);
                }
                ring = ring.next();
                panel += 1;
            }
            round += 1;
        }
        cp_async_wait_group::<0>();
        arrived(ring.0 - 1);
        items = items.next();
        item = next_item(item + grid_dim_x(), arrays.states, params);
    }
}

/// This thread's copies of a panel of points are in shared memory, for products to read.
#[inline(always)]
unsafe fn arrived(panel: u32) {
    fence_proxy_async();
    barrier(SHARED.points_full.here(), panel % WIDE_STAGES).arrive();
}

#[inline(always)]
fn rows_here() -> Rows {
    Rows { norms: SHARED.norms.here(), bounds: SHARED.residuals.here(), labels: SHARED.labels.here() }
}

/// A multiplying warpgroup.
#[inline(always)]
unsafe fn consume<C: Operand>(arrays: Arrays, params: HopperParams) {
    let warp = warp_id() - HOPPER_FIRST_WARP;
    // The thread's first row in the tile; the others are 8, 64 and 72 below.
    let row = warp / 4 * 128 + warp % 4 * 16 + lane_id() / 4;
    let quarter = lane_id() & 3;
    let (tiles, panels) = (params.centroid_tiles(), hopper_panels(params.shape.d));
    let resident = panels <= WIDE_STAGES;
    let mut ring = Ring::<WIDE_STAGES>(0);
    let mut points = Ring::<WIDE_STAGES>(0);
    let mut slot = Ring::<WIDE_STAGES>(0);
    let mut items = Ring::<1>(0);

    let mut scores: [Scores; 2] = [[0.0; 64]; 2];
    let mut item = next_item(block_idx_x(), arrays.states, params);
    while item < params.items() {
        let here = Item::of(item, params);
        items.wait_full(SHARED.rows_full.here());
        let rows = rows_here().at(items.0 % 2 * HOPPER_POINTS + row);
        rows.set_bounds(panels * HOPPER_PANEL_FEATURES, here, arrays, params);
        items.release(SHARED.rows_empty.here());

        let mut nearest = [Nearest::NONE; 4];
        let mut gates = [f32::NEG_INFINITY; 4];
        let mut tile = 0;
        while tile < tiles {
            let [scores_0, scores_1] = &mut scores;
            // Points that stay are released with the last tile.
            let frees_points = !resident || tile + 1 == tiles;
            let mut at = points;
            let mut panel = 0;
            while panel < panels {
                if !resident || tile == 0 {
                    at.wait_full(SHARED.points_full.here());
                }
                ring.wait_full(SHARED.full.here());
                let x =
                    SHARED.points.here().address() + at.stage() * WIDE_POINT_BYTES + warp / 4 * (128 * 128);
                let x = Descriptor::swizzled_128b(x);
                let c = SHARED.centroids.here().address() + ring.stage() * HOPPER_PANEL_BYTES;
                let c = Descriptor::swizzled_128b(c);
                wgmma_fence();
                unroll!(S in [0, 1, 2, 3] => {
                    let add = panel | S as u32;
                    C::Scalar::wgmma_m64n128k16_shared(scores_0, x.at(S as u32 * 32), c.at(S as u32 * 32), add);
                    C::Scalar::wgmma_m64n128k16_shared(
                        scores_1, x.at(64 * 128 + S as u32 * 32), c.at(S as u32 * 32), add);
                });
                wgmma_commit();
                // The other warpgroup's products run meanwhile. None may be under way at the end of a round: ptxas
                // would not know which scores are final.
                wgmma_wait::<0>(scores_0);
                wgmma_wait::<0>(scores_1);
                ring.release(SHARED.empty.here());
                if frees_points {
                    at.release(SHARED.points_empty.here());
                }
                ring = ring.next();
                at = at.next();
                panel += 1;
            }
            if frees_points {
                points = at;
            }
            let biases = SHARED.biases.here().add(slot.stage() * HOPPER_BIASES + quarter * HOPPER_BIAS_PITCH);
            let column = tile * HOPPER_CENTROIDS + quarter * 2;
            let [a, b, c, d] = &mut nearest;
            let [gate_a, gate_b, gate_c, gate_d] = &mut gates;
            fold_tile(scores_0, biases, column, [a, b], [gate_a, gate_b], rows.bounds);
            fold_tile(scores_1, biases, column, [c, d], [gate_c, gate_d], rows.bounds.add(64));
            slot = slot.next();
            tile += 1;
        }
        store_rows(nearest, row, rows, here, arrays, params);
        items = items.next();
        item = next_item(item + grid_dim_x(), arrays.states, params);
    }
}
