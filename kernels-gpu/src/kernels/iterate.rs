//! Iterations of problems of few points, in one launch: what `sweep` and `finish` do in turn, to the same bits, by blocks that stay.
//!
//! ```text
//! a group     the blocks of a problem, which wait for each other twice an iteration
//! a block     its points of a panel, in shared memory from the first iteration to the last; labels and partial sums as in `sweep`
//!             then the means of some of the problem's clusters, as in `finish`
//!             then, like every other, whether the problem is done; the group's first block writes it down
//!             and once it is, labels under the last centroids
//! ```
//! A launch takes some microseconds to begin and to end, in which an iteration of such problems has no work done, and its blocks copy
//! all points. Here an iteration costs two waits for the group's other blocks, and a problem that is done lets go of its blocks.
//!
//! Blocks that wait for each other have to run at the same time: all of a launch, or one group of one block each.
use super::assign_mma::Operand;
use super::converge::{found, has_ended, record, sum_of_part, sync_reduce};
use super::finish::{Means, Tiles, list_rows, store_largest};
use super::pack_centroids::Packed;
use super::sweep::{Arrays, Panel, Results, way};
use super::{await_launch_before, my_thread};
use crate::spec::*;
use cuda_std::async_copy::cp_async_wait_group;
use cuda_std::atomic;
use cuda_std::thread::*;

/// In place of how many iterations are left: only labels are.
const CLOSING: u32 = u32::MAX;

/// Iterations until a problem is done, or `params.iterations` of them, and what `finish` leaves of the last, but for the largest of
/// each tile. Labels of problems that are done, or where `params.closes` of all, are those under the last centroids.
///
/// # Safety
/// As `sweep` and `finish`; `centroids` are those that distances are taken to, `means` what they are rounded from. `counters` are
/// zeros, and zeros again afterwards. The launch has a block, or a cluster of them, for each panel and no more; all run at once, or
/// each problem has one block.
#[inline(always)]
pub(super) unsafe fn iterate<C: Operand<Scalar: Packed>>(
    points: *const u16,
    centroids: *mut u16,
    packed: *mut u16,
    biases: *mut f32,
    norms: *const f32,
    largest: *mut f32,
    states: *mut LoopState,
    labels: *mut u32,
    cost: *mut f64,
    changed: *mut u32,
    starts: *mut u32,
    sums: *mut f32,
    heads: *mut f32,
    thresholds: *const f64,
    means: *mut f32,
    moves: *mut f64,
    centroid_norms: *mut f32,
    residuals: *mut f32,
    records: *mut IterationRecord,
    counters: *mut u32,
    params: IterateParams,
) {
    let IterateParams { sweep, finish, iterations, closes } = params;
    let shape = sweep.shape;
    let arrays = Arrays::<C::Scalar> {
        points: points.cast(),
        centroids: centroids.cast_const().cast(),
        packed,
        biases,
        norms,
    };
    let results = Results { labels, cost, changed, starts, sums, heads };
    let panel = Panel::<C, true>::of(div(block_idx_x(), const { way::<C>().blocks }), sweep);
    Panel::<C, true>::arrive();
    let batch = panel.batch;
    // As in `sweep`: points and labels are older than the launch before. Between two of these launches the host waits.
    let rows = panel.begin(arrays, labels);
    await_launch_before();
    let is_done = (*states.add(batch as usize)).done != 0;
    let mut of_all = panel.largest(largest);
    if is_done {
        return cp_async_wait_group::<0>();
    }
    panel.copy_centroids(arrays);
    panel.keep(rows);
    let (centre, extents) = (core::ptr::null(), core::ptr::null());
    let tiles = Tiles { centre, extents, packed, biases, norms: centroid_norms, residuals, shape };
    Panel::<C, true>::meet();
    let mut left = iterations;
    loop {
        // As with threads: what follows from the block's number is not worth registers through the loop.
        let panel = Panel::<C, true>::of(div(opaque(block_idx_x()), const { way::<C>().blocks }), sweep);
        let batch = panel.batch;
        let group = Group::of(batch, sweep.panels.count * const { way::<C>().blocks }, counters);
        panel.bound(of_all);
        panel.look();
        panel.label_all(arrays, results);
        if left == CLOSING {
            return;
        }
        panel.sort(results);
        panel.sum(results);
        group.meet(1);

        panel.store_all_statistics(results);
        if ends::<C>() {
            let mut item = group.rank;
            while item < finish.blocks_of_problem() {
                let first = item * finish.clusters_of_block;
                let rest = shape.k - first;
                let count = if rest < finish.clusters_of_block { rest } else { finish.clusters_of_block };
                list_rows(starts, batch, first, count, false, finish);
                sync_reduce();
                let means = Means::<C::Scalar> {
                    origin: arrays.points,
                    sums,
                    heads,
                    centroids: means,
                    rounded: centroids.cast(),
                    moves,
                    tiles,
                    batch,
                    first,
                    count,
                    params: finish,
                };
                means.find();
                // What the block has in common has been read.
                sync_reduce();
                item += group.len;
            }
        }
        group.meet(0);

        left -= 1;
        // Under way while all that was found is added up.
        panel.copy_centroids(arrays);
        let threshold = *thresholds.add(batch as usize);
        if ends::<C>() {
            let of_tiles = tiles.load(batch);
            let found = (moves.cast_const(), cost.cast_const(), changed.cast_const());
            sum_of_part(batch as u64, 0, 1, found, finish.converge);
            tiles.largest_of_tile(of_tiles);
        }
        sync_threads();
        let all = found();
        of_all = tiles.largest();
        if group.rank == 0 && my_thread() == 0 {
            // A launch begins with a window.
            let slot = iterations - left - 1;
            record(slot, batch as u64, all, threshold, states, records, finish.converge);
            store_largest(of_all, largest.add(batch as usize * 4), finish.slot);
        }
        let is_done = has_ended(all, threshold);
        if is_done || left == 0 {
            // Where no label has changed, they are those under the last centroids.
            let closes = if is_done { all.changed } else { closes };
            if closes == 0 {
                return cp_async_wait_group::<0>();
            }
            left = CLOSING;
        }
    }
}

/// Whether the thread is one of those that end an iteration: as many as `finish` has.
#[inline(always)]
unsafe fn ends<C: Operand>() -> bool {
    (const { way::<C>().threads == UPDATE_THREADS }) || my_thread() < UPDATE_THREADS
}

/// The blocks of a problem.
#[derive(Clone, Copy)]
struct Group {
    /// This block's number among them.
    rank: u32,
    len: u32,
    counter: *mut u32,
}

impl Group {
    #[inline(always)]
    unsafe fn of(batch: u32, len: u32, counters: *mut u32) -> Self {
        Group { rank: opaque(block_idx_x()) - batch * len, len, counter: counters.add(batch as usize) }
    }

    /// Waits for the others, which come here with the same `turn`, 1 and 0 in turns; what they wrote before is seen after it.
    ///
    /// A time that all have come adds 2³¹ to the counter, which the first block makes up.
    #[inline(always)]
    unsafe fn meet(self, turn: u32) {
        sync_threads();
        if self.len > 1 && my_thread() == 0 {
            device_fence();
            let mine = if self.rank == 0 { (1 << 31) - (self.len - 1) } else { 1 };
            // Nobody waits for what it was.
            atomic::fetch_add_u32(self.counter, mine);
            while self.counter.read_volatile() >> 31 != turn {
                pause();
            }
            device_fence();
        }
        sync_threads();
    }
}
