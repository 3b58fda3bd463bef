//! A first pass in 16-bit integers, at twice the rate of f32: it finds the few centroids that can be nearest.
//!
//! ```text
//! x̂ = ⌊x'·s⌉, ĉ = ⌊c'·t⌉   16-bit integers        x̂·ĉ in 32 bits, exact: scales are such that it cannot overflow
//! score = x̂·ĉ / (s·t) − ½‖c'‖²                     an instruction multiplies and adds two features
//! ```
//! # Error
//! With `X = ‖x'‖`, `C` the largest `‖c'‖`, `ρ = ‖x' − x̂/s‖` and `σ` the largest `‖c' − ĉ/t‖`, all of them known,
//! Cauchy and Schwarz bound what rounding to integers moves a score by: `ρC + (X + ρ)σ`. The rest is f32: with `u` its
//! unit, the integer sum, the factor and the final addition lose `u·(X + ρ)(C + σ)` each, the final addition and the
//! bias `u·½C²` each, and `x'` and `c'` themselves, differences in f32, `u·XC` each. A centroid whose score is further
//! below the best than twice all this is not the nearest. Products have no bias, and lose nothing by it.
//!
//! Every partial sum of `x̂·ĉ` is at most `‖x̂‖‖ĉ‖`, so norms under [`NORM`] keep it inside 32 bits.
use super::assign::Norms;
use super::tile::Lanes;

/// Largest norm of a vector of integers; its square is under 2³¹.
const NORM: f32 = 46_000.0;
/// Largest integer.
const LARGEST: f32 = 32_766.0;
/// Centroids of a panel: two vectors of 32-bit sums.
const PANEL: usize = 32;
/// Points of a tile: with 2 vectors of centroids, 24 accumulators.
pub(super) const POINTS: usize = 12;

/// Centroids as the pass wants them.
pub(super) struct Screen {
    /// `[panel][pair of features][centroid]`.
    centroids: Vec<[i16; 2]>,
    /// `[panel][centroid]`, −∞ past the last.
    biases: Vec<f32>,
    /// `1 / t`.
    unit: f32,
    /// `C` and `σ`, of the centroids that take part.
    largest: [f32; 2],
    /// The smallest norm of a centroid that does not: it lies too far out for the others' integers.
    outside: f64,
    d: usize,
}

/// A packed point.
#[derive(Clone, Copy, Default)]
pub(super) struct Point {
    /// `1 / (s·t)`.
    factor: f32,
    /// How far below the best a score may be and its centroid still the nearest.
    window: f32,
}

/// What the pass found out about a point. A centroid that takes no part is out of its reach.
pub(super) enum Verdict {
    /// No other centroid can be nearest.
    Sure(u32),
    /// One of the centroids in `labels[..count]` is.
    OneOf([u32; MAX_CANDIDATES], usize),
    /// Too many can be.
    Open,
}

/// Candidates that a verdict names.
pub(super) const MAX_CANDIDATES: usize = 4;

impl Screen {
    /// Packs `k · d` centroids, which are `about` a centre; none where the machine has no such instructions.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn new(about: &[f32], d: usize, all: &Norms) -> Option<Self> {
        let able = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw");
        if !able {
            return None;
        }
        let norms: Vec<f64> = about.chunks_exact(d).map(squared_norm).collect();
        // A little more, so that the rounding of the root leaves nobody out.
        let common = all.common() * 1.000_001;
        let inside = |norm: f64| norm.sqrt() <= common;
        let longest = norms.iter().filter(|&&norm| inside(norm)).fold(0.0, |a: f64, &b| a.max(b)).sqrt();
        let outside =
            norms.iter().filter(|&&norm| !inside(norm)).fold(f64::INFINITY, |a, &b| a.min(b)).sqrt();
        let most = about.chunks_exact(d).zip(&norms).filter(|&(_, &norm)| inside(norm));
        let most = most.flat_map(|(c, _)| c).fold(0.0, |a: f32, &b| a.max(b.abs()));
        let scale = scale(longest as f32, most, d);
        if !(scale.is_normal() && (longest as f32).is_finite()) {
            return None;
        }
        let (panels, pairs) = (norms.len().div_ceil(PANEL), d.div_ceil(2));
        let mut centroids = vec![[0i16; 2]; panels * pairs * PANEL];
        let mut biases = vec![f32::NEG_INFINITY; panels * PANEL];
        let unit = 1.0 / scale;
        let mut residual = 0.0f64;
        for (index, (c, norm)) in about.chunks_exact(d).zip(&norms).enumerate() {
            if !inside(*norm) {
                continue;
            }
            let panel = &mut centroids[index / PANEL * pairs * PANEL..][..pairs * PANEL];
            let mut lost = 0.0;
            for (feature, &c) in c.iter().enumerate() {
                // In range by the choice of the scale; saturating, for what rounding may add.
                let integer = (c * scale).round_ties_even() as i16;
                panel[feature / 2 * PANEL + index % PANEL][feature % 2] = integer;
                lost += (f64::from(c) - f64::from(integer) * f64::from(unit)).powi(2);
            }
            biases[index] = if all.are_of_products() { 0.0 } else { (-0.5 * norm) as f32 };
            residual = residual.max(lost);
        }
        let above = |norm: f64| (norm * 1.000_001) as f32;
        let largest = [above(longest), above(residual.sqrt())];
        Some(Screen { centroids, biases, unit, largest, outside, d })
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn new(_about: &[f32], _d: usize, _all: &Norms) -> Option<Self> {
        None
    }

    /// Pairs of features of a packed point.
    pub(super) fn pairs(&self) -> usize {
        self.d.div_ceil(2)
    }

    /// Packs a point, `d` values about the centre, into `packed`.
    pub(super) fn pack(&self, about: &[f32], all: &Norms, packed: &mut [[i16; 2]]) -> Point {
        assert!(about.len() == self.d && packed.len() == self.pairs());
        let packed: &mut [i16] = bytemuck::cast_slice_mut(packed);
        // SAFETY: there is a screen only where the machine has the instructions; lengths are as asserted.
        #[cfg(target_arch = "x86_64")]
        let (norm, residual, scale) = unsafe { x86::pack(about, packed) };
        #[cfg(not(target_arch = "x86_64"))]
        let (norm, residual, scale) = (0.0f32, 0.0f32, packed.len() as f32);
        const U: f32 = 1.0 / 16_777_216.0;
        let [c, sigma] = self.largest;
        // Norms and the residual are sums in f32 themselves.
        let x = norm * 1.0001;
        let rho = residual * 1.001 + 4.0 * U * x;
        let of_bias = if all.are_of_products() { 0.0 } else { c * c };
        let error = rho * c + (x + rho) * sigma + U * (6.0 * (x + rho) * (c + sigma) + of_bias);
        let factor = self.unit / scale;
        // Where a score might overflow or lose its bits, it says nothing.
        let known = (2.0 * (x * c + c * c)).is_finite() && (factor.is_normal() || norm == 0.0);
        let known = known && (self.outside == f64::INFINITY || all.reach(x.into()) < self.outside);
        let window = if known { 2.1 * error + 1e-36 } else { f32::INFINITY };
        Point { factor, window }
    }

    /// Folds the scores of [`POINTS`] packed points against all centroids.
    pub(super) fn fold(
        &self,
        packed: &[[i16; 2]],
        points: &[Point],
        nearest: &mut [Lanes<f32>],
        panel: usize,
    ) {
        let pairs = self.pairs();
        assert!(packed.len() == POINTS * pairs && points.len() == POINTS && nearest.len() == POINTS);
        let centroids = &self.centroids[panel * pairs * PANEL..][..pairs * PANEL];
        let biases = &self.biases[panel * PANEL..][..PANEL];
        // SAFETY: as in `pack`.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            x86::fold(centroids, biases, (panel * PANEL) as u32, packed, points, nearest);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (centroids, biases);
    }

    pub(super) fn panels(&self) -> usize {
        self.biases.len() / PANEL
    }
}

/// What the scores of a point say.
pub(super) fn verdict(point: Point, lanes: &Lanes<f32>) -> Verdict {
    let best = lanes.best.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    let limit = best - point.window;
    if limit.is_nan() || limit == f32::NEG_INFINITY || lanes.second.iter().any(|&second| second >= limit) {
        return Verdict::Open;
    }
    let (mut labels, mut count) = ([0; MAX_CANDIDATES], 0);
    for (lane, (&score, &label)) in lanes.best.iter().zip(&lanes.label).enumerate() {
        if score >= limit {
            if count == MAX_CANDIDATES {
                return Verdict::Open;
            }
            labels[count] = label.wrapping_add(lane as u32);
            count += 1;
        }
    }
    if count == 1 { Verdict::Sure(labels[0]) } else { Verdict::OneOf(labels, count) }
}

/// The scale that brings a vector of this norm and largest coordinate into the integers' range.
fn scale(norm: f32, most: f32, d: usize) -> f32 {
    if norm == 0.0 {
        return 1.0;
    }
    // Rounding adds at most half to each coordinate.
    let room = NORM - 1.0 - 0.5 * (d as f32).sqrt();
    (room / (norm * 1.0001)).min(LARGEST / most)
}

fn squared_norm(v: &[f32]) -> f64 {
    v.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Lanes, PANEL, POINTS, Point};
    use std::arch::x86_64::*;

    /// Packs `about`: its norm, the norm of what rounding took, and the scale.
    ///
    /// # Safety
    /// The machine has AVX-512F and BW; `packed` has room for `about`, up to an even number.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn pack(about: &[f32], packed: &mut [i16]) -> (f32, f32, f32) {
        let (mut squares, mut most) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let load = |at: usize| {
            let mask = mask(about.len() - at);
            // SAFETY: lanes past the end are masked.
            unsafe { (_mm512_maskz_loadu_ps(mask, about.as_ptr().add(at)), mask) }
        };
        for at in (0..about.len()).step_by(16) {
            let (x, _) = load(at);
            squares = _mm512_fmadd_ps(x, x, squares);
            most = _mm512_max_ps(most, _mm512_abs_ps(x));
        }
        let norm = _mm512_reduce_add_ps(squares).sqrt();
        let scale = super::scale(norm, _mm512_reduce_max_ps(most), about.len());
        let (by, unit) = (_mm512_set1_ps(scale), _mm512_set1_ps(1.0 / scale));
        let mut lost = _mm512_setzero_ps();
        for at in (0..about.len()).step_by(16) {
            let (x, mask) = load(at);
            let integers = _mm512_cvtps_epi32(_mm512_mul_ps(x, by));
            let residual = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(integers), unit, x);
            lost = _mm512_fmadd_ps(residual, residual, lost);
            // SAFETY: as above.
            unsafe { _mm512_mask_cvtsepi32_storeu_epi16(packed.as_mut_ptr().add(at).cast(), mask, integers) };
        }
        if packed.len() > about.len() {
            packed[about.len()] = 0;
        }
        (norm, _mm512_reduce_add_ps(lost).sqrt(), scale)
    }

    fn mask(left: usize) -> u16 {
        if left >= 16 { u16::MAX } else { (1 << left) - 1 }
    }

    /// # Safety
    /// The machine has AVX-512F and VNNI; slices are of a tile's and a panel's lengths.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn fold(
        centroids: &[[i16; 2]],
        biases: &[f32],
        first: u32,
        packed: &[[i16; 2]],
        points: &[Point],
        nearest: &mut [Lanes<f32>],
    ) {
        const LANES: usize = 16;
        let pairs = centroids.len() / PANEL;
        let mut sums = [[_mm512_setzero_si512(); 2]; POINTS];
        let (mut c, x) = (centroids.as_ptr(), packed.as_ptr().cast::<i32>());
        for pair in 0..pairs {
            // SAFETY: a panel has `PANEL` pairs for each of `pairs`, and a tile `pairs` for each of its points.
            unsafe {
                let here = [_mm512_loadu_si512(c.cast()), _mm512_loadu_si512(c.add(LANES).cast())];
                for (point, sums) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(x.add(point * pairs + pair).read_unaligned());
                    sums[0] = _mm512_dpwssd_epi32(sums[0], here[0], x);
                    sums[1] = _mm512_dpwssd_epi32(sums[1], here[1], x);
                }
                c = c.add(PANEL);
            }
        }
        // SAFETY: the biases are two vectors, and the arrays of `Lanes` are vectors of 16, aligned to 64 bytes.
        unsafe {
            let bias = [_mm512_loadu_ps(biases.as_ptr()), _mm512_loadu_ps(biases.as_ptr().add(LANES))];
            for ((sums, point), nearest) in sums.iter().zip(points).zip(nearest) {
                let factor = _mm512_set1_ps(point.factor);
                let mut best = _mm512_load_ps(nearest.best.as_ptr());
                let mut second = _mm512_load_ps(nearest.second.as_ptr());
                let mut label = _mm512_load_si512(nearest.label.as_ptr().cast());
                for (vector, (&sum, bias)) in sums.iter().zip(bias).enumerate() {
                    let score = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), factor, bias);
                    let from = _mm512_set1_epi32((first as usize + vector * LANES) as i32);
                    let better = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(score, best);
                    second = _mm512_max_ps(second, _mm512_min_ps(score, best));
                    label = _mm512_mask_mov_epi32(label, better, from);
                    best = _mm512_mask_mov_ps(best, better, score);
                }
                _mm512_store_ps(nearest.best.as_mut_ptr(), best);
                _mm512_store_ps(nearest.second.as_mut_ptr(), second);
                _mm512_store_si512(nearest.label.as_mut_ptr().cast(), label);
            }
        }
    }
}
