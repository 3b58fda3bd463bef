//! Hopper's own instructions as kernels use them, and what the emulation says where they are used wrongly.
#![cfg(feature = "simt")]
#![allow(
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    reason = "kernels, whose contracts are what the emulator checks"
)]
use cuda_std::atomic;
use cuda_std::float::{BF16, F16, Scalar};
use cuda_std::shared::{Layout, Slot};
use cuda_std::simt::{Launch, LaunchError, Schedule, launch};
use cuda_std::thread::*;
use cuda_std::warp::lane_id;
use cuda_std::wgmma::*;

const SCHEDULES: [Schedule; 4] =
    [Schedule::Forward, Schedule::Reverse, Schedule::Seeded(3), Schedule::Seeded(8)];

fn config(grid: u32, block: u32, cluster: u32, together: bool, schedule: Schedule) -> Launch {
    Launch { grid, block, shared_bytes: 64 << 10, cluster, together, schedule }
}

/// What all schedules find, which is the same.
fn outcome(grid: u32, block: u32, cluster: u32, kernel: impl Fn()) -> Result<(), LaunchError> {
    let all = SCHEDULES.map(|schedule| launch(config(grid, block, cluster, false, schedule), &kernel));
    let kind = |outcome: &Result<(), LaunchError>| outcome.as_ref().err().map(std::mem::discriminant);
    assert!(all.iter().all(|one| kind(one) == kind(&all[0])), "{all:?}");
    let [first, ..] = all;
    first
}

/// Small whole numbers, whose products and sums are exact in every type here.
fn value(row: u32, column: u32) -> f32 {
    ((row * 7 + column * 13) % 11) as f32 - 5.0
}

/// A tile of rows of 64 features in the 128-byte swizzle.
unsafe fn put_tile(slot: Slot<u8>, rows: u32, first_row: u32, of_16_bits: fn(f32) -> u16) {
    let mut word = thread_idx_x();
    while word < rows * 32 {
        let (row, chunk, rest) = (word / 32, word % 32 / 4, word % 4);
        let column = chunk * 8 + rest * 2;
        let pair = [0, 1].map(|i| u32::from(of_16_bits(value(first_row + row, column + i))));
        let place = slot.here().address() + row * 128 + (chunk ^ (row % 8)) * 16 + rest * 4;
        cuda_std::shared::Shared::<u32>::of(place).set(0, pair[0] | pair[1] << 16);
        word += block_dim_x();
    }
}

fn check_products<T: TensorScalar>(of_16_bits: fn(f32) -> u16) {
    let mut layout = Layout::new();
    let centroids = layout.aligned_array::<u8>(256 * 128, 1024);
    let points = layout.aligned_array::<u8>(64 * 128, 1024);
    let expected = |row: u32, column: u32| -> f32 {
        (0..64).map(|feature| value(1000 + row, feature) * value(column, feature)).sum()
    };
    outcome(1, 128, 1, || unsafe {
        put_tile(centroids, 256, 0, of_16_bits);
        put_tile(points, 64, 1000, of_16_bits);
        fence_proxy_async();
        sync_threads();
        let c = Descriptor::swizzled_128b(centroids.here().address());
        let x = Descriptor::swizzled_128b(points.here().address());
        let row = thread_idx_x() / 32 * 16 + lane_id() / 4;
        let (mut from_registers, mut from_shared) = ([f32::NAN; 64], [1.0; 64]);
        let (mut first, mut second) = ([f32::NAN; 64], [f32::NAN; 64]);
        wgmma_fence();
        for step in 0..4 {
            let a: [u32; 4] = std::array::from_fn(|i| {
                let (row, column) =
                    (row + i as u32 % 2 * 8, step * 16 + lane_id() % 4 * 2 + i as u32 / 2 * 8);
                let pair = [0, 1].map(|i| u32::from(of_16_bits(value(1000 + row, column + i))));
                pair[0] | pair[1] << 16
            });
            if step == 0 {
                T::wgmma_m64n128k16::<false>(&mut from_registers, &a, c.at(0));
            } else {
                T::wgmma_m64n128k16::<true>(&mut from_registers, &a, c.at(step * 32));
            }
            // Of the second 128, added to what is there.
            T::wgmma_m64n128k16_shared(&mut from_shared, x.at(step * 32), c.at(128 * 128 + step * 32), 1);
            T::wgmma_m64n256k16_shared([&mut first, &mut second], x.at(step * 32), c.at(step * 32), step);
        }
        wgmma_commit();
        wgmma_wait::<0>(&mut from_registers);
        for i in 0..64 {
            let (row, column) = (row + i / 2 % 2 * 8, i / 4 * 8 + lane_id() % 4 * 2 + i % 2);
            let i = i as usize;
            assert_eq!(from_registers[i], expected(row, column));
            assert_eq!(from_shared[i], 1.0 + expected(row, column + 128));
            assert_eq!([first[i], second[i]], [expected(row, column), expected(row, column + 128)]);
        }
    })
    .unwrap();
}

#[test]
fn products_are_those_of_the_tiles() {
    check_products::<F16>(|value| F16::from_f32(value).0);
    check_products::<BF16>(|value| BF16::from_f32(value).0);
}

#[test]
fn a_tile_is_in_the_swizzle_that_its_descriptor_says() {
    let plain = outcome(1, 128, 1, || unsafe {
        F16::wgmma_m64n128k16::<false>(&mut [0.0; 64], &[0; 4], 1024 >> 4);
    });
    assert!(matches!(plain, Err(LaunchError::InvalidTile { .. })), "{plain:?}");
}

#[test]
fn a_tile_must_stay_until_its_product_is_waited_for() {
    let centroids = Layout::new().aligned_array::<u8>(128 * 128, 1024);
    let overwrite = |waits_first: bool| {
        outcome(1, 160, 1, || unsafe {
            put_tile(centroids, 128, 0, |value| F16::from_f32(value).0);
            sync_threads();
            let is_multiplier = thread_idx_x() < 128;
            let mut scores = [0.0; 64];
            if is_multiplier {
                let c = Descriptor::swizzled_128b(centroids.here().address());
                F16::wgmma_m64n128k16::<false>(&mut scores, &[0; 4], c.at(0));
                wgmma_commit();
                if waits_first {
                    wgmma_wait::<0>(&mut scores);
                }
            }
            sync_threads();
            if thread_idx_x() == 128 {
                cuda_std::shared::Shared::<u32>::of(centroids.here().address()).set(0, 0);
            }
            if is_multiplier && !waits_first {
                wgmma_wait::<0>(&mut scores);
            }
        })
    };
    overwrite(true).unwrap();
    // Late or early, one of the two comes second.
    assert!(matches!(overwrite(false), Err(LaunchError::Race { .. })));
}

#[repr(align(16))]
struct Source([u32; 64]);

/// One thread copies tiles to a ring of two stages, a warp looks at them.
fn ring(schedule: Schedule, waits_full: bool, waits_empty: bool) -> Result<(), LaunchError> {
    let source = Source(std::array::from_fn(|i| i as u32 * 3));
    let mut layout = Layout::new();
    let stages = layout.array::<u32>(2 * 16);
    let (full, empty) = (layout.array::<u64>(2), layout.array::<u64>(2));
    let at = |slot: Slot<u64>, stage: u32| Mbarrier::at(slot.here().add(stage).address());
    launch(config(2, 64, 1, false, schedule), || unsafe {
        if thread_idx_x() == 0 {
            for stage in 0..2 {
                at(full, stage).init(1);
                at(empty, stage).init(32);
            }
            fence_mbarrier_init();
        }
        sync_threads();
        for tile in 0..4 {
            let (stage, round) = (tile % 2, tile / 2);
            if thread_idx_x() == 0 {
                if waits_empty {
                    at(empty, stage).wait(round & 1 ^ 1);
                }
                at(full, stage).arrive_expect_tx(64);
                let from = source.0.as_ptr().add(tile as usize * 16);
                bulk_copy(stages.here().add(stage * 16).address(), from.cast(), 64, at(full, stage));
            } else if thread_idx_x() >= 32 {
                if waits_full {
                    at(full, stage).wait(round & 1);
                }
                for i in 0..16 {
                    assert_eq!(stages.here().get(stage * 16 + i), (tile * 16 + i) * 3);
                }
                at(empty, stage).arrive();
            }
        }
    })
}

#[test]
fn a_ring_of_bulk_copies_is_ordered_by_its_barriers() {
    for schedule in SCHEDULES {
        ring(schedule, true, true).unwrap();
        // What is wrong depends on who comes first: tiles that are not there yet, or not read, or a thread that waits for ever.
        assert!(ring(schedule, false, true).is_err());
        assert!(ring(schedule, true, false).is_err());
    }
}

#[test]
fn barriers_in_shared_memory_are_counted() {
    let slot = Layout::new().array::<u64>(1);
    let barrier = || Mbarrier::at(slot.here().address());
    let many = outcome(1, 32, 1, || unsafe {
        if thread_idx_x() == 0 {
            barrier().init(2);
            barrier().arrive_expect_tx(16);
            barrier().arrive();
            // The phase still waits for its bytes.
            barrier().arrive();
        }
    });
    assert!(matches!(many, Err(LaunchError::InvalidBarrier { .. })), "{many:?}");
    let few = outcome(1, 32, 1, || unsafe {
        if thread_idx_x() == 0 {
            barrier().init(2);
            barrier().arrive();
            barrier().wait(0);
        }
    });
    assert!(matches!(few, Err(LaunchError::DivergentBarrier { .. })), "{few:?}");
    let none = outcome(1, 32, 1, || unsafe { barrier().arrive() });
    assert!(matches!(none, Err(LaunchError::InvalidBarrier { .. })), "{none:?}");
}

/// Every block of a cluster tells every other its number.
fn tell(meets: bool) -> Result<(), LaunchError> {
    let numbers = Layout::new().array::<u64>(4);
    outcome(8, 32, 4, || unsafe {
        // All have begun.
        cluster_sync();
        let me = cluster_rank();
        assert_eq!(me, block_idx_x() % 4);
        if thread_idx_x() < 4 {
            store_to_block(numbers.here().add(me), thread_idx_x(), u64::from(block_idx_x()));
        }
        if meets {
            cluster_sync();
        }
        let there = thread_idx_x() % 4;
        assert_eq!(numbers.here().get(there), u64::from(block_idx_x() - me + there));
    })
}

#[test]
fn blocks_of_a_cluster_see_what_was_stored_before_they_met() {
    tell(true).unwrap();
    assert!(tell(false).is_err());
}

#[test]
fn a_cluster_that_not_all_come_to_is_stuck() {
    let apart = outcome(2, 32, 2, || unsafe {
        cluster_arrive();
        if block_idx_x() == 0 {
            cluster_wait();
            cluster_sync();
        } else {
            cluster_wait();
        }
    });
    // Those that have exited are not waited for.
    apart.unwrap();
    // One that has arrived and exited counts once, not for one that is still to come.
    let early = outcome(4, 32, 4, || unsafe {
        let told = Layout::new().array::<u64>(1).here();
        if block_idx_x() == 3 && thread_idx_x() == 0 {
            store_to_block(told, 1, 5);
        }
        cluster_arrive();
        if block_idx_x() > 0 {
            cluster_wait();
        }
        if block_idx_x() == 1 {
            assert_eq!(told.get(0), 5);
        }
    });
    early.unwrap();
    let twice = outcome(2, 32, 2, || unsafe {
        cluster_arrive();
        cluster_arrive();
    });
    assert!(matches!(twice, Err(LaunchError::InvalidBarrier { .. })), "{twice:?}");
}

#[test]
fn blocks_that_run_together_may_wait_for_each_other() {
    let meet = |schedule, come: u32| {
        let counter = std::cell::UnsafeCell::new(0u32);
        launch(config(5, 32, 1, true, schedule), || unsafe {
            if thread_idx_x() == 0 && block_idx_x() < come {
                device_fence();
                atomic::fetch_add_u32(counter.get(), 1);
                while counter.get().read_volatile() < 5 {
                    pause();
                }
                device_fence();
            }
        })
    };
    for schedule in SCHEDULES {
        meet(schedule, 5).unwrap();
        let stuck = meet(schedule, 4);
        assert!(matches!(stuck, Err(LaunchError::DivergentBarrier { .. })), "{stuck:?}");
    }
}
