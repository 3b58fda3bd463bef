//! The types of values in files, and how they become points.
use crate::element::{DType, Element};
use half::{bf16, f16};
use std::borrow::Cow;

/// The type of the values in a file.
///
/// # Examples
/// ```
/// use flash_kmeans::io::{PointFile, StoredType, write_npy};
/// use ndarray::array;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("points.npy");
/// write_npy(&path, array![[0u8], [255]].view())?;
/// assert_eq!(PointFile::open(&path)?.stored_type(), StoredType::U8);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoredType {
    /// Unsigned bytes.
    U8,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl StoredType {
    /// Bytes of one value.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::io::StoredType;
    ///
    /// assert_eq!(StoredType::F16.size_bytes(), 2);
    /// ```
    pub fn size_bytes(self) -> usize {
        match self {
            StoredType::U8 => 1,
            StoredType::F16 => 2,
            StoredType::F32 => 4,
            StoredType::F64 => 8,
        }
    }

    /// The type of points that holds every stored value and is no wider than it has to be: `f16` for
    /// half precision, `f64` for double, `f32` for the others.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::{DType, io::StoredType};
    ///
    /// assert_eq!(StoredType::U8.natural_dtype(), DType::F32);
    /// ```
    pub fn natural_dtype(self) -> DType {
        match self {
            StoredType::F16 => DType::F16,
            StoredType::F64 => DType::F64,
            StoredType::U8 | StoredType::F32 => DType::F32,
        }
    }

    pub(super) fn is(self, dtype: DType) -> bool {
        matches!(
            (self, dtype),
            (StoredType::F16, DType::F16) | (StoredType::F32, DType::F32) | (StoredType::F64, DType::F64)
        )
    }
}

impl std::fmt::Display for StoredType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StoredType::U8 => "u8",
            StoredType::F16 => "f16",
            StoredType::F32 => "f32",
            StoredType::F64 => "f64",
        })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A type that can be written to a file. Sealed: `u8`, `u32`, `f16`, `f32` and `f64`.
///
/// # Examples
/// ```
/// use flash_kmeans::io::Value;
///
/// assert_eq!(<u32 as Value>::DESCR, "<u4");
/// ```
pub trait Value: sealed::Sealed + bytemuck::Pod + Send + Sync {
    /// NumPy's name of the type, as a `.npy` header has it.
    const DESCR: &'static str;
}

macro_rules! value {
    ($($type:ty = $descr:literal),*) => {$(
        impl sealed::Sealed for $type {}
        impl Value for $type {
            const DESCR: &'static str = $descr;
        }
    )*};
}
value!(u8 = "|u1", u32 = "<u4", f16 = "<f2", f32 = "<f4", f64 = "<f8");

/// The values as files have them: little-endian.
pub(super) fn le_bytes<A: Value>(values: &[A]) -> Cow<'_, [u8]> {
    let bytes = bytemuck::cast_slice(values);
    if cfg!(target_endian = "little") {
        return Cow::Borrowed(bytes);
    }
    let mut swapped = bytes.to_vec();
    swapped.chunks_exact_mut(size_of::<A>()).for_each(<[u8]>::reverse);
    Cow::Owned(swapped)
}

/// Makes points of stored values: `into[i]` is the value at byte `i · stride_bytes`. A value that `T` cannot
/// hold is rounded to nearest, ties to even.
pub(super) fn convert<T: Element>(stored: StoredType, bytes: &[u8], stride_bytes: usize, into: &mut [T]) {
    match T::DTYPE {
        DType::F16 => fill::<f16>(stored, bytes, stride_bytes, bytemuck::cast_slice_mut(into)),
        DType::BF16 => fill::<bf16>(stored, bytes, stride_bytes, bytemuck::cast_slice_mut(into)),
        DType::F32 => fill::<f32>(stored, bytes, stride_bytes, bytemuck::cast_slice_mut(into)),
        DType::F64 => fill::<f64>(stored, bytes, stride_bytes, bytemuck::cast_slice_mut(into)),
    }
}

fn fill<C: Convert>(stored: StoredType, bytes: &[u8], stride_bytes: usize, into: &mut [C]) {
    match stored {
        StoredType::U8 => each(bytes, stride_bytes, into, |[byte]| C::from_f32(f32::from(byte))),
        StoredType::F16 => each(bytes, stride_bytes, into, |b| C::from_f32(f16::from_le_bytes(b).to_f32())),
        StoredType::F32 => each(bytes, stride_bytes, into, |b| C::from_f32(f32::from_le_bytes(b))),
        StoredType::F64 => each(bytes, stride_bytes, into, |b| C::from_f64(f64::from_le_bytes(b))),
    }
}

fn each<const N: usize, C>(bytes: &[u8], stride_bytes: usize, into: &mut [C], make: impl Fn([u8; N]) -> C) {
    if stride_bytes == N {
        for (to, from) in into.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *to = make(*from);
        }
    } else {
        for (to, from) in into.iter_mut().zip(bytes.chunks(stride_bytes)) {
            if let Some(from) = from.first_chunk::<N>() {
                *to = make(*from);
            }
        }
    }
}

trait Convert: bytemuck::Pod {
    fn from_f32(value: f32) -> Self;
    fn from_f64(value: f64) -> Self;
}
impl Convert for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}
impl Convert for f64 {
    fn from_f32(value: f32) -> Self {
        f64::from(value)
    }
    fn from_f64(value: f64) -> Self {
        value
    }
}
impl Convert for f16 {
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
    fn from_f64(value: f64) -> Self {
        f16::from_f32(to_odd(value))
    }
}
impl Convert for bf16 {
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
    fn from_f64(value: f64) -> Self {
        bf16::from_f32(to_odd(value))
    }
}

/// `value` rounded to odd: of the two neighbours of an inexact value, the one whose last bit is set. A
/// second rounding, to a type at least two bits narrower, then gives what one rounding would have given.
fn to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    if back == value || nearest.is_nan() || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    // An even result that is not exact: its neighbour on the value's side is odd. That of infinity is the largest f32.
    if (back < value) == nearest.is_sign_positive() {
        f32::from_bits(nearest.to_bits() + 1)
    } else {
        f32::from_bits(nearest.to_bits() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nearest f16 by search, ties to even.
    fn nearest_f16(value: f64) -> f16 {
        let mut best = f16::ZERO;
        for bits in 0..0x7c00u16 {
            let candidate = f16::from_bits(bits);
            let (gap, least) = ((candidate.to_f64() - value).abs(), (best.to_f64() - value).abs());
            if gap < least || (gap == least && bits & 1 == 0) {
                best = candidate;
            }
        }
        best
    }

    #[test]
    fn double_to_half_rounds_once() {
        let half_of = <f16 as Convert>::from_f64;
        let one_ulp = f64::from(f16::EPSILON);
        // Just above the middle between two halves: rounding by way of f32 would fall on the tie.
        let above_tie = 1.0 + one_ulp / 2.0 + 1e-12;
        for value in [above_tie, 1.0 + one_ulp / 2.0, 0.1, 65503.9, 3e-8, 2.9802322387695312e-8, 1e-300, 2.0]
        {
            assert_eq!(half_of(value), nearest_f16(value), "{value:e}");
            assert_eq!(half_of(-value), -nearest_f16(value), "-{value:e}");
        }
        assert_eq!(half_of(1e300), f16::INFINITY);
        assert!(half_of(f64::NAN).is_nan());
        assert_eq!(half_of(f64::NEG_INFINITY), f16::NEG_INFINITY);
    }

    /// Values in the middle between a value of the type and the next one, and nearer to it than f32 can tell.
    fn round_once<T: Convert + Element>(largest: u16, of_bits: impl Fn(u16) -> T) {
        for bits in 0..largest {
            let (one, next) = (of_bits(bits).to_f64(), of_bits(bits + 1).to_f64());
            let middle = (one + next) / 2.0;
            let even = if bits % 2 == 0 { one } else { next };
            for sign in [1.0, -1.0] {
                let of = |value: f64| <T as Convert>::from_f64(value * sign).to_f64() * sign;
                assert_eq!(of(middle), even, "{bits:#x}");
                for little in [0.7 * 2f64.powi(-23), 2f64.powi(-25), 2f64.powi(-50)] {
                    assert_eq!(of(middle * (1.0 + little)), next, "{bits:#x}");
                    assert_eq!(of(middle * (1.0 - little)), one, "{bits:#x}");
                }
            }
        }
    }

    #[test]
    fn doubles_near_a_tie_round_once() {
        round_once::<f16>(0x7bff, f16::from_bits);
        round_once::<bf16>(0x7f7f, bf16::from_bits);
        // Beyond the largest, and beyond f32.
        for value in [1e5, 1e39, 1e300, f64::INFINITY] {
            assert_eq!(<f16 as Convert>::from_f64(value), f16::INFINITY);
            assert_eq!(<f16 as Convert>::from_f64(-value), f16::NEG_INFINITY);
        }
        assert_eq!([1e39, -1e39, f64::INFINITY].map(to_odd), [f32::MAX, f32::MIN, f32::INFINITY]);
        assert_eq!(<bf16 as Convert>::from_f64(1e39), bf16::INFINITY);
        assert_eq!(<bf16 as Convert>::from_f64(-1e39), bf16::NEG_INFINITY);
    }

    #[test]
    fn bytes_convert_exactly() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut halves = [f16::ZERO; 256];
        let mut brains = [bf16::ZERO; 256];
        convert(StoredType::U8, &bytes, 1, &mut halves);
        convert(StoredType::U8, &bytes, 1, &mut brains);
        for (i, (half, brain)) in halves.iter().zip(&brains).enumerate() {
            assert_eq!((half.to_f64(), brain.to_f64()), (i as f64, i as f64));
        }
    }
}
