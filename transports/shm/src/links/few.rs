//! Exchanges in which not every rank sends to every other, as a broadcast: see
//! [`Links::offer`](sohu_coll_core::link::Links::offer).
//!
//! Who gets no bytes gets a line with the signature alone, so that all hear of the call of all. As in any exchange,
//! what is not as it should be is left for the ordinary way.

use super::exchange::{INLINE_MAX, Meeting};
use super::peer::Peer;
use super::protocol::{BOARD, DATA, FIRST, HEADER, SIGNATURE_WORDS, SINK};
use super::{Call, Shared, ShmLinks};
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{EXCHANGE_MAX, Met, SOURCES_MAX};
use sohu_coll_core::{Rank, Signature};
use sohu_coll_mem::View;
use sohu_coll_mem::line::PAYLOAD_WORDS;

/// Some of the ranks. There are at most 64: see [`Layout::RANKS_MAX`](crate::Layout::RANKS_MAX).
#[derive(Clone, Copy)]
struct Few(u64);

impl Few {
    #[inline]
    fn new(ranks: &[Rank]) -> Self {
        Self(ranks.iter().fold(0, |few, rank| few | 1 << rank.0))
    }

    #[inline]
    fn has(self, rank: Rank) -> bool {
        self.0 >> rank.0 & 1 != 0
    }
}

impl ShmLinks {
    /// Begins the call and says in its first line to each rank of `to` what its bytes are, or where, and to all others
    /// that there are none, if there is room for a line to each.
    #[inline]
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
        let (kind, inline) = if len <= INLINE_MAX {
            bytes.load_words(&mut words[SIGNATURE_WORDS..]);
            (DATA, len as u8)
        } else {
            self.put_on_board(&mut words, &[bytes]);
            (BOARD, 0)
        };
        for rank in to {
            self.peers.at_mut(*rank).put_first(kind, &words, inline);
        }
        self.begin_offered(call, to, len)?;
        Ok(len)
    }

    /// As [`offer_few`](Self::offer_few), with a block for each rank of `to`; there may be none.
    #[inline]
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
        } else {
            self.put_on_board(&mut words, blocks);
            for rank in to {
                self.peers.at_mut(*rank).put_first(BOARD, &words, 0);
                words[SIGNATURE_WORDS] += len as u64;
            }
        }
        self.begin_offered(call, to, len)?;
        Ok(true)
    }

    /// Puts blocks, which are equally long, on a board, and into `words` where the first of them lies.
    fn put_on_board(&mut self, words: &mut [u64; PAYLOAD_WORDS], blocks: &[View<'_>]) {
        let board = self.next_board();
        let mut at = self.segment.layout().boards().start + board;
        for block in blocks {
            block.copy_to(self.segment.map.view_mut(at, block.len()));
            at += block.len();
        }
        words[SIGNATURE_WORDS..][..2].copy_from_slice(&[board as u64, blocks[0].len() as u64]);
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

    /// Looks for the bytes of the ranks of `from` and the signatures of all others, `looks` times more than once, and
    /// hands the bytes to `work` when all are there.
    #[inline]
    pub(super) fn meet_few(
        &mut self,
        from: &[Rank],
        len: usize,
        looks: u32,
        work: &mut dyn FnMut(&[View<'_>]),
    ) -> Met {
        let few = Few::new(from);
        let mut left = looks;
        loop {
            let mut missing = false;
            for peer in self.peers.iter_mut().filter(|peer| !peer.opened) {
                let meeting = match few.has(peer.rank) {
                    true => peer.meet(len, &self.call, &mut self.shared),
                    false => peer.meet_header(&self.call, &mut self.shared),
                };
                match meeting {
                    Meeting::Here => {}
                    Meeting::NotYet => missing = true,
                    Meeting::Otherwise => return Met::Otherwise,
                }
            }
            if !missing {
                break;
            }
            if left == 0 {
                return Met::NotYet;
            }
            left -= 1;
        }
        self.open = 0;
        match from {
            [] => work(&[]),
            [one] => {
                let peer = self.peers.at_mut(*one);
                work(&[peer.met(len)]);
                peer.part(len);
            }
            _ => {
                let mut views = [View::EMPTY; SOURCES_MAX];
                for (view, rank) in views.iter_mut().zip(from) {
                    *view = self.peers.at(*rank).met(len);
                }
                work(&views[..from.len()]);
                from.iter().for_each(|rank| self.peers.at_mut(*rank).part(len));
            }
        }
        if self.shared.loans.out == 0 { Met::Settled } else { self.settle(looks) }
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
    /// Looks for the first line of the peer's call, which has no bytes for this rank.
    #[inline]
    fn meet_header(&mut self, ours: &Call, shared: &mut Shared) -> Meeting {
        let Some(line) = self.rx.head() else { return Meeting::NotYet };
        let (kind, acks) = (line.kind, (line.lines_ack, line.chunks_ack));
        let is_same = kind == FIRST | HEADER && [self.rx.word(0), self.rx.word(1)] == ours.words;
        // Or memory that the peer posted in its last call, when this rank had sent it everything.
        let is_late = kind == SINK && !self.opened;
        if !(is_same || is_late) || self.absorb(acks.0, acks.1, shared).is_err() {
            return Meeting::Otherwise;
        }
        self.rx.advance();
        self.opened = is_same;
        if is_same { Meeting::Here } else { Meeting::NotYet }
    }
}
