//! Centroids in the order in which Hopper's assignment streams them: a tile is one bulk copy.
//!
//! ```text
//! [tile of 128 centroids][panel of 64 features][centroid][8 chunks of 16 bytes], chunk c at c ^ (centroid % 8)
//! ```
//! That is the 128-byte swizzle which the product's descriptor names, so no tensor map is needed. Beside each
//! tile lie its biases `−½‖c‖²`, in the order a thread reads them; a centroid past the last has −∞ and never wins.
use super::pack_points::{norm_above, tensor_scale};
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::float::{BF16, F16, Scalar, sqrt};
use cuda_std::thread::*;
use cuda_std::warp::*;

/// A type of points, and how the tensor cores take its centroids.
pub(super) trait Packed: Scalar {
    /// Whether centroids are taken about a centre, scaled and rounded.
    const ROUNDS: bool;
    /// The 16 bits of a coordinate, and their value.
    fn pack(value: f64) -> (u16, f64);
}
impl Packed for F16 {
    const ROUNDS: bool = false;
    #[inline(always)]
    fn pack(value: f64) -> (u16, f64) {
        (F16::from_f32(value as f32).0, value)
    }
}
impl Packed for BF16 {
    const ROUNDS: bool = false;
    #[inline(always)]
    fn pack(value: f64) -> (u16, f64) {
        (BF16::from_f32(value as f32).0, value)
    }
}
impl Packed for f32 {
    const ROUNDS: bool = true;
    #[inline(always)]
    fn pack(value: f64) -> (u16, f64) {
        let rounded = F16::from_f32(value as f32);
        (rounded.0, rounded.to_f32() as f64)
    }
}

/// Packed centroids, their biases, the largest norm and residual of each problem, and an empty list for `settle`.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, `packed` aligned to 16 bytes; a block has [`UPDATE_THREADS`]
/// threads; `centre` and `extents` are read where `T` rounds, and may be null elsewhere.
#[inline(always)]
pub(super) unsafe fn pack_centroids<T: Packed>(
    centroids: *const T,
    centre: *const f32,
    extents: *const u32,
    states: *const LoopState,
    packed: *mut u16,
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
        const PARTS: u32 = HOPPER_CENTROIDS / PACK_ROWS;
        let part = item as u32 % PARTS;
        let tile_of_all = item / PARTS as u64;
        let batch = div_u64(tile_of_all, tiles as u64);
        let tile = (tile_of_all - batch * tiles as u64) as u32;
        // `[slot][norm, residual]` of the problem.
        let largest = largest.add(batch as usize * 4);
        if tile == 0 && part == 0 && thread_idx_x() < 2 {
            // Nobody reads the other slot before the next packing raises it.
            *largest.add(((1 - params.slot) * 2 + thread_idx_x()) as usize) = 0;
        }
        if (*states.add(batch as usize)).done == 0 {
            let scale = if T::ROUNDS { tensor_scale(*extents.add(batch as usize)) } else { 1.0 };
            let centre = if T::ROUNDS { centre.add(batch as usize * shape.d as usize) } else { centre };
            let biases = biases.add((tile_of_all * HOPPER_BIASES as u64) as usize);
            let mut row = part * PACK_ROWS + warp_id();
            while row < (part + 1) * PACK_ROWS {
                let centroid = tile * HOPPER_CENTROIDS + row;
                let c = centroids.add(((batch * shape.k as u64 + centroid as u64) * shape.d as u64) as usize);
                let (mut norm, mut residual) = (0.0, 0.0);
                // One lane a chunk of 8 features.
                let mut chunk = lane_id();
                while chunk < panels * 8 {
                    let place = (tile_of_all * panels as u64 + (chunk / 8) as u64)
                        * HOPPER_PANEL_BYTES as u64
                        + (row * 128 + ((chunk & 7) ^ (row & 7)) * 16) as u64;
                    let target = packed.add((place / 2) as usize);
                    let mut value = 0;
                    while value < 8 {
                        let feature = (chunk * 8 + value) as usize;
                        let mut bits = 0;
                        if centroid < shape.k && feature < shape.d as usize {
                            let mut exact = (*c.add(feature)).to_f32() as f64;
                            if T::ROUNDS {
                                exact = (exact - *centre.add(feature) as f64) * scale;
                            }
                            let (packed, rounded) = T::pack(exact);
                            bits = packed;
                            norm += exact * exact;
                            residual += (exact - rounded) * (exact - rounded);
                        }
                        *target.add(value as usize) = bits;
                        value += 1;
                    }
                    chunk += WARP_SIZE;
                }
                let norm = warp_sum_f64(norm) as f32;
                let residual = if T::ROUNDS { norm_above(warp_sum_f64(residual)) } else { 0.0 };
                if lane_id() == 0 {
                    let known = centroid < shape.k;
                    let bias = if known { -0.5 * norm } else { f32::NEG_INFINITY };
                    // Column 8j + 2q + e of a tile belongs to quarter q of a warp's lanes.
                    let (j, q, e) = (row / 8, row % 8 / 2, row % 2);
                    *biases.add((q * HOPPER_BIAS_PITCH + j * 2 + e) as usize) = bias;
                    if known {
                        // Norms are not negative, so their bits are in their order.
                        let slot = largest.add(params.slot as usize * 2);
                        atomic::fetch_max_u32(slot, sqrt(norm).to_bits());
                        if T::ROUNDS {
                            atomic::fetch_max_u32(slot.add(1), residual.to_bits());
                        }
                    }
                }
                row += UPDATE_WARPS;
            }
        }
        item += grid_dim_x() as u64;
    }
}
