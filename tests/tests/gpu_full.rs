//! A GPU that is nearly full. A process of its own, for it leaves no room for others.
//!
//! Without a GPU the test says so and passes; with `FLASH_KMEANS_REQUIRE_GPU=1` it fails instead.
use flash_kmeans::{Error, FlashKMeans, Init, KMeans};
use flash_kmeans_tests::{CUDA, has_gpu, is_set};
use ndarray::{Array2, s};

/// Takes the GPU's memory, all but about 100 MB; given back when dropped.
fn fill() -> Vec<impl Sized> {
    let (mut held, mut n) = (Vec::new(), 1usize << 31);
    while n > 1 << 21 {
        let options = FlashKMeans::new(1).init(Init::Random).max_iter(1).backend(CUDA);
        match options.workspace::<f32>(1, n, 1) {
            Ok(workspace) => held.push(workspace),
            Err(Error::OutOfDeviceMemory { requested, free }) => {
                assert!(requested > free);
                n /= 2;
            }
            Err(error) => panic!("{error}"),
        }
    }
    held
}

#[test]
fn points_that_have_no_room_are_labelled_and_fitted_part_by_part() {
    // A sanitizer keeps some of the memory for itself.
    if !has_gpu() || is_set("FLASH_KMEANS_SMALL") {
        return;
    }
    let (n, k, d) = (1_300_000, 50, 64);
    let points = Array2::from_shape_fn((n, d), |(row, feature)| {
        ((row * 31 + feature * 7) % 101) as f32 + ((row * row + feature) % 13) as f32 * 0.1
    });
    let model = KMeans::from_centroids(points.slice(s![..k, ..]), CUDA).unwrap();
    let options = FlashKMeans::new(k).init(Init::Random).max_iter(3).tol(0.0).backend(CUDA);
    let (labels, fitted) = (model.predict(points.view()).unwrap(), options.fit(points.view()).unwrap());
    let held = fill();
    assert_eq!(model.predict(points.view()).unwrap(), labels);
    // Two panels of 2²⁰ points do not fit, nor does one.
    assert!(matches!(options.fit(points.view()), Err(Error::OutOfDeviceMemory { .. })));
    drop(held);
    let again = options.fit(points.view()).unwrap();
    assert_eq!((again.labels(), again.centroids()), (fitted.labels(), fitted.centroids()));
}
