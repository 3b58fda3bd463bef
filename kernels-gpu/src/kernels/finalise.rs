//! Means and moves of the centroids, from the partial sums of panels and stretches.
//!
//! A cluster's total is added in one order, in f64: each of the warps that share a cluster adds its part of every panel,
//! or its panels, in order, in each what the panel has where the cluster begins and then the heads of the stretches that
//! it goes on through; then the warps' totals are added in order.
use super::segment_sums::sums_about_first;
use crate::spec::*;
use cuda_std::float::Scalar;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const SHARED: FinaliseShared = FinaliseShared::new();
/// Features of a lane at a time.
const VALUES: usize = FINALISE_VALUES as usize;

/// New centroids, the same rounded to `T`, and `‖c_new − c_old‖²` of each. An empty cluster keeps its centroid.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`UPDATE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn finalise<T: Scalar>(
    origin: *const T,
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
    let warps = params.warps();
    let (cluster_of_block, part) = (div(warp_id(), warps), warp_id() & (warps - 1));
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let cluster_of_all = item * div(UPDATE_WARPS, warps) as u64 + cluster_of_block as u64;
        let is_one = cluster_of_all < clusters;
        let batch = if is_one { div_u64(cluster_of_all, shape.k as u64) } else { 0 };
        // All warps of a block meet at its barriers.
        let is_open = is_one && (*states.add(batch as usize)).done == 0;
        let cluster = cluster_of_all - batch * shape.k as u64;
        // Sums may be of points less their problem's first.
        let origin = origin.add((batch * shape.n as u64 * shape.pitch as u64) as usize);
        let mut moved = 0.0;
        let mut first = 0;
        while first < shape.d {
            let feature = first + lane_id();
            let mut total = Total { sums: [0.0; VALUES], count: 0 };
            if is_open {
                total = total_of(sums, heads, starts, batch, cluster, feature, part, params);
            }
            if warps > 1 {
                total = total.of_cluster(cluster_of_block * warps, part, warps);
            }
            if is_open && part == 0 {
                unroll!(V in [0, 1, 2, 3] => {
                    let feature = feature + V as u32 * WARP_SIZE;
                    if feature < shape.d {
                        let place = (cluster_of_all * shape.d as u64 + feature as u64) as usize;
                        let old = *centroids.add(place);
                        let about =
                            if sums_about_first::<T>() { (*origin.add(feature as usize)).to_f32() } else { 0.0 };
                        let mean = about as f64 + total.sums[V] / total.count as f64;
                        let new = if total.count == 0 { old } else { mean as f32 };
                        *centroids.add(place) = new;
                        *rounded.add(place) = T::from_f32(new);
                        let difference = new as f64 - old as f64;
                        moved += difference * difference;
                    }
                });
            }
            first += VALUES as u32 * WARP_SIZE;
        }
        let moved = warp_sum_f64(moved);
        if is_open && part == 0 && lane_id() == 0 {
            *moves.add(cluster_of_all as usize) = moved;
        }
        item += grid_dim_x() as u64;
    }
}

/// A lane's sums over some of a cluster's points, and how many those are.
#[derive(Clone, Copy)]
struct Total {
    sums: [f64; VALUES],
    count: u32,
}

impl Total {
    /// What all `warps` warps of a cluster from `first` on have, in the first of them.
    #[inline(always)]
    unsafe fn of_cluster(mut self, first: u32, part: u32, warps: u32) -> Total {
        let (sums, counts) = (SHARED.sums.here(), SHARED.counts.here());
        let place = |warp: u32, value: u32| (warp * VALUES as u32 + value) * WARP_SIZE + lane_id();
        unroll!(V in [0, 1, 2, 3] => { sums.set(place(warp_id(), V as u32), self.sums[V]); });
        if lane_id() == 0 {
            counts.set(warp_id(), self.count);
        }
        sync_threads();
        let mut other = if part == 0 { 1 } else { warps };
        while other < warps {
            unroll!(V in [0, 1, 2, 3] => { self.sums[V] += sums.get(place(first + other, V as u32)); });
            self.count += counts.get(first + other);
            other += 1;
        }
        sync_threads();
        self
    }
}

/// Sums of features `feature`, `feature + 32`, … over the part of a cluster's points that is warp `part`'s.
#[inline(always)]
unsafe fn total_of(
    sums: *const f32,
    heads: *const f32,
    starts: *const u32,
    batch: u64,
    cluster: u64,
    feature: u32,
    part: u32,
    params: FinaliseParams,
) -> Total {
    let shape = params.shape;
    let d = shape.d as usize;
    let (stretch, stretches) = (params.panels.stretch(), params.panels.stretches() as u64);
    let (parts, warps) = (params.parts(), params.warps());
    let mut total = Total { sums: [0.0; VALUES], count: 0 };
    // So many parts of a panel are a warp's each.
    let mut unit = part;
    while unit < params.panels.count * parts {
        let panel = div(unit, parts);
        let part = unit - panel * parts;
        let group = batch * params.panels.count as u64 + panel as u64;
        let border = starts.add((group * (shape.k as u64 + 1) + cluster) as usize);
        let begin = *border;
        let end = *border.add(1);
        if end > begin {
            if part == 0 {
                total.count += end - begin;
                let sums = sums.add(((group * shape.k as u64 + cluster) * d as u64) as usize);
                unroll!(V in [0, 1, 2, 3] => { total.sums[V] += value(sums, feature + V as u32 * WARP_SIZE, shape); });
            }
            let head_of = div(begin, stretch);
            let all = div(end - 1, stretch) - head_of;
            let mut at = div(all * part, parts);
            let to = div(all * (part + 1), parts);
            let mut head =
                heads.add(((group * stretches + head_of as u64 + 1 + at as u64) * d as u64) as usize);
            // Four heads' loads at a time: a cluster of a whole panel has thousands.
            while at < to {
                let mut values = [[0.0f32; VALUES]; 4];
                unroll!(H in [0, 1, 2, 3] => {
                    if at + (H as u32) < to {
                        unroll!(V in [0, 1, 2, 3] => {
                            values[H][V] = value(head.add(H * d), feature + V as u32 * WARP_SIZE, shape) as f32;
                        });
                    }
                });
                unroll!(V in [0, 1, 2, 3] => {
                    let pairs = [values[0][V] as f64 + values[1][V] as f64, values[2][V] as f64 + values[3][V] as f64];
                    total.sums[V] += pairs[0] + pairs[1];
                });
                head = head.add(4 * d);
                at += 4;
            }
        }
        unit += warps;
    }
    total
}

/// A feature of a row, or nothing past its end.
#[inline(always)]
unsafe fn value(row: *const f32, feature: u32, shape: Shape) -> f64 {
    if feature < shape.d { *row.add(feature as usize) as f64 } else { 0.0 }
}
