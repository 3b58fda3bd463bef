//! Fits around the fit: several starts, of which the best counts, and fits of a sample.
use crate::Element;
use crate::backend::{Engine, LloydOptions, LloydOutcome};
use crate::error::Result;
use crate::init::{self, First};
use crate::observer::Watch;
use crate::params::Init;
use crate::points::Problem;
use crate::rng::Rng;
use crate::weights;
use rayon::prelude::*;
use std::borrow::Cow;

/// Streams from this one on give the seeds of further starts.
const STARTS: u64 = 1 << 63;

/// The best of `n_init` fits of `problem`, in each problem of a batch by itself; of equally good ones the first. The
/// first start has `seed` itself, so that more starts are never worse than one.
pub(crate) fn best<T: Element>(
    engine: &Engine,
    problem: &Problem<'_, T>,
    init: &Init,
    options: &LloydOptions,
    (seed, n_init): (u64, usize),
    watch: &Watch<'_, T::Centroid>,
) -> Result<LloydOutcome<T::Centroid>> {
    let start = |seed| engine.fit(problem, First { init, seed }, options, watch);
    let mut best = start(seed)?;
    for further in 1..n_init {
        let other = start(Rng::new(seed, STARTS + further as u64).next_u64())?;
        let (of_centroids, of_labels) = (options.k * problem.d, problem.n);
        for batch in 0..problem.batch {
            if other.problems[batch].inertia < best.problems[batch].inertia {
                let range = batch * of_centroids..(batch + 1) * of_centroids;
                best.centroids[range.clone()].copy_from_slice(&other.centroids[range]);
                let range = batch * of_labels..(batch + 1) * of_labels;
                best.labels[range.clone()].copy_from_slice(&other.labels[range]);
                best.problems[batch] = other.problems[batch].clone();
            }
        }
    }
    Ok(best)
}

/// `rows` of the points of each problem, drawn without replacement and kept in their order; `None` where there are
/// no more than that.
pub(crate) fn sample<T: Element>(
    problem: &Problem<'_, T>,
    rows: usize,
    seed: u64,
) -> Option<Problem<'static, T>> {
    let (batch, n, d) = (problem.batch, problem.n, problem.d);
    if n <= rows {
        return None;
    }
    let mut points = Vec::with_capacity(batch * rows * d);
    let mut drawn = Vec::with_capacity(batch * rows);
    for at in 0..batch {
        for row in init::sampled_rows(n, rows, seed, at) {
            points.extend_from_slice(&problem.of_batch(at)[row * d..][..d]);
            drawn.push(at * n + row);
        }
    }
    let weights = weights::of_rows(problem.weights.as_deref(), &drawn);
    Some(Problem { points: Cow::Owned(points), batch, n: rows, d, weights })
}

/// Labels and inertia of all points under centroids that a sample gave.
pub(crate) fn extend<T: Element>(
    engine: &Engine,
    problem: &Problem<'_, T>,
    outcome: &mut LloydOutcome<T::Centroid>,
    &LloydOptions { k, metric, .. }: &LloydOptions,
) -> Result<()> {
    /// Rows added up by one task; fixed, so that the sum's bits do not depend on the threads.
    const ROWS: usize = 1024;
    let (n, d) = (problem.n, problem.d);
    outcome.labels = engine.assign(problem, &outcome.centroids, k, metric)?;
    for (batch, summary) in outcome.problems.iter_mut().enumerate() {
        let centroids = &outcome.centroids[batch * k * d..][..k * d];
        let labels = outcome.labels[batch * n..][..n].par_chunks(ROWS).enumerate();
        let weights = problem.weights_of(batch);
        let parts: Vec<f64> = labels
            .zip(problem.of_batch(batch).par_chunks(ROWS * d))
            .map(|((part, labels), points)| {
                let rows = labels.iter().zip(points.chunks_exact(d)).enumerate();
                rows.map(|(row, (&label, x))| {
                    let loss = metric.loss(x, &centroids[label as usize * d..][..d]);
                    weights.map_or(loss, |weights| weights[part * ROWS + row] * loss)
                })
                .sum()
            })
            .collect();
        summary.inertia = parts.iter().sum();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{Backend, Error, FlashKMeans, Init};
    use ndarray::{Array2, Array3, Axis};

    /// Points of several scales, on which starts end in different places.
    fn points(problem: usize) -> Array2<f32> {
        Array2::from_shape_fn((900, 2), |(row, column)| {
            let group = (row * 7 + problem * 3) % 30;
            let jitter = ((row * 131 + column * 57 + problem * 11) % 97) as f32 * 0.02;
            ((group * (5 + 3 * column)) % 30) as f32 * 4.0 + jitter
        })
    }

    fn fit() -> FlashKMeans {
        FlashKMeans::new(25).backend(Backend::Cpu).init(Init::Random).tol(0.0)
    }

    #[test]
    fn the_best_start_of_each_problem_counts() {
        let both = Array3::from_shape_fn((2, 900, 2), |(b, row, column)| points(b)[(row, column)]);
        let one = fit().fit(both.view()).unwrap();
        let many = fit().n_init(8).fit(both.view()).unwrap();
        for (one, many) in one.problems().iter().zip(many.problems()) {
            assert!(many.inertia < one.inertia, "{} {}", one.inertia, many.inertia);
        }
        // What is returned belongs together: labels, centroids and inertia are of the same start.
        assert_eq!(&many.predict(both.view()).unwrap(), many.labels());
        let score = many.score(both.view()).unwrap();
        assert!((score + many.inertia()).abs() <= 1e-12 * many.inertia());
        assert_eq!(fit().n_init(8).fit(both.view()).unwrap().labels(), many.labels());
        let kept = fit().n_init(1).fit(both.view()).unwrap();
        assert_eq!(kept.labels(), one.labels());
    }

    #[test]
    fn a_fit_of_a_sample_labels_all_points() {
        let points = points(0);
        let model = fit().max_points_per_centroid(8).fit(points.view()).unwrap();
        assert_eq!(model.labels().len(), 900);
        assert_eq!(model.sizes().sum(), 900);
        assert_eq!(model.labels(), &model.predict(points.view()).unwrap());
        assert!((model.score(points.view()).unwrap() + model.inertia()).abs() <= 1e-12 * model.inertia());
        let whole = fit().fit(points.view()).unwrap();
        assert_ne!(model.centroids(), whole.centroids());
        // 36 · 25 rows are all there are.
        let all = fit().max_points_per_centroid(36).fit(points.view()).unwrap();
        assert_eq!(all.centroids(), whole.centroids());
    }

    #[test]
    fn a_fit_starts_where_a_model_ended() {
        let points = points(0);
        let first = fit().tol(1e-4).max_iter(3).fit(points.view()).unwrap();
        let all = fit().fit(points.view()).unwrap();
        let rest = fit().init(Init::from(&first)).fit(points.view()).unwrap();
        assert_eq!(first.n_iter() + rest.n_iter(), all.n_iter());
        assert_eq!(rest.labels(), all.labels());
        let rows = first.centroids().select(Axis(0), &[0, 1]).mapv(f64::from).into_dyn();
        assert!(matches!(fit().init(Init::Given(rows)).fit(points.view()), Err(Error::Shape { .. })));
    }

    #[test]
    fn bad_options_are_refused() {
        let points = points(0);
        let given = Init::from(&fit().fit(points.view()).unwrap());
        let parallel = |oversampling, rounds| fit().init(Init::KMeansParallel { oversampling, rounds });
        for (params, name) in [
            (fit().n_init(0), "n_init"),
            (fit().n_init(2).init(given), "n_init"),
            (fit().max_points_per_centroid(0), "max_points_per_centroid"),
            (parallel(0.0, 5), "oversampling"),
            (parallel(f64::NAN, 5), "oversampling"),
            (parallel(2.0, 0), "rounds"),
        ] {
            let error = params.fit(points.view()).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument { argument, .. } if argument == name), "{error}");
        }
    }

    #[test]
    fn of_equally_good_starts_the_first_counts() {
        let points = Array2::from_shape_fn((60, 1), |(row, _)| (row % 2 * 100 + row / 2) as f32);
        let fit = || FlashKMeans::new(2).backend(Backend::Cpu).init(Init::Random).max_iter(50);
        for seed in 0..8 {
            let one = fit().seed(seed).fit(points.view()).unwrap();
            let many = fit().seed(seed).n_init(6).fit(points.view()).unwrap();
            assert_eq!((one.labels(), one.inertia()), (many.labels(), many.inertia()), "seed {seed}");
        }
    }

    #[test]
    fn each_problem_of_a_batch_has_a_sample_of_its_own() {
        // Distinct points, of which as many are seen as there are clusters: these are the centroids.
        let same = Array3::from_shape_fn((2, 500, 1), |(_, row, _)| row as f32);
        let model = fit().max_points_per_centroid(1).fit(same.view()).unwrap();
        let seen = |problem| {
            let mut rows: Vec<_> =
                model.centroids().index_axis(Axis(0), problem).iter().map(|&c| c as u32).collect();
            rows.sort_unstable();
            rows
        };
        assert_ne!(seen(0), seen(1));

        // In each problem, the points far away have no weight.
        let both = Array3::from_shape_fn((2, 3000, 2), |(problem, row, column)| {
            let is_far = row % 2 == problem;
            (if is_far { 1e6 } else { 0.0 }) + ((row * 131 + column * 57) % 97) as f32
        });
        let of_row =
            |(problem, row): (usize, usize)| if row % 2 == problem { 0.0 } else { 1.0 + (row % 5) as f64 };
        let weights = Array2::from_shape_fn((2, 3000), of_row);
        let model =
            fit().max_points_per_centroid(8).fit_weighted(both.view(), weights.view(), &mut ()).unwrap();
        assert!(model.centroids().iter().all(|&c| c < 100.0));
        assert_eq!(&model.predict(both.view()).unwrap(), model.labels());
        let distances = model.predict_with_distances(both.view()).unwrap().distances.mapv(f64::from);
        for (problem, summary) in model.problems().iter().enumerate() {
            let (distances, weights) = (distances.row(problem), weights.row(problem));
            let expected: f64 =
                distances.iter().zip(weights).map(|(distance, w)| w * distance * distance).sum();
            assert!((summary.inertia - expected).abs() < 1e-6 * expected, "{} {expected}", summary.inertia);
        }
    }
}
