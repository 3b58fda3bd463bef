//! The command, driven as its users drive it: arguments in, exit code, stdout, stderr and files out.
use flash_kmeans::io::{PointFile, PointWriter, write_npy};
use flash_kmeans::{Backend, FlashKMeans, Metric};
use flash_kmeans_tests::command;
use half::f16;
use ndarray::{Array2, Array3, Ix2, array};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder for one test, which the command runs in.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, args: &str) -> Output {
        let digits = digits().display().to_string();
        let args = args.split_whitespace().map(|arg| if arg == "DIGITS" { digits.as_str() } else { arg });
        Command::new(command())
            .args(args)
            .current_dir(self.folder.path())
            .env_remove("RUST_LOG")
            .output()
            .unwrap()
    }

    /// Runs what must succeed; its stdout.
    fn good(&self, args: &str) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs what must be refused: exit code 2, a message that has each of `needles`, and no file more.
    fn refused(&self, args: &str, needles: &[&str]) {
        let before = self.files();
        let output = self.run(args);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args}: {message}");
        assert_eq!(text(&output.stdout), "", "{args}");
        for needle in needles {
            assert!(message.contains(needle), "{args}: no {needle:?} in {message}");
        }
        assert!(!message.contains("panicked"), "{args}: {message}");
        assert_eq!(self.files(), before, "{args}: files were written");
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The values of a file of uint32, which is no type of points: the end of a `.npy` file.
    fn labels(&self, name: &str, count: usize) -> Vec<u32> {
        let bytes = std::fs::read(self.path(name)).unwrap();
        let header = bytes.len() - 4 * count;
        assert_eq!(header % 64, 0);
        assert!(text(&bytes[..header]).contains("'<u4'"));
        bytes[header..].as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
    }

    /// Twelve points about three places, as float32.
    fn three_blobs(&self, name: &str) -> Array2<f32> {
        let points = blobs();
        write_npy(self.path(name), points.view()).unwrap();
        points
    }
}

fn blobs() -> Array2<f32> {
    Array2::from_shape_fn((12, 2), |(i, j)| [0.0, 50.0, 100.0][i % 3] * (j + 1) as f32 + (i / 3) as f32)
}

fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/digits.npy")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(line: &str) -> Value {
    assert_eq!(line.trim_end().lines().count(), 1, "one object, one line: {line}");
    serde_json::from_str(line).unwrap()
}

#[test]
fn rows_that_are_not_finite_may_be_left_out() {
    let place = Place::new();
    let points = place.three_blobs("p.npy");
    place.good("fit p.npy -k 3 --seed 1 --backend cpu --labels all.npy --centroids all_c.npy");
    // Two rows more, at the begin and in between.
    let mut rows: Vec<[f32; 2]> = points.rows().into_iter().map(|row| [row[0], row[1]]).collect();
    rows.insert(0, [f32::NAN, 1.0]);
    rows.insert(7, [2.0, f32::NEG_INFINITY]);
    write_npy(place.path("holes.npy"), Array2::from(rows).view()).unwrap();
    place.refused("fit holes.npy -k 3 --backend cpu", &["row 0", "NaN"]);
    let options = "-k 3 --seed 1 --backend cpu --nan skip-row --labels l.npy --centroids c.npy";
    let output = place.run(&format!("fit holes.npy {options}"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("2 rows"), "{}", text(&output.stderr));
    let mut labels = place.labels("l.npy", 14);
    assert_eq!((labels.remove(7), labels.remove(0)), (u32::MAX, u32::MAX));
    assert_eq!(labels, place.labels("all.npy", 12));
    assert_eq!(std::fs::read(place.path("c.npy")).unwrap(), std::fs::read(place.path("all_c.npy")).unwrap());
    // Fewer are left than there are to be clusters.
    place.refused("fit holes.npy -k 13 --backend cpu --nan skip-row", &["13", "12"]);
    place.refused("fit holes.npy -k 3 --nan skip-row --memory 1", &["skip-row"]);
}

#[test]
fn weights_are_those_of_the_library_in_memory_and_streamed() {
    let place = Place::new();
    let points = place.three_blobs("points.npy");
    let weights: ndarray::Array1<f64> = (0..12).map(|row| 0.5 + f64::from(row % 5)).collect();
    write_npy(place.path("weights.npy"), weights.view()).unwrap();
    write_npy(place.path("f32.npy"), weights.mapv(|w| w as f32).view()).unwrap();
    let model = FlashKMeans::new(3).seed(4).max_iter(100).backend(Backend::Cpu);
    let model = model.fit_weighted(points.view(), weights.view(), &mut ()).unwrap();
    for more in
        ["--weights weights.npy", "--weights f32.npy", "--weights weights.npy --checkpoint s --every 5"]
    {
        let told =
            json(&place.good(&format!("fit points.npy -k 3 --seed 4 --json --centroids c.npy {more}")));
        assert_eq!(told["inertia"], model.inertia(), "{more}");
        let centroids = PointFile::open(place.path("c.npy")).unwrap().read::<f32>().unwrap().into_owned();
        assert_eq!(centroids, model.centroids().view().into_dyn(), "{more}");
    }

    // Rows that are left out take their weights with them.
    let mut with_nan = Array2::from_elem((13, points.ncols()), f32::NAN);
    with_nan.slice_mut(ndarray::s![1.., ..]).assign(&points);
    write_npy(place.path("nan.npy"), with_nan.view()).unwrap();
    let more = std::iter::once(99.0).chain(weights.iter().copied()).collect::<ndarray::Array1<f64>>();
    write_npy(place.path("more.npy"), more.view()).unwrap();
    let told = json(&place.good("fit nan.npy -k 3 --seed 4 --json --nan skip-row --weights more.npy"));
    assert_eq!(told["inertia"], model.inertia());

    // Two problems, (2, 6) weights.
    let batch = points.clone().into_shape_with_order((2, 6, points.ncols())).unwrap();
    write_npy(place.path("batch.npy"), batch.view()).unwrap();
    let of_batch = weights.clone().into_shape_with_order((2, 6)).unwrap();
    write_npy(place.path("of-batch.npy"), of_batch.view()).unwrap();
    let options = FlashKMeans::new(2).max_iter(100).backend(Backend::Cpu);
    let fitted = options.fit_weighted(batch.view(), of_batch.view(), &mut ()).unwrap();
    let told = json(&place.good("fit batch.npy -k 2 --json --weights of-batch.npy"));
    assert_eq!(told["inertia"], fitted.inertia());

    place.refused("fit points.npy -k 3 --weights more.npy", &["more.npy", "[13]", "[12]"]);
    place.refused("fit points.npy -k 3 --weights of-batch.npy", &["[2, 6]", "[12]"]);
    place.refused("fit points.npy -k 3 --weights points.npy", &["shape"]);
    place.refused("fit points.npy -k 3 --weights batch.npy", &["3 dimensions"]);
    place.refused("fit points.npy -k 3 --weights none.npy", &["none.npy"]);
    place.refused("fit points.npy -k 3 --weights f32.npy --labels f32.npy", &["reads or writes already"]);
    let bad = ndarray::Array1::from_elem(12, -0.5);
    write_npy(place.path("bad.npy"), bad.view()).unwrap();
    place.refused("fit points.npy -k 3 --weights bad.npy", &["weights is -0.5 in row 0", "not negative"]);
}

#[test]
fn metrics_are_those_of_the_library_and_a_model_keeps_its_own() {
    let place = Place::new();
    let points = PointFile::open(digits()).unwrap().read::<f32>().unwrap().into_owned();
    let points = points.into_dimensionality::<Ix2>().unwrap();
    for metric in [Metric::Cosine, Metric::Dot, Metric::SphericalDot] {
        let options = FlashKMeans::new(10).metric(metric).max_iter(100);
        let model = options.fit(points.view()).unwrap();
        let told = json(&place.good(&format!(
            "fit DIGITS -k 10 --metric {metric} --json --labels l.npy --centroids c.npy --model m.safetensors"
        )));
        assert_eq!((&told["metric"], &told["backend"]), (&Value::from(metric.to_string()), &"cpu".into()));
        assert_eq!(told["inertia"], model.inertia());
        assert_eq!(place.labels("l.npy", 1797), model.labels().to_vec());
        let expected = model.transform(points.view()).unwrap();
        for given in ["--model m.safetensors".to_string(), format!("--centroids c.npy --metric {metric}")] {
            place.good(&format!("predict DIGITS {given} --labels p.npy --distances d.npy"));
            assert_eq!(place.labels("p.npy", 1797), model.labels().to_vec());
            place.good(&format!("transform DIGITS {given} --distances t.npy"));
            let read = |name: &str| {
                let read = PointFile::open(place.path(name)).unwrap().read::<f32>().unwrap().into_owned();
                read.into_dimensionality::<Ix2>().unwrap()
            };
            assert_eq!(read("t.npy"), expected);
        }
        place.refused(
            "predict DIGITS --model m.safetensors --metric euclidean --labels q.npy",
            &[&format!("by the metric {metric}"), "euclidean"],
        );
    }
}

/// Which the CPU has no use for.
#[test]
fn a_precision_is_a_permission() {
    let place = Place::new();
    let exact = "fit DIGITS -k 10 --backend cpu --labels l.npy --centroids c.npy --json";
    place.good(exact);
    let told = place.good(&format!("{} --precision tf32", exact.replace("l.npy", "m.npy")));
    assert_eq!(json(&told)["precision"], "exact");
    assert_eq!(place.labels("l.npy", 1797), place.labels("m.npy", 1797));
    let told =
        place.good("predict DIGITS --centroids c.npy --backend cpu --labels p.npy --precision tf32 --json");
    assert_eq!(json(&told)["precision"], "exact");
    assert_eq!(place.labels("l.npy", 1797), place.labels("p.npy", 1797));
}

#[test]
fn clusters_without_points_are_relocated_where_that_is_asked() {
    let place = Place::new();
    let points = ndarray::array![[0.0f32], [0.5], [1.0], [8.0], [9.0]];
    write_npy(place.path("p.npy"), points.view()).unwrap();
    write_npy(place.path("first.npy"), ndarray::array![[0.0f32], [8.5], [1000.0]].view()).unwrap();
    let fit = "fit p.npy -k 3 --init first.npy --backend cpu --labels l.npy --tol 0";
    place.good(fit);
    assert_eq!(place.labels("l.npy", 5), [0, 0, 0, 1, 1]);
    place.good(&format!("{fit} --empty-clusters relocate --report r.html"));
    assert_eq!(place.labels("l.npy", 5), [0, 0, 2, 1, 1]);
    assert!(std::fs::read_to_string(place.path("r.html")).unwrap().contains("relocate"));
    place.refused(&format!("{fit} --empty-clusters split"), &["split", "keep", "relocate"]);
}

#[test]
fn fit_then_predict_gives_the_same_labels() {
    let place = Place::new();
    let options = "-k 10 --seed 0 --backend cpu";
    let out = place.good(&format!("fit DIGITS {options} --centroids c.npy --labels fit.npy --json"));
    let out = json(&out);
    place.good("predict DIGITS --centroids c.npy --labels predict.npy --backend cpu");
    let (fitted, predicted) = (place.labels("fit.npy", 1797), place.labels("predict.npy", 1797));
    assert_eq!(fitted, predicted);
    assert_eq!(place.files(), ["c.npy", "fit.npy", "predict.npy"]);

    // The command does what the library does.
    let file = PointFile::open(digits()).unwrap();
    let points = file.read::<f32>().unwrap();
    let points = points.view().into_dimensionality::<Ix2>().unwrap();
    let model = FlashKMeans::new(10).max_iter(100).backend(Backend::Cpu).fit(points).unwrap();
    assert_eq!(model.labels().to_vec(), fitted);
    assert_eq!(out["inertia"].as_f64(), Some(model.inertia()));
    let centroids = PointFile::open(place.path("c.npy")).unwrap();
    assert_eq!(centroids.read::<f32>().unwrap(), model.centroids().view().into_dyn());
}

#[test]
fn json_is_one_object_with_every_key() {
    let place = Place::new();
    let output = place.run("fit DIGITS -k 10 --seed 0 --backend cpu --json");
    let out = json(&text(&output.stdout));
    let keys: Vec<&str> = out.as_object().unwrap().keys().map(String::as_str).collect();
    for key in [
        "n",
        "d",
        "k",
        "batch",
        "metric",
        "precision",
        "n_iter",
        "inertia",
        "converged",
        "backend",
        "device",
        "seconds",
    ] {
        assert!(keys.contains(&key), "{key}");
    }
    assert_eq!(
        (&out["n"], &out["d"], &out["k"], &out["batch"]),
        (&1797.into(), &64.into(), &10.into(), &1.into())
    );
    assert_eq!(out["backend"], "cpu");
    assert!(out["n_iter"].as_u64() >= Some(1) && out["inertia"].as_f64() > Some(1e6));
    assert!(out["converged"].is_boolean() && out["seconds"].as_f64() > Some(0.0));
}

#[test]
fn results_go_to_stdout_and_logs_to_stderr() {
    let place = Place::new();
    let output = place.run("fit DIGITS -k 3 --dtype f64");
    let (out, log) = (text(&output.stdout), text(&output.stderr));
    assert!(out.contains("1,797") && out.contains("inertia") && out.contains("iterations"), "{out}");
    assert!(!out.contains("INFO") && log.contains("INFO"), "{log}");
    // Auto chose, and says so.
    assert!(log.contains("backend cpu"), "{log}");
    assert!(!log.contains('\x1b'), "colours are for terminals");

    let output = place.run("fit DIGITS -k 3 --backend cpu --quiet");
    assert_eq!((text(&output.stdout), text(&output.stderr)), (String::new(), String::new()));
    let output = place.run("fit DIGITS -k 3 --backend cpu --quiet --json");
    json(&text(&output.stdout));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn pictures_are_drawn() {
    let place = Place::new();
    place.good("fit DIGITS -k 10 --picture p.svg --backend cpu");
    place.good("fit DIGITS -k 10 --report p.html --backend cpu");
    let svg = std::fs::read_to_string(place.path("p.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("first principal component"));
    assert!(!svg.contains("NaN") && !svg.contains("href"), "self-contained");
    let html = std::fs::read_to_string(place.path("p.html")).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains("<svg") && html.contains("digits.npy"));
    assert!(html.contains("Inertia by iteration") && html.contains("k-means++"));
}

#[test]
fn every_format_and_type_clusters_alike() {
    let place = Place::new();
    let points = place.three_blobs("p.npy");
    let bytes: Vec<u8> = points.iter().map(|v| *v as u8).collect();
    let values = points.as_slice().unwrap();
    write_npy(place.path("f64.npy"), points.mapv(f64::from).view()).unwrap();
    write_npy(place.path("f16.npy"), points.mapv(f16::from_f32).view()).unwrap();
    write_npy(place.path("u8.npy"), Array2::from_shape_vec((12, 2), bytes.clone()).unwrap().view()).unwrap();
    for name in ["p.fvecs", "p.fbin"] {
        let mut out = PointWriter::<f32>::create(place.path(name), &[12, 2]).unwrap();
        out.write_rows(values).unwrap();
        out.finish().unwrap();
    }
    for name in ["p.bvecs", "p.u8bin"] {
        let mut out = PointWriter::<u8>::create(place.path(name), &[12, 2]).unwrap();
        out.write_rows(&bytes).unwrap();
        out.finish().unwrap();
    }
    // First centroids from a file make a plain Lloyd run, the same for all.
    write_npy(place.path("start.npy"), points.slice(ndarray::s![..3, ..])).unwrap();
    let inputs = ["p.npy", "f64.npy", "f16.npy", "u8.npy", "p.fvecs", "p.fbin", "p.bvecs", "p.u8bin"];
    let expected: Vec<u32> = (0..12).map(|i| i % 3).collect();
    for input in inputs {
        for dtype in ["", "--dtype f32", "--dtype f64", "--dtype f16", "--dtype bf16"] {
            let args = format!("fit {input} -k 3 --init start.npy --backend cpu --labels l.npy {dtype}");
            place.good(&args);
            assert_eq!(place.labels("l.npy", 12), expected, "{args}");
        }
    }
}

#[test]
fn batches_are_separate_problems() {
    let place = Place::new();
    let points = blobs();
    let batch = Array3::from_shape_fn((2, 12, 2), |(b, i, j)| points[(i, j)] + 7.0 * b as f32);
    write_npy(place.path("batch.npy"), batch.view()).unwrap();
    write_npy(place.path("start.npy"), points.slice(ndarray::s![..3, ..])).unwrap();
    let args = "fit batch.npy -k 3 --init start.npy --backend cpu --centroids c.npy --labels l.npy --json --picture p.svg";
    let out = json(&place.good(args));
    assert_eq!((&out["batch"], &out["n"]), (&2.into(), &12.into()));
    let labels = place.labels("l.npy", 24);
    assert_eq!(labels, (0..24).map(|i| i % 3).collect::<Vec<u32>>());
    assert_eq!(PointFile::open(place.path("c.npy")).unwrap().shape(), [2, 3, 2]);
    place.good("predict batch.npy --centroids c.npy --labels again.npy --backend cpu");
    assert_eq!(place.labels("again.npy", 24), labels);
    assert!(place.good("fit batch.npy -k 3 --backend cpu").contains("problem"));
}

#[test]
fn lloyd_runs_as_long_as_it_is_told() {
    let place = Place::new();
    let out = json(&place.good("fit DIGITS -k 40 --init random --tol 0 --max-iter 3 --backend cpu --json"));
    assert_eq!((out["n_iter"].as_u64(), &out["converged"]), (Some(3), &false.into()));
    // Until no label changes, long before the limit.
    let out = json(&place.good("fit DIGITS -k 3 --tol 0 --max-iter 10000 --backend cpu --json"));
    assert!(out["n_iter"].as_u64() < Some(10000) && out["converged"] == true);
}

#[test]
fn fits_repeat_bit_for_bit() {
    let place = Place::new();
    for (init, seed) in [("random", 1), ("k-means++", 1)] {
        for name in ["a.npy", "b.npy"] {
            place.good(&format!(
                "fit DIGITS -k 7 --init {init} --seed {seed} --backend cpu --centroids {name}"
            ));
        }
        assert_eq!(std::fs::read(place.path("a.npy")).unwrap(), std::fs::read(place.path("b.npy")).unwrap());
    }
}

#[test]
fn generated_files_are_reproducible() {
    let place = Place::new();
    let options = "--n 5000 --d 24 --clusters 5";
    place.good(&format!("generate {options} --seed 9 a.npy"));
    place.good(&format!("generate {options} --seed 9 b.npy"));
    place.good(&format!("generate {options} --seed 10 other.npy"));
    let read = |name| std::fs::read(place.path(name)).unwrap();
    assert_eq!(read("a.npy"), read("b.npy"));
    assert_ne!(read("a.npy"), read("other.npy"));
    // The points of a seed are the same on every machine and in every version.
    let file = PointFile::open(place.path("a.npy")).unwrap();
    let points = file.read::<f32>().unwrap();
    let sum = |rows: &[f32]| rows.iter().fold(0u32, |sum, v| sum.rotate_left(5) ^ v.to_bits());
    assert_eq!(sum(points.as_slice().unwrap()), GENERATED);

    for name in ["a.fbin", "a.fvecs"] {
        place.good(&format!("generate {options} --seed 9 {name}"));
        assert_eq!(PointFile::open(place.path(name)).unwrap().read::<f32>().unwrap(), points);
    }
    place.good(&format!("generate {options} --dtype f16 --batch 2 half.npy"));
    assert_eq!(PointFile::open(place.path("half.npy")).unwrap().shape(), [2, 5000, 24]);
    // Blobs are found again: at a spread of a tenth, the inertia is that of the noise alone.
    place.good("generate --n 4000 --d 16 --clusters 4 --spread 0.1 blobs.npy");
    let out = json(&place.good("fit blobs.npy -k 4 --backend cpu --json"));
    let noise = out["inertia"].as_f64().unwrap() / (4000.0 * 16.0 * 0.01);
    assert!((0.97..1.03).contains(&noise), "{noise}");
}
const GENERATED: u32 = 2_471_637_554;

#[test]
fn devices_lists_the_cpu() {
    let place = Place::new();
    assert!(place.good("devices").starts_with("cpu"));
    let first: Value = serde_json::from_str(place.good("devices --json").lines().next().unwrap()).unwrap();
    assert_eq!(first["backend"], "cpu");
}

#[test]
fn bench_tells_times_and_rates() {
    let place = Place::new();
    let options = "bench -n 3000 -d 5 -k 4 --batch 2 --repeats 3 --iterations 4 --backend cpu";
    for (more, dtype, init) in [
        ("", "f32", "k-means++"),
        ("--dtype f16 --init random", "f16", "random"),
        ("--dtype f64 --init k-means||", "f64", "k-means||"),
    ] {
        let output = place.run(&format!("{options} {more} --seed 3 --quiet --json"));
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
        let out = json(&text(&output.stdout));
        let asked = ["n", "d", "k", "batch", "seed", "iterations", "repeats"].map(|key| out[key].as_u64());
        assert_eq!(asked, [3000, 5, 4, 2, 3, 4, 3].map(Some));
        let words = ["dtype", "init", "backend", "precision"].map(|key| out[key].as_str());
        assert_eq!(words, [dtype, init, "cpu", "exact"].map(Some));
        assert!(out["device"].is_string());
        for key in ["call_seconds", "iteration_seconds", "assign_seconds"] {
            let [median, min, max] = ["median", "min", "max"].map(|of| out[key][of].as_f64().unwrap());
            assert!(0.0 <= min && min <= median && median <= max && max > 0.0, "{key}: {out}");
        }
        // Stages that only a GPU tells apart.
        assert!(["sort_seconds", "sums_seconds", "finalise_seconds"].iter().all(|key| out[*key].is_null()));
        let flop = 2.0 * f64::from(2 * 3000 * 5 * 4);
        let rate = flop / out["assign_seconds"]["median"].as_f64().unwrap();
        assert!((out["assign_flop_per_second"].as_f64().unwrap() / rate - 1.0).abs() < 1e-9);
        let rate = 6000.0 / out["iteration_seconds"]["median"].as_f64().unwrap();
        assert!((out["points_per_second"].as_f64().unwrap_or(rate) / rate - 1.0).abs() < 1e-9);
    }
    let out = place.good(options);
    for word in ["2 problems of 3,000 points", "call", "iteration", "points/s", "assign", "FLOP/s"] {
        assert!(out.contains(word), "no {word} in {out}");
    }
    assert_eq!(text(&place.run(&format!("{options} --quiet")).stdout), "");
    // From as many centroids as there are points the first iteration is the last: there is none to be timed by itself.
    let out = json(&place.good("bench -n 4 -k 4 -d 2 --backend cpu --json"));
    assert!(out["iteration_seconds"].is_null() && out["points_per_second"].is_null(), "{out}");
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn help_tells_the_exit_codes() {
    let place = Place::new();
    for args in ["--help", "fit --help", "predict --help", "generate --help", "bench --help"] {
        let help = place.good(args);
        assert!(help.contains("Exit codes") && help.contains("bad input"), "{args}");
    }
    place.refused("", &["Usage"]);
    place.refused("cluster", &["cluster"]);
}

#[test]
fn bad_options_are_refused() {
    let place = Place::new();
    place.three_blobs("p.npy");
    let out = "--centroids c.npy --labels l.npy --picture p.svg";
    for (args, needles) in [
        ("fit p.npy", &["--clusters"][..]),
        ("fit p.npy -k 0", &["--clusters", "at least one"]),
        ("fit p.npy -k -1", &["-1"]),
        ("fit p.npy -k 13", &["p.npy", "13", "12"]),
        ("fit p.npy -k 3 --precision half", &["half", "exact", "tf32"]),
        ("fit p.npy -k 3 --metric manhattan", &["manhattan", "euclidean", "spherical-dot"]),
        ("fit p.npy -k 3 --init farthest", &["farthest", "k-means++"]),
        ("fit p.npy -k 3 --max-iter 0", &["--max-iter"]),
        ("fit p.npy -k 3 --tol -1", &["--tol"]),
        ("fit p.npy -k 3 --tol nan", &["--tol"]),
        ("fit p.npy -k 3 --dtype f8", &["f8"]),
        ("fit p.npy -k 3 --backend tpu", &["tpu", "auto"]),
        ("fit p.npy -k 3 --backend cuda:x", &["cuda:x"]),
        // No machine has that many.
        ("fit p.npy -k 3 --backend cuda:4000000", &["cuda:4000000", "--backend cpu"]),
        ("fit p.npy -k 3 --dtype f64 --backend cuda", &["cuda", "--backend cpu"]),
    ] {
        place.refused(&format!("{args} {out}"), needles);
    }
    for (args, needles) in [
        ("bench -k 0", &["--clusters", "at least one"][..]),
        ("bench -n 5 -k 6", &["6 clusters", "5 points", "-k"]),
        ("bench -n 9000000000000000000 -d 9000000000000000000", &["half of the machine's memory", "--n"]),
        ("bench --init start.npy", &["start.npy", "k-means++"]),
        ("bench --iterations 0", &["--iterations"]),
        ("bench --repeats 0", &["--repeats"]),
        ("bench --backend tpu", &["tpu", "auto"]),
        ("bench --backend cuda:4000000", &["cuda:4000000", "--backend cpu"]),
        ("bench --dtype f64 --backend cuda", &["cuda", "--backend cpu"]),
        ("bench --backend cpu --devices 0", &["--backend", "--devices"]),
        ("generate --n 0 --d 2 g.npy", &["--n"]),
        ("generate --n 5 --d 2 g.csv", &["g.csv", ".fvecs"]),
        ("generate --n 5 --d 2 --dtype f16 g.fbin", &["g.fbin", "<f2"]),
        ("generate --n 5 --d 2 --batch 2 g.fvecs", &["g.fvecs", "batch"]),
        ("generate --n 5 --d 2 --spread -1 g.npy", &["--spread"]),
        ("generate --n 18446744073709551615 --d 2 g.npy", &["g.npy", "large"]),
        ("generate --n 5 --d 2 no/such/g.npy", &["no/such/g.npy"]),
    ] {
        place.refused(args, needles);
    }
}

/// Without a usable GPU `--backend cuda` is bad input; with one it is not.
#[test]
fn a_gpu_that_is_not_there_is_refused() {
    let place = Place::new();
    place.three_blobs("p.npy");
    let gpus = place.good("devices").lines().filter(|line| line.starts_with("cuda")).count();
    if gpus == 0 {
        place.refused("fit p.npy -k 3 --backend cuda --labels l.npy", &["cuda", "--backend cpu", "devices"]);
        place.refused("bench --backend cuda", &["cuda", "--backend cpu", "devices"]);
    }
}

#[test]
fn bad_files_are_refused() {
    let place = Place::new();
    place.three_blobs("p.npy");
    let good = std::fs::read(place.path("p.npy")).unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(place.path(name), bytes).unwrap();
    put("empty.npy", b"");
    put("truncated.npy", &good[..good.len() - 1]);
    put("trailing.npy", &[&good[..], b"x"].concat());
    put("magic.npy", b"this is a text file");
    put("points.csv", b"1,2,3");
    put("row.fvecs", &[1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    std::fs::create_dir(place.path("folder.npy")).unwrap();
    let mut points = blobs().to_owned();
    points[(7, 1)] = f32::NAN;
    write_npy(place.path("nan.npy"), points.view()).unwrap();
    points[(7, 1)] = f32::INFINITY;
    write_npy(place.path("inf.npy"), points.view()).unwrap();
    points[(7, 1)] = 1e6;
    write_npy(place.path("large.npy"), points.view()).unwrap();

    for (input, needles) in [
        ("absent.npy", &["absent.npy", "No such file"][..]),
        ("empty.npy", &["empty.npy", "is empty"]),
        ("truncated.npy", &["truncated.npy", "is truncated"]),
        ("trailing.npy", &["trailing.npy", "trailing bytes"]),
        ("magic.npy", &["magic.npy", "not a .npy file"]),
        ("points.csv", &["points.csv", "unknown extension .csv"]),
        ("folder.npy", &["folder.npy", "not a regular file"]),
        ("row.fvecs", &["row.fvecs", "row 1 has 9 columns"]),
        ("nan.npy", &["nan.npy", "row 7", "column 1", "NaN"]),
        ("inf.npy", &["inf.npy", "row 7", "column 1", "inf"]),
        ("large.npy --dtype f16", &["large.npy", "row 7", "--dtype f32"]),
    ] {
        let out = "--backend cpu --centroids c.npy --labels l.npy --picture p.svg --json";
        place.refused(&format!("fit {input} -k 2 {out}"), needles);
    }

    // First centroids.
    write_npy(place.path("k2.npy"), array![[1.0f32, 2.0], [3.0, 4.0]].view()).unwrap();
    write_npy(place.path("d3.npy"), array![[1.0f32, 2.0, 3.0], [3.0, 4.0, 5.0]].view()).unwrap();
    write_npy(place.path("cnan.npy"), array![[1.0f32, 2.0], [3.0, f32::NAN]].view()).unwrap();
    place.refused("fit p.npy -k 3 --init k2.npy --labels l.npy", &["k2.npy", "[3, 2]", "[2, 2]"]);
    place.refused("fit p.npy -k 2 --init d3.npy --labels l.npy", &["d3.npy", "[2, 3]"]);
    place.refused("fit p.npy -k 2 --init cnan.npy --labels l.npy", &["cnan.npy", "row 1", "NaN"]);
    place.refused("fit p.npy -k 2 --init absent.npy --labels l.npy", &["absent.npy"]);
    place.refused(
        "predict p.npy --centroids d3.npy --labels l.npy",
        &["p.npy", "d3.npy", "[12, 2]", "[2, 3]"],
    );
    place.refused("predict p.npy --centroids cnan.npy --labels l.npy --backend cpu", &["cnan.npy", "row 1"]);
    place.refused("predict nan.npy --centroids k2.npy --labels l.npy --backend cpu", &["nan.npy", "row 7"]);
    place.refused("predict p.npy --centroids magic.npy --labels l.npy", &["magic.npy"]);
}

#[test]
fn outputs_that_cannot_be_written_are_refused_before_the_fit() {
    let place = Place::new();
    place.three_blobs("p.npy");
    std::fs::create_dir(place.path("folder.npy")).unwrap();
    for (args, needles) in [
        ("fit p.npy -k 3 --labels no/such/l.npy", &["no/such/l.npy"][..]),
        ("fit p.npy -k 3 --labels l.npy --centroids folder.npy", &["folder.npy"]),
        ("fit p.npy -k 3 --labels l.txt", &["l.txt", "--labels", ".npy"]),
        ("fit p.npy -k 3 --picture p.png", &["p.png", ".svg"]),
        ("fit p.npy -k 3 --labels a.npy --centroids ./a.npy", &["a.npy", "--labels"]),
        ("fit p.npy -k 3 --labels p.npy", &["p.npy", "--labels"]),
        ("predict p.npy --centroids p.npy --labels p.npy", &["p.npy", "--labels"]),
    ] {
        place.refused(args, needles);
    }
    // And what is there already is replaced as a whole.
    std::fs::write(place.path("l.npy"), b"old").unwrap();
    place.good("fit p.npy -k 3 --labels l.npy --backend cpu");
    assert_eq!(place.labels("l.npy", 12).len(), 12);
    assert_eq!(place.files(), ["folder.npy", "l.npy", "p.npy"]);
}

#[test]
fn a_model_predicts_and_transforms_as_its_centroids_do() {
    let place = Place::new();
    place.good("fit DIGITS -k 10 --backend cpu --dtype f16 --model m.safetensors --labels fit.npy");
    place.good("predict DIGITS --model m.safetensors --labels l.npy --distances d.npy --backend cpu");
    assert_eq!(place.labels("l.npy", 1797), place.labels("fit.npy", 1797));
    place.good("predict DIGITS --model m.safetensors --nearest 3 --labels l3.npy --distances d3.npy");
    place.good("transform DIGITS --model m.safetensors --distances all.npy");

    let read = |name| PointFile::open(place.path(name)).unwrap().read::<f32>().unwrap().into_owned();
    let all = read("all.npy").into_dimensionality::<Ix2>().unwrap();
    assert_eq!(all.dim(), (1797, 10));
    let (labels, distances) = (place.labels("l3.npy", 3 * 1797), read("d3.npy"));
    for (row, (labels, distances)) in labels.chunks(3).zip(distances.outer_iter()).enumerate() {
        let mut order: Vec<u32> = (0..10).collect();
        order.sort_by(|&a, &b| all[(row, a as usize)].total_cmp(&all[(row, b as usize)]));
        assert_eq!(labels, &order[..3], "row {row}");
        let expected = labels.iter().map(|&l| all[(row, l as usize)]);
        assert!(expected.eq(distances.iter().copied()), "row {row}");
    }
    place.refused("predict DIGITS --model m.safetensors --dtype f32 --labels x.npy", &["f16", "--dtype f32"]);
    place.refused("predict DIGITS --model m.safetensors --nearest 11 --labels x.npy", &["--nearest", "11"]);
    place.refused("predict DIGITS --labels x.npy", &["--centroids", "--model"]);
    place.refused("transform DIGITS --model DIGITS --distances x.npy", &["digits.npy", "safetensors"]);
}

#[test]
fn a_batch_is_transformed_problem_by_problem() {
    let place = Place::new();
    let points = Array3::from_shape_fn((2, 3, 1), |(b, row, _)| (10 * b + row) as f32);
    write_npy(place.path("p.npy"), points.view()).unwrap();
    write_npy(place.path("c.npy"), array![[[0.0f32], [5.0]], [[10.0], [15.0]]].view()).unwrap();
    let out = json(&place.good("transform p.npy --centroids c.npy --distances d.npy --json"));
    assert_eq!((&out["k"], &out["batch"]), (&2.into(), &2.into()));
    let file = PointFile::open(place.path("d.npy")).unwrap();
    let one = array![[0.0f32, 5.0], [1.0, 4.0], [2.0, 3.0]];
    let expected = ndarray::stack![ndarray::Axis(0), one, one].into_dyn();
    assert_eq!(file.read::<f32>().unwrap(), expected);

    let mut points = points;
    points[(1, 2, 0)] = f32::NAN;
    write_npy(place.path("p.npy"), points.view()).unwrap();
    place.refused("transform p.npy --centroids c.npy --distances e.npy", &["row 5, column 0", "NaN"]);
}

#[test]
fn completions_and_manual_pages_name_the_commands() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.good(&format!("completions {shell}"));
        assert!(script.contains("flash-kmeans") && script.contains("transform"), "{shell}");
        // A quote within the name of a value would end the script's own.
        assert!(!script.contains("'k-means||'"), "{shell}");
    }
    place.refused("completions csh", &["csh"]);
    place.good("man pages");
    let page = std::fs::read_to_string(place.path("pages/flash-kmeans-fit.1")).unwrap();
    assert!(page.contains("max\\-iter"), "{page}");
    assert!(place.path("pages/flash-kmeans.1").exists() && place.path("pages/flash-kmeans-bench.1").exists());
}

#[test]
fn starts_and_samples_are_those_of_the_library() {
    let place = Place::new();
    let inertia = |options: &str| {
        let out = json(&place.good(&format!("fit DIGITS -k 10 --backend cpu --json {options}")));
        out["inertia"].as_f64().unwrap()
    };
    let one = inertia("--init random --model m.safetensors");
    assert!(inertia("--init random --n-init 6") < one);
    assert!(inertia("--max-points-per-centroid 20") > 0.0);
    assert!(inertia("--init k-means||") > 0.0);
    let out = json(&place.good("fit DIGITS -k 10 --backend cpu --json --tol 0 --init m.safetensors"));
    assert!(out["inertia"].as_f64().unwrap() <= one && out["n_iter"].as_u64().unwrap() < 30);
    place.refused("fit DIGITS -k 10 --init m.safetensors --n-init 2 --labels l.npy", &["--n-init 2"]);
    place.refused("fit DIGITS -k 9 --init m.safetensors --labels l.npy", &["m.safetensors", "[9, 64]"]);
}
