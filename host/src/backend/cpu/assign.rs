//! FlashAssign on the CPU: scores in a register tile, folded into the nearest centroid at once, never an N×K matrix.
//!
//! # Exactness
//! Points and centroids are taken about a common centre `m` (the mean of the centroids), `x' = x − m` and
//! `c' = c − m`, so that an offset of the data does not cancel. With `u` the unit of the compute type, `r` the
//! roundings of a product and its addition, and `C` the largest `‖c'‖`:
//!
//! - rounding `x'` and `c'` moves `x'·c'` by at most `2u·‖x'‖C` (and a second-order term);
//! - the bias `½‖c − m‖²` is rounded once: `u·½C²`;
//! - `d` additions to a sum that starts at the bias err by at most `r·d·u·(‖x'‖C + ½C²)`.
//!
//! So a score is within `e = (r·d + 3)·u·(‖x'‖C + ½C²)` of the true one, and two that differ by more than `2e` are in
//! the right order. For the few points whose best two are closer, distances to all centroids are computed in f64.
use super::tile::{Lanes, MAX_LANES, Panel, Tile};
use crate::element::{Element, Float};
use rayon::prelude::*;

/// Points that a task has packed at a time, a multiple of every tile's: they stay in the second-level cache while
/// the panels of centroids, each in the first, go by.
const BLOCK: usize = 96;

/// Centroids as the tiles want them; made once an iteration.
pub(super) struct Packed<C> {
    tile: Tile<C>,
    centre: Vec<C>,
    /// `[panel][feature][column]`.
    centroids: Vec<C>,
    /// `[panel][column]`.
    biases: Vec<C>,
    /// Largest `‖c'‖`.
    largest: f64,
    d: usize,
}

impl<C: Float> Packed<C> {
    /// Packs `k · d` centroids.
    pub(super) fn new(centroids: &[C], d: usize) -> Self {
        let k = centroids.len() / d;
        let tile = C::tile();
        let columns = tile.centroids();
        let panels = k.div_ceil(columns);
        let mut centre = vec![0.0f64; d];
        for c in centroids.chunks_exact(d) {
            for (sum, c) in centre.iter_mut().zip(c) {
                *sum += c.to_f64() / k as f64;
            }
        }
        let centre: Vec<C> = centre.into_iter().map(C::from_f64).collect();
        let mut packed = vec![C::default(); panels * d * columns];
        let mut biases = vec![C::NEG_INFINITY; panels * columns];
        let mut largest = 0.0f64;
        for (index, c) in centroids.chunks_exact(d).enumerate() {
            let panel = &mut packed[index / columns * d * columns..][..d * columns];
            let mut norm = 0.0;
            for (feature, (&c, &m)) in c.iter().zip(&centre).enumerate() {
                panel[feature * columns + index % columns] = c - m;
                norm += (c.to_f64() - m.to_f64()).powi(2);
            }
            biases[index] = C::from_f64(-0.5 * norm);
            largest = if norm.sqrt() > largest || norm.is_nan() { norm.sqrt() } else { largest };
        }
        Packed { tile, centre, centroids: packed, biases, largest, d }
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

    /// Twice the error of a score of a point with this `‖x'‖`: infinite where any score may have overflowed, for
    /// then even a score that did not is no evidence against one that did.
    fn bound(&self, norm: f64) -> f64 {
        let scale = norm * self.largest + 0.5 * self.largest * self.largest;
        if !C::from_f64(2.0 * scale).is_finite() {
            return f64::INFINITY;
        }
        let error = (self.tile.roundings * self.d as f64 + 3.0) * C::UNIT * scale;
        // A twentieth for second-order terms and the rounding of all this; the least normal f32, for underflow.
        2.1 * error + 1e-37
    }
}

/// What an assignment found beside the labels.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// Sum of squared distances, to the precision of the scores.
    pub(super) inertia: f64,
    /// Labels that changed.
    pub(super) changed: u64,
}

/// Labels of `labels.len()` points under `centroids`, exact, and what changed.
pub(super) fn assign<T: Element>(
    points: &[T],
    d: usize,
    centroids: &[T::Centroid],
    labels: &mut [u32],
) -> Found {
    let packed = Packed::new(centroids, d);
    // Blocks are those of the shape alone and are added in order: the sum's bits do not depend on the threads.
    let found: Vec<Found> = labels
        .par_chunks_mut(BLOCK)
        .zip(points.par_chunks(BLOCK * d))
        .map_init(Scratch::default, |scratch, (labels, points)| {
            assign_block(points, centroids, &packed, labels, scratch)
        })
        .collect();
    found.iter().fold(Found::default(), |sum, block| Found {
        inertia: sum.inertia + block.inertia,
        changed: sum.changed + block.changed,
    })
}

/// A task's memory.
struct Scratch<C> {
    /// `[tile][feature][point]`.
    points: Vec<C>,
    nearest: Vec<Lanes<C>>,
}

impl<C> Default for Scratch<C> {
    fn default() -> Self {
        Scratch { points: Vec::new(), nearest: Vec::new() }
    }
}

fn assign_block<T: Element>(
    points: &[T],
    centroids: &[T::Centroid],
    packed: &Packed<T::Centroid>,
    labels: &mut [u32],
    scratch: &mut Scratch<T::Centroid>,
) -> Found {
    let (d, of_tile) = (packed.d, packed.tile.points);
    let tiles = labels.len().div_ceil(of_tile);
    scratch.points.clear();
    scratch.points.resize(tiles * of_tile * d, T::Centroid::default());
    scratch.nearest.clear();
    scratch.nearest.resize(tiles * of_tile, Lanes::NONE);
    let mut norms = [0.0f64; BLOCK];
    for ((row, x), norm) in points.chunks_exact(d).enumerate().zip(&mut norms) {
        let tile = &mut scratch.points[row / of_tile * of_tile * d..][..of_tile * d];
        for (feature, (x, &m)) in x.iter().zip(&packed.centre).enumerate() {
            let about = x.to_centroid() - m;
            tile[feature * of_tile + row % of_tile] = about;
            *norm += about.to_f64() * about.to_f64();
        }
    }
    for panel in packed.panels() {
        let tiles = scratch.points.chunks_exact(of_tile * d).zip(scratch.nearest.chunks_exact_mut(of_tile));
        for (tile, nearest) in tiles {
            packed.tile.fold(&panel, tile, nearest);
        }
    }

    let mut found = Found::default();
    for (row, label) in labels.iter_mut().enumerate() {
        let (mut best, mut second, mut nearest) = (f64::NEG_INFINITY, f64::NEG_INFINITY, u32::MAX);
        let lanes = &scratch.nearest[row];
        for lane in 0..packed.tile.lanes.min(MAX_LANES) {
            let (score, runner_up) = (lanes.best[lane].to_f64(), lanes.second[lane].to_f64());
            if score > best {
                second = second.max(best).max(runner_up);
                (best, nearest) = (score, lanes.label[lane].wrapping_add(lane as u32));
            } else {
                second = second.max(score);
            }
        }
        let mut distance = norms[row] - 2.0 * best;
        // Written so that infinities and NaN, from values near the largest, are not sure.
        let sure = best - second > packed.bound(norms[row].sqrt()) && best.is_finite();
        if !sure {
            (nearest, distance) = nearest_f64(&points[row * d..][..d], centroids);
        }
        found.changed += u64::from(*label != nearest);
        found.inertia += distance;
        *label = nearest;
    }
    found
}

/// The nearest of all centroids by `Σ (x − c)²` in f64 with the features in order, the lowest index among equals,
/// and that distance. That is the definition, which every backend follows to the bit.
fn nearest_f64<T: Element>(x: &[T], centroids: &[T::Centroid]) -> (u32, f64) {
    let by = |distance: fn(&[T], &[T::Centroid]) -> f64| {
        let (mut nearest, mut second) = ((0, f64::INFINITY), f64::INFINITY);
        for (index, c) in centroids.chunks_exact(x.len()).enumerate() {
            let distance = distance(x, c);
            if distance < nearest.1 {
                second = nearest.1;
                nearest = (index as u32, distance);
            } else {
                second = second.min(distance);
            }
        }
        (nearest, second)
    };
    // Several sums at a time are quicker; only where their rounding could decide does the order matter.
    let (nearest, second) = by(distance);
    let relative = (2 * x.len() + 12) as f64 * f64::EPSILON;
    if second - nearest.1 > relative * second { nearest } else { by(distance_in_order).0 }
}

fn distance_in_order<T: Element>(x: &[T], c: &[T::Centroid]) -> f64 {
    x.iter().zip(c).map(|(x, c)| (x.to_f64() - c.to_f64()).powi(2)).sum()
}

/// `Σ (x − c)²` in f64. Several sums, which the compiler can keep in a vector; the order is always the same.
pub(super) fn distance<T: Element>(x: &[T], c: &[T::Centroid]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0f64; LANES];
    let square = |x: &T, c: &T::Centroid| (x.to_f64() - c.to_f64()).powi(2);
    let (xs, cs) = (x.chunks_exact(LANES), c.chunks_exact(LANES));
    let rest: f64 = xs.remainder().iter().zip(cs.remainder()).map(|(x, c)| square(x, c)).sum();
    for (x, c) in xs.zip(cs) {
        for lane in 0..LANES {
            sums[lane] += square(&x[lane], &c[lane]);
        }
    }
    sums.iter().sum::<f64>() + rest
}
