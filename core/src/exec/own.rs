//! What a rank copies for itself, beside what it takes from others.
//!
//! The bytes of a peer come out of another core's cache, and the copy of the own ones fills the time until they are here. So a copy that
//! nothing waits for is put off until a receive can take it along, or until nothing else can be done.
//! Invariant: it is verified like any other pass before it writes a byte, because the receive is.

use super::bind::{BoundPass, Kind};
use super::{KERNEL_FROM, Run};
use crate::error::LinkError;
use crate::kernel;
use crate::link::Links;
use sohu_coll_mem::{Regions, View, ViewMut};

/// The copy of a program that waits for nothing and that nothing waits for, if there is one and nobody writes to this rank's
/// memory: then what is received passes through this rank's hands.
pub(super) fn find(passes: &[BoundPass]) -> Option<usize> {
    if passes.iter().any(|pass| pass.posts) {
        return None;
    }
    let is_awaited = |index| passes.iter().any(|pass| pass.after.iter().any(|edge| edge.on as usize == index));
    (0..passes.len()).find(|index| {
        let pass = &passes[*index];
        let is_copy = pass.kind == Kind::Fold && pass.locals.len() == 1 && pass.from.is_empty();
        let is_plain = pass.into.is_some() && pass.to.is_empty() && !pass.finishes && pass.scaled.is_none();
        is_copy && is_plain && pass.after.is_empty() && !is_awaited(*index)
    })
}

impl Run<'_> {
    pub(super) fn recv(
        &mut self,
        index: usize,
        pass: &BoundPass,
        ready: usize,
        regions: &Regions<'_>,
        links: &mut dyn Links,
    ) -> Result<bool, LinkError> {
        let state = &self.states[index];
        let into = pass.into.expect("a receive has a destination: `bind` made it one");
        let region = into.region(regions);
        let range = into.start + state.done..into.start + ready.min(state.done + self.bound.slice);
        if !state.posted && !region.is_free(range.clone()) {
            return Ok(false);
        }
        let landing = region.landing(range);
        let moved = if state.posted || landing.len() <= KERNEL_FROM {
            links.recv(pass.from[0], landing)?
        } else {
            let (store, mut own) = (self.bound.store, self.own(regions));
            let moved = links.pass(&pass.from, &[], landing.len(), 1, &mut |window| {
                let bytes = window.incoming[0];
                let landing = landing.first(bytes.len());
                match &mut own {
                    Some((_, from, into, moved)) => {
                        let len = if from.len() <= bytes.len() { from.len() } else { bytes.len() & !63 };
                        kernel::copy_beside((from.first(len), into.first(len)), (bytes, landing), store);
                        *moved = len;
                    }
                    None => kernel::copy(bytes, landing, None, store),
                }
            })?;
            if let Some((own, .., moved)) = own {
                self.states[own].done += moved;
                self.states[own].sent += moved;
            }
            moved
        };
        let state = &mut self.states[index];
        state.done += moved;
        state.sent = state.done;
        Ok(moved > 0)
    }

    /// The rest of the own copy, if there is one and it can be done now: which pass, from where to where, and that nothing was moved.
    fn own<'a>(&self, regions: &Regions<'a>) -> Option<(usize, View<'a>, ViewMut<'a>, usize)> {
        let index = self.bound.own?;
        let (pass, done) = (&self.bound.passes[index], self.states[index].done);
        let (from, into) = (pass.locals[0].1, pass.into?);
        let range = into.start + done..into.start + pass.len;
        if range.is_empty() || !into.region(regions).is_free(range.clone()) {
            return None;
        }
        let bytes = from.region(regions).read(from.start + done..from.start + pass.len);
        Some((index, bytes, into.region(regions).write(range), 0))
    }
}
