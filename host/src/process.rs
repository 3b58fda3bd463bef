//! What a process does not have that was forked from one that used the library: threads, and GPUs.
use crate::error::{Error, Result};
use crate::params::Backend;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The process that used something first.
struct Owner(AtomicU32);

/// Of rayon's global pool, as far as this library uses it.
static THREADS: Owner = Owner(AtomicU32::new(0));
/// Of the CUDA driver.
#[cfg(feature = "cuda")]
static GPUS: Owner = Owner(AtomicU32::new(0));

impl Owner {
    /// Whether this process is the first, or was before.
    fn is_this(&self) -> bool {
        let this = std::process::id();
        match self.0.compare_exchange(0, this, Relaxed, Relaxed) {
            Ok(_) => true,
            Err(owner) => owner == this,
        }
    }
}

/// Refuses to wait for threads that a fork has not taken along; within a pool of the caller's they are not needed.
pub(crate) fn check_threads() -> Result<()> {
    if rayon::current_thread_index().is_some() || THREADS.is_this() {
        return Ok(());
    }
    let reason = "this process was forked from one that had used the library, and does not have its threads: fork before \
                  the first use, start a program in the child, or call from a rayon::ThreadPool of the child's";
    Err(Error::BackendUnavailable { backend: Backend::Cpu, reason: reason.into() })
}

/// Refuses GPUs that were opened before a fork.
#[cfg(feature = "cuda")]
pub(crate) fn check_gpus(backend: Backend) -> Result<()> {
    if GPUS.is_this() {
        return Ok(());
    }
    let reason = "this process was forked from one that had used the CUDA driver, which does not survive that: fork before \
                  the first use, or start a program in the child";
    Err(Error::BackendUnavailable { backend, reason: reason.into() })
}
