//! Processes that fork: before the first use both go on; after it, what the child does not have is refused, and nothing hangs.
#![cfg(unix)]
use flash_kmeans::io::{PointFile, write_npy};
use flash_kmeans::{Backend, Error, FlashKMeans, KMeans, Streaming};
use ndarray::{Array2, Ix2};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn alarm(seconds: u32) -> u32;
    fn _exit(code: i32) -> !;
}

/// What `work` does in a child, which has a minute for it.
fn in_a_child(what: &str, work: impl FnOnce()) {
    // SAFETY: the child leaves through `_exit`, and runs nothing of the test's harness.
    let pid = unsafe { fork() };
    assert!(pid >= 0, "{what}: no fork");
    if pid == 0 {
        // SAFETY: a hang ends by the signal.
        unsafe { alarm(60) };
        let done = catch_unwind(AssertUnwindSafe(work));
        if let Err(panic) = &done {
            let text = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
            let _ = std::io::stderr().write_all(format!("{what}: {text}\n").as_bytes());
        }
        // SAFETY: it does not return.
        unsafe { _exit(if done.is_ok() { 0 } else { 1 }) };
    }
    let mut status = -1;
    // SAFETY: `status` is a valid place for the result.
    assert_eq!(unsafe { waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "{what}: {}", if status & 0x7f == 14 { "hung" } else { "failed" });
}

fn points() -> Array2<f32> {
    Array2::from_shape_fn((3000, 7), |(i, j)| ((i * 37 + j * 11 + i * j) % 101) as f32)
}

fn options(backend: Backend) -> FlashKMeans {
    FlashKMeans::new(9).seed(3).max_iter(5).backend(backend)
}

fn refused<R>(result: Result<R, Error>) -> bool {
    matches!(result, Err(Error::BackendUnavailable { reason, .. }) if reason.contains("forked"))
}

/// What a child can do of a parent that had used `model`.
fn after_use(model: &KMeans<f32, Ix2>, file: &PointFile) {
    let points = points();
    assert!(refused(options(Backend::Cpu).fit(points.view())));
    assert!(refused(options(Backend::Auto).fit(points.view())));
    assert!(refused(options(Backend::Cpu).fit_stream(&points, &Streaming::new(), &mut ())));
    assert!(refused(model.predict(points.view())));
    assert!(refused(model.transform(points.view())));
    assert!(refused(options(Backend::Cpu).mini_batch().and_then(|mut fit| fit.partial_fit(points.view()))));
    assert!(refused(file.read::<f64>()));
    // GPUs are refused within a pool as well, and where all are asked for, the CPU does it.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| {
        assert!(refused(options(Backend::Cuda { ordinal: 0 }).fit(points.view())));
        let again = options(Backend::Auto).fit(points.view()).unwrap();
        assert_eq!(again.backend(), Backend::Cpu);
        if model.backend() == Backend::Cpu {
            assert_eq!(again.labels(), model.labels());
            assert_eq!(&model.predict(points.view()).unwrap(), model.labels());
            let streamed = options(Backend::Cpu).fit_stream(&points, &Streaming::new(), &mut ()).unwrap();
            assert_eq!(streamed.centroids().shape(), [9, 7]);
        } else {
            assert!(refused(model.predict(points.view())));
        }
        assert_eq!(file.read::<f64>().unwrap().len(), points.len());
    });
    assert_eq!(flash_kmeans::devices().len(), 1);
}

#[test]
fn a_fork_is_survived_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_npy(folder.path().join("p.npy"), points().view()).unwrap();
    let file = PointFile::open(folder.path().join("p.npy")).unwrap();
    in_a_child("before the first use", || {
        let model = options(Backend::Auto).fit(points().view()).unwrap();
        assert_eq!(&model.predict(points().view()).unwrap(), model.labels());
        in_a_child("a child of a child", || after_use(&model, &file));
    });
    let model = options(Backend::Auto).fit(points().view()).unwrap();
    let on_cpu = options(Backend::Cpu).fit(points().view()).unwrap();
    in_a_child("after use", || {
        after_use(&model, &file);
        after_use(&on_cpu, &file);
    });
    // The parent goes on.
    assert_eq!(&model.predict(points().view()).unwrap(), model.labels());
}
