//! The portable FlashAssign: distances and their argmin in one pass, any GPU, any shape.
//!
//! ```text
//! label(i) = argmin_k Σ_d (x_id − c_kd)²          the N×K matrix never exists
//!
//!            64 centroids ─>  tile by tile over k
//!          ┌───────────────┐
//! 64       │ 16×16 threads │  each 4×4 distances in registers, 32 features a stage
//! points   │               │  then folded into best, index and second best of its 4 points
//!          └───────────────┘
//! ```
//! The difference form costs two instructions a feature where the expanded form costs one, and has no
//! cancellation: a computed distance is within a relative `(d + 3)·2⁻²⁴` of the true one whatever the
//! data's offset. So two distances further apart than twice that are in the right order, and only points
//! whose two nearest are closer are computed again, in f64. Cost: `3·n·k·d` flops and
//! `(n/64)·k·d·4` bytes from L2; bound by arithmetic.
use crate::spec::*;
use cuda_std::float::{Scalar, fma, max};
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

const SHARED: AssignShared = AssignShared::new();
/// Points and centroids of a thread.
const PER_THREAD: usize = 4;

/// Best, its index, and second best.
#[derive(Clone, Copy)]
struct Nearest {
    distance: f32,
    label: u32,
    second: f32,
}

impl Nearest {
    const NONE: Nearest = Nearest { distance: f32::INFINITY, label: u32::MAX, second: f32::INFINITY };

    /// Takes a centroid of higher index than all before: ties stay with the lower index.
    #[inline(always)]
    fn fold(&mut self, distance: f32, label: u32) {
        let better = distance < self.distance;
        self.second = min(self.second, if better { self.distance } else { distance });
        self.label = if better { label } else { self.label };
        self.distance = if better { distance } else { self.distance };
    }

    /// Takes another lane's result, of centroids in any order.
    #[inline(always)]
    fn merge(&mut self, other: Nearest) {
        let better =
            other.distance < self.distance || (other.distance == self.distance && other.label < self.label);
        let worse = if better { self.distance } else { other.distance };
        self.second = min(min(self.second, other.second), worse);
        self.label = if better { other.label } else { self.label };
        self.distance = if better { other.distance } else { self.distance };
    }
}

#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

/// Labels, each tile's cost and its count of changed labels. For products, what stands for a distance is `−x·c`.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; a block has [`ASSIGN_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn assign<T: Scalar, const PRODUCTS: bool>(
    points: *const T,
    centroids: *const T,
    states: *const LoopState,
    labels: *mut u32,
    tile_cost: *mut f64,
    tile_changed: *mut u32,
    params: AssignParams,
) {
    let shape = params.shape;
    let tiles = params.tiles();
    let items = params.blocks();
    let mut item = block_idx_x() as u64;
    while item < items {
        let batch = div_u64(item, tiles as u64);
        let first = (item - batch * tiles as u64) as u32 * ASSIGN_POINTS;
        if (*states.add(batch as usize)).done == 0 {
            let points = points.add((batch * shape.n as u64 * shape.pitch as u64) as usize);
            let centroids = centroids.add((batch * shape.k as u64 * shape.d as u64) as usize);
            let labels = labels.add((batch * shape.n as u64) as usize);
            nearest_of_tile::<T, PRODUCTS>(points, centroids, first, shape);
            settle_unsure::<T, PRODUCTS>(points, centroids, first, shape);
            store(labels, tile_cost.add(item as usize), tile_changed.add(item as usize), first, shape);
        }
        item += grid_dim_x() as u64;
    }
}

/// Leaves each point's nearest centroid, distance and doubt in shared memory.
#[inline(always)]
unsafe fn nearest_of_tile<T: Scalar, const PRODUCTS: bool>(
    points: *const T,
    centroids: *const T,
    first: u32,
    shape: Shape,
) {
    let column = thread_idx_x() % 16 * PER_THREAD as u32;
    let row = thread_idx_x() / 16 * PER_THREAD as u32;
    let mut nearest = [Nearest::NONE; PER_THREAD];
    // For products: each point's largest magnitude, and the most that the magnitudes of a centroid add up to.
    let mut reach = [0.0f32; PER_THREAD];
    let mut longest = 0.0f32;

    let mut first_centroid = 0;
    while first_centroid < shape.k {
        let mut lengths = [0.0f32; PER_THREAD];
        let mut distances = [[0.0f32; PER_THREAD]; PER_THREAD];
        let mut first_feature = 0;
        while first_feature < shape.d {
            sync_threads();
            load_stage(points, centroids, first, first_centroid, first_feature, shape);
            sync_threads();
            let mut feature = 0;
            while feature < ASSIGN_FEATURES {
                let x = SHARED.points.here().get4(feature * ASSIGN_POINTS + row);
                let c = SHARED.centroids.here().get4(feature * ASSIGN_CENTROIDS + column);
                unroll!(I in [0, 1, 2, 3] => {
                    unroll!(J in [0, 1, 2, 3] => {
                        if PRODUCTS {
                            distances[I][J] = fma(-x[I], c[J], distances[I][J]);
                        } else {
                            let difference = x[I] - c[J];
                            distances[I][J] = fma(difference, difference, distances[I][J]);
                        }
                    })
                });
                if PRODUCTS {
                    unroll!(I in [0, 1, 2, 3] => {
                        reach[I] = max(reach[I], magnitude(x[I]));
                        lengths[I] += magnitude(c[I]);
                    });
                }
                feature += 1;
            }
            first_feature += ASSIGN_FEATURES;
        }
        if PRODUCTS {
            unroll!(J in [0, 1, 2, 3] => { longest = max(longest, lengths[J]); });
        }
        unroll!(J in [0, 1, 2, 3] => {
            let label = first_centroid + column + J as u32;
            unroll!(I in [0, 1, 2, 3] => {
                // Padding is infinitely far; so is an overflowed distance, which `unsure` then settles.
                let distance = if label < shape.k { distances[I][J] } else { f32::INFINITY };
                nearest[I].fold(distance, label);
            })
        });
        first_centroid += ASSIGN_CENTROIDS;
    }

    if PRODUCTS {
        unroll!(O in [1, 2, 4, 8] => { longest = max(longest, warp_shuffle_xor(FULL_MASK, longest, O as u32)); });
    }
    unroll!(I in [0, 1, 2, 3] => {
        // The 16 lanes of a point are half a warp.
        let mut mine = nearest[I];
        let mut offset = 8;
        while offset > 0 {
            mine.merge(Nearest {
                distance: warp_shuffle_xor(FULL_MASK, mine.distance, offset),
                label: warp_shuffle_xor(FULL_MASK, mine.label, offset),
                second: warp_shuffle_xor(FULL_MASK, mine.second, offset),
            });
            offset >>= 1;
        }
        if column == 0 {
            let point = row + I as u32;
            SHARED.labels.here().set(point, mine.label);
            SHARED.distances.here().set(point, mine.distance);
            let unsure = if PRODUCTS {
                is_unsure_product(mine, reach[I] * longest, shape)
            } else {
                is_unsure(mine, shape)
            };
            SHARED.unsure.here().set(point, unsure as u32);
        }
    });
    sync_threads();
}

/// One stage of features of both tiles, transposed so that a thread reads four neighbours at once.
#[inline(always)]
unsafe fn load_stage<T: Scalar>(
    points: *const T,
    centroids: *const T,
    first: u32,
    first_centroid: u32,
    first_feature: u32,
    shape: Shape,
) {
    // Neighbouring lanes take neighbouring rows: shared stores meet no bank twice, and a row's line
    // stays in L1 for the few loads that read it.
    const FEATURES_AT_ONCE: u32 = ASSIGN_THREADS / ASSIGN_POINTS;
    let row = thread_idx_x() % ASSIGN_POINTS;
    let mut feature = thread_idx_x() / ASSIGN_POINTS;
    let point = first + row;
    let centroid = first_centroid + row;
    let x = points.add((point as u64 * shape.pitch as u64 + first_feature as u64) as usize);
    let c = centroids.add((centroid as u64 * shape.d as u64 + first_feature as u64) as usize);
    while feature < ASSIGN_FEATURES {
        let inside = first_feature + feature < shape.d;
        let value = if inside && point < shape.n { (*x.add(feature as usize)).to_f32() } else { 0.0 };
        SHARED.points.here().set(feature * ASSIGN_POINTS + row, value);
        let value = if inside && centroid < shape.k { (*c.add(feature as usize)).to_f32() } else { 0.0 };
        SHARED.centroids.here().set(feature * ASSIGN_CENTROIDS + row, value);
        feature += FEATURES_AT_ONCE;
    }
}

/// Whether rounding may have put the wrong centroid first.
///
/// With `u = 2⁻²⁴`: a difference is right to `u`, its square to `2u`, and `d` fused additions add `d·u`,
/// so each distance is right to `γ = (d + 3)·u` relative, and two are in order if they differ by more than
/// `2γ` of the larger, rounded up. Below 1e-35 squares may have underflowed; written so that infinities
/// and NaN are unsure.
#[inline(always)]
fn is_unsure(nearest: Nearest, shape: Shape) -> bool {
    let relative = (shape.d + 4) as f32 * (2.2 / 16_777_216.0);
    let gap = nearest.second - nearest.distance;
    let sure = gap > fma(nearest.second, relative, 1e-35);
    // With one centroid there is nothing to be unsure of, but a distance that overflowed has not won yet.
    !sure && (shape.k > 1 || nearest.label >= shape.k)
}

/// [`is_unsure`] of products, of which none has terms that add up to more than `size`, whatever their signs: `d` fused
/// additions cost each sum `d·u` of that. Where a term overflows, `size` does, too.
#[inline(always)]
fn is_unsure_product(nearest: Nearest, size: f32, shape: Shape) -> bool {
    let relative = (shape.d + 4) as f32 * (2.2 / 16_777_216.0);
    let sure = nearest.second - nearest.distance > fma(size, relative, 1e-35);
    !sure && (shape.k > 1 || nearest.label >= shape.k)
}

#[inline(always)]
fn magnitude(value: f32) -> f32 {
    if value < 0.0 { -value } else { value }
}

/// Computes the unsure points again in f64, each by one warp, a centroid a lane, features in order: the
/// definition, so that every backend gives the same label.
#[inline(always)]
unsafe fn settle_unsure<T: Scalar, const PRODUCTS: bool>(
    points: *const T,
    centroids: *const T,
    first: u32,
    shape: Shape,
) {
    let mut row = warp_id();
    while row < ASSIGN_POINTS {
        if first + row < shape.n && SHARED.unsure.here().get(row) != 0 {
            let x = points.add(((first + row) as u64 * shape.pitch as u64) as usize);
            let mut best = f64::INFINITY;
            let mut label = u32::MAX;
            let mut centroid = lane_id();
            while centroid < shape.k {
                let c = centroids.add((centroid as u64 * shape.d as u64) as usize);
                let distance =
                    if PRODUCTS { -product_f64(x, c, shape.d) } else { distance_f64(x, c, shape.d) };
                if distance < best {
                    best = distance;
                    label = centroid;
                }
                centroid += WARP_SIZE;
            }
            let mut offset = 16;
            while offset > 0 {
                let other = warp_shuffle_xor(FULL_MASK, best, offset);
                let other_label = warp_shuffle_xor(FULL_MASK, label, offset);
                let better = other < best || (other == best && other_label < label);
                best = if better { other } else { best };
                label = if better { other_label } else { label };
                offset >>= 1;
            }
            if lane_id() == 0 {
                SHARED.labels.here().set(row, label);
                SHARED.distances.here().set(row, best as f32);
            }
        }
        row += ASSIGN_THREADS / WARP_SIZE;
    }
    sync_threads();
}

/// `Σ (x − c)²` in f64, in the order of the features.
#[inline(always)]
pub(super) unsafe fn distance_f64<T: Scalar>(x: *const T, c: *const T, d: u32) -> f64 {
    sum_in_order(x, c, d, |x, c| (x - c) * (x - c))
}

/// `Σ x·c` in f64, in the order of the features.
#[inline(always)]
pub(super) unsafe fn product_f64<T: Scalar>(x: *const T, c: *const T, d: u32) -> f64 {
    sum_in_order(x, c, d, |x, c| x * c)
}

/// The sum of a term that is 0 of two zeros.
#[inline(always)]
unsafe fn sum_in_order<T: Scalar>(x: *const T, c: *const T, d: u32, term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut sum = 0.0;
    let mut feature = 0;
    while feature < d as usize {
        // Eight features' loads at a time; what lies past the end is nothing, and adds nothing.
        let mut values = [[0.0f32; 2]; 8];
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if feature + I < d as usize {
                values[I] = [(*x.add(feature + I)).to_f32(), (*c.add(feature + I)).to_f32()];
            }
        });
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => { sum += term(values[I][0] as f64, values[I][1] as f64); });
        feature += 8;
    }
    sum
}

/// Writes the tile's labels, cost and changes: the first two warps hold a point a lane.
#[inline(always)]
unsafe fn store(labels: *mut u32, tile_cost: *mut f64, tile_changed: *mut u32, first: u32, shape: Shape) {
    let row = thread_idx_x();
    if warp_id() == 0 {
        let mut cost = 0.0;
        let mut changed = 0;
        let mut half = 0;
        while half < ASSIGN_POINTS / WARP_SIZE {
            let row = half * WARP_SIZE + row;
            let inside = first + row < shape.n;
            let label = SHARED.labels.here().get(row);
            let mut differs = false;
            if inside {
                let place = labels.add((first + row) as usize);
                differs = *place != label;
                *place = label;
                cost += SHARED.distances.here().get(row) as f64;
            }
            changed += warp_vote_ballot(FULL_MASK, differs).count_ones();
            half += 1;
        }
        let cost = warp_sum_f64(cost);
        if row == 0 {
            *tile_cost = cost;
            *tile_changed = changed;
        }
    }
    sync_threads();
}
