//! Whether messages travel far: what is staged for a peer that shares no cache is best written past them.
//!
//! Pipes have lines of their own on the pages that links look at, for chunks of their own: ranks may exchange nothing but
//! messages.

use super::{Front, PipePair};
use crate::links::distance::{FAR_NOTE, LIT_FIRST, MESSAGE_LINES, PAST_FROM, is_lit, light};
use sohu_coll_core::error::LinkError;

impl PipePair {
    /// Whether what is staged for the peer travels far; nothing as long as messages have not shown it.
    #[inline]
    pub(in super::super) fn is_far(&self) -> Option<bool> {
        let chunks = self.source.chunks_put.max(self.drain.chunks_taken);
        (chunks >= LIT_FIRST).then(|| self.distance.is_far())
    }

    /// Up to `len` bytes are about to be staged: lights the beacon, if the peer will look at it with them.
    #[inline]
    pub(in super::super) fn light(&mut self, len: usize) -> Result<(), LinkError> {
        if len >= PAST_FROM && is_lit(self.source.chunks_put) {
            light(&self.own_beacon, MESSAGE_LINES);
            // Who only sends hears of it here.
            self.source.collect()?;
            self.distance.told = self.source.credit_rx.note() == FAR_NOTE;
        }
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
