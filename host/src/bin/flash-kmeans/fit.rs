//! `flash-kmeans fit`.
use crate::args::{DTypeArg, FitArgs, InitArg, Metric};
use crate::check::{self, Outputs, with_dtype};
use crate::failure::{Failure, bad_file};
use crate::given::Given;
use crate::stdout::{print, print_json, row};
use flash_kmeans::io::{PointFile, Value, write_atomically, write_npy};
use flash_kmeans::report::{Picture, grouped};
use flash_kmeans::{Backend, DType, Element, Error, FlashKMeans, Init, KMeans, ModelFile, PointsDim};
use ndarray::{Axis, Ix2, Ix3};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What `fit` was asked for: the files are open and checked, the options are set.
struct Plan {
    file: PointFile,
    dtype: DType,
    options: FlashKMeans,
    n_clusters: usize,
    centroids: Option<PathBuf>,
    labels: Option<PathBuf>,
    model: Option<PathBuf>,
    picture: Option<PathBuf>,
    report: Option<PathBuf>,
    parameters: Vec<(&'static str, String)>,
    json: bool,
    quiet: bool,
}

/// Runs the command.
pub(crate) fn run(args: FitArgs, quiet: bool) -> Result<(), Failure> {
    let plan = Plan::new(args, quiet)?;
    with_dtype!(plan.dtype, T => match plan.file.batch() {
        None => plan.run::<T, Ix2>(),
        Some(_) => plan.run::<T, Ix3>(),
    })
}

/// The type that points of `file` are read as.
pub(crate) fn dtype_of(file: &PointFile, typed: Option<DTypeArg>) -> DType {
    typed.map_or(file.stored_type().natural_dtype(), DType::from)
}

impl Plan {
    fn new(args: FitArgs, quiet: bool) -> Result<Self, Failure> {
        // The one metric there is; matched so that another cannot be added and forgotten here.
        let Metric::Euclidean = args.metric;
        let file = check::input(&args.input)?;
        let n_clusters = args.n_clusters.get();
        if n_clusters > file.n_points() {
            let error = Error::TooManyClusters { k: n_clusters, n: file.n_points() };
            return Err(Failure::from(error).of(&args.input.display().to_string()));
        }
        let mut inputs = vec![args.input.as_path()];
        let init = match &args.init {
            InitArg::Random => Init::Random,
            InitArg::KMeansPlusPlus => Init::KMeansPlusPlus,
            InitArg::KMeansParallel => Init::KMeansParallel { oversampling: 2.0, rounds: 5 },
            InitArg::File(path) => {
                inputs.push(path);
                given(path, &file, n_clusters)?
            }
        };
        let mut outputs = Outputs::beside(inputs);
        for (option, path, endings) in [
            ("--centroids", &args.centroids, &["npy"][..]),
            ("--labels", &args.labels, &["npy"]),
            ("--model", &args.model, &["safetensors"]),
            ("--picture", &args.picture, &["svg"]),
            ("--report", &args.report, &["html"]),
        ] {
            if let Some(path) = path {
                outputs.check(option, path, endings)?;
            }
        }
        let n_init = args.n_init.get();
        if n_init > 1 && matches!(init, Init::Given(_)) {
            return Err(Failure::bad_input(format!(
                "--n-init {n_init}: from the centroids of a file every start is the same"
            )));
        }
        let parameters = vec![
            ("first centroids", args.init.to_string()),
            ("starts", n_init.to_string()),
            ("seed", args.seed.to_string()),
            ("tolerance", format!("{:e}", args.tol)),
            ("iterations at most", args.max_iter.to_string()),
            (
                "points a cluster",
                args.max_points_per_centroid.map_or("all".into(), |m| format!("at most {m}")),
            ),
        ];
        let mut options = FlashKMeans::new(n_clusters)
            .n_init(n_init)
            .init(init)
            .max_iter(args.max_iter.get())
            .tol(args.tol)
            .seed(args.seed)
            .backend(args.backend);
        if let Some(m) = args.max_points_per_centroid {
            options = options.max_points_per_centroid(m.get());
        }
        Ok(Plan {
            dtype: dtype_of(&file, args.dtype),
            file,
            options,
            n_clusters,
            centroids: args.centroids,
            labels: args.labels,
            model: args.model,
            picture: args.picture,
            report: args.report,
            parameters,
            json: args.json,
            quiet,
        })
    }

    fn run<T, D>(&self) -> Result<(), Failure>
    where
        T: Element<Centroid: Value>,
        D: PointsDim,
    {
        let file = &self.file;
        tracing::info!(
            "{}: {} values of shape {:?}",
            file.path().display(),
            file.stored_type(),
            file.shape()
        );
        let points = file.read::<T>()?;
        let points =
            points.view().into_dimensionality::<D>().map_err(|e| Failure::bad_input(e.to_string()))?;
        let start = Instant::now();
        let model = self.options.fit(points.view()).map_err(|e| check::of_points(e, file, self.dtype))?;
        let time = start.elapsed();

        if let Some(path) = &self.centroids {
            write_npy(path, model.centroids().view())?;
        }
        if let Some(path) = &self.labels {
            write_npy(path, model.labels().view())?;
        }
        if let Some(path) = &self.model {
            model.save(path)?;
        }
        if let Some(path) = &self.picture {
            let text = self.picture(&model, points.view(), time)?.svg();
            write_atomically(path, |out| out.write_all(text.as_bytes()))?;
        }
        if let Some(path) = &self.report {
            let text = self.picture(&model, points, time)?.html();
            write_atomically(path, |out| out.write_all(text.as_bytes()))?;
        }
        if self.json {
            print_json(&Summary::new(&model, file, self.n_clusters, time))
        } else if self.quiet {
            Ok(())
        } else {
            print(self.summary(&model, time).trim_end())
        }
    }

    fn picture<T: Element, D: PointsDim>(
        &self,
        model: &KMeans<T, D>,
        points: ndarray::ArrayView<'_, T, D>,
        time: Duration,
    ) -> Result<Picture, Failure> {
        let shape = |e: ndarray::ShapeError| Failure::bad_input(e.to_string());
        let mut points = points.into_dyn();
        let mut labels = model.labels().view().into_dyn();
        let mut centroids = model.centroids().view().into_dyn();
        let mut title = self.file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(batch) = self.file.batch() {
            tracing::info!("the picture shows the first of {batch} problems");
            title.push_str(", problem 0");
            points = points.index_axis_move(Axis(0), 0);
            labels = labels.index_axis_move(Axis(0), 0);
            centroids = centroids.index_axis_move(Axis(0), 0);
        }
        let mut picture = Picture::new(
            points.into_dimensionality().map_err(shape)?,
            labels.into_dimensionality().map_err(shape)?,
            centroids.into_dimensionality().map_err(shape)?,
        )?
        .title(title);
        if let Some(first) = model.problems().first() {
            picture = picture.history(&first.history);
        }
        for (name, value) in self.facts(model, time).into_iter().chain(self.parameters.clone()) {
            picture = picture.fact(name, value);
        }
        Ok(picture)
    }

    fn facts<T: Element, D: PointsDim>(
        &self,
        model: &KMeans<T, D>,
        time: Duration,
    ) -> Vec<(&'static str, String)> {
        let mut facts = vec![
            ("points", grouped(self.file.n_points() as u64)),
            ("dimensions", grouped(self.file.n_features() as u64)),
            ("clusters", grouped(self.n_clusters as u64)),
        ];
        if let Some(batch) = self.file.batch() {
            facts.insert(0, ("problems", grouped(batch as u64)));
        }
        let how = if model.converged() { "converged" } else { "stopped before it converged" };
        facts.push(("iterations", format!("{}, {how}", model.n_iter())));
        facts.push(("inertia", format!("{:.6e}", model.inertia())));
        facts.push(("time", format!("{:.3} s", time.as_secs_f64())));
        facts.push(("type", self.dtype.to_string()));
        facts.push(("backend", format!("{}, {}", model.backend(), model.device())));
        facts
    }

    fn summary<T: Element, D: PointsDim>(&self, model: &KMeans<T, D>, time: Duration) -> String {
        let mut text = format!("{}\n", self.file.path().display());
        for (name, value) in self.facts(model, time) {
            text.push_str(&row(name, value));
        }
        // Writing to a String cannot fail.
        let _ = match self.file.batch() {
            None => write_sizes(&mut text, model.sizes().iter().copied().collect()),
            Some(_) => write_problems(&mut text, model),
        };
        for path in
            [&self.centroids, &self.labels, &self.model, &self.picture, &self.report].into_iter().flatten()
        {
            text.push_str(&row("wrote", path.display()));
        }
        text
    }
}

/// First centroids from a file: as many rows and columns as the fit needs.
fn given(path: &std::path::Path, points: &PointFile, k: usize) -> Result<Init, Failure> {
    let file = if check::ending(path) == "safetensors" {
        ModelFile::open(path).map(Given::Model).map_err(bad_file)?
    } else {
        Given::Npy(check::input(path)?)
    };
    let d = points.n_features();
    let fits = match (file.shape(), points.batch()) {
        (&[rows, columns], _) => (rows, columns) == (k, d),
        (&[batch, rows, columns], Some(problems)) => (batch, rows, columns) == (problems, k, d),
        _ => false,
    };
    if !fits {
        let needed = points.batch().map_or(String::new(), |batch| format!(" or [{batch}, {k}, {d}]"));
        return Err(Failure::bad_input(format!(
            "{}: has shape {:?}; first centroids for -k {k} and {} must have shape [{k}, {d}]{needed}",
            path.display(),
            file.shape(),
            points.path().display()
        )));
    }
    let centroids = file.centroids()?;
    if let Some(at) = centroids.iter().position(|v| !v.is_finite()) {
        let value = centroids.iter().nth(at).copied().unwrap_or(f64::NAN).to_string();
        let error = Error::NonFinite { what: "centroids", row: at / d, column: at % d, value };
        return Err(Failure::from(error).of(&path.display().to_string()));
    }
    Ok(Init::Given(centroids))
}

/// The object that `--json` prints.
#[derive(serde::Serialize)]
struct Summary {
    n: usize,
    d: usize,
    k: usize,
    batch: usize,
    n_iter: usize,
    inertia: f64,
    converged: bool,
    backend: String,
    device: String,
    seconds: f64,
}

impl Summary {
    fn new<T: Element, D: PointsDim>(
        model: &KMeans<T, D>,
        file: &PointFile,
        k: usize,
        time: Duration,
    ) -> Self {
        debug_assert_ne!(model.backend(), Backend::Auto);
        Summary {
            n: file.n_points(),
            d: file.n_features(),
            k,
            batch: file.batch().unwrap_or(1),
            n_iter: model.n_iter(),
            inertia: model.inertia(),
            converged: model.converged(),
            backend: model.backend().to_string(),
            device: model.device(),
            seconds: time.as_secs_f64(),
        }
    }
}

/// The largest clusters, with bars, and how sizes are spread.
fn write_sizes(text: &mut String, sizes: Vec<u64>) -> std::fmt::Result {
    const SHOWN: usize = 10;
    const BAR: f64 = 32.0;
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&cluster| (std::cmp::Reverse(sizes[cluster]), cluster));
    let at = |place: usize| sizes[order[place.min(order.len() - 1)]];
    let spread = [at(usize::MAX), at(order.len() / 2), at(0)].map(grouped);
    text.push_str(&row("sizes", format!("{} to {}, median {}", spread[0], spread[2], spread[1])));
    writeln!(text, "\n  {:>8}  {:>14}", "cluster", "points")?;
    for &cluster in order.iter().take(SHOWN) {
        let bar = "█".repeat((sizes[cluster] as f64 / at(0).max(1) as f64 * BAR).round() as usize);
        writeln!(text, "  {cluster:>8}  {:>14}  {bar}", grouped(sizes[cluster]))?;
    }
    if order.len() > SHOWN {
        writeln!(text, "  {:>8}  {:>14}", "…", format!("{} more", grouped((order.len() - SHOWN) as u64)))?;
    }
    writeln!(text)
}

fn write_problems<T: Element, D: PointsDim>(text: &mut String, model: &KMeans<T, D>) -> std::fmt::Result {
    const SHOWN: usize = 10;
    writeln!(text, "\n  {:>8}  {:>14}  {:>10}  converged", "problem", "inertia", "iterations")?;
    for (problem, end) in model.problems().iter().enumerate().take(SHOWN) {
        let converged = if end.converged { "yes" } else { "no" };
        writeln!(text, "  {problem:>8}  {:>14.6e}  {:>10}  {converged}", end.inertia, end.n_iter)?;
    }
    if model.problems().len() > SHOWN {
        writeln!(text, "  {:>8}  {:>14}", "…", format!("{} more", model.problems().len() - SHOWN))?;
    }
    writeln!(text)
}
