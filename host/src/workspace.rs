//! Fits of one shape on one GPU, again and again.
use crate::Element;
use crate::backend::cuda::{Run, Start, Visit};
use crate::backend::{Engine, LloydOptions};
use crate::element::Float;
use crate::error::{Error, Result};
use crate::init::First;
use crate::model::BatchSummary;
use crate::params::{Backend, FlashKMeans, Init};
use crate::points::{PointsDim, Problem, shaped};
use crate::rng::Rng;
use ndarray::{Array2, Array3, ArrayView};
use std::ffi::c_void;
use std::marker::PhantomData;

/// Device memory and prepared launches for problems of one shape, from
/// [`FlashKMeans::workspace`](crate::FlashKMeans::workspace).
///
/// For those who fit many small problems, or whose points are on the GPU already: from the second fit on nothing is
/// allocated or prepared, but for k-means++ and k-means||, and points and results need not leave the device. Results have the same bits as those of
/// [`FlashKMeans::fit`](crate::FlashKMeans::fit) on the same GPU.
///
/// ```no_run
/// use flash_kmeans::{FlashKMeans, Init};
/// use half::f16;
/// use ndarray::Array3;
///
/// let mut workspace = FlashKMeans::new(64).init(Init::Random).max_iter(10).workspace::<f16>(32, 4096, 128)?;
/// for layer in 0..40 {
///     let keys = Array3::from_elem((32, 4096, 128), f16::from_f32(layer as f32));
///     workspace.load(keys.view())?;
///     let heads = workspace.fit()?;
///     println!("{layer}: {}, {:?}", heads[0].inertia, workspace.device_labels());
/// }
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Debug)]
pub struct Workspace<T: Element> {
    run: Run,
    params: FlashKMeans,
    options: LloydOptions,
    /// `[batch, n, d]`.
    shape: [usize; 3],
    has_points: bool,
    /// The given centroids are on the device.
    has_centroids: bool,
    _points: PhantomData<T>,
}

/// Points in a GPU's memory, for [`Workspace::borrow_device`]: row after row without gaps, unless said otherwise. The values
/// of a row are one after the other.
///
/// ```no_run
/// # use flash_kmeans::{DevicePoints, Workspace};
/// # unsafe fn f(workspace: &mut Workspace<f32>, address: *const f32, stream: *mut std::ffi::c_void) -> flash_kmeans::Result<()> {
/// // The first 64 of 96 columns, which `stream` writes.
/// let keys = DevicePoints::new(address).strides(4096 * 96, 96).after(stream);
/// unsafe { workspace.borrow_device(keys)? };
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "points are taken by `Workspace::borrow_device`"]
pub struct DevicePoints<T> {
    pub(crate) address: *const T,
    pub(crate) strides: Option<[usize; 2]>,
    pub(crate) stream: Option<*mut c_void>,
}

impl<T> DevicePoints<T> {
    /// At this address: of a `cust::memory::DeviceBuffer`, `buffer.as_device_ptr().as_ptr()`.
    pub fn new(address: *const T) -> Self {
        DevicePoints { address, strides: None, stream: None }
    }

    /// With problems `batch` values apart, and their rows `row` values.
    pub fn strides(self, batch: usize, row: usize) -> Self {
        DevicePoints { strides: Some([batch, row]), ..self }
    }

    /// Complete when `stream`, a `CUstream` or `cudaStream_t` of this GPU, has done what it has been given so far: fits wait
    /// for that on the GPU, and nobody on the host.
    pub fn after(self, stream: *mut c_void) -> Self {
        DevicePoints { stream: Some(stream), ..self }
    }

    pub(crate) fn cast<U>(self) -> DevicePoints<U> {
        let DevicePoints { address, strides, stream } = self;
        DevicePoints { address: address.cast(), strides, stream }
    }

    /// Refuses strides that `batch` problems of `n` points in `d` dimensions cannot have.
    fn check(&self, [batch, n, d]: [usize; 3]) -> Result<()> {
        let Some([of_problem, of_row]) = self.strides else { return Ok(()) };
        let values = (of_problem as u128 * (batch as u128 - 1)) + of_row as u128 * n as u128;
        let rule = if of_row < d {
            "rows must be at least their own length apart"
        } else if values * size_of::<T>() as u128 > isize::MAX as u128 {
            "all values must have an address"
        } else {
            return Ok(());
        };
        Err(Error::InvalidArgument { argument: "strides", value: format!("({of_problem}, {of_row})"), rule })
    }
}

impl<T> From<*const T> for DevicePoints<T> {
    fn from(address: *const T) -> Self {
        DevicePoints::new(address)
    }
}

impl<T: Element> Workspace<T> {
    pub(crate) fn new(params: &FlashKMeans, options: LloydOptions, shape: [usize; 3]) -> Result<Self> {
        let _visit = Visit::begin();
        let [batch, n, d] = shape;
        for (argument, value) in [("batch", batch), ("n", n), ("d", d)] {
            if value == 0 {
                let rule = "points must have at least one row and one column";
                return Err(Error::InvalidArgument { argument, value: "0".into(), rule });
            }
        }
        if options.k > n {
            return Err(Error::TooManyClusters { k: options.k, n });
        }
        let asked = params.asked().0;
        let backend = if asked == Backend::Auto { Backend::Cuda { ordinal: 0 } } else { asked };
        match Engine::select(backend, T::DTYPE, None, params.asked_precision())? {
            Engine::Cuda(gpus) => Ok(Workspace {
                run: Run::new::<T>(&gpus, shape, &options)?,
                params: params.clone(),
                options,
                shape,
                has_points: false,
                has_centroids: false,
                _points: PhantomData,
            }),
            Engine::Cpu => {
                let reason = "a workspace is a GPU's; on the CPU, `fit` has nothing to prepare".into();
                Err(Error::BackendUnavailable { backend: asked, reason })
            }
        }
    }

    /// Copies points to the device: `(n, d)` or `(batch, n, d)`, as the workspace was made for.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NonFinite`], and the device's errors.
    pub fn load<D: PointsDim>(&mut self, points: ArrayView<'_, T, D>) -> Result<()> {
        let problem = Problem::new(points)?;
        let actual = [problem.batch, problem.n, problem.d];
        if actual != self.shape {
            let (expected, actual) = (format!("{:?}", self.shape), format!("{actual:?}"));
            return Err(Error::Shape { what: "points", expected, actual });
        }
        problem.check_finite()?;
        let _visit = Visit::begin();
        self.run.load(&problem)?;
        self.has_points = true;
        Ok(())
    }

    /// Takes points that are in the device's memory already: of a pointer, `batch · n · d` values, row after row. Rows of
    /// whole 16 bytes without gaps, at an address that is a multiple of 16, are used where they lie; others are copied on
    /// the device.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for rows that overlap and for values without an address, and the device's.
    ///
    /// # Safety
    /// The values must lie in memory of this workspace's device, be complete before the call, or when the stream that
    /// [`DevicePoints::after`] names has come to where it is now, and stay unchanged until the workspace is given other
    /// points or dropped. Values that are not finite are not found: labels of such points are unspecified, though below
    /// the number of clusters.
    pub unsafe fn borrow_device(&mut self, points: impl Into<DevicePoints<T>>) -> Result<()> {
        let _visit = Visit::begin();
        let points = points.into();
        points.check(self.shape)?;
        // SAFETY: this function's contract.
        unsafe { self.run.borrow(points)? };
        self.has_points = true;
        Ok(())
    }

    /// Fits the points from the first centroids that the options name. Labels and centroids stay on the device; the
    /// end of each problem is returned, and then all work is done.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] before points were given, [`Error::Shape`] and [`Error::NonFinite`] for given
    /// centroids, and the device's errors.
    pub fn fit(&mut self) -> Result<Vec<BatchSummary>> {
        if !self.has_points {
            let rule = "`load` or `borrow_device` comes before `fit`";
            return Err(Error::InvalidArgument { argument: "points", value: "absent".into(), rule });
        }
        let _visit = Visit::begin();
        let ([batch, n, d], k) = (self.shape, self.options.k);
        let (_, init, seed) = self.params.asked();
        match init {
            Init::Given(given) => {
                if self.has_centroids {
                    return self.run.fit(Start::SameCentroids, &self.options);
                }
                let given = crate::init::given_centroids::<T>(given, batch, (k, self.options.metric), d)?;
                let centroids: Vec<f32> = given.into_iter().map(|c| c.to_f64() as f32).collect();
                let problems = self.run.fit(Start::Centroids(&centroids), &self.options)?;
                self.has_centroids = true;
                Ok(problems)
            }
            // The rows that `FlashKMeans::fit` draws.
            Init::Random => {
                let rows = |problem| crate::init::distinct_rows(n, k, &mut Rng::new(seed, problem as u64));
                let rows: Vec<u32> = (0..batch).flat_map(rows).map(|row| row as u32).collect();
                self.run.fit(Start::Rows(&rows), &self.options)
            }
            _ => {
                let rows = self.run.draw(First { init, seed }, k)?;
                self.run.fit(Start::Rows(&rows), &self.options)
            }
        }
    }

    /// The last fit's centroids, `(batch, k, d)`, copied to the host; unspecified before the first fit.
    ///
    /// # Errors
    /// The device's.
    pub fn centroids(&self) -> Result<Array3<T::Centroid>> {
        let _visit = Visit::begin();
        let [batch, _, d] = self.shape;
        let centroids = self.run.centroids()?.into_iter().map(|c| Float::from_f64(f64::from(c))).collect();
        shaped(centroids, ndarray::Dim([batch, self.options.k, d]), "centroids")
    }

    /// The last fit's labels, `(batch, n)`, copied to the host; unspecified before the first fit.
    ///
    /// # Errors
    /// The device's.
    pub fn labels(&self) -> Result<Array2<u32>> {
        let _visit = Visit::begin();
        let [batch, n, _] = self.shape;
        shaped(self.run.labels()?, ndarray::Dim([batch, n]), "labels")
    }

    /// Where the labels are in device memory, `batch · n` values, until the workspace is dropped.
    pub fn device_labels(&self) -> *const u32 {
        self.run.device_labels()
    }

    /// Where the centroids are in device memory, `batch · k · d` values of the points' type, until the workspace is
    /// dropped.
    pub fn device_centroids(&self) -> *const T {
        self.run.device_centroids().cast()
    }
}
