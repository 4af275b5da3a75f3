//! Plans: what each rank does in one collective, as data.
//!
//! A [`Program`] is one rank's steps over symbolic chunks. It is written by [`Writer`], which derives the
//! dependencies between steps; turned into passes over memory by [`fuse`]; proven by [`check`]; timed by
//! [`timeline`]; printed by [`text`]; and bound to bytes by [`extents`]. What is checked and predicted is
//! what runs.

pub mod check;
pub mod extents;
pub mod fuse;
mod layout;
mod memory;
pub mod text;
pub mod timeline;
pub mod write;

use crate::rank::{ChannelId, Rank};
use crate::signature::Collective;
use core::panic::Location;

pub use extents::{EvenSplit, Extents};
pub use fuse::{Pass, Passes, Room, Source};
pub use layout::Holding;
pub use write::Writer;

/// A collective without its bytes: what an algorithm needs to know to write a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    /// Which collective.
    pub collective: Collective,
    /// How many ranks.
    pub size: u32,
    /// The root; rank 0 where there is none.
    pub root: Rank,
    /// Whether input and output are the same memory (NCCL's in-place rule of the collective).
    pub in_place: bool,
    /// Chunks that each block, or each part that an algorithm gives a rank to own, is cut into.
    pub pieces: u32,
    /// Cores that the ranks share, no more than there are ranks: rank k runs on core `k % cores`.
    pub cores: u32,
}

impl Job {
    /// A job of one piece a block, out of place, with root 0.
    pub fn new(collective: Collective, size: u32) -> Self {
        Self { collective, size, root: Rank(0), in_place: false, pieces: 1, cores: size }
    }
}

/// Which memory a chunk lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Buffer {
    /// What the caller gives. Never written, unless the job is in place and it is the output too.
    Input,
    /// What the caller gets.
    Output,
    /// Memory of the library's own, for the length of the call.
    Scratch,
}

/// A run of chunks of one buffer.
///
/// Chunk numbers of `Input` and `Output` count along the collective's logical vector (the whole of what
/// all ranks together hold or reduce): chunk `c` of the input and chunk `c` of the output name the same
/// elements, and where the job is in place, the same memory (but for all-to-all, which gets a block where it gave one). A
/// rank whose buffer holds only some blocks has only their chunks: see [`Holding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chunks {
    /// Which memory.
    pub buffer: Buffer,
    /// The first chunk.
    pub first: u32,
    /// How many, in a row.
    pub count: u32,
}

/// Chunks of the input.
pub fn input(first: u32, count: u32) -> Chunks {
    Chunks { buffer: Buffer::Input, first, count }
}

/// Chunks of the output.
pub fn output(first: u32, count: u32) -> Chunks {
    Chunks { buffer: Buffer::Output, first, count }
}

/// Chunks of the scratch memory. Scratch chunk `c` is as long as logical chunk `c`.
pub fn scratch(first: u32, count: u32) -> Chunks {
    Chunks { buffer: Buffer::Scratch, first, count }
}

/// What a step does. Five verbs, by rule: a new one needs an ADR with numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `into` becomes `from`.
    Copy {
        /// Chunks read.
        from: Chunks,
        /// Chunks written, as many.
        into: Chunks,
    },
    /// `into` becomes `into` op `from`.
    Reduce {
        /// Chunks read.
        from: Chunks,
        /// Chunks read and written, as many.
        into: Chunks,
    },
    /// The chunks go to the peer.
    Send {
        /// Chunks read.
        from: Chunks,
        /// Who gets them.
        peer: Rank,
    },
    /// `into` becomes what the peer sent.
    Recv {
        /// Chunks written.
        into: Chunks,
        /// Who sent them.
        peer: Rank,
    },
    /// `into` becomes `into` op what the peer sent.
    RecvReduce {
        /// Chunks read and written.
        into: Chunks,
        /// Who sent them.
        peer: Rank,
    },
}

/// How a step waits for an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Both work on the same chunks: byte k may be done once the earlier step has done byte k.
    Streaming,
    /// The earlier step must be done.
    Whole,
}

/// A derived dependency of a step on an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The earlier step (or pass), by index.
    pub on: u32,
    /// How much of it must be done.
    pub wait: Wait,
}

/// One entry of a program.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it does.
    pub action: Action,
    /// On which copy of the links.
    pub channel: ChannelId,
    /// Whether the value that the step writes is the finished reduction of all ranks (where an average divides).
    pub finishes: bool,
    /// Dependencies on earlier steps of the same program: read after write, write after read, write after
    /// write, and order on each link. Derived; an author can not write one.
    pub after: Vec<Edge>,
    /// Where the algorithm wrote it, for errors.
    pub written_at: &'static Location<'static>,
}

/// One rank's part in one collective.
#[derive(Clone, Debug)]
pub struct Program {
    /// What it is a part of.
    pub job: Job,
    /// Whose part.
    pub rank: Rank,
    /// How many chunks the logical vector is cut into.
    pub chunks: u32,
    /// The steps, in the order they were written.
    pub steps: Vec<Step>,
    /// Chunks of scratch memory that it uses: chunk numbers of `Buffer::Scratch` are below this.
    pub scratch_chunks: u32,
    /// The most sends that are outstanding at once, where the algorithm sets a bound. Steps wait for earlier ones to keep it: see
    /// [`Algorithm::outstanding_max`].
    pub outstanding_max: Option<u32>,
}

/// Writes programs: the textbook part of a collective. Pure: the same arguments give the same program.
pub trait Algorithm: Sync {
    /// The name users type: `ring`, `one_shot`.
    fn name(&self) -> &'static str;
    /// Whether it can do this job.
    fn fits(&self, job: &Job) -> bool;
    /// Whether every element of a reduction is folded from all ranks' inputs in the order of the ranks, at one place. Then
    /// its bits depend on the inputs alone, and not on which algorithm of this kind is chosen, or where a tensor was cut.
    fn folds_in_rank_order(&self) -> bool {
        false
    }
    /// The most sends of a rank that are outstanding at once, at least 1; `None` where the algorithm sets no bound.
    ///
    /// A send is outstanding from its first byte until all of it is with the link and, where the program takes something from the
    /// same peer after it, until that has come. So a rank never runs ahead of a peer that does not send, wherever its bytes lie. From this
    /// number the dependencies that keep it are derived: each send waits for what ends the one that so many sends
    /// stand before it.
    fn outstanding_max(&self, _job: &Job) -> Option<u32> {
        None
    }
    /// How many chunks the logical vector is cut into for this job.
    fn chunks(&self, job: &Job) -> u32;
    /// Writes the steps of `p.rank()`.
    fn write(&self, job: &Job, p: &mut Writer);
    /// The whole program of one rank.
    fn program(&self, job: &Job, rank: Rank) -> Program {
        let mut writer = Writer::new(*job, rank, self.chunks(job)).bounded(self.outstanding_max(job));
        self.write(job, &mut writer);
        writer.finish()
    }
}
