//! What k-means|| draws in a round, and the weights of all that it drew.
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::thread::*;

/// Rows, each drawn by itself if its number under 1 is below its distance times the share: into `rows` in any order, and how
/// many into `count`, which is 0 before.
///
/// # Safety
/// Pointers are valid for `params.n` rows; a block has [`UPDATE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn sample(nearest: *const f64, rows: *mut u32, count: *mut u32, params: SampleParams) {
    let mut row = block_idx_x() as u64 * UPDATE_THREADS as u64 + thread_idx_x() as u64;
    while row < params.n as u64 {
        let number = mix(params.counter.wrapping_add((row + 1).wrapping_mul(RANDOM_STEP)));
        if unit(number) < *nearest.add(row as usize) * params.share {
            *rows.add(atomic::fetch_add_u32(count, 1) as usize) = row as u32;
        }
        row += grid_dim_x() as u64 * UPDATE_THREADS as u64;
    }
}

/// How many points each candidate is the nearest of, added to `counts`.
///
/// # Safety
/// As [`sample`]'s; owners have places in `counts`.
#[inline(always)]
pub(super) unsafe fn count_owners(owners: *const u32, counts: *mut u32, params: OwnersParams) {
    let mut row = block_idx_x() as u64 * UPDATE_THREADS as u64 + thread_idx_x() as u64;
    while row < params.n as u64 {
        atomic::fetch_add_u32(counts.add(*owners.add(row as usize) as usize), 1);
        row += grid_dim_x() as u64 * UPDATE_THREADS as u64;
    }
}
