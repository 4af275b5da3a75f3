//! What the tests of plans share.

use sohu_coll_core::plan::{Algorithm, Job, Program};
use sohu_coll_core::{Collective, Rank};

/// The programs of all ranks.
pub(crate) fn programs(algorithm: &dyn Algorithm, job: &Job) -> Vec<Program> {
    (0..job.size).map(|rank| algorithm.program(job, Rank(rank))).collect()
}

/// An all-reduce of so many ranks.
pub(crate) fn all_reduce(size: u32) -> Job {
    Job::new(Collective::AllReduce, size)
}
