//! The CUDA backend: Lloyd's iterations on one GPU.
//!
//! An iteration is a fixed sequence of launches with nothing for the host to decide: labels, sort, sums, means,
//! convergence. A problem of a batch that has converged stops costing work, and the host looks only
//! every few iterations.
mod device;
mod hopper;
mod lloyd;
mod memory;
mod plan;
mod run;

pub(crate) use device::Device;
pub(crate) use lloyd::Start;
pub use plan::{Hardware, LaunchPlan};
pub(crate) use run::Run;

use super::{LloydOptions, LloydOutcome};
use crate::element::{DType, Element, Float};
use crate::error::{Error, Result};
use crate::points::Problem;
use crate::stages::StageTimes;
use half::{bf16, f16};
use kernels_gpu::kernels::PointType;
use std::borrow::Cow;

/// A type of points that the kernels take.
trait GpuElement: Element<Centroid = f32> {
    /// The same type in kernels.
    type Device: PointType;
    /// Whether Hopper's tensor cores take the points rounded only.
    const ROUNDS: bool;
    /// Hopper's assignment of points of `d` dimensions.
    fn hopper(launches: &LaunchPlan, d: u32) -> hopper::Launch;
}
impl GpuElement for f32 {
    type Device = f32;
    const ROUNDS: bool = true;
    fn hopper(launches: &LaunchPlan, d: u32) -> hopper::Launch {
        hopper::of_type::<cuda_std::float::F16>(launches, d)
    }
}
impl GpuElement for f16 {
    type Device = cuda_std::float::F16;
    const ROUNDS: bool = false;
    fn hopper(launches: &LaunchPlan, d: u32) -> hopper::Launch {
        hopper::of_type::<cuda_std::float::F16>(launches, d)
    }
}
impl GpuElement for bf16 {
    type Device = cuda_std::float::BF16;
    const ROUNDS: bool = false;
    fn hopper(launches: &LaunchPlan, d: u32) -> hopper::Launch {
        hopper::of_type::<cuda_std::float::BF16>(launches, d)
    }
}

pub(crate) fn fit<T: Element>(
    device: &Device,
    problem: &Problem<'_, T>,
    centroids: Vec<T::Centroid>,
    options: &LloydOptions,
) -> Result<LloydOutcome<T::Centroid>> {
    let centroids: Vec<f32> = centroids.into_iter().map(|c| c.to_f64() as f32).collect();
    let outcome = match T::DTYPE {
        DType::F32 => lloyd::fit(device, &cast::<T, f32>(problem), &centroids, options)?,
        DType::F16 => lloyd::fit(device, &cast::<T, f16>(problem), &centroids, options)?,
        DType::BF16 => lloyd::fit(device, &cast::<T, bf16>(problem), &centroids, options)?,
        DType::F64 => return Err(no_f64(device)),
    };
    let centroids = outcome.centroids.into_iter().map(|c| Float::from_f64(f64::from(c))).collect();
    Ok(LloydOutcome { centroids, labels: outcome.labels, problems: outcome.problems })
}

pub(crate) fn assign<T: Element>(
    device: &Device,
    problem: &Problem<'_, T>,
    centroids: &[T::Centroid],
    k: usize,
) -> Result<Vec<u32>> {
    let centroids: Vec<f32> = centroids.iter().map(|c| c.to_f64() as f32).collect();
    match T::DTYPE {
        DType::F32 => lloyd::assign(device, &cast::<T, f32>(problem), &centroids, k),
        DType::F16 => lloyd::assign(device, &cast::<T, f16>(problem), &centroids, k),
        DType::BF16 => lloyd::assign(device, &cast::<T, bf16>(problem), &centroids, k),
        DType::F64 => Err(no_f64(device)),
    }
}

pub(crate) fn time_stages<T: Element>(
    device: &Device,
    problem: &Problem<'_, T>,
    k: usize,
    iterations: usize,
) -> Result<StageTimes> {
    match T::DTYPE {
        DType::F32 => lloyd::time_stages(device, &cast::<T, f32>(problem), k, iterations),
        DType::F16 => lloyd::time_stages(device, &cast::<T, f16>(problem), k, iterations),
        DType::BF16 => lloyd::time_stages(device, &cast::<T, bf16>(problem), k, iterations),
        DType::F64 => Err(no_f64(device)),
    }
}

/// The same points under the name of their own type, which `T::DTYPE` has just told.
fn cast<'a, T: Element, U: Element>(problem: &'a Problem<'_, T>) -> Problem<'a, U> {
    Problem {
        points: Cow::Borrowed(bytemuck::cast_slice(&problem.points)),
        batch: problem.batch,
        n: problem.n,
        d: problem.d,
    }
}

/// `Engine::select` refuses this before; said again for whoever calls past it.
fn no_f64(device: &Device) -> Error {
    let backend = crate::Backend::Cuda { ordinal: device.ordinal() };
    Error::BackendUnavailable { backend, reason: "f64 points run on the CPU".into() }
}
