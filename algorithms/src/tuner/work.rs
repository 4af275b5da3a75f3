//! What each algorithm asks of its busiest rank, by counting in its textbook description.
//!
//! Invariant: every quantity is linear in the bytes, or does not depend on them, or grows with them up to a
//! bound; so no prediction falls when bytes grow.

use super::SLICE_SMALL;
use sohu_coll_core::Collective;
use sohu_coll_core::plan::Job;

/// Counts and bytes of the busiest rank (for broadcast, along the longest way from the root).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work {
    /// Waits for a peer that come one after another.
    pub(super) rounds: f64,
    /// Distinct messages written, messages sent (one for each peer that gets one), messages received.
    pub(super) writes: f64,
    pub(super) sends: f64,
    pub(super) receives: f64,
    /// Bytes of the longest message.
    pub(super) message: f64,
    /// Bytes of distinct messages, and bytes of all messages sent.
    pub(super) staged: f64,
    pub(super) sent: f64,
    /// Bytes received and folded, bytes received and only stored.
    pub(super) folded: f64,
    pub(super) moved: f64,
    /// Those of `moved` that the peer's fold could have stored here in passing.
    pub(super) passed: f64,
    /// Bytes copied from the rank's own input to its own output.
    pub(super) kept: f64,
    /// Peers that send to the rank at the same time.
    pub(super) streams: f64,
    /// Bytes of the caller's buffers.
    pub(super) buffers: f64,
}

impl Work {
    /// The work of a job over `bytes` bytes (of `count` elements, as the collective counts them).
    pub(super) fn of(algorithm: &str, job: &Job, bytes: f64) -> Self {
        let size = f64::from(job.size);
        if job.size == 1 {
            let (kept, buffers) = if job.in_place { (0.0, bytes) } else { (bytes, 2.0 * bytes) };
            return Self { message: bytes, kept, buffers, ..Self::default() };
        }
        let (held, kept) = match job.collective {
            Collective::AllReduce | Collective::Broadcast => ([bytes, bytes], 0.0),
            Collective::AllGather => ([bytes, size * bytes], bytes),
            Collective::ReduceScatter => ([size * bytes, bytes], 0.0),
        };
        let work = match job.collective {
            Collective::AllReduce => all_reduce(algorithm, job.size, bytes),
            Collective::AllGather | Collective::ReduceScatter => blocks(algorithm, job, bytes),
            Collective::Broadcast => broadcast(algorithm, job.size, bytes),
        };
        if job.in_place {
            return Self { buffers: held[0].max(held[1]), ..work };
        }
        Self { buffers: held[0] + held[1], kept, ..work }
    }
}

fn all_reduce(algorithm: &str, size: u32, bytes: f64) -> Work {
    let (peers, part) = (f64::from(size - 1), bytes / f64::from(size));
    match algorithm {
        "one_shot" => Work {
            rounds: 1.0,
            writes: 1.0,
            sends: peers,
            receives: peers,
            message: bytes,
            staged: bytes,
            sent: peers * bytes,
            folded: peers * bytes,
            streams: peers,
            ..Work::default()
        },
        // Each part to its owner, then each result to all.
        "two_shot" => Work {
            rounds: 2.0,
            writes: peers + 1.0,
            sends: 2.0 * peers,
            receives: 2.0 * peers,
            message: part,
            staged: bytes,
            sent: 2.0 * peers * part,
            folded: peers * part,
            moved: peers * part,
            passed: peers * part,
            streams: peers,
            ..Work::default()
        },
        "recursive_doubling" => {
            // Where the ranks are no power of two, the rest joins a partner before and hears from it after.
            let rest = !size.is_power_of_two();
            let exchanges = f64::from(size.ilog2()) + if rest { 1.0 } else { 0.0 };
            Work {
                rounds: exchanges + if rest { 1.0 } else { 0.0 },
                writes: exchanges,
                sends: exchanges,
                receives: exchanges,
                message: bytes,
                staged: exchanges * bytes,
                sent: exchanges * bytes,
                folded: exchanges * bytes,
                streams: 1.0,
                ..Work::default()
            }
        }
        // The ring; and the count that anything not listed is given, the most rounds there are.
        _ => Work {
            rounds: 2.0 * peers,
            writes: 2.0 * peers,
            sends: 2.0 * peers,
            receives: 2.0 * peers,
            message: part,
            staged: 2.0 * peers * part,
            sent: 2.0 * peers * part,
            folded: peers * part,
            moved: peers * part,
            streams: 1.0,
            ..Work::default()
        },
    }
}

/// All-gather and reduce-scatter: every rank gets, or gives, every other rank's block of `block` bytes.
fn blocks(algorithm: &str, job: &Job, block: f64) -> Work {
    let peers = f64::from(job.size - 1);
    let gathers = job.collective == Collective::AllGather;
    let arrived = peers * block;
    let (folded, moved) = if gathers { (0.0, arrived) } else { (arrived, 0.0) };
    let all = Work { message: block, sent: arrived, staged: arrived, folded, moved, ..Work::default() };
    match algorithm {
        "one_shot" => Work {
            rounds: 1.0,
            // A gathered block is the same for all; a scattered one is for its owner alone.
            writes: if gathers { 1.0 } else { peers },
            staged: if gathers { block } else { arrived },
            sends: peers,
            receives: peers,
            streams: peers,
            ..all
        },
        "recursive_doubling" if gathers || job.size.is_power_of_two() => {
            let rounds = f64::from(job.size.next_power_of_two().ilog2());
            Work { rounds, writes: rounds, sends: rounds, receives: rounds, streams: 1.0, ..all }
        }
        // A rank that stands in for another takes all of its input first, and gives it its block last.
        "recursive_doubling" => {
            let hops = f64::from(job.size.ilog2()) + 1.0;
            Work {
                rounds: hops + 1.0,
                writes: hops,
                sends: hops,
                receives: hops,
                folded: arrived + f64::from(job.size) * block,
                streams: 1.0,
                ..all
            }
        }
        _ => Work { rounds: peers, writes: peers, sends: peers, receives: peers, streams: 1.0, ..all },
    }
}

fn broadcast(algorithm: &str, size: u32, bytes: f64) -> Work {
    let (peers, part) = (f64::from(size - 1), bytes / f64::from(size));
    // The root stages while the others read; only its first slice keeps them waiting.
    let first = bytes.min(SLICE_SMALL as f64);
    let once = Work { message: bytes, staged: first, moved: bytes, streams: 1.0, ..Work::default() };
    match algorithm {
        "one_shot" => {
            Work { rounds: 1.0, writes: 1.0, sends: peers, receives: 1.0, sent: peers * bytes, ..once }
        }
        // Parts to their owners, each part from its owner to all.
        "two_shot" => Work {
            rounds: 2.0,
            writes: peers + 1.0,
            sends: 2.0 * peers,
            receives: peers,
            message: part,
            staged: first + part,
            sent: 2.0 * peers * part,
            streams: peers,
            ..once
        },
        // A tree of pairs; nobody forwards before it has all.
        "recursive_doubling" => {
            let rounds = f64::from(size.next_power_of_two().ilog2());
            Work {
                rounds,
                writes: rounds,
                sends: rounds,
                receives: rounds,
                staged: rounds * bytes,
                sent: rounds * bytes,
                moved: rounds * bytes,
                ..once
            }
        }
        // A chain: slices go through it like through a pipe, and everyone forwards while it stores.
        _ => Work {
            rounds: peers,
            writes: peers,
            sends: peers,
            receives: peers,
            staged: bytes,
            sent: bytes,
            ..once
        },
    }
}
