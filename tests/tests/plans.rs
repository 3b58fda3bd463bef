//! Launch plans choose among kernels, not among results. A process of its own, for a plan goes for all of one.
//!
//! Without a GPU the test says so and passes; with `FLASH_KMEANS_REQUIRE_GPU=1` it fails instead. `FLASH_KMEANS_SMALL=1` makes
//! problems small, for sanitizers, and an emulation has two of them.
use flash_kmeans::tuning::{LaunchPlan, gpu, use_plan};
use flash_kmeans::{Element, FlashKMeans, Init, Metric, Precision};
use flash_kmeans_tests::{CUDA, has_gpu, is_emulated, is_small};
use half::{bf16, f16};
use ndarray::{Array3, s};

/// Plans that between them take every way, for a GPU whose plan by rule is `rule`.
fn plans(rule: LaunchPlan) -> Vec<LaunchPlan> {
    const NEVER: u32 = u32::MAX;
    vec![
        rule,
        LaunchPlan {
            narrow_steps: 4,
            mma_clusters: 0,
            mma_steps: 0,
            ordered_tiles: 1,
            floored_tiles: 1,
            floored_steps: NEVER,
            refined_points: 1,
            settle_blocks: 1,
            whole_sort_clusters: 0,
        },
        LaunchPlan { mma_clusters: NEVER, mma_steps: NEVER, ..rule },
        LaunchPlan {
            mma_clusters: NEVER,
            mma_steps: 8,
            ordered_tiles: NEVER,
            floored_tiles: NEVER,
            floored_steps: 0,
            refined_points: NEVER,
            settle_blocks: 16,
            ..rule
        },
        LaunchPlan {
            narrow_steps: 5,
            mma_clusters: 0,
            ordered_tiles: NEVER,
            floored_tiles: 2,
            floored_steps: NEVER,
            refined_points: 1,
            ..rule
        },
    ]
}

/// Plans that take the same kernels to multiply, and differ in the order of the centroids, in what is passed over and in who
/// settles what.
fn orders(rule: LaunchPlan) -> Vec<LaunchPlan> {
    const NEVER: u32 = u32::MAX;
    let rule = LaunchPlan { mma_clusters: 0, ..rule };
    vec![
        LaunchPlan { ordered_tiles: NEVER, floored_tiles: NEVER, ..rule },
        LaunchPlan { ordered_tiles: 1, floored_tiles: NEVER, settle_blocks: 1, ..rule },
        LaunchPlan { ordered_tiles: 1, floored_tiles: 1, floored_steps: NEVER, ..rule },
        LaunchPlan { ordered_tiles: NEVER, floored_tiles: 1, floored_steps: NEVER, ..rule },
    ]
}

/// Groups that overlap, on a grid: with ties.
fn points<T: Element>([batch, n, d]: [usize; 3], convert: impl Fn(f32) -> T) -> Array3<T> {
    let mut state = 1u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    Array3::from_shape_fn((batch, n, d), |(_, row, feature)| {
        let group = (row as u64 % 101) * (feature as u64 + 3) % 17;
        convert((4 * group + random(16)) as f32 / 8.0 - 5.0)
    })
}

fn check<T: Element<Centroid = f32>>(plans: &[LaunchPlan], shape: [usize; 4], convert: impl Fn(f32) -> T) {
    check_at((Precision::Exact, Metric::Euclidean), plans, shape, convert);
}

fn check_at<T: Element<Centroid = f32>>(
    (precision, metric): (Precision, Metric),
    plans: &[LaunchPlan],
    [batch, n, k, d]: [usize; 4],
    convert: impl Fn(f32) -> T,
) {
    let (n, k) = match () {
        () if is_emulated() => (n.min(150), k.min(140)),
        () if is_small() => (n.min(500), k.min(150)),
        () => (n, k),
    };
    let points = points([batch, n, d], convert);
    let first = Init::Given(points.slice(s![.., ..k, ..]).mapv(Element::to_f64).into_dyn());
    let options = FlashKMeans::new(k).init(first).tol(0.0).max_iter(6).backend(CUDA);
    let options = options.precision(precision).metric(metric);
    let found: Vec<_> = plans
        .iter()
        .map(|plan| {
            use_plan(0, *plan).unwrap();
            let model = options.fit(points.view()).unwrap();
            let centroids: Vec<u32> = model.centroids().iter().map(|c| c.to_bits()).collect();
            let problems: Vec<_> = model
                .problems()
                .iter()
                .map(|problem| {
                    let history: Vec<_> =
                        problem.history.iter().map(|i| (i.changed, i.shift.to_bits())).collect();
                    (problem.inertia.to_bits(), problem.n_iter, problem.converged, history)
                })
                .collect();
            (centroids, model.labels().to_owned(), problems)
        })
        .collect();
    for (plan, other) in plans.iter().zip(&found) {
        let case = format!("{batch} × {n}, k {k}, d {d}, {}, {precision}, {metric}: {plan}", T::DTYPE);
        let differ = |a: &[u32], b: &[u32]| a.iter().zip(b).filter(|(a, b)| a != b).count();
        let (labels, first) = (other.1.as_slice().unwrap(), found[0].1.as_slice().unwrap());
        assert_eq!(
            other.2,
            found[0].2,
            "{case}: how the problems ended; {} labels differ",
            differ(labels, first)
        );
        assert_eq!(differ(labels, first), 0, "{case}: labels");
        assert_eq!(differ(&other.0, &found[0].0), 0, "{case}: centroids");
    }
}

#[test]
fn results_have_the_same_bits_by_any_plan() {
    if !has_gpu() {
        return;
    }
    let gpu = gpu(0).unwrap();
    let rule = LaunchPlan::by_rule(&gpu.hardware);
    let (plans, orders) = (plans(rule), orders(rule));
    // A third of a grid's step: rounded to 10 bits, scores are equal that were not, and others that were are not.
    let shapes = [[1, 20_000, 600, 65], [3, 5000, 1000, 20], [1, 20_000, 3000, 150]];
    for shape in &shapes[..if is_emulated() { 1 } else { 3 }] {
        check_at((Precision::Tf32, Metric::Euclidean), &orders, *shape, |v| v / 3.0);
        check_at((Precision::Tf32, Metric::Euclidean), &orders, *shape, f16::from_f32);
    }
    if is_emulated() {
        check(&plans, [1, 20_000, 600, 65], |v| v);
        check(&plans, [1, 20_000, 600, 150], f16::from_f32);
        return;
    }
    for metric in [Metric::Cosine, Metric::Dot] {
        check_at((Precision::Exact, metric), &plans, [1, 20_000, 600, 200], |v| v / 3.0);
        check_at((Precision::Exact, metric), &plans, [1, 20_000, 600, 100], f16::from_f32);
    }
    // Beside the largest values all others are small, and centroids of these points are where f16 has none.
    for metric in [Metric::Euclidean, Metric::Cosine, Metric::Dot] {
        check_at((Precision::Exact, metric), &plans, [1, 3000, 200, 70], |v| if v > 4.8 { 1e6 } else { v });
    }
    for d in [3, 64, 65, 80, 100, 128, 200, 768] {
        check(&plans, [1, 20_000, 600, d], |v| v);
        check(&plans, [1, 20_000, 600, d], f16::from_f32);
        check(&plans, [1, 20_000, 600, d], bf16::from_f32);
    }
    // Fewer tiles of points than multiprocessors, and some that are left when each has had one: centroids are shared out.
    for d in [64, 100, 128, 200, 768] {
        for shape in [[1, 3000, 2100, d], [3, 2600, 2500, d], [1, 36_000, 2100, d]] {
            check(&plans, shape, |v| v);
            check(&plans, shape, f16::from_f32);
        }
    }
    for shape in [[64, 4096, 64, 64], [3, 5000, 128, 128], [2, 3000, 1, 40]] {
        check(&plans, shape, |v| v);
        check(&plans, shape, f16::from_f32);
        check(&plans, shape, bf16::from_f32);
    }
    for shape in [[1, 10_000, 300, 32], [5, 3000, 100, 72], [2, 30_000, 5000, 96], [1, 70_000, 257, 16]] {
        check(&plans, shape, |v| v);
        check(&plans, shape, f16::from_f32);
    }
}
