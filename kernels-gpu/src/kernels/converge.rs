//! Whether a problem has converged, decided on the device, so that the host need not wait.
use crate::spec::*;
use cuda_std::thread::*;

const SHARED: ConvergeShared = ConvergeShared::new();

/// Sums one iteration's statistics in a fixed order, records them, and stops the problems that are done:
/// those whose shift is at most their threshold, or whose labels did not change.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`REDUCE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn converge(
    moves: *const f64,
    tile_cost: *const f64,
    tile_changed: *const u32,
    thresholds: *const f64,
    states: *mut LoopState,
    records: *mut IterationRecord,
    params: ConvergeParams,
) {
    let shape = params.shape;
    let (shift, cost, changed) = (SHARED.shift.here(), SHARED.cost.here(), SHARED.changed.here());
    let me = thread_idx_x();
    let mut batch = block_idx_x();
    while batch < shape.batch {
        let state = states.add(batch as usize);
        if (*state).done == 0 {
            let moves = moves.add((batch as u64 * shape.k as u64) as usize);
            let first_tile = (batch as u64 * params.tiles as u64) as usize;
            let (mut my_shift, mut my_cost, mut my_changed) = (0.0, 0.0, 0);
            let mut cluster = me;
            while cluster < shape.k {
                my_shift += *moves.add(cluster as usize);
                cluster += REDUCE_THREADS;
            }
            let mut tile = me;
            while tile < params.tiles {
                my_cost += *tile_cost.add(first_tile + tile as usize);
                my_changed += *tile_changed.add(first_tile + tile as usize);
                tile += REDUCE_THREADS;
            }
            shift.set(me, my_shift);
            cost.set(me, my_cost);
            changed.set(me, my_changed);
            sync_threads();
            let mut half = REDUCE_THREADS / 2;
            while half > 0 {
                if me < half {
                    shift.set(me, shift.get(me) + shift.get(me + half));
                    cost.set(me, cost.get(me) + cost.get(me + half));
                    changed.set(me, changed.get(me) + changed.get(me + half));
                }
                sync_threads();
                half /= 2;
            }
            if me == 0 {
                let record = IterationRecord {
                    cost: cost.get(0),
                    shift: shift.get(0),
                    changed: changed.get(0),
                    reserved: 0,
                };
                let iteration = (*state).n_iter;
                let slot = iteration - div(iteration, params.window) * params.window;
                *records.add((slot as u64 * shape.batch as u64 + batch as u64) as usize) = record;
                let stopped = record.changed == 0 || record.shift <= *thresholds.add(batch as usize);
                *state = LoopState {
                    done: stopped as u32,
                    n_iter: iteration + 1,
                    fixed_point: (record.changed == 0) as u32,
                    reserved: 0,
                };
            }
            sync_threads();
        }
        batch += grid_dim_x();
    }
}
