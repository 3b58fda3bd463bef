//! What is near.
use crate::backend::cpu;
use crate::element::{DType, Element, Float};

/// Which centroid is a point's, and what the centroids are.
///
/// | metric         | label: the centroid of | centroid                      | distance            | inertia           |
/// |----------------|------------------------|-------------------------------|---------------------|-------------------|
/// | `Euclidean`    | least `‖x − c‖`        | mean of `x`                   | `‖x − c‖`           | `Σ w·‖x − c‖²`    |
/// | `Cosine`       | largest `x·c`          | sum of `x/‖x‖`, at length 1   | `1 − cos(x, c)`     | `Σ w·(1 − cos)`   |
/// | `Dot`          | largest `x·c`          | mean of `x`                   | `−x·c`              | `−Σ w·x·c`        |
/// | `SphericalDot` | largest `x·c`          | sum of `x`, at length 1       | `−x·c`              | `−Σ w·x·c`        |
///
/// Means and sums are weighted, of equally near centroids the one with the lowest index counts, and all of it is exact and
/// reproducible for each metric alike. Less inertia is better, also where it is negative.
///
/// Length 1 is that to the rounding of the points' type. A sum of zeros keeps its centroid. `1 − cos` is computed as
/// `½‖x/‖x‖ − c‖²`, which loses nothing between vectors that hardly differ; to a row of zeros (of a length under 1e-300)
/// it is 1 for every centroid. A distance `−x·c` that the centroids' type cannot hold is infinite.
///
/// With means as centroids, `Dot`, an iteration may make the inertia larger, and a fit need not converge.
///
/// k-means++ and k-means|| draw by squared Euclidean distance for `Euclidean` and `Dot`, by `1 − cos` for `Cosine` and by
/// `‖x‖·(1 − cos)` for `SphericalDot`; rows of zeros are not drawn for the latter two while there are others. The
/// tolerance of the two is a share of the variance of `x/‖x‖`.
///
/// # Examples
/// ```
/// use flash_kmeans::{FlashKMeans, Metric};
/// use ndarray::array;
///
/// // Two directions, whatever the lengths.
/// let points = array![[1.0f32, 0.0], [9.0, 0.0], [0.0, 2.0], [0.0, 5.0]];
/// let model = FlashKMeans::new(2).metric(Metric::Cosine).fit(points.view())?;
/// assert_eq!(model.labels()[0], model.labels()[1]);
/// assert_ne!(model.labels()[1], model.labels()[2]);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Metric {
    /// Euclidean distance.
    #[default]
    Euclidean,
    /// Cosine of the angle: spherical k-means. No copy of the points is made for it.
    Cosine,
    /// Inner product, with means as centroids.
    Dot,
    /// Inner product, with centroids of length 1.
    SphericalDot,
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Metric::Euclidean => "euclidean",
            Metric::Cosine => "cosine",
            Metric::Dot => "dot",
            Metric::SphericalDot => "spherical-dot",
        })
    }
}

impl Metric {
    /// All of them.
    #[cfg_attr(not(any(test, feature = "safetensors")), expect(dead_code))]
    pub(crate) const ALL: [Metric; 4] =
        [Metric::Euclidean, Metric::Cosine, Metric::Dot, Metric::SphericalDot];

    /// Whether the largest product is the nearest.
    pub(crate) fn is_product(self) -> bool {
        self != Metric::Euclidean
    }

    /// Whether centroids have length 1.
    pub(crate) fn is_spherical(self) -> bool {
        matches!(self, Metric::Cosine | Metric::SphericalDot)
    }

    /// What brings a point to length 1 where centroids have it, 0 for a row of zeros; else 1.
    pub(crate) fn scale<T: Element>(self, x: &[T]) -> f64 {
        if self.is_spherical() { inverse_length(x) } else { 1.0 }
    }

    /// What a point of weight 1 adds to the inertia.
    pub(crate) fn loss<T: Element>(self, x: &[T], c: &[T::Centroid]) -> f64 {
        match self {
            Metric::Euclidean => cpu::distance(x, c),
            Metric::Cosine => match inverse_length(x) {
                0.0 => 1.0,
                scale => 0.5 * cpu::scaled_distance(x, scale, c),
            },
            Metric::Dot | Metric::SphericalDot => -cpu::product(x, c),
        }
    }

    /// How often a point of this weight counts in the mean that a centroid is: not at all where only its direction does
    /// and it has none, which a loss of `-∞` says.
    pub(crate) fn mass(self, weight: f64, loss: f64) -> f64 {
        if self == Metric::Cosine && loss == f64::NEG_INFINITY { 0.0 } else { weight }
    }

    /// The distance to a centroid that makes this loss.
    pub(crate) fn distance(self, loss: f64) -> f64 {
        if self == Metric::Euclidean { loss.sqrt() } else { loss }
    }

    /// Least for the nearest centroid.
    pub(crate) fn rank<T: Element>(self, x: &[T], c: &[T::Centroid]) -> f64 {
        if self.is_product() { -cpu::product(x, c) } else { cpu::distance(x, c) }
    }

    /// Brings centroids of points of type `T` to length 1, where the metric wants that. Those that have it to the rounding
    /// of that type stay as they are, and so do zeros.
    pub(crate) fn normalise<T: Element>(self, centroids: &mut [T::Centroid], d: usize) {
        if !self.is_spherical() {
            return;
        }
        // A value is rounded by a share of itself, or by half of the least f16.
        let (share, least) = match T::DTYPE {
            DType::F16 => (1.0 / 2048.0, 1.0 / (1u64 << 25) as f64),
            DType::BF16 => (1.0 / 256.0, 0.0),
            DType::F32 => (1.0 / (1u64 << 24) as f64, 0.0),
            DType::F64 => (0.5 * f64::EPSILON, 0.0),
        };
        let rounding = 2.0 * share + (d as f64).sqrt() * least + (d as f64 + 4.0) * f64::EPSILON;
        for c in centroids.chunks_exact_mut(d) {
            let length = length(c.iter().map(|c| c.to_f64()));
            if length > 0.0 && (length - 1.0).abs() > rounding {
                c.iter_mut().for_each(|c| *c = Float::from_f64(c.to_f64() / length));
            }
        }
    }
}

/// `1 / ‖x‖`; 0 for a row of zeros.
fn inverse_length<T: Element>(x: &[T]) -> f64 {
    let square = cpu::product(x, x);
    let length =
        if (1e-280..=1e300).contains(&square) { square.sqrt() } else { length(x.iter().map(|x| x.to_f64())) };
    if length < 1e-300 { 0.0 } else { 1.0 / length }
}

/// The length of a vector whose squares may overflow or vanish.
pub(crate) fn length(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = values.clone().fold(0.0, |most: f64, v| most.max(v.abs()));
    if most == 0.0 { 0.0 } else { most * values.map(|v| (v / most).powi(2)).sum::<f64>().sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use half::{bf16, f16};

    fn rounded<T: Element>(d: usize) {
        let mut rng = Rng::new(d as u64, 0);
        for _ in 0..20 {
            let mut c: Vec<T::Centroid> = (0..d).map(|_| Float::from_f64(rng.unit().powi(3) - 0.3)).collect();
            Metric::Cosine.normalise::<T>(&mut c, d);
            let mut c: Vec<_> = c.into_iter().map(T::round_centroid).collect();
            let before = c.clone();
            Metric::Cosine.normalise::<T>(&mut c, d);
            assert_eq!(c, before, "{} d {d}", T::DTYPE);
            let length = length(c.iter().map(|c| c.to_f64()));
            assert!((length - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn what_is_normalised_stays_as_it_is() {
        for d in [1, 2, 33, 1000] {
            rounded::<f32>(d);
            rounded::<f64>(d);
            rounded::<f16>(d);
            rounded::<bf16>(d);
        }
        let mut zeros = [0.0f32; 4];
        Metric::Cosine.normalise::<f32>(&mut zeros, 2);
        assert_eq!(zeros, [0.0; 4]);
        let mut long = [3.0f32, 4.0];
        Metric::Dot.normalise::<f32>(&mut long, 2);
        assert_eq!(long, [3.0, 4.0]);
    }

    #[test]
    fn lengths_whose_squares_overflow_or_vanish() {
        assert_eq!(inverse_length(&[3e-160f64, 4e-160]), 1.0 / 5e-160);
        assert_eq!(inverse_length(&[3e150f64, 4e150]), 1.0 / 5e150);
        assert_eq!(inverse_length(&[0.0f64, -0.0]), 0.0);
        assert_eq!(inverse_length(&[f64::MIN_POSITIVE]), 0.0);
        assert_eq!(inverse_length(&[2.0f32, 0.0]), 0.5);
    }

    /// Just beyond what a rounding to the type can do.
    #[test]
    fn what_is_nearly_of_length_1_is_brought_to_it() {
        fn first<T: Element>(length: f64) -> f64 {
            let mut c: Vec<T::Centroid> = [length, 0.0].into_iter().map(Float::from_f64).collect();
            Metric::SphericalDot.normalise::<T>(&mut c, 2);
            c[0].to_f64()
        }
        for sign in [1.0, -1.0] {
            assert_eq!(first::<f64>(1.0 + sign * 1e-14), 1.0);
            assert_eq!(first::<f32>(1.0 + sign * 1e-6), 1.0);
            assert_eq!(first::<f16>(1.0 + sign * 0.002), 1.0);
            assert_eq!(first::<bf16>(1.0 + sign * 0.016), 1.0);
        }
    }
}
