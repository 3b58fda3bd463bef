//! Device library for GPU kernels written in Rust and compiled by stock rustc.
//!
//! Names follow rust-cuda's `cuda_std`; what that crate lacks (barriers, asynchronous copies, tensor
//! core products) takes the PTX manual's names. Every function is `#[inline(always)]`: a kernel crate
//! is emitted as one PTX module and nothing is linked into it afterwards.
//!
//! The same functions exist twice, with the same signatures, and only module `sys` knows which is
//! meant:
//! - on `nvptx64` they are one PTX instruction each. Convergent ones (barriers, shuffles, votes) are
//!   LLVM intrinsics, because `asm!` is not convergent for LLVM and may be cloned into divergent arms;
//! - on the host, with feature `simt`, each GPU thread is a fiber and `simt::launch` runs a grid,
//!   honouring barriers, warp operations and atomics, and reporting shared-memory races.
//!
//! Without either, only the plain types remain ([`shared::Layout`], [`float::F16`], ...), which is what
//! host code shares with kernels.
#![cfg_attr(target_arch = "nvptx64", no_std)]
#![cfg_attr(
    target_arch = "nvptx64",
    feature(abi_ptx, stdarch_nvptx, asm_experimental_arch, link_llvm_intrinsics)
)]
#![cfg_attr(target_arch = "nvptx64", allow(internal_features))]
// A device function is unsafe as a whole: each states its contract once, under `# Safety`.
#![allow(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

/// Repeats a block with a constant in place of a loop variable.
///
/// Arrays must live in registers, which have no addresses: an index has to be a constant before LLVM looks,
/// and a `while` loop is unrolled only if LLVM thinks it worth it.
///
/// ```
/// let mut sum = 0;
/// cuda_std::unroll!(I in [0, 1, 2, 3] => { sum += I });
/// assert_eq!(sum, 6);
/// ```
#[macro_export]
macro_rules! unroll {
    ($i:ident in [$($value:literal),* $(,)?] => $body:block) => {
        { $( { const $i: usize = $value; $body } )* }
    };
}

pub mod float;
pub mod shared;

#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
pub mod async_copy;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
pub mod atomic;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
pub mod barrier;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
pub mod mma;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
pub mod ptr;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
pub mod thread;
#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
pub mod warp;
#[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
pub mod wgmma;

#[cfg(target_arch = "nvptx64")]
#[path = "sys/ptx.rs"]
pub(crate) mod sys;
#[cfg(all(not(target_arch = "nvptx64"), feature = "simt"))]
#[path = "sys/simt.rs"]
pub(crate) mod sys;

#[cfg(all(not(target_arch = "nvptx64"), feature = "simt"))]
pub mod simt {
    //! Running kernels on the host: one fiber for each GPU thread.
    pub use crate::sys::{Launch, LaunchError, Position, Schedule, launch};
}
