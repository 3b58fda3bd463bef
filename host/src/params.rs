//! Options of a fit.
use crate::backend::{Engine, LloydOptions};
use crate::error::{Error, Result};
use crate::model::KMeans;
use crate::points::{PointsDim, Problem};
use crate::{Element, init};
use ndarray::{Array, ArrayView};

/// Where the work is done.
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
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Backend::Auto => f.write_str("auto"),
            Backend::Cpu => f.write_str("cpu"),
            Backend::Cuda { ordinal } => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// How the first centroids are found.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// Rows of the points, drawn without replacement.
    Random,
    /// Greedy k-means++: each next centroid is the best of `2 + ln k` rows drawn in proportion to their
    /// squared distance from the centroids so far (Arthur and Vassilvitskii, 2007, section 6).
    #[default]
    KMeansPlusPlus,
    /// These centroids, `(k, d)` for every problem or `(batch, k, d)`.
    Given(ndarray::ArrayD<f64>),
}

/// Exact Lloyd's k-means: options, then [`fit`](FlashKMeans::fit).
#[derive(Clone, Debug, PartialEq)]
#[must_use = "options do nothing until fit is called"]
pub struct FlashKMeans {
    n_clusters: usize,
    max_iter: usize,
    tol: f64,
    seed: u64,
    init: Init,
    backend: Backend,
}

impl FlashKMeans {
    /// `n_clusters` clusters, at most 300 iterations, tolerance 1e-4, k-means++, seed 0, automatic backend.
    pub fn new(n_clusters: usize) -> Self {
        FlashKMeans {
            n_clusters,
            max_iter: 300,
            tol: 1e-4,
            seed: 0,
            init: Init::default(),
            backend: Backend::default(),
        }
    }

    /// Iterations after which a fit stops though it has not converged. At least 1.
    pub fn max_iter(mut self, max_iter: usize) -> Self {
        self.max_iter = max_iter;
        self
    }

    /// A fit has converged when `Σ_k ‖c_new − c_old‖²` is at most `tol` times the mean variance of the
    /// features (scikit-learn's rule), or when no label changed. With 0 only the latter, and centroids
    /// that no longer move, stop it early.
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Seed of everything random.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How the first centroids are found.
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    /// Where the work is done.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
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
    pub fn fit<T: Element, D: PointsDim>(&self, points: ArrayView<'_, T, D>) -> Result<KMeans<T, D>> {
        self.check()?;
        let problem = Problem::new(points)?;
        if self.n_clusters > problem.n {
            return Err(Error::TooManyClusters { k: self.n_clusters, n: problem.n });
        }
        problem.check_finite()?;
        let engine = Engine::select(self.backend, T::DTYPE)?;
        let centroids = init::centroids(&self.init, &problem, self.n_clusters, self.seed)?;
        let options = LloydOptions { k: self.n_clusters, max_iter: self.max_iter, tol: self.tol };
        let outcome = engine.fit(&problem, centroids, &options)?;
        KMeans::new(outcome, engine, &problem)
    }

    /// [`fit`](Self::fit), keeping only the labels: `(n)` or `(batch, n)`.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn fit_predict<T: Element, D: PointsDim>(
        &self,
        points: ArrayView<'_, T, D>,
    ) -> Result<Array<u32, D::Smaller>> {
        Ok(self.fit(points)?.into_labels())
    }

    fn check(&self) -> Result<()> {
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
        Ok(())
    }
}
