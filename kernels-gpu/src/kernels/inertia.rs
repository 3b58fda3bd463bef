//! The inertia by its definition, `Σ (x − c)²`, in f64: the expanded form would cancel.
use crate::spec::*;
use cuda_std::float::Scalar;
use cuda_std::thread::*;
use cuda_std::warp::*;

const SHARED: InertiaShared = InertiaShared::new();
const WARPS: u32 = REDUCE_THREADS / WARP_SIZE;

/// One partial sum for each [`INERTIA_ROWS`] rows of each problem: a warp a row, a lane a feature.
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
    let warp_sums = SHARED.warp_sums.here();
    let items = params.blocks();
    let mut item = block_idx_x() as u64;
    while item < items {
        let batch = div_u64(item, params.tiles() as u64);
        let first = (item - batch * params.tiles() as u64) as u32 * INERTIA_ROWS;
        let end = if shape.n - first < INERTIA_ROWS { shape.n } else { first + INERTIA_ROWS };
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
        let sum = warp_sum_f64(sum);
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
            *partial.add(item as usize) = total;
        }
        sync_threads();
        item += grid_dim_x() as u64;
    }
}
