//! The sort of the sort-inverse update: a stable counting sort of ids, least digit first.
//!
//! ```text
//! pass over a digit of SORT_BITS bits, each panel by itself:
//!   histogram   tile -> keys of each digit                    [panel][digit][tile]
//!   scan        digit -> exclusive sum over its tiles, total  [panel][digit]
//!   scatter     row -> total of lower digits + earlier tiles + earlier in the tile
//! ```
//! Up to [`WHOLE_CLUSTERS`] clusters, one pass sorts by whole labels, in larger tiles, and its scan says where clusters
//! begin. Problems of few points take one launch instead of all these and of the sums: `panel_sums`.
//!
//! Only row indices move, never points. Stable and without atomics on places, so the order within a cluster
//! is the order of the rows: sums over it have the same bits on every run. Bytes of a pass: the ids twice,
//! the order read and written.
use crate::spec::*;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const HISTOGRAM: HistogramShared = HistogramShared::new();
const SCATTER: ScatterShared = ScatterShared::new();
const COUNT: WholeCountShared = WholeCountShared::new();
const STARTS: WholeStartsShared = WholeStartsShared::new();
const PLACE: WholePlaceShared = WholePlaceShared::new();
const WARPS: u32 = SORT_THREADS / WARP_SIZE;
/// Keys of a warp in a tile.
const PER_WARP: u32 = SORT_TILE / WARPS;

/// Lanes whose key is the same as this one's in its lowest `bits` bits, for each of `N` keys: a vote for each bit, since
/// the instruction that matches whole keys takes its time for each that differs.
#[inline(always)]
pub(super) unsafe fn lanes_of<const N: usize>(keys: [u32; N], bits: u32) -> [u32; N] {
    let mut lanes = [FULL_MASK; N];
    let mut bit = 0;
    while bit < bits {
        let mut at = 0;
        while at < N {
            let is_set = keys[at] >> bit & 1 != 0;
            let set = warp_vote_ballot(FULL_MASK, is_set);
            lanes[at] &= if is_set { set } else { !set };
            at += 1;
        }
        bit += 1;
    }
    lanes
}

/// Bits that tell labels under `k` and a key that is none, of bits all set, apart.
#[inline(always)]
pub(super) fn bits_of(k: u32) -> u32 {
    WARP_SIZE - k.leading_zeros()
}

/// The sum of `value` over the threads before this one, of blocks of `WARPS` warps, each of which has a place in `sums`.
///
/// # Safety
/// All threads of the block reach the same call, and nobody uses `sums` meanwhile.
#[inline(always)]
pub(super) unsafe fn sum_before<const WARPS: u32>(value: u32, sums: Shared<u32>) -> u32 {
    const { assert!(WARPS <= WARP_SIZE) };
    let through = warp_inclusive_sum_u32(value);
    if lane_id() == WARP_SIZE - 1 {
        sums.set(warp_id(), through);
    }
    sync_threads();
    // Every warp sums up those before it.
    let of_warps = warp_inclusive_sum_u32(sums.get(lane_id() % WARPS));
    let before = warp_shuffle_idx(FULL_MASK, of_warps, (warp_id() + WARP_SIZE - 1) % WARP_SIZE);
    (if warp_id() == 0 { 0 } else { before }) + through - value
}

/// A sort tile: which rows of which problem.
#[derive(Clone, Copy)]
struct Tile {
    batch: u64,
    /// Panel, counted over all problems.
    group: u64,
    /// The tile in its panel.
    index: u32,
    /// First row of the panel in its problem.
    panel_first: u32,
    /// First place of the tile in its panel.
    first: u32,
    /// Places of the panel.
    len: u32,
}

impl Tile {
    #[inline(always)]
    unsafe fn of(item: u64, params: SortParams) -> Tile {
        let tiles = params.panels.tiles();
        let group = div_u64(item, tiles as u64);
        let index = (item - group * tiles as u64) as u32;
        let batch = div_u64(group, params.panels.count as u64);
        let panel = (group - batch * params.panels.count as u64) as u32;
        let panel_first = panel * params.panels.len;
        let rest = params.shape.n - panel_first;
        let len = if rest < params.panels.len { rest } else { params.panels.len };
        Tile { batch, group, index, panel_first, first: index * SORT_TILE, len }
    }

    /// The row at `place` of the panel before this pass.
    #[inline(always)]
    unsafe fn row(&self, order: *const u32, place: u32, params: SortParams) -> u32 {
        let row = self.panel_first + place;
        if params.pass == 0 {
            row
        } else {
            *order.add((self.batch * params.shape.n as u64 + row as u64) as usize)
        }
    }
}

#[inline(always)]
unsafe fn digit_of(labels: *const u32, tile: Tile, row: u32, params: SortParams) -> u32 {
    let label = *labels.add((tile.batch * params.shape.n as u64 + row as u64) as usize);
    (label >> (params.pass * SORT_BITS)) & (SORT_DIGITS - 1)
}

/// Keys of each digit in each tile.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`SORT_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn histogram(
    labels: *const u32,
    order: *const u32,
    states: *const LoopState,
    histogram: *mut u32,
    params: SortParams,
) {
    let counts = HISTOGRAM.counts.here();
    let items = params.blocks();
    let mut item = block_idx_x() as u64;
    while item < items {
        let tile = Tile::of(item, params);
        if (*states.add(tile.batch as usize)).done == 0 {
            let mut digit = thread_idx_x();
            while digit < SORT_DIGITS {
                counts.set(digit, 0);
                digit += SORT_THREADS;
            }
            sync_threads();
            let mut offset = thread_idx_x();
            while offset < SORT_TILE && tile.first + offset < tile.len {
                let row = tile.row(order, tile.first + offset, params);
                counts.fetch_add(digit_of(labels, tile, row, params), 1);
                offset += SORT_THREADS;
            }
            sync_threads();
            let tiles = params.panels.tiles() as u64;
            let mut digit = thread_idx_x();
            while digit < SORT_DIGITS {
                let place = (tile.group * SORT_DIGITS as u64 + digit as u64) * tiles + tile.index as u64;
                *histogram.add(place as usize) = counts.get(digit);
                digit += SORT_THREADS;
            }
            sync_threads();
        }
        item += grid_dim_x() as u64;
    }
}

/// Exclusive sums over the tiles of each digit, in place, and each digit's total. A warp a digit.
///
/// Counts of a problem that has stopped mean nothing, and nobody reads their sums, so these may wrap.
///
/// # Safety
/// As [`histogram`].
#[inline(always)]
pub(super) unsafe fn scan(histogram: *mut u32, totals: *mut u32, params: ScanParams) {
    let digits = params.groups as u64 * SORT_DIGITS as u64;
    let mut digit = block_idx_x() as u64 * WARPS as u64 + warp_id() as u64;
    while digit < digits {
        let counts = histogram.add((digit * params.tiles as u64) as usize);
        let mut before = 0u32;
        let mut first = 0;
        while first < params.tiles {
            let tile = first + lane_id();
            let count = if tile < params.tiles { *counts.add(tile as usize) } else { 0 };
            let through = warp_inclusive_sum_u32(count);
            if tile < params.tiles {
                *counts.add(tile as usize) = before.wrapping_add(through).wrapping_sub(count);
            }
            before = before.wrapping_add(warp_shuffle_idx(FULL_MASK, through, WARP_SIZE - 1));
            first += WARP_SIZE;
        }
        if lane_id() == 0 {
            *totals.add(digit as usize) = before;
        }
        digit += grid_dim_x() as u64 * WARPS as u64;
    }
}

/// Row indices to their places.
///
/// # Safety
/// As [`histogram`]; `order` and `sorted` do not overlap.
#[inline(always)]
pub(super) unsafe fn scatter(
    labels: *const u32,
    order: *const u32,
    histogram: *const u32,
    totals: *const u32,
    states: *const LoopState,
    sorted: *mut u32,
    params: SortParams,
) {
    let places = SCATTER.places.here();
    let mine = places.add(warp_id() * SORT_DIGITS);
    let items = params.blocks();
    let mut item = block_idx_x() as u64;
    while item < items {
        let tile = Tile::of(item, params);
        if (*states.add(tile.batch as usize)).done == 0 {
            let mut digit = thread_idx_x();
            while digit < WARPS * SORT_DIGITS {
                places.set(digit, 0);
                digit += SORT_THREADS;
            }
            sync_threads();

            // Each warp owns consecutive places of the tile. Count, then place: what makes it stable.
            let first = tile.first + warp_id() * PER_WARP;
            let mut offset = lane_id();
            while offset < PER_WARP {
                if first + offset < tile.len {
                    let row = tile.row(order, first + offset, params);
                    mine.fetch_add(digit_of(labels, tile, row, params), 1);
                }
                offset += WARP_SIZE;
            }
            sync_threads();
            counts_to_places(histogram, totals, tile, params);
            sync_threads();

            let sorted = sorted.add((tile.batch * params.shape.n as u64 + tile.panel_first as u64) as usize);
            let mut offset = 0;
            while offset < PER_WARP {
                let place = first + offset + lane_id();
                let inside = place < tile.len;
                let row = if inside { tile.row(order, place, params) } else { 0 };
                // Lanes past the end form a group of their own, which places nothing.
                let digit = if inside { digit_of(labels, tile, row, params) } else { SORT_DIGITS };
                let [peers] = lanes_of([digit], SORT_BITS + 1);
                let earlier = (peers & ((1 << lane_id()) - 1)).count_ones();
                let start = if inside { mine.get(digit) } else { 0 };
                sync_warp(FULL_MASK);
                if inside {
                    *sorted.add((start + earlier) as usize) = row;
                    if earlier == 0 {
                        mine.set(digit, start + peers.count_ones());
                    }
                }
                sync_warp(FULL_MASK);
                offset += WARP_SIZE;
            }
            sync_threads();
        }
        item += grid_dim_x() as u64;
    }
}

/// Turns `[warp][digit]` counts into the place of each warp's first key of each digit. One thread a digit.
#[inline(always)]
unsafe fn counts_to_places(histogram: *const u32, totals: *const u32, tile: Tile, params: SortParams) {
    const { assert!(SORT_DIGITS == SORT_THREADS) };
    let places = SCATTER.places.here();
    let warp_sums = SCATTER.warp_sums.here();
    let digit = thread_idx_x();
    let row = tile.group * SORT_DIGITS as u64 + digit as u64;

    // Keys of lower digits in the whole panel: an exclusive scan of the totals.
    let total = *totals.add(row as usize);
    let through = warp_inclusive_sum_u32(total);
    if lane_id() == WARP_SIZE - 1 {
        warp_sums.set(warp_id(), through);
    }
    sync_threads();
    let mut lower = through - total;
    let mut warp = 0;
    while warp < WARPS {
        lower += if warp < warp_id() { warp_sums.get(warp) } else { 0 };
        warp += 1;
    }

    let tiles = params.panels.tiles() as u64;
    let mut place = lower + *histogram.add((row * tiles + tile.index as u64) as usize);
    let mut warp = 0;
    while warp < WARPS {
        let count = places.get(warp * SORT_DIGITS + digit);
        places.set(warp * SORT_DIGITS + digit, place);
        place += count;
        warp += 1;
    }
}

/// First place of each cluster in its panel's sorted order, and the panel's length after the last:
/// `[panel][k + 1]`. A binary search a border.
///
/// # Safety
/// As [`histogram`].
#[inline(always)]
pub(super) unsafe fn segment_starts(
    labels: *const u32,
    sorted: *const u32,
    states: *const LoopState,
    starts: *mut u32,
    params: StartsParams,
) {
    let shape = params.shape;
    let borders = shape.k as u64 + 1;
    let all = shape.batch as u64 * params.panels.count as u64 * borders;
    let mut border = block_idx_x() as u64 * UPDATE_THREADS as u64 + thread_idx_x() as u64;
    while border < all {
        let group = div_u64(border, borders);
        let cluster = (border - group * borders) as u32;
        let batch = div_u64(group, params.panels.count as u64);
        let panel_first = (group - batch * params.panels.count as u64) as u32 * params.panels.len;
        if (*states.add(batch as usize)).done == 0 {
            let labels = labels.add((batch * shape.n as u64) as usize);
            let sorted = sorted.add((batch * shape.n as u64 + panel_first as u64) as usize);
            let rest = shape.n - panel_first;
            let mut low = 0;
            let mut high = if rest < params.panels.len { rest } else { params.panels.len };
            while low < high {
                let middle = low + (high - low) / 2;
                if *labels.add(*sorted.add(middle as usize) as usize) < cluster {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            *starts.add(border as usize) = low;
        }
        border += grid_dim_x() as u64 * UPDATE_THREADS as u64;
    }
}

/// A tile of the pass over whole labels.
#[derive(Clone, Copy)]
struct WholeTile {
    batch: u64,
    /// Panel, counted over all problems.
    group: u64,
    /// First row of the panel in its problem.
    panel_first: u32,
    /// First and last but one place of the tile in its panel.
    first: u32,
    last: u32,
}

impl WholeTile {
    #[inline(always)]
    unsafe fn of(item: u64, params: WholeParams) -> Self {
        let tiles = params.tiles();
        let group = div_u64(item, tiles as u64);
        let batch = div_u64(group, params.panels.count as u64);
        let panel_first = (group - batch * params.panels.count as u64) as u32 * params.panels.len;
        let rest = params.shape.n - panel_first;
        let len = if rest < params.panels.len { rest } else { params.panels.len };
        let first = (item - group * tiles as u64) as u32 * WHOLE_TILE;
        let first = if first < len { first } else { len };
        let last = if len - first < WHOLE_TILE { len } else { first + WHOLE_TILE };
        WholeTile { batch, group, panel_first, first, last }
    }
}

/// Keys of each cluster in each tile: `[panel][tile][cluster]`.
///
/// # Safety
/// As [`histogram`], for shapes of [`WholeParams::is_for`].
#[inline(always)]
pub(super) unsafe fn whole_count(
    labels: *const u32,
    states: *const LoopState,
    histogram: *mut u32,
    params: WholeParams,
) {
    let k = params.shape.k;
    let counts = COUNT.counts.here();
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let tile = WholeTile::of(item, params);
        if (*states.add(tile.batch as usize)).done == 0 {
            let mut cluster = thread_idx_x();
            while cluster < k {
                counts.set(cluster, 0);
                cluster += SORT_THREADS;
            }
            sync_threads();
            let labels = labels.add((tile.batch * params.shape.n as u64) as usize);
            let mut place = tile.first + warp_id() * 8 * WARP_SIZE;
            while place < tile.last {
                let labels = eight_labels(labels, tile.panel_first, place, tile.last);
                unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                    // Of a giant cluster most lanes have the same: one adds for all that have the first's.
                    let label = labels[I];
                    let first = warp_shuffle_idx(FULL_MASK, label, 0);
                    let same = warp_vote_ballot(FULL_MASK, label == first).count_ones();
                    if label != u32::MAX && (label != first || lane_id() == 0) {
                        counts.fetch_add(label, if lane_id() == 0 { same } else { 1 });
                    }
                });
                place += SORT_THREADS * 8;
            }
            sync_threads();
            let row = histogram.add((item * k as u64) as usize);
            let mut cluster = thread_idx_x();
            while cluster < k {
                *row.add(cluster as usize) = counts.get(cluster);
                cluster += SORT_THREADS;
            }
            sync_threads();
        }
        item += grid_dim_x() as u64;
    }
}

/// Turns the counts of a panel's tiles into exclusive sums over the tiles, and finds where each cluster begins in the
/// panel: `[panel][k + 1]`. A block a panel.
///
/// # Safety
/// As [`whole_count`], but a block has [`WHOLE_STARTS_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn whole_starts(
    histogram: *mut u32,
    states: *const LoopState,
    starts: *mut u32,
    params: WholeParams,
) {
    const { assert!(WHOLE_CLUSTERS == 4 * WHOLE_STARTS_THREADS && WHOLE_STARTS_THREADS == WARP_SIZE * WARP_SIZE) };
    let (k, tiles) = (params.shape.k, params.tiles());
    let (totals, warps) = (STARTS.totals.here(), STARTS.warp_sums.here());
    let me = thread_idx_x();
    let groups = params.shape.batch as u64 * params.panels.count as u64;
    let mut group = block_idx_x() as u64;
    while group < groups {
        let batch = div_u64(group, params.panels.count as u64);
        if (*states.add(batch as usize)).done == 0 {
            let mut cluster = me;
            while cluster < WHOLE_CLUSTERS {
                let mut before = 0;
                if cluster < k {
                    let column = histogram.add((group * tiles as u64 * k as u64 + cluster as u64) as usize);
                    let mut tile = 0;
                    while tile < tiles {
                        let mut counts = [0; 8];
                        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                            if tile + (I as u32) < tiles {
                                counts[I] = *column.add((tile as usize + I) * k as usize);
                            }
                        });
                        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                            if tile + (I as u32) < tiles {
                                *column.add((tile as usize + I) * k as usize) = before;
                                before += counts[I];
                            }
                        });
                        tile += 8;
                    }
                }
                totals.set(cluster, before);
                cluster += WHOLE_STARTS_THREADS;
            }
            sync_threads();
            let mut mine = [0; 4];
            let mut sum = 0;
            unroll!(I in [0, 1, 2, 3] => {
                mine[I] = totals.get(me * 4 + I as u32);
                sum += mine[I];
            });
            let mut place = sum_before::<{ WHOLE_STARTS_THREADS / WARP_SIZE }>(sum, warps);
            let starts = starts.add((group * (k as u64 + 1)) as usize);
            unroll!(I in [0, 1, 2, 3] => {
                let cluster = me * 4 + I as u32;
                if cluster < k {
                    *starts.add(cluster as usize) = place;
                }
                place += mine[I];
                if cluster + 1 == k {
                    *starts.add(k as usize) = place;
                }
            });
            sync_threads();
        }
        group += grid_dim_x() as u64;
    }
}

/// Row indices to their places: first to those of the tile, in shared memory, so that what is written afterwards lies side by
/// side as far as clusters go on. What L2 has to take is not keys but the sectors that they touch.
///
/// # Safety
/// As [`whole_count`], but a block has [`WHOLE_PLACE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn whole_place(
    labels: *const u32,
    histogram: *const u32,
    starts: *const u32,
    states: *const LoopState,
    sorted: *mut u32,
    params: WholeParams,
) {
    const WARPS: u32 = WHOLE_PLACE_THREADS / WARP_SIZE;
    const OF_WARP: u32 = WHOLE_TILE / WARPS;
    const { assert!(OF_WARP == 4 * 8 * WARP_SIZE) };
    let k = params.shape.k;
    let (firsts, onwards) = (PLACE.firsts.here(), PLACE.onwards.here());
    // One after the other in the same place.
    let (offsets, keys) = (PLACE.offsets.here(), PLACE.offsets.here());
    // Two clusters a word: a tile has fewer than 2¹⁶ keys.
    let words = k.div_ceil(2);
    let mine = offsets.add(warp_id() * words);
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let tile = WholeTile::of(item, params);
        if (*states.add(tile.batch as usize)).done == 0 {
            let mut word = thread_idx_x();
            while word < WARPS * words {
                offsets.set(word, 0);
                word += WHOLE_PLACE_THREADS;
            }
            sync_threads();

            // Each warp owns consecutive places of the tile. Count, then place: what makes it stable.
            let labels = labels.add((tile.batch * params.shape.n as u64) as usize);
            let first = tile.first + warp_id() * OF_WARP;
            let last = first + OF_WARP;
            let last = if last < tile.last { last } else { tile.last };
            let mut place = first;
            while place < last {
                let labels = eight_labels(labels, tile.panel_first, place, last);
                unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                    if labels[I] != u32::MAX {
                        mine.fetch_add(labels[I] / 2, 1 << (labels[I] % 2 * 16));
                    }
                });
                place += 8 * WARP_SIZE;
            }
            sync_threads();

            // Halves of a word are summed at once: neither overflows.
            let mut word = thread_idx_x();
            while word < words {
                let mut before = 0;
                let mut warp = 0;
                while warp < WARPS {
                    let count = offsets.get(warp * words + word);
                    offsets.set(warp * words + word, before);
                    before += count;
                    warp += 1;
                }
                firsts.set(word, before);
                word += WHOLE_PLACE_THREADS;
            }
            sync_threads();
            counts_to_firsts(words);
            sync_threads();

            let base = starts.add((tile.group * (k as u64 + 1)) as usize);
            let row = histogram.add((item * k as u64) as usize);
            let mut cluster = thread_idx_x();
            while cluster < k {
                let place = *base.add(cluster as usize) + *row.add(cluster as usize);
                onwards.set(cluster, place.wrapping_sub(half_of(firsts.get(cluster / 2), cluster)));
                cluster += WHOLE_PLACE_THREADS;
            }
            // Label above and place in the tile below 2¹⁶, of each of a thread's keys: the counts are where keys will be.
            let mut placed = [[u32::MAX; 8]; 4];
            unroll!(J in [0, 1, 2, 3] => {
                let place = first + J as u32 * 8 * WARP_SIZE;
                if place < last {
                    let labels = eight_labels(labels, tile.panel_first, place, last);
                    let lanes = lanes_of(labels, bits_of(params.shape.k));
                    unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                        // Lanes past the end form a group of their own, which places nothing.
                        let label = labels[I];
                        let inside = label != u32::MAX;
                        let peers = lanes[I];
                        let earlier = (peers & ((1 << lane_id()) - 1)).count_ones();
                        let mut offset = 0;
                        if inside && earlier == 0 {
                            offset = half_of(mine.fetch_add(label / 2, peers.count_ones() << (label % 2 * 16)), label);
                        }
                        let offset = warp_shuffle_idx(FULL_MASK, offset, peers.trailing_zeros());
                        if inside {
                            placed[J][I] = label << 16 | (half_of(firsts.get(label / 2), label) + offset + earlier);
                        }
                    });
                }
            });
            sync_threads();
            unroll!(J in [0, 1, 2, 3] => {
                unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                    let place = warp_id() * OF_WARP + (J as u32 * 8 + I as u32) * WARP_SIZE + lane_id();
                    let key = placed[J][I];
                    if key != u32::MAX {
                        keys.set(key & 0xffff, key & 0xffff_0000 | place);
                    }
                });
            });
            sync_threads();

            let sorted = sorted.add((tile.batch * params.shape.n as u64 + tile.panel_first as u64) as usize);
            let row = tile.panel_first + tile.first;
            let mut at = thread_idx_x();
            while at < tile.last - tile.first {
                let key = keys.get(at);
                *sorted.add(onwards.get(key >> 16).wrapping_add(at) as usize) = row + (key & 0xffff);
                at += WHOLE_PLACE_THREADS;
            }
            sync_threads();
        }
        item += grid_dim_x() as u64;
    }
}

/// The value of a cluster in the word that two share.
#[inline(always)]
pub(super) fn half_of(word: u32, cluster: u32) -> u32 {
    word >> (cluster % 2 * 16) & 0xffff
}

/// Turns the tile's keys of each cluster into the place of the first, for two clusters a word.
#[inline(always)]
unsafe fn counts_to_firsts(words: u32) {
    const { assert!(WHOLE_CLUSTERS == 8 * WHOLE_PLACE_THREADS) };
    let firsts = PLACE.firsts.here();
    let me = thread_idx_x();
    // Of each word of the thread, the count of its lower cluster, and the thread's keys before it.
    let (mut lows, mut befores) = ([0; 4], [0; 4]);
    let mut sum = 0;
    unroll!(I in [0, 1, 2, 3] => {
        let word = me * 4 + I as u32;
        let counts = if word < words { firsts.get(word) } else { 0 };
        (lows[I], befores[I]) = (counts & 0xffff, sum);
        sum += (counts & 0xffff) + (counts >> 16);
    });
    let before = sum_before::<{ WHOLE_PLACE_THREADS / WARP_SIZE }>(sum, PLACE.warp_sums.here());
    unroll!(I in [0, 1, 2, 3] => {
        let word = me * 4 + I as u32;
        if word < words {
            let place = before + befores[I];
            firsts.set(word, place | (place + lows[I]) << 16);
        }
    });
}

/// Labels of eight places of a lane, 32 apart, all on their way at once; `u32::MAX`, which is no label, past the last.
#[inline(always)]
unsafe fn eight_labels(labels: *const u32, panel_first: u32, place: u32, last: u32) -> [u32; 8] {
    let mut found = [u32::MAX; 8];
    unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
        let at = place + I as u32 * WARP_SIZE + lane_id();
        if at < last {
            found[I] = *labels.add((panel_first + at) as usize);
        }
    });
    found
}
