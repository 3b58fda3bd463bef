//! Distances of points to the centroids of a model, by its metric: computed in float64 by the definition on the CPU's
//! cores, whatever the model's backend, and rounded once to the centroids' type.
use crate::element::Float;
use crate::error::{Error, Result};
use crate::metric::Metric;
use crate::points::{PointsDim, Problem, shaped};
use crate::{Element, KMeans, weights};
use ndarray::{Array, ArrayView, Dimension};
use rayon::prelude::*;

/// The nearest centroids of points.
///
/// # Examples
/// ```
/// use flash_kmeans::{Backend, KMeans, Nearest};
/// use ndarray::array;
///
/// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
/// let Nearest { labels, distances } = model.predict_nearest(array![[7.0]].view(), 2)?;
/// assert_eq!((labels, distances), (array![[1, 0]], array![[2.0, 7.0]]));
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Nearest<C, D: Dimension> {
    /// Indices of the centroids: for the `m` nearest, `(n, m)` or `(batch, n, m)`, nearest first, and of equally near
    /// ones the lowest first; for the nearest alone, `(n)` or `(batch, n)`.
    pub labels: Array<u32, D>,
    /// Their distances by the model's [`Metric`](crate::Metric), of the same shape.
    pub distances: Array<C, D>,
}

/// Rows that one task takes; fixed, so that sums do not depend on the number of threads.
const ROWS: usize = 256;

impl<T: Element, D: PointsDim> KMeans<T, D> {
    /// [`predict`](Self::predict), with the distance of each point to its centroid.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{Backend, KMeans};
    /// # use ndarray::array;
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// let nearest = model.predict_with_distances(array![[1.0], [7.0]].view())?;
    /// assert_eq!(nearest.labels, array![0, 1]);
    /// assert_eq!(nearest.distances, array![1.0, 2.0]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn predict_with_distances(
        &self,
        points: ArrayView<'_, T, D>,
    ) -> Result<Nearest<T::Centroid, D::Smaller>> {
        let labels = self.predict(points.view())?;
        let problem = Problem::new(points)?;
        let (losses, metric) = (self.losses(&problem, &labels), self.metric());
        let distances = losses.into_iter().map(|loss| T::Centroid::from_f64(metric.distance(loss))).collect();
        let distances = shaped(distances, D::join_rows(problem.batch, problem.n), "distances")?;
        Ok(Nearest { labels, distances })
    }

    /// The `m` nearest centroids of each point and their distances. With `m` of 1 the labels are those of
    /// [`predict`](Self::predict).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when `m` is not in `1..=k`; else as [`predict`](Self::predict).
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{Backend, KMeans};
    /// # use ndarray::array;
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// let nearest = model.predict_nearest(array![[1.0], [7.0]].view(), 2)?;
    /// assert_eq!(nearest.labels, array![[0, 1], [1, 0]]);
    /// assert_eq!(nearest.distances, array![[1.0, 8.0], [2.0, 7.0]]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn predict_nearest(&self, points: ArrayView<'_, T, D>, m: usize) -> Result<Nearest<T::Centroid, D>> {
        let (problem, metric) = (self.matching(points)?, self.metric());
        let (_, k, _) = D::split(self.centroids().shape());
        if m == 0 || m > k {
            let rule = "there must be at least one and at most k nearest centroids";
            return Err(Error::InvalidArgument { argument: "m", value: m.to_string(), rule });
        }
        check_size(problem.batch, problem.n, m)?;
        let centroids = self.flat_centroids();
        let (labels, distances) = T::nearest(&problem, (&centroids, k), m, metric);
        let shape = || D::join(problem.batch, problem.n, m);
        Ok(Nearest {
            labels: shaped(labels, shape(), "labels")?,
            distances: shaped(distances, shape(), "distances")?,
        })
    }

    /// The distance of each point to every centroid: `(n, k)` or `(batch, n, k)`. Where that does not
    /// fit into memory, give the points a part at a time.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{Backend, KMeans};
    /// # use ndarray::array;
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// let distances = model.transform(array![[1.0], [7.0]].view())?;
    /// assert_eq!(distances, array![[1.0, 8.0], [7.0, 2.0]]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn transform(&self, points: ArrayView<'_, T, D>) -> Result<Array<T::Centroid, D>> {
        let (problem, metric) = (self.matching(points)?, self.metric());
        let (_, k, _) = D::split(self.centroids().shape());
        check_size(problem.batch, problem.n, k)?;
        let distances = T::distances(&problem, (&self.flat_centroids(), k), metric);
        shaped(distances, D::join(problem.batch, problem.n, k), "distances")
    }

    /// Minus the inertia of `points` under the centroids: scikit-learn's score, of which more is better. Summed in
    /// float64 over all problems of a batch.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{Backend, KMeans};
    /// # use ndarray::array;
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// assert_eq!(model.score(array![[1.0], [7.0]].view())?, -5.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn score(&self, points: ArrayView<'_, T, D>) -> Result<f64> {
        let labels = self.predict(points.view())?;
        Ok(-total(&self.losses(&Problem::new(points)?, &labels)))
    }

    /// [`score`](Self::score) of points that count as often as their weights say: `(n)` or `(batch, n)`.
    ///
    /// # Errors
    /// As [`score`](Self::score), and those of weights as [`FlashKMeans::fit_weighted`](crate::FlashKMeans::fit_weighted).
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{Backend, KMeans};
    /// # use ndarray::array;
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// let weights = array![1.0, 0.5];
    /// assert_eq!(model.score_weighted(array![[1.0], [7.0]].view(), weights.view())?, -3.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn score_weighted<W: Float>(
        &self,
        points: ArrayView<'_, T, D>,
        weights: ArrayView<'_, W, D::Smaller>,
    ) -> Result<f64> {
        let labels = self.predict(points.view())?;
        let weights = weights::checked(weights, &labels.raw_dim())?;
        let mut losses = self.losses(&Problem::new(points)?, &labels);
        let weights = weights.iter().flatten();
        losses.iter_mut().zip(weights).for_each(|(loss, weight)| *loss *= weight);
        Ok(-total(&losses))
    }

    /// What each point adds to the inertia with the centroid that its label names.
    fn losses(&self, problem: &Problem<'_, T>, labels: &Array<u32, D::Smaller>) -> Vec<f64> {
        let (_, k, _) = D::split(self.centroids().shape());
        let labels: Vec<u32> = labels.iter().copied().collect();
        T::losses(problem, &labels, (&self.flat_centroids(), k), self.metric())
    }

    /// All problems' centroids, `batch · k · d` values.
    fn flat_centroids(&self) -> Vec<T::Centroid> {
        self.centroids().iter().copied().collect()
    }
}

/// The loss of each point with the centroid, of `k` in each problem, that its label names.
pub(crate) fn losses<T: Element>(
    problem: &Problem<'_, T>,
    labels: &[u32],
    (centroids, k): (&[T::Centroid], usize),
    metric: Metric,
) -> Vec<f64> {
    let d = problem.d;
    let rows = problem.points.par_chunks_exact(d).zip(labels).enumerate();
    rows.map(|(row, (x, &label))| {
        let at = row / problem.n * k + label as usize;
        metric.loss(x, &centroids[at * d..][..d])
    })
    .collect()
}

/// The `m` nearest of `k` centroids and their distances, a row for each point.
pub(crate) fn nearest<T: Element>(
    problem: &Problem<'_, T>,
    (centroids, k): (&[T::Centroid], usize),
    m: usize,
    metric: Metric,
) -> (Vec<u32>, Vec<T::Centroid>) {
    let (d, per_problem) = (problem.d, problem.n * m);
    let mut labels = vec![0u32; problem.batch * per_problem];
    let mut distances = vec![T::Centroid::default(); labels.len()];
    let problems = labels.chunks_exact_mut(per_problem).zip(distances.chunks_exact_mut(per_problem));
    for (batch, (labels, distances)) in problems.enumerate() {
        let centroids = &centroids[batch * k * d..][..k * d];
        let parts = labels.par_chunks_mut(ROWS * m).zip(distances.par_chunks_mut(ROWS * m));
        parts.zip(problem.of_batch(batch).par_chunks(ROWS * d)).for_each_init(
            Vec::new,
            |all: &mut Vec<(f64, u32)>, ((labels, distances), points)| {
                let found = labels.chunks_exact_mut(m).zip(distances.chunks_exact_mut(m));
                for (x, (labels, distances)) in points.chunks_exact(d).zip(found) {
                    all.clear();
                    all.extend(centroids.chunks_exact(d).map(|c| metric.rank(x, c)).zip(0u32..));
                    let by_distance =
                        |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
                    if m < k {
                        all.select_nth_unstable_by(m - 1, by_distance);
                    }
                    all[..m].sort_unstable_by(by_distance);
                    for ((label, distance), &(_, index)) in labels.iter_mut().zip(distances).zip(&all[..m]) {
                        *label = index;
                        let loss = metric.loss(x, &centroids[index as usize * d..][..d]);
                        *distance = T::Centroid::from_f64(metric.distance(loss));
                    }
                }
            },
        );
    }
    (labels, distances)
}

/// The distances to all `k` centroids, a row for each point.
pub(crate) fn distances<T: Element>(
    problem: &Problem<'_, T>,
    (centroids, k): (&[T::Centroid], usize),
    metric: Metric,
) -> Vec<T::Centroid> {
    let d = problem.d;
    let mut distances = vec![T::Centroid::default(); problem.batch * problem.n * k];
    for (batch, distances) in distances.chunks_exact_mut(problem.n * k).enumerate() {
        let centroids = &centroids[batch * k * d..][..k * d];
        let points = problem.of_batch(batch).par_chunks(ROWS * d);
        distances.par_chunks_mut(ROWS * k).zip(points).for_each(|(distances, points)| {
            for (x, distances) in points.chunks_exact(d).zip(distances.chunks_exact_mut(k)) {
                for (distance, c) in distances.iter_mut().zip(centroids.chunks_exact(d)) {
                    *distance = T::Centroid::from_f64(metric.distance(metric.loss(x, c)));
                }
            }
        });
    }
    distances
}

/// Refuses results of more values than memory can address.
fn check_size(batch: usize, n: usize, columns: usize) -> Result<()> {
    // More bytes than a Vec may have: refused here, where a Vec would panic.
    let values = batch.checked_mul(n).and_then(|rows| rows.checked_mul(columns));
    if values.is_some_and(|values| values <= isize::MAX as usize / size_of::<f64>()) {
        return Ok(());
    }
    let rule = "the distances asked for are more than memory can address; give fewer points at a time";
    Err(Error::InvalidArgument { argument: "n", value: n.to_string(), rule })
}

/// The sum, the same for any number of threads.
fn total(losses: &[f64]) -> f64 {
    let sums: Vec<f64> = losses.par_chunks(ROWS).map(|losses| losses.iter().sum()).collect();
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, FlashKMeans};
    use ndarray::{Array2, Array3, Ix2, Ix3, array};

    fn line() -> KMeans<f32, Ix2> {
        KMeans::from_centroids(array![[0.0f32, 0.0], [4.0, 0.0], [4.0, 3.0]].view(), Backend::Cpu).unwrap()
    }

    #[test]
    fn distances_are_euclidean_and_equal_ones_come_in_the_order_of_index() {
        let model = line();
        let points = array![[0.0f32, 3.0], [2.0, 0.0]];
        let all = model.transform(points.view()).unwrap();
        let d = 13.0f64.sqrt() as f32;
        assert_eq!(all, array![[3.0, 5.0, 4.0], [2.0, 2.0, d]]);

        let nearest = model.predict_nearest(points.view(), 2).unwrap();
        assert_eq!(nearest.labels, array![[0, 2], [0, 1]]);
        assert_eq!(nearest.distances, array![[3.0, 4.0], [2.0, 2.0]]);
        assert_eq!(model.score(points.view()).unwrap(), -13.0);
    }

    #[test]
    fn nearest_agrees_with_predict_and_the_score_with_the_inertia() {
        let points = Array3::from_shape_fn((2, 700, 5), |(b, row, column)| {
            ((b * 31 + row * 17 + column * 7) % 101) as f32 * 0.3
        });
        let model = FlashKMeans::new(9).backend(Backend::Cpu).fit(points.view()).unwrap();
        let Nearest { labels, distances } = model.predict_with_distances(points.view()).unwrap();
        assert_eq!(&labels, model.labels());
        let one = model.predict_nearest(points.view(), 1).unwrap();
        assert!(one.labels.iter().eq(&labels) && one.distances.iter().eq(&distances));
        let all = model.predict_nearest(points.view(), 9).unwrap();
        let transformed = model.transform(points.view()).unwrap();
        for ((at, &label), &distance) in all.labels.indexed_iter().zip(&all.distances) {
            assert_eq!(transformed[(at.0, at.1, label as usize)], distance);
        }
        let inertia = model.inertia();
        assert!((model.score(points.view()).unwrap() + inertia).abs() <= 1e-12 * inertia);
    }

    #[test]
    fn bad_counts_and_shapes_are_refused() {
        let model = line();
        let points = Array2::<f32>::zeros((3, 2));
        for m in [0, 4] {
            let error = model.predict_nearest(points.view(), m).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument { argument: "m", .. }), "{error}");
        }
        assert!(matches!(model.transform(Array2::zeros((3, 5)).view()), Err(Error::Shape { .. })));
        let empty = Array2::zeros((0, 2));
        assert!(matches!(model.score(empty.view()), Err(Error::InvalidArgument { argument: "n", .. })));
        let batch: KMeans<f32, Ix3> =
            KMeans::from_centroids(Array3::zeros((2, 1, 1)).view(), Backend::Cpu).unwrap();
        assert!(matches!(batch.transform(Array3::zeros((1, 3, 1)).view()), Err(Error::Shape { .. })));
    }

    #[test]
    fn many_equally_near_ones_come_in_the_order_of_index() {
        let centroids = Array2::from_shape_fn((300, 1), |(row, _)| (row % 3) as f32);
        let model = KMeans::from_centroids(centroids.view(), Backend::Cpu).unwrap();
        let nearest = model.predict_nearest(array![[-1.0f32]].view(), 150).unwrap();
        let expected = (0..300u32).step_by(3).chain((1..150).step_by(3));
        assert!(nearest.labels.iter().copied().eq(expected), "{:?}", nearest.labels);
    }

    #[test]
    fn more_distances_than_memory_has_are_refused() {
        assert!(check_size(2, 3, 4).is_ok());
        for (batch, n, columns) in [(1, usize::MAX, 2), (1, 1 << 40, 1 << 20), (usize::MAX, 2, 1)] {
            assert!(matches!(
                check_size(batch, n, columns),
                Err(Error::InvalidArgument { argument: "n", .. })
            ));
        }
    }
}
