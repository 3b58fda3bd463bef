//! The launch plan of the present GPU, by measurement: one value after the other, while that makes iterations faster.
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::Result;
use crate::bench::DType::{F16, F32};
use crate::bench::{Case, Program, in_workspace, worker};
use crate::workspace::{read, root, write};

/// How long to measure, and where the result goes.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Fewer shapes, and fewer times each.
    #[arg(long)]
    quick: bool,
    /// Minutes after which no more is measured, and values not yet looked at stay; 3.5 for a quick run, else 8.5.
    #[arg(long)]
    minutes: Option<f64>,
    /// The table in which the line of this GPU is written; in the workspace the shipped one, elsewhere none.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What a change has to gain: less is noise.
const GAIN: f64 = 0.01;
/// Times that all values are looked at: a value can be better after another has changed.
const PASSES: usize = 2;
const JOB_LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let log = std::env::temp_dir().join("flash-kmeans-tune.log");
    let program =
        Program { name: "flash-kmeans".into(), program: worker()?.into(), arguments: Vec::new(), log };
    let mut process = program.start()?;
    let mut ask = |job: Value| {
        let answer = process.ask(&job, JOB_LIMIT)?;
        answer["error"].as_str().map_or(Ok(answer.clone()), |reason| Err(reason.to_owned()))
    };
    let gpu = ask(json!({"op": "gpu"}))?;
    let text = |key: &str| gpu[key].as_str().ok_or_else(|| format!("no {key} in {gpu}"));
    let (name, hardware) = (text("name")?.to_owned(), text("hardware")?.to_owned());
    let start = Plan::parse(text("plan")?)?;
    println!("{name}: {hardware}\nfrom: {start}");

    let minutes = arguments.minutes.unwrap_or(if arguments.quick { 3.5 } else { 8.5 });
    let begin = Instant::now();
    let deadline = begin + Duration::from_secs_f64(minutes * 60.0);
    let (rounds, iterations) = if arguments.quick { (4, 10) } else { (6, 20) };
    let timer = |case: &Case, plan: &Plan| {
        if Instant::now() > deadline {
            return Ok(None);
        }
        let answer = ask(json!({
            "op": "time", "case": case, "plan": plan.to_string(), "iterations": iterations,
        }))?;
        answer["iteration"].as_f64().map(Some).ok_or_else(|| format!("answered without a time: {answer}"))
    };
    let knobs = knobs(gpu["has_tensor_cores"] == true, arguments.quick);
    let plan = descend(&knobs, start, rounds, timer, |line| println!("{line}"))?;

    let line = format!("{hardware}: {plan} # {name}");
    println!("\n{:.0} s; the line of this GPU:\n{line}", begin.elapsed().as_secs_f64());
    let shipped = || root().join("host/src/backend/cuda/plans.txt");
    let Some(out) = arguments.out.clone().or_else(|| in_workspace().then(shipped)) else { return Ok(()) };
    let table = if out.exists() { read(&out)? } else { String::new() };
    write(&out, &with_line(&table, &hardware, &line))?;
    println!("written to {}", out.display());
    Ok(())
}

/// The values of a launch plan by name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan(Vec<(String, u32)>);

impl Plan {
    fn parse(text: &str) -> Result<Self> {
        let wrong = |word| format!("{word} is no value of a launch plan");
        let value = |word: &str| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        text.split_whitespace()
            .map(|word| value(word).ok_or_else(|| wrong(word)))
            .collect::<Result<_>>()
            .map(Plan)
    }

    fn get(&self, name: &str) -> Result<u32> {
        let found = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        found.ok_or_else(|| format!("a launch plan has no {name}"))
    }

    fn with(&self, name: &str, value: u32) -> Self {
        let mut plan = self.clone();
        plan.0.iter_mut().filter(|(known, _)| known == name).for_each(|entry| entry.1 = value);
        plan
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={value}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// What a value decides.
#[derive(Clone, Copy)]
enum Role {
    /// Something is done for shapes of which this is at least the value.
    From(fn(&Case) -> usize),
    /// For those of which it is at most the value.
    UpTo(fn(&Case) -> usize),
    /// How much of something there is, for all shapes.
    Amount,
}

/// A value to choose.
struct Knob {
    name: &'static str,
    role: Role,
    candidates: &'static [u32],
    shapes: Vec<Case>,
}

impl Knob {
    /// Whether the shape is treated differently by the two values.
    fn concerns(&self, case: &Case, a: u32, b: u32) -> bool {
        match self.role {
            Role::From(of) => (of(case) >= a as usize) != (of(case) >= b as usize),
            Role::UpTo(of) => (of(case) <= a as usize) != (of(case) <= b as usize),
            Role::Amount => a != b,
        }
    }
}

/// Tiles of 128 centroids.
fn tiles(case: &Case) -> usize {
    case.k.div_ceil(128)
}

/// Steps of 16 features, of which the least are 4.
fn steps(case: &Case) -> usize {
    case.d.div_ceil(16).max(4)
}

/// What there is to choose, with shapes on both sides of each candidate. Shapes of sorts have few features, so that the
/// sort is a large part of an iteration.
fn knobs(has_tensor_cores: bool, quick: bool) -> Vec<Knob> {
    let knob = |name, role, candidates, shapes: Vec<Case>| Knob { name, role, candidates, shapes };
    let grid = |batch_and_n: &[(usize, usize)], k: &[usize], d: &[usize]| {
        let mut shapes = Vec::new();
        for &(batch, n) in batch_and_n {
            for &k in k {
                shapes.extend(d.iter().map(|&d| Case::new(batch, n, k, d, F16)));
            }
        }
        shapes
    };
    // A quick run has the first of each list alone.
    fn some<T>(values: &[T], quick: bool) -> &[T] {
        &values[..if quick { 1 } else { values.len() }]
    }
    let mut knobs = Vec::new();
    if has_tensor_cores {
        let shapes = grid(&[(1, 1 << 20)], some(&[1024, 8192], quick), &[80, 96, 112, 128]);
        knobs.push(knob("narrow_steps", Role::UpTo(steps), &[4, 5, 6, 7, 8], shapes));

        let small = [(64, 4096), (1, 1 << 17), (1, 1 << 20)];
        let shapes = grid(some(&small, quick), &[64, 128, 256, 512], some(&[64, 128], quick));
        knobs.push(knob("mma_clusters", Role::UpTo(|case| case.k), &[0, 64, 128, 256, 512], shapes));

        let shapes = grid(some(&small, quick), some(&[64, 128], quick), &[64, 96, 128, 256]);
        knobs.push(knob("mma_steps", Role::UpTo(steps), &[0, 4, 6, 8, 16], shapes));

        let shapes = grid(&[(1, 1 << 20)], &[128, 256, 512, 1024], some(&[128, 64, 256], quick));
        knobs.push(knob("ordered_tiles", Role::From(tiles), &[1, 2, 4, 8, 16], shapes));

        let shapes = grid(&[(1, 1 << 20)], &[512, 1024, 2048, 4096], some(&[128, 64], quick));
        knobs.push(knob("floored_tiles", Role::From(tiles), &[4, 8, 16, 32, 64], shapes));

        let shapes = grid(&[(1, 1 << 19)], some(&[4096, 16_384], quick), &[64, 128, 256, 512]);
        knobs.push(knob("floored_steps", Role::UpTo(steps), &[0, 4, 8, 16, 32], shapes));

        let wide = Case::new(1, 1 << 18, 4096, 768, F32);
        let shapes = vec![wide, Case::new(1, 1 << 20, 8192, 128, F32), Case::new(1, 1 << 22, 2048, 128, F32)];
        let shapes = some(&shapes, quick).to_vec();
        knobs.push(knob("refined_points", Role::Amount, &[64, 256, 1024, 4096, 16_384], shapes));

        let mut shapes = vec![
            Case::new(1, 1 << 14, 256, 128, F16),
            Case::new(64, 4096, 64, 64, F16),
            Case::new(1, 1 << 20, 8192, 128, F16),
        ];
        if !quick {
            shapes.push(Case::new(32, 75_600, 1000, 128, F16));
            shapes.push(Case::new(1, 1 << 20, 8192, 128, F32));
            shapes.push(Case::new(1, 1 << 19, 4096, 768, F16));
        }
        knobs.push(knob("settle_blocks", Role::Amount, &[1, 2, 4, 6, 8, 16], shapes));
    }
    let shapes =
        grid(some(&[(1, 1 << 20), (32, 1 << 16), (1, 1 << 23)], quick), &[512, 1024, 2048, 4096], &[16]);
    knobs.push(knob("whole_sort_clusters", Role::UpTo(|case| case.k), &[256, 512, 1024, 2048, 4096], shapes));
    knobs
}

/// Coordinate descent from `plan`: for each knob in turn the candidate with the least geometric mean of times, beside those
/// of the present value, over the shapes that it concerns, if that is less by more than [`GAIN`]. `timer` gives the
/// milliseconds of an iteration, or none when there is no time left.
fn descend(
    knobs: &[Knob],
    mut plan: Plan,
    rounds: usize,
    mut timer: impl FnMut(&Case, &Plan) -> Result<Option<f64>>,
    mut tell: impl FnMut(&str),
) -> Result<Plan> {
    for pass in 0..PASSES {
        let before = plan.clone();
        for knob in knobs {
            let present = plan.get(knob.name)?;
            tell(&format!(
                "\n{}, at present {present}\n{:>10} {:>7} {:>9}",
                knob.name, "value", "shapes", "time"
            ));
            let Some(tried) = sweep(knob, &plan, rounds, &mut timer)? else {
                tell("no time left");
                return Ok(plan);
            };
            for Tried { value, shapes, time } in &tried {
                tell(&format!("{value:>10} {shapes:>7} {time:>9.4}"));
            }
            let best = tried.iter().min_by(|a, b| a.time.total_cmp(&b.time));
            if let Some(best) = best.filter(|best| best.time < 1.0 - GAIN) {
                tell(&format!("{} is {} now", knob.name, best.value));
                plan = plan.with(knob.name, best.value);
            }
        }
        if plan == before || pass + 1 == PASSES {
            break;
        }
    }
    Ok(plan)
}

/// A candidate, how many shapes it concerns, and its time beside the present value's.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tried {
    value: u32,
    shapes: usize,
    time: f64,
}

/// All candidates that concern a shape; none when time is over.
fn sweep(
    knob: &Knob,
    plan: &Plan,
    rounds: usize,
    timer: &mut impl FnMut(&Case, &Plan) -> Result<Option<f64>>,
) -> Result<Option<Vec<Tried>>> {
    let present = plan.get(knob.name)?;
    // A shape is on one side of a threshold or on the other: whichever value puts it there, it is the same.
    let mut known: HashMap<(Case, u32), f64> = HashMap::new();
    let mut tried = Vec::new();
    for &value in knob.candidates {
        let other = plan.with(knob.name, value);
        let mut logarithms = Vec::new();
        for case in knob.shapes.iter().filter(|case| knob.concerns(case, present, value)) {
            let side = if matches!(knob.role, Role::Amount) { value } else { 0 };
            let ratio = match known.get(&(*case, side)) {
                Some(ratio) => *ratio,
                None => {
                    let Some(ratio) = compare(case, plan, &other, rounds, timer)? else { return Ok(None) };
                    known.insert((*case, side), ratio);
                    ratio
                }
            };
            logarithms.push(ratio.ln());
        }
        let shapes = logarithms.len();
        if shapes > 0 {
            tried.push(Tried { value, shapes, time: (logarithms.iter().sum::<f64>() / shapes as f64).exp() });
        }
    }
    Ok(Some(tried))
}

/// The time of `other` beside that of `plan`: the median of an even number of rounds, in which each is first in turn, so that
/// drift falls on both.
fn compare(
    case: &Case,
    plan: &Plan,
    other: &Plan,
    rounds: usize,
    timer: &mut impl FnMut(&Case, &Plan) -> Result<Option<f64>>,
) -> Result<Option<f64>> {
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let mut time = |plan| timer(case, plan);
        let (ours, theirs) = if round % 2 == 0 {
            let ours = time(plan)?;
            (ours, time(other)?)
        } else {
            let theirs = time(other)?;
            (time(plan)?, theirs)
        };
        let Some((ours, theirs)) = ours.zip(theirs) else { return Ok(None) };
        if !(ours > 0.0 && theirs > 0.0) {
            return Err(format!("{case}: times of {ours} and {theirs} ms"));
        }
        ratios.push(theirs / ours);
    }
    ratios.sort_by(f64::total_cmp);
    Ok(Some((ratios[(rounds - 1) / 2] * ratios[rounds / 2]).sqrt()))
}

/// `table` with `line` in the place of the line of `hardware`, or at its end.
fn with_line(table: &str, hardware: &str, line: &str) -> String {
    let is_its = |old: &&str| old.split_once(':').is_some_and(|(key, _)| key.trim() == hardware);
    let mut lines: Vec<&str> = table.lines().collect();
    match lines.iter().position(is_its) {
        Some(at) => lines[at] = line,
        None => lines.push(line),
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::parse(
            "narrow_steps=8 mma_clusters=128 mma_steps=8 ordered_tiles=4 floored_tiles=16 floored_steps=8 \
             refined_points=256 settle_blocks=4 whole_sort_clusters=4096",
        )
        .unwrap()
    }

    #[test]
    fn plans_come_back_as_they_were_written() {
        let text = plan().to_string();
        assert_eq!(Plan::parse(&text).unwrap(), plan());
        assert_eq!(plan().with("ordered_tiles", 7).get("ordered_tiles").unwrap(), 7);
        assert!(plan().get("rows").unwrap_err().contains("rows"));
        assert!(Plan::parse("a=1 b").unwrap_err().starts_with("b is"));
    }

    #[test]
    fn every_candidate_concerns_a_shape() {
        for quick in [false, true] {
            for knob in knobs(true, quick) {
                let present = plan().get(knob.name).unwrap();
                assert!(knob.candidates.contains(&present), "{}", knob.name);
                for &value in knob.candidates.iter().filter(|value| **value != present) {
                    let name = knob.name;
                    assert!(
                        knob.shapes.iter().any(|case| knob.concerns(case, present, value)),
                        "{name} {value}"
                    );
                }
                assert!(knob.shapes.iter().all(|case| case.k <= case.n));
            }
        }
        assert!(knobs(false, false).iter().all(|knob| knob.name.contains("sort")));
    }

    /// A GPU whose clocks fall, and on which floors are worth it from 1024 clusters on and three settling blocks cost least;
    /// ordering gains less than what counts.
    fn fake(case: &Case, plan: &Plan, calls: &mut u32) -> f64 {
        let (get, k) = (|name| plan.get(name).unwrap(), tiles(case));
        *calls += 1;
        let mut time = 1.0 + 1e-5 * f64::from(*calls);
        if k >= get("floored_tiles") as usize {
            time *= if case.k >= 1024 { 0.9 } else { 1.1 };
        }
        if k >= get("ordered_tiles") as usize {
            time *= 0.995;
        }
        time * (1.0 + 0.05 * f64::from(get("settle_blocks").abs_diff(6)))
    }

    #[test]
    fn descent_takes_what_is_faster_and_leaves_the_rest() {
        let mut calls = 0;
        let mut told = Vec::new();
        let timer = |case: &Case, plan: &Plan| Ok(Some(fake(case, plan, &mut calls)));
        let found =
            descend(&knobs(true, false), plan(), 6, timer, |line| told.push(line.to_owned())).unwrap();
        assert_eq!(found, plan().with("floored_tiles", 8).with("settle_blocks", 6));
        assert!(told.iter().any(|line| line == "floored_tiles is 8 now"), "{told:?}");
    }

    #[test]
    fn the_mean_is_over_the_shapes_that_a_change_concerns() {
        let knobs = knobs(true, true);
        let knob = knobs.iter().find(|knob| knob.name == "floored_tiles").unwrap();
        let mut calls = 0;
        let tried =
            sweep(knob, &plan(), 4, &mut |case, plan| Ok(Some(fake(case, plan, &mut calls)))).unwrap();
        let tried = tried.unwrap();
        let of = |value| *tried.iter().find(|tried| tried.value == value).unwrap();
        assert_eq!((of(8).shapes, of(4).shapes, of(32).shapes, of(64).shapes), (1, 2, 1, 2));
        assert!((of(8).time - 0.9).abs() < 1e-3 && (of(4).time - (0.9f64 * 1.1).sqrt()).abs() < 1e-3);
        // Four shapes, four rounds of two: a shape is timed once for all candidates beyond it.
        assert_eq!(calls, 32);
    }

    #[test]
    fn drift_falls_on_both() {
        let case = Case::new(1, 1 << 20, 8192, 128, F16);
        let mut clock = 1.0;
        let mut drifting = |_: &Case, _: &Plan| {
            clock *= 1.02;
            Ok(Some(clock))
        };
        let ratio = compare(&case, &plan(), &plan(), 4, &mut drifting).unwrap().unwrap();
        assert!((ratio - 1.0).abs() < 1e-9, "{ratio}");
    }

    #[test]
    fn without_time_or_with_a_failure_nothing_is_changed() {
        let knobs = knobs(true, true);
        assert_eq!(descend(&knobs, plan(), 4, |_, _| Ok(None), |_| ()).unwrap(), plan());
        let failing = |_: &Case, _: &Plan| Err("no device".to_owned());
        assert_eq!(descend(&knobs, plan(), 4, failing, |_| ()).unwrap_err(), "no device");
        assert!(descend(&knobs, plan(), 4, |_, _| Ok(Some(f64::NAN)), |_| ()).is_err());
    }

    #[test]
    fn the_line_of_the_gpu_is_replaced_or_added() {
        let table = "# GPUs\na=1 b=2: x=1 # one\na=1 b=22: x=2\n";
        assert_eq!(with_line(table, "a=1 b=2", "new"), "# GPUs\nnew\na=1 b=22: x=2\n");
        assert_eq!(with_line(table, "a=1", "new"), format!("{table}new\n"));
        assert_eq!(with_line("", "a=1", "new"), "new\n");
    }
}
