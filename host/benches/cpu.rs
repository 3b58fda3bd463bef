//! The CPU backend: labels under given centroids, and iterations.
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flash_kmeans::{Backend, FlashKMeans, Init, KMeans};
use ndarray::{Array2, s};

/// Rows, features, clusters.
const SHAPES: [(usize, usize, usize); 3] = [(20_000, 64, 256), (20_000, 16, 32), (4000, 768, 128)];
const ITERATIONS: usize = 3;

/// Values of a linear congruential generator, uniform in -1 to 1.
fn points(n: usize, d: usize) -> Array2<f32> {
    let mut state = 1u64;
    Array2::from_shape_simple_fn((n, d), || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn cpu(criterion: &mut Criterion) {
    let mut predict = criterion.benchmark_group("predict");
    for (n, d, k) in SHAPES {
        let points = points(n, d);
        let model =
            KMeans::from_centroids(points.slice(s![..k, ..]), Backend::Cpu).expect("finite centroids");
        predict.throughput(Throughput::Elements((n * d * k) as u64));
        predict.bench_function(BenchmarkId::from_parameter(format!("{n}x{d}, k {k}")), |bencher| {
            bencher.iter(|| black_box(model.predict(points.view()).expect("finite points")));
        });
    }
    predict.finish();

    let mut fit = criterion.benchmark_group("fit");
    fit.sample_size(20);
    for (n, d, k) in SHAPES {
        let points = points(n, d);
        let init = Init::Given(points.slice(s![..k, ..]).mapv(f64::from).into_dyn());
        let options = FlashKMeans::new(k).init(init).tol(0.0).max_iter(ITERATIONS).backend(Backend::Cpu);
        fit.throughput(Throughput::Elements((ITERATIONS * n * d * k) as u64));
        fit.bench_function(BenchmarkId::from_parameter(format!("{n}x{d}, k {k}")), |bencher| {
            bencher.iter(|| black_box(options.fit(points.view()).expect("finite points")));
        });
    }
    fit.finish();
}

criterion_group!(benches, cpu);
criterion_main!(benches);
