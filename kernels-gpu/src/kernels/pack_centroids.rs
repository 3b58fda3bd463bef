//! Centroids in the order in which Hopper's assignment streams them: a tile is one bulk copy.
//!
//! ```text
//! [tile of 128 centroids][panel of 64 features][centroid][8 chunks of 16 bytes], chunk c at c ^ (centroid % 8)
//! ```
//! That is the 128-byte swizzle which the product's descriptor names, so no tensor map is needed. Beside each
//! tile lie its biases `−½‖c‖²`, in the order a thread reads them; a centroid past the last has −∞ and never wins.
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::float::{Scalar, sqrt};
use cuda_std::thread::*;
use cuda_std::warp::*;

/// Packed centroids, their biases, the largest norm of each problem, and an empty list for `settle`.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, `packed` aligned to 16 bytes; a block has [`UPDATE_THREADS`]
/// threads; `d` is at most 128.
#[inline(always)]
pub(super) unsafe fn pack_centroids<T: Scalar>(
    centroids: *const T,
    states: *const LoopState,
    packed: *mut T,
    biases: *mut f32,
    largest: *mut u32,
    list_counts: *mut u32,
    params: PackParams,
) {
    let shape = params.shape;
    let panels = hopper_panels(shape.d);
    let tiles = params.tiles();
    let items = params.blocks();
    if block_idx_x() == 0 && thread_idx_x() == 0 {
        // The assignment that follows begins its list of unsure points.
        *list_counts = 0;
        *list_counts.add(1) = 0;
    }
    let mut item = block_idx_x() as u64;
    while item < items {
        let batch = div_u64(item, tiles as u64);
        let tile = (item - batch * tiles as u64) as u32;
        let largest = largest.add(batch as usize * 2);
        if tile == 0 && thread_idx_x() == 0 {
            // Nobody reads the other slot before the next packing raises it.
            *largest.add(1 - params.slot as usize) = 0;
        }
        if (*states.add(batch as usize)).done == 0 {
            let biases = biases.add((item * HOPPER_BIASES as u64) as usize);
            let mut row = warp_id();
            while row < HOPPER_CENTROIDS {
                let centroid = tile * HOPPER_CENTROIDS + row;
                let c = centroids.add(((batch * shape.k as u64 + centroid as u64) * shape.d as u64) as usize);
                // One lane a chunk of 8 features: at most 16 lanes have one.
                let chunk = lane_id();
                let inside = chunk < panels * 8;
                let mut norm = 0.0;
                let place = (item * panels as u64 + (chunk / 8) as u64) * HOPPER_PANEL_BYTES as u64
                    + (row * 128 + ((chunk & 7) ^ (row & 7)) * 16) as u64;
                let target = packed.add((place / size_of::<T>() as u64) as usize);
                let mut value = 0;
                while value < 8 {
                    let feature = chunk * 8 + value;
                    if inside {
                        let within = centroid < shape.k && feature < shape.d;
                        let v = if within { *c.add(feature as usize) } else { T::from_f32(0.0) };
                        let wide = v.to_f32() as f64;
                        norm += wide * wide;
                        *target.add(value as usize) = v;
                    }
                    value += 1;
                }
                let norm = warp_sum_f64(norm) as f32;
                if lane_id() == 0 {
                    let known = centroid < shape.k;
                    let bias = if known { -0.5 * norm } else { f32::NEG_INFINITY };
                    // Column 8j + 2q + e of a tile belongs to quarter q of a warp's lanes.
                    let (j, q, e) = (row / 8, row % 8 / 2, row % 2);
                    *biases.add((q * HOPPER_BIAS_PITCH + j * 2 + e) as usize) = bias;
                    if known {
                        // Norms are not negative, so their bits are in their order.
                        atomic::fetch_max_u32(largest.add(params.slot as usize), sqrt(norm).to_bits());
                    }
                }
                row += UPDATE_WARPS;
            }
        }
        item += grid_dim_x() as u64;
    }
}
