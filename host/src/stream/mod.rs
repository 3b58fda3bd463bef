//! Fits of points that need not be in memory.
mod ahead;
mod checkpoint;
mod source;

pub use source::{Chunks, Source};

use crate::backend::cpu::CpuWorker;
#[cfg(feature = "cuda")]
use crate::backend::cuda::Frame;
use crate::backend::{Engine, LloydOutcome};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::init::{self, First};
use crate::lloyd::{Alone, Around, State, Together, Worker, lloyd};
use crate::memory::filled;
use crate::model::KMeans;
#[cfg(feature = "cuda")]
use crate::observer::Progress;
use crate::observer::{Observer, Watch};
use crate::params::{FlashKMeans, Init};
use crate::points::{Problem, check_finite};
use crate::process;
use crate::rng::Rng;
use crate::weights;
use ahead::{Ahead, BUFFERS};
use ndarray::Ix2;
use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;

/// Bytes of a chunk where nothing is said of memory.
const CHUNK_BYTES: usize = 64 << 20;
/// Rows for each cluster, and rows at least, that k-means++ and k-means|| see of points that are streamed.
const INIT_ROWS_A_CLUSTER: usize = 64;
const INIT_ROWS: usize = 1 << 17;

/// How points are streamed through a fit: [`FlashKMeans::fit_stream`].
///
/// # Examples
/// ```
/// use flash_kmeans::{FlashKMeans, Streaming};
/// use ndarray::array;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("fit.state");
/// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
/// let streaming = Streaming::new().memory(1 << 30).checkpoint(&path, 10);
/// let model = FlashKMeans::new(2).fit_stream(&points, &streaming, &mut ())?;
/// assert_eq!(model.inertia(), 1.0);
/// assert!(path.exists());
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "options do nothing until fit_stream is called"]
pub struct Streaming {
    memory: Option<u64>,
    checkpoint: Option<(PathBuf, usize)>,
    resume: Option<PathBuf>,
}

impl Streaming {
    /// Three chunks of about 64 MiB, no checkpoints.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, Streaming};
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).fit_stream(&points, &Streaming::new(), &mut ())?;
    /// assert_eq!(model.inertia(), 1.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn new() -> Self {
        Streaming::default()
    }

    /// Bytes that points may take in memory: three chunks of them. Beside them there are 4 bytes a point for the
    /// labels, and the centroids and their sums.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, Streaming};
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let options = FlashKMeans::new(2);
    /// let model = options.fit_stream(&points, &Streaming::new().memory(1 << 30), &mut ())?;
    /// assert_eq!(model.inertia(), 1.0);
    /// // Not three panels.
    /// assert!(options.fit_stream(&points, &Streaming::new().memory(1), &mut ()).is_err());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Writes a checkpoint to `path` after each `every` iterations, and when the fit ends or is stopped. It is
    /// replaced as a whole.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, Streaming};
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("fit.state");
    /// let streaming = Streaming::new().checkpoint(&path, 10);
    /// FlashKMeans::new(2).fit_stream(&points, &streaming, &mut ())?;
    /// assert!(path.exists());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn checkpoint(mut self, path: impl Into<PathBuf>, every: usize) -> Self {
        self.checkpoint = Some((path.into(), every));
        self
    }

    /// Goes on from the checkpoint at `path`, to the bits that the fit would have had without a break.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, Streaming};
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("fit.state");
    /// let options = FlashKMeans::new(2).tol(0.0);
    /// let begun = Streaming::new().checkpoint(&path, 1);
    /// options.clone().max_iter(1).fit_stream(&points, &begun, &mut ())?;
    /// let model = options.fit_stream(&points, &Streaming::new().resume(&path), &mut ())?;
    /// assert_eq!(model.n_iter(), options.fit(points.view())?.n_iter());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn resume(mut self, path: impl Into<PathBuf>) -> Self {
        self.resume = Some(path.into());
        self
    }

    #[cfg(feature = "mpi")]
    pub(crate) fn no_checkpoint(self) -> Self {
        Streaming { checkpoint: None, ..self }
    }

    /// Rows of a chunk: whole panels, as many as `memory` has room for.
    fn chunk_rows(&self, n: usize, d: usize, panel: usize, value_bytes: usize) -> Result<usize> {
        let panel_bytes = panel as u64 * d as u64 * value_bytes as u64;
        let room = self.memory.map_or(u64::MAX, |memory| memory / BUFFERS as u64);
        let panels = (room.min(CHUNK_BYTES as u64) / panel_bytes.max(1)) as usize;
        if room < panel_bytes {
            return Err(Error::InvalidArgument {
                argument: "memory",
                value: format!("{} bytes", self.memory.unwrap_or(0)),
                rule: "three panels of points must fit, which take at least 3 · 16 · 2²⁰ bytes of f32 points and as \
                       many more as there are many clusters",
            });
        }
        Ok(panel.saturating_mul(panels.max(1)).min(n).max(1))
    }
}

impl FlashKMeans {
    /// Clusters points that are read a chunk at a time, once or more for each iteration, while the chunk before is
    /// worked on. The bits of the result are those of [`fit`](Self::fit), whatever the chunks, but for first centroids
    /// by k-means++ and k-means||: these see at most 64 points for each cluster, or 131,072 where that is more, drawn
    /// without replacement.
    ///
    /// # Errors
    /// As [`fit`](Self::fit); those of the source; [`Error::OutOfMemory`]; [`Error::InvalidArgument`] when `memory`
    /// does not hold three panels, for `n_init` above 1, and for
    /// weights as [`fit_weighted`](Self::fit_weighted); [`Error::Stopped`] when the observer broke a pass off;
    /// [`Error::Io`] and [`Error::Format`] for checkpoints.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::{FlashKMeans, Streaming};
    /// use ndarray::array;
    ///
    /// // Arrays are sources; files, iterators and types of your own are others.
    /// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).fit_stream(&points, &Streaming::new(), &mut ())?;
    /// assert_eq!(model.labels(), FlashKMeans::new(2).fit(points.view())?.labels());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn fit_stream<T: Element, S: Source<T>>(
        &self,
        source: &S,
        streaming: &Streaming,
        observer: &mut dyn Observer<T::Centroid>,
    ) -> Result<KMeans<T, Ix2>> {
        T::fit_part(self, source, 0..source.n_points(), streaming, observer, &Alone)
    }

    /// [`fit_stream`](Self::fit_stream) of `rows` of the source, `together` with processes that have the others. The
    /// labels and sizes are those of the part.
    pub(crate) fn fit_part<T: Element>(
        &self,
        source: &dyn Source<T>,
        rows: Range<usize>,
        streaming: &Streaming,
        observer: &mut dyn Observer<T::Centroid>,
        together: &dyn Together,
    ) -> Result<KMeans<T, Ix2>> {
        self.check()?;
        process::check_threads()?;
        let (n, d, k) = (source.n_points(), source.n_features(), self.n_clusters());
        for (argument, value) in [("n", n), ("d", d)] {
            if value == 0 {
                let rule = "points must have at least one row and one column";
                return Err(Error::InvalidArgument { argument, value: "0".into(), rule });
            }
        }
        if k > n {
            return Err(Error::TooManyClusters { k, n });
        }
        self.check_streams()?;
        if streaming.checkpoint.as_ref().is_some_and(|(_, every)| *every == 0) {
            let rule = "there must be at least one iteration between checkpoints";
            return Err(Error::InvalidArgument { argument: "every", value: "0".into(), rule });
        }
        let mut first = filled(T::zeroed(), d, "a point")?;
        source.read(0..1, &mut first)?;
        check_finite(&first, 0, d)?;
        let mut weights = source.weights();
        if let Some(all) = weights {
            if all.len() != n {
                let (expected, actual) = (format!("[{n}]"), format!("[{}]", all.len()));
                return Err(Error::Shape { what: "weights", expected, actual });
            }
            weights = weights::check(all, n)?.then_some(all);
        }
        let part = Part { source, rows, first, weights };
        let (here, metric) = (part.rows.len(), self.lloyd_options().metric);
        let of_part = weights.map(|all| &all[part.rows.clone()]);
        match self.engine(T::DTYPE)? {
            #[cfg(feature = "cuda")]
            Engine::Cuda(gpus) => {
                let panel = crate::backend::cuda::panel_rows(here, k)?;
                let chunk_rows = streaming.chunk_rows(here, d, panel, size_of::<T>())?;
                // First centroids before the worker, which takes all of the GPU's memory.
                let state = self.start(&Engine::Cuda(gpus.clone()), &part, streaming)?;
                let frame = if gpus.shares_frame::<T>(metric) {
                    Some(frame_of(&part, k, chunk_rows, &Watch::new(observer), together)?)
                } else {
                    None
                };
                let task = ([here, k], metric, self.lloyd_options().relocates());
                let worker = gpus.worker(task, &part.first, (of_part, frame), chunk_rows)?;
                let outcome = self.fit_with(worker, state, part, streaming, observer, together)?;
                KMeans::new(outcome, (Engine::Cuda(gpus), metric), (1, here, d))
            }
            Engine::Cpu => {
                let worker = CpuWorker::new(n, here, (k, metric), &part.first, of_part)?;
                let chunk_rows = streaming.chunk_rows(here, d, worker.panel_rows(), size_of::<T>())?;
                let (state, worker) = (self.start(&Engine::Cpu, &part, streaming)?, (worker, chunk_rows));
                let outcome = self.fit_with(worker, state, part, streaming, observer, together)?;
                KMeans::new(outcome, (Engine::Cpu, metric), (1, here, d))
            }
        }
    }

    /// What a checkpoint is of.
    fn checkpointed<T: Element>(&self, part: &Part<'_, T>) -> checkpoint::Problem {
        let how = (&self.lloyd_options(), self.asked_precision());
        checkpoint::Problem::new(part.source.n_points(), how, &part.first, part.weights)
    }

    /// Where the fit begins: first centroids, or a checkpoint.
    fn start<T: Element>(
        &self,
        engine: &Engine,
        part: &Part<'_, T>,
        streaming: &Streaming,
    ) -> Result<State<T::Centroid>> {
        match &streaming.resume {
            Some(path) => checkpoint::read::<T>(path, &self.checkpointed(part)),
            None => Ok(State::new(self.first_centroids(engine, part.source, part.weights, streaming)?)),
        }
    }

    /// The fit, by one worker, in chunks of so many rows.
    fn fit_with<T: Element, W: Worker<T>>(
        &self,
        (mut worker, chunk_rows): (W, usize),
        state: State<T::Centroid>,
        part: Part<'_, T>,
        streaming: &Streaming,
        observer: &mut dyn Observer<T::Centroid>,
        together: &dyn Together,
    ) -> Result<LloydOutcome<T::Centroid>> {
        let problem = self.checkpointed(&part);
        let Part { source, rows, first, .. } = part;
        let (here, d) = (rows.len(), first.len());
        let mut keep = |state: &State<T::Centroid>, is_last: bool| match &streaming.checkpoint {
            Some((path, every)) if is_last || state.history.len() % every == 0 => {
                checkpoint::write::<T>(path, &problem, state)
            }
            _ => Ok(()),
        };
        let options = self.lloyd_options();
        let watch = Watch::new(observer);
        let around = Around { problem: 0, watch: &watch, together, keep: &mut keep };
        let mut ahead = Ahead { source, rows, chunk_rows, unchecked: true };
        let (centroids, summary) = lloyd(&mut worker, &mut ahead, state, (here, d, &options), around)?;
        Ok(LloydOutcome { centroids, labels: worker.into_labels()?, problems: vec![summary] })
    }

    /// First centroids, `k · d` values.
    fn first_centroids<T: Element>(
        &self,
        engine: &Engine,
        source: &dyn Source<T>,
        weights: Option<&[f64]>,
        streaming: &Streaming,
    ) -> Result<Vec<T::Centroid>> {
        let (n, d, k) = (source.n_points(), source.n_features(), self.n_clusters());
        let (_, init, seed) = self.asked();
        let metric = self.lloyd_options().metric;
        let read = |rows: &[usize]| {
            let len = rows.len().saturating_mul(d);
            let mut points = filled(T::zeroed(), len, "points to draw centroids from")?;
            read_rows(source, rows.iter().copied(), &mut points).map(|()| points)
        };
        let rows = match init {
            Init::Given(given) => return init::given_centroids::<T>(given, 1, (k, metric), d),
            Init::Random => {
                let drawn = init::random_rows(n, k, weights, &mut Rng::new(seed, 0));
                let mut sorted = drawn.clone();
                sorted.sort_unstable();
                let points = read(&sorted)?;
                let of = |row: &usize| sorted.binary_search(row).unwrap_or(0);
                let values = drawn.iter().flat_map(|row| &points[of(row) * d..][..d]);
                let mut values: Vec<_> = values.map(|v| v.to_centroid()).collect();
                metric.normalise::<T>(&mut values, d);
                return Ok(values);
            }
            _ => INIT_ROWS.max(k.saturating_mul(INIT_ROWS_A_CLUSTER)),
        };
        let room =
            streaming.memory.map_or(usize::MAX, |memory| (memory / (d * size_of::<T>()) as u64) as usize);
        let rows = rows.min(room.max(k));
        let (sample, weights) = if n <= rows {
            let mut points = filled(T::zeroed(), n.saturating_mul(d), "points to draw centroids from")?;
            source.read(0..n, &mut points)?;
            (points, weights.map(Cow::Borrowed))
        } else {
            let rows = init::sampled_rows(n, rows, seed, 0);
            (read(&rows)?, weights::of_rows(weights, &rows))
        };
        let problem = Problem { n: sample.len() / d, points: Cow::Owned(sample), batch: 1, d, weights };
        engine.first_centroids(&problem, First { init, seed }, (k, metric))
    }
}

/// Points that one process fits.
struct Part<'a, T> {
    source: &'a dyn Source<T>,
    rows: Range<usize>,
    /// The first point of all.
    first: Vec<T>,
    /// Of all points, where there are some.
    weights: Option<&'a [f64]>,
}

/// What the points are rounded in, of which one pass over them tells.
#[cfg(feature = "cuda")]
fn frame_of<T: Element>(
    part: &Part<'_, T>,
    k: usize,
    chunk_rows: usize,
    watch: &Watch<'_, T::Centroid>,
    together: &dyn Together,
) -> Result<Frame> {
    let (source, d, n) = (part.source, part.first.len(), part.rows.len());
    let sample: Vec<_> = Frame::rows(source.n_points(), k).collect();
    let mut points = filled(T::zeroed(), sample.len().saturating_mul(d), "points to find a centre")?;
    read_rows(source, sample.into_iter(), &mut points)?;
    let mut frame = Frame::about(&points, d);
    let mut points = filled(T::zeroed(), chunk_rows.min(n).saturating_mul(d), "points")?;
    for row in part.rows.clone().step_by(chunk_rows) {
        let rows = row..part.rows.end.min(row + chunk_rows);
        let values = &mut points[..rows.len() * d];
        source.read(rows.clone(), values)?;
        check_finite(values, row, d)?;
        frame.take(values);
        let seen = rows.end - part.rows.start;
        watch.progress(Progress { problem: 0, iterations: 0, rows: seen, n })?;
    }
    frame.extent = together.largest(frame.extent)?;
    Ok(frame)
}

/// Reads rows, in ascending order, into `into`.
fn read_rows<T: Element>(
    source: &dyn Source<T>,
    rows: impl Iterator<Item = usize>,
    into: &mut [T],
) -> Result<()> {
    let d = source.n_features();
    rows.zip(into.chunks_exact_mut(d)).try_for_each(|(row, into)| {
        source.read(row..row + 1, into)?;
        check_finite(into, row, d)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_whole_panels_within_the_memory() {
        // Panels of 16 MiB.
        let rows = |streaming: &Streaming, n| streaming.chunk_rows(n, 512, 8192, 4);
        let memory = |bytes| Streaming::new().memory(bytes);
        for (streaming, expected) in [
            (Streaming::new(), 4 * 8192),
            (memory(1 << 40), 4 * 8192),
            (memory(3 << 24), 8192),
            (memory((6 << 24) - 1), 8192),
            (memory(6 << 24), 2 * 8192),
        ] {
            assert_eq!(rows(&streaming, 1_000_000).unwrap(), expected, "{streaming:?}");
            assert_eq!(rows(&streaming, 100).unwrap(), 100);
        }
        assert!(rows(&memory((3 << 24) - 1), 100).is_err());
        // A panel that is larger than a chunk is one.
        assert_eq!(Streaming::new().chunk_rows(1_000_000, 512, 100_000, 4).unwrap(), 100_000);
    }
}
