//! Points that come in batches: the update against its definition in float64, and what comes of it.
use flash_kmeans::{Backend, Element, Error, FlashKMeans, Init, Metric, MiniBatch};
use flash_kmeans_tests::{CUDA, has_gpu};
use half::f16;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, array, s};
use proptest::prelude::*;

/// Values in `-1..1` that look random and are the same everywhere.
fn random(n: usize, d: usize, seed: u64) -> Array2<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Array2::from_shape_simple_fn((n, d), || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    })
}

/// Overlapping groups: the sum of four uniform values about one of 20 centres.
fn blobs(n: usize, d: usize, seed: u64) -> Array2<f32> {
    let centres = random(20, d, seed) * 3.0;
    let mut points: Array2<f64> =
        (1..5).map(|part| random(n, d, seed + part)).fold(Array2::zeros((n, d)), |a, b| a + b);
    for (row, mut x) in points.axis_iter_mut(Axis(0)).enumerate() {
        x += &centres.row((row * row + row / 7) % 20);
    }
    points.mapv(|v| v as f32)
}

fn nearest(x: &[f64], centroids: &Array2<f64>) -> usize {
    let distance = |c: usize| x.iter().zip(centroids.row(c)).map(|(x, c)| (x - c) * (x - c)).sum::<f64>();
    (1..centroids.nrows()).fold(0, |best, c| if distance(c) < distance(best) { c } else { best })
}

/// `steps` batches, each step compared with the mean of all points that each cluster was ever given, to a share of it and
/// half of the least value of the points' type.
fn check<T: Element>(
    seed: u64,
    (k, d): (usize, usize),
    steps: u64,
    (precision, least): (f64, f64),
    convert: impl Fn(f64) -> T,
) {
    let offset = (seed % 3) as f64 * 10.0;
    let batch = |step: u64| {
        let n = if step == 0 { 2 * k + 3 } else { 1 + (seed as usize + 13 * step as usize) % 40 };
        random(n, d, seed + 1000 * step).mapv(|v| convert(v + offset))
    };
    let mut centroids = batch(0).slice(s![..k, ..]).mapv(Element::to_f64);
    let options = FlashKMeans::new(k).init(Init::Given(centroids.clone().into_dyn())).backend(Backend::Cpu);
    let mut fit = options.mini_batch::<T>().unwrap();
    let (mut sums, mut counts) = (Array2::<f64>::zeros((k, d)), vec![0u64; k]);
    for step in 0..steps {
        let points = batch(step);
        for x in points.rows() {
            let x: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
            let cluster = nearest(&x, &centroids);
            counts[cluster] += 1;
            sums.row_mut(cluster).iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
        }
        let before = centroids;
        fit.partial_fit(points.view()).unwrap();
        centroids = fit.centroids().unwrap().mapv(|c| c.to_f64());
        assert_eq!(fit.counts(), counts);
        assert_eq!(fit.n_steps() as u64, step + 1);
        for cluster in 0..k {
            for feature in 0..d {
                let found = centroids[(cluster, feature)];
                let expected = match counts[cluster] {
                    0 => before[(cluster, feature)],
                    count => sums[(cluster, feature)] / count as f64,
                };
                let most = precision * expected.abs() + least / 2.0 + 1e-13 * (1.0 + offset);
                assert!(
                    (found - expected).abs() <= most,
                    "step {step}, cluster {cluster}: {found} {expected}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn a_centroid_is_the_mean_of_all_points_it_was_given(
        seed in 0u64..1 << 40, k in 1usize..20, d in 1usize..9, steps in 1u64..8
    ) {
        check(seed, (k, d), steps, (0.0, 0.0), |v| v);
        check(seed, (k, d), steps, (f64::from(f32::EPSILON), 0.0), |v| v as f32);
        check(seed, (k, d), steps, (1.0 / 1024.0, f16::MIN_POSITIVE_SUBNORMAL.to_f64()), f16::from_f64);
    }
}

fn of_batches(options: &FlashKMeans, points: ArrayView2<'_, f32>, rows: usize) -> MiniBatch<f32> {
    let mut fit = options.mini_batch().unwrap();
    points.axis_chunks_iter(Axis(0), rows).for_each(|batch| fit.partial_fit(batch).unwrap());
    fit
}

#[test]
fn batches_come_near_to_what_all_points_give() {
    let points = blobs(40_000, 8, 1);
    // Of one start each, which may be a worse one than the best of three.
    const STARTS: u64 = 5;
    let mut sum = 0.0;
    for seed in 0..STARTS {
        let options = FlashKMeans::new(20).seed(seed).backend(Backend::Cpu);
        let whole = options.clone().n_init(3).fit(points.view()).unwrap();
        let batches = of_batches(&options, points.view(), 500);
        let model = batches.into_model(points.view()).unwrap();
        let ratio = model.inertia() / whole.inertia();
        assert!(ratio < 1.1, "seed {seed}: {ratio}");
        sum += ratio;
        assert_eq!((model.n_iter(), model.converged(), model.sizes().sum()), (80, false, 40_000));
        assert_eq!(model.labels(), &model.predict(points.view()).unwrap());
    }
    let mean = sum / STARTS as f64;
    assert!(mean < 1.05, "{mean}");
}

#[test]
fn the_same_batches_give_the_same_bits() {
    let points = blobs(5000, 7, 2);
    let options = |backend| FlashKMeans::new(30).seed(3).backend(backend);
    let bits =
        |fit: MiniBatch<f32>| -> Vec<u32> { fit.centroids().unwrap().iter().map(|c| c.to_bits()).collect() };
    let run = |backend| bits(of_batches(&options(backend), points.view(), 300));
    let first = run(Backend::Cpu);
    assert_eq!(run(Backend::Cpu), first);
    assert_ne!(bits(of_batches(&options(Backend::Cpu).seed(4), points.view(), 300)), first);
    // Columns of another array's rows: not in standard layout.
    let turned = points.t().as_standard_layout().into_owned();
    assert_eq!(bits(of_batches(&options(Backend::Cpu), turned.t(), 300)), first);
    if has_gpu() {
        assert_eq!(run(CUDA), first);
    }
}

#[test]
fn where_a_centroid_started_does_not_matter() {
    let far = Init::Given(array![[0.0, 0.0], [1e30, 1e30]].into_dyn());
    let mut fit = FlashKMeans::new(2).init(far).backend(Backend::Cpu).mini_batch::<f32>().unwrap();
    fit.partial_fit(array![[1.0, 2.0], [1e30, 1e30], [3.0, 2.0]].view()).unwrap();
    assert_eq!(fit.centroids().unwrap(), array![[2.0, 2.0], [1e30, 1e30]]);
    let far = Init::Given(array![[1e30]].into_dyn());
    let mut fit = FlashKMeans::new(1).init(far).backend(Backend::Cpu).mini_batch::<f64>().unwrap();
    fit.partial_fit(array![[1.0], [2.0]].view()).unwrap();
    assert_eq!(fit.centroids().unwrap(), array![[1.5]]);
}

#[test]
fn what_is_refused_changes_nothing() {
    let options = FlashKMeans::new(3).backend(Backend::Cpu);
    for (wrong, name) in [
        (FlashKMeans::new(0), "n_clusters"),
        (options.clone().n_init(2), "n_init"),
        (options.clone().max_points_per_centroid(5), "max_points_per_centroid"),
    ] {
        let error = wrong.mini_batch::<f32>().unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { argument, .. } if argument == name), "{error}");
    }
    let points = array![[1.0f32, 2.0], [3.0, 4.0], [9.0, 9.0], [0.0, 0.0]];
    let mut fit = options.mini_batch::<f32>().unwrap();
    assert!(matches!(
        fit.clone().into_model(points.view()),
        Err(Error::InvalidArgument { argument: "n_steps", .. })
    ));
    let few = fit.partial_fit(points.slice(s![..2, ..]));
    assert!(matches!(few, Err(Error::TooManyClusters { k: 3, n: 2 })));
    assert!(fit.centroids().is_none() && fit.n_steps() == 0);
    fit.partial_fit(points.view()).unwrap();
    let (before, counts) = (fit.centroids().unwrap().to_owned(), fit.counts().to_vec());
    assert!(matches!(fit.partial_fit(array![[1.0]].view()), Err(Error::Shape { what: "points", .. })));
    let nan = fit.partial_fit(array![[1.0, 2.0], [1.0, f32::NAN]].view());
    assert!(matches!(nan, Err(Error::NonFinite { row: 1, column: 1, .. })));
    let none = fit.partial_fit(Array2::zeros((0, 2)).view());
    assert!(matches!(none, Err(Error::InvalidArgument { argument: "n", .. })));
    assert_eq!((fit.centroids().unwrap().to_owned(), fit.counts(), fit.n_steps()), (before, &counts[..], 1));
    assert!(matches!(fit.into_model(array![[1.0]].view()), Err(Error::Shape { .. })));
}

/// Where rows are drawn, the first batch has to have as many as there are clusters; where centroids are given, one is enough.
#[test]
fn the_first_batch_may_be_small() {
    let points = blobs(10, 2, 1);
    let drawn = FlashKMeans::new(10).init(Init::Random).backend(Backend::Cpu);
    drawn.mini_batch().unwrap().partial_fit(points.view()).unwrap();
    let first = points.mapv(f64::from).into_dyn();
    let mut given = FlashKMeans::new(10).init(Init::Given(first)).backend(Backend::Cpu).mini_batch().unwrap();
    given.partial_fit(points.slice(s![..1, ..])).unwrap();
    assert_eq!(given.counts().iter().sum::<u64>(), 1);
}

#[test]
fn a_sum_of_zeros_keeps_its_direction() {
    for metric in [Metric::Cosine, Metric::SphericalDot] {
        let init = Init::Given(array![[0.0, 1.0]].into_dyn());
        let options = FlashKMeans::new(1).init(init).metric(metric).backend(Backend::Cpu);
        let mut fit = options.mini_batch().unwrap();
        fit.partial_fit(array![[1.0f32, 0.0], [-1.0, 0.0]].view()).unwrap();
        assert_eq!(fit.centroids().unwrap(), array![[0.0f32, 1.0]], "{metric}");
    }
}

/// Batches of points with whole weights are those of as many points, but for rounding.
#[test]
fn a_whole_weight_is_as_many_points() {
    for metric in [Metric::Euclidean, Metric::Cosine, Metric::Dot, Metric::SphericalDot] {
        let points = blobs(300, 3, 5).mapv(f64::from);
        let init = Init::Given(points.slice(s![..7, ..]).to_owned().into_dyn());
        let options = FlashKMeans::new(7).init(init).metric(metric).backend(Backend::Cpu);
        let [mut weighted, mut many] = [(); 2].map(|()| options.mini_batch::<f64>().unwrap());
        for batch in points.axis_chunks_iter(Axis(0), 60) {
            let weights: Vec<f32> = (0..60).map(|row| ((row * row + 1) % 4) as f32).collect();
            let rows: Vec<usize> =
                (0..60).flat_map(|row| std::iter::repeat_n(row, weights[row] as usize)).collect();
            weighted.partial_fit_weighted(batch, ArrayView1::from(&weights)).unwrap();
            many.partial_fit(batch.select(Axis(0), &rows).view()).unwrap();
        }
        let apart = (&weighted.centroids().unwrap() - &many.centroids().unwrap()).mapv(f64::abs).sum();
        assert!(apart <= 1e-11, "{metric}: {apart:e}");
        assert_eq!(weighted.counts().iter().sum::<u64>(), 300);
        let ones = [1.0f32; 300];
        let before = weighted.clone();
        weighted.partial_fit_weighted(points.view(), ArrayView1::from(&ones)).unwrap();
        let mut plain = before;
        plain.partial_fit(points.view()).unwrap();
        assert_eq!(weighted.centroids(), plain.centroids());
    }
}

#[test]
fn clusters_without_weight_stay() {
    let init = Init::Given(array![[0.0], [10.0]].into_dyn());
    let mut fit = FlashKMeans::new(2).init(init).backend(Backend::Cpu).mini_batch::<f64>().unwrap();
    fit.partial_fit_weighted(array![[1.0], [11.0], [12.0]].view(), array![2.0, 0.0, 0.0].view()).unwrap();
    assert_eq!((fit.centroids().unwrap(), fit.counts()), (array![[1.0], [10.0]].view(), &[1, 2][..]));
    // Where the centroid started counts for nothing still.
    fit.partial_fit_weighted(array![[12.0], [14.0]].view(), array![0.0, 0.5].view()).unwrap();
    assert_eq!(fit.centroids().unwrap(), array![[1.0], [14.0]]);
    let before = fit.centroids().unwrap().to_owned();
    let negative = fit.partial_fit_weighted(array![[1.0]].view(), array![-1.0].view());
    assert!(matches!(negative, Err(Error::InvalidArgument { argument: "weights", .. })));
    let short = fit.partial_fit_weighted(array![[1.0], [2.0]].view(), array![1.0].view());
    assert!(matches!(short, Err(Error::Shape { what: "weights", .. })));
    assert_eq!(fit.centroids().unwrap(), before);
}
