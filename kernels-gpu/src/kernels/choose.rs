//! Greedy k-means++ among few rows whose distances are known: all steps in one launch of one block, as each waits for the one
//! before.
//!
//! ```text
//! bounds      bfloat16 values that distances are not below: a step reads those of its candidates, 2 bytes a row
//!             at least the nearest?  yes: nothing to do   no: listed
//! table       f64 distances, one for each listed pair: what is lower sets a bit
//! chunks      sums of 64 rows: where no bit is set, they are as they were; else a thread adds them up in their order
//! groups, total, the best candidate, a warp for each candidate of the next step: as `draw`
//! ```
//! Nearest distances and sums stay in shared memory. Seven barriers a step.
use super::draw::pass;
use crate::spec::*;
use cuda_std::ptr;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const SHARED: ChooseShared = ChooseShared::new();
/// Threads that compare with the same candidates: each quarter has two of them.
const QUARTER: u32 = CHOOSE_THREADS / 4;
/// Least threshold of a row that is not at a distance of 0: quotients may have lost something to underflow below it.
const LEAST: f32 = f32::from_bits((127 - 100) << 23);

/// Where in shared memory a row's nearest distance is.
#[inline(always)]
fn place(row: u32) -> u32 {
    row / FAN * LOWER_CHUNK_PITCH + row % FAN
}

/// What a distance is not below if, times `weight`, it is not under `nearest`.
#[inline(always)]
fn threshold(nearest: f64, weight: f64) -> f32 {
    // More than the quotient by several units of an f32.
    let above = (nearest / weight * (1.0 + 1.0 / (1 << 20) as f64)) as f32;
    match nearest == 0.0 {
        true => 0.0,
        false if above < LEAST => LEAST,
        false => above,
    }
}

/// Chooses up to `k` of `n` rows from row `first` on, each as often as its weight says.
///
/// # Safety
/// Pointers are valid for the parameters: `table` as [`pair_place`] says, `bounds` `n` rows of [`bounds_pitch`], `lowered` and `list`
/// [`CHOOSE_CANDIDATES`] times `n` values; a block has [`CHOOSE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn choose(
    table: *const f64,
    bounds: *const u16,
    weights: *const f64,
    lowered: *mut f64,
    list: *mut u32,
    rows: *mut u32,
    state: *mut DrawState,
    params: ChooseParams,
) {
    if block_idx_x() > 0 {
        return;
    }
    let ChooseParams { n, k, trials, .. } = params;
    let (chunks, me) = (n.div_ceil(FAN), thread_idx_x());
    let groups = chunks.div_ceil(FAN);
    let (nearest, thresholds) = (SHARED.nearest.here(), SHARED.thresholds.here());
    let (bits, candidates) = (SHARED.lowered.here(), SHARED.candidates.here());
    let (sums, chunk_sums) = (SHARED.sums.here(), SHARED.chunk_sums.here());
    let (group_sums, totals) = (SHARED.group_sums.here(), SHARED.totals.here());
    let values = SHARED.values.here().add(warp_id() % CHOOSE_CANDIDATES * FAN);

    let mut row = me;
    while row < chunks * FAN {
        nearest.set(place(row), if row < n { f64::INFINITY } else { 0.0 });
        thresholds.set(row, if row < n { f32::INFINITY } else { 0.0 });
        row += CHOOSE_THREADS;
    }
    if me < chunks {
        sums.set(me, f64::INFINITY);
    }
    if me == 0 {
        candidates.set(0, params.first);
    }
    clear(bits);
    let (mut counter, mut chosen, mut count) = (params.counter, 0, 1);
    loop {
        sync_threads();
        compare(bounds, list, count, n);
        sync_threads();
        let mut entry = me;
        while entry < SHARED.listed.here().get(0) {
            let pair = *list.add(entry as usize);
            let (candidate, row) = (pair >> 16, pair & 0xffff);
            let distance = *table.add(pair_place(candidates.get(candidate), row) as usize);
            let with = *weights.add(row as usize) * distance;
            if with < nearest.get(place(row)) {
                *lowered.add((candidate * n + row) as usize) = with;
                bits.fetch_add(candidate * ChooseShared::WORDS + row / 32, 1 << (row % 32));
            }
            entry += CHOOSE_THREADS;
        }
        sync_threads();
        let mut part = me;
        while part < count * ChooseShared::CHUNKS {
            let (candidate, chunk) = (part / ChooseShared::CHUNKS, part % ChooseShared::CHUNKS);
            if chunk < chunks {
                let words = bits.add(candidate * ChooseShared::WORDS + chunk * (FAN / 32));
                let set = words.get(0) as u64 | (words.get(1) as u64) << 32;
                let mut sum = sums.get(chunk);
                if set != 0 {
                    let lowered = lowered.add((candidate * n + chunk * FAN) as usize);
                    sum = sum_of(nearest.add(chunk * LOWER_CHUNK_PITCH), lowered, set);
                }
                chunk_sums.set(candidate * ChooseShared::CHUNKS + chunk, sum);
            }
            part += CHOOSE_THREADS;
        }
        sync_threads();
        let candidate = warp_id();
        if candidate < count && lane_id() < groups {
            let first = lane_id() * FAN;
            let of_group = chunk_sums.add(candidate * ChooseShared::CHUNKS + first);
            let mut sum = 0.0;
            let mut at = 0;
            while at < (chunks - first).min(FAN) {
                sum += of_group.get(at);
                at += 1;
            }
            group_sums.set(candidate * ChooseShared::GROUPS + lane_id(), sum);
        }
        sync_threads();
        if me < count {
            let mut total = 0.0;
            let mut group = 0;
            while group < groups {
                total += group_sums.get(me * ChooseShared::GROUPS + group);
                group += 1;
            }
            totals.set(me, total);
        }
        sync_threads();
        let (mut best, mut total) = (0, totals.get(0));
        let mut candidate = 1;
        while candidate < count {
            if totals.get(candidate) < total {
                best = candidate;
                total = totals.get(candidate);
            }
            candidate += 1;
        }
        if me == 0 {
            *rows.add(chosen as usize) = candidates.get(best);
        }
        chosen += 1;
        // Else all rows lie on chosen ones, or distances overflowed.
        if chosen == k || !(total > 0.0 && total < f64::INFINITY) {
            break;
        }
        let mut row = me;
        while row < n {
            if bits.get(best * ChooseShared::WORDS + row / 32) >> (row % 32) & 1 != 0 {
                let near = *lowered.add((best * n + row) as usize);
                nearest.set(place(row), near);
                thresholds.set(row, threshold(near, *weights.add(row as usize)));
            }
            row += CHOOSE_THREADS;
        }
        let of_best = chunk_sums.add(best * ChooseShared::CHUNKS);
        if me < chunks {
            sums.set(me, of_best.get(me));
        }
        sync_threads();
        if warp_id() < trials {
            let number = mix(counter.wrapping_add((warp_id() as u64 + 1).wrapping_mul(RANDOM_STEP)));
            let mut target = unit(number) * total;
            let group_sums = group_sums.add(best * ChooseShared::GROUPS);
            let group = pass(groups, &mut target, values, |group| group_sums.get(group));
            let of_group = (chunks - group * FAN).min(FAN);
            let chunk =
                group * FAN + pass(of_group, &mut target, values, |chunk| of_best.get(group * FAN + chunk));
            let of_chunk = (n - chunk * FAN).min(FAN);
            let in_chunk = nearest.add(chunk * LOWER_CHUNK_PITCH);
            let row = chunk * FAN + pass(of_chunk, &mut target, values, |row| in_chunk.get(row));
            if lane_id() == 0 {
                candidates.set(warp_id(), row);
            }
        }
        clear(bits);
        counter = counter.wrapping_add((trials as u64).wrapping_mul(RANDOM_STEP));
        count = trials;
    }
    if me == 0 {
        *state = DrawState { counter, chosen, candidates: 0, best: 0, reserved: 0 };
    }
}

/// Before a step: no bit is set, and nothing listed.
#[inline(always)]
unsafe fn clear(bits: Shared<u32>) {
    let mut word = thread_idx_x();
    while word < CHOOSE_CANDIDATES * ChooseShared::WORDS {
        bits.set(word, 0);
        word += CHOOSE_THREADS;
    }
    if thread_idx_x() == 0 {
        SHARED.listed.here().set(0, 0);
    }
}

/// Lists the pairs of a candidate and a row whose distance may be under the row's threshold.
#[inline(always)]
unsafe fn compare(bounds: *const u16, list: *mut u32, count: u32, n: u32) {
    // Bounds that no row is under.
    const ABOVE: [u32; 4] = [0x7f80_7f80; 4];
    let (candidates, thresholds) = (SHARED.candidates.here(), SHARED.thresholds.here());
    let (quarter, pitch) = (thread_idx_x() / QUARTER, bounds_pitch(n));
    let vectors = pitch / CHOOSE_VECTOR;
    let mut first = thread_idx_x() % QUARTER;
    while first < vectors {
        // All loads are under way before the first is waited for.
        let mut words = [[ABOVE; 2]; 2];
        unroll!(V in [0, 1] => {
            let vector = first + V as u32 * QUARTER;
            unroll!(C in [0, 1] => {
                let candidate = quarter + 4 * C as u32;
                if vector < vectors && candidate < count {
                    let row = candidates.get(candidate) as u64 * pitch as u64;
                    words[V][C] = ptr::load_v4(bounds.add(row as usize + (vector * CHOOSE_VECTOR) as usize).cast());
                }
            });
        });
        unroll!(V in [0, 1] => {
            let vector = first + V as u32 * QUARTER;
            if vector < vectors {
                let row = vector * CHOOSE_VECTOR;
                let (low, high) = (thresholds.get4(row), thresholds.get4(row + 4));
                unroll!(C in [0, 1] => {
                    let candidate = quarter + 4 * C as u32;
                    let mut under = 0u32;
                    unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                        let word = words[V][C][I / 2];
                        let bound = f32::from_bits(if I & 1 == 0 { word << 16 } else { word & 0xffff_0000 });
                        let threshold = if I < 4 { low[I % 4] } else { high[I % 4] };
                        if bound < threshold && row + (I as u32) < n {
                            under |= 1 << I;
                        }
                    });
                    if under != 0 {
                        let mut place = SHARED.listed.here().fetch_add(0, under.count_ones());
                        while under != 0 {
                            *list.add(place as usize) = candidate << 16 | (row + under.trailing_zeros());
                            under &= under - 1;
                            place += 1;
                        }
                    }
                });
            }
        });
        first += 2 * QUARTER;
    }
}

/// The sum of a chunk, one row after the other: of `lowered` where its bit is set.
#[inline(always)]
unsafe fn sum_of(nearest: Shared<f64>, lowered: *const f64, set: u64) -> f64 {
    let mut sum = 0.0;
    let mut at = 0;
    while at < FAN {
        // Loads ahead of the additions, which wait for each other.
        let mut ahead = [0.0; 8];
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
            let row = at + I as u32;
            ahead[I] = nearest.get(row);
            if set >> row & 1 != 0 {
                ahead[I] = *lowered.add(row as usize);
            }
        });
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => { sum += ahead[I]; });
        at += 8;
    }
    sum
}
