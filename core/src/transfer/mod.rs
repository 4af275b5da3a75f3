//! Sends and receives: what two ranks say to each other, without the others.
//!
//! A send and a receive that meet are one *message*. Messages from one rank to another meet in the order in which both
//! ranks make them; there are no tags. Invariants: a receiver writes no byte of its caller's before it has compared
//! what the sender says of the message with what it expects itself; sender and receiver both learn what came of that;
//! and a pipe is at the start of a message again when a call has ended, also one in which ranks disagreed.

mod courier;
mod record;
mod route;

pub use courier::{Courier, Disagreement, Muddle, check_own};

use crate::element::DType;
use crate::rank::Rank;
use core::fmt;

/// Which half of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// It gives.
    Send,
    /// It gets.
    Recv,
}

/// One send or receive, as its rank made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transfer {
    /// Which of the two.
    pub way: Way,
    /// Element type.
    pub dtype: DType,
    /// Elements. At most [`COUNT_MAX`](Self::COUNT_MAX).
    pub count: u64,
    /// The rank at the other end.
    pub peer: Rank,
}

impl Transfer {
    /// The most elements of one message.
    pub const COUNT_MAX: u64 = (1 << 48) - 1;

    /// What the user called: `send` or `recv`.
    pub fn name(&self) -> &'static str {
        match self.way {
            Way::Send => "send",
            Way::Recv => "recv",
        }
    }
}

impl fmt::Display for Transfer {
    /// `send float[10] to rank 1`, `recv float[12] from rank 0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let towards = match self.way {
            Way::Send => "to",
            Way::Recv => "from",
        };
        write!(f, "{} {}[{}] {towards} {}", self.name(), self.dtype, self.count, self.peer)
    }
}

/// The bytes of a transfer.
enum Bytes<'a> {
    Out(&'a [u8]),
    In(&'a mut [u8]),
}

/// A transfer with its bytes. How far it is, the courier knows.
pub struct Item<'a> {
    transfer: Transfer,
    bytes: Bytes<'a>,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Whether the head of its message was put or taken.
    begun: bool,
    /// Whether all its bytes go ahead of the answer.
    goes_ahead: bool,
    /// Bytes moved, behind the head.
    at: usize,
    /// What the receiver thinks of it, once that is known here.
    verdict: Option<Verdict>,
    /// The next item of the same pipe.
    next: Option<usize>,
    /// Whether it is the first of its call in its pipe.
    leads: bool,
    /// Whether all its bytes were put or taken.
    moved: bool,
    /// Whether they are needed no more: nothing of them is lent, and the answer to them was put.
    clear: bool,
}

impl State {
    /// Whether it is through, and known to both ranks, and its bytes are its caller's again.
    fn is_over(&self) -> bool {
        self.verdict.is_some() && self.moved && self.clear
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// The other rank has this type and count.
    Refused(DType, u64),
}

impl<'a> Item<'a> {
    /// A send of elements of type `dtype`.
    ///
    /// # Panics
    /// When the bytes are no whole number of elements.
    pub fn send(dtype: DType, bytes: &'a [u8], to: Rank) -> Self {
        Self::new(Way::Send, dtype, Bytes::Out(bytes), to)
    }

    /// A receive of elements of type `dtype`.
    ///
    /// # Panics
    /// When the bytes are no whole number of elements.
    pub fn recv(dtype: DType, bytes: &'a mut [u8], from: Rank) -> Self {
        Self::new(Way::Recv, dtype, Bytes::In(bytes), from)
    }

    fn new(way: Way, dtype: DType, bytes: Bytes<'a>, peer: Rank) -> Self {
        let len = match &bytes {
            Bytes::Out(bytes) => bytes.len(),
            Bytes::In(bytes) => bytes.len(),
        };
        assert!(len.is_multiple_of(dtype.size()), "{len} bytes of {dtype}");
        let transfer = Transfer { way, dtype, count: (len / dtype.size()) as u64, peer };
        Self { transfer, bytes }
    }

    /// In a list, where no transfer is.
    pub fn vacant() -> Self {
        Self::send(DType::U8, &[], Rank(0))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Out(bytes) => bytes,
            Bytes::In(bytes) => bytes,
        }
    }

    /// Its bytes, if they are to be received.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.bytes {
            Bytes::Out(_) => None,
            Bytes::In(bytes) => Some(bytes),
        }
    }

    /// What its rank made.
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    fn len(&self) -> usize {
        self.bytes().len()
    }
}

impl fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Item({})", self.transfer)
    }
}
