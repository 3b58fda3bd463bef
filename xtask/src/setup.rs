//! Fetching what building and checking kernels takes.
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::workspace::{command, create_folder, output_of, root, toolchain};

/// What to say when a build of kernels fails.
pub(crate) const HINT: &str = "(`cargo xtask setup` installs what building kernels needs)";

/// The wheel that has ptxas. Another one makes other machine code, so what is shipped of that and resources.txt go with it.
/// The last of CUDA 12, as drivers take machine code from toolkits of their own CUDA version and of earlier ones.
const PTXAS_WHEEL: &str = "nvidia-cuda-nvcc-cu12==12.9.86";
const PTXAS_IN_WHEEL: &str = "nvidia/cuda_nvcc/bin/ptxas";

/// Names the archive with the library sources, or its folder; else it may be in `shared/toolchain` beside the
/// workspace.
const RUST_SRC_VARIABLE: &str = "FLASH_KMEANS_RUST_SRC";

/// Fetches all of it; only the library sources are indispensable.
pub(crate) fn run() -> Result<()> {
    println!("rust-src: {}", rust_src()?);
    match fetch_ptxas() {
        Ok(ptxas) => println!("ptxas: {}, {}", ptxas.program.display(), ptxas.version),
        Err(why) => {
            println!(
                "ptxas: not to be had, so kernels cannot be assembled, and nothing checks registers and spills ({why})"
            )
        }
    }
    Ok(())
}

/// Sees to the toolchain's library sources; where they came from.
fn rust_src() -> Result<String> {
    let sysroot = PathBuf::from(output_of(command(rustc()).args(["--print", "sysroot"]))?.trim());
    let installed = || sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file();
    if installed() {
        return Ok("already installed".into());
    }
    let version = rustc_version()?;
    let archive = format!("rust-src-{version}.tar.xz");
    let beside = root().join("../shared/toolchain");
    let named = env::var_os(RUST_SRC_VARIABLE).map(PathBuf::from);
    let candidates =
        named.into_iter().flat_map(|path| [path.join(&archive), path]).chain([beside.join(&archive)]);
    // What is here comes first: without a network, rustup can take minutes to say so.
    if let Some(found) = candidates.into_iter().find(|path| path.is_file()) {
        unpack(&found, &sysroot)?;
        let from = found.canonicalize().unwrap_or(found);
        return if installed() {
            Ok(format!("unpacked from {}", from.display()))
        } else {
            Err(format!("{} has no library sources", from.display()))
        };
    }
    let by_rustup = output_of(command("rustup").args(["component", "add", "rust-src"]));
    if by_rustup.is_ok() && installed() {
        return Ok("installed by rustup".into());
    }
    let why = by_rustup.err().unwrap_or_else(|| "it installed them for another toolchain".into());
    Err(format!(
        "no library sources for rustc {version}. `rustup component add rust-src` did not help:\n  {}\n\
         Get https://static.rust-lang.org/dist/{archive}, and set {RUST_SRC_VARIABLE} to its path or put it in a \
         folder `shared/toolchain` beside the workspace.",
        why.replace('\n', "\n  ")
    ))
}

/// Unpacks an archive of library sources, whether it is laid out for rustup's installer or starts at `library`.
fn unpack(archive: &Path, sysroot: &Path) -> Result<()> {
    let folder = toolchain().join("rust-src");
    let _ = fs::remove_dir_all(&folder);
    create_folder(&folder)?;
    output_of(command("tar").arg("-xJf").arg(archive).arg("-C").arg(&folder))?;
    let library = find(&folder, &|path| path.ends_with("library") && path.join("core/Cargo.toml").is_file())
        .ok_or_else(|| format!("{} has no folder `library`", archive.display()))?;
    let sources = sysroot.join("lib/rustlib/src/rust");
    create_folder(&sources)?;
    output_of(command("cp").arg("-R").arg(&library).arg(&sources))?;
    let _ = fs::remove_dir_all(&folder);
    Ok(())
}

/// The first path under `folder`, or `folder` itself, that is wanted.
fn find(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    if wanted(folder) {
        return Some(folder.to_owned());
    }
    let inside = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    inside.filter(|path| path.is_dir()).find_map(|path| find(&path, wanted))
}

fn rustc() -> std::ffi::OsString {
    env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

fn rustc_version() -> Result<String> {
    let text = output_of(command(rustc()).arg("--version"))?;
    text.split(' ').nth(1).map(str::to_owned).ok_or_else(|| format!("rustc --version says {text:?}"))
}

fn fetch_ptxas() -> Result<Ptxas> {
    if let Some(ptxas) = Ptxas::find()? {
        return Ok(ptxas);
    }
    let folder = toolchain();
    create_folder(&folder)?;
    let mut pip = command("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest"]);
    output_of(pip.arg(&folder).arg(PTXAS_WHEEL))?;
    let wheel = fs::read_dir(&folder)
        .map_err(|error| error.to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip left no wheel")?;
    // Python's own zipfile, since pip needs Python anyhow; it does not restore the permission to execute.
    let program = "import os, sys, zipfile\n\
        path = zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])\n\
        os.chmod(path, 0o755)";
    output_of(command("python3").args(["-c", program]).arg(&wheel).arg(PTXAS_IN_WHEEL).arg(&folder))?;
    let _ = fs::remove_file(&wheel);
    Ptxas::find()?.ok_or_else(|| "the wheel's ptxas does not run".into())
}

/// The assembler of PTX.
pub(crate) struct Ptxas {
    pub(crate) program: PathBuf,
    /// Such as `V13.5.37`.
    pub(crate) version: String,
}

impl Ptxas {
    /// The one that [`run`] fetched, or that of an installed toolkit.
    pub(crate) fn find() -> Result<Option<Self>> {
        let toolkits = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(env::var_os);
        let toolkits = toolkits.map(|folder| PathBuf::from(folder).join("bin/ptxas"));
        let candidates =
            [toolchain().join(PTXAS_IN_WHEEL)].into_iter().chain(toolkits).chain(["ptxas".into()]);
        Ok(candidates.into_iter().find_map(|program| {
            let text = output_of(command(&program).arg("--version")).ok()?;
            let version = text.split([' ', '\n', ',']).rfind(|word| word.starts_with('V'))?.to_owned();
            Some(Ptxas { program, version })
        }))
    }

    /// Assembles, and returns all that ptxas says about it.
    pub(crate) fn assemble(&self, arch: &str, ptx: &Path, cubin: &Path) -> Result<String> {
        let mut command = command(&self.program);
        command.arg("-v").arg(format!("-arch={arch}")).arg(ptx).arg("-o").arg(cubin);
        let output = command.output().map_err(|error| format!("cannot run ptxas: {error}"))?;
        let log =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            Ok(log)
        } else {
            Err(format!("ptxas rejects {}:\n{log}", ptx.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_states_its_version() {
        assert!(rustc_version().unwrap().starts_with("1."));
    }
}
