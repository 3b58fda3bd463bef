//! Clusters that lose all their points, where the farthest points are given to them.
use flash_kmeans::{Backend, EmptyClusters, FlashKMeans, Init, Metric};
use ndarray::{Array1, Array2, ArrayView1};
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
            compare(&x, &Array1::ones(n), metric, &first, 6);
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
