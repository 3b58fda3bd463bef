//! `flash-kmeans predict`.
use crate::args::PredictArgs;
use crate::check::{self, Outputs, with_dtype};
use crate::failure::Failure;
use crate::given::Given;
use crate::stdout::{print, print_json, row};
use flash_kmeans::io::{PointFile, Value, write_npy};
use flash_kmeans::report::grouped;
use flash_kmeans::{Backend, DType, Element, Error, Metric, PointsDim, Precision};
use ndarray::{Ix2, Ix3};
use std::path::{Path, PathBuf};
use std::time::Instant;

struct Plan {
    file: PointFile,
    given: Given,
    labels: PathBuf,
    distances: Option<PathBuf>,
    nearest: Option<usize>,
    dtype: DType,
    metric: Metric,
    precision: Precision,
    backend: Backend,
    json: bool,
    quiet: bool,
}

/// Runs the command.
pub(crate) fn run(args: PredictArgs, quiet: bool) -> Result<(), Failure> {
    let plan = Plan::new(args, quiet)?;
    with_dtype!(plan.dtype, T => match plan.file.batch() {
        None => plan.run::<T, Ix2>(),
        Some(_) => plan.run::<T, Ix3>(),
    })
}

/// The object that `--json` prints.
#[derive(serde::Serialize)]
struct Summary {
    n: usize,
    d: usize,
    k: usize,
    batch: usize,
    metric: String,
    precision: String,
    backend: String,
    device: String,
    seconds: f64,
}

impl Plan {
    fn new(args: PredictArgs, quiet: bool) -> Result<Self, Failure> {
        let file = check::input(&args.input)?;
        let given = Given::open(&args.given)?;
        given.check_fits(&file)?;
        if let Some(m) = args.nearest.filter(|m| m.get() > given.k()) {
            let rule = "there are not as many centroids";
            return Err(Error::InvalidArgument { argument: "--nearest", value: m.to_string(), rule }.into());
        }
        let inputs: [&Path; 2] = [&args.input, given.path()];
        let mut outputs = Outputs::beside(inputs);
        outputs.check("--labels", &args.labels, &["npy"])?;
        if let Some(path) = &args.distances {
            outputs.check("--distances", path, &["npy"])?;
        }
        Ok(Plan {
            dtype: given.dtype(&file, args.dtype)?,
            metric: given.metric(args.metric)?,
            precision: args.precision.into(),
            file,
            given,
            labels: args.labels,
            distances: args.distances,
            nearest: args.nearest.map(|m| m.get()),
            backend: args.backend,
            json: args.json,
            quiet,
        })
    }

    fn run<T: Element<Centroid: Value>, D: PointsDim>(&self) -> Result<(), Failure> {
        let shape = |e: ndarray::ShapeError| Failure::bad_input(e.to_string());
        let mut model = self.given.model::<T, D>(self.metric, self.backend)?;
        model.set_precision(self.precision);
        let points = self.file.read::<T>()?;
        let points = points.view().into_dimensionality::<D>().map_err(shape)?;
        let of_points = |e| check::of_points(e, &self.file, self.dtype);
        let start = Instant::now();
        let (labels, distances) = if let Some(m) = self.nearest {
            let nearest = model.predict_nearest(points, m).map_err(of_points)?;
            (nearest.labels.into_dyn(), Some(nearest.distances.into_dyn()))
        } else if self.distances.is_some() {
            let nearest = model.predict_with_distances(points).map_err(of_points)?;
            (nearest.labels.into_dyn(), Some(nearest.distances.into_dyn()))
        } else {
            (model.predict(points).map_err(of_points)?.into_dyn(), None)
        };
        let seconds = start.elapsed().as_secs_f64();
        write_npy(&self.labels, labels.view())?;
        if let (Some(path), Some(distances)) = (&self.distances, distances) {
            write_npy(path, distances.view())?;
        }

        let k = self.given.k();
        if self.json {
            return print_json(&Summary {
                n: self.file.n_points(),
                d: self.file.n_features(),
                k,
                batch: self.file.batch().unwrap_or(1),
                metric: self.metric.to_string(),
                precision: model.precision().to_string(),
                backend: model.backend().to_string(),
                device: model.device(),
                seconds,
            });
        }
        if self.quiet {
            return Ok(());
        }
        let mut text = format!("{}\n", self.file.path().display());
        text.push_str(&row("points", grouped(self.file.n_rows() as u64)));
        text.push_str(&row("clusters", grouped(k as u64)));
        text.push_str(&row("metric", self.metric));
        text.push_str(&row("precision", model.precision()));
        text.push_str(&row("time", format!("{seconds:.3} s")));
        text.push_str(&row("backend", format!("{}, {}", model.backend(), model.device())));
        for path in [Some(&self.labels), self.distances.as_ref()].into_iter().flatten() {
            text.push_str(&row("wrote", path.display()));
        }
        print(text.trim_end())
    }
}
