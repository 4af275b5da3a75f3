//! The pipes of [`LoopLinks`]: a queue for each strand, with the same faults.

use crate::LoopLinks;
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::pipe::{Pipes, STRAND_BYTES_MIN, Strand, WHOLE_BYTES};
use sohu_coll_mem::{View, ViewMut};

impl Pipes for LoopLinks {
    fn put(
        &mut self,
        to: Rank,
        strand: Strand,
        limit: usize,
        work: &mut dyn FnMut(ViewMut<'_>),
    ) -> Result<usize, LinkError> {
        self.run(|links| {
            if limit == 0 || links.refuses() {
                return Ok(0);
            }
            let faults = links.fabric.faults;
            let (from, end) = if strand == Strand::Bytes { (links.rank, to) } else { (to, links.rank) };
            let mut queue = links.fabric.strand(from, end, strand);
            if queue.closed {
                return Err(LinkError::Closed { peer: to });
            }
            let room = faults.window_bytes.max(STRAND_BYTES_MIN).saturating_sub(queue.bytes.len());
            let count = limit.min(faults.max_piece.max(WHOLE_BYTES)).min(room);
            if count < limit.min(WHOLE_BYTES) {
                return Ok(0);
            }
            let mut bytes = vec![0; count];
            work(ViewMut::from(&mut bytes[..]));
            queue.bytes.extend(bytes);
            Ok(count)
        })
    }

    fn take(
        &mut self,
        from: Rank,
        strand: Strand,
        limit: usize,
        work: &mut dyn FnMut(View<'_>) -> usize,
    ) -> Result<usize, LinkError> {
        self.run(|links| {
            if limit == 0 || links.refuses() {
                return Ok(0);
            }
            let (start, to) = if strand == Strand::Bytes { (from, links.rank) } else { (links.rank, from) };
            let mut queue = links.fabric.strand(start, to, strand);
            let count = queue.bytes.len().min(limit).min(links.fabric.faults.max_piece);
            if count == 0 {
                return if queue.closed { Err(LinkError::Closed { peer: from }) } else { Ok(0) };
            }
            let mut bytes = vec![0; count];
            queue.peek(&mut bytes);
            let used = work(View::from(&bytes[..]));
            queue.bytes.drain(..used);
            Ok(used)
        })
    }

    fn flush(&mut self, peer: Rank) -> Result<bool, LinkError> {
        let _ = peer;
        self.run(|_| Ok(false))
    }

    fn is_clear(&mut self, peer: Rank) -> Result<bool, LinkError> {
        // What was put lies in the peers' queues, which need no help.
        let _ = peer;
        self.run(|links| Ok(!links.refuses()))
    }
}
