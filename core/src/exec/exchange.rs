//! Small calls in one round: every rank sends all others the same few bytes, and works on what they sent.
//!
//! The direct algorithms are such: their first pass sends one buffer to every peer, and the others only take.
//! Then the call is one [`Links::offer`] and one [`Links::meet`] where the peers come soon, and is run pass by
//! pass where they do not.

use super::bind::{Bound, BoundPass, Kind, Spot};
use super::fold;
use crate::kernel::{self, Store};
use crate::link::{EXCHANGE_LENT_MAX, EXCHANGE_MAX, Links, Met};
use crate::signature::Signature;
use sohu_coll_mem::{Regions, View};

/// What an exchange needs to know of its passes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Exchange {
    /// Two ranks fold their bytes: the own ones lie here and come first or not, and the result goes there.
    Pair { own: Spot, own_first: bool, into: Spot },
    /// Anything else: the passes say it.
    Passes,
}

/// The exchange that the passes are, if they are one: the first one sends the same bytes to every peer, each other
/// one stores what it takes, and together they take that many bytes from each.
pub(super) fn find(passes: &[BoundPass], ranks: u32) -> Option<Exchange> {
    let [send, rest @ ..] = passes else { return None };
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

/// Begins the call and offers this rank's bytes. Returns how many went: all, or fewer, and then this is no exchange.
#[inline]
pub(super) fn offer(bound: &Bound, call: &Signature, regions: &Regions<'_>, links: &mut dyn Links) -> usize {
    let send = &bound.passes[0];
    let start = send.out_of.start;
    let region = send.out_of.region(regions);
    let bytes = region.read(start..start + send.len);
    let lent = if send.lends { region.lend(start..start + send.len) } else { None };
    links.offer(call, &send.to, bytes, lent)
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
