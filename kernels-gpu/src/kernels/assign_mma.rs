//! FlashAssign by the products of single warps, which every GPU since Ampere has: for those that are not Hopper, and on
//! Hopper for problems so small that its own kernel would wait more than it works.
//!
//! ```text
//! block of 4 warps      128 points, 32 a warp; several blocks a multiprocessor, each waiting while the others work
//! narrow, d <= 128      points in registers, half a tile of centroids (64) at a time, a ring of 3 stages
//! wide                  panels of 64 features of the points and of a tile of centroids (128), a ring of 2 stages
//! ```
//! Scores and what follows from them are those of `assign_hopper`. Their bound is wider, since less is known of how other
//! tensor cores add: `γ = 2.5·(d + 16)·2⁻²⁴`, for 18 truncations of one part in `2⁻²³` of a partial sum with 16 products.
use super::bound::{Bound, bounds_count, share_of_bound};
use super::nearest::{List, Nearest, Results, Row};
use super::pairs::{Pairs, Places};
use crate::spec::*;
use cuda_std::async_copy::*;
use cuda_std::float::{at_least, fma, max, sqrt_approx};
use cuda_std::mma::{MmaScalar, ldmatrix_x4};
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

/// A row of the table whose points warps multiply.
pub(super) trait Operand: HopperOperand<Scalar: MmaScalar> {}
impl<C: HopperOperand<Scalar: MmaScalar>> Operand for C {}

/// Products of a warp's 32 points with 64 centroids: `[half of the points][8-column group · 4 + value]`, of which a thread
/// has rows `l/4` (values 0, 1) and 8 below (2, 3), columns `2(l%4)` and the next.
pub(super) type Scores = [[f32; 32]; 2];

/// The arrays of a launch that products are made of.
#[derive(Clone, Copy)]
struct Arrays {
    points: *const u16,
    packed: *const u16,
    biases: *const f32,
    norms: *const f32,
    residuals: *const f32,
    largest: *const f32,
}

/// What becomes of scores.
trait Fold: Copy {
    /// What is known of a warp's points so far.
    type Found;
    const NOTHING: Self::Found;
    /// Gets ready for another item.
    fn begin(self, found: &mut Self::Found);
    /// Brings what is known of a point to shared memory, for registers are few: of row `row` of the item, `place` among all, with
    /// `norm`. `bound` is how far apart two of its scores have to be to be in the right order.
    unsafe fn load(
        self,
        shared: MmaShared,
        row: u32,
        item: Item,
        place: usize,
        norm: f32,
        bound: f32,
        params: MmaParams,
    );
    /// Takes the products with half a tile. Branches are the same for all lanes.
    unsafe fn fold(
        self,
        found: &mut Self::Found,
        scores: &mut Scores,
        shared: MmaShared,
        biases: Shared<f32>,
        half: u32,
        params: MmaParams,
    );
    /// Stores what has been found, once all tiles have been folded.
    unsafe fn store(self, found: &Self::Found, shared: MmaShared, params: MmaParams);
    /// After the last item.
    unsafe fn end(self, found: &mut Self::Found);
}

/// Labels of the points that are sure, a list of the others, and each warp's statistics.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, `points`, `packed` and `biases` aligned to 16 bytes; `order` is that of
/// the packing, or null; `residuals` and `extents` may be null, for points that were not rounded; a block has
/// [`MMA_THREADS`] threads; `C` has products for `d` features, or is wide.
#[inline(always)]
pub(super) unsafe fn assign_mma<C: Operand>(
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
    params: MmaParams,
) {
    let list = List { counts: list_counts, rows: list_rows, first: list_first, second: list_second };
    let is_exact = params.is_exact;
    let results = Results { order, extents, labels, cost, changed, list, is_exact };
    let arrays = Arrays { points, packed, biases, norms, residuals, largest };
    multiply_all::<C, _>(arrays, states, results, params);
}

/// Pairs of a point and a centroid with a score that is, or may be, not below the point's floor; of the first `limits` centroids
/// of a problem.
///
/// # Safety
/// As [`assign_mma`]; pairs have room for `params.capacity`.
#[inline(always)]
pub(super) unsafe fn list_mma<C: Operand>(
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
    params: ListMmaParams,
) {
    let capacity = params.capacity;
    let pairs = Pairs { counts: list_counts, points: pair_points, columns: pair_columns, capacity };
    let arrays = Arrays { points, packed, biases, norms, residuals, largest };
    multiply_all::<C, _>(arrays, states, Above { floors, limits, pairs }, params.products);
}

/// The products of all points with the centroids of their problems.
#[inline(always)]
unsafe fn multiply_all<C: Operand, F: Fold>(
    arrays: Arrays,
    states: *const LoopState,
    to: F,
    params: MmaParams,
) {
    let mut found = F::NOTHING;
    let mut item = block_idx_x();
    while item < params.items() {
        let here = Item::of(item, params);
        if (*states.add(here.batch as usize)).done == 0 {
            if const { C::STEPS == HOPPER_WIDE } {
                wide::<C, F>(here, arrays, to, &mut found, params);
            } else {
                narrow::<C, F>(here, arrays, to, &mut found, params);
            }
            // The next item's copies go where this one's were read.
            sync_threads();
        }
        item += grid_dim_x();
    }
    to.end(&mut found);
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
    unsafe fn of(item: u32, params: MmaParams) -> Self {
        let batch = div(item, params.tiles());
        Item { item, batch, first: (item - batch * params.tiles()) * MMA_POINTS }
    }

    /// The block's, from shared memory: it need not stay in registers meanwhile.
    #[inline(always)]
    unsafe fn here(shared: MmaShared, params: MmaParams) -> Self {
        Self::of(shared.item.here().get(0), params)
    }

    /// The place of row `row` of the tile among the points of all problems. Rows past the last are the last again;
    /// nobody looks at them.
    #[inline(always)]
    fn place(self, row: u32, shape: Shape) -> usize {
        let row = self.first + row;
        (self.batch * shape.n + if row < shape.n { row } else { shape.n - 1 }) as usize
    }
}

/// Points of up to 128 dimensions.
#[inline(always)]
unsafe fn narrow<C: Operand, F: Fold>(
    item: Item,
    arrays: Arrays,
    to: F,
    found: &mut F::Found,
    params: MmaParams,
) {
    let shared = const { MmaShared::new(C::STEPS) };
    let halves = params.centroid_halves();
    let stages = shared.stages.here().address();
    let points = stages + shared.stage_bytes;
    if const { C::STEPS == 4 } {
        copy_points::<8>(points, 0, item, arrays.points, params.shape);
    } else {
        copy_points::<16>(points, 0, item, arrays.points, params.shape);
    }
    copy_half::<C>(0, 0, item, arrays, params);
    cp_async_commit_group();
    load_rows(shared, item, C::STEPS * HOPPER_STEP_FEATURES, arrays, to, params);
    cp_async_wait_group::<0>();
    sync_threads();

    let mut x = [[[0u32; 4]; HOPPER_MAX_STEPS as usize]; 2];
    unroll!(S in [0, 1, 2, 3, 4, 5, 6, 7] => {
        if (S as u32) < C::STEPS {
            let panel = points + S as u32 / 4 * (MMA_POINTS * 128);
            x[0][S] = of_points(panel, lane_id(), warp_id() * 32, S as u32 % 4);
            x[1][S] = of_points(panel, lane_id(), warp_id() * 32 + 16, S as u32 % 4);
        }
    });

    to.begin(found);
    let (mut half, mut stage) = (0, 0);
    while half < halves {
        if half > 0 {
            cp_async_wait_group::<1>();
        }
        if halves > 1 {
            // Everyone's copies are there, and the stage before and the points have been read.
            sync_threads();
            // The halves up to two ahead: at first two, then one.
            let item = Item::here(shared, params);
            let mut ahead = if half == 0 { 1 } else { 2 };
            while ahead < MMA_STAGES {
                let at = if stage + ahead < MMA_STAGES { stage + ahead } else { stage + ahead - MMA_STAGES };
                copy_half::<C>(half + ahead, at, item, arrays, params);
                cp_async_commit_group();
                ahead += 1;
            }
        }
        let mut scores: Scores = [[0.0; 32]; 2];
        let panel = stages + stage * shared.stage_bytes;
        // Loaded one ahead of their products.
        let mut next = of_centroids(panel, lane_id(), 0, 0);
        unroll!(S in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if (S as u32) < C::STEPS {
                unroll!(J in [0, 1, 2, 3] => {
                    let centroids = next;
                    const NEXT: u32 = (S * 4 + J + 1) as u32;
                    if NEXT < C::STEPS * 4 {
                        let panel = panel + NEXT / 16 * (MMA_CENTROIDS * 128);
                        next = of_centroids(panel, lane_id(), NEXT % 4, NEXT / 4 % 4);
                    }
                    multiply::<C, J>(&mut scores, [x[0][S], x[1][S]], centroids);
                });
            }
        });
        let biases = shared.biases.here().add(stage * HOPPER_BIASES);
        to.fold(found, &mut scores, shared, biases, half, params);
        stage = if stage + 1 < MMA_STAGES { stage + 1 } else { 0 };
        half += 1;
    }
    cp_async_wait_group::<0>();
    to.store(found, shared, params);
}

/// Points of any number of dimensions.
#[inline(always)]
unsafe fn wide<C: Operand, F: Fold>(
    item: Item,
    arrays: Arrays,
    to: F,
    found: &mut F::Found,
    params: MmaParams,
) {
    let shared = const { MmaShared::new(HOPPER_WIDE) };
    let shape = params.shape;
    let (tiles, panels) = (params.centroid_tiles(), hopper_panels(shape.d));
    let mut copies = Panels { tile: 0, panel: 0, stage: 0 };
    copies.copy(item, arrays, params);
    load_rows(shared, item, panels * HOPPER_PANEL_FEATURES, arrays, to, params);

    to.begin(found);
    let mut stage = 0;
    let mut tile = 0;
    while tile < tiles {
        // By halves of the centroids.
        let mut scores: [Scores; 2] = [[[0.0; 32]; 2]; 2];
        let mut panel = 0;
        while panel < panels {
            cp_async_wait_group::<0>();
            // Everyone's copies are there, and the stage before has been read.
            sync_threads();
            copies.copy(item, arrays, params);
            let points = shared.stages.here().address() + stage * shared.stage_bytes;
            let centroids = points + MMA_POINTS * 128;
            unroll!(S in [0, 1, 2, 3] => {
                let x = [
                    of_points(points, lane_id(), warp_id() * 32, S as u32),
                    of_points(points, lane_id(), warp_id() * 32 + 16, S as u32),
                ];
                // Loaded one ahead of their products.
                let mut next = of_centroids(centroids, lane_id(), 0, S as u32);
                unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
                    let these = next;
                    if J < 7 {
                        next = of_centroids(centroids, lane_id(), J as u32 + 1, S as u32);
                    }
                    multiply::<C, { J % 4 }>(&mut scores[J / 4], x, these);
                });
            });
            stage = 1 - stage;
            panel += 1;
        }
        let biases = shared.biases.here().add(tile % MMA_WIDE_STAGES * HOPPER_BIASES);
        unroll!(H in [0, 1] => {
            let half = tile * 2 + H as u32;
            if half < params.centroid_halves() {
                to.fold(found, &mut scores[H], shared, biases, half, params);
            }
        });
        tile += 1;
    }
    to.store(found, shared, params);
}

/// 16 features of 16 points, from row `first` on.
#[inline(always)]
pub(super) unsafe fn of_points(panel: u32, lane: u32, first: u32, step: u32) -> [u32; 4] {
    let (row, chunk) = (first + lane % 16, step * 2 + lane / 16);
    ldmatrix_x4(Shared::<u32>::of(panel + row * 128 + (chunk ^ row & 7) * 16))
}

/// 16 features of 16 centroids, group `group` of those in a panel: of each 8, two registers.
#[inline(always)]
pub(super) unsafe fn of_centroids(panel: u32, lane: u32, group: u32, step: u32) -> [u32; 4] {
    let (row, chunk) = (lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2);
    ldmatrix_x4(Shared::<u32>::of(panel + group * (16 * 128) + row * 128 + (chunk ^ row & 7) * 16))
}

/// Adds the products of 16 features with 16 centroids, of which the scores have four groups.
#[inline(always)]
pub(super) unsafe fn multiply<C: Operand, const GROUP: usize>(
    scores: &mut Scores,
    x: [[u32; 4]; 2],
    centroids: [u32; 4],
) {
    let at = GROUP * 8;
    let tile = |half: usize, at: usize| [0, 1, 2, 3].map(|i| scores[half][at + i]);
    let sums = [tile(0, at), tile(0, at + 4), tile(1, at), tile(1, at + 4)];
    let sums = C::Scalar::mma_m32n16k16(x, centroids, sums);
    unroll!(T in [0, 1, 2, 3] => {
        let s = &mut scores[T / 2];
        let at = at + T % 2 * 4;
        [s[at], s[at + 1], s[at + 2], s[at + 3]] = sums[T];
    });
}

/// Starts the copies of an item's points to `panels` of 64 features, swizzled: from `feature` on, chunks of 8 by `LANES`
/// threads a row. Features past the pitch are zeros, so that nothing non-finite meets the zeros of the centroids.
#[inline(always)]
unsafe fn copy_points<const LANES: u32>(
    panels: u32,
    feature: u32,
    item: Item,
    points: *const u16,
    shape: Shape,
) {
    const { assert!(LANES <= 16 && (MMA_THREADS / LANES).is_multiple_of(8)) };
    // Not worth registers from item to item.
    let me = opaque(thread_idx_x());
    let (column, row) = (me % LANES, me / LANES);
    // The same for all of the thread's rows, which are a multiple of 8 apart.
    let swizzled = (column ^ row) & 7;
    let place = panels + column / 8 * (MMA_POINTS * 128) + row * 128 + swizzled * 16;
    let feature = feature + column * 8;
    if feature < shape.pitch {
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] => {
            if (I as u32) < LANES {
                let below = I as u32 * (MMA_THREADS / LANES);
                let at = item.place(row + below, shape) * shape.pitch as usize + feature as usize;
                cp_async_cg_16(Shared::of(place + below * 128), points.add(at));
            }
        });
    } else {
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] => {
            if (I as u32) < LANES {
                let below = I as u32 * (MMA_THREADS / LANES);
                Shared::<f32>::of(place + below * 128).set4(0, [0.0; 4]);
            }
        });
    }
}

/// Starts the copies of half a tile of centroids, if there is one, and of the tile's biases, to a stage.
#[inline(always)]
unsafe fn copy_half<C: Operand>(half: u32, stage: u32, item: Item, arrays: Arrays, params: MmaParams) {
    let shared = const { MmaShared::new(C::STEPS) };
    const HALF_BYTES: u32 = MMA_CENTROIDS * 128;
    if half >= params.centroid_halves() {
        return;
    }
    let panels = const { (C::STEPS * HOPPER_STEP_FEATURES).div_ceil(HOPPER_PANEL_FEATURES) };
    let tile = item.batch as u64 * params.centroid_tiles() as u64 + (half / 2) as u64;
    let from = tile * (panels * HOPPER_PANEL_BYTES) as u64 + (half % 2 * HALF_BYTES) as u64;
    let from = arrays.packed.cast::<u8>().add(from as usize);
    let to = shared.stages.here().address() + stage * shared.stage_bytes;
    unroll!(P in [0, 1] => {
        if (P as u32) < panels {
            let (from, to) = (from.add(P * HOPPER_PANEL_BYTES as usize), to + P as u32 * HALF_BYTES);
            unroll!(I in [0, 1, 2, 3] => {
                const { assert!(HALF_BYTES == 4 * MMA_THREADS * 16) };
                let at = (I as u32 * MMA_THREADS + thread_idx_x()) * 16;
                cp_async_cg_16(Shared::of(to + at), from.add(at as usize));
            });
        }
    });
    copy_biases(shared.biases.here().add(stage * HOPPER_BIASES), tile, arrays);
}

/// Starts the copies of the biases of a tile.
#[inline(always)]
unsafe fn copy_biases(to: Shared<f32>, tile: u64, arrays: Arrays) {
    let at = thread_idx_x() * 4;
    if at < HOPPER_BIASES {
        cp_async_cg_16(to.add(at), arrays.biases.add((tile * HOPPER_BIASES as u64 + at as u64) as usize));
    }
}

/// The panel of points and centroids that is copied next.
struct Panels {
    tile: u32,
    panel: u32,
    stage: u32,
}

impl Panels {
    /// Starts its copies, if there is one, with the tile's biases before its first panel, and goes to the next.
    #[inline(always)]
    unsafe fn copy(&mut self, item: Item, arrays: Arrays, params: MmaParams) {
        let shared = const { MmaShared::new(HOPPER_WIDE) };
        if self.tile == params.centroid_tiles() {
            return;
        }
        let panels = hopper_panels(params.shape.d);
        let stage = shared.stages.here().address() + self.stage * shared.stage_bytes;
        copy_points::<8>(stage, self.panel * HOPPER_PANEL_FEATURES, item, arrays.points, params.shape);
        let tile = item.batch as u64 * params.centroid_tiles() as u64 + self.tile as u64;
        let from = (tile * panels as u64 + self.panel as u64) * HOPPER_PANEL_BYTES as u64;
        let from = arrays.packed.cast::<u8>().add(from as usize);
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
            const { assert!(HOPPER_PANEL_BYTES == 8 * MMA_THREADS * 16) };
            let at = (I as u32 * MMA_THREADS + thread_idx_x()) * 16;
            cp_async_cg_16(Shared::of(stage + MMA_POINTS * 128 + at), from.add(at as usize));
        });
        if self.panel == 0 {
            // Of two slots: the tile before the last has been folded.
            let slot = self.tile % MMA_WIDE_STAGES * HOPPER_BIASES;
            copy_biases(shared.biases.here().add(slot), tile, arrays);
        }
        cp_async_commit_group();
        self.stage = 1 - self.stage;
        self.panel += 1;
        if self.panel == panels {
            self.panel = 0;
            self.tile += 1;
        }
    }
}

/// Brings what is known of the points to shared memory, a thread each.
#[inline(always)]
unsafe fn load_rows<F: Fold>(
    shared: MmaShared,
    item: Item,
    terms: u32,
    arrays: Arrays,
    to: F,
    params: MmaParams,
) {
    let row = thread_idx_x();
    let place = item.place(row, params.shape);
    let largest = arrays.largest.add(((item.batch * 2 + params.slot) * 2) as usize);
    let (largest_norm, largest_residual) = (*largest, *largest.add(1));
    let norm = *arrays.norms.add(place);
    let residual = if arrays.residuals.is_null() { 0.0 } else { *arrays.residuals.add(place) };
    let bound = Bound::on_any(terms, largest_norm, largest_residual);
    to.load(shared, row, item, place, norm, bound.of(sqrt_approx(norm), residual), params);
    if row == 0 {
        shared.item.here().set(0, item.item);
        shared.scales.here().set(0, 1.0 / largest_norm);
        shared.scales.here().set(1, if largest_residual > 0.0 { 1.0 / largest_residual } else { 0.0 });
    }
}

/// What has been found of the nearest so far.
struct Search {
    /// Of one row: lane `4g + t` has row `8t + g` of the warp, from whose scores it has a quarter.
    nearest: Nearest,
    /// The largest share of the bounds that a tile that mattered had: they are for the problem's largest norm and
    /// residual, and grow no slower than those.
    share: f32,
}

/// The nearest centroid of each point.
impl Fold for Results {
    type Found = Search;
    const NOTHING: Search = Search { nearest: Nearest::NONE, share: 0.0 };

    #[inline(always)]
    fn begin(self, found: &mut Search) {
        *found = Self::NOTHING;
    }

    #[inline(always)]
    unsafe fn load(
        self,
        shared: MmaShared,
        row: u32,
        _item: Item,
        place: usize,
        norm: f32,
        bound: f32,
        _params: MmaParams,
    ) {
        shared.norms.here().set(row, norm);
        shared.labels.here().set(row, *self.labels.add(place));
        shared.bounds.here().set(row, bound * bounds_count(self.is_exact));
    }

    #[inline(always)]
    unsafe fn fold(
        self,
        found: &mut Search,
        scores: &mut Scores,
        shared: MmaShared,
        biases: Shared<f32>,
        half: u32,
        _params: MmaParams,
    ) {
        let quarter = lane_id() & 3;
        let biases = biases.add(quarter * HOPPER_BIAS_PITCH);
        // Of the thread's rows: `lane / 4` in the warp, and each 8 below.
        let mut best = [f32::NEG_INFINITY; 4];
        unroll!(J in [0, 2, 4, 6] => {
            let bias = biases.get4(half % 2 * 16 + J as u32 * 2);
            unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                unroll!(H in [0, 1] => {
                    let best = &mut best[H * 2 + I % 4 / 2];
                    let score = &mut scores[H][J * 4 + I];
                    *score += bias[I / 4 * 2 + I % 2];
                    *best = max(*best, *score);
                });
            });
        });
        let [_, norm, residual, _] = biases.get4(HOPPER_LARGEST);
        let scales = shared.scales.here();
        let share = max(norm * scales.get(0), residual * scales.get(1));
        let share = max(found.share, share);
        let bounds = shared.bounds.here().add(warp_id() * 32);
        let bound_of = |row: usize| share_of_bound(share, bounds.get(row as u32 * 8 + lane_id() / 4));
        // NaN is not below anything.
        let mut is_below = true;
        unroll!(R in [0, 1, 2, 3] => {
            let floor = warp_shuffle_idx(FULL_MASK, found.nearest.score, lane_id() - quarter + R as u32);
            is_below &= best[R] < floor - bound_of(R);
        });
        if warp_vote_ballot(FULL_MASK, !is_below) == 0 {
            return;
        }
        found.share = share;
        let mut rows = [(Nearest::NONE, 0.0); 4];
        unroll!(R in [0, 1, 2, 3] => {
            let bound = bound_of(R);
            let limit = best[R] - bound;
            // How many columns are within the bound, above 2¹⁶, and the sum of which: under 2²⁴ f32 is exact.
            let mut near = 0.0f32;
            unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
                unroll!(E in [0, 1] => {
                    let is_near = at_least(scores[R / 2][J * 4 + R % 2 * 2 + E], limit);
                    near = fma(is_near, (65_536 + J * 8 + E) as f32, near);
                });
            });
            rows[R].0.fold(best[R], near as u32, half * MMA_CENTROIDS + quarter * 2, bound);
            rows[R].1 = bound;
        });
        // A lane gives half of its rows away at each step: rows 0 and 2 or 1 and 3 are left, then one.
        let two = [exchange(rows[0], rows[1], 1), exchange(rows[2], rows[3], 1)];
        let (nearest, bound) = exchange(two[0], two[1], 2);
        found.nearest.merge(nearest, bound);
    }

    #[inline(always)]
    unsafe fn store(self, found: &Search, shared: MmaShared, params: MmaParams) {
        let item = Item::here(shared, params);
        let from = lane_id() % 8 * 4 + lane_id() / 8;
        let nearest = shuffle(found.nearest, |value| warp_shuffle_idx(FULL_MASK, value, from));
        let first = item.first + warp_id() * WARP_SIZE;
        let at = thread_idx_x();
        let row = Row {
            place: item.place(at, params.shape),
            is_inside: item.first + at < params.shape.n,
            norm: shared.norms.here().get(at),
            label: shared.labels.here().get(at),
        };
        Results::store(self, item.batch, first, row, nearest, params.shape);
    }

    #[inline(always)]
    unsafe fn end(self, _found: &mut Search) {}
}

/// Scores that are not below the floors of their points.
#[derive(Clone, Copy)]
struct Above {
    floors: *const f32,
    limits: *const u32,
    pairs: Pairs,
}

impl Fold for Above {
    type Found = Places;
    const NOTHING: Places = Places::NONE;

    #[inline(always)]
    fn begin(self, _found: &mut Places) {}

    #[inline(always)]
    unsafe fn load(
        self,
        shared: MmaShared,
        row: u32,
        item: Item,
        place: usize,
        _norm: f32,
        bound: f32,
        params: MmaParams,
    ) {
        let floor = *self.floors.add(place) - bound;
        shared.bounds.here().set(row, if item.first + row < params.shape.n { floor } else { f32::INFINITY });
    }

    #[inline(always)]
    unsafe fn fold(
        self,
        found: &mut Places,
        scores: &mut Scores,
        shared: MmaShared,
        biases: Shared<f32>,
        half: u32,
        params: MmaParams,
    ) {
        let quarter = lane_id() & 3;
        let biases = biases.add(quarter * HOPPER_BIAS_PITCH);
        let floors = shared.bounds.here().add(warp_id() * 32 + lane_id() / 4);
        // Of the thread's rows: `lane / 4` in the warp, and each 8 below; a bit for each of 16 columns.
        let mut above = [0u32; 4];
        unroll!(J in [0, 2, 4, 6] => {
            let bias = biases.get4(half % 2 * 16 + J as u32 * 2);
            unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                unroll!(H in [0, 1] => {
                    const ROW: usize = H * 2 + I % 4 / 2;
                    let score = scores[H][J * 4 + I] + bias[I / 4 * 2 + I % 2];
                    // NaN is not below anything.
                    let is_below = score < floors.get(ROW as u32 * 8);
                    above[ROW] |= if is_below { 0 } else { 1 << ((J + I / 4) * 2 + I % 2) };
                });
            });
        });
        // Rows past the end have no pairs, whatever their scores.
        unroll!(R in [0, 1, 2, 3] => {
            above[R] = if floors.get(R as u32 * 8) < f32::INFINITY || floors.get(R as u32 * 8).is_nan() { above[R] } else { 0 };
        });
        let item = Item::here(shared, params);
        let limit = *self.limits.add(item.batch as usize);
        let first = half * MMA_CENTROIDS + quarter * 2;
        // Columns past the limit.
        let mut inside = 0;
        unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
            unroll!(E in [0, 1] => {
                inside |= if first + (J * 8 + E) as u32 >= limit { 0 } else { 1 << (J * 2 + E) };
            });
        });
        let words = [
            (above[0] | above[1] << 16) & (inside | inside << 16),
            (above[2] | above[3] << 16) & (inside | inside << 16),
        ];
        let row = warp_id() * 32 + lane_id() / 4;
        let of_problem = item.batch * params.shape.k + first;
        found.list(self.pairs, words, |word, bit| {
            let below = (word as u32 * 2 + bit / 16) * 8;
            let column = bit % 16;
            (item.place(row + below, params.shape) as u32, of_problem + column / 2 * 8 + column % 2)
        });
    }

    #[inline(always)]
    unsafe fn store(self, _found: &Places, _shared: MmaShared, _params: MmaParams) {}

    #[inline(always)]
    unsafe fn end(self, found: &mut Places) {
        found.end(self.pairs);
    }
}

/// Of two rows, keeps the second in lanes of which bit `bit` is set and the first in the others, and merges into it what the
/// lane beyond that bit has found.
#[inline(always)]
unsafe fn exchange(first: (Nearest, f32), second: (Nearest, f32), bit: u32) -> (Nearest, f32) {
    let (mut kept, given) = if lane_id() & bit == 0 { (first, second) } else { (second, first) };
    let with = shuffle(given.0, |value| warp_shuffle_xor(FULL_MASK, value, bit));
    kept.0.merge(with, kept.1);
    kept
}

#[inline(always)]
unsafe fn shuffle(nearest: Nearest, exchange: impl Fn(u32) -> u32) -> Nearest {
    Nearest {
        score: f32::from_bits(exchange(nearest.score.to_bits())),
        label: exchange(nearest.label),
        other: exchange(nearest.other),
    }
}
