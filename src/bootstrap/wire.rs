//! The bytes of the control plane: the fixed opening of every connection, and frames.
//!
//! A connection opens with one [`Hello`] each way, of fixed size and layout in every version of the library, so
//! that two versions can tell each other that they differ. After it come frames: a length of four bytes, little
//! endian, then that many bytes of one postcard message. Invariant: no length that a peer claims is acted on
//! before it was compared with a bound of ours, and a frame that is too long, too short or has bytes left
//! over is an error, never a guess.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sohu_coll_core::{Error, Rank, Signature};
use std::time::Duration;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::host::{HostFacts, clip};
use super::id::JOB_BYTES;
use crate::control::Status;

/// What every connection opens with.
pub(crate) const MAGIC: [u8; 8] = *b"sohucoll";
/// The version of the frames. A change to any message here counts it up.
pub(crate) const WIRE_VERSION: u32 = 1;
/// The most ranks a job can have: each keeps one socket for every other one.
pub(crate) const RANKS_MAX: u32 = 1024;
/// The most bytes one rank can swap at once.
pub(crate) const BLOB_BYTES_MAX: usize = 64 << 10;
/// Bytes of the length in front of a frame.
pub(crate) const HEAD_BYTES: usize = 4;
/// The most bytes of a frame that comes in while the ranks find each other, but for the roster: the facts of
/// one rank, or a cause.
pub(crate) const START_BYTES_MAX: usize = 8 << 10;
/// The most bytes of a frame from rank 0 while the ranks find each other: the facts of every rank.
pub(crate) const ROSTER_BYTES_MAX: usize = RANKS_MAX as usize * (4 << 10);
/// The most bytes of a frame between two ranks of a started job: a blob, and what is around it.
pub(crate) const PEER_BYTES_MAX: usize = BLOB_BYTES_MAX + 64;
/// The longest text inside of a cause, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// For what a connection is made. A proof made for one purpose is none for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Purpose {
    /// A rank comes to rank 0.
    Start = 1,
    /// Two ranks meet that were named to each other.
    Mesh = 2,
}

/// The first bytes of a connection, each way: who speaks. Its layout never changes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Hello {
    /// [`MAGIC`].
    pub(crate) magic: [u8; 8],
    /// [`WIRE_VERSION`].
    pub(crate) wire: U32,
    /// A [`Purpose`].
    pub(crate) purpose: U32,
    /// The library's version as text, filled up with zeros.
    pub(crate) library: [u8; 16],
    /// The job id.
    pub(crate) job: [u8; JOB_BYTES],
    /// The rank of the speaker.
    pub(crate) rank: U32,
    /// How many ranks the speaker believes the job has.
    pub(crate) size: U32,
    /// The process id of the speaker.
    pub(crate) pid: U32,
    /// Zero.
    pub(crate) reserved: U32,
    /// Fresh random bytes, so that an old proof is worth nothing.
    pub(crate) nonce: [u8; 32],
}

impl Hello {
    /// The library's version as the speaker gave it, with anything unprintable replaced.
    pub(crate) fn version(&self) -> String {
        let text: String = self.library.iter().take_while(|b| **b != 0).map(|b| char::from(*b)).collect();
        format!("{} (wire {})", text.escape_default(), self.wire)
    }
}

/// The version of this library, as it stands in a [`Hello`].
pub(crate) fn library() -> [u8; 16] {
    let mut field = [0; 16];
    for (to, from) in field.iter_mut().zip(env!("CARGO_PKG_VERSION").bytes()) {
        *to = from;
    }
    field
}

/// What one rank knows about another when the job starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Where it runs.
    pub(crate) facts: HostFacts,
    /// The random part of the name of the socket at which it takes connections.
    pub(crate) door: [u8; JOB_BYTES],
}

/// What is said while the ranks find each other. Rank 0 says one half, the others the other half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Start {
    /// To rank 0, first: this rank's facts, and how many milliseconds it will still wait.
    Join(Member, u64),
    /// To any other rank, first: nothing more to say.
    Meet,
    /// From either, once the first message is in: you are through the door.
    Welcome,
    /// From rank 0: everyone came, and this is who they are, by rank.
    Roster(Vec<Member>),
    /// To rank 0: connected to everyone.
    Ready,
    /// To rank 0: this went wrong here.
    Failed(Cause),
    /// From rank 0: the job does not start, and this is why.
    Refused(Cause),
    /// From rank 0: everyone is ready.
    Go,
}

/// What two ranks of a started job say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PeerMessage {
    /// This rank's part of the given round of a swap; a file descriptor comes with it if `file`.
    Blob {
        /// Which swap, counted from 1.
        round: u32,
        /// Whether a file descriptor comes with the first byte of the frame.
        file: bool,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Something failed for good.
    Abort(Cause),
    /// This rank leaves in good order after so many calls.
    Bye {
        /// How many calls it completed; the sequence number of the call that it will not make.
        calls: u32,
    },
    /// Are you there?
    Probe {
        /// Comes back in the answer.
        nonce: u64,
    },
    /// Here, and this is what I am doing.
    Answer {
        /// From the probe.
        nonce: u64,
        /// What this rank is doing.
        status: Status,
    },
}

/// How a peer came to be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    /// Without a word.
    Died,
    /// In good order, but too early.
    Left,
    /// Its process may live, its end of a link does not.
    Closed,
}

impl How {
    /// As it stands in [`Error::PeerLost`].
    pub(crate) fn text(self) -> &'static str {
        match self {
            How::Died => "died",
            How::Left => "left the communicator",
            How::Closed => "closed its link",
        }
    }

    /// Back from the text; what is no text of ours is read as the worst.
    fn of(text: &str) -> Self {
        [How::Left, How::Closed].into_iter().find(|how| how.text() == text).unwrap_or(How::Died)
    }
}

/// An [`Error`] as it travels from the rank where it happened to the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// [`Error::Mismatch`].
    Mismatch {
        /// The rank that tells.
        rank: Rank,
        /// Its call.
        ours: Signature,
        /// The other rank.
        peer: Rank,
        /// Its call.
        theirs: Signature,
    },
    /// [`Error::Missing`].
    Missing {
        /// Who did not come.
        ranks: Vec<Rank>,
        /// Of how many.
        size: u32,
        /// How long rank 0 waited.
        waited: Duration,
    },
    /// [`Error::Refused`], and every error that has no form of its own here.
    Refused(String),
    /// [`Error::PeerLost`].
    PeerLost {
        /// Who.
        peer: Rank,
        /// How.
        how: How,
        /// During what.
        during: String,
    },
    /// [`Error::Timeout`].
    Timeout {
        /// For whom a rank waited.
        culprits: Vec<Rank>,
        /// In what.
        during: String,
        /// How long.
        waited: Duration,
        /// What is known of them.
        why: String,
    },
    /// [`Error::Corrupt`].
    Corrupt {
        /// Who broke the protocol.
        peer: Rank,
        /// How.
        what: String,
    },
    /// [`Error::System`]; the call says on which rank.
    System {
        /// The call, and whose it was.
        call: String,
        /// The error number.
        errno: i32,
        /// What to try.
        hint: String,
    },
    /// [`Error::Panicked`].
    Panicked {
        /// Whose thread.
        rank: Rank,
        /// In what.
        during: String,
        /// What it said.
        what: String,
    },
}

impl Cause {
    /// The root cause of an error of `rank`, for other ranks to read.
    pub(crate) fn of(error: &Error, rank: Rank) -> Self {
        let text = |text: &str| clip(text, TEXT_BYTES_MAX);
        match error.root_cause() {
            Error::Mismatch { rank, ours, peer, theirs } => {
                Cause::Mismatch { rank: *rank, ours: *ours, peer: *peer, theirs: *theirs }
            }
            Error::Missing { ranks, size, waited } => {
                Cause::Missing { ranks: ranks.clone(), size: *size, waited: *waited }
            }
            Error::Refused(what) => Cause::Refused(text(what)),
            Error::PeerLost { peer, how, during } => {
                Cause::PeerLost { peer: *peer, how: How::of(how), during: text(during) }
            }
            Error::Timeout { culprits, during, waited, why } => Cause::Timeout {
                culprits: culprits.clone(),
                during: text(during),
                waited: *waited,
                why: text(why),
            },
            Error::Corrupt { peer, what } => Cause::Corrupt { peer: *peer, what: text(what) },
            // A reader elsewhere would take a bare call for its own rank's.
            Error::System { call, errno, hint } => {
                Cause::System { call: text(&format!("{rank}: {call}")), errno: *errno, hint: text(hint) }
            }
            Error::Panicked { rank, during, what } => {
                Cause::Panicked { rank: *rank, during: text(during), what: text(what) }
            }
            other => Cause::Refused(text(&format!("{rank}: {other}"))),
        }
    }

    /// The error that this cause stands for.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Cause::Mismatch { rank, ours, peer, theirs } => Error::Mismatch { rank, ours, peer, theirs },
            Cause::Missing { ranks, size, waited } => Error::Missing { ranks, size, waited },
            Cause::Refused(what) => Error::Refused(what),
            Cause::PeerLost { peer, how, during } => Error::PeerLost { peer, how: how.text(), during },
            Cause::Timeout { culprits, during, waited, why } => {
                Error::Timeout { culprits, during, waited, why }
            }
            Cause::Corrupt { peer, what } => Error::Corrupt { peer, what },
            Cause::System { call, errno, hint } => Error::System { call, errno, hint },
            Cause::Panicked { rank, during, what } => Error::Panicked { rank, during, what },
        }
    }

    /// The ranks that the cause is about.
    pub(crate) fn culprits(&self) -> &[Rank] {
        match self {
            Cause::Mismatch { peer, .. }
            | Cause::PeerLost { peer, .. }
            | Cause::Corrupt { peer, .. }
            | Cause::Panicked { rank: peer, .. } => std::slice::from_ref(peer),
            Cause::Missing { ranks, .. } => ranks,
            Cause::Timeout { culprits, .. } => culprits,
            Cause::Refused(_) | Cause::System { .. } => &[],
        }
    }
}

/// One message as a frame.
pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut frame = postcard::to_extend(message, vec![0; HEAD_BYTES])
        .expect("messages know their lengths and memory takes all bytes, so writing can not fail");
    let length = u32::try_from(frame.len() - HEAD_BYTES).expect("a message is far below 4 GiB");
    frame[..HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
    frame
}

/// How many bytes the frame has that opens with `head`.
///
/// # Errors
/// When the peer claims more than `bytes_max`, or none.
pub(crate) fn body_bytes(head: [u8; HEAD_BYTES], bytes_max: usize) -> Result<usize, &'static str> {
    match usize::try_from(u32::from_le_bytes(head)) {
        Ok(0) => Err("sent an empty frame"),
        Ok(bytes) if bytes <= bytes_max => Ok(bytes),
        _ => Err("sent a frame that is longer than allowed"),
    }
}

/// The message in the body of a frame.
///
/// # Errors
/// When the body is not exactly one message.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, &'static str> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err("sent a frame with bytes left over"),
        Err(_) => Err("sent a frame that is no message"),
    }
}

#[cfg(test)]
#[path = "tests/wire.rs"]
mod tests;
