//! What `cust_raw` does not declare of launches: those that may begin while the one before them ends (CUDA's programmatic
//! dependent launch), those whose blocks all run at once (a cooperative launch), and clusters of more blocks than every GPU of a kind
//! takes.
use core::ffi::{CStr, c_int, c_uint, c_void};
use cust_raw::{CUfunction, CUresult, CUstream};

use crate::{code, fault, forward};

/// The driver's `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Blocks.
    pub grid: [c_uint; 3],
    /// Threads of a block.
    pub block: [c_uint; 3],
    /// Bytes of a block's dynamic shared memory.
    pub shared_bytes: c_uint,
    /// Where it is launched.
    pub stream: CUstream,
    /// So many of them.
    pub attributes: *const Attribute,
    /// How many there are.
    pub attribute_count: c_uint,
}

/// The driver's `CUlaunchAttribute`, of an integer.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// Which one: see [`Manner`].
    pub id: c_uint,
    pad: c_uint,
    /// Its value.
    pub value: c_int,
    rest: [c_uint; 15],
}
const _: () = assert!(size_of::<Attribute>() == 72 && size_of::<Config>() == 56);

type LaunchKernelEx =
    unsafe extern "C" fn(*const Config, CUfunction, *mut *mut c_void, *mut *mut c_void) -> u32;

/// What a launch has that one by `cuLaunchKernel` has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Manner {
    /// Its blocks all run at the same time, so that they may wait for each other; it is refused where there is no room for so many.
    /// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`.
    Together = 2,
    /// Its blocks may become resident while the launch before it on the stream still runs, and do so once each of that one's blocks
    /// has allowed it. The function has to wait (`griddepcontrol.wait`) before it touches memory.
    /// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`.
    Overlapped = 6,
}

/// Launches `function` on `stream` in this manner, `blocks` blocks of `threads` threads. `cuLaunchKernelEx` of CUDA 11.8 and later.
///
/// # Safety
/// As the driver's documentation of `cuLaunchKernel` says.
pub unsafe fn launch(
    manner: Manner,
    function: CUfunction,
    blocks: u32,
    threads: u32,
    shared_bytes: u32,
    stream: CUstream,
    arguments: *mut *mut c_void,
) -> CUresult {
    static SLOT: forward::Slot = forward::Slot::new();
    const NAME: &CStr = c"cuLaunchKernelEx";
    if let Some(code) = fault::next() {
        return code::result(code);
    }
    let attribute = Attribute { id: manner as c_uint, pad: 0, value: 1, rest: [0; 15] };
    let config = Config {
        grid: [blocks, 1, 1],
        block: [threads, 1, 1],
        shared_bytes,
        stream,
        attributes: &attribute,
        attribute_count: 1,
    };
    code::result(match SLOT.get(NAME) {
        // SAFETY: the address is that of the driver's function of this name; what it reads outlives the call, and the
        // caller vouches for the rest.
        Ok(address) => unsafe {
            let launch: LaunchKernelEx = core::mem::transmute(address);
            code::known(launch(&config, function, arguments, core::ptr::null_mut()))
        },
        Err(code) => code,
    })
}

/// How many clusters of `cluster` blocks of `function`, of that size by its own word, run at a time. `cuOccupancyMaxActiveClusters`
/// of CUDA 11.8 and later.
///
/// # Safety
/// As the driver's documentation of `cuOccupancyMaxActiveClusters` says.
pub unsafe fn active_clusters(
    clusters: &mut c_int,
    function: CUfunction,
    cluster: u32,
    threads: u32,
    shared_bytes: u32,
) -> CUresult {
    static SLOT: forward::Slot = forward::Slot::new();
    const NAME: &CStr = c"cuOccupancyMaxActiveClusters";
    type ActiveClusters = unsafe extern "C" fn(*mut c_int, CUfunction, *const Config) -> u32;
    if let Some(code) = fault::next() {
        return code::result(code);
    }
    let config = Config {
        grid: [cluster, 1, 1],
        block: [threads, 1, 1],
        shared_bytes,
        stream: core::ptr::null_mut(),
        attributes: core::ptr::null(),
        attribute_count: 0,
    };
    code::result(match SLOT.get(NAME) {
        // SAFETY: the address is that of the driver's function of this name; what it reads outlives the call, and the
        // caller vouches for the function.
        Ok(address) => unsafe {
            let ask: ActiveClusters = core::mem::transmute(address);
            code::known(ask(clusters, function, &config))
        },
        Err(code) => code,
    })
}

/// Lets `function` be launched in clusters of more than 8 blocks, which not every GPU with clusters takes. CUDA 11.8 and later.
///
/// # Safety
/// As the driver's documentation of `cuFuncSetAttribute` says.
pub unsafe fn allow_large_clusters(function: CUfunction) -> CUresult {
    static SLOT: forward::Slot = forward::Slot::new();
    const NAME: &CStr = c"cuFuncSetAttribute";
    /// `CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED`.
    const ALLOWED: c_uint = 14;
    if let Some(code) = fault::next() {
        return code::result(code);
    }
    code::result(match SLOT.get(NAME) {
        // SAFETY: the address is that of the driver's function of this name; the caller vouches for the function.
        Ok(address) => unsafe {
            let set: unsafe extern "C" fn(CUfunction, c_uint, c_int) -> u32 = core::mem::transmute(address);
            code::known(set(function, ALLOWED, 1))
        },
        Err(code) => code,
    })
}
