//! A send to a rank and a receive from the same one, begun in one go.
//!
//! The commonest group of two: neighbours that swap, and every step of a ring of two. The head of the message that this rank
//! sends, its first bytes, and the answer to the one that it receives go out together, and so do those of the peer, if it
//! does the same. Then a short trade is over when they have met. What is not over with that goes on as if it had begun in
//! parts: to the peer it is the same.

use super::super::record::{GOES_AHEAD, Kind, Record};
use super::super::route::{self, EAGER_BYTES, FETCH_MAX};
use super::{Bytes, Courier, Item, Muddle, Way};
use crate::kernel::{self, Store};
use crate::link::{FETCH_MIN, LEND_MIN};
use crate::pipe::Pipes;
use crate::rank::Rank;
use sohu_coll_mem::{View, ViewMut};

/// How far a trade has come.
struct Trade {
    /// The items: the send and the receive.
    pair: [usize; 2],
    /// Bytes that were put, and whether all of them go ahead of the answer.
    put: usize,
    goes_ahead: bool,
    /// Bytes that came, if both halves of both messages were compared, and equal.
    got: Option<usize>,
}

impl Courier {
    /// Makes a call of these items as a trade, if it is one and the pipes have a short way for that. Says whether it is over; nothing
    /// where nothing was put.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin).
    #[inline]
    pub(super) fn open_trade(
        &mut self,
        items: &mut [Item<'_>],
        looks: u32,
        pipes: &mut dyn Pipes,
    ) -> Result<Option<bool>, Muddle> {
        let Some(pair) = self.trade_of(items) else { return Ok(None) };
        let Some(trade) = self.trade(pair, items, looks, pipes) else { return Ok(None) };
        let [send, recv] = pair;
        let whole = (trade.put, trade.got) == (items[send].len(), Some(items[recv].len()));
        let peer = items[send].transfer.peer;
        // What is too short to be lent needs no more help.
        if whole && (trade.put < LEND_MIN || is_clear(peer, looks, pipes)) {
            self.counts[peer.index()].iter_mut().for_each(|count| *count = count.wrapping_add(1));
            return Ok(Some(true));
        }
        self.begin(items)?;
        self.resume(&trade, items);
        Ok(Some(false))
    }

    /// The items of a trade, if the call is one: the send and the receive.
    #[inline]
    fn trade_of(&self, items: &[Item<'_>]) -> Option<[usize; 2]> {
        let [one, two] = items else { return None };
        let (one, two) = (&one.transfer, &two.transfer);
        if one.peer != two.peer || one.way == two.way || one.peer == self.rank {
            return None;
        }
        Some(if one.way == Way::Send { [0, 1] } else { [1, 0] })
    }

    /// Bids this rank's part and looks for the peer's. `None` if nothing was put.
    #[inline]
    fn trade(
        &self,
        pair: [usize; 2],
        items: &mut [Item<'_>],
        looks: u32,
        pipes: &mut dyn Pipes,
    ) -> Option<Trade> {
        let [send, recv] = items.get_disjoint_mut(pair).ok()?;
        let (Bytes::Out(from), Bytes::In(into)) = (&send.bytes, &mut recv.bytes) else { return None };
        let peer = send.transfer.peer;
        let numbers = self.counts[peer.index()];
        let record = |kind, transfer, way: Way| Record::of(kind, transfer, numbers[way as usize]).to_words();
        let mut head = record(Kind::Head, &send.transfer, Way::Send);
        let answer = record(Kind::Answer, &recv.transfer, Way::Recv);
        let mut first = View::from(&**from);
        let goes_ahead = route::goes_ahead(peer, first, pipes);
        if goes_ahead {
            head[0] |= GOES_AHEAD;
        } else {
            first = first.first(first.len().min(EAGER_BYTES));
        }
        let copies: fn(View<'_>, ViewMut<'_>) = match route::store(peer, first.len(), pipes) {
            Store::Cached => copy,
            _ => copy_past,
        };
        let put = pipes.bid(peer, head, answer, first, copies)?;
        // While that is under way: what the peer must say.
        let theirs =
            [record(Kind::Head, &recv.transfer, Way::Recv), record(Kind::Answer, &send.transfer, Way::Send)];
        let limit = into.len().min(EAGER_BYTES);
        let mut got = None;
        pipes.deal(peer, limit, looks, &mut |head, answer, bytes| {
            // How much goes ahead does not matter to who takes it all.
            if [[head[0] & !GOES_AHEAD, head[1]], answer] != theirs {
                return None;
            }
            // Of a long message the rest is put first, for the peer to go on with. To put and take in turn, a little each, takes
            // longer than much of each.
            let used = if into.len() > EAGER_BYTES { 0 } else { bytes.len() };
            copy(bytes.first(used), ViewMut::from(&mut into[..used]));
            got = Some(used);
            got
        });
        // What lies in the peer's private memory is fetched now that both halves were compared, if nothing is left to put.
        if got == Some(0) && put == from.len() && (FETCH_MIN..=FETCH_MAX).contains(&into.len()) {
            // An error is kept, and told by the method that is called next.
            got = Some(pipes.fetch(peer, ViewMut::from(&mut into[..])).unwrap_or(0));
        }
        Some(Trade { pair, put, goes_ahead, got })
    }

    /// The call has begun, and this much of it was done before.
    fn resume(&mut self, trade: &Trade, items: &[Item<'_>]) {
        let peer = items[trade.pair[0]].transfer.peer;
        for way in [Way::Send, Way::Recv] {
            let place = self.places[peer.index()][way as usize].expect("both ways are used");
            let moved = if way == Way::Send { Some(trade.put) } else { trade.got };
            let state = &mut self.states[trade.pair[way as usize]];
            state.goes_ahead = trade.goes_ahead && way == Way::Send;
            self.routes[place].resume(state, moved, trade.got.is_some());
        }
    }
}

/// Looks whether what was put needs no more help. An error is kept, and told by the method that is called next.
fn is_clear(peer: Rank, looks: u32, pipes: &mut dyn Pipes) -> bool {
    let look = |_| match pipes.is_clear(peer) {
        Ok(false) => None,
        told => Some(told == Ok(true)),
    };
    (0..=looks).find_map(look).unwrap_or(false)
}

#[inline]
fn copy(from: View<'_>, into: ViewMut<'_>) {
    kernel::copy(from, into, None, Store::Cached);
}

/// As [`copy`], past the caches.
fn copy_past(from: View<'_>, into: ViewMut<'_>) {
    kernel::copy(from, into, None, Store::Streaming);
}
