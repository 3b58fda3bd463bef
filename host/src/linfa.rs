//! Fits and predictions by the traits of [linfa](https://docs.rs/linfa), whose version of `ndarray` is another than that of
//! this crate: arrays go in and out in linfa's. Feature `linfa`.
//!
//! ```
//! use flash_kmeans::{Backend, FlashKMeans, linfa::Linfa};
//! use linfa::prelude::*;
//! # use ndarray_linfa as ndarray;
//! use ndarray::array;
//!
//! let points = DatasetBase::from(array![[0.0f32, 0.0], [0.1, 0.0], [9.0, 9.0], [9.1, 9.0]]);
//! let options = FlashKMeans::new(2).backend(Backend::Cpu).seed(7);
//! let model = Linfa(options).fit(&points)?;
//! let labels = model.predict(&points);
//! assert_eq!(labels[0], labels[1]);
//! assert_eq!(model.centroids().dim(), (2, 2));
//! assert!(model.0.converged());
//! # Ok::<(), flash_kmeans::linfa::Error>(())
//! ```
use crate::element::Element;
use crate::{FlashKMeans, KMeans, Metric};
use ::linfa::traits::{Fit, PredictInplace, Transformer};
use ::linfa::{DatasetBase, Float};
use ndarray::{ArrayView1, ArrayView2, Ix2};
use ndarray_linfa as theirs;
use theirs::{Array1, Array2, ArrayBase, CowArray, Data};

/// [`FlashKMeans`] or a [`KMeans`] of it with linfa's traits: the methods of those names take the `ndarray` of this crate.
///
/// # Examples
/// ```
/// use flash_kmeans::{FlashKMeans, linfa::Linfa};
/// use linfa::prelude::*;
/// # use ndarray_linfa as ndarray;
/// use ndarray::array;
///
/// let points = DatasetBase::from(array![[0.0f32], [1.0], [8.0], [9.0]]);
/// let model = Linfa(FlashKMeans::new(2)).fit(&points)?;
/// assert_eq!(model.0.inertia(), 1.0);
/// # Ok::<(), flash_kmeans::linfa::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Linfa<P>(pub P);

/// Why a fit failed.
///
/// # Examples
/// ```
/// use flash_kmeans::{FlashKMeans, linfa::{Error, Linfa}};
/// use linfa::prelude::*;
/// # use ndarray_linfa as ndarray;
/// use ndarray::array;
///
/// let points = DatasetBase::from(array![[0.0f32], [1.0]]);
/// let error = Linfa(FlashKMeans::new(3)).fit(&points).unwrap_err();
/// assert!(matches!(error, Error::KMeans(flash_kmeans::Error::TooManyClusters { k: 3, n: 2 })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The fit itself.
    #[error(transparent)]
    KMeans(#[from] crate::Error),
    /// What linfa does around a fit.
    #[error(transparent)]
    Linfa(#[from] ::linfa::Error),
}

impl<F: Float + crate::Float, D: Data<Elem = F>, T> Fit<ArrayBase<D, theirs::Ix2>, T, Error>
    for Linfa<FlashKMeans>
{
    type Object = Linfa<KMeans<F, Ix2>>;

    /// Clusters the records, `(n, d)`, with the dataset's weights where it has some. Targets are not looked at.
    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, theirs::Ix2>, T>) -> Result<Self::Object, Error> {
        let points = dataset.records().as_standard_layout();
        let points = ours(&points)?;
        Ok(Linfa(match dataset.weights() {
            None => self.0.fit(points)?,
            Some(weights) => self.0.fit_weighted(points, ArrayView1::from(weights), &mut ())?,
        }))
    }
}

impl<F: Float + Element<Centroid = F>> Linfa<KMeans<F, Ix2>> {
    /// The centroids, `(k, d)`.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, linfa::Linfa};
    /// # use linfa::prelude::*;
    /// # use ndarray_linfa as ndarray;
    /// # use ndarray::array;
    /// let points = DatasetBase::from(array![[0.0f32], [1.0]]);
    /// let model = Linfa(FlashKMeans::new(1)).fit(&points)?;
    /// assert_eq!(model.centroids(), array![[0.5]]);
    /// # Ok::<(), flash_kmeans::linfa::Error>(())
    /// ```
    pub fn centroids(&self) -> Array2<F> {
        let centroids = self.0.centroids();
        Array2::from_shape_fn(centroids.dim(), |at| centroids[at])
    }
}

/// linfa's traits cannot return an error: these two panic with it. [`KMeans::predict`] and
/// [`KMeans::predict_with_distances`] return it.
impl<F: Float + Element<Centroid = F>, D: Data<Elem = F>>
    PredictInplace<ArrayBase<D, theirs::Ix2>, Array1<usize>> for Linfa<KMeans<F, Ix2>>
{
    /// The nearest centroid of each row.
    ///
    /// # Panics
    /// Where [`KMeans::predict`] would return an error, and when `labels` has another length than `points`.
    fn predict_inplace(&self, points: &ArrayBase<D, theirs::Ix2>, labels: &mut Array1<usize>) {
        let found = ours(&points.as_standard_layout()).and_then(|points| self.0.predict(points));
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found.len(), labels.len(), "there must be a label for each point");
        labels.iter_mut().zip(found).for_each(|(label, found)| *label = found as usize);
    }

    fn default_target(&self, points: &ArrayBase<D, theirs::Ix2>) -> Array1<usize> {
        Array1::zeros(points.nrows())
    }
}

impl<F: Float + Element<Centroid = F>, D: Data<Elem = F>> Transformer<&ArrayBase<D, theirs::Ix2>, Array1<F>>
    for Linfa<KMeans<F, Ix2>>
{
    /// The squared distance of each row to its centroid, as linfa's own k-means has it; by another metric than the
    /// Euclidean, the distance.
    ///
    /// # Panics
    /// Where [`KMeans::predict_with_distances`] would return an error.
    fn transform(&self, points: &ArrayBase<D, theirs::Ix2>) -> Array1<F> {
        let points = points.as_standard_layout();
        let found = ours(&points).and_then(|points| self.0.predict_with_distances(points));
        let distances = found.unwrap_or_else(|error| panic!("{error}")).distances;
        let is_squared = self.0.metric() == Metric::Euclidean;
        distances.into_iter().map(|d| if is_squared { d * d } else { d }).collect()
    }
}

/// The same values as an array of this crate's `ndarray`.
fn ours<'a, F>(points: &'a CowArray<'_, F, theirs::Ix2>) -> crate::Result<ArrayView2<'a, F>> {
    let bad = || crate::Error::Shape {
        what: "points",
        expected: "standard layout".into(),
        actual: format!("strides {:?}", points.strides()),
    };
    ArrayView2::from_shape(points.dim(), points.as_slice().ok_or_else(bad)?).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, Init};
    use ::linfa::traits::Predict;
    use theirs::s;

    fn points() -> Array2<f64> {
        Array2::from_shape_fn((600, 3), |(row, column)| {
            ((row * 7 + column) % 5 * 10) as f64 + ((row * 131 + column * 57) % 97) as f64 * 0.05
        })
    }

    #[test]
    fn linfa_s_traits_give_what_the_library_gives() {
        let points = points();
        let plain = ArrayView2::from_shape((600, 3), points.as_slice().unwrap()).unwrap();
        let options = FlashKMeans::new(5).init(Init::Random).seed(2).backend(Backend::Cpu);
        let model = options.fit(plain).unwrap();
        let params = Linfa(options);
        let fitted = params.fit(&DatasetBase::from(points.view())).unwrap();
        assert_eq!(fitted.0.labels(), model.labels());
        let weights = Array1::from_shape_fn(600, |row| (row % 4) as f32);
        let weighted = params.fit(&DatasetBase::from(points.view()).with_weights(weights.clone())).unwrap();
        let weights = ArrayView1::from(weights.as_slice().unwrap());
        let expected = params.0.fit_weighted(plain, weights, &mut ()).unwrap();
        assert_ne!(weighted.0.centroids(), model.centroids());
        assert_eq!(weighted.0.centroids(), expected.centroids());
        assert_eq!(fitted.centroids().as_slice(), model.centroids().as_slice());
        let labels: Array1<usize> = fitted.predict(&points);
        assert!(labels.iter().zip(model.labels()).all(|(&a, &b)| a == b as usize));
        let squares: Array1<f64> = fitted.transform(&points);
        assert!((squares.sum() - model.inertia()).abs() < 1e-9 * model.inertia());

        // Not in standard layout, and with targets.
        let every_other = points.slice(s![..;2, ..;-1]);
        let copied = every_other.as_standard_layout().into_owned();
        let targets = Array1::<usize>::zeros(300);
        let a = params.fit(&DatasetBase::new(every_other, targets)).unwrap();
        let b = params.fit(&DatasetBase::from(copied)).unwrap();
        assert_eq!(a.0.labels(), b.0.labels());
    }

    #[test]
    fn errors_of_a_fit_are_returned() {
        let fit = |k| Linfa(FlashKMeans::new(k).backend(Backend::Cpu)).fit(&DatasetBase::from(points()));
        assert!(matches!(fit(601), Err(Error::KMeans(crate::Error::TooManyClusters { k: 601, n: 600 }))));
        let generic = Error::from(::linfa::Error::NotEnoughSamples);
        assert_eq!(generic.to_string(), "not enough samples");
    }

    #[test]
    #[should_panic(expected = "points must have shape (1, any, 3)")]
    fn a_prediction_that_has_no_answer_panics() {
        let model = Linfa(FlashKMeans::new(2).backend(Backend::Cpu)).fit(&DatasetBase::from(points()));
        let _: Array1<usize> = model.unwrap().predict(&Array2::<f64>::zeros((4, 2)));
    }
}
