//! `flash-kmeans predict`.
use crate::args::PredictArgs;
use crate::check::{self, Outputs, with_dtype};
use crate::failure::Failure;
use crate::fit::dtype_of;
use crate::stdout::{print, print_json, row};
use flash_kmeans::io::{PointFile, write_npy};
use flash_kmeans::report::grouped;
use flash_kmeans::{Backend, DType, Element, Error, KMeans, PointsDim};
use ndarray::{Ix2, Ix3};
use std::path::PathBuf;
use std::time::Instant;

struct Plan {
    file: PointFile,
    centroids: PointFile,
    labels: PathBuf,
    dtype: DType,
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
    backend: String,
    device: String,
    seconds: f64,
}

impl Plan {
    fn new(args: PredictArgs, quiet: bool) -> Result<Self, Failure> {
        let file = check::input(&args.input)?;
        let centroids = check::input(&args.centroids)?;
        if (file.batch(), file.n_features()) != (centroids.batch(), centroids.n_features()) {
            return Err(Failure::bad_input(format!(
                "{} has shape {:?} and {} has shape {:?}: all but the number of rows must agree",
                file.path().display(),
                file.shape(),
                centroids.path().display(),
                centroids.shape()
            )));
        }
        let inputs = [args.input.as_path(), &args.centroids];
        Outputs::beside(inputs).check("--labels", &args.labels, &["npy"])?;
        Ok(Plan {
            dtype: dtype_of(&file, args.dtype),
            file,
            centroids,
            labels: args.labels,
            backend: args.backend,
            json: args.json,
            quiet,
        })
    }

    fn run<T: Element, D: PointsDim>(&self) -> Result<(), Failure> {
        let shape = |e: ndarray::ShapeError| Failure::bad_input(e.to_string());
        let centroids = self.centroids.read::<T::Centroid>()?;
        let centroids = centroids.view().into_dimensionality::<D>().map_err(shape)?;
        let model = KMeans::<T, D>::from_centroids(centroids, self.backend).map_err(|e| match e {
            e @ Error::NonFinite { .. } => Failure::from(e).of(&self.centroids.path().display().to_string()),
            e => e.into(),
        })?;
        let points = self.file.read::<T>()?;
        let points = points.view().into_dimensionality::<D>().map_err(shape)?;
        let start = Instant::now();
        let labels = model.predict(points).map_err(|e| check::of_points(e, &self.file, self.dtype))?;
        let seconds = start.elapsed().as_secs_f64();
        write_npy(&self.labels, labels.view())?;

        let k = self.centroids.n_points();
        if self.json {
            return print_json(&Summary {
                n: self.file.n_points(),
                d: self.file.n_features(),
                k,
                batch: self.file.batch().unwrap_or(1),
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
        text.push_str(&row("time", format!("{seconds:.3} s")));
        text.push_str(&row("backend", format!("{}, {}", model.backend(), model.device())));
        text.push_str(&row("wrote", self.labels.display()));
        print(text.trim_end())
    }
}
