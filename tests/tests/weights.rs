//! Weights of points: what they change, and what they do not.
use flash_kmeans::{Backend, Element, Error, FlashKMeans, Init, KMeans, Streaming, Weighted};
use flash_kmeans_tests::{CUDA, backends, has_gpu, is_emulated};
use half::{bf16, f16};
use ndarray::{Array1, Array2, Array3, Axis, Ix2, array, s};

/// Small integers that look random.
fn hash(i: usize, j: usize, below: usize) -> f64 {
    let z = (i as u64 * 31 + j as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f64 % below as f64
}

fn points<T: Element>(n: usize, d: usize, of: impl Fn(f64) -> T) -> Array2<T> {
    Array2::from_shape_fn((n, d), |(i, j)| of(hash(i, j, 97) * 0.25 - 12.0))
}

fn weights(n: usize) -> Array1<f64> {
    (0..n).map(|i| hash(i, 7, 5) * 0.75).collect()
}

fn options(k: usize) -> FlashKMeans {
    FlashKMeans::new(k).backend(Backend::Cpu).tol(0.0)
}

const INITS: [Init; 3] =
    [Init::Random, Init::KMeansPlusPlus, Init::KMeansParallel { oversampling: 2.0, rounds: 3 }];

/// Labels are the nearest, centroids the weighted means of the labels before, and the inertia a weighted sum.
fn check<T: Element>(of: impl Fn(f64) -> T + Copy, backend: Backend) {
    let options = |k| options(k).backend(backend);
    let all = [(1, 1, 1), (50, 3, 4), (700, 17, 20), (5000, 2, 33)];
    for &(n, d, k) in if is_slow(backend) { &all[..3] } else { &all } {
        let (x, w) = (points(n, d, of), weights(n) + 0.25);
        for init in INITS {
            let model = options(k).init(init).max_iter(40).fit_weighted(x.view(), w.view(), &mut ()).unwrap();
            assert_eq!(model.labels(), &model.predict(x.view()).unwrap());
            let (mut sums, mut totals) = (Array2::<f64>::zeros((k, d)), vec![0.0; k]);
            let mut inertia = 0.0;
            for ((x, &w), &label) in x.outer_iter().zip(&w).zip(model.labels()) {
                let x = x.mapv(|v| v.to_f64());
                let c = model.centroids().row(label as usize).mapv(|v| v.to_f64());
                inertia += w * (&x - &c).mapv(|v| v * v).sum();
                sums.row_mut(label as usize).scaled_add(w, &x);
                totals[label as usize] += w;
            }
            assert!((model.inertia() - inertia).abs() <= 1e-12 * inertia, "{} {inertia}", model.inertia());
            assert_eq!(model.sizes().sum(), n as u64);
            if model.problems()[0].history.last().unwrap().changed == 0 {
                for ((sum, total), c) in sums.outer_iter().zip(totals).zip(model.centroids().outer_iter()) {
                    for (sum, c) in sum.iter().zip(c).filter(|_| total > 0.0) {
                        // Sums in f32 may be on the other side of where the points' type rounds.
                        let mean = sum / total;
                        let error = 1e-6 * (1.0 + mean.abs());
                        let rounded = |v: f64| T::round_centroid(flash_kmeans::Float::from_f64(v)).to_f64();
                        let is_near =
                            rounded(mean - error) <= c.to_f64() && c.to_f64() <= rounded(mean + error);
                        assert!(is_near, "{mean} {c:?}");
                    }
                }
            }
        }
    }
}

/// Whether a GPU is there that is only emulated.
fn is_slow(backend: Backend) -> bool {
    backend == CUDA && is_emulated()
}

#[test]
fn centroids_are_weighted_means_and_the_inertia_a_weighted_sum() {
    check::<f64>(|v| v, Backend::Cpu);
    for backend in backends() {
        check::<f32>(|v| v as f32, backend);
        check::<f16>(f16::from_f64, backend);
        check::<bf16>(bf16::from_f64, backend);
    }
}

#[test]
fn equal_weights_change_nothing() {
    backends().into_iter().for_each(equal_weights);
}

fn equal_weights(backend: Backend) {
    let n = if is_slow(backend) { 300 } else { 3000 };
    let x = points(n, 5, |v| v as f32);
    for init in INITS {
        let options = options(30).backend(backend).init(init.clone()).max_iter(20);
        let plain = options.fit(x.view()).unwrap();
        let ones = options.fit_weighted(x.view(), Array1::<f32>::ones(n).view(), &mut ()).unwrap();
        assert_eq!((ones.centroids(), ones.labels()), (plain.centroids(), plain.labels()));
        assert_eq!(ones.problems(), plain.problems());
        // A power of two rounds nothing; from the same centroids all else is the same too.
        let options = options.init(Init::from(&plain)).max_iter(7);
        let plain = options.fit(x.view()).unwrap();
        let twos = options.fit_weighted(x.view(), Array1::from_elem(n, 2.0).view(), &mut ()).unwrap();
        if backend == CUDA {
            // There a mean with masses is rounded once more.
            let apart = (twos.centroids() - plain.centroids()).mapv(f32::abs);
            assert!(apart.iter().all(|&apart| apart <= 4e-6), "{apart}");
            continue;
        }
        assert_eq!((twos.centroids(), twos.labels()), (plain.centroids(), plain.labels()));
        assert_eq!(twos.inertia(), 2.0 * plain.inertia());
    }
}

#[test]
fn a_whole_weight_is_as_many_points() {
    let (n, d, k) = (400, 4, 9);
    let x = points(n, d, |v| v);
    let w: Array1<f64> = (0..n).map(|i| hash(i, 3, 4)).collect();
    let rows: Vec<usize> = (0..n).flat_map(|i| std::iter::repeat_n(i, w[i] as usize)).collect();
    let repeated = x.select(Axis(0), &rows);
    let options = options(k).init(Init::Given(x.slice(s![..k, ..]).to_owned().into_dyn()));
    let weighted = options.fit_weighted(x.view(), w.view(), &mut ()).unwrap();
    let many = options.fit(repeated.view()).unwrap();
    assert!(weighted.converged() && many.converged());
    for (row, &label) in rows.iter().zip(many.labels()) {
        assert_eq!(weighted.labels()[*row], label);
    }
    let apart = (weighted.centroids() - many.centroids()).mapv(f64::abs).sum();
    assert!(apart <= 1e-10, "{apart}");
    assert!((weighted.inertia() - many.inertia()).abs() <= 1e-12 * many.inertia());
    let (score, of_many) =
        (many.score_weighted(x.view(), w.view()).unwrap(), many.score(repeated.view()).unwrap());
    assert!((score - of_many).abs() <= 1e-12 * of_many.abs(), "{score} {of_many}");
    let ones = Array1::<f32>::ones(n);
    assert_eq!(many.score_weighted(x.view(), ones.view()).unwrap(), many.score(x.view()).unwrap());
    let short = many.score_weighted(x.view(), ones.slice(s![1..]));
    assert!(matches!(short, Err(Error::Shape { what: "weights", .. })));
}

#[test]
fn points_without_weight_are_labelled_and_move_nothing() {
    let x = array![[0.0f32], [1.0], [100.0], [8.0], [9.0]];
    let w = array![1.0, 1.0, 0.0, 1.0, 0.0];
    for backend in backends() {
        let given = Init::Given(array![[0.0], [9.0], [100.0]].into_dyn());
        let options = options(3).backend(backend).init(given);
        let model = options.fit_weighted(x.view(), w.view(), &mut ()).unwrap();
        assert_eq!(model.centroids(), &array![[0.5], [8.0], [100.0]], "the third keeps its centroid");
        assert_eq!((model.labels().to_vec(), model.sizes().to_vec()), (vec![0, 0, 2, 1, 1], vec![2, 2, 1]));
        assert_eq!(model.inertia(), 0.5);
    }
}

fn same<T: Element>(a: &KMeans<T, Ix2>, b: &KMeans<T, Ix2>) {
    assert_eq!((a.centroids(), a.labels()), (b.centroids(), b.labels()));
    assert_eq!(a.problems(), b.problems());
}

#[test]
fn bits_depend_neither_on_threads_nor_on_where_the_points_are() {
    for backend in backends().into_iter().filter(|&backend| !is_slow(backend)) {
        // More than one panel of the CPU's, or of a GPU's, so that chunks differ from the whole.
        bits_depend_on_nothing_else(
            if backend == CUDA { ((1 << 21) + 77, 3) } else { (80_000, 64) },
            backend,
        );
    }
}

fn bits_depend_on_nothing_else((n, d): (usize, usize), backend: Backend) {
    let (x, w) = (points(n, d, |v| v as f32), weights(n));
    for init in INITS {
        let options = options(12).backend(backend).init(init.clone()).max_iter(4).seed(3);
        let fit = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| options.fit_weighted(x.view(), w.view(), &mut ()).unwrap())
        };
        let one = fit(1);
        same(&one, &fit(5));
        if n > 1 << 17 && init != Init::Random {
            // Streams draw from a sample of so many points.
            continue;
        }
        let source = Weighted::new(&x, w.as_slice().unwrap());
        let streaming = Streaming::new().memory(3 * (16 << 20));
        same(&one, &options.fit_stream(&source, &streaming, &mut ()).unwrap());
    }
}

#[test]
fn problems_of_a_batch_have_their_own_weights() {
    backends().into_iter().for_each(of_a_batch);
}

fn of_a_batch(backend: Backend) {
    let options = |k| options(k).backend(backend).max_iter(if is_slow(backend) { 4 } else { 300 });
    let x = Array3::from_shape_fn((3, 300, 4), |(b, i, j)| hash(i + 1000 * b, j, 50) as f32);
    // Of one problem 1e30 times those of another: each has its own measure.
    let w = Array2::from_shape_fn((3, 300), |(b, i)| (hash(i, b, 9) * 0.5) as f32 * [1.0, 1e30, 1e-12][b]);
    let given = x.slice(s![.., ..6, ..]).mapv(f64::from).into_dyn();
    let together = options(6).init(Init::Given(given)).fit_weighted(x.view(), w.view(), &mut ()).unwrap();
    for b in 0..3 {
        let x = x.index_axis(Axis(0), b);
        let given = Init::Given(x.slice(s![..6, ..]).mapv(f64::from).into_dyn());
        let alone = options(6).init(given).fit_weighted(x, w.row(b), &mut ()).unwrap();
        assert_eq!(together.centroids().index_axis(Axis(0), b), alone.centroids());
        assert_eq!(together.problems()[b], alone.problems()[0]);
    }
}

#[test]
fn samples_and_starts_take_the_weights_along() {
    backends().into_iter().for_each(weights_along);
}

fn weights_along(backend: Backend) {
    let options = |k| options(k).backend(backend).max_iter(if is_slow(backend) { 4 } else { 300 });
    let (x, w) = (points(900, 3, |v| v as f32), weights(900));
    let one = options(9).init(Init::Random).fit_weighted(x.view(), w.view(), &mut ()).unwrap();
    let many = options(9).init(Init::Random).n_init(6).fit_weighted(x.view(), w.view(), &mut ()).unwrap();
    assert!(many.inertia() <= one.inertia());
    let sample = options(9).max_points_per_centroid(10).fit_weighted(x.view(), w.view(), &mut ()).unwrap();
    let of = |row: usize, label: u32| {
        let apart = (&x.row(row) - &sample.centroids().row(label as usize)).mapv(f64::from);
        w[row] * apart.mapv(|v| v * v).sum()
    };
    let inertia: f64 = sample.labels().iter().enumerate().map(|(row, &label)| of(row, label)).sum();
    assert!((sample.inertia() - inertia).abs() <= 1e-5 * inertia);
}

#[test]
fn a_checkpoint_of_other_weights_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fit.state");
    let (x, w) = (points(500, 3, |v| v as f32), weights(500));
    let options = options(5).init(Init::Random);
    let source = Weighted::new(&x, w.as_slice().unwrap());
    let streaming = Streaming::new().checkpoint(&path, 1);
    options.clone().max_iter(2).fit_stream(&source, &streaming, &mut ()).unwrap();
    let resumed = options.fit_stream(&source, &Streaming::new().resume(&path), &mut ()).unwrap();
    same(&resumed, &options.fit_stream(&source, &Streaming::new(), &mut ()).unwrap());
    let refused = options.fit_stream(&x, &Streaming::new().resume(&path), &mut ());
    assert!(matches!(refused, Err(Error::Format { .. })));
}

#[test]
fn bad_weights_are_refused_by_value_and_row() {
    let x = points(6, 2, |v| v as f32);
    let refused = |w: Array1<f64>| {
        let in_memory = options(2).fit_weighted(x.view(), w.view(), &mut ()).unwrap_err();
        let source = Weighted::new(&x, w.as_slice().unwrap());
        let streamed = options(2).fit_stream(&source, &Streaming::new(), &mut ()).unwrap_err();
        assert_eq!(in_memory.to_string(), streamed.to_string());
        in_memory
    };
    for bad in [f64::NAN, f64::INFINITY, -1.0, -f64::MIN_POSITIVE, 1.1e150] {
        let mut w = Array1::ones(6);
        (w[3], w[5]) = (bad, bad);
        let Error::InvalidArgument { argument: "weights", value, .. } = refused(w) else { panic!("{bad}") };
        assert_eq!(value, format!("{bad} in row 3"));
    }
    let error = refused(Array1::zeros(6));
    assert!(matches!(error, Error::InvalidArgument { argument: "weights", .. }), "{error}");
    for n in [0, 5, 7] {
        let error = refused(Array1::ones(n));
        assert!(matches!(error, Error::Shape { what: "weights", .. }), "{error}");
    }
    // The other problem of the batch has some.
    let batch = x.into_shape_with_order((2, 3, 2)).unwrap();
    let w = array![[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]];
    let error = options(1).fit_weighted(batch.view(), w.view(), &mut ()).unwrap_err();
    assert!(error.to_string().contains("problem 1"), "{error}");
}

#[test]
fn points_with_weights_take_a_gpu() {
    let (x, w) = (points(100, 2, |v| v as f32), weights(100));
    let auto = options(3).backend(Backend::Auto).fit_weighted(x.view(), w.view(), &mut ()).unwrap();
    assert_eq!(auto.backend(), if has_gpu() { CUDA } else { Backend::Cpu });
}
