//! Where a fit runs. One engine a backend; the layers above know only [`Engine`].
use crate::element::{DType, Element, Float};
use crate::error::{Error, Result};
use crate::model::BatchSummary;
use crate::observer::Watch;
use crate::params::Backend;
use crate::points::Problem;

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;

/// What the iterations need beside points and first centroids.
#[derive(Clone, Debug)]
pub(crate) struct LloydOptions {
    pub(crate) k: usize,
    pub(crate) max_iter: usize,
    pub(crate) tol: f64,
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

/// A backend ready to work.
#[derive(Clone, Debug)]
pub(crate) enum Engine {
    Cpu,
    #[cfg(feature = "cuda")]
    Cuda(cuda::Device),
}

impl Engine {
    /// The engine for `backend`. `Auto` takes the first CUDA device when there is one and it takes
    /// points of `dtype`.
    pub(crate) fn select(backend: Backend, dtype: DType) -> Result<Self> {
        match backend {
            Backend::Cpu => Ok(Engine::Cpu),
            Backend::Cuda { ordinal } => Self::cuda(ordinal, dtype),
            Backend::Auto => match Self::cuda(0, dtype) {
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

    fn cuda(ordinal: u32, dtype: DType) -> Result<Self> {
        let unavailable = |reason: &str| {
            let backend = Backend::Cuda { ordinal };
            Err(Error::BackendUnavailable { backend, reason: reason.into() })
        };
        if dtype == DType::F64 {
            return unavailable("f64 points run on the CPU; convert them to f32 for the GPU");
        }
        #[cfg(feature = "cuda")]
        return Ok(Engine::Cuda(cuda::Device::open(ordinal)?));
        #[cfg(not(feature = "cuda"))]
        unavailable("this build has no feature `cuda`")
    }

    pub(crate) fn backend(&self) -> Backend {
        match self {
            Engine::Cpu => Backend::Cpu,
            #[cfg(feature = "cuda")]
            Engine::Cuda(device) => Backend::Cuda { ordinal: device.ordinal() },
        }
    }

    pub(crate) fn device(&self) -> String {
        match self {
            Engine::Cpu => cpu::describe(),
            #[cfg(feature = "cuda")]
            Engine::Cuda(device) => device.name().to_string(),
        }
    }

    /// Lloyd's iterations from `centroids` (`batch · k · d` values) to the end.
    pub(crate) fn fit<T: Element>(
        &self,
        problem: &Problem<'_, T>,
        centroids: Vec<T::Centroid>,
        options: &LloydOptions,
        watch: &Watch<'_, T::Centroid>,
    ) -> Result<LloydOutcome<T::Centroid>> {
        match self {
            Engine::Cpu => cpu::fit(problem, centroids, options, watch),
            #[cfg(feature = "cuda")]
            Engine::Cuda(device) => cuda::fit(device, problem, centroids, options),
        }
    }

    /// Labels, `batch · n` values, under `centroids` (`batch · k · d` values).
    pub(crate) fn assign<T: Element>(
        &self,
        problem: &Problem<'_, T>,
        centroids: &[T::Centroid],
        k: usize,
    ) -> Result<Vec<u32>> {
        match self {
            Engine::Cpu => cpu::assign(problem, centroids, k),
            #[cfg(feature = "cuda")]
            Engine::Cuda(device) => cuda::assign(device, problem, centroids, k),
        }
    }
}

/// A place where a fit can run.
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
pub fn devices() -> Vec<DeviceInfo> {
    #[cfg_attr(not(feature = "cuda"), expect(unused_mut, reason = "devices are added"))]
    let mut found = vec![DeviceInfo { backend: Backend::Cpu, name: cpu::describe(), memory_bytes: 0 }];
    #[cfg(feature = "cuda")]
    found.extend(cuda::Device::list());
    found
}
