//! Ranks that are killed. The bound of a second from the kill to the report of every survivor is a promise
//! of the library, and the one time that is measured here.

use crate::job::{Job, LONG_MS};
use crate::ranks::{TRANSPORTS, host};
use crate::script::Call;
use std::time::{Duration, Instant};

/// Within this every survivor knows.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// Jobs to kill a rank of: transport, ranks, victim.
fn jobs() -> impl Iterator<Item = (&'static str, u32, usize)> {
    let shapes = [(2, 0), (2, 1), (4, 0), (4, 2)];
    TRANSPORTS.into_iter().flat_map(move |transport| shapes.map(|(size, victim)| (transport, size, victim)))
}

/// Every survivor returns within a second of the kill and names the victim, in this call and for ever.
#[track_caller]
fn survivors_name(job: &mut Job, victim: usize, killed: Instant, what: &str) {
    for rank in job.others(victim) {
        let returned = job.expect(rank, "returned");
        let report = job.report(rank);
        let named = report.blames("PeerLost", &[victim as u32]);
        job.must(named, &format!("rank {rank} names rank {victim}; {what}"), &report);
        let after = returned.at.saturating_duration_since(killed);
        job.must(
            after < KNOWN_WITHIN,
            &format!("rank {rank} knows at once, not after {after:?}; {what}"),
            &report,
        );
        job.stays_aborted(rank, &report);
    }
}

pub(crate) fn before() {
    for (transport, size, victim) in jobs() {
        let mut job = Job::joined(size, transport, LONG_MS);
        let killed = Instant::now();
        job.kill(victim);
        for rank in job.others(victim) {
            job.call(rank, &Call::all_reduce(1000));
        }
        survivors_name(&mut job, victim, killed, transport);
        job.end();
    }
}

pub(crate) fn awaited() {
    for (transport, size, victim) in jobs() {
        let mut job = Job::joined(size, transport, LONG_MS);
        for rank in job.others(victim) {
            job.call(rank, &Call::all_reduce(1000));
        }
        for rank in job.others(victim) {
            host::wait_until_waiting(job.group.pid(rank));
        }
        let killed = Instant::now();
        job.kill(victim);
        survivors_name(&mut job, victim, killed, transport);
        job.end();
    }
}

pub(crate) fn during() {
    for (transport, size, victim) in jobs() {
        // So large that the kill finds the rank in the middle of one, and so small that it is in many.
        for call in Call::few_and_many() {
            let mut job = Job::joined(size, transport, LONG_MS);
            job.group.tell_all(&format!("loop {}", call.words()));
            for rank in job.ranks() {
                job.expect(rank, "calling");
            }
            for rank in job.ranks() {
                job.expect(rank, "going");
            }
            let killed = Instant::now();
            job.kill(victim);
            survivors_name(&mut job, victim, killed, &format!("{transport}, {call:?}"));
            job.end();
        }
    }
}

pub(crate) fn between() {
    for (transport, size, victim) in jobs() {
        let mut job = Job::joined(size, transport, LONG_MS);
        job.all_succeed(&Call::all_reduce(1000));
        job.all_succeed(&Call::all_reduce(100_000));
        let killed = Instant::now();
        job.kill(victim);
        for rank in job.others(victim) {
            job.call(rank, &Call::all_reduce(100_000));
        }
        survivors_name(&mut job, victim, killed, transport);
        job.end();
    }
}

pub(crate) fn leaves_nothing() {
    for transport in TRANSPORTS {
        let mut job = Job::start(3);
        job.group.tell_all("count");
        let before: Vec<String> = job.group.hear_all().into_iter().map(|line| line.text).collect();
        for post in crate::ranks::Post::all(3, transport, LONG_MS, "-") {
            job.join(post.rank as usize, &post);
        }
        for rank in job.ranks() {
            let report = job.report(rank);
            job.must(report.error.is_none(), "every rank joins", &report);
        }
        job.note_sockets();
        job.all_succeed(&Call::all_reduce(100_000));
        job.kill(1);
        for rank in [0, 2] {
            job.call(rank, &Call::all_reduce(100_000));
            let report = job.report(rank);
            job.must(report.error.is_some(), "the call fails", &report);
            job.group.tell(rank, "leave");
            job.expect(rank, "left");
            job.group.tell(rank, "count");
            job.expect(rank, &before[rank]);
        }
        job.end();
    }
}
