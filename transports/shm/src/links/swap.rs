//! A whole call of two ranks in one trip, where both lend and both post: see
//! [`Links::swap`](sohu_coll_core::link::Links::swap).
//!
//! One line says what the peer is to work on and where the result goes; its return says that the result is there.
//! A rank that meets such a line outside a swap takes it for what it also is, a chunk and a sink.

use super::exchange::Meeting;
use super::peer::Peer;
use super::protocol::{FIRST, Front, SIGNATURE_WORDS, SINK, SWAP, bounded};
use super::two::Out;
use super::{Call, Shared, ShmLinks};
use sohu_coll_core::Signature;
use sohu_coll_core::link::{Half, Met};
use sohu_coll_mem::line::PAYLOAD_WORDS;
use sohu_coll_mem::words::between_looks;
use sohu_coll_mem::{View, ViewMut};

impl ShmLinks {
    /// Does what [`Links::swap`](sohu_coll_core::link::Links::swap) says.
    #[inline]
    pub(super) fn try_swap(
        &mut self,
        call: &Signature,
        half: Half<'_>,
        looks: u32,
        work: &mut dyn FnMut(View<'_>, ViewMut<'_>),
    ) -> Option<Met> {
        let len = half.bytes.len();
        let offset = |base| self.segment.map.offset_of(base, len);
        let lent_at = offset(half.bytes.as_ptr())?;
        let answer_at = offset(half.answer.as_mut_ptr().cast_const())?;
        let peer = self.peers.only()?;
        if self.failed.is_some() || half.answer.len() != len || !peer.may_offer() {
            return None;
        }
        // What is on its way from before is heard of in the ordinary way.
        let in_one_go = peer.is_at_rest();
        let signature = call.to_words();
        let mut words = [0; PAYLOAD_WORDS];
        words[..SIGNATURE_WORDS].copy_from_slice(&signature);
        words[SIGNATURE_WORDS..][..4].copy_from_slice(&[
            lent_at as u64,
            len as u64,
            answer_at as u64,
            half.at,
        ]);
        peer.chunks_put += 1;
        peer.put_first(SWAP, &words, 0);
        let left = if in_one_go { peer.spin(looks) } else { looks };
        let theirs = if in_one_go { peer.their_half(half.theirs, signature) } else { None };
        let Some((theirs, answer)) = theirs else {
            self.begin_two(call, len);
            let (lent, posted) = (half.spans)();
            self.book_two(lent, Some((half.at, posted)));
            return Some(self.meet_other(half.theirs, left, work));
        };
        let out = Out;
        work(peer.map.view(theirs, half.theirs), peer.memory(answer, half.theirs));
        core::mem::forget(out);
        peer.opened = true;
        peer.rx.advance();
        peer.chunks_taken += 1;
        peer.publish_credit();
        peer.tx.claim_next();
        self.open = 0;
        if peer.is_returned(looks) {
            return Some(Met::Settled);
        }
        self.call = Call::new(call, signature);
        let (lent, posted) = (half.spans)();
        self.book_two(lent, Some((half.at, posted)));
        Some(Met::Everybody)
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
        let Some(bytes) = peer.met(len) else { return Met::Otherwise };
        self.open = 0;
        work(bytes, peer.memory(answer, len));
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
        let (front, answer) = self.half_in_front(len, ours.words).ok_or(Meeting::Otherwise)?;
        if !self.owed.is_empty() || self.absorb(acks.0, acks.1, shared).is_err() {
            return Err(Meeting::Otherwise);
        }
        self.front = Some(front);
        self.opened = true;
        self.front_is_first = true;
        Ok(answer)
    }

    /// Where the line in front says that the `len` bytes of the other half are, and where the answer to them goes; nothing
    /// if it says anything else, or there is none.
    #[inline]
    fn their_half(&mut self, len: usize, signature: [u64; SIGNATURE_WORDS]) -> Option<(usize, usize)> {
        let line = self.rx.head()?;
        let (kind, lines, chunks) = (line.kind, line.lines_ack, line.chunks_ack);
        if kind != FIRST | SWAP || chunks != self.chunks_back as u16 {
            return None;
        }
        let (theirs, answer) = self.half_in_front(len, signature)?;
        self.tx.credit(lines).ok()?;
        Some((theirs.offset()?, answer))
    }

    /// Where the line in front, which is a swap's, says that the `len` bytes of the other half are, and where the answer to them goes;
    /// nothing if it is of another call, or either is not there.
    #[inline]
    pub(super) fn half_in_front(
        &self,
        len: usize,
        signature: [u64; SIGNATURE_WORDS],
    ) -> Option<(Front, usize)> {
        let word = |index| self.rx.word(SIGNATURE_WORDS + index);
        let lent = self.chunk(word(0), word(1)).ok().filter(|lent| lent.len() == len)?;
        let (answer, _) = bounded(word(2), len as u64, &self.layout.heap())?;
        ([self.rx.word(0), self.rx.word(1)] == signature).then_some((lent, answer))
    }
}
