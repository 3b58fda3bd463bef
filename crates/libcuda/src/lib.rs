//! The CUDA driver's entry points, forwarded to the driver at first use.
pub fn available() -> bool {
    false
}
