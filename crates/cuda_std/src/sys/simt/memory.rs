//! Shared memory with a shadow that finds races, and the order of events that it judges them by.
use super::error::{LaunchError, Position};

/// Address of the first byte of dynamic shared memory, as aligned as any slot may be.
pub(super) const SHARED_BASE: u32 = 1024;
/// Bytes of memory that nothing has written.
const POISON: u32 = u32::MAX;

/// Which events of other threads come before the next one of a thread.
///
/// Vector clocks, at the coarsest grain that is exact: whole blocks meet at block barriers and whole
/// warps at named ones, so only `sync_warp` of a part of a warp needs a clock for each lane. Single threads
/// arrive at barriers in shared memory and at those of a cluster: what other lanes of their warps did before counts as
/// ordered, too. Time never goes back during a launch, so nothing is reset between blocks.
pub(super) struct Order {
    /// Everything before the current epoch is ordered for the whole block.
    epoch: u32,
    /// Time in each warp, which accesses are stamped with.
    ticks: Clock,
    /// Accesses of a warp before this tick are ordered for all of its lanes.
    converged: Clock,
    /// `across[w][v]`: accesses of warp `v` before this tick are ordered for warp `w`.
    across: Vec<Clock>,
    /// `within[w][l][m]`: accesses of lane `m` before this tick are ordered for lane `l`. Made on use.
    within: Vec<Option<Box<[[u32; 32]; 32]>>>,
}

/// A time in each warp.
pub(super) type Clock = Vec<u32>;

impl Order {
    pub(super) fn new(warps: usize) -> Self {
        let clock = vec![0; warps];
        Order {
            epoch: 0,
            ticks: clock.clone(),
            converged: clock.clone(),
            across: vec![clock; warps],
            within: vec![None; warps],
        }
    }

    /// One that nothing comes before.
    pub(super) fn clock(&self) -> Clock {
        vec![0; self.ticks.len()]
    }

    /// All that was, comes before all that will be.
    pub(super) fn next_epoch(&mut self) {
        self.epoch += 1;
    }

    /// Orders the lanes of a warp that take part in a `sync_warp`.
    pub(super) fn sync_lanes(&mut self, warp: usize, mask: u32, all: bool) {
        self.ticks[warp] += 1;
        let now = self.ticks[warp];
        if all {
            self.converged[warp] = now;
            return;
        }
        let within = self.within[warp].get_or_insert_with(|| Box::new([[0; 32]; 32]));
        let mut joined = [0; 32];
        for (lane, seen) in within.iter().enumerate().filter(|(lane, _)| mask >> lane & 1 == 1) {
            for (joined, seen) in joined.iter_mut().zip(seen) {
                *joined = (*joined).max(*seen);
            }
            joined[lane] = now;
        }
        for (_, seen) in within.iter_mut().enumerate().filter(|(lane, _)| mask >> lane & 1 == 1) {
            *seen = joined;
        }
    }

    /// Adds what a warp has done and seen to a named barrier's clock.
    pub(super) fn release(&mut self, warp: usize, clock: &mut Clock) {
        self.ticks[warp] += 1;
        for (clock, seen) in clock.iter_mut().zip(&self.across[warp]) {
            *clock = (*clock).max(*seen);
        }
        clock[warp] = self.ticks[warp];
    }

    /// Orders what a named barrier's clock holds before a warp that waited for it.
    pub(super) fn acquire(&mut self, warp: usize, clock: &Clock) {
        self.acquire_alone(warp, clock);
        // All its lanes waited together.
        self.converged[warp] = self.ticks[warp];
    }

    /// The same for a lane that waited by itself. What other lanes of its warp do next counts as ordered, too.
    pub(super) fn acquire_alone(&mut self, warp: usize, clock: &Clock) {
        for (seen, clock) in self.across[warp].iter_mut().zip(clock) {
            *seen = (*seen).max(*clock);
        }
    }

    /// Whether an access of this epoch comes before the next one of `thread`.
    fn before(&self, access: Stamp, thread: u32) -> bool {
        let (other, thread) = (access.thread as usize, thread as usize);
        if other == thread {
            return true;
        }
        let (warp, other_warp) = (thread / 32, other / 32);
        if warp != other_warp {
            return access.tick < self.across[warp][other_warp];
        }
        // The second: behind a barrier that its lanes come to one by one.
        access.tick < self.converged[warp]
            || access.tick < self.across[warp][warp]
            || self.within[warp].as_ref().is_some_and(|within| access.tick < within[thread % 32][other % 32])
    }

    fn stamp(&self, thread: u32) -> Stamp {
        Stamp { tick: self.ticks[thread as usize / 32], thread: thread as u16 }
    }
}

/// Who made an access, and when.
#[derive(Clone, Copy)]
struct Stamp {
    tick: u32,
    thread: u16,
}

/// No access; threads end at 1023.
const NOBODY: Stamp = Stamp { tick: 0, thread: u16::MAX };

/// The accesses of one kind to a word in one epoch that a later one is most likely to race with.
#[derive(Clone, Copy)]
struct Recent {
    epoch: u32,
    /// The last one, the last of another lane of its warp, and the last of another warp.
    stamps: [Stamp; 3],
}

impl Recent {
    const NONE: Recent = Recent { epoch: 0, stamps: [NOBODY; 3] };

    #[inline]
    fn push(&mut self, epoch: u32, stamp: Stamp) {
        let [last, other_lane, other_warp] = if self.epoch == epoch { self.stamps } else { [NOBODY; 3] };
        self.epoch = epoch;
        self.stamps = if last.thread == stamp.thread {
            [stamp, other_lane, other_warp]
        } else if last.thread / 32 == stamp.thread / 32 {
            [stamp, last, other_warp]
        } else {
            [stamp, NOBODY, if last.thread == NOBODY.thread { other_warp } else { last }]
        };
    }

    /// An access that nothing orders before the next one of `thread`.
    #[inline]
    fn racing(&self, order: &Order, thread: u32) -> Option<u32> {
        if self.epoch == order.epoch { self.racing_in_epoch(order, thread) } else { None }
    }

    fn racing_in_epoch(&self, order: &Order, thread: u32) -> Option<u32> {
        let racing = self.stamps.iter().find(|s| s.thread != NOBODY.thread && !order.before(**s, thread));
        racing.map(|s| u32::from(s.thread))
    }
}

/// What is known of 4 bytes.
#[derive(Clone, Copy)]
struct Shadow {
    /// The last block, counted from 1, that wrote them.
    written_in: u32,
    /// The thread whose `cp.async` is to write them.
    copied_by: Option<u16>,
    /// Plain writes: only the last, before which all others are.
    writes: Recent,
    reads: Recent,
    atomics: Recent,
}

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Access {
    Read,
    Write,
    Atomic,
}

impl Access {
    fn name(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::Atomic => "atomic operation",
        }
    }
}

/// The dynamic shared memory of the running blocks, each of which sees its own at the same addresses.
pub(super) struct SharedMemory {
    /// Of a block.
    bytes: u32,
    block_dim: u32,
    first_block: u32,
    words: Vec<u32>,
    shadow: Vec<Shadow>,
    /// Times that blocks were started.
    n_blocks: u32,
}

impl SharedMemory {
    pub(super) fn new(blocks: u32, block_dim: u32, bytes: u32) -> Self {
        let n_words = (blocks * bytes.div_ceil(4)) as usize;
        let unknown = Shadow {
            written_in: 0,
            copied_by: None,
            writes: Recent::NONE,
            reads: Recent::NONE,
            atomics: Recent::NONE,
        };
        let (words, shadow) = (vec![POISON; n_words], vec![unknown; n_words]);
        SharedMemory { bytes, block_dim, first_block: 0, words, shadow, n_blocks: 0 }
    }

    /// Forgets what the blocks before wrote.
    pub(super) fn start_blocks(&mut self, first: u32) {
        self.first_block = first;
        self.n_blocks += 1;
        self.words.fill(POISON);
    }

    /// Where a thread is in the grid.
    pub(super) fn position(&self, thread: u32) -> Position {
        Position { block: self.first_block + thread / self.block_dim, thread: thread % self.block_dim }
    }

    /// The block of a thread, among those that run.
    pub(super) fn block_of(&self, thread: u32) -> u32 {
        thread / self.block_dim
    }

    /// Index of the word at `address` of block `block` of those that run, an access of `n_words` by `thread` that must be aligned to
    /// its size.
    fn resolve(&self, thread: u32, block: u32, address: u32, n_words: u32) -> Result<usize, LaunchError> {
        let at = self.position(thread);
        let bytes = 4 * n_words;
        let offset = i64::from(address) - i64::from(SHARED_BASE);
        if offset < 0 || offset + i64::from(bytes) > i64::from(self.bytes) {
            return Err(LaunchError::SharedOutOfBounds { at, offset, bytes, available: self.bytes });
        }
        if !address.is_multiple_of(bytes) {
            let what = format!("shared access of {bytes} bytes at offset {offset}");
            return Err(LaunchError::Misaligned { at, what });
        }
        Ok((block * self.bytes.div_ceil(4)) as usize + offset as usize / 4)
    }

    pub(super) fn load<const N: usize>(
        &mut self,
        order: &Order,
        thread: u32,
        address: u32,
    ) -> Result<[u32; N], LaunchError> {
        let first = self.resolve(thread, self.block_of(thread), address, N as u32)?;
        let mut values = [0; N];
        for (i, value) in values.iter_mut().enumerate() {
            self.access(order, thread, first + i, Access::Read)?;
            *value = self.words[first + i];
        }
        Ok(values)
    }

    /// [`Self::load`] of what may not have been written: not numbers then.
    pub(super) fn load_any<const N: usize>(
        &mut self,
        order: &Order,
        thread: u32,
        address: u32,
    ) -> Result<[u32; N], LaunchError> {
        let first = self.resolve(thread, self.block_of(thread), address, N as u32)?;
        let known = &self.shadow[first..first + N];
        if known.iter().all(|shadow| shadow.written_in != self.n_blocks && shadow.copied_by.is_none()) {
            return Ok([POISON; N]);
        }
        self.load(order, thread, address)
    }

    pub(super) fn store<const N: usize>(
        &mut self,
        order: &Order,
        thread: u32,
        address: u32,
        values: [u32; N],
    ) -> Result<(), LaunchError> {
        self.store_to(order, thread, self.block_of(thread), address, values)
    }

    /// [`Self::store`] to the memory of any of the blocks that run.
    pub(super) fn store_to<const N: usize>(
        &mut self,
        order: &Order,
        thread: u32,
        block: u32,
        address: u32,
        values: [u32; N],
    ) -> Result<(), LaunchError> {
        let first = self.resolve(thread, block, address, N as u32)?;
        for (i, value) in values.into_iter().enumerate() {
            self.access(order, thread, first + i, Access::Write)?;
            self.words[first + i] = value;
        }
        Ok(())
    }

    pub(super) fn fetch_add(
        &mut self,
        order: &Order,
        thread: u32,
        address: u32,
        value: u32,
    ) -> Result<u32, LaunchError> {
        let word = self.resolve(thread, self.block_of(thread), address, 1)?;
        self.access(order, thread, word, Access::Atomic)?;
        let old = self.words[word];
        self.words[word] = old.wrapping_add(value);
        Ok(old)
    }

    /// Starts a copy of 16 bytes to `address`: from now on nobody may touch them.
    pub(super) fn start_copy(&mut self, order: &Order, thread: u32, address: u32) -> Result<(), LaunchError> {
        let first = self.resolve(thread, self.block_of(thread), address, 4)?;
        for word in first..first + 4 {
            // A copy may write at any time from its issue, so what came before must be ordered by now.
            let written_in = self.shadow[word].written_in;
            self.access(order, thread, word, Access::Write)?;
            self.shadow[word].written_in = written_in;
            self.shadow[word].copied_by = Some(thread as u16);
        }
        Ok(())
    }

    /// Ends a copy: the bytes are there, written by the thread that has waited for them.
    pub(super) fn finish_copy(&mut self, order: &Order, thread: u32, address: u32, values: [u32; 4]) {
        self.forget_copy(thread, address);
        // The address was checked when the copy started, and nobody has touched the words since.
        let stored = self.store(order, thread, address, values);
        debug_assert_eq!(stored, Ok(()));
    }

    /// Ends a copy that nobody waited for.
    pub(super) fn forget_copy(&mut self, thread: u32, address: u32) {
        let of_block = self.block_of(thread) * self.bytes.div_ceil(4);
        let first = (of_block + (address - SHARED_BASE) / 4) as usize;
        for shadow in &mut self.shadow[first..first + 4] {
            shadow.copied_by = None;
        }
    }

    /// Judges an access to a word, and remembers it.
    #[inline]
    fn access(&mut self, order: &Order, thread: u32, word: usize, access: Access) -> Result<(), LaunchError> {
        let at = self.position(thread);
        let shadow = &mut self.shadow[word];
        let offset = 4 * (word as u32 % self.bytes.div_ceil(4));
        if let Some(other) = shadow.copied_by {
            return Err(LaunchError::CopyInFlight { at, other: u32::from(other), offset });
        }
        if access == Access::Write {
            shadow.written_in = self.n_blocks;
        } else if shadow.written_in != self.n_blocks {
            return Err(LaunchError::UninitialisedRead { at, offset });
        }
        let mut racing = shadow.writes.racing(order, thread).map(|other| (Access::Write, other));
        if access != Access::Read && racing.is_none() {
            racing = shadow.reads.racing(order, thread).map(|other| (Access::Read, other));
        }
        if access != Access::Atomic && racing.is_none() {
            racing = shadow.atomics.racing(order, thread).map(|other| (Access::Atomic, other));
        }
        if let Some((kind, other)) = racing {
            let what = format!("{} after {} with no barrier between", access.name(), kind.name());
            return Err(LaunchError::Race { at, other, offset, what });
        }
        let stamp = order.stamp(thread);
        match access {
            Access::Read => shadow.reads.push(order.epoch, stamp),
            Access::Atomic => shadow.atomics.push(order.epoch, stamp),
            Access::Write => {
                // Whoever is ordered after this write is ordered after all that it was checked against.
                shadow.reads = Recent::NONE;
                shadow.atomics = Recent::NONE;
                shadow.writes = Recent { epoch: order.epoch, stamps: [stamp, NOBODY, NOBODY] };
            }
        }
        Ok(())
    }
}
