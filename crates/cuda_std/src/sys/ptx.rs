//! The PTX twin: this file and `ptx/hopper.rs` are the only ones with `asm!` and LLVM intrinsics.
//!
//! `simt.rs` beside it has the same functions with the same signatures and meaning.
use core::arch::asm;
use core::arch::nvptx;

#[cfg(target_feature = "sm_90a")]
#[path = "ptx/hopper.rs"]
mod hopper;
#[cfg(target_feature = "sm_90a")]
pub(crate) use hopper::*;

unsafe extern "C" {
    #[link_name = "llvm.nvvm.shfl.sync.bfly.i32"]
    fn llvm_shfl_bfly(mask: u32, value: u32, lane_mask: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.idx.i32"]
    fn llvm_shfl_idx(mask: u32, value: u32, lane: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.up.i32"]
    fn llvm_shfl_up(mask: u32, value: u32, delta: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.down.i32"]
    fn llvm_shfl_down(mask: u32, value: u32, delta: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.vote.ballot.sync"]
    fn llvm_ballot(mask: u32, predicate: bool) -> u32;
    #[link_name = "llvm.nvvm.bar.warp.sync"]
    fn llvm_sync_warp(mask: u32);
    #[link_name = "llvm.nvvm.barrier.cta.sync.aligned.all"]
    fn llvm_barrier_all(id: u32);
    #[link_name = "llvm.nvvm.barrier.cta.sync.aligned.count"]
    fn llvm_barrier_count(id: u32, threads: u32);
    #[link_name = "llvm.nvvm.barrier.cta.arrive.aligned.count"]
    fn llvm_barrier_arrive(id: u32, threads: u32);
}

#[inline(always)]
pub(crate) fn thread_idx_x() -> u32 {
    unsafe { nvptx::_thread_idx_x() as u32 }
}
#[inline(always)]
pub(crate) fn block_idx_x() -> u32 {
    unsafe { nvptx::_block_idx_x() as u32 }
}
#[inline(always)]
pub(crate) fn block_dim_x() -> u32 {
    unsafe { nvptx::_block_dim_x() as u32 }
}
#[inline(always)]
pub(crate) fn grid_dim_x() -> u32 {
    unsafe { nvptx::_grid_dim_x() as u32 }
}

#[inline(always)]
pub(crate) unsafe fn barrier_all(id: u32) {
    llvm_barrier_all(id)
}
#[inline(always)]
pub(crate) unsafe fn barrier_sync(id: u32, threads: u32) {
    llvm_barrier_count(id, threads)
}
#[inline(always)]
pub(crate) unsafe fn barrier_arrive(id: u32, threads: u32) {
    llvm_barrier_arrive(id, threads)
}

#[inline(always)]
pub(crate) unsafe fn sync_warp(mask: u32) {
    llvm_sync_warp(mask)
}
#[inline(always)]
pub(crate) unsafe fn shuffle_xor(mask: u32, value: u32, lane_mask: u32) -> u32 {
    llvm_shfl_bfly(mask, value, lane_mask, 0x1f)
}
#[inline(always)]
pub(crate) unsafe fn shuffle_idx(mask: u32, value: u32, lane: u32) -> u32 {
    llvm_shfl_idx(mask, value, lane, 0x1f)
}
#[inline(always)]
pub(crate) unsafe fn shuffle_up(mask: u32, value: u32, delta: u32) -> u32 {
    llvm_shfl_up(mask, value, delta, 0)
}
#[inline(always)]
pub(crate) unsafe fn shuffle_down(mask: u32, value: u32, delta: u32) -> u32 {
    llvm_shfl_down(mask, value, delta, 0x1f)
}
#[inline(always)]
pub(crate) unsafe fn ballot(mask: u32, predicate: bool) -> u32 {
    llvm_ballot(mask, predicate)
}

/// Base address of the block's dynamic shared memory, in the shared window.
#[inline(always)]
pub(crate) fn dynamic_shared_base() -> u32 {
    let base: u32;
    // The symbol is declared by `dynamic_shared_memory!` in the kernel crate.
    unsafe {
        asm!("mov.u32 {0}, dynamic_shared;", out(reg32) base, options(pure, nomem, nostack, preserves_flags))
    };
    base
}

// Shared accesses are asm with a memory clobber: LLVM keeps their order with respect to barriers.
#[inline(always)]
pub(crate) unsafe fn shared_load_u32(address: u32) -> u32 {
    let v: u32;
    asm!("ld.shared.u32 {0}, [{1}];", out(reg32) v, in(reg32) address, options(nostack, readonly));
    v
}
#[inline(always)]
pub(crate) unsafe fn shared_store_u32(address: u32, v: u32) {
    asm!("st.shared.u32 [{0}], {1};", in(reg32) address, in(reg32) v, options(nostack));
}
#[inline(always)]
pub(crate) unsafe fn shared_load_u64(address: u32) -> u64 {
    let v: u64;
    asm!("ld.shared.u64 {0}, [{1}];", out(reg64) v, in(reg32) address, options(nostack, readonly));
    v
}
#[inline(always)]
pub(crate) unsafe fn shared_store_u64(address: u32, v: u64) {
    asm!("st.shared.u64 [{0}], {1};", in(reg32) address, in(reg64) v, options(nostack));
}
#[inline(always)]
pub(crate) unsafe fn shared_load_v4(address: u32) -> [u32; 4] {
    let (a, b, c, d): (u32, u32, u32, u32);
    asm!("ld.shared.v4.u32 {{{0}, {1}, {2}, {3}}}, [{4}];", out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d,
        in(reg32) address, options(nostack, readonly));
    [a, b, c, d]
}
#[inline(always)]
pub(crate) unsafe fn shared_store_v4(address: u32, v: [u32; 4]) {
    asm!("st.shared.v4.u32 [{4}], {{{0}, {1}, {2}, {3}}};", in(reg32) v[0], in(reg32) v[1], in(reg32) v[2], in(reg32) v[3],
        in(reg32) address, options(nostack));
}
#[inline(always)]
pub(crate) unsafe fn shared_fetch_add_u32(address: u32, v: u32) -> u32 {
    let old: u32;
    asm!("atom.shared.add.u32 {0}, [{1}], {2};", out(reg32) old, in(reg32) address, in(reg32) v, options(nostack));
    old
}

#[inline(always)]
pub(crate) unsafe fn global_load_v4(p: *const u32) -> [u32; 4] {
    let (a, b, c, d): (u32, u32, u32, u32);
    asm!("ld.global.nc.v4.u32 {{{0}, {1}, {2}, {3}}}, [{4}];", out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d,
        in(reg64) p, options(nostack, readonly));
    [a, b, c, d]
}
#[inline(always)]
pub(crate) unsafe fn global_fetch_add_u32(p: *mut u32, v: u32) -> u32 {
    core::sync::atomic::AtomicU32::from_ptr(p).fetch_add(v, core::sync::atomic::Ordering::Relaxed)
}
#[inline(always)]
pub(crate) unsafe fn global_fetch_max_u32(p: *mut u32, v: u32) -> u32 {
    core::sync::atomic::AtomicU32::from_ptr(p).fetch_max(v, core::sync::atomic::Ordering::Relaxed)
}
#[inline(always)]
pub(crate) unsafe fn device_fence() {
    asm!("fence.acq_rel.gpu;", options(nostack));
}

#[inline(always)]
pub(crate) fn fma_f32(a: f32, b: f32, c: f32) -> f32 {
    let r: f32;
    unsafe {
        asm!("fma.rn.f32 {0}, {1}, {2}, {3};", out(reg32) r, in(reg32) a, in(reg32) b, in(reg32) c,
            options(pure, nomem, nostack, preserves_flags))
    };
    r
}
#[inline(always)]
pub(crate) fn max_f32(a: f32, b: f32) -> f32 {
    let r: f32;
    unsafe {
        asm!("max.f32 {0}, {1}, {2};", out(reg32) r, in(reg32) a, in(reg32) b,
            options(pure, nomem, nostack, preserves_flags))
    };
    r
}
#[inline(always)]
pub(crate) fn at_least_f32(a: f32, b: f32) -> f32 {
    let r: f32;
    unsafe {
        asm!("set.ge.f32.f32 {0}, {1}, {2};", out(reg32) r, in(reg32) a, in(reg32) b,
            options(pure, nomem, nostack, preserves_flags))
    };
    r
}
#[inline(always)]
pub(crate) fn sqrt_f32(v: f32) -> f32 {
    let r: f32;
    unsafe {
        asm!("sqrt.rn.f32 {0}, {1};", out(reg32) r, in(reg32) v, options(pure, nomem, nostack, preserves_flags))
    };
    r
}
#[inline(always)]
pub(crate) fn sqrt_f64(v: f64) -> f64 {
    let r: f64;
    unsafe {
        asm!("sqrt.rn.f64 {0}, {1};", out(reg64) r, in(reg64) v, options(pure, nomem, nostack, preserves_flags))
    };
    r
}
#[inline(always)]
pub(crate) fn sqrt_approx_f32(v: f32) -> f32 {
    let r: f32;
    unsafe {
        asm!("sqrt.approx.f32 {0}, {1};", out(reg32) r, in(reg32) v, options(pure, nomem, nostack, preserves_flags))
    };
    r
}
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let r: f32;
    unsafe {
        asm!("cvt.f32.f16 {0}, {1};", out(reg32) r, in(reg16) bits, options(pure, nomem, nostack, preserves_flags))
    };
    r
}
#[inline(always)]
pub(crate) fn f32_to_f16(v: f32) -> u16 {
    let r: u16;
    unsafe {
        asm!("cvt.rn.f16.f32 {0}, {1};", out(reg16) r, in(reg32) v, options(pure, nomem, nostack, preserves_flags))
    };
    r
}
#[inline(always)]
pub(crate) fn f32_to_bf16(v: f32) -> u16 {
    let r: u16;
    unsafe {
        asm!("cvt.rn.bf16.f32 {0}, {1};", out(reg16) r, in(reg32) v, options(pure, nomem, nostack, preserves_flags))
    };
    r
}

#[cfg(target_feature = "sm_90a")]
#[inline(always)]
pub(crate) unsafe fn grid_dependency_wait() {
    asm!("griddepcontrol.wait;", options(nostack));
}
#[cfg(target_feature = "sm_90a")]
#[inline(always)]
pub(crate) unsafe fn grid_launch_dependents() {
    asm!("griddepcontrol.launch_dependents;", options(nostack));
}

// A copy is no convergent operation; the memory clobber keeps its order with loads, stores and waits.
#[inline(always)]
pub(crate) unsafe fn cp_async_cg_16(dst: u32, src: *const u32) {
    asm!("cp.async.cg.shared.global [{0}], [{1}], 16;", in(reg32) dst, in(reg64) src, options(nostack));
}
#[inline(always)]
pub(crate) unsafe fn cp_async_commit_group() {
    asm!("cp.async.commit_group;", options(nostack));
}
#[inline(always)]
pub(crate) unsafe fn cp_async_wait_group<const N: u32>() {
    asm!("cp.async.wait_group {0};", const N, options(nostack));
}

// Convergent for the hardware but not for LLVM, so each follows a convergent intrinsic, which pins it. None
// is `pure`: without a side effect LLVM could still move it away from there.
#[inline(always)]
pub(crate) unsafe fn ldmatrix_x4(row: u32) -> [u32; 4] {
    let (a, b, c, d): (u32, u32, u32, u32);
    llvm_sync_warp(u32::MAX);
    asm!("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{{0}, {1}, {2}, {3}}}, [{4}];", out(reg32) a, out(reg32) b,
        out(reg32) c, out(reg32) d, in(reg32) row, options(nostack, readonly));
    [a, b, c, d]
}
#[inline(always)]
pub(crate) unsafe fn ldmatrix_x4_trans(row: u32) -> [u32; 4] {
    let (a, b, c, d): (u32, u32, u32, u32);
    llvm_sync_warp(u32::MAX);
    asm!("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {{{0}, {1}, {2}, {3}}}, [{4}];", out(reg32) a,
        out(reg32) b, out(reg32) c, out(reg32) d, in(reg32) row, options(nostack, readonly));
    [a, b, c, d]
}
#[inline(always)]
pub(crate) unsafe fn mma_m16n8k16_f32_f16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    let [mut d0, mut d1, mut d2, mut d3] = c;
    llvm_sync_warp(u32::MAX);
    asm!("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {{{0}, {1}, {2}, {3}}}, {{{4}, {5}, {6}, {7}}}, \
        {{{8}, {9}}}, {{{0}, {1}, {2}, {3}}};", inout(reg32) d0, inout(reg32) d1, inout(reg32) d2,
        inout(reg32) d3, in(reg32) a[0], in(reg32) a[1], in(reg32) a[2], in(reg32) a[3], in(reg32) b[0],
        in(reg32) b[1], options(nostack, nomem));
    [d0, d1, d2, d3]
}
#[inline(always)]
pub(crate) unsafe fn mma_m16n8k16_f32_bf16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    let [mut d0, mut d1, mut d2, mut d3] = c;
    llvm_sync_warp(u32::MAX);
    asm!("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {{{0}, {1}, {2}, {3}}}, {{{4}, {5}, {6}, {7}}}, \
        {{{8}, {9}}}, {{{0}, {1}, {2}, {3}}};", inout(reg32) d0, inout(reg32) d1, inout(reg32) d2,
        inout(reg32) d3, in(reg32) a[0], in(reg32) a[1], in(reg32) a[2], in(reg32) a[3], in(reg32) b[0],
        in(reg32) b[1], options(nostack, nomem));
    [d0, d1, d2, d3]
}

macro_rules! mma_m32n16k16 {
    ($($name:ident: $type:literal;)*) => {$(
        #[inline(always)]
        pub(crate) unsafe fn $name(a: [[u32; 4]; 2], b: [u32; 4], mut c: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
            llvm_sync_warp(u32::MAX);
            asm!(
                concat!(
                    "mma.sync.aligned.m16n8k16.row.col.f32.", $type, ".", $type, ".f32 {{{0}, {1}, {2}, {3}}}, {{{16}, {17}, {18}, {19}}}, {{{24}, {25}}}, {{{0}, {1}, {2}, {3}}};\n",
                    "mma.sync.aligned.m16n8k16.row.col.f32.", $type, ".", $type, ".f32 {{{4}, {5}, {6}, {7}}}, {{{16}, {17}, {18}, {19}}}, {{{26}, {27}}}, {{{4}, {5}, {6}, {7}}};\n",
                    "mma.sync.aligned.m16n8k16.row.col.f32.", $type, ".", $type, ".f32 {{{8}, {9}, {10}, {11}}}, {{{20}, {21}, {22}, {23}}}, {{{24}, {25}}}, {{{8}, {9}, {10}, {11}}};\n",
                    "mma.sync.aligned.m16n8k16.row.col.f32.", $type, ".", $type, ".f32 {{{12}, {13}, {14}, {15}}}, {{{20}, {21}, {22}, {23}}}, {{{26}, {27}}}, {{{12}, {13}, {14}, {15}}};\n",
                ),
                inout(reg32) c[0][0], inout(reg32) c[0][1], inout(reg32) c[0][2], inout(reg32) c[0][3], inout(reg32) c[1][0], inout(reg32) c[1][1], inout(reg32) c[1][2], inout(reg32) c[1][3], inout(reg32) c[2][0], inout(reg32) c[2][1], inout(reg32) c[2][2], inout(reg32) c[2][3], inout(reg32) c[3][0], inout(reg32) c[3][1], inout(reg32) c[3][2], inout(reg32) c[3][3],
                in(reg32) a[0][0], in(reg32) a[0][1], in(reg32) a[0][2], in(reg32) a[0][3], in(reg32) a[1][0], in(reg32) a[1][1], in(reg32) a[1][2], in(reg32) a[1][3], in(reg32) b[0], in(reg32) b[1], in(reg32) b[2], in(reg32) b[3],
                options(nostack, nomem)
            );
            c
        }
    )*};
}
mma_m32n16k16! {
    mma_m32n16k16_f32_f16: "f16";
    mma_m32n16k16_f32_bf16: "bf16";
}

#[inline(always)]
pub(crate) unsafe fn pause() {}
#[inline(always)]
pub(crate) unsafe fn opaque(mut value: u32) -> u32 {
    asm!("// {0}", inout(reg32) value, options(nostack, nomem));
    value
}
