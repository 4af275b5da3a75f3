//! Connecting every pair of ranks: rank i calls every j < i and answers every j > i, once for each [`Purpose`].
//!
//! One loop drives all handshakes of a rank, so that a silent stranger holds up nobody. Invariant: at most
//! [`STRANGERS_MAX`] connections that have proved nothing are open, each for at most [`PROOF_TIME`]; what
//! they send is kept in messages of fixed size.

use crate::handshake::{Handshake, Purpose, Terms, Verdict};
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
    /// Whom this rank called, and what for; `None` for a connection that was accepted.
    callee: Option<(Rank, Purpose)>,
    /// Whether the connection is established.
    connected: bool,
    deadline: Instant,
}

enum Step {
    /// Wait for the socket.
    Wait,
    /// The handshake is over.
    Proven(Rank, Purpose),
    /// The connection is of no use; a call is tried again.
    Lost(Errno),
    /// The other side is not who it should be.
    Stranger(&'static str),
}

/// The connections with one peer, by purpose.
type Sockets<T> = [T; Purpose::ALL.len()];

/// A rank while it joins.
pub(crate) struct Joining<'a> {
    terms: Terms,
    listener: &'a TcpListener,
    addresses: &'a [SocketAddr],
    deadline: Instant,
    /// The connections that are ready, by rank.
    ready: Vec<Sockets<Option<TcpStream>>>,
    pending: Vec<Pending>,
    /// When each lower rank may be called again, and why the last call failed.
    redial: Vec<Sockets<(Instant, Errno)>>,
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
            ready: (0..terms.size).map(|_| [const { None }; _]).collect(),
            pending: Vec::new(),
            redial: vec![[(Instant::now(), Errno::TIMEDOUT); _]; terms.rank.index()],
        }
    }

    /// Blocks until every pair is connected; the sockets in order of rank, this one left out.
    ///
    /// # Errors
    /// When a peer did not come by the deadline, or is not the one that was called.
    pub(crate) fn run(mut self) -> Result<Vec<Sockets<TcpStream>>, LinkError> {
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
        let own = self.terms.rank.index();
        let others = self.ready.into_iter().enumerate().filter(|(rank, _)| *rank != own);
        let all = |socket: Option<TcpStream>| socket.expect("none is missing");
        Ok(others.map(|(_, sockets)| sockets.map(all)).collect())
    }

    /// The first rank that is not connected for every purpose.
    fn missing(&self) -> Option<Rank> {
        let ready = |rank: &Rank| self.ready[rank.index()].iter().all(Option::is_some);
        (0..self.terms.size).map(Rank).find(|rank| *rank != self.terms.rank && !ready(rank))
    }

    fn late(&self, peer: Rank) -> LinkError {
        match self.redial.get(peer.index()) {
            Some(calls) => {
                // Of a call that failed, if one did.
                let told = calls.iter().map(|(_, errno)| *errno).find(|errno| *errno != Errno::TIMEDOUT);
                system(peer, "connect", told.unwrap_or(Errno::TIMEDOUT))
            }
            None => system(peer, "accept", Errno::TIMEDOUT),
        }
    }

    /// Calls every lower rank for all that it is not connected for, where no call is under way.
    fn dial(&mut self, now: Instant) -> Result<(), LinkError> {
        let purposes = |peer| Purpose::ALL.into_iter().map(move |purpose| (peer, purpose));
        for callee in (0..self.terms.rank.0).map(Rank).flat_map(purposes) {
            let (place, purpose) = (callee.0.index(), callee.1 as usize);
            let called = self.pending.iter().any(|pending| pending.callee == Some(callee));
            if !called && self.ready[place][purpose].is_none() && now >= self.redial[place][purpose].0 {
                self.call(callee, now)?;
            }
        }
        Ok(())
    }

    /// Calls one rank.
    fn call(&mut self, (peer, purpose): (Rank, Purpose), now: Instant) -> Result<(), LinkError> {
        let address = self.addresses[peer.index()];
        let refused = |error: io::Error| system(peer, "connect", errno_of(&error));
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(refused)?;
        socket.set_nonblocking(true).map_err(refused)?;
        match socket.connect(&SockAddr::from(address)) {
            Ok(()) => {}
            Err(error) if errno_of(&error) == Errno::INPROGRESS => {}
            Err(error) => {
                self.redial[peer.index()][purpose as usize] = (now + REDIAL_PAUSE, errno_of(&error));
                return Ok(());
            }
        }
        self.pending.push(Pending {
            socket: socket.into(),
            handshake: Handshake::caller(self.terms, peer, purpose, self.nonce()?),
            callee: Some((peer, purpose)),
            connected: false,
            deadline: self.deadline,
        });
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
        for (retry, _) in self.redial.iter().flatten().filter(|(retry, _)| *retry > now) {
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
                (Step::Proven(peer, purpose), _) => self.admit(peer, purpose, socket)?,
                (Step::Stranger(what), Some((peer, _))) => return Err(LinkError::Corrupt { peer, what }),
                (Step::Lost(errno), Some((peer, purpose))) => {
                    self.redial[peer.index()][purpose as usize] = (now + REDIAL_PAUSE, errno);
                }
                // Whoever called this rank and proved nothing is not worth a word.
                (_, None) | (Step::Wait, Some(_)) => {}
            }
        }
        Ok(())
    }

    /// Keeps a proven connection; the first one, where a peer made two for one purpose.
    fn admit(&mut self, peer: Rank, purpose: Purpose, socket: TcpStream) -> Result<(), LinkError> {
        let place = &mut self.ready[peer.index()][purpose as usize];
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
                Verdict::Proven(peer, purpose) => return Step::Proven(peer, purpose),
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
