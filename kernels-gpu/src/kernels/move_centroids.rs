//! The centroids of points with masses, and those of length 1, from the means that `finalise` has found.
use super::segment_sums::sums_about_first;
use crate::spec::*;
use cuda_std::float::{Scalar, sqrt_f64};
use cuda_std::thread::*;
use cuda_std::warp::*;

/// New centroids, the same rounded to `T`, and `‖c_new − c_old‖²` of each: a warp a centroid.
///
/// Without masses, `means` are `[centroid][feature]` means of points. With them, [`MoveParams::width`] values each: the mean of
/// `m·(x − origin)`, and that of the masses `m` last. A centroid without mass, or, where it is to have length 1, with a
/// mean of zeros, stays. `origin` may be null, for zeros.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`UPDATE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn move_centroids<T: Scalar>(
    means: *const f32,
    origin: *const T,
    states: *const LoopState,
    centroids: *mut f32,
    rounded: *mut T,
    moves: *mut f64,
    params: MoveParams,
) {
    let shape = params.shape;
    let has_masses = params.has_masses != 0;
    let mut at = block_idx_x() as u64 * UPDATE_WARPS as u64 + warp_id() as u64;
    while at < params.centroids() {
        let batch = div_u64(at, shape.k as u64);
        if (*states.add(batch as usize)).done == 0 {
            let means = means.add((at * params.width() as u64) as usize);
            let has_origin = has_masses && sums_about_first::<T>() && !origin.is_null();
            let origin = if has_origin {
                origin.add((batch * shape.n as u64 * shape.pitch as u64) as usize)
            } else {
                origin
            };
            let mass = if has_masses { *means.add(shape.d as usize) as f64 } else { 1.0 };
            // The mean by mass, or for length 1 a multiple of it.
            let value = |feature: u32| {
                let mean = *means.add(feature as usize) as f64;
                let about = if has_origin { (*origin.add(feature as usize)).to_f32() as f64 } else { 0.0 };
                if params.is_spherical != 0 { mean + about * mass } else { about + mean / mass }
            };
            let mut by = 1.0;
            if params.is_spherical != 0 {
                let mut square = 0.0;
                let mut feature = lane_id();
                while feature < shape.d {
                    // Of an f32, or little more: its square is neither lost nor infinite.
                    let value = value(feature);
                    square += value * value;
                    feature += WARP_SIZE;
                }
                by = sqrt_f64(warp_sum_f64(square));
            }
            let moves_at_all = by > 0.0 && (mass > 0.0 || params.is_spherical != 0);
            let mut moved = 0.0;
            let mut feature = lane_id();
            while feature < shape.d {
                let place = (at * shape.d as u64 + feature as u64) as usize;
                let old = *centroids.add(place);
                let new = if moves_at_all { (value(feature) / by) as f32 } else { old };
                *centroids.add(place) = new;
                *rounded.add(place) = T::from_f32(new);
                let difference = new as f64 - old as f64;
                moved += difference * difference;
                feature += WARP_SIZE;
            }
            let moved = warp_sum_f64(moved);
            if lane_id() == 0 {
                *moves.add(at as usize) = moved;
            }
        }
        at += grid_dim_x() as u64 * UPDATE_WARPS as u64;
    }
}
