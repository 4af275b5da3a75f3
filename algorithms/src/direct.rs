//! Every rank talks to every other one directly: the fewest hops there can be.

use crate::{alone, others};
use sohu_coll_core::plan::{Algorithm, Chunks, Job, Writer, input, output, scratch};
use sohu_coll_core::{Collective, Rank};

/// One hop: each rank sends what the others need of its input, and folds what it needs by itself.
///
/// `n - 1` messages a rank. An all-reduce moves `n - 1` times the input, so this is for small ones.
#[derive(Clone, Copy, Debug)]
pub struct OneShot;

impl Algorithm for OneShot {
    fn name(&self) -> &'static str {
        "one_shot"
    }

    fn fits(&self, _job: &Job) -> bool {
        true
    }

    fn folds_in_rank_order(&self) -> bool {
        true
    }

    /// One for each block: a message streams by slices, so cutting it gains nothing.
    fn chunks(&self, job: &Job) -> u32 {
        job.blocks()
    }

    fn write(&self, job: &Job, p: &mut Writer) {
        if alone(p) {
            return;
        }
        let own = p.rank().0;
        match job.collective {
            Collective::AllReduce => {
                for peer in others(p) {
                    p.send(input(0, 1), peer);
                }
                fold_in_rank_order(job, p, 0);
            }
            Collective::ReduceScatter => {
                for peer in others(p) {
                    p.send(input(peer.0, 1), peer);
                }
                fold_in_rank_order(job, p, own);
            }
            Collective::AllGather => {
                for peer in others(p) {
                    p.send(input(own, 1), peer);
                }
                p.copy(input(own, 1), output(own, 1));
                for peer in others(p) {
                    p.recv(output(peer.0, 1), peer);
                }
            }
            Collective::Broadcast if p.rank() == job.root => {
                for peer in others(p) {
                    p.send(input(0, 1), peer);
                }
                p.copy(input(0, 1), output(0, 1));
            }
            Collective::Broadcast => p.recv(output(0, 1), job.root),
            Collective::Reduce if p.rank() == job.root => fold_in_rank_order(job, p, 0),
            Collective::Reduce => p.send(input(0, 1), job.root),
            Collective::Gather if p.rank() == job.root => {
                p.copy(input(own, 1), output(own, 1));
                for peer in others(p) {
                    p.recv(output(peer.0, 1), peer);
                }
            }
            Collective::Gather => p.send(input(own, 1), job.root),
            Collective::Scatter if p.rank() == job.root => {
                for peer in others(p) {
                    p.send(input(peer.0, 1), peer);
                }
                p.copy(input(own, 1), output(own, 1));
            }
            Collective::Scatter => p.recv(output(own, 1), job.root),
            Collective::AllToAll => all_to_all(p),
        }
    }
}

/// Spread out: block `s * size + d` is what rank s has for rank d, and the pairs go round, so that no rank is everybody's
/// first peer. All sends are outstanding at once, as far as the links have room.
fn all_to_all(p: &mut Writer) {
    let (own, size) = (p.rank().0, p.size());
    for peer in others(p) {
        p.send(input(own * size + peer.0, 1), peer);
    }
    p.copy(input(own * size + own, 1), output(own * size + own, 1));
    for distance in 1..size {
        // Whoever is as far behind sends to this rank at the same time.
        let peer = Rank((own + size - distance) % size);
        p.recv(output(peer.0 * size + own, 1), peer);
    }
}

/// Two hops: each rank owns a part of the vector. The parts go to their owners, and from there to all.
///
/// `2(n - 1)` messages a rank, each of an `n`th of the vector: as few bytes as there can be. Cut into pieces,
/// the second hop of one piece overlaps with the first of the next.
#[derive(Clone, Copy, Debug)]
pub struct TwoShot;

impl Algorithm for TwoShot {
    fn name(&self) -> &'static str {
        "two_shot"
    }

    fn fits(&self, job: &Job) -> bool {
        matches!(job.collective, Collective::AllReduce | Collective::Broadcast)
    }

    fn folds_in_rank_order(&self) -> bool {
        true
    }

    fn chunks(&self, job: &Job) -> u32 {
        job.size * job.pieces
    }

    fn write(&self, job: &Job, p: &mut Writer) {
        if alone(p) {
            return;
        }
        for piece in 0..job.pieces {
            let part = |owner: Rank| owner.0 * job.pieces + piece;
            match job.collective {
                Collective::Broadcast => broadcast(job, p, part),
                _ => all_reduce(job, p, part),
            }
        }
    }
}

/// A direct reduce-scatter of the parts, then a direct all-gather.
fn all_reduce(job: &Job, p: &mut Writer, part: impl Fn(Rank) -> u32) {
    let own = part(p.rank());
    for peer in others(p) {
        p.send(input(part(peer), 1), peer);
    }
    fold_in_rank_order(job, p, own);
    for peer in others(p) {
        p.send(output(own, 1), peer);
    }
    for peer in others(p) {
        p.recv(output(part(peer), 1), peer);
    }
}

/// The root deals out the parts, and every rank passes its own on to the others.
fn broadcast(job: &Job, p: &mut Writer, part: impl Fn(Rank) -> u32) {
    let (own, root) = (part(p.rank()), job.root);
    if p.rank() == root {
        for peer in others(p) {
            p.send(input(part(peer), 1), peer);
        }
        for peer in others(p) {
            p.send(input(own, 1), peer);
        }
        for owner in (0..p.size()).map(Rank) {
            p.copy(input(part(owner), 1), output(part(owner), 1));
        }
        return;
    }
    p.recv(output(own, 1), root);
    for peer in others(p).filter(|&peer| peer != root) {
        p.send(output(own, 1), peer);
    }
    for peer in others(p) {
        p.recv(output(part(peer), 1), peer);
    }
}

/// Folds chunk `chunk` of all ranks' inputs in rank order, so that whoever folds it gets the same bits.
fn fold_in_rank_order(job: &Job, p: &mut Writer, chunk: u32) {
    let (own, result) = (input(chunk, 1), output(chunk, 1));
    // In place, the result would overwrite this rank's own input before its turn comes.
    let total: Chunks = if job.in_place { scratch(chunk, 1) } else { result };
    for rank in (0..p.size()).map(Rank) {
        match (rank == Rank(0), rank == p.rank()) {
            (true, true) => p.copy(own, total),
            (true, false) => p.recv(total, rank),
            (false, true) => p.reduce(own, total),
            (false, false) => p.recv_reduce(total, rank),
        }
    }
    p.finishes(total);
    p.copy(total, result);
}
