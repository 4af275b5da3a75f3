//! What an end puts into its ring, and where: the bytes of a pipe that fit no line.

use super::{End, PIPE_LINES, Segment};
use core::ops::Range;
use sohu_coll_core::error::LinkError;
use sohu_coll_mem::ViewMut;
use sohu_coll_mem::byte_ring::{ByteRing, SEGMENT_ALIGN, SegmentId};
use std::collections::VecDeque;

/// Bytes that go into the ring at once: while the reader copies one piece, the writer copies the next.
const PIECE: usize = 64 << 10;

/// Up to this, 2 KiB with what goes before them, a message stays in the first [`NARROW`] bytes of the ring: few lines are fetched soonest from where the last ones
/// were, in the writer's cache. Longer ones go round the whole ring: taking a line back that the peer has in its own cache costs
/// twice the copy.
const SMALL: usize = (2 << 10) + 64;
const NARROW: usize = 8 << 10;

/// While this much of a message is left, it keeps to so much of the ring: it leaves the rest of the cache that both cores share to
/// the buffers.
const LARGE: usize = 512 << 10;
const LARGE_WITHIN: usize = 1 << 20;

/// The least piece worth a line of its own.
const PIECE_MIN: usize = 64;

/// What comes back when the peer has consumed a chunk.
enum Flight {
    Ring(SegmentId),
    Lent,
}

/// The ring of a pipe that goes out.
pub(super) struct Outgoing {
    ring: ByteRing,
    range: Range<usize>,
    /// How many bytes of it have memory.
    taken: usize,
    /// Whether it had no room for a piece of a long message, and neither half of it was free since nor did a shorter piece fit.
    clogged: bool,
    /// Whether more of what was put last has yet to come.
    in_parts: bool,
    /// Where the next short message is likely to go, if the last one was short.
    likely: Option<Range<usize>>,
    flights: VecDeque<Flight>,
    /// Loans among them.
    pub(super) lent: usize,
}

impl Outgoing {
    /// An empty ring, which lies there in this rank's segment.
    pub(super) fn new(range: Range<usize>) -> Self {
        Self {
            ring: ByteRing::new(range.len(), PIPE_LINES),
            range,
            taken: 0,
            clogged: false,
            in_parts: false,
            likely: None,
            flights: VecDeque::with_capacity(2 * PIPE_LINES),
            lent: 0,
        }
    }

    /// The peer has consumed the oldest chunk. Says whether there is one.
    pub(super) fn land(&mut self) -> bool {
        match self.flights.pop_front() {
            Some(Flight::Ring(segment)) => self.ring.release(segment),
            Some(Flight::Lent) => self.lent -= 1,
            None => return false,
        }
        true
    }
}

impl End {
    /// Has up to `limit` bytes written to the ring, if there is room; of a trade, `in_turn` in one of two places. Says where
    /// they lie, and how many.
    pub(super) fn stage(
        &mut self,
        own: &Segment,
        limit: usize,
        in_turn: bool,
        work: &mut dyn FnMut(ViewMut<'_>),
    ) -> Result<Option<(usize, usize)>, LinkError> {
        let Some(range) = self.room(own, limit, in_turn)? else { return Ok(None) };
        let out = self.outgoing.as_mut().expect("answers fit a line");
        let (offset, len) = (out.range.start + range.start, range.len());
        work(own.map.view_mut(offset, len));
        let segment = out.ring.commit(range.start, len, 1);
        out.flights.push_back(Flight::Ring(segment));
        out.in_parts = len < limit;
        out.likely = (limit <= SMALL && !in_turn).then(|| out.ring.next_within(len, NARROW));
        self.chunks_put += 1;
        Ok(Some((offset, len)))
    }

    /// Room in the ring for some of `limit` bytes. Its memory is taken when it is first used.
    fn room(
        &mut self,
        own: &Segment,
        limit: usize,
        in_turn: bool,
    ) -> Result<Option<Range<usize>>, LinkError> {
        // A few bytes more are not worth a line of their own.
        let want = if limit <= PIECE + PIECE_MIN { limit } else { PIECE };
        let out = self.outgoing.as_mut().expect("answers fit a line");
        let within = match limit {
            ..=SMALL if !out.in_parts => NARROW,
            LARGE.. => LARGE_WITHIN,
            _ => out.range.len(),
        }
        .min(out.range.len());
        if out.taken < within {
            let more = out.range.start + out.taken..out.range.start + within;
            let call = "fallocate";
            own.take(&more).map_err(|errno| LinkError::System {
                peer: self.peer,
                call,
                errno: errno.raw_os_error(),
            })?;
            out.taken = within;
        }
        let least = want.min(PIECE_MIN);
        // Two ranks that trade use two places in turn. Others may have more out, and the ring has no more room once it goes round.
        if in_turn
            && within == NARROW
            && let Some(range) = out.ring.reserve_within(want, want, 2 * want.next_multiple_of(SEGMENT_ALIGN))
        {
            return Ok(Some(range));
        }
        if !out.clogged
            && let Some(range) = out.ring.reserve_within(want, least, within)
        {
            return Ok(Some(range));
        }
        self.collect()?;
        let out = self.outgoing.as_mut().expect("answers fit a line");
        let is_half_free = out.ring.capacity() - out.ring.free() <= within / 2;
        if out.clogged && limit >= PIECE && !is_half_free {
            return Ok(None);
        }
        let range = out.ring.reserve_within(want, least, within);
        // To put and to take a little each in turn takes longer than much of each.
        out.clogged = range.is_none() && limit >= PIECE;
        Ok(range)
    }

    /// Where the bytes of the next bid go, if these are in one of the two places and it has as many.
    pub(super) fn other_place(&self, offset: usize, len: usize) -> Option<(usize, usize)> {
        let out = self.outgoing.as_ref().expect("answers fit a line");
        other_place(out.range.start, offset, len)
    }

    /// The next line tells of a loan.
    pub(super) fn fly_loan(&mut self) {
        let out = self.outgoing.as_mut().expect("answers are not lent");
        out.flights.push_back(Flight::Lent);
        out.lent += 1;
        self.chunks_put += 1;
    }

    /// Asks for the next line's memory ahead of the next put, and once after a short message for that of the next one's bytes, up to `most`
    /// of them.
    #[inline]
    pub(in super::super) fn claim_next(&mut self, own: &Segment, most: usize) {
        self.tx.claim_next();
        if let Some(out) = &mut self.outgoing
            && let Some(likely) = out.likely.take()
        {
            own.map.view_mut(out.range.start + likely.start, likely.len().min(most)).claim();
        }
    }
}

/// The other one of the two places of a trade, in a ring that begins at `start`, if `offset` is one.
pub(super) fn other_place(start: usize, offset: usize, len: usize) -> Option<(usize, usize)> {
    let pitch = len.next_multiple_of(SEGMENT_ALIGN);
    let is_place = len <= SMALL && (offset == start || offset == start + pitch);
    is_place.then(|| (2 * start + pitch - offset, len))
}
