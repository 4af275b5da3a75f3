//! One pipe, on one side: its transfers one after the other.
//!
//! The sender puts the head of a message and its first [`EAGER_BYTES`] at once, and the rest when it knows that the receiver
//! accepts it; or all of it at once if it lends it, and says so in the head. The receiver says what it expects as soon as it has begun, which is its answer whatever comes: each side
//! compares what the other one said with what it made itself, and both come to the same. Of a message that it refuses, the
//! receiver takes as much as a sender puts that does not know, and forgets it. So both sides know, without another word,
//! where the next message begins.
//!
//! Where calls join others that are going on, a call begins in a pipe when that is clear of the call before it: else what is
//! lent for one call could stay out for want of a receiver for the next, and the first would not end. It costs nothing but
//! time: the receiver has accepted the first, so it takes the bytes.

use super::record::{Arriving, Kind, RECORD_BYTES, Record};
use super::{Bytes, Item, State, Transfer, Verdict, Way};
use crate::error::LinkError;
use crate::kernel::{self, Store};
use crate::link::{FETCH_MIN, LEND_MIN};
use crate::pipe::{Pipes, STRAND_BYTES_MIN, Strand};
use crate::rank::Rank;
use core::ops::Range;
use sohu_coll_mem::{View, ViewMut};

/// Bytes of a message that go ahead of the receiver's answer, unless it is lent: enough that moving them takes longer than an answer does.
pub(super) const EAGER_BYTES: usize = 64 << 10;

/// Messages of one pipe that may be without an answer: their answers fit the strand whatever the sender does meanwhile.
const AHEAD_MAX: usize = STRAND_BYTES_MIN / RECORD_BYTES / 2;

/// Pieces that move before it is the turn of other pipes: a rank that goes on taking as long as there is something would keep the
/// next one waiting for what it has to give, or for an answer that has come.
const TURN: usize = 8;

/// The most bytes that are taken at once, and end a turn. What is lent has no end of its own: of two ranks that lend each other
/// long messages, one would wait while the other one copies, and then change places with it.
const TAKE_MAX: usize = 96 << 10;

/// The most that is fetched at once, and ends a turn too: 512 KiB take 22 us so, and 25 in parts of 96. So long a copy of the kernel's takes
/// 0.4 ms, in which this rank looks at nothing else; twice as much gains nothing, a quarter loses 5 %.
pub(super) const FETCH_MAX: usize = 4 << 20;

/// Fewer bytes go through the caches, however far.
const FAR_MIN: usize = 4 << 10;

/// One pipe's part of the calls that are going on.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) peer: Rank,
    pub(super) way: Way,
    /// The last item that is in it; of no meaning once all are over.
    last: usize,
    /// The item whose bytes move, or whose head is next.
    moving: Option<usize>,
    /// The oldest item whose answer was not heard, or was not given, and its number; and of sends, how many that have begun
    /// have none.
    unanswered: Option<usize>,
    answered: u32,
    ahead: usize,
    /// Of sends: the oldest item that is not known to be clear; `moving`, where all before that are.
    unclear: Option<usize>,
    /// How many messages went through the pipe before `moving`, modulo 2^32.
    sequence: u32,
    arriving: Arriving,
    /// From how many bytes on a message is stored past the caches.
    past_from: usize,
    /// Whether nothing of the calls is left in this rank's private memory.
    pub(super) clear: bool,
    /// Whether something may have ended since somebody looked.
    pub(super) ended: bool,
}

impl Route {
    /// A route without items, before message number `sequence` of its pipe, that stores messages of `past_from` bytes and more past
    /// the caches.
    pub(super) fn new(peer: Rank, way: Way, sequence: u32, past_from: usize) -> Self {
        Self {
            peer,
            way,
            last: 0,
            moving: None,
            unanswered: None,
            answered: sequence,
            ahead: 0,
            unclear: None,
            sequence,
            arriving: Arriving::default(),
            past_from,
            clear: true,
            ended: false,
        }
    }

    /// Adds item `index` of a call, which has these items.
    pub(super) fn append(&mut self, states: &mut [State], index: usize, call: &Range<usize>) {
        let open = [self.moving, self.unanswered, self.unclear].iter().any(Option::is_some);
        // Else the last item is over, and its place may be that of another.
        if open {
            states[self.last].next = Some(index);
        }
        states[index].leads = !open || !call.contains(&self.last);
        self.last = index;
        self.moving.get_or_insert(index);
        self.unanswered.get_or_insert(index);
        if self.way == Way::Send {
            self.unclear.get_or_insert(index);
        }
        self.clear = false;
    }

    /// Goes on with its one item, which may have begun before it was added: the answer to a receive was given; `moved` bytes were put or
    /// came, if the head did; and the ranks may be known to agree.
    pub(super) fn resume(&mut self, state: &mut State, moved: Option<usize>, agreed: bool) {
        state.begun = moved.is_some();
        state.at = moved.unwrap_or(0);
        if agreed {
            state.verdict = Some(Verdict::Accepted);
        }
        match self.way {
            Way::Send => self.ahead = usize::from(state.begun && !agreed),
            Way::Recv => state.clear = true,
        }
        if agreed || self.way == Way::Recv {
            self.unanswered = None;
            self.answered = self.answered.wrapping_add(1);
        }
    }

    /// Whether all its items are through and known to both ranks.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.moving.is_none() && self.unanswered.is_none()
    }

    /// The item that keeps it from being done.
    pub(super) fn waits_for(&self) -> usize {
        let (behind, ahead) = match self.way {
            Way::Send => (self.unanswered, self.moving),
            Way::Recv => (self.moving, self.unanswered),
        };
        behind.or(ahead).unwrap_or(self.last)
    }

    /// Whether nothing is left of the calls, now that all items are through.
    pub(super) fn is_clear(
        &mut self,
        states: &mut [State],
        pipes: &mut dyn Pipes,
    ) -> Result<bool, LinkError> {
        if !self.clear {
            self.clear = self.settle(states, pipes)? && pipes.is_clear(self.peer)?;
        }
        Ok(self.clear)
    }

    /// Finds out what is clear of what was put.
    #[inline]
    pub(super) fn settle(&mut self, states: &mut [State], pipes: &mut dyn Pipes) -> Result<bool, LinkError> {
        if self.way == Way::Recv || self.unclear == self.moving {
            return Ok(true);
        }
        if !pipes.is_clear(self.peer)? {
            return Ok(false);
        }
        while self.unclear != self.moving
            && let Some(index) = self.unclear
        {
            states[index].clear = true;
            self.unclear = states[index].next;
        }
        self.clear = self.moving.is_none();
        self.ended = true;
        Ok(true)
    }

    /// Does everything that can be done now. Returns whether anything moved.
    #[inline]
    pub(super) fn advance(
        &mut self,
        items: &mut [Item<'_>],
        states: &mut [State],
        pipes: &mut dyn Pipes,
    ) -> Result<bool, LinkError> {
        match self.way {
            Way::Send => Ok(self.give(items, states, pipes)? | self.hear(items, states, pipes)?),
            Way::Recv => Ok(self.answer(items, states, pipes)? | self.get(items, states, pipes)?),
        }
    }

    /// Takes the answers that have come.
    fn hear(
        &mut self,
        items: &[Item<'_>],
        states: &mut [State],
        pipes: &mut dyn Pipes,
    ) -> Result<bool, LinkError> {
        let mut moved = false;
        while let Some(index) = self.unanswered.filter(|index| states[*index].begun) {
            let mut whole = None;
            let missing = self.arriving.missing();
            let taken = pipes.take(self.peer, Strand::Answers, missing, &mut |bytes| {
                let (used, record) = self.arriving.push(bytes);
                whole = record;
                used
            })?;
            if taken == 0 {
                break;
            }
            let Some(answer) = whole else { continue };
            let answer = Record::from_bytes(answer, Kind::Answer, self.answered, self.peer)?;
            let (transfer, state) = (&items[index].transfer, &mut states[index]);
            let equal = (answer.dtype, answer.count) == (transfer.dtype, transfer.count);
            state.verdict =
                Some(if equal { Verdict::Accepted } else { Verdict::Refused(answer.dtype, answer.count) });
            self.unanswered = state.next;
            self.answered = self.answered.wrapping_add(1);
            self.ahead -= 1;
            self.ended = true;
            moved = true;
        }
        Ok(moved)
    }

    /// Puts what there is room for.
    fn give(
        &mut self,
        items: &mut [Item<'_>],
        states: &mut [State],
        pipes: &mut dyn Pipes,
    ) -> Result<bool, LinkError> {
        let mut moved = 0;
        while let Some(index) = self.moving
            && moved < TURN
        {
            let item = &items[index];
            let len = item.len();
            let Bytes::Out(bytes) = &item.bytes else { unreachable!("a send has bytes to give") };
            let bytes = View::from(*bytes);
            if !states[index].begun {
                states[index].goes_ahead = goes_ahead(self.peer, bytes, pipes);
            }
            let state = states[index];
            let is_all = state.goes_ahead || state.verdict == Some(Verdict::Accepted);
            let goal = if is_all { len } else { len.min(EAGER_BYTES) };
            if state.begun && state.at == goal {
                if state.verdict.is_none() && goal < len {
                    break;
                }
                states[index].moved = true;
                self.moving = state.next;
                self.sequence = self.sequence.wrapping_add(1);
                continue;
            }
            if !state.begun && (self.ahead == AHEAD_MAX || state.leads && !self.settle(states, pipes)?) {
                break;
            }
            let put = match state.begun {
                false => self.open(item, &state, bytes.first(goal), pipes)?,
                true => put(self.peer, bytes.slice(state.at..goal), pipes)?,
            };
            if put == 0 {
                break;
            }
            moved += 1;
            let state = &mut states[index];
            if state.begun {
                state.at += put;
            } else {
                state.begun = true;
                state.at = put - RECORD_BYTES;
                // The answer may have come before there was room.
                self.ahead += usize::from(state.verdict.is_none());
            }
        }
        Ok(moved > 0)
    }

    /// Puts the head of a message, and of its first bytes what fits with it.
    fn open(
        &self,
        item: &Item<'_>,
        state: &State,
        first: View<'_>,
        pipes: &mut dyn Pipes,
    ) -> Result<usize, LinkError> {
        let head = Record::of(Kind::Head, &item.transfer, self.sequence);
        let head = Record { goes_ahead: state.goes_ahead, ..head }.to_bytes();
        // Bytes that are lent go alone.
        let alone = first.len() >= LEND_MIN && pipes.lends(self.peer, first);
        let first = if alone { View::EMPTY } else { first };
        put_head(self.peer, &head, first, pipes)
    }

    /// Takes what has come.
    fn get(
        &mut self,
        items: &mut [Item<'_>],
        states: &mut [State],
        pipes: &mut dyn Pipes,
    ) -> Result<bool, LinkError> {
        let mut moved = 0;
        while let Some(index) = self.moving
            && moved < TURN
        {
            let (item, state) = (&mut items[index], &mut states[index]);
            let begun = state.begun;
            let missing = goal(item.len(), state) - state.at;
            let store = store_long(item.len(), self.past_from);
            if !begun || missing > 0 {
                // A head in one go with what came behind it: most messages are short.
                let head = if begun { 0 } else { self.arriving.missing() };
                let mut wrong = None;
                let fetched = match begun {
                    true => fetch(self.peer, item, state, missing, pipes)?,
                    false => 0,
                };
                let taken = if fetched > 0 {
                    fetched
                } else {
                    pipes.take(self.peer, Strand::Bytes, head + missing.min(TAKE_MAX), &mut |view| {
                        if begun {
                            return fill(item, state, view, store);
                        }
                        let (used, head) = self.arriving.push(view);
                        let Some(head) = head else { return used };
                        match Record::from_bytes(head, Kind::Head, self.sequence, self.peer) {
                            Ok(head) => {
                                look(&item.transfer, state, head);
                                used + fill(item, state, view.slice(used..view.len()), store)
                            }
                            Err(error) => {
                                wrong = Some(error);
                                used
                            }
                        }
                    })?
                };
                if let Some(error) = wrong {
                    return Err(error);
                }
                if taken == 0 {
                    break;
                }
                moved += if taken < TAKE_MAX { 1 } else { TURN };
            }
            if state.begun && state.at == goal(item.len(), state) {
                state.moved = true;
                self.ended = true;
                self.moving = state.next;
                self.sequence = self.sequence.wrapping_add(1);
            }
        }
        Ok(moved > 0)
    }

    /// Answers messages that have come, and some that have not.
    #[inline]
    fn answer(
        &mut self,
        items: &[Item<'_>],
        states: &mut [State],
        pipes: &mut dyn Pipes,
    ) -> Result<bool, LinkError> {
        let mut moved = false;
        while let Some(index) = self.unanswered {
            // The sender has heard all answers but those of the messages that it is ahead.
            if self.answered.wrapping_sub(self.sequence).cast_signed() >= AHEAD_MAX as i32 {
                break;
            }
            let answer = Record::of(Kind::Answer, &items[index].transfer, self.answered).to_bytes();
            let put = put_answer(self.peer, &answer, pipes)?;
            if put == 0 {
                break;
            }
            states[index].clear = true;
            self.ended = true;
            self.unanswered = states[index].next;
            self.answered = self.answered.wrapping_add(1);
            moved = true;
        }
        Ok(moved)
    }
}

/// Compares the head of the message that came with what is expected.
fn look(expected: &Transfer, state: &mut State, head: Record) {
    let equal = (head.dtype, head.count) == (expected.dtype, expected.count);
    state.verdict = Some(if equal { Verdict::Accepted } else { Verdict::Refused(head.dtype, head.count) });
    state.goes_ahead = head.goes_ahead;
    state.begun = true;
}

/// Takes what came of the message, or forgets it. Says how many bytes are of this message.
#[inline]
fn fill(item: &mut Item<'_>, state: &mut State, view: View<'_>, store: Store) -> usize {
    let (at, count) = (state.at, view.len().min(goal(item.len(), state) - state.at));
    if state.verdict == Some(Verdict::Accepted)
        && let Bytes::In(bytes) = &mut item.bytes
    {
        kernel::copy(view.first(count), ViewMut::from(&mut bytes[at..at + count]), None, store);
    }
    state.at += count;
    count
}

/// Has the bytes that come next moved to where they go, if the pipe does that itself. Says how many were.
fn fetch(
    peer: Rank,
    item: &mut Item<'_>,
    state: &mut State,
    missing: usize,
    pipes: &mut dyn Pipes,
) -> Result<usize, LinkError> {
    let (Some(Verdict::Accepted), Bytes::In(bytes)) = (state.verdict, &mut item.bytes) else { return Ok(0) };
    // Short ones are always copied.
    if bytes.len() < FETCH_MIN {
        return Ok(0);
    }
    let into = &mut bytes[state.at..state.at + missing.min(FETCH_MAX)];
    let fetched = pipes.fetch(peer, ViewMut::from(into))?;
    state.at += fetched;
    Ok(fetched)
}

/// How many bytes of a message come for a receive of `len` bytes, once its head was looked at.
fn goal(len: usize, state: &State) -> usize {
    match state.verdict {
        // What the sender puts before it knows. No overflow: a record's count is bounded.
        Some(Verdict::Refused(dtype, count)) => {
            let len = (count * dtype.size() as u64) as usize;
            if state.goes_ahead { len } else { len.min(EAGER_BYTES) }
        }
        _ => len,
    }
}

/// Whether all bytes of a message go ahead of the answer: those of a long one that is lent, since they take no room.
#[inline]
pub(super) fn goes_ahead(peer: Rank, bytes: View<'_>, pipes: &dyn Pipes) -> bool {
    bytes.len() > EAGER_BYTES && pipes.lends(peer, bytes)
}

/// Puts or lends bytes of a message that has begun.
fn put(peer: Rank, bytes: View<'_>, pipes: &mut dyn Pipes) -> Result<usize, LinkError> {
    if bytes.len() >= LEND_MIN && pipes.lends(peer, bytes) {
        return Ok(if pipes.lend(peer, bytes)? { bytes.len() } else { 0 });
    }
    let store = store(peer, bytes.len(), pipes);
    pipes.put(peer, Strand::Bytes, bytes.len(), &mut |room| {
        kernel::copy(bytes.first(room.len()), room, None, store);
    })
}

/// Puts the head of a message and what fits of its `first` bytes with it, or nothing. Says how many bytes.
#[inline]
pub(super) fn put_head(
    peer: Rank,
    head: &[u8; RECORD_BYTES],
    first: View<'_>,
    pipes: &mut dyn Pipes,
) -> Result<usize, LinkError> {
    let store = store(peer, first.len(), pipes);
    pipes.put(peer, Strand::Bytes, RECORD_BYTES + first.len(), &mut |room| {
        View::from(&head[..]).copy_to(room.first(RECORD_BYTES));
        let room = room.slice(RECORD_BYTES..room.len());
        kernel::copy(first.first(room.len()), room, None, store);
    })
}

/// Puts an answer, or nothing. Says how many bytes.
#[inline]
pub(super) fn put_answer(
    peer: Rank,
    answer: &[u8; RECORD_BYTES],
    pipes: &mut dyn Pipes,
) -> Result<usize, LinkError> {
    pipes.put(peer, Strand::Answers, RECORD_BYTES, &mut |room| View::from(&answer[..]).copy_to(room))
}

/// How a message of `len` bytes is stored where it is received.
#[inline]
pub(super) fn store_long(len: usize, past_from: usize) -> Store {
    if len >= past_from { Store::Streaming } else { Store::Cached }
}

/// How bytes are stored that are put towards `peer`.
#[inline]
pub(super) fn store(peer: Rank, bytes: usize, pipes: &dyn Pipes) -> Store {
    if bytes >= FAR_MIN && pipes.is_far(peer) { Store::Streaming } else { Store::Cached }
}
