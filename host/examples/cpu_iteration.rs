//! Times the CPU's iterations: `cpu_iteration N D K ITERATIONS`.
use flash_kmeans::stages::normal_points;
use flash_kmeans::{Backend, FlashKMeans, Init};
use ndarray::Array2;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<usize> = std::env::args().skip(1).map(|w| w.parse()).collect::<Result<_, _>>()?;
    let (n, d, k, iterations) = match words[..] {
        [n, d, k, iterations] => (n, d, k, iterations),
        _ => (100_000, 128, 1000, 10),
    };
    let points = Array2::from_shape_vec((n, d), normal_points::<f32>(n * d, 1, |v| v))?;
    let init = Init::Given(points.slice(ndarray::s![..k, ..]).mapv(f64::from).into_dyn());
    let fit = |iterations| {
        let start = Instant::now();
        let fitted =
            FlashKMeans::new(k).init(init.clone()).tol(0.0).max_iter(iterations).backend(Backend::Cpu);
        fitted.fit(points.view()).map(|model| (start.elapsed().as_secs_f64(), model.inertia()))
    };
    // A fit has a closing assignment and the like beside its iterations: the difference of two is iterations alone.
    let mut times = Vec::new();
    for _ in 0..5 {
        let (few, many) = (fit(1)?, fit(1 + iterations)?);
        times.push((many.0 - few.0) / iterations as f64);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "{n} x {d}, k {k}: {:.4} s an iteration (median of 5), {:.0} GFLOP/s",
        times[2],
        2e-9 * (n * d * k) as f64 / times[2]
    );
    Ok(())
}
