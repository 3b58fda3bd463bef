//! Device memory: one allocation a call, laid out beforehand.
use super::device::{check, failed};
use crate::error::{Error, Result};
use cust::error::CudaError;
use cust::memory::DeviceBuffer;
use cust::stream::Stream;
use cust::sys;
use std::marker::PhantomData;

/// Places for arrays in an [`Arena`], given out before it exists.
#[derive(Debug, Default)]
pub(super) struct Plan {
    bytes: usize,
}

/// The place of `len` values of `T`.
#[derive(Debug)]
pub(super) struct Place<T> {
    offset: usize,
    len: usize,
    _type: PhantomData<T>,
}

impl<T> Clone for Place<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Place<T> {}

impl Plan {
    /// A place for `len` values of `T`, aligned as `cuMemAlloc` aligns.
    pub(super) fn array<T>(&mut self, len: usize) -> Place<T> {
        const ALIGNMENT: usize = 256;
        let offset = self.bytes.next_multiple_of(ALIGNMENT);
        self.bytes = offset + len * size_of::<T>();
        Place { offset, len, _type: PhantomData }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// One block of device memory.
pub(super) struct Arena {
    buffer: DeviceBuffer<u8>,
}

// SAFETY: the arena is an address in device memory and a size; the driver lets any thread use it, and
// `&Arena` gives no access to the host.
unsafe impl Send for Arena {}

impl Arena {
    pub(super) fn new(bytes: usize) -> Result<Self> {
        // SAFETY: every array is written, by a copy or a kernel, before it is read.
        match unsafe { DeviceBuffer::uninitialized(bytes.max(1)) } {
            Ok(buffer) => Ok(Arena { buffer }),
            Err(CudaError::OutOfMemory) => {
                let free = cust::memory::mem_get_info().map_or(0, |(free, _)| free as u64);
                Err(Error::OutOfDeviceMemory { requested: bytes as u64, free })
            }
            Err(code) => Err(failed(format!("allocating {bytes} bytes"), code)),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The address of an array; for kernels only.
    pub(super) fn at<T>(&self, place: Place<T>) -> *mut T {
        debug_assert!(place.offset + place.len * size_of::<T>() <= self.bytes());
        (self.buffer.as_device_ptr().as_raw() as usize + place.offset) as *mut T
    }

    /// Copies `values` to `place`, after the stream's earlier work.
    pub(super) fn upload<T: bytemuck::Pod>(
        &self,
        stream: &Stream,
        place: Place<T>,
        values: &[T],
    ) -> Result<()> {
        let bytes = size_of_val(values);
        assert_len(place.len, values.len())?;
        // SAFETY: the place has room for the values, which are plain bytes; memory that is not page-locked
        // is staged by the driver before the call returns.
        let code = unsafe {
            sys::cuMemcpyHtoDAsync_v2(self.at(place) as u64, values.as_ptr().cast(), bytes, stream.as_inner())
        };
        check("cuMemcpyHtoDAsync", code)?;
        // A page-locked slice is read later: wait, since the borrow ends here.
        stream.synchronize().map_err(|code| failed("copying to the device", code))
    }

    /// Copies rows of `d` values to rows `pitch` values apart, with zeros between.
    pub(super) fn upload_rows<T: bytemuck::Pod>(
        &self,
        stream: &Stream,
        place: Place<T>,
        values: &[T],
        d: usize,
        pitch: usize,
    ) -> Result<()> {
        if d == pitch {
            return self.upload(stream, place, values);
        }
        let rows = values.len() / d;
        assert_len(place.len, rows * pitch)?;
        self.zero(stream, place)?;
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: sys::CUmemorytype_enum::CU_MEMORYTYPE_HOST,
            srcHost: values.as_ptr().cast(),
            srcDevice: 0,
            srcArray: std::ptr::null_mut(),
            srcPitch: d * size_of::<T>(),
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: sys::CUmemorytype_enum::CU_MEMORYTYPE_DEVICE,
            dstHost: std::ptr::null_mut(),
            dstDevice: self.at(place) as u64,
            dstArray: std::ptr::null_mut(),
            dstPitch: pitch * size_of::<T>(),
            WidthInBytes: d * size_of::<T>(),
            Height: rows,
        };
        // SAFETY: `rows` rows of `d` values lie at the source and have room at the place.
        check("cuMemcpy2DAsync", unsafe { sys::cuMemcpy2DAsync_v2(&copy, stream.as_inner()) })?;
        stream.synchronize().map_err(|code| failed("copying to the device", code))
    }

    /// The first `len` values at `place`, after all of the stream's work.
    pub(super) fn download<T: bytemuck::Pod>(
        &self,
        stream: &Stream,
        place: Place<T>,
        len: usize,
    ) -> Result<Vec<T>> {
        assert_len(len.max(place.len), place.len)?;
        let mut values = vec![T::zeroed(); len];
        // SAFETY: the vector has room for `len` values, and any bytes are values of `T`.
        let code = unsafe {
            sys::cuMemcpyDtoHAsync_v2(
                values.as_mut_ptr().cast(),
                self.at(place) as u64,
                len * size_of::<T>(),
                stream.as_inner(),
            )
        };
        check("cuMemcpyDtoHAsync", code)?;
        stream.synchronize().map_err(|code| failed("waiting for the device", code))?;
        Ok(values)
    }

    /// Sets every byte of `place` to 0.
    pub(super) fn zero<T>(&self, stream: &Stream, place: Place<T>) -> Result<()> {
        let bytes = place.len * size_of::<T>();
        // SAFETY: the place lies in this arena.
        check("cuMemsetD8Async", unsafe {
            sys::cuMemsetD8Async(self.at(place) as u64, 0, bytes, stream.as_inner())
        })
    }
}

/// A copy of the wrong length is a bug of this crate; it is reported, not made.
fn assert_len(expected: usize, actual: usize) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    let (expected, actual) = (expected.to_string(), actual.to_string());
    Err(Error::Shape { what: "device array", expected, actual })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap() {
        let mut plan = Plan::default();
        let a = plan.array::<u32>(3);
        let b = plan.array::<f64>(1);
        assert_eq!((a.offset, b.offset, plan.bytes()), (0, 256, 264));
    }
}
