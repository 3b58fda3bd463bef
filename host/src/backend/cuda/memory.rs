//! Device memory: one allocation a call, laid out beforehand; and copies to and from it.
use super::device::{Device, Mark, check, failed};
use crate::error::{Error, Result};
use crate::memory::zeroed;
use cust::error::CudaError;
use cust::memory::{DeviceBuffer, LockedBuffer};
use cust::stream::Stream;
use cust::sys;
use rayon::prelude::*;
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

impl<T> Place<T> {
    /// Values.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The place of all from this on up to `last`, which was given out later.
    pub(super) fn through<U>(&self, last: Place<U>) -> Place<u8> {
        let end = last.offset + last.len * size_of::<U>();
        Place { offset: self.offset, len: end.saturating_sub(self.offset), _type: PhantomData }
    }

    /// The place of `len` of its values from `first` on, or of those that there are.
    pub(super) fn part(&self, first: usize, len: usize) -> Self {
        let first = first.min(self.len);
        Place {
            offset: self.offset + first * size_of::<T>(),
            len: len.min(self.len - first),
            _type: PhantomData,
        }
    }
}

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
    /// Bytes that were asked for. A buffer that an earlier call left may have more, which is nobody's.
    bytes: usize,
}

// SAFETY: the arena is an address in device memory and a size; the driver lets any thread use it, and
// `&Arena` gives no access to the host.
unsafe impl Send for Arena {}

impl Arena {
    pub(super) fn new(bytes: usize) -> Result<Self> {
        // SAFETY: every array is written, by a copy or a kernel, before it is read.
        match unsafe { DeviceBuffer::uninitialized(bytes.max(1)) } {
            Ok(buffer) => Ok(Arena { buffer, bytes }),
            Err(CudaError::OutOfMemory) => {
                let free = cust::memory::mem_get_info().map_or(0, |(free, _)| free as u64);
                Err(Error::OutOfDeviceMemory { requested: bytes as u64, free })
            }
            Err(code) => Err(failed(format!("allocating {bytes} bytes"), code)),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that a later call may ask it for.
    pub(super) fn room(&self) -> usize {
        self.buffer.len()
    }

    /// The same memory for a call that needs `bytes` of it.
    pub(super) fn with_bytes(self, bytes: usize) -> Self {
        debug_assert!(bytes <= self.room());
        Arena { bytes, ..self }
    }

    /// The address of an array; for kernels only.
    pub(super) fn at<T>(&self, place: Place<T>) -> *mut T {
        debug_assert!(place.offset + place.len * size_of::<T>() <= self.bytes());
        (self.buffer.as_device_ptr().as_raw() as usize + place.offset) as *mut T
    }

    /// Copies `values` to `place`, after the stream's earlier work.
    pub(super) fn upload<T: bytemuck::Pod>(
        &self,
        device: &Device,
        stream: &Stream,
        place: Place<T>,
        values: &[T],
    ) -> Result<()> {
        self.upload_rows(device, stream, (place, 1), (values, 1), |_, _| Ok(()))
    }

    /// Copies rows of `d` values to rows `pitch` values apart, with zeros between. Returns when `values` were read, or when
    /// `look`, which sees them part after part with the first row of each, finds something wrong.
    pub(super) fn upload_rows<T: bytemuck::Pod>(
        &self,
        device: &Device,
        stream: &Stream,
        (place, pitch): (Place<T>, usize),
        (values, d): (&[T], usize),
        mut look: impl FnMut(usize, &[T]) -> Result<()>,
    ) -> Result<()> {
        let rows = values.len() / d;
        assert_len(place.len, rows * pitch)?;
        let pitch = pitch * size_of::<T>();
        let rows_at_a_time = (STAGE_BYTES / pitch).max(1);
        let mut stages = Stages::new(device, stream, rows * pitch, pitch)?;
        for (turn, part) in values.chunks(rows_at_a_time * d).enumerate() {
            // In the cache, when it is copied next.
            if let Err(error) = look(turn * rows_at_a_time, part) {
                stages.end()?;
                return Err(error);
            }
            let (part, d): (&[u8], usize) = (bytemuck::cast_slice(part), d * size_of::<T>());
            let to = self.at(place) as u64 + (turn * rows_at_a_time * pitch) as u64;
            let stage = stages.take()?;
            let bytes = part.len() / d * pitch;
            spread(part, &mut stage.bytes()[..bytes], d, pitch);
            let from = stage.buffer.as_ptr();
            // SAFETY: the place has room for the rows, which are plain bytes; the stage is not written again before
            // its event has passed.
            let code = unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.cast(), bytes, stream.as_inner()) };
            check("cuMemcpyHtoDAsync", code)?;
            stages.pass()?;
        }
        stages.end()
    }

    /// The first `len` values at `place`, after all of the stream's work.
    pub(super) fn download<T: bytemuck::Pod>(
        &self,
        device: &Device,
        stream: &Stream,
        place: Place<T>,
        len: usize,
    ) -> Result<Vec<T>> {
        let mut values = zeroed(len, "what the device has found")?;
        self.download_into(device, stream, place, &mut values)?;
        Ok(values)
    }

    /// Fills `values` with the first values at `place`, after all of the stream's work.
    pub(super) fn download_into<T: bytemuck::Pod>(
        &self,
        device: &Device,
        stream: &Stream,
        place: Place<T>,
        values: &mut [T],
    ) -> Result<()> {
        assert_len(values.len().max(place.len), place.len)?;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
        if bytes.len() <= STAGE_BYTES {
            return Self::download_all(device, stream, &mut [(self.at(place) as u64, bytes)]);
        }
        let mut stages = Stages::new(device, stream, bytes.len(), 1)?;
        let mut waiting: Option<&mut [u8]> = None;
        for (turn, part) in bytes.chunks_mut(STAGE_BYTES).enumerate() {
            let from = self.at(place) as u64 + (turn * STAGE_BYTES) as u64;
            let stage = stages.take()?;
            // SAFETY: the stage has room for the part, and is read only after its event has passed.
            let code = unsafe {
                let to = stage.buffer.as_mut_ptr().cast();
                sys::cuMemcpyDtoHAsync_v2(to, from, part.len(), stream.as_inner())
            };
            check("cuMemcpyDtoHAsync", code)?;
            stages.pass()?;
            // The part before is copied on while this one is under way.
            if let Some(before) = waiting.replace(part) {
                let stage = stages.before()?;
                spread(&stage.bytes()[..before.len()], before, 1, 1);
            }
        }
        if let Some(last) = waiting {
            let stage = stages.last()?;
            spread(&stage.bytes()[..last.len()], last, 1, 1);
        }
        stages.end()
    }

    /// What a part of [`Self::download_all`] is filled with: the first values at `place`.
    pub(super) fn part<'a, T: bytemuck::Pod>(
        &self,
        place: Place<T>,
        values: &'a mut [T],
    ) -> Result<(u64, &'a mut [u8])> {
        assert_len(values.len().max(place.len), place.len)?;
        Ok((self.at(place) as u64, bytemuck::cast_slice_mut(values)))
    }

    /// Fills a few parts, each from an address in device memory, after all of the stream's work, which is waited for once.
    pub(super) fn download_all(
        device: &Device,
        stream: &Stream,
        parts: &mut [(u64, &mut [u8])],
    ) -> Result<()> {
        let mut stage = device.pinned(parts.iter().map(|(_, part)| part.len()).sum())?;
        let mut place = 0;
        for (from, part) in parts.iter().filter(|(_, part)| !part.is_empty()) {
            // SAFETY: the stage has room for all parts, one after the other, and is read only when the stream has passed.
            let code = unsafe {
                let to = stage.buffer.as_mut_ptr().add(place).cast();
                sys::cuMemcpyDtoHAsync_v2(to, *from, part.len(), stream.as_inner())
            };
            check("cuMemcpyDtoHAsync", code)?;
            place += part.len();
        }
        stream.synchronize().map_err(|code| failed("waiting for copies", code))?;
        let mut rest = &stage.bytes()[..];
        for (_, part) in parts {
            let (these, after) = rest.split_at(part.len());
            spread(these, part, 1, 1);
            rest = after;
        }
        device.keep_pinned(stage);
        Ok(())
    }

    /// Copies rows of `d` values from elsewhere in device memory to rows `pitch` values apart, with zeros between.
    ///
    /// # Safety
    /// `rows · d` values lie at `from` until the stream has passed the copy.
    pub(super) unsafe fn copy_rows<T>(
        &self,
        stream: &Stream,
        (place, pitch): (Place<T>, usize),
        (from, from_pitch): (*const T, usize),
        rows: usize,
        d: usize,
    ) -> Result<()> {
        assert_len(place.len, rows * pitch)?;
        let copy = sys::CUDA_MEMCPY2D {
            srcMemoryType: sys::CUmemorytype_enum::CU_MEMORYTYPE_DEVICE,
            srcDevice: from as u64,
            srcPitch: from_pitch * size_of::<T>(),
            ..rows_copy(self.at(place) as u64, rows, d * size_of::<T>(), pitch * size_of::<T>())
        };
        // SAFETY: the caller's contract for the source; the place has room for the rows.
        check("cuMemcpy2DAsync", unsafe { sys::cuMemcpy2DAsync_v2(&copy, stream.as_inner()) })
    }

    /// Copies all values at `place` from elsewhere in device memory.
    ///
    /// # Safety
    /// As many values lie at `from`, on this or another device, until the stream has passed the copy.
    pub(super) unsafe fn copy<T>(&self, stream: &Stream, place: Place<T>, from: *const T) -> Result<()> {
        let bytes = place.len * size_of::<T>();
        // SAFETY: the caller's contract for the source; the place lies in this arena.
        check("cuMemcpyAsync", unsafe {
            sys::cuMemcpyAsync(self.at(place) as u64, from as u64, bytes, stream.as_inner())
        })
    }

    /// Copies rows of `d` values from page-locked memory to rows `pitch` values apart; what is between stays as it is.
    ///
    /// # Safety
    /// `from` is page-locked and stays as it is until the stream has passed the copy.
    pub(super) unsafe fn upload_locked<T>(
        &self,
        stream: &Stream,
        place: Place<T>,
        from: &[T],
        d: usize,
        pitch: usize,
    ) -> Result<()> {
        let rows = from.len() / d;
        assert_len(place.len, rows * pitch)?;
        if d == pitch {
            // SAFETY: this function's contract; the place has room for the rows.
            return check("cuMemcpyHtoDAsync", unsafe {
                let to = self.at(place) as u64;
                sys::cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), size_of_val(from), stream.as_inner())
            });
        }
        let copy = sys::CUDA_MEMCPY2D {
            srcMemoryType: sys::CUmemorytype_enum::CU_MEMORYTYPE_HOST,
            srcHost: from.as_ptr().cast(),
            ..rows_copy(self.at(place) as u64, rows, d * size_of::<T>(), pitch * size_of::<T>())
        };
        // SAFETY: as above.
        check("cuMemcpy2DAsync", unsafe { sys::cuMemcpy2DAsync_v2(&copy, stream.as_inner()) })
    }

    /// Sets every byte of `place` to 0.
    pub(super) fn zero<T>(&self, stream: &Stream, place: Place<T>) -> Result<()> {
        let bytes = place.len * size_of::<T>();
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the place lies in this arena.
        check("cuMemsetD8Async", unsafe {
            sys::cuMemsetD8Async(self.at(place) as u64, 0, bytes, stream.as_inner())
        })
    }
}

/// A copy of rows of `bytes` bytes to device memory, `pitch` bytes apart; from where is to be added.
fn rows_copy(to: u64, rows: usize, bytes: usize, pitch: usize) -> sys::CUDA_MEMCPY2D {
    sys::CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: sys::CUmemorytype_enum::CU_MEMORYTYPE_HOST,
        srcHost: std::ptr::null(),
        srcDevice: 0,
        srcArray: std::ptr::null_mut(),
        srcPitch: bytes,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: sys::CUmemorytype_enum::CU_MEMORYTYPE_DEVICE,
        dstHost: std::ptr::null_mut(),
        dstDevice: to,
        dstArray: std::ptr::null_mut(),
        dstPitch: pitch,
        WidthInBytes: bytes,
        Height: rows,
    }
}

/// Bytes of a page-locked buffer that large copies go through: some tenths of a millisecond of the link's time.
const STAGE_BYTES: usize = 16 << 20;

/// Page-locked host memory.
pub(super) struct Pinned {
    buffer: LockedBuffer<u8>,
}

// SAFETY: it is an address in host memory and a size, which the driver has locked for all threads.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(super) fn new(bytes: usize) -> Result<Self> {
        LockedBuffer::new(&0, bytes.max(1))
            .map(|buffer| Pinned { buffer })
            .map_err(|code| failed(format!("locking {bytes} bytes of host memory"), code))
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
}

/// Whether a GPU can copy from `values` by itself.
pub(super) fn is_locked<T>(values: &[T]) -> bool {
    let bytes = values.as_ptr_range();
    let is_locked = |address: u64| {
        let mut kind = 0u32;
        let mut attribute = sys::CUpointer_attribute_enum::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
        let mut to = (&raw mut kind).cast();
        // Of one attribute the driver would say that memory it does not know is an error; of a list it leaves 0.
        // SAFETY: the driver writes one kind of memory, four bytes, or fails.
        let code = unsafe { sys::cuPointerGetAttributes(1, &mut attribute, &mut to, address) };
        code == sys::cudaError_enum::CUDA_SUCCESS && kind == sys::CUmemorytype_enum::CU_MEMORYTYPE_HOST as u32
    };
    // Both ends: what was locked as one has no end in between.
    !values.is_empty() && is_locked(bytes.start as u64) && is_locked(bytes.end as u64 - 1)
}

/// Two page-locked buffers that take turns: while one is under way, the other is filled or emptied. The driver's own
/// way from pageable memory is one thread's.
struct Stages<'a> {
    device: &'a Device,
    stream: &'a Stream,
    stages: Vec<(Pinned, Mark)>,
    turn: usize,
}

impl<'a> Stages<'a> {
    /// For copies of `total` bytes in units of `unit` bytes.
    fn new(device: &'a Device, stream: &'a Stream, total: usize, unit: usize) -> Result<Self> {
        let bytes = total.min(STAGE_BYTES.max(unit));
        let stage = || Ok((device.pinned(bytes)?, Mark::new()?));
        let count = if total > bytes { 2 } else { 1 };
        let stages = (0..count).map(|_| stage()).collect::<Result<_>>()?;
        Ok(Stages { device, stream, stages, turn: 0 })
    }

    /// The next buffer, when its last copy has passed.
    fn take(&mut self) -> Result<&mut Pinned> {
        let at = self.turn % self.stages.len();
        let (stage, copied) = &mut self.stages[at];
        if self.turn > 1 {
            copied.wait()?;
        }
        Ok(stage)
    }

    /// Its copy was asked for.
    fn pass(&mut self) -> Result<()> {
        let at = self.turn % self.stages.len();
        self.turn += 1;
        self.stages[at].1.set(self.stream)
    }

    /// The buffer of the last copy, when that has passed.
    fn last(&mut self) -> Result<&mut Pinned> {
        self.of_turn(self.turn - 1)
    }

    /// The buffer of the copy before the last one.
    fn before(&mut self) -> Result<&mut Pinned> {
        self.of_turn(self.turn - 2)
    }

    fn of_turn(&mut self, turn: usize) -> Result<&mut Pinned> {
        let at = turn % self.stages.len();
        let (stage, copied) = &mut self.stages[at];
        copied.wait()?;
        Ok(stage)
    }

    /// Waits for all copies and gives the buffers back; after an error they are freed instead.
    fn end(self) -> Result<()> {
        self.stream.synchronize().map_err(|code| failed("waiting for copies", code))?;
        for (stage, _) in self.stages {
            self.device.keep_pinned(stage);
        }
        Ok(())
    }
}

/// Copies rows of `d` bytes to rows of `pitch`, with zeros between, on several threads where that pays.
fn spread(from: &[u8], to: &mut [u8], d: usize, pitch: usize) {
    /// Smaller pieces cost more to hand out than to copy.
    const PIECE: usize = 512 << 10;
    let copy = |to: &mut [u8], from: &[u8]| {
        if d == pitch {
            return to.copy_from_slice(from);
        }
        for (to, from) in to.chunks_exact_mut(pitch).zip(from.chunks_exact(d)) {
            let (row, rest) = to.split_at_mut(d);
            row.copy_from_slice(from);
            rest.fill(0);
        }
    };
    if to.len() <= PIECE {
        return copy(to, from);
    }
    let rows = (PIECE / pitch).max(1);
    to.par_chunks_mut(rows * pitch).zip(from.par_chunks(rows * d)).for_each(|(to, from)| copy(to, from));
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
    fn rows_are_spread_with_zeros_between() {
        let values: Vec<u8> = (1..=12).collect();
        let mut rows = vec![99u8; 4 * 5];
        spread(&values, &mut rows, 3, 5);
        assert_eq!(rows, [1, 2, 3, 0, 0, 4, 5, 6, 0, 0, 7, 8, 9, 0, 0, 10, 11, 12, 0, 0]);
        let many: Vec<u8> = (0..1_700_000).map(|i| (i % 251) as u8).collect();
        let mut copy = vec![0u8; many.len()];
        spread(&many, &mut copy, 1, 1);
        assert_eq!(copy, many);
    }

    #[test]
    fn places_do_not_overlap() {
        let mut plan = Plan::default();
        let a = plan.array::<u32>(3);
        let b = plan.array::<f64>(1);
        assert_eq!((a.offset, b.offset, plan.bytes()), (0, 256, 264));
        let both = a.through(b);
        assert_eq!((both.offset, both.len), (0, 264));
    }
}
