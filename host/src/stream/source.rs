//! Where points come from when they are read a chunk at a time.
use crate::element::Element;
use crate::error::{Error, Result};
use crate::io::PointFile;
use crate::process;
use ndarray::{Array2, ArrayBase, Data, Ix2};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Points, `(n, d)`, that are read a range of rows at a time, as often as a fit has iterations. Each time they are the
/// same.
///
/// Arrays, [`PointFile`]s (all rows of a batch are one set of points then) and [`Chunks`] are sources.
///
/// # Examples
/// ```
/// use flash_kmeans::{FlashKMeans, Result, Source, Streaming};
/// use std::ops::Range;
///
/// /// The whole numbers below one.
/// struct Below(usize);
///
/// impl Source<f32> for Below {
///     fn n_points(&self) -> usize {
///         self.0
///     }
///
///     fn n_features(&self) -> usize {
///         1
///     }
///
///     fn read(&self, rows: Range<usize>, into: &mut [f32]) -> Result<()> {
///         rows.zip(into).for_each(|(row, value)| *value = row as f32);
///         Ok(())
///     }
/// }
///
/// let model = FlashKMeans::new(1).fit_stream(&Below(5), &Streaming::new(), &mut ())?;
/// assert_eq!(model.centroids()[(0, 0)], 2.0);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
pub trait Source<T: Element>: Sync {
    /// Points.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::Source;
    /// # use ndarray::array;
    /// let points = array![[0.0f32, 1.0], [8.0, 9.0]];
    /// assert_eq!(Source::n_points(&points), 2);
    /// ```
    fn n_points(&self) -> usize;

    /// Coordinates of each.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::Source;
    /// # use ndarray::array;
    /// let points = array![[0.0f32, 1.0], [8.0, 9.0]];
    /// assert_eq!(Source::n_features(&points), 2);
    /// ```
    fn n_features(&self) -> usize;

    /// Reads `rows`, a part of `0..n`, into `into`: `rows.len() · d` values. A pass asks for rows in ascending order,
    /// from one thread at a time.
    ///
    /// # Errors
    /// What the source cannot help; [`Error::Source`] where no other variant fits.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::Source;
    /// # use ndarray::array;
    /// let points = array![[0.0f32, 1.0], [8.0, 9.0]];
    /// let mut row = [0.0; 2];
    /// Source::read(&points, 1..2, &mut row)?;
    /// assert_eq!(row, [8.0, 9.0]);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    fn read(&self, rows: Range<usize>, into: &mut [T]) -> Result<()>;

    /// A weight for each point, see [`Weighted`](crate::Weighted); none where all count alike.
    ///
    /// # Examples
    /// ```
    /// # use flash_kmeans::{Source, Weighted};
    /// # use ndarray::array;
    /// let points = array![[0.0f32, 1.0], [8.0, 9.0]];
    /// assert_eq!(Source::weights(&points), None);
    /// assert_eq!(Source::weights(&Weighted::new(&points, &[1.0, 0.5])), Some(&[1.0, 0.5][..]));
    /// ```
    fn weights(&self) -> Option<&[f64]> {
        None
    }
}

impl<T: Element, S: Data<Elem = T> + Sync> Source<T> for ArrayBase<S, Ix2> {
    fn n_points(&self) -> usize {
        self.nrows()
    }

    fn n_features(&self) -> usize {
        self.ncols()
    }

    fn read(&self, rows: Range<usize>, into: &mut [T]) -> Result<()> {
        /// Values that one task copies.
        const VALUES: usize = 1 << 18;
        let part = self.slice(ndarray::s![rows, ..]);
        match part.as_slice() {
            // The thread that reads ahead is in no pool.
            Some(values) if process::check_threads().is_ok() => {
                let tasks = into.par_chunks_mut(VALUES).zip(values.par_chunks(VALUES));
                tasks.for_each(|(to, from)| to.copy_from_slice(from));
            }
            _ => into.iter_mut().zip(part).for_each(|(to, from)| *to = *from),
        }
        Ok(())
    }
}

impl<T: Element> Source<T> for PointFile {
    fn n_points(&self) -> usize {
        self.n_rows()
    }

    fn n_features(&self) -> usize {
        PointFile::n_features(self)
    }

    fn read(&self, rows: Range<usize>, into: &mut [T]) -> Result<()> {
        /// Values that a thread is worth being started for, and threads at most.
        const VALUES: usize = 1 << 20;
        const THREADS: usize = 8;
        let d = PointFile::n_features(self);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (into.len() / VALUES).clamp(1, cores.min(THREADS));
        let of_thread = rows.len().div_ceil(threads).max(1);
        let part = |at: usize, into: &mut [T]| {
            let first = rows.start + at * of_thread;
            self.rows(first..first + into.len() / d, into)
        };
        // Not rayon's threads, which compute meanwhile: these wait for the disk.
        std::thread::scope(|scope| {
            let mut reads = Vec::new();
            for (at, into) in into.chunks_mut(of_thread * d).enumerate() {
                if at + 1 == threads {
                    part(at, into)?;
                } else {
                    let read = std::thread::Builder::new().spawn_scoped(scope, move || part(at, into));
                    reads.push(read.map_err(|e| Error::Source { row: rows.start, source: e.into() })?);
                }
            }
            reads.into_iter().try_for_each(|read| match read.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }
}

/// Points from an iterator over chunks of them, of any number of rows, that is made anew for each pass.
///
/// ```
/// use flash_kmeans::{Backend, Chunks, FlashKMeans, Streaming};
/// use ndarray::Array2;
///
/// // A thousand points a chunk, from wherever they come.
/// let chunk = |at: usize| Array2::from_shape_fn((1000, 2), |(i, j)| ((at * 1000 + i) * 37 + j * 11) as f32 % 101.0);
/// let source = Chunks::new(|| (0..5).map(|at| Ok::<_, std::io::Error>(chunk(at))))?;
///
/// let model = FlashKMeans::new(8).backend(Backend::Cpu).fit_stream(&source, &Streaming::new(), &mut ())?;
/// assert_eq!(model.labels().len(), 5000);
/// # Ok::<(), flash_kmeans::Error>(())
/// ```
pub struct Chunks<T, F, I> {
    make: F,
    n: usize,
    d: usize,
    place: Mutex<Option<Place<T, I>>>,
    points: PhantomData<fn() -> T>,
}

/// An iterator on its way.
struct Place<T, I> {
    iterator: I,
    /// Its last chunk.
    chunk: Array2<T>,
    /// The chunk's first row.
    row: usize,
}

impl<T, F, I, E> Chunks<T, F, I>
where
    T: Element,
    F: Fn() -> I + Sync,
    I: Iterator<Item = std::result::Result<Array2<T>, E>> + Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Counts the points that `make` gives, in one pass.
    ///
    /// # Errors
    /// [`Error::Source`] for an error of the iterator, [`Error::Shape`] for chunks of different widths.
    ///
    /// # Examples
    /// ```
    /// use flash_kmeans::{Chunks, Source};
    /// use ndarray::array;
    ///
    /// let chunks = || [array![[0.0f32], [1.0]], array![[8.0]]].map(Ok::<_, std::io::Error>).into_iter();
    /// assert_eq!(Chunks::new(chunks)?.n_points(), 3);
    /// # Ok::<(), flash_kmeans::Error>(())
    /// ```
    pub fn new(make: F) -> Result<Self> {
        let (mut n, mut d) = (0, None);
        for chunk in make() {
            let chunk = chunk.map_err(|e| Error::Source { row: n, source: e.into() })?;
            check_width(&chunk, *d.get_or_insert(chunk.ncols()))?;
            n += chunk.nrows();
        }
        Ok(Chunks { make, n, d: d.unwrap_or(0), place: Mutex::new(None), points: PhantomData })
    }
}

impl<T, F, I, E> Source<T> for Chunks<T, F, I>
where
    T: Element,
    F: Fn() -> I + Sync,
    I: Iterator<Item = std::result::Result<Array2<T>, E>> + Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn n_points(&self) -> usize {
        self.n
    }

    fn n_features(&self) -> usize {
        self.d
    }

    fn read(&self, rows: Range<usize>, into: &mut [T]) -> Result<()> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = match place.take() {
            Some(now) if now.row <= rows.start => now,
            _ => {
                Place { iterator: (self.make)(), chunk: Array2::from_elem((0, self.d), T::zeroed()), row: 0 }
            }
        };
        let mut next = rows.start;
        while next < rows.end {
            let after = now.row + now.chunk.nrows();
            if next >= after {
                let ended = || Error::Source {
                    row: after,
                    source: format!("the chunks ended, and there were {} points before", self.n).into(),
                };
                let chunk = now.iterator.next().ok_or_else(ended)?;
                now.chunk = chunk.map_err(|e| Error::Source { row: after, source: e.into() })?;
                now.row = after;
                check_width(&now.chunk, self.d)?;
                continue;
            }
            let last = rows.end.min(after);
            let to = &mut into[(next - rows.start) * self.d..(last - rows.start) * self.d];
            Source::read(&now.chunk, next - now.row..last - now.row, to)?;
            next = last;
        }
        *place = Some(now);
        Ok(())
    }
}

fn check_width<T>(chunk: &Array2<T>, d: usize) -> Result<()> {
    if chunk.ncols() == d {
        return Ok(());
    }
    let (expected, actual) = (format!("(any, {d})"), format!("{:?}", chunk.dim()));
    Err(Error::Shape { what: "a chunk of the points", expected, actual })
}
