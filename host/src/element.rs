//! The types that points and centroids may have.
use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// Name of an element type.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE half precision, 2 bytes.
    F16,
    /// bfloat16, 2 bytes.
    BF16,
    /// IEEE single precision, 4 bytes.
    F32,
    /// IEEE double precision, 8 bytes.
    F64,
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        })
    }
}

/// A type that centroids may have: `f32`, or `f64` for `f64` points. Weights are of either.
pub trait Float:
    Element<Centroid = Self>
    + crate::backend::cpu::tile::Compute
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::AddAssign
    + PartialOrd
    + Default
{
    /// The nearest value.
    fn from_f64(value: f64) -> Self;
}
impl Float for f32 {
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}
impl Float for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }
}

/// A type that points may have. Sealed: `f32`, `f64`, `half::f16` and `half::bf16`.
pub trait Element:
    sealed::Sealed + crate::compiled::Compiled + bytemuck::Pod + Send + Sync + std::fmt::Debug + PartialEq
{
    /// The type of centroids: never narrower than `f32`.
    type Centroid: Float;
    /// The type's name.
    const DTYPE: DType;
    /// The exact value, in the centroids' type.
    fn to_centroid(self) -> Self::Centroid;
    /// The exact value.
    fn to_f64(self) -> f64;
    /// Whether the value can be computed with: neither infinite nor NaN and, of `f64`, at most 1e150 in magnitude,
    /// whose squares have finite sums.
    fn is_finite(self) -> bool;
    /// A centroid coordinate as the points' type can hold it, which is the value that distances are
    /// taken to. The identity for `f32` and `f64`; for 16-bit points, the nearest 16-bit value.
    fn round_centroid(value: Self::Centroid) -> Self::Centroid;
}

macro_rules! element {
    ($type:ty, $centroid:ty, $dtype:ident, $to:expr, $finite:expr, $round:expr) => {
        impl Element for $type {
            type Centroid = $centroid;
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn to_centroid(self) -> $centroid {
                $to(self)
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from($to(self))
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                $finite(self)
            }
            #[inline(always)]
            fn round_centroid(value: $centroid) -> $centroid {
                $round(value)
            }
        }
    };
}
element!(f32, f32, F32, |v| v, f32::is_finite, |c| c);
element!(f64, f64, F64, |v| v, |v: f64| v.abs() <= 1e150, |c| c);
element!(f16, f32, F16, f16::to_f32, f16::is_finite, |c| f16::from_f32(c).to_f32());
element!(bf16, f32, BF16, bf16::to_f32, bf16::is_finite, |c| bf16::from_f32(c).to_f32());
