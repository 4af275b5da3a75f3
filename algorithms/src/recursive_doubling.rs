//! Recursive doubling and its kin: the distance to the partner doubles (or halves) at each hop, so `log2(n)`
//! hops do.
//!
//! The reductions pair ranks off, which takes a power of two of them; the other ranks are *extra*.

use crate::pairing::Core;
use crate::{after, alone};
use sohu_coll_core::plan::{Algorithm, Chunks, Job, Writer, input, output, scratch};
use sohu_coll_core::{Collective, Rank};

/// Recursive doubling. All-gather is Bruck's variant, broadcast a binomial tree, reduce-scatter
/// recursive halving.
#[derive(Clone, Copy, Debug)]
pub struct RecursiveDoubling;

impl Algorithm for RecursiveDoubling {
    fn name(&self) -> &'static str {
        "recursive_doubling"
    }

    fn fits(&self, job: &Job) -> bool {
        use Collective::{AllGather, AllReduce, Broadcast, ReduceScatter};
        matches!(job.collective, AllReduce | ReduceScatter | AllGather | Broadcast)
    }

    /// One for each block: a message streams by slices, so cutting it gains nothing.
    fn chunks(&self, job: &Job) -> u32 {
        job.blocks()
    }

    fn write(&self, job: &Job, p: &mut Writer) {
        if alone(p) {
            return;
        }
        match job.collective {
            Collective::AllReduce => all_reduce(p),
            Collective::ReduceScatter => reduce_scatter(p),
            Collective::AllGather => all_gather(p),
            Collective::Broadcast => broadcast(p, job.root),
            Collective::Reduce | Collective::Gather | Collective::Scatter | Collective::AllToAll => {
                unreachable!("recursive doubling does not fit a {}", job.collective)
            }
        }
    }
}

fn all_reduce(p: &mut Writer) {
    let (rank, core) = (p.rank(), Core::new(p.size()));
    let total = output(0, 1);
    if core.is_extra(rank) {
        p.send(input(0, 1), after(rank, 1, p.size()));
        p.recv(total, after(rank, 1, p.size()));
        return;
    }
    let mut mine = input(0, 1);
    if core.stands_in(rank) {
        p.copy(mine, total);
        p.recv_reduce(total, Rank(rank.0 - 1));
        mine = total;
    }
    let mut distance = 1;
    while distance < core.size {
        let peer = core.rank(core.place(rank) ^ distance);
        p.send(mine, peer);
        p.copy(mine, total);
        p.recv_reduce(total, peer);
        mine = total;
        distance *= 2;
    }
    p.finishes(total);
    if core.stands_in(rank) {
        p.send(total, Rank(rank.0 - 1));
    }
}

/// Recursive halving: at each hop, a rank gives away the half of its blocks that its partner will answer for.
fn reduce_scatter(p: &mut Writer) {
    let (rank, core, chunks) = (p.rank(), Core::new(p.size()), p.chunks());
    let own = output(rank.0, 1);
    if core.is_extra(rank) {
        p.send(input(0, chunks), after(rank, 1, p.size()));
        p.recv(own, after(rank, 1, p.size()));
        return;
    }
    let mut mine: fn(u32, u32) -> Chunks = input;
    if core.stands_in(rank) {
        p.copy(input(0, chunks), scratch(0, chunks));
        p.recv_reduce(scratch(0, chunks), Rank(rank.0 - 1));
        mine = scratch;
    }
    let place = core.place(rank);
    let mut half = core.size / 2;
    while half > 0 {
        // The places that this rank still answers for are `half` before or after the cut.
        let run = |place: u32| {
            let first = core.first_block(place / half * half);
            (first, core.first_block(place / half * half + half) - first)
        };
        let (keep, give, peer) = (run(place), run(place ^ half), core.rank(place ^ half));
        let total = if half == 1 && !core.stands_in(rank) { own } else { scratch(keep.0, keep.1) };
        p.send(mine(give.0, give.1), peer);
        p.copy(mine(keep.0, keep.1), total);
        p.recv_reduce(total, peer);
        if half == 1 {
            p.finishes(total);
        }
        mine = scratch;
        half /= 2;
    }
    if core.stands_in(rank) {
        p.send(scratch(rank.0 - 1, 1), Rank(rank.0 - 1));
        p.copy(scratch(rank.0, 1), own);
    }
}

/// After each hop a rank has the blocks of twice as many ranks, its own and those after it. Bruck's, but each
/// block goes to its place at once.
fn all_gather(p: &mut Writer) {
    let (rank, size) = (p.rank(), p.size());
    let mut count = 1;
    p.copy(input(rank.0, 1), output(rank.0, 1));
    while count < size {
        let (before, behind) = (after(rank, size - count, size), after(rank, count, size));
        let more = count.min(size - count);
        for (first, run) in around(rank, more, size) {
            p.send(output(first, run), before);
        }
        for (first, run) in around(behind, more, size) {
            p.recv(output(first, run), behind);
        }
        count += more;
    }
}

/// The blocks of `count` ranks from `first` on, as runs: two where they go past the last rank.
fn around(first: Rank, count: u32, size: u32) -> impl Iterator<Item = (u32, u32)> {
    let until_end = count.min(size - first.0);
    [(first.0, until_end), (0, count - until_end)].into_iter().filter(|run| run.1 > 0)
}

/// A binomial tree: who has the data passes it on, farthest first, since those have most to do yet.
fn broadcast(p: &mut Writer, root: Rank) {
    let (rank, size) = (p.rank(), p.size());
    let from_root = (rank.0 + size - root.0) % size;
    // The root's subtree is everyone; others hang below the rank without their lowest bit.
    let reach = if rank == root { size.next_power_of_two() } else { 1 << from_root.trailing_zeros() };
    let data = if rank == root { input(0, 1) } else { output(0, 1) };
    if rank != root {
        p.recv(data, after(root, from_root - reach, size));
    }
    let mut distance = reach / 2;
    while distance > 0 {
        if from_root + distance < size {
            p.send(data, after(rank, distance, size));
        }
        distance /= 2;
    }
    p.copy(data, output(0, 1));
}
