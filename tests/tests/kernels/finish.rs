//! The end of an iteration in one launch, beside the three that it stands for.
use crate::data::*;
use crate::device::*;
use crate::{config, shape};
use cuda_std::float::{BF16, F16};
use kernels_gpu::kernels::*;
use kernels_gpu::spec::*;
use proptest::prelude::*;

/// What packing leaves.
struct Tiles {
    packed: Memory<u16>,
    plain: Memory<u16>,
    biases: Memory<f32>,
    norms: Memory<f32>,
    residuals: Memory<f32>,
    largest: Memory<u32>,
    counts: Memory<u32>,
}

impl Tiles {
    fn new(params: PackParams) -> Self {
        let shape = params.shape;
        let (tiles, k) = (params.all_tiles() as usize, (shape.batch * shape.k) as usize);
        let values = hopper_panels(shape.d) as usize * HOPPER_PANEL_BYTES as usize / size_of::<u16>();
        Tiles {
            packed: Memory::poison(tiles * values),
            plain: Memory::poison(k * hopper_row(shape.d) as usize),
            biases: Memory::poison(tiles * HOPPER_BIASES as usize),
            norms: Memory::poison(k),
            residuals: Memory::poison(k),
            largest: Memory::of(&vec![0; 4 * shape.batch as usize]),
            counts: Memory::of(&[3, 4, 5]),
        }
    }

    fn pack<T: Point>(&self, arrays: &Arrays<T>, frame: &[Memory<u32>; 2], params: PackParams) {
        let [centre, extents] = frame;
        Way::PLAIN.launch(PackCentroids::<T> {
            centroids: arrays.rounded.at(),
            centre: centre.at().cast_const().cast(),
            extents: extents.at(),
            order: std::ptr::null(),
            states: arrays.states.at(),
            packed: self.packed.at(),
            plain: self.plain.at(),
            biases: self.biases.at(),
            norms: self.norms.at(),
            residuals: self.residuals.at(),
            largest: self.largest.at(),
            list_counts: self.counts.at(),
            params,
        });
    }
}

/// Assigns, sums, and ends the iteration both ways.
fn check<T: Point>(size: [u32; 4], panel_len: u32, data: Data, spread: Labels, seed: u64, way: Way) {
    let [batch, n, k, d] = size;
    let shape = shape::<T>(batch, n, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<T>(shape, random);
    let done = done(batch, random);
    let arrays = Arrays::<T>::new(shape, panel_len, &points, &centroids, &done);
    let labels: Vec<u32> = (0..batch).flat_map(|_| spread.draw(n as usize, k, random)).collect();
    arrays.assign(way);
    arrays.labels.set(&labels);
    arrays.sum_panels(way);
    let thresholds: Vec<f64> = (0..batch).map(|_| [0.0, f64::INFINITY][random.below(2)]).collect();
    arrays.thresholds.set(&thresholds);

    // What f32 points are rounded about, and how far they reach.
    let centre: Vec<u32> = (0..batch * d).map(|_| random.unit().to_bits()).collect();
    let extents: Vec<u32> = (0..batch).map(|_| (1.0 + 100.0 * random.unit().abs()).to_bits()).collect();
    let frame = [Memory::of(&centre), Memory::of(&extents)];
    let slot = random.below(2) as u32;
    let packing = PackParams { shape, slot };
    let before = (arrays.centroids.get(), arrays.rounded.get(), arrays.states.get());

    let means = FinaliseParams::new(shape, arrays.panels, 1);
    let tiles = AssignParams { shape }.tiles();
    let converge = ConvergeParams { shape, tiles, moves: k, window: 1 };
    let multiprocessors = [1, 4, 1000][random.below(3)];
    let mut params = FinishParams::new(arrays.panels, converge, multiprocessors).expect("few points");
    params.slot = slot;
    params.rows_of_warp = [1, 8, 32][random.below(3)];
    // First what a run packs before its iterations, into the slot that those read.
    let expected = Tiles::new(packing);
    expected.pack(&arrays, &frame, packing);
    arrays.finalise_by(means, way);
    arrays.converge(way);
    let states = arrays.states.get();
    // As the problems stood before: one that has stopped now has its centroids packed once more.
    arrays.states.set(&before.2);
    expected.largest.set(&vec![0; 4 * batch as usize]);
    expected.pack(&arrays, &frame, packing);
    arrays.states.set(&states);
    let by_three = all(&arrays, &expected);

    arrays.centroids.set(&before.0);
    arrays.rounded.set(&before.1);
    arrays.states.set(&before.2);
    let found = Tiles::new(packing);
    found.pack(&arrays, &frame, packing);
    found.counts.set(&[3, 4, 5]);
    let counters = Memory::of(&vec![0u32; batch as usize]);
    way.launch(Finish::<T> {
        origin: arrays.points.at(),
        sums: arrays.sums.at(),
        heads: arrays.heads.at(),
        starts: arrays.starts.at(),
        centre: frame[0].at().cast_const().cast(),
        extents: frame[1].at(),
        tile_cost: arrays.tile_cost.at(),
        tile_changed: arrays.tile_changed.at(),
        thresholds: arrays.thresholds.at(),
        states: arrays.states.at(),
        centroids: arrays.centroids.at(),
        rounded: arrays.rounded.at(),
        moves: arrays.moves.at(),
        packed: found.packed.at(),
        biases: found.biases.at(),
        norms: found.norms.at(),
        residuals: found.residuals.at(),
        largest: found.largest.at().cast(),
        list_counts: found.counts.at(),
        records: arrays.records.at(),
        counters: counters.at(),
        params,
    });
    assert!(all(&arrays, &found) == by_three, "centroids, moves, states, records or what is packed");
    assert_eq!(counters.get(), vec![0; batch as usize]);
    assert_eq!(found.counts.get(), [0; LIST_COUNTS as usize]);
}

/// What both ways have the bits of.
fn all<T: Point>(arrays: &Arrays<T>, tiles: &Tiles) -> Vec<Vec<u8>> {
    let mut bytes = arrays.bytes();
    bytes.extend([tiles.packed.bytes(), tiles.biases.bytes(), tiles.largest.bytes()]);
    bytes.extend([tiles.norms.bytes(), tiles.residuals.bytes()]);
    bytes
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn one_launch_ends_an_iteration_as_three_do(
        t in 0..3,
        batch in 1u32..4,
        n in prop_oneof![1u32..100, 100u32..800],
        k in prop::sample::select(vec![1u32, 2, 3, 7, 37, 128, 130, 300, 512]),
        d in prop::sample::select(vec![1u32, 2, 3, 4, 7, 8, 9, 31, 32, 33, 64, 65, 100, 128]),
        panel in 0u32..5, data in data(&Data::SUMMABLE),
        spread in prop::sample::select(Labels::ALL.to_vec()), seed: u64, way in way(),
    ) {
        let panel_len = [n, n.div_ceil(2), n.div_ceil(5), 128.min(n), n.div_ceil(FINISH_PANELS)][panel as usize];
        let panel_len = panel_len.min(BLOCK_PANEL_POINTS);
        for_type!(t, check([batch, n, k, d], panel_len, data, spread, seed, way));
    }
}
