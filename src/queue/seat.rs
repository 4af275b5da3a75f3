//! Where a thread sits that drives: the lane, and the call that it is in.

use super::mailing::{Mailing, Step};
use super::{Finished, Job, LANE};
use crate::drive::{Until, Wait};
use crate::lane::{Comparison, Lane, Pinned};
use crate::owned::Owner;
use crate::ragged::{Cut, Memos, Said, Words};
use crate::terms::{Task, Terms};
use crate::ticket::{Outcome, Ticket};
use sohu_coll_core::{Error, Signature};
use sohu_coll_mem::{Custody, Ledger};
use std::any::Any;
use std::sync::Arc;

/// Why what a call needs is here when it begins.
const ONE_AT_A_TIME: &str = "one call is made at a time, and gives back what it took";

/// The lane, and the call that it is in.
#[derive(Default)]
pub(super) struct Seat {
    pub(super) lane: Option<Lane>,
    /// For calls whose buffers are in custody; with the call while there is one.
    ledger: Option<Box<Ledger>>,
    /// A call that is being planned.
    job: Option<Job>,
    running: Option<Running>,
    /// Messages that go on side by side, while no other call does.
    mailing: Option<Mailing>,
}

/// A call that has begun.
struct Running {
    custody: Custody<dyn Owner>,
    pinned: Box<Pinned>,
    call: Signature,
    wait: Wait,
    /// Whose call it is; or for which one ranks tell each other their lengths.
    sequel: Sequel,
}

/// What to do with what a call gives back.
enum Sequel {
    /// Its caller gets it.
    Own(Terms, Arc<Ticket>),
    /// It is a call before one.
    Before(Awaiting),
}

/// A call that begins when ranks have told each other their lengths.
struct Awaiting {
    owner: Box<dyn Owner>,
    pinned: Box<Pinned>,
    terms: Terms,
    ticket: Arc<Ticket>,
    /// Which call before it has begun.
    before: Before,
}

/// How ranks tell each other their lengths.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// In [`Memos`], with which all may be done.
    Memos,
    /// In [`Words`], each rank to each: the first of two calls.
    Telling,
    /// The second one, in which all hear what came of it.
    Judging,
}

/// What follows a call that was made before another one.
enum Next {
    /// The call is made with that.
    Nothing,
    Call,
    Before(Before),
}

impl Awaiting {
    fn over(self, error: Option<Error>) -> Finished {
        let Self { owner, pinned, ticket, .. } = self;
        Finished { ticket, messages: false, outcome: Outcome { owner, pinned: Some(pinned), error } }
    }
}

impl Seat {
    /// Whether a call has begun and is not over.
    pub(super) fn is_in_call(&self) -> bool {
        self.running.is_some() || self.mailing.is_some()
    }

    /// Whether messages are under way, so that others can join them.
    pub(super) fn is_mailing(&self) -> bool {
        self.mailing.is_some()
    }

    /// Whether what is in the seat has waited for long.
    pub(super) fn is_slow(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.wait.is_long())
            || self.mailing.as_ref().is_some_and(Mailing::is_slow)
    }

    /// Whether a call has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.lane.as_ref().is_some_and(|lane| lane.failed.is_some())
    }

    /// Begins a call, while in none but where messages join others. Says what came of it, if it is over with that.
    pub(super) fn begin(&mut self, job: Job) -> Option<Finished> {
        match job.task {
            Task::Call(_) => self.plan(job),
            Task::Messages(_) => {
                let lane = self.lane.as_mut().expect(LANE);
                self.mailing.get_or_insert_with(|| Mailing::new(lane)).join(lane, job)
            }
        }
    }

    /// Begins a call of all ranks.
    fn plan(&mut self, job: Job) -> Option<Finished> {
        let lane = self.lane.as_mut().expect(LANE);
        // Here while it is planned, where a panic leaves it to `fail`.
        let job = self.job.insert(job);
        let planned = lane.ready().and_then(|()| match (job.pinned.take(), &job.task) {
            (Some(pinned), _) => Ok(pinned),
            (None, Task::Call(terms)) => lane.pin(terms, &mut *job.owner),
            (None, Task::Messages(_)) => unreachable!("messages are not planned"),
        });
        let Job { owner, pinned, ticket, task } = self.job.take().expect("it was put here");
        let (pinned, terms) = match (planned, task) {
            (Ok(planned), Task::Call(terms)) => (planned, terms),
            (Ok(_), Task::Messages(_)) => unreachable!("messages are not planned"),
            (Err(error), _) => {
                return Some(Finished {
                    ticket,
                    messages: false,
                    outcome: Outcome { owner, pinned, error: Some(error) },
                });
            }
        };
        if !terms.cut().as_ref().is_some_and(Cut::is_compared) {
            return self.enter(owner, pinned, Sequel::Own(terms, ticket));
        }
        let before = if Memos::are_for(lane.size) { Before::Memos } else { Before::Telling };
        self.compare(Awaiting { owner, pinned, terms, ticket, before })
    }

    /// Begins a call that is made before another one.
    fn compare(&mut self, mut awaiting: Awaiting) -> Option<Finished> {
        let lane = self.lane.as_mut().expect(LANE);
        let cut = awaiting.terms.cut().expect("lengths are compared of calls that have them");
        if awaiting.before == Before::Memos {
            let machine = lane.plans.tuner().machine();
            let mut memos = lane.ragged.take_memos(lane.rank, machine).expect(ONE_AT_A_TIME);
            let pinned = memos.write(&cut, &awaiting.owner.buffers(), awaiting.pinned.number);
            return self.enter(memos, pinned, Sequel::Before(awaiting));
        }
        if awaiting.pinned.comparison.is_none() {
            match lane.pin_comparison(&cut) {
                Ok(comparison) => awaiting.pinned.comparison = Some(comparison),
                Err(error) => return Some(awaiting.over(Some(error))),
            }
        }
        let Some(comparison) = awaiting.pinned.comparison.as_deref_mut() else {
            unreachable!("it is planned by now")
        };
        let Comparison { words, pins } = comparison;
        let mut words = words.take().expect(ONE_AT_A_TIME);
        let is_judging = awaiting.before == Before::Judging;
        match is_judging {
            false => words.tell(&cut),
            true => words.judge(lane.rank, &cut),
        }
        let pinned = pins[usize::from(is_judging)].take().expect(ONE_AT_A_TIME);
        self.enter(words, pinned, Sequel::Before(awaiting))
    }

    /// What was made before a call is over: another one follows, or the call itself, if it is not made with that.
    fn compared(
        &mut self,
        mut awaiting: Awaiting,
        (told, pinned): (Box<dyn Owner>, Box<Pinned>),
        error: Option<Error>,
    ) -> Option<Finished> {
        let told: Box<dyn Any> = told;
        let next = match awaiting.before {
            Before::Memos => self.heard_memos(&mut awaiting, told, pinned, error),
            Before::Telling | Before::Judging => self.heard_words(&mut awaiting, told, pinned, error),
        };
        match next {
            Err(error) => Some(awaiting.over(Some(error))),
            Ok(Next::Nothing) => Some(awaiting.over(None)),
            Ok(Next::Call) => {
                let Awaiting { owner, pinned, terms, ticket, .. } = awaiting;
                self.enter(owner, pinned, Sequel::Own(terms, ticket))
            }
            Ok(Next::Before(before)) => self.compare(Awaiting { before, ..awaiting }),
        }
    }

    /// Memos were told.
    fn heard_memos(
        &mut self,
        awaiting: &mut Awaiting,
        memos: Box<dyn Any>,
        pinned: Box<Pinned>,
        error: Option<Error>,
    ) -> Result<Next, Error> {
        let lane = self.lane.as_mut().expect(LANE);
        let mut memos = memos.downcast::<Memos>().expect("what was told were memos");
        memos.put_back(pinned);
        let cut = awaiting.terms.cut().expect("lengths are compared of calls that have them");
        let number = awaiting.pinned.number;
        let said = match error {
            Some(error) => Err(error),
            None => {
                memos.read(&cut, &mut awaiting.owner.buffers(), number).map_err(|misuse| lane.named(misuse))
            }
        };
        lane.ragged.memos = Some(memos);
        Ok(match said? {
            Said::Everything => Next::Nothing,
            Said::Agreed => Next::Call,
            Said::Unclear => Next::Before(Before::Telling),
        })
    }

    /// Words were told.
    fn heard_words(
        &mut self,
        awaiting: &mut Awaiting,
        words: Box<dyn Any>,
        pinned: Box<Pinned>,
        error: Option<Error>,
    ) -> Result<Next, Error> {
        let lane = self.lane.as_ref().expect(LANE);
        let is_judging = awaiting.before == Before::Judging;
        let words = words.downcast::<Words>().expect("what was told were words");
        let verdict = if is_judging { words.verdict() } else { Ok(()) };
        if let Some(comparison) = awaiting.pinned.comparison.as_deref_mut() {
            comparison.words = Some(words);
            comparison.pins[usize::from(is_judging)] = Some(pinned);
        }
        match (error, verdict) {
            (Some(error), _) => Err(error),
            (None, Err(misuse)) => Err(lane.named(misuse)),
            (None, Ok(())) if is_judging => Ok(Next::Call),
            (None, Ok(())) => Ok(Next::Before(Before::Judging)),
        }
    }

    /// Begins a call that is planned.
    fn enter(&mut self, owner: Box<dyn Owner>, pinned: Box<Pinned>, sequel: Sequel) -> Option<Finished> {
        let lane = self.lane.as_mut().expect(LANE);
        let (rank, size) = (lane.rank, lane.size);
        let call = Signature { sequence: lane.sequence, ..pinned.signature };
        let scratch = match lane.engine.take_scratch(pinned.executor.bound().scratch_bytes) {
            Ok(scratch) => scratch,
            Err(error) => {
                let error = lane.end(Err(error)).err();
                return self.leave(owner, pinned, sequel, error);
            }
        };
        let ledger = self.ledger.take().unwrap_or_else(Ledger::new);
        let custody = Custody::new(owner, ledger, scratch, |owner| {
            let loan = match &sequel {
                Sequel::Own(terms, _) => terms.loan(rank, size, owner.buffers()),
                Sequel::Before(_) => Ok(owner.buffers().told_loan(rank, size)),
            };
            loan.expect("a call is checked before it is queued")
        });
        let wait = Wait::new(lane.engine.patience());
        let running = Running { custody, pinned, call, wait, sequel };
        let Running { custody, pinned, .. } = self.running.insert(running);
        match lane.engine.driver(call).begin(&mut pinned.executor, &custody.regions()) {
            Ok(false) => None,
            Ok(true) => self.end(Ok(())),
            Err(error) => self.end(Err(error)),
        }
    }

    /// Drives the call, or the messages: until one of those is over, or `news` says that others can join them.
    pub(super) fn go_on(&mut self, until: Until, news: &dyn Fn() -> bool) -> Step {
        if let Some(mailing) = &mut self.mailing {
            let step = mailing.go_on(self.lane.as_mut().expect(LANE), until, news);
            return step.unwrap_or_else(|| {
                self.mailing = None;
                Step::Again
            });
        }
        self.go_on_call(until).map_or(Step::Left, Step::Over)
    }

    /// Drives the call. Says what came of it, if it is over.
    fn go_on_call(&mut self, until: Until) -> Option<Finished> {
        // Once for each of the calls that one may consist of.
        while let Some(running) = &mut self.running {
            let lane = self.lane.as_mut().expect(LANE);
            let Running { custody, pinned, call, wait, .. } = running;
            let driven =
                lane.engine.driver(*call).go_on(&mut pinned.executor, &custody.regions(), wait, until);
            let over = match driven {
                Ok(false) => return None,
                Ok(true) => self.end(Ok(())),
                Err(error) => self.end(Err(error)),
            };
            if over.is_some() {
                return over;
            }
        }
        None
    }

    /// The call is over, and nothing of it is lent or posted. Another one may follow.
    fn end(&mut self, made: Result<(), Box<Error>>) -> Option<Finished> {
        let lane = self.lane.as_mut().expect(LANE);
        let Running { custody, pinned, sequel, .. } =
            self.running.take().expect("a call that ends has begun");
        let (owner, ledger, scratch) = custody.end();
        self.ledger = Some(ledger);
        lane.engine.return_scratch(scratch);
        let error = lane.end(made).err();
        self.leave(owner, pinned, sequel, error)
    }

    /// What a call gives back goes where it belongs.
    fn leave(
        &mut self,
        owner: Box<dyn Owner>,
        pinned: Box<Pinned>,
        sequel: Sequel,
        error: Option<Error>,
    ) -> Option<Finished> {
        match sequel {
            Sequel::Before(awaiting) => self.compared(awaiting, (owner, pinned), error),
            Sequel::Own(_, ticket) => Some(Finished {
                ticket,
                messages: false,
                outcome: Outcome { owner, pinned: Some(pinned), error },
            }),
        }
    }

    /// Fails what was being done when the thread panicked, and everything after it: to be called until nothing is left.
    pub(super) fn fail(&mut self, what: &str) -> Option<Finished> {
        let lane = self.lane.as_mut()?;
        if let (Some(mailing), Some(_)) = (&mut self.mailing, &lane.failed) {
            let finished = mailing.give_up(lane);
            if finished.is_none() {
                self.mailing = None;
            }
            return finished;
        }
        lane.engine.fabric.links().abandon();
        let during = self.running.as_ref().map(|running| running.call.to_string());
        let during = during.unwrap_or_else(|| format!("the pause before call {}", lane.sequence));
        let error = Error::Panicked { rank: lane.rank, during, what: what.into() };
        if self.running.is_some() {
            return self.end(Err(Box::new(error)));
        }
        let error = if lane.failed.is_none() { lane.fail(error) } else { error };
        if let Some(mailing) = &mut self.mailing {
            return mailing.give_up(lane);
        }
        let Job { owner, pinned, ticket, .. } = self.job.take()?;
        Some(Finished { ticket, messages: false, outcome: Outcome { owner, pinned, error: Some(error) } })
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
