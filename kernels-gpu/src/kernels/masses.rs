//! How much each point counts in the sums of its cluster.
use super::inertia::length;
use crate::spec::*;
use cuda_std::float::Scalar;
use cuda_std::thread::*;
use cuda_std::warp::*;

/// Each point's weight times its problem's unit, 1 where `weights` is null, and divided by the point's length where
/// [`MassesParams::by_length`]; 0 for a row of zeros then. A warp a row.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`UPDATE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn masses<T: Scalar>(
    points: *const T,
    weights: *const f64,
    units: *const f64,
    masses: *mut f32,
    params: MassesParams,
) {
    let shape = params.shape;
    let rows = shape.batch as u64 * shape.n as u64;
    let mut row = block_idx_x() as u64 * UPDATE_WARPS as u64 + warp_id() as u64;
    while row < rows {
        let mut mass = 1.0;
        if !weights.is_null() {
            mass = *weights.add(row as usize) * *units.add(div_u64(row, shape.n as u64) as usize);
        }
        if params.by_length != 0 {
            let length = length(points.add((row * shape.pitch as u64) as usize), shape.d as usize);
            mass = if length == 0.0 { 0.0 } else { mass / length };
        }
        // Of a row near the least f32 the inverse is beyond the largest.
        let most = f32::MAX as f64;
        if lane_id() == 0 {
            *masses.add(row as usize) = (if mass > most { most } else { mass }) as f32;
        }
        row += grid_dim_x() as u64 * UPDATE_WARPS as u64;
    }
}
