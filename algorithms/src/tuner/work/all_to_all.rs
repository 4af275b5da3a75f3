//! The work of an all-to-all.

use super::{Work, bits, depth};
use crate::pairwise::OUTSTANDING_MAX;

/// Every rank has a block of `block` bytes for every other one.
pub(super) fn all_to_all(algorithm: &str, size: u32, block: f64) -> Work {
    let peers = f64::from(size - 1);
    let outstanding = if algorithm == "pairwise" { peers.min(f64::from(OUTSTANDING_MAX)) } else { peers };
    match algorithm {
        // A block takes a hop for each bit of its distance. It is packed for each but the first.
        "bruck" => {
            let hops = depth(size);
            let carried = bits(size) * block;
            Work {
                rounds: hops,
                writes: hops,
                sends: hops,
                receives: hops,
                message: f64::from(size / 2) * block,
                staged: carried,
                sent: carried,
                moved: carried,
                kept: carried,
                // The packs of all hops take one for each block or so; in the end each block goes to its place.
                copies: 2.0 * peers,
                streams: 1.0,
                ..Work::default()
            }
        }
        // Spread out: every rank sends to the one after it first; pairwise: to few at a time, and on to others when those have sent too.
        _ => Work {
            rounds: (peers / outstanding).ceil(),
            writes: peers,
            sends: peers,
            receives: peers,
            message: block,
            staged: peers * block,
            sent: peers * block,
            moved: peers * block,
            streams: outstanding,
            ..Work::default()
        },
    }
}
