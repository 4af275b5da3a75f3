//! Messages that were started, and go on side by side.
//!
//! Invariants: a message keeps its place among the items of the courier until its call is over; the bytes stay with the
//! owner of the call meanwhile, where nobody reaches them but the courier. Calls end in any order, and each has a deadline of its own.

use super::{Finished, Job};
use crate::drive::{Until, Wait};
use crate::lane::Lane;
use crate::mail::{Letters, mispaired, refused};
use crate::owned::Owner;
use crate::terms::Task;
use crate::ticket::{Outcome, Ticket};
use sohu_coll_core::Error;
use sohu_coll_core::transfer::Item;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What came of driving messages.
pub(super) enum Step {
    /// A call is over.
    Over(Finished),
    /// Something has changed: others can join, or nothing is left.
    Again,
    /// Nothing more can be done now, or the time is up.
    Left,
}

/// The messages that are under way.
pub(super) struct Mailing {
    /// In the order in which they were started.
    calls: Vec<Mailed>,
    /// Of each place of an item, whether one is there.
    taken: Vec<bool>,
    wait: Wait,
    /// Whether nothing is left of any message.
    is_clear: bool,
}

/// One call of messages.
struct Mailed {
    owner: Box<dyn Owner>,
    ticket: Arc<Ticket>,
    place: Range<usize>,
    is_group: bool,
    /// What `wait` had waited when it began.
    since: Duration,
}

impl Mailed {
    fn over(self, error: Option<Error>) -> Finished {
        let Self { owner, ticket, .. } = self;
        Finished { ticket, messages: true, outcome: Outcome { owner, pinned: None, error } }
    }
}

impl Mailing {
    /// Without a message.
    ///
    /// # Panics
    /// Never: nothing is sent to this rank itself.
    pub(super) fn new(lane: &mut Lane) -> Self {
        lane.mail.courier.begin(&mut []).expect("an empty call makes sense");
        let wait = Wait::new(lane.engine.patience());
        Self { calls: Vec::new(), taken: Vec::new(), wait, is_clear: false }
    }

    /// Whether it has waited for long.
    pub(super) fn is_slow(&self) -> bool {
        self.wait.is_long()
    }

    /// Adds a call. Says what came of it, if it can not be made.
    pub(super) fn join(&mut self, lane: &mut Lane, job: Job) -> Option<Finished> {
        let Job { mut owner, ticket, task, .. } = job;
        let mut count = 0;
        owner.transfers(&mut |_| count += 1);
        let place = self.room(count);
        let (is_group, since) = (matches!(task, Task::Messages("group")), self.wait.waited());
        self.calls.push(Mailed { owner, ticket, place: place.clone(), is_group, since });
        self.is_clear = false;
        let joined = lane.ready().and_then(|()| {
            let rank = lane.rank;
            let joined = self.with_items(lane, |lane, items, _| lane.mail.courier.join(items, place));
            joined.map_err(|muddle| lane.named(refused(rank, muddle)))
        });
        let error = joined.err()?;
        let call = self.calls.pop()?;
        self.taken[call.place.clone()].fill(false);
        Some(call.over(Some(error)))
    }

    /// So many places in a row where no item is.
    fn room(&mut self, count: usize) -> Range<usize> {
        let mut free = 0;
        let end = (0..self.taken.len()).find(|at| {
            free = if self.taken[*at] { 0 } else { free + 1 };
            free >= count
        });
        let start = match end {
            Some(last) => (last + 1).saturating_sub(count),
            None => self.taken.len() - free,
        };
        let place = start..start + count;
        self.taken.resize(self.taken.len().max(place.end), false);
        self.taken[place.clone()].fill(true);
        place
    }

    /// Shows `work` all items, as long as it works.
    fn with_items<R>(
        &mut self,
        lane: &mut Lane,
        work: impl FnOnce(&mut Lane, &mut [Item<'_>], &mut Wait) -> R,
    ) -> R {
        let mut items = lane.mail.take_spare();
        items.resize_with(self.taken.len(), Item::vacant);
        for call in &mut self.calls {
            let mut places = call.place.clone();
            call.owner.transfers(&mut |item| {
                if let (Some(at), Ok(item)) = (places.next(), item) {
                    items[at] = item;
                }
            });
        }
        let result = work(lane, &mut items, &mut self.wait);
        lane.mail.keep_spare(items);
        result
    }

    /// Drives the messages until a call is over, or `news` says that others can join. `None` when nothing is left of any.
    pub(super) fn go_on(&mut self, lane: &mut Lane, until: Until, news: &dyn Fn() -> bool) -> Option<Step> {
        if lane.failed.is_some() {
            return self.give_up(lane).map(Step::Over);
        }
        if let Some(finished) = self.next_over(lane) {
            return Some(Step::Over(finished));
        }
        if self.calls.is_empty() && self.is_clear {
            return None;
        }
        let oldest = self.calls.first();
        let (of, group) = oldest.map_or((0..0, false), |call| (call.place.clone(), call.is_group));
        let driven = self.with_items(lane, |lane, items, wait| {
            let Lane { mail, engine, sequence, .. } = lane;
            let sequence = *sequence;
            let news = Some(news);
            let mut letters =
                Letters { courier: &mut mail.courier, items, of, group, sequence, news, done: false };
            let driven = engine.drive(&mut letters, wait, until);
            driven.map(|moved| (moved, letters.done))
        });
        match driven {
            Ok((changed, done)) => {
                self.is_clear = done;
                Some(if changed { Step::Again } else { Step::Left })
            }
            Err(error) => {
                let error = lane.fail(*error);
                // Who waits longest is told the cause itself; where all are over, later calls tell it.
                let first = if self.calls.is_empty() { None } else { Some(self.calls.remove(0)) };
                Some(first.map_or(Step::Again, |call| Step::Over(call.over(Some(error)))))
            }
        }
    }

    /// Takes out a call that is over.
    fn next_over(&mut self, lane: &mut Lane) -> Option<Finished> {
        let courier = &lane.mail.courier;
        let at = self.calls.iter().position(|call| courier.is_over(call.place.clone()))?;
        let place = self.calls[at].place.clone();
        let told =
            self.with_items(lane, |lane, items, _| lane.mail.courier.disagreement(items, place.clone()));
        let error = told.map(|told| lane.named(mispaired(lane.rank, told)));
        let call = self.calls.remove(at);
        self.taken[place].fill(false);
        // The time that was waited before the oldest call began is nobody's.
        let before = self.calls.first().map_or(self.wait.waited(), |call| call.since);
        self.wait.forget(before);
        self.calls.iter_mut().for_each(|call| call.since = call.since.saturating_sub(before));
        Some(call.over(error))
    }

    /// Takes out a call that has failed with all others.
    pub(super) fn give_up(&mut self, lane: &Lane) -> Option<Finished> {
        let error = lane.ready().err();
        let call = if self.calls.is_empty() { None } else { Some(self.calls.remove(0)) };
        call.map(|call| call.over(error))
    }
}
