//! Points of up to 128 dimensions: they stay in registers while all centroids go by.
//!
//! ```text
//! producer warp    bulk copies of tiles of 128 centroids, a ring of stages
//! 3 warps          copies of 192 points, one item ahead; results, one item behind
//! 3 warpgroups     64 points each, in registers for the whole item; for each tile:
//!                    wait for its products and look at the scores
//!                    issue the products with the next tile    (asynchronous)
//!                    take what was found, and prepare the next look, meanwhile
//! ```
//! To look takes about as long as two warpgroups' products, most of it latency: while one looks, the others keep the tensor
//! cores busy. 192 points share a tile, so a tile's bytes cross from L2 once for 192·128 scores.
use super::*;
use cuda_std::async_copy::cp_async_cg_16;
use cuda_std::mma::ldmatrix_x4;

/// Of an item's first tiles all columns are searched: some of each group are the best so far of one of a warp's 16 rows.
const EARLY_TILES: u32 = 2;

/// See [`super::assign_hopper`].
#[inline(always)]
pub(super) unsafe fn assign<C: Operand>(arrays: Arrays, listing: Listing, params: HopperParams) {
    let shared = const { HopperShared::new(C::STEPS) };
    if thread_idx_x() == 0 {
        let mut stage = 0;
        while stage < shared.stages {
            barrier(shared.full.here(), stage).init(1);
            barrier(shared.empty.here(), stage).init(shared.rows.multipliers() / WARP_SIZE);
            stage += 1;
        }
        // Each copying thread arrives for what it stores and once more for what it copies.
        barrier(shared.points_full.here(), 0).init(2 * HOPPER_POINT_THREADS);
        // Every thread that has read points says so itself: once an item, which costs nothing.
        barrier(shared.points_empty.here(), 0).init(shared.rows.multipliers());
        Rows { shared: shared.rows, first: 0 }.init(block_idx_x(), params);
        fence_mbarrier_init();
    }
    // Features past the pitch are never copied to: zeros there, so that nothing non-finite meets the zeros of
    // the centroids.
    let words = shared.points.here();
    let mut word = thread_idx_x() * 4;
    let has_rest = params.shape.pitch < C::STEPS * HOPPER_STEP_FEATURES;
    while has_rest && word < shared.points.bytes() {
        Shared::<u32>::of(words.address() + word).set(0, 0);
        word += shared.rows.threads() * 4;
    }
    fence_proxy_async();
    sync_threads();
    await_launch_before();

    if warp_id() < 4 {
        setmaxnreg_dec_56();
        if warp_id() == 0 {
            // One lane: others could fall behind it by more than a round of the ring, whose parity they would miss.
            if lane_id() == 0 {
                produce_centroids::<C>(arrays, params);
            }
        } else {
            produce_points::<C>(arrays, params);
        }
    } else {
        setmaxnreg_inc_152();
        if const { C::LISTS } {
            list::<C>(listing, params);
        } else {
            consume::<C>(params);
        }
    }
}

/// The lane that copies centroids: tiles, as stages become free. Bulk copies need no more.
#[inline(always)]
unsafe fn produce_centroids<C: Operand>(arrays: Arrays, params: HopperParams) {
    let shared = const { HopperShared::new(C::STEPS) };
    let mut ring = Ring::<HOPPER_STAGES>(0);
    let mut queue = Queue::<1>::new();
    let rows = Rows { shared: shared.rows, first: 0 };
    loop {
        let item = queue.next(rows, arrays, params);
        if item == NO_ITEM {
            break;
        }
        let Item { batch, from, to, .. } = rows.of_unit(item, params);
        let mut tile = from;
        while tile < to {
            ring.wait_empty(shared.empty.here());
            let full = barrier(shared.full.here(), ring.stage());
            let tile_of_all = batch as u64 * params.centroid_tiles() as u64 + tile as u64;
            full.arrive_expect_tx(shared.stage_bytes + HOPPER_BIASES * 4);
            bulk_copy(
                shared.centroids.here().address() + ring.stage() * shared.stage_bytes,
                arrays.packed.cast::<u8>().add((tile_of_all * shared.stage_bytes as u64) as usize),
                shared.stage_bytes,
                full,
            );
            bulk_copy(
                shared.biases.here().add(ring.stage() * HOPPER_BIASES).address(),
                arrays.biases.add((tile_of_all * HOPPER_BIASES as u64) as usize).cast(),
                HOPPER_BIASES * 4,
                full,
            );
            ring = ring.next();
            tile += 1;
        }
    }
}

/// The warps that copy points, one item ahead, with all that the consumers would have to wait for, and store results,
/// one item behind. 16 bytes a copy, since a bulk copy a row takes the copy engine longer.
#[inline(always)]
unsafe fn produce_points<C: Operand>(arrays: Arrays, params: HopperParams) {
    let shared = const { HopperShared::new(C::STEPS) };
    let rows = Rows { shared: shared.rows, first: 0 };
    let shape = params.shape;
    let me = thread_idx_x() - WARP_SIZE;
    // So many threads copy a row together, a chunk each.
    let lanes = const { (C::STEPS * HOPPER_STEP_FEATURES / 8).next_power_of_two() };
    let (column, chunks) = (me % lanes, shape.pitch / 8);
    let terms = C::STEPS * HOPPER_STEP_FEATURES;
    let mut ring = Ring::<1>(0);
    let mut queue = Queue::<1>::new();
    loop {
        let item = queue.next(rows, arrays, params);
        rows.begin(me, ring, item);
        let here = rows.of_unit(item, params);
        ring.wait_empty(shared.points_empty.here());
        let step = HOPPER_POINT_THREADS / lanes;
        let (first, rest) = here.place_and_rest(0, shape);
        let from = arrays.points.add(first * shape.pitch as usize + column as usize * 8);
        let to = shared.points.here().address() + column * 16;
        let mut row = if item == NO_ITEM || column >= chunks { NARROW_POINTS } else { me / lanes };
        while row < NARROW_POINTS {
            unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                let below = row + I as u32 * step;
                let place = if below < rest { below } else { rest } as usize * shape.pitch as usize;
                cp_async_cg_16(Shared::of(to + below * shared.row_bytes), from.add(place));
            });
            // A row takes 8 threads at least.
            const { assert!(NARROW_POINTS.is_multiple_of(HOPPER_POINT_THREADS)) };
            row += 8 * step;
        }
        let full = barrier(shared.points_full.here(), 0);
        full.arrive_after_copies();
        if item != NO_ITEM {
            if const { C::LISTS } {
                rows.load_floors(me, terms, ring, here, arrays, params);
            } else {
                rows.load::<C>(me, terms, ring, here, arrays, params);
            }
        }
        full.arrive();
        // Found while this item was copied, and stored while it is multiplied.
        if ring.0 > 0 {
            if const { C::LISTS } {
                rows.pass(Ring(ring.0 - 1));
            } else {
                rows.store(Ring(ring.0 - 1), arrays, params);
            }
        }
        if item == NO_ITEM {
            break;
        }
        ring = ring.next();
    }
}

/// A multiplying warpgroup.
#[inline(always)]
unsafe fn consume<C: Operand>(params: HopperParams) {
    let shared = const { HopperShared::new(C::STEPS) };
    let warp = warp_id() - HOPPER_FIRST_WARP;
    let rows = Rows { shared: shared.rows, first: 0 };
    // The thread's first row in the tile; the other is 8 below.
    let row = warp * 16 + lane_id() / 4;
    let quarter = lane_id() & 3;
    let mut ring = Ring::<HOPPER_STAGES>(0);
    let mut items = Ring::<1>(0);

    let mut scores: Scores = [0.0; 64];
    loop {
        items.wait_full(shared.points_full.here());
        if !rows.is_item(items) {
            break;
        }
        let x = load_points::<C>(warp);
        barrier(shared.points_empty.here(), 0).arrive();
        let (bounds, scale) = (rows.bounds(items, row), rows.scale(items));
        let mut nearest = [Nearest::NONE; 2];
        let floors = rows.floors(items, row);
        let mut floors = [floors.get(0), floors.get(8)];
        let mut share = 0.0;
        let Item { from, to, .. } = rows.item(items, params);
        let mut tile = from;
        ring.wait_full(shared.full.here());
        multiply::<C>(&mut scores, &x, ring.stage());
        loop {
            let biases = shared.biases.here().add(ring.stage() * HOPPER_BIASES + quarter * HOPPER_BIAS_PITCH);
            let column = tile * HOPPER_CENTROIDS + quarter * 2;
            let limits = Limits::new(biases, floors, bounds, scale, share);
            wgmma_wait::<0>(&mut scores);
            let looked = if tile - from < EARLY_TILES {
                look_at_all(&mut scores, biases, limits)
            } else {
                look(&mut scores, biases, limits)
            };
            ring.release(shared.empty.here());
            ring = ring.next();
            tile += 1;
            let is_last = tile >= to;
            if !is_last {
                // While these products run, what was found is taken.
                ring.wait_full(shared.full.here());
                multiply::<C>(&mut scores, &x, ring.stage());
            }
            let [a, b] = &mut nearest;
            if opaque(looked.matters as u32) != 0 {
                share = take(looked, limits, column, [a, b], &mut floors);
            }
            if is_last {
                break;
            }
        }
        // None are running: said for ptxas, which would wait within the loop for what may.
        wgmma_wait::<0>(&mut scores);
        items.wait_empty(rows.shared.results_empty.here());
        rows.publish(row, 0, nearest[0], share_of_bound(share, bounds.get(0)));
        rows.publish(row, 8, nearest[1], share_of_bound(share, bounds.get(8)));
        barrier(rows.shared.results_full.here(), 0).arrive();
        items = items.next();
    }
}

/// A multiplying warpgroup that lists pairs.
#[inline(always)]
unsafe fn list<C: Operand>(listing: Listing, params: HopperParams) {
    let shared = const { HopperShared::new(C::STEPS) };
    let warp = warp_id() - HOPPER_FIRST_WARP;
    let rows = Rows { shared: shared.rows, first: 0 };
    // The thread's first row in the tile; the other is 8 below.
    let row = warp * 16 + lane_id() / 4;
    let quarter = lane_id() & 3;
    let tiles = params.centroid_tiles();
    let mut ring = Ring::<HOPPER_STAGES>(0);
    let mut items = Ring::<1>(0);

    let mut scores: Scores = [0.0; 64];
    let mut lister = Lister::new(listing, params);
    loop {
        items.wait_full(shared.points_full.here());
        if !rows.is_item(items) {
            break;
        }
        lister.begin(rows.item(items, params), listing);
        let x = load_points::<C>(warp);
        barrier(shared.points_empty.here(), 0).arrive();
        let floors = rows.floors(items, row);
        let floors = [floors.get(0), floors.get(8)];
        let mut tile = 0;
        while tile < tiles {
            ring.wait_full(shared.full.here());
            multiply::<C>(&mut scores, &x, ring.stage());
            wgmma_wait::<0>(&mut scores);

            let biases = shared.biases.here().add(ring.stage() * HOPPER_BIASES + quarter * HOPPER_BIAS_PITCH);
            lister.list_tile(&scores, biases, tile * HOPPER_CENTROIDS + quarter * 2, row, floors);
            ring.release(shared.empty.here());
            ring = ring.next();
            tile += 1;
        }
        items.wait_empty(rows.shared.results_empty.here());
        barrier(rows.shared.results_full.here(), 0).arrive();
        items = items.next();
    }
    lister.places.end(lister.pairs);
}

/// The warp's points.
#[inline(always)]
unsafe fn load_points<C: Operand>(warp: u32) -> [[u32; 4]; HOPPER_MAX_STEPS as usize] {
    let shared = const { HopperShared::new(C::STEPS) };
    let mut x = [[0u32; 4]; HOPPER_MAX_STEPS as usize];
    let row = warp * 16 + lane_id() % 16;
    let address = shared.points.here().address() + row * shared.row_bytes + lane_id() / 16 * 16;
    unroll!(S in [0, 1, 2, 3, 4, 5, 6, 7] => {
        if (S as u32) < C::STEPS {
            x[S] = ldmatrix_x4(Shared::<u32>::of(address + S as u32 * 32));
        }
    });
    x
}

/// Issues the products of the warpgroup's points with the tile of a stage.
#[inline(always)]
unsafe fn multiply<C: Operand>(scores: &mut Scores, x: &[[u32; 4]; HOPPER_MAX_STEPS as usize], stage: u32) {
    let shared = const { HopperShared::new(C::STEPS) };
    let centroids = Descriptor::swizzled_128b(shared.centroids.here().address() + stage * shared.stage_bytes);
    wgmma_fence();
    C::Scalar::wgmma_m64n128k16::<false>(scores, &x[0], centroids.at(0));
    unroll!(S in [1, 2, 3, 4, 5, 6, 7] => {
        if (S as u32) < C::STEPS {
            // Four steps of 32 bytes cross a panel's rows.
            let offset = S as u32 / 4 * HOPPER_PANEL_BYTES + S as u32 % 4 * 32;
            C::Scalar::wgmma_m64n128k16::<true>(scores, &x[S], centroids.at(offset));
        }
    });
    wgmma_commit();
}
