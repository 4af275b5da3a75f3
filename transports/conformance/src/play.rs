//! Ranks that play a script of calls over links, each at its own pace, checking every byte.

use crate::seeded::{Seeded, differs, fill};
use sohu_coll_core::link::{Links, Window};
use sohu_coll_core::{Collective, DType, Rank, ReduceOp, Signature};
use sohu_coll_mem::{View, ViewMut};
use std::time::{Duration, Instant};

/// How long nothing may move before a check gives up: a watchdog for hangs, not a bound on speed.
const STUCK: Duration = Duration::from_secs(60);

/// What bytes are before a link writes them.
const UNTOUCHED: u8 = 0xee;

/// The signature of the call number `sequence` of a check.
pub(crate) fn call(sequence: u32) -> Signature {
    Signature {
        collective: Collective::AllReduce,
        dtype: DType::U8,
        op: ReduceOp::Sum,
        algorithm: 1,
        root: Rank(0),
        count: 1000,
        sequence,
    }
}

/// The ranks of `numbers`.
pub(crate) fn ranks(numbers: &[u32]) -> Vec<Rank> {
    numbers.iter().copied().map(Rank).collect()
}

/// Ends a check that is stuck.
pub(crate) struct Patience {
    moved: Instant,
    idle: u32,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { moved: Instant::now(), idle: 0 }
    }

    /// Notes whether something moved; lets others run when nothing did.
    pub(crate) fn note(&mut self, moved: bool, what: &dyn Fn() -> String) {
        if moved {
            *self = Self::new();
            return;
        }
        self.idle += 1;
        // The clock is read seldom: most waits are a few polls long.
        if self.idle.is_multiple_of(64) {
            std::thread::yield_now();
            assert!(self.moved.elapsed() < STUCK, "nothing moved for {STUCK:?}: {}", what());
        }
    }
}

/// Calls `step`, and polls all links in between, until it says true.
pub(crate) fn until(
    what: &str,
    links: &mut [Box<dyn Links>],
    mut step: impl FnMut(&mut [Box<dyn Links>]) -> bool,
) {
    let mut patience = Patience::new();
    while !step(links) {
        let mut moved = false;
        for link in links.iter_mut() {
            moved |= link.poll().unwrap_or_else(|error| panic!("poll, while {what}: {error}"));
        }
        // A step that moves without a poll moving is bounded by the bytes of its check.
        patience.note(moved, &|| what.to_owned());
    }
}

/// Begins `signature` on every rank.
pub(crate) fn begin_all(links: &mut [Box<dyn Links>], signature: &Signature) {
    for link in links {
        link.begin(signature).unwrap_or_else(|error| panic!("begin: {error}"));
    }
}

/// Ends the call on every rank.
pub(crate) fn end_all(links: &mut [Box<dyn Links>]) {
    let mut verified = vec![false; links.len()];
    until("ending the call", links, |links| {
        for (link, verified) in links.iter_mut().zip(&mut verified) {
            *verified = *verified || link.verify().expect("verify");
        }
        let settled = links.iter_mut().all(|link| link.settled().expect("settled"));
        settled && verified.iter().all(|done| *done)
    });
}

/// The most bytes that every link holds while nobody takes any.
pub(crate) const FITS_MAX: usize = 3_000;

/// Sends all of `bytes`, at most [`FITS_MAX`], as nobody takes any meanwhile.
pub(crate) fn send_all(links: &mut [Box<dyn Links>], from: u32, to: &[Rank], bytes: &[u8]) {
    assert!(bytes.len() <= FITS_MAX, "{} bytes may not fit", bytes.len());
    let mut sent = 0;
    until("sending", links, |links| {
        let sender = &mut links[from as usize];
        sent += sender.send(to, View::from(&bytes[sent..])).expect("send");
        sent == bytes.len()
    });
}

/// Takes exactly `len` bytes.
pub(crate) fn recv_all(links: &mut [Box<dyn Links>], rank: u32, from: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![UNTOUCHED; len];
    let mut taken = 0;
    until("receiving", links, |links| {
        let room = ViewMut::from(&mut bytes[taken..]);
        taken += links[rank as usize].recv(Rank(from), room).expect("recv");
        taken == len
    });
    bytes
}

/// The bytes of a view.
pub(crate) fn bytes_of(view: View<'_>) -> Vec<u8> {
    let mut bytes = vec![0; view.len()];
    view.copy_to(ViewMut::from(&mut bytes[..]));
    bytes
}

/// Bytes that one rank sends to others in a call. At most one flow of a call joins the same two ranks in one
/// direction.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) from: Rank,
    pub(crate) to: Vec<Rank>,
    pub(crate) bytes: usize,
}

impl Flow {
    pub(crate) fn new(from: u32, to: &[u32], bytes: usize) -> Self {
        Self { from: Rank(from), to: ranks(to), bytes }
    }
}

/// What all ranks play.
pub(crate) struct Script<'a> {
    pub(crate) seed: u64,
    pub(crate) calls: u32,
    pub(crate) flows: &'a (dyn Fn(u32) -> Vec<Flow> + Sync),
}

impl Script<'_> {
    fn key(&self, call: u32, from: Rank) -> u64 {
        Seeded::new(self.seed ^ u64::from(call) << 20 ^ u64::from(from.0)).next()
    }

    /// Plays the script on one thread: a seed says which rank goes on, and for how long.
    pub(crate) fn play(&self, links: &mut [Box<dyn Links>]) {
        let mut order = Seeded::new(self.seed);
        let mut players: Vec<Player<'_>> = links.iter().map(|link| Player::new(self, link.rank())).collect();
        let mut patience = Patience::new();
        while players.iter().any(|player| !player.is_done()) {
            let turn = order.below(players.len());
            for _ in 0..=order.below(12) {
                let moved = players[turn].step(links[turn].as_mut());
                patience.note(moved, &|| players.iter().map(Player::state).collect());
            }
        }
    }

    /// Plays the script with a thread for each rank.
    pub(crate) fn play_threads(&self, links: &mut [Box<dyn Links>]) {
        std::thread::scope(|scope| {
            for link in links {
                scope.spawn(move || {
                    let mut player = Player::new(self, link.rank());
                    let mut patience = Patience::new();
                    while !player.is_done() {
                        let moved = player.step(link.as_mut());
                        patience.note(moved, &|| player.state());
                    }
                });
            }
        });
    }
}

/// One direction of one flow, as one of its ranks sees it.
struct Leg {
    peers: Vec<Rank>,
    key: u64,
    bytes: usize,
    at: usize,
    /// The most that is tried at once: follows what the link takes, so that slow links cost no big buffers.
    most: usize,
}

impl Leg {
    fn new(peers: Vec<Rank>, key: u64, bytes: usize) -> Self {
        Self { peers, key, bytes, at: 0, most: usize::MAX }
    }

    fn piece(&self, random: &mut Seeded) -> usize {
        random.piece((self.bytes - self.at).min(self.most))
    }

    fn moved(&mut self, count: usize, piece: usize) {
        self.at += count;
        self.most = if count == piece { self.most.saturating_mul(4) } else { (8 * count).max(64) };
    }
}

/// One rank in its script.
struct Player<'a> {
    script: &'a Script<'a>,
    rank: Rank,
    call: u32,
    begun: bool,
    verified: bool,
    outgoing: Vec<Leg>,
    incoming: Vec<Leg>,
    random: Seeded,
    buffer: Vec<u8>,
}

impl<'a> Player<'a> {
    fn new(script: &'a Script<'a>, rank: Rank) -> Self {
        Self {
            script,
            rank,
            call: 0,
            begun: false,
            verified: false,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            random: Seeded::new(script.seed ^ u64::from(rank.0 + 1) << 40),
            buffer: Vec::new(),
        }
    }

    fn is_done(&self) -> bool {
        self.call == self.script.calls
    }

    fn state(&self) -> String {
        let legs = |legs: &[Leg]| -> String {
            legs.iter().map(|leg| format!(" {:?} {}/{}", leg.peers, leg.at, leg.bytes)).collect()
        };
        format!(
            "[seed {}, {} in call {}, verified {}, sent{}, taken{}] ",
            self.script.seed,
            self.rank,
            self.call,
            self.verified,
            legs(&self.outgoing),
            legs(&self.incoming)
        )
    }

    /// Does a little of what is left to do. Returns whether anything moved.
    fn step(&mut self, links: &mut dyn Links) -> bool {
        if self.is_done() {
            return false;
        }
        if !self.begun {
            self.begin(links);
            return true;
        }
        let mut moved = match self.random.below(6) {
            0 => links.poll().unwrap_or_else(|error| panic!("poll: {error}; {}", self.state())),
            1 => self.verify(links),
            _ => false,
        };
        moved |= self.offer(links);
        moved |= self.take(links);
        let left = self.outgoing.iter().chain(&self.incoming).any(|leg| leg.at < leg.bytes);
        if !left && (self.verified || self.verify(links)) && links.settled().expect("settled") {
            links.ring();
            self.call += 1;
            self.begun = false;
            return true;
        }
        moved
    }

    fn begin(&mut self, links: &mut dyn Links) {
        links.begin(&call(self.call)).unwrap_or_else(|error| panic!("begin: {error}; {}", self.state()));
        self.begun = true;
        self.verified = false;
        self.outgoing.clear();
        self.incoming.clear();
        for flow in (self.script.flows)(self.call) {
            let key = self.script.key(self.call, flow.from);
            if flow.from == self.rank {
                self.outgoing.push(Leg::new(flow.to, key, flow.bytes));
            } else if flow.to.contains(&self.rank) {
                self.incoming.push(Leg::new(vec![flow.from], key, flow.bytes));
            }
        }
    }

    fn verify(&mut self, links: &mut dyn Links) -> bool {
        self.verified = links.verify().unwrap_or_else(|error| panic!("verify: {error}; {}", self.state()));
        self.verified
    }

    fn offer(&mut self, links: &mut dyn Links) -> bool {
        let mut moved = false;
        for leg in &mut self.outgoing {
            let piece = leg.piece(&mut self.random);
            if piece == 0 {
                continue;
            }
            self.buffer.resize(piece, 0);
            fill(&mut self.buffer, leg.key, leg.at);
            let sent = links
                .send(&leg.peers, View::from(&self.buffer[..]))
                .unwrap_or_else(|error| panic!("send from {} in call {}: {error}", self.rank, self.call));
            assert!(sent <= piece, "{sent} of {piece} bytes were sent");
            leg.moved(sent, piece);
            moved |= sent > 0;
        }
        moved
    }

    fn take(&mut self, links: &mut dyn Links) -> bool {
        let mut moved = false;
        for leg in &mut self.incoming {
            let piece = leg.piece(&mut self.random);
            if piece == 0 {
                continue;
            }
            self.buffer.clear();
            self.buffer.resize(piece, UNTOUCHED);
            let buffer = &mut self.buffer;
            let taken = if self.random.below(2) == 0 {
                links.recv(leg.peers[0], ViewMut::from(&mut buffer[..]))
            } else {
                let mut keep = |window: Window<'_>| {
                    let seen = window.incoming[0];
                    seen.copy_to(ViewMut::from(&mut buffer[..seen.len()]));
                };
                links.pass(&leg.peers, &[], piece, 1, &mut keep)
            };
            let taken = taken.unwrap_or_else(|error| panic!("{} in call {}: {error}", self.rank, self.call));
            assert!(taken <= piece, "{taken} bytes were taken into {piece}");
            if let Some(offset) = differs(&self.buffer[..taken], leg.key, leg.at) {
                panic!(
                    "seed {}: {} in call {}: byte {} of {} from {} is wrong",
                    self.script.seed,
                    self.rank,
                    self.call,
                    leg.at + offset,
                    leg.bytes,
                    leg.peers[0]
                );
            }
            let tail = &self.buffer[taken..];
            assert!(tail.iter().all(|byte| *byte == UNTOUCHED), "bytes after the {taken} taken were written");
            leg.moved(taken, piece);
            moved |= taken > 0;
        }
        moved
    }
}
