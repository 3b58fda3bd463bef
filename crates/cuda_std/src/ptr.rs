//! Vector loads from global memory.
use crate::sys;

/// Loads 16 bytes through the read-only path.
///
/// # Safety
/// `p` is a global address, a multiple of 16, with 16 readable bytes that nothing writes while the
/// kernel runs.
///
/// # PTX
/// `ld.global.nc.v4.u32`
#[inline(always)]
pub unsafe fn load_v4(p: *const u32) -> [u32; 4] {
    sys::global_load_v4(p)
}
