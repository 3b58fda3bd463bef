//! A run: who takes part, what is asked of each, and what is made of the answers.
use std::collections::HashMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::case::{Case, Suite};
use super::data::{Data, Reference, SEED, relative};
use super::gate::{Difference, Grade, Verdict, judge};
use super::process::{Process, Program};
use super::record::{Implementation, Log, Measurement, OURS, OURS_TF32, Outcome, Record, Run, Time};
use super::{Options, report};
use crate::Result;
use crate::workspace::{cargo, create_folder, output_of, root, target};

/// The peers: the name to show, and the script beside `common.py`.
const PEERS: &[(&str, &str)] = &[
    ("flash-kmeans", "peer_flash_kmeans.py"),
    ("FlashLib", "peer_flashlib.py"),
    ("PyTorch", "peer_pytorch.py"),
    ("fastkmeans", "peer_fastkmeans.py"),
    ("fast-pytorch-kmeans", "peer_fast_pytorch_kmeans.py"),
    ("cuML", "peer_cuml.py"),
    ("scikit-learn", "peer_sklearn.py"),
    ("FAISS", "peer_faiss.py"),
];
const LINFA: &str = "linfa-clustering";

/// For the answer to a job.
const JOB_LIMIT: Duration = Duration::from_secs(75);
/// For imports.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Milliseconds that the samples of one measurement may take, unless five take longer.
const SAMPLING_MS: f64 = 1000.0;
const QUICK_SAMPLING_MS: f64 = 250.0;
/// Who takes so many times as long as the best is not asked for larger cases of a suite: time is for who may be the best.
const FAR_BEHIND: f64 = 20.0;
/// It is asked all the same if it took no more milliseconds than these: they may be what a call takes, whatever the case.
const BEHIND_MS: f64 = 5.0;
/// Times a process that died is started again.
const RESTARTS: usize = 2;

struct Participant {
    program: Program,
    process: Option<Process>,
    restarts: usize,
}

impl Participant {
    /// Asks, in a new process if the last one is gone.
    fn ask(&mut self, job: &Value, limit: Duration) -> Result<Value> {
        if self.process.is_none() {
            if self.restarts == RESTARTS {
                return Err("its process ended too often before".into());
            }
            self.restarts += 1;
            let mut process = self.program.start()?;
            process.ask(&json!({"op": "hello"}), START_LIMIT)?;
            self.process = Some(process);
        }
        let answer = self.process.as_mut().expect("just started").ask(job, limit);
        if answer.is_err() {
            self.process = None;
        }
        answer
    }
}

/// What the gate needs of a case, found once.
struct Known {
    reference: Reference,
    /// The sample's inertia after some iterations: float64's, or else this project's own.
    inertia: HashMap<usize, f64>,
}

struct Bench {
    participants: Vec<Participant>,
    data: Data,
    known: HashMap<Case, Known>,
    /// The least case of a suite at which an implementation was far behind.
    behind: HashMap<(Suite, String), Case>,
    log: Log,
    records: Vec<Record>,
    deadline: Instant,
    sampling_ms: f64,
    has_gpu: bool,
}

pub(crate) fn run(suites: &[Suite], options: &Options) -> Result<()> {
    let minutes = options.minutes.unwrap_or(if options.quick { 3.5 } else { 8.5 });
    let out = options.out.clone().unwrap_or_else(|| match in_workspace() {
        true => target().join("bench"),
        false => PathBuf::from("bench"),
    });
    create_folder(&out.join("log"))?;
    let mut log = Log::create(&out.join("records.jsonl"))?;
    let mut records = Vec::new();

    let mut participants = Vec::new();
    let programs = programs(options, &out)?;
    let start = Instant::now();
    // All start at once: most of it is imports.
    let started: Vec<_> = programs.into_iter().map(|program| (program.start(), program)).collect();
    let mut has_gpu = false;
    let circumstances = circumstances();
    add(&mut log, &mut records, Record::Run(circumstances))?;
    for (process, program) in started {
        let hello = process.and_then(|mut process| {
            let answer = process.ask(&json!({"op": "hello"}), START_LIMIT)?;
            match answer["absent"].as_str() {
                Some(reason) => Err(reason.to_owned()),
                None => Ok((process, answer)),
            }
        });
        let (versions, absent) = match hello {
            Ok((process, answer)) => {
                has_gpu |= program.name == OURS && answer["gpu"].is_string();
                let versions = serde_json::from_value(answer["versions"].clone()).unwrap_or_default();
                participants.push(Participant {
                    program: program.clone(),
                    process: Some(process),
                    restarts: 0,
                });
                (versions, None)
            }
            // Without this project's own there is nothing to compare.
            Err(reason) if program.name == OURS => return Err(format!("{OURS}: {reason}")),
            Err(reason) => (Default::default(), Some(reason)),
        };
        eprintln!("{}: {}", program.name, absent.as_deref().unwrap_or("ready"));
        let implementation = Implementation { name: program.name, versions, absent };
        add(&mut log, &mut records, Record::Implementation(implementation))?;
    }

    // The quick cases of all suites, then the rest: what time does not suffice for is then the least. Case by case, so
    // that points stay on the device while all that is asked of them is measured.
    let mut plan: Vec<(Suite, Case)> = Vec::new();
    for round in 0..2 {
        let mut part: Vec<(Case, Suite)> = Vec::new();
        for &suite in suites.iter().filter(|&&suite| has_gpu || suite == Suite::Cpu) {
            let cases = match (options.shapes.is_empty(), round) {
                (false, 0) => options.shapes.clone(),
                (true, 0) => suite.quick(),
                (true, 1) if !options.quick => suite.more(),
                _ => Vec::new(),
            };
            part.extend(cases.into_iter().map(|case| (case, suite)));
        }
        part.sort_by_key(|(case, suite)| (*suite == Suite::Cpu, case.flops() as u64, *case, *suite));
        plan.extend(part.into_iter().map(|(case, suite)| (suite, case)));
    }
    if plan.is_empty() {
        return Err("there is no GPU here, and only the suite `cpu` does without".into());
    }

    let mut cases: Vec<Case> = plan.iter().map(|(_, case)| *case).collect();
    cases.sort();
    cases.dedup();
    let data = Data::write(&scratch(options, &cases), &cases)?;
    eprintln!("points written after {:.0} s", start.elapsed().as_secs_f64());

    let deadline = start + Duration::from_secs_f64(minutes * 60.0);
    let sampling_ms = if options.quick { QUICK_SAMPLING_MS } else { SAMPLING_MS };
    let known = HashMap::new();
    let behind = HashMap::new();
    let mut bench = Bench { participants, data, known, behind, log, records, deadline, sampling_ms, has_gpu };
    if has_gpu {
        bench.clocks("before")?;
        bench.ceilings()?;
    }
    for (at, &(suite, case)) in plan.iter().enumerate() {
        if Instant::now() > deadline {
            bench.add(Record::Unmeasured { suite, case })?;
            continue;
        }
        eprintln!(
            "{:>4.0} s  {}/{}  {}: {case}",
            start.elapsed().as_secs_f64(),
            at + 1,
            plan.len(),
            suite.name()
        );
        bench.measure(suite, case)?;
        if (suite, case) == (Suite::Latency, Suite::Latency.quick()[0]) {
            bench.cold(case)?;
        }
    }
    if has_gpu {
        bench.clocks("after")?;
    }

    let report = report::render(&bench.records, &out.join("report"))?;
    fs::write(out.join("report.md"), &report).map_err(|error| error.to_string())?;
    println!("{report}");
    eprintln!("{:.0} s; records, tables and charts are in {}", start.elapsed().as_secs_f64(), out.display());
    bench.wrong_ones()
}

fn add(log: &mut Log, records: &mut Vec<Record>, record: Record) -> Result<()> {
    log.add(&record)?;
    records.push(record);
    Ok(())
}

impl Bench {
    fn add(&mut self, record: Record) -> Result<()> {
        add(&mut self.log, &mut self.records, record)
    }

    /// Products and copies, as PyTorch has them done.
    fn ceilings(&mut self) -> Result<()> {
        let Some(pytorch) = self.participants.iter_mut().find(|p| p.program.name == "PyTorch") else {
            return Ok(());
        };
        match pytorch.ask(&json!({"op": "ceilings"}), JOB_LIMIT) {
            Err(reason) => eprintln!("no ceilings: {reason}"),
            Ok(answer) => {
                for (name, value, unit) in ceilings_of(&answer) {
                    self.add(Record::Ceiling { name, value, unit })?;
                }
            }
        }
        self.clocks("after products and copies")
    }

    fn clocks(&mut self, when: &str) -> Result<()> {
        let query = "clocks.sm,clocks.mem,temperature.gpu,power.draw";
        let Some(line) = nvidia_smi(query) else { return Ok(()) };
        let mut words = line.split(", ").map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let (sm_mhz, memory_mhz, celsius, watts) = (word(), word(), word(), word());
        self.add(Record::Clocks { when: when.into(), sm_mhz, memory_mhz, celsius, watts })
    }

    fn known(&mut self, case: Case) -> &mut Known {
        let data = &self.data;
        self.known.entry(case).or_insert_with(|| {
            let reference = data.reference(&case);
            let rows: Vec<u64> = reference.sample.iter().map(|&row| row as u64).collect();
            // A file that cannot be written makes every answer fail, and each says so.
            let _ = fs::write(rows_file(data, &case), bytemuck::cast_slice(&rows));
            Known { reference, inertia: HashMap::new() }
        })
    }

    fn job(&mut self, suite: Suite, case: Case, name: &str) -> Value {
        self.known(case);
        json!({
            "op": "run", "suite": suite, "case": case, "iterations": suite.iterations(),
            "points": self.data.points(case.dtype), "rows": rows_file(&self.data, &case),
            "out": self.data.folder().join(name), "ms": self.sampling_ms, "samples": 20,
        })
    }

    /// All implementations, one after the other; on the CPU in turns, so that what else the machine does falls on all.
    fn measure(&mut self, suite: Suite, case: Case) -> Result<()> {
        let rounds = if suite == Suite::Cpu { 5 } else { 1 };
        let mut samples: Vec<Vec<f64>> = vec![Vec::new(); self.participants.len()];
        let mut outcomes: Vec<Option<Outcome>> = vec![None; self.participants.len()];
        for _ in 0..rounds {
            for at in 0..self.participants.len() {
                if matches!(outcomes[at], Some(Outcome::Skipped { .. } | Outcome::Failed { .. })) {
                    continue;
                }
                // Five rounds of a few iterations may be too many for slow ones: two tell enough.
                if Instant::now() > self.deadline {
                    if samples[at].is_empty() {
                        outcomes[at] = Some(Outcome::Failed { reason: "the run's time was over".into() });
                    }
                    continue;
                }
                let name = &self.participants[at].program.name;
                if let Some(known) =
                    self.behind.get(&(suite, name.clone())).filter(|k| case.flops() > k.flops())
                {
                    let reason = format!("more than {FAR_BEHIND} times as slow as the best at {known}");
                    outcomes[at] = Some(Outcome::Skipped { reason });
                    continue;
                }
                let mut outcome = self.measure_one(suite, case, at, &mut samples[at]);
                // The worst verdict of all rounds.
                if let (Outcome::Measured { gate, .. }, Some(Outcome::Measured { gate: before, .. })) =
                    (&mut outcome, &outcomes[at])
                {
                    *gate = gate.and(*before);
                }
                outcomes[at] = Some(outcome);
            }
        }
        let names: Vec<String> = self.participants.iter().map(|one| one.program.name.clone()).collect();
        for name in far_behind(&names, &outcomes) {
            let known = self.behind.entry((suite, name.clone())).or_insert(case);
            if case.flops() < known.flops() {
                *known = case;
            }
        }
        for (at, outcome) in outcomes.into_iter().enumerate() {
            let Some(mut outcome) = outcome else { continue };
            if let (Outcome::Measured { time, .. }, true) = (&mut outcome, rounds > 1) {
                *time = Time::of(&samples[at]).unwrap_or(*time);
            }
            let implementation = self.participants[at].program.name.clone();
            self.tell(&implementation, &outcome);
            self.add(Record::Measurement(Measurement { suite, cold: false, case, implementation, outcome }))?;
        }
        Ok(())
    }

    fn tell(&self, name: &str, outcome: &Outcome) {
        match outcome {
            Outcome::Measured { time, gate, note } => eprintln!(
                "        {name:>20}: {:10.4} ms  {:?} {}",
                time.median,
                gate.grade,
                note.as_deref().unwrap_or_default()
            ),
            Outcome::Failed { reason } => eprintln!("        {name:>20}: failed: {reason}"),
            Outcome::Skipped { .. } => {}
        }
    }

    fn measure_one(&mut self, suite: Suite, case: Case, at: usize, samples: &mut Vec<f64>) -> Outcome {
        let name = self.participants[at].program.name.clone();
        let job = self.job(suite, case, &name);
        let answer = match self.participants[at].ask(&job, JOB_LIMIT) {
            Ok(answer) => answer,
            Err(reason) => return Outcome::Failed { reason },
        };
        if answer["restart"] == true {
            self.participants[at].process = None;
        }
        if let Some(reason) = answer["skip"].as_str() {
            return Outcome::Skipped { reason: reason.into() };
        }
        if let Some(reason) = answer["error"].as_str() {
            return Outcome::Failed { reason: reason.into() };
        }
        let new: Vec<f64> =
            answer["ms"].as_array().into_iter().flatten().map(|ms| ms.as_f64().unwrap_or(f64::NAN)).collect();
        let Some(time) = Time::of(&new) else {
            return Outcome::Failed { reason: format!("answered without times: {answer}") };
        };
        samples.extend(new);
        let gate = match self.gate(suite, case, &name) {
            Ok(gate) => gate,
            Err(reason) => return Outcome::Failed { reason },
        };
        Outcome::Measured { time, gate, note: answer["note"].as_str().map(str::to_owned) }
    }

    /// Weighs the labels or the centroids that an implementation left in its file.
    fn gate(&mut self, suite: Suite, case: Case, name: &str) -> Result<Verdict> {
        let file = |kind: &str| self.data.folder().join(format!("{name}.{kind}"));
        let (labels, centroids) = (take(&file("labels"))?, take(&file("centroids"))?);
        let mut verdict: Option<Verdict> = None;
        if let Some(bytes) = labels {
            let labels: Vec<u32> = bytemuck::allocation::pod_collect_to_vec(&bytes);
            verdict = Some(judge(&case, self.known(case).reference.compare_labels(&case, &labels)));
        }
        if let Some(bytes) = centroids {
            let centroids: Vec<f32> = bytemuck::allocation::pod_collect_to_vec(&bytes);
            let centroids: Vec<f64> = centroids.into_iter().map(f64::from).collect();
            let theirs = self.known(case).reference.inertia(&case, &centroids);
            let expected = self.expected(suite, case, (name == OURS).then_some(theirs));
            let expected = expected.ok_or("its result has nothing to be compared with")?;
            let difference = Difference { inertia: relative(theirs, expected), labels: None };
            let other = judge(&case, difference);
            verdict = Some(verdict.map_or(other, |verdict| verdict.and(other)));
        }
        verdict.ok_or_else(|| "it left no result to weigh".into())
    }

    /// The sample's inertia after the suite's iterations.
    fn expected(&mut self, suite: Suite, case: Case, ours: Option<f64>) -> Option<f64> {
        let iterations = suite.iterations();
        let known = &self.known[&case];
        if let Some(&inertia) = known.inertia.get(&iterations) {
            return Some(inertia);
        }
        let fitted = self.data.fit(&case, &known.reference.centroids, iterations);
        let inertia = fitted.map(|centroids| known.reference.inertia(&case, &centroids)).or(ours)?;
        self.known.get_mut(&case)?.inertia.insert(iterations, inertia);
        Some(inertia)
    }

    /// A process from its start to its first result, each implementation by itself.
    fn cold(&mut self, case: Case) -> Result<()> {
        eprintln!("        a process from its start: {case}");
        for at in 0..self.participants.len() {
            let name = self.participants[at].program.name.clone();
            let job = self.job(Suite::Latency, case, &name);
            let mut job = job;
            job["ms"] = json!(0);
            job["samples"] = json!(1);
            let count = if name == OURS { 5 } else { 1 };
            let program = self.participants[at].program.clone();
            let results: Result<Vec<_>> = (0..count).map(|_| program.time_cold(&job, JOB_LIMIT)).collect();
            let outcome = match results {
                Err(reason) => Outcome::Failed { reason },
                Ok(results) => {
                    let answer = &results[0].1;
                    let times: Vec<f64> = results.iter().map(|result| result.0).collect();
                    match (answer["skip"].as_str(), answer["error"].as_str(), Time::of(&times)) {
                        (Some(reason), _, _) => Outcome::Skipped { reason: reason.into() },
                        (_, Some(reason), _) => Outcome::Failed { reason: reason.into() },
                        (_, _, None) => Outcome::Failed { reason: "no times".into() },
                        (_, _, Some(time)) => match self.gate(Suite::Latency, case, &name) {
                            Ok(gate) => Outcome::Measured { time, gate, note: None },
                            Err(reason) => Outcome::Failed { reason },
                        },
                    }
                }
            };
            self.tell(&name, &outcome);
            let suite = Suite::Latency;
            let measurement = Measurement { suite, cold: true, case, implementation: name, outcome };
            self.add(Record::Measurement(measurement))?;
        }
        Ok(())
    }

    /// This project's own results must hold; others' are theirs.
    fn wrong_ones(&self) -> Result<()> {
        let mut wrong = Vec::new();
        for record in &self.records {
            let Record::Measurement(measurement) = record else { continue };
            let fails = match &measurement.outcome {
                Outcome::Measured { gate, .. } => gate.grade != Grade::Holds,
                Outcome::Failed { .. } => Instant::now() < self.deadline,
                Outcome::Skipped { .. } => false,
            };
            if fails && measurement.implementation == OURS {
                wrong.push(format!("{}: {}", measurement.suite.name(), measurement.case));
            }
        }
        let device = if self.has_gpu { "GPU" } else { "CPU" };
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("on the {device}, {OURS} fails at {}", wrong.join("; ")))
        }
    }
}

/// Names, values and units.
fn ceilings_of(answer: &Value) -> Vec<(String, f64, String)> {
    let text = |ceiling: &Value, key: &str| ceiling[key].as_str().unwrap_or_default().to_owned();
    let each = answer["ceilings"].as_array().into_iter().flatten();
    each.filter_map(|ceiling| {
        Some((text(ceiling, "name"), ceiling["value"].as_f64()?, text(ceiling, "unit")))
    })
    .collect()
}

/// What the hardware can do by itself, names and values; none where there is no PyTorch to ask.
pub(crate) fn ceilings() -> Vec<(String, f64)> {
    let log = env::temp_dir().join("flash-kmeans-ceilings.log");
    let program = Program {
        name: "PyTorch".into(),
        program: "python3".into(),
        arguments: vec![scripts().join("peer_pytorch.py").into()],
        log,
    };
    let answer = program.start().and_then(|mut process| process.ask(&json!({"op": "ceilings"}), START_LIMIT));
    answer
        .map_or_else(|_| Vec::new(), |answer| ceilings_of(&answer))
        .into_iter()
        .map(|(name, value, _)| (name, value))
        .collect()
}

/// The executable that runs flash-kmeans, built where this is a workspace.
pub(crate) fn worker() -> Result<PathBuf> {
    if in_workspace() { build_worker(false) } else { Ok(beside("bench-worker")) }
}

/// Where the peers' scripts are.
fn scripts() -> PathBuf {
    if in_workspace() { root().join("xtask").join("peers") } else { beside("peers") }
}

fn rows_file(data: &Data, case: &Case) -> PathBuf {
    let Case { batch, n, k, d, dtype } = case;
    data.folder().join(format!("rows-{batch}-{n}-{k}-{d}-{}", dtype.name()))
}

/// The contents of a file that is there for once; `None` when there is none.
fn take(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => {
            fs::remove_file(path).map_err(|error| format!("cannot delete {}: {error}", path.display()))?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// Whether this runs from the sources; a folder made by `dist` has none.
pub(crate) fn in_workspace() -> bool {
    !beside("bench-worker").is_file() && root().join("xtask").join("peers").is_dir()
}

/// Those others than this project that took [`FAR_BEHIND`] times as long as the best, and [`BEHIND_MS`].
fn far_behind<'a>(names: &'a [String], outcomes: &[Option<Outcome>]) -> Vec<&'a String> {
    let times: Vec<Option<f64>> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Some(Outcome::Measured { time, .. }) => Some(time.median),
            _ => None,
        })
        .collect();
    let best = times.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let is_far = |time: &Option<f64>| time.is_some_and(|time| time > FAR_BEHIND * best && time > BEHIND_MS);
    names
        .iter()
        .zip(&times)
        .filter(|(name, time)| *name != OURS && is_far(time))
        .map(|(name, _)| name)
        .collect()
}

/// A file beside this executable.
fn beside(name: &str) -> PathBuf {
    env::current_exe().ok().and_then(|path| Some(path.parent()?.join(name))).unwrap_or_else(|| name.into())
}

fn programs(options: &Options, out: &Path) -> Result<Vec<Program>> {
    let worker = if in_workspace() { build_worker(options.peers)? } else { beside("bench-worker") };
    let scripts = scripts();
    let program = |name: &str, program: &Path, arguments: Vec<std::ffi::OsString>| {
        let log = out.join("log").join(format!("{name}.log"));
        let _ = fs::remove_file(&log);
        Program { name: name.into(), program: program.into(), arguments, log }
    };
    let mut programs =
        vec![program(OURS, &worker, Vec::new()), program(OURS_TF32, &worker, vec!["tf32".into()])];
    if options.peers {
        for (name, script) in PEERS {
            programs.push(program(name, Path::new("python3"), vec![scripts.join(script).into()]));
        }
        programs.push(program(LINFA, &worker, vec!["linfa".into()]));
    }
    programs.retain(|program| !options.without.contains(&program.name));
    Ok(programs)
}

/// The executable that runs flash-kmeans, and linfa-clustering with `peers`; built with what it is measured with.
fn build_worker(peers: bool) -> Result<PathBuf> {
    let features = if peers { "linfa" } else { "worker" };
    let folder = target().join("bench-worker");
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--locked", "--package", "xtask", "--bin", "bench-worker"]);
    cargo.args(["--features", features, "--target-dir"]).arg(&folder);
    let status = cargo.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err(format!("cargo build: {status}"));
    }
    Ok(folder.join("release").join(format!("bench-worker{}", env::consts::EXE_SUFFIX)))
}

fn circumstances() -> Run {
    let mut gpu = nvidia_smi("name,driver_version").unwrap_or_default();
    let driver = gpu.split_off(gpu.rfind(", ").unwrap_or(gpu.len()));
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Run {
        date: output_of(Command::new("date").args(["-u", "+%Y-%m-%d"])).unwrap_or_default().trim().into(),
        command: std::iter::once("cargo xtask".into())
            .chain(env::args().skip(1))
            .collect::<Vec<_>>()
            .join(" "),
        version: env!("CARGO_PKG_VERSION").into(),
        gpu: some(gpu),
        driver: some(driver.trim_start_matches(", ").into()),
        cpu: cpu.map_or("unknown", |(_, name)| name).into(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        seed: SEED,
    }
}

/// One line for the first GPU.
fn nvidia_smi(query: &str) -> Option<String> {
    let mut command = Command::new("nvidia-smi");
    command.arg(format!("--query-gpu={query}")).arg("--format=csv,noheader");
    output_of(&mut command).ok()?.lines().next().map(str::to_owned)
}

/// Where the points go: into memory, where that has room for them.
fn scratch(options: &Options, cases: &[Case]) -> PathBuf {
    if let Some(scratch) = &options.scratch {
        return scratch.clone();
    }
    let most = |dtype| cases.iter().filter(|c| c.dtype == dtype).map(|c| c.point_bytes()).fold(0.0, f64::max);
    use super::case::DType::{BF16, F16, F32};
    // Results and samples are a small part of this.
    let bytes = 1.1 * (most(F16) + most(BF16) + most(F32)) + 1e9;
    let free = output_of(Command::new("df").args(["--output=avail", "-B1", "/dev/shm"]));
    let free = free.ok().and_then(|text| text.lines().nth(1)?.trim().parse::<f64>().ok()).unwrap_or(0.0);
    if free > bytes { "/dev/shm".into() } else { env::temp_dir() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_far_behind_is_told_by_the_best() {
        let measured = |ms| {
            let time = Time { median: ms, p10: None, p90: None, samples: 5 };
            let gate =
                judge(&Case::parse("1,10,2,3,f32").unwrap(), Difference { inertia: 0.0, labels: None });
            Some(Outcome::Measured { time, gate, note: None })
        };
        let names = [OURS, "quick", "slow", "absent"].map(str::to_owned);
        let outcomes = [measured(90.0), measured(1.0), measured(20.5), None];
        assert_eq!(far_behind(&names, &outcomes), [&names[2]]);
        assert!(far_behind(&names, &[measured(1.0), measured(19.0), None, None]).is_empty());
        assert!(far_behind(&names, &[measured(0.03), None, measured(4.9), None]).is_empty());
        assert!(far_behind(&names, &[None, None, None, None]).is_empty());
    }
}
