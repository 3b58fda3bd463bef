//! First centroids on the GPU: the steps of [`crate::init`], which come to the same rows.
use super::device::{Device, failed};
use super::lloyd::{By, Call, Role, shape_of};
use super::memory::{Arena, Place, Plan};
use super::{GpuElement, Gpus, bytes_beside, pool};
use crate::error::{Error, Result};
use crate::init::{ASSIGNED_CANDIDATES, First, Passes, filled, parallel, timed, total_of_chunks};
use crate::params::Init;
use crate::points::Problem;
use crate::rng::Rng;
use cust::stream::Stream;
use kernels_gpu::kernels::*;
use kernels_gpu::spec::*;
use std::time::Instant;

/// Points in device memory: rows of whole 16 bytes, as the shape says.
pub(super) struct Resident<'a, T> {
    pub(super) device: &'a Device,
    pub(super) stream: &'a Stream,
    pub(super) points: *const T,
    pub(super) shape: Shape,
}

impl<T> Clone for Resident<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Resident<'_, T> {}

/// Whether the kernels draw these: they take distances of points as they are, and all of them alike.
fn draws(first: First<'_>, by: By) -> bool {
    !by.metric.is_spherical() && !by.weighted && first.init.is_by_distance()
}

/// Rows of the points that are the first centroids, `batch · k` of them; `None` where the CPU has to find them.
pub(super) fn draw<T: GpuElement>(
    gpus: &Gpus,
    points: &Resident<'_, T>,
    first: First<'_>,
    (k, by): (usize, By),
) -> Result<Option<Vec<u32>>> {
    let shape = points.shape;
    let rows = u64::from(shape.batch) * u64::from(shape.n);
    let bytes = rows * u64::from(shape.pitch) * size_of::<T>() as u64 + pool::bytes::<T>(shape, k);
    if !draws(first, by) || gpus.memory.is_some_and(|memory| bytes > memory) {
        return Ok(None);
    }
    match points.draw(first, k, gpus.memory.map(|memory| memory - bytes)) {
        Err(Error::OutOfDeviceMemory { requested, free }) => Ok(no_room(requested, free)),
        rows => rows.map(Some),
    }
}

fn no_room(requested: u64, free: u64) -> Option<Vec<u32>> {
    tracing::info!(requested, free, "the CPU draws first centroids: the GPU has no room");
    None
}

/// [`draw`] for points that are not on the GPU yet, on the first one.
pub(super) fn load_and_draw<T: GpuElement>(
    gpus: &Gpus,
    problem: &Problem<'_, T>,
    first: First<'_>,
    (k, by): (usize, By),
) -> Result<Option<Vec<u32>>> {
    if !draws(first, by) {
        return Ok(None);
    }
    let device = gpus.first();
    device.enter()?;
    let shape = shape_of::<T>([problem.batch, problem.n, problem.d], k)?;
    let (d, pitch) = (problem.d, shape.pitch as usize);
    let mut plan = Plan::default();
    let place = plan.array(problem.batch * problem.n * pitch);
    if gpus.memory.is_some_and(|memory| plan.bytes() as u64 > memory) {
        return Ok(None);
    }
    let arena = match device.arena(plan.bytes()) {
        Err(Error::OutOfDeviceMemory { requested, free }) => return Ok(no_room(requested, free)),
        arena => arena?,
    };
    let stream = device.stream()?;
    arena.upload_rows(device, &stream, (place, pitch), (&problem.points, d), |_, _| Ok(()))?;
    let points = Resident { device, stream: &stream, points: arena.at(place).cast_const(), shape };
    let rows = draw(gpus, &points, first, (k, by))?;
    device.keep(arena);
    Ok(rows)
}

impl<T: GpuElement> Resident<'_, T> {
    /// k-means|| or else k-means++: rows of the points, `batch · k` of them. `room`: bytes of device memory that an assignment
    /// may take, where there is a limit.
    pub(super) fn draw(&self, first: First<'_>, k: usize, room: Option<u64>) -> Result<Vec<u32>> {
        self.device.enter()?;
        let start = Instant::now();
        let rows = match first.init {
            &Init::KMeansParallel { oversampling, rounds } => {
                let of_problem = |at| {
                    let mut passes = timed("memory for distances", || OnGpu::new(self.of_problem(at), room))?;
                    let rng = &mut Rng::new(first.seed, u64::from(at));
                    let rows = parallel(&mut passes, (k, oversampling, rounds), rng)?;
                    self.device.keep(passes.arena);
                    Ok(rows)
                };
                (0..self.shape.batch).map(of_problem).collect::<Result<Vec<_>>>()?
            }
            _ => self.plus_plus(k, first.seed)?,
        };
        tracing::info!(seconds = start.elapsed().as_secs_f64(), "first centroids, drawn on the GPU");
        Ok(rows.into_iter().flatten().map(|row| row as u32).collect())
    }

    /// Greedy k-means++ of all problems at once.
    fn plus_plus(&self, k: usize, seed: u64) -> Result<Vec<Vec<usize>>> {
        let n = self.shape.n as usize;
        let mut rngs: Vec<_> = (0..u64::from(self.shape.batch)).map(|at| Rng::new(seed, at)).collect();
        let firsts: Vec<_> = rngs.iter_mut().map(|rng| rng.below(n) as u32).collect();
        let rows = self.greedy(None, &firsts, k, &mut rngs)?;
        Ok(rows.into_iter().zip(&mut rngs).map(|(rows, rng)| filled(rows, n, k, rng)).collect())
    }

    /// The points of one problem of a batch.
    fn of_problem(&self, at: u32) -> Self {
        let shape = Shape { batch: 1, ..self.shape };
        let first = at as usize * shape.n as usize * shape.pitch as usize;
        Resident { points: self.points.wrapping_add(first), shape, ..*self }
    }
}

/// The passes of k-means|| over one problem's points.
struct OnGpu<'a, T: GpuElement> {
    points: Resident<'a, T>,
    arena: Arena,
    nearest: Place<f64>,
    owners: Place<u32>,
    chunk_sums: Place<f64>,
    /// Rows that a round draws, and how many.
    drawn: Place<u32>,
    count: Place<u32>,
    /// What assigns points to the candidates of a round, once there were many.
    call: Option<Call<T>>,
    /// Bytes that it may take, where there is a limit.
    room: Option<u64>,
}

impl<'a, T: GpuElement> OnGpu<'a, T> {
    fn new(points: Resident<'a, T>, room: Option<u64>) -> Result<Self> {
        let (n, mut plan) = (points.shape.n as usize, Plan::default());
        let (nearest, owners) = (plan.array(n), plan.array(n));
        let chunk_sums = plan.array(n.div_ceil(FAN as usize));
        let (drawn, count) = (plan.array(n), plan.array(1));
        // One module, so that the driver compiles it once.
        points.device.load(&[
            <LowerTo<T::Device> as Kernel>::SPEC,
            <LowerToLabels<T::Device> as Kernel>::SPEC,
            Sample::SPEC,
            CountOwners::SPEC,
            <Gather<T::Device> as Kernel>::SPEC,
        ])?;
        let arena = points.device.arena(plan.bytes())?;
        Ok(OnGpu { points, arena, nearest, owners, chunk_sums, drawn, count, call: None, room })
    }

    /// Assigns the points to rows of them, where that is worth it and there is room.
    fn assign(&mut self, rows: &[u32]) -> Result<Option<&Call<T>>> {
        if rows.len() < ASSIGNED_CANDIDATES || !self.points.device.has_tensor_cores() {
            return Ok(None);
        }
        if self.call.as_ref().is_none_or(|call| call.clusters() < rows.len()) {
            self.call = None;
            // Rounds draw about as many rows each.
            let most = rows.len() + rows.len() / 8;
            let Shape { batch, n, d, .. } = self.points.shape;
            let sizes = [batch, n, d].map(u64::from);
            let again = self.points.device.room_again(sizes);
            let bytes = bytes_beside(T::DTYPE, sizes, most as u64, again);
            if self.room.is_some_and(|room| bytes > room) {
                return Ok(None);
            }
            let role = Role::Candidates(self.points.shape);
            match timed("memory for assignments", || Call::over(&self.points, most, role)) {
                Ok(call) => self.call = Some(call),
                Err(Error::OutOfDeviceMemory { requested, free }) => {
                    tracing::info!(
                        requested,
                        free,
                        "distances to all candidates: the GPU has no room to assign"
                    );
                }
                Err(error) => return Err(error),
            }
        }
        let Some(call) = &mut self.call else { return Ok(None) };
        if tracing::enabled!(tracing::Level::DEBUG) {
            timed("assignment", || call.assign_to_rows(rows).and_then(|()| call.wait()))?;
        } else {
            call.assign_to_rows(rows)?;
        }
        Ok(Some(call))
    }
}

impl<T: GpuElement> Passes for OnGpu<'_, T> {
    fn n(&self) -> usize {
        self.points.shape.n as usize
    }

    fn any(&self, rng: &mut Rng) -> usize {
        rng.below(self.n())
    }

    fn lower_to(&mut self, candidates: &[usize], first: usize) -> Result<()> {
        if candidates.is_empty() {
            return Ok(());
        }
        let Resident { device, stream, points, shape } = self.points;
        let rows: Vec<u32> = candidates.iter().map(|&row| row as u32).collect();
        let [nearest, chunk_sums] = [self.nearest, self.chunk_sums].map(|place| self.arena.at(place));
        let owners = self.arena.at(self.owners);
        let params = LowerToParams { shape, candidates: rows.len() as u32, first: first as u32 };
        if let Some(call) = self.assign(&rows)? {
            let kernel = LowerToLabels::<T::Device> {
                points: points.cast(),
                candidates: call.device_rows()?,
                labels: call.device_labels(),
                nearest,
                owners,
                chunk_sums,
                params,
            };
            // SAFETY: every array lies in an arena with the length that the parameters say; rows are under `n`, and labels
            // under their number, since the assignment wrote them all.
            unsafe { device.launch(call.stream(), &kernel)? };
            return call.wait();
        }
        let mut plan = Plan::default();
        let place = plan.array(rows.len());
        let arena = device.arena(plan.bytes())?;
        arena.upload(device, stream, place, &rows)?;
        let candidates = arena.at(place).cast_const();
        let points = points.cast();
        // SAFETY: every array lies in an arena with the length that the parameters say; rows are under `n`.
        unsafe {
            if rows.len() == 1 {
                let labels = std::ptr::null();
                device.launch(
                    stream,
                    &LowerToLabels::<T::Device> {
                        points,
                        candidates,
                        labels,
                        nearest,
                        owners,
                        chunk_sums,
                        params,
                    },
                )?;
            } else {
                let kernel = LowerTo::<T::Device> { points, candidates, nearest, owners, chunk_sums, params };
                device.launch(stream, &kernel)?;
            }
        }
        stream.synchronize().map_err(|code| failed("waiting for the device", code))?;
        device.keep(arena);
        Ok(())
    }

    fn total(&self) -> Result<f64> {
        let Resident { device, stream, .. } = self.points;
        let chunks = self.arena.download(device, stream, self.chunk_sums, self.chunk_sums.len())?;
        Ok(total_of_chunks(&chunks))
    }

    fn sample(&self, share: f64, rng: &mut Rng) -> Result<Vec<usize>> {
        let Resident { device, stream, shape, .. } = self.points;
        let kernel = Sample {
            nearest: self.arena.at(self.nearest),
            rows: self.arena.at(self.drawn),
            count: self.arena.at(self.count),
            params: SampleParams { counter: rng.counter(), share, n: shape.n, reserved: 0 },
        };
        self.arena.zero(stream, self.count)?;
        // SAFETY: every array lies in the arena with the length that the parameters say.
        unsafe { device.launch(stream, &kernel)? };
        *rng = Rng::at(rng.counter().wrapping_add(u64::from(shape.n).wrapping_mul(RANDOM_STEP)));
        let count = self.arena.download(device, stream, self.count, 1)?.into_iter().sum::<u32>();
        let rows = self.arena.download(device, stream, self.drawn, count as usize)?;
        let mut rows: Vec<usize> = rows.into_iter().map(|row| row as usize).collect();
        rows.sort_unstable();
        Ok(rows)
    }

    fn weights(&self, candidates: usize) -> Result<Vec<f64>> {
        let Resident { device, stream, shape, .. } = self.points;
        let mut plan = Plan::default();
        let counts = plan.array(candidates);
        let arena = device.arena(plan.bytes())?;
        arena.zero(stream, counts)?;
        let kernel = CountOwners {
            owners: self.arena.at(self.owners),
            counts: arena.at(counts),
            params: OwnersParams { n: shape.n },
        };
        // SAFETY: as above; owners are numbers of candidates.
        unsafe { device.launch(stream, &kernel)? };
        let counts = arena.download(device, stream, counts, candidates)?;
        device.keep(arena);
        Ok(counts.into_iter().map(f64::from).collect())
    }

    fn greedy(
        &self,
        rows: &[usize],
        weights: Vec<f64>,
        first: usize,
        k: usize,
        rng: &mut Rng,
    ) -> Result<Vec<usize>> {
        // The rows by themselves, as points; the zeros between them, too.
        let Resident { device, stream, points, shape } = self.points;
        let of_rows = Shape { k: rows.len() as u32, d: shape.pitch, ..shape };
        let (len, mut plan) = (rows.len() * shape.pitch as usize, Plan::default());
        let (place, values, numbers): (_, Place<T>, _) =
            (plan.array(len), plan.array(len), plan.array(rows.len()));
        let arena = device.arena(plan.bytes())?;
        let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        arena.upload(device, stream, numbers, &rows)?;
        let gather = Gather::<T::Device> {
            points: points.cast(),
            rows: arena.at(numbers),
            given: std::ptr::null(),
            centroids: arena.at(place),
            rounded: arena.at(values).cast(),
            params: GatherParams { shape: of_rows },
        };
        // SAFETY: every array lies in the arena with the length that the parameters say; rows are under `n`.
        unsafe { device.launch(stream, &gather)? };
        let shape = Shape { n: of_rows.k, ..shape };
        let points = Resident { points: arena.at(values).cast_const(), shape, ..self.points };
        let chosen = points.greedy(Some(&weights), &[first as u32], k, std::slice::from_mut(rng))?;
        device.keep(arena);
        Ok(chosen.into_iter().flatten().collect())
    }
}
