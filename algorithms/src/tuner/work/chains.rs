//! The work of chains, whose ranks take turns on their cores.

use super::Work;
use sohu_coll_core::Collective;
use sohu_coll_core::plan::Job;

/// Bytes are those of an average rank of the fullest core: the first of a chain stages its input, all others fold theirs in passing, and
/// the last of them finishes a part. Counts are those of the last.
pub(super) fn chains(job: &Job, bytes: f64) -> Work {
    let [size, cores] = [job.size, job.cores].map(f64::from);
    let hops = (size / cores).ceil();
    let (peers, ends) = (size - 1.0, cores - 1.0);
    // The vector, and how many chunks of it are sent one by one.
    let (vector, chunks) = match job.collective {
        Collective::ReduceScatter => (size * bytes, size),
        _ => (bytes, cores),
    };
    let part = vector / cores;
    // What each rank takes of the results, and to how many the end of a chain sends its own.
    let (moved, receivers) = match job.collective {
        Collective::AllReduce => (vector - part / hops, peers),
        Collective::ReduceScatter => (bytes, 1.0),
        _ => (ends * part / hops, 1.0),
    };
    Work {
        rounds: hops + ends.min(1.0),
        writes: cores,
        sends: ends + receivers,
        receives: cores + 2.0 * ends,
        message: vector / chunks,
        staged: vector / hops,
        sent: ends * part + receivers * part,
        folded: (vector * (hops - 1.0) + ends * part) / hops,
        moved,
        streams: 1.0 + ends,
        ..Work::default()
    }
}
