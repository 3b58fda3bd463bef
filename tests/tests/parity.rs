//! The same first centroids, points and rule to stop give the fit of scikit-learn: its inertia, labels and count of
//! iterations.
//!
//! `parity.py` runs scikit-learn's side with `FLASH_KMEANS_PYTHON`, or `python3`. Without scikit-learn the test is
//! skipped with a line that says so; `FLASH_KMEANS_REQUIRE_SKLEARN=1` makes that a failure.
use flash_kmeans::io::PointFile;
use flash_kmeans::{Backend, Element, EmptyClusters, FlashKMeans, Init};
use ndarray::{Array2, ArrayView2, Axis, Ix2};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The folder that scikit-learn's fits were written to, or why there is none.
fn scikit_learn() -> Result<tempfile::TempDir, String> {
    let python = std::env::var_os("FLASH_KMEANS_PYTHON").unwrap_or("python3".into());
    let probe = Command::new(&python).args(["-c", "import sklearn"]).output();
    let probe = probe.map_err(|e| format!("{}: {e}", python.display()))?;
    if !probe.status.success() {
        return Err(format!("{} has no scikit-learn", python.display()));
    }
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity.py");
    let done = Command::new(&python).arg(script).arg(folder.path()).output().unwrap();
    assert!(done.status.success(), "parity.py failed:\n{}", String::from_utf8_lossy(&done.stderr));
    Ok(folder)
}

fn read(folder: &Path, case: &str, what: &str) -> Array2<f64> {
    let file = PointFile::open(folder.join(format!("{case}.{what}.npy"))).unwrap();
    file.read::<f64>().unwrap().into_owned().into_dimensionality::<Ix2>().unwrap()
}

fn distance(x: ndarray::ArrayView1<'_, f64>, c: ndarray::ArrayView1<'_, f64>) -> f64 {
    x.iter().zip(c).map(|(x, c)| (x - c) * (x - c)).sum()
}

/// Fits `points` as `case` says and compares; returns what differs.
fn compare<T: Element>(folder: &Path, case: &Value, convert: impl Fn(f64) -> T) -> Result<(), String> {
    let name = case["name"].as_str().unwrap();
    let points = read(folder, name, "points");
    let typed = points.mapv(convert);
    let init = read(folder, name, "init");
    let empty = case["empty"].as_u64().unwrap_or(0);
    let mut options = FlashKMeans::new(case["k"].as_u64().unwrap() as usize)
        .init(Init::Given(init.into_dyn()))
        .tol(case["tol"].as_f64().unwrap())
        .max_iter(case["max_iter"].as_u64().unwrap() as usize)
        .backend(Backend::Cpu);
    if empty > 0 {
        options = options.empty_clusters(EmptyClusters::Relocate);
    }
    let model = if case["weighted"] == true {
        let file = PointFile::open_column(folder.join(format!("{name}.weights.npy"))).unwrap();
        let weights = file.read::<f64>().unwrap().into_owned().into_dimensionality::<Ix2>().unwrap();
        options.fit_weighted(typed.view(), weights.column(0), &mut ()).unwrap()
    } else {
        options.fit(typed.view()).unwrap()
    };

    let theirs = case["inertia"].as_f64().unwrap();
    if (model.inertia() - theirs).abs() > 1e-6 * theirs {
        return Err(format!("{name}: inertia {} here, {theirs} there", model.inertia()));
    }
    let n_iter = case["n_iter"].as_u64().unwrap() as usize;
    if model.n_iter() != n_iter {
        return Err(format!("{name}: {} iterations here, {n_iter} there", model.n_iter()));
    }
    let centroids = model.centroids().mapv(Element::to_f64);
    let mut labels = read(folder, name, "labels").column(0).mapv(|label| label as u32);
    if empty > 1 {
        // Which of them is given which of the farthest points, scikit-learn leaves open.
        let first = |of: u32| labels.iter().position(|&label| label == of).map(|row| model.labels()[row]);
        labels = labels.mapv(|label| first(label).unwrap_or(label));
    }
    for (row, (&ours, &theirs)) in model.labels().iter().zip(&labels).enumerate() {
        let (ours, theirs) = (ours as usize, theirs as usize);
        if ours != theirs && !tied(points.view(), row, centroids.view(), [ours, theirs]) {
            return Err(format!("{name}: row {row} has label {ours} here, {theirs} there, and it is no tie"));
        }
    }
    Ok(())
}

/// Whether the row is as far from both centroids, to the precision of an f32 centroid.
fn tied(points: ArrayView2<'_, f64>, row: usize, centroids: ArrayView2<'_, f64>, labels: [usize; 2]) -> bool {
    let [a, b] = labels.map(|l| distance(points.index_axis(Axis(0), row), centroids.index_axis(Axis(0), l)));
    (a - b).abs() <= 1e-6 * a.max(b)
}

#[test]
fn fits_are_those_of_scikit_learn() {
    let folder = match scikit_learn() {
        Ok(folder) => folder,
        Err(why) if std::env::var("FLASH_KMEANS_REQUIRE_SKLEARN").is_ok_and(|v| v == "1") => {
            panic!("FLASH_KMEANS_REQUIRE_SKLEARN is set: {why}")
        }
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let text = std::fs::read_to_string(folder.path().join("cases.json")).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    let cases = written["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 66);
    let mut differences = Vec::new();
    for case in cases {
        differences.extend(compare(folder.path(), case, |v| v).err().map(|e| format!("f64: {e}")));
        differences.extend(compare(folder.path(), case, |v| v as f32).err().map(|e| format!("f32: {e}")));
    }
    assert!(differences.is_empty(), "scikit-learn {}:\n{}", written["scikit_learn"], differences.join("\n"));
}
