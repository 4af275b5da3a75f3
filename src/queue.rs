//! The calls of a communicator that were started and are not over: made in their order, by whoever waits for one.
//!
//! Invariants: one thread at a time drives (`State::driven` says so, and the seat is its own meanwhile); a call that is in
//! the queue is finished, well or not, before the queue gives the lane back; what a failed call leaves behind is failed
//! calls. Locks are taken in the order seat, state, ticket.

mod mailing;
mod seat;

use crate::drive::Until;
use crate::lane::{Lane, Pinned};
use crate::owned::Owner;
use crate::terms::Task;
use crate::ticket::{Outcome, Ticket};
use mailing::Step;
use seat::Seat;
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most calls that can be pending: far more than there is use for. Beyond it some loop has forgotten to wait.
pub(crate) const PENDING_MAX: usize = 1024;

/// How long a thread sleeps at a time while another one drives. It is woken before, when something is over.
const NAP: Duration = Duration::from_millis(10);

/// Why there is a lane while there are calls.
const LANE: &str = "the queue has the lane while calls are pending";

/// All pending calls of a communicator.
pub(crate) struct Queue {
    state: Mutex<State>,
    /// A call was started or is over, or the thread that drove has stopped.
    changed: Condvar,
    seat: Mutex<Seat>,
}

#[derive(Default)]
struct State {
    /// Calls that have not begun.
    jobs: VecDeque<Job>,
    /// Calls that are not over: those that have not begun, and the one in the seat.
    open: usize,
    /// How many of them are messages.
    messages: usize,
    /// Whether a thread drives.
    driven: bool,
    /// Threads that sleep until something changes.
    sleepers: usize,
    /// Whether there is a thread that drives whenever there is something to drive.
    proxied: bool,
    /// Whether that thread is to end.
    ending: bool,
}

/// A call that has not begun.
pub(crate) struct Job {
    pub(crate) owner: Box<dyn Owner>,
    pub(crate) pinned: Option<Box<Pinned>>,
    pub(crate) task: Task,
    pub(crate) ticket: Arc<Ticket>,
}

impl Job {
    fn is_messages(&self) -> bool {
        matches!(self.task, Task::Messages(_))
    }
}

/// A call that is over.
struct Finished {
    ticket: Arc<Ticket>,
    /// Whether it was messages.
    messages: bool,
    outcome: Outcome,
}

/// What a thread drives for.
#[derive(Clone, Copy)]
pub(crate) enum Goal<'a> {
    /// That this call is over.
    Call(&'a Ticket),
    /// That no call is pending, and nobody drives.
    Empty,
}

impl Goal<'_> {
    fn is_reached(&self, state: &State) -> bool {
        match self {
            Goal::Call(ticket) => ticket.is_over(),
            Goal::Empty => state.open == 0 && !state.driven,
        }
    }
}

/// Ends a thread's time in the seat, also when it panics.
struct Driving<'a>(&'a Queue);

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.driven = false;
        self.0.tell(&state);
    }
}

impl Queue {
    /// A queue without calls and without a lane.
    pub(crate) fn new() -> Arc<Self> {
        let (state, changed, seat) = (Mutex::default(), Condvar::new(), Mutex::default());
        Arc::new(Self { state, changed, seat })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic is done under the lock but to allocate.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        // A thread that panics in the seat leaves it in order: see `drive`.
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, state: &State) {
        if state.sleepers > 0 {
            self.changed.notify_all();
        }
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, State>, most: Option<Duration>) -> MutexGuard<'a, State> {
        state.sleepers += 1;
        let mut state = match most {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(most) => self.changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0,
        };
        state.sleepers -= 1;
        state
    }

    /// From now on calls can be pushed.
    pub(crate) fn take_lane(&self, lane: Lane) {
        self.seat().lane = Some(lane);
    }

    /// Gives the lane back, once all calls are over.
    pub(crate) fn drain(&self) -> Lane {
        self.wait(Goal::Empty, Until::Over);
        self.seat().lane.take().expect(LANE)
    }

    /// Looks at the lane, once no thread drives.
    pub(crate) fn with_lane<R>(&self, look: impl FnOnce(&Lane) -> R) -> R {
        let mut state = self.state();
        while state.driven {
            state = self.sleep(state, Some(NAP));
        }
        state.driven = true;
        drop(state);
        let _driving = Driving(self);
        look(self.seat().lane.as_ref().expect(LANE))
    }

    /// A call is started. It comes back if there are too many.
    pub(crate) fn push(&self, job: Job) -> Result<(), Job> {
        let mut state = self.state();
        if state.open >= PENDING_MAX {
            return Err(job);
        }
        state.messages += usize::from(job.is_messages());
        state.jobs.push_back(job);
        state.open += 1;
        self.tell(&state);
        Ok(())
    }

    /// Whether a thread drives by itself.
    pub(crate) fn is_proxied(&self) -> bool {
        self.state().proxied
    }

    /// Whether waiting is best done elsewhere for a while: what is in the seat has waited for long, or somebody else is
    /// there.
    pub(crate) fn is_slow(&self) -> bool {
        self.seat.try_lock().map_or(true, |seat| seat.is_slow())
    }

    /// Drives, or waits for who does. Says whether the goal was reached, which it is in the end with [`Until::Over`].
    pub(crate) fn wait(&self, goal: Goal<'_>, until: Until) -> bool {
        let mut state = self.state();
        let mut tried = false;
        loop {
            if goal.is_reached(&state) {
                return true;
            }
            let left = match until {
                Until::Over => NAP,
                Until::Idle if tried || state.driven => return false,
                Until::Idle => Duration::ZERO,
                // A time that is over already is still worth one look, or who waits for no time again and again drives nothing.
                Until::Time(end) => match end.saturating_duration_since(Instant::now()) {
                    Duration::ZERO if tried => return false,
                    left => left.min(NAP),
                },
            };
            if state.driven {
                state = self.sleep(state, Some(left));
            } else {
                state.driven = true;
                drop(state);
                self.drive(goal, until);
                state = self.state();
            }
            tried = true;
        }
    }

    /// Drives a little for others, if nobody else drives. Says whether calls are still pending that nobody drives.
    pub(crate) fn help(&self) -> bool {
        let mut state = self.state();
        if state.open == 0 || state.driven || state.proxied {
            return false;
        }
        state.driven = true;
        drop(state);
        // A panic has been told to all who wait for these calls; whose thread helped is not among them.
        let _ = catch_unwind(AssertUnwindSafe(|| self.drive(Goal::Empty, Until::Idle)));
        let state = self.state();
        state.open > 0 && !state.driven
    }

    /// Drives calls. The caller has set `driven`; it is not when this returns.
    fn drive(&self, goal: Goal<'_>, until: Until) {
        let driving = Driving(self);
        let mut seat = self.seat();
        let driven = catch_unwind(AssertUnwindSafe(|| self.make_calls(&mut seat, goal, until)));
        if let Err(panic) = driven {
            // The call that it happened in can not go on, and so can none after it. Other threads must not wait for ever.
            while let Some(finished) = seat.fail(&said(&*panic)) {
                let _ = catch_unwind(AssertUnwindSafe(|| self.finish(finished)));
            }
            while let Some(job) = self.next_job() {
                let _ = catch_unwind(AssertUnwindSafe(|| seat.begin(job).map(|over| self.finish(over))));
            }
            drop(seat);
            drop(driving);
            resume_unwind(panic);
        }
    }

    fn make_calls(&self, seat: &mut Seat, goal: Goal<'_>, until: Until) {
        loop {
            // What is left behind a failed call fails too, also if nobody waits for it.
            let done = matches!(goal, Goal::Call(ticket) if ticket.is_over());
            if done && !seat.has_failed() {
                break;
            }
            let next = match (seat.is_in_call(), seat.is_mailing()) {
                (false, _) => self.next_job(),
                (true, true) => self.next_messages(),
                (true, false) => None,
            };
            if let Some(job) = next {
                if let Some(finished) = seat.begin(job) {
                    self.finish(finished);
                }
                continue;
            }
            if !seat.is_in_call() {
                break;
            }
            match seat.go_on(until, &|| self.has_messages()) {
                Step::Over(finished) => self.finish(finished),
                Step::Again => {}
                Step::Left => break,
            }
        }
        seat.ring();
    }

    /// Whether messages are next.
    fn has_messages(&self) -> bool {
        self.state().jobs.front().is_some_and(Job::is_messages)
    }

    /// The next call, if it is messages.
    fn next_messages(&self) -> Option<Job> {
        let mut state = self.state();
        let next = state.jobs.front().is_some_and(Job::is_messages);
        if next { state.jobs.pop_front() } else { None }
    }

    /// Whether messages are pending.
    pub(crate) fn is_mailing(&self) -> bool {
        self.state().messages > 0
    }

    fn next_job(&self) -> Option<Job> {
        self.state().jobs.pop_front()
    }

    /// Tells everybody that a call is over.
    fn finish(&self, finished: Finished) {
        let waker = finished.ticket.finish(finished.outcome);
        let mut state = self.state();
        state.open -= 1;
        state.messages -= usize::from(finished.messages);
        self.tell(&state);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A thread is about to call [`serve`](Self::serve).
    pub(crate) fn expect_proxy(&self, comes: bool) {
        self.state().proxied = comes;
    }

    /// Drives whenever there is something to drive, until it is told to end.
    pub(crate) fn serve(&self) {
        let mut state = self.state();
        while !state.ending {
            if state.open == 0 || state.driven {
                state = self.sleep(state, None);
                continue;
            }
            state.driven = true;
            drop(state);
            // A panic has failed all calls, and has been told to all who wait for one. It is no reason to end the process.
            let _ = catch_unwind(AssertUnwindSafe(|| self.drive(Goal::Empty, Until::Over)));
            state = self.state();
        }
    }

    /// Ends the thread that serves. No call is pending.
    pub(crate) fn end_proxy(&self) {
        let mut state = self.state();
        state.ending = true;
        self.tell(&state);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({} pending)", self.state().open)
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "nothing".to_owned())
}
