//! The nearest of several candidates at once for first centroids, in f64 and with the additions of the CPU's, so that the same rows
//! are chosen.
//!
//! ```text
//! half-warp, lane l      terms of features l, l + 16, … of 4 rows × 8 candidates
//! 16 × 16 of them        written by lanes, read by distances: a lane adds up one distance's 16 sums in their order
//! block                  up to 4 chunks of 64 rows, whose distances one thread a chunk adds up in the order of the rows
//! ```
use super::distances::{Points, add_to, lane_sum, slot};
use crate::spec::*;
use cuda_std::float::Scalar;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const SHARED: LowerToShared = LowerToShared::new();
const LABELLED: LabelledShared = LabelledShared::new();
const LANES: u32 = DISTANCE_LANES;
const ROWS: usize = LOWER_ROWS as usize;
const CANDIDATES: usize = LOWER_CANDIDATES as usize;
/// Rows that a block measures at a time.
const BLOCK_ROWS: u32 = LOWER_TEAMS * LOWER_ROWS;
/// Rows of a block of most chunks.
const BLOCK_CHUNK_ROWS: u32 = LOWER_CHUNKS * FAN;

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

/// [`lower_to`] where the nearest of the candidates is known: `labels` has its place among them, null for the first of all.
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
            let mut label = 0;
            if !labels.is_null() {
                label = *labels.add(row as usize);
            }
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
        parts.set(turn * PITCH + lane, lane_sum(x, c, from, to));
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
