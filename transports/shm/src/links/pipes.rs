//! The pipes of one rank, as the engine sees them.

use super::ShmLinks;
use super::pipe::{End, PipePair};
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::LEND_MIN;
use sohu_coll_core::pipe::{Pipes, Strand, WHOLE_BYTES};
use sohu_coll_mem::line::PAYLOAD_BYTES;
use sohu_coll_mem::{View, ViewMut};

const _: () = assert!(WHOLE_BYTES == PAYLOAD_BYTES);

impl ShmLinks {
    /// Where the pipes with `peer` are, which is another rank.
    fn pair(&self, peer: Rank) -> usize {
        assert!(peer != self.rank, "a pipe from {peer} to itself");
        peer.index() - usize::from(peer > self.rank)
    }

    /// Lets `work` use an end of a pipe with `peer`: of the one that goes there, or comes from there. Sees to it that the peer is
    /// rung if anything moved.
    fn at_end<R: PartialEq + Default>(
        &mut self,
        peer: Rank,
        source: bool,
        work: impl FnOnce(&mut End, &crate::segment::Segment) -> Result<R, LinkError>,
    ) -> Result<R, LinkError> {
        let pair = self.pair(peer);
        self.guard(|links| {
            let pipes = &mut links.pipes[pair];
            let end = if source { &mut pipes.source } else { &mut pipes.drain };
            let moved = work(end, &links.segment)?;
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
        self.at_end(to, strand == Strand::Bytes, |end, own| end.put(own, limit, work))
    }

    fn take(
        &mut self,
        from: Rank,
        strand: Strand,
        limit: usize,
        work: &mut dyn FnMut(View<'_>) -> usize,
    ) -> Result<usize, LinkError> {
        // Answers come back through the pipe to the peer.
        let pair = self.pair(from);
        let pipes = &mut self.pipes[pair];
        let end = if strand == Strand::Answers { &mut pipes.source } else { &mut pipes.drain };
        // The commonest of all, for who waits.
        if !end.has_come() && self.failed.is_none() {
            return Ok(0);
        }
        self.at_end(from, strand == Strand::Answers, |end, _| end.take(limit, work))
    }

    fn lends(&self, bytes: View<'_>) -> bool {
        let offset = self.segment.map.offset_of(bytes.as_ptr(), bytes.len());
        bytes.len() >= LEND_MIN && offset.is_some_and(|offset| self.layout().heap().contains(&offset))
    }

    fn lend(&mut self, to: Rank, bytes: View<'_>) -> Result<bool, LinkError> {
        if !self.lends(bytes) {
            return Ok(false);
        }
        let Some(offset) = self.segment.map.offset_of(bytes.as_ptr(), bytes.len()) else { return Ok(false) };
        self.at_end(to, true, |end, _| end.lend(offset, bytes.len()))
    }

    fn flush(&mut self, peer: Rank) -> Result<bool, LinkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let pair = self.pair(peer);
        let PipePair { source, drain } = &mut self.pipes[pair];
        let moved = source.give_credit() | drain.give_credit();
        if moved {
            self.peers.at_mut(peer).ring_due = true;
        }
        Ok(moved)
    }

    fn is_clear(&mut self, peer: Rank) -> Result<bool, LinkError> {
        let pair = self.pair(peer);
        self.guard(|links| {
            let PipePair { source, drain } = &mut links.pipes[pair];
            let clear = source.is_clear()?;
            if clear {
                // Nothing else is to be done, and the next message is likely to come soon.
                source.fetch_next();
                drain.fetch_next();
            }
            Ok(clear)
        })
    }
}
