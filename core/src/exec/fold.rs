//! One slice of a fold: gathers the views of its sources and runs the kernel on them.

use super::bind::{Bound, BoundPass};
use crate::error::LinkError;
use crate::kernel::{self, Store};
use crate::link::{Links, SOURCES_MAX, Window};
use crate::rank::Rank;
use sohu_coll_mem::{Regions, View, ViewMut};

/// Folds at most `limit` bytes from byte `done` of the pass on, forwarding them to `to`. Returns how many.
#[inline]
pub(super) fn slice(
    bound: &Bound,
    pass: &BoundPass,
    done: usize,
    limit: usize,
    to: &[Rank],
    regions: &Regions<'_>,
    links: &mut dyn Links,
) -> Result<usize, LinkError> {
    // Few sources are the common case, and clearing a table for the most there can be would cost
    // more than folding a small message does.
    match pass.locals.len() + pass.from.len() {
        0..=2 => sized::<2>(bound, pass, done, limit, to, regions, links),
        3..=8 => sized::<8>(bound, pass, done, limit, to, regions, links),
        _ => sized::<SOURCES_MAX>(bound, pass, done, limit, to, regions, links),
    }
}

/// Folds the whole of the pass, whose peers' bytes have all come.
#[inline]
pub(super) fn whole(bound: &Bound, pass: &BoundPass, incoming: &[View<'_>], regions: &Regions<'_>) {
    let window = Window { incoming, outgoing: None, past_caches: false };
    match pass.locals.len() + pass.from.len() {
        0..=2 => work::<2>(bound, pass, 0, pass.len, regions, window),
        3..=8 => work::<8>(bound, pass, 0, pass.len, regions, window),
        _ => work::<SOURCES_MAX>(bound, pass, 0, pass.len, regions, window),
    }
}

#[inline]
fn sized<const SOURCES: usize>(
    bound: &Bound,
    pass: &BoundPass,
    done: usize,
    limit: usize,
    to: &[Rank],
    regions: &Regions<'_>,
    links: &mut dyn Links,
) -> Result<usize, LinkError> {
    let mut work = |window: Window<'_>| work::<SOURCES>(bound, pass, done, limit, regions, window);
    if pass.from.is_empty() && to.is_empty() {
        work(Window { incoming: &[], outgoing: None, past_caches: false });
        return Ok(limit);
    }
    links.pass(&pass.from, to, limit, bound.granule, &mut work)
}

/// Folds what the window shows, or `limit` bytes where it shows nothing.
#[inline]
fn work<const SOURCES: usize>(
    bound: &Bound,
    pass: &BoundPass,
    done: usize,
    limit: usize,
    regions: &Regions<'_>,
    window: Window<'_>,
) {
    let bytes = match (window.incoming.first(), window.outgoing) {
        (Some(view), _) => view.len(),
        (None, Some(view)) => view.len(),
        (None, None) => limit,
    };
    let stored = pass.into.map(|spot| {
        let start = spot.start + done;
        spot.region(regions).write(start..start + bytes)
    });
    let finish = pass.finishes.then_some(bound.ranks);
    let outgoing = window.outgoing.map(|out| (out, window.past_caches));
    // What two ranks do, with nothing that a loop needs: it takes longer than folding a few bytes.
    if let ([(place, spot)], [theirs]) = (&*pass.locals, window.incoming) {
        let start = spot.start + done;
        let own = spot.region(regions).read(start..start + bytes);
        let sources = if *place == 0 { [own, *theirs] } else { [*theirs, own] };
        return run(bound, &sources, stored, outgoing, finish);
    }
    let mut sources = [View::EMPTY; SOURCES];
    for (place, spot) in &pass.locals {
        let start = spot.start + done;
        sources[*place] = spot.region(regions).read(start..start + bytes);
    }
    for (place, view) in pass.from_places.iter().zip(window.incoming) {
        sources[*place] = *view;
    }
    let sources = &sources[..pass.locals.len() + pass.from.len()];
    run(bound, sources, stored, outgoing, finish);
}

/// How what goes out is stored.
#[inline]
pub(super) fn outgoing_store(past_caches: bool) -> Store {
    if past_caches { Store::Streaming } else { Store::Cached }
}

#[inline]
fn run(
    bound: &Bound,
    sources: &[View<'_>],
    stored: Option<ViewMut<'_>>,
    outgoing: Option<(ViewMut<'_>, bool)>,
    finish: Option<u32>,
) {
    let (into, also, store) = match (stored, outgoing) {
        (Some(stored), None) => (stored, None, bound.store),
        // The kernel's first destination is the one that it can store past the caches.
        (Some(stored), Some((outgoing, true))) => (outgoing, Some(stored), Store::Streaming),
        (Some(stored), Some((outgoing, false))) => (stored, Some(outgoing), bound.store),
        (None, Some((outgoing, past_caches))) => (outgoing, None, outgoing_store(past_caches)),
        (None, None) => unreachable!("a pass stores or forwards: `bind` made it so"),
    };
    match sources {
        [one] if finish.is_none() => kernel::copy(*one, into, also, store),
        _ => bound.kernel.fold(into, sources, also, finish, store),
    }
}
