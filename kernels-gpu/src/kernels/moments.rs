//! Sums of features and of their squares, for the variance that scales the tolerance.
use crate::spec::*;
use cuda_std::float::Scalar;
use cuda_std::thread::*;

/// `[item][feature]` of `Σ (x − x₀)` and `Σ (x − x₀)²`, `x₀` the problem's first row: about a point of the
/// data, so that a common offset does not cancel. A thread a feature. `origin` as of `segment_sums`.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`REDUCE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn moments<T: Scalar>(
    points: *const T,
    origin: *const T,
    first: *mut f64,
    second: *mut f64,
    params: MomentsParams,
) {
    let shape = params.shape;
    let d = shape.d as usize;
    let items = params.blocks();
    let mut item = block_idx_x() as u64;
    while item < items {
        let batch = div_u64(item, params.tiles as u64);
        let begin = (item - batch * params.tiles as u64) as u32 * params.rows;
        let end = if shape.n - begin < params.rows { shape.n } else { begin + params.rows };
        let points = points.add((batch * shape.n as u64 * shape.pitch as u64) as usize);
        let origin = origin.add((batch * shape.n as u64 * shape.pitch as u64) as usize);
        let mut feature = thread_idx_x() as usize;
        while feature < d {
            let origin = (*origin.add(feature)).to_f32() as f64;
            let mut x = points.add((begin as u64 * shape.pitch as u64) as usize + feature);
            let (mut sum, mut squares) = (0.0, 0.0);
            let mut row = begin;
            while row < end {
                let value = (*x).to_f32() as f64 - origin;
                sum += value;
                squares += value * value;
                x = x.add(shape.pitch as usize);
                row += 1;
            }
            *first.add(item as usize * d + feature) = sum;
            *second.add(item as usize * d + feature) = squares;
            feature += REDUCE_THREADS as usize;
        }
        item += grid_dim_x() as u64;
    }
}

/// [`moments`] of points times `scales`, which bring them to length 1, about 0: values of which none is far from it.
///
/// # Safety
/// As [`moments`]'s.
#[inline(always)]
pub(super) unsafe fn unit_moments<T: Scalar>(
    points: *const T,
    scales: *const f32,
    first: *mut f64,
    second: *mut f64,
    params: MomentsParams,
) {
    let shape = params.shape;
    let d = shape.d as usize;
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let batch = div_u64(item, params.tiles as u64);
        let begin = (item - batch * params.tiles as u64) as u32 * params.rows;
        let end = if shape.n - begin < params.rows { shape.n } else { begin + params.rows };
        let mut feature = thread_idx_x() as usize;
        while feature < d {
            let (mut sum, mut squares) = (0.0, 0.0);
            let mut row = begin;
            while row < end {
                let point = batch * shape.n as u64 + row as u64;
                let x = *points.add((point * shape.pitch as u64) as usize + feature);
                let value = x.to_f32() as f64 * *scales.add(point as usize) as f64;
                sum += value;
                squares += value * value;
                row += 1;
            }
            *first.add(item as usize * d + feature) = sum;
            *second.add(item as usize * d + feature) = squares;
            feature += REDUCE_THREADS as usize;
        }
        item += grid_dim_x() as u64;
    }
}
