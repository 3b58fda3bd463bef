//! Fits by the processes of an MPI job, on this machine. Skipped where there is no MPI, unless `FLASH_KMEANS_REQUIRE_MPI`
//! is 1.
use flash_kmeans::io::{PointFile, write_npy};
use flash_kmeans::{Backend, FlashKMeans, Init, Metric};
use flash_kmeans_tests::{build, build_command, is_set};
use ndarray::{Array1, Array2, Ix2};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn has_mpi() -> bool {
    let there =
        |program: &str| Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    let has_mpi = there("mpirun") && there("mpicc");
    if !has_mpi {
        assert!(!is_set("FLASH_KMEANS_REQUIRE_MPI"), "there is no MPI");
        println!("skipped: there is no MPI");
    }
    has_mpi
}

/// The command with feature `mpi`, or `None` where there is no MPI.
fn command() -> Option<&'static Path> {
    static BINARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        if !has_mpi() {
            return None;
        }
        // Under a name of its own: other tests build the command without the feature in the same place.
        let built = build_command("mpi");
        let copy = built.with_file_name("flash-kmeans-mpi");
        std::fs::copy(built, &copy).unwrap();
        Some(copy)
    };
    BINARY.get_or_init(build).as_deref()
}

fn run(command: &Path, folder: &Path, processes: usize, args: &str) -> Output {
    Command::new("mpirun")
        .args(["--oversubscribe", "--bind-to", "none", "-n", &processes.to_string()])
        .arg(command)
        .args(args.split_whitespace())
        .current_dir(folder)
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("RAYON_NUM_THREADS", "1")
        .env("FLASH_KMEANS_GPU", "emulated")
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Three panels and a bit, about seven places.
fn points() -> Array2<f32> {
    Array2::from_shape_fn((27_001, 512), |(i, j)| {
        let mixed = (i as u64 * 512 + j as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed >> 40) % 32) as f32 + (i * i % 7 * (j % 5) * 9) as f32
    })
}

#[test]
fn processes_together_find_what_one_finds() {
    let Some(command) = command() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let points = points();
    write_npy(at.join("p.npy"), points.view()).unwrap();
    let one = FlashKMeans::new(12)
        .backend(Backend::Cpu)
        .init(Init::Random)
        .seed(2)
        .max_iter(6)
        .fit(points.view())
        .unwrap();
    let read = |name: &str| {
        let file = PointFile::open(at.join(name)).unwrap();
        file.read::<f32>().unwrap().into_owned().into_dimensionality::<Ix2>().unwrap()
    };
    let fit = "fit p.npy -k 12 --backend cpu --init random --seed 2 --json --labels l.npy --centroids c.npy";
    for processes in [2, 4] {
        let output = run(command, at, processes, &format!("{fit} --max-iter 6"));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let out: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let inertia = out["inertia"].as_f64().unwrap();
        assert!((inertia / one.inertia() - 1.0).abs() < 1e-9, "{inertia} {}", one.inertia());
        assert_eq!(out["n_iter"].as_u64(), Some(one.n_iter() as u64));
        let centroids = read("c.npy");
        let apart = (&centroids - one.centroids()).mapv(f32::abs).fold(0.0f32, |a, &b| a.max(b));
        assert!(apart < 1e-3, "{apart}");
        let labels = std::fs::read(at.join("l.npy")).unwrap();
        let labels = labels[labels.len() - 4 * 27_001..]
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes(b.try_into().unwrap()));
        let other = labels.zip(one.labels()).filter(|(label, of_one)| label != *of_one).count();
        assert_eq!(other, 0);

        // The same number of processes gives the same bits again, also when the fit is resumed.
        std::fs::rename(at.join("c.npy"), at.join("first.npy")).unwrap();
        let _ = std::fs::remove_file(at.join("s"));
        for args in ["--max-iter 3 --checkpoint s", "--max-iter 6 --checkpoint s --resume"] {
            let output = run(command, at, processes, &format!("{fit} {args}"));
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        }
        assert_eq!(std::fs::read(at.join("c.npy")).unwrap(), std::fs::read(at.join("first.npy")).unwrap());
    }
}

/// What is wrong with the points of one process ends the job with its error.
#[test]
fn a_process_that_fails_ends_the_job() {
    let Some(command) = command() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut points = points();
    points[(26_000, 3)] = f32::NAN;
    write_npy(at.join("p.npy"), points.view()).unwrap();
    let args = "fit p.npy -k 2 --backend cpu --init random --labels l.npy";
    let output = run(command, at, 4, args);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("rank 3: p.npy: points: row 26000, column 3"),
        "{}",
        text(&output.stderr)
    );
    assert!(!at.join("l.npy").exists());
    let output = run(command, at, 2, &format!("{args} --empty-clusters relocate"));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("empty_clusters is relocate"), "{}", text(&output.stderr));
}

/// Each process has the weights of its own part, and sums of weights and of points at length 1 add up as others do.
#[test]
fn processes_share_weights_and_a_metric() {
    let Some(command) = command() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let points = points();
    let weights = Array1::from_shape_fn(points.nrows(), |row| (row % 5) as f64 * 0.5);
    write_npy(at.join("p.npy"), points.view()).unwrap();
    write_npy(at.join("w.npy"), weights.view()).unwrap();
    for metric in [Metric::Euclidean, Metric::Cosine] {
        let options = FlashKMeans::new(12).metric(metric).init(Init::Random).seed(2).max_iter(4);
        let one = options.backend(Backend::Cpu).fit_weighted(points.view(), weights.view(), &mut ()).unwrap();
        let args = "fit p.npy -k 12 --weights w.npy --backend cpu --init random --seed 2 --max-iter 4 --json";
        let output = run(command, at, 3, &format!("{args} --metric {metric}"));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let out: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let inertia = out["inertia"].as_f64().unwrap();
        assert!((inertia / one.inertia() - 1.0).abs() < 1e-9, "{metric}: {inertia} {}", one.inertia());
    }
}

/// By processes that check what they find themselves, on emulated GPUs: see there.
#[test]
fn gpus_of_several_processes_agree_with_cpus_and_with_one() {
    if !has_mpi() {
        return;
    }
    let rank = build("flash-kmeans-tests", "rank", "mpi");
    let folder = tempfile::tempdir().unwrap();
    for (processes, case) in [(2, "agree"), (4, "agree"), (2, "resumes"), (2, "reaches"), (3, "mixed")] {
        let output = run(&rank, folder.path(), processes, case);
        assert!(output.status.success(), "{case} {processes}: {}", text(&output.stderr));
    }
    let output = run(&rank, folder.path(), 3, "fails");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("rank 2: CUDA"), "{}", text(&output.stderr));
}
