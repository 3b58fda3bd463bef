//! No time counts before its result does: inertia and labels against float64.
use serde::{Deserialize, Serialize};

use super::case::{Case, DType};

/// A relative difference of inertia beyond this is wrong, whatever the type that it was computed in.
const WRONG_INERTIA: f64 = 1e-2;
/// With a smaller share of the labels right, the result is wrong.
const WRONG_LABELS: f64 = 0.9;
/// With a smaller share of the labels right, the precision of the arithmetic shows.
const IMPRECISE_LABELS: f64 = 0.99;

/// How a result compares with float64's on a sample of the points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Difference {
    /// Of the inertia, relative; infinite for a result that cannot be weighed at all.
    pub(crate) inertia: f64,
    /// Share of labels that are float64's; `None` where a result has no labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Grade {
    Holds,
    /// Right but for its precision: the time counts, and the miss is told.
    Imprecise,
    /// The time does not count.
    Wrong,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) grade: Grade,
    #[serde(flatten)]
    pub(crate) difference: Difference,
}

/// The largest difference of inertia that results of points of type `dtype` may have.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 | DType::BF16 => 1e-3,
        DType::F32 => 1e-5,
    }
}

/// Weighs a result.
pub(crate) fn judge(case: &Case, mut difference: Difference) -> Verdict {
    // JSON knows neither NaN nor infinity.
    if !difference.inertia.is_finite() {
        difference.inertia = f64::MAX;
    }
    let (inertia, labels) = (difference.inertia.abs(), difference.labels.unwrap_or(1.0));
    let grade = if inertia > WRONG_INERTIA || labels < WRONG_LABELS {
        Grade::Wrong
    } else if inertia > tolerance(case.dtype) || labels < IMPRECISE_LABELS {
        Grade::Imprecise
    } else {
        Grade::Holds
    };
    Verdict { grade, difference }
}

impl Verdict {
    /// Both of two results of one implementation: the worse grade, the larger difference.
    pub(crate) fn and(self, other: Verdict) -> Verdict {
        let (mut worse, better) = if other.difference.inertia.abs() > self.difference.inertia.abs() {
            (other, self)
        } else {
            (self, other)
        };
        worse.grade = worse.grade.max(better.grade);
        worse.difference.labels = worse.difference.labels.or(better.difference.labels);
        worse
    }
}
