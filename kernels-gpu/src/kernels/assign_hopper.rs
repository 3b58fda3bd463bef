//! FlashAssign on Hopper's tensor cores.
//!
//! ```text
//! label(i) = argmax_k  x_i·c_k − ½‖c_k‖²        the same argument as the nearest: ‖x‖² is common to all k
//! ```
//! [`narrow`] is for points of up to 128 dimensions, which stay in registers; [`wide`] for any number. Both hand a
//! tile's scores to [`look`] and what that finds to [`take`]. The warps that copy points also prepare what else is known
//! of them, and store the results, so that the multiplying warps wait for no global memory.
//!
//! # Exactness
//! The tensor cores multiply 16-bit points `x̂` and centroids `ĉ`. 16-bit points are those themselves, and so are
//! their centroids; for f32 points both are taken about a centre, scaled by a power of two and rounded to f16
//! (`pack_points`), which moves a score by at most `‖x − x̂‖‖c‖ + ‖x̂‖‖c − ĉ‖` (Cauchy and Schwarz), norms that
//! are known. The bias is that of `c`.
//!
//! Products of 16-bit values are exact in f32; their sum is not. A tensor core aligns the terms of a sum to the largest of
//! them and cuts them off: on Hopper two bits below an f32's last, as `tests/tensor_cores.rs` sees, so that each of up to
//! 18 terms of a step of 16 products, accumulators included, loses less than 2⁻²⁵ of the largest, and each of up to two
//! results less than 2⁻²³ of itself. None of those exceeds `‖x̂‖‖ĉ‖`. With `u = 2⁻²⁴`, a step costs at most
//! `(18/2 + 2·2)u = 13u` of that, which with a tenth for what the errors add to the partial sums is `0.9u` a
//! feature, so a score is within
//!
//! ```text
//! (γ + u)‖x̂‖‖ĉ‖ + (d/16 + 20)u·½‖c‖² + ‖x − x̂‖‖c‖ + ‖x̂‖‖c − ĉ‖,   γ = 0.9·(d + 16)·u
//! ```
//! of the true one (the sum, the final addition, the bias as `pack_centroids` adds it up). Two scores further apart than twice
//! that are in the right order. A point with more than one centroid inside goes on a list with its two candidates, or
//! with word that there are more. Those are multiplied again with a tighter bound ([`refine_hopper`]), and `settle` decides the
//! rest in f64. The look counts such centroids at no cost: the search for the best one's index looks for scores within the
//! bound of it, and adds up how many and which.
//!
//! Where labels need not be exact (`HopperParams::is_exact`), bounds count as 0: the best score wins, and only equal ones go
//! on the list, of which `settle` then looks at every centroid. So a label depends on the scores alone, and not on the order
//! of the columns, nor on which tiles were passed over. A bound that is not finite makes none of them: such points are
//! settled, too.
mod narrow;
mod wide;

use super::await_launch_before;
use super::bound::{Bound, bounds_count, share_of_bound};
use super::nearest::{Again, List, Nearest, Results, Row};
use super::pairs::{Pairs, Places};
use super::spans::Found;
use crate::spec::*;
use cuda_std::float::{at_least, fma, max, sqrt_approx};
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

/// The arrays of a launch.
#[derive(Clone, Copy)]
struct Arrays {
    points: *const u16,
    packed: *const u16,
    biases: *const f32,
    norms: *const f32,
    residuals: *const f32,
    floors: *const f32,
    largest: *const f32,
    states: *const LoopState,
    results: Results,
    again: Again,
    found: Found,
}

impl Arrays {
    /// Where what is known of a point is: with `C` of points of a list that are where they were, there.
    #[inline(always)]
    unsafe fn place_of<C: Operand>(self, entry: usize) -> usize {
        if const { C::REFINES == 1 } { *self.again.rows.add(entry) as usize } else { entry }
    }
}

/// Labels of the points that are sure, a list of the others, and each warp's statistics.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, `points` and `packed` aligned to 16 bytes; `order` is that of the
/// packing, or null; `residuals` and `extents` may be null, for points that were not rounded; a block has
/// the threads of its layout; `C` is that of `d`.
#[inline(always)]
pub(super) unsafe fn assign_hopper<C: Operand>(
    points: *const u16,
    packed: *const u16,
    biases: *const f32,
    order: *const u32,
    norms: *const f32,
    residuals: *const f32,
    floors: *const f32,
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
    found: *mut u32,
    params: HopperParams,
) {
    let list = List { counts: list_counts, rows: list_rows, first: list_first, second: list_second };
    let is_exact = params.is_exact;
    let results = Results { order, extents, labels, cost, changed, list, is_exact };
    let (again, found) = (Again::none(params.shape), Found(found));
    let arrays =
        Arrays { points, packed, biases, norms, residuals, floors, largest, states, results, again, found };
    multiply_all::<C>(arrays, Listing::NONE, params);
}

/// Labels of those points of a list that are sure once the products of each panel are added up by themselves, and then in f32:
/// the bound does not grow with `d`, or hardly.
///
/// f32 points are in parts, `x·c ≈ lower·upper + upper·lower + upper·upper`, added up in this order. Only the last of the three
/// is as long as the points are, so the sum loses what one of its length does; the others are under 2⁻¹⁰ of it. Points of 16 bits
/// are where they were.
///
/// # Safety
/// As [`assign_hopper`]; the rest is what `split_points` and `split_centroids`, or `keep_unsure`, leave.
#[inline(always)]
pub(super) unsafe fn refine_hopper<C: Operand>(
    points: *const u16,
    packed: *const u16,
    biases: *const f32,
    order: *const u32,
    norms: *const f32,
    residuals: *const f32,
    rows: *const u32,
    largest: *const f32,
    states: *const LoopState,
    labels: *mut u32,
    changed: *mut u32,
    list_counts: *mut u32,
    list_rows: *mut u32,
    list_first: *mut u32,
    list_second: *mut u32,
    many_rows: *mut u32,
    found: *mut u32,
    params: RefineParams,
) {
    let list = List { counts: list_counts, rows: list_rows, first: list_first, second: list_second };
    let (extents, floors, cost) = (core::ptr::null(), core::ptr::null(), core::ptr::null_mut());
    let results = Results { order, extents, labels, cost, changed, list, is_exact: 1 };
    let (again, found) = (Again { rows, many_rows, shape: params.shape }, Found(found));
    let arrays =
        Arrays { points, packed, biases, norms, residuals, floors, largest, states, results, again, found };
    let products = params.products(*list_counts.add(LIST_MANY), C::REFINES);
    multiply_all::<C>(arrays, Listing::NONE, products);
}

/// Pairs of a point and a centroid with a score that is, or may be, not below the point's floor; of the first `limits` centroids
/// of a problem.
///
/// # Safety
/// As [`assign_hopper`]; pairs have room for `params.capacity`.
#[inline(always)]
pub(super) unsafe fn list_hopper<C: Operand>(
    points: *const u16,
    packed: *const u16,
    biases: *const f32,
    norms: *const f32,
    residuals: *const f32,
    floors: *const f32,
    largest: *const f32,
    states: *const LoopState,
    limits: *const u32,
    list_counts: *mut u32,
    pair_points: *mut u32,
    pair_columns: *mut u32,
    params: ListHopperParams,
) {
    let capacity = params.capacity;
    let pairs = Pairs { counts: list_counts, points: pair_points, columns: pair_columns, capacity };
    let null = core::ptr::null_mut();
    let list = List { counts: null, rows: null, first: null, second: null };
    let (order, extents, none) = (null.cast_const(), null.cast_const(), core::ptr::null_mut());
    let results = Results { order, extents, labels: null, cost: none, changed: null, list, is_exact: 1 };
    let (again, found) = (Again::none(params.products.shape), Found(null));
    let arrays =
        Arrays { points, packed, biases, norms, residuals, floors, largest, states, results, again, found };
    multiply_all::<C>(arrays, Listing { limits, pairs }, params.products);
}

/// The products of all points with the centroids of their problems.
#[inline(always)]
unsafe fn multiply_all<C: Operand>(arrays: Arrays, listing: Listing, params: HopperParams) {
    if const { C::STEPS == HOPPER_WIDE } {
        wide::assign::<C>(arrays, listing, params);
    } else {
        narrow::assign::<C>(arrays, listing, params);
    }
}

/// Where pairs go, of the first so many centroids of each problem.
#[derive(Clone, Copy)]
struct Listing {
    limits: *const u32,
    pairs: Pairs,
}

impl Listing {
    const NONE: Listing = {
        let none = core::ptr::null_mut();
        let pairs = Pairs { counts: none, points: none, columns: none, capacity: 0 };
        Listing { limits: core::ptr::null(), pairs }
    };
}

/// The same for an item, and the places that the warp has taken.
struct Lister {
    pairs: Pairs,
    places: Places,
    item: Item,
    limit: u32,
    shape: Shape,
}

impl Lister {
    #[inline(always)]
    fn new(listing: Listing, params: HopperParams) -> Self {
        Lister { pairs: listing.pairs, places: Places::NONE, item: Item::NONE, limit: 0, shape: params.shape }
    }

    /// Goes on with another item.
    #[inline(always)]
    unsafe fn begin(&mut self, item: Item, listing: Listing) {
        self.item = item;
        self.limit = *listing.limits.add(item.batch as usize);
    }

    /// Lists what a tile has for two of the thread's rows: `row` of the item, and 8 below. Columns begin at `column`.
    #[inline(always)]
    unsafe fn list_tile(
        &mut self,
        scores: &Scores,
        biases: Shared<f32>,
        column: u32,
        row: u32,
        floors: [f32; 2],
    ) {
        // A bit for each of 32 columns of a row: of 16 each, f32 is exact, and a fused multiply-add is cheaper than a
        // predicated integer addition.
        let mut above = [[0.0f32; 2]; 2];
        unroll!(J in [0, 2, 4, 6, 8, 10, 12, 14] => {
            let bias = biases.get4(J as u32 * 2);
            unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                const BIT: usize = (J + I / 4) * 2 + I % 2;
                let score = scores[J * 4 + I] + bias[I / 4 * 2 + I % 2];
                let above = &mut above[I % 4 / 2][BIT / 16];
                *above = fma(at_least(score, floors[I % 4 / 2]), (1u32 << (BIT % 16)) as f32, *above);
            })
        });
        let mut words = above.map(|[low, high]| low as u32 | (high as u32) << 16);
        // Where there is no floor, or none that is a number, scores may be anything; rows past the end have no pairs.
        unroll!(R in [0, 1] => {
            words[R] = if floors[R] > f32::NEG_INFINITY { words[R] } else { u32::MAX };
            words[R] = if floors[R] == f32::INFINITY { 0 } else { words[R] };
        });
        if column + HOPPER_CENTROIDS > self.limit {
            let mut inside = 0;
            unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] => {
                unroll!(E in [0, 1] => {
                    inside |= if column + (J * 8 + E) as u32 >= self.limit { 0 } else { 1 << (J * 2 + E) };
                });
            });
            words = words.map(|word| word & inside);
        }
        let (item, shape) = (self.item, self.shape);
        self.places.list(self.pairs, words, |word, bit| {
            let point = item.place(row + word as u32 * 8, shape) as u32;
            (point, item.batch * shape.k + column + bit / 2 * 8 + bit % 2)
        });
    }
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
        barrier(full, self.stage()).wait((self.0 / STAGES) & 1);
    }

    /// Waits until the stage may be filled. A fresh barrier's phase before the first counts as complete: the first
    /// round does not wait.
    #[inline(always)]
    unsafe fn wait_empty(self, empty: Shared<u64>) {
        barrier(empty, self.stage()).wait(((self.0 / STAGES) & 1) ^ 1);
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

/// The items of a block, or of a cluster of `BLOCKS` that share each: those whose problem is not done.
#[derive(Clone, Copy)]
struct Queue<const BLOCKS: u32> {
    next: u32,
}

impl<const BLOCKS: u32> Queue<BLOCKS> {
    #[inline(always)]
    fn new() -> Self {
        Queue { next: block_idx_x() / BLOCKS }
    }

    #[inline(always)]
    unsafe fn next(&mut self, rows: Rows, arrays: Arrays, params: HopperParams) -> u32 {
        while self.next < params.units.count(params.items()) {
            let unit = self.next;
            self.next += grid_dim_x() / BLOCKS;
            if (*arrays.states.add(rows.of_unit(unit, params).batch as usize)).done == 0 {
                return unit;
            }
        }
        NO_ITEM
    }
}

/// After a queue's last item.
const NO_ITEM: u32 = u32::MAX;

/// A tile of points, and what it is multiplied with.
#[derive(Clone, Copy)]
struct Item {
    /// The number of the unit that it is, or that it is one of.
    unit: u32,
    batch: u32,
    /// Its first row, in the problem.
    first: u32,
    /// Centroid tiles of the problem: of the unit, up to `to`.
    from: u32,
    to: u32,
}

impl Item {
    const NONE: Item = Item { unit: 0, batch: 0, first: 0, from: 0, to: 0 };

    /// Whether it is multiplied with all centroids at once.
    #[inline(always)]
    fn is_whole(self, params: HopperParams) -> bool {
        self.unit < params.units.whole
    }

    /// The place of row `row` of the tile among the points of all problems. Rows past the last are the last again;
    /// nobody looks at them.
    #[inline(always)]
    fn place(self, row: u32, shape: Shape) -> usize {
        let row = self.first + row;
        (self.batch * shape.n + if row < shape.n { row } else { shape.n - 1 }) as usize
    }

    /// The same of row `row`, and how many rows come after it.
    #[inline(always)]
    fn place_and_rest(self, row: u32, shape: Shape) -> (usize, u32) {
        let (row, last) = (self.first + row, shape.n - 1);
        let row = if row < last { row } else { last };
        ((self.batch * shape.n + row) as usize, last - row)
    }
}

/// What the copying and the multiplying warps tell each other of a block's points.
#[derive(Clone, Copy)]
struct Rows {
    shared: RowsShared,
    /// The block's first point in the item.
    first: u32,
}

impl Rows {
    /// One thread of team `team`, before a barrier of the block.
    #[inline(always)]
    unsafe fn init(self, team: u32, params: HopperParams) {
        let Units { whole, spans, tiles } = params.units;
        let (further, from) = (div(team, spans), (team - div(team, spans) * spans) * tiles);
        let left = params.centroid_tiles() - from;
        let span = self.shared.span.here();
        span.set(0, whole + further);
        span.set(1, from);
        span.set(2, from + if left < tiles { left } else { tiles });
        // Every thread that has written or read says so itself: once an item, which costs nothing.
        barrier(self.shared.results_full.here(), 0).init(self.shared.multipliers());
        barrier(self.shared.results_empty.here(), 0).init(HOPPER_POINT_THREADS);
    }

    /// The unit with this number. One that is a span is the only one of its team.
    #[inline(always)]
    unsafe fn of_unit(self, unit: u32, params: HopperParams) -> Item {
        let (mut item, mut from, mut to) = (unit, 0, params.centroid_tiles());
        if unit >= params.units.whole {
            let span = self.shared.span.here();
            (item, from, to) = (span.get(0), span.get(1), span.get(2));
        }
        let batch = div(item, params.tiles);
        Item { unit, batch, first: (item - batch * params.tiles) * params.points, from, to }
    }

    /// The place of what is known of the points of an item of this parity.
    #[inline(always)]
    fn of_item(self, items: Ring<1>) -> u32 {
        items.0 % 2 * self.shared.len
    }

    /// Writes down which unit item `items.0` is, or that there is none; thread `me` of those that copy points.
    #[inline(always)]
    unsafe fn begin(self, me: u32, items: Ring<1>, unit: u32) {
        if me == 0 {
            self.shared.units.here().set(items.0 % 4, unit);
        }
    }

    /// Copies what is known of the points of item `items.0`, `item`, and works out how far apart two scores have to be; thread
    /// `me` of those that copy points.
    #[inline(always)]
    unsafe fn load<C: Operand>(
        self,
        me: u32,
        terms: u32,
        items: Ring<1>,
        item: Item,
        arrays: Arrays,
        params: HopperParams,
    ) {
        let at = self.of_item(items);
        let largest = arrays.largest.add(((item.batch * 2 + params.slot) * 2) as usize);
        let bound = if const { C::REFINES > 0 } {
            let panels = div(hopper_panels(params.shape.d), C::REFINES);
            Bound::by_panels(panels, terms, *largest, *largest.add(1))
        } else {
            Bound::on_hopper(terms, *largest, *largest.add(1))
        };
        if me == 0 {
            let inverse = |value: f32| if value > 0.0 { 1.0 / value } else { 0.0 };
            let scales = self.shared.scales.here().add(items.0 % 2 * 2);
            scales.set(0, inverse(*largest));
            scales.set(1, inverse(*largest.add(1)));
        }
        // All of a thread's rows on their way at once; two values at a time, for want of registers.
        const ROWS: usize = 2;
        const {
            assert!(
                NARROW_POINTS.div_ceil(HOPPER_POINT_THREADS) == ROWS as u32 && WIDE_POINTS <= NARROW_POINTS
            )
        };
        let mut found = [[0; 2]; ROWS];
        unroll!(R in [0, 1] => {
            let row = me + R as u32 * HOPPER_POINT_THREADS;
            if row < self.shared.len {
                let place = item.place(self.first + row, params.shape);
                found[R] = if const { C::REFINES > 0 } {
                    [NO_CANDIDATE, f32::NEG_INFINITY.to_bits()]
                } else {
                    [*arrays.results.labels.add(place), (*arrays.floors.add(place)).to_bits()]
                };
            }
        });
        unroll!(R in [0, 1] => {
            let row = me + R as u32 * HOPPER_POINT_THREADS;
            if row < self.shared.len {
                self.shared.labels.here().set(at + row, found[R][0]);
                self.shared.floors.here().set(at + row, f32::from_bits(found[R][1]));
            }
        });
        let mut known = [[0.0; 2]; ROWS];
        unroll!(R in [0, 1] => {
            let row = me + R as u32 * HOPPER_POINT_THREADS;
            if row < self.shared.len {
                let place = arrays.place_of::<C>(item.place(self.first + row, params.shape));
                known[R][0] = *arrays.norms.add(place);
                if !arrays.residuals.is_null() {
                    known[R][1] = *arrays.residuals.add(place);
                }
            }
        });
        unroll!(R in [0, 1] => {
            let row = me + R as u32 * HOPPER_POINT_THREADS;
            if row < self.shared.len {
                let [norm, residual] = known[R];
                self.shared.norms.here().set(at + row, norm);
                let bound = bound.of(sqrt_approx(norm), residual) * bounds_count(params.is_exact);
                self.shared.bounds.here().set(at + row, bound);
            }
        });
    }

    /// [`Self::load`] where pairs are listed: floors of scores, with their error taken off.
    #[inline(always)]
    unsafe fn load_floors(
        self,
        me: u32,
        terms: u32,
        items: Ring<1>,
        item: Item,
        arrays: Arrays,
        params: HopperParams,
    ) {
        let at = self.of_item(items);
        let largest = arrays.largest.add(((item.batch * 2 + params.slot) * 2) as usize);
        let bound = Bound::on_hopper(terms, *largest, *largest.add(1));
        let mut row = me;
        while row < self.shared.len {
            let of_item = self.first + row;
            let place = item.place(of_item, params.shape);
            let norm = *arrays.norms.add(place);
            let residual = if arrays.residuals.is_null() { 0.0 } else { *arrays.residuals.add(place) };
            let floor = *arrays.floors.add(place) - bound.of(sqrt_approx(norm), residual);
            let is_inside = item.first + of_item < params.shape.n;
            self.shared.floors.here().set(at + row, if is_inside { floor } else { f32::INFINITY });
            row += HOPPER_POINT_THREADS;
        }
    }

    /// Whether item `items.0` is one, once what is known of it has arrived.
    #[inline(always)]
    unsafe fn is_item(self, items: Ring<1>) -> bool {
        self.shared.units.here().get(items.0 % 4) != NO_ITEM
    }

    /// The item.
    #[inline(always)]
    unsafe fn item(self, items: Ring<1>, params: HopperParams) -> Item {
        self.of_unit(self.shared.units.here().get(items.0 % 4), params)
    }

    /// What makes shares of the problem's largest norm and residual.
    #[inline(always)]
    fn scale(self, items: Ring<1>) -> Shared<f32> {
        self.shared.scales.here().add(items.0 % 2 * 2)
    }

    /// The bounds of the points of item `items.0` from `row` on.
    #[inline(always)]
    fn bounds(self, items: Ring<1>, row: u32) -> Shared<f32> {
        self.shared.bounds.here().add(self.of_item(items) + row)
    }

    /// Scores that the best ones of the points of item `items.0` from `row` on are not below.
    #[inline(always)]
    fn floors(self, items: Ring<1>, row: u32) -> Shared<f32> {
        self.shared.floors.here().add(self.of_item(items) + row)
    }

    /// Hands over what four lanes have found of the row `offset` below `row`.
    #[inline(always)]
    unsafe fn publish(self, row: u32, offset: u32, mut nearest: Nearest, bound: f32) {
        unroll!(O in [1, 2] => {
            let with = Nearest {
                score: warp_shuffle_xor(FULL_MASK, nearest.score, O as u32),
                label: warp_shuffle_xor(FULL_MASK, nearest.label, O as u32),
                other: warp_shuffle_xor(FULL_MASK, nearest.other, O as u32),
            };
            nearest.merge(with, bound);
        });
        if lane_id() & 3 == 0 {
            self.shared.scores.here().add(row).set(offset, nearest.score);
            self.shared.columns.here().add(row).set(offset, nearest.label);
            self.shared.others.here().add(row).set(offset, nearest.other);
        }
    }

    /// Stores labels of the points of item `items.0` that are sure, lists the others, and writes the statistics of each
    /// 32 points; the warps that copy points.
    #[inline(always)]
    unsafe fn store(self, items: Ring<1>, arrays: Arrays, params: HopperParams) {
        let shape = params.shape;
        let at = self.of_item(items);
        items.wait_full(self.shared.results_full.here());
        let item = self.item(items, params);
        if !item.is_whole(params) {
            self.put(items, item.unit, arrays, params);
            return;
        }
        let mut row = thread_idx_x() - WARP_SIZE;
        while row < self.shared.len {
            let (found, of_item) = (self.found(row), self.first + row);
            let known = Row {
                place: item.place(of_item, shape),
                is_inside: item.first + of_item < shape.n,
                norm: self.shared.norms.here().get(at + row),
                label: self.shared.labels.here().get(at + row),
            };
            arrays.results.store(item.batch, item.first + of_item - lane_id(), known, found, shape);
            row += HOPPER_POINT_THREADS;
        }
        barrier(self.shared.results_empty.here(), 0).arrive();
    }

    /// [`Self::store`] for points that are assigned again, whose statistics are known.
    #[inline(always)]
    unsafe fn store_again(self, items: Ring<1>, arrays: Arrays, params: HopperParams) {
        items.wait_full(self.shared.results_full.here());
        let item = self.item(items, params);
        if !item.is_whole(params) {
            self.put(items, item.unit, arrays, params);
            return;
        }
        let mut row = thread_idx_x() - WARP_SIZE;
        while row < self.shared.len {
            let of_item = self.first + row;
            if item.first + of_item < params.shape.n {
                arrays.again.store(arrays.results, item.place(of_item, params.shape), self.found(row));
            }
            row += HOPPER_POINT_THREADS;
        }
        barrier(self.shared.results_empty.here(), 0).arrive();
    }

    /// What is found of a row.
    #[inline(always)]
    unsafe fn found(self, row: u32) -> Nearest {
        Nearest {
            score: self.shared.scores.here().get(row),
            label: self.shared.columns.here().get(row),
            other: self.shared.others.here().get(row),
        }
    }

    /// Keeps what is found of the points of item `items.0`, which is a unit among several.
    #[inline(always)]
    unsafe fn put(self, items: Ring<1>, unit: u32, arrays: Arrays, params: HopperParams) {
        let bounds = self.bounds(items, 0);
        let mut row = thread_idx_x() - WARP_SIZE;
        while row < self.shared.len {
            arrays.found.put(params.units, unit, self.first + row, self.found(row), bounds.get(row));
            row += HOPPER_POINT_THREADS;
        }
        barrier(self.shared.results_empty.here(), 0).arrive();
    }

    /// In place of [`Self::store`], where pairs have been listed.
    #[inline(always)]
    unsafe fn pass(self, items: Ring<1>) {
        items.wait_full(self.shared.results_full.here());
        barrier(self.shared.results_empty.here(), 0).arrive();
    }
}

/// What a tile's scores are looked at with, of two of the thread's rows: known before the scores are.
///
/// Bounds are for the problem's largest norm and residual, and grow no slower than those: a tile whose own are a share of
/// them has that share of the bounds.
#[derive(Clone, Copy)]
struct Limits {
    /// The largest share of a tile that has mattered to the warp, with this one.
    share: f32,
    bounds: [f32; 2],
    /// What a product must reach to matter, beside the tile's largest bias; where that is negative, or not a number, the products
    /// tell nothing.
    products: [f32; 2],
}

impl Limits {
    /// `floors` are the best scores of the four lanes that share a row, or less: what a new one must come near to matter. `bounds`
    /// are at the first row and 8 further.
    #[inline(always)]
    unsafe fn new(
        biases: Shared<f32>,
        floors: [f32; 2],
        bounds: Shared<f32>,
        scale: Shared<f32>,
        share: f32,
    ) -> Self {
        let [largest, norm, residual, _] = biases.get4(HOPPER_LARGEST);
        let share = max(share, max(norm * scale.get(0), residual * scale.get(1)));
        let bounds = [share_of_bound(share, bounds.get(0)), share_of_bound(share, bounds.get(8))];
        Limits { share, bounds, products: [floors[0] - bounds[0] - largest, floors[1] - bounds[1] - largest] }
    }
}

/// The best scores of a tile in two of the thread's rows, how many of its columns are near, above 2¹⁶, and the sum of which.
#[derive(Clone, Copy)]
struct Looked {
    /// Whether it is anything to the warp.
    matters: bool,
    best: [f32; 2],
    found: [f32; 2],
}

/// Looks at a tile's scores in two of the thread's rows, of which most have nothing to gain from it: a maximum of bare products,
/// with the tile's largest bias, tells.
///
/// Branches are the same for all lanes, which must stay together for products. Chains of dependent instructions are what
/// takes the time, so both rows go through them at once.
#[inline(always)]
unsafe fn look(scores: &mut Scores, biases: Shared<f32>, limits: Limits) -> Looked {
    let Limits { bounds, products: limits, .. } = limits;
    let mut looked = Looked { matters: false, best: [f32::NEG_INFINITY; 2], found: [0.0; 2] };
    // Of two groups of columns. Compared as integers, three at a time, which is right unless all are negative.
    let mut groups = [[i32::MIN; 2]; 2];
    unroll!(R in [0, 1] => {
        unroll!(G in [0, 1] => {
            unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
                let at = (G * 8 + J) * 4 + R * 2;
                let pair = (scores[at].to_bits() as i32).max(scores[at + 1].to_bits() as i32);
                groups[R][G] = groups[R][G].max(pair);
            })
        })
    });
    let most_of = |row: usize| f32::from_bits(groups[row][0].max(groups[row][1]) as u32);
    let most = [most_of(0), most_of(1)];
    // NaN is not beyond anything.
    let is_known = limits[0] >= 0.0 && limits[1] >= 0.0;
    if warp_vote_ballot(FULL_MASK, !(is_known && most[0] < limits[0] && most[1] < limits[1])) == 0 {
        return looked;
    }
    looked.matters = true;
    let mut is_one = warp_vote_ballot(FULL_MASK, !is_known) == 0;
    // Groups that have something for a lane.
    let mut hits = [[1; 2]; 2];
    if is_one {
        unroll!(G in [0, 1] => {
            unroll!(R in [0, 1] => {
                hits[R][G] = warp_vote_ballot(FULL_MASK, f32::from_bits(groups[R][G] as u32) >= limits[R]);
                if hits[R][G] != 0 {
                    let mut found = [0.0; 2];
                    count_near::<G, R>(scores, limits[R], &mut found);
                    looked.found[R] += found[0] + found[1];
                }
            })
        });
        is_one =
            warp_vote_ballot(FULL_MASK, looked.found[0] >= 131_072.0 || looked.found[1] >= 131_072.0) == 0;
    }
    if is_one {
        unroll!(R in [0, 1] => {
            let at = looked.found[R] as u32 & 127;
            let score = most[R] + biases.get(at / 8 * 2 + at % 2);
            looked.best[R] = if looked.found[R] > 0.0 { score } else { looked.best[R] };
        });
    } else {
        (looked.best, looked.found) = search::<false>(scores, biases, bounds, hits);
    }
    looked
}

/// [`look`] at a tile that is sure to matter.
#[inline(always)]
unsafe fn look_at_all(scores: &mut Scores, biases: Shared<f32>, limits: Limits) -> Looked {
    let (best, found) = search::<true>(scores, biases, limits.bounds, [[1; 2]; 2]);
    Looked { matters: true, best, found }
}

/// Takes what was found in a tile whose columns begin at `column`. Returns the share of bounds that counts from here on.
#[inline(always)]
unsafe fn take(
    looked: Looked,
    limits: Limits,
    column: u32,
    [a, b]: [&mut Nearest; 2],
    floors: &mut [f32; 2],
) -> f32 {
    let Looked { best, found, .. } = looked;
    a.fold(best[0], found[0] as u32, column, limits.bounds[0]);
    b.fold(best[1], found[1] as u32, column, limits.bounds[1]);
    // An equal score is not to be passed over, wherever its bias was added.
    unroll!(R in [0, 1] => { floors[R] = max(floors[R], below(best[R])); });
    unroll!(O in [1, 2] => {
        unroll!(R in [0, 1] => { floors[R] = max(floors[R], warp_shuffle_xor(FULL_MASK, floors[R], O as u32)); });
    });
    limits.share
}

/// Something under `score`, by a rounding or two.
#[inline(always)]
fn below(score: f32) -> f32 {
    fma(score.abs(), -f32::EPSILON, score)
}

/// Counts the columns of group `G` whose scores in row `R` are not below `limit`, above 2¹⁶, and adds them up: even and odd ones
/// by themselves, in chains half as long. Under 2²⁴ f32 is exact, and a fused multiply-add is cheaper than a predicated integer
/// addition.
#[inline(always)]
fn count_near<const G: usize, const R: usize>(scores: &Scores, limit: f32, found: &mut [f32; 2]) {
    unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
        unroll!(E in [0, 1] => {
            let is_near = at_least(scores[(G * 8 + J) * 4 + R * 2 + E], limit);
            found[E] = fma(is_near, (65_536 + (G * 8 + J) * 8 + E) as f32, found[E]);
        })
    });
}

/// Adds the biases of groups that have something, or of `ALL`: the best score of each of two rows, and how many and which
/// columns are within the bound of it.
#[inline(always)]
unsafe fn search<const ALL: bool>(
    scores: &mut Scores,
    biases: Shared<f32>,
    bounds: [f32; 2],
    hits: [[u32; 2]; 2],
) -> ([f32; 2], [f32; 2]) {
    let mut bests = [[f32::NEG_INFINITY; 2]; 2];
    unroll!(G in [0, 1] => {
        unroll!(R in [0, 1] => {
            if ALL || opaque(hits[R][G]) != 0 {
                unroll!(J in [0, 2, 4, 6] => {
                    let bias = biases.get4((G as u32 * 8 + J as u32) * 2);
                    unroll!(I in [0, 1, 2, 3] => {
                        let at = (G * 8 + J + I / 2) * 4 + R * 2 + I % 2;
                        scores[at] += bias[I];
                        bests[R][I % 2] = max(bests[R][I % 2], scores[at]);
                    });
                });
            }
        })
    });
    let best = bests.map(|best| max(best[0], best[1]));
    let limits = [best[0] - bounds[0], best[1] - bounds[1]];
    let mut found = [[0.0f32; 2]; 2];
    unroll!(G in [0, 1] => {
        unroll!(R in [0, 1] => {
            if ALL || opaque(hits[R][G]) != 0 {
                count_near::<G, R>(scores, limits[R], &mut found[R]);
            }
        })
    });
    (best, found.map(|found| found[0] + found[1]))
}
