//! The ring: each rank talks to its two neighbours only, and every link is busy all the time.
//!
//! Moves as few bytes as there can be, in `n - 1` hops (all-reduce: `2(n - 1)`). With pieces, each piece goes
//! all the way round before the next one starts, so that what a rank touches stays in its cache.

use crate::{after, alone};
use sohu_coll_core::plan::{Algorithm, Chunks, Job, Writer, input, output, scratch};
use sohu_coll_core::{Collective, Rank};

/// The ring algorithm. Broadcast is a chain from the root on, reduce one that ends there.
#[derive(Clone, Copy, Debug)]
pub struct Ring;

impl Algorithm for Ring {
    fn name(&self) -> &'static str {
        "ring"
    }

    fn fits(&self, job: &Job) -> bool {
        !matches!(job.collective, Collective::Gather | Collective::Scatter | Collective::AllToAll)
    }

    fn chunks(&self, job: &Job) -> u32 {
        match job.collective {
            Collective::AllReduce => job.size * job.pieces,
            _ => job.blocks() * job.pieces,
        }
    }

    fn write(&self, job: &Job, p: &mut Writer) {
        if alone(p) {
            return;
        }
        for piece in 0..job.pieces {
            let lap = Lap { rank: p.rank(), size: p.size(), pieces: job.pieces, piece };
            match job.collective {
                Collective::AllReduce => {
                    lap.reduce_scatter(p, |chunk| output(chunk, 1));
                    lap.all_gather(p);
                }
                Collective::ReduceScatter => {
                    // Blocks are equally long, so what passes through needs room for one only.
                    let own = lap.behind(0);
                    lap.reduce_scatter(
                        p,
                        |chunk| if chunk == own { output(own, 1) } else { scratch(piece, 1) },
                    );
                }
                Collective::AllGather => {
                    let own = lap.behind(0);
                    p.copy(input(own, 1), output(own, 1));
                    lap.all_gather(p);
                }
                Collective::Broadcast => lap.chain(p, job.root),
                Collective::Reduce => lap.reduce_chain(p, job.root),
                Collective::Gather | Collective::Scatter | Collective::AllToAll => {
                    unreachable!("the ring does not fit a {}", job.collective)
                }
            }
        }
    }
}

/// One piece's way round the ring.
struct Lap {
    rank: Rank,
    size: u32,
    pieces: u32,
    piece: u32,
}

impl Lap {
    fn next(&self) -> Rank {
        after(self.rank, 1, self.size)
    }

    fn prev(&self) -> Rank {
        after(self.rank, self.size - 1, self.size)
    }

    /// This piece of the block of the rank that is `hops` behind.
    fn behind(&self, hops: u32) -> u32 {
        after(self.rank, 2 * self.size - hops, self.size).0 * self.pieces + self.piece
    }

    /// Each block sets out from the rank after its owner, picks up every rank's part, and ends at its owner.
    /// `total` says where a block is added up.
    fn reduce_scatter(&self, p: &mut Writer, total: impl Fn(u32) -> Chunks) {
        p.send(input(self.behind(1), 1), self.next());
        for hop in 2..=self.size {
            let block = self.behind(hop);
            p.copy(input(block, 1), total(block));
            p.recv_reduce(total(block), self.prev());
            if hop < self.size {
                p.send(total(block), self.next());
            } else {
                p.finishes(total(block));
            }
        }
    }

    /// Each block sets out from its owner and ends at the rank before it.
    fn all_gather(&self, p: &mut Writer) {
        p.send(output(self.behind(0), 1), self.next());
        for hop in 1..self.size {
            let block = self.behind(hop);
            p.recv(output(block, 1), self.prev());
            if hop + 1 < self.size {
                p.send(output(block, 1), self.next());
            }
        }
    }

    /// From the root to the rank before it.
    fn chain(&self, p: &mut Writer, root: Rank) {
        if self.rank == root {
            p.send(input(self.piece, 1), self.next());
            p.copy(input(self.piece, 1), output(self.piece, 1));
            return;
        }
        p.recv(output(self.piece, 1), self.prev());
        if self.next() != root {
            p.send(output(self.piece, 1), self.next());
        }
    }

    /// From the rank after the root on, each adds its part, to the root.
    fn reduce_chain(&self, p: &mut Writer, root: Rank) {
        let own = input(self.piece, 1);
        if self.prev() == root {
            p.send(own, self.next());
            return;
        }
        let total = if self.rank == root { output(self.piece, 1) } else { scratch(self.piece, 1) };
        p.copy(own, total);
        p.recv_reduce(total, self.prev());
        if self.rank == root {
            p.finishes(total);
        } else {
            p.send(total, self.next());
        }
    }
}
