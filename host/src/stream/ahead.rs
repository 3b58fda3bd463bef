//! Reading ahead: a thread fills buffers while the worker works on those before.
use super::{Source, read_rows};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::lloyd::{Feed, Worker, in_order};
use crate::points::check_finite;
use std::ops::Range;
use std::sync::mpsc;

/// Chunks in memory at a time: one that the worker works on, one that is ready, one that is being read.
pub(super) const BUFFERS: usize = 3;

/// The chunks of rows `rows` of a source, which a worker knows as rows from 0 on.
pub(super) struct Ahead<'a, T> {
    pub(super) source: &'a dyn Source<T>,
    pub(super) rows: Range<usize>,
    pub(super) chunk_rows: usize,
    /// Whether the points have yet to be found finite.
    pub(super) unchecked: bool,
}

impl<T: Element, W: Worker<T>> Feed<T, W> for Ahead<'_, T> {
    fn pass(
        &mut self,
        worker: &mut W,
        seen: &dyn Fn(usize) -> Result<()>,
        free: &mut Vec<W::Buffer>,
    ) -> Result<()> {
        let (source, d, n, first) = (self.source, self.source.n_features(), self.rows.len(), self.rows.start);
        let chunk_rows = self.chunk_rows;
        let chunks = in_order(worker, n, chunk_rows);
        let wanted = chunks.iter().filter(|(_, is_kept)| !is_kept).map(|(rows, _)| rows.clone());
        let wanted: Vec<Range<usize>> = wanted.collect();
        while free.len() < BUFFERS.min(wanted.len()) {
            free.push(worker.buffer(chunk_rows)?);
        }
        let unchecked = std::mem::replace(&mut self.unchecked, false);
        let (to_fill, empty) = mpsc::channel::<W::Buffer>();
        let (filled, to_add) = mpsc::channel();
        std::thread::scope(|scope| {
            let read = move || {
                for rows in wanted {
                    let Ok(mut buffer) = empty.recv() else { break };
                    let values = &mut buffer[..rows.len() * d];
                    let row = first + rows.start;
                    let mut done = source.read(row..row + rows.len(), values);
                    if unchecked {
                        done = done.and_then(|()| check_finite(values, row, d));
                    }
                    let failed = done.is_err();
                    if filled.send(done.map(|()| buffer)).is_err() || failed {
                        break;
                    }
                }
                empty
            };
            let no_thread = |e: std::io::Error| Error::Source { row: first, source: e.into() };
            let name = "flash-kmeans-read".to_string();
            let reader =
                std::thread::Builder::new().name(name).spawn_scoped(scope, read).map_err(no_thread)?;
            let add = || {
                let mut done = 0;
                for (rows, is_kept) in chunks {
                    // The reader has gone through all of them or is waiting: there is no loss in an error here.
                    free.drain(..).for_each(|buffer| drop(to_fill.send(buffer)));
                    let points = if is_kept {
                        None
                    } else {
                        match to_add.recv() {
                            Ok(read) => Some(read?),
                            Err(_) => break,
                        }
                    };
                    done += rows.len();
                    worker.add(rows, points, free)?;
                    seen(done)?;
                }
                Ok(())
            };
            let added = add();
            drop((to_fill, to_add));
            match reader.join() {
                Ok(empty) => free.extend(empty.try_iter()),
                Err(panic) => std::panic::resume_unwind(panic),
            }
            added
        })
    }

    fn read(&mut self, rows: &[usize], into: &mut [T]) -> Result<()> {
        read_rows(self.source, rows.iter().map(|row| self.rows.start + row), into)
    }
}
