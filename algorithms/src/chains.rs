//! A chain through the ranks of each core, for ranks that share cores.
//!
//! Where a core goes from rank to rank, the sum that one of them leaves behind is still in the core's cache when the next one adds its
//! input. So nobody's input is copied: each rank reads its own, once, in the pass that adds it. The ends of the chains exchange what
//! they have of each part, and hand out the results.

use crate::{alone, others};
use sohu_coll_core::plan::{Algorithm, Chunks, Job, Writer, input, output, scratch};
use sohu_coll_core::{Collective, Rank};

/// A chain through the ranks of each core, and one exchange of the chains' ends.
///
/// Each core's chain adds up the whole vector. A part of it is finished by the end of one chain, to which the other ends send what
/// they have. All chains go through the parts in the same order: if each began with its own, or ended with it, two ends could
/// wait for each other, each with its staging memory full of what the other has yet to take.
#[derive(Clone, Copy, Debug)]
pub struct Chains;

impl Algorithm for Chains {
    fn name(&self) -> &'static str {
        "chains"
    }

    fn fits(&self, job: &Job) -> bool {
        matches!(job.collective, Collective::AllReduce | Collective::ReduceScatter | Collective::Reduce)
            && job.size >= 2
    }

    /// A part for each core. Pieces would gain nothing: a chain goes on as long as there is room for what comes out of it.
    fn chunks(&self, job: &Job) -> u32 {
        if job.collective == Collective::ReduceScatter { job.size } else { job.cores }
    }

    fn write(&self, job: &Job, p: &mut Writer) {
        if alone(p) {
            return;
        }
        let place = Place { rank: p.rank(), size: p.size(), cores: job.cores };
        for chunk in 0..p.chunks() {
            let gets = |rank: Rank| match job.collective {
                Collective::ReduceScatter => rank.0 == chunk,
                Collective::Reduce => rank == job.root,
                _ => true,
            };
            let total = if gets(p.rank()) { output(chunk, 1) } else { scratch(chunk, 1) };
            let finisher = place.end(chunk % job.cores);
            place.add(p, chunk, total, finisher);
            if p.rank() == finisher {
                for end in (1..job.cores).map(|distance| place.end((chunk + distance) % job.cores)) {
                    p.recv_reduce(total, end);
                }
                p.finishes(total);
                for peer in others(p).filter(|&peer| gets(peer)) {
                    p.send(total, peer);
                }
            } else if gets(p.rank()) {
                p.recv(total, finisher);
            }
        }
    }
}

/// Where a rank stands in the chain of its core.
struct Place {
    rank: Rank,
    size: u32,
    cores: u32,
}

impl Place {
    /// The last rank of a core.
    fn end(&self, core: u32) -> Rank {
        Rank(core + (self.size - 1 - core) / self.cores * self.cores)
    }

    /// Adds this rank's input to what comes down the chain, and passes the sum on; at the chain's end to the finisher, which keeps it.
    fn add(&self, p: &mut Writer, chunk: u32, total: Chunks, finisher: Rank) {
        let before = self.rank.0.checked_sub(self.cores).map(Rank);
        let after = Rank(self.rank.0 + self.cores);
        let to = if after.0 < self.size { after } else { finisher };
        let own = input(chunk, 1);
        if before.is_none() && self.rank != finisher {
            p.send(own, to);
            return;
        }
        p.copy(own, total);
        if let Some(before) = before {
            p.recv_reduce(total, before);
        }
        if self.rank != finisher {
            p.send(total, to);
        }
    }
}
