//! Every entry point, one row each.
//!
//! A row names the entry and its argument struct, the generic body, the pointers, the parameter struct
//! and the block. Pointers are top-level arguments because inside a by-value struct they would lose
//! their address space; scalars travel in one small `#[repr(C)]` struct.

#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod assign;
#[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
mod assign_hopper;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod assign_mma;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod bound;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod converge;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod distances;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod finalise;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod finish;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod floors;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod fold_heads;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod gather;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod inertia;
#[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
mod iterate;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod lower_to;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod masses;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod moments;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod move_centroids;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod nearest;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod norms;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod pack_centroids;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod pack_points;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod pairs;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod panel_sums;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod pool;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod rank;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod sample;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod segment_sums;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod settle;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod sort;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod spans;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod sweep;

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
    /// The arguments at such addresses as [`Kernel::with_addresses`] gives.
    ///
    /// # Safety
    /// The addresses must be those of this entry's arguments.
    #[cfg(feature = "simt")]
    unsafe fn of_addresses(addresses: *const *mut core::ffi::c_void) -> Self;
    /// The pointers among the arguments, by name.
    #[cfg(feature = "simt")]
    fn pointers(&self) -> Vec<(&'static str, *const core::ffi::c_void)>;
}

/// Waits until the launch before this one on the stream has ended, and lets the next one's blocks get ready.
///
/// Launches overlap: a block may begin while the launch before works, whose blocks have all come to this then. So before this a
/// body can use what the launch before the last has written, and anything before that; and every thread comes to this, for the
/// next launch to rely on the same.
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
#[inline(always)]
unsafe fn await_launch_before() {
    #[cfg(all(target_arch = "nvptx64", target_feature = "sm_90a"))]
    {
        cuda_std::thread::grid_dependency_wait();
        cuda_std::thread::grid_launch_dependents();
    }
}

/// This thread's number in its block, of which nothing is worked out ahead: `iterate`'s loop has no registers for it.
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
#[inline(always)]
unsafe fn my_thread() -> u32 {
    cuda_std::thread::opaque(cuda_std::thread::thread_idx_x())
}

/// The same of its warp.
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
#[inline(always)]
unsafe fn my_lane() -> u32 {
    my_thread() % cuda_std::warp::WARP_SIZE
}

/// The warp's in its block.
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
#[inline(always)]
unsafe fn my_warp() -> u32 {
    my_thread() / cuda_std::warp::WARP_SIZE
}

/// Reads the value at the first of these addresses, and goes on to the next.
#[cfg(all(feature = "simt", not(target_arch = "nvptx64")))]
unsafe fn next<T: Copy>(addresses: &mut *const *mut core::ffi::c_void) -> T {
    let value = (**addresses).cast::<T>().read();
    *addresses = addresses.add(1);
    value
}

/// A launch of an entry that is known by its name only, as a driver knows it.
#[cfg(all(feature = "simt", not(target_arch = "nvptx64")))]
pub struct AnyLaunch {
    /// The pointers among the arguments, by name.
    pub pointers: Vec<(&'static str, *const core::ffi::c_void)>,
    /// Runs a thread's part; see [`Kernel::run`].
    pub run: Box<dyn Fn()>,
}

/// An entry point as [`AnyLaunch`]es are made of it.
#[cfg(all(feature = "simt", not(target_arch = "nvptx64")))]
#[derive(Clone, Copy)]
pub struct AnyKernel {
    /// What a launch must be like.
    pub spec: KernelSpec,
    of_addresses: unsafe fn(*const *mut core::ffi::c_void) -> AnyLaunch,
}

#[cfg(all(feature = "simt", not(target_arch = "nvptx64")))]
impl AnyKernel {
    const fn of<K: Kernel + 'static>() -> Self {
        unsafe fn of_addresses<K: Kernel + 'static>(addresses: *const *mut core::ffi::c_void) -> AnyLaunch {
            let kernel = K::of_addresses(addresses);
            AnyLaunch { pointers: kernel.pointers(), run: Box::new(move || kernel.run()) }
        }
        AnyKernel { spec: K::SPEC, of_addresses: of_addresses::<K> }
    }

    /// A launch with the arguments at these addresses, which are read now.
    ///
    /// # Safety
    /// The addresses must be those of this entry's arguments, in its order.
    pub unsafe fn launch(&self, addresses: *const *mut core::ffi::c_void) -> AnyLaunch {
        (self.of_addresses)(addresses)
    }
}

// `each`: kernels with one entry for each type of points; `plain`: kernels that do not see points. A row
// gives the argument struct, the trait that a type of points has when the kernel has an entry for it, the
// pointers, the parameter struct, the body, the block and the entries' names in PTX. After `of` stands the struct
// that its launches can be made of: one with all of its pointers. An entry's body begins once the launch before
// has ended; where `=` stands in place of the colon, it awaits that itself.
macro_rules! kernels {
    (
        each {$(
            $(#[$doc:meta])*
            $Args:ident<$T:ident>: $Instance:ident $arguments:tt
            = $body:path, $shape:expr, [$($entry:ident $begins:tt $type:ty),*];
        )*}
        plain {$(
            $(#[$plain_doc:meta])*
            $PlainArgs:ident $plain_arguments:tt = $plain_body:path, $plain_shape:expr, $plain_entry:ident;
        )*}
        tensor {$(
            $(#[$tensor_doc:meta])*
            $TensorArgs:ident<$O:ident> $tensor_arguments:tt $(of $TensorFrom:ident)?
            = $tensor_body:path, $tensor_shape:path, [$($tensor_entry:ident $tensor_begins:tt $tensor_operand:ty),*];
        )*}
        hopper {$(
            $(#[$hopper_doc:meta])*
            $HopperArgs:ident<$C:ident> $hopper_arguments:tt $(of $HopperFrom:ident)?
            = $hopper_body:path, $hopper_shape:path, [$($hopper_entry:ident $hopper_begins:tt $operand:ty),*];
        )*}
    ) => {
        $(
            $(kernels!(@entry [target_arch = "nvptx64"] [type $T = $type;] $begins $entry $body, $arguments);)*
            kernels!(@arguments [$(#[$doc])*] [$Args<$T>] $arguments);
            kernels!(@instance $Args $Instance);
            kernels!(@kernel [<T: $Instance>] [$Args<T>] T::SPEC, [T::run], $arguments);
            $(kernels!(@instance_of $Args $Instance $type, $shape, $entry, $body, $arguments);)*
        )*
        $(
            kernels!(@entry [target_arch = "nvptx64"] [] : $plain_entry $plain_body, $plain_arguments);
            kernels!(@arguments [$(#[$plain_doc])*] [$PlainArgs] $plain_arguments);
            #[cfg(not(target_arch = "nvptx64"))]
            impl $PlainArgs { kernels!(@run Self, $plain_body, $plain_arguments); }
            kernels!(@kernel [] [$PlainArgs] $plain_shape.named(stringify!($plain_entry)), [Self::run_body],
                $plain_arguments);
        )*
        $(
            $(kernels!(@entry [target_arch = "nvptx64"] [type $O = $tensor_operand;] $tensor_begins
                $tensor_entry $tensor_body, $tensor_arguments);)*
            kernels!(@arguments_operand [$(#[$tensor_doc])*] [$TensorArgs<$O>] $tensor_arguments);
            $(kernels!(@of $TensorFrom $TensorArgs $tensor_arguments);)?
            $(kernels!(@kernel_operand [$TensorArgs<$tensor_operand>]
                $tensor_shape(<$tensor_operand as HopperOperand>::STEPS).named(stringify!($tensor_entry)),
                [type $O = $tensor_operand;] $tensor_body, $tensor_arguments);)*
        )*
        $(
            $(kernels!(@entry [all(target_arch = "nvptx64", target_feature = "sm_90a")] [type $C = $operand;] $hopper_begins $hopper_entry $hopper_body, $hopper_arguments);)*
            kernels!(@arguments_operand [$(#[$hopper_doc])*] [$HopperArgs<$C>] $hopper_arguments);
            $(kernels!(@of $HopperFrom $HopperArgs $hopper_arguments);)?
            $(kernels!(@kernel_operand [$HopperArgs<$operand>]
                $hopper_shape(<$operand as HopperOperand>::STEPS).named(stringify!($hopper_entry)),
                [type $C = $operand;] $hopper_body, $hopper_arguments);)*
        )*

        /// What every entry point needs.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const ALL: &[KernelSpec] = &[
            $($(<$type as $Instance>::SPEC,)*)*
            $(<$PlainArgs as Kernel>::SPEC,)*
            $($(<$TensorArgs<$tensor_operand> as Kernel>::SPEC,)*)*
            $($(<$HopperArgs<$operand> as Kernel>::SPEC,)*)*
        ];

        /// The entry points as the emulation runs them.
        #[cfg(all(feature = "simt", not(target_arch = "nvptx64")))]
        pub const EMULATED: &[AnyKernel] = &[
            $($(AnyKernel::of::<$Args<$type>>(),)*)*
            $(AnyKernel::of::<$PlainArgs>(),)*
            $($(AnyKernel::of::<$TensorArgs<$tensor_operand>>(),)*)*
            $($(AnyKernel::of::<$HopperArgs<$operand>>(),)*)*
        ];

        /// A type of points that every kernel has an entry for.
        #[cfg(not(target_arch = "nvptx64"))]
        pub trait PointType: $($Instance +)* 'static {}
        #[cfg(not(target_arch = "nvptx64"))]
        impl<T: $($Instance +)* 'static> PointType for T {}
    };

    // The entry in PTX.
    (@entry [$target:meta] [$($alias:tt)*] $begins:tt $entry:ident $body:path,
        ($($pointer:ident: $pointee:ty),*; $params:ident: $Params:ty)) => {
        #[cfg($target)]
        const _: () = {
            $($alias)*
            #[unsafe(no_mangle)]
            unsafe extern "ptx-kernel" fn $entry($($pointer: $pointee,)* $params: $Params) {
                kernels!(@begin $begins);
                $body($($pointer,)* $params)
            }
        };
    };

    (@begin :) => { await_launch_before() };
    (@begin =) => {};

    // The arguments of a launch.
    (@arguments [$($doc:tt)*] [$Args:ident $(<$T:ident>)?]
        ($($pointer:ident: $pointee:ty),*; $params:ident: $Params:ty)) => {
        $($doc)*
        #[cfg(not(target_arch = "nvptx64"))]
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs)]
        pub struct $Args $(<$T>)? { $(pub $pointer: $pointee,)* pub $params: $Params }
    };

    // The types of points that a kernel has entries for.
    (@instance $Args:ident $Instance:ident) => {
        #[doc = concat!("A type of points that [`", stringify!($Args), "`] has an entry for.")]
        #[cfg(not(target_arch = "nvptx64"))]
        pub trait $Instance: Copy {
            /// The entry.
            const SPEC: KernelSpec;
            /// See [`Kernel::run`].
            ///
            /// # Safety
            /// As [`Kernel::run`].
            #[cfg(feature = "simt")]
            unsafe fn run(arguments: $Args<Self>);
        }
    };
    (@instance_of $Args:ident $Instance:ident $type:ty, $shape:expr, $entry:ident, $body:path,
        ($($pointer:ident: $pointee:ty),*; $params:ident: $Params:ty)) => {
        #[cfg(not(target_arch = "nvptx64"))]
        impl $Instance for $type {
            const SPEC: KernelSpec = $shape.named(stringify!($entry));
            #[cfg(feature = "simt")]
            unsafe fn run(arguments: $Args<Self>) {
                $body($(arguments.$pointer,)* arguments.$params)
            }
        }
    };

    (@arguments_operand [$($doc:tt)*] [$Args:ident<$C:ident>]
        ($($pointer:ident: $pointee:ty),*; $params:ident: $Params:ty)) => {
        $($doc)*
        #[cfg(not(target_arch = "nvptx64"))]
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs)]
        pub struct $Args<$C> {
            $(pub $pointer: $pointee,)*
            pub $params: $Params,
            pub operand: core::marker::PhantomData<$C>,
        }
    };

    // The arguments from those of another operand, or of another entry with the same pointers and more.
    (@of $From:ident $Args:ident ($($pointer:ident: $pointee:ty),*; $params:ident: $Params:ty)) => {
        #[cfg(not(target_arch = "nvptx64"))]
        impl<C> $Args<C> {
            #[doc = concat!("A launch with the pointers of a [`", stringify!($From), "`].")]
            pub fn of<D>(from: $From<D>, $params: $Params) -> Self {
                $Args { $($pointer: from.$pointer,)* $params, operand: core::marker::PhantomData }
            }
        }
    };

    // How the host launches it, and how the emulation runs it.
    (@kernel [$($generics:tt)*] [$Args:ty] $spec:expr, [$run:path],
        ($($pointer:ident: $pointee:ty),*; $params:ident: $Params:ty)) => {
        #[cfg(not(target_arch = "nvptx64"))]
        impl $($generics)* Kernel for $Args {
            const SPEC: KernelSpec = $spec;
            kernels!(@host [$params] [$($pointer),*] []);
            #[cfg(feature = "simt")]
            unsafe fn run(self) {
                $run(self)
            }
        }
    };
    (@kernel_operand [$Args:ty] $spec:expr, [$alias:item] $body:path,
        ($($pointer:ident: $pointee:ty),*; $params:ident: $Params:ty)) => {
        #[cfg(not(target_arch = "nvptx64"))]
        impl Kernel for $Args {
            const SPEC: KernelSpec = $spec;
            kernels!(@host [$params] [$($pointer),*] [operand: core::marker::PhantomData]);
            #[cfg(feature = "simt")]
            unsafe fn run(self) {
                $alias
                $body($(self.$pointer,)* self.$params)
            }
        }
    };
    (@host [$params:ident] [$($pointer:ident),*] [$($operand:tt)*]) => {
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
        unsafe fn of_addresses(addresses: *const *mut core::ffi::c_void) -> Self {
            let mut rest = addresses;
            Self { $($pointer: next(&mut rest),)* $params: next(&mut rest), $($operand)* }
        }
        #[cfg(feature = "simt")]
        fn pointers(&self) -> Vec<(&'static str, *const core::ffi::c_void)> {
            vec![$((stringify!($pointer), self.$pointer.cast())),*]
        }
    };
    (@run $Args:ty, $body:path, ($($pointer:ident: $pointee:ty),*; $params:ident: $Params:ty)) => {
        #[cfg(feature = "simt")]
        unsafe fn run_body(arguments: $Args) {
            $body($(arguments.$pointer,)* arguments.$params)
        }
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
const PANEL_SUMS: BlockShape =
    BlockShape::new(BLOCK_PANEL_POINTS).shared(PanelSumsShared::new(0).bytes).blocks_per_sm(2);
#[cfg(not(target_arch = "nvptx64"))]
const PANEL_SUMS_NARROW: BlockShape = PANEL_SUMS.shared(PanelSumsShared::new(NARROW_BYTES).bytes);
#[cfg(not(target_arch = "nvptx64"))]
const PANEL_SUMS_HELD: BlockShape =
    PANEL_SUMS.shared(PanelSumsShared::new(HELD_BYTES).bytes).blocks_per_sm(1);
#[cfg(not(target_arch = "nvptx64"))]
const PANEL_SUMS_BY_MASS: BlockShape = PANEL_SUMS.blocks_per_sm(1);
#[cfg(not(target_arch = "nvptx64"))]
const WHOLE_COUNT: BlockShape = BlockShape::new(SORT_THREADS).shared(WholeCountShared::new().bytes);
#[cfg(not(target_arch = "nvptx64"))]
const WHOLE_STARTS: BlockShape = BlockShape::new(WHOLE_STARTS_THREADS).shared(WholeStartsShared::new().bytes);
#[cfg(not(target_arch = "nvptx64"))]
const WHOLE_PLACE: BlockShape = BlockShape::new(WHOLE_PLACE_THREADS).shared(WholePlaceShared::new().bytes);
#[cfg(not(target_arch = "nvptx64"))]
const UPDATE: BlockShape = BlockShape::new(UPDATE_THREADS);
#[cfg(not(target_arch = "nvptx64"))]
const fn update(_: u32) -> BlockShape {
    UPDATE
}
// Loads in flight are what the sums live on: half of the threads that a multiprocessor holds, at least.
#[cfg(not(target_arch = "nvptx64"))]
const SUMS: BlockShape = BlockShape::new(UPDATE_THREADS).blocks_per_sm(4);
// Masses take registers beside.
#[cfg(not(target_arch = "nvptx64"))]
const SUMS_BY_MASS: BlockShape = BlockShape::new(UPDATE_THREADS).blocks_per_sm(3);
#[cfg(not(target_arch = "nvptx64"))]
const FINALISE: BlockShape =
    BlockShape::new(UPDATE_THREADS).shared(FinaliseShared::new().bytes).blocks_per_sm(3);
#[cfg(not(target_arch = "nvptx64"))]
const FINISH: BlockShape = BlockShape::new(UPDATE_THREADS).shared(FinishShared::new().bytes).blocks_per_sm(2);
#[cfg(not(target_arch = "nvptx64"))]
const SETTLE: BlockShape = BlockShape::new(UPDATE_THREADS).shared(SettleShared::new().bytes).blocks_per_sm(2);
#[cfg(not(target_arch = "nvptx64"))]
const CONVERGE: BlockShape = BlockShape::new(REDUCE_THREADS).shared(ConvergeShared::new().bytes);
#[cfg(not(target_arch = "nvptx64"))]
const INERTIA: BlockShape = BlockShape::new(REDUCE_THREADS).shared(InertiaShared::new().bytes);
#[cfg(not(target_arch = "nvptx64"))]
const fn hopper(steps: u32) -> BlockShape {
    let (wide, narrow) = (WideShared::new(), HopperShared::new(steps));
    match steps {
        HOPPER_WIDE => {
            BlockShape::new(wide.rows.threads()).hopper().shared(wide.bytes).clusters_of(WIDE_CLUSTER)
        }
        _ => BlockShape::new(narrow.rows.threads()).hopper().shared(narrow.bytes),
    }
}
// Blocks enough that what one waits for is hidden behind the others, as far as registers go.
#[cfg(not(target_arch = "nvptx64"))]
const fn mma(steps: u32) -> BlockShape {
    let blocks = match steps {
        HOPPER_WIDE => 2,
        4 => 4,
        _ => 3,
    };
    BlockShape::new(MMA_THREADS).shared(MmaShared::new(steps).bytes).blocks_per_sm(blocks)
}
// Places of pairs take registers.
#[cfg(not(target_arch = "nvptx64"))]
const fn list(steps: u32) -> BlockShape {
    mma(steps).blocks_per_sm(2)
}
#[cfg(not(target_arch = "nvptx64"))]
const fn sweep(entry: u32) -> BlockShape {
    let way = SweepWay::ALL[entry as usize];
    BlockShape::new(way.threads).shared(SweepShared::new(way).bytes).blocks_per_sm(way.blocks_per_sm)
}
#[cfg(not(target_arch = "nvptx64"))]
const fn sweep_hopper(entry: u32) -> BlockShape {
    sweep(entry).hopper().clusters_of(SweepWay::ALL[entry as usize].blocks)
}
#[cfg(not(target_arch = "nvptx64"))]
const PACK: BlockShape = BlockShape::new(PACK_THREADS).shared(PackShared::new().bytes);
#[cfg(not(target_arch = "nvptx64"))]
const ORDER: BlockShape = BlockShape::new(ORDER_THREADS).shared(OrderShared::new().bytes);
#[cfg(not(target_arch = "nvptx64"))]
const MOMENTS: BlockShape = BlockShape::new(REDUCE_THREADS);
#[cfg(not(target_arch = "nvptx64"))]
const LOWER_TO: BlockShape =
    BlockShape::new(LOWER_THREADS).shared(LowerToShared::new().bytes).blocks_per_sm(3);
// Loads in flight are what it lives on: half of the threads that a multiprocessor holds.
#[cfg(not(target_arch = "nvptx64"))]
const LABELLED: BlockShape =
    BlockShape::new(LOWER_THREADS).shared(LabelledShared::new().bytes).blocks_per_sm(8);
#[cfg(not(target_arch = "nvptx64"))]
const POOL_SUMS: BlockShape = BlockShape::new(POOL_SUMS_THREADS).shared(PoolSumsShared::new().bytes);
#[cfg(not(target_arch = "nvptx64"))]
const PROPOSE: BlockShape = BlockShape::new(PROPOSE_THREADS).shared(ProposeShared::new().bytes);
#[cfg(not(target_arch = "nvptx64"))]
const PLACE: BlockShape = BlockShape::new(PLACE_THREADS).shared(PlaceShared::new().bytes).blocks_per_sm(3);
#[cfg(not(target_arch = "nvptx64"))]
const PAIR_STARTS: BlockShape = BlockShape::new(PAIR_STARTS_THREADS).shared(PairStartsShared::new().bytes);
// Loads in flight are what it lives on.
#[cfg(not(target_arch = "nvptx64"))]
const MEASURE: BlockShape =
    BlockShape::new(MEASURE_THREADS).shared(MeasureShared::new().bytes).blocks_per_sm(5);
#[cfg(not(target_arch = "nvptx64"))]
const fn choose(blocks: u32) -> BlockShape {
    let rows = if blocks == CHOOSE_HOLDS { CHOOSE_HELD_ROWS } else { 0 };
    BlockShape::new(CHOOSE_THREADS).shared(ChooseShared::new(rows).bytes)
}
#[cfg(not(target_arch = "nvptx64"))]
const fn choose_cluster(blocks: u32) -> BlockShape {
    choose(blocks).hopper().clusters_of(blocks)
}

kernels! {
    each {
        /// Nearest centroid in plain f32 arithmetic, settled in f64 where that is in doubt.
        Assign<T>: AssignInstance
            (points: *const T, centroids: *const T, states: *const LoopState, labels: *mut u32,
             tile_cost: *mut f64, tile_changed: *mut u32; params: AssignParams)
            = assign::assign::<_, false>, ASSIGN, [fk_assign_f32: f32, fk_assign_f16: F16, fk_assign_bf16: BF16];
        /// Sums of sorted points.
        SegmentSums<T>: SegmentSumsInstance
            (points: *const T, origin: *const T, labels: *const u32, sorted: *const u32, starts: *const u32,
             states: *const LoopState, sums: *mut f32, heads: *mut f32; params: SumsParams)
            = segment_sums::segment_sums, SUMS,
            [fk_segment_sums_f32: f32, fk_segment_sums_f16: F16, fk_segment_sums_bf16: BF16];
        /// Sort and sums of panels of few points.
        PanelSums<T>: PanelSumsInstance
            (points: *const T, origin: *const T, labels: *const u32, states: *const LoopState, starts: *mut u32,
             sums: *mut f32, heads: *mut f32; params: PanelSumsParams)
            = panel_sums::panel_sums::<_, 0>, PANEL_SUMS,
            [fk_panel_sums_f32: f32, fk_panel_sums_f16: F16, fk_panel_sums_bf16: BF16];
        /// The same of points of few features.
        PanelSumsNarrow<T>: PanelSumsNarrowInstance
            (points: *const T, origin: *const T, labels: *const u32, states: *const LoopState, starts: *mut u32,
             sums: *mut f32, heads: *mut f32; params: PanelSumsParams)
            = panel_sums::panel_sums::<_, NARROW_BYTES>, PANEL_SUMS_NARROW,
            [fk_panel_sums_narrow_f32 = f32, fk_panel_sums_narrow_f16 = F16, fk_panel_sums_narrow_bf16 = BF16];
        /// The same of points of twice as many, of few panels.
        PanelSumsHeld<T>: PanelSumsHeldInstance
            (points: *const T, origin: *const T, labels: *const u32, states: *const LoopState, starts: *mut u32,
             sums: *mut f32, heads: *mut f32; params: PanelSumsParams)
            = panel_sums::panel_sums::<_, HELD_BYTES>, PANEL_SUMS_HELD,
            [fk_panel_sums_held_f32 = f32, fk_panel_sums_held_f16 = F16, fk_panel_sums_held_bf16 = BF16];
        /// Means and moves of the centroids.
        Finalise<T>: FinaliseInstance
            (origin: *const T, sums: *const f32, heads: *const f32, starts: *const u32,
             states: *const LoopState, centroids: *mut f32, rounded: *mut T, moves: *mut f64; params: FinaliseParams)
            = finalise::finalise, FINALISE,
            [fk_finalise_f32: f32, fk_finalise_f16: F16, fk_finalise_bf16: BF16];
        /// Means, packed centroids and convergence of problems of few points.
        Finish<T>: FinishInstance
            (origin: *const T, sums: *const f32, heads: *const f32, starts: *const u32, centre: *const f32,
             extents: *const u32, tile_cost: *const f64, tile_changed: *const u32, thresholds: *const f64,
             states: *mut LoopState, centroids: *mut f32, rounded: *mut T, moves: *mut f64, packed: *mut u16,
             biases: *mut f32, norms: *mut f32, residuals: *mut f32, largest: *mut f32, list_counts: *mut u32,
             records: *mut IterationRecord, counters: *mut u32; params: FinishParams)
            = finish::finish, FINISH, [fk_finish_f32: f32, fk_finish_f16: F16, fk_finish_bf16: BF16];
        /// First centroids: rows of the points, or given ones.
        Gather<T>: GatherInstance
            (points: *const T, rows: *const u32, given: *const f32, centroids: *mut f32, rounded: *mut T;
             params: GatherParams)
            = gather::gather, UPDATE, [fk_gather_f32: f32, fk_gather_f16: F16, fk_gather_bf16: BF16];
        /// Sum of squared distances of points to their centroids.
        Inertia<T>: InertiaInstance
            (points: *const T, centroids: *const T, labels: *const u32, partial: *mut f64;
             params: InertiaParams)
            = inertia::inertia, INERTIA, [fk_inertia_f32: f32, fk_inertia_f16: F16, fk_inertia_bf16: BF16];
        /// Sums of features and of their squares, about the first row.
        Moments<T>: MomentsInstance
            (points: *const T, origin: *const T, first: *mut f64, second: *mut f64; params: MomentsParams)
            = moments::moments, MOMENTS, [fk_moments_f32: f32, fk_moments_f16: F16, fk_moments_bf16: BF16];
        /// Squared norms of points.
        Norms<T>: NormsInstance
            (points: *const T, norms: *mut f32; params: NormsParams)
            = norms::norms, UPDATE, [fk_norms_f32: f32, fk_norms_f16: F16, fk_norms_bf16: BF16];
        /// Centroids in the order in which Hopper's assignment streams them.
        PackCentroids<T>: PackCentroidsInstance
            (centroids: *const T, centre: *const f32, extents: *const u32, order: *const u32,
             states: *const LoopState, packed: *mut u16, plain: *mut u16, biases: *mut f32, norms: *mut f32,
             residuals: *mut f32, largest: *mut u32, list_counts: *mut u32; params: PackParams)
            = pack_centroids::pack_centroids::<_, false>, PACK,
            [fk_pack_centroids_f32: f32, fk_pack_centroids_f16: F16, fk_pack_centroids_bf16: BF16];
        /// Points whose nearest centroid a tensor-core pass could not tell, settled in f64.
        Settle<T>: SettleInstance
            (points: *const T, centroids: *const T, two: *const u32, rows: *const u32, first: *const u32,
             second: *const u32, many: *const u32, many_rows: *const u32, labels: *mut u32, changed: *mut u32, scratch: *mut u32, counters: *mut u32;
             params: SettleParams)
            = settle::settle::<_, rank::Distance>, SETTLE, [fk_settle_f32: f32, fk_settle_f16: F16, fk_settle_bf16: BF16];
        /// Distances of the pairs of greedy k-means++.
        MeasurePairs<T>: MeasurePairsInstance
            (points: *const T, weights: *const f64, rows: *const u32, counts: *const u32, starts: *const u32,
             list_points: *const u32, list_distances: *mut f64; params: MeasureParams)
            = pairs::measure_pairs, MEASURE,
            [fk_measure_pairs_f32: f32, fk_measure_pairs_f16: F16, fk_measure_pairs_bf16: BF16];
        /// The nearest of the candidates of k-means||.
        LowerTo<T>: LowerToInstance
            (points: *const T, candidates: *const u32, nearest: *mut f64, owners: *mut u32,
             chunk_sums: *mut f64; params: LowerToParams)
            = lower_to::lower_to, LOWER_TO, [fk_lower_to_f32: f32, fk_lower_to_f16: F16, fk_lower_to_bf16: BF16];
        /// The same of the candidates that an assignment found to be the nearest, or of the only one.
        LowerToLabels<T>: LowerToLabelsInstance
            (points: *const T, candidates: *const u32, labels: *const u32, nearest: *mut f64, owners: *mut u32,
             chunk_sums: *mut f64; params: LowerToParams)
            = lower_to::lower_to_labels, LABELLED,
            [fk_lower_to_labels_f32: f32, fk_lower_to_labels_f16: F16, fk_lower_to_labels_bf16: BF16];
        /// The centroid of the largest product in plain f32 arithmetic, settled in f64 where that is in doubt.
        AssignProducts<T>: AssignProductsInstance
            (points: *const T, centroids: *const T, states: *const LoopState, labels: *mut u32,
             tile_cost: *mut f64, tile_changed: *mut u32; params: AssignParams)
            = assign::assign::<_, true>, ASSIGN,
            [fk_assign_products_f32: f32, fk_assign_products_f16: F16, fk_assign_products_bf16: BF16];
        /// Centroids in the order in which tensor cores stream them, for products.
        PackProducts<T>: PackProductsInstance
            (centroids: *const T, centre: *const f32, extents: *const u32, order: *const u32,
             states: *const LoopState, packed: *mut u16, plain: *mut u16, biases: *mut f32, norms: *mut f32,
             residuals: *mut f32, largest: *mut u32, list_counts: *mut u32; params: PackParams)
            = pack_centroids::pack_centroids::<_, true>, PACK,
            [fk_pack_products_f32: f32, fk_pack_products_f16: F16, fk_pack_products_bf16: BF16];
        /// Points of which a tensor-core pass could not tell the largest product, settled in f64.
        SettleProducts<T>: SettleProductsInstance
            (points: *const T, centroids: *const T, two: *const u32, rows: *const u32, first: *const u32,
             second: *const u32, many: *const u32, many_rows: *const u32, labels: *mut u32, changed: *mut u32, scratch: *mut u32, counters: *mut u32;
             params: SettleParams)
            = settle::settle::<_, rank::Product>, SETTLE,
            [fk_settle_products_f32: f32, fk_settle_products_f16: F16, fk_settle_products_bf16: BF16];
        /// How much each point counts in sums.
        Masses<T>: MassesInstance
            (points: *const T, weights: *const f64, units: *const f64, masses: *mut f32; params: MassesParams)
            = masses::masses, UPDATE, [fk_masses_f32: f32, fk_masses_f16: F16, fk_masses_bf16: BF16];
        /// Sums of sorted points with masses.
        SegmentSumsByMass<T>: SegmentSumsByMassInstance
            (points: *const T, origin: *const T, masses: *const f32, labels: *const u32, sorted: *const u32,
             starts: *const u32, states: *const LoopState, sums: *mut f32, heads: *mut f32; params: SumsParams)
            = segment_sums::segment_sums_by_mass, SUMS_BY_MASS,
            [fk_segment_sums_by_mass_f32: f32, fk_segment_sums_by_mass_f16: F16,
             fk_segment_sums_by_mass_bf16: BF16];
        /// Sort and sums of panels of few points with masses.
        PanelSumsByMass<T>: PanelSumsByMassInstance
            (points: *const T, origin: *const T, masses: *const f32, labels: *const u32,
             states: *const LoopState, starts: *mut u32, sums: *mut f32, heads: *mut f32;
             params: PanelSumsParams)
            = panel_sums::panel_sums_by_mass, PANEL_SUMS_BY_MASS,
            [fk_panel_sums_by_mass_f32: f32, fk_panel_sums_by_mass_f16: F16, fk_panel_sums_by_mass_bf16: BF16];
        /// Centroids from means by mass, or at length 1, and their moves.
        MoveCentroids<T>: MoveCentroidsInstance
            (means: *const f32, origin: *const T, states: *const LoopState, centroids: *mut f32,
             rounded: *mut T, moves: *mut f64; params: MoveParams)
            = move_centroids::move_centroids, UPDATE,
            [fk_move_centroids_f32: f32, fk_move_centroids_f16: F16, fk_move_centroids_bf16: BF16];
        /// What points add to the inertia, by any metric and with weights.
        Losses<T>: LossesInstance
            (points: *const T, centroids: *const T, labels: *const u32, weights: *const f64,
             states: *const LoopState, partial: *mut f64; params: LossesParams)
            = inertia::losses, INERTIA, [fk_losses_f32: f32, fk_losses_f16: F16, fk_losses_bf16: BF16];
        /// Sums of features and of their squares, of points at length 1.
        UnitMoments<T>: UnitMomentsInstance
            (points: *const T, scales: *const f32, first: *mut f64, second: *mut f64; params: MomentsParams)
            = moments::unit_moments, MOMENTS,
            [fk_unit_moments_f32: f32, fk_unit_moments_f16: F16, fk_unit_moments_bf16: BF16];
    }
    plain {
        /// How far from a centre f32 points reach.
        Extents
            (points: *const f32, centre: *const f32, extents: *mut u32; params: MomentsParams)
            = pack_points::extents, MOMENTS, fk_extents;
        /// f32 points as Hopper's tensor cores take them.
        PackPoints
            (points: *const f32, centre: *const f32, extents: *const u32, packed: *mut u16, norms: *mut f32,
             residuals: *mut f32; params: PackPointsParams)
            = pack_points::pack_points, UPDATE, fk_pack_points;
        /// f32 points as the tensor cores take them for products.
        PackRows
            (points: *const f32, packed: *mut u16, norms: *mut f32, residuals: *mut f32; params: PackPointsParams)
            = pack_points::pack_rows, UPDATE, fk_pack_rows;
        /// Unsure f32 points in parts of 16 bits.
        SplitPoints
            (points: *const f32, centre: *const f32, extents: *const u32, list_counts: *mut u32,
             list_rows: *const u32, packed: *mut u16, norms: *mut f32, residuals: *mut f32, rows: *mut u32,
             many_rows: *mut u32; params: RefineParams)
            = pack_points::split_points::<false>, UPDATE, fk_split_points;
        /// The same for products.
        SplitRows
            (points: *const f32, centre: *const f32, extents: *const u32, list_counts: *mut u32,
             list_rows: *const u32, packed: *mut u16, norms: *mut f32, residuals: *mut f32, rows: *mut u32,
             many_rows: *mut u32; params: RefineParams)
            = pack_points::split_points::<true>, UPDATE, fk_split_rows;
        /// Unsure points of 16 bits.
        KeepUnsure
            (list_counts: *mut u32, list_rows: *const u32, rows: *mut u32, many_rows: *mut u32; params: RefineParams)
            = pack_points::keep_unsure, UPDATE, fk_keep_unsure;
        /// Labels of points whose centroids were shared out.
        MergeSpans
            (found: *mut u32, order: *const u32, norms: *const f32, extents: *const u32, states: *const LoopState,
             labels: *mut u32, cost: *mut f64, changed: *mut u32, list_counts: *mut u32, list_rows: *mut u32,
             list_first: *mut u32, list_second: *mut u32; params: HopperParams)
            = spans::merge_spans, UPDATE, fk_merge_spans;
        /// Centroids in parts, for unsure points of f32.
        SplitCentroids
            (centroids: *const f32, centre: *const f32, extents: *const u32, order: *const u32,
             states: *const LoopState, list_counts: *const u32, packed: *mut u16, biases: *mut f32,
             largest: *mut u32; params: RefineParams)
            = pack_centroids::split_centroids::<false>, PACK, fk_split_centroids;
        /// The same for products.
        SplitProducts
            (centroids: *const f32, centre: *const f32, extents: *const u32, order: *const u32,
             states: *const LoopState, list_counts: *const u32, packed: *mut u16, biases: *mut f32,
             largest: *mut u32; params: RefineParams)
            = pack_centroids::split_centroids::<true>, PACK, fk_split_products;
        /// Scores that the points' best ones are not below.
        Floors
            (points: *const u16, norms: *const f32, residuals: *const f32, labels: *const u32, plain: *const u16,
             centroid_norms: *const f32, centroid_residuals: *const f32, states: *const LoopState,
             floors: *mut f32; params: FloorsParams)
            = floors::floors, UPDATE, fk_floors;
        /// Which centroid each place of the tensor-core assignment's tiles has.
        OrderCentroids
            (norms: *const f32, states: *const LoopState, order: *mut u32; params: OrderParams)
            = pack_centroids::order_centroids, ORDER, fk_order_centroids;
        /// Sort pass, first step: keys of each digit in each tile.
        SortHistogram
            (labels: *const u32, order: *const u32, states: *const LoopState, histogram: *mut u32;
             params: SortParams)
            = sort::histogram, HISTOGRAM, fk_sort_histogram;
        /// Sort pass, second step: where the first key of each digit of each tile goes.
        SortScan
            (histogram: *mut u32, totals: *mut u32; params: ScanParams) = sort::scan, SCAN, fk_sort_scan;
        /// Sort pass, third step: indices to their places.
        SortScatter
            (labels: *const u32, order: *const u32, histogram: *const u32, totals: *const u32,
             states: *const LoopState, sorted: *mut u32; params: SortParams)
            = sort::scatter, SCATTER, fk_sort_scatter;
        /// Sort by whole labels, first step: keys of each cluster in each tile.
        WholeCount
            (labels: *const u32, states: *const LoopState, histogram: *mut u32; params: WholeParams)
            = sort::whole_count, WHOLE_COUNT, fk_whole_count;
        /// Second step: where each cluster begins, and each tile's part of it.
        WholeStarts
            (histogram: *mut u32, states: *const LoopState, starts: *mut u32; params: WholeParams)
            = sort::whole_starts, WHOLE_STARTS, fk_whole_starts;
        /// Third step: indices to their places.
        WholePlace
            (labels: *const u32, histogram: *const u32, starts: *const u32, states: *const LoopState,
             sorted: *mut u32; params: WholeParams)
            = sort::whole_place, WHOLE_PLACE, fk_whole_place;
        /// Where each cluster begins in its panel's sorted order.
        SegmentStarts
            (labels: *const u32, sorted: *const u32, states: *const LoopState, starts: *mut u32;
             params: StartsParams)
            = sort::segment_starts, UPDATE, fk_segment_starts;
        /// Heads of stretches that lie in one cluster, added up in advance.
        FoldHeads
            (labels: *const u32, sorted: *const u32, starts: *const u32, states: *const LoopState,
             heads: *mut f32; params: FoldParams)
            = fold_heads::fold_heads, UPDATE, fk_fold_heads;
        /// Whether each problem has converged.
        Converge
            (moves: *const f64, tile_cost: *const f64, tile_changed: *const u32, thresholds: *const f64,
             states: *mut LoopState, records: *mut IterationRecord, partial: *mut IterationRecord,
             counters: *mut u32; params: ConvergeParams)
            = converge::converge, CONVERGE, fk_converge;
        /// Greedy k-means++: what a pool is drawn by.
        PoolSums
            (nearest: *mut f64, norms: *const f32, extents: *const u32, weights: *const f64,
             states: *const PoolState, chunk_sums: *mut f64, group_sums: *mut f64, floors: *mut f32;
             params: PoolSumsParams)
            = pool::pool_sums, POOL_SUMS, fk_pool_sums;
        /// Draws pools.
        Propose
            (nearest: *const f64, chunk_sums: *const f64, group_sums: *const f64, states: *const PoolState,
             pool_rows: *mut u32, pool_nearest: *mut f64, rows: *mut u32, places: *mut u32, limits: *mut u32,
             totals: *mut f64, open: *mut LoopState; params: ProposeParams)
            = pool::propose, PROPOSE, fk_propose;
        /// How many pairs each row of a pool has.
        CountPairs
            (list_counts: *const u32, columns: *const u32, counts: *mut u32; params: PairsParams)
            = pairs::count_pairs, PLACE, fk_count_pairs;
        /// Where lists of pairs begin.
        PairStarts
            (counts: *mut u32, starts: *mut u32, cursors: *mut u32; params: PairStartsParams)
            = pairs::pair_starts, PAIR_STARTS, fk_pair_starts;
        /// Pairs to their lists.
        PlacePairs
            (list_counts: *const u32, points: *const u32, columns: *const u32, cursors: *mut u32,
             list_points: *mut u32; params: PairsParams)
            = pairs::place_pairs, PLACE, fk_place_pairs;
        /// The rows that a round of k-means|| draws.
        Sample
            (nearest: *const f64, rows: *mut u32, count: *mut u32; params: SampleParams)
            = sample::sample, UPDATE, fk_sample;
        /// How many points are nearest to each candidate.
        CountOwners
            (owners: *const u32, counts: *mut u32; params: OwnersParams)
            = sample::count_owners, UPDATE, fk_count_owners;
    }
    tensor {
        /// Labels of points that are assigned again, whose centroids were shared out.
        MergeAgain<C>
            (found: *mut u32, order: *const u32, rows: *const u32, states: *const LoopState, labels: *mut u32,
             changed: *mut u32, list_counts: *mut u32, list_rows: *mut u32, list_first: *mut u32,
             list_second: *mut u32, many_rows: *mut u32; params: RefineParams) of RefineHopper
            = spans::merge_again::<C>, update, [
                fk_merge_again_f32: Refined<F16, REFINE_PARTS>, fk_merge_again_f16: Refined<F16, 1>,
                fk_merge_again_bf16: Refined<BF16, 1>
            ];
        /// Nearest centroid by the products of single warps, of points in 16 bits.
        AssignMma<C>
            (points: *const u16, packed: *const u16, biases: *const f32, order: *const u32, norms: *const f32,
             residuals: *const f32, extents: *const u32, largest: *const f32, states: *const LoopState,
             labels: *mut u32, cost: *mut f64, changed: *mut u32, list_counts: *mut u32, list_rows: *mut u32,
             list_first: *mut u32, list_second: *mut u32; params: MmaParams) of AssignHopper
            = assign_mma::assign_mma::<C>, mma, [
                fk_assign_mma_f16_s4: Tensor<F16, 4>, fk_assign_mma_f16_s6: Tensor<F16, 6>,
                fk_assign_mma_f16_s8: Tensor<F16, 8>, fk_assign_mma_f16_wide: Tensor<F16, HOPPER_WIDE>,
                fk_assign_mma_bf16_s4: Tensor<BF16, 4>, fk_assign_mma_bf16_s6: Tensor<BF16, 6>,
                fk_assign_mma_bf16_s8: Tensor<BF16, 8>, fk_assign_mma_bf16_wide: Tensor<BF16, HOPPER_WIDE>
            ];
        /// Labels and partial sums of panels of few points.
        Sweep<C>
            (points: *const u16, centroids: *const u16, packed: *const u16, biases: *const f32, norms: *const f32,
             largest: *const f32, states: *const LoopState, labels: *mut u32, cost: *mut f64, changed: *mut u32,
             starts: *mut u32, sums: *mut f32, heads: *mut f32; params: SweepParams) of Sweep
            = sweep::sweep::<C>, sweep, [
                fk_sweep_f16_s4 = Swept<F16, 0>, fk_sweep_f16_s4_many = Swept<F16, 1>,
                fk_sweep_bf16_s4 = Swept<BF16, 0>, fk_sweep_bf16_s4_many = Swept<BF16, 1>
            ];
        /// Pairs of a point and a row of a pool, by the products of single warps.
        ListMma<C>
            (points: *const u16, packed: *const u16, biases: *const f32, norms: *const f32, residuals: *const f32,
             floors: *const f32, largest: *const f32, states: *const LoopState, limits: *const u32,
             list_counts: *mut u32, pair_points: *mut u32, pair_columns: *mut u32; params: ListMmaParams) of ListMma
            = assign_mma::list_mma::<C>, list, [
                fk_list_mma_f16_s4: Tensor<F16, 4>, fk_list_mma_f16_s8: Tensor<F16, 8>, fk_list_mma_f16_wide: Tensor<F16, HOPPER_WIDE>,
                fk_list_mma_bf16_s4: Tensor<BF16, 4>, fk_list_mma_bf16_s8: Tensor<BF16, 8>, fk_list_mma_bf16_wide: Tensor<BF16, HOPPER_WIDE>
            ];
        /// Choices of greedy k-means++ from a pool, by a block.
        Choose<C>
            (nearest: *mut f64, pool_rows: *const u32, pool_nearest: *const f64, places: *const u32,
             totals: *const f64, limits: *const u32, open: *const LoopState, list_counts: *const u32, starts: *const u32,
             list_points: *const u32, list_distances: *const f64, states: *mut PoolState, rows: *mut u32;
             params: ChooseParams) of Choose
            = pool::choose::<C>, choose, [fk_choose: Blocks<1>, fk_choose_held: Blocks<CHOOSE_HOLDS>];
    }
    hopper {
        /// Nearest centroid on Hopper's tensor cores, of points in 16 bits.
        AssignHopper<C>
            (points: *const u16, packed: *const u16, biases: *const f32, order: *const u32, norms: *const f32,
             residuals: *const f32, floors: *const f32, extents: *const u32, largest: *const f32,
             states: *const LoopState, labels: *mut u32, cost: *mut f64, changed: *mut u32, list_counts: *mut u32, list_rows: *mut u32, list_first: *mut u32,
             list_second: *mut u32, found: *mut u32; params: HopperParams) of AssignHopper
            = assign_hopper::assign_hopper::<C>, hopper, [
                fk_assign_hopper_f16_s4 = Tensor<F16, 4>, fk_assign_hopper_f16_s5 = Tensor<F16, 5>,
                fk_assign_hopper_f16_s6 = Tensor<F16, 6>, fk_assign_hopper_f16_s7 = Tensor<F16, 7>, fk_assign_hopper_f16_s8 = Tensor<F16, 8>,
                fk_assign_hopper_f16_wide = Tensor<F16, HOPPER_WIDE>,
                fk_assign_hopper_bf16_s4 = Tensor<BF16, 4>, fk_assign_hopper_bf16_s5 = Tensor<BF16, 5>,
                fk_assign_hopper_bf16_s6 = Tensor<BF16, 6>, fk_assign_hopper_bf16_s7 = Tensor<BF16, 7>, fk_assign_hopper_bf16_s8 = Tensor<BF16, 8>,
                fk_assign_hopper_bf16_wide = Tensor<BF16, HOPPER_WIDE>
            ];
        /// Labels and partial sums of panels of few points, where only Hopper's blocks have room for them, or a cluster of blocks has each.
        SweepHopper<C>
            (points: *const u16, centroids: *const u16, packed: *const u16, biases: *const f32, norms: *const f32,
             largest: *const f32, states: *const LoopState, labels: *mut u32, cost: *mut f64, changed: *mut u32,
             starts: *mut u32, sums: *mut f32, heads: *mut f32; params: SweepParams) of Sweep
            = sweep::sweep::<C>, sweep_hopper, [
                fk_sweep_hopper_f16_s8 = Swept<F16, 2>,
                fk_sweep_pair_f16_s4 = Swept<F16, 3>, fk_sweep_pair_f16_s8 = Swept<F16, 4>,
                fk_sweep_four_f16_s4 = Swept<F16, 5>, fk_sweep_four_f16_s8 = Swept<F16, 6>,
                fk_sweep_hopper_bf16_s8 = Swept<BF16, 2>,
                fk_sweep_pair_bf16_s4 = Swept<BF16, 3>, fk_sweep_pair_bf16_s8 = Swept<BF16, 4>,
                fk_sweep_four_bf16_s4 = Swept<BF16, 5>, fk_sweep_four_bf16_s8 = Swept<BF16, 6>
            ];
        /// Iterations of problems of few points.
        Iterate<C>
            (points: *const u16, centroids: *mut u16, packed: *mut u16, biases: *mut f32, norms: *const f32,
             largest: *mut f32, states: *mut LoopState, labels: *mut u32, cost: *mut f64, changed: *mut u32,
             starts: *mut u32, sums: *mut f32, heads: *mut f32, thresholds: *const f64, means: *mut f32, moves: *mut f64,
             centroid_norms: *mut f32, residuals: *mut f32, records: *mut IterationRecord, counters: *mut u32;
             params: IterateParams) of Iterate
            = iterate::iterate::<C>, sweep_hopper, [
                fk_iterate_f16_s4 = Swept<F16, 0>, fk_iterate_f16_s8 = Swept<F16, 2>,
                fk_iterate_pair_f16_s4 = Swept<F16, 3>, fk_iterate_pair_f16_s8 = Swept<F16, 4>,
                fk_iterate_four_f16_s4 = Swept<F16, 5>, fk_iterate_four_f16_s8 = Swept<F16, 6>,
                fk_iterate_bf16_s4 = Swept<BF16, 0>, fk_iterate_bf16_s8 = Swept<BF16, 2>,
                fk_iterate_pair_bf16_s4 = Swept<BF16, 3>, fk_iterate_pair_bf16_s8 = Swept<BF16, 4>,
                fk_iterate_four_bf16_s4 = Swept<BF16, 5>, fk_iterate_four_bf16_s8 = Swept<BF16, 6>
            ];
        /// Pairs of a point and a row of a pool, on Hopper's tensor cores.
        ListHopper<C>
            (points: *const u16, packed: *const u16, biases: *const f32, norms: *const f32, residuals: *const f32,
             floors: *const f32, largest: *const f32, states: *const LoopState, limits: *const u32,
             list_counts: *mut u32, pair_points: *mut u32, pair_columns: *mut u32; params: ListHopperParams) of ListMma
            = assign_hopper::list_hopper::<C>, hopper, [
                fk_list_hopper_f16_s4 = Listed<F16, 4>, fk_list_hopper_f16_s8 = Listed<F16, 8>, fk_list_hopper_f16_wide = Listed<F16, HOPPER_WIDE>,
                fk_list_hopper_bf16_s4 = Listed<BF16, 4>, fk_list_hopper_bf16_s8 = Listed<BF16, 8>, fk_list_hopper_bf16_wide = Listed<BF16, HOPPER_WIDE>
            ];
        /// Labels of unsure points in parts.
        RefineHopper<C>
            (points: *const u16, packed: *const u16, biases: *const f32, order: *const u32, norms: *const f32,
             residuals: *const f32, rows: *const u32, largest: *const f32, states: *const LoopState, labels: *mut u32,
             changed: *mut u32, list_counts: *mut u32, list_rows: *mut u32, list_first: *mut u32,
             list_second: *mut u32, many_rows: *mut u32, found: *mut u32; params: RefineParams)
            = assign_hopper::refine_hopper::<C>, hopper, [
                fk_refine_hopper_f32: Refined<F16, REFINE_PARTS>, fk_refine_hopper_f16: Refined<F16, 1>,
                fk_refine_hopper_bf16: Refined<BF16, 1>
            ];
        /// Choices of greedy k-means++ from a pool, by a cluster of blocks.
        ChooseCluster<C>
            (nearest: *mut f64, pool_rows: *const u32, pool_nearest: *const f64, places: *const u32,
             totals: *const f64, limits: *const u32, open: *const LoopState, list_counts: *const u32, starts: *const u32,
             list_points: *const u32, list_distances: *const f64, states: *mut PoolState, rows: *mut u32;
             params: ChooseParams) of Choose
            = pool::choose::<C>, choose_cluster, [fk_choose_cluster: Blocks<CHOOSE_CLUSTER>];
    }
}
