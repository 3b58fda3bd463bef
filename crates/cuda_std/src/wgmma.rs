//! Hopper's own instructions: warpgroup products, bulk copies and the barriers that count their bytes.
//!
//! ```text
//! producer thread   expect_tx(bytes) ─ bulk copy ─ bulk copy ──> barrier `full` completes
//! consumers         wait(full) ─ fence ─ mma ─ mma ─ commit ─ wait ──> arrive(empty) ─> producer
//! ```
//! Availability: `sm_90a` only, and on no emulation; every kernel that uses this module has a portable twin
//! that it is tested against.
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
}
impl TensorScalar for crate::float::F16 {
    #[inline(always)]
    unsafe fn wgmma_m64n128k16<const ADD: bool>(d: &mut [f32; 64], a: &[u32; 4], b: u64) {
        wgmma_m64n128k16_f16::<ADD>(d, a, b)
    }
}
impl TensorScalar for crate::float::BF16 {
    #[inline(always)]
    unsafe fn wgmma_m64n128k16<const ADD: bool>(d: &mut [f32; 64], a: &[u32; 4], b: u64) {
        wgmma_m64n128k16_bf16::<ADD>(d, a, b)
    }
}

/// Gives registers to this warpgroup, until each thread has 232.
///
/// # Safety
/// All threads of the warpgroup call it together, and others have given as many up.
#[inline(always)]
pub unsafe fn setmaxnreg_inc_232() {
    llvm_setmaxnreg_inc(232)
}

/// Gives up this warpgroup's registers but for 40 a thread.
///
/// # Safety
/// As [`setmaxnreg_inc_232`].
#[inline(always)]
pub unsafe fn setmaxnreg_dec_40() {
    llvm_setmaxnreg_dec(40)
}

/// Describes a tile in shared memory whose rows are 128 bytes, in the 128-byte swizzle: 16-byte chunk `c` of
/// row `r` lies at chunk `c ^ (r % 8)`. `address` is a multiple of 32 inside a tile aligned to 1024.
#[inline(always)]
pub fn swizzled_128b(address: u32) -> u64 {
    const SWIZZLE_128B: u64 = 1 << 62;
    const GROUP_OF_8_ROWS: u64 = (1024 >> 4) << 32;
    const ROW_CHUNKS: u64 = 1 << 16;
    SWIZZLE_128B | GROUP_OF_8_ROWS | ROW_CHUNKS | ((address & 0x3ffff) >> 4) as u64
}

#[rustfmt::skip]
macro_rules! operands {
    () => { "{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}, {32}, {33}, {34}, {35}, {36}, {37}, {38}, {39}, {40}, {41}, {42}, {43}, {44}, {45}, {46}, {47}, {48}, {49}, {50}, {51}, {52}, {53}, {54}, {55}, {56}, {57}, {58}, {59}, {60}, {61}, {62}, {63}" };
}

#[rustfmt::skip]
mod products {
    use super::asm;


    /// One step: `d = a · bᵀ` or, with `ADD`, `d += a · bᵀ`, for 64 points, 128 centroids and 16 features of
    /// `f16`, summed in f32.
    ///
    /// # Safety
    /// All 128 threads of the warpgroup call it, after [`wgmma_fence`] in the same straight block; nothing
    /// touches `d` until [`wgmma_wait`]. `b` describes a tile that stays in shared memory until then.
    ///
    /// # PTX
    /// `wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16`
    #[inline(always)]
    pub unsafe fn wgmma_m64n128k16_f16<const ADD: bool>(d: &mut [f32; 64], a: &[u32; 4], b: u64) {
        asm!(
            concat!("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {{", operands!(), "}}, {{{64}, {65}, {66}, {67}}}, {68}, {69}, 1, 1, 0;"),
            inout(reg32) d[0],
            inout(reg32) d[1],
            inout(reg32) d[2],
            inout(reg32) d[3],
            inout(reg32) d[4],
            inout(reg32) d[5],
            inout(reg32) d[6],
            inout(reg32) d[7],
            inout(reg32) d[8],
            inout(reg32) d[9],
            inout(reg32) d[10],
            inout(reg32) d[11],
            inout(reg32) d[12],
            inout(reg32) d[13],
            inout(reg32) d[14],
            inout(reg32) d[15],
            inout(reg32) d[16],
            inout(reg32) d[17],
            inout(reg32) d[18],
            inout(reg32) d[19],
            inout(reg32) d[20],
            inout(reg32) d[21],
            inout(reg32) d[22],
            inout(reg32) d[23],
            inout(reg32) d[24],
            inout(reg32) d[25],
            inout(reg32) d[26],
            inout(reg32) d[27],
            inout(reg32) d[28],
            inout(reg32) d[29],
            inout(reg32) d[30],
            inout(reg32) d[31],
            inout(reg32) d[32],
            inout(reg32) d[33],
            inout(reg32) d[34],
            inout(reg32) d[35],
            inout(reg32) d[36],
            inout(reg32) d[37],
            inout(reg32) d[38],
            inout(reg32) d[39],
            inout(reg32) d[40],
            inout(reg32) d[41],
            inout(reg32) d[42],
            inout(reg32) d[43],
            inout(reg32) d[44],
            inout(reg32) d[45],
            inout(reg32) d[46],
            inout(reg32) d[47],
            inout(reg32) d[48],
            inout(reg32) d[49],
            inout(reg32) d[50],
            inout(reg32) d[51],
            inout(reg32) d[52],
            inout(reg32) d[53],
            inout(reg32) d[54],
            inout(reg32) d[55],
            inout(reg32) d[56],
            inout(reg32) d[57],
            inout(reg32) d[58],
            inout(reg32) d[59],
            inout(reg32) d[60],
            inout(reg32) d[61],
            inout(reg32) d[62],
            inout(reg32) d[63],
            in(reg32) a[0], in(reg32) a[1], in(reg32) a[2], in(reg32) a[3], in(reg64) b, const ADD as u32,
            options(nostack)
        );
    }

    /// One step: `d = a · bᵀ` or, with `ADD`, `d += a · bᵀ`, for 64 points, 128 centroids and 16 features of
    /// `bf16`, summed in f32.
    ///
    /// # Safety
    /// All 128 threads of the warpgroup call it, after [`wgmma_fence`] in the same straight block; nothing
    /// touches `d` until [`wgmma_wait`]. `b` describes a tile that stays in shared memory until then.
    ///
    /// # PTX
    /// `wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16`
    #[inline(always)]
    pub unsafe fn wgmma_m64n128k16_bf16<const ADD: bool>(d: &mut [f32; 64], a: &[u32; 4], b: u64) {
        asm!(
            concat!("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {{", operands!(), "}}, {{{64}, {65}, {66}, {67}}}, {68}, {69}, 1, 1, 0;"),
            inout(reg32) d[0],
            inout(reg32) d[1],
            inout(reg32) d[2],
            inout(reg32) d[3],
            inout(reg32) d[4],
            inout(reg32) d[5],
            inout(reg32) d[6],
            inout(reg32) d[7],
            inout(reg32) d[8],
            inout(reg32) d[9],
            inout(reg32) d[10],
            inout(reg32) d[11],
            inout(reg32) d[12],
            inout(reg32) d[13],
            inout(reg32) d[14],
            inout(reg32) d[15],
            inout(reg32) d[16],
            inout(reg32) d[17],
            inout(reg32) d[18],
            inout(reg32) d[19],
            inout(reg32) d[20],
            inout(reg32) d[21],
            inout(reg32) d[22],
            inout(reg32) d[23],
            inout(reg32) d[24],
            inout(reg32) d[25],
            inout(reg32) d[26],
            inout(reg32) d[27],
            inout(reg32) d[28],
            inout(reg32) d[29],
            inout(reg32) d[30],
            inout(reg32) d[31],
            inout(reg32) d[32],
            inout(reg32) d[33],
            inout(reg32) d[34],
            inout(reg32) d[35],
            inout(reg32) d[36],
            inout(reg32) d[37],
            inout(reg32) d[38],
            inout(reg32) d[39],
            inout(reg32) d[40],
            inout(reg32) d[41],
            inout(reg32) d[42],
            inout(reg32) d[43],
            inout(reg32) d[44],
            inout(reg32) d[45],
            inout(reg32) d[46],
            inout(reg32) d[47],
            inout(reg32) d[48],
            inout(reg32) d[49],
            inout(reg32) d[50],
            inout(reg32) d[51],
            inout(reg32) d[52],
            inout(reg32) d[53],
            inout(reg32) d[54],
            inout(reg32) d[55],
            inout(reg32) d[56],
            inout(reg32) d[57],
            inout(reg32) d[58],
            inout(reg32) d[59],
            inout(reg32) d[60],
            inout(reg32) d[61],
            inout(reg32) d[62],
            inout(reg32) d[63],
            in(reg32) a[0], in(reg32) a[1], in(reg32) a[2], in(reg32) a[3], in(reg64) b, const ADD as u32,
            options(nostack)
        );
    }

    /// Waits until at most `PENDING` committed groups are still running; `d` is of one that is not.
    ///
    /// # Safety
    /// As [`wgmma_fence`](super::wgmma_fence).
    ///
    /// # PTX
    /// `wgmma.wait_group.sync.aligned PENDING`
    #[inline(always)]
    pub unsafe fn wgmma_wait<const PENDING: u32>(d: &mut [f32; 64]) {
        // The accumulators are operands so that no use of them moves above the wait.
        asm!(
            concat!("wgmma.wait_group.sync.aligned {64}; // ", operands!()),
            inout(reg32) d[0],
            inout(reg32) d[1],
            inout(reg32) d[2],
            inout(reg32) d[3],
            inout(reg32) d[4],
            inout(reg32) d[5],
            inout(reg32) d[6],
            inout(reg32) d[7],
            inout(reg32) d[8],
            inout(reg32) d[9],
            inout(reg32) d[10],
            inout(reg32) d[11],
            inout(reg32) d[12],
            inout(reg32) d[13],
            inout(reg32) d[14],
            inout(reg32) d[15],
            inout(reg32) d[16],
            inout(reg32) d[17],
            inout(reg32) d[18],
            inout(reg32) d[19],
            inout(reg32) d[20],
            inout(reg32) d[21],
            inout(reg32) d[22],
            inout(reg32) d[23],
            inout(reg32) d[24],
            inout(reg32) d[25],
            inout(reg32) d[26],
            inout(reg32) d[27],
            inout(reg32) d[28],
            inout(reg32) d[29],
            inout(reg32) d[30],
            inout(reg32) d[31],
            inout(reg32) d[32],
            inout(reg32) d[33],
            inout(reg32) d[34],
            inout(reg32) d[35],
            inout(reg32) d[36],
            inout(reg32) d[37],
            inout(reg32) d[38],
            inout(reg32) d[39],
            inout(reg32) d[40],
            inout(reg32) d[41],
            inout(reg32) d[42],
            inout(reg32) d[43],
            inout(reg32) d[44],
            inout(reg32) d[45],
            inout(reg32) d[46],
            inout(reg32) d[47],
            inout(reg32) d[48],
            inout(reg32) d[49],
            inout(reg32) d[50],
            inout(reg32) d[51],
            inout(reg32) d[52],
            inout(reg32) d[53],
            inout(reg32) d[54],
            inout(reg32) d[55],
            inout(reg32) d[56],
            inout(reg32) d[57],
            inout(reg32) d[58],
            inout(reg32) d[59],
            inout(reg32) d[60],
            inout(reg32) d[61],
            inout(reg32) d[62],
            inout(reg32) d[63],
            const PENDING,
            options(nostack)
        );
    }
}
pub use products::*;

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
