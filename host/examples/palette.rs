//! Paints an evening by the sea, reduces it to a palette, and writes both as PNG:
//! `cargo run --release --example palette -- [COLOURS [FOLDER]] [--gpu]`.
mod common;

use flash_kmeans::FlashKMeans;
use image::{Rgb, RgbImage};
use ndarray::Array2;
use std::path::Path;

const WIDE: u32 = 480;
const HIGH: u32 = 300;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (backend, words) = common::arguments();
    let colours: usize = words.first().map_or(Ok(12), |word| word.parse())?;
    let folder = words.get(1).map_or(std::env::temp_dir(), |word| Path::new(word).to_path_buf());
    let picture = evening();
    let points = Array2::from_shape_fn(((WIDE * HIGH) as usize, 3), |(at, channel)| {
        f32::from(picture.get_pixel(at as u32 % WIDE, at as u32 / WIDE)[channel])
    });
    let model = FlashKMeans::new(colours).n_init(2).backend(backend).fit(points.view())?;
    let colour = |cluster: usize| Rgb([0, 1, 2].map(|c| model.centroids()[(cluster, c)].round() as u8));
    let reduced =
        RgbImage::from_fn(WIDE, HIGH, |x, y| colour(model.labels()[(y * WIDE + x) as usize] as usize));
    picture.save(folder.join("evening.png"))?;
    reduced.save(folder.join("evening-palette.png"))?;

    let mut order: Vec<usize> = (0..colours).collect();
    order.sort_by_key(|&cluster| std::cmp::Reverse(model.sizes()[cluster]));
    for cluster in order {
        let Rgb([r, g, b]) = colour(cluster);
        let share = model.sizes()[cluster] as f64 / points.nrows() as f64 * 100.0;
        println!("#{r:02x}{g:02x}{b:02x}  {share:>5.1} %");
    }
    let error = (model.inertia() / points.len() as f64).sqrt();
    println!(
        "{colours} colours on {}, {error:.2} levels off; {}",
        model.backend(),
        folder.join("evening*.png").display()
    );
    Ok(())
}

/// Sky, sun and water, with some grain.
fn evening() -> RgbImage {
    let mut counter = 3;
    RgbImage::from_fn(WIDE, HIGH, |x, y| {
        let (x, y) = (x as f32 / WIDE as f32, y as f32 / HIGH as f32);
        let sun = (-((x - 0.65).powi(2) + (y - 0.5).powi(2)) * 60.0).exp();
        let wave = ((y - 0.6) * 900.0 / y + x * 40.0).sin() * 0.5 + 0.5;
        let mut light = if y < 0.6 {
            [60.0 + 190.0 * y / 0.6, 70.0 + 90.0 * y, 150.0 - 70.0 * y]
        } else {
            [20.0 + 60.0 * wave, 45.0 + 40.0 * wave, 80.0 + 30.0 * wave]
        };
        for (light, tint) in light.iter_mut().zip([180.0, 130.0, 40.0]) {
            *light += sun * tint + common::normal(&mut counter) * 4.0;
        }
        Rgb(light.map(|v| v.clamp(0.0, 255.0) as u8))
    })
}
