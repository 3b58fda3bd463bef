//! What says how near a centroid is, for [`settle`](super::settle): the less, the nearer.
use super::assign::{distance_f64, product_f64};
use cuda_std::float::{Scalar, fma};
use cuda_std::unroll;
use cuda_std::warp::*;

/// Of a pair of a point and a centroid.
pub(super) trait Rank {
    /// Whether terms may cancel, so that a sum's error is relative to their size only.
    const CANCELS: bool;
    /// Adds the term of a feature to `sum`, in f32.
    fn add(sum: f32, x: f32, c: f32) -> f32;
    /// What a sum in f32 ranks; less than all where it is not a number.
    fn of_sum(sum: f32) -> f32;
    /// The definition: f64, the features in order.
    unsafe fn in_order<T: Scalar>(x: *const T, c: *const T, d: u32) -> f64;
    /// Two centroids' ranks and the size of both their terms, in each of `LANES` lanes that have a point: f64, a lane a feature.
    unsafe fn by_lanes<T: Scalar, const LANES: u32>(
        x: *const T,
        a: *const T,
        b: *const T,
        d: u32,
    ) -> [f64; 3];
}

/// `‖x − c‖²`.
pub(super) struct Distance;

impl Rank for Distance {
    const CANCELS: bool = false;
    #[inline(always)]
    fn add(sum: f32, x: f32, c: f32) -> f32 {
        let difference = x - c;
        fma(difference, difference, sum)
    }
    #[inline(always)]
    fn of_sum(sum: f32) -> f32 {
        sum
    }
    #[inline(always)]
    unsafe fn in_order<T: Scalar>(x: *const T, c: *const T, d: u32) -> f64 {
        distance_f64(x, c, d)
    }
    #[inline(always)]
    unsafe fn by_lanes<T: Scalar, const LANES: u32>(
        x: *const T,
        a: *const T,
        b: *const T,
        d: u32,
    ) -> [f64; 3] {
        let (mut to_a, mut to_b) = (0.0, 0.0);
        for_terms::<T, LANES>(x, a, b, d, |x, a, b| {
            let difference = x - a;
            to_a += difference * difference;
            let difference = x - b;
            to_b += difference * difference;
        });
        let (to_a, to_b) = (lanes_sum_f64::<LANES>(to_a), lanes_sum_f64::<LANES>(to_b));
        [to_a, to_b, to_a + to_b]
    }
}

/// `−x·c`.
pub(super) struct Product;

impl Rank for Product {
    const CANCELS: bool = true;
    #[inline(always)]
    fn add(sum: f32, x: f32, c: f32) -> f32 {
        fma(x, c, sum)
    }
    #[inline(always)]
    fn of_sum(sum: f32) -> f32 {
        if sum.is_nan() { f32::NEG_INFINITY } else { -sum }
    }
    #[inline(always)]
    unsafe fn in_order<T: Scalar>(x: *const T, c: *const T, d: u32) -> f64 {
        -product_f64(x, c, d)
    }
    #[inline(always)]
    unsafe fn by_lanes<T: Scalar, const LANES: u32>(
        x: *const T,
        a: *const T,
        b: *const T,
        d: u32,
    ) -> [f64; 3] {
        let [mut by_a, mut by_b, mut size] = [0.0; 3];
        for_terms::<T, LANES>(x, a, b, d, |x, a, b| {
            let (of_a, of_b) = (x * a, x * b);
            by_a -= of_a;
            by_b -= of_b;
            size += (if of_a < 0.0 { -of_a } else { of_a }) + (if of_b < 0.0 { -of_b } else { of_b });
        });
        [by_a, by_b, size].map(|sum| lanes_sum_f64::<LANES>(sum))
    }
}

/// The values of each feature that this lane has, of three rows.
#[inline(always)]
unsafe fn for_terms<T: Scalar, const LANES: u32>(
    x: *const T,
    a: *const T,
    b: *const T,
    d: u32,
    mut take: impl FnMut(f64, f64, f64),
) {
    // Several steps' loads at a time; what lies past the end is nothing.
    let steps = const { if LANES == WARP_SIZE { 4 } else { 8 } };
    let mut feature = lane_id() % LANES;
    while feature < d {
        let mut values = [[0.0f32; 3]; 8];
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
            let at = (feature + I as u32 * LANES) as usize;
            if I < steps && at < d as usize {
                values[I] = [(*x.add(at)).to_f32(), (*a.add(at)).to_f32(), (*b.add(at)).to_f32()];
            }
        });
        unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
            if I < steps {
                take(values[I][0] as f64, values[I][1] as f64, values[I][2] as f64);
            }
        });
        feature += steps as u32 * LANES;
    }
}
