//! The links of one rank: every peer's lines, and the staging ring and the loans that they share.

mod peer;
mod probe;

use crate::futex::SharedFutex;
use crate::heap::HeapBytes;
use crate::layout::{LINES, Layout, SLOT};
use crate::segment::{Segment, ShmError};
use peer::{Flight, Peer};
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{LinkCaps, Links, Refused, SOURCES_MAX, Sleep, Window};
use sohu_coll_core::{Rank, Signature};
use sohu_coll_mem::byte_ring::ByteRing;
use sohu_coll_mem::doorbell::Sleeper;
use sohu_coll_mem::line::PAYLOAD_WORDS;
use sohu_coll_mem::words::Mapped;
use sohu_coll_mem::{ReadSpan, View, ViewMut, WriteSpan};
use std::os::fd::BorrowedFd;

/// The most loans that are out at once, the ledger's own bound.
const LOANS_MAX: usize = sohu_coll_mem::region::SPANS_MAX;

/// Below this many bytes a message is copied even out of registered memory: a loan costs a second hand-over, for
/// its return.
const LEND_MIN: usize = 2048;

/// A staged piece is at least this long, or the whole of what is left: shorter ones cost more in lines than
/// they gain by starting early.
const STAGE_MIN: usize = 4096;

/// Refusals of the staging ring in a row before links fall back on their own slots. The ring moves larger
/// pieces, and is mostly short of room for the moment it takes a peer to read; a slot is for the case that
/// the peer can not, because it waits for what another one will get.
const REFUSALS_MAX: u32 = 64;

/// Loans to peers, each with the number of readers that have not returned it.
pub(super) struct Loans {
    slots: Box<[Option<(ReadSpan, u32)>]>,
    out: usize,
}

impl Loans {
    fn new() -> Self {
        Self { slots: (0..LOANS_MAX).map(|_| None).collect(), out: 0 }
    }

    fn book(&mut self, span: ReadSpan, readers: usize) -> Result<usize, ReadSpan> {
        let Some(index) = self.slots.iter().position(Option::is_none) else { return Err(span) };
        self.slots[index] = Some((span, readers as u32));
        self.out += 1;
        Ok(index)
    }

    fn release(&mut self, index: usize) {
        let Some((_, readers)) = &mut self.slots[index] else { return };
        *readers -= 1;
        if *readers == 0 {
            self.slots[index] = None;
            self.out -= 1;
        }
    }

    fn clear(&mut self) {
        self.slots.fill_with(|| None);
        self.out = 0;
    }
}

/// What the links to all peers have in common.
pub(super) struct Shared {
    ring: ByteRing,
    loans: Loans,
    /// How often in a row the ring had no room.
    refusals: u32,
}

/// The links of one rank over shared memory.
pub struct ShmLinks {
    rank: Rank,
    segment: Segment,
    /// By rank; `None` at this rank's own place.
    peers: Box<[Option<Peer>]>,
    shared: Shared,
    call: Signature,
    /// Peers whose signature for this call is missing or that miss ours; 0 once all is verified.
    open: u32,
    bell: Sleeper<Mapped>,
    failed: Option<LinkError>,
}

impl core::fmt::Debug for ShmLinks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ShmLinks({} of {}, {})", self.rank, self.peers.len(), self.call)
    }
}

/// Where outgoing bytes of one pass are written.
enum Room {
    None,
    /// In a line, by way of this rank's own memory.
    Line,
    /// At this byte of the staging ring.
    Staged(usize),
    /// In the slot of each link.
    Slots,
    /// At this byte of the one peer's segment.
    Sink(usize),
}

impl ShmLinks {
    /// Links `rank` with its peers: `segments[r]` is what rank r handed over (this rank's own place is ignored).
    ///
    /// # Errors
    /// Names the first peer whose segment is not what it should be, or can not be mapped.
    ///
    /// # Panics
    /// When there is not one place for each rank of the layout.
    pub fn join(
        rank: Rank,
        segment: Segment,
        segments: &[Option<BorrowedFd<'_>>],
    ) -> Result<Self, (Rank, ShmError)> {
        let layout = *segment.layout();
        assert!(segments.len() == layout.ranks(), "{} segments for {} ranks", segments.len(), layout.ranks());
        let peers = (0..).zip(segments).map(|(index, fd)| {
            let peer = Rank(index);
            if peer == rank {
                return Ok(None);
            }
            let fd = fd.ok_or_else(|| (peer, ShmError::Hostile("it handed over no segment".into())))?;
            let map = Segment::map_peer(fd, &layout).map_err(|error| (peer, error))?;
            Ok(Some(Peer::new(peer, rank, &segment, map)))
        });
        let peers: Box<[_]> = peers.collect::<Result<Vec<_>, _>>()?.into();
        Ok(Self {
            rank,
            peers,
            shared: Shared {
                ring: ByteRing::new(layout.staging().len(), LINES * layout.ranks()),
                loans: Loans::new(),
                refusals: 0,
            },
            call: Signature::none(),
            open: 0,
            bell: Sleeper::new(segment.map.words(layout.doorbell(), 8)),
            segment,
            failed: None,
        })
    }

    /// The most bytes of staging ring that messages use at once, for a layout.
    pub fn layout(&self) -> &Layout {
        self.segment.layout()
    }

    /// Whether `len` bytes at `base` lie in this rank's registered memory.
    #[inline]
    pub fn is_registered(&self, base: *const u8, len: usize) -> bool {
        self.segment.map.offset_of(base, len).is_some()
    }

    /// Takes `len` zeroed bytes of registered memory.
    ///
    /// # Errors
    /// Says what there is, when there is not enough.
    pub fn alloc(&self, len: usize) -> Result<HeapBytes, String> {
        self.segment.heap.alloc(len)
    }

    #[inline]
    fn peer(peers: &mut [Option<Peer>], rank: Rank) -> &mut Peer {
        peers[rank.index()].as_mut().expect("a program sends to and receives from peers")
    }

    fn try_verify(&mut self) -> Result<bool, LinkError> {
        let mut open = 0;
        for peer in self.peers.iter_mut().flatten() {
            peer.put_header(&self.call, &mut self.shared)?;
            if !peer.opened {
                peer.front(&self.call, &mut self.shared)?;
            }
            open += u32::from(!peer.opened || peer.header_due);
        }
        self.open = open;
        Ok(open == 0)
    }

    /// Whether a line can go to each rank of `to`.
    #[inline]
    fn has_room(&mut self, to: &[Rank]) -> Result<bool, LinkError> {
        for rank in to {
            if !Self::peer(&mut self.peers, *rank).has_room(1, &mut self.shared)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Finds room in the staging ring, asking the peers for what they have returned when it is short.
    fn stage(&mut self, want: usize) -> Result<Option<core::ops::Range<usize>>, LinkError> {
        let least = want.min(STAGE_MIN);
        if let Some(range) = self.shared.ring.reserve(want, least)
            && range.len() == want
        {
            return Ok(Some(range));
        }
        for peer in self.peers.iter_mut().flatten() {
            peer.collect(&mut self.shared)?;
        }
        Ok(self.shared.ring.reserve(want, least))
    }

    /// Where the next `want` bytes towards `to` can be written, and how many of them.
    #[inline]
    fn room(&mut self, to: &[Rank], want: usize) -> Result<(Room, usize), LinkError> {
        if to.is_empty() {
            return Ok((Room::None, want));
        }
        if !self.has_room(to)? {
            return Ok((Room::None, 0));
        }
        if let [one] = *to
            && self.open == 0
            && let Some((offset, len)) = Self::peer(&mut self.peers, one).sink_now()
        {
            return Ok((Room::Sink(offset), want.min(len)));
        }
        if to.iter().all(|rank| want <= Self::peer(&mut self.peers, *rank).inline_bytes()) {
            return Ok((Room::Line, want));
        }
        if let Some(range) = self.stage(want)? {
            self.shared.refusals = 0;
            return Ok((Room::Staged(range.start), range.len()));
        }
        self.shared.refusals += 1;
        let free = |rank: &Rank| self.peers[rank.index()].as_ref().is_some_and(|peer| peer.slot_free);
        if self.shared.refusals > REFUSALS_MAX && to.iter().all(free) {
            return Ok((Room::Slots, want.min(SLOT)));
        }
        Ok((Room::None, 0))
    }

    /// What was written to `room` goes out.
    #[inline]
    fn dispatch(&mut self, to: &[Rank], room: &Room, line: &[u64], len: usize) {
        match *room {
            Room::None => {}
            Room::Line => {
                for rank in to {
                    Self::peer(&mut self.peers, *rank).put_data(&line[..len.div_ceil(8)], len, &self.call);
                }
            }
            Room::Staged(at) => {
                let flight = Flight::Staged(self.shared.ring.commit(at, len, to.len() as u32));
                let offset = self.segment.layout().staging().start + at;
                for rank in to {
                    Self::peer(&mut self.peers, *rank).put_chunk(offset, len, flight, &self.call);
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
                    Self::peer(&mut self.peers, *rank).put_chunk(slot, len, Flight::Slot, &self.call);
                }
            }
            Room::Sink(_) => Self::peer(&mut self.peers, to[0]).put_landed(len, &self.call),
        }
    }

    fn try_pass(
        &mut self,
        from: &[Rank],
        to: &[Rank],
        limit: usize,
        granule: usize,
        work: &mut dyn FnMut(Window<'_>),
    ) -> Result<usize, LinkError> {
        let mut len = limit;
        for rank in from {
            let peer = Self::peer(&mut self.peers, *rank);
            if peer.front(&self.call, &mut self.shared)?.is_none() {
                return Ok(0);
            }
            len = len.min(peer.available());
        }
        let (room, len) = self.room(to, len)?;
        let len = len & !(granule - 1);
        if len == 0 {
            return Ok(0);
        }
        let mut line = [0u64; PAYLOAD_WORDS];
        // Few sources are the common case; a table for the most there can be costs more than a small message.
        if from.len() <= 2 {
            self.work::<2>(from, to, len, &room, &mut line, work);
        } else {
            self.work::<SOURCES_MAX>(from, to, len, &room, &mut line, work);
        }
        for rank in from {
            Self::peer(&mut self.peers, *rank).consume(len);
        }
        self.dispatch(to, &room, &line, len);
        Ok(len)
    }

    #[inline]
    fn work<const SOURCES: usize>(
        &self,
        from: &[Rank],
        to: &[Rank],
        len: usize,
        room: &Room,
        line: &mut [u64; PAYLOAD_WORDS],
        work: &mut dyn FnMut(Window<'_>),
    ) {
        let peer = |rank: Rank| self.peers[rank.index()].as_ref().expect("looked at above");
        let mut incoming = [View::EMPTY; SOURCES];
        for (view, rank) in incoming.iter_mut().zip(from) {
            *view = peer(*rank).view(len);
        }
        let outgoing = match *room {
            Room::None => None,
            Room::Line => Some(words_view(line).first(len)),
            Room::Staged(at) => Some(self.segment.map.view_mut(self.segment.layout().staging().start + at, len)),
            Room::Slots => Some(self.segment.map.view_mut(self.segment.layout().slot(to[0].index()), len)),
            Room::Sink(offset) => Some(peer(to[0]).memory(offset, len)),
        };
        work(Window { incoming: &incoming[..from.len()], outgoing });
    }

    fn try_lend(&mut self, to: &[Rank], span: ReadSpan) -> Result<(), Refused<ReadSpan>> {
        let Some(offset) = self.segment.map.offset_of(span.as_ptr(), span.len()) else {
            return Err(Refused(span));
        };
        // An error that asking for room turns up is reported by the `send` that follows a refusal.
        if span.len() < LEND_MIN || !self.has_room(to).unwrap_or(false) {
            return Err(Refused(span));
        }
        if let [one] = *to
            && self.posted(one) > 0
        {
            return Err(Refused(span));
        }
        let len = span.len();
        let loan = self.shared.loans.book(span, to.len()).map_err(Refused)?;
        for rank in to {
            Self::peer(&mut self.peers, *rank).put_chunk(offset, len, Flight::Lent(loan), &self.call);
        }
        Ok(())
    }

    /// Runs `work` unless an error came before, and remembers the error it ends with.
    #[inline]
    fn guard<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R, LinkError>) -> Result<R, LinkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = work(self);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }
}

fn words_view(words: &mut [u64; PAYLOAD_WORDS]) -> ViewMut<'_> {
    let base = words.as_mut_ptr().cast::<u8>();
    // SAFETY: the words are this many bytes, borrowed for as long as the view lives.
    unsafe { ViewMut::from_raw(base, PAYLOAD_WORDS * 8) }
}

impl Links for ShmLinks {
    fn transport(&self) -> &'static str {
        "shm"
    }

    fn rank(&self) -> Rank {
        self.rank
    }

    fn size(&self) -> u32 {
        self.peers.len() as u32
    }

    fn caps(&self, _peer: Rank) -> LinkCaps {
        LinkCaps {
            latency_ns: 100.0,
            bytes_per_ns: 10.0,
            inline_bytes: 40,
            window_bytes: self.segment.layout().staging().len(),
            lends: true,
        }
    }

    fn begin(&mut self, call: &Signature) -> Result<(), LinkError> {
        self.guard(|links| {
            links.call = *call;
            links.open = links.peers.len() as u32 - 1;
            links.peers.iter_mut().flatten().try_for_each(Peer::begin)
        })
    }

    fn verify(&mut self) -> Result<bool, LinkError> {
        if self.open == 0 && self.failed.is_none() {
            return Ok(true);
        }
        self.guard(Self::try_verify)
    }

    fn send(&mut self, to: &[Rank], bytes: View<'_>) -> Result<usize, LinkError> {
        self.guard(|links| {
            links.try_pass(&[], to, bytes.len(), 1, &mut |window| {
                if let Some(out) = window.outgoing {
                    bytes.first(out.len()).copy_to(out);
                }
            })
        })
    }

    fn recv(&mut self, from: Rank, into: ViewMut<'_>) -> Result<usize, LinkError> {
        self.guard(|links| {
            let peer = Self::peer(&mut links.peers, from);
            Ok(match peer.front(&links.call, &mut links.shared)? {
                Some(_) => peer.take_into(into),
                None => 0,
            })
        })
    }

    fn pass(
        &mut self,
        from: &[Rank],
        to: &[Rank],
        limit: usize,
        granule: usize,
        work: &mut dyn FnMut(Window<'_>),
    ) -> Result<usize, LinkError> {
        self.guard(|links| links.try_pass(from, to, limit, granule, work))
    }

    fn lend(&mut self, to: &[Rank], span: ReadSpan) -> Result<(), Refused<ReadSpan>> {
        if self.failed.is_some() { Err(Refused(span)) } else { self.try_lend(to, span) }
    }

    fn post(&mut self, from: Rank, at: u64, span: WriteSpan) -> Result<(), Refused<WriteSpan>> {
        let Some(offset) = self.segment.map.offset_of(span.as_mut_ptr(), span.len()) else {
            return Err(Refused(span));
        };
        let peer = Self::peer(&mut self.peers, from);
        let room = span.len() >= LEND_MIN && peer.may_post(at);
        if !room || self.failed.is_some() || !peer.has_room(1, &mut self.shared).unwrap_or(false) {
            return Err(Refused(span));
        }
        peer.put_sink(at, offset, span, &self.call);
        Ok(())
    }

    fn posted(&self, to: Rank) -> usize {
        if self.open != 0 {
            return 0;
        }
        self.peers[to.index()].as_ref().map_or(0, Peer::sink_len)
    }

    fn unverified(&self) -> Vec<Rank> {
        self.peers.iter().flatten().filter(|peer| !peer.opened).map(|peer| peer.rank).collect()
    }

    fn abandon(&mut self) {
        self.shared.loans.clear();
        self.peers.iter_mut().flatten().for_each(Peer::abandon);
    }

    #[inline]
    fn poll(&mut self) -> Result<bool, LinkError> {
        let mut moved = false;
        for peer in self.peers.iter_mut().flatten() {
            moved |= peer.give_credit();
        }
        Ok(moved)
    }

    fn settled(&mut self) -> Result<bool, LinkError> {
        if self.shared.loans.out == 0 {
            return Ok(true);
        }
        self.guard(|links| {
            for peer in links.peers.iter_mut().flatten() {
                peer.collect(&mut links.shared)?;
            }
            Ok(links.shared.loans.out == 0)
        })
    }

    fn ring(&mut self) {
        for peer in self.peers.iter_mut().flatten().filter(|peer| peer.ring_due) {
            peer.ring_due = false;
            peer.ringer.ring(&SharedFutex);
        }
    }

    fn check(&mut self) -> Result<(), LinkError> {
        self.guard(|links| links.peers.iter().flatten().try_for_each(Peer::check))
    }

    fn sleeper(&mut self) -> Option<&mut dyn Sleep> {
        Some(self)
    }
}

impl Sleep for ShmLinks {
    fn sleep(&mut self, nanos: u64) {
        self.bell.sleep(&SharedFutex, nanos);
    }

    fn prepare(&mut self) {
        self.bell.prepare();
    }

    fn cancel(&mut self) {
        self.bell.cancel();
    }
}
