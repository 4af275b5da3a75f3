//! Ranks that disagree about calls, make none, or make one that can not be made.

use crate::job::{Job, LONG_MS};
use crate::ranks::{TRANSPORTS, host};
use crate::script::Call;
use rustix::process::Signal;
use sohu_coll::{Collective, DType, ReduceOp};

/// Pairs of calls that differ in one thing each, of few or of many elements.
fn pairs(count: usize) -> Vec<(Call, Call)> {
    let call = Call::all_reduce(count);
    let broadcast = Call { collective: Collective::Broadcast, ..call.clone() };
    vec![
        (call.clone(), broadcast.clone()),
        (call.clone(), Call { count: count + 1, ..call.clone() }),
        // As many bytes, so that nothing but the type tells the two apart.
        (call.clone(), Call { dtype: DType::F32, ..call.clone() }),
        (call.clone(), Call { op: ReduceOp::Max, ..call.clone() }),
        // In place, where what is scaled must not be written either.
        (
            Call { op: ReduceOp::PreMulSum, in_place: true, ..call.clone() },
            Call { in_place: true, ..call.clone() },
        ),
        (broadcast.clone(), Call { root: 1, ..broadcast }),
        (call.clone(), Call { in_place: true, count: count * 2, ..call }),
    ]
}

/// How errors write a call.
fn written(call: &Call) -> String {
    let Call { collective, dtype, op, count, root, .. } = call;
    let op = if collective.reduces() { format!(" {op}") } else { String::new() };
    let root = if collective.rooted() { format!(" root {root}") } else { String::new() };
    format!("{collective} {dtype}[{count}]{op}{root}")
}

pub(crate) fn mismatches() {
    for (transport, size) in TRANSPORTS.into_iter().flat_map(|transport| [(transport, 2), (transport, 4)]) {
        for count in [10, 300_000] {
            for (index, (most, one)) in pairs(count).into_iter().enumerate() {
                let odd = index % size as usize;
                let mut job = Job::joined(size, transport, LONG_MS);
                // A call before, so that the mismatch is not in the first.
                job.all_succeed(&Call::all_reduce(7));
                for rank in job.ranks() {
                    job.call(rank, if rank == odd { &one } else { &most });
                }
                let what = format!("{transport}, {size} ranks: {most:?} against {one:?} of rank {odd}");
                // A rank that needs nothing of the odd one leaves a small rooted call with the right bytes, and is told in
                // its next one.
                let may_leave = transport != "tcp" && count == 10;
                let mut reports = Vec::new();
                let mut left = Vec::new();
                for rank in job.ranks() {
                    let report = job.report(rank);
                    if may_leave && report.error.is_none() {
                        let call = if rank == odd { &one } else { &most };
                        let right = call.collective.rooted() && report.output == "right";
                        job.must(right, &format!("rank {rank} leaves; {what}"), &report);
                        left.push(rank);
                    }
                    reports.push(report);
                }
                for &rank in &left {
                    job.call(rank, &Call::all_reduce(7));
                }
                for &rank in &left {
                    reports[rank] = job.report(rank);
                }
                for (rank, report) in reports.iter().enumerate() {
                    let failed = report.error.is_some() && report.cause == "Mismatch";
                    job.must(failed, &format!("rank {rank} fails for a mismatch; {what}"), report);
                    for call in [&most, &one] {
                        let named = report.text.contains(&format!("call 1 {}", written(call)));
                        job.must(named, &format!("rank {rank} hears of {}; {what}", written(call)), report);
                    }
                    let named = report.text.contains(&format!("rank {odd} made"));
                    job.must(named, &format!("rank {rank} hears of rank {odd}; {what}"), report);
                    job.must(
                        report.output == "untouched",
                        &format!("rank {rank} keeps its output; {what}"),
                        report,
                    );
                }
                for (rank, report) in reports.iter().enumerate() {
                    job.stays_aborted(rank, report);
                }
                job.end();
            }
        }
    }
}

pub(crate) fn mismatch_in_the_next() {
    // Over shared memory, where small rooted calls can be left before all ranks have come.
    let late = 2;
    for (collective, root) in
        [(Collective::Broadcast, 0), (Collective::Broadcast, 1), (Collective::Reduce, 2)]
    {
        for is_stopped in [false, true] {
            let mut job = Job::joined(3, "shm", LONG_MS);
            let first = Call { collective, root, ..Call::all_reduce(10) };
            if is_stopped {
                // It is in the call already, and finds the news when it can look again.
                job.call(late, &first);
                host::wait_until_waiting(job.group.pid(late));
                job.group.signal(late, Signal::STOP);
                host::wait_until_stopped(job.group.pid(late));
            }
            for rank in job.others(late) {
                job.call(rank, &first);
            }
            for rank in job.others(late) {
                job.succeeds(rank);
            }
            let next = [Call::all_reduce(7), Call::all_reduce(8)];
            for rank in job.others(late) {
                job.call(rank, &next[rank]);
            }
            let what =
                format!("{collective} to or from rank {root}, the late one stopped in it: {is_stopped}");
            for rank in job.others(late) {
                let report = job.report(rank);
                let failed = report.cause == "Mismatch";
                job.must(failed, &format!("rank {rank} fails for a mismatch; {what}"), &report);
            }
            if is_stopped {
                job.group.signal(late, Signal::CONT);
            } else {
                job.call(late, &first);
            }
            let report = job.report(late);
            let well = report.error.is_none() && report.output == "right";
            job.must(well, &format!("the late rank's call ends well; {what}"), &report);
            job.call(late, &next[0]);
            let report = job.report(late);
            let named = next.iter().all(|call| report.text.contains(&format!("call 1 {}", written(call))));
            job.must(report.cause == "Mismatch" && named, &format!("its next one does not; {what}"), &report);
            job.stays_aborted(late, &report);
            job.end();
        }
    }
}

pub(crate) fn misuse() {
    let mut job = Job::joined(2, "shm", LONG_MS);
    job.group.tell_all("lengths 10 11");
    for rank in job.ranks() {
        let report = job.report(rank);
        job.must(report.error.as_deref() == Some("Misuse"), "lengths that differ are misuse", &report);
        let named = report.text.contains("input has 10 elements, not 11");
        job.must(named, "both lengths are named", &report);
        job.must(report.output == "untouched", "the output is left alone", &report);
    }
    job.all_succeed(&Call::all_reduce(11));
    let broadcast = Call { collective: Collective::Broadcast, root: 2, ..Call::all_reduce(3) };
    for rank in job.ranks() {
        job.call(rank, &broadcast);
    }
    for rank in job.ranks() {
        let report = job.report(rank);
        job.must(report.error.as_deref() == Some("Misuse"), "a root that is no rank is misuse", &report);
        job.must(report.text.contains("root 2 is not a rank"), "the root is named", &report);
        job.must(report.output == "untouched", "the output is left alone", &report);
    }
    job.all_succeed(&Call { root: 1, ..broadcast });
    job.end();
}

pub(crate) fn misuse_of_one() {
    let mut job = Job::joined(2, "shm", LONG_MS);
    // Rank 1 waits in a good call while rank 0 first makes one that is no call at all.
    job.call(1, &Call::all_reduce(11));
    job.group.tell(0, "lengths 10 11");
    let report = job.report(0);
    job.must(report.error.as_deref() == Some("Misuse"), "lengths that differ are misuse", &report);
    job.call(0, &Call::all_reduce(11));
    job.succeeds(0);
    job.succeeds(1);
    job.end();
}

pub(crate) fn leaves() {
    for (transport, size) in TRANSPORTS.into_iter().flat_map(|transport| [(transport, 2), (transport, 4)]) {
        let leaver = size as usize - 1;
        let mut job = Job::joined(size, transport, LONG_MS);
        job.all_succeed(&Call::all_reduce(1000));
        for rank in job.others(leaver) {
            job.call(rank, &Call::all_reduce(1000));
        }
        job.group.tell(leaver, "leave");
        job.expect(leaver, "left");
        for rank in job.others(leaver) {
            let report = job.report(rank);
            let named = report.blames("PeerLost", &[leaver as u32]);
            job.must(named, &format!("rank {leaver} is named on {transport}"), &report);
            job.must(report.text.contains("left"), "it left, and did not die", &report);
            job.must(report.output == "untouched", "a call that lacks an input writes no output", &report);
            job.stays_aborted(rank, &report);
        }
        job.end();
    }
}

pub(crate) fn leaves_last() {
    for transport in TRANSPORTS {
        let mut job = Job::joined(4, transport, LONG_MS);
        // Each leaves as soon as it has what it wants; what the others still need from it must be there.
        for count in [1, 100_000] {
            job.all_succeed(&Call::all_reduce(count));
        }
        let last = Call { collective: Collective::Broadcast, ..Call::all_reduce(300_000) };
        for rank in job.ranks() {
            job.group.tell(rank, &format!("call {}", last.words()));
            job.group.tell(rank, "leave");
        }
        for rank in job.ranks() {
            job.expect(rank, "calling");
            job.succeeds(rank);
            job.expect(rank, "left");
        }
        job.end();
    }
}
