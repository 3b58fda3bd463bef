//! What puts together what several units have found of a point: as one that went through all centroids, or more careful.
use crate::data::*;
use crate::device::*;
use crate::{config, labels_before};
use cuda_std::float::F16;
use kernels_gpu::kernels::*;
use kernels_gpu::spec::*;
use proptest::prelude::*;
use std::marker::PhantomData;
use std::ptr::null;

/// Scores of points in all columns, with many that are equal or nearly, and how far apart two have to be.
struct Scores {
    k: usize,
    scores: Vec<f32>,
    bounds: Vec<f32>,
}

impl Scores {
    fn new(points: usize, k: u32, random: &mut Random) -> Self {
        let k = k as usize;
        let scores = (0..points * k).map(|_| random.below(5 * k) as f32 * 0.5 - 9.0).collect();
        let bounds = (0..points).map(|_| [0.0, 0.5, 3.0][random.below(3)]).collect();
        Scores { k, scores, bounds }
    }

    /// The best score in some columns, and the columns within the bound of it.
    fn candidates(&self, point: usize, columns: std::ops::Range<usize>) -> (f32, Vec<u32>) {
        let of = |column: usize| self.scores[point * self.k + column];
        let best = columns.clone().map(of).fold(f32::NEG_INFINITY, f32::max);
        let near = |&column: &usize| of(column) >= best - self.bounds[point];
        (best, columns.filter(near).map(|column| column as u32).collect())
    }

    /// What units find of the points of items; those past the end are the last again.
    fn found(&self, params: HopperParams) -> Vec<u32> {
        let (units, n, tiles) = (params.units, params.shape.n as usize, params.tiles as usize);
        let mut found = Vec::new();
        for item in units.whole as usize..params.items() as usize {
            for span in 0..units.spans as usize {
                let tile = units.tiles as usize * HOPPER_CENTROIDS as usize;
                let columns = span * tile..((span + 1) * tile).min(self.k);
                assert!(!columns.is_empty());
                // A unit's place has room for the points of the largest tile.
                for row in 0..WIDE_TILE_POINTS as usize {
                    if row >= params.points as usize {
                        found.extend([u32::MAX; 4]);
                        continue;
                    }
                    let of_problem = (item % tiles * params.points as usize + row).min(n - 1);
                    let point = item / tiles * n + of_problem;
                    let (best, near) = self.candidates(point, columns.clone());
                    let other = match near.len() {
                        1 => NO_CANDIDATE,
                        2 => near[1],
                        _ => MANY_CANDIDATES,
                    };
                    found.extend([best.to_bits(), near[0], other, self.bounds[point].to_bits()]);
                }
            }
        }
        found
    }

    /// Fails unless what became of a point is right: its label, or the two candidates on its list, or that there are many.
    fn check(&self, point: usize, order: &[u32], label: Option<u32>, two: Option<[u32; 2]>, many: bool) {
        let (_, near) = self.candidates(point, 0..self.k);
        let near: Vec<u32> = near.into_iter().map(|column| order[column as usize]).collect();
        match (label, two) {
            (Some(label), None) if !many => assert_eq!(near, [label], "point {point}"),
            (None, Some(two)) if !many => {
                assert!(near.iter().all(|label| two.contains(label)), "point {point}: {near:?}, not {two:?}");
            }
            (None, None) if many => assert!(self.bounds[point] > 0.0 || near.len() > 1, "point {point}"),
            _ => panic!("point {point} on two lists, or on none"),
        }
    }
}

/// The lists of an assignment.
struct Lists {
    counts: Memory<u32>,
    rows: Memory<u32>,
    first: Memory<u32>,
    second: Memory<u32>,
}

impl Lists {
    fn new(rows: usize) -> Self {
        let [list, first, second] = [(); 3].map(|()| Memory::<u32>::poison(rows));
        Lists { counts: Memory::of(&[0; LIST_COUNTS as usize]), rows: list, first, second }
    }

    /// The two candidates of a row, where it is listed with some.
    fn two(&self, row: usize) -> Option<[u32; 2]> {
        let (count, rows) = (self.counts.get()[LIST_TWO] as usize, self.rows.get());
        let at: Vec<usize> = (0..count).filter(|&at| rows[at] as usize == row).collect();
        assert!(at.len() < 2, "row {row} is listed twice");
        at.first().map(|&at| [self.first.get()[at], self.second.get()[at]])
    }

    /// Whether a row is one of the last `count` of a list.
    fn has(list: &Memory<u32>, count: usize, row: usize) -> bool {
        let rows = list.get();
        let count = rows[rows.len() - count..].iter().filter(|&&listed| listed as usize == row).count();
        assert!(count < 2, "row {row} is listed twice");
        count == 1
    }
}

fn check_spans([batch, n, k, teams]: [u32; 4], points: u32, seed: u64, way: Way) {
    let random = &mut Random(seed);
    let shape = Shape::new(batch, n, k, 8, 2);
    let whole = HopperParams::of_whole_items(shape, 0, 1, points);
    let units = Units::new(whole.items(), shape.centroid_tiles(), teams);
    let params = HopperParams { units, ..whole };
    let rows = (batch * n) as usize;
    let scores = Scores::new(rows, k, random);
    let found = scores.found(params);
    assert!(found.len() <= 4 * Units::most_found(teams) as usize);
    let orders: Vec<u32> = (0..batch).flat_map(|_| random.shuffled(k)).collect();
    let done = done(batch, random);
    let states: Vec<_> =
        done.iter().map(|&done| LoopState { done: done.into(), ..LoopState::default() }).collect();
    let norms: Vec<f32> = (0..rows).map(|_| random.unit() + 40.0).collect();
    let before = labels_before(shape, random);
    let (labels, lists) = (Memory::of(&before), Lists::new(rows));
    let entries = (batch * shape.statistics()) as usize;
    let (cost, changed) = (Memory::<f64>::poison(entries), Memory::<u32>::poison(entries));
    way.launch(MergeSpans {
        found: Memory::of(&found).at(),
        order: Memory::of(&orders).at(),
        norms: Memory::of(&norms).at(),
        extents: null(),
        states: Memory::of(&states).at(),
        labels: labels.at(),
        cost: cost.at(),
        changed: changed.at(),
        list_counts: lists.counts.at(),
        list_rows: lists.rows.at(),
        list_first: lists.first.at(),
        list_second: lists.second.at(),
        params,
    });

    let (labels, many) = (labels.get(), lists.counts.get()[LIST_MANY] as usize);
    for entry in 0..entries {
        let (problem, entry_of_problem) =
            (entry / shape.statistics() as usize, entry % shape.statistics() as usize);
        let first = entry_of_problem * STATISTICS_POINTS as usize;
        let rows = first..(first + STATISTICS_POINTS as usize).min(n as usize);
        let item = problem * params.tiles as usize + first / points as usize;
        if item < units.whole as usize || done[problem] {
            assert!(cost.is_poison(entry) && changed.is_poison(entry), "item {item}");
            rows.for_each(|row| {
                assert_eq!(labels[problem * n as usize + row], before[problem * n as usize + row]);
            });
            continue;
        }
        let (mut expected_cost, mut expected_changed) = (0.0, 0);
        for row in rows {
            let point = problem * n as usize + row;
            let (two, many) = (lists.two(point), Lists::has(&lists.rows, many, point));
            let label = (two.is_none() && !many).then_some(labels[point]);
            scores.check(point, &orders[problem * k as usize..][..k as usize], label, two, many);
            let (best, _) = scores.candidates(point, 0..k as usize);
            expected_cost += f64::from(norms[point] - 2.0 * best);
            expected_changed += u32::from(label.is_some_and(|label| label != before[point]));
            if label.is_none() {
                assert_eq!(labels[point], before[point], "point {point} is not decided");
            }
        }
        assert_near(cost.get()[entry], expected_cost, 1e-9 * expected_cost.abs(), "cost");
        assert_eq!(changed.get()[entry], expected_changed);
    }
}

fn check_again<C: HopperOperand>([unsure, k, teams]: [u32; 3], seed: u64, way: Way)
where
    MergeAgain<C>: Kernel,
{
    let random = &mut Random(seed);
    let shape = Shape::new(1, 700, k, 8, 2);
    let params = RefineParams { shape, slot: 0, least: 2, capacity: 600, teams };
    let products = params.products(unsure, C::REFINES);
    let (count, rows) = (products.shape.n as usize, shape.n as usize);
    let scores = Scores::new(count, k, random);
    let found = scores.found(products);
    let order = random.shuffled(k);
    let unsure_rows = random.shuffled(shape.n)[..count.max(1)].to_vec();
    let before = labels_before(shape, random);
    let (labels, lists, many_rows) = (Memory::of(&before), Lists::new(rows), Memory::<u32>::poison(rows));
    lists.counts.set(&[0, unsure, 0]);
    let entries = shape.statistics() as usize;
    let (changed, done) = (Memory::of(&vec![0u32; entries]), random.below(4) == 0);
    let [found, of_columns, unsure_rows_of] = [&found, &order, &unsure_rows].map(|values| Memory::of(values));
    let states = Memory::of(&[LoopState { done: done.into(), ..LoopState::default() }]);
    way.launch(MergeAgain::<C> {
        found: found.at(),
        order: of_columns.at(),
        rows: unsure_rows_of.at(),
        states: states.at(),
        labels: labels.at(),
        changed: changed.at(),
        list_counts: lists.counts.at(),
        list_rows: lists.rows.at(),
        list_first: lists.first.at(),
        list_second: lists.second.at(),
        many_rows: many_rows.at(),
        params,
        operand: PhantomData,
    });

    let (labels, left) = (labels.get(), lists.counts.get()[LIST_LEFT] as usize);
    let mut expected = before.clone();
    for (entry, &row) in unsure_rows.iter().enumerate().take(count) {
        let row = row as usize;
        if done || entry < (products.units.whole * WIDE_TILE_POINTS) as usize {
            continue;
        }
        let (two, many) = (lists.two(row), Lists::has(&many_rows, left, row));
        let label = (two.is_none() && !many).then_some(labels[row]);
        scores.check(entry, &order, label, two, many);
        expected[row] = label.unwrap_or(expected[row]);
    }
    assert_eq!(labels, expected);
    let differ = labels.iter().zip(&before).filter(|(a, b)| a != b).count();
    assert_eq!(changed.get().iter().sum::<u32>() as usize, differ);
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn what_units_have_found_of_a_point_is_put_together(
        batch in 1u32..4, n in 1u32..600, k in prop_oneof![1u32..1300, Just(2048)], teams in 2u32..24,
        points in prop_oneof![Just(NARROW_POINTS), Just(WIDE_TILE_POINTS)], seed: u64, way in way(),
    ) {
        check_spans([batch, n, k, teams], points, seed, way);
    }

    #[test]
    fn what_units_have_found_of_an_unsure_point_is_put_together(
        unsure in 0u32..700, k in prop_oneof![1u32..1300, Just(2048)], teams in 2u32..24, parts: bool,
        seed: u64, way in way(),
    ) {
        if parts {
            check_again::<Refined<F16, REFINE_PARTS>>([unsure, k, teams], seed, way);
        } else {
            check_again::<Refined<F16, 1>>([unsure, k, teams], seed, way);
        }
    }
}
