//! Links over shared memory between the processes of one host.
//!
//! Each rank owns one [`Segment`]: a sealed memfd with its outgoing lines, its credits, its staging ring and its
//! registered heap. Peers map it whole; it has no name anywhere and is gone with its last process. A message of a
//! few words travels inside a cache line next to its sequence number; a longer one is copied once into the
//! staging ring, where all its readers find it; one in registered memory is not copied at all: the peer
//! reads it, or writes it, in place. One in private memory is fetched by the kernel where that is faster. Words that a
//! peer wrote are bounded before they are used.
#![expect(unsafe_code, reason = "one of the homes of unsafe: memory is mapped here")]

mod fetch;
mod futex;
mod heap;
mod huge;
mod layout;
mod links;
mod map;
mod segment;
mod stand_in;

pub use fetch::{Fetch, Offer, Process};
pub use heap::{Heap, HeapBytes};
pub use layout::Layout;
pub use links::ShmLinks;
pub use segment::{Segment, ShmError};
pub use stand_in::StandIn;
