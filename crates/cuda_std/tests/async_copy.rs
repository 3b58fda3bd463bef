//! Copies that overlap with computing, the way a kernel pipelines them.
#![cfg(feature = "simt")]
#![allow(
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    reason = "kernels, whose contracts are what the emulator checks"
)]
use cuda_std::async_copy::*;
use cuda_std::shared::Layout;
use cuda_std::simt::{Launch, Schedule, launch};
use cuda_std::thread::{sync_threads, thread_idx_x};

const THREADS: u32 = 64;
const TILES: u32 = 7;
const TILE: u32 = 4 * THREADS;

#[repr(align(16))]
struct Source([u32; (TILE * TILES) as usize]);

#[test]
fn two_stages_see_every_tile() {
    let source = Source(core::array::from_fn(|i| i as u32 * 3));
    for schedule in [Schedule::Forward, Schedule::Reverse, Schedule::Seeded(4)] {
        let config =
            Launch { grid: 2, block: THREADS, shared_bytes: 8 * TILE, cluster: 1, together: false, schedule };
        launch(config, || unsafe {
            let stages = Layout::new().array::<u32>(2 * TILE).here();
            let thread = thread_idx_x();
            let issue = |tile: u32| {
                if tile < TILES {
                    let from = source.0.as_ptr().add((tile * TILE + 4 * thread) as usize);
                    cp_async_cg_16(stages.add(tile % 2 * TILE + 4 * thread), from);
                }
                // An empty group keeps the count of groups that the wait relies on.
                cp_async_commit_group();
            };
            issue(0);
            for tile in 0..TILES {
                issue(tile + 1);
                cp_async_wait_group::<1>();
                sync_threads();
                for i in 0..4 {
                    let index = TILE - 1 - (4 * thread + i);
                    assert_eq!(stages.get(tile % 2 * TILE + index), 3 * (tile * TILE + index));
                }
                sync_threads();
            }
        })
        .unwrap();
    }
}

/// Copies left under way when a thread ends do not reach into the next block.
#[test]
fn unfinished_copies_end_with_their_block() {
    let source = Source([5; (TILE * TILES) as usize]);
    let config = Launch {
        grid: 3,
        block: 1,
        shared_bytes: 16,
        cluster: 1,
        together: false,
        schedule: Schedule::Forward,
    };
    launch(config, || unsafe {
        let words = Layout::new().array::<u32>(4).here();
        words.set(0, 1);
        cp_async_cg_16(words, source.0.as_ptr());
        cp_async_commit_group();
    })
    .unwrap();
}
