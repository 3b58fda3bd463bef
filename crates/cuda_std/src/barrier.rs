//! Named barriers: a barrier of part of a block, for producers and consumers in one kernel.
use crate::sys;

/// Waits until `threads` threads have arrived at barrier `id`, this one included.
///
/// # Safety
/// `id` is 1 to 15 (0 is [`crate::thread::sync_threads`]'s), `threads` a multiple of 32, and all
/// threads of a warp take part together.
///
/// # PTX
/// `barrier.sync.aligned id, threads`
#[inline(always)]
pub unsafe fn barrier_sync(id: u32, threads: u32) {
    sys::barrier_sync(id, threads)
}

/// Arrives at barrier `id` without waiting.
///
/// # Safety
/// As [`barrier_sync`].
///
/// # PTX
/// `barrier.arrive.aligned id, threads`
#[inline(always)]
pub unsafe fn barrier_arrive(id: u32, threads: u32) {
    sys::barrier_arrive(id, threads)
}
