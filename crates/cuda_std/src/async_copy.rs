//! Copies from global to shared memory that bypass registers.
//!
//! ```text
//! issue tile 0, commit; issue tile 1, commit
//! wait_group::<1>       this thread's part of tile 0 is in shared memory
//! sync_threads          every thread's part is
//! compute on tile 0     while tile 1 is under way
//! sync_threads          tile 0's slot may be written again
//! ```
//! A thread waits for its own copies only, in groups, oldest first; the others see them behind a
//! barrier. From its issue to that wait nobody may touch a copy's 16 bytes, the issuing thread included.
//! Compute capability 8.0.
use crate::shared::Shared;
use crate::sys;

/// Starts a copy of 16 bytes from global to shared memory, through L2 and not L1.
///
/// # Safety
/// `src` is a global address and `dst` an address in the block's shared memory, both multiples of 16
/// with 16 bytes behind them. Nobody writes the source or uses the destination until this thread has
/// waited for the copy.
///
/// # Scope
/// Thread.
///
/// # PTX
/// `cp.async.cg.shared.global [dst], [src], 16`
#[inline(always)]
pub unsafe fn cp_async_cg_16<T: Copy>(dst: Shared<T>, src: *const T) {
    sys::cp_async_cg_16(dst.address(), src.cast())
}

/// Closes a group: the copies that this thread has started since the last one.
///
/// # Safety
/// None beyond being device code.
///
/// # Scope
/// Thread.
///
/// # PTX
/// `cp.async.commit_group`
#[inline(always)]
pub unsafe fn cp_async_commit_group() {
    sys::cp_async_commit_group()
}

/// Waits for this thread's groups, but for the last `N`.
///
/// # Safety
/// None beyond being device code.
///
/// # Scope
/// Thread.
///
/// # PTX
/// `cp.async.wait_group N`
#[inline(always)]
pub unsafe fn cp_async_wait_group<const N: u32>() {
    sys::cp_async_wait_group::<N>()
}
