//! A folder that runs on a machine with a GPU and nothing else.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Result;
use crate::workspace::{cargo, create_folder, root, target, write};

/// Test executables that stay behind: they run cargo, or read the workspace's files.
const NOT_FOR_GPUS: &[&str] = &[
    "cli", "docs", "faults", "fork", "hostile", "io", "kernels", "model", "mpi", "parity", "report", "stream",
];

const LIMIT_BYTES: u64 = 64 << 20;

const RUN: &str = r#"#!/usr/bin/env bash
# Runs what is in this folder on a machine with a GPU; a missing or broken GPU is a failure.
#
#   run.sh test [ARGUMENTS]      the GPU tests; arguments go to each
#   run.sh sanitize [ARGUMENTS]  the same under compute-sanitizer, on small problems
#   run.sh bench SUITE [OPTIONS] measurements, beside peers with --peers; see `xtask bench --help`
#   run.sh profile KERNEL SHAPE  a kernel's use of the hardware; see `xtask profile --help`
#   run.sh tune [OPTIONS]        the launch plan of this GPU; see `xtask tune --help`
#
# Python packages in ./python (`pip install --target python ...`) are found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
shopt -s nullglob
export FLASH_KMEANS_REQUIRE_GPU=1

run_all() {
    [[ -d tests ]] || tar -xzf tests.tar.gz
    for test in tests/*; do
        echo "== $* $test"
        "$@" "./$test" "${arguments[@]}"
    done
}

verb=${1:-test}
[[ $# == 0 ]] || shift
arguments=("$@")
case $verb in
test)
    run_all env
    ./flash-kmeans devices
    echo "all passed"
    ;;
sanitize)
    # One thread: the sanitizer serialises launches anyhow.
    arguments+=(--test-threads=1)
    export FLASH_KMEANS_SMALL=1
    run_all compute-sanitizer --tool memcheck --error-exitcode 9 --target-processes all
    # Racecheck does not follow some barriers of the tuned kernels.
    export FLASH_KMEANS_KERNELS=portable
    for tool in memcheck racecheck; do
        run_all compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all
    done
    echo "all passed"
    ;;
bench | profile | tune)
    # A part of nvidia-cutlass-dsl that only a .pth file would find.
    export PYTHONPATH="$PWD/python:$PWD/python/nvidia_cutlass_dsl/dsl_packages${PYTHONPATH:+:$PYTHONPATH}"
    exec ./xtask "$verb" "${arguments[@]}"
    ;;
*)
    sed -n '/^#   /s/^# *//p' run.sh >&2
    exit 2
    ;;
esac
"#;

/// Builds and gathers.
pub(crate) fn run() -> Result<()> {
    let dist = root().join("dist");
    let _ = fs::remove_dir_all(&dist);
    create_folder(&dist.join("tests"))?;

    let mut found = Vec::new();
    build(&["build", "--package", "flash-kmeans", "--bin", "flash-kmeans"], &mut found)?;
    let tests = gpu_tests()?;
    let mut arguments = vec!["test", "--no-run", "--package", "flash-kmeans-tests"];
    arguments.extend(tests.iter().flat_map(|name| ["--test", name]));
    build(&arguments, &mut found)?;
    build(&["build", "--package", "xtask", "--bins", "--features", "linfa"], &mut found)?;
    for Executable { name, kind, path } in &found {
        let copy = match kind.as_str() {
            "bin" => dist.join(name),
            "test" => dist.join("tests").join(name),
            _ => continue,
        };
        fs::copy(path, &copy).map_err(|error| format!("cannot copy to {}: {error}", copy.display()))?;
    }
    pack_tests(&dist)?;
    copy_peers(&dist)?;
    write(&dist.join("run.sh"), RUN)?;
    make_executable(&dist.join("run.sh"))?;

    let files = files(&dist)?;
    for (path, bytes) in &files {
        println!("{:>10} {}", bytes, path.strip_prefix(root()).unwrap_or(path).display());
    }
    let bytes: u64 = files.iter().map(|file| file.1).sum();
    if bytes > LIMIT_BYTES {
        return Err(format!("dist has {bytes} bytes, {LIMIT_BYTES} are allowed"));
    }
    Ok(())
}

/// Puts the tests, each with the library in it, into one file of a third of their size.
fn pack_tests(dist: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["-czf", "tests.tar.gz", "tests"]).current_dir(dist);
    let status = tar.status().map_err(|error| format!("cannot run tar: {error}"))?;
    if !status.success() {
        return Err(format!("tar ended with {status}"));
    }
    fs::remove_dir_all(dist.join("tests")).map_err(|error| error.to_string())
}

/// Names of the tests that have something to do on a GPU.
fn gpu_tests() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (path, _) in files(&root().join("tests").join("tests"))? {
        let is_test = path.extension().is_some_and(|extension| extension == "rs")
            && path.parent().is_some_and(|folder| folder.ends_with("tests"));
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if is_test && !NOT_FOR_GPUS.contains(&name.as_str()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The scripts that `bench` runs peers with.
fn copy_peers(dist: &Path) -> Result<()> {
    create_folder(&dist.join("peers"))?;
    for (path, _) in files(&root().join("xtask").join("peers"))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == "common.py" || name.starts_with("peer_") {
            fs::copy(&path, dist.join("peers").join(name)).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

struct Executable {
    name: String,
    kind: String,
    path: PathBuf,
}

/// Runs cargo in release mode, and notes the executables that it makes.
fn build(arguments: &[&str], found: &mut Vec<Executable>) -> Result<()> {
    let (verb, rest) = arguments.split_first().expect("a cargo command");
    let mut cargo = cargo();
    cargo.arg(verb).args(["--release", "--locked", "--message-format", "json-render-diagnostics"]).args(rest);
    // A folder of its own: other settings in the same one would have the next release build start over.
    cargo.env("CARGO_TARGET_DIR", target().join("dist")).env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    // Cargo's own messages are worth seeing while it works.
    let output =
        cargo.stderr(Stdio::inherit()).output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo {verb}: {}", output.status));
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let (Some(path), Some(name)) = (message["executable"].as_str(), message["target"]["name"].as_str())
        else {
            continue;
        };
        let kind = message["target"]["kind"][0].as_str().unwrap_or_default();
        found.push(Executable { name: name.to_owned(), kind: kind.to_owned(), path: path.into() });
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).map_err(|error| format!("cannot list {}: {error}", folder.display()))?;
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(files(&entry.path())?),
            Ok(metadata) => found.push((entry.path(), metadata.len())),
            Err(error) => return Err(error.to_string()),
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<()> {
    Ok(())
}
