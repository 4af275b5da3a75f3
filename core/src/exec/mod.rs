//! The executor: runs one rank's passes over its links, slice by slice.
//!
//! It is polled and owns no clock, thread or socket: whoever polls decides how to wait. Invariants: a byte is
//! read only after the pass that makes it has stored it; no user byte is written before every peer's
//! signature was verified, or in an exchange before those of all peers that bytes are taken from were; nothing is allocated, locked or logged after [`Executor::new`]. [`bind`] turns
//! passes and extents into what is needed at run time, this file moves the slices.

pub mod bind;
mod exchange;
mod fold;
mod own;
mod share;

pub use bind::{Binding, Bound, Fetched};

use crate::error::LinkError;
use crate::kernel;
use crate::link::{LOANS_AHEAD_MAX, Links, Met, Refused};
use crate::operation::Operand;
use crate::plan::Wait;
use crate::rank::Rank;
use crate::signature::Signature;
use bind::{BoundPass, Kind};
use exchange::Exchange;
use fold::Slice;
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

/// Longer moves are done by the copy kernel. The C library's copy is a string instruction from some KiB on, which
/// moves half as much on the machines measured; the kernel costs one more indirect call.
const KERNEL_FROM: usize = 1024;

/// Runs one bound program, again and again.
#[derive(Debug)]
pub struct Executor {
    bound: Arc<Bound>,
    states: Box<[State]>,
    /// Passes below this are complete.
    first: usize,
    verified: bool,
    /// Whether the call is an exchange whose bytes are out and whose peers have yet to be met.
    meeting: bool,
    /// Receives whose destination has yet to be posted.
    unposted: usize,
    operand: Operand,
}

impl Executor {
    /// An executor for `bound`, ready to [`start`](Self::start).
    pub fn new(bound: Arc<Bound>) -> Self {
        let states = vec![State::default(); bound.passes.len()].into();
        let operand = Operand::None;
        Self { bound, states, first: 0, verified: false, meeting: false, unposted: 0, operand }
    }

    /// What the calls from now on fold with, where their operation is not complete by its name.
    pub fn fold_with(&mut self, operand: Operand) {
        self.operand = operand;
    }

    /// Another executor of the same program, in no call.
    #[must_use]
    pub fn twin(&self) -> Self {
        Self::new(self.bound.clone())
    }

    /// The program that it runs.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Begins a call, here and on the links. A small one may be done with that: `looks` is how often to look for
    /// what the peers send before it is left to [`poll`](Self::poll).
    ///
    /// # Errors
    /// When the links have failed.
    #[inline]
    pub fn begin(
        &mut self,
        call: &Signature,
        looks: u32,
        regions: &Regions<'_>,
        links: &mut dyn Links,
    ) -> Result<Progress, LinkError> {
        let Some(round) = &self.bound.exchange else {
            self.start();
            links.begin(call)?;
            if let Some(within) = self.bound.within {
                links.stage_within(within);
            }
            return Ok(Progress::Idle);
        };
        let sends = round.sends;
        if round.is_full
            && self.bound.ranks == 2
            && let Some(met) = exchange::make(&self.bound, round, (call, looks), regions, links)
        {
            return Ok(if met == Met::Settled { Progress::Done } else { self.after(met) });
        }
        match exchange::offer(&self.bound, round, call, regions, links) {
            Ok(()) => Ok(self.meet(looks, regions, links)),
            Err(sent) => {
                self.start_sent(sends, sent);
                Ok(Progress::Moved)
            }
        }
    }

    /// Tries to end an exchange whose bytes are out.
    #[inline]
    fn meet(&mut self, looks: u32, regions: &Regions<'_>, links: &mut dyn Links) -> Progress {
        let Some(round) = &self.bound.exchange else { unreachable!("only an exchange is met") };
        let met = exchange::meet(&self.bound, round, looks, regions, links);
        self.after(met)
    }

    /// Gets ready for what is left to do after a look for the peers.
    #[inline]
    fn after(&mut self, met: Met) -> Progress {
        let Some(round) = &self.bound.exchange else { unreachable!("only an exchange is met") };
        let (swaps, sends, sent) = (matches!(round.kind, Exchange::Halves), round.sends, round.len);
        self.meeting = met == Met::NotYet;
        match met {
            Met::Settled => Progress::Done,
            Met::NotYet => Progress::Idle,
            Met::Otherwise => {
                self.start_sent(sends, sent);
                if swaps {
                    // Its destination went along with what was lent.
                    let take = self.states.len() - 1;
                    self.states[take].posted = true;
                    self.unposted -= 1;
                }
                Progress::Moved
            }
            Met::Everybody => {
                self.start();
                self.first = self.bound.passes.len();
                self.unposted = 0;
                self.verified = true;
                Progress::Moved
            }
        }
    }

    /// Whether this rank's part of the call is an exchange, begun and ended in one go where its peers come soon.
    pub fn is_exchange(&self) -> bool {
        self.bound.exchange.is_some()
    }

    /// Makes it ready for another call, of whose first `sends` passes so many bytes have gone.
    fn start_sent(&mut self, sends: usize, sent: usize) {
        self.start();
        self.states[..sends].fill(State { done: sent, sent, posted: false });
    }

    /// Makes it ready for another call. The links' [`begin`](Links::begin) goes with it.
    #[inline]
    fn start(&mut self) {
        self.states.fill(State::default());
        self.first = 0;
        self.verified = false;
        self.unposted = self.bound.posts;
    }

    /// Does everything that can be done now. Never blocks, never allocates.
    ///
    /// # Errors
    /// What the links report; the call can not go on then.
    #[inline]
    pub fn poll(&mut self, regions: &Regions<'_>, links: &mut dyn Links) -> Result<Progress, LinkError> {
        if self.meeting {
            return Ok(self.meet(0, regions, links));
        }
        let (states, verified) = (&mut self.states, &mut self.verified);
        let mut run = Run { bound: &self.bound, operand: &self.operand, states, verified, asked: false };
        let count = run.bound.passes.len();
        if self.unposted > 0 {
            // Before anything is sent: a peer looks at what it was sent in order, and folds as soon as it can.
            self.unposted -= run.post_all(regions, links);
        }
        let mut moved = false;
        for index in self.first..count.min(self.first + WINDOW) {
            if !run.is_complete(index) && run.bound.own.is_none_or(|own| own.copy != index) {
                moved |= run.advance(index, regions, links)?;
            }
        }
        if let (false, Some(own)) = (moved, run.bound.own)
            && run.may_copy(own)
        {
            moved = run.advance(own.copy, regions, links)?;
        }
        while self.first < count && run.is_complete(self.first) {
            self.first += 1;
        }
        let complete = self.first == count && run.verify(links)?;
        // A rank that only sends, and is held up, must not keep its signature from those it sends nothing to:
        // it may be waiting for them.
        if !moved && !*run.verified && !run.asked {
            run.verify(links)?;
        }
        moved |= links.poll()?;
        if complete && links.settled()? {
            return Ok(Progress::Done);
        }
        Ok(if moved { Progress::Moved } else { Progress::Idle })
    }

    /// The peers of the first pass that is not complete. Allocates nothing.
    pub fn waiting_on(&self) -> Option<&[Rank]> {
        if let (true, Some(round)) = (self.meeting, &self.bound.exchange) {
            return Some(if round.from.is_empty() { &self.bound.passes[0].to } else { &round.from });
        }
        let pass = self.bound.passes.get(self.first)?;
        let state = &self.states[self.first];
        let sends = pass.from.is_empty() || state.sent < state.done;
        Some(if sends { &pass.to } else { &pass.from })
    }

    /// The peers of the first pass that is not complete, and where the algorithm wrote it: what a call that
    /// does not end is waiting for.
    pub fn waiting_for(&self) -> Option<(Vec<Rank>, String)> {
        let peers = self.waiting_on()?.to_vec();
        // An exchange has sent all there is, and keeps no account of what came.
        let first = if self.meeting { 0 } else { self.first };
        let pass = &self.bound.passes[first];
        let done = match self.meeting {
            true if pass.to.is_empty() => 0,
            true => pass.len,
            false => self.states[first].done,
        };
        let file = pass.written_at.file().rsplit('/').next().unwrap_or_default();
        let at = format!(
            "pass {} of {} ({file}:{}), byte {} of {}",
            first + 1,
            self.bound.passes.len(),
            pass.written_at.line(),
            done,
            pass.len
        );
        Some((peers, at))
    }
}

/// One poll's view of the executor.
struct Run<'e> {
    bound: &'e Bound,
    operand: &'e Operand,
    states: &'e mut [State],
    verified: &'e mut bool,
    /// Whether the links were asked in this poll.
    asked: bool,
}

impl Run<'_> {
    #[inline]
    fn verify(&mut self, links: &mut dyn Links) -> Result<bool, LinkError> {
        if !*self.verified {
            self.asked = true;
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
        let ready = self.ready(pass);
        let state = self.states[index];
        match pass.kind {
            Kind::Send if self.carries(index) => self.send_own(index, pass, regions, links),
            Kind::Send => self.send(index, pass, ready, regions, links),
            // What was stored but can not go yet must not hold up what comes: peers may be waiting for room
            // in the same way. It goes later, in longer runs.
            _ if state.sent < state.done && self.forward(index, pass, regions, links)? => Ok(true),
            _ if state.done >= ready => Ok(false),
            // No user byte is written before every signature was compared; the links compare those of whom
            // they take bytes from.
            _ if !pass.hears_all && !self.verify(links)? => Ok(false),
            Kind::Recv => self.recv(index, pass, ready, regions, links),
            Kind::Fold => self.fold(index, pass, ready, regions, links),
        }
    }

    /// Offers destinations of receives to their peers, as soon as nothing else uses that memory. Order on
    /// the link does not matter for this: the offer says from which byte of the stream on it holds. Returns how
    /// many were dealt with.
    #[cold]
    fn post_all(&mut self, regions: &Regions<'_>, links: &mut dyn Links) -> usize {
        let mut dealt = 0;
        for (index, pass) in self.bound.passes.iter().enumerate() {
            if !pass.posts || self.states[index].posted {
                continue;
            }
            let free = pass.conflicts.iter().all(|on| self.is_complete(*on as usize));
            let late = self.states[index].done > 0;
            if let (true, false, Some(into), [from]) = (free, late, pass.into, &*pass.from)
                && let Some(span) = into.region(regions).post(into.start..into.start + pass.len)
            {
                // A refusal is an answer too: the bytes then come through staging.
                let _: Result<(), Refused<_>> = links.post(*from, pass.stream_at, span);
                self.states[index].posted = true;
                dealt += 1;
            }
        }
        dealt
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
        let done = self.states[index].done;
        let shared_at = self.bound.shared_at;
        // The receiver says with its signature where it wants the rest.
        if shared_at.is_some_and(|at| done >= at) && !self.verify(links)? {
            return Ok(false);
        }
        let ready = shared_at.filter(|at| done < *at).unwrap_or(ready);
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
        let (start, region) = (pass.out_of.start, pass.out_of.region(regions));
        let posted = matches!(*pass.to, [one] if links.posted(one) > 0);
        if pass.lends && state.done < pass.len && !posted {
            // A part goes ahead of the rest as a loan or not at all, and only while few are out: so there is
            // always room for the rest, as one loan, and nobody has to take any of it first.
            if region.spans_out() >= LOANS_AHEAD_MAX {
                return Ok(false);
            }
            let span = region.lend(start + state.sent..start + state.done);
            let lent = span.is_some_and(|span| links.lend(&pass.to, span).is_ok());
            state.sent = if lent { state.done } else { state.sent };
            return Ok(lent);
        }
        let moved = move_out(pass, state.sent, state.done, self.bound.slice, regions, links)?;
        state.sent += moved;
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
            || state.sent == state.done
                && matches!(*pass.to, [one] if links.posted(one) >= self.bound.granule);
        let to: &[Rank] = if together { &pass.to } else { &[] };
        let slice = Slice { bound: self.bound, pass, operand: self.operand, done: state.done, limit };
        let moved = slice.fold(to, regions, links)?;
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
    let bytes = region.read(source.start + from..source.start + until);
    if bytes.len() <= KERNEL_FROM {
        return links.send(&pass.to, bytes);
    }
    links.pass(&[], &pass.to, bytes.len(), 1, &mut |window| {
        if let Some(out) = window.outgoing {
            kernel::copy(bytes.first(out.len()), out, None, fold::outgoing_store(window.past_caches));
        }
    })
}
