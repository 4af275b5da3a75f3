//! How long a plan takes on a modelled topology: passes walked slice by slice, without data.
//!
//! The model: a pass goes through its extent in slices. A slice starts when its bytes have come from every
//! source, when the passes it depends on have done them, and when the rank's core is free; it costs the
//! host's `slice_ns` and the bytes it touches (each source, the store, and the copy for the peers) at the host's
//! rate. What it forwards then takes the links of the shortest path, each of which sends one message a lane
//! at a time. Not modelled: full windows, signatures, and caches. Deterministic: the same arguments give the same
//! times to the last bit.

use super::Extents;
use super::fuse::Passes;
use crate::rank::Rank;
use crate::topology::Topology;

#[cfg(test)]
mod tests;
mod walk;

use walk::Walk;

/// When things happened, in nanoseconds from the start of the call.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// When the last pass of all ranks ended.
    pub total_ns: f64,
    /// For each rank, each of its passes.
    pub passes: Vec<Vec<Span>>,
    /// What the total consists of, first to last: each part waited for the one before it.
    pub critical: Vec<Critical>,
}

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// When the first slice started.
    pub start_ns: f64,
    /// When the last slice ended.
    pub end_ns: f64,
}

/// A stretch of one pass on the critical path. The time between it and the part before was spent on links.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Critical {
    /// Whose pass.
    pub rank: Rank,
    /// Which of its passes.
    pub pass: u32,
    /// When the stretch started.
    pub start_ns: f64,
    /// When it ended.
    pub end_ns: f64,
    /// Why it did not start earlier.
    pub because: Because,
}

/// What the start of a stretch waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// Nothing: it is the start of the call.
    Start,
    /// The core did something else.
    Core,
    /// An earlier pass of the same rank.
    Pass,
    /// Bytes from a peer.
    Peer,
}

/// Walks the passes of all ranks (`passes[r]` and `extents[r]` are rank r's) in slices of `slice` bytes.
///
/// # Panics
/// When there are not as many ranks as sites for them, no path between two that talk, `slice` is 0, or the passes
/// can not end (the checker proves that they do).
pub fn timeline(passes: &[Passes], extents: &[Extents], on: &Topology, slice: usize) -> Timeline {
    assert!(passes.len() == extents.len(), "{} ranks, extents of {}", passes.len(), extents.len());
    assert!(passes.len() <= on.size() as usize, "{} ranks on {} sites", passes.len(), on.size());
    assert!(slice > 0, "slices of no bytes");
    let mut walk = Walk::new(passes, extents, on, slice);
    walk.run();
    walk.finish()
}
