//! Means and moves of the centroids, from the partial sums of panels and stretches.
//!
//! ```text
//! rows of a cluster     panel 0: what the panel has where the cluster begins, heads of the stretches that it goes on
//!                       through; panel 1: …
//! shares                eight of equal length, in f64, each added up row by row, four at a time, and then one by one
//! a warp                all shares, for 128 features; where a cluster has many rows, or clusters are few, the eight
//!                       warps of a block have a share each
//! ```
//! Which warp adds a share changes no bits: those depend on the labels alone.
use super::segment_sums::sums_about_first;
use crate::spec::*;
use cuda_std::float::Scalar;
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
/// Pointers are valid for the shapes in `params`; a block has [`UPDATE_THREADS`] threads.
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
    let shared_rows = SHARED.rows.here();
    // Items of a block: its warps' own, or one that they share.
    let own = params.items_of_block;
    let most_rows = if own == 1 { 0 } else { params.most_rows() };
    let mut first = block_idx_x() as u64 * own as u64;
    while first < params.items() {
        // Loads that need no other's value go first: what a warp waits for is the longest chain of them.
        let (mine, state) = Item::of(first + warp_id() as u64, warp_id() < own, states, params);
        let before = Before::of(mine, origin, centroids, params);
        let mut total = Total::NONE;
        let mut rows = 0;
        total.points = partials.count(mine, &mut rows);
        let is_open = state.done == 0 && mine.is_one;
        rows = if is_open { rows } else { 0 };
        if lane_id() == 0 {
            shared_rows.set(warp_id(), if rows > most_rows { rows } else { 0 });
        }
        sync_threads();
        // Its own, if they are few; then its share of each warp's that are many. One loop, for code that runs once is
        // waited for.
        let mut item = mine;
        let mut share_rows = share_of(rows);
        let (mut from, mut to) = (0, if rows > most_rows { 0 } else { rows });
        let mut owner = 0;
        loop {
            let mut sums = [0.0; VALUES];
            partials.add(item, from, to, share_rows, &mut sums);
            if owner == 0 {
                total.sums = sums;
            } else {
                total.take_shares(sums, owner - 1);
            }
            let mut many = 0;
            while many == 0 && owner < own {
                many = shared_rows.get(owner);
                owner += 1;
            }
            if many == 0 {
                break;
            }
            item = Item::of(first + owner as u64 - 1, true, states, params).0;
            share_rows = share_of(many);
            let border = |warp: u32| (share_rows * warp).min(many);
            (from, to) = (border(warp_id()), border(warp_id() + 1));
        }
        if is_open {
            let moved = mine.end(total, before, centroids, rounded, params);
            if lane_id() == 0 {
                *moves.add((first + warp_id() as u64) as usize) = moved;
            }
        }
        // The counts of rows have been read.
        sync_threads();
        first += grid_dim_x() as u64 * own as u64;
    }
}

/// Rows of a share: an eighth of all, in whole steps.
#[inline(always)]
fn share_of(rows: u32) -> u32 {
    const STEP: u32 = UPDATE_WARPS * FINALISE_IN_FLIGHT;
    rows.div_ceil(STEP) * FINALISE_IN_FLIGHT
}

/// A chunk of a cluster's features.
#[derive(Clone, Copy)]
struct Item {
    batch: u64,
    cluster: u64,
    /// The lane's first feature; the others are 32 apart.
    feature: u32,
    /// Whether there is such an item; else it is the first one again.
    is_one: bool,
}

impl Item {
    #[inline(always)]
    unsafe fn of(
        item: u64,
        is_own: bool,
        states: *const LoopState,
        params: FinaliseParams,
    ) -> (Self, LoopState) {
        let of_problem = params.shape.k as u64 * params.chunks() as u64;
        let is_one = is_own && item < params.items();
        let batch = if is_one { div_u64(item, of_problem) } else { 0 };
        let of_batch = if is_one { item - batch * of_problem } else { 0 };
        let cluster = div_u64(of_batch, params.chunks() as u64);
        let chunk = (of_batch - cluster * params.chunks() as u64) as u32;
        let feature = chunk * FINALISE_FEATURES + lane_id();
        (Item { batch, cluster, feature, is_one }, *states.add(batch as usize))
    }

    /// Stores the mean; the squared distance from the centroid before.
    #[inline(always)]
    unsafe fn end<T: Scalar>(
        self,
        total: Total,
        before: Before,
        centroids: *mut f32,
        rounded: *mut T,
        params: FinaliseParams,
    ) -> f64 {
        let mut moved = 0.0;
        unroll!(V in [0, 1, 2, 3] => {
            let feature = self.feature + V as u32 * WARP_SIZE;
            if feature < params.shape.d {
                let place = (self.row(params) + feature as u64) as usize;
                let old = before.centroid[V];
                let mean = before.origin[V] as f64 + total.sums[V] / total.points as f64;
                let new = if total.points == 0 { old } else { mean as f32 };
                *centroids.add(place) = new;
                *rounded.add(place) = T::from_f32(new);
                let difference = new as f64 - old as f64;
                moved += difference * difference;
            }
        });
        warp_sum_f64(moved)
    }

    /// Where the centroid is.
    #[inline(always)]
    fn row(self, params: FinaliseParams) -> u64 {
        (self.batch * params.shape.k as u64 + self.cluster) * params.shape.d as u64
    }
}

/// What an item's lane finds before it adds: its features of the centroid, and of the point that sums are about.
#[derive(Clone, Copy)]
struct Before {
    centroid: [f32; VALUES],
    origin: [f32; VALUES],
}

impl Before {
    #[inline(always)]
    unsafe fn of<T: Scalar>(
        item: Item,
        origin: *const T,
        centroids: *const f32,
        params: FinaliseParams,
    ) -> Self {
        let shape = params.shape;
        // Sums may be of points less their problem's first.
        let origin = origin.add((item.batch * shape.n as u64 * shape.pitch as u64) as usize);
        let mut before = Before { centroid: [0.0; VALUES], origin: [0.0; VALUES] };
        unroll!(V in [0, 1, 2, 3] => {
            let feature = item.feature + V as u32 * WARP_SIZE;
            if feature < shape.d {
                before.centroid[V] = *centroids.add((item.row(params) + feature as u64) as usize);
                if sums_about_first::<T>() {
                    before.origin[V] = (*origin.add(feature as usize)).to_f32();
                }
            }
        });
        before
    }
}

/// A lane's sums over a cluster's points, and how many those are.
#[derive(Clone, Copy)]
struct Total {
    sums: [f64; VALUES],
    points: u32,
}

impl Total {
    const NONE: Total = Total { sums: [0.0; VALUES], points: 0 };

    /// Adds up the shares that the warps of the block have, in warp `owner`.
    #[inline(always)]
    unsafe fn take_shares(&mut self, share: [f64; VALUES], owner: u32) {
        let sums = SHARED.sums.here();
        let place = |warp: u32, value: u32| (warp * FINALISE_VALUES + value) * WARP_SIZE + lane_id();
        unroll!(V in [0, 1, 2, 3] => { sums.set(place(warp_id(), V as u32), share[V]); });
        sync_threads();
        let mut warp = if warp_id() == owner { 0 } else { UPDATE_WARPS };
        while warp < UPDATE_WARPS {
            unroll!(V in [0, 1, 2, 3] => { self.sums[V] += sums.get(place(warp, V as u32)); });
            warp += 1;
        }
        sync_threads();
    }
}

/// The rows of partial sums. A lane looks at one panel's share of a cluster, the warp at 32 at a time.
#[derive(Clone, Copy)]
struct Partials {
    sums: *const f32,
    heads: *const f32,
    starts: *const u32,
    params: FinaliseParams,
}

impl Partials {
    /// Where the cluster begins and ends in panel `panel`, counted over all problems.
    #[inline(always)]
    unsafe fn segment(self, panel: u64, cluster: u64) -> (u32, u32) {
        let border = self.starts.add((panel * (self.params.shape.k as u64 + 1) + cluster) as usize);
        (*border, *border.add(1))
    }

    /// Rows of a segment.
    #[inline(always)]
    unsafe fn rows_of(self, (begin, end): (u32, u32)) -> u32 {
        let stretch = self.params.panels.stretch();
        if end > begin { 1 + div(end - 1, stretch) - div(begin, stretch) } else { 0 }
    }

    /// The cluster's points, and its rows.
    #[inline(always)]
    unsafe fn count(self, item: Item, rows: &mut u32) -> u32 {
        let panels = self.params.panels.count;
        let mut points = 0;
        let mut panel = lane_id();
        while panel < panels {
            let segment = self.segment(item.batch * panels as u64 + panel as u64, item.cluster);
            points += segment.1 - segment.0;
            *rows += self.rows_of(segment);
            panel += WARP_SIZE;
        }
        *rows = warp_shuffle_idx(FULL_MASK, warp_inclusive_sum_u32(*rows), WARP_SIZE - 1);
        warp_shuffle_idx(FULL_MASK, warp_inclusive_sum_u32(points), WARP_SIZE - 1)
    }

    /// The sum of the cluster's rows from `from`, where a share begins, up to `to`: of the sums of its shares.
    #[inline(always)]
    unsafe fn add(self, item: Item, from: u32, to: u32, share_rows: u32, total: &mut [f64; VALUES]) {
        let shape = self.params.shape;
        let panels = self.params.panels;
        let (stretch, stretches) = (panels.stretch(), panels.stretches() as u64);
        let mut share = [0.0; VALUES];
        let mut share_end = from + share_rows;
        // Rows of the panels before.
        let mut before = 0;
        let mut first_panel = 0;
        while first_panel < panels.count && before < to {
            let panel = first_panel + lane_id();
            let group = item.batch * panels.count as u64 + panel as u64;
            let segment = if panel < panels.count { self.segment(group, item.cluster) } else { (0, 0) };
            let rows = self.rows_of(segment);
            let through = warp_inclusive_sum_u32(rows);
            let first_row = through - rows;
            let sums = group * shape.k as u64 + item.cluster;
            let heads = group * stretches + div(segment.0, stretch) as u64;
            let all = warp_shuffle_idx(FULL_MASK, through, WARP_SIZE - 1);

            let mut row = from.saturating_sub(before);
            let end = if to - before < all { to - before } else { all };
            while row < end {
                // Where the row is that is so many further on as the lane's number. The panel is that of the last lane
                // whose first row is not beyond it: those without rows are passed by.
                let mine = row + lane_id();
                let mut lane = 0;
                unroll!(B in [16, 8, 4, 2, 1] => {
                    let further = lane + B as u32;
                    lane = if warp_shuffle_idx(FULL_MASK, first_row, further) <= mine { further } else { lane };
                });
                let of_panel = (mine - warp_shuffle_idx(FULL_MASK, first_row, lane)) as u64;
                let of_sums = warp_shuffle_idx(FULL_MASK, sums, lane);
                let of_heads = warp_shuffle_idx(FULL_MASK, heads, lane);
                // The lowest bit says which array: a pointer that has passed between lanes would be one to anywhere.
                let source = if of_panel == 0 { of_sums << 1 } else { (of_heads + of_panel) << 1 | 1 };
                let stop = end.min(share_end - before);
                let mut at = 0;
                while at < WARP_SIZE && row + at < stop {
                    self.add_rows(item, source, at, stop - row - at, &mut share);
                    at += FINALISE_IN_FLIGHT;
                }
                row = stop.min(row + at);
                if row + before == share_end {
                    unroll!(V in [0, 1, 2, 3] => { total[V] += share[V]; });
                    share = [0.0; VALUES];
                    share_end += share_rows;
                }
            }
            before += all;
            first_panel += WARP_SIZE;
        }
        unroll!(V in [0, 1, 2, 3] => { total[V] += share[V]; });
    }

    /// Adds the first `rows` of the four rows whose places lanes `at` to `at + 3` have.
    #[inline(always)]
    unsafe fn add_rows(self, item: Item, source: u64, at: u32, rows: u32, sums: &mut [f64; VALUES]) {
        let mut values = [[0.0f32; VALUES]; FINALISE_IN_FLIGHT as usize];
        unroll!(R in [0, 1, 2, 3] => {
            let source = warp_shuffle_idx(FULL_MASK, source, at + R as u32);
            let array = if source & 1 == 0 { self.sums } else { self.heads };
            let source = array.add(((source >> 1) * self.params.shape.d as u64) as usize);
            unroll!(V in [0, 1, 2, 3] => {
                let feature = item.feature + V as u32 * WARP_SIZE;
                if (R as u32) < rows && feature < self.params.shape.d {
                    values[R][V] = *source.add(feature as usize);
                }
            });
        });
        unroll!(V in [0, 1, 2, 3] => {
            let value = |row: usize| values[row][V] as f64;
            sums[V] += (value(0) + value(1)) + (value(2) + value(3));
        });
    }
}
