//! Where a thread is in its grid, and the barrier of its block.
//!
//! Every kernel of this workspace is one-dimensional: a grid of blocks along x, a block of threads
//! along x.
use crate::sys;

/// Index of the thread in its block.
///
/// # PTX
/// `mov.u32 d, %tid.x`
#[inline(always)]
pub fn thread_idx_x() -> u32 {
    sys::thread_idx_x()
}

/// Index of the block in its grid.
///
/// # PTX
/// `mov.u32 d, %ctaid.x`
#[inline(always)]
pub fn block_idx_x() -> u32 {
    sys::block_idx_x()
}

/// Threads in a block.
///
/// # PTX
/// `mov.u32 d, %ntid.x`
#[inline(always)]
pub fn block_dim_x() -> u32 {
    sys::block_dim_x()
}

/// Blocks in the grid.
///
/// # PTX
/// `mov.u32 d, %nctaid.x`
#[inline(always)]
pub fn grid_dim_x() -> u32 {
    sys::grid_dim_x()
}

/// Waits for every thread of the block; shared and global writes before it are seen after it.
///
/// # Safety
/// Every thread of the block that has not exited must reach the same call.
///
/// # Scope
/// Block, convergent.
///
/// # PTX
/// `barrier.sync.aligned 0`
#[inline(always)]
pub unsafe fn sync_threads() {
    sys::barrier_all(0)
}

/// Waits until the launch before this one on the stream, which this one may have begun beside, has ended and its writes
/// are seen.
///
/// # Safety
/// None beyond being device code.
///
/// # PTX
/// `griddepcontrol.wait`
#[cfg(all(target_arch = "nvptx64", target_feature = "sm_90a"))]
#[inline(always)]
pub unsafe fn grid_dependency_wait() {
    sys::grid_dependency_wait()
}

/// Lets the launch that follows on the stream begin, once every block of this one has said so or ended.
///
/// # Safety
/// What follows must wait by [`grid_dependency_wait`] before it uses what this launch writes.
///
/// # PTX
/// `griddepcontrol.launch_dependents`
#[cfg(all(target_arch = "nvptx64", target_feature = "sm_90a"))]
#[inline(always)]
pub unsafe fn grid_launch_dependents() {
    sys::grid_launch_dependents()
}

/// Orders this thread's global writes before its later ones, for all threads of the device.
///
/// # Safety
/// None beyond being device code.
///
/// # PTX
/// `fence.acq_rel.gpu`
#[inline(always)]
pub unsafe fn device_fence() {
    sys::device_fence()
}

/// In a loop that waits for another thread: where threads take turns, as in the emulation, lets others run.
///
/// # Safety
/// None beyond being device code.
///
/// # PTX
/// Nothing.
#[inline(always)]
pub unsafe fn pause() {
    sys::pause()
}

/// `a / b` for a `b` that is not 0: Rust's own division has a panicking path, which a kernel cannot have.
///
/// # Safety
/// `b` must not be 0.
#[inline(always)]
pub unsafe fn div(a: u32, b: u32) -> u32 {
    a.checked_div(b).unwrap_unchecked()
}

/// [`div`] of 64-bit values.
///
/// # Safety
/// `b` must not be 0.
#[inline(always)]
pub unsafe fn div_u64(a: u64, b: u64) -> u64 {
    a.checked_div(b).unwrap_unchecked()
}

/// `value`, of which the compiler is to know nothing: what follows from it is worked out where it is needed, and takes no
/// registers through a loop.
///
/// # Safety
/// None beyond being device code.
///
/// # PTX
/// Nothing.
#[inline(always)]
pub unsafe fn opaque(value: u32) -> u32 {
    sys::opaque(value)
}
