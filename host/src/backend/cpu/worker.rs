//! Passes over chunks of points on all cores.
use super::assign::{Packed, assign_packed};
use super::update;
use crate::backend::totals::{Sums, Totals};
use crate::element::Element;
use crate::error::Result;
use crate::lloyd::{Found, Pass, Together, Worker, rounded};
use crate::memory::filled;
use crate::metric::Metric;
use crate::relocate::{Donor, Search};
use rayon::prelude::*;
use std::ops::Range;

/// Losses that are in memory at a time.
const LOSSES: usize = 1 << 16;

/// A pass over points on the CPU.
pub(crate) struct CpuWorker<'a, T: Element> {
    /// Points of the problem, here and in other processes.
    n: usize,
    d: usize,
    k: usize,
    metric: Metric,
    /// The problem's first point, in f64, at length 1 where centroids have it.
    origin: Vec<f64>,
    labels: Vec<u32>,
    /// One for each label, where points have weights.
    weights: Option<&'a [f64]>,
    totals: Totals,
    order: Vec<u32>,
    centroids: Vec<T::Centroid>,
    packed: Option<Packed<T::Centroid>>,
    pass: Pass,
    /// While points are looked for, and not labelled.
    search: Option<Search>,
}

impl<'a, T: Element> CpuWorker<'a, T> {
    /// For a problem of `n` points, `rows` of them here, with `weights` where there are some. The first of all points
    /// is `first`.
    pub(crate) fn new(
        n: usize,
        rows: usize,
        (k, metric): (usize, Metric),
        first: &[T],
        weights: Option<&'a [f64]>,
    ) -> Result<Self> {
        let d = first.len();
        Ok(CpuWorker {
            n,
            d,
            k,
            metric,
            origin: first.iter().map(|v| v.to_f64() * metric.scale(first)).collect(),
            // No label is this one, so the first assignment changes all of them.
            labels: filled(u32::MAX, rows, "the labels")?,
            weights,
            totals: Totals::new(k, d)?,
            order: Vec::new(),
            centroids: Vec::new(),
            packed: None,
            pass: Pass::LABELS,
            search: None,
        })
    }

    /// [`Worker::add`] of points that are in memory.
    pub(crate) fn add_points(&mut self, rows: Range<usize>, points: &[T]) {
        if self.search.is_some() {
            return self.look(rows, points);
        }
        let Some(packed) = &self.packed else { return };
        let (d, panel) = (self.d, self.panel_rows());
        let Sums { sums, counts, moments, inertia, changed, points: seen } = self.totals.parts();
        let mut first = rows.start;
        for (points, labels) in points.chunks(panel * d).zip(self.labels[rows].chunks_mut(panel)) {
            let weights = self.weights.map(|weights| &weights[first..][..labels.len()]);
            first += labels.len();
            let found = assign_packed(points, weights, &self.centroids, packed, labels);
            *inertia += found.inertia;
            *changed += found.changed as f64;
            *seen += labels.len() as f64;
            if self.pass.sums {
                let masses = update::masses(points, d, weights, self.metric);
                update::add_panel(points, labels, masses.as_deref(), (sums, counts), &mut self.order);
            }
            if self.pass.variance {
                update::add_moments(points, &self.origin, self.metric, moments);
            }
        }
    }

    /// Looks for points that are far from the centroids of their labels.
    fn look(&mut self, rows: Range<usize>, points: &[T]) {
        let Some(search) = &mut self.search else { return };
        let (d, metric, centroids) = (self.d, self.metric, &self.centroids);
        for (row, points) in rows.step_by(LOSSES).zip(points.chunks(LOSSES * d)) {
            let labels = &self.labels[row..][..points.len() / d];
            let loss = |(x, &label): (&[T], &u32)| match metric.scale(x) {
                0.0 => f64::NEG_INFINITY,
                _ => metric.loss(x, &centroids[label as usize * d..][..d]),
            };
            let losses: Vec<f64> = points.par_chunks_exact(d).zip(labels).map(loss).collect();
            for (at, (&label, loss)) in labels.iter().zip(losses).enumerate() {
                let weight = self.weights.map_or(1.0, |weights| weights[row + at]);
                search.offer(row + at, label, metric.mass(weight, loss), loss);
            }
        }
    }

    /// Rows of a panel: what the order of additions is made of, a function of `n`, `d` and `k` alone.
    pub(crate) fn panel_rows(&self) -> usize {
        update::panel_rows(self.n, self.d, self.k)
    }
}

impl<T: Element> Worker<T> for CpuWorker<'_, T> {
    type Buffer = Vec<T>;

    const EXACT_INERTIA: bool = true;

    fn buffer(&self, rows: usize) -> Result<Vec<T>> {
        filled(T::zeroed(), rows.saturating_mul(self.d), "a chunk of the points")
    }

    fn begin(&mut self, centroids: &[T::Centroid], pass: Pass) -> Result<()> {
        self.totals.clear();
        self.centroids = rounded::<T>(centroids);
        self.packed = Some(Packed::new(&self.centroids, self.d, self.metric));
        self.pass = pass;
        self.search = None;
        Ok(())
    }

    fn add(&mut self, rows: Range<usize>, points: Option<Vec<T>>, free: &mut Vec<Vec<T>>) -> Result<()> {
        if let Some(points) = points {
            self.add_points(rows.clone(), &points[..rows.len() * self.d]);
            free.push(points);
        }
        Ok(())
    }

    fn finish(
        &mut self,
        centroids: &mut [T::Centroid],
        together: &dyn Together,
        _free: &mut Vec<Vec<T>>,
    ) -> Result<Found> {
        self.totals.finish(self.pass, self.metric, centroids, together)
    }

    fn begin_search(&mut self, most: usize) -> Result<()> {
        self.search = Some(Search::new(most, self.k)?);
        Ok(())
    }

    fn end_search(&mut self, _free: &mut Vec<Vec<T>>) -> Result<Search> {
        self.search.take().map_or_else(|| Search::new(0, self.k), Ok)
    }

    fn sums(&self, clusters: &[Donor], _means: &[T::Centroid]) -> Result<Vec<f64>> {
        Ok(clusters.iter().flat_map(|donor| self.totals.sum(donor.cluster)).copied().collect())
    }

    fn into_labels(self) -> Result<Vec<u32>> {
        Ok(self.labels)
    }
}
