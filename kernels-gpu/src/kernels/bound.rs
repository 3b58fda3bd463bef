//! How far a score of the tensor cores may be from the true one: see `assign_hopper`.
use cuda_std::float::fma;

/// Scores that are no further apart than this are in no order that is sure: products may have lost bits, too.
const LEAST_BOUND: f32 = 1e-36;
/// Half of an f32's last place, relative to it.
const U: f32 = 1.0 / 16_777_216.0;

/// A tile's share of a bound that is for the problem's largest norm and residual.
#[inline(always)]
pub(super) fn share_of_bound(share: f32, bound: f32) -> f32 {
    fma(share, bound, LEAST_BOUND)
}

/// What to multiply bounds by: 0 where they do not count, which leaves those that are not finite NaN.
#[inline(always)]
pub(super) fn bounds_count(is_exact: u32) -> f32 {
    if is_exact != 0 { 1.0 } else { 0.0 }
}

/// Twice the error of a point's scores, by its norm and residual. A hundredth is added for its own rounding and that of
/// shares, and to the sum and the bias what rounding of limits may take.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    of_rounded: f32,
    of_residual: f32,
    of_bias: f32,
}

impl Bound {
    /// By the norm and the residual of a centroid, or the largest of some; `terms` is the features that are multiplied, by
    /// Hopper's `wgmma`.
    #[inline(always)]
    pub(super) fn on_hopper(terms: u32, norm: f32, residual: f32) -> Self {
        Self::new(0.9, terms, norm, residual)
    }

    /// The same where the products of each panel of 64 features are added up by themselves, and then in f32: four steps of a
    /// panel cost `1.1·4·13u` of the lengths of its parts of both vectors, which over all panels come to no more than that of
    /// the vectors' own, and each of `panels` additions costs `u` of these. `terms` are those of the bias.
    #[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
    #[inline(always)]
    pub(super) fn by_panels(panels: u32, terms: u32, norm: f32, residual: f32) -> Self {
        Self::of_sum((60.0 + 1.1 * panels as f32) * U, terms, norm, residual)
    }

    /// The same by any GPU's `mma`, of which less is known: 18 truncations a step of 16 products, each of one part in 2⁻²³.
    #[inline(always)]
    pub(super) fn on_any(terms: u32, norm: f32, residual: f32) -> Self {
        Self::new(2.5, terms, norm, residual)
    }

    /// `roundings`, of 2⁻²⁴ each, are what a product can cost its sum.
    #[inline(always)]
    fn new(roundings: f32, terms: u32, norm: f32, residual: f32) -> Self {
        Self::of_sum(roundings * (terms + 16) as f32 * U, terms, norm, residual)
    }

    /// By what products of so many terms lose of the lengths of both vectors.
    #[inline(always)]
    fn of_sum(lost: f32, terms: u32, norm: f32, residual: f32) -> Self {
        let sum = lost + 3.0 * U;
        Bound {
            of_rounded: 2.02 * (sum * (norm + residual) + residual),
            of_residual: 2.02 * norm,
            of_bias: 1.01 * (terms / 16 + 24) as f32 * U * norm * norm + LEAST_BOUND,
        }
    }

    #[inline(always)]
    pub(super) fn of(self, norm: f32, residual: f32) -> f32 {
        (norm + residual) * self.of_rounded + residual * self.of_residual + self.of_bias
    }
}
