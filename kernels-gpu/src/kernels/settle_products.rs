//! [`settle`](super::settle) by the largest product `x·c`.
//!
//! A product may cancel, so that it is compared with the size of its terms: where their rounding could decide, the products
//! are computed again with the features in order, the definition. A point of more than two candidates is looked at by a
//! block, a thread a centroid, in that order at once: a scan in f32 has no bound relative to what it finds.
use super::assign::product_f64;
use super::settle::{Nearest, of_problem, store};
use crate::spec::*;
use cuda_std::float::Scalar;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

/// Labels of the points in the list, and the change of each. `scratch` and `counters` are not used.
///
/// # Safety
/// As [`settle`](super::settle::settle)'s.
#[inline(always)]
pub(super) unsafe fn settle_products<T: Scalar>(
    points: *const T,
    centroids: *const T,
    counts: *const u32,
    rows: *const u32,
    first: *const u32,
    second: *const u32,
    labels: *mut u32,
    changed: *mut u32,
    _scratch: *mut u32,
    _counters: *mut u32,
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
        let [mut by_a, mut by_b, size] = products(x, a_row, b_row, shape.d);
        let gap = if by_a < by_b { by_b - by_a } else { by_a - by_b };
        // With `u = 2⁻⁵³`, both sums of both products: in order `d·u` of their terms' size, by lanes `(d / 32 + 8)·u`.
        if gap <= size * ((2 * shape.d + 12) as f64 / 9_007_199_254_740_992.0) {
            // Even lanes take the one, odd lanes the other.
            let mine = product_f64(x, if lane_id() & 1 == 0 { a_row } else { b_row }, shape.d);
            by_a = warp_shuffle_idx(FULL_MASK, mine, 0);
            by_b = warp_shuffle_idx(FULL_MASK, mine, 1);
        }
        let label = if by_b > by_a || (by_b == by_a && b < a) { b } else { a };
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
        let mut centroid = thread_idx_x();
        while centroid < shape.k {
            let c = centroids.add((centroid as u64 * shape.d as u64) as usize);
            nearest.take(-product_f64(x, c, shape.d), centroid, f64::INFINITY);
            centroid += UPDATE_THREADS;
        }
        nearest = nearest.of_warp();
        nearest = nearest.of_block();
        if thread_idx_x() == 0 {
            store(labels, changed, row, nearest.label, shape);
        }
        entry += grid_dim_x();
    }
}

/// `Σ x·a`, `Σ x·b`, and the sum of the magnitudes of the terms of both, in every lane: a lane a feature.
#[inline(always)]
unsafe fn products<T: Scalar>(x: *const T, a: *const T, b: *const T, d: u32) -> [f64; 3] {
    let [mut by_a, mut by_b, mut size] = [0.0; 3];
    let mut feature = lane_id();
    while feature < d {
        // Four steps' loads at a time; what lies past the end is nothing.
        let mut values = [[0.0f32; 3]; 4];
        unroll!(I in [0, 1, 2, 3] => {
            let at = (feature + I as u32 * WARP_SIZE) as usize;
            if at < d as usize {
                values[I] = [(*x.add(at)).to_f32(), (*a.add(at)).to_f32(), (*b.add(at)).to_f32()];
            }
        });
        unroll!(I in [0, 1, 2, 3] => {
            let value = values[I][0] as f64;
            let (of_a, of_b) = (value * values[I][1] as f64, value * values[I][2] as f64);
            by_a += of_a;
            by_b += of_b;
            size += (if of_a < 0.0 { -of_a } else { of_a }) + (if of_b < 0.0 { -of_b } else { of_b });
        });
        feature += 4 * WARP_SIZE;
    }
    [warp_sum_f64(by_a), warp_sum_f64(by_b), warp_sum_f64(size)]
}
