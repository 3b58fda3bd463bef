//! How long each stage of an iteration takes on a GPU: what `bench` reports.
use crate::error::{Error, Result};
use crate::{DType, Element, Precision};
use half::{bf16, f16};

/// The problems to time: `batch` of `n` points in `d` dimensions with `k` clusters.
///
/// # Examples
/// ```
/// # use flash_kmeans::{DType, Precision};
/// # use flash_kmeans::stages::{Workload, time};
/// # // Nothing to show without a GPU.
/// # let Ok(_) = flash_kmeans::FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
/// let workload = Workload { batch: 1, n: 1000, k: 4, d: 8, dtype: DType::F32, precision: Precision::Exact };
/// let times = time(0, workload, 3)?;
/// let products = (workload.batch * workload.n * workload.k * workload.d) as f64;
/// println!("{} GFLOP/s", 2e-6 * products / times.assign.median());
/// # assert!(times.assign.median() > 0.0);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Problems.
    pub batch: usize,
    /// Points of a problem.
    pub n: usize,
    /// Clusters of a problem.
    pub k: usize,
    /// Dimensions.
    pub d: usize,
    /// Type of the points.
    pub dtype: DType,
    /// Whether labels are exact.
    pub precision: Precision,
}

/// What a stage took each time, in milliseconds by device events.
///
/// # Examples
/// ```
/// # use flash_kmeans::{DType, Precision};
/// # use flash_kmeans::stages::{Workload, time};
/// # // Nothing to show without a GPU.
/// # let Ok(_) = flash_kmeans::FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
/// let workload = Workload { batch: 1, n: 1000, k: 4, d: 8, dtype: DType::F32, precision: Precision::Exact };
/// let assign = time(0, workload, 3)?.assign;
/// assert_eq!(assign.milliseconds().len(), 3);
/// assert!(assign.milliseconds().contains(&assign.median()));
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn new(milliseconds: Vec<f64>) -> Self {
        Samples(milliseconds)
    }

    /// In the order in which they were taken.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::stages::Samples;
    ///
    /// assert!(Samples::default().milliseconds().is_empty());
    /// ```
    pub fn milliseconds(&self) -> &[f64] {
        &self.0
    }

    /// The middle one, the upper of two; NaN without samples.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::stages::Samples;
    ///
    /// assert!(Samples::default().median().is_nan());
    /// ```
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Where points would stay in the GPU's L2 cache from one sample to the next, the cache is overwritten in between.
///
/// # Examples
/// ```
/// # use flash_kmeans::{DType, Precision};
/// # use flash_kmeans::stages::{Workload, time};
/// # // Nothing to show without a GPU.
/// # let Ok(_) = flash_kmeans::FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
/// let workload = Workload { batch: 1, n: 1000, k: 4, d: 8, dtype: DType::F32, precision: Precision::Exact };
/// let times = time(0, workload, 3)?;
/// for (stage, samples) in [("assign", times.assign), ("sort", times.sort), ("sums", times.sums)] {
///     println!("{stage}: {} ms", samples.median());
///     # assert!(samples.median() >= 0.0);
/// }
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageTimes {
    /// Labels: packing centroids, products, settling.
    pub assign: Samples,
    /// Sorting the row indices by label.
    pub sort: Samples,
    /// Sums of the sorted points.
    pub sums: Samples,
    /// Means, moves and convergence.
    pub finalise: Samples,
    /// From labels to centroids: the three before as one.
    pub update: Samples,
    /// A whole iteration: of two, launched without waiting in between, the mean. Of few points it may take less than its stages, which
    /// are launches of their own then.
    pub iteration: Samples,
    /// Share of the points that the tensor-core pass left two candidates for, in the last iteration.
    pub settled: f64,
    /// Share of the points for which all centroids were compared again.
    pub searched: f64,
}

/// Standard normal values, the same for a seed on every machine: a counter through a 64-bit mixer, four
/// 16-bit uniforms added up (Irwin–Hall), which is close enough to normal for timing and fast.
///
/// # Examples
/// ```
/// use flash_kmeans::stages::normal_points;
///
/// let values = normal_points::<f32>(1000, 7, |value| value);
/// assert_eq!(values, normal_points::<f32>(1000, 7, |value| value));
/// let mean = values.iter().sum::<f32>() / 1000.0;
/// assert!(mean.abs() < 0.2, "{mean}");
/// ```
pub fn normal_points<T: Element>(count: usize, seed: u64, convert: impl Fn(f32) -> T + Sync) -> Vec<T> {
    use rayon::prelude::*;
    let value = |i: usize| {
        let mut z = (i as u64)
            .wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let sum = (z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48);
        (sum as f32 / 65_536.0 - 2.0) * 1.732_050_8
    };
    (0..count).into_par_iter().with_min_len(1 << 14).map(|i| convert(value(i))).collect()
}

/// Times `iterations` iterations on CUDA device `ordinal`, on normal points with the first `k` as centroids.
///
/// # Errors
/// As [`crate::FlashKMeans::fit`] with [`crate::Backend::Cuda`].
///
/// # Examples
/// ```
/// # use flash_kmeans::{DType, Precision};
/// # use flash_kmeans::stages::{Workload, time};
/// # // Nothing to show without a GPU.
/// # let Ok(_) = flash_kmeans::FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
/// let workload = Workload { batch: 1, n: 1000, k: 4, d: 8, dtype: DType::F32, precision: Precision::Exact };
/// let times = time(0, workload, 3)?;
/// assert_eq!(times.iteration.milliseconds().len(), 3);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
pub fn time(ordinal: u32, workload: Workload, iterations: usize) -> Result<StageTimes> {
    let count = workload.batch * workload.n * workload.d;
    match workload.dtype {
        DType::F32 => time_points(ordinal, &normal_points::<f32>(count, 1, |v| v), workload, iterations),
        DType::F16 => time_points(ordinal, &normal_points(count, 1, f16::from_f32), workload, iterations),
        DType::BF16 => time_points(ordinal, &normal_points(count, 1, bf16::from_f32), workload, iterations),
        DType::F64 => Err(Error::InvalidArgument {
            argument: "dtype",
            value: "f64".into(),
            rule: "f64 points do not run on a GPU",
        }),
    }
}

/// Times `iterations` iterations on CUDA device `ordinal`, on the rows of `points`, problem after problem, with the
/// first `k` rows of each as centroids. The type of the points is that of the slice.
///
/// # Errors
/// As [`crate::FlashKMeans::fit`] with [`crate::Backend::Cuda`]; [`Error::InvalidArgument`] when there are not
/// `batch·n·d` values, or fewer points than clusters.
///
/// # Examples
/// ```
/// # use flash_kmeans::{DType, Precision};
/// # use flash_kmeans::stages::{Workload, time_points};
/// # // Nothing to show without a GPU.
/// # let Ok(_) = flash_kmeans::FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
/// let workload = Workload { batch: 1, n: 1000, k: 4, d: 8, dtype: DType::F32, precision: Precision::Exact };
/// let points: Vec<f32> = (0..8000).map(|i| (i * 37 % 101) as f32).collect();
/// let times = time_points(0, &points, workload, 3)?;
/// assert_eq!(times.iteration.milliseconds().len(), 3);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
pub fn time_points<T: Element>(
    ordinal: u32,
    points: &[T],
    workload: Workload,
    iterations: usize,
) -> Result<StageTimes> {
    let Workload { batch, n, k, d, .. } = workload;
    if points.is_empty() || points.len() != batch * n * d {
        let (argument, value) = ("points", format!("{} values", points.len()));
        return Err(Error::InvalidArgument { argument, value, rule: "there must be batch·n·d values" });
    }
    if k == 0 || k > n {
        let value = k.to_string();
        return Err(Error::InvalidArgument { argument: "k", value, rule: "k must be between 1 and n" });
    }
    let _visit = crate::backend::cuda::Visit::begin();
    let device = crate::backend::cuda::Device::open(ordinal)?;
    let problem = crate::points::Problem { points: points.into(), batch, n, d, weights: None };
    crate::backend::cuda::time_stages(&device, &problem, (k, workload.precision), iterations)
}
