//! One pipe, on one side: its transfers one after the other.
//!
//! The sender puts the head of a message and its first [`EAGER_BYTES`] at once, and the rest when the receiver has
//! accepted it. The receiver answers as soon as it has compared the head; of a message that it refuses, it takes what the
//! sender put before it could know, and forgets it. So both sides know, without another word, where the next
//! message begins.
//!
//! Where calls join others that are going on, a call begins in a pipe when that is clear of the call before it: else what is
//! lent for one call could stay out for want of a receiver for the next, and the first would not end. It costs nothing but
//! time: the receiver has accepted the first, so it takes the bytes.

use super::record::{Arriving, Kind, RECORD_BYTES, Record};
use super::{Bytes, Item, State, Transfer, Verdict, Way};
use crate::error::LinkError;
use crate::kernel::{self, Store};
use crate::link::LEND_MIN;
use crate::pipe::{Pipes, STRAND_BYTES_MIN, Strand};
use crate::rank::Rank;
use core::ops::Range;
use sohu_coll_mem::{View, ViewMut};

/// Bytes of a message that go ahead of the receiver's answer: enough that moving them takes longer than an answer does.
pub(super) const EAGER_BYTES: usize = 16 << 10;

/// Messages of one pipe that may be without an answer: their answers fit the strand whatever the sender does meanwhile.
const AHEAD_MAX: usize = STRAND_BYTES_MIN / RECORD_BYTES / 2;

/// Pieces that move before it is the turn of other pipes: a rank that goes on taking as long as there is something would keep the
/// next one waiting for what it has to give.
const TURN: usize = 8;

/// One pipe's part of the calls that are going on.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) peer: Rank,
    way: Way,
    /// The last item that is in it; of no meaning once all are over.
    last: usize,
    /// The item whose bytes move, or whose head is next.
    moving: Option<usize>,
    /// Of sends: the oldest item without an answer, its number, and how many have none.
    unanswered: Option<usize>,
    answered: u32,
    ahead: usize,
    /// Of sends: the oldest item that is not known to be clear; `moving`, where all before that are.
    unclear: Option<usize>,
    /// How many messages went through the pipe before `moving`, modulo 2^32.
    sequence: u32,
    arriving: Arriving,
    /// An answer that there was no room for, and the item that it is about.
    due: Option<(Record, usize)>,
    /// Whether nothing of the calls is left in this rank's private memory.
    pub(super) clear: bool,
    /// Whether something may have ended since somebody looked.
    pub(super) ended: bool,
}

impl Route {
    /// A route without items, before message number `sequence` of its pipe.
    pub(super) fn new(peer: Rank, way: Way, sequence: u32) -> Self {
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
            due: None,
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
        if self.way == Way::Send {
            self.unanswered.get_or_insert(index);
            self.unclear.get_or_insert(index);
        }
        self.clear = false;
    }

    /// Whether all its items are through and known to both ranks.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.moving.is_none() && self.unanswered.is_none() && self.due.is_none()
    }

    /// The item that keeps it from being done.
    pub(super) fn waits_for(&self) -> usize {
        self.unanswered.or(self.moving).or(self.due.map(|(_, index)| index)).unwrap_or(self.last)
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
            Way::Send => Ok(self.hear(items, states, pipes)? | self.give(items, states, pipes)?),
            Way::Recv => self.get(items, states, pipes),
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
            let answer = self.arriving.take(pipes, self.peer, Kind::Answer, self.answered)?;
            let Some(answer) = answer else { break };
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
            let state = states[index];
            let goal = if state.verdict == Some(Verdict::Accepted) { len } else { len.min(EAGER_BYTES) };
            if state.begun && state.at == goal {
                if state.verdict.is_none() && len > EAGER_BYTES {
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
                false => self.open(item, bytes.first(goal), pipes)?,
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
                self.ahead += 1;
            }
        }
        Ok(moved > 0)
    }

    /// Puts the head of a message, and of its first bytes what fits with it.
    fn open(&self, item: &Item<'_>, first: View<'_>, pipes: &mut dyn Pipes) -> Result<usize, LinkError> {
        let transfer = &item.transfer;
        let (dtype, count) = (transfer.dtype, transfer.count);
        let head = Record { kind: Kind::Head, dtype, count, sequence: self.sequence }.to_bytes();
        // Bytes that are lent go alone.
        let alone = first.len() >= LEND_MIN && pipes.lends(first);
        let limit = RECORD_BYTES + if alone { 0 } else { first.len() };
        pipes.put(self.peer, Strand::Bytes, limit, &mut |room| {
            View::from(&head[..]).copy_to(room.first(RECORD_BYTES));
            let room = room.slice(RECORD_BYTES..room.len());
            kernel::copy(first.first(room.len()), room, None, Store::Cached);
        })
    }

    /// Answers, and takes what has come.
    fn get(
        &mut self,
        items: &mut [Item<'_>],
        states: &mut [State],
        pipes: &mut dyn Pipes,
    ) -> Result<bool, LinkError> {
        let mut moved = usize::from(self.answer(states, pipes)?);
        while let Some(index) = self.moving
            && moved < TURN
        {
            if !states[index].begun {
                if self.due.is_some() {
                    break;
                }
                let head = self.arriving.take(pipes, self.peer, Kind::Head, self.sequence)?;
                let Some(head) = head else { break };
                self.due = Some((look(&items[index].transfer, &mut states[index], head), index));
                self.answer(states, pipes)?;
                moved += 1;
            }
            let (item, state) = (&mut items[index], &mut states[index]);
            let goal = goal(item.len(), state);
            if state.at < goal {
                let (at, accepted) = (state.at, state.verdict == Some(Verdict::Accepted));
                let taken = pipes.take(self.peer, Strand::Bytes, goal - at, &mut |view| {
                    if let (true, Bytes::In(bytes)) = (accepted, &mut item.bytes) {
                        let into = ViewMut::from(&mut bytes[at..at + view.len()]);
                        kernel::copy(view, into, None, Store::Cached);
                    }
                })?;
                if taken == 0 {
                    break;
                }
                state.at += taken;
                moved += 1;
            }
            if state.at == goal {
                state.moved = true;
                self.ended = true;
                self.moving = state.next;
                self.sequence = self.sequence.wrapping_add(1);
            }
        }
        Ok(moved > 0)
    }

    /// Puts the answer that is due.
    fn answer(&mut self, states: &mut [State], pipes: &mut dyn Pipes) -> Result<bool, LinkError> {
        let Some((answer, index)) = self.due else { return Ok(false) };
        let bytes = answer.to_bytes();
        let put = pipes.put(self.peer, Strand::Answers, RECORD_BYTES, &mut |room| {
            View::from(&bytes[..]).copy_to(room);
        })?;
        if put > 0 {
            self.due = None;
            states[index].clear = true;
            self.ended = true;
        }
        Ok(put > 0)
    }
}

/// Compares the head of the message that came with what is expected, and says what to answer.
fn look(transfer: &Transfer, state: &mut State, head: Record) -> Record {
    let Transfer { dtype, count, .. } = *transfer;
    let equal = (head.dtype, head.count) == (dtype, count);
    state.verdict = Some(if equal { Verdict::Accepted } else { Verdict::Refused(head.dtype, head.count) });
    state.begun = true;
    Record { kind: Kind::Answer, dtype, count, ..head }
}

/// How many bytes of a message come for a receive of `len` bytes, once its head was looked at.
fn goal(len: usize, state: &State) -> usize {
    match state.verdict {
        // What the sender puts before it knows. No overflow: a record's count is bounded.
        Some(Verdict::Refused(dtype, count)) => {
            (count * dtype.size() as u64).min(EAGER_BYTES as u64) as usize
        }
        _ => len,
    }
}

/// Puts or lends bytes of a message that has begun.
fn put(peer: Rank, bytes: View<'_>, pipes: &mut dyn Pipes) -> Result<usize, LinkError> {
    if bytes.len() >= LEND_MIN && pipes.lends(bytes) {
        return Ok(if pipes.lend(peer, bytes)? { bytes.len() } else { 0 });
    }
    pipes.put(peer, Strand::Bytes, bytes.len(), &mut |room| {
        kernel::copy(bytes.first(room.len()), room, None, Store::Cached);
    })
}
