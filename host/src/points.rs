//! Points as the backends take them: one contiguous slice and its shape.
use crate::error::{Error, Result};
use crate::{Element, process};
use ndarray::{Array, ArrayView, Dimension, Ix2, Ix3, RemoveAxis};
use rayon::prelude::*;
use std::borrow::Cow;

/// The two shapes points may have: `Ix2`, `(n, d)`, and `Ix3`, `(batch, n, d)`. Sealed.
///
/// # Examples
/// ```
/// use flash_kmeans::{Element, FlashKMeans, PointsDim};
/// use ndarray::{ArrayView, array};
///
/// /// The inertia with one cluster, of one problem or a batch.
/// fn scatter<T: Element, D: PointsDim>(points: ArrayView<'_, T, D>) -> flash_kmeans::Result<f64> {
///     Ok(FlashKMeans::new(1).fit(points)?.inertia())
/// }
///
/// assert_eq!(scatter(array![[0.0f32], [1.0]].view())?, 0.5);
/// assert_eq!(scatter(array![[[0.0f32], [1.0]], [[8.0], [9.0]]].view())?, 1.0);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
pub trait PointsDim: Dimension<Smaller: Dimension> + RemoveAxis + private::Sealed {
    /// `(batch, n, d)` of a shape; `batch` is 1 for `Ix2`.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::PointsDim;
    /// use ndarray::{Ix2, Ix3};
    ///
    /// assert_eq!(Ix2::split(&[5, 3]), (1, 5, 3));
    /// assert_eq!(Ix3::split(&[2, 5, 3]), (2, 5, 3));
    /// ```
    fn split(shape: &[usize]) -> (usize, usize, usize);
    /// The inverse of [`PointsDim::split`].
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::PointsDim;
    /// use ndarray::{Dim, Ix2, Ix3};
    ///
    /// assert_eq!(Ix2::join(1, 5, 3), Dim([5, 3]));
    /// assert_eq!(Ix3::join(2, 5, 3), Dim([2, 5, 3]));
    /// ```
    fn join(batch: usize, rows: usize, columns: usize) -> Self;
    /// `(batch, n)`, without `batch` for `Ix2`.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::PointsDim;
    /// use ndarray::{Dim, Ix2, Ix3};
    ///
    /// assert_eq!(Ix2::join_rows(1, 5), Dim([5]));
    /// assert_eq!(Ix3::join_rows(2, 5), Dim([2, 5]));
    /// ```
    fn join_rows(batch: usize, rows: usize) -> Self::Smaller;
}

mod private {
    pub trait Sealed {}
    impl Sealed for ndarray::Ix2 {}
    impl Sealed for ndarray::Ix3 {}
}

impl PointsDim for Ix2 {
    fn split(shape: &[usize]) -> (usize, usize, usize) {
        (1, shape[0], shape[1])
    }
    fn join(_batch: usize, rows: usize, columns: usize) -> Self {
        ndarray::Dim([rows, columns])
    }
    fn join_rows(_batch: usize, rows: usize) -> Self::Smaller {
        ndarray::Dim([rows])
    }
}
impl PointsDim for Ix3 {
    fn split(shape: &[usize]) -> (usize, usize, usize) {
        (shape[0], shape[1], shape[2])
    }
    fn join(batch: usize, rows: usize, columns: usize) -> Self {
        ndarray::Dim([batch, rows, columns])
    }
    fn join_rows(batch: usize, rows: usize) -> Self::Smaller {
        ndarray::Dim([batch, rows])
    }
}

/// `batch` problems of `n` points in `d` dimensions, row-major.
#[derive(Debug)]
pub(crate) struct Problem<'a, T: Element> {
    /// `batch · n · d` values.
    pub(crate) points: Cow<'a, [T]>,
    pub(crate) batch: usize,
    pub(crate) n: usize,
    pub(crate) d: usize,
    /// `batch · n` of them, finite and not negative; none where all are 1.
    pub(crate) weights: Option<Cow<'a, [f64]>>,
}

impl<'a, T: Element> Problem<'a, T> {
    /// Checks the shape; copies only a view that is not in standard layout.
    pub(crate) fn new<D: PointsDim>(view: ArrayView<'a, T, D>) -> Result<Self> {
        process::check_threads()?;
        let (batch, n, d) = D::split(view.shape());
        for (argument, value) in [("batch", batch), ("n", n), ("d", d)] {
            if value == 0 {
                let rule = "points must have at least one row and one column";
                return Err(Error::InvalidArgument { argument, value: "0".into(), rule });
            }
        }
        let points = match view.to_slice() {
            Some(slice) => Cow::Borrowed(slice),
            None => Cow::Owned(view.iter().copied().collect()),
        };
        Ok(Problem { points, batch, n, d, weights: None })
    }

    /// The points of problem `batch`, `n · d` values.
    pub(crate) fn of_batch(&self, batch: usize) -> &[T] {
        let len = self.n * self.d;
        &self.points[batch * len..][..len]
    }

    /// The weights of problem `batch`, `n` of them, where there are any.
    pub(crate) fn weights_of(&self, batch: usize) -> Option<&[f64]> {
        self.weights.as_deref().map(|weights| &weights[batch * self.n..][..self.n])
    }

    /// Refuses NaN and infinity, naming the first place.
    pub(crate) fn check_finite(&self) -> Result<()> {
        T::check_finite(&self.points, 0, self.d)
    }
}

/// Refuses NaN and infinity among points of which the first is row `row`, naming the first place.
pub(crate) fn check_finite<T: Element>(points: &[T], row: usize, d: usize) -> Result<()> {
    const CHUNK: usize = 1 << 16;
    let found = points
        .par_chunks(CHUNK)
        .enumerate()
        .filter_map(|(chunk, values)| {
            if values.iter().fold(true, |finite, v| finite & v.is_finite()) {
                return None;
            }
            values.iter().position(|v| !v.is_finite()).map(|at| chunk * CHUNK + at)
        })
        .min();
    match found {
        None => Ok(()),
        Some(at) => Err(Error::NonFinite {
            what: "points",
            row: row + at / d,
            column: at % d,
            value: points[at].to_f64().to_string(),
        }),
    }
}

/// An owned array of a shape whose product is the length of `values` by construction.
pub(crate) fn shaped<A, D: Dimension>(values: Vec<A>, shape: D, what: &'static str) -> Result<Array<A, D>> {
    let actual = values.len().to_string();
    let expected = format!("{:?}", shape.slice());
    Array::from_shape_vec(shape, values).map_err(|_| Error::Shape { what, expected, actual })
}
