//! Lloyd's iterations over points that come a chunk at a time, whatever computes and wherever the points are.
use crate::backend::LloydOptions;
use crate::element::{Element, Float};
use crate::error::{Error, Result};
use crate::model::{BatchSummary, IterationStats};
use crate::observer::{IterationEnd, Progress, Watch};
use crate::relocate::{Donor, Search, relocate};
use ndarray::ArrayView2;
use rayon::prelude::*;
use std::ops::{DerefMut, Range};

/// What a pass over the points is to find. Labels, changes and inertia always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// Whether sums and counts are, so that [`Worker::finish`] moves the centroids.
    pub(crate) sums: bool,
    /// Whether the variance is.
    pub(crate) variance: bool,
    /// Whether empty clusters are counted, in a pass with sums.
    pub(crate) empty: bool,
}

impl Pass {
    /// A pass that only labels.
    pub(crate) const LABELS: Pass = Pass { sums: false, variance: false, empty: false };
}

/// What a pass has found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    /// Inertia under the centroids that the pass began with, labels changed, and how far the centroids moved: 0 in
    /// a pass without sums.
    pub(crate) stats: IterationStats,
    /// Mean over features of their variance; 0 in a pass that was not to find it.
    pub(crate) mean_variance: f64,
    /// Clusters without points, or with points of weight 0 alone; 0 in a pass that was not to find them.
    pub(crate) empty: usize,
}

/// A backend's side of the fit of one problem of `n` points: passes over chunks of them.
///
/// A pass is [`begin`](Self::begin), then [`add`](Self::add) with chunk after chunk from row 0 to row `n`, then
/// [`finish`](Self::finish). The chunks are the same in every pass: a whole number of panels each, but for the last.
/// Results do not depend on how many panels a chunk has.
pub(crate) trait Worker<T: Element> {
    /// Memory for a chunk that a [`Source`](crate::Source) is read into by another thread, such as a page-locked one.
    type Buffer: DerefMut<Target = [T]> + Send;

    /// Whether inertia is the sum over points of `Σ (x − c)²` in f64 in every pass; otherwise it is in passes without
    /// sums alone.
    const EXACT_INERTIA: bool;

    /// A buffer for `rows` rows.
    fn buffer(&self, rows: usize) -> Result<Self::Buffer>;

    /// Whether the worker has kept these rows, a whole chunk, from the pass before, so that they need not be read.
    fn keeps(&self, _rows: &Range<usize>) -> bool {
        false
    }

    /// Begins a pass under `centroids`, `k · d` values, as [`Element::round_centroid`] rounds them.
    fn begin(&mut self, centroids: &[T::Centroid], pass: Pass) -> Result<()>;

    /// Takes the next chunk: the first `rows.len() · d` values of `points`, `None` where it [`keeps`](Self::keeps)
    /// them. Buffers that are no longer needed are put into `free`, at the latest the one before this one.
    fn add(
        &mut self,
        rows: Range<usize>,
        points: Option<Self::Buffer>,
        free: &mut Vec<Self::Buffer>,
    ) -> Result<()>;

    /// Ends the pass, with all buffers in `free`. Where it was for sums, puts the means, which are not rounded, in place of
    /// `centroids`, those that the pass began under; an empty cluster keeps its centroid. `together` adds up what other
    /// processes have found in their points.
    fn finish(
        &mut self,
        centroids: &mut [T::Centroid],
        together: &dyn Together,
        free: &mut Vec<Self::Buffer>,
    ) -> Result<Found>;

    /// Begins a pass, after one with sums and under the same centroids, that keeps the labels and looks for the `most`
    /// points that are farthest from their centroids. [`add`](Self::add) takes its chunks.
    fn begin_search(&mut self, most: usize) -> Result<()>;

    /// Ends that pass, with all buffers in `free`.
    fn end_search(&mut self, free: &mut Vec<Self::Buffer>) -> Result<Search>;

    /// The sums that the means of these clusters are made of, `d` values each, by the last pass with sums; `means` are
    /// those that [`finish`](Self::finish) gave.
    fn sums(&self, clusters: &[Donor], means: &[T::Centroid]) -> Result<Vec<f64>>;

    /// The labels of the last pass.
    fn into_labels(self) -> Result<Vec<u32>>;
}

/// Processes that fit one problem together, each with some of the points.
pub(crate) trait Together {
    /// Whether there are no others.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "GPUs then find the means themselves"))]
    fn is_alone(&self) -> bool;

    /// The largest `value` of all processes.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "of what GPUs round points in"))]
    fn largest(&self, value: f32) -> Result<f32>;

    /// Puts the sum over all processes, in a fixed order, in place of `values`: the same bits in each process.
    fn add_up(&self, values: &mut [f64]) -> Result<()>;
}

/// One process by itself.
pub(crate) struct Alone;

impl Together for Alone {
    fn is_alone(&self) -> bool {
        true
    }

    fn largest(&self, value: f32) -> Result<f32> {
        Ok(value)
    }

    fn add_up(&self, _values: &mut [f64]) -> Result<()> {
        Ok(())
    }
}

/// Where a fit stands between two iterations: enough to go on from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State<C> {
    /// The centroids, `k · d` values, not rounded.
    pub(crate) centroids: Vec<C>,
    /// Those of the iteration before, which the last labels are of.
    pub(crate) before: Vec<C>,
    pub(crate) mean_variance: f64,
    pub(crate) history: Vec<IterationStats>,
}

impl<C: Float> State<C> {
    /// Before the first iteration.
    pub(crate) fn new(centroids: Vec<C>) -> Self {
        State { before: centroids.clone(), centroids, mean_variance: 0.0, history: Vec::new() }
    }

    fn is_fixed_point(&self) -> bool {
        self.history.last().is_some_and(|last| last.changed == 0)
    }

    fn has_converged(&self, tol: f64) -> bool {
        let threshold = if tol == 0.0 { 0.0 } else { tol * self.mean_variance };
        self.is_fixed_point() || self.history.last().is_some_and(|last| last.shift <= threshold)
    }
}

/// What surrounds the iterations of one problem.
pub(crate) struct Around<'a, 'w, C: Float> {
    /// The problem, of a batch.
    pub(crate) problem: usize,
    pub(crate) watch: &'a Watch<'w, C>,
    pub(crate) together: &'a dyn Together,
    /// Called after each iteration, and with `true` when no other follows, also when the fit is stopped.
    pub(crate) keep: &'a mut dyn FnMut(&State<C>, bool) -> Result<()>,
}

/// What brings the chunks of a pass to a worker.
pub(crate) trait Feed<T: Element, W: Worker<T>> {
    /// Calls [`Worker::add`] with each chunk, [`in_order`], in buffers of `free` where there are some, and then `seen` with
    /// the rows that it has been given so far. Ends with the first error.
    fn pass(
        &mut self,
        worker: &mut W,
        seen: &dyn Fn(usize) -> Result<()>,
        free: &mut Vec<W::Buffer>,
    ) -> Result<()>;

    /// Reads some rows, in ascending order, into `into`: `rows.len() · d` values.
    fn read(&mut self, rows: &[usize], into: &mut [T]) -> Result<()>;
}

/// The chunks of `n` rows, and whether the worker has kept them, in the order in which it is to have them: those that it has
/// first, for it may put others in their place.
pub(crate) fn in_order<T: Element, W: Worker<T>>(
    worker: &W,
    n: usize,
    chunk_rows: usize,
) -> Vec<(Range<usize>, bool)> {
    let chunks = (0..n).step_by(chunk_rows).map(|row| row..n.min(row + chunk_rows));
    let (kept, others): (Vec<_>, Vec<_>) =
        chunks.map(|rows| (worker.keeps(&rows), rows)).partition(|(is_kept, _)| *is_kept);
    // Those behind before those in front, which stay longest.
    kept.into_iter().rev().chain(others).map(|(is_kept, rows)| (rows, is_kept)).collect()
}

/// Lloyd's iterations of one problem from `state` on: the centroids, rounded, and how it ended. The labels are the
/// worker's.
pub(crate) fn lloyd<T: Element, W: Worker<T>>(
    worker: &mut W,
    feed: &mut dyn Feed<T, W>,
    mut state: State<T::Centroid>,
    (n, d, options): (usize, usize, &LloydOptions),
    around: Around<'_, '_, T::Centroid>,
) -> Result<(Vec<T::Centroid>, BatchSummary)> {
    let Around { problem, watch, together, keep } = around;
    let mut free = Vec::new();
    let relocates = options.relocates();
    let done = |state: &State<_>| state.has_converged(options.tol) || state.history.len() >= options.max_iter;
    let mut pass = |state: &State<_>, under: &[T::Centroid], pass, moved: &mut [T::Centroid]| {
        worker.begin(under, pass)?;
        let seen = |rows| watch.progress(Progress { problem, iterations: state.history.len(), rows, n });
        feed.pass(worker, &seen, &mut free)?;
        let mut found = worker.finish(moved, together, &mut free)?;
        if found.empty > 0 && found.stats.changed > 0 {
            worker.begin_search(found.empty)?;
            feed.pass(worker, &seen, &mut free)?;
            let search = worker.end_search(&mut free)?;
            let shift = relocate(worker, feed, search, (d, options.metric), &state.centroids, moved)?;
            found.stats.shift = shift.unwrap_or(found.stats.shift);
        }
        Ok(found)
    };

    if !state.history.is_empty() && (state.is_fixed_point() || !done(&state)) {
        // Changes are counted from the labels that the iteration before left.
        pass(&state, &state.before, Pass::LABELS, &mut [])?;
    }
    let mut stopped = false;
    while !stopped && !done(&state) {
        let is_first = state.history.is_empty();
        let mut moved = state.centroids.clone();
        // Also after a checkpoint of a fit without a tolerance.
        let variance = options.tol > 0.0 && state.mean_variance == 0.0;
        let what = Pass { sums: true, variance, empty: relocates };
        let found = match pass(&state, &state.centroids, what, &mut moved) {
            Ok(found) => found,
            Err(error) => {
                if matches!(error, Error::Stopped { .. }) && !is_first {
                    keep(&state, true)?;
                }
                return Err(error);
            }
        };
        state.before = std::mem::replace(&mut state.centroids, moved);
        if variance {
            state.mean_variance = found.mean_variance;
        }
        state.history.push(found.stats);
        let seen = if watch.is_watched() { rounded::<T>(&state.centroids) } else { Vec::new() };
        if let Ok(centroids) = ArrayView2::from_shape((options.k, d), &seen) {
            let iterations = state.history.len();
            let end = IterationEnd { problem, iterations, stats: found.stats, centroids };
            stopped = watch.iteration(end).is_break();
        }
        keep(&state, stopped || done(&state))?;
    }
    let centroids = rounded::<T>(&state.centroids);
    let inertia = match state.history.last() {
        // Labels that did not change are those of the centroids already, which did not move then, unless they were
        // relocated in the iteration before.
        Some(last) if W::EXACT_INERTIA && last.changed == 0 && !(relocates && last.shift > 0.0) => {
            last.inertia
        }
        _ => pass(&state, &centroids, Pass::LABELS, &mut [])?.stats.inertia,
    };
    let converged = state.has_converged(options.tol);
    let summary = BatchSummary { inertia, n_iter: state.history.len(), converged, history: state.history };
    Ok((centroids, summary))
}

/// The centroids as distances are taken to them.
pub(crate) fn rounded<T: Element>(centroids: &[T::Centroid]) -> Vec<T::Centroid> {
    /// Fewer cost more to hand out than to round.
    const VALUES: usize = 1 << 14;
    centroids.par_iter().with_min_len(VALUES).map(|&c| T::round_centroid(c)).collect()
}

#[cfg(test)]
mod tests {
    use crate::{Backend, Error, FlashKMeans, Init, IterationEnd, Observer, Progress, Streaming};
    use ndarray::{Array2, Axis, s};
    use std::ops::ControlFlow;
    use std::path::Path;

    fn points() -> Array2<f64> {
        Array2::from_shape_fn((700, 2), |(row, column)| ((row * 131 + column * 57 + row * row) % 997) as f64)
    }

    fn fit(tol: f64, max_iter: usize) -> FlashKMeans {
        let first = Init::Given(points().slice(s![..12, ..]).to_owned().into_dyn());
        FlashKMeans::new(12).init(first).tol(tol).max_iter(max_iter).backend(Backend::Cpu)
    }

    /// The iterations that `tol` asks for.
    fn expected(tol: f64) -> usize {
        let points = points();
        let shifts = fit(0.0, 1000).fit(points.view()).unwrap().problems()[0].history.clone();
        let variance = points.var_axis(Axis(0), 0.0).mean().unwrap();
        1 + shifts.iter().position(|i| i.shift <= tol * variance).unwrap()
    }

    #[test]
    fn the_tolerance_is_a_share_of_the_variance() {
        for tol in [0.0, 1e-4, 1e-2, 0.1, 1.0] {
            let model = fit(tol, 1000).fit(points().view()).unwrap();
            assert_eq!((model.n_iter(), model.converged()), (expected(tol), true), "{tol}");
        }
        assert!(expected(1.0) < expected(1e-2));
    }

    /// Stops at the end of an iteration, or after the first chunk of the one behind it; copies the checkpoint at each end.
    struct Stops<'a> {
        after: usize,
        within: bool,
        checkpoint: &'a Path,
    }

    impl Observer<f64> for Stops<'_> {
        fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
            let stops = self.within && progress.iterations == self.after;
            if stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }

        fn iteration(&mut self, end: IterationEnd<'_, f64>) -> ControlFlow<()> {
            let copy = self.checkpoint.with_extension(end.iterations.to_string());
            // There may be none yet.
            let _ = std::fs::copy(self.checkpoint, copy);
            let stops = !self.within && end.iterations == self.after;
            if stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }

    #[test]
    fn checkpoints_are_written_when_they_are_due_and_when_a_fit_ends() {
        let (points, folder) = (points(), tempfile::tempdir().unwrap());
        let path = folder.path().join("fit.state");
        let run = |max_iter, after, within| {
            let mut stops = Stops { after, within, checkpoint: &path };
            let how = Streaming::new().checkpoint(&path, 2);
            fit(0.0, max_iter).fit_stream(&points, &how, &mut stops).map(|model| model.n_iter())
        };
        // A fit that has had its iterations does no more of them.
        let kept = |path: &Path| {
            let how = Streaming::new().resume(path);
            path.exists().then(|| fit(0.0, 1).fit_stream(&points, &how, &mut ()).unwrap().n_iter())
        };
        // Each is written after an iteration has been seen.
        let due = || [1, 2, 3, 4, 5].map(|at| kept(&path.with_extension(at.to_string())));

        assert_eq!(run(5, usize::MAX, false).unwrap(), 5);
        assert_eq!((due(), kept(&path)), ([None, None, Some(2), Some(2), Some(4)], Some(5)));
        assert_eq!(run(5, 3, false).unwrap(), 3);
        assert_eq!(kept(&path), Some(3));
        assert!(matches!(run(9, 5, true), Err(Error::Stopped { .. })));
        assert_eq!(kept(&path), Some(5));
    }

    #[test]
    fn a_fit_that_had_ended_is_resumed_to_its_end() {
        let (points, folder) = (points(), tempfile::tempdir().unwrap());
        let path = folder.path().join("fit.state");
        let go = |options: FlashKMeans, how: Streaming| options.fit_stream(&points, &how, &mut ()).unwrap();
        for (tol, max_iter) in [(0.0, 1000), (0.0, 3), (0.1, 1000)] {
            let whole = go(fit(tol, max_iter), Streaming::new().checkpoint(&path, 1));
            let again = go(fit(tol, max_iter), Streaming::new().resume(&path));
            assert_eq!((again.labels(), again.inertia()), (whole.labels(), whole.inertia()));
            assert_eq!(again.problems(), whole.problems());
        }
        // Of a fit without a tolerance, which had no use for the variance.
        go(fit(0.0, 1), Streaming::new().checkpoint(&path, 1));
        assert_eq!(go(fit(0.1, 1000), Streaming::new().resume(&path)).n_iter(), expected(0.1));
    }
}
