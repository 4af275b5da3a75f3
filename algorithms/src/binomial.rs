//! Binomial trees: the root's children are 1, 2, 4, .. ranks away, and so are theirs within their part.
//!
//! `log2(n)` hops. Ranks count from the root on: the rank at distance `d` answers for the ranks `d..d + 2^k` where
//! `2^k` is the greatest power of two that divides `d` (all of them for the root).

use crate::{after, alone};
use sohu_coll_core::plan::{Algorithm, Chunks, Job, Writer, input, output, scratch};
use sohu_coll_core::{Collective, Rank};

/// Binomial trees to or from the root.
#[derive(Clone, Copy, Debug)]
pub struct Binomial;

impl Algorithm for Binomial {
    fn name(&self) -> &'static str {
        "binomial"
    }

    fn fits(&self, job: &Job) -> bool {
        matches!(job.collective, Collective::Reduce | Collective::Gather | Collective::Scatter)
    }

    /// One for each block: a message streams by slices, so cutting it gains nothing.
    fn chunks(&self, job: &Job) -> u32 {
        job.blocks()
    }

    fn write(&self, job: &Job, p: &mut Writer) {
        if alone(p) {
            return;
        }
        let tree = Tree { root: job.root, size: p.size(), distance: distance(job.root, p.rank(), p.size()) };
        match job.collective {
            Collective::Reduce => tree.reduce(p),
            Collective::Gather => tree.gather(p),
            _ => tree.scatter(p),
        }
    }
}

/// How far `rank` is after `root`, round the ring.
fn distance(root: Rank, rank: Rank, size: u32) -> u32 {
    (rank.0 + size - root.0) % size
}

/// One rank's place in the tree.
struct Tree {
    root: Rank,
    size: u32,
    /// From the root to this rank.
    distance: u32,
}

impl Tree {
    fn rank(&self, distance: u32) -> Rank {
        after(self.root, distance, self.size)
    }

    /// How many ranks this one would answer for if there were enough of them.
    fn span(&self) -> u32 {
        if self.distance == 0 { self.size.next_power_of_two() } else { 1 << self.distance.trailing_zeros() }
    }

    /// Distances of the children, the nearest first.
    fn children(&self) -> impl DoubleEndedIterator<Item = u32> + use<> {
        let (distance, size) = (self.distance, self.size);
        let steps = self.span().ilog2();
        (0..steps).map(move |k| distance + (1 << k)).filter(move |child| *child < size)
    }

    fn parent(&self) -> Rank {
        self.rank(self.distance - self.span())
    }

    /// The blocks of the ranks that the rank at `distance` answers for: a run, or two where it goes past the last rank.
    fn blocks(&self, distance: u32) -> impl Iterator<Item = (u32, u32)> + use<> {
        let span = if distance == 0 { self.size } else { 1 << distance.trailing_zeros() };
        let count = span.min(self.size - distance);
        let first = self.rank(distance).0;
        let before = count.min(self.size - first);
        [(first, before), (0, count - before)].into_iter().filter(|(_, count)| *count > 0)
    }

    /// Leaves first: each rank adds what its children have added.
    fn reduce(&self, p: &mut Writer) {
        let is_root = self.distance == 0;
        let own = input(0, 1);
        if self.children().next().is_none() {
            return p.send(own, self.parent());
        }
        let total = if is_root { output(0, 1) } else { scratch(0, 1) };
        p.copy(own, total);
        for child in self.children() {
            p.recv_reduce(total, self.rank(child));
        }
        if is_root {
            p.finishes(total);
        } else {
            p.send(total, self.parent());
        }
    }

    /// Leaves first: each rank collects the blocks of those it answers for.
    fn gather(&self, p: &mut Writer) {
        let own = p.rank().0;
        let place = |first, count| -> Chunks {
            if self.distance == 0 { output(first, count) } else { scratch(first, count) }
        };
        if self.children().next().is_none() {
            return p.send(input(own, 1), self.parent());
        }
        p.copy(input(own, 1), place(own, 1));
        for child in self.children() {
            for (first, count) in self.blocks(child) {
                p.recv(place(first, count), self.rank(child));
            }
        }
        if self.distance > 0 {
            for (first, count) in self.blocks(self.distance) {
                p.send(place(first, count), self.parent());
            }
        }
    }

    /// The root first: each rank passes on the blocks of those it does not keep.
    fn scatter(&self, p: &mut Writer) {
        let own = p.rank().0;
        let place = |first, count| -> Chunks {
            if self.distance == 0 { input(first, count) } else { scratch(first, count) }
        };
        if self.children().next().is_none() {
            return p.recv(output(own, 1), self.parent());
        }
        if self.distance > 0 {
            for (first, count) in self.blocks(self.distance) {
                p.recv(place(first, count), self.parent());
            }
        }
        // The farthest child has the most to pass on.
        for child in self.children().rev() {
            for (first, count) in self.blocks(child) {
                p.send(place(first, count), self.rank(child));
            }
        }
        p.copy(place(own, 1), output(own, 1));
    }
}
