//! flash-kmeans as one of the implementations that `cargo xtask bench` measures: a job in, an answer out, a line of
//! JSON each. With the argument `linfa` it is linfa-clustering instead, so that both are built alike. With
//! `time BATCH N K D TYPE` it times the stages of an iteration, for `cargo xtask profile`, and with `first` first centroids, for
//! `cargo xtask bench init`; the jobs `gpu` and `time` are those of `cargo xtask tune`.
use std::any::Any;
use std::fs::{self, File};
use std::io::{BufRead, Write};
use std::time::Instant;

use bytemuck::Pod;
use flash_kmeans::stages::{StageTimes, Workload, normal_points, time_points};
use flash_kmeans::tuning::{self, LaunchPlan};
use flash_kmeans::{Backend, DType, Element, FlashKMeans, Init, KMeans, PageLocked, Precision, devices};
use half::{bf16, f16};
use memmap2::Mmap;
use ndarray::{Array3, ArrayView3, s};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_default();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let times = match words.split_first() {
        Some((word, shape)) if word == "time" => Some(time_stages(shape)?),
        Some((word, shape)) if word == "first" => Some(time_first(shape)?),
        _ => None,
    };
    if let Some(times) = times {
        println!("{times}");
        return Ok(());
    }
    let is_asked = |name: &str| std::env::args().nth(1).is_some_and(|argument| argument == name);
    let linfa = is_asked("linfa");
    let precision = if is_asked("tf32") { Precision::Tf32 } else { Precision::Exact };
    let mut worker = Worker { precision, ..Worker::default() };
    let mut stdout = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let job: Value = serde_json::from_str(&line?)?;
        let answer = match job["op"].as_str() {
            Some("quit") => break,
            Some("hello") if linfa => linfa_hello(),
            Some("hello") => hello(),
            Some("run") if linfa => linfa_run(&job),
            Some("run") => worker.run(&job),
            Some("gpu") => gpu(),
            Some("time") => worker.time(&job),
            _ => Err("an unknown job".into()),
        };
        let answer = answer.unwrap_or_else(|error| json!({ "error": error.to_string() }));
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}

fn hello() -> Result<Value> {
    let gpu = devices().into_iter().find(|device| matches!(device.backend, Backend::Cuda { .. }));
    Ok(json!({
        "versions": { "flash-kmeans-rs": env!("CARGO_PKG_VERSION") },
        "gpu": gpu.map(|device| device.name),
    }))
}

fn workload_of(words: &[String]) -> Result<Workload> {
    let [batch, n, k, d, dtype] = words else { return Err("BATCH N K D TYPE are missing".into()) };
    let dtype = match dtype.as_str() {
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        "f32" => DType::F32,
        _ => return Err("an unknown type".into()),
    };
    let (batch, n, k, d) = (batch.parse()?, n.parse()?, k.parse()?, d.parse()?);
    Ok(Workload { batch, n, k, d, dtype, precision: Precision::Exact })
}

fn time_stages(words: &[String]) -> Result<Value> {
    let times = flash_kmeans::stages::time(0, workload_of(words)?, 10)?;
    Ok(json!({
        "assign": times.assign.median(), "sort": times.sort.median(), "sums": times.sums.median(),
        "finalise": times.finalise.median(), "iteration": times.iteration.median(),
    }))
}

/// What first centroids take, of normal points and of as many normal clusters as are asked for.
fn time_first(words: &[String]) -> Result<Value> {
    let workload = workload_of(words)?;
    let Workload { batch, n, k, d, dtype, .. } = workload;
    let normal = normal_points::<f32>(batch * n * d, 1, |value| value);
    let centres = normal_points::<f32>(k * d, 2, |value| 4.0 * value);
    let of_row = |row: usize| &centres[row.wrapping_mul(0x9e37_79b9) % k * d..][..d];
    let around =
        |(row, x): (usize, &[f32])| x.iter().zip(of_row(row)).map(|(x, c)| x + c).collect::<Vec<_>>();
    let clustered: Vec<f32> = normal.chunks(d).enumerate().flat_map(around).collect();
    let times = |points: &[f32]| match dtype {
        DType::F16 => first_centroids(workload, points, f16::from_f32),
        DType::BF16 => first_centroids(workload, points, bf16::from_f32),
        _ => first_centroids(workload, points, |value| value),
    };
    Ok(json!({ "normal": times(&normal)?, "clustered": times(&clustered)? }))
}

/// Milliseconds until first centroids are there, and of ten iterations. A fit of one iteration from given centroids is what the
/// others have beside them.
fn first_centroids<T: Element>(workload: Workload, points: &[f32], of: impl Fn(f32) -> T) -> Result<Value> {
    let Workload { batch, n, k, d, .. } = workload;
    let points = Array3::from_shape_vec((batch, n, d), points.iter().map(|&value| of(value)).collect())?;
    let given = Init::Given(points.slice(s![.., ..k, ..]).mapv(Element::to_f64).into_dyn());
    let fit = |init: &Init, iterations| -> Result<f64> {
        let options = FlashKMeans::new(k).init(init.clone()).tol(0.0).max_iter(iterations);
        let mut workspace = options.backend(Backend::Cuda { ordinal: 0 }).workspace::<T>(batch, n, d)?;
        workspace.load(points.view())?;
        // The first fits load kernels and are not replayed yet.
        let mut times = (0..7).map(|_| {
            let start = Instant::now();
            workspace.fit()?;
            Ok(start.elapsed().as_secs_f64() * 1e3)
        });
        times.by_ref().take(2).collect::<Result<Vec<_>>>()?;
        let mut times = times.collect::<Result<Vec<_>>>()?;
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    };
    let beside = fit(&given, 1)?;
    let draw = |init: &Init| Ok::<_, Box<dyn std::error::Error>>(fit(init, 1)? - beside);
    Ok(json!({
        "ten iterations": fit(&given, 10)?,
        "random": draw(&Init::Random)?,
        "k-means||": draw(&Init::KMeansParallel { oversampling: 2.0, rounds: 5 })?,
        "k-means++": draw(&Init::KMeansPlusPlus)?,
    }))
}

/// What is kept from job to job.
#[derive(Default)]
struct Worker {
    /// Another one than the default is measured of f32 points alone.
    precision: Precision,
    /// The last case that its stages were timed of: three suites ask for the same.
    stages: Option<(Workload, StageTimes)>,
    /// The last points that a plan was timed on.
    points: Option<(Workload, Box<dyn Any>)>,
}

/// The GPU and its plan.
fn gpu() -> Result<Value> {
    let gpu = tuning::gpu(0)?;
    Ok(json!({
        "name": gpu.name, "hardware": gpu.hardware.to_string(), "plan": gpu.plan.to_string(),
        "has_tensor_cores": gpu.has_tensor_cores,
    }))
}

fn number(value: &Value) -> Result<usize> {
    Ok(value.as_u64().map(|value| value as usize).ok_or("a number is missing")?)
}

fn workload(case: &Value) -> Result<Workload> {
    let dtype = match case["dtype"].as_str() {
        Some("f16") => DType::F16,
        Some("bf16") => DType::BF16,
        Some("f32") => DType::F32,
        _ => return Err("an unknown type".into()),
    };
    let batch = number(&case["batch"])?;
    Ok(Workload {
        batch,
        n: number(&case["n"])?,
        k: number(&case["k"])?,
        d: number(&case["d"])?,
        dtype,
        precision: Precision::Exact,
    })
}

/// A job, read.
struct Job {
    suite: String,
    workload: Workload,
    iterations: usize,
    points: Mmap,
    rows: Vec<u64>,
    out: String,
    milliseconds: f64,
    samples: usize,
}

impl Job {
    fn read(job: &Value) -> Result<Self> {
        let text = |key: &str| job[key].as_str().ok_or("a text is missing");
        let file = File::open(text("points")?)?;
        Ok(Job {
            suite: text("suite")?.to_owned(),
            workload: workload(&job["case"])?,
            iterations: number(&job["iterations"])?,
            // SAFETY: nothing writes to the points while a run lasts.
            points: unsafe { Mmap::map(&file) }?,
            rows: bytemuck::allocation::pod_collect_to_vec(&fs::read(text("rows")?)?),
            out: text("out")?.to_owned(),
            milliseconds: job["ms"].as_f64().unwrap_or(0.0),
            samples: number(&job["samples"])?,
        })
    }

    fn leave<T: Pod>(&self, kind: &str, values: &[T]) -> Result<()> {
        Ok(fs::write(format!("{}.{kind}", self.out), bytemuck::cast_slice(values))?)
    }

    /// Milliseconds of calls by the host's clock: one to warm up where there is to be more than one, then at least five.
    fn host_times(&self, mut call: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
        if self.samples > 1 {
            call()?;
        }
        let (mut times, begin) = (Vec::new(), Instant::now());
        loop {
            let start = Instant::now();
            call()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            // Five when the time is over, fewer when five would take far too long.
            let spent = begin.elapsed().as_secs_f64() * 1e3;
            let (late, too_late) = (spent > self.milliseconds, spent > 10.0 * self.milliseconds);
            if times.len() >= self.samples || too_late || late && times.len() >= 5 {
                return Ok(times);
            }
        }
    }
}

/// Milliseconds of an iteration, and what a fit of `iterations` gave. A fit has a closing assignment and the like beside
/// its iterations: the difference to a fit of one is iterations alone.
fn iteration_of_fits<M, E>(
    iterations: usize,
    fit: impl Fn(usize) -> std::result::Result<M, E>,
) -> std::result::Result<(f64, M), E> {
    // Threads start and memory is touched for the first time in a fit that does not count.
    fit(1)?;
    let start = Instant::now();
    fit(1)?;
    let few = start.elapsed();
    let start = Instant::now();
    let model = fit(iterations)?;
    let many = start.elapsed();
    Ok((1e3 * (many.as_secs_f64() - few.as_secs_f64()) / (iterations - 1) as f64, model))
}

impl Worker {
    /// Milliseconds of an iteration by a plan, on normal points.
    fn time(&mut self, job: &Value) -> Result<Value> {
        let workload = workload(&job["case"])?;
        let plan = job["plan"].as_str().ok_or("a plan is missing")?.parse()?;
        let iterations = number(&job["iterations"])?;
        let iteration = match workload.dtype {
            DType::F16 => self.time_as(workload, iterations, plan, f16::from_f32),
            DType::BF16 => self.time_as(workload, iterations, plan, bf16::from_f32),
            _ => self.time_as(workload, iterations, plan, |value| value),
        }?;
        Ok(json!({ "iteration": iteration }))
    }

    /// Milliseconds of an iteration, as the share of whole fits: first ones and later ones have not the same to do.
    fn time_as<T: Element>(
        &mut self,
        workload: Workload,
        iterations: usize,
        plan: LaunchPlan,
        convert: impl Fn(f32) -> T + Sync,
    ) -> Result<f64> {
        let Workload { batch, n, k, d, .. } = workload;
        if self.points.as_ref().is_none_or(|(known, _)| *known != workload) {
            let points = normal_points(batch * n * d, 1, convert);
            self.points = Some((workload, Box::new(points)));
        }
        let points = self.points.as_ref().and_then(|(_, points)| points.downcast_ref::<Vec<T>>());
        let points = ArrayView3::from_shape((batch, n, d), points.ok_or("no points")?)?;
        tuning::use_plan(0, plan)?;
        let options = FlashKMeans::new(k).init(Init::Random).tol(0.0).max_iter(iterations);
        let mut workspace = options.backend(Backend::Cuda { ordinal: 0 }).workspace::<T>(batch, n, d)?;
        workspace.load(points)?;
        // The first fits are not replayed yet.
        workspace.fit()?;
        workspace.fit()?;
        let mut times = [0.0; 3];
        for time in &mut times {
            let start = Instant::now();
            workspace.fit()?;
            *time = start.elapsed().as_secs_f64() * 1e3 / iterations as f64;
        }
        times.sort_by(f64::total_cmp);
        Ok(times[1])
    }

    fn run(&mut self, job: &Value) -> Result<Value> {
        let mut job = Job::read(job)?;
        job.workload.precision = self.precision;
        let is_measured = job.workload.dtype == DType::F32 && matches!(&*job.suite, "assign" | "iteration");
        if self.precision != Precision::Exact && !is_measured {
            return Ok(json!({ "skip": "assignments and iterations of f32 points" }));
        }
        match job.workload.dtype {
            DType::F16 => self.run_as::<f16>(&job),
            DType::BF16 => self.run_as::<bf16>(&job),
            _ => self.run_as::<f32>(&job),
        }
    }

    fn run_as<T: Element>(&mut self, job: &Job) -> Result<Value> {
        let Workload { batch, n, k, d, .. } = job.workload;
        let values: &[T] = &bytemuck::cast_slice::<u8, T>(&job.points)[..batch * n * d];
        let points = ArrayView3::from_shape((batch, n, d), values)?;
        let first = points.slice(s![.., ..k, ..]);
        let backend = if job.suite == "cpu" { Backend::Cpu } else { Backend::Cuda { ordinal: 0 } };
        let init = Init::Given(first.mapv(Element::to_f64).into_dyn());
        let options = |iterations| {
            let options = FlashKMeans::new(k).init(init.clone()).tol(0.0).max_iter(iterations);
            options.backend(backend).precision(self.precision)
        };
        let fit = |iterations| options(iterations).fit(points);
        let leave_centroids = |model: &KMeans<T, _>| -> Result<()> {
            let centroids: Array3<f32> = model.centroids().mapv(|c| c.to_f64() as f32);
            job.leave("centroids", centroids.as_slice().ok_or("centroids are not in order")?)
        };
        match job.suite.as_str() {
            "assign" => {
                let first = first.mapv(Element::to_centroid);
                let mut model = KMeans::<T, _>::from_centroids(first.view(), backend)?;
                model.set_precision(self.precision);
                let labels = model.predict(points)?;
                let labels = labels.as_slice().ok_or("labels are not in order")?;
                let sample: Vec<u32> = job.rows.iter().map(|&row| labels[row as usize]).collect();
                job.leave("labels", &sample)?;
                let times = self.stages(job, values)?;
                Ok(json!({
                    "ms": times.assign.milliseconds(),
                    "note": format!(
                        "in float64 decided: {:.3} % of the points, {:.4} % among all centroids",
                        100.0 * times.settled,
                        100.0 * times.searched
                    ),
                }))
            }
            "update" | "iteration" => {
                leave_centroids(&fit(job.iterations)?)?;
                let times = self.stages(job, values)?;
                let samples = if job.suite == "update" { &times.update } else { &times.iteration };
                Ok(json!({ "ms": samples.milliseconds() }))
            }
            "latency" => {
                let options = FlashKMeans::new(k).init(init.clone()).tol(0.0).max_iter(job.iterations);
                let mut workspace = options.backend(backend).workspace::<T>(batch, n, d)?;
                workspace.load(points)?;
                let times = job.host_times(|| {
                    workspace.fit()?;
                    Ok(())
                })?;
                let centroids: Array3<f32> = workspace.centroids()?.mapv(|c| c.to_f64() as f32);
                job.leave("centroids", centroids.as_slice().ok_or("centroids are not in order")?)?;
                if job.samples == 1 {
                    return Ok(json!({ "ms": times }));
                }
                let start = Instant::now();
                fit(job.iterations)?;
                let whole = start.elapsed().as_secs_f64() * 1e3;
                let note = format!("from host memory, and back to it: {whole:.2} ms");
                Ok(json!({ "ms": times, "note": note }))
            }
            "streaming" => {
                let mut locked = PageLocked::<T>::new(values.len())?;
                locked.copy_from_slice(values);
                let points = ArrayView3::from_shape((batch, n, d), &locked)?;
                let mut model = None;
                // In chunks, which a fit that is watched takes, as the peers do.
                let times = job.host_times(|| {
                    model = Some(options(job.iterations).fit_observed(points, &mut ())?);
                    Ok(())
                })?;
                leave_centroids(&model.ok_or("no call")?)?;
                let start = Instant::now();
                fit(job.iterations)?;
                let pageable = start.elapsed().as_secs_f64() * 1e3;
                let note = format!("from pinned host memory; from pageable memory: {pageable:.0} ms");
                Ok(json!({ "ms": times, "note": note }))
            }
            "cpu" => {
                let (milliseconds, model) = iteration_of_fits(job.iterations, fit)?;
                leave_centroids(&model)?;
                Ok(json!({ "ms": [milliseconds] }))
            }
            _ => Ok(json!({ "skip": "no such suite" })),
        }
    }

    fn stages<T: Element>(&mut self, job: &Job, values: &[T]) -> Result<&StageTimes> {
        if self.stages.as_ref().is_none_or(|(workload, _)| *workload != job.workload) {
            self.stages = Some((job.workload, time_points(0, values, job.workload, job.samples)?));
        }
        self.stages.as_ref().map(|(_, times)| times).ok_or("no times".into())
    }
}

#[cfg(not(feature = "linfa"))]
fn linfa_hello() -> Result<Value> {
    Ok(json!({ "absent": "this executable is built without it" }))
}

#[cfg(not(feature = "linfa"))]
fn linfa_run(_: &Value) -> Result<Value> {
    Err("this executable is built without it".into())
}

#[cfg(feature = "linfa")]
fn linfa_hello() -> Result<Value> {
    Ok(json!({ "versions": { "linfa-clustering": "0.8.1" } }))
}

#[cfg(feature = "linfa")]
fn linfa_run(job: &Value) -> Result<Value> {
    use linfa::prelude::Fit;
    use ndarray_linfa::Array2;

    let job = Job::read(job)?;
    let Workload { batch, n, k, d, dtype, .. } = job.workload;
    if job.suite != "cpu" || batch != 1 || dtype != DType::F32 {
        return Ok(json!({ "skip": "one problem of f32 points on the CPU" }));
    }
    let values: &[f32] = &bytemuck::cast_slice(&job.points)[..n * d];
    let points = linfa::DatasetBase::from(Array2::from_shape_vec((n, d), values.to_vec())?);
    let first = Array2::from_shape_vec((k, d), values[..k * d].to_vec())?;
    let fit = |iterations: usize| {
        linfa_clustering::KMeans::params(k)
            .init_method(linfa_clustering::KMeansInit::Precomputed(first.clone()))
            .n_runs(1)
            .tolerance(f32::MIN_POSITIVE)
            .max_n_iterations(iterations as u64)
            .fit(&points)
    };
    let (milliseconds, model) = iteration_of_fits(job.iterations, fit)?;
    job.leave("centroids", model.centroids().as_slice().ok_or("centroids are not in order")?)?;
    let note = "a centroid counts as one of its cluster's points";
    Ok(json!({ "ms": [milliseconds], "note": note }))
}
