//! What host and device must agree on, written once.
//!
//! Words used throughout:
//! - *batch*: independent problems of the same shape, `n` points in `d` dimensions and `k` clusters each;
//! - *panel*: at most `panel_len` consecutive points of one problem. Sorting and summing are done panel by
//!   panel, and panels are added in order, so that the bits of a sum do not depend on how many panels
//!   were in device memory at a time;
//! - *stretch*: [`Panels::stretch`] consecutive places of a panel's sorted order, what one warp sums;
//! - *item*: what one block (or warp, where said) does at a time. A kernel loops over its items with the
//!   stride of its grid, so any grid is right and no grid limit is met.
use cuda_std::shared::{Layout, Slot};

/// Points in a tile of the portable assignment.
pub const ASSIGN_POINTS: u32 = 64;
/// Centroids in a tile of the portable assignment.
pub const ASSIGN_CENTROIDS: u32 = 64;
/// Features in a stage of the portable assignment.
pub const ASSIGN_FEATURES: u32 = 32;
/// Threads of the portable assignment: 16 × 16, each with 4 points × 4 centroids.
pub const ASSIGN_THREADS: u32 = 256;

/// Threads of a sort kernel's block.
pub const SORT_THREADS: u32 = 256;
/// Keys of a sort tile.
pub const SORT_TILE: u32 = 4096;
/// Bits of a digit; a sort of ids under `k` takes `ceil(log2 k / SORT_BITS)` passes.
pub const SORT_BITS: u32 = 8;
/// Values of a digit.
pub const SORT_DIGITS: u32 = 1 << SORT_BITS;

/// Threads of the update kernels' blocks.
pub const UPDATE_THREADS: u32 = 256;
/// Warps of the update kernels' blocks.
pub const UPDATE_WARPS: u32 = UPDATE_THREADS / 32;
/// Sorted places that one warp sums, and the same of short panels, whose few warps would not fill the GPU: a warp's lanes,
/// for panels that one block sums.
pub const STRETCH: u32 = 128;
/// See [`STRETCH`].
pub const SHORT_STRETCH: u32 = 32;
/// Longest panel of short stretches.
const SHORT_PANEL: u32 = 1 << 17;

/// Points of a panel that one block sorts and sums, a thread each.
pub const BLOCK_PANEL_POINTS: u32 = 512;
/// Most points of a problem whose panels are: of more, what the panels write is no longer little.
const BLOCK_PROBLEM_POINTS: u32 = 1 << 15;
/// Most clusters of it: their counts fit the 48 KiB of shared memory that are always there.
pub const BLOCK_PANEL_CLUSTERS: u32 = 512;

/// Most clusters of a sort in one pass over whole labels.
pub const WHOLE_CLUSTERS: u32 = 4096;
/// Keys of its tiles: fewer than 2¹⁶, many enough that few have each cluster's counts.
pub const WHOLE_TILE: u32 = 1 << 14;
/// Threads of a block that finds where a panel's clusters begin.
pub const WHOLE_STARTS_THREADS: u32 = 1024;
/// Threads of `whole_place`.
pub const WHOLE_PLACE_THREADS: u32 = 512;

/// Threads of the kernels that reduce statistics.
pub const REDUCE_THREADS: u32 = 256;
/// Most rows of an item of `inertia`.
pub const INERTIA_ROWS: u32 = 1024;
/// Items of `moments` for each problem, at most.
pub const MOMENTS_ITEMS: u32 = 1024;

/// What the launcher, the PTX builder and the tests know of an entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSpec {
    /// The entry's name in PTX.
    pub name: &'static str,
    /// Threads of a block, exactly.
    pub threads: u32,
    /// Blocks that must fit one multiprocessor, of other GPUs than Hopper by their registers alone; bounds the registers of a
    /// thread.
    pub blocks_per_sm: u32,
    /// Blocks of a cluster; 1 means no clusters.
    pub cluster: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Lowest compute capability, times ten. 90 means `sm_90a`, Hopper's own instructions.
    pub min_sm: u32,
}

/// The part of a [`KernelSpec`] that instances of one kernel share.
#[derive(Clone, Copy, Debug)]
pub struct BlockShape {
    /// See [`KernelSpec::threads`].
    pub threads: u32,
    /// See [`KernelSpec::blocks_per_sm`].
    pub blocks_per_sm: u32,
    /// See [`KernelSpec::shared_bytes`].
    pub shared_bytes: u32,
    /// See [`KernelSpec::cluster`].
    pub cluster: u32,
    /// See [`KernelSpec::min_sm`].
    pub min_sm: u32,
}

impl BlockShape {
    /// A block of `threads` threads with no shared memory, for any GPU.
    #[inline]
    pub const fn new(threads: u32) -> Self {
        BlockShape { threads, blocks_per_sm: 1, shared_bytes: 0, cluster: 1, min_sm: 80 }
    }
    /// With `bytes` of dynamic shared memory.
    #[inline]
    pub const fn shared(mut self, bytes: u32) -> Self {
        self.shared_bytes = bytes;
        self
    }
    /// For Hopper only, `sm_90a`.
    #[inline]
    pub const fn hopper(mut self) -> Self {
        self.min_sm = 90;
        self
    }
    /// In clusters of `blocks`, each of which shares an item.
    #[inline]
    pub const fn clusters_of(mut self, blocks: u32) -> Self {
        self.cluster = blocks;
        self
    }
    /// With room for at least `blocks` blocks on a multiprocessor.
    #[inline]
    pub const fn blocks_per_sm(mut self, blocks: u32) -> Self {
        self.blocks_per_sm = blocks;
        self
    }
    /// The full description of the entry `name`.
    #[inline]
    pub const fn named(self, name: &'static str) -> KernelSpec {
        KernelSpec {
            name,
            threads: self.threads,
            blocks_per_sm: self.blocks_per_sm,
            cluster: self.cluster,
            shared_bytes: self.shared_bytes,
            min_sm: self.min_sm,
        }
    }
}

/// Parameters that say how many items a launch has.
pub trait Items {
    /// Items for the grid's blocks, one block each when the grid allows.
    fn blocks(&self) -> u64;
}

/// `(batch, n, d)` points and `k` centroids for each problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Shape {
    /// Problems.
    pub batch: u32,
    /// Points of a problem.
    pub n: u32,
    /// Clusters of a problem.
    pub k: u32,
    /// Dimensions.
    pub d: u32,
    /// Values from one row of points to the next: `d` rounded up to 16 bytes, the rest zeros, so that every
    /// row is made of whole aligned vectors.
    pub pitch: u32,
}

impl Shape {
    /// With the pitch that points of `size` bytes a value have.
    pub const fn new(batch: u32, n: u32, k: u32, d: u32, size: u32) -> Self {
        Shape { batch, n, k, d, pitch: d.next_multiple_of(16 / size) }
    }
    /// Entries of the statistics that the assignments on tensor cores keep of a problem.
    #[inline]
    pub const fn statistics(&self) -> u32 {
        self.n.div_ceil(STATISTICS_POINTS)
    }
    /// Centroid tiles of a problem in the assignments on tensor cores.
    #[inline]
    pub const fn centroid_tiles(&self) -> u32 {
        self.k.div_ceil(HOPPER_CENTROIDS)
    }
}

/// How the points of each problem are cut into panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Panels {
    /// Panels of a problem.
    pub count: u32,
    /// Points of a panel; the last may have fewer.
    pub len: u32,
}

/// Points of the shortest panel that is not a block's.
const PANEL_POINTS: u32 = 1 << 20;

#[cfg(feature = "simt")]
static EMULATED_PANEL_POINTS: core::sync::atomic::AtomicU32 =
    core::sync::atomic::AtomicU32::new(PANEL_POINTS);

/// Has panels of this process be shorter, a power of two of points, so that an emulation has time for several. Sums then
/// have other last bits.
#[cfg(feature = "simt")]
pub fn shorten_panels(points: u32) {
    EMULATED_PANEL_POINTS.store(points, core::sync::atomic::Ordering::Relaxed);
}

#[cfg(feature = "simt")]
fn panel_points() -> u32 {
    EMULATED_PANEL_POINTS.load(core::sync::atomic::Ordering::Relaxed)
}

#[cfg(not(feature = "simt"))]
#[inline]
const fn panel_points() -> u32 {
    PANEL_POINTS
}

impl Panels {
    /// Panels of `n` points: a function of the problem alone, so that the order of additions is too. A
    /// panel is long enough that its partial sums (`k` rows) are few beside its points.
    #[inline]
    pub fn of(n: u32, k: u32) -> Self {
        let wish = if n <= BLOCK_PROBLEM_POINTS && k <= BLOCK_PANEL_CLUSTERS {
            u64::from(BLOCK_PANEL_POINTS)
        } else {
            (u64::from(k) * 16).next_power_of_two().max(panel_points().into())
        };
        let len = if wish < n as u64 { wish as u32 } else { n };
        Panels { count: n.div_ceil(len), len }
    }
    /// Whether one block sorts and sums a panel.
    #[inline]
    pub const fn fit_a_block(&self, k: u32) -> bool {
        self.len <= BLOCK_PANEL_POINTS && k <= BLOCK_PANEL_CLUSTERS
    }
    /// Sort tiles of a panel.
    #[inline]
    pub const fn tiles(&self) -> u32 {
        self.len.div_ceil(SORT_TILE)
    }
    /// Places of a stretch: a function of the panels, for the bits of sums depend on it.
    #[inline]
    pub const fn stretch(&self) -> u32 {
        if self.len <= SHORT_PANEL { SHORT_STRETCH } else { STRETCH }
    }
    /// Stretches of a panel.
    #[inline]
    pub const fn stretches(&self) -> u32 {
        self.len.div_ceil(self.stretch())
    }
    /// The same of panels that have [`SHORT_STRETCH`] places in each.
    #[inline]
    pub const fn short_stretches(&self) -> u32 {
        self.len.div_ceil(SHORT_STRETCH)
    }
}

/// Shared memory of the portable assignment.
#[derive(Clone, Copy, Debug)]
pub struct AssignShared {
    /// `[feature][point]` of one stage.
    pub points: Slot<f32>,
    /// `[feature][centroid]` of one stage.
    pub centroids: Slot<f32>,
    /// Nearest centroid of each point.
    pub labels: Slot<u32>,
    /// Squared distance to it.
    pub distances: Slot<f32>,
    /// Whether a point's two nearest are too close to tell in f32.
    pub unsure: Slot<u32>,
    /// Points whose label changed.
    pub changed: Slot<u32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl AssignShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        AssignShared {
            points: layout.array(ASSIGN_FEATURES * ASSIGN_POINTS),
            centroids: layout.array(ASSIGN_FEATURES * ASSIGN_CENTROIDS),
            labels: layout.array(ASSIGN_POINTS),
            distances: layout.array(ASSIGN_POINTS),
            unsure: layout.array(ASSIGN_POINTS),
            changed: layout.array(1),
            bytes: layout.bytes(),
        }
    }
}

/// Parameters of `assign`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AssignParams {
    /// The problems.
    pub shape: Shape,
}

impl AssignParams {
    /// Point tiles of a problem.
    #[inline]
    pub const fn tiles(&self) -> u32 {
        self.shape.n.div_ceil(ASSIGN_POINTS)
    }
}
impl Items for AssignParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.shape.batch as u64 * self.tiles() as u64
    }
}

/// Points of an entry of the statistics of an assignment on tensor cores.
pub const STATISTICS_POINTS: u32 = 32;
/// Points that a warpgroup multiplies at a time.
pub const WARPGROUP_POINTS: u32 = 64;
/// Points of a tile of Hopper's assignment, of points that stay in registers: three warpgroups. As one folds, two multiply.
pub const NARROW_POINTS: u32 = 3 * WARPGROUP_POINTS;
/// Of the wide entries: two blocks of two warpgroups.
pub const WIDE_TILE_POINTS: u32 = WIDE_CLUSTER * WIDE_POINTS;
/// Centroids of a tile.
pub const HOPPER_CENTROIDS: u32 = 128;
/// Threads of a warpgroup: one of a block copies, the others multiply.
pub const WARPGROUP_THREADS: u32 = 128;
/// Threads that copy points: three warps of the copying warpgroup.
pub const HOPPER_POINT_THREADS: u32 = 96;
/// The first warp that multiplies.
pub const HOPPER_FIRST_WARP: u32 = 4;
/// Stages of the ring of centroid tiles.
pub const HOPPER_STAGES: u32 = 4;
/// [`HopperOperand::STEPS`] of the entries for points of any number of steps from 5 on.
pub const HOPPER_WIDE: u32 = 0;
/// Blocks of a cluster of the wide entries, which share centroids.
pub const WIDE_CLUSTER: u32 = 2;
/// Points of each.
pub const WIDE_POINTS: u32 = 2 * WARPGROUP_POINTS;
/// Tiles of centroids at a time: each block copies one, to both.
pub const WIDE_TILES: u32 = WIDE_CLUSTER;
/// Stages of each of the wide entries' rings; points of at most so many panels stay in theirs.
pub const WIDE_STAGES: u32 = 4;
/// Slots of the biases of tiles: a panel is released before its tiles are folded, and may be the only one of its tiles, so that
/// the ring of panels has gone round once before the fold ends, and not twice.
pub const WIDE_SLOTS: u32 = 2 * WIDE_STAGES;
/// Bytes of a stage of centroids.
pub const WIDE_CENTROID_BYTES: u32 = WIDE_TILES * HOPPER_PANEL_BYTES;
/// Bytes of a stage of points.
pub const WIDE_POINT_BYTES: u32 = WIDE_POINTS * 128;
/// Features of a panel: a row of it is the 128 bytes that the swizzle permutes.
pub const HOPPER_PANEL_FEATURES: u32 = 64;
/// Bytes of a panel.
pub const HOPPER_PANEL_BYTES: u32 = HOPPER_CENTROIDS * 128;
/// Features of one product.
pub const HOPPER_STEP_FEATURES: u32 = 16;
/// Most products that cover the features of a point kept in registers.
pub const HOPPER_MAX_STEPS: u32 = 8;
/// Values from one quarter of a tile's biases to the next: 32, and 4 so that the quarters meet different banks.
pub const HOPPER_BIAS_PITCH: u32 = 36;
/// Biases of a tile, as a thread reads them: `[quarter][8-column group][2]`.
pub const HOPPER_BIASES: u32 = 4 * HOPPER_BIAS_PITCH;
/// Where each quarter has the tile's largest bias, norm and residual: in the values that keep the quarters apart.
pub const HOPPER_LARGEST: u32 = 32;

/// Points of a tile of the entries with so many products over the features.
#[inline]
pub const fn hopper_points(steps: u32) -> u32 {
    if steps == HOPPER_WIDE { WIDE_TILE_POINTS } else { NARROW_POINTS }
}

/// Products over the features of a row.
#[inline]
pub const fn hopper_steps(d: u32) -> u32 {
    // Below 64 features the epilogue is what takes the time.
    let steps = d.div_ceil(HOPPER_STEP_FEATURES);
    if steps < 4 { 4 } else { steps }
}

/// Values of a row of centroids in 16 bits, as they lie one after the other.
#[inline]
pub const fn hopper_row(d: u32) -> u32 {
    hopper_steps(d) * HOPPER_STEP_FEATURES
}

/// Panels over the features of a row.
#[inline]
pub const fn hopper_panels(d: u32) -> u32 {
    (hopper_steps(d) * HOPPER_STEP_FEATURES).div_ceil(HOPPER_PANEL_FEATURES)
}

/// What the copying and the multiplying warps tell each other of a block's points.
#[derive(Clone, Copy, Debug)]
pub struct RowsShared {
    /// `[item modulo 4]` its unit, or that there is none. Twice as many as are under way: a copying warp may be an item
    /// ahead of another.
    pub units: Slot<u32>,
    /// The item that the team shares with others, and its centroid tiles: the first, and the end.
    pub span: Slot<u32>,
    /// `[parity of the item]` squared norms.
    pub norms: Slot<f32>,
    /// `[parity of the item]` how far apart two scores have to be to be in the right order.
    pub bounds: Slot<f32>,
    /// `[parity of the item]` the labels they had.
    pub labels: Slot<u32>,
    /// `[parity of the item]` scores that the best ones are not below.
    pub floors: Slot<f32>,
    /// `[parity of the item][2]` the inverses of the problem's largest norm and residual.
    pub scales: Slot<f32>,
    /// Best scores.
    pub scores: Slot<f32>,
    /// Whose they are.
    pub columns: Slot<u32>,
    /// The other candidates.
    pub others: Slot<u32>,
    /// Results are there.
    pub results_full: Slot<u64>,
    /// Results have been read.
    pub results_empty: Slot<u64>,
    /// Points of the block.
    pub len: u32,
}

impl RowsShared {
    /// Threads that multiply.
    #[inline]
    pub const fn multipliers(&self) -> u32 {
        self.len / WARPGROUP_POINTS * WARPGROUP_THREADS
    }
    /// All threads of the block.
    #[inline]
    pub const fn threads(&self) -> u32 {
        WARPGROUP_THREADS + self.multipliers()
    }
    /// The layout for `len` points.
    #[inline]
    pub const fn new(layout: &mut Layout, len: u32) -> Self {
        RowsShared {
            units: layout.array(4),
            span: layout.array(3),
            norms: layout.array(2 * len),
            bounds: layout.array(2 * len),
            labels: layout.array(2 * len),
            floors: layout.array(2 * len),
            scales: layout.array(4),
            scores: layout.array(len),
            columns: layout.array(len),
            others: layout.array(len),
            results_full: layout.array(1),
            results_empty: layout.array(1),
            len,
        }
    }
}

/// Shared memory of Hopper's assignment.
#[derive(Clone, Copy, Debug)]
pub struct HopperShared {
    /// `[stage]` tiles of centroids, swizzled.
    pub centroids: Slot<u8>,
    /// `[stage]` biases of a tile.
    pub biases: Slot<f32>,
    /// Points of the tile to come, rows 16 bytes further apart than they are long, against bank conflicts.
    pub points: Slot<u8>,
    /// What is known of them, and what is found.
    pub rows: RowsShared,
    /// `[stage]` barriers: a tile has arrived.
    pub full: Slot<u64>,
    /// `[stage]` barriers: a tile is done with.
    pub empty: Slot<u64>,
    /// The points have arrived.
    pub points_full: Slot<u64>,
    /// The points are in registers.
    pub points_empty: Slot<u64>,
    /// Stages.
    pub stages: u32,
    /// Bytes of a stage of centroids.
    pub stage_bytes: u32,
    /// Bytes from one row of points to the next.
    pub row_bytes: u32,
    /// Bytes of it all.
    pub bytes: u32,
}

impl HopperShared {
    /// The layout for `steps` products over the features.
    #[inline]
    pub const fn new(steps: u32) -> Self {
        let panels = (steps * HOPPER_STEP_FEATURES).div_ceil(HOPPER_PANEL_FEATURES);
        let stages = HOPPER_STAGES;
        let stage_bytes = panels * HOPPER_PANEL_BYTES;
        let row_bytes = steps * HOPPER_STEP_FEATURES * 2 + 16;
        let mut layout = Layout::new();
        HopperShared {
            centroids: layout.aligned_array(stages * stage_bytes, 1024),
            biases: layout.array(stages * HOPPER_BIASES),
            points: layout.array(NARROW_POINTS * row_bytes),
            rows: RowsShared::new(&mut layout, NARROW_POINTS),
            full: layout.array(stages),
            empty: layout.array(stages),
            points_full: layout.array(1),
            points_empty: layout.array(1),
            stages,
            stage_bytes,
            row_bytes,
            bytes: layout.bytes(),
        }
    }
}
const _: () = assert!(HopperShared::new(4).bytes <= 227 << 10 && HopperShared::new(8).bytes <= 227 << 10);

/// Shared memory of the wide entries.
#[derive(Clone, Copy, Debug)]
pub struct WideShared {
    /// `[stage][tile]` panels of centroids, swizzled.
    pub centroids: Slot<u8>,
    /// `[stage]` panels of points, swizzled.
    pub points: Slot<u8>,
    /// `[slot][tile]` biases.
    pub biases: Slot<f32>,
    /// What is known of the points, and what is found.
    pub rows: RowsShared,
    /// `[stage]` barriers: a panel of centroids has arrived.
    pub full: Slot<u64>,
    /// `[stage]` barriers: both blocks are done with a panel of centroids.
    pub empty: Slot<u64>,
    /// `[stage]` barriers: a panel of points has arrived.
    pub points_full: Slot<u64>,
    /// `[stage]` barriers: a panel of points is done with.
    pub points_empty: Slot<u64>,
    /// `[parity of the item]` barriers: what is known of the points has arrived.
    pub rows_full: Slot<u64>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl WideShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        WideShared {
            centroids: layout.aligned_array(WIDE_STAGES * WIDE_CENTROID_BYTES, 1024),
            points: layout.aligned_array(WIDE_STAGES * WIDE_POINT_BYTES, 1024),
            biases: layout.array(WIDE_SLOTS * WIDE_TILES * HOPPER_BIASES),
            rows: RowsShared::new(&mut layout, WIDE_POINTS),
            full: layout.array(WIDE_STAGES),
            empty: layout.array(WIDE_STAGES),
            points_full: layout.array(WIDE_STAGES),
            points_empty: layout.array(WIDE_STAGES),
            rows_full: layout.array(2),
            bytes: layout.bytes(),
        }
    }
}

const _: () = assert!(WideShared::new().bytes <= 227 << 10);

/// A type of points and the products over its features: one entry of Hopper's assignment.
pub trait HopperOperand: Copy + 'static {
    /// The points' type.
    type Scalar;
    /// Products of [`HOPPER_STEP_FEATURES`] features; [`HOPPER_WIDE`] for any number.
    const STEPS: u32;
    /// Whether scores above the points' floors are listed, in place of the nearest centroids.
    const LISTS: bool = false;
    /// Rows of 16 bits that stand for a point of a list, which is assigned again; 0 where all points are assigned.
    const REFINES: u32 = 0;
}

/// The [`HopperOperand`] of `T` with `STEPS` products.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<T, const STEPS: u32>(core::marker::PhantomData<T>);
impl<T: Copy + 'static, const STEPS: u32> HopperOperand for Tensor<T, STEPS> {
    type Scalar = T;
    const STEPS: u32 = STEPS;
}

/// The [`HopperOperand`] of `T` with `STEPS` products that lists pairs.
#[derive(Clone, Copy, Debug)]
pub struct Listed<T, const STEPS: u32>(core::marker::PhantomData<T>);
impl<T: Copy + 'static, const STEPS: u32> HopperOperand for Listed<T, STEPS> {
    type Scalar = T;
    const STEPS: u32 = STEPS;
    const LISTS: bool = true;
}

/// The [`HopperOperand`] of points in `PARTS` rows of `T`, 1 or [`REFINE_PARTS`], that assigns those of a list again.
#[derive(Clone, Copy, Debug)]
pub struct Refined<T, const PARTS: u32>(core::marker::PhantomData<T>);
impl<T: Copy + 'static, const PARTS: u32> HopperOperand for Refined<T, PARTS> {
    type Scalar = T;
    const STEPS: u32 = HOPPER_WIDE;
    const REFINES: u32 = PARTS;
}

/// So many blocks that work on a problem together: one entry of what chooses first centroids.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<const BLOCKS: u32>;
impl<const BLOCKS: u32> HopperOperand for Blocks<BLOCKS> {
    type Scalar = ();
    const STEPS: u32 = BLOCKS;
}

/// Parameters of Hopper's assignment.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct HopperParams {
    /// The problems.
    pub shape: Shape,
    /// Which of the two slots holds the centroids' largest norm and residual.
    pub slot: u32,
    /// Whether scores within their bound of each other are listed for `settle`; 0 for those that are equal, alone.
    pub is_exact: u32,
    /// Points of a tile, as the entry has them.
    pub points: u32,
    /// Point tiles of a problem.
    pub tiles: u32,
    /// Who multiplies what.
    pub units: Units,
}

impl HopperParams {
    /// Of `shape` in tiles of `points` points, dealt out to so many teams: in spans where that saves more than another launch
    /// costs.
    #[inline]
    pub const fn new(shape: Shape, slot: u32, is_exact: u32, (points, teams): (u32, u32)) -> Self {
        /// Panels of 64 features of 128 centroids, a microsecond or so each.
        const WORTH: u32 = 8;
        let whole = Self::of_whole_items(shape, slot, is_exact, points);
        let units = Units::new(whole.items(), shape.centroid_tiles(), teams);
        let is_worth = (shape.centroid_tiles() - units.tiles) * hopper_panels(shape.d) >= WORTH;
        if is_worth { HopperParams { units, ..whole } } else { whole }
    }
    /// The same, without spans.
    #[inline]
    pub const fn of_whole_items(shape: Shape, slot: u32, is_exact: u32, points: u32) -> Self {
        let tiles = quotient(shape.n - 1, points) + 1;
        let units = Units::all_whole(shape.batch * tiles, shape.centroid_tiles());
        HopperParams { shape, slot, is_exact, points, tiles, units }
    }
    /// Point tiles of all problems, whose points are fewer than 2³².
    #[inline]
    pub const fn items(&self) -> u32 {
        self.shape.batch * self.tiles
    }
    /// Centroid tiles of a problem.
    #[inline]
    pub const fn centroid_tiles(&self) -> u32 {
        self.shape.centroid_tiles()
    }
}
impl Items for HopperParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.units.count(self.items()) as u64
    }
}

// `merge_spans` has a thread a point.
const _: () = assert!(WIDE_TILE_POINTS == UPDATE_THREADS && NARROW_POINTS <= UPDATE_THREADS);

/// How point tiles, the items of an assignment, are dealt out to teams: the blocks, or clusters of blocks, that multiply at the
/// same time. Each takes as many whole items as the others; of what is left, fewer items than teams, each unit is an item and a
/// span of the centroids, so that all teams end at about the same time. `merge_spans` puts together what they have found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Units {
    /// Items that are a unit each.
    pub whole: u32,
    /// Units of each of the others.
    pub spans: u32,
    /// Centroid tiles of a span, but for the last.
    pub tiles: u32,
}
impl Units {
    /// Centroid tiles that the wide kernel takes at a time.
    const LEAST: u32 = WIDE_TILES;

    /// Of `items` that have `tiles` tiles of centroids to be multiplied with.
    #[inline]
    pub const fn new(items: u32, tiles: u32, teams: u32) -> Self {
        let whole = quotient(items, teams) * teams;
        let most = tiles / Self::LEAST;
        let spans = quotient(teams, items - whole);
        let spans = if spans < most { spans } else { most };
        if spans < 2 {
            return Self::all_whole(items, tiles);
        }
        let tiles_of_span = (quotient(tiles - 1, spans) + 1).next_multiple_of(Self::LEAST);
        Units { whole, spans: quotient(tiles - 1, tiles_of_span) + 1, tiles: tiles_of_span }
    }

    /// Every item a unit.
    #[inline]
    pub const fn all_whole(items: u32, tiles: u32) -> Self {
        Units { whole: items, spans: 1, tiles }
    }

    /// How many there are.
    #[inline]
    pub const fn count(&self, items: u32) -> u32 {
        self.whole + (items - self.whole) * self.spans
    }

    /// Places for what is found of points by spans: by no more teams than there are, each of the points of an item.
    #[inline]
    pub const fn most_found(teams: u32) -> u32 {
        teams * WIDE_TILE_POINTS
    }
}

/// `a / b`, 0 where `b` is: with no path to a panic, which a kernel cannot have.
#[inline]
const fn quotient(a: u32, b: u32) -> u32 {
    match a.checked_div(b) {
        Some(quotient) => quotient,
        None => 0,
    }
}

/// Counts of the lists of unsure points: in this entry those with two candidates, from the front.
pub const LIST_TWO: usize = 0;
/// In this one those with more, from the back.
pub const LIST_MANY: usize = 1;
/// In this one those that the second assignment leaves of them.
pub const LIST_LEFT: usize = 2;
/// Where pairs are listed, and no points: in this entry the places that they took.
pub const LIST_PAIRS: usize = 0;
/// Entries.
pub const LIST_COUNTS: u32 = 3;
/// Rows of 16 bits that stand for an f32 row in the second assignment of unsure points: the lower parts of its values or of the
/// centroids', then both upper ones.
pub const REFINE_PARTS: u32 = 3;

/// Parameters of the second assignment of unsure points, of one problem: how many there are is known on the device only.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RefineParams {
    /// The problem.
    pub shape: Shape,
    /// As [`HopperParams::slot`].
    pub slot: u32,
    /// Fewer points than this are not worth it.
    pub least: u32,
    /// There is room for so many.
    pub capacity: u32,
    /// Clusters of blocks that multiply them.
    pub teams: u32,
}
impl RefineParams {
    /// How many of so many unsure points are assigned again.
    #[inline]
    pub const fn count(&self, unsure: u32) -> u32 {
        if unsure < self.least {
            0
        } else if unsure < self.capacity {
            unsure
        } else {
            self.capacity
        }
    }
    /// Features of a part: whole panels.
    #[inline]
    pub const fn part(&self) -> u32 {
        hopper_panels(self.shape.d) * HOPPER_PANEL_FEATURES
    }
    /// What `unsure` points are multiplied with: one row of theirs after the other, where `REFINES` is 1, or in parts.
    #[inline]
    pub const fn products(&self, unsure: u32, refines: u32) -> HopperParams {
        let n = self.count(unsure);
        let shape = if refines == 1 { Shape { n, ..self.shape } } else { self.in_parts(n) };
        let tiles = n.div_ceil(WIDE_TILE_POINTS);
        let units = Units::new(tiles, shape.centroid_tiles(), self.teams);
        HopperParams { shape, slot: self.slot, is_exact: 1, points: WIDE_TILE_POINTS, tiles, units }
    }
    /// The problem as the tensor cores take it, of `n` points in parts.
    #[inline]
    pub const fn in_parts(&self, n: u32) -> Shape {
        let d = REFINE_PARTS * self.part();
        Shape { n, d, pitch: d, ..self.shape }
    }
}
impl Items for RefineParams {
    #[inline]
    fn blocks(&self) -> u64 {
        let blocks = self.capacity.div_ceil(WIDE_TILE_POINTS);
        (if blocks > self.teams { blocks } else { self.teams }) as u64
    }
}

/// Points of a block of the assignment by warps' products: 32 a warp.
pub const MMA_POINTS: u32 = 128;
/// Threads of it.
pub const MMA_THREADS: u32 = MMA_POINTS;
/// Centroids that a warp multiplies its points with at a time: half a tile.
pub const MMA_CENTROIDS: u32 = HOPPER_CENTROIDS / 2;
/// Stages of its ring, of the entries with points in registers; and of the wide ones, of which two blocks fit so.
pub const MMA_STAGES: u32 = 3;
/// See [`MMA_STAGES`].
pub const MMA_WIDE_STAGES: u32 = 2;

/// Shared memory of the assignment by warps' products.
#[derive(Clone, Copy, Debug)]
pub struct MmaShared {
    /// `[stage]` of points in registers half a tile of centroids, swizzled, and in the place of stages 1 and 2 first the
    /// points; of others a panel of points and one of a tile of centroids.
    pub stages: Slot<u8>,
    /// `[stage]` biases of a tile.
    pub biases: Slot<f32>,
    /// Squared norms of the points.
    pub norms: Slot<f32>,
    /// How far apart two of their scores have to be to be in the right order.
    pub bounds: Slot<f32>,
    /// The labels they had.
    pub labels: Slot<u32>,
    /// The inverses of the problem's largest norm and residual.
    pub scales: Slot<f32>,
    /// The item.
    pub item: Slot<u32>,
    /// Bytes of a stage.
    pub stage_bytes: u32,
    /// Bytes of it all.
    pub bytes: u32,
}

impl MmaShared {
    /// The layout for `steps` products over the features.
    #[inline]
    pub const fn new(steps: u32) -> Self {
        let panels = (steps * HOPPER_STEP_FEATURES).div_ceil(HOPPER_PANEL_FEATURES);
        let (stages, stage_bytes) = match steps {
            HOPPER_WIDE => (MMA_WIDE_STAGES, MMA_POINTS * 128 + HOPPER_PANEL_BYTES),
            _ => (MMA_STAGES, panels * MMA_CENTROIDS * 128),
        };
        let mut layout = Layout::new();
        MmaShared {
            stages: layout.aligned_array(stages * stage_bytes, 1024),
            biases: layout.array(stages * HOPPER_BIASES),
            norms: layout.array(MMA_POINTS),
            bounds: layout.array(MMA_POINTS),
            labels: layout.array(MMA_POINTS),
            scales: layout.array(2),
            item: layout.array(1),
            stage_bytes,
            bytes: layout.bytes(),
        }
    }
}
// What every GPU has; and points fit two stages.
const _: () = assert!(MmaShared::new(HOPPER_WIDE).bytes <= 99 << 10 && MMA_POINTS == 2 * MMA_CENTROIDS);

/// Parameters of the assignment by warps' products.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MmaParams {
    /// The problems.
    pub shape: Shape,
    /// Which of the two slots holds the centroids' largest norm and residual.
    pub slot: u32,
    /// As [`HopperParams::is_exact`].
    pub is_exact: u32,
}

impl MmaParams {
    /// Point tiles of a problem.
    #[inline]
    pub const fn tiles(&self) -> u32 {
        self.shape.n.div_ceil(MMA_POINTS)
    }
    /// Point tiles of all problems, whose points are fewer than 2³².
    #[inline]
    pub const fn items(&self) -> u32 {
        self.shape.batch * self.tiles()
    }
    /// Centroid tiles of a problem.
    #[inline]
    pub const fn centroid_tiles(&self) -> u32 {
        self.shape.centroid_tiles()
    }
    /// Halves of them that have centroids.
    #[inline]
    pub const fn centroid_halves(&self) -> u32 {
        self.shape.k.div_ceil(MMA_CENTROIDS)
    }
}
impl Items for MmaParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.items() as u64
    }
}

/// Centroids count as no shorter in the bounds of scores: their squared norms may have lost bits, or be 0.
pub const LEAST_NORM: f32 = 1e-20;

/// Threads of a block that packs a tile.
pub const PACK_THREADS: u32 = 1024;

/// Shared memory of `pack_centroids`.
#[derive(Clone, Copy, Debug)]
pub struct PackShared {
    /// Largest bias of each warp's centroids.
    pub biases: Slot<f32>,
    /// Largest norm.
    pub norms: Slot<f32>,
    /// Largest residual.
    pub residuals: Slot<f32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl PackShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        PackShared {
            biases: layout.array(PACK_THREADS / 32),
            norms: layout.array(PACK_THREADS / 32),
            residuals: layout.array(PACK_THREADS / 32),
            bytes: layout.bytes(),
        }
    }
}

/// Parameters of `pack_centroids`: one block for each tile.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PackParams {
    /// The problems.
    pub shape: Shape,
    /// The slot of the largest norm to raise; the other is set to 0.
    pub slot: u32,
}
impl PackParams {
    /// Centroid tiles of a problem.
    #[inline]
    pub const fn tiles(&self) -> u32 {
        self.shape.centroid_tiles()
    }
    /// Centroid tiles of all problems.
    #[inline]
    pub const fn all_tiles(&self) -> u64 {
        self.shape.batch as u64 * self.tiles() as u64
    }
    /// Lanes that share a centroid, a chunk of 8 features each: a power of two.
    #[inline]
    pub const fn lanes(&self) -> u32 {
        let chunks = hopper_panels(self.shape.d) * (HOPPER_PANEL_FEATURES / 8);
        if chunks < 32 { chunks.next_power_of_two() } else { 32 }
    }
}
impl Items for PackParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.all_tiles()
    }
}

/// Threads of `order_centroids`' blocks.
pub const ORDER_THREADS: u32 = 1024;
/// Bins that norms are sorted into, two a thread: a power of two.
pub const ORDER_BINS: u32 = 2 * ORDER_THREADS;

/// Shared memory of `order_centroids`.
#[derive(Clone, Copy, Debug)]
pub struct OrderShared {
    /// Centroids in each bin, then where its next one goes.
    pub places: Slot<u32>,
    /// Least and largest of each warp, then sums of warps in the scan of bins.
    pub warps: Slot<u32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl OrderShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        OrderShared {
            places: layout.array(ORDER_BINS),
            warps: layout.array(2 * ORDER_THREADS / 32),
            bytes: layout.bytes(),
        }
    }
}

/// Parameters of `order_centroids`: one block for each problem.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct OrderParams {
    /// The problems.
    pub shape: Shape,
}
impl Items for OrderParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.shape.batch as u64
    }
}

/// Parameters of `pack_points`: one warp a row.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PackPointsParams {
    /// The problems.
    pub shape: Shape,
    /// Values from one packed row to the next.
    pub packed_pitch: u32,
}
impl Items for PackPointsParams {
    #[inline]
    fn blocks(&self) -> u64 {
        (self.shape.batch as u64 * self.shape.n as u64).div_ceil(UPDATE_WARPS as u64)
    }
}

/// Parameters of `floors`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FloorsParams {
    /// The problems, with the pitch of points in 16 bits.
    pub shape: Shape,
    /// Whether the 16 bits are bfloat16, not half precision.
    pub is_bf16: u32,
    /// As [`HopperParams::is_exact`]: 0 for floors under the best score itself, and not only under what its bound leaves.
    pub is_exact: u32,
}
impl FloorsParams {
    /// Lanes that share a point, a chunk of 8 features each: a power of two.
    #[inline]
    pub const fn lanes(&self) -> u32 {
        let chunks = self.shape.pitch / 8;
        if chunks < 32 { chunks.next_power_of_two() } else { 32 }
    }
    /// Points that a block looks at at a time.
    #[inline]
    pub const fn rows(&self) -> u32 {
        FLOORS_ROWS * UPDATE_THREADS / self.lanes()
    }
}
impl Items for FloorsParams {
    #[inline]
    fn blocks(&self) -> u64 {
        (self.shape.batch as u64 * self.shape.n as u64).div_ceil(self.rows() as u64)
    }
}
/// Points of a thread of `floors` at a time.
pub const FLOORS_ROWS: u32 = 4;

/// Parameters of `norms`: one warp a row.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NormsParams {
    /// The problems.
    pub shape: Shape,
}
impl Items for NormsParams {
    #[inline]
    fn blocks(&self) -> u64 {
        (self.shape.batch as u64 * self.shape.n as u64).div_ceil(UPDATE_WARPS as u64)
    }
}

/// Parameters of `gather`: one warp a centroid.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct GatherParams {
    /// The problems.
    pub shape: Shape,
}
impl Items for GatherParams {
    #[inline]
    fn blocks(&self) -> u64 {
        (self.shape.batch as u64 * self.shape.k as u64).div_ceil(UPDATE_WARPS as u64)
    }
}

/// A point's second candidate: none.
pub const NO_CANDIDATE: u32 = u32::MAX;
/// A point's second candidate: more than can be named, so every centroid is one.
pub const MANY_CANDIDATES: u32 = u32::MAX - 1;

/// Points for which `settle` looks at every centroid at a time.
pub const SETTLE_GROUP: u32 = 4;

/// Shared memory of `settle`.
#[derive(Clone, Copy, Debug)]
pub struct SettleShared {
    /// Best distance of each warp.
    pub distances: Slot<f64>,
    /// Its second best.
    pub seconds: Slot<f64>,
    /// The best one's centroid.
    pub labels: Slot<u32>,
    /// Best distance of each thread, in f32.
    pub scan_distances: Slot<f32>,
    /// Its second best.
    pub scan_seconds: Slot<f32>,
    /// The best one's centroid.
    pub scan_labels: Slot<u32>,
    /// Labels of the group's points.
    pub group_labels: Slot<u32>,
    /// Which threads have found candidates for each, where one has found several.
    pub group_classes: Slot<u64>,
    /// Blocks of the team that have ended.
    pub ended: Slot<u32>,
    /// The largest magnitude that each thread has met in centroids, for products.
    pub scan_largest: Slot<f32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl SettleShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        SettleShared {
            distances: layout.array(UPDATE_WARPS),
            seconds: layout.array(UPDATE_WARPS),
            labels: layout.array(UPDATE_WARPS),
            scan_distances: layout.array(UPDATE_THREADS),
            scan_seconds: layout.array(UPDATE_THREADS),
            scan_labels: layout.array(UPDATE_THREADS),
            group_labels: layout.array(SETTLE_GROUP),
            group_classes: layout.array(SETTLE_GROUP),
            ended: layout.array(1),
            scan_largest: layout.array(UPDATE_THREADS),
            bytes: layout.bytes(),
        }
    }
}

/// Words of a thread in which blocks tell others of their team what they have found.
pub const SETTLE_WORDS: u32 = 4;

/// Parameters of `settle`: how many points there are to settle is known on the device only.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SettleParams {
    /// The problems.
    pub shape: Shape,
    /// Blocks to launch.
    pub blocks: u32,
}
impl SettleParams {
    /// Words in which blocks tell others of their team what they have found.
    #[inline]
    pub const fn scratch(&self) -> u32 {
        self.blocks * UPDATE_THREADS * SETTLE_WORDS
    }
}
impl Items for SettleParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.blocks as u64
    }
}

/// Shared memory of `sort_histogram`.
#[derive(Clone, Copy, Debug)]
pub struct HistogramShared {
    /// Keys of each digit in the tile.
    pub counts: Slot<u32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl HistogramShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        HistogramShared { counts: layout.array(SORT_DIGITS), bytes: layout.bytes() }
    }
}

/// Shared memory of `sort_scatter`.
#[derive(Clone, Copy, Debug)]
pub struct ScatterShared {
    /// `[warp][digit]`: keys of each digit in a warp's part of the tile, then where its next one goes.
    pub places: Slot<u32>,
    /// Sums of warps in the scan of digits.
    pub warp_sums: Slot<u32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl ScatterShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        ScatterShared {
            places: layout.array(SORT_THREADS / 32 * SORT_DIGITS),
            warp_sums: layout.array(SORT_THREADS / 32),
            bytes: layout.bytes(),
        }
    }
}

/// Shared memory of `whole_count`.
#[derive(Clone, Copy, Debug)]
pub struct WholeCountShared {
    /// Keys of each cluster in the tile.
    pub counts: Slot<u32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl WholeCountShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        WholeCountShared { counts: layout.array(WHOLE_CLUSTERS), bytes: layout.bytes() }
    }
}

/// Shared memory of `whole_starts`.
#[derive(Clone, Copy, Debug)]
pub struct WholeStartsShared {
    /// Keys of each cluster in the panel.
    pub totals: Slot<u32>,
    /// Sums of warps in the scan of clusters.
    pub warp_sums: Slot<u32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl WholeStartsShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        WholeStartsShared {
            totals: layout.array(WHOLE_CLUSTERS),
            warp_sums: layout.array(WHOLE_STARTS_THREADS / 32),
            bytes: layout.bytes(),
        }
    }
}

/// Shared memory of `whole_place`.
#[derive(Clone, Copy, Debug)]
pub struct WholePlaceShared {
    /// 16 bits each: the tile's keys of each cluster, then where in the tile the first of them goes.
    pub firsts: Slot<u32>,
    /// How much further on they go in the panel.
    pub onwards: Slot<u32>,
    /// `[warp][cluster]`, 16 bits each: a warp's keys of each cluster, then how far on its next one goes. In the end the
    /// tile's keys in their order: label above, and place before below 2^16.
    pub offsets: Slot<u32>,
    /// Sums of warps in the scan of clusters.
    pub warp_sums: Slot<u32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl WholePlaceShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        WholePlaceShared {
            firsts: layout.array(WHOLE_CLUSTERS / 2),
            onwards: layout.array(WHOLE_CLUSTERS),
            offsets: layout.array(WHOLE_PLACE_THREADS / 32 * WHOLE_CLUSTERS / 2),
            warp_sums: layout.array(WHOLE_PLACE_THREADS / 32),
            bytes: layout.bytes(),
        }
    }
}
const _: () = assert!(WHOLE_TILE < 1 << 16 && WHOLE_TILE <= WHOLE_PLACE_THREADS / 32 * WHOLE_CLUSTERS / 2);

/// Parameters of the sort by whole labels: a block a tile.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct WholeParams {
    /// The problems.
    pub shape: Shape,
    /// Their panels.
    pub panels: Panels,
}
impl WholeParams {
    /// Tiles of a panel.
    #[inline]
    pub const fn tiles(&self) -> u32 {
        self.panels.len.div_ceil(WHOLE_TILE)
    }
}
impl Items for WholeParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.shape.batch as u64 * self.panels.count as u64 * self.tiles() as u64
    }
}

/// Parameters of one pass of the sort.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SortParams {
    /// The problems.
    pub shape: Shape,
    /// Their panels.
    pub panels: Panels,
    /// The pass: digit `pass` is sorted by, the lowest first.
    pub pass: u32,
}

impl SortParams {
    /// Passes for ids under `k`.
    #[inline]
    pub const fn passes(k: u32) -> u32 {
        let bits = u32::BITS - (k - 1).leading_zeros();
        if bits == 0 { 1 } else { bits.div_ceil(SORT_BITS) }
    }
}
impl Items for SortParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.shape.batch as u64 * self.panels.count as u64 * self.panels.tiles() as u64
    }
}

/// Parameters of the scan of a pass: one warp for each digit of each panel.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ScanParams {
    /// Panels over all problems.
    pub groups: u32,
    /// Sort tiles of a panel.
    pub tiles: u32,
}
impl Items for ScanParams {
    #[inline]
    fn blocks(&self) -> u64 {
        (self.groups as u64 * SORT_DIGITS as u64).div_ceil((SORT_THREADS / 32) as u64)
    }
}

/// Parameters of `segment_starts`: one thread for each of `k + 1` borders of each panel.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StartsParams {
    /// The problems.
    pub shape: Shape,
    /// Their panels.
    pub panels: Panels,
}
impl Items for StartsParams {
    #[inline]
    fn blocks(&self) -> u64 {
        let borders = self.shape.k as u64 + 1;
        (self.shape.batch as u64 * self.panels.count as u64 * borders).div_ceil(UPDATE_THREADS as u64)
    }
}

/// Parameters of `segment_sums`: one warp for each stretch and chunk of features.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SumsParams {
    /// The problems.
    pub shape: Shape,
    /// Their panels.
    pub panels: Panels,
    /// Lanes that share a row: a power of two up to 32.
    pub lanes_per_row: u32,
    /// Chunks of features: what 32 lanes hold, until all `d` are covered.
    pub chunks: u32,
}

impl SumsParams {
    /// `values` is how many features a lane loads at once.
    #[inline]
    pub const fn new(shape: Shape, panels: Panels, values: u32) -> Self {
        let vectors = shape.d.div_ceil(values);
        let lanes_per_row = if vectors >= 32 { 32 } else { vectors.next_power_of_two() };
        SumsParams { shape, panels, lanes_per_row, chunks: vectors.div_ceil(32) }
    }
}
impl Items for SumsParams {
    #[inline]
    fn blocks(&self) -> u64 {
        let groups = self.shape.batch as u64 * self.panels.count as u64;
        (groups * self.panels.stretches() as u64 * self.chunks as u64).div_ceil(UPDATE_WARPS as u64)
    }
}

/// Features of an item of `panel_sums`.
pub const PANEL_SUMS_FEATURES: u32 = 128;
/// Bytes of a row of points of which each lane of a warp has a word.
pub const NARROW_BYTES: u32 = 128;
/// Bytes of a row of which it has two, of panels that a multiprocessor has to itself.
pub const HELD_BYTES: u32 = 256;

/// Shared memory of `panel_sums`.
#[derive(Clone, Copy, Debug)]
pub struct PanelSumsShared {
    /// `[warp][cluster]`, 16 bits each: a warp's points of each cluster, then those of the warps before.
    pub counts: Slot<u32>,
    /// Where each cluster begins, and the last one ends.
    pub bases: Slot<u32>,
    /// The sorted points, with their labels.
    pub order: Slot<u32>,
    /// Sums of warps in the scan of clusters.
    pub warp_sums: Slot<u32>,
    /// The points, where they come here.
    pub points: Slot<u8>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl PanelSumsShared {
    /// The layout for points of rows of at most so many bytes; 0 where they do not come here.
    #[inline]
    pub const fn new(row_bytes: u32) -> Self {
        let mut layout = Layout::new();
        PanelSumsShared {
            counts: layout.array(BLOCK_PANEL_POINTS / 32 * BLOCK_PANEL_CLUSTERS / 2),
            bases: layout.array(BLOCK_PANEL_CLUSTERS + 1),
            order: layout.array(BLOCK_PANEL_POINTS),
            warp_sums: layout.array(BLOCK_PANEL_POINTS / 32),
            points: layout.aligned_array(BLOCK_PANEL_POINTS * row_bytes, 16),
            bytes: layout.bytes(),
        }
    }
}

/// What rows of points are to `panel_sums`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelRows {
    /// A word of each lane of a warp at the most: several blocks of a multiprocessor have all of their panels' in shared memory.
    Narrow,
    /// Two words, and no multiprocessor has two panels.
    Held,
    /// Longer ones, or too many.
    Any,
}

/// Parameters of `panel_sums`: a block for each chunk of [`PANEL_SUMS_FEATURES`] features of each panel.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PanelSumsParams {
    /// The problems.
    pub shape: Shape,
    /// Their panels, which [`Panels::fit_a_block`].
    pub panels: Panels,
}
impl PanelSumsParams {
    /// Chunks of a row.
    #[inline]
    pub const fn chunks(&self) -> u32 {
        self.shape.d.div_ceil(PANEL_SUMS_FEATURES)
    }
    /// What rows of values of so many bytes are, to `multiprocessors` that give a block `shared_bytes`.
    #[inline]
    pub fn rows(&self, value_bytes: u32, shared_bytes: u32, multiprocessors: u32) -> PanelRows {
        let bytes = self.shape.d as u64 * value_bytes as u64;
        let fits = PanelSumsShared::new(HELD_BYTES).bytes <= shared_bytes;
        if bytes <= NARROW_BYTES as u64 {
            PanelRows::Narrow
        } else if bytes <= HELD_BYTES as u64 && fits && self.blocks() <= multiprocessors as u64 {
            PanelRows::Held
        } else {
            PanelRows::Any
        }
    }
}
impl Items for PanelSumsParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.shape.batch as u64 * self.panels.count as u64 * self.chunks() as u64
    }
}

/// An entry of `sweep`: what it is for, and how its warps and blocks share a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepWay {
    /// Products over the features: points have no more than these multiply.
    pub steps: u32,
    /// Half tiles of centroids that there is room for. Each has a team of warps.
    pub halves: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Lanes that have a stretch of a panel.
    pub lanes: u32,
    /// Blocks of a cluster, which share a panel: its points for the products, and the features for the sums.
    pub blocks: u32,
    /// Blocks that a multiprocessor has room for: one multiplies or sums while another waits.
    pub blocks_per_sm: u32,
    /// Whether `iterate` has an entry of the same kind.
    pub iterates: bool,
}

impl SweepWay {
    /// All there are; an entry is named by its place.
    pub const ALL: [SweepWay; 7] = [
        SweepWay { steps: 4, halves: 2, threads: 256, lanes: 8, blocks: 1, blocks_per_sm: 2, iterates: true },
        SweepWay {
            steps: 4,
            halves: 4,
            threads: 512,
            lanes: 16,
            blocks: 1,
            blocks_per_sm: 1,
            iterates: false,
        },
        SweepWay {
            steps: 8,
            halves: 2,
            threads: 512,
            lanes: 16,
            blocks: 1,
            blocks_per_sm: 1,
            iterates: true,
        },
        SweepWay { steps: 4, halves: 4, threads: 512, lanes: 8, blocks: 2, blocks_per_sm: 1, iterates: true },
        SweepWay {
            steps: 8,
            halves: 4,
            threads: 512,
            lanes: 16,
            blocks: 2,
            blocks_per_sm: 1,
            iterates: true,
        },
        SweepWay { steps: 4, halves: 4, threads: 256, lanes: 8, blocks: 4, blocks_per_sm: 2, iterates: true },
        SweepWay {
            steps: 8,
            halves: 4,
            threads: 256,
            lanes: 16,
            blocks: 4,
            blocks_per_sm: 2,
            iterates: true,
        },
    ];
    /// Most clusters.
    #[inline]
    pub const fn clusters(&self) -> u32 {
        self.halves * MMA_CENTROIDS
    }
    /// Points that a block multiplies.
    #[inline]
    pub const fn points(&self) -> u32 {
        BLOCK_PANEL_POINTS / self.blocks
    }
    /// Words of a point whose features a block sums.
    #[inline]
    pub const fn words(&self) -> u32 {
        self.steps * HOPPER_STEP_FEATURES / 2 / self.blocks
    }
    /// Panels of 64 features.
    #[inline]
    pub const fn panels(&self) -> u32 {
        (self.steps * HOPPER_STEP_FEATURES).div_ceil(HOPPER_PANEL_FEATURES)
    }
}

/// The operand of entry `WAY` of `sweep`, for points of `T`.
#[derive(Clone, Copy, Debug)]
pub struct Swept<T, const WAY: u32>(core::marker::PhantomData<T>);
impl<T: Copy + 'static, const WAY: u32> HopperOperand for Swept<T, WAY> {
    type Scalar = T;
    const STEPS: u32 = WAY;
}

/// Shared memory of `sweep`, and of `iterate`, to which points and what is known of them are there from iteration to iteration.
#[derive(Clone, Copy, Debug)]
pub struct SweepShared {
    /// `[team][point]` the best score.
    pub best: Slot<f32>,
    /// `[team][point]` how many centroids may be the nearest, and in the lower half the sum of their columns.
    pub tallies: Slot<u32>,
    /// `[team][point][pair of quarters]` a bit for each centroid that may be the nearest, of warps that have found several.
    pub candidates: Slot<u32>,
    /// The sorted points: where they are, with their labels above. Four more than there are; in the candidates' place.
    pub order: Slot<u32>,
    /// As in [`PanelSumsShared`]; in the candidates' place, too.
    pub counts: Slot<u32>,
    /// As in [`PanelSumsShared`].
    pub bases: Slot<u32>,
    /// As in [`PanelSumsShared`].
    pub warp_sums: Slot<u32>,
    /// `[tile]` biases.
    pub biases: Slot<f32>,
    /// How far apart two scores of a point have to be to be in the right order.
    pub bounds: Slot<f32>,
    /// `[half][panel of features][centroid]`, swizzled.
    pub centroids: Slot<u8>,
    /// `[point]` the features that are summed, where those are not of the points that are multiplied; in the centroids' place.
    pub features: Slot<u8>,
    /// `[panel of features][point]` the points that are multiplied, swizzled.
    pub points: Slot<u8>,
    /// Their squared norms.
    pub norms: Slot<f32>,
    /// Labels of the panel's points: those they had, and then the new ones.
    pub labels: Slot<u32>,
    /// `[warp of points]` their statistics, of blocks that stay.
    pub costs: Slot<f64>,
    /// As [`Self::costs`].
    pub changes: Slot<u32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl SweepShared {
    /// The layout.
    #[inline]
    pub const fn new(way: SweepWay) -> Self {
        let mut layout = Layout::new();
        let points = way.points();
        let best = layout.array(way.halves * points);
        let tallies = layout.array(way.halves * points);
        // Once labels are there, candidates are not needed.
        let mut later = layout;
        let candidates = layout.array(way.halves * points * 2);
        let order = later.array(BLOCK_PANEL_POINTS + 4);
        let counts = later.array(way.threads / 32 * way.clusters() / 2);
        if later.bytes() > layout.bytes() {
            layout = later;
        }
        let bases = layout.array(way.clusters() + 1);
        let warp_sums = layout.array(way.threads / 32);
        let biases = layout.array(way.halves / 2 * HOPPER_BIASES);
        let bounds = layout.array(points);
        // Once products are there, centroids are not.
        let mut later = layout;
        let centroids = layout.aligned_array(way.halves * way.panels() * MMA_CENTROIDS * 128, 1024);
        let summed = if way.blocks > 1 { BLOCK_PANEL_POINTS * way.words() * 4 } else { 0 };
        let features = later.aligned_array(summed, 1024);
        assert!(later.bytes() <= layout.bytes());
        // What means take is in the place of all that is not of the points; what is copied meanwhile is not in the place of what the
        // last of an iteration takes.
        let finish = FinishShared::new();
        assert!(!way.iterates || biases.offset >= finish.last_bytes);
        if way.iterates && finish.bytes > layout.bytes() {
            let _rest: Slot<u8> = layout.array(finish.bytes - layout.bytes());
        }
        SweepShared {
            best,
            tallies,
            candidates,
            order,
            counts,
            bases,
            warp_sums,
            biases,
            bounds,
            centroids,
            features,
            points: layout.aligned_array(way.panels() * points * 128, 1024),
            norms: layout.array(points),
            labels: layout.array(BLOCK_PANEL_POINTS),
            costs: layout.array(if way.iterates { points / 32 } else { 0 }),
            changes: layout.array(if way.iterates { points / 32 } else { 0 }),
            bytes: layout.bytes(),
        }
    }
}

// A multiprocessor of Hopper has 228 KiB, of which each block takes one more.
const _: () = {
    let mut entry = 0;
    while entry < SweepWay::ALL.len() {
        let way = SweepWay::ALL[entry];
        assert!(way.blocks_per_sm * (SweepShared::new(way).bytes + 1024) <= 228 << 10);
        entry += 1;
    }
};

/// Parameters of `sweep`: a block, or a cluster of them, for each panel.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SweepParams {
    /// The problems.
    pub shape: Shape,
    /// Their panels, which [`Panels::fit_a_block`].
    pub panels: Panels,
    /// Which of the two slots holds the centroids' largest norm and residual.
    pub slot: u32,
}
impl Items for SweepParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.shape.batch as u64 * self.panels.count as u64
    }
}

/// Parameters of `iterate`: a block, or a cluster of them, for each panel, and those of a problem together.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct IterateParams {
    /// What is swept.
    pub sweep: SweepParams,
    /// How the blocks of a problem end an iteration.
    pub finish: FinishParams,
    /// Iterations at most: no more than records are kept of, from the first slot on.
    pub iterations: u32,
    /// Whether those that end the last of them not done are labelled once more, as those are that end at no fixed point.
    pub closes: u32,
}
impl Items for IterateParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.sweep.blocks()
    }
}

/// Features of a lane of `finalise`.
pub const FINALISE_VALUES: u32 = 4;
/// Features of a chunk of a cluster, a warp's.
pub const FINALISE_FEATURES: u32 = 32 * FINALISE_VALUES;
/// Values from one row of partial sums to the next: whole vectors of four, what lies between zeros.
#[inline]
pub const fn sums_pitch(width: u32) -> u32 {
    width.next_multiple_of(FINALISE_VALUES)
}
/// Rows of partial sums that a warp has in flight.
pub const FINALISE_IN_FLIGHT: u32 = 4;
/// Shares of a cluster's rows: one for each warp of a block.
pub const FINALISE_SHARES: u32 = UPDATE_WARPS;
/// Stretches whose heads are added up in advance, where one cluster has all of them.
pub const FOLD: u32 = 32;

/// Parameters of `fold_heads`: a warp for each [`FOLD`] stretches of a panel and chunk of their rows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FoldParams {
    /// The problems.
    pub shape: Shape,
    /// Their panels.
    pub panels: Panels,
    /// Values from one row of heads to the next.
    pub pitch: u32,
}
impl FoldParams {
    /// Blocks of [`FOLD`] stretches of a panel; fewer are not added up.
    #[inline]
    pub const fn folds(&self) -> u32 {
        self.panels.stretches() / FOLD
    }
    /// Chunks of a row.
    #[inline]
    pub const fn chunks(&self) -> u32 {
        self.pitch.div_ceil(FINALISE_FEATURES)
    }
    /// What warps have to do: nothing where panels have fewer stretches, and then there is no launch.
    #[inline]
    pub const fn items(&self) -> u64 {
        self.shape.batch as u64 * self.panels.count as u64 * self.folds() as u64 * self.chunks() as u64
    }
}
impl Items for FoldParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.items().div_ceil(UPDATE_WARPS as u64)
    }
}

/// Shared memory of `finalise`.
#[derive(Clone, Copy, Debug)]
pub struct FinaliseShared {
    /// `[warp][value][lane]` sums of a warp's share.
    pub sums: Slot<f64>,
    /// What a point is of the mean of a cluster that each thread looks at.
    pub weights: Slot<f64>,
    /// `[thread][value]` a lane's features of the centroid so far.
    pub before: Slot<f32>,
    /// Each warp's clusters of many rows, a bit each.
    pub many: Slot<u32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl FinaliseShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        FinaliseShared {
            sums: layout.array(UPDATE_THREADS * FINALISE_VALUES),
            weights: layout.array(UPDATE_THREADS),
            before: layout.aligned_array(UPDATE_THREADS * FINALISE_VALUES, 16),
            many: layout.array(UPDATE_WARPS),
            bytes: layout.bytes(),
        }
    }
}

/// Parameters of `finalise`: a warp takes a chunk of [`FINALISE_FEATURES`] features of some clusters of a problem.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FinaliseParams {
    /// The problems.
    pub shape: Shape,
    /// Their panels.
    pub panels: Panels,
    /// Lanes that look at a cluster: a panel each, or the next ones after 32 panels.
    pub lanes_of_cluster: u32,
    /// Clusters of a warp, which has lanes for each: a power of two.
    pub clusters_of_warp: u32,
    /// Warps of a block that have clusters: a power of two.
    pub warps_of_block: u32,
    /// Most rows of a cluster that one warp adds up; of more, all warps of the block have a share.
    pub rows_of_warp: u32,
    /// Whether heads are folded. Bits depend on it.
    pub is_folded: u32,
}
impl FinaliseParams {
    /// For `multiprocessors`: a warp has as many clusters as leave it enough other warps beside; few are spread over many
    /// blocks, whose other warps help.
    #[inline]
    pub fn new(shape: Shape, panels: Panels, multiprocessors: u32) -> Self {
        /// Warps that hide what each waits for.
        const WARPS: u64 = 32;
        /// Blocks of a multiprocessor, where they have fewer warps for it.
        const BLOCKS: u64 = 2;
        /// What takes a warp as long as waiting for others would.
        const MANY_ROWS: u32 = 128;
        /// The same where few warps are all that there is to wait for.
        const FEW_ROWS: u32 = 2 * FINALISE_IN_FLIGHT;
        let lanes_of_cluster = if panels.count < 32 { panels.count.next_power_of_two() } else { 32 };
        let mut params = FinaliseParams {
            shape,
            panels,
            lanes_of_cluster,
            clusters_of_warp: 1,
            warps_of_block: UPDATE_WARPS,
            rows_of_warp: MANY_ROWS,
            is_folded: !panels.fit_a_block(shape.k) as u32,
        };
        let multiprocessors = multiprocessors as u64;
        while 2 * params.clusters_of_warp * lanes_of_cluster <= 32
            && params.groups() > 2 * WARPS * multiprocessors
        {
            params.clusters_of_warp *= 2;
        }
        while params.warps_of_block > 1 && params.blocks() < BLOCKS * multiprocessors {
            params.warps_of_block /= 2;
            params.rows_of_warp = FEW_ROWS;
        }
        params
    }
    /// Chunks of a cluster.
    #[inline]
    pub const fn chunks(&self) -> u32 {
        self.shape.d.div_ceil(FINALISE_FEATURES)
    }
    /// Chunks of all clusters.
    #[inline]
    pub const fn items(&self) -> u64 {
        self.shape.batch as u64 * self.shape.k as u64 * self.chunks() as u64
    }
    /// What warps have of a problem.
    #[inline]
    pub const fn groups_of_problem(&self) -> u32 {
        let runs = ((self.shape.k - 1) >> self.clusters_of_warp.trailing_zeros()) + 1;
        runs * self.chunks()
    }
    /// What warps have of all problems.
    #[inline]
    pub const fn groups(&self) -> u64 {
        self.shape.batch as u64 * self.groups_of_problem() as u64
    }
}
impl Items for FinaliseParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.groups().div_ceil(self.warps_of_block as u64)
    }
}

/// Shared memory of `converge`.
#[derive(Clone, Copy, Debug)]
pub struct ConvergeShared {
    /// Partial sums of the shift.
    pub shift: Slot<f64>,
    /// Partial sums of the inertia.
    pub cost: Slot<f64>,
    /// Partial sums of the changed labels.
    pub changed: Slot<u32>,
    /// Blocks of the problem that have ended.
    pub ended: Slot<u32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl ConvergeShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        ConvergeShared {
            shift: layout.array(REDUCE_THREADS),
            cost: layout.array(REDUCE_THREADS),
            changed: layout.array(REDUCE_THREADS),
            ended: layout.array(1),
            bytes: layout.bytes(),
        }
    }
}

/// How one problem stands, in device memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LoopState {
    /// 1 once the problem has stopped: its blocks do nothing any more.
    pub done: u32,
    /// Iterations done.
    pub n_iter: u32,
    /// 1 if the last iteration changed no label, so that labels and centroids belong together.
    pub fixed_point: u32,
    /// Unused, so that the size is a power of two.
    pub reserved: u32,
}

/// One iteration of one problem, in device memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct IterationRecord {
    /// Sum of squared distances of the assignment.
    pub cost: f64,
    /// Sum of squared moves of the centroids.
    pub shift: f64,
    /// Labels that changed.
    pub changed: u32,
    /// Unused, so that the size is a multiple of 8.
    pub reserved: u32,
}

/// Parameters of `converge`: [`ConvergeParams::parts`] blocks for each problem.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ConvergeParams {
    /// The problems.
    pub shape: Shape,
    /// Entries of the assignment's statistics for a problem.
    pub tiles: u32,
    /// Entries of the moves of its centroids.
    pub moves: u32,
    /// Iterations of which records are kept: that of iteration `i` goes to slot `i % window`.
    pub window: u32,
}
impl ConvergeParams {
    /// Blocks that share a problem, at most as many as they have threads: a function of the problem alone, for the order
    /// of additions is.
    #[inline]
    pub const fn parts(&self) -> u32 {
        /// Entries that a block takes as long for as the launch of it does.
        const FEW: u32 = 4096;
        let most = if self.tiles > self.moves { self.tiles } else { self.moves };
        let parts = most.div_ceil(FEW);
        if parts < REDUCE_THREADS { parts } else { REDUCE_THREADS }
    }
}
impl Items for ConvergeParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.shape.batch as u64 * self.parts() as u64
    }
}

/// Most clusters of a block of `finish`.
pub const FINISH_CLUSTERS: u32 = 16;
/// Clusters whose rows all of its warps share, at a time.
pub const FINISH_LONG: u32 = 2;
/// Most panels of a problem that it takes: a lane each.
pub const FINISH_PANELS: u32 = 32;
/// Most rows of partial sums of all clusters of a block.
pub const FINISH_ROWS: u32 = 4096;

/// Shared memory of `finish`: that of `converge`, which comes last, and its own.
#[derive(Clone, Copy, Debug)]
pub struct FinishShared {
    /// Blocks of the problem that have ended.
    pub ended: Slot<u32>,
    /// What shifts are compared with.
    pub threshold: Slot<f64>,
    /// Length of the longest centroid of each tile.
    pub lengths: Slot<f32>,
    /// Largest residual of each.
    pub residuals: Slot<f32>,
    /// Bytes of what is used once all means are there: what comes after it is for these.
    pub last_bytes: u32,
    /// `[cluster][row]` the numbers of its rows.
    pub rows: Slot<u32>,
    /// How many each cluster has.
    pub counts: Slot<u32>,
    /// What a point is of its mean.
    pub weights: Slot<f64>,
    /// `[cluster][warp][value][lane]` sums of shares.
    pub shares: Slot<f64>,
    /// `[thread][value]` a lane's features of the centroid so far: there, for they are not needed while rows are added.
    pub before: Slot<f32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl FinishShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        let _converge: Slot<u8> = layout.array(ConvergeShared::new().bytes);
        FinishShared {
            ended: layout.array(1),
            threshold: layout.array(1),
            lengths: layout.array(UPDATE_WARPS),
            residuals: layout.array(UPDATE_WARPS),
            last_bytes: layout.bytes(),
            rows: layout.array(FINISH_ROWS),
            counts: layout.array(FINISH_CLUSTERS),
            weights: layout.array(FINISH_CLUSTERS),
            shares: layout.array(FINISH_LONG * UPDATE_THREADS * FINALISE_VALUES),
            before: layout.aligned_array(UPDATE_THREADS * FINALISE_VALUES, 16),
            bytes: layout.bytes(),
        }
    }
}
// A thread of a block does its share of both parts, in the same order of additions; and what a thread counts has 16 bits.
const _: () = assert!(UPDATE_THREADS == REDUCE_THREADS);
const _: () = assert!(FINISH_PANELS * BLOCK_PANEL_POINTS < 1 << 16);
const _: () = assert!(FINISH_PANELS * (BLOCK_PANEL_POINTS / SHORT_STRETCH) <= FINISH_ROWS);

/// Parameters of `finish`: some blocks for each problem.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FinishParams {
    /// What is added up in the end, and the problems.
    pub converge: ConvergeParams,
    /// Their panels.
    pub panels: Panels,
    /// Lanes that look at a cluster, a panel each: a power of two.
    pub lanes_of_cluster: u32,
    /// Lanes that have a row, [`FINALISE_VALUES`] features each: a power of two.
    pub lanes_of_row: u32,
    /// Clusters of a block: a power of two.
    pub clusters_of_block: u32,
    /// Most rows of a cluster that one warp adds up; of more, all warps of the block have a share.
    pub rows_of_warp: u32,
    /// The slot of the largest norm that the next assignment reads.
    pub slot: u32,
}
impl FinishParams {
    /// For `multiprocessors`, where one launch ends an iteration of these problems: rows of a warp at most, a warp a tile, and
    /// nothing that blocks would have to share to add it up.
    #[inline]
    pub fn new(panels: Panels, converge: ConvergeParams, multiprocessors: u32) -> Option<Self> {
        Self::by_blocks(panels, converge, multiprocessors.div_ceil(converge.shape.batch))
    }
    /// The same, where so many blocks share a problem, or about as many.
    #[inline]
    pub fn by_blocks(panels: Panels, converge: ConvergeParams, blocks: u32) -> Option<Self> {
        /// Rows that take a warp as long as all of a block's warps take for a cluster, for they have one after the other.
        const FEW_ROWS: u32 = 2 * FINALISE_IN_FLIGHT;
        /// Rows that it has no more of than others, where clusters of its block wait for each other.
        const MANY_ROWS: u32 = 32;
        let shape = converge.shape;
        let fits = panels.fit_a_block(shape.k)
            && panels.stretch() == SHORT_STRETCH
            && panels.count <= FINISH_PANELS
            && shape.d <= FINALISE_FEATURES
            && shape.centroid_tiles() <= UPDATE_WARPS
            && converge.parts() == 1;
        if !fits {
            return None;
        }
        let lanes_of_row = shape.d.div_ceil(FINALISE_VALUES).next_power_of_two();
        let of_warp = 32 / lanes_of_row;
        let most =
            if of_warp * UPDATE_WARPS < FINISH_CLUSTERS { of_warp * UPDATE_WARPS } else { FINISH_CLUSTERS };
        let mut params = FinishParams {
            converge,
            panels,
            lanes_of_cluster: panels.count.next_power_of_two(),
            lanes_of_row,
            clusters_of_block: most,
            rows_of_warp: MANY_ROWS,
            slot: 0,
        };
        while params.clusters_of_block * params.rows_of_cluster() > FINISH_ROWS {
            params.clusters_of_block /= 2;
        }
        while params.clusters_of_block > 1 && params.blocks_of_problem() < blocks {
            params.clusters_of_block /= 2;
        }
        // A row of each panel, and heads: whether all are shared or none, for both take longer than either.
        if panels.count + 2 > params.clusters_of_block * FEW_ROWS {
            params.rows_of_warp = FEW_ROWS;
        }
        Some(params)
    }
    /// Most rows of partial sums that a cluster has: one where it begins in a panel, and a head of each stretch that it goes on through.
    #[inline]
    pub const fn rows_of_cluster(&self) -> u32 {
        self.panels.count * self.panels.short_stretches()
    }
    /// Blocks that share a problem.
    #[inline]
    pub const fn blocks_of_problem(&self) -> u32 {
        ((self.converge.shape.k - 1) >> self.clusters_of_block.trailing_zeros()) + 1
    }
}
impl Items for FinishParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.converge.shape.batch as u64 * self.blocks_of_problem() as u64
    }
}

/// Parameters of `inertia`: one block for so many rows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct InertiaParams {
    /// The problems.
    pub shape: Shape,
    /// Rows of an item: a power of two, up to [`INERTIA_ROWS`].
    pub rows: u32,
    /// Items of a problem.
    pub tiles: u32,
}
impl InertiaParams {
    /// Rows by the points of a problem alone, for the bits of sums depend on them: some hundred items at least, where warps of a block
    /// have a few rows each.
    #[inline]
    pub const fn new(shape: Shape) -> Self {
        const ITEMS: u32 = 512;
        const LEAST: u32 = 32;
        let rows = (shape.n / ITEMS).next_power_of_two();
        let rows = if rows < INERTIA_ROWS { rows } else { INERTIA_ROWS };
        Self::by(shape, if rows > LEAST { rows } else { LEAST })
    }
    /// With so many rows an item.
    #[inline]
    pub const fn by(shape: Shape, rows: u32) -> Self {
        InertiaParams { shape, rows, tiles: shape.n.div_ceil(rows) }
    }
}
impl Items for InertiaParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.shape.batch as u64 * self.tiles as u64
    }
}

/// Shared memory of `inertia`.
#[derive(Clone, Copy, Debug)]
pub struct InertiaShared {
    /// Sums of warps.
    pub warp_sums: Slot<f64>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl InertiaShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        InertiaShared { warp_sums: layout.array(REDUCE_THREADS / 32), bytes: layout.bytes() }
    }
}

/// Parameters of `moments`: one block for each stretch of rows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MomentsParams {
    /// The problems.
    pub shape: Shape,
    /// Rows of an item.
    pub rows: u32,
    /// Items of a problem.
    pub tiles: u32,
}
impl MomentsParams {
    /// At most [`MOMENTS_ITEMS`] items a problem, of as many rows as divide a panel.
    #[inline]
    pub fn new(shape: Shape) -> Self {
        let rows = shape.n.div_ceil(MOMENTS_ITEMS).next_power_of_two();
        let rows = rows.max(256).min(panel_points());
        MomentsParams { shape, rows, tiles: shape.n.div_ceil(rows) }
    }
}
impl Items for MomentsParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.shape.batch as u64 * self.tiles as u64
    }
}

/// Values that the sums for first centroids add up one after the other: distances of so many rows (a *chunk*), and then so
/// many of those sums (a *group*), on every backend.
pub const FAN: u32 = 64;
/// Terms of a squared distance that are added up side by side in f64, on every backend.
pub const DISTANCE_LANES: u32 = 16;
/// Threads of a block that measures distances to candidates for first centroids.
pub const LOWER_THREADS: u32 = 128;
/// Half-warps of it.
pub const LOWER_TEAMS: u32 = LOWER_THREADS / DISTANCE_LANES;
/// Rows that a half-warp measures at a time.
pub const LOWER_ROWS: u32 = 4;
/// Candidates that it measures them to.
pub const LOWER_CANDIDATES: u32 = 8;
/// Features of candidates in shared memory at a time.
pub const LOWER_FEATURES: u32 = 128;
/// Most chunks of rows of a block.
pub const LOWER_CHUNKS: u32 = 4;
/// Distances of a chunk in shared memory, with one value between chunks, against bank conflicts.
pub const LOWER_CHUNK_PITCH: u32 = FAN + 1;

/// From one number of the generator to the next, in its counter.
pub const RANDOM_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The generator's number for a counter: SplitMix64 (Steele, Lea and Flood, 2014).
#[inline(always)]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Uniform in `[0, 1)`, 53 bits of a number of the generator.
#[inline(always)]
pub const fn unit(number: u64) -> f64 {
    (number >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Most rows of a pool, unless a step takes more.
pub const POOL_PROPOSALS: u32 = 4096;

/// Rows of the pool that steps of greedy k-means++ choose from, `trials` at a time, when `chosen` of `k` are chosen: enough to
/// double them, if the distances left them all drawn. A point has a pool's row nearer than what is chosen about `trials` times,
/// so that its lists have the same length each time.
#[inline]
pub const fn pool_proposals(chosen: u32, k: u32, trials: u32) -> u32 {
    trials * pool_steps(chosen, k, POOL_PROPOSALS / trials)
}

/// Steps that a pool is for, at most `most`.
#[inline]
const fn pool_steps(chosen: u32, k: u32, most: u32) -> u32 {
    let left = k - chosen;
    let steps = if chosen < left { chosen } else { left };
    let steps = if steps < most { steps } else { most };
    if steps > 1 { steps } else { 1 }
}

/// What brings the gain of a candidate, at most `total`, to whole numbers under 2⁶²: a power of two.
#[inline]
pub fn gain_scale(total: f64) -> f64 {
    let exponent = 61 - ((total.to_bits() >> 52) as i64 - 1023);
    f64::from_bits((1023 + if exponent < 1023 { exponent } else { 1023 }) as u64 * (1 << 52))
}

/// By how much a candidate lowers a distance from `near` to `with`.
#[inline]
pub fn gain_of(near: f64, with: f64, scale: f64) -> i64 {
    // Of a number under 2⁵² the nearest whole one is what adding 2⁵² and more leaves of it; a larger one is whole.
    const WHOLE: f64 = (1u64 << 52) as f64;
    let gain = (near - with) * scale;
    (if gain < WHOLE { gain + WHOLE - WHOLE } else { gain }) as i64
}

/// Shared memory of `lower_to`.
#[derive(Clone, Copy, Debug)]
pub struct LowerToShared {
    /// `[candidate][feature]` of one stage.
    pub candidates: Slot<f64>,
    /// `[half-warp][distance][lane]`, with one value between distances, against bank conflicts.
    pub parts: Slot<f64>,
    /// `[candidate][chunk][row]`.
    pub distances: Slot<f64>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl LowerToShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        LowerToShared {
            candidates: layout.array(LOWER_CANDIDATES * LOWER_FEATURES),
            parts: layout.array(LOWER_TEAMS * DISTANCE_LANES * (DISTANCE_LANES + 1)),
            distances: layout.array(LOWER_CANDIDATES * LOWER_CHUNKS * LOWER_CHUNK_PITCH),
            bytes: layout.bytes(),
        }
    }
}

/// How the choice of a problem's first centroids stands, in device memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PoolState {
    /// Where the generator stood when the pool was drawn.
    pub counter: u64,
    /// Rows chosen.
    pub chosen: u32,
    /// Rows of the pool; 0 where the next is to be drawn. The first has the first centroid alone.
    pub proposals: u32,
    /// The place in the pool from which candidates for the next choice are looked for.
    pub next: u32,
    /// 1 when no more are to be chosen, or can be.
    pub done: u32,
}

/// Parameters of what chooses first centroids by k-means++.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PoolParams {
    /// The problems, of which `k` rows are chosen.
    pub shape: Shape,
    /// Rows that a choice is made from.
    pub trials: u32,
    /// Steps that a pool is for, at most: [`POOL_PROPOSALS`] divided by `trials`.
    pub steps: u32,
    /// Room for rows of a pool.
    pub most: u32,
    /// Rows of the pool that are looked at in this launch, of each problem.
    pub window: u32,
    /// Room for pairs of a point and a row of the pool that may be nearer to it than what is chosen, of all problems.
    pub capacity: u32,
}

impl PoolParams {
    /// Chunks of a problem.
    #[inline]
    pub const fn chunks(&self) -> u32 {
        self.shape.n.div_ceil(FAN)
    }
    /// Groups of a problem.
    #[inline]
    pub const fn groups(&self) -> u32 {
        self.chunks().div_ceil(FAN)
    }
    /// Rows of pools in this launch.
    #[inline]
    pub const fn columns(&self) -> u32 {
        self.shape.batch * self.window
    }
    /// Rows of the pool of a problem that stands so.
    #[inline]
    pub const fn proposals(&self, state: PoolState) -> u32 {
        match state.proposals {
            0 => self.trials * pool_steps(state.chosen, self.shape.k, self.steps),
            drawn => drawn,
        }
    }
    /// Blocks that draw a problem's pool.
    #[inline]
    pub const fn parts(&self) -> u32 {
        (if self.most > self.window { self.most } else { self.window }).div_ceil(PROPOSE_THREADS)
    }
}

/// No row of a pool: a place among the pairs that has none.
pub const NO_COLUMN: u32 = u32::MAX;
/// Threads of a block that sums distances of a group of rows.
pub const POOL_SUMS_THREADS: u32 = 1024;
/// Threads of a block that draws a pool.
pub const PROPOSE_THREADS: u32 = 128;
/// Threads of a block that counts pairs, or brings them to their lists.
pub const PLACE_THREADS: u32 = 512;
/// Pairs that it looks at together.
pub const PLACE_PAIRS: u32 = 8 * PLACE_THREADS;
/// Lists that it has room to count by itself.
pub const PLACE_COLUMNS: u32 = 8192;
/// Threads of the block that finds where lists of pairs begin.
pub const PAIR_STARTS_THREADS: u32 = 1024;
/// Threads of a block that measures pairs.
pub const MEASURE_THREADS: u32 = 128;
/// Half-warps of it.
pub const MEASURE_TEAMS: u32 = MEASURE_THREADS / DISTANCE_LANES;
/// Pairs that a half-warp measures before their sums are added up, with one row of the pool.
pub const MEASURE_PAIRS: u32 = 8;
/// Pairs of a list that it measures before it goes on to another's.
pub const MEASURE_TURN: u32 = 4 * MEASURE_PAIRS;
/// Threads of a block that chooses.
pub const CHOOSE_THREADS: u32 = 512;
/// Blocks of a cluster that chooses, on Hopper.
pub const CHOOSE_CLUSTER: u32 = 16;
/// In place of how many blocks choose: one, which has the problem's distances in shared memory.
pub const CHOOSE_HOLDS: u32 = 0;
/// Rows of such a problem, at most: for what every GPU has.
pub const CHOOSE_HELD_ROWS: u32 = 12 << 10;
/// Most rows that a choice is made from: more than those of `k` under 2³².
pub const MOST_TRIALS: u32 = 32;

/// Parameters of `pool_sums`: a block a group.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PoolSumsParams {
    /// The pools.
    pub pool: PoolParams,
}
impl Items for PoolSumsParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.pool.shape.batch as u64 * self.pool.groups() as u64
    }
}

/// Shared memory of `pool_sums`.
#[derive(Clone, Copy, Debug)]
pub struct PoolSumsShared {
    /// `[chunk][row]`, with one value between chunks, against bank conflicts.
    pub values: Slot<f64>,
    /// Of each chunk.
    pub sums: Slot<f64>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl PoolSumsShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        PoolSumsShared {
            values: layout.array(FAN * (FAN + 1)),
            sums: layout.array(FAN),
            bytes: layout.bytes(),
        }
    }
}

/// Parameters of `propose`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ProposeParams {
    /// The pools.
    pub pool: PoolParams,
}
impl Items for ProposeParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.pool.shape.batch as u64 * self.pool.parts() as u64
    }
}

/// Shared memory of `propose`.
#[derive(Clone, Copy, Debug)]
pub struct ProposeShared {
    /// The sum of all distances.
    pub total: Slot<f64>,
    /// Sums of warps.
    pub warps: Slot<u32>,
    /// Rows of the pool that count as drawn.
    pub found: Slot<u32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl ProposeShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        ProposeShared {
            total: layout.array(1),
            warps: layout.array(PROPOSE_THREADS / 32),
            found: layout.array(1),
            bytes: layout.bytes(),
        }
    }
}

/// Parameters of what goes through all pairs.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PairsParams {
    /// The pools.
    pub pool: PoolParams,
}
impl Items for PairsParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.pool.capacity.div_ceil(PLACE_PAIRS) as u64
    }
}

/// Shared memory of `count_pairs` and `place_pairs`.
#[derive(Clone, Copy, Debug)]
pub struct PlaceShared {
    /// Of each list.
    pub counts: Slot<u32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl PlaceShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        PlaceShared { counts: layout.array(PLACE_COLUMNS), bytes: layout.bytes() }
    }
}

/// Parameters of `pair_starts`: one block.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PairStartsParams {
    /// The pools.
    pub pool: PoolParams,
}
impl Items for PairStartsParams {
    #[inline]
    fn blocks(&self) -> u64 {
        1
    }
}

/// Shared memory of `pair_starts`.
#[derive(Clone, Copy, Debug)]
pub struct PairStartsShared {
    /// Sums of warps, twice.
    pub warps: Slot<u32>,
    /// What is before the columns at hand.
    pub before: Slot<u32>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl PairStartsShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        PairStartsShared {
            warps: layout.array(PAIR_STARTS_THREADS / 32),
            before: layout.array(1),
            bytes: layout.bytes(),
        }
    }
}

/// Parameters of `measure_pairs`: blocks that loop over all lists, [`MEASURE_TURN`] pairs of each in turn.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MeasureParams {
    /// The pools.
    pub pool: PoolParams,
}
impl Items for MeasureParams {
    #[inline]
    fn blocks(&self) -> u64 {
        (self.pool.capacity.div_ceil(MEASURE_PAIRS * MEASURE_TEAMS)) as u64
    }
}

/// Shared memory of `measure_pairs`.
#[derive(Clone, Copy, Debug)]
pub struct MeasureShared {
    /// `[half-warp][pair][lane]`, with one value between pairs, against bank conflicts.
    pub parts: Slot<f64>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl MeasureShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        MeasureShared {
            parts: layout.array(MEASURE_TEAMS * MEASURE_PAIRS * (DISTANCE_LANES + 1)),
            bytes: layout.bytes(),
        }
    }
}

/// Parameters of `choose`: a block or a cluster a problem.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ChooseParams {
    /// The pools.
    pub pool: PoolParams,
}
impl Items for ChooseParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.pool.shape.batch as u64
    }
}

/// Shared memory of `choose`.
#[derive(Clone, Copy, Debug)]
pub struct ChooseShared {
    /// What each warp of the block or the cluster has of a candidate's gain.
    pub parts: Slot<u64>,
    /// The candidates.
    pub rows: Slot<u32>,
    /// Where their lists begin and end.
    pub begins: Slot<u32>,
    /// See `begins`.
    pub ends: Slot<u32>,
    /// How many were found, and the place after the last.
    pub found: Slot<u32>,
    /// Distances of all rows, where they are held.
    pub nearest: Slot<f64>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl ChooseShared {
    /// The layout, with room for the distances of so many rows.
    #[inline]
    pub const fn new(rows: u32) -> Self {
        let mut layout = Layout::new();
        ChooseShared {
            parts: layout.array(CHOOSE_THREADS / 32 * CHOOSE_CLUSTER),
            rows: layout.array(MOST_TRIALS),
            begins: layout.array(MOST_TRIALS),
            ends: layout.array(MOST_TRIALS),
            found: layout.array(2),
            nearest: layout.array(rows),
            bytes: layout.bytes(),
        }
    }
}
const _: () = assert!(ChooseShared::new(CHOOSE_HELD_ROWS).bytes <= 99 << 10);

/// Parameters of what lists pairs, on Hopper.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ListHopperParams {
    /// The products.
    pub products: HopperParams,
    /// Room for pairs.
    pub capacity: u32,
}
impl Items for ListHopperParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.products.blocks()
    }
}

/// Parameters of what lists pairs, on any GPU.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ListMmaParams {
    /// The products.
    pub products: MmaParams,
    /// Room for pairs.
    pub capacity: u32,
}
impl Items for ListMmaParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.products.blocks()
    }
}

/// Shared memory of `lower_to_labels`.
#[derive(Clone, Copy, Debug)]
pub struct LabelledShared {
    /// `[half-warp][row][lane]`, with one value between rows, against bank conflicts.
    pub parts: Slot<f64>,
    /// `[chunk][row]`.
    pub distances: Slot<f64>,
    /// Bytes of it all.
    pub bytes: u32,
}

impl LabelledShared {
    /// The layout.
    #[inline]
    pub const fn new() -> Self {
        let mut layout = Layout::new();
        LabelledShared {
            parts: layout.array(LOWER_TEAMS * DISTANCE_LANES * (DISTANCE_LANES + 1)),
            distances: layout.array(LOWER_CHUNKS * LOWER_CHUNK_PITCH),
            bytes: layout.bytes(),
        }
    }
}

/// Parameters of `lower_to` and `lower_to_labels`: one block for each [`LOWER_CHUNKS`] chunks of the one problem.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LowerToParams {
    /// The problem.
    pub shape: Shape,
    /// Candidates.
    pub candidates: u32,
    /// The number of the first of them.
    pub first: u32,
}
impl Items for LowerToParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.shape.n.div_ceil(LOWER_CHUNKS * FAN) as u64
    }
}

/// Parameters of `sample`: a thread a row.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SampleParams {
    /// Where the generator stands: row `i` has the number after `i` others.
    pub counter: u64,
    /// What distances are multiplied by.
    pub share: f64,
    /// Rows.
    pub n: u32,
    /// Unused, so that the size is a multiple of 8.
    pub reserved: u32,
}
impl Items for SampleParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.n.div_ceil(UPDATE_THREADS) as u64
    }
}

/// Parameters of `count_owners`: a thread a row.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct OwnersParams {
    /// Rows.
    pub n: u32,
}
impl Items for OwnersParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.n.div_ceil(UPDATE_THREADS) as u64
    }
}

/// [`LossesParams::loss`]: `Σ (x − c)²`.
pub const LOSS_EUCLIDEAN: u32 = 0;
/// [`LossesParams::loss`]: `½ Σ (x/‖x‖ − c)²`, which of a `c` of length 1 is `1 − cos`; 1 for a row of zeros.
pub const LOSS_COSINE: u32 = 1;
/// [`LossesParams::loss`]: `−Σ x·c`.
pub const LOSS_PRODUCT: u32 = 2;

/// Parameters of `losses`: one block for each entry.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LossesParams {
    /// The problems.
    pub shape: Shape,
    /// Rows of an entry.
    pub rows: u32,
    /// Entries of a problem, of which the last may have no rows.
    pub entries: u32,
    /// What a point adds: [`LOSS_EUCLIDEAN`], [`LOSS_COSINE`] or [`LOSS_PRODUCT`].
    pub loss: u32,
}
impl Items for LossesParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.shape.batch as u64 * self.entries as u64
    }
}

/// Parameters of `masses`: one warp a row.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MassesParams {
    /// The problems.
    pub shape: Shape,
    /// Whether weights are divided by the points' lengths.
    pub by_length: u32,
}
impl Items for MassesParams {
    #[inline]
    fn blocks(&self) -> u64 {
        (self.shape.batch as u64 * self.shape.n as u64).div_ceil(UPDATE_WARPS as u64)
    }
}

/// Parameters of `move_centroids`: one warp a centroid.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MoveParams {
    /// The problems.
    pub shape: Shape,
    /// Whether points have masses.
    pub has_masses: u32,
    /// Whether centroids are to have length 1.
    pub is_spherical: u32,
}
impl MoveParams {
    /// Values of a row of means, and of partial sums: those of the features, and with masses their own.
    #[inline]
    pub const fn width(&self) -> u32 {
        self.shape.d + self.has_masses
    }
    /// Centroids of all problems.
    #[inline]
    pub const fn centroids(&self) -> u64 {
        self.shape.batch as u64 * self.shape.k as u64
    }
}
impl Items for MoveParams {
    #[inline]
    fn blocks(&self) -> u64 {
        self.centroids().div_ceil(UPDATE_WARPS as u64)
    }
}

/// A layout has no values of its own to begin with: the one that is made is the default.
macro_rules! default_is_new {
    ($($Layout:ident),* $(,)?) => {
        $(impl Default for $Layout {
            #[inline]
            fn default() -> Self {
                Self::new()
            }
        })*
    };
}

default_is_new! {
    AssignShared,
    WideShared,
    PackShared,
    OrderShared,
    SettleShared,
    HistogramShared,
    ScatterShared,
    WholeCountShared,
    WholeStartsShared,
    WholePlaceShared,
    FinaliseShared,
    ConvergeShared,
    FinishShared,
    InertiaShared,
    LowerToShared,
    LabelledShared,
    PoolSumsShared,
    ProposeShared,
    PlaceShared,
    PairStartsShared,
    MeasureShared,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_every_point_once() {
        for (n, k) in [(1, 1), (4096, 7), (1 << 20, 4096), ((1 << 20) + 1, 4096), (33_554_432, 65_536)] {
            let panels = Panels::of(n, k);
            assert!(panels.len <= n && (panels.count as u64) * panels.len as u64 >= n as u64);
            assert!((panels.count as u64 - 1) * (panels.len as u64) < n as u64);
        }
    }

    #[test]
    fn units_cover_every_tile_once_and_end_together() {
        for items in (0..300).chain([4096, 9472]) {
            for tiles in [1, 2, 3, 4, 7, 8, 16, 17, 63, 64, 512] {
                for teams in [1, 2, 7, 66, 132] {
                    let Units { whole, spans, tiles: of_span } = Units::new(items, tiles, teams);
                    let further = items - whole;
                    assert!(whole <= items && (spans == 1) == (further == 0 || whole == items));
                    assert_eq!(Units { whole, spans, tiles: of_span }.count(items), whole + further * spans);
                    // Every team has one span at most, and those cover the tiles.
                    assert!(further * spans <= teams && (further == 0 || whole % teams == 0));
                    assert!(further == 0 || (of_span % 2 == 0 && (spans - 1) * of_span < tiles));
                    assert!(spans * of_span >= tiles);
                    // Where a half would do, no team has more.
                    let is_split = items % teams > 0 && items % teams <= teams / 2 && tiles >= 4;
                    assert_eq!(is_split, further > 0, "{items} items, {tiles} tiles, {teams} teams");
                    assert!(!is_split || of_span <= tiles.div_ceil(2).next_multiple_of(2));
                }
            }
        }
    }

    #[test]
    fn passes_of_the_sort_cover_the_bits_of_k() {
        for (k, passes) in [(1, 1), (2, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 3), (u32::MAX, 4)] {
            assert_eq!(SortParams::passes(k), passes, "k = {k}");
        }
    }

    #[test]
    fn lanes_cover_every_feature() {
        let shape = |d, values| Shape::new(1, 1, 1, d, 16 / values);
        for d in [1, 3, 16, 64, 100, 128, 129, 256, 768, 1030] {
            for values in [4, 8] {
                let p = SumsParams::new(shape(d, values), Panels::of(1, 1), values);
                assert!(p.lanes_per_row.is_power_of_two() && p.lanes_per_row <= 32);
                assert!(p.chunks * p.lanes_per_row * values >= d);
                assert!(p.chunks == 1 || p.lanes_per_row == 32);
            }
        }
    }
}
