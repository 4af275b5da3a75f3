//! Room for outgoing bytes: in a line, in the staging ring, in a link's slot, or in memory that the peer posted.

use super::ShmLinks;
use super::distance::PAST_FROM;
use super::protocol::Flight;
use crate::layout::SLOT;
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;

/// A staged piece is at least this long, or the whole of what is left: shorter ones cost more in lines than
/// they gain by starting early.
const STAGE_MIN: usize = 4096;

/// Pieces up to this are small: few lines, which a peer fetches soonest from where it found the last ones, in
/// the writer's cache. So they use the ring's first [`SMALL_WITHIN`] bytes for each peer over and over: a call may have as many out
/// towards each, and what is out of the call before is not back yet.
const SMALL: usize = 2048;
const SMALL_WITHIN: usize = 8 << 10;

/// Pieces from this on come of large messages, whose staging should leave most of the cache that both
/// cores share to the buffers. Those in between go round the whole ring: taking a line back that the peer has in its own cache
/// costs twice the copy (64 KiB: 9.8 us in the same 64 KiB each time, 4.0 round 2 MiB).
const LARGE: usize = 128 << 10;
const LARGE_WITHIN: usize = 1 << 20;

/// Refusals of the staging ring in a row before links fall back on their own slots. The ring moves larger
/// pieces, and is mostly short of room for the moment it takes a peer to read; a slot is for the case that
/// the peer can not, because it waits for what another one will get.
const REFUSALS_MAX: u32 = 64;

/// Where outgoing bytes of one pass are written.
pub(super) enum Room {
    None,
    /// In a line, by way of this rank's own memory.
    Line,
    /// At this byte of the staging memory.
    Staged(usize),
    /// In the slot of each link.
    Slots,
    /// At this byte of the one peer's segment.
    Sink(usize),
}

impl ShmLinks {
    /// Whether a line can go to each rank of `to`.
    #[inline]
    pub(super) fn has_room(&mut self, to: &[Rank]) -> Result<bool, LinkError> {
        for rank in to {
            if !self.peers.at_mut(*rank).has_room(1, &mut self.shared)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Finds room in a staging ring, asking the peers for what they have returned when it is short.
    fn stage(&mut self, want: usize, near_only: bool) -> Result<Option<core::ops::Range<usize>>, LinkError> {
        let least = want.min(STAGE_MIN);
        let within = match want {
            ..=SMALL => SMALL_WITHIN * (self.peers.ranks() - 1),
            LARGE.. => LARGE_WITHIN.min(self.call.within),
            _ => self.call.within,
        };
        if let Some(range) = self.shared.staging.reserve(want, least, within, near_only)
            && range.len() == want
        {
            return Ok(Some(range));
        }
        for peer in self.peers.iter_mut() {
            peer.collect(&mut self.shared)?;
        }
        Ok(self.shared.staging.reserve(want, least, within, near_only))
    }

    /// Where the next `want` bytes towards `to` can be written, and how many of them.
    #[inline]
    pub(super) fn room(&mut self, to: &[Rank], want: usize) -> Result<(Room, usize), LinkError> {
        if to.is_empty() {
            return Ok((Room::None, want));
        }
        if !self.has_room(to)? {
            return Ok((Room::None, 0));
        }
        if let [one] = *to
            && self.open == 0
            && let Some((offset, len)) = self.peers.at_mut(one).sink_now()
        {
            return Ok((Room::Sink(offset), want.min(len)));
        }
        if to.iter().all(|rank| want <= self.peers.at_mut(*rank).inline_bytes()) {
            return Ok((Room::Line, want));
        }
        let far = self.is_far(to);
        self.shared.past_caches = far && want >= PAST_FROM;
        if let Some(range) = self.stage(want, !far && self.has_far_peer())? {
            self.listen(to, range.len())?;
            self.shared.refusals = 0;
            return Ok((Room::Staged(range.start), range.len()));
        }
        self.shared.refusals += 1;
        let free = |rank: &Rank| self.peers.at(*rank).slot_free;
        if self.shared.refusals > REFUSALS_MAX && to.iter().all(free) {
            return Ok((Room::Slots, want.min(SLOT)));
        }
        Ok((Room::None, 0))
    }

    /// What was written to `room` goes out.
    #[inline]
    pub(super) fn dispatch(&mut self, to: &[Rank], room: &Room, line: &[u64], len: usize) {
        match *room {
            Room::None => {}
            Room::Line => {
                for rank in to {
                    self.peers.at_mut(*rank).put_data(&line[..len.div_ceil(8)], len, &self.call);
                }
            }
            Room::Staged(at) => {
                self.light(to, len);
                let flight = Flight::Staged(self.shared.staging.commit(at, len, to.len() as u32));
                let offset = self.segment.layout().staging().start + at;
                for rank in to {
                    self.peers.at_mut(*rank).put_chunk(offset, len, flight, &self.call);
                }
            }
            Room::Slots => {
                let layout = *self.segment.layout();
                let first = self.segment.map.view(layout.slot(to[0].index()), len);
                for rank in to {
                    let slot = layout.slot(rank.index());
                    if *rank != to[0] {
                        first.copy_to(self.segment.map.view_mut(slot, len));
                    }
                    self.peers.at_mut(*rank).put_chunk(slot, len, Flight::Slot, &self.call);
                }
            }
            Room::Sink(_) => self.peers.at_mut(to[0]).wrote_sink(len, &self.call),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{Layout, Segment};
    use sohu_coll_core::Signature;
    use sohu_coll_core::link::Links;
    use std::os::fd::AsFd;

    /// The links of all ranks.
    fn fabric(layout: Layout) -> Vec<ShmLinks> {
        let segments: Vec<Segment> =
            (0..layout.ranks()).map(|_| Segment::create(layout).expect("memfd works")).collect();
        let fds: Vec<_> = segments.iter().map(|segment| segment.fd().try_clone_to_owned()).collect();
        let fds: Vec<_> = fds.into_iter().map(|fd| fd.expect("a descriptor")).collect();
        let fds: Vec<_> = fds.iter().map(|fd| Some(fd.as_fd())).collect();
        let join = |(rank, own)| ShmLinks::join(Rank(rank), own, &fds).expect("they map");
        (0..).zip(segments).map(join).collect()
    }

    /// The links of rank 0, whose peers never do anything.
    pub(in crate::links) fn idle_links(layout: Layout) -> ShmLinks {
        fabric(layout).swap_remove(0)
    }

    /// The links of both of two ranks.
    pub(in crate::links) fn pair(layout: Layout) -> [ShmLinks; 2] {
        fabric(layout).try_into().expect("there are two")
    }

    #[test]
    fn short_pieces_towards_all_peers_have_room_for_two_calls() {
        let mut links = idle_links(Layout::new(8, 256 << 10, 0));
        for to in (0..2).flat_map(|_| (1..8).map(Rank)) {
            let (room, len) = links.room(&[to], SMALL).expect("the links are well");
            let Room::Staged(at) = room else { panic!("no room towards {to}") };
            assert_eq!(len, SMALL);
            let _ = links.shared.staging.commit(at, len, 1);
        }
    }

    #[test]
    fn a_call_stages_within_what_it_asked_for_and_the_next_one_in_all_there_is() {
        const WITHIN: usize = 256 << 10;
        let mut links = idle_links(Layout::new(3, 1 << 20, 0));
        // Until there is no more room; all of it comes back after that.
        let farthest = |links: &mut ShmLinks| {
            let (mut end, mut out) = (0, Vec::new());
            while let (Room::Staged(at), len) = links.room(&[Rank(1)], 64 << 10).expect("the links are well")
            {
                out.push(links.shared.staging.commit(at, len, 1));
                end = end.max(at + len);
            }
            out.into_iter().for_each(|staged| links.shared.staging.release(staged));
            end
        };
        links.try_begin(&Signature::none()).expect("the links are well");
        links.stage_within(WITHIN);
        assert_eq!(farthest(&mut links), WITHIN);
        links.try_begin(&Signature::none()).expect("the links are well");
        assert!(farthest(&mut links) > WITHIN);
    }
}
