//! What f32 points are rounded to 16 bits in.
use super::hopper;
use crate::element::Element;
use rayon::prelude::*;

/// A centre and how far the points reach from it: of the points alone, so that what is found with rounded ones is the same
/// whichever centroids a call begins with, and whichever parts of the points it has.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(super) centre: Vec<f32>,
    pub(crate) extent: f32,
}

impl Frame {
    /// The rows of `n` points whose mean is the centre.
    pub(crate) fn rows(n: usize, k: usize) -> impl Iterator<Item = usize> + Clone {
        /// More would move the mean little.
        const SAMPLE: usize = 64;
        // Not more than `k`, for which calls have room.
        let count = k.min(SAMPLE);
        (0..count).map(move |at| (at as u128 * n as u128 / count as u128) as usize)
    }

    /// About the mean of these rows, and of no reach yet.
    pub(crate) fn about<T: Element>(rows: &[T], d: usize) -> Self {
        let rows: Vec<f32> = rows.iter().map(|x| x.to_f64() as f32).collect();
        Frame { centre: hopper::centres(&rows, rows.len() / d, d), extent: 0.0 }
    }

    /// That of `n` points in memory.
    pub(super) fn of<T: Element>(points: &[T], d: usize, k: usize) -> Self {
        let rows: Vec<T> =
            Self::rows(points.len() / d, k).flat_map(|row| &points[row * d..][..d]).copied().collect();
        let mut frame = Self::about(&rows, d);
        frame.take(points);
        frame
    }

    /// Reaches as far as these rows.
    pub(crate) fn take<T: Element>(&mut self, points: &[T]) {
        /// Fewer values cost more to hand out.
        const VALUES: usize = 1 << 16;
        let (d, centre) = (self.centre.len(), &self.centre);
        let of_row = |x: &[T]| {
            let about = |(x, c): (&T, &f32)| (x.to_f64() as f32 - c).abs();
            x.iter().zip(centre).map(about).fold(0.0, f32::max)
        };
        let reach = points.par_chunks_exact(d).with_min_len(VALUES.div_ceil(d)).map(of_row);
        self.extent = reach.reduce(|| self.extent, f32::max);
    }
}
