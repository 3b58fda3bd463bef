//! What the tests share.
use emulated_gpu::{Gpu, Timing};
use flash_kmeans::{Backend, Element, Error, FlashKMeans, Init, KMeans, Metric};
use ndarray::{ArrayView1, ArrayView2, Ix3};
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
pub fn build_command(features: &str) -> PathBuf {
    build("flash-kmeans", "flash-kmeans", features)
}

/// Builds executable `name` of a package with `features` beside the default ones.
///
/// Cargo sets `CARGO_BIN_EXE_*` only for tests of the package that has the command, and these live in
/// another one, so that `cargo test -p flash-kmeans` stays light. Cargo therefore does not even build the
/// command for them: this does, into the folder and with the profile of the test that runs.
pub fn build(package: &str, name: &str, features: &str) -> PathBuf {
    // <target>/[<triple>/]<profile>/deps/<test>-<hash>
    let test = std::env::current_exe().unwrap();
    let profile_folder = test.parent().and_then(Path::parent).unwrap();
    let profile = match profile_folder.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--quiet", "--package", package, "--bin", name, "--profile", profile]);
    let mut target = profile_folder.parent().unwrap();
    // A folder named for the machine: the tests were built with `--target`, as for sanitizers.
    if let Some(triple) = target.file_name().filter(|name| {
        name.to_str().is_some_and(|name| name.starts_with(std::env::consts::ARCH) && name.contains('-'))
    }) {
        cargo.arg("--target").arg(triple);
        target = target.parent().unwrap();
    }
    cargo
        .args(["--features", features])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", target);
    assert!(cargo.status().unwrap().success(), "the command did not build");
    profile_folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
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
    emulated_gpu().is_some()
}

/// What GPUs are to be emulated: `FLASH_KMEANS_GPU` is `emulated`, or `emulated-hopper`.
pub fn emulated_gpu() -> Option<Gpu> {
    match std::env::var("FLASH_KMEANS_GPU").as_deref() {
        Ok("emulated") => Some(Gpu::Ampere),
        Ok("emulated-hopper") => Some(Gpu::Hopper),
        _ => None,
    }
}

/// Whether tests on a GPU are to have fewer and smaller cases: for a sanitizer, or an emulation.
pub fn is_small() -> bool {
    is_set("FLASH_KMEANS_SMALL") || is_emulated()
}

/// Has the GPUs be emulated where that is asked for. Before anything else is asked of them.
pub fn emulate() {
    if let Some(gpu) = emulated_gpu() {
        assert!(emulated_gpu::install(gpu, Timing::Late), "the driver was used before");
    }
}

/// Whether there is a GPU to test on. With `FLASH_KMEANS_GPU=emulated` there are two that are emulated.
pub fn has_gpu() -> bool {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let reason = REASON.get_or_init(|| {
        emulate();
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

/// What a model must have in common with one that was fitted in parts: all but the inertia of iterations, which f32
/// points have in the precision of an assignment that is scaled by the points of a part.
pub fn bits_but_costs<T: Element<Centroid = f32>>(model: &KMeans<T, Ix3>) -> Vec<u64> {
    let mut all: Vec<u64> = model.centroids().iter().map(|c| u64::from(c.to_bits())).collect();
    all.extend(model.labels().iter().map(|&label| u64::from(label)));
    for problem in model.problems() {
        all.extend(problem.history.iter().flat_map(|i| [i.changed, i.shift.to_bits()]));
        all.extend([problem.inertia.to_bits(), problem.n_iter as u64, problem.converged.into()]);
    }
    all
}

/// What a fit of one problem gave.
pub struct Outcome<'a, C> {
    /// `(k, d)`.
    pub centroids: ArrayView2<'a, C>,
    /// `(n)`.
    pub labels: ArrayView1<'a, u32>,
    /// `(k)`.
    pub sizes: ArrayView1<'a, u64>,
    /// The sum over all points.
    pub inertia: f64,
}

/// Asserts what every fit promises: each label is that of the nearest of the centroids returned, in f64 and by the metric's
/// definition, the lowest of equally near ones; sizes and inertia belong to them; and centroids are values of the points'
/// type.
pub fn check_outcome<T: Element>(
    points: ArrayView2<'_, T>,
    weights: Option<ArrayView1<'_, f64>>,
    metric: Metric,
    outcome: &Outcome<'_, T::Centroid>,
    context: &str,
) {
    let centroids = outcome.centroids.mapv(|c| c.to_f64());
    let k = centroids.nrows();
    assert!(outcome.centroids.iter().all(|&c| c.is_finite() && T::round_centroid(c) == c), "{context}");
    let (mut inertia, mut magnitude, mut unsure, mut counts) = (0.0, 0.0, 0.0, vec![0; k]);
    for (row, x) in points.outer_iter().enumerate() {
        let x = x.mapv(|x| x.to_f64());
        let apart = |scale: f64, c: ArrayView1<'_, f64>| {
            x.iter().zip(c).fold(0.0, |sum: f64, (x, c)| sum + (x * scale - c).powi(2))
        };
        // What is least for the nearest, and how far roundings may move it.
        let rank = |c: usize| match metric {
            Metric::Euclidean => apart(1.0, centroids.row(c)),
            _ => -x.dot(&centroids.row(c)),
        };
        let label = outcome.labels[row] as usize;
        assert!(label < k, "{context}: row {row} has label {label}, and there are {k} clusters");
        let own = rank(label);
        let slack = match metric {
            Metric::Euclidean => 1e-13 * own,
            _ => x.iter().zip(centroids.row(label)).map(|(x, c)| (x * c).abs()).sum::<f64>() * 1e-13,
        };
        assert!(own.is_finite(), "{context}: row {row}");
        for other in 0..k {
            let rank = rank(other);
            assert!(
                rank >= own - slack,
                "{context}, row {row}: {other} is nearer than {label}: {rank:e} < {own:e}"
            );
            assert!(
                other >= label || rank > own - slack,
                "{context}, row {row}: {other} is as near as {label}"
            );
        }
        let length = x.dot(&x).sqrt();
        let loss = match metric {
            Metric::Cosine if length == 0.0 => 1.0,
            Metric::Cosine => 0.5 * apart(1.0 / length, centroids.row(label)),
            _ => own,
        };
        let loss = loss * weights.map_or(1.0, |weights| weights[row]);
        inertia += loss;
        magnitude += loss.abs();
        if metric == Metric::Cosine {
            // Both are of length 1, with roundings of their own: near each other, that is what is left of them.
            let weight = weights.map_or(1.0, |weights| weights[row]);
            unsure += weight * 1e-14 * ((loss / weight.max(f64::MIN_POSITIVE)).sqrt() + 1e-14);
        }
        counts[label] += 1;
    }
    assert_eq!(outcome.sizes.to_vec(), counts, "{context}");
    let error = (outcome.inertia - inertia).abs();
    assert!(error <= 1e-9 * magnitude + unsure, "{context}: inertia {:e}, not {inertia:e}", outcome.inertia);
}
