//! The CUDA backend.
use super::{Assignment, DeviceInfo, LloydOptions, LloydOutcome};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::params::Backend;
use crate::points::Problem;

#[derive(Clone, Debug)]
pub(crate) struct Device {}
impl Device {
    pub(crate) fn open(ordinal: u32) -> Result<Self> {
        let backend = Backend::Cuda { ordinal };
        Err(Error::BackendUnavailable { backend, reason: "being written".into() })
    }
    pub(crate) fn ordinal(&self) -> u32 {
        0
    }
    pub(crate) fn name(&self) -> &str {
        ""
    }
    pub(crate) fn list() -> Vec<DeviceInfo> {
        Vec::new()
    }
}
pub(crate) fn fit<T: Element>(
    _device: &Device,
    _problem: &Problem<'_, T>,
    _centroids: Vec<T::Centroid>,
    _options: &LloydOptions,
) -> Result<LloydOutcome<T::Centroid>> {
    todo!()
}
pub(crate) fn assign<T: Element>(
    _device: &Device,
    _problem: &Problem<'_, T>,
    _centroids: &[T::Centroid],
    _k: usize,
) -> Result<Assignment> {
    todo!()
}
