//! What the tests share.
use flash_kmeans::{Backend, Error, FlashKMeans, Init};
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The built command.
pub fn command() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build_command(""))
}

/// Builds the command with `features` beside the default ones.
///
/// Cargo sets `CARGO_BIN_EXE_*` only for tests of the package that has the command, and these live in
/// another one, so that `cargo test -p flash-kmeans` stays light. Cargo therefore does not even build the
/// command for them: this does, into the folder and with the profile of the test that runs.
pub fn build_command(features: &str) -> PathBuf {
    // <target>/[<triple>/]<profile>/deps/<test>-<hash>
    let test = std::env::current_exe().unwrap();
    let profile_folder = test.parent().and_then(Path::parent).unwrap();
    let profile = match profile_folder.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args([
        "build",
        "--quiet",
        "--package",
        "flash-kmeans",
        "--bin",
        "flash-kmeans",
        "--profile",
        profile,
    ]);
    cargo
        .args(["--features", features])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", profile_folder.parent().unwrap());
    assert!(cargo.status().unwrap().success(), "the command did not build");
    profile_folder.join(format!("flash-kmeans{}", std::env::consts::EXE_SUFFIX))
}

/// The GPU that tests use.
pub const CUDA: Backend = Backend::Cuda { ordinal: 0 };

/// Whether the variable `name` is `1`.
pub fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| value == "1")
}

/// The CPU, and the GPU that tests use where there is one.
pub fn backends() -> Vec<Backend> {
    if has_gpu() { vec![Backend::Cpu, CUDA] } else { vec![Backend::Cpu] }
}

/// Whether tests are to run on GPUs that are emulated.
pub fn is_emulated() -> bool {
    std::env::var("FLASH_KMEANS_GPU").is_ok_and(|value| value == "emulated")
}

/// Whether tests on a GPU are to have fewer and smaller cases: for a sanitizer, or an emulation.
pub fn is_small() -> bool {
    is_set("FLASH_KMEANS_SMALL") || is_emulated()
}

/// Whether there is a GPU to test on. With `FLASH_KMEANS_GPU=emulated` there are two that are emulated.
pub fn has_gpu() -> bool {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let reason = REASON.get_or_init(|| {
        if is_emulated() {
            assert!(emulated_gpu::install(emulated_gpu::Timing::Late), "the driver was used before");
        }
        match FlashKMeans::new(1).init(Init::Random).backend(CUDA).fit(ndarray::array![[0.0f32]].view()) {
            Ok(_) => None,
            Err(Error::BackendUnavailable { reason, .. }) => Some(reason),
            Err(error) => panic!("there is a GPU, but {error}"),
        }
    });
    let Some(reason) = reason else { return true };
    assert!(!is_set("FLASH_KMEANS_REQUIRE_GPU"), "no GPU ({reason})");
    // Not by `println!`, whose output is kept from whoever runs the tests; in one piece, as tests run in parallel.
    let _ = std::io::stderr().write_all(format!("skipped: no GPU ({reason})\n").as_bytes());
    false
}
