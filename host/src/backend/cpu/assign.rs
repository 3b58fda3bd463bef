//! FlashAssign on the CPU: scores in a register tile, folded into the nearest centroid at once, never an N×K matrix.
//!
//! # Exactness
//! Points and centroids are taken about a common centre `m` (the mean of most centroids), `x' = x − m` and
//! `c' = c − m`, so that an offset of the data does not cancel. With `u` the unit of the compute type, `r` the
//! roundings of a product and its addition, and `C` the largest `‖c'‖`:
//!
//! - rounding `x'` and `c'` moves `x'·c'` by at most `2u·‖x'‖C` (and a second-order term);
//! - the bias `½‖c − m‖²` is rounded once: `u·½C²`;
//! - `d` additions to a sum that starts at the bias err by at most `r·d·u·(‖x'‖C + ½C²)`.
//!
//! So a score is within `e = (r·d + 3)·u·(‖x'‖C + ½C²)` of the true one, and two that differ by more than `2e` are in
//! the right order. For the few points whose best two are closer, distances to all centroids are computed in f64.
//!
//! Of products, `x·c` and `x·(c − m)` have the same order: `x' = x` and `c' = c − m` then, the bias is 0, and so is the
//! second term of the error.
//!
//! Where the machine can, a pass in 16-bit integers ([`super::screen`]) goes first: it leaves one centroid, a few that
//! are then compared in f64, or, for data that integers do not fit, the point as it was.
use super::distance::{distance, product};
use super::screen::{self, Screen, Verdict};
use super::tile::{Compute, Lanes, MAX_LANES, Panel, Tile};
use crate::element::{Element, Float};
use crate::metric::Metric;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Points that a task has packed at a time, a multiple of every tile's: they stay in the second-level cache while
/// the panels of centroids, each in the first, go by.
const BLOCK: usize = 96;

/// Centroids as the tiles want them; made once an iteration.
pub(super) struct Packed<C> {
    tile: Tile<C>,
    metric: Metric,
    /// What points are taken about: the centre, or zeros for products.
    centre: Vec<C>,
    /// The largest norm of a centroid about zero.
    longest: f64,
    /// `[panel][feature][column]`.
    centroids: Vec<C>,
    /// `[panel][column]`.
    biases: Vec<C>,
    norms: Norms,
    d: usize,
    screen: Option<Screen>,
    /// Points that the pass in integers has seen, and those of them that it left open.
    seen: AtomicU64,
    open: AtomicU64,
}

impl<C: Float> Packed<C> {
    /// Packs `k · d` centroids.
    pub(super) fn new(centroids: &[C], d: usize, metric: Metric) -> Self {
        let k = centroids.len() / d;
        let tile = C::tile();
        let columns = tile.centroids();
        let panels = k.div_ceil(columns);
        let centre = centre(centroids, d);
        let mut packed = vec![C::default(); panels * d * columns];
        let about: Vec<C> =
            centroids.chunks_exact(d).flat_map(|c| c.iter().zip(&centre).map(|(&c, &m)| c - m)).collect();
        let mut biases = vec![C::NEG_INFINITY; panels * columns];
        let mut norms = Vec::with_capacity(k);
        for (index, (c, about)) in centroids.chunks_exact(d).zip(about.chunks_exact(d)).enumerate() {
            let panel = &mut packed[index / columns * d * columns..][..d * columns];
            for (feature, &c) in about.iter().enumerate() {
                panel[feature * columns + index % columns] = c;
            }
            let norm: f64 = c.iter().zip(&centre).map(|(c, m)| (c.to_f64() - m.to_f64()).powi(2)).sum();
            biases[index] = if metric.is_product() { C::default() } else { C::from_f64(-0.5 * norm) };
            norms.push(norm.sqrt());
        }
        let norms = Norms { sorted: sorted(norms), metric };
        let screen = C::as_f32(&about).and_then(|about| Screen::new(about, d, &norms));
        let (seen, open) = (AtomicU64::new(0), AtomicU64::new(0));
        let longest = centroids.chunks_exact(d).map(|c| product(c, c)).fold(0.0, f64::max).sqrt();
        let centre = if metric.is_product() { vec![C::default(); d] } else { centre };
        Packed { tile, metric, centre, longest, centroids: packed, biases, norms, d, screen, seen, open }
    }

    fn panels(&self) -> impl Iterator<Item = Panel<'_, C>> {
        let columns = self.tile.centroids();
        let chunks = self.centroids.chunks_exact(self.d * columns).zip(self.biases.chunks_exact(columns));
        chunks.enumerate().map(move |(panel, (centroids, biases))| Panel {
            centroids,
            biases,
            first: (panel * columns) as u32,
        })
    }

    /// The pass in integers, unless it has left many points open. Whether it runs changes no result.
    fn screen(&self) -> Option<&Screen> {
        let (seen, open) = (self.seen.load(Ordering::Relaxed), self.open.load(Ordering::Relaxed));
        self.screen.as_ref().filter(|_| seen < 16 * BLOCK as u64 || open < seen / 4)
    }

    /// Twice the error of a score of a point with this `‖x'‖`: infinite where any score may have overflowed, for
    /// then even a score that did not is no evidence against one that did.
    fn bound(&self, norm: f64) -> f64 {
        let largest = self.norms.within_reach(norm);
        let of_bias = if self.metric.is_product() { 0.0 } else { 0.5 * largest * largest };
        let scale = norm * largest + of_bias;
        if !C::from_f64(2.0 * scale).is_finite() || !C::from_f64(2.0 * largest).is_finite() {
            return f64::INFINITY;
        }
        let error = (self.tile.roundings * self.d as f64 + 3.0) * C::UNIT * scale;
        // A twentieth for second-order terms and the rounding of all this; the least normal f32, for underflow.
        2.1 * error + 1e-37
    }
}

/// The mean of the centroids, but for those that lie far out: they would draw it away from where most points are.
fn centre<C: Float>(centroids: &[C], d: usize) -> Vec<C> {
    let mean = |taken: &dyn Fn(usize) -> bool| -> Vec<f64> {
        let rows = || centroids.chunks_exact(d).enumerate().filter(|&(row, _)| taken(row));
        let count = rows().count() as f64;
        let mut mean = vec![0.0f64; d];
        for (_, c) in rows() {
            mean.iter_mut().zip(c).for_each(|(sum, c)| *sum += c.to_f64() / count);
        }
        mean
    };
    let all = mean(&|_| true);
    let apart = |c: &[C]| c.iter().zip(&all).map(|(c, m)| (c.to_f64() - m).powi(2)).sum::<f64>().sqrt();
    let distances: Vec<f64> = centroids.chunks_exact(d).map(apart).collect();
    let common = Norms { sorted: sorted(distances.clone()), metric: Metric::Euclidean }.common();
    let most = mean(&|row| distances[row] <= common);
    let centre = if most.iter().all(|m| m.is_finite()) { most } else { all };
    centre.into_iter().map(C::from_f64).collect()
}

/// The centroids' norms about the centre, in order.
pub(super) struct Norms {
    sorted: Vec<f64>,
    metric: Metric,
}

fn sorted(mut norms: Vec<f64>) -> Vec<f64> {
    norms.sort_by(f64::total_cmp);
    norms
}

impl Norms {
    /// Whether scores are products alone, without a bias.
    pub(super) fn are_of_products(&self) -> bool {
        self.metric.is_product()
    }

    /// How far out a centroid may be and matter to a point of norm `X`: `4(X + m)`, with `m` the smallest norm. One
    /// further out, at `R`, has a score under `−R²/4` and the innermost one a score over `−3R²/32`: no error of the
    /// scores makes up for that. Products are the larger the further out a centroid is.
    pub(super) fn reach(&self, norm: f64) -> f64 {
        if self.are_of_products() {
            return f64::INFINITY;
        }
        4.0 * (norm + self.sorted.first().copied().unwrap_or(0.0))
    }

    /// The largest norm that matters to a point of this norm: a few centroids far out must not cost all points their
    /// certainty. NaN where norms are.
    pub(super) fn within_reach(&self, norm: f64) -> f64 {
        let reach = self.reach(norm);
        let within = self.sorted.partition_point(|&c| c <= reach);
        let outermost = self.sorted.last().copied().unwrap_or(0.0);
        if reach.is_nan() || outermost.is_nan() {
            f64::NAN
        } else {
            within.checked_sub(1).map_or(0.0, |at| self.sorted[at])
        }
    }

    /// The norm that few centroids exceed by much, a multiple of the median; for products the largest.
    pub(super) fn common(&self) -> f64 {
        const MEDIANS: f64 = 16.0;
        let median = self.sorted[self.sorted.len() / 2];
        let limit = if self.are_of_products() { f64::MAX } else { MEDIANS * median };
        self.sorted.iter().rev().copied().find(|&norm| norm <= limit).unwrap_or(f64::NAN)
    }
}

/// What an assignment found beside the labels.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// Weighted sum of what the metric says that points add, from its definition.
    pub(super) inertia: f64,
    /// Labels that changed.
    pub(super) changed: u64,
}

/// Labels of `labels.len()` points under `centroids`, exact, and what changed.
pub(super) fn assign<T: Element>(
    points: &[T],
    d: usize,
    centroids: &[T::Centroid],
    metric: Metric,
    labels: &mut [u32],
) -> Found {
    assign_packed(points, None, centroids, &Packed::new(centroids, d, metric), labels)
}

/// [`assign`] of some of the points, with `weights` where there are some: `packed` are the `centroids`, made once for
/// all points.
pub(super) fn assign_packed<T: Element>(
    points: &[T],
    weights: Option<&[f64]>,
    centroids: &[T::Centroid],
    packed: &Packed<T::Centroid>,
    labels: &mut [u32],
) -> Found {
    // Blocks are those of the shape alone and are added in order: the sum's bits do not depend on the threads.
    let found: Vec<Found> = labels
        .par_chunks_mut(BLOCK)
        .zip(points.par_chunks(BLOCK * packed.d))
        .enumerate()
        .map_init(Scratch::default, |scratch, (block, (labels, points))| {
            let weights = weights.map(|weights| &weights[block * BLOCK..][..labels.len()]);
            assign_block(points, weights, centroids, packed, labels, scratch)
        })
        .collect();
    found.iter().fold(Found::default(), |sum, block| Found {
        inertia: sum.inertia + block.inertia,
        changed: sum.changed + block.changed,
    })
}

/// A task's memory.
struct Scratch<C> {
    /// A point about the centre.
    about: Vec<C>,
    /// `[row][pair of features]`.
    integers: Vec<[i16; 2]>,
    /// `[tile][feature][point]`.
    points: Vec<C>,
    screened: Vec<Lanes<f32>>,
    nearest: Vec<Lanes<C>>,
    /// Rows that the pass in integers has left open.
    open: Vec<usize>,
}

impl<C> Default for Scratch<C> {
    fn default() -> Self {
        Scratch {
            about: Vec::new(),
            integers: Vec::new(),
            points: Vec::new(),
            screened: Vec::new(),
            nearest: Vec::new(),
            open: Vec::new(),
        }
    }
}

fn assign_block<T: Element>(
    points: &[T],
    weights: Option<&[f64]>,
    centroids: &[T::Centroid],
    packed: &Packed<T::Centroid>,
    labels: &mut [u32],
    scratch: &mut Scratch<T::Centroid>,
) -> Found {
    let d = packed.d;
    let mut found = Found::default();
    let mut take = |label: &mut u32, row: usize, nearest: u32| {
        found.changed += u64::from(*label != nearest);
        // From its definition, whatever pass found the label: the sum's bits do not depend on that.
        let c = &centroids[nearest as usize * d..][..d];
        let loss = packed.metric.loss(&points[row * d..][..d], c);
        found.inertia += weights.map_or(loss, |weights| weights[row] * loss);
        *label = nearest;
    };
    let screen = packed.screen();
    match screen {
        Some(screen) => {
            screen_block(points, centroids, packed, screen, scratch);
            packed.seen.fetch_add(labels.len() as u64, Ordering::Relaxed);
            packed.open.fetch_add(scratch.open.len() as u64, Ordering::Relaxed);
        }
        None => {
            scratch.open.clear();
            scratch.open.extend(0..labels.len());
        }
    }
    let open = std::mem::take(&mut scratch.open);
    nearest_by_tiles(points, packed, &open, scratch);
    let mut slots = open.iter().enumerate().peekable();
    for (row, label) in labels.iter_mut().enumerate() {
        let nearest = match slots.next_if(|&(_, &open)| open == row) {
            Some((slot, _)) => settle(&points[row * d..][..d], centroids, packed, &scratch.nearest[slot]),
            None => scratch.screened[row].label[0],
        };
        take(label, row, nearest);
    }
    scratch.open = open;
    found
}

/// Labels by the pass in integers, left in the first lane of `screened`; rows that it could not decide in `open`.
fn screen_block<T: Element>(
    points: &[T],
    centroids: &[T::Centroid],
    packed: &Packed<T::Centroid>,
    screen: &Screen,
    scratch: &mut Scratch<T::Centroid>,
) {
    let (d, pairs) = (packed.d, screen.pairs());
    let rows = points.len() / d;
    let tiles = rows.div_ceil(screen::POINTS);
    scratch.integers.resize(tiles * screen::POINTS * pairs, [0; 2]);
    scratch.screened.clear();
    scratch.screened.resize(tiles * screen::POINTS, Lanes::NONE);
    scratch.open.clear();
    let mut known = [screen::Point::default(); BLOCK];
    for (row, x) in points.chunks_exact(d).enumerate() {
        scratch.about.clear();
        scratch.about.extend(x.iter().zip(&packed.centre).map(|(x, &m)| x.to_centroid() - m));
        if let Some(about) = T::Centroid::as_f32(&scratch.about) {
            known[row] = screen.pack(about, &packed.norms, &mut scratch.integers[row * pairs..][..pairs]);
        }
    }
    for panel in 0..screen.panels() {
        let tiles =
            scratch.integers.chunks_exact(screen::POINTS * pairs).zip(known.chunks_exact(screen::POINTS));
        for ((integers, known), nearest) in tiles.zip(scratch.screened.chunks_exact_mut(screen::POINTS)) {
            screen.fold(integers, known, nearest, panel);
        }
    }
    for row in 0..rows {
        let lanes = &mut scratch.screened[row];
        match screen::verdict(known[row], lanes) {
            Verdict::Sure(label) => lanes.label[0] = label,
            Verdict::OneOf(labels, count) => {
                let x = &points[row * d..][..d];
                lanes.label[0] = nearest_f64(x, centroids, packed, labels[..count].iter().copied());
            }
            Verdict::Open => scratch.open.push(row),
        }
    }
}

/// Scores of some rows against all centroids, in the centroids' type: one entry of `nearest` a row, in their order.
fn nearest_by_tiles<T: Element>(
    points: &[T],
    packed: &Packed<T::Centroid>,
    rows: &[usize],
    scratch: &mut Scratch<T::Centroid>,
) {
    let (d, of_tile) = (packed.d, packed.tile.points);
    let tiles = rows.len().div_ceil(of_tile);
    scratch.points.clear();
    scratch.points.resize(tiles * of_tile * d, T::Centroid::default());
    scratch.nearest.clear();
    scratch.nearest.resize(tiles * of_tile, Lanes::NONE);
    for (slot, &row) in rows.iter().enumerate() {
        let tile = &mut scratch.points[slot / of_tile * of_tile * d..][..of_tile * d];
        for (feature, (x, &m)) in points[row * d..][..d].iter().zip(&packed.centre).enumerate() {
            tile[feature * of_tile + slot % of_tile] = x.to_centroid() - m;
        }
    }
    for panel in packed.panels() {
        let tiles = scratch.points.chunks_exact(of_tile * d).zip(scratch.nearest.chunks_exact_mut(of_tile));
        for (tile, nearest) in tiles {
            packed.tile.fold(&panel, tile, nearest);
        }
    }
}

/// The label that a point's scores show, or f64 where they leave a doubt.
fn settle<T: Element>(
    x: &[T],
    centroids: &[T::Centroid],
    packed: &Packed<T::Centroid>,
    lanes: &Lanes<T::Centroid>,
) -> u32 {
    let (mut best, mut second, mut nearest) = (f64::NEG_INFINITY, f64::NEG_INFINITY, u32::MAX);
    for lane in 0..packed.tile.lanes.min(MAX_LANES) {
        let (score, runner_up) = (lanes.best[lane].to_f64(), lanes.second[lane].to_f64());
        if score > best {
            second = second.max(best).max(runner_up);
            (best, nearest) = (score, lanes.label[lane].wrapping_add(lane as u32));
        } else {
            second = second.max(score);
        }
    }
    let about = x.iter().zip(&packed.centre).map(|(x, m)| (x.to_f64() - m.to_f64()).powi(2));
    let norm = about.sum::<f64>().sqrt();
    // Written so that infinities and NaN, from values near the largest, are not sure.
    if best - second > packed.bound(norm) && best.is_finite() {
        return nearest;
    }
    nearest_f64(x, centroids, packed, 0..(centroids.len() / x.len()) as u32)
}

/// The nearest of some centroids by `Σ (x − c)²`, or by `Σ x·c`, in f64 with the features in order, the lowest index among
/// equals. That is the definition, which every backend follows to the bit.
fn nearest_f64<T: Element>(
    x: &[T],
    centroids: &[T::Centroid],
    packed: &Packed<T::Centroid>,
    candidates: impl Iterator<Item = u32> + Clone,
) -> u32 {
    let by = |rank: fn(&[T], &[T::Centroid]) -> f64| {
        let (mut nearest, mut second) = ((u32::MAX, f64::INFINITY), f64::INFINITY);
        for index in candidates.clone() {
            let rank = rank(x, &centroids[index as usize * x.len()..][..x.len()]);
            if (rank, index) < (nearest.1, nearest.0) {
                second = nearest.1;
                nearest = (index, rank);
            } else {
                second = second.min(rank);
            }
        }
        (nearest, second)
    };
    // Several sums at a time are quicker; only where their rounding could decide does the order matter.
    let relative = (2 * x.len() + 12) as f64 * f64::EPSILON;
    if packed.metric.is_product() {
        let (nearest, second) = by(|x, c| -product(x, c));
        let rounding = relative * product(x, x).sqrt() * packed.longest;
        return if second - nearest.1 > rounding {
            nearest.0
        } else {
            by(|x, c| -product_in_order(x, c)).0.0
        };
    }
    let (nearest, second) = by(distance);
    if second - nearest.1 > relative * second { nearest.0 } else { by(distance_in_order).0.0 }
}

fn distance_in_order<T: Element>(x: &[T], c: &[T::Centroid]) -> f64 {
    x.iter().zip(c).map(|(x, c)| (x.to_f64() - c.to_f64()).powi(2)).sum()
}

fn product_in_order<T: Element>(x: &[T], c: &[T::Centroid]) -> f64 {
    x.iter().zip(c).map(|(x, c)| x.to_f64() * c.to_f64()).sum()
}
