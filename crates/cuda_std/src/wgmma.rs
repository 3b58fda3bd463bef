//! Warpgroup-level tensor-core products.
