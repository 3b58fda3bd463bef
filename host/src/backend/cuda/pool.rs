//! Greedy k-means++ on the GPU: the steps of `greedy` in [`crate::init`], which come to the same rows.
//!
//! ```text
//! a pass        sums of distances ─> a pool, where one is used up ─> products with its rows, 2 to 4096 of them ─> pairs in
//!               which the row may be nearer ─> lists of them, their distances ─> steps, until the pool is used up
//! the host      looks after each pass; of k rows there are some log k passes
//! ```
//! Points of which more are nearer to rows of a pool than there is room for are looked at with fewer rows at a time.
use super::device::{Device, failed};
use super::init::Resident;
use super::lloyd::{Call, PairArrays, Role};
use super::memory::{Place, Plan};
use super::{GpuElement, bytes_beside};
use crate::error::{Error, Result};
use crate::init::{pool_proposals, trials};
use crate::rng::Rng;
use bytemuck::{Pod, Zeroable};
use cust::stream::Stream;
use kernels_gpu::kernels::*;
use kernels_gpu::spec::*;
use std::marker::PhantomData;

/// [`PoolState`] as bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct State(PoolState);
// SAFETY: a u64 and four u32, any bits of which are valid, without padding.
unsafe impl Zeroable for State {}
// SAFETY: as above.
unsafe impl Pod for State {}

/// Most rows of the pools of a choice of `k`: steps double what is chosen, and are no more than are left.
fn most_proposals(k: usize) -> usize {
    pool_proposals((k / 2).max(1), k.max(2), trials(k))
}

/// About the bytes that a choice takes beside the points.
pub(super) fn bytes<T: GpuElement>(shape: Shape, k: usize) -> u64 {
    let sizes @ [batch, n, _] = [shape.batch, shape.n, shape.d].map(u64::from);
    let rows = batch * n;
    let of_pairs = 20 * u64::from(capacity(rows, k, 0));
    // Nothing is assigned again.
    bytes_beside(T::DTYPE, sizes, most_proposals(k) as u64, 0) + of_pairs + 17 * rows
}

/// Room for pairs: as many as a step's candidates can have at most, where each is nearest to all points, and a quarter more for
/// pools; and what warps leave of the places that they take. Of very many points less than that, which is enough unless most
/// candidates are nearest to most of them.
fn capacity(rows: u64, k: usize, multiprocessors: u32) -> u32 {
    const MOST: u64 = (1 << 31) - 1;
    let left = u64::from(multiprocessors) * 2048 + 4096;
    (rows * (trials(k) as u64 + trials(k) as u64 / 4) + left).min(MOST) as u32
}

impl<T: GpuElement> Resident<'_, T> {
    /// The steps of greedy k-means++ from rows `firsts` on, in each problem: `k` rows, or fewer where all others lie on them.
    /// `weights`: how often each point counts, where that is not once. [`Error::OutOfDeviceMemory`] where pairs have no room.
    pub(super) fn greedy(
        &self,
        weights: Option<&[f64]>,
        firsts: &[u32],
        k: usize,
        rngs: &mut [Rng],
    ) -> Result<Vec<Vec<usize>>> {
        let (device, trials, most, batch) = (self.device, trials(k), most_proposals(k), firsts.len());
        let (n, shape) = (self.shape.n as usize, Shape { k: k as u32, ..self.shape });
        let points = batch as u64 * n as u64;
        let no_room = || {
            let free = cust::memory::mem_get_info().map_or(0, |(free, _)| free as u64);
            Err(Error::OutOfDeviceMemory { requested: bytes::<T>(shape, k), free })
        };
        let capacity = capacity(points, k, device.multiprocessors());
        let mut call = Call::over(self, most, Role::Pairs(self.shape))?;
        // It has a stream of its own: points are to be there.
        self.stream.synchronize().map_err(|code| failed("waiting for the device", code))?;
        let Some(known) = call.prepare_pairs()? else { return no_room() };
        let team = team(device, self.shape.n)?;
        let params = PoolParams {
            shape,
            trials: trials as u32,
            steps: POOL_PROPOSALS / trials as u32,
            most: most as u32,
            window: 1,
            capacity,
        };
        let columns = batch * most;

        let mut plan = Plan::default();
        let states: Place<State> = plan.array(batch);
        let rows: Place<u32> = plan.array(batch * k);
        let pool_rows: Place<u32> = plan.array(columns);
        let pool_nearest: Place<f64> = plan.array(columns);
        let window_rows: Place<u32> = plan.array(columns);
        let places: Place<u32> = plan.array(columns);
        let limits: Place<u32> = plan.array(batch);
        let totals: Place<f64> = plan.array(batch);
        let nearest: Place<f64> = plan.array(batch * n);
        let chunk_sums = plan.array(batch * params.chunks() as usize);
        let group_sums = plan.array(batch * params.groups() as usize);
        let pair_points = plan.array(capacity as usize);
        let pair_columns = plan.array(capacity as usize);
        let list_points = plan.array(capacity as usize);
        let list_distances = plan.array(capacity as usize);
        let counts: Place<u32> = plan.array(columns + 1);
        let starts = plan.array(columns + 1);
        let cursors = plan.array(columns);
        let of_points = weights.map(|weights| (weights, plan.array(batch * n)));
        let arena = device.arena(plan.bytes())?;

        let start = |rng: &Rng| PoolState { counter: rng.counter(), proposals: 1, ..PoolState::default() };
        let mut now: Vec<PoolState> = rngs.iter().map(start).collect();
        let stream = call.stream();
        let initial: Vec<_> = now.iter().copied().map(State).collect();
        arena.upload(device, stream, states, &initial)?;
        let mut pools = vec![0; columns];
        pools.iter_mut().step_by(most).zip(firsts).for_each(|(to, &row)| *to = row);
        arena.upload(device, stream, pool_rows, &pools)?;
        arena.zero(stream, totals)?;
        let mut weights = std::ptr::null();
        if let Some((values, place)) = of_points {
            arena.upload(device, stream, place, values)?;
            weights = arena.at(place).cast_const();
        }
        device.load(&[
            PoolSums::SPEC,
            Propose::SPEC,
            T::lists(device, shape).spec,
            CountPairs::SPEC,
            PairStarts::SPEC,
            PlacePairs::SPEC,
            <MeasurePairs<T::Device> as Kernel>::SPEC,
            team.spec,
        ])?;

        // Rows of pools that a pass may look at: never less than a step takes.
        let (least, mut at_once) = (trials as u32, most as u32);
        loop {
            let wanted = |state: &PoolState| params.proposals(*state) - state.next;
            let open = now.iter().filter(|state| state.done == 0);
            let Some(window) = open.map(wanted).max().map(|wanted| wanted.min(at_once)) else { break };
            let pool = PoolParams { window, ..params };
            let sums = PoolSums {
                nearest: arena.at(nearest),
                norms: known.norms,
                extents: known.extents,
                weights,
                states: arena.at(states).cast(),
                chunk_sums: arena.at(chunk_sums),
                group_sums: arena.at(group_sums),
                floors: known.floors,
                params: PoolSumsParams { pool },
            };
            let propose = Propose {
                nearest: arena.at(nearest),
                chunk_sums: arena.at(chunk_sums),
                group_sums: arena.at(group_sums),
                states: arena.at(states).cast(),
                pool_rows: arena.at(pool_rows),
                pool_nearest: arena.at(pool_nearest),
                rows: arena.at(window_rows),
                places: arena.at(places),
                limits: arena.at(limits),
                totals: arena.at(totals),
                open: known.open,
                params: ProposeParams { pool },
            };
            // SAFETY: every array lies in the arena or the call with the length that the parameters say.
            unsafe {
                device.launch(call.stream(), &sums)?;
                device.launch(call.stream(), &propose)?;
            }
            let arrays = PairArrays {
                rows: arena.at(window_rows),
                limits: arena.at(limits),
                points: arena.at(pair_points),
                columns: arena.at(pair_columns),
            };
            call.list_pairs(window, arrays, capacity)?;
            let stream = call.stream();
            arena.zero(stream, counts)?;
            let count = CountPairs {
                list_counts: known.list_counts,
                columns: arena.at(pair_columns),
                counts: arena.at(counts),
                params: PairsParams { pool },
            };
            let begin = PairStarts {
                counts: arena.at(counts),
                starts: arena.at(starts),
                cursors: arena.at(cursors),
                params: PairStartsParams { pool },
            };
            let place = PlacePairs {
                list_counts: known.list_counts,
                points: arena.at(pair_points),
                columns: arena.at(pair_columns),
                cursors: arena.at(cursors),
                list_points: arena.at(list_points),
                params: PairsParams { pool },
            };
            let measure = MeasurePairs::<T::Device> {
                points: self.points.cast(),
                weights,
                rows: arena.at(window_rows),
                counts: arena.at(counts),
                starts: arena.at(starts),
                list_points: arena.at(list_points),
                list_distances: arena.at(list_distances),
                params: MeasureParams { pool },
            };
            // No more blocks than work at a time.
            let at_most = |blocks: u64, spec: KernelSpec| {
                blocks.min((device.multiprocessors() * spec.blocks_per_sm).into()) as u32
            };
            let of_pairs = at_most(count.params.blocks(), CountPairs::SPEC);
            // SAFETY: as above; rows are under `n`.
            unsafe {
                device.launch_grid(stream, &count, of_pairs)?;
                device.launch(stream, &begin)?;
                device.launch_grid(stream, &place, of_pairs)?;
                let spec = <MeasurePairs<T::Device> as Kernel>::SPEC;
                let blocks = at_most(measure.params.blocks(), spec);
                device.launch_grid(stream, &measure, blocks)?;
            }
            let choose = Choose {
                nearest: arena.at(nearest),
                pool_rows: arena.at(pool_rows),
                pool_nearest: arena.at(pool_nearest),
                places: arena.at(places),
                totals: arena.at(totals),
                limits: arena.at(limits),
                open: known.open,
                list_counts: known.list_counts,
                starts: arena.at(starts),
                list_points: arena.at(list_points),
                list_distances: arena.at(list_distances),
                states: arena.at(states).cast(),
                rows: arena.at(rows),
                params: ChooseParams { pool },
                operand: PhantomData,
            };
            // SAFETY: as above; lists have each point once.
            unsafe { (team.launch)(device, stream, choose)? };
            let after: Vec<PoolState> = arena
                .download(device, stream, states, batch)?
                .into_iter()
                .map(|State(state)| state)
                .collect();
            let taken = call.pairs_taken()?;
            let has_room = taken <= capacity;
            tracing::debug!(window, taken, chosen = after[0].chosen, "pairs of pools");
            if has_room && after != now {
                at_once = at_once.saturating_mul(2).min(most as u32);
            } else if window > least {
                at_once = (window / 2).max(least);
            } else {
                return no_room();
            }
            now = after;
        }
        let chosen = arena.download(device, call.stream(), rows, batch * k)?;
        device.keep(arena);
        let of_problem = |((rows, end), rng): ((&[u32], &PoolState), &mut Rng)| {
            *rng = Rng::at(end.counter);
            rows[..end.chosen as usize].iter().map(|&row| row as usize).collect()
        };
        Ok(chosen.chunks(k).zip(&now).zip(rngs).map(of_problem).collect())
    }
}

/// The blocks that choose a problem's rows together.
#[derive(Clone, Copy)]
struct Team {
    spec: KernelSpec,
    /// # Safety
    /// As [`Device::launch`].
    launch: unsafe fn(&Device, &Stream, Choose<()>) -> Result<()>,
}

/// That of an entry.
macro_rules! team {
    ($Of:ty) => {{
        /// # Safety
        /// As [`Device::launch`].
        unsafe fn launch(device: &Device, stream: &Stream, from: Choose<()>) -> Result<()> {
            // SAFETY: as this function's.
            unsafe { device.launch_clusters(stream, &<$Of>::of(from, from.params)) }
        }
        Team { spec: <$Of as Kernel>::SPEC, launch }
    }};
}

/// What chooses rows of `n`.
fn team(device: &Device, n: u32) -> Result<Team> {
    if n <= CHOOSE_HELD_ROWS {
        return Ok(team!(Choose<Blocks<CHOOSE_HOLDS>>));
    }
    let cluster = team!(ChooseCluster<Blocks<CHOOSE_CLUSTER>>);
    // Not where a part of a GPU has no sixteen multiprocessors beside each other.
    let has_room = device.is_hopper() && device.clusters(&cluster.spec)? > 0;
    Ok(if has_room { cluster } else { team!(Choose<Blocks<1>>) })
}
