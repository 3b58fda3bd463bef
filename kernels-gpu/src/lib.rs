//! The GPU kernels of flash-kmeans, in Rust.
//!
//! One source compiles three ways:
//! - to PTX, by stock rustc for `nvptx64-nvidia-cuda`; the result is checked in and shipped
//!   ([`PTX_SM_80`], [`PTX_SM_90A`]), so users never build kernels, and beside it what `ptxas` makes of it
//!   ([`CUBIN_SM_80`], [`CUBIN_SM_90A`]), so a driver that takes that compiles nothing either;
//! - on the host as plain types: [`spec`] holds every tile size, shared-memory layout, parameter struct
//!   and grid rule, and [`kernels`] one argument struct for each entry point, so that a launch is
//!   checked by the compiler;
//! - on the host with feature `simt`, as functions that run under `cuda_std`'s SIMT emulation.
#![cfg_attr(target_arch = "nvptx64", no_std, feature(abi_ptx, asm_experimental_arch))]
// A kernel is unsafe as a whole: its contract is stated once, at its entry.
#![allow(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]
// Pointers are arguments of their own, so that they keep their address space.
#![allow(clippy::too_many_arguments)]

pub mod kernels;
pub mod spec;

/// Every kernel that needs compute capability 8.0 only; the driver compiles it for any later GPU.
#[cfg(not(target_arch = "nvptx64"))]
pub const PTX_SM_80: &str = include_str!("../ptx/sm_80.ptx");

/// Every kernel, for compute capability 9.0 with its own instructions (Hopper).
#[cfg(not(target_arch = "nvptx64"))]
pub const PTX_SM_90A: &str = include_str!("../ptx/sm_90a.ptx");

/// [`PTX_SM_80`], assembled: for GPUs of compute capability 8.x.
#[cfg(not(target_arch = "nvptx64"))]
pub const CUBIN_SM_80: &[u8] = include_bytes!("../ptx/sm_80.cubin");

/// [`PTX_SM_90A`], assembled: for GPUs of compute capability 9.0.
#[cfg(not(target_arch = "nvptx64"))]
pub const CUBIN_SM_90A: &[u8] = include_bytes!("../ptx/sm_90a.cubin");

#[cfg(target_arch = "nvptx64")]
core::arch::global_asm!(".extern .shared .align 1024 .b8 dynamic_shared[];");

/// The part of a shipped module that holds only the entries `names`, so that the driver compiles no others.
/// `None` when one of them is not in it.
#[cfg(not(target_arch = "nvptx64"))]
pub fn ptx_of(module: &str, names: &[&str]) -> Option<String> {
    const MARK: &str = "\n// entry ";
    let mut parts = module.split(MARK);
    let mut ptx = parts.next()?.to_string();
    let mut found = 0;
    for part in parts {
        if part.lines().next().is_some_and(|name| names.contains(&name)) {
            ptx.push_str(MARK);
            ptx.push_str(part);
            found += 1;
        }
    }
    (found == names.len()).then_some(ptx)
}

#[cfg(test)]
mod tests {
    use super::ptx_of;

    #[test]
    fn a_module_is_cut_by_entry() {
        let module = "head\n// entry a\nA\n// entry ab\nAB\n";
        assert_eq!(ptx_of(module, &["ab"]).as_deref(), Some("head\n// entry ab\nAB\n"));
        assert_eq!(ptx_of(module, &["a", "ab"]).as_deref(), Some(module));
        assert_eq!(ptx_of(module, &["b"]), None);
    }
}
