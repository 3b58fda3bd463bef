//! What first centroids take, beside the iterations that follow them.
use std::fmt::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::case::Case;
use super::run::worker;
use crate::Result;
use crate::workspace::output_of;

pub(crate) fn run(shapes: &[Case]) -> Result<()> {
    let worker = worker()?;
    for case in shapes {
        let Case { batch, n, k, d, dtype } = case;
        let mut command = Command::new(&worker);
        command.arg("first").args([batch, n, k, d].map(usize::to_string)).arg(dtype.name());
        // RUST_LOG=flash_kmeans=debug has the phases of each draw told there.
        let text = output_of(command.stderr(Stdio::inherit()))?;
        let times: Value = serde_json::from_str(&text).map_err(|error| format!("{text}: {error}"))?;
        println!("{}", table(case, &times));
    }
    Ok(())
}

/// Rows of times, in milliseconds and as a share of ten iterations; pure.
fn table(case: &Case, times: &Value) -> String {
    let mut text = format!("{case}\n");
    for (points, times) in times.as_object().into_iter().flatten() {
        let iterations = times["ten iterations"].as_f64().unwrap_or(f64::NAN);
        let _ = writeln!(text, "  {points:<20} {:>9} {:>10}", "ms", "iterations");
        for (row, ms) in times.as_object().into_iter().flatten() {
            let ms = ms.as_f64().unwrap_or(f64::NAN);
            let _ = writeln!(text, "    {row:<18} {ms:>9.2} {:>10.1}", 10.0 * ms / iterations);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_iterations() {
        let case = Case::parse("1,1048576,1024,128,f16").unwrap();
        let times = serde_json::json!({"normal": {"ten iterations": 8.0, "k-means||": 20.0}});
        let text = table(&case, &times);
        assert!(
            text.lines().any(|line| line.contains("k-means||") && line.ends_with("20.00       25.0")),
            "{text}"
        );
    }
}
