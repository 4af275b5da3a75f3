//! Small calls in one round: every rank sends all others the same few bytes, and works on what they sent.
//!
//! The direct algorithms are such: their first pass sends one buffer to every peer, and the others only take.
//! Then the call is one [`Links::offer`] and one [`Links::meet`] where the peers come soon, and is run pass by
//! pass where they do not.

use super::bind::{Bound, BoundPass, Kind, Spot};
use super::fold;
use crate::error::LinkError;
use crate::kernel::{self, Store};
use crate::link::{EXCHANGE_LENT_MAX, EXCHANGE_MAX, LEND_MIN, Links, Met};
use crate::signature::Signature;
use sohu_coll_mem::{ReadSpan, Regions, View};

/// What an exchange needs to know of its passes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Exchange {
    /// Two ranks fold their bytes: the own ones lie here and come first or not, and the result goes there.
    Pair { own: Spot, own_first: bool, into: Spot },
    /// Two ranks fold half of their bytes each, and store the result in both outputs: a swap.
    Halves,
    /// Anything else: the passes say it.
    Passes,
}

/// The exchange that the passes are, if they are one: the first one sends the same bytes to every peer, each other
/// one stores what it takes, and together they take that many bytes from each.
pub(super) fn find(passes: &[BoundPass], ranks: u32) -> Option<Exchange> {
    let [send, rest @ ..] = passes else { return None };
    if is_swap(passes, ranks) {
        return Some(Exchange::Halves);
    }
    let sends = send.kind == Kind::Send && send.after.is_empty();
    let all = send.to.len() + 1 == ranks as usize && ranks > 1;
    let most = if send.lends { EXCHANGE_LENT_MAX } else { EXCHANGE_MAX };
    let small = (1..=most).contains(&send.len);
    let takes = |pass: &BoundPass| {
        let all_or_one = pass.from.len() == send.to.len() && pass.from.is_sorted() || pass.from.len() == 1;
        (pass.from.is_empty() || pass.len == send.len && all_or_one) && pass.to.is_empty()
    };
    let taken: usize = rest.iter().map(|pass| pass.from.len()).sum();
    let once = |peer| rest.iter().filter(|pass| pass.from.contains(peer)).count() == 1;
    if !(sends
        && all
        && small
        && rest.iter().all(takes)
        && taken == send.to.len()
        && send.to.iter().all(once))
    {
        return None;
    }
    Some(match rest {
        [fold] if fold.kind == Kind::Fold => match (&*fold.locals, &*fold.from, fold.into) {
            ([(place, own)], [_], Some(into)) => Exchange::Pair { own: *own, own_first: *place == 0, into },
            _ => Exchange::Passes,
        },
        _ => Exchange::Passes,
    })
}

/// Whether the passes are those of two ranks that each fold a half and send it to the other, all in registered memory:
/// lend the other its half of the input, fold the own half, forward the result, take the other half of it.
fn is_swap(passes: &[BoundPass], ranks: u32) -> bool {
    let [send, fold, forward @ .., take] = passes else { return false };
    let kinds = [send.kind, fold.kind, take.kind] == [Kind::Send, Kind::Fold, Kind::Recv];
    let forwarded = match forward {
        [] => fold.to.len() == 1 && fold.lends,
        // In place it is a pass of its own: what goes out before it may have to be copied, and to wait for room.
        [pass] => pass.kind == Kind::Send && Some(pass.out_of) == fold.into && pass.len == fold.len,
        _ => false,
    };
    // In place the one half is both what is lent and where the result goes.
    let apart = send.lends && take.conflicts.is_empty();
    let in_place =
        !send.lends && *take.conflicts == [0] && Some(send.out_of.start) == take.into.map(|into| into.start);
    let stored = fold.into.is_some() && fold.locals.len() == 1 && fold.from.len() == 1;
    // What comes after what on the link is the swap's own order, and `conflicts` tells of memory. A swap says one length
    // for what is lent and for what comes back, and both ranks must see that it is one.
    let even = send.len == take.len && send.len.min(fold.len) >= LEND_MIN;
    ranks == 2 && kinds && forwarded && take.posts && (apart || in_place) && stored && even
}

/// Begins the call and offers this rank's bytes. Returns how many went: all, or fewer, and then this is no exchange.
#[inline]
pub(super) fn offer(bound: &Bound, call: &Signature, regions: &Regions<'_>, links: &mut dyn Links) -> usize {
    let send = &bound.passes[0];
    let start = send.out_of.start;
    let region = send.out_of.region(regions);
    let bytes = region.read(start..start + send.len);
    let lent = if send.lends { region.lend(start..start + send.len) } else { None };
    if matches!(bound.exchange, Some(Exchange::Halves)) {
        return swap(bound, call, lent, regions, links);
    }
    links.offer(call, &send.to, bytes, lent)
}

/// Begins the call and offers the other rank its half, and the place for its result.
#[inline]
fn swap(
    bound: &Bound,
    call: &Signature,
    lent: Option<ReadSpan>,
    regions: &Regions<'_>,
    links: &mut dyn Links,
) -> usize {
    let [send, .., take] = &*bound.passes else { unreachable!("`is_swap` found these passes") };
    let into = take.into.expect("a receive has a destination: `bind` made it one");
    let answer = into.region(regions).post(into.start..into.start + take.len);
    let (Some(answer), true) = (answer, lent.is_some() == send.lends) else {
        // An error is kept, and told by the method that is called next.
        let _: Result<(), LinkError> = links.begin(call);
        return 0;
    };
    if links.swap(call, send.to[0], lent, take.stream_at, answer) { send.len } else { 0 }
}

/// Meets the peers, looking up to `looks` times more than once for what they send, and works on it.
#[inline]
pub(super) fn meet(
    bound: &Bound,
    kind: Exchange,
    looks: u32,
    regions: &Regions<'_>,
    links: &mut dyn Links,
) -> Met {
    let [send, rest @ ..] = &*bound.passes else { unreachable!("`find` found a pass that sends") };
    let len = send.len;
    match kind {
        Exchange::Pair { own, own_first, into } => {
            // Looked up now, while the bytes are under way.
            let own = own.region(regions).read(own.start..own.start + len);
            let into = into.region(regions).write(into.start..into.start + len);
            let finish = rest[0].finishes.then_some(bound.ranks);
            links.meet(len, looks, &mut |incoming| {
                let (one, two) = if own_first { (own, incoming[0]) } else { (incoming[0], own) };
                bound.kernel.fold_pair(into, one, two, finish);
            })
        }
        Exchange::Halves => {
            let fold = &rest[0];
            let (place, own) = fold.locals[0];
            let own = own.region(regions).read(own.start..own.start + fold.len);
            let into = fold.into.expect("`is_swap` found a fold that stores");
            let into = into.region(regions).write(into.start..into.start + fold.len);
            let finish = fold.finishes.then_some(bound.ranks);
            // Both outputs are the callers' own. In place their lines have just been read, and are better kept.
            let streams = bound.store == Store::Streaming && send.lends;
            let store = if streams { Store::StreamingBoth } else { Store::Cached };
            links.meet_swap(fold.len, looks, &mut |theirs, answer| {
                let sources = if place == 0 { [own, theirs] } else { [theirs, own] };
                bound.kernel.fold(into, &sources, Some(answer), finish, store);
            })
        }
        Exchange::Passes => links.meet(len, looks, &mut |incoming| {
            for pass in rest {
                take(bound, pass, send, incoming, regions);
            }
        }),
    }
}

/// Runs one pass on what the peers sent, one view for each peer in the order of their ranks.
#[inline]
fn take(bound: &Bound, pass: &BoundPass, send: &BoundPass, incoming: &[View<'_>], regions: &Regions<'_>) {
    let incoming = match *pass.from {
        [] => &[],
        [peer] => {
            let place = send.to.iter().filter(|to| **to < peer).count();
            &incoming[place..=place]
        }
        _ => incoming,
    };
    match (pass.kind, pass.into) {
        (Kind::Recv, Some(into)) => {
            let into = into.region(regions).write(into.start..into.start + pass.len);
            kernel::copy(incoming[0], into, None, Store::Cached);
        }
        _ => fold::whole(bound, pass, incoming, regions),
    }
}
