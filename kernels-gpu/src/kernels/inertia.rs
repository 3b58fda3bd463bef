//! The inertia by its definition, `Σ (x − c)²`, in f64: the expanded form would cancel.
use crate::spec::*;
use cuda_std::float::{Scalar, sqrt_f64};
use cuda_std::thread::*;
use cuda_std::warp::*;

const SHARED: InertiaShared = InertiaShared::new();
const WARPS: u32 = REDUCE_THREADS / WARP_SIZE;

/// One partial sum for each `params.rows` rows of each problem: a warp a row, a lane a feature.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`REDUCE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn inertia<T: Scalar>(
    points: *const T,
    centroids: *const T,
    labels: *const u32,
    partial: *mut f64,
    params: InertiaParams,
) {
    let shape = params.shape;
    let d = shape.d as usize;
    let items = params.blocks();
    let mut item = block_idx_x() as u64;
    while item < items {
        let batch = div_u64(item, params.tiles as u64);
        let first = (item - batch * params.tiles as u64) as u32 * params.rows;
        let end = if shape.n - first < params.rows { shape.n } else { first + params.rows };
        let mut sum = 0.0;
        let mut row = first + warp_id();
        while row < end {
            let point = batch * shape.n as u64 + row as u64;
            let label = *labels.add(point as usize) as u64;
            let x = points.add((point * shape.pitch as u64) as usize);
            let c = centroids.add(((batch * shape.k as u64 + label) * shape.d as u64) as usize);
            let mut feature = lane_id() as usize;
            while feature < d {
                let difference = (*x.add(feature)).to_f32() as f64 - (*c.add(feature)).to_f32() as f64;
                sum += difference * difference;
                feature += WARP_SIZE as usize;
            }
            row += WARPS;
        }
        add_up(warp_sum_f64(sum), partial.add(item as usize));
        item += grid_dim_x() as u64;
    }
}

/// Writes the sum over the block's warps of what all lanes of each have.
#[inline(always)]
unsafe fn add_up(sum: f64, to: *mut f64) {
    let warp_sums = SHARED.warp_sums.here();
    if lane_id() == 0 {
        warp_sums.set(warp_id(), sum);
    }
    sync_threads();
    if thread_idx_x() == 0 {
        let mut total = 0.0;
        let mut warp = 0;
        while warp < WARPS {
            total += warp_sums.get(warp);
            warp += 1;
        }
        *to = total;
    }
    sync_threads();
}

/// What points add to the inertia by any metric, each as often as its weight says: one partial sum for each
/// [`LossesParams::rows`] rows, and zeros for entries past the last row. `weights` may be null, for 1 each, and `states`, for
/// all problems.
///
/// # Safety
/// As [`inertia`]'s.
#[inline(always)]
pub(super) unsafe fn losses<T: Scalar>(
    points: *const T,
    centroids: *const T,
    labels: *const u32,
    weights: *const f64,
    states: *const LoopState,
    partial: *mut f64,
    params: LossesParams,
) {
    let shape = params.shape;
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let batch = div_u64(item, params.entries as u64);
        let first = (item - batch * params.entries as u64) * params.rows as u64;
        if states.is_null() || (*states.add(batch as usize)).done == 0 {
            let end = if first + (params.rows as u64) < shape.n as u64 {
                first + params.rows as u64
            } else {
                shape.n as u64
            };
            let mut sum = 0.0;
            let mut row = first + warp_id() as u64;
            while row < end {
                let point = batch * shape.n as u64 + row;
                let label = *labels.add(point as usize) as u64;
                let x = points.add((point * shape.pitch as u64) as usize);
                let c = centroids.add(((batch * shape.k as u64 + label) * shape.d as u64) as usize);
                let loss = loss_of_row(x, c, params);
                let weight = if weights.is_null() { 1.0 } else { *weights.add(point as usize) };
                sum += weight * loss;
                row += WARPS as u64;
            }
            add_up(sum, partial.add(item as usize));
        }
        item += grid_dim_x() as u64;
    }
}

/// The loss of one point, in every lane: `Σ (x − c)²`, `½ Σ (x/‖x‖ − c)²`, which is 1 for a row of zeros, or `−Σ x·c`.
#[inline(always)]
unsafe fn loss_of_row<T: Scalar>(x: *const T, c: *const T, params: LossesParams) -> f64 {
    let d = params.shape.d as usize;
    let mut scale = 1.0;
    if params.loss == LOSS_COSINE {
        let length = length(x, d);
        if length == 0.0 {
            return 1.0;
        }
        scale = 1.0 / length;
    }
    let mut sum = 0.0;
    let mut feature = lane_id() as usize;
    while feature < d {
        let (x, c) = ((*x.add(feature)).to_f32() as f64, (*c.add(feature)).to_f32() as f64);
        let difference = x * scale - c;
        sum += if params.loss == LOSS_PRODUCT { -x * c } else { difference * difference };
        feature += WARP_SIZE as usize;
    }
    let sum = warp_sum_f64(sum);
    if params.loss == LOSS_COSINE { 0.5 * sum } else { sum }
}

/// The length of a row, in every lane; squares of f32 values are neither lost in f64 nor infinite.
#[inline(always)]
pub(super) unsafe fn length<T: Scalar>(x: *const T, d: usize) -> f64 {
    let mut square = 0.0;
    let mut feature = lane_id() as usize;
    while feature < d {
        let value = (*x.add(feature)).to_f32() as f64;
        square += value * value;
        feature += WARP_SIZE as usize;
    }
    sqrt_f64(warp_sum_f64(square))
}
