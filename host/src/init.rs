//! First centroids.
use crate::element::Element;
use crate::error::Result;
use crate::params::Init;
use crate::points::Problem;

/// `batch · k · d` first centroids. Problem `b` of a batch draws from stream `b` of the seed's generator.
pub(crate) fn centroids<T: Element>(
    _init: &Init,
    _problem: &Problem<'_, T>,
    _k: usize,
    _seed: u64,
) -> Result<Vec<T::Centroid>> {
    todo!()
}
