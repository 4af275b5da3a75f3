//! Exchanges in which not every rank sends to every other, as a broadcast: see
//! [`Links::offer`](sohu_coll_core::link::Links::offer).
//!
//! Who gets no bytes gets a line with the signature alone, so that all hear of the call of all. A rank waits for those that
//! it takes bytes from; of the others it takes the signature if it has come, and else it is owed ([`owed`](super::owed)).
//! As in any exchange, what is not as it should be is left for the ordinary way, which waits for all. These functions
//! stand apart, so that the exchanges of all ranks with all are none the longer for them.

use super::exchange::{INLINE_MAX, Meeting};
use super::peer::Peer;
use super::protocol::{BOARD, DATA, FIRST, HEADER, SIGNATURE_WORDS, SINK};
use super::{Call, Shared, ShmLinks};
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{EXCHANGE_MAX, Met, SOURCES_MAX, Work};
use sohu_coll_core::{Rank, Signature};
use sohu_coll_mem::View;
use sohu_coll_mem::line::PAYLOAD_WORDS;
use sohu_coll_mem::words::between_looks;

/// Some of the ranks. There are at most 64: see [`Layout::RANKS_MAX`](crate::Layout::RANKS_MAX).
#[derive(Clone, Copy)]
pub(super) struct Few(u64);

impl Few {
    /// All of them.
    pub(super) const ALL: Self = Self(u64::MAX);

    #[inline]
    fn new(ranks: &[Rank]) -> Self {
        Self(ranks.iter().fold(0, |few, rank| few | 1 << rank.0))
    }

    #[inline]
    fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    fn add(&mut self, rank: Rank) {
        self.0 |= 1 << rank.0;
    }

    #[inline]
    pub(super) fn has(self, rank: Rank) -> bool {
        self.0 >> rank.0 & 1 != 0
    }
}

impl ShmLinks {
    /// Begins the call and says in its first line to each rank of `to` what its bytes are, or where, and to all others
    /// that there are none, if there is room for a line to each.
    #[inline(never)]
    pub(super) fn offer_few(
        &mut self,
        call: &Signature,
        to: &[Rank],
        bytes: View<'_>,
    ) -> Result<usize, LinkError> {
        let len = bytes.len();
        if len > EXCHANGE_MAX || !self.peers.iter().all(Peer::may_offer) {
            self.try_begin(call)?;
            return Ok(0);
        }
        let mut words = first_words(call);
        if len <= INLINE_MAX {
            bytes.load_words(&mut words[SIGNATURE_WORDS..]);
            for rank in to {
                self.peers.at_mut(*rank).put_first(DATA, &words, len as u8);
            }
        } else if let Some(board) = self.put_on_board(&mut words, &[bytes]) {
            for rank in to {
                let peer = self.peers.at_mut(*rank);
                peer.put_first(BOARD, &words, 0);
                peer.note_board(board);
            }
        } else {
            self.try_begin(call)?;
            return Ok(0);
        }
        self.begin_offered(call, to, len)?;
        Ok(len)
    }

    /// As [`offer_few`](Self::offer_few), with a block for each rank of `to`; there may be none.
    #[inline(never)]
    pub(super) fn offer_each(
        &mut self,
        call: &Signature,
        to: &[Rank],
        blocks: &[View<'_>],
    ) -> Result<bool, LinkError> {
        let len = blocks.first().map_or(0, View::len);
        if len * blocks.len() > EXCHANGE_MAX || !self.peers.iter().all(Peer::may_offer) {
            self.try_begin(call)?;
            return Ok(false);
        }
        let mut words = first_words(call);
        if len <= INLINE_MAX {
            for (rank, block) in to.iter().zip(blocks) {
                block.load_words(&mut words[SIGNATURE_WORDS..]);
                self.peers.at_mut(*rank).put_first(DATA, &words, len as u8);
            }
        } else if let Some(board) = self.put_on_board(&mut words, blocks) {
            for rank in to {
                let peer = self.peers.at_mut(*rank);
                peer.put_first(BOARD, &words, 0);
                peer.note_board(board);
                words[SIGNATURE_WORDS] += len as u64;
            }
        } else {
            self.try_begin(call)?;
            return Ok(false);
        }
        self.begin_offered(call, to, len)?;
        Ok(true)
    }

    /// Puts blocks, which are equally long, on a board, and into `words` where the first of them lies. Returns which board,
    /// if one was free.
    #[inline]
    pub(super) fn put_on_board(
        &mut self,
        words: &mut [u64; PAYLOAD_WORDS],
        blocks: &[View<'_>],
    ) -> Option<usize> {
        let board = self.free_board()?;
        if board < 2 {
            self.turn = board;
        }
        // Before the blocks: what is stored after them and loaded whole waits until all of them are out.
        let place = [(board * EXCHANGE_MAX) as u64, blocks[0].len() as u64];
        words[SIGNATURE_WORDS..][..2].copy_from_slice(&place);
        let mut at = self.segment.layout().boards().start + board * EXCHANGE_MAX;
        for block in blocks {
            block.copy_to(self.segment.map.view_mut(at, block.len()));
            at += block.len();
        }
        Some(board)
    }

    /// Tells all that are not in `to` of the call too, and begins it.
    #[inline]
    fn begin_offered(&mut self, call: &Signature, to: &[Rank], len: usize) -> Result<(), LinkError> {
        let (few, words) = (Few::new(to), first_words(call));
        for peer in self.peers.iter_mut().filter(|peer| !few.has(peer.rank)) {
            peer.put_first(HEADER, &words, 0);
        }
        self.try_begin(call)?;
        for peer in self.peers.iter_mut() {
            peer.header_due = false;
            peer.out_at = if few.has(peer.rank) { len as u64 } else { 0 };
        }
        Ok(())
    }

    /// Looks for the bytes of the ranks of `from`, `looks` times more than once, and hands them to `work` when all are
    /// there. Waits for no other peer but one that owes as many signatures as one may.
    #[inline(never)]
    pub(super) fn meet_few(&mut self, from: &[Rank], len: usize, looks: u32, work: Work<'_>) -> Met {
        let few = Few::new(from);
        // One after the other, for all are needed.
        let mut left = from.iter().fold(looks, |left, rank| self.peers.at_mut(*rank).spin(left));
        // What others owe is looked for once, and then if there is no room for more of it.
        let mut is_new = true;
        loop {
            let mut awaited = Few::new(&[]);
            for peer in self.peers.iter_mut().filter(|peer| !peer.opened) {
                let meeting = if few.has(peer.rank) {
                    peer.meet(len, &self.call, &mut self.shared)
                } else if is_new || !peer.may_be_left() {
                    peer.hear(&self.call, &mut self.shared)
                } else {
                    Meeting::Here
                };
                match meeting {
                    Meeting::Here => {}
                    Meeting::NotYet => awaited.add(peer.rank),
                    Meeting::Otherwise => {
                        self.awaited = Few::ALL;
                        return Met::Otherwise;
                    }
                }
            }
            self.awaited = awaited;
            if awaited.is_empty() {
                break;
            }
            if left == 0 {
                return Met::NotYet;
            }
            left -= 1;
            is_new = false;
            between_looks();
        }
        if self.take_few(from, len, work).is_none() {
            self.awaited = Few::ALL;
            return Met::Otherwise;
        }
        self.peers.iter_mut().for_each(|peer| peer.leave(&self.call));
        self.open = 0;
        if self.shared.loans.out == 0 { Met::Settled } else { self.settle(looks) }
    }
}

impl ShmLinks {
    /// Has what came of the ranks of `from` taken; nothing if it can not be.
    #[inline]
    fn take_few(&mut self, from: &[Rank], len: usize, work: Work<'_>) -> Option<()> {
        match from {
            [] => (work.take)(&[]),
            [one] => {
                let peer = self.peers.at_mut(*one);
                let bytes = peer.met_or_fetched(len, work.into)?;
                (work.take)(&[bytes]);
                peer.part(len);
            }
            _ => {
                let mut views = [View::EMPTY; SOURCES_MAX];
                for (view, rank) in views.iter_mut().zip(from) {
                    *view = self.peers.at(*rank).met(len)?;
                }
                (work.take)(&views[..from.len()]);
                from.iter().for_each(|rank| self.peers.at_mut(*rank).part(len));
            }
        }
        Some(())
    }
}

/// The payload of a call's first line, without any bytes.
#[inline]
fn first_words(call: &Signature) -> [u64; PAYLOAD_WORDS] {
    let mut words = [0; PAYLOAD_WORDS];
    words[..SIGNATURE_WORDS].copy_from_slice(&call.to_words());
    words
}

impl Peer {
    /// Takes what has come of the signatures that the peer owes, and that of this call, which has no bytes for this rank.
    /// It is [`Meeting::Here`] if this rank may leave the call without more.
    #[inline]
    fn hear(&mut self, ours: &Call, shared: &mut Shared) -> Meeting {
        while !self.opened {
            let Some(line) = self.rx.head() else { break };
            let (kind, acks) = (line.kind, (line.lines_ack, line.chunks_ack));
            if self.take_owed(shared) {
                continue;
            }
            let is_due = self.owed.is_empty();
            let is_same =
                is_due && kind == FIRST | HEADER && [self.rx.word(0), self.rx.word(1)] == ours.words;
            // Or memory that the peer posted in an earlier call, when this rank had sent it everything.
            if !(is_same || kind == SINK) || self.absorb(acks.0, acks.1, shared).is_err() {
                return Meeting::Otherwise;
            }
            self.rx.advance();
            self.opened = is_same;
        }
        if self.may_be_left() { Meeting::Here } else { Meeting::NotYet }
    }
}
