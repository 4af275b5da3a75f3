//! All to rank 0, and back from there.

use crate::{alone, others};
use sohu_coll_core::plan::{Algorithm, Job, Writer, input, output};
use sohu_coll_core::{Collective, Rank};

/// Rank 0 folds what all others send it, and sends them the result.
///
/// Two hops, and nobody is through before rank 0 is: where ranks share cores, a barrier of this kind lets rank 0 go on while the others
/// have yet to be told. A chain or a tree would have more hops, each with a turn of the cores.
#[derive(Clone, Copy, Debug)]
pub struct Star;

/// The rank in the middle.
const CENTRE: Rank = Rank(0);

impl Algorithm for Star {
    fn name(&self) -> &'static str {
        "star"
    }

    /// Two ranks are a one-shot of half the hops.
    fn fits(&self, job: &Job) -> bool {
        job.collective == Collective::AllReduce && job.size >= 3
    }

    fn folds_in_rank_order(&self) -> bool {
        true
    }

    fn chunks(&self, _job: &Job) -> u32 {
        1
    }

    fn write(&self, job: &Job, p: &mut Writer) {
        if alone(p) {
            return;
        }
        if p.rank() != CENTRE {
            p.send(input(0, 1), CENTRE);
            p.recv(output(0, 1), CENTRE);
            return;
        }
        let total = output(0, 1);
        if !job.in_place {
            p.copy(input(0, 1), total);
        }
        for peer in (1..p.size()).map(Rank) {
            p.recv_reduce(total, peer);
        }
        p.finishes(total);
        for peer in others(p) {
            p.send(total, peer);
        }
    }
}
