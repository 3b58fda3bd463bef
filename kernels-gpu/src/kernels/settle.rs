//! Points whose nearest centroid a tensor-core pass could not tell, settled in f64: by distances or by products.
//!
//! The list has two ends: from the front, points with two candidates, eight lanes each; from the back, those with more, for
//! which a block looks at every centroid: four points at a time in f32, with an error that is known, and what that leaves
//! in doubt in f64.
//!
//! ```text
//! 8 warps × 8 centroids, 4 points      lane l adds up features l, l + 32, … of all 32 pairs
//! 31 shuffles                          lane l has the distance of pair l: point l / 8, centroid l % 8
//! ```
//!
//! A sum by lanes is not added in the order of the features. Where that order could decide, the distances are
//! computed again in it: the definition, so that every backend gives the same label.
use super::rank::Rank;
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::float::{Scalar, fma, max};
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const SHARED: SettleShared = SettleShared::new();
/// Centroids that a warp compares at a time.
const SCAN_CENTROIDS: u32 = 8;
/// Lanes that compare a point with its two candidates, and points of a warp at a time.
const TWO_LANES: u32 = 8;
const TWO_POINTS: u32 = WARP_SIZE / TWO_LANES;
/// Threads that look at centroids for one point, each at every so many.
const CLASSES: u32 = UPDATE_WARPS * SCAN_CENTROIDS;

/// Labels of the points in the list, and the change of each.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`UPDATE_THREADS`] threads; `two` holds how many entries the list
/// has from the front, and `many` how many `many_rows` has from the back; `counters` are zeros, and zeros again afterwards.
#[inline(always)]
pub(super) unsafe fn settle<T: Scalar, R: Rank>(
    points: *const T,
    centroids: *const T,
    two: *const u32,
    rows: *const u32,
    first: *const u32,
    second: *const u32,
    many: *const u32,
    many_rows: *const u32,
    labels: *mut u32,
    changed: *mut u32,
    scratch: *mut u32,
    counters: *mut u32,
    params: SettleParams,
) {
    let shape = params.shape;
    let (two, many) = (*two, *many);

    // Loads of several points are waited for at once.
    let (group, lane) = (lane_id() / TWO_LANES, lane_id() % TWO_LANES);
    let mut of_warp = (block_idx_x() * UPDATE_WARPS + warp_id()) * TWO_POINTS;
    while of_warp < two {
        let is_entry = of_warp + group < two;
        let entry = if is_entry { of_warp + group } else { of_warp };
        let row = *rows.add(entry as usize);
        let (a, b) = (*first.add(entry as usize), *second.add(entry as usize));
        let before = if lane == 0 { *labels.add(row as usize) } else { NO_CANDIDATE };
        let x = points.add((row as u64 * shape.pitch as u64) as usize);
        let centroids = of_problem(centroids, row, shape);
        let a_row = centroids.add((a as u64 * shape.d as u64) as usize);
        let b_row = centroids.add((b as u64 * shape.d as u64) as usize);
        let [mut to_a, mut to_b, size] = R::by_lanes::<T, TWO_LANES>(x, a_row, b_row, shape.d);
        let is_close = is_close(to_a, to_b, size, shape.d);
        if warp_vote_ballot(FULL_MASK, is_close) != 0 {
            // Even lanes take the one, odd lanes the other.
            let mut mine = 0.0;
            if is_close {
                mine = R::in_order(x, if lane & 1 == 0 { a_row } else { b_row }, shape.d);
            }
            let of_a = warp_shuffle_idx(FULL_MASK, mine, group * TWO_LANES);
            let of_b = warp_shuffle_idx(FULL_MASK, mine, group * TWO_LANES + 1);
            (to_a, to_b) = if is_close { (of_a, of_b) } else { (to_a, to_b) };
        }
        let label = if to_b < to_a || (to_b == to_a && b < a) { b } else { a };
        if lane == 0 && is_entry && label != before {
            store(labels, changed, row, label, shape);
        }
        of_warp += grid_dim_x() * UPDATE_WARPS * TWO_POINTS;
    }

    settle_many::<T, R>(points, centroids, many, many_rows, labels, changed, scratch, counters, params);
}

/// The points of which more than two centroids are candidates. When they are few, several blocks share the centroids of
/// a group, and the last of them to end brings their results together.
#[inline(always)]
unsafe fn settle_many<T: Scalar, R: Rank>(
    points: *const T,
    centroids: *const T,
    many: u32,
    rows: *const u32,
    labels: *mut u32,
    changed: *mut u32,
    scratch: *mut u32,
    counters: *mut u32,
    params: SettleParams,
) {
    let shape = params.shape;
    let blocks = grid_dim_x().min(params.blocks);
    // What a group's points share is not worth a block's waiting for each of them in turn.
    let group_points = if many <= blocks { 1 } else { SETTLE_GROUP };
    let groups = div(many + group_points - 1, group_points);
    let mut team = 1;
    if groups > 0 && shape.batch == 1 {
        team = div(blocks, groups).min(shape.k.div_ceil(CLASSES)).max(1);
    }
    let part = div(shape.k, team) + 1;
    let (first_group, member) = (div(block_idx_x(), team), block_idx_x() - div(block_idx_x(), team) * team);
    let teams = div(blocks, team);
    let mut group = if block_idx_x() < teams * team { first_group } else { groups };
    while group < groups {
        let left = many - group * group_points;
        let entries = if left < group_points { left } else { group_points };
        let row_of =
            |entry: u32| *rows.add((shape.batch * shape.n - 1 - group * group_points - entry) as usize);
        let mut entry = 0;
        while entry < entries {
            // A pass over the centroids of a problem serves all of the group's points of that problem.
            let problem = div(row_of(entry), shape.n);
            let centroids = centroids.add((problem as u64 * shape.k as u64 * shape.d as u64) as usize);
            let mut x = [points; SETTLE_GROUP as usize];
            let mut same = 0;
            unroll!(P in [0, 1, 2, 3] => {
                let at = if entry + (P as u32) < entries { entry + P as u32 } else { entry };
                let mut row = row_of(at);
                // Only those that follow each other; any other is the first again, and goes unused.
                if same == P as u32 && at == entry + P as u32 && div(row, shape.n) == problem {
                    same += 1;
                } else {
                    row = row_of(entry);
                }
                x[P] = points.add((row as u64 * shape.pitch as u64) as usize);
            });
            let from = member * part;
            let to = if shape.k - from.min(shape.k) < part { shape.k } else { from + part };
            scan::<T, R>(x, centroids, from, to, shape);
            if team == 1 || is_last_of::<R>(team, first_group, scratch, counters) {
                // A warp a point.
                if warp_id() < same {
                    let at = warp_id();
                    let x = points.add((row_of(entry + at) as u64 * shape.pitch as u64) as usize);
                    let (label, classes) = nearest_of_lanes::<T, R>(at, x, centroids, shape);
                    if lane_id() == 0 {
                        SHARED.group_labels.here().set(at, label);
                        SHARED.group_classes.here().set(at, classes);
                    }
                }
                sync_threads();
                let mut point = 0;
                while point < same {
                    if SHARED.group_labels.here().get(point) == MANY_CANDIDATES {
                        let x = points.add((row_of(entry + point) as u64 * shape.pitch as u64) as usize);
                        let classes = SHARED.group_classes.here().get(point);
                        let label = nearest_of_classes::<T, R>(x, centroids, classes, part, shape);
                        sync_threads();
                        if thread_idx_x() == 0 {
                            SHARED.group_labels.here().set(point, label);
                        }
                        sync_threads();
                    }
                    point += 1;
                }
                if thread_idx_x() < same {
                    let label = SHARED.group_labels.here().get(thread_idx_x());
                    store(labels, changed, row_of(entry + thread_idx_x()), label, shape);
                }
                sync_threads();
            }
            entry += same;
        }
        group += teams;
    }
}

/// Hands what the lanes of this block have found to its team; in the last block of it, puts what all have found in their
/// place.
#[inline(always)]
unsafe fn is_last_of<R: Rank>(team: u32, number: u32, scratch: *mut u32, counters: *mut u32) -> bool {
    const WORDS: u32 = SETTLE_WORDS * UPDATE_THREADS;
    let me = thread_idx_x();
    let mine = scratch.add((block_idx_x() * WORDS + me) as usize);
    let found = found_by(me);
    *mine = found.distance.to_bits();
    *mine.add(UPDATE_THREADS as usize) = found.label;
    *mine.add(2 * UPDATE_THREADS as usize) = found.second.to_bits();
    if R::CANCELS {
        *mine.add(3 * UPDATE_THREADS as usize) = SHARED.scan_largest.here().get(me).to_bits();
    }
    device_fence();
    sync_threads();
    let ended = SHARED.ended.here();
    if me == 0 {
        let before = atomic::fetch_add_u32(counters.add(number as usize), 1);
        ended.set(0, before + 1);
        if before + 1 == team {
            // For the next launch.
            *counters.add(number as usize) = 0;
        }
    }
    sync_threads();
    if ended.get(0) < team {
        return false;
    }
    device_fence();
    let (mut all, mut largest) = (Nearest32::NONE, 0.0);
    let mut member = 0;
    while member < team {
        // Several on their way at once.
        let mut theirs = [(Nearest32::NONE, 0.0); 4];
        unroll!(I in [0, 1, 2, 3] => {
            if member + (I as u32) < team {
                let place = scratch.add(((number * team + member + I as u32) * WORDS + me) as usize);
                theirs[I].0 = Nearest32 {
                    distance: f32::from_bits(place.read_volatile()),
                    label: place.add(UPDATE_THREADS as usize).read_volatile(),
                    second: f32::from_bits(place.add(2 * UPDATE_THREADS as usize).read_volatile()),
                };
                if R::CANCELS {
                    theirs[I].1 = f32::from_bits(place.add(3 * UPDATE_THREADS as usize).read_volatile());
                }
            }
        });
        unroll!(I in [0, 1, 2, 3] => {
            all.take(theirs[I].0);
            largest = max(largest, theirs[I].1);
        });
        member += 4;
    }
    put_found(me, all);
    if R::CANCELS {
        SHARED.scan_largest.here().set(me, largest);
    }
    sync_threads();
    true
}

/// What a thread has found in its part of the centroids for its point: lanes `8p` to `8p + 7` for point `p`.
#[inline(always)]
unsafe fn found_by(thread: u32) -> Nearest32 {
    Nearest32 {
        distance: SHARED.scan_distances.here().get(thread),
        label: SHARED.scan_labels.here().get(thread),
        second: SHARED.scan_seconds.here().get(thread),
    }
}

#[inline(always)]
unsafe fn put_found(thread: u32, found: Nearest32) {
    SHARED.scan_distances.here().set(thread, found.distance);
    SHARED.scan_labels.here().set(thread, found.label);
    SHARED.scan_seconds.here().set(thread, found.second);
}

/// The nearest centroid of point `point` of the group, by what the 64 threads that looked for it have found; or
/// [`MANY_CANDIDATES`] where one of them has found two that may be, and a bit for each that has found one. A warp together.
#[inline(always)]
unsafe fn nearest_of_lanes<T: Scalar, R: Rank>(
    point: u32,
    x: *const T,
    centroids: *const T,
    shape: Shape,
) -> (u32, u64) {
    let thread = lane_id() / 8 * WARP_SIZE + point * 8 + lane_id() % 8;
    let found = [found_by(thread), found_by(thread + 4 * WARP_SIZE)];
    let mut least = found[0].distance.min(found[1].distance);
    unroll!(O in [1, 2, 4, 8, 16] => { least = least.min(warp_shuffle_xor(FULL_MASK, least, O as u32)); });
    // With `u = 2⁻²⁴`, a sum has a rounding for each of a lane's features and five for the other lanes', and three of its
    // terms: two sums in the wrong order are within `2·(d/32 + 8)u` of the size of their terms of each other, which are
    // all positive or as large as `size`. Written so that infinities and NaN are not clear.
    let relative = (shape.d.div_ceil(WARP_SIZE) + 10) as f32 * (2.2 / 16_777_216.0);
    let size = if R::CANCELS { size_of_products(x, shape.d) } else { 0.0 };
    let may_be = |distance: f32| {
        let is_clear = distance - least > fma(if R::CANCELS { size } else { distance }, relative, 1e-35);
        !is_clear
    };
    let may = [may_be(found[0].distance), may_be(found[1].distance)];
    let two = (may[0] && may_be(found[0].second)) || (may[1] && may_be(found[1].second));
    let [lower, upper] = may.map(|may| warp_vote_ballot(FULL_MASK, may));
    let classes = (upper as u64) << WARP_SIZE | lower as u64;
    if warp_vote_ballot(FULL_MASK, two) != 0 {
        return (MANY_CANDIDATES, classes);
    }
    if classes.count_ones() <= 2 {
        let label_of = |class: u32| {
            let label = if class < WARP_SIZE { found[0].label } else { found[1].label };
            warp_shuffle_idx(FULL_MASK, label, class % WARP_SIZE)
        };
        let a = label_of(classes.trailing_zeros());
        let b = label_of(63 - classes.leading_zeros());
        // As with two candidates from the first.
        if a == b {
            return (a, 0);
        }
        if a < shape.k && b < shape.k {
            let row_of = |centroid: u32| centroids.add((centroid as u64 * shape.d as u64) as usize);
            let [to_a, to_b, size] = R::by_lanes::<T, WARP_SIZE>(x, row_of(a), row_of(b), shape.d);
            if !is_close(to_a, to_b, size, shape.d) {
                return (if to_b < to_a { b } else { a }, 0);
            }
        }
    }
    let mut nearest = Nearest::NONE;
    unroll!(I in [0, 1] => {
        let centroid = found[I].label;
        // A thread that has looked at no centroid has found none.
        if may[I] && centroid < shape.k {
            let c = centroids.add((centroid as u64 * shape.d as u64) as usize);
            nearest.take(R::in_order(x, c, shape.d), centroid, f64::INFINITY);
        }
    });
    (nearest.of_warp().label, 0)
}

/// What no sum of the terms' magnitudes of a product with `x` exceeds, by the largest value that the scan met; in every lane
/// of a warp. Infinite where a sum in f32 may have overflowed.
#[inline(always)]
unsafe fn size_of_products<T: Scalar>(x: *const T, d: u32) -> f32 {
    let mut largest = 0.0f32;
    unroll!(W in [0, 1, 2, 3, 4, 5, 6, 7] => {
        largest = max(largest, SHARED.scan_largest.here().get(W as u32 * WARP_SIZE + lane_id()));
    });
    let mut magnitude = 0.0f32;
    let mut feature = lane_id();
    while feature < d {
        magnitude += magnitude_of((*x.add(feature as usize)).to_f32());
        feature += WARP_SIZE;
    }
    unroll!(O in [1, 2, 4, 8, 16] => {
        largest = max(largest, warp_shuffle_xor(FULL_MASK, largest, O as u32));
        magnitude += warp_shuffle_xor(FULL_MASK, magnitude, O as u32);
    });
    let size = magnitude * largest;
    if size < 1e38 { size } else { f32::INFINITY }
}

#[inline(always)]
fn magnitude_of(value: f32) -> f32 {
    if value < 0.0 { -value } else { value }
}

/// Each thread's nearest of the centroids from `from` up to `to`, in shared memory.
#[inline(always)]
unsafe fn scan<T: Scalar, R: Rank>(
    x: [*const T; SETTLE_GROUP as usize],
    centroids: *const T,
    from: u32,
    to: u32,
    shape: Shape,
) {
    let (mut nearest, mut largest) = (Nearest32::NONE, 0.0f32);
    let mut first = from + warp_id() * SCAN_CENTROIDS;
    while first < to {
        let mut sums = [0.0f32; 32];
        let mut feature = lane_id();
        while feature < shape.d {
            let mut points = [0.0; SETTLE_GROUP as usize];
            unroll!(P in [0, 1, 2, 3] => { points[P] = (*x[P].add(feature as usize)).to_f32(); });
            unroll!(C in [0, 1, 2, 3, 4, 5, 6, 7] => {
                let centroid = if first + (C as u32) < to { first + C as u32 } else { first };
                let c = (*centroids.add((centroid as u64 * shape.d as u64 + feature as u64) as usize)).to_f32();
                if R::CANCELS {
                    largest = max(largest, magnitude_of(c));
                }
                unroll!(P in [0, 1, 2, 3] => { sums[P * 8 + C] = R::add(sums[P * 8 + C], points[P], c); });
            });
            feature += WARP_SIZE;
        }
        // Halve what a lane holds, five times: it keeps the half that its lane number's bit names.
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] => { halve(&mut sums, I, 16); });
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => { halve(&mut sums, I, 8); });
        unroll!(I in [0, 1, 2, 3] => { halve(&mut sums, I, 4); });
        unroll!(I in [0, 1] => { halve(&mut sums, I, 2); });
        halve(&mut sums, 0, 1);
        let centroid = first + lane_id() % 8;
        if centroid < to {
            nearest.take(Nearest32 { distance: R::of_sum(sums[0]), label: centroid, second: f32::INFINITY });
        }
        first += CLASSES;
    }
    put_found(thread_idx_x(), nearest);
    if R::CANCELS {
        SHARED.scan_largest.here().set(thread_idx_x(), largest);
    }
    sync_threads();
}

/// Sums `index` and `index + half` of two lanes: each keeps one.
#[inline(always)]
unsafe fn halve(sums: &mut [f32; 32], index: usize, half: usize) {
    let upper = lane_id() & half as u32 != 0;
    let (low, high) = (sums[index], sums[index + half]);
    let sent = if upper { low } else { high };
    let kept = if upper { high } else { low };
    sums[index] = kept + warp_shuffle_xor(FULL_MASK, sent, half as u32);
}

/// Best distance in f32, its centroid, and second best.
#[derive(Clone, Copy)]
struct Nearest32 {
    distance: f32,
    label: u32,
    second: f32,
}

impl Nearest32 {
    const NONE: Nearest32 = Nearest32 { distance: f32::INFINITY, label: u32::MAX, second: f32::INFINITY };

    /// Takes the result of other centroids.
    #[inline(always)]
    fn take(&mut self, other: Nearest32) {
        let better = other.distance < self.distance;
        let worse = if better { self.distance } else { other.distance };
        let second = if other.second < self.second { other.second } else { self.second };
        self.second = if worse < second { worse } else { second };
        self.label = if better { other.label } else { self.label };
        self.distance = if better { other.distance } else { self.distance };
    }
}

/// The nearest in f64, in every thread of a block, of the centroids that threads of some `classes` have looked at: a bit each of
/// [`CLASSES`], into which every `part` centroids fall in turn. A warp two centroids.
#[inline(always)]
unsafe fn nearest_of_classes<T: Scalar, R: Rank>(
    x: *const T,
    centroids: *const T,
    classes: u64,
    part: u32,
    shape: Shape,
) -> u32 {
    let row_of = |centroid: u32| centroids.add((centroid as u64 * shape.d as u64) as usize);
    let mut nearest = Nearest::NONE;
    let (mut from, mut turn) = (0, 0);
    while from < shape.k {
        let to = if shape.k - from < part { shape.k } else { from + part };
        let mut first = from;
        while first < to {
            let mut left = if turn % UPDATE_WARPS == warp_id() { classes } else { 0 };
            while left != 0 {
                // The same again where there is no other.
                let a = first + left.trailing_zeros();
                left &= left - 1;
                let other = if left != 0 { first + left.trailing_zeros() } else { a };
                left &= left.wrapping_sub(1);
                if a < to {
                    let b = if other < to { other } else { a };
                    let [to_a, to_b, _] = R::by_lanes::<T, WARP_SIZE>(x, row_of(a), row_of(b), shape.d);
                    nearest.take(to_a, a, f64::INFINITY);
                    if b != a {
                        nearest.take(to_b, b, f64::INFINITY);
                    }
                }
            }
            turn += 1;
            first += CLASSES;
        }
        from = to;
    }
    nearest = nearest.of_block();
    let size = if R::CANCELS {
        2.1 * size_of_products(x, shape.d) as f64
    } else {
        nearest.distance + nearest.second
    };
    if !is_close(nearest.distance, nearest.second, size, shape.d) {
        return nearest.label;
    }
    // By the definition, a thread a centroid.
    nearest = Nearest::NONE;
    let mut centroid = thread_idx_x();
    while centroid < shape.k {
        let of_part = centroid - div(centroid, part) * part;
        if classes >> (of_part % CLASSES) & 1 == 1 {
            nearest.take(R::in_order(x, row_of(centroid), shape.d), centroid, f64::INFINITY);
        }
        centroid += UPDATE_THREADS;
    }
    nearest.of_warp().of_block().label
}

/// Whether the order of additions may decide between two sums of `d` terms that are of this size together: with
/// `u = 2⁻⁵³`, in order each is within `(d + 2)·u` of the true one, and by eight lanes or 32 within `(d / 8 + 8)·u`.
#[inline(always)]
pub(super) fn is_close(a: f64, b: f64, size: f64, d: u32) -> bool {
    let gap = if a < b { b - a } else { a - b };
    gap <= size * ((2 * d + 12) as f64 / 9_007_199_254_740_992.0)
}

/// Best distance, its centroid, and second best.
#[derive(Clone, Copy)]
pub(super) struct Nearest {
    distance: f64,
    pub(super) label: u32,
    second: f64,
}

impl Nearest {
    pub(super) const NONE: Nearest =
        Nearest { distance: f64::INFINITY, label: u32::MAX, second: f64::INFINITY };

    /// Takes the result of other centroids: of equal ones the lowest index.
    #[inline(always)]
    pub(super) fn take(&mut self, distance: f64, label: u32, second: f64) {
        let better = distance < self.distance || (distance == self.distance && label < self.label);
        let worse = if better { self.distance } else { distance };
        let second = if second < self.second { second } else { self.second };
        self.second = if worse < second { worse } else { second };
        self.distance = if better { distance } else { self.distance };
        self.label = if better { label } else { self.label };
    }

    /// The warp's result, in every lane.
    #[inline(always)]
    pub(super) unsafe fn of_warp(mut self) -> Nearest {
        let mut offset = 16;
        while offset > 0 {
            let to = warp_shuffle_xor(FULL_MASK, self.distance, offset);
            let label = warp_shuffle_xor(FULL_MASK, self.label, offset);
            let second = warp_shuffle_xor(FULL_MASK, self.second, offset);
            self.take(to, label, second);
            offset >>= 1;
        }
        self
    }

    /// The block's result, in every thread, of what the lanes of each warp have in common.
    #[inline(always)]
    unsafe fn of_block(self) -> Nearest {
        let distances = SHARED.distances.here();
        let (seconds, labels) = (SHARED.seconds.here(), SHARED.labels.here());
        sync_threads();
        if lane_id() == 0 {
            distances.set(warp_id(), self.distance);
            seconds.set(warp_id(), self.second);
            labels.set(warp_id(), self.label);
        }
        sync_threads();
        let mut all = Nearest::NONE;
        let mut warp = 0;
        while warp < UPDATE_WARPS {
            all.take(distances.get(warp), labels.get(warp), seconds.get(warp));
            warp += 1;
        }
        all
    }
}

/// The centroids of the problem that a row, counted over all problems, belongs to.
#[inline(always)]
unsafe fn of_problem<T>(centroids: *const T, row: u32, shape: Shape) -> *const T {
    centroids.add((div(row, shape.n) as u64 * shape.k as u64 * shape.d as u64) as usize)
}

/// The label of a point, counted where it is another one.
#[inline(always)]
pub(super) unsafe fn store(labels: *mut u32, changed: *mut u32, row: u32, label: u32, shape: Shape) {
    let place = labels.add(row as usize);
    if *place != label {
        *place = label;
        let batch = div(row, shape.n);
        let entry = batch * shape.statistics() + (row - batch * shape.n) / STATISTICS_POINTS;
        atomic::fetch_add_u32(changed.add(entry as usize), 1);
    }
}
