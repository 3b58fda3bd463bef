//! The inverse of the sort-inverse update: each cluster's points, gathered in sorted order, summed on chip.
//!
//! ```text
//! sorted order of a panel  |--- a ---|-- b --|------- c -------|- d -|
//! stretches, a warp each   |     0     |     1     |     2     |
//!   written by             0: sums[a], sums[b]     a stretch writes the clusters that begin in it
//!                          1: heads[1] (rest of b), sums[c]
//!                          2: heads[2] (rest of c), sums[d]
//! ```
//! A stretch has at most one cluster that began before it, so one row of `heads` a stretch holds all that
//! does not fit in `sums`, and `finalise` adds a cluster's heads in order. No atomics, each row of points
//! read once, nothing zeroed beforehand. Bound by the reading of `n·d` values.
use crate::spec::*;
use cuda_std::float::Scalar;
use cuda_std::ptr;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

/// Rows that a group of lanes has in flight.
const IN_FLIGHT: u32 = 4;

/// Most values of a lane: a 16-byte vector of 16-bit ones.
const MAX_VALUES: usize = 8;

/// Partial sums `[panel][cluster][feature]`, of clusters that begin in a stretch, and `[panel][stretch][feature]`,
/// of the one that began earlier. A lane loads a 16-byte vector.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`UPDATE_THREADS`] threads; a row is a
/// multiple of 16 bytes and `points` is aligned to that.
#[inline(always)]
pub(super) unsafe fn of_vectors<T: Scalar>(
    points: *const T,
    labels: *const u32,
    sorted: *const u32,
    starts: *const u32,
    states: *const LoopState,
    sums: *mut f32,
    heads: *mut f32,
    params: SumsParams,
) {
    segment_sums::<T, true>(points, labels, sorted, starts, states, sums, heads, params)
}

/// [`of_vectors`] for rows of any length: a lane loads one value.
///
/// # Safety
/// As [`of_vectors`], without its demands on rows.
#[inline(always)]
pub(super) unsafe fn of_values<T: Scalar>(
    points: *const T,
    labels: *const u32,
    sorted: *const u32,
    starts: *const u32,
    states: *const LoopState,
    sums: *mut f32,
    heads: *mut f32,
    params: SumsParams,
) {
    segment_sums::<T, false>(points, labels, sorted, starts, states, sums, heads, params)
}

/// Values of a lane.
#[inline(always)]
const fn values<T: Scalar, const VECTORS: bool>() -> usize {
    if VECTORS { T::PER_VECTOR } else { 1 }
}

#[inline(always)]
unsafe fn segment_sums<T: Scalar, const VECTORS: bool>(
    points: *const T,
    labels: *const u32,
    sorted: *const u32,
    starts: *const u32,
    states: *const LoopState,
    sums: *mut f32,
    heads: *mut f32,
    params: SumsParams,
) {
    let shape = params.shape;
    let panels = params.panels;
    let stretches = panels.stretches() as u64;
    let groups = shape.batch as u64 * panels.count as u64;
    let items = groups * stretches * params.chunks as u64;
    let mut item = block_idx_x() as u64 * UPDATE_WARPS as u64 + warp_id() as u64;
    while item < items {
        let stretch_of_all = div_u64(item, params.chunks as u64);
        let chunk = (item - stretch_of_all * params.chunks as u64) as u32;
        let group = div_u64(stretch_of_all, stretches);
        let stretch = (stretch_of_all - group * stretches) as u32;
        let batch = div_u64(group, panels.count as u64);
        let panel_first = (group - batch * panels.count as u64) as u32 * panels.len;
        let rest = shape.n - panel_first;
        let len = if rest < panels.len { rest } else { panels.len };

        let mut place = stretch * STRETCH;
        if (*states.add(batch as usize)).done == 0 && place < len {
            let end = if len - place < STRETCH { len } else { place + STRETCH };
            let points = points.add((batch * shape.n as u64 * shape.d as u64) as usize);
            let labels = labels.add((batch * shape.n as u64) as usize);
            let sorted = sorted.add((batch * shape.n as u64 + panel_first as u64) as usize);
            let starts = starts.add((group * (shape.k as u64 + 1)) as usize);
            while place < end {
                let cluster = *labels.add(*sorted.add(place as usize) as usize);
                let begin = *starts.add(cluster as usize);
                let next = *starts.add(cluster as usize + 1);
                let stop = if next < end { next } else { end };
                let target = if begin == place {
                    sums.add(((group * shape.k as u64 + cluster as u64) * shape.d as u64) as usize)
                } else {
                    heads.add((stretch_of_all * shape.d as u64) as usize)
                };
                sum_run::<T, VECTORS>(points, sorted, place, stop, chunk, target, params);
                place = stop;
            }
        }
        item += grid_dim_x() as u64 * UPDATE_WARPS as u64;
    }
}

/// Sums the rows at sorted places `place..stop` and writes this chunk of their features.
#[inline(always)]
unsafe fn sum_run<T: Scalar, const VECTORS: bool>(
    points: *const T,
    sorted: *const u32,
    place: u32,
    stop: u32,
    chunk: u32,
    target: *mut f32,
    params: SumsParams,
) {
    let d = params.shape.d;
    let lanes = params.lanes_per_row;
    let rows_at_once = div(WARP_SIZE, lanes);
    let row_of_lane = div(lane_id(), lanes);
    let feature = (chunk * WARP_SIZE + (lane_id() & (lanes - 1))) * values::<T, VECTORS>() as u32;
    let inside = feature < d;
    let mut sum = [0.0f32; MAX_VALUES];

    let mut at = place;
    while at < stop {
        let mut vectors = [[0; 4]; IN_FLIGHT as usize];
        unroll!(I in [0, 1, 2, 3] => {
            let mine = at + I as u32 * rows_at_once + row_of_lane;
            if inside && mine < stop {
                let row = *sorted.add(mine as usize);
                vectors[I] = load::<T, VECTORS>(points.add((row as u64 * d as u64 + feature as u64) as usize));
            }
        });
        unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if J < values::<T, VECTORS>() {
                let [a, b, c, d] = vectors;
                sum[J] += (value::<T, VECTORS>(a, J) + value::<T, VECTORS>(b, J)) + (value::<T, VECTORS>(c, J) + value::<T, VECTORS>(d, J));
            }
        });
        at += IN_FLIGHT * rows_at_once;
    }

    // Groups of lanes hold sums of different rows; the first group ends with all of them.
    let mut offset = lanes;
    while offset < WARP_SIZE {
        unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if J < values::<T, VECTORS>() {
                sum[J] += warp_shuffle_xor(FULL_MASK, sum[J], offset);
            }
        });
        offset <<= 1;
    }
    if inside && row_of_lane == 0 {
        unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if J < values::<T, VECTORS>() {
                *target.add(feature as usize + J) = sum[J];
            }
        });
    }
}

/// A lane's values as they lie in memory; a single one as f32 bits.
#[inline(always)]
unsafe fn load<T: Scalar, const VECTORS: bool>(x: *const T) -> [u32; 4] {
    if VECTORS { ptr::load_v4(x.cast()) } else { [(*x).to_f32().to_bits(), 0, 0, 0] }
}

#[inline(always)]
fn value<T: Scalar, const VECTORS: bool>(vector: [u32; 4], index: usize) -> f32 {
    if VECTORS { T::of_vector(vector, index) } else { f32::from_bits(vector[0]) }
}
