//! Atomics on global memory. Integers only: their sum does not depend on the order of arrival.
use crate::sys;

/// Adds to `*p` atomically and returns what it was; no ordering of other accesses.
///
/// # Safety
/// `p` is aligned and valid, and only accessed atomically while the kernel runs.
///
/// # PTX
/// `atom.relaxed.gpu.global.add.u32`
#[inline(always)]
pub unsafe fn fetch_add_u32(p: *mut u32, value: u32) -> u32 {
    sys::global_fetch_add_u32(p, value)
}

/// Raises `*p` to `value` atomically if it is less and returns what it was; no ordering of other accesses.
///
/// # Safety
/// As [`fetch_add_u32`].
///
/// # PTX
/// `atom.relaxed.gpu.global.max.u32`
#[inline(always)]
pub unsafe fn fetch_max_u32(p: *mut u32, value: u32) -> u32 {
    sys::global_fetch_max_u32(p, value)
}
