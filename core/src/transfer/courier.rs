//! Makes the transfers of one rank's calls, all at once, each pipe in its own order.
//!
//! It is polled and owns no clock or thread, as the executor. Invariants: transfers of one pipe and way are made in the
//! order of the calls, and of each call; those of different pipes wait for each other in nothing; nothing is allocated for a
//! call that is no larger than one before. Whoever polls keeps each item at its index until its call is over, with the same
//! bytes.

mod errand;
mod trade;

use self::errand::Errand;
use super::route::{self, Route};
use super::{Bytes, Item, State, Transfer, Verdict, Way};
use crate::error::LinkError;
use crate::exec::Progress;
use crate::kernel;
use crate::pipe::Pipes;
use crate::rank::Rank;
use core::ops::Range;
use sohu_coll_mem::{View, ViewMut};

/// Two ranks that mean different messages. No byte of the message was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// What this rank made.
    pub ours: Transfer,
    /// What its peer made; its peer is this rank.
    pub theirs: Transfer,
}

/// Why a call's transfers to this rank itself can not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Muddle {
    /// The other half is missing.
    Alone(Transfer),
    /// The halves differ.
    Differ(Disagreement),
}

/// Whether what `rank` sends to itself meets what it receives from itself, in a call of these transfers.
///
/// # Errors
/// The first that does not.
pub fn check_own(rank: Rank, items: &[Item<'_>]) -> Result<(), Muddle> {
    if !has_own(rank, items) {
        return Ok(());
    }
    let mut pairs = OwnPairs::of(rank);
    while let Some([send, recv]) = pairs.next(items)? {
        let (ours, theirs) = (items[send].transfer, items[recv].transfer);
        if (ours.dtype, ours.count) != (theirs.dtype, theirs.count) {
            return Err(Muddle::Differ(Disagreement { ours, theirs }));
        }
    }
    Ok(())
}

/// Whether `rank` sends anything to itself, or receives from itself.
#[inline]
fn has_own(rank: Rank, items: &[Item<'_>]) -> bool {
    items.iter().any(|item| item.transfer.peer == rank)
}

/// One rank's transfers.
#[derive(Debug)]
pub struct Courier {
    rank: Rank,
    /// By rank: how many messages were sent there and received from there, modulo 2^32.
    counts: Box<[[u32; 2]]>,
    /// By rank and way: the route there.
    places: Box<[[Option<usize>; 2]]>,
    routes: Vec<Route>,
    /// A call that is out, and of which no route knows.
    errand: Option<Errand>,
    /// By item.
    states: Vec<State>,
    /// Whether a transfer may have ended since somebody asked.
    ended: bool,
    /// From how many bytes on a message is stored past the caches.
    past_from: usize,
}

impl Courier {
    /// The courier of `rank`, one of `size`, before its first call.
    pub fn new(rank: Rank, size: u32) -> Self {
        let ranks = size as usize;
        let (counts, places) = (vec![[0; 2]; ranks].into(), vec![[None; 2]; ranks].into());
        // For a trade, which may be over before it needs them, and the next one not.
        let (routes, states) = (Vec::with_capacity(2), Vec::with_capacity(2));
        Self { rank, counts, places, routes, errand: None, states, ended: false, past_from: usize::MAX }
    }

    /// Stores messages of `bytes` bytes and more past the caches from now on: those that would not be found there when they are
    /// read.
    #[must_use]
    pub fn storing_past_caches_from(self, bytes: usize) -> Self {
        Self { past_from: bytes, ..self }
    }

    /// As [`begin`](Self::begin), and does what can be done at once of a call that has but one short message each way, or is a trade;
    /// looks up to `looks` times more than once for what the peers have to say. Says whether the call is over with that. Until it is, no
    /// other one [joins](Self::join) it.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin).
    ///
    /// # Panics
    /// As for [`begin`](Self::begin).
    #[inline]
    pub fn open(
        &mut self,
        items: &mut [Item<'_>],
        looks: u32,
        pipes: &mut dyn Pipes,
    ) -> Result<bool, Muddle> {
        // Calls that join others later begin where this one ends.
        self.forget();
        if let Some(over) = self.open_trade(items, looks, pipes)? {
            return Ok(over);
        }
        if let Some(over) = self.open_errand(items, looks, pipes) {
            return Ok(over);
        }
        self.begin(items).map(|()| false)
    }

    /// Begins a call, when none is going on. What the rank sends to itself is received then; all else is for
    /// [`poll`](Self::poll).
    ///
    /// # Errors
    /// When the transfers from this rank to itself do not fit together. Nothing has moved then, and nothing was begun.
    ///
    /// # Panics
    /// When a peer is no rank.
    pub fn begin(&mut self, items: &mut [Item<'_>]) -> Result<(), Muddle> {
        check_own(self.rank, items)?;
        self.forget();
        self.join(items, 0..items.len())
    }

    /// Forgets the calls before, of which nothing is left.
    #[inline]
    fn forget(&mut self) {
        for route in self.routes.drain(..) {
            self.places[route.peer.index()] = [None; 2];
        }
        self.states.clear();
        self.errand = None;
    }

    /// Adds a call to those that are going on: the items `call`, which were vacant. It goes on beside the others, but for those
    /// of its transfers that use a pipe which others have yet to use.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin).
    ///
    /// # Panics
    /// When a peer is no rank, there are no such items, or a call that was [opened](Self::open) is not over.
    pub fn join(&mut self, items: &mut [Item<'_>], call: Range<usize>) -> Result<(), Muddle> {
        assert!(self.errand.is_none(), "a call joins one that was opened");
        check_own(self.rank, &items[call.clone()])?;
        if self.states.len() < items.len() {
            self.states.resize(items.len(), State::default());
        }
        self.states[call.clone()].fill(State::default());
        self.make_own(items, &call)?;
        for index in call.clone() {
            let Transfer { way, peer, .. } = items[index].transfer;
            if peer == self.rank {
                continue;
            }
            let count = &mut self.counts[peer.index()][way as usize];
            let place = *self.places[peer.index()][way as usize].get_or_insert_with(|| {
                self.routes.push(Route::new(peer, way, *count, self.past_from));
                self.routes.len() - 1
            });
            *count = count.wrapping_add(1);
            self.routes[place].append(&mut self.states, index, &call);
        }
        // What has no message for another rank is over already.
        self.ended = true;
        Ok(())
    }

    /// Receives what the rank sends to itself.
    fn make_own(&mut self, items: &mut [Item<'_>], call: &Range<usize>) -> Result<(), Muddle> {
        let own = &mut items[call.clone()];
        if !has_own(self.rank, own) {
            return Ok(());
        }
        let mut pairs = OwnPairs::of(self.rank);
        while let Some(pair) = pairs.next(own)? {
            let [send, recv] = own.get_disjoint_mut(pair).expect("no item is a send and a receive");
            if let (Bytes::Out(from), Bytes::In(into)) = (&send.bytes, &mut recv.bytes) {
                let store = route::store_long(from.len(), self.past_from);
                kernel::copy(View::from(*from), ViewMut::from(&mut **into), None, store);
            }
            for index in pair {
                let verdict = Some(Verdict::Accepted);
                let over = State { begun: true, verdict, moved: true, clear: true, ..State::default() };
                self.states[call.start + index] = over;
            }
        }
        Ok(())
    }

    /// Does everything that can be done now, with the items of the calls that are going on. Never blocks, never allocates.
    ///
    /// # Errors
    /// What the pipes report; the calls can not go on then.
    #[inline]
    pub fn poll(&mut self, items: &mut [Item<'_>], pipes: &mut dyn Pipes) -> Result<Progress, LinkError> {
        if let Some(progress) = self.poll_errand(items, pipes) {
            return Ok(progress);
        }
        let (mut moved, mut done) = (false, true);
        for route in &mut self.routes {
            if !route.is_done() {
                moved |= route.advance(items, &mut self.states, pipes)?;
                done &= route.is_done();
            }
            route.settle(&mut self.states, pipes)?;
            self.ended |= core::mem::take(&mut route.ended);
        }
        if done {
            for route in &mut self.routes {
                done &= route.is_clear(&mut self.states, pipes)?;
                self.ended |= core::mem::take(&mut route.ended);
            }
        }
        if !done && !moved {
            // What is put tells what was taken: only who waits need do so apart.
            let mut before = None;
            for route in self.routes.iter().filter(|route| !route.clear) {
                // Often somebody is sent to and received from in turn, and both are flushed at once.
                if before != Some(route.peer) {
                    moved |= pipes.flush(route.peer)?;
                }
                before = Some(route.peer);
            }
        }
        Ok(match (done, moved) {
            (true, _) => Progress::Done,
            (false, true) => Progress::Moved,
            (false, false) => Progress::Idle,
        })
    }

    /// Whether the transfer of an item may have ended since this was last asked. Cheap: whoever has many calls looks through
    /// them only then.
    #[inline]
    pub fn take_ended(&mut self) -> bool {
        core::mem::take(&mut self.ended)
    }

    /// Whether the call of these items is over, for both ranks of each, and their bytes are needed no more.
    pub fn is_over(&self, call: Range<usize>) -> bool {
        self.errand.is_none() && self.states[call].iter().all(State::is_over)
    }

    /// The peers that something is still missing from, or that have yet to take something; some of them twice. Allocates
    /// nothing.
    pub fn waiting_on(&self) -> impl Iterator<Item = Rank> {
        // What was received needs nobody any more while others go on, even if its route is cleared with theirs: its sender may leave.
        let rest = self.routes.iter().all(Route::is_done);
        let is_out = move |route: &Route| !route.clear && (rest || route.way == Way::Send);
        let waits = move |route: &&Route| !route.is_done() || is_out(route);
        let errand = self.errand.iter().flat_map(|errand| errand.missing().map(|(peer, _)| peer));
        errand.chain(self.routes.iter().filter(waits).map(|route| route.peer))
    }

    /// What the calls wait for: the first transfer of each pipe that is not through, by its item. Allocates nothing.
    pub fn waiting_for(&self) -> impl Iterator<Item = usize> {
        let errand = self.errand.iter().flat_map(|errand| errand.missing().map(|(_, item)| item));
        errand.chain(self.routes.iter().filter(|route| !route.is_done()).map(Route::waits_for))
    }

    /// The first transfer of a call that is over in which the ranks disagreed.
    pub fn disagreement(&self, items: &[Item<'_>], call: Range<usize>) -> Option<Disagreement> {
        // An errand that is out has none.
        let states = self.states.get(call.clone()).unwrap_or_default();
        items[call].iter().zip(states).find_map(|(item, state)| match state.verdict {
            Some(Verdict::Refused(dtype, count)) => {
                let ours = item.transfer;
                let way = if ours.way == Way::Send { Way::Recv } else { Way::Send };
                Some(Disagreement { ours, theirs: Transfer { way, dtype, count, peer: self.rank } })
            }
            _ => None,
        })
    }
}

/// A rank's sends to itself with the receives that they meet, in order.
struct OwnPairs {
    rank: Rank,
    /// Where to look for the next send and the next receive.
    next: [usize; 2],
}

impl OwnPairs {
    fn of(rank: Rank) -> Self {
        Self { rank, next: [0; 2] }
    }

    /// The next two, by index; `None` after the last.
    fn next(&mut self, items: &[Item<'_>]) -> Result<Option<[usize; 2]>, Muddle> {
        let found = [Way::Send, Way::Recv].map(|way| {
            let own = |item: &Item<'_>| item.transfer.peer == self.rank && item.transfer.way == way;
            let start = self.next[way as usize];
            items[start..].iter().position(own).map(|at| start + at)
        });
        match found {
            [None, None] => Ok(None),
            [Some(send), Some(recv)] => {
                self.next = [send + 1, recv + 1];
                Ok(Some([send, recv]))
            }
            [Some(one), None] | [None, Some(one)] => Err(Muddle::Alone(items[one].transfer)),
        }
    }
}
