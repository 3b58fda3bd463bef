//! The GPU kernels of flash-kmeans.
