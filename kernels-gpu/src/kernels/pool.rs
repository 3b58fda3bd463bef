//! Greedy k-means++, by pools of rows that are drawn in advance.
//!
//! ```text
//! pool_sums       sums of the distances to the nearest chosen row, and the score that a nearer row has at least
//! propose         a pool of rows, drawn by these distances
//! (pairs)         which points each row of the pool may be nearer to, by tensor cores, and how near it is, in f64
//! choose          step by step: rows of the pool that count as drawn by the distances that are left, the one of most gain, and
//!                 the distances with it, until the pool is used up
//! ```
//! A row of the pool counts as drawn if a number under 1 is below the share of its distance that is left: rejection sampling, of
//! the distribution that the step wants. So products of all points with a pool are one pass of the tensor cores, and a step only
//! looks at the points that its candidates are nearer to.
use super::distances::add_to;
use super::pack_points::tensor_scale;
use super::sort::sum_before;
use crate::spec::*;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;
#[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
use cuda_std::wgmma::{cluster_rank, cluster_sync, store_to_block};

const SUMS: PoolSumsShared = PoolSumsShared::new();
const PROPOSE: ProposeShared = ProposeShared::new();
const CHOOSE: ChooseShared = ChooseShared::new(0);
const CHOOSE_HELD: ChooseShared = ChooseShared::new(CHOOSE_HELD_ROWS);

/// Sums of the distances of chunks and groups of rows, and for each point a score that rows nearer than `nearest` have at least,
/// about the centre and in the scale that the tensor cores have points in. Before a problem's first row is chosen, `nearest` is
/// set to infinity.
///
/// A score is `x·c − ½‖c‖²`, so that `‖x − c‖² = ‖x‖² − 2·score`.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; `extents` and `weights` may be null; a block has [`POOL_SUMS_THREADS`]
/// threads.
#[inline(always)]
pub(super) unsafe fn pool_sums(
    nearest: *mut f64,
    norms: *const f32,
    extents: *const u32,
    weights: *const f64,
    states: *const PoolState,
    chunk_sums: *mut f64,
    group_sums: *mut f64,
    floors: *mut f32,
    params: PoolSumsParams,
) {
    let pool = params.pool;
    let n = pool.shape.n;
    let (chunks, groups) = (pool.chunks(), pool.groups());
    let (values, sums) = (SUMS.values.here(), SUMS.sums.here());
    let me = thread_idx_x();
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let batch = div_u64(item, groups as u64);
        let group = (item - batch * groups as u64) as u32;
        let state = *states.add(batch as usize);
        if state.done == 0 {
            let first = group * FAN * FAN;
            let mut unit = 1.0;
            if !extents.is_null() {
                unit = tensor_scale(*extents.add(batch as usize));
            }
            let mut of_group = me;
            while of_group < FAN * FAN {
                let row = first + of_group;
                let mut near = 0.0;
                if row < n {
                    let place = (batch * n as u64 + row as u64) as usize;
                    if state.chosen == 0 {
                        *nearest.add(place) = f64::INFINITY;
                        *floors.add(place) = f32::NEG_INFINITY;
                    } else {
                        near = *nearest.add(place);
                        let mut distance = near;
                        if !weights.is_null() {
                            distance /= *weights.add(place);
                        }
                        *floors.add(place) = floor(*norms.add(place), distance * unit * unit, pool.shape.d);
                    }
                }
                values.set(of_group / FAN * (FAN + 1) + of_group % FAN, near);
                of_group += POOL_SUMS_THREADS;
            }
            sync_threads();
            if me < FAN {
                let chunk = group * FAN + me;
                let sum = add_to(0.0, values.add(me * (FAN + 1)));
                sums.set(me, sum);
                if chunk < chunks {
                    *chunk_sums.add((batch * chunks as u64 + chunk as u64) as usize) = sum;
                }
            }
            sync_threads();
            if me == 0 {
                *group_sums.add((batch * groups as u64 + group as u64) as usize) = add_to(0.0, sums);
            }
        }
        item += grid_dim_x() as u64;
    }
}

/// What the score of a centroid nearer than `distance` is not below, for a point of squared norm `norm`, but for the error of
/// the score itself. What rounding took of the norm, and of this, is taken off.
#[inline(always)]
fn floor(norm: f32, distance: f64, d: u32) -> f32 {
    const U: f64 = 1.0 / (1u32 << 24) as f64;
    let errors = (d / 32 + 12) as f64 * U * norm as f64 + 1e-36;
    let floor = (0.5 * (norm as f64 - distance) - errors) as f32;
    if distance <= 0.0 || distance.is_nan() {
        // Nothing is nearer, or the point does not count.
        f32::INFINITY
    } else if floor.is_finite() {
        floor - floor.abs() * (2.0 * U as f32)
    } else {
        f32::NEG_INFINITY
    }
}

/// Draws the pools of problems that need a new one, and brings the rows of pools that this launch looks at to `rows`, and their
/// places in the pool to `places`: `window` of each problem, of which `limits` says how many are any. Of a pool that was drawn
/// before, those that count as drawn by now. Sets `open` to the problems that are not done.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`PROPOSE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn propose(
    nearest: *const f64,
    chunk_sums: *const f64,
    group_sums: *const f64,
    states: *const PoolState,
    pool_rows: *mut u32,
    pool_nearest: *mut f64,
    rows: *mut u32,
    places: *mut u32,
    limits: *mut u32,
    totals: *mut f64,
    open: *mut LoopState,
    params: ProposeParams,
) {
    let pool = params.pool;
    let (n, chunks, groups) = (pool.shape.n, pool.chunks(), pool.groups());
    let me = thread_idx_x();
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let batch = div_u64(item, pool.parts() as u64);
        let part = (item - batch * pool.parts() as u64) as u32;
        let state = *states.add(batch as usize);
        let is_new = state.proposals == 0 && state.done == 0;
        let group_sums = group_sums.add((batch * groups as u64) as usize);
        let mut total = 0.0;
        if is_new {
            if me == 0 {
                let mut group = 0;
                while group < groups {
                    let mut ahead = [0.0; 8];
                    unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                        if group + (I as u32) < groups {
                            ahead[I] = *group_sums.add((group + I as u32) as usize);
                        }
                    });
                    unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => { total += ahead[I]; });
                    group += 8;
                }
                PROPOSE.total.here().set(0, total);
            }
            sync_threads();
            total = PROPOSE.total.here().get(0);
        }
        // Else all points lie on chosen ones, or distances overflowed.
        let can_draw = !is_new || total > 0.0 && total < f64::INFINITY;
        let count = if state.done == 0 && can_draw { pool.proposals(state) } else { 0 };
        if part == 0 && me == 0 {
            if is_new || count == 0 {
                *limits.add(batch as usize) = if count < pool.window { count } else { pool.window };
            }
            if is_new {
                *totals.add(batch as usize) = total;
            }
            (*open.add(batch as usize)).done = (count == 0) as u32;
        }
        let of_problem = (batch * pool.most as u64) as usize;
        let (pool_rows, pool_nearest) = (pool_rows.add(of_problem), pool_nearest.add(of_problem));
        let of_window = (batch * pool.window as u64) as usize;
        let (rows, places) = (rows.add(of_window), places.add(of_window));
        let nearest = nearest.add((batch * n as u64) as usize);
        let place = part * PROPOSE_THREADS + me;
        if is_new && place < count {
            let mut target = unit(number_of(state.counter, 2 * place + 1)) * total;
            let group = pass(groups, &mut target, group_sums);
            let of_group = (chunks - group * FAN).min(FAN);
            let first = batch * chunks as u64 + (group * FAN) as u64;
            let chunk = group * FAN + pass(of_group, &mut target, chunk_sums.add(first as usize));
            let of_chunk = (n - chunk * FAN).min(FAN);
            let row = chunk * FAN + pass(of_chunk, &mut target, nearest.add((chunk * FAN) as usize));
            *pool_rows.add(place as usize) = row;
            *pool_nearest.add(place as usize) = *nearest.add(row as usize);
            if place < pool.window {
                *rows.add(place as usize) = row;
                *places.add(place as usize) = place;
            }
        } else if (is_new || count == 0) && place < pool.window {
            // Any row will do where there is none.
            *rows.add(place as usize) = 0;
            *places.add(place as usize) = 0;
        } else if !is_new && count > 0 && part == 0 {
            let search = Search { pool_rows, pool_nearest, first: 0, from: state.next, end: count };
            let found = gather(search, nearest.cast_mut(), state, rows, places, pool.window);
            if me == 0 {
                *limits.add(batch as usize) = found;
            }
        }
        sync_threads();
        item += grid_dim_x() as u64;
    }
}

/// Brings up to `window` rows of the pool that count as drawn to `rows` and `places`, and any row to what is left: how many were
/// found.
#[inline(always)]
unsafe fn gather(
    search: Search,
    nearest: *mut f64,
    state: PoolState,
    rows: *mut u32,
    places: *mut u32,
    window: u32,
) -> u32 {
    let (mut first, mut found) = (search.from, 0);
    while first < search.end && found < window {
        let place = first + thread_idx_x();
        let (mut is_drawn, mut row) = (false, 0);
        if place < search.end {
            (is_drawn, row) = search.is_drawn(nearest, state, place);
        }
        let warps = PROPOSE.warps.here();
        let before = sum_before::<{ PROPOSE_THREADS / WARP_SIZE }>(is_drawn as u32, warps);
        let at = found + before;
        if is_drawn && at < window {
            *rows.add(at as usize) = row;
            *places.add(at as usize) = place;
        }
        if thread_idx_x() + 1 == PROPOSE_THREADS {
            PROPOSE.found.here().set(0, at + is_drawn as u32);
        }
        sync_threads();
        found = PROPOSE.found.here().get(0);
        // Before it is written again.
        sync_threads();
        first += PROPOSE_THREADS;
    }
    found = if found < window { found } else { window };
    let mut at = found + thread_idx_x();
    while at < window {
        *rows.add(at as usize) = 0;
        *places.add(at as usize) = 0;
        at += PROPOSE_THREADS;
    }
    found
}

/// The generator's number `index`, counted from 1.
#[inline(always)]
fn number_of(counter: u64, index: u32) -> u64 {
    mix(counter.wrapping_add((index as u64).wrapping_mul(RANDOM_STEP)))
}

/// The index at which the running sum of `len` values passes `target`, which keeps what is left of it; where rounding ran
/// past the end, the last one of a value above 0.
#[inline(always)]
unsafe fn pass(len: u32, target: &mut f64, values: *const f64) -> u32 {
    let (mut last, mut first) = (0, 0);
    let mut found = false;
    while first < len && !found {
        // All loads are under way before the first is waited for, and subtractions wait for each other only.
        let mut ahead = [0.0; 8];
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if first + (I as u32) < len {
                ahead[I] = *values.add((first + I as u32) as usize);
            }
        });
        let mut left = [*target; 9];
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => { left[I + 1] = left[I] - ahead[I]; });
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if !found && ahead[I] > 0.0 {
                last = first + I as u32;
                found = left[I] < ahead[I];
                *target = left[if found { I } else { I + 1 }];
            }
        });
        first += 8;
    }
    last
}

/// The blocks that choose for a problem together, and where they have its distances.
pub(super) trait Team {
    const BLOCKS: u32;
    type Distances: Distances;
    /// This block's number.
    fn rank() -> u32;
    /// Waits for all threads, and makes their writes visible.
    unsafe fn sync();
    /// Sets a value in the shared memory of all blocks, by a warp whose lanes have the same.
    unsafe fn publish(to: Shared<u64>, value: u64);
}

/// Distances of a problem's points to the nearest that is chosen.
pub(super) trait Distances: Copy {
    /// Of the problem whose `n` points begin at `first`.
    unsafe fn begin(nearest: *mut f64, first: u64, n: u32) -> Self;
    /// By the point's place among those of all problems.
    unsafe fn get(self, place: u32) -> f64;
    unsafe fn set(self, place: u32, value: f64);
    /// After the last choice, when all threads are together.
    unsafe fn end(self, nearest: *mut f64, first: u64, n: u32);
}

/// Distances where they are.
impl Distances for *mut f64 {
    #[inline(always)]
    unsafe fn begin(nearest: *mut f64, _first: u64, _n: u32) -> Self {
        nearest
    }
    #[inline(always)]
    unsafe fn get(self, place: u32) -> f64 {
        *self.add(place as usize)
    }
    #[inline(always)]
    unsafe fn set(self, place: u32, value: f64) {
        *self.add(place as usize) = value;
    }
    #[inline(always)]
    unsafe fn end(self, _nearest: *mut f64, _first: u64, _n: u32) {}
}

/// Distances in shared memory, of few points.
#[derive(Clone, Copy)]
pub(super) struct Held {
    values: Shared<f64>,
    first: u32,
}
impl Distances for Held {
    #[inline(always)]
    unsafe fn begin(nearest: *mut f64, first: u64, n: u32) -> Self {
        let values = CHOOSE_HELD.nearest.here();
        let mut row = thread_idx_x();
        while row < n {
            values.set(row, *nearest.add((first + row as u64) as usize));
            row += CHOOSE_THREADS;
        }
        sync_threads();
        Held { values, first: first as u32 }
    }
    #[inline(always)]
    unsafe fn get(self, place: u32) -> f64 {
        self.values.get(place - self.first)
    }
    #[inline(always)]
    unsafe fn set(self, place: u32, value: f64) {
        self.values.set(place - self.first, value);
    }
    #[inline(always)]
    unsafe fn end(self, nearest: *mut f64, first: u64, n: u32) {
        let mut row = thread_idx_x();
        while row < n {
            *nearest.add((first + row as u64) as usize) = self.values.get(row);
            row += CHOOSE_THREADS;
        }
        sync_threads();
    }
}

macro_rules! alone {
    ($Team:ty, $Distances:ty) => {
        impl Team for $Team {
            const BLOCKS: u32 = 1;
            type Distances = $Distances;
            #[inline(always)]
            fn rank() -> u32 {
                0
            }
            #[inline(always)]
            unsafe fn sync() {
                sync_threads();
            }
            #[inline(always)]
            unsafe fn publish(to: Shared<u64>, value: u64) {
                if lane_id() == 0 {
                    to.set(0, value);
                }
            }
        }
    };
}
alone!(Blocks<CHOOSE_HOLDS>, Held);
alone!(Blocks<1>, *mut f64);

/// A cluster of blocks.
#[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
impl Team for Blocks<CHOOSE_CLUSTER> {
    const BLOCKS: u32 = CHOOSE_CLUSTER;
    type Distances = *mut f64;
    #[inline(always)]
    fn rank() -> u32 {
        cluster_rank()
    }
    #[inline(always)]
    unsafe fn sync() {
        cluster_sync();
    }
    #[inline(always)]
    unsafe fn publish(to: Shared<u64>, value: u64) {
        if lane_id() < CHOOSE_CLUSTER {
            store_to_block(to, lane_id(), value);
        }
    }
}

/// Pairs of a list that a thread looks at together.
const AT_ONCE: u32 = 4;

/// Some pairs of a list.
#[derive(Clone, Copy)]
struct Some4 {
    points: [u32; AT_ONCE as usize],
    /// How far the points are from the list's row, and from the nearest that is chosen.
    with: [f64; AT_ONCE as usize],
    near: [f64; AT_ONCE as usize],
}

impl Some4 {
    const NONE: Some4 = Some4 { points: [0; 4], with: [0.0; 4], near: [0.0; 4] };
}

/// The lists of pairs: places of points among those of all problems, and how far they are from the list's row.
#[derive(Clone, Copy)]
struct Lists<D> {
    points: *const u32,
    distances: *const f64,
    nearest: D,
}

impl<D: Distances> Lists<D> {
    /// Every `lanes`-th pair from `entry` on, before `end`.
    #[inline(always)]
    unsafe fn load(self, entry: u32, end: u32, lanes: u32) -> Some4 {
        let mut some = Some4::NONE;
        // All loads are under way before the first is waited for.
        unroll!(I in [0, 1, 2, 3] => {
            let at = entry as u64 + I as u64 * lanes as u64;
            if at < end as u64 {
                some.with[I] = *self.distances.add(at as usize);
                some.points[I] = *self.points.add(at as usize);
            }
        });
        unroll!(I in [0, 1, 2, 3] => {
            if entry as u64 + I as u64 * (lanes as u64) < end as u64 {
                some.near[I] = self.nearest.get(some.points[I]);
            }
        });
        some
    }

    /// What these pairs gain.
    #[inline(always)]
    fn gain(some: Some4, scale: f64) -> u64 {
        let mut gain = 0u64;
        unroll!(I in [0, 1, 2, 3] => {
            if some.with[I] < some.near[I] {
                gain = gain.wrapping_add(gain_of(some.near[I], some.with[I], scale) as u64);
            }
        });
        gain
    }

    /// Lowers the distances of these pairs' points.
    #[inline(always)]
    unsafe fn take(self, some: Some4) {
        unroll!(I in [0, 1, 2, 3] => {
            if some.with[I] < some.near[I] {
                self.nearest.set(some.points[I], some.with[I]);
            }
        });
    }
}

/// The candidate that gains most.
struct Best {
    candidate: u32,
    /// What this thread has of its list, if that is all that anybody has to look at.
    mine: Some4,
    is_all: bool,
}

/// Chooses rows one after the other, until all are chosen, the pool is used up, or more rows of it are asked for than the lists
/// are for. Does nothing where the pairs had no room.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`CHOOSE_THREADS`] threads; lists have each point once at most;
/// problems whose distances are held have at most [`CHOOSE_HELD_ROWS`] points.
#[inline(always)]
pub(super) unsafe fn choose<M: Team>(
    nearest: *mut f64,
    pool_rows: *const u32,
    pool_nearest: *const f64,
    places: *const u32,
    totals: *const f64,
    limits: *const u32,
    open: *const LoopState,
    list_counts: *const u32,
    starts: *const u32,
    list_points: *const u32,
    list_distances: *const f64,
    states: *mut PoolState,
    rows: *mut u32,
    params: ChooseParams,
) {
    let pool = params.pool;
    let (n, k) = (pool.shape.n, pool.shape.k);
    let warps = CHOOSE_THREADS / WARP_SIZE * M::BLOCKS;
    let warp = M::rank() * (CHOOSE_THREADS / WARP_SIZE) + warp_id();
    let has_room = *list_counts.add(LIST_PAIRS) <= pool.capacity;
    let mut batch = div(block_idx_x(), M::BLOCKS);
    while batch < pool.shape.batch && has_room {
        let state = states.add(batch as usize);
        let mut now = *state;
        let count = pool.proposals(now);
        if now.done == 0 && (*open.add(batch as usize)).done != 0 {
            now.done = 1;
        } else if now.done == 0 {
            let of_problem = batch as u64 * n as u64;
            let lists = Lists {
                points: list_points,
                distances: list_distances,
                nearest: M::Distances::begin(nearest, of_problem, n),
            };
            let of_pool = (batch as u64 * pool.most as u64) as usize;
            let of_window = (batch * pool.window) as usize;
            let search = Search {
                pool_rows: pool_rows.add(of_pool),
                pool_nearest: pool_nearest.add(of_pool),
                first: of_problem as u32,
                from: 0,
                end: *limits.add(batch as usize),
            };
            let window = Window { search, starts: starts.add(of_window), places: places.add(of_window) };
            let scale = gain_scale(*totals.add(batch as usize));
            // Two numbers for each row of the pool, but the first, which the host drew.
            let used = if now.chosen == 0 { 0 } else { 2 * count as u64 }.wrapping_mul(RANDOM_STEP);
            now.proposals = count;
            // The column from which candidates are looked for.
            let mut column = 0;
            // Whether no row of the pool that counts as drawn is beyond the window.
            let end = search.end;
            let has_all = end < pool.window || *window.places.add(end as usize - 1) + 1 == count;
            let mut goes_on = true;
            // The first row stands alone.
            let mut wanted = if now.chosen == 0 { 1 } else { pool.trials };
            let mut shares = Shares::of(warp, warps, wanted);
            while goes_on {
                if warp_id() == 0 {
                    window.find(lists.nearest, now, column, wanted);
                }
                sync_threads();
                let (found, next) = (CHOOSE.found.here().get(0), CHOOSE.found.here().get(1));
                goes_on = found == wanted;
                if goes_on {
                    let best = best::<M>(lists, shares, scale);
                    let lane = warp * WARP_SIZE + lane_id();
                    if best.is_all {
                        lists.take(best.mine);
                    } else {
                        let lanes = warps * WARP_SIZE;
                        let end = CHOOSE.ends.here().get(best.candidate);
                        let mut entry = CHOOSE.begins.here().get(best.candidate).saturating_add(lane);
                        while entry < end {
                            lists.take(lists.load(entry, end, lanes));
                            entry = entry.saturating_add(AT_ONCE * lanes);
                        }
                    }
                    if lane == 0 {
                        *rows.add((batch as u64 * k as u64 + now.chosen as u64) as usize) =
                            CHOOSE.rows.here().get(best.candidate);
                    }
                    now.chosen += 1;
                    column = next;
                    goes_on = now.chosen < k;
                    if wanted != pool.trials {
                        wanted = pool.trials;
                        shares = Shares::of(warp, warps, wanted);
                    }
                    if !goes_on {
                        now.done = 1;
                        now.counter = now.counter.wrapping_add(used);
                    }
                } else if has_all {
                    now.counter = now.counter.wrapping_add(used);
                    now.proposals = 0;
                    now.next = 0;
                } else if column < end {
                    now.next = *window.places.add(column as usize);
                } else {
                    now.next = *window.places.add(end as usize - 1) + 1;
                }
                // Distances are there for the next step, and what was found has been read.
                M::sync();
            }
            lists.nearest.end(nearest, of_problem, n);
        }
        if M::rank() == 0 && thread_idx_x() == 0 {
            *state = now;
        }
        batch += div(grid_dim_x(), M::BLOCKS);
    }
    // Another block may still write to this one's shared memory.
    M::sync();
}

/// A pool's rows from place `from` to `end`, or so many of them.
#[derive(Clone, Copy)]
struct Search {
    pool_rows: *const u32,
    pool_nearest: *const f64,
    /// What places of distances begin at: the problem's first point, or 0.
    first: u32,
    from: u32,
    end: u32,
}

impl Search {
    /// Whether the row in a place of the pool counts as drawn, and the row.
    #[inline(always)]
    unsafe fn is_drawn<D: Distances>(self, nearest: D, state: PoolState, place: u32) -> (bool, u32) {
        let row = *self.pool_rows.add(place as usize);
        // The first row stands alone.
        let mut is_drawn = state.chosen == 0;
        if !is_drawn {
            let share = unit(number_of(state.counter, 2 * place + 2));
            is_drawn = share * *self.pool_nearest.add(place as usize) < nearest.get(self.first + row);
        }
        (is_drawn, row)
    }
}

/// The rows of a pool that a launch looks at, by columns.
#[derive(Clone, Copy)]
struct Window {
    search: Search,
    /// Where their lists begin.
    starts: *const u32,
    /// Their places in the pool.
    places: *const u32,
}

impl Window {
    /// Up to `wanted` rows that count as drawn, from column `first` on: them, their lists, how many and the column after the last;
    /// one warp.
    #[inline(always)]
    unsafe fn find<D: Distances>(self, nearest: D, state: PoolState, mut first: u32, wanted: u32) {
        let end = self.search.end;
        let (mut found, mut next) = (0, end);
        while first < end && found < wanted {
            let column = first + lane_id();
            let mut is_drawn = false;
            let (mut row, mut begin, mut past) = (0, 0, 0);
            if column < end {
                begin = *self.starts.add(column as usize);
                past = *self.starts.add(column as usize + 1);
                (is_drawn, row) = self.search.is_drawn(nearest, state, *self.places.add(column as usize));
            }
            let drawn = warp_vote_ballot(FULL_MASK, is_drawn);
            let rank = found + (drawn & ((1 << lane_id()) - 1)).count_ones();
            if is_drawn && rank < wanted {
                CHOOSE.rows.here().set(rank, row);
                CHOOSE.begins.here().set(rank, begin);
                CHOOSE.ends.here().set(rank, past);
            }
            let last = warp_vote_ballot(FULL_MASK, is_drawn && rank + 1 == wanted);
            if last != 0 {
                next = first + last.trailing_zeros() + 1;
            }
            found += drawn.count_ones();
            first += WARP_SIZE;
        }
        if lane_id() == 0 {
            CHOOSE.found.here().set(0, if found < wanted { found } else { wanted });
            CHOOSE.found.here().set(1, next);
        }
    }
}

/// How warps share the lists of candidates, which they take in turns.
#[derive(Clone, Copy)]
struct Shares {
    candidates: u32,
    warp: u32,
    warps: u32,
    /// Shares, at least one for each candidate.
    all: u32,
    /// The candidate of the warp's first share, and the share's number among the candidate's.
    candidate: u32,
    part: u32,
    /// Shares of the first candidates, and how many have that many; the others have one less.
    most: u32,
    with_most: u32,
}

impl Shares {
    #[inline(always)]
    unsafe fn of(warp: u32, warps: u32, candidates: u32) -> Self {
        let all = if warps > candidates { warps } else { candidates };
        let part = div(warp, candidates);
        let least = div(all, candidates);
        let rest = all - least * candidates;
        let (most, with_most) = if rest > 0 { (least + 1, rest) } else { (least, candidates) };
        Shares { candidates, warp, warps, all, candidate: warp - part * candidates, part, most, with_most }
    }

    /// Threads that share a candidate's list.
    #[inline(always)]
    fn lanes(self, candidate: u32) -> u32 {
        (self.most - (candidate >= self.with_most) as u32) * WARP_SIZE
    }
}

/// Which of the candidates that were found gains most, of equal ones the first.
#[inline(always)]
unsafe fn best<M: Team>(lists: Lists<M::Distances>, shares: Shares, scale: f64) -> Best {
    let parts = CHOOSE.parts.here();
    let (begins, ends) = (CHOOSE.begins.here(), CHOOSE.ends.here());
    let candidates = shares.candidates;
    let mut mine = Some4::NONE;
    let (mut candidate, mut part, mut share) = (shares.candidate, shares.part, shares.warp);
    while share < shares.all {
        let lanes = shares.lanes(candidate);
        let end = ends.get(candidate);
        let mut entry = begins.get(candidate).saturating_add(part * WARP_SIZE + lane_id());
        mine = lists.load(entry, end, lanes);
        let mut gain = Lists::<M::Distances>::gain(mine, scale);
        entry = entry.saturating_add(AT_ONCE * lanes);
        while entry < end {
            let more = lists.load(entry, end, lanes);
            gain = gain.wrapping_add(Lists::<M::Distances>::gain(more, scale));
            entry = entry.saturating_add(AT_ONCE * lanes);
        }
        M::publish(parts.add(share), warp_sum_u64(gain));
        share += shares.warps;
        if share < shares.all {
            // More candidates than warps, with a share each.
            (candidate, part) = (share, 0);
        }
    }
    M::sync();
    // Every warp finds the best, a lane a candidate.
    let mut gain = 0u64;
    if lane_id() < candidates {
        let mut at = lane_id();
        while at < shares.all {
            gain = gain.wrapping_add(parts.get(at));
            at += candidates;
        }
    }
    let (mut best, mut most) = (0, warp_shuffle_idx(FULL_MASK, gain, 0));
    let mut other = 1;
    while other < candidates {
        let with = warp_shuffle_idx(FULL_MASK, gain, other);
        if with > most {
            best = other;
            most = with;
        }
        other += 1;
    }
    let is_all =
        candidates <= shares.warps && ends.get(best) - begins.get(best) <= AT_ONCE * shares.lanes(best);
    Best { candidate: best, mine: if shares.candidate == best { mine } else { Some4::NONE }, is_all }
}

/// The sum of the lanes' values, in every lane.
#[inline(always)]
unsafe fn warp_sum_u64(mut value: u64) -> u64 {
    let mut offset = 16;
    while offset > 0 {
        value = value.wrapping_add(warp_shuffle_xor(FULL_MASK, value, offset));
        offset >>= 1;
    }
    value
}
