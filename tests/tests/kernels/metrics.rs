//! The kernels of other metrics and of weights, against float64.
use crate::data::*;
use crate::device::*;
use crate::{U, check_listed, config, labels_before, largest_norms, shape};
use cuda_std::float::{BF16, F16, Scalar};
use cuda_std::simt::Schedule;
use kernels_gpu::kernels::*;
use kernels_gpu::spec::*;
use proptest::prelude::*;
use std::ptr::null;

/// `Σ x·c`, the features in order, and the sum of the terms' magnitudes.
fn product<T: Point>(x: &[T], c: &[T]) -> (f64, f64) {
    let terms = x.iter().zip(c).map(|(x, c)| f64::from(x.to_f32()) * f64::from(c.to_f32()));
    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}

/// The lowest index of the centroid with the largest product.
fn nearest_product<T: Point>(x: &[T], view: &View<'_, T>, k: u32) -> u32 {
    let mut best = (0, f64::NEG_INFINITY);
    for label in 0..k {
        let (product, _) = product(x, view.centroid(label as usize));
        if product > best.1 {
            best = (label, product);
        }
    }
    best.0
}

fn length<T: Point>(x: &[T]) -> f64 {
    product(x, x).0.sqrt()
}

/// Labels that two products decide, and what the others have: `expected`, with the rows that are listed.
fn check_labels<T: Point>(arrays: &Arrays<T>, points: &[T], done: &[bool], before: &[u32]) -> Vec<u32> {
    let (shape, labels, rounded) = (arrays.shape, arrays.labels.get(), arrays.rounded.get());
    let n = shape.n as usize;
    let mut changed = vec![0; shape.batch as usize];
    for (place, &label) in labels.iter().enumerate() {
        let (problem, row) = (place / n, place % n);
        if done[problem] {
            assert_eq!(label, before[place]);
            continue;
        }
        let view = View::new(points, &rounded, shape, problem);
        let expected = nearest_product(view.point(row), &view, shape.k);
        assert_eq!(label, expected, "label of row {row} of problem {problem}");
        changed[problem] += u32::from(before[place] != expected);
    }
    changed
}

fn check_assign<T: Point>(size: [u32; 4], data: Data, seed: u64, way: Way) {
    let [batch, n, k, d] = size;
    let shape = shape::<T>(batch, n, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<T>(shape, random);
    let done = done(batch, random);
    let before = labels_before(shape, random);
    let arrays = Arrays::<T>::new(shape, n, &points, &centroids, &done);
    arrays.labels.set(&before);
    way.launch(AssignProducts::<T> {
        points: arrays.points.at(),
        centroids: arrays.rounded.at(),
        states: arrays.states.at(),
        labels: arrays.labels.at(),
        tile_cost: arrays.tile_cost.at(),
        tile_changed: arrays.tile_changed.at(),
        params: AssignParams { shape },
    });
    let expected = check_labels(&arrays, &points, &done, &before);
    let tiles = AssignParams { shape }.tiles() as usize;
    for problem in (0..batch as usize).filter(|&problem| !done[problem]) {
        let changed = &arrays.tile_changed.get()[problem * tiles..][..tiles];
        assert_eq!(changed.iter().sum::<u32>(), expected[problem]);
    }
}

fn check_settle<T: Point>(size: [u32; 4], data: Data, seed: u64, blocks: u32, way: Way) {
    let cost = |x: &[T], c: &[T]| -product(x, c).0;
    let nearest = |view: &View<'_, T>, row| nearest_product(view.point(row), view, size[2]);
    check_listed(size, data, seed, blocks, (cost, nearest), |settle: Settle<T>| {
        way.launch(SettleProducts::<T> {
            points: settle.points,
            centroids: settle.centroids,
            two: settle.two,
            rows: settle.rows,
            first: settle.first,
            second: settle.second,
            many: settle.many,
            many_rows: settle.many_rows,
            labels: settle.labels,
            changed: settle.changed,
            scratch: settle.scratch,
            counters: settle.counters,
            params: settle.params,
        });
    });
}

/// What tensor cores find of products with what settles their list. `is_plain`: few points may be left to settle.
fn check_tensor_cores<T: Point, E, const STEPS: u32>(size: [u32; 4], data: Data, seed: u64, way: Way)
where
    AssignMma<Tensor<E, STEPS>>: Kernel,
{
    let [batch, n, k, d] = size;
    let shape = shape::<T>(batch, n, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<T>(shape, random);
    let done = done(batch, random);
    let before = labels_before(shape, random);
    let arrays = Arrays::<T>::new(shape, n, &points, &centroids, &done);
    arrays.labels.set(&before);
    let rounds = size_of::<T>() == 4;
    let rows = (batch * n) as usize;
    let packed_shape = Shape::new(batch, n, k, d, size_of::<u16>() as u32);
    let rounded_points = Memory::<u16>::poison(rows * packed_shape.pitch as usize);
    let (norms, point_residuals) = (Memory::<f32>::poison(rows), Memory::<f32>::poison(rows));
    let (zeros, extents) =
        (Memory::<f32>::of(&vec![0.0; (batch * d) as usize]), Memory::of(&vec![0u32; batch as usize]));
    if rounds {
        way.launch(PackRows {
            points: arrays.points.at().cast(),
            packed: rounded_points.at(),
            norms: norms.at(),
            residuals: point_residuals.at(),
            params: PackPointsParams { shape, packed_pitch: packed_shape.pitch },
        });
        // The reach of centroids: points of a problem, for this.
        way.launch(Extents {
            points: arrays.rounded.at().cast(),
            centre: zeros.at(),
            extents: extents.at(),
            params: MomentsParams::new(Shape { n: k, k: 1, pitch: d, ..shape }),
        });
    } else {
        let params = NormsParams { shape };
        way.launch(Norms::<T> { points: arrays.points.at(), norms: norms.at(), params });
    }
    let pack = PackParams { shape, slot: random.below(2) as u32 };
    let tile_values = hopper_panels(d) as usize * HOPPER_PANEL_BYTES as usize / size_of::<u16>();
    let packed = Memory::<u16>::poison(pack.all_tiles() as usize * tile_values);
    let biases = Memory::<f32>::poison((pack.all_tiles() as u32 * HOPPER_BIASES) as usize);
    let largest = largest_norms(pack);
    let counts = Memory::<u32>::poison(LIST_COUNTS as usize);
    let centroid_norms = Memory::<f32>::poison((batch * k) as usize);
    let residuals = Memory::<f32>::poison((batch * k) as usize);
    let plain = Memory::<u16>::poison((batch * k * hopper_row(d)) as usize);
    way.launch(PackProducts::<T> {
        centroids: arrays.rounded.at(),
        centre: null(),
        extents: if rounds { extents.at() } else { null() },
        order: null(),
        states: arrays.states.at(),
        packed: packed.at(),
        plain: plain.at(),
        biases: biases.at(),
        norms: centroid_norms.at(),
        residuals: residuals.at(),
        largest: largest.at(),
        list_counts: counts.at(),
        params: pack,
    });
    let params = MmaParams { shape: packed_shape, slot: pack.slot, is_exact: 1 };
    let entries = (shape.batch * shape.statistics()) as usize;
    let (cost, changed) = (Memory::<f64>::poison(entries), Memory::<u32>::poison(entries));
    let [list_rows, list_first, list_second] = [(); 3].map(|()| Memory::<u32>::poison(rows));
    way.launch(AssignMma::<Tensor<E, STEPS>> {
        points: if rounds { rounded_points.at() } else { arrays.points.at().cast() },
        packed: packed.at(),
        biases: biases.at(),
        order: null(),
        norms: norms.at(),
        residuals: if rounds { point_residuals.at() } else { null() },
        extents: null(),
        largest: largest.at().cast(),
        states: arrays.states.at(),
        labels: arrays.labels.at(),
        cost: cost.at(),
        changed: changed.at(),
        list_counts: counts.at(),
        list_rows: list_rows.at(),
        list_first: list_first.at(),
        list_second: list_second.at(),
        params,
        operand: std::marker::PhantomData,
    });
    if data == Data::Plain {
        // Those in doubt have two products that are near each other.
        let (counts, listed, rounded) = (counts.get(), list_rows.get(), arrays.rounded.get());
        let [two, many] = [counts[LIST_TWO] as usize, counts[LIST_MANY] as usize];
        for &row in listed[..two].iter().chain(&listed[rows - many..]) {
            let view = View::new(&points, &rounded, shape, row as usize / n as usize);
            let x = view.point(row as usize % n as usize);
            let mut products: Vec<f64> = (0..k as usize).map(|c| product(x, view.centroid(c)).0).collect();
            products.sort_by(|a, b| b.total_cmp(a));
            let gap = products.get(1).map_or(f64::INFINITY, |second| products[0] - second);
            let longest = (0..k as usize).map(|c| length(view.centroid(c))).fold(0.0, f64::max);
            let unit = if rounds { 1.0 / 64.0 } else { f64::from(d + 64) * 64.0 * U };
            let sure = unit * (length(x) * longest + longest * longest);
            assert!(gap <= sure, "row {row} is sure: {gap}");
        }
    }
    let settle = SettleParams { shape, blocks: 2 };
    let scratch = Memory::<u32>::poison(settle.scratch() as usize);
    let counters = Memory::of(&[0u32; 2]);
    way.launch(SettleProducts::<T> {
        points: arrays.points.at(),
        centroids: arrays.rounded.at(),
        two: counts.at().wrapping_add(LIST_TWO),
        rows: list_rows.at(),
        first: list_first.at(),
        second: list_second.at(),
        many: counts.at().wrapping_add(LIST_MANY),
        many_rows: list_rows.at(),
        labels: arrays.labels.at(),
        changed: changed.at(),
        scratch: scratch.at(),
        counters: counters.at(),
        params: settle,
    });
    let expected = check_labels(&arrays, &points, &done, &before);
    let of_problem = entries / batch as usize;
    for problem in (0..batch as usize).filter(|&problem| !done[problem]) {
        let changed = &changed.get()[problem * of_problem..][..of_problem];
        assert_eq!(changed.iter().sum::<u32>(), expected[problem]);
    }
}

/// By how many steps the entry goes, some of which are more than needed.
fn check_tensor_cores_of<T: Point, E>(size: [u32; 4], data: Data, seed: u64, way: Way)
where
    AssignMma<Tensor<E, 4>>: Kernel,
    AssignMma<Tensor<E, 6>>: Kernel,
    AssignMma<Tensor<E, 8>>: Kernel,
    AssignMma<Tensor<E, HOPPER_WIDE>>: Kernel,
{
    match hopper_steps(size[3]) {
        4 => check_tensor_cores::<T, E, 4>(size, data, seed, way),
        5 | 6 => check_tensor_cores::<T, E, 6>(size, data, seed, way),
        7 | 8 => check_tensor_cores::<T, E, 8>(size, data, seed, way),
        _ => check_tensor_cores::<T, E, HOPPER_WIDE>(size, data, seed, way),
    }
}

/// The metrics, by what they make of the kernels.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Euclidean,
    Cosine,
    SphericalDot,
}

/// Weights: halves from 0 to 4.
fn weights(count: usize, random: &mut Random) -> Vec<f64> {
    (0..count).map(|_| random.below(9) as f64 / 2.0).collect()
}

/// Masses, sums, means and moved centroids.
fn check_update<T: Point>(
    size: [u32; 4],
    panel_len: Option<u32>,
    data: Data,
    spread: Labels,
    (by, weighted): (By, bool),
    seed: u64,
    way: Way,
) {
    let [batch, n, k, d] = size;
    let shape = shape::<T>(batch, n, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<T>(shape, random);
    let done = done(batch, random);
    // None: a panel that one block sorts and sums.
    let arrays = Arrays::<T>::new(shape, panel_len.unwrap_or(BLOCK_PANEL_POINTS), &points, &centroids, &done);
    let labels: Vec<u32> = (0..batch).flat_map(|_| spread.draw(n as usize, k, random)).collect();
    arrays.labels.set(&labels);
    let of_points = weights((batch * n) as usize, random);
    let is_spherical = by != By::Euclidean;
    let has_masses = weighted || by == By::Cosine;
    let params = MoveParams { shape, has_masses: has_masses.into(), is_spherical: is_spherical.into() };
    let width = params.width();

    let weights = Memory::<f64>::of(&of_points);
    // Powers of two, which change no mean.
    let units: Vec<f64> = (0..batch).map(|_| 0.25 * (1 << random.below(5)) as f64).collect();
    let units = Memory::<f64>::of(&units);
    let masses = Memory::<f32>::poison((batch * n) as usize);
    let groups = (batch * arrays.panels.count) as usize;
    let pitch = sums_pitch(width);
    let sums = Memory::<f32>::poison(groups * (k * pitch) as usize);
    let heads = Memory::<f32>::poison(groups * (arrays.panels.stretches() * pitch) as usize);
    // Differences of a row's values may be all of the next one's: masses of cosines go about nothing.
    let origin = if by == By::Cosine { null() } else { arrays.points.at().cast_const() };
    let (points_at, labels_at, states) = (arrays.points.at(), arrays.labels.at(), arrays.states.at());
    if has_masses {
        way.launch(Masses::<T> {
            points: points_at,
            weights: if weighted { weights.at() } else { null() },
            units: units.at(),
            masses: masses.at(),
            params: MassesParams { shape, by_length: (by == By::Cosine).into() },
        });
    }
    let (starts, panels) = (arrays.starts.at(), arrays.panels);
    let mut is_folded = 0;
    match panel_len {
        None if has_masses => way.launch(PanelSumsByMass::<T> {
            points: points_at,
            origin,
            masses: masses.at(),
            labels: labels_at,
            states,
            starts,
            sums: sums.at(),
            heads: heads.at(),
            params: PanelSumsParams { shape, panels },
        }),
        None => way.launch(PanelSums::<T> {
            points: points_at,
            origin: points_at,
            labels: labels_at,
            states,
            starts,
            sums: sums.at(),
            heads: heads.at(),
            params: PanelSumsParams { shape, panels },
        }),
        Some(_) => {
            let sorted = arrays.sort(way).at();
            let params = SumsParams::new(shape, panels, T::PER_VECTOR as u32);
            let (sums, heads) = (sums.at(), heads.at());
            is_folded = 1;
            if has_masses {
                way.launch(SegmentSumsByMass::<T> {
                    points: points_at,
                    origin,
                    masses: masses.at(),
                    labels: labels_at,
                    sorted,
                    starts,
                    states,
                    sums,
                    heads,
                    params,
                });
            } else {
                way.launch(SegmentSums::<T> {
                    points: points_at,
                    origin: points_at,
                    labels: labels_at,
                    sorted,
                    starts,
                    states,
                    sums,
                    heads,
                    params,
                });
            }
            let params = FoldParams { shape, panels, pitch };
            if params.items() > 0 {
                way.launch(FoldHeads { labels: labels_at, sorted, starts, states, heads, params });
            }
        }
    }
    let rows = (batch * k) as usize;
    let means = Memory::<f32>::of(&vec![0.0; rows * width as usize]);
    let rounded_means = Memory::<T>::poison(rows * width as usize);
    let zeros = Memory::<T>::of(&vec![T::from_f32(0.0); width as usize]);
    let finalise_shape = if has_masses { Shape { n: 0, d: width, ..shape } } else { shape };
    let finalise = FinaliseParams { is_folded, ..FinaliseParams::new(finalise_shape, panels, 1) };
    let moves = Memory::<f64>::poison(finalise.items() as usize);
    way.launch(Finalise::<T> {
        origin: if has_masses { zeros.at() } else { arrays.points.at() },
        sums: sums.at(),
        heads: heads.at(),
        starts,
        states,
        centroids: means.at(),
        rounded: rounded_means.at(),
        moves: moves.at(),
        params: finalise,
    });
    way.launch(MoveCentroids::<T> {
        means: means.at(),
        origin,
        states,
        centroids: arrays.centroids.at(),
        rounded: arrays.rounded.at(),
        moves: moves.at(),
        params,
    });

    let (found, rounded, moves) = (arrays.centroids.get(), arrays.rounded.get(), moves.get());
    let (n, d) = (n as usize, d as usize);
    for cluster in 0..rows {
        let problem = cluster / k as usize;
        let old = &centroids[cluster * d..][..d];
        let new = &found[cluster * d..][..d];
        let same = |new: &[f32]| assert_eq!(new, old, "a centroid that stays");
        if done[problem] {
            same(new);
            continue;
        }
        let view = View::new(&points, &rounded, shape, problem);
        let (mut sums, mut size, mut total) = (vec![0.0; d], vec![0.0; d], 0.0);
        let first: Vec<f64> = view.point(0).iter().map(|v| f64::from(v.to_f32())).collect();
        for row in (0..n).filter(|row| labels[problem * n + row] == cluster as u32 % k) {
            let x = view.point(row);
            let mut mass = if weighted { of_points[problem * n + row] } else { 1.0 };
            if by == By::Cosine {
                mass = if length(x) == 0.0 { 0.0 } else { mass / length(x) };
            }
            total += mass;
            for (feature, x) in x.iter().enumerate() {
                let x = f64::from(x.to_f32());
                sums[feature] += mass * x;
                // About the first, or not at all.
                let about = if size_of::<T>() == 4 && by != By::Cosine { first[feature] } else { 0.0 };
                size[feature] += mass * ((x - about).abs() + about.abs() / 8.0);
            }
        }
        let long = sums.iter().map(|v| v * v).sum::<f64>().sqrt();
        let divisor = if is_spherical { long } else { total };
        let noise = size.iter().map(|v| v * v).sum::<f64>().sqrt() * 64.0 * U;
        let moved = moves[cluster];
        // Directions that cancel leave what rounding leaves.
        if divisor == 0.0 && noise == 0.0 {
            same(new);
            assert_eq!(moved, 0.0);
        } else if !is_spherical || long > noise * 8.0 {
            for feature in 0..d {
                let expected = sums[feature] / divisor;
                let of_length = if is_spherical { noise * expected.abs() } else { 0.0 };
                let rounding = 64.0 * U * size[feature] + of_length;
                let tolerance = rounding / divisor + 2.0 * U * expected.abs() + 1e-44;
                assert_near(new[feature].into(), expected, tolerance, "feature of a centroid");
            }
            let shift: f64 = new.iter().zip(old).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
            assert_near(moved, shift, 1e-12 * shift, "move");
        }
        let expected: Vec<T> = new.iter().map(|&v| T::from_f32(v)).collect();
        assert_eq!(&rounded[cluster * d..][..d], expected);
    }
}

/// Losses of every metric, and the moments of points at length 1.
fn check_losses<T: Point>(size: [u32; 4], data: Data, weighted: bool, seed: u64, way: Way) {
    let [batch, n, k, d] = size;
    let shape = shape::<T>(batch, n, k, d);
    let random = &mut Random(seed);
    let (points, centroids) = data.problems::<T>(shape, random);
    let done = done(batch, random);
    let arrays = Arrays::<T>::new(shape, n, &points, &centroids, &done);
    let rounded = arrays.rounded.get();
    let labels: Vec<u32> = (0..batch * n).map(|_| random.below(k as usize) as u32).collect();
    arrays.labels.set(&labels);
    let of_points = weights((batch * n) as usize, random);
    let weights = Memory::<f64>::of(&of_points);
    let rows = [32, 64, 1024][random.below(3)];
    let entries = n.div_ceil(rows) + random.below(3) as u32;
    let with_states = random.below(2) == 0;
    let n = n as usize;
    for loss in [LOSS_EUCLIDEAN, LOSS_COSINE, LOSS_PRODUCT] {
        let params = LossesParams { shape, rows, entries, loss };
        let partial = Memory::<f64>::poison(params.blocks() as usize);
        way.launch(Losses::<T> {
            points: arrays.points.at(),
            centroids: arrays.rounded.at(),
            labels: arrays.labels.at(),
            weights: if weighted { weights.at() } else { null() },
            states: if with_states { arrays.states.at() } else { null() },
            partial: partial.at(),
            params,
        });
        for (item, &found) in partial.get().iter().enumerate() {
            let (problem, entry) = (item / entries as usize, item % entries as usize);
            if with_states && done[problem] {
                assert!(partial.is_poison(item));
                continue;
            }
            let view = View::new(&points, &rounded, shape, problem);
            let (mut expected, mut size) = (0.0, 0.0);
            for row in (entry * rows as usize..n).take(rows as usize) {
                let place = problem * n + row;
                let (x, c) = (view.point(row), view.centroid(labels[place] as usize));
                let weight = if weighted { of_points[place] } else { 1.0 };
                let (sum, terms) = match loss {
                    LOSS_EUCLIDEAN => (distance(x, c), distance(x, c)),
                    LOSS_COSINE if length(x) == 0.0 => (1.0, 1.0),
                    LOSS_COSINE => {
                        let long = length(x);
                        let unit = x.iter().map(|x| f64::from(x.to_f32()) / long);
                        let about = unit.zip(c).map(|(x, c)| (x - f64::from(c.to_f32())).powi(2));
                        let half = 0.5 * about.sum::<f64>();
                        (half, half + length(c))
                    }
                    _ => {
                        let (product, size) = product(x, c);
                        (-product, size)
                    }
                };
                expected += weight * sum;
                size += weight * terms;
            }
            assert_near(found, expected, 1e-12 * size, "loss");
        }
    }

    let scales = Memory::<f32>::poison((batch * shape.n) as usize);
    way.launch(Masses::<T> {
        points: arrays.points.at(),
        weights: null(),
        units: null(),
        masses: scales.at(),
        params: MassesParams { shape, by_length: 1 },
    });
    for (place, &scale) in scales.get().iter().enumerate() {
        let view = View::new(&points, &rounded, shape, place / n);
        let length = length(view.point(place % n));
        let expected = if length == 0.0 { 0.0 } else { (1.0 / length).min(f32::MAX.into()) };
        assert_near(scale.into(), expected, 2.0 * U * expected + 1e-45, "scale");
    }
    let params = MomentsParams::new(shape);
    let sums = [(); 2].map(|()| Memory::<f64>::poison(params.blocks() as usize * d as usize));
    way.launch(UnitMoments::<T> {
        points: arrays.points.at(),
        scales: scales.at(),
        first: sums[0].at(),
        second: sums[1].at(),
        params,
    });
    let scales = scales.get();
    for problem in 0..batch as usize {
        let view = View::new(&points, &rounded, shape, problem);
        for feature in 0..d as usize {
            let values = (0..n).map(|row| {
                f64::from(view.point(row)[feature].to_f32()) * f64::from(scales[problem * n + row])
            });
            let expected: [f64; 2] = values.fold([0.0; 2], |[first, second], v| [first + v, second + v * v]);
            for (sums, expected) in sums.iter().zip(expected) {
                let tiles = &sums.get()[problem * params.tiles as usize * d as usize..];
                let found: f64 =
                    tiles[feature..].iter().step_by(d as usize).take(params.tiles as usize).sum();
                assert_near(found, expected, 1e-12 * n as f64, "moment");
            }
        }
    }
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn labels_are_of_the_largest_product(
        t in 0..3,
        (batch, n) in (1u32..4, 1u32..150),
        k in prop::sample::select(vec![1u32, 2, 5, 63, 64, 65, 130]),
        d in prop::sample::select(vec![1u32, 3, 31, 32, 33, 100]),
        data in data(&Data::ALL), seed: u64, way in way(),
    ) {
        for_type!(t, check_assign([batch, n, k, d], data, seed, way));
    }

    #[test]
    fn listed_products_are_settled_by_the_definition(
        t in 0..3,
        (batch, n) in (1u32..4, 1u32..90),
        k in prop::sample::select(vec![1u32, 2, 5, 40, 300]),
        d in prop::sample::select(vec![1u32, 3, 32, 33, 130]),
        data in data(&Data::ALL), seed: u64, blocks in 1u32..6, way in way(),
    ) {
        for_type!(t, check_settle([batch, n, k, d], data, seed, blocks, way));
    }

    #[test]
    fn labels_of_tensor_cores_are_of_the_largest_product(
        t in 0..3,
        (batch, n) in (1u32..3, 1u32..150),
        k in prop::sample::select(vec![1u32, 2, 65, 128, 200]),
        d in prop::sample::select(vec![1u32, 3, 16, 64, 90, 128, 130]),
        data in data(&Data::ALL), seed: u64, way in way(),
    ) {
        match t {
            0 => check_tensor_cores_of::<f32, F16>([batch, n, k, d], data, seed, way),
            1 => check_tensor_cores_of::<F16, F16>([batch, n, k, d], data, seed, way),
            _ => check_tensor_cores_of::<BF16, BF16>([batch, n, k, d], data, seed, way),
        }
    }

    #[test]
    fn centroids_are_those_of_metric_and_weights(
        t in 0..3,
        (batch, n) in (1u32..3, 1u32..700),
        k in prop::sample::select(vec![1u32, 2, 7, 40]),
        d in prop::sample::select(vec![1u32, 3, 32, 33, 127, 128, 129, 260]),
        panel_len in prop::sample::select(vec![None, Some(64u32), Some(700)]),
        data in data(&[Data::Plain, Data::Integers, Data::Constant, Data::Offset, Data::Small, Data::Mixed]),
        spread in prop::sample::select(Labels::ALL.to_vec()),
        by in prop::sample::select(vec![
            (By::Euclidean, true), (By::Cosine, false), (By::Cosine, true),
            (By::SphericalDot, false), (By::SphericalDot, true),
        ]),
        seed: u64, way in way(),
    ) {
        for_type!(t, check_update([batch, n, k, d], panel_len, data, spread, by, seed, way));
    }

    #[test]
    fn losses_are_those_of_the_metric(
        t in 0..3,
        (batch, n) in (1u32..3, 1u32..300),
        (k, d) in (1u32..6, prop::sample::select(vec![1u32, 3, 32, 33, 100])),
        data in data(&Data::ALL), weighted: bool, seed: u64, way in way(),
    ) {
        for_type!(t, check_losses([batch, n, k, d], data, weighted, seed, way));
    }
}

/// No product with any centroid is positive, and the last tile is not full: padding must not win.
#[test]
fn all_products_may_be_negative() {
    let shape = shape::<F16>(1, 40, 130, 20);
    let points = vec![F16::from_f32(1.0); (shape.n * shape.pitch) as usize];
    let random = &mut Random(1);
    let centroids: Vec<f32> = (0..shape.k * shape.d).map(|_| -1.0 - random.unit().abs()).collect();
    let arrays = Arrays::<F16>::new(shape, shape.n, &points, &centroids, &[false]);
    arrays.labels.set(&vec![u32::MAX; shape.n as usize]);
    let way = Way { schedule: Schedule::Reverse, grid: Grid::Equal };
    way.launch(AssignProducts::<F16> {
        points: arrays.points.at(),
        centroids: arrays.rounded.at(),
        states: arrays.states.at(),
        labels: arrays.labels.at(),
        tile_cost: arrays.tile_cost.at(),
        tile_changed: arrays.tile_changed.at(),
        params: AssignParams { shape },
    });
    check_labels(&arrays, &points, &[false], &vec![u32::MAX; shape.n as usize]);
    assert!(arrays.tile_cost.get()[0] > 0.0);
}
