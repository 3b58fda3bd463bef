//! What a kernel makes of the hardware: ncu's figures where it runs, and always the roofline by counted work.
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use clap::Args;
use serde_json::Value;

use crate::Result;
use crate::bench::{Case, ceilings, worker};
use crate::workspace::output_of;

/// What to look at.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Part of the names of the kernels that ncu is to look at, such as `assign`; see kernels-gpu/ptx.
    kernel: String,
    /// The problem, B,N,K,D,TYPE.
    #[arg(value_parser = Case::parse)]
    shape: Case,
    /// Launches that ncu looks at.
    #[arg(long, default_value_t = 2)]
    launches: usize,
    /// ncu, where it is not on the path.
    #[arg(long, default_value = "ncu")]
    ncu: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let worker = worker()?;
    let Case { batch, n, k, d, dtype } = arguments.shape;
    let words =
        ["time".into(), batch.to_string(), n.to_string(), k.to_string(), d.to_string(), dtype.name().into()];
    let text = output_of(Command::new(&worker).args(&words))?;
    let times: Value = serde_json::from_str(&text).map_err(|error| format!("{text}: {error}"))?;
    print!("{}", roofline(&arguments.shape, &times, &ceilings()));
    match ncu(arguments, &worker, &words) {
        Ok(text) => println!("\n{text}"),
        Err(reason) => println!("\nno figures from ncu: {reason}"),
    }
    Ok(())
}

/// ncu's tables of speed of light, pipelines (tensor cores among them), memory and occupancy.
fn ncu(arguments: &Arguments, worker: &Path, words: &[String]) -> Result<String> {
    let mut ncu = Command::new(&arguments.ncu);
    for section in [
        "SpeedOfLight",
        "ComputeWorkloadAnalysis",
        "MemoryWorkloadAnalysis",
        "Occupancy",
        "LaunchStats",
        "WarpStateStats",
    ] {
        ncu.args(["--section", section]);
    }
    ncu.args(["--print-details", "all", "--kernel-name-base", "function"]);
    ncu.arg("--kernel-name").arg(format!("regex:{}", arguments.kernel));
    // The first launch finds caches and clocks cold.
    ncu.args(["--launch-skip", "1", "--launch-count"]).arg(arguments.launches.to_string());
    output_of(ncu.arg(worker).args(words))
}

/// Work and least traffic of each stage, its rate, and the share of what the ceilings allow; pure.
fn roofline(case: &Case, times: &Value, ceilings: &[(String, f64)]) -> String {
    let (rows, points) = (case.rows() as f64, case.point_bytes());
    let centroids = (case.batch * case.k * case.d) as f64 * 4.0;
    // Labels, row indices and counts have four bytes.
    let stages = [
        ("assign", case.flops(), points + 4.0 * rows + centroids),
        ("sort", 0.0, 8.0 * rows),
        ("sums", case.values() as f64, points + 4.0 * rows + centroids),
        ("finalise", 0.0, 2.0 * centroids),
    ];
    let ceiling = |name: &str| ceilings.iter().find(|ceiling| ceiling.0 == name).map(|ceiling| ceiling.1);
    let product = ceiling(match case.dtype.name() {
        "f16" => "gemm_f16",
        "bf16" => "gemm_bf16",
        _ => "gemm_tf32",
    });
    let copy = ceiling("device_copy");
    let mut text = format!(
        "{case}; ceilings: {} TFLOP/s, {} GB/s\n{:>9} {:>10} {:>9} {:>9} {:>10} {:>11}\n",
        product.map_or("unknown".into(), |value| format!("{value:.0}")),
        copy.map_or("unknown".into(), |value| format!("{value:.0}")),
        "stage",
        "ms",
        "TFLOP/s",
        "GB/s",
        "FLOP/byte",
        "of the roof"
    );
    for (stage, flops, bytes) in stages {
        let Some(ms) = times[stage].as_f64() else { continue };
        let rate = |work: f64, unit: f64| work / (ms / 1e3) / unit;
        // The least time is that of the slower of both: work done and bytes moved.
        let least = product.zip(copy).map(|(product, copy)| {
            let by_work = if stage == "assign" { flops / (product * 1e12) } else { 0.0 };
            by_work.max(bytes / (copy * 1e9)) * 1e3
        });
        let share = least.map_or("-".into(), |least| format!("{:.0} %", 100.0 * least / ms));
        let _ = writeln!(
            text,
            "{stage:>9} {ms:>10.4} {:>9.1} {:>9.0} {:>10.1} {share:>11}",
            rate(flops, 1e12),
            rate(bytes, 1e9),
            flops / bytes
        );
    }
    if let Some(ms) = times["iteration"].as_f64() {
        let _ = writeln!(text, "{:>9} {ms:>10.4}", "iteration");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_slower_of_work_and_bytes() {
        let case = Case::parse("1,1048576,8192,128,f16").unwrap();
        let times = serde_json::json!({"assign": 4.0, "sums": 0.2, "iteration": 5.0});
        let ceilings = [("gemm_f16".to_owned(), 700.0), ("device_copy".to_owned(), 4000.0)];
        let text = roofline(&case, &times, &ceilings);
        let line =
            |stage: &str| text.lines().find(|line| line.trim_start().starts_with(stage)).unwrap().to_owned();
        // 2.2e12 operations take 3.14 ms at 700 TFLOP/s; 277 MB take 0.069 ms at 4 TB/s.
        assert!(line("assign").contains("549.8") && line("assign").ends_with("79 %"), "{text}");
        assert!(line("sums").ends_with("35 %"), "{text}");
        assert!(line("iteration").contains("5.0000"));
        assert!(!text.contains("sort"));
        assert!(roofline(&case, &times, &[]).contains("unknown TFLOP/s"));
    }
}
