//! The writers.
use super::convert::{Value, le_bytes};
use super::format::Format;
use super::{StoredType, io_error, malformed, npy};
use crate::error::{Error, Result};
use ndarray::{ArrayView, Dimension};
use std::io::{BufWriter, ErrorKind, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes `array` to `path` as a `.npy` file.
///
/// # Errors
/// [`Error::Io`]; nothing of the final name is left then.
///
/// # Examples
/// ```
/// use flash_kmeans::io::{PointFile, write_npy};
/// use ndarray::array;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("points.npy");
/// write_npy(&path, array![[0.0f32, 1.0], [2.0, 3.0]].view())?;
/// assert_eq!(PointFile::open(&path)?.shape(), [2, 2]);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
pub fn write_npy<A: Value, D: Dimension>(path: impl AsRef<Path>, array: ArrayView<'_, A, D>) -> Result<()> {
    write_atomically(path, |out| {
        out.write_all(&npy::header(A::DESCR, array.shape()))?;
        match array.as_slice() {
            Some(values) => out.write_all(&le_bytes(values)),
            None => array.iter().try_for_each(|value| out.write_all(&le_bytes(std::slice::from_ref(value)))),
        }
    })
}

/// Writes a file of any kind by way of a temporary name in the same folder, so that the final name only ever
/// has a whole file.
///
/// # Errors
/// [`Error::Io`], also for an error that `write` returns.
///
/// # Examples
/// ```
/// use flash_kmeans::io::write_atomically;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("inertia.txt");
/// write_atomically(&path, |out| out.write_all(b"1.0"))?;
/// assert_eq!(std::fs::read(&path).unwrap(), b"1.0");
/// // A write that fails leaves what was there.
/// assert!(write_atomically(&path, |_| Err(std::io::ErrorKind::Other.into())).is_err());
/// assert_eq!(std::fs::read(&path).unwrap(), b"1.0");
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
pub fn write_atomically(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let mut pending = Pending::create(path)?;
    write(&mut pending.out).map_err(|e| io_error(path, e))?;
    pending.commit()
}

/// Whether a file could be written to `path`: tries its folder with a temporary file, which is removed.
/// The path itself is left as it is.
///
/// # Errors
/// [`Error::Io`] with the reason.
///
/// # Examples
/// ```
/// use flash_kmeans::io::check_writable;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// check_writable(folder.join("labels.npy"))?;
/// assert!(check_writable(folder.join("no/such/folder/labels.npy")).is_err());
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
pub fn check_writable(path: impl AsRef<Path>) -> Result<()> {
    Pending::create(path.as_ref()).map(drop)
}

/// Writes points a few rows at a time; the extension says the format.
///
/// # Examples
/// ```
/// use flash_kmeans::io::{PointFile, PointWriter};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("points.fbin");
/// let mut out = PointWriter::create(&path, &[1000, 2])?;
/// for at in 0..10 {
///     out.write_rows(&[at as f32; 200])?;
/// }
/// out.finish()?;
/// assert_eq!(PointFile::open(&path)?.n_points(), 1000);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
#[derive(Debug)]
pub struct PointWriter<A: Value> {
    pending: Pending,
    format: Format,
    d: usize,
    rows_left: usize,
    value: PhantomData<A>,
}

impl<A: Value> PointWriter<A> {
    /// Begins a file of `shape`, `(n, d)` or, `.npy` alone, `(batch, n, d)`.
    ///
    /// # Errors
    /// [`Error::Format`] when the format cannot hold such points, [`Error::Io`].
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, PointWriter};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.fbin");
    /// let out = PointWriter::<f32>::create(&path, &[3, 2])?;
    /// # drop(out);
    /// // No integers of 32 bits in `.fbin`.
    /// assert!(PointWriter::<u32>::create(&path, &[3, 2]).is_err());
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn create(path: impl AsRef<Path>, shape: &[usize]) -> Result<Self> {
        let path = path.as_ref();
        let format = Format::of(path).map_err(|reason| malformed(path, reason))?;
        let refuse = |reason: String| Err(malformed(path, reason));
        let (rows, d) = match (shape, format) {
            (&[n, d], _) => (Some(n), d),
            (&[batch, n, d], Format::Npy) => (batch.checked_mul(n), d),
            ([_, _, _], _) => return refuse("cannot hold a batch; write a .npy file".into()),
            _ => return refuse(format!("cannot hold {} dimensions", shape.len())),
        };
        let bytes = rows.and_then(|rows| rows.checked_mul(d)).and_then(|v| v.checked_mul(size_of::<A>()));
        let (Some(rows_left), Some(_)) = (rows, bytes) else {
            return refuse(format!("cannot be as large as shape {shape:?} needs"));
        };
        if let Format::Vecs(stored) | Format::Bin(stored) = format {
            let needed = if stored == StoredType::U8 { u8::DESCR } else { f32::DESCR };
            if A::DESCR != needed {
                return refuse(format!(
                    "cannot hold '{}' values, only '{needed}'; write a .npy file",
                    A::DESCR
                ));
            }
            if i32::try_from(d).is_err() || u32::try_from(rows_left).is_err() {
                return refuse(format!("cannot hold shape {shape:?}: its counts are 32-bit"));
            }
        }
        let mut writer =
            PointWriter { pending: Pending::create(path)?, format, d, rows_left, value: PhantomData };
        match format {
            Format::Npy => writer.pending.write(&npy::header(A::DESCR, shape))?,
            Format::Vecs(_) => {}
            Format::Bin(_) => {
                let counts = [rows_left as u32, d as u32];
                counts.iter().try_for_each(|count| writer.pending.write(&count.to_le_bytes()))?;
            }
        }
        Ok(writer)
    }

    /// Writes the next rows: `values` is a multiple of `d` long.
    ///
    /// # Errors
    /// [`Error::Shape`] when that is not so, or there are more rows than the shape has; [`Error::Io`].
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, PointWriter};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.fbin");
    /// let mut out = PointWriter::create(&path, &[3, 2])?;
    /// out.write_rows(&[0.0f32, 1.0])?;
    /// out.write_rows(&[2.0, 3.0, 4.0, 5.0])?;
    /// assert!(out.write_rows(&[6.0, 7.0]).is_err(), "three rows, and no more");
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn write_rows(&mut self, values: &[A]) -> Result<()> {
        let rows = values.len().checked_div(self.d).unwrap_or(0);
        if rows > self.rows_left || rows * self.d != values.len() {
            return Err(Error::Shape {
                what: "the rows written",
                expected: format!("(at most {}, {})", self.rows_left, self.d),
                actual: format!("{} values", values.len()),
            });
        }
        self.rows_left -= rows;
        if let Format::Vecs(_) = self.format {
            let prefix = (self.d as u32).to_le_bytes();
            for row in values.chunks_exact(self.d) {
                self.pending.write(&prefix)?;
                self.pending.write(&le_bytes(row))?;
            }
            return Ok(());
        }
        self.pending.write(&le_bytes(values))
    }

    /// Gives the file its name. A writer that is dropped without this leaves nothing.
    ///
    /// # Errors
    /// [`Error::Shape`] when rows are missing, [`Error::Io`].
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::io::{PointFile, PointWriter};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("points.fbin");
    /// let mut out = PointWriter::create(&path, &[1, 2])?;
    /// out.write_rows(&[0.0f32, 1.0])?;
    /// assert!(!path.exists());
    /// out.finish()?;
    /// assert_eq!(PointFile::open(&path)?.shape(), [1, 2]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn finish(self) -> Result<()> {
        if self.rows_left != 0 {
            return Err(Error::Shape {
                what: "the rows written",
                expected: "as many rows as the shape says".into(),
                actual: format!("{} rows too few", self.rows_left),
            });
        }
        self.pending.commit()
    }
}

/// A file under a temporary name in the target's folder, removed on drop unless it was committed.
#[derive(Debug)]
struct Pending {
    out: BufWriter<NamedTempFile>,
    target: PathBuf,
}

impl Pending {
    fn create(path: &Path) -> Result<Self> {
        let fail = |source| io_error(path, source);
        let invalid = |what| Err(fail(std::io::Error::new(ErrorKind::InvalidInput, what)));
        // A link is followed, so that the file it names is replaced and not the link.
        let (target, old) = match path.canonicalize() {
            Ok(target) => {
                let old = target.metadata().map_err(fail)?;
                if !old.is_file() {
                    return invalid("is there and is not a regular file");
                }
                (target, Some(old.permissions()))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => (path.to_path_buf(), None),
            Err(e) => return Err(fail(e)),
        };
        if target.file_name().is_none() {
            return invalid("names no file");
        }
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        builder.prefix(".flash-kmeans-").suffix(".tmp");
        #[cfg(unix)]
        builder.permissions(old.unwrap_or_else(|| std::os::unix::fs::PermissionsExt::from_mode(0o666)));
        let file = builder.tempfile_in(folder.unwrap_or(Path::new("."))).map_err(|e| {
            // Without the temporary path, which says nothing to the caller.
            fail(e.raw_os_error().map_or_else(|| e.kind().into(), std::io::Error::from_raw_os_error))
        })?;
        Ok(Pending { out: BufWriter::with_capacity(1 << 20, file), target })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| io_error(&self.target, e))
    }

    fn commit(self) -> Result<()> {
        let Pending { out, target } = self;
        let fail = |e| io_error(&target, e);
        let file = out.into_inner().map_err(|e| fail(e.into_error()))?;
        file.as_file().sync_all().map_err(fail)?;
        // What cannot be renamed is removed, as the error owns it.
        file.persist(&target).map_err(|e| fail(e.error))?;
        Ok(())
    }
}
