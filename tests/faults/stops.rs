//! Ranks that are stopped, and go on or do not.

use crate::job::{Job, LONG_MS};
use crate::ranks::host;
use crate::script::Call;
use rustix::process::Signal;

/// Every wait of these jobs ends here.
const DEADLINE_MS: u64 = 1_000;

/// Stops a rank and waits until it is stopped.
fn stop(job: &mut Job, rank: usize) {
    job.group.signal(rank, Signal::STOP);
    host::wait_until_stopped(job.group.pid(rank));
}

/// Every other rank names the stopped one, having waited for it as long as it was told to.
#[track_caller]
fn others_name(job: &mut Job, victim: usize, what: &str) {
    for rank in job.others(victim) {
        let report = job.report(rank);
        let named = report.blames("Timeout", &[victim as u32]);
        job.must(named, &format!("rank {rank} names rank {victim}; {what}"), &report);
        // A rank may hear of another's deadline, which passed when that one had waited its time.
        let waited = u128::from(DEADLINE_MS) * 9 / 10;
        job.must(report.took.as_millis() >= waited, &format!("rank {rank} waited; {what}"), &report);
        job.stays_aborted(rank, &report);
    }
}

pub(crate) fn stopped() {
    for (transport, size, victim) in
        [("shm", 2, 1), ("shm", 4, 0), ("shm", 4, 2), ("tcp", 2, 0), ("tcp", 4, 3)]
    {
        let mut job = Job::joined(size, transport, DEADLINE_MS);
        stop(&mut job, victim);
        for rank in job.others(victim) {
            job.call(rank, &Call::all_reduce(1000));
        }
        others_name(&mut job, victim, transport);
        // Once it goes on it is told what came of it, at the latest when it needs something from the others: they may
        // have sent all that its first call needs.
        job.group.signal(victim, Signal::CONT);
        job.call(victim, &Call::all_reduce(1000));
        let mut report = job.report(victim);
        if report.error.is_none() {
            job.must(report.output == "right", "a call that has all it needs is right", &report);
            job.call(victim, &Call::all_reduce(1000));
            report = job.report(victim);
        }
        job.must(
            report.blames("Timeout", &[victim as u32]),
            "the stopped rank hears that it was waited for",
            &report,
        );
        job.end();
    }
}

pub(crate) fn stopped_in_call() {
    for (transport, size, victim) in [("shm", 2, 0), ("shm", 4, 1), ("tcp", 2, 1), ("tcp", 4, 0)] {
        for call in Call::few_and_many() {
            let mut job = Job::joined(size, transport, DEADLINE_MS);
            job.group.tell_all(&format!("loop {}", call.words()));
            for rank in job.ranks() {
                job.expect(rank, "calling");
            }
            for rank in job.ranks() {
                job.expect(rank, "going");
            }
            stop(&mut job, victim);
            others_name(&mut job, victim, &format!("{transport}, {call:?}"));
            job.kill(victim);
            job.end();
        }
    }
}

pub(crate) fn continued() {
    for (transport, size, victim) in [("shm", 2, 0), ("shm", 4, 2), ("tcp", 2, 1), ("tcp", 4, 0)] {
        let mut job = Job::joined(size, transport, LONG_MS);
        for count in [4, 500_000] {
            let call = Call::all_reduce(count);
            stop(&mut job, victim);
            job.group.tell(victim, &format!("call {}", call.words()));
            for rank in job.others(victim) {
                job.call(rank, &call);
            }
            for rank in job.others(victim) {
                host::wait_until_waiting(job.group.pid(rank));
            }
            job.group.signal(victim, Signal::CONT);
            job.expect(victim, "calling");
            for rank in job.ranks() {
                job.succeeds(rank);
            }
        }
        job.end();
    }
}
