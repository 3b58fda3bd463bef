//! A run's records as a document: tables, ratios, charts. Nothing in it is typed by hand.
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::case::{Case, DType, Suite};
use super::charts;
use super::gate::Grade;
use super::record::{OURS, OURS_TF32, Outcome, Record, Time, load};
use crate::Result;
use crate::workspace::{create_folder, root, write as write_file};

/// All measurements of a case in a suite.
pub(crate) struct Row<'a> {
    pub(crate) case: Case,
    outcomes: Vec<(&'a str, &'a Outcome)>,
}

impl<'a> Row<'a> {
    fn outcome(&self, name: &str) -> Option<&'a Outcome> {
        self.outcomes.iter().find(|outcome| outcome.0 == name).map(|outcome| outcome.1)
    }

    /// The time of an implementation, if its result counts.
    pub(crate) fn time(&self, name: &str) -> Option<Time> {
        match self.outcome(name)? {
            Outcome::Measured { time, gate, .. } if gate.grade != Grade::Wrong => Some(*time),
            _ => None,
        }
    }

    /// The implementations whose results count.
    pub(crate) fn counting(&self) -> impl Iterator<Item = &'a str> {
        self.outcomes.iter().map(|outcome| outcome.0).filter(|name| self.time(name).is_some())
    }

    pub(crate) fn best_peer(&self) -> Option<(&'a str, Time)> {
        let peers = self.counting().filter(|&name| name != OURS && name != OURS_TF32);
        peers
            .filter_map(|name| Some((name, self.time(name)?)))
            .min_by(|a, b| a.1.median.total_cmp(&b.1.median))
    }
}

/// The measurements of `suite`, a row for each case, in the order of the run.
pub(crate) fn rows(records: &[Record], suite: Suite, cold: bool) -> Vec<Row<'_>> {
    let mut rows: Vec<Row> = Vec::new();
    for record in records {
        let Record::Measurement(measurement) = record else { continue };
        if measurement.suite != suite || measurement.cold != cold {
            continue;
        }
        let outcome = (measurement.implementation.as_str(), &measurement.outcome);
        match rows.iter_mut().find(|row| row.case == measurement.case) {
            Some(row) => row.outcomes.push(outcome),
            None => rows.push(Row { case: measurement.case, outcomes: vec![outcome] }),
        }
    }
    rows
}

/// Reads a run's records, and writes the document and its charts.
pub(crate) fn write(records: &Path, out: Option<PathBuf>) -> Result<()> {
    let records = load(records)?;
    let out = out.unwrap_or_else(|| root().join("docs").join("benchmarks.md"));
    let text = render(&records, &out.with_extension(""))?;
    write_file(&out, &text)?;
    println!("{}", out.display());
    Ok(())
}

/// The document; its charts are written into `folder`, beside which it is to lie.
pub(crate) fn render(records: &[Record], folder: &Path) -> Result<String> {
    let charts = charts::draw(records)?;
    if !charts.is_empty() {
        let _ = fs::remove_dir_all(folder);
        create_folder(folder)?;
    }
    let mut names = BTreeMap::new();
    for (suite, svg) in charts {
        let name = format!("{}.svg", suite.name());
        write_file(&folder.join(&name), &svg)?;
        let beside = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        names.insert(suite, format!("{beside}/{name}"));
    }
    let mut text = String::new();
    document(&mut text, records, &names).map_err(|error| error.to_string())?;
    Ok(text)
}

fn document(text: &mut String, records: &[Record], charts: &BTreeMap<Suite, String>) -> std::fmt::Result {
    writeln!(text, "# Benchmarks\n")?;
    writeln!(text, "Written by `cargo xtask bench`; a run's records are rendered again with")?;
    writeln!(text, "`cargo xtask bench report records.jsonl`.\n")?;
    circumstances(text, records)?;
    method(text)?;
    for suite in Suite::ALL {
        section(text, records, suite, false, charts.get(&suite))?;
        section(text, records, suite, true, None)?;
    }
    misses(text, records)
}

fn circumstances(text: &mut String, records: &[Record]) -> std::fmt::Result {
    for record in records {
        if let Record::Run(run) = record {
            let none = || "none".to_owned();
            writeln!(text, "| the run | |\n|---|---|")?;
            writeln!(text, "| command | `{}` |", run.command)?;
            writeln!(text, "| date | {} |", run.date)?;
            writeln!(text, "| {OURS} | {} |", run.version)?;
            writeln!(text, "| GPU | {} |", run.gpu.clone().unwrap_or_else(none))?;
            writeln!(text, "| driver | {} |", run.driver.clone().unwrap_or_else(none))?;
            writeln!(text, "| CPU | {}, {} threads |", run.cpu, run.cores)?;
            writeln!(text, "| seed of the points | {} |", run.seed)?;
        }
    }
    for record in records {
        if let Record::Clocks { when, sm_mhz, memory_mhz, celsius, watts } = record {
            writeln!(text, "| clocks {when} | SM {sm_mhz}, memory {memory_mhz}, {celsius} °C, {watts} |")?;
        }
    }
    writeln!(text, "\n| implementation | versions |\n|---|---|")?;
    for record in records {
        if let Record::Implementation(implementation) = record {
            let versions: Vec<String> =
                implementation.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
            let state = match &implementation.absent {
                Some(reason) => format!("absent: {}", cell(reason)),
                None => versions.join(", "),
            };
            writeln!(text, "| {} | {state} |", implementation.name)?;
        }
    }
    let mut any = false;
    for record in records {
        if let Record::Ceiling { name, value, unit } = record {
            if !any {
                writeln!(text, "\n| ceiling, through PyTorch | |\n|---|---|")?;
                any = true;
            }
            let name = name.replace("gemm_", "8192³ product, ").replace('_', " ");
            writeln!(text, "| {name} | {value:.0} {unit} |")?;
        }
    }
    writeln!(text)
}

fn method(text: &mut String) -> std::fmt::Result {
    text.write_str(
        "\
All implementations get the same bytes, normal values of a counter-based generator, and the same first centroids, the
first k points. Times on the GPU are by device events after a warm-up, medians of 20 samples, of at least five where
they take long; times of whole calls are by the host's clock. Where points would stay in the GPU's L2 cache from sample
to sample, the cache is overwritten in between, for every implementation alike. Before a time counts, labels of a
sample (`assign`) or the sample's inertia under the centroids found (others) are compared with float64's; where a whole
fit in float64 would take too long, the inertia of other implementations is compared with this project's. `≈` marks a
time whose result misses the bound by its precision (inertia 1e-3 relative for 16-bit points, 1e-5 for f32; 99 % of the
labels), `wrong` one that does not count. Who takes more than 20 times as long as the best, and more than 5 ms, is not
asked for a suite's larger problems (–).

",
    )
}

fn title(suite: Suite, cold: bool) -> (&'static str, &'static str) {
    match (suite, cold) {
        (Suite::Assign, _) => ("Assignment", "ms for the labels of all points under given centroids."),
        (Suite::Update, _) => ("Update", "ms for the means of the points of each label, sorting included."),
        (Suite::Iteration, _) => ("Iteration", "ms for a whole iteration."),
        (Suite::Latency, false) => (
            "Whole calls",
            "ms for a call of ten iterations, by the host's clock. Notes below tell where an implementation starts from \
             points in host memory; the others have them on the device.",
        ),
        (Suite::Latency, true) => (
            "From the start of a process",
            "ms from the start of a process to the result of its first call of ten iterations.",
        ),
        (Suite::Streaming, _) => {
            ("Streaming", "ms for a call of three iterations over points in host memory.")
        }
        (Suite::Cpu, _) => ("CPU", "ms for an iteration: the difference of a long and a short fit."),
    }
}

fn section(
    text: &mut String,
    records: &[Record],
    suite: Suite,
    cold: bool,
    chart: Option<&String>,
) -> std::fmt::Result {
    let rows = rows(records, suite, cold);
    if rows.is_empty() {
        return Ok(());
    }
    let (title, what) = title(suite, cold);
    writeln!(text, "## {title}\n\n{what}\n")?;
    if let Some(chart) = chart {
        writeln!(text, "![{title}, relative times]({chart})\n")?;
    }
    let mut names: Vec<&str> = Vec::new();
    for (name, outcome) in rows.iter().flat_map(|row| &row.outcomes) {
        if *name != OURS && !names.contains(name) && !matches!(outcome, Outcome::Skipped { .. }) {
            names.push(name);
        }
    }
    let limit = rows.iter().any(|row| ceiling(records, suite, row).is_some());
    write!(text, "| problem | {OURS} | p10–p90 | best peer | ratio |")?;
    if limit {
        write!(text, " of the ceiling |")?;
    }
    for name in &names {
        write!(text, " {name} |")?;
    }
    writeln!(text)?;
    writeln!(text, "|---|{}", "---:|".repeat(4 + usize::from(limit) + names.len()))?;
    for row in &rows {
        let ours = row.time(OURS);
        let spread = ours.and_then(|time| Some(format!("{}–{}", ms(time.p10?), ms(time.p90?))));
        let best = row.best_peer();
        let ratio = ours.zip(best).map(|(ours, best)| format!("{:.2}", best.1.median / ours.median));
        let dash = || "–".to_owned();
        write!(
            text,
            "| {} | {} | {} | {} | {} |",
            row.case,
            shown(row.outcome(OURS)),
            spread.unwrap_or_else(dash),
            best.map_or("–", |best| best.0),
            ratio.unwrap_or_else(dash)
        )?;
        if limit {
            let share = ceiling(records, suite, row).map(|share| format!("{:.0} %", 100.0 * share));
            write!(text, " {} |", share.unwrap_or_else(dash))?;
        }
        for name in &names {
            write!(text, " {} |", shown(row.outcome(name)))?;
        }
        writeln!(text)?;
    }
    writeln!(text)
}

/// The share of what the hardware can do that this project's own time reaches: products for `assign` and `iteration`,
/// reading the points once for `update`.
fn ceiling(records: &[Record], suite: Suite, row: &Row) -> Option<f64> {
    let seconds = row.time(OURS)?.median / 1e3;
    let find = |wanted: &str| {
        records.iter().find_map(|record| match record {
            Record::Ceiling { name, value, .. } if name == wanted => Some(*value),
            _ => None,
        })
    };
    let case = &row.case;
    match suite {
        Suite::Assign | Suite::Iteration => {
            let name = match case.dtype {
                DType::F16 => "gemm_f16",
                DType::BF16 => "gemm_bf16",
                DType::F32 => "gemm_tf32",
            };
            Some(case.flops() / seconds / 1e12 / find(name)?)
        }
        Suite::Update => Some(case.point_bytes() / seconds / 1e9 / find("device_copy")?),
        _ => None,
    }
}

fn shown(outcome: Option<&Outcome>) -> String {
    match outcome {
        Some(Outcome::Measured { time, gate, .. }) => match gate.grade {
            Grade::Holds => ms(time.median),
            Grade::Imprecise => format!("≈ {}", ms(time.median)),
            Grade::Wrong => "wrong".into(),
        },
        Some(Outcome::Failed { .. }) => "failed".into(),
        Some(Outcome::Skipped { .. }) | None => "–".into(),
    }
}

/// Three digits that count.
fn ms(value: f64) -> String {
    let digits = (2 - value.abs().max(1e-6).log10().floor() as i32).clamp(0, 5) as usize;
    format!("{value:.digits$}")
}

/// Text that does not end a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// What failed, what misses the bounds, and the notes.
fn misses(text: &mut String, records: &[Record]) -> std::fmt::Result {
    let mut notes: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    let mut lines = Vec::new();
    for record in records {
        let Record::Measurement(measurement) = record else { continue };
        let name = &measurement.implementation;
        let place = format!("{}, {}", measurement.suite.name(), measurement.case);
        match &measurement.outcome {
            Outcome::Failed { reason } => lines.push(format!("- {name}, {place}: failed: {}", cell(reason))),
            Outcome::Measured { gate, note, .. } => {
                if gate.grade != Grade::Holds {
                    let labels =
                        gate.difference.labels.map(|share| format!(", {:.2} % of the labels", 100.0 * share));
                    lines.push(format!(
                        "- {name}, {place}: inertia off by {:.1e}{}",
                        gate.difference.inertia,
                        labels.unwrap_or_default()
                    ));
                }
                if let Some(note) = note {
                    notes.entry((name, note)).or_default().push(place);
                }
            }
            Outcome::Skipped { .. } => {}
        }
    }
    let unmeasured: Vec<String> = records
        .iter()
        .filter_map(|record| match record {
            Record::Unmeasured { suite, case } => Some(format!("{}, {case}", suite.name())),
            _ => None,
        })
        .collect();
    if !unmeasured.is_empty() {
        writeln!(text, "The run's time did not suffice for {}.\n", unmeasured.join("; "))?;
    }
    if !lines.is_empty() {
        writeln!(text, "## What missed its bound, or failed\n")?;
        for line in lines {
            writeln!(text, "{line}")?;
        }
        writeln!(text)?;
    }
    if !notes.is_empty() {
        writeln!(text, "## Notes\n")?;
        for ((name, note), places) in notes {
            writeln!(text, "- {name}: {} ({})", cell(note), places.join("; "))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::record::parse;
    use super::*;

    const SAMPLE: &str = r#"
{"record":"run","date":"2026-11-21","command":"cargo xtask bench assign --peers","version":"0.1.0","gpu":"NVIDIA H200","driver":"580.0","cpu":"a CPU","cores":16,"seed":1}
{"record":"implementation","name":"flash-kmeans-rs","versions":{"flash-kmeans-rs":"0.1.0"},"absent":null}
{"record":"implementation","name":"cuML","versions":{},"absent":"no module | named cuml"}
{"record":"ceiling","name":"gemm_f16","value":672.0,"unit":"TFLOP/s"}
{"record":"measurement","suite":"assign","case":{"batch":1,"n":1048576,"k":8192,"d":128,"dtype":"f16"},"implementation":"flash-kmeans-rs","outcome":"measured","time":{"median":4.0,"p10":3.9,"p90":4.2,"samples":20},"gate":{"grade":"holds","inertia":0.0,"labels":1.0}}
{"record":"measurement","suite":"assign","case":{"batch":1,"n":1048576,"k":8192,"d":128,"dtype":"f16"},"implementation":"FlashLib","outcome":"measured","time":{"median":5.0,"p10":5.0,"p90":5.0,"samples":20},"gate":{"grade":"imprecise","inertia":1e-4,"labels":0.98},"note":"CuTe"}
{"record":"measurement","suite":"assign","case":{"batch":1,"n":1048576,"k":8192,"d":128,"dtype":"f16"},"implementation":"PyTorch","outcome":"measured","time":{"median":1.0,"p10":1.0,"p90":1.0,"samples":20},"gate":{"grade":"wrong","inertia":0.5,"labels":0.1}}
{"record":"measurement","suite":"assign","case":{"batch":1,"n":1048576,"k":8192,"d":128,"dtype":"f16"},"implementation":"cuML","outcome":"failed","reason":"out of memory"}
{"record":"unmeasured","suite":"cpu","case":{"batch":1,"n":100,"k":2,"d":3,"dtype":"f32"}}
"#;

    #[test]
    fn a_wrong_result_is_no_best_peer_and_ratios_are_counted() {
        let records = parse(SAMPLE).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let text = render(&records, &folder.path().join("benchmarks")).unwrap();
        // 2·2^20·8192·128 operations in 4 ms are 550 TFLOP/s, of 672.
        let row = "| 1Mi, k 8Ki, d 128, f16 | 4.00 | 3.90–4.20 | FlashLib | 1.25 | 82 % | ≈ 5.00 | wrong | failed |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains(
            "- PyTorch, assign, 1Mi, k 8Ki, d 128, f16: inertia off by 5.0e-1, 10.00 % of the labels"
        ));
        assert!(text.contains("cuML, assign, 1Mi, k 8Ki, d 128, f16: failed: out of memory"));
        assert!(text.contains("| cuML | absent: no module \\| named cuml |"));
        assert!(text.contains("did not suffice for cpu, 100, k 2, d 3, f32."));
        assert!(text.contains("(benchmarks/assign.svg)"));
        let svg = fs::read_to_string(folder.path().join("benchmarks").join("assign.svg")).unwrap();
        assert!(svg.contains("FlashLib") && svg.contains("1Mi, k 8Ki, d 128, f16"), "{svg}");
        assert!(!svg.contains("PyTorch"), "a wrong result has no time to be drawn");
    }

    #[test]
    fn records_survive_being_written_and_read() {
        let records = parse(SAMPLE).unwrap();
        assert_eq!(records.len(), 9);
        let text: Vec<String> = records.iter().map(|record| serde_json::to_string(record).unwrap()).collect();
        assert_eq!(parse(&text.join("\n")).unwrap(), records);
        assert!(parse("{\"record\":\"nothing\"}").unwrap_err().starts_with("line 1"));
    }

    #[test]
    fn times_have_three_digits() {
        for (value, text) in
            [(0.05678, "0.0568"), (1.2345, "1.23"), (23.45, "23.4"), (1234.5, "1234"), (0.0, "0.00000")]
        {
            assert_eq!(ms(value), text);
        }
    }
}
