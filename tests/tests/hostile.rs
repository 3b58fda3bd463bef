//! Files made to do harm: headers that lie, files cut anywhere, valid files changed at random. Each is points, a model
//! or a typed error, and costs no more memory than its own size allows.
use flash_kmeans::io::{PointFile, PointWriter, write_npy};
use flash_kmeans::{Backend, Element, Error, FlashKMeans, Init, KMeans, Metric, ModelFile, Streaming};
use flash_kmeans_tests::command;
use ndarray::{Array2, Array3, Ix2, Ix3, array};
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};

/// The system's allocator, which remembers the most that was held at once.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(HELD.fetch_add(layout.size(), SeqCst) + layout.size(), SeqCst);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), SeqCst);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What any call may hold whatever the file: paths, messages, the pool's queues.
const SMALL: usize = 256 << 10;

/// One test at a time, so that what is counted is its own.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What `work` gives, which holds at most `bytes` more than was held before.
fn within<R>(bytes: usize, context: &str, work: impl FnOnce() -> R) -> R {
    let before = HELD.load(SeqCst);
    MOST.store(before, SeqCst);
    let result = work();
    let held = MOST.load(SeqCst) - before;
    assert!(held <= bytes, "{context}: held {held} bytes, more than {bytes}");
    result
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Everything that can be done with a file of untrusted bytes. Memory: whatever its length, half a mebibyte to open it;
/// eight times its length for values of bytes made float64.
fn use_points(path: &Path) {
    let len = fs::metadata(path).unwrap().len() as usize;
    let context = path.display().to_string();
    let opened = within(2 * SMALL, &context, || PointFile::open(path));
    let file = match opened {
        Ok(file) => file,
        Err(error) => return assert_typed(&error, path),
    };
    let values = file.n_rows() * file.n_features();
    assert!(values * file.stored_type().size_bytes() <= len, "{context}: more values than bytes");
    within(SMALL + 8 * len, &context, || {
        match file.read::<f64>() {
            Ok(points) => assert_eq!(points.shape(), file.shape()),
            Err(error) => assert_typed(&error, path),
        }
        drop(file.read::<f32>());
        drop(file.read::<half::f16>());
        let mut row = vec![0.0f32; file.n_features()];
        for at in [0, file.n_rows() / 2, file.n_rows() - 1] {
            let _ = file.rows(at..at + 1, &mut row);
        }
    });
}

fn use_model(path: &Path) {
    let len = fs::metadata(path).unwrap().len() as usize;
    let context = path.display().to_string();
    // A header may cost sixteen times its own size, which is at most a mebibyte.
    match within(SMALL + len + 16 * len.min(1 << 20), &context, || ModelFile::open(path)) {
        Ok(model) => {
            assert!(model.shape().iter().product::<usize>() * 4 <= len, "{context}: more values than bytes");
            within(SMALL + 8 * len, &context, || {
                let _ = model.centroids();
                let _ = model.model::<f32, Ix2>(Backend::Cpu);
                let _ = model.model::<f64, Ix3>(Backend::Cpu);
                let _ = KMeans::<half::f16, Ix2>::load(path, Backend::Cpu);
            });
        }
        Err(error) => assert_typed(&error, path),
    }
}

/// An error that names the file and shows nothing of it that a terminal would obey.
fn assert_typed(error: &Error, path: &Path) {
    assert!(matches!(error, Error::Format { path: at, .. } if at == path), "{error:?}");
    let message = error.to_string();
    assert!(message.len() < 2000, "{} bytes of message", message.len());
    assert!(!message.contains(|c: char| c.is_control()), "{message:?}");
}

fn use_file(path: &Path) {
    if path.extension().is_some_and(|e| e == "safetensors") { use_model(path) } else { use_points(path) }
}

fn npy(version: u8, dict: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((dict.len() as u16).to_le_bytes()),
        _ => bytes.extend((dict.len() as u32).to_le_bytes()),
    }
    bytes.extend(dict.as_bytes());
    bytes.extend(data);
    bytes
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn headers_that_lie_are_refused() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let mut refused = Vec::new();
    let mut refuse = |name: &str, bytes: Vec<u8>| {
        let name = format!("{}-{name}", refused.len());
        refused.push(put(folder.path(), &name, &bytes));
    };
    // Products that wrap around to the bytes that follow, none, are the worst: (2^62, 1) of 4 bytes is 2^64 bytes.
    for (descr, shape) in [
        ("<f4", "(4611686018427387904, 1)"),
        ("<f4", "(1, 4611686018427387904)"),
        ("<f8", "(2097152, 2097152, 4194304)"),
        ("<f4", "(4294967296, 4294967296)"),
        ("<f2", "(18446744073709551615, 18446744073709551615)"),
        ("|u1", "(18446744073709551616, 1)"),
        ("|u1", "(9223372036854775808, 2)"),
        ("<f4", "(0, 9223372036854775808)"),
        ("<f4", "(9223372036854775808, 0)"),
        ("<f4", "(-1, 1)"),
        ("<f4", "(1e3, 1)"),
        ("<f4", "(1.0, 1)"),
        ("<f4", "(True, 1)"),
        ("<f4", "(+1, 1)"),
        ("<f4", "((1, 1), 1)"),
        ("<f4", "()"),
        ("<f4", "None"),
        ("<f3", "(1, 1)"),
        ("<c8", "(1, 1)"),
        ("|O", "(1, 1)"),
        ("\x1b[31m<f4\x07", "(1, 1)"),
    ] {
        for order in ["False", "True"] {
            let dict = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
            refuse("a.npy", npy(1, &dict, &[]));
            refuse("a.npy", npy(2, &dict, &[0; 12]));
        }
    }
    let long = "9".repeat(60_000);
    for dict in [
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({long}, 1), }}"),
        format!("{{'descr': '{long}', 'fortran_order': False, 'shape': (1, 1), }}"),
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", "1, ".repeat(20_000)),
        "(".repeat(60_000),
        "{".repeat(60_000),
    ] {
        refuse("long.npy", npy(1, &dict, &[0; 4]));
    }
    // Header lengths of nearly 2^16 and 2^32 bytes.
    refuse("len.npy", b"\x93NUMPY\x01\x00\xff\xff{'descr'".to_vec());
    refuse("len.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr'".to_vec());
    refuse("len.npy", b"\x93NUMPY\x03\x00\x00\x00\x00\x80{'descr'".to_vec());

    for d in [0, -1, i32::MIN, i32::MAX, 1 << 30] {
        refuse("d.fvecs", d.to_le_bytes().to_vec());
        refuse("d.bvecs", [&d.to_le_bytes()[..], &[0; 60]].concat());
    }
    // 2^31 · 2^31 · 4 bytes is 2^64.
    for (n, d) in [(1u32 << 31, 1u32 << 31), (u32::MAX, u32::MAX), (0, 1), (1, 0), (0, 0), (u32::MAX, 1)] {
        for data in [0, 4, 100] {
            let bytes = [&n.to_le_bytes()[..], &d.to_le_bytes(), &vec![0; data]].concat();
            refuse("n.fbin", bytes.clone());
            refuse("n.u8bin", bytes);
        }
    }

    let metadata = r#""__metadata__":{"dtype":"f32","flash_kmeans":"1","metric":"euclidean"}"#;
    for (shape, offsets) in [
        ("[4294967296,4294967296]", "[0,0]"),
        ("[4611686018427387904,1]", "[0,0]"),
        ("[4611686018427387904,4]", "[0,16]"),
        ("[18446744073709551616,1]", "[0,4]"),
        ("[-1,1]", "[0,4]"),
        ("[1e400,1]", "[0,4]"),
        ("[0,18446744073709551615]", "[0,0]"),
        ("[1,1]", "[0,18446744073709551615]"),
        ("[1,1]", "[18446744073709551612,0]"),
        ("[1,1]", "[4,0]"),
        ("[1,1]", "[12,16]"),
        ("[2,2]", "[0,4]"),
        ("null", "[0,16]"),
    ] {
        let tensor = format!(r#""centroids":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#);
        refuse("m.safetensors", safetensors(&format!("{{{metadata},{tensor}}}"), &[0; 16]));
    }
    for len in [u64::MAX, 1 << 63, 1 << 40, 100_000_000, 9, 0] {
        refuse("len.safetensors", [&len.to_le_bytes()[..], b"{}      "].concat());
    }
    for header in [
        "[".repeat(1 << 19),
        "{\"a\":".repeat(1 << 17),
        format!("{{{metadata}}}{}", " ".repeat(1 << 20)),
        format!("{{\"{}\":1}}", "a".repeat(1 << 19)),
        r#"{"__metadata__":{"dtype":"f32","flash_kmeans":"\u001b[31m","metric":"euclidean"}}"#.to_string(),
        format!(
            r#"{{"__metadata__":{{"dtype":"{}","flash_kmeans":"1","metric":"euclidean"}}}}"#,
            "f".repeat(1 << 19)
        ),
        // As many tensors as fit, none of them needed.
        format!(
            "{{{metadata}{}}}",
            (0..15_000)
                .map(|i| format!(r#","{i}":{{"dtype":"U8","shape":[],"data_offsets":[{i},{}]}}"#, i + 1))
                .collect::<String>()
        ),
    ] {
        refuse("json.safetensors", safetensors(&header, &[0; 16]));
    }

    for path in &refused {
        use_file(path);
        let error = if path.extension().unwrap() == "safetensors" {
            ModelFile::open(path).map(|_| ()).unwrap_err()
        } else {
            PointFile::open(path).map(|_| ()).unwrap_err()
        };
        assert_typed(&error, path);
    }
}

/// A small valid file of every kind.
fn valid(folder: &Path) -> Vec<PathBuf> {
    let path = |name: &str| folder.join(name);
    write_npy(path("p.npy"), array![[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]].view()).unwrap();
    write_npy(path("h.npy"), Array3::from_elem((2, 3, 2), half::f16::ONE).view()).unwrap();
    let fortran = "{'descr': '<f8', 'fortran_order': True, 'shape': (3, 2), }";
    put(folder, "f.npy", &npy(3, fortran, &[0; 48]));
    for name in ["p.fvecs", "p.fbin"] {
        let mut out = PointWriter::<f32>::create(path(name), &[4, 3]).unwrap();
        out.write_rows(&[1.5; 12]).unwrap();
        out.finish().unwrap();
    }
    for name in ["p.bvecs", "p.u8bin"] {
        let mut out = PointWriter::<u8>::create(path(name), &[4, 3]).unwrap();
        out.write_rows(&[7; 12]).unwrap();
        out.finish().unwrap();
    }
    KMeans::<f32, Ix2>::from_centroids(array![[1.0f32, 2.0], [3.0, 4.0]].view(), Backend::Cpu)
        .unwrap()
        .save(path("m.safetensors"))
        .unwrap();
    KMeans::<f64, Ix3>::from_centroids(Array3::zeros((2, 1, 2)).view(), Backend::Cpu)
        .unwrap()
        .save(path("b.safetensors"))
        .unwrap();
    ["p.npy", "h.npy", "f.npy", "p.fvecs", "p.fbin", "p.bvecs", "p.u8bin", "m.safetensors", "b.safetensors"]
        .map(path)
        .to_vec()
}

#[test]
fn files_cut_anywhere_are_refused() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    for path in valid(folder.path()) {
        let whole = fs::read(&path).unwrap();
        use_file(&path);
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            use_file(&path);
            let name = path.display();
            if path.extension().unwrap() == "safetensors" {
                assert!(ModelFile::open(&path).is_err(), "{name} of {len} bytes");
            } else if let Ok(file) = PointFile::open(&path) {
                // Rows that name their own width end anywhere between two rows.
                assert!(
                    path.extension().unwrap().to_str().unwrap().ends_with("vecs"),
                    "{name} of {len} bytes"
                );
                assert_eq!(whole.len() * file.n_rows(), len * 4, "{name}: as many rows as are whole");
            }
        }
        fs::write(&path, &whole).unwrap();
    }
}

/// One change of a file.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    /// An integer that breaks arithmetic.
    Integer(usize, u64, usize),
    /// A digit of a header's text.
    Digit(usize, u8),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0usize..400;
    let integer = prop_oneof![
        Just(0u64),
        Just(1 << 31),
        Just((1 << 31) - 1),
        Just(1 << 32),
        Just((1 << 32) - 1),
        Just(1 << 62),
        Just(1 << 63),
        Just(u64::MAX),
        any::<u64>()
    ];
    prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at.clone(), proptest::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, b)| Change::Insert(at, b)),
        (at.clone(), 1usize..20).prop_map(|(at, n)| Change::Remove(at, n)),
        (at.clone(), integer, 1usize..9).prop_map(|(at, value, n)| Change::Integer(at, value, n)),
        (at.clone(), b'0'..=b'9').prop_map(|(at, digit)| Change::Digit(at, digit)),
        (at, 1usize..64).prop_map(|(at, n)| Change::Repeat(at, n)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match change {
        Change::Set(at, byte) => bytes[at % len] = *byte,
        Change::Insert(at, more) => {
            bytes.splice(at % len..at % len, more.iter().copied());
        }
        Change::Remove(at, n) => {
            bytes.drain(at % len..(at % len + n).min(len));
        }
        Change::Integer(at, value, n) => {
            let at = at % len;
            let n = (*n).min(len - at);
            bytes[at..at + n].copy_from_slice(&value.to_le_bytes()[..n]);
        }
        Change::Digit(at, digit) => {
            let digits: Vec<usize> = (0..len).filter(|&i| bytes[i].is_ascii_digit()).collect();
            if !digits.is_empty() {
                bytes[digits[at % digits.len()]] = *digit;
            }
        }
        Change::Repeat(at, n) => {
            let at = at % len;
            let part = bytes[at..(at + n).min(len)].to_vec();
            bytes.splice(at..at, part);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_files_are_points_or_errors(
        which in 0usize..9, changes in proptest::collection::vec(change(), 1..5)
    ) {
        static VALID: Mutex<Vec<(String, Vec<u8>)>> = Mutex::new(Vec::new());
        let _alone = alone();
        let folder = tempfile::tempdir().unwrap();
        let (name, mut bytes) = {
            let mut valid_files = VALID.lock().unwrap();
            if valid_files.is_empty() {
                *valid_files = valid(folder.path()).into_iter().map(|path| {
                    (path.file_name().unwrap().to_str().unwrap().to_string(), fs::read(path).unwrap())
                }).collect();
            }
            valid_files[which].clone()
        };
        changes.iter().for_each(|change| apply(&mut bytes, change));
        use_file(&put(folder.path(), &name, &bytes));
    }
}

/// A file's length costs nothing where it has holes: only what is asked for is read.
#[cfg(unix)]
#[test]
fn a_file_larger_than_memory_is_opened_and_read_in_parts() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let rows = 1usize << 34;
    let header = npy(1, &format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows}, 16), }}"), &[]);
    let path = put(folder.path(), "holes.npy", &header);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    if file.set_len((header.len() + rows * 16) as u64).is_err() {
        // The file system has no files of 256 GiB.
        return;
    }
    within(SMALL, "a file of holes", || {
        let file = PointFile::open(&path).unwrap();
        assert_eq!(file.shape(), [rows, 16]);
        let mut row = [1.0f32; 16];
        file.rows(rows - 1..rows, &mut row).unwrap();
        assert_eq!(row, [0.0; 16]);
    });
}

/// A fit that goes on from a checkpoint of these bytes; without bytes, one that writes it.
fn resumed<T: Element>(path: &Path, bytes: &[u8], of: impl Fn(f32) -> T) -> Result<KMeans<T, Ix2>, Error> {
    fs::write(path, bytes).unwrap();
    let points = Array2::from_shape_fn((20, 2), |(i, j)| of((i % 4 * 10 + j) as f32));
    let init = Init::Given(points.slice(ndarray::s![..4, ..]).mapv(|v| v.to_f64()).into_dyn());
    let options = FlashKMeans::new(4).init(init).max_iter(5).tol(0.0).backend(Backend::Cpu);
    let streaming = match bytes.is_empty() {
        true => Streaming::new().checkpoint(path, 1),
        false => Streaming::new().resume(path),
    };
    options.fit_stream(&points, &streaming, &mut ())
}

/// The bytes with the digest that belongs to them.
fn with_digest(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len().saturating_sub(8));
    let digest = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    bytes.extend(digest.to_le_bytes());
    bytes
}

fn checkpoints<T: Element>(of: impl Fn(f32) -> T + Copy) {
    let resumed = |path: &Path, bytes: &[u8]| resumed(path, bytes, of);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fit.state");
    resumed(&path, &[]).unwrap();
    let whole = fs::read(&path).unwrap();
    assert_eq!(with_digest(whole.clone()), whole);
    assert!(resumed(&path, &whole).unwrap().converged());
    for len in 1..whole.len() {
        assert_typed(&resumed(&path, &whole[..len]).unwrap_err(), &path);
        let cut = with_digest(whole[..len].to_vec());
        assert_typed(&resumed(&path, &cut).unwrap_err(), &path);
    }
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x81;
        assert_typed(&resumed(&path, &changed).unwrap_err(), &path);
    }
    // Whoever writes a digest can write any value: the result is finite, or there is none.
    let mut refused = 0;
    for at in (whole.len() % 8..whole.len() - 8).step_by(8) {
        for value in
            [f64::NAN.to_bits(), f64::INFINITY.to_bits(), 1e300f64.to_bits(), u64::MAX, 1 << 63, 1 << 32]
        {
            let mut changed = whole.clone();
            changed[at..at + 8].copy_from_slice(&value.to_le_bytes());
            match resumed(&path, &with_digest(changed)) {
                Ok(model) => {
                    assert!(model.centroids().iter().all(|c| c.is_finite()), "byte {at}: {value:#x}")
                }
                Err(error) => {
                    assert_typed(&error, &path);
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 4 * 2 * 3, "a centroid that is not finite: {refused}");
}

#[test]
fn checkpoints_cut_or_changed_are_refused() {
    let _alone = alone();
    checkpoints(|v| v);
    checkpoints(f64::from);
    checkpoints(half::f16::from_f32);
    checkpoints(half::bf16::from_f32);
}

/// What the command makes of such checkpoints: a result, or one message and exit code 2.
#[test]
fn the_command_resumes_or_refuses() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let points = Array2::from_shape_fn((20, 2), |(i, j)| (i * i + 5 * j) as f32);
    write_npy(folder.path().join("p.npy"), points.view()).unwrap();
    let run = |more: &str| {
        let args = format!("fit p.npy -k 3 --seed 1 --backend cpu --quiet --checkpoint fit.state {more}");
        Command::new(command()).args(args.split_whitespace()).current_dir(folder.path()).output().unwrap()
    };
    assert!(run("--max-iter 2").status.success());
    let path = folder.path().join("fit.state");
    let whole = fs::read(&path).unwrap();
    let mut changed =
        vec![Vec::new(), vec![0; 1 << 16], whole[..40].to_vec(), whole[..whole.len() - 9].to_vec()];
    for at in (26..whole.len() - 8).step_by(8) {
        for value in [0, u64::MAX, f64::NAN.to_bits(), 1 << 40] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            changed.extend((value == u64::MAX).then(|| bytes.clone()));
            changed.push(with_digest(bytes));
        }
    }
    let mut refused = 0;
    for bytes in changed {
        fs::write(&path, &bytes).unwrap();
        let output = run("--resume --centroids c.npy");
        let message = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => assert!(PointFile::open(folder.path().join("c.npy")).unwrap().n_rows() == 3),
            Some(2) => {
                assert!(message.contains("fit.state") && message.lines().count() <= 2, "{message}");
                assert_eq!(fs::read(&path).unwrap(), bytes, "what was refused is kept");
                refused += 1;
            }
            code => panic!("{code:?}: {message}"),
        }
    }
    // Each word of the header, and each value of the centroids.
    assert!(refused >= 4 + 5 * 5 + 2 * 6, "{refused}");
}

/// What a fit holds beside the points, which are not copied, squared or scaled.
#[test]
fn a_fit_makes_no_copy_of_the_points() {
    let _alone = alone();
    let (n, d) = (100_000, 32);
    let points = Array2::from_shape_fn((n, d), |(i, j)| 1.0 + ((i * 37 + j * 11 + i * j) % 101) as f32);
    for metric in [Metric::Euclidean, Metric::Cosine, Metric::Dot, Metric::SphericalDot] {
        for init in [Init::Random, Init::KMeansPlusPlus] {
            let options = FlashKMeans::new(8).metric(metric).init(init).max_iter(3).backend(Backend::Cpu);
            let bytes = n * d * 4;
            let model = within(bytes / 2, &format!("{options:?}"), || options.fit(points.view()).unwrap());
            within(bytes / 2, &format!("labels by {metric}"), || model.predict(points.view()).unwrap());
        }
    }
}
