//! Memory that is lent to peers, until the last of them has read it.

use super::ShmLinks;
use super::protocol::Flight;
use sohu_coll_core::Rank;
use sohu_coll_core::link::{LEND_MIN, Links, Refused};
use sohu_coll_mem::{ReadSpan, WriteSpan};

/// The most loans that are out at once, the ledger's own bound.
const LOANS_MAX: usize = sohu_coll_mem::region::SPANS_MAX;

/// What is lent, and how many peers have yet to return it. Without a span it is the memory of the answer that is awaited.
type Loan = (Option<ReadSpan>, u32);

/// Loans to peers, each with the number of readers that have not returned it.
pub(super) struct Loans {
    slots: Box<[Option<Loan>]>,
    /// How many are out.
    pub(super) out: usize,
    /// In a swap: memory that the peer has written to, from this byte of its stream on, when it returns what was lent.
    pub(super) answer: Option<(u64, WriteSpan)>,
}

impl Loans {
    pub(super) fn new() -> Self {
        Self { slots: (0..LOANS_MAX).map(|_| None).collect(), out: 0, answer: None }
    }

    /// Notes that `readers` peers have a span; none where what they have is the [`answer`](Self::answer)'s own memory.
    pub(super) fn book(&mut self, span: Option<ReadSpan>, readers: usize) -> Result<usize, Option<ReadSpan>> {
        let Some(index) = self.slots.iter().position(Option::is_none) else { return Err(span) };
        self.slots[index] = Some((span, readers as u32));
        self.out += 1;
        Ok(index)
    }

    pub(super) fn release(&mut self, index: usize) {
        let Some((_, readers)) = &mut self.slots[index] else { return };
        *readers -= 1;
        if *readers == 0 {
            self.slots[index] = None;
            self.answer = None;
            self.out -= 1;
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots.fill_with(|| None);
        self.answer = None;
        self.out = 0;
    }
}

impl ShmLinks {
    pub(super) fn try_lend(&mut self, to: &[Rank], span: ReadSpan) -> Result<(), Refused<ReadSpan>> {
        let (address, len) = (span.as_ptr(), span.len());
        let offset = self.segment.map.offset_of(address, len);
        // Far peers too: where all is lent, programs count on it and not on room.
        let is_reached = offset.is_some() || self.fetches();
        // An error that asking for room turns up is reported by the `send` that follows a refusal.
        if !is_reached || len < LEND_MIN || !self.has_room(to).unwrap_or(false) {
            return Err(Refused(span));
        }
        if let [one] = *to
            && self.posted(one) > 0
        {
            return Err(Refused(span));
        }
        let loan = match self.shared.loans.book(Some(span), to.len()) {
            Ok(loan) => loan,
            Err(span) => return Err(Refused(span.expect("it was given one"))),
        };
        if offset.is_none() {
            self.huge.note(address.addr(), len);
        }
        for peer in to {
            let peer = self.peers.at_mut(*peer);
            match offset {
                Some(offset) => peer.put_chunk(offset, len, Flight::Lent(loan), &self.call),
                None => peer.put_private(address.addr(), len, loan, &self.call),
            }
        }
        Ok(())
    }
}
