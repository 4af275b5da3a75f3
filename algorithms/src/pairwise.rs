//! The pairwise exchange: an all-to-all in rounds, in each of which a rank has one partner.
//!
//! In round k ranks a and b are partners where `a + b = k` modulo the number of ranks: both find the same, every pair meets once,
//! and each rank meets itself in one round. A rank's sends and receives alternate, so of the passes that the
//! executor works on at a time half are sends: at most that many are outstanding, however many ranks there are.

use crate::alone;
use sohu_coll_core::plan::{Algorithm, Job, Writer, input, output};
use sohu_coll_core::{Collective, Rank};

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
