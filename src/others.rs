//! Pending calls of other communicators: driven now and then by a thread that waits long for something of its own, or looks again and
//! again whether it is over.
//!
//! Two ranks that wait for the calls of two communicators in opposite orders would otherwise wait for each other: each
//! would drive the one that the other does not. Invariant: nothing here blocks, and a thread that helps does not help on.

use crate::queue::Queue;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Queues that calls were started on, of all communicators of this process.
static QUEUES: Mutex<Vec<Weak<Queue>>> = Mutex::new(Vec::new());

fn queues() -> MutexGuard<'static, Vec<Weak<Queue>>> {
    // Nothing that can panic is done under the lock but to allocate.
    QUEUES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, threads that wait for something else drive this queue too.
pub(crate) fn add(queue: &Arc<Queue>) {
    let mut queues = queues();
    queues.retain(|queue| queue.strong_count() > 0);
    queues.push(Arc::downgrade(queue));
}

/// Drives all queues a little that nobody drives. Says whether calls of some are pending still, so that it is no time to
/// sleep.
#[cold]
pub(crate) fn help() -> bool {
    let mut pending = false;
    // One after another, without the lock: who is woken by the end of a call may start another.
    let nth = |at: usize| queues().get(at).map(Weak::upgrade);
    for queue in (0..).map_while(nth).flatten() {
        pending |= queue.help();
    }
    pending
}
