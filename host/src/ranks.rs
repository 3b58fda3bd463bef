//! Fits by the processes of an MPI job, each with a part of the points.
use crate::backend::{DeviceInfo, devices};
use crate::element::{DType, Element};
use crate::error::{Error, Result};
use crate::lloyd::Together;
use crate::memory::filled;
use crate::model::KMeans;
use crate::observer::Observer;
use crate::params::{Backend, FlashKMeans};
use crate::stream::{Source, Streaming};
use ::mpi::traits::{Communicator, Destination, Root, Source as _};
use ndarray::Ix2;
use std::ops::Range;

/// Values of a message: far fewer than MPI can count.
const MESSAGE: usize = 1 << 22;

impl FlashKMeans {
    /// [`fit_stream`](Self::fit_stream) by all processes of `world` together, each of which reads its
    /// [`part`](part_of) of the source and calls this with the same options. Sums are added in the order of the ranks:
    /// the bits depend on the backend and the number of processes alone, and are those of one process where that is the number.
    ///
    /// All processes compute on GPUs, or all on CPUs. [`Backend::Auto`](crate::Backend::Auto) is GPUs where each process has
    /// one it can use: those of a host take turns at its devices. [`Backend::CudaSet`](crate::Backend::CudaSet) names the
    /// devices of each host, which its processes share out: several to a process, or several processes to a device, each of
    /// which then takes its share of the memory. [`Backend::Cuda`](crate::Backend::Cuda) is one device a host.
    ///
    /// Centroids, sizes, inertia and history are those of all points, in each process; labels are those of its part.
    /// The first process alone writes checkpoints; all read them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for
    /// [`EmptyClusters::Relocate`](crate::EmptyClusters::Relocate), where some processes are to compute on GPUs and others on
    /// CPUs, and on GPUs for fewer points than processes; as [`fit_stream`](Self::fit_stream), where it happens: the other
    /// processes wait for this one then, which has to end the job. An observer has to stop the fit in all processes or to end
    /// the job.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::{FlashKMeans, Streaming};
    /// use ndarray::array;
    ///
    /// // A process that `mpirun` did not start is a job of its own.
    /// let universe = mpi::initialize().unwrap();
    /// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).fit_mpi(&points, &Streaming::new(), &mut (), &universe.world())?;
    /// assert_eq!(model.inertia(), 1.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
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
        let options = self.of_rank(T::DTYPE, &ranks)?;
        let n = source.n_points();
        if options.asked().0 != Backend::Cpu && n < world.size().max(1) as usize {
            let rule = "on GPUs each process of a job must have a point";
            return Err(Error::InvalidArgument { argument: "n", value: n.to_string(), rule });
        }
        let mut model = T::fit_part(&options, source, rows, &streaming, observer, &ranks)?;
        let mut sizes: Vec<f64> = model.sizes().iter().map(|&size| size as f64).collect();
        ranks.add_up(&mut sizes)?;
        model.set_sizes(sizes.into_iter().map(|size| size as u64));
        Ok(model)
    }

    /// The options of this process: all of the job compute on GPUs, or all on CPUs.
    fn of_rank(&self, dtype: DType, ranks: &Ranks<'_, impl Communicator>) -> Result<Self> {
        let (asked, ..) = self.asked();
        let host = ranks.0.split_shared(ranks.0.rank());
        let (rank, ranks_here) = (host.rank().max(0) as usize, host.size().max(1) as usize);
        let options = if asked == Backend::Cpu { None } else { self.on_gpus(dtype, rank, ranks_here)? };
        let mut gpus = [f64::from(u8::from(options.is_some()))];
        ranks.add_up(&mut gpus)?;
        match options {
            Some(options) if gpus[0] == f64::from(ranks.0.size()) => Ok(options),
            None if asked == Backend::Cpu && gpus[0] == 0.0 => Ok(self.clone()),
            _ if asked == Backend::Auto => {
                if ranks.0.rank() == 0 {
                    tracing::info!(
                        "backend cpu: {} of {} processes have a usable GPU",
                        gpus[0],
                        ranks.0.size()
                    );
                }
                Ok(self.clone().backend(Backend::Cpu))
            }
            _ => Err(Error::InvalidArgument {
                argument: "backend",
                value: asked.to_string(),
                rule: "all processes of a job must compute on GPUs, or all on CPUs",
            }),
        }
    }

    /// The options of process `rank` of the `ranks` on a host, with its devices and its share of their memory. `None` where
    /// it is not said what to compute on, and there is no GPU that it can use.
    fn on_gpus(&self, dtype: DType, rank: usize, ranks: usize) -> Result<Option<Self>> {
        let (asked, ..) = self.asked();
        let of_device = |device: DeviceInfo| match device.backend {
            Backend::Cuda { ordinal } => Some((ordinal, device.memory_bytes)),
            _ => None,
        };
        let found: Vec<(u32, u64)> = devices().into_iter().filter_map(of_device).collect();
        let set: Vec<u32> = match asked {
            Backend::Cpu => Vec::new(),
            Backend::Cuda { ordinal } => vec![ordinal],
            Backend::CudaSet { ordinals } => Backend::ordinals(ordinals).collect(),
            Backend::Auto => found.iter().map(|&(ordinal, _)| ordinal).collect(),
        };
        let share = share_of(&set, rank, ranks);
        let (first, backend) = match *share {
            [] => return Ok(None),
            [first, _, ..] if asked != Backend::Auto => (first, Backend::cuda_devices(share)?),
            [first, ..] => (first, Backend::Cuda { ordinal: first }),
        };
        let users = ranks.div_ceil(set.len()) as u64;
        let bytes = found.iter().find(|(ordinal, _)| *ordinal == first).map(|&(_, bytes)| bytes);
        // An eighth is left to the driver, which has some for each process.
        let memory = bytes.filter(|_| users > 1).map(|bytes| bytes / users / 8 * 7);
        let options = self.clone().backend(backend).gpu_memory_or(memory);
        if asked != Backend::Auto {
            return Ok(Some(options));
        }
        match options.engine(dtype) {
            Ok(_) => Ok(Some(options)),
            Err(Error::BackendUnavailable { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The devices of a host that process `rank` of the `ranks` on it takes: each of them in its turn.
fn share_of(devices: &[u32], rank: usize, ranks: usize) -> Vec<u32> {
    match devices.len() {
        0 => Vec::new(),
        count if count <= ranks => vec![devices[rank % count]],
        _ => devices.iter().copied().skip(rank).step_by(ranks).collect(),
    }
}

/// The rows of `n` that process `rank` of `size` has.
///
/// # Examples
/// ```
/// use flash_kmeans::part_of;
///
/// assert_eq!([0, 1, 2].map(|rank| part_of(10, rank, 3)), [0..3, 3..6, 6..10]);
/// ```
pub fn part_of(n: usize, rank: i32, size: i32) -> Range<usize> {
    let (rank, size) = (rank.max(0) as u128, size.max(1) as u128);
    let at = |rank: u128| (n as u128 * rank / size) as usize;
    at(rank)..at(rank + 1)
}

struct Ranks<'a, C>(&'a C);

impl<C: Communicator> Together for Ranks<'_, C> {
    fn is_alone(&self) -> bool {
        self.0.size() == 1
    }

    fn largest(&self, value: f32) -> Result<f32> {
        let mut values = vec![0.0; self.0.size().max(1) as usize];
        values[self.0.rank().max(0) as usize] = f64::from(value);
        self.add_up(&mut values)?;
        Ok(values.into_iter().fold(f32::NEG_INFINITY, |most, value| most.max(value as f32)))
    }

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
    fn processes_of_a_host_share_its_devices_out() {
        let devices = [0, 2, 3, 5];
        for ranks in [1, 2, 3, 4, 6] {
            let taken: Vec<_> = (0..ranks).flat_map(|rank| share_of(&devices, rank, ranks)).collect();
            assert!(devices.iter().all(|device| taken.contains(device)), "{ranks} {taken:?}");
            assert_eq!(taken.len(), ranks.max(4));
        }
        assert_eq!(share_of(&devices, 1, 2), [2, 5]);
        assert_eq!(share_of(&devices, 5, 6), [2]);
        assert_eq!(share_of(&[], 0, 2), [0; 0]);
    }

    #[test]
    fn parts_cover_all_rows() {
        for (n, size) in [(10, 3), (2, 4), (1_000_000_007, 7)] {
            let parts: Vec<_> = (0..size).map(|rank| part_of(n, rank, size)).collect();
            assert_eq!((parts[0].start, parts[size as usize - 1].end), (0, n));
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}
