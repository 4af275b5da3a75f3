//! The links of one rank: every peer's lines, and the staging ring and the loans that they share.

mod bell;
mod distance;
mod exchange;
mod fetched;
mod few;
mod loans;
mod owed;
mod peer;
mod peers;
mod pipe;
mod pipes;
mod probe;
mod protocol;
mod room;
mod staging;
mod swap;
mod torn;
mod two;

use crate::futex::SharedFutex;
use crate::heap::{Heap, HeapBytes};
use crate::huge::HugePages;
use crate::layout::{LINES, Layout};
use crate::segment::{Segment, ShmError};
use crate::stand_in::StandIn;
use exchange::Ahead;
use few::Few;
use loans::Loans;
use peer::Peer;
use peers::Peers;
use pipe::PipePair;
use protocol::Front;
use room::Room;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{Half, LEND_MIN, LinkCaps, Links, Met, Refused, SOURCES_MAX, Sleep, Window, Work};
use sohu_coll_core::pipe::Pipes;
use sohu_coll_core::{Rank, Signature};
use sohu_coll_mem::doorbell::Sleeper;
use sohu_coll_mem::line::PAYLOAD_WORDS;
use sohu_coll_mem::words::Mapped;
use sohu_coll_mem::{ReadSpan, View, ViewMut, WriteSpan};
use staging::Staging;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// The call that the links are in.
#[derive(Clone, Copy)]
pub(super) struct Call {
    signature: Signature,
    /// The signature as it travels.
    words: [u64; 2],
    /// Bytes of the staging ring that what is sent goes round in.
    within: usize,
}

impl Call {
    #[inline]
    fn new(signature: &Signature, words: [u64; 2]) -> Self {
        Self { signature: *signature, words, within: usize::MAX }
    }
}

/// What the links to all peers have in common.
pub(super) struct Shared {
    staging: Staging,
    loans: Loans,
    /// How often in a row the ring had no room.
    refusals: u32,
    /// Whether the bytes that `room` found a place for in the ring are best written past the caches.
    past_caches: bool,
}

/// The links of one rank over shared memory.
pub struct ShmLinks {
    rank: Rank,
    segment: Segment,
    peers: Peers,
    /// The pipes to and from every other rank, in the order of `peers`.
    pipes: Box<[PipePair]>,
    shared: Shared,
    call: Call,
    /// Which of the first two boards was used last.
    turn: usize,
    ahead: Ahead,
    /// The longest message, or rest of one, that is fetched.
    fetched_max: usize,
    huge: HugePages,
    /// Whom peers name when they read this process's memory.
    stand_in: Option<Arc<StandIn>>,
    /// Peers whose signature for this call is missing or that miss ours; 0 once all is verified.
    open: u32,
    /// In an exchange, the peers that it waits for.
    awaited: Few,
    bell: Sleeper<Mapped>,
    failed: Option<LinkError>,
}

impl core::fmt::Debug for ShmLinks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ShmLinks({} of {}, {})", self.rank, self.peers.ranks(), self.call.signature)
    }
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
        let others = (0..).map(Rank).zip(segments).filter(|(peer, _)| *peer != rank);
        let peers = others.map(|(peer, fd)| {
            let fd = fd.ok_or_else(|| (peer, ShmError::Hostile("it handed over no segment".into())))?;
            let map = Segment::map_peer(fd, &layout).map_err(|error| (peer, error))?;
            Ok(Peer::new(peer, rank, &segment, map))
        });
        let peers = Peers::new(rank, peers.collect::<Result<Vec<_>, _>>()?);
        let pipes = peers.iter().map(|peer| PipePair::new(rank, &segment, peer)).collect();
        Ok(Self {
            rank,
            peers,
            pipes,
            shared: Shared {
                staging: Staging::new(&layout, LINES * layout.ranks()),
                loans: Loans::new(),
                refusals: 0,
                past_caches: false,
            },
            call: Call::new(&Signature::none(), [0; 2]),
            turn: 0,
            ahead: Ahead::SOME,
            fetched_max: 0,
            huge: HugePages::default(),
            stand_in: None,
            open: 0,
            awaited: Few::ALL,
            bell: Sleeper::new(segment.map.words(layout.doorbell(), 8), SharedFutex::has_barrier()),
            segment,
            failed: None,
        })
    }

    /// Where things lie in this rank's segment.
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

    /// Where this rank's registered memory comes from.
    pub fn heap(&self) -> Arc<Heap> {
        self.segment.heap.clone()
    }

    #[inline]
    fn try_begin(&mut self, call: &Signature) -> Result<(), LinkError> {
        self.call = Call::new(call, call.to_words());
        self.open = self.peers.ranks() as u32 - 1;
        self.awaited = Few::ALL;
        self.peers.iter_mut().try_for_each(Peer::begin)
    }

    fn try_verify(&mut self) -> Result<bool, LinkError> {
        let mut open = 0;
        for peer in self.peers.iter_mut() {
            peer.put_header(&self.call, &mut self.shared)?;
            if !peer.opened {
                peer.front(&self.call, &mut self.shared)?;
            }
            open += u32::from(!peer.opened || peer.header_due);
        }
        self.open = open;
        Ok(open == 0)
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
            let peer = self.peers.at_mut(*rank);
            if peer.front(&self.call, &mut self.shared)?.is_none() {
                return Ok(0);
            }
            len = len.min(peer.available());
        }
        let (room, len) = self.room(to, len)?;
        let len = len & !(granule - 1);
        if len == 0 {
            return self.try_torn(from, to, limit, granule, work);
        }
        for rank in from {
            if !self.peers.at_mut(*rank).fetch(len)? {
                return Ok(0);
            }
        }
        let mut line = [0u64; PAYLOAD_WORDS];
        // Few sources are the common case; a table for the most there can be costs more than a small message.
        if from.len() <= 2 {
            self.work::<2>(from, to, len, &room, &mut line, work);
        } else {
            self.work::<SOURCES_MAX>(from, to, len, &room, &mut line, work);
        }
        for rank in from {
            self.peers.at_mut(*rank).consume(len);
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
        let mut incoming = [View::EMPTY; SOURCES];
        for (view, rank) in incoming.iter_mut().zip(from) {
            *view = self.peers.at(*rank).view(len);
        }
        let outgoing = match *room {
            Room::None => None,
            Room::Line => Some(words_view(line).first(len)),
            Room::Staged(at) => {
                Some(self.segment.map.view_mut(self.segment.layout().staging().start + at, len))
            }
            Room::Slots => Some(self.segment.map.view_mut(self.segment.layout().slot(to[0].index()), len)),
            Room::Sink(offset) => Some(self.peers.at(to[0]).memory(offset, len)),
        };
        let past_caches = match (room, from) {
            (Room::Staged(_), _) => self.shared.past_caches,
            (Room::None, [one]) => self.peers.at(*one).distance.is_far(),
            _ => false,
        };
        work(Window { incoming: &incoming[..from.len()], outgoing, past_caches });
    }

    /// Runs `work` unless an error came before, and remembers the error it ends with.
    #[inline]
    fn guard<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R, LinkError>) -> Result<R, LinkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        // Matched and not passed on whole: a result with room for an error is long, and a copy of one that was
        // stored in parts just now waits for those stores.
        match work(self) {
            Ok(moved) => Ok(moved),
            Err(error) => Err(self.fail(error)),
        }
    }

    #[cold]
    fn fail(&mut self, error: LinkError) -> LinkError {
        self.failed = Some(error.clone());
        if matches!(error, LinkError::Mismatch { .. }) {
            // Peers that have not heard of this rank's call yet find out by its signature too.
            for peer in self.peers.iter_mut() {
                let _: Result<(), LinkError> = peer.put_header(&self.call, &mut self.shared);
            }
        }
        error
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
        self.peers.ranks() as u32
    }

    fn caps(&self, _peer: Rank) -> LinkCaps {
        LinkCaps {
            latency_ns: 100.0,
            bytes_per_ns: 10.0,
            inline_bytes: 40,
            window_bytes: self.segment.layout().staging().len() - self.segment.layout().near_staging().len(),
            lends: true,
        }
    }

    fn begin(&mut self, call: &Signature) -> Result<(), LinkError> {
        self.guard(|links| links.try_begin(call))
    }

    fn stage_within(&mut self, bytes: usize) {
        self.call.within = bytes;
    }

    fn offer(&mut self, call: &Signature, to: &[Rank], bytes: View<'_>, lent: Option<ReadSpan>) -> usize {
        if to.len() + 1 != self.peers.ranks() {
            return self.guard(|links| links.offer_few(call, to, bytes)).unwrap_or(0);
        }
        self.guard(|links| links.try_offer(call, bytes, lent)).unwrap_or(0)
    }

    fn offer_blocks(&mut self, call: &Signature, to: &[Rank], blocks: &[View<'_>]) -> bool {
        self.guard(|links| links.offer_each(call, to, blocks)).unwrap_or(false)
    }

    fn meet(&mut self, from: &[Rank], len: usize, looks: u32, work: Work<'_>) -> Met {
        if self.failed.is_some() {
            return Met::Otherwise;
        }
        if from.len() + 1 != self.peers.ranks() {
            return self.meet_few(from, len, looks, work);
        }
        self.meet_all(len, looks, work)
    }

    fn exchange(
        &mut self,
        call: &Signature,
        bytes: View<'_>,
        lend: Option<&dyn Fn() -> ReadSpan>,
        looks: u32,
        work: Work<'_>,
    ) -> Option<Met> {
        self.exchange_two(call, bytes, (lend, looks), work)
    }

    fn swap(
        &mut self,
        call: &Signature,
        half: Half<'_>,
        looks: u32,
        work: &mut dyn FnMut(View<'_>, ViewMut<'_>),
    ) -> Option<Met> {
        self.try_swap(call, half, looks, work)
    }

    fn meet_swap(&mut self, len: usize, looks: u32, work: &mut dyn FnMut(View<'_>, ViewMut<'_>)) -> Met {
        if self.failed.is_some() { Met::Otherwise } else { self.meet_other(len, looks, work) }
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
            let peer = links.peers.at_mut(from);
            Ok(match peer.front(&links.call, &mut links.shared)? {
                Some(Front::Private { .. }) => peer.fetch_into(into)?,
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
        let peer = self.peers.at_mut(from);
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
        self.peers.at(to).sink_len()
    }

    fn is_unverified(&self, peer: Rank) -> bool {
        peer != self.rank && !self.peers.at(peer).opened && self.awaited.has(peer)
    }

    fn abandon(&mut self) {
        self.withdraw();
        self.shared.loans.clear();
        self.peers.iter_mut().for_each(Peer::abandon);
    }

    #[inline]
    fn poll(&mut self) -> Result<bool, LinkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut moved = false;
        for peer in self.peers.iter_mut() {
            peer.report_landed(&self.call);
            moved |= peer.give_credit();
        }
        Ok(moved)
    }

    fn settled(&mut self) -> Result<bool, LinkError> {
        if self.shared.loans.out == 0 && self.failed.is_none() {
            return Ok(true);
        }
        self.guard(|links| {
            for peer in links.peers.iter_mut() {
                peer.collect(&mut links.shared)?;
            }
            Ok(links.shared.loans.out == 0)
        })
    }

    fn ring(&mut self) {
        for peer in self.peers.iter_mut().filter(|peer| peer.ring_due) {
            peer.ring_due = false;
            peer.ringer.ring(&SharedFutex);
        }
    }

    fn check(&mut self) -> Result<(), LinkError> {
        self.guard(|links| {
            links.peers.iter_mut().try_for_each(Peer::check)?;
            links.pipes.iter_mut().try_for_each(PipePair::check)
        })
    }

    fn pipes(&mut self) -> &mut dyn Pipes {
        self
    }

    fn sleeper(&mut self) -> Option<&mut dyn Sleep> {
        Some(self)
    }
}
