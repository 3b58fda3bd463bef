//! Streams, events and graphs: what is to be done, and in which order.
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cuda_std::simt::{Launch, Schedule, launch};
use kernels_gpu::kernels::AnyLaunch;

use crate::memory::Memory;
use crate::{Driver, Outcome, Timing, code};

/// Rows of bytes that are copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) to: usize,
    pub(crate) to_pitch: usize,
    pub(crate) from_pitch: usize,
    pub(crate) bytes: usize,
    pub(crate) rows: usize,
}

/// Where bytes are copied from.
#[derive(Clone)]
pub(crate) enum From {
    /// Read when the copy is done.
    Address(usize),
    /// The host's own memory, read when the copy was asked for, as a driver may.
    Bytes(Arc<[u8]>),
}

/// One launch, whose arguments were read when it was asked for.
pub(crate) struct OneLaunch {
    pub(crate) name: &'static str,
    pub(crate) grid: u32,
    pub(crate) block: u32,
    pub(crate) shared_bytes: u32,
    pub(crate) cluster: u32,
    /// Whether its blocks run at the same time.
    pub(crate) together: bool,
    pub(crate) launch: AnyLaunch,
}

// SAFETY: the launch is of plain values and of addresses, and the lock of the driver lets one thread at a time run it.
unsafe impl Send for OneLaunch {}
// SAFETY: as above.
unsafe impl Sync for OneLaunch {}

/// A piece of a stream's work.
#[derive(Clone)]
pub(crate) enum Work {
    Launch(Arc<OneLaunch>),
    Copy(Rows, From),
    /// `count` times the word, of 1 or of 4 bytes.
    Fill {
        to: usize,
        word: u32,
        size: usize,
        count: usize,
    },
    Record(usize),
    /// For a stream to have done what had been asked of it.
    Wait(usize, u64),
}

#[derive(Default)]
struct Stream {
    queue: VecDeque<Work>,
    /// Pieces asked for, and pieces done.
    asked: u64,
    done: u64,
    captured: Option<Vec<Work>>,
}

#[derive(Default)]
struct Event {
    /// The stream and how far it has to be.
    recorded: Option<(usize, u64)>,
    time: Option<Instant>,
}

/// All streams, events and graphs, by handle.
pub(crate) struct Streams {
    // Made at first use, so that a static can hold them.
    streams: Option<HashMap<usize, Stream>>,
    events: Option<HashMap<usize, Event>>,
    graphs: Option<HashMap<usize, Arc<[Work]>>>,
}

impl Streams {
    pub(crate) const fn new() -> Self {
        Streams { streams: None, events: None, graphs: None }
    }
    fn streams(&mut self) -> &mut HashMap<usize, Stream> {
        self.streams.get_or_insert_default()
    }
    fn stream(&mut self, stream: usize) -> Outcome<&mut Stream> {
        self.streams().get_mut(&stream).ok_or(code::INVALID_HANDLE)
    }
    fn event(&mut self, event: usize) -> Outcome<&mut Event> {
        self.events.get_or_insert_default().get_mut(&event).ok_or(code::INVALID_HANDLE)
    }
    fn graphs(&mut self) -> &mut HashMap<usize, Arc<[Work]>> {
        self.graphs.get_or_insert_default()
    }
}

impl Driver {
    pub(crate) fn create_stream(&mut self) -> usize {
        let handle = self.handle();
        self.streams.streams().insert(handle, Stream::default());
        handle
    }

    pub(crate) fn destroy_stream(&mut self, stream: usize) -> Outcome {
        self.finish(stream, u64::MAX)?;
        self.streams.streams().remove(&stream).map(drop).ok_or(code::INVALID_HANDLE)
    }

    pub(crate) fn create_event(&mut self) -> usize {
        let handle = self.handle();
        self.streams.events.get_or_insert_default().insert(handle, Event::default());
        handle
    }

    pub(crate) fn destroy_event(&mut self, event: usize) -> Outcome {
        self.streams.event(event)?;
        self.streams.events.get_or_insert_default().remove(&event).map(drop).ok_or(code::INVALID_HANDLE)
    }

    /// Asks a stream for a piece of work.
    pub(crate) fn ask(&mut self, stream: usize, work: Work) -> Outcome {
        let state = self.streams.stream(stream)?;
        if let Some(captured) = &mut state.captured {
            captured.push(work);
            return Ok(());
        }
        state.queue.push_back(work);
        state.asked += 1;
        if self.timing == Timing::Early { self.finish(stream, u64::MAX) } else { Ok(()) }
    }

    /// Does a stream's work as far as its `upto`-th piece.
    pub(crate) fn finish(&mut self, stream: usize, upto: u64) -> Outcome {
        loop {
            // A stream that is gone had done its work.
            let Ok(state) = self.streams.stream(stream) else { return Ok(()) };
            if state.captured.is_some() {
                return Err(code::CAPTURE_UNSUPPORTED);
            }
            if state.done >= upto {
                return Ok(());
            }
            let Some(work) = state.queue.pop_front() else { return Ok(()) };
            state.done += 1;
            self.carry_out(work)?;
        }
    }

    /// Does all work there is, but that of streams whose calls are being captured.
    pub(crate) fn finish_all(&mut self) -> Outcome {
        let mut streams: Vec<usize> = self.streams.streams().keys().copied().collect();
        streams.sort_unstable();
        for stream in streams {
            match self.finish(stream, u64::MAX) {
                Ok(()) | Err(code::CAPTURE_UNSUPPORTED) => {}
                Err(code) => return Err(code),
            }
        }
        Ok(())
    }

    /// The stream by itself, which must be known and not in a capture.
    pub(crate) fn synchronize(&mut self, stream: usize) -> Outcome {
        self.streams.stream(stream)?;
        self.finish(stream, u64::MAX)
    }

    pub(crate) fn record(&mut self, event: usize, stream: usize) -> Outcome {
        let state = self.streams.stream(stream)?;
        if state.captured.is_some() {
            return Err(code::CAPTURE_UNSUPPORTED);
        }
        let at = state.asked + 1;
        let event_state = self.streams.event(event)?;
        *event_state = Event { recorded: Some((stream, at)), time: None };
        self.ask(stream, Work::Record(event))
    }

    /// Does what `event` waits for. One that was never recorded has passed.
    pub(crate) fn pass(&mut self, event: usize) -> Outcome {
        match self.streams.event(event)?.recorded {
            Some((stream, upto)) => self.finish(stream, upto),
            None => Ok(()),
        }
    }

    pub(crate) fn wait(&mut self, stream: usize, event: usize) -> Outcome {
        match self.streams.event(event)?.recorded {
            Some((of, upto)) => self.ask(stream, Work::Wait(of, upto)),
            None => self.streams.stream(stream).map(drop),
        }
    }

    pub(crate) fn milliseconds(&mut self, start: usize, end: usize) -> Outcome<f32> {
        let start = self.streams.event(start)?.time.ok_or(code::INVALID_HANDLE)?;
        let end = self.streams.event(end)?.time.ok_or(code::INVALID_HANDLE)?;
        Ok(end.saturating_duration_since(start).as_secs_f32() * 1e3)
    }

    pub(crate) fn begin_capture(&mut self, stream: usize) -> Outcome {
        let state = self.streams.stream(stream)?;
        if state.captured.is_some() {
            return Err(code::CAPTURE_UNMATCHED);
        }
        state.captured = Some(Vec::new());
        Ok(())
    }

    pub(crate) fn end_capture(&mut self, stream: usize) -> Outcome<usize> {
        let work = self.streams.stream(stream)?.captured.take().ok_or(code::CAPTURE_UNMATCHED)?;
        let handle = self.handle();
        self.streams.graphs().insert(handle, work.into());
        Ok(handle)
    }

    /// An executable graph is a graph of its own here.
    pub(crate) fn copy_graph(&mut self, graph: usize) -> Outcome<usize> {
        let work = self.streams.graphs().get(&graph).cloned().ok_or(code::INVALID_HANDLE)?;
        let handle = self.handle();
        self.streams.graphs().insert(handle, work);
        Ok(handle)
    }

    pub(crate) fn destroy_graph(&mut self, graph: usize) -> Outcome {
        self.streams.graphs().remove(&graph).map(drop).ok_or(code::INVALID_HANDLE)
    }

    pub(crate) fn launch_graph(&mut self, graph: usize, stream: usize) -> Outcome {
        let work = self.streams.graphs().get(&graph).cloned().ok_or(code::INVALID_HANDLE)?;
        work.iter().try_for_each(|work| self.ask(stream, work.clone()))
    }

    fn carry_out(&mut self, work: Work) -> Outcome {
        let lost = |code: u32, what: String| {
            eprintln!("emulated GPU: {what}");
            code
        };
        let outcome = match work {
            Work::Launch(launch) => run(&launch, &self.memory)
                .map_err(|(code, what)| lost(code, format!("{}: {what}", launch.name))),
            Work::Copy(rows, from) => copy(rows, &from, &self.memory)
                .map_err(|()| lost(code::ILLEGAL_ADDRESS, format!("a copy outside of memory: {rows:x?}"))),
            Work::Fill { to, word, size, count } => fill(to, word, size, count, &self.memory).map_err(|()| {
                lost(code::ILLEGAL_ADDRESS, format!("a fill outside of memory: {count} words at {to:x}"))
            }),
            Work::Record(event) => {
                if let Ok(event) = self.streams.event(event) {
                    event.time = Some(Instant::now());
                }
                return Ok(());
            }
            Work::Wait(stream, upto) => return self.finish(stream, upto),
        };
        if let Err(code) = outcome {
            self.lost = Some(code);
        }
        outcome
    }
}

/// Who runs first in a launch: not the same as in the one before, for results not to depend on it.
fn next_schedule() -> Schedule {
    static LAUNCHES: AtomicU64 = AtomicU64::new(0);
    match LAUNCHES.fetch_add(1, Ordering::Relaxed) {
        launch if launch % 3 == 0 => Schedule::Forward,
        launch if launch % 3 == 1 => Schedule::Reverse,
        launch => Schedule::Seeded(launch),
    }
}

/// Runs a kernel.
fn run(one: &OneLaunch, memory: &Memory) -> Result<(), (u32, String)> {
    for &(name, pointer) in &one.launch.pointers {
        if !pointer.is_null() && memory.kind(pointer as usize).is_none() {
            return Err((code::ILLEGAL_ADDRESS, format!("`{name}` points to no memory of the device")));
        }
    }
    let config = Launch {
        grid: one.grid,
        block: one.block,
        shared_bytes: one.shared_bytes,
        cluster: one.cluster,
        together: one.together,
        schedule: next_schedule(),
    };
    launch(config, &one.launch.run).map_err(|error| (code::LAUNCH_FAILED, error.to_string()))
}

fn copy(rows: Rows, from: &From, memory: &Memory) -> Result<(), ()> {
    let Rows { to, to_pitch, from_pitch, bytes, rows } = rows;
    if rows == 0 || bytes == 0 {
        return Ok(());
    }
    let is_whole = |address: usize, pitch: usize| {
        memory.kind(address).is_none() || memory.holds(address, (rows - 1) * pitch + bytes)
    };
    if !is_whole(to, to_pitch) {
        return Err(());
    }
    let start = match from {
        From::Bytes(bytes) => bytes.as_ptr(),
        From::Address(address) if is_whole(*address, from_pitch) => {
            std::ptr::with_exposed_provenance(*address)
        }
        From::Address(_) => return Err(()),
    };
    let end = std::ptr::with_exposed_provenance_mut::<u8>(to);
    for row in 0..rows {
        // SAFETY: memory that was given out holds the rows; the host's own does by the contract of the call.
        unsafe { start.add(row * from_pitch).copy_to(end.add(row * to_pitch), bytes) };
    }
    Ok(())
}

fn fill(to: usize, word: u32, size: usize, count: usize, memory: &Memory) -> Result<(), ()> {
    if !memory.holds(to, size * count) {
        return Err(());
    }
    let start = std::ptr::with_exposed_provenance_mut::<u8>(to);
    let word = word.to_le_bytes();
    for at in 0..count {
        // SAFETY: the memory holds all words.
        unsafe { start.add(at * size).copy_from(word.as_ptr(), size) };
    }
    Ok(())
}
