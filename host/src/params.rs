//! Options of a fit.
use crate::backend::{Engine, LloydOptions, LloydOutcome};
use crate::error::{Error, Result};
use crate::metric::Metric;
use crate::model::KMeans;
use crate::observer::{Observer, Watch};
use crate::points::{PointsDim, Problem};
use crate::{DType, Element, Float, restarts, weights};
use ndarray::{Array, ArrayView};
use std::borrow::Cow;

/// Where the work is done.
///
/// # Examples
/// ```
/// use flash_kmeans::{Backend, FlashKMeans};
/// use ndarray::array;
///
/// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
/// let model = FlashKMeans::new(2).backend(Backend::Cpu).fit(points.view())?;
/// assert_eq!(model.backend(), Backend::Cpu);
/// assert_eq!(Backend::Cuda { ordinal: 1 }.to_string(), "cuda:1");
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// A GPU when there is a usable one and the points' type runs on it, the CPU otherwise. Which one
    /// it was, and why, is logged through `tracing` and told by [`KMeans::backend`].
    #[default]
    Auto,
    /// All cores of this machine.
    Cpu,
    /// The CUDA device with this ordinal.
    Cuda {
        /// The device, counted as the driver counts them.
        ordinal: u32,
    },
    /// Several CUDA devices, whose bits are set, that of device 0 the lowest: see [`Backend::cuda_devices`]. Each has a
    /// share of the points, or of the problems of a batch; the bits of the result are those of one device.
    CudaSet {
        /// A bit for each device.
        ordinals: u64,
    },
}

impl Backend {
    /// These CUDA devices together.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for none, and for ordinals from 64 on.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::Backend;
    ///
    /// assert_eq!(Backend::cuda_devices([0, 2])?.to_string(), "cuda:0,2");
    /// assert!(Backend::cuda_devices([]).is_err());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn cuda_devices(ordinals: impl IntoIterator<Item = u32>) -> Result<Self> {
        let mut set = 0u64;
        for ordinal in ordinals {
            set |= 1u64.checked_shl(ordinal).ok_or_else(|| Error::InvalidArgument {
                argument: "devices",
                value: ordinal.to_string(),
                rule: "devices of a set are counted from 0 to 63",
            })?;
        }
        if set == 0 {
            let rule = "there must be at least one device";
            return Err(Error::InvalidArgument { argument: "devices", value: "none".into(), rule });
        }
        Ok(Backend::CudaSet { ordinals: set })
    }

    /// The ordinals of a set of devices.
    pub(crate) fn ordinals(set: u64) -> impl Iterator<Item = u32> {
        (0..64).filter(move |ordinal| set >> ordinal & 1 == 1)
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Backend::Auto => f.write_str("auto"),
            Backend::Cpu => f.write_str("cpu"),
            Backend::Cuda { ordinal } => write!(f, "cuda:{ordinal}"),
            Backend::CudaSet { ordinals } => {
                let ordinals: Vec<String> = Backend::ordinals(*ordinals).map(|o| o.to_string()).collect();
                write!(f, "cuda:{}", ordinals.join(","))
            }
        }
    }
}

/// Whether labels are exact.
///
/// On a GPU, tensor cores find the nearest centroid of nearly every point, and where two scores are too close for their
/// arithmetic, float64 decides. [`Tf32`](Self::Tf32) leaves that out. It is a permission: the CPU, and GPU kernels that
/// multiply in f32, stay exact.
///
/// With `Tf32`, products are of values with 10 bits of fraction, which is what the format of that name keeps, and sums are of
/// `f32`. Points of `f32` are taken about a centre `m` near their mean, scaled and rounded to half precision, which keeps as
/// many bits of all but coordinates under 2⁻²⁸ of the farthest one; 16-bit points are as they are, and `m` is 0. For the
/// centroid `c` of a label and the nearest one `b`,
///
/// ```text
/// ‖x − c‖² ≤ ‖x − b‖² + e·‖x − m‖·(‖c − m‖ + ‖b − m‖) + s·(‖c − m‖² + ‖b − m‖²)
/// s = 3·(d + 50)·2⁻²³,   e = 2⁻⁹ + s for f32 points, and s for 16-bit ones
/// ```
///
/// For metrics by the largest `x·c`, that of a label is less than the largest by at most `e·‖x‖` times the length of the
/// longest centroid. Centroids whose scores are equal are told apart in float64.
///
/// A label is a function of the centroids, of the points of the problem and of the kind of GPU: it has the same bits on every
/// run, on one GPU or several, by one process or several, from memory or from a stream, which is read once more for it where its
/// points are `f32`. To
/// [`predict`](crate::KMeans::predict) the points of a fit gives its labels again; among other points, a point that is as near to
/// two centroids may get the other one.
///
/// There is no `Bf16`: tensor cores are no faster with it than with half precision, and it has three bits less.
///
/// # Examples
/// ```
/// use flash_kmeans::{FlashKMeans, Precision};
/// use ndarray::array;
///
/// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
/// let model = FlashKMeans::new(2).precision(Precision::Tf32).fit(points.view())?;
/// // No point is nearly as near to the other centroid.
/// assert_eq!(model.inertia(), 1.0);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// The nearest centroid in float64.
    #[default]
    Exact,
    /// The nearest one, or one that is as near within the error of products of 10 bits of fraction.
    Tf32,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Precision::Exact => "exact",
            Precision::Tf32 => "tf32",
        })
    }
}

/// How the first centroids are found.
///
/// # Examples
/// ```
/// use flash_kmeans::{FlashKMeans, Init};
/// use ndarray::array;
///
/// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
/// let first = Init::Given(array![[0.0], [9.0]].into_dyn());
/// let model = FlashKMeans::new(2).init(first).fit(points.view())?;
/// assert_eq!(model.centroids(), &array![[0.5], [8.5]]);
/// // A warm start.
/// let again = FlashKMeans::new(2).init(Init::from(&model)).fit(points.view())?;
/// assert_eq!(again.n_iter(), 1);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// Rows of the points, drawn without replacement.
    Random,
    /// Greedy k-means++: each next centroid is the best of `2 + ln k` rows drawn in proportion to their
    /// squared distance from the centroids so far (Arthur and Vassilvitskii, 2007, section 6).
    #[default]
    KMeansPlusPlus,
    /// k-means||: `rounds` passes that each draw about `oversampling · k` rows in proportion to their squared distance,
    /// then greedy k-means++ among the rows drawn, weighted by the points nearest to them (Bahmani and others, 2012).
    /// Fewer passes over the points than [`KMeansPlusPlus`](Self::KMeansPlusPlus) where k is large.
    KMeansParallel {
        /// Rows drawn in a round, as a multiple of k: above 0 and at most 1000; 2 is usual.
        oversampling: f64,
        /// Rounds, 1 to 1000; 5 is usual.
        rounds: usize,
    },
    /// These centroids, `(k, d)` for every problem or `(batch, k, d)`.
    Given(ndarray::ArrayD<f64>),
}

impl Init {
    /// Whether rows are drawn by their distances, so that points are looked at many times.
    pub(crate) fn is_by_distance(&self) -> bool {
        matches!(self, Init::KMeansPlusPlus | Init::KMeansParallel { .. })
    }
}

/// What becomes of a cluster that has lost all its points, or all of them that have a weight.
///
/// # Examples
/// ```
/// use flash_kmeans::{EmptyClusters, FlashKMeans, Init};
/// use ndarray::array;
///
/// let points = array![[0.0f32], [0.5], [1.0], [8.0], [9.0]];
/// // No point is nearest to the last of these.
/// let options = FlashKMeans::new(3).init(Init::Given(array![[0.0], [8.5], [1000.0]].into_dyn()));
/// assert_eq!(options.fit(points.view())?.sizes().to_vec(), [3, 2, 0]);
/// let options = options.empty_clusters(EmptyClusters::Relocate);
/// assert!(options.fit(points.view())?.sizes().iter().all(|&size| size > 0));
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EmptyClusters {
    /// It keeps its centroid, and may be given points again.
    #[default]
    Keep,
    /// It is given the point that is farthest from the centroid of its own cluster, which goes on without it
    /// (scikit-learn's rule). Several empty clusters are given the farthest points, the first one the farthest of all.
    ///
    /// Far is what adds most to the inertia by its metric, without weights; of equally far points the first row counts.
    /// A cluster's nearest point stays with it, so that none becomes empty by this. Points of weight 0 stay where they are,
    /// and rows of zeros where centroids have length 1. Nothing happens where every point is where its centroid is (by an
    /// inner product, where all are equally far), nor in an iteration that changes no label, which ends the fit.
    ///
    /// An iteration with empty clusters passes over the points twice, and on a GPU the host looks at each iteration: small fits
    /// take longer there. A mean that a GPU takes points out of is one in float32.
    Relocate,
}

impl std::fmt::Display for EmptyClusters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            EmptyClusters::Keep => "keep",
            EmptyClusters::Relocate => "relocate",
        })
    }
}

impl<T: Element, D: PointsDim> From<&KMeans<T, D>> for Init {
    /// A warm start: the centroids of a model.
    fn from(model: &KMeans<T, D>) -> Self {
        Init::Given(model.centroids().mapv(|c| c.to_f64()).into_dyn())
    }
}

/// Exact Lloyd's k-means: options, then [`fit`](FlashKMeans::fit).
///
/// # Examples
/// ```
/// use flash_kmeans::{FlashKMeans, Init};
/// use ndarray::array;
///
/// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
/// let options = FlashKMeans::new(2).init(Init::Random).n_init(3).seed(7).max_iter(50);
/// let model = options.fit(points.view())?;
/// assert_eq!(model.inertia(), 1.0);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Debug, PartialEq)]
#[must_use = "options do nothing until fit is called"]
pub struct FlashKMeans {
    n_clusters: usize,
    max_iter: usize,
    tol: f64,
    seed: u64,
    init: Init,
    backend: Backend,
    n_init: usize,
    max_points_per_centroid: Option<usize>,
    #[cfg_attr(feature = "serde", serde(default))]
    metric: Metric,
    #[cfg_attr(feature = "serde", serde(default))]
    gpu_memory: Option<u64>,
    #[cfg_attr(feature = "serde", serde(default))]
    empty_clusters: EmptyClusters,
    #[cfg_attr(feature = "serde", serde(default))]
    precision: Precision,
}

impl FlashKMeans {
    /// `n_clusters` clusters, at most 300 iterations, tolerance 1e-4, k-means++, seed 0, Euclidean, automatic
    /// backend.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).fit(points.view())?;
    /// assert_eq!(model.centroids().nrows(), 2);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn new(n_clusters: usize) -> Self {
        FlashKMeans {
            n_clusters,
            max_iter: 300,
            tol: 1e-4,
            seed: 0,
            init: Init::default(),
            backend: Backend::default(),
            n_init: 1,
            max_points_per_centroid: None,
            metric: Metric::default(),
            gpu_memory: None,
            empty_clusters: EmptyClusters::default(),
            precision: Precision::default(),
        }
    }

    /// What is near.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # use flash_kmeans::Metric;
    /// let points = array![[1.0f32, 0.0], [9.0, 0.0], [0.0, 2.0], [0.0, 5.0]];
    /// let model = FlashKMeans::new(2).metric(Metric::Cosine).fit(points.view())?;
    /// assert_eq!(model.labels()[0], model.labels()[1]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = metric;
        self
    }

    /// Iterations after which a fit stops though it has not converged. At least 1.
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
    pub fn max_iter(mut self, max_iter: usize) -> Self {
        self.max_iter = max_iter;
        self
    }

    /// A fit has converged when `Σ_k ‖c_new − c_old‖²` is at most `tol` times the mean variance of the
    /// features (scikit-learn's rule), or when no label changed. With 0 only the latter, and centroids
    /// that no longer move, stop it early.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).tol(0.0).fit(points.view())?;
    /// let last = model.problems()[0].history.last().unwrap();
    /// assert!(last.changed == 0 || last.shift == 0.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Seed of everything random.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let options = FlashKMeans::new(2).seed(7);
    /// assert_eq!(options.fit(points.view())?.labels(), options.fit(points.view())?.labels());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How the first centroids are found.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # use flash_kmeans::Init;
    /// let first = Init::Given(array![[0.0], [9.0]].into_dyn());
    /// let model = FlashKMeans::new(2).init(first).fit(points.view())?;
    /// assert_eq!(model.labels().to_vec(), [0, 0, 1, 1]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    /// Where the work is done.
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
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Fits from this many starts and keeps the one of least inertia, in each problem of a batch by itself. The first
    /// start is that of `n_init(1)`, the default.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # use flash_kmeans::Init;
    /// let options = FlashKMeans::new(2).init(Init::Random);
    /// let (one, best) = (options.fit(points.view())?, options.n_init(5).fit(points.view())?);
    /// assert!(best.inertia() <= one.inertia());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn n_init(mut self, n_init: usize) -> Self {
        self.n_init = n_init;
        self
    }

    /// Fits at most `m · k` points, drawn without replacement, and then labels all of them: the history, and whether
    /// the fit converged, are those of the sample; labels, sizes and inertia are of all points. By default all points
    /// are fitted.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).max_points_per_centroid(1).fit(points.view())?;
    /// assert_eq!((model.problems()[0].history[0].changed, model.labels().len()), (2, 4));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn max_points_per_centroid(mut self, m: usize) -> Self {
        self.max_points_per_centroid = Some(m);
        self
    }

    /// Takes at most this many bytes of each GPU's memory; by default as much as is free. Points that have no room there
    /// stay in host memory, and are copied in each iteration. The bits of the result do not depend on it.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).gpu_memory(1 << 30).fit(points.view())?;
    /// assert_eq!(model.labels(), FlashKMeans::new(2).fit(points.view())?.labels());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn gpu_memory(mut self, bytes: u64) -> Self {
        self.gpu_memory = Some(bytes);
        self
    }

    /// What becomes of clusters that lose all their points; by default they keep their centroids.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # use flash_kmeans::{EmptyClusters, Init};
    /// # let points = array![[0.0f32], [0.5], [1.0], [8.0], [9.0]];
    /// // No point is nearest to the last of these.
    /// let options = FlashKMeans::new(3).init(Init::Given(array![[0.0], [8.5], [1000.0]].into_dyn()));
    /// let model = options.empty_clusters(EmptyClusters::Relocate).fit(points.view())?;
    /// assert!(model.sizes().iter().all(|&size| size > 0));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn empty_clusters(mut self, empty_clusters: EmptyClusters) -> Self {
        self.empty_clusters = empty_clusters;
        self
    }

    /// Whether labels are exact, which they are by default, or may be what the tensor cores find.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # use flash_kmeans::Precision;
    /// let model = FlashKMeans::new(2).precision(Precision::Tf32).fit(points.view())?;
    /// // No point is nearly as near to the other centroid.
    /// assert_eq!(model.inertia(), 1.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Clusters `points`: `(n, d)`, or `(batch, n, d)` for `batch` problems that share nothing but
    /// these options.
    ///
    /// Points of standard layout are used where they lie; others are copied once.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for zero clusters, iterations, rows or columns and for a bad tolerance;
    /// [`Error::TooManyClusters`]; [`Error::Shape`] for given centroids of another shape;
    /// [`Error::NonFinite`]; [`Error::BackendUnavailable`] when the backend was named and cannot be had;
    /// [`Error::OutOfDeviceMemory`] and [`Error::Cuda`] from the device.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::FlashKMeans;
    /// use ndarray::array;
    ///
    /// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).fit(points.view())?;
    /// assert_eq!(model.inertia(), 1.0);
    /// // Two problems of two points.
    /// let batch = points.into_shape_with_order((2, 2, 1)).unwrap();
    /// assert_eq!(FlashKMeans::new(1).fit(batch.view())?.centroids(), &array![[[0.5]], [[8.5]]]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn fit<T: Element, D: PointsDim>(&self, points: ArrayView<'_, T, D>) -> Result<KMeans<T, D>> {
        self.fit_problem(Problem::new(points)?, &Watch::nobody())
    }

    /// [`fit`](Self::fit), with an observer that may end it early. One GPU fits the problems of a batch together, without
    /// calling it.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), and [`Error::Stopped`] when the observer broke a pass off.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::{FlashKMeans, IterationEnd, Observer};
    /// use ndarray::array;
    /// use std::ops::ControlFlow;
    ///
    /// struct Once;
    ///
    /// impl Observer<f32> for Once {
    ///     fn iteration(&mut self, end: IterationEnd<'_, f32>) -> ControlFlow<()> {
    ///         println!("inertia {}", end.stats.inertia);
    ///         ControlFlow::Break(())
    ///     }
    /// }
    ///
    /// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// assert_eq!(FlashKMeans::new(2).fit_observed(points.view(), &mut Once)?.n_iter(), 1);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn fit_observed<T: Element, D: PointsDim>(
        &self,
        points: ArrayView<'_, T, D>,
        observer: &mut dyn Observer<T::Centroid>,
    ) -> Result<KMeans<T, D>> {
        self.fit_problem(Problem::new(points)?, &Watch::new(observer))
    }

    /// [`fit_observed`](Self::fit_observed) of points that count as often as their weights say: `(n)` or `(batch, n)`,
    /// `f32` or `f64`. Centroids are weighted means, the inertia is a weighted sum, and first centroids are drawn by
    /// weight; sizes and changed labels count points, and `tol` is of the variance without weights (scikit-learn's rule).
    /// A cluster of which no point has a weight above 0 counts as empty. Weights that are all 1 are no weights.
    ///
    /// On a GPU, weights in sums are rounded to float32, of the largest weight as 1: those under 1e-38 of it move no
    /// centroid. The inertia takes them as they are.
    ///
    /// ```
    /// use flash_kmeans::{FlashKMeans, Init};
    /// use ndarray::array;
    ///
    /// let points = array![[0.0f32], [1.0], [9.0]];
    /// let options = FlashKMeans::new(2).init(Init::Given(array![[0.0], [9.0]].into_dyn()));
    /// let model = options.fit_weighted(points.view(), array![3.0f32, 1.0, 1.0].view(), &mut ())?;
    /// assert_eq!(model.centroids(), &array![[0.25], [9.0]]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`fit_observed`](Self::fit_observed); [`Error::Shape`] for another count of weights than of points, and
    /// [`Error::InvalidArgument`] for weights that are negative, not finite or above 1e150, or all 0 in a problem.
    pub fn fit_weighted<T: Element, D: PointsDim, W: Float>(
        &self,
        points: ArrayView<'_, T, D>,
        weights: ArrayView<'_, W, D::Smaller>,
        observer: &mut dyn Observer<T::Centroid>,
    ) -> Result<KMeans<T, D>> {
        let mut problem = Problem::new(points.view())?;
        let shape = D::join_rows(problem.batch, problem.n);
        problem.weights = weights::checked(weights, &shape)?.map(Cow::Owned);
        self.fit_problem(problem, &Watch::new(observer))
    }

    fn fit_problem<T: Element, D: PointsDim>(
        &self,
        problem: Problem<'_, T>,
        watch: &Watch<'_, T::Centroid>,
    ) -> Result<KMeans<T, D>> {
        let (outcome, engine) = T::fit(self, &problem, watch)?;
        KMeans::new(outcome, (engine, self.metric), (problem.batch, problem.n, problem.d))
    }

    pub(crate) fn fit_here<T: Element>(
        &self,
        problem: &Problem<'_, T>,
        watch: &Watch<'_, T::Centroid>,
    ) -> Result<(LloydOutcome<T::Centroid>, Engine)> {
        self.check()?;
        if self.n_clusters > problem.n {
            return Err(Error::TooManyClusters { k: self.n_clusters, n: problem.n });
        }
        let engine = self.engine(T::DTYPE)?;
        let options = self.lloyd_options();
        let rows = self.max_points_per_centroid.map_or(usize::MAX, |m| m.saturating_mul(self.n_clusters));
        // Where points are copied first of all, they are looked at while they are.
        let is_plain = self.n_init == 1 && !self.init.is_by_distance() && rows >= problem.n;
        if !(is_plain && engine.checks_points()) {
            problem.check_finite()?;
        }
        let sample = restarts::sample(problem, rows, self.seed);
        let fitted = sample.as_ref().unwrap_or(problem);
        let starts = (self.seed, self.n_init);
        let mut outcome = restarts::best(&engine, fitted, &self.init, &options, starts, watch)?;
        if sample.is_some() {
            restarts::extend(&engine, problem, &mut outcome, &options)?;
        }
        Ok((outcome, engine))
    }

    /// [`fit`](Self::fit), keeping only the labels: `(n)` or `(batch, n)`.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let labels = FlashKMeans::new(2).fit_predict(points.view())?;
    /// assert!(labels[0] == labels[1] && labels[1] != labels[2] && labels[2] == labels[3]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn fit_predict<T: Element, D: PointsDim>(
        &self,
        points: ArrayView<'_, T, D>,
    ) -> Result<Array<u32, D::Smaller>> {
        Ok(self.fit(points)?.into_labels())
    }

    /// Room on a GPU for fits of `batch` problems of `n` points in `d` dimensions, again and again: one start, of all
    /// points.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for several starts, for k-means++ and k-means|| with centroids of length 1, for
    /// [`EmptyClusters::Relocate`], and as [`fit`](Self::fit), [`Error::TooManyClusters`], [`Error::BackendUnavailable`] where there is no GPU, [`Error::OutOfDeviceMemory`] and [`Error::Cuda`].
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # // Nothing to show without a GPU.
    /// # let Ok(_) = FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
    /// let mut workspace = FlashKMeans::new(2).workspace(1, 4, 1)?;
    /// workspace.load(points.view())?;
    /// assert_eq!(workspace.fit()?[0].inertia, 1.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    #[cfg(feature = "cuda")]
    pub fn workspace<T: Element>(&self, batch: usize, n: usize, d: usize) -> Result<crate::Workspace<T>> {
        self.check()?;
        let invalid = |argument, value: String, rule| Err(Error::InvalidArgument { argument, value, rule });
        if self.n_init > 1 {
            return invalid("n_init", self.n_init.to_string(), "a workspace fits from one start");
        }
        if let Some(m) = self.max_points_per_centroid {
            return invalid("max_points_per_centroid", m.to_string(), "a workspace fits all points");
        }
        if self.metric.is_spherical() && self.init.is_by_distance() {
            let rule = "a workspace draws these by Euclidean distances: random rows and given centroids go with any metric";
            return invalid("init", format!("{:?}", self.init), rule);
        }
        self.check_keeps("a workspace keeps the centroids of empty clusters")?;
        crate::Workspace::new(self, self.lloyd_options(), [batch, n, d])
    }

    pub(crate) fn asked(&self) -> (Backend, &Init, u64) {
        (self.backend, &self.init, self.seed)
    }

    /// [`Self::gpu_memory`], where nothing was said of it.
    #[cfg(feature = "mpi")]
    pub(crate) fn gpu_memory_or(mut self, bytes: Option<u64>) -> Self {
        self.gpu_memory = self.gpu_memory.or(bytes);
        self
    }

    pub(crate) fn engine(&self, dtype: DType) -> Result<Engine> {
        Engine::select(self.backend, dtype, self.gpu_memory, self.precision)
    }

    pub(crate) fn asked_precision(&self) -> Precision {
        self.precision
    }

    /// Refuses to relocate empty clusters.
    pub(crate) fn check_keeps(&self, rule: &'static str) -> Result<()> {
        match self.empty_clusters {
            EmptyClusters::Keep => Ok(()),
            other => {
                Err(Error::InvalidArgument { argument: "empty_clusters", value: other.to_string(), rule })
            }
        }
    }

    pub(crate) fn lloyd_options(&self) -> LloydOptions {
        LloydOptions {
            metric: self.metric,
            k: self.n_clusters,
            max_iter: self.max_iter,
            tol: self.tol,
            empty_clusters: self.empty_clusters,
        }
    }

    pub(crate) fn n_clusters(&self) -> usize {
        self.n_clusters
    }

    /// Refuses what is not done with points that are streamed.
    pub(crate) fn check_streams(&self) -> Result<()> {
        let one = "points that are streamed are fitted once, all of them";
        let (argument, value) = match (self.n_init, self.max_points_per_centroid) {
            (1, None) => return Ok(()),
            (1, Some(m)) => ("max_points_per_centroid", m),
            (starts, _) => ("n_init", starts),
        };
        Err(Error::InvalidArgument { argument, value: value.to_string(), rule: one })
    }

    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |argument, value: String, rule| Err(Error::InvalidArgument { argument, value, rule });
        if self.n_clusters == 0 {
            return invalid("n_clusters", "0".into(), "there must be at least one cluster");
        }
        if u32::try_from(self.n_clusters).is_err() {
            return invalid("n_clusters", self.n_clusters.to_string(), "labels are 32-bit");
        }
        if self.max_iter == 0 {
            return invalid("max_iter", "0".into(), "there must be at least one iteration");
        }
        if !(self.tol >= 0.0 && self.tol.is_finite()) {
            return invalid("tol", self.tol.to_string(), "the tolerance must be finite and not negative");
        }
        if self.n_init == 0 {
            return invalid("n_init", "0".into(), "there must be at least one start");
        }
        if self.n_init > 1 && matches!(self.init, Init::Given(_)) {
            let rule = "from given centroids every start is the same: n_init must be 1";
            return invalid("n_init", self.n_init.to_string(), rule);
        }
        if self.max_points_per_centroid == Some(0) {
            return invalid("max_points_per_centroid", "0".into(), "there must be at least one point");
        }
        if let Init::KMeansParallel { oversampling, rounds } = self.init {
            if !(oversampling > 0.0 && oversampling <= 1000.0) {
                let rule = "must be above 0 and at most 1000";
                return invalid("oversampling", oversampling.to_string(), rule);
            }
            if !(1..=1000).contains(&rounds) {
                return invalid("rounds", rounds.to_string(), "must be from 1 to 1000");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_good_to_their_bounds() {
        let options = || FlashKMeans::new(2);
        let parallel = |oversampling, rounds| options().init(Init::KMeansParallel { oversampling, rounds });
        let given = Init::Given(ndarray::array![[0.5]].into_dyn());
        for good in [
            FlashKMeans::new(1).max_iter(1).tol(0.0).n_init(1).max_points_per_centroid(1),
            FlashKMeans::new(u32::MAX as usize).max_iter(usize::MAX).tol(f64::MAX).n_init(usize::MAX),
            options().init(given.clone()),
            parallel(1000.0, 1000),
            parallel(f64::MIN_POSITIVE, 1),
        ] {
            assert!(good.check().is_ok(), "{good:?}");
        }
        for (bad, name) in [
            (FlashKMeans::new(0), "n_clusters"),
            #[cfg(target_pointer_width = "64")]
            (FlashKMeans::new(1 << 32), "n_clusters"),
            (options().max_iter(0), "max_iter"),
            (options().tol(-f64::MIN_POSITIVE), "tol"),
            (options().tol(f64::INFINITY), "tol"),
            (options().tol(f64::NAN), "tol"),
            (options().n_init(0), "n_init"),
            (options().init(given).n_init(2), "n_init"),
            (options().max_points_per_centroid(0), "max_points_per_centroid"),
            (parallel(0.0, 5), "oversampling"),
            (parallel(1000.0f64.next_up(), 5), "oversampling"),
            (parallel(f64::NAN, 5), "oversampling"),
            (parallel(2.0, 0), "rounds"),
            (parallel(2.0, 1001), "rounds"),
        ] {
            let error = bad.check().unwrap_err();
            assert!(matches!(error, Error::InvalidArgument { argument, .. } if argument == name), "{error}");
        }
    }

    /// Refusals come before a GPU is looked for: with the CPU asked for, what is not refused ends there.
    #[cfg(feature = "cuda")]
    #[test]
    fn a_workspace_refuses_what_it_does_not_do() {
        let options = || FlashKMeans::new(2).backend(Backend::Cpu);
        let by_distance = [Init::KMeansPlusPlus, Init::KMeansParallel { oversampling: 2.0, rounds: 5 }];
        let refused_for = |options: FlashKMeans| match options.workspace::<f32>(1, 10, 2) {
            Err(Error::InvalidArgument { argument, .. }) => argument,
            Err(Error::BackendUnavailable { .. }) => "backend",
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("a workspace without a GPU"),
        };
        let given = Init::Given(ndarray::array![[0.5, 0.5], [1.0, 1.0]].into_dyn());
        for metric in [Metric::Euclidean, Metric::Cosine, Metric::Dot, Metric::SphericalDot] {
            for init in [Init::Random, given.clone()].into_iter().chain(by_distance.clone()) {
                let options = options().metric(metric).init(init.clone());
                let is_refused = metric.is_spherical() && init.is_by_distance();
                assert_eq!(
                    refused_for(options),
                    if is_refused { "init" } else { "backend" },
                    "{metric:?} {init:?}"
                );
            }
        }
        assert_eq!(refused_for(options().n_init(1)), "backend");
        assert_eq!(refused_for(options().n_init(2)), "n_init");
        assert_eq!(refused_for(options().max_points_per_centroid(100)), "max_points_per_centroid");
        assert_eq!(refused_for(options().empty_clusters(EmptyClusters::Relocate)), "empty_clusters");
        assert_eq!(refused_for(FlashKMeans::new(0)), "n_clusters");
    }

    /// More points than can be counted are all of them.
    #[test]
    fn a_sample_is_at_most_all_points() {
        let points = ndarray::array![[0.0f32], [1.0], [8.0], [9.0]];
        let options = FlashKMeans::new(2).backend(Backend::Cpu);
        let all = options.fit(points.view()).unwrap();
        let sample = options.max_points_per_centroid(usize::MAX / 2 + 1).fit(points.view()).unwrap();
        assert_eq!((sample.centroids(), sample.labels()), (all.centroids(), all.labels()));
    }

    #[test]
    fn sets_of_devices_have_64_places() {
        assert_eq!(Backend::cuda_devices([63, 0, 5, 0]).unwrap().to_string(), "cuda:0,5,63");
        for none in [&[][..], &[64], &[1, 200]] {
            let refused = Backend::cuda_devices(none.iter().copied());
            assert!(matches!(refused, Err(Error::InvalidArgument { argument: "devices", .. })), "{none:?}");
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn options_survive_json() {
        let init = Init::Given(ndarray::array![[0.5, 1.0], [2.0, 4.0]].into_dyn());
        for init in [init, Init::Random, Init::KMeansParallel { oversampling: 2.0, rounds: 5 }] {
            let options = FlashKMeans::new(2)
                .tol(1e-3)
                .seed(7)
                .init(init)
                .backend(Backend::Cuda { ordinal: 1 })
                .metric(Metric::Cosine)
                .empty_clusters(EmptyClusters::Relocate)
                .precision(Precision::Tf32);
            let text = serde_json::to_string(&options).unwrap();
            assert_eq!(serde_json::from_str::<FlashKMeans>(&text).unwrap(), options);
        }
    }
}
