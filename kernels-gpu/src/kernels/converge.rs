//! Whether a problem has converged, decided on the device, so that the host need not wait.
use super::my_thread;
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::barrier::barrier_sync;
use cuda_std::thread::*;
use cuda_std::warp::*;

const SHARED: ConvergeShared = ConvergeShared::new();

/// Sums one iteration's statistics in a fixed order, records them, and stops the problems that are done:
/// those whose shift is at most their threshold, or whose labels did not change. Several blocks share a problem of many
/// tiles or clusters; the last of them to end adds up what all have found.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`REDUCE_THREADS`] threads; `counters` are zeros, and
/// zeros again afterwards.
#[inline(always)]
pub(super) unsafe fn converge(
    moves: *const f64,
    tile_cost: *const f64,
    tile_changed: *const u32,
    thresholds: *const f64,
    states: *mut LoopState,
    records: *mut IterationRecord,
    partial: *mut IterationRecord,
    counters: *mut u32,
    params: ConvergeParams,
) {
    let parts = params.parts();
    let me = thread_idx_x();
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let batch = div_u64(item, parts as u64);
        let part = (item - batch * parts as u64) as u32;
        let state = states.add(batch as usize);
        if (*state).done == 0 {
            let mut all = sum_of_part(batch, part, parts, (moves, tile_cost, tile_changed), params);
            let mut is_last = true;
            if parts > 1 {
                let ended = SHARED.ended.here();
                let partial = partial.add((batch * parts as u64) as usize);
                if me == 0 {
                    *partial.add(part as usize) = all;
                    device_fence();
                    let before = atomic::fetch_add_u32(counters.add(batch as usize), 1);
                    ended.set(0, before + 1);
                }
                sync_threads();
                is_last = ended.get(0) == parts;
                if is_last {
                    device_fence();
                    let theirs = if me < parts { partial.add(me as usize).read_volatile() } else { NOTHING };
                    all = sum_of_block(theirs);
                }
            }
            if is_last && me == 0 {
                // For the next launch.
                *counters.add(batch as usize) = 0;
                let threshold = *thresholds.add(batch as usize);
                let slot = slot_of(states.add(batch as usize), params);
                record(slot, batch, all, threshold, states, records, params);
            }
            sync_threads();
        }
        item += grid_dim_x() as u64;
    }
}

/// What a part of a problem's moves and statistics come to, in every thread of a block.
#[inline(always)]
pub(super) unsafe fn sum_of_part(
    batch: u64,
    part: u32,
    parts: u32,
    (moves, tile_cost, tile_changed): (*const f64, *const f64, *const u32),
    params: ConvergeParams,
) -> IterationRecord {
    let mut mine = NOTHING;
    let (mut entry, to) = part_of(params.moves, part, parts);
    entry += my_thread();
    while entry < to {
        mine.shift += *moves.add((batch * params.moves as u64 + entry as u64) as usize);
        entry += REDUCE_THREADS;
    }
    let (mut tile, to) = part_of(params.tiles, part, parts);
    tile += my_thread();
    while tile < to {
        let place = (batch * params.tiles as u64 + tile as u64) as usize;
        mine.cost += *tile_cost.add(place);
        mine.changed += *tile_changed.add(place);
        tile += REDUCE_THREADS;
    }
    sum_of_block(mine)
}

/// The slot of the record of a problem's next iteration.
#[inline(always)]
pub(super) unsafe fn slot_of(state: *const LoopState, params: ConvergeParams) -> u32 {
    let iteration = (*state).n_iter;
    iteration - div(iteration, params.window) * params.window
}

/// Records a problem's iteration in `slot`, and stops it if it is done; one thread.
#[inline(always)]
pub(super) unsafe fn record(
    slot: u32,
    batch: u64,
    all: IterationRecord,
    threshold: f64,
    states: *mut LoopState,
    records: *mut IterationRecord,
    params: ConvergeParams,
) {
    *records.add((slot as u64 * params.shape.batch as u64 + batch) as usize) = all;
    let state = states.add(batch as usize);
    *state = LoopState {
        done: has_ended(all, threshold) as u32,
        n_iter: (*state).n_iter + 1,
        fixed_point: (all.changed == 0) as u32,
        reserved: 0,
    };
}

/// Whether a problem is done after an iteration.
#[inline(always)]
pub(super) fn has_ended(all: IterationRecord, threshold: f64) -> bool {
    all.changed == 0 || all.shift <= threshold
}

const NOTHING: IterationRecord = IterationRecord { cost: 0.0, shift: 0.0, changed: 0, reserved: 0 };

/// Where part `part` of `all` begins and ends.
#[inline(always)]
unsafe fn part_of(all: u32, part: u32, parts: u32) -> (u32, u32) {
    let len = div(all, parts) + 1;
    let from = part as u64 * len as u64;
    let to = from + len as u64;
    let within = |place: u64| if place < all as u64 { place as u32 } else { all };
    (within(from), within(to))
}

/// The sum of the threads' records, in every one of them.
#[inline(always)]
unsafe fn sum_of_block(mine: IterationRecord) -> IterationRecord {
    let (shift, cost, changed) = (SHARED.shift.here(), SHARED.cost.here(), SHARED.changed.here());
    let me = my_thread();
    // What was there has been read.
    sync_reduce();
    shift.set(me, mine.shift);
    cost.set(me, mine.cost);
    changed.set(me, mine.changed);
    sync_reduce();
    let mut half = REDUCE_THREADS / 2;
    while half > 0 {
        if me < half {
            shift.set(me, shift.get(me) + shift.get(me + half));
            cost.set(me, cost.get(me) + cost.get(me + half));
            changed.set(me, changed.get(me) + changed.get(me + half));
        }
        if half > WARP_SIZE {
            sync_reduce();
        } else {
            // The first warp goes on alone.
            sync_warp(FULL_MASK);
        }
        half /= 2;
    }
    sync_reduce();
    found()
}

/// What [`sum_of_part`] has found, for those threads of the block that were not in it, once the block was together again.
#[inline(always)]
pub(super) unsafe fn found() -> IterationRecord {
    let (shift, cost, changed) = (SHARED.shift.here(), SHARED.cost.here(), SHARED.changed.here());
    IterationRecord { cost: cost.get(0), shift: shift.get(0), changed: changed.get(0), reserved: 0 }
}

/// The barrier of the threads that add up: the first of a block that has more.
#[inline(always)]
pub(super) unsafe fn sync_reduce() {
    barrier_sync(1, REDUCE_THREADS)
}
