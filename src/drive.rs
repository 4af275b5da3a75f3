//! The one wait of the library: drives a call ([`Work`]) until it is done, a peer is gone, the communicator is
//! aborted, or the deadline passes. A call that was started can be left before, and driven on later ([`Until`]).
//!
//! While bytes move nothing else is looked at. A rank that has waited for some microseconds yields its core;
//! from the third time on it reads the clock, and about once a millisecond the control sockets; after about a
//! millisecond it sleeps on its doorbell, for at most [`NAP`].

mod ending;

use crate::control::{Control, Status};
use crate::others;
use sohu_coll_core::error::{LinkError, list};
use sohu_coll_core::exec::{Executor, Progress};
use sohu_coll_core::link::Links;
use sohu_coll_core::{Error, Rank, Signature};
use sohu_coll_mem::Regions;
use sohu_coll_mem::doorbell::{Patience, Pause};
use std::time::{Duration, Instant};

/// Between looks at the control sockets. A death is reported within this and [`NAP`]; a look costs a
/// system call.
const CONTROL_EVERY: Duration = Duration::from_millis(1);

/// The longest sleep. Bytes end it at once, through the doorbell; news on the control sockets do not.
pub(crate) const NAP: Duration = Duration::from_millis(10);

/// The most that the time between two looks counts towards the deadline. A longer one says that this process was
/// stopped, or the whole machine: its peers then had no chance, or waited for it.
const GAP_MAX: Duration = Duration::from_secs(1);

/// How long a rank whose link was cut waits to hear why, before it takes the peer at the other end for
/// dead: the peer may have left because a third rank died, and has said so.
const EXPLAIN: Duration = Duration::from_millis(100);

/// How long a rank at its deadline waits for signs of life.
const PROBE: Duration = Duration::from_millis(150);

/// How often a rank yields its core before it reads the clock, and helps with other calls: that takes a twentieth of the time that it takes to
/// change places.
const BRIEF: u32 = 2;

/// What is driven: the passes of a planned call, or messages between two ranks.
pub(crate) trait Work {
    /// Does everything that can be done now. Never blocks.
    fn poll(&mut self, links: &mut dyn Links) -> Result<Progress, LinkError>;

    /// The longest sleep.
    fn nap(&self) -> Duration {
        NAP
    }

    /// What this rank is doing, for peers that ask. Made at every look, so it allocates nothing.
    fn status(&self, links: &dyn Links) -> Status;

    /// What this rank is doing, for people.
    fn during(&self, links: &dyn Links) -> String;

    /// The peers that it waits for as far as this rank can see.
    fn awaited(&self) -> Vec<Rank>;

    /// Whether a peer can keep the call from ending at all.
    fn concerns(&self, peer: Rank) -> bool {
        let _ = peer;
        true
    }

    /// Whether a peer with that status is not where it should be.
    fn is_elsewhere(&self, status: &Status) -> bool;

    /// Whether the call can not end without something from a peer that says it has left. The status of a planned call tells
    /// that, so it need not.
    fn misses(&self, peer: Rank) -> bool {
        let _ = peer;
        false
    }
}

/// A planned call that has begun.
struct Planned<'a> {
    executor: &'a mut Executor,
    regions: &'a Regions<'a>,
    call: Signature,
}

impl Work for Planned<'_> {
    #[inline]
    fn poll(&mut self, links: &mut dyn Links) -> Result<Progress, LinkError> {
        self.executor.poll(self.regions, links)
    }

    fn status(&self, links: &dyn Links) -> Status {
        let unverified = (0..links.size()).map(Rank).find(|peer| links.is_unverified(*peer));
        let waiting_on = unverified.or_else(|| self.executor.waiting_on()?.first().copied());
        Status { sequence: self.call.sequence, in_call: true, waiting_on }
    }

    fn during(&self, links: &dyn Links) -> String {
        let missing = links.unverified();
        if !missing.is_empty() {
            return format!("{} (waiting for {} to make the call)", self.call, list(&missing));
        }
        match self.executor.waiting_for() {
            Some((_, at)) => format!("{} ({at})", self.call),
            None => self.call.to_string(),
        }
    }

    fn awaited(&self) -> Vec<Rank> {
        self.executor.waiting_for().map(|(peers, _)| peers).unwrap_or_default()
    }

    fn is_elsewhere(&self, status: &Status) -> bool {
        status.sequence != self.call.sequence || !status.in_call
    }
}

/// What a call needs besides its executor.
pub(crate) struct Driver<'a> {
    pub(crate) links: &'a mut dyn Links,
    control: &'a mut Control,
    timeout: Duration,
    patience: Patience,
    call: Signature,
}

/// Until when a call is driven, if it is not over before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// Until it is over: its own deadline is the only one.
    Over,
    /// Until nothing moves at once: never blocks.
    Idle,
    /// Until this time, which is the waiter's and not the call's: it can be driven on later.
    Time(Instant),
}

/// Polls of [`Until::Idle`], even if each moves something: some slices.
const POLLS_IDLE: u32 = 16;

/// Polls between looks at the clock while something moves, for [`Until::Time`] alone.
const POLLS_TIME: u32 = 64;

/// How far a call has waited, over all the times that it was driven.
#[derive(Debug)]
pub(crate) struct Wait {
    patience: Patience,
    watch: Option<Watch>,
    /// How often the core was yielded, and nothing else done.
    brief: u32,
}

impl Wait {
    /// Not at all.
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, watch: None, brief: 0 }
    }

    /// Whether it has waited for so long that the core is better given to others.
    pub(crate) fn is_long(&self) -> bool {
        self.watch.is_some()
    }

    /// How long it has waited, since it became long.
    pub(crate) fn waited(&self) -> Duration {
        self.watch.as_ref().map_or(Duration::ZERO, |watch| watch.waited)
    }

    /// Counts so much of that no longer.
    pub(crate) fn forget(&mut self, time: Duration) {
        if let Some(watch) = &mut self.watch {
            watch.waited = watch.waited.saturating_sub(time);
        }
    }
}

/// What came of a pause.
enum Paused {
    /// Poll again.
    GoOn,
    /// The call is over.
    Over,
    /// It is not, and the caller wanted to wait no longer.
    Leave,
}

/// The clock of one wait, started when it becomes long.
#[derive(Debug)]
struct Watch {
    /// How long this rank has waited while it could look.
    waited: Duration,
    looked: Instant,
    /// Whether a peer was found to have left that the call still needs.
    deserted: bool,
}

impl<'a> Driver<'a> {
    #[inline]
    pub(crate) fn new(
        links: &'a mut dyn Links,
        control: &'a mut Control,
        timeout: Duration,
        patience: Patience,
        call: Signature,
    ) -> Self {
        Self { links, control, timeout, patience, call }
    }
}

impl Driver<'_> {
    /// Drives the call, which has just `begun`, to its end.
    ///
    /// # Errors
    /// Whatever ended it otherwise, with the culprit that the ranks agree on where they can.
    #[inline(never)]
    pub(crate) fn run(
        &mut self,
        begun: Result<Progress, LinkError>,
        executor: &mut Executor,
        regions: &Regions<'_>,
    ) -> Result<(), Box<Error>> {
        let mut work = Planned { executor, regions, call: self.call };
        let over = match begun {
            Ok(Progress::Done) => return Ok(()),
            Ok(_) => self.wait(&mut work, &mut Wait::new(self.patience), Until::Over),
            Err(error) => Err(self.explain(error, &work)),
        };
        over.map(drop).inspect_err(|_| self.links.abandon())
    }

    /// Begins a call that is driven in parts. Says whether it is over with that.
    ///
    /// # Errors
    /// As for [`run`](Self::run). Nothing is lent or posted any more then.
    pub(crate) fn begin(
        &mut self,
        executor: &mut Executor,
        regions: &Regions<'_>,
    ) -> Result<bool, Box<Error>> {
        let begun = executor.begin(&self.call, 0, regions, self.links);
        let begun =
            begun.map_err(|error| self.explain(error, &Planned { executor, regions, call: self.call }));
        begun.map(|progress| progress == Progress::Done).inspect_err(|_| self.links.abandon())
    }

    /// Drives a call that has begun. Says whether it is over.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin).
    pub(crate) fn go_on(
        &mut self,
        executor: &mut Executor,
        regions: &Regions<'_>,
        wait: &mut Wait,
        until: Until,
    ) -> Result<bool, Box<Error>> {
        let mut work = Planned { executor, regions, call: self.call };
        self.wait(&mut work, wait, until).inspect_err(|_| self.links.abandon())
    }

    /// Drives something that has begun, from its beginning to its end.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub(crate) fn finish(&mut self, work: &mut impl Work) -> Result<(), Box<Error>> {
        let over = self.wait(work, &mut Wait::new(self.patience), Until::Over);
        over.map(drop).inspect_err(|_| self.links.abandon())
    }

    /// Drives something that has begun. Says whether it is over.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub(crate) fn drive(
        &mut self,
        work: &mut impl Work,
        wait: &mut Wait,
        until: Until,
    ) -> Result<bool, Box<Error>> {
        self.wait(work, wait, until).inspect_err(|_| self.links.abandon())
    }

    #[inline]
    fn wait<W: Work>(&mut self, work: &mut W, wait: &mut Wait, until: Until) -> Result<bool, Box<Error>> {
        let mut polls = 0;
        loop {
            match work.poll(self.links) {
                Ok(Progress::Done) => return Ok(true),
                Ok(Progress::Moved) => wait.patience.reset(),
                Ok(Progress::Idle) => match self.pause(work, wait, until) {
                    Ok(Paused::GoOn) => {}
                    Ok(Paused::Over) => return Ok(true),
                    Ok(Paused::Leave) => return Ok(false),
                    Err(error) => return self.end_with(error, work),
                },
                Err(error) => return Err(self.explain(error, work)),
            }
            polls += 1;
            match until {
                Until::Over => {}
                Until::Idle if polls >= POLLS_IDLE => return Ok(false),
                Until::Time(end) if polls % POLLS_TIME == 0 && Instant::now() >= end => return Ok(false),
                Until::Idle | Until::Time(_) => {}
            }
        }
    }

    /// Waits a little, now that a poll has found nothing.
    #[inline]
    fn pause<W: Work>(&mut self, work: &mut W, wait: &mut Wait, until: Until) -> Result<Paused, Box<Error>> {
        let pause = wait.patience.next();
        match (pause, until) {
            (Pause::Spin, Until::Idle) => return Ok(Paused::Leave),
            // No pause instruction: a poll is as long as one, and on some machines one takes as long as the
            // hand-over of a line does.
            (Pause::Spin, Until::Over | Until::Time(_)) => return Ok(Paused::GoOn),
            (Pause::Yield, Until::Over) if wait.brief < BRIEF => {
                wait.brief += 1;
                // Who sleeps must hear of what was sent.
                self.links.ring();
                std::thread::yield_now();
                return Ok(Paused::GoOn);
            }
            _ => {}
        }
        let now = self.look(&mut wait.watch, work)?;
        let nap = match until {
            Until::Over => work.nap(),
            Until::Time(end) if now < end => work.nap().min(end - now),
            Until::Idle | Until::Time(_) => return Ok(Paused::Leave),
        };
        // Only here, where the wait is long. Who looked but for a moment has left above, and helps after that.
        if others::help() || pause == Pause::Yield {
            std::thread::yield_now();
            return Ok(Paused::GoOn);
        }
        let over = self.sleep(work, wait, nap)?;
        Ok(if over { Paused::Over } else { Paused::GoOn })
    }

    /// Sleeps until something may have come. Says whether the call ended before it could.
    #[cold]
    fn sleep<W: Work>(&mut self, work: &mut W, wait: &mut Wait, nap: Duration) -> Result<bool, Box<Error>> {
        // A peer may be asleep for want of what was sent since the last look.
        self.links.ring();
        let Some(bell) = self.links.sleeper() else {
            std::thread::yield_now();
            return Ok(false);
        };
        bell.prepare();
        // What came before the announcement rang no bell: look once more.
        let progress = work.poll(self.links);
        let Some(bell) = self.links.sleeper() else { return Ok(false) };
        match progress {
            Ok(Progress::Idle) => bell.sleep(nap.as_nanos() as u64),
            Ok(Progress::Moved) => {
                bell.cancel();
                wait.patience.reset();
            }
            Ok(Progress::Done) => {
                bell.cancel();
                return Ok(true);
            }
            Err(error) => {
                bell.cancel();
                return Err(self.explain(error, work));
            }
        }
        Ok(false)
    }

    /// Looks at the clock, and when it is time at everything that can end a wait. Says what time it is.
    #[cold]
    fn look<W: Work>(&mut self, watch: &mut Option<Watch>, work: &W) -> Result<Instant, Box<Error>> {
        let now = Instant::now();
        let Some(watch) = watch else {
            // This rank is about to wait for long: who sleeps must hear of what was sent.
            self.links.ring();
            *watch = Some(Watch { waited: Duration::ZERO, looked: now, deserted: false });
            return Ok(now);
        };
        let since = now - watch.looked;
        if since < CONTROL_EVERY {
            return Ok(now);
        }
        watch.looked = now;
        self.links.ring();
        watch.waited += since.min(GAP_MAX);
        let waited = watch.waited;
        let status = work.status(self.links);
        self.control.poll(&status).map_err(|error| self.told(error, work))?;
        if let Err(error) = self.links.check() {
            return Err(self.explain(error, work));
        }
        if let Some(peer) = self.control.left().find(|peer| work.misses(*peer)) {
            // What it sent before it left may have come since the last poll: only at the next look is it missing.
            if std::mem::replace(&mut watch.deserted, true) {
                let (how, during) = ("left the communicator", work.during(self.links));
                return Err(Box::new(Error::PeerLost { peer, how, during }));
            }
        }
        if waited >= self.timeout {
            return Err(self.timed_out(work, waited));
        }
        Ok(now)
    }

    /// The error of a call that took too long. Whoever gives no sign of life is named; if all do, the ranks
    /// this one waits for, or the one that those wait for in turn.
    fn timed_out<W: Work>(&mut self, work: &W, waited: Duration) -> Box<Error> {
        let during = work.during(self.links);
        let status = work.status(self.links);
        let mut answers = self.control.probe(PROBE, &status);
        answers.retain(|(rank, _)| work.concerns(*rank));
        let silent: Vec<Rank> = answers.iter().filter(|(_, a)| a.is_none()).map(|(rank, _)| *rank).collect();
        let behind = |status: &Status| work.is_elsewhere(status);
        let (culprits, why) = if !silent.is_empty() {
            let stopped = |rank: &Rank| self.control.process_state(*rank) == Some('T');
            let stopped: Vec<Rank> = silent.iter().copied().filter(stopped).collect();
            match stopped.is_empty() {
                true => (silent, " (alive, but not in a call)"),
                false => (stopped, " (stopped by a signal)"),
            }
        } else {
            let late = answers.iter().filter(|(_, a)| a.as_ref().is_some_and(behind));
            let late: Vec<Rank> = late.map(|(rank, _)| *rank).collect();
            if late.is_empty() {
                (work.awaited(), " (alive and in the same call)")
            } else {
                (late, " (alive, but in another call)")
            }
        };
        Box::new(Error::Timeout { culprits, during, waited, why: why.into() })
    }
}
