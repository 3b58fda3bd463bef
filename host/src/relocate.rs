//! Clusters without points, which are given the points farthest from their centroids.
use crate::element::{Element, Float};
use crate::error::Result;
use crate::lloyd::{Feed, Worker};
use crate::memory::filled;
use crate::metric::{Metric, length};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

/// Where less than this share of a cluster's weight stays, what a subtraction leaves of its sum may be rounding: it stays at
/// the centroid that it had.
const LEAST_SHARE: f64 = 1.0 / (1 << 20) as f64;

/// A point, its cluster and how far it is from that one's centroid. The greatest is the farthest, of equally far ones
/// the first.
#[derive(Clone, Copy, Debug)]
struct Far {
    loss: f64,
    row: usize,
    cluster: usize,
    mass: f64,
}

impl Ord for Far {
    fn cmp(&self, other: &Self) -> Ordering {
        self.loss.total_cmp(&other.loss).then(other.row.cmp(&self.row))
    }
}
impl PartialOrd for Far {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Far {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Far {}

/// A cluster that points are taken from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Donor {
    pub(crate) cluster: usize,
    /// Its points.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "of a GPU's mean it makes a sum"))]
    pub(crate) count: u64,
    /// Their weight.
    pub(crate) mass: f64,
}

/// The points that are farthest from their centroids, but for the nearest one of each cluster, which it keeps. What is
/// found does not depend on the order in which points come.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    most: usize,
    taken: BinaryHeap<Reverse<Far>>,
    /// Of each cluster.
    kept: Vec<Option<Far>>,
    masses: Vec<f64>,
    counts: Vec<u64>,
    least_loss: f64,
}

impl Search {
    /// For `most` points among those of `k` clusters.
    pub(crate) fn new(most: usize, k: usize) -> Result<Self> {
        Ok(Search {
            most,
            taken: BinaryHeap::new(),
            kept: filled(None, k, "the nearest point of each cluster")?,
            masses: filled(0.0, k, "the weights of the clusters")?,
            counts: filled(0, k, "the sizes of the clusters")?,
            least_loss: f64::INFINITY,
        })
    }

    /// Looks at a point of a cluster: how often it counts in the mean, and its loss, `-∞` for one that can be nobody's
    /// centroid.
    pub(crate) fn offer(&mut self, row: usize, cluster: u32, mass: f64, loss: f64) {
        let cluster = cluster as usize;
        self.masses[cluster] += mass;
        self.counts[cluster] += 1;
        if mass == 0.0 || loss == f64::NEG_INFINITY {
            return;
        }
        self.least_loss = self.least_loss.min(loss);
        let mut far = Far { loss, row, cluster, mass };
        match &mut self.kept[cluster] {
            Some(kept) if far < *kept => std::mem::swap(kept, &mut far),
            Some(_) => {}
            none => {
                *none = Some(far);
                return;
            }
        }
        if self.taken.len() < self.most {
            self.taken.push(Reverse(far));
        } else if let Some(mut nearest) = self.taken.peek_mut()
            && nearest.0 < far
        {
            *nearest = Reverse(far);
        }
    }

    /// The points to move, farthest first: none where all are where their centroids are, or by a product equally far.
    fn taken(&mut self, metric: Metric) -> Vec<Far> {
        let taken: Vec<Far> =
            std::mem::take(&mut self.taken).into_sorted_vec().into_iter().map(|far| far.0).collect();
        let nothing = match metric {
            Metric::Euclidean | Metric::Cosine => 0.0,
            Metric::Dot | Metric::SphericalDot => self.least_loss,
        };
        if taken.first().is_none_or(|far| far.loss <= nothing) { Vec::new() } else { taken }
    }
}

/// Puts the points that were found in place of the centroids of clusters without points, in rising order, and takes them
/// out of the means of the clusters that they are from. `means` are an iteration's, of `k` clusters in `d` dimensions, and
/// `before` what they were; returns how far the centroids moved in all, or `None` where nothing was to be done.
pub(crate) fn relocate<T: Element, W: Worker<T>>(
    worker: &W,
    feed: &mut dyn Feed<T, W>,
    mut search: Search,
    (d, metric): (usize, Metric),
    before: &[T::Centroid],
    means: &mut [T::Centroid],
) -> Result<Option<f64>> {
    let taken = search.taken(metric);
    let is_empty = |(_, mass): &(usize, &f64)| **mass == 0.0;
    let empty = search.masses.iter().enumerate().filter(is_empty).map(|(cluster, _)| cluster);
    let moves: Vec<(usize, Far)> = empty.zip(taken).collect();
    if moves.is_empty() {
        return Ok(None);
    }
    let mut rows: Vec<usize> = moves.iter().map(|(_, far)| far.row).collect();
    rows.sort_unstable();
    let mut points = filled(T::zeroed(), rows.len().saturating_mul(d), "points far from their centroids")?;
    feed.read(&rows, &mut points)?;
    let point = |row: usize| {
        let at = rows.binary_search(&row).unwrap_or(0);
        let x = &points[at * d..][..d];
        (x, metric.scale(x))
    };

    let mut donors = BTreeMap::<usize, Vec<Far>>::new();
    for (_, far) in &moves {
        donors.entry(far.cluster).or_default().push(*far);
    }
    let donor =
        |&cluster: &usize| Donor { cluster, count: search.counts[cluster], mass: search.masses[cluster] };
    let clusters: Vec<Donor> = donors.keys().map(donor).collect();
    let mut sums = worker.sums(&clusters, means)?;
    for ((sum, donor), taken) in sums.chunks_exact_mut(d).zip(clusters).zip(donors.values()) {
        let Donor { cluster, mass, .. } = donor;
        let rest = mass - taken.iter().map(|far| far.mass).sum::<f64>();
        if rest < LEAST_SHARE * mass {
            means[cluster * d..][..d].copy_from_slice(&before[cluster * d..][..d]);
            continue;
        }
        for far in taken {
            let (x, scale) = point(far.row);
            let by = if metric == Metric::Cosine { far.mass * scale } else { far.mass };
            sum.iter_mut().zip(x).for_each(|(sum, x)| *sum -= by * x.to_f64());
        }
        let by = if metric.is_spherical() { length(sum.iter().copied()) } else { rest };
        if by > 0.0 {
            means[cluster * d..][..d]
                .iter_mut()
                .zip(sum)
                .for_each(|(mean, sum)| *mean = Float::from_f64(*sum / by));
        }
    }
    for (cluster, far) in moves {
        let (x, scale) = point(far.row);
        means[cluster * d..][..d]
            .iter_mut()
            .zip(x)
            .for_each(|(mean, x)| *mean = Float::from_f64(x.to_f64() * scale));
    }
    let moved = |(after, before): (&[T::Centroid], &[T::Centroid])| -> f64 {
        after.iter().zip(before).map(|(after, before)| (after.to_f64() - before.to_f64()).powi(2)).sum()
    };
    Ok(Some(means.chunks_exact(d).zip(before.chunks_exact(d)).map(moved).sum()))
}
