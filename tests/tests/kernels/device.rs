//! What stands for device memory, and the launches of an iteration on it.
use cuda_std::float::{BF16, F16, Scalar};
use cuda_std::simt::{Launch, Schedule, launch};
use kernels_gpu::kernels::*;
use kernels_gpu::spec::*;
use proptest::prelude::*;
use std::cell::UnsafeCell;
use std::marker::PhantomData;

/// A type of points.
pub(crate) trait Point: PointType + Scalar + Plain + PartialEq + std::fmt::Debug {
    /// The largest value.
    const MAX: f32;
    /// The smallest value above 0.
    const TINY: f32;
    /// From 1 to the next value.
    const EPSILON: f32;
}
impl Point for f32 {
    const MAX: f32 = f32::MAX;
    const TINY: f32 = 1.4e-45;
    const EPSILON: f32 = f32::EPSILON;
}
impl Point for F16 {
    const MAX: f32 = 65_504.0;
    const TINY: f32 = 5.960_464_5e-8;
    const EPSILON: f32 = 1.0 / 1024.0;
}
impl Point for BF16 {
    const MAX: f32 = 3.389_531_4e38;
    const TINY: f32 = 9.183_55e-41;
    const EPSILON: f32 = 1.0 / 128.0;
}

/// # Safety
/// Any bits are a value.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: numbers, and structs of numbers without padding.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for f64 {}
// SAFETY: as above.
unsafe impl Plain for F16 {}
// SAFETY: as above.
unsafe impl Plain for BF16 {}
// SAFETY: as above.
unsafe impl Plain for LoopState {}
// SAFETY: as above.
unsafe impl Plain for IterationRecord {}
// SAFETY: as above.
unsafe impl Plain for PoolState {}

/// An array in device memory: aligned to 16 bytes, between guards. Bytes of 0xFF, NaN as a float, are what
/// nothing has written.
pub(crate) struct Memory<T> {
    words: Vec<UnsafeCell<u128>>,
    len: usize,
    _type: PhantomData<T>,
}

/// Words of 16 bytes on either side of an array.
const GUARD: usize = 8;

impl<T: Plain> Memory<T> {
    pub(crate) fn poison(len: usize) -> Self {
        let words = (len * size_of::<T>()).div_ceil(16) + 2 * GUARD;
        Memory { words: (0..words).map(|_| UnsafeCell::new(u128::MAX)).collect(), len, _type: PhantomData }
    }
    pub(crate) fn of(values: &[T]) -> Self {
        let memory = Self::poison(values.len());
        memory.set(values);
        memory
    }
    /// The first element.
    pub(crate) fn at(&self) -> *mut T {
        self.words.as_ptr().wrapping_add(GUARD).cast::<T>().cast_mut()
    }
    pub(crate) fn set(&self, values: &[T]) {
        assert_eq!(values.len(), self.len);
        // SAFETY: that many elements lie there, and no reference to them exists.
        unsafe { self.at().copy_from_nonoverlapping(values.as_ptr(), self.len) }
    }
    pub(crate) fn get(&self) -> Vec<T> {
        self.check_guards();
        // SAFETY: as in `set`, and any bits are a value.
        unsafe { std::slice::from_raw_parts(self.at(), self.len) }.to_vec()
    }
    /// The bytes, for comparisons to which NaN equals itself.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.check_guards();
        // SAFETY: as in `set`.
        unsafe { std::slice::from_raw_parts(self.at().cast::<u8>(), self.len * size_of::<T>()) }.to_vec()
    }
    /// Whether nothing has written element `at`.
    pub(crate) fn is_poison(&self, at: usize) -> bool {
        assert!(at < self.len);
        // SAFETY: as in `set`, and `at` is inside.
        let bytes = unsafe { std::slice::from_raw_parts(self.at().add(at).cast::<u8>(), size_of::<T>()) };
        bytes.iter().all(|&byte| byte == 0xff)
    }
    fn check_guards(&self) {
        // SAFETY: all words of the vector, as bytes.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast::<u8>(), self.words.len() * 16) };
        let (before, rest) = bytes.split_at(GUARD * 16);
        let after = &rest[self.len * size_of::<T>()..];
        assert!(before.iter().chain(after).all(|&byte| byte == 0xff), "written outside of an array");
    }
}

/// Blocks of a launch, of those that its kernel has items for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Grid {
    One,
    Fewer,
    Equal,
    More,
}

/// How a kernel is launched: nothing that its results may depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) schedule: Schedule,
    pub(crate) grid: Grid,
}

impl Way {
    pub(crate) const PLAIN: Way = Way { schedule: Schedule::Forward, grid: Grid::Equal };

    /// Launches `kernel` and fails the test on whatever the emulation reports.
    pub(crate) fn launch<K: Kernel>(self, kernel: K) {
        let blocks = u32::try_from(kernel.blocks()).unwrap();
        let grid = match self.grid {
            Grid::One => 1,
            Grid::Fewer => (blocks * 2 / 3).max(1),
            Grid::Equal => blocks,
            Grid::More => blocks + 3,
        };
        let spec = K::SPEC;
        let config = Launch {
            grid: grid.next_multiple_of(spec.cluster),
            block: spec.threads,
            shared_bytes: spec.shared_bytes,
            cluster: spec.cluster,
            together: false,
            schedule: self.schedule,
        };
        // SAFETY: every array has the length that the launcher of the library gives it.
        launch(config, || unsafe { kernel.run() })
            .unwrap_or_else(|error| panic!("{} on {grid} blocks: {error}", spec.name));
    }
}

pub(crate) fn way() -> impl Strategy<Value = Way> {
    let schedule = prop_oneof![
        Just(Schedule::Forward),
        Just(Schedule::Reverse),
        any::<u64>().prop_map(Schedule::Seeded)
    ];
    let grid = prop::sample::select(vec![Grid::One, Grid::Fewer, Grid::Equal, Grid::More]);
    (schedule, grid).prop_map(|(schedule, grid)| Way { schedule, grid })
}

/// The arrays of an iteration, of which only points, centroids and states have values at first.
pub(crate) struct Arrays<T> {
    pub(crate) shape: Shape,
    pub(crate) panels: Panels,
    pub(crate) points: Memory<T>,
    pub(crate) labels: Memory<u32>,
    pub(crate) centroids: Memory<f32>,
    pub(crate) rounded: Memory<T>,
    pub(crate) states: Memory<LoopState>,
    pub(crate) tile_cost: Memory<f64>,
    pub(crate) tile_changed: Memory<u32>,
    pub(crate) orders: [Memory<u32>; 2],
    pub(crate) histogram: Memory<u32>,
    pub(crate) totals: Memory<u32>,
    pub(crate) starts: Memory<u32>,
    pub(crate) sums: Memory<f32>,
    pub(crate) heads: Memory<f32>,
    pub(crate) moves: Memory<f64>,
    pub(crate) thresholds: Memory<f64>,
    pub(crate) records: Memory<IterationRecord>,
}

impl<T: Point> Arrays<T> {
    /// `panel_len` is the length of panels; `done` are the problems that have stopped already.
    pub(crate) fn new(shape: Shape, panel_len: u32, points: &[T], centroids: &[f32], done: &[bool]) -> Self {
        let panels = Panels { count: shape.n.div_ceil(panel_len), len: panel_len };
        let [batch, n, k] = [shape.batch, shape.n, shape.k].map(|v| v as usize);
        let groups = batch * panels.count as usize;
        let pitch = sums_pitch(shape.d) as usize;
        let tiles = AssignParams { shape }.blocks() as usize;
        let rounded: Vec<T> = centroids.iter().map(|&c| T::from_f32(c)).collect();
        let states: Vec<_> =
            done.iter().map(|&done| LoopState { done: done.into(), ..LoopState::default() }).collect();
        Arrays {
            shape,
            panels,
            points: Memory::of(points),
            labels: Memory::poison(batch * n),
            centroids: Memory::of(centroids),
            rounded: Memory::of(&rounded),
            states: Memory::of(&states),
            tile_cost: Memory::poison(tiles),
            tile_changed: Memory::poison(tiles),
            orders: [Memory::poison(batch * n), Memory::poison(batch * n)],
            histogram: Memory::poison(groups * SORT_DIGITS as usize * panels.tiles() as usize),
            totals: Memory::poison(groups * SORT_DIGITS as usize),
            starts: Memory::poison(groups * (k + 1)),
            sums: Memory::poison(groups * k * pitch),
            heads: Memory::poison(groups * panels.stretches() as usize * pitch),
            moves: Memory::poison(FinaliseParams::new(shape, panels, 1).items() as usize),
            thresholds: Memory::poison(batch),
            records: Memory::poison(batch),
        }
    }

    pub(crate) fn assign(&self, way: Way) {
        way.launch(Assign::<T> {
            points: self.points.at(),
            centroids: self.rounded.at(),
            states: self.states.at(),
            labels: self.labels.at(),
            tile_cost: self.tile_cost.at(),
            tile_changed: self.tile_changed.at(),
            params: AssignParams { shape: self.shape },
        });
    }

    /// Sorts, and returns where the sorted rows are.
    pub(crate) fn sort(&self, way: Way) -> &Memory<u32> {
        let (shape, panels) = (self.shape, self.panels);
        let (labels, states) = (self.labels.at(), self.states.at());
        let (histogram, totals) = (self.histogram.at(), self.totals.at());
        let [mut order, mut sorted] = [&self.orders[0], &self.orders[1]];
        for pass in 0..SortParams::passes(shape.k) {
            let params = SortParams { shape, panels, pass };
            way.launch(SortHistogram { labels, order: order.at(), states, histogram, params });
            let scan = ScanParams { groups: shape.batch * panels.count, tiles: panels.tiles() };
            way.launch(SortScan { histogram, totals, params: scan });
            way.launch(SortScatter {
                labels,
                order: order.at(),
                histogram,
                totals,
                states,
                sorted: sorted.at(),
                params,
            });
            (order, sorted) = (sorted, order);
        }
        let params = StartsParams { shape, panels };
        way.launch(SegmentStarts { labels, sorted: order.at(), states, starts: self.starts.at(), params });
        order
    }

    /// [`Self::sort`] by whole labels.
    pub(crate) fn sort_whole(&self, way: Way) -> &Memory<u32> {
        let params = WholeParams { shape: self.shape, panels: self.panels };
        let (labels, states, starts) = (self.labels.at(), self.states.at(), self.starts.at());
        let histogram = Memory::<u32>::poison(params.blocks() as usize * self.shape.k as usize);
        way.launch(WholeCount { labels, states, histogram: histogram.at(), params });
        way.launch(WholeStarts { histogram: histogram.at(), states, starts, params });
        let sorted = &self.orders[0];
        way.launch(WholePlace {
            labels,
            histogram: histogram.at(),
            starts,
            states,
            sorted: sorted.at(),
            params,
        });
        sorted
    }

    /// Sort and sums in one launch.
    pub(crate) fn sum_panels(&self, way: Way) {
        let params = PanelSumsParams { shape: self.shape, panels: self.panels };
        macro_rules! launch {
            ($kernel:ident) => {
                way.launch($kernel::<T> {
                    points: self.points.at(),
                    origin: self.points.at(),
                    labels: self.labels.at(),
                    states: self.states.at(),
                    starts: self.starts.at(),
                    sums: self.sums.at(),
                    heads: self.heads.at(),
                    params,
                })
            };
        }
        match params.rows(size_of::<T>() as u32, u32::MAX, 4) {
            PanelRows::Narrow => launch!(PanelSumsNarrow),
            PanelRows::Held => launch!(PanelSumsHeld),
            PanelRows::Any => launch!(PanelSums),
        }
    }

    pub(crate) fn sum(&self, sorted: &Memory<u32>, way: Way) {
        way.launch(SegmentSums::<T> {
            points: self.points.at(),
            origin: self.points.at(),
            labels: self.labels.at(),
            sorted: sorted.at(),
            starts: self.starts.at(),
            states: self.states.at(),
            sums: self.sums.at(),
            heads: self.heads.at(),
            params: SumsParams::new(self.shape, self.panels, T::PER_VECTOR as u32),
        });
    }

    /// Adds up heads in advance, after [`Self::sum`].
    pub(crate) fn fold(&self, sorted: &Memory<u32>, way: Way) {
        let params = FoldParams { shape: self.shape, panels: self.panels, pitch: sums_pitch(self.shape.d) };
        if params.items() > 0 {
            way.launch(FoldHeads {
                labels: self.labels.at(),
                sorted: sorted.at(),
                starts: self.starts.at(),
                states: self.states.at(),
                heads: self.heads.at(),
                params,
            });
        }
    }

    pub(crate) fn finalise_by(&self, params: FinaliseParams, way: Way) {
        way.launch(Finalise::<T> {
            origin: self.points.at(),
            sums: self.sums.at(),
            heads: self.heads.at(),
            starts: self.starts.at(),
            states: self.states.at(),
            centroids: self.centroids.at(),
            rounded: self.rounded.at(),
            moves: self.moves.at(),
            params,
        });
    }

    pub(crate) fn converge(&self, way: Way) {
        let tiles = AssignParams { shape: self.shape }.tiles();
        let moves = self.shape.k * FinaliseParams::new(self.shape, self.panels, 1).chunks();
        let params = ConvergeParams { shape: self.shape, tiles, moves, window: 1 };
        let partial = Memory::<IterationRecord>::poison(params.blocks() as usize);
        let counters = Memory::of(&vec![0u32; self.shape.batch as usize]);
        way.launch(Converge {
            moves: self.moves.at(),
            tile_cost: self.tile_cost.at(),
            tile_changed: self.tile_changed.at(),
            thresholds: self.thresholds.at(),
            states: self.states.at(),
            records: self.records.at(),
            partial: partial.at(),
            counters: counters.at(),
            params,
        });
    }

    pub(crate) fn iteration(&self, way: Way) {
        self.assign(way);
        let sorted = self.sort(way);
        self.sum(sorted, way);
        self.fold(sorted, way);
        self.finalise_by(
            FinaliseParams { is_folded: 1, ..FinaliseParams::new(self.shape, self.panels, 1) },
            way,
        );
        self.converge(way);
    }

    /// All that an iteration leaves behind.
    pub(crate) fn bytes(&self) -> Vec<Vec<u8>> {
        vec![
            self.labels.bytes(),
            self.centroids.bytes(),
            self.rounded.bytes(),
            self.states.bytes(),
            self.tile_cost.bytes(),
            self.tile_changed.bytes(),
            self.orders[0].bytes(),
            self.orders[1].bytes(),
            self.starts.bytes(),
            self.sums.bytes(),
            self.heads.bytes(),
            self.moves.bytes(),
            self.records.bytes(),
        ]
    }
}
