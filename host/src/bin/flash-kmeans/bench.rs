//! `flash-kmeans bench`.
use crate::args::{BenchArgs, InitArg};
use crate::check::machine_memory;
use crate::failure::Failure;
use crate::generate::normals;
use crate::job;
use crate::stdout::{print, print_json, row};
use flash_kmeans::io::Value;
use flash_kmeans::report::grouped;
#[cfg(feature = "cuda")]
use flash_kmeans::stages::{Samples, StageTimes, Workload, time_points};
use flash_kmeans::{Backend, DType, Element, Error, FlashKMeans, Init, KMeans, Precision};
use half::{bf16, f16};
use ndarray::{Array3, ArrayView3, Ix3, s};
use std::time::Instant;

/// The problems to fit, and how.
struct Plan {
    batch: usize,
    n: usize,
    d: usize,
    k: usize,
    dtype: DType,
    init: InitArg,
    iterations: usize,
    repeats: usize,
    seed: u64,
    precision: Precision,
    backend: Backend,
}

/// Runs the command.
pub(crate) fn run(args: BenchArgs, quiet: bool) -> Result<(), Failure> {
    job::refuse("bench measures one process")?;
    let json = args.json;
    let plan = Plan::new(args)?;
    let report = match plan.dtype {
        DType::F16 => plan.measure(f16::from_f64),
        DType::BF16 => plan.measure(bf16::from_f64),
        DType::F64 => plan.measure(|value| value),
        _ => plan.measure(|value| value as f32),
    }?;
    if json {
        print_json(&report)
    } else if quiet {
        Ok(())
    } else {
        print(report.text().trim_end())
    }
}

impl Plan {
    fn new(args: BenchArgs) -> Result<Self, Failure> {
        let plan = Plan {
            batch: args.batch.get(),
            n: args.n.get(),
            d: args.d.get(),
            k: args.n_clusters.get(),
            dtype: args.dtype.into(),
            init: args.init,
            iterations: args.iterations.get(),
            repeats: args.repeats.get(),
            seed: args.seed,
            precision: args.precision.into(),
            backend: args.devices.unwrap_or(args.backend),
        };
        if plan.k > plan.n {
            return Err(Error::TooManyClusters { k: plan.k, n: plan.n }.into());
        }
        let value_bytes: u128 = match plan.dtype {
            DType::F16 | DType::BF16 => 2,
            DType::F64 => 8,
            _ => 4,
        };
        // A product of three that each fit into 64 bits need not fit into 128.
        let rows = plan.batch as u128 * plan.n as u128;
        let needed = rows.saturating_mul(plan.d as u128).saturating_mul(value_bytes);
        let limit = machine_memory().map_or(isize::MAX as u64, |bytes| bytes / 2);
        if needed > u128::from(limit) {
            return Err(Failure::bad_input(format!(
                "the points take {needed} bytes, and bench takes at most half of the machine's memory, {limit} bytes"
            ))
            .hint("ask for fewer points with --n, or for fewer problems with --batch"));
        }
        Ok(plan)
    }

    /// Fits of points that `convert` makes of float64.
    fn measure<T: Element<Centroid: Value>>(
        &self,
        convert: impl Fn(f64) -> T + Sync,
    ) -> Result<Report, Failure> {
        // Opens the device before there are points to wait for, and says which one it is.
        let anywhere = KMeans::<T, Ix3>::from_centroids(
            Array3::from_elem((1, 1, 1), T::round_centroid(Default::default())).view(),
            self.backend,
        )?;
        let (backend, device) = (anywhere.backend(), anywhere.device());
        tracing::info!("fits of normal points, {} times", self.repeats);
        let values = normals(self.batch * self.n * self.d, self.seed, convert);
        let shape = (self.batch, self.n, self.d);
        let points = Array3::from_shape_vec(shape, values).map_err(|e| Failure::bad_input(e.to_string()))?;
        let points = points.view();
        let first = points.slice(s![.., ..self.k, ..]);
        let options = FlashKMeans::new(self.k)
            .tol(0.0)
            .seed(self.seed)
            .precision(self.precision)
            .max_iter(self.iterations)
            .backend(backend);
        let whole = options.clone().init(match self.init {
            InitArg::Random => Init::Random,
            InitArg::KMeansParallel => Init::KMeansParallel { oversampling: 2.0, rounds: 5 },
            _ => Init::KMeansPlusPlus,
        });
        let given = options.init(Init::Given(first.mapv(|v| v.to_f64()).into_dyn()));

        // The first call opens what later ones find open.
        let precision = given.clone().max_iter(1).fit(points)?.precision();
        let (call, _) = self.repeat(|| whole.fit(points))?;
        let stages = match self.stages(points, backend)? {
            Some(stages) => stages,
            None => self.stages_by_calls(points, &given, backend)?,
        };
        let rows = (self.batch * self.n) as f64;
        let flop = 2.0 * rows * self.k as f64 * self.d as f64;
        let rate = |work: f64, time: Option<Seconds>| {
            time.filter(|time| time.median > 0.0).map(|time| work / time.median)
        };
        Ok(Report {
            n: self.n,
            d: self.d,
            k: self.k,
            batch: self.batch,
            dtype: self.dtype.to_string(),
            precision: precision.to_string(),
            init: self.init.to_string(),
            seed: self.seed,
            iterations: self.iterations,
            repeats: self.repeats,
            backend: backend.to_string(),
            device,
            call_seconds: call,
            points_per_second: rate(rows, stages.iteration),
            assign_flops: rate(flop, stages.assign),
            stages,
        })
    }

    /// What can be told of iterations by calls alone.
    fn stages_by_calls<T: Element<Centroid: Value>>(
        &self,
        points: ArrayView3<'_, T>,
        given: &FlashKMeans,
        backend: Backend,
    ) -> Result<Stages, Failure> {
        let assign = if backend == Backend::Cpu {
            let first = points.slice(s![.., ..self.k, ..]).mapv(T::to_centroid);
            let nearest = KMeans::<T, Ix3>::from_centroids(first.view(), backend)?;
            self.repeat(|| nearest.predict(points))?.0
        } else {
            None
        };
        let (one, _) = self.repeat(|| given.clone().max_iter(1).fit(points))?;
        let more = given.clone().max_iter(self.iterations.saturating_add(1));
        let (more, model) = self.repeat(|| more.fit(points))?;
        // Copies and the closing assignment are in both: what is left is iterations, where there were more.
        let iterations = model.map_or(0, |model| model.n_iter().saturating_sub(1));
        let iteration = one.zip(more).filter(|_| iterations > 0).map(|(one, more)| {
            let of = |seconds: f64| (seconds - one.min).max(0.0) / iterations as f64;
            Seconds { median: of(more.median), min: of(more.min), max: of(more.max) }
        });
        Ok(Stages { iteration, assign, ..Stages::default() })
    }

    /// How long a call takes, and what the last one gave.
    fn repeat<R>(
        &self,
        mut call: impl FnMut() -> flash_kmeans::Result<R>,
    ) -> Result<(Option<Seconds>, Option<R>), Failure> {
        let (mut samples, mut last) = (Vec::new(), None);
        for _ in 0..self.repeats {
            let start = Instant::now();
            let given = call()?;
            samples.push(start.elapsed().as_secs_f64());
            last = Some(given);
        }
        Ok((Seconds::of(samples), last))
    }

    /// What the events of a single GPU say. Nothing where all points have no room on it.
    #[cfg(feature = "cuda")]
    fn stages<T: Element>(
        &self,
        points: ArrayView3<'_, T>,
        backend: Backend,
    ) -> Result<Option<Stages>, Failure> {
        let (Backend::Cuda { ordinal }, Some(points)) = (backend, points.to_slice()) else { return Ok(None) };
        let Plan { batch, n, k, d, dtype, precision, .. } = *self;
        let workload = Workload { batch, n, k, d, dtype, precision };
        match time_points(ordinal, points, workload, self.iterations) {
            Ok(times) => Ok(Some(Stages::from(times))),
            Err(Error::OutOfDeviceMemory { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(feature = "cuda"))]
    fn stages<T: Element>(&self, _: ArrayView3<'_, T>, _: Backend) -> Result<Option<Stages>, Failure> {
        Ok(None)
    }
}

/// What was measured several times.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
struct Seconds {
    median: f64,
    min: f64,
    max: f64,
}

impl Seconds {
    /// Nothing for no samples. The median of an even number is the upper one of two.
    fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let (&min, &max) = (samples.first()?, samples.last()?);
        Some(Seconds { median: samples[samples.len() / 2], min, max })
    }
}

#[cfg(feature = "cuda")]
impl From<StageTimes> for Stages {
    fn from(times: StageTimes) -> Self {
        let seconds =
            |samples: Samples| Seconds::of(samples.milliseconds().iter().map(|ms| ms / 1e3).collect());
        Stages {
            iteration: seconds(times.iteration),
            assign: seconds(times.assign),
            sort: seconds(times.sort),
            sums: seconds(times.sums),
            finalise: seconds(times.finalise),
        }
    }
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scale, unit) = match self.median {
            second if second >= 1.0 => (1.0, "s"),
            milli if milli >= 1e-3 => (1e3, "ms"),
            _ => (1e6, "µs"),
        };
        let [median, min, max] = [self.median, self.min, self.max].map(|seconds| seconds * scale);
        write!(f, "{median:.3} {unit} ({min:.3} to {max:.3})")
    }
}

/// An iteration and its parts, as far as they can be told apart.
#[derive(Debug, Default, serde::Serialize)]
struct Stages {
    #[serde(rename = "iteration_seconds")]
    iteration: Option<Seconds>,
    #[serde(rename = "assign_seconds")]
    assign: Option<Seconds>,
    #[serde(rename = "sort_seconds")]
    sort: Option<Seconds>,
    #[serde(rename = "sums_seconds")]
    sums: Option<Seconds>,
    #[serde(rename = "finalise_seconds")]
    finalise: Option<Seconds>,
}

/// The object that `--json` prints.
#[derive(serde::Serialize)]
struct Report {
    n: usize,
    d: usize,
    k: usize,
    batch: usize,
    dtype: String,
    precision: String,
    init: String,
    seed: u64,
    iterations: usize,
    repeats: usize,
    backend: String,
    device: String,
    call_seconds: Option<Seconds>,
    #[serde(flatten)]
    stages: Stages,
    #[serde(rename = "assign_flop_per_second")]
    assign_flops: Option<f64>,
    points_per_second: Option<f64>,
}

impl Report {
    fn text(&self) -> String {
        let problems = if self.batch > 1 {
            format!("{} problems of ", grouped(self.batch as u64))
        } else {
            String::new()
        };
        let mut text = format!(
            "{problems}{} points, {} dimensions, {} clusters, {}, {}\n",
            grouped(self.n as u64),
            grouped(self.d as u64),
            grouped(self.k as u64),
            self.dtype,
            self.precision
        );
        text.push_str(&row("backend", format!("{}, {}", self.backend, self.device)));
        let mut time = |name, seconds: Option<Seconds>, note: String| {
            if let Some(seconds) = seconds {
                text.push_str(&row(name, format!("{seconds}{note}")));
            }
        };
        let whole = format!(": {}, {} iterations at most, labels", self.init, self.iterations);
        time("call", self.call_seconds, whole);
        let points = self.points_per_second.map(|rate| format!(": {} points/s", grouped(rate as u64)));
        time("iteration", self.stages.iteration, points.unwrap_or_default());
        let flops = self.assign_flops.map(|rate| match rate {
            tera if tera >= 1e12 => format!(": {:.1} TFLOP/s", tera / 1e12),
            giga => format!(": {:.1} GFLOP/s", giga / 1e9),
        });
        time("assign", self.stages.assign, flops.unwrap_or_default());
        time("sort", self.stages.sort, String::new());
        time("sums", self.stages.sums, String::new());
        time("finalise", self.stages.finalise, String::new());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_told_by_their_middle_and_ends() {
        let three = Seconds::of(vec![0.003, 0.001, 0.002]);
        assert_eq!(three, Some(Seconds { median: 0.002, min: 0.001, max: 0.003 }));
        assert_eq!(three.map(|three| three.to_string()).as_deref(), Some("2.000 ms (1.000 to 3.000)"));
        assert_eq!(Seconds::of(Vec::new()), None);
        assert_eq!(Seconds::of(vec![4.0; 2]).map(|two| two.median), Some(4.0));
    }
}
