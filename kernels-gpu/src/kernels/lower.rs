//! A step of greedy k-means++: how much less each candidate leaves of the distances, with the bits that the CPU has.
//!
//! A distance that is not under the nearest so far changes nothing, and most are not. So they are measured in f32, which reads a
//! row once for all candidates, and only what may be lower is measured in f64, with the additions of the CPU's:
//!
//! ```text
//! 8 lanes                4 rows × 8 candidates in f32, a lane every eighth vector; sums over lanes by exchanging halves
//!                        at least the nearest, whatever the rounding?  yes: nothing to do   no: listed
//! half-warp, lane l      terms of features l, l + 16, … of 8 listed pairs, one after the other
//! 8 × 16 of them         written by lanes, read by pairs: lane l adds up pair l's 16 sums in their order
//! block                  up to 4 chunks of 64 rows, whose distances one thread a candidate adds up in the order of the rows
//! ```
//! Bound: a difference is within a relative 2⁻²⁴, its square within three of these, and a lane's `t` additions and the three over
//! lanes add one each; all terms are positive. So a sum `s` is at least `1 − (t + 6)·2⁻²⁴` times the distance and at most as
//! much over it; twice that is taken. Sums that underflow may have touched, or that overflowed, count as unclear.
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::float::{Scalar, fma};
use cuda_std::ptr;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const SHARED: LowerShared = LowerShared::new();
const LANES: u32 = DISTANCE_LANES;
const CANDIDATES: usize = LOWER_CANDIDATES as usize;
/// Lanes that have a row in f32.
const ROW_LANES: u32 = 8;
/// Rows that as many lanes measure at a time.
const ROWS: usize = 4;
/// Rows that a block measures at a time in f32.
const BLOCK_ROWS: u32 = LOWER_THREADS / ROW_LANES * ROWS as u32;
/// Sums from here on have lost nothing that matters to underflow: each of fewer than 2³² terms may have lost 2⁻¹⁵⁰.
const LEAST_CLEAR: f32 = f32::from_bits((127 - 90) << 23);

/// The points of one problem.
#[derive(Clone, Copy)]
pub(super) struct Points<T> {
    pub(super) values: *const T,
    pub(super) pitch: u32,
    pub(super) d: u32,
}

impl<T: Scalar> Points<T> {
    #[inline(always)]
    pub(super) unsafe fn row(self, row: u32) -> *const T {
        self.values.add((row as u64 * self.pitch as u64) as usize)
    }
}

/// One step of greedy k-means++: takes the distances to the row that was chosen last into the nearest ones, finds which of
/// those to the candidates for the next are lower, and sums what would be nearest with each of them over chunks and groups of rows.
/// `lowered` has a bit a candidate for each tile of candidates and row; only `distances` of set bits are written.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; `weights` may be null; a block has [`LOWER_THREADS`] threads; candidates are under `n`; `counters` are zeros, and zeros again afterwards.
#[inline(always)]
pub(super) unsafe fn lower<T: Scalar>(
    points: *const T,
    weights: *const f64,
    states: *const DrawState,
    candidates: *const u32,
    nearest: *mut f64,
    distances: *mut f64,
    lowered: *mut u8,
    chunk_sums: *mut f64,
    group_sums: *mut f64,
    counters: *mut u32,
    params: LowerParams,
) {
    let shape = params.shape;
    let (chunks, groups, span) = (params.chunks(), params.groups(), params.span());
    let spans = params.spans(chunks) as u64;
    let measured = SHARED.distances.here();
    let near_of = SHARED.nearest.here();
    let me = thread_idx_x();
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let batch = div_u64(item, spans);
        let chunk = (item - batch * spans) as u32 * span;
        let state = *states.add(batch as usize);
        let first = batch * shape.n as u64;
        let values = points.add((first * shape.pitch as u64) as usize);
        let points = Points { values, pitch: shape.pitch, d: shape.d };
        let weights = if weights.is_null() { weights } else { weights.add(first as usize) };
        let nearest = nearest.add(first as usize);
        let trials = batch * params.trials as u64;
        let distances = distances.add((trials * shape.n as u64) as usize);
        let lowered = lowered.add((first * params.tiles() as u64) as usize);
        let candidates = candidates.add(trials as usize);
        let chunk_sums = chunk_sums.add((trials * chunks as u64) as usize);
        let group_sums = group_sums.add((trials * groups as u64) as usize);
        let begin = chunk * FAN;
        let past = if chunks - chunk < span { chunks } else { chunk + span } * FAN;
        let end = if shape.n < past { shape.n } else { past };
        if state.candidates > 0 {
            let chosen = distances.add((state.best as u64 * shape.n as u64) as usize);
            let by_chosen = lowered.add((state.best / LOWER_CANDIDATES) as u64 as usize * shape.n as usize);
            let mut row = begin + me;
            while row < end {
                let place = nearest.add(row as usize);
                let mut near = f64::INFINITY;
                if state.chosen == 0 {
                    *place = near;
                } else if *by_chosen.add(row as usize) >> (state.best % LOWER_CANDIDATES) & 1 == 0 {
                    near = *place;
                } else {
                    near = *chosen.add(row as usize);
                    *place = near;
                }
                near_of.set(row - begin, near);
                row += LOWER_THREADS;
            }
            let mut tile = 0;
            while tile < state.candidates {
                let count = (state.candidates - tile).min(LOWER_CANDIDATES);
                let of_tile = candidates.add(tile as usize);
                if me == 0 {
                    SHARED.listed.here().set(0, 0);
                }
                compare(points, weights, of_tile, count, begin, end);
                sync_threads();
                measure(points, weights, of_tile, begin);
                sync_threads();
                let mut row = begin + me;
                while row < past {
                    let mut lower = 0;
                    let mut candidate = 0;
                    while candidate < count {
                        let slot = slot(candidate, row - begin);
                        if row < end {
                            let with = measured.get(slot);
                            if with < near_of.get(row - begin) {
                                lower |= 1 << candidate;
                                let place = (tile + candidate) as u64 * shape.n as u64 + row as u64;
                                *distances.add(place as usize) = with;
                            }
                        } else {
                            measured.set(slot, 0.0);
                        }
                        candidate += 1;
                    }
                    if row < end {
                        let of_tile = (tile / LOWER_CANDIDATES) as u64 * shape.n as u64;
                        *lowered.add((of_tile + row as u64) as usize) = lower as u8;
                    }
                    row += LOWER_THREADS;
                }
                sync_threads();
                let (candidate, of_block) = (me / LOWER_CHUNKS, me % LOWER_CHUNKS);
                if candidate < count && begin + of_block * FAN < past {
                    *chunk_sums.add(
                        ((tile + candidate) as u64 * chunks as u64 + (chunk + of_block) as u64) as usize,
                    ) = add_to(0.0, measured.add(slot(candidate, of_block * FAN)));
                }
                sync_threads();
                tile += LOWER_CANDIDATES;
            }

            // The last of a group's blocks to end adds its chunks up.
            let group = div(chunk, FAN);
            let of_group = (chunks - group * FAN).min(FAN);
            let counter = counters.add((batch * groups as u64 + group as u64) as usize);
            let ended = SHARED.ended.here();
            if me == 0 {
                device_fence();
                ended.set(0, atomic::fetch_add_u32(counter, 1) + 1);
            }
            sync_threads();
            if ended.get(0) == params.spans(of_group) {
                device_fence();
                let mut tile = 0;
                while tile < state.candidates {
                    let count = (state.candidates - tile).min(LOWER_CANDIDATES);
                    if me < FAN {
                        // All loads are under way before the first is waited for.
                        let mut sums = [0.0; CANDIDATES];
                        unroll!(C in [0, 1, 2, 3, 4, 5, 6, 7] => {
                            if (C as u32) < count && me < of_group {
                                let place = (tile + C as u32) as u64 * chunks as u64 + (group * FAN + me) as u64;
                                sums[C] = chunk_sums.add(place as usize).read_volatile();
                            }
                        });
                        unroll!(C in [0, 1, 2, 3, 4, 5, 6, 7] => { measured.set(slot(C as u32, me), sums[C]); });
                    }
                    sync_threads();
                    if me < count {
                        *group_sums.add(((tile + me) as u64 * groups as u64 + group as u64) as usize) =
                            add_to(0.0, measured.add(slot(me, 0)));
                    }
                    sync_threads();
                    tile += LOWER_CANDIDATES;
                }
                if me == 0 {
                    // For the next launch.
                    *counter = 0;
                }
            }
            sync_threads();
        }
        item += grid_dim_x() as u64;
    }
}

/// Where in shared memory the distance of a row of the block to a candidate is.
#[inline(always)]
pub(super) fn slot(candidate: u32, row: u32) -> u32 {
    (candidate * LOWER_CHUNKS + row / FAN) * LOWER_CHUNK_PITCH + row % FAN
}

#[inline(always)]
fn term<T: Scalar>((x, c): (T, T)) -> f64 {
    let difference = x.to_f32() as f64 - c.to_f32() as f64;
    difference * difference
}

/// Adds [`FAN`] values to `sum`, one after the other.
#[inline(always)]
pub(super) unsafe fn add_to(mut sum: f64, values: Shared<f64>) -> f64 {
    let mut at = 0;
    while at < FAN {
        // Loads ahead of the additions, which wait for each other.
        let mut ahead = [0.0; 8];
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => { ahead[I] = values.get(at + I as u32); });
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => { sum += ahead[I]; });
        at += 8;
    }
    sum
}

/// What a lane of a half-warp has of a squared distance over features `from..to`: those of every 16th feature, added up in their order.
#[inline(always)]
pub(super) unsafe fn lane_sum<T: Scalar>(x: *const T, c: *const T, from: u32, to: u32) -> f64 {
    let mut sum = 0.0;
    let mut feature = from + thread_idx_x() % LANES;
    while feature + 7 * LANES < to {
        // All loads are under way before the first is waited for.
        let mut terms = [(*x, *c); 8];
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
            let at = (feature + I as u32 * LANES) as usize;
            terms[I] = (*x.add(at), *c.add(at));
        });
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => { sum += term(terms[I]); });
        feature += 8 * LANES;
    }
    while feature < to {
        sum += term((*x.add(feature as usize), *c.add(feature as usize)));
        feature += LANES;
    }
    sum
}

/// Compares distances of rows `begin..end`, at most [`LOWER_CHUNKS`] chunks, to `count` candidates with the nearest so far, in f32: what
/// is not lower has the nearest in its place, and the others are listed. Some of what they are compared with is written by other
/// threads: the block is together after the first thing that is done.
#[inline(always)]
unsafe fn compare<T: Scalar>(
    points: Points<T>,
    weights: *const f64,
    candidates: *const u32,
    count: u32,
    begin: u32,
    end: u32,
) {
    let (team, lane) = (thread_idx_x() / ROW_LANES, thread_idx_x() % ROW_LANES);
    let (measured, staged) = (SHARED.distances.here(), SHARED.candidates.here());
    let per_vector = T::PER_VECTOR as u32;
    // Of 2⁻²⁴, twice: terms of a lane, at most an eighth of a row and a vector of it, and what is constant.
    let keeps = 1.0 - (points.pitch as f64 / ROW_LANES as f64 + 16.0) / (1u32 << 23) as f64;
    let mut first = begin;
    while first < end {
        let mut x = [points.values; ROWS];
        unroll!(R in [0, 1, 2, 3] => {
            // Rows past the end are the last one again, and are not kept.
            let row = first + team * ROWS as u32 + R as u32;
            x[R] = points.row(if row < end { row } else { end - 1 });
        });
        let mut sums = [[0.0f32; CANDIDATES]; ROWS];
        let mut stage = 0;
        while stage < points.pitch {
            let features = (points.pitch - stage).min(LOWER_FEATURES);
            // Candidates of few features stay from one time to the next.
            if first == begin || points.pitch > LOWER_FEATURES {
                sync_threads();
                stage_candidates(points, candidates, count, stage, features);
                sync_threads();
            }
            let mut at = lane * per_vector;
            if at < features {
                let mut values = vectors_of(x, stage + at);
                while at < features {
                    // The next are under way while these are worked on.
                    let next = at + ROW_LANES * per_vector;
                    let mut ahead = values;
                    if next < features {
                        ahead = vectors_of(x, stage + next);
                    }
                    add_squares::<T>(&mut sums, values, staged.add(at));
                    values = ahead;
                    at = next;
                }
            }
            stage += LOWER_FEATURES;
        }
        let sums = over_lanes(sums);
        let row = first - begin + team * ROWS as u32 + lane / 2;
        if row < end - begin {
            let near = SHARED.nearest.here().get(row);
            let mut weight = 1.0;
            if !weights.is_null() {
                weight = *weights.add((begin + row) as usize);
            }
            let mut unclear = 0u32;
            unroll!(I in [0, 1, 2, 3] => {
                let (candidate, sum) = (lane % 2 * 4 + I as u32, sums[I]);
                let least = weight * (sum as f64 * keeps);
                let is_clear = near == 0.0 || (LEAST_CLEAR..f32::INFINITY).contains(&sum) && least >= near;
                if candidate < count {
                    if is_clear {
                        measured.set(slot(candidate, row), near);
                    } else {
                        unclear |= 1 << I;
                    }
                }
            });
            if unclear != 0 {
                let mut place = SHARED.listed.here().fetch_add(0, unclear.count_ones());
                unroll!(I in [0, 1, 2, 3] => {
                    if unclear >> I & 1 != 0 {
                        SHARED.list.here().set(place, (lane % 2 * 4 + I as u32) << 16 | row);
                        place += 1;
                    }
                });
            }
        }
        first += BLOCK_ROWS;
    }
}

/// Features `stage..stage + features` of `count` candidates, at least one, into shared memory, a thread a feature; for those
/// that are missing the last one again, whose distances are not kept.
#[inline(always)]
unsafe fn stage_candidates<T: Scalar>(
    points: Points<T>,
    candidates: *const u32,
    count: u32,
    stage: u32,
    features: u32,
) {
    const { assert!(LOWER_FEATURES <= LOWER_THREADS) };
    let feature = thread_idx_x();
    if feature < features {
        // All loads are under way before the first is waited for.
        let mut values = [0.0; CANDIDATES];
        unroll!(C in [0, 1, 2, 3, 4, 5, 6, 7] => {
            let candidate = if (C as u32) < count { C } else { count as usize - 1 };
            let x = points.row(*candidates.add(candidate));
            values[C] = (*x.add((stage + feature) as usize)).to_f32();
        });
        unroll!(C in [0, 1, 2, 3, 4, 5, 6, 7] => {
            SHARED.candidates.here().set(C as u32 * LOWER_FEATURES + feature, values[C]);
        });
    }
}

#[inline(always)]
unsafe fn vectors_of<T: Scalar>(x: [*const T; ROWS], feature: u32) -> [[u32; 4]; ROWS] {
    let at = feature as usize;
    x.map(|x| ptr::load_v4(x.add(at).cast()))
}

/// Adds the squared differences of a vector of some rows; `staged` has the candidates' values of it.
#[inline(always)]
unsafe fn add_squares<T: Scalar>(
    sums: &mut [[f32; CANDIDATES]; ROWS],
    values: [[u32; 4]; ROWS],
    staged: Shared<f32>,
) {
    unroll!(J in [0, 1] => {
        if 4 * J < T::PER_VECTOR {
            let mut x = [[0.0; 4]; ROWS];
            unroll!(R in [0, 1, 2, 3] => {
                unroll!(I in [0, 1, 2, 3] => { x[R][I] = T::of_vector(values[R], 4 * J + I); });
            });
            unroll!(C in [0, 1, 2, 3, 4, 5, 6, 7] => {
                let c = staged.get4(C as u32 * LOWER_FEATURES + 4 * J as u32);
                unroll!(R in [0, 1, 2, 3] => {
                    unroll!(I in [0, 1, 2, 3] => {
                        let difference = x[R][I] - c[I];
                        sums[R][C] = fma(difference, difference, sums[R][C]);
                    });
                });
            });
        }
    });
}

/// The sums over eight lanes: lane `l` has those of row `l / 2` and the four candidates from `l % 2 · 4` on.
#[inline(always)]
unsafe fn over_lanes(sums: [[f32; CANDIDATES]; ROWS]) -> [f32; 4] {
    let lane = lane_id();
    let mut two = [[0.0; CANDIDATES]; 2];
    unroll!(R in [0, 1] => {
        unroll!(C in [0, 1, 2, 3, 4, 5, 6, 7] => {
            two[R][C] = exchanged(sums[R][C], sums[R + 2][C], lane, 4);
        });
    });
    let mut one = [0.0; CANDIDATES];
    unroll!(C in [0, 1, 2, 3, 4, 5, 6, 7] => { one[C] = exchanged(two[0][C], two[1][C], lane, 2); });
    let mut four = [0.0; 4];
    unroll!(I in [0, 1, 2, 3] => { four[I] = exchanged(one[I], one[I + 4], lane, 1); });
    four
}

/// Of two values, the sum of this lane's and that of the lane that differs in bit `bit`: of `low` where the bit is not set here, else of
/// `high`.
#[inline(always)]
unsafe fn exchanged(low: f32, high: f32, lane: u32, bit: u32) -> f32 {
    let is_high = lane & bit != 0;
    let (mine, other) = if is_high { (high, low) } else { (low, high) };
    mine + warp_shuffle_xor(FULL_MASK, other, bit)
}

/// Measures what is listed of rows from `begin` on, in f64: what is lower takes its place, the nearest so far that of what is not.
#[inline(always)]
unsafe fn measure<T: Scalar>(points: Points<T>, weights: *const f64, candidates: *const u32, begin: u32) {
    const PITCH: u32 = LANES + 1;
    let (team, lane) = (thread_idx_x() / LANES, thread_idx_x() % LANES);
    let parts = SHARED.parts.here().add(team * LOWER_PAIRS * PITCH);
    let (list, count) = (SHARED.list.here(), SHARED.listed.here().get(0));
    let whole = points.d / LANES * LANES;
    let mut first = 0;
    while first < count {
        let mut distance = 0.0;
        let mut from = 0;
        while from < points.d {
            // What is left of the features is added up by itself.
            let to = if from < whole { whole } else { points.d };
            let (mut turn, mut entry) = (0, first + team);
            while turn < LOWER_PAIRS && entry < count {
                let pair = list.get(entry);
                let x = points.row(begin + (pair & 0xffff));
                let c = points.row(*candidates.add((pair >> 16) as usize));
                parts.set(turn * PITCH + lane, lane_sum(x, c, from, to));
                turn += 1;
                entry += LOWER_TEAMS;
            }
            sync_warp(FULL_MASK);
            let mut sum = 0.0;
            if lane < turn {
                unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] => {
                    sum += parts.get(lane * PITCH + I as u32);
                });
            }
            // Before it is written again.
            sync_warp(FULL_MASK);
            distance += sum;
            from = to;
        }
        let entry = first + team + lane * LOWER_TEAMS;
        if lane < LOWER_PAIRS && entry < count {
            let pair = list.get(entry);
            let (candidate, row) = (pair >> 16, pair & 0xffff);
            let mut weight = 1.0;
            if !weights.is_null() {
                weight = *weights.add((begin + row) as usize);
            }
            let (near, with) = (SHARED.nearest.here().get(row), weight * distance);
            SHARED.distances.here().set(slot(candidate, row), if with < near { with } else { near });
        }
        first += LOWER_TEAMS * LOWER_PAIRS;
    }
}
