//! What a rank copies for itself, in one trip with what it sends or takes.
//!
//! The bytes of a peer come out of another core's cache, and the copy of the own ones fills the time until they are here. So a
//! copy that nothing waits for is put off until a receive can take it along, or until nothing else can be done. If it is long, and what
//! is copied is what is sent, it goes with the sending: its bytes are read once then. That needs the peer's signature
//! first, which is not worth it for a short one. Only calls of two ranks that both send and receive do this.
//! Invariant: it is verified like any other pass before it writes a byte, because that send or receive is.

use super::bind::{BoundPass, Kind};
use super::{KERNEL_FROM, Run};
use crate::error::LinkError;
use crate::kernel::{self, Store};
use crate::link::Links;
use sohu_coll_mem::{Regions, View, ViewMut};

/// From this length on a copy goes with the sending, or by itself.
const CARRIED_MIN: usize = 128 << 10;

/// Bytes that are sent and then copied while they are in the nearest cache: stores go to one place at a time.
const BLOCK: usize = 2048;

/// A copy that waits for nothing and that nothing waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    /// The pass that copies.
    pub(super) copy: usize,
    /// The pass that sends the same bytes, if the copy goes along with it.
    pub(super) send: Option<usize>,
}

/// The own copy among the passes of one of two ranks, if both send and receive and neither writes to the other's memory. A
/// rank that only receives finds bytes that have left the sender's cache, or waits for the sender alone; more ranks on as many
/// cores were not measured, and on fewer there is nothing to gain.
pub(super) fn find(passes: &[BoundPass], ranks: u32) -> Option<Own> {
    let count = |kind| passes.iter().filter(|pass| pass.kind == kind).count();
    let (sends, receives) = (count(Kind::Send), count(Kind::Recv));
    let is_trade = ranks == 2 && sends > 0 && receives > 0 && sends + receives + 1 == passes.len();
    if !is_trade || passes.iter().any(|pass| pass.posts) {
        return None;
    }
    let is_awaited =
        |index| passes.iter().any(|pass| pass.after.iter().any(|edge| edge.on as usize == index));
    let copy = (0..passes.len()).find(|index| {
        let pass = &passes[*index];
        let is_copy = pass.kind == Kind::Fold && pass.locals.len() == 1 && pass.from.is_empty();
        let is_plain = pass.into.is_some() && pass.to.is_empty() && !pass.finishes && pass.scaled.is_none();
        is_copy && is_plain && pass.after.is_empty() && !is_awaited(*index)
    })?;
    let own = &passes[copy];
    if own.len < CARRIED_MIN {
        return Some(Own { copy, send: None });
    }
    // Beside a long receive it would keep more lines in the cache than it saves time.
    let send = passes.iter().position(|pass| {
        let is_same = pass.kind == Kind::Send && pass.out_of == own.locals[0].1 && pass.len == own.len;
        is_same && !pass.lends && pass.after.is_empty()
    })?;
    Some(Own { copy, send: Some(send) })
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
        let moved = if landing.len() <= KERNEL_FROM || self.bound.fetches {
            links.recv(pass.from[0], landing)?
        } else {
            let (store, mut own) = (self.bound.store, self.own(regions));
            let moved = links.pass(&pass.from, &[], landing.len(), 1, &mut |window| {
                let bytes = window.incoming[0];
                let landing = landing.first(bytes.len());
                match &mut own {
                    // What comes from afar was fetched ahead by the processor, as memory is, and did not get better by this.
                    Some((_, from, into, moved)) if !window.past_caches => {
                        let len = if from.len() <= bytes.len() { from.len() } else { bytes.len() & !63 };
                        kernel::copy_beside((from.first(len), into.first(len)), (bytes, landing), store);
                        *moved = len;
                    }
                    _ => kernel::copy(bytes, landing, None, store),
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

    /// Whether the own copy goes along with the pass at `index`, which sends.
    #[inline]
    pub(super) fn carries(&self, index: usize) -> bool {
        let Some(Own { copy, send: Some(send) }) = self.bound.own else { return false };
        send == index && self.states[copy].done == self.states[send].done
    }

    /// Whether there is something to copy, and what sends the same bytes does not do it.
    #[inline]
    pub(super) fn may_copy(&self, own: Own) -> bool {
        !self.is_complete(own.copy) && own.send.is_none_or(|send| self.is_complete(send))
    }

    /// Sends, and copies what it sends.
    pub(super) fn send_own(
        &mut self,
        index: usize,
        pass: &BoundPass,
        regions: &Regions<'_>,
        links: &mut dyn Links,
    ) -> Result<bool, LinkError> {
        let Some(Own { copy, .. }) = self.bound.own else { unreachable!("it goes along with a send") };
        let (done, store) = (self.states[index].done, self.bound.store);
        let (from, into) = (pass.out_of, self.bound.passes[copy].into);
        let into = into.expect("a copy has a destination: `find` looked");
        let len = (pass.len - done).min(self.bound.slice);
        let stored = into.start + done..into.start + done + len;
        if len == 0 || !into.region(regions).is_free(stored.clone()) || !self.verify(links)? {
            return Ok(false);
        }
        let bytes = from.region(regions).read(from.start + done..from.start + done + len);
        let stored = into.region(regions).write(stored);
        let moved = links.pass(&[], &pass.to, len, 1, &mut |window| {
            if let Some(out) = window.outgoing {
                let len = out.len();
                copy_twice(bytes.first(len), out, stored.first(len), (window.past_caches, store));
            }
        })?;
        for index in [index, copy] {
            self.states[index].done += moved;
            self.states[index].sent += moved;
        }
        Ok(moved > 0)
    }

    /// The rest of the own copy, if there is one and it can be done now: which pass, from where to where, and that nothing was moved.
    fn own<'a>(&self, regions: &Regions<'a>) -> Option<(usize, View<'a>, ViewMut<'a>, usize)> {
        let own = self.bound.own.filter(|own| self.may_copy(*own))?;
        let index = own.copy;
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

/// Moves bytes to where they go out and to where they are kept.
fn copy_twice(from: View<'_>, out: ViewMut<'_>, kept: ViewMut<'_>, (past_caches, store): (bool, Store)) {
    // The kernel's first destination is the one that it can store past the caches.
    if past_caches {
        return kernel::copy(from, out, Some(kept), Store::Streaming);
    }
    if store != Store::Cached {
        return kernel::copy(from, kept, Some(out), store);
    }
    for at in (0..from.len()).step_by(BLOCK) {
        let block = at..from.len().min(at + BLOCK);
        let bytes = from.slice(block.clone());
        kernel::copy(bytes, out.slice(block.clone()), None, Store::Cached);
        kernel::copy(bytes, kept.slice(block), None, Store::Cached);
    }
}
