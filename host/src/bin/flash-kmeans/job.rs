//! The MPI job that this process is one of, if it is.
use crate::failure::Failure;

/// Processes of the job that started this one; 1 where none did.
fn size() -> usize {
    let variables = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS"];
    let sizes = variables.iter().filter_map(|name| std::env::var(name).ok()?.parse().ok());
    sizes.max().unwrap_or(1)
}

/// Refuses to be one of several processes where each would do the whole work.
pub(crate) fn refuse(why: &str) -> Result<(), Failure> {
    match size() {
        1 => Ok(()),
        size => Err(Failure::bad_input(format!("one of {size} processes of an MPI job: {why}"))),
    }
}

#[cfg(feature = "mpi")]
pub(crate) use with_mpi::Job;

#[cfg(feature = "mpi")]
mod with_mpi {
    use super::size;
    use crate::failure::Failure;
    use mpi::Threading;
    use mpi::environment::Universe;
    use mpi::topology::SimpleCommunicator;
    use mpi::traits::{Communicator, Destination, Source};

    /// A job of several processes.
    pub(crate) struct Job {
        /// Ends MPI when it is dropped.
        _universe: Universe,
        world: SimpleCommunicator,
    }

    impl Job {
        /// The job, where there is one.
        pub(crate) fn join() -> Result<Option<Self>, Failure> {
            if size() == 1 {
                return Ok(None);
            }
            let no_mpi = || Failure::bad_input("MPI does not start, or has been started already");
            let (universe, _) = mpi::initialize_with_threading(Threading::Funneled).ok_or_else(no_mpi)?;
            let world = universe.world();
            Ok(Some(Job { _universe: universe, world }))
        }

        pub(crate) fn world(&self) -> &SimpleCommunicator {
            &self.world
        }

        pub(crate) fn is_first(&self) -> bool {
            self.world.rank() == 0
        }

        /// Says why and ends all processes.
        pub(crate) fn fail(&self, failure: &Failure) -> ! {
            eprintln!("error: rank {}: {failure}", self.world.rank());
            self.world.abort(i32::from(failure.code()))
        }

        /// The labels of all points, in the first process; `labels` are those of this one's part.
        pub(crate) fn gather(&self, labels: &[u32], n: usize) -> Vec<u32> {
            /// Labels of a message: far fewer than MPI can count.
            const MESSAGE: usize = 1 << 24;
            if !self.is_first() {
                labels.chunks(MESSAGE).for_each(|part| self.world.process_at_rank(0).send(part));
                return Vec::new();
            }
            let mut all = vec![0; n];
            all[..labels.len()].copy_from_slice(labels);
            for rank in 1..self.world.size() {
                let part = &mut all[flash_kmeans::part_of(n, rank, self.world.size())];
                part.chunks_mut(MESSAGE).for_each(|part| {
                    self.world.process_at_rank(rank).receive_into(part);
                });
            }
            all
        }
    }
}
