//! The algorithms: pure writers of programs, and the tuner that chooses among them.
//!
//! A file here reads like the textbook: five verbs over chunks, no bytes, no dependencies, no fused
//! steps. Invariant: a program depends on the job and the rank only, and folds are written in an order
//! that gives every rank equal bits. `tests/symbolic.rs` proves every algorithm at 1 to 33 ranks.
//!
//! | module | algorithms | for |
//! |---|---|---|
//! | [`direct`] | one-shot, two-shot | every collective; few ranks, or a core for each |
//! | [`ring`] | ring | large messages over sockets |
//! | [`recursive_doubling`] | recursive doubling, recursive halving, Bruck's all-gather | small messages of many ranks |
//! | [`halving_doubling`] | Rabenseifner's | middling all-reduces of many ranks |
//! | [`double_tree`] | two binary trees | large vectors to or from one rank of many |
//! | [`binomial`] | binomial trees | reduce, gather and scatter of tiny blocks by many ranks |
//! | [`bruck`] | Bruck's all-to-all | tiny blocks of many ranks |
//! | [`star`] | all to rank 0 and back | barriers of ranks that share cores |
//! | [`chains`] | a chain through the ranks of each core | long folds of ranks that share cores |
//! | [`pairwise`] | pairwise exchange | all-to-all with at most 16 sends of a rank outstanding, of many ranks |

pub mod binomial;
pub mod bruck;
pub mod chains;
pub mod direct;
pub mod double_tree;
pub mod golden;
pub mod halving_doubling;
mod pairing;
pub mod pairwise;
pub mod recursive_doubling;
pub mod ring;
pub mod star;
pub mod tuner;

pub use binomial::Binomial;
pub use bruck::Bruck;
pub use chains::Chains;
pub use direct::{OneShot, TwoShot};
pub use double_tree::DoubleTree;
pub use golden::{golden_files, golden_text};
pub use halving_doubling::HalvingDoubling;
pub use pairwise::Pairwise;
pub use recursive_doubling::RecursiveDoubling;
pub use ring::Ring;
pub use star::Star;
pub use tuner::{Candidate, Choice, Machine, Tuner};

use sohu_coll_core::Rank;
use sohu_coll_core::plan::{Algorithm, Writer, input, output};

/// Every algorithm there is. The index is the algorithm's number in a call's signature, so new ones
/// go to the end.
pub fn all() -> &'static [&'static dyn Algorithm] {
    &[
        &OneShot,
        &TwoShot,
        &Ring,
        &RecursiveDoubling,
        &Binomial,
        &Bruck,
        &DoubleTree,
        &HalvingDoubling,
        &Pairwise,
        &Star,
        &Chains,
    ]
}

/// The algorithm that users call `name`.
pub fn by_name(name: &str) -> Option<&'static dyn Algorithm> {
    all().iter().copied().find(|algorithm| algorithm.name() == name)
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
