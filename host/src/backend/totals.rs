//! What a pass adds up, in f64: what the processes of a job that fit one problem together add up, too.
use crate::element::Float;
use crate::error::Result;
use crate::lloyd::{Found, Pass, Together};
use crate::memory::filled;
use crate::metric::{Metric, length};
use crate::model::IterationStats;
use rayon::prelude::*;

/// The sums of a pass over points in `d` dimensions with `k` clusters.
pub(crate) struct Totals {
    k: usize,
    d: usize,
    /// Those of [`Sums`], one after the other.
    values: Vec<f64>,
}

/// What [`Totals`] are made of.
pub(crate) struct Sums<'a> {
    /// `k · d` sums of points, each as often as its weight says.
    pub(crate) sums: &'a mut [f64],
    /// `k` counts, or sums of weights.
    pub(crate) counts: &'a mut [f64],
    /// `2 · d` sums of features and of their squares, about the same row of the points in all processes.
    pub(crate) moments: &'a mut [f64],
    pub(crate) inertia: &'a mut f64,
    /// Labels that changed.
    pub(crate) changed: &'a mut f64,
    pub(crate) points: &'a mut f64,
}

impl Totals {
    /// Zeros.
    pub(crate) fn new(k: usize, d: usize) -> Result<Self> {
        Ok(Totals { k, d, values: filled(0.0, k * d + k + 2 * d + 3, "the sums of the clusters")? })
    }

    pub(crate) fn clear(&mut self) {
        self.values.fill(0.0);
    }

    pub(crate) fn parts(&mut self) -> Sums<'_> {
        let (sums, rest) = self.values.split_at_mut(self.k * self.d);
        let (counts, rest) = rest.split_at_mut(self.k);
        let (moments, rest) = rest.split_at_mut(2 * self.d);
        let (inertia, rest) = rest.split_at_mut(1);
        let (changed, points) = rest.split_at_mut(1);
        Sums {
            sums,
            counts,
            moments,
            inertia: &mut inertia[0],
            changed: &mut changed[0],
            points: &mut points[0],
        }
    }

    /// The sum of a cluster.
    pub(crate) fn sum(&self, cluster: usize) -> &[f64] {
        &self.values[cluster * self.d..][..self.d]
    }

    /// Ends the pass for all processes: see [`Worker::finish`](crate::lloyd::Worker::finish).
    pub(crate) fn finish<C: Float>(
        &mut self,
        pass: Pass,
        metric: Metric,
        centroids: &mut [C],
        together: &dyn Together,
    ) -> Result<Found> {
        // What a pass does not find stays zero, and is not sent.
        let from = match pass {
            Pass { sums: true, .. } => 0,
            Pass { variance: true, .. } => self.k * self.d + self.k,
            _ => self.k * self.d + self.k + 2 * self.d,
        };
        together.add_up(&mut self.values[from..])?;
        let Sums { sums, counts, moments, inertia, changed, points } = self.parts();
        let shift = if pass.sums { means(sums, counts, metric, centroids) } else { 0.0 };
        let mean_variance = if pass.variance { mean_variance(moments, *points) } else { 0.0 };
        let stats = IterationStats { inertia: *inertia, changed: *changed as u64, shift };
        let empty = if pass.empty { counts.iter().filter(|&&count| count == 0.0).count() } else { 0 };
        Ok(Found { stats, mean_variance, empty })
    }
}

/// Puts the means, or the sums at length 1, in place of `centroids`, `k · d` values; a cluster without points or weight, or
/// with a sum of zeros that has no length, keeps its centroid. Returns `Σ_k ‖c_new − c_old‖²`.
fn means<C: Float>(sums: &[f64], counts: &[f64], metric: Metric, centroids: &mut [C]) -> f64 {
    let d = sums.len() / counts.len();
    centroids
        .par_chunks_mut(d)
        .zip(sums.par_chunks(d).zip(counts))
        .map(|(centroid, (sums, &count))| {
            let by = if metric.is_spherical() { length(sums.iter().copied()) } else { count };
            if by == 0.0 {
                return 0.0;
            }
            let mut moved = 0.0;
            for (c, sum) in centroid.iter_mut().zip(sums) {
                let new = C::from_f64(sum / by);
                moved += (new.to_f64() - c.to_f64()).powi(2);
                *c = new;
            }
            moved
        })
        .collect::<Vec<f64>>()
        .iter()
        .sum()
}

/// The mean over features of the variance of `n` points with these moments.
pub(crate) fn mean_variance(moments: &[f64], n: f64) -> f64 {
    let (first, second) = moments.split_at(moments.len() / 2);
    let variances = first.iter().zip(second).map(|(first, second)| second / n - (first / n).powi(2));
    variances.sum::<f64>() / first.len() as f64
}
