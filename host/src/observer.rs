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
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{Error, FlashKMeans, Observer, Progress};
    /// # use ndarray::array;
    /// # use std::ops::ControlFlow;
    /// struct Never;
    ///
    /// impl Observer<f32> for Never {
    ///     fn progress(&mut self, _: Progress) -> ControlFlow<()> {
    ///         ControlFlow::Break(())
    ///     }
    /// }
    ///
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let stopped = FlashKMeans::new(2).fit_observed(points.view(), &mut Never);
    /// assert!(matches!(stopped, Err(Error::Stopped { iterations: 0 })));
    /// ```
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        let _ = progress;
        ControlFlow::Continue(())
    }

    /// An iteration is complete. To break here ends the fit as `max_iter` would: with labels of the centroids.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{FlashKMeans, IterationEnd, Observer};
    /// # use ndarray::array;
    /// # use std::ops::ControlFlow;
    /// struct Once;
    ///
    /// impl Observer<f32> for Once {
    ///     fn iteration(&mut self, _: IterationEnd<'_, f32>) -> ControlFlow<()> {
    ///         ControlFlow::Break(())
    ///     }
    /// }
    ///
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// let model = FlashKMeans::new(2).fit_observed(points.view(), &mut Once)?;
    /// assert_eq!(model.n_iter(), 1);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    fn iteration(&mut self, end: IterationEnd<'_, C>) -> ControlFlow<()> {
        let _ = end;
        ControlFlow::Continue(())
    }
}

impl<C: Float> Observer<C> for () {}

/// How far a pass over the points has come.
///
/// # Examples
/// ```
/// use flash_kmeans::{FlashKMeans, Observer, Progress};
/// use ndarray::array;
/// use std::ops::ControlFlow;
///
/// /// The share of the pass that is done.
/// struct Share(f64);
///
/// impl Observer<f32> for Share {
///     fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
///         self.0 = progress.rows as f64 / progress.n as f64;
///         ControlFlow::Continue(())
///     }
/// }
///
/// let mut share = Share(0.0);
/// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
/// FlashKMeans::new(2).fit_observed(points.view(), &mut share)?;
/// assert_eq!(share.0, 1.0);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
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
///
/// # Examples
/// ```
/// use flash_kmeans::{FlashKMeans, IterationEnd, Observer};
/// use ndarray::array;
/// use std::ops::ControlFlow;
///
/// /// The inertia of each iteration.
/// struct Inertia(Vec<f64>);
///
/// impl Observer<f32> for Inertia {
///     fn iteration(&mut self, end: IterationEnd<'_, f32>) -> ControlFlow<()> {
///         self.0.push(end.stats.inertia);
///         ControlFlow::Continue(())
///     }
/// }
///
/// let mut inertia = Inertia(Vec::new());
/// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
/// let model = FlashKMeans::new(2).fit_observed(points.view(), &mut inertia)?;
/// assert_eq!(inertia.0.len(), model.n_iter());
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
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
