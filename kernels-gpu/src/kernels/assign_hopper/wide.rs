//! Points of any number of dimensions: tiles of points and of centroids come in panels of 64 features.
//!
//! ```text
//! cluster of 2 blocks    256 points, 128 each; a pair of tiles of 128 centroids at a time
//! producer lane          a panel of one of the two tiles, by a bulk copy to both blocks, a ring of stages
//! 3 warps                copies of panels of 128 points: once an item if all of its panels have room, else for each
//!                        pair of tiles; results, one item behind
//! 2 warpgroups           64 points each; for each pair and panel, issue the products with both tiles and wait for
//!                        those of the panel before; after the last panel fold the tiles
//! ```
//! One warpgroup folds while the other multiplies. A panel brings a block 16 KiB of points and 16 KiB of
//! centroids from L2, and 16 KiB from its neighbour, for 128·256·64 products. With 128 points a block, those that come
//! again and again stay in L2.
use super::*;
use cuda_std::async_copy::cp_async_cg_16;

const SHARED: WideShared = WideShared::new();
/// Warps that multiply.
const WARPS: u32 = SHARED.rows.multipliers() / WARP_SIZE;

/// See [`super::assign_hopper`].
#[inline(always)]
pub(super) unsafe fn assign<C: Operand>(arrays: Arrays, listing: Listing, params: HopperParams) {
    let rows = Rows { shared: SHARED.rows, first: cluster_rank() * WIDE_POINTS };
    if thread_idx_x() == 0 {
        let mut stage = 0;
        while stage < WIDE_STAGES {
            barrier(SHARED.full.here(), stage).init(1);
            barrier(SHARED.empty.here(), stage).init(WIDE_CLUSTER * WARPS);
            barrier(SHARED.points_full.here(), stage).init(HOPPER_POINT_THREADS);
            barrier(SHARED.points_empty.here(), stage).init(WARPS);
            stage += 1;
        }
        barrier(SHARED.rows_full.here(), 0).init(HOPPER_POINT_THREADS);
        barrier(SHARED.rows_full.here(), 1).init(HOPPER_POINT_THREADS);
        rows.init(block_idx_x() / WIDE_CLUSTER, params);
        fence_mbarrier_init();
    }
    // Features past the pitch are never copied to: something finite there, to meet the zeros of the centroids.
    let words = SHARED.points.here();
    let mut word = thread_idx_x() * 4;
    let has_rest = !params.shape.pitch.is_multiple_of(HOPPER_PANEL_FEATURES);
    while has_rest && word < SHARED.points.bytes() {
        Shared::<u32>::of(words.address() + word).set(0, 0);
        word += SHARED.rows.threads() * 4;
    }
    fence_proxy_async();
    // The other block's barriers are there, too.
    cluster_sync();
    await_launch_before();

    if warp_id() < 4 {
        setmaxnreg_dec_56();
        if warp_id() == 0 {
            // One lane: others could fall behind it by more than a round of the ring, whose parity they would miss.
            if lane_id() == 0 {
                produce_centroids(rows, arrays, params);
            }
        } else {
            produce_points::<C>(rows, arrays, params);
        }
    } else {
        setmaxnreg_inc_224();
        consume::<C>(rows, listing, params);
    }
    // The other block may still copy to this one, and arrive at its barriers.
    cluster_sync();
}

/// The lane that copies centroids: its block's panels of each pair of tiles, as stages become free in both blocks, and
/// the pair's biases with the first.
#[inline(always)]
unsafe fn produce_centroids(rows: Rows, arrays: Arrays, params: HopperParams) {
    const { assert!(WIDE_TILES == 2 && WIDE_CLUSTER == 2) };
    let (tiles, panels) = (params.centroid_tiles(), hopper_panels(params.shape.d));
    let rank = cluster_rank();
    let mut ring = Ring::<WIDE_STAGES>(0);
    let mut slot = Ring::<WIDE_SLOTS>(0);
    let mut queue = Queue::<WIDE_CLUSTER>::new();
    loop {
        let item = queue.next(rows, arrays, params);
        if item == NO_ITEM {
            break;
        }
        let Item { batch, from, to, .. } = rows.of_unit(item, params);
        let first = batch as u64 * tiles as u64;
        let mut tile = from;
        while tile < to {
            let pair = if tile + 1 < to { 2 } else { 1 };
            let mut panel = 0;
            while panel < panels {
                ring.wait_empty(SHARED.empty.here());
                let full = barrier(SHARED.full.here(), ring.stage());
                let biases = if panel == 0 { pair * HOPPER_BIASES * 4 } else { 0 };
                full.arrive_expect_tx(pair * HOPPER_PANEL_BYTES + biases);
                if rank < pair {
                    let place = ((first + (tile + rank) as u64) * panels as u64 + panel as u64)
                        * HOPPER_PANEL_BYTES as u64;
                    let stage = SHARED.centroids.here().address() + ring.stage() * WIDE_CENTROID_BYTES;
                    bulk_copy_multicast(
                        stage + rank * HOPPER_PANEL_BYTES,
                        arrays.packed.cast::<u8>().add(place as usize),
                        HOPPER_PANEL_BYTES,
                        full,
                        0b11,
                    );
                }
                if panel == 0 {
                    bulk_copy(
                        SHARED.biases.here().add(slot.stage() * (WIDE_TILES * HOPPER_BIASES)).address(),
                        arrays.biases.add(((first + tile as u64) * HOPPER_BIASES as u64) as usize).cast(),
                        biases,
                        full,
                    );
                }
                ring = ring.next();
                panel += 1;
            }
            slot = slot.next();
            tile += WIDE_TILES;
        }
    }
}

/// The warps that copy points, in the order in which the products want them, and store results, one item behind.
#[inline(always)]
unsafe fn produce_points<C: Operand>(rows: Rows, arrays: Arrays, params: HopperParams) {
    let shape = params.shape;
    let panels = hopper_panels(shape.d);
    let me = thread_idx_x() - WARP_SIZE;
    // Eight threads a row, so that rows are read whole.
    let column = me % 8;
    // Biases of points in parts are sums in f64.
    let terms = if const { C::REFINES > 1 } { 0 } else { panels * HOPPER_PANEL_FEATURES };
    let mut ring = Ring::<WIDE_STAGES>(0);
    let mut known = Ring::<1>(0);
    let mut has_ended = false;
    let mut queue = Queue::<WIDE_CLUSTER>::new();
    loop {
        let item = queue.next(rows, arrays, params);
        // The item before the last has been found, and leaves its place to this one.
        if known.0 >= 2 {
            if const { C::LISTS } {
                rows.pass(Ring(known.0 - 2));
            } else if const { C::REFINES > 0 } {
                rows.store_again(Ring(known.0 - 2), arrays, params);
            } else {
                rows.store(Ring(known.0 - 2), arrays, params);
            }
        }
        if has_ended {
            break;
        }
        rows.begin(me, known, item);
        let here = rows.of_unit(item, params);
        if item != NO_ITEM {
            if const { C::LISTS } {
                rows.load_floors(me, terms, known, here, arrays, params);
            } else {
                rows.load::<C>(me, terms, known, here, arrays, params);
            }
        }
        // One of two in turns: a warp may be an item ahead of another, and must not arrive in its place.
        barrier(SHARED.rows_full.here(), known.0 % 2).arrive();
        has_ended = item == NO_ITEM;
        known = known.next();
        if has_ended {
            continue;
        }
        let rounds = if panels <= WIDE_STAGES { 1 } else { (here.to - here.from).div_ceil(WIDE_TILES) };
        let last = ring.0 + rounds * panels;
        let mut panel = 0;
        while ring.0 < last {
            ring.wait_empty(SHARED.points_empty.here());
            let feature = panel * HOPPER_PANEL_FEATURES + column * 8;
            let stage = SHARED.points.here().address() + ring.stage() * WIDE_POINT_BYTES;
            if feature >= shape.pitch {
                // Nothing is there.
            } else if const { C::REFINES == 1 } {
                let mut row = me / 8;
                while row < WIDE_POINTS {
                    let place = arrays.place_of::<C>(here.place(rows.first + row, shape));
                    let x = arrays.points.add(place * shape.pitch as usize);
                    let place = stage + row * 128 + (column ^ row & 7) * 16;
                    cp_async_cg_16(Shared::of(place), x.add(feature as usize));
                    row += HOPPER_POINT_THREADS / 8;
                }
            } else {
                let (first, rest) = here.place_and_rest(rows.first, shape);
                let from = arrays.points.add(first * shape.pitch as usize + feature as usize);
                copy_rows::<C>(stage, me / 8, column, from, rest, shape.pitch);
            }
            barrier(SHARED.points_full.here(), ring.stage()).arrive_after_copies();
            ring = ring.next();
            panel = if panel + 1 < panels { panel + 1 } else { 0 };
        }
    }
}

/// Starts the copies of a chunk of the rows of a panel, from row `row` on every so many: of the points that begin at `from`, of
/// which `rest` come after the first. Each is to cost little, for the products wait for all of them.
#[inline(always)]
unsafe fn copy_rows<C: Operand>(
    stage: u32,
    mut row: u32,
    column: u32,
    from: *const u16,
    rest: u32,
    pitch: u32,
) {
    const STEP: u32 = HOPPER_POINT_THREADS / 8;
    const { assert!(STEP % 8 == 4) };
    let swizzled = stage + (column ^ row & 7) * 16;
    // Few points are assigned again, by a kernel that has no registers left.
    if const { C::REFINES == 0 } && rest + 1 >= WIDE_POINTS {
        // All rows are there. One offset after the other: all at once would take a register each.
        let to = swizzled + row * 128;
        let (mut place, step) = (row * pitch, STEP * pitch);
        const { assert!(WIDE_POINTS.div_ceil(STEP) == 11) };
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10] => {
            if I < 10 || row + 10 * STEP < WIDE_POINTS {
                let to = (to ^ (I as u32 % 2 * 64)) + I as u32 * (STEP * 128);
                cp_async_cg_16(Shared::of(to), from.add(place as usize));
            }
            place = opaque(place + step);
        });
        return;
    }
    while row < WIDE_POINTS {
        unroll!(I in [0, 1] => {
            // Chunks change places every four rows.
            let to = (swizzled ^ (I as u32 * 64)) + (row + I as u32 * STEP) * 128;
            let below = row + I as u32 * STEP;
            let place = if below < rest { below } else { rest } as usize * pitch as usize;
            if I == 0 || below < WIDE_POINTS {
                cp_async_cg_16(Shared::of(to), from.add(place));
            }
        });
        row += 2 * STEP;
    }
}

/// A multiplying warpgroup.
#[inline(always)]
unsafe fn consume<C: Operand>(rows: Rows, listing: Listing, params: HopperParams) {
    let warp = warp_id() - HOPPER_FIRST_WARP;
    // The thread's first row in the block; the other is 8 below.
    let row = warp * 16 + lane_id() / 4;
    let quarter = lane_id() & 3;
    let panels = hopper_panels(params.shape.d);
    let resident = panels <= WIDE_STAGES;
    let mut ring = Ring::<WIDE_STAGES>(0);
    let mut points = Ring::<WIDE_STAGES>(0);
    let mut slot = Ring::<WIDE_SLOTS>(0);
    let mut items = Ring::<1>(0);

    let mut scores: [Scores; 2] = [[0.0; 64]; 2];
    let mut lister = Lister::new(listing, params);
    loop {
        Ring::<2>(items.0).wait_full(SHARED.rows_full.here());
        if !rows.is_item(items) {
            break;
        }
        if const { C::LISTS } {
            lister.begin(rows.item(items, params), listing);
        }
        let bounds = rows.bounds(items, row);
        let scale = rows.scale(items);
        let mut share = 0.0;
        let mut nearest = [Nearest::NONE; 2];
        let floors = rows.floors(items, row);
        let mut floors = [floors.get(0), floors.get(8)];
        let Item { from, to, .. } = rows.item(items, params);
        let mut tile = from;
        while tile < to {
            let [scores_0, scores_1] = &mut scores;
            // Points that stay are released with the last tiles.
            let frees_points = !resident || tile + WIDE_TILES >= to;
            let awaits_points = !resident || tile == from;
            if const { C::REFINES > 0 } {
                [*scores_0, *scores_1] = [[0.0; 64]; 2];
                add_panel::<C>(scores_0, scores_1, points, ring, awaits_points);
                let mut panel = 1;
                while panel < panels {
                    release(points, ring, frees_points);
                    points = points.next();
                    ring = ring.next();
                    add_panel::<C>(scores_0, scores_1, points, ring, awaits_points);
                    panel += 1;
                }
            } else {
                multiply::<C, 0>(scores_0, scores_1, points, ring, awaits_points);
                let mut panel = 1;
                while panel < panels {
                    let (points_before, before) = (points, ring);
                    points = points.next();
                    ring = ring.next();
                    multiply::<C, 1>(scores_0, scores_1, points, ring, awaits_points);
                    // The products of the panel before are done; those of this one go on.
                    wgmma_wait_reads::<1>();
                    release(points_before, before, frees_points);
                    panel += 1;
                }
                wgmma_wait::<0>(scores_0);
                wgmma_wait::<0>(scores_1);
            }
            release(points, ring, frees_points);
            ring = ring.next();
            points = if frees_points { points.next() } else { Ring(points.0 + 1 - panels) };
            let biases = slot.stage() * (WIDE_TILES * HOPPER_BIASES) + quarter * HOPPER_BIAS_PITCH;
            let biases = SHARED.biases.here().add(biases);
            let column = tile * HOPPER_CENTROIDS + quarter * 2;
            if const { C::LISTS } {
                let row = rows.first + row;
                lister.list_tile(scores_0, biases, column, row, floors);
                if tile + 1 < to {
                    let biases = biases.add(HOPPER_BIASES);
                    lister.list_tile(scores_1, biases, column + HOPPER_CENTROIDS, row, floors);
                }
            } else {
                let [a, b] = &mut nearest;
                share = fold_tile(scores_0, biases, column, [a, b], &mut floors, bounds, scale, share);
                if tile + 1 < to {
                    let biases = biases.add(HOPPER_BIASES);
                    let column = column + HOPPER_CENTROIDS;
                    share = fold_tile(scores_1, biases, column, [a, b], &mut floors, bounds, scale, share);
                }
            }
            slot = slot.next();
            tile += WIDE_TILES;
        }
        items.wait_empty(rows.shared.results_empty.here());
        if const { !C::LISTS } {
            rows.publish(row, 0, nearest[0], share_of_bound(share, bounds.get(0)));
            rows.publish(row, 8, nearest[1], share_of_bound(share, bounds.get(8)));
        }
        barrier(rows.shared.results_full.here(), 0).arrive();
        items = items.next();
    }
    if const { C::LISTS } {
        lister.places.end(lister.pairs);
    }
}

/// A panel of points and of both tiles, once it is there.
#[inline(always)]
unsafe fn panel_of(
    points: Ring<WIDE_STAGES>,
    ring: Ring<WIDE_STAGES>,
    awaits_points: bool,
) -> (Descriptor, Descriptor) {
    if awaits_points {
        points.wait_full(SHARED.points_full.here());
        // Points were written as ordinary stores are; products read them as bulk copies write.
        fence_proxy_async();
    }
    ring.wait_full(SHARED.full.here());
    let warpgroup = (warp_id() - HOPPER_FIRST_WARP) / 4;
    let x = SHARED.points.here().address() + points.stage() * WIDE_POINT_BYTES + warpgroup * (64 * 128);
    let x = Descriptor::swizzled_128b(x);
    // A tile that is not there is what the one before left; nobody looks at its scores.
    let c = SHARED.centroids.here().address() + ring.stage() * WIDE_CENTROID_BYTES;
    (x, Descriptor::swizzled_128b(c))
}

/// Adds the products of a panel of points with both tiles to the scores, in f32.
#[inline(always)]
unsafe fn add_panel<C: Operand>(
    scores_0: &mut Scores,
    scores_1: &mut Scores,
    points: Ring<WIDE_STAGES>,
    ring: Ring<WIDE_STAGES>,
    awaits_points: bool,
) {
    let (x, c) = panel_of(points, ring, awaits_points);
    add_products::<C, 0>(scores_0, x, c);
    add_products::<C, HOPPER_PANEL_BYTES>(scores_1, x, c);
}

/// The same with one tile, so many bytes into the panel.
#[inline(always)]
unsafe fn add_products<C: Operand, const TILE: u32>(scores: &mut Scores, x: Descriptor, c: Descriptor) {
    let mut products = [0.0; 64];
    wgmma_fence();
    unroll!(S in [0, 1, 2, 3] => {
        const STEP: u32 = S as u32 * 32;
        C::Scalar::wgmma_m64n128k16_shared(&mut products, x.at(STEP), c.at(TILE + STEP), S as u32);
    });
    wgmma_commit();
    wgmma_wait::<0>(&mut products);
    unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] => {
        unroll!(I in [0, 1, 2, 3] => { scores[J * 4 + I] += products[J * 4 + I]; });
    });
}

/// Issues the products of a panel of points with both tiles, once it is there. With `ADD` of 0 they begin the scores.
#[inline(always)]
unsafe fn multiply<C: Operand, const ADD: u32>(
    scores_0: &mut Scores,
    scores_1: &mut Scores,
    points: Ring<WIDE_STAGES>,
    ring: Ring<WIDE_STAGES>,
    awaits_points: bool,
) {
    let (x, c) = panel_of(points, ring, awaits_points);
    wgmma_fence();
    unroll!(S in [0, 1, 2, 3] => {
        const STEP: u32 = S as u32 * 32;
        // Shared memory is read less for one product with both tiles than for one with each: the points once.
        C::Scalar::wgmma_m64n256k16_shared([scores_0, scores_1], x.at(STEP), c.at(STEP), ADD | S as u32);
    });
    wgmma_commit();
}

/// The warp is done with a stage of centroids, which both blocks' copies fill, and with one of points unless they stay.
#[inline(always)]
unsafe fn release(points: Ring<WIDE_STAGES>, ring: Ring<WIDE_STAGES>, frees_points: bool) {
    sync_warp(FULL_MASK);
    if lane_id() < WIDE_CLUSTER {
        barrier(SHARED.empty.here(), ring.stage()).arrive_at(lane_id());
    }
    if frees_points && lane_id() == 0 {
        barrier(SHARED.points_empty.here(), points.stage()).arrive();
    }
}

/// Folds a tile into two of the thread's rows. Returns the share of bounds that counts from here on.
#[inline(always)]
unsafe fn fold_tile(
    scores: &mut Scores,
    biases: Shared<f32>,
    column: u32,
    nearest: [&mut Nearest; 2],
    floors: &mut [f32; 2],
    bounds: Shared<f32>,
    scale: Shared<f32>,
    share: f32,
) -> f32 {
    let limits = Limits::new(biases, *floors, bounds, scale, share);
    let looked = look(scores, biases, limits);
    if looked.matters { take(looked, limits, column, nearest, floors) } else { share }
}
