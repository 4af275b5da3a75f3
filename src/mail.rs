//! Messages between two ranks: what a communicator keeps for them, and how a call of them is driven.
//!
//! Invariant: a call of messages concerns the ranks that it names and no others. It does not count among the calls of all
//! ranks: those have the numbers that they would have without it.

use crate::control::Status;
use crate::drive::{NAP, Work};
use crate::lane::Lane;
use crate::owned::Owner;
use sohu_coll_algorithms::tuner::Tuner;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::exec::Progress;
use sohu_coll_core::link::Links;
use sohu_coll_core::transfer::{Courier, Disagreement, Item, Muddle, check_own};
use sohu_coll_core::{Error, Misuse, Rank, Transfer};
use std::ops::Range;
use std::time::Duration;

/// What is kept from one call of messages to the next.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) courier: Courier,
    /// Empty: memory for the items of a group.
    spare: Vec<Item<'static>>,
}

impl Mail {
    pub(crate) fn new(rank: Rank, tuner: &Tuner) -> Self {
        let courier = Courier::new(rank, tuner.machine().size);
        Self { courier: courier.storing_past_caches_from(tuner.streams_messages_from()), spare: Vec::new() }
    }

    /// An empty list of items, in memory that was used before.
    pub(crate) fn take_spare<'a>(&mut self) -> Vec<Item<'a>> {
        recycled(std::mem::take(&mut self.spare))
    }

    /// Keeps the memory of a list.
    pub(crate) fn keep_spare(&mut self, items: Vec<Item<'_>>) {
        self.spare = recycled(items);
    }
}

/// The memory of `items`, without the items. Collecting a vector's own elements in place is what keeps the memory.
fn recycled<'a>(mut items: Vec<Item<'_>>) -> Vec<Item<'a>> {
    items.clear();
    items.into_iter().map(|_| unreachable!("nothing is in it")).collect()
}

impl Lane {
    /// Makes messages, all at once. They are a `group`, or one alone.
    ///
    /// # Errors
    /// [`Error::Misuse`] when one makes no sense, [`Error::Mispaired`] when a peer means another message: then the
    /// communicator stays usable. Else as described at [`Communicator`](crate::Communicator).
    pub(crate) fn transfer(&mut self, items: &mut [Item<'_>], group: bool) -> Result<(), Error> {
        for item in &*items {
            check_one(self.rank, self.size, item.transfer(), group)?;
        }
        self.ready()?;
        let (all, courier) = (0..items.len(), &mut self.mail.courier);
        let over = self.engine.open(courier, items).map_err(|muddle| refused(self.rank, muddle))?;
        if over {
            return Ok(());
        }
        let (of, sequence) = (all.clone(), self.sequence);
        let letters = Letters { courier, items, of, group, sequence, news: None, done: false };
        if let Err(error) = self.engine.carry(letters) {
            return Err(self.fail(*error));
        }
        match self.mail.courier.disagreement(items, all) {
            None => Ok(()),
            Some(told) => Err(mispaired(self.rank, told)),
        }
    }
}

/// Whether this rank can make the transfer.
fn check_one(rank: Rank, size: u32, transfer: &Transfer, group: bool) -> Result<(), Misuse> {
    let (call, peer) = (transfer.name(), transfer.peer);
    if peer.0 >= size {
        return Err(Misuse::Peer { call, peer: peer.0, size });
    }
    if peer == rank && !group {
        return Err(Misuse::Lonely { transfer: *transfer });
    }
    if transfer.count > Transfer::COUNT_MAX {
        return Err(Misuse::Count { call, count: transfer.count, max: Transfer::COUNT_MAX });
    }
    Ok(())
}

/// Whether messages that are to be started make sense.
///
/// # Errors
/// What is wrong with the first that does not.
pub(crate) fn check(rank: Rank, size: u32, owner: &mut dyn Owner, group: bool) -> Result<(), Error> {
    let mut items = Vec::new();
    let mut wrong = None;
    owner.transfers(&mut |item| {
        let checked = item.and_then(|item| {
            check_one(rank, size, item.transfer(), group)?;
            items.push(item);
            Ok(())
        });
        if let Err(misuse) = checked {
            wrong.get_or_insert(misuse);
        }
    });
    match wrong {
        Some(misuse) => Err(misuse.into()),
        None => check_own(rank, &items).map_err(|muddle| refused(rank, muddle)),
    }
}

/// The error of messages of `rank` to itself that do not fit together.
#[cold]
pub(crate) fn refused(rank: Rank, muddle: Muddle) -> Error {
    match muddle {
        Muddle::Alone(transfer) => Misuse::Lonely { transfer }.into(),
        Muddle::Differ(told) => mispaired(rank, told),
    }
}

#[cold]
pub(crate) fn mispaired(rank: Rank, Disagreement { ours, theirs }: Disagreement) -> Error {
    Error::Mispaired { rank, ours, peer: ours.peer, theirs }
}

/// Messages on their way: those of one call, or of all that go on side by side.
pub(crate) struct Letters<'a, 'b> {
    pub(crate) courier: &'a mut Courier,
    pub(crate) items: &'a mut [Item<'b>],
    /// Which are told of when it takes too long: those of the oldest call.
    pub(crate) of: Range<usize>,
    /// Whether that is a group.
    pub(crate) group: bool,
    /// The number of the next call of all ranks.
    pub(crate) sequence: u32,
    /// Of several calls: whether others can join. They are left as soon as that is so, or one of them may be over.
    pub(crate) news: Option<&'a dyn Fn() -> bool>,
    /// Whether nothing is left of any.
    pub(crate) done: bool,
}

/// The longest sleep while others can join: who starts a message does not wake the thread that drives.
const JOIN_NAP: Duration = Duration::from_millis(1);

impl Letters<'_, '_> {
    /// The items of the oldest call that are waited for.
    fn late(&self) -> impl Iterator<Item = &Transfer> {
        let waiting = self.courier.waiting_for().filter(|index| self.of.contains(index));
        waiting.map(|index| self.items[index].transfer())
    }
}

impl Work for Letters<'_, '_> {
    #[inline]
    fn poll(&mut self, links: &mut dyn Links) -> Result<Progress, LinkError> {
        let progress = self.courier.poll(self.items, links.pipes())?;
        self.done = progress == Progress::Done;
        let Some(news) = self.news else { return Ok(progress) };
        // Only when nothing moves is there time to ask.
        let leave = self.courier.take_ended() || (progress == Progress::Idle && news());
        Ok(if leave { Progress::Done } else { progress })
    }

    fn nap(&self) -> Duration {
        if self.news.is_some() { JOIN_NAP } else { NAP }
    }

    fn status(&self, _links: &dyn Links) -> Status {
        // Not in a call of all ranks: who waits for this rank in one is told that it is elsewhere.
        Status { sequence: self.sequence, in_call: false, waiting_on: self.courier.waiting_on().next() }
    }

    fn during(&self, _links: &dyn Links) -> String {
        let mut waiting = self.late();
        let first = waiting.next().or(self.items.get(self.of.start).map(Item::transfer));
        let first = first.map(ToString::to_string).unwrap_or_default();
        match (self.group, waiting.count()) {
            (false, _) => first,
            (true, 0) => format!("group: {first}"),
            (true, more) => format!("group: {first} and {more} more"),
        }
    }

    fn awaited(&self) -> Vec<Rank> {
        let mut peers: Vec<Rank> = self.late().map(|transfer| transfer.peer).collect();
        if peers.is_empty() {
            // Its bytes have yet to be taken.
            peers.extend(self.courier.waiting_on());
        }
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    fn concerns(&self, peer: Rank) -> bool {
        self.awaited().contains(&peer)
    }

    fn is_elsewhere(&self, _status: &Status) -> bool {
        // It answers, so it is in a call; but none that this one ends with.
        true
    }

    fn misses(&self, peer: Rank) -> bool {
        self.courier.waiting_on().any(|awaited| awaited == peer)
    }
}
