//! The whole of the sort-inverse update's sums for problems of few points: a block sorts a panel and sums it, so that
//! neither waits for another launch and the order never leaves the chip.
//!
//! ```text
//! a thread a point     its place: clusters before its own + warps before its own + lanes before it
//! a warp a stretch     32 sorted places, row by row, a lane a feature; a sum is written where its cluster ends
//! ```
//! What it writes is what `segment_sums` does, for stretches of [`SHORT_STRETCH`]. Blocks that have other features of the
//! same points sort them again, which takes less than to tell each other.
use super::segment_sums::{origin_of, pitch, store_mass, sums_about_first};
use super::sort::{bits_of, half_of, lanes_of, sum_before};
use super::{await_launch_before, my_thread};
use crate::spec::*;
use cuda_std::async_copy::*;
use cuda_std::float::Scalar;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

/// But for the points, which come behind.
const SHARED: PanelSumsShared = PanelSumsShared::new(0);
const WARPS: u32 = BLOCK_PANEL_POINTS / WARP_SIZE;
/// No label.
const NONE: u32 = u32::MAX;

/// Partial sums of points, less their problem's first where [`sums_about_first`], and where each cluster begins in its
/// panel. `origin` is where the first points are, `n` rows from problem to problem. With `HELD`, rows of up to so many bytes come to
/// shared memory while they are sorted: a word of each lane for each 128 of them.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, whose panels [`Panels::fit_a_block`], `points` aligned to 16 bytes; a
/// block has [`BLOCK_PANEL_POINTS`] threads; rows are no longer than `HELD` says.
#[inline(always)]
pub(super) unsafe fn panel_sums<T: Scalar, const HELD: u32>(
    points: *const T,
    origin: *const T,
    labels: *const u32,
    states: *const LoopState,
    starts: *mut u32,
    sums: *mut f32,
    heads: *mut f32,
    params: PanelSumsParams,
) {
    let masses = core::ptr::null();
    sums_by::<T, false, HELD>(points, origin, masses, labels, states, starts, sums, heads, params);
}

/// [`panel_sums`] of points times `masses`, as [`segment_sums_by_mass`](super::segment_sums::segment_sums_by_mass) does.
///
/// # Safety
/// As [`panel_sums`]'s.
#[inline(always)]
pub(super) unsafe fn panel_sums_by_mass<T: Scalar>(
    points: *const T,
    origin: *const T,
    masses: *const f32,
    labels: *const u32,
    states: *const LoopState,
    starts: *mut u32,
    sums: *mut f32,
    heads: *mut f32,
    params: PanelSumsParams,
) {
    sums_by::<T, true, 0>(points, origin, masses, labels, states, starts, sums, heads, params);
}

#[inline(always)]
unsafe fn sums_by<T: Scalar, const MASSES: bool, const HELD: u32>(
    points: *const T,
    origin: *const T,
    masses: *const f32,
    labels: *const u32,
    states: *const LoopState,
    starts: *mut u32,
    sums: *mut f32,
    heads: *mut f32,
    params: PanelSumsParams,
) {
    let (shape, panels) = (params.shape, params.panels);
    let mut item = block_idx_x() as u64;
    if const { HELD > 0 } {
        // Points and states are older than the labels, which the launch before may still settle.
        Panel::of(item, states, params).copy_points::<T, HELD>(points, params);
        await_launch_before();
    }
    while item < params.blocks() {
        let Panel { group, batch, chunk, row, len } = Panel::of(item, states, params);
        if len > 0 {
            // The chunk that begins the row says where clusters do.
            let starts = starts.add((group * (shape.k as u64 + 1)) as usize);
            sort(labels.add(row as usize), len, shape.k, starts, chunk == 0);
            let chunk = Chunk::<T, MASSES, HELD> {
                points: points.add((row * shape.pitch as u64) as usize),
                origin: origin_of::<T, MASSES>(origin, batch, shape),
                masses: if MASSES { masses.add(row as usize) } else { masses },
                sums: sums.add((group * shape.k as u64 * pitch::<MASSES>(shape)) as usize),
                head: heads.add(
                    ((group * panels.stretches() as u64 + warp_id() as u64) * pitch::<MASSES>(shape))
                        as usize,
                ),
                first: chunk * PANEL_SUMS_FEATURES,
                shape,
            };
            chunk.sum_stretch(len);
            // The order and the points have been read.
            sync_threads();
        }
        item += grid_dim_x() as u64;
        if const { HELD > 0 } {
            Panel::of(item, states, params).copy_points::<T, HELD>(points, params);
        }
    }
}

/// What a block has of a panel.
struct Panel {
    /// The panel's number, over all problems.
    group: u64,
    batch: u64,
    chunk: u32,
    /// Its first row, over all problems, and how many it has: 0 where there is nothing to do.
    row: u64,
    len: u32,
}

impl Panel {
    const NONE: Panel = Panel { group: 0, batch: 0, chunk: 0, row: 0, len: 0 };

    /// Of item `item`, if there is one, of a problem that is not done.
    #[inline(always)]
    unsafe fn of(item: u64, states: *const LoopState, params: PanelSumsParams) -> Panel {
        let (shape, panels) = (params.shape, params.panels);
        if item >= params.blocks() {
            return Self::NONE;
        }
        let group = div_u64(item, params.chunks() as u64);
        let chunk = (item - group * params.chunks() as u64) as u32;
        let batch = div_u64(group, panels.count as u64);
        if (*states.add(batch as usize)).done != 0 {
            return Self::NONE;
        }
        let first = (group - batch * panels.count as u64) as u32 * panels.len;
        let rest = shape.n - first;
        let len = if rest < panels.len { rest } else { panels.len };
        Panel { group, batch, chunk, row: batch * shape.n as u64 + first as u64, len }
    }

    /// Starts the copies of its points, whose rows are one after the other.
    #[inline(always)]
    unsafe fn copy_points<T, const HELD: u32>(self, points: *const T, params: PanelSumsParams) {
        let pitch = params.shape.pitch;
        let from = points.add((self.row * pitch as u64) as usize).cast::<u8>();
        let to = const { PanelSumsShared::new(HELD) }.points.here().address();
        let mut at = thread_idx_x() * 16;
        while at < self.len * pitch * size_of::<T>() as u32 {
            cp_async_cg_16(Shared::<u32>::of(to + at), from.add(at as usize).cast::<u32>());
            at += BLOCK_PANEL_POINTS * 16;
        }
        cp_async_commit_group();
    }
}

/// Sorts the panel's points by label: `[place]` label above, and point below 2¹⁶. Copies are there afterwards.
#[inline(always)]
unsafe fn sort(labels: *const u32, len: u32, k: u32, starts: *mut u32, writes_starts: bool) {
    let counts = SHARED.counts.here();
    let bases = SHARED.bases.here();
    let (me, words) = (my_thread(), k.div_ceil(2));
    let mut word = me;
    while word < WARPS * words {
        counts.set(word, 0);
        word += BLOCK_PANEL_POINTS;
    }
    let label = if me < len { *labels.add(me as usize) } else { NONE };
    let [peers] = lanes_of([label], bits_of(k));
    let earlier = (peers & ((1 << lane_id()) - 1)).count_ones();
    sync_threads();
    // Two clusters a word.
    let mine = counts.add(warp_id() * words);
    if label != NONE && earlier == 0 {
        mine.fetch_add(label / 2, peers.count_ones() << (label % 2 * 16));
    }
    sync_threads();

    place_clusters::<WARPS>(counts, bases, SHARED.warp_sums.here(), k, starts, writes_starts);
    sync_threads();
    if label != NONE {
        let of_warps = half_of(mine.get(label / 2), label);
        SHARED.order.here().set(bases.get(label) + of_warps + earlier, label << 16 | me);
    }
    cp_async_wait_group::<0>();
    sync_threads();
}

/// Where each of `k` clusters begins in a panel that `WARPS` warps sort, to `bases` and, if it `writes_starts`, to `starts`; and what
/// earlier warps have of each, in place of its `counts` in a warp, two clusters a word. The block is together before.
#[inline(always)]
pub(super) unsafe fn place_clusters<const WARPS: u32>(
    counts: Shared<u32>,
    bases: Shared<u32>,
    warp_sums: Shared<u32>,
    k: u32,
    starts: *mut u32,
    writes_starts: bool,
) {
    let (me, words) = (my_thread(), k.div_ceil(2));
    // What earlier warps have of both clusters of a word, at once: neither reaches 2¹⁶.
    let mut both = 0;
    if me < words {
        let mut warp = 0;
        while warp < WARPS {
            let mut found = [0; 8];
            unroll!(W in [0, 1, 2, 3, 4, 5, 6, 7] => { found[W] = counts.get((warp + W as u32) * words + me); });
            unroll!(W in [0, 1, 2, 3, 4, 5, 6, 7] => {
                counts.set((warp + W as u32) * words + me, both);
                both += found[W];
            });
            warp += 8;
        }
    }
    let (even, odd) = (both & 0xffff, both >> 16);
    let base = sum_before::<WARPS>(even + odd, warp_sums);
    // Said otherwise than above: of the same condition, LLVM would make one branch around two clones of the scan, in which
    // the lanes of a warp would not meet.
    if 2 * me < k {
        bases.set(2 * me, base);
        bases.set(2 * me + 1, base + even);
        if writes_starts {
            *starts.add(2 * me as usize) = base;
            // The end of the panel, or the cluster between.
            *starts.add(2 * me as usize + 1) = base + even;
            if 2 * me + 2 == k {
                *starts.add(k as usize) = base + even + odd;
            }
        }
    }
}

/// Some features of a panel's points.
#[derive(Clone, Copy)]
struct Chunk<T, const MASSES: bool, const HELD: u32> {
    points: *const T,
    origin: *const T,
    /// Of the panel's points.
    masses: *const f32,
    /// Of the panel.
    sums: *mut f32,
    /// Of the warp's stretch.
    head: *mut f32,
    /// The first feature.
    first: u32,
    shape: Shape,
}

/// Values of a lane: all of a chunk's words, with 32 lanes between one and the next.
const VALUES: usize = (PANEL_SUMS_FEATURES / WARP_SIZE) as usize;

impl<T: Scalar, const MASSES: bool, const HELD: u32> Chunk<T, MASSES, HELD> {
    const PER_WORD: u32 = 4 / size_of::<T>() as u32;
    /// Words of a lane.
    const WORDS: u32 = match HELD {
        0 => VALUES as u32 / Self::PER_WORD,
        bytes => bytes / (4 * WARP_SIZE),
    };
    /// Rows on their way at once: as many as there are registers for, with a thread a point.
    const IN_FLIGHT: u32 = if HELD > 0 { 6 / Self::WORDS } else { 4 * Self::PER_WORD };

    /// The lane's first feature of word `W`.
    #[inline(always)]
    fn feature(self, word: usize) -> u32 {
        self.first + (word as u32 * WARP_SIZE + lane_id()) * Self::PER_WORD
    }

    /// The lane's words of the point whose values begin at `place`.
    #[inline(always)]
    unsafe fn words_of_point(self, place: u32) -> [u32; VALUES] {
        if HELD == 0 {
            return self.words(self.points.add(place as usize));
        }
        let points = const { PanelSumsShared::new(HELD) }.points.here();
        let row = Shared::<u32>::of(points.address() + place * size_of::<T>() as u32);
        let mut words = [0; VALUES];
        unroll!(W in [0, 1, 2, 3] => {
            if (W as u32) < Self::WORDS && self.feature(W) < self.shape.d {
                words[W] = row.get(W as u32 * WARP_SIZE + lane_id());
            }
        });
        words
    }

    /// The lane's words of a row.
    #[inline(always)]
    unsafe fn words(self, row: *const T) -> [u32; VALUES] {
        let mut words = [0; VALUES];
        unroll!(W in [0, 1, 2, 3] => {
            if (W as u32) < Self::WORDS && self.feature(W) < self.shape.d {
                words[W] = *row.add(self.feature(W) as usize).cast();
            }
        });
        words
    }

    /// Adds up the warp's stretch.
    #[inline(always)]
    unsafe fn sum_stretch(self, len: u32) {
        const { assert!(SHORT_STRETCH == WARP_SIZE && VALUES == 4) };
        let order = SHARED.order.here();
        let first = warp_id() * WARP_SIZE;
        if first >= len {
            return;
        }
        let rows = if len - first < WARP_SIZE { len - first } else { WARP_SIZE };
        // Lanes past the last have its point again, which nobody adds.
        let mine = order.get(first + if lane_id() < rows { lane_id() } else { rows - 1 });
        let label = mine >> 16;
        let place = (mine & 0xffff) * self.shape.pitch;
        let mass = if MASSES { *self.masses.add((mine & 0xffff) as usize) } else { 1.0 };
        let next = warp_shuffle_down(FULL_MASK, label, 1);
        // Rows of which each is its cluster's last of the stretch.
        let lasts = warp_vote_ballot(FULL_MASK, lane_id() + 1 >= rows || next != label);
        // What began in an earlier stretch goes to the stretch's own row.
        let mut is_head = SHARED.bases.here().get(warp_shuffle_idx(FULL_MASK, label, 0)) < first;

        let has_origin =
            if MASSES { sums_about_first::<T>() && !self.origin.is_null() } else { sums_about_first::<T>() };
        let origin = if has_origin { self.words(self.origin) } else { [0; VALUES] };
        let mut sum = [0.0f32; VALUES];
        let mut sum_of_masses = 0.0f32;
        let mut at = 0;
        while at < rows {
            let mut found = [[0; VALUES]; 8];
            unroll!(R in [0, 1, 2, 3, 4, 5, 6, 7] => {
                if (R as u32) < Self::IN_FLIGHT {
                    let place = warp_shuffle_idx(FULL_MASK, place, at + R as u32);
                    found[R] = self.words_of_point(place);
                }
            });
            unroll!(R in [0, 1, 2, 3, 4, 5, 6, 7] => {
                let row = at + R as u32;
                if (R as u32) < Self::IN_FLIGHT && row < rows {
                    let mut of_row = 0.0;
                    if MASSES {
                        of_row = warp_shuffle_idx(FULL_MASK, mass, row);
                        sum_of_masses += of_row;
                    }
                    unroll!(V in [0, 1, 2, 3] => {
                        let (word, part) = (V / Self::PER_WORD as usize, V % Self::PER_WORD as usize);
                        let value = T::of_vector([found[R][word], 0, 0, 0], part);
                        // Sums of words that a lane does not have would be there for nothing.
                        sum[V] += if word as u32 >= Self::WORDS {
                            0.0
                        } else if MASSES && sums_about_first::<T>() {
                            of_row * (value - T::of_vector([origin[word], 0, 0, 0], part))
                        } else if MASSES {
                            of_row * value
                        } else if sums_about_first::<T>() {
                            value - T::of_vector([origin[word], 0, 0, 0], part)
                        } else {
                            value
                        };
                    });
                    if lasts >> row & 1 == 1 {
                        let label = warp_shuffle_idx(FULL_MASK, label, row);
                        let of_cluster = self.sums.add((label as u64 * pitch::<MASSES>(self.shape)) as usize);
                        self.store(if is_head { self.head } else { of_cluster }, sum);
                        if MASSES {
                            self.store_mass(if is_head { self.head } else { of_cluster }, sum_of_masses);
                            sum_of_masses = 0.0;
                        }
                        is_head = false;
                        sum = [0.0; VALUES];
                    }
                }
            });
            at += Self::IN_FLIGHT;
        }
    }

    /// Stores the sum of a row's masses, once for all chunks.
    #[inline(always)]
    unsafe fn store_mass(self, target: *mut f32, sum: f32) {
        if self.first == 0 && lane_id() == 0 {
            store_mass(target, sum, self.shape);
        }
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32, sum: [f32; VALUES]) {
        // Behind features are zeros, or the mass.
        let end = if MASSES { self.shape.d as u64 } else { pitch::<MASSES>(self.shape) };
        unroll!(V in [0, 1, 2, 3] => {
            let (word, part) = (V / Self::PER_WORD as usize, V % Self::PER_WORD as usize);
            let feature = self.feature(word) + part as u32;
            if (word as u32) < Self::WORDS && (feature as u64) < end {
                *target.add(feature as usize) = sum[V];
            }
        });
    }
}
