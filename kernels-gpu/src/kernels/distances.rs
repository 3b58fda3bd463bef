//! Distances for first centroids, in f64 with the additions of the CPU's, so that the same rows are chosen.
use crate::spec::*;
use cuda_std::float::Scalar;
use cuda_std::shared::Shared;
use cuda_std::thread::*;
use cuda_std::unroll;

const LANES: u32 = DISTANCE_LANES;

/// The points of one problem, or of all.
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
