//! How a wait ends that does not end well: what the caller is told, and what is still done before.

use super::{Driver, EXPLAIN, Work};
use sohu_coll_core::Error;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::exec::Progress;
use std::time::Instant;

impl Driver<'_> {
    /// The call is over if what it needs comes, or else with this error. Who is through with it may have failed in a later call,
    /// and that news is faster than bytes: then the others are given as long as the reason for a cut link.
    #[cold]
    pub(super) fn end_with<W: Work>(&mut self, error: Box<Error>, work: &mut W) -> Result<bool, Box<Error>> {
        let status = work.status(self.links);
        let is_later = match error.root_cause() {
            Error::Mismatch { ours, .. } if status.in_call => {
                ours.sequence.wrapping_sub(status.sequence).cast_signed() > 0
            }
            _ => false,
        };
        let mut until = Instant::now() + EXPLAIN;
        loop {
            match work.poll(self.links) {
                Ok(Progress::Done) => return Ok(true),
                Ok(Progress::Moved) => until = Instant::now() + EXPLAIN,
                Ok(Progress::Idle) if is_later && Instant::now() < until => {
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
