//! FlashAssign on Hopper's tensor cores.
//!
//! ```text
//! label(i) = argmax_k  x_i·c_k − ½‖c_k‖²        the same argument as the nearest: ‖x‖² is common to all k
//! ```
//! [`narrow`] is for points of up to 128 dimensions, which stay in registers; [`wide`] for any number. Both hand a
//! tile's scores to [`fold_tile`], and a point's result to [`store_rows`].
//!
//! # Exactness
//! The tensor cores multiply 16-bit points `x̂` and centroids `ĉ`. 16-bit points are those themselves, and so are
//! their centroids; for f32 points both are taken about a centre, scaled by a power of two and rounded to f16
//! (`pack_points`), which moves a score by at most `‖x − x̂‖‖c‖ + ‖x̂‖‖c − ĉ‖` (Cauchy and Schwarz), norms that
//! are known. The bias is that of `c`.
//!
//! Products of 16-bit values are exact in f32; their sum is not. With `u = 2⁻²⁴`, a tensor core adds 16 products
//! to an accumulator with at most 18 truncations of one part in `2⁻²³` of a partial sum, none of which exceeds
//! `‖x̂‖‖ĉ‖`, so a score is within
//!
//! ```text
//! (γ + u)‖x̂‖‖ĉ‖ + 3u·½‖c‖² + ‖x − x̂‖‖c‖ + ‖x̂‖‖c − ĉ‖,   γ = 1.25·(d + 16)·2⁻²³
//! ```
//! of the true one (the sum, the final addition, the bias, the rounding of f32). Two scores further apart than twice
//! that are in the right order. A point with more than one centroid inside goes on a list with its two candidates, or
//! with word that there are more, and `settle` decides in f64. The fold counts such centroids at no cost: the search
//! for the best one's index looks for scores within the bound of it, and adds up how many and which.
mod narrow;
mod wide;

use super::pack_points::tensor_scale;
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::float::{at_least, fma, max, sqrt};
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

/// The arrays of a launch.
#[derive(Clone, Copy)]
struct Arrays {
    points: *const u16,
    packed: *const u16,
    biases: *const f32,
    order: *const u32,
    norms: *const f32,
    residuals: *const f32,
    extents: *const u32,
    largest: *const f32,
    states: *const LoopState,
    labels: *mut u32,
    cost: *mut f64,
    changed: *mut u32,
    list: List,
}

impl Arrays {
    /// The centroid in a column, or the word that there is none or are many.
    #[inline(always)]
    unsafe fn centroid(self, column: u32, item: Item, shape: Shape) -> u32 {
        if self.order.is_null() || column >= MANY_CANDIDATES {
            column
        } else {
            *self.order.add((item.batch as u64 * shape.k as u64 + column as u64) as usize)
        }
    }
}

/// Labels of the points that are sure, a list of the others, and each warp's statistics.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, `points` and `packed` aligned to 16 bytes; `order` is that of the
/// packing, or null; `residuals` and `extents` may be null, for points that were not rounded; a block has [`HOPPER_THREADS`] threads; `C` is that of `d`.
#[inline(always)]
pub(super) unsafe fn assign_hopper<C: Operand>(
    points: *const u16,
    packed: *const u16,
    biases: *const f32,
    order: *const u32,
    norms: *const f32,
    residuals: *const f32,
    extents: *const u32,
    largest: *const f32,
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
    let list = List { counts: list_counts, rows: list_rows, first: list_first, second: list_second };
    let arrays = Arrays {
        points,
        packed,
        biases,
        order,
        norms,
        residuals,
        extents,
        largest,
        states,
        labels,
        cost,
        changed,
        list,
    };
    if const { C::STEPS == HOPPER_WIDE } {
        wide::assign::<C>(arrays, params);
    } else {
        narrow::assign::<C>(arrays, params);
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

/// A place in a ring of `STAGES` stages, a power of two: how many have passed.
#[derive(Clone, Copy)]
struct Ring<const STAGES: u32>(u32);

impl<const STAGES: u32> Ring<STAGES> {
    #[inline(always)]
    fn next(self) -> Self {
        Ring(self.0 + 1)
    }

    #[inline(always)]
    fn stage(self) -> u32 {
        self.0 % STAGES
    }

    /// Waits until the stage has been filled.
    #[inline(always)]
    unsafe fn wait_full(self, full: Shared<u64>) {
        barrier(full, self.stage()).wait(self.0 / STAGES & 1);
    }

    /// Waits until the stage may be filled. A fresh barrier's phase before the first counts as complete: the first
    /// round does not wait.
    #[inline(always)]
    unsafe fn wait_empty(self, empty: Shared<u64>) {
        barrier(empty, self.stage()).wait(self.0 / STAGES & 1 ^ 1);
    }

    /// The warp is done with the stage.
    #[inline(always)]
    unsafe fn release(self, empty: Shared<u64>) {
        sync_warp(FULL_MASK);
        if lane_id() == 0 {
            barrier(empty, self.stage()).arrive();
        }
    }
}

/// The next item whose problem is not done.
#[inline(always)]
unsafe fn next_item(mut item: u32, states: *const LoopState, params: HopperParams) -> u32 {
    while item < params.items() && (*states.add(div(item, params.tiles()) as usize)).done != 0 {
        item += grid_dim_x();
    }
    item
}

/// A tile of points.
#[derive(Clone, Copy)]
struct Item {
    /// Its number, over all problems.
    item: u32,
    batch: u32,
    /// Its first row, in the problem.
    first: u32,
}

impl Item {
    #[inline(always)]
    unsafe fn of(item: u32, params: HopperParams) -> Self {
        let batch = div(item, params.tiles());
        Item { item, batch, first: (item - batch * params.tiles()) * HOPPER_POINTS }
    }

    /// The place of row `row` of the tile among the points of all problems. Rows past the last are the last again;
    /// nobody looks at them.
    #[inline(always)]
    fn place(self, row: u32, shape: Shape) -> usize {
        let row = self.first + row;
        (self.batch * shape.n + if row < shape.n { row } else { shape.n - 1 }) as usize
    }
}

/// What is known of a tile's points, `[parity of the item][row]`.
#[derive(Clone, Copy)]
struct Rows {
    norms: Shared<f32>,
    /// First the norms of what rounding took from the points, then the bounds of their scores.
    bounds: Shared<f32>,
    labels: Shared<u32>,
}

impl Rows {
    #[inline(always)]
    fn at(self, offset: u32) -> Self {
        Rows {
            norms: self.norms.add(offset),
            bounds: self.bounds.add(offset),
            labels: self.labels.add(offset),
        }
    }

    /// Copies what is known of an item's points; thread `me` of those that copy points.
    #[inline(always)]
    unsafe fn load(self, me: u32, item: Item, arrays: Arrays, shape: Shape) {
        let mut row = me;
        while row < HOPPER_POINTS {
            let place = item.place(row, shape);
            self.norms.set(row, *arrays.norms.add(place));
            self.bounds.set(row, if arrays.residuals.is_null() { 0.0 } else { *arrays.residuals.add(place) });
            self.labels.set(row, *arrays.labels.add(place));
            row += HOPPER_POINT_THREADS;
        }
    }

    /// Puts how far apart two scores of a row have to be to be in the right order in place of its residual, for the
    /// thread's rows; `self` is what is known of the first and on.
    #[inline(always)]
    unsafe fn set_bounds(self, terms: u32, item: Item, arrays: Arrays, params: HopperParams) {
        let largest = arrays.largest.add(((item.batch * 2 + params.slot) * 2) as usize);
        let (norm, residual) = (*largest, *largest.add(1));
        let mut bounds = [0.0; 4];
        unroll!(R in [0, 1, 2, 3] => {
            let point = sqrt(self.norms.get(ROW_OF[R]));
            bounds[R] = bound(terms, [point, self.bounds.get(ROW_OF[R])], [norm, residual]);
        });
        // The row's four lanes have read.
        sync_warp(FULL_MASK);
        if lane_id() & 3 == 0 {
            unroll!(R in [0, 1, 2, 3] => { self.bounds.set(ROW_OF[R], bounds[R]); });
        }
        sync_warp(FULL_MASK);
    }
}

/// Writes labels of a thread's rows, or lists them, and the warp's statistics of the item. `rows` is what is known of
/// the thread's first row and on.
#[inline(always)]
unsafe fn store_rows(
    nearest: [Nearest; 4],
    row: u32,
    rows: Rows,
    item: Item,
    arrays: Arrays,
    params: HopperParams,
) {
    let shape = params.shape;
    let quarter = lane_id() & 3;
    let mut my_cost = 0.0;
    let mut my_changed = 0;
    unroll!(R in [0, 1, 2, 3] => {
        let mut best = nearest[R];
        let bound = rows.bounds.get(ROW_OF[R]);
        unroll!(O in [1, 2] => {
            let with = Nearest {
                score: warp_shuffle_xor(FULL_MASK, best.score, O as u32),
                label: warp_shuffle_xor(FULL_MASK, best.label, O as u32),
                other: warp_shuffle_xor(FULL_MASK, best.other, O as u32),
            };
            best.merge(with, bound);
        });
        best.label = arrays.centroid(best.label, item, shape);
        best.other = arrays.centroid(best.other, item, shape);
        let mut differs = false;
        if quarter == 0 && item.first + row + ROW_OF[R] < shape.n {
            my_cost += (rows.norms.get(ROW_OF[R]) - 2.0 * best.score) as f64;
            let place = item.place(row + ROW_OF[R], shape);
            if best.other == NO_CANDIDATE && best.label != NO_CANDIDATE {
                differs = rows.labels.get(ROW_OF[R]) != best.label;
                *arrays.labels.add(place) = best.label;
            } else {
                let list = arrays.list;
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
        let scale = if arrays.extents.is_null() {
            1.0
        } else {
            tensor_scale(*arrays.extents.add(item.batch as usize))
        };
        let place = (item.item * HOPPER_WARPS + warp_id() - HOPPER_FIRST_WARP) as usize;
        *arrays.cost.add(place) = my_cost / (scale * scale);
        *arrays.changed.add(place) = my_changed;
    }
}

/// Twice the error of a score: see the top of this file. Norm and residual, of the point and the largest of all
/// centroids; a hundredth is added for its own rounding.
#[inline(always)]
fn bound(terms: u32, point: [f32; 2], centroid: [f32; 2]) -> f32 {
    const U: f32 = 1.0 / 16_777_216.0;
    let [rounded_point, rounded_centroid] = [point[0] + point[1], centroid[0] + centroid[1]];
    let sum = 2.5 * (terms + 16) as f32 * U + U;
    let error = sum * rounded_point * rounded_centroid
        + 1.5 * U * centroid[0] * centroid[0]
        + point[1] * centroid[0]
        + rounded_point * centroid[1];
    2.02 * error + 1e-36
}

/// Folds a tile into two of the thread's rows, of which most have nothing to gain from it: a maximum of bare products,
/// with the tile's largest bias, tells. `bounds` are at the first and 8 further. `gates` are those of the four lanes that
/// share a row: the best score less the bound, which a new one must exceed to matter.
#[inline(always)]
unsafe fn fold_tile(
    products: &mut Scores,
    biases: Shared<f32>,
    column: u32,
    [a, b]: [&mut Nearest; 2],
    [gate_a, gate_b]: [&mut f32; 2],
    bounds: Shared<f32>,
) {
    // Compared as integers, three at a time: the right order unless all are negative.
    let mut most = [i32::MIN; 2];
    unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] => {
        unroll!(R in [0, 1] => {
            let at = J * 4 + R * 2;
            let pair = (products[at].to_bits() as i32).max(products[at + 1].to_bits() as i32);
            most[R] = most[R].max(pair);
        })
    });
    let largest = biases.get(HOPPER_LARGEST_BIAS);
    // NaN is not beyond anything.
    let is_beyond = |most: i32, gate: f32| most >= 0 && f32::from_bits(most as u32) + largest <= gate;
    let (is_beyond_a, is_beyond_b) = (is_beyond(most[0], *gate_a), is_beyond(most[1], *gate_b));
    // The same branch for all lanes, which must stay together for products.
    if warp_vote_ballot(FULL_MASK, !is_beyond_a) != 0 {
        fold_row::<0>(products, biases, column, a, gate_a, bounds);
    }
    if warp_vote_ballot(FULL_MASK, !is_beyond_b) != 0 {
        fold_row::<1>(products, biases, column, b, gate_b, bounds.add(8));
    }
}

/// Adds the biases to a row's products, and folds the best score.
#[inline(always)]
unsafe fn fold_row<const R: usize>(
    scores: &mut Scores,
    biases: Shared<f32>,
    column: u32,
    nearest: &mut Nearest,
    gate: &mut f32,
    bound: Shared<f32>,
) {
    let mut best = f32::NEG_INFINITY;
    unroll!(J in [0, 2, 4, 6, 8, 10, 12, 14] => {
        let bias = biases.get4(J as u32 * 2);
        unroll!(E in [0, 1, 2, 3] => {
            let at = J * 4 + E / 2 * 4 + E % 2 + R * 2;
            scores[at] += bias[E];
            best = max(best, scores[at]);
        })
    });
    if warp_vote_ballot(FULL_MASK, best > *gate) != 0 {
        let bound = bound.get(0);
        let limit = best - bound;
        // Counts and columns stay under 2²⁴, where f32 is exact; a fused multiply-add is cheaper than a
        // predicated integer addition.
        let mut found = 0.0f32;
        unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] => {
            unroll!(E in [0, 1] => {
                let is_near = at_least(scores[J * 4 + R * 2 + E], limit);
                found = fma(is_near, (65_536 + J * 8 + E) as f32, found);
            })
        });
        nearest.fold(best, found as u32, column, bound);
        let mut most = max(*gate, limit);
        most = max(most, warp_shuffle_xor(FULL_MASK, most, 1));
        *gate = max(most, warp_shuffle_xor(FULL_MASK, most, 2));
    }
}
