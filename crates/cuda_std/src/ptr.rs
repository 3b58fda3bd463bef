//! Vector accesses to global memory.
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

/// 16 bytes that the compiler may load or store at once.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Vector([u32; 4]);

/// Loads 16 bytes, which this thread may write afterwards.
///
/// # Safety
/// `p` is a global address, a multiple of 16, with 16 readable bytes that no other thread writes meanwhile.
///
/// # PTX
/// `ld.global.v4.u32`
#[inline(always)]
pub unsafe fn read_v4(p: *const u32) -> [u32; 4] {
    p.cast::<Vector>().read().0
}

/// Stores 16 bytes.
///
/// # Safety
/// `p` is a global address, a multiple of 16, with 16 writable bytes that no other thread uses meanwhile.
///
/// # PTX
/// `st.global.v4.u32`
#[inline(always)]
pub unsafe fn store_v4(p: *mut u32, words: [u32; 4]) {
    p.cast::<Vector>().write(Vector(words));
}
