//! The iterations.
mod by;
mod pairs;
mod parts;

pub(super) use by::By;
pub(super) use pairs::PairArrays;
pub(super) use parts::Parts;

use by::ByPlaces;

use super::device::{Device, Graph, Mark, Visit, check, failed};
use super::frame::Frame;
use super::hopper;
use super::init::{self, Resident};
use super::memory::{Arena, Place, Plan, is_locked};
use super::plan::Sort;
use super::{GpuElement, Gpus};
use crate::backend::totals::mean_variance;
use crate::backend::{LloydOptions, LloydOutcome};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::init::First;
use crate::memory::zeroed;
use crate::metric::Metric;
use crate::model::{BatchSummary, IterationStats};
use crate::params::{EmptyClusters, Precision};
use crate::points::Problem;
use crate::stages::{Samples, StageTimes};
use crate::workspace::DevicePoints;
use bytemuck::{Pod, Zeroable};
use cust::event::{Event, EventFlags};
use cust::stream::Stream;
use kernels_gpu::kernels::*;
use kernels_gpu::spec::*;
use std::cell::{Cell, OnceCell};
use std::marker::PhantomData;
use std::sync::Arc;

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
/// The same where a launch that has nothing left to do ends by itself.
const LONG_WINDOW: usize = 32;

/// The arrays of one call, in device memory, but for the points.
struct Places<T> {
    labels: Place<u32>,
    /// Master centroids, f32.
    centroids: Place<f32>,
    /// The centroids in the points' type, which distances are taken to.
    rounded: Place<T>,
    /// The problem's first point, for a part of a problem.
    origin: Option<Place<T>>,
    /// What points are rounded about, where they are.
    centre: Place<f32>,
    /// First centroids, or rows of the points that are to be the first centroids.
    given: Place<f32>,
    rows: Place<u32>,
    /// State of each problem, and the same for a pass over all problems whatever their state.
    states: Place<State>,
    open: Place<State>,
    /// All that a run begins with zeros in, and some that does not matter: the states are the first of them.
    anew: Place<u8>,
    tile_cost: Place<f64>,
    tile_changed: Place<u32>,
    partial: Place<f64>,
    hopper: Option<hopper::Places>,
    update: Option<UpdatePlaces>,
    by: ByPlaces<T>,
}

/// What only a fit needs.
struct UpdatePlaces {
    /// Row indices, sorted by label after the last pass; each pass by a digit reads one and writes the other.
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

/// Where the points are.
enum Points<T> {
    Own {
        arena: Arena,
        place: Place<T>,
    },
    /// In device memory of the caller's.
    Elsewhere(*const T),
}

// SAFETY: an address in device memory, which any thread may use.
unsafe impl<T> Send for Points<T> {}

/// The points that tensor cores take, the caller's or those rounded from them: what is null there is 0, or none.
struct Multiplied {
    points: *const u16,
    residuals: *const f32,
    extents: *const u32,
}

/// What a call is for, which is what it has memory for.
#[derive(Clone, Copy)]
pub(super) enum Role<'a> {
    /// Labels alone.
    Assign,
    /// Labels alone, by the entry that a fit of this shape takes: it is loaded, and any entry does for any number of clusters.
    Candidates(Shape),
    /// Pairs of points and rows of them alone, by what a fit of this shape has; nothing is assigned.
    Pairs(Shape),
    Fit(&'a LloydOptions),
    /// Labels and partial sums of a part of a problem.
    Part(Cut),
    /// Means, from all parts.
    Total(Cut),
}

impl Role<'_> {
    /// Whether there are means to be found.
    fn updates(self) -> bool {
        !matches!(self, Role::Assign | Role::Candidates(_) | Role::Pairs(_))
    }
}

/// What a problem tells its parts, so that they add in its order.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub(super) panel_rows: u32,
    pub(super) moment_rows: u32,
    pub(super) inertia_rows: u32,
}

impl Cut {
    pub(super) fn of(shape: Shape) -> Self {
        Cut {
            panel_rows: Panels::of(shape.n, shape.k).len,
            moment_rows: MomentsParams::new(shape).rows,
            inertia_rows: InertiaParams::new(shape).rows,
        }
    }
}

/// What a fit starts from.
pub(crate) enum Start<'a> {
    /// These centroids, `batch · k · d` values.
    Centroids(&'a [f32]),
    /// These rows of each problem's points, `batch · k` of them.
    Rows(&'a [u32]),
    /// The centroids of the run before.
    SameCentroids,
}

/// What the host is told, of each problem.
struct Look {
    states: Vec<LoopState>,
    /// `[iteration][problem]`
    records: Vec<IterationRecord>,
    /// None before there are any.
    inertias: Vec<f64>,
}

/// Launches that a second run of a call replays.
#[derive(Default)]
struct Graphs {
    reset: OnceCell<Graph>,
    pair: OnceCell<Graph>,
    /// One for each slot of the centroids' norms that the last iteration may have left.
    close: [OnceCell<Graph>; 2],
}

/// Problems of one shape on one stream: memory, and all that is launched. A run begins with points ([`Self::load`] or
/// [`Self::borrow`]) and [`Self::start`].
pub(super) struct Call<T: GpuElement> {
    device: Device,
    /// Its own, but for parts of a problem, of which several take turns.
    stream: Arc<Stream>,
    by: By,
    points: Option<Points<T>>,
    arena: Option<Arena>,
    places: Places<T>,
    shape: Shape,
    panels: Panels,
    moments: MomentsParams,
    inertia: InertiaParams,
    /// The tensor-core entry that assigns, where there is one for this shape and device.
    hopper: Option<hopper::Launch>,
    /// How one launch ends an iteration and leaves centroids packed for the next, where it does.
    finish: Option<FinishParams>,
    /// The entry that does all of an iteration before that, where there is one.
    sweep: Option<hopper::SweepLaunch>,
    /// The entry that does several iterations at once, and how its blocks end each, where all of them run at the same time.
    iterate: Option<(hopper::IterateLaunch, FinishParams)>,
    /// What rounded points are rounded in, where it is not this call's to find.
    frame: Option<Frame>,
    /// The slot of the largest centroid norm that the last packing raised.
    slot: Cell<u32>,
    /// Iterations of which records are kept between two looks.
    window: usize,
    graphs: Graphs,
    /// Runs that have begun.
    runs: Cell<usize>,
    /// While it is dropped; the last field, for those above are dropped in the device's context too.
    end: Option<Visit>,
}

impl<T: GpuElement> Drop for Call<T> {
    fn drop(&mut self) {
        self.end = Some(Visit::begin());
        // Memory goes to another call: nothing of this one may still run.
        if self.device.enter().is_err() || self.stream.synchronize().is_err() {
            return;
        }
        if let Some(arena) = self.arena.take() {
            self.device.keep(arena);
        }
        if let Some(Points::Own { arena, .. }) = self.points.take() {
            self.device.keep(arena);
        }
    }
}

pub(super) fn fit<T: GpuElement>(
    gpus: &Gpus,
    problem: &Problem<'_, T>,
    first: First<'_>,
    options: &LloydOptions,
) -> Result<LloydOutcome<f32>> {
    let by = gpus.by(options.metric, problem.weights.is_some());
    let sizes = [problem.batch, problem.n, problem.d];
    let mut call = Call::new(gpus.first(), sizes, (options.k, by), Role::Fit(options))?;
    call.load(problem, true)?;
    match init::draw(gpus, &call.resident()?, first, (options.k, by))? {
        Some(rows) => call.start(Start::Rows(&rows))?,
        None => {
            let centroids = first.centroids(problem, (options.k, options.metric))?;
            call.start(Start::Centroids(&centroids))?;
        }
    }
    let problems = call.fit(options)?;
    Ok(LloydOutcome { centroids: call.centroids()?, labels: call.labels()?, problems })
}

pub(super) fn assign<T: GpuElement>(
    device: &Device,
    problem: &Problem<'_, T>,
    centroids: &[f32],
    (k, by, frame): (usize, By, Option<&Frame>),
) -> Result<Vec<u32>> {
    let mut call = Call::new(device, [problem.batch, problem.n, problem.d], (k, by), Role::Assign)?;
    call.frame = frame.cloned();
    call.load(problem, false)?;
    call.start(Start::Centroids(centroids))?;
    call.assign_all()?;
    call.labels()
}

/// See [`crate::stages::time`].
pub(super) fn time_stages<T: GpuElement>(
    device: &Device,
    problem: &Problem<'_, T>,
    (k, precision): (usize, Precision),
    iterations: usize,
) -> Result<StageTimes> {
    let centroids: Vec<f32> = (0..problem.batch)
        .flat_map(|batch| problem.of_batch(batch)[..k * problem.d].iter().map(|&v| v.to_centroid()))
        .collect();
    // A threshold that is never met: no problem stops, unless its labels do.
    let options = LloydOptions {
        metric: Metric::Euclidean,
        k,
        max_iter: iterations,
        tol: 0.0,
        empty_clusters: EmptyClusters::Keep,
    };
    let by = By { metric: options.metric, weighted: false, relocates: false, precision };
    let mut call = Call::new(device, [problem.batch, problem.n, problem.d], (k, by), Role::Fit(&options))?;
    call.load(problem, false)?;
    call.start(Start::Centroids(&centroids))?;
    let update = call.update()?;
    call.upload(update.thresholds, &vec![-1.0; problem.batch])?;
    call.iterations(2, true, false)?;

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
        // Each time the first iterations again: later ones end, one problem after the other, and cost nothing any more.
        call.give_centroids(None, call.shape)?;
        call.arena()?.zero(&call.stream, call.places.states)
    };
    // What an iteration before would have left, where iterations do.
    let pack = || match &call.places.hopper {
        Some(places) if call.finish.is_some() => call.repack(places),
        _ => Ok(()),
    };
    // As many as a launch of several has room to show what one takes.
    let count = if call.iterate.is_some() { WINDOW } else { 2 };
    let mut done = Vec::new();
    for _ in 0..iterations {
        begin()?;
        pack()?;
        mark(&mut whole)?;
        call.iterations(count, true, false)?;
        mark(&mut whole)?;
        let states = call.download(call.places.states, problem.batch)?;
        done.push(states.iter().map(|State(state)| state.n_iter).max().unwrap_or(1));
    }
    for _ in 0..iterations {
        begin()?;
        mark(&mut stages)?;
        // To assign points to centroids that are given is to pack them, too.
        pack()?;
        call.assign(call.places.states)?;
        mark(&mut stages)?;
        let sorted = call.sort(update)?;
        mark(&mut stages)?;
        call.sums(update, sorted)?;
        mark(&mut stages)?;
        call.finalise(update)?;
        mark(&mut stages)?;
    }
    // For the list of unsure points, which ends with the iteration.
    begin()?;
    pack()?;
    call.assign(call.places.states)?;
    call.stream.synchronize().map_err(|code| failed("waiting for the device", code))?;
    let settled = match &call.places.hopper {
        // Of what more than two candidates are left, the second assignment knows where there is one.
        Some(places) => {
            let counts = call.download(places.list_counts, LIST_COUNTS as usize)?;
            [counts[LIST_TWO], counts[if places.again.is_some() { LIST_LEFT } else { LIST_MANY }]]
        }
        None => [0, 0],
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
        iteration: Samples::new(
            whole.chunks(2).zip(done).map(|(e, done)| between(&e[0], &e[1]) / f64::from(done)).collect(),
        ),
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

impl<T: GpuElement> Call<T> {
    /// Room for problems of the shape `[batch, n, d]`, and everything loaded that they need.
    pub(super) fn new(device: &Device, sizes: [usize; 3], task: (usize, By), role: Role<'_>) -> Result<Self> {
        device.enter()?;
        Self::on(Arc::new(device.stream()?), device, sizes, task, role)
    }

    /// The same in the device's context, on a stream that others use.
    fn on(
        stream: Arc<Stream>,
        device: &Device,
        [batch, n, d]: [usize; 3],
        (k, by): (usize, By),
        role: Role<'_>,
    ) -> Result<Self> {
        let shape = shape_of::<T>([batch, n, d], k)?;
        let (mut panels, mut moments) = (Panels::of(shape.n, shape.k), MomentsParams::new(shape));
        let mut inertia = InertiaParams::new(shape);
        if let Role::Part(cut) | Role::Total(cut) = role {
            panels = Panels { count: shape.n.div_ceil(cut.panel_rows), len: cut.panel_rows };
            moments.rows = cut.moment_rows;
            moments.tiles = shape.n.div_ceil(cut.moment_rows);
            inertia = InertiaParams::by(shape, cut.inertia_rows);
        }
        // A total has what its parts have added up, no points of its own.
        let has_points = !matches!(role, Role::Total(_));
        // Records of a window stay under 64 MiB however many problems there are. An even number, for iterations are
        // replayed in pairs, or one.
        let window = |most: usize| (((64 << 20) / size_of::<Record>() / batch).min(most) & !1).max(1);

        // First centroids have no other way.
        let of_first = if let Role::Candidates(fit) | Role::Pairs(fit) = role { Some(fit) } else { None };
        let fast = (device.has_tensor_cores() || of_first.is_some()) && u32::try_from(batch * n).is_ok();
        let hopper = fast.then(|| T::hopper(device, of_first.unwrap_or(shape)));
        let assigns = !matches!(role, Role::Pairs(_));
        let again = hopper.filter(|entry| entry.is_hopper && by.is_exact() && assigns);
        let teams = device.teams(&<T::Refined as hopper::Refining>::SPECS[0]);
        let again = again.and_then(|_| device.plan().refine(shape, teams));
        let mut plan = Plan::default();
        let tiles = tiles_of(shape, hopper) as usize;
        let sort = device.plan().sort(panels, shape.k);
        let finalise = FinaliseParams::new(by.shape_of_sums(shape), panels, device.multiprocessors());
        let pitch = sums_pitch(by.width(shape)) as usize;
        let is_ordered = !by.metric.is_product() && device.plan().is_ordered(shape.k);
        let ends_at_once = matches!(role, Role::Fit(_)) && by.is_plain() && hopper.is_some() && !is_ordered;
        let converge = converge_params(shape, by, tiles, window(WINDOW));
        let finish =
            ends_at_once.then(|| FinishParams::new(panels, converge, device.multiprocessors())).flatten();
        let sweep = finish.filter(|_| by.is_exact()).and_then(|_| T::sweeps(device, shape, panels));
        let mut iterate = None;
        if let Some(entry) = sweep.and_then(|entry| entry.iterate)
            && entry.fits(device, shape, panels)?
        {
            let converge = converge_params(shape, by, tiles, window(LONG_WINDOW));
            let params = FinishParams::by_blocks(panels, converge, entry.blocks_of_problem(panels));
            iterate = params.map(|params| (entry, params));
        }
        let window = window(if iterate.is_some() { LONG_WINDOW } else { WINDOW });
        let updates = role.updates();
        // One after the other: see `anew`.
        let (states, open) = (plan.array(batch), plan.array(batch));
        let if_updates = |len: usize| if updates { len } else { 0 };
        let (thresholds, records) = (plan.array(if_updates(batch)), plan.array(if_updates(window * batch)));
        let converge_counters = plan.array(if_updates(batch));
        let places = Places {
            labels: plan.array(batch * n),
            centroids: plan.array(batch * k * d),
            rounded: plan.array(batch * k * d),
            origin: matches!(role, Role::Part(_) | Role::Total(_)).then(|| plan.array(shape.pitch as usize)),
            centre: plan.array(if T::ROUNDS { batch * d } else { 0 }),
            given: plan.array(batch * k * d),
            rows: plan.array(batch * k),
            states,
            open,
            anew: states.through(converge_counters),
            tile_cost: plan.array(batch * tiles),
            tile_changed: plan.array(batch * tiles),
            partial: plan.array(inertia.blocks() as usize),
            hopper: hopper.filter(|_| has_points).map(|entry| {
                let labelling = assigns.then(|| hopper::Labelling {
                    settle: settle_params(device, shape),
                    again,
                    teams: entry.teams(device),
                });
                hopper::Places::new(&mut plan, shape, (is_ordered, T::ROUNDS), labelling)
            }),
            by: ByPlaces::new(&mut plan, by, shape, role),
            update: updates.then(|| {
                let groups = batch * panels.count as usize;
                let moments = match role {
                    Role::Fit(options) if options.tol == 0.0 => 0,
                    _ => moments.blocks() as usize * d,
                };
                let digits = groups * SORT_DIGITS as usize;
                let (orders, histogram, totals) = match sort {
                    _ if !has_points => ([0, 0], 0, 0),
                    Sort::Block => ([0, 0], 0, 0),
                    Sort::Whole => ([batch * n, 0], WholeParams { shape, panels }.blocks() as usize * k, 0),
                    Sort::Digits => ([batch * n; 2], digits * panels.tiles() as usize, digits),
                };
                UpdatePlaces {
                    orders: orders.map(|len| plan.array(len)),
                    histogram: plan.array(histogram),
                    totals: plan.array(totals),
                    starts: plan.array(groups * (k + 1)),
                    sums: plan.array(groups * k * pitch),
                    heads: plan.array(groups * panels.stretches() as usize * pitch),
                    moves: plan.array(finalise.items() as usize),
                    thresholds,
                    records,
                    partial_records: plan.array(converge.blocks() as usize),
                    converge_counters,
                    first: plan.array(moments),
                    second: plan.array(moments),
                }
            }),
        };
        let call = Call {
            device: device.clone(),
            stream,
            by,
            finish,
            sweep,
            iterate,
            points: None,
            arena: Some(device.arena(plan.bytes())?),
            places,
            shape,
            panels,
            moments,
            inertia,
            hopper,
            frame: None,
            slot: Cell::new(0),
            window,
            graphs: Graphs::default(),
            runs: Cell::new(0),
            end: None,
        };
        // One module for all that this call launches, so that the driver compiles it once.
        let mut kernels = vec![<Inertia<T::Device> as Kernel>::SPEC, <Gather<T::Device> as Kernel>::SPEC];
        let is_product = by.metric.is_product();
        kernels.extend(match hopper {
            Some(entry) if is_product => {
                let pack = <PackProducts<T::Device> as Kernel>::SPEC;
                vec![entry.spec, pack, <SettleProducts<T::Device> as Kernel>::SPEC]
            }
            Some(entry) => {
                vec![
                    entry.spec,
                    OrderCentroids::SPEC,
                    Floors::SPEC,
                    <PackCentroids<T::Device> as Kernel>::SPEC,
                    <Settle<T::Device> as Kernel>::SPEC,
                ]
            }
            None if is_product => vec![<AssignProducts<T::Device> as Kernel>::SPEC],
            None => vec![<Assign<T::Device> as Kernel>::SPEC],
        });
        kernels.extend(match hopper {
            Some(_) if T::ROUNDS && is_product => vec![Extents::SPEC, PackRows::SPEC],
            Some(_) if T::ROUNDS => vec![Extents::SPEC, PackPoints::SPEC],
            Some(_) => vec![<Norms<T::Device> as Kernel>::SPEC],
            None => vec![],
        });
        if hopper.is_some_and(|entry| entry.is_hopper && assigns) {
            kernels.push(MergeSpans::SPEC);
        }
        if again.is_some() {
            kernels.extend(<T::Refined as hopper::Refining>::SPECS);
            kernels.extend(match is_product {
                _ if !T::ROUNDS => vec![KeepUnsure::SPEC],
                true => vec![SplitRows::SPEC, SplitProducts::SPEC],
                false => vec![SplitPoints::SPEC, SplitCentroids::SPEC],
            });
        }
        kernels.extend(by::kernels::<T>(by, updates));
        if updates {
            let sums = if by.has_masses() {
                <SegmentSumsByMass<T::Device> as Kernel>::SPEC
            } else {
                <SegmentSums<T::Device> as Kernel>::SPEC
            };
            kernels.extend(match sort {
                _ if let Some((entry, _)) = iterate => vec![entry.spec],
                _ if let Some(entry) = sweep => vec![entry.spec],
                Sort::Block if by.has_masses() => vec![<PanelSumsByMass<T::Device> as Kernel>::SPEC],
                Sort::Block => vec![match rows_of_panels::<T>(device, PanelSumsParams { shape, panels }) {
                    PanelRows::Narrow => <PanelSumsNarrow<T::Device> as Kernel>::SPEC,
                    PanelRows::Held => <PanelSumsHeld<T::Device> as Kernel>::SPEC,
                    PanelRows::Any => <PanelSums<T::Device> as Kernel>::SPEC,
                }],
                Sort::Whole => {
                    vec![WholeCount::SPEC, WholeStarts::SPEC, WholePlace::SPEC, sums, FoldHeads::SPEC]
                }
                Sort::Digits => vec![
                    SortHistogram::SPEC,
                    SortScan::SPEC,
                    SortScatter::SPEC,
                    SegmentStarts::SPEC,
                    sums,
                    FoldHeads::SPEC,
                ],
            });
            kernels.extend(match finish {
                Some(_) if iterate.is_some() => vec![],
                Some(_) => vec![<Finish<T::Device> as Kernel>::SPEC],
                None => vec![<Finalise<T::Device> as Kernel>::SPEC, Converge::SPEC],
            });
            kernels.push(<Moments<T::Device> as Kernel>::SPEC);
        }
        device.load(&kernels)?;

        Ok(call)
    }

    /// For points that lie where they are at the pitch that kernels take, and at most `k` of them: assignments of one problem's
    /// ([`Self::assign_to_rows`]), or pairs ([`Self::list_pairs`]), as `role` says.
    pub(super) fn over(points: &Resident<'_, T>, k: usize, role: Role<'_>) -> Result<Self> {
        let Shape { batch, n, d, .. } = points.shape;
        // Which rows are drawn is the same with any precision.
        let by =
            By { metric: Metric::Euclidean, weighted: false, relocates: false, precision: Precision::Exact };
        let sizes = [batch as usize, n as usize, d as usize];
        let mut call = Self::new(points.device, sizes, (k, by), role)?;
        call.set_points(Points::Elsewhere(points.points));
        Ok(call)
    }

    /// Takes copies of points from the host. Those that nobody has looked at yet it refuses where they are not finite.
    pub(super) fn load(&mut self, problem: &Problem<'_, T>, unchecked: bool) -> Result<()> {
        self.device.enter()?;
        let shape = self.shape;
        let values = problem.batch * problem.n * shape.pitch as usize;
        if !matches!(self.points, Some(Points::Own { .. })) {
            let mut plan = Plan::default();
            let place = plan.array(values);
            self.set_points(Points::Own { arena: self.device.arena(plan.bytes())?, place });
        }
        let Some(Points::Own { arena, place }) = &self.points else { return Err(no_points()) };
        let (d, pitch) = (shape.d as usize, shape.pitch as usize);
        let look =
            |row: usize, points: &[T]| if unchecked { T::check_finite(points, row, d) } else { Ok(()) };
        if is_locked(&problem.points) {
            if d != pitch {
                arena.zero(&self.stream, *place)?;
            }
            // SAFETY: waited for before this returns, and the caller has the points until then.
            let copied = unsafe { arena.upload_locked(&self.stream, *place, &problem.points, d, pitch) };
            let looked = look(0, &problem.points);
            self.wait()?;
            copied.and(looked)?;
        } else {
            arena.upload_rows(&self.device, &self.stream, (*place, pitch), (&problem.points, d), look)?;
        }
        problem.weights.as_ref().map_or(Ok(()), |weights| self.set_weights(weights))
    }

    /// Takes points where they are in device memory; copies of them, where rows are not one after the other or not of
    /// whole vectors.
    ///
    /// # Safety
    /// The points must lie there in memory of this device, finite, for as long as runs use them, from when their stream
    /// has passed the work that it has now.
    pub(super) unsafe fn borrow(&mut self, points: DevicePoints<T>) -> Result<()> {
        self.device.enter()?;
        if let Some(stream) = points.stream {
            // SAFETY: this function's contract.
            unsafe { self.device.order(stream, &self.stream)? };
        }
        let shape = self.shape;
        let [batch, n, d, pitch] = [shape.batch, shape.n, shape.d, shape.pitch].map(|value| value as usize);
        let [of_problem, of_row] = points.strides.unwrap_or([n * d, d]);
        let is_dense = of_row == d && (of_problem == n * d || batch == 1);
        if is_dense && pitch == d && (points.address as usize).is_multiple_of(16) {
            self.set_points(Points::Elsewhere(points.address));
            return Ok(());
        }
        let mut plan = Plan::default();
        let place = plan.array(batch * n * pitch);
        let arena = self.device.arena(plan.bytes())?;
        arena.zero(&self.stream, place)?;
        // Rows as far apart as problems are need one copy.
        let (copies, rows) = if of_problem == n * of_row { (1, batch * n) } else { (batch, n) };
        for copy in 0..copies {
            let to = place.part(copy * rows * pitch, rows * pitch);
            let from = points.address.wrapping_add(copy * of_problem);
            // SAFETY: this function's contract.
            unsafe { arena.copy_rows(&self.stream, (to, pitch), (from, of_row), rows, d)? };
        }
        self.set_points(Points::Own { arena, place });
        Ok(())
    }

    fn set_points(&mut self, points: Points<T>) {
        // What was captured has the address of the points before.
        let before = self.points.replace(points);
        let moved = match (&before, &self.points) {
            (Some(Points::Elsewhere(before)), Some(Points::Elsewhere(now))) => before != now,
            _ => true,
        };
        if moved {
            self.graphs = Graphs::default();
        }
        if let (Some(Points::Own { arena, .. }), Ok(())) = (before, self.stream.synchronize()) {
            self.device.keep(arena);
        }
    }

    /// Where the points are.
    fn points(&self) -> Result<*const T> {
        match &self.points {
            Some(Points::Own { arena, place }) => Ok(arena.at(*place)),
            Some(Points::Elsewhere(points)) => Ok(*points),
            None => Err(no_points()),
        }
    }

    /// The points, for what is not iterations.
    pub(super) fn resident(&self) -> Result<Resident<'_, T>> {
        Ok(Resident { device: &self.device, stream: &self.stream, points: self.points()?, shape: self.shape })
    }

    /// Where the problem's first point is.
    fn origin(&self) -> Result<*const T> {
        match self.places.origin {
            Some(place) => Ok(self.at(place)?),
            None => self.points(),
        }
    }

    /// Begins a run: first centroids, and everything as if nothing had run before.
    pub(super) fn start(&self, start: Start<'_>) -> Result<()> {
        self.device.enter()?;
        if self.rounds() && self.by.frames_by_points() {
            self.centre_on_points()?;
        }
        let mut rows = None;
        match start {
            Start::Centroids(centroids) => {
                self.upload(self.places.given, centroids)?;
                self.centre_on(centroids)?;
            }
            Start::Rows(drawn) => {
                self.upload(self.places.rows, drawn)?;
                rows = Some(self.at(self.places.rows)?.cast_const());
            }
            Start::SameCentroids => {}
        }
        self.give_centroids(rows, self.shape)?;
        if let (Start::Rows(_), true) = (&start, self.metric().is_spherical()) {
            // To the bits of those that the host draws.
            let mut centroids = self.download(self.places.centroids, self.places.centroids.len())?;
            self.metric().normalise::<T>(&mut centroids, self.shape.d as usize);
            self.upload(self.places.given, &centroids)?;
            self.give_centroids(None, self.shape)?;
        }
        if let Start::Rows(_) = &start {
            self.centre_on_centroids()?;
        }
        self.runs.set(self.runs.get() + 1);
        self.slot.set(0);
        self.replay(&self.graphs.reset, || self.reset())?;
        // The same whether it was launched or replayed.
        self.slot.set(self.is_packed_first().into());
        Ok(())
    }

    /// Labels under these rows of the points as centroids, at most as many as the call was made for; after [`Self::over`].
    pub(super) fn assign_to_rows(&mut self, rows: &[u32]) -> Result<()> {
        self.device.enter()?;
        self.shape.k = small("k", rows.len())?;
        self.upload(self.places.rows.part(0, rows.len()), rows)?;
        self.give_centroids(Some(self.at(self.places.rows)?.cast_const()), self.shape)?;
        let is_first = self.runs.replace(1) == 0;
        match &self.places.hopper {
            _ if is_first => {
                self.centre_on_centroids()?;
                self.reset()?;
            }
            Some(places) => {
                // Those of the rows before do not hold for these.
                self.fill(places.floors, f32::NEG_INFINITY.to_bits())?;
                if places.order.is_some() {
                    self.pack_centroids(places, self.places.open, None)?;
                }
            }
            None => {}
        }
        self.assign_all()
    }

    /// [`Self::centre_on`] the centroids that are on the device.
    fn centre_on_centroids(&self) -> Result<()> {
        if !self.rounds() {
            return Ok(());
        }
        let Shape { batch, k, d, .. } = self.shape;
        let values = batch as usize * k as usize * d as usize;
        self.centre_on(&self.download(self.places.centroids, values)?)
    }

    /// Finds what points are rounded about, where they are, by these centroids, unless it is found by the points.
    fn centre_on(&self, centroids: &[f32]) -> Result<()> {
        if !self.rounds() || self.by.frames_by_points() {
            return Ok(());
        }
        let (k, d) = (self.shape.k as usize, self.shape.d as usize);
        self.upload(self.places.centre, &hopper::centres(centroids, k, d))
    }

    /// Finds what points are rounded about by the points themselves.
    fn centre_on_points(&self) -> Result<()> {
        if let Some(frame) = &self.frame {
            return self.upload(self.places.centre, &frame.centre);
        }
        let (n, k, d) = (self.shape.n as usize, self.shape.k as usize, self.shape.d as usize);
        let of_problem: Vec<u32> = Frame::rows(n, k).map(|row| row as u32).collect();
        let rows = of_problem.repeat(self.shape.batch as usize);
        self.upload(self.places.rows.part(0, rows.len()), &rows)?;
        self.give_centroids(
            Some(self.at(self.places.rows)?.cast_const()),
            Shape { k: of_problem.len() as u32, ..self.shape },
        )?;
        let points = self.download(self.places.centroids, rows.len() * d)?;
        self.upload(self.places.centre, &hopper::centres(&points, of_problem.len(), d))
    }

    /// Whether the tensor cores take the points rounded.
    fn rounds(&self) -> bool {
        self.places.hopper.as_ref().is_some_and(|places| places.rounded.is_some())
    }

    /// Puts rows of the points, or the given centroids, in place of the centroids, of which `shape` has as many as are given.
    fn give_centroids(&self, rows: Option<*const u32>, shape: Shape) -> Result<()> {
        // Without rows, no point is read, and a total has none.
        let points = if rows.is_some() { self.points()? } else { std::ptr::null() };
        let kernel = Gather::<T::Device> {
            points: points.cast(),
            rows: rows.unwrap_or(std::ptr::null()),
            given: self.at(self.places.given)?,
            centroids: self.at(self.places.centroids)?,
            rounded: self.at(self.places.rounded)?.cast(),
            params: GatherParams { shape },
        };
        // SAFETY: as in `means`; the rows are under `n`, as the caller drew them.
        unsafe { self.device.launch(&self.stream, &kernel) }
    }

    /// What a run finds before its first iteration.
    fn reset(&self) -> Result<()> {
        self.start_anew()?;
        // No label is this one, so the first assignment changes all of them.
        self.fill(self.places.labels, u32::MAX)?;
        self.prepare()
    }

    /// Forgets how the iterations before went. A window of records is read whole, though its last iterations may not be done.
    fn start_anew(&self) -> Result<()> {
        self.arena()?.zero(&self.stream, self.places.anew)
    }

    /// Launches, replayed as one from the second run on: to capture them costs more than it saves once.
    fn replay(&self, graph: &OnceCell<Graph>, launches: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.runs.get() < 2 {
            return launches();
        }
        let graph = self.captured(graph, launches)?;
        // SAFETY: as in `means`.
        unsafe { graph.launch(&self.stream) }
    }

    /// The graph of these launches, captured when first asked for.
    fn captured<'a>(
        &self,
        graph: &'a OnceCell<Graph>,
        launches: impl FnOnce() -> Result<()>,
    ) -> Result<&'a Graph> {
        if let Some(graph) = graph.get() {
            return Ok(graph);
        }
        let captured = self.device.capture(&self.stream, launches)?;
        Ok(graph.get_or_init(|| captured))
    }

    /// Centroids in the points' type, as f32.
    pub(super) fn centroids(&self) -> Result<Vec<f32>> {
        self.device.enter()?;
        let rounded = self.download(self.places.rounded, self.places.rounded.len())?;
        Ok(rounded.into_iter().map(T::to_centroid).collect())
    }

    pub(super) fn labels(&self) -> Result<Vec<u32>> {
        self.device.enter()?;
        self.download(self.places.labels, self.places.labels.len())
    }

    /// Clusters that there is room for, of each problem.
    pub(super) fn clusters(&self) -> usize {
        self.places.rows.len() / self.shape.batch as usize
    }

    /// Where the rows are that were given as centroids.
    pub(super) fn device_rows(&self) -> Result<*const u32> {
        self.at(self.places.rows).map(<*mut u32>::cast_const)
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Where the labels are, `batch · n`; null after the memory was given back, which only dropping does.
    pub(super) fn device_labels(&self) -> *const u32 {
        self.at(self.places.labels).map_or(std::ptr::null(), <*mut u32>::cast_const)
    }

    /// Where the centroids in the points' type are, `batch · k · d`.
    pub(super) fn device_centroids(&self) -> *const T {
        self.at(self.places.rounded).map_or(std::ptr::null(), <*mut T>::cast_const)
    }

    fn upload<U: Pod>(&self, place: Place<U>, values: &[U]) -> Result<()> {
        self.arena()?.upload(&self.device, &self.stream, place, values)
    }

    fn download<U: Pod>(&self, place: Place<U>, len: usize) -> Result<Vec<U>> {
        self.arena()?.download(&self.device, &self.stream, place, len)
    }

    fn arena(&self) -> Result<&Arena> {
        let gone = || Error::Cuda { call: "using device memory".into(), code: "already given back".into() };
        self.arena.as_ref().ok_or_else(gone)
    }

    fn at<U>(&self, place: Place<U>) -> Result<*mut U> {
        Ok(self.arena()?.at(place))
    }

    /// Iterations until every problem is done or `max_iter` is reached, and labels and inertia under the last
    /// centroids; after [`Self::start`].
    pub(super) fn fit(&self, options: &LloydOptions) -> Result<Vec<BatchSummary>> {
        let update = self.update()?;
        let batch = self.shape.batch as usize;
        if options.tol > 0.0 {
            self.upload(update.thresholds, &self.thresholds(options.tol)?)?;
        }
        let mut histories = vec![Vec::new(); batch];
        let mut done = 0;
        loop {
            let window = self.window.min(options.max_iter - done);
            done += window;
            // The host need not look before the end where there are no more iterations anyhow.
            let is_last = done == options.max_iter;
            self.iterations(window, options.max_iter > 2, is_last)?;
            if is_last {
                self.close()?;
            }
            let Look { states, records, inertias } = self.look(update, window, is_last)?;
            for (problem, (state, history)) in states.iter().zip(&mut histories).enumerate() {
                // A window before the last is whole, so its iterations have the slots from 0 on.
                for slot in 0..(state.n_iter as usize).saturating_sub(done - window) {
                    let record = records[slot * batch + problem];
                    history.push(self.stats_of(record));
                }
            }
            if !is_last && states.iter().any(|state| state.done == 0) {
                continue;
            }
            // A problem that ended at a fixed point has its labels already; any other gets those of its last centroids.
            if !is_last && states.iter().any(|state| state.fixed_point == 0) {
                self.close()?;
            } else if !is_last {
                self.inertia()?;
            }
            let inertias = if is_last { inertias } else { self.inertias()? };
            let problems = states.iter().zip(histories).zip(inertias);
            return Ok(problems
                .map(|((state, history), inertia)| BatchSummary {
                    inertia,
                    n_iter: state.n_iter as usize,
                    converged: state.done != 0,
                    history,
                })
                .collect());
        }
    }

    /// Labels under the centroids as they are, and the inertia.
    fn close(&self) -> Result<()> {
        if self.iterate.is_some() {
            // Its last launch has labelled them.
            return self.inertia();
        }
        let slot = self.slot.get();
        self.replay(&self.graphs.close[slot as usize], || {
            self.assign_all()?;
            self.inertia()
        })
    }

    /// What the host is told of the last `window` iterations; with the inertia, where that is there.
    fn look(&self, update: &UpdatePlaces, window: usize, has_inertia: bool) -> Result<Look> {
        let batch = self.shape.batch as usize;
        let params = self.inertia;
        let what = "what the device has found";
        let mut states: Vec<State> = zeroed(batch, what)?;
        let mut records: Vec<Record> = zeroed(window * batch, what)?;
        let mut partial: Vec<f64> = zeroed(if has_inertia { params.blocks() as usize } else { 0 }, what)?;
        let arena = self.arena()?;
        let parts = &mut [
            arena.part(self.places.states, &mut states)?,
            arena.part(update.records, &mut records)?,
            arena.part(self.places.partial, &mut partial)?,
        ];
        Arena::download_all(&self.device, &self.stream, parts)?;
        Ok(Look {
            states: states.into_iter().map(|State(state)| state).collect(),
            records: records.into_iter().map(|Record(record)| record).collect(),
            inertias: sums_of_inertia(&partial, params),
        })
    }

    /// Sets all 32-bit values of `place` to `bits`.
    fn fill<U>(&self, place: Place<U>, bits: u32) -> Result<()> {
        const { assert!(size_of::<U>() == 4) };
        // SAFETY: the place lies in the arena.
        let code = unsafe {
            cust::sys::cuMemsetD32Async(self.at(place)? as u64, bits, place.len(), self.stream.as_inner())
        };
        check("cuMemsetD32Async", code)
    }

    /// So many iterations: in one launch, or one after the other, by pairs if they are worth capturing. `closes`: what does several
    /// labels the points after the last.
    fn iterations(&self, count: usize, by_pairs: bool, closes: bool) -> Result<()> {
        if let (Some(iterate), Some(places)) = (self.iterate, &self.places.hopper) {
            return self.iterate(iterate, (count, closes), self.update()?, places);
        }
        let pairs = if by_pairs { count / 2 } else { 0 };
        for _ in 0..pairs {
            // SAFETY: as in `means`.
            unsafe { self.pair_of_iterations()?.launch(&self.stream) }?;
        }
        (2 * pairs..count).try_for_each(|_| self.iteration())
    }

    /// Two iterations to be replayed, in the first run already: two, because norms of centroids have two slots that take
    /// turns.
    fn pair_of_iterations(&self) -> Result<&Graph> {
        self.captured(&self.graphs.pair, || {
            self.iteration()?;
            self.iteration()
        })
    }

    /// The launches of an iteration.
    fn iteration(&self) -> Result<()> {
        let update = self.update()?;
        if let (Some(entry), Some(places)) = (self.sweep, &self.places.hopper) {
            self.sweep(entry, update, places)?;
            return self.finalise(update);
        }
        self.assign(self.places.states)?;
        self.costs()?;
        let sorted = self.sort(update)?;
        self.sums(update, sorted)?;
        self.finalise(update)
    }

    /// Labels and partial sums in one launch; centroids are packed.
    fn sweep(
        &self,
        entry: hopper::SweepLaunch,
        update: &UpdatePlaces,
        places: &hopper::Places,
    ) -> Result<()> {
        let sweep = hopper::SweepArguments {
            points: self.points()?.cast(),
            centroids: self.at(self.places.rounded)?.cast(),
            packed: self.at(places.packed)?,
            biases: self.at(places.biases)?,
            norms: self.at(places.norms)?,
            largest: self.at(places.largest)?.cast(),
            states: self.at(self.places.states)?.cast(),
            labels: self.at(self.places.labels)?,
            cost: self.at(self.places.tile_cost)?,
            changed: self.at(self.places.tile_changed)?,
            starts: self.at(update.starts)?,
            sums: self.at(update.sums)?,
            heads: self.at(update.heads)?,
            params: SweepParams { shape: self.shape, panels: self.panels, slot: self.slot.get() },
            operand: PhantomData,
        };
        // SAFETY: as in `means`.
        unsafe { (entry.launch)(&self.device, &self.stream, sweep) }
    }

    /// So many iterations, or as many as there are until all problems are done, in one launch; centroids are packed, and are so
    /// afterwards.
    fn iterate(
        &self,
        (entry, finish): (hopper::IterateLaunch, FinishParams),
        (count, closes): (usize, bool),
        update: &UpdatePlaces,
        places: &hopper::Places,
    ) -> Result<()> {
        let slot = self.slot.get();
        let iterate = hopper::IterateArguments {
            points: self.points()?.cast(),
            centroids: self.at(self.places.rounded)?.cast(),
            packed: self.at(places.packed)?,
            biases: self.at(places.biases)?,
            norms: self.at(places.norms)?,
            largest: self.at(places.largest)?.cast(),
            states: self.at(self.places.states)?.cast(),
            labels: self.at(self.places.labels)?,
            cost: self.at(self.places.tile_cost)?,
            changed: self.at(self.places.tile_changed)?,
            starts: self.at(update.starts)?,
            sums: self.at(update.sums)?,
            heads: self.at(update.heads)?,
            thresholds: self.at(update.thresholds)?,
            means: self.at(self.places.centroids)?,
            moves: self.at(update.moves)?,
            centroid_norms: self.at(places.centroid_norms)?,
            residuals: self.at(places.centroid_residuals)?,
            records: self.at(update.records)?.cast(),
            counters: self.at(update.converge_counters)?,
            params: IterateParams {
                sweep: SweepParams { shape: self.shape, panels: self.panels, slot },
                finish: FinishParams { slot, ..finish },
                iterations: small("max_iter", count)?,
                closes: closes.into(),
            },
            operand: PhantomData,
        };
        // SAFETY: as in `means`; all blocks run at the same time, as `fits` has found.
        unsafe { (entry.launch)(&self.device, &self.stream, iterate) }
    }

    /// Means, moves and convergence of an iteration.
    fn finalise(&self, update: &UpdatePlaces) -> Result<()> {
        if let (Some(params), Some(places)) = (self.finish, &self.places.hopper) {
            return self.finish(params, update, places);
        }
        self.means(update)?;
        self.converge(update)
    }

    /// The same in one launch, and what the next assignment needs of the centroids.
    fn finish(&self, params: FinishParams, update: &UpdatePlaces, places: &hopper::Places) -> Result<()> {
        let (centre, extents) = self.frame_of(places)?;
        let finish = Finish::<T::Device> {
            origin: self.origin()?.cast(),
            sums: self.at(update.sums)?,
            heads: self.at(update.heads)?,
            starts: self.at(update.starts)?,
            centre,
            extents,
            tile_cost: self.at(self.places.tile_cost)?,
            tile_changed: self.at(self.places.tile_changed)?,
            thresholds: self.at(update.thresholds)?,
            states: self.at(self.places.states)?.cast(),
            centroids: self.at(self.places.centroids)?,
            rounded: self.at(self.places.rounded)?.cast(),
            moves: self.at(update.moves)?,
            packed: self.at(places.packed)?,
            biases: self.at(places.biases)?,
            norms: self.at(places.centroid_norms)?,
            residuals: self.at(places.centroid_residuals)?,
            largest: self.at(places.largest)?.cast(),
            list_counts: self.at(places.list_counts)?,
            records: self.at(update.records)?.cast(),
            counters: self.at(update.converge_counters)?,
            params: FinishParams { slot: self.slot.get(), ..params },
        };
        // SAFETY: as in `means`.
        unsafe { self.device.launch(&self.stream, &finish) }
    }

    fn finalise_params(&self) -> FinaliseParams {
        let shape = self.by.shape_of_sums(self.shape);
        FinaliseParams::new(shape, self.panels, self.device.multiprocessors())
    }

    fn means(&self, update: &UpdatePlaces) -> Result<()> {
        if self.means_by(update)? {
            return Ok(());
        }
        let states = self.at(self.places.states)?.cast::<LoopState>();
        let finalise = Finalise::<T::Device> {
            origin: self.origin()?.cast(),
            sums: self.at(update.sums)?,
            heads: self.at(update.heads)?,
            starts: self.at(update.starts)?,
            states,
            centroids: self.at(self.places.centroids)?,
            rounded: self.at(self.places.rounded)?.cast(),
            moves: self.at(update.moves)?,
            params: self.finalise_params(),
        };
        // SAFETY: every array lies in the arena with the length that `Call::new` gave it for this shape.
        unsafe { self.device.launch(&self.stream, &finalise) }
    }

    fn converge(&self, update: &UpdatePlaces) -> Result<()> {
        let states = self.at(self.places.states)?.cast::<LoopState>();
        let converge = Converge {
            moves: self.at(update.moves)?,
            tile_cost: self.at(self.places.tile_cost)?,
            tile_changed: self.at(self.places.tile_changed)?,
            thresholds: self.at(update.thresholds)?,
            states,
            records: self.at(update.records)?.cast(),
            partial: self.at(update.partial_records)?.cast(),
            counters: self.at(update.converge_counters)?,
            params: converge_params(self.shape, self.by, self.tiles() as usize, self.window),
        };
        // SAFETY: as above.
        unsafe { self.device.launch(&self.stream, &converge) }
    }

    /// Entries of the assignment's statistics for a problem.
    fn tiles(&self) -> u32 {
        tiles_of(self.shape, self.hopper)
    }

    /// What the assignment needs to know before the first, once: the points' norms, their rounding to 16 bits, and the
    /// centroids' norms.
    fn prepare(&self) -> Result<()> {
        self.weigh()?;
        let Some(places) = &self.places.hopper else { return Ok(()) };
        self.prepare_points(places)?;
        if self.is_packed_first() {
            self.pack_centroids(places, self.places.open, None)?;
        }
        Ok(())
    }

    /// What centroids are rounded about and how far points reach from there; null where nothing is rounded.
    fn frame_of(&self, places: &hopper::Places) -> Result<(*const f32, *const u32)> {
        let Some(rounded) = &places.rounded else { return Ok((std::ptr::null(), std::ptr::null())) };
        Ok((self.at(self.places.centre)?.cast_const(), self.at(rounded.extents)?.cast_const()))
    }

    /// Packs the centroids anew, into the slot that the iterations use.
    fn repack(&self, places: &hopper::Places) -> Result<()> {
        self.slot.set(1 - self.slot.get());
        self.pack_centroids(places, self.places.open, None)
    }

    /// Whether a run packs centroids before its first assignment does: to order them, or for good.
    fn is_packed_first(&self) -> bool {
        self.finish.is_some() || self.places.hopper.as_ref().is_some_and(|places| places.order.is_some())
    }

    /// What the tensor cores need to know of the points.
    fn prepare_points(&self, places: &hopper::Places) -> Result<()> {
        self.arena()?.zero(&self.stream, places.anew)?;
        if let Some(parts) = places.again.as_ref().and_then(|again| again.parts.as_ref()) {
            self.arena()?.zero(&self.stream, parts.largest)?;
        }
        self.fill(places.floors, f32::NEG_INFINITY.to_bits())?;
        match &places.rounded {
            Some(rounded) => self.round_points(places, rounded),
            None => {
                let kernel = Norms::<T::Device> {
                    points: self.points()?.cast(),
                    norms: self.at(places.norms)?,
                    params: NormsParams { shape: self.shape },
                };
                // SAFETY: as in `means`.
                unsafe { self.device.launch(&self.stream, &kernel) }
            }
        }
    }

    /// Points in 16 bits, about a centre.
    fn round_points(&self, places: &hopper::Places, rounded: &hopper::RoundedPlaces) -> Result<()> {
        let shape = self.shape;
        let (points, centre) = (self.points()?.cast(), self.at(self.places.centre)?);
        let packed_pitch = hopper::packed_shape(shape).pitch;
        if self.by.metric.is_product() {
            // Each row by a scale of its own; nothing is a centre, of the centroids' reach either.
            self.arena()?.zero(&self.stream, self.places.centre)?;
            let pack = PackRows {
                points,
                packed: self.at(rounded.points)?,
                norms: self.at(places.norms)?,
                residuals: self.at(rounded.residuals)?,
                params: PackPointsParams { shape, packed_pitch },
            };
            // SAFETY: as in `means`.
            return unsafe { self.device.launch(&self.stream, &pack) };
        }
        let extents = self.at(rounded.extents)?;
        if let Some(frame) = &self.frame {
            self.fill(rounded.extents, frame.extent.to_bits())?;
        } else {
            self.arena()?.zero(&self.stream, rounded.extents)?;
            let reach = Extents { points, centre, extents, params: MomentsParams::new(shape) };
            // SAFETY: as in `means`.
            unsafe { self.device.launch(&self.stream, &reach)? };
        }
        let pack = PackPoints {
            points,
            centre,
            extents,
            packed: self.at(rounded.points)?,
            norms: self.at(places.norms)?,
            residuals: self.at(rounded.residuals)?,
            params: PackPointsParams { shape, packed_pitch },
        };
        // SAFETY: as in `means`.
        unsafe { self.device.launch(&self.stream, &pack) }
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
        let (centre, extents) = self.frame_of(places)?;
        let centroids = self.at(self.places.rounded)?;
        let (order, states) = (self.order(order)?, self.at(states)?.cast());
        let [packed, plain] = [self.at(places.packed)?, self.at(places.plain)?];
        let biases = self.at(places.biases)?;
        let [norms, residuals] = [self.at(places.centroid_norms)?, self.at(places.centroid_residuals)?];
        let [largest, list_counts] = [self.at(places.largest)?, self.at(places.list_counts)?];
        let params = PackParams { shape: self.shape, slot };
        macro_rules! launch {
            ($kernel:ident) => {{
                let centroids = centroids.cast();
                let kernel = $kernel::<T::Device> {
                    centroids,
                    centre,
                    extents,
                    order,
                    states,
                    packed,
                    plain,
                    biases,
                    norms,
                    residuals,
                    largest,
                    list_counts,
                    params,
                };
                // SAFETY: as in `means`.
                unsafe { self.device.launch(&self.stream, &kernel) }
            }};
        }
        if !self.by.metric.is_product() {
            return launch!(PackCentroids);
        }
        if let Some(rounded) = &places.rounded {
            // How far the centroids reach, which are a problem's points to this.
            self.arena()?.zero(&self.stream, rounded.extents)?;
            let Shape { k, d, .. } = self.shape;
            let reach = Extents {
                points: centroids.cast_const().cast(),
                centre,
                extents: self.at(rounded.extents)?,
                params: MomentsParams::new(Shape { n: k, k: 1, pitch: d, ..self.shape }),
            };
            // SAFETY: as in `means`; centroids of points that are rounded are f32.
            unsafe { self.device.launch(&self.stream, &reach)? };
        }
        launch!(PackProducts)
    }

    fn order(&self, order: Option<Place<u32>>) -> Result<*const u32> {
        order.map_or(Ok(std::ptr::null()), |order| self.at(order).map(<*mut u32>::cast_const))
    }

    /// Labels of the problems that `states` has not done.
    fn assign(&self, states: Place<State>) -> Result<()> {
        if let (Some(entry), Some(places)) = (self.hopper, &self.places.hopper) {
            return self.assign_hopper(entry, places, states);
        }
        macro_rules! launch {
            ($kernel:ident) => {{
                let kernel = $kernel::<T::Device> {
                    points: self.points()?.cast(),
                    centroids: self.at(self.places.rounded)?.cast(),
                    states: self.at(states)?.cast(),
                    labels: self.at(self.places.labels)?,
                    tile_cost: self.at(self.places.tile_cost)?,
                    tile_changed: self.at(self.places.tile_changed)?,
                    params: AssignParams { shape: self.shape },
                };
                // SAFETY: as in `means`.
                unsafe { self.device.launch(&self.stream, &kernel) }
            }};
        }
        if self.by.metric.is_product() { launch!(AssignProducts) } else { launch!(Assign) }
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
            // SAFETY: as in `means`.
            unsafe { self.device.launch(&self.stream, &kernel)? };
        }
        if self.finish.is_none() {
            self.pack_centroids(places, states, places.order)?;
        }

        let list_counts = self.at(places.list_counts)?;
        let [list_rows, list_first, list_second] =
            [self.at(places.list_rows)?, self.at(places.list_first)?, self.at(places.list_second)?];
        let (labels, changed) = (self.at(self.places.labels)?, self.at(self.places.tile_changed)?);
        let Multiplied { points, residuals, extents } = self.multiplied(places)?;
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
                is_exact: self.by.is_exact().into(),
            },
        };
        let is_product = self.by.metric.is_product();
        if entry.is_hopper && !is_product && self.device.plan().has_floors(shape) {
            // SAFETY: as in `means`; labels that were never written are no centroid's.
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
            found: self.at(places.found)?,
            params: HopperParams::new(
                hopper::packed_shape(shape),
                self.slot.get(),
                self.by.is_exact().into(),
                (entry.points, entry.teams(&self.device)),
            ),
            operand: PhantomData,
        };
        // SAFETY: as in `means`.
        unsafe { (entry.launch)(&self.device, &self.stream, assign)? };
        let left = assign.params.items() - assign.params.units.whole;
        if left > 0 {
            let merge = MergeSpans {
                found: assign.found,
                order: assign.order,
                norms: assign.norms,
                extents,
                states: assign.states,
                labels,
                cost: assign.cost,
                changed,
                list_counts,
                list_rows,
                list_first,
                list_second,
                params: assign.params,
            };
            // SAFETY: as in `means`.
            unsafe { self.device.launch_grid(&self.stream, &merge, left)? };
        }
        // Those with more than two candidates, and where they are listed.
        let (mut many, mut many_rows) = (list_counts.wrapping_add(LIST_MANY), list_rows);
        if let Some(again) = &places.again {
            self.assign_again(again, places, states)?;
            (many, many_rows) = (list_counts.wrapping_add(LIST_LEFT), list_first);
        }
        macro_rules! settle {
            ($kernel:ident) => {{
                let kernel = $kernel::<T::Device> {
                    points: self.points()?.cast(),
                    centroids: self.at(self.places.rounded)?.cast(),
                    two: list_counts.wrapping_add(LIST_TWO),
                    rows: list_rows,
                    first: list_first,
                    second: list_second,
                    many,
                    many_rows,
                    labels,
                    changed,
                    scratch: self.at(places.settle_scratch)?,
                    counters: self.at(places.settle_counters)?,
                    params: settle_params(&self.device, shape),
                };
                // SAFETY: as in `means`.
                unsafe { self.device.launch(&self.stream, &kernel) }
            }};
        }
        if is_product { settle!(SettleProducts) } else { settle!(Settle) }
    }

    /// The points that the tensor cores multiply, and what is known of their rounding.
    fn multiplied(&self, places: &hopper::Places) -> Result<Multiplied> {
        let Some(rounded) = &places.rounded else {
            let points = self.points()?.cast();
            return Ok(Multiplied { points, residuals: std::ptr::null(), extents: std::ptr::null() });
        };
        Ok(Multiplied {
            points: self.at(rounded.points)?,
            residuals: self.at(rounded.residuals)?,
            extents: self.at(rounded.extents)?,
        })
    }

    /// Assigns the points once more that are left with more than two candidates, by a tighter bound; what that leaves is listed
    /// from the back of `list_first`, whose front has candidates of fewer points than there is room for.
    fn assign_again(
        &self,
        again: &hopper::AgainPlaces,
        places: &hopper::Places,
        states: Place<State>,
    ) -> Result<()> {
        let params = RefineParams { shape: self.shape, slot: self.slot.get(), ..again.params };
        let (list_counts, list_rows) = (self.at(places.list_counts)?, self.at(places.list_rows)?);
        let (list_first, list_second) = (self.at(places.list_first)?, self.at(places.list_second)?);
        let (rows, many_rows) = (self.at(again.rows)?, list_first);
        let Multiplied { mut points, mut residuals, .. } = self.multiplied(places)?;
        let (mut packed, mut biases) = (self.at(places.packed)?, self.at(places.biases)?);
        let (mut norms, mut largest) = (self.at(places.norms)?, self.at(places.largest)?);
        if let Some(parts) = &again.parts {
            self.split_unsure(params, again, parts, places, states)?;
            (points, packed, biases) =
                (self.at(parts.points)?, self.at(parts.packed)?, self.at(parts.biases)?);
            (norms, residuals, largest) =
                (self.at(parts.norms)?, self.at(parts.residuals)?, self.at(parts.largest)?);
        } else {
            let keep = KeepUnsure { list_counts, list_rows, rows, many_rows, params };
            // SAFETY: as in `means`.
            unsafe { self.device.launch(&self.stream, &keep)? };
        }
        let refine = RefineHopper {
            points,
            packed,
            biases,
            order: self.order(places.order)?,
            norms,
            residuals,
            rows,
            largest: largest.cast(),
            states: self.at(states)?.cast(),
            labels: self.at(self.places.labels)?,
            changed: self.at(self.places.tile_changed)?,
            list_counts,
            list_rows,
            list_first,
            list_second,
            many_rows,
            found: self.at(places.found)?,
            params,
            operand: PhantomData,
        };
        // SAFETY: as in `means`.
        unsafe { <T::Refined as hopper::Refining>::launch(&self.device, &self.stream, refine) }
    }

    /// Unsure f32 points, and the centroids where there are such points, in parts of 16 bits.
    fn split_unsure(
        &self,
        params: RefineParams,
        again: &hopper::AgainPlaces,
        parts: &hopper::PartsPlaces,
        places: &hopper::Places,
        states: Place<State>,
    ) -> Result<()> {
        let centre = self.at(self.places.centre)?;
        let Multiplied { extents, .. } = self.multiplied(places)?;
        let list_counts = self.at(places.list_counts)?;
        macro_rules! split {
            ($Points:ident, $Centroids:ident) => {{
                let points = $Points {
                    points: self.points()?.cast(),
                    centre,
                    extents,
                    list_counts,
                    list_rows: self.at(places.list_rows)?,
                    packed: self.at(parts.points)?,
                    norms: self.at(parts.norms)?,
                    residuals: self.at(parts.residuals)?,
                    rows: self.at(again.rows)?,
                    many_rows: self.at(places.list_first)?,
                    params,
                };
                let centroids = $Centroids {
                    centroids: self.at(self.places.rounded)?.cast(),
                    centre,
                    extents,
                    order: self.order(places.order)?,
                    states: self.at(states)?.cast(),
                    list_counts,
                    packed: self.at(parts.packed)?,
                    biases: self.at(parts.biases)?,
                    largest: self.at(parts.largest)?,
                    params,
                };
                // SAFETY: as in `means`; points that are rounded are f32, and so are their centroids.
                unsafe {
                    self.device.launch(&self.stream, &points)?;
                    self.device.launch(&self.stream, &centroids)
                }
            }};
        }
        if self.by.metric.is_product() {
            split!(SplitRows, SplitProducts)
        } else {
            split!(SplitPoints, SplitCentroids)
        }
    }

    /// Labels of every problem, whatever its state.
    pub(super) fn assign_all(&self) -> Result<()> {
        self.assign(self.places.open)
    }

    /// Sorts the row indices of each panel by label and finds where each cluster begins; nothing where [`Self::sums`] does.
    fn sort(&self, update: &UpdatePlaces) -> Result<Option<*const u32>> {
        let (shape, panels) = (self.shape, self.panels);
        let labels = self.at(self.places.labels)?;
        let states = self.at(self.places.states)?.cast::<LoopState>();
        let histogram = self.at(update.histogram)?;
        let totals = self.at(update.totals)?;
        let starts = self.at(update.starts)?;
        let [mut order, mut sorted] = [self.at(update.orders[0])?, self.at(update.orders[1])?];
        let sort = self.device.plan().sort(panels, shape.k);
        if sort == Sort::Block {
            return Ok(None);
        }
        if sort == Sort::Whole {
            let params = WholeParams { shape, panels };
            let count = WholeCount { labels, states, histogram, params };
            let begin = WholeStarts { histogram, states, starts, params };
            let place = WholePlace { labels, histogram, starts, states, sorted: order, params };
            let panels = shape.batch * panels.count;
            // SAFETY: as in `means`.
            unsafe {
                self.device.launch(&self.stream, &count)?;
                self.device.launch_grid(&self.stream, &begin, panels.min(MOST_BLOCKS))?;
                self.device.launch(&self.stream, &place)?;
            }
            return Ok(Some(order));
        }
        for pass in 0..SortParams::passes(shape.k) {
            let params = SortParams { shape, panels, pass };
            let count = SortHistogram { labels, order, states, histogram, params };
            let scan = ScanParams { groups: shape.batch * panels.count, tiles: panels.tiles() };
            let scan = SortScan { histogram, totals, params: scan };
            let scatter = SortScatter { labels, order, histogram, totals, states, sorted, params };
            // SAFETY: as in `means`; `order` and `sorted` are two arrays.
            unsafe {
                self.device.launch(&self.stream, &count)?;
                self.device.launch(&self.stream, &scan)?;
                self.device.launch(&self.stream, &scatter)?;
            }
            (order, sorted) = (sorted, order);
        }
        let params = StartsParams { shape, panels };
        let borders = SegmentStarts { labels, sorted: order, states, starts, params };
        // SAFETY: as in `means`.
        unsafe { self.device.launch(&self.stream, &borders)? };
        Ok(Some(order))
    }

    /// Partial sums of every cluster.
    fn sums(&self, update: &UpdatePlaces, sorted: Option<*const u32>) -> Result<()> {
        let (shape, panels) = (self.shape, self.panels);
        let (points, origin) = (self.points()?.cast(), self.origin()?.cast());
        let (labels, states) = (self.at(self.places.labels)?, self.at(self.places.states)?.cast());
        let (starts, sums, heads) = (self.at(update.starts)?, self.at(update.sums)?, self.at(update.heads)?);
        let params = PanelSumsParams { shape, panels };
        let pitch = sums_pitch(self.by.width(shape));
        let fold = |sorted| {
            let params = FoldParams { shape, panels, pitch };
            if params.items() == 0 {
                return Ok(());
            }
            let kernel = FoldHeads { labels, sorted, starts, states, heads, params };
            // SAFETY: see below.
            unsafe { self.device.launch(&self.stream, &kernel) }
        };
        let of_stretches = SumsParams::new(shape, panels, 16 / size_of::<T>() as u32);
        // SAFETY, of all launches: as in `means`; the pitch makes rows of whole vectors, and panels that are not sorted fit a
        // block.
        if let Some((masses, origin)) = self.masses()? {
            let origin = origin.cast();
            let Some(sorted) = sorted else {
                let kernel = PanelSumsByMass::<T::Device> {
                    points,
                    origin,
                    masses,
                    labels,
                    states,
                    starts,
                    sums,
                    heads,
                    params,
                };
                // SAFETY: see above.
                return unsafe { self.device.launch(&self.stream, &kernel) };
            };
            let kernel = SegmentSumsByMass::<T::Device> {
                points,
                origin,
                masses,
                labels,
                sorted,
                starts,
                states,
                sums,
                heads,
                params: of_stretches,
            };
            // SAFETY: see above.
            unsafe { self.device.launch(&self.stream, &kernel)? };
            return fold(sorted);
        }
        let Some(sorted) = sorted else {
            macro_rules! launch {
                ($kernel:ident) => {{
                    let kernel =
                        $kernel::<T::Device> { points, origin, labels, states, starts, sums, heads, params };
                    // SAFETY: see above.
                    unsafe { self.device.launch(&self.stream, &kernel) }
                }};
            }
            return match rows_of_panels::<T>(&self.device, params) {
                PanelRows::Narrow => launch!(PanelSumsNarrow),
                PanelRows::Held => launch!(PanelSumsHeld),
                PanelRows::Any => launch!(PanelSums),
            };
        };
        let params = of_stretches;
        let kernel =
            SegmentSums::<T::Device> { points, origin, labels, sorted, starts, states, sums, heads, params };
        // SAFETY: see above.
        unsafe { self.device.launch(&self.stream, &kernel)? };
        fold(sorted)
    }

    /// The inertia of parts of each problem.
    fn inertia(&self) -> Result<()> {
        if self.inertia_by()? {
            return Ok(());
        }
        let kernel = Inertia::<T::Device> {
            points: self.points()?.cast(),
            centroids: self.at(self.places.rounded)?.cast(),
            labels: self.at(self.places.labels)?,
            partial: self.at(self.places.partial)?,
            params: InertiaParams { shape: self.shape, ..self.inertia },
        };
        // SAFETY: as in `means`; every label is under `k`, since an assignment wrote them all.
        unsafe { self.device.launch(&self.stream, &kernel) }
    }

    /// The inertia of each problem, after [`Self::inertia`].
    fn inertias(&self) -> Result<Vec<f64>> {
        let params = self.inertia;
        let partial = self.download(self.places.partial, params.blocks() as usize)?;
        Ok(sums_of_inertia(&partial, params))
    }

    /// `tol` times the mean variance of the features, for each problem.
    fn thresholds(&self, tol: f64) -> Result<Vec<f64>> {
        self.moments()?;
        Ok(self.variances()?.into_iter().map(|variance| tol * variance).collect())
    }

    /// Sums of features and of their squares over parts of each problem.
    fn moments(&self) -> Result<()> {
        let update = self.update()?;
        if self.moments_by(update)? {
            return Ok(());
        }
        let kernel = Moments::<T::Device> {
            points: self.points()?.cast(),
            origin: self.origin()?.cast(),
            first: self.at(update.first)?,
            second: self.at(update.second)?,
            params: self.moments,
        };
        // SAFETY: as in `means`.
        unsafe { self.device.launch(&self.stream, &kernel) }
    }

    /// The mean variance of the features of each problem, after [`Self::moments`].
    fn variances(&self) -> Result<Vec<f64>> {
        let n = f64::from(self.shape.n);
        Ok(self.sums_of_moments()?.iter().map(|moments| mean_variance(moments, n)).collect())
    }

    /// Sums of features, and then of their squares, over each problem, after [`Self::moments`].
    fn sums_of_moments(&self) -> Result<Vec<Vec<f64>>> {
        let (d, update) = (self.shape.d as usize, self.update()?);
        let len = self.moments.blocks() as usize * d;
        let first = self.download(update.first, len)?;
        let second = self.download(update.second, len)?;
        let of_problem = self.moments.tiles as usize * d;
        let sums = |(first, second): (&[f64], &[f64])| {
            let of_feature = |at: usize| {
                let values = if at < d { first } else { second };
                values.iter().skip(at % d).step_by(d).sum::<f64>()
            };
            (0..2 * d).map(of_feature).collect()
        };
        Ok(first.chunks(of_problem).zip(second.chunks(of_problem)).map(sums).collect())
    }

    /// What an iteration found. Where its inertia is a sum of differences in f32, it may come out below 0 where it is
    /// nearly 0.
    fn stats_of(&self, record: IterationRecord) -> IterationStats {
        let is_lost = record.cost < 0.0 && !self.by.has_losses();
        let inertia = if is_lost { 0.0 } else { record.cost };
        IterationStats { inertia, changed: record.changed.into(), shift: record.shift }
    }

    fn update(&self) -> Result<&UpdatePlaces> {
        let missing =
            || Error::Cuda { call: "updating centroids".into(), code: "planned without an update".into() };
        self.places.update.as_ref().ok_or_else(missing)
    }
}

/// The inertia of each problem by those of its parts.
fn sums_of_inertia(partial: &[f64], params: InertiaParams) -> Vec<f64> {
    partial.chunks(params.tiles as usize).map(|tiles| tiles.iter().sum()).collect()
}

/// A run without points is a bug of this crate; it is reported.
fn no_points() -> Error {
    Error::Cuda { call: "starting a run".into(), code: "no points were given".into() }
}

/// Entries of the statistics of an assignment by `entry`, for a problem.
fn tiles_of(shape: Shape, entry: Option<hopper::Launch>) -> u32 {
    match entry {
        Some(_) => shape.statistics(),
        None => AssignParams { shape }.tiles(),
    }
}

/// Convergence by so many of the assignment's statistics for a problem.
fn converge_params(shape: Shape, by: By, tiles: usize, window: usize) -> ConvergeParams {
    // A centroid's move is written by chunks of its features, or in one.
    let chunks = if by.has_means() { 1 } else { shape.d.div_ceil(FINALISE_FEATURES) };
    ConvergeParams { shape, tiles: tiles as u32, moves: shape.k * chunks, window: window as u32 }
}

/// What the points' rows are to the kernels that sum a panel a block.
fn rows_of_panels<T>(device: &Device, params: PanelSumsParams) -> PanelRows {
    params.rows(size_of::<T>() as u32, device.hardware().shared_bytes, device.multiprocessors())
}

/// Few points need to be settled; how many, the host does not know.
fn settle_params(device: &Device, shape: Shape) -> SettleParams {
    /// Of so many products of values there is a block's work to settle, if there is any.
    const PRODUCTS: u128 = 1 << 22;
    let Shape { batch, n, k, d, .. } = shape;
    let least = device.multiprocessors();
    let most = device.plan().settle_blocks * least;
    let products: u128 = [batch, n, k, d].into_iter().map(u128::from).product();
    let blocks = (products / PRODUCTS).clamp(least.into(), most.into()) as u32;
    SettleParams { shape, blocks }
}

/// The shape on the device.
pub(super) fn shape_of<T>([batch, n, d]: [usize; 3], k: usize) -> Result<Shape> {
    Ok(Shape::new(
        small("batch", batch)?,
        small("n", n)?,
        small("k", k)?,
        small("d", d)?,
        size_of::<T>() as u32,
    ))
}

/// Sizes are 32-bit on the device.
fn small(argument: &'static str, value: usize) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::InvalidArgument {
        argument,
        value: value.to_string(),
        rule: "on a GPU it must be under 2^32",
    })
}
