//! First centroids.
use crate::backend::cpu;
use crate::element::{Element, Float};
use crate::error::{Error, Result};
use crate::metric::Metric;
use crate::params::Init;
use crate::points::Problem;
use crate::rng::Rng;
use kernels_gpu::spec::{gain_of, gain_scale};
use ndarray::ArrayD;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Instant;

/// Values that are added up one after the other: fixed, so that sums are the same on any number of threads and on every backend.
const FAN: usize = kernels_gpu::spec::FAN as usize;

/// Candidates of a round of k-means|| from which on an assignment finds the nearest, so that one distance a point is in f64:
/// fewer cost less in f64 than an assignment's passes over the points do. The same on every backend: of two candidates as near
/// but for the last bits an assignment may take the other.
pub(crate) const ASSIGNED_CANDIDATES: usize = 32;

/// Sums of [`FAN`] values each.
fn sums(values: &[f64]) -> Vec<f64> {
    values.par_chunks(FAN).with_min_len(16).map(|values| values.iter().sum()).collect()
}

/// What the sums of chunks come to.
pub(crate) fn total_of_chunks(chunks: &[f64]) -> f64 {
    sums(chunks).iter().sum()
}

/// The index at which the running sum of `values` passes `target`, which keeps what is left of it; where rounding ran past
/// the end, the last one of a value above 0.
fn pass(values: &[f64], target: &mut f64) -> usize {
    let mut last = 0;
    for (at, &value) in values.iter().enumerate() {
        if value > 0.0 {
            last = at;
            if *target < value {
                break;
            }
            *target -= value;
        }
    }
    last
}

/// Weighted squared distances of rows to the nearest that is chosen, with their sums, to draw from.
struct Pool {
    rows: Vec<f64>,
    /// Of [`FAN`] rows each.
    chunks: Vec<f64>,
    /// Of [`FAN`] chunks each.
    groups: Vec<f64>,
    total: f64,
}

impl Pool {
    fn new(rows: Vec<f64>) -> Self {
        let chunks = sums(&rows);
        let groups = sums(&chunks);
        let total = groups.iter().sum();
        Pool { rows, chunks, groups, total }
    }

    /// Whether a row can be drawn: not all lie on chosen ones, and no distance overflowed.
    fn can_draw(&self) -> bool {
        self.total > 0.0 && self.total.is_finite()
    }

    /// A row, in proportion to its distance.
    fn draw(&self, rng: &mut Rng) -> usize {
        let of = |values: &[f64], part: usize, target: &mut f64| {
            let values = &values[part * FAN..];
            part * FAN + pass(&values[..values.len().min(FAN)], target)
        };
        let mut target = rng.unit() * self.total;
        let group = pass(&self.groups, &mut target);
        let chunk = of(&self.chunks, group, &mut target);
        of(&self.rows, chunk, &mut target)
    }
}

/// The points of a problem that k-means++ and k-means|| draw from.
struct Points<'a, T: Element> {
    /// `n · d` values.
    values: Cow<'a, [T]>,
    d: usize,
    /// How often each point counts, where that is not once.
    weights: Option<Cow<'a, [f64]>>,
    /// What brings each point to length 1, where the metric wants that.
    scales: Option<Vec<f64>>,
}

impl<'a, T: Element> Points<'a, T> {
    fn new(values: &'a [T], d: usize, weights: Option<&'a [f64]>, metric: Metric) -> Self {
        if !metric.is_spherical() {
            return Points {
                values: Cow::Borrowed(values),
                d,
                weights: weights.map(Cow::Borrowed),
                scales: None,
            };
        }
        let scales: Vec<f64> = values.par_chunks_exact(d).map(|x| metric.scale(x)).collect();
        let mass = |row: usize, scale: f64| match (scale, metric) {
            (0.0, _) => 0.0,
            (_, Metric::Cosine) => weights.map_or(1.0, |weights| weights[row]),
            _ => weights.map_or(1.0, |weights| weights[row]) / scale,
        };
        let masses = scales.iter().enumerate().map(|(row, &scale)| mass(row, scale)).collect();
        Points { values: Cow::Borrowed(values), d, weights: Some(masses), scales: Some(scales) }
    }

    fn n(&self) -> usize {
        self.values.len() / self.d
    }

    fn row(&self, row: usize) -> &[T] {
        &self.values[row * self.d..][..self.d]
    }

    /// Some of the rows by themselves, with other weights.
    fn of_rows(&self, rows: &[usize], weights: Vec<f64>) -> Points<'_, T> {
        Points {
            values: rows.iter().flat_map(|&row| self.row(row)).copied().collect(),
            d: self.d,
            weights: Some(weights.into()),
            scales: self.scales.as_ref().map(|scales| rows.iter().map(|&row| scales[row]).collect()),
        }
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

    /// The place of the nearest candidate for each row, by an assignment; none where the candidates are few, or distances are
    /// to rows at length 1.
    fn nearest_of(&self, candidates: &[usize]) -> Result<Option<Vec<u32>>> {
        if candidates.len() < ASSIGNED_CANDIDATES || self.scales.is_some() {
            return Ok(None);
        }
        let centroids: Vec<_> =
            candidates.iter().flat_map(|&row| self.row(row)).map(|v| v.to_centroid()).collect();
        let points = Cow::Borrowed(&*self.values);
        let problem = Problem { points, batch: 1, n: self.n(), d: self.d, weights: None };
        cpu::assign(&problem, &centroids, candidates.len(), Metric::Euclidean).map(Some)
    }

    /// A row, drawn by weight.
    fn any(&self, rng: &mut Rng) -> usize {
        match &self.weights {
            None => rng.below(self.n()),
            Some(weights) => by_weight(weights, rng),
        }
    }
}

/// Which first centroids a fit is to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First<'a> {
    pub(crate) init: &'a Init,
    pub(crate) seed: u64,
}

impl First<'_> {
    /// See [`centroids`].
    pub(crate) fn centroids<T: Element>(
        self,
        problem: &Problem<'_, T>,
        of: (usize, Metric),
    ) -> Result<Vec<T::Centroid>> {
        centroids(self.init, problem, of, self.seed)
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
                let points = &Points::new(values, d, weights, metric);
                let (nearest, owners) = (Vec::new(), Vec::new());
                parallel(&mut OnCpu { points, nearest, owners }, (k, oversampling, rounds), &mut rng)?
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
    /// Rows for each that is drawn up to which a table of all takes less time than one of those that moved.
    const FEW: usize = 64;
    let others = (0..k).map(|place| (place, place + rng.below(n - place)));
    if n / FEW <= k
        && let Ok(all) = u32::try_from(n)
    {
        let mut rows: Vec<u32> = (0..all).collect();
        let draw = |(place, other): (usize, usize)| {
            rows.swap(place, other);
            rows[place] as usize
        };
        return others.map(draw).collect();
    }
    let mut moved: HashMap<usize, usize> = HashMap::with_capacity(k);
    others
        .map(|(place, other)| {
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

/// Rows that a step of greedy k-means++ chooses from.
pub(crate) fn trials(k: usize) -> usize {
    2 + (k as f64).ln() as usize
}

/// Greedy k-means++, as [`Init::KMeansPlusPlus`] says.
fn plus_plus<T: Element>(points: &Points<'_, T>, k: usize, rng: &mut Rng) -> Vec<usize> {
    let first = points.any(rng);
    let rows = greedy(points, first, k, rng);
    filled(rows, points.n(), k, rng)
}

/// Adds to `rows` until they are `k`: the others lie on them (or distances overflow), so that any row not yet taken is as
/// good.
pub(crate) fn filled(mut rows: Vec<usize>, n: usize, k: usize, rng: &mut Rng) -> Vec<usize> {
    if rows.len() < k {
        let mut free = not_in(&rows, n);
        while rows.len() < k {
            rows.push(free.remove(rng.below(free.len())));
        }
    }
    rows
}

/// The steps of greedy k-means++ from row `first` on: `k` rows, or fewer where all others lie on them.
///
/// Each step's candidates are drawn in proportion to the distances as they are, but not one step at a time: a *pool* of rows is
/// drawn by the distances as they were, and a row of it counts as drawn only if a number under 1 is below the share of its
/// distance that is left (rejection sampling), which is the same distribution. So what all rows of a pool are near to is known
/// in advance, which is what a GPU makes use of; its rows are these.
fn greedy<T: Element>(points: &Points<'_, T>, first: usize, k: usize, rng: &mut Rng) -> Vec<usize> {
    let trials = trials(k);
    let mut rows = vec![first];
    let mut nearest = vec![f64::INFINITY; points.n()];
    lower(points, first, &mut nearest);
    while rows.len() < k {
        let pool = Pool::new(nearest.clone());
        if !pool.can_draw() {
            break;
        }
        let proposals: Vec<(usize, f64)> =
            (0..pool_proposals(rows.len(), k, trials)).map(|_| (pool.draw(rng), rng.unit())).collect();
        let mut left = proposals.iter();
        while rows.len() < k {
            let is_drawn = |(row, share): &&(usize, f64)| share * pool.rows[*row] < nearest[*row];
            let candidates: Vec<usize> =
                left.by_ref().filter(is_drawn).take(trials).map(|&(row, _)| row).collect();
            if candidates.len() < trials {
                break;
            }
            let gains = gains(points, &candidates, &nearest, gain_scale(pool.total));
            // Of equal ones the first.
            let most = gains.iter().copied().max();
            let best = candidates[gains.iter().position(|&gain| Some(gain) == most).unwrap_or(0)];
            rows.push(best);
            lower(points, best, &mut nearest);
        }
    }
    rows
}

/// Rows of the pool from which steps choose when `chosen` of `k` rows are chosen.
pub(crate) fn pool_proposals(chosen: usize, k: usize, trials: usize) -> usize {
    kernels_gpu::spec::pool_proposals(chosen as u32, k as u32, trials as u32) as usize
}

/// By how much each candidate lowers the sum of the distances, in whole parts of it: their sums are the same in any order.
fn gains<T: Element>(points: &Points<'_, T>, candidates: &[usize], nearest: &[f64], scale: f64) -> Vec<i64> {
    let centroids: Vec<_> = candidates.iter().map(|&row| points.centroid(row)).collect();
    let of_chunk = |(chunk, nearest): (usize, &[f64])| {
        let mut gains = vec![0; candidates.len()];
        for (row, near) in (chunk * FAN..).zip(nearest) {
            for (gain, c) in gains.iter_mut().zip(&centroids) {
                let with = points.weight(row) * points.apart(row, c);
                if with < *near {
                    *gain += gain_of(*near, with, scale);
                }
            }
        }
        gains
    };
    let add = |mut all: Vec<i64>, gains: Vec<i64>| {
        all.iter_mut().zip(gains).for_each(|(all, gain)| *all += gain);
        all
    };
    nearest.par_chunks(FAN).enumerate().map(of_chunk).reduce(|| vec![0; candidates.len()], add)
}

/// Takes the weighted squared distances to row `centroid` in, where they are lower.
fn lower<T: Element>(points: &Points<'_, T>, centroid: usize, nearest: &mut [f64]) {
    let c = points.centroid(centroid);
    let rows = nearest.par_iter_mut().enumerate().with_min_len(FAN);
    rows.for_each(|(row, near)| *near = near.min(points.weight(row) * points.apart(row, &c)));
}

/// The rows of `n` that are not among `taken`, in order.
fn not_in(taken: &[usize], n: usize) -> Vec<usize> {
    let mut is_taken = vec![false; n];
    taken.iter().for_each(|&row| is_taken[row] = true);
    (0..n).filter(|&row| !is_taken[row]).collect()
}

/// What k-means|| asks about the points of a problem, wherever they are.
pub(crate) trait Passes {
    fn n(&self) -> usize;

    /// A row, drawn by weight.
    fn any(&self, rng: &mut Rng) -> usize;

    /// Lowers each point's weighted squared distance to that of the nearest of `candidates`, of which the first has number
    /// `first`, and notes which that is. What was there before candidate 0 does not count.
    fn lower_to(&mut self, candidates: &[usize], first: usize) -> Result<()>;

    /// The sum of the distances.
    fn total(&self) -> Result<f64>;

    /// Rows in ascending order, each drawn by itself if a number under 1 is below its distance times `share`.
    fn sample(&self, share: f64, rng: &mut Rng) -> Result<Vec<usize>>;

    /// The weights of `candidates` candidates: those of the points nearest to each, added up.
    fn weights(&self, candidates: usize) -> Result<Vec<f64>>;

    /// Greedy k-means++ among `rows`, each as often as its weight says, from the one at place `first` on: places of at most
    /// `k` rows.
    fn greedy(
        &self,
        rows: &[usize],
        weights: Vec<f64>,
        first: usize,
        k: usize,
        rng: &mut Rng,
    ) -> Result<Vec<usize>>;
}

/// Tells how long a phase of a draw takes.
pub(crate) fn timed<R>(phase: &str, work: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = work();
    tracing::debug!(ms = start.elapsed().as_secs_f64() * 1e3, "{phase}");
    result
}

/// k-means||, as [`Init::KMeansParallel`] says.
pub(crate) fn parallel(
    passes: &mut impl Passes,
    (k, oversampling, rounds): (usize, f64, usize),
    rng: &mut Rng,
) -> Result<Vec<usize>> {
    let n = passes.n();
    let mut candidates = vec![passes.any(rng)];
    let mut measured = 0;
    for _ in 0..rounds {
        timed("nearest of a round's candidates", || passes.lower_to(&candidates[measured..], measured))?;
        measured = candidates.len();
        let total = timed("total", || passes.total())?;
        if !(total > 0.0 && total.is_finite()) {
            break;
        }
        candidates.extend(timed("sample", || passes.sample(oversampling * k as f64 / total, rng))?);
    }
    if candidates.len() > k {
        if candidates.len() > measured {
            timed("nearest of a round's candidates", || passes.lower_to(&candidates[measured..], measured))?;
        }
        let weights = timed("weights", || passes.weights(candidates.len()))?;
        let first = by_weight(&weights, rng);
        tracing::debug!(candidates = candidates.len());
        let chosen = timed("choice", || passes.greedy(&candidates, weights, first, k, rng))?;
        candidates = chosen.into_iter().map(|candidate| candidates[candidate]).collect();
    }
    // Too few were drawn, or too few of them differ: any row not yet taken.
    let mut free = if candidates.len() < k { not_in(&candidates, n) } else { Vec::new() };
    while candidates.len() < k {
        candidates.push(free.swap_remove(rng.below(free.len())));
    }
    Ok(candidates)
}

/// The CPU's passes.
struct OnCpu<'a, T: Element> {
    points: &'a Points<'a, T>,
    nearest: Vec<f64>,
    owners: Vec<u32>,
}

impl<T: Element> Passes for OnCpu<'_, T> {
    fn n(&self) -> usize {
        self.points.n()
    }

    fn any(&self, rng: &mut Rng) -> usize {
        self.points.any(rng)
    }

    fn lower_to(&mut self, candidates: &[usize], first: usize) -> Result<()> {
        let points = self.points;
        if first == 0 {
            self.nearest = vec![f64::INFINITY; points.n()];
            self.owners = vec![0; points.n()];
        }
        let labels = points.nearest_of(candidates)?;
        let new: Vec<(u32, Vec<f64>)> =
            (first as u32..).zip(candidates).map(|(index, &row)| (index, points.centroid(row))).collect();
        let rows = self.nearest.par_iter_mut().zip(&mut self.owners).enumerate().with_min_len(FAN);
        rows.for_each(|(row, (near, owner))| {
            let of_row = match &labels {
                Some(labels) => &new[labels[row] as usize..][..1],
                None => &new,
            };
            for (index, c) in of_row {
                let distance = points.weight(row) * points.apart(row, c);
                if distance < *near {
                    (*near, *owner) = (distance, *index);
                }
            }
        });
        Ok(())
    }

    fn total(&self) -> Result<f64> {
        Ok(total_of_chunks(&sums(&self.nearest)))
    }

    fn sample(&self, share: f64, rng: &mut Rng) -> Result<Vec<usize>> {
        let drawn = self.nearest.iter().enumerate().filter(|(_, near)| rng.unit() < *near * share);
        Ok(drawn.map(|(row, _)| row).collect())
    }

    fn weights(&self, candidates: usize) -> Result<Vec<f64>> {
        let mut weights = vec![0.0f64; candidates];
        for (row, &owner) in self.owners.iter().enumerate() {
            weights[owner as usize] += self.points.weight(row);
        }
        Ok(weights)
    }

    fn greedy(
        &self,
        rows: &[usize],
        weights: Vec<f64>,
        first: usize,
        k: usize,
        rng: &mut Rng,
    ) -> Result<Vec<usize>> {
        Ok(greedy(&self.points.of_rows(rows, weights), first, k, rng))
    }
}

/// An index, drawn in proportion to the weights; one of weight above 0 where there is one.
fn by_weight(weights: &[f64], rng: &mut Rng) -> usize {
    pass(weights, &mut (rng.unit() * weights.iter().sum::<f64>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    fn of(values: &[f32], d: usize) -> Points<'_, f32> {
        Points::new(values, d, None, Metric::Euclidean)
    }

    fn parallel(
        points: &Points<'_, f32>,
        k: usize,
        oversampling: f64,
        rounds: usize,
        rng: &mut Rng,
    ) -> Vec<usize> {
        let passes = &mut OnCpu { points, nearest: Vec::new(), owners: Vec::new() };
        super::parallel(passes, (k, oversampling, rounds), rng).unwrap()
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
    fn a_row_is_where_the_running_sum_passes_the_target() {
        // Whole numbers, whose sums do not depend on their order, over more than two groups.
        let rows: Vec<f64> = (0..2 * FAN * FAN + 700).map(|row| (row * 7 % 5) as f64).collect();
        let rows: Vec<f64> = rows.iter().enumerate().map(|(at, v)| if at < 900 { 0.0 } else { *v }).collect();
        let pool = Pool::new(rows.clone());
        for seed in 0..50 {
            let mut target = Rng::new(seed, 0).unit() * pool.total;
            let expected = rows.iter().position(|&value| {
                target -= value;
                target < 0.0
            });
            assert_eq!(Some(pool.draw(&mut Rng::new(seed, 0))), expected);
        }
        // A target that a value just reaches is the next one's.
        let mut target = 3.0;
        assert_eq!((pass(&[1.0, 2.0, 0.0, 4.0], &mut target), target), (3, 0.0));
        // Past the end, as rounding may bring it: the last value above 0.
        assert_eq!(pass(&[1.0, 2.0, 0.0], &mut 3.0), 1);
    }

    #[test]
    fn given_centroids_are_of_the_shape_and_for_each_problem() {
        let of = |values: ArrayD<f64>, batch, metric| given_centroids::<f32>(&values, batch, (2, metric), 3);
        let shaped = |shape: &[usize]| {
            let len = shape.iter().product::<usize>();
            ArrayD::from_shape_vec(shape, (0..len).map(|v| v as f64).collect()).unwrap()
        };
        let values = |of: [f32; 6]| of.to_vec();
        let one = values([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(of(shaped(&[2, 3]), 1, Metric::Euclidean).unwrap(), one);
        assert_eq!(of(shaped(&[2, 3]), 2, Metric::Euclidean).unwrap(), one.repeat(2));
        let both: Vec<f32> = (0..12).map(|v| v as f32).collect();
        assert_eq!(of(shaped(&[2, 2, 3]), 2, Metric::Euclidean).unwrap(), both);
        for shape in [&[3, 2][..], &[2, 4], &[6], &[1, 2, 3], &[3, 2, 3], &[1, 4, 3], &[2, 1, 6]] {
            let refused = of(shaped(shape), 2, Metric::Euclidean);
            assert!(matches!(refused, Err(Error::Shape { what: "init", .. })), "{shape:?}");
        }
        let long = ArrayD::from_shape_vec(&[2, 3][..], vec![3.0, 4.0, 0.0, 0.0, 0.0, 2.0]).unwrap();
        assert_eq!(of(long, 1, Metric::Cosine).unwrap(), values([0.6, 0.8, 0.0, 0.0, 0.0, 1.0]));
        // The value is told as it came, not as its row at length 1 has it.
        for metric in [Metric::Euclidean, Metric::Cosine] {
            let mut infinite = shaped(&[2, 3]);
            infinite[[1, 2]] = f64::INFINITY;
            match of(infinite, 1, metric).unwrap_err() {
                Error::NonFinite { row: 1, column: 2, value, .. } => assert_eq!(value, "inf"),
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn problems_and_samples_draw_from_streams_of_their_own() {
        let values: Vec<f32> = (0..2000).map(|v| (v % 1000 + 1) as f32).collect();
        let problem = Problem { points: Cow::Borrowed(&values), batch: 2, n: 500, d: 2, weights: None };
        let rows = centroids(&Init::Random, &problem, (5, Metric::Euclidean), 7).unwrap();
        assert_ne!(rows[..10], rows[10..]);
        let rows = centroids(&Init::Random, &problem, (5, Metric::Cosine), 7).unwrap();
        assert!(rows.chunks(2).all(|c| (c[0].hypot(c[1]) - 1.0).abs() < 1e-6));
        let sample = sampled_rows(1000, 30, 7, 0);
        assert!(sample.is_sorted());
        let mut rows = distinct_rows(1000, 30, &mut Rng::new(7, 0));
        rows.sort_unstable();
        assert_ne!(sample, rows);
        assert_ne!(sample, sampled_rows(1000, 30, 7, 1));
    }

    #[test]
    fn any_row_may_be_drawn_at_any_place() {
        let pairs: std::collections::HashSet<_> =
            (0..200).map(|seed| distinct_rows(3, 2, &mut Rng::new(seed, 0))).collect();
        assert_eq!(pairs.len(), 6);
        // Those without weight in their order.
        assert_eq!(random_rows(5, 4, Some(&[0.0, 0.0, 2.0, 0.0, 0.0]), &mut Rng::new(1, 0)), [2, 0, 1, 3]);
        assert_eq!([1, 2, 3, 8, 1000].map(trials), [2, 2, 3, 4, 8]);
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
        // By a table of all rows or of those that moved: one more row, which is drawn by nobody here, is the difference.
        let (few, many) = (64 * 30 + 63, 64 * 30 + 64);
        let by_all = distinct_rows(few, 30, &mut Rng::new(8, 0));
        let by_moved = distinct_rows(many, 30, &mut Rng::new(8, 0));
        let near = by_all.iter().zip(&by_moved).filter(|(a, b)| a.abs_diff(**b) <= 1).count();
        assert_eq!(near, 30);
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

    /// What steps draw from a pool of earlier distances is as good as what they would draw from those of each step.
    #[test]
    fn pools_leave_what_draws_at_each_step_leave() {
        let (n, k, starts) = (400, 16, 250);
        let mut random = Rng::new(9, 0);
        // Of groups of very different sizes, so that distances fall fast, and pools are used up early.
        let values: Vec<f32> = (0..n)
            .flat_map(|row| [(row % 5) as f32 * 10.0, (row % 3) as f32 * 3.0, 0.0, 0.0])
            .map(|centre| centre + random.unit() as f32)
            .collect();
        let points = &of(&values, 4);
        let left = |rows: &[usize]| {
            let mut nearest = vec![f64::INFINITY; n];
            rows.iter().for_each(|&row| lower(points, row, &mut nearest));
            nearest.iter().sum::<f64>()
        };
        let at_each_step = |rng: &mut Rng| {
            let mut rows = vec![points.any(rng)];
            let mut nearest = vec![f64::INFINITY; n];
            lower(points, rows[0], &mut nearest);
            while rows.len() < k {
                let pool = Pool::new(nearest.clone());
                let with = |row: usize| left(&[&rows[..], &[row]].concat());
                let candidates = (0..trials(k)).map(|_| pool.draw(rng));
                let best = candidates.min_by(|&a, &b| with(a).total_cmp(&with(b))).unwrap();
                rows.push(best);
                lower(points, best, &mut nearest);
            }
            left(&rows)
        };
        let of_starts = |start: &dyn Fn(&mut Rng) -> f64, stream: u64| {
            let all: Vec<f64> = (0..starts).map(|seed| start(&mut Rng::new(seed, stream))).collect();
            let mean = all.iter().sum::<f64>() / starts as f64;
            let variance = all.iter().map(|left| (left - mean).powi(2)).sum::<f64>() / starts as f64;
            (mean, variance / starts as f64)
        };
        let (pools, steps) =
            (of_starts(&|rng| left(&plus_plus(points, k, rng)), 0), of_starts(&at_each_step, 1));
        let error = (pools.1 + steps.1).sqrt();
        assert!((pools.0 - steps.0).abs() < 4.0 * error, "{pools:?} {steps:?}");
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
    fn candidates_by_assignment_are_the_first_of_the_nearest() {
        let mut rng = Rng::new(4, 0);
        // Of few values, so that rows are equal or equally near.
        let values: Vec<f32> = (0..600 * 3).map(|_| rng.below(6) as f32).collect();
        let weights: Vec<f64> = (0..600).map(|row| (row % 3) as f64).collect();
        for weights in [None, Some(&weights[..])] {
            let points = &Points::new(&values, 3, weights, Metric::Euclidean);
            let candidates = distinct_rows(600, 2 * ASSIGNED_CANDIDATES + 9, &mut rng);
            let (first, second) = candidates.split_at(ASSIGNED_CANDIDATES);
            let mut passes = OnCpu { points, nearest: Vec::new(), owners: Vec::new() };
            passes.lower_to(first, 0).unwrap();
            passes.lower_to(second, first.len()).unwrap();
            for row in 0..600 {
                let distances =
                    candidates.iter().map(|&candidate| points.apart(row, &points.centroid(candidate)));
                let near = distances.clone().fold(f64::INFINITY, f64::min);
                assert_eq!(passes.nearest[row], points.weight(row) * near);
                if points.weight(row) > 0.0 {
                    assert_eq!(Some(passes.owners[row] as usize), distances.clone().position(|d| d == near));
                }
            }
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

    #[test]
    fn what_cannot_be_drawn_from_is_no_pool() {
        let can_draw = |rows: &[f64]| Pool::new(rows.to_vec()).can_draw();
        assert!(can_draw(&[0.0, f64::MIN_POSITIVE, 0.0]) && can_draw(&[1.0, f64::MAX]));
        for rows in [[0.0, 0.0], [1.0, f64::INFINITY], [f64::MAX, f64::MAX], [f64::NAN, 1.0]] {
            assert!(!can_draw(&rows), "{rows:?}");
        }
    }

    #[test]
    fn values_are_added_up_in_chunks_and_groups() {
        let mut rng = Rng::new(3, 0);
        let rows: Vec<f64> = (0..3 * FAN * FAN + 700).map(|_| rng.unit().powi(9)).collect();
        let in_parts = |values: &[f64]| -> Vec<f64> {
            values.chunks(FAN).map(|part| part.iter().fold(0.0, |sum, value| sum + value)).collect()
        };
        let expected: f64 = in_parts(&in_parts(&rows)).iter().sum();
        assert_ne!(expected, rows.iter().sum::<f64>());
        assert_ne!(expected, in_parts(&rows).iter().sum::<f64>());
        assert_eq!(Pool::new(rows.clone()).total, expected);
        let points = &of(&[], 1);
        assert_eq!(OnCpu { points, nearest: rows, owners: Vec::new() }.total().unwrap(), expected);
    }

    #[test]
    fn weights_and_lengths_are_those_of_the_metric() {
        let values = [3.0f32, 4.0, 0.0, 0.0, 0.0, 2.0];
        let weights = [2.0, 5.0, 0.5];
        let seen = |metric, weights| {
            let points = Points::new(&values, 2, weights, metric);
            let all = |of: &dyn Fn(usize) -> f64| [0, 1, 2].map(of);
            (all(&|row| points.weight(row)), all(&|row| points.scale(row)))
        };
        for metric in [Metric::Euclidean, Metric::Dot] {
            assert_eq!(seen(metric, None), ([1.0; 3], [1.0; 3]));
            assert_eq!(seen(metric, Some(&weights)), (weights, [1.0; 3]));
        }
        // Those of zeros are not drawn.
        let scales = [0.2, 0.0, 0.5];
        assert_eq!(seen(Metric::Cosine, None), ([1.0, 0.0, 1.0], scales));
        assert_eq!(seen(Metric::Cosine, Some(&weights)), ([2.0, 0.0, 0.5], scales));
        assert_eq!(seen(Metric::SphericalDot, None), ([5.0, 0.0, 2.0], scales));
        assert_eq!(seen(Metric::SphericalDot, Some(&weights)), ([10.0, 0.0, 1.0], scales));

        let points = Points::new(&values, 2, None, Metric::Cosine);
        for (points, rows) in
            [(&points, [0, 1, 2]), (&points.of_rows(&[2, 1, 0], vec![7.0, 8.0, 9.0]), [2, 1, 0])]
        {
            let [long, zeros, short] = rows;
            assert_eq!(points.n(), 3);
            assert_eq!(points.centroid(short), [0.0, 1.0]);
            assert_eq!(points.centroid(zeros), [0.0, 0.0]);
            // 1 − cos, twice.
            assert!((points.apart(long, &[0.0, 1.0]) - 0.4).abs() < 1e-6);
            assert_eq!(points.apart(short, &[0.0, 1.0]), 0.0);
        }
        let some = points.of_rows(&[2, 0], vec![7.0, 9.0]);
        assert_eq!((some.n(), some.weight(0), some.weight(1)), (2, 7.0, 9.0));
        assert_eq!(Points::new(&values, 2, None, Metric::Dot).apart(0, &[0.0, 1.0]), 18.0);
    }

    #[test]
    fn a_row_is_drawn_as_often_as_its_weight_says() {
        let weights = [0.0, 1.0, 0.0, 5.0, 2.0];
        let values = [0.0f32; 5];
        let weighted = Points::new(&values, 1, Some(&weights), Metric::Euclidean);
        for (points, weights) in [(weighted, weights), (of(&values, 1), [1.6; 5])] {
            let mut counts = [0usize; 5];
            let mut rng = Rng::new(5, 0);
            (0..8000).for_each(|_| counts[points.any(&mut rng)] += 1);
            for (count, weight) in counts.into_iter().zip(weights) {
                assert!(
                    (count as f64 - 1000.0 * weight).abs() <= 5.0 * (1000.0f64 * weight).sqrt(),
                    "{counts:?}"
                );
            }
        }
    }

    #[test]
    fn gains_are_what_the_sum_of_weighted_distances_loses() {
        // Whole numbers, of more than one chunk.
        let n = 2 * FAN + 9;
        let values: Vec<f32> = (0..n).map(|row| (row * 7 % 60) as f32).collect();
        let weights: Vec<f64> = (0..n).map(|row| (row % 4) as f64).collect();
        let points = &Points::new(&values, 1, Some(&weights), Metric::Euclidean);
        let apart = |row: usize, from: usize| weights[row] * f64::from(values[row] - values[from]).powi(2);
        let mut nearest = vec![f64::INFINITY; n];
        for taken in [3, n - 2] {
            lower(points, taken, &mut nearest);
        }
        for (row, near) in nearest.iter().enumerate() {
            assert_eq!(*near, apart(row, 3).min(apart(row, n - 2)));
        }
        let candidates = [0, 3, FAN + 1];
        let lost = candidates.map(|candidate| {
            (0..n).map(|row| (nearest[row] - apart(row, candidate)).max(0.0)).sum::<f64>() as i64
        });
        assert!(lost[0] > 0 && lost[1] == 0 && lost[2] > 0);
        assert_eq!(gains(points, &candidates, &nearest, 1.0), lost);
        assert_eq!(gains(points, &candidates, &nearest, 4.0), lost.map(|lost| 4 * lost));
    }

    #[test]
    fn rows_do_not_depend_on_the_unit_of_the_points() {
        let mut random = Rng::new(6, 0);
        let values: Vec<f32> = (0..300 * 3).map(|_| random.unit() as f32).collect();
        for seed in 0..5 {
            let rows = |unit: i32| {
                let values: Vec<f32> = values.iter().map(|value| value * 2f32.powi(unit)).collect();
                plus_plus(&of(&values, 3), 20, &mut Rng::new(seed, 0))
            };
            assert_eq!(rows(0), rows(-40));
            assert_eq!(rows(0), rows(40));
        }
    }

    #[test]
    fn rows_whose_distances_overflow_are_any() {
        let values: Vec<f64> = (0..40).map(|row| 1e200 * (row as f64 - 20.0)).collect();
        let points = &Points::new(&values, 1, None, Metric::Euclidean);
        assert_eq!(greedy(points, 5, 8, &mut Rng::new(1, 0)), [5]);
        let passes = &mut OnCpu { points, nearest: Vec::new(), owners: Vec::new() };
        for mut rows in [
            plus_plus(points, 8, &mut Rng::new(1, 0)),
            super::parallel(passes, (8, 2.0, 5), &mut Rng::new(1, 0)).unwrap(),
        ] {
            rows.sort_unstable();
            rows.dedup();
            assert_eq!(rows.len(), 8);
        }
    }

    #[test]
    fn rows_are_filled_up_with_any_that_are_left() {
        assert_eq!(not_in(&[3, 0], 5), [1, 2, 4]);
        let fills = |fill: &dyn Fn(&mut Rng) -> Vec<usize>| {
            let all: std::collections::HashSet<_> =
                (0..300).map(|seed| fill(&mut Rng::new(seed, 0))).collect();
            let mut all: Vec<_> = all.into_iter().collect();
            all.sort();
            all
        };
        let ordered = [[3, 0, 1], [3, 0, 2], [3, 0, 4]].map(Vec::from);
        assert_eq!(fills(&|rng| filled(vec![3, 0], 5, 3, rng)), ordered);
        assert_eq!(fills(&|rng| filled(vec![3, 0], 5, 5, rng)).len(), 6);
        assert_eq!(fills(&|rng| filled(vec![3, 0], 5, 2, rng)), [[3, 0]]);
    }

    /// What k-means|| asks of its passes, of which totals, rows drawn, weights and rows chosen are given.
    #[derive(Default)]
    struct Given {
        totals: std::cell::RefCell<Vec<f64>>,
        drawn: std::cell::RefCell<Vec<Vec<usize>>>,
        weights: Vec<f64>,
        chosen: Vec<usize>,
        asked: std::cell::RefCell<Vec<String>>,
    }

    impl Given {
        fn of(totals: &[f64], drawn: &[&[usize]], weights: &[f64], chosen: &[usize]) -> Self {
            Given {
                totals: totals.iter().rev().copied().collect::<Vec<_>>().into(),
                drawn: drawn.iter().rev().map(|rows| rows.to_vec()).collect::<Vec<_>>().into(),
                weights: weights.to_vec(),
                chosen: chosen.to_vec(),
                ..Given::default()
            }
        }

        fn ask(&self, what: String) {
            self.asked.borrow_mut().push(what);
        }

        /// Rows of 10, and what was asked for them.
        fn rows(
            mut self,
            k: usize,
            oversampling: f64,
            rounds: usize,
            seed: u64,
        ) -> (Vec<usize>, Vec<String>) {
            let rows = super::parallel(&mut self, (k, oversampling, rounds), &mut Rng::new(seed, 0)).unwrap();
            assert!(self.totals.borrow().is_empty() && self.drawn.borrow().is_empty());
            (rows, self.asked.into_inner())
        }
    }

    impl Passes for Given {
        fn n(&self) -> usize {
            10
        }
        fn any(&self, _rng: &mut Rng) -> usize {
            5
        }
        fn lower_to(&mut self, candidates: &[usize], first: usize) -> Result<()> {
            self.ask(format!("lower to {candidates:?} from {first}"));
            Ok(())
        }
        fn total(&self) -> Result<f64> {
            self.ask("total".into());
            Ok(self.totals.borrow_mut().pop().unwrap())
        }
        fn sample(&self, share: f64, _rng: &mut Rng) -> Result<Vec<usize>> {
            self.ask(format!("sample {share}"));
            Ok(self.drawn.borrow_mut().pop().unwrap())
        }
        fn weights(&self, candidates: usize) -> Result<Vec<f64>> {
            self.ask(format!("weights of {candidates}"));
            Ok(self.weights.clone())
        }
        fn greedy(
            &self,
            rows: &[usize],
            weights: Vec<f64>,
            first: usize,
            k: usize,
            _rng: &mut Rng,
        ) -> Result<Vec<usize>> {
            self.ask(format!("{k} of {rows:?} by {weights:?} from {first}"));
            Ok(self.chosen.clone())
        }
    }

    #[test]
    fn parallel_draws_by_rounds_and_chooses_among_all_drawn() {
        let weights = [0.0, 0.0, 3.0, 0.0, 0.0];
        let given = Given::of(&[12.0, 6.0, 3.0], &[&[4, 7], &[], &[1, 9]], &weights, &[2, 4]);
        let (rows, asked) = given.rows(2, 1.5, 3, 0);
        assert_eq!(rows, [7, 9]);
        let expected = [
            "lower to [5] from 0",
            "total",
            "sample 0.25",
            "lower to [4, 7] from 1",
            "total",
            "sample 0.5",
            "lower to [] from 3",
            "total",
            "sample 1",
            "lower to [1, 9] from 3",
            "weights of 5",
            "2 of [5, 4, 7, 1, 9] by [0.0, 0.0, 3.0, 0.0, 0.0] from 2",
        ];
        assert_eq!(asked, expected);

        // A last round that draws nothing leaves nothing to measure, and neither does one whose total ends the rounds.
        let choice = ["weights of 3", "2 of [5, 4, 7] by [0.0, 1.0, 0.0] from 1"];
        let given = Given::of(&[12.0, 6.0], &[&[4, 7], &[]], &[0.0, 1.0, 0.0], &[1, 0]);
        let (rows, asked) = given.rows(2, 1.5, 2, 0);
        assert_eq!(
            (rows, &asked[..6], &asked[6..]),
            (vec![4, 5], &expected.map(String::from)[..6], &choice.map(String::from)[..])
        );
        for end in [0.0, f64::INFINITY, f64::NAN] {
            let given = Given::of(&[12.0, end], &[&[4, 7]], &[0.0, 1.0, 0.0], &[1, 0]);
            let (rows, asked) = given.rows(2, 1.5, 9, 0);
            assert_eq!(
                (rows, &asked[..5], &asked[5..]),
                (vec![4, 5], &expected.map(String::from)[..5], &choice.map(String::from)[..])
            );
        }
    }

    #[test]
    fn parallel_begins_its_choice_with_a_candidate_by_weight() {
        let mut counts = [0usize; 3];
        for seed in 0..2000 {
            let given = Given::of(&[1.0], &[&[4, 7]], &[1.0, 5.0, 2.0], &[0, 1]);
            let (_, asked) = given.rows(2, 1.0, 1, seed);
            let first = asked.last().unwrap().rsplit(' ').next().unwrap();
            counts[first.parse::<usize>().unwrap()] += 1;
        }
        for (count, expected) in counts.into_iter().zip([250.0f64, 1250.0, 500.0]) {
            assert!((count as f64 - expected).abs() <= 5.0 * expected.sqrt(), "{counts:?}");
        }
    }

    #[test]
    fn parallel_chooses_only_among_more_than_it_needs_and_fills_up() {
        // As many as it needs, in the order in which they were drawn.
        let (rows, asked) = Given::of(&[1.0], &[&[4, 7]], &[], &[]).rows(3, 1.0, 1, 0);
        assert_eq!((rows, asked.len()), (vec![5, 4, 7], 3));
        let mut ends = [std::collections::HashSet::new(), std::collections::HashSet::new()];
        for seed in 0..300 {
            // Fewer, of which any two others make up; and fewer that differ.
            let few = Given::of(&[1.0], &[&[4, 7]], &[], &[]).rows(5, 1.0, 1, seed).0;
            assert_eq!(few[..3], [5, 4, 7]);
            let alike = Given::of(&[1.0], &[&[4, 7]], &[1.0, 0.0, 0.0], &[2]).rows(2, 1.0, 1, seed).0;
            assert_eq!((alike.len(), alike[0]), (2, 7));
            for (ends, rows) in ends.iter_mut().zip([&few[3..], &alike[1..]]) {
                ends.insert(rows.to_vec());
            }
        }
        assert!(ends[0].iter().flatten().all(|row| ![5, 4, 7].contains(row)));
        assert!(ends[0].iter().all(|rows| rows[0] != rows[1]));
        assert!(ends[1].iter().flatten().all(|&row| row != 7));
        assert_eq!(ends.map(|ends| ends.len()), [7 * 6, 9]);
    }

    #[test]
    fn passes_measure_draw_and_weigh() {
        let values = [0.0f32, 1.0, 2.0, 10.0, 11.0, 14.0];
        let weights = [1.0, 2.0, 0.5, 3.0, 4.0, 0.25];
        let points = &Points::new(&values, 1, Some(&weights), Metric::Euclidean);
        let mut passes = OnCpu { points, nearest: Vec::new(), owners: Vec::new() };
        passes.lower_to(&[5], 0).unwrap();
        // What was there before candidate 0 does not count.
        passes.lower_to(&[0], 0).unwrap();
        passes.lower_to(&[2, 3], 1).unwrap();
        passes.lower_to(&[4], 3).unwrap();
        assert_eq!(passes.nearest, [0.0, 2.0, 0.0, 0.0, 0.0, 0.25 * 9.0]);
        // Row 1 is as near to row 2 as to row 0.
        assert_eq!(passes.weights(4).unwrap(), [3.0, 0.5, 3.0, 4.25]);
        assert_eq!(passes.total().unwrap(), 4.25);

        let near = [0.0, 0.25, 1.0, 2.0, 40.0, 4.0];
        passes.nearest = near.to_vec();
        let (mut counts, mut rng) = ([0usize; 6], Rng::new(2, 0));
        for _ in 0..4000 {
            let rows = passes.sample(0.25, &mut rng).unwrap();
            assert!(rows.is_sorted());
            rows.into_iter().for_each(|row| counts[row] += 1);
        }
        for (count, near) in counts.into_iter().zip(near) {
            let expected = 4000.0 * f64::min(0.25 * near, 1.0);
            let spread = (expected * (1.0 - f64::min(0.25 * near, 1.0))).sqrt();
            assert!((count as f64 - expected).abs() <= 5.0 * spread, "{counts:?}");
        }
        // The choice goes by the weights that it is given.
        let of_weights = |weights: [f64; 3]| {
            let mut rows = passes.greedy(&[0, 1, 5], weights.to_vec(), 1, 2, &mut Rng::new(1, 0)).unwrap();
            (rows.remove(0), rows)
        };
        assert_eq!(of_weights([1.0, 1.0, 0.0]), (1, vec![0]));
        assert_eq!(of_weights([0.0, 1.0, 1.0]), (1, vec![2]));
        assert_eq!(of_weights([0.0, 1.0, 0.0]), (1, vec![]));
    }

    #[test]
    fn an_assignment_finds_the_nearest_of_many_candidates() {
        let values: Vec<f32> = (0..200).map(|row| (row / 2) as f32).collect();
        let candidates: Vec<usize> = (0..ASSIGNED_CANDIDATES).map(|at| 5 * at + 1).collect();
        let apart = |row: usize, candidate: usize| (values[row] - values[candidate]).abs();
        let expected = (0..200).map(|row| {
            let least = candidates.iter().map(|&of| apart(row, of)).fold(f32::INFINITY, f32::min);
            candidates.iter().position(|&of| apart(row, of) == least).unwrap() as u32
        });
        let expected: Vec<u32> = expected.collect();
        for metric in Metric::ALL {
            let points = Points::new(&values, 1, None, metric);
            assert_eq!(points.nearest_of(&candidates[1..]).unwrap(), None);
            let labels = (!metric.is_spherical()).then(|| expected.clone());
            assert_eq!(points.nearest_of(&candidates).unwrap(), labels);
        }
    }

    #[test]
    fn each_problem_draws_as_its_own_points_weights_and_options_say() {
        let (n, d, k) = (90, 2, 6);
        let mut random = Rng::new(8, 0);
        let values: Vec<f32> = (0..2 * n * d).map(|_| random.unit() as f32 - 0.5).collect();
        let weights: Vec<f64> = (0..2 * n).map(|row| (row % 5 + row / n) as f64).collect();
        let problem = Problem {
            points: Cow::Borrowed(&values),
            batch: 2,
            n,
            d,
            weights: Some(Cow::Borrowed(&weights)),
        };
        for metric in Metric::ALL {
            for init in [
                Init::Random,
                Init::KMeansPlusPlus,
                Init::KMeansParallel { oversampling: 0.7, rounds: 1 },
                Init::KMeansParallel { oversampling: 0.7, rounds: 4 },
                Init::KMeansParallel { oversampling: 3.0, rounds: 4 },
            ] {
                let mut expected = Vec::new();
                for at in 0..2 {
                    let (values, weights) = (&values[at * n * d..][..n * d], &weights[at * n..][..n]);
                    let points = &Points::new(values, d, Some(weights), metric);
                    let rng = &mut Rng::new(11, at as u64);
                    let rows = match init {
                        Init::KMeansParallel { oversampling, rounds } => {
                            parallel(points, k, oversampling, rounds, rng)
                        }
                        Init::KMeansPlusPlus => plus_plus(points, k, rng),
                        _ => random_rows(n, k, Some(weights), rng),
                    };
                    expected.extend(rows.iter().flat_map(|row| &values[row * d..][..d]));
                }
                metric.normalise::<f32>(&mut expected, d);
                assert_eq!(centroids(&init, &problem, (k, metric), 11).unwrap(), expected, "{init:?}");
            }
        }
    }
}
