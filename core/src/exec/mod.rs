//! The executor: runs one rank's passes over its links, slice by slice.
//!
//! It is polled and owns no clock, thread or socket: whoever polls decides how to wait. Invariants: a byte is
//! read only after the pass that makes it has stored it; no user byte is written before every peer's
//! signature was verified; nothing is allocated, locked or logged after [`Executor::new`]. [`bind`] turns
//! passes and extents into what is needed at run time, this file moves the slices.

pub mod bind;
mod fold;

pub use bind::{Binding, Bound};

use crate::error::LinkError;
use crate::link::{Links, Refused};
use crate::plan::Wait;
use crate::rank::Rank;
use bind::{BoundPass, Kind};
use sohu_coll_mem::Regions;
use std::sync::Arc;

/// What a poll came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something moved; poll again.
    Moved,
    /// Nothing can move until a peer does something.
    Idle,
    /// The call is complete and its buffers are the caller's again.
    Done,
}

/// How far a pass is, in bytes of its extent.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Stored (or, for a pure send, gone).
    done: usize,
    /// Forwarded; equal to `done` unless the result is lent after it was stored.
    sent: usize,
    /// Whether the destination was offered to the peer, or need not be offered again.
    posted: bool,
}

/// Passes considered in one poll. A program is a few passes for direct algorithms and 2n for a ring, of
/// which few can move at once; the bound keeps a poll short.
const WINDOW: usize = 64;

/// Runs one bound program, again and again.
#[derive(Debug)]
pub struct Executor {
    bound: Arc<Bound>,
    states: Box<[State]>,
    /// Passes below this are complete.
    first: usize,
    verified: bool,
}

impl Executor {
    /// An executor for `bound`, ready to [`start`](Self::start).
    pub fn new(bound: Arc<Bound>) -> Self {
        let states = vec![State::default(); bound.passes.len()].into();
        Self { bound, states, first: 0, verified: false }
    }

    /// The program that it runs.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Makes it ready for another call. The links' [`begin`](Links::begin) goes with it.
    #[inline]
    pub fn start(&mut self) {
        self.states.fill(State::default());
        self.first = 0;
        self.verified = false;
    }

    /// Does everything that can be done now. Never blocks, never allocates.
    ///
    /// # Errors
    /// What the links report; the call can not go on then.
    #[inline]
    pub fn poll(&mut self, regions: &Regions<'_>, links: &mut dyn Links) -> Result<Progress, LinkError> {
        let mut run = Run { bound: &self.bound, states: &mut self.states, verified: &mut self.verified };
        let count = run.bound.passes.len();
        let mut moved = false;
        for index in self.first..count.min(self.first + WINDOW) {
            if !run.is_complete(index) {
                moved |= run.advance(index, regions, links)?;
            }
        }
        while self.first < count && run.is_complete(self.first) {
            self.first += 1;
        }
        let complete = self.first == count && run.verify(links)?;
        moved |= links.poll()?;
        if complete && links.settled()? {
            return Ok(Progress::Done);
        }
        Ok(if moved { Progress::Moved } else { Progress::Idle })
    }

    /// The peers of the first pass that is not complete, and where the algorithm wrote it: what a call that
    /// does not end is waiting for.
    pub fn waiting_for(&self) -> Option<(Vec<Rank>, String)> {
        let pass = self.bound.passes.get(self.first)?;
        let state = &self.states[self.first];
        let mut peers: Vec<Rank> = pass.from.to_vec();
        if peers.is_empty() || state.sent < state.done {
            peers = pass.to.to_vec();
        }
        let file = pass.written_at.file().rsplit('/').next().unwrap_or_default();
        let at = format!(
            "pass {} of {} ({file}:{}), byte {} of {}",
            self.first + 1,
            self.bound.passes.len(),
            pass.written_at.line(),
            state.done,
            pass.len
        );
        Some((peers, at))
    }
}

/// One poll's view of the executor.
struct Run<'e> {
    bound: &'e Bound,
    states: &'e mut [State],
    verified: &'e mut bool,
}

impl Run<'_> {
    #[inline]
    fn verify(&mut self, links: &mut dyn Links) -> Result<bool, LinkError> {
        if !*self.verified {
            *self.verified = links.verify()?;
        }
        Ok(*self.verified)
    }

    #[inline]
    fn is_complete(&self, index: usize) -> bool {
        let (pass, state) = (&self.bound.passes[index], &self.states[index]);
        state.done == pass.len && state.sent == pass.len
    }

    /// How many bytes of the pass its dependencies allow.
    #[inline]
    fn ready(&self, pass: &BoundPass) -> usize {
        let mut ready = pass.len;
        for edge in &pass.after {
            let on = edge.on as usize;
            match edge.wait {
                Wait::Streaming => ready = ready.min(self.states[on].done),
                Wait::Whole if !self.is_complete(on) => return 0,
                Wait::Whole => {}
            }
        }
        ready
    }

    #[inline]
    fn advance(
        &mut self,
        index: usize,
        regions: &Regions<'_>,
        links: &mut dyn Links,
    ) -> Result<bool, LinkError> {
        let bound = self.bound;
        let pass = &bound.passes[index];
        let posts = pass.posts && !self.states[index].posted;
        let ready = if posts { self.post(index, pass, regions, links) } else { self.ready(pass) };
        let state = self.states[index];
        match pass.kind {
            Kind::Send => self.send(index, pass, ready, regions, links),
            _ if state.sent < state.done => self.forward(index, pass, regions, links),
            _ if state.done >= ready || !self.verify(links)? => Ok(false),
            Kind::Recv => self.recv(index, pass, ready, regions, links),
            Kind::Fold => self.fold(index, pass, ready, regions, links),
        }
    }

    /// Offers the destination of a receive to its peer, as soon as nothing else uses that memory. Order on
    /// the link does not matter for this: the offer says from which byte of the stream on it holds.
    fn post(
        &mut self,
        index: usize,
        pass: &BoundPass,
        regions: &Regions<'_>,
        links: &mut dyn Links,
    ) -> usize {
        let free = pass.after.iter().all(|edge| {
            self.is_complete(edge.on as usize) || bind::only_order(&self.bound.passes[edge.on as usize], pass)
        });
        if free && let (Some(into), [from]) = (pass.into, &*pass.from) {
            let range = into.start..into.start + pass.len;
            if let Some(span) = into.region(regions).post(range) {
                // A refusal is an answer too: the bytes then come through staging.
                let _: Result<(), Refused<_>> = links.post(*from, pass.stream_at, span);
                self.states[index].posted = true;
            }
        }
        self.ready(pass)
    }

    #[inline]
    fn send(
        &mut self,
        index: usize,
        pass: &BoundPass,
        ready: usize,
        regions: &Regions<'_>,
        links: &mut dyn Links,
    ) -> Result<bool, LinkError> {
        let state = &mut self.states[index];
        if state.done >= ready {
            return Ok(false);
        }
        let moved = move_out(pass, state.done, ready, self.bound.slice, regions, links)?;
        state.done += moved;
        state.sent = state.done;
        Ok(moved > 0)
    }

    /// Sends on what was stored but not forwarded in the same trip.
    fn forward(
        &mut self,
        index: usize,
        pass: &BoundPass,
        regions: &Regions<'_>,
        links: &mut dyn Links,
    ) -> Result<bool, LinkError> {
        let state = &mut self.states[index];
        let moved = move_out(pass, state.sent, state.done, self.bound.slice, regions, links)?;
        state.sent += moved;
        Ok(moved > 0)
    }

    fn recv(
        &mut self,
        index: usize,
        pass: &BoundPass,
        ready: usize,
        regions: &Regions<'_>,
        links: &mut dyn Links,
    ) -> Result<bool, LinkError> {
        let state = &mut self.states[index];
        let into = pass.into.expect("a receive has a destination: `bind` made it one");
        let region = into.region(regions);
        let range = into.start + state.done..into.start + ready.min(state.done + self.bound.slice);
        if !state.posted && !region.is_free(range.clone()) {
            return Ok(false);
        }
        let moved = links.recv(pass.from[0], region.landing(range))?;
        state.done += moved;
        state.sent = state.done;
        Ok(moved > 0)
    }

    #[inline]
    fn fold(
        &mut self,
        index: usize,
        pass: &BoundPass,
        ready: usize,
        regions: &Regions<'_>,
        links: &mut dyn Links,
    ) -> Result<bool, LinkError> {
        let state = &mut self.states[index];
        let limit = (ready - state.done).min(self.bound.slice) & !(self.bound.granule - 1);
        if limit == 0 {
            return Ok(false);
        }
        if let Some(into) = pass.into
            && !into.region(regions).is_free(into.start + state.done..into.start + state.done + limit)
        {
            return Ok(false);
        }
        // Registered results are lent from where they are stored, unless the one peer has posted
        // memory for them: then the same trip writes there too.
        let together = pass.into.is_none()
            || !pass.lends
            || matches!(*pass.to, [one] if links.posted(one) >= self.bound.granule);
        let to: &[Rank] = if together { &pass.to } else { &[] };
        let moved = fold::slice(self.bound, pass, state.done, limit, to, regions, links)?;
        state.done += moved;
        if together || pass.to.is_empty() {
            state.sent = state.done;
        }
        Ok(moved > 0)
    }
}

/// Moves stored bytes `from..until` of a pass to its peers: lent where they lie in registered memory,
/// copied otherwise. Returns how many.
#[inline]
fn move_out(
    pass: &BoundPass,
    from: usize,
    until: usize,
    slice: usize,
    regions: &Regions<'_>,
    links: &mut dyn Links,
) -> Result<usize, LinkError> {
    let source = pass.out_of;
    let region = source.region(regions);
    if pass.lends
        && let Some(span) = region.lend(source.start + from..source.start + until)
    {
        match links.lend(&pass.to, span) {
            Ok(()) => return Ok(until - from),
            Err(Refused(_span)) => {}
        }
    }
    let until = until.min(from + slice);
    links.send(&pass.to, region.read(source.start + from..source.start + until))
}
