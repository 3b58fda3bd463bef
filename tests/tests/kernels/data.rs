//! Data to test on, and plain references in float64.
use crate::device::Point;
use kernels_gpu::spec::*;
use proptest::prelude::*;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 11) as usize % n
    }
    /// `0..n` in any order.
    pub(crate) fn shuffled(&mut self, n: u32) -> Vec<u32> {
        let mut values: Vec<u32> = (0..n).collect();
        (1..values.len()).rev().for_each(|at| values.swap(at, self.below(at + 1)));
        values
    }
    /// In `-1..1`.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Values that points have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Data {
    /// Between -1 and 1.
    Plain,
    /// 0, 1 and 2: many ties.
    Integers,
    Constant,
    /// Far from 0, neighbours a few roundings apart.
    Offset,
    /// About 1e-6.
    Small,
    /// Rows of norms from 1e-6 to 1e6.
    Mixed,
    /// Squares overflow in f32.
    Large,
    /// Differences do.
    Huge,
    /// The least values of the type.
    Subnormal,
    /// One row of magnitudes far apart, in many orders: distances that are equal but for rounding in f64.
    Permuted,
}

impl Data {
    pub(crate) const ALL: [Data; 10] = [
        Data::Plain,
        Data::Integers,
        Data::Constant,
        Data::Offset,
        Data::Small,
        Data::Mixed,
        Data::Large,
        Data::Huge,
        Data::Subnormal,
        Data::Permuted,
    ];
    /// Those whose sums over any rows are finite in f32.
    pub(crate) const SUMMABLE: [Data; 9] = [
        Data::Plain,
        Data::Integers,
        Data::Constant,
        Data::Offset,
        Data::Small,
        Data::Mixed,
        Data::Large,
        Data::Subnormal,
        Data::Permuted,
    ];

    fn row<T: Point>(self, d: usize, random: &mut Random) -> Vec<f32> {
        let row_scale = 10f32.powf(6.0 * random.unit());
        let mut row: Vec<f32> = (0..d)
            .map(|feature| match self {
                Data::Plain => random.unit(),
                Data::Integers => random.below(3) as f32,
                Data::Constant => 0.7,
                Data::Offset => {
                    let base = f32::min(1e6, T::MAX * 0.9);
                    base + base * T::EPSILON * 8.0 * random.unit()
                }
                Data::Small => 1e-6 * random.unit(),
                Data::Mixed => row_scale * random.unit(),
                Data::Large => 1e19 * random.unit(),
                Data::Huge => T::MAX * random.unit(),
                Data::Subnormal => T::TINY * (random.below(9) as f32 - 4.0),
                Data::Permuted => 2f32.powi(feature as i32 * 7 % 41 - 24) * (1.0 + feature as f32 / 512.0),
            })
            .collect();
        if self == Data::Permuted {
            for at in 1..d {
                row.swap(at, random.below(at + 1));
            }
        }
        row.into_iter().map(|v| T::from_f32(v.clamp(-T::MAX, T::MAX)).to_f32()).collect()
    }

    /// Rows of `T` at `pitch`, zeros between them, and centroids: new ones, copies of points and of each other.
    pub(crate) fn problems<T: Point>(self, shape: Shape, random: &mut Random) -> (Vec<T>, Vec<f32>) {
        let [batch, n, k, d, pitch] =
            [shape.batch, shape.n, shape.k, shape.d, shape.pitch].map(|v| v as usize);
        let mut points = vec![T::from_f32(0.0); batch * n * pitch];
        let mut centroids = Vec::new();
        for problem in 0..batch {
            for row in 0..n {
                // Permuted centroids are seen from points at equal distance of them all.
                let values = if self == Data::Permuted { vec![0.0; d] } else { self.row::<T>(d, random) };
                let at = (problem * n + row) * pitch;
                points[at..at + d].iter_mut().zip(&values).for_each(|(p, &v)| *p = T::from_f32(v));
            }
            for cluster in 0..k {
                let values: Vec<f32> = match random.below(8) {
                    0 => {
                        let at = (problem * n + random.below(n)) * pitch;
                        points[at..at + d].iter().map(|p| p.to_f32()).collect()
                    }
                    1 if cluster > 0 => {
                        let at = (problem * k + random.below(cluster)) * d;
                        centroids[at..at + d].to_vec()
                    }
                    _ => self.row::<T>(d, random),
                };
                centroids.extend(values);
            }
        }
        (points, centroids)
    }
}

/// `Σ (x − c)²`, the features in order.
pub(crate) fn distance<T: Point>(x: &[T], c: &[T]) -> f64 {
    let mut sum = 0.0;
    for (&x, &c) in x.iter().zip(c) {
        let difference = f64::from(x.to_f32()) - f64::from(c.to_f32());
        sum += difference * difference;
    }
    sum
}

/// The lowest index of the nearest centroid, and the distance to it.
pub(crate) fn nearest<T: Point>(x: &[T], centroids: &[T]) -> (u32, f64) {
    let mut best = (u32::MAX, f64::INFINITY);
    for (label, c) in centroids.chunks(x.len()).enumerate() {
        let distance = distance(x, c);
        if distance < best.1 {
            best = (label as u32, distance);
        }
    }
    best
}

/// The points and centroids of a problem.
pub(crate) struct View<'a, T> {
    pub(crate) points: &'a [T],
    pub(crate) centroids: &'a [T],
    shape: Shape,
}

impl<'a, T: Point> View<'a, T> {
    pub(crate) fn new(points: &'a [T], centroids: &'a [T], shape: Shape, problem: usize) -> Self {
        let of_points = shape.n as usize * shape.pitch as usize;
        let of_centroids = shape.k as usize * shape.d as usize;
        View {
            points: &points[problem * of_points..][..of_points],
            centroids: &centroids[problem * of_centroids..][..of_centroids],
            shape,
        }
    }
    pub(crate) fn point(&self, row: usize) -> &'a [T] {
        &self.points[row * self.shape.pitch as usize..][..self.shape.d as usize]
    }
    pub(crate) fn centroid(&self, cluster: usize) -> &'a [T] {
        &self.centroids[cluster * self.shape.d as usize..][..self.shape.d as usize]
    }
    pub(crate) fn nearest(&self, row: usize) -> (u32, f64) {
        nearest(self.point(row), self.centroids)
    }
}

/// The rows of a panel in order of their labels, equal ones in order of the rows; and where each cluster
/// begins.
pub(crate) fn sorted_panel(labels: &[u32], k: u32, first: usize, len: usize) -> (Vec<u32>, Vec<u32>) {
    let mut rows: Vec<u32> = (first as u32..(first + len) as u32).collect();
    rows.sort_by_key(|&row| labels[row as usize]);
    let mut starts = vec![0; k as usize + 1];
    for &row in &rows {
        starts[labels[row as usize] as usize + 1] += 1;
    }
    for cluster in 0..k as usize {
        starts[cluster + 1] += starts[cluster];
    }
    (rows, starts)
}

/// First row and length of each panel.
pub(crate) fn panels_of(n: u32, panels: Panels) -> impl Iterator<Item = (usize, usize)> {
    (0..n).step_by(panels.len as usize).map(move |first| (first as usize, panels.len.min(n - first) as usize))
}

/// How labels are spread over clusters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Labels {
    Uniform,
    One,
    /// Only a few in the middle: empty clusters at both ends.
    Middle,
    /// A quarter of the clusters has nearly all.
    Skewed,
    /// Equal ones come together already.
    Runs,
}

impl Labels {
    pub(crate) const ALL: [Labels; 5] =
        [Labels::Uniform, Labels::One, Labels::Middle, Labels::Skewed, Labels::Runs];

    pub(crate) fn draw(self, n: usize, k: u32, random: &mut Random) -> Vec<u32> {
        let k = k as usize;
        let one = random.below(k);
        (0..n)
            .map(|row| match self {
                Labels::Uniform => random.below(k),
                Labels::One => one,
                Labels::Middle => k / 3 + random.below(k.div_ceil(5)).min(k - 1 - k / 3),
                Labels::Skewed if random.below(50) > 0 => random.below(k.div_ceil(4)),
                Labels::Skewed => random.below(k),
                Labels::Runs => (n - 1 - row) * k / n,
            } as u32)
            .collect()
    }
}

/// Each problem has stopped with a chance of a quarter.
pub(crate) fn done(batch: u32, random: &mut Random) -> Vec<bool> {
    (0..batch).map(|_| random.below(4) == 0).collect()
}

pub(crate) fn data(of: &[Data]) -> impl Strategy<Value = Data> + use<> {
    prop::sample::select(of.to_vec())
}

#[track_caller]
pub(crate) fn assert_near(actual: f64, expected: f64, tolerance: f64, what: &str) {
    // Written so that NaN fails.
    let near = (actual - expected).abs() <= tolerance || actual == expected;
    assert!(near, "{what}: {actual:e}, not {expected:e} ± {tolerance:e}");
}

/// Calls `$body` for the type of points with that number.
macro_rules! for_type {
    ($number:expr, $body:ident $arguments:tt) => {
        match $number {
            0 => $body::<f32> $arguments,
            1 => $body::<F16> $arguments,
            _ => $body::<BF16> $arguments,
        }
    };
}
pub(crate) use for_type;
