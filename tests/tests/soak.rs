//! Fits of random shapes, types and options from many threads at once, on every backend there is: each result is checked, and
//! neither memory nor time grows. For 2 seconds, or as many as `FLASH_KMEANS_SOAK_SECONDS` says.
use flash_kmeans::{Backend, Element, FlashKMeans, Init, Metric, Streaming};
use flash_kmeans_tests::{CUDA, Outcome, check_outcome, has_gpu};
use half::{bf16, f16};
use ndarray::{Array1, Array2, Array3, Axis};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const THREADS: u64 = 4;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// In `range`, the small ones more often.
    fn size(&mut self, range: std::ops::Range<usize>) -> usize {
        let unit = self.unit();
        range.start + ((range.end - range.start) as f64 * unit * unit) as usize
    }
    fn of<A: Clone>(&mut self, choices: &[A]) -> A {
        choices[self.next() as usize % choices.len()].clone()
    }
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A round: a fit by each way to ask for one, checked.
fn fit<T: Element>(random: &mut Random, backend: Backend, of: impl Fn(f64) -> T) {
    let (batch, n, d) = (random.size(1..4), random.size(1..3000), random.size(1..130));
    let k = random.size(1..n.min(70) + 1);
    let (offset, scale) = (random.of(&[0.0, 0.5, 30.0]), random.of(&[1.0, 20.0, 1e-2]));
    let points = Array3::from_shape_fn((batch, n, d), |_| of((random.unit() - 0.5 + offset) * scale));
    let metrics = [Metric::Euclidean, Metric::Cosine, Metric::Dot, Metric::SphericalDot];
    let metric = random.of(&metrics);
    let parallel = Init::KMeansParallel { oversampling: 2.0, rounds: 3 };
    let options = FlashKMeans::new(k)
        .init(random.of(&[Init::Random, Init::KMeansPlusPlus, parallel]))
        .metric(metric)
        .max_iter(random.size(1..25))
        .tol(random.of(&[0.0, 1e-4]))
        .seed(random.next())
        .backend(backend);
    let context = format!("batch {batch}, {n} x {d} {}, {options:?}", T::DTYPE);

    let model = options.clone().n_init(random.size(1..4)).fit(points.view()).expect(&context);
    for problem in 0..batch {
        let outcome = Outcome {
            centroids: model.centroids().index_axis(Axis(0), problem),
            labels: model.labels().index_axis(Axis(0), problem),
            sizes: model.sizes().index_axis(Axis(0), problem),
            inertia: model.problems()[problem].inertia,
        };
        check_outcome(points.index_axis(Axis(0), problem), None, metric, &outcome, &context);
    }
    assert_eq!(&model.predict(points.view()).expect(&context), model.labels(), "{context}");

    let first: Array2<T> = points.index_axis(Axis(0), 0).to_owned();
    let streamed = options.fit_stream(&first, &Streaming::new(), &mut ()).expect(&context);
    let again = options.fit(first.view()).expect(&context);
    assert_eq!((streamed.labels(), streamed.centroids()), (again.labels(), again.centroids()), "{context}");

    let mut weights = Array1::from_shape_fn(n, |_| random.of(&[0.0, 0.5, 1.0, 7.25]));
    weights[0] = 2.0;
    let model = options.fit_weighted(first.view(), weights.view(), &mut ()).expect(&context);
    let outcome = Outcome {
        centroids: model.centroids().view(),
        labels: model.labels().view(),
        sizes: model.sizes().view(),
        inertia: model.inertia(),
    };
    check_outcome(first.view(), Some(weights.view()), metric, &outcome, &context);
}

/// Rounds of fits from many threads until the time is over; how many.
fn soak(backends: &[Backend], time: Duration, seed: u64) -> u64 {
    let (end, fits) = (Instant::now() + time, AtomicU64::new(0));
    std::thread::scope(|scope| {
        for (at, &backend) in backends.iter().enumerate() {
            for thread in 0..THREADS {
                let mut random = Random(seed + thread + THREADS * at as u64);
                let fits = &fits;
                scope.spawn(move || {
                    while Instant::now() < end {
                        match random.next() % 4 {
                            0 => fit(&mut random, backend, f16::from_f64),
                            1 => fit(&mut random, backend, bf16::from_f64),
                            2 if backend == Backend::Cpu => fit(&mut random, backend, |v| v),
                            _ => fit(&mut random, backend, |v| v as f32),
                        }
                        fits.fetch_add(1, Relaxed);
                    }
                });
            }
        }
    });
    fits.into_inner()
}

/// What must not grow.
#[derive(Debug)]
struct State {
    /// Resident bytes, where they can be asked for.
    resident: Option<u64>,
    /// Of the GPU's memory, and of the host's that it reads.
    device: u64,
    handles: usize,
    /// The least time of a problem, on each backend.
    times: Vec<Duration>,
}

fn state(backends: &[Backend]) -> State {
    let points = Array2::from_shape_fn((5000, 32), |(i, j)| ((i * 37 + j * 11 + i * j) % 101) as f32);
    let time = |&backend: &Backend| {
        let options = FlashKMeans::new(32).init(Init::Random).tol(0.0).max_iter(5).backend(backend);
        let once = |_| {
            let start = Instant::now();
            options.fit(points.view()).unwrap();
            start.elapsed()
        };
        (0..15).map(once).min().unwrap()
    };
    let times = backends.iter().map(time).collect();
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let resident =
        pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).map(|pages| pages * 4096);
    let held = libcuda::fault::held();
    State { resident, device: held.device_bytes + held.pinned_bytes, handles: held.handles, times }
}

#[test]
fn nothing_grows_and_every_result_is_right() {
    let seconds = std::env::var("FLASH_KMEANS_SOAK_SECONDS");
    let time = seconds.map_or(2.0, |s| s.parse().expect("FLASH_KMEANS_SOAK_SECONDS is a number"));
    let backends = if has_gpu() { vec![Backend::Cpu, CUDA] } else { vec![Backend::Cpu] };
    // What is kept for later calls has come to its size after the first quarter.
    let early = soak(&backends, Duration::from_secs_f64(time / 4.0), 1);
    let before = state(&backends);
    let late = soak(&backends, Duration::from_secs_f64(time * 0.75), 1 << 32);
    let after = state(&backends);
    let report = format!("soak: {early} and {late} rounds; {before:?}, then {after:?}\n");
    let _ = std::io::stderr().write_all(report.as_bytes());
    assert!(early > 0 && late > 0);
    if let (Some(before), Some(after)) = (before.resident, after.resident) {
        assert!(after <= before + (96 << 20), "resident bytes: {before}, then {after}");
    }
    assert!(after.device <= 2 * before.device + (64 << 20), "{report}");
    assert_eq!(after.handles, before.handles, "{report}");
    for (before, after) in before.times.iter().zip(&after.times) {
        // The least of many, with room for what else the machine does.
        assert!(*after <= 3 * *before + Duration::from_millis(20), "{before:?}, then {after:?}");
    }
}
