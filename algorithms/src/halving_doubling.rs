//! Rabenseifner's all-reduce: recursive halving, then recursive doubling.
//!
//! Moves as few bytes as there can be in `2 log2(n)` hops, where `n` is a power of two; the other ranks are
//! *extra* and cost two hops of the whole vector. Source: Rabenseifner, Optimization of Collective Reduction
//! Operations (2004).

use crate::after;
use crate::pairing::Core;
use sohu_coll_core::plan::{Algorithm, Chunks, Job, Writer, input, output};
use sohu_coll_core::{Collective, Rank};

/// Recursive halving as a reduce-scatter, and recursive doubling as the all-gather that undoes it.
#[derive(Clone, Copy, Debug)]
pub struct HalvingDoubling;

impl Algorithm for HalvingDoubling {
    fn name(&self) -> &'static str {
        "halving_doubling"
    }

    /// With fewer ranks it would be a two-shot between two of them.
    fn fits(&self, job: &Job) -> bool {
        job.collective == Collective::AllReduce && job.size >= 4
    }

    /// A part for each of the ranks that pair off.
    fn chunks(&self, job: &Job) -> u32 {
        Core::new(job.size).size
    }

    fn write(&self, _job: &Job, p: &mut Writer) {
        let (rank, chunks, core) = (p.rank(), p.chunks(), Core::new(p.size()));
        let all = output(0, chunks);
        if core.is_extra(rank) {
            p.send(input(0, chunks), after(rank, 1, p.size()));
            p.recv(all, after(rank, 1, p.size()));
            return;
        }
        let mut mine: fn(u32, u32) -> Chunks = input;
        if core.stands_in(rank) {
            p.copy(input(0, chunks), all);
            p.recv_reduce(all, Rank(rank.0 - 1));
            mine = output;
        }
        halve(p, &core, mine);
        double(p, &core);
        if core.stands_in(rank) {
            p.send(all, Rank(rank.0 - 1));
        }
    }
}

/// The parts that the places answer for that are one with `place` but for what is below `width`, a power of two.
fn parts(place: u32, width: u32) -> (u32, u32) {
    (place / width * width, width)
}

/// At each hop, a rank gives away the half of its parts that its partner will answer for, until it has one.
fn halve(p: &mut Writer, core: &Core, mut mine: fn(u32, u32) -> Chunks) {
    let place = core.place(p.rank());
    let mut width = core.size / 2;
    while width > 0 {
        let (keep, give, peer) = (parts(place, width), parts(place ^ width, width), core.rank(place ^ width));
        let total = output(keep.0, keep.1);
        p.send(mine(give.0, give.1), peer);
        p.copy(mine(keep.0, keep.1), total);
        p.recv_reduce(total, peer);
        mine = output;
        width /= 2;
    }
    p.finishes(output(place, 1));
}

/// The same way back: at each hop, a rank gets as many parts as it has.
fn double(p: &mut Writer, core: &Core) {
    let place = core.place(p.rank());
    let mut width = 1;
    while width < core.size {
        let (have, get, peer) = (parts(place, width), parts(place ^ width, width), core.rank(place ^ width));
        p.send(output(have.0, have.1), peer);
        p.recv(output(get.0, get.1), peer);
        width *= 2;
    }
}
