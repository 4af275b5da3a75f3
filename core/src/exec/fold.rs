//! One slice of a fold: gathers the views of its sources and runs the kernel on them, or what the call folds with instead.

use super::bind::{Bound, BoundPass};
use crate::error::LinkError;
use crate::kernel::{self, Fold, Store};
use crate::link::{Links, SOURCES_MAX, Window};
use crate::operation::Operand;
use crate::rank::Rank;
use sohu_coll_mem::{Regions, View, ViewMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What of a call one trip over memory is for.
#[derive(Clone, Copy)]
pub(super) struct Slice<'a> {
    pub(super) bound: &'a Bound,
    pub(super) pass: &'a BoundPass,
    pub(super) operand: &'a Operand,
    /// The byte of the pass that it starts with.
    pub(super) done: usize,
    /// The most bytes.
    pub(super) limit: usize,
}

impl Slice<'_> {
    /// Folds, and forwards to `to` what it folds. Returns how many bytes.
    #[inline]
    pub(super) fn fold(
        &self,
        to: &[Rank],
        regions: &Regions<'_>,
        links: &mut dyn Links,
    ) -> Result<usize, LinkError> {
        match self.operand {
            Operand::Fold(fold) => self.guarded(&**fold, to, regions, links),
            _ => self.any(to, regions, links),
        }
    }

    #[inline]
    fn any(&self, to: &[Rank], regions: &Regions<'_>, links: &mut dyn Links) -> Result<usize, LinkError> {
        // Few sources are the common case, and clearing a table for the most there can be would cost
        // more than folding a small message does.
        match self.pass.locals.len() + self.pass.from.len() {
            0..=2 => self.sized::<2>(to, regions, links),
            3..=8 => self.sized::<8>(to, regions, links),
            _ => self.sized::<SOURCES_MAX>(to, regions, links),
        }
    }

    /// As [`any`](Self::any), where the function of a user may panic. The links have then neither consumed nor sent what the
    /// function saw and wrote, and are not used again but to be given up: whatever else they hold is as it was.
    fn guarded(
        &self,
        fold: &dyn Fold,
        to: &[Rank],
        regions: &Regions<'_>,
        links: &mut dyn Links,
    ) -> Result<usize, LinkError> {
        let caught = catch_unwind(AssertUnwindSafe(|| self.any(to, regions, links)));
        caught.unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
            let text = text.unwrap_or_else(|| "no text".into());
            Err(LinkError::Panicked { operation: fold.name().into(), text })
        })
    }

    #[inline]
    fn sized<const SOURCES: usize>(
        &self,
        to: &[Rank],
        regions: &Regions<'_>,
        links: &mut dyn Links,
    ) -> Result<usize, LinkError> {
        let mut work = |window: Window<'_>| self.work::<SOURCES>(regions, window);
        if self.pass.from.is_empty() && to.is_empty() {
            work(Window { incoming: &[], outgoing: None, past_caches: false });
            return Ok(self.limit);
        }
        links.pass(&self.pass.from, to, self.limit, self.bound.granule, &mut work)
    }

    /// Folds what the window shows, or `limit` bytes where it shows nothing.
    #[inline]
    fn work<const SOURCES: usize>(&self, regions: &Regions<'_>, window: Window<'_>) {
        let Self { pass, done, limit, .. } = *self;
        let bytes = match (window.incoming.first(), window.outgoing) {
            (Some(view), _) => view.len(),
            (None, Some(view)) => view.len(),
            (None, None) => limit,
        };
        let stored = pass.into.map(|spot| {
            let start = spot.start + done;
            spot.region(regions).write(start..start + bytes)
        });
        let outgoing = window.outgoing.map(|out| (out, window.past_caches));
        // What two ranks do, with nothing that a loop needs: it takes longer than folding a few bytes.
        if let ([(place, spot)], [theirs]) = (&*pass.locals, window.incoming) {
            let start = spot.start + done;
            let own = spot.region(regions).read(start..start + bytes);
            let sources = if *place == 0 { [own, *theirs] } else { [*theirs, own] };
            return self.run(&sources, stored, outgoing);
        }
        let mut sources = [View::EMPTY; SOURCES];
        for (place, spot) in &pass.locals {
            let start = spot.start + done;
            sources[*place] = spot.region(regions).read(start..start + bytes);
        }
        for (place, view) in pass.from_places.iter().zip(window.incoming) {
            sources[*place] = *view;
        }
        self.run(&sources[..pass.locals.len() + pass.from.len()], stored, outgoing);
    }

    #[inline]
    fn run(&self, sources: &[View<'_>], stored: Option<ViewMut<'_>>, outgoing: Option<(ViewMut<'_>, bool)>) {
        let bound = self.bound;
        let (into, also, store) = match (stored, outgoing) {
            (Some(stored), None) => (stored, None, bound.store),
            // The kernel's first destination is the one that it can store past the caches.
            (Some(stored), Some((outgoing, true))) => (outgoing, Some(stored), Store::Streaming),
            (Some(stored), Some((outgoing, false))) => (stored, Some(outgoing), bound.store),
            (None, Some((outgoing, past_caches))) => (outgoing, None, outgoing_store(past_caches)),
            (None, None) => unreachable!("a pass stores or forwards: `bind` made it so"),
        };
        let finish = self.pass.finishes.then_some(bound.ranks);
        match (self.operand, self.pass.scaled, sources) {
            (Operand::Scalar(scalar), Some(place), _) => {
                bound.kernel.fold_scaled(into, sources, also, (place, *scalar), store);
            }
            (Operand::Fold(fold), _, [_, _, ..]) => fold.fold(into, also, sources),
            (_, _, [one]) if finish.is_none() => kernel::copy(*one, into, also, store),
            _ => bound.kernel.fold(into, sources, also, finish, store),
        }
    }
}

/// Folds the whole of the pass, whose peers' bytes have all come.
#[inline]
pub(super) fn whole(bound: &Bound, pass: &BoundPass, incoming: &[View<'_>], regions: &Regions<'_>) {
    let window = Window { incoming, outgoing: None, past_caches: false };
    let slice = Slice { bound, pass, operand: &Operand::None, done: 0, limit: pass.len };
    match pass.locals.len() + pass.from.len() {
        0..=2 => slice.work::<2>(regions, window),
        3..=8 => slice.work::<8>(regions, window),
        _ => slice.work::<SOURCES_MAX>(regions, window),
    }
}

/// How what goes out is stored.
#[inline]
pub(super) fn outgoing_store(past_caches: bool) -> Store {
    if past_caches { Store::Streaming } else { Store::Cached }
}
