//! f32 points as Hopper's tensor cores take them: about a centre, scaled by a power of two, rounded to f16, with the
//! norm of what the rounding took away, which bounds the error of every score.
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::float::{F16, Scalar, max, sqrt};
use cuda_std::thread::*;
use cuda_std::warp::*;

/// Raises each problem's entry of `extents` to the bits of its largest `|x − centre|`.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`REDUCE_THREADS`] threads; `extents` are zeros.
#[inline(always)]
pub(super) unsafe fn extents(
    points: *const f32,
    centre: *const f32,
    extents: *mut u32,
    params: MomentsParams,
) {
    let shape = params.shape;
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let batch = div_u64(item, params.tiles as u64);
        let begin = (item - batch * params.tiles as u64) as u32 * params.rows;
        let end = if shape.n - begin < params.rows { shape.n } else { begin + params.rows };
        let centre = centre.add((batch * shape.d as u64) as usize);
        let mut extent = 0.0f32;
        let mut row = begin + warp_id();
        while row < end {
            let x = points.add(((batch * shape.n as u64 + row as u64) * shape.pitch as u64) as usize);
            let mut feature = lane_id() as usize;
            while feature < shape.d as usize {
                let about = *x.add(feature) - *centre.add(feature);
                extent = max(extent, if about < 0.0 { -about } else { about });
                feature += WARP_SIZE as usize;
            }
            row += REDUCE_THREADS / WARP_SIZE;
        }
        let extent = largest_of_warp(extent);
        if lane_id() == 0 {
            // Not negative, so their bits are in their order.
            atomic::fetch_max_u32(extents.add(batch as usize), extent.to_bits());
        }
        item += grid_dim_x() as u64;
    }
}

/// The largest of the lanes' values, in every lane.
#[inline(always)]
unsafe fn largest_of_warp(mut value: f32) -> f32 {
    let mut offset = 16;
    while offset > 0 {
        value = max(value, warp_shuffle_xor(FULL_MASK, value, offset));
        offset >>= 1;
    }
    value
}

/// The power of two that brings values up to `extent`, as bits of an f32, under 2¹⁵: inside f16 with room for a
/// centroid that is a little further out.
#[inline(always)]
pub(super) fn tensor_scale(extent: u32) -> f64 {
    let exponent = 14 - ((extent >> 23) as i32 - 127);
    let exponent = if exponent > 100 { 100 } else { exponent };
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// `√sum`, not under the true value: where the sum is lost to underflow, more than all it could have been.
#[inline(always)]
pub(super) fn norm_above(sum: f64) -> f32 {
    sqrt(sum as f32 + 1e-36) * (1.0 + 1e-6)
}

/// Packed points, their squared norms before the rounding, and the norms of its residuals; a warp a row.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`UPDATE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn pack_points(
    points: *const f32,
    centre: *const f32,
    extents: *const u32,
    packed: *mut u16,
    norms: *mut f32,
    residuals: *mut f32,
    params: PackPointsParams,
) {
    let shape = params.shape;
    let rows = shape.batch as u64 * shape.n as u64;
    let mut row = block_idx_x() as u64 * UPDATE_WARPS as u64 + warp_id() as u64;
    while row < rows {
        let batch = div_u64(row, shape.n as u64);
        let scale = tensor_scale(*extents.add(batch as usize));
        let x = points.add((row * shape.pitch as u64) as usize);
        let centre = centre.add((batch * shape.d as u64) as usize);
        let target = packed.add((row * params.packed_pitch as u64) as usize);
        let exact = |feature: usize| (*x.add(feature) as f64 - *centre.add(feature) as f64) * scale;
        pack_row(exact, target, norms.add(row as usize), residuals.add(row as usize), params);
        row += grid_dim_x() as u64 * UPDATE_WARPS as u64;
    }
}

/// One row, of which `exact` gives the scaled value of a feature.
#[inline(always)]
unsafe fn pack_row(
    exact: impl Fn(usize) -> f64,
    target: *mut u16,
    norm_to: *mut f32,
    residual_to: *mut f32,
    params: PackPointsParams,
) {
    let (mut norm, mut residual) = (0.0, 0.0);
    let mut feature = lane_id();
    while feature < params.packed_pitch {
        let mut bits = 0;
        if feature < params.shape.d {
            let exact = exact(feature as usize);
            let rounded = F16::from_f32(exact as f32);
            let lost = exact - rounded.to_f32() as f64;
            norm += exact * exact;
            residual += lost * lost;
            bits = rounded.0;
        }
        *target.add(feature as usize) = bits;
        feature += WARP_SIZE;
    }
    let (norm, residual) = (warp_sum_f64(norm), warp_sum_f64(residual));
    if lane_id() == 0 {
        *norm_to = norm as f32;
        *residual_to = norm_above(residual);
    }
}

/// Unsure points in parts of 16 bits, for the second assignment: `[lower | upper | upper]`, each of whole panels, to meet
/// centroids' `[upper | lower | upper]`. With their norms, those of what both parts leave, and which points they are; a warp a
/// point. What there is no room for goes on the list of those that `settle` compares with every centroid.
///
/// What nothing multiplies, lower with lower part, is part of the centroids' residuals, if a point's lower part is no more than
/// 2⁻¹¹ of it: as it is unless most of it is too small for f16. A point of which it is not has an infinite residual.
///
/// For products, each row is taken about nothing and by a power of two of its own, as [`pack_rows`] does.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`UPDATE_THREADS`] threads; `list_counts` and `list_rows` are what
/// the first assignment leaves.
#[inline(always)]
pub(super) unsafe fn split_points<const PRODUCTS: bool>(
    points: *const f32,
    centre: *const f32,
    extents: *const u32,
    list_counts: *mut u32,
    list_rows: *const u32,
    packed: *mut u16,
    norms: *mut f32,
    residuals: *mut f32,
    rows: *mut u32,
    many_rows: *mut u32,
    params: RefineParams,
) {
    let shape = params.shape;
    let scale = if PRODUCTS { 1.0 } else { tensor_scale(*extents) };
    let keep = |entry: u32, row: u32| {
        let x = points.add((row as u64 * shape.pitch as u64) as usize);
        let part = params.part();
        let target = packed.add((entry as u64 * (REFINE_PARTS * part) as u64) as usize);
        let scale = if PRODUCTS { scale_of_row(x, shape.d) } else { scale };
        let (mut norm, mut below, mut residual) = (0.0, 0.0, 0.0);
        let mut feature = lane_id();
        while feature < part {
            let at = feature as usize;
            let exact = if feature >= shape.d {
                0.0
            } else if PRODUCTS {
                *x.add(at) as f64 * scale
            } else {
                (*x.add(at) as f64 - *centre.add(at) as f64) * scale
            };
            let parts = Parts::of(exact);
            norm += exact * exact;
            below += parts.below();
            residual += parts.lost * parts.lost;
            *target.add(at) = parts.lower.0;
            *target.add(at + part as usize) = parts.upper.0;
            *target.add(at + 2 * part as usize) = parts.upper.0;
            feature += WARP_SIZE;
        }
        let (norm, below, residual) = (warp_sum_f64(norm), warp_sum_f64(below), warp_sum_f64(residual));
        if lane_id() == 0 {
            let is_small = below <= norm * LOWER_SQUARED;
            *norms.add(entry as usize) = norm as f32;
            *residuals.add(entry as usize) = if is_small { norm_above(residual) } else { f32::INFINITY };
            *rows.add(entry as usize) = row;
        }
    };
    each_unsure::<WARP_SIZE>(list_counts, list_rows, many_rows, params, keep);
}

/// Which points of 16 bits are assigned again, a thread each: [`split_points`] for those that need no parts.
///
/// # Safety
/// As [`split_points`].
#[inline(always)]
pub(super) unsafe fn keep_unsure(
    list_counts: *mut u32,
    list_rows: *const u32,
    rows: *mut u32,
    many_rows: *mut u32,
    params: RefineParams,
) {
    let keep = |entry: u32, row: u32| *rows.add(entry as usize) = row;
    each_unsure::<1>(list_counts, list_rows, many_rows, params, keep);
}

/// Goes through the unsure points, `LANES` lanes a point, one or a warp: of those that are assigned again `keep` gets the number
/// and the row, and the others go on the list of those that are compared with every centroid.
#[inline(always)]
unsafe fn each_unsure<const LANES: u32>(
    list_counts: *mut u32,
    list_rows: *const u32,
    many_rows: *mut u32,
    params: RefineParams,
    keep: impl Fn(u32, u32),
) {
    let of_block = UPDATE_THREADS / LANES;
    let last = params.shape.n - 1;
    let unsure = *list_counts.add(LIST_MANY);
    let count = params.count(unsure);
    let mut entry = block_idx_x() * of_block + div(thread_idx_x(), LANES);
    while entry < unsure {
        let row = *list_rows.add((last - entry) as usize);
        if entry < count {
            keep(entry, row);
        } else if LANES == 1 || lane_id() == 0 {
            let place = atomic::fetch_add_u32(list_counts.add(LIST_LEFT), 1);
            *many_rows.add((last - place) as usize) = row;
        }
        entry += grid_dim_x() * of_block;
    }
}

/// A value in two parts of 16 bits.
pub(super) struct Parts {
    pub(super) upper: F16,
    pub(super) lower: F16,
    /// What both leave of it.
    pub(super) lost: f64,
}

impl Parts {
    #[inline(always)]
    pub(super) fn of(exact: f64) -> Self {
        let upper = F16::from_f32(exact as f32);
        let rest = exact - upper.to_f32() as f64;
        let lower = F16::from_f32(rest as f32);
        let lost = rest - lower.to_f32() as f64;
        // What is too large for f16 is lost whole: a difference of infinities would not say so.
        Parts { upper, lower, lost: if lost.is_nan() { f64::INFINITY } else { lost } }
    }

    /// The square of the lower part.
    #[inline(always)]
    pub(super) fn below(&self) -> f64 {
        let lower = self.lower.to_f32() as f64;
        lower * lower
    }
}

/// The square of what a point's lower part is of it at the most, where it is not settled.
pub(super) const LOWER_SQUARED: f64 = 1.0 / (1u64 << 22) as f64;

/// A power of two of a row's own; a warp together.
#[inline(always)]
unsafe fn scale_of_row(x: *const f32, d: u32) -> f64 {
    let mut extent = 0.0f32;
    let mut feature = lane_id();
    while feature < d {
        let value = *x.add(feature as usize);
        extent = max(extent, if value < 0.0 { -value } else { value });
        feature += WARP_SIZE;
    }
    tensor_scale(largest_of_warp(extent).to_bits())
}

/// [`pack_points`] for products, each row about nothing and by a power of two of its own: which centroid has the largest
/// product with it does not depend on that, and no row is too short beside the others to be told.
///
/// # Safety
/// As [`pack_points`]'s.
#[inline(always)]
pub(super) unsafe fn pack_rows(
    points: *const f32,
    packed: *mut u16,
    norms: *mut f32,
    residuals: *mut f32,
    params: PackPointsParams,
) {
    let shape = params.shape;
    let rows = shape.batch as u64 * shape.n as u64;
    let mut row = block_idx_x() as u64 * UPDATE_WARPS as u64 + warp_id() as u64;
    while row < rows {
        let x = points.add((row * shape.pitch as u64) as usize);
        let target = packed.add((row * params.packed_pitch as u64) as usize);
        let scale = scale_of_row(x, shape.d);
        let exact = |feature: usize| *x.add(feature) as f64 * scale;
        pack_row(exact, target, norms.add(row as usize), residuals.add(row as usize), params);
        row += grid_dim_x() as u64 * UPDATE_WARPS as u64;
    }
}
