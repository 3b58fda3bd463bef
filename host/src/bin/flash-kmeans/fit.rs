//! `flash-kmeans fit`.
use crate::args::{DTypeArg, FitArgs, InitArg, NanArg};
use crate::check::{self, Outputs, machine_memory, with_dtype};
use crate::failure::{Failure, bad_file};
use crate::given::Given;
use crate::job;
#[cfg(feature = "mpi")]
use crate::job::Job;
use crate::stdout::{print, print_json, row};
use crate::watch::Watcher;
#[cfg(feature = "mpi")]
use flash_kmeans::Observer;
use flash_kmeans::io::{PointFile, Value, write_atomically, write_npy};
use flash_kmeans::report::{Picture, grouped};
use flash_kmeans::{
    Backend, DType, Element, EmptyClusters, Error, FlashKMeans, Init, KMeans, Metric, ModelFile, PointsDim,
    Streaming, Weighted,
};
use ndarray::{Array1, Array2, ArrayView, Axis, CowArray, Ix2, Ix3, IxDyn};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What `fit` was asked for: the files are open and checked, the options are set.
struct Plan {
    file: PointFile,
    /// One value a point.
    weights: Option<PointFile>,
    dtype: DType,
    options: FlashKMeans,
    metric: Metric,
    n_clusters: usize,
    centroids: Option<PathBuf>,
    labels: Option<PathBuf>,
    model: Option<PathBuf>,
    picture: Option<PathBuf>,
    report: Option<PathBuf>,
    parameters: Vec<(&'static str, String)>,
    /// How the points are read, where they are not all in memory.
    streaming: Option<Streaming>,
    max_iter: usize,
    skips_rows: bool,
    progress: bool,
    json: bool,
    quiet: bool,
}

/// Runs the command.
pub(crate) fn run(args: FitArgs, quiet: bool) -> Result<(), Failure> {
    #[cfg(feature = "mpi")]
    if let Some(job) = Job::join()? {
        let done = Plan::new(args, quiet || !job.is_first())
            .and_then(|plan| with_dtype!(plan.dtype, T => plan.run_in::<T>(&job)));
        return done.map_err(|failure| job.fail(&failure));
    }
    job::refuse("this build does not have the feature `mpi`")?;
    let plan = Plan::new(args, quiet)?;
    with_dtype!(plan.dtype, T => match (plan.file.batch(), &plan.streaming) {
        (None, None) if plan.skips_rows => plan.run_without_some::<T>(),
        (None, None) => plan.run::<T, Ix2>(),
        (None, Some(streaming)) => plan.stream::<T>(streaming),
        (Some(_), _) => plan.run::<T, Ix3>(),
    })
}

/// The type that points of `file` are read as.
pub(crate) fn dtype_of(file: &PointFile, typed: Option<DTypeArg>) -> DType {
    typed.map_or(file.stored_type().natural_dtype(), DType::from)
}

impl Plan {
    fn new(args: FitArgs, quiet: bool) -> Result<Self, Failure> {
        let file = check::input(&args.input)?;
        let n_clusters = args.n_clusters.get();
        if n_clusters > file.n_points() {
            let error = Error::TooManyClusters { k: n_clusters, n: file.n_points() };
            return Err(Failure::from(error).of(&args.input.display().to_string()));
        }
        let mut inputs = vec![args.input.as_path()];
        let weights = match &args.weights {
            None => None,
            Some(path) => {
                inputs.push(path);
                Some(weights(path, &file)?)
            }
        };
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
        let dtype = dtype_of(&file, args.dtype);
        let streaming = streaming(&args, &file, dtype)?;
        let skips_rows = args.nan == NanArg::SkipRow;
        if skips_rows && (file.batch().is_some() || streaming.is_some()) {
            return Err(Failure::bad_input(
                "--nan skip-row: only points of shape (n, d) that are in memory are fitted without some of their rows",
            ));
        }
        if let Some(path) = &args.checkpoint {
            outputs.check("--checkpoint", path, &[])?;
        }
        let n_init = args.n_init.get();
        if n_init > 1 && matches!(init, Init::Given(_)) {
            return Err(Failure::bad_input(format!(
                "--n-init {n_init}: from the centroids of a file every start is the same"
            )));
        }
        let mut parameters = vec![
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
        let empty_clusters = EmptyClusters::from(args.empty_clusters);
        if empty_clusters != EmptyClusters::default() {
            parameters.push(("empty clusters", empty_clusters.to_string()));
        }
        if let Some(path) = &args.weights {
            parameters.push(("weights", path.display().to_string()));
        }
        let metric = Metric::from(args.metric);
        let mut options = FlashKMeans::new(n_clusters)
            .metric(metric)
            .precision(args.precision.into())
            .n_init(n_init)
            .init(init)
            .max_iter(args.max_iter.get())
            .tol(args.tol)
            .empty_clusters(empty_clusters)
            .seed(args.seed)
            .backend(args.devices.unwrap_or(args.backend));
        if let Some(bytes) = args.gpu_memory {
            options = options.gpu_memory(bytes);
        }
        if let Some(m) = args.max_points_per_centroid {
            options = options.max_points_per_centroid(m.get());
        }
        Ok(Plan {
            dtype,
            file,
            weights,
            options,
            metric,
            n_clusters,
            centroids: args.centroids,
            labels: args.labels,
            model: args.model,
            picture: args.picture,
            report: args.report,
            parameters,
            streaming,
            max_iter: args.max_iter.get(),
            skips_rows,
            progress: args.progress,
            json: args.json,
            quiet,
        })
    }

    fn run<T, D>(&self) -> Result<(), Failure>
    where
        T: Element<Centroid: Value>,
        D: PointsDim,
    {
        self.log();
        let points = self.file.read::<T>()?;
        let points =
            points.view().into_dimensionality::<D>().map_err(|e| Failure::bad_input(e.to_string()))?;
        let weights = self.weights()?;
        let start = Instant::now();
        let model = self.fit::<T, D>(points.view(), weights.as_ref().map(|w| w.view()))?;
        self.write(&model, model.labels().view(), Some(points), start.elapsed())
    }

    /// The weights, one a point.
    fn weights(&self) -> Result<Option<CowArray<'_, f64, IxDyn>>, Failure> {
        let Some(file) = &self.weights else { return Ok(None) };
        let mut weights = file.read::<f64>()?;
        weights.index_axis_inplace(Axis(file.shape().len() - 1), 0);
        Ok(Some(weights))
    }

    /// The fit of points that are in memory.
    fn fit<T: Element<Centroid: Value>, D: PointsDim>(
        &self,
        points: ArrayView<'_, T, D>,
        weights: Option<ArrayView<'_, f64, IxDyn>>,
    ) -> Result<KMeans<T, D>, Failure> {
        let mut watcher = self.watcher();
        let fitted = match weights {
            None => self.options.fit_observed(points, &mut watcher),
            Some(weights) => {
                let weights = weights.into_dimensionality::<D::Smaller>();
                let weights = weights.map_err(|e| Failure::bad_input(e.to_string()))?;
                self.options.fit_weighted(points, weights, &mut watcher)
            }
        };
        fitted.map_err(|e| self.ended::<T>(e, watcher.last.take()))
    }

    /// [`run`](Self::run) of the rows that are finite.
    fn run_without_some<T: Element<Centroid: Value>>(&self) -> Result<(), Failure> {
        self.log();
        let points = self.file.read::<T>()?;
        let points =
            points.view().into_dimensionality::<Ix2>().map_err(|e| Failure::bad_input(e.to_string()))?;
        let rows = points.rows().into_iter().enumerate();
        let kept: Vec<usize> =
            rows.filter(|(_, row)| row.iter().all(|v| v.is_finite())).map(|(at, _)| at).collect();
        let skipped = points.nrows() - kept.len();
        let rest = points.select(Axis(0), &kept);
        let weights = self.weights()?.map(|weights| weights.select(Axis(0), &kept));
        let start = Instant::now();
        let model = self.fit::<T, Ix2>(rest.view(), weights.as_ref().map(|w| w.view()))?;
        let mut labels = Array1::from_elem(points.nrows(), u32::MAX);
        kept.iter().zip(model.labels()).for_each(|(&row, &label)| labels[row] = label);
        if skipped > 0 && !self.quiet {
            eprintln!("{skipped} rows with NaN or infinity were left out; their label is {}", u32::MAX);
        }
        self.write(&model, labels.view(), Some(rest.view()), start.elapsed())
    }

    /// [`run`](Self::run) with points that are read a chunk at a time.
    fn stream<T: Element<Centroid: Value>>(&self, streaming: &Streaming) -> Result<(), Failure> {
        self.log();
        let file = &self.file;
        let drawn = self.picture.as_ref().or(self.report.as_ref());
        let points = match drawn {
            None => None,
            Some(path) => Some(file.view::<T>()?.ok_or_else(|| {
                let name = file.path().display();
                Failure::bad_input(format!(
                    "{}: {name} is read a chunk at a time, and has to be a .npy or .fbin file of {} values to be drawn",
                    path.display(),
                    self.dtype
                ))
            })?),
        };
        let points = points.map(|points| points.into_dimensionality::<Ix2>()).transpose();
        let points = points.map_err(|e| Failure::bad_input(e.to_string()))?;
        let weights = self.weights()?;
        let start = Instant::now();
        let mut watcher = self.watcher();
        let model = match weights.as_ref().and_then(|weights| weights.as_slice()) {
            None => self.options.fit_stream::<T, _>(file, streaming, &mut watcher),
            Some(weights) => {
                let source = Weighted::new(file, weights);
                self.options.fit_stream::<T, _>(&source, streaming, &mut watcher)
            }
        };
        let model = model.map_err(|e| self.ended::<T>(e, watcher.last.take()))?;
        drop(watcher);
        self.write(&model, model.labels().view(), points, start.elapsed())
    }

    /// [`stream`](Self::stream) by the processes of a job together: the first of them writes and prints.
    #[cfg(feature = "mpi")]
    fn run_in<T: Element<Centroid: Value>>(&self, job: &Job) -> Result<(), Failure> {
        let file = &self.file;
        if file.batch().is_some() || self.picture.is_some() || self.report.is_some() {
            return Err(Failure::bad_input(format!(
                "{}: the processes of a job fit points of shape (n, d), and draw no pictures of them",
                file.path().display()
            )));
        }
        let start = Instant::now();
        let streaming = self.streaming.clone().unwrap_or_default();
        let weights = self.weights()?;
        let mut watcher = if job.is_first() { Some(self.watcher()) } else { None };
        let nobody: &mut dyn Observer<T::Centroid> = &mut ();
        let observer = watcher.as_mut().map_or(nobody, |watcher| watcher);
        let model = match weights.as_ref().and_then(|weights| weights.as_slice()) {
            None => self.options.fit_mpi::<T, _>(file, &streaming, observer, job.world()),
            Some(weights) => {
                let source = Weighted::new(file, weights);
                self.options.fit_mpi::<T, _>(&source, &streaming, observer, job.world())
            }
        };
        let last = watcher.and_then(|mut watcher| watcher.last.take());
        let model = model.map_err(|e| self.ended::<T>(e, last))?;
        let labels = match &self.labels {
            Some(_) => job.gather(model.labels().as_slice().unwrap_or(&[]), file.n_points()),
            None => Vec::new(),
        };
        if !job.is_first() {
            return Ok(());
        }
        self.write(&model, ArrayView::from(&labels), None, start.elapsed())
    }

    fn log(&self) {
        let (name, stored, shape) = (self.file.path().display(), self.file.stored_type(), self.file.shape());
        let how = if self.streaming.is_some() { ", read a chunk at a time" } else { "" };
        tracing::info!("{name}: {stored} values of shape {shape:?}{how}");
    }

    fn watcher<C>(&self) -> Watcher<C> {
        let keeps = self.file.batch().is_none() && (self.centroids.is_some() || self.model.is_some());
        Watcher::new(self.max_iter, keeps, self.quiet, self.progress)
    }

    /// The end of a fit without a model. One that was stopped leaves its last centroids.
    fn ended<T: Element<Centroid: Value>>(
        &self,
        error: Error,
        last: Option<(usize, Array2<T::Centroid>)>,
    ) -> Failure {
        let Error::Stopped { iterations } = error else {
            return check::of_points(error, &self.file, self.dtype);
        };
        let failure = Failure::from(error);
        let written = match last {
            Some((after, centroids)) if after == iterations => self.write_centroids::<T>(&centroids),
            _ => Ok(Vec::new()),
        };
        match written {
            Err(failure) => failure,
            Ok(written) if written.is_empty() => match &self.streaming {
                Some(_) => failure.hint("--checkpoint FILE and --resume go on from where a fit was stopped"),
                None => failure,
            },
            Ok(written) => {
                failure.hint(format!("the centroids of iteration {iterations} are in {}", written.join(", ")))
            }
        }
    }

    fn write_centroids<T: Element<Centroid: Value>>(
        &self,
        centroids: &Array2<T::Centroid>,
    ) -> Result<Vec<String>, Failure> {
        let mut written = Vec::new();
        if let Some(path) = &self.centroids {
            write_npy(path, centroids.view())?;
            written.push(path.display().to_string());
        }
        if let Some(path) = &self.model {
            KMeans::<T, Ix2>::with_metric(centroids.view(), self.metric, Backend::Cpu)?.save(path)?;
            written.push(path.display().to_string());
        }
        Ok(written)
    }

    /// Writes and prints what was asked for. `points` are there where they are to be drawn.
    fn write<T, D>(
        &self,
        model: &KMeans<T, D>,
        labels: ArrayView<'_, u32, D::Smaller>,
        points: Option<ArrayView<'_, T, D>>,
        time: Duration,
    ) -> Result<(), Failure>
    where
        T: Element<Centroid: Value>,
        D: PointsDim,
    {
        if let Some(path) = &self.centroids {
            write_npy(path, model.centroids().view())?;
        }
        if let Some(path) = &self.labels {
            write_npy(path, labels)?;
        }
        if let Some(path) = &self.model {
            model.save(path)?;
        }
        if let (Some(path), Some(points)) = (&self.picture, &points) {
            let text = self.picture(model, points.view(), time)?.svg();
            write_atomically(path, |out| out.write_all(text.as_bytes()))?;
        }
        if let (Some(path), Some(points)) = (&self.report, points) {
            let text = self.picture(model, points, time)?.html();
            write_atomically(path, |out| out.write_all(text.as_bytes()))?;
        }
        if self.json {
            print_json(&Summary::new(model, &self.file, self.n_clusters, time))
        } else if self.quiet {
            Ok(())
        } else {
            print(self.summary(model, time).trim_end())
        }
    }

    fn picture<T: Element, D: PointsDim>(
        &self,
        model: &KMeans<T, D>,
        points: ArrayView<'_, T, D>,
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
        facts.push(("metric", self.metric.to_string()));
        facts.push(("precision", model.precision().to_string()));
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

/// How the points are read: a chunk at a time where they do not fit, or a checkpoint is asked for.
fn streaming(args: &FitArgs, file: &PointFile, dtype: DType) -> Result<Option<Streaming>, Failure> {
    let value_bytes = match dtype {
        DType::F16 | DType::BF16 => 2,
        DType::F64 => 8,
        _ => 4,
    };
    let needed = file.n_rows() as u64 * file.n_features() as u64 * value_bytes;
    let limit = args.memory.or_else(|| machine_memory().map(|bytes| bytes / 2));
    let too_large = limit.is_some_and(|limit| needed > limit);
    if !too_large && args.checkpoint.is_none() {
        return Ok(None);
    }
    if let Some(batch) = file.batch() {
        if args.memory.is_none() && args.checkpoint.is_none() {
            return Ok(None);
        }
        return Err(Failure::bad_input(format!(
            "{}: has {batch} problems; only points of shape (n, d) are read a chunk at a time, or have checkpoints",
            file.path().display()
        )));
    }
    let mut streaming = Streaming::new();
    if let Some(limit) = limit.filter(|_| too_large) {
        streaming = streaming.memory(limit);
    }
    if let Some(path) = &args.checkpoint {
        if args.resume
            && let Err(source) = std::fs::metadata(path)
        {
            return Err(bad_file(Error::Io { path: path.clone(), source }));
        }
        streaming = streaming.checkpoint(path, args.every.get());
        if args.resume {
            streaming = streaming.resume(path);
        }
    }
    Ok(Some(streaming))
}

/// The weights of `points` from a file.
fn weights(path: &Path, points: &PointFile) -> Result<PointFile, Failure> {
    let file = PointFile::open_column(path).map_err(bad_file)?;
    let (rows, needed) =
        (&file.shape()[..file.shape().len() - 1], &points.shape()[..points.shape().len() - 1]);
    if rows != needed {
        return Err(Failure::bad_input(format!(
            "{}: has shape {rows:?}; the weights of {} must have shape {needed:?}",
            path.display(),
            points.path().display()
        )));
    }
    Ok(file)
}

/// First centroids from a file: as many rows and columns as the fit needs.
fn given(path: &Path, points: &PointFile, k: usize) -> Result<Init, Failure> {
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
    metric: String,
    precision: String,
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
            metric: model.metric().to_string(),
            precision: model.precision().to_string(),
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
