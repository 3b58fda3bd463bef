//! What is measured: the suites and their shapes.
use std::fmt;

use serde::{Deserialize, Serialize};

/// The type of the points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DType {
    F16,
    BF16,
    F32,
}

impl DType {
    pub(crate) fn bytes(self) -> usize {
        match self {
            DType::F16 | DType::BF16 => 2,
            DType::F32 => 4,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
        }
    }
}

/// `batch` problems of `n` points in `d` dimensions, with `k` clusters each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) batch: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) d: usize,
    pub(crate) dtype: DType,
}

impl Case {
    pub(crate) const fn new(batch: usize, n: usize, k: usize, d: usize, dtype: DType) -> Self {
        Case { batch, n, k, d, dtype }
    }

    /// Values of all points.
    pub(crate) fn values(&self) -> usize {
        self.batch * self.n * self.d
    }

    /// Rows of all problems.
    pub(crate) fn rows(&self) -> usize {
        self.batch * self.n
    }

    /// Floating-point operations of one assignment: a multiplication and an addition for each point, centroid and
    /// feature.
    pub(crate) fn flops(&self) -> f64 {
        2.0 * self.values() as f64 * self.k as f64
    }

    /// Bytes of all points.
    pub(crate) fn point_bytes(&self) -> f64 {
        (self.values() * self.dtype.bytes()) as f64
    }

    /// Reads `B,N,K,D,TYPE`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is no shape; write B,N,K,D,TYPE as in 1,1048576,8192,128,f16");
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        let &[batch, n, k, d, dtype] = words.as_slice() else { return Err(wrong()) };
        let number = |word: &str| word.parse().ok().filter(|&value: &usize| value > 0).ok_or_else(wrong);
        let dtype = match dtype {
            "f16" => DType::F16,
            "bf16" => DType::BF16,
            "f32" => DType::F32,
            _ => return Err(wrong()),
        };
        let case = Case::new(number(batch)?, number(n)?, number(k)?, number(d)?, dtype);
        if case.k > case.n { Err(format!("{text}: more clusters than points")) } else { Ok(case) }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { batch, n, k, d, dtype } = self;
        if *batch > 1 {
            write!(f, "{batch}×")?;
        }
        write!(f, "{}, k {}, d {d}, {}", short(*n), short(*k), dtype.name())
    }
}

/// 1048576 as `1Mi`, 75600 as it is: powers of two are what most shapes are made of.
fn short(number: usize) -> String {
    for (unit, letter) in [(1 << 20, "Mi"), (1 << 10, "Ki")] {
        if number >= unit && number.is_multiple_of(unit) {
            return format!("{}{letter}", number / unit);
        }
    }
    number.to_string()
}

/// What of a case is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Suite {
    /// Labels of all points under given centroids.
    Assign,
    /// Means of the points of each label.
    Update,
    /// A whole iteration, one after the other.
    Iteration,
    /// A whole call of ten iterations, and a process from its start, by the host's clock.
    Latency,
    /// Points in host memory.
    Streaming,
    /// An iteration on the CPU.
    Cpu,
}

impl Suite {
    pub(crate) const ALL: [Suite; 6] =
        [Suite::Assign, Suite::Update, Suite::Iteration, Suite::Latency, Suite::Streaming, Suite::Cpu];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Suite::Assign => "assign",
            Suite::Update => "update",
            Suite::Iteration => "iteration",
            Suite::Latency => "latency",
            Suite::Streaming => "streaming",
            Suite::Cpu => "cpu",
        }
    }

    /// Iterations after which results are compared; for `latency` and `streaming` also what is timed.
    pub(crate) fn iterations(self) -> usize {
        match self {
            Suite::Assign => 0,
            Suite::Update => 1,
            Suite::Iteration => 2,
            Suite::Latency => 10,
            Suite::Streaming => 3,
            Suite::Cpu => 4,
        }
    }

    /// The cases of a quick run.
    pub(crate) fn quick(self) -> Vec<Case> {
        match self {
            Suite::Assign | Suite::Update => CORE.to_vec(),
            Suite::Iteration => CORE.into_iter().chain([batched(8, 16_384, 100)]).collect(),
            Suite::Latency => CORE[..4].to_vec(),
            Suite::Streaming => vec![streamed(4_194_304)],
            Suite::Cpu => vec![Case::new(1, 20_000, 256, 64, DType::F32)],
        }
    }

    /// The cases that a full run adds.
    pub(crate) fn more(self) -> Vec<Case> {
        match self {
            Suite::Assign => WIDE.into_iter().chain(ASSIGNMENTS).chain(EXTREME).collect(),
            Suite::Update => WIDE.into_iter().chain(EXTREME).collect(),
            Suite::Iteration => {
                let sizes = [16_384, 32_768, 65_536, 131_072];
                let grid = [8, 32].into_iter().flat_map(|batch| {
                    sizes.into_iter().flat_map(move |n| [100, 1000].map(|k| batched(batch, n, k)))
                });
                WIDE.into_iter().chain(grid.skip(1)).chain(EXTREME).collect()
            }
            Suite::Latency => CORE[4..].iter().copied().chain(WIDE).collect(),
            Suite::Streaming => vec![streamed(16_777_216)],
            Suite::Cpu => vec![
                Case::new(1, 100_000, 1000, 128, DType::F32),
                Case::new(1, 100_000, 100, 32, DType::F32),
                Case::new(1, 20_000, 256, 768, DType::F32),
            ],
        }
    }
}

const fn batched(batch: usize, n: usize, k: usize) -> Case {
    Case::new(batch, n, k, 128, DType::F16)
}

const fn streamed(n: usize) -> Case {
    Case::new(1, n, 4096, 128, DType::F32)
}

/// One of each kind: small ones, many clusters, batches, many points, wide ones, f32.
const CORE: [Case; 8] = [
    Case::new(1, 16_384, 256, 128, DType::F16),
    Case::new(64, 4096, 64, 64, DType::F16),
    Case::new(1, 1_048_576, 8192, 128, DType::F16),
    Case::new(32, 75_600, 1000, 128, DType::F16),
    Case::new(1, 8_388_608, 1024, 128, DType::F16),
    Case::new(1, 1_048_576, 8192, 128, DType::BF16),
    Case::new(1, 524_288, 4096, 768, DType::F16),
    Case::new(1, 1_048_576, 8192, 128, DType::F32),
];

const WIDE: [Case; 7] = [
    Case::new(32, 65_536, 1024, 128, DType::F16),
    Case::new(1, 262_144, 256, 128, DType::F16),
    Case::new(1, 4_194_304, 4096, 64, DType::F16),
    Case::new(1, 1_048_576, 4096, 256, DType::F16),
    Case::new(1, 4_194_304, 2048, 128, DType::F32),
    Case::new(1, 524_288, 4096, 768, DType::F32),
    Case::new(1, 1_048_576, 65_536, 128, DType::F16),
];

/// Last, as it takes longest.
const EXTREME: [Case; 1] = [Case::new(1, 33_554_432, 4096, 128, DType::F16)];

/// The shapes that FlashLib's authors tune their assignment on.
const ASSIGNMENTS: [Case; 21] = [
    Case::new(1, 65_536, 4096, 64, DType::F16),
    Case::new(1, 65_536, 256, 128, DType::F16),
    Case::new(1, 65_536, 4096, 128, DType::F16),
    Case::new(1, 1_048_576, 256, 64, DType::F16),
    Case::new(1, 1_048_576, 4096, 64, DType::F16),
    Case::new(1, 1_048_576, 256, 128, DType::F16),
    Case::new(1, 1_048_576, 4096, 128, DType::F16),
    Case::new(1, 1_048_576, 4096, 512, DType::F16),
    Case::new(1, 65_536, 4096, 1024, DType::F16),
    Case::new(1, 65_536, 4096, 4096, DType::F16),
    Case::new(1, 1_048_576, 1024, 128, DType::BF16),
    Case::new(1, 1_048_576, 4096, 128, DType::BF16),
    Case::new(1, 1_048_576, 65_536, 128, DType::BF16),
    Case::new(1, 1_048_576, 4096, 64, DType::F32),
    Case::new(1, 1_048_576, 4096, 128, DType::F32),
    Case::new(1, 1_048_576, 4096, 256, DType::F32),
    Case::new(1, 1_048_576, 4096, 512, DType::F32),
    Case::new(1, 1_048_576, 200_000, 128, DType::BF16),
    Case::new(1, 10_000_000, 20_000, 64, DType::BF16),
    Case::new(1, 10_000_000, 20_000, 128, DType::BF16),
    Case::new(1, 10_000_000, 20_000, 256, DType::BF16),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_and_shown() {
        let case = Case::parse("32,75600,1000,128,f16").unwrap();
        assert_eq!(case, CORE[3]);
        assert_eq!(case.to_string(), "32×75600, k 1000, d 128, f16");
        assert_eq!(CORE[2].to_string(), "1Mi, k 8Ki, d 128, f16");
        assert_eq!(CORE[2].flops(), 2.0 * 1_048_576.0 * 8192.0 * 128.0);
        for wrong in ["", "1,2,3", "1,10,2,0,f16", "1,10,2,3,f64", "1,10,11,3,f16"] {
            assert!(Case::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_suite_has_a_case_twice() {
        for suite in Suite::ALL {
            let mut cases: Vec<_> = suite.quick().into_iter().chain(suite.more()).collect();
            let count = cases.len();
            cases.sort();
            cases.dedup();
            assert_eq!(cases.len(), count, "{}", suite.name());
        }
    }
}
