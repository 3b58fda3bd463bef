//! Fits of points that are read a chunk at a time: the bits are those of a fit in memory.
use flash_kmeans::io::{PointFile, PointWriter, write_npy};
use flash_kmeans::{
    Backend, Chunks, Element, Error, FlashKMeans, Init, IterationEnd, KMeans, Observer, Progress, Source,
    Streaming,
};
use half::f16;
use ndarray::{Array2, ArrayView2, Ix2};
use std::ops::{ControlFlow, Range};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    let many = FlashKMeans::new(N + 1).fit_stream(&points(), &Streaming::new(), &mut ());
    assert!(matches!(many, Err(Error::TooManyClusters { .. })));
}
