//! A call that was started: waited for, tested, polled as a future, or forgotten.
//!
//! Invariant: the call and its buffers are in the communicator's queue, not here. So whatever becomes of the handle, the call
//! is made in its turn, and no buffer is freed while a peer may use it.

use crate::drive::Until;
use crate::others;
use crate::queue::{Goal, Queue};
use crate::terms::Task;
use crate::ticket::{Kept, Outcome, Ticket};
use sohu_coll_core::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A call that was started and gives `B`, its buffers, back when it is over.
///
/// Calls of one communicator are made one after another, in the order in which they were started; messages that are next to
/// each other, all at once ([`start_send`](crate::Communicator::start_send)). They go on while any thread
/// waits for one of them or tests one, or by themselves where the communicator has a proxy thread
/// ([`Builder::proxy`](crate::Builder::proxy)). Whoever waits for a call makes those before it too.
///
/// It is also a future. Where no proxy thread drives, polling it drives a little and asks to be polled again at once.
///
/// ```no_run
/// use sohu_coll::{Communicator, Error, ReduceOp};
///
/// # fn compute() {}
/// # fn example(comm: &mut Communicator) -> Result<(), Error> {
/// let pending = comm.start_all_reduce(vec![1f32; 1000], vec![0f32; 1000], ReduceOp::Sum)?;
/// compute();
/// let (ones, sums) = pending.wait()?;
/// # drop((ones, sums));
/// # Ok(())
/// # }
/// ```
///
/// Dropping or leaking it is safe: the call is made all the same, by whoever makes a later one, or when the communicator is
/// dropped. Its buffers are dropped after it.
#[must_use = "a call that is not waited for keeps its buffers, and its error"]
pub struct Pending<B> {
    /// Gone once the result was taken.
    ticket: Option<Arc<Ticket>>,
    queue: Arc<Queue>,
    task: Task,
    rebuild: fn(Kept) -> B,
}

/// What came of waiting for a call for some time.
#[derive(Debug)]
pub enum Waited<B> {
    /// It is over; these are its buffers.
    Over(B),
    /// It is not, and can be waited for again.
    NotYet(Pending<B>),
}

/// A call that failed, or could not be started, with its buffers.
///
/// After any error but [`Error::Misuse`] the contents of the output are undefined.
pub struct Failed<B> {
    /// Why. Boxed, to keep small what nearly always goes well.
    pub error: Box<Error>,
    /// What the call was given.
    pub buffers: B,
}

impl<B> Pending<B> {
    pub(crate) fn new(ticket: Arc<Ticket>, queue: Arc<Queue>, task: Task, rebuild: fn(Kept) -> B) -> Self {
        Self { ticket: Some(ticket), queue, task, rebuild }
    }

    /// Waits until the call is over.
    ///
    /// # Errors
    /// [`Failed`] has the error, which is as described at [`Communicator`](crate::Communicator), and the buffers.
    ///
    /// # Panics
    /// When polling it as a future has given the result already.
    pub fn wait(mut self) -> Result<B, Failed<B>> {
        self.queue.wait(Goal::Call(self.ticket()), Until::Over);
        self.take().expect("a call that was waited for is over")
    }

    /// Waits until the call is over, but no longer than `most`: the time of who waits, not of the call, whose own deadline
    /// stays what it is. No time at all drives the call a little, as [`test`](Self::test) does.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    ///
    /// # Panics
    /// As for [`wait`](Self::wait).
    pub fn wait_for(mut self, most: Duration) -> Result<Waited<B>, Failed<B>> {
        // A time that no clock reaches is no end.
        let until = Instant::now().checked_add(most).map_or(Until::Over, Until::Time);
        self.look(until);
        match self.take() {
            Some(result) => result.map(Waited::Over),
            None => Ok(Waited::NotYet(self)),
        }
    }

    /// Whether the call is over, well or not, so that [`wait`](Self::wait) returns at once. Drives it a little if it is not,
    /// and where it takes long also the calls of other communicators that nobody drives; never blocks.
    ///
    /// # Panics
    /// As for [`wait`](Self::wait).
    pub fn test(&mut self) -> bool {
        self.look(Until::Idle)
    }

    /// Drives the call, but not for ever. Says whether it is over.
    fn look(&self, until: Until) -> bool {
        let over = self.queue.wait(Goal::Call(self.ticket()), until);
        if !over && self.queue.is_slow() {
            // Who looks again and again waits. A peer may wait in the same way for the call of another communicator.
            others::help();
        }
        over
    }

    fn ticket(&self) -> &Ticket {
        self.ticket.as_ref().expect("the result of a call is given once")
    }

    /// What came of the call, if it is over.
    pub(crate) fn take(&mut self) -> Option<Result<B, Failed<B>>> {
        let Outcome { owner, pinned, error } = self.ticket().take()?;
        let ticket = self.ticket.take()?;
        let (task, queue) = (self.task.clone(), self.queue.clone());
        let kept = Kept { owner, pinned, task, ticket, queue };
        let buffers = (self.rebuild)(kept);
        Some(match error {
            None => Ok(buffers),
            Some(error) => Err(Failed { error: error.into(), buffers }),
        })
    }
}

impl<B> Future for Pending<B> {
    type Output = Result<B, Failed<B>>;

    /// # Panics
    /// When it has given its result before.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let proxied = self.queue.is_proxied();
        let over = match proxied {
            true => self.ticket().wake_when_over(context.waker()),
            false => self.test(),
        };
        if over && let Some(result) = self.take() {
            return Poll::Ready(result);
        }
        if !proxied {
            if self.queue.is_slow() {
                // Peers may need this core for what the call waits for.
                std::thread::yield_now();
            }
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<B> fmt::Debug for Pending<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.ticket {
            None => "taken",
            Some(ticket) if ticket.is_over() => "over",
            Some(_) => "pending",
        };
        write!(f, "Pending({}, {state})", self.task.name())
    }
}

impl<B> fmt::Debug for Failed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failed").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<B> fmt::Display for Failed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<B> std::error::Error for Failed<B> {}

impl<B> From<Failed<B>> for Error {
    /// The error alone; the buffers are dropped.
    fn from(failed: Failed<B>) -> Self {
        *failed.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, Communicator, Persistent};

    #[test]
    fn communicators_and_pending_calls_can_change_threads() {
        fn moves<T: Send>() {}
        moves::<Communicator>();
        moves::<Pending<Vec<f32>>>();
        moves::<Pending<(Box<[u8]>, Buffer<u8>)>>();
        moves::<Persistent<Vec<f32>>>();
        moves::<Pending<Persistent<(Vec<f64>, Vec<f64>)>>>();
        moves::<Failed<Buffer<f32>>>();
    }
}
