//! Keys of an attention layer, compressed head by head: one batched fit in f16, a byte for each key and a codebook for
//! each head. Prints what it saves and costs: `cargo run --release --example kv_cache [-- --gpu]`.
mod common;

use flash_kmeans::FlashKMeans;
use half::f16;
use ndarray::{Array2, Array3};

const HEADS: usize = 8;
const TOKENS: usize = 2048;
const D: usize = 64;
const CODES: usize = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (backend, _) = common::arguments();
    let mut counter = 2;
    // Keys of real layers lie near few directions: so do these.
    let topics = Array3::from_shape_simple_fn((HEADS, 64, D), || common::normal(&mut counter));
    let keys = Array3::from_shape_fn((HEADS, TOKENS, D), |(head, token, column)| {
        let topic = topics[(head, token * 31 % 64, column)];
        f16::from_f32(topic + common::normal(&mut counter) * 0.15)
    });
    let model = FlashKMeans::new(CODES).max_iter(25).backend(backend).fit(keys.view())?;

    let before = keys.len() * size_of::<f16>();
    let after = HEADS * TOKENS + HEADS * CODES * D * size_of::<f16>();
    println!(
        "{HEADS} heads of {TOKENS} keys on {}: {before} bytes to {after}, {:.1} times fewer",
        model.backend(),
        before as f64 / after as f64
    );

    let queries = Array2::from_shape_simple_fn((HEADS, D), || common::normal(&mut counter));
    println!("{:>4}  {:>12}  {:>22}", "head", "key error", "attention that moved");
    for head in 0..HEADS {
        let code = |token: usize| model.labels()[(head, token)] as usize;
        let (mut error, mut norm) = (0.0f64, 0.0f64);
        let (mut exact, mut coded) = (Vec::new(), Vec::new());
        for token in 0..TOKENS {
            let (mut of_key, mut of_code) = (0.0f32, 0.0f32);
            for column in 0..D {
                let key = keys[(head, token, column)].to_f32();
                let centroid = model.centroids()[(head, code(token), column)];
                error += f64::from((key - centroid) * (key - centroid));
                norm += f64::from(key * key);
                of_key += queries[(head, column)] * key;
                of_code += queries[(head, column)] * centroid;
            }
            exact.push(of_key / (D as f32).sqrt());
            coded.push(of_code / (D as f32).sqrt());
        }
        // Half the sum of differences between the two softmaxes: the share of attention that goes elsewhere.
        let moved: f32 =
            softmax(&exact).iter().zip(softmax(&coded)).map(|(a, b)| (a - b).abs()).sum::<f32>() / 2.0;
        println!("{head:>4}  {:>10.2} %  {:>20.2} %", (error / norm).sqrt() * 100.0, moved * 100.0);
    }
    Ok(())
}

fn softmax(scores: &[f32]) -> Vec<f32> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shares: Vec<f32> = scores.iter().map(|s| (s - most).exp()).collect();
    let total: f32 = shares.iter().sum();
    shares.into_iter().map(|share| share / total).collect()
}
