//! Pairs of a point and a row of a pool that may be nearer to it than what is chosen.
//!
//! ```text
//! list_mma, list_hopper    products of all points with the rows, as an assignment has them: scores that are not below the
//!                          point's floor are listed, each warp's in places that it took for itself
//! count_pairs              how many each row has
//! pair_starts              where its list begins
//! place_pairs              the points of each list, in any order
//! measure_pairs            their distances, in f64
//! ```
use super::distances::Points;
use super::sort::sum_before;
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::float::Scalar;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const STARTS: PairStartsShared = PairStartsShared::new();
const PLACE: PlaceShared = PlaceShared::new();
const MEASURE: MeasureShared = MeasureShared::new();

/// Where pairs go.
#[derive(Clone, Copy)]
pub(super) struct Pairs {
    /// How many places have been taken, in entry [`LIST_PAIRS`].
    pub(super) counts: *mut u32,
    /// A pair's point, among those of all problems.
    pub(super) points: *mut u32,
    /// Its row, by the column among those of all problems; [`NO_COLUMN`] in places of no pair.
    pub(super) columns: *mut u32,
    pub(super) capacity: u32,
}

/// Places that a warp has taken.
#[derive(Clone, Copy)]
pub(super) struct Places {
    next: u32,
    end: u32,
}

impl Places {
    pub(super) const NONE: Places = Places { next: 0, end: 0 };
    /// Places that a warp takes at a time, at least.
    const AT_ONCE: u32 = 256;

    /// Lists the pairs that lanes have a bit for, in two words: `pair` says which pair a bit is, its point and column. All lanes
    /// come here.
    #[inline(always)]
    pub(super) unsafe fn list(
        &mut self,
        pairs: Pairs,
        mut words: [u32; 2],
        pair: impl Fn(usize, u32) -> (u32, u32),
    ) {
        if warp_vote_ballot(FULL_MASK, words[0] | words[1] != 0) == 0 {
            return;
        }
        let mine = words[0].count_ones() + words[1].count_ones();
        let through = warp_inclusive_sum_u32(mine);
        let all = warp_shuffle_idx(FULL_MASK, through, WARP_SIZE - 1);
        // Places that it has first, and then new ones.
        let (left, old) = (self.end - self.next, self.next);
        let mut new = old;
        self.next += all;
        if left < all {
            let wanted = if all - left > Self::AT_ONCE { all - left } else { Self::AT_ONCE };
            let mut first = 0;
            if lane_id() == 0 {
                // Counted no further than there is room, so that the count cannot wrap.
                let taken = pairs.counts.add(LIST_PAIRS);
                first = taken.read_volatile();
                if first <= pairs.capacity {
                    first = atomic::fetch_add_u32(taken, wanted);
                }
            }
            first = warp_shuffle_idx(FULL_MASK, first, 0);
            new = first.wrapping_sub(left);
            self.next = first + (all - left);
            self.end = first + wanted;
        }
        let mut rank = through - mine;
        unroll!(W in [0, 1] => {
            while words[W] != 0 {
                let bit = words[W].trailing_zeros();
                words[W] &= words[W] - 1;
                let place = if rank < left { old } else { new }.wrapping_add(rank);
                if place < pairs.capacity {
                    let (point, column) = pair(W, bit);
                    *pairs.points.add(place as usize) = point;
                    *pairs.columns.add(place as usize) = column;
                }
                rank += 1;
            }
        });
        sync_warp(FULL_MASK);
    }

    /// Says of the places that are left that they have no pair.
    #[inline(always)]
    pub(super) unsafe fn end(&mut self, pairs: Pairs) {
        let mut place = self.next + lane_id();
        while place < self.end && place < pairs.capacity {
            *pairs.columns.add(place as usize) = NO_COLUMN;
            place += WARP_SIZE;
        }
        self.next = self.end;
        sync_warp(FULL_MASK);
    }
}

/// Places that have been taken, where there was room for all.
#[inline(always)]
unsafe fn taken(list_counts: *const u32, pool: PoolParams) -> u32 {
    let count = *list_counts.add(LIST_PAIRS);
    if count <= pool.capacity { count } else { 0 }
}

/// How many pairs each column has, added to `counts`. A block counts by itself first, if columns are no more than it has room for.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`PLACE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn count_pairs(
    list_counts: *const u32,
    columns: *const u32,
    counts: *mut u32,
    params: PairsParams,
) {
    let taken = taken(list_counts, params.pool);
    let (all, held) = (params.pool.columns(), PLACE.counts.here());
    let is_held = all <= PLACE_COLUMNS;
    if is_held {
        clear(held, all);
    }
    let mut first = block_idx_x() * PLACE_PAIRS + thread_idx_x();
    while first < taken {
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
            let place = first + I as u32 * PLACE_THREADS;
            if place < taken {
                let column = *columns.add(place as usize);
                if column != NO_COLUMN && is_held {
                    held.fetch_add(column, 1);
                } else if column != NO_COLUMN {
                    atomic::fetch_add_u32(counts.add(column as usize), 1);
                }
            }
        });
        first = first.saturating_add(grid_dim_x() * PLACE_PAIRS);
    }
    if is_held {
        sync_threads();
        let mut column = thread_idx_x();
        while column < all {
            let count = held.get(column);
            if count > 0 {
                atomic::fetch_add_u32(counts.add(column as usize), count);
            }
            column += PLACE_THREADS;
        }
    }
}

/// Sets the first `len` counts to 0; the block is together afterwards.
#[inline(always)]
unsafe fn clear(counts: Shared<u32>, len: u32) {
    let mut at = thread_idx_x();
    while at < len {
        counts.set(at, 0);
        at += PLACE_THREADS;
    }
    sync_threads();
}

/// Where the list of each column begins, once with one place more, and once to count on from; the length of the longest to the
/// place after the last count, which is 0 before.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`PAIR_STARTS_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn pair_starts(
    counts: *mut u32,
    starts: *mut u32,
    cursors: *mut u32,
    params: PairStartsParams,
) {
    let (before, me, columns) = (STARTS.before.here(), thread_idx_x(), params.pool.columns());
    if me == 0 {
        before.set(0, 0);
    }
    let mut first = 0;
    while first < columns {
        let column = first + me;
        let mut count = 0;
        if column < columns {
            count = *counts.add(column as usize);
            atomic::fetch_max_u32(counts.add(columns as usize), count);
        }
        let place = sum_before::<{ PAIR_STARTS_THREADS / WARP_SIZE }>(count, STARTS.warps.here());
        let place = place + before.get(0);
        if column < columns {
            *starts.add(column as usize) = place;
            *cursors.add(column as usize) = place;
        }
        if column + 1 == columns {
            *starts.add(columns as usize) = place + count;
        }
        sync_threads();
        if me + 1 == PAIR_STARTS_THREADS {
            before.set(0, place + count);
        }
        sync_threads();
        first += PAIR_STARTS_THREADS;
    }
}

/// The points of pairs to the lists of their columns. A block takes places for all pairs that it looks at together, if columns are
/// no more than it has room for.
///
/// # Safety
/// As [`count_pairs`]; `cursors` have the places where lists begin.
#[inline(always)]
pub(super) unsafe fn place_pairs(
    list_counts: *const u32,
    points: *const u32,
    columns: *const u32,
    cursors: *mut u32,
    list_points: *mut u32,
    params: PairsParams,
) {
    let taken = taken(list_counts, params.pool);
    let (all, held) = (params.pool.columns(), PLACE.counts.here());
    let is_held = all <= PLACE_COLUMNS;
    let mut first = block_idx_x() * PLACE_PAIRS;
    while first < taken {
        if is_held {
            clear(held, all);
        }
        let mut of_column = [NO_COLUMN; 8];
        let mut to = [0u32; 8];
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
            let place = first + I as u32 * PLACE_THREADS + thread_idx_x();
            if place < taken {
                of_column[I] = *columns.add(place as usize);
            }
        });
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if of_column[I] != NO_COLUMN {
                to[I] = if is_held {
                    held.fetch_add(of_column[I], 1)
                } else {
                    atomic::fetch_add_u32(cursors.add(of_column[I] as usize), 1)
                };
            }
        });
        if is_held {
            sync_threads();
            let mut column = thread_idx_x();
            while column < all {
                let count = held.get(column);
                if count > 0 {
                    held.set(column, atomic::fetch_add_u32(cursors.add(column as usize), count));
                }
                column += PLACE_THREADS;
            }
            sync_threads();
        }
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if of_column[I] != NO_COLUMN {
                let place = first + I as u32 * PLACE_THREADS + thread_idx_x();
                let begin = if is_held { held.get(of_column[I]) } else { 0 };
                *list_points.add((begin + to[I]) as usize) = *points.add(place as usize);
            }
        });
        if is_held {
            sync_threads();
        }
        first = first.saturating_add(grid_dim_x() * PLACE_PAIRS);
    }
}

/// Distances of the points in lists to the rows that lists are of, times their weights, in f64 with the additions of the CPU's. A
/// half-warp takes [`MEASURE_TURN`] pairs of a list; all lists in turn, so that their points are in the cache together.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; `weights` may be null; a block has [`MEASURE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn measure_pairs<T: Scalar>(
    points: *const T,
    weights: *const f64,
    rows: *const u32,
    counts: *const u32,
    starts: *const u32,
    list_points: *const u32,
    list_distances: *mut f64,
    params: MeasureParams,
) {
    const LANES: u32 = DISTANCE_LANES;
    const PITCH: u32 = LANES + 1;
    let pool = params.pool;
    let shape = pool.shape;
    let points = Points { values: points, pitch: shape.pitch, d: shape.d };
    let (team, lane) = (thread_idx_x() / LANES, thread_idx_x() % LANES);
    let parts = MEASURE.parts.here().add(team * MEASURE_PAIRS * PITCH);
    let whole = shape.d / LANES * LANES;
    let columns = pool.columns();
    let turns = (*counts.add(columns as usize)).div_ceil(MEASURE_TURN);
    // Turns and columns that a team is further on each time.
    let teams = grid_dim_x() * MEASURE_TEAMS;
    let further = div(teams, columns);
    let beside = teams - further * columns;
    let mine = block_idx_x() * MEASURE_TEAMS + team;
    let mut turn = div(mine, columns);
    let mut column = mine - turn * columns;
    // Both teams of a warp go on together.
    while warp_shuffle_idx(FULL_MASK, turn, 0) < turns {
        let (begin, end) = (*starts.add(column as usize), *starts.add(column as usize + 1));
        let problem = div(column, pool.window);
        let c = points.row(*rows.add(column as usize) + problem * shape.n);
        let mut first = begin as u64 + turn as u64 * MEASURE_TURN as u64;
        let last = (first + MEASURE_TURN as u64).min(end as u64);
        while warp_vote_ballot(FULL_MASK, first < last) != 0 {
            let count = if first < last { (last - first).min(MEASURE_PAIRS as u64) as u32 } else { 0 };
            // A lane each, which tells the others; of missing pairs the first again, which is not kept.
            let mut mine = problem * shape.n;
            if count > 0 {
                mine = *list_points.add((first + if lane < count { lane } else { 0 } as u64) as usize);
            }
            let mut x = [c; MEASURE_PAIRS as usize];
            unroll!(P in [0, 1, 2, 3, 4, 5, 6, 7] => {
                x[P] = points.row(warp_shuffle_idx(FULL_MASK, mine, lane_id() / LANES * LANES + P as u32));
            });
            let mut sums = [0.0; MEASURE_PAIRS as usize];
            let mut feature = lane;
            while feature + 3 * LANES < whole {
                add_terms::<T, 4>(&mut sums, x, c, feature);
                feature += 4 * LANES;
            }
            while feature < whole {
                add_terms::<T, 1>(&mut sums, x, c, feature);
                feature += LANES;
            }
            let mut distance = added_up(sums, parts);
            if whole < shape.d {
                // What is left of the features is added up by itself.
                sums = [0.0; MEASURE_PAIRS as usize];
                if whole + lane < shape.d {
                    add_terms::<T, 1>(&mut sums, x, c, whole + lane);
                }
                distance += added_up(sums, parts);
            }
            if lane < count {
                let mut weight = 1.0;
                if !weights.is_null() {
                    weight = *weights.add(mine as usize);
                }
                *list_distances.add((first + lane as u64) as usize) = weight * distance;
            }
            first += MEASURE_PAIRS as u64;
        }
        turn += further;
        column += beside;
        if column >= columns {
            column -= columns;
            turn += 1;
        }
    }
}

/// Adds the terms of `COUNT` features, each [`DISTANCE_LANES`] further, of some pairs with the row `c`.
#[inline(always)]
unsafe fn add_terms<T: Scalar, const COUNT: usize>(
    sums: &mut [f64; MEASURE_PAIRS as usize],
    x: [*const T; MEASURE_PAIRS as usize],
    c: *const T,
    feature: u32,
) {
    // All loads are under way before the first is waited for; and sums wait for themselves only.
    let mut values = [[*c; MEASURE_PAIRS as usize]; COUNT];
    let mut of_row = [*c; COUNT];
    unroll!(I in [0, 1, 2, 3] => {
        if I < COUNT {
            let at = (feature + I as u32 * DISTANCE_LANES) as usize;
            of_row[I] = *c.add(at);
            unroll!(P in [0, 1, 2, 3, 4, 5, 6, 7] => { values[I][P] = *x[P].add(at); });
        }
    });
    unroll!(I in [0, 1, 2, 3] => {
        if I < COUNT {
            let of_row = of_row[I].to_f32() as f64;
            unroll!(P in [0, 1, 2, 3, 4, 5, 6, 7] => {
                let difference = values[I][P].to_f32() as f64 - of_row;
                sums[P] += difference * difference;
            });
        }
    });
}

/// The sums over the lanes of a half-warp, in their order: of each pair in a lane.
#[inline(always)]
unsafe fn added_up(sums: [f64; MEASURE_PAIRS as usize], parts: Shared<f64>) -> f64 {
    const PITCH: u32 = DISTANCE_LANES + 1;
    let lane = thread_idx_x() % DISTANCE_LANES;
    unroll!(P in [0, 1, 2, 3, 4, 5, 6, 7] => { parts.set(P as u32 * PITCH + lane, sums[P]); });
    sync_warp(FULL_MASK);
    let mut sum = 0.0;
    if lane < MEASURE_PAIRS {
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] => {
            sum += parts.get(lane * PITCH + I as u32);
        });
    }
    // Before it is written again.
    sync_warp(FULL_MASK);
    sum
}
