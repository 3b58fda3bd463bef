//! The reader.
use super::convert::{StoredType, convert};
use super::format::{Format, HEAD, Layout, odd_row, odd_row_reason};
use super::{io_error, malformed, open_regular};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::memory::filled;
use crate::process;
use memmap2::Mmap;
use ndarray::{ArrayD, ArrayViewD, CowArray, IxDyn};
use rayon::prelude::*;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Bytes of a file that are in memory beside the points that are made of them, by each thread that reads.
const READ_BYTES: usize = 1 << 20;

/// A file of points: nothing of it but its header is read before it is asked for.
///
/// The file must not be changed while it is open. [`read`](PointFile::read) maps it into memory: a file that another
/// process truncates then ends this one with a bus error, as memory-mapped files do.
///
/// # Examples
/// ```
/// use flash_kmeans::FlashKMeans;
/// use flash_kmeans::io::{PointFile, write_npy};
/// use ndarray::{Ix2, array};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("points.npy");
/// write_npy(&path, array![[0.0f32], [1.0], [8.0], [9.0]].view())?;
/// let file = PointFile::open(&path)?;
/// let points = file.read::<f32>()?.into_dimensionality::<Ix2>().unwrap();
/// assert_eq!(FlashKMeans::new(2).fit(points.view())?.inertia(), 1.0);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Debug)]
pub struct PointFile {
    path: PathBuf,
    file: File,
    /// Made when all points are first read.
    map: OnceLock<Mmap>,
    layout: Layout,
}

impl PointFile {
    /// Opens `path`; its extension says the format (see [`io`](super)). The header is checked against the
    /// length of the file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened or mapped, [`Error::Format`] when it has an unknown
    /// extension, is empty, truncated or too long, or is not what its extension says.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, write_npy};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.npy");
    /// write_npy(&path, array![[0.0f32, 1.0], [2.0, 3.0], [4.0, 5.0]].view())?;
    /// let file = PointFile::open(&path)?;
    /// assert_eq!(file.shape(), [3, 2]);
    /// # std::fs::write(&path, "points").unwrap();
    /// assert!(PointFile::open("points.csv").is_err());
    /// # assert!(matches!(PointFile::open(&path), Err(flash_kmeans::Error::Format { .. })));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let format = Format::of(path).map_err(|reason| malformed(path, reason))?;
        Self::open_as(path, |head, len| Layout::of(format, head, len))
    }

    /// Opens a `.npy` file of one value a point, such as weights: `(n)` or `(batch, n)`, taken as points of one
    /// coordinate, `(n, 1)` or `(batch, n, 1)`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, write_npy};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("weights.npy");
    /// write_npy(&path, array![0.5, 1.0, 2.0].view())?;
    /// assert_eq!(PointFile::open_column(&path)?.shape(), [3, 1]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn open_column(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_as(path.as_ref(), Layout::of_column)
    }

    fn open_as(
        path: &Path,
        layout: impl FnOnce(&[u8], usize) -> std::result::Result<Layout, String>,
    ) -> Result<Self> {
        let (file, len) = open_regular(path)?;
        if len == 0 {
            return Err(malformed(path, "is empty"));
        }
        let len =
            usize::try_from(len).map_err(|_| malformed(path, "is larger than this machine can address"))?;
        let mut head = vec![0; len.min(HEAD)];
        read_at(&file, 0, &mut head).map_err(|e| io_error(path, e))?;
        let layout = layout(&head, len).map_err(|reason| malformed(path, reason))?;
        Ok(PointFile { path: path.into(), file, map: OnceLock::new(), layout })
    }

    /// The whole file, as memory.
    fn map(&self) -> Result<&[u8]> {
        if let Some(map) = self.map.get() {
            return Ok(map);
        }
        // SAFETY: the map is read-only and lives as long as this value, which hands out shared borrows alone;
        // the values are plain numbers, for which every bit pattern is valid. That nothing else changes the
        // file meanwhile cannot be checked and is the documented contract of this type.
        let map = unsafe { Mmap::map(&self.file) }.map_err(|e| io_error(&self.path, e))?;
        // Before it is kept: what is kept is not looked at again.
        if map.len() < self.layout.end() {
            return Err(malformed(&self.path, "was truncated while it was open"));
        }
        Ok(self.map.get_or_init(|| map))
    }

    /// The file's path, as it was given.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, write_npy};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.npy");
    /// write_npy(&path, array![[0.0f32, 1.0], [2.0, 3.0], [4.0, 5.0]].view())?;
    /// let file = PointFile::open(&path)?;
    /// assert_eq!(file.path(), path);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The type of the values in the file.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::StoredType;
    /// # use flash_kmeans::io::{PointFile, write_npy};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.npy");
    /// write_npy(&path, array![[0.0f32, 1.0], [2.0, 3.0], [4.0, 5.0]].view())?;
    /// let file = PointFile::open(&path)?;
    /// assert_eq!(file.stored_type(), StoredType::F32);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn stored_type(&self) -> StoredType {
        self.layout.stored
    }

    /// `(n, d)` or `(batch, n, d)`.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, write_npy};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.npy");
    /// write_npy(&path, array![[0.0f32, 1.0], [2.0, 3.0], [4.0, 5.0]].view())?;
    /// let file = PointFile::open(&path)?;
    /// assert_eq!(file.shape(), [3, 2]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn shape(&self) -> &[usize] {
        if self.layout.is_batch { &self.layout.shape } else { &self.layout.shape[1..] }
    }

    /// The number of problems of a `(batch, n, d)` file.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, write_npy};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.npy");
    /// write_npy(&path, array![[0.0f32, 1.0], [2.0, 3.0], [4.0, 5.0]].view())?;
    /// let file = PointFile::open(&path)?;
    /// assert_eq!(file.batch(), None);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn batch(&self) -> Option<usize> {
        self.layout.is_batch.then_some(self.layout.shape[0])
    }

    /// Points in each problem.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, write_npy};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.npy");
    /// write_npy(&path, array![[0.0f32, 1.0], [2.0, 3.0], [4.0, 5.0]].view())?;
    /// let file = PointFile::open(&path)?;
    /// assert_eq!(file.n_points(), 3);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn n_points(&self) -> usize {
        self.layout.shape[1]
    }

    /// Coordinates of each point.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, write_npy};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.npy");
    /// write_npy(&path, array![[0.0f32, 1.0], [2.0, 3.0], [4.0, 5.0]].view())?;
    /// let file = PointFile::open(&path)?;
    /// assert_eq!(file.n_features(), 2);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn n_features(&self) -> usize {
        self.layout.shape[2]
    }

    /// Rows of the file: `n`, or `batch · n`.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, write_npy};
    /// # use ndarray::Array3;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.npy");
    /// write_npy(&path, Array3::<f32>::zeros((2, 5, 3)).view())?;
    /// let file = PointFile::open(&path)?;
    /// assert_eq!((file.batch(), file.n_points(), file.n_rows()), (Some(2), 5, 10));
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn n_rows(&self) -> usize {
        self.layout.shape[0] * self.layout.shape[1]
    }

    /// All points: the file's own memory when it holds values of type `T` in row-major order, else a
    /// converted copy. A value that `T` cannot hold is rounded to nearest; bytes are always exact.
    ///
    /// # Errors
    /// [`Error::Format`] when the rows of a `.fvecs` or `.bvecs` file disagree about their length,
    /// [`Error::Io`] when it cannot be read, [`Error::OutOfMemory`] when there is no memory for the copy.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, write_npy};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.npy");
    /// write_npy(&path, array![[0.0f32, 1.0], [2.0, 3.0], [4.0, 5.0]].view())?;
    /// let file = PointFile::open(&path)?;
    /// assert!(file.read::<f32>()?.is_view());
    /// assert_eq!(file.read::<f64>()?[[2, 0]], 4.0);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn read<T: Element>(&self) -> Result<CowArray<'_, T, IxDyn>> {
        if let Some(view) = self.view()? {
            return Ok(view.into());
        }
        process::check_threads()?;
        let invalid = |_| malformed(&self.path, "has a shape that an array cannot have");
        let (rows, d) = (self.n_rows(), self.n_features());
        // Conversion can take up to eight times the file's size: refuse rather than abort.
        let mut values = filled(T::zeroed(), rows.saturating_mul(d), "the points, converted")?;
        let rows_at_once = ((1 << 18) / d).max(1);
        values
            .par_chunks_mut(rows_at_once * d)
            .enumerate()
            .map(|(chunk, into)| {
                let first = chunk * rows_at_once;
                self.rows(first..first + into.len() / d, into)
            })
            .find_map_first(Result::err)
            .map_or(Ok(()), Err)?;
        Ok(ArrayD::from_shape_vec(IxDyn(self.shape()), values).map_err(invalid)?.into())
    }

    /// The rows of `range`, of [`n_rows`](Self::n_rows), converted into `into`, which holds
    /// `range.len() · d` values. For files that do not fit into memory at once.
    ///
    /// # Errors
    /// [`Error::Shape`] for a range or a buffer that does not fit, and as [`read`](Self::read).
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, write_npy};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.npy");
    /// write_npy(&path, array![[0.0f32, 1.0], [2.0, 3.0], [4.0, 5.0]].view())?;
    /// let file = PointFile::open(&path)?;
    /// let mut two_rows = [0.0f32; 4];
    /// file.rows(1..3, &mut two_rows)?;
    /// assert_eq!(two_rows, [2.0, 3.0, 4.0, 5.0]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn rows<T: Element>(&self, range: Range<usize>, into: &mut [T]) -> Result<()> {
        let d = self.n_features();
        if range.start > range.end || range.end > self.n_rows() {
            return Err(Error::Shape {
                what: "the range of rows",
                expected: format!("0..{} or a part of it", self.n_rows()),
                actual: format!("{range:?}"),
            });
        }
        if range.len() * d != into.len() {
            return Err(Error::Shape {
                what: "the buffer for rows",
                expected: format!("({}, {d})", range.len()),
                actual: format!("{} values", into.len()),
            });
        }
        if range.is_empty() {
            return Ok(());
        }
        let Layout { stored, column_stride, row_stride, prefixed, .. } = self.layout;
        if column_stride != stored.size_bytes() || row_stride < d * column_stride {
            // Rows that are spread over the whole file, or Fortran's order of a single one.
            let map = self.map()?;
            for (row, into) in range.zip(into.chunks_exact_mut(d)) {
                convert(stored, &map[self.layout.row_start(row)..], column_stride, into);
            }
            return Ok(());
        }
        if stored.is(T::DTYPE) && self.layout.is_contiguous() && cfg!(target_endian = "little") {
            let at = self.layout.row_start(range.start) as u64;
            return read_at(&self.file, at, bytemuck::cast_slice_mut(into))
                .map_err(|e| io_error(&self.path, e));
        }
        // Rows that follow one another, each with what stands before it.
        let before = row_stride - d * column_stride;
        let at_once = (READ_BYTES / row_stride).clamp(1, range.len());
        let mut bytes = filled(0u8, at_once * row_stride, "a part of the file")?;
        let mut first = range.start;
        for into in into.chunks_mut(at_once * d) {
            let rows = into.len() / d;
            let bytes = &mut bytes[..rows * row_stride];
            let at = (self.layout.row_start(first) - before) as u64;
            read_at(&self.file, at, bytes).map_err(|e| io_error(&self.path, e))?;
            if prefixed && let Some((row, found)) = odd_row(bytes, row_stride, 0..rows, d) {
                return Err(malformed(&self.path, odd_row_reason(first + row, found, d)));
            }
            if before == 0 {
                convert(stored, bytes, column_stride, into);
            } else {
                for (bytes, into) in bytes.chunks_exact(row_stride).zip(into.chunks_exact_mut(d)) {
                    convert(stored, &bytes[before..], column_stride, into);
                }
            }
            first += rows;
        }
        Ok(())
    }

    /// All points as the file's own memory, where it holds values of type `T` in row-major order: nothing is read.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be mapped.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, write_npy};
    /// # use ndarray::array;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.npy");
    /// write_npy(&path, array![[0.0f32, 1.0], [2.0, 3.0], [4.0, 5.0]].view())?;
    /// let file = PointFile::open(&path)?;
    /// assert_eq!(file.view::<f32>()?.map(|points| points[[2, 0]]), Some(4.0));
    /// assert!(file.view::<f64>()?.is_none());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn view<T: Element>(&self) -> Result<Option<ArrayViewD<'_, T>>> {
        let invalid = |_| malformed(&self.path, "has a shape that an array cannot have");
        let view = |values| ArrayViewD::from_shape(IxDyn(self.shape()), values).map_err(invalid);
        self.as_slice::<T>()?.map(view).transpose()
    }

    fn as_slice<T: Element>(&self) -> Result<Option<&[T]>> {
        let layout = &self.layout;
        if !layout.stored.is(T::DTYPE) || !layout.is_contiguous() || cfg!(target_endian = "big") {
            return Ok(None);
        }
        Ok(bytemuck::try_cast_slice(&self.map()?[layout.start..layout.end()]).ok())
    }
}

/// Fills `into` with the bytes of `file` from `at` on.
fn read_at(file: &File, at: u64, into: &mut [u8]) -> std::io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, into, at);
    #[cfg(windows)]
    {
        let (mut at, mut rest) = (at, into);
        while !rest.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(file, rest, at)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => {
                    at += count as u64;
                    rest = &mut rest[count..];
                }
            }
        }
        Ok(())
    }
}
