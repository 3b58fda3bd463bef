//! What a run leaves behind: one JSON object a line.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::case::{Case, Suite};
use super::gate::Verdict;
use crate::Result;
use crate::workspace::read;

/// The name that this project's own measurements go by.
pub(crate) const OURS: &str = "flash-kmeans-rs";
/// It, with labels of f32 points that are not exact.
pub(crate) const OURS_TF32: &str = "flash-kmeans-rs (tf32)";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(crate) enum Record {
    Run(Run),
    Implementation(Implementation),
    /// The GPU's state at some point of the run, as nvidia-smi tells it.
    Clocks {
        when: String,
        sm_mhz: String,
        memory_mhz: String,
        celsius: String,
        watts: String,
    },
    /// What the hardware can do at best: TFLOP/s of a matrix product, GB/s of a copy.
    Ceiling {
        name: String,
        value: f64,
        unit: String,
    },
    Measurement(Measurement),
    /// What the run's time did not suffice for.
    Unmeasured {
        suite: Suite,
        case: Case,
    },
}

/// The circumstances.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) date: String,
    pub(crate) command: String,
    pub(crate) version: String,
    pub(crate) gpu: Option<String>,
    pub(crate) driver: Option<String>,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) seed: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Implementation {
    pub(crate) name: String,
    pub(crate) versions: BTreeMap<String, String>,
    /// Why it takes no part.
    pub(crate) absent: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub(crate) suite: Suite,
    /// A process from its start, in place of a call in a running one.
    #[serde(default)]
    pub(crate) cold: bool,
    pub(crate) case: Case,
    pub(crate) implementation: String,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum Outcome {
    Measured {
        time: Time,
        gate: Verdict,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// It does not do this, by its own account.
    Skipped {
        reason: String,
    },
    Failed {
        reason: String,
    },
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Time {
    pub(crate) median: f64,
    /// Not known where an implementation tells its median only.
    pub(crate) p10: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) samples: usize,
}

impl Time {
    /// Of samples in any order; `None` without any, or with one that is not a time.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        if samples.is_empty() || samples.iter().any(|ms| !(ms.is_finite() && *ms > 0.0)) {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (sorted.len() - 1) as f64;
            let (low, part) = (place.floor() as usize, place.fract());
            sorted[low] + part * (sorted[(low + 1).min(sorted.len() - 1)] - sorted[low])
        };
        let spread = |share| (sorted.len() > 1).then(|| at(share));
        Some(Time { median: at(0.5), p10: spread(0.1), p90: spread(0.9), samples: sorted.len() })
    }
}

/// Writes records as they come, so that a run that breaks off leaves what it had.
pub(crate) struct Log(File);

impl Log {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        File::create(path).map(Log).map_err(|error| format!("cannot create {}: {error}", path.display()))
    }

    pub(crate) fn add(&mut self, record: &Record) -> Result<()> {
        let line = serde_json::to_string(record).map_err(|error| error.to_string())?;
        writeln!(self.0, "{line}").map_err(|error| format!("cannot write the records: {error}"))
    }
}

/// The records of a file.
pub(crate) fn load(path: &Path) -> Result<Vec<Record>> {
    parse(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))
}

pub(crate) fn parse(text: &str) -> Result<Vec<Record>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_samples_and_nonsense_is_no_time() {
        let time = Time::of(&[3.0, 1.0, 2.0, 5.0, 4.0]).unwrap();
        assert_eq!((time.median, time.samples), (3.0, 5));
        assert!((time.p10.unwrap() - 1.4).abs() < 1e-12 && (time.p90.unwrap() - 4.6).abs() < 1e-12);
        assert_eq!(Time::of(&[2.0]).unwrap(), Time { median: 2.0, p10: None, p90: None, samples: 1 });
        assert_eq!(Time::of(&[]), None);
        assert_eq!(Time::of(&[1.0, f64::NAN]), None);
        assert_eq!(Time::of(&[1.0, 0.0]), None);
    }
}
