//! Bruck's all-to-all: blocks travel in `log2(n)` hops, each of which carries half of them.
//!
//! Source: Bruck, Ho, Kipnis, Upfal, Weathersby: Efficient Algorithms for All-to-All Communications in
//! Multiport Message-Passing Systems (1997). For small blocks, where a message costs more than its bytes.

use crate::{after, alone};
use sohu_coll_core::plan::{Algorithm, Chunks, Job, Writer, input, output, scratch};
use sohu_coll_core::{Collective, Rank};

/// Bruck's algorithm.
#[derive(Clone, Copy, Debug)]
pub struct Bruck;

impl Algorithm for Bruck {
    fn name(&self) -> &'static str {
        "bruck"
    }

    fn fits(&self, job: &Job) -> bool {
        job.collective == Collective::AllToAll
    }

    fn chunks(&self, job: &Job) -> u32 {
        job.blocks()
    }

    fn write(&self, _job: &Job, p: &mut Writer) {
        if alone(p) {
            return;
        }
        let (rank, size) = (p.rank(), p.size());
        // The block that has `hops` still to go from here, or has made them all: what this rank has for the rank
        // so far after it, at first.
        let mut at: Vec<Chunks> =
            (0..size).map(|hops| input(rank.0 * size + after(rank, hops, size).0, 1)).collect();
        let mut free = 0;
        // The farthest hop first: then what travels together lies together, and takes few copies.
        for round in (0..size.next_power_of_two().ilog2()).rev() {
            let hop = 1 << round;
            let travels: Vec<u32> = (0..size).filter(|hops| hops & hop != 0).collect();
            let runs = runs(travels.iter().map(|&hops| at[hops as usize]));
            let mut packed = runs[0];
            if runs.len() > 1 {
                packed = scratch(free, travels.len() as u32);
                for run in runs {
                    p.copy(run, scratch(free, run.count));
                    free += run.count;
                }
            }
            let unpacked = scratch(free, packed.count);
            p.send(packed, after(rank, hop, size));
            p.recv(unpacked, after(rank, size - hop, size));
            for (place, &hops) in (free..).zip(&travels) {
                at[hops as usize] = scratch(place, 1);
            }
            free += packed.count;
        }
        for (hops, from) in (0..).zip(at) {
            let source: Rank = after(rank, size - hops, size);
            p.copy(from, output(source.0 * size + rank.0, 1));
        }
    }
}

/// Chunks one after the other as runs, as few as there can be.
fn runs(chunks: impl Iterator<Item = Chunks>) -> Vec<Chunks> {
    let mut runs: Vec<Chunks> = Vec::new();
    for next in chunks {
        match runs.last_mut() {
            Some(run) if run.buffer == next.buffer && run.first + run.count == next.first => {
                run.count += next.count;
            }
            _ => runs.push(next),
        }
    }
    runs
}
