//! What the targets do with their bytes: all that a program does with a file it does not trust.
use flash_kmeans::io::PointFile;
use flash_kmeans::{Backend, Element, FlashKMeans, Init, KMeans, Metric, ModelFile, Streaming};
use half::{bf16, f16};
use ndarray::{Array2, Ix2, Ix3};
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

/// Goes on from a checkpoint: as it is, and with the digest that belongs to it.
pub fn checkpoint(data: &[u8]) {
    let mut mended = data.to_vec();
    if let Some((content, digest)) = mended.split_last_chunk_mut::<8>() {
        let sum = content.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        *digest = sum.to_le_bytes();
    }
    for bytes in [data, &mended] {
        let path = file("state", bytes);
        for metric in [Metric::Euclidean, Metric::Cosine] {
            resumed(&path, metric, |v| v as f32);
            resumed(&path, metric, |v| v);
            resumed(&path, metric, f16::from_f64);
        }
    }
}

/// The fit that the checkpoint at `path` may be of: `corpus/checkpoint` has those of its first iterations.
pub fn options(metric: Metric) -> FlashKMeans {
    let first = ndarray::array![[1.0, 0.0], [1.0, 1.0]].into_dyn();
    FlashKMeans::new(2).init(Init::Given(first)).metric(metric).max_iter(4).backend(Backend::Cpu)
}

fn resumed<T: Element>(path: &Path, metric: Metric, of: impl Fn(f64) -> T) {
    let points = Array2::from_shape_fn((6, 2), |(i, j)| of((i * i + 3 * j) as f64));
    let streaming = Streaming::new().resume(path);
    let Ok(model) = options(metric).fit_stream(&points, &streaming, &mut ()) else { return };
    assert!(model.centroids().iter().all(|c| of(c.to_f64()).is_finite()), "{:?}", model.centroids());
    assert!(model.labels().iter().all(|&label| label < 2));
    assert!(!model.inertia().is_nan());
}
