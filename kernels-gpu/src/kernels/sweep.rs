//! Labels of problems of few points and clusters, and the partial sums of their clusters, in one launch: a block has a panel's points
//! in shared memory from the products to the sums, and settles those that are unsure on the way.
//!
//! ```text
//! a warp       32 points       products with half a tile of centroids (64) at a time; a bit for each that may be the nearest
//! a lane       a point         its label, where one may be; else the warp measures those that may be, in f64
//! a thread     two points      their places in the panel's order: clusters before, warps before, lanes before
//! a half-warp  a stretch       32 places of that order, row by row; a sum is written where its cluster ends
//! ```
//! Where panels are fewer than multiprocessors, a cluster of blocks shares each: a block multiplies some of the points, tells the others
//! their labels, and sums some of the features of all. Labels, sums and where clusters begin are those of the launches that this
//! stands for: an assignment, `settle` and `panel_sums`.
use super::assign_mma::{Operand, Scores, multiply, of_centroids, of_points};
use super::await_launch_before;
use super::bound::Bound;
use super::rank::{Distance, Rank};
use super::settle::{self, is_close};
use super::sort::{bits_of, half_of, lanes_of, sum_before};
use crate::spec::*;
use cuda_std::async_copy::*;
use cuda_std::float::{Scalar, max, sqrt_approx};
use cuda_std::ptr;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;
#[cfg(all(target_arch = "nvptx64", target_feature = "sm_90a"))]
use cuda_std::wgmma::{cluster_rank, cluster_sync, store_to_block};

const WARPS: u32 = SWEEP_THREADS / WARP_SIZE;
/// No label.
const NONE: u32 = u32::MAX;
/// Lanes of a warp that have a stretch.
const STRETCH_LANES: u32 = WARP_SIZE / 2;
/// Most features of a lane.
const VALUES: usize = 8;

/// The arrays that are read.
#[derive(Clone, Copy)]
struct Arrays<T> {
    points: *const T,
    centroids: *const T,
    packed: *const u16,
    biases: *const f32,
    norms: *const f32,
    largest: *const f32,
}

/// The arrays that are written.
#[derive(Clone, Copy)]
struct Results {
    labels: *mut u32,
    cost: *mut f64,
    changed: *mut u32,
    starts: *mut u32,
    sums: *mut f32,
    heads: *mut f32,
}

/// Labels, the statistics of each 32 points, partial sums, and where each cluster begins in its panel. `centroids` are those that
/// distances are taken to, `packed` the same for the tensor cores.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, whose panels [`Panels::fit_a_block`], `points`, `packed`, `biases`, `sums` and `heads`
/// aligned to 16 bytes; clusters are packed in their own order; a block has [`SWEEP_THREADS`] threads; problems have no more dimensions
/// and clusters than the entry is for.
#[inline(always)]
pub(super) unsafe fn sweep<C: Operand>(
    points: *const u16,
    centroids: *const u16,
    packed: *const u16,
    biases: *const f32,
    norms: *const f32,
    largest: *const f32,
    states: *const LoopState,
    labels: *mut u32,
    cost: *mut f64,
    changed: *mut u32,
    starts: *mut u32,
    sums: *mut f32,
    heads: *mut f32,
    params: SweepParams,
) {
    let arrays = Arrays::<C::Scalar> {
        points: points.cast(),
        centroids: centroids.cast(),
        packed,
        biases,
        norms,
        largest,
    };
    let results = Results { labels, cost, changed, starts, sums, heads };
    let blocks = const { way::<C>().blocks };
    let mut item = div(block_idx_x(), blocks);
    // Points are older than what the launch before may still write.
    if (item as u64) < params.blocks() {
        Panel::<C>::of(item, params).copy_points(points);
    }
    await_launch_before();
    while (item as u64) < params.blocks() {
        let panel = Panel::<C>::of(item, params);
        if (*states.add(panel.batch as usize)).done == 0 {
            panel.copy_centroids(arrays);
            panel.bound_scores(arrays);
            cp_async_wait_group::<0>();
            sync_threads();
            panel.look();
            panel.label(arrays, results);
            panel.share_labels();
            panel.sort(results);
            panel.sum(results);
        } else {
            cp_async_wait_group::<0>();
        }
        // The next item's points and labels go where this one's are.
        sync_team::<C>();
        item += div(grid_dim_x(), blocks);
        if (item as u64) < params.blocks() {
            Panel::<C>::of(item, params).copy_points(points);
        }
    }
}

const fn way<C: Operand>() -> SweepWay {
    SweepWay::ALL[C::STEPS as usize]
}

/// This block's number among those that share a panel.
#[inline(always)]
fn rank<C: Operand>() -> u32 {
    #[cfg(all(target_arch = "nvptx64", target_feature = "sm_90a"))]
    if const { way::<C>().blocks > 1 } {
        return cluster_rank();
    }
    0
}

/// Waits for all threads that share a panel.
#[inline(always)]
unsafe fn sync_team<C: Operand>() {
    #[cfg(all(target_arch = "nvptx64", target_feature = "sm_90a"))]
    if const { way::<C>().blocks > 1 } {
        return cluster_sync();
    }
    sync_threads();
}

/// What a block has of a panel.
struct Panel<C> {
    /// The panel's number, over all problems.
    item: u32,
    batch: u32,
    /// Its first row in its problem, and how many it has.
    first: u32,
    len: u32,
    params: SweepParams,
    operand: core::marker::PhantomData<C>,
}

impl<C> Clone for Panel<C> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<C> Copy for Panel<C> {}

impl<C: Operand> Panel<C> {
    const WAY: SweepWay = way::<C>();
    const SHARED: SweepShared = SweepShared::new(Self::WAY);
    /// Points that the block multiplies.
    const POINTS: u32 = Self::WAY.points();
    /// Words of a point that a lane sums.
    const WORDS: u32 = Self::WAY.words().div_ceil(STRETCH_LANES);

    #[inline(always)]
    unsafe fn of(item: u32, params: SweepParams) -> Self {
        let batch = div(item, params.panels.count);
        let first = (item - batch * params.panels.count) * params.panels.len;
        let rest = params.shape.n - first;
        let len = if rest < params.panels.len { rest } else { params.panels.len };
        Panel { item, batch, first, len, params, operand: core::marker::PhantomData }
    }

    /// The first of the block's points, in the panel.
    #[inline(always)]
    fn own(self) -> u32 {
        rank::<C>() * Self::POINTS
    }

    /// The place of point `row` of the panel among those of all problems.
    #[inline(always)]
    fn place(self, row: u32) -> usize {
        (self.batch * self.params.shape.n + self.first + row) as usize
    }

    /// Starts the copies of the block's points, and of the features that it sums where those are other ones. Features past the
    /// pitch are zeros.
    #[inline(always)]
    unsafe fn copy_points(self, points: *const u16) {
        // Chunks of 8 features.
        const { assert!(SWEEP_THREADS.is_multiple_of(8 * 16)) };
        let chunks = const { 2 * Self::WAY.steps };
        let me = opaque(thread_idx_x());
        let (chunk, mut row) = (me % chunks, me / chunks);
        // The same for all of the thread's rows, which are a multiple of 8 apart.
        let to = Self::SHARED.points.here().address()
            + chunk / 8 * (Self::POINTS * 128)
            + ((chunk ^ row) & 7) * 16;
        let pitch = self.params.shape.pitch;
        let rows = self.len.saturating_sub(self.own()).min(Self::POINTS);
        let from = points.add(self.place(self.own()) * pitch as usize + (chunk * 8) as usize);
        // A warp multiplies 32: of rows that are not there the last again.
        while row < rows.next_multiple_of(WARP_SIZE) {
            let of_row = if row < rows { row } else { rows - 1 };
            copy_chunk(to + row * 128, from.add((of_row * pitch) as usize), chunk * 8 < pitch);
            row += const { SWEEP_THREADS / (2 * Self::WAY.steps) };
        }
        if const { Self::WAY.blocks > 1 } {
            let chunks = const { Self::WAY.words() / 4 };
            let (chunk, mut row) = (me % chunks, me / chunks);
            let feature = rank::<C>() * (Self::WAY.words() * 2) + chunk * 8;
            let to = Self::SHARED.features.here().address() + chunk * 16;
            let from = points.add(self.place(0) * pitch as usize + feature as usize);
            while row < self.len {
                let to = to + row * (Self::WAY.words() * 4);
                copy_chunk(to, from.add((row * pitch) as usize), feature < pitch);
                row += const { SWEEP_THREADS / (Self::WAY.words() / 4) };
            }
        }
        cp_async_commit_group();
    }

    /// Starts the copies of all of the problem's centroids and their biases.
    #[inline(always)]
    unsafe fn copy_centroids(self, arrays: Arrays<C::Scalar>) {
        const HALF_BYTES: u32 = MMA_CENTROIDS * 128;
        let panels = const { Self::WAY.panels() };
        let shape = self.params.shape;
        let halves = shape.k.div_ceil(MMA_CENTROIDS);
        let tile = self.batch * shape.centroid_tiles();
        let from = arrays.packed.cast::<u8>();
        let from = from.add(tile as usize * (panels * HOPPER_PANEL_BYTES) as usize);
        let to = Self::SHARED.centroids.here().address();
        let mut half = 0;
        while half < halves {
            let from = from.add((half / 2 * (panels * HOPPER_PANEL_BYTES) + half % 2 * HALF_BYTES) as usize);
            let to = to + half * (panels * HALF_BYTES);
            unroll!(P in [0, 1] => {
                if (P as u32) < panels {
                    let (from, to) = (from.add(P * HOPPER_PANEL_BYTES as usize), to + P as u32 * HALF_BYTES);
                    unroll!(I in [0, 1] => {
                        const { assert!(HALF_BYTES == 2 * SWEEP_THREADS * 16) };
                        let at = (I as u32 * SWEEP_THREADS + thread_idx_x()) * 16;
                        cp_async_cg_16(Shared::<u32>::of(to + at), from.add(at as usize).cast::<u32>());
                    });
                }
            });
            half += 1;
        }
        let at = thread_idx_x() * 4;
        if at < halves.div_ceil(2) * HOPPER_BIASES {
            const { assert!(SWEEP_THREADS * 4 >= Self::WAY.halves() / 2 * HOPPER_BIASES) };
            let from = arrays.biases.add((tile * HOPPER_BIASES + at) as usize);
            cp_async_cg_16(Self::SHARED.biases.here().add(at), from);
        }
        cp_async_commit_group();
    }

    /// How far apart the scores of a point have to be, for each.
    #[inline(always)]
    unsafe fn bound_scores(self, arrays: Arrays<C::Scalar>) {
        let largest = arrays.largest.add(((self.batch * 2 + self.params.slot) * 2) as usize);
        let bound = Bound::on_any(Self::WAY.steps * HOPPER_STEP_FEATURES, *largest, *largest.add(1));
        let mut row = thread_idx_x();
        while row < Self::POINTS {
            // Of rows that are not there the last one's.
            let of_panel = (self.own() + row).min(self.len - 1);
            let norm = *arrays.norms.add(self.place(of_panel));
            Self::SHARED.bounds.here().set(row, bound.of(sqrt_approx(norm), 0.0));
            row += SWEEP_THREADS;
        }
    }

    /// Finds which centroids may be the nearest of the block's points.
    #[inline(always)]
    unsafe fn look(self) {
        let teams = const { Self::WAY.teams };
        let (team, mut row) = (warp_id() % teams, warp_id() / teams * WARP_SIZE);
        while row < Self::POINTS && self.own() + row < self.len {
            self.look_at(row, team);
            row += const { WARPS / Self::WAY.teams * WARP_SIZE };
        }
        if teams > 1 {
            sync_threads();
        } else {
            // A warp goes on with its own points.
            sync_warp(FULL_MASK);
        }
    }

    /// The same of the 32 points from `first` on, among the centroids of a team.
    #[inline(always)]
    unsafe fn look_at(self, first: u32, team: u32) {
        let (teams, steps, panels) = const { (Self::WAY.teams, Self::WAY.steps, Self::WAY.panels()) };
        let halves = self.params.shape.k.div_ceil(MMA_CENTROIDS);
        let points = Self::SHARED.points.here().address();
        let centroids = Self::SHARED.centroids.here().address();
        let (quarter, eighth) = (lane_id() & 3, lane_id() / 4);
        let bounds = Self::SHARED.bounds.here().add(first + eighth);
        // Of the thread's rows: `lane / 4`, and each 8 below.
        let mut best = [f32::NEG_INFINITY; 4];
        let mut may_be = [0u32; 4];
        let mut turn = 0;
        while turn < SWEEP_HALVES && team + turn * teams < halves {
            let half = team + turn * teams;
            let mut scores: Scores = [[0.0; 32]; 2];
            let panel = centroids + half * (panels * MMA_CENTROIDS * 128);
            unroll!(S in [0, 1, 2, 3, 4, 5, 6, 7] => {
                if (S as u32) < steps {
                    let x = points + S as u32 / 4 * (Self::POINTS * 128);
                    let x = [of_points(x, first, S as u32 % 4), of_points(x, first + 16, S as u32 % 4)];
                    let panel = panel + S as u32 / 4 * (MMA_CENTROIDS * 128);
                    // Loaded one ahead of their products.
                    let mut next = of_centroids(panel, 0, S as u32 % 4);
                    unroll!(J in [0, 1, 2, 3] => {
                        let these = next;
                        if J < 3 {
                            next = of_centroids(panel, J as u32 + 1, S as u32 % 4);
                        }
                        multiply::<C, J>(&mut scores, x, these);
                    });
                }
            });
            let biases = Self::SHARED.biases.here();
            let biases = biases.add(half / 2 * HOPPER_BIASES + quarter * HOPPER_BIAS_PITCH + half % 2 * 16);
            let mut here = [f32::NEG_INFINITY; 4];
            unroll!(J in [0, 2, 4, 6] => {
                let bias = biases.get4(J as u32 * 2);
                unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                    unroll!(H in [0, 1] => {
                        let here = &mut here[H * 2 + I % 4 / 2];
                        let score = &mut scores[H][J * 4 + I];
                        *score += bias[I / 4 * 2 + I % 2];
                        *here = max(*here, *score);
                    });
                });
            });
            let inside = columns_inside(self.params.shape.k, half * MMA_CENTROIDS + quarter * 2);
            unroll!(R in [0, 1, 2, 3] => {
                let bound = bounds.get(R as u32 * 8);
                let mut of_row = here[R];
                of_row = max(of_row, warp_shuffle_xor(FULL_MASK, of_row, 1));
                of_row = max(of_row, warp_shuffle_xor(FULL_MASK, of_row, 2));
                // What was found before is beyond doubt no nearer.
                may_be[R] = if of_row > best[R] + bound { 0 } else { may_be[R] };
                best[R] = max(best[R], of_row);
                let limit = best[R] - bound;
                let mut bits = 0u32;
                unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
                    unroll!(E in [0, 1] => {
                        // NaN is not below anything.
                        let is_below = scores[R / 2][J * 4 + R % 2 * 2 + E] < limit;
                        bits |= if is_below { 0 } else { 1 << (J * 2 + E) };
                    });
                });
                may_be[R] |= (bits & inside) << (turn * 16);
            });
            turn += 1;
        }
        unroll!(R in [0, 1, 2, 3] => {
            let row = first + eighth + R as u32 * 8;
            Self::SHARED.candidates.here().set((team * Self::POINTS + row) * 4 + quarter, may_be[R]);
            // Where it is one, the column is its.
            let bit = may_be[R].trailing_zeros();
            let column = (team + bit / 16 * teams) * MMA_CENTROIDS + bit % 16 / 2 * 8 + quarter * 2 + bit % 2;
            let mut tally = if may_be[R] == 0 { 0 } else { may_be[R].count_ones() << 16 | column };
            tally += warp_shuffle_xor(FULL_MASK, tally, 1);
            tally += warp_shuffle_xor(FULL_MASK, tally, 2);
            if quarter == 0 {
                Self::SHARED.tallies.here().set(team * Self::POINTS + row, tally);
                Self::SHARED.best.here().set(team * Self::POINTS + row, best[R]);
            }
        });
    }

    /// Labels of the block's points, and their statistics.
    #[inline(always)]
    unsafe fn label(self, arrays: Arrays<C::Scalar>, results: Results) {
        let teams = const { Self::WAY.teams };
        let mut first = warp_id() * WARP_SIZE;
        while first < Self::POINTS && self.own() + first < self.len {
            let (row, of_panel) = (first + lane_id(), self.own() + first + lane_id());
            let is_inside = of_panel < self.len;
            let place = self.place(if is_inside { of_panel } else { self.len - 1 });
            let (before, norm) = (*results.labels.add(place), *arrays.norms.add(place));
            let (best, tallies) = (Self::SHARED.best.here(), Self::SHARED.tallies.here());
            let mut score = best.get(row);
            let mut tally = tallies.get(row);
            let mut limit = f32::NEG_INFINITY;
            if const { Self::WAY.teams > 1 } {
                let (with, theirs) = (best.get(Self::POINTS + row), tallies.get(Self::POINTS + row));
                let own = score;
                score = max(score, with);
                limit = score - Self::SHARED.bounds.here().get(row);
                tally = if own < limit { 0 } else { tally } + if with < limit { 0 } else { theirs };
            }
            let mut label = tally & 0xffff;
            let mut unsure = warp_vote_ballot(FULL_MASK, is_inside && tally >> 16 != 1);
            while unsure != 0 {
                let lane = unsure.trailing_zeros();
                unsure &= unsure - 1;
                let of_lane = warp_shuffle_idx(FULL_MASK, limit, lane);
                let settled = self.settle(first + lane, of_lane, teams, arrays);
                label = if lane_id() == lane { settled } else { label };
            }
            let differs = is_inside && label != before;
            if differs {
                *results.labels.add(place) = label;
            }
            if is_inside {
                Self::SHARED.labels.here().set(of_panel, label);
            }
            let cost = warp_sum_f64(if is_inside { (norm - 2.0 * score) as f64 } else { 0.0 });
            let changed = warp_vote_ballot(FULL_MASK, differs).count_ones();
            if lane_id() == 0 {
                let entry = (self.first + self.own() + first) / STATISTICS_POINTS;
                let entry = (self.batch * self.params.shape.statistics() + entry) as usize;
                *results.cost.add(entry) = cost;
                *results.changed.add(entry) = changed;
            }
            first += SWEEP_THREADS;
        }
    }

    /// The nearest of the centroids that may be, for row `row` of the block's; those of a team whose best score is below `limit` may
    /// not. A warp together.
    #[inline(always)]
    unsafe fn settle(self, row: u32, limit: f32, teams: u32, arrays: Arrays<C::Scalar>) -> u32 {
        let shape = self.params.shape;
        let x = arrays.points.add(self.place(self.own() + row) * shape.pitch as usize);
        let of_problem = arrays.centroids.add(self.batch as usize * shape.k as usize * shape.d as usize);
        let row_of = |centroid: u32| of_problem.add(centroid as usize * shape.d as usize);
        let may_be = |centroid: u32| {
            let (half, column) = (centroid / MMA_CENTROIDS, centroid % MMA_CENTROIDS);
            let (team, turn) = (half % teams, half / teams);
            let candidates = Self::SHARED.candidates.here();
            let bits = candidates.get((team * Self::POINTS + row) * 4 + column % 8 / 2);
            let is_below = Self::SHARED.best.here().get(team * Self::POINTS + row) < limit;
            !is_below && bits >> (turn * 16 + column / 8 * 2 + column % 2) & 1 != 0
        };
        let (mut a, mut b, mut count) = (0, 0, 0);
        let mut first = 0;
        while first < shape.k {
            let centroid = first + lane_id();
            let found = warp_vote_ballot(FULL_MASK, centroid < shape.k && may_be(centroid));
            if found != 0 {
                let last = first + WARP_SIZE - 1 - found.leading_zeros();
                a = if count == 0 { first + found.trailing_zeros() } else { a };
                b = last;
            }
            count += found.count_ones();
            first += WARP_SIZE;
        }
        if count == 2 {
            let [to_a, to_b, size] =
                Distance::by_lanes::<C::Scalar, WARP_SIZE>(x, row_of(a), row_of(b), shape.d);
            if !is_close(to_a, to_b, size, shape.d) {
                return if to_b < to_a { b } else { a };
            }
        }
        // By the definition, a lane a centroid.
        let mut nearest = settle::Nearest::NONE;
        let mut centroid = lane_id();
        while centroid < shape.k {
            if may_be(centroid) {
                nearest.take(Distance::in_order(x, row_of(centroid), shape.d), centroid, f64::INFINITY);
            }
            centroid += WARP_SIZE;
        }
        nearest.of_warp().label
    }

    /// Brings the labels of the panel's points to all blocks that share it; counts are zeros afterwards.
    #[inline(always)]
    unsafe fn share_labels(self) {
        let words = self.params.shape.k.div_ceil(2);
        let counts = Self::SHARED.counts.here();
        let mut word = thread_idx_x();
        while word < WARPS * words {
            counts.set(word, 0);
            word += SWEEP_THREADS;
        }
        #[cfg(all(target_arch = "nvptx64", target_feature = "sm_90a"))]
        if const { Self::WAY.blocks > 1 } {
            sync_threads();
            // Two labels a thread, to each other block.
            let pairs = const { Self::POINTS / 2 };
            let mut at = thread_idx_x();
            while at < pairs * Self::WAY.blocks {
                let (to, pair) = (at / pairs, at % pairs);
                let place =
                    Shared::<u64>::of(Self::SHARED.labels.here().add(self.own() + pair * 2).address());
                if to != rank::<C>() {
                    store_to_block(place, to, place.get(0));
                }
                at += SWEEP_THREADS;
            }
        }
        sync_team::<C>();
    }

    /// Sorts the panel's points by label: `[place]` label above, and where the point is below 2¹⁶.
    #[inline(always)]
    unsafe fn sort(self, results: Results) {
        const { assert!(BLOCK_PANEL_POINTS == 2 * SWEEP_THREADS) };
        let (counts, bases) = (Self::SHARED.counts.here(), Self::SHARED.bases.here());
        let (me, k) = (thread_idx_x(), self.params.shape.k);
        let words = k.div_ceil(2);
        let row = |turn: usize| (warp_id() * 2 + turn as u32) * WARP_SIZE + lane_id();
        let mut labels = [NONE; 2];
        unroll!(I in [0, 1] => {
            if row(I) < self.len {
                labels[I] = Self::SHARED.labels.here().get(row(I));
            }
        });
        let peers = lanes_of(labels, bits_of(k));
        // Two clusters a word.
        let mine = counts.add(warp_id() * words);
        let mut before = [0; 2];
        unroll!(I in [0, 1] => {
            let earlier = (peers[I] & ((1 << lane_id()) - 1)).count_ones();
            if labels[I] != NONE && earlier == 0 {
                let added = peers[I].count_ones() << (labels[I] % 2 * 16);
                before[I] = half_of(mine.fetch_add(labels[I] / 2, added), labels[I]);
            }
            before[I] = warp_shuffle_idx(FULL_MASK, before[I], peers[I].trailing_zeros()) + earlier;
        });
        sync_threads();

        // What earlier warps have of both clusters of a word, at once: neither reaches 2¹⁶.
        let mut both = 0;
        if me < words {
            let mut found = [0; WARPS as usize];
            unroll!(W in [0, 1, 2, 3, 4, 5, 6, 7] => { found[W] = counts.get(W as u32 * words + me); });
            unroll!(W in [0, 1, 2, 3, 4, 5, 6, 7] => {
                counts.set(W as u32 * words + me, both);
                both += found[W];
            });
        }
        let (even, odd) = (both & 0xffff, both >> 16);
        let base = sum_before::<WARPS>(even + odd, Self::SHARED.warp_sums.here());
        // Said otherwise than above: of the same condition, LLVM would make one branch around two clones of the scan, in which
        // the lanes of a warp would not meet.
        if 2 * me < k {
            bases.set(2 * me, base);
            bases.set(2 * me + 1, base + even);
            if rank::<C>() == 0 {
                let starts = results.starts.add((self.item as u64 * (k as u64 + 1)) as usize);
                *starts.add(2 * me as usize) = base;
                // The end of the panel, or the cluster between.
                *starts.add(2 * me as usize + 1) = base + even;
                if 2 * me + 2 == k {
                    *starts.add(k as usize) = base + even + odd;
                }
            }
        }
        sync_threads();
        if me < 4 {
            Self::SHARED.order.here().set(BLOCK_PANEL_POINTS + me, NONE);
        }
        unroll!(I in [0, 1] => {
            let label = labels[I];
            if label == NONE {
                // Nor is there anything in that place.
                Self::SHARED.order.here().set(row(I), NONE);
            } else {
                let place = bases.get(label) + half_of(mine.get(label / 2), label) + before[I];
                Self::SHARED.order.here().set(place, label << 16 | Self::place_of_row(row(I)));
            }
        });
        sync_threads();
    }

    /// Where the features of row `row` that the block sums begin in shared memory; a lane's are where its own place differs from this.
    #[inline(always)]
    fn place_of_row(row: u32) -> u32 {
        if const { Self::WAY.blocks > 1 } {
            row * (Self::WAY.words() * 4)
        } else {
            row * 128 + (row & 7) * 16
        }
    }

    /// The lane's words of a row, by what the row's place is in the order.
    #[inline(always)]
    unsafe fn words(entry: u32) -> [u32; 4] {
        let lane = lane_id() % STRETCH_LANES;
        let bytes = const { Self::WORDS * 4 };
        let at = lane * bytes;
        let row = entry & 0xffff;
        let mut words = [0; 4];
        if const { Self::WAY.blocks > 1 } {
            words[0] = Shared::<u32>::of(Self::SHARED.features.here().address() + row + at).get(0);
            return words;
        }
        // Chunks are swizzled by what the place has of the row.
        let panel = Self::SHARED.points.here().address() + at / 128 * (Self::POINTS * 128);
        let place = panel + (row ^ at % 128);
        if const { Self::WORDS == 2 } {
            let both = Shared::<u64>::of(place).get(0);
            words[0] = both as u32;
            words[1] = (both >> 32) as u32;
        } else {
            words = Shared::<f32>::of(place).get4(0).map(f32::to_bits);
        }
        words
    }

    /// Adds up the half-warp's stretch.
    #[inline(always)]
    unsafe fn sum(self, results: Results) {
        const { assert!(SHORT_STRETCH == WARP_SIZE && BLOCK_PANEL_POINTS == 2 * WARPS * SHORT_STRETCH) };
        let (order, shape) = (Self::SHARED.order.here(), self.params.shape);
        let of_warp = warp_id() * (2 * SHORT_STRETCH);
        if of_warp >= self.len {
            return;
        }
        let stretch = warp_id() * 2 + lane_id() / STRETCH_LANES;
        let first = stretch * SHORT_STRETCH;
        let rows = self.len.saturating_sub(first).min(SHORT_STRETCH);
        // The first stretch of a warp is the longer one.
        let most = if self.len - of_warp < SHORT_STRETCH { self.len - of_warp } else { SHORT_STRETCH };
        let pitch = sums_pitch(shape.d);
        let lane = lane_id() % STRETCH_LANES;
        let feature = rank::<C>() * (Self::WAY.words() * 2) + lane * (Self::WORDS * 2);
        let has_features = lane * Self::WORDS < Self::WAY.words() && feature < pitch;
        let sums =
            results.sums.add((self.item as u64 * shape.k as u64 * pitch as u64) as usize + feature as usize);
        let head = (self.item * self.params.panels.stretches() + stretch) as u64 * pitch as u64;
        let head = results.heads.add(head as usize + feature as usize);
        // What began in an earlier stretch goes to the stretch's own row.
        let mut is_head = rows > 0 && Self::SHARED.bases.here().get(order.get(first) >> 16) < first;
        let mut sum = [0.0f32; VALUES];
        let mut at = 0;
        let mut next = Self::entries(order.add(first));
        while at < most {
            let entries = next;
            next = Self::entries(order.add(first + at + 4));
            let mut found = [[0; 4]; 4];
            unroll!(R in [0, 1, 2, 3] => {
                if at + (R as u32) < rows {
                    found[R] = Self::words(entries[R]);
                }
            });
            unroll!(R in [0, 1, 2, 3] => {
                if at + (R as u32) < rows {
                    unroll!(V in [0, 1, 2, 3, 4, 5, 6, 7] => {
                        if (V as u32) < 2 * Self::WORDS {
                            sum[V] += C::Scalar::of_vector(found[R], V);
                        }
                    });
                    let then = if R < 3 { entries[(R + 1) % 4] } else { next[0] };
                    if at + R as u32 + 1 == rows || (then ^ entries[R]) >> 16 != 0 {
                        let of_cluster = sums.add(((entries[R] >> 16) as u64 * pitch as u64) as usize);
                        if has_features {
                            Self::store(if is_head { head } else { of_cluster }, sum, pitch - feature);
                        }
                        is_head = false;
                        sum = [0.0; VALUES];
                    }
                }
            });
            at += 4;
        }
    }

    /// Four entries of the order.
    #[inline(always)]
    unsafe fn entries(order: Shared<u32>) -> [u32; 4] {
        Shared::<f32>::of(order.address()).get4(0).map(f32::to_bits)
    }

    /// Stores a lane's features of a sum, of which there are `rest` from the first of them on.
    #[inline(always)]
    unsafe fn store(to: *mut f32, sum: [f32; VALUES], rest: u32) {
        if const { Self::WORDS == 1 } {
            // Of a whole vector, two lanes have a half each.
            let both = sum[0].to_bits() as u64 | (sum[1].to_bits() as u64) << 32;
            *to.cast::<u64>() = both;
            return;
        }
        let [a, b, c, d, e, f, g, h] = sum.map(f32::to_bits);
        ptr::store_v4(to.cast(), [a, b, c, d]);
        if const { Self::WORDS == 4 } && rest > 4 {
            ptr::store_v4(to.add(4).cast(), [e, f, g, h]);
        }
    }
}

/// Starts the copy of 8 features, or sets them to 0.
#[inline(always)]
unsafe fn copy_chunk(to: u32, from: *const u16, is_inside: bool) {
    if is_inside {
        cp_async_cg_16(Shared::of(to), from);
    } else {
        Shared::<f32>::of(to).set4(0, [0.0; 4]);
    }
}

/// A bit for each of a thread's 16 columns, two of each 8 from `first` on, that is one of `k`.
#[inline(always)]
fn columns_inside(k: u32, first: u32) -> u32 {
    let rest = if k > first { k - first } else { 0 };
    let whole = rest / 8 * 2;
    let bits = whole + if rest % 8 < 2 { rest % 8 } else { 2 };
    if bits < 16 { (1 << bits) - 1 } else { 0xffff }
}
