//! `flash-kmeans transform`.
use crate::args::TransformArgs;
use crate::check::{self, Outputs, with_dtype};
use crate::failure::Failure;
use crate::given::Given;
use crate::stdout::{print, print_json, row};
use flash_kmeans::io::{PointFile, PointWriter, Value};
use flash_kmeans::report::grouped;
use flash_kmeans::{Backend, Element, Error, KMeans, Metric, PointsDim};
use ndarray::{Axis, Ix2, Ix3, s};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Distances that are held at a time.
const VALUES: usize = 1 << 22;

/// The object that `--json` prints.
#[derive(serde::Serialize)]
struct Summary {
    n: usize,
    d: usize,
    k: usize,
    batch: usize,
    metric: String,
    seconds: f64,
}

struct Plan {
    file: PointFile,
    given: Given,
    metric: Metric,
    distances: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: TransformArgs, quiet: bool) -> Result<(), Failure> {
    let file = check::input(&args.input)?;
    let given = Given::open(&args.given)?;
    given.check_fits(&file)?;
    let dtype = given.dtype(&file, args.dtype)?;
    let inputs: [&Path; 2] = [&args.input, given.path()];
    Outputs::beside(inputs).check("--distances", &args.distances, &["npy"])?;
    let metric = given.metric(args.metric)?;
    let plan = Plan { file, given, metric, distances: args.distances };

    let start = Instant::now();
    with_dtype!(dtype, T => match plan.file.batch() {
        None => plan.write::<T, Ix2>(),
        Some(_) => plan.write::<T, Ix3>(),
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let (file, k) = (&plan.file, plan.given.k());
    if args.json {
        let (n, d, batch) = (file.n_points(), file.n_features(), file.batch().unwrap_or(1));
        return print_json(&Summary { n, d, k, batch, metric: metric.to_string(), seconds });
    }
    if quiet {
        return Ok(());
    }
    let mut text = format!("{}\n", file.path().display());
    text.push_str(&row("points", grouped(file.n_rows() as u64)));
    text.push_str(&row("clusters", grouped(k as u64)));
    text.push_str(&row("metric", metric));
    text.push_str(&row("time", format!("{seconds:.3} s")));
    text.push_str(&row("wrote", plan.distances.display()));
    print(text.trim_end())
}

impl Plan {
    /// Writes the distances a few rows at a time, one problem after the other.
    fn write<T: Element<Centroid: Value>, D: PointsDim>(&self) -> Result<(), Failure> {
        let shape = |e: ndarray::ShapeError| Failure::bad_input(e.to_string());
        let model = self.given.model::<T, D>(self.metric, Backend::Cpu)?;
        let points = self.file.read::<T>()?;
        let (mut points, mut centroids) = (points.view(), model.centroids().view().into_dyn());
        if self.file.batch().is_none() {
            points.insert_axis_inplace(Axis(0));
            centroids.insert_axis_inplace(Axis(0));
        }
        let points = points.into_dimensionality::<Ix3>().map_err(shape)?;
        let centroids = centroids.into_dimensionality::<Ix3>().map_err(shape)?;

        let k = self.given.k();
        let mut of_result = self.file.shape().to_vec();
        of_result.pop();
        of_result.push(k);
        let mut out = PointWriter::<T::Centroid>::create(&self.distances, &of_result)?;
        let rows = (VALUES / k).max(1);
        for (problem, (points, centroids)) in points.outer_iter().zip(centroids.outer_iter()).enumerate() {
            let model = KMeans::<T, Ix2>::with_metric(centroids, self.metric, Backend::Cpu)?;
            for first in (0..points.nrows()).step_by(rows) {
                let part = points.slice(s![first..(first + rows).min(points.nrows()), ..]);
                let distances = model.transform(part).map_err(|e| match e {
                    Error::NonFinite { what, row, column, value } => {
                        let row = problem * points.nrows() + first + row;
                        let e = Error::NonFinite { what, row, column, value };
                        check::of_points(e, &self.file, T::DTYPE)
                    }
                    e => e.into(),
                })?;
                out.write_rows(&distances.into_raw_vec_and_offset().0)?;
            }
        }
        Ok(out.finish()?)
    }
}
