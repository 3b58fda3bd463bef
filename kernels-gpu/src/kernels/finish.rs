//! The end of an iteration of problems of few points, in one launch: means, the centroids as the tensor cores take them, and
//! whether a problem has converged. What `finalise`, `pack_centroids` and `converge` do one after the other, to the same bits.
//!
//! ```text
//! a block          some clusters of a problem
//! a thread         one of them in a panel: lists its rows of partial sums
//! some lanes       a cluster, 4 features each: its rows, four at a time; or a share of a cluster of many rows
//!                  its mean, its place in a tile, its bias and norm
//! the last block   of a problem: the largest of each tile, the iteration's statistics, whether there is another
//! ```
//! For such problems most of a launch is waiting for the one before, and then for memory: once for where clusters begin, and once
//! for their rows.
use super::converge::{record, slot_of, sum_of_part, sync_reduce};
use super::finalise::rows_of_share;
use super::pack_centroids::{Most, Packed, length_of, place_of_bias, place_of_chunk, sum_of_row};
use super::pack_points::tensor_scale;
use super::segment_sums::sums_about_first;
use super::{my_lane, my_thread, my_warp};
use crate::spec::*;
use core::ops::AddAssign;
use cuda_std::async_copy::*;
use cuda_std::atomic;
use cuda_std::float::{Scalar, max};
use cuda_std::ptr;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const SHARED: FinishShared = FinishShared::new();
/// Features of a lane.
const VALUES: usize = FINALISE_VALUES as usize;
/// In a row's number: it is one of the heads.
const HEAD: u32 = 1 << 31;
/// No cluster.
const NONE: u32 = u32::MAX;

/// New centroids, rounded and packed, and the end of the iteration. An empty cluster keeps its centroid.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, which [`FinishParams::new`] made, and aligned to 16 bytes; a block has
/// [`UPDATE_THREADS`] threads; tiles have their centroids' own order, and zeros where there are none; `centre` and `extents` are
/// read where `T` rounds, and may be null elsewhere; `counters` are zeros, and zeros again afterwards; statistics are those of an
/// assignment to the centroids so far.
#[inline(always)]
pub(super) unsafe fn finish<T: Scalar + Packed>(
    origin: *const T,
    sums: *const f32,
    heads: *const f32,
    starts: *const u32,
    centre: *const f32,
    extents: *const u32,
    tile_cost: *const f64,
    tile_changed: *const u32,
    thresholds: *const f64,
    states: *mut LoopState,
    centroids: *mut f32,
    rounded: *mut T,
    moves: *mut f64,
    packed: *mut u16,
    biases: *mut f32,
    norms: *mut f32,
    residuals: *mut f32,
    largest: *mut f32,
    list_counts: *mut u32,
    records: *mut IterationRecord,
    counters: *mut u32,
    params: FinishParams,
) {
    let shape = params.converge.shape;
    let tiles = Tiles { centre, extents, packed, biases, norms, residuals, shape };
    let me = thread_idx_x();
    if block_idx_x() == 0 && me < LIST_COUNTS {
        // The next assignment begins its list of unsure points.
        *list_counts.add(me as usize) = 0;
    }
    let of_problem = params.blocks_of_problem();
    let mut item = block_idx_x();
    while item < shape.batch * of_problem {
        let batch = div(item, of_problem);
        let is_done = (*states.add(batch as usize)).done != 0;
        let first = (item - batch * of_problem) * params.clusters_of_block;
        let rest = shape.k - first;
        let count = if rest < params.clusters_of_block { rest } else { params.clusters_of_block };
        // Under way with all else that is there; nobody knows yet which block needs it.
        let threshold = if me == 0 { *thresholds.add(batch as usize) } else { 0.0 };
        list_rows(starts, batch, first, count, is_done, params);
        if me == 0 {
            SHARED.threshold.here().set(0, threshold);
        }
        sync_threads();
        if !is_done {
            let means =
                Means { origin, sums, heads, centroids, rounded, moves, tiles, batch, first, count, params };
            means.find();
            // What this block wrote is there before it counts as done.
            device_fence();
            sync_threads();
            let ended = SHARED.ended.here();
            if me == 0 {
                ended.set(0, atomic::fetch_add_u32(counters.add(batch as usize), 1) + 1);
            }
            sync_threads();
            if ended.get(0) == of_problem {
                device_fence();
                // Under way before the others are waited for.
                let of_tiles = tiles.load(batch);
                let found = (moves.cast_const(), tile_cost, tile_changed);
                let all = sum_of_part(batch as u64, 0, 1, found, params.converge);
                let most = tiles.largest_of_tile(of_tiles);
                tiles.store_most(batch, most);
                sync_threads();
                if me == 0 {
                    // For the next launch.
                    *counters.add(batch as usize) = 0;
                    let threshold = SHARED.threshold.here().get(0);
                    let slot = slot_of(states.add(batch as usize), params.converge);
                    record(slot, batch as u64, all, threshold, states, records, params.converge);
                    let largest = largest.add(batch as usize * 4);
                    store_largest(tiles.largest(), largest, params.slot);
                }
            }
        }
        // What the block has in common has been read.
        sync_threads();
        item += grid_dim_x();
    }
}

/// Lists the rows of partial sums of `count` clusters, from cluster `first` on, in the order in which they are added up: of each
/// panel what it has where the cluster begins, and the heads of the stretches that it goes on through. A thread a cluster and panel.
#[inline(always)]
pub(super) unsafe fn list_rows(
    starts: *const u32,
    batch: u32,
    first: u32,
    count: u32,
    is_done: bool,
    params: FinishParams,
) {
    let (panels, k) = (params.panels, params.converge.shape.k);
    let lanes = params.lanes_of_cluster;
    let me = my_thread();
    let panel = me & (lanes - 1);
    let at_once = UPDATE_THREADS >> lanes.trailing_zeros();
    let mut first_at = 0;
    while first_at < count {
        let at = first_at + (me >> lanes.trailing_zeros());
        let (mut points, mut rows, mut stretch) = (0, 0, 0);
        if at < count && panel < panels.count {
            let borders = (batch * panels.count + panel) as u64 * (k as u64 + 1);
            let border = starts.add((borders + (first + at) as u64) as usize);
            let (begin, end) = (*border, *border.add(1));
            // Nothing is known of a problem that is done.
            points = if is_done { 0 } else { end - begin };
            if points > 0 {
                stretch = begin / SHORT_STRETCH;
                rows = 1 + (end - 1) / SHORT_STRETCH - stretch;
            }
        }
        // Rows and points of the cluster up to this panel: 16 bits are enough for either.
        let mut through = rows << 16 | points;
        let mut offset = 1;
        while offset < lanes {
            let below = warp_shuffle_up(FULL_MASK, through, offset);
            through += if panel >= offset { below } else { 0 };
            offset <<= 1;
        }
        if at < count {
            let list = SHARED.rows.here().add(at * params.rows_of_cluster());
            let mut place = (through >> 16) - rows;
            if rows > 0 {
                list.set(place, panel * k + first + at);
                place += 1;
            }
            let mut head = stretch + 1;
            while place < through >> 16 {
                list.set(place, HEAD | (panel * panels.short_stretches() + head));
                place += 1;
                head += 1;
            }
            if panel + 1 == lanes {
                let points = through & 0xffff;
                SHARED.counts.here().set(at, through >> 16);
                // What a point is of its cluster's mean, 0 where there is none.
                SHARED.weights.here().set(at, if points > 0 { 1.0 / points as f64 } else { 0.0 });
            }
        }
        first_at += at_once;
    }
}

/// The means of some clusters of a problem.
#[derive(Clone, Copy)]
pub(super) struct Means<T> {
    pub(super) origin: *const T,
    pub(super) sums: *const f32,
    pub(super) heads: *const f32,
    pub(super) centroids: *mut f32,
    pub(super) rounded: *mut T,
    pub(super) moves: *mut f64,
    pub(super) tiles: Tiles,
    pub(super) batch: u32,
    /// The first cluster, and how many there are.
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) params: FinishParams,
}

impl<T: Scalar + Packed> Means<T> {
    /// The lane's first feature.
    #[inline(always)]
    unsafe fn feature(self) -> u32 {
        (my_lane() & (self.params.lanes_of_row - 1)) * FINALISE_VALUES
    }

    /// The means of all of them; rows are listed.
    #[inline(always)]
    pub(super) unsafe fn find(self) {
        let (counts, weights) = (SHARED.counts.here(), SHARED.weights.here());
        let of_warp = WARP_SIZE >> self.params.lanes_of_row.trailing_zeros();
        let of_lane = my_lane() >> self.params.lanes_of_row.trailing_zeros();
        let mut at = my_warp() * of_warp;
        while at < self.count {
            let here = at + of_lane;
            let rows = if here < self.count { counts.get(here) } else { 0 };
            let is_own = here < self.count && rows <= self.params.rows_of_warp;
            if warp_vote_ballot(FULL_MASK, is_own) != 0 {
                self.fetch(here, is_own);
                let total = self.add(here, rows, 0, if is_own { rows } else { 0 });
                self.end(here, is_own, total, if is_own { weights.get(here) } else { 0.0 });
            }
            at += of_warp * UPDATE_WARPS;
        }
        // Of a cluster of many rows each warp has a share, and then one of them all; of two such clusters each has one.
        const { assert!(FINISH_CLUSTERS <= WARP_SIZE && FINISH_LONG <= UPDATE_WARPS) };
        let is_long = my_lane() < self.count && counts.get(my_lane()) > self.params.rows_of_warp;
        let mut long = warp_vote_ballot(FULL_MASK, is_long);
        let parts = SHARED.shares.here();
        while long != 0 {
            let mut mine = NONE;
            let mut turn = 0;
            while turn < FINISH_LONG && long != 0 {
                let at = long.trailing_zeros();
                long &= long - 1;
                let rows = counts.get(at);
                let of_share = rows_of_share(rows);
                let from = (my_warp() * of_share).min(rows);
                if my_warp() == turn {
                    mine = at;
                    self.fetch(at, of_lane == 0);
                }
                let share = self.add(at, rows, from, (from + of_share).min(rows));
                let to =
                    parts.add((turn * UPDATE_WARPS + my_warp()) * (FINALISE_VALUES * WARP_SIZE) + my_lane());
                unroll!(V in [0, 1, 2, 3] => { to.set(V as u32 * WARP_SIZE, share[V]); });
                turn += 1;
            }
            sync_reduce();
            if mine != NONE {
                let is_mine = of_lane == 0;
                let mut total = [0.0; VALUES];
                let from = parts.add(my_warp() * (UPDATE_WARPS * FINALISE_VALUES * WARP_SIZE) + my_lane());
                unroll!(V in [0, 1, 2, 3] => {
                    let mut warp = 0;
                    while warp < UPDATE_WARPS {
                        total[V] += from.get((warp * FINALISE_VALUES + V as u32) * WARP_SIZE);
                        warp += 1;
                    }
                });
                self.end(mine, is_mine, total, if is_mine { weights.get(mine) } else { 0.0 });
            }
            sync_reduce();
        }
    }

    /// The sum of the rows of a cluster from row `from` on, which begins a share, up to row `to`: in the order of `finalise`.
    #[inline(always)]
    unsafe fn add(self, at: u32, rows: u32, from: u32, to: u32) -> [f64; VALUES] {
        let (shape, panels) = (self.params.converge.shape, self.params.panels);
        let list = SHARED.rows.here().add(at * self.params.rows_of_cluster());
        // Past the last feature a lane adds up others, which it does not use.
        let feature = if self.feature() < shape.d { self.feature() } else { 0 };
        // As with threads: what follows from it alone is not worth registers ahead.
        let pitch = opaque(sums_pitch(shape.d));
        let groups = (self.batch * panels.count) as u64;
        let sums = self.sums.add((groups * shape.k as u64 * pitch as u64) as usize + feature as usize);
        let heads = self
            .heads
            .add((groups * panels.short_stretches() as u64 * pitch as u64) as usize + feature as usize);
        let of_share = rows_of_share(rows);
        let (mut row, mut share_end) = (from, from + of_share);
        let (mut total, mut share) = ([0.0; VALUES], [0.0; VALUES]);
        while row < to {
            // All loads are under way before the first is waited for; of rows that are not there the first again.
            let mut values = [[0.0f32; VALUES]; 8];
            unroll!(R in [0, 1, 2, 3, 4, 5, 6, 7] => {
                if R == 0 || row + (R as u32) < to {
                    let number = list.get(row + R as u32);
                    let rows = if number & HEAD != 0 { heads } else { sums };
                    let place = (number & !HEAD) * pitch;
                    values[R] = ptr::load_v4(rows.add(place as usize).cast()).map(f32::from_bits);
                }
            });
            unroll!(G in [0, 4] => {
                if row + (G as u32) < to {
                    unroll!(V in [0, 1, 2, 3] => {
                        let value = |row: usize| values[G + row][V] as f64;
                        share[V] += (value(0) + value(1)) + (value(2) + value(3));
                    });
                    let next = row + G as u32 + 4;
                    if next >= share_end || next >= to {
                        unroll!(V in [0, 1, 2, 3] => { total[V] += share[V]; });
                        share = [0.0; VALUES];
                        share_end += of_share;
                    }
                }
            });
            row += 8;
        }
        total
    }

    /// Cluster `at`, counted over all problems.
    #[inline(always)]
    fn cluster(self, at: u32) -> u64 {
        self.batch as u64 * self.params.converge.shape.k as u64 + (self.first + at) as u64
    }

    /// Where the lane's features of cluster `at` are.
    #[inline(always)]
    unsafe fn place(self, at: u32) -> usize {
        (self.cluster(at) * self.params.converge.shape.d as u64 + self.feature() as u64) as usize
    }

    /// Whether all rows begin with a whole vector.
    #[inline(always)]
    fn has_vectors(self) -> bool {
        self.params.converge.shape.d.is_multiple_of(FINALISE_VALUES)
    }

    /// Has the lane's features of the centroid so far be on their way to shared memory, where rows are vectors.
    #[inline(always)]
    unsafe fn fetch(self, at: u32, is_wanted: bool) {
        if is_wanted && self.has_vectors() && self.feature() < self.params.converge.shape.d {
            cp_async_cg_16(Self::fetched(), self.centroids.add(self.place(at)).cast_const());
        }
        cp_async_commit_group();
    }

    /// Where the lane's are.
    #[inline(always)]
    unsafe fn fetched() -> Shared<f32> {
        SHARED.before.here().add(my_thread() * FINALISE_VALUES)
    }

    /// The lane's features of the centroid so far, after [`Self::fetch`]; of one that is not wanted any.
    #[inline(always)]
    unsafe fn before(self, at: u32, is_wanted: bool) -> [f32; VALUES] {
        let (d, feature) = (self.params.converge.shape.d, self.feature());
        let mut values = [0.0; VALUES];
        cp_async_wait_group::<0>();
        if is_wanted && feature < d {
            if self.has_vectors() {
                values = Self::fetched().get4(0);
            } else {
                let from = self.centroids.add(self.place(at)).cast_const();
                unroll!(V in [0, 1, 2, 3] => {
                    if feature + (V as u32) < d {
                        values[V] = *from.add(V);
                    }
                });
            }
        }
        values
    }

    /// Stores the mean, `total` times `weight`, and how far it is from the centroid so far, in lanes that have one. All lanes of
    /// a warp come here.
    #[inline(always)]
    unsafe fn end(self, at: u32, is_mine: bool, total: [f64; VALUES], weight: f64) {
        let (shape, feature) = (self.params.converge.shape, self.feature());
        let before = self.before(at, is_mine);
        // Sums may be of points less their problem's first.
        let origin = self.origin.add((self.batch as u64 * shape.n as u64 * shape.pitch as u64) as usize);
        let mut new = before;
        let mut moved = 0.0;
        unroll!(V in [0, 1, 2, 3] => {
            if weight > 0.0 && feature + (V as u32) < shape.d {
                let mut mean = total[V] * weight;
                if sums_about_first::<T>() {
                    mean += (*origin.add(feature as usize + V)).to_f32() as f64;
                }
                new[V] = mean as f32;
                let difference = new[V] as f64 - before[V] as f64;
                moved += difference * difference;
            }
        });
        if is_mine && feature < shape.d {
            let place = self.place(at);
            if self.has_vectors() {
                ptr::store_v4(self.centroids.add(place).cast(), new.map(f32::to_bits));
                T::store_four(self.rounded.add(place), new);
            } else {
                unroll!(V in [0, 1, 2, 3] => {
                    if feature + (V as u32) < shape.d {
                        *self.centroids.add(place + V) = new[V];
                        *self.rounded.add(place + V) = T::from_f32(new[V]);
                    }
                });
            }
        }
        let lanes = self.params.lanes_of_row;
        self.tiles.take::<T>(self.batch, self.first + at, is_mine, feature, lanes, new);
        let moved = sum_of_row(moved, lanes);
        if is_mine && feature == 0 {
            *self.moves.add(self.cluster(at) as usize) = moved;
        }
    }
}

/// The sum over the lanes that have a row, in each of them: chunks of 8 in their order first, as `pack_centroids` has them in a
/// lane.
#[inline(always)]
unsafe fn sum_by_chunks<S: Copy + Default + AddAssign + WarpShuffleValue>(
    values: [S; VALUES],
    lanes: u32,
) -> S {
    let add = |mut sum: S| {
        unroll!(V in [0, 1, 2, 3] => { sum += values[V]; });
        sum
    };
    let first = add(S::default());
    if lanes == 1 {
        return first;
    }
    // Of two lanes the second has what the first begins.
    let whole = add(warp_shuffle_up(FULL_MASK, first, 1));
    let beside = warp_shuffle_xor(FULL_MASK, whole, 1);
    let mut sum = if my_lane() & 1 == 1 { whole } else { beside };
    let mut offset = lanes / 2;
    while offset > 1 {
        sum += warp_shuffle_xor(FULL_MASK, sum, offset);
        offset >>= 1;
    }
    sum
}

/// Centroids as the tensor cores take them: see `pack_centroids`.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub(super) centre: *const f32,
    pub(super) extents: *const u32,
    pub(super) packed: *mut u16,
    pub(super) biases: *mut f32,
    pub(super) norms: *mut f32,
    pub(super) residuals: *mut f32,
    pub(super) shape: Shape,
}

impl Tiles {
    /// Takes the lane's features of a new centroid, from `feature` on, of which `lanes` lanes have all; zeros past the last. All
    /// lanes of a warp come here.
    #[inline(always)]
    unsafe fn take<T: Scalar + Packed>(
        self,
        batch: u32,
        cluster: u32,
        is_mine: bool,
        feature: u32,
        lanes: u32,
        values: [f32; VALUES],
    ) {
        let shape = self.shape;
        let scale = if T::ROUNDS { tensor_scale(*self.extents.add(batch as usize)) } else { 1.0 };
        let (mut squares, mut lost) = ([T::Sum::default(); VALUES], [T::Sum::default(); VALUES]);
        let mut words = [0u32; 2];
        unroll!(V in [0, 1, 2, 3] => {
            let feature = feature + V as u32;
            if is_mine && feature < shape.d {
                let mut centre = 0.0;
                if T::ROUNDS {
                    centre = *self.centre.add((batch as u64 * shape.d as u64 + feature as u64) as usize);
                }
                let bits;
                (bits, squares[V], lost[V]) = T::from_f32(values[V]).pack(0, centre, scale);
                words[V / 2] |= (bits as u32) << (V % 2 * 16);
            }
        });
        let (tile, row) = (cluster / HOPPER_CENTROIDS, cluster % HOPPER_CENTROIDS);
        if is_mine && feature < shape.d {
            let tile = batch as u64 * shape.centroid_tiles() as u64 + tile as u64;
            let chunk = place_of_chunk(tile, hopper_panels(shape.d), row, feature / 8);
            let place = chunk + (feature % 8 * 2) as u64;
            let word = words[0] as u64 | (words[1] as u64) << 32;
            *self.packed.cast::<u8>().add(place as usize).cast::<u64>() = word;
        }
        let norm = T::rounded(sum_by_chunks(squares, lanes));
        let residual = if T::ROUNDS { T::root_above(sum_by_chunks(lost, lanes)) } else { 0.0 };
        if is_mine && feature == 0 {
            *self.biases_of(batch, tile).add(place_of_bias(row)) = -0.5 * norm;
            let place = (batch as u64 * shape.k as u64 + cluster as u64) as usize;
            *self.norms.add(place) = norm;
            *self.residuals.add(place) = residual;
        }
    }

    /// The biases of tile `tile` of a problem.
    #[inline(always)]
    unsafe fn biases_of(self, batch: u32, tile: u32) -> *mut f32 {
        let tile = batch as u64 * self.shape.centroid_tiles() as u64 + tile as u64;
        self.biases.add((tile * HOPPER_BIASES as u64) as usize)
    }

    /// Norms and residuals of a tile's centroids, 4 a lane, a warp a tile: nothing where there are none.
    #[inline(always)]
    pub(super) unsafe fn load(self, batch: u32) -> [[f32; 2]; 4] {
        let mut values = [[0.0; 2]; 4];
        unroll!(I in [0, 1, 2, 3] => {
            const { assert!(HOPPER_CENTROIDS == 4 * WARP_SIZE) };
            let cluster = my_warp() * HOPPER_CENTROIDS + I as u32 * WARP_SIZE + my_lane();
            if cluster < self.shape.k {
                let place = (batch as u64 * self.shape.k as u64 + cluster as u64) as usize;
                values[I] = [*self.norms.add(place), *self.residuals.add(place)];
            }
        });
        values
    }

    /// The largest of the warp's tile, once all centroids are there; its length and residual for [`Self::largest`].
    #[inline(always)]
    pub(super) unsafe fn largest_of_tile(self, values: [[f32; 2]; 4]) -> Most {
        let tile = my_warp();
        let mut most = Most::NONE;
        if tile < self.shape.centroid_tiles() {
            unroll!(I in [0, 1, 2, 3] => {
                if tile * HOPPER_CENTROIDS + I as u32 * WARP_SIZE + my_lane() < self.shape.k {
                    let [norm, residual] = values[I];
                    most.take(Most { bias: -0.5 * norm, norm: length_of(norm), residual });
                }
            });
            most = most.of_warp();
            if my_lane() == 0 {
                SHARED.lengths.here().set(tile, most.norm);
                SHARED.residuals.here().set(tile, most.residual);
            }
        }
        most
    }

    /// Stores it beside the tile's biases.
    #[inline(always)]
    pub(super) unsafe fn store_most(self, batch: u32, most: Most) {
        if my_warp() < self.shape.centroid_tiles() && my_lane() < 4 {
            most.store(self.biases_of(batch, my_warp()), my_lane());
        }
    }

    /// The largest norm and residual of all tiles. The block is together before.
    #[inline(always)]
    pub(super) unsafe fn largest(self) -> [f32; 2] {
        let (mut norm, mut residual) = (0.0f32, 0.0f32);
        let mut tile = 0;
        while tile < self.shape.centroid_tiles() {
            norm = max(norm, SHARED.lengths.here().get(tile));
            residual = max(residual, SHARED.residuals.here().get(tile));
            tile += 1;
        }
        [norm, residual]
    }
}

/// Stores the largest norm and residual of a problem, `[slot][norm, residual]`, and nothing in the slot that is raised by the next
/// packing.
#[inline(always)]
pub(super) unsafe fn store_largest([norm, residual]: [f32; 2], to: *mut f32, slot: u32) {
    *to.add(slot as usize * 2) = norm;
    *to.add(slot as usize * 2 + 1) = residual;
    *to.add((1 - slot) as usize * 2) = 0.0;
    *to.add((1 - slot) as usize * 2 + 1) = 0.0;
}
