//! Every entry point, one row each.
//!
//! A row names the entry and its argument struct, the generic body, the pointers, the parameter struct
//! and the block. Pointers are top-level arguments because inside a by-value struct they would lose
//! their address space; scalars travel in one small `#[repr(C)]` struct.

#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod assign;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod converge;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod finalise;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod inertia;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod moments;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod segment_sums;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod sort;

use crate::spec::*;
use cuda_std::float::{BF16, F16};

/// An entry point with the arguments of one launch.
#[cfg(not(target_arch = "nvptx64"))]
pub trait Kernel: Copy {
    /// What a launch must be like.
    const SPEC: KernelSpec;
    /// Items of this launch: blocks that have something to do.
    fn blocks(&self) -> u64;
    /// The arguments' addresses, in the entry's order, as `cuLaunchKernel` takes them.
    fn with_addresses<R>(&self, launch: impl FnOnce(&mut [*mut core::ffi::c_void]) -> R) -> R;
    /// Runs this thread's part; only inside `cuda_std::simt::launch`.
    ///
    /// # Safety
    /// The pointers must be valid for the shapes in the parameters.
    #[cfg(feature = "simt")]
    unsafe fn run(self);
}

macro_rules! kernels {
    ($( $(#[$doc:meta])* $entry:ident: $Args:ident = $body:path,
        ($($pointer:ident: $pointee:ty),* ; $params:ident: $Params:ty), $shape:expr; )*) => {
        $(
            $(#[$doc])*
            #[cfg(target_arch = "nvptx64")]
            #[unsafe(no_mangle)]
            pub unsafe extern "ptx-kernel" fn $entry($($pointer: $pointee,)* $params: $Params) {
                $body($($pointer,)* $params)
            }

            $(#[$doc])*
            #[cfg(not(target_arch = "nvptx64"))]
            #[derive(Clone, Copy, Debug)]
            #[allow(missing_docs)]
            pub struct $Args { $(pub $pointer: $pointee,)* pub $params: $Params }

            #[cfg(not(target_arch = "nvptx64"))]
            impl Kernel for $Args {
                const SPEC: KernelSpec = $shape.named(stringify!($entry));
                fn blocks(&self) -> u64 {
                    self.$params.blocks()
                }
                fn with_addresses<R>(&self, launch: impl FnOnce(&mut [*mut core::ffi::c_void]) -> R) -> R {
                    launch(&mut [
                        $((&raw const self.$pointer).cast_mut().cast(),)*
                        (&raw const self.$params).cast_mut().cast(),
                    ])
                }
                #[cfg(feature = "simt")]
                unsafe fn run(self) {
                    $body($(self.$pointer,)* self.$params)
                }
            }
        )*
        /// What every entry point needs.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const ALL: &[KernelSpec] = &[$($Args::SPEC),*];
    };
}

#[cfg(not(target_arch = "nvptx64"))]
const ASSIGN: BlockShape = BlockShape::new(ASSIGN_THREADS).shared(AssignShared::new().bytes).blocks_per_sm(2);
#[cfg(not(target_arch = "nvptx64"))]
const HISTOGRAM: BlockShape = BlockShape::new(SORT_THREADS).shared(HistogramShared::new().bytes);
#[cfg(not(target_arch = "nvptx64"))]
const SCAN: BlockShape = BlockShape::new(SORT_THREADS);
#[cfg(not(target_arch = "nvptx64"))]
const SCATTER: BlockShape = BlockShape::new(SORT_THREADS).shared(ScatterShared::new().bytes);
#[cfg(not(target_arch = "nvptx64"))]
const UPDATE: BlockShape = BlockShape::new(UPDATE_THREADS);
#[cfg(not(target_arch = "nvptx64"))]
const CONVERGE: BlockShape = BlockShape::new(REDUCE_THREADS).shared(ConvergeShared::new().bytes);
#[cfg(not(target_arch = "nvptx64"))]
const INERTIA: BlockShape = BlockShape::new(REDUCE_THREADS).shared(InertiaShared::new().bytes);
#[cfg(not(target_arch = "nvptx64"))]
const MOMENTS: BlockShape = BlockShape::new(REDUCE_THREADS);

kernels! {
    /// Nearest centroid of f32 points, in plain f32 arithmetic.
    fk_assign_f32: AssignF32 = assign::assign::<f32>,
        (points: *const f32, centroids: *const f32, states: *const LoopState, labels: *mut u32,
         tile_cost: *mut f64, tile_changed: *mut u32; params: AssignParams), ASSIGN;
    /// Nearest centroid of f16 points, in plain f32 arithmetic.
    fk_assign_f16: AssignF16 = assign::assign::<F16>,
        (points: *const F16, centroids: *const f32, states: *const LoopState, labels: *mut u32,
         tile_cost: *mut f64, tile_changed: *mut u32; params: AssignParams), ASSIGN;
    /// Nearest centroid of bf16 points, in plain f32 arithmetic.
    fk_assign_bf16: AssignBf16 = assign::assign::<BF16>,
        (points: *const BF16, centroids: *const f32, states: *const LoopState, labels: *mut u32,
         tile_cost: *mut f64, tile_changed: *mut u32; params: AssignParams), ASSIGN;

    /// Sort pass, first step: keys of each digit in each tile.
    fk_sort_histogram: SortHistogram = sort::histogram,
        (labels: *const u32, order: *const u32, states: *const LoopState,
         histogram: *mut u32; params: SortParams), HISTOGRAM;
    /// Sort pass, second step: where the first key of each digit of each tile goes.
    fk_sort_scan: SortScan = sort::scan,
        (histogram: *mut u32, totals: *mut u32; params: ScanParams), SCAN;
    /// Sort pass, third step: indices to their places.
    fk_sort_scatter: SortScatter = sort::scatter,
        (labels: *const u32, order: *const u32, histogram: *const u32, totals: *const u32,
         states: *const LoopState, sorted: *mut u32; params: SortParams), SCATTER;
    /// Where each cluster begins in its panel's sorted order.
    fk_segment_starts: SegmentStarts = sort::segment_starts,
        (labels: *const u32, sorted: *const u32, states: *const LoopState,
         starts: *mut u32; params: StartsParams), UPDATE;

    /// Sums of sorted f32 points, 16 bytes a lane.
    fk_segment_sums_f32_v4: SegmentSumsF32V4 = segment_sums::segment_sums::<f32, 4>,
        (points: *const f32, labels: *const u32, sorted: *const u32, starts: *const u32,
         states: *const LoopState, sums: *mut f32, heads: *mut f32; params: SumsParams), UPDATE;
    /// Sums of sorted f16 points, 16 bytes a lane.
    fk_segment_sums_f16_v8: SegmentSumsF16V8 = segment_sums::segment_sums::<F16, 8>,
        (points: *const F16, labels: *const u32, sorted: *const u32, starts: *const u32,
         states: *const LoopState, sums: *mut f32, heads: *mut f32; params: SumsParams), UPDATE;
    /// Sums of sorted bf16 points, 16 bytes a lane.
    fk_segment_sums_bf16_v8: SegmentSumsBf16V8 = segment_sums::segment_sums::<BF16, 8>,
        (points: *const BF16, labels: *const u32, sorted: *const u32, starts: *const u32,
         states: *const LoopState, sums: *mut f32, heads: *mut f32; params: SumsParams), UPDATE;
    /// Sums of sorted f32 points whose rows are no multiple of 16 bytes.
    fk_segment_sums_f32_v1: SegmentSumsF32V1 = segment_sums::segment_sums::<f32, 1>,
        (points: *const f32, labels: *const u32, sorted: *const u32, starts: *const u32,
         states: *const LoopState, sums: *mut f32, heads: *mut f32; params: SumsParams), UPDATE;
    /// Sums of sorted f16 points whose rows are no multiple of 16 bytes.
    fk_segment_sums_f16_v1: SegmentSumsF16V1 = segment_sums::segment_sums::<F16, 1>,
        (points: *const F16, labels: *const u32, sorted: *const u32, starts: *const u32,
         states: *const LoopState, sums: *mut f32, heads: *mut f32; params: SumsParams), UPDATE;
    /// Sums of sorted bf16 points whose rows are no multiple of 16 bytes.
    fk_segment_sums_bf16_v1: SegmentSumsBf16V1 = segment_sums::segment_sums::<BF16, 1>,
        (points: *const BF16, labels: *const u32, sorted: *const u32, starts: *const u32,
         states: *const LoopState, sums: *mut f32, heads: *mut f32; params: SumsParams), UPDATE;

    /// Means and moves of the centroids, for f32 points.
    fk_finalise_f32: FinaliseF32 = finalise::finalise::<f32>,
        (sums: *const f32, heads: *const f32, starts: *const u32, states: *const LoopState,
         centroids: *mut f32, rounded: *mut f32, moves: *mut f64; params: FinaliseParams), UPDATE;
    /// Means and moves of the centroids, for f16 points.
    fk_finalise_f16: FinaliseF16 = finalise::finalise::<F16>,
        (sums: *const f32, heads: *const f32, starts: *const u32, states: *const LoopState,
         centroids: *mut f32, rounded: *mut f32, moves: *mut f64; params: FinaliseParams), UPDATE;
    /// Means and moves of the centroids, for bf16 points.
    fk_finalise_bf16: FinaliseBf16 = finalise::finalise::<BF16>,
        (sums: *const f32, heads: *const f32, starts: *const u32, states: *const LoopState,
         centroids: *mut f32, rounded: *mut f32, moves: *mut f64; params: FinaliseParams), UPDATE;
    /// Whether each problem has converged.
    fk_converge: Converge = converge::converge,
        (moves: *const f64, tile_cost: *const f64, tile_changed: *const u32, thresholds: *const f64,
         states: *mut LoopState, records: *mut IterationRecord; params: ConvergeParams), CONVERGE;

    /// Sum of squared distances of f32 points to their centroids.
    fk_inertia_f32: InertiaF32 = inertia::inertia::<f32>,
        (points: *const f32, centroids: *const f32, labels: *const u32, partial: *mut f64;
         params: InertiaParams), INERTIA;
    /// Sum of squared distances of f16 points to their centroids.
    fk_inertia_f16: InertiaF16 = inertia::inertia::<F16>,
        (points: *const F16, centroids: *const f32, labels: *const u32, partial: *mut f64;
         params: InertiaParams), INERTIA;
    /// Sum of squared distances of bf16 points to their centroids.
    fk_inertia_bf16: InertiaBf16 = inertia::inertia::<BF16>,
        (points: *const BF16, centroids: *const f32, labels: *const u32, partial: *mut f64;
         params: InertiaParams), INERTIA;

    /// Sums of f32 features and of their squares, about the first row.
    fk_moments_f32: MomentsF32 = moments::moments::<f32>,
        (points: *const f32, first: *mut f64, second: *mut f64; params: MomentsParams), MOMENTS;
    /// Sums of f16 features and of their squares, about the first row.
    fk_moments_f16: MomentsF16 = moments::moments::<F16>,
        (points: *const F16, first: *mut f64, second: *mut f64; params: MomentsParams), MOMENTS;
    /// Sums of bf16 features and of their squares, about the first row.
    fk_moments_bf16: MomentsBf16 = moments::moments::<BF16>,
        (points: *const BF16, first: *mut f64, second: *mut f64; params: MomentsParams), MOMENTS;
}
