//! The one error type.
use crate::params::Backend;
use std::path::PathBuf;

/// What every fallible function returns.
///
/// # Examples
/// ```
/// use flash_kmeans::{FlashKMeans, Result};
/// use ndarray::{ArrayView2, array};
///
/// fn inertia(points: ArrayView2<'_, f32>) -> Result<f64> {
///     Ok(FlashKMeans::new(2).fit(points)?.inertia())
/// }
///
/// assert_eq!(inertia(array![[0.0], [1.0], [8.0], [9.0]].view())?, 1.0);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call was refused or failed.
///
/// Messages are sentences for people; match on the variant in programs.
///
/// # Examples
/// ```
/// use flash_kmeans::{Error, FlashKMeans};
/// use ndarray::array;
///
/// let points = array![[0.0f32], [1.0]];
/// match FlashKMeans::new(3).fit(points.view()) {
///     Err(Error::TooManyClusters { k, n }) => assert_eq!((k, n), (3, 2)),
///     other => panic!("{other:?}"),
/// }
/// let error = FlashKMeans::new(0).fit(points.view()).unwrap_err();
/// assert_eq!(error.to_string(), "n_clusters is 0: there must be at least one cluster");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option or argument breaks a rule.
    #[error("{argument} is {value}: {rule}")]
    InvalidArgument {
        /// The option or argument.
        argument: &'static str,
        /// The value it had.
        value: String,
        /// The rule that the value breaks.
        rule: &'static str,
    },
    /// More clusters than points.
    #[error("{k} clusters were asked of {n} points: k must be at most n")]
    TooManyClusters {
        /// Clusters asked for.
        k: usize,
        /// Points in each problem.
        n: usize,
    },
    /// Two shapes that must agree do not.
    #[error("{what} must have shape {expected}, but has {actual}")]
    Shape {
        /// What has the wrong shape.
        what: &'static str,
        /// The shape needed.
        expected: String,
        /// The shape found.
        actual: String,
    },
    /// A point or centroid has a coordinate that is NaN or infinite, or an `f64` above 1e150, whose squares are.
    #[error(
        "{what}: row {row}, column {column} is {value}; every value must be finite, and an f64 at most 1e150"
    )]
    NonFinite {
        /// `"points"` or `"centroids"`.
        what: &'static str,
        /// Row, counted over all problems of a batch.
        row: usize,
        /// Column.
        column: usize,
        /// The value, as text.
        value: String,
    },
    /// The backend asked for cannot be used here.
    #[error("backend {backend} is not available: {reason}")]
    BackendUnavailable {
        /// The backend asked for.
        backend: Backend,
        /// What is missing.
        reason: String,
    },
    /// The device cannot hold what the call needs.
    #[error("the device has no room: {requested} bytes needed, {free} bytes free")]
    OutOfDeviceMemory {
        /// Bytes needed.
        requested: u64,
        /// Bytes free when they were asked for.
        free: u64,
    },
    /// This machine has no memory for what the call needs.
    #[error("no memory for {what}: {requested} bytes needed, {free} bytes free")]
    OutOfMemory {
        /// What the memory was for.
        what: &'static str,
        /// Bytes needed.
        requested: u64,
        /// Bytes free when they were asked for, as far as the system tells; 0 where it does not.
        free: u64,
    },
    /// A source of points failed, other than by the file system.
    #[error("the source of points failed at row {row}: {source}")]
    Source {
        /// The first row that it did not give.
        row: usize,
        /// Its error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An observer broke the fit off within a pass.
    #[error("stopped after {iterations} iterations")]
    Stopped {
        /// Iterations completed.
        iterations: usize,
    },
    /// A call of the CUDA driver failed.
    #[error("CUDA driver: {call} failed with {code}")]
    Cuda {
        /// What was being done.
        call: String,
        /// The driver's error.
        code: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
