//! What the queue and the caller share about one started call: whether it is over, and what came of it.
//!
//! Invariant: a ticket is finished once for each time that its call is started, and what came of it is taken once.

use crate::lane::Pinned;
use crate::owned::Owner;
use crate::queue::Queue;
use crate::terms::Task;
use sohu_coll_core::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// One started call, seen from both sides.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    /// What came of it, until that is taken.
    outcome: Option<Outcome>,
    /// Whom to wake then.
    waker: Option<Waker>,
}

/// What came of a call.
pub(crate) struct Outcome {
    pub(crate) owner: Box<dyn Owner>,
    pub(crate) pinned: Option<Box<Pinned>>,
    /// Why it failed, if it did.
    pub(crate) error: Option<Error>,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome").field("error", &self.error).finish_non_exhaustive()
    }
}

/// A call that is not started: its buffers, and what it needs to be started again.
pub(crate) struct Kept {
    pub(crate) owner: Box<dyn Owner>,
    pub(crate) pinned: Option<Box<Pinned>>,
    pub(crate) task: Task,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) queue: Arc<Queue>,
}

impl Ticket {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        // Nothing that can panic is done under the lock.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the call is over.
    pub(crate) fn is_over(&self) -> bool {
        self.slot().outcome.is_some()
    }

    /// What came of the call, if it is over.
    pub(crate) fn take(&self) -> Option<Outcome> {
        self.slot().outcome.take()
    }

    /// Whether the call is over and failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.slot().outcome.as_ref().is_some_and(|outcome| outcome.error.is_some())
    }

    /// The call is over. Returns whom to wake.
    pub(crate) fn finish(&self, outcome: Outcome) -> Option<Waker> {
        let mut slot = self.slot();
        slot.outcome = Some(outcome);
        slot.waker.take()
    }

    /// Has `waker` woken when the call is over, and says whether it is already.
    pub(crate) fn wake_when_over(&self, waker: &Waker) -> bool {
        let mut slot = self.slot();
        if slot.outcome.is_none() && !slot.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            slot.waker = Some(waker.clone());
        }
        slot.outcome.is_some()
    }
}
