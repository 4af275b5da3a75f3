//! What can be wrong with a plan.

use crate::plan::{Chunks, Program};
use crate::rank::Rank;
use core::fmt;
use core::panic::Location;

/// A plan does not hold, and where it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The rank whose program it is.
    pub rank: Rank,
    /// The step, by index; `None` where it is about the end of the program.
    pub step: Option<u32>,
    /// Where the algorithm wrote the step.
    pub written_at: Option<&'static Location<'static>>,
    /// What is wrong.
    pub reason: Reason,
}

impl PlanError {
    pub(super) fn at(program: &Program, step: u32, reason: Reason) -> Self {
        let written_at = program.steps.get(step as usize).map(|s| s.written_at);
        Self { rank: program.rank, step: Some(step), written_at, reason }
    }

    pub(super) fn of(rank: Rank, reason: Reason) -> Self {
        Self { rank, step: None, written_at: None, reason }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rank)?;
        if let Some(step) = self.step {
            write!(f, ", step {step}")?;
        }
        if let Some(at) = self.written_at {
            write!(f, " ({}:{})", at.file().rsplit('/').next().unwrap_or_default(), at.line())?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl core::error::Error for PlanError {}

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Not one program for each rank, of the same job and chunks.
    #[error("the programs are not one for each rank, in order, all of the same job")]
    NotOnePlan,
    /// Chunks outside their buffer.
    #[error("{chunks} is empty or not within the rank's part of that buffer")]
    OutOfRange {
        /// The run.
        chunks: Chunks,
    },
    /// A message to or from nobody.
    #[error("the peer is no other rank")]
    NoPeer,
    /// Two runs of one step differ in length, or share memory.
    #[error("{from} and {into} are not two equally long runs apart")]
    UnequalRuns {
        /// The run that is read.
        from: Chunks,
        /// The run that is written.
        into: Chunks,
    },
    /// The step's dependencies are not the derived ones.
    #[error("the dependencies are not those that follow from what the steps touch")]
    WrongEdges,
    /// A receive without its send.
    #[error("takes a message from {peer} that {peer} never sends")]
    Unsent {
        /// Who should send.
        peer: Rank,
    },
    /// A send without its receive.
    #[error("sends {peer} a message that {peer} never takes")]
    Untaken {
        /// Who should receive.
        peer: Rank,
    },
    /// A send and its receive differ in length.
    #[error("takes {taken} from {peer}, which sends {sent} then")]
    UnequalMessage {
        /// The sender.
        peer: Rank,
        /// What it sends.
        sent: Chunks,
        /// What the receiver expects.
        taken: Chunks,
    },
    /// A read of memory that holds nothing yet.
    #[error("reads {chunks}, which holds nothing yet")]
    Unwritten {
        /// The chunk.
        chunks: Chunks,
    },
    /// A write to memory that is the caller's input only.
    #[error("writes {chunks}, which is the caller's input")]
    WritesInput {
        /// The run.
        chunks: Chunks,
    },
    /// One rank's contribution would count twice.
    #[error("reduces what {rank} gave to chunk {chunk} a second time")]
    ReducedTwice {
        /// Whose contribution.
        rank: Rank,
        /// Of which chunk of the logical vector.
        chunk: u32,
    },
    /// Two different places of the vector would be combined.
    #[error("reduces chunk {chunk} with chunk {other}")]
    MixedChunks {
        /// A chunk of the logical vector.
        chunk: u32,
        /// Another one.
        other: u32,
    },
    /// A reduction becomes complete and the step does not say so.
    #[error("completes the reduction of chunk {chunk} but is not marked as finishing it")]
    Unmarked {
        /// The chunk of the logical vector.
        chunk: u32,
    },
    /// A step says that it completes a reduction and does not.
    #[error("is marked as finishing the reduction of chunk {chunk} but does not complete it")]
    MarkedEarly {
        /// The chunk of the logical vector.
        chunk: u32,
    },
    /// Ranks wait for one another in a circle.
    #[error("deadlock: waits for step {step} of {with}, which waits for this one")]
    Deadlock {
        /// A rank in the circle.
        with: Rank,
        /// Its step.
        step: u32,
    },
    /// An output chunk was never written.
    #[error("chunk {chunk} of the output is never written")]
    NoResult {
        /// The chunk.
        chunk: u32,
    },
    /// An output chunk holds something else than promised.
    #[error("chunk {chunk} of the output ends as {holds}")]
    WrongResult {
        /// The chunk.
        chunk: u32,
        /// What it holds.
        holds: String,
    },
    /// Two ranks fold or round in different orders.
    #[error("chunk {chunk} of the output is folded or rounded in another order than on {other}")]
    UnequalBits {
        /// The chunk.
        chunk: u32,
        /// The rank it was compared with.
        other: Rank,
    },
    /// Fused for other links, the plan would round in other places.
    #[error("the results depend on how much the links hold")]
    RoundingDependsOnRoom,
}
