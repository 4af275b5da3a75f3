//! Where a thread sits that drives: the lane, and the call that it is in.

use super::{Finished, Job, LANE};
use crate::drive::{Until, Wait};
use crate::lane::{Lane, Pinned};
use crate::owned::Owner;
use crate::ticket::{Outcome, Ticket};
use sohu_coll_core::{Error, Signature};
use sohu_coll_mem::{Custody, Ledger};
use std::sync::Arc;

/// The lane, and the call that it is in.
#[derive(Default)]
pub(super) struct Seat {
    pub(super) lane: Option<Lane>,
    /// For calls whose buffers are in custody; with the call while there is one.
    ledger: Option<Box<Ledger>>,
    /// A call that is being planned.
    job: Option<Job>,
    running: Option<Running>,
}

/// A call that has begun.
struct Running {
    custody: Custody<dyn Owner>,
    pinned: Box<Pinned>,
    call: Signature,
    wait: Wait,
    ticket: Arc<Ticket>,
}

impl Seat {
    /// Whether a call has begun and is not over.
    pub(super) fn is_in_call(&self) -> bool {
        self.running.is_some()
    }

    /// Whether what is in the seat has waited for long.
    pub(super) fn is_slow(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.wait.is_long())
    }

    /// Whether a call has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.lane.as_ref().is_some_and(|lane| lane.failed.is_some())
    }

    /// Begins a call, while in none. Says what came of it, if it is over with that.
    pub(super) fn begin(&mut self, job: Job) -> Option<Finished> {
        let lane = self.lane.as_mut().expect(LANE);
        // Here while it is planned, where a panic leaves it to `fail`.
        let job = self.job.insert(job);
        let terms = job.terms;
        let planned = lane.ready().and_then(|()| match job.pinned.take() {
            Some(pinned) => Ok(pinned),
            None => lane.pin(terms.request(job.owner.buffers()), terms.flags),
        });
        let Job { owner, pinned, ticket, .. } = self.job.take().expect("it was put here");
        let pinned = match planned {
            Ok(planned) => planned,
            Err(error) => {
                return Some(Finished { ticket, outcome: Outcome { owner, pinned, error: Some(error) } });
            }
        };
        let (rank, size) = (lane.rank, lane.size);
        let call = Signature { sequence: lane.sequence, ..pinned.signature };
        let scratch = match lane.engine.take_scratch(pinned.executor.bound().scratch_bytes) {
            Ok(scratch) => scratch,
            Err(error) => {
                let outcome = Outcome { owner, pinned: Some(pinned), error: lane.end(Err(error)).err() };
                return Some(Finished { ticket, outcome });
            }
        };
        let ledger = self.ledger.take().unwrap_or_else(Ledger::new);
        let custody = Custody::new(owner, ledger, scratch, |owner| {
            let shape = terms.request(owner.buffers()).shape(rank, size, |_| false);
            shape.expect("a request is checked before its call is queued").1
        });
        let wait = Wait::new(lane.engine.patience());
        let running = Running { custody, pinned, call, wait, ticket };
        let Running { custody, pinned, .. } = self.running.insert(running);
        match lane.engine.driver(call).begin(&mut pinned.executor, &custody.regions()) {
            Ok(false) => None,
            Ok(true) => Some(self.end(Ok(()))),
            Err(error) => Some(self.end(Err(error))),
        }
    }

    /// Drives the call. Says what came of it, if it is over.
    pub(super) fn go_on(&mut self, until: Until) -> Option<Finished> {
        let lane = self.lane.as_mut().expect(LANE);
        let Running { custody, pinned, call, wait, .. } = self.running.as_mut()?;
        match lane.engine.driver(*call).go_on(&mut pinned.executor, &custody.regions(), wait, until) {
            Ok(false) => None,
            Ok(true) => Some(self.end(Ok(()))),
            Err(error) => Some(self.end(Err(error))),
        }
    }

    /// The call is over, and nothing of it is lent or posted.
    fn end(&mut self, made: Result<(), Box<Error>>) -> Finished {
        let lane = self.lane.as_mut().expect(LANE);
        let Running { custody, pinned, ticket, .. } =
            self.running.take().expect("a call that ends has begun");
        let (owner, ledger, scratch) = custody.end();
        self.ledger = Some(ledger);
        lane.engine.return_scratch(scratch);
        let error = lane.end(made).err();
        Finished { ticket, outcome: Outcome { owner, pinned: Some(pinned), error } }
    }

    /// Fails what was being done when the thread panicked, and everything after it.
    pub(super) fn fail(&mut self, what: &str) -> Option<Finished> {
        let lane = self.lane.as_mut()?;
        lane.engine.fabric.links().abandon();
        let during = self.running.as_ref().map(|running| running.call.to_string());
        let during = during.unwrap_or_else(|| format!("the pause before call {}", lane.sequence));
        let error = Error::Panicked { rank: lane.rank, during, what: what.into() };
        if self.running.is_some() {
            return Some(self.end(Err(Box::new(error))));
        }
        let error = if lane.failed.is_none() { lane.fail(error) } else { error };
        let Job { owner, pinned, ticket, .. } = self.job.take()?;
        Some(Finished { ticket, outcome: Outcome { owner, pinned, error: Some(error) } })
    }

    /// Wakes peers that sleep for want of what was sent.
    pub(super) fn ring(&mut self) {
        if let Some(lane) = &mut self.lane {
            lane.engine.fabric.links().ring();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Spans must be back before the buffers go.
        if let (Some(_), Some(lane)) = (&self.running, &mut self.lane) {
            lane.engine.fabric.links().abandon();
        }
    }
}
