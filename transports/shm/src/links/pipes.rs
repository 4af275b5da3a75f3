//! The pipes of one rank, as the engine sees them.

use super::ShmLinks;
use super::exchange::Ahead;
use super::pipe::{FETCHED_MIN, Lent, PipePair};
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::LEND_MIN;
use sohu_coll_core::pipe::{Note, Pipes, Strand, WHOLE_BYTES};
use sohu_coll_mem::line::PAYLOAD_BYTES;
use sohu_coll_mem::{View, ViewMut};

const _: () = assert!(WHOLE_BYTES == PAYLOAD_BYTES);

impl ShmLinks {
    /// Where the pipes with `peer` are, which is another rank.
    fn pair(&self, peer: Rank) -> usize {
        assert!(peer != self.rank, "a pipe from {peer} to itself");
        peer.index() - usize::from(peer > self.rank)
    }

    /// Where bytes lie that can be lent to `to`.
    #[inline]
    fn loan(&self, to: Rank, bytes: View<'_>) -> Option<Lent> {
        if bytes.len() < LEND_MIN {
            return None;
        }
        if let Some(offset) = self.segment.map.offset_of(bytes.as_ptr(), bytes.len()) {
            return self.layout().heap().contains(&offset).then_some(Lent::Segment(offset));
        }
        // What a core has just written comes to a far one too slowly for the kernel to wait for it.
        let is_fetched = (FETCHED_MIN..=self.fetched_max).contains(&bytes.len())
            && self.fetches()
            && !Pipes::is_far(self, to);
        is_fetched.then(|| Lent::Private(bytes.as_ptr().addr()))
    }

    /// The same, of bytes that are about to be.
    #[inline]
    fn lent(&mut self, to: Rank, bytes: View<'_>) -> Option<Lent> {
        let lent = self.loan(to, bytes)?;
        if let Lent::Private(address) = lent {
            self.huge.note(address, bytes.len());
        }
        Some(lent)
    }

    /// Lets `work` use the pipes with a peer. Sees to it that the peer is rung if anything moved.
    #[inline]
    fn at_pair<R: PartialEq + Default>(
        &mut self,
        peer: Rank,
        work: impl FnOnce(&mut PipePair, &crate::segment::Segment) -> Result<R, LinkError>,
    ) -> Result<R, LinkError> {
        let pair = self.pair(peer);
        self.guard(|links| {
            let moved = work(&mut links.pipes[pair], &links.segment)?;
            if moved != R::default() {
                links.peers.at_mut(peer).ring_due = true;
            }
            Ok(moved)
        })
    }
}

impl Pipes for ShmLinks {
    fn put(
        &mut self,
        to: Rank,
        strand: Strand,
        limit: usize,
        work: &mut dyn FnMut(ViewMut<'_>),
    ) -> Result<usize, LinkError> {
        self.at_pair(to, |pair, own| match strand {
            Strand::Bytes => pair.put(own, limit, work),
            Strand::Answers => pair.drain.put(own, limit, work),
        })
    }

    fn take(
        &mut self,
        from: Rank,
        strand: Strand,
        limit: usize,
        work: &mut dyn FnMut(View<'_>) -> usize,
    ) -> Result<usize, LinkError> {
        // The commonest of all, for who waits.
        if !self.has_come(from, strand) {
            return Ok(0);
        }
        let answers = strand == Strand::Answers;
        self.at_pair(
            from,
            |pair, _| if answers { pair.take_answer(limit, work) } else { pair.take_bytes(limit, work) },
        )
    }

    #[inline]
    fn has_come(&mut self, from: Rank, strand: Strand) -> bool {
        let pair = self.pair(from);
        self.pipes[pair].has_come(strand == Strand::Answers) || self.failed.is_some()
    }

    fn bid(
        &mut self,
        to: Rank,
        head: Note,
        answer: Note,
        bytes: View<'_>,
        copy: fn(View<'_>, ViewMut<'_>),
    ) -> Option<usize> {
        let lent = self.lent(to, bytes);
        let put = self.at_pair(to, |pair, own| {
            if lent.is_none() {
                pair.light(bytes.len())?;
            }
            pair.bid(own, [head, answer], bytes, lent, copy)
        });
        put.unwrap_or(None)
    }

    fn deal(
        &mut self,
        from: Rank,
        limit: usize,
        looks: u32,
        work: &mut dyn FnMut(Note, Note, View<'_>) -> Option<usize>,
    ) -> bool {
        let Ahead { most, theirs, .. } = self.ahead;
        let dealt = self.at_pair(from, |pair, own| {
            let dealt = pair.deal((limit, theirs), looks, work)?;
            if dealt {
                pair.claim_place(own, most);
            }
            Ok(dealt)
        });
        dealt.unwrap_or(false)
    }

    fn is_far(&self, to: Rank) -> bool {
        // What calls have shown may be long ago, where ranks have sent each other nothing but messages since.
        self.pipes[self.pair(to)].is_far().unwrap_or_else(|| self.peers.at(to).distance.is_far())
    }

    fn lends(&self, to: Rank, bytes: View<'_>) -> bool {
        self.loan(to, bytes).is_some()
    }

    fn lend(&mut self, to: Rank, bytes: View<'_>) -> Result<bool, LinkError> {
        let Some(lent) = self.lent(to, bytes) else { return Ok(false) };
        self.at_pair(to, |pair, _| pair.source.lend(lent, bytes.len()))
    }

    fn fetch(&mut self, from: Rank, into: ViewMut<'_>) -> Result<usize, LinkError> {
        if !self.fetches() {
            return Ok(0);
        }
        self.at_pair(from, |pair, _| pair.fetch(into))
    }

    fn flush(&mut self, peer: Rank) -> Result<bool, LinkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let pair = self.pair(peer);
        let PipePair { source, drain, .. } = &mut self.pipes[pair];
        let moved = source.give_credit() | drain.give_credit();
        if moved {
            self.peers.at_mut(peer).ring_due = true;
        }
        Ok(moved)
    }

    fn is_clear(&mut self, peer: Rank) -> Result<bool, LinkError> {
        let pair = self.pair(peer);
        let most = self.ahead.most;
        self.guard(|links| {
            let PipePair { source, drain, .. } = &mut links.pipes[pair];
            let clear = source.is_clear()?;
            if clear {
                // Nothing else is to be done, and the next message is likely to come soon.
                source.claim_next(&links.segment, most);
                drain.claim_next(&links.segment, most);
            }
            Ok(clear)
        })
    }
}
