//! Models as safetensors files: one tensor `centroids`, and what it takes to predict with it.
//!
//! The header is written here and not by the crate, which puts metadata in another order each time: the same model
//! gives the same bytes.
use crate::element::{DType, Element, Float};
use crate::error::{Error, Result};
use crate::io::{read_file, shown, write_atomically};
use crate::points::{PointsDim, shaped};
use crate::{Backend, KMeans, Metric};
use ::safetensors::{Dtype, SafeTensors};
use ndarray::{Array, ArrayD, IxDyn};
use std::path::{Path, PathBuf};

/// Version of the layout.
const VERSION: &str = "1";
const TENSOR: &str = "centroids";
/// Bytes of a header that is read.
const MAX_HEADER: u64 = 1 << 20;

/// A model file, read and checked: `.safetensors` as [`KMeans::save`] writes it.
///
/// It has one tensor, `centroids`, `F32` or, for `f64` points, `F64`, of shape `(k, d)` or `(batch, k, d)`, and the
/// metadata `flash_kmeans` (the layout's version, `1`), `metric` (`euclidean`, `cosine`, `dot` or
/// `spherical-dot`) and `dtype` (the points' type: `f16`,
/// `bf16`, `f32` or `f64`).
///
/// # Examples
/// ```
/// use flash_kmeans::{Backend, DType, FlashKMeans, ModelFile};
/// use ndarray::{Ix2, array};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("model.safetensors");
/// let points = array![[0.0f32], [1.0], [8.0], [9.0]];
/// FlashKMeans::new(2).fit(points.view())?.save(&path)?;
/// let file = ModelFile::open(&path)?;
/// assert_eq!((file.dtype(), file.shape()), (DType::F32, &[2, 1][..]));
/// let model = file.model::<f32, Ix2>(Backend::Auto)?;
/// assert_eq!(model.score(points.view())?, -1.0);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ModelFile {
    path: PathBuf,
    dtype: DType,
    metric: Metric,
    shape: Vec<usize>,
    /// Values as the file has them, little-endian.
    centroids: Vec<u8>,
}

impl ModelFile {
    /// Reads and checks a model file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a file that is no such model.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{Backend, KMeans, ModelFile};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("model.safetensors");
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// model.save(&path)?;
    /// assert_eq!(ModelFile::open(&path)?.shape(), [2, 1]);
    /// # std::fs::write(&path, "points").unwrap();
    /// # assert!(matches!(ModelFile::open(&path), Err(flash_kmeans::Error::Format { .. })));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let malformed = |reason: String| Error::Format { path: path.into(), reason };
        let mut bytes = read_file(path)?;
        let no_model = |e: ::safetensors::SafeTensorError| {
            let reason: String = e.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
            malformed(format!("is not a safetensors file: {reason}"))
        };
        // A header takes several times its size to parse, so that its size bounds the memory that a file can cost.
        if let Some(len) = bytes.first_chunk().map(|len| u64::from_le_bytes(*len))
            && len > MAX_HEADER
        {
            return Err(malformed(format!(
                "is not a safetensors file of a model: it says that its header has {len} bytes, and at most \
                 {MAX_HEADER} are read"
            )));
        }
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(no_model)?;
        let metadata = |key: &str| {
            let value = header.metadata().as_ref().and_then(|all| all.get(key));
            value.ok_or_else(|| {
                malformed(format!("has no metadata '{key}': it is not a model of flash-kmeans"))
            })
        };
        let version = metadata("flash_kmeans")?;
        if version != VERSION {
            let version = shown(version);
            return Err(malformed(format!("has flash_kmeans '{version}'; this version reads '{VERSION}'")));
        }
        let named = metadata("metric")?;
        let metric =
            Metric::ALL.into_iter().find(|metric| metric.to_string() == *named).ok_or_else(|| {
                let known = Metric::ALL.map(|metric| metric.to_string()).join(", ");
                malformed(format!("has metric '{}'; this version reads {known}", shown(named)))
            })?;
        let named = metadata("dtype")?;
        let dtype = [DType::F16, DType::BF16, DType::F32, DType::F64]
            .into_iter()
            .find(|dtype| dtype.to_string() == *named)
            .ok_or_else(|| {
                malformed(format!("has dtype '{}', none of f16, bf16, f32 and f64", shown(named)))
            })?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(no_model)?;
        let tensor = tensors.tensor(TENSOR).map_err(|_| malformed(format!("has no tensor '{TENSOR}'")))?;
        let needed = if dtype == DType::F64 { Dtype::F64 } else { Dtype::F32 };
        if tensor.dtype() != needed {
            return Err(malformed(format!(
                "has {:?} centroids; those of {dtype} points are {needed:?}",
                tensor.dtype()
            )));
        }
        let shape = tensor.shape().to_vec();
        if !matches!(shape.len(), 2 | 3) || shape.contains(&0) {
            return Err(malformed(format!(
                "has centroids of shape {shape:?}, which is neither (k, d) nor (batch, k, d)"
            )));
        }
        // The tensor's part of the bytes stays where it is.
        let start = tensor.data().as_ptr().addr() - bytes.as_ptr().addr();
        let len = tensor.data().len();
        bytes.truncate(start + len);
        bytes.drain(..start);
        Ok(ModelFile { path: path.into(), dtype, metric, shape, centroids: bytes })
    }

    /// The file.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{Backend, KMeans, ModelFile};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("model.safetensors");
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// model.save(&path)?;
    /// assert_eq!(ModelFile::open(&path)?.path(), path);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The type of the points that the model was fitted to.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::DType;
    /// # use flash_kmeans::{Backend, KMeans, ModelFile};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("model.safetensors");
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// model.save(&path)?;
    /// assert_eq!(ModelFile::open(&path)?.dtype(), DType::F32);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The metric that the model was fitted by.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::Metric;
    /// # use flash_kmeans::{Backend, KMeans, ModelFile};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("model.safetensors");
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// model.save(&path)?;
    /// assert_eq!(ModelFile::open(&path)?.metric(), Metric::Euclidean);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// `[k, d]` or `[batch, k, d]`.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{Backend, KMeans, ModelFile};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("model.safetensors");
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// model.save(&path)?;
    /// assert_eq!(ModelFile::open(&path)?.shape(), [2, 1]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The centroids, in float64.
    ///
    /// # Errors
    /// None for a file that was opened.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{Backend, KMeans, ModelFile};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("model.safetensors");
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// model.save(&path)?;
    /// assert_eq!(ModelFile::open(&path)?.centroids()?, array![[0.0], [9.0]].into_dyn());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn centroids(&self) -> Result<ArrayD<f64>> {
        let values = if self.dtype == DType::F64 {
            values::<f64>(&self.centroids)
        } else {
            values::<f32>(&self.centroids).into_iter().map(f64::from).collect()
        };
        shaped(values, IxDyn(&self.shape), TENSOR)
    }

    /// The model, to predict with on `backend`: as [`KMeans::with_metric`].
    ///
    /// # Errors
    /// [`Error::Format`] when the file's points are of another type than `T` or its shape is not `D`'s; else as
    /// [`KMeans::from_centroids`].
    ///
    /// # Examples
    /// ```
    /// # use ndarray::Ix2;
    /// # use flash_kmeans::{Backend, KMeans, ModelFile};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("model.safetensors");
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// model.save(&path)?;
    /// let again = ModelFile::open(&path)?.model::<f32, Ix2>(Backend::Auto)?;
    /// assert_eq!(again.centroids(), model.centroids());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn model<T: Element, D: PointsDim>(&self, backend: Backend) -> Result<KMeans<T, D>> {
        let malformed = |reason: String| Err(Error::Format { path: self.path.clone(), reason });
        if T::DTYPE != self.dtype {
            return malformed(format!(
                "is a model of {} points, and was read as one of {}",
                self.dtype,
                T::DTYPE
            ));
        }
        if D::NDIM != Some(self.shape.len()) {
            return malformed(format!(
                "has centroids of shape {:?}, read as another count of dimensions",
                self.shape
            ));
        }
        let centroids = values::<T::Centroid>(&self.centroids);
        let (batch, k, d) = D::split(&self.shape);
        let centroids: Array<T::Centroid, D> = shaped(centroids, D::join(batch, k, d), TENSOR)?;
        KMeans::with_metric(centroids.view(), self.metric, backend)
    }
}

/// The values of little-endian bytes.
fn values<C: Float>(bytes: &[u8]) -> Vec<C> {
    bytes
        .chunks_exact(size_of::<C>())
        .map(|value| {
            let mut value = value.to_vec();
            if cfg!(target_endian = "big") {
                value.reverse();
            }
            bytemuck::pod_read_unaligned(&value)
        })
        .collect()
}

impl<T: Element, D: PointsDim> KMeans<T, D> {
    /// Writes the centroids and what it takes to predict with them as a safetensors file, see [`ModelFile`]. Labels,
    /// sizes and history are not in it. The same model gives the same bytes.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing of the final name is left then.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{Backend, KMeans};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("model.safetensors");
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// model.save(&path)?;
    /// assert_eq!(KMeans::<f32, _>::load(&path, Backend::Auto)?.centroids(), model.centroids());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let centroids = self.centroids();
        let bytes = size_of::<T::Centroid>() * centroids.len();
        let (dtype, metric) = (T::DTYPE, self.metric());
        let stored = if dtype == DType::F64 { Dtype::F64 } else { Dtype::F32 };
        let mut header = format!(
            "{{\"__metadata__\":{{\"dtype\":\"{dtype}\",\"flash_kmeans\":\"{VERSION}\",\"metric\":\"{metric}\"}},\
             \"{TENSOR}\":{{\"dtype\":\"{stored:?}\",\"shape\":{:?},\"data_offsets\":[0,{bytes}]}}}}",
            centroids.shape()
        );
        // The values begin at a multiple of 8 bytes.
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        write_atomically(path, |out| {
            out.write_all(&(header.len() as u64).to_le_bytes())?;
            out.write_all(header.as_bytes())?;
            centroids.iter().try_for_each(|value| {
                let mut value = bytemuck::bytes_of(value).to_vec();
                if cfg!(target_endian = "big") {
                    value.reverse();
                }
                out.write_all(&value)
            })
        })
    }

    /// A model that [`save`](Self::save) wrote, to predict with on `backend`: as
    /// [`from_centroids`](Self::from_centroids).
    ///
    /// # Errors
    /// As [`ModelFile::open`] and [`ModelFile::model`].
    ///
    /// # Examples
    /// ```
    /// # use ndarray::Ix2;
    /// # use flash_kmeans::{Backend, KMeans};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("model.safetensors");
    /// let model = KMeans::<f32, _>::from_centroids(array![[0.0], [9.0]].view(), Backend::Auto)?;
    /// model.save(&path)?;
    /// let again = KMeans::<f32, Ix2>::load(&path, Backend::Auto)?;
    /// assert_eq!(again.predict(array![[1.0], [8.0]].view())?.to_vec(), [0, 1]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn load(path: impl AsRef<Path>, backend: Backend) -> Result<Self> {
        ModelFile::open(path)?.model(backend)
    }
}
