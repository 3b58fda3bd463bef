//! Random numbers that are the same on every machine: a counter through a mixer, no state but the counter.
use kernels_gpu::spec::{RANDOM_STEP, mix, unit};

/// SplitMix64 (Steele, Lea and Flood, 2014), one stream for each (seed, stream) pair.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    counter: u64,
}

impl Rng {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        // Mixed before use, so that neighbouring seeds and streams do not overlap.
        Rng { counter: mix(seed ^ mix(stream.wrapping_add(RANDOM_STEP))) }
    }

    /// Where another one stood.
    #[cfg(feature = "cuda")]
    pub(crate) fn at(counter: u64) -> Self {
        Rng { counter }
    }

    /// Where it stands.
    #[cfg(feature = "cuda")]
    pub(crate) fn counter(&self) -> u64 {
        self.counter
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(RANDOM_STEP);
        mix(self.counter)
    }

    /// Uniform in `0..bound`, which is not 0 (Lemire, 2019, without the rejection: the bias is under `bound / 2⁶⁴`).
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub(crate) fn unit(&mut self) -> f64 {
        unit(self.next_u64())
    }
}
