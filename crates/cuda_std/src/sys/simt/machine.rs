//! Blocks that run at the same time: their threads, and the operations that they make together.
use super::error::{LaunchError, Position};
use super::hopper::{Meetings, Product, Products};
use super::launch::{Launch, Random, Schedule};
use super::memory::{Access, Clock, Order, SharedMemory};
use crate::mma;

/// Threads in a block.
pub(super) const MAX_THREADS: u32 = 1024;
/// Threads in all blocks that run at the same time: sixteen blocks of the most there are.
pub(super) const MAX_RUNNING: u32 = 16 * MAX_THREADS;
/// How often threads look for what they wait for when nothing else runs any more.
const IDLE_ROUNDS: u32 = 1000;
/// Words that a lane gives to an operation.
pub(super) const N_ARGUMENTS: usize = 12;
/// Barriers of a block.
const N_BARRIERS: u32 = 16;

/// An operation of several lanes; lanes that wait for each other must agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    SyncWarp,
    ShuffleXor,
    ShuffleIdx,
    ShuffleUp,
    ShuffleDown,
    Ballot,
    Ldmatrix,
    LdmatrixTrans,
    MmaF16,
    MmaBf16,
    /// A warp's rows of a warpgroup's product.
    Product(Product),
    /// For all but the last so many groups of products.
    AwaitProducts(u32),
    /// `threads` 0 stands for the whole block. The lanes of a warp arrive together.
    Barrier {
        id: u32,
        threads: u32,
        wait: bool,
    },
}

impl Kind {
    fn is_barrier(self) -> bool {
        matches!(self, Kind::Barrier { .. })
    }

    fn describe(self, mask: u32) -> String {
        match self {
            Kind::Barrier { id, threads: 0, .. } => format!("barrier {id} of the whole block"),
            Kind::Barrier { id, threads, wait: true } => format!("barrier_sync({id}, {threads})"),
            Kind::Barrier { id, threads, wait: false } => format!("barrier_arrive({id}, {threads})"),
            kind => format!("{kind:?} with mask {mask:#010x}"),
        }
    }
}

/// Lanes of one warp that have made the same call and wait for the rest of its mask.
#[derive(Clone, Copy)]
struct Gathering {
    kind: Kind,
    mask: u32,
    arrived: u32,
}

pub(super) struct Warp {
    /// Lanes that have exited, or that the block does not have.
    pub(super) gone: u32,
    gatherings: Vec<Gathering>,
    pub(super) products: Products,
}

pub(super) struct Lane {
    pub(super) arguments: [u32; N_ARGUMENTS],
    pub(super) results: [u32; 4],
    /// Copies issued and not waited for, oldest first.
    pub(super) copies: Vec<PendingCopy>,
    /// Groups of copies committed in this block.
    n_groups: u32,
}

impl Lane {
    /// Of the 16-bit values in the arguments from word `first` on, the one with this index.
    fn half(&self, first: usize, index: u32) -> u16 {
        (self.arguments[first + index as usize / 2] >> (16 * (index % 2))) as u16
    }
}

pub(super) struct PendingCopy {
    pub(super) address: u32,
    pub(super) values: [u32; 4],
    group: u32,
}

/// A barrier of the block with at least one warp at it.
struct Barrier {
    /// As in [`Kind::Barrier`]; all arrivals agree.
    threads: u32,
    n_arrived: u32,
    /// Bit `warp`, of the block's.
    waiting_warps: u32,
    clock: Clock,
}

/// The state of a launch while some of its blocks run: one, a cluster of them, or all.
///
/// Threads are numbered through these blocks, and so are warps.
pub(super) struct Machine {
    pub(super) grid_dim: u32,
    pub(super) block_dim: u32,
    /// Blocks of a cluster.
    pub(super) cluster: u32,
    /// Blocks that run.
    pub(super) blocks: u32,
    /// The thread that runs.
    pub(super) thread: u32,
    /// Threads that run once no other can.
    pub(super) paused: Vec<u32>,
    /// Threads that have run since these last did, and how often it was only them.
    resumed: usize,
    idle_rounds: u32,
    /// Bit `lane` of word `warp`: the thread can run.
    pub(super) runnable: Vec<u32>,
    n_exited: u32,
    pub(super) lanes: Vec<Lane>,
    pub(super) warps: Vec<Warp>,
    /// Of each block.
    barriers: Vec<[Option<Barrier>; N_BARRIERS as usize]>,
    pub(super) hopper: Meetings,
    pub(super) shared: SharedMemory,
    pub(super) order: Order,
}

impl Machine {
    pub(super) fn new(config: &Launch) -> Self {
        let lane = || Lane { arguments: [0; N_ARGUMENTS], results: [0; 4], copies: Vec::new(), n_groups: 0 };
        let warp = || Warp { gone: 0, gatherings: Vec::with_capacity(32), products: Products::default() };
        let (blocks, block_dim) = (config.blocks(), config.block);
        let n_warps = blocks * block_dim.div_ceil(32);
        Machine {
            grid_dim: config.grid,
            block_dim,
            cluster: config.cluster,
            blocks,
            thread: 0,
            paused: Vec::new(),
            resumed: 0,
            idle_rounds: 0,
            runnable: vec![0; n_warps as usize],
            n_exited: 0,
            lanes: (0..blocks * block_dim).map(|_| lane()).collect(),
            warps: (0..n_warps).map(|_| warp()).collect(),
            barriers: (0..blocks).map(|_| Default::default()).collect(),
            hopper: Meetings::default(),
            shared: SharedMemory::new(blocks, block_dim, config.shared_bytes),
            order: Order::new(n_warps as usize),
        }
    }

    /// Makes every thread of `block`, and of those that run with it, runnable.
    pub(super) fn start_blocks(&mut self, block: u32) {
        self.n_exited = 0;
        self.idle_rounds = 0;
        self.barriers.iter_mut().for_each(|of_block| *of_block = Default::default());
        self.hopper =
            Meetings::of(self.blocks / self.cluster, self.blocks * self.block_dim, &self.order.clock());
        self.order.next_epoch();
        self.shared.start_blocks(block);
        let of_block = self.warps_of_block();
        for (i, warp) in self.warps.iter_mut().enumerate() {
            let n_lanes = (self.block_dim - 32 * (i % of_block) as u32).min(32);
            let present = u32::MAX >> (32 - n_lanes);
            warp.gone = !present;
            warp.gatherings.clear();
            warp.products = Products::default();
            self.runnable[i] = present;
        }
    }

    fn warps_of_block(&self) -> usize {
        self.block_dim.div_ceil(32) as usize
    }

    /// The block of a warp, among those that run.
    fn block_of(&self, warp: usize) -> usize {
        warp / self.warps_of_block()
    }

    /// Ends a block in which nothing can run: all threads have exited, or it is stuck.
    pub(super) fn end_block(&mut self) -> Result<(), LaunchError> {
        if self.n_exited < self.blocks * self.block_dim {
            return Err(self.stuck());
        }
        for (thread, lane) in self.lanes.iter_mut().enumerate() {
            lane.n_groups = 0;
            for copy in lane.copies.drain(..) {
                self.shared.forget_copy(thread as u32, copy.address);
            }
        }
        Ok(())
    }

    /// Picks the thread to run next and makes it the current one.
    pub(super) fn take_runnable(&mut self, schedule: Schedule, random: &mut Random) -> Option<u32> {
        if self.runnable.iter().all(|&lanes| lanes == 0) {
            // Rounds in which nothing ran but those who wait.
            self.idle_rounds = if self.resumed == self.paused.len() { self.idle_rounds + 1 } else { 0 };
            self.resumed = 0;
            if self.idle_rounds > IDLE_ROUNDS {
                return None;
            }
            for thread in self.paused.drain(..) {
                self.runnable[thread as usize / 32] |= 1 << (thread % 32);
            }
        }
        self.resumed += 1;
        let n_warps = self.warps.len();
        let lowest = |words: &[u32], from: usize| {
            let warp = (from..n_warps).find(|&warp| words[warp] != 0)?;
            Some(32 * warp as u32 + words[warp].trailing_zeros())
        };
        let thread = match schedule {
            Schedule::Forward => lowest(&self.runnable, 0)?,
            Schedule::Reverse => {
                let warp = (0..n_warps).rev().find(|&warp| self.runnable[warp] != 0)?;
                32 * warp as u32 + 31 - self.runnable[warp].leading_zeros()
            }
            Schedule::Seeded(_) => {
                // The first runnable thread from a random one on, around the block.
                let start = random.below(self.blocks * self.block_dim);
                let warp = start as usize / 32;
                let ahead = self.runnable[warp] & (u32::MAX << (start % 32));
                if ahead != 0 {
                    start / 32 * 32 + ahead.trailing_zeros()
                } else {
                    lowest(&self.runnable, warp + 1).or_else(|| lowest(&self.runnable, 0))?
                }
            }
        };
        self.runnable[thread as usize / 32] &= !(1 << (thread % 32));
        self.thread = thread;
        Some(thread)
    }

    pub(super) fn position(&self) -> Position {
        self.shared.position(self.thread)
    }

    pub(super) fn position_of(&self, warp: usize, lanes: u32) -> Position {
        self.shared.position(32 * warp as u32 + lanes.trailing_zeros())
    }

    /// Ends the current thread's part in this block.
    pub(super) fn exit(&mut self) -> Result<(), LaunchError> {
        let (warp, bit) = (self.thread as usize / 32, 1 << (self.thread % 32));
        self.n_exited += 1;
        self.warps[warp].gone |= bit;
        let waiting = self.warps[warp].gatherings.iter();
        if let Some(g) = waiting.clone().find(|g| g.mask & bit != 0 && !g.kind.is_barrier()) {
            let at = self.position_of(warp, g.arrived);
            let what = format!("{}, lane {} has exited", g.kind.describe(g.mask), self.thread % 32);
            return Err(LaunchError::ExitedLane { at, what });
        }
        // A barrier may have waited for this lane alone, or the block's for this warp.
        if let Some(i) = waiting.clone().position(|g| g.arrived | self.warps[warp].gone == u32::MAX) {
            self.complete(warp, i)?;
        }
        if self.warps[warp].gone == u32::MAX {
            for id in 0..N_BARRIERS {
                self.complete_barrier(self.block_of(warp), id)?;
            }
        }
        self.leave_cluster();
        Ok(())
    }

    /// Joins the current thread to a warp operation; it must suspend until it is resumed.
    pub(super) fn arrive(&mut self, kind: Kind, mask: u32, arguments: &[u32]) -> Result<(), LaunchError> {
        let (warp, bit) = (self.thread as usize / 32, 1u32 << (self.thread % 32));
        let gone = self.warps[warp].gone;
        if mask & bit == 0 {
            return Err(LaunchError::CallerOutsideMask { at: self.position(), what: kind.describe(mask) });
        }
        if mask & gone != 0 && !kind.is_barrier() {
            let lane = (mask & gone).trailing_zeros();
            let what = format!("{}, lane {lane} has exited or does not exist", kind.describe(mask));
            return Err(LaunchError::ExitedLane { at: self.position(), what });
        }
        self.lanes[self.thread as usize].arguments[..arguments.len()].copy_from_slice(arguments);

        let gatherings = &mut self.warps[warp].gatherings;
        let mut joined = None;
        for (i, g) in gatherings.iter_mut().enumerate() {
            if (g.kind, g.mask) == (kind, mask) {
                g.arrived |= bit;
                joined = Some(i);
            } else if g.arrived & mask != 0 && g.mask & bit != 0 {
                // Each waits for the other. Where only one does, the other may still come round.
                let what = format!(
                    "{}, while lane {} of the warp is at {}",
                    kind.describe(mask),
                    (g.arrived & mask).trailing_zeros(),
                    g.kind.describe(g.mask)
                );
                let at = self.shared.position(self.thread);
                return Err(if kind.is_barrier() || g.kind.is_barrier() {
                    LaunchError::DivergentBarrier { at, what }
                } else {
                    LaunchError::DivergentWarpOp { at, what }
                });
            }
        }
        let joined = joined.unwrap_or_else(|| {
            gatherings.push(Gathering { kind, mask, arrived: bit });
            gatherings.len() - 1
        });
        let g = gatherings[joined];
        let complete = if kind.is_barrier() { g.arrived | gone == u32::MAX } else { g.arrived == mask };
        if complete {
            self.complete(warp, joined)?;
        }
        Ok(())
    }

    /// What the last warp operation of the current thread gave it.
    pub(super) fn results(&self) -> [u32; 4] {
        self.lanes[self.thread as usize].results
    }

    /// Carries out an operation whose lanes are all there.
    fn complete(&mut self, warp: usize, gathering: usize) -> Result<(), LaunchError> {
        let Gathering { kind, mask, arrived } = self.warps[warp].gatherings.swap_remove(gathering);
        if let Kind::Barrier { id, threads, wait } = kind {
            return self.arrive_warp(warp, arrived, id, threads, wait);
        }
        self.runnable[warp] |= mask;
        match kind {
            Kind::SyncWarp => {
                self.sync_lanes(warp, mask);
                return Ok(());
            }
            Kind::Ldmatrix | Kind::LdmatrixTrans => {
                self.sync_lanes(warp, mask);
                return self.ldmatrix(warp, kind);
            }
            Kind::Product(product) => return self.multiply(warp, product),
            Kind::AwaitProducts(pending) => return self.await_products(warp, pending),
            _ => {}
        }

        let first = 32 * warp;
        let end = self.lanes.len().min(first + 32);
        let lanes = &mut self.lanes[first..end];
        let named = |lane: usize| mask >> lane & 1 == 1;
        match kind {
            Kind::MmaF16 => mma_m16n8k16(lanes, super::f16_to_f32),
            Kind::MmaBf16 => mma_m16n8k16(lanes, super::bf16_to_f32),
            Kind::Ballot => {
                let votes = (0..lanes.len()).filter(|&lane| named(lane));
                let ballot = votes.fold(0, |ballot, lane| ballot | lanes[lane].arguments[0] << lane);
                lanes.iter_mut().enumerate().filter(|(lane, _)| named(*lane)).for_each(|(_, lane)| {
                    lane.results[0] = ballot;
                });
            }
            _ => {
                for lane in (0..lanes.len()).filter(|&lane| named(lane)) {
                    // The operand has 5 bits.
                    let operand = (lanes[lane].arguments[1] & 31) as usize;
                    let source = match kind {
                        Kind::ShuffleXor => lane ^ operand,
                        Kind::ShuffleIdx => operand,
                        Kind::ShuffleUp if lane >= operand => lane - operand,
                        Kind::ShuffleDown if lane + operand < 32 => lane + operand,
                        _ => lane,
                    };
                    if !named(source) {
                        let at = self.shared.position((first + lane) as u32);
                        return Err(LaunchError::ShuffleOutsideMask { at, source: source as u32, mask });
                    }
                    lanes[lane].results[0] = lanes[source].arguments[0];
                }
            }
        }
        Ok(())
    }

    fn sync_lanes(&mut self, warp: usize, mask: u32) {
        let all = mask | self.warps[warp].gone == u32::MAX;
        self.order.sync_lanes(warp, mask, all);
    }

    /// Each lane names a row of 16 bytes; lanes 0-7 those of the first 8x8 matrix, and so on.
    fn ldmatrix(&mut self, warp: usize, kind: Kind) -> Result<(), LaunchError> {
        let mut rows = [[0u32; 4]; 32];
        for (lane, row) in rows.iter_mut().enumerate() {
            let thread = 32 * warp + lane;
            *row = self.shared.load(&self.order, thread as u32, self.lanes[thread].arguments[0])?;
        }
        let half = |row: usize, col: usize| rows[row][col / 2] >> (16 * (col % 2)) & 0xffff;
        for lane in 0..32 {
            let results = &mut self.lanes[32 * warp + lane].results;
            for (matrix, result) in results.iter_mut().enumerate() {
                *result = match kind {
                    Kind::Ldmatrix => rows[8 * matrix + lane / 4][lane % 4],
                    _ => {
                        let (row, col) = (8 * matrix + 2 * (lane % 4), lane / 4);
                        half(row, col) | half(row + 1, col) << 16
                    }
                };
            }
        }
        Ok(())
    }

    /// A named barrier's id and count.
    pub(super) fn check_named_barrier(&self, id: u32, threads: u32) -> Result<(), LaunchError> {
        let fault = if id == 0 || id >= N_BARRIERS {
            "its id is not 1 to 15"
        } else if threads == 0 || !threads.is_multiple_of(32) {
            "its count is not a multiple of 32"
        } else if threads > self.block_dim.next_multiple_of(32) {
            "its count exceeds the block"
        } else {
            return Ok(());
        };
        let what = format!("barrier {id} of {threads} threads: {fault}");
        Err(LaunchError::InvalidBarrier { at: self.position(), what })
    }

    /// Counts a warp, of which `lanes` live, at a barrier of the block.
    fn arrive_warp(
        &mut self,
        warp: usize,
        lanes: u32,
        id: u32,
        threads: u32,
        wait: bool,
    ) -> Result<(), LaunchError> {
        let (block, of_block) = (self.block_of(warp), self.warps_of_block());
        let fresh = || Barrier { threads, n_arrived: 0, waiting_warps: 0, clock: self.order.clock() };
        let barrier = self.barriers[block][id as usize].get_or_insert_with(fresh);
        if barrier.threads != threads {
            let what = format!("barrier {id} of {threads} threads, others arrived for {}", barrier.threads);
            let at = self.position_of(warp, lanes);
            return Err(LaunchError::InvalidBarrier { at, what });
        }
        barrier.n_arrived += 32;
        self.order.release(warp, &mut barrier.clock);
        if wait {
            barrier.waiting_warps |= 1 << (warp % of_block);
        } else {
            self.runnable[warp] |= lanes;
        }
        self.complete_barrier(block, id)
    }

    /// Lets the waiting warps of a barrier of a block go on, if it is complete.
    fn complete_barrier(&mut self, block: usize, id: u32) -> Result<(), LaunchError> {
        let of_block = self.warps_of_block();
        let warps = &self.warps[block * of_block..][..of_block];
        let Some(barrier) = &self.barriers[block][id as usize] else { return Ok(()) };
        let complete = if barrier.threads == 0 {
            let mut warps = warps.iter().enumerate();
            warps.all(|(w, warp)| barrier.waiting_warps >> w & 1 == 1 || warp.gone == u32::MAX)
        } else {
            barrier.n_arrived >= barrier.threads
        };
        if !complete {
            return Ok(());
        }
        // Of a block among several, the clock says it: an epoch is everybody's.
        if barrier.threads == 0 && self.blocks == 1 {
            self.order.next_epoch();
        }
        for (w, state) in warps.iter().enumerate() {
            if barrier.waiting_warps >> w & 1 == 1 {
                let warp = block * of_block + w;
                self.order.acquire(warp, &barrier.clock);
                self.runnable[warp] |= !state.gone;
            }
        }
        self.barriers[block][id as usize] = None;
        Ok(())
    }

    /// Says why nothing can run though threads are left.
    fn stuck(&self) -> LaunchError {
        let all = self.barriers.iter().enumerate();
        for (block, (id, barrier)) in
            all.flat_map(|(b, of_block)| of_block.iter().enumerate().map(move |i| (b, i)))
        {
            let Some(barrier) = barrier else { continue };
            let warps = barrier.waiting_warps;
            if warps == 0 {
                continue;
            }
            let warp = block * self.warps_of_block() + warps.trailing_zeros() as usize;
            let at = self.position_of(warp, !self.warps[warp].gone);
            let kind = Kind::Barrier { id: id as u32, threads: barrier.threads, wait: true };
            let what = format!("{}: {} arrived, no other can", kind.describe(0), barrier.n_arrived);
            return LaunchError::DivergentBarrier { at, what };
        }
        if let Some(error) = self.stuck_meeting() {
            return error;
        }
        if let Some(&thread) = self.paused.first() {
            let what = format!("{} threads wait in loops, and nothing else runs", self.paused.len());
            return LaunchError::DivergentBarrier { at: self.shared.position(thread), what };
        }
        let waiting = self.warps.iter().enumerate().find_map(|(i, w)| Some((i, w.gatherings.first()?)));
        let (warp, g) = waiting.expect("a thread that neither runs nor waits has exited");
        let at = self.position_of(warp, g.arrived);
        let what = format!("{}, where only lanes {:#010x} are", g.kind.describe(g.mask), g.arrived);
        LaunchError::DivergentWarpOp { at, what }
    }

    pub(super) fn load<const N: usize>(&mut self, address: u32) -> Result<[u32; N], LaunchError> {
        self.shared.load(&self.order, self.thread, address)
    }

    pub(super) fn store<const N: usize>(
        &mut self,
        address: u32,
        values: [u32; N],
    ) -> Result<(), LaunchError> {
        self.shared.store(&self.order, self.thread, address, values)
    }

    pub(super) fn fetch_add(&mut self, address: u32, value: u32) -> Result<u32, LaunchError> {
        self.shared.fetch_add(&self.order, self.thread, address, value)
    }

    /// A global address must be a multiple of the access's size.
    pub(super) fn check_global(
        &self,
        address: usize,
        bytes: usize,
        access: Access,
    ) -> Result<(), LaunchError> {
        if address.is_multiple_of(bytes) {
            return Ok(());
        }
        let what = format!("global {access:?} of {bytes} bytes at address {address:#x}");
        Err(LaunchError::Misaligned { at: self.position(), what })
    }

    /// Issues a copy; the values are those of now, and arrive when the thread waits for its group.
    pub(super) fn issue_copy(&mut self, address: u32, values: [u32; 4]) -> Result<(), LaunchError> {
        self.shared.start_copy(&self.order, self.thread, address)?;
        let lane = &mut self.lanes[self.thread as usize];
        lane.copies.push(PendingCopy { address, values, group: lane.n_groups });
        Ok(())
    }

    /// Closes the current thread's group of copies.
    pub(super) fn commit_copies(&mut self) {
        self.lanes[self.thread as usize].n_groups += 1;
    }

    /// Finishes all but the last `pending` groups of the current thread.
    pub(super) fn wait_copies(&mut self, pending: u32) {
        let lane = &mut self.lanes[self.thread as usize];
        let done = lane.n_groups.saturating_sub(pending);
        let n_done = lane.copies.partition_point(|copy| copy.group < done);
        for copy in lane.copies.drain(..n_done) {
            self.shared.finish_copy(&self.order, self.thread, copy.address, copy.values);
        }
    }
}

/// The 16 x 16 values of A, from the fragments in the first 4 words of the lanes' arguments.
pub(super) fn a_of(lanes: &[Lane], to_f32: impl Fn(u16) -> f32) -> [[f32; 16]; 16] {
    let mut a = [[0f32; 16]; 16];
    for (lane, state) in lanes.iter().enumerate() {
        for index in 0..8 {
            let (row, col) = mma::a_element(lane as u32, index);
            a[row as usize][col as usize] = to_f32(state.half(0, index));
        }
    }
    a
}

/// `D = A B + C` from the fragments in the lanes' arguments: A in 4 words, B in 2, C in 4.
fn mma_m16n8k16(lanes: &mut [Lane], to_f32: impl Fn(u16) -> f32) {
    let a = a_of(lanes, &to_f32);
    let mut b = [[0f32; 8]; 16];
    for (lane, state) in lanes.iter().enumerate() {
        for index in 0..4 {
            let (row, col) = mma::b_element(lane as u32, index);
            b[row as usize][col as usize] = to_f32(state.half(4, index));
        }
    }
    for (lane, state) in lanes.iter_mut().enumerate() {
        for index in 0..4 {
            let (row, col) = mma::c_element(lane as u32, index);
            let mut sum = f32::from_bits(state.arguments[6 + index as usize]);
            for k in 0..16 {
                sum += a[row as usize][k] * b[k][col as usize];
            }
            state.results[index as usize] = sum.to_bits();
        }
    }
}
