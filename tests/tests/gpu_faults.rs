//! Every call of the driver made to fail, one after another, over whole runs on a GPU: a typed error, no panic, nothing
//! lost on the device, and the next run is as if nothing had been.
//!
//! One test, as the seam is global to the process. Without a GPU it says so and passes, as in `gpu.rs`.
use flash_kmeans::{Element, Error, FlashKMeans, Init, KMeans};
use flash_kmeans_tests::{CUDA, emulate, has_gpu, is_emulated, is_small};
use half::f16;
use libcuda::fault;
use ndarray::{Array2, Ix2};
use std::process::Command;

/// Codes that drivers fail with; the last has ended the context for good.
const CODES: [u32; 5] = [2, 1, 719, 999, 700];
/// Says to a process started here which of its calls is to fail.
const FAIL_AT: &str = "FLASH_KMEANS_TEST_FAIL_AT";

fn points<T: Element>(of: impl Fn(f32) -> T) -> Array2<T> {
    let (n, d) = if is_emulated() { (60, 9) } else { (3000, 40) };
    Array2::from_shape_fn((n, d), |(i, j)| of(((i * 31 + j * 17) % 251) as f32 / 8.0))
}

/// Labels of a fit, of iterations enough to be replayed as a graph, of predictions, and of fits in a workspace.
fn run<T: Element>(points: &Array2<T>, k: usize) -> Result<Vec<u32>, Error> {
    let given = Init::Given(points.slice(ndarray::s![..k, ..]).mapv(|v| v.to_f64()).into_dyn());
    let options = FlashKMeans::new(k).max_iter(12).tol(0.0).init(given).backend(CUDA);
    let model = options.fit(points.view())?;
    let mut labels = model.labels().to_vec();
    labels.extend(model.predict(points.slice(ndarray::s![..points.nrows() / 4, ..]))?);
    let again = KMeans::<T, Ix2>::from_centroids(model.centroids().view(), CUDA)?;
    labels.extend(again.predict(points.view())?);
    let mut workspace = options.workspace::<T>(1, points.nrows(), points.ncols())?;
    workspace.load(points.view())?;
    for _ in 0..2 {
        workspace.fit()?;
        labels.extend(workspace.labels()?);
    }
    Ok(labels)
}

/// Few clusters.
fn few() -> usize {
    if is_emulated() { 5 } else { 50 }
}

fn assert_typed(error: &Error, context: &str) {
    let is_typed = matches!(
        error,
        Error::Cuda { .. }
            | Error::OutOfDeviceMemory { .. }
            | Error::BackendUnavailable { backend: CUDA, .. }
    );
    assert!(is_typed, "{context}: {error:?}");
}

/// Fails each call of a warm run.
fn sweep<T: Element>(of: impl Fn(f32) -> T, k: usize) {
    let points = points(of);
    let name = format!("{} with {k} clusters", T::DTYPE);
    let expected = run(&points, k).unwrap();
    fault::clear();
    assert!(run(&points, k).unwrap() == expected);
    let calls = fault::calls();
    assert!(calls > 20, "{name}: {calls} calls");
    let usual = fault::held();
    assert_eq!(usual.handles, 0, "{name}: {usual:?}");
    // A device keeps memory for later calls, a little more when calls in between failed. What a failure lost would add
    // up over the sweep.
    let assert_kept = |context: &str| {
        let held = fault::held();
        assert_eq!(held.handles, 0, "{context}: {held:?}");
        let most = |bytes: u64| 3 * bytes + (1 << 20);
        assert!(held.device_bytes <= most(usual.device_bytes), "{context}: {held:?}, usually {usual:?}");
        assert!(held.pinned_bytes <= most(usual.pinned_bytes), "{context}: {held:?}, usually {usual:?}");
        assert_eq!(held.modules, usual.modules, "{context}");
    };

    let step = if is_small() { 17 } else { 1 };
    for n in (1..=calls).step_by(step) {
        let context = format!("{name}: call {n} of {calls}");
        fault::fail_nth(n, CODES[n as usize % CODES.len()]);
        // Releasing calls, and a look at free memory, may fail without harm.
        match run(&points, k) {
            Ok(labels) => assert!(labels == expected, "{context}"),
            Err(error) => assert_typed(&error, &context),
        }
        fault::clear();
        assert_kept(&context);
        assert!(run(&points, k).unwrap() == expected, "{context}: the next run");
        assert_kept(&context);
    }
}

/// Fails a call of a process that has not used the device yet, and then runs.
fn in_this_process(n: u64) {
    emulate();
    let points = points(|v| v);
    if n == u64::MAX {
        run(&points, few()).unwrap();
        println!("calls={} ", fault::calls());
        return;
    }
    fault::fail_nth(n, CODES[n as usize % CODES.len()]);
    let failed = run(&points, few());
    fault::clear();
    if let Err(error) = &failed {
        assert_typed(error, &format!("call {n} of a process"));
    }
    let expected = failed.ok();
    let labels = run(&points, few()).unwrap();
    assert!(expected.is_none_or(|expected| expected == labels));
    let held = fault::held();
    assert_eq!(held.handles, 0, "call {n} of a process: {held:?}");
}

fn fresh_process(n: u64) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "every_driver_call_may_fail", "--nocapture"])
        .env(FAIL_AT, n.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "call {n}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn every_driver_call_may_fail() {
    if let Ok(n) = std::env::var(FAIL_AT) {
        return in_this_process(n.parse().unwrap());
    }
    if !has_gpu() {
        return;
    }
    let many = if is_emulated() { 20 } else { 300 };
    sweep(|v| v, few());
    sweep(f16::from_f32, many);
    // What only the first run of a process does: finding and opening the device, and loading kernels.
    let text = fresh_process(u64::MAX);
    let cold = text.split("calls=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let cold: u64 = cold.parse().unwrap();
    let points = points(|v| v);
    fault::clear();
    run(&points, few()).unwrap();
    let warm = fault::calls();
    assert!(cold > warm, "{cold} calls of a first run, {warm} of a later one");
    // The additional calls are in front, but for kernels that are loaded when they are first launched.
    let step = if is_small() { 23 } else { 1 };
    for n in (1..=(cold - warm + 8).min(cold)).step_by(step) {
        fresh_process(n);
    }
}
