//! A whole call of two ranks in one trip, where both lend and both post: see
//! [`Links::swap`](sohu_coll_core::link::Links::swap).
//!
//! One line says what the peer is to work on and where the result goes; its return says that the result is there.
//! A rank that meets such a line outside a swap takes it for what it also is, a chunk and a sink.

use super::exchange::Meeting;
use super::peer::Peer;
use super::protocol::{FIRST, Flight, Front, SIGNATURE_WORDS, SINK, SWAP, bounded};
use super::{Call, Shared, ShmLinks};
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::Met;
use sohu_coll_core::{Rank, Signature};
use sohu_coll_mem::line::PAYLOAD_WORDS;
use sohu_coll_mem::words::between_looks;
use sohu_coll_mem::{ReadSpan, View, ViewMut, WriteSpan};

impl ShmLinks {
    /// Begins the call, and says in its first line what is lent and what is posted, if there is room for that.
    #[inline]
    pub(super) fn try_swap(
        &mut self,
        call: &Signature,
        peer: Rank,
        lent: Option<ReadSpan>,
        at: u64,
        answer: WriteSpan,
    ) -> Result<bool, LinkError> {
        let len = answer.len();
        let offset = |base| self.segment.map.offset_of(base, len);
        let answer_at = offset(answer.as_mut_ptr().cast_const());
        let lent_at = lent.as_ref().map_or(answer_at, |span| offset(span.as_ptr()));
        // The line has one length for both.
        let even = lent.as_ref().is_none_or(|span| span.len() == len);
        let (Some(lent_at), Some(answer_at), true) = (lent_at, answer_at, even) else {
            self.try_begin(call)?;
            return Ok(false);
        };
        let booked = match self.peers.only().is_some_and(|peer| peer.may_offer()) {
            true => self.shared.loans.book(lent, 1),
            false => Err(lent),
        };
        let Ok(loan) = booked else {
            self.try_begin(call)?;
            return Ok(false);
        };
        self.shared.loans.answer = Some((at, answer));
        let mut words = [0; PAYLOAD_WORDS];
        words[..SIGNATURE_WORDS].copy_from_slice(&call.to_words());
        words[SIGNATURE_WORDS..][..4].copy_from_slice(&[lent_at as u64, len as u64, answer_at as u64, at]);
        let peer = self.peers.at_mut(peer);
        peer.fly(Flight::Lent(loan));
        peer.put_first(SWAP, &words, 0);
        self.try_begin(call)?;
        self.offered(len);
        Ok(true)
    }

    /// Looks for the peer's part, `looks` times more than once, and hands it to `work`.
    #[inline]
    pub(super) fn meet_other(
        &mut self,
        len: usize,
        looks: u32,
        work: &mut dyn FnMut(View<'_>, ViewMut<'_>),
    ) -> Met {
        let Some(peer) = self.peers.only() else { return Met::Otherwise };
        let mut left = looks;
        let answer = loop {
            match peer.meet_swap(len, &self.call, &mut self.shared) {
                Ok(offset) => break offset,
                Err(Meeting::NotYet) if left > 0 => {
                    left -= 1;
                    between_looks();
                }
                Err(Meeting::NotYet) => return Met::NotYet,
                Err(_) => {
                    // What was said of it holds in the ordinary way too.
                    peer.posted.extend(self.shared.loans.answer.take());
                    return Met::Otherwise;
                }
            }
        };
        self.open = 0;
        work(peer.met(len), peer.memory(answer, len));
        peer.part(len);
        self.settle(looks)
    }
}

impl Peer {
    /// Looks for the first line of the peer's call, and puts what it lends in front. Returns where the answer goes.
    #[inline]
    fn meet_swap(&mut self, len: usize, ours: &Call, shared: &mut Shared) -> Result<usize, Meeting> {
        let Some(line) = self.rx.head() else { return Err(Meeting::NotYet) };
        let (kind, acks) = (line.kind, (line.lines_ack, line.chunks_ack));
        // Memory that the peer posted in its last call, when this rank had sent it everything.
        if kind == SINK && !self.opened && self.absorb(acks.0, acks.1, shared).is_ok() {
            self.rx.advance();
            return Err(Meeting::NotYet);
        }
        if kind != FIRST | SWAP {
            return if self.take_owed(shared) {
                self.meet_swap(len, ours, shared)
            } else {
                Err(Meeting::Otherwise)
            };
        }
        let word = |index| self.rx.word(SIGNATURE_WORDS + index);
        let answer = bounded(word(2), len as u64, &self.layout.heap());
        let (Ok(front), Some((answer, _))) = (self.chunk(word(0), word(1)), answer) else {
            return Err(Meeting::Otherwise);
        };
        let is_same = front.len() == len && [self.rx.word(0), self.rx.word(1)] == ours.words;
        let is_same = is_same && self.owed.is_empty();
        if !is_same || self.absorb(acks.0, acks.1, shared).is_err() {
            return Err(Meeting::Otherwise);
        }
        debug_assert!(matches!(front, Front::Chunk { .. }), "what is lent is a chunk");
        self.front = Some(front);
        self.opened = true;
        self.front_is_first = true;
        Ok(answer)
    }
}
