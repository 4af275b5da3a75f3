//! Signatures of calls that this rank left before a peer came to them.
//!
//! Invariant: they are compared in the order of the calls, each with the first line of the peer's that comes next, before
//! any other line of that peer's is looked at. So a peer that made another call is found out, if later.

use super::peer::Peer;
use super::protocol::{FIRST, HEADER, SINK};
use super::{Call, Shared};
use sohu_coll_core::Signature;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::OWED_MAX;

/// What one peer owes: a ring, the oldest first.
#[derive(Default)]
pub(super) struct Owed {
    /// Apart, to keep together what every call of a peer's looks at.
    words: Box<[[u64; 2]; OWED_MAX]>,
    first: usize,
    len: usize,
}

impl Owed {
    /// The signature, as it travels, of the oldest call that the peer owes one for.
    #[inline]
    pub(super) fn oldest(&self) -> Option<[u64; 2]> {
        if self.is_empty() { None } else { Some(self.words[self.first % OWED_MAX]) }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.len == OWED_MAX
    }

    /// One more is owed; there must be room.
    #[inline]
    fn push(&mut self, words: [u64; 2]) {
        debug_assert!(!self.is_full(), "a call was left with {OWED_MAX} before it");
        self.words[(self.first + self.len) % OWED_MAX] = words;
        self.len += 1;
    }

    /// The oldest is owed no longer.
    #[inline]
    fn pop(&mut self) {
        self.first = (self.first + 1) % OWED_MAX;
        self.len -= 1;
    }
}

impl Peer {
    /// This rank leaves its call; what it has not heard of the peer is owed.
    #[inline]
    pub(super) fn leave(&mut self, ours: &Call) {
        if !self.opened {
            self.owed.push(ours.words);
        }
        // The next call is likely to be such a one, and to come soon.
        self.tx.claim_next();
    }

    /// Whether this rank may leave its call before it hears more of the peer.
    #[inline]
    pub(super) fn may_be_left(&self) -> bool {
        self.opened || !self.owed.is_full()
    }

    /// Takes the current line, if it is what the peer owes for its oldest call: a signature that is equal, and nothing for
    /// this rank. Says whether it was.
    #[inline(never)]
    pub(super) fn take_owed(&mut self, shared: &mut Shared) -> bool {
        let Some(oldest) = self.owed.oldest() else { return false };
        let Some(line) = self.rx.head() else { return false };
        let (kind, acks) = (line.kind, (line.lines_ack, line.chunks_ack));
        let is_owed = kind == FIRST | HEADER || kind == FIRST | SINK;
        let is_same = is_owed && [self.rx.word(0), self.rx.word(1)] == oldest;
        if !is_same || self.absorb(acks.0, acks.1, shared).is_err() {
            return false;
        }
        self.owed.pop();
        self.rx.advance();
        true
    }

    /// The ordinary way: compares the signature of a first line, whose acknowledgements were absorbed, with the oldest that
    /// is owed. Says whether the line was the one that is owed; it is done with then.
    #[cold]
    pub(super) fn hear_owed(&mut self, kind: u8) -> Result<bool, LinkError> {
        let Some(oldest) = self.owed.oldest() else { return Ok(false) };
        let words = [self.rx.word(0), self.rx.word(1)];
        if words != oldest {
            let unknown = self.corrupt("a signature of no known call");
            let theirs = Signature::from_words(words).ok_or(unknown)?;
            let ours = Signature::from_words(oldest).expect("this rank made that call");
            return Err(LinkError::Mismatch { peer: self.rank, ours, theirs });
        }
        if !matches!(kind, HEADER | SINK) {
            return Err(self.corrupt("bytes in a call that has none for this rank"));
        }
        self.owed.pop();
        Ok(true)
    }
}
