//! Tensor-core products over fibers against plain ones.
#![cfg(feature = "simt")]
#![allow(
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    reason = "kernels, whose contracts are what the emulator checks"
)]
use cuda_std::float::{BF16, F16, Scalar};
use cuda_std::mma::*;
use cuda_std::shared::{Layout, Shared};
use cuda_std::simt::{Launch, LaunchError, Schedule, launch};
use cuda_std::thread::{sync_threads, thread_idx_x};
use cuda_std::warp::lane_id;

const SCHEDULES: [Schedule; 3] = [Schedule::Forward, Schedule::Reverse, Schedule::Seeded(9)];

fn config(schedule: Schedule) -> Launch {
    Launch { grid: 1, block: 64, shared_bytes: 4096, cluster: 1, together: false, schedule }
}

/// Small integers, exact in every type and sum.
fn value(seed: u32, row: u32, col: u32) -> f32 {
    ((seed + 7 * row + 3 * col + row * col) % 17) as f32 - 8.0
}

/// The bits of a 16-bit type.
trait Half: Scalar {
    fn bits(self) -> u16;
}
impl Half for F16 {
    fn bits(self) -> u16 {
        self.0
    }
}
impl Half for BF16 {
    fn bits(self) -> u16 {
        self.0
    }
}

fn pack<T: Half>(low: f32, high: f32) -> u32 {
    u32::from(T::from_f32(low).bits()) | u32::from(T::from_f32(high).bits()) << 16
}

fn expected(row: u32, col: u32) -> f32 {
    (0..16).map(|k| value(1, row, k) * value(2, k, col)).sum::<f32>() + value(3, row, col)
}

fn fragments<T: Half>(multiply: impl Fn([u32; 4], [u32; 2], [f32; 4]) -> [f32; 4]) {
    for schedule in SCHEDULES {
        launch(config(schedule), || {
            let lane = lane_id();
            let pair = |seed, map: fn(u32, u32) -> (u32, u32), i: usize| {
                let at = |index| {
                    let (row, col) = map(lane, index);
                    value(seed, row, col)
                };
                pack::<T>(at(2 * i as u32), at(2 * i as u32 + 1))
            };
            let a = core::array::from_fn(|i| pair(1, a_element, i));
            let b = core::array::from_fn(|i| pair(2, b_element, i));
            let c = core::array::from_fn(|i| {
                let (row, col) = c_element(lane, i as u32);
                value(3, row, col)
            });
            let d = multiply(a, b, c);
            for (i, d) in d.into_iter().enumerate() {
                let (row, col) = c_element(lane, i as u32);
                assert_eq!(d, expected(row, col), "row {row}, column {col}");
            }
        })
        .unwrap();
    }
}

#[test]
fn products_equal_plain_ones() {
    fragments::<F16>(|a, b, c| unsafe { mma_m16n8k16_f32_f16(a, b, c) });
    fragments::<BF16>(|a, b, c| unsafe { mma_m16n8k16_f32_bf16(a, b, c) });
}

/// The same product in each of the four places, of tiles that differ.
fn four<T: Half + MmaScalar>() {
    launch(config(Schedule::Forward), || {
        let lane = lane_id();
        let pair = |seed, map: fn(u32, u32) -> (u32, u32), i: usize, down: u32, right: u32| {
            let at = |index| {
                let (row, col) = map(lane, index);
                value(seed, row + down, col + right)
            };
            pack::<T>(at(2 * i as u32), at(2 * i as u32 + 1))
        };
        let a = [0, 16].map(|down| core::array::from_fn(|i| pair(1, a_element, i, down, 0)));
        let b = core::array::from_fn(|i| pair(2, b_element, i % 2, 0, 8 * (i as u32 / 2)));
        let tile = |at: u32| (at / 2 * 16, at % 2 * 8);
        let c = core::array::from_fn(|at| {
            let (down, right) = tile(at as u32);
            core::array::from_fn(|i| {
                let (row, col) = c_element(lane, i as u32);
                value(3, row + down, col + right)
            })
        });
        let d = unsafe { T::mma_m32n16k16(a, b, c) };
        for (at, d) in d.into_iter().enumerate() {
            let (down, right) = tile(at as u32);
            for (i, d) in d.into_iter().enumerate() {
                let (row, col) = c_element(lane, i as u32);
                let (row, col) = (row + down, col + right);
                assert_eq!(d, expected(row, col), "row {row}, column {col}");
            }
        }
    })
    .unwrap();
}

#[test]
fn four_products_equal_plain_ones() {
    four::<F16>();
    four::<BF16>();
}

/// Row-major tiles in shared memory, two values in a word, each warp its own.
fn tile(cols: u32, words_before: u32) -> Shared<u32> {
    let mut layout = Layout::new();
    layout.array::<u32>(words_before);
    let tile = layout.array::<u32>(16 * cols / 2);
    tile.here().add(1024 / 2 * (thread_idx_x() / 32))
}

unsafe fn fill(tile: Shared<u32>, seed: u32, cols: u32) {
    let mut word = lane_id();
    while word < 16 * cols / 2 {
        let (row, col) = (2 * word / cols, 2 * word % cols);
        unsafe { tile.set(word, pack::<F16>(value(seed, row, col), value(seed, row, col + 1))) };
        word += 32;
    }
}

/// A 16x16 by A's fragment, a row-major 16x8 B by transposing: the loads of a real kernel.
#[test]
fn ldmatrix_loads_the_fragments_of_a_product() {
    for schedule in SCHEDULES {
        launch(config(schedule), || unsafe {
            let lane = lane_id();
            let (a, b) = (tile(16, 0), tile(8, 128));
            fill(a, 1, 16);
            fill(b, 2, 8);
            // Matrices of A: rows 0-7 and 8-15 of columns 0-7, then of columns 8-15.
            let a = ldmatrix_x4(a.add(8 * (lane % 16) + 4 * (lane / 16)));
            // B has two matrices, so the upper lanes repeat them.
            let b = ldmatrix_x4_trans(b.add(4 * (lane % 16)));
            assert_eq!([b[0], b[1]], [b[2], b[3]]);
            let c = core::array::from_fn(|i| {
                let (row, col) = c_element(lane, i as u32);
                value(3, row, col)
            });
            for (i, d) in mma_m16n8k16_f32_f16(a, [b[0], b[1]], c).into_iter().enumerate() {
                let (row, col) = c_element(lane, i as u32);
                assert_eq!(d, expected(row, col), "row {row}, column {col}");
            }
        })
        .unwrap();
    }
}

#[test]
fn ldmatrix_is_checked_as_a_load() {
    let found = |kernel: &dyn Fn()| launch(config(Schedule::Forward), kernel).unwrap_err();
    let layout = || Layout::new().array::<u32>(1024).here();
    let error = found(&|| unsafe { _ = ldmatrix_x4(layout().add(4 * lane_id())) });
    assert!(matches!(error, LaunchError::UninitialisedRead { offset: 0, .. }), "{error}");
    let error = found(&|| unsafe { _ = ldmatrix_x4(layout().add(4 * lane_id() + 1)) });
    assert!(matches!(error, LaunchError::Misaligned { .. }), "{error}");
    let error = found(&|| unsafe {
        let words = layout();
        for i in 0..4 {
            words.set(4 * thread_idx_x() + i, 0);
        }
        // The other warp's rows, with no barrier of the block.
        ldmatrix_x4_trans(words.add(4 * (thread_idx_x() ^ 32)));
    });
    assert!(matches!(error, LaunchError::Race { .. } | LaunchError::UninitialisedRead { .. }), "{error}");
    let error = found(&|| unsafe {
        if lane_id() < 31 {
            mma_m16n8k16_f32_f16([0; 4], [0; 2], [0.0; 4]);
        }
        sync_threads();
    });
    assert!(matches!(error, LaunchError::DivergentBarrier { .. }), "{error}");
}
