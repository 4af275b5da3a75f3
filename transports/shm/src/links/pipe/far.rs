//! Whether messages travel far: what is staged for a peer that shares no cache is best written past them.
//!
//! Pipes look at the same beacons as links do, for chunks of their own: ranks may exchange nothing but messages.

use super::{Front, PipePair};
use crate::links::distance::{FAR_NOTE, PAST_FROM, is_lit, light};
use sohu_coll_core::error::LinkError;

impl PipePair {
    /// Whether what is staged for the peer travels far.
    #[inline]
    pub(in super::super) fn is_far(&self) -> bool {
        self.distance.is_far()
    }

    /// Up to `len` bytes are about to be staged: lights the beacon, if the peer will look at it with them.
    #[inline]
    pub(in super::super) fn light(&mut self, len: usize) -> Result<(), LinkError> {
        if len >= PAST_FROM && is_lit(self.source.chunks_put) {
            light(&self.own_beacon);
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
            && let Some(note) = self.distance.look(&self.beacon, self.drain.chunks_taken, len)
        {
            self.drain.credit_tx.leave_note(note);
        }
    }
}
