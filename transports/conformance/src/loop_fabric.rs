//! What links in memory are made of: the queues between all ranks, and what goes wrong with them.

use sohu_coll_core::Rank;
use sohu_coll_core::pipe::Strand;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

/// What goes wrong, and how often. [`Faults::NONE`] is the start: `Faults { seed: 7, max_piece: 1, ..Faults::NONE }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Decides which moves are refused.
    pub seed: u64,
    /// The most bytes that one call of a method moves; a pass moves one granule even if that is more. At least 1.
    pub max_piece: usize,
    /// How many of a hundred calls of a method move nothing although they could. Less than 100.
    pub refuse_percent: u8,
    /// How many of a hundred exchanges go on by the ordinary methods although everybody's bytes have come.
    pub misses_percent: u8,
    /// The rank whose links all break when it tries to send more than so many bytes, counted over all
    /// its calls (headers not; a byte to several ranks once). What it sent before still arrives; a pass
    /// breaks before the granule that would be torn.
    pub break_after: Option<(Rank, u64)>,
    /// Bytes that a link holds before the peer must take some. More than any granule.
    pub window_bytes: usize,
    /// From how many bytes on pipes lend, whatever else they hold.
    pub lends_from: usize,
}

impl Faults {
    /// Links without faults.
    pub const NONE: Faults = Faults {
        seed: 0,
        max_piece: usize::MAX,
        refuse_percent: 0,
        misses_percent: 0,
        break_after: None,
        window_bytes: 1 << 16,
        lends_from: usize::MAX,
    };
}

impl Default for Faults {
    fn default() -> Self {
        Self::NONE
    }
}

/// What one rank has written to another.
#[derive(Default)]
pub(crate) struct Pipe {
    pub(crate) bytes: VecDeque<u8>,
    pub(crate) closed: bool,
    /// How many of them stand before the end of the last that was lent.
    pub(crate) lent: usize,
}

impl Pipe {
    /// Takes so many away.
    pub(crate) fn take(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.lent = self.lent.saturating_sub(count);
    }

    /// Copies the next bytes without taking them.
    pub(crate) fn peek(&self, into: &mut [u8]) {
        let (front, back) = self.bytes.as_slices();
        let split = into.len().min(front.len());
        let (head, tail) = into.split_at_mut(split);
        head.copy_from_slice(&front[..split]);
        tail.copy_from_slice(&back[..tail.len()]);
    }
}

/// The queues between all ranks.
pub(crate) struct Fabric {
    pub(crate) size: u32,
    pub(crate) faults: Faults,
    /// From rank f to rank t at `f * size + t`.
    pipes: Vec<Mutex<Pipe>>,
    /// The strands of the pipe from rank f to rank t, at the same place: bytes, answers.
    strands: Vec<[Mutex<Pipe>; 2]>,
}

impl Fabric {
    /// Empty queues between `size` ranks.
    ///
    /// # Panics
    /// When the faults leave no way to ever move a byte.
    pub(crate) fn new(size: u32, faults: Faults) -> Self {
        assert!(faults.max_piece > 0 && faults.refuse_percent < 100 && faults.window_bytes > 0, "{faults:?}");
        let pipes = (0..size * size).map(|_| Mutex::default()).collect();
        let strands = (0..size * size).map(|_| Default::default()).collect();
        Self { size, faults, pipes, strands }
    }

    /// What one rank has sent to another.
    pub(crate) fn pipe(&self, from: Rank, to: Rank) -> MutexGuard<'_, Pipe> {
        assert!(from != to && from.0.max(to.0) < self.size, "{from} has no link to {to}");
        let pipe = &self.pipes[from.index() * self.size as usize + to.index()];
        // A rank that panicked between two moves left its queues whole: other ranks may go on and say why.
        pipe.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A strand of the pipe from one rank to another.
    pub(crate) fn strand(&self, from: Rank, to: Rank, strand: Strand) -> MutexGuard<'_, Pipe> {
        assert!(from != to && from.0.max(to.0) < self.size, "there is no pipe from {from} to {to}");
        let strands = &self.strands[from.index() * self.size as usize + to.index()];
        strands[strand as usize].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Closes every link and every pipe of `rank`, both ways.
    pub(crate) fn close(&self, rank: Rank) {
        for peer in (0..self.size).map(Rank).filter(|peer| *peer != rank) {
            for (from, to) in [(rank, peer), (peer, rank)] {
                self.pipe(from, to).closed = true;
                self.strand(from, to, Strand::Bytes).closed = true;
                self.strand(from, to, Strand::Answers).closed = true;
            }
        }
    }
}
