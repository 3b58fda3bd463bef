//! Labels and partial sums in one launch, beside the nearest centroids in float64 and the launch that sums alone.
use crate::data::*;
use crate::device::*;
use crate::{Packed, Products, ProductsFound, config};
use cuda_std::float::{BF16, F16};
use kernels_gpu::kernels::*;
use kernels_gpu::spec::*;
use proptest::prelude::*;
use std::marker::PhantomData;

/// Labels, their statistics, sums, and where clusters begin.
fn check<T: Point, const WAY: u32>(size: [u32; 4], panel_len: u32, data: Data, seed: u64, way: Way)
where
    Sweep<Swept<T, WAY>>: Kernel,
{
    let random = &mut Random(seed);
    let problems = Products::<T>::new(size, data, random);
    let all = Packed::new(&problems, std::ptr::null());
    let Products { shape, points, centroids, done, before, slot, .. } = &problems;
    let found = Arrays::<T>::new(*shape, panel_len, points, centroids, done);
    found.labels.set(before);
    let entries = (shape.batch * shape.statistics()) as usize;
    let (cost, changed) = (Memory::<f64>::poison(entries), Memory::<u32>::poison(entries));
    // A block has one panel.
    let way = Way { grid: if way.grid == Grid::More { Grid::More } else { Grid::Equal }, ..way };
    way.launch(Sweep::<Swept<T, WAY>> {
        points: found.points.at().cast(),
        centroids: found.rounded.at().cast(),
        packed: all.packed.at(),
        biases: all.biases.at(),
        norms: all.norms.at(),
        largest: all.largest.at().cast(),
        states: found.states.at(),
        labels: found.labels.at(),
        cost: cost.at(),
        changed: changed.at(),
        starts: found.starts.at(),
        sums: found.sums.at(),
        heads: found.heads.at(),
        params: SweepParams { shape: *shape, panels: found.panels, slot: *slot },
        operand: PhantomData,
    });
    let labels = found.labels.get();
    problems.check(&ProductsFound {
        labels: labels.clone(),
        cost,
        changed,
        entries,
        two: vec![],
        many: vec![],
    });

    let expected = Arrays::<T>::new(*shape, panel_len, points, centroids, done);
    expected.labels.set(&labels);
    expected.sum_panels(Way::PLAIN);
    assert_eq!(found.starts.get(), expected.starts.get());
    // Of sums that overflow, which NaN comes is open.
    if Data::SUMMABLE.contains(&data) {
        assert!(found.sums.bytes() == expected.sums.bytes(), "sums");
        assert!(found.heads.bytes() == expected.heads.bytes(), "heads");
    }
}

/// [`check`] by the entry of number `entry`, for as many clusters and dimensions as it takes.
fn check_entry<T: Point>(entry: u32, size: [u32; 4], panel_len: u32, data: Data, seed: u64, way: Way)
where
    Sweep<Swept<T, 0>>: Kernel,
    Sweep<Swept<T, 1>>: Kernel,
{
    let [batch, n, k, d] = size;
    let of = SweepWay::ALL[entry as usize];
    let size = [batch, n, k.min(of.clusters()), d];
    match entry {
        0 => check::<T, 0>(size, panel_len, data, seed, way),
        _ => check::<T, 1>(size, panel_len, data, seed, way),
    }
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn one_launch_labels_and_sums_as_several_do(
        is_bf16: bool,
        entry in 0u32..2,
        batch in 1u32..4,
        n in prop_oneof![1u32..100, 100u32..1100],
        k in prop::sample::select(vec![1u32, 2, 3, 7, 37, 64, 65, 100, 128, 130, 192, 200, 255, 256]),
        d in prop::sample::select(vec![1u32, 2, 3, 4, 7, 8, 9, 31, 32, 33, 36, 63, 64]),
        panel in 0usize..3, data in data(&Data::ALL), seed: u64, way in way(),
    ) {
        let panel_len = [BLOCK_PANEL_POINTS, 96, 32][panel].min(n);
        if is_bf16 {
            check_entry::<BF16>(entry, [batch, n, k, d], panel_len, data, seed, way);
        } else {
            check_entry::<F16>(entry, [batch, n, k, d], panel_len, data, seed, way);
        }
    }
}
