//! How a call is done, and why not otherwise.

/// The protocol where the links fetch what ranks give, and what is folded of that is staged.
pub(super) const MIXED: &str = "mixed";
/// The protocol of private memory that the links fetch.
pub(super) const FETCHED: &str = "fetched";
/// The protocol of what lies in registered memory.
pub(super) const DIRECT: &str = "direct";

/// How a call is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The algorithm's name.
    pub algorithm: &'static str,
    /// The executor's slice, in bytes.
    pub slice: usize,
    /// Pieces that each part of the plan is cut into: see [`Job::pieces`](sohu_coll_core::plan::Job::pieces).
    pub pieces: u32,
    /// Bytes of a rank's staging memory that the call goes round in, where that is not all of it.
    pub within: Option<usize>,
    /// How messages travel: `line` (inside a cache line), `staged`, `direct` (registered memory), `fetched`
    /// (private memory, by the kernel), `mixed` (inputs fetched, results staged), `stream` (a socket), or `local` where there is only
    /// one rank.
    pub protocol: &'static str,
    /// Whether results are stored past the caches.
    pub streams: bool,
    /// How long the call should take, in microseconds; infinite for an algorithm that can not do it.
    pub predicted_us: f64,
}

impl Choice {
    /// Whether registered memory is read and written where it lies. If not it is staged, as private memory is.
    pub fn lends(&self) -> bool {
        self.protocol == DIRECT
    }

    /// Whether private memory is fetched from where it lies.
    pub fn fetches(&self) -> bool {
        self.protocol == FETCHED
    }

    /// Whether that is so of inputs alone.
    pub fn fetches_inputs(&self) -> bool {
        self.protocol == MIXED
    }
}

/// An algorithm, and why it was not chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// How it would do the call.
    pub choice: Choice,
    /// Why another was chosen; `None` for the one that was.
    pub why_not: Option<String>,
}
