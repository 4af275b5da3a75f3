//! Makes the transfers of one rank's call, all at once, each pipe in its own order.
//!
//! It is polled and owns no clock or thread, as the executor. Invariants: transfers of one pipe and way are made in the
//! order of the call; those of different pipes wait for each other in nothing; nothing is allocated for a
//! call that is no larger than one before.

use super::route::Route;
use super::{Bytes, Item, Transfer, Verdict, Way};
use crate::error::LinkError;
use crate::exec::Progress;
use crate::kernel::{self, Store};
use crate::pipe::Pipes;
use crate::rank::Rank;
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

/// One rank's transfers.
#[derive(Debug)]
pub struct Courier {
    rank: Rank,
    /// By rank: how many messages were sent there and received from there, modulo 2^32.
    counts: Box<[[u32; 2]]>,
    /// By rank and way: the route of this call.
    places: Box<[[Option<usize>; 2]]>,
    routes: Vec<Route>,
}

impl Courier {
    /// The courier of `rank`, one of `size`, before its first call.
    pub fn new(rank: Rank, size: u32) -> Self {
        let ranks = size as usize;
        let (counts, places) = (vec![[0; 2]; ranks].into(), vec![[None; 2]; ranks].into());
        Self { rank, counts, places, routes: Vec::new() }
    }

    /// Begins a call. What the rank sends to itself is received then; all else is for [`poll`](Self::poll).
    ///
    /// # Errors
    /// When the transfers from this rank to itself do not fit together. Nothing has moved then, and nothing was begun.
    ///
    /// # Panics
    /// When a peer is no rank.
    pub fn begin(&mut self, items: &mut [Item<'_>]) -> Result<(), Muddle> {
        let mut pairs = OwnPairs::of(self.rank);
        while let Some([send, recv]) = pairs.next(items)? {
            let (ours, theirs) = (items[send].transfer, items[recv].transfer);
            if (ours.dtype, ours.count) != (theirs.dtype, theirs.count) {
                return Err(Muddle::Differ(Disagreement { ours, theirs }));
            }
        }
        let mut pairs = OwnPairs::of(self.rank);
        while let Some(pair) = pairs.next(items)? {
            let [send, recv] = items.get_disjoint_mut(pair).expect("no item is a send and a receive");
            if let (Bytes::Out(from), Bytes::In(into)) = (&send.bytes, &mut recv.bytes) {
                kernel::copy(View::from(*from), ViewMut::from(&mut **into), None, Store::Cached);
            }
        }
        for route in self.routes.drain(..) {
            self.places[route.peer.index()] = [None; 2];
        }
        for index in 0..items.len() {
            let Transfer { way, peer, .. } = items[index].transfer;
            if peer == self.rank {
                continue;
            }
            let count = &mut self.counts[peer.index()][way as usize];
            let place = &mut self.places[peer.index()][way as usize];
            if let Some(route) = *place {
                let route = &mut self.routes[route];
                items[route.last].state.next = Some(index);
                route.last = index;
            } else {
                *place = Some(self.routes.len());
                self.routes.push(Route::new(peer, way, index, *count));
            }
            *count = count.wrapping_add(1);
        }
        Ok(())
    }

    /// Does everything that can be done now, with the items that the call began with. Never blocks, never allocates.
    ///
    /// # Errors
    /// What the pipes report; the call can not go on then.
    #[inline]
    pub fn poll(&mut self, items: &mut [Item<'_>], pipes: &mut dyn Pipes) -> Result<Progress, LinkError> {
        let (mut moved, mut done) = (false, true);
        for route in &mut self.routes {
            if !route.is_done() {
                moved |= route.advance(items, pipes)?;
                done &= route.is_done();
            }
        }
        for route in &mut self.routes {
            if !route.clear {
                moved |= pipes.flush(route.peer)?;
            }
        }
        if done {
            for route in &mut self.routes {
                route.clear = route.clear || pipes.is_clear(route.peer)?;
                done &= route.clear;
            }
        }
        Ok(match (done, moved) {
            (true, _) => Progress::Done,
            (false, true) => Progress::Moved,
            (false, false) => Progress::Idle,
        })
    }

    /// The peers that something is still missing from, or that have yet to take something; some of them twice. Allocates
    /// nothing.
    pub fn waiting_on(&self) -> impl Iterator<Item = Rank> {
        self.routes.iter().filter(|route| !route.is_done() || !route.clear).map(|route| route.peer)
    }

    /// What the call waits for: the first transfer of each pipe that is not through. Allocates nothing.
    pub fn waiting_for<'a>(&'a self, items: &'a [Item<'_>]) -> impl Iterator<Item = &'a Transfer> {
        let waiting = self.routes.iter().filter(|route| !route.is_done());
        waiting.map(|route| &items[route.waits_for()].transfer)
    }

    /// The first transfer of a call that is done in which the ranks disagreed.
    pub fn disagreement(&self, items: &[Item<'_>]) -> Option<Disagreement> {
        items.iter().find_map(|item| match item.state.verdict {
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
