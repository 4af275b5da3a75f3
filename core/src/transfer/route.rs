//! One pipe in one call, on one side: its transfers one after the other.
//!
//! The sender puts the head of a message and its first [`EAGER_BYTES`] at once, and the rest when the receiver has
//! accepted it. The receiver answers as soon as it has compared the head; of a message that it refuses, it takes what the
//! sender put before it could know, and forgets it. So both sides know, without another word, where the next
//! message begins.

use super::record::{Arriving, Kind, RECORD_BYTES, Record};
use super::{Bytes, Item, Transfer, Verdict, Way};
use crate::error::LinkError;
use crate::kernel::{self, Store};
use crate::link::LEND_MIN;
use crate::pipe::{Pipes, STRAND_BYTES_MIN, Strand};
use crate::rank::Rank;
use sohu_coll_mem::{View, ViewMut};

/// Bytes of a message that go ahead of the receiver's answer: enough that moving them takes longer than an answer does.
pub(super) const EAGER_BYTES: usize = 16 << 10;

/// Messages of one pipe that may be without an answer: their answers fit the strand whatever the sender does meanwhile.
const AHEAD_MAX: usize = STRAND_BYTES_MIN / RECORD_BYTES / 2;

/// Pieces that move before it is the turn of other pipes: a rank that goes on taking as long as there is something would keep the
/// next one waiting for what it has to give.
const TURN: usize = 8;

/// One pipe's part of a call.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) peer: Rank,
    pub(super) way: Way,
    /// The last item.
    pub(super) last: usize,
    /// The item whose bytes move, or whose head is next.
    moving: Option<usize>,
    /// Of sends: the oldest item without an answer, its number, and how many have none.
    unanswered: Option<usize>,
    answered: u32,
    ahead: usize,
    /// How many messages went through the pipe before `moving`, modulo 2^32.
    sequence: u32,
    arriving: Arriving,
    /// An answer that there was no room for.
    due: Option<Record>,
    /// Whether nothing of this call is left in this rank's private memory.
    pub(super) clear: bool,
}

impl Route {
    /// The part of a call that starts with item `first`, message number `sequence` of its pipe.
    pub(super) fn new(peer: Rank, way: Way, first: usize, sequence: u32) -> Self {
        Self {
            peer,
            way,
            last: first,
            moving: Some(first),
            unanswered: (way == Way::Send).then_some(first),
            answered: sequence,
            ahead: 0,
            sequence,
            arriving: Arriving::default(),
            due: None,
            clear: false,
        }
    }

    /// Whether all its items are through and known to both ranks.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.moving.is_none() && self.unanswered.is_none() && self.due.is_none()
    }

    /// The item that keeps it from being done.
    pub(super) fn waits_for(&self) -> usize {
        self.unanswered.or(self.moving).unwrap_or(self.last)
    }

    /// Does everything that can be done now. Returns whether anything moved.
    #[inline]
    pub(super) fn advance(
        &mut self,
        items: &mut [Item<'_>],
        pipes: &mut dyn Pipes,
    ) -> Result<bool, LinkError> {
        match self.way {
            Way::Send => Ok(self.hear(items, pipes)? | self.give(items, pipes)?),
            Way::Recv => self.get(items, pipes),
        }
    }

    /// Takes the answers that have come.
    fn hear(&mut self, items: &mut [Item<'_>], pipes: &mut dyn Pipes) -> Result<bool, LinkError> {
        let mut moved = false;
        while let Some(index) = self.unanswered.filter(|index| items[*index].state.begun) {
            let answer = self.arriving.take(pipes, self.peer, Kind::Answer, self.answered)?;
            let Some(answer) = answer else { break };
            let Item { transfer, state, .. } = &mut items[index];
            let equal = (answer.dtype, answer.count) == (transfer.dtype, transfer.count);
            state.verdict =
                Some(if equal { Verdict::Accepted } else { Verdict::Refused(answer.dtype, answer.count) });
            self.unanswered = state.next;
            self.answered = self.answered.wrapping_add(1);
            self.ahead -= 1;
            moved = true;
        }
        Ok(moved)
    }

    /// Puts what there is room for.
    fn give(&mut self, items: &mut [Item<'_>], pipes: &mut dyn Pipes) -> Result<bool, LinkError> {
        let mut moved = 0;
        while let Some(index) = self.moving
            && moved < TURN
        {
            let item = &mut items[index];
            let len = item.len();
            let Bytes::Out(bytes) = &item.bytes else { unreachable!("a send has bytes to give") };
            let bytes = View::from(*bytes);
            let goal = if item.state.verdict == Some(Verdict::Accepted) { len } else { len.min(EAGER_BYTES) };
            if item.state.begun && item.state.at == goal {
                if item.state.verdict.is_none() && len > EAGER_BYTES {
                    break;
                }
                self.moving = item.state.next;
                self.sequence = self.sequence.wrapping_add(1);
                continue;
            }
            if !item.state.begun && self.ahead == AHEAD_MAX {
                break;
            }
            let put = match item.state.begun {
                false => self.open(item, bytes.first(goal), pipes)?,
                true => put(self.peer, bytes.slice(item.state.at..goal), pipes)?,
            };
            if put == 0 {
                break;
            }
            moved += 1;
            if item.state.begun {
                item.state.at += put;
            } else {
                item.state.begun = true;
                item.state.at = put - RECORD_BYTES;
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
    fn get(&mut self, items: &mut [Item<'_>], pipes: &mut dyn Pipes) -> Result<bool, LinkError> {
        let mut moved = usize::from(self.answer(pipes)?);
        while let Some(index) = self.moving
            && moved < TURN
        {
            let item = &mut items[index];
            if !item.state.begun {
                if self.due.is_some() {
                    break;
                }
                let head = self.arriving.take(pipes, self.peer, Kind::Head, self.sequence)?;
                let Some(head) = head else { break };
                self.due = Some(item.look(head));
                self.answer(pipes)?;
                moved += 1;
            }
            let goal = item.goal();
            if item.state.at < goal {
                let (at, accepted) = (item.state.at, item.state.verdict == Some(Verdict::Accepted));
                let taken = pipes.take(self.peer, Strand::Bytes, goal - at, &mut |view| {
                    if let (true, Bytes::In(bytes)) = (accepted, &mut item.bytes) {
                        let into = ViewMut::from(&mut bytes[at..at + view.len()]);
                        kernel::copy(view, into, None, Store::Cached);
                    }
                })?;
                if taken == 0 {
                    break;
                }
                item.state.at += taken;
                moved += 1;
            }
            if item.state.at == goal {
                self.moving = item.state.next;
                self.sequence = self.sequence.wrapping_add(1);
            }
        }
        Ok(moved > 0)
    }

    /// Puts the answer that is due.
    fn answer(&mut self, pipes: &mut dyn Pipes) -> Result<bool, LinkError> {
        let Some(answer) = self.due else { return Ok(false) };
        let bytes = answer.to_bytes();
        let put = pipes.put(self.peer, Strand::Answers, RECORD_BYTES, &mut |room| {
            View::from(&bytes[..]).copy_to(room);
        })?;
        if put > 0 {
            self.due = None;
        }
        Ok(put > 0)
    }
}

impl Item<'_> {
    /// Compares the head of the message that came with what is expected, and says what to answer.
    fn look(&mut self, head: Record) -> Record {
        let Transfer { dtype, count, .. } = self.transfer;
        let equal = (head.dtype, head.count) == (dtype, count);
        self.state.verdict =
            Some(if equal { Verdict::Accepted } else { Verdict::Refused(head.dtype, head.count) });
        self.state.begun = true;
        Record { kind: Kind::Answer, dtype, count, ..head }
    }

    /// How many bytes of the message come, once its head was looked at.
    fn goal(&self) -> usize {
        match self.state.verdict {
            // What the sender puts before it knows. No overflow: a record's count is bounded.
            Some(Verdict::Refused(dtype, count)) => {
                (count * dtype.size() as u64).min(EAGER_BYTES as u64) as usize
            }
            _ => self.len(),
        }
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
