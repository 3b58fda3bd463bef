//! Launch plans: what `cargo xtask tune` and tests need of them, and no part of the stable interface.
use crate::Result;
use crate::backend::cuda::Device;
pub use crate::backend::cuda::{Hardware, LaunchPlan};

/// A GPU, as far as plans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// What the driver calls it.
    pub name: String,
    /// What a plan depends on.
    pub hardware: Hardware,
    /// The plan that its fits have.
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
        has_tensor_cores: device.has_tensor_cores(),
    })
}

/// Has what this process does from now on on CUDA device `ordinal` go by `plan`.
///
/// # Errors
/// Those of [`gpu`]; [`crate::Error::InvalidArgument`] when the plan does not suit the GPU.
pub fn use_plan(ordinal: u32, plan: LaunchPlan) -> Result<()> {
    Device::open(ordinal)?.use_plan(plan)
}
