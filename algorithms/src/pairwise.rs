//! The pairwise exchange: an all-to-all in rounds, in each of which a rank has one partner.
//!
//! In round k ranks a and b are partners where `a + b = k` modulo the number of ranks: both find the same, every pair meets once,
//! and each rank meets itself in one round. Invariant: at most [`OUTSTANDING_MAX`] rounds of a rank are open at once,
//! however many ranks there are. A round is open from the first byte that is sent in it until all of that is with the link and the
//! partner's block has come.

use crate::alone;
use sohu_coll_core::plan::{Algorithm, Job, Writer, input, output};
use sohu_coll_core::{Collective, Rank};

/// The most sends of a rank that are outstanding at once.
///
/// With 16 no rank waits for one slow partner, and up to 17 ranks nothing waits at all: where ranks share cores, each wait is a turn
/// of the core more. With 8, small blocks of 16 ranks on two cores took twice as long, and blocks of 256 KiB as long.
pub const OUTSTANDING_MAX: u32 = 16;

/// The pairwise exchange.
#[derive(Clone, Copy, Debug)]
pub struct Pairwise;

impl Algorithm for Pairwise {
    fn name(&self) -> &'static str {
        "pairwise"
    }

    fn fits(&self, job: &Job) -> bool {
        job.collective == Collective::AllToAll
    }

    fn outstanding_max(&self, job: &Job) -> Option<u32> {
        Some(OUTSTANDING_MAX.min(job.size - 1)).filter(|most| *most > 0)
    }

    fn chunks(&self, job: &Job) -> u32 {
        job.blocks()
    }

    fn write(&self, _job: &Job, p: &mut Writer) {
        if alone(p) {
            return;
        }
        let (own, size) = (p.rank().0, p.size());
        for round in 0..size {
            let partner = (round + size - own) % size;
            if partner != own {
                p.send(input(own * size + partner, 1), Rank(partner));
                p.recv(output(partner * size + own, 1), Rank(partner));
            }
        }
        p.copy(input(own * size + own, 1), output(own * size + own, 1));
    }
}
