//! The CPU backend: the same algorithm as on the GPU, on all cores.
mod assign;
mod distance;
mod screen;
pub(crate) mod tile;
mod update;
mod worker;

pub(crate) use distance::{distance, product, scaled_distance};
pub(crate) use worker::CpuWorker;

use super::{LloydOptions, LloydOutcome};
use crate::element::Element;
use crate::error::Result;
use crate::lloyd::{Alone, Around, Feed, State, Worker, lloyd};
use crate::metric::Metric;
use crate::observer::Watch;
use crate::points::Problem;
use rayon::prelude::*;

/// The processor, for people.
pub(crate) fn describe() -> String {
    #[cfg(target_arch = "x86_64")]
    let simd = if is_x86_feature_detected!("avx512f") {
        "AVX-512"
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        "AVX2"
    } else {
        "portable"
    };
    #[cfg(not(target_arch = "x86_64"))]
    let simd = "portable";
    format!("CPU, {} threads, {simd}", rayon::current_num_threads())
}

pub(crate) fn fit<T: Element>(
    problem: &Problem<'_, T>,
    centroids: Vec<T::Centroid>,
    options: &LloydOptions,
    watch: &Watch<'_, T::Centroid>,
) -> Result<LloydOutcome<T::Centroid>> {
    let (n, d) = (problem.n, problem.d);
    let ends = over_problems(problem.batch, |batch| {
        let state = State::new(centroids[batch * options.k * d..][..options.k * d].to_vec());
        let points = problem.of_batch(batch);
        let mut worker =
            CpuWorker::new(n, n, (options.k, options.metric), &points[..d], problem.weights_of(batch))?;
        let mut panels = Panels { points, d };
        let keep = &mut |_: &State<_>, _| Ok(());
        let around = Around { problem: batch, watch, together: &Alone, keep };
        let (centroids, summary) = lloyd(&mut worker, &mut panels, state, (n, d, options), around)?;
        Ok((centroids, summary, worker.into_labels()?))
    });
    LloydOutcome::of(ends)
}

pub(crate) fn assign<T: Element>(
    problem: &Problem<'_, T>,
    centroids: &[T::Centroid],
    k: usize,
    metric: Metric,
) -> Result<Vec<u32>> {
    let (n, d) = (problem.n, problem.d);
    let parts = over_problems(problem.batch, |batch| {
        let (points, centroids) = (problem.of_batch(batch), &centroids[batch * k * d..][..k * d]);
        let rounded: Vec<_> = centroids.iter().map(|&c| T::round_centroid(c)).collect();
        let mut labels = vec![u32::MAX; n];
        assign::assign(points, d, &rounded, metric, &mut labels);
        labels
    });
    Ok(parts.concat())
}

/// Each problem's result, in order; many problems at a time where there are many.
fn over_problems<R: Send>(batch: usize, of_problem: impl Fn(usize) -> R + Sync) -> Vec<R> {
    if batch == 1 { vec![of_problem(0)] } else { (0..batch).into_par_iter().map(&of_problem).collect() }
}

/// Copies rows of points that are in memory.
pub(crate) fn copy_rows<T: Element>(points: &[T], rows: &[usize], into: &mut [T]) {
    let d = into.len() / rows.len().max(1);
    for (&row, into) in rows.iter().zip(into.chunks_exact_mut(d.max(1))) {
        into.copy_from_slice(&points[row * d..][..d]);
    }
}

/// The panels of a problem that is in memory.
struct Panels<'a, T> {
    points: &'a [T],
    d: usize,
}

impl<T: Element> Feed<T, CpuWorker<'_, T>> for Panels<'_, T> {
    fn pass(
        &mut self,
        worker: &mut CpuWorker<'_, T>,
        seen: &dyn Fn(usize) -> Result<()>,
        _free: &mut Vec<Vec<T>>,
    ) -> Result<()> {
        let mut row = 0;
        for points in self.points.chunks(worker.panel_rows() * self.d) {
            let rows = row..row + points.len() / self.d;
            worker.add_points(rows.clone(), points);
            row = rows.end;
            seen(row)?;
        }
        Ok(())
    }

    fn read(&mut self, rows: &[usize], into: &mut [T]) -> Result<()> {
        copy_rows(self.points, rows, into);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::DType;
    use crate::params::EmptyClusters;
    use crate::rng::Rng;
    use half::{bf16, f16};
    use std::borrow::Cow;

    /// Rows of the larger cases: Miri takes a thousand times as long.
    const ROWS: usize = if cfg!(miri) { 40 } else { 300 };
    /// Points, centroids and features; and what they are multiplied with.
    const SHAPES: &[(usize, usize, usize)] = if cfg!(miri) {
        &[(1, 1, 1), (20, 5, 17)]
    } else {
        &[(1, 1, 1), (40, 2, 3), (200, 33, 17), (300, 100, 100), (130, 130, 130)]
    };
    const SCALES: &[f64] = if cfg!(miri) { &[1.0] } else { &[1.0, 1e-20, 1e15] };

    /// The definition, in f64.
    fn reference<T: Element>(points: &[T], d: usize, centroids: &[T::Centroid]) -> Vec<u32> {
        let nearest = |x: &[T]| {
            let mut best = (0, f64::INFINITY);
            for (k, c) in centroids.chunks_exact(d).enumerate() {
                let sum: f64 = x.iter().zip(c).map(|(x, c)| (x.to_f64() - c.to_f64()).powi(2)).sum();
                // Sums of other orders differ by rounding: only a clear difference counts, then the lowest index.
                if sum < best.1 * (1.0 - 1e-13) {
                    best = (k as u32, sum);
                }
            }
            best.0
        };
        points.chunks_exact(d).map(nearest).collect()
    }

    fn check<T: Element>(name: &str, convert: impl Fn(f64) -> T) {
        for &(n, k, d) in SHAPES {
            for &scale in SCALES {
                if matches!(T::DTYPE, DType::F16) && scale != 1.0 {
                    continue;
                }
                let mut rng = Rng::new(5, d as u64);
                let points: Vec<T> =
                    (0..n * d).map(|_| convert((rng.unit() - 0.5 + rng.unit()) * scale)).collect();
                let centroids: Vec<T::Centroid> =
                    points[..k * d].iter().map(|v| T::round_centroid(v.to_centroid())).collect();
                let mut labels = vec![u32::MAX; n];
                let found = assign::assign(&points, d, &centroids, Metric::Euclidean, &mut labels);
                assert_eq!(
                    labels,
                    reference(&points, d, &centroids),
                    "{name} n {n} k {k} d {d} scale {scale}"
                );
                assert_eq!(found.changed, n as u64);
            }
        }
    }

    #[test]
    fn labels_are_those_of_float64() {
        check::<f32>("f32", |v| v as f32);
        check::<f64>("f64", |v| v);
        check::<f16>("f16", f16::from_f64);
        check::<bf16>("bf16", bf16::from_f64);
    }

    #[test]
    fn ties_and_offsets_and_overflow_are_settled() {
        let d = 5;
        let mut rng = Rng::new(1, 0);
        // A lattice: many exact ties, and twice the same centroid.
        let lattice: Vec<f32> = (0..ROWS * d).map(|_| rng.below(3) as f32).collect();
        // An offset a million times the spread; values whose squares overflow f32.
        let offset: Vec<f32> = (0..ROWS * d).map(|_| 1e6 + rng.below(9) as f32).collect();
        let huge: Vec<f32> = (0..ROWS * d).map(|_| (rng.unit() as f32 - 0.5) * 3e38).collect();
        // Squares of some overflow, of others not: a score of -∞ says nothing of the distance.
        let large: Vec<f32> = (0..ROWS * d).map(|_| (rng.unit() as f32 - 0.5) * 3e19).collect();
        for points in [lattice, offset, huge, large, vec![2.5; ROWS * d]] {
            let mut centroids = points[..40 * d].to_vec();
            centroids.extend_from_slice(&points[..10 * d]);
            let mut labels = vec![0; ROWS];
            assign::assign(&points, d, &centroids, Metric::Euclidean, &mut labels);
            assert_eq!(labels, reference(&points, d, &centroids));
        }
    }

    #[test]
    fn points_between_two_centroids_are_compared_in_f64() {
        let (d, k) = (37, if cfg!(miri) { 4 } else { 64 });
        let mut rng = Rng::new(2, 0);
        let mut gaussian = |scale: f64| -> Vec<f64> { (0..d).map(|_| (rng.unit() - 0.5) * scale).collect() };
        let (mut centroids, mut points) = (Vec::new(), Vec::new());
        for pair in 0..k / 2 {
            let (c, apart) = (gaussian(2.0), gaussian(1e-3));
            let other: Vec<f64> = c.iter().zip(&apart).map(|(c, a)| c + a).collect();
            for step in 0..20 {
                // Nearer to the one or to the other by a part in 10⁴ of what lies between them.
                let share = 0.5 + (f64::from(step % 2) - 0.5) * 1e-4 * f64::from(1 + pair);
                points.extend(c.iter().zip(&other).map(|(a, b)| (a + (b - a) * share) as f32));
            }
            centroids.extend(c.into_iter().chain(other).map(|v| v as f32));
        }
        let mut labels = vec![u32::MAX; points.len() / d];
        assign::assign(&points, d, &centroids, Metric::Euclidean, &mut labels);
        assert_eq!(labels, reference(&points, d, &centroids));
    }

    #[test]
    fn an_outlier_or_a_large_coordinate_changes_no_label() {
        let (n, d, k) = if cfg!(miri) { (70, 9, 10) } else { (700, 33, 40) };
        for outlier in [1e3f32, 1e6, 1e15, 3e38] {
            let mut rng = Rng::new(3, 0);
            let mut points: Vec<f32> = (0..n * d).map(|_| rng.unit() as f32).collect();
            points[5 * d + 2] = outlier;
            points.chunks_exact_mut(d).skip(n / 2).for_each(|x| x[7] = outlier / 2.0);
            let centroids = points[..k * d].to_vec();
            let mut labels = vec![u32::MAX; n];
            assign::assign(&points, d, &centroids, Metric::Euclidean, &mut labels);
            assert_eq!(labels, reference(&points, d, &centroids), "outlier {outlier}");
        }
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let mut rng = Rng::new(9, 0);
        let (n, k) = if cfg!(miri) { (40, 4) } else { (10_000, 30) };
        let points: Vec<f32> = (0..2 * n * 7).map(|_| rng.unit() as f32).collect();
        let problem = Problem { points: Cow::Borrowed(&points), batch: 2, n, d: 7, weights: None };
        let centroids = [&points[..k * 7], &points[n * 7..][..k * 7]].concat();
        let options = LloydOptions {
            metric: Metric::Euclidean,
            k,
            max_iter: if cfg!(miri) { 2 } else { 12 },
            tol: 1e-4,
            empty_clusters: EmptyClusters::Keep,
        };
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
            let mut nobody = ();
            let watch = Watch::new(&mut nobody);
            pool.install(|| fit(&problem, centroids.clone(), &options, &watch)).expect("fits")
        };
        let (one, five) = (run(1), run(5));
        assert_eq!(one.centroids, five.centroids);
        assert_eq!(one.labels, five.labels);
        assert_eq!(one.problems, five.problems);
    }
}
