//! [`TcpLinks`]: all sockets of one rank, polled.
//!
//! Each direction of a link is one stream: for each call a header (magic and signature), then the call's
//! bytes, and no other framing. The executor takes exactly as many bytes of a call as its plan says, so what
//! is left in a receive buffer after a call is the next one's. Invariant: a header is looked for only at the
//! start of a call, before the first byte of it is handed over. Nothing a peer sends sizes anything.

use crate::handshake::{Purpose, Terms};
use crate::join::{Joining, Listener};
use crate::pipes::PipePair;
use crate::queue::Queue;
use crate::stream::Stream;
use rustix::io::Errno;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{LinkCaps, Links, SOURCES_MAX, Window};
use sohu_coll_core::pipe::Pipes;
use sohu_coll_core::{Rank, Signature};
use sohu_coll_mem::{View, ViewMut};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

/// Bytes that wait for a socket, and bytes read ahead, of one peer: a few times what one call of
/// `send` or `recv` moves through loopback before the other side runs.
const QUEUE_BYTES: usize = 256 << 10;

/// The first word of a header: the protocol and its version.
const MAGIC: u64 = u64::from_le_bytes(*b"sohucal1");

/// Magic and the two words of the signature.
const HEADER_BYTES: usize = 24;

/// One rank's links over TCP.
pub struct TcpLinks {
    rank: Rank,
    size: u32,
    peers: Vec<Peer>,
    /// The pipes to and from every other rank, in the order of `peers`.
    pipes: Vec<PipePair>,
    /// What was read and not taken yet; apart from `outgoing`, so that a pass borrows both of one peer.
    incoming: Vec<Queue>,
    /// What was accepted and not written yet.
    outgoing: Vec<Queue>,
    call: Option<Signature>,
    verified: bool,
    failed: Option<LinkError>,
}

struct Peer {
    stream: Stream,
    /// Whether this call's header went into the outgoing queue.
    told: bool,
    /// Whether the peer's header for this call came, and was ours.
    heard: bool,
}

impl Peer {
    /// Puts the call's header into the queue unless it is in. Returns false when there is no room.
    fn tell(&mut self, outgoing: &mut Queue, call: &Signature) -> bool {
        if !self.told && outgoing.room() >= HEADER_BYTES {
            let [first, second] = call.to_words();
            let header = outgoing.spare(HEADER_BYTES);
            for (bytes, word) in header.chunks_exact_mut(8).zip([MAGIC, first, second]) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            outgoing.produced(HEADER_BYTES);
            self.told = true;
        }
        self.told
    }

    /// Whether the peer's header for this call has come. Takes it off the stream if it is ours.
    fn hear(&mut self, incoming: &mut Queue, ours: &Signature) -> Result<bool, LinkError> {
        if self.heard {
            return Ok(true);
        }
        let peer = self.stream.peer;
        self.stream.fill(incoming, HEADER_BYTES)?;
        let Some(header) = incoming.live().first_chunk::<HEADER_BYTES>() else {
            return if self.stream.ended { Err(LinkError::Closed { peer }) } else { Ok(false) };
        };
        let word =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("a slice of 8 is 8 bytes"));
        if word(0) != MAGIC {
            return Err(LinkError::Corrupt { peer, what: "no call begins where one should" });
        }
        let theirs = Signature::from_words([word(8), word(16)])
            .ok_or(LinkError::Corrupt { peer, what: "its header names no call" })?;
        if theirs != *ours {
            return Err(LinkError::Mismatch { peer, ours: *ours, theirs });
        }
        incoming.consumed(HEADER_BYTES);
        self.heard = true;
        Ok(true)
    }

    /// How many bytes of this call can be taken; at least `granule` or the peer has no more yet.
    fn ready(&mut self, incoming: &mut Queue, granule: usize, call: &Signature) -> Result<usize, LinkError> {
        if !self.hear(incoming, call)? {
            return Ok(0);
        }
        self.stream.fill(incoming, granule)?;
        if incoming.len() < granule && self.stream.ended {
            return Err(LinkError::Closed { peer: self.stream.peer });
        }
        Ok(incoming.len())
    }
}

impl TcpLinks {
    /// Connects rank `rank` of `size` with all others: it calls the lower ranks at their `addresses` (one for
    /// each rank; its own and those of higher ranks are not used) and answers the higher ones on
    /// `listener`. Both ends prove that they know `secret` and are of `job`. Blocks until `deadline` at most.
    ///
    /// # Errors
    /// [`LinkError::System`] when a peer did not come by the deadline, [`LinkError::Corrupt`] when who
    /// answers does not know the secret. Strangers who call are dropped and are no error.
    ///
    /// # Panics
    /// When `rank` is no rank of `size`, or there is not one address for each.
    pub fn join(
        rank: Rank,
        size: u32,
        listener: Listener,
        addresses: &[SocketAddr],
        secret: &[u8; 32],
        job: [u8; 16],
        deadline: Instant,
    ) -> Result<TcpLinks, LinkError> {
        assert!(rank.0 < size, "{rank} of {size}");
        assert_eq!(addresses.len(), size as usize, "addresses for {size} ranks");
        let terms = Terms { secret: *secret, job, rank, size };
        let sockets = Joining::new(terms, &listener, addresses, deadline).run()?;
        Ok(Self::over(rank, sockets))
    }

    /// Links between `size` ranks that are all in this process, over loopback; those of rank r at index r.
    /// Blocks until `deadline` at most.
    ///
    /// # Errors
    /// As for [`join`](TcpLinks::join), and when the system refuses a socket.
    pub fn local(size: u32, deadline: Instant) -> Result<Vec<TcpLinks>, LinkError> {
        let system = |call, errno: Option<i32>| LinkError::System {
            peer: Rank(0),
            call,
            errno: errno.unwrap_or(Errno::IO.raw_os_error()),
        };
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| system("getrandom", error.raw_os_error()))?;
        let bind = |_| Listener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let listeners: Result<Vec<Listener>, _> = (0..size).map(bind).collect();
        let listeners = listeners.map_err(|error| system("bind", error.raw_os_error()))?;
        let addresses: Vec<SocketAddr> = listeners.iter().map(Listener::address).collect();
        let (addresses, secret) = (&addresses, &secret);
        std::thread::scope(|scope| {
            let join = |(rank, listener)| {
                let rank = Rank(rank as u32);
                scope.spawn(move || Self::join(rank, size, listener, addresses, secret, [0; 16], deadline))
            };
            let joining: Vec<_> = listeners.into_iter().enumerate().map(join).collect();
            joining.into_iter().map(|thread| thread.join().expect("join does not panic")).collect()
        })
    }

    /// Bytes of the queues of one of `size` ranks.
    pub fn queue_bytes(size: u32) -> usize {
        (size as usize).saturating_sub(1) * (2 * QUEUE_BYTES + PipePair::BYTES)
    }

    /// Links over sockets that do not block, by purpose, in order of rank, `rank` itself left out.
    pub(crate) fn over(rank: Rank, sockets: Vec<[TcpStream; Purpose::ALL.len()]>) -> TcpLinks {
        let size = sockets.len() as u32 + 1;
        let others = (0..size).map(Rank).filter(|peer| *peer != rank);
        let (mut peers, mut pipes) = (Vec::new(), Vec::new());
        for (peer, [link, from_caller, from_answerer]) in others.zip(sockets) {
            peers.push(Peer { stream: Stream::new(peer, link), told: false, heard: false });
            // The higher rank called.
            pipes.push(match rank > peer {
                true => PipePair::new(peer, from_caller, from_answerer),
                false => PipePair::new(peer, from_answerer, from_caller),
            });
        }
        let queues = || peers.iter().map(|_| Queue::new(QUEUE_BYTES)).collect();
        let (incoming, outgoing) = (queues(), queues());
        TcpLinks { rank, size, peers, pipes, incoming, outgoing, call: None, verified: false, failed: None }
    }

    /// Runs one method: refuses when the links have failed, and remembers it when they do.
    fn run<T>(&mut self, body: impl FnOnce(&mut Self) -> Result<T, LinkError>) -> Result<T, LinkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = body(self);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            if matches!(error, LinkError::Mismatch { .. }) {
                self.tell_before_failing();
            }
        }
        result
    }

    /// Lets `body` use the pipes to and from `peer`.
    pub(crate) fn with_pipes<T>(
        &mut self,
        peer: Rank,
        body: impl FnOnce(&mut PipePair) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        let place = self.place(peer);
        self.run(|links| body(&mut links.pipes[place]))
    }

    /// Lets the peers find the difference too: nothing is sent any more once the links have failed.
    fn tell_before_failing(&mut self) {
        let call = self.call();
        for (peer, outgoing) in self.peers.iter_mut().zip(&mut self.outgoing) {
            if peer.tell(outgoing, &call) {
                // The first failure counts; this one would only follow from it.
                let _: Result<bool, LinkError> = peer.stream.flush(outgoing);
            }
        }
    }

    /// Where `peer` is in the tables.
    fn place(&self, peer: Rank) -> usize {
        assert!(peer != self.rank && peer.0 < self.size, "{} has no link to {peer}", self.rank);
        peer.index() - usize::from(peer > self.rank)
    }

    fn call(&self) -> Signature {
        self.call.expect("begin comes before bytes")
    }

    /// How many bytes all of `to` have room for, behind the call's header. Flushes where that is less than
    /// `want`.
    fn room(&mut self, to: &[Rank], want: usize) -> Result<usize, LinkError> {
        let call = self.call();
        let mut room = want;
        for &rank in to {
            let place = self.place(rank);
            let (peer, outgoing) = (&mut self.peers[place], &mut self.outgoing[place]);
            if outgoing.room() < want + HEADER_BYTES {
                peer.stream.flush(outgoing)?;
            }
            room = if peer.tell(outgoing, &call) { room.min(outgoing.room()) } else { 0 };
        }
        Ok(room)
    }

    fn flush(&mut self, to: &[Rank]) -> Result<(), LinkError> {
        for &rank in to {
            let place = self.place(rank);
            self.peers[place].stream.flush(&mut self.outgoing[place])?;
        }
        Ok(())
    }

    /// Copies the first `count` spare bytes of the first of `to` to the others, and counts them for all.
    fn fan_out(&mut self, to: &[Rank], count: usize) {
        let first = self.place(to[0]);
        for &rank in &to[1..] {
            let other = self.place(rank);
            let queues = self.outgoing.get_disjoint_mut([first, other]);
            let [source, queue] = queues.expect("no rank is named twice");
            queue.spare(count)[..count].copy_from_slice(&source.spare(count)[..count]);
            queue.produced(count);
        }
        self.outgoing[first].produced(count);
    }

    fn move_window(
        &mut self,
        from: &[Rank],
        to: &[Rank],
        limit: usize,
        granule: usize,
        work: &mut dyn FnMut(Window<'_>),
    ) -> Result<usize, LinkError> {
        let call = self.call();
        let mut count = limit;
        for &rank in from {
            let place = self.place(rank);
            count = count.min(self.peers[place].ready(&mut self.incoming[place], granule, &call)?);
        }
        if count < granule {
            return Ok(0);
        }
        count = self.room(to, count)?;
        count -= count % granule;
        if count == 0 {
            return Ok(0);
        }
        let first = to.first().map(|&rank| self.place(rank));
        let mut views = [View::EMPTY; SOURCES_MAX];
        for (view, &rank) in views.iter_mut().zip(from) {
            *view = View::from(&self.incoming[self.place(rank)].live()[..count]);
        }
        let outgoing = first.map(|place| &mut self.outgoing[place]);
        let room = outgoing.map(|queue| ViewMut::from(&mut queue.spare(count)[..count]));
        work(Window { incoming: &views[..from.len()], outgoing: room, past_caches: false });
        for &rank in from {
            let place = self.place(rank);
            self.incoming[place].consumed(count);
        }
        if !to.is_empty() {
            self.fan_out(to, count);
            self.flush(to)?;
        }
        Ok(count)
    }
}

impl Links for TcpLinks {
    fn transport(&self) -> &'static str {
        "tcp"
    }

    fn rank(&self) -> Rank {
        self.rank
    }

    fn size(&self) -> u32 {
        self.size
    }

    fn caps(&self, _peer: Rank) -> LinkCaps {
        LinkCaps {
            latency_ns: 8_000.0, // a send and a poll through loopback, both ranks running
            bytes_per_ns: 3.0,   // loopback with the copies of this version
            inline_bytes: 0,
            window_bytes: 2 * QUEUE_BYTES,
            lends: false,
        }
    }

    fn begin(&mut self, call: &Signature) -> Result<(), LinkError> {
        self.run(|links| {
            let left = links.call.is_some() && !links.verified;
            // Its headers would be left in the streams, and taken for bytes of this call.
            assert!(!left, "{} left {} before it was verified", links.rank, links.call());
            links.call = Some(*call);
            links.verified = links.peers.is_empty();
            for peer in &mut links.peers {
                (peer.told, peer.heard) = (false, false);
            }
            Ok(())
        })
    }

    fn verify(&mut self) -> Result<bool, LinkError> {
        self.run(|links| {
            if links.verified {
                return Ok(true);
            }
            let call = links.call();
            let mut verified = true;
            // Everyone is told before anyone is heard: who is told of a difference can find it too.
            for (peer, outgoing) in links.peers.iter_mut().zip(&mut links.outgoing) {
                verified &= peer.tell(outgoing, &call);
                peer.stream.flush(outgoing)?;
            }
            for (peer, incoming) in links.peers.iter_mut().zip(&mut links.incoming) {
                verified &= peer.hear(incoming, &call)?;
            }
            links.verified = verified;
            Ok(verified)
        })
    }

    fn send(&mut self, to: &[Rank], bytes: View<'_>) -> Result<usize, LinkError> {
        self.run(|links| {
            let Some(&first) = to.first() else { return Ok(bytes.len()) };
            if bytes.is_empty() {
                return Ok(0);
            }
            let count = links.room(to, bytes.len())?;
            if count == 0 {
                return Ok(0);
            }
            // The price of this version: bytes are copied into the queue of each peer and written from there,
            // as a socket reads from a slice and a view is none.
            let place = links.place(first);
            bytes.first(count).copy_to(ViewMut::from(&mut links.outgoing[place].spare(count)[..count]));
            links.fan_out(to, count);
            links.flush(to)?;
            Ok(count)
        })
    }

    fn recv(&mut self, from: Rank, into: ViewMut<'_>) -> Result<usize, LinkError> {
        self.run(|links| {
            if into.is_empty() {
                return Ok(0);
            }
            let (call, place) = (links.call(), links.place(from));
            let incoming = &mut links.incoming[place];
            let count = into.len().min(links.peers[place].ready(incoming, 1, &call)?);
            View::from(&incoming.live()[..count]).copy_to(into.first(count));
            incoming.consumed(count);
            Ok(count)
        })
    }

    fn pass(
        &mut self,
        from: &[Rank],
        to: &[Rank],
        limit: usize,
        granule: usize,
        work: &mut dyn FnMut(Window<'_>),
    ) -> Result<usize, LinkError> {
        assert!(from.len() <= SOURCES_MAX && granule > 0 && granule <= QUEUE_BYTES / 4, "{granule} bytes");
        self.run(|links| {
            if limit == 0 || from.is_empty() && to.is_empty() {
                return Ok(0);
            }
            links.move_window(from, to, limit, granule, work)
        })
    }

    fn poll(&mut self) -> Result<bool, LinkError> {
        self.run(|links| {
            let mut moved = false;
            for (peer, outgoing) in links.peers.iter().zip(&mut links.outgoing) {
                moved |= peer.stream.flush(outgoing)?;
            }
            for (peer, incoming) in links.peers.iter_mut().zip(&mut links.incoming) {
                moved |= peer.stream.fill(incoming, 1)?;
            }
            Ok(moved)
        })
    }

    fn is_unverified(&self, peer: Rank) -> bool {
        self.peers.iter().any(|one| one.stream.peer == peer && !one.heard)
    }

    fn pipes(&mut self) -> &mut dyn Pipes {
        self
    }

    fn settled(&mut self) -> Result<bool, LinkError> {
        self.run(|links| {
            for (peer, outgoing) in links.peers.iter().zip(&mut links.outgoing) {
                peer.stream.flush(outgoing)?;
            }
            Ok(links.outgoing.iter().all(Queue::is_empty))
        })
    }
}

impl fmt::Debug for TcpLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpLinks({} of {})", self.rank, self.size)
    }
}

#[cfg(test)]
mod tests;
