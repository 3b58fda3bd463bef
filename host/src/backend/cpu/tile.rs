//! The register tile of the assignment: scores of a few points against a panel of centroids, folded at once.
//!
//! ```text
//! score = x'·c' − ½‖c'‖²    accumulators start at the bias and take one fused multiply-add a feature
//! fold                      each lane keeps its best score, that centroid's first column, and its second best
//! ```
//! One portable body serves every type; LLVM vectorises it for the features of the function around it. Only the
//! AVX-512 one is written by hand, because LLVM would not keep its 24 accumulators in registers.
use crate::element::Float;

/// Most lanes of a vector.
pub(super) const MAX_LANES: usize = 16;

/// What is known of a point, lane by lane: the columns of a panel go to the lanes in turn.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Lanes<C> {
    pub(crate) best: [C; MAX_LANES],
    pub(crate) second: [C; MAX_LANES],
    /// First centroid of the vector that `best` came from; the lane is added at the end.
    pub(crate) label: [u32; MAX_LANES],
}

impl<C: Float> Lanes<C> {
    pub(crate) const NONE: Self = Lanes {
        best: [C::NEG_INFINITY; MAX_LANES],
        second: [C::NEG_INFINITY; MAX_LANES],
        label: [u32::MAX; MAX_LANES],
    };
}

/// A type that scores are computed in. Public only because it seals [`Float`].
pub trait Compute: Copy {
    /// Less than every score.
    const NEG_INFINITY: Self;
    /// Half the distance from 1 to the next value.
    const UNIT: f64;
    /// The tile for this machine.
    fn tile() -> Tile<Self>;
    /// `self * by + plus`, rounded once.
    fn fused(self, by: Self, plus: Self) -> Self;
    /// The values, if they are f32: what the pass in integers takes.
    fn as_f32(values: &[Self]) -> Option<&[f32]>;
}

/// A register tile: `points` points against `2 · lanes` centroids.
#[derive(Clone, Copy)]
pub struct Tile<C> {
    /// Points of the tile.
    pub(crate) points: usize,
    /// Lanes of a vector; a panel is two vectors of centroids.
    pub(crate) lanes: usize,
    /// Roundings of a product and its addition.
    pub(crate) roundings: f64,
    run: unsafe fn(&Panel<'_, C>, &[C], &mut [Lanes<C>]),
}

/// A panel of centroids.
pub(crate) struct Panel<'a, C> {
    /// `[feature][2 · lanes]`.
    pub(crate) centroids: &'a [C],
    /// `−½‖c'‖²`, −∞ past the last centroid.
    pub(crate) biases: &'a [C],
    /// Index of the first centroid.
    pub(crate) first: u32,
}

impl<C: Float> Tile<C> {
    /// Centroids of a panel.
    pub(crate) fn centroids(&self) -> usize {
        2 * self.lanes
    }

    /// Folds the scores of a tile, `[feature][points]`, against a panel into `nearest`, one entry a point.
    pub(crate) fn fold(&self, panel: &Panel<'_, C>, tile: &[C], nearest: &mut [Lanes<C>]) {
        debug_assert_eq!(tile.len() / self.points, panel.centroids.len() / self.centroids());
        debug_assert!(panel.biases.len() == self.centroids() && nearest.len() == self.points);
        // SAFETY: `Compute::tile` chose the function for features that this machine has.
        unsafe { (self.run)(panel, tile, nearest) }
    }
}

/// The portable body.
#[inline(always)]
fn body<C: Float, const POINTS: usize, const LANES: usize, const FUSED: bool>(
    panel: &Panel<'_, C>,
    tile: &[C],
    nearest: &mut [Lanes<C>],
) {
    let mut scores = [[[C::default(); LANES]; 2]; POINTS];
    for scores in &mut scores {
        for (scores, biases) in scores.iter_mut().zip(panel.biases.chunks_exact(LANES)) {
            scores.copy_from_slice(biases);
        }
    }
    for (c, x) in panel.centroids.chunks_exact(2 * LANES).zip(tile.chunks_exact(POINTS)) {
        for (scores, &x) in scores.iter_mut().zip(x) {
            for (scores, c) in scores.iter_mut().zip(c.chunks_exact(LANES)) {
                for (score, &c) in scores.iter_mut().zip(c) {
                    *score = if FUSED { x.fused(c, *score) } else { x * c + *score };
                }
            }
        }
    }
    for (scores, nearest) in scores.iter().zip(nearest) {
        for (vector, scores) in scores.iter().enumerate() {
            let label = panel.first + (vector * LANES) as u32;
            for (lane, &score) in scores.iter().enumerate() {
                let best = nearest.best[lane];
                let better = score > best;
                let other = if better { best } else { score };
                let second = nearest.second[lane];
                nearest.second[lane] = if other > second { other } else { second };
                nearest.best[lane] = if better { score } else { best };
                nearest.label[lane] = if better { label } else { nearest.label[lane] };
            }
        }
    }
}

impl Compute for f32 {
    const NEG_INFINITY: Self = f32::NEG_INFINITY;
    const UNIT: f64 = 1.0 / (1u64 << 24) as f64;
    fn tile() -> Tile<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Tile { points: x86::POINTS_512, lanes: 16, roundings: 1.0, run: x86::f32_avx512 };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Tile { points: 6, lanes: 8, roundings: 1.0, run: x86::f32_avx2 };
            }
        }
        Tile { points: 4, lanes: 4, roundings: 2.0, run: body::<f32, 4, 4, false> }
    }
    #[inline(always)]
    fn fused(self, by: Self, plus: Self) -> Self {
        self.mul_add(by, plus)
    }
    fn as_f32(values: &[Self]) -> Option<&[f32]> {
        Some(values)
    }
}

impl Compute for f64 {
    const NEG_INFINITY: Self = f64::NEG_INFINITY;
    const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
    fn tile() -> Tile<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Tile { points: 6, lanes: 4, roundings: 1.0, run: x86::f64_avx2 };
        }
        Tile { points: 4, lanes: 2, roundings: 2.0, run: body::<f64, 4, 2, false> }
    }
    #[inline(always)]
    fn fused(self, by: Self, plus: Self) -> Self {
        self.mul_add(by, plus)
    }
    fn as_f32(_values: &[Self]) -> Option<&[f32]> {
        None
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Lanes, Panel, body};
    use std::arch::x86_64::*;

    /// 12 points by 2 vectors: 24 accumulators, 2 of centroids, 1 of a point's value.
    pub(super) const POINTS_512: usize = 12;

    /// # Safety
    /// The machine has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn f32_avx2(panel: &Panel<'_, f32>, tile: &[f32], nearest: &mut [Lanes<f32>]) {
        body::<f32, 6, 8, true>(panel, tile, nearest)
    }

    /// # Safety
    /// As [`f32_avx2`].
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn f64_avx2(panel: &Panel<'_, f64>, tile: &[f64], nearest: &mut [Lanes<f64>]) {
        body::<f64, 6, 4, true>(panel, tile, nearest)
    }

    /// # Safety
    /// The machine has AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub(super) fn f32_avx512(panel: &Panel<'_, f32>, tile: &[f32], nearest: &mut [Lanes<f32>]) {
        const LANES: usize = 16;
        // SAFETY: the biases are two vectors of 16.
        let bias = unsafe {
            [_mm512_loadu_ps(panel.biases.as_ptr()), _mm512_loadu_ps(panel.biases.as_ptr().add(LANES))]
        };
        let mut scores = [bias; POINTS_512];
        for (c, x) in panel.centroids.chunks_exact(2 * LANES).zip(tile.chunks_exact(POINTS_512)) {
            // SAFETY: the chunk is two vectors of 16.
            let c = unsafe { [_mm512_loadu_ps(c.as_ptr()), _mm512_loadu_ps(c.as_ptr().add(LANES))] };
            for (scores, &x) in scores.iter_mut().zip(x) {
                let x = _mm512_set1_ps(x);
                scores[0] = _mm512_fmadd_ps(x, c[0], scores[0]);
                scores[1] = _mm512_fmadd_ps(x, c[1], scores[1]);
            }
        }
        for (scores, nearest) in scores.iter().zip(nearest) {
            // SAFETY: the arrays of `Lanes` are vectors of 16, aligned to 64 bytes.
            unsafe {
                let mut best = _mm512_load_ps(nearest.best.as_ptr());
                let mut second = _mm512_load_ps(nearest.second.as_ptr());
                let mut label = _mm512_load_si512(nearest.label.as_ptr().cast());
                for (vector, &score) in scores.iter().enumerate() {
                    let first = _mm512_set1_epi32((panel.first as usize + vector * LANES) as i32);
                    let better = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(score, best);
                    second = _mm512_max_ps(second, _mm512_min_ps(score, best));
                    label = _mm512_mask_mov_epi32(label, better, first);
                    best = _mm512_mask_mov_ps(best, better, score);
                }
                _mm512_store_ps(nearest.best.as_mut_ptr(), best);
                _mm512_store_ps(nearest.second.as_mut_ptr(), second);
                _mm512_store_si512(nearest.label.as_mut_ptr().cast(), label);
            }
        }
    }
}
