//! Where a fit runs. One engine a backend; the layers above know only [`Engine`].
use crate::element::{DType, Element, Float};
use crate::error::{Error, Result};
use crate::init::First;
use crate::metric::Metric;
use crate::model::BatchSummary;
use crate::observer::Watch;
use crate::params::{Backend, EmptyClusters, Precision};
use crate::points::Problem;
#[cfg(feature = "cuda")]
use crate::process;

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod totals;

/// What the iterations need beside points and first centroids.
#[derive(Clone, Debug)]
pub(crate) struct LloydOptions {
    pub(crate) metric: Metric,
    pub(crate) k: usize,
    pub(crate) max_iter: usize,
    pub(crate) tol: f64,
    pub(crate) empty_clusters: EmptyClusters,
}

impl LloydOptions {
    pub(crate) fn relocates(&self) -> bool {
        self.empty_clusters == EmptyClusters::Relocate
    }
}

/// The end of a fit: everything belongs to `centroids`.
#[derive(Clone, Debug)]
pub(crate) struct LloydOutcome<C: Float> {
    /// `batch · k · d` values, as [`Element::round_centroid`] leaves them.
    pub(crate) centroids: Vec<C>,
    /// `batch · n` values.
    pub(crate) labels: Vec<u32>,
    /// One entry a problem.
    pub(crate) problems: Vec<BatchSummary>,
}

/// The end of one problem: centroids, summary and labels.
pub(crate) type End<C> = (Vec<C>, BatchSummary, Vec<u32>);

impl<C: Float> LloydOutcome<C> {
    /// The problems of a batch, in order, each of which came to an end by itself.
    pub(crate) fn of(ends: Vec<Result<End<C>>>) -> Result<Self> {
        /// A problem by itself may have many labels, which are not copied.
        fn append<A>(all: &mut Vec<A>, more: Vec<A>) {
            if all.is_empty() {
                *all = more;
            } else {
                all.extend(more);
            }
        }
        let mut outcome = LloydOutcome { centroids: Vec::new(), labels: Vec::new(), problems: Vec::new() };
        for end in ends {
            let (centroids, summary, labels) = end?;
            append(&mut outcome.centroids, centroids);
            append(&mut outcome.labels, labels);
            outcome.problems.push(summary);
        }
        Ok(outcome)
    }
}

/// A backend ready to work.
#[derive(Clone, Debug)]
pub(crate) enum Engine {
    Cpu,
    #[cfg(feature = "cuda")]
    Cuda(cuda::Gpus),
}

impl Engine {
    /// The engine for `backend`. `Auto` takes the first CUDA device when there is one and it takes points of `dtype`.
    pub(crate) fn select(
        backend: Backend,
        dtype: DType,
        memory: Option<u64>,
        precision: Precision,
    ) -> Result<Self> {
        let how = (memory, precision);
        match backend {
            Backend::Cpu => Ok(Engine::Cpu),
            Backend::Cuda { ordinal } => {
                Self::cuda(1u64.checked_shl(ordinal).unwrap_or(0), backend, dtype, how)
            }
            Backend::CudaSet { ordinals } => Self::cuda(ordinals, backend, dtype, how),
            Backend::Auto => match Self::cuda(1, Backend::Cuda { ordinal: 0 }, dtype, how) {
                Ok(engine) => {
                    tracing::info!(device = engine.device(), "backend cuda: a usable GPU was found");
                    Ok(engine)
                }
                Err(why @ Error::BackendUnavailable { .. }) => {
                    tracing::info!("backend cpu: {why}");
                    Ok(Engine::Cpu)
                }
                // A launch plan that was asked for, and is wrong.
                Err(why) => Err(why),
            },
        }
    }

    /// The devices whose bits are set in `set`.
    fn cuda(set: u64, backend: Backend, dtype: DType, how: (Option<u64>, Precision)) -> Result<Self> {
        let unavailable = |reason: &str| Err(Error::BackendUnavailable { backend, reason: reason.into() });
        if set == 0 {
            return unavailable("devices are counted from 0 to 63");
        }
        if dtype == DType::F64 {
            return unavailable("f64 points run on the CPU; convert them to f32 for the GPU");
        }
        #[cfg(feature = "cuda")]
        {
            process::check_gpus(backend)?;
            Ok(Engine::Cuda(cuda::Gpus::open(set, how)?))
        }
        #[cfg(not(feature = "cuda"))]
        {
            let _ = how;
            unavailable("this build has no feature `cuda`")
        }
    }

    /// Whether [`Self::fit`] refuses points that are not finite.
    pub(crate) fn checks_points(&self) -> bool {
        !matches!(self, Engine::Cpu)
    }

    /// Whether labels are exact.
    pub(crate) fn precision(&self) -> Precision {
        match self {
            Engine::Cpu => Precision::Exact,
            #[cfg(feature = "cuda")]
            Engine::Cuda(gpus) => gpus.precision(),
        }
    }

    /// Sets that, where labels need not be.
    pub(crate) fn set_precision(&mut self, precision: Precision) {
        #[cfg(feature = "cuda")]
        if let Engine::Cuda(gpus) = self {
            gpus.set_precision(precision);
        }
        #[cfg(not(feature = "cuda"))]
        let _ = precision;
    }

    pub(crate) fn backend(&self) -> Backend {
        match self {
            Engine::Cpu => Backend::Cpu,
            #[cfg(feature = "cuda")]
            Engine::Cuda(gpus) => gpus.backend(),
        }
    }

    pub(crate) fn device(&self) -> String {
        match self {
            Engine::Cpu => cpu::describe(),
            #[cfg(feature = "cuda")]
            Engine::Cuda(gpus) => gpus.name(),
        }
    }

    /// Lloyd's iterations from the first centroids to the end.
    pub(crate) fn fit<T: Element>(
        &self,
        problem: &Problem<'_, T>,
        first: First<'_>,
        options: &LloydOptions,
        watch: &Watch<'_, T::Centroid>,
    ) -> Result<LloydOutcome<T::Centroid>> {
        match self {
            Engine::Cpu => {
                let centroids = first.centroids(problem, (options.k, options.metric))?;
                cpu::fit(problem, centroids, options, watch)
            }
            #[cfg(feature = "cuda")]
            Engine::Cuda(gpus) => {
                process::check_gpus(gpus.backend())?;
                cuda::fit(gpus, problem, first, options, watch)
            }
        }
    }

    /// First centroids, `batch · k · d` values: the same wherever they are found.
    pub(crate) fn first_centroids<T: Element>(
        &self,
        problem: &Problem<'_, T>,
        first: First<'_>,
        (k, metric): (usize, Metric),
    ) -> Result<Vec<T::Centroid>> {
        match self {
            Engine::Cpu => first.centroids(problem, (k, metric)),
            #[cfg(feature = "cuda")]
            Engine::Cuda(gpus) => {
                process::check_gpus(gpus.backend())?;
                cuda::first_centroids(gpus, problem, first, (k, metric))
            }
        }
    }

    /// Labels, `batch · n` values, under `centroids` (`batch · k · d` values).
    pub(crate) fn assign<T: Element>(
        &self,
        problem: &Problem<'_, T>,
        centroids: &[T::Centroid],
        k: usize,
        metric: Metric,
    ) -> Result<Vec<u32>> {
        match self {
            Engine::Cpu => cpu::assign(problem, centroids, k, metric),
            #[cfg(feature = "cuda")]
            Engine::Cuda(gpus) => {
                process::check_gpus(gpus.backend())?;
                cuda::assign(gpus, problem, centroids, (k, metric), None)
            }
        }
    }
}

/// A place where a fit can run.
///
/// # Examples
/// ```
/// use flash_kmeans::{Backend, devices};
///
/// let cpu = &devices()[0];
/// assert_eq!((cpu.backend, cpu.memory_bytes), (Backend::Cpu, 0));
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceInfo {
    /// The backend that uses it.
    pub backend: Backend,
    /// Its name.
    pub name: String,
    /// Its memory in bytes; 0 when not known.
    pub memory_bytes: u64,
}

/// The CPU, then every CUDA device that the driver shows.
///
/// # Examples
/// ```
/// for device in flash_kmeans::devices() {
///     println!("{}: {}", device.backend, device.name);
/// }
/// # assert_eq!(flash_kmeans::devices()[0].backend, flash_kmeans::Backend::Cpu);
/// ```
pub fn devices() -> Vec<DeviceInfo> {
    #[cfg_attr(not(feature = "cuda"), expect(unused_mut, reason = "devices are added"))]
    let mut found = vec![DeviceInfo { backend: Backend::Cpu, name: cpu::describe(), memory_bytes: 0 }];
    #[cfg(feature = "cuda")]
    if process::check_gpus(Backend::Auto).is_ok() {
        found.extend(cuda::Device::list());
    }
    found
}
