//! First centroids.
use crate::backend::cpu;
use crate::element::{Element, Float};
use crate::error::{Error, Result};
use crate::params::Init;
use crate::points::Problem;
use crate::rng::Rng;
use ndarray::ArrayD;
use rayon::prelude::*;
use std::collections::HashMap;

/// Rows that one task measures; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 4096;

/// `batch · k · d` first centroids. Problem `b` of a batch draws from stream `b` of the seed's generator.
pub(crate) fn centroids<T: Element>(
    init: &Init,
    problem: &Problem<'_, T>,
    k: usize,
    seed: u64,
) -> Result<Vec<T::Centroid>> {
    if let Init::Given(given) = init {
        return given_centroids(given, problem.batch, k, problem.d);
    }
    let d = problem.d;
    let mut all = Vec::with_capacity(problem.batch * k * d);
    for batch in 0..problem.batch {
        let points = problem.of_batch(batch);
        let mut rng = Rng::new(seed, batch as u64);
        let rows = match init {
            Init::Random => distinct_rows(problem.n, k, &mut rng),
            &Init::KMeansParallel { oversampling, rounds } => {
                parallel(points, problem.n, d, k, oversampling, rounds, &mut rng)
            }
            _ => plus_plus(points, problem.n, d, k, &mut rng),
        };
        for row in rows {
            all.extend(points[row * d..][..d].iter().map(|v| v.to_centroid()));
        }
    }
    Ok(all)
}

/// Given centroids, checked, and repeated for each problem where one set is given.
pub(crate) fn given_centroids<C: Float>(
    given: &ArrayD<f64>,
    batch: usize,
    k: usize,
    d: usize,
) -> Result<Vec<C>> {
    let repeats = match *given.shape() {
        [rows, columns] if (rows, columns) == (k, d) => batch,
        [problems, rows, columns] if (problems, rows, columns) == (batch, k, d) => 1,
        _ => {
            let expected =
                if batch == 1 { format!("({k}, {d})") } else { format!("({k}, {d}) or ({batch}, {k}, {d})") };
            return Err(Error::Shape { what: "init", expected, actual: format!("{:?}", given.shape()) });
        }
    };
    let values: Vec<C> = given.iter().map(|&v| Float::from_f64(v)).collect();
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(values.repeat(repeats)),
        Some(at) => Err(Error::NonFinite {
            what: "centroids",
            row: at / d,
            column: at % d,
            value: values[at].to_f64().to_string(),
        }),
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

/// `rows` of the `n` rows of problem `problem` as a sample: drawn without replacement, in ascending order.
pub(crate) fn sampled_rows(n: usize, rows: usize, seed: u64, problem: usize) -> Vec<usize> {
    /// Streams of the seed from this one on are those of samples; problems of a batch have those from 0 on.
    const SAMPLES: u64 = 1 << 62;
    let mut drawn = distinct_rows(n, rows, &mut Rng::new(seed, SAMPLES + problem as u64));
    drawn.sort_unstable();
    drawn
}

/// Greedy k-means++, as [`Init::KMeansPlusPlus`] says.
fn plus_plus<T: Element>(points: &[T], n: usize, d: usize, k: usize, rng: &mut Rng) -> Vec<usize> {
    let trials = 2 + (k as f64).ln() as usize;
    let first = rng.below(n);
    let mut rows = vec![first];
    let mut chosen = vec![false; n];
    chosen[first] = true;
    let mut nearest = vec![f64::INFINITY; n];
    let mut sums = lower(points, d, first, &mut nearest);
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
            let with_sums = lower(points, d, candidate, &mut with);
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
    points: &[T],
    n: usize,
    d: usize,
    k: usize,
    oversampling: f64,
    rounds: usize,
    rng: &mut Rng,
) -> Vec<usize> {
    let mut candidates = vec![rng.below(n)];
    let mut nearest = vec![(f64::INFINITY, 0u32); n];
    let mut measured = 0;
    for _ in 0..rounds {
        lower_to(points, d, &candidates, measured, &mut nearest);
        measured = candidates.len();
        let total: f64 = nearest.par_chunks(CHUNK).map(sum_of).collect::<Vec<_>>().iter().sum();
        if !(total > 0.0 && total.is_finite()) {
            break;
        }
        let share = oversampling * k as f64 / total;
        let drawn = nearest.iter().enumerate().filter(|(_, (near, _))| rng.unit() < near * share);
        candidates.extend(drawn.map(|(row, _)| row));
    }
    lower_to(points, d, &candidates, measured, &mut nearest);
    if candidates.len() > k {
        let mut weights = vec![0.0f64; candidates.len()];
        nearest.iter().for_each(|&(_, owner)| weights[owner as usize] += 1.0);
        candidates = weighted_plus_plus(points, d, k, &candidates, &weights, rng);
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

/// Lowers each point's squared distance to that of the nearest of `candidates[from..]`, and notes which that is.
fn lower_to<T: Element>(
    points: &[T],
    d: usize,
    candidates: &[usize],
    from: usize,
    nearest: &mut [(f64, u32)],
) {
    let new: Vec<(u32, Vec<T::Centroid>)> = (0u32..)
        .zip(candidates)
        .skip(from)
        .map(|(index, &row)| (index, points[row * d..][..d].iter().map(|v| v.to_centroid()).collect()))
        .collect();
    nearest.par_chunks_mut(CHUNK / 16).zip(points.par_chunks(CHUNK / 16 * d)).for_each(
        |(nearest, points)| {
            for (near, x) in nearest.iter_mut().zip(points.chunks_exact(d)) {
                for (index, c) in &new {
                    let distance = cpu::distance(x, c);
                    if distance < near.0 {
                        *near = (distance, *index);
                    }
                }
            }
        },
    );
}

/// Greedy k-means++ among `candidates`, each as often as its weight says: `k` rows, fewer when no more differ.
fn weighted_plus_plus<T: Element>(
    points: &[T],
    d: usize,
    k: usize,
    candidates: &[usize],
    weights: &[f64],
    rng: &mut Rng,
) -> Vec<usize> {
    let trials = 2 + (k as f64).ln() as usize;
    // Weighted squared distances to the nearest of the chosen with `candidate` added.
    let with = |nearest: &[f64], candidate: usize| -> Vec<f64> {
        let c: Vec<_> = points[candidates[candidate] * d..][..d].iter().map(|v| v.to_centroid()).collect();
        let rows = nearest.par_iter().zip(candidates).zip(weights).with_min_len(256);
        rows.map(|((near, &row), weight)| near.min(weight * cpu::distance(&points[row * d..][..d], &c)))
            .collect()
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

/// Lowers each point's squared distance to what row `centroid` gives, and returns the sums of chunks.
fn lower<T: Element>(points: &[T], d: usize, centroid: usize, nearest: &mut [f64]) -> Vec<f64> {
    let c: Vec<f64> = points[centroid * d..][..d].iter().map(|v| v.to_f64()).collect();
    nearest
        .par_chunks_mut(CHUNK)
        .zip(points.par_chunks(CHUNK * d))
        .map(|(nearest, points)| {
            for (near, x) in nearest.iter_mut().zip(points.chunks_exact(d)) {
                let mut sums = [0.0f64; 8];
                let (whole, rest) = x.split_at(d - d % 8);
                for (x, c) in whole.chunks_exact(8).zip(c.chunks_exact(8)) {
                    for lane in 0..8 {
                        let difference = x[lane].to_f64() - c[lane];
                        sums[lane] += difference * difference;
                    }
                }
                for (sum, (x, c)) in sums.iter_mut().zip(rest.iter().zip(&c[d - d % 8..])) {
                    let difference = x.to_f64() - c;
                    *sum += difference * difference;
                }
                *near = near.min(sums.iter().sum());
            }
            nearest.iter().sum()
        })
        .collect()
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
                plus_plus(&slice, 40, 3, 4, &mut Rng::new(seed, 0)).iter().map(|row| row % 4).collect();
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
            let rows = parallel(&slice, 4000, 3, 8, 2.0, 5, &mut Rng::new(seed, 0));
            assert_eq!(rows, parallel(&slice, 4000, 3, 8, 2.0, 5, &mut Rng::new(seed, 0)));
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
                let mut rows = parallel(points, 50, 1, k, oversampling, 5, &mut Rng::new(1, 0));
                rows.sort_unstable();
                rows.dedup();
                assert_eq!(rows.len(), k);
            }
        }
    }

    #[test]
    fn plus_plus_of_equal_points_takes_distinct_rows() {
        let mut rows = plus_plus(&[1.0f32; 12], 6, 2, 6, &mut Rng::new(3, 0));
        rows.sort_unstable();
        assert_eq!(rows, [0, 1, 2, 3, 4, 5]);
    }
}
