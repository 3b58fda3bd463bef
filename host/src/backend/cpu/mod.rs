//! The CPU backend.
use super::{Assignment, LloydOptions, LloydOutcome};
use crate::element::Element;
use crate::error::Result;
use crate::points::Problem;

pub(crate) fn describe() -> String {
    todo!()
}
pub(crate) fn fit<T: Element>(
    _problem: &Problem<'_, T>,
    _centroids: Vec<T::Centroid>,
    _options: &LloydOptions,
) -> Result<LloydOutcome<T::Centroid>> {
    todo!()
}
pub(crate) fn assign<T: Element>(
    _problem: &Problem<'_, T>,
    _centroids: &[T::Centroid],
    _k: usize,
) -> Result<Assignment> {
    todo!()
}
