//! The host twin of `ptx.rs`: the same functions over fibers.
//!
//! [`launch`] documents the semantics; each function names the instruction that it stands for.
#[path = "simt/error.rs"]
mod error;
#[path = "simt/hopper.rs"]
mod hopper;
#[path = "simt/launch.rs"]
mod launch;
#[path = "simt/machine.rs"]
mod machine;
#[path = "simt/memory.rs"]
mod memory;

pub use error::{LaunchError, Position};
pub(crate) use hopper::*;
pub use launch::{Launch, Schedule, launch};

use launch::{check, machine, warp_op};
use machine::Kind;
use memory::{Access, SHARED_BASE};

#[inline]
pub(crate) fn thread_idx_x() -> u32 {
    machine(|m| m.position().thread)
}
#[inline]
pub(crate) fn block_idx_x() -> u32 {
    machine(|m| m.position().block)
}
#[inline]
pub(crate) fn block_dim_x() -> u32 {
    machine(|m| m.block_dim)
}
#[inline]
pub(crate) fn grid_dim_x() -> u32 {
    machine(|m| m.grid_dim)
}

/// `barrier.sync.aligned id`: waits for all threads of the block that have not exited.
pub(crate) unsafe fn barrier_all(id: u32) {
    warp_op(Kind::Barrier { id, threads: 0, wait: true }, u32::MAX, &[]);
}
/// `barrier.sync.aligned id, threads`: waits until `threads` threads have arrived.
pub(crate) unsafe fn barrier_sync(id: u32, threads: u32) {
    check(|m| m.check_named_barrier(id, threads));
    warp_op(Kind::Barrier { id, threads, wait: true }, u32::MAX, &[]);
}
/// `barrier.arrive.aligned id, threads`: counts the warp and goes on.
pub(crate) unsafe fn barrier_arrive(id: u32, threads: u32) {
    check(|m| m.check_named_barrier(id, threads));
    warp_op(Kind::Barrier { id, threads, wait: false }, u32::MAX, &[]);
}

/// `bar.warp.sync`: the lanes of the mask wait for each other, and their accesses are ordered.
pub(crate) unsafe fn sync_warp(mask: u32) {
    warp_op(Kind::SyncWarp, mask, &[]);
}
/// `shfl.sync.bfly.b32` with clamp 31.
pub(crate) unsafe fn shuffle_xor(mask: u32, value: u32, lane_mask: u32) -> u32 {
    warp_op(Kind::ShuffleXor, mask, &[value, lane_mask])[0]
}
/// `shfl.sync.idx.b32` with clamp 31: the lane is taken modulo 32.
pub(crate) unsafe fn shuffle_idx(mask: u32, value: u32, lane: u32) -> u32 {
    warp_op(Kind::ShuffleIdx, mask, &[value, lane])[0]
}
/// `shfl.sync.up.b32` with clamp 0: a lane below `delta` reads itself.
pub(crate) unsafe fn shuffle_up(mask: u32, value: u32, delta: u32) -> u32 {
    warp_op(Kind::ShuffleUp, mask, &[value, delta])[0]
}
/// `shfl.sync.down.b32` with clamp 31: a lane with nothing above reads itself.
pub(crate) unsafe fn shuffle_down(mask: u32, value: u32, delta: u32) -> u32 {
    warp_op(Kind::ShuffleDown, mask, &[value, delta])[0]
}
/// `vote.sync.ballot.b32`: bits of lanes outside the mask are 0.
pub(crate) unsafe fn ballot(mask: u32, predicate: bool) -> u32 {
    warp_op(Kind::Ballot, mask, &[u32::from(predicate)])[0]
}

/// Not 0, so that an offset used where an address is meant is out of bounds.
#[inline]
pub(crate) fn dynamic_shared_base() -> u32 {
    SHARED_BASE
}
pub(crate) unsafe fn shared_load_u32(address: u32) -> u32 {
    let [word] = check(|m| m.load(address));
    word
}
pub(crate) unsafe fn shared_store_u32(address: u32, v: u32) {
    check(|m| m.store(address, [v]));
}
pub(crate) unsafe fn shared_load_u64(address: u32) -> u64 {
    let [low, high] = check(|m| m.load(address));
    u64::from(high) << 32 | u64::from(low)
}
pub(crate) unsafe fn shared_store_u64(address: u32, v: u64) {
    check(|m| m.store(address, [v as u32, (v >> 32) as u32]));
}
pub(crate) unsafe fn shared_load_v4(address: u32) -> [u32; 4] {
    check(|m| m.load(address))
}
pub(crate) unsafe fn shared_store_v4(address: u32, v: [u32; 4]) {
    check(|m| m.store(address, v));
}
/// `atom.shared.add.u32`: relaxed, so it orders no other access.
pub(crate) unsafe fn shared_fetch_add_u32(address: u32, v: u32) -> u32 {
    check(|m| m.fetch_add(address, v))
}

/// `ld.global.nc.v4.u32`: the address is a multiple of 16.
pub(crate) unsafe fn global_load_v4(p: *const u32) -> [u32; 4] {
    check(|m| m.check_global(p as usize, 16, Access::Read));
    // SAFETY: the caller's contract, readable bytes at a multiple of 16.
    unsafe { p.cast::<[u32; 4]>().read() }
}
pub(crate) unsafe fn global_fetch_add_u32(p: *mut u32, v: u32) -> u32 {
    check(|m| m.check_global(p as usize, 4, Access::Atomic));
    // SAFETY: the caller's contract, valid and accessed atomically by all.
    unsafe { core::sync::atomic::AtomicU32::from_ptr(p).fetch_add(v, core::sync::atomic::Ordering::Relaxed) }
}
pub(crate) unsafe fn global_fetch_max_u32(p: *mut u32, v: u32) -> u32 {
    check(|m| m.check_global(p as usize, 4, Access::Atomic));
    // SAFETY: the caller's contract, valid and accessed atomically by all.
    unsafe { core::sync::atomic::AtomicU32::from_ptr(p).fetch_max(v, core::sync::atomic::Ordering::Relaxed) }
}
/// `fence.acq_rel.gpu`: behind all that came before it, as if an atomic access told of each.
pub(crate) unsafe fn device_fence() {
    machine(|m| m.fence());
}

#[inline]
pub(crate) fn fma_f32(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// `max.f32`: a NaN gives way to the other.
pub(crate) fn max_f32(a: f32, b: f32) -> f32 {
    a.max(b)
}

/// `set.ge.f32.f32`: 1 or 0, and 0 for a NaN.
pub(crate) fn at_least_f32(a: f32, b: f32) -> f32 {
    if a >= b { 1.0 } else { 0.0 }
}

/// `sqrt.rn.f32`.
pub(crate) fn sqrt_f32(v: f32) -> f32 {
    v.sqrt()
}

/// `sqrt.rn.f64`.
pub(crate) fn sqrt_f64(v: f64) -> f64 {
    v.sqrt()
}

/// `sqrt.approx.f32`.
pub(crate) fn sqrt_approx_f32(v: f32) -> f32 {
    v.sqrt()
}

/// `cvt.f32.f16`: exact.
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    if magnitude >= 0x7c00 {
        return f32::from_bits(sign | 0x7f80_0000 | (magnitude & 0x3ff) << 13);
    }
    // Placed 112 exponents too low, a normal or subnormal half is one exact multiplication away.
    let low = f32::from_bits(magnitude << 13);
    f32::from_bits(sign | (low * f32::from_bits((127 + 112) << 23)).to_bits())
}

/// A shift: exact.
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// `cvt.rn.f16.f32`: ties to even, 65520 and beyond to infinity, NaN to 0x7fff.
pub(crate) fn f32_to_f16(v: f32) -> u16 {
    let sign = (v.to_bits() >> 16) as u16 & 0x8000;
    let magnitude = v.to_bits() & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return 0x7fff;
    }
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    if magnitude < 0x3880_0000 {
        // Values next to 0.5 are a half's smallest subnormal apart, so this addition rounds to one.
        return sign | ((f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits()) as u16;
    }
    let rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    sign | ((rounded >> 13) - (112 << 10)) as u16
}

/// `cvt.rn.bf16.f32`: ties to even, NaN to 0x7fff.
pub(crate) fn f32_to_bf16(v: f32) -> u16 {
    let bits = v.to_bits();
    if v.is_nan() { 0x7fff } else { ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16 }
}

/// `cp.async.cg.shared.global`, 16 bytes.
pub(crate) unsafe fn cp_async_cg_16(dst: u32, src: *const u32) {
    // SAFETY: the caller's contract is that of the load.
    let values = unsafe { global_load_v4(src) };
    check(|m| m.issue_copy(dst, values));
}
/// `cp.async.commit_group`
pub(crate) unsafe fn cp_async_commit_group() {
    machine(|m| m.commit_copies());
}
/// `cp.async.wait_group N`
pub(crate) unsafe fn cp_async_wait_group<const N: u32>() {
    machine(|m| m.wait_copies(N));
}

/// `ldmatrix.sync.aligned.m8n8.x4.shared.b16` behind a `bar.warp.sync`.
pub(crate) unsafe fn ldmatrix_x4(row: u32) -> [u32; 4] {
    warp_op(Kind::Ldmatrix, u32::MAX, &[row])
}
/// `ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16` behind a `bar.warp.sync`.
pub(crate) unsafe fn ldmatrix_x4_trans(row: u32) -> [u32; 4] {
    warp_op(Kind::LdmatrixTrans, u32::MAX, &[row])
}
/// `mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32`
pub(crate) unsafe fn mma_m16n8k16_f32_f16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    warp_op(Kind::MmaF16, u32::MAX, &mma_arguments(a, b, c)).map(f32::from_bits)
}
/// `mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32`
pub(crate) unsafe fn mma_m16n8k16_f32_bf16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    warp_op(Kind::MmaBf16, u32::MAX, &mma_arguments(a, b, c)).map(f32::from_bits)
}
/// Four of [`mma_m16n8k16_f32_f16`].
pub(crate) unsafe fn mma_m32n16k16_f32_f16(a: [[u32; 4]; 2], b: [u32; 4], c: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    // SAFETY: the caller's contract is that of each.
    mma_four(a, b, c, |a, b, c| unsafe { mma_m16n8k16_f32_f16(a, b, c) })
}
/// Four of [`mma_m16n8k16_f32_bf16`].
pub(crate) unsafe fn mma_m32n16k16_f32_bf16(
    a: [[u32; 4]; 2],
    b: [u32; 4],
    c: [[f32; 4]; 4],
) -> [[f32; 4]; 4] {
    // SAFETY: the caller's contract is that of each.
    mma_four(a, b, c, |a, b, c| unsafe { mma_m16n8k16_f32_bf16(a, b, c) })
}
fn mma_four(
    a: [[u32; 4]; 2],
    b: [u32; 4],
    c: [[f32; 4]; 4],
    multiply: impl Fn([u32; 4], [u32; 2], [f32; 4]) -> [f32; 4],
) -> [[f32; 4]; 4] {
    let [low, high] = [[b[0], b[1]], [b[2], b[3]]];
    [
        multiply(a[0], low, c[0]),
        multiply(a[0], high, c[1]),
        multiply(a[1], low, c[2]),
        multiply(a[1], high, c[3]),
    ]
}
/// The other threads have their turns.
pub(crate) unsafe fn pause() {
    launch::pause();
}
/// Nothing.
pub(crate) unsafe fn opaque(value: u32) -> u32 {
    value
}
fn mma_arguments(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [u32; 10] {
    let [c0, c1, c2, c3] = c.map(f32::to_bits);
    [a[0], a[1], a[2], a[3], b[0], b[1], c0, c1, c2, c3]
}
