//! Hopper's own instructions: warpgroup products, barriers in shared memory, bulk copies and clusters of blocks.
use super::error::LaunchError;
use super::launch::{check, machine, suspend, warp_op};
use super::machine::{Kind, Machine, a_of};
use super::memory::{Access, Clock, Order};
use crate::mma;
use crate::wgmma::Descriptor;
use std::collections::HashMap;

/// What a product is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Product {
    is_bf16: bool,
    /// Rows of the second operand: 128, or 256.
    columns: u32,
    /// Whether the first operand is in shared memory.
    is_shared: bool,
}

/// Products of a warp that have been issued and not waited for, each by the tiles that it reads.
#[derive(Default)]
pub(super) struct Products {
    /// Groups committed.
    groups: u32,
    /// The group, the tile's first byte and its rows.
    reads: Vec<(u32, u32, u32)>,
}

/// The phases of a barrier that threads come to and wait for one by one.
struct Phases {
    phase: u32,
    /// What those who have arrived had done, and what they had when the last phase ended.
    clock: Clock,
    passed: Clock,
    waiting: Vec<u32>,
}

impl Phases {
    /// `clock` is one that nothing comes before.
    fn new(clock: &Clock) -> Self {
        Phases { phase: 0, clock: clock.clone(), passed: clock.clone(), waiting: Vec::new() }
    }

    /// Ends the phase, and lets those go on that have waited for it.
    fn end(&mut self, order: &mut Order, runnable: &mut [u32]) {
        self.phase += 1;
        self.passed.clone_from(&self.clock);
        for thread in self.waiting.drain(..) {
            let warp = thread as usize / 32;
            order.acquire_alone(warp, &self.passed);
            runnable[warp] |= 1 << (thread % 32);
        }
    }

    /// Whether a thread has to wait for the phase under way, which it is among those to do then; otherwise it is behind the last.
    fn holds(&mut self, thread: u32, is_under_way: bool, order: &mut Order) -> bool {
        if is_under_way {
            self.waiting.push(thread);
        } else {
            order.acquire_alone(thread as usize / 32, &self.passed);
        }
        is_under_way
    }
}

/// A barrier in shared memory.
struct Mbarrier {
    arrivals: u32,
    /// Arrivals and bytes that the phase still waits for.
    missing: u32,
    bytes: i64,
    phases: Phases,
}

/// The barrier of a cluster.
struct ClusterBarrier {
    /// Threads that have arrived and not exited since.
    n_arrived: u32,
    n_gone: u32,
    phases: Phases,
}

/// Where threads of the running blocks meet.
#[derive(Default)]
pub(super) struct Meetings {
    /// By block and address.
    mbarriers: HashMap<(u32, u32), Mbarrier>,
    clusters: Vec<ClusterBarrier>,
    /// What came before the fences of blocks that run at the same time.
    fences: Clock,
    /// The phase of its cluster's barrier that each thread has arrived for, and is still to wait for.
    arrived: Vec<Option<u32>>,
}

impl Meetings {
    /// `clock` is one that nothing comes before.
    pub(super) fn of(clusters: u32, threads: u32, clock: &Clock) -> Self {
        let barrier = || ClusterBarrier { n_arrived: 0, n_gone: 0, phases: Phases::new(clock) };
        Meetings {
            mbarriers: HashMap::new(),
            fences: clock.clone(),
            clusters: (0..clusters).map(|_| barrier()).collect(),
            arrived: vec![None; threads as usize],
        }
    }

    fn mbarrier(&mut self, block: u32, address: u32) -> Result<&mut Mbarrier, String> {
        let what = || format!("none was begun at {address:#x} of block {block}");
        self.mbarriers.get_mut(&(block, address)).ok_or_else(what)
    }
}

/// Bytes of a row of a tile in the 128-byte swizzle.
const ROW_BYTES: u32 = 128;

impl Machine {
    /// Carries out a warp's rows of a product.
    pub(super) fn multiply(&mut self, warp: usize, product: Product) -> Result<(), LaunchError> {
        let first = 32 * warp;
        let to_f32 = if product.is_bf16 { super::bf16_to_f32 } else { super::f16_to_f32 };
        let words = self.lanes[first].arguments;
        let at = self.position_of(warp, 1);
        let tile = |at_word: usize| {
            let descriptor = u64::from(words[at_word + 1]) << 32 | u64::from(words[at_word]);
            Descriptor::address_in(descriptor).ok_or(LaunchError::InvalidTile { at, descriptor })
        };
        let b = self.read_tile(warp, tile(4)?, product.columns, to_f32)?;
        let a = if product.is_shared {
            // Groups of eight rows are 1024 bytes.
            let rows = tile(0)? + (warp % 4) as u32 * 16 * ROW_BYTES;
            self.read_tile(warp, rows, 16, to_f32)?
        } else {
            a_of(&self.lanes[first..][..32], to_f32).to_vec()
        };
        for lane in 0..32 {
            let words = self.lanes[first + lane].arguments;
            let adds = words[6] != 0;
            let results = |at: usize| (words[at + 1] as usize) << 32 | words[at] as usize;
            for tile in 0..product.columns as usize / 128 {
                // SAFETY: the lane waits in the function that was given these results alone.
                let d = unsafe {
                    &mut *core::ptr::with_exposed_provenance_mut::<[f32; 64]>(results(7 + 2 * tile))
                };
                for (i, d) in d.iter_mut().enumerate() {
                    let (row, column) = mma::c_element(lane as u32, i as u32 % 4);
                    let (a, b) = (&a[row as usize], &b[tile * 128 + i / 4 * 8 + column as usize]);
                    let start = if adds { *d } else { 0.0 };
                    *d = a.iter().zip(b).fold(start, |sum, (a, b)| sum + a * b);
                }
            }
        }
        Ok(())
    }

    /// 16 features of rows of a tile in shared memory, which the warp's product reads.
    fn read_tile(
        &mut self,
        warp: usize,
        tile: u32,
        rows: u32,
        to_f32: impl Fn(u16) -> f32,
    ) -> Result<Vec<[f32; 16]>, LaunchError> {
        let products = &mut self.warps[warp].products;
        products.reads.push((products.groups, tile, rows));
        let mut values = vec![[0.0f32; 16]; rows as usize];
        for (row, values) in values.iter_mut().enumerate() {
            for chunk in 0..2 {
                let words = self.read_chunk(warp, tile, row as u32, chunk as u32)?;
                for (i, value) in values[chunk * 8..][..8].iter_mut().enumerate() {
                    *value = to_f32((words[i / 2] >> (16 * (i % 2))) as u16);
                }
            }
        }
        Ok(values)
    }

    fn read_chunk(&mut self, warp: usize, tile: u32, row: u32, chunk: u32) -> Result<[u32; 4], LaunchError> {
        let plain = tile + row * ROW_BYTES + chunk * 16;
        self.shared.load_any(&self.order, 32 * warp as u32, plain ^ ((plain / ROW_BYTES % 8) * 16))
    }

    /// Closes a warp's group of products, once for all of its lanes.
    fn commit_products(&mut self) {
        if self.thread.is_multiple_of(32) {
            self.warps[self.thread as usize / 32].products.groups += 1;
        }
    }

    /// Reads the tiles of products once more that are done only now.
    pub(super) fn await_products(&mut self, warp: usize, pending: u32) -> Result<(), LaunchError> {
        let products = &mut self.warps[warp].products;
        let done = products.groups.saturating_sub(pending);
        let n_done = products.reads.partition_point(|(group, ..)| *group < done);
        for (_, tile, rows) in products.reads.drain(..n_done).collect::<Vec<_>>() {
            for row in 0..rows {
                for chunk in 0..2 {
                    self.read_chunk(warp, tile, row, chunk)?;
                }
            }
        }
        Ok(())
    }

    /// The block in its cluster's place `rank`, among those that run.
    fn block_at(&self, rank: u32) -> u32 {
        let block = self.shared.block_of(self.thread);
        block - block % self.cluster + rank
    }

    fn init_mbarrier(&mut self, address: u32, arrivals: u32) -> Result<(), LaunchError> {
        // What it is made of is nobody else's.
        self.store(address, [0; 2])?;
        let barrier =
            Mbarrier { arrivals, missing: arrivals, bytes: 0, phases: Phases::new(&self.order.clock()) };
        self.hopper.mbarriers.insert((self.shared.block_of(self.thread), address), barrier);
        Ok(())
    }

    /// Counts arrivals and bytes that come (less than 0) or are to come.
    fn arrive_at(&mut self, block: u32, address: u32, arrivals: u32, bytes: i64) -> Result<(), LaunchError> {
        let at = self.position();
        let barrier = self.hopper.mbarrier(block, address);
        let barrier = barrier.map_err(|what| LaunchError::InvalidBarrier { at, what })?;
        self.order.release(self.thread as usize / 32, &mut barrier.phases.clock);
        if arrivals > barrier.missing {
            let what = format!("more arrivals at {address:#x} than the {} it waits for", barrier.arrivals);
            return Err(LaunchError::InvalidBarrier { at, what });
        }
        barrier.missing -= arrivals;
        barrier.bytes += bytes;
        if barrier.missing == 0 && barrier.bytes == 0 {
            barrier.missing = barrier.arrivals;
            barrier.phases.end(&mut self.order, &mut self.runnable);
        }
        Ok(())
    }

    /// Whether the thread has to wait for the phase of `parity`; it is among those that do then.
    fn waits_at(&mut self, address: u32, parity: u32) -> Result<bool, LaunchError> {
        let at = self.position();
        let barrier = self.hopper.mbarrier(self.shared.block_of(self.thread), address);
        let phases = &mut barrier.map_err(|what| LaunchError::InvalidBarrier { at, what })?.phases;
        Ok(phases.holds(self.thread, phases.phase % 2 == parity, &mut self.order))
    }

    /// Ends all copies of the current thread.
    fn finish_copies(&mut self) {
        let thread = self.thread;
        for copy in core::mem::take(&mut self.lanes[thread as usize].copies) {
            self.shared.finish_copy(&self.order, thread, copy.address, copy.values);
        }
    }

    /// Writes words to a block's shared memory, and counts them at its barrier.
    fn copy_bulk(
        &mut self,
        block: u32,
        address: u32,
        words: &[[u32; 4]],
        barrier: u32,
    ) -> Result<(), LaunchError> {
        for (i, words) in words.iter().enumerate() {
            self.shared.store_to(&self.order, self.thread, block, address + i as u32 * 16, *words)?;
        }
        self.arrive_at(block, barrier, 0, -(words.len() as i64 * 16))
    }

    fn arrive_at_cluster(&mut self) -> Result<(), LaunchError> {
        let (thread, at) = (self.thread, self.position());
        let cluster = self.cluster_of(thread);
        let barrier = &mut self.hopper.clusters[cluster];
        if self.hopper.arrived[thread as usize].replace(barrier.phases.phase).is_some() {
            let what = "arrived at the cluster's barrier twice without a wait".into();
            return Err(LaunchError::InvalidBarrier { at, what });
        }
        barrier.n_arrived += 1;
        self.order.release(thread as usize / 32, &mut barrier.phases.clock);
        self.complete_cluster(cluster);
        Ok(())
    }

    /// The current thread has exited: nobody waits for it.
    pub(super) fn leave_cluster(&mut self) {
        let cluster = self.cluster_of(self.thread);
        let barrier = &mut self.hopper.clusters[cluster];
        barrier.n_gone += 1;
        // It has arrived once, not twice.
        if self.hopper.arrived[self.thread as usize] == Some(barrier.phases.phase) {
            barrier.n_arrived -= 1;
        }
        self.complete_cluster(cluster);
    }

    fn complete_cluster(&mut self, cluster: usize) {
        let threads = self.cluster * self.block_dim;
        let barrier = &mut self.hopper.clusters[cluster];
        if barrier.n_arrived == 0 || barrier.n_arrived + barrier.n_gone < threads {
            return;
        }
        barrier.n_arrived = 0;
        barrier.phases.end(&mut self.order, &mut self.runnable);
    }

    /// The cluster of a thread, among those that run.
    fn cluster_of(&self, thread: u32) -> usize {
        (self.shared.block_of(thread) / self.cluster) as usize
    }

    /// Whether the thread has to wait for its cluster's barrier; it is among those that do then.
    fn waits_at_cluster(&mut self) -> Result<bool, LaunchError> {
        let (thread, at, cluster) = (self.thread, self.position(), self.cluster_of(self.thread));
        let phases = &mut self.hopper.clusters[cluster].phases;
        let Some(phase) = self.hopper.arrived[thread as usize].take() else {
            let what = "a wait for the cluster's barrier without an arrival".into();
            return Err(LaunchError::InvalidBarrier { at, what });
        };
        Ok(phases.holds(thread, phases.phase == phase, &mut self.order))
    }

    /// Orders what the current thread does next behind what came before the fences of other blocks.
    pub(super) fn fence(&mut self) {
        if self.blocks > 1 {
            let warp = self.thread as usize / 32;
            self.order.release(warp, &mut self.hopper.fences);
            self.order.acquire_alone(warp, &self.hopper.fences);
        }
    }

    /// Says who waits at a barrier in shared memory, or of a cluster, that nobody comes to any more.
    pub(super) fn stuck_meeting(&self) -> Option<LaunchError> {
        let of_cluster = self.hopper.clusters.iter().find_map(|barrier| {
            let what = format!("the cluster's barrier: {} arrived, no other can", barrier.n_arrived);
            Some((*barrier.phases.waiting.first()?, what))
        });
        let waiting = of_cluster.or_else(|| {
            self.hopper.mbarriers.iter().find_map(|((_, address), barrier)| {
                let (missing, bytes) = (barrier.missing, barrier.bytes);
                let what =
                    format!("the barrier at {address:#x}: {missing} arrivals and {bytes} bytes missing");
                Some((*barrier.phases.waiting.first()?, what))
            })
        });
        waiting.map(|(thread, what)| LaunchError::DivergentBarrier { at: self.shared.position(thread), what })
    }
}

/// Nothing: a product reads what is there when it is issued.
pub(crate) unsafe fn wgmma_fence() {}
/// `wgmma.commit_group.sync.aligned`
pub(crate) unsafe fn wgmma_commit() {
    machine(|m| m.commit_products());
}
/// `wgmma.wait_group.sync.aligned N`
pub(crate) unsafe fn wgmma_wait<const PENDING: u32>(_: &mut [f32; 64]) {
    warp_op(Kind::AwaitProducts(PENDING), u32::MAX, &[]);
}
/// `wgmma.wait_group.sync.aligned N`
pub(crate) unsafe fn wgmma_wait_reads<const PENDING: u32>() {
    warp_op(Kind::AwaitProducts(PENDING), u32::MAX, &[]);
}
/// Nothing: there are registers for all.
pub(crate) unsafe fn setmaxnreg_inc<const REGISTERS: u32>() {}
/// Nothing.
pub(crate) unsafe fn setmaxnreg_dec<const REGISTERS: u32>() {}

/// The two words of an address of results.
fn words_of(results: &mut [f32; 64]) -> [u32; 2] {
    let address = (&raw mut *results).expose_provenance();
    [address as u32, (address >> 32) as u32]
}

fn multiply(is_bf16: bool, d: &mut [f32; 64], a: &[u32; 4], b: u64, adds: u32) {
    let [low, high] = words_of(d);
    let product = Product { is_bf16, columns: 128, is_shared: false };
    let arguments = [a[0], a[1], a[2], a[3], b as u32, (b >> 32) as u32, adds, low, high];
    warp_op(Kind::Product(product), u32::MAX, &arguments);
}
fn multiply_shared(is_bf16: bool, d: &mut [f32; 64], a: u64, b: u64, adds: u32) {
    let [low, high] = words_of(d);
    let product = Product { is_bf16, columns: 128, is_shared: true };
    let arguments = [a as u32, (a >> 32) as u32, 0, 0, b as u32, (b >> 32) as u32, adds, low, high];
    warp_op(Kind::Product(product), u32::MAX, &arguments);
}
fn multiply_256(is_bf16: bool, [d, e]: [&mut [f32; 64]; 2], a: u64, b: u64, adds: u32) {
    let ([d0, d1], [e0, e1]) = (words_of(d), words_of(e));
    let product = Product { is_bf16, columns: 256, is_shared: true };
    let arguments = [a as u32, (a >> 32) as u32, 0, 0, b as u32, (b >> 32) as u32, adds, d0, d1, e0, e1];
    warp_op(Kind::Product(product), u32::MAX, &arguments);
}

/// `wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16`
pub(crate) unsafe fn wgmma_m64n128k16_f16<const ADD: bool>(d: &mut [f32; 64], a: &[u32; 4], b: u64) {
    multiply(false, d, a, b, ADD.into());
}
/// `wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16`
pub(crate) unsafe fn wgmma_m64n128k16_bf16<const ADD: bool>(d: &mut [f32; 64], a: &[u32; 4], b: u64) {
    multiply(true, d, a, b, ADD.into());
}
/// `wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16`
pub(crate) unsafe fn wgmma_m64n128k16_f16_shared(d: &mut [f32; 64], a: u64, b: u64, add: u32) {
    multiply_shared(false, d, a, b, add);
}
/// `wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16`
pub(crate) unsafe fn wgmma_m64n128k16_bf16_shared(d: &mut [f32; 64], a: u64, b: u64, add: u32) {
    multiply_shared(true, d, a, b, add);
}
/// `wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16`
pub(crate) unsafe fn wgmma_m64n256k16_f16_shared(d: [&mut [f32; 64]; 2], a: u64, b: u64, add: u32) {
    multiply_256(false, d, a, b, add);
}
/// `wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16`
pub(crate) unsafe fn wgmma_m64n256k16_bf16_shared(d: [&mut [f32; 64]; 2], a: u64, b: u64, add: u32) {
    multiply_256(true, d, a, b, add);
}

/// `mbarrier.init.shared::cta.b64`
pub(crate) unsafe fn mbarrier_init(barrier: u32, arrivals: u32) {
    check(|m| m.init_mbarrier(barrier, arrivals));
}
/// `mbarrier.arrive.expect_tx.shared::cta.b64`
pub(crate) unsafe fn mbarrier_arrive_expect_tx(barrier: u32, bytes: u32) {
    check(|m| m.arrive_at(m.shared.block_of(m.thread), barrier, 1, bytes.into()));
}
/// `mbarrier.arrive.shared::cta.b64`
pub(crate) unsafe fn mbarrier_arrive(barrier: u32) {
    check(|m| m.arrive_at(m.shared.block_of(m.thread), barrier, 1, 0));
}
/// `mapa.shared::cluster.u32`, `mbarrier.arrive.shared::cluster.b64`
pub(crate) unsafe fn mbarrier_arrive_at(barrier: u32, rank: u32) {
    check(|m| m.arrive_at(m.block_at(rank), barrier, 1, 0));
}
/// `cp.async.mbarrier.arrive.noinc.shared::cta.b64`
pub(crate) unsafe fn mbarrier_arrive_after_copies(barrier: u32) {
    machine(|m| m.finish_copies());
    check(|m| m.arrive_at(m.shared.block_of(m.thread), barrier, 1, 0));
}
/// `mbarrier.try_wait.parity.shared::cta.b64` until it has passed.
pub(crate) unsafe fn mbarrier_wait(barrier: u32, parity: u32) {
    if check(|m| m.waits_at(barrier, parity)) {
        suspend();
    }
}
/// Nothing: barriers are there once they are begun.
pub(crate) unsafe fn fence_mbarrier_init() {}
/// Nothing: there is one way to memory.
pub(crate) unsafe fn fence_proxy_async() {}

/// `cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes`
pub(crate) unsafe fn bulk_copy(shared: u32, global: *const u8, bytes: u32, barrier: u32) {
    let words = bulk_words(global, bytes);
    check(|m| m.copy_bulk(m.shared.block_of(m.thread), shared, &words, barrier));
}
/// `cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster`
pub(crate) unsafe fn bulk_copy_multicast(
    shared: u32,
    global: *const u8,
    bytes: u32,
    barrier: u32,
    blocks: u16,
) {
    let words = bulk_words(global, bytes);
    for rank in (0..16).filter(|rank| blocks >> rank & 1 == 1) {
        check(|m| m.copy_bulk(m.block_at(rank), shared, &words, barrier));
    }
}
/// What a bulk copy reads.
unsafe fn bulk_words(global: *const u8, bytes: u32) -> Vec<[u32; 4]> {
    check(|m| m.check_global(global as usize, 16, Access::Read));
    check(|m| m.check_global(bytes as usize, 16, Access::Read));
    // SAFETY: the caller's contract, so many bytes at a multiple of 16.
    unsafe { core::slice::from_raw_parts(global.cast::<[u32; 4]>(), bytes as usize / 16) }.to_vec()
}

/// `%cluster_ctarank`
pub(crate) fn cluster_rank() -> u32 {
    machine(|m| m.shared.block_of(m.thread) % m.cluster)
}
/// `mapa.shared::cluster.u32`, `st.shared::cluster.u64`
pub(crate) unsafe fn store_to_block(to: u32, rank: u32, value: u64) {
    check(|m| {
        let block = m.block_at(rank);
        m.shared.store_to(&m.order, m.thread, block, to, [value as u32, (value >> 32) as u32])
    });
}
/// `barrier.cluster.arrive.release`
pub(crate) unsafe fn cluster_arrive() {
    check(|m| m.arrive_at_cluster());
}
/// `barrier.cluster.wait.acquire`
pub(crate) unsafe fn cluster_wait() {
    if check(|m| m.waits_at_cluster()) {
        suspend();
    }
}
