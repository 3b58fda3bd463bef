//! Means and moves of the centroids, from the partial sums of panels and stretches.
//!
//! A cluster's total is added in one order: a warp adds every so many-th panel, in each the part where the cluster
//! begins and then the heads of the stretches it goes on through; then the warps' sums are added in order. In f64, which
//! costs nothing beside the reading.
use super::segment_sums::sums_about_first;
use crate::spec::*;
use cuda_std::float::Scalar;
use cuda_std::thread::*;
use cuda_std::warp::*;

const SHARED: FinaliseShared = FinaliseShared::new();

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
    let (sums_of_warps, counts_of_warps) = (SHARED.sums.here(), SHARED.counts.here());
    let clusters = shape.batch as u64 * shape.k as u64;
    let warps = params.warps();
    let part = warp_id() & (warps - 1);
    let clusters_at_once = div(UPDATE_WARPS, warps);
    let items = params.blocks();
    let mut item = block_idx_x() as u64;
    while item < items {
        let cluster_of_all = item * clusters_at_once as u64 + div(warp_id(), warps) as u64;
        // Clusters of a block may be of different problems, but all its warps meet at the barriers.
        let inside = cluster_of_all < clusters;
        let batch = if inside { div_u64(cluster_of_all, shape.k as u64) } else { 0 };
        let active = inside && (*states.add(batch as usize)).done == 0;
        let cluster = cluster_of_all - batch * shape.k as u64;
        // Sums may be of points less this one.
        let origin = points.add((batch * shape.n as u64 * shape.pitch as u64) as usize);
        let mut moved = 0.0;
        let mut first_feature = 0;
        while first_feature < shape.d {
            let feature = first_feature + lane_id();
            let (mut sum, mut count) = (0.0, 0);
            if active && feature < shape.d {
                (sum, count) = total(sums, heads, starts, batch, cluster, feature, part, params);
            }
            if warps > 1 {
                sums_of_warps.set(thread_idx_x(), sum);
                // Lane 0 has a feature of every chunk.
                if lane_id() == 0 {
                    counts_of_warps.set(warp_id(), count);
                }
                sync_threads();
                if part == 0 {
                    let mut other = 1;
                    while other < warps {
                        sum += sums_of_warps.get(thread_idx_x() + other * WARP_SIZE);
                        count += counts_of_warps.get(warp_id() + other);
                        other += 1;
                    }
                }
                sync_threads();
            }
            if active && part == 0 && feature < shape.d {
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
            }
            first_feature += WARP_SIZE;
        }
        let moved = warp_sum_f64(moved);
        if active && part == 0 && lane_id() == 0 {
            *moves.add(cluster_of_all as usize) = moved;
        }
        item += grid_dim_x() as u64;
    }
}

/// One feature's sum over a cluster's points in every [`FinaliseParams::warps`]th panel from `part` on, and those points.
#[inline(always)]
unsafe fn total(
    sums: *const f32,
    heads: *const f32,
    starts: *const u32,
    batch: u64,
    cluster: u64,
    feature: u32,
    part: u32,
    params: FinaliseParams,
) -> (f64, u32) {
    let shape = params.shape;
    let d = shape.d as u64;
    let (stretch, stretches) = (params.panels.stretch(), params.panels.stretches() as u64);
    let mut sum = 0.0;
    let mut count = 0;
    let mut panel = part;
    while panel < params.panels.count {
        let group = batch * params.panels.count as u64 + panel as u64;
        let border = starts.add((group * (shape.k as u64 + 1) + cluster) as usize);
        let begin = *border;
        let end = *border.add(1);
        if end > begin {
            count += end - begin;
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
        panel += params.warps();
    }
    (sum, count)
}
