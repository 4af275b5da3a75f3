//! One link: the lines to and from one peer, what they said, and what is still out because of them.

mod sinks;

use super::distance::{Distance, FAR_NOTE};
use super::fetched::{BOUNCE_BYTES, Fetched};
use super::owed::Owed;
use super::protocol::{
    BOARD, CHUNK, DATA, FIRST, FLIGHTS_MAX, Flight, Front, HEADER, LANDED, PRIVATE, SIGNATURE_WORDS, SINK,
    SINKS_MAX, SWAP, Sink, bounded,
};
use super::torn::ELEMENT_MAX;
use super::{Call, Shared};
use crate::futex::SharedFutex;
use crate::layout::{BOARD_BYTES, BOARDS, LINES, Layout};
use crate::map::Map;
use crate::segment::Segment;
use core::ops::Range;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::EXCHANGE_MAX;
use sohu_coll_core::{Rank, Signature};
use sohu_coll_mem::credit::{CreditRx, CreditTx};
use sohu_coll_mem::doorbell::Ringer;
use sohu_coll_mem::line::{Corrupt, LineRx, LineTx, PAYLOAD_BYTES, PAYLOAD_WORDS, catch_up};
use sohu_coll_mem::words::Mapped;
use sohu_coll_mem::{View, ViewMut, WriteSpan};
use std::collections::VecDeque;
use std::sync::Arc;

pub(super) struct Peer {
    pub(super) rank: Rank,
    pub(super) map: Arc<Map>,
    pub(super) layout: Layout,
    /// How its private memory is read, if it is.
    pub(super) fetched: Option<Fetched>,
    pub(super) tx: LineTx<Mapped>,
    pub(super) rx: LineRx<Mapped>,
    pub(super) credit_tx: CreditTx<Mapped>,
    pub(super) credit_rx: CreditRx<Mapped>,
    pub(super) ringer: Ringer<Mapped>,
    /// Whether the peer was sent something since it was last rung.
    pub(super) ring_due: bool,
    /// Whether this call's signature has yet to go out.
    pub(super) header_due: bool,
    pub(super) distance: Distance,
    /// Lines of the peer's segment that tell this rank how far away it is, and lines of this rank's that tell the peer.
    pub(super) beacon: Mapped,
    pub(super) own_beacon: Mapped,
    /// Bytes sent in this call.
    pub(super) out_at: u64,
    sinks: VecDeque<Sink>,
    /// Bytes written to the peer's sink that it has not been told of.
    landed_due: usize,
    pub(super) flights: VecDeque<Flight>,
    /// Whether the link's own slot holds nothing.
    pub(super) slot_free: bool,
    pub(super) chunks_put: u64,
    pub(super) chunks_back: u64,
    /// Whether the peer's signature for this call came and was equal.
    pub(super) opened: bool,
    /// What it owes for calls before this one.
    pub(super) owed: Owed,
    /// How many lines had gone when each board was last named in one: it is free once they were consumed.
    pub(super) boards: Box<[u64; BOARDS]>,
    /// Where on its boards the peer's last bytes lay.
    board: usize,
    /// Whether the line in front is the one with that signature.
    pub(super) front_is_first: bool,
    pub(super) front: Option<Front>,
    /// Bytes of the front that were consumed.
    pub(super) taken: usize,
    /// The bytes of a front that is gathered, and what is in front after it: consumed up to there.
    pub(super) gathered: [u8; ELEMENT_MAX],
    pub(super) behind: Option<(Front, usize)>,
    /// Bytes received in this call.
    pub(super) in_at: u64,
    pub(super) posted: VecDeque<(u64, WriteSpan)>,
    pub(super) chunks_taken: u64,
    /// What the peer was told was consumed.
    lines_told: u64,
    chunks_told: u64,
}

impl Peer {
    /// The link from `own` to the rank whose segment is `map`.
    pub(super) fn new(rank: Rank, me: Rank, own: &Segment, map: Arc<Map>) -> Self {
        let layout = *own.layout();
        let (mine, theirs) = (me.index(), rank.index());
        let words = LINES * Layout::LINE_PITCH / 8;
        let words_of = |map: &Arc<Map>, range: Range<usize>| map.words(range.start, range.len() / 8);
        Self {
            tx: LineTx::new(own.map.words(layout.lines(theirs), words), LINES),
            rx: LineRx::new(map.words(layout.lines(mine), words), LINES),
            credit_tx: CreditTx::new(own.map.words(layout.credit(theirs), 8)),
            credit_rx: CreditRx::new(map.words(layout.credit(mine), 8)),
            ringer: Ringer::new(map.words(layout.doorbell(), 8), SharedFutex::has_barrier()),
            beacon: words_of(&map, layout.beacon(mine)),
            own_beacon: words_of(&own.map, layout.beacon(theirs)),
            rank,
            map,
            layout,
            fetched: None,
            ring_due: false,
            header_due: false,
            distance: Distance::default(),
            out_at: 0,
            sinks: VecDeque::with_capacity(SINKS_MAX),
            landed_due: 0,
            flights: VecDeque::with_capacity(FLIGHTS_MAX),
            slot_free: true,
            chunks_put: 0,
            chunks_back: 0,
            opened: false,
            board: 0,
            owed: Owed::default(),
            boards: Box::new([0; BOARDS]),
            front_is_first: false,
            front: None,
            taken: 0,
            gathered: [0; ELEMENT_MAX],
            behind: None,
            in_at: 0,
            posted: VecDeque::with_capacity(SINKS_MAX),
            chunks_taken: 0,
            lines_told: 0,
            chunks_told: 0,
        }
    }

    pub(super) fn corrupt(&self, what: &'static str) -> LinkError {
        LinkError::Corrupt { peer: self.rank, what }
    }

    /// Forgets the last call's streams.
    #[inline]
    pub(super) fn begin(&mut self) -> Result<(), LinkError> {
        if !self.is_between_calls() {
            return Err(self.corrupt("the last call's stream was longer than its plan"));
        }
        self.reset();
        Ok(())
    }

    /// No stream has moved in this call.
    #[inline]
    pub(super) fn reset(&mut self) {
        self.header_due = true;
        self.opened = false;
        self.out_at = 0;
        self.in_at = 0;
        if !self.sinks.is_empty() {
            self.sinks.clear();
        }
    }

    /// Looks at the next bytes of this call's stream, after dealing with the lines before them.
    #[inline]
    pub(super) fn front(&mut self, ours: &Call, shared: &mut Shared) -> Result<Option<Front>, LinkError> {
        if self.front.is_some() {
            return Ok(self.front);
        }
        self.look(ours, shared)
    }

    pub(super) fn look(&mut self, ours: &Call, shared: &mut Shared) -> Result<Option<Front>, LinkError> {
        loop {
            let Some(line) = self.rx.head() else { return Ok(None) };
            let (kind, len) = (line.kind & !FIRST, usize::from(line.len));
            let (first, acks) = (line.kind & FIRST != 0, (line.lines_ack, line.chunks_ack));
            if first && self.opened && !self.front_is_first {
                return Ok(None); // the peer's next call
            }
            self.absorb(acks.0, acks.1, shared)?;
            if first && !self.opened {
                if !self.owed.is_empty() && self.hear_owed(kind)? {
                    self.next_line();
                    continue;
                }
                self.open(ours, [self.rx.word(0), self.rx.word(1)])?;
            }
            let start = if first { SIGNATURE_WORDS } else { 0 };
            let word = |index| self.rx.word(start + index);
            let front = match (kind, self.opened) {
                // A header is a call's first line, or the peer could keep us looking for ever.
                (HEADER, _) if first => None,
                (SINK, false) => None,
                (_, false) => return Err(self.corrupt("bytes beyond the end of the last call")),
                (DATA, true) => Some(self.data(start * 8, len)?),
                (CHUNK, true) => {
                    let front = self.chunk(word(0), word(1))?;
                    if let Front::Chunk { offset, len } = front
                        && self.layout.staging().contains(&offset)
                    {
                        self.look_out(len);
                    }
                    Some(front)
                }
                (PRIVATE, true) => Some(self.private(word(0), word(1))?),
                (SWAP, true) if first => {
                    let (chunk, (at, offset, len)) =
                        (self.chunk(word(0), word(1))?, (word(3), word(2), word(1)));
                    self.sink(at, offset, len)?;
                    Some(chunk)
                }
                (BOARD, true) if first => Some(self.board(word(0), word(1))?),
                (LANDED, true) => Some(self.landed(word(0))?),
                (SINK, true) => {
                    let (at, offset, len) = (word(0), word(1), word(2));
                    self.sink(at, offset, len)?;
                    None
                }
                _ => return Err(self.corrupt("a line of unknown kind")),
            };
            self.front = front;
            if front.is_some() {
                return Ok(front);
            }
            self.next_line();
        }
    }

    fn next_line(&mut self) {
        self.rx.advance();
        self.front_is_first = false;
    }

    fn open(&mut self, ours: &Call, words: [u64; 2]) -> Result<(), LinkError> {
        if words != ours.words {
            let theirs = Signature::from_words(words).ok_or(self.corrupt("a signature of no known call"))?;
            return Err(LinkError::Mismatch { peer: self.rank, ours: ours.signature, theirs });
        }
        self.opened = true;
        self.front_is_first = true;
        Ok(())
    }

    #[inline]
    pub(super) fn data(&self, start: usize, len: usize) -> Result<Front, LinkError> {
        if len == 0 || start + len > PAYLOAD_BYTES {
            return Err(self.corrupt("a line with more bytes than a line has"));
        }
        Ok(Front::Data { start, len })
    }

    #[inline]
    pub(super) fn chunk(&self, offset: u64, len: u64) -> Result<Front, LinkError> {
        let readable = self.layout.staging().start..self.map.len();
        let (offset, len) =
            bounded(offset, len, &readable).ok_or(self.corrupt("a chunk outside its segment"))?;
        Ok(Front::Chunk { offset, len })
    }

    #[inline]
    pub(super) fn board(&mut self, at: u64, len: u64) -> Result<Front, LinkError> {
        match bounded(at, len, &(0..BOARD_BYTES)) {
            Some((at, len)) if len <= EXCHANGE_MAX => {
                self.board = at;
                Ok(Front::Board { offset: self.layout.boards().start + at, len })
            }
            _ => Err(self.corrupt("bytes on a board that is not there")),
        }
    }

    /// Where the next `len` bytes on the peer's boards are likely to lie, for the first two take turns.
    #[inline]
    pub(super) fn next_board(&self, len: usize) -> View<'_> {
        let turn = usize::from(self.board < EXCHANGE_MAX);
        self.map.view(self.layout.boards().start + turn * EXCHANGE_MAX, len)
    }

    /// How many bytes of the front a pass can work on.
    #[inline]
    pub(super) fn available(&self) -> usize {
        match &self.front {
            Some(Front::Private { len, .. }) => (len - self.taken).min(BOUNCE_BYTES),
            front => front.as_ref().map_or(0, |front| front.len() - self.taken),
        }
    }

    /// The next `len` bytes of the front, in place.
    #[inline]
    pub(super) fn view(&self, len: usize) -> View<'_> {
        match self.front {
            Some(Front::Data { start, .. }) => {
                self.rx.payload().slice(start + self.taken..start + self.taken + len)
            }
            Some(Front::Chunk { offset, .. } | Front::Board { offset, .. }) => {
                self.map.view(offset + self.taken, len)
            }
            Some(Front::Private { .. }) => self.fetched.as_ref().map_or(View::EMPTY, |f| f.view(len)),
            Some(Front::Landed { .. }) => self.posted.front().map_or(View::EMPTY, |(_, span)| {
                // What landed is the start of the posted span, until it is taken.
                span.view().as_view().first(len)
            }),
            Some(Front::Gathered { .. }) => View::from(&self.gathered[self.taken..self.taken + len]),
            None => View::EMPTY,
        }
    }

    /// Copies the next bytes into `into` (or finds that they are there already) and consumes them.
    pub(super) fn take_into(&mut self, into: ViewMut<'_>) -> usize {
        let len = self.available().min(into.len());
        let bytes = self.view(len);
        if bytes.as_ptr() != into.as_mut_ptr().cast_const() {
            bytes.copy_to(into.first(len));
        }
        self.consume(len);
        len
    }

    /// The next `len` bytes of the front are done with.
    #[inline]
    pub(super) fn consume(&mut self, len: usize) {
        let front = self.front.expect("only bytes in front are consumed");
        self.taken += len;
        if !self.posted.is_empty() {
            self.land(len);
        }
        self.in_at += len as u64;
        if self.taken == front.len() {
            self.finish_front(front);
        }
    }

    /// Nothing is left of the front.
    #[inline]
    pub(super) fn finish_front(&mut self, front: Front) {
        match front {
            Front::Gathered { .. } => return self.resume(),
            Front::Chunk { .. } | Front::Private { .. } => self.chunks_taken += 1,
            Front::Data { .. } | Front::Landed { .. } | Front::Board { .. } => {}
        }
        self.taken = 0;
        self.front = None;
        self.next_line();
    }

    /// Learns what the peer has consumed.
    #[inline]
    pub(super) fn absorb(
        &mut self,
        lines_ack: u16,
        chunks_ack: u16,
        shared: &mut Shared,
    ) -> Result<(), LinkError> {
        let wrong = |Corrupt(what)| LinkError::Corrupt { peer: self.rank, what };
        self.tx.credit(lines_ack).map_err(wrong)?;
        let back = catch_up(self.chunks_back, chunks_ack, self.chunks_put).map_err(wrong)?;
        while self.chunks_back < back {
            self.chunks_back += 1;
            match self.flights.pop_front() {
                Some(Flight::Staged(staged)) => shared.staging.release(staged),
                Some(Flight::Lent(loan)) => shared.loans.release(loan),
                Some(Flight::Slot) => self.slot_free = true,
                None => return Err(self.corrupt("acknowledges what was never sent")),
            }
        }
        Ok(())
    }

    /// Reads the peer's credit word.
    pub(super) fn collect(&mut self, shared: &mut Shared) -> Result<(), LinkError> {
        let (lines, chunks) = self.credit_rx.read();
        self.distance.told = self.credit_rx.note() == FAR_NOTE;
        self.absorb(lines, chunks, shared)
    }

    /// Whether `lines` lines can go out now.
    #[inline]
    pub(super) fn has_room(&mut self, lines: usize, shared: &mut Shared) -> Result<bool, LinkError> {
        if self.tx.room() < lines {
            self.collect(shared)?;
        }
        Ok(self.tx.room() >= lines)
    }

    /// Whether the last call is over and a line can go out now, as far as this rank knows.
    #[inline]
    pub(super) fn may_offer(&self) -> bool {
        self.tx.room() > 0 && self.is_between_calls()
    }

    #[inline]
    fn is_between_calls(&self) -> bool {
        self.front.is_none() && self.posted.is_empty()
    }

    /// Most bytes that the next line can carry.
    #[inline]
    pub(super) fn inline_bytes(&self) -> usize {
        if self.header_due { PAYLOAD_BYTES - SIGNATURE_WORDS * 8 } else { PAYLOAD_BYTES }
    }

    /// Puts one line; there must be room.
    #[inline]
    pub(super) fn put(&mut self, kind: u8, len: usize, words: &[u64], ours: &Call) {
        self.lines_told = self.rx.consumed();
        self.chunks_told = self.chunks_taken;
        let (lines, chunks) = (self.lines_told as u16, self.chunks_told as u16);
        self.credit_tx.refresh(lines, chunks);
        let len = len as u8;
        let put = if self.header_due {
            self.header_due = false;
            self.tx.put_parts(kind | FIRST, len, lines, chunks, [&ours.words, words])
        } else {
            self.tx.put_words(kind, len, lines, chunks, words)
        };
        assert!(put, "a line to {} without room", self.rank);
        self.ring_due = true;
    }

    /// Puts the first line of an exchange, with the signature and the bytes (`inline` of them), or where they are;
    /// there must be room.
    #[inline(always)]
    pub(super) fn put_first(&mut self, kind: u8, words: &[u64; PAYLOAD_WORDS], inline: u8) {
        self.lines_told = self.rx.consumed();
        self.chunks_told = self.chunks_taken;
        let (lines, chunks) = (self.lines_told as u16, self.chunks_told as u16);
        self.credit_tx.refresh(lines, chunks);
        let put = self.tx.put_whole(FIRST | kind, inline, lines, chunks, words);
        assert!(put, "a line to {} without room", self.rank);
        self.ring_due = true;
    }

    /// Puts the signature alone, if it has not gone out and there is room.
    #[inline]
    pub(super) fn put_header(&mut self, ours: &Call, shared: &mut Shared) -> Result<(), LinkError> {
        if self.header_due && self.has_room(1, shared)? {
            self.put(HEADER, 0, &[], ours);
        }
        Ok(())
    }

    /// Puts a chunk that lies in this rank's segment; there must be room.
    pub(super) fn put_chunk(&mut self, offset: usize, len: usize, flight: Flight, ours: &Call) {
        if matches!(flight, Flight::Slot) {
            self.slot_free = false;
        }
        self.fly(flight);
        self.out_at += len as u64;
        self.put(CHUNK, 0, &[offset as u64, len as u64], ours);
    }

    /// A chunk is about to go out, and this comes back with its acknowledgement.
    #[inline]
    pub(super) fn fly(&mut self, flight: Flight) {
        self.flights.push_back(flight);
        self.chunks_put += 1;
    }

    /// Puts bytes of the stream; they must fit.
    #[inline]
    pub(super) fn put_data(&mut self, words: &[u64], len: usize, ours: &Call) {
        self.out_at += len as u64;
        self.put(DATA, len, words, ours);
    }

    /// The peer's memory at `offset`, bounded when the peer named it.
    pub(super) fn memory(&self, offset: usize, len: usize) -> ViewMut<'_> {
        self.map.view_mut(offset, len)
    }

    /// Tells the peer what was consumed, where it may be waiting to hear it and no line has told it.
    /// Returns whether it did.
    #[inline]
    pub(super) fn give_credit(&mut self) -> bool {
        let lines = self.rx.consumed();
        let due = self.chunks_taken != self.chunks_told || lines - self.lines_told >= (LINES / 4) as u64;
        if due {
            self.publish_credit();
        }
        due
    }

    #[inline]
    pub(super) fn publish_credit(&mut self) {
        self.lines_told = self.rx.consumed();
        self.chunks_told = self.chunks_taken;
        self.credit_tx.publish(self.lines_told as u16, self.chunks_told as u16);
        self.ring_due = true;
    }

    /// The peer's words for the probes.
    pub(super) fn probe_words(&self, at: usize) -> Mapped {
        self.map.words(at, 8)
    }

    /// For the slow path of a wait: whether the next line's slot holds what it can hold. Also tells the peer
    /// what was consumed in a way that it can not miss: it may wait for room, with the lines that
    /// told it behind one that it can not take yet.
    pub(super) fn check(&mut self) -> Result<(), LinkError> {
        self.publish_credit();
        self.rx.check().map_err(|Corrupt(what)| self.corrupt(what))
    }

    /// Drops the spans of posted memory.
    pub(super) fn abandon(&mut self) {
        self.posted.clear();
    }
}
