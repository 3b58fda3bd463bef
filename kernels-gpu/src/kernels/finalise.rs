//! Means and moves of the centroids, from the partial sums of panels and stretches.
//!
//! ```text
//! rows of a cluster     panel 0: what the panel has where the cluster begins, heads of the stretches that it goes on
//!                       through, of some 32 the sum; panel 1: …
//! shares                eight of equal length, in f64, each added up row by row, four at a time, and then one by one
//! a warp                some clusters, one after the other: 128 features of all shares; or a share of a cluster of many rows
//! ```
//! A lane looks at one panel's share of a cluster, so that a warp learns of `32 / panels` clusters at a time where they begin
//! and end. Which warp adds changes no bits: those depend on the labels alone. Bound by the reading of the rows.
use super::segment_sums::sums_about_first;
use crate::spec::*;
use cuda_std::async_copy::*;
use cuda_std::float::Scalar;
use cuda_std::ptr;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const SHARED: FinaliseShared = FinaliseShared::new();
/// Features of a lane.
const VALUES: usize = FINALISE_VALUES as usize;

/// New centroids, the same rounded to `T`, and `‖c_new − c_old‖²` of each by chunks of features. An empty cluster keeps its
/// centroid.
///
/// # Safety
/// Pointers are valid for the shapes in `params` and aligned to 16 bytes; a block has [`UPDATE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn finalise<T: Scalar>(
    origin: *const T,
    sums: *const f32,
    heads: *const f32,
    starts: *const u32,
    states: *const LoopState,
    centroids: *mut f32,
    rounded: *mut T,
    moves: *mut f64,
    params: FinaliseParams,
) {
    let partials = Partials { sums, heads, starts, params };
    let means = Means { origin, centroids, rounded, moves, params };
    let (many, weights) = (SHARED.many.here(), SHARED.weights.here());
    let warps = params.warps_of_block;
    let mut first = block_idx_x() as u64 * warps as u64;
    while first < params.groups() {
        // First the warp's own clusters, then those of many rows of each warp. One loop: code that runs once is waited for.
        let mut turn = 0;
        while turn <= warps {
            let is_own = turn == 0;
            let owner = if is_own { warp_id() } else { turn - 1 };
            let mut clusters = if is_own { u32::MAX } else { many.get(owner) };
            if is_own && lane_id() == 0 {
                many.set(owner, 0);
            }
            // Where there is nothing to do, nothing is worked out: that would take longer than a cluster's rows do.
            let group = if owner < warps && clusters != 0 {
                Group::of(first + owner as u64, params)
            } else {
                Group::NONE
            };
            if group.is_open(states) {
                let look = partials.look(group, 0);
                let (rows, points) = partials.count(group, look);
                // What a point is of its cluster's mean, 0 where there is none.
                weights.set(thread_idx_x(), if points > 0 { 1.0 / points as f64 } else { 0.0 });
                sync_warp(FULL_MASK);
                clusters &= u32::MAX >> (WARP_SIZE - group.clusters);
                while clusters != 0 {
                    let at = clusters.trailing_zeros();
                    clusters &= clusters - 1;
                    let lane = at * params.lanes_of_cluster + params.lanes_of_cluster - 1;
                    let rows = warp_shuffle_idx(FULL_MASK, rows, lane);
                    if is_own && rows > params.rows_of_warp {
                        if lane_id() == 0 {
                            many.set(owner, many.get(owner) | 1 << at);
                        }
                        continue;
                    }
                    let (from, shares) = if is_own { (0, FINALISE_SHARES) } else { (warp_id(), 1) };
                    if is_own || warp_id() == 0 {
                        means.fetch(group, at);
                    }
                    partials.add(group, look, at, rows, from, shares);
                    if !is_own {
                        sync_threads();
                    }
                    if is_own || warp_id() == 0 {
                        let total = total_of(if is_own { 1 } else { UPDATE_WARPS });
                        means.end(group, at, total, weights.get(warp_id() * WARP_SIZE + lane));
                    }
                    if !is_own {
                        sync_threads();
                    }
                }
            }
            if is_own {
                sync_threads();
            }
            turn += 1;
        }
        // What each warp has to tell has been read.
        sync_threads();
        first += grid_dim_x() as u64 * warps as u64;
    }
}

/// Rows of each of a cluster's shares.
#[inline(always)]
pub(super) fn rows_of_share(rows: u32) -> u32 {
    rows.div_ceil(FINALISE_SHARES * FINALISE_IN_FLIGHT) * FINALISE_IN_FLIGHT
}

/// Where a warp has what it has added up, value `V` of its lane: there, for it is not needed while rows are added.
#[inline(always)]
unsafe fn sum_of_warp(warp: u32, value: usize) -> Shared<f64> {
    SHARED.sums.here().add((warp * FINALISE_VALUES + value as u32) * WARP_SIZE + lane_id())
}

/// What `warps` warps from this one on have added up, in their order.
#[inline(always)]
unsafe fn total_of(warps: u32) -> [f64; VALUES] {
    let mut total = [0.0; VALUES];
    let mut warp = warp_id();
    let end = warp + warps;
    while warp < end {
        unroll!(V in [0, 1, 2, 3] => { total[V] += sum_of_warp(warp, V).get(0); });
        warp += 1;
    }
    total
}

/// Some clusters of a problem, one after the other, and a chunk of their features.
#[derive(Clone, Copy)]
struct Group {
    batch: u32,
    /// The first cluster.
    first: u32,
    /// How many there are; 0 past the last group.
    clusters: u32,
    chunk: u32,
}

impl Group {
    const NONE: Group = Group { batch: 0, first: 0, clusters: 0, chunk: 0 };

    #[inline(always)]
    unsafe fn of(group: u64, params: FinaliseParams) -> Self {
        if group >= params.groups() {
            return Self::NONE;
        }
        let of_problem = params.groups_of_problem();
        let batch = div_u64(group, of_problem as u64) as u32;
        let of_batch = (group - batch as u64 * of_problem as u64) as u32;
        let run = div(of_batch, params.chunks());
        let first = run * params.clusters_of_warp;
        let rest = params.shape.k - first;
        let clusters = if rest < params.clusters_of_warp { rest } else { params.clusters_of_warp };
        Group { batch, first, clusters, chunk: of_batch - run * params.chunks() }
    }

    /// The lane's first feature.
    #[inline(always)]
    fn feature(self) -> u32 {
        self.chunk * FINALISE_FEATURES + lane_id() * FINALISE_VALUES
    }

    /// The same, so that what follows from it takes no registers before.
    #[inline(always)]
    unsafe fn opaque(self) -> Self {
        Group { batch: opaque(self.batch), first: opaque(self.first), chunk: opaque(self.chunk), ..self }
    }

    #[inline(always)]
    unsafe fn is_open(self, states: *const LoopState) -> bool {
        self.clusters > 0 && (*states.add(self.batch as usize)).done == 0
    }
}

/// Where means go, and what they are compared to.
#[derive(Clone, Copy)]
struct Means<T> {
    origin: *const T,
    centroids: *mut f32,
    rounded: *mut T,
    moves: *mut f64,
    params: FinaliseParams,
}

impl<T: Scalar> Means<T> {
    /// Cluster `at` of the group, counted over all problems.
    #[inline(always)]
    fn cluster(self, group: Group, at: u32) -> u64 {
        group.batch as u64 * self.params.shape.k as u64 + (group.first + at) as u64
    }

    /// Where its centroid is.
    #[inline(always)]
    fn row(self, group: Group, at: u32) -> u64 {
        self.cluster(group, at) * self.params.shape.d as u64
    }

    /// Whether all rows begin with a whole vector.
    #[inline(always)]
    fn has_vectors(self) -> bool {
        self.params.shape.d.is_multiple_of(FINALISE_VALUES)
    }

    /// Has the lane's features of the centroid so far be on their way to shared memory, where rows are vectors.
    #[inline(always)]
    unsafe fn fetch(self, group: Group, at: u32) {
        let group = group.opaque();
        if self.has_vectors() && group.feature() < self.params.shape.d {
            let place = self.row(group, at) + group.feature() as u64;
            cp_async_cg_16(Self::fetched(), self.centroids.add(place as usize).cast_const());
        }
        cp_async_commit_group();
    }

    /// Where the lane's are.
    #[inline(always)]
    unsafe fn fetched() -> Shared<f32> {
        SHARED.before.here().add(thread_idx_x() * FINALISE_VALUES)
    }

    /// The lane's features of the centroid so far, after [`Self::fetch`].
    #[inline(always)]
    unsafe fn before(self, group: Group, at: u32) -> [f32; VALUES] {
        let (d, feature) = (self.params.shape.d, group.feature());
        let row = self.centroids.add(self.row(group, at) as usize).cast_const();
        let mut values = [0.0; VALUES];
        cp_async_wait_group::<0>();
        if self.has_vectors() {
            if feature < d {
                unroll!(V in [0, 1, 2, 3] => { values[V] = Self::fetched().get(V as u32); });
            }
        } else {
            unroll!(V in [0, 1, 2, 3] => {
                if feature + (V as u32) < d {
                    values[V] = *row.add(feature as usize + V);
                }
            });
        }
        values
    }

    /// Stores the mean, `total` times `weight`, and how far it is from the centroid so far.
    #[inline(always)]
    unsafe fn end(self, group: Group, at: u32, total: [f64; VALUES], weight: f64) {
        let group = group.opaque();
        let (shape, feature) = (self.params.shape, group.feature());
        // Sums may be of points less their problem's first.
        let rows = group.batch as u64 * shape.n as u64;
        let origin = self.origin.add((rows * shape.pitch as u64) as usize);
        let before = self.before(group, at);
        let mut new = before;
        let mut moved = 0.0;
        unroll!(V in [0, 1, 2, 3] => {
            if weight > 0.0 && feature + (V as u32) < shape.d {
                let mut mean = total[V] * weight;
                if sums_about_first::<T>() {
                    mean += (*origin.add(feature as usize + V)).to_f32() as f64;
                }
                new[V] = mean as f32;
                let difference = new[V] as f64 - before[V] as f64;
                moved += difference * difference;
            }
        });
        let place = (self.row(group, at) + feature as u64) as usize;
        if self.has_vectors() {
            if feature < shape.d {
                ptr::store_v4(self.centroids.add(place).cast(), new.map(f32::to_bits));
                T::store_four(self.rounded.add(place), new);
            }
        } else {
            unroll!(V in [0, 1, 2, 3] => {
                if feature + (V as u32) < shape.d {
                    *self.centroids.add(place + V) = new[V];
                    *self.rounded.add(place + V) = T::from_f32(new[V]);
                }
            });
        }
        let moved = warp_sum_f64(moved);
        if lane_id() == 0 {
            *self
                .moves
                .add((self.cluster(group, at) * self.params.chunks() as u64 + group.chunk as u64) as usize) =
                moved;
        }
    }
}

/// What a lane knows of a cluster in a panel.
#[derive(Clone, Copy)]
struct Look {
    /// Its points there.
    points: u32,
    /// Its rows there, and in the lanes before that look at the same cluster.
    through: u32,
    /// Its rows there.
    rows: u32,
    /// The stretch in which it begins.
    stretch: u32,
    /// Folded rows.
    folds: u32,
}

/// The rows of partial sums.
#[derive(Clone, Copy)]
struct Partials {
    sums: *const f32,
    heads: *const f32,
    starts: *const u32,
    params: FinaliseParams,
}

impl Partials {
    /// What the group's clusters have in panels from `first_panel` on, as many as each has lanes for.
    #[inline(always)]
    unsafe fn look(self, group: Group, first_panel: u32) -> Look {
        let (panels, k) = (self.params.panels, self.params.shape.k);
        let lanes = self.params.lanes_of_cluster;
        let at = lane_id() >> lanes.trailing_zeros();
        let panel = first_panel + (lane_id() & (lanes - 1));
        let mut look = Look { points: 0, through: 0, rows: 0, stretch: 0, folds: 0 };
        if at < group.clusters && panel < panels.count {
            let borders = (group.batch * panels.count + panel) as u64 * (k as u64 + 1);
            let border = self.starts.add((borders + (group.first + at) as u64) as usize);
            let (begin, end) = (*border, *border.add(1));
            let shift = panels.stretch().trailing_zeros();
            look.points = end - begin;
            look.stretch = begin >> shift;
            if end > begin {
                let last = (end - 1) >> shift;
                if self.params.is_folded != 0 {
                    look.folds = ((last + 1) / FOLD).saturating_sub((look.stretch + FOLD) / FOLD);
                }
                look.rows = 1 + last - look.stretch - look.folds * (FOLD - 1);
            }
        }
        look.through = self.sum_of_cluster(look.rows);
        look
    }

    /// The sum over the lanes up to this one that look at the same cluster.
    #[inline(always)]
    unsafe fn sum_of_cluster(self, mut value: u32) -> u32 {
        let lanes = self.params.lanes_of_cluster;
        let mut offset = 1;
        while offset < lanes {
            let below = warp_shuffle_up(FULL_MASK, value, offset);
            value += if (lane_id() & (lanes - 1)) >= offset { below } else { 0 };
            offset <<= 1;
        }
        value
    }

    /// Rows and points of each cluster, in the last of its lanes.
    #[inline(always)]
    unsafe fn count(self, group: Group, look: Look) -> (u32, u32) {
        let (mut rows, mut points) = (look.through, look.points);
        let mut first_panel = WARP_SIZE;
        while first_panel < self.params.panels.count {
            let further = self.look(group, first_panel);
            rows += further.through;
            points += further.points;
            first_panel += WARP_SIZE;
        }
        (rows, self.sum_of_cluster(points))
    }

    /// Has the warp's sum be that of some of the shares of the `rows` rows of cluster `at`, from share `from` on; `look` is at
    /// the first panels.
    #[inline(always)]
    unsafe fn add(self, group: Group, mut look: Look, at: u32, rows: u32, from: u32, shares: u32) {
        let lanes = self.params.lanes_of_cluster;
        let (first_lane, last_lane) = (at * lanes, at * lanes + lanes - 1);
        // Past the last feature a lane adds up others, which it does not use.
        let feature = if group.feature() < self.params.shape.d { group.feature() } else { 0 };
        let panels = self.params.panels;
        let of_share = rows_of_share(rows);
        let mut row = (from * of_share).min(rows);
        let to = (row + shares * of_share).min(rows);
        let mut share_end = row + of_share;
        let mut share = [0.0; VALUES];
        unroll!(V in [0, 1, 2, 3] => { sum_of_warp(warp_id(), V).set(0, 0.0); });
        let mut first_panel = 0;
        // Rows of the panels before.
        let mut before = 0;
        while row < to {
            let all = before + warp_shuffle_idx(FULL_MASK, look.through, last_lane);
            let end = if to < all { to } else { all };
            while row < end {
                // Where the row is that is the lane's of 32, if it is of these panels. Its panel is that of the last lane whose
                // first row is not beyond it: those without rows are passed by.
                let mine = (row & !(WARP_SIZE - 1)).wrapping_add(lane_id()).wrapping_sub(before);
                let first_row = look.through - look.rows;
                let mut lane = 0;
                let mut step = lanes / 2;
                while step > 0 {
                    let is_beyond = warp_shuffle_idx(FULL_MASK, first_row, first_lane + lane + step) > mine;
                    lane += if is_beyond { 0 } else { step };
                    step /= 2;
                }
                let of_panel = mine.wrapping_sub(warp_shuffle_idx(FULL_MASK, first_row, first_lane + lane));
                let stretch = warp_shuffle_idx(FULL_MASK, look.stretch, first_lane + lane);
                let panel = group.batch * panels.count + first_panel + lane;
                let folds = warp_shuffle_idx(FULL_MASK, look.folds, first_lane + lane);
                // Heads before the first block that may be folded.
                let lead = FOLD - 1 - stretch % FOLD;
                let is_head = of_panel > 0;
                let folded = of_panel.saturating_sub(1 + lead).min(folds) * (FOLD - 1);
                let of_each = if is_head { panels.stretches() } else { self.params.shape.k };
                let of_this = if is_head { stretch + of_panel + folded } else { group.first + at };
                // The lowest bit says which array: a pointer that has passed between lanes would be one to anywhere.
                let source = (panel as u64 * of_each as u64 + of_this as u64) << 1 | is_head as u64;

                // At the same rows wherever a warp began, for how rows are grouped decides their sum's bits.
                let stop = end.min((row | (WARP_SIZE - 1)) + 1);
                while row < stop {
                    let stop = stop.min(share_end);
                    while row < stop {
                        let at = row % WARP_SIZE;
                        // Most clusters of few points have one.
                        if stop - row == 1 {
                            self.add_rows::<1>(feature, source, at, 1, &mut share);
                        } else {
                            self.add_rows::<4>(feature, source, at, stop - row, &mut share);
                        }
                        row += FINALISE_IN_FLIGHT;
                    }
                    row = stop;
                    if row == share_end || row == to {
                        unroll!(V in [0, 1, 2, 3] => {
                            let sum = sum_of_warp(warp_id(), V);
                            sum.set(0, sum.get(0) + share[V]);
                        });
                        share = [0.0; VALUES];
                        share_end += of_share;
                    }
                }
            }
            before = all;
            if row < to {
                first_panel += WARP_SIZE;
                look = self.look(group, first_panel);
            }
        }
    }

    /// Adds four features, from `feature` on, of the first `rows` of the four rows whose places lanes from `first` on have.
    #[inline(always)]
    unsafe fn add_rows<const MOST: u32>(
        self,
        feature: u32,
        source: u64,
        first: u32,
        rows: u32,
        sum: &mut [f64; VALUES],
    ) {
        let mut values = [[0.0f32; VALUES]; FINALISE_IN_FLIGHT as usize];
        let pitch = sums_pitch(self.params.shape.d) as u64;
        unroll!(R in [0, 1, 2, 3] => {
            if (R as u32) < MOST {
                // The first again where there are fewer.
                let lane = if (R as u32) < rows { first + R as u32 } else { first };
                let source = warp_shuffle_idx(FULL_MASK, source, lane);
                let array = if source & 1 == 0 { self.sums } else { self.heads };
                let place = (source >> 1) * pitch + feature as u64;
                values[R] = ptr::load_v4(array.add(place as usize).cast()).map(f32::from_bits);
            }
        });
        unroll!(V in [0, 1, 2, 3] => {
            let value = |row: usize| if (row as u32) < rows { values[row][V] as f64 } else { 0.0 };
            sum[V] += if MOST == 1 { value(0) } else { (value(0) + value(1)) + (value(2) + value(3)) };
        });
    }
}
