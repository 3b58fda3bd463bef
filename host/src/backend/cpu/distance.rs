//! Sums over features in f64. Several sums, which the compiler can keep in a vector; the order is always the same, and so
//! are the bits, whatever the vectors of the machine.
use crate::element::Element;

/// `Σ (x − c)²`.
pub(crate) fn distance<T: Element, C: Element>(x: &[T], c: &[C]) -> f64 {
    sum(x, c, |x, c| {
        let difference = x - c;
        difference * difference
    })
}

/// `Σ (x·scale − c)²`.
pub(crate) fn scaled_distance<T: Element, C: Element>(x: &[T], scale: f64, c: &[C]) -> f64 {
    sum(x, c, |x, c| {
        let difference = x * scale - c;
        difference * difference
    })
}

/// `Σ x·c`.
pub(crate) fn product<T: Element, C: Element>(x: &[T], c: &[C]) -> f64 {
    sum(x, c, |x, c| x * c)
}

#[inline(always)]
fn sum<T: Element, C: Element>(x: &[T], c: &[C], term: impl Fn(f64, f64) -> f64) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the machine has AVX-512F.
            return unsafe { x86::sum_avx512(x, c, term) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has AVX2.
            return unsafe { x86::sum_avx2(x, c, term) };
        }
    }
    by_lanes(x, c, term)
}

#[inline(always)]
fn by_lanes<T: Element, C: Element>(x: &[T], c: &[C], term: impl Fn(f64, f64) -> f64) -> f64 {
    const LANES: usize = 16;
    let mut sums = [0.0f64; LANES];
    let (xs, cs) = (x.chunks_exact(LANES), c.chunks_exact(LANES));
    let rest = xs.remainder().iter().zip(cs.remainder());
    let rest: f64 = rest.map(|(x, c)| term(x.to_f64(), c.to_f64())).sum();
    for (x, c) in xs.zip(cs) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane].to_f64(), c[lane].to_f64());
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::by_lanes;
    use crate::element::Element;

    /// # Safety
    /// The machine has AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub(super) fn sum_avx512<T: Element, C: Element>(
        x: &[T],
        c: &[C],
        term: impl Fn(f64, f64) -> f64,
    ) -> f64 {
        by_lanes(x, c, term)
    }

    /// # Safety
    /// The machine has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) fn sum_avx2<T: Element, C: Element>(x: &[T], c: &[C], term: impl Fn(f64, f64) -> f64) -> f64 {
        by_lanes(x, c, term)
    }
}
