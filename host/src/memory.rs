//! Large allocations that may fail, as errors.
use crate::error::{Error, Result};

/// `len` values, all `value`.
pub(crate) fn filled<A: Clone>(value: A, len: usize, what: &'static str) -> Result<Vec<A>> {
    let mut values = Vec::new();
    if values.try_reserve_exact(len).is_err() {
        return Err(out_of_memory::<A>(len, what));
    }
    values.resize(len, value);
    Ok(values)
}

/// `len` zeros, in pages that are not touched before they are used, which threads can share among them.
#[cfg(feature = "cuda")]
pub(crate) fn zeroed<A: bytemuck::Zeroable>(len: usize, what: &'static str) -> Result<Vec<A>> {
    bytemuck::try_zeroed_vec(len).map_err(|()| out_of_memory::<A>(len, what))
}

fn out_of_memory<A>(len: usize, what: &'static str) -> Error {
    let requested = len.saturating_mul(size_of::<A>()) as u64;
    Error::OutOfMemory { what, requested, free: free_bytes().unwrap_or(0) }
}

/// Bytes that a process can still have, as far as the system tells.
fn free_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}
