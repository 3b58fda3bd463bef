//! What a GPU leaves undefined is found, under every schedule.
#![cfg(feature = "simt")]
#![allow(
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    reason = "kernels, whose contracts are what the emulator checks"
)]
use cuda_std::async_copy::{cp_async_cg_16, cp_async_commit_group, cp_async_wait_group};
use cuda_std::barrier::{barrier_arrive, barrier_sync};
use cuda_std::ptr;
use cuda_std::shared::{Layout, Shared, Slot};
use cuda_std::simt::{Launch, LaunchError, Position, Schedule, launch};
use cuda_std::thread::{block_idx_x, device_fence, sync_threads, thread_idx_x};
use cuda_std::warp::*;

const SCHEDULES: [Schedule; 4] =
    [Schedule::Forward, Schedule::Reverse, Schedule::Seeded(1), Schedule::Seeded(2)];

/// The errors of one kernel in two blocks, with 1 KiB of shared memory.
fn errors(block: u32, kernel: impl Fn()) -> Vec<LaunchError> {
    let run = |schedule| {
        launch(Launch { grid: 2, block, shared_bytes: 1024, cluster: 1, together: false, schedule }, &kernel)
    };
    SCHEDULES.map(|schedule| run(schedule).expect_err("the fault must be found")).to_vec()
}

fn words() -> Shared<u32> {
    Layout::new().array::<u32>(256).here()
}

#[track_caller]
fn assert_all(errors: &[LaunchError], expected: impl Fn(&LaunchError) -> bool) {
    for (error, schedule) in errors.iter().zip(SCHEDULES) {
        assert!(expected(error), "{schedule:?}: {error:?}");
    }
}

/// The kernel ends in such an error under every schedule.
macro_rules! assert_finds {
    ($pattern:pat $(if $guard:expr)?, $block:expr, $kernel:expr) => {
        assert_all(&errors($block, || unsafe { $kernel }), |e| matches!(e, $pattern $(if $guard)?))
    };
}

use LaunchError::*;

#[test]
fn barriers_that_only_some_lanes_reach() {
    assert_finds!(DivergentBarrier { .. }, 64, {
        if thread_idx_x() % 32 < 16 {
            sync_threads();
        } else {
            warp_vote_ballot(FULL_MASK, true);
        }
    });
    assert_finds!(DivergentBarrier { .. }, 32, {
        barrier_sync(if lane_id() == 7 { 1 } else { 2 }, 32);
    });
}

#[test]
fn warps_that_wait_at_different_barriers() {
    assert_finds!(DivergentBarrier { at: Position { thread: 0 | 32, .. }, .. }, 64, {
        barrier_sync(1 + warp_id(), 64);
    });
    assert_finds!(DivergentBarrier { .. }, 64, {
        if warp_id() == 0 { sync_threads() } else { barrier_sync(1, 64) }
    });
    assert_finds!(DivergentBarrier { what, .. } if what.contains("32 arrived"), 64, {
        if warp_id() == 0 {
            barrier_sync(3, 64);
        }
    });
}

#[test]
fn named_barriers_out_of_range() {
    for (id, threads) in [(0, 32), (16, 32), (1, 33), (1, 0), (1, 96)] {
        assert_finds!(InvalidBarrier { .. }, 64, barrier_sync(id, threads));
        assert_finds!(InvalidBarrier { .. }, 64, barrier_arrive(id, threads));
    }
    assert_finds!(InvalidBarrier { what, .. } if what.contains("others arrived for"), 96, {
        barrier_sync(1, 96 - 32 * (warp_id() % 2));
    });
}

#[test]
fn lanes_in_different_warp_operations() {
    assert_finds!(DivergentWarpOp { .. }, 32, {
        if lane_id() < 5 {
            warp_vote_ballot(FULL_MASK, true);
        } else {
            warp_shuffle_xor(FULL_MASK, 1u32, 1);
        }
    });
    // A shuffle in one arm of a branch, with the mask of both.
    assert_finds!(DivergentWarpOp { at: Position { thread: 32..64, .. }, .. }, 64, {
        let mut value = thread_idx_x();
        if value >= 32 && value.is_multiple_of(2) {
            value = warp_shuffle_xor(FULL_MASK, value, 2);
        }
        warp_shuffle_idx(FULL_MASK, value, 0);
    });
}

#[test]
fn lanes_with_different_masks() {
    assert_finds!(DivergentWarpOp { .. }, 32, {
        sync_warp(if lane_id() == 3 { FULL_MASK } else { 0xffff_fff9 | 1 << lane_id() });
    });
    // Lane 0 waits for 1, which waits for 2, which waits for 0.
    assert_finds!(DivergentWarpOp { what, .. } if what.contains("only lanes"), 32, {
        let lane = lane_id();
        if lane < 3 {
            sync_warp(1 << lane | 1 << ((lane + 1) % 3));
        }
    });
}

#[test]
fn masks_that_name_lanes_that_are_gone() {
    assert_finds!(ExitedLane { what, .. } if what.contains("lane 9 "), 32, {
        if lane_id() != 9 {
            sync_warp(FULL_MASK);
        }
    });
    // A block of 40 threads has no lane 8 in its second warp.
    assert_finds!(ExitedLane { at: Position { thread: 32..40, .. }, what } if what.contains("lane 8 "), 40, {
        warp_vote_ballot(FULL_MASK, true);
    });
}

#[test]
fn masks_that_lack_the_caller() {
    assert_finds!(CallerOutsideMask { at: Position { thread: 4, .. }, .. }, 32, {
        if lane_id() == 4 {
            warp_vote_ballot(0xf, true);
        }
    });
}

#[test]
fn shuffles_from_outside_the_mask() {
    assert_finds!(ShuffleOutsideMask { source: 16..32, mask: 0xffff, .. }, 32, {
        if lane_id() < 16 {
            warp_shuffle_xor(0xffff, 1u32, 16);
        }
    });
    assert_finds!(ShuffleOutsideMask { at: Position { thread: 15, .. }, source: 16, .. }, 32, {
        if lane_id() < 16 {
            warp_shuffle_down(0xffff, 1u32, 1);
        }
    });
}

#[test]
fn shared_accesses_out_of_bounds() {
    assert_finds!(SharedOutOfBounds { offset: 1024, bytes: 4, available: 1024, .. }, 1, words().set(256, 0));
    assert_finds!(SharedOutOfBounds { .. }, 1, _ = words().get(400));
    assert_finds!(SharedOutOfBounds { .. }, 1, _ = words().fetch_add(256, 1));
    let wide: Slot<f32> = Layout::new().array(256);
    assert_finds!(SharedOutOfBounds { bytes: 16, .. }, 1, wide.here().set4(256, [0.0; 4]));
    let source = [0u32; 8];
    assert_finds!(SharedOutOfBounds { bytes: 16, .. }, 1, {
        let aligned = source.as_ptr().wrapping_byte_add(source.as_ptr().align_offset(16) * 4);
        cp_async_cg_16(words().add(256), aligned);
    });
}

#[test]
fn misaligned_accesses() {
    let floats: Slot<f32> = Layout::new().array(8);
    assert_finds!(Misaligned { .. }, 1, floats.here().set4(1, [0.0; 4]));
    let mut layout = Layout::new();
    layout.array::<u32>(1);
    let doubles: Slot<u64> = layout.aligned_array(1, 4);
    assert_finds!(Misaligned { .. }, 1, doubles.here().set(0, 1));
    let source = [0u32; 16];
    let start = source.as_ptr().align_offset(16);
    assert_finds!(Misaligned { .. }, 1, _ = ptr::load_v4(source.as_ptr().add(start + 1)));
    assert_finds!(Misaligned { .. }, 1, cp_async_cg_16(words().add(2), source.as_ptr().add(start)));
}

#[test]
fn reads_of_what_nobody_wrote() {
    assert_finds!(UninitialisedRead { offset: 12, .. }, 1, _ = words().get(3));
    assert_finds!(UninitialisedRead { .. }, 1, _ = words().fetch_add(0, 1));
    // What one block wrote is not there for the next.
    let written = std::cell::Cell::new(0);
    assert_finds!(UninitialisedRead { .. }, 1, {
        if written.get() % 2 == 0 {
            words().set(0, 1);
        }
        written.set(written.get() + 1);
        words().get(0);
    });
    let wide: Slot<f32> = Layout::new().array(8);
    assert_finds!(UninitialisedRead { offset: 12, .. }, 1, {
        words().set(0, 0);
        words().set(1, 0);
        words().set(2, 0);
        wide.here().get4(0);
    });
}

#[test]
fn races_without_a_barrier() {
    assert_finds!(Race { offset: 0, .. }, 64, words().set(0, 1));
    assert_finds!(Race { .. }, 64, {
        words().set(thread_idx_x(), 1);
        sync_threads();
        words().set(thread_idx_x(), 2);
        words().get(thread_idx_x() ^ 32);
    });
    // All read, then one writes: the barriers are of a warp each.
    assert_finds!(Race { .. }, 64, {
        if thread_idx_x() == 0 {
            words().set(0, 1);
        }
        sync_threads();
        words().get(0);
        barrier_sync(1 + warp_id(), 32);
        if thread_idx_x() == 0 {
            words().set(0, 2);
        }
    });
    assert_finds!(Race { .. }, 64, {
        if thread_idx_x() == 0 {
            words().set(0, 0);
        }
        sync_threads();
        if thread_idx_x() == 5 {
            words().set(0, 1);
        } else {
            words().fetch_add(0, 1);
        }
    });
}

/// A missing barrier that does no harm in one order of the lanes is found in all of them.
#[test]
fn races_whatever_the_order() {
    for reader in [0, 31, 32, 63] {
        assert_finds!(Race { offset: 64, .. }, 64, {
            if thread_idx_x() == 0 {
                words().set(16, 1);
            }
            sync_threads();
            if thread_idx_x() == 17 {
                words().set(16, 2);
            }
            if thread_idx_x() == reader {
                words().get(16);
            }
        });
    }
}

#[test]
fn races_within_a_warp() {
    let exchange = |order: &dyn Fn()| {
        let lane = lane_id();
        unsafe {
            words().set(lane, lane);
            sync_warp(FULL_MASK);
            words().get(lane ^ 16);
            order();
            words().set(lane, 1);
        }
    };
    let passes = || exchange(&|| unsafe { sync_warp(FULL_MASK) });
    launch(
        Launch {
            grid: 1,
            block: 32,
            shared_bytes: 1024,
            cluster: 1,
            together: false,
            schedule: Schedule::Forward,
        },
        passes,
    )
    .unwrap();
    // A fence lets nobody wait.
    assert_finds!(Race { .. }, 32, exchange(&|| device_fence()));
    // Nor do shuffles and votes order memory.
    assert_finds!(Race { .. }, 32, exchange(&|| _ = warp_vote_ballot(FULL_MASK, true)));
    assert_finds!(Race { .. }, 32, exchange(&|| _ = warp_shuffle_xor(FULL_MASK, 1u32, 16)));
    // A sync of each half does not order the halves.
    assert_finds!(Race { .. }, 32, exchange(&|| sync_warp(0xffff << (lane_id() & 16))));
}

#[test]
fn races_across_warps() {
    // A warp's own sync says nothing to the other warps.
    assert_finds!(Race { .. }, 64, {
        words().set(thread_idx_x(), 1);
        sync_warp(FULL_MASK);
        if thread_idx_x() == 40 {
            words().set(3, 2);
        }
        if thread_idx_x() == 3 {
            words().set(40, 2);
        }
    });
    // A barrier of two warps says nothing to the third.
    assert_finds!(Race { .. }, 96, {
        if warp_id() < 2 {
            words().set(thread_idx_x(), 1);
            barrier_sync(1, 64);
            words().set(thread_idx_x() ^ 32, 1);
        }
        if thread_idx_x() == 64 {
            words().set(0, 1);
        }
    });
    // Who arrives without waiting sees nothing.
    assert_finds!(Race { at: Position { thread: 0..32, .. } | Position { thread: 32..64, .. }, .. }, 64, {
        words().set(thread_idx_x(), 1);
        if warp_id() == 0 {
            barrier_arrive(1, 64);
            words().set(thread_idx_x() + 32, 2);
        } else {
            barrier_sync(1, 64);
        }
    });
}

/// 16-byte aligned global memory.
#[repr(align(16))]
struct Source([u32; 64]);
const SOURCE: Source = Source([7; 64]);

#[test]
fn copies_that_nobody_waited_for() {
    let source = SOURCE;
    let issue = |slot: u32| unsafe {
        cp_async_cg_16(words().add(4 * slot), source.0.as_ptr().add(4 * slot as usize));
    };
    assert_finds!(CopyInFlight { offset: 0, other: 0, .. }, 1, {
        issue(0);
        cp_async_commit_group();
        words().get(0);
    });
    // The wait is for groups, and this copy is in none.
    assert_finds!(CopyInFlight { .. }, 1, {
        issue(0);
        cp_async_wait_group::<0>();
        words().get(0);
    });
    // The last group may still be under way.
    assert_finds!(CopyInFlight { offset: 16, .. }, 1, {
        issue(0);
        cp_async_commit_group();
        issue(1);
        cp_async_commit_group();
        cp_async_wait_group::<1>();
        assert_eq!(words().get(3), 7);
        words().get(4);
    });
    assert_finds!(CopyInFlight { .. }, 1, {
        issue(0);
        words().set(1, 0);
    });
    // Nor may another thread use the destination, barrier or not.
    assert_finds!(CopyInFlight { at: Position { thread: 33, .. }, other: 0, .. }, 64, {
        if thread_idx_x() == 0 {
            issue(0);
            cp_async_commit_group();
        }
        sync_threads();
        if thread_idx_x() == 33 {
            words().get(0);
        }
    });
}

#[test]
fn copies_that_race() {
    let source = SOURCE;
    // The wait is the issuing thread's; the others need a barrier.
    assert_finds!(Race { .. } | UninitialisedRead { .. } | CopyInFlight { .. }, 2, {
        if thread_idx_x() == 0 {
            cp_async_cg_16(words(), source.0.as_ptr());
            cp_async_commit_group();
            cp_async_wait_group::<0>();
        }
        if thread_idx_x() == 1 {
            words().get(0);
        }
    });
    // The next tile is fetched into a buffer that others still read.
    assert_finds!(Race { .. } | CopyInFlight { .. }, 64, {
        words().set(thread_idx_x(), 1);
        sync_threads();
        words().get(63 - thread_idx_x());
        if thread_idx_x() == 0 {
            cp_async_cg_16(words(), source.0.as_ptr());
            cp_async_commit_group();
        }
        sync_threads();
        cp_async_wait_group::<0>();
    });
}

#[test]
fn panics_become_errors() {
    assert_finds!(Panicked { at: Position { thread: 35, .. }, message } if message == "35 is out", 64, {
        let thread = thread_idx_x();
        sync_threads();
        assert!(thread != 35, "{thread} is out");
    });
    assert_finds!(Panicked { message, .. } if message.contains("cannot launch a kernel"), 1, {
        sync_threads();
        let config = Launch { grid: 1, block: 1, shared_bytes: 0, cluster: 1, together: false, schedule: Schedule::Forward };
        launch(config, || ()).unwrap();
    });
}

#[test]
fn values_on_the_stacks_of_waiting_threads_are_dropped() {
    let alive = std::rc::Rc::new(());
    assert_finds!(Panicked { .. }, 64, {
        let _held = alive.clone();
        if thread_idx_x() == 50 {
            panic!("one thread fails");
        }
        sync_threads();
    });
    assert_eq!(std::rc::Rc::strong_count(&alive), 1);
}

#[test]
fn launches_that_no_hardware_takes() {
    let good = Launch {
        grid: 1,
        block: 1024,
        shared_bytes: 227 << 10,
        cluster: 1,
        together: false,
        schedule: Schedule::Forward,
    };
    assert_eq!(launch(good, || ()), Ok(()));
    for bad in [
        Launch { grid: 0, ..good },
        Launch { block: 0, ..good },
        Launch { block: 1025, ..good },
        Launch { shared_bytes: (227 << 10) + 1, ..good },
    ] {
        assert!(matches!(launch(bad, || ()), Err(InvalidLaunch { .. })), "{bad:?}");
    }
}

#[test]
#[should_panic(expected = "outside simt::launch")]
fn device_functions_need_a_launch() {
    thread_idx_x();
}

#[test]
fn errors_say_where() {
    let found = errors(64, || unsafe {
        if block_idx_x() == 1 && thread_idx_x() == 37 {
            words().get(5);
        }
    });
    for error in found {
        assert_eq!(error.to_string(), "block 1, thread 37: read of uninitialised shared memory at offset 20");
    }
}
