//! What the examples share.
use flash_kmeans::Backend;

/// The GPU where the example was given `--gpu`, else the CPU; and the other words.
pub(crate) fn arguments() -> (Backend, Vec<String>) {
    let (flags, words): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word == "--gpu");
    (if flags.is_empty() { Backend::Cpu } else { Backend::Cuda { ordinal: 0 } }, words)
}

/// Numbers that look random and are the same each time: roughly normal, by the sum of four uniform ones.
#[allow(dead_code, reason = "not every example needs it")]
pub(crate) fn normal(counter: &mut u64) -> f32 {
    let mut sum = 0.0;
    for _ in 0..4 {
        *counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *counter;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        sum += ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
    }
    sum * 3.0f32.sqrt()
}
