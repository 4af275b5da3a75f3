//! sohu-coll: collective communication for accelerator fabrics.
//!
//! Ranks (processes) form a [`Communicator`] and call collectives on it: every rank makes the same calls
//! in the same order, each with its own buffers. Calls are blocking and are driven by the caller's thread, or they are
//! started and waited for later ([`Pending`]).
//!
//! ```no_run
//! use sohu_coll::{Communicator, ReduceOp};
//!
//! # fn main() -> Result<(), sohu_coll::Error> {
//! // Started by `sohu-coll run -n 4 -- program`, torchrun, mpiexec or srun: they say who we are.
//! let mut comm = Communicator::from_env()?;
//! let mine = vec![comm.rank() as f32; 1024];
//! let mut sum = vec![0f32; 1024];
//! comm.all_reduce(&mine, &mut sum, ReduceOp::Sum)?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod bootstrap;
mod buffer;
mod builder;
mod calls;
mod communicator;
mod config;
mod connect;
mod control;
mod discover;
mod drive;
mod duration;
mod engine;
mod explain;
mod groups;
mod lane;
pub mod launch;
mod letter;
pub mod limits;
mod mail;
mod memory;
mod messages;
mod operation;
mod others;
mod owned;
mod pending;
mod persistent;
mod plans;
mod proxy;
mod queue;
mod ragged;
mod request;
mod start;
mod terms;
mod ticket;
mod tuning;
mod using;
mod wish;

pub use bootstrap::UniqueId;
pub use buffer::Buffer;
pub use builder::{Builder, TransportKind};
pub use communicator::Communicator;
pub use duration::parse_duration;
pub use explain::{Candidate, Explanation};
pub use half::{bf16, f16};
pub use letter::{Letter, Letters};
pub use memory::MemoryUse;
pub use messages::Group;
pub use operation::{Operation, PreMulSum, UserOp};
pub use owned::Owned;
pub use pending::{Failed, Pending, Waited};
pub use persistent::Persistent;
pub use ragged::Blocks;
pub use request::{Buffers, Request};
pub use sohu_coll_core::element::{E4m3, E5m2};
pub use sohu_coll_core::{
    Collective, DType, Element, Error, Misuse, Rank, ReduceOp, Scalar, Signature, Transfer, Way,
};
pub use sohu_coll_shm::Fetch;
pub use start::Untyped;
pub use using::Using;
