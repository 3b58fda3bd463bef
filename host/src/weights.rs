//! Weights of points.
use crate::element::{Element, Float};
use crate::error::{Error, Result};
use crate::stream::Source;
use ndarray::{ArrayView, Dimension};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// The weights of `batch · n` points in f64, checked; none where all are 1, which are no weights.
pub(crate) fn checked<C: Float, D: Dimension>(
    weights: ArrayView<'_, C, D>,
    shape: &D,
) -> Result<Option<Vec<f64>>> {
    if weights.raw_dim() != *shape {
        let (expected, actual) = (format!("{:?}", shape.slice()), format!("{:?}", weights.shape()));
        return Err(Error::Shape { what: "weights", expected, actual });
    }
    let n = shape.slice().last().copied().unwrap_or(0);
    let weights: Vec<f64> = weights.iter().map(|w| w.to_f64()).collect();
    Ok(check(&weights, n)?.then_some(weights))
}

/// Refuses weights that are not, in each problem of `n` points, numbers from 0 on and some above it. Whether any
/// differs from 1.
pub(crate) fn check(weights: &[f64], n: usize) -> Result<bool> {
    const CHUNK: usize = 1 << 16;
    let invalid = |value: String, rule| Err(Error::InvalidArgument { argument: "weights", value, rule });
    let is_weight = |w: f64| w >= 0.0 && Element::is_finite(w);
    if let Some(row) = weights.par_iter().position_first(|&w| !is_weight(w)) {
        let rule = "every weight must be finite, not negative, and at most 1e150";
        return invalid(format!("{} in row {row}", weights[row]), rule);
    }
    for (problem, weights) in weights.chunks(n.max(1)).enumerate() {
        if weights.par_chunks(CHUNK).all(|weights| weights.iter().all(|&w| w == 0.0)) {
            let rule = "in each problem, some point must have a weight above 0";
            return invalid(format!("0 in every row of problem {problem}"), rule);
        }
    }
    Ok(weights.par_chunks(CHUNK).any(|weights| weights.iter().any(|&w| w != 1.0)))
}

/// The weights of some rows.
pub(crate) fn of_rows(weights: Option<&[f64]>, rows: &[usize]) -> Option<Cow<'static, [f64]>> {
    weights.map(|weights| rows.iter().map(|&row| weights[row]).collect())
}

/// A [`Source`] whose points have weights: as in [`FlashKMeans::fit_weighted`](crate::FlashKMeans::fit_weighted), for
/// [`fit_stream`](crate::FlashKMeans::fit_stream).
///
/// ```
/// use flash_kmeans::{Backend, FlashKMeans, Init, Streaming, Weighted};
/// use ndarray::array;
///
/// let points = array![[0.0f32], [1.0], [9.0]];
/// let source = Weighted::new(&points, &[3.0, 1.0, 1.0]);
/// let options = FlashKMeans::new(2).init(Init::Given(array![[0.0], [9.0]].into_dyn())).backend(Backend::Cpu);
/// let model = options.fit_stream(&source, &Streaming::new(), &mut ())?;
/// assert_eq!(model.centroids(), &array![[0.25], [9.0]]);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Weighted<'a, S> {
    source: &'a S,
    weights: &'a [f64],
}

impl<'a, S> Weighted<'a, S> {
    /// The points of `source`, with one weight for each of them. The fit checks the weights.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::{FlashKMeans, Streaming, Weighted};
    /// use ndarray::array;
    ///
    /// let points = array![[0.0f32], [4.0]];
    /// let source = Weighted::new(&points, &[3.0, 1.0]);
    /// let model = FlashKMeans::new(1).fit_stream(&source, &Streaming::new(), &mut ())?;
    /// assert_eq!(model.centroids(), &array![[1.0]]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn new(source: &'a S, weights: &'a [f64]) -> Self {
        Weighted { source, weights }
    }
}

impl<T: Element, S: Source<T>> Source<T> for Weighted<'_, S> {
    fn n_points(&self) -> usize {
        self.source.n_points()
    }

    fn n_features(&self) -> usize {
        self.source.n_features()
    }

    fn read(&self, rows: Range<usize>, into: &mut [T]) -> Result<()> {
        self.source.read(rows, into)
    }

    fn weights(&self) -> Option<&[f64]> {
        Some(self.weights)
    }
}
