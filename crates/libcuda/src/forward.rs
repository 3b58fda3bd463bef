//! How an entry point reaches the driver.
use core::ffi::{CStr, c_void};
use std::sync::OnceLock;

use libloading::Library;

use crate::code;

#[cfg(windows)]
const DRIVER: &str = "nvcuda.dll";
#[cfg(not(windows))]
const DRIVER: &str = "libcuda.so.1";

/// Where the entry points' calls go.
enum Driver {
    // Never closed: a module that unloads while another thread is inside it cannot be made safe.
    Installed(Library),
    #[cfg(feature = "given-driver")]
    Given(AddressOf),
}

/// The address of a driver's entry point by its name; `None` where the driver lacks it.
#[cfg(feature = "given-driver")]
pub type AddressOf = fn(&CStr) -> Option<*const c_void>;

static DRIVER_IN_USE: OnceLock<Option<Driver>> = OnceLock::new();

fn driver() -> Option<&'static Driver> {
    // SAFETY: the driver's library is made to be loaded by any process; its initialisers have no
    // preconditions.
    DRIVER_IN_USE.get_or_init(|| unsafe { Library::new(DRIVER).ok() }.map(Driver::Installed)).as_ref()
}

pub(crate) fn available() -> bool {
    driver().is_some()
}

/// Has all calls of this process go to another driver than the installed one, for tests. Whether that was done: it is
/// too late once anything was called.
///
/// # Safety
/// What `address` answers must be functions of the driver's types, which do what the driver's documentation says.
#[cfg(feature = "given-driver")]
pub unsafe fn use_driver(address: AddressOf) -> bool {
    DRIVER_IN_USE.set(Some(Driver::Given(address))).is_ok()
}

/// The address of `name` in the driver, or the code that says why there is none.
pub(crate) fn address(name: &CStr) -> Result<*const c_void, u32> {
    match driver().ok_or(code::NO_DEVICE)? {
        Driver::Installed(library) => {
            // SAFETY: the symbol is only read as an address here; callers state its type.
            let symbol = unsafe { library.get::<*const c_void>(name.to_bytes_with_nul()) };
            symbol.map(|symbol| *symbol).map_err(|_| code::NOT_FOUND)
        }
        #[cfg(feature = "given-driver")]
        Driver::Given(address) => address(name).ok_or(code::NOT_FOUND),
    }
}

/// An address looked up once. `Err` holds the code to answer with instead of a call.
pub(crate) struct Slot(OnceLock<Result<usize, u32>>);

impl Slot {
    pub(crate) const fn new() -> Self {
        Slot(OnceLock::new())
    }

    pub(crate) fn get(&self, name: &CStr) -> Result<*const c_void, u32> {
        self.0
            .get_or_init(|| address(name).map(|address| address as usize))
            .map(|address| address as *const c_void)
    }
}

// One row is one function: its symbol, its arguments, its call into the driver. The constant is not used; it
// fails to compile when a row's arguments differ from those in `cust_raw`'s declaration.
macro_rules! entry_points {
    ($($name:ident($($argument:ident: $Type:ty),* $(,)?);)*) => {
        $(
            #[doc = concat!("Forwards to the driver's `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the driver's own documentation says.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, clippy::too_many_arguments)]
            pub(crate) unsafe extern "C" fn $name($($argument: $Type),*) -> u32 {
                static SLOT: $crate::forward::Slot = $crate::forward::Slot::new();
                const NAME: &core::ffi::CStr = $crate::forward::c_name(concat!(stringify!($name), "\0"));
                let failure = $crate::fault::next();
                if let Some(code) = failure && !$crate::fault::releases(NAME) {
                    return code;
                }
                let code = match SLOT.get(NAME) {
                    // SAFETY: the address is that of the driver's function of this name, whose arguments are
                    // these; the caller vouches for their values.
                    Ok(address) => unsafe {
                        let function: unsafe extern "C" fn($($Type),*) -> u32 = core::mem::transmute(address);
                        $crate::code::known(function($($argument),*))
                    },
                    Err(code) => code,
                };
                if code == 0 {
                    // SAFETY: the arguments are those of this function, which has been called.
                    unsafe { $crate::fault::done(NAME, &[$((&raw const $argument).cast()),*]) };
                }
                failure.unwrap_or(code)
            }

            const _: unsafe extern "C" fn($($Type),*) -> cust_raw::CUresult = cust_raw::$name;
        )*

        /// Every forwarded name.
        #[cfg(test)]
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}
pub(crate) use entry_points;

/// A name that ends in its only NUL, as a C string.
pub(crate) const fn c_name(name: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("the name ends in NUL"),
    }
}
