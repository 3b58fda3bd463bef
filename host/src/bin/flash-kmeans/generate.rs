//! `flash-kmeans generate`.
use crate::args::{GenerateArgs, GenerateDType};
use crate::check::Outputs;
use crate::failure::{Failure, bad_file};
use crate::stdout::{print, row};
use flash_kmeans::io::{PointWriter, Value};
use flash_kmeans::report::grouped;
use half::f16;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

/// Values drawn from one stream of the generator. Part of what a seed means: the bytes depend on it.
const CHUNK_VALUES: usize = 1 << 16;
/// Chunks drawn at once, which bounds memory.
const CHUNKS_AT_ONCE: usize = 32;
/// Centres are uniform in a cube from minus this to this.
const HALF_SIDE: f64 = 10.0;

/// Runs the command.
pub(crate) fn run(args: GenerateArgs, quiet: bool) -> Result<(), Failure> {
    Outputs::beside([]).check("generate", &args.output, &["npy", "fbin", "fvecs"])?;
    match args.dtype {
        GenerateDType::F32 => write(&args, |v| v as f32)?,
        GenerateDType::F16 => write(&args, |v| f16::from_f32(v as f32))?,
    }
    if quiet {
        return Ok(());
    }
    let mut text = format!("{}\n", args.output.display());
    if let Some(batch) = args.batch {
        text.push_str(&row("problems", grouped(batch.get() as u64)));
    }
    text.push_str(&row("points", grouped(args.n.get() as u64)));
    text.push_str(&row("dimensions", grouped(args.d.get() as u64)));
    text.push_str(&row("blobs", grouped(args.clusters.get() as u64)));
    print(text.trim_end())
}

fn write<A: Value>(args: &GenerateArgs, make: impl Fn(f64) -> A + Sync) -> Result<(), Failure> {
    let (n, d, clusters) = (args.n.get(), args.d.get(), args.clusters.get());
    let shape: Vec<usize> = args.batch.iter().map(|b| b.get()).chain([n, d]).collect();
    let mut out = PointWriter::<A>::create(&args.output, &shape).map_err(bad_file)?;
    let centre_values = clusters.checked_mul(d).filter(|values| *values <= 1 << 30).ok_or_else(|| {
        Failure::bad_input(format!("{clusters} blobs of {d} dimensions: their centres must fit into memory"))
    })?;

    let chunk_rows = (CHUNK_VALUES / d).max(1);
    let chunks = n.div_ceil(chunk_rows);
    // One stream of the generator for a problem's centres and one for each chunk of its points, so that what
    // a chunk holds does not depend on who draws it, or when.
    let stream_of = |problem: usize, chunk: usize| problem as u64 * (chunks as u64 + 1) + chunk as u64;
    for problem in 0..args.batch.map_or(1, |b| b.get()) {
        let mut draw = Draw::new(args.seed, stream_of(problem, 0));
        let centres: Vec<f64> =
            (0..centre_values).map(|_| (2.0 * draw.uniform() - 1.0) * HALF_SIDE).collect();
        for first in (0..chunks).step_by(CHUNKS_AT_ONCE) {
            let drawn: Vec<Vec<A>> = (first..chunks.min(first + CHUNKS_AT_ONCE))
                .into_par_iter()
                .map(|chunk| {
                    let mut draw = Draw::new(args.seed, stream_of(problem, chunk + 1));
                    let rows = chunk_rows.min(n - chunk * chunk_rows);
                    let mut values = Vec::with_capacity(rows * d);
                    for _ in 0..rows {
                        let centre = draw.below(clusters);
                        for &middle in &centres[centre * d..][..d] {
                            values.push(make(middle + args.spread * draw.normal()));
                        }
                    }
                    values
                })
                .collect();
            for values in drawn {
                out.write_rows(&values)?;
            }
            tracing::debug!("{} of {chunks} chunks", (first + CHUNKS_AT_ONCE).min(chunks));
        }
    }
    Ok(out.finish()?)
}

/// Standard normal values, the same for a seed on every machine.
pub(crate) fn normals<A: Send>(count: usize, seed: u64, make: impl Fn(f64) -> A + Sync) -> Vec<A> {
    let chunk = |chunk: usize| {
        let mut draw = Draw::new(seed, chunk as u64);
        let values = CHUNK_VALUES.min(count - chunk * CHUNK_VALUES);
        (0..values).map(|_| make(draw.normal())).collect::<Vec<_>>()
    };
    (0..count.div_ceil(CHUNK_VALUES)).into_par_iter().flat_map_iter(chunk).collect()
}

/// Random numbers that are the same on every machine: ChaCha8, IEEE arithmetic, and a logarithm that is
/// compiled in rather than the system's.
struct Draw {
    generator: ChaCha8Rng,
    spare: Option<f64>,
}

impl Draw {
    fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(stream);
        Draw { generator, spare: None }
    }

    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f64 {
        (self.generator.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.generator.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Standard normal, by Marsaglia's polar method.
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let square = x * x + y * y;
            if square < 1.0 && square > 0.0 {
                let factor = (-2.0 * libm::log(square) / square).sqrt();
                self.spare = Some(y * factor);
                return x * factor;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_have_their_moments() {
        let mut draw = Draw::new(1, 0);
        let values: Vec<f64> = (0..200_000).map(|_| draw.normal()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn streams_differ_and_repeat() {
        let first = |seed, stream| Draw::new(seed, stream).uniform();
        assert_eq!(first(3, 5), first(3, 5));
        assert_ne!(first(3, 5), first(3, 6));
        assert_ne!(first(3, 5), first(4, 5));
    }
}
