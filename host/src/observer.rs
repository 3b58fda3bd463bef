//! Looking on while a fit runs.
use crate::element::Float;
use crate::error::{Error, Result};
use crate::model::IterationStats;
use ndarray::ArrayView2;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

/// Looks on while a fit runs, and may end it. `C` is the type of the centroids; `()` looks at nothing.
///
/// ```
/// use flash_kmeans::{Backend, FlashKMeans, IterationEnd, Observer};
/// use ndarray::Array2;
/// use std::ops::ControlFlow;
///
/// /// Ends a fit once hardly any label changes.
/// struct Settled;
///
/// impl Observer<f32> for Settled {
///     fn iteration(&mut self, end: IterationEnd<'_, f32>) -> ControlFlow<()> {
///         if end.stats.changed < 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
///     }
/// }
///
/// let points = Array2::from_shape_fn((1000, 2), |(i, j)| ((i * 37 + j * 11) % 101) as f32);
/// let model = FlashKMeans::new(8).backend(Backend::Cpu).fit_observed(points.view(), &mut Settled)?;
/// assert!(model.converged() || model.problems()[0].history.last().unwrap().changed < 10);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
pub trait Observer<C: Float>: Send {
    /// Some more points have been assigned. To break here abandons the fit: it returns [`Error::Stopped`].
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        let _ = progress;
        ControlFlow::Continue(())
    }

    /// An iteration is complete. To break here ends the fit as `max_iter` would: with labels of the centroids.
    fn iteration(&mut self, end: IterationEnd<'_, C>) -> ControlFlow<()> {
        let _ = end;
        ControlFlow::Continue(())
    }
}

impl<C: Float> Observer<C> for () {}

/// How far a pass over the points has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The problem of a batch; 0 where there is one.
    pub problem: usize,
    /// Iterations completed before this pass.
    pub iterations: usize,
    /// Points assigned in this pass.
    pub rows: usize,
    /// Points of a pass.
    pub n: usize,
}

/// An iteration that is complete.
#[derive(Clone, Copy, Debug)]
pub struct IterationEnd<'a, C> {
    /// The problem of a batch; 0 where there is one.
    pub problem: usize,
    /// Iterations completed, this one included.
    pub iterations: usize,
    /// What it found.
    pub stats: IterationStats,
    /// The centroids after it, `(k, d)`, as the fit would return them.
    pub centroids: ArrayView2<'a, C>,
}

/// The observer of a fit, for problems that may run at the same time.
pub(crate) struct Watch<'a, C: Float>(Option<Mutex<&'a mut dyn Observer<C>>>);

impl<'a, C: Float> Watch<'a, C> {
    pub(crate) fn new(observer: &'a mut dyn Observer<C>) -> Self {
        Watch(Some(Mutex::new(observer)))
    }

    /// Nobody looks.
    pub(crate) fn nobody() -> Self {
        Watch(None)
    }

    /// Whether somebody wants to know of each iteration.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "the CPU tells anyhow"))]
    pub(crate) fn is_watched(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn progress(&self, progress: Progress) -> Result<()> {
        let Some(observer) = &self.0 else { return Ok(()) };
        let mut observer = observer.lock().unwrap_or_else(PoisonError::into_inner);
        match observer.progress(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Stopped { iterations: progress.iterations }),
        }
    }

    pub(crate) fn iteration(&self, end: IterationEnd<'_, C>) -> ControlFlow<()> {
        let Some(observer) = &self.0 else { return ControlFlow::Continue(()) };
        observer.lock().unwrap_or_else(PoisonError::into_inner).iteration(end)
    }
}
