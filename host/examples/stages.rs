//! Times the stages of an iteration on the first GPU: `stages B N K D DTYPE [ITERATIONS]`, several of them
//! separated by `,`.
use flash_kmeans::stages::{Workload, time};
use flash_kmeans::{DType, Precision};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    println!(
        "{:>4} {:>9} {:>6} {:>5} {:>5} {:>9} {:>7} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8}",
        "B",
        "N",
        "K",
        "D",
        "type",
        "assign",
        "TFLOP/s",
        "sort",
        "sums",
        "final",
        "iteration",
        "settled",
        "searched"
    );
    for case in words.split(|word| word == ",") {
        let number = |at: usize| {
            case.get(at).ok_or("too few words").and_then(|w| w.parse::<usize>().map_err(|_| "no number"))
        };
        let (batch, n, k, d) = (number(0)?, number(1)?, number(2)?, number(3)?);
        let (dtype, precision) = match case.get(4).map(String::as_str) {
            Some("f32") => (DType::F32, Precision::Exact),
            Some("tf32") => (DType::F32, Precision::Tf32),
            Some("bf16") => (DType::BF16, Precision::Exact),
            _ => (DType::F16, Precision::Exact),
        };
        let workload = Workload { batch, n, k, d, dtype, precision };
        let times = time(0, workload, number(5).unwrap_or(20))?;
        let tflops = 2.0 * (batch * n) as f64 * (k * d) as f64 / times.assign.median() / 1e9;
        println!(
            "{batch:>4} {n:>9} {k:>6} {d:>5} {dtype:>5} {:>9.4} {tflops:>7.0} {:>8.4} {:>8.4} {:>8.4} {:>9.4} {:>8.5} {:>8.6}",
            times.assign.median(),
            times.sort.median(),
            times.sums.median(),
            times.finalise.median(),
            times.iteration.median(),
            times.settled,
            times.searched
        );
    }
    Ok(())
}
