//! The driver's result codes, and the two entry points that put them into words.
use core::ffi::{CStr, c_char};
use core::mem::transmute;

use crate::forward::Slot;

pub(crate) const INVALID_VALUE: u32 = 1;
pub(crate) const NO_DEVICE: u32 = 100;
pub(crate) const NOT_FOUND: u32 = 500;
const UNKNOWN: u32 = 999;

// The codes that `cust_raw`'s enum has, ascending.
const NAMES: &[(u32, &CStr)] = &[
    (0, c"CUDA_SUCCESS"),
    (1, c"CUDA_ERROR_INVALID_VALUE"),
    (2, c"CUDA_ERROR_OUT_OF_MEMORY"),
    (3, c"CUDA_ERROR_NOT_INITIALIZED"),
    (4, c"CUDA_ERROR_DEINITIALIZED"),
    (5, c"CUDA_ERROR_PROFILER_DISABLED"),
    (6, c"CUDA_ERROR_PROFILER_NOT_INITIALIZED"),
    (7, c"CUDA_ERROR_PROFILER_ALREADY_STARTED"),
    (8, c"CUDA_ERROR_PROFILER_ALREADY_STOPPED"),
    (34, c"CUDA_ERROR_STUB_LIBRARY"),
    (100, c"CUDA_ERROR_NO_DEVICE"),
    (101, c"CUDA_ERROR_INVALID_DEVICE"),
    (102, c"CUDA_ERROR_DEVICE_NOT_LICENSED"),
    (200, c"CUDA_ERROR_INVALID_IMAGE"),
    (201, c"CUDA_ERROR_INVALID_CONTEXT"),
    (202, c"CUDA_ERROR_CONTEXT_ALREADY_CURRENT"),
    (205, c"CUDA_ERROR_MAP_FAILED"),
    (206, c"CUDA_ERROR_UNMAP_FAILED"),
    (207, c"CUDA_ERROR_ARRAY_IS_MAPPED"),
    (208, c"CUDA_ERROR_ALREADY_MAPPED"),
    (209, c"CUDA_ERROR_NO_BINARY_FOR_GPU"),
    (210, c"CUDA_ERROR_ALREADY_ACQUIRED"),
    (211, c"CUDA_ERROR_NOT_MAPPED"),
    (212, c"CUDA_ERROR_NOT_MAPPED_AS_ARRAY"),
    (213, c"CUDA_ERROR_NOT_MAPPED_AS_POINTER"),
    (214, c"CUDA_ERROR_ECC_UNCORRECTABLE"),
    (215, c"CUDA_ERROR_UNSUPPORTED_LIMIT"),
    (216, c"CUDA_ERROR_CONTEXT_ALREADY_IN_USE"),
    (217, c"CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"),
    (218, c"CUDA_ERROR_INVALID_PTX"),
    (219, c"CUDA_ERROR_INVALID_GRAPHICS_CONTEXT"),
    (220, c"CUDA_ERROR_NVLINK_UNCORRECTABLE"),
    (221, c"CUDA_ERROR_JIT_COMPILER_NOT_FOUND"),
    (222, c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
    (223, c"CUDA_ERROR_JIT_COMPILATION_DISABLED"),
    (224, c"CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY"),
    (300, c"CUDA_ERROR_INVALID_SOURCE"),
    (301, c"CUDA_ERROR_FILE_NOT_FOUND"),
    (302, c"CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND"),
    (303, c"CUDA_ERROR_SHARED_OBJECT_INIT_FAILED"),
    (304, c"CUDA_ERROR_OPERATING_SYSTEM"),
    (400, c"CUDA_ERROR_INVALID_HANDLE"),
    (401, c"CUDA_ERROR_ILLEGAL_STATE"),
    (500, c"CUDA_ERROR_NOT_FOUND"),
    (600, c"CUDA_ERROR_NOT_READY"),
    (700, c"CUDA_ERROR_ILLEGAL_ADDRESS"),
    (701, c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"),
    (702, c"CUDA_ERROR_LAUNCH_TIMEOUT"),
    (703, c"CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING"),
    (704, c"CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED"),
    (705, c"CUDA_ERROR_PEER_ACCESS_NOT_ENABLED"),
    (708, c"CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE"),
    (709, c"CUDA_ERROR_CONTEXT_IS_DESTROYED"),
    (710, c"CUDA_ERROR_ASSERT"),
    (711, c"CUDA_ERROR_TOO_MANY_PEERS"),
    (712, c"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"),
    (713, c"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"),
    (714, c"CUDA_ERROR_HARDWARE_STACK_ERROR"),
    (715, c"CUDA_ERROR_ILLEGAL_INSTRUCTION"),
    (716, c"CUDA_ERROR_MISALIGNED_ADDRESS"),
    (717, c"CUDA_ERROR_INVALID_ADDRESS_SPACE"),
    (718, c"CUDA_ERROR_INVALID_PC"),
    (719, c"CUDA_ERROR_LAUNCH_FAILED"),
    (720, c"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"),
    (800, c"CUDA_ERROR_NOT_PERMITTED"),
    (801, c"CUDA_ERROR_NOT_SUPPORTED"),
    (802, c"CUDA_ERROR_SYSTEM_NOT_READY"),
    (803, c"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
    (804, c"CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"),
    (805, c"CUDA_ERROR_MPS_CONNECTION_FAILED"),
    (806, c"CUDA_ERROR_MPS_RPC_FAILURE"),
    (807, c"CUDA_ERROR_MPS_SERVER_NOT_READY"),
    (808, c"CUDA_ERROR_MPS_MAX_CLIENTS_REACHED"),
    (809, c"CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED"),
    (900, c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
    (901, c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"),
    (902, c"CUDA_ERROR_STREAM_CAPTURE_MERGE"),
    (903, c"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED"),
    (904, c"CUDA_ERROR_STREAM_CAPTURE_UNJOINED"),
    (905, c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION"),
    (906, c"CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"),
    (907, c"CUDA_ERROR_CAPTURED_EVENT"),
    (908, c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"),
    (909, c"CUDA_ERROR_TIMEOUT"),
    (910, c"CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE"),
    (911, c"CUDA_ERROR_EXTERNAL_DEVICE"),
    (999, c"CUDA_ERROR_UNKNOWN"),
];

/// A code of [`known`] as `cust_raw` has it.
pub(crate) fn result(code: u32) -> cust_raw::CUresult {
    // SAFETY: `known` gives values of the enum only, which is represented as `u32`.
    unsafe { transmute::<u32, cust_raw::CUresult>(known(code)) }
}

/// `code`, or `CUDA_ERROR_UNKNOWN` for one that a newer driver has introduced: `cust` reads the result as an
/// enum, for which any other value would be undefined behaviour.
pub(crate) fn known(code: u32) -> u32 {
    if code == 0 || NAMES.binary_search_by_key(&code, |row| row.0).is_ok() { code } else { UNKNOWN }
}

fn name(code: u32) -> &'static CStr {
    NAMES.binary_search_by_key(&code, |row| row.0).map_or(c"CUDA_ERROR_UNKNOWN", |row| NAMES[row].1)
}

fn description(code: u32) -> &'static CStr {
    match code {
        0 => c"no error",
        2 => c"out of memory",
        NO_DEVICE => c"no CUDA-capable device is detected",
        NOT_FOUND => c"the installed CUDA driver lacks this function",
        700 => c"an illegal memory access was encountered",
        719 => c"unspecified launch failure",
        _ => name(code),
    }
}

type Words = unsafe extern "C" fn(u32, *mut *const c_char) -> u32;

/// Asks the driver, and without one answers `fallback`.
///
/// # Safety
/// `text` is null or valid for a write.
unsafe fn words(
    slot: &Slot,
    symbol: &CStr,
    code: u32,
    text: *mut *const c_char,
    fallback: &'static CStr,
) -> u32 {
    if text.is_null() {
        return INVALID_VALUE;
    }
    match slot.get(symbol) {
        // SAFETY: both functions have this type, and `text` may be written.
        Ok(address) => unsafe { known(transmute::<*const _, Words>(address)(code, text)) },
        Err(_) => {
            // SAFETY: `text` may be written.
            unsafe { *text = fallback.as_ptr() };
            0
        }
    }
}

/// Describes `code` as the driver does, or in this crate's words when there is no driver.
///
/// # Safety
/// `text` is null or valid for a write.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub(crate) unsafe extern "C" fn cuGetErrorString(code: u32, text: *mut *const c_char) -> u32 {
    static SLOT: Slot = Slot::new();
    // SAFETY: as the caller vouches.
    unsafe { words(&SLOT, c"cuGetErrorString", code, text, description(code)) }
}

/// Names `code`, with or without a driver.
///
/// # Safety
/// `text` is null or valid for a write.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub(crate) unsafe extern "C" fn cuGetErrorName(code: u32, text: *mut *const c_char) -> u32 {
    static SLOT: Slot = Slot::new();
    // SAFETY: as the caller vouches.
    unsafe { words(&SLOT, c"cuGetErrorName", code, text, name(code)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted() {
        assert!(NAMES.is_sorted_by_key(|row| row.0));
    }

    #[test]
    fn a_code_that_cust_lacks_becomes_unknown() {
        assert_eq!(known(0), 0);
        assert_eq!(known(NO_DEVICE), NO_DEVICE);
        assert_eq!(known(718), 718);
        assert_eq!(known(9_999), UNKNOWN);
    }

    #[test]
    fn errors_have_words_without_a_driver() {
        for code in [0, 1, NO_DEVICE, 12_345] {
            let mut text = core::ptr::null();
            if crate::available() {
                return;
            }
            // SAFETY: `text` may be written, and is set to a static string.
            let words = unsafe {
                assert_eq!(cuGetErrorString(code, &mut text), 0);
                CStr::from_ptr(text)
            };
            assert!(!words.is_empty());
        }
    }
}
