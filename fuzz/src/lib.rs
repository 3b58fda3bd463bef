//! What the targets do with their bytes: all that a program does with a file it does not trust.
use flash_kmeans::io::PointFile;
use flash_kmeans::{Backend, KMeans, ModelFile};
use half::bf16;
use ndarray::{Ix2, Ix3};
use std::cell::LazyCell;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

thread_local! {
    /// A folder in memory where there is one.
    static FOLDER: LazyCell<TempDir> = LazyCell::new(|| {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        folder.expect("a temporary folder")
    });
}

fn file(ending: &str, data: &[u8]) -> PathBuf {
    let path = FOLDER.with(|folder| folder.path().join("file").with_extension(ending));
    std::fs::write(&path, data).expect("room for a file");
    path
}

/// Opens a file of points, and reads it whole and in parts.
pub fn points(ending: &str, data: &[u8]) {
    let path = file(ending, data);
    let Ok(file) = PointFile::open(&path) else { return };
    let values = file.n_rows() * file.n_features();
    assert!(values * file.stored_type().size_bytes() <= data.len(), "more values than bytes");
    let mut last = vec![bf16::ZERO; file.n_features()];
    let of_last = file.rows(file.n_rows() - 1..file.n_rows(), &mut last);
    if let Ok(points) = file.read::<f64>() {
        assert_eq!(points.shape(), file.shape());
        assert_eq!(points.len(), values);
        of_last.expect("a row of a file that can be read");
    }
    let _ = file.read::<f32>();
}

/// Opens a model and makes one of each shape and some types of it.
pub fn model(data: &[u8]) {
    let path = file("safetensors", data);
    let Ok(model) = ModelFile::open(&path) else { return };
    assert!(model.shape().iter().product::<usize>() * 4 <= data.len(), "more values than bytes");
    let centroids = model.centroids().expect("centroids of a file that was opened");
    assert_eq!(centroids.shape(), model.shape());
    let _ = KMeans::<f32, Ix2>::load(&path, Backend::Cpu);
    let _ = model.model::<f64, Ix3>(Backend::Cpu);
    let _ = model.model::<bf16, Ix2>(Backend::Cpu);
}
