//! Labels that the tensor cores find, without float64: how near they are, and that they have the same bits whatever a fit is
//! made of.
//!
//! Without a GPU the tests say so and pass; with `FLASH_KMEANS_REQUIRE_GPU=1` they fail instead, and with
//! `FLASH_KMEANS_GPU=emulated` they run on ones that are emulated.
use flash_kmeans::{
    Backend, Element, EmptyClusters, Error, FlashKMeans, Init, KMeans, Metric, Precision, Streaming, devices,
};
use flash_kmeans_tests::{CUDA, bits_but_costs, check_outcome, has_gpu, is_emulated};
use half::{bf16, f16};
use ndarray::{Array2, Array3, ArrayView1, Axis, Ix2, Ix3, s};

/// Values of points.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Data {
    /// Between -1 and 1.
    Plain,
    /// Groups far apart.
    Groups,
    /// 0, 1 and 2, far from 0: many ties.
    Integers,
    /// Few rows, many times each.
    Duplicates,
    /// Pairs of centroids a few roundings of 10 bits apart, about points between them.
    Close,
    /// Small beside the last row, so that what is scaled to all of them has less than 10 bits.
    Outlier,
}

const DATA: [Data; 6] =
    [Data::Plain, Data::Groups, Data::Integers, Data::Duplicates, Data::Close, Data::Outlier];

fn points<T: Element>([batch, n, d]: [usize; 3], data: Data, of: fn(f32) -> T) -> Array3<T> {
    let mut bits = 1u32;
    let mut unit = || {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (bits >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    Array3::from_shape_fn((batch, n, d), |(_, row, feature)| {
        let noise = unit();
        of(match data {
            Data::Plain => noise,
            Data::Groups => 20.0 * ((row * 7 + feature * 3) % 11) as f32 + noise,
            Data::Integers => 100.0 + (1.5 * noise + 1.5).floor(),
            Data::Duplicates => ((row % 6) * (feature + 1) % 5) as f32 - 1.7,
            Data::Close => ((row % 3) * (feature + 2) % 4) as f32 + noise / 1024.0,
            Data::Outlier if row + 1 == n => 3000.0,
            Data::Outlier => noise / 32.0,
        })
    })
}

/// From the first rows on.
fn options<T: Element>(points: &Array3<T>, k: usize) -> FlashKMeans {
    let first = Init::Given(points.slice(s![.., ..k, ..]).mapv(Element::to_f64).into_dyn());
    let iterations = if is_emulated() { 2 } else { 3 };
    FlashKMeans::new(k).init(first).max_iter(iterations).tol(0.0).backend(CUDA).precision(Precision::Tf32)
}

fn length(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

/// The bound that [`Precision`] states, with the centre of the points wherever it is best, for rounded ones.
fn check_near<T: Element>(points: &Array3<T>, model: &KMeans<T, Ix3>, context: &str) {
    let d = points.shape()[2];
    let sums = 3.0 * (d as f64 + 50.0) / f64::from(1 << 23);
    let rounds = size_of::<T>() == 4;
    for (problem, points) in points.outer_iter().enumerate() {
        let centroids = model.centroids().index_axis(Axis(0), problem).mapv(|c| c.to_f64());
        let labels = model.labels().index_axis(Axis(0), problem);
        let points = points.mapv(|x| x.to_f64());
        // As far as any centre near the mean is: the greatest of the distances among rows would do as well.
        let centre = if rounds { points.mean_axis(Axis(0)).unwrap() } else { ndarray::Array1::zeros(d) };
        let reach = |v: ArrayView1<'_, f64>| length(v.iter().zip(&centre).map(|(v, m)| v - m));
        let spread = if rounds { points.outer_iter().map(reach).fold(0.0, f64::max) } else { 0.0 };
        for (row, x) in points.outer_iter().enumerate() {
            let square =
                |c: usize| x.iter().zip(centroids.row(c)).map(|(x, c)| (x - c) * (x - c)).sum::<f64>();
            let chosen = labels[row] as usize;
            let best = (0..centroids.nrows()).min_by(|&a, &b| square(a).total_cmp(&square(b))).unwrap();
            // The centre is the mean of some rows, so at most the spread away from that of all.
            let [x, c, b] = [x, centroids.row(chosen), centroids.row(best)].map(|v| reach(v) + spread);
            let of_products = sums + if rounds { 1.0 / 512.0 } else { 0.0 };
            let error = of_products * x * (c + b) + sums * (c * c + b * b);
            let (chosen, best) = (square(chosen), square(best));
            assert!(chosen <= best + error, "{context}, row {row}: {chosen} and not {best}, error {error}");
        }
    }
}

/// Of all kinds of data, or in an emulation of every other from the `first` one on.
fn check_labels<T: Element<Centroid = f32>>(shape: [usize; 3], k: usize, of: fn(f32) -> T, first: usize) {
    let (first, step) = if is_emulated() { (first, 2) } else { (0, 1) };
    for data in DATA.into_iter().skip(first).step_by(step) {
        let context = format!("{shape:?}, k {k}, {}, {data:?}", T::DTYPE);
        let points = points(shape, data, of);
        let options = options(&points, k);
        let model = options.fit(points.view()).unwrap();
        assert_eq!(model.precision(), Precision::Tf32);
        check_near(&points, &model, &context);
        let found = bits_but_costs(&model);
        assert!(bits_but_costs(&options.fit(points.view()).unwrap()) == found, "{context}: again");
        assert!(model.predict(points.view()).unwrap() == model.labels(), "{context}: predict");
        let sizes = model.sizes().sum_axis(Axis(model.sizes().ndim() - 1));
        assert!(sizes.iter().all(|&size| size == shape[1] as u64), "{context}");

        let [batch, n, d] = shape;
        let mut workspace = options.workspace::<T>(batch, n, d).unwrap();
        workspace.load(points.view()).unwrap();
        for run in 0..if is_emulated() { 2 } else { 3 } {
            workspace.fit().unwrap();
            assert!(workspace.labels().unwrap() == model.labels(), "{context}: run {run} of a workspace");
            assert!(workspace.centroids().unwrap() == model.centroids(), "{context}: run {run}");
        }

        // The same model, exactly.
        let mut model = model;
        model.set_precision(Precision::Exact);
        let labels = model.predict(points.view()).unwrap();
        for problem in 0..batch {
            let sizes: Vec<u64> = (0..k as u32)
                .map(|c| labels.index_axis(Axis(0), problem).iter().filter(|&&l| l == c).count() as u64)
                .collect();
            let inertia = points
                .index_axis(Axis(0), problem)
                .outer_iter()
                .zip(labels.index_axis(Axis(0), problem))
                .map(|(x, &label)| {
                    let c = model.centroids().slice(s![problem, label as usize, ..]);
                    x.iter().zip(c).map(|(x, c)| (x.to_f64() - f64::from(*c)).powi(2)).sum::<f64>()
                })
                .sum();
            let outcome = flash_kmeans_tests::Outcome {
                centroids: model.centroids().index_axis(Axis(0), problem),
                labels: labels.index_axis(Axis(0), problem),
                sizes: ArrayView1::from(&sizes),
                inertia,
            };
            let points = points.index_axis(Axis(0), problem);
            check_outcome(points, None, Metric::Euclidean, &outcome, &context);
        }
    }
}

#[test]
fn labels_are_as_near_as_products_of_10_bits_tell() {
    if !has_gpu() {
        return;
    }
    let n = if is_emulated() { 140 } else { 5000 };
    check_labels::<f32>([1, n, 20], 37, |v| v, 0);
    check_labels::<f32>([2, n, 140], 9, |v| v, 1);
    check_labels::<f16>([1, n, 9], 70, f16::from_f32, 0);
    check_labels::<bf16>([1, n, 16], 5, bf16::from_f32, 1);
}

#[test]
fn groups_far_apart_have_exact_labels() {
    if !has_gpu() {
        return;
    }
    fn check<T: Element<Centroid = f32>>(of: fn(f32) -> T) {
        let points = points([2, 500, 33], Data::Groups, of);
        let options = options(&points, 11);
        let found = bits_but_costs(&options.fit(points.view()).unwrap());
        assert!(bits_but_costs(&options.precision(Precision::Exact).fit(points.view()).unwrap()) == found);
    }
    check::<f32>(|v| v);
    check::<f16>(f16::from_f32);
    check::<bf16>(bf16::from_f32);
}

/// Otherwise the option would do nothing.
#[test]
fn near_ties_are_left_to_the_tensor_cores() {
    // The portable kernels use no tensor cores.
    if !has_gpu() || std::env::var_os("FLASH_KMEANS_KERNELS").is_some_and(|kernels| kernels == "portable") {
        return;
    }
    let points = points([1, 300, 20], Data::Close, |v: f32| v);
    let options = options(&points, 30).max_iter(1);
    let found = options.fit(points.view()).unwrap();
    let exact = options.precision(Precision::Exact).fit(points.view()).unwrap();
    assert_eq!(found.problems()[0].n_iter, 1);
    let differ = found.labels().iter().zip(exact.labels()).filter(|(a, b)| a != b).count();
    assert!(differ > 0, "every label is exact");
}

#[test]
fn products_are_of_10_bits_by_any_metric() {
    if !has_gpu() {
        return;
    }
    let points = points([1, 400, 24], Data::Plain, |v: f32| v);
    for metric in [Metric::Dot, Metric::Cosine, Metric::SphericalDot] {
        let options = options(&points, 21).metric(metric);
        let model = options.fit(points.view()).unwrap();
        assert!(model.predict(points.view()).unwrap() == model.labels(), "{metric}");
        assert!(bits_but_costs(&options.fit(points.view()).unwrap()) == bits_but_costs(&model), "{metric}");
        let centroids = model.centroids().index_axis(Axis(0), 0);
        let longest = centroids.outer_iter().map(|c| length(c.iter().map(|&c| c.into()))).fold(0.0, f64::max);
        for (x, &label) in points.index_axis(Axis(0), 0).outer_iter().zip(model.labels()) {
            let product = |c: usize| {
                x.iter().zip(centroids.row(c)).map(|(&x, &c)| f64::from(x) * f64::from(c)).sum::<f64>()
            };
            let most = (0..21).map(product).fold(f64::NEG_INFINITY, f64::max);
            let error = (1.0 / 512.0 + 1e-4) * length(x.iter().map(|&x| x.into())) * longest;
            assert!(
                product(label as usize) >= most - error,
                "{metric}: {} of {most}",
                product(label as usize)
            );
        }
    }
}

#[test]
fn the_cpu_stays_exact() {
    let points = points([1, 300, 20], Data::Close, |v: f32| v);
    let options = options(&points, 30).backend(Backend::Cpu);
    let model = options.fit(points.view()).unwrap();
    assert_eq!(model.precision(), Precision::Exact);
    assert!(
        bits_but_costs(&options.precision(Precision::Exact).fit(points.view()).unwrap())
            == bits_but_costs(&model)
    );
}

/// In as little memory as chunks have room in and in a little more, from a stream, resumed, and on several GPUs.
fn check_parts<T: Element<Centroid = f32>>(points: &Array3<T>, options: FlashKMeans, data: Data) {
    let [n, d] = [points.shape()[1], points.shape()[2]];
    let context = format!("{n} points of {d}, {}, {data:?}, {options:?}", T::DTYPE);
    let model = options.fit(points.view()).unwrap();
    let whole = bits_but_costs(&model);
    let (mut memory, mut fits) = ((n * d / 2 + 50_000) as u64, 0);
    while fits < 2 {
        match options.clone().gpu_memory(memory).fit(points.view()) {
            Ok(model) => {
                assert!(bits_but_costs(&model) == whole, "{context} in {memory} bytes");
                fits += 1;
            }
            Err(Error::OutOfDeviceMemory { .. }) => assert_eq!(fits, 0, "{context} in {memory} bytes"),
            Err(error) => panic!("{context} in {memory} bytes: {error}"),
        }
        memory = memory * 5 / 4;
    }
    let gpus = devices().iter().filter(|device| matches!(device.backend, Backend::Cuda { .. })).count();
    let all = options.clone().backend(Backend::cuda_devices(0..gpus as u32).unwrap());
    assert!(bits_but_costs(&all.fit(points.view()).unwrap()) == whole, "{context} on {gpus} GPUs");

    let rows: Array2<T> = points.index_axis(Axis(0), 0).to_owned();
    let file = tempfile::NamedTempFile::new().unwrap();
    let stream = |options: &FlashKMeans, how: Streaming| -> KMeans<T, Ix2> {
        options.fit_stream(&rows, &how, &mut ()).unwrap()
    };
    let same = |streamed: KMeans<T, Ix2>| {
        streamed.labels().iter().eq(model.labels()) && streamed.centroids().iter().eq(model.centroids())
    };
    let options = options.gpu_memory(memory);
    assert!(same(stream(&options, Streaming::new())), "{context}: streamed");
    stream(&options.clone().max_iter(1), Streaming::new().checkpoint(file.path(), 1));
    assert!(same(stream(&options, Streaming::new().resume(file.path()))), "{context}: resumed");
    let exact = options.precision(Precision::Exact);
    let refused = exact.fit_stream(&rows, &Streaming::new().resume(file.path()), &mut ());
    assert!(matches!(refused, Err(Error::Format { .. })), "{context}: a checkpoint of another precision");
}

#[test]
fn parts_have_the_bits_of_the_whole() {
    if !has_gpu() {
        return;
    }
    fn check<T: Element<Centroid = f32>>([n, k, d]: [usize; 3], data: Data, of: fn(f32) -> T) {
        let points = points([1, n, d], data, of);
        check_parts(&points, options(&points, k), data);
    }
    // Parts that reach less far than the whole would be scaled, and rounded, otherwise.
    check([rows(), 12, 12], Data::Outlier, |v: f32| v);
    check([rows(), 30, 10], Data::Close, |v: f32| v);
    check([rows(), 9, 12], Data::Plain, f16::from_f32);
}

#[test]
fn parts_relocate_the_clusters_that_the_whole_does() {
    if !has_gpu() {
        return;
    }
    let points = points([1, rows(), 10], Data::Plain, |v: f32| v);
    // The last two are nearest to no point.
    let first = Array3::from_shape_fn((1, 12, 10), |(_, cluster, feature)| {
        if cluster < 10 { f64::from(points[[0, cluster, feature]]) } else { 1000.0 + cluster as f64 }
    });
    let options = options(&points, 12).init(Init::Given(first.into_dyn()));
    let options = options.empty_clusters(EmptyClusters::Relocate);
    let model = options.fit(points.view()).unwrap();
    assert!(model.sizes().iter().all(|&size| size > 0), "{:?}", model.sizes());
    check_parts(&points, options, Data::Plain);
}

fn rows() -> usize {
    if is_emulated() { 2100 } else { (2 << 20) + 300_001 }
}
