//! A problem in parts: chunks of whole panels, on one or several GPUs, in their memory as far as that has room.
//!
//! ```text
//! chunk   points -> labels -> sorted rows -> sums of its panels     a call of its own, in turns on two streams
//! total   sums of all panels -> centroids                           one a GPU; the first GPU's adds up
//! ```
//! A chunk stays on its GPU while there is room; the others go through two calls in turns, so that one is copied while
//! the other is worked on, and the next pass begins with the last two. The means are added from panels in their order,
//! whichever chunk or GPU they were summed on: the bits are those of a fit of all points at once.
use super::*;
use crate::backend::totals::Totals;
use crate::lloyd::{Found, Pass};
use crate::memory::zeroed;
use crate::relocate::{Donor, Search};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Device memory that is left to others.
const SPARE_BYTES: u64 = 512 << 20;
/// Calls that chunks which do not stay go through.
const TURNS: usize = 2;
/// Streams that chunks which stay take in turns, so that what one has too little work for, the next fills. With one for each
/// chunk, the driver's queues, of which there are eight, have chunks wait for copies of points that they share one with.
const STREAMS: usize = 2;

/// The parts of one problem.
pub(crate) struct Parts<T: GpuElement> {
    shards: Vec<Shard<T>>,
    shape: Shape,
    pass: Pass,
    /// For points that are rounded: their frame's, or found from the first pass's centroids.
    centre: Vec<f32>,
    /// The pass's centroids, where empty clusters are counted.
    under: Vec<f32>,
    /// While points are looked for, and not labelled.
    search: Option<Search>,
    /// Those of a pass that only labels, once it has ended.
    labels: Vec<u32>,
}

/// The rows of one GPU.
struct Shard<T: GpuElement> {
    rows: Range<usize>,
    chunk_rows: usize,
    cut: Cut,
    frame: Option<Frame>,
    total: Call<T>,
    /// Those that have a chunk, by its first row: chunks that stay, which are the first, and the last of the others.
    chunks: BTreeMap<usize, Chunk<T>>,
    /// The first rows of the others, the one used longest ago in front.
    turns: VecDeque<usize>,
    /// Has none yet.
    unused: Option<Chunk<T>>,
    /// Chunks that may yet stay.
    room: usize,
    /// Chunks that may be there at a time.
    most: usize,
    /// Of chunks that stay.
    streams: [Arc<Stream>; STREAMS],
    /// Of the others, one each, so that a copy to one need not wait for the work on the other. They go first, for copies wait.
    urgent: [Arc<Stream>; TURNS],
    copies: Copies,
}

/// A place for a chunk.
struct Chunk<T: GpuElement> {
    call: Call<T>,
    /// The end of the work on the chunk that it has, or had: it may be written to then.
    end: Arc<Mark>,
}

/// Copies of page-locked points, one after the other. Each waits until the work on the chunk before the last is done: what is
/// behind it in the queue of a GPU's copies waits for it, such as the copies that this work begins with.
struct Copies {
    stream: Stream,
    /// The ends of the work on the last chunks.
    ends: VecDeque<Arc<Mark>>,
}

impl<T: GpuElement> Parts<T> {
    /// For `n` points, of which `first` is the first, with weights and a frame where they have some, in chunks of
    /// `chunk_rows` rows, on `devices`; on each in at most `memory` bytes.
    pub(crate) fn new(
        devices: &[Device],
        ([n, k], by): ([usize; 2], By),
        first: &[T],
        (weights, frame): (Option<&[f64]>, Option<Frame>),
        chunk_rows: usize,
        memory: Option<u64>,
    ) -> Result<Self> {
        let shape = shape_of::<T>([1, n, first.len()], k)?;
        let chunks = n.div_ceil(chunk_rows);
        let shards = devices.iter().enumerate().map(|(at, device)| {
            let border = |at: usize| (chunks * at / devices.len() * chunk_rows).min(n);
            let rows = border(at)..border(at + 1);
            let frame = frame.clone();
            let shard = Shard::new(device, (shape, by), rows, (first, frame), chunk_rows, memory)?;
            weights.map_or(Ok(()), |weights| shard.total.set_weights(weights))?;
            Ok(shard)
        });
        let shards = shards.collect::<Result<Vec<_>>>()?;
        for one in &shards {
            for other in &shards {
                one.total.device.reach(&other.total.device)?;
            }
        }
        let centre = frame.map_or(Vec::new(), |frame| frame.centre);
        let (under, labels) = (Vec::new(), Vec::new());
        Ok(Parts { shards, shape, pass: Pass::LABELS, centre, under, search: None, labels })
    }

    /// Rows that chunks are made of: whole panels, and whole blocks of the inertia. Both are powers of two, or all rows.
    pub(crate) fn panel_rows(n: usize, k: usize) -> Result<usize> {
        let panel = Panels::of(small("n", n)?, small("k", k)?).len;
        Ok(n.min(panel.max(INERTIA_ROWS) as usize))
    }

    /// Whether the chunk that begins at `row` is on its GPU: until the pass ends, or others than such are added.
    pub(crate) fn keeps(&self, row: usize) -> bool {
        self.shards.iter().any(|shard| shard.chunks.contains_key(&row))
    }

    /// Begins a pass under `centroids`, `k · d` values, rounded to the points' type.
    pub(crate) fn begin(&mut self, centroids: &[f32], pass: Pass) -> Result<()> {
        self.pass = pass;
        self.search = None;
        self.labels = Vec::new();
        if pass.empty {
            self.under.clear();
            self.under.extend_from_slice(centroids);
        }
        if T::ROUNDS && self.centre.is_empty() {
            self.centre = hopper::centres(centroids, self.shape.k as usize, self.shape.d as usize);
        }
        self.begin_under(centroids)
    }

    /// Gives all GPUs the centroids: one takes them from the host, the others from it.
    fn begin_under(&self, centroids: &[f32]) -> Result<()> {
        let Some((first, others)) = self.shards.split_first() else { return Err(no_points()) };
        first.total.device.enter()?;
        first.total.upload(first.total.places.given, centroids)?;
        first.total.upload(first.total.places.centre, &self.centre)?;
        first.total.begin_total()?;
        // Parts and other GPUs read this on streams of their own.
        first.total.wait()?;
        for other in others {
            let total = &other.total;
            total.device.enter()?;
            total.copy(total.places.given, &first.total, first.total.places.given)?;
            total.copy(total.places.centre, &first.total, first.total.places.centre)?;
            total.begin_total()?;
        }
        others.iter().try_for_each(|other| other.total.wait())
    }

    /// Takes the next chunk: `points` where they are not kept. Those that `is_locked` says are page-locked must stay as
    /// they are until the event that is returned, or the end of the pass.
    pub(crate) fn add(
        &mut self,
        rows: Range<usize>,
        points: Option<&[T]>,
        is_locked: bool,
    ) -> Result<Option<Mark>> {
        let pass = self.pass;
        let shard = self.shards.iter_mut().find(|shard| shard.rows.contains(&rows.start));
        let shard = shard.ok_or_else(no_points)?;
        shard.total.device.enter()?;
        let Some(points) = points else {
            match &mut self.search {
                Some(search) => shard.chunk(rows.start)?.call.show_to(search, rows.start)?,
                None => shard.run_kept(rows.start, pass)?,
            }
            shard.use_turn(rows.start);
            return Ok(None);
        };
        let mut chunk = shard.next()?;
        chunk.call.set_rows(rows.len())?;
        let copies = if is_locked { Some((shard.copies.next()?, &*chunk.end)) } else { None };
        let copied = chunk.call.take(&shard.total, rows.start, points, copies)?;
        match &mut self.search {
            Some(search) => chunk.call.show_to(search, rows.start)?,
            None => chunk.call.run_part(&shard.total, rows.start, pass)?,
        }
        chunk.end.set(&chunk.call.stream)?;
        if is_locked {
            shard.copies.ends.push_back(chunk.end.clone());
        }
        shard.insert(rows.start, chunk);
        Ok(copied)
    }

    /// Whether all chunks are on their GPUs.
    pub(crate) fn keeps_all(&self) -> bool {
        self.shards.iter().all(|shard| shard.chunks.len() == shard.rows.len().div_ceil(shard.chunk_rows))
    }

    /// Takes all chunks, which are kept; each GPU's launches from a thread of its own.
    pub(crate) fn add_kept(&mut self) -> Result<()> {
        if let Some(search) = &mut self.search {
            return self.shards.iter().try_for_each(|shard| {
                shard.total.device.enter()?;
                shard.chunks.iter().try_for_each(|(&row, chunk)| chunk.call.show_to(search, row))
            });
        }
        let pass = self.pass;
        if let [shard] = self.shards.as_slice() {
            return shard.run_all(pass);
        }
        std::thread::scope(|scope| {
            let launch = |shard: &'_ mut Shard<T>| shard.run_all(pass);
            let threads: Vec<_> =
                self.shards.iter_mut().map(|shard| scope.spawn(move || launch(shard))).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    /// Waits until the points of all chunks added so far are copied, and for all else that is under way.
    pub(crate) fn wait(&mut self) -> Result<()> {
        for shard in &mut self.shards {
            shard.total.device.enter()?;
            shard.chunks.values().try_for_each(|chunk| chunk.call.wait())?;
            shard.total.wait()?;
            shard.copies.stream.synchronize().map_err(|code| failed("waiting for copies", code))?;
            // The next pass moves these marks.
            shard.copies.ends.clear();
        }
        Ok(())
    }

    /// Ends the pass: the means in place of `centroids`, where it was for sums.
    pub(crate) fn finish(&mut self, centroids: &mut [f32]) -> Result<Found> {
        let pass = self.pass;
        self.gather()?.end_total(centroids, pass)
    }

    /// Ends the pass as one of several processes: what its points add up to, into `totals`, which are zeros.
    pub(crate) fn finish_share(&mut self, totals: &mut Totals) -> Result<Pass> {
        let pass = self.pass;
        self.gather()?.end_share(totals, pass)?;
        Ok(pass)
    }

    /// Waits for the pass: the first GPU's total, which has been handed everything.
    fn gather(&mut self) -> Result<&Call<T>> {
        if !self.pass.sums {
            self.labels = self.download_labels()?;
        }
        self.wait()?;
        let Some((first, others)) = self.shards.split_first() else { return Err(no_points()) };
        // All links at once.
        for other in others {
            other.total.device.enter()?;
            other.total.hand_over(&first.total, other.rows.clone(), self.pass, false)?;
        }
        others.iter().try_for_each(|other| other.total.wait())?;
        first.total.device.enter()?;
        Ok(&first.total)
    }

    /// Begins to look for the `most` points farthest from their centroids, after a pass that has counted empty clusters.
    pub(crate) fn begin_search(&mut self, most: usize) -> Result<()> {
        self.search = Some(Search::new(most, self.shape.k as usize)?);
        self.begin_under(&self.under)
    }

    /// What was found.
    pub(crate) fn end_search(&mut self) -> Result<Search> {
        self.wait()?;
        self.search.take().ok_or_else(no_points)
    }

    /// What the sums of clusters with these counts were, where their centroids do not tell: `d` values each.
    pub(crate) fn sums(&self, clusters: &[Donor]) -> Result<Vec<f64>> {
        let total = &self.shards.first().ok_or_else(no_points)?.total;
        total.device.enter()?;
        let means = total.means_of_sums()?.ok_or_else(no_points)?;
        Ok(clusters.iter().flat_map(|donor| means.sum(donor.cluster, donor.count as f64)).collect())
    }

    /// The labels of the last pass.
    pub(crate) fn take_labels(&mut self) -> Result<Vec<u32>> {
        if self.labels.is_empty() { self.download_labels() } else { Ok(std::mem::take(&mut self.labels)) }
    }

    /// The labels of the pass, each chunk's as soon as they are there.
    fn download_labels(&self) -> Result<Vec<u32>> {
        let mut labels = zeroed(self.shape.n as usize, "the labels")?;
        for shard in &self.shards {
            let total = &shard.total;
            total.device.enter()?;
            let mut download = |rows: Range<usize>| {
                let place = total.places.labels.part(rows.start, rows.len());
                total.arena()?.download_into(&total.device, &total.stream, place, &mut labels[rows])
            };
            let mut end = shard.rows.start;
            for (&row, chunk) in shard.chunks.iter().take(shard.lasting()) {
                // Not for what others have launched on its stream since.
                chunk.end.wait()?;
                end = row + chunk.call.shape.n as usize;
                download(row..end)?;
            }
            // Chunks that do not stay follow those that do.
            shard.chunks.values().try_for_each(|chunk| chunk.end.wait())?;
            download(end..shard.rows.end)?;
        }
        Ok(labels)
    }
}

impl<T: GpuElement> Shard<T> {
    fn new(
        device: &Device,
        (shape, by): (Shape, By),
        rows: Range<usize>,
        (first, frame): (&[T], Option<Frame>),
        chunk_rows: usize,
        memory: Option<u64>,
    ) -> Result<Self> {
        let cut = Cut::of(shape);
        let (n, k, d) = (shape.n as usize, shape.k as usize, shape.d as usize);
        let total = Call::<T>::new(device, [1, n, d], (k, by), Role::Total(cut))?;
        total.set_origin(first)?;
        total.fill(total.places.labels, u32::MAX)?;
        let (stream, urgent) = (|| device.stream().map(Arc::new), || device.urgent_stream().map(Arc::new));
        let mut shard = Shard {
            cut,
            frame,
            total,
            chunks: BTreeMap::new(),
            turns: VecDeque::new(),
            unused: None,
            room: 0,
            most: 0,
            streams: [stream()?, stream()?],
            urgent: [urgent()?, urgent()?],
            copies: Copies { stream: device.stream()?, ends: VecDeque::new() },
            chunk_rows: chunk_rows.min(rows.len().max(1)),
            rows,
        };
        let used = shard.total.bytes();
        let free = device.free_bytes()?.saturating_sub(SPARE_BYTES);
        let free = memory.map_or(free, |memory| free.min(memory.saturating_sub(used)));
        // The first of all, to see what one takes.
        let chunk = shard.make(true)?;
        let bytes = chunk.call.bytes();
        let (fit, chunks) = ((free / bytes) as usize, shard.rows.len().div_ceil(chunk_rows));
        if fit == 0 {
            return Err(Error::OutOfDeviceMemory { requested: used + bytes, free: used + free });
        }
        shard.room = if fit >= chunks { chunks } else { fit.saturating_sub(TURNS) };
        shard.most = fit.min(chunks);
        shard.unused = Some(chunk);
        Ok(shard)
    }

    /// Takes all chunks, which are kept.
    fn run_all(&self, pass: Pass) -> Result<()> {
        self.total.device.enter()?;
        self.chunks.keys().try_for_each(|&row| self.run_kept(row, pass))
    }

    /// Takes a chunk that is kept.
    fn run_kept(&self, row: usize, pass: Pass) -> Result<()> {
        let chunk = self.chunk(row)?;
        // One after the other those whose places copies wait for, and then the rest: else all would share the multiprocessors.
        if let Some(&last) = self.turns.back() {
            self.chunk(last)?.end.hold(&chunk.call.stream)?;
        }
        chunk.call.run_kept(&self.total, row, pass)?;
        chunk.end.set(&chunk.call.stream)
    }

    fn chunk(&self, row: usize) -> Result<&Chunk<T>> {
        self.chunks.get(&row).ok_or_else(no_points)
    }

    /// Chunks that stay.
    fn lasting(&self) -> usize {
        self.chunks.len() - self.turns.len()
    }

    /// A place for a chunk that is on no GPU.
    fn next(&mut self) -> Result<Chunk<T>> {
        if let Some(chunk) = self.unused.take() {
            return Ok(chunk);
        }
        if self.chunks.len() < self.most {
            return self.make(self.room > 0);
        }
        let oldest = self.turns.pop_front().and_then(|row| self.chunks.remove(&row));
        oldest.ok_or_else(no_points)
    }

    /// Notes that `chunk` is the one that begins at `row`.
    fn insert(&mut self, row: usize, chunk: Chunk<T>) {
        self.chunks.insert(row, chunk);
        match self.room.checked_sub(1) {
            Some(room) => self.room = room,
            None => self.turns.push_back(row),
        }
    }

    /// Notes that the chunk that begins at `row` has been used.
    fn use_turn(&mut self, row: usize) {
        if let Some(at) = self.turns.iter().position(|&turn| turn == row) {
            self.turns.remove(at);
            self.turns.push_back(row);
        }
    }

    /// A place for a chunk, which stays, or for one after the other.
    fn make(&self, stays: bool) -> Result<Chunk<T>> {
        let (k, d) = (self.total.shape.k as usize, self.total.shape.d as usize);
        let (device, by) = (&self.total.device, self.total.by);
        let stream = if stays {
            &self.streams[self.chunks.len() % STREAMS]
        } else {
            &self.urgent[self.turns.len() % TURNS]
        };
        let sizes = [1, self.chunk_rows, d];
        let mut call = Call::<T>::on(stream.clone(), device, sizes, (k, by), Role::Part(self.cut))?;
        let mut plan = Plan::default();
        let place = plan.array(self.chunk_rows * call.shape.pitch as usize);
        let arena = self.total.device.arena(plan.bytes())?;
        // Between rows of the points there is nothing.
        arena.zero(&call.stream, place)?;
        call.points = Some(Points::Own { arena, place });
        call.frame = self.frame.clone();
        // The total takes all of these, also what is of clusters without points, which no launch writes: NaN, so that it
        // shows if one reads it.
        let update = call.update()?;
        call.fill(update.sums, f32::NAN.to_bits())?;
        call.fill(update.heads, f32::NAN.to_bits())?;
        // Copies of points follow the zeros.
        let end = Arc::new(Mark::of(&call.stream)?);
        Ok(Chunk { call, end })
    }
}

impl Copies {
    /// Their stream, for the next one.
    fn next(&mut self) -> Result<&Stream> {
        if self.ends.len() > 1
            && let Some(end) = self.ends.pop_front()
        {
            end.hold(&self.stream)?;
        }
        Ok(&self.stream)
    }
}

impl<T: GpuElement> Call<T> {
    /// Bytes of device memory.
    fn bytes(&self) -> u64 {
        let points = match &self.points {
            Some(Points::Own { arena, .. }) => arena.bytes(),
            _ => 0,
        };
        (points + self.arena.as_ref().map_or(0, Arena::bytes)) as u64
    }

    pub(in crate::backend::cuda) fn wait(&self) -> Result<()> {
        self.stream.synchronize().map_err(|code| failed("waiting for the device", code))
    }

    fn set_origin(&self, first: &[T]) -> Result<()> {
        let Some(origin) = self.places.origin else { return Err(no_points()) };
        // Parts copy all of its pitch.
        self.arena()?.zero(&self.stream, origin)?;
        self.upload(origin.part(0, first.len()), first)
    }

    /// Prepares a part for `rows` points, at most as many as it was made for.
    fn set_rows(&mut self, rows: usize) -> Result<()> {
        self.shape.n = small("n", rows)?;
        self.panels.count = self.shape.n.div_ceil(self.panels.len);
        self.moments.shape = self.shape;
        self.moments.tiles = self.shape.n.div_ceil(self.moments.rows);
        self.inertia = InertiaParams::by(self.shape, self.inertia.rows);
        Ok(())
    }

    /// Takes the points of a chunk and the pass's centroids, with the labels that the pass before left. Page-locked points are
    /// copied by the stream `copies`, when those before are done with, until the event that is returned.
    fn take(
        &mut self,
        total: &Call<T>,
        row: usize,
        points: &[T],
        copies: Option<(&Stream, &Mark)>,
    ) -> Result<Option<Mark>> {
        let Some(Points::Own { arena, place }) = &self.points else { return Err(no_points()) };
        // Before the points: in the queue of a GPU's copies, what comes after them waits for the next chunk's, too.
        self.copy(self.places.centre, total, total.places.centre)?;
        if let (Some(to), Some(from)) = (self.places.origin, total.places.origin) {
            self.copy(to, total, from)?;
        }
        self.copy(self.places.rounded, total, total.places.rounded)?;
        self.take_weights(total, row)?;
        self.slot.set(0);
        self.start_anew()?;
        let labels = self.places.labels.part(0, self.shape.n as usize);
        self.copy(labels, total, total.places.labels.part(row, labels.len()))?;
        let (d, pitch) = (self.shape.d as usize, self.shape.pitch as usize);
        let place = place.part(0, points.len() / d * pitch);
        let copied = if let Some((copies, end_of_last)) = copies {
            end_of_last.hold(copies)?;
            // SAFETY: the caller's promise to `Parts::add`.
            let copied = unsafe { arena.upload_locked(copies, place, points, d, pitch) };
            let copied = copied.and_then(|()| Mark::of(copies));
            let copied = copied.and_then(|copied| copied.hold(&self.stream).map(|()| copied));
            if copied.is_err() {
                // Nothing else waits for a copy that this call's stream does not know of. That the device is lost, and the copy
                // with it, is what the error says already.
                let _ = copies.synchronize();
            }
            Some(copied?)
        } else {
            arena.upload_rows(&self.device, &self.stream, (place, pitch), (points, d), |_, _| Ok(()))?;
            None
        };
        self.prepare()?;
        Ok(copied)
    }

    /// [`Self::run_part`] of points that stayed since the pass before: of the new one they lack the centroids.
    fn run_kept(&self, total: &Call<T>, row: usize, pass: Pass) -> Result<()> {
        self.copy(self.places.rounded, total, total.places.rounded)?;
        self.run_part(total, row, pass)
    }

    /// A chunk's share of a pass: labels, sums and statistics, for the total.
    fn run_part(&self, total: &Call<T>, row: usize, pass: Pass) -> Result<()> {
        self.assign(self.places.states)?;
        if pass.sums {
            self.costs()?;
            let update = self.update()?;
            let sorted = self.sort(update)?;
            self.sums(update, sorted)?;
        } else {
            self.inertia()?;
        }
        if pass.variance {
            self.moments()?;
        }
        self.hand_over(total, row..row + self.shape.n as usize, pass, true)
    }

    /// Copies what the rows of `self` have given to the total, or, of a total that is not `self`, its share of rows.
    fn hand_over(&self, total: &Call<T>, rows: Range<usize>, pass: Pass, is_part: bool) -> Result<()> {
        let (k, d) = (self.shape.k as usize, self.shape.d as usize);
        let pitch = sums_pitch(self.by.width(self.shape)) as usize;
        let panel_rows = self.panels.len as usize;
        let panels = [rows.start / panel_rows, rows.len().div_ceil(panel_rows)];
        let (from, to) = (self.update()?, total.update()?);
        let tiles_of = |rows: usize| tiles_of(Shape { n: rows as u32, ..self.shape }, self.hopper) as usize;
        let tiles = [tiles_of(rows.start), tiles_of(rows.len())];
        let each = |[first, count]: [usize; 2], values: usize| (first * values, count * values);
        let stream = &self.stream;
        /// Copies a range of one array to the same range of another; a part's begins at 0.
        macro_rules! copy {
            ($from:expr, $to:expr, $range:expr) => {{
                let (first, len) = $range;
                let source = $from.part(if is_part { 0 } else { first }, len);
                let target = $to.part(first, len);
                // SAFETY: both places have `len` values, in arenas that live until the streams have ended.
                unsafe { total.arena()?.copy(stream, target, self.at(source)?)? }
            }};
        }
        if pass.sums {
            copy!(from.sums, to.sums, each(panels, k * pitch));
            copy!(from.heads, to.heads, each(panels, self.panels.stretches() as usize * pitch));
            copy!(from.starts, to.starts, each(panels, k + 1));
        } else {
            let rows_of_part = self.inertia.rows as usize;
            let parts = [rows.start / rows_of_part, rows.len().div_ceil(rows_of_part)];
            copy!(self.places.partial, total.places.partial, each(parts, 1));
        }
        if pass.variance {
            let moment_rows = self.moments.rows as usize;
            let parts = [rows.start / moment_rows, rows.len().div_ceil(moment_rows)];
            copy!(from.first, to.first, each(parts, d));
            copy!(from.second, to.second, each(parts, d));
        }
        copy!(self.places.tile_cost, total.places.tile_cost, each(tiles, 1));
        copy!(self.places.tile_changed, total.places.tile_changed, each(tiles, 1));
        if is_part {
            copy!(self.places.labels, total.places.labels, (rows.start, rows.len()));
        }
        Ok(())
    }

    pub(super) fn copy<U>(&self, place: Place<U>, from: &Call<T>, source: Place<U>) -> Result<()> {
        let len = place.len().min(source.len());
        // SAFETY: both have `len` values, in arenas that live until the streams have ended; what wrote the source has
        // ended, for whoever began the pass or finished it waited.
        unsafe { self.arena()?.copy(&self.stream, place.part(0, len), from.at(source)?) }
    }

    /// Begins a pass under the given centroids.
    fn begin_total(&self) -> Result<()> {
        self.start_anew()?;
        // Nothing moves in a pass that only labels.
        self.arena()?.zero(&self.stream, self.update()?.moves)?;
        self.give_centroids(None, self.shape)
    }

    /// How many clusters have no points, or none of any mass, as the sums of the pass have them.
    fn empty(&self) -> Result<usize> {
        let has_none: Vec<bool> = match self.means_of_sums()? {
            Some(means) if self.by.has_masses() => {
                (0..self.shape.k as usize).map(|cluster| means.mass(cluster) == 0.0).collect()
            }
            _ => self.counts()?.into_iter().map(|count| count == 0).collect(),
        };
        Ok(has_none.into_iter().filter(|&has_none| has_none).count())
    }

    /// The points of each cluster, as the sums of the pass have them.
    fn counts(&self) -> Result<Vec<u64>> {
        let starts = self.update()?.starts;
        let starts = self.download(starts, starts.len())?;
        let mut counts = vec![0; self.shape.k as usize];
        for panel in starts.chunks_exact(counts.len() + 1) {
            for (count, bounds) in counts.iter_mut().zip(panel.windows(2)) {
                *count += u64::from(bounds[1] - bounds[0]);
            }
        }
        Ok(counts)
    }

    /// Ends a pass of which all parts have been handed over.
    fn end_total(&self, centroids: &mut [f32], pass: Pass) -> Result<Found> {
        let before = if pass.empty { centroids.to_vec() } else { Vec::new() };
        // By those that the pass began under, which lie there as they are, and not rounded.
        let stats = self.end_pass(pass)?;
        if pass.sums {
            let place = self.places.centroids;
            self.arena()?.download_into(&self.device, &self.stream, place, centroids)?;
        }
        let mean_variance = if pass.variance { self.variances()?.into_iter().sum() } else { 0.0 };
        let stays = |(after, before): (&[f32], &[f32])| after == before;
        let d = self.shape.d as usize;
        // A cluster that is empty is one that has not moved.
        let empty =
            if centroids.chunks_exact(d).zip(before.chunks_exact(d)).any(stays) { self.empty()? } else { 0 };
        Ok(Found { stats, mean_variance, empty })
    }

    /// [`Self::end_total`] where other processes have totals, too. A mean times its points is their sum, to the last bit but
    /// few of f32.
    fn end_share(&self, totals: &mut Totals, pass: Pass) -> Result<()> {
        let stats = self.end_pass(pass)?;
        let into = totals.parts();
        (*into.inertia, *into.changed) = (stats.inertia, stats.changed as f64);
        *into.points = f64::from(self.shape.n);
        if pass.variance {
            into.moments.copy_from_slice(&self.sums_of_moments()?.concat());
        }
        if !pass.sums {
            return Ok(());
        }
        let (means, counts) = (self.means_of_sums()?, self.counts()?);
        let centroids =
            if means.is_none() { self.download(self.places.centroids, into.sums.len())? } else { Vec::new() };
        for (cluster, sum) in into.sums.chunks_exact_mut(self.shape.d as usize).enumerate() {
            let count = counts[cluster] as f64;
            match &means {
                Some(means) => {
                    into.counts[cluster] = means.weight(cluster, count);
                    sum.iter_mut().zip(means.sum(cluster, count)).for_each(|(sum, of_here)| *sum = of_here);
                }
                None => {
                    into.counts[cluster] = count;
                    let mean = &centroids[cluster * sum.len()..][..sum.len()];
                    sum.iter_mut().zip(mean).for_each(|(sum, &mean)| *sum = count * f64::from(mean));
                }
            }
        }
        Ok(())
    }

    /// Means of the pass, where it was for sums, and its statistics.
    fn end_pass(&self, pass: Pass) -> Result<IterationStats> {
        let update = self.update()?;
        if pass.sums {
            self.means(update)?;
        }
        self.converge(update)?;
        let record: Vec<Record> = self.download(update.records, 1)?;
        let Record(record) = record.first().copied().ok_or_else(no_points)?;
        let mut stats = self.stats_of(record);
        if !pass.sums {
            stats.inertia = self.inertias()?.into_iter().sum();
        }
        Ok(stats)
    }
}
