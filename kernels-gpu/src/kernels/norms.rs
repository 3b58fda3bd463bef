//! Squared norms of points: what turns scores into distances, and scales their error bound.
use crate::spec::*;
use cuda_std::float::{Scalar, fma};
use cuda_std::thread::*;
use cuda_std::warp::*;

/// `‖x‖²` of every point, a warp a row.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`UPDATE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn norms<T: Scalar>(points: *const T, norms: *mut f32, params: NormsParams) {
    let shape = params.shape;
    let rows = shape.batch as u64 * shape.n as u64;
    let mut row = block_idx_x() as u64 * UPDATE_WARPS as u64 + warp_id() as u64;
    while row < rows {
        let x = points.add((row * shape.pitch as u64) as usize);
        let mut sum = 0.0;
        let mut feature = lane_id();
        while feature < shape.d {
            let value = (*x.add(feature as usize)).to_f32();
            sum = fma(value, value, sum);
            feature += WARP_SIZE;
        }
        let mut offset = 16;
        while offset > 0 {
            sum += warp_shuffle_xor(FULL_MASK, sum, offset);
            offset >>= 1;
        }
        if lane_id() == 0 {
            *norms.add(row as usize) = sum;
        }
        row += grid_dim_x() as u64 * UPDATE_WARPS as u64;
    }
}
