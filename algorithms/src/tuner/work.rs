//! What each algorithm asks of its busiest rank, by counting in its textbook description.
//!
//! Invariant: every quantity is linear in the bytes, or does not depend on them, or grows with them up to a
//! bound; so no prediction falls when bytes grow.

mod all_to_all;
mod chains;

use super::{SHARED_LEAD, SLICE_SMALL, SLICE_STREAM};
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
    /// Those of `staged` that are a fold's result, stored there together with the output.
    pub(super) fused: f64,
    /// Those of `moved` that the peer's fold could have stored here in passing.
    pub(super) passed: f64,
    /// Those of `moved` that a sender which has nothing else to do writes meanwhile, out of registered memory into registered memory.
    pub(super) shared: f64,
    /// Bytes copied within the rank's own memory, and copies beside the one from its input to its output.
    pub(super) kept: f64,
    pub(super) copies: f64,
    /// Part of the time for bytes that an average rank has to itself while the busiest one works.
    pub(super) idle: f64,
    /// Peers that send to the rank at the same time.
    pub(super) streams: f64,
    /// Bytes of the caller's buffers, as if they were apart.
    pub(super) buffers: f64,
    /// Bytes staged at once of which each peer reads another part.
    pub(super) parted: f64,
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
            Collective::Reduce => ([bytes, bytes], 0.0),
            Collective::Gather | Collective::Scatter => ([size * bytes, bytes], bytes),
            Collective::AllToAll => ([size * bytes, size * bytes], bytes),
        };
        // Of two ranks, a tree of pairs is a message.
        let algorithm = if algorithm == "binomial" && job.size == 2 { "one_shot" } else { algorithm };
        let work = match job.collective {
            _ if algorithm == "chains" => chains::chains(job, bytes),
            Collective::AllReduce => all_reduce(algorithm, job.size, bytes),
            Collective::AllGather | Collective::ReduceScatter => blocks(algorithm, job, bytes),
            Collective::Broadcast => broadcast(algorithm, job.size, bytes),
            Collective::Reduce => reduce(algorithm, job.size, bytes),
            Collective::Gather | Collective::Scatter => rooted(algorithm, job, bytes),
            Collective::AllToAll => all_to_all::all_to_all(algorithm, job.size, bytes),
        };
        let work =
            Self { shared: if algorithm == "one_shot" { shared(job, work.moved) } else { 0.0 }, ..work };
        // In place too: ranks of one call need not all be so, and are to choose alike.
        let buffers = held[0] + held[1];
        Self { buffers, kept: work.kept + if job.in_place { 0.0 } else { kept }, ..work }
    }
}

/// What of `moved` bytes the one sender of a call of two ranks writes by itself, if it has no copy of its own to make.
fn shared(job: &Job, moved: f64) -> f64 {
    let only_sends = match job.collective {
        Collective::Broadcast | Collective::Scatter => job.in_place,
        Collective::Gather => true,
        _ => false,
    };
    if job.size == 2 && only_sends { (moved / 2.0 - SHARED_LEAD).max(0.0) } else { 0.0 }
}

/// How often a tree of `size` ranks doubles: the hops from its root to its farthest leaf.
fn depth(size: u32) -> f64 {
    f64::from(size.next_power_of_two().ilog2())
}

/// How many bits are set in the distances of all ranks from one: the hops of a block to each.
fn bits(size: u32) -> f64 {
    f64::from((1..size).map(u32::count_ones).sum::<u32>())
}

/// What of a message the next rank waits for, where it goes from rank to rank by slices: about one of them.
fn slice(message: f64) -> f64 {
    message.min(SLICE_STREAM as f64)
}

fn all_reduce(algorithm: &str, size: u32, bytes: f64) -> Work {
    let (peers, part) = (f64::from(size - 1), bytes / f64::from(size));
    // Every rank folds what comes from all others.
    let direct = Work {
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
    };
    match algorithm {
        "one_shot" => direct,
        // Rank 0 does that alone, and the result goes back from there.
        "star" => Work { rounds: 2.0, moved: bytes, ..direct },
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
            fused: part,
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
        "halving_doubling" => halving_doubling(size, bytes),
        "double_tree" => double_tree(size, bytes),
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

/// Half of the vector through each tree, up and down: a rank has two children in one, and is a leaf of the other.
fn double_tree(size: u32, bytes: f64) -> Work {
    let (hops, half) = (depth(size), bytes / 2.0);
    Work {
        // With few ranks the trees share a link, and one waits there for the other.
        rounds: if size < 7 { 4.0 * hops - 1.0 } else { 2.0 * hops },
        writes: 2.0 * hops,
        sends: 3.0 * hops,
        receives: 3.0 * hops,
        message: half,
        staged: 3.0 * half,
        sent: 4.0 * half,
        folded: 2.0 * half,
        moved: 2.0 * half + (2.0 * hops - 1.0) * slice(half),
        streams: 3.0,
        ..Work::default()
    }
}

/// Halves, quarters, .. to partners to fold, and the same way back. The parts differ from hop to hop, so each
/// waits for the one before it to the last slice.
fn halving_doubling(size: u32, bytes: f64) -> Work {
    let core = 1 << size.ilog2();
    let hops = 2.0 * f64::from(size.ilog2());
    let part = bytes / f64::from(core);
    let passed_on = bytes - part;
    let work = Work {
        rounds: hops,
        writes: hops,
        sends: hops,
        receives: hops,
        message: bytes / 2.0,
        staged: 2.0 * passed_on,
        sent: 2.0 * passed_on,
        folded: passed_on,
        moved: passed_on + (hops - 1.0) * slice(part),
        streams: 1.0,
        ..Work::default()
    };
    if size == core {
        return work;
    }
    // The rest joins a partner before and hears from it after.
    Work {
        rounds: hops + 2.0,
        writes: hops + 1.0,
        sends: hops + 1.0,
        receives: hops + 1.0,
        message: bytes,
        staged: work.staged + bytes,
        sent: work.sent + bytes,
        folded: work.folded + bytes,
        ..work
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
            parted: arrived - moved,
            sends: peers,
            receives: peers,
            streams: peers,
            ..all
        },
        "recursive_doubling" if gathers || job.size.is_power_of_two() => {
            let rounds = f64::from(job.size.next_power_of_two().ilog2());
            let parted = arrived - moved;
            Work { rounds, writes: rounds, sends: rounds, receives: rounds, streams: 1.0, parted, ..all }
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
                parted: arrived,
                ..all
            }
        }
        _ => {
            let parted = arrived - moved;
            Work { rounds: peers, writes: peers, sends: peers, receives: peers, streams: 1.0, parted, ..all }
        }
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
        // Half of the vector through each tree: a rank has two children in one, and is a leaf of the other.
        "double_tree" => {
            let (hops, half) = (depth(size), bytes / 2.0);
            Work {
                rounds: hops,
                writes: hops,
                sends: 2.0 * hops,
                receives: hops,
                message: half,
                staged: half,
                sent: 2.0 * half,
                moved: bytes + (hops - 1.0) * slice(half),
                streams: 2.0,
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
            moved: bytes + (peers - 1.0) * slice(bytes),
            ..once
        },
    }
}

/// See [`Work::idle`]: for so many messages of all ranks, where the busiest one takes as long as to stage
/// `busiest` of them. To fold or store a message takes about twice as long as to stage it.
fn idle(size: u32, messages: f64, busiest: f64) -> f64 {
    1.0 - 3.0 * messages / (f64::from(size) * busiest)
}

/// To the root. It folds slices while those below it stage the next ones.
fn reduce(algorithm: &str, size: u32, bytes: f64) -> Work {
    let peers = f64::from(size - 1);
    let once = Work { message: bytes, staged: bytes, sent: bytes, streams: 1.0, ..Work::default() };
    match algorithm {
        "one_shot" => Work {
            rounds: 1.0,
            writes: 1.0,
            sends: 1.0,
            receives: peers,
            staged: bytes.min(SLICE_SMALL as f64),
            folded: peers * bytes,
            idle: idle(size, peers, 2.0 * peers),
            streams: peers,
            ..once
        },
        // A tree of pairs: the root folds what as many children send as there are hops.
        "binomial" => {
            let hops = depth(size);
            Work {
                rounds: hops,
                writes: hops,
                sends: hops,
                receives: hops,
                folded: hops * bytes + (hops - 1.0) * slice(bytes),
                idle: idle(size, peers, 2.0 * hops + 1.0),
                streams: hops,
                ..once
            }
        }
        // Half of the vector through each tree: a rank has two children in one, and is a leaf of the other.
        "double_tree" => {
            let (hops, half) = (depth(size), bytes / 2.0);
            Work {
                rounds: hops,
                writes: hops,
                sends: hops,
                receives: 2.0 * hops,
                message: half,
                folded: 2.0 * half + (hops - 1.0) * slice(half),
                streams: 2.0,
                ..once
            }
        }
        // A chain: slices go through it like through a pipe.
        _ => Work {
            rounds: peers,
            writes: peers,
            sends: peers,
            receives: peers,
            folded: bytes + (peers - 1.0) * slice(bytes),
            ..once
        },
    }
}

/// Gather and scatter: every rank's block of `block` bytes to the root, or from it.
fn rooted(algorithm: &str, job: &Job, block: f64) -> Work {
    let peers = f64::from(job.size - 1);
    let all = peers * block;
    let direct = Work { rounds: 1.0, message: block, streams: 1.0, ..Work::default() };
    match (algorithm, job.collective) {
        // The root stores one block while the others stage theirs.
        ("one_shot", Collective::Gather) => Work {
            writes: 1.0,
            sends: 1.0,
            receives: peers,
            staged: block.min(SLICE_SMALL as f64),
            sent: block,
            moved: all,
            idle: idle(job.size, peers, 2.0 * peers),
            streams: peers,
            ..direct
        },
        ("one_shot", _) => Work {
            writes: peers,
            sends: peers,
            receives: 1.0,
            staged: all,
            sent: all,
            moved: block,
            idle: idle(job.size, peers, peers + 2.0),
            ..direct
        },
        // A tree of pairs: nobody passes blocks on before it has all of them, and all but one take the longest way.
        _ => {
            let hops = depth(job.size);
            // Those of the farthest child, or of the one before it where the farthest has not all of its ranks.
            let half = job.size.next_power_of_two() / 2;
            let most = (half / 2).max(job.size - half);
            Work {
                rounds: hops,
                writes: hops,
                sends: hops,
                receives: hops,
                message: f64::from(most) * block,
                staged: all,
                sent: all,
                moved: all,
                idle: idle(job.size, bits(job.size), 3.0 * peers),
                streams: 1.0,
                ..Work::default()
            }
        }
    }
}
