//! Points whose centroids several teams share out among them: what each has found, and the kernels that put it together.
//!
//! ```text
//! unit      a tile of points × a span of the centroids     what is found of each point, by itself
//! merge     a thread a point                               what its units have found, in their order
//! ```
//! A point's candidates are those within the bound of its best score, whoever has found that: labels are as if one team had
//! gone through all centroids, but for points that are settled in f64 with more candidates than they need.
use super::bound::share_of_bound;
use super::nearest::{Again, List, Nearest, Results, Row};
use crate::spec::*;
use cuda_std::ptr::load_v4;
#[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
use cuda_std::ptr::store_v4;
use cuda_std::thread::*;
use cuda_std::unroll;
use cuda_std::warp::*;

/// What units have found of the points of their items, `[unit][point]`: score, column, other candidate, bound.
#[derive(Clone, Copy)]
pub(super) struct Found(pub(super) *mut u32);

impl Found {
    #[inline(always)]
    unsafe fn at(self, units: Units, unit: u32, point: u32) -> *mut u32 {
        self.0.add(((unit - units.whole) * WIDE_TILE_POINTS + point) as usize * 4)
    }

    /// Keeps what a unit has found of a point of its item.
    #[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
    #[inline(always)]
    pub(super) unsafe fn put(self, units: Units, unit: u32, point: u32, found: Nearest, bound: f32) {
        let words = [found.score.to_bits(), found.label, found.other, bound.to_bits()];
        store_v4(self.at(units, unit, point), words);
    }

    /// What all units have found of a point of item `units.whole + further`.
    #[inline(always)]
    unsafe fn of_all(self, units: Units, further: u32, point: u32) -> Nearest {
        let first = units.whole + further * units.spans;
        let mut all = Nearest::NONE;
        let mut span = 0;
        while span < units.spans {
            // Several on their way at once.
            let mut words = [[0; 4]; 8];
            unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                if span + (I as u32) < units.spans {
                    words[I] = load_v4(self.at(units, first + span + I as u32, point));
                }
            });
            unroll!(I in [0, 1, 2, 3, 4, 5, 6, 7] => {
                if span + (I as u32) < units.spans {
                    let [score, label, other, bound] = words[I];
                    let found = Nearest { score: f32::from_bits(score), label, other };
                    if span + I as u32 == 0 {
                        all = found;
                    } else {
                        all.merge(found, share_of_bound(1.0, f32::from_bits(bound)));
                    }
                }
            });
            span += 8;
        }
        all
    }
}

/// Labels of the points whose centroids were shared out, as the assignment stores those of the others: a block an item.
///
/// # Safety
/// Pointers are valid for the shapes in `params`; `found` is what the assignment leaves; `order` is that of the packing, or null;
/// `extents` may be null, for points that were not rounded; a block has [`UPDATE_THREADS`] threads.
#[inline(always)]
pub(super) unsafe fn merge_spans(
    found: *mut u32,
    order: *const u32,
    norms: *const f32,
    extents: *const u32,
    states: *const LoopState,
    labels: *mut u32,
    cost: *mut f64,
    changed: *mut u32,
    list_counts: *mut u32,
    list_rows: *mut u32,
    list_first: *mut u32,
    list_second: *mut u32,
    params: HopperParams,
) {
    let list = List { counts: list_counts, rows: list_rows, first: list_first, second: list_second };
    let results = Results { order, extents, labels, cost, changed, list, is_exact: params.is_exact };
    let (shape, me) = (params.shape, thread_idx_x());
    let mut item = params.units.whole + block_idx_x();
    while item < params.items() {
        let batch = div(item, params.tiles);
        // Whole warps: a tile is made of theirs.
        if (*states.add(batch as usize)).done == 0 && me < params.points {
            let row = (item - batch * params.tiles) * params.points + me;
            let inside = if row < shape.n { row } else { shape.n - 1 };
            let place = (batch * shape.n + inside) as usize;
            let known =
                Row { place, is_inside: row < shape.n, norm: *norms.add(place), label: *labels.add(place) };
            let found = Found(found).of_all(params.units, item - params.units.whole, me);
            results.store(batch, row - lane_id(), known, found, shape);
        }
        item += grid_dim_x();
    }
}

/// The same of points that are assigned again.
///
/// # Safety
/// As [`merge_spans`]; `found` is what the second assignment leaves, and `rows` what it took.
#[inline(always)]
pub(super) unsafe fn merge_again<C: HopperOperand>(
    found: *mut u32,
    order: *const u32,
    rows: *const u32,
    states: *const LoopState,
    labels: *mut u32,
    changed: *mut u32,
    list_counts: *mut u32,
    list_rows: *mut u32,
    list_first: *mut u32,
    list_second: *mut u32,
    many_rows: *mut u32,
    params: RefineParams,
) {
    let list = List { counts: list_counts, rows: list_rows, first: list_first, second: list_second };
    let (extents, cost) = (core::ptr::null(), core::ptr::null_mut());
    let results = Results { order, extents, labels, cost, changed, list, is_exact: 1 };
    let again = Again { rows, many_rows, shape: params.shape };
    if (*states).done != 0 {
        return;
    }
    let products = params.products(*list_counts.add(LIST_MANY), C::REFINES);
    let mut item = products.units.whole + block_idx_x();
    while item < products.items() {
        let entry = item * WIDE_TILE_POINTS + thread_idx_x();
        if entry < products.shape.n {
            let found = Found(found).of_all(products.units, item - products.units.whole, thread_idx_x());
            again.store(results, entry as usize, found);
        }
        item += grid_dim_x();
    }
}
