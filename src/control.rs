//! The control plane of a started job: who died, who gave up and why, who does not answer.
//!
//! It runs on the caller's thread, from the wait of a call, over the sockets that the bootstrap left open. The
//! kernel closes them with their process, so a death needs no heartbeat. Invariants: nothing here blocks, but for
//! [`Control::probe`], which ends at its deadline; a quiet poll is one system call and allocates nothing; before a
//! lost peer is reported every other socket is read, and a cause that some rank told beats what this rank sees
//! for itself, so that all survivors name the same culprit.

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sohu_coll_core::{Error, Rank};
use std::collections::BTreeSet;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bootstrap::host::Process;
use crate::bootstrap::wire::{Cause, How, PeerMessage, encode};
use crate::bootstrap::{HostFacts, PeerSocket, Place, START, Trouble};

/// The most messages taken from one peer at one poll, so that a peer that never stops can not hold up a call.
const MESSAGES_MAX: usize = 64;
/// Sockets that one system call can report; more take more calls.
const EVENTS_MAX: usize = 32;

/// What a rank is doing, for others that wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The number of the call that it is in, or will make next, modulo 2^32.
    pub(crate) sequence: u32,
    /// Whether it is in a call.
    pub(crate) in_call: bool,
    /// The rank from which it needs something next, where there is one.
    pub(crate) waiting_on: Option<Rank>,
}

/// One peer, and what is known of it.
#[derive(Debug)]
struct Peer {
    socket: PeerSocket,
    /// Why it gave up, if it said so.
    abort: Option<Cause>,
    /// How many calls it completed before it left, if it left.
    left: Option<u32>,
    /// Why nothing more comes from it.
    end: Option<Trouble>,
    /// Its answer to the probe with this nonce.
    answer: Option<(u64, Status)>,
}

/// The control plane of one rank.
pub(crate) struct Control {
    place: Place,
    roster: Vec<HostFacts>,
    /// By rank; `None` for this rank.
    peers: Vec<Option<Peer>>,
    /// Readable when any peer's socket is.
    ears: OwnedFd,
    nonce: u64,
    /// Blobs of a swap that this rank gave up may still come in.
    starting: bool,
    /// The first failure that was reported; it stays.
    failed: Option<Error>,
}

impl Control {
    /// Watches the sockets, by rank; `None` at this rank's own place.
    ///
    /// # Errors
    /// When the kernel has no file descriptor left.
    pub(crate) fn new(
        place: Place,
        roster: Vec<HostFacts>,
        sockets: Vec<Option<PeerSocket>>,
    ) -> Result<Self, Errno> {
        let ears = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut peers = Vec::with_capacity(sockets.len());
        for socket in sockets {
            if let Some(socket) = &socket {
                let data = epoll::EventData::new_u64(socket.peer().0.into());
                epoll::add(&ears, socket.fd(), data, epoll::EventFlags::IN | epoll::EventFlags::RDHUP)?;
            }
            peers.push(socket.map(|socket| Peer {
                socket,
                abort: None,
                left: None,
                end: None,
                answer: None,
            }));
        }
        Ok(Self { place, roster, peers, ears, nonce: 0, starting: true, failed: None })
    }

    /// The same, now that the job is set up.
    pub(crate) fn started(mut self) -> Self {
        self.starting = false;
        self
    }

    /// Where each rank runs, by rank.
    pub(crate) fn roster(&self) -> &[HostFacts] {
        &self.roster
    }

    /// The sockets to the peers, in the order of their ranks.
    pub(crate) fn sockets_mut(&mut self) -> impl Iterator<Item = &mut PeerSocket> {
        self.peers.iter_mut().flatten().map(|peer| &mut peer.socket)
    }

    /// Reads what the peers sent, answers probes, and says whether the job is still whole. To be called about each
    /// millisecond while a call waits.
    ///
    /// # Errors
    /// [`Error::Aborted`] with the cause that a peer told; otherwise [`Error::PeerLost`] for a peer that died, or that
    /// left the communicator before it completed the call that this rank is in; [`Error::Corrupt`] for one that
    /// sent nonsense. Once it failed it fails the same way for ever.
    pub(crate) fn poll(&mut self, status: &Status) -> Result<(), Error> {
        if self.failed.is_none() {
            self.listen(Duration::ZERO, status);
            self.failed = self.judge(status);
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// The peers that left in good order, whatever they completed before.
    pub(crate) fn left(&self) -> impl Iterator<Item = Rank> {
        self.peers.iter().flatten().filter(|peer| peer.left.is_some()).map(|peer| peer.socket.peer())
    }

    /// Tells every peer that this rank gives up, and why. Best effort; never blocks.
    pub(crate) fn abort(&mut self, cause: &Error) {
        let frame = encode(&PeerMessage::Abort(Cause::of(cause, Rank(self.place.rank))));
        self.tell(&frame);
    }

    /// Tells every peer that this rank leaves in good order after `calls` completed calls. Best effort; never blocks.
    pub(crate) fn bye(&mut self, calls: u32) {
        self.tell(&encode(&PeerMessage::Bye { calls }));
    }

    /// Asks every peer what it is doing and waits up to `wait` for the answers. Gives all peers in the order of
    /// their ranks, with `None` for those that did not answer: a process that is stopped, or
    /// one that is not in a call, for only calls answer. What else comes in meanwhile is for the next poll.
    pub(crate) fn probe(&mut self, wait: Duration, status: &Status) -> Vec<(Rank, Option<Status>)> {
        self.nonce += 1;
        let nonce = self.nonce;
        self.tell(&encode(&PeerMessage::Probe { nonce }));
        let started = Instant::now();
        let answered =
            |peer: &Peer| peer.answer.filter(|(theirs, _)| *theirs == nonce).map(|(_, status)| status);
        let open = |peer: &Peer| peer.end.is_none() && peer.left.is_none() && answered(peer).is_none();
        while self.peers.iter().flatten().any(open) {
            let left = wait.saturating_sub(started.elapsed());
            self.listen(left, status);
            if left.is_zero() {
                break;
            }
        }
        self.peers.iter().flatten().map(|peer| (peer.socket.peer(), answered(peer))).collect()
    }

    /// What the process of a peer is doing, as the kernel tells: `T` if it is stopped by a signal, `S` if it sleeps,
    /// `R` if it runs. `None` where that can not be found out.
    pub(crate) fn process_state(&self, peer: Rank) -> Option<char> {
        Process::read(self.pid(peer)?).map(|process| process.state)
    }

    /// The process of a peer, where the kernel could tell.
    pub(crate) fn pid(&self, peer: Rank) -> Option<u32> {
        self.peers.get(peer.index())?.as_ref()?.socket.pid()
    }

    fn tell(&mut self, frame: &[u8]) {
        for socket in self.sockets_mut() {
            socket.send(frame);
        }
    }

    /// Waits up to `wait` for something to come in and takes it.
    fn listen(&mut self, wait: Duration, status: &Status) {
        // Answers that did not fit when they were due.
        for peer in self.peers.iter_mut().flatten().filter(|peer| peer.socket.is_sending()) {
            peer.socket.flush(None);
        }
        let mut timeout = Timespec::try_from(wait).ok();
        // The kernel takes turns among the ready sockets, so this many rounds see each of them.
        for _ in 0..self.peers.len().div_ceil(EVENTS_MAX) {
            let mut space = [MaybeUninit::uninit(); EVENTS_MAX];
            // An interrupted wait found nothing; every caller comes again.
            let Ok((events, _)) = epoll::wait(&self.ears, &mut space, timeout.as_ref()) else { return };
            for event in &*events {
                self.hear(event.data.u64() as usize, status);
            }
            if events.len() < EVENTS_MAX {
                return;
            }
            timeout = Some(Timespec::default());
        }
    }

    fn hear(&mut self, rank: usize, status: &Status) {
        let Some(peer) = self.peers.get_mut(rank).and_then(Option::as_mut) else { return };
        peer.hear(status, self.place.size, self.starting);
        if peer.end.is_some() {
            // An end stays readable for ever and would keep a sleeper awake.
            let _ = epoll::delete(&self.ears, peer.socket.fd());
        }
    }

    /// The failure that what is known amounts to.
    fn judge(&self, status: &Status) -> Option<Error> {
        if let Some(cause) = self.told_cause() {
            return Some(Error::Aborted { cause: Arc::new(cause.clone().into_error()) });
        }
        // Made when there is a failure to tell: a quiet poll allocates nothing.
        let during = || match status.in_call {
            _ if self.starting => START.to_owned(),
            true => format!("call {}", status.sequence),
            false => format!("the pause before call {}", status.sequence),
        };
        let died = self.peers.iter().flatten().find_map(|peer| match (&peer.end, peer.left) {
            (Some(Trouble::Gone), Some(_)) | (None, _) => None,
            (Some(end), _) => Some(end.error(peer.socket.peer(), How::Died, &during())),
        });
        died.or_else(|| {
            let left = self.peers.iter().flatten().find(|peer| peer.left_before_end_of(status))?;
            Some(Trouble::Gone.error(left.socket.peer(), How::Left, &during()))
        })
    }

    /// The cause that peers told: of the lowest rank that told one, or where that one blames a rank that itself told
    /// a cause, of the blamed one, which knows best.
    fn told_cause(&self) -> Option<&Cause> {
        let told = |rank: &Rank| self.peers.get(rank.index())?.as_ref()?.abort.as_ref();
        let mut cause = self.peers.iter().flatten().find_map(|peer| peer.abort.as_ref())?;
        let mut asked = BTreeSet::new();
        while let Some(better) = cause.culprits().iter().filter(|r| asked.insert(r.0)).find_map(told) {
            cause = better;
        }
        Some(cause)
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The roster is the same on every rank and would bury the rest.
        f.debug_struct("Control")
            .field("peers", &self.peers)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Peer {
    /// Takes what this peer sent, up to a bound.
    fn hear(&mut self, status: &Status, size: u32, starting: bool) {
        for _ in 0..MESSAGES_MAX {
            if self.end.is_some() {
                return;
            }
            let broke = match self.socket.receive() {
                Ok(None) => return,
                Err(trouble) => {
                    self.end = Some(trouble);
                    return;
                }
                Ok(Some((message, _file))) => self.heard(message, status, size, starting),
            };
            if let Err(what) = broke {
                self.end = Some(Trouble::Broke(what));
            }
        }
    }

    fn heard(
        &mut self,
        message: PeerMessage,
        status: &Status,
        size: u32,
        starting: bool,
    ) -> Result<(), &'static str> {
        match message {
            PeerMessage::Abort(cause) => {
                if cause.culprits().iter().any(|rank| rank.0 >= size) {
                    return Err("blames a rank that the communicator does not have");
                }
                self.abort.get_or_insert(cause);
            }
            PeerMessage::Bye { calls } => self.left = Some(calls),
            PeerMessage::Probe { nonce } => {
                self.socket.send(&encode(&PeerMessage::Answer { nonce, status: *status }))
            }
            PeerMessage::Answer { nonce, status } => {
                if status.waiting_on.is_some_and(|rank| rank.0 >= size) {
                    return Err("waits for a rank that the communicator does not have");
                }
                self.answer = Some((nonce, status));
            }
            PeerMessage::Blob { .. } if starting => {}
            PeerMessage::Blob { .. } => return Err("swaps after the start"),
        }
        Ok(())
    }

    /// Whether this peer left, and did not complete the call that `status` is in before. What it sent for a call
    /// that it completed is all there, so its leaving is no news to the others.
    fn left_before_end_of(&self, status: &Status) -> bool {
        // The count of calls wraps, so the sign of the difference decides.
        status.in_call
            && self.left.is_some_and(|calls| calls.wrapping_sub(status.sequence).cast_signed() <= 0)
    }
}

#[cfg(test)]
mod tests;
