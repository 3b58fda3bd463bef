//! Heads of stretches that lie in one cluster, added up in advance: of a giant cluster `finalise` would have more rows than one
//! block reads in good time.
//!
//! ```text
//! stretches             … 31 | 32 33 … 63 | 64 … 95 | 96 …
//! clusters of heads     … a    a  a  … a    a  … b    b
//! rows afterwards       … 31 | 32         | 64 … 95 | 96 …     row 32 is the sum of 32 to 63
//! ```
use crate::spec::*;
use cuda_std::ptr;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

/// Rows on their way at once.
const IN_FLIGHT: u32 = 8;

/// Puts the sum of [`FOLD`] rows of heads, of stretches of a block of so many, in the place of the first, where all belong
/// to one cluster.
///
/// # Safety
/// Pointers are valid for the shapes in `params`, `heads` aligned to 16 bytes; a block has [`UPDATE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn fold_heads(
    labels: *const u32,
    sorted: *const u32,
    starts: *const u32,
    states: *const LoopState,
    heads: *mut f32,
    params: FoldParams,
) {
    const { assert!(FOLD.is_multiple_of(IN_FLIGHT)) };
    let (shape, panels) = (params.shape, params.panels);
    let mut item = block_idx_x() as u64 * UPDATE_WARPS as u64 + warp_id() as u64;
    while item < params.items() {
        let fold_of_all = div_u64(item, params.chunks() as u64);
        let chunk = (item - fold_of_all * params.chunks() as u64) as u32;
        let group = div_u64(fold_of_all, params.folds() as u64) as u32;
        let stretch = (fold_of_all - group as u64 * params.folds() as u64) as u32 * FOLD;
        let batch = div(group, panels.count);
        let rows = batch as u64 * shape.n as u64;
        let panel_first = (group - batch * panels.count) * panels.len;
        let rest = shape.n - panel_first;
        let len = if rest < panels.len { rest } else { panels.len };
        // Where the first stretch begins, and the last.
        let (first, last) = (stretch * panels.stretch(), (stretch + FOLD - 1) * panels.stretch());
        if last < len && (*states.add(batch as usize)).done == 0 {
            let row = *sorted.add((rows + (panel_first + first) as u64) as usize);
            let cluster = *labels.add((rows + row as u64) as usize);
            let border = starts.add((group as u64 * (shape.k as u64 + 1) + cluster as u64) as usize);
            let value = chunk * FINALISE_FEATURES + lane_id() * FINALISE_VALUES;
            if *border < first && *border.add(1) > last && value < params.pitch {
                let stretch = group as u64 * panels.stretches() as u64 + stretch as u64;
                let head = heads.add((stretch * params.pitch as u64 + value as u64) as usize);
                let mut total = [0.0f64; FINALISE_VALUES as usize];
                let mut at = 0;
                while at < FOLD {
                    let mut values = [[0.0f32; FINALISE_VALUES as usize]; IN_FLIGHT as usize];
                    unroll!(R in [0, 1, 2, 3, 4, 5, 6, 7] => {
                        let row = head.add(((at + R as u32) * params.pitch) as usize);
                        values[R] = ptr::read_v4(row.cast_const().cast()).map(f32::from_bits);
                    });
                    unroll!(R in [0, 1, 2, 3, 4, 5, 6, 7] => {
                        unroll!(V in [0, 1, 2, 3] => { total[V] += values[R][V] as f64; });
                    });
                    at += IN_FLIGHT;
                }
                ptr::store_v4(head.cast(), total.map(|value| (value as f32).to_bits()));
            }
        }
        item += grid_dim_x() as u64 * UPDATE_WARPS as u64;
    }
}
