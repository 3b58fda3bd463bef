//! A process of an MPI job that fits on GPUs, which are emulated unless the job asks for those that are there. It checks what
//! it finds, and panics; the test `mpi` starts jobs of it.
//!
//! ```text
//! mpirun -n 2 rank agree    GPUs, CPUs and one process find the same
//! mpirun -n 2 rank resumes  neither chunks nor a break change bits
//! mpirun -n 2 rank reaches  labels that depend on all points are those of one process
//! mpirun -n 2 rank mixed    a job does not compute on GPUs and on CPUs
//! mpirun -n 2 rank fails    the GPU of the last process fails
//! ```
use flash_kmeans::{
    Backend, Element, Error, FlashKMeans, Init, KMeans, Metric, Precision, Streaming, Weighted, part_of,
};
use flash_kmeans_tests::emulate;
use half::{bf16, f16};
use libcuda::fault;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use ndarray::{Array2, Ix2, s};

/// Clusters at nearly the same distances from each other, with values that every type has.
fn points<T: Element>(n: usize, d: usize, of: fn(f32) -> T) -> Array2<T> {
    Array2::from_shape_fn((n, d), |(row, column)| {
        let mixed = ((row * 131 + column) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let noise = (mixed >> 40) % 64;
        of(noise as f32 / 4.0 + ((row % 7) * (column + 3) % 5) as f32 * 20.0 + 100.0)
    })
}

fn weights(n: usize) -> Vec<f64> {
    (0..n).map(|row| ((row * 37) % 11) as f64 * 0.3).collect()
}

fn fit<T: Element>(
    options: &FlashKMeans,
    points: &Array2<T>,
    weights: Option<&[f64]>,
    world: &SimpleCommunicator,
) -> Result<KMeans<T, Ix2>, Error> {
    let streaming = Streaming::new();
    match weights {
        None => options.fit_mpi(points, &streaming, &mut (), world),
        Some(weights) => options.fit_mpi(&Weighted::new(points, weights), &streaming, &mut (), world),
    }
}

fn bits<T: Element>(model: &KMeans<T, Ix2>) -> Vec<u64> {
    let centroids = model.centroids().iter().map(|c| c.to_f64().to_bits());
    let sizes = model.sizes().iter().copied();
    let history = model.problems()[0].history.iter();
    let history = history.flat_map(|stats| [stats.inertia.to_bits(), stats.changed, stats.shift.to_bits()]);
    centroids.chain(sizes).chain(history).chain([model.inertia().to_bits()]).collect()
}

/// GPUs find what CPUs find and one process, within roundings of `error`; the same bits each time and in each process; labels
/// that are those of the centroids.
fn check<T: Element>(
    world: &SimpleCommunicator,
    points: &Array2<T>,
    options: &FlashKMeans,
    weights: Option<&[f64]>,
    error: f64,
) {
    let model = fit(options, points, weights, world).unwrap();
    let backend = if world.size() > 1 { world.rank() as u32 % 2 } else { 0 };
    assert_eq!(model.backend(), Backend::Cuda { ordinal: backend });
    let again = fit(options, points, weights, world).unwrap();
    assert_eq!((bits(&again), again.labels()), (bits(&model), model.labels()));
    let mut of_first = bits(&model);
    world.process_at_rank(0).broadcast_into(&mut of_first);
    assert_eq!(of_first, bits(&model));

    let rows = part_of(points.nrows(), world.rank(), world.size());
    let here = points.slice(s![rows.clone(), ..]);
    let known =
        KMeans::<T, Ix2>::with_metric(model.centroids().view(), model.metric(), Backend::Cpu).unwrap();
    assert_eq!(known.predict(here).unwrap(), model.labels());
    assert_eq!(model.sizes().sum(), points.nrows() as u64);

    let cpus = options.clone().backend(Backend::Cpu);
    let one = match weights {
        None => cpus.fit(points.view()),
        Some(weights) => cpus.fit_weighted(points.view(), weights.into(), &mut ()),
    };
    for other in [fit(&cpus, points, weights, world), one] {
        let other = other.unwrap();
        assert_eq!(other.n_iter(), model.n_iter());
        let close = |a: f64, b: f64| (a - b).abs() <= error * a.abs().max(b.abs());
        let pairs = model.centroids().iter().zip(other.centroids());
        for (a, b) in pairs.map(|(a, b)| (a.to_f64(), b.to_f64())) {
            assert!(close(a, b), "{a} {b}: {:?}", model.metric());
        }
        assert!(close(model.inertia(), other.inertia()), "{} {}", model.inertia(), other.inertia());
        let shifts = |model: &KMeans<T, Ix2>| model.problems()[0].history.last().unwrap().shift;
        assert!((shifts(&model) - shifts(&other)).abs() <= error * 1e4, "{:?}", model.metric());
    }
}

fn agree(world: &SimpleCommunicator) {
    let options = FlashKMeans::new(7).init(Init::Random).seed(3).max_iter(3).tol(1e-9);
    let (n, d) = (4501, 6);
    let weights = weights(n);
    for metric in [Metric::Euclidean, Metric::Cosine, Metric::SphericalDot] {
        let options = options.clone().metric(metric);
        check::<f32>(world, &points(n, d, |v| v), &options, None, 1e-6);
        check::<f32>(world, &points(n, d, |v| v), &options, Some(&weights), 1e-6);
    }
    check::<f16>(world, &points(n, d, f16::from_f32), &options, Some(&weights), 1e-3);
    check::<bf16>(world, &points(n, d, bf16::from_f32), &options.metric(Metric::Dot), None, 1e-2);
    // Fewer points in a process than there are clusters.
    let options = FlashKMeans::new(7).init(Init::Random).max_iter(5);
    check::<f32>(world, &points(3 * world.size() as usize + 4, 2, |v| v), &options, None, 1e-6);
}

/// Neither chunks nor a break change bits, but for the inertia of iterations, which a GPU has in the precision of its
/// assignment. The checkpoint is in the folder that the job runs in.
fn resumes(world: &SimpleCommunicator) {
    let points = points::<f32>(4501, 6, |v| v);
    let options = |max_iter| FlashKMeans::new(7).init(Init::Random).seed(3).max_iter(max_iter).tol(1e-9);
    let model = fit(&options(3), &points, None, world).unwrap();
    let go = |max_iter, streaming: Streaming| {
        let model = options(max_iter).fit_mpi(&points, &streaming, &mut (), world).unwrap();
        world.barrier();
        model
    };
    let chunks = go(3, Streaming::new().memory(3 * 2048 * 6 * 4));
    go(2, Streaming::new().checkpoint("state", 1));
    let resumed = go(3, Streaming::new().resume("state"));
    for other in [chunks, resumed] {
        assert_eq!((other.centroids(), other.labels()), (model.centroids(), model.labels()));
        assert_eq!(other.inertia(), model.inertia());
    }
}

/// Labels that depend on how far the points reach, which lie near each other but for some of the first process, are those
/// that one process predicts.
fn reaches(world: &SimpleCommunicator) {
    let points = Array2::from_shape_fn((2001, 5), |(row, column)| {
        let noise = ((row * 131 + column * 7919) as u32).wrapping_mul(2_654_435_761) >> 8;
        noise as f32 / (1 << 24) as f32 * if row < 10 { 30_000.0 } else { 1.0 }
    });
    let options = FlashKMeans::new(40).init(Init::Random).seed(1).max_iter(2).precision(Precision::Tf32);
    let model = fit(&options, &points, None, world).unwrap();
    let rows = part_of(points.nrows(), world.rank(), world.size());
    let of_all = model.predict(points.view()).unwrap();
    assert_eq!(of_all.slice(s![rows.clone()]), model.labels());
    if !rows.contains(&0) {
        let of_part = model.predict(points.slice(s![rows, ..])).unwrap();
        assert_ne!(&of_part, model.labels(), "nothing depends on it here");
    }
}

fn mixed(world: &SimpleCommunicator) {
    let points = points::<f32>(100, 3, |v| v);
    let options = FlashKMeans::new(4).init(Init::Random).max_iter(3);
    let of_rank = if world.rank() == 0 { Backend::Cpu } else { Backend::Cuda { ordinal: 0 } };
    match fit(&options.clone().backend(of_rank), &points, None, world) {
        Err(Error::InvalidArgument { argument: "backend", .. }) => {}
        other => panic!("{:?}", other.map(|model| model.backend())),
    }
    // No GPU takes f64 points.
    let model = fit(&options, &points.mapv(f64::from), None, world).unwrap();
    assert_eq!(model.backend(), Backend::Cpu);
    match fit(&options, &points.slice(s![..1, ..]).to_owned(), None, world) {
        Err(Error::InvalidArgument { argument: "n", .. }) => {}
        other => panic!("{:?}", other.map(|model| model.backend())),
    }
}

fn fails(world: &SimpleCommunicator) {
    let points = points::<f32>(3000, 3, |v| v);
    let options = FlashKMeans::new(4).init(Init::Random).max_iter(3).tol(0.0);
    // The first one opens the device and loads kernels.
    fit(&options, &points, None, world).unwrap();
    fault::clear();
    fit(&options, &points, None, world).unwrap();
    let calls = fault::calls();
    fault::clear();
    if world.rank() == world.size() - 1 {
        fault::fail_nth(calls / 2, 719);
    }
    // The others wait, until this one ends the job.
    match fit(&options, &points, None, world) {
        Err(error @ Error::Cuda { .. }) => {
            eprintln!("rank {}: {error}", world.rank());
            world.abort(3)
        }
        other => panic!("{:?}", other.map(|model| model.backend())),
    }
}

fn main() {
    let universe = mpi::initialize().unwrap();
    let world = universe.world();
    emulate();
    match std::env::args().nth(1).as_deref() {
        Some("agree") => agree(&world),
        Some("resumes") => resumes(&world),
        Some("reaches") => reaches(&world),
        Some("mixed") => mixed(&world),
        Some("fails") => fails(&world),
        other => panic!("{other:?} is no case"),
    }
}
