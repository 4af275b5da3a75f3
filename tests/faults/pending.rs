//! Calls that are pending when something goes wrong: each of them is told what.

use crate::job::{Job, LONG_MS};
use crate::ranks::{TRANSPORTS, host};
use crate::script::Call;

/// Elements of the calls that are started: some are over with the first line, some not.
const COUNTS: [usize; 5] = [10, 300_000, 1, 0, 4000];

/// Starts a call for each count.
#[track_caller]
fn pend(job: &mut Job, rank: usize, counts: &[usize]) {
    let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
    job.group.tell(rank, &format!("pend {}", counts.join(" ")));
    job.expect(rank, "calling");
}

/// All calls of a rank from number `first` on fail for this cause, the first of them by itself and the others after it.
#[track_caller]
fn fail(job: &mut Job, rank: usize, calls: usize, (cause, culprits): (&str, &[u32]), what: &str) {
    let mut last = None;
    for call in 0..calls {
        let report = job.report(rank);
        let named = report.error.is_some() && report.cause == cause && report.culprits == culprits;
        job.must(
            named,
            &format!("call {call} of rank {rank} fails for {cause} of {culprits:?}; {what}"),
            &report,
        );
        let follows = report.error.as_deref() == Some("Aborted");
        job.must(follows || call == 0, &format!("call {call} of rank {rank} follows; {what}"), &report);
        // Nothing is an output of no element.
        let untouched = report.output == "untouched" || report.output == "right";
        job.must(untouched || call == 0, &format!("call {call} was never made; {what}"), &report);
        last = Some(report);
    }
    if let Some(report) = last {
        job.stays_aborted(rank, &report);
    }
}

pub(crate) fn killed() {
    for (transport, size, victim) in
        TRANSPORTS.into_iter().flat_map(|transport| [(transport, 2, 1), (transport, 4, 0), (transport, 4, 2)])
    {
        for others_wait in [false, true] {
            let mut job = Job::joined(size, transport, LONG_MS);
            job.all_succeed(&Call::all_reduce(7));
            for rank in job.others(victim) {
                pend(&mut job, rank, &COUNTS);
            }
            if others_wait {
                for rank in job.others(victim) {
                    host::wait_until_waiting(job.group.pid(rank));
                }
            }
            job.kill(victim);
            for rank in job.others(victim) {
                fail(&mut job, rank, COUNTS.len(), ("PeerLost", &[victim as u32]), transport);
            }
            job.end();
        }
    }
}

pub(crate) fn mismatch() {
    for (transport, size) in TRANSPORTS.into_iter().flat_map(|transport| [(transport, 2), (transport, 4)]) {
        for odd in [0, size as usize - 1] {
            let mut job = Job::joined(size, transport, LONG_MS);
            for rank in job.ranks() {
                let mut counts = COUNTS;
                counts[2] += usize::from(rank == odd);
                pend(&mut job, rank, &counts);
            }
            for rank in job.ranks() {
                for call in 0..2 {
                    let report = job.report(rank);
                    let well = report.error.is_none() && report.output == "right";
                    job.must(well, &format!("call {call} of rank {rank} is before the mismatch"), &report);
                }
                let report = job.report(rank);
                let named = ["int32[1] sum", "int32[2] sum"].iter().all(|call| report.text.contains(call));
                job.must(report.cause == "Mismatch" && named, &format!("rank {rank} hears of both"), &report);
                job.must(report.output == "untouched", "nothing was written", &report);
                fail(&mut job, rank, 2, ("Mismatch", &[]), transport);
            }
            job.end();
        }
    }
}

pub(crate) fn deadline() {
    const DEADLINE_MS: u64 = 1_000;
    for (transport, size) in TRANSPORTS.into_iter().flat_map(|transport| [(transport, 2), (transport, 3)]) {
        let mut job = Job::joined(size, transport, DEADLINE_MS);
        // The last rank makes no call.
        let last = size as usize - 1;
        for rank in job.others(last) {
            pend(&mut job, rank, &COUNTS);
        }
        for rank in job.others(last) {
            fail(&mut job, rank, COUNTS.len(), ("Timeout", &[last as u32]), transport);
        }
        job.end();
    }
}

/// Starts these messages.
#[track_caller]
fn post(job: &mut Job, rank: usize, messages: &str) {
    job.group.tell(rank, &format!("pend_messages {messages}"));
    job.expect(rank, "calling");
}

pub(crate) fn messages_killed() {
    for transport in TRANSPORTS {
        for others_wait in [false, true] {
            let mut job = Job::joined(3, transport, LONG_MS);
            job.all_succeed(&Call::all_reduce(7));
            post(&mut job, 0, "recv:float:10:1 send:int32:300000:1 recv:int32:5:2");
            post(&mut job, 2, "recv:float:10:1");
            if others_wait {
                for rank in [0, 2] {
                    host::wait_until_waiting(job.group.pid(rank));
                }
            }
            job.kill(1);
            fail(&mut job, 0, 3, ("PeerLost", &[1]), transport);
            fail(&mut job, 2, 1, ("PeerLost", &[1]), transport);
            job.end();
        }
    }
}

pub(crate) fn messages_deadline() {
    const DEADLINE_MS: u64 = 1_000;
    for transport in TRANSPORTS {
        let mut job = Job::joined(3, transport, DEADLINE_MS);
        // What goes on beside it is made, and what nobody meets is named with its peer.
        post(&mut job, 0, "send:int32:50000:2 recv:float:12:1 recv:float:13:1");
        post(&mut job, 2, "recv:int32:50000:0");
        job.succeeds(2);
        job.succeeds(0);
        let report = job.report(0);
        job.must(report.blames("Timeout", &[1]), "the peer of the message is named, and it alone", &report);
        let named = report.text.contains("recv float[12] from rank 1");
        job.must(named, "the message is named", &report);
        job.must(report.output == "untouched", "nothing is written", &report);
        fail(&mut job, 0, 1, ("Timeout", &[1]), transport);
        job.end();
    }
}

pub(crate) fn messages_left() {
    for transport in TRANSPORTS {
        let mut job = Job::joined(3, transport, LONG_MS);
        job.all_succeed(&Call::all_reduce(7));
        post(&mut job, 0, "send:int32:50000:1 recv:int32:9:1");
        post(&mut job, 1, "recv:int32:50000:0");
        job.succeeds(1);
        job.group.tell(1, "leave");
        job.expect(1, "left");
        job.succeeds(0);
        let report = job.report(0);
        job.must(report.blames("PeerLost", &[1]), "a rank that has left is named", &report);
        job.must(report.text.contains("recv int32[9] from rank 1"), "and what it was to send", &report);
        job.end();
    }
}
