//! Failures on demand, so that error paths can be tested on any machine.
//!
//! Counting covers every entry point but the two that put errors into words. It is global to the process:
//! a test that uses it holds its own lock, or is the only one in its executable.
#[cfg(feature = "fault-injection")]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

#[cfg(feature = "fault-injection")]
static CALLS: AtomicU64 = AtomicU64::new(0);
/// The count at which to fail; 0 means never.
#[cfg(feature = "fault-injection")]
static FAIL_AT: AtomicU64 = AtomicU64::new(0);
#[cfg(feature = "fault-injection")]
static CODE: AtomicU32 = AtomicU32::new(0);

/// Makes the `n`-th call from now answer `code` without reaching the driver; 1 is the next one. Later calls
/// go through again.
///
/// # Panics
/// When `n` or `code` is 0.
#[cfg(feature = "fault-injection")]
pub fn fail_nth(n: u64, code: u32) {
    assert!(n > 0 && code > 0, "calls count from 1, and 0 is success");
    CODE.store(code, SeqCst);
    CALLS.store(0, SeqCst);
    FAIL_AT.store(n, SeqCst);
}

/// Forgets the failure asked for, and counts from 0 again.
#[cfg(feature = "fault-injection")]
pub fn clear() {
    FAIL_AT.store(0, SeqCst);
    CALLS.store(0, SeqCst);
}

/// Calls since the last [`fail_nth`] or [`clear`].
#[cfg(feature = "fault-injection")]
pub fn calls() -> u64 {
    CALLS.load(SeqCst)
}

/// Counts a call; what it is to answer if it is the one to fail.
#[cfg(feature = "fault-injection")]
pub(crate) fn next() -> Option<u32> {
    let call = CALLS.fetch_add(1, SeqCst) + 1;
    (call == FAIL_AT.load(SeqCst)).then(|| crate::code::known(CODE.load(SeqCst)))
}

#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub(crate) fn next() -> Option<u32> {
    None
}
