//! The sort-inverse update on the CPU: a counting sort of the labels, then each cluster's points summed in order.
//!
//! Points come in panels, a number of rows that the problem's shape alone decides. Sums are over panels in order, so
//! their bits depend neither on the threads nor on how many panels are in memory at a time.
use crate::element::{Element, Float};
use rayon::prelude::*;

/// Points that one task sums: fixed, so that the order of additions does not depend on the threads.
const STRETCH: usize = 1024;
/// Values of a panel, where there are few clusters: it stays in the third-level cache between its assignment and
/// its sums.
const PANEL_VALUES: usize = 1 << 22;
/// Rows of a panel for each cluster, so that adding to the `k` sums is cheap beside reading the points.
const PANEL_ROWS_A_CLUSTER: usize = 4;

/// Rows of a panel of `n` points in `d` dimensions with `k` clusters: all but the last panel have as many.
pub(crate) fn panel_rows(n: usize, d: usize, k: usize) -> usize {
    let rows = (PANEL_VALUES / d).max(k.saturating_mul(PANEL_ROWS_A_CLUSTER)).max(STRETCH);
    rows.checked_next_power_of_two().map_or(n, |rows| rows.min(n))
}

/// The points of each cluster, added up in f64.
#[derive(Debug)]
pub(crate) struct Sums {
    /// `k · d` sums.
    sums: Vec<f64>,
    /// Points in each cluster.
    counts: Vec<u64>,
    d: usize,
    /// The panel's rows, sorted by label; memory that panels share.
    order: Vec<u32>,
}

impl Sums {
    pub(crate) fn new(k: usize, d: usize) -> Self {
        Sums { sums: vec![0.0; k * d], counts: vec![0; k], d, order: Vec::new() }
    }

    pub(crate) fn clear(&mut self) {
        self.sums.fill(0.0);
        self.counts.fill(0);
    }

    /// Adds the next panel: `labels.len()` points.
    pub(crate) fn add_panel<T: Element>(&mut self, points: &[T], labels: &[u32]) {
        let (k, d) = (self.counts.len(), self.d);
        let mut starts = vec![0usize; k + 1];
        for &label in labels {
            starts[label as usize + 1] += 1;
        }
        for cluster in 0..k {
            self.counts[cluster] += starts[cluster + 1] as u64;
            starts[cluster + 1] += starts[cluster];
        }
        let mut next = starts.clone();
        self.order.resize(labels.len(), 0);
        for (row, &label) in labels.iter().enumerate() {
            let place = &mut next[label as usize];
            self.order[*place] = row as u32;
            *place += 1;
        }

        let (order, starts) = (&self.order, &starts);
        self.sums.par_chunks_mut(d).enumerate().for_each(|(cluster, sum)| {
            let rows = &order[starts[cluster]..starts[cluster + 1]];
            if rows.len() <= STRETCH {
                return add_rows(points, rows, sum);
            }
            let of_stretch = |rows: &[u32]| {
                let mut sum = vec![0.0; d];
                add_rows(points, rows, &mut sum);
                sum
            };
            let parts: Vec<Vec<f64>> = rows.par_chunks(STRETCH).map(of_stretch).collect();
            for part in parts {
                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            }
        });
    }

    /// Puts the means in place of `centroids`, `k · d` values; an empty cluster keeps its centroid. Returns
    /// `Σ_k ‖c_new − c_old‖²`.
    pub(crate) fn finish<C: Float>(&self, centroids: &mut [C]) -> f64 {
        let clusters = self.sums.par_chunks(self.d).zip(&self.counts);
        centroids
            .par_chunks_mut(self.d)
            .zip(clusters)
            .map(|(centroid, (sums, &count))| {
                if count == 0 {
                    return 0.0;
                }
                let mut moved = 0.0;
                for (c, sum) in centroid.iter_mut().zip(sums) {
                    let new = C::from_f64(sum / count as f64);
                    moved += (new.to_f64() - c.to_f64()).powi(2);
                    *c = new;
                }
                moved
            })
            .collect::<Vec<f64>>()
            .iter()
            .sum()
    }
}

fn add_rows<T: Element>(points: &[T], rows: &[u32], sum: &mut [f64]) {
    let d = sum.len();
    for &row in rows {
        for (sum, x) in sum.iter_mut().zip(&points[row as usize * d..][..d]) {
            *sum += x.to_f64();
        }
    }
}

/// First and second moments of each feature, about a row so that an offset does not cancel.
#[derive(Debug)]
pub(crate) struct Moments {
    origin: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Moments {
    /// About `row`, which is to be the first of the points.
    pub(crate) fn about<T: Element>(row: &[T]) -> Self {
        let zeros = vec![0.0; row.len()];
        Moments { origin: row.iter().map(|v| v.to_f64()).collect(), first: zeros.clone(), second: zeros }
    }

    /// Adds the next panel.
    pub(crate) fn add_panel<T: Element>(&mut self, points: &[T]) {
        let d = self.origin.len();
        let of_stretch = |points: &[T]| {
            let (mut first, mut second) = (vec![0.0f64; d], vec![0.0f64; d]);
            for x in points.chunks_exact(d) {
                for (feature, x) in x.iter().enumerate() {
                    let about = x.to_f64() - self.origin[feature];
                    first[feature] += about;
                    second[feature] += about * about;
                }
            }
            (first, second)
        };
        let parts: Vec<_> = points.par_chunks(STRETCH * d).map(of_stretch).collect();
        for (first, second) in parts {
            self.first.iter_mut().zip(first).for_each(|(sum, part)| *sum += part);
            self.second.iter_mut().zip(second).for_each(|(sum, part)| *sum += part);
        }
    }

    /// The mean over features of the variance of all `n` points.
    pub(crate) fn mean_variance(&self, n: usize) -> f64 {
        let features = self.first.iter().zip(&self.second);
        let variances = features.map(|(first, second)| second / n as f64 - (first / n as f64).powi(2));
        variances.sum::<f64>() / self.origin.len() as f64
    }
}
