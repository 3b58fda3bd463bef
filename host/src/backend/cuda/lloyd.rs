//! The iterations.
use super::GpuElement;
use super::device::{Device, Graph, check, failed};
use super::hopper;
use super::memory::{Arena, Place, Plan};
use super::plan::Sort;
use crate::backend::{LloydOptions, LloydOutcome};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::model::{BatchSummary, IterationStats};
use crate::points::Problem;
use crate::stages::{Samples, StageTimes};
use bytemuck::{Pod, Zeroable};
use cust::event::{Event, EventFlags};
use cust::stream::Stream;
use kernels_gpu::kernels::*;
use kernels_gpu::spec::*;
use std::cell::Cell;
use std::marker::PhantomData;

/// [`LoopState`] as bytes; the kernels' crate is free of dependencies.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct State(LoopState);
// SAFETY: four u32, any bits of which are valid, without padding.
unsafe impl Zeroable for State {}
// SAFETY: as above.
unsafe impl Pod for State {}

/// [`IterationRecord`] as bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Record(IterationRecord);
// SAFETY: two f64 and two u32, any bits of which are valid, without padding.
unsafe impl Zeroable for Record {}
// SAFETY: as above.
unsafe impl Pod for Record {}

/// Blocks of a launch that loop over their items, at most.
const MOST_BLOCKS: u32 = 1 << 20;

/// Iterations between two looks of the host.
const WINDOW: usize = 8;

/// The arrays of one call, in device memory.
struct Places<T> {
    points: Place<T>,
    labels: Place<u32>,
    /// Master centroids, f32.
    centroids: Place<f32>,
    /// The centroids in the points' type, which distances are taken to.
    rounded: Place<T>,
    /// State of each problem, and the same for a pass over all problems whatever their state.
    states: Place<State>,
    open: Place<State>,
    tile_cost: Place<f64>,
    tile_changed: Place<u32>,
    partial: Place<f64>,
    hopper: Option<hopper::Places>,
    update: Option<UpdatePlaces>,
}

/// What only a fit needs.
struct UpdatePlaces {
    /// Row indices, sorted by label after the last pass; each pass reads one and writes the other.
    orders: [Place<u32>; 2],
    histogram: Place<u32>,
    totals: Place<u32>,
    starts: Place<u32>,
    sums: Place<f32>,
    heads: Place<f32>,
    moves: Place<f64>,
    thresholds: Place<f64>,
    records: Place<Record>,
    partial_records: Place<Record>,
    converge_counters: Place<u32>,
    first: Place<f64>,
    second: Place<f64>,
}

/// One call on one stream.
struct Call<'a, T: GpuElement> {
    device: &'a Device,
    stream: Stream,
    arena: Option<Arena>,
    places: Places<T>,
    shape: Shape,
    panels: Panels,
    /// The tensor-core entry that assigns, where there is one for this shape and device.
    hopper: Option<hopper::Launch>,
    /// The slot of the largest centroid norm that the last packing raised.
    slot: Cell<u32>,
    /// Iterations of which records are kept between two looks.
    window: usize,
}

impl<T: GpuElement> Drop for Call<'_, T> {
    fn drop(&mut self) {
        // The arena goes to another call: nothing of this one may still run.
        let idle = self.stream.synchronize().is_ok();
        if let Some(arena) = self.arena.take().filter(|_| idle) {
            self.device.keep(arena);
        }
    }
}

pub(super) fn fit<T: GpuElement>(
    device: &Device,
    problem: &Problem<'_, T>,
    centroids: &[f32],
    options: &LloydOptions,
) -> Result<LloydOutcome<f32>> {
    device.enter()?;
    let call = Call::new(device, problem, centroids, options.k, Some(options))?;
    let (states, histories) = call.iterate(options)?;
    // A problem that ended at a fixed point has its labels already; any other gets those of its last centroids.
    if states.iter().any(|state| state.fixed_point == 0) {
        call.assign_all()?;
    }
    let inertia = call.inertia()?;
    let arena = call.arena()?;
    let rounded = arena.download(&call.stream, call.places.rounded, centroids.len())?;
    let labels = arena.download(&call.stream, call.places.labels, problem.batch * problem.n)?;
    let problems = states.iter().zip(histories).zip(inertia).map(|((state, history), inertia)| {
        BatchSummary { inertia, n_iter: state.n_iter as usize, converged: state.done != 0, history }
    });
    Ok(LloydOutcome {
        centroids: rounded.into_iter().map(T::to_centroid).collect(),
        labels,
        problems: problems.collect(),
    })
}

pub(super) fn assign<T: GpuElement>(
    device: &Device,
    problem: &Problem<'_, T>,
    centroids: &[f32],
    k: usize,
) -> Result<Vec<u32>> {
    device.enter()?;
    let call = Call::new(device, problem, centroids, k, None)?;
    call.assign_all()?;
    call.arena()?.download(&call.stream, call.places.labels, problem.batch * problem.n)
}

/// See [`crate::stages::time`].
pub(super) fn time_stages<T: GpuElement>(
    device: &Device,
    problem: &Problem<'_, T>,
    k: usize,
    iterations: usize,
) -> Result<StageTimes> {
    device.enter()?;
    let centroids: Vec<f32> = (0..problem.batch)
        .flat_map(|batch| problem.of_batch(batch)[..k * problem.d].iter().map(|&v| v.to_centroid()))
        .collect();
    // A threshold that is never met: no problem stops, unless its labels do.
    let options = LloydOptions { k, max_iter: iterations, tol: 0.0 };
    let call = Call::new(device, problem, &centroids, k, Some(&options))?;
    let update = call.update()?;
    call.arena()?.upload(&call.stream, update.thresholds, &vec![-1.0; problem.batch])?;
    call.iteration()?;
    call.iteration()?;
    let pair = call.pair_of_iterations()?;

    let event = || Event::new(EventFlags::DEFAULT).map_err(|code| failed("creating an event", code));
    let mark = |events: &mut Vec<Event>| {
        let event = event()?;
        event.record(&call.stream).map_err(|code| failed("recording an event", code))?;
        events.push(event);
        Ok::<_, Error>(())
    };
    let (mut stages, mut whole) = (Vec::new(), Vec::new());
    // Points that the cache would keep from sample to sample are to come from memory, as the first time.
    let cache = device.l2_bytes();
    let spoiler = (size_of_val(&*problem.points) < 2 * cache).then(|| Spoiler::new(2 * cache)).transpose()?;
    let begin = || {
        if let Some(spoiler) = &spoiler {
            spoiler.overwrite(&call.stream)?;
        }
        // A problem whose labels stay would stop, and cost nothing any more.
        call.arena()?.zero(&call.stream, call.places.states)
    };
    for _ in 0..iterations {
        begin()?;
        mark(&mut whole)?;
        // SAFETY: as in `iteration`.
        unsafe { pair.launch(&call.stream) }?;
        mark(&mut whole)?;
    }
    for _ in 0..iterations {
        begin()?;
        mark(&mut stages)?;
        call.assign(call.places.states)?;
        mark(&mut stages)?;
        let sorted = call.sort(update)?;
        mark(&mut stages)?;
        call.sums(update, sorted)?;
        mark(&mut stages)?;
        call.finalise(update)?;
        mark(&mut stages)?;
    }
    call.stream.synchronize().map_err(|code| failed("waiting for the device", code))?;
    let settled = match &call.places.hopper {
        Some(places) => call.arena()?.download(&call.stream, places.list_counts, 2)?,
        None => vec![0, 0],
    };
    let between = |a: &Event, b: &Event| b.elapsed_time_f32(a).map_or(f64::NAN, f64::from);
    let stage = |from: usize, to: usize| {
        Samples::new(stages.chunks(5).map(|events| between(&events[from], &events[to])).collect())
    };
    Ok(StageTimes {
        assign: stage(0, 1),
        sort: stage(1, 2),
        sums: stage(2, 3),
        finalise: stage(3, 4),
        update: stage(1, 4),
        iteration: Samples::new(whole.chunks(2).map(|e| between(&e[0], &e[1]) / 2.0).collect()),
        settled: f64::from(settled[0]) / (problem.batch * problem.n) as f64,
        searched: f64::from(settled[1]) / (problem.batch * problem.n) as f64,
    })
}

/// Memory that is written so that the cache holds nothing else.
struct Spoiler {
    arena: Arena,
    place: Place<u8>,
}

impl Spoiler {
    fn new(bytes: usize) -> Result<Self> {
        let mut plan = Plan::default();
        let place = plan.array(bytes);
        Ok(Spoiler { arena: Arena::new(bytes)?, place })
    }

    fn overwrite(&self, stream: &Stream) -> Result<()> {
        self.arena.zero(stream, self.place)
    }
}

impl<'a, T: GpuElement> Call<'a, T> {
    fn new(
        device: &'a Device,
        problem: &Problem<'_, T>,
        centroids: &[f32],
        k: usize,
        fit: Option<&LloydOptions>,
    ) -> Result<Self> {
        let shape = Shape::new(
            small("batch", problem.batch)?,
            small("n", problem.n)?,
            small("k", k)?,
            small("d", problem.d)?,
            size_of::<T>() as u32,
        );
        let panels = Panels::of(shape.n, shape.k);
        let (batch, n, d) = (problem.batch, problem.n, problem.d);
        // Records of a window stay under 64 MiB however many problems there are. An even number, for iterations are
        // replayed in pairs, or one.
        let window = (((64 << 20) / size_of::<Record>() / batch).min(WINDOW) & !1).max(1);

        let fast = device.is_hopper() && u32::try_from(batch * n).is_ok();
        let hopper = fast.then(|| T::hopper(device.plan(), shape.d));
        let mut plan = Plan::default();
        let tiles = match hopper {
            Some(_) => HopperParams { shape, slot: 0 }.blocks() as usize * HOPPER_WARPS as usize,
            None => AssignParams { shape }.blocks() as usize,
        };
        let sort = device.plan().sort(panels, shape.k);
        let converge = ConvergeParams { shape, tiles: (tiles / batch) as u32, window: window as u32 };
        let places = Places {
            points: plan.array(batch * n * shape.pitch as usize),
            labels: plan.array(batch * n),
            centroids: plan.array(batch * k * d),
            rounded: plan.array(batch * k * d),
            states: plan.array(batch),
            open: plan.array(batch),
            tile_cost: plan.array(tiles),
            tile_changed: plan.array(tiles),
            partial: plan.array(InertiaParams { shape }.blocks() as usize),
            hopper: hopper.map(|_| {
                hopper::Places::new(&mut plan, device.plan(), settle_params(device, shape), T::ROUNDS)
            }),
            update: fit.map(|options| {
                let groups = batch * panels.count as usize;
                let moments =
                    if options.tol > 0.0 { MomentsParams::new(shape).blocks() as usize * d } else { 0 };
                UpdatePlaces {
                    orders: [plan.array(batch * n), plan.array(batch * n)],
                    histogram: plan.array(match sort {
                        Sort::Block => 0,
                        Sort::Whole => WholeParams { shape, panels }.blocks() as usize * k,
                        Sort::Digits => groups * SORT_DIGITS as usize * panels.tiles() as usize,
                    }),
                    totals: plan.array(groups * SORT_DIGITS as usize),
                    starts: plan.array(groups * (k + 1)),
                    sums: plan.array(groups * k * d),
                    heads: plan.array(groups * panels.stretches() as usize * d),
                    moves: plan.array(batch * k),
                    thresholds: plan.array(batch),
                    records: plan.array(window * batch),
                    partial_records: plan.array(converge.blocks() as usize),
                    converge_counters: plan.array(batch),
                    first: plan.array(moments),
                    second: plan.array(moments),
                }
            }),
        };
        let call = Call {
            device,
            stream: device.stream()?,
            arena: Some(device.arena(plan.bytes())?),
            places,
            shape,
            panels,
            hopper,
            slot: Cell::new(0),
            window,
        };
        let arena = call.arena()?;
        // One module for all that this call launches, so that the driver compiles it once.
        let mut kernels = vec![<Inertia<T::Device> as Kernel>::SPEC];
        kernels.extend(match hopper {
            Some(entry) => {
                vec![
                    entry.spec,
                    OrderCentroids::SPEC,
                    Floors::SPEC,
                    <PackCentroids<T::Device> as Kernel>::SPEC,
                    <Settle<T::Device> as Kernel>::SPEC,
                ]
            }
            None => vec![<Assign<T::Device> as Kernel>::SPEC],
        });
        kernels.extend(match hopper {
            Some(_) if T::ROUNDS => vec![Extents::SPEC, PackPoints::SPEC],
            Some(_) => vec![<Norms<T::Device> as Kernel>::SPEC],
            None => vec![],
        });
        if fit.is_some() {
            kernels.extend(match sort {
                Sort::Block => vec![SortPanel::SPEC],
                Sort::Whole => vec![WholeCount::SPEC, WholeStarts::SPEC, WholePlace::SPEC],
                Sort::Digits => {
                    vec![SortHistogram::SPEC, SortScan::SPEC, SortScatter::SPEC, SegmentStarts::SPEC]
                }
            });
            kernels.extend([
                <SegmentSums<T::Device> as Kernel>::SPEC,
                <Finalise<T::Device> as Kernel>::SPEC,
                Converge::SPEC,
                <Moments<T::Device> as Kernel>::SPEC,
            ]);
        }
        device.load(&kernels)?;

        let rounded: Vec<T> = centroids.iter().map(|&c| T::from_centroid(c)).collect();
        arena.upload_rows(&call.stream, call.places.points, &problem.points, d, shape.pitch as usize)?;
        arena.upload(&call.stream, call.places.centroids, centroids)?;
        arena.upload(&call.stream, call.places.rounded, &rounded)?;
        arena.zero(&call.stream, call.places.states)?;
        arena.zero(&call.stream, call.places.open)?;
        if let Some(update) = &call.places.update {
            arena.zero(&call.stream, update.converge_counters)?;
            // A window is read whole, though its last iterations may not be done.
            arena.zero(&call.stream, update.records)?;
        }
        call.prepare(centroids)?;
        Ok(call)
    }

    fn arena(&self) -> Result<&Arena> {
        let gone = || Error::Cuda { call: "using device memory".into(), code: "already given back".into() };
        self.arena.as_ref().ok_or_else(gone)
    }

    fn at<U>(&self, place: Place<U>) -> Result<*mut U> {
        Ok(self.arena()?.at(place))
    }

    /// Iterations until every problem is done or `max_iter` is reached: each problem's last state and history.
    fn iterate(&self, options: &LloydOptions) -> Result<(Vec<LoopState>, Vec<Vec<IterationStats>>)> {
        let update = self.update()?;
        let arena = self.arena()?;
        let batch = self.shape.batch as usize;
        arena.upload(&self.stream, update.thresholds, &self.thresholds(options.tol)?)?;
        // No label is this one, so the first assignment changes all of them.
        self.fill(self.places.labels, u32::MAX, batch * self.shape.n as usize)?;

        let mut histories = vec![Vec::new(); batch];
        let mut done = 0;
        let pair = if options.max_iter > 2 { Some(self.pair_of_iterations()?) } else { None };
        loop {
            let window = self.window.min(options.max_iter - done);
            let mut left = window;
            while let (Some(pair), true) = (&pair, left >= 2) {
                // SAFETY: as in `iteration`.
                unsafe { pair.launch(&self.stream) }?;
                left -= 2;
            }
            for _ in 0..left {
                self.iteration()?;
            }
            let states = arena.download(&self.stream, self.places.states, batch)?;
            // A window before the last is whole, so its iterations have the slots from 0 on.
            let records = arena.download(&self.stream, update.records, window * batch)?;
            for (problem, (state, history)) in states.iter().zip(&mut histories).enumerate() {
                for slot in 0..(state.0.n_iter as usize).saturating_sub(done) {
                    let Record(record) = records[slot * batch + problem];
                    history.push(IterationStats {
                        inertia: record.cost,
                        changed: record.changed.into(),
                        shift: record.shift,
                    });
                }
            }
            done += window;
            if done == options.max_iter || states.iter().all(|state| state.0.done != 0) {
                return Ok((states.into_iter().map(|state| state.0).collect(), histories));
            }
        }
    }

    /// Sets `count` 32-bit values from `place` on to `bits`.
    fn fill<U>(&self, place: Place<U>, bits: u32, count: usize) -> Result<()> {
        const { assert!(size_of::<U>() == 4) };
        // SAFETY: the caller's place has that many values.
        let code = unsafe {
            cust::sys::cuMemsetD32Async(self.at(place)? as u64, bits, count, self.stream.as_inner())
        };
        check("cuMemsetD32Async", code)
    }

    /// Two iterations to be replayed: two, because norms of centroids have two slots that take turns.
    fn pair_of_iterations(&self) -> Result<Graph> {
        self.device.capture(&self.stream, || {
            self.iteration()?;
            self.iteration()
        })
    }

    /// The launches of an iteration.
    fn iteration(&self) -> Result<()> {
        let update = self.update()?;
        self.assign(self.places.states)?;
        let sorted = self.sort(update)?;
        self.sums(update, sorted)?;
        self.finalise(update)
    }

    /// Means, moves and convergence of an iteration.
    fn finalise(&self, update: &UpdatePlaces) -> Result<()> {
        let (shape, panels) = (self.shape, self.panels);
        let states = self.at(self.places.states)?.cast::<LoopState>();
        let finalise = Finalise::<T::Device> {
            points: self.at(self.places.points)?.cast(),
            sums: self.at(update.sums)?,
            heads: self.at(update.heads)?,
            starts: self.at(update.starts)?,
            states,
            centroids: self.at(self.places.centroids)?,
            rounded: self.at(self.places.rounded)?.cast(),
            moves: self.at(update.moves)?,
            params: FinaliseParams { shape, panels },
        };
        let converge = Converge {
            moves: self.at(update.moves)?,
            tile_cost: self.at(self.places.tile_cost)?,
            tile_changed: self.at(self.places.tile_changed)?,
            thresholds: self.at(update.thresholds)?,
            states,
            records: self.at(update.records)?.cast(),
            partial: self.at(update.partial_records)?.cast(),
            counters: self.at(update.converge_counters)?,
            params: ConvergeParams { shape, tiles: self.tiles(), window: self.window as u32 },
        };
        // SAFETY: every array lies in the arena with the length that `Call::new` gave it for this shape.
        unsafe {
            self.device.launch(&self.stream, &finalise)?;
            self.device.launch(&self.stream, &converge)
        }
    }

    /// Entries of the assignment's statistics for a problem.
    fn tiles(&self) -> u32 {
        match self.hopper {
            Some(_) => HopperParams { shape: self.shape, slot: 0 }.tiles() * HOPPER_WARPS,
            None => AssignParams { shape: self.shape }.tiles(),
        }
    }

    /// What the assignment needs to know before the first, once: the points' norms, their rounding to 16 bits, and the
    /// centroids' norms.
    fn prepare(&self, centroids: &[f32]) -> Result<()> {
        let Some(places) = &self.places.hopper else { return Ok(()) };
        self.arena()?.zero(&self.stream, places.largest)?;
        self.arena()?.zero(&self.stream, places.settle_counters)?;
        let points = self.shape.batch as usize * self.shape.n as usize;
        self.fill(places.floors, f32::NEG_INFINITY.to_bits(), points)?;
        match &places.rounded {
            Some(rounded) => self.round_points(places, rounded, centroids)?,
            None => {
                let kernel = Norms::<T::Device> {
                    points: self.at(self.places.points)?.cast(),
                    norms: self.at(places.norms)?,
                    params: NormsParams { shape: self.shape },
                };
                // SAFETY: as in `iteration`.
                unsafe { self.device.launch(&self.stream, &kernel)? };
            }
        }
        match places.order {
            Some(_) => self.pack_centroids(places, self.places.open, None),
            None => Ok(()),
        }
    }

    /// Points in 16 bits, about a centre.
    fn round_points(
        &self,
        places: &hopper::Places,
        rounded: &hopper::RoundedPlaces,
        centroids: &[f32],
    ) -> Result<()> {
        let arena = self.arena()?;
        let shape = self.shape;
        let centres = hopper::centres(centroids, shape.k as usize, shape.d as usize);
        arena.upload(&self.stream, rounded.centre, &centres)?;
        arena.zero(&self.stream, rounded.extents)?;
        let (points, centre) = (self.at(self.places.points)?.cast(), self.at(rounded.centre)?);
        let extents = self.at(rounded.extents)?;
        let reach = Extents { points, centre, extents, params: MomentsParams::new(shape) };
        let packed_pitch = hopper::packed_shape(shape).pitch;
        let pack = PackPoints {
            points,
            centre,
            extents,
            packed: self.at(rounded.points)?,
            norms: self.at(places.norms)?,
            residuals: self.at(rounded.residuals)?,
            params: PackPointsParams { shape, packed_pitch },
        };
        // SAFETY: as in `iteration`.
        unsafe {
            self.device.launch(&self.stream, &reach)?;
            self.device.launch(&self.stream, &pack)
        }
    }

    /// Centroids as the tensor cores take them, in this order; the next assignment uses them.
    fn pack_centroids(
        &self,
        places: &hopper::Places,
        states: Place<State>,
        order: Option<Place<u32>>,
    ) -> Result<()> {
        let slot = 1 - self.slot.get();
        self.slot.set(slot);
        let (mut centre, mut extents) = (std::ptr::null(), std::ptr::null());
        if let Some(rounded) = &places.rounded {
            centre = self.at(rounded.centre)?.cast_const();
            extents = self.at(rounded.extents)?.cast_const();
        }
        let kernel = PackCentroids::<T::Device> {
            centroids: self.at(self.places.rounded)?.cast(),
            centre,
            extents,
            order: self.order(order)?,
            states: self.at(states)?.cast(),
            packed: self.at(places.packed)?,
            biases: self.at(places.biases)?,
            plain: self.at(places.plain)?,
            norms: self.at(places.centroid_norms)?,
            residuals: self.at(places.centroid_residuals)?,
            largest: self.at(places.largest)?,
            list_counts: self.at(places.list_counts)?,
            params: PackParams { shape: self.shape, slot },
        };
        // SAFETY: as in `iteration`.
        unsafe { self.device.launch(&self.stream, &kernel) }
    }

    fn order(&self, order: Option<Place<u32>>) -> Result<*const u32> {
        order.map_or(Ok(std::ptr::null()), |order| self.at(order).map(<*mut u32>::cast_const))
    }

    /// Labels of the problems that `states` has not done.
    fn assign(&self, states: Place<State>) -> Result<()> {
        if let (Some(entry), Some(places)) = (self.hopper, &self.places.hopper) {
            return self.assign_hopper(entry, places, states);
        }
        let kernel = Assign::<T::Device> {
            points: self.at(self.places.points)?.cast(),
            centroids: self.at(self.places.rounded)?.cast(),
            states: self.at(states)?.cast(),
            labels: self.at(self.places.labels)?,
            tile_cost: self.at(self.places.tile_cost)?,
            tile_changed: self.at(self.places.tile_changed)?,
            params: AssignParams { shape: self.shape },
        };
        // SAFETY: as in `iteration`.
        unsafe { self.device.launch(&self.stream, &kernel) }
    }

    /// [`Self::assign`] on tensor cores: order and pack the centroids, multiply, settle what is not sure.
    fn assign_hopper(
        &self,
        entry: hopper::Launch,
        places: &hopper::Places,
        states: Place<State>,
    ) -> Result<()> {
        let shape = self.shape;
        if let Some(order) = places.order {
            // By norms from the packing before: they have changed since, but the order little.
            let kernel = OrderCentroids {
                norms: self.at(places.centroid_norms)?,
                states: self.at(states)?.cast(),
                order: self.at(order)?,
                params: OrderParams { shape },
            };
            // SAFETY: as in `iteration`.
            unsafe { self.device.launch(&self.stream, &kernel)? };
        }
        self.pack_centroids(places, states, places.order)?;

        let list_counts = self.at(places.list_counts)?;
        let [list_rows, list_first, list_second] =
            [self.at(places.list_rows)?, self.at(places.list_first)?, self.at(places.list_second)?];
        let (labels, changed) = (self.at(self.places.labels)?, self.at(self.places.tile_changed)?);
        let (mut extents, mut residuals) = (std::ptr::null(), std::ptr::null());
        let mut points = self.at(self.places.points)?.cast::<u16>().cast_const();
        if let Some(rounded) = &places.rounded {
            extents = self.at(rounded.extents)?.cast_const();
            residuals = self.at(rounded.residuals)?.cast_const();
            points = self.at(rounded.points)?;
        }
        let floors = Floors {
            points,
            norms: self.at(places.norms)?,
            residuals,
            labels,
            plain: self.at(places.plain)?,
            centroid_norms: self.at(places.centroid_norms)?,
            centroid_residuals: self.at(places.centroid_residuals)?,
            states: self.at(states)?.cast(),
            floors: self.at(places.floors)?,
            params: FloorsParams {
                shape: hopper::packed_shape(shape),
                is_bf16: (T::DTYPE == DType::BF16).into(),
            },
        };
        if self.device.plan().has_floors(shape) {
            // SAFETY: as in `iteration`; labels that were never written are some bits, which any will do.
            unsafe { self.device.launch(&self.stream, &floors)? };
        }
        let assign = hopper::Arguments {
            points,
            packed: self.at(places.packed)?,
            biases: self.at(places.biases)?,
            order: self.order(places.order)?,
            norms: self.at(places.norms)?,
            residuals,
            floors: self.at(places.floors)?,
            extents,
            largest: self.at(places.largest)?.cast(),
            states: self.at(states)?.cast(),
            labels,
            cost: self.at(self.places.tile_cost)?,
            changed,
            list_counts,
            list_rows,
            list_first,
            list_second,
            params: HopperParams { shape: hopper::packed_shape(shape), slot: self.slot.get() },
            operand: PhantomData,
        };
        let settle = Settle::<T::Device> {
            points: self.at(self.places.points)?.cast(),
            centroids: self.at(self.places.rounded)?.cast(),
            counts: list_counts,
            rows: list_rows,
            first: list_first,
            second: list_second,
            labels,
            changed,
            scratch: self.at(places.settle_scratch)?,
            counters: self.at(places.settle_counters)?,
            params: settle_params(self.device, shape),
        };
        // SAFETY: as in `iteration`.
        unsafe {
            (entry.launch)(self.device, &self.stream, assign)?;
            self.device.launch(&self.stream, &settle)
        }
    }

    /// Labels of every problem, whatever its state.
    fn assign_all(&self) -> Result<()> {
        self.assign(self.places.open)
    }

    /// Sorts the row indices of each panel by label and finds where each cluster begins.
    fn sort(&self, update: &UpdatePlaces) -> Result<*const u32> {
        let (shape, panels) = (self.shape, self.panels);
        let labels = self.at(self.places.labels)?;
        let states = self.at(self.places.states)?.cast::<LoopState>();
        let histogram = self.at(update.histogram)?;
        let totals = self.at(update.totals)?;
        let starts = self.at(update.starts)?;
        let [mut order, mut sorted] = [self.at(update.orders[0])?, self.at(update.orders[1])?];
        let sort = self.device.plan().sort(panels, shape.k);
        if sort == Sort::Block {
            let params = PanelSortParams { shape, panels };
            let kernel = SortPanel { labels, states, sorted: order, starts, params };
            // SAFETY: as in `iteration`.
            unsafe { self.device.launch(&self.stream, &kernel)? };
            return Ok(order);
        }
        if sort == Sort::Whole {
            let params = WholeParams { shape, panels };
            let count = WholeCount { labels, states, histogram, params };
            let begin = WholeStarts { histogram, states, starts, params };
            let place = WholePlace { labels, histogram, starts, states, sorted: order, params };
            let panels = shape.batch * panels.count;
            // SAFETY: as in `iteration`.
            unsafe {
                self.device.launch(&self.stream, &count)?;
                self.device.launch_grid(&self.stream, &begin, panels.min(MOST_BLOCKS))?;
                self.device.launch(&self.stream, &place)?;
            }
            return Ok(order);
        }
        for pass in 0..SortParams::passes(shape.k) {
            let params = SortParams { shape, panels, pass };
            let count = SortHistogram { labels, order, states, histogram, params };
            let scan = ScanParams { groups: shape.batch * panels.count, tiles: panels.tiles() };
            let scan = SortScan { histogram, totals, params: scan };
            let scatter = SortScatter { labels, order, histogram, totals, states, sorted, params };
            // SAFETY: as in `iteration`; `order` and `sorted` are two arrays.
            unsafe {
                self.device.launch(&self.stream, &count)?;
                self.device.launch(&self.stream, &scan)?;
                self.device.launch(&self.stream, &scatter)?;
            }
            (order, sorted) = (sorted, order);
        }
        let params = StartsParams { shape, panels };
        let borders = SegmentStarts { labels, sorted: order, states, starts, params };
        // SAFETY: as in `iteration`.
        unsafe { self.device.launch(&self.stream, &borders)? };
        Ok(order)
    }

    /// Partial sums of every cluster.
    fn sums(&self, update: &UpdatePlaces, sorted: *const u32) -> Result<()> {
        let kernel = SegmentSums::<T::Device> {
            points: self.at(self.places.points)?.cast(),
            labels: self.at(self.places.labels)?,
            sorted,
            starts: self.at(update.starts)?,
            states: self.at(self.places.states)?.cast(),
            sums: self.at(update.sums)?,
            heads: self.at(update.heads)?,
            params: SumsParams::new(self.shape, self.panels, 16 / size_of::<T>() as u32),
        };
        // SAFETY: as in `iteration`; the pitch makes rows of whole vectors.
        unsafe { self.device.launch(&self.stream, &kernel) }
    }

    /// `Σ (x − c)²` of each problem.
    fn inertia(&self) -> Result<Vec<f64>> {
        let params = InertiaParams { shape: self.shape };
        let kernel = Inertia::<T::Device> {
            points: self.at(self.places.points)?.cast(),
            centroids: self.at(self.places.rounded)?.cast(),
            labels: self.at(self.places.labels)?,
            partial: self.at(self.places.partial)?,
            params,
        };
        // SAFETY: as in `iteration`; every label is under `k`, since an assignment wrote them all.
        unsafe { self.device.launch(&self.stream, &kernel)? };
        let partial = self.arena()?.download(&self.stream, self.places.partial, params.blocks() as usize)?;
        Ok(partial.chunks(params.tiles() as usize).map(|tiles| tiles.iter().sum()).collect())
    }

    /// `tol` times the mean variance of the features, for each problem.
    fn thresholds(&self, tol: f64) -> Result<Vec<f64>> {
        let (batch, n, d) = (self.shape.batch as usize, self.shape.n as f64, self.shape.d as usize);
        if tol == 0.0 {
            return Ok(vec![0.0; batch]);
        }
        let update = self.update()?;
        let params = MomentsParams::new(self.shape);
        let kernel = Moments::<T::Device> {
            points: self.at(self.places.points)?.cast(),
            first: self.at(update.first)?,
            second: self.at(update.second)?,
            params,
        };
        // SAFETY: as in `iteration`.
        unsafe { self.device.launch(&self.stream, &kernel)? };
        let len = params.blocks() as usize * d;
        let first = self.arena()?.download(&self.stream, update.first, len)?;
        let second = self.arena()?.download(&self.stream, update.second, len)?;
        let of_problem = params.tiles as usize * d;
        let variance = |first: &[f64], second: &[f64]| {
            let of_feature = |feature: usize| {
                let sum = |values: &[f64]| values.iter().skip(feature).step_by(d).sum::<f64>();
                sum(second) / n - (sum(first) / n).powi(2)
            };
            (0..d).map(of_feature).sum::<f64>() / d as f64
        };
        Ok(first
            .chunks(of_problem)
            .zip(second.chunks(of_problem))
            .map(|(a, b)| tol * variance(a, b))
            .collect())
    }

    fn update(&self) -> Result<&UpdatePlaces> {
        let missing =
            || Error::Cuda { call: "updating centroids".into(), code: "planned without an update".into() };
        self.places.update.as_ref().ok_or_else(missing)
    }
}

/// Few points need to be settled; how many, the host does not know.
fn settle_params(device: &Device, shape: Shape) -> SettleParams {
    SettleParams { shape, blocks: device.plan().settle_blocks * device.multiprocessors() }
}

/// Sizes are 32-bit on the device.
fn small(argument: &'static str, value: usize) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::InvalidArgument {
        argument,
        value: value.to_string(),
        rule: "on a GPU it must be under 2^32",
    })
}
