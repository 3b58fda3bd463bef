//! The tensor-core assignment: its arrays, and which of its entries a shape takes, Hopper's or those of any GPU.
use super::device::Device;
use super::memory::{Place, Plan};
use crate::error::Result;
use cust::stream::Stream;
use kernels_gpu::kernels::{
    AssignHopper, AssignMma, Iterate, Kernel, ListHopper, ListMma, MergeAgain, RefineHopper, Sweep,
    SweepHopper,
};
use kernels_gpu::spec::*;

/// An entry, ready to be loaded and launched.
#[derive(Clone, Copy)]
pub(super) struct Launch {
    pub(super) spec: KernelSpec,
    /// Whether it is one of Hopper's own: floors of the scores are of use to it.
    pub(super) is_hopper: bool,
    /// Points of a tile.
    pub(super) points: u32,
    /// # Safety
    /// As [`Device::launch`].
    pub(super) launch: unsafe fn(&Device, &Stream, Arguments) -> Result<()>,
}

impl Launch {
    /// [`Device::teams`] that share out what is left; none of an entry of any GPU.
    pub(super) fn teams(&self, device: &Device) -> u32 {
        if self.is_hopper { device.teams(&self.spec) } else { 0 }
    }
}

/// An operand of the entries that assign unsure points again.
pub(super) trait Refining: Copy {
    /// What multiplies, and what puts together what teams have found.
    const SPECS: [KernelSpec; 2];
    /// # Safety
    /// As [`Device::launch`].
    unsafe fn launch(device: &Device, stream: &Stream, refine: RefineHopper<Self>) -> Result<()>;
}
impl<C: Copy> Refining for C
where
    RefineHopper<C>: Kernel,
    MergeAgain<C>: Kernel,
{
    const SPECS: [KernelSpec; 2] = [<RefineHopper<C> as Kernel>::SPEC, <MergeAgain<C> as Kernel>::SPEC];
    unsafe fn launch(device: &Device, stream: &Stream, refine: RefineHopper<C>) -> Result<()> {
        let merge = MergeAgain::<C>::of(refine, refine.params);
        // SAFETY: as this function's.
        unsafe {
            device.launch_clusters(stream, &refine)?;
            device.launch_grid(stream, &merge, refine.params.teams)
        }
    }
}

/// The arguments of any of the entries.
pub(super) type Arguments = AssignHopper<()>;

/// What the assignment keeps beside the points.
pub(super) struct Places {
    pub(super) packed: Place<u16>,
    pub(super) biases: Place<f32>,
    /// The same values one centroid after the other, their squared norms and what rounding took from them.
    pub(super) plain: Place<u16>,
    pub(super) centroid_norms: Place<f32>,
    pub(super) centroid_residuals: Place<f32>,
    /// The order that the norms give, where tiles are made by it.
    pub(super) order: Option<Place<u32>>,
    pub(super) norms: Place<f32>,
    /// Norm and residual in two slots a problem: one is raised while the other is set to 0.
    pub(super) largest: Place<u32>,
    /// Scores that the points' best ones are not below: −∞ where others are not worth a pass over the points.
    pub(super) floors: Place<f32>,
    /// For points that the tensor cores do not take as they are.
    pub(super) rounded: Option<RoundedPlaces>,
    pub(super) list_counts: Place<u32>,
    pub(super) list_rows: Place<u32>,
    pub(super) list_first: Place<u32>,
    pub(super) list_second: Place<u32>,
    /// For points that are unsure after the first assignment, and not by two candidates only.
    pub(super) again: Option<AgainPlaces>,
    /// Of points whose centroids are shared out, by either assignment.
    pub(super) found: Place<u32>,
    pub(super) settle_scratch: Place<u32>,
    pub(super) settle_counters: Place<u32>,
    /// Those of them that a run begins with zeros in.
    pub(super) anew: Place<u8>,
}

/// What a second assignment takes, of unsure points.
pub(super) struct AgainPlaces {
    pub(super) params: RefineParams,
    pub(super) rows: Place<u32>,
    /// For points that the tensor cores do not take as they are.
    pub(super) parts: Option<PartsPlaces>,
}

/// Unsure points and all centroids in parts.
pub(super) struct PartsPlaces {
    pub(super) packed: Place<u16>,
    pub(super) biases: Place<f32>,
    pub(super) largest: Place<u32>,
    pub(super) points: Place<u16>,
    pub(super) norms: Place<f32>,
    pub(super) residuals: Place<f32>,
}

impl AgainPlaces {
    fn new(plan: &mut Plan, params: RefineParams, rounds: bool) -> Self {
        AgainPlaces {
            params,
            rows: plan.array(params.capacity as usize),
            parts: rounds.then(|| PartsPlaces::new(plan, params)),
        }
    }
}

impl PartsPlaces {
    fn new(plan: &mut Plan, params: RefineParams) -> Self {
        let in_parts = params.in_parts(params.capacity);
        let tiles = PackParams { shape: in_parts, slot: 0 }.all_tiles() as usize;
        let points = params.capacity as usize;
        PartsPlaces {
            packed: plan.array(tiles * (in_parts.d * HOPPER_CENTROIDS) as usize),
            biases: plan.array(tiles * HOPPER_BIASES as usize),
            largest: plan.array(4),
            points: plan.array(points * in_parts.pitch as usize),
            norms: plan.array(points),
            residuals: plan.array(points),
        }
    }
}

/// Points in 16 bits beside those of the caller.
pub(super) struct RoundedPlaces {
    pub(super) points: Place<u16>,
    pub(super) residuals: Place<f32>,
    pub(super) extents: Place<u32>,
}

/// How points are labelled, where they are, and not only multiplied.
#[derive(Clone, Copy)]
pub(super) struct Labelling {
    pub(super) settle: SettleParams,
    /// How unsure points are assigned once more.
    pub(super) again: Option<RefineParams>,
    /// Who shares centroids out; 0 where none do.
    pub(super) teams: u32,
}

impl Places {
    /// `is_ordered`: tiles are made by the centroids' norms. `rounds`: the points need to be rounded to 16 bits.
    pub(super) fn new(
        plan: &mut Plan,
        shape: Shape,
        (is_ordered, rounds): (bool, bool),
        labelling: Option<Labelling>,
    ) -> Self {
        let pack = PackParams { shape, slot: 0 };
        let (tiles, centroids) = (pack.all_tiles() as usize, shape.batch as usize * shape.k as usize);
        let tile_values = hopper_panels(shape.d) as usize * HOPPER_PANEL_BYTES as usize / size_of::<u16>();
        let points = shape.batch as usize * shape.n as usize;
        let listed = if labelling.is_some() { points } else { 0 };
        let largest = plan.array(4 * shape.batch as usize);
        let settle_counters = plan.array(labelling.map_or(0, |how| how.settle.blocks as usize));
        Places {
            packed: plan.array(tiles * tile_values),
            biases: plan.array(tiles * HOPPER_BIASES as usize),
            plain: plan.array(centroids * hopper_row(shape.d) as usize),
            centroid_norms: plan.array(centroids),
            centroid_residuals: plan.array(centroids),
            order: is_ordered.then(|| plan.array(centroids)),
            norms: plan.array(points),
            largest,
            floors: plan.array(points),
            rounded: rounds.then(|| RoundedPlaces {
                points: plan.array(points * packed_shape(shape).pitch as usize),
                residuals: plan.array(points),
                extents: plan.array(shape.batch as usize),
            }),
            list_counts: plan.array(LIST_COUNTS as usize),
            list_rows: plan.array(listed),
            list_first: plan.array(listed),
            list_second: plan.array(listed),
            again: labelling.and_then(|how| how.again).map(|params| AgainPlaces::new(plan, params, rounds)),
            found: plan.array(labelling.map_or(0, |how| 4 * Units::most_found(how.teams) as usize)),
            settle_scratch: plan.array(labelling.map_or(0, |how| how.settle.scratch() as usize)),
            settle_counters,
            anew: largest.through(settle_counters),
        }
    }
}

/// `shape` with the pitch that its points have in 16 bits.
pub(super) fn packed_shape(shape: Shape) -> Shape {
    Shape::new(shape.batch, shape.n, shape.k, shape.d, size_of::<u16>() as u32)
}

/// The entry for points of `T` in the tensor cores.
pub(super) fn of_type<T: Copy + 'static>(device: &Device, shape: Shape) -> Launch
where
    AssignMma<Tensor<T, 4>>: Kernel,
    AssignMma<Tensor<T, 6>>: Kernel,
    AssignMma<Tensor<T, 8>>: Kernel,
    AssignMma<Tensor<T, HOPPER_WIDE>>: Kernel,
    AssignHopper<Tensor<T, 4>>: Kernel,
    AssignHopper<Tensor<T, 5>>: Kernel,
    AssignHopper<Tensor<T, 6>>: Kernel,
    AssignHopper<Tensor<T, 7>>: Kernel,
    AssignHopper<Tensor<T, 8>>: Kernel,
    AssignHopper<Tensor<T, HOPPER_WIDE>>: Kernel,
{
    let steps = hopper_steps(shape.d);
    if !device.is_hopper() || device.plan().is_by_warps(shape) {
        return match steps {
            4 => entry_by_warps::<Tensor<T, 4>>(),
            5 | 6 => entry_by_warps::<Tensor<T, 6>>(),
            7 | 8 => entry_by_warps::<Tensor<T, 8>>(),
            _ => entry_by_warps::<Tensor<T, HOPPER_WIDE>>(),
        };
    }
    if !device.plan().is_narrow(shape.d) {
        return entry::<Tensor<T, HOPPER_WIDE>>();
    }
    match steps {
        4 => entry::<Tensor<T, 4>>(),
        5 => entry::<Tensor<T, 5>>(),
        6 => entry::<Tensor<T, 6>>(),
        7 => entry::<Tensor<T, 7>>(),
        8 => entry::<Tensor<T, 8>>(),
        _ => entry::<Tensor<T, HOPPER_WIDE>>(),
    }
}

/// An entry that lists pairs, ready to be loaded and launched.
#[derive(Clone, Copy)]
pub(super) struct ListLaunch {
    pub(super) spec: KernelSpec,
    /// # Safety
    /// As [`Device::launch`].
    pub(super) launch: unsafe fn(&Device, &Stream, ListArguments) -> Result<()>,
}

/// The arguments of any of these entries.
pub(super) type ListArguments = ListMma<()>;

/// The entry that lists pairs, for points of `T` in the tensor cores.
pub(super) fn lists_of_type<T: Copy + 'static>(device: &Device, shape: Shape) -> ListLaunch
where
    ListMma<Tensor<T, 4>>: Kernel,
    ListMma<Tensor<T, 8>>: Kernel,
    ListMma<Tensor<T, HOPPER_WIDE>>: Kernel,
    ListHopper<Listed<T, 4>>: Kernel,
    ListHopper<Listed<T, 8>>: Kernel,
    ListHopper<Listed<T, HOPPER_WIDE>>: Kernel,
{
    match (hopper_steps(shape.d), device.is_hopper()) {
        (4, true) => list::<Listed<T, 4>>(),
        (5..=8, true) => list::<Listed<T, 8>>(),
        (_, true) => list::<Listed<T, HOPPER_WIDE>>(),
        (4, false) => list_by_warps::<Tensor<T, 4>>(),
        (5..=8, false) => list_by_warps::<Tensor<T, 8>>(),
        (_, false) => list_by_warps::<Tensor<T, HOPPER_WIDE>>(),
    }
}

fn list<C: HopperOperand>() -> ListLaunch
where
    ListHopper<C>: Kernel,
{
    /// # Safety
    /// As [`Device::launch`].
    unsafe fn launch<C: HopperOperand>(
        device: &Device,
        stream: &Stream,
        arguments: ListArguments,
    ) -> Result<()>
    where
        ListHopper<C>: Kernel,
    {
        let ListMmaParams { products: MmaParams { shape, slot, is_exact }, capacity } = arguments.params;
        let products = HopperParams::of_whole_items(shape, slot, is_exact, hopper_points(C::STEPS));
        let kernel = ListHopper::<C>::of(arguments, ListHopperParams { products, capacity });
        // SAFETY: as this function's.
        unsafe { device.launch_clusters(stream, &kernel) }
    }
    ListLaunch { spec: <ListHopper<C> as Kernel>::SPEC, launch: launch::<C> }
}

fn list_by_warps<C: Copy>() -> ListLaunch
where
    ListMma<C>: Kernel,
{
    /// # Safety
    /// As [`Device::launch`].
    unsafe fn launch<C: Copy>(device: &Device, stream: &Stream, arguments: ListArguments) -> Result<()>
    where
        ListMma<C>: Kernel,
    {
        let kernel = ListMma::<C>::of(arguments, arguments.params);
        // No more blocks than work at a time: each warp takes places of its own.
        let most = u64::from(device.multiprocessors() * <ListMma<C> as Kernel>::SPEC.blocks_per_sm);
        // SAFETY: as this function's.
        unsafe { device.launch_grid(stream, &kernel, kernel.blocks().min(most) as u32) }
    }
    ListLaunch { spec: <ListMma<C> as Kernel>::SPEC, launch: launch::<C> }
}

fn entry<C: HopperOperand>() -> Launch
where
    AssignHopper<C>: Kernel,
{
    /// # Safety
    /// As [`Device::launch`].
    unsafe fn launch<C: Copy>(device: &Device, stream: &Stream, arguments: Arguments) -> Result<()>
    where
        AssignHopper<C>: Kernel,
    {
        let kernel = AssignHopper::<C>::of(arguments, arguments.params);
        // SAFETY: as this function's.
        unsafe { device.launch_clusters(stream, &kernel) }
    }
    let points = hopper_points(C::STEPS);
    Launch { spec: <AssignHopper<C> as Kernel>::SPEC, is_hopper: true, points, launch: launch::<C> }
}

fn entry_by_warps<C: Copy>() -> Launch
where
    AssignMma<C>: Kernel,
{
    /// # Safety
    /// As [`Device::launch`].
    unsafe fn launch<C: Copy>(device: &Device, stream: &Stream, arguments: Arguments) -> Result<()>
    where
        AssignMma<C>: Kernel,
    {
        let HopperParams { shape, slot, is_exact, .. } = arguments.params;
        let kernel = AssignMma::<C>::of(arguments, MmaParams { shape, slot, is_exact });
        // SAFETY: as this function's.
        unsafe { device.launch(stream, &kernel) }
    }
    Launch { spec: <AssignMma<C> as Kernel>::SPEC, is_hopper: false, points: MMA_POINTS, launch: launch::<C> }
}

/// An entry that labels and sums, ready to be loaded and launched.
#[derive(Clone, Copy)]
pub(super) struct SweepLaunch {
    pub(super) spec: KernelSpec,
    /// # Safety
    /// As [`Device::launch`].
    pub(super) launch: unsafe fn(&Device, &Stream, SweepArguments) -> Result<()>,
    /// What does the same of several iterations, and ends them, where there is one.
    pub(super) iterate: Option<IterateLaunch>,
}

/// An entry that iterates, ready to be loaded and launched.
#[derive(Clone, Copy)]
pub(super) struct IterateLaunch {
    pub(super) spec: KernelSpec,
    /// # Safety
    /// As [`Device::launch`].
    pub(super) launch: unsafe fn(&Device, &Stream, IterateArguments) -> Result<()>,
}

/// The arguments of any of these entries.
pub(super) type IterateArguments = Iterate<()>;

impl IterateLaunch {
    /// Blocks that share a problem of `panels`.
    pub(super) fn blocks_of_problem(&self, panels: Panels) -> u32 {
        blocks_of_problem(&self.spec, panels)
    }

    /// Whether blocks that share a problem of this shape run at the same time, as they have to: all of them do, or each has one.
    pub(super) fn fits(&self, device: &Device, shape: Shape, panels: Panels) -> Result<bool> {
        if !device.is_hopper() {
            return Ok(false);
        }
        if self.blocks_of_problem(panels) == 1 {
            return Ok(true);
        }
        let clusters = u64::from(shape.batch) * u64::from(panels.count);
        Ok(clusters <= u64::from(device.clusters(&self.spec)?))
    }
}

/// The arguments of any of the entries that sweep.
pub(super) type SweepArguments = Sweep<()>;

/// Blocks of a kernel that share a problem of `panels`.
fn blocks_of_problem(spec: &KernelSpec, panels: Panels) -> u32 {
    panels.count * spec.cluster
}

/// The entry that labels and sums problems of `panels` that fit a block each, for points of `T` in the tensor cores; none where there is
/// none for so many clusters or dimensions, or the device has no room for its block.
pub(super) fn sweeps_of_type<T: Copy + 'static>(
    device: &Device,
    shape: Shape,
    panels: Panels,
) -> Option<SweepLaunch>
where
    Sweep<Swept<T, 0>>: Kernel,
    Sweep<Swept<T, 1>>: Kernel,
    SweepHopper<Swept<T, 2>>: Kernel,
    SweepHopper<Swept<T, 3>>: Kernel,
    SweepHopper<Swept<T, 4>>: Kernel,
    SweepHopper<Swept<T, 5>>: Kernel,
    SweepHopper<Swept<T, 6>>: Kernel,
    Iterate<Swept<T, 0>>: Kernel,
    Iterate<Swept<T, 2>>: Kernel,
    Iterate<Swept<T, 3>>: Kernel,
    Iterate<Swept<T, 4>>: Kernel,
    Iterate<Swept<T, 5>>: Kernel,
    Iterate<Swept<T, 6>>: Kernel,
{
    let entries = [
        SweepLaunch { iterate: Some(iterate::<Swept<T, 0>>()), ..sweep::<Swept<T, 0>>() },
        sweep::<Swept<T, 1>>(),
        sweep_on_hopper::<Swept<T, 2>>(),
        sweep_on_hopper::<Swept<T, 3>>(),
        sweep_on_hopper::<Swept<T, 4>>(),
        sweep_on_hopper::<Swept<T, 5>>(),
        sweep_on_hopper::<Swept<T, 6>>(),
    ];
    /// Each has a block of its own: that grids have no more is CUDA's rule.
    const MOST_PANELS: u64 = i32::MAX as u64;
    let items = u64::from(shape.batch) * u64::from(panels.count);
    // Panels enough for all multiprocessors are not shared.
    let is_shared = |way: &SweepWay| items * u64::from(way.blocks) <= u64::from(device.multiprocessors());
    let fits = |way: &SweepWay, spec: KernelSpec| {
        hopper_panels(shape.d) == way.panels()
            && items <= MOST_PANELS
            && shape.k <= way.clusters()
            && spec.shared_bytes <= device.hardware().shared_bytes
            && (spec.min_sm == 80 || device.is_hopper())
            && (way.blocks == 1 || is_shared(way))
    };
    let fitting = SweepWay::ALL.into_iter().zip(entries).filter(|(way, entry)| fits(way, entry.spec));
    // Of those that would do the one whose panels are shared by most, and of these the first.
    fitting.rev().max_by_key(|(way, _)| way.blocks).map(|(_, entry)| entry)
}

fn sweep<C: Copy>() -> SweepLaunch
where
    Sweep<C>: Kernel,
{
    /// # Safety
    /// As [`Device::launch`].
    unsafe fn launch<C: Copy>(device: &Device, stream: &Stream, arguments: SweepArguments) -> Result<()>
    where
        Sweep<C>: Kernel,
    {
        let kernel = Sweep::<C>::of(arguments, arguments.params);
        // SAFETY: as this function's.
        unsafe { device.launch(stream, &kernel) }
    }
    SweepLaunch { spec: <Sweep<C> as Kernel>::SPEC, launch: launch::<C>, iterate: None }
}

fn sweep_on_hopper<C: Copy>() -> SweepLaunch
where
    SweepHopper<C>: Kernel,
    Iterate<C>: Kernel,
{
    /// # Safety
    /// As [`Device::launch`].
    unsafe fn launch<C: Copy>(device: &Device, stream: &Stream, arguments: SweepArguments) -> Result<()>
    where
        SweepHopper<C>: Kernel,
    {
        let kernel = SweepHopper::<C>::of(arguments, arguments.params);
        let cluster = <SweepHopper<C> as Kernel>::SPEC.cluster;
        // SAFETY: as this function's.
        unsafe { device.launch_grid(stream, &kernel, kernel.blocks() as u32 * cluster) }
    }
    let spec = <SweepHopper<C> as Kernel>::SPEC;
    SweepLaunch { spec, launch: launch::<C>, iterate: Some(iterate::<C>()) }
}

fn iterate<C: Copy>() -> IterateLaunch
where
    Iterate<C>: Kernel,
{
    /// # Safety
    /// As [`Device::launch`]; where blocks share problems, as many as [`IterateLaunch::fits`] has room for.
    unsafe fn launch<C: Copy>(device: &Device, stream: &Stream, arguments: IterateArguments) -> Result<()>
    where
        Iterate<C>: Kernel,
    {
        let kernel = Iterate::<C>::of(arguments, arguments.params);
        let spec = &<Iterate<C> as Kernel>::SPEC;
        let blocks = kernel.blocks() as u32 * spec.cluster;
        // SAFETY: as this function's.
        unsafe {
            if blocks_of_problem(spec, arguments.params.sweep.panels) == 1 {
                device.launch_grid(stream, &kernel, blocks)
            } else {
                device.launch_together(stream, &kernel, blocks)
            }
        }
    }
    IterateLaunch { spec: <Iterate<C> as Kernel>::SPEC, launch: launch::<C> }
}

/// A centre for the points of each problem, `batch · d` values: the mean of some of its first centroids. Any would
/// do; the nearer to the middle, the less is lost when points are rounded about it.
pub(super) fn centres(centroids: &[f32], k: usize, d: usize) -> Vec<f32> {
    /// More would move the mean little.
    const SAMPLE: usize = 256;
    let of_problem = |centroids: &[f32]| {
        let rows = centroids.chunks_exact(d).step_by(k.div_ceil(SAMPLE));
        let (mut sums, count) = (vec![0.0f64; d], rows.len() as f64);
        for row in rows {
            sums.iter_mut().zip(row).for_each(|(sum, &c)| *sum += f64::from(c));
        }
        sums.into_iter().map(move |sum| (sum / count) as f32)
    };
    centroids.chunks_exact(k * d).flat_map(of_problem).collect()
}
