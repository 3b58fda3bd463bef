//! Values and shapes at the edges, on the CPU and, where there is one, on the GPU: whatever the points are, labels are
//! those of float64 for the centroids returned, sizes and inertia belong to them, and everything is finite.
use flash_kmeans::{Backend, Element, Error, FlashKMeans, Init, KMeans, Metric, PointsDim, Streaming};
use flash_kmeans_tests::{CUDA, Outcome, check_outcome, has_gpu, is_set};
use half::{bf16, f16};
use ndarray::{Array2, Array3, ArrayView, ArrayView2, Axis, Ix2, Ix3, array, s};

/// A type of points.
trait Point: Element {
    /// The largest finite value.
    const MAX: f64;
    /// The largest of which the GPU's sums of some hundred are finite.
    const MAX_GPU: f64;
    /// The least positive value, and for f64 one whose square is not 0.
    const TINY: f64;
    fn of(value: f64) -> Self;
}
macro_rules! point {
    ($type:ty, $max:expr, $max_gpu:expr, $tiny:expr, $of:expr) => {
        impl Point for $type {
            const MAX: f64 = $max;
            const MAX_GPU: f64 = $max_gpu;
            const TINY: f64 = $tiny;
            fn of(value: f64) -> Self {
                $of(value)
            }
        }
    };
}
point!(f16, 65_504.0, 65_504.0, 1.0 / (1u64 << 24) as f64, f16::from_f64);
point!(bf16, 3.389_531_389_251_535_5e38, 1e36, 9.183_549_615_799_121e-41, bf16::from_f64);
point!(f32, f32::MAX as f64, 1e36, 1.401_298_464_324_817e-45, |v| v as f32);
point!(f64, 9.999e149, 9.999e149, 1e-155, |v| v);

/// `check` of every type on every backend that takes it.
macro_rules! everywhere {
    ($check:ident) => {
        $check::<f16>(Backend::Cpu);
        $check::<bf16>(Backend::Cpu);
        $check::<f32>(Backend::Cpu);
        $check::<f64>(Backend::Cpu);
        if has_gpu() {
            $check::<f16>(CUDA);
            $check::<bf16>(CUDA);
            $check::<f32>(CUDA);
        }
    };
}

fn max<T: Point>(backend: Backend) -> f64 {
    if backend == CUDA { T::MAX_GPU } else { T::MAX }
}

/// Integers in `0..below` that look random and are the same everywhere.
fn hash(i: usize, j: usize, below: usize) -> f64 {
    let mut z =
        (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (j as u64 + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z >> 33) % below as u64) as f64
}

fn points<T: Point>(n: usize, d: usize, value: impl Fn(usize, usize) -> f64) -> Array2<T> {
    Array2::from_shape_fn((n, d), |(i, j)| T::of(value(i, j)))
}

/// What a model of one problem promises of itself.
fn check_problem<T: Point>(
    points: ArrayView2<T>,
    centroids: ArrayView2<T::Centroid>,
    labels: &[u32],
    sizes: &[u64],
    inertia: f64,
) {
    let outcome = Outcome { centroids, labels: labels.into(), sizes: sizes.into(), inertia };
    check_outcome(points, None, Metric::Euclidean, &outcome, T::DTYPE.to_string().as_str());
}

fn check<T: Point>(points: &Array2<T>, model: &KMeans<T, Ix2>) {
    let (labels, sizes) = (model.labels().to_vec(), model.sizes().to_vec());
    check_problem(points.view(), model.centroids().view(), &labels, &sizes, model.inertia());
    assert_eq!(model.predict(points.view()).unwrap(), model.labels());
    for summary in model.problems() {
        assert!(summary.history.iter().all(|i| i.inertia >= 0.0 && i.shift >= 0.0));
    }
}

/// A fit from the first rows, or of any start, and all it promises.
fn fit<T: Point>(points: &Array2<T>, options: FlashKMeans, backend: Backend) -> KMeans<T, Ix2> {
    let model = options.backend(backend).fit(points.view()).unwrap();
    assert_eq!(model.backend(), backend);
    check(points, &model);
    model
}

fn first_rows<T: Point>(points: &Array2<T>, k: usize) -> Init {
    Init::Given(points.slice(s![..k, ..]).mapv(|v| v.to_f64()).into_dyn())
}

fn largest_values<T: Point>(backend: Backend) {
    let max = max::<T>(backend);
    for (n, d, k) in [(300, 5, 3), (257, 64, 20), (200, 100, 7)] {
        // All of a sign and size; both signs; of sizes from 1 up.
        let all = points::<T>(n, d, |_, _| max);
        let model = fit(&all, FlashKMeans::new(1).max_iter(2), backend);
        let error = (model.centroids()[(0, 0)].to_f64() - T::of(max).to_f64()).abs();
        assert!(error <= 1e-6 * max, "the mean of equal values is that value: {error:e}");
        let signs = points::<T>(n, d, |i, j| if hash(i, j, 2) == 0.0 { max } else { -max });
        fit(&signs, FlashKMeans::new(k).max_iter(5).tol(0.0).init(first_rows(&signs, k)), backend);
        let sizes = points::<T>(n, d, |i, j| (max.ln() * hash(i, j, 1000) / 1000.0).exp());
        fit(&sizes, FlashKMeans::new(k).max_iter(5).tol(0.0), backend);
    }
}

/// Squares of these overflow f16, sums of them overflow it too, and bf16 has nothing between most of them.
#[test]
fn values_up_to_the_largest() {
    everywhere!(largest_values);
}

fn subnormals<T: Point>(backend: Backend) {
    for d in [3, 64] {
        let x = points::<T>(300, d, |i, j| T::TINY * (100.0 * (i % 3) as f64 + hash(i, j, 4)));
        let model = fit(&x, FlashKMeans::new(3).tol(0.0).max_iter(10).init(first_rows(&x, 3)), backend);
        assert!((0..300).all(|i| model.labels()[i] == (i % 3) as u32), "groups are found");
        fit(&x, FlashKMeans::new(5).max_iter(3), backend);
    }
}

#[test]
fn values_down_to_the_smallest() {
    everywhere!(subnormals);
}

fn offsets<T: Point>(backend: Backend) {
    // Integers that the type has with and without the offset: all differences are the same.
    let offset = if T::MAX < 1e5 {
        1024.0
    } else if T::of(257.0).to_f64() != 257.0 {
        128.0
    } else {
        1_048_576.0
    };
    let group = if offset == 128.0 { 30.0 } else { 100.0 };
    for (n, d, k) in [(400, 6, 4), (300, 64, 4)] {
        let plain = points::<T>(n, d, |i, j| group * (i % k) as f64 + hash(i, j, 8));
        let far = points::<T>(n, d, |i, j| offset + group * (i % k) as f64 + hash(i, j, 8));
        let options = |x| FlashKMeans::new(k).tol(0.0).max_iter(20).init(first_rows(x, k));
        let (here, there) = (fit(&plain, options(&plain), backend), fit(&far, options(&far), backend));
        assert_eq!(here.labels(), there.labels());
        assert!(here.converged() && there.converged());
        // Centroids are rounded to another grid there, and nothing else differs: no cancellation.
        let relative = (here.inertia() - there.inertia()).abs() / here.inertia();
        assert!(
            relative < if T::MAX < 1e5 || offset == 128.0 { 0.05 } else { 1e-3 },
            "inertia {} and {}",
            here.inertia(),
            there.inertia()
        );
    }
}

/// Inertia by `‖x‖² − 2 x·c + ‖c‖²` would be lost to cancellation.
#[test]
fn a_common_offset_changes_nothing() {
    everywhere!(offsets);
}

#[test]
fn an_offset_of_a_million() {
    let check_on = |backend| {
        let x = points::<f32>(500, 20, |i, j| 1e6 + (i % 5) as f64 * 3.0 + hash(i, j, 8) / 8.0);
        let model = fit(&x, FlashKMeans::new(5).tol(0.0).init(first_rows(&x, 5)).max_iter(20), backend);
        assert!((0..500).all(|i| model.labels()[i] == (i % 5) as u32));
    };
    check_on(Backend::Cpu);
    if has_gpu() {
        check_on(CUDA);
    }
}

fn shapes<T: Point>(backend: Backend) {
    for d in [1, 2, 3, 7, 33] {
        // Widths and counts that no tile divides.
        let x = points::<T>(700, d, |i, j| hash(i, j, 64) - 32.0);
        for k in [1, 2, 37, 257] {
            for iterations in [1, 4] {
                let options = FlashKMeans::new(k).tol(0.0).max_iter(iterations);
                let model = fit(&x, options.init(Init::Random).seed(3), backend);
                assert!(model.n_iter() <= iterations);
            }
        }
    }
    // As many clusters as points: each has its own.
    let x = points::<T>(60, 2, |i, j| (i * (j + 1)) as f64);
    for init in [Init::Random, Init::KMeansPlusPlus, Init::KMeansParallel { oversampling: 2.0, rounds: 5 }] {
        let model = fit(&x, FlashKMeans::new(60).init(init), backend);
        assert_eq!((model.sizes().to_vec(), model.inertia(), model.converged()), (vec![1; 60], 0.0, true));
    }
    // One point.
    let model = fit(&x.slice(s![..1, ..]).to_owned(), FlashKMeans::new(1), backend);
    assert_eq!((model.inertia(), model.sizes().to_vec()), (0.0, vec![1]));
}

#[test]
fn shapes_at_the_edges() {
    everywhere!(shapes);
}

fn equal_points<T: Point>(backend: Backend) {
    for value in [0.0, -0.0, 0.7, T::TINY, -max::<T>(backend)] {
        let x = points::<T>(200, 9, |_, _| value);
        for k in [1, 2, 5, 200] {
            for init in
                [Init::Random, Init::KMeansPlusPlus, Init::KMeansParallel { oversampling: 2.0, rounds: 5 }]
            {
                let model = fit(&x, FlashKMeans::new(k).init(init), backend);
                assert!(model.labels().iter().all(|&l| l == 0), "of equal distances the first");
                assert!(model.converged() && model.inertia() <= 1e-12 * max::<T>(backend).powi(2));
            }
        }
    }
}

#[test]
fn points_that_are_all_equal() {
    everywhere!(equal_points);
}

fn outlier<T: Point>(backend: Backend) {
    for far in [1e3, 6e4, 1e30] {
        if far > max::<T>(backend) {
            continue;
        }
        for d in [4, 64] {
            let x = points::<T>(400, d, |i, j| if i == 123 { far } else { hash(i, j, 5) });
            let model = fit(&x, FlashKMeans::new(2).seed(1), backend);
            let of = model.labels()[123];
            assert!((0..400).all(|i| (model.labels()[i] == of) == (i == 123)), "the outlier is alone");
            fit(&x, FlashKMeans::new(20).max_iter(5), backend);
        }
    }
}

#[test]
fn one_outlier_far_away() {
    everywhere!(outlier);
}

fn many_problems<T: Point>(backend: Backend) {
    // More problems than a grid has blocks in its second dimension.
    let x = Array3::from_shape_fn((70_000, 3, 2), |(b, i, j)| T::of(hash(3 * b + i, j, 16)));
    let model = FlashKMeans::new(2).max_iter(4).backend(backend).fit(x.view()).unwrap();
    for b in [0, 1, 65_534, 65_535, 65_536, 69_999] {
        check_problem(
            x.index_axis(Axis(0), b),
            model.centroids().index_axis(Axis(0), b),
            &model.labels().index_axis(Axis(0), b).to_vec(),
            &model.sizes().index_axis(Axis(0), b).to_vec(),
            model.problems()[b].inertia,
        );
    }
    assert!(model.sizes().axis_iter(Axis(0)).all(|sizes| sizes.sum() == 3));
}

#[test]
fn more_problems_than_65535() {
    everywhere!(many_problems);
}

fn empty_clusters<T: Point>(backend: Backend) {
    let x = points::<T>(90, 2, |i, j| 10.0 * (i % 3) as f64 + j as f64);
    // The second and the fourth centroid are nobody's; the fifth repeats the third.
    let given = array![[0.0, 1.0], [-50.0, -50.0], [10.0, 11.0], [90.0, 90.0], [10.0, 11.0], [20.0, 21.0]];
    let model = fit(&x, FlashKMeans::new(6).init(Init::Given(given.clone().into_dyn())).tol(0.0), backend);
    assert_eq!(model.sizes().to_vec(), [30, 0, 30, 0, 0, 30]);
    assert_eq!(model.centroids().mapv(|c| c.to_f64()), given, "they keep their centroids");
    assert!(
        model.converged() && model.n_iter() <= 2,
        "a fixed point ends a fit, with a tolerance of 0 as well"
    );
}

#[test]
fn clusters_without_points_keep_their_centroids() {
    everywhere!(empty_clusters);
}

fn batches<T: Point>(backend: Backend) {
    // Problems of scales that one tolerance for all of them would treat alike.
    let scale = |b| [1.0, 100.0, 0.01][b];
    let x = Array3::from_shape_fn((3, 300, 5), |(b, i, j)| T::of(scale(b) * hash(i + 1000 * b, j, 97)));
    let options = FlashKMeans::new(9)
        .tol(1e-3)
        .max_iter(50)
        .backend(backend)
        .init(Init::Given(x.slice(s![.., ..9, ..]).mapv(|v| v.to_f64()).into_dyn()));
    let together = options.fit(x.view()).unwrap();
    for b in 0..3 {
        let one = x.index_axis(Axis(0), b).to_owned();
        let alone = fit(&one, options.clone().init(first_rows(&one, 9)), backend);
        assert_eq!(together.problems()[b], alone.problems()[0], "problem {b} ends by itself");
        assert_eq!(together.centroids().index_axis(Axis(0), b), alone.centroids());
    }
}

#[test]
fn problems_of_a_batch_end_by_themselves() {
    everywhere!(batches);
}

fn views<T: Point>(backend: Backend) {
    let wide = points::<T>(120, 14, |i, j| hash(i, j, 50));
    for view in [
        wide.slice(s![..;-1, ..]),
        wide.slice(s![..;3, 1..;2]),
        wide.t().slice(s![.., ..40]),
        wide.slice(s![.., 13..]),
    ] {
        let copy = view.as_standard_layout().into_owned();
        let options = FlashKMeans::new(4).max_iter(6).seed(5).backend(backend);
        let (of_view, of_copy) = (options.fit(view).unwrap(), options.fit(copy.view()).unwrap());
        check(&copy, &of_view);
        assert_eq!(of_view.centroids(), of_copy.centroids());
        assert_eq!(of_view.labels(), of_copy.labels());
    }
}

#[test]
fn views_of_any_strides() {
    everywhere!(views);
}

fn non_finite<T: Point>(backend: Backend) {
    fn place<R: std::fmt::Debug>(result: Result<R, Error>) -> (&'static str, usize, usize, String) {
        match result {
            Err(Error::NonFinite { what, row, column, value }) => (what, row, column, value),
            other => panic!("{other:?}"),
        }
    }
    let good = points::<T>(200_000, 3, |i, j| hash(i, j, 10));
    let model =
        FlashKMeans::new(2).max_iter(1).init(first_rows(&good, 2)).backend(backend).fit(good.view()).unwrap();
    for (bad, text) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
        for (row, column) in [(0, 0), (7, 2), (199_999, 1)] {
            let mut x = good.clone();
            x[(row, column)] = T::of(bad);
            // A later one does not matter.
            x[(199_999, 2)] = T::of(f64::NAN);
            let expected = ("points", row, column, text.to_string());
            let options = FlashKMeans::new(2).backend(backend);
            assert_eq!(place(options.fit(x.view())), expected);
            assert_eq!(place(model.predict(x.view())), expected);
            // Rows of a batch are counted over all its problems.
            let batch = x.into_shape_with_order((2, 100_000, 3)).unwrap();
            assert_eq!(place(options.fit(batch.view())), expected);
        }
        let given = Init::Given(array![[0.0, 0.0, 0.0], [0.0, bad, 0.0]].into_dyn());
        let refused = FlashKMeans::new(2).init(given).backend(backend).fit(good.view());
        assert_eq!(place(refused), ("centroids", 1, 1, text.to_string()));
    }
}

#[test]
fn nan_and_infinity_are_refused_by_row_and_column() {
    everywhere!(non_finite);
}

/// Centroids that are finite in their own type, and infinite in the points'.
#[test]
fn given_centroids_that_16_bits_cannot_hold_are_refused() {
    fn check<T: Point>(large: f64, backend: Backend) {
        let x = points::<T>(20, 2, hash_ten);
        let init = Init::Given(array![[1.0, 2.0], [large, 0.0]].into_dyn());
        let options = FlashKMeans::new(2).init(init).backend(backend);
        for (how, result) in [
            ("fit", options.fit(x.view()).map(drop)),
            ("fit_stream", options.fit_stream(&x, &Streaming::new(), &mut ()).map(drop)),
            ("partial_fit", options.mini_batch().unwrap().partial_fit(x.view())),
        ] {
            assert!(
                matches!(result, Err(Error::NonFinite { what: "centroids", row: 1, column: 0, .. })),
                "{how} on {backend}: {result:?}"
            );
        }
    }
    for backend in [Backend::Cpu, CUDA] {
        if backend == Backend::Cpu || has_gpu() {
            check::<f16>(1e6, backend);
            check::<bf16>(3.4e38, backend);
        }
    }
}

/// Squares of f64 end before its values do: what could overflow is refused, and never a panic or a wrong label.
#[test]
fn f64_values_too_large_to_square_are_refused() {
    for large in [1.1e150, 1e155, 1e200, f64::MAX] {
        let x = Array2::from_shape_fn((20, 3), |(i, j)| if i % 2 == 0 { large } else { (i + j) as f64 });
        let refused = FlashKMeans::new(2).backend(Backend::Cpu).fit(x.view());
        assert!(
            matches!(refused, Err(Error::NonFinite { what: "points", row: 0, column: 0, .. })),
            "{large:e}"
        );
        assert!(refused.unwrap_err().to_string().contains("1e150"));
        let small = x.mapv(|v| v.min(1.0));
        let init = Init::Given(x.slice(s![..2, ..]).to_owned().into_dyn());
        let refused = FlashKMeans::new(2).init(init).backend(Backend::Cpu).fit(small.view());
        assert!(matches!(refused, Err(Error::NonFinite { what: "centroids", .. })), "{large:e}");
        let model = KMeans::<f64, Ix2>::from_centroids(x.view(), Backend::Cpu);
        assert!(matches!(model, Err(Error::NonFinite { what: "centroids", .. })), "{large:e}");
    }
}

#[test]
fn bad_shapes_and_options_are_refused() {
    fn argument<D: PointsDim>(options: &FlashKMeans, x: ArrayView<f32, D>) -> &'static str {
        match options.fit(x) {
            Err(Error::InvalidArgument { argument, .. }) => argument,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("no error"),
        }
    }
    let backends = if has_gpu() { vec![Backend::Cpu, CUDA] } else { vec![Backend::Cpu] };
    for backend in backends {
        let x = points::<f32>(10, 3, hash_ten);
        let options = |k| FlashKMeans::new(k).backend(backend);
        assert!(matches!(options(11).fit(x.view()), Err(Error::TooManyClusters { k: 11, n: 10 })));
        assert_eq!(argument(&options(0), x.view()), "n_clusters");
        assert_eq!(argument(&options(usize::MAX), x.view()), "n_clusters");
        assert_eq!(argument(&options(1).max_iter(0), x.view()), "max_iter");
        assert_eq!(argument(&options(1).tol(f64::NAN), x.view()), "tol");
        assert_eq!(argument(&options(1).tol(-1.0), x.view()), "tol");
        assert_eq!(argument(&options(1), x.slice(s![..0, ..])), "n");
        assert_eq!(argument(&options(1), x.slice(s![.., ..0])), "d");
        assert_eq!(argument(&options(1), Array3::zeros((0, 4, 4)).view()), "batch");
        let model = options(2).fit(x.view()).unwrap();
        assert!(matches!(model.predict(x.slice(s![.., ..2])), Err(Error::Shape { .. })));
        let batch = Array3::<f32>::zeros((2, 5, 3));
        let model: KMeans<f32, Ix3> = options(1).fit(batch.view()).unwrap();
        assert!(matches!(model.predict(batch.slice(s![..1, .., ..])), Err(Error::Shape { .. })));
    }
}

fn hash_ten(i: usize, j: usize) -> f64 {
    hash(i, j, 10)
}

/// More values than 32 bits count, signed and not; with `FLASH_KMEANS_LARGE=1`, as it takes 9 GB.
#[test]
fn more_values_than_32_bits_count() {
    if !is_set("FLASH_KMEANS_LARGE") {
        return;
    }
    let backends = if has_gpu() { vec![Backend::Cpu, CUDA] } else { vec![Backend::Cpu] };
    for count in [1usize << 31, 1 << 32] {
        let d = 64;
        let n = count / d + 5;
        let groups: Vec<f16> =
            (0..4 * d).map(|at| f16::from_f64(20.0 * (at / d) as f64 + hash(at, 0, 8))).collect();
        let values: Vec<f16> = groups.iter().copied().cycle().take(n * d).collect();
        let x = Array2::from_shape_vec((n, d), values).unwrap();
        for &backend in &backends {
            let options = FlashKMeans::new(4).init(first_rows(&x, 4)).max_iter(2).tol(0.0).backend(backend);
            let model = options.fit(x.view()).unwrap();
            assert!(model.labels().iter().enumerate().all(|(row, &label)| label as usize == row % 4));
            assert_eq!(model.inertia(), 0.0);
        }
    }
}
