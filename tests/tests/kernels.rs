//! The portable kernels, each alone and all of an iteration, under the SIMT emulation against float64.
//!
//! Every launch also fails on what the emulation reports: races, uninitialised reads, divergence, overflow of
//! integers. Arrays lie between guards and are NaN until written.
#[path = "kernels/data.rs"]
mod data;
#[path = "kernels/device.rs"]
mod device;
#[path = "kernels/finish.rs"]
mod finish;
#[path = "kernels/metrics.rs"]
mod metrics;
#[path = "kernels/spans.rs"]
mod spans;
#[path = "kernels/sweep.rs"]
mod sweep;

use crate::data::*;
use crate::device::*;
use cuda_std::float::{BF16, F16, Scalar};
use cuda_std::simt::Schedule;
use kernels_gpu::kernels::*;
use kernels_gpu::spec::*;
use proptest::prelude::*;

/// One rounding in f32.
const U: f64 = 1.0 / (1 << 24) as f64;

fn shape<T>(batch: u32, n: u32, k: u32, d: u32) -> Shape {
    Shape::new(batch, n, k, d, size_of::<T>() as u32)
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() }
}

// ---- assignment ----

/// Labels that an assignment finds: of some points none.
fn labels_before(Shape { batch, n, k, .. }: Shape, random: &mut Random) -> Vec<u32> {
    let label = |_| if random.below(4) == 0 { u32::MAX } else { random.below(k as usize) as u32 };
    (0..batch * n).map(label).collect()
}

/// Labels, changes and costs of one assignment.
fn check_assign<T: Point>(size: [u32; 4], data: Data, seed: u64, way: Way) {
    let [batch, n, k, d] = size;
    let shape = shape::<T>(batch, n, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<T>(shape, random);
    let done = done(batch, random);
    let before = labels_before(shape, random);
    let arrays = Arrays::<T>::new(shape, n, &points, &centroids, &done);
    arrays.labels.set(&before);
    arrays.assign(way);

    let (labels, changed, cost) = (arrays.labels.get(), arrays.tile_changed.get(), arrays.tile_cost.get());
    let rounded = arrays.rounded.get();
    let tiles = AssignParams { shape }.tiles() as usize;
    for problem in 0..batch as usize {
        let view = View::new(&points, &rounded, shape, problem);
        for tile in 0..tiles {
            let at = problem * tiles + tile;
            let first = tile * ASSIGN_POINTS as usize;
            let rows = first..(first + ASSIGN_POINTS as usize).min(n as usize);
            if done[problem] {
                assert!(arrays.tile_cost.is_poison(at) && arrays.tile_changed.is_poison(at));
                for row in rows {
                    assert_eq!(labels[problem * n as usize + row], before[problem * n as usize + row]);
                }
                continue;
            }
            let (mut expected_cost, mut expected_changed) = (0.0, 0);
            for row in rows.clone() {
                let place = problem * n as usize + row;
                let (label, distance) = view.nearest(row);
                assert_eq!(labels[place], label, "label of row {row} of problem {problem}");
                // In f32 a distance may be infinite.
                expected_cost += f64::from(distance as f32);
                expected_changed += u32::from(before[place] != label);
            }
            assert_eq!(changed[at], expected_changed, "changes of tile {tile} of problem {problem}");
            let rows = rows.len() as f64;
            // Squares under 1e-38 lose bits, and sums near the largest value may round to infinity.
            let tolerance = f64::from(d + 4) * 2.0 * U * expected_cost + rows * f64::from(d) * 1.5e-45;
            let overflows = cost[at] == f64::INFINITY && expected_cost > f64::from(f32::MAX) * 0.99;
            if !overflows {
                assert_near(cost[at], expected_cost, tolerance, "cost");
            }
        }
    }
}

proptest! {
    #![proptest_config(config(160))]

    #[test]
    fn labels_are_the_argmin(
        t in 0..3,
        (batch, n) in (1u32..4, 1u32..150),
        k in prop::sample::select(vec![1u32, 2, 5, 63, 64, 65, 130]),
        d in prop::sample::select(vec![1u32, 3, 31, 32, 33, 100, 130]),
        data in data(&Data::ALL), seed: u64, way in way(),
    ) {
        for_type!(t, check_assign([batch, n, k, d], data, seed, way));
    }
}

#[test]
fn labels_are_the_argmin_at_every_border() {
    let mut seed = 0;
    for k in [1, 2, 63, 64, 65, 130] {
        for d in [1, 3, 31, 32, 33, 100, 130] {
            for data in Data::ALL {
                seed += 1;
                // Every kind of data meets every type, k and d, though not all at once.
                if seed % 5 == u64::from(k + d) % 5 {
                    for_type!(seed / 5 % 3, check_assign([1, 65, k, d], data, seed, Way::PLAIN));
                }
            }
        }
    }
}

/// One cluster leaves nothing to compare with, so an overflowed distance must not leave a point without a label.
#[test]
fn one_cluster_takes_points_at_any_distance() {
    for data in [Data::Large, Data::Huge] {
        check_assign::<f32>([1, 70, 1, 3], data, 1, Way::PLAIN);
        check_assign::<BF16>([1, 70, 1, 3], data, 2, Way::PLAIN);
    }
}

// ---- sort ----

/// The sort and the clusters' borders.
fn check_sort(size: [u32; 3], panel_len: u32, spread: Labels, seed: u64, way: Way) {
    let [batch, n, k] = size;
    let shape = shape::<f32>(batch, n, k, 1);
    let random = &mut Random(seed);
    let done = done(batch, random);
    let labels: Vec<u32> = (0..batch).flat_map(|_| spread.draw(n as usize, k, random)).collect();
    let points = vec![0.0f32; (batch * n * shape.pitch) as usize];
    let arrays = Arrays::<f32>::new(shape, panel_len, &points, &vec![0.0; (batch * k) as usize], &done);
    arrays.labels.set(&labels);
    check_sorted(&arrays, arrays.sort(way), &labels, &done);
    if k <= WHOLE_CLUSTERS {
        let arrays = Arrays::<f32>::new(shape, panel_len, &points, &vec![0.0; (batch * k) as usize], &done);
        arrays.labels.set(&labels);
        check_sorted(&arrays, arrays.sort_whole(way), &labels, &done);
    }
}

/// The order and the starts of every panel of problems that are not done.
fn check_sorted(arrays: &Arrays<f32>, sorted_memory: &Memory<u32>, labels: &[u32], done: &[bool]) {
    let Shape { batch, n, k, .. } = arrays.shape;
    let (sorted, starts) = (sorted_memory.get(), arrays.starts.get());
    let borders = k as usize + 1;
    for problem in 0..batch as usize {
        let labels = &labels[problem * n as usize..][..n as usize];
        for (panel, (first, len)) in panels_of(n, arrays.panels).enumerate() {
            let group = problem * arrays.panels.count as usize + panel;
            let (places, group) = (problem * n as usize + first, group * borders);
            if done[problem] {
                assert!((places..places + len).all(|at| sorted_memory.is_poison(at)));
                assert!((group..group + borders).all(|at| arrays.starts.is_poison(at)));
                continue;
            }
            let (rows, expected_starts) = sorted_panel(labels, k, first, len);
            assert!(sorted[places..places + len] == rows, "order of panel {panel} of problem {problem}");
            assert!(starts[group..group + borders] == expected_starts, "starts of panel {panel}");
        }
    }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn sorting_is_stable_in_every_panel(
        batch in 1u32..3,
        n in prop_oneof![1u32..200, 4000u32..9000],
        k in prop::sample::select(vec![1u32, 2, 3, 37, 255, 256, 257, 512, 513, 4095, 4096, 5000, 65_536, 65_537, 70_000]),
        panel in 0u32..4, spread in prop::sample::select(Labels::ALL.to_vec()), seed: u64, way in way(),
    ) {
        let panel_len = [n, n.div_ceil(2), n.div_ceil(3), 4096.min(n)][panel as usize];
        check_sort([batch, n, k], panel_len, spread, seed, way);
    }
}

#[test]
fn sorting_takes_tiles_that_are_not_full_and_labels_of_three_digits() {
    let sizes =
        [(4096, 4096), (4097, 4097), (8193, 8193), (8200, 4096), (8200, 4097), (5, 1), (33_000, 33_000)];
    for (n, panel_len) in sizes {
        for k in [1, 256, 4096, 65_537] {
            check_sort([1, n, k], panel_len, Labels::Uniform, u64::from(n + k), Way::PLAIN);
        }
    }
}

// ---- sums and means ----

/// Partial sums, means, their rounding and their moves.
fn check_update<T: Point>(size: [u32; 4], panel_len: u32, data: Data, spread: Labels, seed: u64, way: Way) {
    check_sums::<T>(size, panel_len, data, spread, seed, way, false);
    if (Panels { count: 1, len: panel_len }).fit_a_block(size[2]) {
        check_sums::<T>(size, panel_len, data, spread, seed, way, true);
    }
}

/// By `panel_sums`, or by `segment_sums` after a sort.
fn check_sums<T: Point>(
    size: [u32; 4],
    panel_len: u32,
    data: Data,
    spread: Labels,
    seed: u64,
    way: Way,
    by_blocks: bool,
) {
    let [batch, n, k, d] = size;
    let shape = shape::<T>(batch, n, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<T>(shape, random);
    let done = done(batch, random);
    let labels: Vec<u32> = (0..batch).flat_map(|_| spread.draw(n as usize, k, random)).collect();
    let arrays = Arrays::<T>::new(shape, panel_len, &points, &centroids, &done);
    arrays.labels.set(&labels);
    let panels = arrays.panels;

    // The sort is tested elsewhere: here its result is given.
    let order = Memory::<u32>::poison((batch * n) as usize);
    let (mut rows, mut starts) = (vec![], vec![]);
    for problem in 0..batch as usize {
        for (first, len) in panels_of(n, panels) {
            let (r, s) = sorted_panel(&labels[problem * n as usize..][..n as usize], k, first, len);
            rows.extend(r);
            starts.extend(s);
        }
    }
    if by_blocks {
        arrays.sum_panels(way);
        let of_panel = starts.len() / (batch * panels.count) as usize;
        for (group, starts) in starts.chunks(of_panel).enumerate() {
            let first = group * of_panel;
            if done[group / panels.count as usize] {
                assert!((first..first + of_panel).all(|at| arrays.starts.is_poison(at)));
            } else {
                assert_eq!(arrays.starts.get()[first..first + of_panel], *starts, "starts of panel {group}");
            }
        }
        arrays.starts.set(&starts);
    } else {
        order.set(&rows);
        arrays.starts.set(&starts);
        arrays.sum(&order, way);
    }
    let (sums, heads) = (arrays.sums.get(), arrays.heads.get());
    let before = (arrays.centroids.get(), arrays.rounded.get());
    let is_folded = !by_blocks && seed.is_multiple_of(2);
    if is_folded {
        arrays.fold(&order, way);
    }
    let few = FinaliseParams {
        clusters_of_warp: 1,
        warps_of_block: 1,
        rows_of_warp: 3,
        is_folded: is_folded.into(),
        ..FinaliseParams::new(shape, panels, 1)
    };
    arrays.finalise_by(few, way);
    let by_few = (arrays.centroids.bytes(), arrays.rounded.bytes(), arrays.moves.bytes());
    arrays.centroids.set(&before.0);
    arrays.rounded.set(&before.1);
    let clusters_of_warp = 32 / few.lanes_of_cluster;
    let (warps_of_block, rows_of_warp) = (UPDATE_WARPS, 128);
    arrays.finalise_by(FinaliseParams { clusters_of_warp, warps_of_block, rows_of_warp, ..few }, way);
    let by_many = (arrays.centroids.bytes(), arrays.rounded.bytes(), arrays.moves.bytes());
    assert!(by_many == by_few, "which warp adds decides nothing");

    let (n, k, d, pitch) = (n as usize, k as usize, d as usize, sums_pitch(shape.d) as usize);
    let value = |problem: usize, row: u32, feature: usize| {
        f64::from(points[(problem * n + row as usize) * shape.pitch as usize + feature].to_f32())
    };
    // Each partial sum adds at most a stretch of rows in f32; of f32 rows, what they differ by from the first.
    let error = 132.0 * U;
    let about_first = size_of::<T>() == 4;
    let (means, rounded, moves) = (arrays.centroids.get(), arrays.rounded.get(), arrays.moves.get());
    for problem in 0..batch as usize {
        let mut totals = vec![(0.0f64, 0.0f64); k * d];
        let mut counts = vec![0u32; k];
        for (panel, (first, len)) in panels_of(n as u32, panels).enumerate() {
            let group = problem * panels.count as usize + panel;
            let rows = &rows[problem * n + first..][..len];
            let starts = &starts[group * (k + 1)..][..k + 1];
            let mut sum_written = vec![false; k];
            let mut head_written = vec![false; panels.stretches() as usize];
            let mut place = 0;
            while place < len {
                let cluster = labels[problem * n + rows[place] as usize] as usize;
                let stretch = place / panels.stretch() as usize;
                let stop = (starts[cluster + 1] as usize).min((stretch + 1) * panels.stretch() as usize);
                let begins = starts[cluster] as usize == place;
                let (target, at) = if begins {
                    sum_written[cluster] = true;
                    (&sums, (group * k + cluster) * pitch)
                } else {
                    head_written[stretch] = true;
                    (&heads, (group * panels.stretches() as usize + stretch) * pitch)
                };
                counts[cluster] += (stop - place) as u32;
                for feature in 0..d {
                    let origin = if about_first { value(problem, 0, feature) } else { 0.0 };
                    let values = rows[place..stop].iter().map(|&row| value(problem, row, feature) - origin);
                    let (sum, size) = values.fold((0.0, 0.0), |(sum, size), v| (sum + v, size + f64::abs(v)));
                    if !done[problem] {
                        assert_near(target[at + feature].into(), sum, error * size, "partial sum");
                    }
                    totals[cluster * d + feature].0 += sum;
                    totals[cluster * d + feature].1 += size;
                }
                place = stop;
            }
            // What no cluster needs stays unwritten, and all of a problem that has stopped.
            for cluster in (0..k).filter(|&cluster| !sum_written[cluster] || done[problem]) {
                let at = (group * k + cluster) * pitch;
                assert!((at..at + pitch).all(|at| arrays.sums.is_poison(at)), "sum of empty {cluster}");
            }
            for stretch in (0..head_written.len()).filter(|&s| !head_written[s] || done[problem]) {
                let at = (group * head_written.len() + stretch) * pitch;
                assert!((at..at + pitch).all(|at| arrays.heads.is_poison(at)), "head of {stretch}");
            }
        }
        for cluster in 0..k {
            let mut moved = 0.0;
            for feature in 0..d {
                let at = (problem * k + cluster) * d + feature;
                let (sum, size) = totals[cluster * d + feature];
                if counts[cluster] == 0 || done[problem] {
                    assert_eq!(means[at], centroids[at], "cluster {cluster} stays");
                } else {
                    let count = f64::from(counts[cluster]);
                    let origin = if about_first { value(problem, 0, feature) } else { 0.0 };
                    let mean = origin + sum / count;
                    // The least subnormal, for a mean that has no more bits.
                    let tolerance = error * size / count + U * mean.abs() + 1.5e-45;
                    assert_near(means[at].into(), mean, tolerance, "mean");
                }
                assert_eq!(rounded[at], T::from_f32(means[at]));
                moved += (f64::from(means[at]) - f64::from(centroids[at])).powi(2);
            }
            let chunks = d.div_ceil(FINALISE_FEATURES as usize);
            let at = (problem * k + cluster) * chunks;
            if done[problem] {
                assert!((at..at + chunks).all(|at| arrays.moves.is_poison(at)));
            } else {
                assert_near(moves[at..at + chunks].iter().sum(), moved, 1e-12 * moved, "move");
            }
        }
    }
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn means_are_those_of_the_clusters(
        t in 0..3,
        batch in 1u32..4,
        n in prop_oneof![1u32..100, 100u32..800],
        k in prop::sample::select(vec![1u32, 2, 3, 7, 37, 130, 1000]),
        d in prop::sample::select(vec![1u32, 2, 3, 4, 7, 8, 9, 31, 32, 33, 100, 130, 300]),
        panel in 0u32..4, data in data(&Data::SUMMABLE),
        spread in prop::sample::select(Labels::ALL.to_vec()), seed: u64, way in way(),
    ) {
        let panel_len = [n, n.div_ceil(2), n.div_ceil(5), 128.min(n)][panel as usize];
        for_type!(t, check_update([batch, n, k, d], panel_len, data, spread, seed, way));
    }
}

/// A cluster that begins in one stretch and goes on through many, and clusters that end where one does.
#[test]
fn sums_cross_stretches() {
    for n in [127, 128, 129, 256, 257, 1500] {
        check_update::<f32>([1, n, 1, 5], n, Data::Plain, Labels::One, 1, Way::PLAIN);
        check_update::<F16>([1, n, 4, 20], n, Data::Plain, Labels::Runs, 2, Way::PLAIN);
        check_update::<BF16>([2, n, 3, 520], n.div_ceil(2), Data::Plain, Labels::Uniform, 3, Way::PLAIN);
    }
    // More panels than `finalise` looks at at a time, and more rows of a cluster than one warp adds up.
    for (k, labels) in [(1, Labels::One), (5, Labels::Uniform), (40, Labels::One)] {
        check_update::<F16>([1, 1500, k, 3], 7, Data::Plain, labels, 4, Way::PLAIN);
    }
    // Blocks of stretches of one cluster: none, one, and several between others.
    for (n, panel_len, k, labels) in
        [(1055, 1055, 1, Labels::One), (2100, 2100, 2, Labels::One), (7000, 4500, 3, Labels::Runs)]
    {
        check_update::<F16>([1, n, k, 5], panel_len, Data::Plain, labels, 6, Way::PLAIN);
        check_update::<f32>([2, n, k, 3], panel_len, Data::Plain, labels, 8, Way::PLAIN);
    }
}

// ---- convergence ----

fn check_converge(batch: u32, n: u32, k: u32, [iteration, window]: [u32; 2], seed: u64, way: Way) {
    let shape = shape::<f32>(batch, n, k, 1);
    let random = &mut Random(seed);
    let done = done(batch, random);
    let points = vec![0.0f32; (batch * n * shape.pitch) as usize];
    let arrays = Arrays::<f32>::new(shape, n, &points, &vec![0.0; (batch * k) as usize], &done);
    let tiles = AssignParams { shape }.tiles() as usize;
    let (batch, k) = (batch as usize, k as usize);

    // Half of the problems change no label, or hardly move, so that all ways to stop are met.
    let still: Vec<bool> = (0..batch).map(|_| random.below(2) == 0).collect();
    let moves: Vec<f64> = (0..batch * k).map(|_| f64::from(random.unit().abs())).collect();
    let cost: Vec<f64> = (0..batch * tiles).map(|_| f64::from(random.unit().abs())).collect();
    let changed: Vec<u32> =
        (0..batch * tiles).map(|at| if still[at / tiles] { 0 } else { random.below(3) as u32 }).collect();
    let shift: Vec<f64> = moves.chunks(k).map(|moves| moves.iter().sum()).collect();
    let thresholds: Vec<f64> = shift
        .iter()
        .map(|shift| match random.below(3) {
            0 => 0.0,
            1 => shift * 0.5,
            _ => shift * 2.0,
        })
        .collect();
    arrays.moves.set(&moves);
    arrays.tile_cost.set(&cost);
    arrays.tile_changed.set(&changed);
    arrays.thresholds.set(&thresholds);
    let states: Vec<LoopState> =
        arrays.states.get().into_iter().map(|state| LoopState { n_iter: iteration, ..state }).collect();
    arrays.states.set(&states);
    let all_records = Memory::<IterationRecord>::poison(window as usize * batch);
    let params = ConvergeParams { shape, tiles: tiles as u32, moves: k as u32, window };
    let partial = Memory::<IterationRecord>::poison(params.blocks() as usize);
    let counters = Memory::of(&vec![0u32; batch]);
    way.launch(Converge {
        moves: arrays.moves.at(),
        tile_cost: arrays.tile_cost.at(),
        tile_changed: arrays.tile_changed.at(),
        thresholds: arrays.thresholds.at(),
        states: arrays.states.at(),
        records: all_records.at(),
        partial: partial.at(),
        counters: counters.at(),
        params,
    });
    assert!(counters.get().iter().all(|&count| count == 0));

    let states = arrays.states.get();
    let first = (iteration % window) as usize * batch;
    for at in (0..window as usize * batch).filter(|at| !(first..first + batch).contains(at)) {
        assert!(all_records.is_poison(at), "only the iteration's own slot is written");
    }
    let records = &all_records.get()[first..];
    for problem in 0..batch {
        if done[problem] {
            assert_eq!(states[problem], LoopState { done: 1, n_iter: iteration, ..LoopState::default() });
            assert!(all_records.is_poison(first + problem));
            continue;
        }
        let cost: f64 = cost[problem * tiles..][..tiles].iter().sum();
        let changed: u32 = changed[problem * tiles..][..tiles].iter().sum();
        let record = records[problem];
        assert_eq!(record.changed, changed);
        assert_near(record.cost, cost, 1e-12 * cost, "cost");
        assert_near(record.shift, shift[problem], 1e-12 * shift[problem], "shift");
        let stopped = changed == 0 || shift[problem] <= thresholds[problem];
        let expected = LoopState {
            done: stopped.into(),
            n_iter: iteration + 1,
            fixed_point: (changed == 0).into(),
            reserved: 0,
        };
        assert_eq!(states[problem], expected, "problem {problem}");
    }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn problems_stop_when_they_should(
        batch in 1u32..6, n in prop_oneof![1u32..200, 20_000u32..40_000],
        k in prop_oneof![1u32..40, 250u32..700, 4090u32..20_000],
        time in [0u32..300, 1u32..9], seed: u64, way in way(),
    ) {
        check_converge(batch, n, k, time, seed, way);
    }
}

/// A shift that is equal to its threshold stops a problem: with tolerance 0, centroids that stay do.
#[test]
fn a_shift_of_nothing_stops_a_problem_whose_labels_change() {
    let arrays = Arrays::<f32>::new(shape::<f32>(1, 1, 3, 1), 1, &[0.0; 4], &[0.0; 3], &[false]);
    arrays.moves.set(&[0.0; 3]);
    arrays.tile_cost.set(&[1.0]);
    arrays.tile_changed.set(&[1]);
    arrays.thresholds.set(&[0.0]);
    arrays.converge(Way::PLAIN);
    assert_eq!(arrays.states.get(), [LoopState { done: 1, n_iter: 1, fixed_point: 0, reserved: 0 }]);
}

// ---- statistics of points ----

/// Inertia, moments and norms.
fn check_statistics<T: Point>(size: [u32; 4], data: Data, seed: u64, way: Way) {
    let [batch, n, k, d] = size;
    let shape = shape::<T>(batch, n, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<T>(shape, random);
    let labels: Vec<u32> = (0..batch * n).map(|_| random.below(k as usize) as u32).collect();
    let arrays = Arrays::<T>::new(shape, n, &points, &centroids, &vec![false; batch as usize]);
    arrays.labels.set(&labels);
    let rounded = arrays.rounded.get();
    let (batch, n, d) = (batch as usize, n as usize, d as usize);

    let params = InertiaParams::new(shape);
    let partial = Memory::poison(params.blocks() as usize);
    way.launch(Inertia::<T> {
        points: arrays.points.at(),
        centroids: arrays.rounded.at(),
        labels: arrays.labels.at(),
        partial: partial.at(),
        params,
    });
    for (at, partial) in partial.get().into_iter().enumerate() {
        let (problem, tile) = (at / params.tiles as usize, at % params.tiles as usize);
        let view = View::new(&points, &rounded, shape, problem);
        let first = tile * params.rows as usize;
        let rows = first..(first + params.rows as usize).min(n);
        let expected: f64 = rows
            .map(|row| distance(view.point(row), view.centroid(labels[problem * n + row] as usize)))
            .sum();
        assert_near(partial, expected, 1e-12 * expected, "inertia");
    }

    let params = MomentsParams::new(shape);
    let len = params.blocks() as usize * d;
    let (first, second) = (Memory::poison(len), Memory::poison(len));
    let at = arrays.points.at();
    way.launch(Moments::<T> { points: at, origin: at, first: first.at(), second: second.at(), params });
    let (first, second) = (first.get(), second.get());
    for problem in 0..batch {
        let view = View::new(&points, &rounded, shape, problem);
        for tile in 0..params.tiles as usize {
            let begin = tile * params.rows as usize;
            for feature in 0..d {
                let [mut sum, mut size, mut squares] = [0.0; 3];
                for row in begin..(begin + params.rows as usize).min(n) {
                    let value = |row: usize| f64::from(view.point(row)[feature].to_f32());
                    let about = value(row) - value(0);
                    sum += about;
                    size += about.abs();
                    squares += about * about;
                }
                let at = (problem * params.tiles as usize + tile) * d + feature;
                assert_near(first[at], sum, 1e-12 * size, "first moment");
                assert_near(second[at], squares, 1e-12 * squares, "second moment");
            }
        }
    }

    let k = k as usize;
    let rows: Vec<u32> = (0..batch * k).map(|_| random.below(n) as u32).collect();
    let (chosen, of_rows) = (Memory::poison(batch * k * d), Memory::of(&rows));
    let in_type = Memory::<T>::poison(batch * k * d);
    let gather = Gather::<T> {
        points: arrays.points.at(),
        rows: of_rows.at(),
        given: std::ptr::null(),
        centroids: chosen.at(),
        rounded: in_type.at(),
        params: GatherParams { shape },
    };
    way.launch(gather);
    for (at, &row) in rows.iter().enumerate() {
        let view = View::new(&points, &rounded, shape, at / k);
        let range = at * d..(at + 1) * d;
        let point: Vec<f32> = view.point(row as usize).iter().map(|v| v.to_f32()).collect();
        assert_eq!(chosen.get()[range.clone()], point, "centroid {at} of row {row}");
        assert!(in_type.get()[range].iter().map(|v| v.to_f32()).eq(point), "centroid {at} of row {row}");
    }
    let given: Vec<f32> = (0..batch * k * d).map(|_| random.unit()).collect();
    let of_given = Memory::of(&given);
    way.launch(Gather::<T> { rows: std::ptr::null(), given: of_given.at(), ..gather });
    assert_eq!(chosen.get(), given);
    assert!(in_type.get().iter().map(|v| v.to_f32()).eq(given.iter().map(|&v| T::from_f32(v).to_f32())));

    let norms = Memory::poison(batch * n);
    way.launch(Norms::<T> { points: arrays.points.at(), norms: norms.at(), params: NormsParams { shape } });
    for (at, norm) in norms.get().into_iter().enumerate() {
        let view = View::new(&points, &rounded, shape, at / n);
        let expected: f64 = view.point(at % n).iter().map(|v| f64::from(v.to_f32()).powi(2)).sum();
        let tolerance = (d / 32 + 8) as f64 * 2.0 * U * expected + d as f64 * 1.5e-45;
        if !(norm == f32::INFINITY && expected > f64::from(f32::MAX) * 0.99) {
            assert_near(norm.into(), expected, tolerance, "norm");
        }
    }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn statistics_are_those_of_the_points(
        t in 0..3,
        batch in 1u32..4, n in prop_oneof![1u32..50, 1000u32..1100],
        k in 1u32..9, d in prop::sample::select(vec![1u32, 3, 32, 33, 130, 257]),
        data in data(&Data::ALL), seed: u64, way in way(),
    ) {
        let n = if d > 100 { n.min(300) } else { n };
        for_type!(t, check_statistics([batch, n, k, d], data, seed, way));
    }
}

// ---- what the tensor-core assignment needs ----

/// Packed centroids, biases, the largest norm and an empty list.
fn check_pack<T: Point + TensorBits>(size: [u32; 3], data: Data, seed: u64, way: Way) {
    let [batch, k, d] = size;
    let shape = shape::<T>(batch, 1, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<T>(shape, random);
    let done = done(batch, random);
    let arrays = Arrays::<T>::new(shape, 1, &points, &centroids, &done);
    let params = PackParams { shape, slot: random.below(2) as u32 };
    let panels = hopper_panels(d) as usize;
    let tile_values = panels * HOPPER_PANEL_BYTES as usize / size_of::<u16>();
    let packed = Memory::<u16>::poison(params.all_tiles() as usize * tile_values);
    let biases = Memory::<f32>::poison((params.all_tiles() as u32 * HOPPER_BIASES) as usize);
    let largest = largest_norms(params);
    let counts = Memory::<u32>::of(&[3, 4, 5]);
    let norms = Memory::<f32>::poison((batch * k) as usize);
    let residuals = Memory::<f32>::poison((batch * k) as usize);
    let plain = Memory::<u16>::poison((batch * k * hopper_row(d)) as usize);
    // Any permutation; or none, which is their own order.
    let orders: Vec<u32> = (0..batch).flat_map(|_| random.shuffled(k)).collect();
    let order = Memory::<u32>::of(&orders);
    let own_order = random.below(3) == 0;
    way.launch(PackCentroids::<T> {
        centroids: arrays.rounded.at(),
        centre: std::ptr::null(),
        extents: std::ptr::null(),
        order: if own_order { std::ptr::null() } else { order.at() },
        states: arrays.states.at(),
        packed: packed.at(),
        plain: plain.at(),
        biases: biases.at(),
        norms: norms.at(),
        residuals: residuals.at(),
        largest: largest.at(),
        list_counts: counts.at(),
        params,
    });

    assert_eq!(counts.get(), [0; LIST_COUNTS as usize]);
    let rounded = arrays.rounded.get();
    let (packed_values, bias_values, largest) = (packed.get(), biases.get(), largest.get());
    let (norm_values, plain_values) = (norms.get(), plain.get());
    let (k, d) = (k as usize, d as usize);
    for problem in 0..batch as usize {
        let view = View::new(&points, &rounded, shape, problem);
        let mut longest = 0.0f32;
        let mut largest_biases = vec![f32::NEG_INFINITY; params.tiles() as usize];
        for place in 0..(params.tiles() * HOPPER_CENTROIDS) as usize {
            let tile_of_problem = place / HOPPER_CENTROIDS as usize;
            let tile = problem * params.tiles() as usize + tile_of_problem;
            let row = place % HOPPER_CENTROIDS as usize;
            let centroid = if place < k && !own_order { orders[problem * k + place] as usize } else { place };
            let values: Vec<T> = (0..panels * HOPPER_PANEL_FEATURES as usize)
                .map(|f| if centroid < k && f < d { view.centroid(centroid)[f] } else { T::from_f32(0.0) })
                .collect();
            for (feature, &value) in values.iter().enumerate() {
                let (panel, chunk) = (feature / 64, (feature % 64 / 8) ^ (row % 8));
                let at = tile * tile_values + panel * 128 * 64 + row * 64 + chunk * 8 + feature % 8;
                if done[problem] {
                    assert!(packed.is_poison(at));
                } else {
                    assert_eq!(packed_values[at], value.bits(), "centroid {centroid}, feature {feature}");
                }
            }
            let at = tile * HOPPER_BIASES as usize
                + row % 8 / 2 * HOPPER_BIAS_PITCH as usize
                + row / 8 * 2
                + row % 2;
            if done[problem] {
                assert!(biases.is_poison(at) && norms.is_poison(problem * k));
                continue;
            }
            largest_biases[tile_of_problem] = largest_biases[tile_of_problem].max(bias_values[at]);
            if centroid >= k {
                assert_eq!(bias_values[at], f32::NEG_INFINITY);
                continue;
            }
            let norm = values.iter().map(|v| f64::from(v.to_f32()).powi(2)).sum::<f64>();
            let tolerance = (d / 32 + 16) as f64 * U * norm + 1e-40;
            if norm < f64::from(f32::MAX) * 0.99 {
                assert_near(-2.0 * f64::from(bias_values[at]), norm, tolerance, "bias");
            } else {
                assert!(bias_values[at] < -1e38);
            }
            assert_eq!(-0.5 * norm_values[problem * k + centroid], bias_values[at]);
            let row = hopper_row(shape.d) as usize;
            let plain = &plain_values[(problem * k + centroid) * row..][..row];
            assert!(plain.iter().copied().eq(values[..row].iter().map(|v| v.bits())));
            longest = longest.max(norm.sqrt() as f32);
        }
        for (tile, &largest) in largest_biases.iter().enumerate().filter(|_| !done[problem]) {
            let places = tile * 128..k.min((tile + 1) * 128);
            let norms = places.map(|place| {
                norm_values
                    [problem * k + if own_order { place } else { orders[problem * k + place] as usize }]
            });
            let norm = norms.fold(0.0, f32::max).sqrt().max(LEAST_NORM);
            let tile = problem * params.tiles() as usize + tile;
            for quarter in 0..4 {
                let at = tile as u32 * HOPPER_BIASES + quarter * HOPPER_BIAS_PITCH + HOPPER_LARGEST;
                assert_eq!(bias_values[at as usize..][..3], [largest, norm, 0.0]);
            }
        }
        let slot = |slot: u32| &largest[problem * 4 + slot as usize * 2..][..2];
        assert_eq!(slot(1 - params.slot), [0, 0]);
        let found = f32::from_bits(slot(params.slot)[0]);
        assert_eq!(slot(params.slot)[1], 0, "nothing was rounded");
        if done[problem] {
            assert_eq!(found, 0.0);
        } else if longest < 1e19 {
            let longest = f64::from(longest.max(LEAST_NORM));
            // The square is rounded before its root is: near 1e-38 it loses bits.
            assert_near(found.into(), longest, 4.0 * U * longest + 4e-23, "norm");
        }
    }
}

/// Floors of the scores that the tensor cores would find, for labels of all kinds.
fn check_floors<T: Point + TensorBits>(size: [u32; 4], data: Data, seed: u64, way: Way) {
    let [batch, n, k, d] = size;
    let shape = shape::<T>(batch, n, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<T>(shape, random);
    let done = done(batch, random);
    let arrays = Arrays::<T>::new(shape, n, &points, &centroids, &done);
    let rounded = arrays.rounded.get();
    let labels: Vec<u32> = (0..batch * n)
        .map(|_| match random.below(6) {
            0 => u32::MAX,
            _ => random.below(k as usize) as u32,
        })
        .collect();
    arrays.labels.set(&labels);
    let row = hopper_row(d) as usize;
    let norm_of = |v: &[T]| v.iter().map(|v| f64::from(v.to_f32()).powi(2)).sum::<f64>();
    let (mut plain, mut norms, mut centroid_norms) = (vec![], vec![], vec![]);
    for problem in 0..batch as usize {
        let view = View::new(&points, &rounded, shape, problem);
        for centroid in 0..k as usize {
            let values = view.centroid(centroid);
            plain.extend((0..row).map(|f| values.get(f).map_or(0, |v| v.bits())));
            centroid_norms.push(norm_of(values) as f32);
        }
        norms.extend((0..n as usize).map(|i| norm_of(view.point(i)) as f32));
    }
    let floors = Memory::<f32>::poison((batch * n) as usize);
    way.launch(Floors {
        points: arrays.points.at().cast(),
        norms: Memory::of(&norms).at(),
        residuals: std::ptr::null(),
        labels: arrays.labels.at(),
        plain: Memory::of(&plain).at(),
        centroid_norms: Memory::of(&centroid_norms).at(),
        centroid_residuals: Memory::of(&vec![0.0f32; (batch * k) as usize]).at(),
        states: arrays.states.at(),
        floors: floors.at(),
        params: FloorsParams { shape, is_bf16: T::IS_BF16.into(), is_exact: random.below(2) as u32 },
    });
    for (at, floor) in floors.get().into_iter().enumerate() {
        let (problem, i) = (at / n as usize, at % n as usize);
        if done[problem] {
            assert!(floors.is_poison(at));
            continue;
        }
        let view = View::new(&points, &rounded, shape, problem);
        let x = view.point(i);
        let c = view.centroid(if labels[at] < k { labels[at] as usize } else { 0 });
        let product: f64 = x.iter().zip(c).map(|(x, c)| f64::from(x.to_f32()) * f64::from(c.to_f32())).sum();
        let (x_norm, c_norm) = (norm_of(x), norm_of(c));
        if x_norm.max(c_norm) < 1e37 {
            // Not above the true score, and below it by little.
            let score = product - 0.5 * c_norm;
            let room = f64::from(d + 64) * 8.0 * U * ((x_norm * c_norm).sqrt() + c_norm) + 1e-35;
            assert!(
                f64::from(floor) <= score && f64::from(floor) >= score - room,
                "{floor} for {score} - {room}"
            );
        }
    }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn floors_are_just_below_the_scores_of_old_labels(
        bf16: bool, batch in 1u32..4, n in prop_oneof![1u32..40, 250u32..300], k in 1u32..20,
        d in prop::sample::select(vec![1u32, 8, 33, 64, 100, 128, 300]),
        data in data(&Data::ALL), seed: u64, way in way(),
    ) {
        match bf16 {
            false => check_floors::<F16>([batch, n, k.min(n), d], data, seed, way),
            true => check_floors::<BF16>([batch, n, k.min(n), d], data, seed, way),
        }
    }
}

/// An order by norm, or nearly.
fn check_order(norms: &[Vec<f32>], done: &[bool], way: Way) {
    let (batch, k) = (norms.len() as u32, norms[0].len());
    let states: Vec<_> =
        done.iter().map(|&done| LoopState { done: done.into(), ..LoopState::default() }).collect();
    let states = Memory::of(&states);
    let order = Memory::<u32>::poison(batch as usize * k);
    way.launch(OrderCentroids {
        norms: Memory::<f32>::of(&norms.concat()).at(),
        states: states.at(),
        order: order.at(),
        params: OrderParams { shape: Shape::new(batch, 1, k as u32, 1, 4) },
    });
    let orders = order.get();
    for (problem, norms) in norms.iter().enumerate() {
        if done[problem] {
            assert!(order.is_poison(problem * k));
            continue;
        }
        let order = &orders[problem * k..][..k];
        let mut once = order.to_vec();
        once.sort_unstable();
        assert!(once.iter().copied().eq(0..k as u32), "not an order: {order:?}");
        // A norm may be before another by the width of a bin, of which 1024 and more cover what the norms do.
        let bits: Vec<u32> = order.iter().map(|&at| norms[at as usize].to_bits()).collect();
        let spread = bits.iter().max().unwrap() - bits.iter().min().unwrap();
        assert!(bits.is_sorted_by(|a, b| *a <= b + spread / (ORDER_BINS / 2)), "{norms:?}");
    }
}

proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn centroids_are_ordered_by_norm(
        batch in 1usize..4, k in prop_oneof![1usize..40, 500usize..600, 2040usize..2100],
        scale in prop::sample::select(vec![0.0f32, 1e-38, 1.0, 1e30]), outlier: bool, seed: u64, way in way(),
    ) {
        let random = &mut Random(seed);
        let mut norms: Vec<Vec<f32>> = (0..batch)
            .map(|_| (0..k).map(|_| (random.below(1 << 20) as f32 / 1e6 + 1.0) * scale).collect())
            .collect();
        if outlier {
            norms[0][0] = f32::INFINITY;
        }
        let done = done(batch as u32, random);
        check_order(&norms, &done, way);
    }
}

/// A 16-bit type's bits.
trait TensorBits {
    const IS_BF16: bool;
    fn bits(self) -> u16;
}
impl TensorBits for F16 {
    const IS_BF16: bool = false;
    fn bits(self) -> u16 {
        self.0
    }
}
impl TensorBits for BF16 {
    const IS_BF16: bool = true;
    fn bits(self) -> u16 {
        self.0
    }
}

/// `[problem][slot][norm, residual]`: the slot to raise is 0, the other what the assignment before left.
fn largest_norms(params: PackParams) -> Memory<u32> {
    let slots = (0..4 * params.shape.batch).map(|at| if at / 2 % 2 == params.slot { 0 } else { 77 });
    Memory::of(&slots.collect::<Vec<u32>>())
}

/// Problems that are assigned by warps' products.
struct Products<T> {
    shape: Shape,
    points: Vec<T>,
    centroids: Vec<f32>,
    done: Vec<bool>,
    before: Vec<u32>,
    arrays: Arrays<T>,
    slot: u32,
}

impl<T: Point> Products<T> {
    fn new([batch, n, k, d]: [u32; 4], data: Data, random: &mut Random) -> Self {
        let shape = shape::<T>(batch, n, k, d);
        let (points, centroids) = data.problems::<T>(shape, random);
        let done = done(batch, random);
        let before = labels_before(shape, random);
        let arrays = Arrays::<T>::new(shape, n, &points, &centroids, &done);
        Products { shape, points, centroids, done, before, arrays, slot: random.below(2) as u32 }
    }
}

/// What was found of them.
struct ProductsFound {
    labels: Vec<u32>,
    cost: Memory<f64>,
    changed: Memory<u32>,
    /// Entries of the last two for all problems.
    entries: usize,
    /// Rows with two candidates, and with more.
    two: Vec<u32>,
    many: Vec<u32>,
}

/// Points and centroids as the tensor cores take them.
struct Packed {
    packed_shape: Shape,
    points: *const u16,
    packed: Memory<u16>,
    biases: Memory<f32>,
    largest: Memory<u32>,
    counts: Memory<u32>,
    norms: Memory<f32>,
    /// Points that had to be rounded, what that took from them, and how far they reach.
    rounded: Option<Memory<u16>>,
    residuals: Memory<f32>,
    extents: Memory<u32>,
}

impl Packed {
    fn new<T: Point>(problem: &Products<T>, order: *const u32) -> Self {
        let (shape, slot) = (problem.shape, problem.slot);
        let Shape { batch, n, k, d, .. } = shape;
        let pack = PackParams { shape, slot };
        let rows = (batch * n) as usize;
        let tile_values = hopper_panels(d) as usize * HOPPER_PANEL_BYTES as usize / size_of::<u16>();
        let packed = Memory::<u16>::poison(pack.all_tiles() as usize * tile_values);
        let biases = Memory::<f32>::poison((pack.all_tiles() as u32 * HOPPER_BIASES) as usize);
        let largest = largest_norms(pack);
        let counts = Memory::<u32>::poison(LIST_COUNTS as usize);
        let centroid_norms = Memory::<f32>::poison((batch * k) as usize);
        let centroid_residuals = Memory::<f32>::poison((batch * k) as usize);
        let plain = Memory::<u16>::poison((batch * k * hopper_row(d)) as usize);
        let norms = Memory::<f32>::poison(rows);
        // f32 points are rounded about a centre, which is anywhere.
        let rounds = size_of::<T>() == 4;
        let centres: Vec<f32> = problem
            .centroids
            .chunks((k * d) as usize)
            .flat_map(|c| c[..d as usize].iter().copied())
            .collect();
        let (centre, extents) = (Memory::of(&centres), Memory::of(&vec![0u32; batch as usize]));
        let packed_shape = Shape::new(batch, n, k, d, size_of::<u16>() as u32);
        let rounded = Memory::<u16>::poison(rows * packed_shape.pitch as usize);
        let residuals = Memory::<f32>::poison(rows);
        if rounds {
            Way::PLAIN.launch(Extents {
                points: problem.arrays.points.at().cast(),
                centre: centre.at(),
                extents: extents.at(),
                params: MomentsParams::new(shape),
            });
            Way::PLAIN.launch(PackPoints {
                points: problem.arrays.points.at().cast(),
                centre: centre.at(),
                extents: extents.at(),
                packed: rounded.at(),
                norms: norms.at(),
                residuals: residuals.at(),
                params: PackPointsParams { shape, packed_pitch: packed_shape.pitch },
            });
        } else {
            let params = NormsParams { shape };
            Way::PLAIN.launch(Norms::<T> { points: problem.arrays.points.at(), norms: norms.at(), params });
        }
        Way::PLAIN.launch(PackCentroids::<T> {
            centroids: problem.arrays.rounded.at(),
            centre: if rounds { centre.at() } else { std::ptr::null() },
            extents: if rounds { extents.at() } else { std::ptr::null() },
            order,
            states: problem.arrays.states.at(),
            packed: packed.at(),
            plain: plain.at(),
            biases: biases.at(),
            norms: centroid_norms.at(),
            residuals: centroid_residuals.at(),
            largest: largest.at(),
            list_counts: counts.at(),
            params: pack,
        });
        let points = if rounds { rounded.at().cast_const() } else { problem.arrays.points.at().cast() };
        let rounded = rounds.then_some(rounded);
        Packed { packed_shape, points, packed, biases, largest, counts, norms, rounded, residuals, extents }
    }

    fn residuals(&self) -> *const f32 {
        if self.rounded.is_some() { self.residuals.at() } else { std::ptr::null() }
    }

    fn extents(&self) -> *const u32 {
        if self.rounded.is_some() { self.extents.at() } else { std::ptr::null() }
    }
}

/// The assignment by warps' products, of points that are `E` there, and what settles its list.
fn assign_by_products<T: Point, E, const STEPS: u32>(
    problem: &Products<T>,
    order: *const u32,
    is_exact: u32,
    way: Way,
) -> ProductsFound
where
    AssignMma<Tensor<E, STEPS>>: Kernel,
{
    let (shape, slot) = (problem.shape, problem.slot);
    problem.arrays.labels.set(&problem.before);
    let all = Packed::new(problem, order);
    let rows = (shape.batch * shape.n) as usize;
    let params = MmaParams { shape: all.packed_shape, slot, is_exact };
    let entries = (shape.batch * shape.statistics()) as usize;
    let (cost, changed) = (Memory::<f64>::poison(entries), Memory::<u32>::poison(entries));
    let [list_rows, list_first, list_second] = [(); 3].map(|()| Memory::<u32>::poison(rows));
    way.launch(AssignMma::<Tensor<E, STEPS>> {
        points: all.points,
        packed: all.packed.at(),
        biases: all.biases.at(),
        order,
        norms: all.norms.at(),
        residuals: all.residuals(),
        extents: all.extents(),
        largest: all.largest.at().cast(),
        states: problem.arrays.states.at(),
        labels: problem.arrays.labels.at(),
        cost: cost.at(),
        changed: changed.at(),
        list_counts: all.counts.at(),
        list_rows: list_rows.at(),
        list_first: list_first.at(),
        list_second: list_second.at(),
        params,
        operand: std::marker::PhantomData,
    });
    let [two, many] = [LIST_TWO, LIST_MANY].map(|end| all.counts.get()[end] as usize);
    assert!(two + many <= rows);
    let settle = SettleParams { shape, blocks: 2 };
    let scratch = Memory::<u32>::poison(settle.scratch() as usize);
    let counters = Memory::of(&[0u32; 2]);
    Way::PLAIN.launch(Settle::<T> {
        points: problem.arrays.points.at(),
        centroids: problem.arrays.rounded.at(),
        two: all.counts.at().wrapping_add(LIST_TWO),
        rows: list_rows.at(),
        first: list_first.at(),
        second: list_second.at(),
        many: all.counts.at().wrapping_add(LIST_MANY),
        many_rows: list_rows.at(),
        labels: problem.arrays.labels.at(),
        changed: changed.at(),
        scratch: scratch.at(),
        counters: counters.at(),
        params: settle,
    });

    let listed = list_rows.get();
    let (two, many) = (listed[..two].to_vec(), listed[rows - many..].to_vec());
    ProductsFound { labels: problem.arrays.labels.get(), cost, changed, entries, two, many }
}

/// Labels, changes and costs.
fn check_assign_mma<T: Point, E, const STEPS: u32>(size: [u32; 4], data: Data, seed: u64, way: Way)
where
    AssignMma<Tensor<E, STEPS>>: Kernel,
{
    let [batch, n, k, d] = size;
    let random = &mut Random(seed);
    let problems = Products::<T>::new(size, data, random);
    let orders: Vec<u32> = (0..batch).flat_map(|_| random.shuffled(k)).collect();
    let order = Memory::<u32>::of(&orders);
    let order = if random.below(2) == 0 { order.at().cast_const() } else { std::ptr::null() };
    let found = assign_by_products::<T, E, STEPS>(&problems, order, 1, way);
    if data == Data::Plain {
        let Products { shape, points, arrays, .. } = &problems;
        let rounded = arrays.rounded.get();
        for &row in found.two.iter().chain(&found.many) {
            let (problem, row) = (row as usize / n as usize, row as usize % n as usize);
            let view = View::new(points, &rounded, *shape, problem);
            let mut distances: Vec<f64> =
                (0..k as usize).map(|c| distance(view.point(row), view.centroid(c))).collect();
            distances.sort_by(f64::total_cmp);
            let gap = distances.get(1).map_or(f64::INFINITY, |second| second - distances[0]);
            let unit = if size_of::<T>() == 4 { 1.0 / 64.0 } else { f64::from(d + 64) * 64.0 * U };
            assert!(gap <= unit * f64::from(d), "row {row} is sure: {gap}");
        }
    }
    problems.check(&found);
}

impl<T: Point> Products<T> {
    /// That labels are those of the nearest centroids, and what is known of their changes and costs.
    fn check(&self, ProductsFound { labels, cost, changed, entries, .. }: &ProductsFound) {
        let Products { shape, points, done, before, arrays, .. } = self;
        let (shape, rounds) = (*shape, size_of::<T>() == 4);
        let Shape { batch, n, k, d, .. } = shape;
        let rounded = arrays.rounded.get();
        let of_problem = entries / batch as usize;
        for (problem, &done) in done.iter().enumerate() {
            let view = View::new(points, &rounded, shape, problem);
            let entries = problem * of_problem..(problem + 1) * of_problem;
            if done {
                assert!(entries.clone().all(|at| cost.is_poison(at) && changed.is_poison(at)));
                let rows = problem * n as usize..(problem + 1) * n as usize;
                assert_eq!(labels[rows.clone()], before[rows]);
                continue;
            }
            let mut expected_changed = 0;
            for row in 0..n as usize {
                let place = problem * n as usize + row;
                let (label, _) = view.nearest(row);
                assert_eq!(labels[place], label, "label of row {row} of problem {problem}");
                expected_changed += u32::from(before[place] != label);
            }
            assert_eq!(changed.get()[entries.clone()].iter().sum::<u32>(), expected_changed);
            // Points are scaled to under 2¹⁵, about the first centroid: centroids twice as far out may have no value in f16.
            let from_first = |values: &[T]| {
                let differences =
                    values.iter().zip(view.centroid(0)).map(|(v, c)| (v.to_f32() - c.to_f32()).abs());
                differences.fold(0.0, f32::max)
            };
            let extent = (0..n as usize).map(|row| from_first(view.point(row))).fold(0.0, f32::max);
            let overflows =
                rounds && (0..k as usize).any(|cluster| from_first(view.centroid(cluster)) > 1.9 * extent);
            for (entry, cost) in cost.get()[entries].iter().enumerate() {
                let (mut expected, mut size) = (0.0, 0.0);
                for row in (entry * 32..(entry + 1) * 32).take_while(|&row| row < n as usize) {
                    let norm = |v: &[T]| v.iter().map(|v| f64::from(v.to_f32()).powi(2)).sum::<f64>();
                    let (label, distance) = view.nearest(row);
                    expected += distance;
                    size +=
                        norm(view.point(row)) + norm(view.centroid(label as usize)) + norm(view.centroid(0));
                }
                // A difference of squares that in f32 may be infinite, or lose their bits; or one with infinite centroids.
                if size < 1e36 && !overflows {
                    let unit = if rounds { 1.0 / 256.0 } else { f64::from(d + 64) * 8.0 * U };
                    let tolerance = unit * size + 1e-30;
                    assert_near(*cost, expected, tolerance, "cost");
                }
            }
        }
    }
}

/// Pairs in which a centroid may be nearer to a point than what it has, and the sums of what points have.
fn check_list_mma<T: Point, E, const STEPS: u32>(size: [u32; 4], data: Data, seed: u64, way: Way)
where
    ListMma<Tensor<E, STEPS>>: Kernel,
{
    let [batch, n, k, d] = size;
    let random = &mut Random(seed);
    let problem = Products::<T>::new(size, data, random);
    let (shape, rounded) = (problem.shape, problem.arrays.rounded.get());
    let all = Packed::new(&problem, std::ptr::null());
    let rows = (batch * n) as usize;
    let is_weighted = random.below(2) == 0;
    let weights: Vec<f64> = (0..rows).map(|_| random.below(3) as f64).collect();
    let weight = |place: usize| if is_weighted { weights[place] } else { 1.0 };
    let to = |place: usize, centroid: usize| {
        let (of, row) = (place / n as usize, place % n as usize);
        let view = View::new(&problem.points, &rounded, shape, of);
        weight(place) * distance(view.point(row), view.centroid(centroid))
    };
    // That of a centroid, so that others are as near, or some share of it; or none, before the first row is chosen.
    let is_first = random.below(4) == 0;
    let nearest: Vec<f64> = (0..rows)
        .map(|place| to(place, random.below(k as usize)) * [1.0, 1.0, 0.5, 0.0][random.below(4)])
        .collect();
    let state = |of: usize| PoolState {
        chosen: u32::from(!is_first),
        done: problem.done[of].into(),
        ..PoolState::default()
    };
    let states = Memory::of(&(0..batch as usize).map(state).collect::<Vec<_>>());
    let limits: Vec<u32> = (0..batch).map(|_| random.below(k as usize + 1) as u32).collect();
    let pool =
        PoolParams { shape, trials: 2, steps: 1, most: k, window: k, capacity: rows as u32 * k + 4096 };
    let (distances, floors) = (Memory::of(&nearest), Memory::<f32>::poison(rows));
    let [chunks, groups] = [pool.chunks(), pool.groups()].map(|count| (batch * count) as usize);
    let (chunk_sums, group_sums) = (Memory::<f64>::poison(chunks), Memory::<f64>::poison(groups));
    let (of_points, limits_of) = (Memory::of(&weights), Memory::of(&limits));
    way.launch(PoolSums {
        nearest: distances.at(),
        norms: all.norms.at(),
        extents: all.extents(),
        weights: if is_weighted { of_points.at() } else { std::ptr::null() },
        states: states.at(),
        chunk_sums: chunk_sums.at(),
        group_sums: group_sums.at(),
        floors: floors.at(),
        params: PoolSumsParams { pool },
    });
    // As many as there is room for, or far fewer.
    let capacity = if random.below(4) == 0 { random.below(64) as u32 } else { pool.capacity };
    let [points, columns] = [(); 2].map(|()| Memory::<u32>::poison(capacity as usize));
    let products = MmaParams { shape: all.packed_shape, slot: problem.slot, is_exact: 1 };
    // Open problems are those that the states of the iterations say.
    way.launch(ListMma::<Tensor<E, STEPS>> {
        points: all.points,
        packed: all.packed.at(),
        biases: all.biases.at(),
        norms: all.norms.at(),
        residuals: all.residuals(),
        floors: floors.at(),
        largest: all.largest.at().cast(),
        states: problem.arrays.states.at(),
        limits: limits_of.at(),
        list_counts: all.counts.at(),
        pair_points: points.at(),
        pair_columns: columns.at(),
        params: ListMmaParams { products, capacity },
        operand: std::marker::PhantomData,
    });
    let taken = all.counts.get()[LIST_PAIRS];
    let mut listed = std::collections::HashSet::new();
    for (place, column) in points.get().into_iter().zip(columns.get()).take(taken.min(capacity) as usize) {
        // Nothing else is written where there is no pair.
        if column != NO_COLUMN && taken <= capacity {
            assert!(listed.insert((place, column)), "{place} and {column} twice");
        }
    }
    let has_room = taken <= capacity;
    for (of, &limit) in limits.iter().enumerate() {
        let first = of * n as usize;
        if problem.done[of] {
            continue;
        }
        let nearest = &nearest[first..][..n as usize];
        if is_first {
            assert!(distances.get()[first..][..n as usize].iter().all(|&near| near == f64::INFINITY));
        } else {
            let sums = sums_by_fan(nearest);
            assert_eq!(chunk_sums.get()[of * sums.len()..][..sums.len()], sums);
            let sums = sums_by_fan(&sums);
            assert_eq!(group_sums.get()[of * sums.len()..][..sums.len()], sums);
        }
        for (row, near) in nearest.iter().enumerate().filter(|_| has_room) {
            for column in 0..k {
                let is_listed = listed.remove(&((first + row) as u32, of as u32 * k + column));
                let with = to(first + row, column as usize);
                let is_nearer = is_first || with < *near;
                assert!(!is_listed || column < limit, "column {column} is past the limit");
                assert!(is_listed || !is_nearer || column >= limit, "row {row}, {column}: {with} < {near}");
                let unit = if size_of::<T>() == 4 { 1.0 / 64.0 } else { f64::from(d + 64) * 64.0 * U };
                let is_far = with - near > weight(first + row).max(1.0) * unit * f64::from(d);
                assert!(
                    !is_listed || is_nearer || data != Data::Plain || !is_far,
                    "{with} is far above {near}"
                );
            }
        }
    }
    assert!(listed.is_empty(), "pairs of problems that are done: {listed:?}");
}

fn check_list_mma_of<T: Point, E>(size: [u32; 4], more: bool, data: Data, seed: u64, way: Way)
where
    ListMma<Tensor<E, 4>>: Kernel,
    ListMma<Tensor<E, 8>>: Kernel,
    ListMma<Tensor<E, HOPPER_WIDE>>: Kernel,
{
    match (size[3], more) {
        (..=64, false) => check_list_mma::<T, E, 4>(size, data, seed, way),
        (65..=128, false) => check_list_mma::<T, E, 8>(size, data, seed, way),
        _ => check_list_mma::<T, E, HOPPER_WIDE>(size, data, seed, way),
    }
}

/// Scores alone decide, and not where a centroid's column is: labels are the same in any order, also of equal scores. Labels
/// of centroids that are the same are of the first.
fn check_inexact_mma<T: Point, E, const STEPS: u32>(size: [u32; 4], data: Data, seed: u64, way: Way)
where
    AssignMma<Tensor<E, STEPS>>: Kernel,
{
    let [batch, n, k, d] = size;
    let random = &mut Random(seed);
    let problems = Products::<T>::new(size, data, random);
    let own = assign_by_products::<T, E, STEPS>(&problems, std::ptr::null(), 0, way);
    for _ in 0..2 {
        let orders: Vec<u32> = (0..batch).flat_map(|_| random.shuffled(k)).collect();
        let order = Memory::<u32>::of(&orders);
        let other = assign_by_products::<T, E, STEPS>(&problems, order.at(), 0, way);
        assert_eq!(own.labels, other.labels);
        assert!(other.two.is_empty(), "two candidates are not all");
    }
    let rounded = problems.arrays.rounded.get();
    let rounds = size_of::<T>() == 4;
    for (problem, &done) in problems.done.iter().enumerate() {
        let rows = problem * n as usize..(problem + 1) * n as usize;
        if done {
            assert_eq!(own.labels[rows.clone()], problems.before[rows]);
            continue;
        }
        let view = View::new(&problems.points, &rounded, problems.shape, problem);
        for row in 0..n as usize {
            let label = own.labels[rows.start + row] as usize;
            assert!(label < k as usize);
            let bits = |c: usize| view.centroid(c).iter().map(|v| v.to_f32().to_bits()).collect::<Vec<_>>();
            assert!(
                (0..label).all(|other| bits(other) != bits(label)),
                "{label} is not the first of its kind"
            );
            if data == Data::Plain || data == Data::Integers {
                let (_, least) = view.nearest(row);
                let found = distance(view.point(row), view.centroid(label));
                // Values up to 2, and a centre that is as far.
                let unit = if rounds { 1.0 / 32.0 } else { f64::from(d + 64) * 32.0 * U };
                assert!(found <= least + unit * f64::from(d), "row {row}: {found} and not {least}");
            }
        }
    }
}

/// f32 points and centroids in 16 bits, and how much that has lost.
fn check_rounding(size: [u32; 4], data: Data, seed: u64, way: Way) {
    let [batch, n, k, d] = size;
    let shape = shape::<f32>(batch, n, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<f32>(shape, random);
    let done = vec![false; batch as usize];
    let arrays = Arrays::<f32>::new(shape, n, &points, &centroids, &done);
    let rounded = arrays.rounded.get();
    let centres: Vec<f32> = (0..batch as usize)
        .flat_map(|problem| View::new(&points, &rounded, shape, problem).centroid(0).to_vec())
        .collect();
    let centre = Memory::<f32>::of(&centres);
    let extents = Memory::<u32>::of(&vec![0; batch as usize]);
    way.launch(Extents {
        points: arrays.points.at(),
        centre: centre.at(),
        extents: extents.at(),
        params: MomentsParams::new(shape),
    });
    let rows = (batch * n) as usize;
    let pitch = Shape::new(batch, n, k, d, 2).pitch;
    let packed = Memory::<u16>::poison(rows * pitch as usize);
    let (norms, residuals) = (Memory::<f32>::poison(rows), Memory::<f32>::poison(rows));
    way.launch(PackPoints {
        points: arrays.points.at(),
        centre: centre.at(),
        extents: extents.at(),
        packed: packed.at(),
        norms: norms.at(),
        residuals: residuals.at(),
        params: PackPointsParams { shape, packed_pitch: pitch },
    });
    let params = PackParams { shape, slot: 1 };
    let panels = hopper_panels(d) as usize;
    let tile_values = panels * HOPPER_PANEL_BYTES as usize / size_of::<u16>();
    let packed_centroids = Memory::<u16>::poison(params.all_tiles() as usize * tile_values);
    let biases = Memory::<f32>::poison((params.all_tiles() as u32 * HOPPER_BIASES) as usize);
    let (largest, counts) = (largest_norms(params), Memory::<u32>::of(&[3, 4, 5]));
    let centroid_norms = Memory::<f32>::poison((batch * k) as usize);
    let centroid_residuals = Memory::<f32>::poison((batch * k) as usize);
    let plain = Memory::<u16>::poison((batch * k * hopper_row(d)) as usize);
    way.launch(PackCentroids::<f32> {
        centroids: arrays.rounded.at(),
        centre: centre.at(),
        extents: extents.at(),
        order: std::ptr::null(),
        states: arrays.states.at(),
        packed: packed_centroids.at(),
        plain: plain.at(),
        biases: biases.at(),
        norms: centroid_norms.at(),
        residuals: centroid_residuals.at(),
        largest: largest.at(),
        list_counts: counts.at(),
        params,
    });

    let (packed, norms, residuals) = (packed.get(), norms.get(), residuals.get());
    let (extents, largest, biases) = (extents.get(), largest.get(), biases.get());
    for problem in 0..batch as usize {
        let view = View::new(&points, &rounded, shape, problem);
        let centre = &centres[problem * d as usize..][..d as usize];
        let about = |v: &[f32]| -> Vec<f64> {
            v.iter().zip(centre).map(|(&v, &c)| f64::from(v) - f64::from(c)).collect()
        };
        let reach = (0..n as usize)
            .flat_map(|row| {
                view.point(row).iter().zip(centre).map(|(&v, &c)| (v - c).abs()).collect::<Vec<_>>()
            })
            .fold(0.0, f32::max);
        assert_eq!(f32::from_bits(extents[problem]), reach);
        // Squares of what is subnormal in f32 are nothing to go by.
        if !reach.is_finite() || reach < 1e-30 {
            continue;
        }
        let scale = 2f64.powi(14 - f64::from(reach).log2().floor() as i32);
        // Norm and residual of a vector, and its 16-bit values.
        let round = |about: &[f64]| {
            let halves: Vec<F16> = about.iter().map(|v| F16::from_f32((v * scale) as f32)).collect();
            let norm: f64 = about.iter().map(|v| (v * scale).powi(2)).sum();
            let lost: f64 =
                about.iter().zip(&halves).map(|(v, h)| (v * scale - f64::from(h.to_f32())).powi(2)).sum();
            (halves, norm, lost.sqrt())
        };
        let at_least = |found: f32, lost: f64, what: &str| {
            let found = f64::from(found);
            assert!(found >= lost && found <= lost * (1.0 + 4e-6) + 1.1e-18, "{what}: {found} for {lost}");
        };
        for row in 0..n as usize {
            let (halves, norm, lost) = round(&about(view.point(row)));
            let place = problem * n as usize + row;
            let packed = &packed[place * pitch as usize..][..pitch as usize];
            for (feature, &bits) in packed.iter().enumerate() {
                assert_eq!(bits, halves.get(feature).map_or(0, |h| h.0), "row {row}, feature {feature}");
            }
            assert_near(norms[place].into(), norm, 2.0 * U * norm, "norm");
            at_least(residuals[place], lost, "residual of a point");
        }
        let (mut longest, mut most_lost) = (0.0f64, 0.0f64);
        for centroid in 0..k as usize {
            let (halves, norm, lost) = round(&about(view.centroid(centroid)));
            let tile = problem * params.tiles() as usize + centroid / HOPPER_CENTROIDS as usize;
            let row = centroid % HOPPER_CENTROIDS as usize;
            for (feature, half) in halves.iter().enumerate() {
                let (panel, chunk) = (feature / 64, (feature % 64 / 8) ^ (row % 8));
                let at = tile * tile_values + panel * 128 * 64 + row * 64 + chunk * 8 + feature % 8;
                assert_eq!(packed_centroids.get()[at], half.0, "centroid {centroid}, feature {feature}");
            }
            let at = row % 8 / 2 * HOPPER_BIAS_PITCH as usize + row / 8 * 2 + row % 2;
            let bias = biases[tile * HOPPER_BIASES as usize + at];
            assert_near(-2.0 * f64::from(bias), norm, 2.0 * U * norm, "bias");
            longest = longest.max(norm.sqrt());
            most_lost = most_lost.max(lost);
        }
        let found = |at: usize| f32::from_bits(largest[problem * 4 + 2 + at]);
        let longest = longest.max(LEAST_NORM.into());
        assert_near(found(0).into(), longest, 4.0 * U * longest, "largest norm");
        at_least(found(1), most_lost, "largest residual");
    }
}

/// A value in two parts of 16 bits.
fn in_parts(value: f64) -> [F16; 2] {
    let upper = F16::from_f32(value as f32);
    [upper, F16::from_f32((value - f64::from(upper.to_f32())) as f32)]
}

/// f32 points of a list, and centroids, in parts; and that their products come as near as their norms and residuals say.
fn check_parts([n, k, d]: [u32; 3], products: bool, data: Data, seed: u64, way: Way) {
    let shape = shape::<f32>(1, n, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<f32>(shape, random);
    let arrays = Arrays::<f32>::new(shape, n, &points, &centroids, &[false]);
    let rounded = arrays.rounded.get();
    let view = View::new(&points, &rounded, shape, 0);
    let centre_values = view.centroid(0).to_vec();
    let centre = Memory::<f32>::of(&centre_values);
    let largest_of = |v: &[f32]| v.iter().fold(0.0, |largest: f32, v| largest.max(v.abs()));
    // Of the centroids for products, each point of which has a scale of its own; else of the points about the centre.
    let reach = if products {
        (0..k as usize).map(|centroid| largest_of(view.centroid(centroid))).fold(0.0, f32::max)
    } else {
        let about = |row| view.point(row).iter().zip(&centre_values).map(|(&v, &c)| (v - c).abs());
        (0..n as usize).flat_map(about).fold(0.0, f32::max)
    };
    if !reach.is_finite() || reach < 1e-30 {
        return;
    }
    let extents = Memory::<u32>::of(&[reach.to_bits()]);
    let unsure = random.below(n as usize + 1) as u32;
    let [least, capacity] = [0; 2].map(|_| 1 + random.below(n as usize) as u32);
    let params = RefineParams { shape, slot: 1, least, capacity, teams: 2 };
    let count = if unsure < least { 0 } else { unsure.min(capacity) } as usize;
    let mut listed = random.shuffled(n);
    let rows_of_list = Memory::<u32>::of(&listed);
    listed.reverse();
    listed.truncate(unsure as usize);
    let counts = Memory::<u32>::of(&[7, unsure, 0]);
    let part = params.part() as usize;
    let packed = Memory::<u16>::poison(capacity as usize * 3 * part);
    let [norms, residuals] = [0; 2].map(|_| Memory::<f32>::poison(capacity as usize));
    let rows = Memory::<u32>::poison(capacity as usize);
    let many_rows = Memory::<u32>::poison(n as usize);
    macro_rules! split_points {
        ($kernel:ident) => {
            way.launch($kernel {
                points: arrays.points.at(),
                centre: centre.at(),
                extents: extents.at(),
                list_counts: counts.at(),
                list_rows: rows_of_list.at(),
                packed: packed.at(),
                norms: norms.at(),
                residuals: residuals.at(),
                rows: rows.at(),
                many_rows: many_rows.at(),
                params,
            })
        };
    }
    if products {
        split_points!(SplitRows)
    } else {
        split_points!(SplitPoints)
    }
    let pack = PackParams { shape: params.in_parts(capacity), slot: 1 };
    let tile_values = 3 * part * HOPPER_CENTROIDS as usize;
    let packed_centroids = Memory::<u16>::poison(pack.all_tiles() as usize * tile_values);
    let biases = Memory::<f32>::poison((pack.all_tiles() as u32 * HOPPER_BIASES) as usize);
    let largest = largest_norms(pack);
    macro_rules! split_centroids {
        ($kernel:ident) => {
            way.launch($kernel {
                centroids: arrays.rounded.at(),
                centre: centre.at(),
                extents: extents.at(),
                order: std::ptr::null(),
                states: arrays.states.at(),
                list_counts: counts.at(),
                packed: packed_centroids.at(),
                biases: biases.at(),
                largest: largest.at(),
                params,
            })
        };
    }
    if products {
        split_centroids!(SplitProducts)
    } else {
        split_centroids!(SplitCentroids)
    }

    // What there is no room for, or what is too little.
    let mut expected = listed[count..].to_vec();
    expected.sort_unstable();
    let check_left = |counts: &Memory<u32>, many_rows: &Memory<u32>| {
        let mut left = many_rows.get()[n as usize - (unsure as usize - count)..].to_vec();
        left.sort_unstable();
        assert_eq!(left, expected);
        assert_eq!(counts.get(), [7, unsure, unsure - count as u32]);
    };
    check_left(&counts, &many_rows);
    // The same of points that need no parts.
    let counts_of_kept = Memory::<u32>::of(&[7, unsure, 0]);
    let kept = Memory::<u32>::poison(capacity as usize);
    let left = Memory::<u32>::poison(n as usize);
    way.launch(KeepUnsure {
        list_counts: counts_of_kept.at(),
        list_rows: rows_of_list.at(),
        rows: kept.at(),
        many_rows: left.at(),
        params,
    });
    check_left(&counts_of_kept, &left);
    assert_eq!(kept.get()[..count], listed[..count]);
    if count == 0 {
        assert!(packed_centroids.is_poison(0) && packed.is_poison(0));
        return;
    }
    assert_eq!(rows.get()[..count], listed[..count]);

    let scale_of = |reach: f32| 2f64.powi(14 - f64::from(reach).log2().floor() as i32);
    let scaled = |v: &[f32], scale: f64| -> Vec<f64> {
        let about = v
            .iter()
            .zip(&centre_values)
            .map(|(&v, &c)| if products { f64::from(v) } else { f64::from(v) - f64::from(c) });
        about.map(|v| v * scale).collect()
    };
    // A row of zeros, or of what is subnormal, has a scale of its own that is as good as any.
    let point = |row: u32| {
        let x = view.point(row as usize);
        let reach = if products { largest_of(x).max(1e-30) } else { reach };
        scaled(x, scale_of(reach))
    };
    let half_bits = (u32::BITS - (d - 1).leading_zeros()).div_ceil(2) as i32;
    let of_centroid = scale_of(reach) * if products { 2f64.powi(-half_bits) } else { 1.0 };
    let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    let (packed, norms, residuals) = (packed.get(), norms.get(), residuals.get());
    let (packed_centroids, biases) = (packed_centroids.get(), biases.get());
    let [of_centroids, most_lost] = [2, 3].map(|at| f64::from(f32::from_bits(largest.get()[at])));
    for (entry, &row) in listed[..count].iter().enumerate() {
        let x = point(row);
        let found = &packed[entry * 3 * part..][..3 * part];
        for feature in 0..part {
            let [upper, lower] = in_parts(x.get(feature).copied().unwrap_or(0.0));
            let found = [found[feature], found[part + feature], found[2 * part + feature]];
            assert_eq!(found, [lower.0, upper.0, upper.0], "row {row}, feature {feature}");
        }
        assert_near(norms[entry].into(), norm(&x).powi(2), 2.0 * U * norm(&x).powi(2), "norm");
        let lower: Vec<f64> = x.iter().map(|&v| f64::from(in_parts(v)[1].to_f32())).collect();
        let is_small = norm(&lower) <= norm(&x) / 2048.0;
        assert!(
            is_small == residuals[entry].is_finite() || (norm(&lower) * 2048.0 / norm(&x) - 1.0).abs() < 1e-9
        );
    }
    for centroid in 0..k as usize {
        let c = scaled(view.centroid(centroid), of_centroid);
        let (tile, row) = (centroid / HOPPER_CENTROIDS as usize, centroid % HOPPER_CENTROIDS as usize);
        let values: Vec<F16> = (0..3 * part)
            .map(|feature| {
                let (panel, chunk) = (feature / 64, (feature % 64 / 8) ^ (row % 8));
                F16(packed_centroids
                    [tile * tile_values + panel * 128 * 64 + row * 64 + chunk * 8 + feature % 8])
            })
            .collect();
        for feature in 0..part {
            let [upper, lower] = in_parts(c.get(feature).copied().unwrap_or(0.0)).map(|half| half.0);
            let found = [0, 1, 2].map(|at| values[at * part + feature].0);
            assert_eq!(found, [upper, lower, upper], "centroid {centroid}, feature {feature}");
        }
        let at = row % 8 / 2 * HOPPER_BIAS_PITCH as usize + row / 8 * 2 + row % 2;
        let bias = biases[tile * HOPPER_BIASES as usize + at];
        let expected = if products { 0.0 } else { norm(&c).powi(2) };
        assert_near(-2.0 * f64::from(bias), expected, 2.0 * U * expected, "bias");
        assert!(of_centroids >= norm(&c) * (1.0 - 1e-6));
        if c.iter().any(|c| c.abs() > 65_519.0) {
            assert_eq!(most_lost, f64::INFINITY, "a value is too large for f16");
        }
        if !most_lost.is_finite() {
            continue;
        }
        // What bounds take for the most that parts leave of a product.
        for (entry, &row) in
            listed[..count].iter().enumerate().filter(|(entry, _)| residuals[*entry].is_finite())
        {
            let x = point(row);
            let of_parts = packed[entry * 3 * part..][..3 * part].iter().zip(&values);
            let of_parts: f64 =
                of_parts.map(|(&x, c)| f64::from(F16(x).to_f32()) * f64::from(c.to_f32())).sum();
            let product: f64 = x.iter().zip(&c).map(|(x, c)| x * c).sum();
            let residual = f64::from(residuals[entry]);
            let bound = residual * norm(&c) + (norm(&x) + residual) * most_lost;
            let rounding = 1e-13 * norm(&x) * norm(&c);
            assert!((of_parts - product).abs() <= bound + rounding, "{of_parts} for {product}, {bound}");
        }
    }
}

fn check_settle<T: Point>(size: [u32; 4], data: Data, seed: u64, blocks: u32, way: Way) {
    let nearest = |view: &View<'_, T>, row| view.nearest(row).0;
    check_listed(size, data, seed, blocks, (distance, nearest), |settle: Settle<T>| way.launch(settle));
}

/// Labels of points that were listed, and nothing else, by what a centroid costs and which the nearest is.
fn check_listed<T: Point>(
    size: [u32; 4],
    data: Data,
    seed: u64,
    blocks: u32,
    (cost, nearest): (impl Fn(&[T], &[T]) -> f64, impl Fn(&View<'_, T>, usize) -> u32),
    settle: impl FnOnce(Settle<T>),
) {
    let [batch, n, k, d] = size;
    let shape = shape::<T>(batch, n, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<T>(shape, random);
    let arrays = Arrays::<T>::new(shape, n, &points, &centroids, &vec![false; batch as usize]);
    let rounded = arrays.rounded.get();
    let before: Vec<u32> = (0..batch * n).map(|_| random.below(k as usize) as u32).collect();
    arrays.labels.set(&before);
    let all = (batch * n) as usize;

    let [mut rows, mut first, mut second] = [vec![], vec![], vec![]].map(|_: Vec<u32>| vec![u32::MAX; all]);
    let (mut two, mut many) = (0, 0);
    let mut expected = before.clone();
    for (row, expected) in expected.iter_mut().enumerate() {
        let view = View::new(&points, &rounded, shape, row / n as usize);
        let x = view.point(row % n as usize);
        match random.below(3) {
            0 if k > 1 => {
                let a = random.below(k as usize);
                let b = (a + 1 + random.below(k as usize - 1)) % k as usize;
                (rows[two], first[two], second[two]) = (row as u32, a as u32, b as u32);
                two += 1;
                let (to_a, to_b) = (cost(x, view.centroid(a)), cost(x, view.centroid(b)));
                let takes_b = to_b < to_a || (to_b == to_a && b < a);
                *expected = if takes_b { b } else { a } as u32;
            }
            1 => {
                rows[all - 1 - many] = row as u32;
                many += 1;
                *expected = nearest(&view, row % n as usize);
            }
            _ => {}
        }
    }
    let entries = shape.statistics() as usize;
    let mut expected_changed = vec![0; batch as usize * entries];
    for row in (0..all).filter(|&row| expected[row] != before[row]) {
        let entry = row / n as usize * entries + row % n as usize / STATISTICS_POINTS as usize;
        expected_changed[entry] += 1;
    }
    let [rows, first, second] = [&rows, &first, &second].map(|v| Memory::of(v));
    let counts = Memory::of(&[two as u32, many as u32]);
    let changed = Memory::of(&vec![0u32; expected_changed.len()]);
    let params = SettleParams { shape, blocks };
    let scratch = Memory::<u32>::poison(params.scratch() as usize);
    let counters = Memory::of(&vec![0u32; blocks as usize]);
    settle(Settle::<T> {
        points: arrays.points.at(),
        centroids: arrays.rounded.at(),
        two: counts.at().wrapping_add(LIST_TWO),
        rows: rows.at(),
        first: first.at(),
        second: second.at(),
        many: counts.at().wrapping_add(LIST_MANY),
        many_rows: rows.at(),
        labels: arrays.labels.at(),
        changed: changed.at(),
        scratch: scratch.at(),
        counters: counters.at(),
        params,
    });
    assert!(counters.get().iter().all(|&count| count == 0));
    assert_eq!(arrays.labels.get(), expected);
    assert_eq!(changed.get(), expected_changed);
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn centroids_are_packed_for_tensor_cores(
        bf16: bool, batch in 1u32..4, k in prop::sample::select(vec![1u32, 5, 127, 128, 129, 300]),
        d in 1u32..300, data in data(&Data::ALL), seed: u64, way in way(),
    ) {
        match bf16 {
            false => check_pack::<F16>([batch, k, d], data, seed, way),
            true => check_pack::<BF16>([batch, k, d], data, seed, way),
        }
    }

    #[test]
    fn points_of_f32_are_rounded_for_tensor_cores(
        batch in 1..3u32, n in 1..20u32, k in 1..5u32, d in 1..140u32, data in data(&Data::ALL), seed: u64, way in way()
    ) {
        check_rounding([batch, n, k, d], data, seed, way);
        check_parts([n, k, d], false, data, seed, way);
        check_parts([n, k, d], true, data, seed, way);
    }

    #[test]
    fn listed_points_are_settled_by_the_definition(
        t in 0..3, batch in 1u32..4, n in prop_oneof![1u32..40, 250u32..300],
        k in prop_oneof![1u32..40, 100u32..200],
        d in prop::sample::select(vec![1u32, 3, 32, 33, 64, 100, 128]),
        data in data(&Data::ALL), seed: u64, blocks in 1u32..12, way in way(),
    ) {
        for_type!(t, check_settle([batch, n, k, d], data, seed, blocks, way));
    }
}

/// By the entry for `d` dimensions, or by one for more.
fn check_assign_mma_of<T: Point, E>(size: [u32; 4], more: bool, data: Data, seed: u64, way: Way)
where
    AssignMma<Tensor<E, 4>>: Kernel,
    AssignMma<Tensor<E, 6>>: Kernel,
    AssignMma<Tensor<E, 8>>: Kernel,
    AssignMma<Tensor<E, HOPPER_WIDE>>: Kernel,
{
    match (size[3], more) {
        (..=64, false) => check_assign_mma::<T, E, 4>(size, data, seed, way),
        (65..=96, false) => check_assign_mma::<T, E, 6>(size, data, seed, way),
        (65..=128, false) => check_assign_mma::<T, E, 8>(size, data, seed, way),
        _ => check_assign_mma::<T, E, HOPPER_WIDE>(size, data, seed, way),
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn labels_of_warps_products_are_the_argmin(
        t in 0..3, batch in 1u32..4, n in prop_oneof![1u32..150, 250u32..400],
        k in prop_oneof![1u32..20, prop::sample::select(vec![63u32, 64, 65, 127, 128, 129, 200, 257, 300])],
        d in prop_oneof![1u32..140, prop::sample::select(vec![16u32, 64, 65, 96, 97, 128, 129, 192, 300])],
        more: bool, data in data(&Data::ALL), seed: u64, way in way(),
    ) {
        match t {
            0 => check_assign_mma_of::<f32, F16>([batch, n, k, d], more, data, seed, way),
            1 => check_assign_mma_of::<F16, F16>([batch, n, k, d], more, data, seed, way),
            _ => check_assign_mma_of::<BF16, BF16>([batch, n, k, d], more, data, seed, way),
        }
    }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn pairs_are_those_in_which_a_centroid_may_be_nearer(
        t in 0..3, batch in 1u32..4, n in prop_oneof![1u32..150, 250u32..300],
        k in prop_oneof![1u32..20, prop::sample::select(vec![63u32, 64, 65, 128, 129, 200])],
        d in prop_oneof![1u32..140, prop::sample::select(vec![16u32, 64, 65, 96, 97, 128, 129, 192])],
        more: bool, data in data(&Data::ALL), seed: u64, way in way(),
    ) {
        match t {
            0 => check_list_mma_of::<f32, F16>([batch, n, k, d], more, data, seed, way),
            1 => check_list_mma_of::<F16, F16>([batch, n, k, d], more, data, seed, way),
            _ => check_list_mma_of::<BF16, BF16>([batch, n, k, d], more, data, seed, way),
        }
    }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn labels_of_the_best_scores_do_not_depend_on_the_order_of_centroids(
        t in 0..3, batch in 1u32..3, n in 1u32..150,
        k in prop_oneof![1u32..20, prop::sample::select(vec![63u32, 65, 129, 257])],
        d in prop::sample::select(vec![1u32, 2, 3, 20, 65, 97, 130]),
        data in data(&Data::ALL), seed: u64, way in way(),
    ) {
        let size = [batch, n, k, d];
        match (t, d) {
            (0, ..=64) => check_inexact_mma::<f32, F16, 4>(size, data, seed, way),
            (0, _) => check_inexact_mma::<f32, F16, HOPPER_WIDE>(size, data, seed, way),
            (1, ..=64) => check_inexact_mma::<F16, F16, 4>(size, data, seed, way),
            (1, _) => check_inexact_mma::<F16, F16, HOPPER_WIDE>(size, data, seed, way),
            (_, ..=64) => check_inexact_mma::<BF16, BF16, 4>(size, data, seed, way),
            (_, _) => check_inexact_mma::<BF16, BF16, HOPPER_WIDE>(size, data, seed, way),
        }
    }
}

/// Squares of what is subnormal are 0, and so are scores: no label is sure.
#[test]
fn labels_of_warps_products_hold_where_squares_vanish() {
    for seed in 0..8 {
        check_assign_mma::<BF16, BF16, 4>([1, 40, 4, 1], Data::Subnormal, seed, Way::PLAIN);
        check_assign_mma::<BF16, BF16, HOPPER_WIDE>([1, 40, 70, 3], Data::Subnormal, seed, Way::PLAIN);
    }
}

/// Centroids so far out that they are infinite in f16: scores tell nothing, and all is settled.
#[test]
fn labels_of_warps_products_hold_where_centroids_overflow() {
    check_assign_mma_of::<f32, F16>([1, 21, 63, 71], false, Data::Mixed, 4063033955118319843, Way::PLAIN);
}

/// Distances that are equal but for the order of their additions: the lowest index wins only if all backends
/// add the features in order.
#[test]
fn listed_points_are_settled_in_the_order_of_the_features() {
    for seed in 0..8 {
        check_settle::<F16>([1, 60, 20, 128], Data::Permuted, seed, 2, Way::PLAIN);
        check_settle::<BF16>([1, 60, 20, 40], Data::Permuted, seed, 2, Way::PLAIN);
        // Blocks that share the centroids of a point, in parts that are no multiple of what their threads look at.
        check_settle::<F16>([1, 3, 300, 40], Data::Permuted, seed, 8, Way::PLAIN);
    }
}

// ---- iterations ----

/// Iterations, each checked against float64 from where the device stood, and twice: in another way, the bits
/// must be the same.
fn check_iterations<T: Point>(size: [u32; 4], panel_len: u32, data: Data, seed: u64, ways: [Way; 2]) {
    let [batch, n, k, d] = size;
    let shape = shape::<T>(batch, n, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<T>(shape, random);
    let open = vec![false; batch as usize];
    let runs = ways.map(|_| Arrays::<T>::new(shape, panel_len, &points, &centroids, &open));
    for arrays in &runs {
        arrays.labels.set(&vec![u32::MAX; (batch * n) as usize]);
        arrays.thresholds.set(&vec![0.0; batch as usize]);
    }
    let arrays = &runs[0];
    let (batch, n, k, d) = (batch as usize, n as usize, k as usize, d as usize);
    for iteration in 0..4 {
        let (labels, means, rounded) = (arrays.labels.get(), arrays.centroids.get(), arrays.rounded.get());
        let (states, records) = (arrays.states.get(), arrays.records.bytes());
        for (arrays, way) in runs.iter().zip(ways) {
            arrays.iteration(way);
        }
        // What a problem that never ran left unwritten is equal too: all bytes are.
        assert!(runs[0].bytes() == runs[1].bytes(), "{ways:?} differ in iteration {iteration}");

        let (new_labels, new_means) = (arrays.labels.get(), arrays.centroids.get());
        let (new_states, new_records) = (arrays.states.get(), arrays.records.get());
        for problem in 0..batch {
            let (rows, values) = (problem * n..(problem + 1) * n, problem * k * d..(problem + 1) * k * d);
            if states[problem].done != 0 {
                assert_eq!(new_states[problem], states[problem]);
                assert_eq!(new_labels[rows.clone()], labels[rows]);
                assert_eq!(new_means[values.clone()], means[values]);
                let record = problem * size_of::<IterationRecord>()..;
                let record = |bytes: &[u8]| bytes[record.clone()][..size_of::<IterationRecord>()].to_vec();
                assert_eq!(record(&arrays.records.bytes()), record(&records));
                continue;
            }
            let view = View::new(&points, &rounded, shape, problem);
            let mut sums = vec![(0.0f64, 0.0f64); k * d];
            let mut counts = vec![0u32; k];
            let (mut cost, mut changed) = (0.0, 0);
            for row in 0..n {
                let (label, distance) = view.nearest(row);
                assert_eq!(new_labels[problem * n + row], label, "row {row} of problem {problem}");
                cost += distance;
                changed += u32::from(labels[problem * n + row] != label);
                counts[label as usize] += 1;
                let about = view.point(row).iter().zip(view.point(0));
                for (sum, (v, origin)) in sums[label as usize * d..].iter_mut().zip(about) {
                    sum.0 += f64::from(v.to_f32());
                    // The kernel adds f32 points less the first.
                    let origin = if size_of::<T>() == 4 { f64::from(origin.to_f32()) } else { 0.0 };
                    sum.1 += (f64::from(v.to_f32()) - origin).abs();
                }
            }
            let mut shift = 0.0;
            for (at, &(sum, size)) in sums.iter().enumerate() {
                let (old, new) = (means[problem * k * d + at], new_means[problem * k * d + at]);
                let count = f64::from(counts[at / d]);
                if counts[at / d] == 0 {
                    assert_eq!(new, old);
                } else {
                    let tolerance = 132.0 * U * size / count + U * (sum / count).abs() + 1.5e-45;
                    assert_near(new.into(), sum / count, tolerance, "mean");
                }
                shift += (f64::from(new) - f64::from(old)).powi(2);
            }
            let record = new_records[problem];
            assert_eq!(record.changed, changed);
            assert_near(record.shift, shift, 1e-12 * shift, "shift");
            if cost < 1e37 {
                let tolerance = (d + 4) as f64 * 2.0 * U * cost + (n * d) as f64 * 1.5e-45;
                assert_near(record.cost, cost, tolerance, "cost");
            }
            let expected = LoopState {
                done: (changed == 0 || record.shift <= 0.0).into(),
                n_iter: iteration + 1,
                fixed_point: (changed == 0).into(),
                reserved: 0,
            };
            assert_eq!(new_states[problem], expected);
        }
    }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn iterations_follow_the_definition(
        t in 0..3,
        batch in 1u32..4, n in 1u32..300,
        k in prop::sample::select(vec![1u32, 2, 5, 17, 70, 300]),
        d in prop::sample::select(vec![1u32, 3, 8, 33, 70]),
        panel in 0u32..3, data in data(&Data::SUMMABLE), seed: u64, ways in [way(), way()],
    ) {
        let panel_len = [n, n.div_ceil(2), n.div_ceil(3)][panel as usize];
        for_type!(t, check_iterations([batch, n, k, d], panel_len, data, seed, ways));
    }
}

/// A problem of a batch has the bits that it has alone.
#[test]
fn a_batch_is_its_problems() {
    let (batch, n, k, d) = (3, 150, 6, 10);
    let all = shape::<f32>(batch, n, k, d);
    let (points, centroids) = Data::Plain.problems::<f32>(all, &mut Random(5));
    let run = |shape: Shape, points: &[f32], centroids: &[f32], way: Way| {
        let arrays = Arrays::<f32>::new(shape, 100, points, centroids, &vec![false; shape.batch as usize]);
        arrays.labels.set(&vec![u32::MAX; (shape.batch * n) as usize]);
        arrays.thresholds.set(&vec![0.0; shape.batch as usize]);
        (0..5).for_each(|_| arrays.iteration(way));
        (arrays.labels.get(), arrays.centroids.get(), arrays.records.get(), arrays.states.get())
    };
    let other = Way { schedule: Schedule::Seeded(9), grid: Grid::Fewer };
    let (labels, means, records, states) = run(all, &points, &centroids, other);
    for problem in 0..batch as usize {
        let one = shape::<f32>(1, n, k, d);
        let [rows, values] = [n * all.pitch, k * d].map(|len| len as usize);
        let alone =
            run(one, &points[problem * rows..][..rows], &centroids[problem * values..][..values], Way::PLAIN);
        assert_eq!(alone.0, labels[problem * n as usize..][..n as usize]);
        assert_eq!(alone.1, means[problem * values..][..values]);
        assert_eq!((alone.2[0], alone.3[0]), (records[problem], states[problem]));
    }
}

// ---- first centroids ----

/// A squared distance in f64, its terms in [`DISTANCE_LANES`] sums.
fn distance_by_lanes<T: Point>(x: &[T], c: &[T]) -> f64 {
    let lanes = DISTANCE_LANES as usize;
    let term = |at: usize| (f64::from(x[at].to_f32()) - f64::from(c[at].to_f32())).powi(2);
    let whole = x.len() / lanes * lanes;
    let of_lane = |lane: usize| (lane..whole).step_by(lanes).map(term).sum::<f64>();
    (0..lanes).map(of_lane).sum::<f64>() + (whole..x.len()).map(term).sum::<f64>()
}

fn sums_by_fan(values: &[f64]) -> Vec<f64> {
    values.chunks(FAN as usize).map(|values| values.iter().sum()).collect()
}

/// The index at which the running sum passes `target`.
fn passed(values: &[f64], target: &mut f64) -> usize {
    let mut last = 0;
    for (at, &value) in values.iter().enumerate().filter(|(_, value)| **value > 0.0) {
        last = at;
        if *target < value {
            break;
        }
        *target -= value;
    }
    last
}

/// A row drawn in proportion to `nearest`.
fn drawn(nearest: &[f64], number: u64) -> u32 {
    let (chunks, fan) = (sums_by_fan(nearest), FAN as usize);
    let groups = sums_by_fan(&chunks);
    let mut target = (number >> 11) as f64 / (1u64 << 53) as f64 * groups.iter().sum::<f64>();
    let part = |values: &[f64], part: usize| values[part * fan..values.len().min((part + 1) * fan)].to_vec();
    let group = passed(&groups, &mut target);
    let chunk = group * fan + passed(&part(&chunks, group), &mut target);
    (chunk * fan + passed(&part(nearest, chunk), &mut target)) as u32
}

/// Greedy k-means++ of each problem of a batch, by pools; `weighted`: points count as often as their weights say. Pairs are listed
/// by the test: those that matter and some that do not, in any order, with places of none between them; the first so many rows of
/// a pool at a time.
fn check_first_centroids<T: Point>(
    size: [u32; 4],
    (trials, window, weighted, held): (u32, u32, bool, bool),
    data: Data,
    seed: u64,
    way: Way,
) {
    let [batch, n, k, d] = size;
    let shape = shape::<T>(batch, n, k, d);
    let random = &mut Random(seed);
    let (points, _) = data.problems::<T>(shape, random);
    let (n, k, batch) = (n as usize, k as usize, batch as usize);
    let weights: Vec<f64> = (0..batch * n).map(|_| random.below(3) as f64).collect();
    let weight = |place: usize| if weighted { weights[place] } else { 1.0 };
    let point = |place: usize| &points[place * shape.pitch as usize..][..d as usize];
    let to = |place: usize, row: usize| weight(place) * distance_by_lanes(point(place), point(row));
    // A few steps a pool, so that there are several.
    let steps = 1 + random.below(4) as u32;
    let (most, capacity) = (trials * steps, (batch * n) as u32 * trials * steps + 100);
    let all = PoolParams { shape, trials, steps, most, window: 1, capacity };

    let mut firsts = vec![0; batch * most as usize];
    let mut states = Vec::new();
    for problem in 0..batch {
        firsts[problem * most as usize] = random.below(n) as u32;
        states.push(PoolState { counter: random.bits(), proposals: 1, ..PoolState::default() });
    }
    let initial = states.clone();
    let (points_of, weights_of) = (Memory::of(&points), Memory::of(&weights));
    let weights_at = if weighted { weights_of.at().cast_const() } else { std::ptr::null() };
    let states_of = Memory::of(&states);
    let pool_rows = Memory::of(&firsts);
    let pool_nearest = Memory::<f64>::poison(batch * most as usize);
    let totals = Memory::of(&vec![0.0f64; batch]);
    let (nearest, norms) = (Memory::<f64>::poison(batch * n), Memory::<f32>::of(&vec![1.0; batch * n]));
    let floors = Memory::<f32>::poison(batch * n);
    let chunk_sums = Memory::<f64>::poison(batch * all.chunks() as usize);
    let group_sums = Memory::<f64>::poison(batch * all.groups() as usize);
    let open = Memory::<LoopState>::of(&vec![LoopState::default(); batch]);
    let limits = Memory::<u32>::poison(batch);
    let rows = Memory::<u32>::poison(batch * k);
    let mut passes = 0;
    while states.iter().any(|state| state.done == 0) {
        passes += 1;
        assert!(passes < 1000, "no end");
        let left = |state: &PoolState| all.proposals(*state) - state.next;
        let left = states.iter().filter(|state| state.done == 0).map(left).max().unwrap();
        let pool = PoolParams { window: left.min(window.max(trials)), ..all };
        let columns = pool.columns() as usize;
        way.launch(PoolSums {
            nearest: nearest.at(),
            norms: norms.at(),
            extents: std::ptr::null(),
            weights: weights_at,
            states: states_of.at(),
            chunk_sums: chunk_sums.at(),
            group_sums: group_sums.at(),
            floors: floors.at(),
            params: PoolSumsParams { pool },
        });
        let [window_rows, places] = [(); 2].map(|()| Memory::<u32>::poison(columns));
        way.launch(Propose {
            nearest: nearest.at(),
            chunk_sums: chunk_sums.at(),
            group_sums: group_sums.at(),
            states: states_of.at(),
            pool_rows: pool_rows.at(),
            pool_nearest: pool_nearest.at(),
            rows: window_rows.at(),
            places: places.at(),
            limits: limits.at(),
            totals: totals.at(),
            open: open.at(),
            params: ProposeParams { pool },
        });
        let (near, of_window) = (nearest.get(), window_rows.get());
        let mut pairs = Vec::new();
        for (problem, limit) in limits.get().into_iter().enumerate() {
            let first = problem * pool.window as usize;
            for (column, &row) in of_window.iter().enumerate().skip(first).take(limit as usize) {
                let row = problem * n + row as usize;
                let matters = |&place: &usize| to(place, row) < near[place] || place % 7 == 0;
                let places = (problem * n..(problem + 1) * n).filter(matters);
                pairs.extend(places.map(|place| (place as u32, column as u32)));
            }
        }
        pairs.extend([(u32::MAX, NO_COLUMN); 50]);
        let order = random.shuffled(pairs.len() as u32);
        let [of_points, of_columns]: [Vec<u32>; 2] = [0, 1]
            .map(|part| order.iter().map(|&at| [pairs[at as usize].0, pairs[at as usize].1][part]).collect());
        let list_counts = Memory::of(&[pairs.len() as u32]);
        let (pair_points, pair_columns) = (Memory::of(&of_points), Memory::of(&of_columns));
        let counts = Memory::of(&vec![0u32; columns + 1]);
        let (starts, cursors) = (Memory::<u32>::poison(columns + 1), Memory::<u32>::poison(columns));
        let list_points = Memory::<u32>::poison(pairs.len());
        let list_distances = Memory::<f64>::poison(pairs.len());
        let params = PairsParams { pool };
        let (list_counts, columns_of) = (list_counts.at(), pair_columns.at());
        way.launch(CountPairs { list_counts, columns: columns_of, counts: counts.at(), params });
        let (counts, cursors) = (counts.at(), cursors.at());
        way.launch(PairStarts { counts, starts: starts.at(), cursors, params: PairStartsParams { pool } });
        way.launch(PlacePairs {
            list_counts,
            points: pair_points.at(),
            columns: columns_of,
            cursors,
            list_points: list_points.at(),
            params,
        });
        way.launch(MeasurePairs::<T> {
            points: points_of.at(),
            weights: weights_at,
            rows: window_rows.at(),
            counts,
            starts: starts.at(),
            list_points: list_points.at(),
            list_distances: list_distances.at(),
            params: MeasureParams { pool },
        });
        macro_rules! choose {
            ($team:expr) => {
                way.launch(Choose::<Blocks<{ $team }>> {
                    nearest: nearest.at(),
                    pool_rows: pool_rows.at(),
                    pool_nearest: pool_nearest.at(),
                    places: places.at(),
                    totals: totals.at(),
                    limits: limits.at(),
                    open: open.at(),
                    list_counts,
                    starts: starts.at(),
                    list_points: list_points.at(),
                    list_distances: list_distances.at(),
                    states: states_of.at(),
                    rows: rows.at(),
                    params: ChooseParams { pool },
                    operand: std::marker::PhantomData,
                })
            };
        }
        if held {
            choose!(CHOOSE_HOLDS)
        } else {
            choose!(1)
        }
        let after = states_of.get();
        assert!(after != states, "a pass that came to nothing");
        states = after;
    }
    let rows = rows.get();
    for problem in 0..batch {
        let first = problem * n;
        let with = |nearest: &[f64], row: u32| -> Vec<f64> {
            (0..n).map(|at| nearest[at].min(to(first + at, first + row as usize))).collect()
        };
        let total = |nearest: &[f64]| sums_by_fan(&sums_by_fan(nearest)).iter().sum::<f64>();
        let unit = |number: u64| (mix(number) >> 11) as f64 / (1u64 << 53) as f64;
        let mut expected = vec![firsts[problem * most as usize]];
        let mut near = with(&vec![f64::INFINITY; n], expected[0]);
        let mut counter = initial[problem].counter;
        while expected.len() < k && total(&near) > 0.0 && total(&near).is_finite() {
            let (before, sum) = (near.clone(), total(&near));
            // Whole parts of about a part in 2⁶¹ of the sum.
            let scale = 2f64.powi(61 - sum.log2().floor() as i32);
            let of_pool = trials * (expected.len().min(k - expected.len()) as u32).clamp(1, steps);
            let mut pool = Vec::new();
            for _ in 0..of_pool {
                let number = counter.wrapping_add(RANDOM_STEP);
                counter = number.wrapping_add(RANDOM_STEP);
                pool.push((drawn(&before, mix(number)), unit(counter)));
            }
            let mut left = pool.into_iter();
            while expected.len() < k {
                let is_drawn = |&(row, share): &(u32, f64)| share * before[row as usize] < near[row as usize];
                let candidates: Vec<_> = left.by_ref().filter(is_drawn).take(trials as usize).collect();
                if candidates.len() < trials as usize {
                    break;
                }
                let mut best: Option<(u32, i128)> = None;
                for (row, _) in candidates {
                    let lower = with(&near, row);
                    let gains =
                        near.iter().zip(&lower).map(|(a, b)| ((a - b) * scale).round_ties_even() as i128);
                    let gain = gains.sum();
                    if best.is_none_or(|best| gain > best.1) {
                        best = Some((row, gain));
                    }
                }
                expected.push(best.unwrap().0);
                near = with(&near, best.unwrap().0);
            }
        }
        let end = states[problem];
        assert_eq!((end.chosen as usize, end.done, end.counter), (expected.len(), 1, counter));
        assert_eq!(rows[problem * k..][..expected.len()], expected);
        assert_eq!(nearest.get()[first..][..n], near);
    }
}

/// Nearest candidates of k-means||, in two rounds; `labelled`: found before, of which the distance is asked.
fn check_lower_to<T: Point>([n, d, candidates]: [u32; 3], labelled: bool, data: Data, seed: u64, way: Way) {
    let shape = shape::<T>(1, n, 1, d);
    let random = &mut Random(seed);
    let (values, _) = data.problems::<T>(shape, random);
    let drawn: Vec<u32> = (0..candidates).map(|_| random.below(n as usize) as u32).collect();
    let point = |row: u32| &values[(row * shape.pitch) as usize..][..d as usize];
    // The nearest of some of the candidates, of equally near ones the first.
    let nearest_of = |row: u32, from: u32, to: u32| {
        let mut near = (f64::INFINITY, u32::MAX);
        for owner in from..to {
            let distance = distance_by_lanes(point(row), point(drawn[owner as usize]));
            if distance < near.0 {
                near = (distance, owner);
            }
        }
        near
    };
    let (points, rows) = (Memory::of(&values), Memory::of(&drawn));
    let nearest = Memory::<f64>::poison(n as usize);
    let owners = Memory::<u32>::poison(n as usize);
    let chunk_sums = Memory::<f64>::poison(n.div_ceil(FAN) as usize);
    let split = candidates.div_ceil(3);
    for (first, end) in [(0, split), (split, candidates)] {
        let candidates = rows.at().wrapping_add(first as usize).cast_const();
        let params = LowerToParams { shape, candidates: end - first, first };
        let (nearest, owners, chunk_sums) = (nearest.at(), owners.at(), chunk_sums.at());
        let points = points.at();
        if labelled {
            let labels: Vec<u32> = (0..n).map(|row| nearest_of(row, first, end).1 - first).collect();
            let labels = Memory::of(&labels);
            let labels = labels.at();
            way.launch(LowerToLabels::<T> {
                points,
                candidates,
                labels,
                nearest,
                owners,
                chunk_sums,
                params,
            });
        } else {
            way.launch(LowerTo::<T> { points, candidates, nearest, owners, chunk_sums, params });
        }
    }
    let expected: Vec<_> = (0..n).map(|row| nearest_of(row, 0, candidates)).collect();
    let found: Vec<_> = nearest.get().into_iter().zip(owners.get()).collect();
    assert_eq!(found, expected);
    assert_eq!(chunk_sums.get(), sums_by_fan(&nearest.get()));
}

/// Rows of a round, and how many points belong to each candidate.
fn check_sample(n: u32, share: f64, seed: u64, way: Way) {
    let random = &mut Random(seed);
    let nearest: Vec<f64> = (0..n).map(|_| random.below(5) as f64).collect();
    let candidates = 1 + random.below(n as usize) as u32;
    let owners: Vec<u32> = (0..n).map(|_| random.below(candidates as usize) as u32).collect();
    let counter = random.bits();
    let of_row = |row: u32| {
        let number = mix(counter.wrapping_add((u64::from(row) + 1).wrapping_mul(RANDOM_STEP)));
        (number >> 11) as f64 / (1u64 << 53) as f64
    };
    let (distances, rows) = (Memory::of(&nearest), Memory::<u32>::poison(n as usize));
    let (count, counts) = (Memory::of(&[0u32]), Memory::of(&vec![0u32; candidates as usize]));
    let of_points = Memory::of(&owners);
    way.launch(Sample {
        nearest: distances.at(),
        rows: rows.at(),
        count: count.at(),
        params: SampleParams { counter, share, n, reserved: 0 },
    });
    way.launch(CountOwners { owners: of_points.at(), counts: counts.at(), params: OwnersParams { n } });
    let expected: Vec<u32> = (0..n).filter(|&row| of_row(row) < nearest[row as usize] * share).collect();
    assert_eq!(count.get(), [expected.len() as u32]);
    let mut drawn = rows.get()[..expected.len()].to_vec();
    drawn.sort_unstable();
    assert_eq!(drawn, expected);
    for (candidate, &count) in (0u32..).zip(&counts.get()) {
        assert_eq!(count as usize, owners.iter().filter(|&&owner| owner == candidate).count());
    }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn samples_are_of_the_numbers_of_their_rows(
        n in prop_oneof![1u32..40, 250u32..600], share in 0.0f64..0.5, seed: u64, way in way(),
    ) {
        check_sample(n, share, seed, way);
    }

    #[test]
    fn first_centroids_are_those_of_the_definition(
        t in 0..3, batch in 1u32..3, n in prop_oneof![1u32..40, 250u32..270, 500u32..600], k in 1u32..7,
        d in prop_oneof![1u32..40, prop::sample::select(vec![64u32, 128, 129, 144, 150])],
        trials in 2u32..20, window in 2u32..90, weighted: bool, held: bool, data in data(&Data::ALL), seed: u64,
        way in way(),
    ) {
        let of = (trials, window, weighted, held);
        for_type!(t, check_first_centroids([batch, n, k.min(n), d], of, data, seed, way));
    }

    #[test]
    fn nearest_candidates_are_the_first_of_the_nearest(
        t in 0..3, n in prop_oneof![1u32..40, 250u32..300], candidates in 2u32..40,
        d in prop_oneof![1u32..40, prop::sample::select(vec![128u32, 129, 144, 300])],
        labelled: bool, data in data(&Data::ALL), seed: u64, way in way(),
    ) {
        for_type!(t, check_lower_to([n, d, candidates], labelled, data, seed, way));
    }
}

/// More than a group of chunks.
#[test]
fn first_centroids_of_several_groups_are_those_of_the_definition() {
    for (n, held) in [(FAN * FAN * 2 + 700, true), (FAN * FAN * 3 + 700, false)] {
        check_first_centroids::<F16>([1, n, 4, 2], (3, 90, false, held), Data::Plain, 3, Way::PLAIN);
    }
}
