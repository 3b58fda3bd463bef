//! Arithmetic that Rust does not spell: fused multiply-add and the 16-bit types.

/// IEEE half precision, as its bits. Same layout as `half::f16`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(transparent)]
pub struct F16(pub u16);

/// bfloat16, as its bits. Same layout as `half::bf16`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(transparent)]
pub struct BF16(pub u16);

#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
pub use device::{Scalar, at_least, fma, max, sqrt, sqrt_approx, sqrt_f64};

#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod device {
    use super::{BF16, F16};
    use crate::sys;

    /// `a * b + c`, rounded once.
    ///
    /// # PTX
    /// `fma.rn.f32`
    #[inline(always)]
    pub fn fma(a: f32, b: f32, c: f32) -> f32 {
        sys::fma_f32(a, b, c)
    }

    /// The larger of two values; a NaN gives way to the other.
    ///
    /// # PTX
    /// `max.f32`
    #[inline(always)]
    pub fn max(a: f32, b: f32) -> f32 {
        sys::max_f32(a, b)
    }

    /// 1 where `a >= b`, else 0: a comparison that a multiplication can use.
    ///
    /// # PTX
    /// `set.ge.f32.f32`
    #[inline(always)]
    pub fn at_least(a: f32, b: f32) -> f32 {
        sys::at_least_f32(a, b)
    }

    /// The square root, correctly rounded.
    ///
    /// # PTX
    /// `sqrt.rn.f32`
    #[inline(always)]
    pub fn sqrt(value: f32) -> f32 {
        sys::sqrt_f32(value)
    }

    /// [`sqrt`] of an f64.
    ///
    /// # PTX
    /// `sqrt.rn.f64`
    #[inline(always)]
    pub fn sqrt_f64(value: f64) -> f64 {
        sys::sqrt_f64(value)
    }

    /// The square root within a few units in the last place, in few instructions and registers.
    ///
    /// # PTX
    /// `sqrt.approx.f32`
    #[inline(always)]
    pub fn sqrt_approx(value: f32) -> f32 {
        sys::sqrt_approx_f32(value)
    }

    /// A type that points may have in device memory.
    pub trait Scalar: Copy {
        /// Values in a 16-byte vector.
        const PER_VECTOR: usize = 16 / size_of::<Self>();
        /// The exact value.
        fn to_f32(self) -> f32;
        /// The nearest value, ties to even.
        fn from_f32(value: f32) -> Self;
        /// Value `index` of a 16-byte vector; `index` is a constant once loops are unrolled.
        fn of_vector(vector: [u32; 4], index: usize) -> f32;
        /// Stores the nearest values, at once.
        ///
        /// # Safety
        /// `p` is a multiple of four values' bytes, with room for them, which no other thread uses meanwhile.
        unsafe fn store_four(p: *mut Self, values: [f32; 4]);
    }
    /// Four values of 16 bits, which the compiler may store at once.
    #[repr(align(8))]
    struct Four<T>(#[allow(dead_code, reason = "memory is what reads it")] [T; 4]);
    impl Scalar for f32 {
        #[inline(always)]
        fn to_f32(self) -> f32 {
            self
        }
        #[inline(always)]
        fn from_f32(value: f32) -> Self {
            value
        }
        #[inline(always)]
        fn of_vector(vector: [u32; 4], index: usize) -> f32 {
            f32::from_bits(vector[index & 3])
        }
        #[inline(always)]
        unsafe fn store_four(p: *mut Self, values: [f32; 4]) {
            crate::ptr::store_v4(p.cast(), values.map(f32::to_bits));
        }
    }
    impl Scalar for F16 {
        #[inline(always)]
        fn to_f32(self) -> f32 {
            sys::f16_to_f32(self.0)
        }
        #[inline(always)]
        fn from_f32(value: f32) -> Self {
            F16(sys::f32_to_f16(value))
        }
        #[inline(always)]
        fn of_vector(vector: [u32; 4], index: usize) -> f32 {
            let word = vector[(index >> 1) & 3];
            F16((word >> (16 * (index & 1))) as u16).to_f32()
        }
        #[inline(always)]
        unsafe fn store_four(p: *mut Self, values: [f32; 4]) {
            p.cast::<Four<Self>>().write(Four(values.map(Self::from_f32)));
        }
    }
    impl Scalar for BF16 {
        #[inline(always)]
        fn to_f32(self) -> f32 {
            f32::from_bits((self.0 as u32) << 16)
        }
        #[inline(always)]
        fn from_f32(value: f32) -> Self {
            BF16(sys::f32_to_bf16(value))
        }
        #[inline(always)]
        fn of_vector(vector: [u32; 4], index: usize) -> f32 {
            let word = vector[(index >> 1) & 3];
            f32::from_bits(if index & 1 == 0 { word << 16 } else { word & 0xffff_0000 })
        }
        #[inline(always)]
        unsafe fn store_four(p: *mut Self, values: [f32; 4]) {
            p.cast::<Four<Self>>().write(Four(values.map(Self::from_f32)));
        }
    }
}
