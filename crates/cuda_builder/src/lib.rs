//! Kernels crate to PTX, by stock rustc.
//!
//! [`CudaBuilder`] has the shape of rust-cuda's: name the kernels crate, choose an architecture, build. It
//! runs a nested `cargo rustc` for `nvptx64-nvidia-cuda` and returns the PTX file. What it needs is the
//! toolchain's `rust-src` component, since `core` is compiled for the same GPU; neither a CUDA toolkit, nor
//! LLVM tools, nor a linker.
//!
//! ```no_run
//! use cuda_builder::{Arch, CudaBuilder};
//!
//! let ptx = CudaBuilder::new("kernels-gpu").arch(Arch::Sm90a).copy_to("kernels.ptx").build()?;
//! # Ok::<(), cuda_builder::CudaBuilderError>(())
//! ```
//!
//! The kernels crate must be complete in itself: nothing is linked into the module afterwards, so every
//! function of a dependency that a kernel uses has to be `#[inline(always)]`, and panics are not available.
//!
//! The PTX depends on the sources, the toolchain and the settings only, not on where the sources, the
//! toolchain or the target folder are.
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

const TARGET: &str = "nvptx64-nvidia-cuda";

/// A GPU architecture to compile for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Arch {
    /// Ampere, compute capability 8.0.
    Sm80,
    /// Ampere, compute capability 8.6.
    Sm86,
    /// Ada, compute capability 8.9.
    Sm89,
    /// Hopper, compute capability 9.0, as far as later GPUs have it too.
    Sm90,
    /// Hopper with its own instructions; runs on compute capability 9.0 only.
    Sm90a,
}

impl Arch {
    /// The name that rustc and ptxas use, such as `sm_90a`.
    pub fn target_cpu(self) -> &'static str {
        match self {
            Arch::Sm80 => "sm_80",
            Arch::Sm86 => "sm_86",
            Arch::Sm89 => "sm_89",
            Arch::Sm90 => "sm_90",
            Arch::Sm90a => "sm_90a",
        }
    }

    /// The compute capability times ten.
    pub fn compute_capability(self) -> u32 {
        match self {
            Arch::Sm80 => 80,
            Arch::Sm86 => 86,
            Arch::Sm89 => 89,
            Arch::Sm90 | Arch::Sm90a => 90,
        }
    }
}

/// Why there is no PTX.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaBuilderError {
    /// The folder given to [`CudaBuilder::new`] holds no `Cargo.toml`.
    #[error("there is no kernels crate at {}", .0.display())]
    CratePathDoesntExist(PathBuf),
    /// The PTX was built, and could not be copied.
    #[error("cannot copy the PTX to {}", .path.display())]
    FailedToCopyPtxFile {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The nested build failed; the compiler's messages went to standard error.
    #[error("the kernels crate does not build")]
    BuildFailed,
    /// `core` cannot be built.
    #[error("no library sources at {}: the toolchain lacks the component `rust-src`", .0.display())]
    RustSrcMissing(PathBuf),
    /// The nested cargo or rustc could not be run at all.
    #[error("cannot run {program}")]
    CannotRun {
        /// Which program.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The build succeeded, and its PTX is not where rustc puts it.
    #[error("the build left no PTX in {}", .0.display())]
    PtxNotFound(PathBuf),
}

/// A build of one kernels crate for one architecture.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct CudaBuilder {
    path: PathBuf,
    arch: Arch,
    ptx_isa: u32,
    release: bool,
    emit_llvm_ir: bool,
    copy_to: Option<PathBuf>,
    target_dir: Option<PathBuf>,
    build_args: Vec<OsString>,
    llvm_args: Vec<String>,
}

impl CudaBuilder {
    /// Builds the crate in folder `path`: in release mode, for [`Arch::Sm80`] and PTX ISA 8.0.
    pub fn new(path: impl AsRef<Path>) -> Self {
        CudaBuilder {
            path: path.as_ref().to_owned(),
            arch: Arch::Sm80,
            ptx_isa: 80,
            release: true,
            emit_llvm_ir: false,
            copy_to: None,
            target_dir: None,
            build_args: Vec::new(),
            llvm_args: Vec::new(),
        }
    }

    /// The architecture to compile for.
    pub fn arch(mut self, arch: Arch) -> Self {
        self.arch = arch;
        self
    }

    /// The PTX version times ten. A driver refuses PTX newer than itself; 80 is that of CUDA 12.0.
    pub fn ptx_isa(mut self, version: u32) -> Self {
        self.ptx_isa = version;
        self
    }

    /// Whether to optimise. Without optimisation calls stay calls, and most kernels do not assemble.
    pub fn release(mut self, release: bool) -> Self {
        self.release = release;
        self
    }

    /// Whether to leave the LLVM IR next to the PTX, with the extension `ll`.
    pub fn emit_llvm_ir(mut self, emit: bool) -> Self {
        self.emit_llvm_ir = emit;
        self
    }

    /// A file to copy the PTX to; [`build`](Self::build) then returns that path.
    pub fn copy_to(mut self, path: impl AsRef<Path>) -> Self {
        self.copy_to = Some(path.as_ref().to_owned());
        self
    }

    /// The nested build's target folder. It must not be one that a cargo waiting for this build has locked.
    /// Default: `cuda-builder` in a build script's `OUT_DIR`, else in `CARGO_TARGET_DIR`, else in the crate's
    /// own `target`.
    pub fn target_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.target_dir = Some(path.as_ref().to_owned());
        self
    }

    /// More arguments for the nested cargo.
    pub fn build_args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.build_args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// More arguments for LLVM, such as `-unroll-threshold=20000`.
    pub fn llvm_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.llvm_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Compiles, and returns the path of the PTX file.
    ///
    /// # Errors
    /// See [`CudaBuilderError`].
    pub fn build(self) -> Result<PathBuf, CudaBuilderError> {
        let crate_dir = fs::canonicalize(&self.path)
            .ok()
            .filter(|dir| dir.join("Cargo.toml").is_file())
            .ok_or_else(|| CudaBuilderError::CratePathDoesntExist(self.path.clone()))?;
        let sources = sysroot(&crate_dir)?.join("lib/rustlib/src/rust");
        if !sources.join("library/core/Cargo.toml").is_file() {
            return Err(CudaBuilderError::RustSrcMissing(sources));
        }
        let ptx = self.compile(&crate_dir, &sources)?;
        let Some(copy) = self.copy_to else { return Ok(ptx) };
        match fs::copy(&ptx, &copy) {
            Ok(_) => Ok(copy),
            Err(source) => Err(CudaBuilderError::FailedToCopyPtxFile { path: copy, source }),
        }
    }

    fn compile(&self, crate_dir: &Path, sources: &Path) -> Result<PathBuf, CudaBuilderError> {
        let target_dir = self.target_dir.clone().unwrap_or_else(|| default_target_dir(crate_dir));
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(&cargo);
        command.current_dir(crate_dir);
        command.args(["rustc", "--lib", "--target", TARGET, "-Zbuild-std=core"]);
        command.args(["--message-format", "json-render-diagnostics", "--target-dir"]);
        command.arg(&target_dir);
        if self.release {
            command.arg("--release");
        }
        command.args(&self.build_args);
        // No path may be among these: cargo hashes them into the crate's identity.
        command.arg("--").arg(if self.emit_llvm_ir { "--emit=asm,llvm-ir" } else { "--emit=asm" });

        let flags = self.rustflags(crate_dir, sources).join("\u{1f}");
        command.env("CARGO_ENCODED_RUSTFLAGS", flags).env_remove("RUSTFLAGS");
        // Stock rustc with unstable features: the kernel ABI and `-Zbuild-std`.
        command.env("RUSTC_BOOTSTRAP", "1");
        // Profiles are the workspace's own affair, and made for its host programs.
        for (key, value) in
            [("CODEGEN_UNITS", "1"), ("LTO", "off"), ("DEBUG", "false"), ("INCREMENTAL", "false")]
        {
            command.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
            command.env(format!("CARGO_PROFILE_DEV_{key}"), value);
        }
        // Set for a build script, and wrong for the crate that is built here.
        for key in
            ["CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WORKSPACE_WRAPPER", "CARGO_MAKEFLAGS"]
        {
            command.env_remove(key);
        }

        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.map_err(|source| cannot_run(&cargo, source))?;
        if !output.status.success() {
            return Err(CudaBuilderError::BuildFailed);
        }
        find_ptx(&String::from_utf8_lossy(&output.stdout), crate_dir)
            .ok_or_else(|| CudaBuilderError::PtxNotFound(target_dir.join(TARGET)))
    }

    /// For `core` and the kernels crate alike.
    fn rustflags(&self, crate_dir: &Path, sources: &Path) -> Vec<String> {
        let mut flags = vec![
            format!("-Ctarget-cpu={}", self.arch.target_cpu()),
            format!("-Ctarget-feature=+ptx{}", self.ptx_isa),
            "-Cpanic=abort".into(),
            "-Ccodegen-units=1".into(),
            // It clones blocks, and with them barriers and votes, before LLVM knows them to be convergent.
            "-Zmir-enable-passes=-JumpThreading".into(),
        ];
        let root = crate_dir.parent().unwrap_or(crate_dir);
        flags.push(format!("--remap-path-prefix={}=.", root.display()));
        flags.push(format!("--remap-path-prefix={}=rust", sources.display()));
        flags.extend(self.llvm_args.iter().map(|arg| format!("-Cllvm-args={arg}")));
        flags
    }
}

fn default_target_dir(crate_dir: &Path) -> PathBuf {
    let outer = ["OUT_DIR", "CARGO_TARGET_DIR"].iter().find_map(env::var_os).map(PathBuf::from);
    outer.unwrap_or_else(|| crate_dir.join("target")).join("cuda-builder")
}

fn sysroot(crate_dir: &Path) -> Result<PathBuf, CudaBuilderError> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    // In the crate's folder, where a `rust-toolchain.toml` may choose the toolchain.
    let output = Command::new(&rustc).current_dir(crate_dir).args(["--print", "sysroot"]).output();
    let output = output.map_err(|source| cannot_run(&rustc, source))?;
    if !output.status.success() {
        return Err(CudaBuilderError::BuildFailed);
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn cannot_run(program: &OsStr, source: std::io::Error) -> CudaBuilderError {
    CudaBuilderError::CannotRun { program: program.to_string_lossy().into_owned(), source }
}

/// The PTX of the crate in `crate_dir`, told from what cargo says it made. Cargo does not list the file
/// itself: rustc puts it next to the metadata, under the same stem.
fn find_ptx(messages: &str, crate_dir: &Path) -> Option<PathBuf> {
    let manifest = crate_dir.join("Cargo.toml");
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| message["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest))
        .filter_map(|message| message["filenames"].as_array().cloned())
        .flatten()
        .filter_map(|file| beside(Path::new(file.as_str()?)))
        .find(|ptx| ptx.is_file())
}

/// `deps/libname-hash.rmeta` to `deps/name-hash.s`.
fn beside(artifact: &Path) -> Option<PathBuf> {
    let stem = artifact.file_stem()?.to_str()?;
    let ptx = format!("{}.s", stem.strip_prefix("lib").unwrap_or(stem));
    Some(artifact.with_file_name(ptx))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_crate_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = CudaBuilder::new(folder.path()).build().unwrap_err();
        assert!(matches!(error, CudaBuilderError::CratePathDoesntExist(path) if path == folder.path()));
    }

    #[test]
    fn the_ptx_is_found_beside_the_metadata() {
        let folder = tempfile::tempdir().unwrap();
        let ptx = folder.path().join("kernels-1f.s");
        fs::write(&ptx, "").unwrap();
        let message = |package: &str, file: &str| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": folder.path().join(package).join("Cargo.toml"),
                "filenames": [folder.path().join("up/libkernels.rlib"), folder.path().join(file)],
            })
        };
        let messages = format!(
            "{}\nnot json\n{}\n",
            message("core", "libcore-2.rmeta"),
            message("k", "libkernels-1f.rmeta")
        );
        assert_eq!(find_ptx(&messages, &folder.path().join("k")), Some(ptx));
        assert_eq!(find_ptx(&messages, &folder.path().join("core")), None);
    }
}
