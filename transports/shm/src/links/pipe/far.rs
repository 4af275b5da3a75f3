//! Whether messages travel far: what is staged for a peer that shares no cache is best written past them.
//!
//! Pipes have lines of their own on the pages that links look at, for chunks of their own: ranks may exchange nothing but
//! messages.

use super::{Front, PipePair};
use crate::links::distance::{FAR_NOTE, LIT_FIRST, MESSAGE_LINES, PAST_FROM, is_lit, light};
use crate::segment::Segment;
use sohu_coll_core::error::LinkError;
use sohu_coll_mem::ViewMut;

impl PipePair {
    /// Whether what is staged for the peer travels far; nothing as long as messages have not shown it.
    #[inline]
    pub(in super::super) fn is_far(&self) -> Option<bool> {
        self.distance.known.then(|| self.distance.is_far())
    }

    /// As [`Pipes::put`](sohu_coll_core::pipe::Pipes::put), forward. The beacon is lit once there is room: who finds none comes back again
    /// and again, and would take the lines from the peer each time.
    #[inline]
    pub(in super::super) fn put(
        &mut self,
        own: &Segment,
        limit: usize,
        work: &mut dyn FnMut(ViewMut<'_>),
    ) -> Result<usize, LinkError> {
        if !self.is_lit_for(limit) {
            return self.source.put(own, limit, work);
        }
        let Self { source, own_beacon, .. } = self;
        let put = source.put(own, limit, &mut |room| {
            light(own_beacon, MESSAGE_LINES);
            work(room);
        })?;
        if put > 0 {
            self.listen()?;
        }
        Ok(put)
    }

    /// Up to `len` bytes are about to be staged for a bid: lights the beacon, if the peer will look at it with them. A bid is tried
    /// once, so there may be no room.
    #[inline]
    pub(in super::super) fn light(&mut self, len: usize) -> Result<(), LinkError> {
        if self.is_lit_for(len) {
            light(&self.own_beacon, MESSAGE_LINES);
            self.listen()?;
        }
        Ok(())
    }

    /// Whether the peer will look at the beacon with the next chunk, if that is so long.
    #[inline]
    fn is_lit_for(&self, len: usize) -> bool {
        len >= PAST_FROM && is_lit(self.source.chunks_put)
    }

    /// Who only sends hears here how far the peer sees it.
    fn listen(&mut self) -> Result<(), LinkError> {
        self.source.collect()?;
        self.distance.told = self.source.credit_rx.note() == FAR_NOTE;
        // It has looked by then, if it took any of what was put before.
        self.distance.known |= self.source.chunks_back >= LIT_FIRST;
        Ok(())
    }

    /// Looks how far away the peer is, if its beacon is lit for the chunk that has come.
    #[inline]
    pub(super) fn look_out(&mut self, front: Front) {
        let Front::Chunk { offset, len } = front else { return };
        // What is lent may lie in the reader's own cache.
        if self.drain.readable[0].contains(&offset)
            && let Some(note) =
                self.distance.look((&self.beacon, MESSAGE_LINES), self.drain.chunks_taken, len)
        {
            self.drain.credit_tx.leave_note(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::room::tests::pair;
    use crate::{Layout, ShmLinks};
    use sohu_coll_core::Rank;
    use sohu_coll_core::pipe::{Pipes, Strand};
    use sohu_coll_mem::words::{Ordering, Words};

    /// How often the beacon for messages to rank 1 was lit.
    fn lit(links: &ShmLinks) -> u64 {
        links.pipes[0].own_beacon.word(MESSAGE_LINES[0] * 8).load(Ordering::Relaxed)
    }

    fn put(links: &mut ShmLinks) -> usize {
        links.put(Rank(1), Strand::Bytes, PAST_FROM, &mut |_| {}).expect("the pipe is in order")
    }

    #[test]
    fn a_beacon_is_lit_for_what_is_put_and_not_for_what_finds_no_room() {
        let [mut writer, mut reader] = pair(Layout::new(2, 64 << 10, 0));
        let mut chunks = 0;
        while put(&mut writer) > 0 {
            chunks += 1;
        }
        let lit_for = |chunks| (0..chunks).filter(|chunk| is_lit(*chunk)).count() as u64;
        assert_eq!(lit(&writer), lit_for(chunks), "{chunks} chunks");
        // On to where the next chunk is one that the beacon is lit for, and there is no room for it.
        while !is_lit(chunks) {
            let taken = reader.take(Rank(0), Strand::Bytes, usize::MAX, &mut |view| view.len());
            assert_eq!(taken, Ok(PAST_FROM));
            chunks += u64::from(put(&mut writer) > 0);
        }
        assert_eq!(lit(&writer), lit_for(chunks));
        assert_eq!([put(&mut writer), put(&mut writer)], [0, 0], "there is no room");
        assert_eq!(lit(&writer), lit_for(chunks), "nothing was put");
        while reader.take(Rank(0), Strand::Bytes, usize::MAX, &mut |view| view.len()) != Ok(0) {}
        assert!(put(&mut writer) > 0);
        assert_eq!(lit(&writer), lit_for(chunks + 1));
    }
}
