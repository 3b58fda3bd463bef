//! Fibers, and the loop that resumes them.
use core::cell::{Cell, RefCell};
use core::panic::AssertUnwindSafe;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::catch_unwind;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::error::LaunchError;
use super::machine::{Kind, MAX_RUNNING, MAX_THREADS, Machine};

/// Address space only: pages are used once touched. Room for unoptimised kernels and a panic message.
const STACK_BYTES: usize = 256 << 10;
/// What one block may ask for on compute capability 9.0.
const MAX_SHARED_BYTES: u32 = 227 << 10;

/// The order in which threads that can run are resumed, and blocks are run.
///
/// A correct kernel gives the same result under all of them, but for the order of its atomics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// The lowest thread first: a warp runs as far as it can before the next one starts.
    Forward,
    /// The highest thread first, and the last block first.
    Reverse,
    /// Pseudo-random, the same for the same seed.
    Seeded(u64),
}

/// How to run a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks, at least 1.
    pub grid: u32,
    /// Threads in a block, 1 to 1024.
    pub block: u32,
    /// Bytes of dynamic shared memory of a block, up to 227 KiB.
    pub shared_bytes: u32,
    /// Blocks of a cluster, which run at the same time; 1 where there are none. With more than one, `block` is a multiple of 32
    /// and a cluster has no more than 16384 threads.
    pub cluster: u32,
    /// Whether all blocks of the grid run at the same time, of no more than 16384 threads.
    pub together: bool,
    /// Who runs first.
    pub schedule: Schedule,
}

/// What the scheduler tells a fiber when it resumes it.
#[derive(Clone, Copy, PartialEq)]
enum Command {
    /// Start the kernel for the next block, or go on with it.
    Run,
    /// No more blocks.
    Stop,
}

type Fiber = Coroutine<Command, (), (), DefaultStack>;

/// A machine and the way out of each of its fibers.
struct Running {
    machine: Machine,
    /// One for each thread, set when its fiber first runs.
    yielders: Vec<*const Yielder<Command, ()>>,
    error: Option<(LaunchError, Backtrace)>,
}

thread_local! {
    /// The launch whose kernel this OS thread is running.
    static RUNNING: Cell<*mut Running> = const { Cell::new(core::ptr::null_mut()) };
    /// Stacks of finished launches: mapping them anew costs more than running most blocks.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

fn running() -> *mut Running {
    let running = RUNNING.get();
    assert!(!running.is_null(), "a device function was called outside simt::launch");
    running
}

/// Runs `f` on the state of the launch. `f` must not suspend, nor call this again.
#[inline]
pub(super) fn machine<T>(f: impl FnOnce(&mut Machine) -> T) -> T {
    // SAFETY: `launch` keeps the value alive while RUNNING points to it; it lives on this OS thread
    // only, and no reference to it is held where a fiber is resumed or suspended.
    f(unsafe { &mut (*running()).machine })
}

/// As [`machine`], and ends the launch on an error.
#[inline]
pub(super) fn check<T>(f: impl FnOnce(&mut Machine) -> Result<T, LaunchError>) -> T {
    match machine(f) {
        Ok(value) => value,
        Err(error) => fail(error),
    }
}

/// Joins a warp operation, waits for it to complete and returns this lane's results.
pub(super) fn warp_op(kind: Kind, mask: u32, arguments: &[u32]) -> [u32; 4] {
    check(|m| m.arrive(kind, mask, arguments));
    suspend();
    machine(|m| m.results())
}

#[cold]
fn fail(error: LaunchError) -> ! {
    let running = running();
    // SAFETY: as in `machine`.
    unsafe { (*running).error = Some((error, Backtrace::capture())) };
    suspend();
    unreachable!("a failed thread is never resumed, only unwound")
}

/// Lets others run, and goes on in its turn.
pub(super) fn pause() {
    machine(|m| m.paused.push(m.thread));
    suspend();
}

pub(super) fn suspend() {
    let running = running();
    // SAFETY: as in `machine`; the current thread's fiber set its entry, which points into its stack.
    unsafe {
        let yielder = (&(*running).yielders)[(*running).machine.thread as usize];
        (*yielder).suspend(());
    }
}

/// Runs `kernel` once for each thread of the grid, all on the calling OS thread: it may hold raw pointers
/// to what stands for global memory.
///
/// # Semantics
/// One fiber runs for each thread of a block; the blocks of a grid run one after another on the calling
/// OS thread, but for those of a cluster, and of a launch of blocks that run together. A fiber runs until a convergent operation and waits there for the other lanes, so
/// everything between two such points is atomic in effect, and every run of a [`Schedule`] is the same.
/// What a GPU leaves undefined is an error here, whatever the schedule:
///
/// - **Warp operations** (shuffles, votes, `sync_warp`, `ldmatrix`, `mma`) complete when every lane of
///   the mask has made the same call with the same mask. Two lanes that wait for each other in different
///   calls, a mask without the caller, a mask with a lane that has exited or does not exist, and a
///   shuffle from a lane outside the mask are errors.
/// - **Barriers** are `.aligned`: the live lanes of a warp arrive together. `sync_threads` completes when
///   every warp that still runs has arrived (exited lanes count as arrived); a named barrier counts 32
///   for each warp. Lanes left waiting when nothing can run are an error.
/// - **Shared memory** starts as bytes of 0xFF, and reading a word that the block has not written is an
///   error, as are accesses outside the launch's bytes or not aligned to their size.
/// - **Races** in shared memory: two accesses to a word by two threads, not both reads and not both
///   atomic, must be ordered by `sync_threads` (all threads), a named barrier (those that arrive before
///   those that wait) or `sync_warp` (the lanes of its mask). Shuffles and votes order nothing, as the
///   PTX manual says. Within a block, atomics and fences order nothing either, so a flag in shared
///   memory that guards data is reported as a race.
/// - **`cp.async`** writes when the issuing thread waits for its group; until then any access to those
///   bytes is an error, and afterwards it is that thread's write, for others to see behind a barrier.
///
/// # Limits
/// - Global memory is host memory: alignment of vectors is checked, bounds and races are not.
/// - Of a word, the last write and three readers are kept (the last, one more of its warp, one of another
///   warp), so a write that races with yet another reader only is missed. But for the flags above, what
///   is reported is a race on hardware too.
/// - A loop that waits for another thread without a convergent operation or a pause never ends, and blocks run in
///   sequence unless the launch says otherwise, so a grid-wide barrier does not work, while "the last block finishes the job"
///   does.
/// - `mma` and `wgmma` sum in one order; hardware has its own. `wgmma` multiplies when it is issued, and reads its tiles once
///   more when it is waited for, so that one that has been written over by then is a race; that nothing touches its results
///   before is for `ptxas` to say; of what nothing has written, the products are NaN. Bulk copies write when they are issued, and others see it behind their barrier.
/// - A thread that arrives at a barrier in shared memory or at a cluster's counts for all that its warp did before. Between
///   blocks that run at the same time, a fence orders as if an atomic access told of every other.
///
/// # Errors
/// The first thing found wrong with the kernel; what it had written to global memory by then stays.
///
/// # Panics
/// If called from a kernel.
pub fn launch(config: Launch, kernel: impl Fn()) -> Result<(), LaunchError> {
    config.check()?;
    assert!(RUNNING.get().is_null(), "a kernel cannot launch a kernel");

    let n_threads = (config.blocks() * config.block) as usize;
    let mut state =
        Running { machine: Machine::new(&config), yielders: vec![core::ptr::null(); n_threads], error: None };
    let running = &raw mut state;
    let mut fibers = Fibers { fibers: Vec::with_capacity(n_threads) };
    for thread in 0..n_threads {
        let stack = STACKS.with_borrow_mut(Vec::pop);
        let stack =
            stack.unwrap_or_else(|| DefaultStack::new(STACK_BYTES).expect("address space for stacks"));
        // SAFETY: the fibers are dropped, and so unwound, before `kernel` and `state` are.
        fibers.fibers.push(unsafe { fiber(stack, thread, running, &kernel) });
    }
    RUNNING.set(running);
    let outcome = run_grid(config, running, &mut fibers.fibers);
    drop(fibers);
    RUNNING.set(core::ptr::null_mut());
    outcome
}

impl Launch {
    /// Blocks that run at the same time.
    pub(super) fn blocks(&self) -> u32 {
        if self.together { self.grid } else { self.cluster }
    }

    fn check(&self) -> Result<(), LaunchError> {
        let what = if self.grid == 0 {
            "no blocks".to_string()
        } else if self.block == 0 || self.block > MAX_THREADS {
            format!("{} threads in a block, not 1 to {MAX_THREADS}", self.block)
        } else if self.shared_bytes > MAX_SHARED_BYTES {
            format!("{} bytes of shared memory, more than {MAX_SHARED_BYTES}", self.shared_bytes)
        } else if self.cluster == 0 || !self.grid.is_multiple_of(self.cluster) {
            format!("a grid of {} blocks, of clusters of {}", self.grid, self.cluster)
        } else if self.blocks() > 1 && !self.block.is_multiple_of(32) {
            format!("{} threads in a block, of several that run at the same time", self.block)
        } else if self.blocks().saturating_mul(self.block) > MAX_RUNNING {
            format!(
                "{} blocks of {} threads at the same time, more than {MAX_RUNNING}",
                self.blocks(),
                self.block
            )
        } else {
            return Ok(());
        };
        Err(LaunchError::InvalidLaunch { what })
    }
}

/// Fibers that give their stacks back.
struct Fibers {
    fibers: Vec<Fiber>,
}

impl Drop for Fibers {
    fn drop(&mut self) {
        for mut fiber in self.fibers.drain(..) {
            // A fiber that waits in a kernel is unwound; one between blocks has nothing to unwind.
            fiber.force_unwind();
            let stack = fiber.into_stack();
            STACKS.with_borrow_mut(|stacks| stacks.push(stack));
        }
    }
}

/// A fiber that runs the kernel for one thread of each block.
///
/// # Safety
/// It must be dropped before `running` and `kernel`.
unsafe fn fiber(stack: DefaultStack, thread: usize, running: *mut Running, kernel: &impl Fn()) -> Fiber {
    let body = move |yielder: &Yielder<Command, ()>, mut command: Command| {
        // SAFETY: as in `machine`, here and below.
        unsafe { (&mut (*running).yielders)[thread] = yielder };
        while command == Command::Run {
            let outcome = catch_unwind(AssertUnwindSafe(kernel));
            let outcome = match outcome {
                Ok(()) => unsafe { (*running).machine.exit() },
                // The scheduler unwinds this fiber after an error elsewhere.
                Err(_) if unsafe { (*running).error.is_some() } => return,
                Err(payload) => Err(LaunchError::Panicked {
                    at: unsafe { (*running).machine.position() },
                    message: panic_message(&*payload),
                }),
            };
            if let Err(error) = outcome {
                // The panic hook has shown the stack, and an exit has none worth showing.
                unsafe { (*running).error = Some((error, Backtrace::disabled())) };
            }
            command = yielder.suspend(());
        }
    };
    // SAFETY: the caller's contract.
    unsafe { Fiber::with_stack_unchecked(stack, body) }
}

fn panic_message(payload: &(dyn core::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_string()
}

fn run_grid(config: Launch, running: *mut Running, fibers: &mut [Fiber]) -> Result<(), LaunchError> {
    let mut random = Random(match config.schedule {
        Schedule::Seeded(seed) => seed,
        _ => 0,
    });
    // Blocks that run at the same time come and go together.
    let turns = config.grid / config.blocks();
    let stride = coprime_stride(turns, &mut random);
    let start = random.below(turns);
    for i in 0..turns {
        let turn = match config.schedule {
            Schedule::Forward => i,
            Schedule::Reverse => turns - 1 - i,
            Schedule::Seeded(_) => {
                ((u64::from(start) + u64::from(i) * u64::from(stride)) % u64::from(turns)) as u32
            }
        };
        // SAFETY: as in `machine`, for each use of `running` in this function.
        unsafe { (*running).machine.start_blocks(turn * config.blocks()) };
        loop {
            let next = unsafe { &mut (*running).machine }.take_runnable(config.schedule, &mut random);
            let Some(thread) = next else { break };
            if let CoroutineResult::Return(()) = fibers[thread as usize].resume(Command::Run) {
                unreachable!("a fiber ends when it is told to");
            }
            if let Some((error, backtrace)) = unsafe { &(*running).error } {
                return Err(report(error, backtrace));
            }
        }
        unsafe { &mut (*running).machine }.end_block()?;
    }
    for fiber in fibers {
        fiber.resume(Command::Stop);
    }
    Ok(())
}

#[cold]
fn report(error: &LaunchError, backtrace: &Backtrace) -> LaunchError {
    if backtrace.status() == BacktraceStatus::Captured {
        eprintln!("{error}\n{backtrace}");
    }
    error.clone()
}

/// A step that visits all of `0..n` in an order that looks random enough for blocks.
fn coprime_stride(n: u32, random: &mut Random) -> u32 {
    let gcd = |mut a: u32, mut b: u32| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let mut stride = 1 + random.below(n);
    while gcd(stride, n) != 1 {
        stride += 1;
    }
    stride
}

/// SplitMix64.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (((z >> 32) * u64::from(n)) >> 32) as u32
    }
}
