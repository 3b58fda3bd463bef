//! Launch plans by measurement: what `cargo xtask tune` is made of, and no part of the stable interface.
use crate::stages::{StageTimes, Workload, time_on};
use crate::{Element, Result};

use crate::backend::cuda::Device;
pub use crate::backend::cuda::{Hardware, LaunchPlan};

/// A GPU, as far as plans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// What the driver calls it.
    pub name: String,
    /// What a plan depends on.
    pub hardware: Hardware,
    /// The plan that fits here have.
    pub plan: LaunchPlan,
    /// Whether its tensor cores assign: else only the choice of sorts matters.
    pub has_tensor_cores: bool,
}

/// CUDA device `ordinal`.
///
/// # Errors
/// [`crate::Error::BackendUnavailable`] when there is none; those of [`LaunchPlan::of`].
pub fn gpu(ordinal: u32) -> Result<Gpu> {
    let device = Device::open(ordinal)?;
    Ok(Gpu {
        name: device.name().to_owned(),
        hardware: *device.hardware(),
        plan: *device.plan(),
        has_tensor_cores: device.is_hopper(),
    })
}

/// As [`crate::stages::time_points`], by `plan`.
///
/// # Errors
/// As there; [`crate::Error::InvalidArgument`] when the plan does not suit the GPU.
pub fn time_points<T: Element>(
    ordinal: u32,
    points: &[T],
    workload: Workload,
    iterations: usize,
    plan: LaunchPlan,
) -> Result<StageTimes> {
    time_on(&Device::open(ordinal)?.with_plan(plan)?, points, workload, iterations)
}
