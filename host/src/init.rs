//! First centroids.
use crate::element::{Element, Float};
use crate::error::Result;
use crate::params::Init;
use crate::points::Problem;

/// temp
pub(crate) fn centroids<T: Element>(
    init: &Init,
    problem: &Problem<'_, T>,
    k: usize,
    _seed: u64,
) -> Result<Vec<T::Centroid>> {
    if let Init::Given(a) = init {
        return Ok(a.iter().map(|&v| T::Centroid::from_f64(v)).collect());
    }
    Ok((0..problem.batch)
        .flat_map(|b| {
            problem.of_batch(b)[..k * problem.d].iter().map(|v| v.to_centroid()).collect::<Vec<_>>()
        })
        .collect())
}
