//! Files that cannot be read or written: whatever call fails, and when, the command says so, nothing partial carries
//! an output's name, nothing temporary stays, and what was there before is still whole.
//!
//! `strace` makes system calls fail one by one; where it is missing, or may not trace, those tests say so and pass.
#![cfg(target_os = "linux")]
use flash_kmeans::io::{PointFile, write_atomically, write_npy};
use flash_kmeans::{Error, ModelFile};
use flash_kmeans_tests::command;
use ndarray::{Array2, array};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const FIT: &str = "fit p.npy -k 40 --seed 0 --max-iter 3 --backend cpu --centroids c.npy --labels l.npy \
                   --model m.safetensors --picture s.svg";
const PREDICT: &str =
    "predict p.npy --model given.safetensors --backend cpu --labels l.npy --distances d.npy";
const TRANSFORM: &str = "transform p.npy --model given.safetensors --distances d.npy";
const STREAM: &str =
    "fit p.npy -k 40 --seed 0 --max-iter 3 --backend cpu --checkpoint fit.state --centroids c.npy";
const GENERATE: &str = "generate --n 2000 --d 8 g.fbin";

/// A folder with points and a model; every output of the commands above is longer than a kilobyte.
fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let points = Array2::from_shape_fn((600, 8), |(i, j)| ((i * 37 + j * 11) % 101) as f32);
    write_npy(folder.path().join("p.npy"), points.view()).unwrap();
    let output = Command::new(command())
        .args("fit p.npy -k 40 --backend cpu --model given.safetensors --quiet".split(' '))
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    folder
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

/// Asserts that a run ended in an orderly way, and that each file of `after` is that of `before` or of `whole`.
fn assert_orderly(
    context: &str,
    output: &Output,
    before: &BTreeMap<String, Vec<u8>>,
    after: &BTreeMap<String, Vec<u8>>,
    whole: &BTreeMap<String, Vec<u8>>,
) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0..=2)), "{context}: {:?}: {message}", output.status);
    assert!(!message.contains("panicked"), "{context}: {message}");
    for (name, bytes) in after {
        let known = [before.get(name), whole.get(name)];
        assert!(known.contains(&Some(bytes)), "{context}: {name} has {} bytes: {message}", bytes.len());
    }
    for name in before.keys() {
        assert!(after.contains_key(name), "{context}: {name} is gone");
    }
    if output.status.success() {
        assert_eq!(after, whole, "{context}: success, and not all outputs");
    }
}

/// The files of a run in which nothing fails.
fn whole(folder: &Path, args: &str) -> BTreeMap<String, Vec<u8>> {
    let before = files(folder);
    let status = Command::new(command())
        .args(args.split_whitespace())
        .arg("--quiet")
        .current_dir(folder)
        .status()
        .unwrap();
    assert!(status.success(), "{args}");
    let whole = files(folder);
    for name in whole.keys().filter(|name| !before.contains_key(*name)) {
        fs::remove_file(folder.join(name)).unwrap();
    }
    whole
}

/// A file-size limit stops every output part-way, as a full disk does.
#[test]
fn an_output_that_does_not_fit_leaves_nothing() {
    let folder = place();
    for args in [FIT, STREAM, PREDICT, TRANSFORM, GENERATE] {
        let whole = whole(folder.path(), args);
        let before = files(folder.path());
        // An ignored SIGXFSZ stays ignored in the command, whose writes past the limit then fail.
        let script = format!("trap '' XFSZ; ulimit -f 1; exec \"$0\" {args}");
        let output = Command::new("sh")
            .args(["-c", &script])
            .arg(command())
            .current_dir(folder.path())
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args}: {message}");
        assert!(message.contains("File too large"), "{args}: {message}");
        let after = files(folder.path());
        assert_orderly(args, &output, &before, &after, &whole);
        assert_eq!(after, before, "{args}: nothing was written");
    }
}

#[test]
fn a_full_stdout_is_an_error() {
    let folder = place();
    for args in ["devices", "fit p.npy -k 3 --backend cpu --json", "completions bash"] {
        let output = Command::new(command())
            .args(args.split_whitespace())
            .current_dir(folder.path())
            .stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args}: {message}");
        assert!(message.contains("stdout") && message.contains("No space left"), "{args}: {message}");
    }
}

/// `args` with calls of `fault` failing, by way of strace; what the command gave, and whether a call did fail.
fn traced(folder: &Path, fault: &str, only: Option<&str>, args: &str) -> (Output, bool) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", &format!("inject={fault}"), "-o"]).arg(log.path());
    if let Some(path) = only {
        strace.arg("-P").arg(folder.join(path));
    }
    let output = strace
        .arg(command())
        .args(args.split_whitespace())
        .env("RAYON_NUM_THREADS", "2")
        .current_dir(folder)
        .output()
        .unwrap();
    (output, fs::read_to_string(log.path()).unwrap().contains("(INJECTED)"))
}

fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    let can = traced.is_ok_and(|status| status.success());
    if !can {
        let _ = std::io::stderr().write_all(b"skipped: no strace, or it may not trace\n");
    }
    can
}

/// Fails the first, second, … call of a kind until there is none left; the number of calls.
fn sweep(folder: &Path, fault: &str, only: Option<&str>, args: &str) -> u32 {
    let old = files(folder);
    let whole = whole(folder, args);
    // Every second run finds older files in the places of the outputs.
    let mut older = whole.clone();
    older
        .iter_mut()
        .filter(|(name, _)| !old.contains_key(*name))
        .for_each(|(_, bytes)| *bytes = b"old".into());
    for n in 1..1000 {
        let before = if n % 2 == 0 { &older } else { &old };
        for (name, bytes) in before.iter().filter(|(name, _)| !old.contains_key(*name)) {
            fs::write(folder.join(name), bytes).unwrap();
        }
        let (output, injected) = traced(folder, &format!("{fault}:when={n}"), only, args);
        let after = files(folder);
        assert_orderly(&format!("{fault} {n} of {args}"), &output, before, &after, &whole);
        if !injected || fault.contains("EINTR") {
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{fault} {n} of {args}: {message}");
        }
        for name in after.keys().filter(|name| !old.contains_key(*name)) {
            fs::remove_file(folder.join(name)).unwrap();
        }
        if !injected {
            return n - 1;
        }
    }
    panic!("{fault} of {args}: no end");
}

#[test]
fn any_write_may_fail() {
    if !can_trace() {
        return;
    }
    let folder = place();
    for (args, outputs) in [(FIT, 4), (STREAM, 2), (PREDICT, 2), (TRANSFORM, 1), (GENERATE, 1)] {
        for fault in ["write:error=ENOSPC", "write:error=EINTR", "fsync:error=EIO", "/^rename:error=EACCES"] {
            let calls = sweep(folder.path(), fault, None, args);
            assert!(calls >= outputs, "{fault} of {args}: {calls} calls for {outputs} outputs");
        }
    }
}

#[test]
fn any_read_of_an_input_may_fail() {
    if !can_trace() {
        return;
    }
    let folder = place();
    for (input, call) in [("p.npy", "mmap"), ("given.safetensors", "read")] {
        for fault in [
            "openat:error=EMFILE".to_string(),
            "openat:error=EINTR".to_string(),
            "statx:error=EIO".to_string(),
            format!("{call}:error=ENOMEM"),
        ] {
            // Relative paths are resolved by the command's folder, which strace's filter does not do.
            let args = PREDICT.replace(input, folder.path().join(input).to_str().unwrap());
            assert!(sweep(folder.path(), &fault, Some(input), &args) >= 1, "{fault} of {input}");
        }
    }
    let model = folder.path().join("given.safetensors");
    let args = PREDICT.replace("given.safetensors", model.to_str().unwrap());
    assert!(sweep(folder.path(), "read:error=EINTR", Some("given.safetensors"), &args) >= 1);
}

#[test]
fn pipes_and_devices_are_refused_without_being_read() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo.npy");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let start = Instant::now();
    assert!(matches!(PointFile::open(&fifo), Err(Error::Format { .. })));
    assert!(matches!(ModelFile::open(&fifo), Err(Error::Format { .. })));
    for device in ["/dev/zero", "/dev/full", "/dev/null"] {
        let link = folder.path().join("link.npy");
        std::os::unix::fs::symlink(device, &link).unwrap();
        assert!(matches!(PointFile::open(&link), Err(Error::Format { .. })), "{device}");
        assert!(matches!(ModelFile::open(&link), Err(Error::Format { .. })), "{device}");
        fs::remove_file(&link).unwrap();
    }
    // Not to a device of the machine's, which a mistake would replace.
    let written = write_npy(&fifo, array![[1.0f32]].view());
    assert!(matches!(written, Err(Error::Io { .. })) && !fs::metadata(&fifo).unwrap().is_file());
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(files_but(folder.path(), "fifo.npy"), 0);
}

fn files_but(folder: &Path, name: &str) -> usize {
    fs::read_dir(folder).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != name).count()
}

#[test]
fn a_writer_that_fails_or_panics_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.svg");
    fs::write(&path, b"old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let error = write_atomically(&path, |out| {
        out.write_all(b"half")?;
        Err(std::io::ErrorKind::StorageFull.into())
    });
    assert!(matches!(error, Err(Error::Io { path: at, .. }) if at == path));
    let panicked =
        std::panic::catch_unwind(|| write_atomically(&path, |_| std::panic::resume_unwind(Box::new(()))));
    assert!(panicked.is_err());
    assert_eq!((fs::read(&path).unwrap(), files_but(folder.path(), "a.svg")), (b"old".to_vec(), 0));

    // A file that others may not read stays one.
    write_atomically(&path, |out| out.write_all(b"new")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // The longest name that a file can have.
    let longest = folder.path().join(format!("{}.npy", "n".repeat(251)));
    write_npy(&longest, array![[1.0f32]].view()).unwrap();
    assert!(longest.exists());
}
