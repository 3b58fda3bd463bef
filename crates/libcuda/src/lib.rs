//! The CUDA driver's entry points, forwarded to the driver at first use.
//!
//! `cust` links against `libcuda`, so a program that uses it neither builds without a CUDA toolkit nor
//! starts without a driver. This crate *defines* the functions that `cust` needs; each opens the driver's
//! library when first called and passes the call on. One executable then serves machines with and without
//! a GPU:
//! - without a driver every call answers `CUDA_ERROR_NO_DEVICE` (100) and writes nothing, so `cust` reports
//!   `NoDevice`;
//! - a function that the installed driver lacks answers `CUDA_ERROR_NOT_FOUND` (500);
//! - a code that `cust`'s enum lacks becomes `CUDA_ERROR_UNKNOWN` (999).
//!
//! The linker only sees the definitions when a program mentions this crate: call [`link`], or anything
//! else here, once. `cust_raw`'s build script also wants the variable `CUDA_LIBRARY_PATH` to name a folder
//! that has a folder `lib64`, be it empty; `toolkit` in this crate is one.
//!
//! Two features are for tests. With `fault-injection`, module `fault` makes a chosen call fail and counts what the driver
//! has given out; with `given-driver`, `use_driver` has all calls go to other functions than the installed driver's.

mod code;
mod entry_points;
#[cfg(feature = "fault-injection")]
pub mod fault;
mod forward;
mod launch;

#[cfg(feature = "given-driver")]
pub use forward::{AddressOf, use_driver};
pub use launch::{
    Attribute as LaunchAttribute, Config as LaunchConfig, Manner, active_clusters, allow_large_clusters,
    launch,
};

/// Nothing fails but what the driver fails, and nothing is counted.
#[cfg(not(feature = "fault-injection"))]
mod fault {
    use core::ffi::{CStr, c_void};

    #[inline(always)]
    pub(crate) fn next() -> Option<u32> {
        None
    }
    #[inline(always)]
    pub(crate) fn releases(_: &CStr) -> bool {
        false
    }
    #[inline(always)]
    pub(crate) unsafe fn done(_: &CStr, _: &[*const c_void]) {}
}

use core::ffi::{CStr, c_int, c_void};

/// Does nothing; naming it is what makes the linker take this crate's definitions.
#[inline]
pub fn link() {}

/// Whether the driver's library is there. It may still find no device.
pub fn available() -> bool {
    forward::available()
}

/// The newest CUDA version that the driver serves, as (major, minor); `None` without a driver.
pub fn version() -> Option<(u32, u32)> {
    let mut version: c_int = 0;
    // SAFETY: the driver writes one integer, to a place that outlives the call.
    let code = unsafe { entry_points::cuDriverGetVersion(&mut version) };
    let version = u32::try_from(version).ok()?;
    (code == 0).then_some((version / 1000, version % 1000 / 10))
}

/// The address of an entry point that `cust_raw` does not declare, such as `cuLaunchKernelEx`; `None` when
/// there is no driver or it has none of that name.
pub fn symbol(name: &CStr) -> Option<*const c_void> {
    forward::address(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_has_every_entry_point() {
        if !available() {
            assert_eq!(version(), None);
            assert_eq!(symbol(c"cuInit"), None);
            return;
        }
        for name in entry_points::NAMES {
            let name = std::ffi::CString::new(*name).unwrap();
            assert!(symbol(&name).is_some(), "{name:?}");
        }
    }
}
