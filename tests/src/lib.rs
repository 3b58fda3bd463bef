//! What the tests share.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The built command.
///
/// Cargo sets `CARGO_BIN_EXE_*` only for tests of the package that has the command, and these live in
/// another one, so that `cargo test -p flash-kmeans` stays light. Cargo therefore does not even build the
/// command for them: this does, once, into the folder and with the profile of the test that runs.
pub fn command() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
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
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CARGO_TARGET_DIR", profile_folder.parent().unwrap());
        assert!(cargo.status().unwrap().success(), "the command did not build");
        profile_folder.join(format!("flash-kmeans{}", std::env::consts::EXE_SUFFIX))
    })
}
