//! The driver's entry points, as far as this project calls them.
use core::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void};
use std::cell::Cell;
use std::sync::Arc;

use cust_raw::{CUDA_MEMCPY2D, CUmemorytype_enum};
use kernels_gpu::kernels::EMULATED;
use libcuda::Manner;

use crate::memory::Kind;
use crate::streams::{From, OneLaunch, Rows, Work};
use crate::{
    BLOCKS_PER_MULTIPROCESSOR, DEVICES, Driver, Gpu, MEMORY_BYTES, MULTIPROCESSORS, Outcome, code, driver,
};

thread_local! {
    /// The device whose context is current on this thread.
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A device's context as a handle.
fn context(device: usize) -> usize {
    (device + 1) << 8
}

fn device_of(context: usize) -> Outcome<usize> {
    (0..DEVICES as usize).find(|device| self::context(*device) == context).ok_or(code::INVALID_CONTEXT)
}

fn device(ordinal: c_int) -> Outcome<usize> {
    (0..DEVICES).contains(&ordinal).then_some(ordinal as usize).ok_or(code::INVALID_DEVICE)
}

/// Answers a call that needs no context.
fn answer(call: impl FnOnce(&mut Driver) -> Outcome) -> u32 {
    let mut driver = driver();
    let outcome = call(&mut driver);
    outcome.err().unwrap_or(code::SUCCESS)
}

/// Answers a call that needs one, with the device that is current.
fn in_context(call: impl FnOnce(&mut Driver, usize) -> Outcome) -> u32 {
    answer(|driver| {
        if let Some(code) = driver.lost {
            return Err(code);
        }
        let device = CURRENT.get().ok_or(code::INVALID_CONTEXT)?;
        call(driver, device)
    })
}

/// One row is one entry point, of the driver's types.
macro_rules! calls {
    ($($name:ident($($argument:ident: $Type:ty),* $(,)?) $body:block)*) => {
        $(
            #[allow(non_snake_case, clippy::too_many_arguments)]
            unsafe extern "C" fn $name($($argument: $Type),*) -> u32 {
                $body
            }
        )*

        /// The address of an entry point.
        pub(crate) fn address(name: &CStr) -> Option<*const c_void> {
            match name.to_str().ok()? {
                $(stringify!($name) => Some($name as *const c_void),)*
                _ => None,
            }
        }
    };
}

/// Writes what a call gives.
///
/// # Safety
/// `place` is null or valid for a write.
unsafe fn give<T>(place: *mut T, value: T) -> Outcome {
    if place.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: this function's contract.
    unsafe { place.write(value) };
    Ok(())
}

/// What a copy reads: page-locked and device memory when it is done, the host's own now.
///
/// # Safety
/// `bytes` bytes can be read at `address`.
unsafe fn source(driver: &Driver, address: usize, bytes: usize) -> From {
    if driver.memory.kind(address).is_some() {
        return From::Address(address);
    }
    // SAFETY: this function's contract.
    From::Bytes(
        unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(address), bytes) }.into(),
    )
}

fn row(to: usize, bytes: usize) -> Rows {
    Rows { to, to_pitch: bytes, from_pitch: bytes, bytes, rows: 1 }
}

/// Asks for a launch, if it is one that its function takes.
///
/// # Safety
/// `arguments` are those of the function.
#[allow(clippy::too_many_arguments)]
unsafe fn launch(
    driver: &mut Driver,
    function: usize,
    [grid, grid_y, grid_z]: [c_uint; 3],
    [block, block_y, block_z]: [c_uint; 3],
    shared_bytes: c_uint,
    stream: usize,
    arguments: *mut *mut c_void,
    together: bool,
) -> Outcome {
    let kernel = EMULATED.get(function.wrapping_sub(1)).ok_or(code::INVALID_HANDLE)?;
    let is_flat = [grid_y, grid_z, block_y, block_z] == [1; 4];
    let spec = kernel.spec;
    if !is_flat || grid == 0 || block != spec.threads || shared_bytes != spec.shared_bytes {
        return Err(code::INVALID_VALUE);
    }
    if together && grid > MULTIPROCESSORS * BLOCKS_PER_MULTIPROCESSOR {
        return Err(code::COOPERATIVE_LAUNCH_TOO_LARGE);
    }
    // SAFETY: this function's contract.
    let launch = unsafe { kernel.launch(arguments) };
    let (name, cluster) = (spec.name, spec.cluster);
    let one = OneLaunch { name, grid, block, shared_bytes, cluster, together, launch };
    driver.ask(stream, Work::Launch(Arc::new(one)))
}

/// Names of the entries in a module's text.
fn has_entry(text: &str, name: &str) -> bool {
    let mark = format!(".entry {name}(");
    text.contains(&mark)
}

// SAFETY, for all rows: the caller passes what the driver's documentation asks for, as `libcuda::use_driver`'s callers
// vouch; each block relies on nothing else.
#[allow(clippy::undocumented_unsafe_blocks)]
mod rows {
    use super::*;

    calls! {
        // Driver and devices.
        cuInit(_flags: c_uint) { code::SUCCESS }
        cuDriverGetVersion(version: *mut c_int) { answer(|_| unsafe { give(version, 12_040) }) }
        cuDeviceGetCount(count: *mut c_int) { answer(|_| unsafe { give(count, DEVICES) }) }
        cuDeviceGet(out: *mut c_int, ordinal: c_int) {
            answer(|_| unsafe { give(out, device(ordinal)? as c_int) })
        }
        cuDeviceGetAttribute(out: *mut c_int, attribute: c_uint, ordinal: c_int) {
            answer(|driver| {
                device(ordinal)?;
                let value = match attribute {
                    16 => MULTIPROCESSORS as c_int,
                    38 => 4 << 20,   // bytes of L2 cache
                    // Compute capability.
                    75 => if driver.gpu == Gpu::Hopper { 9 } else { 8 },
                    76 => 0,
                    97 => 227 << 10, // bytes of shared memory that a block may ask for
                    _ => return Err(code::INVALID_VALUE),
                };
                unsafe { give(out, value) }
            })
        }
        cuDeviceGetName(out: *mut c_char, len: c_int, ordinal: c_int) {
            answer(|_| {
                let name = format!("Emulated GPU {}\0", device(ordinal)?);
                if (len as usize) < name.len() {
                    return Err(code::INVALID_VALUE);
                }
                unsafe { name.as_ptr().copy_to(out.cast(), name.len()) };
                Ok(())
            })
        }
        cuDeviceTotalMem_v2(out: *mut usize, ordinal: c_int) {
            answer(|_| { device(ordinal)?; unsafe { give(out, MEMORY_BYTES as usize) } })
        }

        // Contexts.
        cuDevicePrimaryCtxRetain(out: *mut usize, ordinal: c_int) {
            answer(|_| unsafe { give(out, context(device(ordinal)?)) })
        }
        cuDevicePrimaryCtxRelease_v2(ordinal: c_int) { answer(|_| device(ordinal).map(drop)) }
        cuCtxSetCurrent(context: usize) {
            answer(|_| {
                CURRENT.set(if context == 0 { None } else { Some(device_of(context)?) });
                Ok(())
            })
        }
        cuCtxGetCurrent(out: *mut usize) {
            answer(|_| unsafe { give(out, CURRENT.get().map_or(0, context)) })
        }
        cuCtxGetDevice(out: *mut c_int) {
            in_context(|_, device| unsafe { give(out, device as c_int) })
        }
        cuCtxEnablePeerAccess(context: usize, _flags: c_uint) {
            in_context(|driver, device| {
                let pair = (device, device_of(context)?);
                if driver.peers.contains(&pair) {
                    return Err(code::PEER_ACCESS_ALREADY_ENABLED);
                }
                driver.peers.push(pair);
                Ok(())
            })
        }
        cuCtxSynchronize() { in_context(|driver, _| driver.finish_all()) }

        // Memory.
        cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
            in_context(|driver, device| {
                unsafe { give(free, (MEMORY_BYTES - driver.memory.used(device)) as usize)? };
                unsafe { give(total, MEMORY_BYTES as usize) }
            })
        }
        cuMemAlloc_v2(out: *mut usize, bytes: usize) {
            in_context(|driver, device| unsafe { give(out, driver.memory.allocate(bytes, Kind::Device(device))?) })
        }
        cuMemFree_v2(address: usize) {
            in_context(|driver, _| {
                driver.finish_all()?;
                driver.memory.free(address, |kind| kind != Kind::Pinned)
            })
        }
        cuMemAllocHost_v2(out: *mut usize, bytes: usize) {
            in_context(|driver, _| unsafe { give(out, driver.memory.allocate(bytes, Kind::Pinned)?) })
        }
        cuMemFreeHost(address: usize) {
            in_context(|driver, _| {
                driver.finish_all()?;
                driver.memory.free(address, |kind| kind == Kind::Pinned)
            })
        }
        cuPointerGetAttributes(count: c_uint, attributes: *const c_uint, data: *const *mut u32, address: usize) {
            /// `CU_POINTER_ATTRIBUTE_MEMORY_TYPE`.
            const MEMORY_TYPE: c_uint = 2;
            in_context(|driver, _| {
                let kind = match driver.memory.kind(address) {
                    Some(Kind::Device(_)) => CUmemorytype_enum::CU_MEMORYTYPE_DEVICE as u32,
                    Some(Kind::Pinned) => CUmemorytype_enum::CU_MEMORYTYPE_HOST as u32,
                    None => 0,
                };
                // SAFETY: the caller's contract: so many attributes, and a place for each.
                if count != 1 || unsafe { *attributes } != MEMORY_TYPE {
                    return Err(code::INVALID_VALUE);
                }
                unsafe { give(*data, kind) }
            })
        }

        // Copies and fills.
        cuMemcpyHtoD_v2(to: usize, from: usize, bytes: usize) {
            in_context(|driver, _| {
                driver.finish_all()?;
                let stream = driver.create_stream();
                driver.ask(stream, Work::Copy(row(to, bytes), From::Address(from)))?;
                driver.destroy_stream(stream)
            })
        }
        cuMemcpyDtoH_v2(to: usize, from: usize, bytes: usize) {
            unsafe { cuMemcpyHtoD_v2(to, from, bytes) }
        }
        cuMemcpyHtoDAsync_v2(to: usize, from: usize, bytes: usize, stream: usize) {
            in_context(|driver, _| {
                let from = unsafe { source(driver, from, bytes) };
                driver.ask(stream, Work::Copy(row(to, bytes), from))
            })
        }
        cuMemcpyDtoHAsync_v2(to: usize, from: usize, bytes: usize, stream: usize) {
            in_context(|driver, _| {
                driver.ask(stream, Work::Copy(row(to, bytes), From::Address(from)))?;
                // To the host's own memory a copy is done when the call returns.
                if driver.memory.kind(to).is_none() { driver.synchronize(stream) } else { Ok(()) }
            })
        }
        cuMemcpyAsync(to: usize, from: usize, bytes: usize, stream: usize) {
            in_context(|driver, _| driver.ask(stream, Work::Copy(row(to, bytes), From::Address(from))))
        }
        cuMemcpy2DAsync_v2(copy: *const CUDA_MEMCPY2D, stream: usize) {
            in_context(|driver, _| {
                let copy = unsafe { &*copy };
                let is_plain = copy.srcXInBytes == 0 && copy.srcY == 0 && copy.dstXInBytes == 0 && copy.dstY == 0;
                let is_wide = copy.srcPitch >= copy.WidthInBytes && copy.dstPitch >= copy.WidthInBytes;
                if !is_plain || !is_wide || copy.dstMemoryType != CUmemorytype_enum::CU_MEMORYTYPE_DEVICE {
                    return Err(code::INVALID_VALUE);
                }
                let from = match copy.srcMemoryType {
                    CUmemorytype_enum::CU_MEMORYTYPE_DEVICE => From::Address(copy.srcDevice as usize),
                    CUmemorytype_enum::CU_MEMORYTYPE_HOST => {
                        let bytes = copy.Height.saturating_sub(1) * copy.srcPitch + copy.WidthInBytes;
                        unsafe { source(driver, copy.srcHost as usize, bytes) }
                    }
                    _ => return Err(code::INVALID_VALUE),
                };
                let rows = Rows {
                    to: copy.dstDevice as usize,
                    to_pitch: copy.dstPitch,
                    from_pitch: copy.srcPitch,
                    bytes: copy.WidthInBytes,
                    rows: copy.Height,
                };
                driver.ask(stream, Work::Copy(rows, from))
            })
        }
        cuMemsetD8Async(to: usize, byte: c_uchar, count: usize, stream: usize) {
            in_context(|driver, _| driver.ask(stream, Work::Fill { to, word: byte.into(), size: 1, count }))
        }
        cuMemsetD32Async(to: usize, word: c_uint, count: usize, stream: usize) {
            in_context(|driver, _| driver.ask(stream, Work::Fill { to, word, size: 4, count }))
        }

        // Streams, events and graphs.
        cuStreamCreateWithPriority(out: *mut usize, _flags: c_uint, _priority: c_int) {
            in_context(|driver, _| unsafe { give(out, driver.create_stream()) })
        }
        cuStreamDestroy_v2(stream: usize) { in_context(|driver, _| driver.destroy_stream(stream)) }
        cuStreamSynchronize(stream: usize) { in_context(|driver, _| driver.synchronize(stream)) }
        cuStreamWaitEvent(stream: usize, event: usize, _flags: c_uint) {
            in_context(|driver, _| driver.wait(stream, event))
        }
        cuEventCreate(out: *mut usize, _flags: c_uint) {
            in_context(|driver, _| unsafe { give(out, driver.create_event()) })
        }
        cuEventDestroy_v2(event: usize) { in_context(|driver, _| driver.destroy_event(event)) }
        cuEventRecord(event: usize, stream: usize) { in_context(|driver, _| driver.record(event, stream)) }
        cuEventSynchronize(event: usize) { in_context(|driver, _| driver.pass(event)) }
        cuEventQuery(event: usize) { in_context(|driver, _| driver.pass(event)) }
        cuEventElapsedTime(out: *mut f32, start: usize, end: usize) {
            in_context(|driver, _| unsafe { give(out, driver.milliseconds(start, end)?) })
        }
        cuStreamBeginCapture_v2(stream: usize, _mode: c_uint) {
            in_context(|driver, _| driver.begin_capture(stream))
        }
        cuStreamEndCapture(stream: usize, out: *mut usize) {
            in_context(|driver, _| unsafe { give(out, driver.end_capture(stream)?) })
        }
        cuGraphInstantiateWithFlags(out: *mut usize, graph: usize, _flags: c_ulonglong) {
            in_context(|driver, _| unsafe { give(out, driver.copy_graph(graph)?) })
        }
        cuGraphDestroy(graph: usize) { in_context(|driver, _| driver.destroy_graph(graph)) }
        cuGraphExecDestroy(graph: usize) { in_context(|driver, _| driver.destroy_graph(graph)) }
        cuGraphLaunch(graph: usize, stream: usize) {
            in_context(|driver, _| driver.launch_graph(graph, stream))
        }

        // Modules and launches.
        cuModuleLoadDataEx(
            out: *mut usize, image: *const c_char, _count: c_uint, _options: *mut c_uint, _values: *mut *mut c_void,
        ) {
            in_context(|driver, _| {
                let text = unsafe { CStr::from_ptr(image) }.to_string_lossy().into_owned();
                // Machine code, of which it emulates none.
                if text.starts_with("\x7fELF") {
                    return Err(code::NO_BINARY_FOR_GPU);
                }
                let handle = driver.handle();
                driver.modules.push((handle, text));
                unsafe { give(out, handle) }
            })
        }
        cuModuleUnload(module: usize) {
            in_context(|driver, _| {
                driver.finish_all()?;
                let before = driver.modules.len();
                driver.modules.retain(|(handle, _)| *handle != module);
                if driver.modules.len() < before { Ok(()) } else { Err(code::INVALID_HANDLE) }
            })
        }
        // A function is the place of its entry among all, from 1 on.
        cuModuleGetFunction(out: *mut usize, module: usize, name: *const c_char) {
            in_context(|driver, _| {
                let name = unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| code::NOT_FOUND)?;
                let loaded = driver.modules.iter().find(|(handle, _)| *handle == module);
                let (_, text) = loaded.ok_or(code::INVALID_HANDLE)?;
                let place = EMULATED.iter().position(|kernel| kernel.spec.name == name);
                let place = place.filter(|_| has_entry(text, name)).ok_or(code::NOT_FOUND)?;
                unsafe { give(out, place + 1) }
            })
        }
        cuFuncSetAttribute(function: usize, _attribute: c_uint, _value: c_int) {
            in_context(|_, _| EMULATED.get(function.wrapping_sub(1)).map(drop).ok_or(code::INVALID_HANDLE))
        }
        cuLaunchKernel(
            function: usize, grid: c_uint, grid_y: c_uint, grid_z: c_uint, block: c_uint, block_y: c_uint,
            block_z: c_uint, shared_bytes: c_uint, stream: usize, arguments: *mut *mut c_void, _extra: *mut *mut c_void,
        ) {
            in_context(|driver, _| {
                let (grid, block) = ([grid, grid_y, grid_z], [block, block_y, block_z]);
                unsafe { launch(driver, function, grid, block, shared_bytes, stream, arguments, false) }
            })
        }
        cuLaunchKernelEx(
            config: *const libcuda::LaunchConfig, function: usize, arguments: *mut *mut c_void, _extra: *mut *mut c_void,
        ) {
            in_context(|driver, _| {
                let config = unsafe { &*config };
                let attributes = unsafe { std::slice::from_raw_parts(config.attributes, config.attribute_count as usize) };
                // One that may begin early may as well not.
                let together = attributes.iter().any(|one| one.id == Manner::Together as c_uint && one.value != 0);
                let (grid, block, stream) = (config.grid, config.block, config.stream as usize);
                unsafe { launch(driver, function, grid, block, config.shared_bytes, stream, arguments, together) }
            })
        }
        cuOccupancyMaxActiveBlocksPerMultiprocessor(
            out: *mut c_int, function: usize, _block: c_int, _shared_bytes: usize,
        ) {
            in_context(|_, _| {
                EMULATED.get(function.wrapping_sub(1)).ok_or(code::INVALID_HANDLE)?;
                unsafe { give(out, BLOCKS_PER_MULTIPROCESSOR as c_int) }
            })
        }
        cuOccupancyMaxActiveClusters(out: *mut c_int, function: usize, _config: *const libcuda::LaunchConfig) {
            in_context(|_, _| {
                let kernel = EMULATED.get(function.wrapping_sub(1)).ok_or(code::INVALID_HANDLE)?;
                let clusters = MULTIPROCESSORS * BLOCKS_PER_MULTIPROCESSOR / kernel.spec.cluster;
                unsafe { give(out, clusters as c_int) }
            })
        }
    }
}

pub(crate) use rows::address;
