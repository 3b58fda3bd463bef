/*!
Exact Lloyd's k-means on GPU and CPU, in pure Rust.

# Brief overview

[`FlashKMeans`] is the builder: it holds the options, and [`FlashKMeans::fit`] clusters points given as an
`ndarray` view, `(n, d)` for one problem or `(batch, n, d)` for many independent ones. The result is a
[`KMeans`]: centroids, labels, inertia, iterations and history. The N×K matrix of distances never
exists, on either backend.

- *Exact*: a label is the nearest centroid in float64 arithmetic, the lowest index among equals.
- *Reproducible*: the same points, options and backend give the same bits on every run.
- *Consistent*: labels, sizes and inertia belong to the centroids that are returned with them.

# Example

```
use flash_kmeans::{Backend, FlashKMeans};
use ndarray::array;

let points = array![[0.0f32, 0.0], [0.1, 0.0], [9.0, 9.0], [9.1, 9.0]];
let model = FlashKMeans::new(2).backend(Backend::Cpu).seed(7).fit(points.view())?;

assert_eq!(model.labels()[0], model.labels()[1]);
assert_ne!(model.labels()[0], model.labels()[2]);
assert!(model.converged());
# Ok::<(), flash_kmeans::Error>(())
```

# Processes and threads

Everything may be called from many threads at once, and models may be used and dropped on any of them, in any order. The CPU
works on rayon's global pool (`RAYON_NUM_THREADS`), or on the pool that a call is made from
(`rayon::ThreadPool::install`); results do not depend on it. On GPUs each call works in their primary contexts, on streams of
its own, and leaves the context current that its caller had.

A process may fork before its first call, and both go on. What was used before a fork does not survive it in the child: a
call there that would wait for the threads of the parent, or use its GPUs, is refused with
[`Error::BackendUnavailable`]. The child may start a program, or call from a pool of its own, where the CPU works as ever.
What a program uses of rayon or CUDA by itself before it forks is not known here.
*/

mod backend;
mod compiled;
mod element;
mod error;
mod init;
pub mod io;
#[cfg(feature = "linfa")]
pub mod linfa;
mod lloyd;
mod memory;
mod metric;
mod mini_batch;
mod model;
mod neighbours;
mod observer;
mod params;
mod points;
mod process;
#[cfg(feature = "mpi")]
mod ranks;
mod relocate;
pub mod report;
mod restarts;
mod rng;
#[cfg(feature = "safetensors")]
mod safetensors;
#[cfg(feature = "cuda")]
pub mod stages;
mod stream;
#[cfg(feature = "cuda")]
#[doc(hidden)]
pub mod tuning;
mod weights;
#[cfg(feature = "cuda")]
mod workspace;

#[cfg(feature = "cuda")]
pub use backend::cuda::PageLocked;
pub use backend::{DeviceInfo, devices};
pub use element::{DType, Element, Float};
pub use error::{Error, Result};
pub use metric::Metric;
pub use mini_batch::MiniBatch;
pub use model::{BatchSummary, IterationStats, KMeans};
pub use neighbours::Nearest;
pub use observer::{IterationEnd, Observer, Progress};
pub use params::{Backend, EmptyClusters, FlashKMeans, Init, Precision};
pub use points::PointsDim;
#[cfg(feature = "mpi")]
pub use ranks::part_of;
#[cfg(feature = "safetensors")]
pub use safetensors::ModelFile;
pub use stream::{Chunks, Source, Streaming};
pub use weights::Weighted;
#[cfg(feature = "cuda")]
pub use workspace::{DevicePoints, Workspace};
