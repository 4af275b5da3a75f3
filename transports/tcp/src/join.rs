//! Connecting every pair of ranks: rank i calls every j < i and answers every j > i.
//!
//! One loop drives all handshakes of a rank, so that a silent stranger holds up nobody. Invariant: at most
//! [`STRANGERS_MAX`] connections that have proved nothing are open, each for at most [`PROOF_TIME`]; what
//! they send is kept in messages of fixed size.

use crate::handshake::{Handshake, Terms, Verdict};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Connections without proof that are open at once; more wait in the kernel's queue.
const STRANGERS_MAX: usize = 64;

/// How long an accepted connection may take to prove itself: a peer answers in microseconds once it runs.
const PROOF_TIME: Duration = Duration::from_secs(2);

/// Pause before a call that failed is tried again.
const REDIAL_PAUSE: Duration = Duration::from_millis(20);

/// A dead host is noticed after about this many seconds of silence, plus as many probes a second apart.
const KEEPALIVE: Duration = Duration::from_secs(1);
const KEEPALIVE_PROBES: u32 = 3;

/// Where this rank can be called before its links are joined. Its address goes to the peers.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `interface` (on one host: a loopback address), on a port that the system picks.
    ///
    /// # Errors
    /// When the interface has no such address, or sockets or ports have run out.
    pub fn bind(interface: IpAddr) -> io::Result<Listener> {
        let socket = TcpListener::bind(SocketAddr::new(interface, 0))?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Listener { socket, address })
    }

    /// Where peers call.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// One connection on its way to being a link.
struct Pending {
    socket: TcpStream,
    handshake: Handshake,
    /// Whom this rank called; `None` for a connection that was accepted.
    callee: Option<Rank>,
    /// Whether the connection is established.
    connected: bool,
    deadline: Instant,
}

enum Step {
    /// Wait for the socket.
    Wait,
    /// The handshake is over.
    Proven(Rank),
    /// The connection is of no use; a call is tried again.
    Lost(Errno),
    /// The other side is not who it should be.
    Stranger(&'static str),
}

/// A rank while it joins.
pub(crate) struct Joining<'a> {
    terms: Terms,
    listener: &'a TcpListener,
    addresses: &'a [SocketAddr],
    deadline: Instant,
    /// The links that are ready, by rank.
    ready: Vec<Option<TcpStream>>,
    pending: Vec<Pending>,
    /// When each lower rank may be called again, and why the last call failed.
    redial: Vec<(Instant, Errno)>,
}

impl<'a> Joining<'a> {
    pub(crate) fn new(
        terms: Terms,
        listener: &'a Listener,
        addresses: &'a [SocketAddr],
        deadline: Instant,
    ) -> Self {
        Self {
            terms,
            listener: &listener.socket,
            addresses,
            deadline,
            ready: (0..terms.size).map(|_| None).collect(),
            pending: Vec::new(),
            redial: vec![(Instant::now(), Errno::TIMEDOUT); terms.rank.index()],
        }
    }

    /// Blocks until every pair is connected; the sockets in order of rank, this one left out.
    ///
    /// # Errors
    /// When a peer did not come by the deadline, or is not the one that was called.
    pub(crate) fn run(mut self) -> Result<Vec<TcpStream>, LinkError> {
        while let Some(missing) = self.missing() {
            let now = Instant::now();
            if now >= self.deadline {
                return Err(self.late(missing));
            }
            self.dial(now)?;
            self.wait(now)?;
            self.accept()?;
            self.advance_all()?;
        }
        Ok(self.ready.into_iter().flatten().collect())
    }

    /// The first rank without a link.
    fn missing(&self) -> Option<Rank> {
        let missing = |rank: &Rank| *rank != self.terms.rank && self.ready[rank.index()].is_none();
        (0..self.terms.size).map(Rank).find(missing)
    }

    fn late(&self, peer: Rank) -> LinkError {
        match self.redial.get(peer.index()) {
            Some((_, errno)) => system(peer, "connect", *errno),
            None => system(peer, "accept", Errno::TIMEDOUT),
        }
    }

    /// Calls every lower rank that has no link and no call under way.
    fn dial(&mut self, now: Instant) -> Result<(), LinkError> {
        for peer in (0..self.terms.rank.0).map(Rank) {
            let called = self.pending.iter().any(|pending| pending.callee == Some(peer));
            if called || self.ready[peer.index()].is_some() || now < self.redial[peer.index()].0 {
                continue;
            }
            let address = self.addresses[peer.index()];
            let refused = |error: io::Error| system(peer, "connect", errno_of(&error));
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
                .map_err(refused)?;
            socket.set_nonblocking(true).map_err(refused)?;
            match socket.connect(&SockAddr::from(address)) {
                Ok(()) => {}
                Err(error) if errno_of(&error) == Errno::INPROGRESS => {}
                Err(error) => {
                    self.redial[peer.index()] = (now + REDIAL_PAUSE, errno_of(&error));
                    continue;
                }
            }
            self.pending.push(Pending {
                socket: socket.into(),
                handshake: Handshake::caller(self.terms, peer, self.nonce()?),
                callee: Some(peer),
                connected: false,
                deadline: self.deadline,
            });
        }
        Ok(())
    }

    fn strangers(&self) -> usize {
        self.pending.iter().filter(|pending| pending.callee.is_none()).count()
    }

    /// Sleeps until a socket can go on or a time has come.
    fn wait(&self, now: Instant) -> Result<(), LinkError> {
        let mut wake = self.deadline;
        let mut sockets = Vec::with_capacity(self.pending.len() + 1);
        for pending in &self.pending {
            let writes = !pending.connected || !pending.handshake.unsent().is_empty();
            let events = if writes { PollFlags::OUT } else { PollFlags::IN };
            sockets.push(PollFd::new(&pending.socket, events));
            wake = wake.min(pending.deadline);
        }
        if self.strangers() < STRANGERS_MAX {
            sockets.push(PollFd::new(self.listener, PollFlags::IN));
        }
        for (retry, _) in self.redial.iter().filter(|(retry, _)| *retry > now) {
            wake = wake.min(*retry);
        }
        let left = wake.saturating_duration_since(now);
        let timeout = Timespec::try_from(left).expect("a deadline is less than a lifetime away");
        match rustix::event::poll(&mut sockets, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(system(self.terms.rank, "poll", errno)),
        }
    }

    fn accept(&mut self) -> Result<(), LinkError> {
        while self.strangers() < STRANGERS_MAX {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) => match errno_of(&error) {
                    Errno::AGAIN => return Ok(()),
                    // What was wrong with one connection says nothing about the next.
                    Errno::INTR | Errno::CONNABORTED | Errno::PROTO => continue,
                    errno => return Err(system(self.terms.rank, "accept", errno)),
                },
            };
            if socket.set_nonblocking(true).is_err() {
                continue;
            }
            self.pending.push(Pending {
                socket,
                handshake: Handshake::answerer(self.terms, self.nonce()?),
                callee: None,
                connected: true,
                deadline: self.deadline.min(Instant::now() + PROOF_TIME),
            });
        }
        Ok(())
    }

    fn nonce(&self) -> Result<[u8; 32], LinkError> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|error| LinkError::System {
            peer: self.terms.rank,
            call: "getrandom",
            errno: error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()),
        })?;
        Ok(nonce)
    }

    fn advance_all(&mut self) -> Result<(), LinkError> {
        let now = Instant::now();
        let mut index = 0;
        while index < self.pending.len() {
            let pending = &mut self.pending[index];
            let step = pending.advance();
            if matches!(step, Step::Wait) && now < pending.deadline {
                index += 1;
                continue;
            }
            let Pending { socket, callee, .. } = self.pending.swap_remove(index);
            match (step, callee) {
                (Step::Proven(peer), _) => self.admit(peer, socket)?,
                (Step::Stranger(what), Some(peer)) => return Err(LinkError::Corrupt { peer, what }),
                (Step::Lost(errno), Some(peer)) => self.redial[peer.index()] = (now + REDIAL_PAUSE, errno),
                // Whoever called this rank and proved nothing is not worth a word.
                (_, None) | (Step::Wait, Some(_)) => {}
            }
        }
        Ok(())
    }

    /// Keeps a proven connection; the first one, where a peer made two.
    fn admit(&mut self, peer: Rank, socket: TcpStream) -> Result<(), LinkError> {
        let place = &mut self.ready[peer.index()];
        if place.is_none() {
            tune(&socket).map_err(|error| system(peer, "setsockopt", errno_of(&error)))?;
            *place = Some(socket);
        }
        Ok(())
    }
}

impl Pending {
    /// Does what the socket lets it.
    fn advance(&mut self) -> Step {
        if !self.connected {
            match self.socket.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return Step::Lost(errno_of(&error)),
            }
            // Still under way when it has no peer yet.
            if self.socket.peer_addr().is_err() {
                return Step::Wait;
            }
            self.connected = true;
        }
        loop {
            let unsent = self.handshake.unsent();
            let moved = if unsent.is_empty() {
                rustix::net::recv(&self.socket, self.handshake.missing(), RecvFlags::DONTWAIT)
                    .map(|(count, _)| (0, count))
            } else {
                rustix::net::send(&self.socket, unsent, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
                    .map(|count| (count, 0))
            };
            let verdict = match moved {
                Ok((0, 0)) => return Step::Lost(Errno::CONNRESET),
                Ok((sent, got)) => {
                    self.handshake.sent(sent);
                    self.handshake.got(got)
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Step::Wait,
                Err(errno) => return Step::Lost(errno),
            };
            match verdict {
                Verdict::Underway => {}
                Verdict::Proven(peer) => return Step::Proven(peer),
                Verdict::Stranger(what) => return Step::Stranger(what),
            }
        }
    }
}

/// Small messages go at once, and a silent dead host is noticed. No user timeout: a peer that is
/// stopped in a debugger is alive, and deadlines are the caller's.
fn tune(socket: &TcpStream) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(KEEPALIVE_PROBES);
    let socket = socket2::SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

fn system(peer: Rank, call: &'static str, errno: Errno) -> LinkError {
    LinkError::System { peer, call, errno: errno.raw_os_error() }
}
