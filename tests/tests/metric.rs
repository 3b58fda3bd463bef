//! Metrics other than the Euclidean: labels are those of float64, centroids and inertia what `Metric` says.
use flash_kmeans::{
    Backend, DType, Element, Error, FlashKMeans, Init, KMeans, Metric, PointsDim, Streaming, Weighted,
    devices,
};
use flash_kmeans_tests::{CUDA, backends, has_gpu, is_emulated};
use half::{bf16, f16};
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, Axis, Ix2, array, s};

const PRODUCTS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::SphericalDot];

/// Numbers in [0, 1) that look random.
fn hash(i: usize, j: usize) -> f64 {
    let z = (i as u64 * 0x1_0001 + j as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Points of many lengths and directions, and a row of zeros in 50.
fn points<T: Element>(n: usize, d: usize, of: impl Fn(f64) -> T) -> Array2<T> {
    Array2::from_shape_fn((n, d), |(i, j)| {
        let length = if i % 50 == 49 { 0.0 } else { 0.1 + 5.0 * hash(i, 1 << 14) };
        of(length * (hash(i, j) - 0.3 + hash(i % 7, j)))
    })
}

fn options(k: usize, metric: Metric) -> FlashKMeans {
    FlashKMeans::new(k).metric(metric).backend(Backend::Cpu).tol(0.0)
}

fn product(x: ArrayView1<'_, f64>, c: ArrayView1<'_, f64>) -> f64 {
    x.iter().zip(c).map(|(x, c)| x * c).sum()
}

fn length(x: ArrayView1<'_, f64>) -> f64 {
    product(x, x).sqrt()
}

/// The definition: of the largest products the first.
fn nearest(x: ArrayView1<'_, f64>, centroids: ArrayView2<'_, f64>) -> u32 {
    let mut best = (0, f64::NEG_INFINITY);
    for (index, c) in (0..).zip(centroids.outer_iter()) {
        let product = product(x, c);
        if product > best.1 {
            best = (index, product);
        }
    }
    best.0
}

fn loss(metric: Metric, x: ArrayView1<'_, f64>, c: ArrayView1<'_, f64>) -> f64 {
    match metric {
        Metric::Cosine if length(x) == 0.0 => 1.0,
        Metric::Cosine => 0.5 * (&x / length(x) - c).mapv(|v| v * v).sum(),
        _ => -product(x, c),
    }
}

/// All that a model says belongs together and to its metric.
fn check<T: Element>(points: &Array2<T>, weights: &Array1<f64>, model: &KMeans<T, Ix2>, unit: f64) {
    let metric = model.metric();
    let (x, centroids) = (points.mapv(Element::to_f64), model.centroids().mapv(Element::to_f64));
    let (mut inertia, mut size) = (0.0, 0.0);
    let distances = model.transform(points.view()).unwrap();
    let close = |a: f64, b: f64, size: f64| (a - b).abs() <= 1e-6 * size + 1e-12;
    for (row, (x, &label)) in x.outer_iter().zip(model.labels()).enumerate() {
        assert_eq!(label, nearest(x, centroids.view()), "{metric} row {row}");
        let c = centroids.row(label as usize);
        inertia += weights[row] * loss(metric, x, c);
        size += weights[row] * (1.0 + length(x) * length(c));
        for (distance, c) in distances.row(row).iter().zip(centroids.outer_iter()) {
            assert!(close(distance.to_f64(), loss(metric, x, c), 1.0 + length(x) * length(c)));
        }
    }
    assert!((model.inertia() - inertia).abs() <= 1e-11 * size, "{metric}: {} {inertia}", model.inertia());
    assert_eq!(model.sizes().sum(), points.nrows() as u64);
    if metric != Metric::Dot {
        let rounding = 2.0 * unit + 1e-6 * (x.ncols() as f64).sqrt().min(1.0 / unit);
        assert!(centroids.outer_iter().all(|c| length(c) == 0.0 || (length(c) - 1.0).abs() <= rounding));
    }
    assert_eq!(&model.predict(points.view()).unwrap(), model.labels());
    let with_distances = model.predict_with_distances(points.view()).unwrap();
    for (row, (&label, distance)) in model.labels().iter().zip(&with_distances.distances).enumerate() {
        assert_eq!(*distance, distances[(row, label as usize)]);
    }
    let m = centroids.nrows().min(3);
    let nearest = model.predict_nearest(points.view(), m).unwrap();
    assert_eq!(nearest.labels.column(0), model.labels());
    assert_eq!(nearest.distances.column(0), with_distances.distances);
}

fn shapes<T: Element>(of: impl Fn(f64) -> T + Copy, unit: f64, backend: Backend) {
    let options = |k, metric| options(k, metric).backend(backend);
    let all = [(1, 1, 1), (60, 3, 4), (400, 37, 20), (900, 130, 65), (3000, 2, 40)];
    for metric in PRODUCTS {
        for (at, &(n, d, k)) in if is_slow(backend) { &all[..3] } else { &all[..] }.iter().enumerate() {
            let x = points(n, d, of);
            let ones = Array1::ones(n);
            let inits =
                [Init::Random, Init::KMeansPlusPlus, Init::KMeansParallel { oversampling: 2.0, rounds: 3 }];
            let (inits, iterations) =
                if is_slow(backend) { (&inits[at % 3..][..1], &[5][..]) } else { (&inits[..], &[1, 30][..]) };
            for init in inits {
                for &iterations in iterations {
                    let options = options(k, metric).init(init.clone()).max_iter(iterations);
                    let model = options.fit(x.view()).unwrap();
                    check(&x, &ones, &model, unit);
                    assert!((model.score(x.view()).unwrap() + model.inertia()).abs() <= 1e-9 * n as f64);
                }
            }
            let weights = (0..n).map(|i| (8.0 * hash(i, 9)).floor() * 0.5 + 0.5).collect::<Array1<f64>>();
            let model = options(k, metric).max_iter(8).fit_weighted(x.view(), weights.view(), &mut ());
            check(&x, &weights, &model.unwrap(), unit);
        }
    }
}

/// Whether a GPU is there that is only emulated.
fn is_slow(backend: Backend) -> bool {
    backend == CUDA && is_emulated()
}

#[test]
fn labels_centroids_and_inertia_are_those_of_the_metric() {
    shapes::<f64>(|v| v, 2f64.powi(-53), Backend::Cpu);
    for backend in backends() {
        shapes::<f32>(|v| v as f32, 2f64.powi(-24), backend);
        shapes::<f16>(f16::from_f64, 2f64.powi(-11), backend);
        shapes::<bf16>(bf16::from_f64, 2f64.powi(-8), backend);
    }
}

/// Lloyd's iterations as they are written in books, a few of them: with `Dot` they need not end.
fn by_the_book(x: &Array2<f64>, w: &Array1<f64>, metric: Metric, k: usize) -> (Array2<f64>, Vec<u32>) {
    let spherical = metric != Metric::Dot;
    let unit = |mut c: Array2<f64>| {
        for mut c in c.outer_iter_mut().filter(|c| spherical && length(c.view()) > 0.0) {
            let length = length(c.view());
            c /= length;
        }
        c
    };
    let mut centroids = unit(x.slice(s![..k, ..]).to_owned());
    for _ in 0..ITERATIONS {
        let labels: Vec<u32> = x.outer_iter().map(|x| nearest(x, centroids.view())).collect();
        let (mut sums, mut totals) = (Array2::<f64>::zeros(centroids.dim()), vec![0.0; k]);
        for ((x, &w), &label) in x.outer_iter().zip(w).zip(&labels) {
            let length = length(x);
            let mass = if metric == Metric::Cosine && length > 0.0 { w / length } else { w };
            sums.row_mut(label as usize).scaled_add(mass, &x);
            totals[label as usize] += w;
        }
        for (cluster, (sum, total)) in sums.outer_iter().zip(totals).enumerate() {
            let by = if spherical { length(sum) } else { total };
            if by > 0.0 {
                centroids.row_mut(cluster).assign(&(&sum / by));
            }
        }
    }
    let labels = x.outer_iter().map(|x| nearest(x, centroids.view())).collect();
    (centroids, labels)
}

const ITERATIONS: usize = 12;

#[test]
fn fits_are_those_of_the_book() {
    for metric in PRODUCTS {
        for (n, d, k) in [(200, 5, 6), (1500, 20, 25)] {
            let x = points(n, d, |v| v);
            let w: Array1<f64> = (0..n).map(|i| (3.0 * hash(i, 5)).floor()).collect();
            let (centroids, labels) = by_the_book(&x, &w, metric, k);
            let init = Init::Given(x.slice(s![..k, ..]).to_owned().into_dyn());
            let options = options(k, metric).max_iter(ITERATIONS).init(init);
            let model = options.fit_weighted(x.view(), w.view(), &mut ()).unwrap();
            assert_eq!(model.labels().to_vec(), labels, "{metric}");
            assert!((model.centroids() - &centroids).iter().all(|v| v.abs() <= 1e-12), "{metric}");
        }
    }
}

#[test]
fn batches_that_come_one_by_one_are_clustered_by_the_metric() {
    let (n, d, k) = (300, 7, 9);
    for metric in PRODUCTS {
        let x = points(3 * n, d, |v| v);
        let first = Init::Given(x.slice(s![..k, ..]).to_owned().into_dyn());
        let mut fit = options(k, metric).init(first).mini_batch::<f64>().unwrap();
        let (mut sums, mut counts) = (Array2::<f64>::zeros((k, d)), vec![0u64; k]);
        let mut centroids = KMeans::<f64, Ix2>::with_metric(x.slice(s![..k, ..]), metric, Backend::Cpu)
            .unwrap()
            .centroids()
            .clone();
        for batch in x.axis_chunks_iter(Axis(0), n) {
            for x in batch.outer_iter() {
                let label = nearest(x, centroids.view()) as usize;
                let mass = if metric == Metric::Cosine && length(x) > 0.0 { 1.0 / length(x) } else { 1.0 };
                sums.row_mut(label).scaled_add(mass, &x);
                counts[label] += 1;
            }
            for (cluster, sum) in sums.outer_iter().enumerate().filter(|(_, sum)| length(sum.view()) > 0.0) {
                let by = if metric == Metric::Dot { counts[cluster] as f64 } else { length(sum) };
                centroids.row_mut(cluster).assign(&(&sum / by));
            }
            fit.partial_fit(batch).unwrap();
            assert_eq!(fit.counts(), counts);
            let found = fit.centroids().unwrap();
            assert!((&found - &centroids).iter().all(|v| v.abs() <= 1e-12), "{metric}");
        }
        let model = fit.into_model(x.view()).unwrap();
        check(&x, &Array1::ones(3 * n), &model, 2f64.powi(-53));
    }
}

#[test]
fn lengths_do_not_matter_to_cosines() {
    backends().into_iter().for_each(lengths_do_not_matter);
}

fn lengths_do_not_matter(backend: Backend) {
    let x = points(if is_slow(backend) { 300 } else { 2000 }, 12, |v| v as f32);
    // Powers of two round nothing, so that even the bits are the same.
    let mut longer = x.clone();
    for (i, mut row) in longer.outer_iter_mut().enumerate() {
        row *= 2f32.powi((40.0 * hash(i, 3)) as i32 - 20);
    }
    for init in [Init::Random, Init::KMeansPlusPlus] {
        let options = options(15, Metric::Cosine).backend(backend).tol(1e-4).init(init).max_iter(20);
        let (a, b) = (options.fit(x.view()).unwrap(), options.fit(longer.view()).unwrap());
        assert_eq!((a.centroids(), a.labels()), (b.centroids(), b.labels()));
        assert_eq!(a.problems(), b.problems());
    }
}

#[test]
fn of_equally_near_centroids_the_first_counts() {
    // A lattice, with each centroid twice and rows of zeros.
    let x = Array2::from_shape_fn((600, 3), |(i, j)| (3.0 * hash(i, j)).floor() as f32 - 1.0);
    for metric in PRODUCTS {
        let rows = x.slice(s![..40, ..]);
        let twice = ndarray::concatenate![Axis(0), rows, rows].to_owned();
        for backend in backends() {
            let model = KMeans::<f32, Ix2>::with_metric(twice.view(), metric, backend).unwrap();
            let centroids = model.centroids().mapv(f64::from);
            let labels = model.predict(x.view()).unwrap();
            for (x, &label) in x.outer_iter().zip(&labels) {
                assert_eq!(label, nearest(x.mapv(f64::from).view(), centroids.view()));
                assert!(label < 40 && (label == 0 || x.iter().any(|&v| v != 0.0)));
            }
        }
    }
}

/// Places that a tile has past the last centroid must not win.
#[test]
fn all_products_may_be_negative() {
    for k in [1, 3, 17, 33, 129] {
        let x = Array2::from_shape_fn((300, 6), |(i, j)| 0.1 + hash(i, j) as f32);
        let centroids = Array2::from_shape_fn((k, 6), |(i, j)| -0.1 - hash(i + 7, j) as f32);
        agrees::<f32>(&x, &centroids);
        agrees::<f64>(&x.mapv(f64::from), &centroids.mapv(f64::from));
        agrees::<f16>(&x.mapv(f16::from_f32), &centroids);
    }
}

fn agrees<T: Element>(x: &Array2<T>, centroids: &Array2<T::Centroid>) {
    let no_gpu = |backend: &Backend| T::DTYPE != DType::F64 || *backend == Backend::Cpu;
    for backend in backends().into_iter().filter(no_gpu) {
        for metric in PRODUCTS {
            let model = KMeans::<T, Ix2>::with_metric(centroids.view(), metric, backend).unwrap();
            let centroids = model.centroids().mapv(Element::to_f64);
            for (x, &label) in x.outer_iter().zip(&model.predict(x.view()).unwrap()) {
                assert_eq!(label, nearest(x.mapv(Element::to_f64).view(), centroids.view()), "{metric}");
            }
        }
    }
}

#[test]
fn near_ties_and_values_of_all_sizes_are_settled() {
    let (n, d, k) = (if is_slow(CUDA) { 150 } else { 500 }, 40, 48);
    for size in [1.0, 1e-30, 1e-38, 1e-44, 1e18, 1e30, 2e37] {
        // Centroids that differ in the last bits of float32, far from zero.
        let close =
            Array2::from_shape_fn((k, d), |(i, j)| (size * (1.0 + hash(0, j) + 1e-7 * hash(i, j))) as f32);
        let x = Array2::from_shape_fn((n, d), |(i, j)| (size * (hash(i + 9, j) - 0.5)) as f32);
        agrees::<f32>(&x, &close);
        // Of all sizes.
        let spread = Array2::from_shape_fn((k, d), |(i, j)| {
            (size * (hash(i, j) - 0.5) * 10f64.powi(i as i32 % 9 - 8)) as f32
        });
        agrees::<f32>(&x, &spread);
        agrees::<f64>(&x.mapv(f64::from), &spread.mapv(f64::from));
    }
    let huge = |v: f32| f64::from(v) * 1e112;
    let x = Array2::from_shape_fn((n, d), |(i, j)| (1e37 * (hash(i + 9, j) - 0.5)) as f32);
    agrees::<f64>(&x.mapv(huge), &x.slice(s![..k, ..]).mapv(huge));
    let model = options(5, Metric::Cosine).fit(x.mapv(huge).view()).unwrap();
    assert!(model.inertia().is_finite() && model.centroids().iter().all(|c| c.abs() <= 1.0));
}

#[test]
fn directions_that_hardly_differ_have_an_inertia_that_is_right() {
    // The cosines differ from 1 by 1e-12: less than the rounding of a product with f32 centroids.
    let x = Array2::from_shape_fn((300, 8), |(i, j)| (1.0 + hash(0, j)) as f32 + 3e-6 * hash(i, j) as f32);
    for backend in backends() {
        hardly_differ(&x, &options(1, Metric::Cosine).backend(backend).fit(x.view()).unwrap());
    }
}

fn hardly_differ(x: &Array2<f32>, model: &KMeans<f32, Ix2>) {
    let x = x.mapv(f64::from);
    let mut mean = Array1::<f64>::zeros(8);
    x.outer_iter().for_each(|x| mean += &(&x / length(x)));
    let mean = &mean / length(mean.view());
    let expected: f64 = x.outer_iter().map(|x| loss(Metric::Cosine, x, mean.view())).sum();
    assert!(expected > 0.0 && expected < 300.0 * 1e-11);
    // The centroid is off by 3e-8 at most, and by as much in both directions.
    assert!((model.inertia() - expected).abs() <= 300.0 * 8.0 * 1e-15, "{} {expected}", model.inertia());
}

fn same<T: Element>(a: &KMeans<T, Ix2>, b: &KMeans<T, Ix2>) {
    assert_eq!((a.centroids(), a.labels()), (b.centroids(), b.labels()));
    assert_eq!(a.problems(), b.problems());
}

#[test]
fn bits_depend_neither_on_threads_nor_on_where_the_points_are() {
    for backend in backends().into_iter().filter(|&backend| !is_slow(backend)) {
        // More than one panel of the CPU's, or of a GPU's.
        let (n, d) = if backend == CUDA { ((1 << 21) + 1234, 3) } else { (70_000, 64) };
        bits_depend_on_nothing_else((n, d), Streaming::new().memory(3 * (16 << 20)), backend);
    }
}

/// From the same centroids a GPU finds the CPU's, but for the rounding of sums; with many clusters by other kernels.
#[test]
fn centroids_of_a_gpu_are_those_of_the_cpu() {
    if !has_gpu() {
        return;
    }
    for (n, d, k) in [(300, 37, 20), (700, 3, 520)] {
        let x = points(n, d, |v| v as f32);
        let w: Array1<f64> = (0..n).map(|i| (8.0 * hash(i, 2)).floor() * 0.25).collect();
        for metric in [Metric::Euclidean, Metric::Cosine, Metric::Dot, Metric::SphericalDot] {
            let given = Init::Given(x.slice(s![..k, ..]).mapv(f64::from).into_dyn());
            let fit = |backend, weighted: bool| {
                let options = options(k, metric).backend(backend).init(given.clone()).max_iter(1).tol(1e-4);
                match weighted {
                    true => options.fit_weighted(x.view(), w.view(), &mut ()).unwrap(),
                    false => options.fit(x.view()).unwrap(),
                }
            };
            for weighted in [false, true] {
                let (gpu, cpu) = (fit(CUDA, weighted), fit(Backend::Cpu, weighted));
                let apart = (gpu.centroids() - cpu.centroids()).mapv(f32::abs);
                assert!(apart.iter().all(|&apart| apart <= 2e-5), "{metric} {weighted}: {apart}");
                let [gpu, cpu] = [gpu, cpu].map(|model| model.problems()[0].history[0]);
                assert_eq!(gpu.changed, cpu.changed);
                let close = |a: f64, b: f64, by: f64| (a - b).abs() <= by * b.abs();
                assert!(close(gpu.shift, cpu.shift, 1e-4), "{metric} {weighted}: {gpu:?} {cpu:?}");
                // The Euclidean one is the assignment's own, of points in 16 bits.
                let is_exact = weighted || metric != Metric::Euclidean;
                assert!(
                    !is_exact || close(gpu.inertia, cpu.inertia, 1e-9),
                    "{metric} {weighted}: {gpu:?} {cpu:?}"
                );
            }
        }
    }
}

#[test]
fn a_workspace_fits_by_the_metric() {
    if !has_gpu() {
        return;
    }
    let (n, d, k) = (300, 5, 6);
    let x = points(n, d, |v| v as f32);
    for metric in PRODUCTS {
        for init in [Init::Random, Init::Given(x.slice(s![..k, ..]).mapv(f64::from).into_dyn())] {
            let options = options(k, metric).backend(CUDA).init(init).max_iter(5).tol(1e-4);
            let model = options.fit(x.view()).unwrap();
            let mut workspace = options.workspace::<f32>(1, n, d).unwrap();
            workspace.load(x.view()).unwrap();
            // The third time launches are replayed that the second has recorded.
            for _ in 0..3 {
                assert_eq!(workspace.fit().unwrap(), model.problems(), "{metric}");
                assert_eq!(workspace.centroids().unwrap().index_axis(Axis(0), 0), model.centroids());
                assert_eq!(workspace.labels().unwrap().row(0), model.labels());
            }
        }
    }
}

/// Problems of few points have short panels, of which many are chunks: on one GPU, and where there is another on both.
#[test]
fn bits_do_not_depend_on_the_chunks_of_a_gpu() {
    if !has_gpu() {
        return;
    }
    let (n, d, k) = (2100, 3, 4);
    let several = Backend::cuda_devices([0, 1]).unwrap();
    let both = devices().len() > 2;
    let w: Vec<f64> = (0..n).map(|i| (8.0 * hash(i, 2)).floor() * 0.25).collect();
    let x = points(n, d, |v| v as f32);
    for metric in [Metric::Euclidean, Metric::Cosine, Metric::Dot, Metric::SphericalDot] {
        let options = options(k, metric).backend(CUDA).tol(1e-4).init(Init::Random).max_iter(2).seed(3);
        let streaming = Streaming::new().memory(3 * 1024 * d as u64 * 4);
        let weights = ArrayView1::from(&w);
        let whole = options.fit(x.view()).unwrap();
        let weighted = options.fit_weighted(x.view(), weights, &mut ()).unwrap();
        assert_ne!(whole.centroids(), weighted.centroids());
        let of_chunks = |options: &FlashKMeans| {
            same(&whole, &options.fit_stream(&x, &streaming, &mut ()).unwrap());
            same(&weighted, &options.fit_stream(&Weighted::new(&x, &w), &streaming, &mut ()).unwrap());
        };
        of_chunks(&options);
        if both {
            let options = options.backend(several);
            of_chunks(&options);
            same(&whole, &options.fit(x.view()).unwrap());
            same(&weighted, &options.fit_weighted(x.view(), weights, &mut ()).unwrap());
        }
    }
}

fn bits_depend_on_nothing_else((n, d): (usize, usize), streaming: Streaming, backend: Backend) {
    let x = points(n, d, |v| v as f32);
    let w: Vec<f64> = (0..n).map(|i| hash(i, 2)).collect();
    for metric in PRODUCTS {
        for init in [Init::Random, Init::KMeansPlusPlus] {
            let options =
                options(12, metric).backend(backend).tol(1e-4).init(init.clone()).max_iter(4).seed(3);
            let fit = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| options.fit(x.view()).unwrap())
            };
            let one = fit(1);
            same(&one, &fit(5));
            if n > 1 << 17 && init != Init::Random {
                // Streams draw from a sample of so many points.
                continue;
            }
            same(&one, &options.fit_stream(&x, &streaming, &mut ()).unwrap());
            let weighted = options.fit_weighted(x.view(), ArrayView1::from(&w), &mut ()).unwrap();
            same(&weighted, &options.fit_stream(&Weighted::new(&x, &w), &streaming, &mut ()).unwrap());
        }
    }
}

#[test]
fn starts_samples_batches_and_models_keep_the_metric() {
    backends().into_iter().for_each(keep_the_metric);
}

fn keep_the_metric(backend: Backend) {
    let options =
        |k, metric| options(k, metric).backend(backend).max_iter(if is_slow(backend) { 4 } else { 300 });
    let x = Array3::from_shape_fn((3, 300, 4), |(b, i, j)| (hash(i + 1000 * b, j) - 0.4) as f32);
    let folder = tempfile::tempdir().unwrap();
    for metric in PRODUCTS {
        let given = x.slice(s![.., ..6, ..]).mapv(f64::from).into_dyn();
        let together = options(6, metric).init(Init::Given(given)).fit(x.view()).unwrap();
        for b in 0..3 {
            let x = x.index_axis(Axis(0), b);
            let given = Init::Given(x.slice(s![..6, ..]).mapv(f64::from).into_dyn());
            let alone = options(6, metric).init(given).fit(x).unwrap();
            assert_eq!(together.centroids().index_axis(Axis(0), b), alone.centroids());
            assert_eq!(together.problems()[b], alone.problems()[0]);
        }
        let x = x.index_axis(Axis(0), 0).to_owned();
        let one = options(9, metric).init(Init::Random).fit(x.view()).unwrap();
        let many = options(9, metric).init(Init::Random).n_init(6).fit(x.view()).unwrap();
        assert!(many.inertia() <= one.inertia());
        check(&x, &Array1::ones(300), &many, 1e-7);
        let sample = options(9, metric).max_points_per_centroid(10).fit(x.view()).unwrap();
        check(&x, &Array1::ones(300), &sample, 1e-7);

        // A model, also of 16-bit points, predicts after it was saved as it did before.
        fn saved<D: PointsDim>(model: &KMeans<f16, D>, path: &std::path::Path) -> KMeans<f16, D> {
            model.save(path).unwrap();
            KMeans::load(path, model.backend()).unwrap()
        }
        let x = x.mapv(f16::from_f32);
        let model = options(9, metric).fit(x.view()).unwrap();
        let again = saved(&model, &folder.path().join("m.safetensors"));
        assert_eq!((again.metric(), again.centroids()), (metric, model.centroids()));
        assert_eq!(&again.predict(x.view()).unwrap(), model.labels());
        // A checkpoint is of one metric.
        let checkpoint = folder.path().join("fit.state");
        let _ = std::fs::remove_file(&checkpoint);
        let streaming = Streaming::new().checkpoint(&checkpoint, 1);
        let streamed = options(9, metric).fit_stream(&x, &streaming, &mut ()).unwrap();
        let resume = Streaming::new().resume(&checkpoint);
        same(&streamed, &options(9, metric).fit_stream(&x, &resume, &mut ()).unwrap());
        let other = options(9, Metric::Euclidean).fit_stream(&x, &resume, &mut ());
        assert!(matches!(other, Err(Error::Format { .. })));
        // A fit that starts from the model has nothing to do.
        let rest = options(9, metric).init(Init::from(&model)).fit(x.view()).unwrap();
        assert!(rest.labels() == model.labels() || is_slow(backend) && !model.converged());
    }
}

#[test]
fn zeros_alone_and_sums_of_zeros_are_no_failure() {
    backends().into_iter().for_each(zeros_are_no_failure);
}

fn zeros_are_no_failure(backend: Backend) {
    let options = |k, metric| options(k, metric).backend(backend);
    for metric in PRODUCTS {
        for init in
            [Init::Random, Init::KMeansPlusPlus, Init::KMeansParallel { oversampling: 2.0, rounds: 2 }]
        {
            let x = Array2::<f32>::zeros((20, 3));
            let model = options(4, metric).init(init.clone()).fit(x.view()).unwrap();
            assert!(model.labels().iter().all(|&label| label == 0) && model.converged());
            assert_eq!(model.inertia(), if metric == Metric::Cosine { 20.0 } else { 0.0 });
            // Two rows that are not zeros are found among those that are.
            let mut x = Array2::<f32>::zeros((200, 2));
            (x[(77, 0)], x[(150, 1)]) = (3.0, 2.0);
            let model = options(2, metric).init(init.clone()).fit(x.view()).unwrap();
            let spherical = metric != Metric::Dot;
            if spherical && init != Init::Random {
                assert_ne!(model.labels()[77], model.labels()[150], "{metric} {init:?}");
            }
        }
        // Opposite points cancel: their centroid stays.
        let x = array![[1.0f32, 0.0], [-1.0, 0.0]];
        let model =
            options(1, metric).init(Init::Given(array![[0.0, 5.0]].into_dyn())).fit(x.view()).unwrap();
        let expected = if metric == Metric::Dot { array![[0.0, 0.0]] } else { array![[0.0, 1.0]] };
        assert_eq!(model.centroids(), &expected);
    }
}

#[test]
fn distances_are_those_of_the_metric() {
    let (centroids, x) = (array![[0.0f32, 2.0], [1.0, 0.0]], array![[3.0f32, 4.0], [0.0, 0.0]]);
    let model = |metric| KMeans::<f32, Ix2>::with_metric(centroids.view(), metric, Backend::Cpu).unwrap();
    let cosine = model(Metric::Cosine);
    assert_eq!(cosine.centroids(), &array![[0.0, 1.0], [1.0, 0.0]]);
    let distances = cosine.transform(x.view()).unwrap();
    let expected = array![[0.2f32, 0.4], [1.0, 1.0]];
    assert!((&distances - &expected).iter().all(|v| v.abs() < 1e-6), "{distances}");
    assert_eq!(model(Metric::Dot).transform(x.view()).unwrap(), array![[-8.0, -3.0], [0.0, 0.0]]);
    assert_eq!(model(Metric::SphericalDot).transform(x.view()).unwrap(), array![[-4.0, -3.0], [0.0, 0.0]]);
    assert_eq!(model(Metric::Dot).score(x.view()).unwrap(), 8.0);
}

#[test]
fn bad_points_are_refused_and_a_gpu_is_taken() {
    for metric in PRODUCTS {
        let mut x = points(100, 3, |v| v as f32);
        let found = if has_gpu() { CUDA } else { Backend::Cpu };
        assert_eq!(options(3, metric).backend(Backend::Auto).fit(x.view()).unwrap().backend(), found);
        x[(7, 1)] = f32::NAN;
        let refused = options(3, metric).fit(x.view());
        assert!(matches!(refused, Err(Error::NonFinite { what: "points", row: 7, column: 1, .. })));
        let centroids = array![[0.0, f64::INFINITY]];
        let refused = KMeans::<f64, Ix2>::with_metric(centroids.view(), metric, Backend::Cpu);
        assert!(matches!(refused, Err(Error::NonFinite { what: "centroids", .. })));
    }
}
