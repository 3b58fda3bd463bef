//! Means and moves of the centroids, from the partial sums of panels and stretches.
//!
//! A cluster's total is added in one order: panel by panel, in each the part where the cluster begins and
//! then the heads of the stretches it goes on through. In f64, which costs nothing beside the reading.
use super::segment_sums::sums_about_first;
use crate::spec::*;
use cuda_std::float::Scalar;
use cuda_std::thread::*;
use cuda_std::warp::*;

/// New centroids, the same rounded to `T`, and `‖c_new − c_old‖²` of each. An empty cluster keeps its centroid.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`UPDATE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn finalise<T: Scalar>(
    points: *const T,
    sums: *const f32,
    heads: *const f32,
    starts: *const u32,
    states: *const LoopState,
    centroids: *mut f32,
    rounded: *mut T,
    moves: *mut f64,
    params: FinaliseParams,
) {
    let shape = params.shape;
    let clusters = shape.batch as u64 * shape.k as u64;
    let mut cluster_of_all = block_idx_x() as u64 * UPDATE_WARPS as u64 + warp_id() as u64;
    while cluster_of_all < clusters {
        let batch = div_u64(cluster_of_all, shape.k as u64);
        if (*states.add(batch as usize)).done == 0 {
            let cluster = cluster_of_all - batch * shape.k as u64;
            // Sums may be of points less this one.
            let origin = points.add((batch * shape.n as u64 * shape.pitch as u64) as usize);
            let mut moved = 0.0;
            let mut feature = lane_id();
            while feature < shape.d {
                let (sum, count) = total(sums, heads, starts, batch, cluster, feature, params);
                let place = (cluster_of_all * shape.d as u64 + feature as u64) as usize;
                let old = *centroids.add(place);
                let first =
                    if sums_about_first::<T>() { (*origin.add(feature as usize)).to_f32() } else { 0.0 };
                let mean = first as f64 + sum / count as f64;
                let new = if count == 0 { old } else { mean as f32 };
                *centroids.add(place) = new;
                *rounded.add(place) = T::from_f32(new);
                let difference = new as f64 - old as f64;
                moved += difference * difference;
                feature += WARP_SIZE;
            }
            let moved = warp_sum_f64(moved);
            if lane_id() == 0 {
                *moves.add(cluster_of_all as usize) = moved;
            }
        }
        cluster_of_all += grid_dim_x() as u64 * UPDATE_WARPS as u64;
    }
}

/// One feature's sum over a cluster, and the cluster's points.
#[inline(always)]
unsafe fn total(
    sums: *const f32,
    heads: *const f32,
    starts: *const u32,
    batch: u64,
    cluster: u64,
    feature: u32,
    params: FinaliseParams,
) -> (f64, u64) {
    let shape = params.shape;
    let d = shape.d as u64;
    let (stretch, stretches) = (params.panels.stretch(), params.panels.stretches() as u64);
    let mut sum = 0.0;
    let mut count = 0;
    let mut panel = 0;
    while panel < params.panels.count {
        let group = batch * params.panels.count as u64 + panel as u64;
        let border = starts.add((group * (shape.k as u64 + 1) + cluster) as usize);
        let begin = *border;
        let end = *border.add(1);
        if end > begin {
            count += (end - begin) as u64;
            sum += *sums.add(((group * shape.k as u64 + cluster) * d + feature as u64) as usize) as f64;
            let mut head = heads.add(((group * stretches + div(begin, stretch) as u64) * d) as usize);
            head = head.add(feature as usize);
            let mut left = div(end - 1, stretch) - div(begin, stretch);
            // Four loads in flight: a cluster of a whole panel has thousands of heads.
            while left >= 4 {
                let a = *head.add(d as usize) as f64 + *head.add(2 * d as usize) as f64;
                let b = *head.add(3 * d as usize) as f64 + *head.add(4 * d as usize) as f64;
                sum += a + b;
                head = head.add(4 * d as usize);
                left -= 4;
            }
            while left > 0 {
                head = head.add(d as usize);
                sum += *head as f64;
                left -= 1;
            }
        }
        panel += 1;
    }
    (sum, count)
}
