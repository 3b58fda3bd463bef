//! The end of an iteration of problems of few points, in one launch: means, the centroids as the tensor cores take them, and
//! whether a problem has converged. What `finalise`, `pack_centroids` and `converge` do one after the other.
//!
//! ```text
//! a block          some clusters of a problem: their means, and with each its place in a tile, its bias and its norm
//! the last block   of a problem: the largest of each tile, the iteration's statistics, whether there is another
//! ```
//! For such problems most of a launch is waiting for the one before, and then for memory.
use super::converge::{record, sum_of_part};
use super::finalise::{Also, Group, Means, Partials, means_of_block};
use super::pack_centroids::{Most, Packed, length_of, place_of_bias, sum_of_row};
use super::pack_points::tensor_scale;
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::float::{Scalar, max};
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const SHARED: FinishShared = FinishShared::new();

/// New centroids, rounded and packed, and the end of the iteration.
///
/// # Safety
/// Pointers are valid for the shapes in `params` and aligned to 16 bytes; a block has [`UPDATE_THREADS`] threads; features are
/// one chunk; tiles have their centroids' own order, and zeros where there are none; `centre` and `extents` are read where `T`
/// rounds, and may be null elsewhere; `counters` are zeros, and zeros again afterwards; statistics are those of an assignment to
/// the centroids so far.
#[inline(always)]
pub(super) unsafe fn finish<T: Scalar + Packed>(
    origin: *const T,
    sums: *const f32,
    heads: *const f32,
    starts: *const u32,
    centre: *const f32,
    extents: *const u32,
    tile_cost: *const f64,
    tile_changed: *const u32,
    thresholds: *const f64,
    states: *mut LoopState,
    centroids: *mut f32,
    rounded: *mut T,
    moves: *mut f64,
    packed: *mut u16,
    biases: *mut f32,
    norms: *mut f32,
    residuals: *mut f32,
    largest: *mut f32,
    list_counts: *mut u32,
    records: *mut IterationRecord,
    counters: *mut u32,
    params: FinishParams,
) {
    let (shape, of_means) = (params.means.shape, params.means);
    let tiles = Tiles { centre, extents, packed, biases, norms, residuals, shape };
    let partials = Partials { sums, heads, starts, params: of_means };
    let means = Means { origin, centroids, rounded, moves, also: tiles, params: of_means };
    let me = thread_idx_x();
    if block_idx_x() == 0 && me < LIST_COUNTS {
        // The next assignment begins its list of unsure points.
        *list_counts.add(me as usize) = 0;
    }
    let of_problem = params.blocks_of_problem();
    let mut item = block_idx_x();
    while item < shape.batch * of_problem {
        let batch = div(item, of_problem);
        if (*states.add(batch as usize)).done == 0 {
            let first = (item - batch * of_problem) * of_means.warps_of_block;
            means_of_block(|warp| Group::of_problem(batch, first + warp, of_means), partials, means, states);
            // What this block wrote is there before it counts as done.
            device_fence();
            sync_threads();
            let ended = SHARED.ended.here();
            if me == 0 {
                ended.set(0, atomic::fetch_add_u32(counters.add(batch as usize), 1) + 1);
            }
            sync_threads();
            if ended.get(0) == of_problem {
                device_fence();
                tiles.end(batch);
                let found = (moves.cast_const(), tile_cost, tile_changed);
                // Everyone is together in between.
                let all = sum_of_part(batch as u64, 0, 1, found, params.converge);
                if me == 0 {
                    // For the next launch.
                    *counters.add(batch as usize) = 0;
                    record(batch as u64, all, thresholds, states, records, params.converge);
                    tiles.store_largest(largest.add(batch as usize * 4), params.slot);
                }
            }
            // What the block has in common has been read.
            sync_threads();
        }
        item += grid_dim_x();
    }
}

/// Centroids as the tensor cores take them: see `pack_centroids`.
#[derive(Clone, Copy)]
struct Tiles {
    centre: *const f32,
    extents: *const u32,
    packed: *mut u16,
    biases: *mut f32,
    norms: *mut f32,
    residuals: *mut f32,
    shape: Shape,
}

impl Tiles {
    /// The biases of tile `tile` of a problem.
    #[inline(always)]
    unsafe fn biases_of(self, batch: u32, tile: u32) -> *mut f32 {
        let tile = batch as u64 * self.shape.centroid_tiles() as u64 + tile as u64;
        self.biases.add((tile * HOPPER_BIASES as u64) as usize)
    }

    /// The largest of each tile, a warp each, once all centroids are there.
    #[inline(always)]
    unsafe fn end(self, batch: u32) {
        let tile = warp_id();
        if tile < self.shape.centroid_tiles() {
            let mut most = Most::NONE;
            unroll!(I in [0, 1, 2, 3] => {
                const { assert!(HOPPER_CENTROIDS == 4 * WARP_SIZE) };
                let cluster = tile * HOPPER_CENTROIDS + I as u32 * WARP_SIZE + lane_id();
                if cluster < self.shape.k {
                    let place = (batch as u64 * self.shape.k as u64 + cluster as u64) as usize;
                    let norm = *self.norms.add(place);
                    let residual = *self.residuals.add(place);
                    most.take(Most { bias: -0.5 * norm, norm: length_of(norm), residual });
                }
            });
            most = most.of_warp();
            if lane_id() < 4 {
                most.store(self.biases_of(batch, tile), lane_id());
            }
            if lane_id() == 0 {
                SHARED.lengths.here().set(tile, most.norm);
                SHARED.residuals.here().set(tile, most.residual);
            }
        }
    }

    /// The largest of all tiles, `[slot][norm, residual]`, and nothing in the slot that is raised by the next packing.
    #[inline(always)]
    unsafe fn store_largest(self, largest: *mut f32, slot: u32) {
        let (mut norm, mut residual) = (0.0f32, 0.0f32);
        let mut tile = 0;
        while tile < self.shape.centroid_tiles() {
            norm = max(norm, SHARED.lengths.here().get(tile));
            residual = max(residual, SHARED.residuals.here().get(tile));
            tile += 1;
        }
        *largest.add(slot as usize * 2) = norm;
        *largest.add(slot as usize * 2 + 1) = residual;
        *largest.add((1 - slot) as usize * 2) = 0.0;
        *largest.add((1 - slot) as usize * 2 + 1) = 0.0;
    }
}

impl<T: Scalar + Packed> Also<T> for Tiles {
    #[inline(always)]
    unsafe fn take(self, batch: u32, cluster: u32, feature: u32, values: [f32; 4]) {
        let shape = self.shape;
        let scale = if T::ROUNDS { tensor_scale(*self.extents.add(batch as usize)) } else { 1.0 };
        let (mut norm, mut residual) = (T::Sum::default(), T::Sum::default());
        let mut words = [0u32; 2];
        unroll!(V in [0, 1, 2, 3] => {
            let feature = feature + V as u32;
            if feature < shape.d {
                let mut centre = 0.0;
                if T::ROUNDS {
                    centre = *self.centre.add((batch as u64 * shape.d as u64 + feature as u64) as usize);
                }
                let (bits, square, lost) = T::from_f32(values[V]).pack(0, centre, scale);
                words[V / 2] |= (bits as u32) << (V % 2 * 16);
                norm += square;
                residual += lost;
            }
        });
        let (tile, row) = (cluster / HOPPER_CENTROIDS, cluster % HOPPER_CENTROIDS);
        if feature < shape.d {
            let panels = hopper_panels(shape.d) as u64;
            let tile = batch as u64 * shape.centroid_tiles() as u64 + tile as u64;
            let (panel, chunk) = (feature / HOPPER_PANEL_FEATURES, feature % HOPPER_PANEL_FEATURES / 8);
            let place = (tile * panels + panel as u64) * HOPPER_PANEL_BYTES as u64
                + (row * 128 + (chunk ^ (row & 7)) * 16 + feature % 8 * 2) as u64;
            let word = words[0] as u64 | (words[1] as u64) << 32;
            *self.packed.cast::<u8>().add(place as usize).cast::<u64>() = word;
        }
        let norm = T::rounded(sum_of_row(norm, WARP_SIZE));
        let residual = if T::ROUNDS { T::root_above(sum_of_row(residual, WARP_SIZE)) } else { 0.0 };
        if lane_id() == 0 {
            *self.biases_of(batch, tile).add(place_of_bias(row)) = -0.5 * norm;
            let place = (batch as u64 * shape.k as u64 + cluster as u64) as usize;
            *self.norms.add(place) = norm;
            *self.residuals.add(place) = residual;
        }
    }
}
