//! A call of any of the types that kernels take, behind one type.
use super::lloyd::{Call, Role, Start};
use super::of_type::{OfType, with_type};
use super::{Gpus, cast, no_f64};
use crate::backend::LloydOptions;
use crate::element::{DType, Element};
use crate::error::Result;
use crate::init::First;
use crate::model::BatchSummary;
use crate::points::Problem;
use crate::workspace::DevicePoints;
use half::{bf16, f16};

/// [`Call`] of one of the types that kernels take.
pub(crate) struct Run(OfType<Call<f32>, Call<f16>, Call<bf16>>);

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = with_type!(&self.0, _call: T => T::DTYPE);
        f.debug_tuple("Run").field(&name).finish()
    }
}

impl Run {
    /// For points of `T` in the shape `[batch, n, d]`.
    pub(crate) fn new<T: Element>(gpus: &Gpus, shape: [usize; 3], options: &LloydOptions) -> Result<Self> {
        let (device, by) = (gpus.first(), gpus.by(options.metric, false));
        let call = match T::DTYPE {
            DType::F32 => OfType::F32(Call::new(device, shape, (options.k, by), Role::Fit(options))?),
            DType::F16 => OfType::F16(Call::new(device, shape, (options.k, by), Role::Fit(options))?),
            DType::BF16 => OfType::BF16(Call::new(device, shape, (options.k, by), Role::Fit(options))?),
            DType::F64 => return Err(no_f64(device)),
        };
        Ok(Run(call))
    }

    /// The points must be of the type that the run was made for.
    pub(crate) fn load<T: Element>(&mut self, problem: &Problem<'_, T>) -> Result<()> {
        with_type!(&mut self.0, call: U => call.load(&cast::<T, U>(problem), false))
    }

    /// # Safety
    /// As [`Call::borrow`], for points of the type that the run was made for.
    pub(crate) unsafe fn borrow<T: Element>(&mut self, points: DevicePoints<T>) -> Result<()> {
        // SAFETY: this function's contract.
        with_type!(&mut self.0, call: U => unsafe { call.borrow(points.cast::<U>()) })
    }

    /// Rows that k-means|| or else k-means++ draws, `batch · k` of them.
    pub(crate) fn draw(&self, first: First<'_>, k: usize) -> Result<Vec<u32>> {
        with_type!(&self.0, call: _T => call.resident()?.draw(first, k, None))
    }

    pub(crate) fn fit(&mut self, start: Start<'_>, options: &LloydOptions) -> Result<Vec<BatchSummary>> {
        with_type!(&self.0, call: _T => {
            call.start(start)?;
            call.fit(options)
        })
    }

    pub(crate) fn centroids(&self) -> Result<Vec<f32>> {
        with_type!(&self.0, call: _T => call.centroids())
    }

    pub(crate) fn labels(&self) -> Result<Vec<u32>> {
        with_type!(&self.0, call: _T => call.labels())
    }

    pub(crate) fn device_labels(&self) -> *const u32 {
        with_type!(&self.0, call: _T => call.device_labels())
    }

    /// Centroids in the points' type.
    pub(crate) fn device_centroids(&self) -> *const u8 {
        with_type!(&self.0, call: _T => call.device_centroids().cast())
    }
}
