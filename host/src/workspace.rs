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
/// # Examples
/// ```
/// use flash_kmeans::{FlashKMeans, Init};
/// use half::f16;
/// use ndarray::Array3;
///
/// # // Nothing to show without a GPU.
/// # let Ok(_) = FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
/// let mut workspace = FlashKMeans::new(4).init(Init::Random).max_iter(10).workspace::<f16>(2, 64, 8)?;
/// for layer in 0..3 {
///     let key = |(head, i, j): (usize, usize, usize)| f16::from_f32(((head + layer + i * j) % 17) as f32);
///     let keys = Array3::from_shape_fn((2, 64, 8), key);
///     workspace.load(keys.view())?;
///     let heads = workspace.fit()?;
///     println!("{layer}: {}, {:?}", heads[0].inertia, workspace.device_labels());
///     assert_eq!(workspace.labels()?.dim(), (2, 64));
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
/// # Examples
/// ```
/// use flash_kmeans::{DevicePoints, FlashKMeans};
/// use ndarray::array;
///
/// # // Nothing to show without a GPU.
/// # let Ok(_) = FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
/// # let mut owner = FlashKMeans::new(4).workspace(1, 4, 2)?;
/// # owner.load(array![[0.0f32, 5.0], [1.0, 5.0], [8.0, 5.0], [9.0, 5.0]].view())?;
/// # owner.fit()?;
/// # let address = owner.device_centroids();
/// # let _context = cust::context::Context::new(cust::device::Device::get_device(0).unwrap()).unwrap();
/// # let stream = cust::stream::Stream::new(cust::stream::StreamFlags::NON_BLOCKING, None).unwrap();
/// // The first of two columns, which `stream` writes: a `cust::stream::Stream`.
/// let column = DevicePoints::new(address).strides(4 * 2, 2).after(stream.as_inner().cast());
/// let mut workspace = FlashKMeans::new(2).workspace::<f32>(1, 4, 1)?;
/// // SAFETY: they stay as they are until the workspace is dropped.
/// unsafe { workspace.borrow_device(column)? };
/// assert_eq!(workspace.fit()?[0].inertia, 1.0);
/// # Ok::<(), flash_kmeans::Error>(())
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
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{DevicePoints, FlashKMeans};
    /// # use ndarray::array;
    /// # // Nothing to show without a GPU.
    /// # let Ok(_) = FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
    /// # let mut owner = FlashKMeans::new(4).workspace(1, 4, 2)?;
    /// # owner.load(array![[0.0f32, 5.0], [1.0, 5.0], [8.0, 5.0], [9.0, 5.0]].view())?;
    /// # owner.fit()?;
    /// let address = owner.device_centroids(); // of 4 rows of 2 values
    /// let mut workspace = FlashKMeans::new(2).workspace::<f32>(1, 4, 2)?;
    /// // SAFETY: `owner` keeps them as they are.
    /// unsafe { workspace.borrow_device(DevicePoints::new(address))? };
    /// assert_eq!(workspace.fit()?[0].inertia, 1.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn new(address: *const T) -> Self {
        DevicePoints { address, strides: None, stream: None }
    }

    /// With problems `batch` values apart, and their rows `row` values.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{DevicePoints, FlashKMeans};
    /// # use ndarray::array;
    /// # // Nothing to show without a GPU.
    /// # let Ok(_) = FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
    /// # let mut owner = FlashKMeans::new(4).workspace(1, 4, 2)?;
    /// # owner.load(array![[0.0f32, 5.0], [1.0, 5.0], [8.0, 5.0], [9.0, 5.0]].view())?;
    /// # owner.fit()?;
    /// let address = owner.device_centroids(); // of 4 rows of 2 values
    /// // The first of the two columns.
    /// let mut workspace = FlashKMeans::new(2).workspace::<f32>(1, 4, 1)?;
    /// let column = DevicePoints::new(address).strides(4 * 2, 2);
    /// // SAFETY: `owner` keeps them as they are.
    /// unsafe { workspace.borrow_device(column)? };
    /// assert_eq!(workspace.fit()?[0].inertia, 1.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn strides(self, batch: usize, row: usize) -> Self {
        DevicePoints { strides: Some([batch, row]), ..self }
    }

    /// Complete when `stream`, a `CUstream` or `cudaStream_t` of this GPU, has done what it has been given so far: fits wait
    /// for that on the GPU, and nobody on the host.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{DevicePoints, FlashKMeans};
    /// # use ndarray::array;
    /// # // Nothing to show without a GPU.
    /// # let Ok(_) = FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
    /// # let mut owner = FlashKMeans::new(4).workspace(1, 4, 2)?;
    /// # owner.load(array![[0.0f32, 5.0], [1.0, 5.0], [8.0, 5.0], [9.0, 5.0]].view())?;
    /// # owner.fit()?;
    /// # let _context = cust::context::Context::new(cust::device::Device::get_device(0).unwrap()).unwrap();
    /// let stream = cust::stream::Stream::new(cust::stream::StreamFlags::NON_BLOCKING, None).unwrap();
    /// let points = DevicePoints::new(owner.device_centroids()).after(stream.as_inner().cast());
    /// let mut workspace = FlashKMeans::new(2).workspace::<f32>(1, 4, 2)?;
    /// // SAFETY: `owner` keeps them as they are, and they are complete already.
    /// unsafe { workspace.borrow_device(points)? };
    /// assert_eq!(workspace.fit()?[0].inertia, 1.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # // Nothing to show without a GPU.
    /// # let Ok(_) = FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
    /// let mut workspace = FlashKMeans::new(2).workspace(1, 4, 1)?;
    /// workspace.load(points.view())?;
    /// assert_eq!(workspace.fit()?[0].inertia, 1.0);
    /// assert!(workspace.load(array![[0.0]].view()).is_err());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # // Nothing to show without a GPU.
    /// # let Ok(_) = FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
    /// let mut groups = FlashKMeans::new(4).workspace(1, 4, 1)?;
    /// groups.load(points.view())?;
    /// groups.fit()?;
    /// // The centroids of one workspace are the points of another.
    /// let mut super_groups = FlashKMeans::new(2).workspace(1, 4, 1)?;
    /// // SAFETY: the fit is done; `groups` lives longer, and is not used any more.
    /// unsafe { super_groups.borrow_device(groups.device_centroids())? };
    /// assert_eq!(super_groups.fit()?[0].inertia, 1.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # // Nothing to show without a GPU.
    /// # let Ok(_) = FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
    /// let mut workspace = FlashKMeans::new(2).workspace(1, 4, 1)?;
    /// workspace.load(points.view())?;
    /// let problems = workspace.fit()?;
    /// assert!(problems[0].converged && problems[0].inertia == 1.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # // Nothing to show without a GPU.
    /// # let Ok(_) = FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
    /// let mut workspace = FlashKMeans::new(1).workspace(1, 4, 1)?;
    /// workspace.load(points.view())?;
    /// workspace.fit()?;
    /// assert_eq!(workspace.centroids()?, array![[[4.5]]]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # // Nothing to show without a GPU.
    /// # let Ok(_) = FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
    /// let mut workspace = FlashKMeans::new(2).workspace(1, 4, 1)?;
    /// workspace.load(points.view())?;
    /// workspace.fit()?;
    /// let labels = workspace.labels()?;
    /// assert_eq!(labels[(0, 2)], labels[(0, 3)]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn labels(&self) -> Result<Array2<u32>> {
        let _visit = Visit::begin();
        let [batch, n, _] = self.shape;
        shaped(self.run.labels()?, ndarray::Dim([batch, n]), "labels")
    }

    /// Where the labels are in device memory, `batch · n` values, until the workspace is dropped.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # // Nothing to show without a GPU.
    /// # let Ok(_) = FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
    /// let mut workspace = FlashKMeans::new(2).workspace(1, 4, 1)?;
    /// workspace.load(points.view())?;
    /// workspace.fit()?;
    /// assert!(!workspace.device_labels().is_null());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn device_labels(&self) -> *const u32 {
        self.run.device_labels()
    }

    /// Where the centroids are in device memory, `batch · k · d` values of the points' type, until the workspace is
    /// dropped.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::FlashKMeans;
    /// # use ndarray::array;
    /// # let points = array![[0.0f32], [1.0], [8.0], [9.0]];
    /// # // Nothing to show without a GPU.
    /// # let Ok(_) = FlashKMeans::new(1).workspace::<f32>(1, 1, 1) else { return Ok(()) };
    /// let mut groups = FlashKMeans::new(4).workspace(1, 4, 1)?;
    /// groups.load(points.view())?;
    /// groups.fit()?;
    /// // The centroids are the points of another workspace, and never leave the GPU.
    /// let mut super_groups = FlashKMeans::new(2).workspace(1, 4, 1)?;
    /// // SAFETY: `groups` lives longer, and is not used any more.
    /// unsafe { super_groups.borrow_device(groups.device_centroids())? };
    /// assert_eq!(super_groups.fit()?[0].inertia, 1.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn device_centroids(&self) -> *const T {
        self.run.device_centroids().cast()
    }
}
