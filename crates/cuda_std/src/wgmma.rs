//! Hopper's own instructions: warpgroup products, bulk copies and the barriers that count their bytes.
//!
//! ```text
//! producer thread   expect_tx(bytes) ─ bulk copy ─ bulk copy ──> barrier `full` completes
//! consumers         wait(full) ─ fence ─ mma ─ mma ─ commit ─ wait ──> arrive(empty) ─> producer
//! ```
//! Availability: `sm_90a` only, and on no emulation; every kernel that uses this module has a portable twin
//! that it is tested against.
use crate::shared::Shared;
use core::arch::asm;

unsafe extern "C" {
    #[link_name = "llvm.nvvm.wgmma.fence.sync.aligned"]
    fn llvm_wgmma_fence();
    #[link_name = "llvm.nvvm.wgmma.commit_group.sync.aligned"]
    fn llvm_wgmma_commit();
    #[link_name = "llvm.nvvm.setmaxnreg.inc.sync.aligned.u32"]
    fn llvm_setmaxnreg_inc(registers: u32);
    #[link_name = "llvm.nvvm.setmaxnreg.dec.sync.aligned.u32"]
    fn llvm_setmaxnreg_dec(registers: u32);
}

/// Orders the warpgroup's register accesses before the products that follow.
///
/// # Safety
/// All threads of the warpgroup call it together.
#[inline(always)]
pub unsafe fn wgmma_fence() {
    llvm_wgmma_fence()
}

/// Closes the group of products issued since the last commit.
///
/// # Safety
/// As [`wgmma_fence`].
#[inline(always)]
pub unsafe fn wgmma_commit() {
    llvm_wgmma_commit()
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
            llvm_setmaxnreg_inc($registers)
        }

        #[doc = concat!("Gives up this warpgroup's registers but for ", $registers, " a thread.")]
        ///
        /// # Safety
        /// All threads of the warpgroup call it together.
        #[inline(always)]
        pub unsafe fn $dec() {
            llvm_setmaxnreg_dec($registers)
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

impl Descriptor {
    /// A tile whose rows are 128 bytes, in the 128-byte swizzle: 16-byte chunk `c` of row `r` lies at chunk
    /// `c ^ (r % 8)`. `address` is a multiple of 32 inside a tile aligned to 1024.
    #[inline(always)]
    pub fn swizzled_128b(address: u32) -> Self {
        const ROW_CHUNKS: u32 = 1 << 16;
        Descriptor(ROW_CHUNKS | (address & 0x3ffff) >> 4)
    }

    /// The part of the tile that begins `bytes` further on.
    #[inline(always)]
    pub fn at(self, bytes: u32) -> u64 {
        const SWIZZLE_128B: u64 = 1 << 62;
        const GROUP_OF_8_ROWS: u64 = (1024 >> 4) << 32;
        // The upper half is a constant: additions in the lower one alone.
        SWIZZLE_128B | GROUP_OF_8_ROWS | (self.0 + (bytes >> 4)) as u64
    }
}

// The 64 scores of a thread, as operands 0 to 63.
#[rustfmt::skip]
macro_rules! operands {
    () => { "{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}, {32}, {33}, {34}, {35}, {36}, {37}, {38}, {39}, {40}, {41}, {42}, {43}, {44}, {45}, {46}, {47}, {48}, {49}, {50}, {51}, {52}, {53}, {54}, {55}, {56}, {57}, {58}, {59}, {60}, {61}, {62}, {63}" };
}
// The 64 of another tile, as the next ones.
#[rustfmt::skip]
macro_rules! more_operands {
    () => { "{64}, {65}, {66}, {67}, {68}, {69}, {70}, {71}, {72}, {73}, {74}, {75}, {76}, {77}, {78}, {79}, {80}, {81}, {82}, {83}, {84}, {85}, {86}, {87}, {88}, {89}, {90}, {91}, {92}, {93}, {94}, {95}, {96}, {97}, {98}, {99}, {100}, {101}, {102}, {103}, {104}, {105}, {106}, {107}, {108}, {109}, {110}, {111}, {112}, {113}, {114}, {115}, {116}, {117}, {118}, {119}, {120}, {121}, {122}, {123}, {124}, {125}, {126}, {127}" };
}
#[rustfmt::skip]
macro_rules! with_scores {
    ($name:ident! $($rest:tt)*) => { $name! { [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63] $($rest)* } };
}

macro_rules! products {
    ([$($i:literal)*] $types:literal, $from_registers:ident, $from_shared:ident, $of_256:ident) => {
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
            asm!(
                concat!(
                    "wgmma.mma_async.sync.aligned.m64n128k16.", $types, " {{", operands!(),
                    "}}, {{{64}, {65}, {66}, {67}}}, {68}, {69}, 1, 1, 0;"
                ),
                $(inout(reg32) d[$i],)*
                in(reg32) a[0], in(reg32) a[1], in(reg32) a[2], in(reg32) a[3], in(reg64) b, const ADD as u32,
                options(nostack)
            );
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
            asm!(
                concat!(
                    "{{ .reg .pred p; setp.ne.b32 p, {66}, 0; wgmma.mma_async.sync.aligned.m64n128k16.", $types,
                    " {{", operands!(), "}}, {64}, {65}, p, 1, 1, 0, 0; }}"
                ),
                $(inout(reg32) d[$i],)*
                in(reg64) a, in(reg64) b, in(reg32) add,
                options(nostack)
            );
        }

        /// The same with 256 centroids, of two tiles one after the other, whose points are read once for both.
        ///
        /// # Safety
        #[doc = concat!("As [`", stringify!($from_shared), "`].")]
        ///
        /// # PTX
        #[doc = concat!("`wgmma.mma_async.sync.aligned.m64n256k16.", $types, "`")]
        #[inline(always)]
        pub unsafe fn $of_256([d, e]: [&mut [f32; 64]; 2], a: u64, b: u64, add: u32) {
            asm!(
                concat!(
                    "{{ .reg .pred p; setp.ne.b32 p, {130}, 0; wgmma.mma_async.sync.aligned.m64n256k16.", $types,
                    " {{", operands!(), ", ", more_operands!(), "}}, {128}, {129}, p, 1, 1, 0, 0; }}"
                ),
                $(inout(reg32) d[$i],)* $(inout(reg32) e[$i],)*
                in(reg64) a, in(reg64) b, in(reg32) add,
                options(nostack)
            );
        }
    };
}
with_scores! { products! "f32.f16.f16", wgmma_m64n128k16_f16, wgmma_m64n128k16_f16_shared, wgmma_m64n256k16_f16_shared }
with_scores! { products! "f32.bf16.bf16", wgmma_m64n128k16_bf16, wgmma_m64n128k16_bf16_shared, wgmma_m64n256k16_bf16_shared }

macro_rules! wait {
    ([$($i:literal)*]) => {
        /// Waits until at most `PENDING` committed groups are still running; `d` is of one that is not.
        ///
        /// # Safety
        /// As [`wgmma_fence`].
        ///
        /// # PTX
        /// `wgmma.wait_group.sync.aligned PENDING`
        #[inline(always)]
        pub unsafe fn wgmma_wait<const PENDING: u32>(d: &mut [f32; 64]) {
            // The accumulators are operands so that no use of them moves above the wait.
            asm!(
                concat!("wgmma.wait_group.sync.aligned {64}; // ", operands!()),
                $(inout(reg32) d[$i],)*
                const PENDING,
                options(nostack)
            );
        }
    };
}
with_scores! { wait! }

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
    asm!("wgmma.wait_group.sync.aligned {0};", const PENDING, options(nostack));
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
        asm!("mbarrier.init.shared::cta.b64 [{0}], {1};", in(reg32) self.0, in(reg32) arrivals, options(nostack));
    }

    /// Arrives, and adds `bytes` to what the phase waits for.
    ///
    /// # Safety
    /// The barrier is initialised.
    #[inline(always)]
    pub unsafe fn arrive_expect_tx(self, bytes: u32) {
        asm!("mbarrier.arrive.expect_tx.shared::cta.b64 _, [{0}], {1};", in(reg32) self.0, in(reg32) bytes, options(nostack));
    }

    /// Arrives.
    ///
    /// # Safety
    /// The barrier is initialised.
    #[inline(always)]
    pub unsafe fn arrive(self) {
        asm!("mbarrier.arrive.shared::cta.b64 _, [{0}];", in(reg32) self.0, options(nostack));
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
        asm!(
            "{{ .reg .b32 a; mapa.shared::cluster.u32 a, {0}, {1}; \
             mbarrier.arrive.shared::cluster.b64 _, [a]; }}",
            in(reg32) self.0, in(reg32) rank, options(nostack)
        );
    }

    /// Arrives once all copies that this thread has started with `cp_async_cg_16` are in; counted among the
    /// phase's arrivals.
    ///
    /// # Safety
    /// The barrier is initialised.
    #[inline(always)]
    pub unsafe fn arrive_after_copies(self) {
        asm!("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [{0}];", in(reg32) self.0, options(nostack));
    }

    /// Waits for the phase of `parity` to complete.
    ///
    /// # Safety
    /// The barrier is initialised and `parity` is that of the phase under way or the one before.
    #[inline(always)]
    pub unsafe fn wait(self, parity: u32) {
        loop {
            let done: u32;
            asm!(
                "{{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [{1}], {2}; selp.u32 {0}, 1, 0, p; }}",
                out(reg32) done, in(reg32) self.0, in(reg32) parity, options(nostack)
            );
            if done != 0 {
                return;
            }
        }
    }
}

/// Makes initialised barriers visible to bulk copies.
///
/// # Safety
/// The thread that initialised them, before a barrier of the block.
#[inline(always)]
pub unsafe fn fence_mbarrier_init() {
    asm!("fence.mbarrier_init.release.cluster;", options(nostack));
}

/// Orders ordinary shared stores before bulk copies and products that touch the same memory.
///
/// # Safety
/// Each thread that stored, before a barrier of the block.
#[inline(always)]
pub unsafe fn fence_proxy_async() {
    asm!("fence.proxy.async.shared::cta;", options(nostack));
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
    asm!("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [{0}], [{1}], {2}, [{3}];",
        in(reg32) shared, in(reg64) global, in(reg32) bytes, in(reg32) barrier.0, options(nostack));
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
    asm!("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [{0}], [{1}], {2}, [{3}], {4};",
        in(reg32) shared, in(reg64) global, in(reg32) bytes, in(reg32) barrier.0, in(reg16) blocks, options(nostack));
}

/// This block's number in its cluster.
///
/// # PTX
/// `%cluster_ctarank`
#[inline(always)]
pub fn cluster_rank() -> u32 {
    let rank: u32;
    // SAFETY: reads a register.
    unsafe { asm!("mov.u32 {0}, %cluster_ctarank;", out(reg32) rank, options(nostack, nomem, pure)) };
    rank
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
    asm!(
        "{{ .reg .b32 a; mapa.shared::cluster.u32 a, {0}, {1}; st.shared::cluster.u64 [a], {2}; }}",
        in(reg32) to.address(), in(reg32) rank, in(reg64) value, options(nostack)
    );
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
    asm!("barrier.cluster.arrive.release;", options(nostack));
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
    asm!("barrier.cluster.wait.acquire;", options(nostack));
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
