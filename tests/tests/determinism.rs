//! The same input gives the same bits: on every run, with any number of threads, and while others fit at once.
use flash_kmeans::{Backend, Element, FlashKMeans, Init, KMeans, PointsDim};
use flash_kmeans_tests::{CUDA, has_gpu, is_set};
use half::{bf16, f16};
use ndarray::{Array2, Array3, ArrayView};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Every bit of a model.
fn bits<T: Element, D: PointsDim>(model: &KMeans<T, D>) -> Vec<u64> {
    let centroids = model.centroids().iter().map(|c| c.to_f64().to_bits());
    let labels = model.labels().iter().map(|&label| u64::from(label));
    let problems = model.problems().iter().flat_map(|p| {
        let history = p.history.iter().flat_map(|i| [i.inertia.to_bits(), i.changed, i.shift.to_bits()]);
        history.chain([p.inertia.to_bits(), p.n_iter as u64, u64::from(p.converged)])
    });
    centroids.chain(labels).chain(problems).collect()
}

fn value(i: usize) -> f64 {
    let mut z = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z >> 40) as f64 / (1 << 24) as f64
}

const STARTS: [Init; 3] =
    [Init::Random, Init::KMeansPlusPlus, Init::KMeansParallel { oversampling: 2.0, rounds: 3 }];

/// A hundred fits in pools of 1, 2 and 16 threads, from each kind of start in turn.
fn hundred<T: Element, D: PointsDim>(name: &str, points: ArrayView<T, D>, backend: Backend) {
    let pools = [1, 2, 16].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    let fit = |run: usize| {
        let options = FlashKMeans::new(24).seed(9).max_iter(6).tol(1e-6).n_init(1 + run % 3 / 2);
        let options = options.init(STARTS[run % 3].clone()).backend(backend);
        pools[run / 3 % 3].install(|| bits(&options.fit(points.view()).unwrap()))
    };
    let first: Vec<_> = (0..3).map(fit).collect();
    for run in 3..if is_set("FLASH_KMEANS_SMALL") { 9 } else { 100 } {
        assert!(fit(run) == first[run % 3], "{name} on {backend}: run {run}");
    }
}

fn all_types(backend: Backend) {
    // More points than one task takes, in a count that no chunk divides.
    let (n, d) = (4501, 13);
    let points = |offset: usize| Array2::from_shape_fn((n, d), |(i, j)| value(offset + i * d + j));
    hundred("f32", points(1).mapv(|v| v as f32).view(), backend);
    hundred("f16", points(2).mapv(f16::from_f64).view(), backend);
    hundred("bf16", points(3).mapv(bf16::from_f64).view(), backend);
    if backend == Backend::Cpu {
        hundred("f64", points(4).view(), backend);
    }
    let batch = Array3::from_shape_fn((5, 700, 33), |(b, i, j)| value((b * 700 + i) * 33 + j) as f32);
    hundred("a batch", batch.view(), backend);
}

#[test]
fn a_hundred_runs_on_the_cpu() {
    all_types(Backend::Cpu);
}

#[test]
fn a_hundred_runs_on_the_gpu() {
    if has_gpu() {
        all_types(CUDA);
    }
}

/// Whatever instructions a processor has, labels are exact and sums are of f64 in a fixed order.
#[test]
fn a_seed_gives_the_same_centroids_on_every_cpu() {
    let points = Array2::from_shape_fn((2000, 24), |(i, j)| value(i * 24 + j) as f32);
    let model = FlashKMeans::new(10).seed(42).backend(Backend::Cpu).fit(points.view()).unwrap();
    let sum = |bits: u32, sum: u64| (sum ^ u64::from(bits)).wrapping_mul(0x0000_0100_0000_01b3);
    let start = 0xcbf2_9ce4_8422_2325;
    let of_centroids = model.centroids().iter().fold(start, |all, c| sum(c.to_bits(), all));
    let of_labels = model.labels().iter().fold(start, |all, &l| sum(l, all));
    assert_eq!((of_centroids, of_labels), (CENTROIDS, LABELS), "{of_centroids:#x}, {of_labels:#x}");
}
const CENTROIDS: u64 = 0x8f5f_3b2c_55fb_f617;
const LABELS: u64 = 0xdb34_988a_7edf_839f;

/// Fits of several shapes and types, each by its number.
fn numbered(number: usize, backend: Backend) -> u64 {
    let (n, k, d) = [(500, 7, 3), (3000, 64, 40), (1200, 300, 64), (64, 64, 1), (2000, 2, 128)][number % 5];
    let points = Array2::from_shape_fn((n, d), |(i, j)| value(number * 1_000_003 + i * d + j));
    let options = FlashKMeans::new(k).seed(number as u64).max_iter(5).backend(backend);
    let mut hasher = DefaultHasher::new();
    match number % 3 {
        0 => bits(&options.fit(points.mapv(|v| v as f32).view()).unwrap()),
        1 => bits(&options.fit(points.mapv(f16::from_f64).view()).unwrap()),
        _ => bits(&options.fit(points.mapv(bf16::from_f64).view()).unwrap()),
    }
    .hash(&mut hasher);
    hasher.finish()
}

/// Many threads fit at once, each something else, and get what a fit alone gets.
fn at_once(backend: Backend) {
    let (threads, rounds) = if is_set("FLASH_KMEANS_SMALL") { (3, 1) } else { (12, 4) };
    let expected: Vec<u64> = (0..15).map(|number| numbered(number, backend)).collect();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let expected = &expected;
            scope.spawn(move || {
                for round in 0..rounds {
                    let number = (thread * 7 + round * 4) % 15;
                    assert_eq!(numbered(number, backend), expected[number], "fit {number}");
                }
            });
        }
    });
}

#[test]
fn many_threads_fit_at_once_on_the_cpu() {
    at_once(Backend::Cpu);
}

#[test]
fn many_threads_fit_at_once_on_the_gpu() {
    if has_gpu() {
        at_once(CUDA);
    }
}

/// Models outlive each other in any order, on other threads than they were made on, and share nothing.
fn dropped_in_any_order(backend: Backend) {
    let points = Array2::from_shape_fn((400, 20), |(i, j)| value(i * 20 + j) as f32);
    let fit = |seed| FlashKMeans::new(9).seed(seed).max_iter(4).backend(backend).fit(points.view()).unwrap();
    let [a, b, c] = [1, 2, 3].map(fit);
    let labels = c.labels().clone();
    drop(a);
    let of_clone = c.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(b));
        scope.spawn(|| assert_eq!(c.predict(points.view()).unwrap(), labels));
    });
    drop(c);
    assert_eq!(of_clone.predict(points.view()).unwrap(), labels);
}

#[test]
fn models_are_dropped_in_any_order() {
    dropped_in_any_order(Backend::Cpu);
    if has_gpu() {
        dropped_in_any_order(CUDA);
    }
}
