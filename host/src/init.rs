//! First centroids.
use crate::backend::cpu;
use crate::element::{Element, Float};
use crate::error::{Error, Result};
use crate::metric::Metric;
use crate::params::Init;
use crate::points::Problem;
use crate::rng::Rng;
use ndarray::ArrayD;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::HashMap;

/// Rows that one task measures; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 4096;

/// The points of a problem that k-means++ and k-means|| draw from.
struct Points<'a, T> {
    /// `n · d` values.
    values: &'a [T],
    d: usize,
    /// How often each point counts, where that is not once.
    weights: Option<Cow<'a, [f64]>>,
    /// What brings each point to length 1, where the metric wants that.
    scales: Option<Vec<f64>>,
}

impl<'a, T: Element> Points<'a, T> {
    fn new(values: &'a [T], d: usize, weights: Option<&'a [f64]>, metric: Metric) -> Self {
        if !metric.is_spherical() {
            return Points { values, d, weights: weights.map(Cow::Borrowed), scales: None };
        }
        let scales: Vec<f64> = values.par_chunks_exact(d).map(|x| metric.scale(x)).collect();
        let mass = |row: usize, scale: f64| match (scale, metric) {
            (0.0, _) => 0.0,
            (_, Metric::Cosine) => weights.map_or(1.0, |weights| weights[row]),
            _ => weights.map_or(1.0, |weights| weights[row]) / scale,
        };
        let masses = scales.iter().enumerate().map(|(row, &scale)| mass(row, scale)).collect();
        Points { values, d, weights: Some(masses), scales: Some(scales) }
    }

    fn n(&self) -> usize {
        self.values.len() / self.d
    }

    fn row(&self, row: usize) -> &'a [T] {
        &self.values[row * self.d..][..self.d]
    }

    fn weight(&self, row: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |weights| weights[row])
    }

    fn scale(&self, row: usize) -> f64 {
        self.scales.as_ref().map_or(1.0, |scales| scales[row])
    }

    /// A row as a centroid.
    fn centroid(&self, row: usize) -> Vec<f64> {
        self.row(row).iter().map(|v| v.to_f64() * self.scale(row)).collect()
    }

    /// The squared distance of a row to a centroid.
    fn apart(&self, row: usize, c: &[f64]) -> f64 {
        match &self.scales {
            None => cpu::distance(self.row(row), c),
            Some(scales) => cpu::scaled_distance(self.row(row), scales[row], c),
        }
    }

    /// A row, drawn by weight.
    fn any(&self, rng: &mut Rng) -> usize {
        match &self.weights {
            None => rng.below(self.n()),
            Some(weights) => by_weight(weights, rng),
        }
    }
}

/// `batch · k · d` first centroids, at length 1 where the metric wants that. Problem `b` of a batch draws from stream `b` of the seed's generator.
pub(crate) fn centroids<T: Element>(
    init: &Init,
    problem: &Problem<'_, T>,
    (k, metric): (usize, Metric),
    seed: u64,
) -> Result<Vec<T::Centroid>> {
    let d = problem.d;
    if let Init::Given(given) = init {
        return given_centroids::<T>(given, problem.batch, (k, metric), d);
    }
    let mut all = Vec::with_capacity(problem.batch * k * d);
    for batch in 0..problem.batch {
        let (values, weights) = (problem.of_batch(batch), problem.weights_of(batch));
        let mut rng = Rng::new(seed, batch as u64);
        let rows = match init {
            Init::Random => random_rows(problem.n, k, weights, &mut rng),
            &Init::KMeansParallel { oversampling, rounds } => {
                parallel(&Points::new(values, d, weights, metric), k, oversampling, rounds, &mut rng)
            }
            _ => plus_plus(&Points::new(values, d, weights, metric), k, &mut rng),
        };
        for row in rows {
            all.extend(values[row * d..][..d].iter().map(|v| v.to_centroid()));
        }
    }
    metric.normalise::<T>(&mut all, d);
    Ok(all)
}

/// Given centroids, checked, at length 1 where the metric wants that, and repeated for each problem where one set is
/// given.
pub(crate) fn given_centroids<T: Element>(
    given: &ArrayD<f64>,
    batch: usize,
    (k, metric): (usize, Metric),
    d: usize,
) -> Result<Vec<T::Centroid>> {
    let repeats = match *given.shape() {
        [rows, columns] if (rows, columns) == (k, d) => batch,
        [problems, rows, columns] if (problems, rows, columns) == (batch, k, d) => 1,
        _ => {
            let expected =
                if batch == 1 { format!("({k}, {d})") } else { format!("({k}, {d}) or ({batch}, {k}, {d})") };
            return Err(Error::Shape { what: "init", expected, actual: format!("{:?}", given.shape()) });
        }
    };
    let mut values: Vec<T::Centroid> = given.iter().map(|&v| Float::from_f64(v)).collect();
    check_centroids::<T>(&mut values, metric, d)?;
    Ok(values.repeat(repeats))
}

/// Brings centroids from outside to length 1 where the metric wants that, and refuses values that the points' type cannot
/// hold, naming the first place.
pub(crate) fn check_centroids<T: Element>(
    values: &mut [T::Centroid],
    metric: Metric,
    d: usize,
) -> Result<()> {
    let refused = |values: &[T::Centroid], at: usize| {
        let value = values[at].to_f64().to_string();
        Err(Error::NonFinite { what: "centroids", row: at / d, column: at % d, value })
    };
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        return refused(values, at);
    }
    metric.normalise::<T>(values, d);
    match values.iter().position(|&v| !T::round_centroid(v).is_finite()) {
        None => Ok(()),
        Some(at) => refused(values, at),
    }
}

/// `k` of `n` rows without replacement: a Fisher–Yates shuffle of which only the touched places are kept.
pub(crate) fn distinct_rows(n: usize, k: usize, rng: &mut Rng) -> Vec<usize> {
    let mut moved: HashMap<usize, usize> = HashMap::new();
    (0..k)
        .map(|place| {
            let other = place + rng.below(n - place);
            let row = moved.get(&other).copied().unwrap_or(other);
            let here = moved.get(&place).copied().unwrap_or(place);
            moved.insert(other, here);
            row
        })
        .collect()
}

/// `k` of `n` rows without replacement, one after the other in proportion to the weights of those that are left; rows
/// of weight 0 last.
pub(crate) fn random_rows(n: usize, k: usize, weights: Option<&[f64]>, rng: &mut Rng) -> Vec<usize> {
    let Some(weights) = weights else { return distinct_rows(n, k, rng) };
    // The k least of exponential times, each at the rate of its weight (Efraimidis and Spirakis, 2006).
    let mut times: Vec<(f64, usize)> =
        weights.iter().enumerate().map(|(row, weight)| (-(1.0 - rng.unit()).ln() / weight, row)).collect();
    // 0 / 0, of a row without weight.
    times.iter_mut().filter(|(time, _)| time.is_nan()).for_each(|(time, _)| *time = f64::INFINITY);
    let by_time = |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    if k < n {
        times.select_nth_unstable_by(k, by_time);
    }
    times[..k].sort_unstable_by(by_time);
    times[..k].iter().map(|&(_, row)| row).collect()
}

/// `rows` of the `n` rows of problem `problem` as a sample: drawn without replacement, in ascending order.
pub(crate) fn sampled_rows(n: usize, rows: usize, seed: u64, problem: usize) -> Vec<usize> {
    /// Streams of the seed from this one on are those of samples; problems of a batch have those from 0 on.
    const SAMPLES: u64 = 1 << 62;
    let mut drawn = distinct_rows(n, rows, &mut Rng::new(seed, SAMPLES + problem as u64));
    drawn.sort_unstable();
    drawn
}

/// Greedy k-means++, as [`Init::KMeansPlusPlus`] says.
fn plus_plus<T: Element>(points: &Points<'_, T>, k: usize, rng: &mut Rng) -> Vec<usize> {
    let (n, trials) = (points.n(), 2 + (k as f64).ln() as usize);
    let first = points.any(rng);
    let mut rows = vec![first];
    let mut chosen = vec![false; n];
    chosen[first] = true;
    let mut nearest = vec![f64::INFINITY; n];
    let mut sums = lower(points, first, &mut nearest);
    while rows.len() < k {
        let total: f64 = sums.iter().sum();
        // All points lie on centroids (or distances overflow): any row not yet taken is as good.
        if !(total > 0.0 && total.is_finite()) {
            let free: Vec<usize> = (0..n).filter(|&row| !chosen[row]).collect();
            let row = free[rng.below(free.len())];
            chosen[row] = true;
            rows.push(row);
            continue;
        }
        let candidates: Vec<usize> = (0..trials).map(|_| draw(&nearest, &sums, rng.unit() * total)).collect();
        let (mut best, mut best_nearest, mut best_sums) = (candidates[0], Vec::new(), Vec::new());
        let mut best_total = f64::INFINITY;
        for &candidate in &candidates {
            let mut with = nearest.clone();
            let with_sums = lower(points, candidate, &mut with);
            let with_total: f64 = with_sums.iter().sum();
            if with_total < best_total || best_nearest.is_empty() {
                (best, best_nearest, best_sums, best_total) = (candidate, with, with_sums, with_total);
            }
        }
        chosen[best] = true;
        rows.push(best);
        (nearest, sums) = (best_nearest, best_sums);
    }
    rows
}

/// k-means||, as [`Init::KMeansParallel`] says.
fn parallel<T: Element>(
    points: &Points<'_, T>,
    k: usize,
    oversampling: f64,
    rounds: usize,
    rng: &mut Rng,
) -> Vec<usize> {
    let n = points.n();
    let mut candidates = vec![points.any(rng)];
    let mut nearest = vec![(f64::INFINITY, 0u32); n];
    let mut measured = 0;
    for _ in 0..rounds {
        lower_to(points, &candidates, measured, &mut nearest);
        measured = candidates.len();
        let total: f64 = nearest.par_chunks(CHUNK).map(sum_of).collect::<Vec<_>>().iter().sum();
        if !(total > 0.0 && total.is_finite()) {
            break;
        }
        let share = oversampling * k as f64 / total;
        let drawn = nearest.iter().enumerate().filter(|(_, (near, _))| rng.unit() < near * share);
        candidates.extend(drawn.map(|(row, _)| row));
    }
    lower_to(points, &candidates, measured, &mut nearest);
    if candidates.len() > k {
        let mut weights = vec![0.0f64; candidates.len()];
        for (row, &(_, owner)) in nearest.iter().enumerate() {
            weights[owner as usize] += points.weight(row);
        }
        candidates = weighted_plus_plus(points, k, &candidates, &weights, rng);
    }
    // Too few were drawn, or too few of them differ: any row not yet taken.
    let mut taken = vec![false; n];
    candidates.iter().for_each(|&row| taken[row] = true);
    let mut free: Vec<usize> = (0..n).filter(|&row| !taken[row]).collect();
    while candidates.len() < k {
        candidates.push(free.swap_remove(rng.below(free.len())));
    }
    candidates
}

fn sum_of(nearest: &[(f64, u32)]) -> f64 {
    nearest.iter().map(|(near, _)| near).sum()
}

/// Lowers each point's weighted squared distance to that of the nearest of `candidates[from..]`, and notes which that is.
fn lower_to<T: Element>(
    points: &Points<'_, T>,
    candidates: &[usize],
    from: usize,
    nearest: &mut [(f64, u32)],
) {
    let new: Vec<(u32, Vec<f64>)> =
        (0u32..).zip(candidates).skip(from).map(|(index, &row)| (index, points.centroid(row))).collect();
    nearest.par_chunks_mut(CHUNK / 16).enumerate().for_each(|(chunk, nearest)| {
        for (row, near) in (chunk * (CHUNK / 16)..).zip(nearest) {
            for (index, c) in &new {
                let distance = points.weight(row) * points.apart(row, c);
                if distance < near.0 {
                    *near = (distance, *index);
                }
            }
        }
    });
}

/// Greedy k-means++ among `candidates`, each as often as its weight says: `k` rows, fewer when no more differ.
fn weighted_plus_plus<T: Element>(
    points: &Points<'_, T>,
    k: usize,
    candidates: &[usize],
    weights: &[f64],
    rng: &mut Rng,
) -> Vec<usize> {
    let trials = 2 + (k as f64).ln() as usize;
    // Weighted squared distances to the nearest of the chosen with `candidate` added.
    let with = |nearest: &[f64], candidate: usize| -> Vec<f64> {
        let c = points.centroid(candidates[candidate]);
        let rows = nearest.par_iter().zip(candidates).zip(weights).with_min_len(256);
        rows.map(|((near, &row), weight)| near.min(weight * points.apart(row, &c))).collect()
    };
    let first = by_weight(weights, rng);
    let mut chosen = vec![first];
    let mut nearest = with(&vec![f64::INFINITY; candidates.len()], first);
    while chosen.len() < k && nearest.iter().any(|&near| near > 0.0) {
        let mut best = (f64::INFINITY, 0, Vec::new());
        for _ in 0..trials {
            let candidate = by_weight(&nearest, rng);
            let lowered = with(&nearest, candidate);
            let total = lowered.iter().sum();
            if total < best.0 || best.2.is_empty() {
                best = (total, candidate, lowered);
            }
        }
        chosen.push(best.1);
        nearest = best.2;
    }
    chosen.into_iter().map(|candidate| candidates[candidate]).collect()
}

/// An index, drawn in proportion to the weights; one of weight above 0 where there is one.
fn by_weight(weights: &[f64], rng: &mut Rng) -> usize {
    let total: f64 = weights.iter().sum();
    let mut target = rng.unit() * total;
    for (index, &weight) in weights.iter().enumerate() {
        if target < weight {
            return index;
        }
        target -= weight;
    }
    // Rounding ran past the end.
    weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0)
}

/// Lowers each point's weighted squared distance to what row `centroid` gives, and returns the sums of chunks.
fn lower<T: Element>(points: &Points<'_, T>, centroid: usize, nearest: &mut [f64]) -> Vec<f64> {
    let c = points.centroid(centroid);
    let lower = |(chunk, nearest): (usize, &mut [f64])| {
        for (row, near) in (chunk * CHUNK..).zip(nearest.iter_mut()) {
            *near = near.min(points.weight(row) * points.apart(row, &c));
        }
        nearest.iter().sum()
    };
    nearest.par_chunks_mut(CHUNK).enumerate().map(lower).collect()
}

/// The row at which the running sum of distances passes `target`; one with a distance above 0.
fn draw(nearest: &[f64], sums: &[f64], mut target: f64) -> usize {
    let mut chunk = 0;
    while chunk + 1 < sums.len() && target >= sums[chunk] {
        target -= sums[chunk];
        chunk += 1;
    }
    let first = chunk * CHUNK;
    let mut last = first;
    for (at, &near) in nearest[first..].iter().enumerate() {
        if near > 0.0 {
            last = first + at;
            if target < near {
                return last;
            }
            target -= near;
        }
    }
    // Rounding ran past the end: the last row that can be drawn.
    if nearest[last] > 0.0 { last } else { nearest.iter().rposition(|&near| near > 0.0).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    fn of(values: &[f32], d: usize) -> Points<'_, f32> {
        Points::new(values, d, None, Metric::Euclidean)
    }

    #[test]
    fn rows_are_drawn_by_weight_and_those_without_weight_last() {
        let weights: Vec<f64> = (0..100).map(|row| if row < 90 { 0.0 } else { (row - 89) as f64 }).collect();
        let mut first = [0usize; 100];
        for seed in 0..20_000 {
            let mut rng = Rng::new(seed, 0);
            let mut rows = random_rows(100, 10, Some(&weights), &mut rng);
            first[rows[0]] += 1;
            rows.sort_unstable();
            assert_eq!(rows, (90..100).collect::<Vec<_>>());
        }
        for (row, &count) in first.iter().enumerate() {
            let expected = 20_000.0 * weights[row] / 55.0;
            assert!(
                (count as f64 - expected).abs() <= 5.0 * expected.sqrt(),
                "row {row}: {count}, {expected}"
            );
        }
        let mut all = random_rows(100, 100, Some(&weights), &mut Rng::new(0, 0));
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        // Neither k-means++ nor k-means|| takes a point without weight while others are left.
        let values: Vec<f32> = (0..100).map(|row| row as f32).collect();
        let points = Points::new(&values, 1, Some(&weights), Metric::Euclidean);
        for seed in 0..50 {
            let mut rng = Rng::new(seed, 0);
            let rows = [plus_plus(&points, 10, &mut rng), parallel(&points, 10, 2.0, 5, &mut rng)];
            assert!(rows.iter().flatten().all(|&row| row >= 90), "{rows:?}");
        }
    }

    #[test]
    fn random_rows_are_distinct_and_reproducible() {
        for (n, k) in [(1, 1), (10, 10), (1000, 30)] {
            let rows = distinct_rows(n, k, &mut Rng::new(7, 0));
            assert_eq!(rows, distinct_rows(n, k, &mut Rng::new(7, 0)));
            let mut sorted = rows.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), k);
            assert!(sorted[k - 1] < n);
        }
        assert_ne!(
            distinct_rows(1000, 30, &mut Rng::new(7, 0)),
            distinct_rows(1000, 30, &mut Rng::new(7, 1))
        );
    }

    #[test]
    fn plus_plus_takes_one_point_of_each_far_group() {
        let points = Array2::from_shape_fn((40, 3), |(row, _)| (row % 4) as f32 * 100.0 + row as f32 * 1e-3);
        let slice: Vec<f32> = points.iter().copied().collect();
        for seed in 0..20 {
            let mut groups: Vec<usize> =
                plus_plus(&of(&slice, 3), 4, &mut Rng::new(seed, 0)).iter().map(|row| row % 4).collect();
            groups.sort_unstable();
            assert_eq!(groups, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn parallel_takes_one_point_of_each_far_group() {
        let points =
            Array2::from_shape_fn((4000, 3), |(row, _)| (row % 8) as f32 * 100.0 + row as f32 * 1e-4);
        let slice: Vec<f32> = points.iter().copied().collect();
        for seed in 0..10 {
            let rows = parallel(&of(&slice, 3), 8, 2.0, 5, &mut Rng::new(seed, 0));
            assert_eq!(rows, parallel(&of(&slice, 3), 8, 2.0, 5, &mut Rng::new(seed, 0)));
            let mut groups: Vec<usize> = rows.iter().map(|row| row % 8).collect();
            groups.sort_unstable();
            assert_eq!(groups, [0, 1, 2, 3, 4, 5, 6, 7]);
        }
    }

    #[test]
    fn parallel_always_gives_k_distinct_rows() {
        let line: Vec<f32> = (0..50).map(|v| (v / 5) as f32).collect();
        for (points, oversampling) in [(&[1.0f32; 50][..], 2.0), (&line, 0.01), (&line, 2.0), (&line, 1000.0)]
        {
            for k in [1, 7, 10, 30, 50] {
                let mut rows = parallel(&of(points, 1), k, oversampling, 5, &mut Rng::new(1, 0));
                rows.sort_unstable();
                rows.dedup();
                assert_eq!(rows.len(), k);
            }
        }
    }

    #[test]
    fn plus_plus_of_equal_points_takes_distinct_rows() {
        let mut rows = plus_plus(&of(&[1.0f32; 12], 2), 6, &mut Rng::new(3, 0));
        rows.sort_unstable();
        assert_eq!(rows, [0, 1, 2, 3, 4, 5]);
    }
}
