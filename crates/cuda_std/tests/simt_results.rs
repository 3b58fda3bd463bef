//! Kernels over fibers compute what they should, under every schedule.
#![cfg(feature = "simt")]
#![allow(
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    reason = "kernels, whose contracts are what the emulator checks"
)]
use cuda_std::barrier::{barrier_arrive, barrier_sync};
use cuda_std::shared::{Layout, Slot};
use cuda_std::simt::{Launch, LaunchError, Schedule, launch};
use cuda_std::thread::{block_dim_x, block_idx_x, device_fence, grid_dim_x, sync_threads, thread_idx_x};
use cuda_std::warp::*;
use cuda_std::{atomic, ptr};

const SCHEDULES: [Schedule; 5] =
    [Schedule::Forward, Schedule::Reverse, Schedule::Seeded(1), Schedule::Seeded(2), Schedule::Seeded(3)];

fn run(grid: u32, block: u32, shared_bytes: u32, kernel: impl Fn()) {
    for schedule in SCHEDULES {
        launch(Launch { grid, block, shared_bytes, cluster: 1, together: false, schedule }, &kernel)
            .unwrap_or_else(|error| panic!("{schedule:?}: {error}"));
    }
}

fn slot<T>(len: u32) -> Slot<T> {
    Layout::new().array(len)
}

/// One total for each block: lanes by shuffles, warps through shared memory.
unsafe fn block_sum(values: *const f32, n: usize, totals: *mut f64) {
    let index = (block_idx_x() * block_dim_x() + thread_idx_x()) as usize;
    let value = if index < n { f64::from(*values.add(index)) } else { 0.0 };
    let partial = slot::<f64>(32).here();
    let warp_total = warp_sum_f64(value);
    if lane_id() == 0 {
        partial.set(warp_id(), warp_total);
    }
    sync_threads();
    if thread_idx_x() == 0 {
        let mut total = 0.0;
        for warp in 0..block_dim_x() / WARP_SIZE {
            total += partial.get(warp);
        }
        *totals.add(block_idx_x() as usize) = total;
    }
}

#[test]
fn block_sum_equals_the_reference() {
    for (block, n) in [(32, 1), (64, 100), (128, 1000), (1024, 5000)] {
        let values: Vec<f32> = (0..n).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
        let grid = (n as u32).div_ceil(block);
        let expected: Vec<f64> =
            values.chunks(block as usize).map(|c| c.iter().map(|&v| f64::from(v)).sum()).collect();
        for schedule in SCHEDULES {
            let mut totals = vec![f64::NAN; grid as usize];
            let out = totals.as_mut_ptr();
            let config = Launch { grid, block, shared_bytes: 256, cluster: 1, together: false, schedule };
            launch(config, || unsafe { block_sum(values.as_ptr(), n, out) }).unwrap();
            assert_eq!(totals, expected, "{schedule:?}, {block} threads");
        }
    }
}

#[test]
fn indices_cover_the_grid() {
    let mut seen = [0u32; 3 * 40];
    let out = seen.as_mut_ptr();
    run(3, 40, 0, || unsafe {
        assert_eq!((block_dim_x(), grid_dim_x()), (40, 3));
        *out.add((block_idx_x() * 40 + thread_idx_x()) as usize) += 1;
    });
    assert_eq!(seen, [SCHEDULES.len() as u32; 120]);
}

#[test]
fn shuffles_move_values_between_lanes() {
    run(2, 96, 0, || unsafe {
        let lane = lane_id();
        let tag = thread_idx_x() * 1000 + block_idx_x();
        let of = |lane: u32| (warp_id() * 32 + lane) * 1000 + block_idx_x();
        for operand in [0, 1, 5, 16, 31] {
            assert_eq!(warp_shuffle_xor(FULL_MASK, tag, operand), of(lane ^ operand));
            assert_eq!(warp_shuffle_idx(FULL_MASK, tag, operand), of(operand));
            let up = if lane >= operand { lane - operand } else { lane };
            assert_eq!(warp_shuffle_up(FULL_MASK, tag, operand), of(up));
            let down = if lane + operand < 32 { lane + operand } else { lane };
            assert_eq!(warp_shuffle_down(FULL_MASK, tag, operand), of(down));
        }
        // The source may differ by lane.
        assert_eq!(warp_shuffle_idx(FULL_MASK, tag, 31 - lane), of(31 - lane));
        let wide = u64::from(tag) << 32 | u64::from(lane);
        assert_eq!(warp_shuffle_xor(FULL_MASK, wide, 1), u64::from(of(lane ^ 1)) << 32 | u64::from(lane ^ 1));
    });
}

#[test]
fn votes_and_sums_agree_with_their_definitions() {
    run(1, 64, 0, || unsafe {
        let lane = lane_id();
        assert_eq!(warp_vote_ballot(FULL_MASK, lane.is_multiple_of(3)), 0x4924_9249);
        assert_eq!(warp_inclusive_sum_u32(lane + 1), (lane + 1) * (lane + 2) / 2);
        assert_eq!(warp_sum_f64(f64::from(lane)), 496.0);
    });
}

#[test]
fn parts_of_a_warp_work_alone_and_meet_again() {
    run(1, 32, 0, || unsafe {
        let lane = lane_id();
        let mask = if lane < 8 { 0xff } else { 0xffff_ff00 };
        if lane < 8 {
            assert_eq!(warp_shuffle_xor(mask, lane, 7), lane ^ 7);
        } else {
            assert_eq!(warp_vote_ballot(mask, lane & 1 == 1), 0xaaaa_aa00);
        }
        assert_eq!(warp_vote_ballot(FULL_MASK, true), FULL_MASK);
    });
}

#[test]
fn exited_threads_count_as_arrived() {
    run(2, 100, 4 * 100, || unsafe {
        let values = slot::<u32>(100).here();
        let thread = thread_idx_x();
        values.set(thread, thread);
        // All of warp 3 and a part of warp 1 leave.
        if thread >= 96 || (40..50).contains(&thread) {
            return;
        }
        sync_threads();
        assert_eq!(values.get(99 - thread), 99 - thread);
    });
}

#[test]
fn sync_warp_orders_the_lanes_of_a_warp() {
    run(1, 64, 4 * 64, || unsafe {
        let values = slot::<u32>(64).here().add(32 * warp_id());
        let lane = lane_id();
        for round in 0..3 {
            values.set(lane, lane + round);
            sync_warp(FULL_MASK);
            assert_eq!(values.get(31 - lane), 31 - lane + round);
            sync_warp(FULL_MASK);
        }
        // Halves on their own, then a chain from one half to the other through one lane.
        let mask = 0xffff << (lane & 16);
        values.set(lane, lane);
        sync_warp(mask);
        assert_eq!(values.get(lane ^ 15), lane ^ 15);
        if lane == 0 || lane == 16 {
            sync_warp(1 << 16 | 1);
        }
        if lane >= 16 {
            sync_warp(mask);
            // Lane 0 has passed on what its half did before.
            assert_eq!(values.get(lane - 16), lane - 16);
        }
    });
}

/// Warp 0 fills two buffers in turn, warps 1 and 2 empty them.
#[test]
fn named_barriers_order_producer_and_consumers() {
    const ROUNDS: u32 = 6;
    run(2, 96, 8 * 32, || unsafe {
        let buffers = slot::<u32>(64).here();
        let (full, empty) = ([1, 2], [3, 4]);
        for round in 0..ROUNDS {
            let slot = (round % 2) as usize;
            let buffer = buffers.add(32 * (round % 2));
            if warp_id() == 0 {
                if round >= 2 {
                    barrier_sync(empty[slot], 96);
                }
                buffer.set(lane_id(), 100 * round + lane_id());
                barrier_arrive(full[slot], 96);
            } else {
                barrier_sync(full[slot], 96);
                assert_eq!(buffer.get(31 - lane_id()), 100 * round + 31 - lane_id());
                if round + 2 < ROUNDS {
                    barrier_arrive(empty[slot], 96);
                }
            }
        }
    });
}

#[test]
fn atomics_count_every_thread() {
    let mut total = 0u32;
    let global = &raw mut total;
    run(3, 128, 16, || unsafe {
        let counter = slot::<u32>(1).here();
        if thread_idx_x() == 0 {
            counter.set(0, 0);
        }
        sync_threads();
        assert!(counter.fetch_add(0, 2) < 256);
        sync_threads();
        assert_eq!(counter.get(0), 256);
        atomic::fetch_add_u32(global, 1);
    });
    assert_eq!(total, 3 * 128 * SCHEDULES.len() as u32);
}

#[test]
fn the_last_block_finishes_the_job() {
    for schedule in SCHEDULES {
        let (mut done, mut finishers) = (0u32, 0u32);
        let (done, finishers_out) = (&raw mut done, &raw mut finishers);
        launch(
            Launch { grid: 17, block: 32, shared_bytes: 0, cluster: 1, together: false, schedule },
            || unsafe {
                device_fence();
                if thread_idx_x() == 0 && atomic::fetch_add_u32(done, 1) == grid_dim_x() - 1 {
                    *finishers_out += 1;
                }
            },
        )
        .unwrap();
        assert_eq!(finishers, 1);
    }
}

#[test]
fn wide_accesses_round_trip() {
    #[repr(align(16))]
    struct Aligned([u32; 8]);
    let source = Aligned([1, 2, 3, 4, 5, 6, 7, 8]);
    run(1, 2, 64, || unsafe {
        let thread = thread_idx_x();
        assert_eq!(ptr::load_v4(source.0.as_ptr().add(4)), [5, 6, 7, 8]);
        let floats = slot::<f32>(8).here();
        floats.set4(4 * thread, [1.5, -2.0, f32::INFINITY, thread as f32]);
        assert_eq!(floats.get4(4 * thread), [1.5, -2.0, f32::INFINITY, thread as f32]);
        let doubles = floats.get(4 * thread);
        assert_eq!(doubles, 1.5);
        sync_threads();
        let words = slot::<u64>(4).here();
        words.set(thread, 0x0123_4567_89ab_cdef);
        assert_eq!(words.get(thread), 0x0123_4567_89ab_cdef);
        assert_eq!(slot::<u32>(8).here().get(2 * thread), 0x89ab_cdef);
    });
}

#[test]
fn a_schedule_repeats_itself() {
    let trace = |schedule| {
        let order = std::cell::RefCell::new(Vec::new());
        launch(
            Launch { grid: 4, block: 64, shared_bytes: 0, cluster: 1, together: false, schedule },
            || unsafe {
                order.borrow_mut().push((block_idx_x(), thread_idx_x()));
                sync_threads();
                order.borrow_mut().push((block_idx_x(), thread_idx_x()));
            },
        )
        .unwrap();
        order.into_inner()
    };
    for schedule in SCHEDULES {
        assert_eq!(trace(schedule), trace(schedule));
    }
    let forward = trace(Schedule::Forward);
    let mut reverse = trace(Schedule::Reverse);
    reverse.reverse();
    assert_eq!(forward, reverse);
    assert_ne!(trace(Schedule::Seeded(1)), trace(Schedule::Seeded(2)));
}

#[test]
fn a_launch_after_a_failed_one_is_clean() {
    let config = Launch {
        grid: 2,
        block: 64,
        shared_bytes: 64,
        cluster: 1,
        together: false,
        schedule: Schedule::Forward,
    };
    let failed = launch(config, || unsafe {
        if thread_idx_x() == 40 {
            return;
        }
        sync_warp(FULL_MASK);
    });
    assert!(matches!(failed, Err(LaunchError::ExitedLane { .. })), "{failed:?}");
    run(2, 64, 64, || unsafe { sync_threads() });
}
