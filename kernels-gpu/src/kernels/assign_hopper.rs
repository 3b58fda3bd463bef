//! FlashAssign on Hopper's tensor cores, for 16-bit points of up to 128 dimensions.
//!
//! ```text
//! label(i) = argmax_k  x_i·c_k − ½‖c_k‖²        the same argument as the nearest: ‖x‖² is common to all k
//!
//! producer warp    bulk copies: 256 points once an item, then tiles of 128 centroids, a ring of stages
//! 2 warpgroups     128 points each, in registers for the whole item; for each tile:
//!                    issue products of points 0..64    (asynchronous)
//!                    issue products of points 64..128  (asynchronous)
//!                    wait for the first, fold its scores while the second runs; wait, fold
//! ```
//! Two halves and two warpgroups keep the tensor cores busy while scores are folded. 256 points share a tile, so
//! a tile's bytes cross from L2 once for 256·128 scores.
//!
//! # Exactness
//! Products of 16-bit values are exact in f32; their sum is not. With `u = 2⁻²⁴`, a tensor core adds 16 products
//! to an accumulator with at most 18 truncations of one part in `2⁻²³` of a partial sum, none of which exceeds
//! `‖x‖‖c‖`, so a score is within
//!
//! ```text
//! γ‖x‖‖c‖ + u‖x‖‖c‖ + 3u·½‖c‖²,   γ = 1.25·(d + 16)·2⁻²³
//! ```
//! of the true one (the sum, the final addition, the bias). Two scores further apart than twice that are in the
//! right order. A point with more than one centroid inside goes on a list with its two candidates, or with word
//! that there are more, and `settle` decides in f64. The fold counts such centroids at no cost: the search for
//! the best one's index looks for scores within the bound of it, and adds up how many and which.
use crate::spec::*;
use cuda_std::async_copy::cp_async_cg_16;
use cuda_std::atomic;
use cuda_std::float::{at_least, fma, max, sqrt};
use cuda_std::mma::ldmatrix_x4;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;
use cuda_std::wgmma::*;

/// A row of the table whose points the tensor cores multiply.
pub(super) trait Operand: HopperOperand<Scalar: TensorScalar> {}
impl<C: HopperOperand<Scalar: TensorScalar>> Operand for C {}

/// The products of a half of a warpgroup's points with a tile: thread `l` of warp `w` has rows
/// `16w + l/4` (values 4j, 4j+1) and 8 below (4j+2, 4j+3), columns `8j + 2(l%4)` and the next.
type Scores = [f32; 64];

/// A point's best centroid so far, in one thread's columns.
#[derive(Clone, Copy)]
struct Nearest {
    score: f32,
    label: u32,
    /// Another centroid within the bound, [`NO_CANDIDATE`] or [`MANY_CANDIDATES`].
    other: u32,
}

impl Nearest {
    const NONE: Nearest = Nearest { score: f32::NEG_INFINITY, label: NO_CANDIDATE, other: NO_CANDIDATE };

    /// Takes the best score of a tile; `found` counts the centroids within `bound` of it in its upper half, and
    /// adds up their columns in its lower.
    #[inline(always)]
    fn fold(&mut self, score: f32, found: u32, first_column: u32, bound: f32) {
        let one = found >> 16 == 1;
        let label = first_column + (found & 0xffff);
        let near = score > self.score - bound;
        let clear = score > self.score + bound;
        let known = one && self.other == NO_CANDIDATE;
        let when_clear = if one { NO_CANDIDATE } else { MANY_CANDIDATES };
        let when_near = if known { label } else { MANY_CANDIDATES };
        self.other = if clear {
            when_clear
        } else if near {
            when_near
        } else {
            self.other
        };
        self.label = if clear { label } else { self.label };
        self.score = if score > self.score { score } else { self.score };
    }

    /// Takes another lane's result.
    #[inline(always)]
    fn merge(&mut self, with: Nearest, bound: f32) {
        let near = with.score > self.score - bound;
        let clear = with.score > self.score + bound;
        let both_known = self.other == NO_CANDIDATE && with.other == NO_CANDIDATE;
        let when_near = if both_known { with.label } else { MANY_CANDIDATES };
        self.other = if clear {
            with.other
        } else if near {
            when_near
        } else {
            self.other
        };
        self.label = if clear { with.label } else { self.label };
        self.score = if with.score > self.score { with.score } else { self.score };
    }
}

/// Labels of the points that are sure, a list of the others, and each warp's statistics.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, `points` and `packed` aligned to 16 bytes; a block has
/// [`HOPPER_THREADS`] threads; `hopper_steps(d)` is `C::STEPS`.
#[inline(always)]
pub(super) unsafe fn assign_hopper<C: Operand>(
    points: *const u16,
    packed: *const u16,
    biases: *const f32,
    norms: *const f32,
    largest: *const u32,
    states: *const LoopState,
    labels: *mut u32,
    cost: *mut f64,
    changed: *mut u32,
    list_counts: *mut u32,
    list_rows: *mut u32,
    list_first: *mut u32,
    list_second: *mut u32,
    params: HopperParams,
) {
    let shared = const { HopperShared::new(C::STEPS) };
    let list = List { counts: list_counts, rows: list_rows, first: list_first, second: list_second };
    if thread_idx_x() == 0 {
        let mut stage = 0;
        while stage < shared.stages {
            barrier(shared.full.here(), stage).init(1);
            barrier(shared.empty.here(), stage).init(HOPPER_WARPS);
            stage += 1;
        }
        // Each copying thread arrives for what it stores and once more for what it copies.
        barrier(shared.points_full.here(), 0).init(2 * HOPPER_POINT_THREADS);
        // Every thread that has read points says so itself: once an item, which costs nothing.
        barrier(shared.points_empty.here(), 0).init(HOPPER_WARPS * WARP_SIZE);
        fence_mbarrier_init();
    }
    // Features past the pitch are never copied to: zeros there, so that nothing non-finite meets the zeros of
    // the centroids.
    let words = shared.points.here();
    let mut word = thread_idx_x() * 4;
    while word < shared.points.bytes() {
        Shared::<u32>::of(words.address() + word).set(0, 0);
        word += HOPPER_THREADS * 4;
    }
    fence_proxy_async();
    sync_threads();

    if warp_id() < 4 {
        setmaxnreg_dec_40();
        if warp_id() == 0 {
            produce_centroids::<C>(packed, biases, states, params);
        } else {
            produce_points::<C>(points, norms, labels, states, params);
        }
    } else {
        setmaxnreg_inc_232();
        consume::<C>(largest, states, labels, cost, changed, list, params);
    }
}

/// The four rows of a thread, from its first.
const ROW_OF: [u32; 4] = [0, 8, 64, 72];

/// Where points that are not sure are listed.
#[derive(Clone, Copy)]
struct List {
    counts: *mut u32,
    rows: *mut u32,
    first: *mut u32,
    second: *mut u32,
}

#[inline(always)]
fn barrier(slot: Shared<u64>, index: u32) -> Mbarrier {
    Mbarrier::at(slot.add(index).address())
}

/// A place in a ring of stages, and the parity of its round.
#[derive(Clone, Copy)]
struct Ring {
    stage: u32,
    parity: u32,
}

impl Ring {
    #[inline(always)]
    fn advance(&mut self, stages: u32) {
        self.stage += 1;
        if self.stage == stages {
            self.stage = 0;
            self.parity ^= 1;
        }
    }
}

/// The warp that copies centroids: tiles, as stages become free. Bulk copies, which one lane starts.
#[inline(always)]
unsafe fn produce_centroids<C: Operand>(
    packed: *const u16,
    biases: *const f32,
    states: *const LoopState,
    params: HopperParams,
) {
    let shared = const { HopperShared::new(C::STEPS) };
    let tiles = params.centroid_tiles();
    // A fresh barrier's phase before the first counts as complete: the first round does not wait.
    let mut ring = Ring { stage: 0, parity: 1 };
    let mut item = next_item(block_idx_x() as u64, states, params);
    while item < params.blocks() {
        let batch = div_u64(item, params.tiles() as u64);
        let mut tile = 0;
        while tile < tiles {
            barrier(shared.empty.here(), ring.stage).wait(ring.parity);
            if lane_id() == 0 {
                let full = barrier(shared.full.here(), ring.stage);
                let tile_of_all = batch * tiles as u64 + tile as u64;
                full.arrive_expect_tx(shared.stage_bytes + HOPPER_BIASES * 4);
                bulk_copy(
                    shared.centroids.here().address() + ring.stage * shared.stage_bytes,
                    packed.cast::<u8>().add((tile_of_all * shared.stage_bytes as u64) as usize),
                    shared.stage_bytes,
                    full,
                );
                bulk_copy(
                    shared.biases.here().add(ring.stage * HOPPER_BIASES).address(),
                    biases.add((tile_of_all * HOPPER_BIASES as u64) as usize).cast(),
                    HOPPER_BIASES * 4,
                    full,
                );
            }
            ring.advance(shared.stages);
            tile += 1;
        }
        item = next_item(item + grid_dim_x() as u64, states, params);
    }
}

/// The warps that copy points, one item ahead, with all that the consumers would have to wait for: norms, and the
/// labels to compare with. 16 bytes a copy, since a bulk copy a row takes the copy engine longer.
#[inline(always)]
unsafe fn produce_points<C: Operand>(
    points: *const u16,
    norms: *const f32,
    labels: *const u32,
    states: *const LoopState,
    params: HopperParams,
) {
    let shared = const { HopperShared::new(C::STEPS) };
    let shape = params.shape;
    let chunks = shape.pitch / 8;
    let me = thread_idx_x() - WARP_SIZE;
    let mut ring = Ring { stage: 0, parity: 1 };
    let mut buffer = 0;
    let mut item = next_item(block_idx_x() as u64, states, params);
    while item < params.blocks() {
        let batch = div_u64(item, params.tiles() as u64);
        let first = (item - batch * params.tiles() as u64) as u32 * HOPPER_POINTS;
        let before = batch * shape.n as u64;
        barrier(shared.points_empty.here(), 0).wait(ring.parity);
        ring.advance(1);
        let mut chunk = me;
        while chunk < HOPPER_POINTS * chunks {
            let row = div(chunk, chunks);
            // Rows past the last are the last again; nobody looks at them.
            let point = if first + row < shape.n { first + row } else { shape.n - 1 };
            let x = points.add(((before + point as u64) * shape.pitch as u64) as usize);
            let column = chunk - row * chunks;
            let place = shared.points.here().address() + row * shared.row_bytes + column * 16;
            cp_async_cg_16(Shared::of(place), x.add(column as usize * 8));
            chunk += HOPPER_POINT_THREADS;
        }
        let full = barrier(shared.points_full.here(), 0);
        full.arrive_after_copies();
        let mut row = me;
        while row < HOPPER_POINTS {
            let point = if first + row < shape.n { first + row } else { shape.n - 1 };
            let place = (before + point as u64) as usize;
            shared.norms.here().set(buffer + row, *norms.add(place));
            shared.labels.here().set(buffer + row, *labels.add(place));
            row += HOPPER_POINT_THREADS;
        }
        full.arrive();
        buffer ^= HOPPER_POINTS;
        item = next_item(item + grid_dim_x() as u64, states, params);
    }
}

/// The next item whose problem is not done.
#[inline(always)]
unsafe fn next_item(mut item: u64, states: *const LoopState, params: HopperParams) -> u64 {
    while item < params.blocks() && (*states.add(div_u64(item, params.tiles() as u64) as usize)).done != 0 {
        item += grid_dim_x() as u64;
    }
    item
}

/// A multiplying warpgroup.
#[inline(always)]
unsafe fn consume<C: Operand>(
    largest: *const u32,
    states: *const LoopState,
    labels: *mut u32,
    cost: *mut f64,
    changed: *mut u32,
    list: List,
    params: HopperParams,
) {
    let shared = const { HopperShared::new(C::STEPS) };
    let shape = params.shape;
    let warp = warp_id() - 4;
    // The thread's first row in the tile; the others are 8, 64 and 72 below.
    let row = warp / 4 * 128 + warp % 4 * 16 + lane_id() / 4;
    let quarter = lane_id() & 3;
    let tiles = params.centroid_tiles();
    let items = params.blocks();
    let mut ring = Ring { stage: 0, parity: 0 };
    let mut points_parity = 0;
    let mut buffer = 0;

    let mut scores: [Scores; 2] = [[0.0; 64]; 2];
    let mut item = next_item(block_idx_x() as u64, states, params);
    while item < items {
        let batch = div_u64(item, params.tiles() as u64);
        let first = (item - batch * params.tiles() as u64) as u32 * HOPPER_POINTS;

        barrier(shared.points_full.here(), 0).wait(points_parity);
        points_parity ^= 1;
        let mut x = [[[0u32; 4]; HOPPER_MAX_STEPS as usize]; 2];
        let address = shared.points.here().address()
            + (warp / 4 * 128 + warp % 4 * 16 + lane_id() % 16) * shared.row_bytes
            + lane_id() / 16 * 16;
        unroll!(S in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if (S as u32) < C::STEPS {
                x[0][S] = ldmatrix_x4(Shared::<u32>::of(address + S as u32 * 32));
                x[1][S] = ldmatrix_x4(Shared::<u32>::of(address + 64 * shared.row_bytes + S as u32 * 32));
            }
        });
        barrier(shared.points_empty.here(), 0).arrive();

        let points_before = batch * shape.n as u64;
        let largest = f32::from_bits(*largest.add(batch as usize * 2 + params.slot as usize));
        let mut bounds = [0.0f32; 4];
        unroll!(R in [0, 1, 2, 3] => {
            let square = shared.norms.here().get(buffer + row + ROW_OF[R]);
            bounds[R] = bound::<C>(sqrt(square), largest);
        });

        let mut nearest = [Nearest::NONE; 4];
        // The best score of the four lanes that share a row: what a new one must come near to matter.
        let mut floors = [f32::NEG_INFINITY; 4];
        let mut tile = 0;
        while tile < tiles {
            barrier(shared.full.here(), ring.stage).wait(ring.parity);
            let centroids =
                swizzled_128b(shared.centroids.here().address() + ring.stage * shared.stage_bytes);
            let [scores_0, scores_1] = &mut scores;
            wgmma_fence();
            multiply::<C>(scores_0, &x[0], centroids);
            wgmma_commit();
            multiply::<C>(scores_1, &x[1], centroids);
            wgmma_commit();

            let biases = shared.biases.here().add(ring.stage * HOPPER_BIASES + quarter * HOPPER_BIAS_PITCH);
            let column = tile * HOPPER_CENTROIDS + quarter * 2;
            wgmma_wait::<1>(scores_0);
            let [a, b, c, d] = &mut nearest;
            let [floor_a, floor_b, floor_c, floor_d] = &mut floors;
            fold_tile(scores_0, biases, column, [a, b], [floor_a, floor_b], [bounds[0], bounds[1]]);
            wgmma_wait::<0>(scores_1);
            fold_tile(scores_1, biases, column, [c, d], [floor_c, floor_d], [bounds[2], bounds[3]]);

            sync_warp(FULL_MASK);
            if lane_id() == 0 {
                barrier(shared.empty.here(), ring.stage).arrive();
            }
            ring.advance(shared.stages);
            tile += 1;
        }

        let mut my_cost = 0.0;
        let mut my_changed = 0;
        unroll!(R in [0, 1, 2, 3] => {
            let mut best = nearest[R];
            unroll!(O in [1, 2] => {
                let with = Nearest {
                    score: warp_shuffle_xor(FULL_MASK, best.score, O as u32),
                    label: warp_shuffle_xor(FULL_MASK, best.label, O as u32),
                    other: warp_shuffle_xor(FULL_MASK, best.other, O as u32),
                };
                best.merge(with, bounds[R]);
            });
            let here = buffer + row + ROW_OF[R];
            let point = first + row + ROW_OF[R];
            let mut differs = false;
            if quarter == 0 && point < shape.n {
                my_cost += (shared.norms.here().get(here) - 2.0 * best.score) as f64;
                let place = (points_before + point as u64) as usize;
                if best.other == NO_CANDIDATE && best.label != NO_CANDIDATE {
                    differs = shared.labels.here().get(here) != best.label;
                    *labels.add(place) = best.label;
                } else {
                    // No label at all: every score overflowed, and any centroid may be the nearest.
                    if best.other == MANY_CANDIDATES || best.label == NO_CANDIDATE {
                        let entry = atomic::fetch_add_u32(list.counts.add(1), 1);
                        *list.rows.add((shape.batch * shape.n - 1 - entry) as usize) = place as u32;
                    } else {
                        let entry = atomic::fetch_add_u32(list.counts, 1) as usize;
                        *list.rows.add(entry) = place as u32;
                        *list.first.add(entry) = best.label;
                        *list.second.add(entry) = best.other;
                    }
                }
            }
            my_changed += warp_vote_ballot(FULL_MASK, differs).count_ones();
        });
        let my_cost = warp_sum_f64(my_cost);
        if lane_id() == 0 {
            let place = (item * HOPPER_WARPS as u64 + warp as u64) as usize;
            *cost.add(place) = my_cost;
            *changed.add(place) = my_changed;
        }
        buffer ^= HOPPER_POINTS;
        item = next_item(item + grid_dim_x() as u64, states, params);
    }
}

/// Twice the error of a score: see the top of this file. A hundredth is added for its own rounding.
#[inline(always)]
fn bound<C: Operand>(point: f32, centroid: f32) -> f32 {
    const U: f32 = 1.0 / 16_777_216.0;
    let sum = 2.5 * (C::STEPS * HOPPER_STEP_FEATURES + 16) as f32 * U;
    let error = (sum + U) * point * centroid + 1.5 * U * centroid * centroid;
    2.02 * error + 1e-36
}

/// All products of 64 points with a tile.
#[inline(always)]
unsafe fn multiply<C: Operand>(
    scores: &mut Scores,
    x: &[[u32; 4]; HOPPER_MAX_STEPS as usize],
    centroids: u64,
) {
    C::Scalar::wgmma_m64n128k16::<false>(scores, &x[0], centroids);
    unroll!(S in [1, 2, 3, 4, 5, 6, 7] => {
        if (S as u32) < C::STEPS {
            // Four steps of 32 bytes cross a panel's rows.
            let offset = (S as u32 / 4 * HOPPER_PANEL_BYTES + S as u32 % 4 * 32) >> 4;
            C::Scalar::wgmma_m64n128k16::<true>(scores, &x[S], centroids + offset as u64);
        }
    });
}

/// Adds the biases, and folds the tile's best score of each of the thread's two rows.
#[inline(always)]
unsafe fn fold_tile(
    scores: &mut Scores,
    biases: Shared<f32>,
    column: u32,
    nearest: [&mut Nearest; 2],
    floors: [&mut f32; 2],
    bounds: [f32; 2],
) {
    let mut best = [f32::NEG_INFINITY; 2];
    unroll!(J in [0, 2, 4, 6, 8, 10, 12, 14] => {
        let bias = biases.get4(J as u32 * 2);
        unroll!(E in [0, 1, 2, 3] => {
            let at = J * 4 + E / 2 * 4 + E % 2;
            scores[at] += bias[E];
            scores[at + 2] += bias[E];
            best[0] = max(best[0], scores[at]);
            best[1] = max(best[1], scores[at + 2]);
        })
    });
    // Rare once a few tiles have passed; the same branch for all lanes, which must stay together for products.
    unroll!(R in [0, 1] => {
        if warp_vote_ballot(FULL_MASK, best[R] > *floors[R] - bounds[R]) != 0 {
            let limit = best[R] - bounds[R];
            // Counts and columns stay under 2²⁴, where f32 is exact; a fused multiply-add is cheaper than a
            // predicated integer addition.
            let mut found = 0.0f32;
            unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] => {
                unroll!(E in [0, 1] => {
                    let is_near = at_least(scores[J * 4 + R * 2 + E], limit);
                    found = fma(is_near, (65_536 + J * 8 + E) as f32, found);
                })
            });
            nearest[R].fold(best[R], found as u32, column, bounds[R]);
            let mut floor = max(*floors[R], best[R]);
            floor = max(floor, warp_shuffle_xor(FULL_MASK, floor, 1));
            *floors[R] = max(floor, warp_shuffle_xor(FULL_MASK, floor, 2));
        }
    });
}
