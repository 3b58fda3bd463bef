//! The sort-inverse update on the CPU: a counting sort of the labels, then each cluster's points summed in order.
//!
//! Points come in panels, a number of rows that the problem's shape alone decides. Sums are over panels in order, so
//! their bits depend neither on the threads nor on how many panels are in memory at a time.
use crate::element::Element;
use crate::metric::Metric;
use rayon::prelude::*;
use std::borrow::Cow;

/// Points that one task sums: fixed, so that the order of additions does not depend on the threads.
const STRETCH: usize = 1024;
/// Values of a panel, where there are few clusters: it stays in the third-level cache between its assignment and
/// its sums.
const PANEL_VALUES: usize = 1 << 22;
/// Rows of a panel for each cluster, so that adding to the `k` sums is cheap beside reading the points.
const PANEL_ROWS_A_CLUSTER: usize = 4;

/// Rows of a panel of `n` points in `d` dimensions with `k` clusters: all but the last panel have as many.
pub(super) fn panel_rows(n: usize, d: usize, k: usize) -> usize {
    let rows = (PANEL_VALUES / d).max(k.saturating_mul(PANEL_ROWS_A_CLUSTER)).max(STRETCH);
    rows.checked_next_power_of_two().map_or(n, |rows| rows.min(n))
}

/// Adds the points of a panel, `labels.len()` of them, to the `k · d` sums and `k` counts of their clusters, each as
/// often as its weight says, where there are `weights`. `order` is memory that panels share.
pub(super) fn add_panel<T: Element>(
    points: &[T],
    labels: &[u32],
    weights: Option<&[f64]>,
    (sums, counts): (&mut [f64], &mut [f64]),
    order: &mut Vec<u32>,
) {
    let k = counts.len();
    let d = sums.len() / k;
    let mut starts = vec![0usize; k + 1];
    for &label in labels {
        starts[label as usize + 1] += 1;
    }
    for cluster in 0..k {
        if weights.is_none() {
            counts[cluster] += starts[cluster + 1] as f64;
        }
        starts[cluster + 1] += starts[cluster];
    }
    for (&label, weight) in labels.iter().zip(weights.unwrap_or(&[])) {
        counts[label as usize] += weight;
    }
    let mut next = starts.clone();
    order.resize(labels.len(), 0);
    for (row, &label) in labels.iter().enumerate() {
        let place = &mut next[label as usize];
        order[*place] = row as u32;
        *place += 1;
    }

    let (order, starts) = (&*order, &starts);
    sums.par_chunks_mut(d).enumerate().for_each(|(cluster, sum)| {
        let rows = &order[starts[cluster]..starts[cluster + 1]];
        if rows.len() <= STRETCH {
            return add_rows(points, weights, rows, sum);
        }
        let of_stretch = |rows: &[u32]| {
            let mut sum = vec![0.0; d];
            add_rows(points, weights, rows, &mut sum);
            sum
        };
        let parts: Vec<Vec<f64>> = rows.par_chunks(STRETCH).map(of_stretch).collect();
        for part in parts {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    });
}

/// How often each of `points` counts in the sums, where that is not once: the weights, divided by the points' lengths
/// for cosines.
pub(super) fn masses<'a, T: Element>(
    points: &[T],
    d: usize,
    weights: Option<&'a [f64]>,
    metric: Metric,
) -> Option<Cow<'a, [f64]>> {
    if metric != Metric::Cosine {
        return weights.map(Cow::Borrowed);
    }
    let scales = points.par_chunks_exact(d).map(|x| metric.scale(x));
    Some(match weights {
        None => scales.collect(),
        Some(weights) => scales.zip(weights).map(|(scale, weight)| weight * scale).collect(),
    })
}

fn add_rows<T: Element>(points: &[T], weights: Option<&[f64]>, rows: &[u32], sum: &mut [f64]) {
    let d = sum.len();
    for row in rows.iter().map(|&row| row as usize) {
        let point = sum.iter_mut().zip(&points[row * d..][..d]);
        match weights {
            None => point.for_each(|(sum, x)| *sum += x.to_f64()),
            Some(weights) => point.for_each(|(sum, x)| *sum += weights[row] * x.to_f64()),
        }
    }
}

/// Adds a panel to the `2 · d` first and second moments of its features about `origin`, a row of the points, so that an
/// offset does not cancel. Points are taken at length 1 where centroids have it.
pub(super) fn add_moments<T: Element>(points: &[T], origin: &[f64], metric: Metric, moments: &mut [f64]) {
    let d = origin.len();
    let of_stretch = |points: &[T]| {
        let mut moments = vec![0.0f64; 2 * d];
        let (first, second) = moments.split_at_mut(d);
        for x in points.chunks_exact(d) {
            let scale = metric.scale(x);
            for (feature, x) in x.iter().enumerate() {
                let about = x.to_f64() * scale - origin[feature];
                first[feature] += about;
                second[feature] += about * about;
            }
        }
        moments
    };
    let parts: Vec<_> = points.par_chunks(STRETCH * d).map(of_stretch).collect();
    for part in parts {
        moments.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
}
