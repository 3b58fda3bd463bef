//! Centroids that were found before: `--centroids` or `--model`.
use crate::args::{DTypeArg, GivenArgs, MetricArg};
use crate::check;
use crate::failure::{Failure, bad_file};
use crate::fit::dtype_of;
use flash_kmeans::io::PointFile;
use flash_kmeans::{Backend, DType, Element, Error, KMeans, Metric, ModelFile, PointsDim};
use ndarray::ArrayD;
use std::path::Path;

pub(crate) enum Given {
    Npy(PointFile),
    Model(ModelFile),
}

impl Given {
    pub(crate) fn open(args: &GivenArgs) -> Result<Self, Failure> {
        match (&args.centroids, &args.model) {
            (Some(path), _) => check::input(path).map(Given::Npy),
            (None, Some(path)) => ModelFile::open(path).map(Given::Model).map_err(bad_file),
            (None, None) => Err(Failure::bad_input("one of --centroids and --model is needed")),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Given::Npy(file) => file.path(),
            Given::Model(file) => file.path(),
        }
    }

    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Given::Npy(file) => file.shape(),
            Given::Model(file) => file.shape(),
        }
    }

    /// Clusters of each problem.
    pub(crate) fn k(&self) -> usize {
        self.shape()[self.shape().len() - 2]
    }

    /// Refuses points of another width or batch.
    pub(crate) fn check_fits(&self, points: &PointFile) -> Result<(), Failure> {
        let without_rows = |shape: &[usize]| [&shape[..shape.len() - 2], &shape[shape.len() - 1..]].concat();
        if without_rows(points.shape()) == without_rows(self.shape()) {
            return Ok(());
        }
        Err(Failure::bad_input(format!(
            "{} has shape {:?} and {} has shape {:?}: all but the number of rows must agree",
            points.path().display(),
            points.shape(),
            self.path().display(),
            self.shape()
        )))
    }

    /// The type to read `points` as: a model says it, centroids leave it open.
    pub(crate) fn dtype(&self, points: &PointFile, typed: Option<DTypeArg>) -> Result<DType, Failure> {
        let Given::Model(file) = self else {
            return Ok(dtype_of(points, typed));
        };
        match typed.map(DType::from) {
            Some(typed) if typed != file.dtype() => Err(Failure::bad_input(format!(
                "{} is a model of {} points: --dtype {typed} does not go with it",
                self.path().display(),
                file.dtype()
            ))),
            _ => Ok(file.dtype()),
        }
    }

    /// What is near: a model says it, and centroids are Euclidean where nothing is said.
    pub(crate) fn metric(&self, typed: Option<MetricArg>) -> Result<Metric, Failure> {
        let of_model = match self {
            Given::Npy(_) => None,
            Given::Model(file) => Some(file.metric()),
        };
        match (of_model, typed.map(Metric::from)) {
            (Some(metric), Some(typed)) if typed != metric => Err(Failure::bad_input(format!(
                "{} is a model by the metric {metric}: --metric {typed} does not go with it",
                self.path().display()
            ))),
            (of_model, typed) => Ok(of_model.or(typed).unwrap_or_default()),
        }
    }

    /// The values, in float64.
    pub(crate) fn centroids(&self) -> Result<ArrayD<f64>, Failure> {
        match self {
            Given::Npy(file) => Ok(file.read::<f64>().map_err(bad_file)?.into_owned()),
            Given::Model(file) => file.centroids().map_err(bad_file),
        }
    }

    pub(crate) fn model<T: Element, D: PointsDim>(
        &self,
        metric: Metric,
        backend: Backend,
    ) -> Result<KMeans<T, D>, Failure> {
        let model = match self {
            Given::Model(file) => file.model::<T, D>(backend),
            Given::Npy(file) => {
                let centroids = file.read::<T::Centroid>()?;
                let centroids = centroids
                    .view()
                    .into_dimensionality::<D>()
                    .map_err(|e| Failure::bad_input(e.to_string()))?;
                KMeans::with_metric(centroids, metric, backend)
            }
        };
        model.map_err(|e| match e {
            e @ Error::NonFinite { .. } => Failure::from(e).of(&self.path().display().to_string()),
            e => e.into(),
        })
    }
}
