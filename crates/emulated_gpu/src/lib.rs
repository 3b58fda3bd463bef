//! A CUDA driver whose GPUs are the SIMT emulation of `cuda_std`, for tests where there is no GPU.
//!
//! [`install`] has all of the process's driver calls come here. The library's own GPU code then runs as it would on two
//! small GPUs, of compute capability 8.0 or Hoppers, kernels included: what allocates, copies, launches, captures, waits and
//! frees is tested on any machine. What is not the same as on a GPU is time.
//!
//! # How it differs from a driver
//! - A stream's work is done as late as CUDA allows: when something waits for the stream, for an event on it, or for all of
//!   the device. A buffer that is used again too early, and a result that is read too early, are then wrong on every run,
//!   not on one in a thousand. [`Timing::Early`] does it at once.
//! - The order in which a launch's threads and blocks run is another from launch to launch.
//! - Memory is filled with bytes of 0xFF when it is given out, and when it is taken back.
//! - Copies and fills outside of memory that was given out, launches with a pointer outside of it, and whatever the
//!   emulation finds wrong with a kernel are said on standard error, and every later call fails as it does on a GPU that has
//!   lost its context.
//! - Calls that this project does not make answer `CUDA_ERROR_NOT_FOUND`.
mod calls;
mod memory;
mod streams;

use std::sync::{Mutex, MutexGuard, PoisonError};

use memory::Memory;
use streams::Streams;

/// When a stream's work is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timing {
    /// As late as CUDA allows.
    #[default]
    Late,
    /// When it is asked for.
    Early,
}

/// What the GPUs are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gpu {
    /// Compute capability 8.0.
    #[default]
    Ampere,
    /// Compute capability 9.0: products of warpgroups, clusters of blocks, and launches whose blocks run together.
    Hopper,
}

/// GPUs that the driver shows.
pub const DEVICES: i32 = 2;
/// Multiprocessors of each.
pub const MULTIPROCESSORS: u32 = 3;
/// Blocks that a multiprocessor runs at the same time, by the driver's word: enough for the largest cluster.
pub const BLOCKS_PER_MULTIPROCESSOR: u32 = 6;
/// Bytes of each one's memory.
pub const MEMORY_BYTES: u64 = 1 << 30;

/// Points of a panel of a problem that has more than one block's: the emulation does some ten thousand rows a second.
pub const PANEL_POINTS: u32 = 1 << 11;

/// Results of calls, as the driver numbers them.
mod code {
    pub(crate) const SUCCESS: u32 = 0;
    pub(crate) const INVALID_VALUE: u32 = 1;
    pub(crate) const OUT_OF_MEMORY: u32 = 2;
    pub(crate) const INVALID_DEVICE: u32 = 101;
    pub(crate) const INVALID_CONTEXT: u32 = 201;
    pub(crate) const NO_BINARY_FOR_GPU: u32 = 209;
    pub(crate) const INVALID_HANDLE: u32 = 400;
    pub(crate) const NOT_FOUND: u32 = 500;
    pub(crate) const ILLEGAL_ADDRESS: u32 = 700;
    pub(crate) const PEER_ACCESS_ALREADY_ENABLED: u32 = 704;
    pub(crate) const LAUNCH_FAILED: u32 = 719;
    pub(crate) const COOPERATIVE_LAUNCH_TOO_LARGE: u32 = 720;
    pub(crate) const CAPTURE_UNSUPPORTED: u32 = 900;
    pub(crate) const CAPTURE_UNMATCHED: u32 = 903;
}

/// What a call answers when it fails.
type Outcome<T = ()> = Result<T, u32>;

/// All of the driver.
struct Driver {
    gpu: Gpu,
    timing: Timing,
    memory: Memory,
    streams: Streams,
    /// Entries by module: the text that was loaded.
    modules: Vec<(usize, String)>,
    peers: Vec<(usize, usize)>,
    handles: usize,
    /// Why the context was lost.
    lost: Option<u32>,
}

static DRIVER: Mutex<Driver> = Mutex::new(Driver {
    gpu: Gpu::Ampere,
    timing: Timing::Late,
    memory: Memory::new(),
    streams: Streams::new(),
    modules: Vec::new(),
    peers: Vec::new(),
    handles: 0,
    lost: None,
});

fn driver() -> MutexGuard<'static, Driver> {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    /// A handle that was never given before.
    fn handle(&mut self) -> usize {
        self.handles += 1;
        self.handles << 4
    }
}

/// Has all driver calls of this process come here. Whether that was done: it is too late once anything was called.
pub fn install(gpu: Gpu, timing: Timing) -> bool {
    // SAFETY: the functions have the driver's types, and do what it documents but for what this crate's page says.
    let is_first = unsafe { libcuda::use_driver(calls::address) };
    if is_first {
        let mut driver = driver();
        (driver.gpu, driver.timing) = (gpu, timing);
        kernels_gpu::spec::shorten_panels(PANEL_POINTS);
    }
    is_first
}
