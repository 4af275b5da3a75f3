//! Errors: a small one at the seam ([`LinkError`]), one for callers ([`Error`]).

use crate::rank::Rank;
use crate::signature::Signature;
use crate::transfer::Transfer;
use std::sync::Arc;
use std::time::Duration;

/// What can go wrong on a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer made another call.
    #[error("{peer} made {theirs}, this rank made {ours}")]
    Mismatch {
        /// Who made the other call.
        peer: Rank,
        /// What this rank called.
        ours: Signature,
        /// What the peer called.
        theirs: Signature,
    },
    /// The peer's end of the link is closed.
    #[error("the link to {peer} was closed by its side")]
    Closed {
        /// Whose side.
        peer: Rank,
    },
    /// The peer wrote something that the protocol does not allow.
    #[error("{peer} broke the protocol: {what}")]
    Corrupt {
        /// Who wrote it.
        peer: Rank,
        /// What was wrong with it.
        what: &'static str,
    },
    /// The function of a user operation panicked: no fault of a link, but it ends a call as one does.
    #[error("the function of user operation {operation:?} panicked: {text}")]
    Panicked {
        /// The name of the operation.
        operation: String,
        /// What it panicked with.
        text: String,
    },
    /// The operating system refused something.
    #[error("{call} for {peer} failed: {}", std::io::Error::from_raw_os_error(*.errno))]
    System {
        /// On whose link.
        peer: Rank,
        /// The system call.
        call: &'static str,
        /// Its error number.
        errno: i32,
    },
}

/// A call that can not be made, found before anything moved. The communicator stays usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// A buffer has the wrong number of elements.
    #[error("{call}: {buffer} has {found} elements, not {expected} ({rule})")]
    Length {
        /// The collective.
        call: &'static str,
        /// Which buffer: `input` or `output`.
        buffer: &'static str,
        /// How many elements it has.
        found: u64,
        /// How many it must have.
        expected: u64,
        /// Why.
        rule: &'static str,
    },
    /// A root that is no rank of the communicator.
    #[error("{call}: root {root} is not a rank of a communicator of {size}; ranks are 0..{size}")]
    Root {
        /// The collective.
        call: &'static str,
        /// The root that was given.
        root: u32,
        /// Ranks of the communicator.
        size: u32,
    },
    /// A message to or from what is no rank of the communicator.
    #[error("{call}: rank {peer} is not a rank of a communicator of {size}; ranks are 0..{size}")]
    Peer {
        /// `send` or `recv`.
        call: &'static str,
        /// The rank that was given.
        peer: u32,
        /// Ranks of the communicator.
        size: u32,
    },
    /// A message of a rank to itself, of which only one half can be made at a time.
    #[error("{transfer}, which is this rank, would wait for ever; make it and its other half in one group")]
    Lonely {
        /// The half that was made.
        transfer: Transfer,
    },
    /// Two blocks of one output share an element.
    #[error("{call}: blocks of the {buffer} overlap; each element can come from one rank only")]
    Overlap {
        /// The call.
        call: &'static str,
        /// Which buffer.
        buffer: &'static str,
    },
    /// What one rank gives another is not as long as the other expects. All ranks are told, and nothing was written.
    #[error("{call}: {from} gives {to} {gives} elements, but {to} expects {gets}")]
    Disagree {
        /// The call.
        call: &'static str,
        /// Who gives.
        from: Rank,
        /// Who gets.
        to: Rank,
        /// How many elements the one gives.
        gives: u64,
        /// How many the other expects.
        gets: u64,
    },
    /// A number of bytes that is no whole number of elements.
    #[error("{call}: {bytes} bytes are no whole number of {dtype} elements of {element} bytes")]
    Bytes {
        /// The collective.
        call: &'static str,
        /// Bytes given.
        bytes: usize,
        /// Element type.
        dtype: &'static str,
        /// Bytes of one element.
        element: usize,
    },
    /// More elements than a call can carry.
    #[error("{call}: {count} elements are more than {max}, the most one call carries; split the buffer")]
    Count {
        /// The collective.
        call: &'static str,
        /// Elements given.
        count: u64,
        /// The most there may be.
        max: u64,
    },
    /// An algorithm was forced that does not do this collective on this communicator.
    #[error("{call}: algorithm {algorithm} does not do this on {size} ranks; it can be one of {known}")]
    Algorithm {
        /// The collective.
        call: &'static str,
        /// The name that was forced.
        algorithm: String,
        /// Ranks of the communicator.
        size: u32,
        /// Names that would do.
        known: String,
    },
    /// An operation that a call can not fold by.
    #[error("{call}: operation {operation:?} {reason}")]
    Operation {
        /// The collective, or what was to be done with the operation.
        call: &'static str,
        /// The operation.
        operation: String,
        /// Why not, and what would do.
        reason: String,
    },
    /// A setting that makes no sense.
    #[error("{name}={value:?}: {reason}")]
    Setting {
        /// The name of the setting, as its user spelled it.
        name: String,
        /// The value.
        value: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// More calls are pending than a communicator keeps.
    #[error("{call}: {max} calls are pending, the most there may be; wait for one of them first")]
    Pending {
        /// The call that was to be started.
        call: &'static str,
        /// The most that may be pending.
        max: usize,
    },
    /// A call that was planned on another communicator.
    #[error("{call}: planned on another communicator; start it on the one that planned it")]
    Elsewhere {
        /// The call.
        call: &'static str,
    },
    /// Memory for a registered buffer ran out.
    #[error("alloc of {bytes} bytes: {reason}")]
    Alloc {
        /// Bytes asked for.
        bytes: usize,
        /// Why not, with the numbers.
        reason: String,
    },
}

/// What a caller of the library can be told. Every run-time variant names the rank it is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The call can not be made; nothing moved and the communicator stays usable.
    #[error("{0}")]
    Misuse(#[from] Misuse),
    /// Two ranks made different calls, and neither wrote bytes of the other. A rank that needed none of the one that differs
    /// may have left a small rooted call before it was told: the calls that are named then came before the one that fails.
    #[error(
        "mismatch: rank {} made {theirs}, rank {} made {ours}; {}", .peer.0, .rank.0, remedy(.ours, .theirs)
    )]
    Mismatch {
        /// The rank that tells.
        rank: Rank,
        /// What it called.
        ours: Signature,
        /// The other rank.
        peer: Rank,
        /// What that one called.
        theirs: Signature,
    },
    /// Two ranks mean different messages. Both are told; no byte of it was written, and the communicator stays usable.
    #[error(
        "mismatch: rank {} made {theirs}, rank {} made {ours}; both ranks must mean the same type and count, and make their \
         messages in the same order", .peer.0, .rank.0
    )]
    Mispaired {
        /// The rank that tells.
        rank: Rank,
        /// What it made.
        ours: Transfer,
        /// The rank at the other end.
        peer: Rank,
        /// What that one made.
        theirs: Transfer,
    },
    /// Ranks that did not come to the start in time.
    #[error(
        "{}: {} of {size} did not come within {waited:?}; are they started, with the same job id and size?",
        "start", list(.ranks)
    )]
    Missing {
        /// Who did not come.
        ranks: Vec<Rank>,
        /// How many ranks there should be.
        size: u32,
        /// How long the others waited.
        waited: Duration,
    },
    /// A rank was refused at the start, or refuses the others.
    #[error("start: {0}")]
    Refused(String),
    /// A peer's process is gone.
    #[error("lost {}: its process {how} during {during}; start the job again without it", .peer)]
    PeerLost {
        /// Who is gone.
        peer: Rank,
        /// `died`, or `left the communicator`.
        how: &'static str,
        /// What this rank was doing.
        during: String,
    },
    /// The deadline of a call passed.
    #[error("timeout: waited {waited:?} in {during} for {}{why}; raise the timeout if that is expected", list(.culprits))]
    Timeout {
        /// The ranks that kept the call from ending.
        culprits: Vec<Rank>,
        /// What this rank was doing.
        during: String,
        /// How long it waited.
        waited: Duration,
        /// What is known of the culprits: ` (no sign of life)`.
        why: String,
    },
    /// A peer wrote something that the protocol does not allow.
    #[error("{peer} broke the protocol: {what}; is every rank running the same build?")]
    Corrupt {
        /// Who.
        peer: Rank,
        /// What was wrong.
        what: String,
    },
    /// The operating system refused something.
    #[error("{call} failed: {}{}", std::io::Error::from_raw_os_error(*.errno), .hint)]
    System {
        /// The system call and what it was for.
        call: String,
        /// Its error number.
        errno: i32,
        /// What to try, or empty.
        hint: String,
    },
    /// More memory would be taken than the communicators of a process may have.
    #[error(
        "memory: {what}, more than SOHU_COLL_MAX_MEMORY={max} leaves; taken is {taken}; raise it, or drop communicators or buffers"
    )]
    Memory {
        /// What it was for, and how much that is.
        what: String,
        /// What takes how much already.
        taken: String,
        /// The bound.
        max: String,
    },
    /// What went wrong on a communicator that has a name.
    #[error("{cause} (on communicator '{name}')")]
    Named {
        /// The communicator's name.
        name: Arc<str>,
        /// What went wrong.
        cause: Arc<Error>,
    },
    /// What drives the calls of a rank panicked, or the function of a user operation did. What the call was to write may be
    /// written in part.
    #[error("{rank} panicked in {during}: {what}; this is a bug there, and the communicator can not go on")]
    Panicked {
        /// Whose thread.
        rank: Rank,
        /// What it was doing.
        during: String,
        /// What the panic said.
        what: String,
    },
    /// An earlier call on this communicator failed, here or on another rank.
    #[error("the communicator is aborted: {cause}")]
    Aborted {
        /// The first failure.
        cause: Arc<Error>,
    },
}

impl Error {
    /// The error without the name of its communicator: what to match on where communicators may have names.
    pub fn unnamed(&self) -> &Error {
        match self {
            Error::Named { cause, .. } => cause.unnamed(),
            other => other,
        }
    }

    /// The same error, as one of a communicator of that name.
    pub fn named(self, name: &Arc<str>) -> Error {
        match self {
            Error::Named { .. } => self,
            other => Error::Named { name: name.clone(), cause: Arc::new(other) },
        }
    }

    /// The first failure, where this one only follows from it, without the name of a communicator.
    pub fn root_cause(&self) -> &Error {
        match self {
            Error::Aborted { cause } | Error::Named { cause, .. } => cause.root_cause(),
            other => other,
        }
    }
}

/// `rank 2`, `ranks 2 and 5`, `ranks 2, 5 and 7`.
pub fn list(ranks: &[Rank]) -> String {
    let numbers: Vec<String> = ranks.iter().map(|r| r.0.to_string()).collect();
    match numbers.as_slice() {
        [] => "no rank".into(),
        [one] => format!("rank {one}"),
        [first @ .., last] => format!("ranks {} and {last}", first.join(", ")),
    }
}

/// What to do about two different calls.
fn remedy(ours: &Signature, theirs: &Signature) -> &'static str {
    if ours.to_string() == theirs.to_string() {
        // All that the text of a signature leaves out is how the call was planned.
        return "they planned it differently; are SOHU_COLL_ALGO, the tuning file, what was forced and the processors the same for every rank, and is the call in place on all of them or on none";
    }
    "every rank must make the same calls in the same order"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_once_and_can_be_looked_through() {
        let plain = Error::Refused("nobody came".into());
        let name: Arc<str> = "tp".into();
        let named = plain.clone().named(&name);
        assert_eq!(named.to_string(), "start: nobody came (on communicator 'tp')");
        assert_eq!(named.clone().named(&"other".into()), named);
        assert_eq!((named.unnamed(), named.root_cause(), plain.unnamed()), (&plain, &plain, &plain));
        let aborted = Error::Aborted { cause: Arc::new(plain.clone()) }.named(&name);
        assert_eq!(
            aborted.to_string(),
            "the communicator is aborted: start: nobody came (on communicator 'tp')"
        );
        assert_eq!(aborted.root_cause(), &plain);
    }
}
