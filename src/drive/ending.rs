//! How a wait ends that does not end well: what the caller is told, and what is still done before.

use super::{Driver, EXPLAIN, Work};
use sohu_coll_core::Error;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::exec::Progress;
use std::time::Instant;

impl Driver<'_> {
    /// The call is over if what it needs has come, or else with this error. Who is through with it may have failed with a mismatch in a
    /// later one, and a rank that is late to this one may still give what it has: only then is more waited for, until nothing has come
    /// for as long as the reason for a cut link takes.
    #[cold]
    pub(super) fn end_with<W: Work>(&mut self, error: Box<Error>, work: &mut W) -> Result<bool, Box<Error>> {
        let status = work.status(self.links);
        let is_later = match error.root_cause() {
            Error::Mismatch { ours, .. } if status.in_call => {
                ours.sequence.wrapping_sub(status.sequence).cast_signed() > 0
            }
            _ => false,
        };
        let mut until = None;
        loop {
            match work.poll(self.links) {
                Ok(Progress::Done) => return Ok(true),
                Ok(Progress::Moved) => until = None,
                Ok(Progress::Idle) if is_later && until.is_none_or(|until| Instant::now() < until) => {
                    until.get_or_insert_with(|| Instant::now() + EXPLAIN);
                    self.links.ring();
                    std::thread::yield_now();
                }
                Ok(Progress::Idle) | Err(_) => return Err(error),
            }
        }
    }

    /// Turns what a link reports into what the caller is told: the root cause, if a peer tells it in time.
    pub(super) fn explain<W: Work>(&mut self, error: LinkError, work: &W) -> Box<Error> {
        let rank = self.links.rank();
        Box::new(match error {
            LinkError::Mismatch { peer, ours, theirs } => Error::Mismatch { rank, ours, peer, theirs },
            LinkError::Corrupt { peer, what } => Error::Corrupt { peer, what: what.into() },
            LinkError::Closed { peer } => {
                let status = work.status(self.links);
                let until = Instant::now() + EXPLAIN;
                while Instant::now() < until {
                    if let Err(error) = self.control.poll(&status) {
                        return self.told(error, work);
                    }
                    std::thread::yield_now();
                }
                Error::PeerLost { peer, how: "closed its link", during: work.during(self.links) }
            }
            LinkError::Panicked { operation, text } => {
                let what = format!("user operation {operation:?}: {text}; outputs may be written in part");
                Error::Panicked { rank, during: self.call.to_string(), what }
            }
            LinkError::System { peer, call, errno } => {
                Error::System { call: format!("{call} on the link to {peer}"), errno, hint: String::new() }
            }
            other => Error::Refused(other.to_string()),
        })
    }

    /// What a peer reported is the failure itself for a call that it ends, not the echo of one.
    pub(super) fn told<W: Work>(&self, error: Error, work: &W) -> Box<Error> {
        Box::new(match error {
            // Seen by this rank, which knows better what it was doing than its sockets do.
            Error::PeerLost { peer, how, .. } if !work.status(self.links).in_call => {
                Error::PeerLost { peer, how, during: work.during(self.links) }
            }
            other => other.root_cause().clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::{HostFacts, Place};
    use crate::control::{Control, Status};
    use sohu_coll_core::link::Links;
    use sohu_coll_core::{Rank, Signature};
    use sohu_coll_mem::doorbell::Patience;
    use sohu_coll_shm::{Layout, Segment, ShmLinks};
    use std::time::Duration;

    /// A call whose polls find this, one after the other, and nothing after that.
    struct Late {
        sequence: u32,
        in_call: bool,
        polls: Vec<Progress>,
    }

    impl Work for Late {
        fn poll(&mut self, _links: &mut dyn Links) -> Result<Progress, LinkError> {
            Ok(if self.polls.is_empty() { Progress::Idle } else { self.polls.remove(0) })
        }

        fn status(&self, _links: &dyn Links) -> Status {
            Status { sequence: self.sequence, in_call: self.in_call, waiting_on: None }
        }

        fn during(&self, _links: &dyn Links) -> String {
            "a call".into()
        }

        fn awaited(&self) -> Vec<Rank> {
            Vec::new()
        }

        fn is_elsewhere(&self, _status: &Status) -> bool {
            false
        }
    }

    /// How such a call ends when this is heard of: whether well, and what else it would have polled.
    fn ended(error: Error, mut late: Late) -> (bool, usize) {
        let segment = Segment::create(Layout::new(1, 1 << 20, 0)).unwrap();
        let mut links = ShmLinks::join(Rank(0), segment, &[None]).unwrap();
        let place = Place { rank: 0, size: 1 };
        let mut control = Control::new(place, vec![HostFacts::default()], vec![None]).unwrap().started();
        let patience = Patience::new(0, 0);
        let (timeout, call) = (Duration::from_secs(60), Signature::none());
        let mut driver = Driver::new(&mut links, &mut control, timeout, patience, call);
        let ended = driver.end_with(Box::new(error), &mut late);
        (ended.is_ok(), late.polls.len())
    }

    fn mismatch(sequence: u32) -> Error {
        let ours = Signature { sequence, ..Signature::none() };
        Error::Mismatch { rank: Rank(1), ours, peer: Rank(2), theirs: Signature { count: 1, ..ours } }
    }

    const COMES: [Progress; 4] = [Progress::Idle, Progress::Moved, Progress::Idle, Progress::Done];

    #[test]
    fn a_call_before_the_one_that_others_disagree_on_goes_on() {
        for (sequence, failed) in [(5, 6), (5, 12), (u32::MAX, 0)] {
            let late = Late { sequence, in_call: true, polls: COMES.to_vec() };
            assert_eq!(ended(mismatch(failed), late), (true, 0), "{sequence} before {failed}");
        }
        let never = Late { sequence: 5, in_call: true, polls: vec![Progress::Moved] };
        assert_eq!(ended(mismatch(6), never), (false, 0), "it does not wait for ever");
    }

    #[test]
    fn any_other_call_ends_when_nothing_is_there() {
        let lost = Error::PeerLost { peer: Rank(1), how: "died", during: "call 6".into() };
        for (error, in_call) in
            [(mismatch(5), true), (mismatch(4), true), (mismatch(6), false), (lost.clone(), true)]
        {
            let text = error.to_string();
            let late = Late { sequence: 5, in_call, polls: COMES.to_vec() };
            assert_eq!(ended(error, late), (false, 3), "{text}");
        }
        // What is there already counts, whatever happened.
        let there = Late { sequence: 5, in_call: true, polls: vec![Progress::Moved, Progress::Done] };
        assert_eq!(ended(lost, there), (true, 0));
    }
}
