//! Fits of points that are read a chunk at a time: the bits are those of a fit in memory.
use flash_kmeans::io::{PointFile, PointWriter, write_npy};
use flash_kmeans::{
    Backend, Chunks, Element, Error, FlashKMeans, Init, IterationEnd, KMeans, Observer, Progress, Source,
    Streaming, Weighted,
};
use flash_kmeans_tests::command;
use half::f16;
use ndarray::{Array2, ArrayView2, Ix2};
use std::io::{BufRead, BufReader};
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

/// Values of a panel of few clusters: 2²².
const PANEL: usize = 1 << 22;
const D: usize = 512;
/// Three panels and a short one.
const N: usize = 3 * PANEL / D + 1234;

/// Points whose coordinates are whole numbers under 256, so that every type holds them; far from converged at first.
fn points() -> ArrayView2<'static, f32> {
    static POINTS: OnceLock<Array2<f32>> = OnceLock::new();
    POINTS
        .get_or_init(|| {
            Array2::from_shape_fn((N, D), |(i, j)| {
                let mixed = (i as u64 * D as u64 + j as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                ((mixed >> 40) % 32) as f32 + (i * 7 % 13 * (j % 5) * 4) as f32
            })
        })
        .view()
}

fn fit() -> FlashKMeans {
    FlashKMeans::new(6).backend(Backend::Cpu).init(Init::Random).seed(3).tol(0.0).max_iter(7)
}

/// Room for three chunks of so many panels.
fn panels<T>(count: usize) -> Streaming {
    Streaming::new().memory((3 * count * PANEL * size_of::<T>()) as u64)
}

fn same<T: Element>(one: &KMeans<T, Ix2>, other: &KMeans<T, Ix2>) {
    assert_eq!(one.centroids(), other.centroids());
    assert_eq!(one.labels(), other.labels());
    assert_eq!(one.sizes(), other.sizes());
    assert_eq!(one.problems(), other.problems());
}

#[test]
fn chunks_of_any_size_give_the_bits_of_a_fit_in_memory() {
    let expected = fit().fit(points()).unwrap();
    assert_eq!(expected.n_iter(), 7);
    for streaming in [panels::<f32>(1), panels::<f32>(3), Streaming::new(), panels::<f32>(100)] {
        same(&fit().fit_stream(&points(), &streaming, &mut ()).unwrap(), &expected);
    }
    // Until it converges, with a tolerance and without; the variance is found on the way.
    let points = points().slice_move(ndarray::s![.., ..40]);
    for fit in [fit().max_iter(300), fit().max_iter(300).tol(1e-4), fit().init(Init::KMeansPlusPlus)] {
        let expected = fit.fit(points).unwrap();
        same(&fit.fit_stream(&points, &Streaming::new(), &mut ()).unwrap(), &expected);
    }
}

#[test]
fn files_of_every_type_are_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let fit = fit().max_iter(3);
    let expected = fit.fit(points()).unwrap();
    write_npy(path("f32.npy"), points()).unwrap();
    let halves = points().mapv(f16::from_f32);
    write_npy(path("f16.npy"), halves.view()).unwrap();
    let mut bytes = PointWriter::<u8>::create(path("p.u8bin"), &[N, D]).unwrap();
    bytes.write_rows(points().mapv(|v| v as u8).as_slice().unwrap()).unwrap();
    bytes.finish().unwrap();
    let mut floats = PointWriter::<f32>::create(path("p.fvecs"), &[N, D]).unwrap();
    floats.write_rows(points().as_slice().unwrap()).unwrap();
    floats.finish().unwrap();
    for name in ["f32.npy", "p.u8bin", "p.fvecs"] {
        let file = PointFile::open(path(name)).unwrap();
        same(&fit.fit_stream::<f32, _>(&file, &panels::<f32>(1), &mut ()).unwrap(), &expected);
    }
    let file = PointFile::open(path("f16.npy")).unwrap();
    let expected = fit.fit(halves.view()).unwrap();
    same(&fit.fit_stream::<f16, _>(&file, &panels::<f16>(2), &mut ()).unwrap(), &expected);
}

#[test]
fn iterators_of_chunks_are_streamed() {
    let made = AtomicUsize::new(0);
    let chunks = Chunks::new(|| {
        made.fetch_add(1, Ordering::Relaxed);
        // Chunks of several sizes, none of which is a panel's.
        let cuts = [0, 1, 1, 5000, 17000, N];
        cuts.windows(2)
            .map(|cut| Ok::<_, Error>(points().slice(ndarray::s![cut[0]..cut[1], ..]).to_owned()))
            .collect::<Vec<_>>()
            .into_iter()
    })
    .unwrap();
    assert_eq!((Source::<f32>::n_points(&chunks), Source::<f32>::n_features(&chunks)), (N, D));
    let fit = fit().max_iter(3);
    same(&fit.fit_stream(&chunks, &panels::<f32>(1), &mut ()).unwrap(), &fit.fit(points()).unwrap());
    // To count, for the first point and the first centroids, for three iterations and the labels.
    assert_eq!(made.load(Ordering::Relaxed), 6);

    let passes = AtomicUsize::new(0);
    let failing = Chunks::new(|| {
        let pass = passes.fetch_add(1, Ordering::Relaxed);
        (0..4).map(move |chunk| match (pass, chunk) {
            (4, 2) => Err(std::io::Error::other("the cable is out")),
            _ => Ok(points().slice(ndarray::s![chunk * 5000..(chunk + 1) * 5000, ..]).to_owned()),
        })
    })
    .unwrap();
    let error = fit.fit_stream(&failing, &panels::<f32>(1), &mut ()).unwrap_err();
    assert!(matches!(error, Error::Source { row: 10_000, .. }), "{error}");
    assert!(error.to_string().contains("the cable is out"));
}

#[test]
fn chunks_that_disagree_are_refused() {
    let passes = AtomicUsize::new(0);
    // Chunks of five rows and so many columns; none is an error.
    let make = |columns: [usize; 3]| {
        Chunks::new(move || {
            columns.into_iter().map(|columns| match columns {
                0 => Err(std::io::Error::other("the cable is out")),
                _ => Ok(Array2::<f32>::zeros((5, columns))),
            })
        })
    };
    assert!(make([3, 3, 3]).is_ok());
    assert!(matches!(make([3, 3, 2]).err().unwrap(), Error::Shape { .. }));
    assert!(matches!(make([3, 3, 0]).err().unwrap(), Error::Source { row: 10, .. }));
    // Of another width when they are read again.
    let changing = Chunks::new(|| {
        let pass = passes.fetch_add(1, Ordering::Relaxed);
        (0..3).map(move |chunk| Ok::<_, Error>(Array2::<f32>::zeros((5, 3 - (pass * chunk / 2).min(1)))))
    })
    .unwrap();
    let error = fit().fit_stream(&changing, &Streaming::new(), &mut ()).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}

/// Stops after some iterations, or in the pass after them.
struct Stopper {
    after: usize,
    within: bool,
    centroids: Option<Array2<f32>>,
}

impl Observer<f32> for Stopper {
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        assert!(progress.rows <= progress.n && progress.n == N);
        let stop = self.within && progress.iterations == self.after && progress.rows > N / 2;
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn iteration(&mut self, end: IterationEnd<'_, f32>) -> ControlFlow<()> {
        self.centroids = Some(end.centroids.to_owned());
        let stop = !self.within && end.iterations == self.after;
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Nothing is complete yet.
#[test]
fn a_fit_that_is_stopped_in_its_first_pass_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.checkpoint");
    let mut stopper = Stopper { after: 0, within: true, centroids: None };
    let stopped = fit().fit_stream(&points(), &panels::<f32>(1).checkpoint(&path, 1), &mut stopper);
    assert!(matches!(stopped, Err(Error::Stopped { iterations: 0 })));
    assert!(!path.exists());
}

#[test]
fn a_fit_that_is_resumed_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.checkpoint");
    for fit in [fit(), fit().tol(1e-3)] {
        let expected = fit.fit(points()).unwrap();
        for (after, within, every) in [(1, false, 1), (3, true, 2), (4, false, 100), (2, true, 100)] {
            let streaming = panels::<f32>(1).checkpoint(&path, every);
            let mut stopper = Stopper { after, within, centroids: None };
            let stopped = fit.fit_stream(&points(), &streaming, &mut stopper);
            // In memory an observer is told the same.
            let mut other = Stopper { after, within, centroids: None };
            let in_memory = fit.fit_observed(points(), &mut other);
            assert_eq!(stopper.centroids, other.centroids);
            if within {
                assert!(matches!(stopped, Err(Error::Stopped { iterations }) if iterations == after));
                assert!(matches!(in_memory, Err(Error::Stopped { iterations }) if iterations == after));
            } else {
                let stopped = stopped.unwrap();
                assert_eq!(
                    (stopped.n_iter(), Some(stopped.centroids())),
                    (after, stopper.centroids.as_ref())
                );
                same(&stopped, &in_memory.unwrap());
            }
            let resumed = fit.fit_stream(&points(), &panels::<f32>(2).resume(&path), &mut ()).unwrap();
            same(&resumed, &expected);
        }
        // And from the end.
        fit.fit_stream(&points(), &panels::<f32>(3).checkpoint(&path, 1000), &mut ()).unwrap();
        same(&fit.fit_stream(&points(), &panels::<f32>(3).resume(&path), &mut ()).unwrap(), &expected);
    }
    let error = fit().seed(1).fit_stream(
        &points().slice(ndarray::s![1.., ..]),
        &Streaming::new().resume(&path),
        &mut (),
    );
    assert!(matches!(error, Err(Error::Format { .. })));
}

/// Iterations of the fit that a checkpoint is of.
fn iterations_of(path: &Path) -> Option<u64> {
    let bytes = std::fs::read(path).ok()?;
    let at = "flash-kmeans checkpoint 1\n".len() + 5 * 8;
    Some(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()))
}

/// Looks at the checkpoint at the end of each iteration, before that one is kept.
struct Looker<'a> {
    path: &'a Path,
    seen: Vec<Option<u64>>,
}

impl Observer<f32> for Looker<'_> {
    fn iteration(&mut self, _: IterationEnd<'_, f32>) -> ControlFlow<()> {
        self.seen.push(iterations_of(self.path));
        ControlFlow::Continue(())
    }
}

#[test]
fn checkpoints_are_of_every_so_many_iterations_and_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let points = points().slice_move(ndarray::s![..3000, ..40]);
    for (every, expected) in [
        (1, [None, Some(1), Some(2), Some(3), Some(4)]),
        (2, [None, None, Some(2), Some(2), Some(4)]),
        (100, [None; 5]),
    ] {
        let path = folder.path().join(every.to_string());
        let mut looker = Looker { path: &path, seen: Vec::new() };
        let streaming = Streaming::new().checkpoint(&path, every);
        fit().max_iter(5).fit_stream(&points, &streaming, &mut looker).unwrap();
        assert_eq!(looker.seen, expected);
        assert_eq!(iterations_of(&path), Some(5));
        // Weights of 1 are none.
        let streaming = Streaming::new().resume(&path);
        let expected = fit().fit_stream(&points, &streaming, &mut ()).unwrap();
        let ones = vec![1.0; 3000];
        same(&fit().fit_stream(&Weighted::new(&points, &ones), &streaming, &mut ()).unwrap(), &expected);
    }
    let error = fit().fit_stream(&points, &Streaming::new().resume(folder.path()), &mut ()).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

/// Notes what is read.
struct Noted {
    reads: Mutex<Vec<Range<usize>>>,
    /// The read of a chunk with this row panics.
    panics: usize,
    /// The read of a chunk with this row fails.
    fails: usize,
}

impl Noted {
    fn new() -> Self {
        Noted { reads: Mutex::default(), panics: N, fails: N }
    }
}

impl Source<f32> for Noted {
    fn n_points(&self) -> usize {
        N
    }

    fn n_features(&self) -> usize {
        D
    }

    fn read(&self, rows: Range<usize>, into: &mut [f32]) -> flash_kmeans::Result<()> {
        self.reads.lock().unwrap().push(rows.clone());
        if rows.len() > 1 && rows.contains(&self.panics) {
            std::panic::resume_unwind(Box::new("out of order"));
        }
        if rows.len() > 1 && rows.contains(&self.fails) {
            return Err(Error::Source { row: self.fails, source: "gone".into() });
        }
        Source::read(&points(), rows, into)
    }
}

#[test]
fn no_more_is_read_than_there_is_memory_for() {
    let fit = fit().init(Init::KMeansPlusPlus).max_iter(1);
    for (streaming, drawn, chunk) in [(panels::<f32>(1), 3 * PANEL / D, PANEL / D), (Streaming::new(), 0, N)]
    {
        let source = Noted::new();
        fit.fit_stream(&source, &streaming, &mut ()).unwrap();
        let reads = source.reads.into_inner().unwrap();
        // Beside the rows to draw from, the first point.
        assert_eq!(reads.iter().filter(|rows| rows.len() == 1).count(), drawn + 1);
        assert_eq!(reads.iter().map(|rows| rows.len()).max(), Some(chunk));
    }
}

#[test]
fn a_sample_takes_the_weights_along() {
    let mut points = points().to_owned();
    points.slice_mut(ndarray::s![..;2, ..]).mapv_inplace(|v| v + 1e6);
    let weights: Vec<f64> = (0..N).map(|row| (row % 2) as f64).collect();
    let fit = fit().init(Init::KMeansPlusPlus).max_iter(1);
    let model = fit.fit_stream(&Weighted::new(&points, &weights), &panels::<f32>(1), &mut ()).unwrap();
    assert!(model.centroids().iter().all(|&c| c < 1e5), "{}", model.centroids());
}

#[test]
fn a_source_that_fails_is_not_asked_again_and_its_panic_is_the_fits() {
    let failing = Noted { fails: 9000, ..Noted::new() };
    let error = fit().fit_stream(&failing, &panels::<f32>(1), &mut ()).unwrap_err();
    assert!(matches!(error, Error::Source { row: 9000, .. }), "{error}");
    assert_eq!(failing.reads.into_inner().unwrap().last(), Some(&(PANEL / D..2 * PANEL / D)));
    let panicking = AssertUnwindSafe(Noted { panics: 20_000, ..Noted::new() });
    let panic =
        catch_unwind(|| fit().fit_stream(&*panicking, &panels::<f32>(1), &mut ()).map(|_| ())).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"out of order"));
}

/// A source with something wrong at one row.
struct Faulty {
    row: usize,
    value: Option<f32>,
}

impl Source<f32> for Faulty {
    fn n_points(&self) -> usize {
        N
    }

    fn n_features(&self) -> usize {
        D
    }

    fn read(&self, rows: Range<usize>, into: &mut [f32]) -> flash_kmeans::Result<()> {
        Source::read(&points(), rows.clone(), into)?;
        if rows.contains(&self.row) && rows.len() > 1 {
            match self.value {
                Some(value) => into[(self.row - rows.start) * D + 5] = value,
                None => return Err(Error::Source { row: self.row, source: "gone".into() }),
            }
        }
        Ok(())
    }
}

#[test]
fn what_is_wrong_is_told() {
    let at = |row, value| fit().fit_stream(&Faulty { row, value }, &panels::<f32>(1), &mut ()).unwrap_err();
    assert!(matches!(
        at(20_000, Some(f32::NAN)),
        Error::NonFinite { what: "points", row: 20_000, column: 5, .. }
    ));
    assert!(matches!(at(9_000, None), Error::Source { row: 9_000, .. }));
    let refused =
        |fit: FlashKMeans, streaming: &Streaming| match fit.fit_stream(&points(), streaming, &mut ()) {
            Err(Error::InvalidArgument { argument, .. }) => argument,
            other => panic!("{other:?}"),
        };
    assert_eq!(refused(fit(), &Streaming::new().memory(1 << 20)), "memory");
    assert_eq!(refused(fit(), &Streaming::new().checkpoint("x", 0)), "every");
    assert_eq!(refused(fit().n_init(2), &Streaming::new()), "n_init");
    assert_eq!(refused(fit().max_points_per_centroid(2), &Streaming::new()), "max_points_per_centroid");
    for (shape, name) in [((0, 3), "n"), ((3, 0), "d")] {
        let none = fit().fit_stream(&Array2::<f32>::zeros(shape), &Streaming::new(), &mut ()).unwrap_err();
        assert!(matches!(none, Error::InvalidArgument { argument, .. } if argument == name), "{none}");
    }
    let many = FlashKMeans::new(N + 1).fit_stream(&points(), &Streaming::new(), &mut ());
    assert!(matches!(many, Err(Error::TooManyClusters { .. })));
    let few = points().slice_move(ndarray::s![..8, ..]);
    let all = FlashKMeans::new(8).backend(Backend::Cpu).fit_stream(&few, &Streaming::new(), &mut ());
    assert_eq!(all.unwrap().inertia(), 0.0);
}

fn run(folder: &Path, args: &str) -> Output {
    Command::new(command())
        .args(args.split_whitespace())
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn good(folder: &Path, args: &str) -> String {
    let output = run(folder, args);
    assert_eq!(output.status.code(), Some(0), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn bytes_of(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn the_command_streams_and_resumes_to_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_npy(at.join("p.npy"), points()).unwrap();
    let fit = "fit p.npy -k 6 --backend cpu --init random --seed 3 --tol 0";
    good(at, &format!("{fit} --max-iter 7 --centroids c.npy --labels l.npy --model m.safetensors"));
    let memory = good(
        at,
        &format!(
            "{fit} --max-iter 7 --memory 48MiB --centroids c2.npy --labels l2.npy --model m2.safetensors --picture p.svg --json"
        ),
    );
    assert!(memory.contains("\"n_iter\":7"), "{memory}");
    for (one, other) in [("c.npy", "c2.npy"), ("l.npy", "l2.npy"), ("m.safetensors", "m2.safetensors")] {
        assert_eq!(bytes_of(at, one), bytes_of(at, other), "{other}");
    }
    assert!(bytes_of(at, "p.svg").starts_with(b"<svg"));

    good(at, &format!("{fit} --max-iter 4 --memory 48MiB --checkpoint fit.state --every 3"));
    good(
        at,
        &format!("{fit} --max-iter 7 --checkpoint fit.state --resume --centroids c3.npy --labels l3.npy"),
    );
    assert_eq!(bytes_of(at, "c.npy"), bytes_of(at, "c3.npy"));
    assert_eq!(bytes_of(at, "l.npy"), bytes_of(at, "l3.npy"));

    let before = std::fs::read_dir(at).unwrap().count();
    write_npy(at.join("batch.npy"), points().slice(ndarray::s![..8, ..2]).insert_axis(ndarray::Axis(0)))
        .unwrap();
    for (args, needle) in [
        ("fit p.npy -k 6 --memory 1MiB --backend cpu --labels x.npy", "memory"),
        ("fit p.npy -k 6 --memory lots --labels x.npy", "--memory"),
        ("fit p.npy -k 6 --resume --labels x.npy", "--checkpoint"),
        ("fit p.npy -k 6 --checkpoint absent.state --resume --backend cpu --labels x.npy", "absent.state"),
        ("fit p.npy -k 5 --checkpoint fit.state --resume --backend cpu --labels x.npy", "fit.state"),
        ("fit p.npy -k 6 --checkpoint p.npy --backend cpu --labels x.npy", "p.npy"),
        ("fit p.npy -k 6 --memory 48MiB --n-init 2 --backend cpu --labels x.npy", "n_init"),
        ("fit batch.npy -k 2 --memory 1 --backend cpu --labels x.npy", "batch.npy"),
    ] {
        let output = run(at, args);
        assert_eq!(output.status.code(), Some(2), "{args}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(needle), "{args}: {}", text(&output.stderr));
    }
    assert_eq!(std::fs::read_dir(at).unwrap().count(), before + 1);
}

/// A file whose fault lies far from its head is refused when it is read, and nothing is written.
#[test]
fn a_fault_in_the_middle_of_a_file_ends_the_fit() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut rows = PointWriter::<f32>::create(at.join("p.fvecs"), &[N, D]).unwrap();
    rows.write_rows(points().as_slice().unwrap()).unwrap();
    rows.finish().unwrap();
    let mut bytes = bytes_of(at, "p.fvecs");
    bytes[20_000 * (4 + 4 * D)] ^= 1;
    std::fs::write(at.join("p.fvecs"), bytes).unwrap();
    let mut wrong = points().to_owned();
    wrong[(15_000, 7)] = f32::INFINITY;
    write_npy(at.join("p.npy"), wrong.view()).unwrap();
    for (name, needle) in [("p.fvecs", "row 20000 has 513 columns"), ("p.npy", "row 15000, column 7 is inf")]
    {
        let args = format!(
            "fit {name} -k 2 --backend cpu --memory 48MiB --init random --labels l.npy --checkpoint s"
        );
        let output = run(at, &args);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(needle), "{}", text(&output.stderr));
        assert!(!at.join("l.npy").exists() && !at.join("s").exists());
    }
}

/// Ctrl-C while a fit runs: exit code 130, the centroids of the last complete iteration, and a checkpoint to go on from.
#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_last_complete_iteration() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_npy(at.join("p.npy"), points()).unwrap();
    let fit = "fit p.npy -k 40 --backend cpu --init random --tol 0";
    for how in ["", "--memory 48MiB --checkpoint fit.state --every 1000"] {
        let mut child = Command::new(command())
            .args(
                format!("{fit} --max-iter 100000 --progress --centroids c.npy --labels l.npy {how}")
                    .split_whitespace(),
            )
            .current_dir(at)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut seen = Vec::new();
        for line in lines {
            if line.starts_with("iteration 2:") {
                assert!(
                    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
                );
            }
            seen.push(line);
        }
        let seen = seen.join("\n");
        assert_eq!(child.wait().unwrap().code(), Some(130), "{seen}");
        let after = seen.split("stopped after ").nth(1).unwrap_or_else(|| panic!("{seen}"));
        let after: usize = after.split(' ').next().unwrap().parse().unwrap();
        assert!(seen.contains(&format!("the centroids of iteration {after} are in c.npy")), "{seen}");
        assert!(!at.join("l.npy").exists());
        good(at, &format!("{fit} --max-iter {after} --centroids expected.npy"));
        assert_eq!(bytes_of(at, "c.npy"), bytes_of(at, "expected.npy"));
        if !how.is_empty() {
            let more = after + 2;
            good(at, &format!("{fit} --max-iter {more} --checkpoint fit.state --resume --centroids c.npy"));
            good(at, &format!("{fit} --max-iter {more} --centroids expected.npy"));
            assert_eq!(bytes_of(at, "c.npy"), bytes_of(at, "expected.npy"));
        }
    }
}

/// A file of 800 MB, with no more than 400 MB of address space; all but some of its points are zero.
#[cfg(target_os = "linux")]
#[test]
fn a_file_larger_than_memory_is_clustered() {
    use std::io::{Seek, SeekFrom, Write};
    const ROWS: u64 = 400_000;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut file = std::fs::File::create(at.join("large.fbin")).unwrap();
    file.write_all(&(ROWS as u32).to_le_bytes()).unwrap();
    file.write_all(&(D as u32).to_le_bytes()).unwrap();
    file.set_len(8 + ROWS * D as u64 * 4).unwrap();
    for row in [0, 100_000, ROWS - 1] {
        file.seek(SeekFrom::Start(8 + row * D as u64 * 4)).unwrap();
        (0..D).for_each(|_| file.write_all(&2.0f32.to_le_bytes()).unwrap());
    }
    drop(file);
    write_npy(at.join("start.npy"), Array2::from_shape_fn((2, D), |(i, _)| i as f32).view()).unwrap();
    let fit = "fit large.fbin -k 2 --backend cpu --init start.npy --json --labels l.npy";
    let limited = |args: &str| {
        let script = format!("ulimit -v 400000; exec {} {args}", command().display());
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &script])
            .current_dir(at)
            .env("RAYON_NUM_THREADS", "2")
            .env("MALLOC_ARENA_MAX", "1");
        shell.output().unwrap()
    };
    let output = limited(&format!("{fit} --memory 100MiB"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("\"inertia\":0.0"), "{}", text(&output.stdout));
    let labels = bytes_of(at, "l.npy");
    let ones: Vec<usize> = labels[labels.len() - 4 * ROWS as usize..]
        .chunks_exact(4)
        .enumerate()
        .filter(|(_, label)| *label == 1u32.to_le_bytes())
        .map(|(row, _)| row)
        .collect();
    assert_eq!(ones, [0, 100_000, ROWS as usize - 1]);
    // Without the limit on the points it does not fit, and says so.
    std::fs::remove_file(at.join("l.npy")).unwrap();
    let output = limited(&format!("{fit} --memory 3GiB"));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("error: "), "{}", text(&output.stderr));
    assert!(!at.join("l.npy").exists());
}
