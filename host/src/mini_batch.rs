//! Points that come in batches, each of which is seen once.
use crate::backend::{Engine, LloydOptions, LloydOutcome};
use crate::element::Float;
use crate::error::{Error, Result};
use crate::init::First;
use crate::metric::length;
use crate::model::BatchSummary;
use crate::params::Init;
use crate::points::Problem;
use crate::{Element, FlashKMeans, KMeans, Metric, weights};
use ndarray::{ArrayView1, ArrayView2, Ix2};
use rayon::prelude::*;
use std::borrow::Cow;

/// Mini-batch k-means (Sculley, 2010): centroids that follow points which come a batch at a time, each seen once. Made by
/// [`FlashKMeans::mini_batch`].
///
/// A step labels a batch under the centroids as they are, on the backend and with the precision that were chosen, as
/// [`KMeans::predict`] does. Then, for each cluster `k` with `m_k` points of the batch,
///
/// ```text
/// c_k += Σ (x − c_k) / (n_k + m_k)        n_k += m_k
/// ```
///
/// in float64: a centroid is the mean of all points that it was ever given, and where it started counts for nothing. Sums
/// are taken on the CPU in the order of the points: the same batches in the same order give the same bits on every run,
/// whatever the number of threads and whichever backend labels exactly. A cluster that is given no points stays where it is. A
/// point with a weight counts that often, in the sum and in `m_k`.
///
/// By a metric whose centroids have length 1, they are these means at length 1; for cosines, the means are of `x/‖x‖`.
///
/// ```
/// use flash_kmeans::{Backend, FlashKMeans};
/// use ndarray::array;
///
/// let mut clusters = FlashKMeans::new(2).backend(Backend::Cpu).mini_batch::<f32>()?;
/// clusters.partial_fit(array![[0.0, 0.0], [9.0, 9.0], [0.2, 0.0]].view())?;
/// clusters.partial_fit(array![[9.2, 9.0]].view())?;
/// assert_eq!(clusters.counts(), [2, 2]);
/// let model = clusters.into_model(array![[1.0, 0.0], [8.0, 9.0]].view())?;
/// assert_ne!(model.labels()[0], model.labels()[1]);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MiniBatch<T: Element> {
    options: FlashKMeans,
    engine: Engine,
    /// `k · d` values; none before the first batch.
    means: Vec<f64>,
    /// The means as the points' type can hold them, which distances are taken to.
    centroids: Vec<T::Centroid>,
    counts: Vec<u64>,
    /// Sums of the weights of the points counted.
    masses: Vec<f64>,
    n_steps: usize,
}

impl FlashKMeans {
    /// Clusters of points that come in batches: see [`MiniBatch`]. The first centroids are found in the first batch, unless
    /// they are given. Of the other options, only `metric`, `seed`, `backend`, `gpu_memory` and `precision` matter.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for several starts, a sample or [`EmptyClusters::Relocate`](crate::EmptyClusters::Relocate), and as [`fit`](Self::fit);
    /// [`Error::BackendUnavailable`] when the backend was named and cannot be had.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::FlashKMeans;
    /// use ndarray::array;
    ///
    /// let mut clusters = FlashKMeans::new(2).mini_batch::<f32>()?;
    /// clusters.partial_fit(array![[0.0], [1.0], [8.0], [9.0]].view())?;
    /// assert_eq!(clusters.n_steps(), 1);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn mini_batch<T: Element>(&self) -> Result<MiniBatch<T>> {
        self.check()?;
        self.check_streams()?;
        self.check_keeps("batches that are seen once leave no points to give to an empty cluster")?;
        Ok(MiniBatch {
            engine: self.engine(T::DTYPE)?,
            means: Vec::new(),
            centroids: Vec::new(),
            counts: vec![0; self.n_clusters()],
            masses: vec![0.0; self.n_clusters()],
            n_steps: 0,
            options: self.clone(),
        })
    }
}

impl<T: Element> MiniBatch<T> {
    /// Takes a batch of points, `(m, d)`, with the same `d` each time. The first needs at least as many points as there are
    /// clusters, unless centroids are given.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no points, [`Error::Shape`] for another `d`, [`Error::TooManyClusters`] for too small
    /// a first batch, [`Error::NonFinite`], and the device's errors. Nothing has changed then.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// let mut clusters = FlashKMeans::new(1).mini_batch()?;
    /// clusters.partial_fit(array![[0.0f32], [1.0]].view())?;
    /// clusters.partial_fit(array![[5.0]].view())?;
    /// assert_eq!(clusters.centroids(), Some(array![[2.0]].view()));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn partial_fit(&mut self, points: ArrayView2<'_, T>) -> Result<()> {
        let problem = self.checked(points)?;
        T::step(self, &problem)
    }

    /// [`partial_fit`](Self::partial_fit) of points that count as often as their weights say, `(m)` of them; centroids
    /// that are found in the first batch are drawn by weight.
    ///
    /// # Errors
    /// As [`partial_fit`](Self::partial_fit), and those of weights as [`FlashKMeans::fit_weighted`].
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// let mut clusters = FlashKMeans::new(1).mini_batch()?;
    /// clusters.partial_fit_weighted(array![[0.0f32], [4.0]].view(), array![3.0f32, 1.0].view())?;
    /// assert_eq!(clusters.centroids(), Some(array![[1.0]].view()));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn partial_fit_weighted<W: Float>(
        &mut self,
        points: ArrayView2<'_, T>,
        weights: ArrayView1<'_, W>,
    ) -> Result<()> {
        let mut problem = self.checked(points)?;
        problem.weights = weights::checked(weights, &ndarray::Dim(problem.n))?.map(Cow::Owned);
        T::step(self, &problem)
    }

    pub(crate) fn step(&mut self, problem: &Problem<'_, T>) -> Result<()> {
        let k = self.counts.len();
        let first = if self.n_steps == 0 { Some(self.first_centroids(problem)?) } else { None };
        let labels = self.engine.assign(
            problem,
            first.as_ref().unwrap_or(&self.centroids),
            k,
            self.options.lloyd_options().metric,
        )?;
        if let Some(first) = first {
            self.means = first.iter().map(|c| c.to_f64()).collect();
            self.centroids = first;
        }
        self.move_means(problem, &labels);
        self.n_steps += 1;
        Ok(())
    }

    /// Points of as many columns as those before.
    fn checked<'a>(&self, points: ArrayView2<'a, T>) -> Result<Problem<'a, T>> {
        let problem = Problem::new(points)?;
        match self.centroids().map(|centroids| centroids.ncols()) {
            Some(d) if d != problem.d => Err(Error::Shape {
                what: "points",
                expected: format!("(any, {d})"),
                actual: format!("({}, {})", problem.n, problem.d),
            }),
            _ => {
                problem.check_finite()?;
                Ok(problem)
            }
        }
    }

    fn first_centroids(&self, problem: &Problem<'_, T>) -> Result<Vec<T::Centroid>> {
        let (LloydOptions { k, metric, .. }, (_, init, seed)) =
            (self.options.lloyd_options(), self.options.asked());
        if k > problem.n && !matches!(init, Init::Given(_)) {
            return Err(Error::TooManyClusters { k, n: problem.n });
        }
        let first = self.engine.first_centroids(problem, First { init, seed }, (k, metric))?;
        Ok(first.into_iter().map(T::round_centroid).collect())
    }

    /// The update that [`MiniBatch`] describes. A cluster is one task's, which adds its rows in their order.
    fn move_means(&mut self, problem: &Problem<'_, T>, labels: &[u32]) {
        let (d, metric) = (problem.d, self.options.lloyd_options().metric);
        let mut rows = vec![Vec::new(); self.counts.len()];
        for (row, &label) in labels.iter().enumerate() {
            rows[label as usize].push(row);
        }
        let clusters = self.means.par_chunks_mut(d).zip(self.centroids.par_chunks_mut(d));
        let counts = self.counts.iter_mut().zip(&mut self.masses);
        let weights = problem.weights.as_deref();
        clusters.zip(counts.collect::<Vec<_>>()).zip(&rows).for_each(
            |(((mean, centroid), (count, mass)), rows)| {
                let weight = |row: usize| weights.map_or(1.0, |weights| weights[row]);
                let point = |row: usize| {
                    let x = &problem.points[row * d..][..d];
                    let scale = if metric == Metric::Cosine { metric.scale(x) } else { 1.0 };
                    x.iter().map(move |x| x.to_f64() * scale)
                };
                *count += rows.len() as u64;
                let Some(&first) = rows.iter().find(|&&row| weight(row) > 0.0) else { return };
                if *mass == 0.0 {
                    mean.iter_mut().zip(point(first)).for_each(|(mean, x)| *mean = x);
                }
                let mut sum = vec![0.0; d];
                for &row in rows {
                    let w = weight(row);
                    sum.iter_mut()
                        .zip(point(row))
                        .zip(&*mean)
                        .for_each(|((sum, x), mean)| *sum += w * (x - mean));
                    *mass += w;
                }
                mean.iter_mut().zip(sum).for_each(|(mean, sum)| *mean += sum / *mass);
                let by = if metric.is_spherical() { length(mean.iter().copied()) } else { 1.0 };
                if by > 0.0 {
                    for (centroid, mean) in centroid.iter_mut().zip(&*mean) {
                        *centroid = T::round_centroid(Float::from_f64(mean / by));
                    }
                }
            },
        );
    }

    /// The centroids, `(k, d)`, for 16-bit points values of that type; `None` before the first batch.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// let mut clusters = FlashKMeans::new(1).mini_batch()?;
    /// assert!(clusters.centroids().is_none());
    /// clusters.partial_fit(array![[0.0f32], [1.0]].view())?;
    /// assert_eq!(clusters.centroids(), Some(array![[0.5]].view()));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn centroids(&self) -> Option<ArrayView2<'_, T::Centroid>> {
        let k = self.counts.len();
        let shape = (self.n_steps > 0).then_some((k, self.centroids.len() / k))?;
        ArrayView2::from_shape(shape, &self.centroids).ok()
    }

    /// The points that each cluster was given so far.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// let mut clusters = FlashKMeans::new(1).mini_batch()?;
    /// clusters.partial_fit(array![[0.0f32], [1.0]].view())?;
    /// assert_eq!(clusters.counts(), [2]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Batches taken.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// let mut clusters = FlashKMeans::new(1).mini_batch()?;
    /// clusters.partial_fit(array![[0.0f32], [1.0]].view())?;
    /// clusters.partial_fit(array![[5.0]].view())?;
    /// assert_eq!(clusters.n_steps(), 2);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn n_steps(&self) -> usize {
        self.n_steps
    }

    /// A model of these centroids with labels, sizes and inertia of `points`, `(n, d)`. Its [`KMeans::n_iter`] is the number
    /// of batches; it has no history and has not converged.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] before the first batch; [`Error::Shape`], [`Error::NonFinite`] and the device's errors.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// let mut clusters = FlashKMeans::new(1).mini_batch()?;
    /// clusters.partial_fit(array![[0.0f32], [2.0]].view())?;
    /// let model = clusters.into_model(array![[0.0], [1.0]].view())?;
    /// assert_eq!((model.n_iter(), model.inertia()), (1, 1.0));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn into_model(self, points: ArrayView2<'_, T>) -> Result<KMeans<T, Ix2>> {
        if self.n_steps == 0 {
            let rule = "centroids are found in the first batch: a model is made after it";
            return Err(Error::InvalidArgument { argument: "n_steps", value: "0".into(), rule });
        }
        let (problem, options) = (self.checked(points)?, self.options.lloyd_options());
        let summary =
            BatchSummary { inertia: 0.0, n_iter: self.n_steps, converged: false, history: Vec::new() };
        let mut outcome =
            LloydOutcome { centroids: self.centroids, labels: Vec::new(), problems: vec![summary] };
        T::extend(&self.engine, &problem, &mut outcome, &options)?;
        KMeans::new(outcome, (self.engine, options.metric), (1, problem.n, problem.d))
    }
}
