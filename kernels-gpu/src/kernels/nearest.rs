//! What the tensor-core assignments find of a point, and what becomes of it: its label where that is sure, and else a place
//! in the list that `settle` goes through.
use super::pack_points::tensor_scale;
use super::settle;
use crate::spec::*;
use cuda_std::atomic;
use cuda_std::warp::*;

/// A point's best centroid so far, in one thread's columns.
#[derive(Clone, Copy)]
pub(super) struct Nearest {
    pub(super) score: f32,
    pub(super) label: u32,
    /// Another centroid within the bound, [`NO_CANDIDATE`] or [`MANY_CANDIDATES`].
    pub(super) other: u32,
}

impl Nearest {
    pub(super) const NONE: Nearest =
        Nearest { score: f32::NEG_INFINITY, label: NO_CANDIDATE, other: NO_CANDIDATE };

    /// Takes the best score of a tile; `found` counts the centroids within `bound` of it in its upper half, and
    /// adds up their columns in its lower.
    #[inline(always)]
    pub(super) fn fold(&mut self, score: f32, found: u32, first_column: u32, bound: f32) {
        let one = found >> 16 == 1;
        let label = first_column + (found & 0xffff);
        let near = score >= self.score - bound;
        let clear = score > self.score + bound;
        let known = one && self.other == NO_CANDIDATE;
        let when_clear = if one { NO_CANDIDATE } else { MANY_CANDIDATES };
        let when_near = if known { label } else { MANY_CANDIDATES };
        self.other = if clear {
            when_clear
        } else if near {
            when_near
        } else {
            self.other
        };
        self.label = if clear { label } else { self.label };
        self.score = if score > self.score { score } else { self.score };
    }

    /// Takes another lane's result.
    #[inline(always)]
    pub(super) fn merge(&mut self, with: Nearest, bound: f32) {
        let near = with.score >= self.score - bound;
        let clear = with.score > self.score + bound;
        let both_known = self.other == NO_CANDIDATE && with.other == NO_CANDIDATE;
        let when_near = if both_known { with.label } else { MANY_CANDIDATES };
        self.other = if clear {
            with.other
        } else if near {
            when_near
        } else {
            self.other
        };
        self.label = if clear { with.label } else { self.label };
        self.score = if with.score > self.score { with.score } else { self.score };
    }
}

/// What is known of a lane's point.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Its place among the points of all problems.
    pub(super) place: usize,
    /// Whether it is a point, and not the last one again.
    pub(super) is_inside: bool,
    /// Its squared norm.
    pub(super) norm: f32,
    /// The label it had.
    pub(super) label: u32,
}

/// Where points that are not sure are listed.
#[derive(Clone, Copy)]
pub(super) struct List {
    pub(super) counts: *mut u32,
    pub(super) rows: *mut u32,
    pub(super) first: *mut u32,
    pub(super) second: *mut u32,
}

/// What points are assigned again, and where those go that are still unsure: as in the list, from the back.
#[derive(Clone, Copy)]
pub(super) struct Again {
    pub(super) rows: *const u32,
    pub(super) many_rows: *mut u32,
    /// The problem that the rows are of.
    pub(super) shape: Shape,
}

impl Again {
    /// Points are assigned once.
    #[cfg(any(all(target_arch = "nvptx64", target_feature = "sm_90a"), feature = "simt"))]
    #[inline(always)]
    pub(super) fn none(shape: Shape) -> Self {
        Again { rows: core::ptr::null(), many_rows: core::ptr::null_mut(), shape }
    }

    /// Stores the label of a point that is assigned again, if it is sure, and else lists it.
    #[inline(always)]
    pub(super) unsafe fn store(self, results: Results, entry: usize, found: Nearest) {
        let column = if found.other == MANY_CANDIDATES { NO_CANDIDATE } else { found.label };
        let (label, other) =
            (results.centroid(column, 0, self.shape), results.centroid(found.other, 0, self.shape));
        let (list, row) = (results.list, *self.rows.add(entry));
        if label == NO_CANDIDATE || other == MANY_CANDIDATES {
            let entry = atomic::fetch_add_u32(list.counts.add(LIST_LEFT), 1);
            *self.many_rows.add((self.shape.n - 1 - entry) as usize) = row;
        } else if other != NO_CANDIDATE {
            let entry = atomic::fetch_add_u32(list.counts.add(LIST_TWO), 1) as usize;
            *list.rows.add(entry) = row;
            *list.first.add(entry) = label;
            *list.second.add(entry) = other;
        } else {
            settle::store(results.labels, results.changed, row, label, self.shape);
        }
    }
}

/// Where results go, and what makes them: which centroid a column is, and the scale of points.
#[derive(Clone, Copy)]
pub(super) struct Results {
    pub(super) order: *const u32,
    pub(super) extents: *const u32,
    pub(super) labels: *mut u32,
    pub(super) cost: *mut f64,
    pub(super) changed: *mut u32,
    pub(super) list: List,
    /// 0 where the best score counts as it is, and only equal ones are listed.
    pub(super) is_exact: u32,
}

impl Results {
    /// Stores the labels of a warp's points that are sure, a lane each, lists the others, and writes their statistics.
    /// `first` is the warp's first row in its problem. The labels in `found` are columns.
    #[inline(always)]
    pub(super) unsafe fn store(self, batch: u32, first: u32, row: Row, found: Nearest, shape: Shape) {
        // Of rows past the last, there are no statistics.
        if first >= shape.n {
            return;
        }
        // Where several are within the bound, the column is the sum of theirs, and no place in the order.
        let column = if found.other == MANY_CANDIDATES { NO_CANDIDATE } else { found.label };
        let label = self.centroid(column, batch, shape);
        let mut other = self.centroid(found.other, batch, shape);
        if self.is_exact == 0 && other != NO_CANDIDATE {
            // Of all centroids the nearest: which of them are the candidates, the order of the columns may decide.
            other = MANY_CANDIDATES;
        }
        // No label at all: every score overflowed, and any centroid may be the nearest.
        let is_known = label != NO_CANDIDATE && other != MANY_CANDIDATES;
        let differs = row.is_inside && is_known && other == NO_CANDIDATE && label != row.label;
        if differs {
            *self.labels.add(row.place) = label;
        }
        let list = self.list;
        if row.is_inside && !is_known {
            let entry = atomic::fetch_add_u32(list.counts.add(LIST_MANY), 1);
            *list.rows.add((shape.batch * shape.n - 1 - entry) as usize) = row.place as u32;
        } else if row.is_inside && other != NO_CANDIDATE {
            let entry = atomic::fetch_add_u32(list.counts.add(LIST_TWO), 1) as usize;
            *list.rows.add(entry) = row.place as u32;
            *list.first.add(entry) = label;
            *list.second.add(entry) = other;
        }
        let cost = warp_sum_f64(if row.is_inside { (row.norm - 2.0 * found.score) as f64 } else { 0.0 });
        let changed = warp_vote_ballot(FULL_MASK, differs).count_ones();
        if lane_id() == 0 {
            let unscale = if self.extents.is_null() {
                1.0
            } else {
                // A power of two, whose inverse is a matter of its exponent.
                const ONE_SQUARED: u64 = 2 * 1.0f64.to_bits();
                let scale = tensor_scale(*self.extents.add(batch as usize));
                f64::from_bits(ONE_SQUARED - scale.to_bits())
            };
            let entry = (batch * shape.statistics() + first / STATISTICS_POINTS) as usize;
            *self.cost.add(entry) = cost * unscale * unscale;
            *self.changed.add(entry) = changed;
        }
    }

    /// The centroid in a column, or the word that there is none or are many.
    #[inline(always)]
    pub(super) unsafe fn centroid(self, column: u32, batch: u32, shape: Shape) -> u32 {
        if self.order.is_null() || column >= MANY_CANDIDATES {
            column
        } else {
            *self.order.add((batch as u64 * shape.k as u64 + column as u64) as usize)
        }
    }
}
