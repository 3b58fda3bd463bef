//! Operations among the 32 lanes of a warp.
//!
//! Masks are always explicit. All lanes named by a mask must execute the same call with the same mask.
use crate::sys;

/// All 32 lanes.
pub const FULL_MASK: u32 = 0xffff_ffff;
/// Lanes in a warp.
pub const WARP_SIZE: u32 = 32;

/// A value of 4 or 8 bytes that can cross lanes.
pub trait WarpShuffleValue: Copy {
    /// Applies a 32-bit exchange to each word of the value.
    fn map_words(self, f: impl Fn(u32) -> u32) -> Self;
}
impl WarpShuffleValue for u32 {
    #[inline(always)]
    fn map_words(self, f: impl Fn(u32) -> u32) -> Self {
        f(self)
    }
}
impl WarpShuffleValue for f32 {
    #[inline(always)]
    fn map_words(self, f: impl Fn(u32) -> u32) -> Self {
        f32::from_bits(f(self.to_bits()))
    }
}
impl WarpShuffleValue for u64 {
    #[inline(always)]
    fn map_words(self, f: impl Fn(u32) -> u32) -> Self {
        let low = f(self as u32);
        let high = f((self >> 32) as u32);
        ((high as u64) << 32) | low as u64
    }
}
impl WarpShuffleValue for f64 {
    #[inline(always)]
    fn map_words(self, f: impl Fn(u32) -> u32) -> Self {
        f64::from_bits(self.to_bits().map_words(f))
    }
}

/// Index of the thread in its warp.
#[inline(always)]
pub fn lane_id() -> u32 {
    sys::thread_idx_x() & (WARP_SIZE - 1)
}

/// Index of the warp in its block.
#[inline(always)]
pub fn warp_id() -> u32 {
    sys::thread_idx_x() / WARP_SIZE
}

/// Waits for the lanes of `mask`; shared and global writes before it are seen after it.
///
/// # Safety
/// Every lane of `mask` must reach the same call.
///
/// # PTX
/// `bar.warp.sync mask`
#[inline(always)]
pub unsafe fn sync_warp(mask: u32) {
    sys::sync_warp(mask)
}

/// The value of lane `lane_id() ^ lane_mask`.
///
/// # Safety
/// Every lane of `mask` must reach the same call, and the lane read must be one of them.
///
/// # PTX
/// `shfl.sync.bfly.b32`, once for each 4 bytes
#[inline(always)]
pub unsafe fn warp_shuffle_xor<T: WarpShuffleValue>(mask: u32, value: T, lane_mask: u32) -> T {
    value.map_words(|word| sys::shuffle_xor(mask, word, lane_mask))
}

/// The value of lane `lane`.
///
/// # Safety
/// As [`warp_shuffle_xor`].
///
/// # PTX
/// `shfl.sync.idx.b32`, once for each 4 bytes
#[inline(always)]
pub unsafe fn warp_shuffle_idx<T: WarpShuffleValue>(mask: u32, value: T, lane: u32) -> T {
    value.map_words(|word| sys::shuffle_idx(mask, word, lane))
}

/// The value of the lane `delta` below; lanes under `delta` keep their own.
///
/// # Safety
/// As [`warp_shuffle_xor`].
///
/// # PTX
/// `shfl.sync.up.b32`, once for each 4 bytes
#[inline(always)]
pub unsafe fn warp_shuffle_up<T: WarpShuffleValue>(mask: u32, value: T, delta: u32) -> T {
    value.map_words(|word| sys::shuffle_up(mask, word, delta))
}

/// The value of the lane `delta` above; the last `delta` lanes keep their own.
///
/// # Safety
/// As [`warp_shuffle_xor`].
///
/// # PTX
/// `shfl.sync.down.b32`, once for each 4 bytes
#[inline(always)]
pub unsafe fn warp_shuffle_down<T: WarpShuffleValue>(mask: u32, value: T, delta: u32) -> T {
    value.map_words(|word| sys::shuffle_down(mask, word, delta))
}

/// One bit a lane: whether its `predicate` holds.
///
/// # Safety
/// Every lane of `mask` must reach the same call.
///
/// # PTX
/// `vote.sync.ballot.b32`
#[inline(always)]
pub unsafe fn warp_vote_ballot(mask: u32, predicate: bool) -> u32 {
    sys::ballot(mask, predicate)
}

/// Sum over the lanes, in every lane, in one fixed order.
///
/// # Safety
/// All 32 lanes must reach the same call.
#[inline(always)]
pub unsafe fn warp_sum_f64(value: f64) -> f64 {
    lanes_sum_f64::<WARP_SIZE>(value)
}

/// Sum over each `LANES` lanes, a power of two, in every one of them, in one fixed order.
///
/// # Safety
/// All 32 lanes must reach the same call.
#[inline(always)]
pub unsafe fn lanes_sum_f64<const LANES: u32>(mut value: f64) -> f64 {
    let mut offset = LANES / 2;
    while offset > 0 {
        value += warp_shuffle_xor(FULL_MASK, value, offset);
        offset >>= 1;
    }
    value
}

/// Sum of the lanes up to and including this one, modulo 2³².
///
/// # Safety
/// All 32 lanes must reach the same call.
#[inline(always)]
pub unsafe fn warp_inclusive_sum_u32(mut value: u32) -> u32 {
    let lane = lane_id();
    let mut offset = 1;
    while offset < WARP_SIZE {
        let below = warp_shuffle_up(FULL_MASK, value, offset);
        value = value.wrapping_add(if lane >= offset { below } else { 0 });
        offset <<= 1;
    }
    value
}
