//! Links over TCP: one socket for each pair of ranks and two for its pipes, polled by the caller.
//!
//! A [`Listener`] is bound first and its address told to the peers (the bootstrap does that);
//! [`TcpLinks::join`] then connects every pair, each end proving that it knows the job's secret before
//! anything else it says is used. First version: it keeps the contract of
//! [`Links`](sohu_coll_core::link::Links); its speed comes later.
#![forbid(unsafe_code)]

mod handshake;
mod join;
mod links;
mod pipes;
mod queue;
mod stream;

pub use join::Listener;
pub use links::TcpLinks;
