//! Clusters that lose all their points, where the farthest points are given to them.
use flash_kmeans::{
    Backend, Chunks, Element, EmptyClusters, Error, FlashKMeans, Init, KMeans, Metric, PointsDim, Streaming,
    Weighted, devices,
};
use flash_kmeans_tests::{CUDA, has_gpu, is_emulated};
use ndarray::{Array1, Array2, ArrayView1, Axis, Ix2, array, s, stack};
use proptest::prelude::*;

const METRICS: [Metric; 4] = [Metric::Euclidean, Metric::Cosine, Metric::Dot, Metric::SphericalDot];

fn options(k: usize, first: &Array2<f64>) -> FlashKMeans {
    FlashKMeans::new(k)
        .init(Init::Given(first.clone().into_dyn()))
        .tol(0.0)
        .backend(Backend::Cpu)
        .empty_clusters(EmptyClusters::Relocate)
}

/// Numbers in [0, 1) that look random.
fn hash(i: usize, j: usize) -> f64 {
    let z = (i as u64 * 0x1_0001 + j as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn length(x: ArrayView1<'_, f64>) -> f64 {
    x.dot(&x).sqrt()
}

fn is_spherical(metric: Metric) -> bool {
    matches!(metric, Metric::Cosine | Metric::SphericalDot)
}

fn loss(metric: Metric, x: ArrayView1<'_, f64>, c: ArrayView1<'_, f64>) -> f64 {
    match metric {
        Metric::Euclidean => (&x - &c).mapv(|v| v * v).sum(),
        Metric::Cosine if length(x) == 0.0 => 1.0,
        Metric::Cosine => 0.5 * (&x / length(x) - c).mapv(|v| v * v).sum(),
        _ => -x.dot(&c),
    }
}

/// What the rule says, step by step: a fit of points in float64.
struct Reference<'a> {
    x: &'a Array2<f64>,
    w: &'a Array1<f64>,
    metric: Metric,
    centroids: Array2<f64>,
    labels: Vec<usize>,
    /// Of each iteration: labels changed, and how far the centroids moved.
    history: Vec<(usize, f64)>,
    relocated: usize,
}

impl<'a> Reference<'a> {
    fn new(x: &'a Array2<f64>, w: &'a Array1<f64>, metric: Metric, first: &Array2<f64>) -> Self {
        let mut centroids = first.clone();
        if is_spherical(metric) {
            centroids.outer_iter_mut().filter(|c| length(c.view()) > 0.0).for_each(|mut c| {
                let length = length(c.view());
                c /= length;
            });
        }
        let labels = vec![usize::MAX; x.nrows()];
        Reference { x, w, metric, centroids, labels, history: Vec::new(), relocated: 0 }
    }

    fn nearest(&self) -> Vec<usize> {
        let of = |x: ArrayView1<'_, f64>| {
            let rank = |c: ArrayView1<'_, f64>| match self.metric {
                Metric::Euclidean => loss(Metric::Euclidean, x, c),
                _ => -x.dot(&c),
            };
            let ranks: Vec<f64> = self.centroids.outer_iter().map(rank).collect();
            (0..ranks.len()).fold(0, |best, at| if ranks[at] < ranks[best] { at } else { best })
        };
        self.x.outer_iter().map(of).collect()
    }

    /// The mean that a centroid is, of the points of a cluster but for some.
    fn mean(&self, cluster: usize, but: &[usize]) -> Option<Array1<f64>> {
        let mut sum = Array1::<f64>::zeros(self.x.ncols());
        let mut mass = 0.0;
        for (row, x) in self.x.outer_iter().enumerate() {
            if self.labels[row] == cluster && !but.contains(&row) {
                let by = if self.metric == Metric::Cosine {
                    self.w[row] / length(x).max(1e-300)
                } else {
                    self.w[row]
                };
                sum.scaled_add(by, &x);
                mass += self.w[row];
            }
        }
        let by = if is_spherical(self.metric) { length(sum.view()) } else { mass };
        (by > 0.0).then(|| sum / by)
    }

    fn is_done(&self) -> bool {
        // Centroids that move by their rounding alone may do so here and not there.
        self.history.last().is_some_and(|&(changed, shift)| changed == 0 || shift < 1e-20)
    }

    fn iterate(&mut self) {
        let (old, k) = (self.centroids.clone(), self.centroids.nrows());
        let labels = self.nearest();
        let changed = labels.iter().zip(&self.labels).filter(|(new, old)| new != old).count();
        self.labels = labels;
        for cluster in 0..k {
            if let Some(mean) = self.mean(cluster, &[]) {
                self.centroids.row_mut(cluster).assign(&mean);
            }
        }
        if changed > 0 {
            self.relocate(&old);
        }
        let shift = (&self.centroids - &old).mapv(|v| v * v).sum();
        self.history.push((changed, shift));
    }

    fn relocate(&mut self, old: &Array2<f64>) {
        let has_direction = |row: &usize| !is_spherical(self.metric) || length(self.x.row(*row)) > 0.0;
        let counts =
            |row: &usize| self.w[*row] > 0.0 && (self.metric != Metric::Cosine || has_direction(row));
        let n = self.x.nrows();
        let has_points: Vec<usize> = (0..n).filter(counts).map(|row| self.labels[row]).collect();
        let losses: Vec<f64> =
            (0..n).map(|row| loss(self.metric, self.x.row(row), old.row(self.labels[row]))).collect();
        let mut rows: Vec<usize> = (0..n).filter(|row| self.w[*row] > 0.0 && has_direction(row)).collect();
        rows.sort_by(|&a, &b| losses[b].total_cmp(&losses[a]).then(a.cmp(&b)));
        let nothing = match self.metric {
            Metric::Euclidean | Metric::Cosine => 0.0,
            _ => rows.last().map_or(0.0, |&row| losses[row]),
        };
        let mut taken = Vec::new();
        for empty in (0..old.nrows()).filter(|cluster| !has_points.contains(cluster)) {
            let others = |row: usize| {
                rows.iter()
                    .filter(|&&other| self.labels[other] == self.labels[row] && !taken.contains(&other))
                    .count()
            };
            let Some(&row) = rows.iter().find(|&&row| !taken.contains(&row) && others(row) > 1) else {
                break;
            };
            if taken.is_empty() && losses[row] <= nothing {
                return;
            }
            taken.push(row);
            let x = self.x.row(row);
            let by = if is_spherical(self.metric) { length(x) } else { 1.0 };
            self.centroids.row_mut(empty).assign(&(&x / by));
        }
        for &row in &taken {
            if let Some(mean) = self.mean(self.labels[row], &taken) {
                self.centroids.row_mut(self.labels[row]).assign(&mean);
            }
        }
        self.relocated += taken.len();
    }
}

/// Compares fits of one iteration, two and so on with what the rule says; how many points were relocated in all.
fn compare(
    x: &Array2<f64>,
    w: &Array1<f64>,
    metric: Metric,
    first: &Array2<f64>,
    iterations: usize,
) -> usize {
    let mut reference = Reference::new(x, w, metric, first);
    while !reference.is_done() && reference.history.len() < iterations {
        reference.iterate();
        let options = options(first.nrows(), first).metric(metric).max_iter(reference.history.len());
        let model = options.fit_weighted(x.view(), w.view(), &mut ()).unwrap();
        let context = format!("{metric}, {} iterations of {x}, {w}, {first}", reference.history.len());
        let apart = (model.centroids() - &reference.centroids).mapv(f64::abs);
        assert!(apart.iter().all(|&apart| apart <= 1e-9), "{context}: {apart}");
        let history = &model.problems()[0].history;
        assert_eq!(history.len(), reference.history.len(), "{context}");
        for (ours, &(changed, shift)) in history.iter().zip(&reference.history) {
            assert_eq!(ours.changed, changed as u64, "{context}");
            assert!((ours.shift - shift).abs() <= 1e-9 * (1.0 + shift), "{context}: {} {shift}", ours.shift);
        }
        assert_eq!(model.labels(), &model.predict(x.view()).unwrap(), "{context}");
        let score = model.score_weighted(x.view(), w.view()).unwrap();
        assert!((model.inertia() + score).abs() <= 1e-9 * (1.0 + score.abs()), "{context}");
    }
    reference.relocated
}

/// Points and weights, some of 0, and first centroids, of which some are the same and some far away. Many points are there
/// twice where sums are exact, so that this test and the library agree on which of them are equally far; points of which
/// only the direction counts are all different, and so are first centroids among them.
fn case(
    (n, d, k): (usize, usize, usize),
    metric: Metric,
    seed: usize,
) -> (Array2<f64>, Array1<f64>, Array2<f64>) {
    let at = |i: usize, j: usize| hash(i * 64 + j, seed);
    let (row, unit): (Vec<usize>, f64) = if is_spherical(metric) {
        ((0..n).collect(), f64::EPSILON)
    } else {
        let pool = 1 + (at(0, 50) * n as f64) as usize;
        ((0..n).map(|i| (at(i, 51) * pool as f64) as usize).collect(), 0.125)
    };
    let x = Array2::from_shape_fn((n, d), |(i, j)| {
        if row[i] % 9 == 8 { 0.0 } else { ((4.0 * at(row[i], j) - 1.0) / unit).round() * unit }
    });
    let mut w = Array1::from_shape_fn(n, |i| [0.0, 0.5, 1.0, 3.0][(4.0 * at(i, 52)) as usize]);
    if is_spherical(metric) {
        // Of two points of one weight, both are as far from where they meet.
        w.iter_mut().enumerate().for_each(|(i, w)| *w *= 0.5 + at(i, 56));
    }
    w[0] = 1.0;
    let first = Array2::from_shape_fn((k, d), |(i, j)| match (3.0 * at(i, 53)) as usize {
        0 if is_spherical(metric) && i % 9 != 8 => x[(i, j)],
        0 if !is_spherical(metric) => x[((at(i, 54) * n as f64) as usize, j)],
        1 if !is_spherical(metric) => x[((at(0, 55) * n as f64) as usize, j)],
        _ => 60.0 + at(i, 40 + j),
    });
    (x, w, first)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fits_are_what_the_rule_says(n in 1usize..40, d in 2usize..4, k in 1usize..12, seed in 0usize..1 << 20) {
        for metric in METRICS {
            let (x, w, first) = case((n, d, k.min(n)), metric, seed);
            compare(&x, &w, metric, &first, 6);
            if metric != Metric::Cosine {
                compare(&x, &Array1::ones(n), metric, &first, 6);
            }
        }
    }
}

#[test]
fn cases_relocate_by_each_metric() {
    for metric in METRICS {
        let relocated: usize = (0..20)
            .map(|seed| {
                let (x, w, first) = case((35, 3, 9), metric, seed);
                compare(&x, &w, metric, &first, 4)
            })
            .sum();
        assert!(relocated > 20, "{metric}: {relocated}");
    }
}

/// Blobs, the sixth of them far out.
fn blobs<T: Element>(n: usize, d: usize, of: impl Fn(f64) -> T) -> Array2<T> {
    Array2::from_shape_fn((n, d), |(i, j)| {
        let blob = i % 6;
        of(hash(i, j) + 9.0 * hash(blob, 100 + j) + if blob == 5 { 40.0 } else { 0.0 })
    })
}

/// The first `k` points, of which `empty` come twice.
fn first<T: Element>(x: &Array2<T>, k: usize, empty: usize) -> Array2<f64> {
    let of = |i: usize| if i >= k - empty { i + empty - k } else { i };
    Array2::from_shape_fn((k, x.ncols()), |(i, j)| x[(of(i), j)].to_f64())
}

fn same<T: Element, D: PointsDim>(a: &KMeans<T, D>, b: &KMeans<T, D>) {
    assert_eq!((a.centroids(), a.labels()), (b.centroids(), b.labels()));
    assert_eq!(a.problems(), b.problems());
}

#[test]
fn no_cluster_stays_empty_where_there_are_points_for_all() {
    let distinct = Array2::from_shape_fn((40, 2), |(i, j)| 100.0 * hash(i % 20, j));
    let first = Array2::from_elem((20, 2), distinct[(0, 0)]);
    let kept = options(20, &first).empty_clusters(EmptyClusters::Keep).fit(distinct.view()).unwrap();
    assert!(kept.sizes().iter().any(|&size| size == 0));
    let model = options(20, &first).fit(distinct.view()).unwrap();
    assert_eq!(model.sizes(), Array1::from_elem(20, 2));
    assert_eq!((model.inertia(), model.converged()), (0.0, true));
    // One cluster more than there are points that differ.
    let first = Array2::from_elem((21, 2), distinct[(0, 0)]);
    let model = options(21, &first).fit(distinct.view()).unwrap();
    assert!(model.converged() && model.inertia() == 0.0);
    assert_eq!(model.sizes().iter().filter(|&&size| size == 0).count(), 1);
}

fn bits<T: Element>(of: impl Fn(f64) -> T, metric: Metric) {
    // More than one panel.
    let x = blobs(80_000, 64, of);
    let w = Array1::from_shape_fn(x.nrows(), |i| 0.25 + hash(i, 3));
    let k = 8;
    let options = options(k, &first(&x, k, 2)).metric(metric).max_iter(6);
    let fit = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| options.fit_weighted(x.view(), w.view(), &mut ()).unwrap())
    };
    let one = fit(1);
    let kept = options.clone().empty_clusters(EmptyClusters::Keep);
    assert_ne!(one.centroids(), kept.fit_weighted(x.view(), w.view(), &mut ()).unwrap().centroids());
    same(&one, &fit(5));
    let source = Weighted::new(&x, w.as_slice().unwrap());
    let streaming = Streaming::new().memory(3 * (32 << 20));
    same(&one, &options.fit_stream(&source, &streaming, &mut ()).unwrap());
    let chunks = Chunks::new(|| {
        (0..8).map(|at| Ok::<_, Error>(x.slice(s![at * 10_000.., ..]).slice(s![..10_000, ..]).to_owned()))
    });
    let chunks = chunks.unwrap();
    let source = Weighted::new(&chunks, w.as_slice().unwrap());
    same(&one, &options.fit_stream(&source, &streaming, &mut ()).unwrap());
}

#[test]
fn bits_depend_neither_on_threads_nor_on_chunks() {
    bits(|v| v, Metric::Euclidean);
    bits(|v| v as f32, Metric::Cosine);
    bits(half::f16::from_f64, Metric::Euclidean);
}

#[test]
fn a_fit_is_resumed_after_each_iteration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fit.state");
    let x = blobs(900, 3, |v| v as f32);
    for metric in METRICS {
        let options = options(30, &first(&x, 30, 12)).metric(metric);
        let whole = options.clone().max_iter(12).fit(x.view()).unwrap();
        for stop in 1..8 {
            let part = options.clone().max_iter(stop);
            part.fit_stream(&x, &Streaming::new().checkpoint(&path, 1), &mut ()).unwrap();
            let rest = options.clone().max_iter(12);
            same(&whole, &rest.fit_stream(&x, &Streaming::new().resume(&path), &mut ()).unwrap());
            let keeps = rest.empty_clusters(EmptyClusters::Keep);
            let refused = keeps.fit_stream(&x, &Streaming::new().resume(&path), &mut ());
            assert!(matches!(refused, Err(Error::Format { .. })));
        }
    }
}

#[test]
fn problems_of_a_batch_starts_and_samples_relocate_too() {
    let x = stack![Axis(0), blobs(300, 3, |v| v as f32), blobs(300, 3, |v| (v * v) as f32)];
    let firsts = [0, 1].map(|at| first(&x.index_axis(Axis(0), at).to_owned(), 9, 3));
    let given = stack![Axis(0), firsts[0], firsts[1]];
    let together = options(9, &firsts[0]).init(Init::Given(given.into_dyn())).fit(x.view()).unwrap();
    for (at, first) in firsts.iter().enumerate() {
        let alone = options(9, first).fit(x.index_axis(Axis(0), at)).unwrap();
        assert_eq!(together.centroids().index_axis(Axis(0), at), alone.centroids());
        assert_eq!(together.problems()[at], alone.problems()[0]);
    }

    // Nearly all points are the same: random first centroids are, too.
    let x = Array2::from_shape_fn((2000, 2), |(i, j)| if i % 25 == 0 { hash(i, j) as f32 } else { 0.5 });
    for (starts, sample) in [(1, 2000), (4, 2000), (1, 50)] {
        let options = |empty_clusters| {
            let options = FlashKMeans::new(20).init(Init::Random).backend(Backend::Cpu).tol(0.0);
            options.n_init(starts).max_points_per_centroid(sample).empty_clusters(empty_clusters)
        };
        let [kept, model] =
            [EmptyClusters::Keep, EmptyClusters::Relocate].map(|what| options(what).fit(x.view()).unwrap());
        let empty = |model: &KMeans<f32, Ix2>| model.sizes().iter().filter(|&&size| size == 0).count();
        assert!(empty(&kept) > 5 && empty(&model) == 0, "{} {}", empty(&kept), empty(&model));
        assert!(model.inertia() < kept.inertia());
    }
}

#[test]
fn a_heavy_point_leaves_no_sum_of_rounding() {
    // The second cluster is given the point of weight 1e18, beside which the others' weights are rounding.
    let x = array![[0.0], [0.1], [0.2], [50.0]];
    let w = array![1.0, 1.0, 1.0, 1e18];
    let model = options(2, &array![[0.0], [1e6]]).fit_weighted(x.view(), w.view(), &mut ()).unwrap();
    assert_eq!(model.labels().to_vec(), [0, 0, 0, 1]);
    assert!((model.inertia() - 0.02).abs() < 1e-12, "{}", model.inertia());
}

#[test]
fn what_does_not_relocate_says_so() {
    let options = options(2, &array![[0.0], [1.0]]).init(Init::Random);
    let refused = |error: Error| {
        let is_it = matches!(&error, Error::InvalidArgument { argument: "empty_clusters", value, .. } if value == "relocate");
        assert!(is_it, "{error}");
    };
    refused(options.mini_batch::<f32>().unwrap_err());
    refused(options.workspace::<f32>(1, 10, 2).unwrap_err());
}

/// Two fits that may differ in the rounding of their centroids, and so in the labels of a few points that are as near to
/// two of them.
fn close<T: Element>(a: &KMeans<T, Ix2>, b: &KMeans<T, Ix2>, rounding: f64, context: &str) {
    let few = a.labels().len() as u64 / 2000;
    let differ = a.labels().iter().zip(b.labels()).filter(|(a, b)| a != b).count() as u64;
    assert!(differ <= few, "{context}: {differ} labels differ");
    let mut is_same = differ == 0;
    for (a, b) in a.problems()[0].history.iter().zip(&b.problems()[0].history) {
        assert!(
            a.changed.abs_diff(b.changed) <= 2 * few,
            "{context}: {} and {} changed",
            a.changed,
            b.changed
        );
        is_same &= a.changed == b.changed;
    }
    // A point moves the mean of its cluster's.
    let rounding = if is_same { rounding } else { 1e-2 };
    for (a, b) in a.centroids().iter().zip(b.centroids()) {
        let (a, b) = (a.to_f64(), b.to_f64());
        assert!((a - b).abs() <= rounding * (1.0 + a.abs()), "{context}: {a} {b}");
    }
    assert!((a.inertia() - b.inertia()).abs() <= 9.0 * rounding * (1.0 + a.inertia().abs()), "{context}");
    for (a, b) in a.problems()[0].history.iter().zip(&b.problems()[0].history) {
        assert!(
            (a.shift - b.shift).abs() <= 9.0 * rounding * (1.0 + a.shift),
            "{context}: {} {}",
            a.shift,
            b.shift
        );
    }
}

fn on_a_gpu<T: Element>(of: impl Fn(f64) -> T, metrics: &[Metric], rounding: f64) {
    let (n, k) = if is_emulated() { (150, 9) } else { (20_000, 60) };
    let mut x = blobs(n, 3, of);
    // Of no direction.
    x.slice_mut(s![7..;n / 4, ..]).fill(T::zeroed());
    let w = Array1::from_shape_fn(n, |i| (3.0 * hash(i, 5)).floor() * 0.75);
    for &metric in metrics {
        let mut relocated = 0;
        for iterations in 1..4 {
            let options = options(k, &first(&x, k, 3)).metric(metric).max_iter(iterations);
            let [cpu, gpu] = [Backend::Cpu, CUDA].map(|backend| {
                let options = options.clone().backend(backend);
                [options.fit(x.view()).unwrap(), options.fit_weighted(x.view(), w.view(), &mut ()).unwrap()]
            });
            let kept = options.empty_clusters(EmptyClusters::Keep).fit(x.view()).unwrap();
            relocated += usize::from(kept.centroids() != cpu[0].centroids());
            for (cpu, gpu) in cpu.iter().zip(&gpu) {
                close(cpu, gpu, rounding, &format!("{metric} {iterations}"));
            }
        }
        assert!(relocated > 0, "{metric}");
    }
}

#[test]
fn gpus_relocate_as_the_cpu_does() {
    if has_gpu() {
        on_a_gpu(|v| v as f32, &METRICS, 1e-5);
        on_a_gpu(half::f16::from_f64, &METRICS[..2], 2e-3);
    }
}

/// Problems of few points have short panels, of which many are chunks: on one GPU, and where there is another on both.
#[test]
fn bits_do_not_depend_on_the_chunks_of_a_gpu() {
    if !has_gpu() {
        return;
    }
    let (n, d, k) = (2100, 3, 5);
    let x = blobs(n, d, |v| v as f32);
    let w: Vec<f64> = (0..n).map(|i| (8.0 * hash(i, 2)).floor() * 0.25).collect();
    let source = Weighted::new(&x, &w);
    let streaming = Streaming::new().memory(3 * 1024 * d as u64 * 4);
    for metric in [Metric::Euclidean, Metric::SphericalDot] {
        let options = options(k, &first(&x, k, 2)).metric(metric).max_iter(2).backend(CUDA);
        let whole = options.fit_weighted(x.view(), ArrayView1::from(&w), &mut ()).unwrap();
        let kept =
            options.clone().empty_clusters(EmptyClusters::Keep).fit_stream(&source, &streaming, &mut ());
        assert_ne!(whole.centroids(), kept.unwrap().centroids());
        same(&whole, &options.fit_stream(&source, &streaming, &mut ()).unwrap());
        // In as little memory as there is room in: chunks go through the GPU again and again.
        let little = (50_000..10_000_000).step_by(20_000).find_map(|memory| {
            let options = options.clone().gpu_memory(memory);
            let in_memory = match options.fit_weighted(x.view(), ArrayView1::from(&w), &mut ()) {
                Err(Error::OutOfDeviceMemory { .. }) => return None,
                model => model.unwrap(),
            };
            Some([in_memory, options.fit_stream(&source, &streaming, &mut ()).unwrap()])
        });
        little.unwrap().iter().for_each(|little| same(&whole, little));
        if devices().len() > 2 {
            let options = options.backend(Backend::cuda_devices([0, 1]).unwrap());
            same(&whole, &options.fit_stream(&source, &streaming, &mut ()).unwrap());
            same(&whole, &options.fit_weighted(x.view(), ArrayView1::from(&w), &mut ()).unwrap());
        }
    }
}
