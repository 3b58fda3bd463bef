//! Centroids in the order in which Hopper's assignment streams them: a tile is one bulk copy.
//!
//! ```text
//! [tile of 128 centroids][panel of 64 features][centroid][8 chunks of 16 bytes], chunk c at c ^ (centroid % 8)
//! ```
//! That is the 128-byte swizzle which the product's descriptor names, so no tensor map is needed. Beside each
//! tile lie its biases `−½‖c‖²`, in the order a thread reads them, and the largest of them; a centroid past the last
//! has −∞ and never wins.
use super::pack_points::{LOWER_SQUARED, Parts, norm_above, tensor_scale};
use super::sort::sum_before;
use crate::spec::*;
use core::ops::AddAssign;
use cuda_std::atomic;
use cuda_std::float::{BF16, F16, Scalar, max, sqrt};
use cuda_std::ptr::store_v4;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const SHARED: PackShared = PackShared::new();
const ORDER: OrderShared = OrderShared::new();

/// A type of points, and how the tensor cores take its centroids.
pub(super) trait Packed: Copy {
    /// Whether centroids are taken about a centre, scaled and rounded.
    const ROUNDS: bool;
    /// What norms are summed in.
    type Sum: Copy + Default + AddAssign + WarpShuffleValue;
    /// Rows of 16 bits that stand for one.
    const PARTS: u32 = 1;
    /// The 16 bits of a part of a coordinate; and in the first, its square, and that of what rounding takes.
    fn pack(self, part: u32, centre: f32, scale: f64) -> (u16, Self::Sum, Self::Sum);
    /// The nearest f32.
    fn rounded(sum: Self::Sum) -> f32;
    /// An f32 that the root of `sum` does not exceed.
    fn root_above(sum: Self::Sum) -> f32;
}
macro_rules! packed_as_they_are {
    ($($type:ty),*) => {$(
        impl Packed for $type {
            const ROUNDS: bool = false;
            // Of squares that are exact or nearly; the bound of scores has room for the rounding of the sum.
            type Sum = f32;
            #[inline(always)]
            fn pack(self, _: u32, _: f32, _: f64) -> (u16, f32, f32) {
                let value = self.to_f32();
                (self.0, value * value, 0.0)
            }
            #[inline(always)]
            fn rounded(sum: f32) -> f32 {
                sum
            }
            #[inline(always)]
            fn root_above(_: f32) -> f32 {
                0.0
            }
        }
    )*};
}
packed_as_they_are! { F16, BF16 }
impl Packed for f32 {
    const ROUNDS: bool = true;
    type Sum = f64;
    #[inline(always)]
    fn pack(self, _: u32, centre: f32, scale: f64) -> (u16, f64, f64) {
        let exact = (self as f64 - centre as f64) * scale;
        let rounded = F16::from_f32(exact as f32);
        let lost = exact - rounded.to_f32() as f64;
        (rounded.0, exact * exact, lost * lost)
    }
    #[inline(always)]
    fn rounded(sum: f64) -> f32 {
        sum as f32
    }
    #[inline(always)]
    fn root_above(sum: f64) -> f32 {
        norm_above(sum)
    }
}

/// An f32 in two parts, the upper one twice: `[upper | lower | upper]`.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct InParts(f32);
impl Packed for InParts {
    const ROUNDS: bool = true;
    const PARTS: u32 = REFINE_PARTS;
    type Sum = f64;
    /// What is lost has room for the product of both lower parts, which nothing multiplies: with a point's, which is no more than
    /// 2⁻¹¹ of the point. `(a + b)² ≤ 2(a² + b²)`.
    #[inline(always)]
    fn pack(self, part: u32, centre: f32, scale: f64) -> (u16, f64, f64) {
        let exact = (self.0 as f64 - centre as f64) * scale;
        let parts = Parts::of(exact);
        let lost = parts.lost * parts.lost + LOWER_SQUARED * parts.below();
        match part {
            0 => (parts.upper.0, exact * exact, 2.0 * lost),
            1 => (parts.lower.0, 0.0, 0.0),
            _ => (parts.upper.0, 0.0, 0.0),
        }
    }
    #[inline(always)]
    fn rounded(sum: f64) -> f32 {
        sum as f32
    }
    #[inline(always)]
    fn root_above(sum: f64) -> f32 {
        norm_above(sum)
    }
}

/// f32 centroids in parts, for the second assignment of unsure points, if there is one: packed, their biases, and the largest
/// norm and residual.
///
/// # Safety
/// As [`pack_centroids`]; `list_counts` are what the first assignment leaves.
#[inline(always)]
pub(super) unsafe fn split_centroids<const PRODUCTS: bool>(
    centroids: *const f32,
    centre: *const f32,
    extents: *const u32,
    order: *const u32,
    states: *const LoopState,
    list_counts: *const u32,
    packed: *mut u16,
    biases: *mut f32,
    largest: *mut u32,
    params: RefineParams,
) {
    let none = core::ptr::null_mut();
    let pack = PackParams { shape: params.shape, slot: params.slot };
    let is_wanted = params.count(*list_counts.add(LIST_MANY)) > 0;
    if is_wanted {
        let (plain, norms, residuals, counts) = (core::ptr::null_mut(), none, none, core::ptr::null_mut());
        pack_centroids::<InParts, PRODUCTS>(
            centroids.cast(),
            centre,
            extents,
            order,
            states,
            packed,
            plain,
            biases,
            norms,
            residuals,
            largest,
            counts,
            pack,
        );
    }
}

/// Packed centroids, their biases, the largest norm and residual of each problem, an empty list for `settle`; and, by
/// centroid, the same 16 bits one after the other, squared norms and residuals.
///
/// For products, biases are 0, nothing is a centre, and `extents` are those of the centroids: the scale brings the longest
/// under 2¹⁵, so that its length is of the order of the least a packed row has.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, `packed` and `plain` aligned to 16 bytes; a block has [`PACK_THREADS`]
/// threads; `centre`, not for products, and `extents` are read where `T` rounds, and may be null elsewhere; `order` says
/// which centroid each place of the tiles has, or is null for their own order. Of a `T` in parts, `plain`, `norms`, `residuals` and
/// `list_counts` are not touched.
#[inline(always)]
pub(super) unsafe fn pack_centroids<T: Packed, const PRODUCTS: bool>(
    centroids: *const T,
    centre: *const f32,
    extents: *const u32,
    order: *const u32,
    states: *const LoopState,
    packed: *mut u16,
    plain: *mut u16,
    biases: *mut f32,
    norms: *mut f32,
    residuals: *mut f32,
    largest: *mut u32,
    list_counts: *mut u32,
    params: PackParams,
) {
    const WARPS: u32 = PACK_THREADS / WARP_SIZE;
    let shape = params.shape;
    let part_chunks = hopper_panels(shape.d) * 8;
    let panels = hopper_panels(shape.d) * T::PARTS;
    let tiles = params.tiles();
    let lanes = params.lanes();
    // A thread's place among those of its row, and its row among those of its warp.
    let (lane, row_of_warp) = (lane_id() & (lanes - 1), div(lane_id(), lanes));
    let rows_of_warp = div(WARP_SIZE, lanes);
    if const { T::PARTS == 1 } && block_idx_x() == 0 && thread_idx_x() < LIST_COUNTS {
        // The assignment that follows begins its list of unsure points.
        *list_counts.add(thread_idx_x() as usize) = 0;
    }
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let batch = div_u64(item, tiles as u64);
        let tile = (item - batch * tiles as u64) as u32;
        // `[slot][norm, residual]` of the problem.
        let largest = largest.add(batch as usize * 4);
        if tile == 0 && thread_idx_x() < 2 {
            // Nobody reads the other slot before the next packing raises it.
            *largest.add(((1 - params.slot) * 2 + thread_idx_x()) as usize) = 0;
        }
        if (*states.add(batch as usize)).done == 0 {
            let scale = if T::ROUNDS { tensor_scale(*extents.add(batch as usize)) } else { 1.0 };
            let scale = if PRODUCTS && T::ROUNDS { scale * under_root(shape.d) } else { scale };
            let centre =
                if T::ROUNDS && !PRODUCTS { centre.add(batch as usize * shape.d as usize) } else { centre };
            let biases = biases.add((item * HOPPER_BIASES as u64) as usize);
            let mut most = Most::NONE;
            let mut row = warp_id() * rows_of_warp + row_of_warp;
            while row < HOPPER_CENTROIDS {
                let place = tile * HOPPER_CENTROIDS + row;
                let known = place < shape.k;
                let mut centroid = batch * shape.k as u64;
                if known {
                    centroid += if order.is_null() {
                        place as u64
                    } else {
                        *order.add((centroid + place as u64) as usize) as u64
                    };
                }
                let c = centroids.add((centroid * shape.d as u64) as usize);
                let (mut norm, mut residual) = (T::Sum::default(), T::Sum::default());
                let mut chunk = lane;
                while chunk < panels * 8 {
                    let place = place_of_chunk(item, panels, row, chunk);
                    let part = if const { T::PARTS == 1 } || chunk < part_chunks {
                        0
                    } else if chunk < 2 * part_chunks {
                        1
                    } else {
                        2
                    };
                    let of_part = chunk - part * part_chunks;
                    let mut words = [0u32; 4];
                    unroll!(V in [0, 1, 2, 3, 4, 5, 6, 7] => {
                        let feature = of_part as usize * 8 + V;
                        if known && feature < shape.d as usize {
                            let centre = if T::ROUNDS && !PRODUCTS { *centre.add(feature) } else { 0.0 };
                            let (bits, square, lost) = (*c.add(feature)).pack(part, centre, scale);
                            words[V / 2] |= (bits as u32) << (V % 2 * 16);
                            norm += square;
                            residual += lost;
                        }
                    });
                    store_v4(packed.cast::<u8>().add(place as usize).cast(), words);
                    if const { T::PARTS == 1 } && known && chunk * 8 < hopper_row(shape.d) {
                        let place = centroid * hopper_row(shape.d) as u64 + chunk as u64 * 8;
                        store_v4(plain.add(place as usize).cast(), words);
                    }
                    chunk += lanes;
                }
                let norm = T::rounded(sum_of_row(norm, lanes));
                let residual = if T::ROUNDS { T::root_above(sum_of_row(residual, lanes)) } else { 0.0 };
                let bias = if PRODUCTS {
                    if known { 0.0 } else { f32::NEG_INFINITY }
                } else {
                    if known { -0.5 * norm } else { f32::NEG_INFINITY }
                };
                if known {
                    most.take(Most { bias, norm: length_of(norm), residual });
                }
                if lane == 0 {
                    *biases.add(place_of_bias(row)) = bias;
                    if const { T::PARTS == 1 } && known {
                        *norms.add(centroid as usize) = norm;
                        *residuals.add(centroid as usize) = residual;
                    }
                }
                row += WARPS * rows_of_warp;
            }
            most = most.of_block();
            if thread_idx_x() < 4 {
                most.store(biases, thread_idx_x());
            }
            if thread_idx_x() == 0 {
                // Norms are not negative, so their bits are in their order.
                let slot = largest.add(params.slot as usize * 2);
                atomic::fetch_max_u32(slot, most.norm.to_bits());
                if T::ROUNDS {
                    atomic::fetch_max_u32(slot.add(1), most.residual.to_bits());
                }
            }
        }
        item += grid_dim_x() as u64;
    }
}

/// Where chunk `chunk` of row `row` of a tile is, in bytes: of panels of 8 chunks, swizzled.
#[inline(always)]
pub(super) fn place_of_chunk(tile: u64, panels: u32, row: u32, chunk: u32) -> u64 {
    (tile * panels as u64 + (chunk / 8) as u64) * HOPPER_PANEL_BYTES as u64
        + (row * 128 + ((chunk & 7) ^ (row & 7)) * 16) as u64
}

/// Where the bias of row `row` of a tile is: column `8j + 2q + e` belongs to quarter `q` of a warp's lanes.
#[inline(always)]
pub(super) fn place_of_bias(row: u32) -> usize {
    let (j, q, e) = (row / 8, row % 8 / 2, row % 2);
    (q * HOPPER_BIAS_PITCH + j * 2 + e) as usize
}

/// How long a centroid counts as, of this squared norm.
#[inline(always)]
pub(super) fn length_of(norm: f32) -> f32 {
    max(sqrt(norm), LEAST_NORM)
}

/// A power of two that is not above `1 / √d`, nor under half of it.
#[inline(always)]
fn under_root(d: u32) -> f64 {
    let half = (u32::BITS - (d - 1).leading_zeros()).div_ceil(2);
    f64::from_bits(((1023 - half) as u64) << 52)
}

/// The sum over the lanes that share a row, in each of them.
#[inline(always)]
pub(super) unsafe fn sum_of_row<S: Copy + AddAssign + WarpShuffleValue>(mut value: S, lanes: u32) -> S {
    let mut offset = lanes / 2;
    while offset > 0 {
        value += warp_shuffle_xor(FULL_MASK, value, offset);
        offset >>= 1;
    }
    value
}

/// The largest values of some centroids.
#[derive(Clone, Copy)]
pub(super) struct Most {
    pub(super) bias: f32,
    pub(super) norm: f32,
    pub(super) residual: f32,
}

impl Most {
    pub(super) const NONE: Most = Most { bias: f32::NEG_INFINITY, norm: 0.0, residual: 0.0 };

    /// Takes those of others.
    #[inline(always)]
    pub(super) fn take(&mut self, other: Most) {
        self.bias = max(self.bias, other.bias);
        self.norm = max(self.norm, other.norm);
        self.residual = max(self.residual, other.residual);
    }

    /// Those of a warp, in every lane.
    #[inline(always)]
    pub(super) unsafe fn of_warp(mut self) -> Most {
        let mut offset = 16;
        while offset > 0 {
            self.take(Most {
                bias: warp_shuffle_xor(FULL_MASK, self.bias, offset),
                norm: warp_shuffle_xor(FULL_MASK, self.norm, offset),
                residual: warp_shuffle_xor(FULL_MASK, self.residual, offset),
            });
            offset >>= 1;
        }
        self
    }

    /// Stores those of a tile for a quarter of a warp's lanes.
    #[inline(always)]
    pub(super) unsafe fn store(self, biases: *mut f32, quarter: u32) {
        let place = biases.add((quarter * HOPPER_BIAS_PITCH + HOPPER_LARGEST) as usize);
        *place = self.bias;
        *place.add(1) = self.norm;
        *place.add(2) = self.residual;
        // What a copy of whole vectors takes along.
        *place.add(3) = 0.0;
    }

    /// In the threads of the first warp.
    #[inline(always)]
    unsafe fn of_block(self) -> Most {
        const { assert!(PACK_THREADS == WARP_SIZE * WARP_SIZE) };
        let (biases, norms, residuals) = (SHARED.biases.here(), SHARED.norms.here(), SHARED.residuals.here());
        let of_warp = self.of_warp();
        // The block's tile before has been read.
        sync_threads();
        if lane_id() == 0 {
            biases.set(warp_id(), of_warp.bias);
            norms.set(warp_id(), of_warp.norm);
            residuals.set(warp_id(), of_warp.residual);
        }
        sync_threads();
        if warp_id() > 0 {
            return of_warp;
        }
        let (bias, norm, residual) = (biases.get(lane_id()), norms.get(lane_id()), residuals.get(lane_id()));
        Most { bias, norm, residual }.of_warp()
    }
}

/// Centroids in the order of their norms, the shortest first, or nearly: by the upper bits of what spreads them. A tile
/// then has biases that differ little, and later tiles matter to few points. Which of two of a bin comes first may
/// differ from run to run; no result depends on it.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`ORDER_THREADS`] threads; `norms` are not negative.
#[inline(always)]
pub(super) unsafe fn order_centroids(
    norms: *const f32,
    states: *const LoopState,
    order: *mut u32,
    params: OrderParams,
) {
    const { assert!(ORDER_BINS == 2 * ORDER_THREADS && ORDER_THREADS == WARP_SIZE * WARP_SIZE) };
    let k = params.shape.k;
    let (places, warps) = (ORDER.places.here(), ORDER.warps.here());
    let me = thread_idx_x();
    let mut batch = block_idx_x();
    while batch < params.shape.batch {
        if (*states.add(batch as usize)).done == 0 {
            // As integers: bits of what is not negative are in its order.
            let norms = norms.cast::<u32>().add((batch as u64 * k as u64) as usize);
            let order = order.add((batch as u64 * k as u64) as usize);
            let (mut least, mut most) = (u32::MAX, 0);
            let mut centroid = me;
            while centroid < k {
                let norm = *norms.add(centroid as usize);
                least = least.min(norm);
                most = most.max(norm);
                centroid += ORDER_THREADS;
            }
            (least, most) = extremes_of_warp(least, most);
            if lane_id() == 0 {
                warps.set(warp_id(), least);
                warps.set(WARP_SIZE + warp_id(), most);
            }
            places.set(me, 0);
            places.set(ORDER_THREADS + me, 0);
            sync_threads();
            (least, most) = extremes_of_warp(warps.get(lane_id()), warps.get(WARP_SIZE + lane_id()));
            let bits = u32::BITS - (most - least).leading_zeros();
            let shift = bits.saturating_sub(ORDER_BINS.ilog2());
            let bin = |centroid: u32| (*norms.add(centroid as usize) - least) >> shift;

            let mut centroid = me;
            while centroid < k {
                places.fetch_add(bin(centroid), 1);
                centroid += ORDER_THREADS;
            }
            sync_threads();
            let (first, second) = (places.get(2 * me), places.get(2 * me + 1));
            let before = sum_before::<{ ORDER_THREADS / WARP_SIZE }>(first + second, warps);
            places.set(2 * me, before);
            places.set(2 * me + 1, before + first);
            sync_threads();
            let mut centroid = me;
            while centroid < k {
                *order.add(places.fetch_add(bin(centroid), 1) as usize) = centroid;
                centroid += ORDER_THREADS;
            }
            sync_threads();
        }
        batch += grid_dim_x();
    }
}

#[inline(always)]
unsafe fn extremes_of_warp(mut least: u32, mut most: u32) -> (u32, u32) {
    let mut offset = 16;
    while offset > 0 {
        least = least.min(warp_shuffle_xor(FULL_MASK, least, offset));
        most = most.max(warp_shuffle_xor(FULL_MASK, most, offset));
        offset >>= 1;
    }
    (least, most)
}
