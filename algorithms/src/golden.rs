//! Programs as golden files show them: what an algorithm writes, and what it is fused to, for every rank.
//!
//! A change to an algorithm, to the derived dependencies or to fusion is then a diff that can be read.
//! `tests/golden.rs` compares; `cargo xtask golden` writes.

use sohu_coll_core::plan::{Job, fuse};
use sohu_coll_core::{Collective, Rank};

/// How many ranks the golden files show: the fewest where a ring, a tree and a direct exchange all differ.
pub const GOLDEN_SIZE: u32 = 4;

/// On how many cores they run for what asks for that: the fewest with an exchange between chains.
const GOLDEN_CORES: u32 = 2;

/// The programs and passes of all ranks, as text. The root, where there is one, is rank 1, so that it is no
/// default; `None` when there is no algorithm of that name or it does not do this.
pub fn golden_text(name: &str, collective: Collective, size: u32, in_place: bool) -> Option<String> {
    let root = Rank(if collective.rooted() && size > 1 { 1 } else { 0 });
    let cores = if name == "chains" { GOLDEN_CORES.min(size) } else { size };
    let job = Job { root, in_place, cores, ..Job::new(collective, size) };
    let algorithm = crate::by_name(name).filter(|algorithm| size > 0 && algorithm.fits(&job))?;
    let ranks: Vec<String> = (0..size)
        .map(|rank| {
            let program = algorithm.program(&job, Rank(rank));
            format!("{program}{}", fuse::fuse(&program))
        })
        .collect();
    Some(ranks.join("\n"))
}

/// Every golden file: its name and what it should hold.
pub fn golden_files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for algorithm in crate::all() {
        for collective in Collective::ALL {
            for in_place in [false, true] {
                let place = if in_place { ".in_place" } else { "" };
                let text = golden_text(algorithm.name(), collective, GOLDEN_SIZE, in_place);
                files
                    .extend(text.map(|text| (format!("{}.{collective}{place}.txt", algorithm.name()), text)));
            }
        }
    }
    files
}
