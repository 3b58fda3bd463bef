//! Groups the rows of a .npy file, text embeddings say, by direction, and prints the rows that stand for each group:
//! `cargo run --release --example embeddings -- [FILE.npy [K]] [--gpu]`. Without a file it takes the digits of the
//! repository.
mod common;

use flash_kmeans::{FlashKMeans, io::PointFile};
use ndarray::{Axis, Ix2};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (backend, words) = common::arguments();
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/digits.npy");
    let file = PointFile::open(words.first().map_or(digits, |word| word))?;
    let k = words.get(1).map_or(Ok(10), |word| word.parse())?;
    let mut points = file.read::<f32>()?.into_owned().into_dimensionality::<Ix2>()?;
    // At length 1, the squared Euclidean distance is 2 − 2·cosine: the nearest is the most similar.
    for mut row in points.axis_iter_mut(Axis(0)) {
        let norm = row.dot(&row).sqrt();
        if norm > 0.0 {
            row /= norm;
        }
    }
    let model = FlashKMeans::new(k).n_init(3).backend(backend).fit(points.view())?;
    let to_own = model.predict_with_distances(points.view())?;
    let mut order: Vec<usize> = (0..points.nrows()).collect();
    order.sort_by(|&a, &b| to_own.distances[a].total_cmp(&to_own.distances[b]));
    println!("{} rows of {} on {}", points.nrows(), file.path().display(), model.backend());
    for cluster in 0..k {
        let rows: Vec<String> = order
            .iter()
            .filter(|&&row| to_own.labels[row] as usize == cluster)
            .take(5)
            .map(|row| row.to_string())
            .collect();
        println!(
            "{cluster:>4}: {:>6} rows; nearest to the middle are {}",
            model.sizes()[cluster],
            rows.join(", ")
        );
    }
    Ok(())
}
