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
        let mut extent = 0.0f32;
        let mut feature = lane_id();
        while feature < shape.d {
            let value = *x.add(feature as usize);
            extent = max(extent, if value < 0.0 { -value } else { value });
            feature += WARP_SIZE;
        }
        let scale = tensor_scale(largest_of_warp(extent).to_bits());
        let exact = |feature: usize| *x.add(feature) as f64 * scale;
        pack_row(exact, target, norms.add(row as usize), residuals.add(row as usize), params);
        row += grid_dim_x() as u64 * UPDATE_WARPS as u64;
    }
}
