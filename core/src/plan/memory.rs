//! Which chunks are the same memory, and what order follows from that.
//!
//! The one invariant: two accesses to the same memory of which one is a write are never left unordered,
//! and neither are two uses of the same direction of the same link. Where sends are bounded, each also waits for
//! what ends the one that the bound is measured from.

use super::{Buffer, Chunks, Edge, Job, Wait};
use crate::rank::{ChannelId, Rank};
use std::collections::HashMap;

/// Where `chunks` really lie: in place, the input is the output. What comes back is for comparison only: in an all-to-all in
/// place, memory goes by the input's numbers.
pub(super) fn place(job: &Job, chunks: Chunks) -> Chunks {
    match chunks.buffer {
        Buffer::Input if job.in_place => Chunks { buffer: Buffer::Output, ..chunks },
        Buffer::Output if job.in_place => Chunks { first: job.input_place(chunks.first), ..chunks },
        _ => chunks,
    }
}

impl Job {
    /// Whether two runs of one rank share memory.
    pub(crate) fn overlap(&self, a: Chunks, b: Chunks) -> bool {
        overlap(place(self, a), place(self, b))
    }
}

/// Whether two placed runs share a chunk.
pub(super) fn overlap(a: Chunks, b: Chunks) -> bool {
    a.buffer == b.buffer && a.first < b.first + b.count && b.first < a.first + a.count
}

/// Which way bytes go on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    /// To the peer.
    Out,
    /// From the peer.
    In,
}

/// What one step or pass touches. Reads come before the write.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    /// Placed runs that are read.
    pub(super) reads: Vec<Chunks>,
    /// The placed run that is written.
    pub(super) write: Option<Chunks>,
    /// Links that are used.
    pub(super) lanes: Vec<(Rank, ChannelId, Direction)>,
}

impl Access {
    /// Whether the two may not be swapped: a read after write, write after read, write after write, or the
    /// same direction of the same link.
    pub(super) fn conflicts(&self, other: &Self) -> bool {
        let clash = |write: Option<Chunks>, with: &Self| {
            write.is_some_and(|w| with.reads.iter().chain(&with.write).any(|&c| overlap(w, c)))
        };
        clash(self.write, other)
            || clash(other.write, self)
            || self.lanes.iter().any(|lane| other.lanes.contains(lane))
    }

    /// Whether any of `chunks` is read or written.
    pub(super) fn touches(&self, chunks: Chunks) -> bool {
        self.reads.iter().chain(&self.write).any(|&c| overlap(c, chunks))
    }
}

/// Who touched one chunk last.
#[derive(Clone, Debug, Default)]
struct Cell {
    writer: Option<(u32, Chunks)>,
    readers: Vec<(u32, Chunks)>,
}

/// Derives dependencies from accesses that are noted in program order, as an out-of-order processor would.
#[derive(Debug, Default)]
pub(super) struct Hazards {
    cells: [Vec<Cell>; 3],
    lanes: HashMap<(Rank, ChannelId, Direction), u32>,
    outstanding_max: Option<u32>,
    sends: Vec<Sent>,
}

/// A send, where they are bounded.
#[derive(Clone, Copy, Debug)]
struct Sent {
    by: u32,
    lane: (Rank, ChannelId),
    /// What takes the next thing from the same peer.
    answer: Option<u32>,
}

impl Hazards {
    /// Nothing noted yet, and with so many sends outstanding at most.
    pub(super) fn new(outstanding_max: Option<u32>) -> Self {
        Self { outstanding_max, ..Self::default() }
    }

    /// Notes the access of entry `index` and returns what it must wait for, in order.
    pub(super) fn note(&mut self, index: u32, access: &Access) -> Vec<Edge> {
        let mut edges = Vec::new();
        for &read in &access.reads {
            for cell in self.cells(read) {
                if let Some((on, range)) = cell.writer {
                    join(&mut edges, on, wait(range, read));
                }
                cell.readers.push((index, read));
            }
        }
        if let Some(write) = access.write {
            for cell in self.cells(write) {
                let before = edges.len();
                for &(on, range) in cell.readers.iter().filter(|r| r.0 != index) {
                    join(&mut edges, on, wait(range, write));
                }
                // Readers already waited for the writer before them.
                let unread = cell.readers.iter().all(|r| r.0 == index);
                if let Some((on, range)) = cell.writer.filter(|_| unread && before == edges.len()) {
                    join(&mut edges, on, wait(range, write));
                }
                *cell = Cell { writer: Some((index, write)), readers: Vec::new() };
            }
        }
        for &lane in &access.lanes {
            if let Some(on) = self.lanes.insert(lane, index) {
                join(&mut edges, on, Wait::Whole);
            }
        }
        if let Some(most) = self.outstanding_max {
            self.bound(most as usize, index, access, &mut edges);
        }
        edges.sort_by_key(|e| e.on);
        edges
    }

    /// Has each send wait until the one `most` sends before it is over.
    fn bound(&mut self, most: usize, index: u32, access: &Access, edges: &mut Vec<Edge>) {
        let of = |wanted: Direction| access.lanes.iter().filter(move |lane| lane.2 == wanted);
        for &(peer, channel, _) in of(Direction::Out) {
            let over = self.sends.len().checked_sub(most).map(|at| self.sends[at]);
            if let Some(Sent { by, answer, .. }) = over.filter(|over| over.by != index) {
                join(edges, by, Wait::Whole);
                answer.into_iter().for_each(|answer| join(edges, answer, Wait::Whole));
            }
            self.sends.push(Sent { by: index, lane: (peer, channel), answer: None });
        }
        for &(peer, channel, _) in of(Direction::In) {
            let asked =
                |sent: &&mut Sent| sent.answer.is_none() && sent.lane == (peer, channel) && sent.by != index;
            if let Some(sent) = self.sends.iter_mut().find(asked) {
                sent.answer = Some(index);
            }
        }
    }

    fn cells(&mut self, chunks: Chunks) -> &mut [Cell] {
        let cells = &mut self.cells[chunks.buffer as usize];
        let (first, end) = (chunks.first as usize, (chunks.first + chunks.count) as usize);
        if cells.len() < end {
            cells.resize_with(end, Cell::default);
        }
        &mut cells[first..end]
    }
}

fn wait(earlier: Chunks, later: Chunks) -> Wait {
    if earlier == later { Wait::Streaming } else { Wait::Whole }
}

/// Adds an edge; waiting for the whole includes waiting slice by slice.
fn join(edges: &mut Vec<Edge>, on: u32, wait: Wait) {
    match edges.iter_mut().find(|e| e.on == on) {
        Some(edge) if wait == Wait::Whole => edge.wait = Wait::Whole,
        Some(_) => {}
        None => edges.push(Edge { on, wait }),
    }
}
