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

/// Whether sums of points of `T` are of their differences from the problem's first.
#[inline(always)]
pub(super) const fn sums_about_first<T>() -> bool {
    size_of::<T>() == 4
}

/// Rows that a group of lanes has in flight.
const IN_FLIGHT: u32 = 4;

/// Most values of a lane: a 16-byte vector of 16-bit ones.
const MAX_VALUES: usize = 8;

/// Partial sums of points, less their problem's first where [`sums_about_first`]: `[panel][cluster][feature]` of clusters
/// that begin in a stretch, and `[panel][stretch][feature]` of the one that began earlier. A lane loads a 16-byte vector.
/// `origin` is where the first points are, `n` rows from problem to problem; `points` itself, but for a part of a problem.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, `points` aligned to 16 bytes; a block has
/// [`UPDATE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn segment_sums<T: Scalar>(
    points: *const T,
    origin: *const T,
    labels: *const u32,
    sorted: *const u32,
    starts: *const u32,
    states: *const LoopState,
    sums: *mut f32,
    heads: *mut f32,
    params: SumsParams,
) {
    let masses = core::ptr::null();
    sums_by::<T, false>(points, origin, masses, labels, sorted, starts, states, sums, heads, params);
}

/// [`segment_sums`] of points times `masses`: rows of sums are a value longer, the sum of the masses. `origin` may be null,
/// for zeros.
///
/// # Safety
/// As [`segment_sums`]'s.
#[inline(always)]
pub(super) unsafe fn segment_sums_by_mass<T: Scalar>(
    points: *const T,
    origin: *const T,
    masses: *const f32,
    labels: *const u32,
    sorted: *const u32,
    starts: *const u32,
    states: *const LoopState,
    sums: *mut f32,
    heads: *mut f32,
    params: SumsParams,
) {
    sums_by::<T, true>(points, origin, masses, labels, sorted, starts, states, sums, heads, params);
}

#[inline(always)]
unsafe fn sums_by<T: Scalar, const MASSES: bool>(
    points: *const T,
    origin: *const T,
    masses: *const f32,
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

        let mut place = stretch * panels.stretch();
        if (*states.add(batch as usize)).done == 0 && place < len {
            let end = if len - place < panels.stretch() { len } else { place + panels.stretch() };
            let points = points.add((batch * shape.n as u64 * shape.pitch as u64) as usize);
            let origin = origin_of::<T, MASSES>(origin, batch, shape);
            let masses = if MASSES { masses.add((batch * shape.n as u64) as usize) } else { masses };
            let labels = labels.add((batch * shape.n as u64) as usize);
            let sorted = sorted.add((batch * shape.n as u64 + panel_first as u64) as usize);
            let starts = starts.add((group * (shape.k as u64 + 1)) as usize);
            while place < end {
                let cluster = *labels.add(*sorted.add(place as usize) as usize);
                let begin = *starts.add(cluster as usize);
                let next = *starts.add(cluster as usize + 1);
                let stop = if next < end { next } else { end };
                let target = if begin == place {
                    sums.add(((group * shape.k as u64 + cluster as u64) * pitch::<MASSES>(shape)) as usize)
                } else {
                    heads.add((stretch_of_all * pitch::<MASSES>(shape)) as usize)
                };
                sum_run::<T, MASSES>(points, origin, masses, sorted, place, stop, chunk, target, params);
                place = stop;
            }
        }
        item += grid_dim_x() as u64 * UPDATE_WARPS as u64;
    }
}

/// The first point of a problem; with masses there may be none.
#[inline(always)]
pub(super) unsafe fn origin_of<T, const MASSES: bool>(
    origin: *const T,
    batch: u64,
    shape: Shape,
) -> *const T {
    if MASSES && origin.is_null() {
        return origin;
    }
    origin.add((batch * shape.n as u64 * shape.pitch as u64) as usize)
}

/// Values from one row of partial sums to the next.
#[inline(always)]
pub(super) fn pitch<const MASSES: bool>(shape: Shape) -> u64 {
    sums_pitch(if MASSES { shape.d + 1 } else { shape.d }) as u64
}

/// Stores the sum of a row's masses, behind those of its features, and zeros up to the next row.
///
/// # Safety
/// The row is there, and no other thread writes behind its features.
#[inline(always)]
pub(super) unsafe fn store_mass(row: *mut f32, sum: f32, shape: Shape) {
    *row.add(shape.d as usize) = sum;
    let mut place = shape.d + 1;
    while (place as u64) < pitch::<true>(shape) {
        *row.add(place as usize) = 0.0;
        place += 1;
    }
}

/// Sums the rows at sorted places `place..stop` and writes this chunk of their features.
#[inline(always)]
unsafe fn sum_run<T: Scalar, const MASSES: bool>(
    points: *const T,
    origin: *const T,
    masses: *const f32,
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
    let feature = (chunk * WARP_SIZE + (lane_id() & (lanes - 1))) * T::PER_VECTOR as u32;
    let inside = feature < d;
    // About the problem's first row, so that an offset common to all points does not cost the sums their bits:
    // f32 points only, since 16-bit ones have few enough for a stretch of them to add up in f32.
    let has_origin = if MASSES { inside && !origin.is_null() } else { inside };
    let origin = if sums_about_first::<T>() && has_origin {
        ptr::load_v4(origin.add(feature as usize).cast())
    } else {
        [0; 4]
    };
    let mut sum = [0.0f32; MAX_VALUES];
    let mut sum_of_masses = 0.0f32;

    let mut at = place;
    while at < stop {
        // Rows past the end are the origin, which adds nothing.
        let mut vectors = [origin; IN_FLIGHT as usize];
        let mut mass = [0.0f32; IN_FLIGHT as usize];
        unroll!(I in [0, 1, 2, 3] => {
            let mine = at + I as u32 * rows_at_once + row_of_lane;
            if inside && mine < stop {
                let row = *sorted.add(mine as usize);
                vectors[I] = ptr::load_v4(points.add((row as u64 * params.shape.pitch as u64 + feature as u64) as usize).cast());
                if MASSES {
                    mass[I] = *masses.add(row as usize);
                }
            }
        });
        if MASSES {
            sum_of_masses += (mass[0] + mass[1]) + (mass[2] + mass[3]);
        }
        unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if J < T::PER_VECTOR {
                let [a, b, c, d] = vectors;
                sum[J] += if MASSES {
                    let o = if sums_about_first::<T>() { T::of_vector(origin, J) } else { 0.0 };
                    (mass[0] * (T::of_vector(a, J) - o) + mass[1] * (T::of_vector(b, J) - o))
                        + (mass[2] * (T::of_vector(c, J) - o) + mass[3] * (T::of_vector(d, J) - o))
                } else if sums_about_first::<T>() {
                    let o = T::of_vector(origin, J);
                    ((T::of_vector(a, J) - o) + (T::of_vector(b, J) - o))
                        + ((T::of_vector(c, J) - o) + (T::of_vector(d, J) - o))
                } else {
                    (T::of_vector(a, J) + T::of_vector(b, J)) + (T::of_vector(c, J) + T::of_vector(d, J))
                };
            }
        });
        at += IN_FLIGHT * rows_at_once;
    }

    // Groups of lanes hold sums of different rows; the first group ends with all of them.
    let mut offset = lanes;
    while offset < WARP_SIZE {
        unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if J < T::PER_VECTOR {
                sum[J] += warp_shuffle_xor(FULL_MASK, sum[J], offset);
            }
        });
        if MASSES {
            sum_of_masses += warp_shuffle_xor(FULL_MASK, sum_of_masses, offset);
        }
        offset <<= 1;
    }
    if inside && row_of_lane == 0 {
        // Behind features are zeros of the points' pitch, or the mass.
        let end = if MASSES { d as u64 } else { pitch::<MASSES>(params.shape) };
        unroll!(J in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if J < T::PER_VECTOR && ((feature + J as u32) as u64) < end {
                *target.add(feature as usize + J) = sum[J];
            }
        });
        if MASSES && feature == 0 {
            store_mass(target, sum_of_masses, params.shape);
        }
    }
}
