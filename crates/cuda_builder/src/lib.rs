//! Kernels crate to PTX, by stock rustc.
