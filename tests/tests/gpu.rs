//! The CUDA backend through the public API, against float64 and against the CPU.
//!
//! Without a GPU every test says so and passes; with `FLASH_KMEANS_REQUIRE_GPU=1` it fails instead, and with
//! `FLASH_KMEANS_GPU=emulated` it runs on one that is emulated, with fewer and smaller cases. `FLASH_KMEANS_SMALL=1` has such
//! cases on a GPU, for use under a sanitizer, and `FLASH_KMEANS_LARGE=1` adds a case of a million points.
use cust::context::Context;
use cust::memory::DeviceBuffer;
use cust::stream::{Stream, StreamFlags};
use flash_kmeans::{
    Backend, BatchSummary, DevicePoints, Element, Error, FlashKMeans, Init, IterationEnd, KMeans, Observer,
    PageLocked, Source, Streaming, Workspace, devices,
};
use flash_kmeans_tests::{CUDA, bits_but_costs, has_gpu, is_emulated, is_set, is_small as small};
use half::{bf16, f16};
use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis, Ix2, Ix3, array, s};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::ops::{ControlFlow, Range};
use std::sync::Mutex;

/// A type of points.
trait Point: Element<Centroid = f32> {
    /// The largest value that data here has.
    const LARGE: f32;
    /// From 1 to the next value.
    const EPSILON: f32;
    fn of(value: f32) -> Self;
}
impl Point for f32 {
    const LARGE: f32 = 1e19;
    const EPSILON: f32 = f32::EPSILON;
    fn of(value: f32) -> Self {
        value
    }
}
impl Point for f16 {
    const LARGE: f32 = 65_504.0;
    const EPSILON: f32 = 1.0 / 1024.0;
    fn of(value: f32) -> Self {
        f16::from_f32(value)
    }
}
impl Point for bf16 {
    const LARGE: f32 = 1e19;
    const EPSILON: f32 = 1.0 / 128.0;
    fn of(value: f32) -> Self {
        bf16::from_f32(value)
    }
}

/// Calls `$body` for the type of points with that number.
macro_rules! for_type {
    ($number:expr, $body:ident $arguments:tt) => {
        match $number {
            0 => $body::<f32> $arguments,
            1 => $body::<f16> $arguments,
            _ => $body::<bf16> $arguments,
        }
    };
}

/// Values of points.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Data {
    /// Between -1 and 1.
    Plain,
    /// Groups far apart; row `i` is in group `i % k`.
    Groups,
    /// 0, 1 and 2: many ties.
    Integers,
    Constant,
    /// Few rows, many times each.
    Duplicates,
    /// Far from 0, neighbours a few roundings apart.
    Offset,
    /// Rows of norms from 1e-6 to 1e6.
    Mixed,
    /// Up to the largest value; squares overflow in f32.
    Large,
}

const DATA: [Data; 8] = [
    Data::Plain,
    Data::Groups,
    Data::Integers,
    Data::Constant,
    Data::Duplicates,
    Data::Offset,
    Data::Mixed,
    Data::Large,
];

/// A problem.
#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    n: usize,
    k: usize,
    d: usize,
    data: Data,
    seed: u64,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 11) as usize % n
    }
    /// In `-1..1`.
    fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

impl Case {
    fn points<T: Point>(self) -> Array3<T> {
        let random = &mut Random(self.seed);
        let Case { batch, n, k, d, .. } = self;
        let mut values = Vec::with_capacity(batch * n * d);
        for row in 0..batch * n {
            let scale = 10f32.powf(6.0 * random.unit()).min(T::LARGE);
            let copied = random.below(row % n + 1).min(4);
            if self.data == Data::Duplicates && row % n > 4 {
                let from = (row / n * n + copied) * d;
                values.extend_from_within(from..from + d);
                continue;
            }
            let group = row % n % k;
            values.extend((0..d).map(|feature| {
                T::of(match self.data {
                    Data::Plain | Data::Duplicates => random.unit(),
                    Data::Groups if feature == 0 => 20.0 * group as f32 + random.unit(),
                    Data::Groups => 20.0 * ((group * 7 + feature * 3) % 11) as f32 + random.unit(),
                    Data::Integers => random.below(3) as f32,
                    Data::Constant => 0.7,
                    Data::Offset => {
                        let base = f32::min(1e6, T::LARGE * 0.9);
                        base + base * T::EPSILON * 8.0 * random.unit()
                    }
                    Data::Mixed => scale * random.unit(),
                    Data::Large => T::LARGE * random.unit(),
                })
            }));
        }
        Array3::from_shape_vec((batch, n, d), values).unwrap()
    }

    /// The first rows.
    fn init<T: Point>(self, points: &Array3<T>) -> Init {
        Init::Given(points.slice(s![.., ..self.k, ..]).mapv(|v| v.to_f64()).into_dyn())
    }

    /// Options from the first rows on, with a tolerance of 0.
    fn options<T: Point>(self, points: &Array3<T>, max_iter: usize) -> FlashKMeans {
        FlashKMeans::new(self.k).max_iter(max_iter).tol(0.0).init(self.init(points)).backend(CUDA)
    }

    /// As much of it as a sanitizer has time for.
    fn limited(mut self) -> Case {
        if small() {
            self.batch = self.batch.min(5);
            self.n = self.n.min(300);
            self.k = self.k.min(37).min(self.n);
        }
        self
    }
}

/// `Σ (x − c)²`, the features in order.
fn distance<T: Point>(x: &[T], c: &[f32]) -> f64 {
    let mut sum = 0.0;
    for (x, &c) in x.iter().zip(c) {
        let difference = x.to_f64() - f64::from(c);
        sum += difference * difference;
    }
    sum
}

/// The lowest index of the nearest centroid, and the distance to it.
fn nearest<T: Point>(x: &[T], centroids: ArrayView2<f32>) -> (u32, f64) {
    let mut best = (u32::MAX, f64::INFINITY);
    for (label, c) in centroids.outer_iter().enumerate() {
        let distance = distance(x, c.to_slice().unwrap());
        if distance < best.1 {
            best = (label as u32, distance);
        }
    }
    best
}

/// What a model promises of itself, whatever its iterations were.
fn check_model<T: Point>(case: Case, points: &Array3<T>, model: &KMeans<T, Ix3>, max_iter: usize) {
    assert_eq!(model.backend(), CUDA);
    assert_eq!(model.problems().len(), case.batch);
    for (problem, summary) in model.problems().iter().enumerate() {
        let centroids = model.centroids().index_axis(Axis(0), problem);
        let labels = model.labels().index_axis(Axis(0), problem);
        assert!(centroids.iter().all(|&c| c.is_finite() && T::round_centroid(c) == c), "{case:?}");
        let mut inertia = 0.0;
        let mut sizes = vec![0; case.k];
        for (row, x) in points.index_axis(Axis(0), problem).outer_iter().enumerate() {
            let (label, distance) = nearest(x.to_slice().unwrap(), centroids);
            assert_eq!(labels[row], label, "{case:?}: row {row} of problem {problem}");
            inertia += distance;
            sizes[label as usize] += 1;
        }
        assert_eq!(model.sizes().index_axis(Axis(0), problem).to_vec(), sizes);
        let error = (summary.inertia - inertia).abs();
        assert!(error <= 1e-9 * inertia, "{case:?}: inertia {:e}, not {inertia:e}", summary.inertia);
        assert_eq!(summary.history.len(), summary.n_iter);
        assert!((1..=max_iter).contains(&summary.n_iter));
        assert!(summary.converged || summary.n_iter == max_iter, "{case:?}: {summary:?}");
        assert_eq!(summary.history[0].changed, case.n as u64);
    }
    assert!(model.predict(points.view()).unwrap() == model.labels(), "{case:?}: predict");
}

fn check_fit<T: Point>(case: Case) {
    let case = case.limited();
    let points = case.points::<T>();
    let model = case.options(&points, 6).fit(points.view()).unwrap();
    check_model(case, &points, &model, 6);
}

/// One iteration from the same centroids: labels are exact on both backends, so only the rounding of sums
/// may differ.
fn check_first_means<T: Point>(case: Case) {
    let case = case.limited();
    let points = case.points::<T>();
    let options = case.options(&points, 1);
    let gpu = options.fit(points.view()).unwrap();
    let cpu = options.clone().backend(Backend::Cpu).fit(points.view()).unwrap();
    let scale = points.iter().map(|v| v.to_f64().abs()).fold(0.0, f64::max);
    check_near::<T>(case, &gpu, &cpu, scale);
    for (gpu, cpu) in gpu.problems().iter().zip(cpu.problems()) {
        assert_eq!(gpu.history[0].changed, cpu.history[0].changed);
    }
}

/// On groups far apart all iterations have the same labels.
fn check_all_means<T: Point>(case: Case) {
    let case = case.limited();
    let points = case.points::<T>();
    let options = case.options(&points, 10);
    let gpu = options.fit(points.view()).unwrap();
    let cpu = options.clone().backend(Backend::Cpu).fit(points.view()).unwrap();
    check_near::<T>(case, &gpu, &cpu, 20.0 * case.k.max(11) as f64);
    assert!(gpu.labels() == cpu.labels(), "{case:?}: labels");
    assert_eq!((gpu.n_iter(), gpu.converged()), (cpu.n_iter(), cpu.converged()), "{case:?}");
    assert!(gpu.converged() && gpu.n_iter() < 10, "{case:?}: {:?}", gpu.problems()[0]);
}

fn check_near<T: Point>(case: Case, gpu: &KMeans<T, Ix3>, cpu: &KMeans<T, Ix3>, scale: f64) {
    // A mean between two 16-bit values may go either way.
    let tolerance = scale * f64::max(1e-5, f64::from(T::EPSILON));
    for (gpu, cpu) in gpu.centroids().iter().zip(cpu.centroids()) {
        let error = f64::from(gpu - cpu).abs();
        assert!(error <= tolerance, "{case:?}: centroid {gpu:e} on the GPU, {cpu:e} on the CPU");
    }
}

const DIMENSIONS: [usize; 16] = [1, 2, 3, 7, 8, 16, 31, 64, 96, 100, 128, 192, 256, 320, 768, 1030];

/// Every dimension with every type, points and clusters in turn.
fn cases() -> Vec<Case> {
    let sizes =
        [(1, 1), (2, 2), (37, 37), (300, 1), (257, 2), (1000, 37), (1025, 256), (1500, 1000), (5000, 37)];
    let mut cases = Vec::new();
    for (at, d) in DIMENSIONS.into_iter().enumerate() {
        for turn in 0..6 {
            let at = at * 6 + turn;
            let (n, k) = sizes[at % sizes.len()];
            let batch = if n <= 300 { [1, 3, 64][at % 3] } else { 1 };
            let data = DATA[(at / 3 + turn) % DATA.len()];
            cases.push(Case { batch, n, k, d, data, seed: at as u64 });
        }
    }
    cases
}

#[test]
fn labels_inertia_and_sizes_belong_to_the_centroids() {
    if !has_gpu() {
        return;
    }
    let step = match () {
        () if is_emulated() => 25,
        () if small() => 13,
        () => 1,
    };
    for (at, case) in cases().into_iter().enumerate().step_by(step) {
        for_type!(at % 3, check_fit(case));
    }
    // All kinds of data in every type on the shape of most work.
    let step = if small() { 11 } else { 1 };
    for (at, data) in DATA.into_iter().chain(DATA).chain(DATA).enumerate().step_by(step) {
        for d in [100, 128, 300] {
            let (n, k) = if small() { (300, 40) } else { (3000, 256) };
            for_type!(at / 8, check_fit(Case { batch: 1, n, k, d, data, seed: 1 }));
        }
    }
}

#[test]
fn means_of_one_iteration_are_those_of_the_cpu() {
    if !has_gpu() {
        return;
    }
    let step = if small() { 11 } else { 2 };
    for (at, case) in cases().into_iter().enumerate().step_by(step) {
        for_type!(at / 2 % 3, check_first_means(case));
    }
}

#[test]
fn iterations_are_those_of_the_cpu_on_groups_far_apart() {
    if !has_gpu() {
        return;
    }
    for (at, d) in DIMENSIONS.into_iter().enumerate().step_by(if small() { 5 } else { 1 }) {
        let (n, k, batch) = [(500, 5, 3), (2000, 37, 1), (100, 2, if small() { 4 } else { 64 })][at % 3];
        let case = Case { batch, n, k, d, data: Data::Groups, seed: 100 + at as u64 };
        check_all_means::<f32>(case);
        check_all_means::<f16>(case);
        check_all_means::<bf16>(case);
        if !small() {
            check_all_means::<f32>(Case { n: 4000, k: 256, batch: 1, ..case });
        }
    }
}

#[test]
fn many_problems_of_a_few_points() {
    if !has_gpu() {
        return;
    }
    for d in [2, 64] {
        let batch = if small() { 40 } else { 70_000 };
        let case = Case { batch, n: 3, k: 2, d, data: Data::Integers, seed: 3 };
        for t in 0..3 {
            for_type!(t, check_many(case));
        }
    }
}

fn check_many<T: Point>(case: Case) {
    let points = case.points::<T>();
    let model = case.options(&points, 6).fit(points.view()).unwrap();
    check_model(case, &points, &model, 6);
}

/// A model's bits.
fn bits<T: Point>(model: &KMeans<T, Ix3>, problem: usize) -> (Vec<u32>, Vec<u32>, Vec<u64>) {
    let summary = &model.problems()[problem];
    let history = summary.history.iter();
    (
        model.centroids().index_axis(Axis(0), problem).iter().map(|c| c.to_bits()).collect(),
        model.labels().index_axis(Axis(0), problem).to_vec(),
        history
            .flat_map(|i| [i.inertia.to_bits(), i.changed, i.shift.to_bits()])
            .chain([summary.inertia.to_bits(), summary.n_iter as u64, summary.converged.into()])
            .collect(),
    )
}

fn check_batch<T: Point>(case: Case) {
    let case = case.limited();
    let points = case.points::<T>();
    let iterations = if small() { 3 } else { 12 };
    let together = case.options(&points, iterations).fit(points.view()).unwrap();
    for problem in 0..case.batch {
        let one = points.slice(s![problem..problem + 1, .., ..]).to_owned();
        let alone = Case { batch: 1, ..case }.options(&one, iterations).fit(one.view()).unwrap();
        assert!(bits(&together, problem) == bits(&alone, 0), "{case:?}: problem {problem}");
    }
}

#[test]
fn a_batch_is_its_problems_bit_for_bit() {
    if !has_gpu() {
        return;
    }
    let many = if small() { 5 } else { 64 };
    for (at, d) in [3, 31, 64, 128, 256].into_iter().enumerate().step_by(if small() { 2 } else { 1 }) {
        // The last are more than blocks that iterate have room for, where one is not.
        let more = if small() { 2 } else { 70 };
        for (batch, n, k) in [(3, 1000, 37), (many, 50, 5), (more, 1100, 140)] {
            let case = Case { batch, n, k, d, data: Data::Plain, seed: at as u64 };
            for_type!(at % 3, check_batch(case));
            for_type!((at + 1) % 3, check_batch(Case { data: Data::Integers, ..case }));
        }
    }
}

fn check_repeats<T: Point>(case: Case) {
    let case = case.limited();
    let points = case.points::<T>();
    let options = case.options(&points, 10);
    let first = bits(&options.fit(points.view()).unwrap(), 0);
    for repeat in 1..if small() { 3 } else { 20 } {
        let again = bits(&options.fit(points.view()).unwrap(), 0);
        assert!(again == first, "{case:?}: repeat {repeat}");
    }
}

#[test]
fn repeats_have_the_same_bits() {
    if !has_gpu() {
        return;
    }
    for (n, k, d, data) in [
        (5000, 256, 128, Data::Plain),
        (5000, 37, 64, Data::Integers),
        (3000, 1000, 33, Data::Offset),
        (4000, 100, 768, Data::Plain),
    ] {
        let (n, k) = if small() { (n / 10, k.min(40)) } else { (n, k) };
        for t in 0..if is_emulated() { 1 } else { 3 } {
            for_type!((t + d) % 3, check_repeats(Case { batch: 1, n, k, d, data, seed: 7 }));
        }
    }
}

/// Everything that a run in a workspace left.
fn bits_of_run<T: Point>(workspace: &Workspace<T>, problems: &[BatchSummary]) -> Vec<u64> {
    let mut all: Vec<u64> = workspace.centroids().unwrap().iter().map(|c| u64::from(c.to_bits())).collect();
    all.extend(workspace.labels().unwrap().iter().map(|&label| u64::from(label)));
    all.extend(bits_of_problems(problems));
    all
}

fn bits_of_problems(problems: &[BatchSummary]) -> Vec<u64> {
    let of_problem = |problem: &BatchSummary| {
        let history =
            problem.history.iter().flat_map(|i| [i.inertia.to_bits(), i.changed, i.shift.to_bits()]);
        history.chain([problem.inertia.to_bits(), problem.n_iter as u64, problem.converged.into()]).collect()
    };
    problems.iter().flat_map::<Vec<u64>, _>(of_problem).collect()
}

fn bits_of_model<T: Point>(model: &KMeans<T, Ix3>) -> Vec<u64> {
    let mut all: Vec<u64> = model.centroids().iter().map(|c| u64::from(c.to_bits())).collect();
    all.extend(model.labels().iter().map(|&label| u64::from(label)));
    all.extend(bits_of_problems(model.problems()));
    all
}

/// Launches are launched, captured and replayed in turn: all with the bits of a fit.
fn check_workspace<T: Point>(case: Case, iterations: usize, tol: f64) {
    let case = case.limited();
    let [points, others] = [case, Case { seed: case.seed + 1, ..case }].map(|case| case.points::<T>());
    let options =
        |init| FlashKMeans::new(case.k).max_iter(iterations).tol(tol).seed(3).init(init).backend(CUDA);
    let given = Init::Given(points.slice(s![.., ..case.k, ..]).mapv(|v| v.to_f64()).into_dyn());
    for init in [Init::Random, given] {
        let of_points = bits_of_model(&options(init.clone()).fit(points.view()).unwrap());
        let of_others = bits_of_model(&options(init.clone()).fit(others.view()).unwrap());
        let mut workspace = options(init).workspace::<T>(case.batch, case.n, case.d).unwrap();
        assert!(matches!(workspace.fit(), Err(Error::InvalidArgument { argument: "points", .. })));
        for (points, expected) in
            [(&points, &of_points), (&points, &of_points), (&others, &of_others), (&points, &of_points)]
        {
            workspace.load(points.view()).unwrap();
            for repeat in 0..2 {
                let problems = workspace.fit().unwrap();
                assert!(&bits_of_run(&workspace, &problems) == expected, "{case:?}: repeat {repeat}");
            }
        }
    }
    // As many centroids as rows, each its own: points in device memory.
    let mut source = FlashKMeans::new(case.n)
        .init(Init::Given(points.mapv(|v| v.to_f64()).into_dyn()))
        .max_iter(1)
        .backend(CUDA)
        .workspace::<T>(case.batch, case.n, case.d)
        .unwrap();
    source.load(points.view()).unwrap();
    source.fit().unwrap();
    assert!(
        source.centroids().unwrap() == points.mapv(Element::to_centroid),
        "{case:?}: centroids are not rows"
    );
    let mut workspace = options(Init::Random).workspace::<T>(case.batch, case.n, case.d).unwrap();
    // SAFETY: the other workspace has them there until the end of this function.
    unsafe { workspace.borrow_device(source.device_centroids()) }.unwrap();
    let expected = bits_of_model(&options(Init::Random).fit(points.view()).unwrap());
    for repeat in 0..3 {
        let problems = workspace.fit().unwrap();
        assert!(bits_of_run(&workspace, &problems) == expected, "{case:?}: borrowed, repeat {repeat}");
    }
}

#[test]
fn a_workspace_gives_the_bits_of_a_fit() {
    if !has_gpu() {
        return;
    }
    for (at, (batch, n, k, d)) in [(3, 500, 20, 64), (1, 900, 300, 128), (2, 300, 7, 100), (1, 400, 30, 200)]
        .into_iter()
        .enumerate()
        .step_by(if small() { 2 } else { 1 })
    {
        let n = if is_emulated() { n / 4 } else { n };
        let case = Case { batch, n, k, d, data: Data::Plain, seed: at as u64 };
        for (t, (iterations, tol)) in [(10, 0.0), (11, 0.0), (300, 1e-4)].into_iter().enumerate() {
            for_type!((at + t) % 3, check_workspace(case, iterations, tol));
        }
    }
}

/// Points on the GPU with other values between rows and between problems, written by a stream that nobody waits for.
fn check_device_points<T: Point>(batch: usize, n: usize, d: usize) {
    let points = Array3::from_shape_fn((batch, n + 3, d + 5), |(b, row, feature)| {
        T::of(((b * 5 + row * 31 + feature * 7) % 101) as f32)
    });
    let options = FlashKMeans::new(4).init(Init::Random).max_iter(5).backend(CUDA);
    let part = points.slice(s![.., ..n, ..d]);
    let expected = bits_of_model(&options.fit(part).unwrap());
    let mut workspace = options.workspace::<T>(batch, n, d).unwrap();
    workspace.load(part).unwrap();
    let _context = Context::new(cust::device::Device::get_device(0).unwrap()).unwrap();
    let stream = Stream::new(StreamFlags::NON_BLOCKING, None).unwrap();
    let mut values = PageLocked::<T>::new(points.len()).unwrap();
    values.copy_from_slice(points.as_slice().unwrap());
    let bytes = points.len() * size_of::<T>();
    for dense in [false, true] {
        // SAFETY: written below before it is read.
        let buffer = unsafe { DeviceBuffer::<u8>::uninitialized(bytes) }.unwrap();
        let address: *const T = buffer.as_device_ptr().as_ptr().cast();
        let mut given = DevicePoints::new(address).after(stream.as_inner().cast());
        if !dense {
            given = given.strides((n + 3) * (d + 5), d + 5);
        }
        let to = buffer.as_device_ptr().as_raw();
        // SAFETY: both live until the stream has passed the copy, which is waited for below.
        let code =
            unsafe { cust::sys::cuMemcpyHtoDAsync_v2(to, values.as_ptr().cast(), bytes, stream.as_inner()) };
        assert_eq!(code as u32, 0);
        // SAFETY: the buffer has the values when the stream is done, until the end of this function.
        unsafe { workspace.borrow_device(given) }.unwrap();
        let got = {
            let problems = workspace.fit().unwrap();
            bits_of_run(&workspace, &problems)
        };
        if dense {
            let front = &points.as_slice().unwrap()[..batch * n * d];
            let front = ArrayView3::from_shape((batch, n, d), front).unwrap();
            assert!(got == bits_of_model(&options.fit(front).unwrap()), "{batch} x {n} x {d}: dense");
        } else {
            assert!(got == expected, "{batch} x {n} x {d}: with gaps");
        }
        stream.synchronize().unwrap();
    }
    let address = values.as_ptr();
    let mut refused = |given: DevicePoints<T>| {
        // SAFETY: refused before anything is read.
        let error = unsafe { workspace.borrow_device(given) }.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { argument: "strides", .. }), "{error}");
    };
    refused(DevicePoints::new(address).strides(n * d, d - 1));
    refused(DevicePoints::new(address).strides(n * d, usize::MAX));
    if batch > 1 {
        refused(DevicePoints::new(address).strides(usize::MAX, d));
    }
}

/// The same bits from page-locked memory as from any other, whatever is between rows on the GPU.
fn check_locked<T: Point>(n: usize, d: usize) {
    let options = FlashKMeans::new(4).init(Init::Random).max_iter(5).backend(CUDA);
    let points =
        Array2::from_shape_fn((n, d), |(row, feature)| T::of(((row * 31 + feature * 7) % 101) as f32));
    let mut locked = PageLocked::<T>::new(n * d).unwrap();
    locked.copy_from_slice(points.as_slice().unwrap());
    let locked = ArrayView2::from_shape((n, d), &locked).unwrap();
    let expected = options.fit(points.view()).unwrap();
    for model in [options.fit(locked).unwrap(), options.fit_observed(locked, &mut ()).unwrap()] {
        assert_eq!(model.labels(), expected.labels(), "{n} x {d}");
        assert_eq!(model.inertia().to_bits(), expected.inertia().to_bits(), "{n} x {d}");
    }
}

#[test]
fn page_locked_points_are_taken_as_others() {
    if !has_gpu() {
        return;
    }
    check_locked::<f32>(300, 8);
    check_locked::<f32>(300, 7);
    check_locked::<f16>(250, 13);
}

#[test]
fn what_is_not_finite_is_refused_while_it_is_copied() {
    if !has_gpu() {
        return;
    }
    // More than goes through a page-locked buffer at a time.
    let (n, d) = (70_000, 64);
    let mut points = Array2::<f32>::zeros((n, d));
    points.column_mut(0).iter_mut().enumerate().for_each(|(row, value)| *value = (row % 2) as f32);
    let options = FlashKMeans::new(2).init(Init::Random).max_iter(1).backend(CUDA);
    let mut locked = PageLocked::<f32>::new(n * d).unwrap();
    for (row, column, value) in [(n - 1, d - 1, f32::NAN), (n - 9, 0, f32::INFINITY), (3, 5, f32::NAN)] {
        points[(row, column)] = value;
        locked.copy_from_slice(points.as_slice().unwrap());
        let view = ArrayView2::from_shape((n, d), &locked).unwrap();
        for view in [points.view(), view] {
            let error = options.fit(view).unwrap_err();
            let Error::NonFinite { row: at_row, column: at_column, .. } = error else { panic!("{error}") };
            assert_eq!((at_row, at_column), (row, column));
        }
    }
    // What is left of that is in nobody's way.
    let few = points.slice(s![8..208, ..]);
    assert_eq!(options.fit(few).unwrap().inertia(), 0.0);
}

#[test]
fn points_of_a_callers_stream_and_strides_are_taken() {
    if !has_gpu() {
        return;
    }
    check_device_points::<f32>(2, 300, 8);
    check_device_points::<f16>(3, 200, 64);
    check_device_points::<bf16>(1, 250, 13);
}

#[test]
fn a_caller_keeps_its_context() {
    if !has_gpu() {
        return;
    }
    let current = || {
        let mut context = std::ptr::null_mut();
        // SAFETY: a valid place for a context.
        assert_eq!(unsafe { cust::sys::cuCtxGetCurrent(&mut context) } as u32, 0);
        context as usize
    };
    let points = many_points::<f32>(300, 5);
    let use_all = |others: usize| {
        let before = current();
        let options = FlashKMeans::new(4).init(Init::Random).max_iter(3).backend(CUDA);
        let model = options.fit(points.view()).unwrap();
        assert_eq!(current(), before, "after a fit");
        model.predict(points.view()).unwrap();
        assert_eq!(current(), before, "after a prediction");
        let rows = points.index_axis(Axis(0), 0);
        options.fit_stream(&rows, &Streaming::new(), &mut ()).unwrap();
        options.clone().gpu_memory(10_000_000).fit(points.view()).unwrap();
        options.mini_batch::<f32>().unwrap().partial_fit(rows).unwrap();
        assert_eq!(current(), before, "after fits in parts");
        let mut workspace = options.workspace::<f32>(1, 300, 5).unwrap();
        assert_eq!(current(), before, "after making a workspace");
        workspace.load(points.view()).unwrap();
        workspace.fit().unwrap();
        workspace.labels().unwrap();
        workspace.centroids().unwrap();
        assert_eq!(current(), before, "after using a workspace");
        drop(workspace);
        drop(PageLocked::<f32>::new(100).unwrap());
        options.clone().backend(Backend::cuda_devices([7]).unwrap()).fit(points.view()).unwrap_err();
        assert_eq!(current(), before, "after the last of {others}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| use_all(0));
    });
    if gpus() > 1 {
        let _other = Context::new(cust::device::Device::get_device(1).unwrap()).unwrap();
        use_all(1);
    }
}

#[test]
fn a_workspace_refuses_what_it_was_not_made_for() {
    let options = FlashKMeans::new(4).backend(CUDA);
    let refused = |options: FlashKMeans, name| {
        let error = options.workspace::<f32>(1, 10, 2).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { argument, .. } if argument == name), "{error}");
    };
    refused(options.clone().n_init(2), "n_init");
    refused(options.clone().max_points_per_centroid(2), "max_points_per_centroid");
    assert!(matches!(options.workspace::<f32>(1, 3, 2), Err(Error::TooManyClusters { k: 4, n: 3 })));
    assert!(matches!(
        options.clone().backend(Backend::Cpu).workspace::<f32>(1, 10, 2),
        Err(Error::BackendUnavailable { .. })
    ));
    if !has_gpu() {
        return;
    }
    let mut workspace = options.workspace::<f32>(1, 10, 2).unwrap();
    let wrong = workspace.load(Array2::<f32>::zeros((9, 2)).view());
    assert!(matches!(wrong, Err(Error::Shape { what: "points", .. })));
    let mut points = Array2::<f32>::zeros((10, 2));
    points[(3, 1)] = f32::NAN;
    assert!(matches!(workspace.load(points.view()), Err(Error::NonFinite { row: 3, column: 1, .. })));
}

#[test]
fn two_threads_fit_at_once() {
    if !has_gpu() {
        return;
    }
    let case = |seed| Case { batch: 2, n: 3000, k: 64, d: 100, data: Data::Plain, seed }.limited();
    let run_f32 = |seed| {
        let points = case(seed).points::<f32>();
        bits(&case(seed).options(&points, 8).fit(points.view()).unwrap(), 1)
    };
    let run_f16 = |seed| {
        let points = case(seed).points::<f16>();
        bits(&case(seed).options(&points, 8).fit(points.view()).unwrap(), 1)
    };
    let expected = (run_f32(1), run_f16(2));
    std::thread::scope(|scope| {
        let a = scope.spawn(|| (0..5).all(|_| run_f32(1) == expected.0));
        let b = scope.spawn(|| (0..5).all(|_| run_f16(2) == expected.1));
        assert!(a.join().unwrap() && b.join().unwrap());
    });
}

/// The tolerance is that of the CPU: both stop in the same iteration.
#[test]
fn the_tolerance_stops_a_fit_as_on_the_cpu() {
    if !has_gpu() {
        return;
    }
    for d in [2, 64, 300] {
        for offset in [0.0, 1000.0] {
            let n = if small() { 200 } else { 2000 };
            let case = Case { batch: 2, n, k: 8, d, data: Data::Plain, seed: 11 }.limited();
            let points = case.points::<f32>().mapv(|v| v + offset);
            let options = case.options(&points, 100).tol(1e-2);
            let gpu = options.fit(points.view()).unwrap();
            let cpu = options.clone().backend(Backend::Cpu).fit(points.view()).unwrap();
            check_model(case, &points, &gpu, 100);
            let n_iter = |model: &KMeans<f32, Ix3>| {
                model.problems().iter().map(|p| (p.n_iter, p.converged)).collect::<Vec<_>>()
            };
            assert_eq!(n_iter(&gpu), n_iter(&cpu), "d = {d}, offset {offset}");
            assert!(gpu.converged() && gpu.n_iter() < 100);
        }
    }
}

/// Empty clusters keep their centroid.
#[test]
fn clusters_without_points_stay_where_they_are() {
    if !has_gpu() {
        return;
    }
    let points = array![[0.0f32, 0.0], [1.0, 0.0], [0.0, 1.0]];
    let given = array![[100.0, 100.0], [0.0, 0.0], [-50.0, 3.0]].into_dyn();
    let model = FlashKMeans::new(3).init(Init::Given(given)).backend(CUDA).fit(points.view()).unwrap();
    assert_eq!(model.labels().to_vec(), [1, 1, 1]);
    assert_eq!(model.centroids().row(0).to_vec(), [100.0, 100.0]);
    assert_eq!(model.centroids().row(2).to_vec(), [-50.0, 3.0]);
    assert_eq!(model.sizes().to_vec(), [0, 3, 0]);
    assert!(model.converged());
}

/// A distance that overflows in f32 is still to the only cluster.
#[test]
fn one_cluster_takes_points_at_any_distance() {
    if !has_gpu() {
        return;
    }
    let points = array![[1e30f32, -1e30], [-1e30, 1e30], [0.0, 0.0]];
    let given = array![[2e30, 2e30]].into_dyn();
    let model =
        FlashKMeans::new(1).max_iter(1).init(Init::Given(given)).backend(CUDA).fit(points.view()).unwrap();
    assert_eq!(model.labels().to_vec(), [0, 0, 0]);
    // The mean is 0 to the precision of the points.
    assert!(model.centroids().iter().all(|c| c.abs() < 1e-6 * 1e30), "{}", model.centroids());
}

/// Views that are not contiguous, and other points than those of the fit.
#[test]
fn predict_takes_other_points() {
    if !has_gpu() {
        return;
    }
    let case = Case { batch: 1, n: 500, k: 20, d: 64, data: Data::Plain, seed: 21 };
    let points = case.points::<f16>();
    let train: Array2<f16> = points.index_axis(Axis(0), 0).to_owned();
    let model: KMeans<f16, Ix2> = FlashKMeans::new(20).seed(1).backend(CUDA).fit(train.view()).unwrap();
    let others = Case { n: 333, seed: 22, ..case }.points::<f16>();
    let others = others.index_axis(Axis(0), 0);
    for view in [others, others.slice(s![..;-1, ..]), others.slice(s![..1, ..])] {
        let labels = model.predict(view).unwrap();
        for (row, x) in view.outer_iter().enumerate() {
            assert_eq!(labels[row], nearest(&x.to_vec(), model.centroids().view()).0);
        }
    }
}

/// Squares of values under 1e-22 are 0 in f32, and bfloat16 has such values: norms and bounds must not be 0 with them.
#[test]
fn values_whose_squares_vanish() {
    if !has_gpu() {
        return;
    }
    let step = if small() { 3 } else { 1 };
    let last = if is_emulated() { (140, 70) } else { (600, 64) };
    for (k, d) in [(5, 3), (300, 3), (300, 200), last].into_iter().step_by(step) {
        for scale in [1e-15f32, 1e-22, 1e-24, 1e-30, 1e-37].into_iter().step_by(step) {
            let points = Array2::from_shape_fn((2 * k, d), |(row, feature)| {
                bf16::from_f32(((row * (feature + 7)) % 251) as f32 * scale)
            });
            let centroids = points.slice(s![k.., ..]).mapv(bf16::to_f32);
            let labels = |backend| {
                let model = KMeans::<bf16, Ix2>::from_centroids(centroids.view(), backend).unwrap();
                model.predict(points.view()).unwrap()
            };
            assert!(labels(CUDA) == labels(Backend::Cpu), "k {k}, d {d}, values of {scale:e}");
        }
    }
}

#[test]
fn many_points_of_few_dimensions_that_are_assigned_again() {
    if !has_gpu() || small() {
        return;
    }
    // Each centroid is there three times, so that no point is sure, in tiles enough to go round all that is in a ring.
    let (n, k, d) = (1 << 19, 3 * 683, 64);
    let points = Array2::from_shape_fn((n, d), |(row, feature)| {
        let hash = ((row * d + feature) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        f16::from_f32(
            (hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) as u32 as f32 * 2f32.powi(-31) - 1.0,
        )
    });
    let centroids = Array2::from_shape_fn((k, d), |(row, feature)| {
        let of = row / 3;
        points[[of, feature]].to_f32() * (0.25 + 1.5 * (3 * of) as f32 / k as f32)
    });
    let labels = |backend| {
        let model = KMeans::<f16, Ix2>::from_centroids(centroids.view(), backend).unwrap();
        model.predict(points.view()).unwrap()
    };
    let expected = labels(Backend::Cpu);
    for _ in 0..3 {
        let found = labels(CUDA);
        let wrong = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert_eq!(wrong, 0);
    }
}

#[test]
fn points_of_f64_are_refused() {
    let refused = FlashKMeans::new(1).backend(CUDA).fit(array![[0.0f64]].view());
    assert!(matches!(refused, Err(Error::BackendUnavailable { backend: CUDA, .. })), "{refused:?}");
}

#[test]
fn any_problem_is_fitted() {
    if !has_gpu() {
        return;
    }
    // Under a sanitizer a launch takes a thousand times as long.
    let [n, k] = if small() { [301, 40] } else { [3000, 400] };
    let problem = (
        (0..3, 1usize..4, prop_oneof![1usize..300, 300usize..n]),
        prop_oneof![1usize..10, 1usize..k],
        prop_oneof![1usize..40, 1usize..300],
        prop::sample::select(DATA.to_vec()),
        any::<u64>(),
    );
    let config = ProptestConfig {
        cases: if small() { 3 } else { 40 },
        failure_persistence: None,
        max_shrink_iters: 100,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&problem, |((t, batch, n), k, d, data, seed)| {
        let case = Case { batch, n, k: k.min(n), d, data, seed };
        for_type!(t, check_fit(case));
        for_type!(t, check_first_means(case));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Lloyd's iterations on much data: labels differ from the CPU's only where a point has two nearest centroids.
fn check_agreement(n: usize, k: usize) {
    let case = Case { batch: 1, n, k, d: 128, data: Data::Plain, seed: 31 };
    let points = case.points::<f32>();
    let options = case.options(&points, 4);
    let gpu = options.fit(points.view()).unwrap();
    let cpu = options.clone().backend(Backend::Cpu).fit(points.view()).unwrap();
    let difference = (gpu.inertia() - cpu.inertia()).abs();
    assert!(difference <= 1e-6 * cpu.inertia(), "{:e}, not {:e}", gpu.inertia(), cpu.inertia());
    let centroids = gpu.centroids().index_axis(Axis(0), 0);
    let mut differ = 0;
    for (row, x) in points.index_axis(Axis(0), 0).outer_iter().enumerate() {
        let [a, b] = [gpu.labels()[(0, row)], cpu.labels()[(0, row)]];
        if a != b {
            let to = |label: u32| {
                distance(x.to_slice().unwrap(), centroids.row(label as usize).to_slice().unwrap())
            };
            differ += 1;
            assert!((to(b) - to(a)).abs() <= 1e-4 * to(a), "row {row}: {:e} and {:e}", to(a), to(b));
        }
    }
    assert!(differ <= n / 1000, "{differ} of {n} labels differ");
}

#[test]
fn much_data_agrees_with_the_cpu() {
    if !has_gpu() {
        return;
    }
    if !small() {
        check_agreement(100_000, 256);
    }
    if is_set("FLASH_KMEANS_LARGE") {
        check_agreement(1_000_000, 1024);
    }
}

// ---- parts ----

/// Rows of several panels.
const SEVERAL: usize = (2 << 20) + 300_001;

/// Groups with much noise, quickly made.
fn many_points<T: Point>(n: usize, d: usize) -> Array3<T> {
    let mut bits = 1u32;
    Array3::from_shape_fn((1, n, d), |(_, row, feature)| {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        T::of(((row * 7 + feature * 3) % 11) as f32 + (bits >> 8) as f32 / (1 << 24) as f32)
    })
}

/// Counts iterations.
struct Counts(usize);
impl<C: flash_kmeans::Float> Observer<C> for Counts {
    fn iteration(&mut self, _: IterationEnd<'_, C>) -> ControlFlow<()> {
        self.0 += 1;
        ControlFlow::Continue(())
    }
}

fn check_parts<T: Point>(d: usize, tol: f64) {
    let (n, k) = (SEVERAL, 50);
    let points = many_points::<T>(n, d);
    let options = FlashKMeans::new(k).init(Init::Random).max_iter(5).tol(tol).backend(CUDA);
    let whole = bits_but_costs(&options.fit(points.view()).unwrap());
    // Room for one chunk, for two of three, and for all.
    let value = size_of::<T>() + if size_of::<T>() == 4 { 2 } else { 0 };
    let chunk = (1 << 20) * (d.next_multiple_of(8) * value + 110);
    for (chunks, repeats) in [(1.2, 1), (2.2, 1), (3.3, 1)] {
        let memory = (n * 5) as f64 + chunk as f64 * chunks + 30e6;
        for _ in 0..repeats {
            match options.clone().gpu_memory(memory as u64).fit(points.view()) {
                Ok(model) => assert!(bits_but_costs(&model) == whole, "d {d}, tol {tol}: {chunks} chunks"),
                Err(error) => panic!("d {d}, {chunks} chunks in {memory} bytes: {error}"),
            }
        }
    }
    // From a source, with all other ways out of the library.
    let rows = points.index_axis(Axis(0), 0);
    let mut counts = Counts(0);
    let streamed = options
        .clone()
        .gpu_memory(chunk as u64 * 2 + 100_000_000)
        .fit_stream(&rows, &Streaming::new(), &mut counts)
        .unwrap();
    assert_eq!(counts.0, streamed.n_iter());
    assert!(streamed.labels().iter().zip(points.axis_iter(Axis(1))).count() == n);
    let labels: Vec<u64> = streamed.labels().iter().map(|&label| u64::from(label)).collect();
    assert!(whole[k * d..k * d + n] == labels, "d {d}: streamed");
    let observed = options.fit_observed(points.view(), &mut counts).unwrap();
    assert!(bits_but_costs(&observed) == whole, "d {d}: observed");
    assert_eq!(counts.0, 2 * streamed.n_iter());
}

#[test]
fn parts_have_the_bits_of_the_whole() {
    if !has_gpu() {
        return;
    }
    if is_emulated() {
        // Of panels that blocks sum, and of panels that are sorted.
        check_few_parts::<f16>(5000, 12, 0.0, 2);
        check_few_parts::<f32>(3000, 7, 1e-4, 2);
        if is_set("FLASH_KMEANS_LARGE") {
            check_few_parts::<f32>(33_000, 3, 0.0, 1);
        }
        return;
    }
    if small() {
        return;
    }
    check_parts::<f16>(16, 0.0);
    check_parts::<f32>(20, 1e-4);
    check_parts::<bf16>(20, 1e-4);
    check_parts::<f32>(5, 0.0);
}

/// In as little memory as chunks have room in, and so many times in a little more.
fn check_few_parts<T: Point>(n: usize, d: usize, tol: f64, times: usize) {
    let points = many_points::<T>(n, d);
    let options =
        FlashKMeans::new(5).init(Init::Random).max_iter(if times > 1 { 3 } else { 2 }).tol(tol).backend(CUDA);
    let whole = bits_but_costs(&options.fit(points.view()).unwrap());
    let (mut memory, mut fits) = (50_000u64, 0);
    while fits < times {
        match options.clone().gpu_memory(memory).fit(points.view()) {
            Ok(model) => {
                assert!(bits_but_costs(&model) == whole, "n {n}, d {d}, tol {tol} in {memory} bytes");
                fits += 1;
            }
            Err(Error::OutOfDeviceMemory { requested, free }) => {
                assert!(fits == 0 && requested > free, "{requested} of {free} bytes in {memory}");
            }
            Err(error) => panic!("n {n}, d {d} in {memory} bytes: {error}"),
        }
        memory = memory * 5 / 4;
    }
    let mut counts = Counts(0);
    let rows = points.index_axis(Axis(0), 0);
    let streamed = options.gpu_memory(memory).fit_stream(&rows, &Streaming::new(), &mut counts).unwrap();
    assert_eq!(counts.0, streamed.n_iter());
    let labels: Vec<u64> = streamed.labels().iter().map(|&label| u64::from(label)).collect();
    assert!(whole[5 * d..][..n] == labels, "n {n}, d {d}: streamed");
}

/// Notes which rows are read, each iteration's by themselves.
struct Noted<'a> {
    points: ArrayView2<'a, f16>,
    passes: Mutex<Vec<Vec<Range<usize>>>>,
}

impl Source<f16> for Noted<'_> {
    fn n_points(&self) -> usize {
        self.points.nrows()
    }

    fn n_features(&self) -> usize {
        self.points.ncols()
    }

    fn read(&self, rows: Range<usize>, into: &mut [f16]) -> flash_kmeans::Result<()> {
        // Single rows are the first point, and those that centroids are drawn from.
        if rows.len() > 1 {
            self.passes.lock().unwrap().last_mut().unwrap().push(rows.clone());
        }
        Source::read(&self.points, rows, into)
    }
}

impl Observer<f32> for &Noted<'_> {
    fn iteration(&mut self, _: IterationEnd<'_, f32>) -> ControlFlow<()> {
        self.passes.lock().unwrap().push(Vec::new());
        ControlFlow::Continue(())
    }
}

#[test]
fn the_last_chunks_of_a_pass_are_not_read_for_the_next() {
    if !has_gpu() {
        return;
    }
    let (n, d, chunk) = (8 * 1024, 4, 1024);
    let points = many_points::<f16>(n, d);
    let points = points.index_axis(Axis(0), 0);
    let options = FlashKMeans::new(5).init(Init::Random).max_iter(2).tol(0.0).backend(CUDA);
    let whole = options.fit(points.view()).unwrap();
    let streaming = Streaming::new().memory((3 * chunk * d * 2) as u64);
    let mut kept = Vec::new();
    for memory in std::iter::successors(Some(50_000u64), |memory| Some(memory + memory / 16)) {
        let noted = Noted { points, passes: Mutex::new(vec![Vec::new()]) };
        match options.clone().gpu_memory(memory).fit_stream(&noted, &streaming, &mut &noted) {
            Ok(model) => assert_eq!(model.labels(), whole.labels(), "in {memory} bytes"),
            Err(Error::OutOfDeviceMemory { .. }) if kept.is_empty() => continue,
            Err(error) => panic!("{error}"),
        }
        let passes = noted.passes.into_inner().unwrap();
        let chunks = (0..n).step_by(chunk).map(|row| row..row + chunk);
        assert!(passes[0].iter().cloned().eq(chunks), "{:?}", passes[0]);
        let left = passes[1].len();
        for two in passes.windows(2) {
            // Two at the most do not stay, where there is room for two.
            let last = two[0].len().saturating_sub(if left < 7 { 2 } else { 1 });
            assert!(two[0][last..].iter().all(|rows| !two[1].contains(rows)), "{passes:?}");
            assert_eq!(two[1].len(), left, "{passes:?}");
        }
        kept.push(8 - left);
        if left == 0 {
            break;
        }
    }
    kept.dedup();
    assert_eq!(kept, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn memory_that_earlier_fits_left_does_not_count() {
    if !has_gpu() {
        return;
    }
    let points = many_points::<f16>(5000, 12);
    let options = FlashKMeans::new(5).init(Init::Random).max_iter(1).backend(CUDA);
    let fits = |memory: u64| match options.clone().gpu_memory(memory).fit(points.view()) {
        Ok(_) => true,
        Err(Error::OutOfDeviceMemory { .. }) => false,
        Err(error) => panic!("{memory} bytes: {error}"),
    };
    let least = (50_000..10_000_000).step_by(50_000).find(|&memory| fits(memory)).expect("room in 10 MB");
    // Blocks of up to a megabyte, which a later call takes for less too.
    for n in [14_000, 10_000, 7000] {
        options.fit(many_points::<f16>(n, 12).view()).unwrap();
    }
    // At once, so that not all find the blocks that fits in as little memory left.
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| fits(least))).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()), "{least} bytes");
    });
}

#[test]
fn no_room_for_one_chunk_is_an_error_with_the_bytes() {
    if !has_gpu() || (small() && !is_emulated()) {
        return;
    }
    let (n, memory) = if is_emulated() { (40_000, 100_000) } else { (SEVERAL, 30_000_000) };
    let points = many_points::<f16>(n, 16);
    let options = FlashKMeans::new(5).init(Init::Random).backend(CUDA).gpu_memory(memory);
    match options.fit(points.view()) {
        Err(Error::OutOfDeviceMemory { requested, free }) => assert!(requested > free, "{requested} {free}"),
        other => panic!("{:?}", other.map(|model| model.n_iter())),
    }
}

/// GPUs that the driver shows.
fn gpus() -> u32 {
    devices().iter().filter(|device| matches!(device.backend, Backend::Cuda { .. })).count() as u32
}

#[test]
fn several_gpus_have_the_bits_of_one() {
    if !has_gpu() || gpus() < 2 || (small() && !is_emulated()) {
        return;
    }
    for_type!(0, check_gpus());
    for_type!(1, check_gpus());
}

fn check_gpus<T: Point>() {
    let (n, k, memory) = if is_emulated() { (7000, 7, 2_000_000) } else { (4 << 20, 70, 250_000_000) };
    let points = many_points::<T>(n, 16);
    let options = FlashKMeans::new(k).init(Init::Random).max_iter(6).tol(1e-4);
    let one = options.clone().backend(CUDA).fit(points.view()).unwrap();
    for count in 2..=gpus() {
        let all = options.clone().backend(Backend::cuda_devices(0..count).unwrap());
        assert!(bits_but_costs(&all.fit(points.view()).unwrap()) == bits_but_costs(&one), "{count} GPUs");
        let little = all.gpu_memory(memory).fit(points.view()).unwrap();
        assert!(bits_but_costs(&little) == bits_but_costs(&one), "{count} GPUs, little memory");
    }
    // A batch is spread over them.
    let batch = Array3::from_shape_fn((7, n.min(14_000) / 7, 16), |(b, row, feature)| {
        points[(0, b * n / 7 + row, feature)]
    });
    let one = options.clone().backend(CUDA).fit(batch.view()).unwrap();
    let all = options.backend(Backend::cuda_devices(0..gpus()).unwrap()).fit(batch.view()).unwrap();
    assert!(bits_but_costs(&all) == bits_but_costs(&one));
}
