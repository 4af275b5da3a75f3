//! The pipes between this rank and one peer: lines both ways, and a ring for the bytes that go forward.
//!
//! A pipe has the machinery of a link (lines, credits, a ring whose bytes come back when they are read), but it is
//! its own: nobody else's bytes are in its lines, and its ring has one reader. What fits a line travels in it. More
//! lies in the ring, or stays where it is in registered memory, and a line tells where.

mod far;
mod fetched;
mod outgoing;
mod trade;

pub(super) use fetched::{BOUNCE_BYTES, FETCHED_MIN, Lent};

use self::outgoing::Outgoing;
use super::distance::Distance;
use super::fetched::Fetched;
use super::peer::Peer;
use super::protocol::{CHUNK, DATA, PRIVATE, bounded, place_words};
use super::words_view;
use crate::layout::{ANSWER_LINES, LINE, Layout, PIPE_LINES};
use crate::map::Map;
use crate::segment::Segment;
use core::ops::Range;
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::pipe::{BIDS_MAX, Note};
use sohu_coll_mem::credit::{CreditRx, CreditTx};
use sohu_coll_mem::line::{Corrupt, LineRx, LineTx, PAYLOAD_BYTES, PAYLOAD_WORDS, catch_up};
use sohu_coll_mem::words::Mapped;
use sohu_coll_mem::{View, ViewMut};
use std::collections::VecDeque;
use std::sync::Arc;

/// Answers that came with bids and may be kept: more than a peer may have given ahead.
const EARLY_MAX: usize = BIDS_MAX + 1;

/// In the kind of a line of answers: how many bids went before it, modulo 16.
const MARK: u8 = 0x78;
const MARK_SHIFT: u32 = 3;
const _: () = assert!(EARLY_MAX < 16);

/// What the next bytes are.
#[derive(Clone, Copy)]
enum Front {
    /// In the current line, from this byte of its payload on.
    Line { start: usize, len: usize },
    /// In the peer's segment.
    Chunk { offset: usize, len: usize },
    /// In the peer's private memory.
    Private { address: u64, len: usize },
}

impl Front {
    fn len(self) -> usize {
        match self {
            Self::Line { len, .. } | Self::Chunk { len, .. } | Self::Private { len, .. } => len,
        }
    }
}

/// One end of a pipe.
pub(super) struct End {
    peer: Rank,
    tx: LineTx<Mapped>,
    rx: LineRx<Mapped>,
    credit_tx: CreditTx<Mapped>,
    credit_rx: CreditRx<Mapped>,
    /// The peer's segment.
    map: Arc<Map>,
    /// How its private memory is read, if it is.
    pub(super) fetched: Option<Fetched>,
    /// Where the peer's chunks may lie; nowhere, where it only answers.
    readable: [Range<usize>; 2],
    outgoing: Option<Outgoing>,
    chunks_put: u64,
    chunks_back: u64,
    /// Set in the kind of lines that carry answers: how many bids went before them.
    mark: u8,
    front: Option<Front>,
    /// What the same line tells of besides.
    behind: Option<Front>,
    /// Bytes of the front that were consumed.
    at: usize,
    chunks_taken: u64,
    /// What the peer was told was consumed.
    lines_told: u64,
    chunks_told: u64,
}

/// Both pipes between this rank and a peer.
pub(super) struct PipePair {
    /// This rank's end of the pipe to the peer.
    pub(super) source: End,
    /// This rank's end of the pipe from the peer.
    pub(super) drain: End,
    /// How far away the peer seems to be, as messages show it, and the lines that tell, of the peer and of this rank.
    distance: Distance,
    beacon: Mapped,
    own_beacon: Mapped,
    /// Where the bytes of the next bid are likely to go.
    next: Option<(usize, usize)>,
    /// Where those of the peer's next one are.
    theirs: Option<(usize, usize)>,
    /// How many answers went with bids, and how many that came so were taken.
    bidden: u64,
    heard: u64,
    /// Answers that came with bids and were not taken, and how many bytes of the first were.
    early: VecDeque<Note>,
    early_at: usize,
}

impl PipePair {
    pub(super) fn new(own: Rank, segment: &Segment, peer: &Peer) -> Self {
        let layout = *segment.layout();
        let (mine, theirs) = (own.index(), peer.rank.index());
        let words = |map: &Arc<Map>, at, lines| map.words(at, lines * Layout::LINE_PITCH / 8);
        let credit = |map: &Arc<Map>, at| map.words(at, LINE / 8);
        let (own, other) = (&segment.map, &peer.map);
        let beacon = |map: &Arc<Map>, reader| {
            let page = layout.beacon(reader);
            map.words(page.start, page.len() / 8)
        };
        let end = |lines: [usize; 2], source: bool, readable, outgoing| {
            let (out, back) = if source {
                (layout.pipe_lines(theirs), layout.pipe_answers(mine))
            } else {
                (layout.pipe_answers(theirs), layout.pipe_lines(mine))
            };
            End {
                peer: peer.rank,
                tx: LineTx::new(words(own, out, lines[0]), lines[0]),
                rx: LineRx::new(words(other, back, lines[1]), lines[1]),
                credit_tx: CreditTx::new(credit(own, layout.pipe_credit(theirs, source))),
                credit_rx: CreditRx::new(credit(other, layout.pipe_credit(mine, !source))),
                map: other.clone(),
                fetched: None,
                readable,
                outgoing,
                chunks_put: 0,
                chunks_back: 0,
                mark: 0,
                front: None,
                behind: None,
                at: 0,
                chunks_taken: 0,
                lines_told: 0,
                chunks_told: 0,
            }
        };
        let outgoing = Outgoing::new(layout.pipe_ring(theirs));
        Self {
            source: end([PIPE_LINES, ANSWER_LINES], true, [0..0, 0..0], Some(outgoing)),
            drain: end([ANSWER_LINES, PIPE_LINES], false, [layout.pipe_ring(mine), layout.heap()], None),
            distance: Distance::default(),
            beacon: beacon(other, mine),
            own_beacon: beacon(own, theirs),
            next: None,
            theirs: None,
            bidden: 0,
            heard: 0,
            early: VecDeque::with_capacity(EARLY_MAX),
            early_at: 0,
        }
    }

    pub(super) fn check(&mut self) -> Result<(), LinkError> {
        self.source.check()?;
        self.drain.check()
    }
}

impl End {
    fn corrupt(&self, what: &'static str) -> LinkError {
        LinkError::Corrupt { peer: self.peer, what }
    }

    /// Learns what the peer has consumed.
    fn absorb(&mut self, lines: u16, chunks: u16) -> Result<(), LinkError> {
        let wrong = |Corrupt(what)| LinkError::Corrupt { peer: self.peer, what };
        self.tx.credit(lines).map_err(wrong)?;
        let back = catch_up(self.chunks_back, chunks, self.chunks_put).map_err(wrong)?;
        while self.chunks_back < back {
            self.chunks_back += 1;
            if !self.outgoing.as_mut().is_some_and(Outgoing::land) {
                return Err(self.corrupt("acknowledges what was never sent"));
            }
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<(), LinkError> {
        let (lines, chunks) = self.credit_rx.read();
        self.absorb(lines, chunks)
    }

    fn has_line(&mut self) -> Result<bool, LinkError> {
        if self.tx.room() == 0 {
            self.collect()?;
        }
        Ok(self.tx.room() > 0)
    }

    /// As [`Pipes::put`](sohu_coll_core::pipe::Pipes::put).
    pub(super) fn put(
        &mut self,
        own: &Segment,
        limit: usize,
        work: &mut dyn FnMut(ViewMut<'_>),
    ) -> Result<usize, LinkError> {
        if limit == 0 || !self.has_line()? {
            return Ok(0);
        }
        if limit <= PAYLOAD_BYTES {
            let mut words = [0; PAYLOAD_WORDS];
            work(words_view(&mut words).first(limit));
            self.line(DATA | self.mark, limit, &words);
            return Ok(limit);
        }
        let Some((offset, len)) = self.stage(own, limit, false, work)? else { return Ok(0) };
        self.line(CHUNK, 0, &place_words(offset as u64, len));
        Ok(len)
    }

    /// What was consumed, for a line that is about to tell it.
    #[inline]
    fn acks(&mut self) -> (u16, u16) {
        self.lines_told = self.rx.consumed();
        self.chunks_told = self.chunks_taken;
        let (lines, chunks) = (self.lines_told as u16, self.chunks_told as u16);
        self.credit_tx.refresh(lines, chunks);
        (lines, chunks)
    }

    /// Puts a line; there must be room.
    #[inline]
    fn line(&mut self, kind: u8, len: usize, words: &[u64; PAYLOAD_WORDS]) {
        let (lines, chunks) = self.acks();
        let put = self.tx.put_whole(kind, len as u8, lines, chunks, words);
        assert!(put, "a line to {} without room", self.peer);
    }

    /// As [`Pipes::take`](sohu_coll_core::pipe::Pipes::take).
    pub(super) fn take(
        &mut self,
        limit: usize,
        work: &mut dyn FnMut(View<'_>) -> usize,
    ) -> Result<usize, LinkError> {
        let Some(front) = self.look()? else { return Ok(0) };
        let len = limit.min(front.len() - self.at);
        if len == 0 {
            return Ok(0);
        }
        let at = self.at;
        let bytes = match (front, &mut self.fetched) {
            (Front::Line { start, .. }, _) => self.rx.payload().slice(start + at..start + at + len),
            (Front::Chunk { offset, .. }, _) => self.map.view(offset + at, len),
            (Front::Private { address, .. }, Some(fetched)) => fetched.bounce(address + at as u64, len)?,
            (Front::Private { .. }, None) => View::EMPTY,
        };
        if bytes.is_empty() {
            return Ok(0);
        }
        let used = work(bytes);
        assert!(used <= bytes.len(), "{used} of {} bytes", bytes.len());
        self.used(used);
        Ok(used)
    }

    /// So many bytes of the front were consumed.
    #[inline]
    fn used(&mut self, len: usize) {
        let front = self.front.expect("only bytes in front are consumed");
        self.at += len;
        if self.at == front.len() {
            self.front = self.behind.take();
            self.at = 0;
            if self.front.is_none() {
                self.rx.advance();
            }
            if let Front::Chunk { .. } | Front::Private { .. } = front {
                self.chunks_taken += 1;
                // At once: the writer may wait for the room while this rank is busy with what comes behind.
                self.publish();
            }
        }
    }

    /// Whether there is something to [take](Self::take).
    #[inline]
    pub(super) fn has_come(&mut self) -> bool {
        self.front.is_some() || self.rx.head().is_some()
    }

    fn look(&mut self) -> Result<Option<Front>, LinkError> {
        if self.front.is_some() {
            return Ok(self.front);
        }
        let Some(line) = self.rx.head() else { return Ok(None) };
        let (kind, len, lines, chunks) = (line.kind, usize::from(line.len), line.lines_ack, line.chunks_ack);
        self.absorb(lines, chunks)?;
        // Answers say behind which bids they come: see `PipePair::take_answer`.
        let kind = if self.outgoing.is_some() { kind & !MARK } else { kind };
        let front = match kind {
            DATA if (1..=PAYLOAD_BYTES).contains(&len) => Front::Line { start: 0, len },
            DATA => return Err(self.corrupt("a line with more bytes than a line has")),
            CHUNK => {
                let place = self.place(self.rx.word(0), self.rx.word(1));
                place.ok_or(self.corrupt("a chunk that lies in no ring and no heap"))?
            }
            PRIVATE => self.private(self.rx.word(0), self.rx.word(1))?,
            _ => return Err(self.corrupt("a line of unknown kind")),
        };
        self.front = Some(front);
        Ok(self.front)
    }

    /// The chunk that a line names, if it lies where the peer's chunks may.
    #[inline]
    fn place(&self, offset: u64, len: u64) -> Option<Front> {
        let place = self.readable.iter().find_map(|within| bounded(offset, len, within));
        place.map(|(offset, len)| Front::Chunk { offset, len })
    }

    /// Tells the peer what was consumed, where it may be waiting to hear it and no line has told it. Returns
    /// whether it did.
    #[inline]
    pub(super) fn give_credit(&mut self) -> bool {
        let lines = self.rx.consumed();
        let due =
            self.chunks_taken != self.chunks_told || lines - self.lines_told >= (ANSWER_LINES / 4) as u64;
        if due {
            self.publish();
        }
        due
    }

    fn publish(&mut self) {
        self.lines_told = self.rx.consumed();
        self.chunks_told = self.chunks_taken;
        self.credit_tx.publish(self.lines_told as u16, self.chunks_told as u16);
    }

    /// Whether nothing lent is out.
    pub(super) fn is_clear(&mut self) -> Result<bool, LinkError> {
        let out = |end: &Self| end.outgoing.as_ref().map_or(0, |out| out.lent);
        if out(self) > 0 {
            self.collect()?;
        }
        Ok(out(self) == 0)
    }

    /// For the slow path of a wait: whether the next line's slot holds what it can hold. Also tells the peer what
    /// was consumed.
    fn check(&mut self) -> Result<(), LinkError> {
        self.publish();
        self.rx.check().map_err(|Corrupt(what)| self.corrupt(what))
    }
}
