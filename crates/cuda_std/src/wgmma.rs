//! Hopper's own instructions: warpgroup products, bulk copies and the barriers that count their bytes.
//!
//! ```text
//! producer thread   expect_tx(bytes) ─ bulk copy ─ bulk copy ──> barrier `full` completes
//! consumers         wait(full) ─ fence ─ mma ─ mma ─ commit ─ wait ──> arrive(empty) ─> producer
//! ```
//! Availability: `sm_90a`, and the emulation.
use crate::shared::Shared;
use crate::sys;

/// Orders the warpgroup's register accesses before the products that follow.
///
/// # Safety
/// All threads of the warpgroup call it together.
#[inline(always)]
pub unsafe fn wgmma_fence() {
    sys::wgmma_fence()
}

/// Closes the group of products issued since the last commit.
///
/// # Safety
/// As [`wgmma_fence`].
#[inline(always)]
pub unsafe fn wgmma_commit() {
    sys::wgmma_commit()
}

/// A 16-bit type that the tensor cores multiply.
pub trait TensorScalar: crate::float::Scalar {
    /// See [`wgmma_m64n128k16_f16`].
    ///
    /// # Safety
    /// As [`wgmma_m64n128k16_f16`].
    unsafe fn wgmma_m64n128k16<const ADD: bool>(d: &mut [f32; 64], a: &[u32; 4], b: u64);

    /// See [`wgmma_m64n128k16_f16_shared`].
    ///
    /// # Safety
    /// As [`wgmma_m64n128k16_f16_shared`].
    unsafe fn wgmma_m64n128k16_shared(d: &mut [f32; 64], a: u64, b: u64, add: u32);

    /// See [`wgmma_m64n256k16_f16_shared`].
    ///
    /// # Safety
    /// As [`wgmma_m64n256k16_f16_shared`].
    unsafe fn wgmma_m64n256k16_shared(d: [&mut [f32; 64]; 2], a: u64, b: u64, add: u32);
}
impl TensorScalar for crate::float::F16 {
    #[inline(always)]
    unsafe fn wgmma_m64n128k16<const ADD: bool>(d: &mut [f32; 64], a: &[u32; 4], b: u64) {
        wgmma_m64n128k16_f16::<ADD>(d, a, b)
    }

    #[inline(always)]
    unsafe fn wgmma_m64n128k16_shared(d: &mut [f32; 64], a: u64, b: u64, add: u32) {
        wgmma_m64n128k16_f16_shared(d, a, b, add)
    }

    #[inline(always)]
    unsafe fn wgmma_m64n256k16_shared(d: [&mut [f32; 64]; 2], a: u64, b: u64, add: u32) {
        wgmma_m64n256k16_f16_shared(d, a, b, add)
    }
}
impl TensorScalar for crate::float::BF16 {
    #[inline(always)]
    unsafe fn wgmma_m64n128k16<const ADD: bool>(d: &mut [f32; 64], a: &[u32; 4], b: u64) {
        wgmma_m64n128k16_bf16::<ADD>(d, a, b)
    }

    #[inline(always)]
    unsafe fn wgmma_m64n128k16_shared(d: &mut [f32; 64], a: u64, b: u64, add: u32) {
        wgmma_m64n128k16_bf16_shared(d, a, b, add)
    }

    #[inline(always)]
    unsafe fn wgmma_m64n256k16_shared(d: [&mut [f32; 64]; 2], a: u64, b: u64, add: u32) {
        wgmma_m64n256k16_bf16_shared(d, a, b, add)
    }
}

macro_rules! setmaxnreg {
    ($($registers:literal: $inc:ident, $dec:ident;)*) => {$(
        #[doc = concat!("Gives registers to this warpgroup, until each thread has ", $registers, ".")]
        ///
        /// # Safety
        /// All threads of the warpgroup call it together, and others have given as many up.
        #[inline(always)]
        pub unsafe fn $inc() {
            sys::setmaxnreg_inc::<$registers>()
        }

        #[doc = concat!("Gives up this warpgroup's registers but for ", $registers, " a thread.")]
        ///
        /// # Safety
        /// All threads of the warpgroup call it together.
        #[inline(always)]
        pub unsafe fn $dec() {
            sys::setmaxnreg_dec::<$registers>()
        }
    )*};
}
setmaxnreg! {
    56: setmaxnreg_inc_56, setmaxnreg_dec_56;
    152: setmaxnreg_inc_152, setmaxnreg_dec_152;
    224: setmaxnreg_inc_224, setmaxnreg_dec_224;
}

/// Describes a tile in shared memory to a product.
#[derive(Clone, Copy)]
pub struct Descriptor(u32);

/// Bits of any [`Descriptor`], beside the address: 16-byte chunks of a row, 1024 bytes a group of 8 rows, and the swizzle.
const ROW_CHUNKS: u32 = 1 << 16;
const GROUP_OF_8_ROWS: u64 = (1024 >> 4) << 32;
const SWIZZLE_128B: u64 = 1 << 62;

impl Descriptor {
    /// A tile whose rows are 128 bytes, in the 128-byte swizzle: 16-byte chunk `c` of row `r` lies at chunk
    /// `c ^ (r % 8)`. `address` is a multiple of 32 inside a tile aligned to 1024.
    #[inline(always)]
    pub fn swizzled_128b(address: u32) -> Self {
        Descriptor(ROW_CHUNKS | (address & 0x3ffff) >> 4)
    }

    /// The part of the tile that begins `bytes` further on.
    #[inline(always)]
    pub fn at(self, bytes: u32) -> u64 {
        // The upper half is a constant: additions in the lower one alone.
        SWIZZLE_128B | GROUP_OF_8_ROWS | (self.0 + (bytes >> 4)) as u64
    }

    /// The address of such a part; none where it is not one of a tile in this swizzle.
    #[cfg(not(target_arch = "nvptx64"))]
    pub(crate) fn address_in(part: u64) -> Option<u32> {
        let is_swizzled = part & !0x3fff == SWIZZLE_128B | GROUP_OF_8_ROWS | u64::from(ROW_CHUNKS);
        is_swizzled.then_some((part as u32 & 0x3fff) << 4)
    }
}

macro_rules! products {
    ($types:literal, $from_registers:ident, $from_shared:ident, $of_256:ident) => {
        /// One step: `d = a · bᵀ` or, with `ADD`, `d += a · bᵀ`, for 64 points in registers, 128 centroids in shared
        /// memory and 16 features, summed in f32.
        ///
        /// # Safety
        /// All 128 threads of the warpgroup call it, after [`wgmma_fence`] in the same straight block; nothing
        /// touches `d` until [`wgmma_wait`]. `b` describes a tile that stays in shared memory until then.
        ///
        /// # PTX
        #[doc = concat!("`wgmma.mma_async.sync.aligned.m64n128k16.", $types, "`")]
        #[inline(always)]
        pub unsafe fn $from_registers<const ADD: bool>(d: &mut [f32; 64], a: &[u32; 4], b: u64) {
            sys::$from_registers::<ADD>(d, a, b)
        }

        /// The same of 64 points in shared memory that `a` describes; `d` is added to unless `add` is 0.
        ///
        /// # Safety
        #[doc = concat!("As [`", stringify!($from_registers), "`], of both tiles.")]
        ///
        /// # PTX
        #[doc = concat!("`wgmma.mma_async.sync.aligned.m64n128k16.", $types, "`")]
        #[inline(always)]
        pub unsafe fn $from_shared(d: &mut [f32; 64], a: u64, b: u64, add: u32) {
            sys::$from_shared(d, a, b, add)
        }

        /// The same with 256 centroids, of two tiles one after the other, whose points are read once for both.
        ///
        /// # Safety
        #[doc = concat!("As [`", stringify!($from_shared), "`].")]
        ///
        /// # PTX
        #[doc = concat!("`wgmma.mma_async.sync.aligned.m64n256k16.", $types, "`")]
        #[inline(always)]
        pub unsafe fn $of_256(d: [&mut [f32; 64]; 2], a: u64, b: u64, add: u32) {
            sys::$of_256(d, a, b, add)
        }
    };
}
products! { "f32.f16.f16", wgmma_m64n128k16_f16, wgmma_m64n128k16_f16_shared, wgmma_m64n256k16_f16_shared }
products! { "f32.bf16.bf16", wgmma_m64n128k16_bf16, wgmma_m64n128k16_bf16_shared, wgmma_m64n256k16_bf16_shared }

/// Waits until at most `PENDING` committed groups are still running; `d` is of one that is not.
///
/// # Safety
/// As [`wgmma_fence`].
///
/// # PTX
/// `wgmma.wait_group.sync.aligned PENDING`
#[inline(always)]
pub unsafe fn wgmma_wait<const PENDING: u32>(d: &mut [f32; 64]) {
    sys::wgmma_wait::<PENDING>(d)
}

/// Waits until at most `PENDING` committed groups are still running, whose scores stay theirs: what the others have read
/// in shared memory may be overwritten.
///
/// # Safety
/// As [`wgmma_fence`].
///
/// # PTX
/// `wgmma.wait_group.sync.aligned PENDING`
#[inline(always)]
pub unsafe fn wgmma_wait_reads<const PENDING: u32>() {
    sys::wgmma_wait_reads::<PENDING>()
}

/// A barrier in shared memory that completes a phase when its arrivals and its bytes are in.
#[derive(Clone, Copy)]
pub struct Mbarrier(u32);

impl Mbarrier {
    /// The barrier at a shared address, a multiple of 8.
    #[inline(always)]
    pub fn at(address: u32) -> Self {
        Mbarrier(address)
    }

    /// Starts its first phase, of `arrivals` arrivals.
    ///
    /// # Safety
    /// One thread, before [`fence_mbarrier_init`] and a barrier of the block.
    #[inline(always)]
    pub unsafe fn init(self, arrivals: u32) {
        sys::mbarrier_init(self.0, arrivals)
    }

    /// Arrives, and adds `bytes` to what the phase waits for.
    ///
    /// # Safety
    /// The barrier is initialised.
    #[inline(always)]
    pub unsafe fn arrive_expect_tx(self, bytes: u32) {
        sys::mbarrier_arrive_expect_tx(self.0, bytes)
    }

    /// Arrives.
    ///
    /// # Safety
    /// The barrier is initialised.
    #[inline(always)]
    pub unsafe fn arrive(self) {
        sys::mbarrier_arrive(self.0)
    }

    /// Arrives at the same barrier of the block of `rank` in the cluster. Orders nothing that other blocks see but the
    /// products and reads of shared memory that the thread knows to be done: a release to the cluster would wait for
    /// all of its writes.
    ///
    /// # Safety
    /// That block has initialised it, before a [`cluster_sync`], and has not ended.
    ///
    /// # PTX
    /// `mapa.shared::cluster.u32`, `mbarrier.arrive.shared::cluster.b64`
    #[inline(always)]
    pub unsafe fn arrive_at(self, rank: u32) {
        sys::mbarrier_arrive_at(self.0, rank)
    }

    /// Arrives once all copies that this thread has started with `cp_async_cg_16` are in; counted among the
    /// phase's arrivals.
    ///
    /// # Safety
    /// The barrier is initialised.
    #[inline(always)]
    pub unsafe fn arrive_after_copies(self) {
        sys::mbarrier_arrive_after_copies(self.0)
    }

    /// Waits for the phase of `parity` to complete.
    ///
    /// # Safety
    /// The barrier is initialised and `parity` is that of the phase under way or the one before.
    #[inline(always)]
    pub unsafe fn wait(self, parity: u32) {
        sys::mbarrier_wait(self.0, parity)
    }
}

/// Makes initialised barriers visible to bulk copies.
///
/// # Safety
/// The thread that initialised them, before a barrier of the block.
#[inline(always)]
pub unsafe fn fence_mbarrier_init() {
    sys::fence_mbarrier_init()
}

/// Orders ordinary shared stores before bulk copies and products that touch the same memory.
///
/// # Safety
/// Each thread that stored, before a barrier of the block.
#[inline(always)]
pub unsafe fn fence_proxy_async() {
    sys::fence_proxy_async()
}

/// Copies `bytes` from global to shared memory and counts them at `barrier`.
///
/// # Safety
/// Both addresses and `bytes` are multiples of 16; the barrier expects the bytes.
///
/// # PTX
/// `cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes`
#[inline(always)]
pub unsafe fn bulk_copy(shared: u32, global: *const u8, bytes: u32, barrier: Mbarrier) {
    sys::bulk_copy(shared, global, bytes, barrier.0)
}

/// Copies `bytes` from global memory to the same place in every block of the cluster that `blocks` has a bit for, and
/// counts them at each one's own `barrier`.
///
/// # Safety
/// As [`bulk_copy`], in each of the blocks.
///
/// # PTX
/// `cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster`
#[inline(always)]
pub unsafe fn bulk_copy_multicast(
    shared: u32,
    global: *const u8,
    bytes: u32,
    barrier: Mbarrier,
    blocks: u16,
) {
    sys::bulk_copy_multicast(shared, global, bytes, barrier.0, blocks)
}

/// This block's number in its cluster.
///
/// # PTX
/// `%cluster_ctarank`
#[inline(always)]
pub fn cluster_rank() -> u32 {
    sys::cluster_rank()
}

/// Sets a value in the shared memory of the block of `rank` in the cluster, in the place that `to` is in this one's.
///
/// # Safety
/// That block has begun and has not ended, and between this and its reads is a [`cluster_sync`].
///
/// # PTX
/// `mapa.shared::cluster.u32`, `st.shared::cluster.u64`
#[inline(always)]
pub unsafe fn store_to_block(to: Shared<u64>, rank: u32, value: u64) {
    sys::store_to_block(to.address(), rank, value)
}

/// Tells the cluster that this thread's earlier writes are done; [`cluster_wait`] comes after it.
///
/// # Safety
/// Every thread of the cluster comes here as often.
///
/// # PTX
/// `barrier.cluster.arrive.release`
#[inline(always)]
pub unsafe fn cluster_arrive() {
    sys::cluster_arrive()
}

/// Waits for all threads of the cluster to have come to [`cluster_arrive`], and makes their writes before that visible.
///
/// # Safety
/// As [`cluster_arrive`].
///
/// # PTX
/// `barrier.cluster.wait.acquire`
#[inline(always)]
pub unsafe fn cluster_wait() {
    sys::cluster_wait()
}

/// Waits for all threads of the cluster, and makes their earlier writes visible.
///
/// # Safety
/// As [`cluster_arrive`].
///
/// # PTX
/// `barrier.cluster.arrive.release`, `barrier.cluster.wait.acquire`
#[inline(always)]
pub unsafe fn cluster_sync() {
    cluster_arrive();
    cluster_wait();
}
