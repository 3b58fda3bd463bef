//! What a fit returns.
use crate::backend::{Engine, LloydOutcome};
use crate::error::{Error, Result};
use crate::init;
use crate::metric::Metric;
use crate::points::{PointsDim, Problem, shaped};
use crate::{Backend, Element, Precision};
use ndarray::{Array, ArrayView};
use rayon::prelude::*;

/// One iteration of one problem.
///
/// # Examples
/// ```
/// use flash_kmeans::FlashKMeans;
/// use ndarray::array;
///
/// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
/// let model = FlashKMeans::new(2).fit(points.view())?;
/// let first = model.problems()[0].history[0];
/// assert_eq!(first.changed, 4);
/// assert!(first.inertia > model.inertia());
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IterationStats {
    /// The inertia by the metric, before the centroids moved. In the precision of the assignment; [`KMeans::inertia`] is the exact figure of the result.
    pub inertia: f64,
    /// Points whose label differs from the iteration before; all of them in the first.
    pub changed: u64,
    /// `Σ_k ‖c_new − c_old‖²`.
    pub shift: f64,
}

/// How one problem of a batch ended.
///
/// # Examples
/// ```
/// use flash_kmeans::FlashKMeans;
/// use ndarray::array;
///
/// // Two problems of two points.
/// let points = array![[[0.0f32], [1.0]], [[0.0], [4.0]]];
/// let model = FlashKMeans::new(1).fit(points.view())?;
/// let inertia: Vec<f64> = model.problems().iter().map(|problem| problem.inertia).collect();
/// assert_eq!(inertia, [0.5, 8.0]);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Debug, PartialEq)]
pub struct BatchSummary {
    /// Sum over points of their weight, 1 without weights, times the squared distance to their centroid, or what the
    /// [`Metric`] says in its place, summed in float64.
    pub inertia: f64,
    /// Iterations done.
    pub n_iter: usize,
    /// Whether it stopped because it had converged.
    pub converged: bool,
    /// Every iteration, in order.
    pub history: Vec<IterationStats>,
}

/// A fitted k-means. `D` is the points' dimension: `Ix2` for one problem, `Ix3` for a batch.
///
/// # Examples
/// ```
/// use flash_kmeans::FlashKMeans;
/// use ndarray::array;
///
/// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
/// let model = FlashKMeans::new(2).fit(points.view())?;
/// let labels = model.predict(array![[0.4], [8.4]].view())?;
/// assert_eq!(labels[0], model.labels()[0]);
/// assert_eq!(model.centroids()[(labels[1] as usize, 0)], 8.5);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KMeans<T: Element, D: PointsDim> {
    centroids: Array<T::Centroid, D>,
    labels: Array<u32, D::Smaller>,
    sizes: Array<u64, D::Smaller>,
    problems: Vec<BatchSummary>,
    engine: Engine,
    metric: Metric,
}

impl<T: Element, D: PointsDim> KMeans<T, D> {
    pub(crate) fn new(
        outcome: LloydOutcome<T::Centroid>,
        (engine, metric): (Engine, Metric),
        (batch, n, d): (usize, usize, usize),
    ) -> Result<Self> {
        let k = outcome.centroids.len() / (batch * d);
        let sizes = outcome.labels.chunks(n.max(1)).flat_map(|labels| sizes(labels, k)).collect();
        Ok(KMeans {
            centroids: shaped(outcome.centroids, D::join(batch, k, d), "centroids")?,
            labels: shaped(outcome.labels, D::join_rows(batch, n), "labels")?,
            sizes: shaped(sizes, D::join_rows(batch, k), "sizes")?,
            problems: outcome.problems,
            engine,
            metric,
        })
    }

    /// A model of centroids that were found before, to [`predict`](Self::predict) with: `(k, d)` or
    /// `(batch, k, d)`. It has no labels and no history, and its sizes and inertia are 0. For 16-bit points
    /// the centroids are rounded to that type, as a fit would have left them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for centroids without rows or columns, [`Error::NonFinite`], and
    /// [`Error::BackendUnavailable`] when the backend was named and cannot be had.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::{Backend, KMeans};
    /// use ndarray::array;
    ///
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// assert_eq!(model.predict(array![[1.0], [8.0]].view())?.to_vec(), [0, 1]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn from_centroids(centroids: ArrayView<'_, T::Centroid, D>, backend: Backend) -> Result<Self> {
        Self::with_metric(centroids, Metric::Euclidean, backend)
    }

    /// [`from_centroids`](Self::from_centroids) of another metric. Where its centroids have length 1, these are brought to
    /// it first, but for those that have it to the rounding of the points' type.
    ///
    /// # Errors
    /// As [`from_centroids`](Self::from_centroids).
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::{Backend, KMeans, Metric};
    /// use ndarray::array;
    ///
    /// let centroids = array![[3.0, 4.0]];
    /// let model = KMeans::<f32, _>::with_metric(centroids.view(), Metric::Cosine, Backend::Auto)?;
    /// assert_eq!(model.centroids(), &array![[0.6, 0.8]]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn with_metric(
        centroids: ArrayView<'_, T::Centroid, D>,
        metric: Metric,
        backend: Backend,
    ) -> Result<Self> {
        let (batch, k, d) = D::split(centroids.shape());
        for (argument, value) in [("batch", batch), ("n_clusters", k), ("d", d)] {
            if value == 0 {
                let rule = "centroids must have at least one row and one column";
                return Err(Error::InvalidArgument { argument, value: "0".into(), rule });
            }
        }
        let mut centroids: Vec<_> = centroids.iter().copied().collect();
        init::check_centroids::<T>(&mut centroids, metric, d)?;
        centroids.iter_mut().for_each(|c| *c = T::round_centroid(*c));
        Ok(KMeans {
            centroids: shaped(centroids, D::join(batch, k, d), "centroids")?,
            labels: shaped(Vec::new(), D::join_rows(batch, 0), "labels")?,
            sizes: shaped(vec![0; batch * k], D::join_rows(batch, k), "sizes")?,
            problems: Vec::new(),
            engine: Engine::select(backend, T::DTYPE, None, Precision::Exact)?,
            metric,
        })
    }

    /// The centroids, `(k, d)` or `(batch, k, d)`. For 16-bit points they are values of that type.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, Init};
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let first = Init::Given(array![[0.0], [9.0]].into_dyn());
    /// let model = FlashKMeans::new(2).init(first).fit(points.view())?;
    /// assert_eq!(model.centroids(), &array![[0.5], [8.5]]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn centroids(&self) -> &Array<T::Centroid, D> {
        &self.centroids
    }

    /// The nearest centroid of each point, `(n)` or `(batch, n)`.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, Init};
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let first = Init::Given(array![[0.0], [9.0]].into_dyn());
    /// let model = FlashKMeans::new(2).init(first).fit(points.view())?;
    /// assert_eq!(model.labels().to_vec(), [0, 0, 1, 1]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn labels(&self) -> &Array<u32, D::Smaller> {
        &self.labels
    }

    /// The labels, given away.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let labels = FlashKMeans::new(2).fit(points.view())?.into_labels();
    /// assert_eq!(labels[2], labels[3]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn into_labels(self) -> Array<u32, D::Smaller> {
        self.labels
    }

    #[cfg(feature = "mpi")]
    pub(crate) fn set_sizes(&mut self, sizes: impl IntoIterator<Item = u64>) {
        self.sizes.iter_mut().zip(sizes).for_each(|(size, of_all)| *size = of_all);
    }

    /// Points in each cluster, whatever their weight: `(k)` or `(batch, k)`.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).fit(points.view())?;
    /// assert_eq!(model.sizes().to_vec(), [2, 2]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn sizes(&self) -> &Array<u64, D::Smaller> {
        &self.sizes
    }

    /// Sum over all points of all problems of their weight times the squared distance to their centroid, or what the
    /// [`Metric`] says in its place.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).fit(points.view())?;
    /// assert_eq!(model.inertia(), 4.0 * 0.5f64.powi(2));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn inertia(&self) -> f64 {
        self.problems.iter().map(|p| p.inertia).sum()
    }

    /// What is near.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # use flash_kmeans::Metric;
    /// let model = FlashKMeans::new(2).fit(points.view())?;
    /// assert_eq!(model.metric(), Metric::Euclidean);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Whether [`predict`](Self::predict) is exact: after a fit as that was, else it is.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # use flash_kmeans::{Backend, Precision};
    /// // The CPU has no use for the permission.
    /// let options = FlashKMeans::new(2).precision(Precision::Tf32).backend(Backend::Cpu);
    /// assert_eq!(options.fit(points.view())?.precision(), Precision::Exact);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn precision(&self) -> Precision {
        self.engine.precision()
    }

    /// Makes [`predict`](Self::predict) exact or not.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # use flash_kmeans::Precision;
    /// let mut model = FlashKMeans::new(2).fit(points.view())?;
    /// model.set_precision(Precision::Tf32);
    /// // No point is nearly as near to the other centroid.
    /// assert_eq!(&model.predict(points.view())?, model.labels());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn set_precision(&mut self, precision: Precision) {
        self.engine.set_precision(precision);
    }

    /// Iterations done; of the problem that took most, in a batch.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).max_iter(1).fit(points.view())?;
    /// assert_eq!(model.n_iter(), 1);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn n_iter(&self) -> usize {
        self.problems.iter().map(|p| p.n_iter).max().unwrap_or(0)
    }

    /// Whether every problem converged.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).fit(points.view())?;
    /// assert!(model.converged() && model.n_iter() < 300);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn converged(&self) -> bool {
        self.problems.iter().all(|p| p.converged)
    }

    /// How each problem of the batch ended, with its history; one entry for `(n, d)` points.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).fit(points.view())?;
    /// assert_eq!(model.problems().len(), 1);
    /// assert_eq!(model.problems()[0].history.len(), model.n_iter());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn problems(&self) -> &[BatchSummary] {
        &self.problems
    }

    /// Where the fit ran; never [`Backend::Auto`].
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # use flash_kmeans::Backend;
    /// let model = FlashKMeans::new(2).backend(Backend::Cpu).fit(points.view())?;
    /// assert_eq!(model.backend(), Backend::Cpu);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn backend(&self) -> Backend {
        self.engine.backend()
    }

    /// The device's name, for people.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).fit(points.view())?;
    /// println!("fitted on {}", model.device());
    /// # assert!(!model.device().is_empty());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn device(&self) -> String {
        self.engine.device()
    }

    /// The nearest centroid of each of other points: `(m, d)` gives `(m)`, `(batch, m, d)` gives `(batch, m)`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `d` or the batch differ from the centroids', [`Error::NonFinite`], and the
    /// device's errors.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).fit(points.view())?;
    /// let labels = model.predict(array![[2.0], [7.0]].view())?;
    /// assert_eq!((labels[0], labels[1]), (model.labels()[0], model.labels()[3]));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn predict(&self, points: ArrayView<'_, T, D>) -> Result<Array<u32, D::Smaller>> {
        let problem = self.matching(points)?;
        let (_, k, _) = D::split(self.centroids.shape());
        let centroids: Vec<_> = self.centroids.iter().copied().collect();
        let labels = T::assign(&self.engine, &problem, &centroids, k, self.metric)?;
        shaped(labels, D::join_rows(problem.batch, problem.n), "labels")
    }

    /// Points that the centroids can be compared with.
    pub(crate) fn matching<'a>(&self, points: ArrayView<'a, T, D>) -> Result<Problem<'a, T>> {
        let problem = Problem::new(points)?;
        let (batch, _, d) = D::split(self.centroids.shape());
        if (problem.batch, problem.d) != (batch, d) {
            return Err(Error::Shape {
                what: "points",
                expected: format!("({batch}, any, {d})"),
                actual: format!("({}, {}, {})", problem.batch, problem.n, problem.d),
            });
        }
        problem.check_finite()?;
        Ok(problem)
    }
}

/// Points of each of `k` clusters.
fn sizes(labels: &[u32], k: usize) -> Vec<u64> {
    /// Labels that are worth the additions of another array of counts.
    const LABELS: usize = 1 << 20;
    let count = |labels: &[u32]| {
        let mut sizes = vec![0u64; k];
        labels.iter().for_each(|&label| sizes[label as usize] += 1);
        sizes
    };
    let add = |mut sum: Vec<u64>, sizes: Vec<u64>| {
        sum.iter_mut().zip(sizes).for_each(|(sum, size)| *sum += size);
        sum
    };
    labels.par_chunks(LABELS.max(k)).map(count).reduce_with(add).unwrap_or_else(|| vec![0; k])
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use ndarray::{Ix2, array};

    #[test]
    fn given_centroids_are_rounded_checked_and_predicted_with() {
        let model =
            KMeans::<f16, Ix2>::from_centroids(array![[0.1f32, 0.0], [9.0, 9.0]].view(), Backend::Cpu)
                .unwrap();
        assert_eq!(model.centroids()[(0, 0)], f16::from_f32(0.1).to_f32());
        assert_eq!((model.labels().len(), model.sizes().to_vec()), (0, vec![0, 0]));
        let points = array![[8.0f32, 8.0], [0.0, 1.0]].mapv(f16::from_f32);
        assert_eq!(model.predict(points.view()).unwrap().to_vec(), [1, 0]);

        let nan =
            KMeans::<f32, Ix2>::from_centroids(array![[0.0, 0.0], [0.0, f32::NAN]].view(), Backend::Cpu);
        assert!(matches!(nan, Err(Error::NonFinite { what: "centroids", row: 1, column: 1, .. })));
        // Finite as f32, infinite as f16.
        let large = KMeans::<f16, Ix2>::from_centroids(array![[1e6f32]].view(), Backend::Cpu);
        assert!(matches!(large, Err(Error::NonFinite { what: "centroids", .. })));
    }
}
