//! Means and moves of the centroids, from the partial sums of panels and stretches.
//!
//! ```text
//! rows of a cluster     panel 0: what the panel has where the cluster begins, heads of the stretches that it goes on
//!                       through; panel 1: …
//! a warp                some clusters, one after the other: 128 features of their rows, four rows at a time, in f64
//! a block               a cluster of very many rows: eight shares of equal length, a warp each, and then their sum
//! ```
//! A lane looks at one panel's share of a cluster, so that a warp learns of `32 / panels` clusters at a time where they begin
//! and end. Which warp adds changes no bits: those depend on the labels alone. Bound by the reading of the rows.
use super::segment_sums::sums_about_first;
use crate::spec::*;
use cuda_std::float::Scalar;
use cuda_std::ptr;
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
    let many = SHARED.many.here();
    let warps = params.warps_of_block;
    let mut first = block_idx_x() as u64 * warps as u64;
    while first < params.groups() {
        // First the warp's own clusters, then those of many rows of each warp. One loop: code that runs once is waited for.
        let mut turn = 0;
        while turn <= warps {
            let is_own = turn == 0;
            let owner = if is_own { warp_id() } else { turn - 1 };
            let mut clusters = if is_own { u32::MAX } else { many.get(owner) };
            let mut of_many_rows = 0;
            let group = Group::of(first + owner as u64, params);
            if owner < warps && clusters != 0 && group.is_open(states) {
                let look = partials.look(group, 0);
                let (rows, points) = partials.count(group, look);
                clusters &= u32::MAX >> (WARP_SIZE - group.clusters);
                while clusters != 0 {
                    let at = clusters.trailing_zeros();
                    clusters &= clusters - 1;
                    let lane = at * params.lanes_of_cluster + params.lanes_of_cluster - 1;
                    let rows = warp_shuffle_idx(FULL_MASK, rows, lane);
                    let points = warp_shuffle_idx(FULL_MASK, points, lane);
                    let (mut from, mut to) = (0, rows);
                    if is_own && rows > FINALISE_MANY_ROWS {
                        of_many_rows |= 1 << at;
                        continue;
                    }
                    if !is_own {
                        let share = rows.div_ceil(UPDATE_WARPS * FINALISE_IN_FLIGHT) * FINALISE_IN_FLIGHT;
                        from = (share * warp_id()).min(rows);
                        to = (from + share).min(rows);
                    }
                    let mut total = partials.add(group, look, at, from, to);
                    if !is_own {
                        total = sum_of_shares(total);
                    }
                    if is_own || warp_id() == 0 {
                        means.end(group, at, total, points);
                    }
                }
            }
            if is_own {
                if lane_id() == 0 {
                    many.set(warp_id(), of_many_rows);
                }
                sync_threads();
            }
            turn += 1;
        }
        // What each warp has to tell has been read.
        sync_threads();
        first += grid_dim_x() as u64 * warps as u64;
    }
}

/// The sum of the warps' shares, in the order of the warps.
#[inline(always)]
unsafe fn sum_of_shares(share: [f64; VALUES]) -> [f64; VALUES] {
    let sums = SHARED.sums.here();
    // Places are worked out here, where few need them.
    let lane = opaque(lane_id());
    let place = |warp: u32, value: u32| (warp * FINALISE_VALUES + value) * WARP_SIZE + lane;
    // Those of the cluster before have been read.
    sync_threads();
    unroll!(V in [0, 1, 2, 3] => { sums.set(place(warp_id(), V as u32), share[V]); });
    sync_threads();
    let mut total = [0.0; VALUES];
    let mut warp = 0;
    while warp < UPDATE_WARPS {
        unroll!(V in [0, 1, 2, 3] => { total[V] += sums.get(place(warp, V as u32)); });
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
    #[inline(always)]
    unsafe fn of(group: u64, params: FinaliseParams) -> Self {
        if group >= params.groups() {
            return Group { batch: 0, first: 0, clusters: 0, chunk: 0 };
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
        self.params.shape.d % FINALISE_VALUES == 0
    }

    /// The lane's features of the centroid so far.
    #[inline(always)]
    unsafe fn before(self, group: Group, at: u32) -> [f32; VALUES] {
        let (d, feature) = (self.params.shape.d, group.feature());
        let row = self.centroids.add(self.row(group, at) as usize).cast_const();
        let mut values = [0.0; VALUES];
        if self.has_vectors() {
            if feature < d {
                values = ptr::read_v4(row.add(feature as usize).cast()).map(f32::from_bits);
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

    /// Stores the mean of `points` points that sum up to `total`, and how far it is from the centroid so far.
    #[inline(always)]
    unsafe fn end(self, group: Group, at: u32, total: [f64; VALUES], points: u32) {
        // What follows from these takes no registers until here.
        let [batch, first, chunk] = [opaque(group.batch), opaque(group.first), opaque(group.chunk)];
        let group = Group { batch, first, chunk, ..group };
        let (shape, feature) = (self.params.shape, group.feature());
        // Sums may be of points less their problem's first.
        let rows = group.batch as u64 * shape.n as u64;
        let origin = self.origin.add((rows * shape.pitch as u64) as usize);
        let share = 1.0 / points as f64;
        let before = self.before(group, at);
        let mut new = before;
        let mut moved = 0.0;
        unroll!(V in [0, 1, 2, 3] => {
            if points > 0 && feature + (V as u32) < shape.d {
                let mut mean = total[V] * share;
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
            *self.moves.add((self.cluster(group, at) * self.params.chunks() as u64 + group.chunk as u64) as usize) = moved;
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
        let mut look = Look { points: 0, through: 0, rows: 0, stretch: 0 };
        if at < group.clusters && panel < panels.count {
            let borders = (group.batch * panels.count + panel) as u64 * (k as u64 + 1);
            let border = self.starts.add((borders + (group.first + at) as u64) as usize);
            let (begin, end) = (*border, *border.add(1));
            let shift = panels.stretch().trailing_zeros();
            look.points = end - begin;
            look.stretch = begin >> shift;
            look.rows = if end > begin { 1 + ((end - 1) >> shift) - look.stretch } else { 0 };
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

    /// The sum of rows `from..to` of cluster `at`, where `look` is at the first panels.
    #[inline(always)]
    unsafe fn add(self, group: Group, mut look: Look, at: u32, from: u32, to: u32) -> [f64; VALUES] {
        let lanes = self.params.lanes_of_cluster;
        let (first_lane, last_lane) = (at * lanes, at * lanes + lanes - 1);
        // Past the last feature a lane adds up others, which it does not use.
        let feature = if group.feature() < self.params.shape.d { group.feature() } else { 0 };
        let panels = self.params.panels;
        let mut total = [0.0; VALUES];
        let mut first_panel = 0;
        // Rows of the panels before.
        let mut before = 0;
        let mut row = from;
        while row < to {
            let all = before + warp_shuffle_idx(FULL_MASK, look.through, last_lane);
            let end = if to < all { to } else { all };
            while row < end {
                // Where the row is that is so many further on as the lane's number. Its panel is that of the last lane whose
                // first row is not beyond it: those without rows are passed by.
                let mine = row + lane_id() - before;
                let first_row = look.through - look.rows;
                let mut lane = 0;
                let mut step = lanes / 2;
                while step > 0 {
                    let is_beyond = warp_shuffle_idx(FULL_MASK, first_row, first_lane + lane + step) > mine;
                    lane += if is_beyond { 0 } else { step };
                    step /= 2;
                }
                let of_panel = mine - warp_shuffle_idx(FULL_MASK, first_row, first_lane + lane);
                let stretch = warp_shuffle_idx(FULL_MASK, look.stretch, first_lane + lane);
                let panel = group.batch * panels.count + first_panel + lane;
                let is_head = of_panel > 0;
                let of_each = if is_head { panels.stretches() } else { self.params.shape.k };
                let of_this = if is_head { stretch + of_panel } else { group.first + at };
                // The lowest bit says which array: a pointer that has passed between lanes would be one to anywhere.
                let source = (panel as u64 * of_each as u64 + of_this as u64) << 1 | is_head as u64;

                let rows = if end - row < WARP_SIZE { end - row } else { WARP_SIZE };
                let mut done = 0;
                while done + FINALISE_IN_FLIGHT <= rows {
                    self.add_rows::<4>(feature, source, done, &mut total);
                    done += FINALISE_IN_FLIGHT;
                }
                if rows & 2 != 0 {
                    self.add_rows::<2>(feature, source, done, &mut total);
                    done += 2;
                }
                if rows & 1 != 0 {
                    self.add_rows::<1>(feature, source, done, &mut total);
                }
                row += rows;
            }
            before = all;
            if row < to {
                first_panel += WARP_SIZE;
                look = self.look(group, first_panel);
            }
        }
        total
    }

    /// Adds four features, from `feature` on, of the rows whose places lanes `first` to `first + ROWS - 1` have.
    #[inline(always)]
    unsafe fn add_rows<const ROWS: usize>(
        self,
        feature: u32,
        source: u64,
        first: u32,
        total: &mut [f64; VALUES],
    ) {
        let mut values = [[0.0f32; VALUES]; FINALISE_IN_FLIGHT as usize];
        let pitch = sums_pitch(self.params.shape.d) as u64;
        unroll!(R in [0, 1, 2, 3] => {
            if R < ROWS {
                let source = warp_shuffle_idx(FULL_MASK, source, first + R as u32);
                let array = if source & 1 == 0 { self.sums } else { self.heads };
                let place = (source >> 1) * pitch + feature as u64;
                values[R] = ptr::load_v4(array.add(place as usize).cast()).map(f32::from_bits);
            }
        });
        unroll!(V in [0, 1, 2, 3] => {
            let value = |row: usize| values[row][V] as f64;
            total[V] += match ROWS {
                1 => value(0),
                2 => value(0) + value(1),
                _ => (value(0) + value(1)) + (value(2) + value(3)),
            };
        });
    }
}
