//! The vocabulary and the engine of sohu-coll.
//!
//! A [`plan`] is data: an algorithm writes a [`plan::Program`] for each rank, [`plan::fuse`] turns it into
//! passes over memory, [`exec::Executor`] runs the passes over [`link::Links`]. This crate does no I/O
//! and owns no clock, thread, socket or environment variable, so the same executor runs over real links and
//! over simulated ones. Read [`plan::Program`] and [`link::Links`] first.

pub mod element;
pub mod error;
pub mod exec;
pub mod kernel;
pub mod link;
pub mod operation;
pub mod pipe;
pub mod plan;
pub mod rank;
pub mod signature;
pub mod topology;
pub mod transfer;

pub use element::{DType, Element, ReduceOp, Scalar};
pub use error::{Error, Misuse};
pub use rank::{ChannelId, Rank};
pub use signature::{Collective, Signature};
pub use transfer::{Transfer, Way};
