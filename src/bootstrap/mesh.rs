//! A socket from every rank to every other one, while the job is being set up.
//!
//! Invariant: a failed swap is told to every peer before it is returned, so that no rank waits for one that
//! has given up.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sohu_coll_core::{Error, Rank};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use super::id::{JOB_BYTES, SECRET_BYTES};
use super::wire::{BLOB_BYTES_MAX, Cause, How, PeerMessage, encode};
use super::{HostFacts, PeerSocket, Place, START, UniqueId};
use crate::control::{Control, Status};

/// What a rank gave in a swap: its bytes, and its file descriptor if it gave one.
pub(crate) type Swapped = (Vec<u8>, Option<OwnedFd>);

/// The sockets of a job that is being set up.
#[derive(Debug)]
pub(crate) struct Mesh {
    id: UniqueId,
    place: Place,
    control: Control,
    round: u32,
}

impl Mesh {
    /// Takes the sockets over, by rank; `None` at this rank's own place.
    pub(super) fn new(
        id: UniqueId,
        place: Place,
        roster: Vec<HostFacts>,
        sockets: Vec<Option<PeerSocket>>,
    ) -> Result<Self, Error> {
        let control =
            Control::new(place, roster, sockets).map_err(|e| super::system("epoll_create", &e.into()))?;
        Ok(Self { id, place, control, round: 0 })
    }

    /// This rank.
    pub(crate) fn rank(&self) -> Rank {
        Rank(self.place.rank)
    }

    /// How many ranks there are.
    pub(crate) fn size(&self) -> u32 {
        self.place.size
    }

    /// The id of the job. Not secret.
    pub(crate) fn job(&self) -> [u8; JOB_BYTES] {
        self.id.job_bytes()
    }

    /// The secret of the job, for transports that must prove themselves too.
    pub(crate) fn secret(&self) -> &[u8; SECRET_BYTES] {
        self.id.secret()
    }

    /// Where each rank runs, by rank.
    pub(crate) fn roster(&self) -> &[HostFacts] {
        self.control.roster()
    }

    /// The process of each rank, where the system could tell.
    pub(crate) fn pids(&self) -> Vec<Option<u32>> {
        let own = self.rank();
        let pid = |rank| if rank == own { Some(std::process::id()) } else { self.control.pid(rank) };
        (0..self.size()).map(|rank| pid(Rank(rank))).collect()
    }

    /// Gives `blob`, and `file` if there is one, to every other rank and gets theirs, by rank; this rank's own entry
    /// is empty. Collective: every rank must make the same swaps in the same order.
    ///
    /// # Errors
    /// [`Error::PeerLost`] names a rank that died, [`Error::Timeout`] the ranks that did not swap by the deadline,
    /// [`Error::Aborted`] says what went wrong on another rank. The other ranks are told.
    ///
    /// # Panics
    /// When the blob is longer than 64 KiB.
    pub(crate) fn swap(
        &mut self,
        blob: &[u8],
        file: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<Vec<Swapped>, Error> {
        assert!(blob.len() <= BLOB_BYTES_MAX, "a blob of {} bytes is over {BLOB_BYTES_MAX}", blob.len());
        self.round += 1;
        let message = PeerMessage::Blob { round: self.round, file: file.is_some(), bytes: blob.to_vec() };
        let frame = encode(&message);
        for socket in self.control.sockets_mut() {
            socket.queue_with(&frame, file.is_some());
        }
        self.exchange(file, deadline).map_err(|error| {
            // Another rank may have said by now what this failure only follows from.
            let error = match self.control.poll(&Status::default()) {
                Err(told @ Error::Aborted { .. }) => told,
                _ => error,
            };
            self.control.abort(&error);
            error
        })
    }

    /// Sends and receives in whatever order the sockets allow, so that no two ranks wait for each other.
    fn exchange(&mut self, file: Option<BorrowedFd<'_>>, deadline: Instant) -> Result<Vec<Swapped>, Error> {
        let started = Instant::now();
        let mut heard: Vec<Option<Swapped>> = self.roster().iter().map(|_| None).collect();
        let round = self.round;
        loop {
            let mut waiting = Vec::new();
            let mut culprits = Vec::new();
            for socket in self.control.sockets_mut() {
                socket.flush(file);
                let peer = socket.peer();
                let entry = &mut heard[peer.index()];
                if entry.is_none() {
                    *entry = receive(socket, round)?;
                }
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, entry.is_none());
                flags.set(PollFlags::OUT, socket.is_sending());
                if !flags.is_empty() {
                    waiting.push(PollFd::from_borrowed_fd(socket.fd(), flags));
                    culprits.push(peer);
                }
            }
            if waiting.is_empty() {
                return Ok(heard.into_iter().map(Option::unwrap_or_default).collect());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let waited = started.elapsed();
                return Err(Error::Timeout { culprits, during: START.into(), waited, why: String::new() });
            }
            // A duration too long for the kernel is as good as none: the loop looks at the clock again.
            match poll(&mut waiting, Timespec::try_from(left).ok().as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(super::system("poll", &errno.into())),
            }
        }
    }

    /// Tells every peer that this rank gives up, and why. Best effort; never blocks.
    pub(crate) fn abort(&mut self, cause: &Error) {
        self.control.abort(cause);
    }

    #[cfg(test)]
    pub(super) fn skip_a_round(&mut self) {
        self.round += 1;
    }

    /// The sockets as the control plane of the job that is now set up.
    pub(crate) fn into_control(self) -> Control {
        self.control.started()
    }
}

/// This round's part of one peer, if it is here.
fn receive(socket: &mut PeerSocket, round: u32) -> Result<Option<Swapped>, Error> {
    let peer = socket.peer();
    let broke = |what: &str| Error::Corrupt { peer, what: what.into() };
    match socket.receive() {
        Ok(None) => Ok(None),
        Ok(Some((PeerMessage::Blob { round: theirs, file, bytes }, descriptor))) => {
            if theirs != round || bytes.len() > BLOB_BYTES_MAX || file != descriptor.is_some() {
                return Err(broke("swapped something else than this rank"));
            }
            Ok(Some((bytes, descriptor)))
        }
        Ok(Some((PeerMessage::Abort(cause), _))) => Err(aborted(cause)),
        Ok(Some((PeerMessage::Bye { .. }, _))) => {
            Err(Error::PeerLost { peer, how: How::Left.text(), during: START.into() })
        }
        Ok(Some(_)) => Err(broke("spoke out of turn at the start")),
        Err(trouble) => Err(trouble.error(peer, How::Died, START)),
    }
}

fn aborted(cause: Cause) -> Error {
    Error::Aborted { cause: Arc::new(cause.into_error()) }
}
