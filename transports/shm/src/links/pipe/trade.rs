//! Bids: a message's head and first bytes, and the answer to the message that goes the other way, in one line.
//!
//! The line is one of the pipe's, and what it says of lines and chunks that were consumed is of the pipe the other way, so
//! that ranks which only trade tell each other everything with it. Invariant: answers are taken in the order in which they
//! were given, whichever way they came. An answer in a line of its own says how many bids went before it; one that came
//! with a bid is next when the answer line in front says a greater number, or there is none.

use super::outgoing::other_place;
use super::{DATA, EARLY_MAX, End, Front, Lent, MARK, MARK_SHIFT, PAYLOAD_WORDS, PipePair};
use crate::links::two::HEAD_START;
use crate::segment::Segment;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::pipe::Note;
use sohu_coll_mem::words::{after_own_stores, between_looks, head_start};
use sohu_coll_mem::{View, ViewMut};

/// A bid whose bytes are in the line, behind the answer and the head; and one that tells where they lie.
const BID: u8 = 8;
const BID_CHUNK: u8 = 9;
/// One that tells where they lie in private memory.
const BID_PRIVATE: u8 = 10;

/// Where the words of a bid lie in its line.
const ANSWER: usize = 0;
const HEAD: usize = 2;
const BYTES: usize = 4;
const HEAD_BYTES: usize = (BYTES - HEAD) * 8;

/// The most bytes that are in the line.
const INLINE_MAX: usize = (PAYLOAD_WORDS - BYTES) * 8;

/// Ranks that copy so many bytes are farther apart: 2 KiB both ways take 0.56 us and not 0.63, 4 KiB 0.83 and not 0.86.
const SLOW: core::ops::RangeInclusive<usize> = 1025..=4096;
const HEAD_START_SLOW: u32 = 16;

/// Where what they copied is asked for, own stores were waited for before.
const HEAD_START_ASKED: u32 = 3;

/// A bid that has come.
struct Bid {
    answer: Note,
    head: Note,
    bytes: Option<Front>,
    acks: (u16, u16),
}

impl PipePair {
    /// As [`Pipes::bid`](sohu_coll_core::pipe::Pipes::bid). Bytes that are `lent` stay there.
    #[inline]
    pub(in super::super) fn bid(
        &mut self,
        own: &Segment,
        [head, answer]: [Note; 2],
        bytes: View<'_>,
        lent: Option<Lent>,
        copy: fn(View<'_>, ViewMut<'_>),
    ) -> Result<Option<usize>, LinkError> {
        let Self { source, drain, .. } = self;
        if !source.has_line()? {
            return Ok(None);
        }
        let mut words = [0; PAYLOAD_WORDS];
        words[ANSWER..HEAD].copy_from_slice(&answer);
        words[HEAD..BYTES].copy_from_slice(&head);
        let mut len = bytes.len();
        let mut next = None;
        let (kind, inline) = if len <= INLINE_MAX {
            bytes.load_words(&mut words[BYTES..]);
            (BID, len as u8)
        } else {
            let (kind, place) = match lent {
                Some(lent) => {
                    source.fly_loan();
                    lent.line([BID_CHUNK, BID_PRIVATE])
                }
                None => {
                    let staged =
                        source.stage(own, len, true, &mut |room| copy(bytes.first(room.len()), room))?;
                    let Some((offset, staged)) = staged else { return Ok(None) };
                    len = staged;
                    next = source.other_place(offset, len);
                    (BID_CHUNK, offset as u64)
                }
            };
            words[BYTES..BYTES + 2].copy_from_slice(&[place, len as u64]);
            (kind, 0)
        };
        let (lines, chunks) = drain.acks();
        let put = source.tx.put_whole(kind, inline, lines, chunks, &words);
        assert!(put, "a line to {} without room", source.peer);
        self.next = next;
        self.bidden += 1;
        drain.mark = (self.bidden as u8) << MARK_SHIFT & MARK;
        Ok(Some(len))
    }

    /// As [`Pipes::deal`](sohu_coll_core::pipe::Pipes::deal). Up to `most` bytes are asked for when they are about to come.
    #[inline]
    pub(in super::super) fn deal(
        &mut self,
        (limit, most): (usize, usize),
        looks: u32,
        work: &mut dyn FnMut(Note, Note, View<'_>) -> Option<usize>,
    ) -> Result<bool, LinkError> {
        let Self { source, drain, .. } = self;
        let mut left = looks;
        if looks > 0 {
            let likely = self.theirs.filter(|(_, len)| *len == limit && limit <= most);
            if let Some((offset, len)) = likely {
                // What was asked for before the peer has stored it would be taken from it.
                after_own_stores();
                head_start(HEAD_START_ASKED);
                drain.rx.ask_next();
                drain.map.view(offset, len).ask();
            } else {
                head_start(if SLOW.contains(&limit) { HEAD_START_SLOW } else { HEAD_START });
            }
        }
        while left > 0 && drain.rx.head().is_none() && source.rx.head().is_none() {
            left -= 1;
            between_looks();
        }
        // An answer that came apart is for the ordinary way.
        if drain.front.is_some() || !self.early.is_empty() {
            return Ok(false);
        }
        let Some(bid) = drain.bid_come()? else { return Ok(false) };
        // Only now: answers that were given before the bid are there if that is.
        if source.has_come() {
            return Ok(false);
        }
        // Before any use is made of it: it may acknowledge what was never sent.
        source.absorb(bid.acks.0, bid.acks.1)?;
        let bytes = match bid.bytes {
            None => View::EMPTY,
            Some(Front::Line { start, len }) => drain.rx.payload().slice(start..start + len),
            Some(Front::Chunk { offset, len }) => drain.map.view(offset, len),
            // Whoever takes it says where to.
            Some(Front::Private { .. }) => View::EMPTY,
        };
        let came = bid.bytes.map_or(0, Front::len);
        let bytes = bytes.first(bytes.len().min(limit));
        let Some(used) = work(bid.head, bid.answer, bytes) else { return Ok(false) };
        assert!(used <= bytes.len(), "{used} of {} bytes", bytes.len());
        if let Some(front) = bid.bytes {
            self.look_out(front);
        }
        let Self { source, drain, .. } = self;
        self.heard += 1;
        if used < came {
            drain.front = bid.bytes;
            drain.at = used;
        } else {
            drain.rx.advance();
            if let Some(Front::Chunk { offset, len }) = bid.bytes {
                drain.chunks_taken += 1;
                self.theirs = other_place(drain.readable[0].start, offset, len);
                // The owner of a loan waits for it. Room in the ring comes back with the next line.
                if !drain.readable[0].contains(&offset) {
                    drain.publish();
                }
            }
        }
        // The next message is likely to be such a one, and to come soon.
        source.tx.claim_next();
        Ok(true)
    }

    /// Asks for the memory of the next bid's bytes, up to `most` of them, now that a bid has come: the peer has made that after it had read what
    /// was there.
    #[inline]
    pub(in super::super) fn claim_place(&self, own: &Segment, most: usize) {
        if let Some((offset, len)) = self.next {
            own.map.view_mut(offset, len.min(most)).claim();
        }
    }

    /// Whether there may be something to take.
    #[inline]
    pub(in super::super) fn has_come(&mut self, answers: bool) -> bool {
        self.drain.has_come() || answers && (self.source.has_come() || !self.early.is_empty())
    }

    /// Sees to a bid that is in front.
    #[inline]
    fn open(&mut self) -> Result<(), LinkError> {
        if self.drain.front.is_some() {
            return Ok(());
        }
        let Some(Bid { answer, bytes, acks, .. }) = self.drain.bid_come()? else { return Ok(()) };
        if self.early.len() == EARLY_MAX {
            return Err(self.drain.corrupt("more answers than there can be"));
        }
        self.source.absorb(acks.0, acks.1)?;
        self.early.push_back(answer);
        let inline = if let Some(Front::Line { len, .. }) = bytes { len } else { 0 };
        self.drain.front = Some(Front::Line { start: HEAD * 8, len: HEAD_BYTES + inline });
        self.drain.behind = bytes.filter(|bytes| !matches!(bytes, Front::Line { .. }));
        if let Some(chunk) = self.drain.behind {
            self.look_out(chunk);
        }
        Ok(())
    }

    /// Takes what came forward.
    #[inline]
    pub(in super::super) fn take_bytes(
        &mut self,
        limit: usize,
        work: &mut dyn FnMut(View<'_>) -> usize,
    ) -> Result<usize, LinkError> {
        self.look_for_bytes()?;
        self.drain.take(limit, work)
    }

    /// Looks what comes next, and how far away the peer is if that tells.
    #[inline]
    fn look_for_bytes(&mut self) -> Result<(), LinkError> {
        self.open()?;
        // Once for each: a second look would find the lines that the first one fetched.
        if self.drain.front.is_none()
            && let Some(front) = self.drain.look()?
        {
            self.look_out(front);
        }
        Ok(())
    }

    /// As [`Pipes::fetch`](sohu_coll_core::pipe::Pipes::fetch).
    pub(in super::super) fn fetch(&mut self, into: ViewMut<'_>) -> Result<usize, LinkError> {
        self.look_for_bytes()?;
        self.drain.fetch(into)
    }

    /// Takes what came back: the answers.
    #[inline]
    pub(in super::super) fn take_answer(
        &mut self,
        limit: usize,
        work: &mut dyn FnMut(View<'_>) -> usize,
    ) -> Result<usize, LinkError> {
        self.open()?;
        // In this order: what was given before a bid is there if the bid is.
        if self.early_at == 0 && self.is_line_next() {
            return self.source.take(limit, work);
        }
        let Some(answer) = self.early.front() else { return Ok(0) };
        let answer: [[u8; 8]; 2] = answer.map(u64::to_le_bytes);
        let answer = answer.as_flattened();
        let len = limit.min(answer.len() - self.early_at);
        let used = if len == 0 { 0 } else { work(View::from(&answer[self.early_at..self.early_at + len])) };
        assert!(used <= len, "{used} of {len} bytes");
        self.early_at += used;
        if self.early_at == answer.len() {
            self.early_at = 0;
            self.early.pop_front();
            self.heard += 1;
        }
        Ok(used)
    }

    /// Whether the answer line in front comes before all answers that came with bids and were not taken; or is none.
    #[inline]
    fn is_line_next(&mut self) -> bool {
        let heard = (self.heard as u8) << MARK_SHIFT & MARK;
        self.source.front.is_some()
            || self
                .source
                .rx
                .head()
                .is_some_and(|line| line.kind & !MARK != DATA || line.kind & MARK == heard)
    }
}

impl End {
    /// The bid that the next line is, if it is one.
    #[inline]
    fn bid_come(&mut self) -> Result<Option<Bid>, LinkError> {
        let Some(line) = self.rx.head() else { return Ok(None) };
        let (kind, inline, acks) = (line.kind, usize::from(line.len), (line.lines_ack, line.chunks_ack));
        let bytes = match kind {
            BID if inline == 0 => None,
            BID if inline <= INLINE_MAX => Some(Front::Line { start: BYTES * 8, len: inline }),
            BID => return Err(self.corrupt("a line with more bytes than a line has")),
            BID_CHUNK => {
                let place = self.place(self.rx.word(BYTES), self.rx.word(BYTES + 1));
                Some(place.ok_or(self.corrupt("a chunk that lies in no ring and no heap"))?)
            }
            BID_PRIVATE => Some(self.private(self.rx.word(BYTES), self.rx.word(BYTES + 1))?),
            _ => return Ok(None),
        };
        let note = |at| [self.rx.word(at), self.rx.word(at + 1)];
        Ok(Some(Bid { answer: note(ANSWER), head: note(HEAD), bytes, acks }))
    }
}
