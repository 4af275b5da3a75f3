//! Small calls in one round: ranks send others the same few bytes, or a block each, and work on what they get.
//!
//! The direct algorithms are such: their first passes send what the caller gave, and the others only take.
//! Then the call is one [`Links::offer`] and one [`Links::meet`] where the peers come soon, and is run pass by
//! pass where they do not. Some ranks of a call may find that their passes are an exchange, and others not: to
//! their peers it is the same.

use super::bind::{Bound, BoundPass, Kind, Spot};
use super::fold;
use crate::error::LinkError;
use crate::kernel::{self, Store};
use crate::link::{
    EXCHANGE_FETCHED_MAX, EXCHANGE_LENT_MAX, EXCHANGE_MAX, Half, LEND_MIN, Links, Met, SOURCES_MAX, Work,
};
use crate::rank::Rank;
use crate::signature::Signature;
use core::cell::Cell;
use sohu_coll_mem::{ReadSpan, Regions, View, ViewMut};

/// How an exchange works on what came.
#[derive(Clone, Copy, Debug)]
pub(super) enum Exchange {
    /// Two ranks fold their bytes: the own ones lie here and come first or not, and the result goes there. Of how many ranks
    /// it is the result, if it is finished with that.
    Pair { own: Spot, own_first: bool, into: Spot, finish: Option<u32> },
    /// What one rank sends is stored there.
    Take { into: Spot },
    /// What one rank sends is stored there, and `len` own bytes are copied.
    Beside { own: Spot, at: Spot, len: usize, into: Spot },
    /// Two ranks fold half of their bytes each, and store the result in both outputs: a swap.
    Halves,
    /// Anything else: the passes say it.
    Passes,
}

/// What an exchange needs to know of its passes.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) kind: Exchange,
    /// How many passes send; they are the first ones. If there are several, each sends one peer a block of its own.
    pub(super) sends: usize,
    /// Where there are several: the ranks that they send to.
    blocks_to: Box<[Rank]>,
    /// Bytes that go to each peer that gets any, and that come from each that gives any.
    pub(super) len: usize,
    /// The ranks that bytes come from, in order.
    pub(super) from: Box<[Rank]>,
    /// Whether all ranks send to all others, and take from them. Two of them do it in one go, if they can.
    pub(super) is_full: bool,
    /// Whether what is sent is lent.
    lends: bool,
}

/// The exchange that the passes are, if they are one: the first ones send the same bytes to all that get any, or a block
/// to each; each other one stores what it takes; and no rank gives bytes to more than one of those.
///
/// Where memory is lent that has to be fetched, no rank takes from several: it would work on one after the other.
pub(super) fn find(passes: &[BoundPass], ranks: u32, fetches: bool) -> Option<Round> {
    let first = passes.first()?;
    let others = ranks as usize - 1;
    if !fetches && is_swap(passes, ranks) {
        let (kind, blocks_to, from) = (Exchange::Halves, Box::default(), first.to.clone());
        return Some(Round { kind, sends: 1, blocks_to, len: first.len, from, is_full: true, lends: true });
    }
    let sends = passes.iter().take_while(|pass| pass.kind == Kind::Send && pass.after.is_empty()).count();
    let (out, rest) = passes.split_at(sends);
    let mut from: Vec<Rank> = rest.iter().flat_map(|pass| &pass.from).copied().collect();
    let taken = from.len();
    from.sort_unstable();
    from.dedup();
    let len = if sends > 0 { first.len } else { rest.iter().find(|pass| !pass.from.is_empty())?.len };
    let blocks_to: Vec<Rank> = match sends {
        0..=1 => Vec::new(),
        _ => out.iter().flat_map(|pass| &pass.to).copied().collect(),
    };
    let twice = (1..blocks_to.len()).any(|at| blocks_to[..at].contains(&blocks_to[at]));
    let is_full = sends == 1 && first.to.len() == others && taken == others;
    let even = out.iter().all(|pass| pass.len == len && (sends == 1 || pass.to.len() == 1 && !twice));
    let all_or_one = |pass: &BoundPass| *pass.from == *from || pass.from.len() == 1;
    let takes = |pass: &BoundPass| {
        (pass.from.is_empty() || pass.len == len && all_or_one(pass)) && pass.to.is_empty()
    };
    let is_one = others > 0 && even && taken == from.len() && rest.iter().all(takes);
    if !is_one || sends > SOURCES_MAX || taken > if fetches { 1 } else { SOURCES_MAX } {
        return None;
    }
    let kind = kind(rest, ranks);
    // What goes one way and is short is not lent: its readers are not all waited for, and a loan would be.
    let lends = sends == 1 && first.lends && (is_full || fetches && taken == 0);
    let is_stored = taken == 0 || matches!(kind, Exchange::Take { .. } | Exchange::Beside { .. });
    let most = match lends || fetches && sends == 0 {
        true if fetches && is_stored => EXCHANGE_FETCHED_MAX,
        true => EXCHANGE_LENT_MAX,
        false => EXCHANGE_MAX,
    };
    let is_small = (1..=most).contains(&len) && (sends <= 1 || sends * len <= EXCHANGE_MAX);
    is_small.then(|| Round {
        kind,
        sends,
        blocks_to: blocks_to.into(),
        len,
        from: from.into(),
        is_full,
        lends,
    })
}

/// What is done with what comes, where `rest` are the passes that take it.
fn kind(rest: &[BoundPass], ranks: u32) -> Exchange {
    match rest {
        [fold] if fold.kind == Kind::Fold => match (&*fold.locals, &*fold.from, fold.into) {
            ([(place, own)], [_], Some(into)) => {
                let finish = fold.finishes.then_some(ranks);
                Exchange::Pair { own: *own, own_first: *place == 0, into, finish }
            }
            _ => Exchange::Passes,
        },
        [BoundPass { kind: Kind::Recv, into: Some(into), .. }] => Exchange::Take { into: *into },
        [one, other] => beside(one, other).or_else(|| beside(other, one)).unwrap_or(Exchange::Passes),
        _ => Exchange::Passes,
    }
}

/// What the passes are, if they are a copy of own bytes and a receive.
fn beside(copy: &BoundPass, take: &BoundPass) -> Option<Exchange> {
    let copies = copy.kind == Kind::Fold && copy.from.is_empty() && !copy.finishes;
    let (&[(_, own)], true, Kind::Recv) = (&*copy.locals, copies, take.kind) else { return None };
    Some(Exchange::Beside { own, at: copy.into?, len: copy.len, into: take.into? })
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

/// Begins the call and offers this rank's bytes.
///
/// # Errors
/// How many bytes of each pass that sends went, where not all did: the call goes on by the other methods of the links.
#[inline]
pub(super) fn offer(
    bound: &Bound,
    round: &Round,
    call: &Signature,
    regions: &Regions<'_>,
    links: &mut dyn Links,
) -> Result<(), usize> {
    match round.sends {
        1 => {}
        0..=8 => return offer_blocks::<8>(bound, round, call, regions, links),
        _ => return offer_blocks::<SOURCES_MAX>(bound, round, call, regions, links),
    }
    if matches!(round.kind, Exchange::Halves) {
        // An error is kept, and told by the method that is called next.
        let _: Result<(), LinkError> = links.begin(call);
        return Err(0);
    }
    let send = &bound.passes[0];
    let start = send.out_of.start;
    let region = send.out_of.region(regions);
    let bytes = region.read(start..start + send.len);
    let lent = if round.lends { region.lend(start..start + send.len) } else { None };
    let sent = links.offer(call, &send.to, bytes, lent);
    if sent == send.len { Ok(()) } else { Err(sent) }
}

/// Begins the call and offers some peers a block each, or all the signature alone.
fn offer_blocks<const BLOCKS: usize>(
    bound: &Bound,
    round: &Round,
    call: &Signature,
    regions: &Regions<'_>,
    links: &mut dyn Links,
) -> Result<(), usize> {
    let mut blocks = [View::EMPTY; BLOCKS];
    for (block, pass) in blocks.iter_mut().zip(&bound.passes[..round.sends]) {
        let start = pass.out_of.start;
        *block = pass.out_of.region(regions).read(start..start + pass.len);
    }
    if links.offer_blocks(call, &round.blocks_to, &blocks[..round.sends]) { Ok(()) } else { Err(0) }
}

/// Makes the exchange from beginning to end, where it is one of two ranks and the links have a shorter way for that.
#[inline]
pub(super) fn make(
    bound: &Bound,
    round: &Round,
    (call, looks): (&Signature, u32),
    regions: &Regions<'_>,
    links: &mut dyn Links,
) -> Option<Met> {
    if regions.input.spans_out() > 0 {
        return None;
    }
    if matches!(round.kind, Exchange::Halves) {
        return make_halves(bound, (call, looks), regions, links);
    }
    let send = &bound.passes[0];
    let range = send.out_of.start..send.out_of.start + send.len;
    let region = send.out_of.region(regions);
    let bytes = region.read(range.clone());
    let lend = || region.lend(range.clone()).expect("nothing is out, and a pass has bytes");
    let lend: Option<&dyn Fn() -> ReadSpan> = if round.lends { Some(&lend) } else { None };
    work(bound, round, regions, |work| links.exchange(call, bytes, lend, looks, work))
}

/// As [`make`], for a swap.
#[inline]
fn make_halves(
    bound: &Bound,
    (call, looks): (&Signature, u32),
    regions: &Regions<'_>,
    links: &mut dyn Links,
) -> Option<Met> {
    let [send, fold, .., take] = &*bound.passes else { unreachable!("`is_swap` found these passes") };
    let into = take.into.expect("a receive has a destination: `bind` made it one");
    let (from, into) = (send.out_of, into);
    let (given, got) = (from.start..from.start + send.len, into.start..into.start + take.len);
    let spans = || {
        let lent = if send.lends { from.region(regions).lend(given.clone()) } else { None };
        let posted = into.region(regions).post(got.clone());
        (lent, posted.expect("nothing is out but the other half, and the output can be written"))
    };
    let half = Half {
        bytes: from.region(regions).read(given.clone()),
        answer: into.region(regions).write(got.clone()),
        at: take.stream_at,
        theirs: fold.len,
        spans: &spans,
    };
    halves(bound, regions, |work| links.swap(call, half, looks, work))
}

/// Has `meet` work on the other rank's part of a swap.
#[inline]
fn halves<R>(
    bound: &Bound,
    regions: &Regions<'_>,
    meet: impl FnOnce(&mut dyn FnMut(View<'_>, ViewMut<'_>)) -> R,
) -> R {
    let (send, fold) = (&bound.passes[0], &bound.passes[1]);
    let (place, own) = fold.locals[0];
    let own = own.region(regions).read(own.start..own.start + fold.len);
    let into = fold.into.expect("`is_swap` found a fold that stores");
    let into = into.region(regions).write(into.start..into.start + fold.len);
    let finish = fold.finishes.then_some(bound.ranks);
    // Both outputs are the callers' own. In place their lines have just been read, and are better kept.
    let streams = bound.store == Store::Streaming && send.lends;
    let store = if streams { Store::StreamingBoth } else { Store::Cached };
    meet(&mut |theirs, answer| {
        let sources = if place == 0 { [own, theirs] } else { [theirs, own] };
        bound.kernel.fold(into, &sources, Some(answer), finish, store);
    })
}

/// Has `meet` work on what came, and meanwhile on what needs nobody.
#[inline]
fn work<R>(bound: &Bound, round: &Round, regions: &Regions<'_>, meet: impl FnOnce(Work<'_>) -> R) -> R {
    let (len, from) = (round.len, &*round.from);
    match round.kind {
        Exchange::Pair { own, own_first, into, finish } => {
            let own = own.region(regions).read(own.start..own.start + len);
            let into = into.region(regions).write(into.start..into.start + len);
            meet(Work::new(&mut |incoming| {
                let (one, two) = if own_first { (own, incoming[0]) } else { (incoming[0], own) };
                bound.kernel.fold_pair(into, one, two, finish);
            }))
        }
        Exchange::Take { into } => {
            let into = into.region(regions).write(into.start..into.start + len);
            let take = &mut |incoming: &[View<'_>]| store(incoming[0], into);
            meet(Work { take, into: Some(into), meanwhile: None })
        }
        Exchange::Beside { own, at, len: own_len, into } => {
            let own = own.region(regions).read(own.start..own.start + own_len);
            let at = at.region(regions).write(at.start..at.start + own_len);
            let into = into.region(regions).write(into.start..into.start + len);
            // First what comes from afar: the own bytes are copied while it is under way, or its return.
            let (lends, is_left) = (round.lends, Cell::new(false));
            let copy = || {
                store(own, at);
                is_left.set(false);
            };
            let take = &mut |incoming: &[View<'_>]| {
                store(incoming[0], into);
                is_left.set(true);
                if !lends {
                    copy();
                }
            };
            let met = meet(Work { take, into: Some(into), meanwhile: Some(&mut || copy()) });
            if is_left.get() {
                copy();
            }
            met
        }
        Exchange::Halves => unreachable!("`halves` has the work of a swap"),
        Exchange::Passes => meet(Work::new(&mut |incoming| {
            for pass in &bound.passes[round.sends..] {
                take(bound, pass, from, incoming, regions);
            }
        })),
    }
}

/// From so many bytes on the kernels copy faster than the standard library, whose string instructions take 0.55 us for 32 KiB and not 0.45.
const STORE_MIN: usize = 16 << 10;

/// Stores what came, or own bytes.
#[inline]
fn store(from: View<'_>, into: ViewMut<'_>) {
    if from.as_ptr() == into.as_mut_ptr().cast_const() {
        // It came there.
    } else if from.len() < STORE_MIN {
        from.copy_to(into);
    } else {
        kernel::copy(from, into, None, Store::Cached);
    }
}

/// Meets the peers, looking up to `looks` times more than once for what they send, and works on it.
#[inline]
pub(super) fn meet(
    bound: &Bound,
    round: &Round,
    looks: u32,
    regions: &Regions<'_>,
    links: &mut dyn Links,
) -> Met {
    match round.kind {
        Exchange::Halves => halves(bound, regions, |work| links.meet_swap(bound.passes[1].len, looks, work)),
        // What it works on is looked up now, while the bytes are under way.
        _ => work(bound, round, regions, |work| links.meet(&round.from, round.len, looks, work)),
    }
}

/// Runs one pass on what came, one view for each rank of `from`.
#[inline]
fn take(bound: &Bound, pass: &BoundPass, from: &[Rank], incoming: &[View<'_>], regions: &Regions<'_>) {
    let incoming = match *pass.from {
        [] => &[],
        [peer] => {
            let place = from.iter().filter(|other| **other < peer).count();
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
