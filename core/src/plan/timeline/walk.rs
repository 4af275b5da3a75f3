//! The walk itself: slices and messages in the order of their times.
//!
//! Invariant: what an event causes comes no earlier than the event, so every time is final when it is taken from
//! the queue; ties go to messages first, then to the lower rank and pass.

use super::{Because, Critical, Span, Timeline};
use crate::plan::fuse::{Pass, Passes, Source};
use crate::plan::{Extents, Wait};
use crate::rank::{ChannelId, Rank};
use crate::topology::{LinkId, Topology};
use core::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

/// The most slices one pass is cut into: finer ones cost memory and hardly change the result.
const SLICES_MAX: usize = 1024;

/// A slice of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SliceOf {
    rank: u32,
    pass: u32,
    slice: u32,
}

/// When something could start, and what it waited for last.
#[derive(Clone, Copy, Debug)]
struct Ready {
    at: f64,
    after: Option<SliceOf>,
    because: Because,
}

impl Ready {
    const START: Self = Self { at: 0.0, after: None, because: Because::Start };

    fn later(self, other: Self) -> Self {
        if other.at > self.at || self.after.is_none() && other.at >= self.at { other } else { self }
    }
}

struct Done {
    start: f64,
    end: f64,
    why: Ready,
}

/// One pass under way.
struct Track {
    len: usize,
    /// Bytes of one slice, and how many there are; an empty pass has one.
    slice: usize,
    slices: usize,
    /// Bytes that one byte of the pass touches.
    touches: f64,
    /// The streams it takes from and sends to, and its position in each.
    takes: Vec<(usize, usize)>,
    gives: Vec<(usize, usize)>,
    /// Passes of the same rank that depend on it.
    dependents: Vec<u32>,
    done: Vec<Done>,
    /// Whether the next slice is queued.
    queued: bool,
}

impl Track {
    fn bytes_after(&self, slices: usize) -> usize {
        if slices == self.slices { self.len } else { slices * self.slice }
    }

    fn ended(&self) -> bool {
        self.done.len() == self.slices
    }
}

/// The bytes from one rank to another on one channel, in order. Channels share the links of the topology.
struct Stream {
    to: Rank,
    path: Vec<LinkId>,
    /// The passes of the receiver that take from it, in order.
    takers: Vec<u32>,
    sent: Vec<Message>,
    /// How many of those have come, in order.
    come: usize,
}

/// What one slice of a pass put into a stream.
struct Message {
    /// Where it ends in the stream.
    end: usize,
    by: SliceOf,
    /// When it, and once it counts as come all before it, had come; not a number before that.
    came: f64,
}

struct Core {
    free: f64,
    last: Option<SliceOf>,
}

/// A message on its way: an entry of a stream, and the link of the path it is to take next.
struct Transit {
    stream: usize,
    entry: usize,
    bytes: usize,
    hop: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A message is at the start of its next link.
    Hop(usize),
    /// The next slice of a pass may start.
    Slice(u32, u32),
}

#[derive(Clone, Copy)]
struct At(f64, Event);

impl Ord for At {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0).then_with(|| self.1.cmp(&other.1))
    }
}

impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for At {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for At {}

pub(super) struct Walk<'a> {
    passes: &'a [Passes],
    on: &'a Topology,
    tracks: Vec<Vec<Track>>,
    streams: Vec<Stream>,
    cores: Vec<Core>,
    /// Which of them each rank runs on.
    core_of: Vec<usize>,
    /// When each lane of each link is free.
    lanes: Vec<Vec<f64>>,
    transits: Vec<Transit>,
    queue: BinaryHeap<Reverse<At>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(passes: &'a [Passes], extents: &[Extents], on: &'a Topology, slice: usize) -> Self {
        let (cores, core_of) = place(on, passes.len());
        let lanes = on.links().iter().map(|l| vec![0.0; l.wire.lanes as usize]).collect();
        let mut walk = Self {
            passes,
            on,
            tracks: Vec::with_capacity(passes.len()),
            streams: Vec::new(),
            cores,
            core_of,
            lanes,
            transits: Vec::new(),
            queue: BinaryHeap::new(),
        };
        let mut known = BTreeMap::new();
        for (rank, (ours, extents)) in passes.iter().zip(extents).enumerate() {
            walk.add_rank(Rank(rank as u32), ours, extents, slice, &mut known);
        }
        walk
    }

    fn add_rank(
        &mut self,
        rank: Rank,
        ours: &Passes,
        extents: &Extents,
        slice: usize,
        known: &mut BTreeMap<(Rank, Rank, ChannelId), usize>,
    ) {
        // Where the next pass of this rank starts in each stream it sends to or takes from.
        let mut position = BTreeMap::new();
        let mut tracks: Vec<Track> = Vec::with_capacity(ours.passes.len());
        for (number, pass) in ours.passes.iter().enumerate() {
            let len = extents.bytes(pass.extent).len();
            let slice = slice.max(len.div_ceil(SLICES_MAX));
            let mut at = |walk: &mut Self, from: Rank, to: Rank| {
                let stream =
                    *known.entry((from, to, pass.channel)).or_insert_with(|| walk.add_stream(from, to));
                let position = position.entry(stream).or_insert(0);
                *position += len;
                (stream, *position - len)
            };
            let mut takes = Vec::new();
            for source in &pass.sources {
                if let Source::Peer(peer) = *source {
                    takes.push(at(self, peer, rank));
                    self.streams[takes[takes.len() - 1].0].takers.push(number as u32);
                }
            }
            let gives = pass.to.iter().map(|&peer| at(self, rank, peer)).collect();
            tracks.push(Track {
                len,
                slice,
                slices: len.div_ceil(slice).max(1),
                touches: touches(pass),
                takes,
                gives,
                dependents: Vec::new(),
                done: Vec::new(),
                queued: false,
            });
            for edge in &pass.after {
                assert!((edge.on as usize) < number, "{rank}: pass {number} depends on pass {}", edge.on);
                tracks[edge.on as usize].dependents.push(number as u32);
            }
        }
        self.tracks.push(tracks);
    }

    fn add_stream(&mut self, from: Rank, to: Rank) -> usize {
        let path = self.on.shortest_path(self.on.site_of(from), self.on.site_of(to));
        let path = path.unwrap_or_else(|| panic!("no path from {from} to {to}")).links;
        self.streams.push(Stream { to, path, takers: Vec::new(), sent: Vec::new(), come: 0 });
        self.streams.len() - 1
    }

    pub(super) fn run(&mut self) {
        for rank in 0..self.tracks.len() {
            for pass in 0..self.tracks[rank].len() {
                self.wake(rank as u32, pass as u32);
            }
        }
        // Whatever an event causes comes later than the event, so times are final when they are taken.
        while let Some(Reverse(At(time, event))) = self.queue.pop() {
            match event {
                Event::Hop(transit) => self.hop(transit, time),
                Event::Slice(rank, pass) => self.slice(rank, pass, time),
            }
        }
    }

    /// Queues the next slice of a pass, if all it waits for has a time.
    fn wake(&mut self, rank: u32, pass: u32) {
        let track = &self.tracks[rank as usize][pass as usize];
        if track.queued || track.ended() {
            return;
        }
        let Some(ready) = self.ready(rank, pass) else { return };
        let core = &self.cores[self.core_of[rank as usize]];
        let start = if track.len == 0 { ready.at } else { ready.at.max(core.free) };
        self.queue.push(Reverse(At(start, Event::Slice(rank, pass))));
        self.tracks[rank as usize][pass as usize].queued = true;
    }

    /// When the next slice of a pass could start if its core were free; `None` when that is not known yet.
    fn ready(&self, rank: u32, pass: u32) -> Option<Ready> {
        let tracks = &self.tracks[rank as usize];
        let track = &tracks[pass as usize];
        let bytes = track.bytes_after(track.done.len() + 1);
        let mut ready = Ready::START;
        if let Some(last) = track.done.last() {
            let slice = track.done.len() as u32 - 1;
            ready = ready.later(Ready {
                at: last.end,
                after: Some(SliceOf { rank, pass, slice }),
                because: Because::Pass,
            });
        }
        for edge in &self.passes[rank as usize].passes[pass as usize].after {
            let earlier = &tracks[edge.on as usize];
            let slice = match edge.wait {
                Wait::Streaming if bytes < earlier.len => bytes.div_ceil(earlier.slice).max(1) - 1,
                _ => earlier.slices - 1,
            };
            let after = SliceOf { rank, pass: edge.on, slice: slice as u32 };
            let at = earlier.done.get(slice)?.end;
            ready = ready.later(Ready { at, after: Some(after), because: Because::Pass });
        }
        for &(stream, position) in track.takes.iter().filter(|_| track.len > 0) {
            let stream = &self.streams[stream];
            let come = &stream.sent[..stream.come];
            let message = come.get(come.partition_point(|m| m.end < position + bytes))?;
            ready = ready.later(Ready { at: message.came, after: Some(message.by), because: Because::Peer });
        }
        Some(ready)
    }

    /// Does the next slice of a pass at `time`, or later if the core was taken meanwhile.
    fn slice(&mut self, rank: u32, pass: u32, time: f64) {
        let why = self.ready(rank, pass).expect("a queued slice is ready");
        let host = self.on.host(self.on.host_of(Rank(rank)));
        let core = &mut self.cores[self.core_of[rank as usize]];
        let track = &mut self.tracks[rank as usize][pass as usize];
        let slice = track.done.len();
        let this = SliceOf { rank, pass, slice: slice as u32 };
        let (first, end_byte) = (track.bytes_after(slice), track.bytes_after(slice + 1));
        let empty = track.len == 0;
        if !empty && core.free > time {
            self.queue.push(Reverse(At(core.free, Event::Slice(rank, pass))));
            return;
        }
        track.queued = false;
        let mut cost = 0.0;
        let mut why = why;
        if !empty {
            cost = host.slice_ns + (end_byte - first) as f64 * track.touches / host.bytes_per_ns;
            if core.last.is_some_and(|last| last.rank != rank) {
                cost += host.switch_ns;
            }
            if core.free > why.at {
                why = Ready { at: core.free, after: core.last, because: Because::Core };
            }
            *core = Core { free: time + cost, last: Some(this) };
        }
        track.done.push(Done { start: time, end: time + cost, why });
        let gives = if empty { Vec::new() } else { track.gives.clone() };
        for (stream, position) in gives {
            let sent = &mut self.streams[stream].sent;
            let (entry, end) = (sent.len(), position + end_byte);
            assert!(sent.last().is_none_or(|m| m.end < end), "rank {rank}: pass {pass} sends out of order");
            sent.push(Message { end, by: this, came: f64::NAN });
            self.transits.push(Transit { stream, entry, bytes: end_byte - first, hop: 0 });
            self.queue.push(Reverse(At(time + cost, Event::Hop(self.transits.len() - 1))));
        }
        self.wake_after(rank, pass);
    }

    /// Wakes what may have waited for the slice just done.
    fn wake_after(&mut self, rank: u32, pass: u32) {
        self.wake(rank, pass);
        let dependents = core::mem::take(&mut self.tracks[rank as usize][pass as usize].dependents);
        for &dependent in &dependents {
            self.wake(rank, dependent);
        }
        self.tracks[rank as usize][pass as usize].dependents = dependents;
    }

    /// Moves a message over its next link.
    fn hop(&mut self, transit: usize, time: f64) {
        let Transit { stream, entry, bytes, hop } = self.transits[transit];
        let link = self.streams[stream].path[hop];
        let wire = self.on.link(link).wire;
        let lane = self.lanes[link.0 as usize]
            .iter_mut()
            .min_by(|a, b| a.total_cmp(b))
            .expect("a link has at least one lane");
        *lane = lane.max(time) + bytes as f64 / wire.bytes_per_ns;
        let there = *lane + wire.latency_ns;
        if hop + 1 < self.streams[stream].path.len() {
            self.transits[transit].hop += 1;
            self.queue.push(Reverse(At(there, Event::Hop(transit))));
            return;
        }
        let stream = &mut self.streams[stream];
        // Messages on different lanes may overtake each other; a stream hands over in order.
        stream.sent[entry].came = there;
        while stream.sent.get(stream.come).is_some_and(|m| !m.came.is_nan()) {
            let before = stream.come.checked_sub(1).map_or(0.0, |before| stream.sent[before].came);
            let message = &mut stream.sent[stream.come];
            message.came = message.came.max(before);
            stream.come += 1;
        }
        let to = stream.to.0;
        for taker in stream.takers.clone() {
            self.wake(to, taker);
        }
    }

    pub(super) fn finish(self) -> Timeline {
        let mut last: Option<(f64, SliceOf)> = None;
        let mut passes = Vec::with_capacity(self.tracks.len());
        for (rank, tracks) in self.tracks.iter().enumerate() {
            let mut spans = Vec::with_capacity(tracks.len());
            for (pass, track) in tracks.iter().enumerate() {
                assert!(track.ended(), "rank {rank}: pass {pass} waits for ever");
                let end_ns = track.done[track.slices - 1].end;
                spans.push(Span { start_ns: track.done[0].start, end_ns });
                if last.is_none_or(|(end, _)| end_ns > end) {
                    let slice = track.slices as u32 - 1;
                    last = Some((end_ns, SliceOf { rank: rank as u32, pass: pass as u32, slice }));
                }
            }
            passes.push(spans);
        }
        let total_ns = last.map_or(0.0, |(end, _)| end);
        Timeline { total_ns, passes, critical: self.critical(last.map(|(_, slice)| slice)) }
    }

    fn critical(&self, last: Option<SliceOf>) -> Vec<Critical> {
        let mut path: Vec<Critical> = Vec::new();
        let mut next = last;
        while let Some(SliceOf { rank, pass, slice }) = next {
            let done = &self.tracks[rank as usize][pass as usize].done[slice as usize];
            next = done.why.after;
            match path.last_mut() {
                // Slices of one pass on end are one stretch.
                Some(later) if (later.rank, later.pass) == (Rank(rank), pass) => {
                    (later.start_ns, later.because) = (done.start, done.why.because);
                }
                _ => path.push(Critical {
                    rank: Rank(rank),
                    pass,
                    start_ns: done.start,
                    end_ns: done.end,
                    because: done.why.because,
                }),
            }
        }
        path.reverse();
        path
    }
}

/// The cores of all hosts, and which of them each rank runs on.
fn place(on: &Topology, ranks: usize) -> (Vec<Core>, Vec<usize>) {
    let mut cores = Vec::new();
    // For each host, its first core and how many ranks it has so far.
    let mut hosts = BTreeMap::new();
    let core_of = (0..ranks)
        .map(|rank| {
            let id = on.host_of(Rank(rank as u32));
            let count = on.host(id).cores as usize;
            let (first, ours) = hosts.entry(id).or_insert_with(|| {
                cores.extend((0..count).map(|_| Core { free: 0.0, last: None }));
                (cores.len() - count, 0)
            });
            *ours += 1;
            *first + (*ours - 1) % count
        })
        .collect();
    (cores, core_of)
}

/// Bytes touched for each byte of a pass: every source is read, the result is stored, and copied out once
/// for all peers.
fn touches(pass: &Pass) -> f64 {
    (pass.sources.len() + usize::from(pass.into.is_some()) + usize::from(!pass.to.is_empty())) as f64
}
