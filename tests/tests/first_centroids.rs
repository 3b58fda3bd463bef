//! First centroids that the GPU draws are the rows that the CPU draws. The GPU is an emulated one, unless a real one is asked
//! for.
use emulated_gpu::Timing;
use flash_kmeans::{Backend, Element, Error, FlashKMeans, Init, Streaming, devices};
use flash_kmeans_tests::{CUDA, emulated_gpu, is_set};
use half::{bf16, f16};
use libcuda::fault;
use ndarray::{Array3, Axis};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

const PARALLEL: Init = Init::KMeansParallel { oversampling: 2.0, rounds: 3 };

fn is_emulated() -> bool {
    !is_set("FLASH_KMEANS_REQUIRE_GPU")
}

/// One test at a time, as they count the driver's calls.
fn use_gpu() -> MutexGuard<'static, ()> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    static TEST: Mutex<()> = Mutex::new(());
    let install =
        || !is_emulated() || emulated_gpu::install(emulated_gpu().unwrap_or_default(), Timing::Late);
    assert!(INSTALLED.get_or_init(install), "the driver was used before");
    TEST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Values of which every type has some; of several, a row is another one again.
fn points<T: Element>([batch, n, d]: [usize; 3], distinct: usize, of: fn(f32) -> T) -> Array3<T> {
    Array3::from_shape_fn((batch, n, d), |(problem, row, column)| {
        let at = (problem * 7919 + (row % distinct) * 104_729 + column * 1_299_709) as u32;
        of((at.wrapping_mul(2_654_435_761) >> 24) as f32 / 8.0)
    })
}

/// With a cluster for every row, an iteration leaves each of them at the row that it began with.
fn check_rows<T: Element>(points: &Array3<T>, init: &Init) {
    let fit = |backend| {
        let fit = FlashKMeans::new(points.shape()[1]).init(init.clone()).seed(5).max_iter(1).backend(backend);
        fit.fit(points.view()).unwrap().centroids().clone()
    };
    assert_eq!(fit(CUDA), fit(Backend::Cpu), "{init:?}");
}

/// Fits that begin with the same rows are the same but for rounding.
fn check_fit(points: &Array3<f32>, fit: &FlashKMeans, gpu: Backend) {
    let on = |backend| fit.clone().max_iter(1).backend(backend).fit(points.view()).unwrap();
    let (gpu, cpu) = (on(gpu), on(Backend::Cpu));
    for (gpu, cpu) in gpu.centroids().iter().zip(cpu.centroids()) {
        assert!((gpu - cpu).abs() <= 1e-5 * cpu.abs().max(1.0), "{gpu} {cpu}");
    }
}

#[test]
fn rows_of_every_type_are_those_of_the_cpu() {
    let _test = use_gpu();
    for init in [Init::KMeansPlusPlus, PARALLEL] {
        check_rows(&points([2, 40, 5], 40, |v| v), &init);
        check_rows(&points([2, 40, 19], 40, f16::from_f32), &init);
        check_rows(&points([1, 40, 32], 40, bf16::from_f32), &init);
    }
}

/// Several pools, and what comes when no point is left that differs.
#[test]
fn rows_that_are_equal_are_drawn_as_on_the_cpu() {
    let _test = use_gpu();
    for distinct in [1, 9, 140] {
        check_rows(&points([1, 140, 3], distinct, |v| v), &Init::KMeansPlusPlus);
    }
    check_rows(&points([1, 140, 3], 9, |v| v), &PARALLEL);
    // Rounds that draw nothing.
    let few = Init::KMeansParallel { oversampling: 1e-3, rounds: 3 };
    check_rows(&points([1, 30, 3], 30, |v| v), &few);
}

/// Rounds of so many candidates that an assignment finds the nearest: of more than one tile, and fewer again.
#[test]
fn rounds_by_assignment_draw_the_rows_of_the_cpu() {
    let _test = use_gpu();
    for oversampling in [1.0, 0.3] {
        let init = Init::KMeansParallel { oversampling, rounds: 3 };
        check_rows(&points([2, 160, 5], 160, |v| v), &init);
        check_rows(&points([1, 300, 19], 250, f16::from_f32), &init);
        check_rows(&points([1, 160, 70], 160, bf16::from_f32), &init);
    }
    // Tiles enough to be in the order of norms.
    let init = Init::KMeansParallel { oversampling: 1.2, rounds: 3 };
    check_rows(&points([1, 620, 3], 620, |v| v), &init);
}

#[test]
fn fits_begin_with_the_rows_of_the_cpu() {
    let _test = use_gpu();
    let points = points([2, 700, 1], 700, |v| v);
    for init in [Init::KMeansPlusPlus, PARALLEL] {
        let fit = FlashKMeans::new(12).init(init).seed(3);
        check_fit(&points, &fit.clone().n_init(2), CUDA);
        // Points that are fitted in parts, of which one GPU sees all for this: on two, where there are two.
        let gpus = (devices().len() as u32 - 1).min(2);
        check_fit(&points, &fit, Backend::cuda_devices(0..gpus).unwrap());
        // Room for the fit, but none for distances to several candidates: the CPU draws. What a fit takes beside its points is
        // more than that on a GPU of many multiprocessors.
        if is_emulated() {
            check_fit(&points, &fit.gpu_memory(1400 * 55), CUDA);
        }
    }
}

/// Some passes of a dozen launches, unless the GPU has no room for pairs: of an emulated one, whose few multiprocessors a fit
/// leaves that little room.
#[test]
fn the_gpu_draws_where_it_has_room() {
    let _test = use_gpu();
    if !is_emulated() {
        return;
    }
    let points = points([1, 400, 1], 400, |v| v);
    let calls = |init, memory| {
        let fit = FlashKMeans::new(100).init(init).max_iter(1).gpu_memory(memory).backend(CUDA);
        // The first one opens the device and loads kernels.
        fit.fit(points.view()).unwrap();
        fault::clear();
        fit.fit(points.view()).unwrap();
        fault::calls()
    };
    let cpu = calls(Init::Random, 1 << 20);
    assert!(calls(Init::KMeansPlusPlus, 1 << 20) >= cpu + 200);
    assert_eq!(calls(Init::KMeansPlusPlus, 400 * 60 + 3200), cpu);
}

/// More than one block holds: distances stay in device memory, and on Hopper a cluster of blocks chooses.
#[test]
fn rows_of_many_points_are_those_of_the_cpu() {
    let _test = use_gpu();
    let points = points([1, 12_500, 1], 12_500, |v| v);
    check_fit(&points, &FlashKMeans::new(6).init(Init::KMeansPlusPlus).seed(2), CUDA);
}

/// From points in device memory.
#[test]
fn a_workspace_begins_with_the_rows_of_a_fit() {
    let _test = use_gpu();
    let points = points([2, 300, 6], 300, |v| v);
    for init in [Init::KMeansPlusPlus, PARALLEL] {
        let fit = FlashKMeans::new(9).init(init).max_iter(2).backend(CUDA);
        let mut workspace = fit.workspace::<f32>(2, 300, 6).unwrap();
        workspace.load(points.view()).unwrap();
        for _ in 0..2 {
            workspace.fit().unwrap();
            assert_eq!(&workspace.centroids().unwrap(), fit.fit(points.view()).unwrap().centroids());
        }
    }
}

/// A typed error or the same fit, and nothing lost on the device.
#[test]
fn any_call_of_a_draw_may_fail() {
    let _test = use_gpu();
    let points = points([1, 60, 2], 60, |v| v);
    // Of 20 clusters a round draws rows enough for an assignment.
    for (init, k, step) in [(Init::KMeansPlusPlus, 4, 3), (PARALLEL, 4, 3), (PARALLEL, 20, 11)] {
        let fit = FlashKMeans::new(k).init(init).max_iter(1).backend(CUDA);
        let expected = fit.fit(points.view()).unwrap();
        fault::clear();
        fit.fit(points.view()).unwrap();
        let calls = fault::calls();
        for call in (1..=calls).step_by(step) {
            // No memory, which the CPU makes up for in a draw, or a launch that failed.
            let code = [2, 719][call as usize / 3 % 2];
            fault::fail_nth(call, code);
            match fit.fit(points.view()) {
                Ok(model) => assert_eq!(model.labels(), expected.labels(), "call {call} of {calls}"),
                Err(Error::Cuda { .. } | Error::OutOfDeviceMemory { .. }) => {}
                Err(error) => panic!("call {call} of {calls}: {error:?}"),
            }
            fault::clear();
            assert_eq!(fault::held().handles, 0, "call {call} of {calls}");
        }
        assert_eq!(fit.fit(points.view()).unwrap().labels(), expected.labels());
    }
}

/// Each draws by itself, before the points take all of the GPU's memory.
#[test]
fn streams_begin_with_the_rows_of_a_fit() {
    let _test = use_gpu();
    let points = points([1, 500, 4], 500, |v| v).remove_axis(Axis(0));
    let fit = FlashKMeans::new(30).max_iter(1).backend(CUDA);
    let expected = fit.fit(points.view()).unwrap();
    let stream = |fit: &FlashKMeans| {
        fault::clear();
        let model = fit.fit_stream(&points.view(), &Streaming::new(), &mut ()).unwrap();
        (fault::calls(), model)
    };
    let (calls, model) = stream(&fit);
    assert!(calls >= stream(&fit.clone().init(Init::Random)).0 + 60);
    assert_eq!((model.labels(), model.centroids()), (expected.labels(), expected.centroids()));
}
