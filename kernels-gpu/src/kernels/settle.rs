//! Points whose nearest centroid a tensor-core pass could not tell, settled in f64.
//!
//! The list has two ends: from the front, points with two candidates, a warp each; from the back, the few with more,
//! for which a block looks at every centroid.
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::float::Scalar;
use cuda_std::thread::*;
use cuda_std::warp::*;

const SHARED: SettleShared = SettleShared::new();

/// Labels of the points in the list, and the change of each.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`UPDATE_THREADS`] threads; `counts` holds how many
/// entries the list has from the front and from the back.
#[inline(always)]
pub(super) unsafe fn settle<T: Scalar>(
    points: *const T,
    centroids: *const T,
    counts: *const u32,
    rows: *const u32,
    first: *const u32,
    second: *const u32,
    labels: *mut u32,
    changed: *mut u32,
    params: SettleParams,
) {
    let shape = params.shape;
    let two = *counts;
    let many = *counts.add(1);

    let mut entry = block_idx_x() * UPDATE_WARPS + warp_id();
    while entry < two {
        let row = *rows.add(entry as usize);
        let (a, b) = (*first.add(entry as usize), *second.add(entry as usize));
        let x = points.add((row as u64 * shape.pitch as u64) as usize);
        let centroids = of_problem(centroids, row, shape);
        let to_a = distance(x, centroids.add((a as u64 * shape.d as u64) as usize), shape.d);
        let to_b = distance(x, centroids.add((b as u64 * shape.d as u64) as usize), shape.d);
        let label = if to_b < to_a || (to_b == to_a && b < a) { b } else { a };
        if lane_id() == 0 {
            store(labels, changed, row, label, shape);
        }
        entry += grid_dim_x() * UPDATE_WARPS;
    }

    let mut entry = block_idx_x();
    while entry < many {
        let row = *rows.add((shape.batch * shape.n - 1 - entry) as usize);
        let x = points.add((row as u64 * shape.pitch as u64) as usize);
        let centroids = of_problem(centroids, row, shape);
        let mut best = f64::INFINITY;
        let mut label = u32::MAX;
        let mut centroid = warp_id();
        while centroid < shape.k {
            let to = distance(x, centroids.add((centroid as u64 * shape.d as u64) as usize), shape.d);
            label = if to < best { centroid } else { label };
            best = if to < best { to } else { best };
            centroid += UPDATE_WARPS;
        }
        if lane_id() == 0 {
            SHARED.distances.here().set(warp_id(), best);
            SHARED.labels.here().set(warp_id(), label);
        }
        sync_threads();
        if thread_idx_x() == 0 {
            let mut warp = 1;
            while warp < UPDATE_WARPS {
                let (to, other) = (SHARED.distances.here().get(warp), SHARED.labels.here().get(warp));
                let better = to < best || (to == best && other < label);
                best = if better { to } else { best };
                label = if better { other } else { label };
                warp += 1;
            }
            store(labels, changed, row, label, shape);
        }
        sync_threads();
        entry += grid_dim_x();
    }
}

/// The centroids of the problem that a row, counted over all problems, belongs to.
#[inline(always)]
unsafe fn of_problem<T>(centroids: *const T, row: u32, shape: Shape) -> *const T {
    centroids.add((div(row, shape.n) as u64 * shape.k as u64 * shape.d as u64) as usize)
}

/// `Σ (x − c)²` in f64, in every lane: a lane a feature, so that the loads are whole lines.
#[inline(always)]
unsafe fn distance<T: Scalar>(x: *const T, c: *const T, d: u32) -> f64 {
    let mut sum = 0.0;
    let mut feature = lane_id();
    while feature < d {
        let difference =
            (*x.add(feature as usize)).to_f32() as f64 - (*c.add(feature as usize)).to_f32() as f64;
        sum += difference * difference;
        feature += WARP_SIZE;
    }
    warp_sum_f64(sum)
}

#[inline(always)]
unsafe fn store(labels: *mut u32, changed: *mut u32, row: u32, label: u32, shape: Shape) {
    let place = labels.add(row as usize);
    if *place != label {
        *place = label;
        let batch = div(row, shape.n);
        let tile = batch * shape.n.div_ceil(HOPPER_POINTS) + (row - batch * shape.n) / HOPPER_POINTS;
        atomic::fetch_add_u32(changed.add((tile * HOPPER_WARPS) as usize), 1);
    }
}
