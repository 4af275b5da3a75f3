//! User operations that differ between ranks, and functions that panic.

use crate::job::{Job, LONG_MS};
use crate::ranks::{Post, TRANSPORTS};

/// Two ranks fold by one operation, and the last one by another, or by none.
pub(crate) fn mismatches() {
    for transport in TRANSPORTS {
        for (count, other, says) in [
            (10, "two", "user operation \"two\""),
            (300_000, "two", "user operation \"two\""),
            (10, "sum", "int32[10] sum"),
            (300_000, "sum", "int32[300000] sum"),
        ] {
            let mut job = Job::joined(3, transport, LONG_MS);
            for (rank, name) in ["one", "one", other].into_iter().enumerate() {
                job.group.tell(rank, &format!("user {name} {count}"));
            }
            for rank in job.ranks() {
                let report = job.report(rank);
                job.must(report.cause == "Mismatch", "another operation is a mismatch", &report);
                for says in [says, &format!("int32[{count}] user operation \"one\"")] {
                    job.must(report.text.contains(says), &format!("rank {rank} hears of {says}"), &report);
                }
                job.must(report.output == "untouched", "the output is left alone", &report);
                job.stays_aborted(rank, &report);
            }
            job.end();
        }
    }
}

/// Whoever needs what the function was to make hears of it in the call, and everybody in the next.
pub(crate) fn panics() {
    for (algorithm, count) in
        [("-", 1), ("-", 5_000), ("two_shot", 70_000), ("ring", 70_000), ("recursive_doubling", 300_000)]
    {
        for transport in TRANSPORTS {
            let mut job = Job::start(3);
            for post in Post::all(3, transport, LONG_MS, algorithm) {
                job.join(post.rank as usize, &post);
            }
            for rank in job.ranks() {
                let report = job.report(rank);
                job.must(report.error.is_none(), "the rank joins", &report);
            }
            job.note_sockets();
            job.group.tell_all(&format!("panics {count}"));
            for rank in job.ranks() {
                let report = job.report(rank);
                let what = format!("{transport}, {algorithm}, {count} elements: rank {rank}");
                job.must(report.blames("Panicked", &[1]), &format!("{what} blames rank 1"), &report);
                for says in [
                    "rank 1 panicked in call",
                    "\"careful\": rank 1 has met a multiple of 3",
                    "written in part",
                ] {
                    job.must(report.text.contains(says), &format!("{what} hears {says:?}"), &report);
                }
                job.stays_aborted(rank, &report);
            }
            job.end();
        }
    }
}
