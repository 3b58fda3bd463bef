//! The choices of greedy k-means++: the candidate that leaves the least distances, and the candidates for the next row.
use super::lower::add_to;
use crate::spec::*;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const SHARED: DrawShared = DrawShared::new();

/// Chooses the best of the candidates that `lower` measured, and draws those for the next row in proportion to the distances
/// that it leaves, a warp each.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`DRAW_THREADS`] threads, at least as many as there are
/// trials.
#[inline(always)]
pub(super) unsafe fn draw(
    nearest: *const f64,
    distances: *const f64,
    lowered: *const u8,
    chunk_sums: *const f64,
    group_sums: *const f64,
    states: *mut DrawState,
    candidates: *mut u32,
    rows: *mut u32,
    params: DrawParams,
) {
    let lower = params.lower;
    let (shape, most) = (lower.shape, lower.trials);
    let (chunks, groups) = (lower.chunks(), lower.groups());
    let (totals, values) = (SHARED.totals.here(), SHARED.values.here().add(warp_id() * FAN));
    let me = thread_idx_x();
    let mut batch = block_idx_x() as u64;
    while batch < shape.batch as u64 {
        let state = *states.add(batch as usize);
        let trials = batch * most as u64;
        let candidates = candidates.add(trials as usize);
        if state.candidates > 0 {
            let mut trial = warp_id();
            while trial < state.candidates {
                let sums = group_sums.add(((trials + trial as u64) * groups as u64) as usize);
                let total = sum(groups, values, |group| *sums.add(group as usize));
                if lane_id() == 0 {
                    totals.set(trial, total);
                }
                trial += DRAW_THREADS / WARP_SIZE;
            }
            sync_threads();
            let (mut best, mut total) = (0, totals.get(0));
            let mut candidate = 1;
            while candidate < state.candidates {
                if totals.get(candidate) < total {
                    best = candidate;
                    total = totals.get(candidate);
                }
                candidate += 1;
            }
            let chosen = state.chosen + 1;
            if me == 0 {
                *rows.add((batch * shape.k as u64 + state.chosen as u64) as usize) =
                    *candidates.add(best as usize);
            }
            // Else all points lie on chosen ones, or distances overflowed.
            let goes_on = chosen < shape.k && total > 0.0 && total < f64::INFINITY;
            // The candidates and the state have been read.
            sync_threads();
            if goes_on {
                let of_best = trials + best as u64;
                let group_sums = group_sums.add((of_best * groups as u64) as usize);
                let chunk_sums = chunk_sums.add((of_best * chunks as u64) as usize);
                let nearest = nearest.add((batch * shape.n as u64) as usize);
                let distances = distances.add((of_best * shape.n as u64) as usize);
                let tile = batch * lower.tiles() as u64 + (best / LOWER_CANDIDATES) as u64;
                let lowered = lowered.add((tile * shape.n as u64) as usize);
                let mut trial = warp_id();
                while trial < most {
                    let number =
                        mix(state.counter.wrapping_add((trial as u64 + 1).wrapping_mul(RANDOM_STEP)));
                    let mut target = unit(number) * total;
                    let group = pass(groups, &mut target, values, |group| *group_sums.add(group as usize));
                    let of_group = (chunks - group * FAN).min(FAN);
                    let chunk = group * FAN
                        + pass(of_group, &mut target, values, |chunk| {
                            *chunk_sums.add((group * FAN + chunk) as usize)
                        });
                    let of_chunk = (shape.n - chunk * FAN).min(FAN);
                    let row = chunk * FAN
                        + pass(of_chunk, &mut target, values, |row| {
                            let row = (chunk * FAN + row) as usize;
                            let is_lowered = *lowered.add(row) >> (best % LOWER_CANDIDATES) & 1 != 0;
                            *if is_lowered { distances } else { nearest }.add(row)
                        });
                    if lane_id() == 0 {
                        *candidates.add(trial as usize) = row;
                    }
                    trial += DRAW_THREADS / WARP_SIZE;
                }
            }
            if me == 0 {
                let drawn = if goes_on { most } else { 0 };
                *states.add(batch as usize) = DrawState {
                    counter: state.counter.wrapping_add((drawn as u64).wrapping_mul(RANDOM_STEP)),
                    chosen,
                    candidates: drawn,
                    best,
                    reserved: 0,
                };
            }
        }
        batch += grid_dim_x() as u64;
    }
}

/// Stages up to [`FAN`] values from `first` of `len` on, for a warp, with zeros past the end.
#[inline(always)]
unsafe fn stage(first: u32, len: u32, values: Shared<f64>, load: &impl Fn(u32) -> f64) {
    const { assert!(FAN == 2 * WARP_SIZE) };
    // Those before have been read.
    sync_warp(FULL_MASK);
    let mut ahead = [0.0; 2];
    unroll!(I in [0, 1] => {
        let at = lane_id() + I as u32 * WARP_SIZE;
        if at < len - first {
            ahead[I] = load(first + at);
        }
    });
    unroll!(I in [0, 1] => { values.set(lane_id() + I as u32 * WARP_SIZE, ahead[I]); });
    sync_warp(FULL_MASK);
}

/// The sum of `len` values, one after the other, in all lanes of a warp.
#[inline(always)]
unsafe fn sum(len: u32, values: Shared<f64>, load: impl Fn(u32) -> f64) -> f64 {
    let mut sum = 0.0;
    let mut first = 0;
    while first < len {
        stage(first, len, values, &load);
        sum = add_to(sum, values);
        first += FAN;
    }
    sum
}

/// The index at which the running sum of `len` values passes `target`, which keeps what is left of it; where rounding ran
/// past the end, the last one of a value above 0. All lanes of a warp go the same way.
#[inline(always)]
unsafe fn pass(len: u32, target: &mut f64, values: Shared<f64>, load: impl Fn(u32) -> f64) -> u32 {
    let mut last = 0;
    let mut found = false;
    let mut first = 0;
    while first < len && !found {
        stage(first, len, values, &load);
        let mut at = 0;
        while at < FAN && !found {
            let mut ahead = [0.0; 8];
            unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => { ahead[I] = values.get(at + I as u32); });
            // Subtractions wait for each other only, not for what the comparisons say.
            let mut left = [*target; 9];
            unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => { left[I + 1] = left[I] - ahead[I]; });
            unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                if !found && ahead[I] > 0.0 {
                    last = first + at + I as u32;
                    found = left[I] < ahead[I];
                    *target = left[if found { I } else { I + 1 }];
                }
            });
            at += 8;
        }
        first += FAN;
    }
    last
}
