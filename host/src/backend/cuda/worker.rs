//! Fits in passes over chunks, on one or several GPUs: what streams take, and points that a GPU has no room for.
use super::lloyd::Parts;
use super::memory::Pinned;
use super::{Device, no_f64};
use crate::element::{DType, Element, Float};
use crate::error::{Error, Result};
use crate::lloyd::{Feed, Found, Pass, Together, Worker};
use cust::event::Event;
use half::{bf16, f16};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};

/// [`Parts`] of points of `T`.
pub(crate) struct CudaWorker<T: Element> {
    parts: AnyParts,
    device: Device,
    panel_rows: usize,
    d: usize,
    /// Buffers that may yet be read, with the end of that.
    in_flight: VecDeque<(Event, LockedPoints<T>)>,
}

enum AnyParts {
    F32(Parts<f32>),
    F16(Parts<f16>),
    BF16(Parts<bf16>),
}

/// Calls `$body` with the parts inside, whose points' type is `$T` there.
macro_rules! with_parts {
    ($parts:expr, $inside:ident: $T:ident => $body:expr) => {
        match $parts {
            AnyParts::F32($inside) => {
                type $T = f32;
                $body
            }
            AnyParts::F16($inside) => {
                type $T = f16;
                $body
            }
            AnyParts::BF16($inside) => {
                type $T = bf16;
                $body
            }
        }
    };
}

/// Rows of a panel of `n` points in `k` clusters.
pub(crate) fn panel_rows(n: usize, k: usize) -> Result<usize> {
    Parts::<f32>::panel_rows(n, k)
}

impl<T: Element> CudaWorker<T> {
    /// For `n` points, of which `first` is the first, in chunks of `chunk_rows` rows, on `devices`; on each in at most
    /// `memory` bytes.
    pub(crate) fn new(
        devices: &[Device],
        [n, k]: [usize; 2],
        first: &[T],
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
            DType::F32 => AnyParts::F32(Parts::new(devices, [n, k], cast(first), chunk_rows, memory)?),
            DType::F16 => AnyParts::F16(Parts::new(devices, [n, k], cast(first), chunk_rows, memory)?),
            DType::BF16 => AnyParts::BF16(Parts::new(devices, [n, k], cast(first), chunk_rows, memory)?),
            DType::F64 => return Err(no_f64(&device)),
        };
        let (panel_rows, d) = (panel_rows(n, k)?, first.len());
        Ok(CudaWorker { parts, device, panel_rows, d, in_flight: VecDeque::new() })
    }

    /// [`Worker::add`] of points in memory.
    pub(crate) fn add_points(&mut self, rows: Range<usize>, points: Option<&[T]>) -> Result<()> {
        with_parts!(&mut self.parts, parts: U => {
            parts.add(rows, points.map(bytemuck::cast_slice::<T, U>), false).map(drop)
        })
    }
}

impl<T: Element> Worker<T> for CudaWorker<T> {
    type Buffer = LockedPoints<T>;

    const EXACT_INERTIA: bool = false;

    fn panel_rows(&self) -> usize {
        self.panel_rows
    }

    fn buffer(&self, rows: usize) -> Result<LockedPoints<T>> {
        self.device.enter()?;
        Ok(LockedPoints { pinned: self.device.pinned(rows * self.d * size_of::<T>())?, _type: PhantomData })
    }

    fn keeps(&self, rows: &Range<usize>) -> bool {
        with_parts!(&self.parts, parts: _U => parts.keeps(rows.start))
    }

    fn begin(&mut self, centroids: &[T::Centroid], pass: Pass) -> Result<()> {
        let centroids = to_f32::<T>(centroids);
        with_parts!(&mut self.parts, parts: _U => parts.begin(&centroids, pass))
    }

    fn add(
        &mut self,
        rows: Range<usize>,
        points: Option<LockedPoints<T>>,
        free: &mut Vec<LockedPoints<T>>,
    ) -> Result<()> {
        let Some(points) = points else { return self.add_points(rows, None) };
        let values = &points[..rows.len() * self.d];
        let read = with_parts!(&mut self.parts, parts: U => {
            parts.add(rows, Some(bytemuck::cast_slice::<T, U>(values)), true)?
        });
        if let Some(read) = read {
            self.in_flight.push_back((read, points));
        }
        // All but the last: it is copied while the next is read.
        while self.in_flight.len() > 1
            && let Some((read, points)) = self.in_flight.pop_front()
        {
            read.synchronize().map_err(|code| super::device::failed("waiting for a copy", code))?;
            free.push(points);
        }
        Ok(())
    }

    fn finish(
        &mut self,
        centroids: &mut [T::Centroid],
        _together: &dyn Together,
        free: &mut Vec<LockedPoints<T>>,
    ) -> Result<Found> {
        let mut values = to_f32::<T>(centroids);
        let found = with_parts!(&mut self.parts, parts: _U => parts.finish(&mut values))?;
        // All work is done, copies included.
        free.extend(self.in_flight.drain(..).map(|(_, points)| points));
        for (centroid, value) in centroids.iter_mut().zip(values) {
            *centroid = Float::from_f64(f64::from(value));
        }
        Ok(found)
    }

    fn into_labels(self) -> Result<Vec<u32>> {
        with_parts!(&self.parts, parts: _U => parts.labels())
    }
}

impl<T: Element> Drop for CudaWorker<T> {
    fn drop(&mut self) {
        // After an error, copies may still read what is about to be freed; that they cannot be waited for says that
        // the device is lost, and with it the copies.
        let _ = with_parts!(&self.parts, parts: _U => parts.wait());
    }
}

fn to_f32<T: Element>(centroids: &[T::Centroid]) -> Vec<f32> {
    centroids.iter().map(|c| c.to_f64() as f32).collect()
}

/// Points in page-locked memory.
pub(crate) struct LockedPoints<T> {
    pinned: Pinned,
    _type: PhantomData<T>,
}

impl<T: Element> Deref for LockedPoints<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(whole::<T>(self.pinned.as_bytes()))
    }
}

impl<T: Element> DerefMut for LockedPoints<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let bytes = self.pinned.bytes();
        let len = whole::<T>(bytes).len();
        bytemuck::cast_slice_mut(&mut bytes[..len])
    }
}

/// The bytes that are whole values: a buffer may be larger than was asked for.
fn whole<T>(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len() / size_of::<T>() * size_of::<T>()]
}

/// The chunks of points in memory.
pub(crate) struct Slices<'a, T> {
    pub(crate) points: &'a [T],
    pub(crate) d: usize,
    pub(crate) chunk_rows: usize,
}

impl<T: Element> Feed<T, CudaWorker<T>> for Slices<'_, T> {
    fn pass(
        &mut self,
        worker: &mut CudaWorker<T>,
        seen: &dyn Fn(usize) -> Result<()>,
        _free: &mut Vec<LockedPoints<T>>,
    ) -> Result<()> {
        let mut row = 0;
        for points in self.points.chunks(self.chunk_rows * self.d) {
            let rows = row..row + points.len() / self.d;
            row = rows.end;
            let points = (!worker.keeps(&rows)).then_some(points);
            worker.add_points(rows, points)?;
            seen(row)?;
        }
        Ok(())
    }
}
