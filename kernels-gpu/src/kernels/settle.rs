//! Points whose nearest centroid a tensor-core pass could not tell, settled in f64.
//!
//! The list has two ends: from the front, points with two candidates, a warp each; from the back, the few with more,
//! for which a block looks at every centroid.
//!
//! A sum by lanes is not added in the order of the features. Where that order could decide, the distances are
//! computed again in it: the definition, so that every backend gives the same label.
use super::assign::distance_f64;
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
        let a_row = centroids.add((a as u64 * shape.d as u64) as usize);
        let b_row = centroids.add((b as u64 * shape.d as u64) as usize);
        let mut to_a = distance(x, a_row, shape.d);
        let mut to_b = distance(x, b_row, shape.d);
        if is_close(to_a, to_b, shape.d) {
            // Even lanes take the one, odd lanes the other.
            let mine = distance_f64(x, if lane_id() & 1 == 0 { a_row } else { b_row }, shape.d);
            to_a = warp_shuffle_idx(FULL_MASK, mine, 0);
            to_b = warp_shuffle_idx(FULL_MASK, mine, 1);
        }
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
        let mut nearest = Nearest::NONE;
        let mut centroid = warp_id();
        while centroid < shape.k {
            let to = distance(x, centroids.add((centroid as u64 * shape.d as u64) as usize), shape.d);
            nearest.take(to, centroid, f64::INFINITY);
            centroid += UPDATE_WARPS;
        }
        nearest = nearest.of_block();
        if is_close(nearest.distance, nearest.second, shape.d) {
            nearest = Nearest::NONE;
            let mut centroid = thread_idx_x();
            while centroid < shape.k {
                let c = centroids.add((centroid as u64 * shape.d as u64) as usize);
                nearest.take(distance_f64(x, c, shape.d), centroid, f64::INFINITY);
                centroid += UPDATE_THREADS;
            }
            let mut offset = 16;
            while offset > 0 {
                let to = warp_shuffle_xor(FULL_MASK, nearest.distance, offset);
                let label = warp_shuffle_xor(FULL_MASK, nearest.label, offset);
                let second = warp_shuffle_xor(FULL_MASK, nearest.second, offset);
                nearest.take(to, label, second);
                offset >>= 1;
            }
            nearest = nearest.of_block();
        }
        if thread_idx_x() == 0 {
            store(labels, changed, row, nearest.label, shape);
        }
        entry += grid_dim_x();
    }
}

/// Whether the order of additions may decide between two sums of `d` squares: with `u = 2⁻⁵³`, in order each is
/// within `(d + 2)·u` of the true one, and by lanes within `(d / 32 + 8)·u`.
#[inline(always)]
fn is_close(a: f64, b: f64, d: u32) -> bool {
    let gap = if a < b { b - a } else { a - b };
    gap <= (a + b) * ((2 * d + 12) as f64 / 9_007_199_254_740_992.0)
}

/// Best distance, its centroid, and second best.
#[derive(Clone, Copy)]
struct Nearest {
    distance: f64,
    label: u32,
    second: f64,
}

impl Nearest {
    const NONE: Nearest = Nearest { distance: f64::INFINITY, label: u32::MAX, second: f64::INFINITY };

    /// Takes the result of other centroids: of equal ones the lowest index.
    #[inline(always)]
    fn take(&mut self, distance: f64, label: u32, second: f64) {
        let better = distance < self.distance || (distance == self.distance && label < self.label);
        let worse = if better { self.distance } else { distance };
        let second = if second < self.second { second } else { self.second };
        self.second = if worse < second { worse } else { second };
        self.distance = if better { distance } else { self.distance };
        self.label = if better { label } else { self.label };
    }

    /// The block's result, in every thread, of what the lanes of each warp have in common.
    #[inline(always)]
    unsafe fn of_block(self) -> Nearest {
        let distances = SHARED.distances.here();
        let (seconds, labels) = (SHARED.seconds.here(), SHARED.labels.here());
        sync_threads();
        if lane_id() == 0 {
            distances.set(warp_id(), self.distance);
            seconds.set(warp_id(), self.second);
            labels.set(warp_id(), self.label);
        }
        sync_threads();
        let mut all = Nearest::NONE;
        let mut warp = 0;
        while warp < UPDATE_WARPS {
            all.take(distances.get(warp), labels.get(warp), seconds.get(warp));
            warp += 1;
        }
        all
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
