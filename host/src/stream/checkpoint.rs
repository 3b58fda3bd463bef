//! Where a fit stands, in a file.
//!
//! The file has a line of text, then little-endian values of 8 bytes: `n`, `d`, `k`, the points' type, the metric, what becomes
//! of empty clusters and the precision, a digest of the first point and the weights, iterations, mean variance; inertia, changed
//! labels and shift of each iteration; the centroids and those of the iteration before, in float64; and a digest of all this.
use crate::backend::LloydOptions;
use crate::element::{DType, Element, Float};
use crate::error::{Error, Result};
use crate::io::write_atomically;
use crate::lloyd::State;
use crate::model::IterationStats;
use crate::params::EmptyClusters;
use crate::{Metric, Precision};
use std::fs::File;
use std::io::Read;
use std::path::Path;

const MAGIC: &[u8] = b"flash-kmeans checkpoint 1\n";
/// Values before the history.
const HEAD: usize = 7;

/// The problem that a state belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Problem {
    pub(super) n: usize,
    pub(super) d: usize,
    pub(super) k: usize,
    pub(super) metric: Metric,
    pub(super) empty_clusters: EmptyClusters,
    pub(super) precision: Precision,
    /// A digest of the first point and, where there are some, the weights.
    pub(super) first: u64,
}

impl Problem {
    pub(super) fn new<T: Element>(
        n: usize,
        (options, precision): (&LloydOptions, Precision),
        first: &[T],
        weights: Option<&[f64]>,
    ) -> Self {
        let values = first.iter().map(|v| v.to_f64()).chain(weights.unwrap_or(&[]).iter().copied());
        let &LloydOptions { k, metric, empty_clusters, .. } = options;
        let first_and_weights = digest(values.flat_map(f64::to_le_bytes));
        Problem { n, d: first.len(), k, metric, empty_clusters, precision, first: first_and_weights }
    }

    fn head<T: Element>(&self) -> [u64; 5] {
        let dtype = match T::DTYPE {
            DType::F16 => 0,
            DType::BF16 => 1,
            DType::F32 => 2,
            DType::F64 => 3,
        };
        let metric = match self.metric {
            Metric::Euclidean => 0,
            Metric::Cosine => 1,
            Metric::Dot => 2,
            Metric::SphericalDot => 3,
        };
        let empty_clusters = match self.empty_clusters {
            EmptyClusters::Keep => 0,
            EmptyClusters::Relocate => 1,
        };
        let precision = match self.precision {
            Precision::Exact => 0,
            Precision::Tf32 => 1,
        };
        let kinds = dtype | metric << 8 | empty_clusters << 16 | precision << 24;
        [self.n as u64, self.d as u64, self.k as u64, kinds, self.first]
    }
}

/// Writes `state` in place of what `path` has.
pub(super) fn write<T: Element>(path: &Path, problem: &Problem, state: &State<T::Centroid>) -> Result<()> {
    let mut values: Vec<u64> = problem.head::<T>().to_vec();
    values.extend([state.history.len() as u64, state.mean_variance.to_bits()]);
    values.extend(state.history.iter().flat_map(|i| [i.inertia.to_bits(), i.changed, i.shift.to_bits()]));
    values.extend(state.centroids.iter().chain(&state.before).map(|c| c.to_f64().to_bits()));
    let mut bytes = MAGIC.to_vec();
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    bytes.extend(digest(bytes.iter().copied()).to_le_bytes());
    write_atomically(path, |out| out.write_all(&bytes))
}

/// Reads the state of `problem` at `path`.
pub(super) fn read<T: Element>(path: &Path, problem: &Problem) -> Result<State<T::Centroid>> {
    let malformed = |reason: &str| Error::Format { path: path.into(), reason: reason.into() };
    let fail = |source| Error::Io { path: path.into(), source };
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(malformed("is not a regular file"));
    }
    let mut file = File::open(path).map_err(fail)?;
    let mut head = Vec::new();
    file.by_ref().take((MAGIC.len() + HEAD * 8) as u64).read_to_end(&mut head).map_err(fail)?;
    let Some(values) = head.strip_prefix(MAGIC) else {
        return Err(malformed("is not a checkpoint of this version"));
    };
    let values = words(values);
    let [of_problem @ .., iterations, mean_variance] = values.as_slice() else {
        return Err(malformed("is truncated"));
    };
    if values.len() != HEAD {
        return Err(malformed("is truncated"));
    }
    if of_problem != problem.head::<T>() {
        return Err(malformed(&format!(
            "is a checkpoint of a fit of {} points in {} dimensions with {} clusters, and not of this one: its shape, \
             its type, its metric, its precision, its first point, its weights or what becomes of its empty clusters are \
             others",
            values[0], values[1], values[2]
        )));
    }
    let (len, of_centroids) = (file.metadata().map_err(fail)?.len(), problem.k * problem.d);
    let needed =
        iterations.checked_mul(24).and_then(|v| v.checked_add((head.len() + of_centroids * 16 + 8) as u64));
    if needed != Some(len) {
        return Err(malformed("has not the length that its header promises"));
    }
    let mut bytes = head.clone();
    file.take(len).read_to_end(&mut bytes).map_err(fail)?;
    let Some((rest, stored)) = bytes.split_last_chunk::<8>().filter(|_| bytes.len() as u64 == len) else {
        return Err(malformed("is truncated"));
    };
    if digest(rest.iter().copied()) != u64::from_le_bytes(*stored) {
        return Err(malformed("is damaged: its digest is not that of its content"));
    }
    let values = words(&rest[head.len()..]);
    let (history, centroids) = values.split_at(values.len() - 2 * of_centroids);
    let centroids: Vec<T::Centroid> = centroids.iter().map(|&v| Float::from_f64(f64::from_bits(v))).collect();
    // Rounded to a narrower type, a finite value may be infinite.
    if !centroids.iter().all(|&c| c.is_finite() && T::round_centroid(c).is_finite()) {
        return Err(malformed("has centroids that are not finite in the points' type"));
    }
    let (centroids, before) = centroids.split_at(of_centroids);
    let history = history.as_chunks::<3>().0.iter().map(|&[inertia, changed, shift]| IterationStats {
        inertia: f64::from_bits(inertia),
        changed,
        shift: f64::from_bits(shift),
    });
    Ok(State {
        centroids: centroids.to_vec(),
        before: before.to_vec(),
        mean_variance: f64::from_bits(*mean_variance),
        history: history.collect(),
    })
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|v| u64::from_le_bytes(*v)).collect()
}

/// FNV-1a, against damage and mistakes.
fn digest(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_not_whole_is_refused() {
        let path = std::env::temp_dir().join(format!("flash-kmeans-checkpoint-{}", std::process::id()));
        let options = LloydOptions {
            metric: Metric::Euclidean,
            k: 2,
            max_iter: 1,
            tol: 0.0,
            empty_clusters: EmptyClusters::Keep,
        };
        let problem = Problem::new(100, (&options, Precision::Exact), &[0.5f32, 1.0, -3.0], None);
        let stats = |changed| IterationStats { inertia: 1.0 / 3.0, changed, shift: 1e-300 };
        let state = State {
            centroids: vec![0.1f32, 2.0, 3.0, 4.0, 5.0, f32::MIN_POSITIVE],
            before: vec![1.0; 6],
            mean_variance: 0.7,
            history: vec![stats(100), stats(3)],
        };
        write::<f32>(&path, &problem, &state).unwrap();
        assert_eq!(read::<f32>(&path, &problem).unwrap(), state);

        let whole = std::fs::read(&path).unwrap();
        let reason = |bytes: &[u8], problem: &Problem| {
            std::fs::write(&path, bytes).unwrap();
            read::<f32>(&path, problem).unwrap_err().to_string()
        };
        for cut in 0..whole.len() {
            assert!(!reason(&whole[..cut], &problem).is_empty());
        }
        assert!(reason(&[&whole[..], b"x"].concat(), &problem).contains("length"));
        assert!(reason(b"a text", &problem).contains("not a checkpoint"));
        for at in MAGIC.len() + HEAD * 8..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(reason(&damaged, &problem).contains("damaged"), "byte {at}");
        }
        // Iterations beyond what a file can have.
        let mut hostile = whole.clone();
        hostile[MAGIC.len() + 40..][..8].fill(0xff);
        assert!(reason(&hostile, &problem).contains("length"));
        for other in [
            Problem { n: 99, ..problem },
            Problem { k: 3, ..problem },
            Problem { metric: Metric::Dot, ..problem },
            Problem { empty_clusters: EmptyClusters::Relocate, ..problem },
            Problem { precision: Precision::Tf32, ..problem },
            Problem { first: 0, ..problem },
        ] {
            assert!(reason(&whole, &other).contains("not of this one"));
        }
        std::fs::write(&path, &whole).unwrap();
        assert!(read::<half::f16>(&path, &problem).is_err());
        // Finite in the type of centroids, and not in that of the points.
        let wide = State { centroids: vec![1e6f32; 6], ..state };
        write::<half::f16>(&path, &problem, &wide).unwrap();
        assert!(read::<half::f16>(&path, &problem).unwrap_err().to_string().contains("not finite"));
        // What a fit is told apart by, whatever comes together.
        let mut heads = std::collections::HashSet::new();
        for metric in [Metric::Euclidean, Metric::Cosine, Metric::Dot, Metric::SphericalDot] {
            for empty_clusters in [EmptyClusters::Keep, EmptyClusters::Relocate] {
                for precision in [Precision::Exact, Precision::Tf32] {
                    let problem = Problem { metric, empty_clusters, precision, ..problem };
                    heads.extend([problem.head::<f32>(), problem.head::<f64>()]);
                    heads.extend([problem.head::<half::f16>(), problem.head::<half::bf16>()]);
                }
            }
        }
        assert_eq!(heads.len(), 4 * 2 * 2 * 4);
        std::fs::remove_file(&path).unwrap();
    }
}
