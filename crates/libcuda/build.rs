//! Meets the `-lcuda` that `cust_raw` asks for with an empty archive: the functions are in this crate.
use std::{env, fs, path::Path};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // On Windows the import library comes with the toolkit that `cust_raw`'s build script insists on.
    if env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family.contains("unix")) {
        let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
        // Every linker takes an archive; an empty `INPUT()` script is a syntax error for some.
        fs::write(Path::new(&out).join("libcuda.a"), "!<arch>\n").expect("OUT_DIR is writable");
        println!("cargo:rustc-link-search=native={out}");
    }
}
