//! What a launch can find wrong with a kernel.
use core::fmt;

/// A thread of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Index of the block in its grid.
    pub block: u32,
    /// Index of the thread in its block.
    pub thread: u32,
}

/// Why a launch ended early. Offsets are bytes from the start of the block's dynamic shared memory.
///
/// With `RUST_BACKTRACE=1` the kernel's stack at the error goes to standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaunchError {
    /// No hardware would take this grid, block or amount of shared memory.
    InvalidLaunch {
        /// The value and its limit.
        what: String,
    },
    /// A thread waits at a barrier that cannot complete, or a warp is at different barriers.
    DivergentBarrier {
        /// A thread that waits.
        at: Position,
        /// The barrier, and who is missing.
        what: String,
    },
    /// A named barrier has an id, a count or a use that hardware does not define.
    InvalidBarrier {
        /// The calling thread.
        at: Position,
        /// The operation and its fault.
        what: String,
    },
    /// A product's tile is not described as one in the 128-byte swizzle, of which the emulation knows no other.
    InvalidTile {
        /// A multiplying thread.
        at: Position,
        /// The descriptor.
        descriptor: u64,
    },
    /// Lanes wait for each other in different warp operations, or with different masks.
    DivergentWarpOp {
        /// The thread that came last, or one that waits for ever.
        at: Position,
        /// The operations.
        what: String,
    },
    /// A warp operation's mask names a lane that has exited or that the block does not have.
    ExitedLane {
        /// A thread that waits for the lane.
        at: Position,
        /// The operation and the lane.
        what: String,
    },
    /// A warp operation's mask does not name the lane that calls it.
    CallerOutsideMask {
        /// The calling thread.
        at: Position,
        /// The operation and its mask.
        what: String,
    },
    /// A shuffle reads a lane that its mask does not name.
    ShuffleOutsideMask {
        /// The reading thread.
        at: Position,
        /// The lane read.
        source: u32,
        /// The mask.
        mask: u32,
    },
    /// An access to shared memory that the launch did not ask for.
    SharedOutOfBounds {
        /// The accessing thread.
        at: Position,
        /// Where; negative below the start.
        offset: i64,
        /// Bytes accessed.
        bytes: u32,
        /// Bytes the block has.
        available: u32,
    },
    /// An address that is not a multiple of the access's size.
    Misaligned {
        /// The accessing thread.
        at: Position,
        /// The operation and the address.
        what: String,
    },
    /// A read of shared memory that nothing has written in this block.
    UninitialisedRead {
        /// The reading thread.
        at: Position,
        /// Where.
        offset: u32,
    },
    /// Two accesses of shared memory, one of them a write, with nothing to order them.
    Race {
        /// The thread that came second in this schedule.
        at: Position,
        /// The thread that came first.
        other: u32,
        /// Where.
        offset: u32,
        /// Both accesses.
        what: String,
    },
    /// An access of shared memory that a `cp.async` is still to write.
    CopyInFlight {
        /// The accessing thread.
        at: Position,
        /// The thread that issued the copy.
        other: u32,
        /// Where.
        offset: u32,
    },
    /// The kernel panicked.
    Panicked {
        /// The thread that did.
        at: Position,
        /// The panic's message.
        message: String,
    },
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}, thread {}", self.block, self.thread)
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidLaunch { what } => write!(f, "invalid launch: {what}"),
            Self::DivergentBarrier { at, what } => write!(f, "{at}: divergent barrier: {what}"),
            Self::InvalidBarrier { at, what } => write!(f, "{at}: invalid barrier: {what}"),
            Self::InvalidTile { at, descriptor } => {
                write!(f, "{at}: product of a tile that is not in the 128-byte swizzle: {descriptor:#x}")
            }
            Self::DivergentWarpOp { at, what } => write!(f, "{at}: divergent warp operation: {what}"),
            Self::ExitedLane { at, what } => {
                write!(f, "{at}: warp operation without a lane it names: {what}")
            }
            Self::CallerOutsideMask { at, what } => {
                write!(f, "{at}: warp operation whose mask lacks its caller: {what}")
            }
            Self::ShuffleOutsideMask { at, source, mask } => {
                write!(f, "{at}: shuffle reads lane {source}, which mask {mask:#010x} does not name")
            }
            Self::SharedOutOfBounds { at, offset, bytes, available } => {
                write!(f, "{at}: shared access of {bytes} bytes at offset {offset}, of {available} available")
            }
            Self::Misaligned { at, what } => write!(f, "{at}: misaligned access: {what}"),
            Self::UninitialisedRead { at, offset } => {
                write!(f, "{at}: read of uninitialised shared memory at offset {offset}")
            }
            Self::Race { at, other, offset, what } => {
                write!(f, "{at}: shared memory race with thread {other} at offset {offset}: {what}")
            }
            Self::CopyInFlight { at, other, offset } => {
                write!(
                    f,
                    "{at}: access of shared memory at offset {offset} while thread {other} copies to it"
                )
            }
            Self::Panicked { at, message } => write!(f, "{at}: kernel panicked: {message}"),
        }
    }
}

impl core::error::Error for LaunchError {}
