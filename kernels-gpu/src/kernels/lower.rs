//! A step of greedy k-means++: how much less each candidate leaves of the distances, with the bits that the CPU has.
//!
//! A distance that is not under the nearest so far changes nothing, and most are not. So tensor cores compare them first, which
//! reads a row once for all candidates, and only what may be lower is measured in f64, with the additions of the CPU's:
//!
//! ```text
//! warp                   products of 16 rows × 8 candidates, in 16 bits: straight from memory, 8 features a lane
//!                        at least the nearest, whatever the rounding?  yes: nothing to do   no: listed
//! half-warp, lane l      terms of features l, l + 16, … of 8 listed pairs, one after the other
//! 8 × 16 of them         written by lanes, read by pairs: lane l adds up pair l's 16 sums in their order
//! block                  up to 4 chunks of 64 rows, whose distances one thread a candidate adds up in the order of the rows
//! ```
//! Bound: a distance is `‖x‖² + ‖c‖² − 2x·c`. Products are within `γ·‖x‖‖c‖`, `γ = 2.5·(d + 16)·2⁻²⁴` (see `bound`) for each of up to
//! three sums, and for f32 what 16 bits leave out; `2‖x‖‖c‖` is at most `‖x‖² + ‖c‖²`. Norms are within `(d / 32 + 8)·2⁻²⁴`. Together
//! less than `(7.6·d + 200)·2⁻²⁴` of the norms; `10·d + 256` is taken. Norms that underflow may have touched, or that overflowed,
//! count as unclear.
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::float::{BF16, F16, Scalar};
use cuda_std::mma;
use cuda_std::ptr;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const SHARED: LowerShared = LowerShared::new();
const LANES: u32 = DISTANCE_LANES;
const CANDIDATES: usize = LOWER_CANDIDATES as usize;
/// Rows of a warp's products.
const TILE: u32 = 16;
/// Rows of a block's at a time.
const BLOCK_ROWS: u32 = LOWER_THREADS / WARP_SIZE * TILE;
/// Features of a step of them, and steps that candidates stay in registers for.
const STEP: u32 = 32;
const STEPS: usize = 4;
/// Norms from here to there have lost nothing that matters to underflow, and products did not overflow.
const LEAST_CLEAR: f64 = 1e-27;
const MOST_CLEAR: f64 = 1e37;

/// The points of one problem.
#[derive(Clone, Copy)]
pub(super) struct Points<T> {
    pub(super) values: *const T,
    pub(super) pitch: u32,
    pub(super) d: u32,
}

impl<T: Scalar> Points<T> {
    #[inline(always)]
    pub(super) unsafe fn row(self, row: u32) -> *const T {
        self.values.add((row as u64 * self.pitch as u64) as usize)
    }
}

/// One step of greedy k-means++: takes the distances to the row that was chosen last into the nearest ones, finds which of
/// those to the candidates for the next are lower, and sums what would be nearest with each of them over chunks and groups of rows.
/// `lowered` has a bit a candidate for each tile of candidates and row; only `distances` of set bits are written.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; `weights` may be null; a block has [`LOWER_THREADS`] threads; candidates are under `n`; `counters` are zeros, and zeros again afterwards.
#[inline(always)]
pub(super) unsafe fn lower<T: Multiplied>(
    points: *const T,
    norms: *const f32,
    weights: *const f64,
    states: *const DrawState,
    candidates: *const u32,
    nearest: *mut f64,
    distances: *mut f64,
    lowered: *mut u8,
    chunk_sums: *mut f64,
    group_sums: *mut f64,
    counters: *mut u32,
    params: LowerParams,
) {
    let shape = params.shape;
    let (chunks, groups, span) = (params.chunks(), params.groups(), params.span());
    let spans = params.spans(chunks) as u64;
    let measured = SHARED.distances.here();
    let near_of = SHARED.nearest.here();
    let me = thread_idx_x();
    let mut item = block_idx_x() as u64;
    while item < params.blocks() {
        let batch = div_u64(item, spans);
        let chunk = (item - batch * spans) as u32 * span;
        let state = *states.add(batch as usize);
        let first = batch * shape.n as u64;
        let values = points.add((first * shape.pitch as u64) as usize);
        let points = Points { values, pitch: shape.pitch, d: shape.d };
        let norms = norms.add(first as usize);
        let weights = if weights.is_null() { weights } else { weights.add(first as usize) };
        let nearest = nearest.add(first as usize);
        let trials = batch * params.trials as u64;
        let distances = distances.add((trials * shape.n as u64) as usize);
        let lowered = lowered.add((first * params.tiles() as u64) as usize);
        let candidates = candidates.add(trials as usize);
        let chunk_sums = chunk_sums.add((trials * chunks as u64) as usize);
        let group_sums = group_sums.add((trials * groups as u64) as usize);
        let begin = chunk * FAN;
        let past = if chunks - chunk < span { chunks } else { chunk + span } * FAN;
        let end = if shape.n < past { shape.n } else { past };
        if state.candidates > 0 {
            let chosen = distances.add((state.best as u64 * shape.n as u64) as usize);
            let by_chosen = lowered.add((state.best / LOWER_CANDIDATES) as u64 as usize * shape.n as usize);
            let mut row = begin + me;
            while row < end {
                let place = nearest.add(row as usize);
                let mut near = f64::INFINITY;
                if state.chosen == 0 {
                    *place = near;
                } else if *by_chosen.add(row as usize) >> (state.best % LOWER_CANDIDATES) & 1 == 0 {
                    near = *place;
                } else {
                    near = *chosen.add(row as usize);
                    *place = near;
                }
                near_of.set(row - begin, near);
                row += LOWER_THREADS;
            }
            let mut tile = 0;
            while tile < state.candidates {
                let count = (state.candidates - tile).min(LOWER_CANDIDATES);
                let of_tile = candidates.add(tile as usize);
                if me == 0 {
                    SHARED.listed.here().set(0, 0);
                }
                compare(points, norms, weights, of_tile, count, begin, end);
                sync_threads();
                measure(points, weights, of_tile, begin);
                sync_threads();
                let mut row = begin + me;
                while row < past {
                    let mut lower = 0;
                    let mut candidate = 0;
                    while candidate < count {
                        let slot = slot(candidate, row - begin);
                        if row < end {
                            let with = measured.get(slot);
                            if with < near_of.get(row - begin) {
                                lower |= 1 << candidate;
                                let place = (tile + candidate) as u64 * shape.n as u64 + row as u64;
                                *distances.add(place as usize) = with;
                            }
                        } else {
                            measured.set(slot, 0.0);
                        }
                        candidate += 1;
                    }
                    if row < end {
                        let of_tile = (tile / LOWER_CANDIDATES) as u64 * shape.n as u64;
                        *lowered.add((of_tile + row as u64) as usize) = lower as u8;
                    }
                    row += LOWER_THREADS;
                }
                sync_threads();
                let (candidate, of_block) = (me / LOWER_CHUNKS, me % LOWER_CHUNKS);
                if candidate < count && begin + of_block * FAN < past {
                    *chunk_sums.add(
                        ((tile + candidate) as u64 * chunks as u64 + (chunk + of_block) as u64) as usize,
                    ) = add_to(0.0, measured.add(slot(candidate, of_block * FAN)));
                }
                sync_threads();
                tile += LOWER_CANDIDATES;
            }

            // The last of a group's blocks to end adds its chunks up.
            let group = div(chunk, FAN);
            let of_group = (chunks - group * FAN).min(FAN);
            let counter = counters.add((batch * groups as u64 + group as u64) as usize);
            let ended = SHARED.ended.here();
            if me == 0 {
                device_fence();
                ended.set(0, atomic::fetch_add_u32(counter, 1) + 1);
            }
            sync_threads();
            if ended.get(0) == params.spans(of_group) {
                device_fence();
                let mut tile = 0;
                while tile < state.candidates {
                    let count = (state.candidates - tile).min(LOWER_CANDIDATES);
                    if me < FAN {
                        // All loads are under way before the first is waited for.
                        let mut sums = [0.0; CANDIDATES];
                        unroll!(C in [0, 1, 2, 3, 4, 5, 6, 7] => {
                            if (C as u32) < count && me < of_group {
                                let place = (tile + C as u32) as u64 * chunks as u64 + (group * FAN + me) as u64;
                                sums[C] = chunk_sums.add(place as usize).read_volatile();
                            }
                        });
                        unroll!(C in [0, 1, 2, 3, 4, 5, 6, 7] => { measured.set(slot(C as u32, me), sums[C]); });
                    }
                    sync_threads();
                    if me < count {
                        *group_sums.add(((tile + me) as u64 * groups as u64 + group as u64) as usize) =
                            add_to(0.0, measured.add(slot(me, 0)));
                    }
                    sync_threads();
                    tile += LOWER_CANDIDATES;
                }
                if me == 0 {
                    // For the next launch.
                    *counter = 0;
                }
            }
            sync_threads();
        }
        item += grid_dim_x() as u64;
    }
}

/// Where in shared memory the distance of a row of the block to a candidate is.
#[inline(always)]
pub(super) fn slot(candidate: u32, row: u32) -> u32 {
    (candidate * LOWER_CHUNKS + row / FAN) * LOWER_CHUNK_PITCH + row % FAN
}

#[inline(always)]
fn term<T: Scalar>((x, c): (T, T)) -> f64 {
    let difference = x.to_f32() as f64 - c.to_f32() as f64;
    difference * difference
}

/// Adds [`FAN`] values to `sum`, one after the other.
#[inline(always)]
pub(super) unsafe fn add_to(mut sum: f64, values: Shared<f64>) -> f64 {
    let mut at = 0;
    while at < FAN {
        // Loads ahead of the additions, which wait for each other.
        let mut ahead = [0.0; 8];
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => { ahead[I] = values.get(at + I as u32); });
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => { sum += ahead[I]; });
        at += 8;
    }
    sum
}

/// What a lane of a half-warp has of a squared distance over features `from..to`: those of every 16th feature, added up in their order.
#[inline(always)]
pub(super) unsafe fn lane_sum<T: Scalar>(x: *const T, c: *const T, from: u32, to: u32) -> f64 {
    let mut sum = 0.0;
    let mut feature = from + thread_idx_x() % LANES;
    while feature + 7 * LANES < to {
        // All loads are under way before the first is waited for.
        let mut terms = [(*x, *c); 8];
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
            let at = (feature + I as u32 * LANES) as usize;
            terms[I] = (*x.add(at), *c.add(at));
        });
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => { sum += term(terms[I]); });
        feature += 8 * LANES;
    }
    while feature < to {
        sum += term((*x.add(feature as usize), *c.add(feature as usize)));
        feature += LANES;
    }
    sum
}

/// Points of which tensor cores take 16 bits a value.
pub(super) trait Multiplied: Scalar {
    /// Whether values have a rest beside what is multiplied first.
    const HAS_REST: bool;
    /// What products of values in 16 bits, with their rests, may be off by, as a share of the norms' product.
    const LOST: f64;
    /// Eight values from a multiple of 8 on, two in a word, of a row with `pitch` values; and their rests.
    ///
    /// # Safety
    /// `x` is a row of so many values.
    unsafe fn words(x: *const Self, feature: u32, pitch: u32) -> [[u32; 4]; 2];
    /// `A B + C`.
    ///
    /// # Safety
    /// All 32 lanes must reach the same call.
    unsafe fn multiply(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4];
}

/// A vector from `feature` on, of zeros past the end of the row. Nobody branches.
#[inline(always)]
unsafe fn vector<T: Scalar>(x: *const T, feature: u32, pitch: u32) -> [u32; 4] {
    let is_inside = feature < pitch;
    let words = ptr::load_v4(x.add(if is_inside { feature } else { 0 } as usize).cast());
    words.map(|word| if is_inside { word } else { 0 })
}

macro_rules! of_16_bits {
    ($type:ty, $multiply:ident) => {
        impl Multiplied for $type {
            const HAS_REST: bool = false;
            const LOST: f64 = 0.0;
            #[inline(always)]
            unsafe fn words(x: *const Self, feature: u32, pitch: u32) -> [[u32; 4]; 2] {
                [vector(x, feature, pitch), [0; 4]]
            }
            #[inline(always)]
            unsafe fn multiply(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
                mma::$multiply(a, b, c)
            }
        }
    };
}
of_16_bits!(F16, mma_m16n8k16_f32_f16);
of_16_bits!(BF16, mma_m16n8k16_f32_bf16);

/// The upper half of an f32 is a bfloat16, and what it leaves another, both cut off: each is within a part in 2⁷ of what it
/// stands for. Products of two rests are left out.
impl Multiplied for f32 {
    const HAS_REST: bool = true;
    const LOST: f64 = 4.0 / (1 << 14) as f64;
    #[inline(always)]
    unsafe fn words(x: *const Self, feature: u32, pitch: u32) -> [[u32; 4]; 2] {
        let mut values = [[0; 4]; 2];
        unroll!(H in [0, 1] => {
            values[H] = vector(x, feature + 4 * H as u32, pitch);
        });
        let mut words = [[0; 4]; 2];
        unroll!(W in [0, 1, 2, 3] => {
            let (low, high) = (values[W / 2][W % 2 * 2], values[W / 2][W % 2 * 2 + 1]);
            let rest = |value: u32| {
                (f32::from_bits(value) - f32::from_bits(value & 0xffff_0000)).to_bits()
            };
            words[0][W] = low >> 16 | high & 0xffff_0000;
            words[1][W] = rest(low) >> 16 | rest(high) & 0xffff_0000;
        });
        words
    }
    #[inline(always)]
    unsafe fn multiply(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
        mma::mma_m16n8k16_f32_bf16(a, b, c)
    }
}

/// Compares distances of rows `begin..end`, at most [`LOWER_CHUNKS`] chunks, to `count` candidates with the nearest so far, by products of
/// tensor cores: what is not lower has the nearest in its place, and the others are listed. Some of what they are compared with
/// is written by other threads: the block is together after the first thing that is done.
#[inline(always)]
unsafe fn compare<T: Multiplied>(
    points: Points<T>,
    norms: *const f32,
    weights: *const f64,
    candidates: *const u32,
    count: u32,
    begin: u32,
    end: u32,
) {
    let (group, turn) = (lane_id() / 4, lane_id() % 4);
    let measured = SHARED.distances.here();
    let keeps = 1.0 - T::LOST - (10.0 * points.pitch as f64 + 256.0) / (1u32 << 24) as f64;
    // Of missing candidates the last one again, which is not kept.
    let place =
        |candidate: u32| *candidates.add(if candidate < count { candidate } else { count - 1 } as usize);
    let c = points.row(place(group));
    let of_candidates = [place(2 * turn), place(2 * turn + 1)].map(|row| *norms.add(row as usize));
    let mut staged = [[[0; 4]; 2]; STEPS];
    sync_threads();
    let mut first = begin + warp_id() * TILE;
    while first < end {
        let here = [first + group, first + group + 8];
        // Rows past the end are the last one again, and are not kept.
        let x = here.map(|row| points.row(if row < end { row } else { end - 1 }));
        let mut products = [0.0; 4];
        let mut stage = 0;
        while stage < points.pitch {
            let feature = stage + 8 * turn;
            // Candidates of few features stay from one time to the next.
            if first < begin + BLOCK_ROWS || points.pitch > STEPS as u32 * STEP {
                unroll!(S in [0, 1, 2, 3] => {
                    staged[S] = T::words(c, feature + S as u32 * STEP, points.pitch);
                });
            }
            // All loads of two steps are under way before the first is waited for.
            unroll!(H in [0, 1] => {
                if stage + 2 * H as u32 * STEP < points.pitch {
                    let mut words = [[[[0; 4]; 2]; 2]; 2];
                    unroll!(S in [0, 1] => {
                        unroll!(R in [0, 1] => {
                            words[S][R] = T::words(x[R], feature + (2 * H + S) as u32 * STEP, points.pitch);
                        });
                    });
                    unroll!(S in [0, 1] => {
                        add_products::<T>(&mut products, words[S], staged[2 * H + S]);
                    });
                }
            });
            stage += STEPS as u32 * STEP;
        }
        unroll!(R in [0, 1] => {
            let row = here[R] - begin;
            if here[R] < end {
                let near = SHARED.nearest.here().get(row);
                let norm = *norms.add(here[R] as usize);
                let mut weight = 1.0;
                if !weights.is_null() {
                    weight = *weights.add(here[R] as usize);
                }
                let mut unclear = 0u32;
                unroll!(C in [0, 1] => {
                    let candidate = 2 * turn + C as u32;
                    let both = norm as f64 + of_candidates[C] as f64;
                    let least = both * keeps - 2.0 * products[2 * R + C] as f64;
                    let is_clear = near == 0.0 || (LEAST_CLEAR..MOST_CLEAR).contains(&both) && weight * least >= near;
                    if candidate < count {
                        if is_clear {
                            measured.set(slot(candidate, row), near);
                        } else {
                            unclear |= 1 << C;
                        }
                    }
                });
                if unclear != 0 {
                    let mut place = SHARED.listed.here().fetch_add(0, unclear.count_ones());
                    unroll!(C in [0, 1] => {
                        if unclear >> C & 1 != 0 {
                            SHARED.list.here().set(place, (2 * turn + C as u32) << 16 | row);
                            place += 1;
                        }
                    });
                }
            }
        });
        first += BLOCK_ROWS;
    }
}

/// Adds the products of 32 features, of which a lane has eight of two rows and of a candidate: any order of them will do, if it is
/// the same on both sides.
#[inline(always)]
unsafe fn add_products<T: Multiplied>(products: &mut [f32; 4], x: [[[u32; 4]; 2]; 2], c: [[u32; 4]; 2]) {
    unroll!(P in [0, 1, 2] => {
        // The values, and each side's rests by the other's values.
        let (of_x, of_c) = ([0, 1, 0][P], [0, 0, 1][P]);
        if P == 0 || T::HAS_REST {
            unroll!(H in [0, 1] => {
                let a = [x[0][of_x][2 * H], x[1][of_x][2 * H], x[0][of_x][2 * H + 1], x[1][of_x][2 * H + 1]];
                *products = T::multiply(a, [c[of_c][2 * H], c[of_c][2 * H + 1]], *products);
            });
        }
    });
}

/// Measures what is listed of rows from `begin` on, in f64: what is lower takes its place, the nearest so far that of what is not.
#[inline(always)]
unsafe fn measure<T: Scalar>(points: Points<T>, weights: *const f64, candidates: *const u32, begin: u32) {
    const PITCH: u32 = LANES + 1;
    let (team, lane) = (thread_idx_x() / LANES, thread_idx_x() % LANES);
    let parts = SHARED.parts.here().add(team * LOWER_PAIRS * PITCH);
    let (list, count) = (SHARED.list.here(), SHARED.listed.here().get(0));
    let whole = points.d / LANES * LANES;
    let mut first = 0;
    while first < count {
        let mut distance = 0.0;
        let mut from = 0;
        while from < points.d {
            // What is left of the features is added up by itself.
            let to = if from < whole { whole } else { points.d };
            let (mut turn, mut entry) = (0, first + team);
            while turn < LOWER_PAIRS && entry < count {
                let pair = list.get(entry);
                let x = points.row(begin + (pair & 0xffff));
                let c = points.row(*candidates.add((pair >> 16) as usize));
                parts.set(turn * PITCH + lane, lane_sum(x, c, from, to));
                turn += 1;
                entry += LOWER_TEAMS;
            }
            sync_warp(FULL_MASK);
            let mut sum = 0.0;
            if lane < turn {
                unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] => {
                    sum += parts.get(lane * PITCH + I as u32);
                });
            }
            // Before it is written again.
            sync_warp(FULL_MASK);
            distance += sum;
            from = to;
        }
        let entry = first + team + lane * LOWER_TEAMS;
        if lane < LOWER_PAIRS && entry < count {
            let pair = list.get(entry);
            let (candidate, row) = (pair >> 16, pair & 0xffff);
            let mut weight = 1.0;
            if !weights.is_null() {
                weight = *weights.add((begin + row) as usize);
            }
            let (near, with) = (SHARED.nearest.here().get(row), weight * distance);
            SHARED.distances.here().set(slot(candidate, row), if with < near { with } else { near });
        }
        first += LOWER_TEAMS * LOWER_PAIRS;
    }
}
