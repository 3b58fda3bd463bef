//! The host twin of `ptx.rs`.
