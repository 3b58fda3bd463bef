//! Fits by the processes of an MPI job, each with a part of the points.
use crate::element::Element;
use crate::error::Result;
use crate::lloyd::Together;
use crate::memory::filled;
use crate::model::KMeans;
use crate::observer::Observer;
use crate::params::FlashKMeans;
use crate::stream::{Source, Streaming};
use ::mpi::traits::{Communicator, Destination, Root, Source as _};
use ndarray::Ix2;
use std::ops::Range;

/// Values of a message: far fewer than MPI can count.
const MESSAGE: usize = 1 << 22;

impl FlashKMeans {
    /// [`fit_stream`](Self::fit_stream) by all processes of `world` together, each of which reads its
    /// [`part`](part_of) of the source and calls this with the same options. Sums are added in the order of the ranks:
    /// the bits depend on the number of processes alone, and are those of one process where that is the number.
    ///
    /// Centroids, sizes, inertia and history are those of all points, in each process; labels are those of its part.
    /// The first process alone writes checkpoints; all read them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for
    /// [`EmptyClusters::Relocate`](crate::EmptyClusters::Relocate); as [`fit_stream`](Self::fit_stream), where it happens: the other processes wait for this one then, which has to
    /// end the job. An observer has to stop the fit in all processes or to end the job.
    pub fn fit_mpi<T: Element, S: Source<T>>(
        &self,
        source: &S,
        streaming: &Streaming,
        observer: &mut dyn Observer<T::Centroid>,
        world: &impl Communicator,
    ) -> Result<KMeans<T, Ix2>> {
        self.check_keeps("several processes keep the centroids of empty clusters")?;
        let rows = part_of(source.n_points(), world.rank(), world.size());
        let streaming = if world.rank() == 0 { streaming.clone() } else { streaming.clone().no_checkpoint() };
        let ranks = Ranks(world);
        let mut model = T::fit_part(self, source, rows, &streaming, observer, &ranks)?;
        let mut sizes: Vec<f64> = model.sizes().iter().map(|&size| size as f64).collect();
        ranks.add_up(&mut sizes)?;
        model.set_sizes(sizes.into_iter().map(|size| size as u64));
        Ok(model)
    }
}

/// The rows of `n` that process `rank` of `size` has.
pub fn part_of(n: usize, rank: i32, size: i32) -> Range<usize> {
    let (rank, size) = (rank.max(0) as u128, size.max(1) as u128);
    let at = |rank: u128| (n as u128 * rank / size) as usize;
    at(rank)..at(rank + 1)
}

struct Ranks<'a, C>(&'a C);

impl<C: Communicator> Together for Ranks<'_, C> {
    fn add_up(&self, values: &mut [f64]) -> Result<()> {
        let world = self.0;
        let root = world.process_at_rank(0);
        let mut others = if world.rank() == 0 {
            filled(0.0, values.len().min(MESSAGE), "sums of others")?
        } else {
            Vec::new()
        };
        for values in values.chunks_mut(MESSAGE) {
            if world.rank() == 0 {
                for rank in 1..world.size() {
                    let others = &mut others[..values.len()];
                    world.process_at_rank(rank).receive_into(others);
                    values.iter_mut().zip(others).for_each(|(sum, other)| *sum += *other);
                }
            } else {
                root.send(&*values);
            }
            root.broadcast_into(values);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_rows() {
        for (n, size) in [(10, 3), (2, 4), (1_000_000_007, 7)] {
            let parts: Vec<_> = (0..size).map(|rank| part_of(n, rank, size)).collect();
            assert_eq!((parts[0].start, parts[size as usize - 1].end), (0, n));
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}
