//! Distances of points to candidates for first centroids, in f64 and with the additions of the CPU's, so that the same rows
//! are chosen.
//!
//! ```text
//! half-warp, lane l      terms of features l, l + 16, … of 4 rows × 8 candidates
//! 16 × 16 of them        written by lanes, read by distances: a lane adds up one distance's 16 sums in their order
//! block                  up to 4 chunks of 64 rows, whose distances one thread a candidate adds up in the order of the rows
//! ```
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::float::Scalar;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const SHARED: LowerShared = LowerShared::new();
const LABELLED: LabelledShared = LabelledShared::new();
const LANES: u32 = DISTANCE_LANES;
const ROWS: usize = LOWER_ROWS as usize;
const CANDIDATES: usize = LOWER_CANDIDATES as usize;
/// Rows that a block measures at a time.
const BLOCK_ROWS: u32 = LOWER_TEAMS * LOWER_ROWS;
/// Rows of a block of most chunks.
const BLOCK_CHUNK_ROWS: u32 = LOWER_CHUNKS * FAN;

/// The points of one problem.
#[derive(Clone, Copy)]
struct Points<T> {
    values: *const T,
    pitch: u32,
    d: u32,
}

impl<T: Scalar> Points<T> {
    #[inline(always)]
    unsafe fn row(self, row: u32) -> *const T {
        self.values.add((row as u64 * self.pitch as u64) as usize)
    }
}

/// One step of greedy k-means++: takes the distances to the row that was chosen last into the nearest ones, measures those
/// to the candidates for the next, and sums what would be nearest with each of them over chunks and groups of rows.
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
    chunk_sums: *mut f64,
    group_sums: *mut f64,
    counters: *mut u32,
    params: LowerParams,
) {
    let shape = params.shape;
    let (chunks, groups, span) = (params.chunks(), params.groups(), params.span());
    let spans = params.spans(chunks) as u64;
    let measured = SHARED.distances.here();
    let me = thread_idx_x();
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let batch = div_u64(item, spans);
        let chunk = (item - batch * spans) as u32 * span;
        let state = *states.add(batch as usize);
        let first = batch * shape.n as u64;
        let values = points.add((first * shape.pitch as u64) as usize);
        let points = Points { values, pitch: shape.pitch, d: shape.d };
        let nearest = nearest.add(first as usize);
        let trials = batch * params.trials as u64;
        let distances = distances.add((trials * shape.n as u64) as usize);
        let candidates = candidates.add(trials as usize);
        let chunk_sums = chunk_sums.add((trials * chunks as u64) as usize);
        let group_sums = group_sums.add((trials * groups as u64) as usize);
        let begin = chunk * FAN;
        let past = if chunks - chunk < span { chunks } else { chunk + span } * FAN;
        let end = if shape.n < past { shape.n } else { past };
        if state.candidates > 0 {
            let chosen = distances.add((state.best as u64 * shape.n as u64) as usize);
            let mut row = begin + me;
            while row < end {
                let near = nearest.add(row as usize);
                *near =
                    if state.chosen == 0 { f64::INFINITY } else { lesser(*near, *chosen.add(row as usize)) };
                row += LOWER_THREADS;
            }
            let mut tile = 0;
            while tile < state.candidates {
                let count = (state.candidates - tile).min(LOWER_CANDIDATES);
                measure(points, candidates.add(tile as usize), count, begin, end);
                let mut row = begin + me;
                while row < past {
                    let (mut near, mut weight) = (0.0, 1.0);
                    if row < end {
                        near = *nearest.add(row as usize);
                        if !weights.is_null() {
                            weight = *weights.add(first as usize + row as usize);
                        }
                    }
                    let mut candidate = 0;
                    while candidate < count {
                        let slot = slot(candidate, row - begin);
                        let mut with = 0.0;
                        if row < end {
                            let distance = weight * measured.get(slot);
                            let place = (tile + candidate) as u64 * shape.n as u64 + row as u64;
                            *distances.add(place as usize) = distance;
                            with = lesser(near, distance);
                        }
                        measured.set(slot, with);
                        candidate += 1;
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
fn slot(candidate: u32, row: u32) -> u32 {
    (candidate * LOWER_CHUNKS + row / FAN) * LOWER_CHUNK_PITCH + row % FAN
}

/// Lowers the distances of a problem's points to those to the nearest of `candidates`, and notes which that is, by its
/// number: of equally near ones the first, which one from an earlier launch is. What was there before candidate 0 does not
/// count. Distances are summed over chunks.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`LOWER_THREADS`] threads; candidates are under `n`.
#[inline(always)]
pub(super) unsafe fn lower_to<T: Scalar>(
    points: *const T,
    candidates: *const u32,
    nearest: *mut f64,
    owners: *mut u32,
    chunk_sums: *mut f64,
    params: LowerToParams,
) {
    let shape = params.shape;
    let points = Points { values: points, pitch: shape.pitch, d: shape.d };
    let measured = SHARED.distances.here();
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let (begin, end) = rows_of(item, shape);
        let mut tile = 0;
        while tile < params.candidates {
            let count = (params.candidates - tile).min(LOWER_CANDIDATES);
            measure(points, candidates.add(tile as usize), count, begin, end);
            let mut row = begin + thread_idx_x();
            while row < end {
                let is_first = params.first + tile == 0;
                let mut near = if is_first { f64::INFINITY } else { *nearest.add(row as usize) };
                let mut owner = if is_first { 0 } else { NO_CANDIDATE };
                let mut candidate = 0;
                while candidate < count {
                    let distance = measured.get(slot(candidate, row - begin));
                    if distance < near {
                        near = distance;
                        owner = params.first + tile + candidate;
                    }
                    candidate += 1;
                }
                if owner != NO_CANDIDATE {
                    *nearest.add(row as usize) = near;
                    *owners.add(row as usize) = owner;
                }
                row += LOWER_THREADS;
            }
            sync_threads();
            tile += LOWER_CANDIDATES;
        }
        let mut row = begin + thread_idx_x();
        while row < begin + BLOCK_CHUNK_ROWS {
            // This thread wrote it.
            measured.set(slot(0, row - begin), if row < end { *nearest.add(row as usize) } else { 0.0 });
            row += LOWER_THREADS;
        }
        add_chunks(measured, chunk_sums, begin, end);
        item += grid_dim_x() as u64;
    }
}

/// [`lower_to`] where the nearest of the candidates is known: `labels` has its place among them.
///
/// ```text
/// half-warp, lane l      terms of features l, l + 16, … of 16 rows, one after the other
/// 16 × 16 of them        written by lanes, read by rows: lane l adds up row l's 16 sums in their order
/// ```
///
/// # Safety
/// As [`lower_to`]'s; labels are under the number of candidates.
#[inline(always)]
pub(super) unsafe fn lower_to_labels<T: Scalar>(
    points: *const T,
    candidates: *const u32,
    labels: *const u32,
    nearest: *mut f64,
    owners: *mut u32,
    chunk_sums: *mut f64,
    params: LowerToParams,
) {
    let shape = params.shape;
    let points = Points { values: points, pitch: shape.pitch, d: shape.d };
    let measured = LABELLED.distances.here();
    let (team, lane) = (thread_idx_x() / LANES, thread_idx_x() % LANES);
    let whole = shape.d / LANES * LANES;
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let (begin, end) = rows_of(item, shape);
        let mut first = begin + team * LANES;
        while first < begin + BLOCK_CHUNK_ROWS {
            // Rows past the end are the last one again, and are not kept.
            let row = if first + lane < end { first + lane } else { end - 1 };
            let label = *labels.add(row as usize);
            let candidate = *candidates.add(label as usize);
            let mut distance = sums_of_rows(points, [row, candidate], 0, whole);
            if shape.d > whole {
                // What is left of the features is added up by itself.
                distance += sums_of_rows(points, [row, candidate], whole, shape.d);
            }
            let mut with = 0.0;
            if first + lane < end {
                with = if params.first == 0 { f64::INFINITY } else { *nearest.add(row as usize) };
                if distance < with {
                    with = distance;
                    *nearest.add(row as usize) = distance;
                    *owners.add(row as usize) = params.first + label;
                } else if params.first == 0 {
                    *nearest.add(row as usize) = with;
                    *owners.add(row as usize) = 0;
                }
            }
            measured.set(slot(0, first - begin + lane), with);
            first += LOWER_TEAMS * LANES;
        }
        add_chunks(measured, chunk_sums, begin, end);
        item += grid_dim_x() as u64;
    }
}

/// The rows of a block of `lower_to` or `lower_to_labels`.
#[inline(always)]
fn rows_of(item: u64, shape: Shape) -> (u32, u32) {
    let begin = item as u32 * BLOCK_CHUNK_ROWS;
    (begin, if shape.n - begin < BLOCK_CHUNK_ROWS { shape.n } else { begin + BLOCK_CHUNK_ROWS })
}

/// Sums of the distances of rows `begin..end` over chunks: the block is together before and afterwards.
#[inline(always)]
unsafe fn add_chunks(measured: Shared<f64>, chunk_sums: *mut f64, begin: u32, end: u32) {
    sync_threads();
    let chunk = thread_idx_x();
    if chunk < LOWER_CHUNKS && begin + chunk * FAN < end {
        *chunk_sums.add((begin / FAN + chunk) as usize) = add_to(0.0, measured.add(slot(0, chunk * FAN)));
    }
    sync_threads();
}

/// Squared distances over features `from..to` of the 16 pairs of rows that the lanes of a half-warp have, each in the lane
/// that has the pair.
#[inline(always)]
unsafe fn sums_of_rows<T: Scalar>(points: Points<T>, pair: [u32; 2], from: u32, to: u32) -> f64 {
    const PITCH: u32 = LANES + 1;
    let (team, lane) = (thread_idx_x() / LANES, thread_idx_x() % LANES);
    let parts = LABELLED.parts.here().add(team * LANES * PITCH);
    let mut turn = 0;
    while turn < LANES {
        // The same lane of the own half-warp.
        let of = lane_id() / LANES * LANES + turn;
        let x = points.row(warp_shuffle_idx(FULL_MASK, pair[0], of));
        let c = points.row(warp_shuffle_idx(FULL_MASK, pair[1], of));
        let mut sum = 0.0;
        let mut feature = from + lane;
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
        parts.set(turn * PITCH + lane, sum);
        turn += 1;
    }
    sync_warp(FULL_MASK);
    let mut sum = 0.0;
    unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] => {
        sum += parts.get(lane * PITCH + I as u32);
    });
    // Before it is written again.
    sync_warp(FULL_MASK);
    sum
}

#[inline(always)]
fn term<T: Scalar>((x, c): (T, T)) -> f64 {
    let difference = x.to_f32() as f64 - c.to_f32() as f64;
    difference * difference
}

#[inline(always)]
fn lesser(a: f64, b: f64) -> f64 {
    if b < a { b } else { a }
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

/// Squared distances of rows `begin..end`, at most [`LOWER_CHUNKS`] chunks, to `count` candidates, into shared memory: the block is together
/// afterwards.
#[inline(always)]
unsafe fn measure<T: Scalar>(points: Points<T>, candidates: *const u32, count: u32, begin: u32, end: u32) {
    let (team, lane) = (thread_idx_x() / LANES, thread_idx_x() % LANES);
    let staged = SHARED.candidates.here();
    let whole = points.d / LANES * LANES;
    let mut first = begin;
    while first < end {
        let mut x = [points.values; ROWS];
        unroll!(R in [0, 1, 2, 3] => {
            // Rows past the end are the last one again, and are not kept.
            let row = first + team * LOWER_ROWS + R as u32;
            x[R] = points.row(if row < end { row } else { end - 1 });
        });
        let mut sums = [[0.0; CANDIDATES]; ROWS];
        let mut stage = 0;
        while stage < points.d {
            let features = (points.d - stage).min(LOWER_FEATURES);
            // Candidates of few features stay from one time to the next.
            if first == begin || points.d > LOWER_FEATURES {
                sync_threads();
                stage_candidates(points, candidates, count, stage, features);
                sync_threads();
            }
            let end = if whole < stage + LOWER_FEATURES { whole } else { stage + LOWER_FEATURES };
            let mut feature = stage + lane;
            if feature < end {
                let mut values = values_of(x, feature);
                while feature < end {
                    // The next are under way while these are worked on.
                    let next = feature + LANES;
                    let ahead = values_of(x, if next < end { next } else { feature });
                    add_terms(&mut sums, values, staged.add(feature - stage));
                    values = ahead;
                    feature = next;
                }
            }
            stage += LOWER_FEATURES;
        }
        let mut distances = added_up(&sums, LANES);
        if points.d > whole {
            // What is left of the features is added up by itself; its candidates are in the last stage.
            let stage = (points.d - 1) / LOWER_FEATURES * LOWER_FEATURES;
            let mut rest = [[0.0; CANDIDATES]; ROWS];
            if whole + lane < points.d {
                add_terms(&mut rest, values_of(x, whole + lane), staged.add(whole + lane - stage));
            }
            let rest = added_up(&rest, points.d - whole);
            unroll!(P in [0, 1] => { distances[P] += rest[P]; });
        }
        unroll!(P in [0, 1] => {
            let (row, candidate) = pair_of(P, lane);
            let row = first - begin + team * LOWER_ROWS + row;
            if row < end - begin {
                SHARED.distances.here().set(slot(candidate, row), distances[P]);
            }
        });
        first += BLOCK_ROWS;
    }
    sync_threads();
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
            values[C] = (*x.add((stage + feature) as usize)).to_f32() as f64;
        });
        unroll!(C in [0, 1, 2, 3, 4, 5, 6, 7] => {
            SHARED.candidates.here().set(C as u32 * LOWER_FEATURES + feature, values[C]);
        });
    }
}

#[inline(always)]
unsafe fn values_of<T: Scalar>(x: [*const T; ROWS], feature: u32) -> [T; ROWS] {
    let at = feature as usize;
    [*x[0].add(at), *x[1].add(at), *x[2].add(at), *x[3].add(at)]
}

/// Adds the terms of one feature of some rows; `staged` has the candidates' values of it.
#[inline(always)]
unsafe fn add_terms<T: Scalar>(sums: &mut [[f64; CANDIDATES]; ROWS], values: [T; ROWS], staged: Shared<f64>) {
    let values = values.map(|value| value.to_f32() as f64);
    unroll!(C in [0, 1, 2, 3, 4, 5, 6, 7] => {
        let c = staged.get(C as u32 * LOWER_FEATURES);
        unroll!(R in [0, 1, 2, 3] => {
            let difference = values[R] - c;
            sums[R][C] += difference * difference;
        });
    });
}

/// The row and the candidate of the distance that lane `lane` of a half-warp has in turn `turn`.
#[inline(always)]
fn pair_of(turn: usize, lane: u32) -> (u32, u32) {
    (2 * turn as u32 + lane / LOWER_CANDIDATES, lane % LOWER_CANDIDATES)
}

/// The sums over the first `lanes` lanes of a half-warp, in their order: those of [`pair_of`].
#[inline(always)]
unsafe fn added_up(sums: &[[f64; CANDIDATES]; ROWS], lanes: u32) -> [f64; 2] {
    const PITCH: u32 = LANES + 1;
    let (team, lane) = (thread_idx_x() / LANES, thread_idx_x() % LANES);
    let parts = SHARED.parts.here().add(team * LANES * PITCH);
    let mut all = [0.0; 2];
    unroll!(P in [0, 1] => {
        sync_warp(FULL_MASK);
        unroll!(C in [0, 1, 2, 3, 4, 5, 6, 7] => {
            parts.set(C as u32 * PITCH + lane, sums[2 * P][C]);
            parts.set((LOWER_CANDIDATES + C as u32) * PITCH + lane, sums[2 * P + 1][C]);
        });
        sync_warp(FULL_MASK);
        let mut part = 0;
        while part < lanes {
            all[P] += parts.get(lane * PITCH + part);
            part += 1;
        }
    });
    all
}
