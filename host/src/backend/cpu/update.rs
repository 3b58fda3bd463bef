//! The sort-inverse update on the CPU: a counting sort of the labels, then each cluster's points summed in order.
use crate::element::{Element, Float};
use rayon::prelude::*;

/// Points that one task sums: fixed, so that the order of additions does not depend on the threads.
const STRETCH: usize = 4096;

/// New centroids in place of `centroids` (`k · d`), in f64 sums; an empty cluster keeps its centroid. Returns
/// `Σ_k ‖c_new − c_old‖²`.
pub(super) fn update<T: Element>(
    points: &[T],
    d: usize,
    labels: &[u32],
    centroids: &mut [T::Centroid],
    order: &mut Vec<u32>,
) -> f64 {
    let k = centroids.len() / d;
    let mut starts = vec![0usize; k + 1];
    for &label in labels {
        starts[label as usize + 1] += 1;
    }
    for cluster in 0..k {
        starts[cluster + 1] += starts[cluster];
    }
    let mut next = starts.clone();
    order.resize(labels.len(), 0);
    for (row, &label) in labels.iter().enumerate() {
        let place = &mut next[label as usize];
        order[*place] = row as u32;
        *place += 1;
    }

    let order = &*order;
    let starts = &starts;
    centroids
        .par_chunks_mut(d)
        .enumerate()
        .map(|(cluster, centroid)| {
            let rows = &order[starts[cluster]..starts[cluster + 1]];
            if rows.is_empty() {
                return 0.0;
            }
            let sum = total(points, d, rows);
            let mut moved = 0.0;
            for (c, sum) in centroid.iter_mut().zip(sum) {
                let new = T::Centroid::from_f64(sum / rows.len() as f64);
                moved += (new.to_f64() - c.to_f64()).powi(2);
                *c = new;
            }
            moved
        })
        .collect::<Vec<f64>>()
        .iter()
        .sum()
}

/// The sum of some rows; stretches of a large cluster in parallel, added in order.
fn total<T: Element>(points: &[T], d: usize, rows: &[u32]) -> Vec<f64> {
    let of_stretch = |rows: &[u32]| {
        let mut sum = vec![0.0f64; d];
        for &row in rows {
            for (sum, x) in sum.iter_mut().zip(&points[row as usize * d..][..d]) {
                *sum += x.to_f64();
            }
        }
        sum
    };
    if rows.len() <= STRETCH {
        return of_stretch(rows);
    }
    let parts: Vec<Vec<f64>> = rows.par_chunks(STRETCH).map(of_stretch).collect();
    parts.into_iter().fold(vec![0.0; d], |mut all, part| {
        all.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        all
    })
}

/// The mean over features of their variance, about the first row so that an offset does not cancel.
pub(super) fn mean_variance<T: Element>(points: &[T], n: usize, d: usize) -> f64 {
    let origin: Vec<f64> = points[..d].iter().map(|v| v.to_f64()).collect();
    let parts: Vec<(Vec<f64>, Vec<f64>)> = points
        .par_chunks(STRETCH * d)
        .map(|points| {
            let (mut first, mut second) = (vec![0.0f64; d], vec![0.0f64; d]);
            for x in points.chunks_exact(d) {
                for (feature, x) in x.iter().enumerate() {
                    let about = x.to_f64() - origin[feature];
                    first[feature] += about;
                    second[feature] += about * about;
                }
            }
            (first, second)
        })
        .collect();
    let of_feature = |feature: usize| {
        let first: f64 = parts.iter().map(|part| part.0[feature]).sum();
        let second: f64 = parts.iter().map(|part| part.1[feature]).sum();
        second / n as f64 - (first / n as f64).powi(2)
    };
    (0..d).map(of_feature).sum::<f64>() / d as f64
}
