//! The CUDA backend: Lloyd's iterations on one GPU.
//!
//! An iteration is a fixed sequence of launches with nothing for the host to decide: labels, sort, sums, means,
//! convergence. A problem of a batch that has converged stops costing work, and the host looks only
//! every few iterations.
mod device;
mod frame;
mod hopper;
mod init;
mod lloyd;
mod memory;
mod of_type;
mod plan;
mod pool;
mod run;
mod worker;

pub(crate) use device::{Device, Visit};
pub(crate) use frame::Frame;
pub(crate) use lloyd::Start;
pub use plan::{Hardware, LaunchPlan};
pub(crate) use run::Run;
pub use worker::PageLocked;
pub(crate) use worker::{CudaWorker, panel_rows};

use lloyd::By;
use worker::Slices;

use super::{End, LloydOptions, LloydOutcome};
use crate::element::{DType, Element, Float};
use crate::error::{Error, Result};
use crate::init::First;
use crate::lloyd::{Alone, Around, State, Worker};
use crate::metric::Metric;
use crate::observer::Watch;
use crate::params::{Backend, Precision};
use crate::points::Problem;
use crate::stages::StageTimes;
use half::{bf16, f16};
use kernels_gpu::kernels::PointType;
use kernels_gpu::spec::{REFINE_PARTS, Refined};
use std::borrow::Cow;

/// A type of points that the kernels take.
trait GpuElement: Element<Centroid = f32> {
    /// The same type in kernels.
    type Device: PointType;
    /// How those of its points that are unsure are assigned again.
    type Refined: hopper::Refining;
    /// Whether Hopper's tensor cores take the points rounded only.
    const ROUNDS: bool;
    /// The tensor cores' assignment for problems of this shape.
    fn hopper(device: &Device, shape: kernels_gpu::spec::Shape) -> hopper::Launch;
    /// What lists pairs of points and rows of a pool.
    fn lists(device: &Device, shape: kernels_gpu::spec::Shape) -> hopper::ListLaunch;
    /// What labels and sums at once, where there is one for problems of this shape.
    fn sweeps(
        device: &Device,
        shape: kernels_gpu::spec::Shape,
        panels: kernels_gpu::spec::Panels,
    ) -> Option<hopper::SweepLaunch>;
}
impl GpuElement for f32 {
    type Device = f32;
    type Refined = Refined<cuda_std::float::F16, REFINE_PARTS>;
    const ROUNDS: bool = true;
    fn hopper(device: &Device, shape: kernels_gpu::spec::Shape) -> hopper::Launch {
        hopper::of_type::<cuda_std::float::F16>(device, shape)
    }
    fn lists(device: &Device, shape: kernels_gpu::spec::Shape) -> hopper::ListLaunch {
        hopper::lists_of_type::<cuda_std::float::F16>(device, shape)
    }
    fn sweeps(
        _: &Device,
        _: kernels_gpu::spec::Shape,
        _: kernels_gpu::spec::Panels,
    ) -> Option<hopper::SweepLaunch> {
        None
    }
}
impl GpuElement for f16 {
    type Device = cuda_std::float::F16;
    type Refined = Refined<cuda_std::float::F16, 1>;
    const ROUNDS: bool = false;
    fn hopper(device: &Device, shape: kernels_gpu::spec::Shape) -> hopper::Launch {
        hopper::of_type::<cuda_std::float::F16>(device, shape)
    }
    fn lists(device: &Device, shape: kernels_gpu::spec::Shape) -> hopper::ListLaunch {
        hopper::lists_of_type::<cuda_std::float::F16>(device, shape)
    }
    fn sweeps(
        device: &Device,
        shape: kernels_gpu::spec::Shape,
        panels: kernels_gpu::spec::Panels,
    ) -> Option<hopper::SweepLaunch> {
        hopper::sweeps_of_type::<cuda_std::float::F16>(device, shape, panels)
    }
}
impl GpuElement for bf16 {
    type Device = cuda_std::float::BF16;
    type Refined = Refined<cuda_std::float::BF16, 1>;
    const ROUNDS: bool = false;
    fn hopper(device: &Device, shape: kernels_gpu::spec::Shape) -> hopper::Launch {
        hopper::of_type::<cuda_std::float::BF16>(device, shape)
    }
    fn lists(device: &Device, shape: kernels_gpu::spec::Shape) -> hopper::ListLaunch {
        hopper::lists_of_type::<cuda_std::float::BF16>(device, shape)
    }
    fn sweeps(
        device: &Device,
        shape: kernels_gpu::spec::Shape,
        panels: kernels_gpu::spec::Panels,
    ) -> Option<hopper::SweepLaunch> {
        hopper::sweeps_of_type::<cuda_std::float::BF16>(device, shape, panels)
    }
}

/// `n` and `k`, by what points are near, and whether empty clusters are relocated.
type Task = ([usize; 2], Metric, bool);

/// The GPUs of a fit, at least one, and how much of each one's memory it may take.
#[derive(Clone, Debug)]
pub(crate) struct Gpus {
    devices: Vec<Device>,
    memory: Option<u64>,
    precision: Precision,
}

impl Gpus {
    /// The devices whose bits are set.
    pub(crate) fn open(set: u64, (memory, precision): (Option<u64>, Precision)) -> Result<Self> {
        let devices = Backend::ordinals(set).map(Device::open).collect::<Result<_>>()?;
        Ok(Gpus { devices, memory, precision })
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    pub(crate) fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    fn by(&self, metric: Metric, weighted: bool) -> By {
        By { metric, weighted, relocates: false, precision: self.precision }
    }

    /// Where points of `T` are rounded in a [`Frame`] that their parts have to share.
    pub(crate) fn shares_frame<T: Element>(&self, metric: Metric) -> bool {
        T::DTYPE == DType::F32 && self.by(metric, false).frames_by_points()
    }

    /// What does not take more than one.
    pub(crate) fn first(&self) -> &Device {
        &self.devices[0]
    }

    pub(crate) fn backend(&self) -> Backend {
        match self.devices.as_slice() {
            [one] => Backend::Cuda { ordinal: one.ordinal() },
            all => Backend::CudaSet { ordinals: all.iter().map(|device| 1 << device.ordinal()).sum() },
        }
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        match self.devices.len() {
            1 => self.first().name().to_string(),
            count => format!("{count} × {}", self.first().name()),
        }
    }

    /// Passes over the `n` points of a task, in chunks of `chunk_rows` rows, or of fewer where the GPU has no room for these;
    /// of how many is the second value. A frame is needed where they [share](Self::shares_frame) one.
    pub(crate) fn worker<T: Element>(
        &self,
        ([n, k], metric, relocates): Task,
        first: &[T],
        (weights, frame): (Option<&[f64]>, Option<Frame>),
        mut chunk_rows: usize,
    ) -> Result<(CudaWorker<T>, usize)> {
        let task = ([n, k], By { relocates, ..self.by(metric, weights.is_some()) });
        let panel = panel_rows(n, k)?;
        loop {
            let of_points = (weights, frame.clone());
            match CudaWorker::new(&self.devices, task, first, of_points, chunk_rows, self.memory) {
                Err(Error::OutOfDeviceMemory { .. }) if chunk_rows > panel => {
                    chunk_rows = panel * (chunk_rows / panel / 2).max(1);
                }
                worker => return Ok((worker?, chunk_rows)),
            }
        }
    }
}

pub(crate) fn fit<T: Element>(
    gpus: &Gpus,
    problem: &Problem<'_, T>,
    first: First<'_>,
    options: &LloydOptions,
    watch: &Watch<'_, T::Centroid>,
) -> Result<LloydOutcome<T::Centroid>> {
    let one = gpus.devices.len() == 1;
    // Problems of a batch are fitted together, which nobody can watch one by one.
    let is_watched = watch.is_watched() && problem.batch == 1;
    // Whole fits are decided on the device, which relocates nothing.
    let is_whole = one && !is_watched && !options.relocates();
    if is_whole && gpus.memory.is_none_or(|memory| whole_bytes(gpus, problem, options.k) <= memory) {
        match fit_whole(gpus, problem, first, options) {
            Err(Error::OutOfDeviceMemory { requested, free }) => {
                tracing::info!(requested, free, "points stay in host memory: the GPU has no room for all");
            }
            outcome => return outcome,
        }
    }
    let centroids = first_centroids(gpus, problem, first, (options.k, options.metric))?;
    // Each problem by itself: in parts on all GPUs, or, of a batch, whole on one.
    let of_problem = |gpus: &Gpus, at: usize| {
        let centroids = &centroids[at * options.k * problem.d..][..options.k * problem.d];
        let points = (problem.of_batch(at), problem.d, problem.weights_of(at));
        fit_parts(gpus, points, centroids, options, (watch, at))
    };
    let ends: Vec<_> = if one || problem.batch == 1 {
        (0..problem.batch).map(|at| of_problem(gpus, at)).collect()
    } else {
        let share = |(at, device): (usize, &Device)| {
            let border = |at: usize| problem.batch * at / gpus.devices.len();
            let gpus = Gpus { devices: vec![device.clone()], ..gpus.clone() };
            (border(at)..border(at + 1)).map(|at| of_problem(&gpus, at)).collect::<Vec<_>>()
        };
        std::thread::scope(|scope| {
            let share = &share;
            let threads: Vec<_> =
                gpus.devices.iter().enumerate().map(|one| scope.spawn(move || share(one))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<_>>| match thread.join() {
                Ok(ends) => ends,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().flat_map(join).collect()
        })
    };
    LloydOutcome::of(ends)
}

/// About the bytes of device memory that a fit of whole problems takes.
fn whole_bytes<T: Element>(gpus: &Gpus, problem: &Problem<'_, T>, k: usize) -> u64 {
    let sizes = [problem.batch, problem.n, problem.d].map(|size| size as u64);
    let rows = (problem.batch * problem.n) as u64;
    let points = rows * (problem.d * size_of::<T>()) as u64;
    let weights = if problem.weights.is_some() { 12 * rows } else { 0 };
    points + weights + bytes_beside(T::DTYPE, sizes, k as u64, gpus.first().room_again(sizes))
}

/// About the bytes that it takes beside the points and their weights, of which there is room for `again` to be assigned again.
fn bytes_beside(dtype: DType, [batch, n, d]: [u64; 3], k: u64, again: u64) -> u64 {
    // f32 points are there in 16 bits too, and those that are assigned again in three parts; labels, orders and lists are some 40
    // bytes a point.
    let (rounded, in_parts) = if dtype == DType::F32 { (2 * d, 6 * d.next_multiple_of(64)) } else { (0, 0) };
    batch * n * (rounded + 40) + again * in_parts + batch * k * d * 32
}

/// A problem in chunks.
fn fit_parts<T: Element>(
    gpus: &Gpus,
    (points, d, weights): (&[T], usize, Option<&[f64]>),
    centroids: &[T::Centroid],
    options: &LloydOptions,
    (watch, at): (&Watch<'_, T::Centroid>, usize),
) -> Result<End<T::Centroid>> {
    /// Far more than a copy of it and its launches cost by themselves.
    const CHUNK_BYTES: usize = 512 << 20;
    let n = points.len() / d;
    let panel = panel_rows(n, options.k)?;
    // Several chunks are to fit, so that some may stay.
    let bytes = gpus.memory.map_or(CHUNK_BYTES, |memory| CHUNK_BYTES.min((memory / 8) as usize));
    let panels = bytes / (panel * d * size_of::<T>());
    let chunk_rows = panel * panels.min(n.div_ceil(panel) / gpus.devices.len()).max(1);
    let task = ([n, options.k], options.metric, options.relocates());
    let frame = gpus.shares_frame::<T>(options.metric).then(|| Frame::of(points, d, options.k));
    let (mut worker, chunk_rows) = gpus.worker(task, &points[..d], (weights, frame), chunk_rows)?;
    let keep = &mut |_: &State<_>, _| Ok(());
    let around = Around { problem: at, watch, together: &Alone, keep };
    let state = State::new(centroids.to_vec());
    let is_locked = memory::is_locked(points);
    let mut slices = Slices { points, d, chunk_rows, is_locked, unchecked: true };
    let (centroids, summary) = crate::lloyd::lloyd(&mut worker, &mut slices, state, (n, d, options), around)?;
    Ok((centroids, summary, worker.into_labels()?))
}

/// First centroids. k-means++ and k-means|| see all points many times, which is a GPU's work where one has room for them.
pub(crate) fn first_centroids<T: Element>(
    gpus: &Gpus,
    problem: &Problem<'_, T>,
    first: First<'_>,
    (k, metric): (usize, Metric),
) -> Result<Vec<T::Centroid>> {
    let of = (k, gpus.by(metric, problem.weights.is_some()));
    let rows = match T::DTYPE {
        DType::F32 => init::load_and_draw(gpus, &cast::<T, f32>(problem), first, of)?,
        DType::F16 => init::load_and_draw(gpus, &cast::<T, f16>(problem), first, of)?,
        DType::BF16 => init::load_and_draw(gpus, &cast::<T, bf16>(problem), first, of)?,
        DType::F64 => return Err(no_f64(gpus.first())),
    };
    let Some(rows) = rows else { return first.centroids(problem, (k, metric)) };
    let values = rows.chunks(k).enumerate().flat_map(|(at, rows)| {
        rows.iter().flat_map(move |&row| &problem.of_batch(at)[row as usize * problem.d..][..problem.d])
    });
    Ok(values.map(|v| v.to_centroid()).collect())
}

/// All problems at once, in one GPU's memory.
fn fit_whole<T: Element>(
    gpus: &Gpus,
    problem: &Problem<'_, T>,
    first: First<'_>,
    options: &LloydOptions,
) -> Result<LloydOutcome<T::Centroid>> {
    let device = gpus.first();
    let outcome = match T::DTYPE {
        DType::F32 => lloyd::fit(gpus, &cast::<T, f32>(problem), first, options)?,
        DType::F16 => lloyd::fit(gpus, &cast::<T, f16>(problem), first, options)?,
        DType::BF16 => lloyd::fit(gpus, &cast::<T, bf16>(problem), first, options)?,
        DType::F64 => return Err(no_f64(device)),
    };
    let centroids = outcome.centroids.into_iter().map(|c| Float::from_f64(f64::from(c))).collect();
    Ok(LloydOutcome { centroids, labels: outcome.labels, problems: outcome.problems })
}

/// Labels; of points that the GPU has no room for, part after part. Those of a part are rounded in the `frame` of all, where
/// there is one.
pub(crate) fn assign<T: Element>(
    gpus: &Gpus,
    problem: &Problem<'_, T>,
    centroids: &[T::Centroid],
    (k, metric): (usize, Metric),
    frame: Option<&Frame>,
) -> Result<Vec<u32>> {
    let (device, task) = (gpus.first(), (k, gpus.by(metric, false), frame));
    let values: Vec<f32> = centroids.iter().map(|c| c.to_f64() as f32).collect();
    let whole = match T::DTYPE {
        DType::F32 => lloyd::assign(device, &cast::<T, f32>(problem), &values, task),
        DType::F16 => lloyd::assign(device, &cast::<T, f16>(problem), &values, task),
        DType::BF16 => lloyd::assign(device, &cast::<T, bf16>(problem), &values, task),
        DType::F64 => Err(no_f64(device)),
    };
    let refused = match whole {
        Err(error @ Error::OutOfDeviceMemory { .. }) => error,
        outcome => return outcome,
    };
    let Problem { batch, n, d, .. } = *problem;
    // Halves: of the problems, or of the points of the only one.
    let (units, rows) = if batch > 1 { (batch, n) } else { (n, 1) };
    // So little has room only where there is none for the centroids.
    if batch == 1 && n <= 1 << 16 {
        return Err(refused);
    }
    let of_all = (frame.is_none() && batch == 1 && gpus.shares_frame::<T>(metric))
        .then(|| Frame::of(&problem.points, d, k));
    let frame = frame.or(of_all.as_ref());
    let mut labels = Vec::with_capacity(batch * n);
    for part in [0..units / 2, units / 2..units] {
        let points = &problem.points[part.start * rows * d..part.end * rows * d];
        let (batch, n) = if batch > 1 { (part.len(), n) } else { (1, part.len()) };
        let centroids =
            if problem.batch > 1 { &centroids[part.start * k * d..part.end * k * d] } else { centroids };
        let half = Problem { points: Cow::Borrowed(points), batch, n, d, weights: None };
        labels.extend(assign(gpus, &half, centroids, (k, metric), frame)?);
    }
    Ok(labels)
}

pub(crate) fn time_stages<T: Element>(
    device: &Device,
    problem: &Problem<'_, T>,
    task: (usize, Precision),
    iterations: usize,
) -> Result<StageTimes> {
    match T::DTYPE {
        DType::F32 => lloyd::time_stages(device, &cast::<T, f32>(problem), task, iterations),
        DType::F16 => lloyd::time_stages(device, &cast::<T, f16>(problem), task, iterations),
        DType::BF16 => lloyd::time_stages(device, &cast::<T, bf16>(problem), task, iterations),
        DType::F64 => Err(no_f64(device)),
    }
}

/// The same points under the name of their own type, which `T::DTYPE` has just told.
fn cast<'a, T: Element, U: Element>(problem: &'a Problem<'_, T>) -> Problem<'a, U> {
    Problem {
        points: Cow::Borrowed(bytemuck::cast_slice(&problem.points)),
        batch: problem.batch,
        n: problem.n,
        d: problem.d,
        weights: problem.weights.as_deref().map(Cow::Borrowed),
    }
}

/// `Engine::select` refuses this before; said again for whoever calls past it.
fn no_f64(device: &Device) -> Error {
    let backend = crate::Backend::Cuda { ordinal: device.ordinal() };
    Error::BackendUnavailable { backend, reason: "f64 points run on the CPU".into() }
}
