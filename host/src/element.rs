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
///
/// # Examples
/// ```
/// use flash_kmeans::{DType, Element};
///
/// assert_eq!(<half::f16 as Element>::DTYPE, DType::F16);
/// assert_eq!(DType::BF16.to_string(), "bf16");
/// ```
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
///
/// # Examples
/// ```
/// use flash_kmeans::{Element, Float};
///
/// /// The middle between two centroids, whatever the points.
/// fn middle<T: Element>(a: T::Centroid, b: T::Centroid) -> T::Centroid {
///     (a + b) * Float::from_f64(0.5)
/// }
///
/// assert_eq!(middle::<half::f16>(1.0, 2.0), 1.5);
/// ```
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
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::Float;
    ///
    /// assert_eq!(f32::from_f64(0.1), 0.1f32);
    /// ```
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
///
/// # Examples
/// ```
/// use flash_kmeans::{Element, FlashKMeans};
/// use ndarray::{Array2, array};
///
/// /// Labels of points of any type.
/// fn labels<T: Element>(points: &Array2<T>) -> flash_kmeans::Result<Vec<u32>> {
///     Ok(FlashKMeans::new(2).fit_predict(points.view())?.to_vec())
/// }
///
/// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
/// assert_eq!(labels(&points)?, labels(&points.mapv(half::bf16::from_f32))?);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
pub trait Element:
    sealed::Sealed + crate::compiled::Compiled + bytemuck::Pod + Send + Sync + std::fmt::Debug + PartialEq
{
    /// The type of centroids: never narrower than `f32`.
    type Centroid: Float;
    /// The type's name.
    const DTYPE: DType;
    /// The exact value, in the centroids' type.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::Element;
    ///
    /// assert_eq!(half::f16::from_f32(0.5).to_centroid(), 0.5f32);
    /// ```
    fn to_centroid(self) -> Self::Centroid;
    /// The exact value.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::Element;
    ///
    /// assert_eq!(half::bf16::from_f32(0.5).to_f64(), 0.5f64);
    /// ```
    fn to_f64(self) -> f64;
    /// Whether the value can be computed with: neither infinite nor NaN and, of `f64`, at most 1e150 in magnitude,
    /// whose squares have finite sums.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::Element;
    ///
    /// assert!(Element::is_finite(1e150f64));
    /// assert!(!Element::is_finite(1e151f64) && !Element::is_finite(f32::NAN));
    /// ```
    fn is_finite(self) -> bool;
    /// A centroid coordinate as the points' type can hold it, which is the value that distances are
    /// taken to. The identity for `f32` and `f64`; for 16-bit points, the nearest 16-bit value.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::Element;
    ///
    /// assert_eq!(half::bf16::round_centroid(1.001), 1.0);
    /// assert_eq!(f32::round_centroid(1.001), 1.001);
    /// ```
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
