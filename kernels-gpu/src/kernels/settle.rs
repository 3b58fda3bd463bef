//! Points whose nearest centroid a tensor-core pass could not tell, settled in f64.
use super::assign::distance_f64;
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::float::Scalar;
use cuda_std::thread::*;
use cuda_std::warp::*;

/// For each point in the list: its label among two candidates, or among all when there are more, and the change
/// of its label. A warp a point, a centroid a lane, features in order: the definition, so that every backend
/// gives the same label.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`UPDATE_THREADS`] threads; the list has `*count`
/// entries.
#[inline(always)]
pub(super) unsafe fn settle<T: Scalar>(
    points: *const T,
    centroids: *const T,
    count: *const u32,
    rows: *const u32,
    first: *const u32,
    second: *const u32,
    labels: *mut u32,
    changed: *mut u32,
    params: SettleParams,
) {
    let shape = params.shape;
    let count = *count;
    let mut entry = block_idx_x() * UPDATE_WARPS + warp_id();
    while entry < count {
        let row = *rows.add(entry as usize);
        let candidates = [*first.add(entry as usize), *second.add(entry as usize)];
        let batch = div(row, shape.n);
        let x = points.add((row as u64 * shape.pitch as u64) as usize);
        let centroids = centroids.add((batch as u64 * shape.k as u64 * shape.d as u64) as usize);
        let many = candidates[1] == MANY_CANDIDATES;

        let mut best = f64::INFINITY;
        let mut label = u32::MAX;
        let mut turn = lane_id();
        let turns = if many { shape.k } else { 2 };
        while turn < turns {
            let named = if turn == 0 { candidates[0] } else { candidates[1] };
            let centroid = if many { turn } else { named };
            let c = centroids.add((centroid as u64 * shape.d as u64) as usize);
            let distance = distance_f64(x, c, shape.d);
            if distance < best {
                best = distance;
                label = centroid;
            }
            turn += WARP_SIZE;
        }
        let mut offset = 16;
        while offset > 0 {
            let other = warp_shuffle_xor(FULL_MASK, best, offset);
            let other_label = warp_shuffle_xor(FULL_MASK, label, offset);
            let better = other < best || (other == best && other_label < label);
            best = if better { other } else { best };
            label = if better { other_label } else { label };
            offset >>= 1;
        }
        if lane_id() == 0 {
            let place = labels.add(row as usize);
            if *place != label {
                *place = label;
                let tiles = shape.n.div_ceil(HOPPER_POINTS);
                let tile = batch * tiles + (row - batch * shape.n) / HOPPER_POINTS;
                atomic::fetch_add_u32(changed.add((tile * HOPPER_WARPS) as usize), 1);
            }
        }
        entry += grid_dim_x() * UPDATE_WARPS;
    }
}
