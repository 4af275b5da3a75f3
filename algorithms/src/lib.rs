//! The algorithms: pure writers of programs, and the tuner that chooses among them.
//!
//! A file here reads like the textbook: five verbs over chunks, no bytes, no dependencies, no fused
//! steps. Invariant: a program depends on the job and the rank only, and folds are written in an order
//! that gives every rank equal bits. `tests/symbolic.rs` proves every algorithm at 1 to 33 ranks.

pub mod direct;
pub mod golden;
pub mod recursive_doubling;
pub mod ring;
pub mod tuner;

pub use direct::{OneShot, TwoShot};
pub use golden::{golden_files, golden_text};
pub use recursive_doubling::RecursiveDoubling;
pub use ring::Ring;
pub use tuner::{Candidate, Choice, Machine, Tuner};

use sohu_coll_core::plan::{Algorithm, Job, Writer, input, output};
use sohu_coll_core::{Collective, Rank};

/// Every algorithm there is. The index is the algorithm's number in a call's signature, so new ones
/// go to the end.
pub fn all() -> &'static [&'static dyn Algorithm] {
    &[&OneShot, &TwoShot, &Ring, &RecursiveDoubling]
}

/// The algorithm that users call `name`.
pub fn by_name(name: &str) -> Option<&'static dyn Algorithm> {
    all().iter().copied().find(|algorithm| algorithm.name() == name)
}

/// How many blocks the logical vector of a job has: one for each rank where ranks own parts of it.
fn blocks(job: &Job) -> u32 {
    match job.collective {
        Collective::AllGather | Collective::ReduceScatter => job.size,
        Collective::AllReduce | Collective::Broadcast => 1,
    }
}

/// The rank `distance` after `from`, round the ring.
fn after(from: Rank, distance: u32, size: u32) -> Rank {
    Rank((from.0 + distance) % size)
}

/// All other ranks, those after this one first, so that not all ranks turn to rank 0 at once.
fn others(p: &Writer) -> impl Iterator<Item = Rank> + use<> {
    let (rank, size) = (p.rank(), p.size());
    (1..size).map(move |distance| after(rank, distance, size))
}

/// Writes the program of a rank without peers. Whether it did.
fn alone(p: &mut Writer) -> bool {
    let chunks = p.chunks();
    if p.size() == 1 {
        p.copy(input(0, chunks), output(0, chunks));
    }
    p.size() == 1
}
