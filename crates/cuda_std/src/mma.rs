//! Warp-level tensor-core products.
