//! Model files: what is saved is what is loaded, the crate `safetensors` reads it, and damaged files are refused.
use flash_kmeans::{Backend, DType, Element, Error, FlashKMeans, KMeans, ModelFile};
use half::{bf16, f16};
use ndarray::{Array2, Array3, Ix2, Ix3};
use proptest::prelude::*;
use std::path::Path;

fn points<T: Element>(convert: impl Fn(f64) -> T) -> Array2<T> {
    Array2::from_shape_fn((60, 3), |(row, column)| {
        convert((row % 4) as f64 * 10.0 + (row * 7 + column) as f64 * 0.01)
    })
}

fn fitted<T: Element>(convert: impl Fn(f64) -> T) -> KMeans<T, Ix2> {
    FlashKMeans::new(4).backend(Backend::Cpu).fit(points(convert).view()).unwrap()
}

fn round_trip<T: Element>(folder: &Path, convert: impl Fn(f64) -> T) {
    let path = folder.join(format!("{}.safetensors", T::DTYPE));
    let model = fitted(&convert);
    model.save(&path).unwrap();
    let first = std::fs::read(&path).unwrap();
    model.save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first, "the same bytes each time");

    let again = KMeans::<T, Ix2>::load(&path, Backend::Cpu).unwrap();
    assert_eq!(again.centroids(), model.centroids());
    assert_eq!(&again.predict(points(convert).view()).unwrap(), model.labels());
    let file = ModelFile::open(&path).unwrap();
    assert_eq!((file.dtype(), file.shape()), (T::DTYPE, &[4, 3][..]));
}

#[test]
fn what_is_saved_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    round_trip(folder.path(), |v| v);
    round_trip(folder.path(), |v| v as f32);
    round_trip(folder.path(), f16::from_f64);
    round_trip(folder.path(), bf16::from_f64);

    let path = folder.path().join("batch.safetensors");
    let points = Array3::from_shape_fn((2, 20, 3), |(b, row, column)| (b + row * 3 + column) as f32);
    let model = FlashKMeans::new(5).backend(Backend::Cpu).fit(points.view()).unwrap();
    model.save(&path).unwrap();
    let again = KMeans::<f32, Ix3>::load(&path, Backend::Cpu).unwrap();
    assert_eq!(again.centroids(), model.centroids());
    assert!(matches!(KMeans::<f32, Ix2>::load(&path, Backend::Cpu), Err(Error::Format { .. })));
    assert!(matches!(KMeans::<f16, Ix3>::load(&path, Backend::Cpu), Err(Error::Format { .. })));
    assert_eq!(ModelFile::open(&path).unwrap().dtype(), DType::F32);
}

#[test]
fn the_format_is_that_of_the_crate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let model = fitted(|v| v as f32);
    model.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let centroids = tensors.tensor("centroids").unwrap();
    assert_eq!((centroids.dtype(), centroids.shape()), (safetensors::Dtype::F32, &[4, 3][..]));
    let values: Vec<f32> =
        centroids.data().chunks_exact(4).map(|v| f32::from_le_bytes(v.try_into().unwrap())).collect();
    assert!(values.iter().eq(model.centroids()));
}

#[test]
fn other_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fitted(|v| v as f32).save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let text = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = whole.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut changed = whole.clone();
        changed[at..][..to.len()].copy_from_slice(to.as_bytes());
        changed
    };
    for (bytes, expected) in [
        (Vec::new(), "is not a safetensors file"),
        (whole[..whole.len() - 1].to_vec(), "is not a safetensors file"),
        (text("flash_kmeans", "slash_kmeans"), "has no metadata 'flash_kmeans'"),
        (text("kmeans\":\"1\"", "kmeans\":\"2\""), "has flash_kmeans '2'; this version reads '1'"),
        (text("euclidean", "manhattan"), "has metric 'manhattan'"),
        (text("\"f32\"", "\"f31\""), "has dtype 'f31'"),
        (text("\"f32\"", "\"f64\""), "has F32 centroids; those of f64 points are F64"),
        (text("\"centroids\"", "\"zentroids\""), "has no tensor 'centroids'"),
        (text("[4, 3]", "[12]  "), "neither (k, d) nor (batch, k, d)"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = ModelFile::open(&path).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(matches!(ModelFile::open(folder.path().join("none")), Err(Error::Io { .. })));
}

proptest! {
    #[test]
    fn a_damaged_file_is_an_error_or_a_model(at in 0usize..400, value: u8) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fitted(|v| v as f32).save(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        std::fs::write(&path, bytes).unwrap();
        match KMeans::<f32, Ix2>::load(&path, Backend::Cpu) {
            Ok(model) => prop_assert!(model.centroids().iter().all(|c| c.is_finite())),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
