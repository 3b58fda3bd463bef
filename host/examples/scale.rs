//! Times iterations over points that are spread over GPUs, or that a GPU has no room for:
//! `scale N K D DTYPE DEVICES ITERATIONS [GPU_MEMORY_GIB] [locked]`, several of them separated by `,`.
//!
//! `DEVICES` is a number of GPUs. Points are normal, the first `K` of them the first centroids. With `locked` they are
//! in page-locked memory. Each is fitted twice, after a pause. Prints milliseconds from the call to the first iteration's
//! end, the median of further iterations, and of the whole call.
use flash_kmeans::stages::normal_points;
use flash_kmeans::{Backend, Element, FlashKMeans, Float, Init, IterationEnd, Observer, PageLocked};
use half::{bf16, f16};
use ndarray::{ArrayView2, s};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Between two calls.
const PAUSE: Duration = Duration::from_millis(500);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Clock {
    last: Instant,
    times: Vec<f64>,
}

impl<C: Float> Observer<C> for Clock {
    fn iteration(&mut self, _: IterationEnd<'_, C>) -> ControlFlow<()> {
        self.times.push(self.last.elapsed().as_secs_f64() * 1e3);
        self.last = Instant::now();
        ControlFlow::Continue(())
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    for case in words.split(|word| word == ",") {
        match case.get(3).map(String::as_str) {
            Some("f32") => run::<f32>(case, |v| v)?,
            Some("bf16") => run::<bf16>(case, bf16::from_f32)?,
            _ => run::<f16>(case, f16::from_f32)?,
        }
    }
    Ok(())
}

fn run<T: Element>(case: &[String], convert: impl Fn(f32) -> T + Sync) -> Result<()> {
    let number = |at: usize| case.get(at).ok_or("too few words")?.parse::<usize>().map_err(|_| "no number");
    let (n, k, d, devices, iterations) = (number(0)?, number(1)?, number(2)?, number(4)?, number(5)?);
    let values = normal_points(n * d, 1, convert);
    let mut locked = None;
    if case.last().is_some_and(|word| word == "locked") {
        let memory = locked.insert(PageLocked::<T>::new(n * d)?);
        memory.copy_from_slice(&values);
    }
    let values: &[T] = locked.as_deref().unwrap_or(&values);
    let points = ArrayView2::from_shape((n, d), values)?;
    let first = Init::Given(points.slice(s![..k, ..]).mapv(|v| v.to_f64()).into_dyn());
    let mut options = FlashKMeans::new(k).init(first).tol(0.0).max_iter(iterations);
    options = options.backend(Backend::cuda_devices(0..devices as u32)?);
    if let Some(Ok(gib)) = case.get(6).map(|word| word.parse::<f64>()) {
        options = options.gpu_memory((gib * (1u64 << 30) as f64) as u64);
    }
    // Kernels are compiled once in a process.
    let few = points.slice(s![..(4 * k).min(n), ..]);
    options.clone().fit_observed(few, &mut ())?;
    for _ in 0..2 {
        // A call that follows another at once has slower copies: memory that was given back seems to be cleared meanwhile.
        std::thread::sleep(PAUSE);
        let start = Instant::now();
        let mut clock = Clock { last: start, times: Vec::new() };
        let model = options.fit_observed(points, &mut clock)?;
        let whole = start.elapsed().as_secs_f64() * 1e3;
        let first = clock.times.remove(0);
        clock.times.sort_by(f64::total_cmp);
        let median = clock.times.get(clock.times.len() / 2).copied().unwrap_or(f64::NAN);
        println!(
            "{}: first {first:.2} ms, further {median:.2} ms, whole call {whole:.2} ms, inertia {:.9e}",
            case.join(" "),
            model.inertia()
        );
    }
    Ok(())
}
