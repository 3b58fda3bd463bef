//! Failures on demand, and an account of what is held, so that error paths can be tested.
//!
//! Counting covers every entry point but the two that put errors into words. It is global to the process:
//! a test that uses it holds its own lock, or is the only one in its executable.
use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

static CALLS: AtomicU64 = AtomicU64::new(0);
/// The count at which to fail; 0 means never.
static FAIL_AT: AtomicU64 = AtomicU64::new(0);
static CODE: AtomicU32 = AtomicU32::new(0);

/// Makes the `n`-th call from now answer `code` without reaching the driver; 1 is the next one. Later calls
/// go through again. A call that releases something does reach the driver, and then answers `code`: drivers report
/// earlier failures in this way, and what they released is gone.
///
/// # Panics
/// When `n` or `code` is 0.
pub fn fail_nth(n: u64, code: u32) {
    assert!(n > 0 && code > 0, "calls count from 1, and 0 is success");
    CODE.store(code, SeqCst);
    CALLS.store(0, SeqCst);
    FAIL_AT.store(n, SeqCst);
}

/// Forgets the failure asked for, and counts from 0 again.
pub fn clear() {
    FAIL_AT.store(0, SeqCst);
    CALLS.store(0, SeqCst);
}

/// Calls since the last [`fail_nth`] or [`clear`].
pub fn calls() -> u64 {
    CALLS.load(SeqCst)
}

/// Counts a call; what it is to answer if it is the one to fail.
pub(crate) fn next() -> Option<u32> {
    let call = CALLS.fetch_add(1, SeqCst) + 1;
    (call == FAIL_AT.load(SeqCst)).then(|| crate::code::known(CODE.load(SeqCst)))
}

/// What the driver has given to this process and not got back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes of device memory.
    pub device_bytes: u64,
    /// Bytes of page-locked host memory, allocated or registered.
    pub pinned_bytes: u64,
    /// Streams, events, graphs and executable graphs.
    pub handles: usize,
    /// Loaded modules.
    pub modules: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Device,
    Pinned,
    Stream,
    Event,
    Graph,
    Executable,
    Module,
}

/// Bytes by kind and address or handle.
static LEDGER: Mutex<BTreeMap<(Kind, usize), u64>> = Mutex::new(BTreeMap::new());

fn ledger() -> MutexGuard<'static, BTreeMap<(Kind, usize), u64>> {
    LEDGER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is held now. Primary contexts are not counted.
pub fn held() -> Held {
    let mut held = Held::default();
    for (&(kind, _), bytes) in ledger().iter() {
        match kind {
            Kind::Device => held.device_bytes += bytes,
            Kind::Pinned => held.pinned_bytes += bytes,
            Kind::Module => held.modules += 1,
            Kind::Stream | Kind::Event | Kind::Graph | Kind::Executable => held.handles += 1,
        }
    }
    held
}

/// What an entry point does to the ledger.
enum Effect {
    /// Gives what argument `out` then points to; `bytes` is the argument that says how many.
    Gives(Kind, usize, Option<usize>),
    /// Takes argument 0 itself, of the bytes in argument 1, into account.
    Registers,
    /// Takes back what argument 0 is.
    Releases(Kind),
    Other,
}

fn effect(name: &CStr) -> Effect {
    use Effect::*;
    match name.to_bytes() {
        b"cuMemAlloc_v2" | b"cuMemAllocAsync" | b"cuMemAllocFromPoolAsync" | b"cuMemAllocManaged" => {
            Gives(Kind::Device, 0, Some(1))
        }
        b"cuMemFree_v2" | b"cuMemFreeAsync" => Releases(Kind::Device),
        b"cuMemAllocHost_v2" | b"cuMemHostAlloc" => Gives(Kind::Pinned, 0, Some(1)),
        b"cuMemHostRegister_v2" => Registers,
        b"cuMemFreeHost" | b"cuMemHostUnregister" => Releases(Kind::Pinned),
        b"cuStreamCreate" | b"cuStreamCreateWithPriority" => Gives(Kind::Stream, 0, None),
        b"cuStreamDestroy_v2" => Releases(Kind::Stream),
        b"cuEventCreate" => Gives(Kind::Event, 0, None),
        b"cuEventDestroy_v2" => Releases(Kind::Event),
        b"cuGraphCreate" => Gives(Kind::Graph, 0, None),
        b"cuStreamEndCapture" => Gives(Kind::Graph, 1, None),
        b"cuGraphDestroy" => Releases(Kind::Graph),
        b"cuGraphInstantiate_v2" | b"cuGraphInstantiateWithFlags" => Gives(Kind::Executable, 0, None),
        b"cuGraphExecDestroy" => Releases(Kind::Executable),
        b"cuModuleLoad" | b"cuModuleLoadData" | b"cuModuleLoadDataEx" | b"cuModuleLoadFatBinary" => {
            Gives(Kind::Module, 0, None)
        }
        b"cuModuleUnload" => Releases(Kind::Module),
        _ => Other,
    }
}

/// Whether a call of `name` reaches the driver though it is to fail. The end of a capture is one: a thread that stays
/// in a capture can do nothing else.
pub(crate) fn releases(name: &CStr) -> bool {
    matches!(effect(name), Effect::Releases(_)) || name == c"cuStreamEndCapture"
}

/// Accounts for a call that succeeded.
///
/// # Safety
/// `arguments` are the addresses of the arguments of the entry point `name`, after its call.
pub(crate) unsafe fn done(name: &CStr, arguments: &[*const c_void]) {
    // SAFETY: each argument that an effect names has the size of a pointer, as all entry points above have them.
    let word = |argument: usize| unsafe { arguments[argument].cast::<usize>().read() };
    match effect(name) {
        Effect::Gives(kind, out, bytes) => {
            // SAFETY: the argument is a pointer to a handle or an address that the driver has just written.
            let given = unsafe { (word(out) as *const usize).read() };
            if given != 0 {
                ledger().insert((kind, given), bytes.map_or(0, word) as u64);
            }
        }
        Effect::Registers => {
            ledger().insert((Kind::Pinned, word(0)), word(1) as u64);
        }
        Effect::Releases(kind) => {
            ledger().remove(&(kind, word(0)));
        }
        Effect::Other => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_held_until_it_is_released() {
        let call = |name: &CStr, words: &[usize]| {
            let arguments: Vec<*const c_void> = words.iter().map(|word| (&raw const *word).cast()).collect();
            // SAFETY: the words are arguments as the entry point has them.
            unsafe { done(name, &arguments) };
        };
        // What the driver would have written.
        let (memory, stream, graph) = (0x1000usize, 0x2000usize, 0usize);
        let exposed = |place: &usize| (&raw const *place).expose_provenance();
        call(c"cuMemAlloc_v2", &[exposed(&memory), 4096]);
        call(c"cuStreamCreateWithPriority", &[exposed(&stream), 0, 0]);
        call(c"cuMemHostRegister_v2", &[0x3000, 100, 0]);
        // A capture that failed gives no graph.
        call(c"cuStreamEndCapture", &[stream, exposed(&graph)]);
        assert_eq!(held(), Held { device_bytes: 4096, pinned_bytes: 100, handles: 1, modules: 0 });
        call(c"cuMemFree_v2", &[memory]);
        call(c"cuStreamDestroy_v2", &[stream]);
        call(c"cuMemHostUnregister", &[0x3000]);
        assert_eq!(held(), Held::default());
        assert!(releases(c"cuMemFree_v2") && releases(c"cuStreamEndCapture") && !releases(c"cuMemAlloc_v2"));
    }
}
