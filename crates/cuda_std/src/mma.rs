//! Warp-level tensor-core products.
//!
//! A warp multiplies a 16x16 tile of A by a 16x8 tile of B and adds to a 16x8 tile of C. The tiles are
//! spread over its lanes; lane `l` is in group `g = l / 4` and is number `t = l % 4` there:
//!
//! ```text
//!             A (row)                     B (column)              C, D
//!        2t  2t+1 | 2t+8 2t+9             column g              2t  2t+1
//! g       a0  a1  |  a4   a5        2t    b0                g    c0  c1
//! g + 8   a2  a3  |  a6   a7        2t+1  b1                g+8  c2  c3
//!                                   2t+8  b2
//!                                   2t+9  b3
//! ```
//! 16-bit values travel two in a register, the even one in the low half. [`ldmatrix_x4`] loads A in this
//! shape from rows of 16 bytes in shared memory, and B from its transpose.
//!
//! All of these need compute capability 8.0 and all 32 lanes of the warp. Each begins with a
//! `bar.warp.sync`, because it is `asm!`: a convergent intrinsic in front of it in the same straight
//! line keeps LLVM from copying it into the arms of a branch.
use crate::shared::Shared;
use crate::sys;

/// Row and column in A of value `index` (0 to 7) of `lane`.
pub const fn a_element(lane: u32, index: u32) -> (u32, u32) {
    (lane / 4 + 8 * (index / 2 % 2), 2 * (lane % 4) + index % 2 + 8 * (index / 4))
}

/// Row and column in B of value `index` (0 to 3) of `lane`.
pub const fn b_element(lane: u32, index: u32) -> (u32, u32) {
    (2 * (lane % 4) + index % 2 + 8 * (index / 2), lane / 4)
}

/// Row and column in C and D of value `index` (0 to 3) of `lane`.
pub const fn c_element(lane: u32, index: u32) -> (u32, u32) {
    (lane / 4 + 8 * (index / 2), 2 * (lane % 4) + index % 2)
}

/// Loads four 8x8 matrices of 16-bit values.
///
/// Lane `8 m + r` names row `r` of matrix `m`, 8 values in 16 bytes. Register `m` of lane `l` gets values
/// `2 (l % 4)` and the next of row `l / 4`. With the matrices in the order of a 2x2 tiling by columns
/// that is the A of [`mma_m16n8k16_f32_f16`].
///
/// # Safety
/// All 32 lanes must reach the same call; `row` is a multiple of 16 with 16 bytes inside the block's
/// shared memory, which no thread may write since the last barrier.
///
/// # Scope
/// Warp, convergent. Orders the shared accesses of its lanes before it, as
/// [`sync_warp`](crate::warp::sync_warp) does.
///
/// # PTX
/// `bar.warp.sync`, `ldmatrix.sync.aligned.m8n8.x4.shared.b16`
#[inline(always)]
pub unsafe fn ldmatrix_x4<T: Copy>(row: Shared<T>) -> [u32; 4] {
    sys::ldmatrix_x4(row.address())
}

/// Loads four 8x8 matrices of 16-bit values, each transposed.
///
/// As [`ldmatrix_x4`], but register `m` of lane `l` gets values `l / 4` of row `2 (l % 4)` and of the
/// next. Rows of B, whose columns a lane needs, are loaded with this.
///
/// # Safety
/// As [`ldmatrix_x4`].
///
/// # Scope
/// As [`ldmatrix_x4`].
///
/// # PTX
/// `bar.warp.sync`, `ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16`
#[inline(always)]
pub unsafe fn ldmatrix_x4_trans<T: Copy>(row: Shared<T>) -> [u32; 4] {
    sys::ldmatrix_x4_trans(row.address())
}

/// `A B + C` for half precision A and B, summed in single precision.
///
/// # Safety
/// All 32 lanes must reach the same call.
///
/// # Scope
/// Warp, convergent. The order of the sum is the hardware's.
///
/// # PTX
/// `bar.warp.sync`, `mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32`
#[inline(always)]
pub unsafe fn mma_m16n8k16_f32_f16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    sys::mma_m16n8k16_f32_f16(a, b, c)
}

/// `A B + C` for bfloat16 A and B, summed in single precision.
///
/// # Safety
/// All 32 lanes must reach the same call.
///
/// # Scope
/// Warp, convergent. The order of the sum is the hardware's.
///
/// # PTX
/// `bar.warp.sync`, `mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32`
#[inline(always)]
pub unsafe fn mma_m16n8k16_f32_bf16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    sys::mma_m16n8k16_f32_bf16(a, b, c)
}

/// `A B + C` for a 32x16 A and a 16x16 B of half precision, summed in single precision: two tiles of A, the upper first, two
/// of B, the left first, and four of C, the upper row first.
///
/// Four products that come together wait once for the lanes, and loads of other tiles can go on meanwhile.
///
/// # Safety
/// All 32 lanes must reach the same call.
///
/// # Scope
/// Warp, convergent. The order of the sum is the hardware's.
///
/// # PTX
/// `bar.warp.sync`, four times `mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32`
#[inline(always)]
pub unsafe fn mma_m32n16k16_f32_f16(a: [[u32; 4]; 2], b: [u32; 4], c: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    sys::mma_m32n16k16_f32_f16(a, b, c)
}

/// [`mma_m32n16k16_f32_f16`] for bfloat16 A and B.
///
/// # Safety
/// All 32 lanes must reach the same call.
///
/// # Scope
/// Warp, convergent. The order of the sum is the hardware's.
///
/// # PTX
/// `bar.warp.sync`, four times `mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32`
#[inline(always)]
pub unsafe fn mma_m32n16k16_f32_bf16(a: [[u32; 4]; 2], b: [u32; 4], c: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    sys::mma_m32n16k16_f32_bf16(a, b, c)
}

/// A 16-bit type that the products of warps take.
pub trait MmaScalar: crate::float::Scalar {
    /// See [`mma_m32n16k16_f32_f16`].
    ///
    /// # Safety
    /// As [`mma_m32n16k16_f32_f16`].
    unsafe fn mma_m32n16k16(a: [[u32; 4]; 2], b: [u32; 4], c: [[f32; 4]; 4]) -> [[f32; 4]; 4];
}
impl MmaScalar for crate::float::F16 {
    #[inline(always)]
    unsafe fn mma_m32n16k16(a: [[u32; 4]; 2], b: [u32; 4], c: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
        mma_m32n16k16_f32_f16(a, b, c)
    }
}
impl MmaScalar for crate::float::BF16 {
    #[inline(always)]
    unsafe fn mma_m32n16k16(a: [[u32; 4]; 2], b: [u32; 4], c: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
        mma_m32n16k16_f32_bf16(a, b, c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_bijection(map: fn(u32, u32) -> (u32, u32), per_lane: u32, rows: u32, cols: u32) {
        let mut seen = vec![false; (rows * cols) as usize];
        for lane in 0..32 {
            for index in 0..per_lane {
                let (row, col) = map(lane, index);
                assert!(row < rows && col < cols, "lane {lane}, value {index}: ({row}, {col})");
                let place = &mut seen[(row * cols + col) as usize];
                assert!(!*place, "({row}, {col}) is held twice");
                *place = true;
            }
        }
        assert!(seen.into_iter().all(|held| held));
    }

    #[test]
    fn every_element_is_held_once() {
        assert_bijection(a_element, 8, 16, 16);
        assert_bijection(b_element, 4, 16, 8);
        assert_bijection(c_element, 4, 16, 8);
    }

    #[test]
    fn maps_match_the_table_of_the_ptx_manual() {
        // Lane 13 is number 1 of group 3.
        let a = [(3, 2), (3, 3), (11, 2), (11, 3), (3, 10), (3, 11), (11, 10), (11, 11)];
        let b = [(2, 3), (3, 3), (10, 3), (11, 3)];
        let c = [(3, 2), (3, 3), (11, 2), (11, 3)];
        assert_eq!(core::array::from_fn(|i| a_element(13, i as u32)), a);
        assert_eq!(core::array::from_fn(|i| b_element(13, i as u32)), b);
        assert_eq!(core::array::from_fn(|i| c_element(13, i as u32)), c);
    }
}
