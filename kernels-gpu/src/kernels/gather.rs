//! First centroids: some of the points' rows, or given ones.
use crate::spec::*;
use cuda_std::float::Scalar;
use cuda_std::thread::*;
use cuda_std::warp::*;

/// Row `rows[j]` of its problem's points for each centroid `j`, in the points' type and in f32; without `rows`, the
/// centroids in `given`: a warp a centroid.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; `rows` is null or holds `k` numbers under `n` a problem; a block has
/// [`UPDATE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn gather<T: Scalar>(
    points: *const T,
    rows: *const u32,
    given: *const f32,
    centroids: *mut f32,
    rounded: *mut T,
    params: GatherParams,
) {
    let shape = params.shape;
    let count = shape.batch as u64 * shape.k as u64;
    let mut at = block_idx_x() as u64 * UPDATE_WARPS as u64 + warp_id() as u64;
    while at < count {
        let to = (at * shape.d as u64) as usize;
        let mut from = points;
        if !rows.is_null() {
            let row = div_u64(at, shape.k as u64) * shape.n as u64 + *rows.add(at as usize) as u64;
            from = points.add((row * shape.pitch as u64) as usize);
        }
        let mut feature = lane_id() as usize;
        while feature < shape.d as usize {
            let value = if rows.is_null() { *given.add(to + feature) } else { (*from.add(feature)).to_f32() };
            *centroids.add(to + feature) = value;
            *rounded.add(to + feature) = T::from_f32(value);
            feature += WARP_SIZE as usize;
        }
        at += grid_dim_x() as u64 * UPDATE_WARPS as u64;
    }
}
