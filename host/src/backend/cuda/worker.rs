//! Fits in passes over chunks, on one or several GPUs: what streams take, and points that a GPU has no room for.
use super::device::Mark;
use super::frame::Frame;
use super::lloyd::{By, Parts};
use super::memory::Pinned;
use super::of_type::{OfType, with_type};
use super::{Device, Visit, no_f64};
use crate::backend::cpu::copy_rows;
use crate::backend::totals::Totals;
use crate::element::{DType, Element, Float};
use crate::error::{Error, Result};
use crate::lloyd::{Feed, Found, Pass, Together, Worker, in_order};
use crate::metric::Metric;
use crate::points::check_finite;
use crate::relocate::{Donor, Search};
use half::{bf16, f16};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};

/// [`Parts`] of points of `T`.
pub(crate) struct CudaWorker<T: Element> {
    parts: OfType<Parts<f32>, Parts<f16>, Parts<bf16>>,
    device: Device,
    metric: Metric,
    k: usize,
    d: usize,
    /// Buffers that may yet be read, with the end of that.
    in_flight: VecDeque<(Mark, PageLocked<T>)>,
}

/// Rows that chunks of `n` points in `k` clusters are made of.
pub(crate) fn panel_rows(n: usize, k: usize) -> Result<usize> {
    Parts::<f32>::panel_rows(n, k)
}

impl<T: Element> CudaWorker<T> {
    /// As [`Parts::new`].
    pub(super) fn new(
        devices: &[Device],
        task: ([usize; 2], By),
        first: &[T],
        of_points: (Option<&[f64]>, Option<Frame>),
        chunk_rows: usize,
        memory: Option<u64>,
    ) -> Result<Self> {
        let Some(device) = devices.first().cloned() else {
            let rule = "there must be at least one device";
            return Err(Error::InvalidArgument { argument: "devices", value: "none".into(), rule });
        };
        fn cast<T: Element, U: bytemuck::Pod>(first: &[T]) -> &[U] {
            bytemuck::cast_slice(first)
        }
        let parts = match T::DTYPE {
            DType::F32 => OfType::F32(Parts::new(devices, task, cast(first), of_points, chunk_rows, memory)?),
            DType::F16 => OfType::F16(Parts::new(devices, task, cast(first), of_points, chunk_rows, memory)?),
            DType::BF16 => {
                OfType::BF16(Parts::new(devices, task, cast(first), of_points, chunk_rows, memory)?)
            }
            DType::F64 => return Err(no_f64(&device)),
        };
        let ([_, k], By { metric, .. }) = task;
        Ok(CudaWorker { parts, device, metric, k, d: first.len(), in_flight: VecDeque::new() })
    }

    /// [`Worker::add`] of points in memory; those that are page-locked stay as they are until the pass ends.
    fn add_points(&mut self, rows: Range<usize>, points: Option<&[T]>, is_locked: bool) -> Result<()> {
        with_type!(&mut self.parts, parts: U => {
            parts.add(rows, points.map(bytemuck::cast_slice::<T, U>), is_locked).map(drop)
        })
    }
}

impl<T: Element> Worker<T> for CudaWorker<T> {
    type Buffer = PageLocked<T>;

    const EXACT_INERTIA: bool = false;

    fn buffer(&self, rows: usize) -> Result<PageLocked<T>> {
        self.device.enter()?;
        PageLocked::of(&self.device, rows * self.d)
    }

    fn keeps(&self, rows: &Range<usize>) -> bool {
        with_type!(&self.parts, parts: _U => parts.keeps(rows.start))
    }

    fn begin(&mut self, centroids: &[T::Centroid], pass: Pass) -> Result<()> {
        let centroids = to_f32::<T>(centroids);
        with_type!(&mut self.parts, parts: _U => parts.begin(&centroids, pass))
    }

    fn add(
        &mut self,
        rows: Range<usize>,
        points: Option<PageLocked<T>>,
        free: &mut Vec<PageLocked<T>>,
    ) -> Result<()> {
        let Some(points) = points else { return self.add_points(rows, None, false) };
        let values = &points[..rows.len() * self.d];
        let read = with_type!(&mut self.parts, parts: U => {
            parts.add(rows, Some(bytemuck::cast_slice::<T, U>(values)), true)?
        });
        if let Some(read) = read {
            self.in_flight.push_back((read, points));
        }
        // All but the last: it is copied while the next is read.
        while self.in_flight.len() > 1
            && let Some((read, points)) = self.in_flight.pop_front()
        {
            read.wait()?;
            free.push(points);
        }
        Ok(())
    }

    fn finish(
        &mut self,
        centroids: &mut [T::Centroid],
        together: &dyn Together,
        free: &mut Vec<PageLocked<T>>,
    ) -> Result<Found> {
        if !together.is_alone() {
            let mut totals = Totals::new(self.k, self.d)?;
            let pass = with_type!(&mut self.parts, parts: _U => parts.finish_share(&mut totals))?;
            free.extend(self.in_flight.drain(..).map(|(_, points)| points));
            return totals.finish(pass, self.metric, centroids, together);
        }
        let mut values = to_f32::<T>(centroids);
        let found = with_type!(&mut self.parts, parts: _U => parts.finish(&mut values))?;
        // All work is done, copies included.
        free.extend(self.in_flight.drain(..).map(|(_, points)| points));
        for (centroid, value) in centroids.iter_mut().zip(values) {
            *centroid = Float::from_f64(f64::from(value));
        }
        Ok(found)
    }

    fn begin_search(&mut self, most: usize) -> Result<()> {
        with_type!(&mut self.parts, parts: _U => parts.begin_search(most))
    }

    fn end_search(&mut self, free: &mut Vec<PageLocked<T>>) -> Result<Search> {
        let search = with_type!(&mut self.parts, parts: _U => parts.end_search())?;
        free.extend(self.in_flight.drain(..).map(|(_, points)| points));
        Ok(search)
    }

    fn sums(&self, clusters: &[Donor], means: &[T::Centroid]) -> Result<Vec<f64>> {
        if self.metric.is_spherical() {
            return with_type!(&self.parts, parts: _U => parts.sums(clusters));
        }
        let sum = |donor: &Donor| {
            let mean = &means[donor.cluster * self.d..][..self.d];
            let mass = donor.mass;
            mean.iter().map(move |mean| mean.to_f64() * mass)
        };
        Ok(clusters.iter().flat_map(sum).collect())
    }

    fn into_labels(mut self) -> Result<Vec<u32>> {
        with_type!(&mut self.parts, parts: _U => parts.take_labels())
    }
}

impl<T: Element> Drop for CudaWorker<T> {
    fn drop(&mut self) {
        // After an error, copies may still read what is about to be freed; that they cannot be waited for says that
        // the device is lost, and with it the copies.
        let _ = with_type!(&mut self.parts, parts: _U => parts.wait());
    }
}

fn to_f32<T: Element>(centroids: &[T::Centroid]) -> Vec<f32> {
    centroids.iter().map(|c| c.to_f64() as f32).collect()
}

/// Points in host memory that is page-locked, which GPUs copy from at the full rate of their link. To lock memory takes
/// longer than to copy it: it pays where the same memory is used often, or for points that a GPU has no room for.
///
/// # Examples
/// ```
/// use flash_kmeans::{Error, FlashKMeans, PageLocked};
/// use ndarray::ArrayView2;
///
/// match PageLocked::<f32>::new(4) {
///     Ok(mut values) => {
///         values.copy_from_slice(&[0.0, 1.0, 8.0, 9.0]);
///         let points = ArrayView2::from_shape((4, 1), &values).unwrap();
///         assert_eq!(FlashKMeans::new(2).fit(points)?.inertia(), 1.0);
///     }
///     Err(error) => assert!(matches!(error, Error::BackendUnavailable { .. }), "{error}"),
/// }
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
pub struct PageLocked<T> {
    pinned: Pinned,
    device: Device,
    len: usize,
    _type: PhantomData<T>,
    /// While it is dropped; the last field, for those above are dropped in a context too.
    end: Option<Visit>,
}

impl<T: Element> PageLocked<T> {
    /// Room for `len` values, of any bits, locked for all CUDA devices.
    ///
    /// # Errors
    /// [`Error::BackendUnavailable`] where there is no GPU, and [`Error::Cuda`] where the system does not lock so much.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::{Error, PageLocked};
    ///
    /// match PageLocked::<f32>::new(1000) {
    ///     Ok(values) => assert_eq!(values.len(), 1000),
    ///     // There is no GPU here.
    ///     Err(error) => assert!(matches!(error, Error::BackendUnavailable { .. }), "{error}"),
    /// }
    /// ```
    pub fn new(len: usize) -> Result<Self> {
        let _visit = Visit::begin();
        let device = Device::open(0)?;
        device.enter()?;
        Self::of(&device, len)
    }

    fn of(device: &Device, len: usize) -> Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| Error::InvalidArgument {
            argument: "len",
            value: len.to_string(),
            rule: "the bytes of all values must have an address",
        })?;
        Ok(PageLocked {
            pinned: device.pinned(bytes)?,
            device: device.clone(),
            len,
            _type: PhantomData,
            end: None,
        })
    }
}

impl<T> Drop for PageLocked<T> {
    fn drop(&mut self) {
        self.end = Some(Visit::begin());
        // The driver unlocks only for a thread with a context; where there is none to be had, the memory stays locked.
        let _ = self.device.enter();
    }
}

impl<T: Element> Deref for PageLocked<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.pinned.as_bytes()[..self.len * size_of::<T>()])
    }
}

impl<T: Element> DerefMut for PageLocked<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.pinned.bytes()[..self.len * size_of::<T>()])
    }
}

impl<T> std::fmt::Debug for PageLocked<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageLocked").field("len", &self.len).finish_non_exhaustive()
    }
}

/// The chunks of points in memory.
pub(crate) struct Slices<'a, T> {
    pub(crate) points: &'a [T],
    pub(crate) d: usize,
    pub(crate) chunk_rows: usize,
    pub(crate) is_locked: bool,
    /// Whether the points have yet to be found finite.
    pub(crate) unchecked: bool,
}

impl<T: Element> Feed<T, CudaWorker<T>> for Slices<'_, T> {
    fn pass(
        &mut self,
        worker: &mut CudaWorker<T>,
        seen: &dyn Fn(usize) -> Result<()>,
        _free: &mut Vec<PageLocked<T>>,
    ) -> Result<()> {
        if with_type!(&worker.parts, parts: _U => parts.keeps_all()) {
            with_type!(&mut worker.parts, parts: _U => parts.add_kept())?;
            return seen(self.points.len() / self.d);
        }
        let n = self.points.len() / self.d;
        let mut done = 0;
        for (rows, is_kept) in in_order(worker, n, self.chunk_rows) {
            let points = &self.points[rows.start * self.d..rows.end * self.d];
            done += rows.len();
            worker.add_points(rows.clone(), (!is_kept).then_some(points), self.is_locked)?;
            if self.unchecked {
                // While they are copied.
                check_finite(points, rows.start, self.d)?;
            }
            seen(done)?;
        }
        self.unchecked = false;
        Ok(())
    }

    fn read(&mut self, rows: &[usize], into: &mut [T]) -> Result<()> {
        copy_rows(self.points, rows, into);
        Ok(())
    }
}
