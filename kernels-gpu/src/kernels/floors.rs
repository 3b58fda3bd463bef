//! A score that each point's best is not below: that of the label it had, under the centroids as they are now.
//!
//! With it the tensor-core assignment sees at once that most tiles of centroids do not matter to a point. One pass over
//! the points, in 16 bits; centroids come from L2.
use super::bound::Bound;
use crate::spec::*;
use cuda_std::float::{BF16, F16, Scalar, fma, sqrt_approx};
use cuda_std::ptr::load_v4;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

/// Floors of the points' best scores. Any label would do: one that is none is taken for the first.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, `points` and `plain` aligned to 16 bytes; `residuals` may be null, for
/// points that were not rounded; a block has [`UPDATE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn floors(
    points: *const u16,
    norms: *const f32,
    residuals: *const f32,
    labels: *const u32,
    plain: *const u16,
    centroid_norms: *const f32,
    centroid_residuals: *const f32,
    states: *const LoopState,
    floors: *mut f32,
    params: FloorsParams,
) {
    let shape = params.shape;
    let all = shape.batch as u64 * shape.n as u64;
    let lanes = params.lanes();
    let lane = thread_idx_x() & (lanes - 1);
    let apart = div(UPDATE_THREADS, lanes);
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let first = item * params.rows() as u64 + div(thread_idx_x(), lanes) as u64;
        let mut rows = [0u64; FLOORS_ROWS as usize];
        let mut centroids = [0u64; FLOORS_ROWS as usize];
        unroll!(R in [0, 1, 2, 3] => {
            let row = first + R as u64 * apart as u64;
            rows[R] = if row < all { row } else { all - 1 };
            let label = *labels.add(rows[R] as usize);
            // Fewer than 2³² rows; and a division is much beside the rest.
            let batch = if shape.batch == 1 { 0 } else { div(rows[R] as u32, shape.n) };
            centroids[R] = batch as u64 * shape.k as u64 + if label < shape.k { label as u64 } else { 0 };
        });
        let mut scores = [0.0f32; FLOORS_ROWS as usize];
        let mut feature = lane * 8;
        while feature < shape.pitch {
            unroll!(R in [0, 1, 2, 3] => {
                let place = rows[R] * shape.pitch as u64 + feature as u64;
                let x = load_v4(points.add(place as usize).cast());
                let place = centroids[R] * hopper_row(shape.d) as u64 + feature as u64;
                let c = load_v4(plain.add(place as usize).cast());
                scores[R] = if params.is_bf16 != 0 {
                    add_products::<BF16>(x, c, scores[R])
                } else {
                    add_products::<F16>(x, c, scores[R])
                };
            });
            feature += lanes * 8;
        }
        unroll!(R in [0, 1, 2, 3] => {
            let mut offset = lanes / 2;
            while offset > 0 {
                scores[R] += warp_shuffle_xor(FULL_MASK, scores[R], offset);
                offset >>= 1;
            }
        });
        // Each of four lanes ends a row; of fewer, each ends several.
        unroll!(R in [0, 1, 2, 3] => {
            if R == 0 || lanes < 4 {
                let mine = if lanes < 4 { R as u32 } else { lane & 3 };
                let pick = |values: [u64; 4]| {
                    let low = if mine & 1 == 0 { values[0] } else { values[1] };
                    let high = if mine & 1 == 0 { values[2] } else { values[3] };
                    if mine & 2 == 0 { low } else { high }
                };
                let low = if mine & 1 == 0 { scores[0] } else { scores[1] };
                let high = if mine & 1 == 0 { scores[2] } else { scores[3] };
                let score = if mine & 2 == 0 { low } else { high };
                let (row, centroid) = (pick(rows), pick(centroids));
                let batch = if shape.batch == 1 { 0 } else { div(row as u32, shape.n) };
                let is_inside = first + mine as u64 * (apart as u64) < all && (lane < 4 && lanes >= 4 || lane == 0);
                if is_inside && (*states.add(batch as usize)).done == 0 {
                    let norm = *centroid_norms.add(centroid as usize);
                    let terms = hopper_panels(shape.d) * HOPPER_PANEL_FEATURES;
                    let residual = *centroid_residuals.add(centroid as usize);
                    let bound = Bound::on_hopper(terms, sqrt_approx(norm), residual);
                    let point = sqrt_approx(*norms.add(row as usize));
                    let residual = if residuals.is_null() { 0.0 } else { *residuals.add(row as usize) };
                    // Where bounds count as 0, the error of the score that the assignment finds comes on top.
                    let errors = if params.is_exact != 0 { 1.0 } else { 2.0 };
                    let bound = errors * bound.of(point, residual);
                    *floors.add(row as usize) = score - 0.5 * (norm + bound);
                }
            }
        });
        item += grid_dim_x() as u64;
    }
}

#[inline(always)]
fn add_products<S: Scalar>(x: [u32; 4], c: [u32; 4], mut sum: f32) -> f32 {
    unroll!(V in [0, 1, 2, 3, 4, 5, 6, 7] => { sum = fma(S::of_vector(x, V), S::of_vector(c, V), sum); });
    sum
}
