//! An inverted file: k-means gives the lists, a query looks through the lists of the `nprobe` nearest centroids only.
//! Prints how many of the true ten nearest neighbours that finds: `cargo run --release --example ivf [-- --gpu]`.
mod common;

use flash_kmeans::FlashKMeans;
use ndarray::{Array2, ArrayView1};

const N: usize = 50_000;
const D: usize = 32;
const LISTS: usize = 256;
const QUERIES: usize = 200;
const WANTED: usize = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (backend, _) = common::arguments();
    let mut counter = 1;
    let centres = Array2::from_shape_simple_fn((400, D), || common::normal(&mut counter));
    let mut near_a_centre = |(row, column): (usize, usize)| {
        centres[(row * 7919 % 400, column)] + common::normal(&mut counter) * 1.2
    };
    let points = Array2::from_shape_fn((N, D), &mut near_a_centre);
    let queries = Array2::from_shape_fn((QUERIES, D), &mut near_a_centre);

    let fit = FlashKMeans::new(LISTS).max_points_per_centroid(64).max_iter(20).backend(backend);
    let model = fit.fit(points.view())?;
    let mut lists = vec![Vec::new(); LISTS];
    for (row, &label) in model.labels().indexed_iter() {
        lists[label as usize].push(row);
    }
    println!(
        "{N} points in {LISTS} lists of {} to {}, on {}",
        model.sizes().iter().min().unwrap_or(&0),
        model.sizes().iter().max().unwrap_or(&0),
        model.backend()
    );

    let truth: Vec<Vec<usize>> = queries.outer_iter().map(|query| nearest(&points, query, 0..N)).collect();
    println!("{:>6}  {:>9}  {:>8}", "nprobe", "recall@10", "scanned");
    for nprobe in [1, 2, 4, 8, 16, 32, LISTS] {
        let probed = model.predict_nearest(queries.view(), nprobe)?;
        let (mut found, mut scanned) = (0, 0);
        for ((query, probed), truth) in queries.outer_iter().zip(probed.labels.outer_iter()).zip(&truth) {
            let rows = || probed.iter().flat_map(|&list| lists[list as usize].iter().copied());
            scanned += rows().count();
            let answer = nearest(&points, query, rows());
            found += truth.iter().filter(|row| answer.contains(row)).count();
        }
        let recall = found as f64 / (QUERIES * WANTED) as f64;
        println!("{nprobe:>6}  {recall:>9.3}  {:>7.1}%", scanned as f64 / (QUERIES * N) as f64 * 100.0);
    }
    Ok(())
}

/// The rows nearest to the query, of those given.
fn nearest(
    points: &Array2<f32>,
    query: ArrayView1<'_, f32>,
    rows: impl Iterator<Item = usize>,
) -> Vec<usize> {
    let distance =
        |row: usize| points.row(row).iter().zip(&query).map(|(x, q)| (x - q) * (x - q)).sum::<f32>();
    let mut all: Vec<(f32, usize)> = rows.map(|row| (distance(row), row)).collect();
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    all.into_iter().take(WANTED).map(|(_, row)| row).collect()
}
