//! Labels of problems of few points and clusters, and the partial sums of their clusters, in one launch: a block has a panel's points
//! in shared memory from the products to the sums, and settles those that are unsure on the way.
//!
//! ```text
//! a warp       32 points       products with half a tile of centroids (64), and how many of them may be the nearest
//! a lane       a point         its label, where one may be; else the warp measures those that may be, in f64
//! a thread     1 or 2 points   their places in the panel's order: clusters before, warps before, lanes before
//! 8, 16 lanes  a stretch       32 places of that order, row by row; a sum is written where its cluster ends
//! ```
//! Where panels are fewer than multiprocessors, a cluster of blocks shares each: a block multiplies some of the points, tells the others
//! their labels, and sums some of the features of all. Labels, sums and where clusters begin are those of the launches that this
//! stands for: an assignment, `settle` and `panel_sums`.
use super::assign_mma::{Operand, Scores, multiply, of_centroids, of_points};
use super::await_launch_before;
use super::bound::Bound;
use super::panel_sums::place_clusters;
use super::rank::{Distance, Rank};
use super::settle::{self, is_close};
use super::sort::{bits_of, half_of, lanes_of};
use crate::spec::*;
use cuda_std::async_copy::*;
use cuda_std::float::{Scalar, at_least, fma, max, sqrt_approx};
use cuda_std::ptr;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;
#[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
use cuda_std::wgmma::{cluster_arrive, cluster_rank, cluster_wait, store_to_block};

/// No label.
const NONE: u32 = u32::MAX;
/// No label in an entry of the order.
const NO_LABEL: u32 = 0xffff;
/// Most features of a lane.
const VALUES: usize = 8;

/// The arrays that are read.
#[derive(Clone, Copy)]
pub(super) struct Arrays<T> {
    pub(super) points: *const T,
    pub(super) centroids: *const T,
    pub(super) packed: *const u16,
    pub(super) biases: *const f32,
    pub(super) norms: *const f32,
}

/// The arrays that are written.
#[derive(Clone, Copy)]
pub(super) struct Results {
    pub(super) labels: *mut u32,
    pub(super) cost: *mut f64,
    pub(super) changed: *mut u32,
    pub(super) starts: *mut u32,
    pub(super) sums: *mut f32,
    pub(super) heads: *mut f32,
}

/// Labels, the statistics of each 32 points, partial sums, and where each cluster begins in its panel. `centroids` are those that
/// distances are taken to, `packed` the same for the tensor cores.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, whose panels [`Panels::fit_a_block`], `points`, `packed`, `biases`, `sums` and `heads`
/// aligned to 16 bytes; clusters are packed in their own order; problems have no more dimensions and clusters than the entry is for, the
/// operand's [`SweepWay`], and a block has its threads; each panel has a block, or a cluster of them.
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
    let arrays =
        Arrays::<C::Scalar> { points: points.cast(), centroids: centroids.cast(), packed, biases, norms };
    let results = Results { labels, cost, changed, starts, sums, heads };
    let item = div(block_idx_x(), const { way::<C>().blocks });
    if item as u64 >= params.blocks() {
        return await_launch_before();
    }
    let panel = Panel::<C, false>::of(item, params);
    Panel::<C, false>::arrive();
    // Points are older than what the launch before may still write, and labels are.
    let rows = panel.begin(arrays, labels);
    await_launch_before();
    let is_done = (*states.add(panel.batch as usize)).done != 0;
    panel.keep(rows);
    let largest = panel.largest(largest);
    panel.copy_centroids(arrays);
    panel.bound(largest);
    if is_done {
        return;
    }
    panel.look();
    Panel::<C, false>::meet();
    panel.label_all(arrays, results);
    panel.sort(results);
    panel.sum(results);
}

/// What is known of the points of a thread, every so many of the block's.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    norms: [f32; 2],
    /// The labels they had.
    labels: [u32; 2],
}

/// What the entry is.
pub(super) const fn way<C: Operand>() -> SweepWay {
    SweepWay::ALL[C::STEPS as usize]
}

/// This block's number among those that share a panel.
#[inline(always)]
fn rank<C: Operand>() -> u32 {
    #[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
    if const { way::<C>().blocks > 1 } {
        return cluster_rank();
    }
    0
}

/// What has been found of a lane's point.
#[derive(Clone, Copy)]
struct Labelled {
    label: u32,
    /// Whether it had another one.
    differs: bool,
    /// How far the point is from its centroid, squared, by the score.
    cost: f32,
}

#[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
impl Labelled {
    const NONE: Labelled = Labelled { label: 0, differs: false, cost: 0.0 };
}

/// What a block has of a panel.
pub(super) struct Panel<C, const LOOPS: bool> {
    /// The panel's number, over all problems.
    item: u32,
    pub(super) batch: u32,
    /// Its first row in its problem, and how many it has.
    first: u32,
    len: u32,
    params: SweepParams,
    operand: core::marker::PhantomData<C>,
}

impl<C, const LOOPS: bool> Clone for Panel<C, LOOPS> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<C, const LOOPS: bool> Copy for Panel<C, LOOPS> {}

impl<C: Operand, const LOOPS: bool> Panel<C, LOOPS> {
    const WAY: SweepWay = way::<C>();
    const SHARED: SweepShared = SweepShared::new(Self::WAY);
    /// Points that the block multiplies.
    const POINTS: u32 = Self::WAY.points();
    const WARPS: u32 = Self::WAY.threads / WARP_SIZE;
    /// Lanes that have a stretch.
    const LANES: u32 = Self::WAY.lanes;
    /// Words of a point that a lane sums.
    const WORDS: u32 = Self::WAY.words() / Self::LANES;

    /// This thread's number in the block. See [`Self::here`].
    #[inline(always)]
    unsafe fn thread() -> u32 {
        Self::here(thread_idx_x())
    }

    /// What it is given; where `LOOPS`, a loop around all of this has no registers for what follows from that alone, and works it out
    /// where it is needed.
    #[inline(always)]
    unsafe fn here(value: u32) -> u32 {
        if const { LOOPS } { opaque(value) } else { value }
    }

    /// The same in its warp.
    #[inline(always)]
    unsafe fn lane() -> u32 {
        Self::thread() % WARP_SIZE
    }

    /// The warp's in the block.
    #[inline(always)]
    unsafe fn warp() -> u32 {
        Self::thread() / WARP_SIZE
    }

    #[inline(always)]
    pub(super) unsafe fn of(item: u32, params: SweepParams) -> Self {
        let batch = div(item, params.panels.count);
        let first = (item - batch * params.panels.count) * params.panels.len;
        let rest = params.shape.n - first;
        let len = if rest < params.panels.len { rest } else { params.panels.len };
        Panel { item, batch, first, len, params, operand: core::marker::PhantomData }
    }

    /// Tells the blocks that share the panel that this one has begun, and [`Self::meet`] that they have: nobody writes to one that has
    /// not.
    #[inline(always)]
    pub(super) unsafe fn arrive() {
        #[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
        if const { Self::WAY.blocks > 1 } {
            cluster_arrive();
        }
    }

    /// Before [`Self::label_all`].
    #[inline(always)]
    pub(super) unsafe fn meet() {
        #[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
        if const { Self::WAY.blocks > 1 } {
            cluster_wait();
        }
    }

    /// Has the block's points be on their way, and what is known of them.
    #[inline(always)]
    pub(super) unsafe fn begin(self, arrays: Arrays<C::Scalar>, labels: *const u32) -> Rows {
        let mut rows = Rows { norms: [0.0; 2], labels: [0; 2] };
        unroll!(I in [0, 1] => {
            let row = I as u32 * Self::WAY.threads + Self::thread();
            if row < Self::POINTS {
                // Of rows that are not there the last one's.
                let place = self.place((self.own() + row).min(self.len - 1));
                rows.norms[I] = *arrays.norms.add(place);
                rows.labels[I] = *labels.add(place);
            }
        });
        self.copy_points(arrays.points.cast());
        rows
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

    /// Starts the copies of the block's points. Features past the pitch are zeros.
    #[inline(always)]
    unsafe fn copy_points(self, points: *const u16) {
        let (chunks, below) = const { (2 * Self::WAY.steps, Self::WAY.threads / (2 * Self::WAY.steps)) };
        const { assert!((Self::WAY.threads / (2 * Self::WAY.steps)).is_multiple_of(8)) };
        let me = Self::thread();
        // Chunks of 8 features.
        let (chunk, row) = (me % chunks, me / chunks);
        let pitch = self.params.shape.pitch;
        let rows = self.len.saturating_sub(self.own()).min(Self::POINTS);
        let from = points.add(self.place(self.own()) * pitch as usize + (chunk * 8) as usize);
        // The same for all of the thread's rows, which are a multiple of 8 apart.
        let to = Self::SHARED.points.here().address()
            + chunk / 8 * (Self::POINTS * 128)
            + ((chunk ^ row) & 7) * 16;
        // A warp multiplies 32: of rows that are not there the last again.
        copy_rows(
            to,
            128,
            from,
            pitch,
            row,
            rows,
            rows.next_multiple_of(WARP_SIZE),
            below,
            chunk * 8 < pitch,
        );
        cp_async_commit_group();
    }

    /// Starts the copies of the features that the block sums, where those are not of the points that it multiplies.
    #[inline(always)]
    unsafe fn copy_features(self, points: *const u16) {
        if const { Self::WAY.blocks > 1 } {
            let (chunks, bytes) = const { (Self::WAY.words() / 4, Self::WAY.words() * 4) };
            let me = Self::thread();
            let (chunk, row) = (me % chunks, me / chunks);
            let (pitch, feature) = (self.params.shape.pitch, rank::<C>() * (bytes / 2) + chunk * 8);
            let from = points.add(self.place(0) * pitch as usize + feature as usize);
            let to = Self::SHARED.features.here().address() + chunk * 16;
            let below = const { Self::WAY.threads / (Self::WAY.words() / 4) };
            copy_rows(to, bytes, from, pitch, row, self.len, self.len, below, feature < pitch);
            cp_async_commit_group();
        }
    }

    /// Starts the copies of all of the problem's centroids and their biases.
    #[inline(always)]
    pub(super) unsafe fn copy_centroids(self, arrays: Arrays<C::Scalar>) {
        const HALF_BYTES: u32 = MMA_CENTROIDS * 128;
        let panels = const { Self::WAY.panels() };
        let me = Self::thread();
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
                        if (I as u32) * Self::WAY.threads * 16 < HALF_BYTES {
                            const { assert!(HALF_BYTES.is_multiple_of(Self::WAY.threads * 16)) };
                            let at = (I as u32 * Self::WAY.threads + me) * 16;
                            cp_async_cg_16(Shared::<u32>::of(to + at), from.add(at as usize).cast::<u32>());
                        }
                    });
                }
            });
            half += 1;
        }
        let at = me * 4;
        if at < halves.div_ceil(2) * HOPPER_BIASES {
            const { assert!(Self::WAY.threads * 4 >= Self::WAY.halves / 2 * HOPPER_BIASES) };
            let from = arrays.biases.add((tile * HOPPER_BIASES + at) as usize);
            cp_async_cg_16(Self::SHARED.biases.here().add(at), from);
        }
        cp_async_commit_group();
    }

    /// The largest norm and residual of the problem's centroids.
    #[inline(always)]
    pub(super) unsafe fn largest(self, largest: *const f32) -> [f32; 2] {
        let largest = largest.add(((self.batch * 2 + self.params.slot) * 2) as usize);
        [*largest, *largest.add(1)]
    }

    /// Keeps what is known of the block's points.
    #[inline(always)]
    pub(super) unsafe fn keep(self, rows: Rows) {
        unroll!(I in [0, 1] => {
            let row = I as u32 * Self::WAY.threads + Self::thread();
            if row < Self::POINTS {
                Self::SHARED.norms.here().set(row, rows.norms[I]);
                Self::SHARED.labels.here().set(self.own() + row, rows.labels[I]);
            }
        });
    }

    /// Works out how far apart scores have to be, under centroids whose `largest` norm and residual these are. All that the block
    /// copies is there afterwards.
    #[inline(always)]
    pub(super) unsafe fn bound(self, largest: [f32; 2]) {
        let bound = Bound::on_any(Self::WAY.steps * HOPPER_STEP_FEATURES, largest[0], largest[1]);
        unroll!(I in [0, 1] => {
            let row = I as u32 * Self::WAY.threads + Self::thread();
            if row < Self::POINTS {
                // The thread's own.
                let norm = Self::SHARED.norms.here().get(row);
                Self::SHARED.bounds.here().set(row, bound.of(sqrt_approx(norm), 0.0));
            }
        });
        cp_async_wait_group::<0>();
        sync_threads();
    }

    /// Half tiles that have centroids, as a power of two of them: teams of warps, one after the other.
    #[inline(always)]
    fn teams(self) -> u32 {
        self.params.shape.k.div_ceil(MMA_CENTROIDS).next_power_of_two()
    }

    /// Finds how many centroids may be the nearest of each of the block's points.
    #[inline(always)]
    pub(super) unsafe fn look(self) {
        let shift = self.teams().trailing_zeros();
        let warp = Self::warp();
        let team = warp & (self.teams() - 1);
        let mut row = (warp >> shift) * WARP_SIZE;
        while row < Self::POINTS && self.own() + row < self.len {
            if team * MMA_CENTROIDS < self.params.shape.k {
                self.look_at(row, team);
            }
            row += const { Self::WARPS * WARP_SIZE } >> shift;
        }
        sync_threads();
    }

    /// The same of the 32 points from `first` on, among the centroids of a team.
    #[inline(always)]
    unsafe fn look_at(self, first: u32, team: u32) {
        let (steps, panels) = const { (Self::WAY.steps, Self::WAY.panels()) };
        let points = Self::SHARED.points.here().address();
        let centroids = Self::SHARED.centroids.here().address() + team * (panels * MMA_CENTROIDS * 128);
        let lane = Self::lane();
        let (quarter, eighth) = (lane & 3, lane / 4);
        let mut scores: Scores = [[0.0; 32]; 2];
        unroll!(S in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if (S as u32) < steps {
                let x = points + S as u32 / 4 * (Self::POINTS * 128);
                let step = S as u32 % 4;
                let x = [of_points(x, lane, first, step), of_points(x, lane, first + 16, step)];
                let centroids = centroids + S as u32 / 4 * (MMA_CENTROIDS * 128);
                unroll!(J in [0, 1, 2, 3] => {
                    let these = of_centroids(centroids, lane, J as u32, step);
                    multiply::<C, J>(&mut scores, x, these);
                });
            }
        });
        let biases = Self::SHARED.biases.here();
        let biases = biases.add(team / 2 * HOPPER_BIASES + quarter * HOPPER_BIAS_PITCH + team % 2 * 16);
        // Of the thread's rows: `lane / 4`, and each 8 below.
        let mut best = [f32::NEG_INFINITY; 4];
        unroll!(J in [0, 2, 4, 6] => {
            let bias = biases.get4(J as u32 * 2);
            unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                unroll!(H in [0, 1] => {
                    let best = &mut best[H * 2 + I % 4 / 2];
                    let score = &mut scores[H][J * 4 + I];
                    *score += bias[I / 4 * 2 + I % 2];
                    *best = max(*best, *score);
                });
            });
        });
        let bounds = Self::SHARED.bounds.here().add(first + eighth);
        let of_team = team * Self::POINTS + first + eighth;
        let mut limits = [0.0; 4];
        let mut is_clear = true;
        unroll!(R in [0, 1, 2, 3] => {
            best[R] = max(best[R], warp_shuffle_xor(FULL_MASK, best[R], 1));
            best[R] = max(best[R], warp_shuffle_xor(FULL_MASK, best[R], 2));
            limits[R] = best[R] - bounds.get(R as u32 * 8);
            // How many columns are within the bound, above 2¹⁶, and the sum of which: under 2²⁴ f32 is exact.
            let mut near = 0.0f32;
            unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
                unroll!(E in [0, 1] => {
                    let is_near = at_least(scores[R / 2][J * 4 + R % 2 * 2 + E], limits[R]);
                    near = fma(is_near, (65_536 + J * 8 + E) as f32, near);
                });
            });
            let mut tally = near as u32;
            // The thread's columns begin there.
            tally += (tally >> 16) * (team * MMA_CENTROIDS + quarter * 2);
            tally += warp_shuffle_xor(FULL_MASK, tally, 1);
            tally += warp_shuffle_xor(FULL_MASK, tally, 2);
            is_clear &= tally >> 16 == 1;
            if quarter == 0 {
                Self::SHARED.tallies.here().set(of_team + R as u32 * 8, tally);
                Self::SHARED.best.here().set(of_team + R as u32 * 8, best[R]);
            }
        });
        if warp_vote_ballot(FULL_MASK, !is_clear) == 0 {
            return;
        }
        let inside = columns_inside(self.params.shape.k, team * MMA_CENTROIDS + quarter * 2);
        unroll!(R in [0, 1, 2, 3] => {
            let mut bits = 0u32;
            unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
                unroll!(E in [0, 1] => {
                    // NaN is not below anything.
                    let is_below = scores[R / 2][J * 4 + R % 2 * 2 + E] < limits[R];
                    bits |= if is_below { 0 } else { 1 << (J * 2 + E) };
                });
            });
            bits = (bits & inside) << (quarter % 2 * 16);
            bits |= warp_shuffle_xor(FULL_MASK, bits, 1);
            if quarter % 2 == 0 {
                let place = (of_team + R as u32 * 8) * 2 + quarter / 2;
                Self::SHARED.candidates.here().set(place, bits);
            }
        });
    }

    /// Labels of the panel's points, of which the block finds its own, and the statistics of these.
    #[inline(always)]
    pub(super) unsafe fn label_all(self, arrays: Arrays<C::Scalar>, results: Results) {
        self.copy_features(arrays.points.cast());
        // A lane has a row, whose warp's are all there or none is: the last again, in place of those past it.
        let mut row = Self::thread();
        #[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
        if const { Self::WAY.blocks > 1 } {
            const { assert!(Self::WAY.blocks == 1 || Self::POINTS <= Self::WAY.threads) };
            let has_points = self.has_points(row);
            let mut found = Labelled::NONE;
            if has_points {
                found = self.label(row, arrays);
                self.tell(row, found.label);
            }
            // Labels are told; nobody has to wait for what goes to memory.
            cluster_arrive();
            if has_points {
                self.store_labels(row, found, results);
            }
            return cluster_wait();
        }
        while self.has_points(row) {
            self.store_labels(row, self.label(row, arrays), results);
            if const { Self::POINTS <= Self::WAY.threads } {
                break;
            }
            row += Self::WAY.threads;
        }
        sync_threads();
    }

    /// Whether the warp that has row `row` of the block's has points.
    #[inline(always)]
    fn has_points(self, row: u32) -> bool {
        let first = row & !(WARP_SIZE - 1);
        first < Self::POINTS && self.own() + first < self.len
    }

    /// The label of row `row` of the block's; a warp together, which has 32.
    #[inline(always)]
    unsafe fn label(self, row: u32, arrays: Arrays<C::Scalar>) -> Labelled {
        let teams = self.params.shape.k.div_ceil(MMA_CENTROIDS);
        let of_panel = self.own() + row;
        let is_inside = of_panel < self.len;
        let (best, tallies) = (Self::SHARED.best.here(), Self::SHARED.tallies.here());
        let (norm, labels) = (Self::SHARED.norms.here().get(row), Self::SHARED.labels.here());
        let before = labels.get(of_panel);
        let mut score = best.get(row);
        let mut tally = tallies.get(row);
        let mut limit = f32::NEG_INFINITY;
        if teams > 1 {
            let mut team = 1;
            while team < teams {
                score = max(score, best.get(team * Self::POINTS + row));
                team += 1;
            }
            limit = score - Self::SHARED.bounds.here().get(row);
            tally = 0;
            team = 0;
            while team < teams {
                let theirs = tallies.get(team * Self::POINTS + row);
                tally += if best.get(team * Self::POINTS + row) < limit { 0 } else { theirs };
                team += 1;
            }
        }
        let mut label = tally & 0xffff;
        let mut unsure = warp_vote_ballot(FULL_MASK, is_inside && tally >> 16 != 1);
        while unsure != 0 {
            let lane = unsure.trailing_zeros();
            unsure &= unsure - 1;
            let of_lane = warp_shuffle_idx(FULL_MASK, limit, lane);
            let settled = self.settle((row & !(WARP_SIZE - 1)) + lane, of_lane, arrays);
            label = if row % WARP_SIZE == lane { settled } else { label };
        }
        labels.set(of_panel, label);
        let cost = if is_inside { norm - 2.0 * score } else { 0.0 };
        Labelled { label, differs: is_inside && label != before, cost }
    }

    /// Stores what is new of the label of row `row`, and a warp's statistics.
    #[inline(always)]
    unsafe fn store_labels(self, row: u32, found: Labelled, results: Results) {
        if found.differs {
            *results.labels.add(self.place(self.own() + row)) = found.label;
        }
        let cost = warp_sum_f64(found.cost as f64);
        let changed = warp_vote_ballot(FULL_MASK, found.differs).count_ones();
        if row.is_multiple_of(WARP_SIZE) {
            if LOOPS {
                Self::SHARED.costs.here().set(row / WARP_SIZE, cost);
                Self::SHARED.changes.here().set(row / WARP_SIZE, changed);
            } else {
                self.store_statistics(row, cost, changed, results);
            }
        }
    }

    /// A warp's statistics, whose first row is `row`.
    #[inline(always)]
    unsafe fn store_statistics(self, row: u32, cost: f64, changed: u32, results: Results) {
        let entry = (self.first + self.own() + row) / STATISTICS_POINTS;
        let shape = Shape { n: Self::here(self.params.shape.n), ..self.params.shape };
        let entry = (self.batch * shape.statistics() + entry) as usize;
        *results.cost.add(entry) = cost;
        *results.changed.add(entry) = changed;
    }

    /// Stores the statistics of the block's warps. Of blocks that stay, another may still add up those of the iteration before when
    /// this one labels; it no longer does once they have met.
    #[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
    #[inline(always)]
    pub(super) unsafe fn store_all_statistics(self, results: Results) {
        let row = Self::thread() * WARP_SIZE;
        if row < Self::POINTS && self.has_points(row) {
            let cost = Self::SHARED.costs.here().get(row / WARP_SIZE);
            let changed = Self::SHARED.changes.here().get(row / WARP_SIZE);
            self.store_statistics(row, cost, changed, results);
        }
    }

    /// Tells the other blocks a warp's labels, of which the lane that has row `row` has one.
    #[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
    #[inline(always)]
    unsafe fn tell(self, row: u32, label: u32) {
        let pair = row % 16 * 2;
        let low = warp_shuffle_idx(FULL_MASK, label, pair);
        let high = warp_shuffle_idx(FULL_MASK, label, pair + 1);
        let place = Self::SHARED.labels.here().add(self.own() + (row & !(WARP_SIZE - 1)) + pair);
        let both = low as u64 | (high as u64) << 32;
        let mut to = row % WARP_SIZE / 16;
        while to < Self::WAY.blocks {
            if to != rank::<C>() {
                store_to_block(Shared::of(place.address()), to, both);
            }
            to += 2;
        }
    }

    /// The nearest of the centroids that may be, for row `row` of the block's; those of a team whose best score is below `limit` may
    /// not. A warp together.
    #[inline(always)]
    unsafe fn settle(self, row: u32, limit: f32, arrays: Arrays<C::Scalar>) -> u32 {
        let shape = self.params.shape;
        let x = arrays.points.add(self.place(self.own() + row) * shape.pitch as usize);
        let of_problem = arrays.centroids.add(self.batch as usize * shape.k as usize * shape.d as usize);
        let row_of = |centroid: u32| of_problem.add(centroid as usize * shape.d as usize);
        let may_be = |centroid: u32| {
            let (team, column) = (centroid / MMA_CENTROIDS, centroid % MMA_CENTROIDS);
            let place = team * Self::POINTS + row;
            let is_below = Self::SHARED.best.here().get(place) < limit;
            let tally = Self::SHARED.tallies.here().get(place);
            let is_near = if tally >> 16 == 1 {
                tally & 0xffff == centroid
            } else {
                let quarter = column % 8 / 2;
                let bits = Self::SHARED.candidates.here().get(place * 2 + quarter / 2);
                bits >> (quarter % 2 * 16 + column / 8 * 2 + column % 2) & 1 != 0
            };
            !is_below && is_near
        };
        if let Some([a, b]) = self.two_of(row, limit) {
            let [to_a, to_b, size] =
                Distance::by_lanes::<C::Scalar, WARP_SIZE>(x, row_of(a), row_of(b), shape.d);
            if !is_close(to_a, to_b, size, shape.d) {
                return if to_b < to_a { b } else { a };
            }
        }
        // By the definition, a lane a centroid.
        let mut nearest = settle::Nearest::NONE;
        let mut centroid = Self::lane();
        while centroid < shape.k {
            if may_be(centroid) {
                nearest.take(Distance::in_order(x, row_of(centroid), shape.d), centroid, f64::INFINITY);
            }
            centroid += WARP_SIZE;
        }
        nearest.of_warp().label
    }

    /// The two centroids that may be the nearest of row `row`, the first of them first, where there are two. A warp together, whose
    /// lanes have half of a team's columns each.
    #[inline(always)]
    unsafe fn two_of(self, row: u32, limit: f32) -> Option<[u32; 2]> {
        const { assert!(2 * Self::WAY.halves <= WARP_SIZE) };
        let lane = Self::lane();
        let (team, half) = (lane / 2, lane % 2);
        let mut word = 0;
        if team * MMA_CENTROIDS < self.params.shape.k {
            let place = team * Self::POINTS + row;
            let best = Self::SHARED.best.here().get(place);
            let tally = Self::SHARED.tallies.here().get(place);
            if tally >> 16 == 1 {
                let column = tally % MMA_CENTROIDS;
                let bit = 1 << (column / 2 % 2 * 16 + column / 8 * 2 + column % 2);
                word = if column / 4 % 2 == half { bit } else { 0 };
            } else {
                word = Self::SHARED.candidates.here().get(place * 2 + half);
            }
            word = if best < limit { 0 } else { word };
        }
        let count = word.count_ones();
        let lanes = warp_vote_ballot(FULL_MASK, count > 0);
        let singles = warp_vote_ballot(FULL_MASK, count == 1);
        let pairs = warp_vote_ballot(FULL_MASK, count == 2);
        let is_two = lanes == pairs && lanes.count_ones() == 1 || lanes == singles && lanes.count_ones() == 2;
        if !is_two {
            return None;
        }
        let (low, high) = (lanes.trailing_zeros(), WARP_SIZE - 1 - lanes.leading_zeros());
        let (of_low, of_high) =
            (warp_shuffle_idx(FULL_MASK, word, low), warp_shuffle_idx(FULL_MASK, word, high));
        let centroid = |lane: u32, bit: u32| {
            lane / 2 * MMA_CENTROIDS + bit % 16 / 2 * 8 + lane % 2 * 4 + bit / 16 * 2 + bit % 2
        };
        let a = centroid(low, of_low.trailing_zeros());
        let b = centroid(high, WARP_SIZE - 1 - of_high.leading_zeros());
        Some([a.min(b), a.max(b)])
    }

    /// Sorts the panel's points by label: `[place]` label above, and where the point is below 2¹⁶.
    #[inline(always)]
    pub(super) unsafe fn sort(self, results: Results) {
        const { assert!(BLOCK_PANEL_POINTS <= 2 * Self::WAY.threads) };
        let of_thread = const { BLOCK_PANEL_POINTS / Self::WAY.threads };
        let (counts, bases) = (Self::SHARED.counts.here(), Self::SHARED.bases.here());
        let (me, k) = (Self::thread(), self.params.shape.k);
        let (warp, lane) = (me / WARP_SIZE, me % WARP_SIZE);
        let words = k.div_ceil(2);
        let row = |turn: usize| (warp * of_thread + turn as u32) * WARP_SIZE + lane;
        // Two clusters a word.
        let mine = counts.add(warp * words);
        let mut word = lane;
        while word < words {
            mine.set(word, 0);
            word += WARP_SIZE;
        }
        let mut labels = [NONE; 2];
        unroll!(I in [0, 1] => {
            if (I as u32) < of_thread && row(I) < self.len {
                labels[I] = Self::SHARED.labels.here().get(row(I));
            }
        });
        let peers = if of_thread == 2 {
            lanes_of(labels, bits_of(k))
        } else {
            let [peers] = lanes_of([labels[0]], bits_of(k));
            [peers, 0]
        };
        let mut before = [0; 2];
        sync_warp(FULL_MASK);
        unroll!(I in [0, 1] => {
            if (I as u32) < of_thread {
                let earlier = (peers[I] & ((1 << lane) - 1)).count_ones();
                if labels[I] != NONE && earlier == 0 {
                    let added = peers[I].count_ones() << (labels[I] % 2 * 16);
                    before[I] = half_of(mine.fetch_add(labels[I] / 2, added), labels[I]);
                }
                before[I] = warp_shuffle_idx(FULL_MASK, before[I], peers[I].trailing_zeros()) + earlier;
            }
        });
        sync_threads();

        let (sums, is_first) = (Self::SHARED.warp_sums.here(), rank::<C>() == 0);
        let starts = results.starts.add((self.item as u64 * (k as u64 + 1)) as usize);
        if const { Self::WARPS == 8 } {
            place_clusters::<8>(counts, bases, sums, k, starts, is_first);
        } else {
            const { assert!(Self::WARPS == 8 || Self::WARPS == 16) };
            place_clusters::<16>(counts, bases, sums, k, starts, is_first);
        }
        sync_threads();
        let order = Self::SHARED.order.here();
        if me < 4 {
            order.set(BLOCK_PANEL_POINTS + me, NO_LABEL << 16);
        }
        unroll!(I in [0, 1] => {
            if (I as u32) < of_thread {
                let label = labels[I];
                // Places past the last have a point that nobody stores.
                let (mut place, mut entry) = (row(I), NO_LABEL << 16);
                if label != NONE {
                    place = bases.get(label) + half_of(mine.get(label / 2), label) + before[I];
                    entry = label << 16 | Self::place_of_row(row(I));
                }
                order.set(place, entry);
            }
        });
        // Of features.
        cp_async_wait_group::<0>();
        sync_threads();
    }

    /// Where the features of row `row` that the block sums begin, from where a lane's begin; below 2¹⁶.
    #[inline(always)]
    fn place_of_row(row: u32) -> u32 {
        if const { Self::WAY.blocks > 1 } {
            row * (Self::WAY.words() * 4)
        } else {
            row * 128 + (row & 7) * 16
        }
    }

    /// Where the lane's words of a row are, but for the row's place.
    #[inline(always)]
    unsafe fn place_of_lane(lane: u32) -> u32 {
        let at = lane * const { Self::WORDS * 4 };
        if const { Self::WAY.blocks > 1 } {
            return Self::SHARED.features.here().address() + at;
        }
        Self::SHARED.points.here().address() + at / 128 * (Self::POINTS * 128)
    }

    /// The lane's words of a row, by what the row's place is in the order.
    #[inline(always)]
    unsafe fn words(of_lane: u32, lane: u32, entry: u32) -> [u32; 4] {
        let row = entry & 0xffff;
        let at = lane * const { Self::WORDS * 4 };
        // Chunks are swizzled by what the place has of the row.
        let place = if const { Self::WAY.blocks > 1 } { of_lane + row } else { of_lane + (row ^ (at % 128)) };
        match const { Self::WORDS } {
            4 => Shared::<f32>::of(place).get4(0).map(f32::to_bits),
            2 => {
                let both = Shared::<u64>::of(place).get(0);
                [both as u32, (both >> 32) as u32, 0, 0]
            }
            _ => [Shared::<u32>::of(place).get(0), 0, 0, 0],
        }
    }

    /// Adds up the stretch of some lanes.
    #[inline(always)]
    pub(super) unsafe fn sum(self, results: Results) {
        const { assert!(SHORT_STRETCH == WARP_SIZE && 2 * Self::WORDS <= VALUES as u32) };
        let (order, shape) = (Self::SHARED.order.here(), self.params.shape);
        let of_warp = const { WARP_SIZE / Self::LANES };
        let me = Self::thread();
        let (warp, lane) = (me / WARP_SIZE, me % Self::LANES);
        let stretch = me / Self::LANES;
        let first = stretch * SHORT_STRETCH;
        // The first stretch of a warp is the longest one.
        if warp * of_warp * SHORT_STRETCH >= self.len {
            return;
        }
        let pitch = sums_pitch(shape.d);
        let feature = rank::<C>() * (Self::WAY.words() * 2) + lane * (Self::WORDS * 2);
        let has_features = feature < pitch;
        let sums = self.item as u64 * shape.k as u64 * pitch as u64;
        let sums = results.sums.add(sums as usize + feature as usize);
        let panels = Panels { len: Self::here(self.params.panels.len), ..self.params.panels };
        let head = (self.item * panels.short_stretches() + stretch) as u64 * pitch as u64;
        let head = results.heads.add(head as usize + feature as usize);
        let mut next = Self::entries(order.add(first));
        // What began in an earlier stretch goes to the stretch's own row.
        let mut headed = next[0] >> 16;
        if headed != NO_LABEL && Self::SHARED.bases.here().get(headed) >= first {
            headed = NO_LABEL;
        }
        let of_lane = Self::place_of_lane(lane);
        let mut sum = [0.0f32; VALUES];
        let mut at = 0;
        while at < SHORT_STRETCH {
            let entries = next;
            at += 4;
            next = Self::entries(order.add(first + at));
            // The stretch ends whatever comes then.
            next[0] = if at == SHORT_STRETCH { !entries[3] } else { next[0] };
            let mut found = [[0; 4]; 4];
            unroll!(R in [0, 1, 2, 3] => { found[R] = Self::words(of_lane, lane, entries[R]); });
            unroll!(R in [0, 1, 2, 3] => {
                unroll!(V in [0, 1, 2, 3, 4, 5, 6, 7] => {
                    if (V as u32) < 2 * Self::WORDS {
                        sum[V] += C::Scalar::of_vector(found[R], V);
                    }
                });
                let then = if R < 3 { entries[(R + 1) % 4] } else { next[0] };
                if then ^ entries[R] > 0xffff {
                    let label = entries[R] >> 16;
                    if has_features && label != NO_LABEL {
                        let of_cluster = sums.add((label as u64 * pitch as u64) as usize);
                        Self::store(if label == headed { head } else { of_cluster }, sum, pitch - feature);
                    }
                    sum = [0.0; VALUES];
                }
            });
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
        let [a, b, c, d, e, f, g, h] = sum.map(f32::to_bits);
        if const { Self::WORDS == 1 } {
            // Of a whole vector, two lanes have a half each.
            *to.cast::<u64>() = a as u64 | (b as u64) << 32;
            return;
        }
        ptr::store_v4(to.cast(), [a, b, c, d]);
        if const { Self::WORDS == 4 } && rest > 4 {
            ptr::store_v4(to.add(4).cast(), [e, f, g, h]);
        }
    }
}

/// Starts the copies of 8 features of every `below`-th row from `row` on to places `bytes` a row apart, up to row `end`: of rows that
/// are not there the last of `rows`. Sets them to 0 where there are no such features.
#[inline(always)]
unsafe fn copy_rows(
    to: u32,
    bytes: u32,
    from: *const u16,
    pitch: u32,
    mut row: u32,
    rows: u32,
    end: u32,
    below: u32,
    is_inside: bool,
) {
    if !is_inside {
        while row < end {
            Shared::<f32>::of(to + row * bytes).set4(0, [0.0; 4]);
            row += below;
        }
        return;
    }
    let mut place = to + row * bytes;
    let mut from_row = from.add((row * pitch) as usize);
    while row + 3 * below < rows {
        unroll!(I in [0, 1, 2, 3] => {
            cp_async_cg_16(Shared::of(place + I as u32 * (below * bytes)), from_row);
            from_row = from_row.add((below * pitch) as usize);
        });
        place += 4 * below * bytes;
        row += 4 * below;
    }
    while row < end {
        let of_row = if row < rows { row } else { rows - 1 };
        cp_async_cg_16(Shared::of(to + row * bytes), from.add((of_row * pitch) as usize));
        row += below;
    }
}

/// A bit for each of a thread's 16 columns, two of each 8 from `first` on, that is one of `k`.
#[inline(always)]
fn columns_inside(k: u32, first: u32) -> u32 {
    let rest = k.saturating_sub(first);
    let whole = rest / 8 * 2;
    let bits = whole + if rest % 8 < 2 { rest % 8 } else { 2 };
    if bits < 16 { (1 << bits) - 1 } else { 0xffff }
}
