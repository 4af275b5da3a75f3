//! Messages between two ranks: what a communicator keeps for them, and how a call of them is driven.
//!
//! Invariant: a call of messages concerns the ranks that it names and no others. It does not count among the calls of all
//! ranks: those have the numbers that they would have without it.

use crate::control::Status;
use crate::drive::Work;
use crate::lane::Lane;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::exec::Progress;
use sohu_coll_core::link::Links;
use sohu_coll_core::transfer::{Courier, Disagreement, Item, Muddle};
use sohu_coll_core::{Error, Misuse, Rank, Transfer};

/// What is kept from one call of messages to the next.
#[derive(Debug)]
pub(crate) struct Mail {
    courier: Courier,
    /// Empty: memory for the items of a group.
    spare: Vec<Item<'static>>,
}

impl Mail {
    pub(crate) fn new(rank: Rank, size: u32) -> Self {
        Self { courier: Courier::new(rank, size), spare: Vec::new() }
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
            self.check(item.transfer(), group)?;
        }
        self.ready()?;
        let courier = &mut self.mail.courier;
        courier.begin(items).map_err(|muddle| match muddle {
            Muddle::Alone(transfer) => Misuse::Lonely { transfer }.into(),
            Muddle::Differ(told) => mispaired(self.rank, told),
        })?;
        let letters = Letters { courier, items, group, sequence: self.sequence };
        if let Err(error) = self.engine.carry(letters) {
            return Err(self.fail(*error));
        }
        match self.mail.courier.disagreement(items) {
            None => Ok(()),
            Some(told) => Err(mispaired(self.rank, told)),
        }
    }

    /// Whether this rank can make the transfer.
    fn check(&self, transfer: &Transfer, group: bool) -> Result<(), Misuse> {
        let (call, peer, size) = (transfer.name(), transfer.peer, self.size);
        if peer.0 >= size {
            return Err(Misuse::Peer { call, peer: peer.0, size });
        }
        if peer == self.rank && !group {
            return Err(Misuse::Lonely { transfer: *transfer });
        }
        if transfer.count > Transfer::COUNT_MAX {
            return Err(Misuse::Count { call, count: transfer.count, max: Transfer::COUNT_MAX });
        }
        Ok(())
    }
}

#[cold]
fn mispaired(rank: Rank, Disagreement { ours, theirs }: Disagreement) -> Error {
    Error::Mispaired { rank, ours, peer: ours.peer, theirs }
}

/// Messages on their way.
pub(crate) struct Letters<'a, 'b> {
    courier: &'a mut Courier,
    items: &'a mut [Item<'b>],
    group: bool,
    /// The number of the next call of all ranks.
    pub(crate) sequence: u32,
}

impl Work for Letters<'_, '_> {
    #[inline]
    fn poll(&mut self, links: &mut dyn Links) -> Result<Progress, LinkError> {
        self.courier.poll(self.items, links.pipes())
    }

    fn status(&self, _links: &dyn Links) -> Status {
        // Not in a call of all ranks: who waits for this rank in one is told that it is elsewhere.
        Status { sequence: self.sequence, in_call: false, waiting_on: self.courier.waiting_on().next() }
    }

    fn during(&self, _links: &dyn Links) -> String {
        let mut waiting = self.courier.waiting_for(self.items);
        let first = waiting.next().or(self.items.first().map(Item::transfer));
        let first = first.map(ToString::to_string).unwrap_or_default();
        match (self.group, waiting.count()) {
            (false, _) => first,
            (true, 0) => format!("group: {first}"),
            (true, more) => format!("group: {first} and {more} more"),
        }
    }

    fn awaited(&self) -> Vec<Rank> {
        let mut peers: Vec<Rank> = self.courier.waiting_on().collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    fn concerns(&self, peer: Rank) -> bool {
        self.misses(peer)
    }

    fn is_elsewhere(&self, _status: &Status) -> bool {
        // It answers, so it is in a call; but none that this one ends with.
        true
    }

    fn misses(&self, peer: Rank) -> bool {
        self.courier.waiting_on().any(|awaited| awaited == peer)
    }
}
