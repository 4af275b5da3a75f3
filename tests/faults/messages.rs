//! Messages that ranks do not agree on, whose peer dies, stops or leaves, or that nobody receives.

use crate::job::{Job, LONG_MS};
use crate::ranks::report::Report;
use crate::ranks::{TRANSPORTS, host};
use crate::script::Call;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Waits that are to end by themselves end here.
const DEADLINE_MS: u64 = 1_000;

/// Within this every survivor knows of a death.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// Tells a rank to make messages: `alone send:float:10:1`, or `group` and any number.
#[track_caller]
fn tell(job: &mut Job, rank: usize, messages: &str) {
    job.group.tell(rank, &format!("messages {messages}"));
    job.expect(rank, "calling");
}

/// Ranks 0 and 1 make these; both must end well.
#[track_caller]
fn good(job: &mut Job, first: &str, second: &str) {
    tell(job, 0, first);
    tell(job, 1, second);
    for rank in [0, 1] {
        job.succeeds(rank);
    }
}

pub(crate) fn disagreements() {
    // What rank 0 sends, and what rank 1 expects instead.
    let pairs = [
        ("float[10]", "float[12]"),
        ("float[12]", "float[10]"),
        // As many bytes, so that nothing but the type tells the two apart.
        ("float[10]", "int32[10]"),
        ("uint8[0]", "uint8[1]"),
        ("int64[300000]", "int64[300001]"),
        ("int64[300000]", "int64[1]"),
        ("uint8[1]", "double[300000]"),
    ];
    for (transport, form) in TRANSPORTS.into_iter().flat_map(|name| [(name, "alone"), (name, "group")]) {
        let mut job = Job::joined(3, transport, LONG_MS);
        for (sent, expected) in pairs {
            let words = |text: &str| text.replace('[', ":").replace(']', "");
            tell(&mut job, 0, &format!("{form} send:{}:1", words(sent)));
            tell(&mut job, 1, &format!("{form} recv:{}:0", words(expected)));
            for rank in [0, 1] {
                let report = job.report(rank);
                let what = format!("{sent} against {expected} on {transport}, {form}");
                let failed = report.error.as_deref() == Some("Mispaired");
                job.must(failed, &format!("rank {rank} is told; {what}"), &report);
                for named in [
                    format!("rank 0 made send {sent} to rank 1"),
                    format!("rank 1 made recv {expected} from rank 0"),
                ] {
                    job.must(report.text.contains(&named), &format!("{named:?} is told; {what}"), &report);
                }
                let whole = ["untouched", "right"].contains(&&*report.output);
                job.must(whole && (rank == 0 || report.output == "untouched"), "nothing is written", &report);
            }
            // The pipe goes on where it should, and so do calls of all ranks.
            good(&mut job, "alone send:int32:50000:1", "alone recv:int32:50000:0");
            job.all_succeed(&Call::all_reduce(1000));
        }
        job.end();
    }
}

pub(crate) fn disagreement_in_a_group() {
    for transport in TRANSPORTS {
        let mut job = Job::joined(3, transport, LONG_MS);
        tell(&mut job, 0, "group send:float:10:1 send:int32:40000:1 recv:int32:7:1 send:int32:9:2");
        tell(&mut job, 1, "group recv:float:11:0 recv:int32:40000:0 send:int32:7:0");
        tell(&mut job, 2, "group recv:int32:9:0");
        for (rank, output) in [(0, "right"), (1, "mixed")] {
            let report = job.report(rank);
            job.must(report.error.as_deref() == Some("Mispaired"), "both are told", &report);
            job.must(report.output == output, "the other messages are made", &report);
        }
        job.succeeds(2);
        job.all_succeed(&Call::all_reduce(1000));
        job.end();
    }
}

pub(crate) fn killed() {
    for transport in TRANSPORTS {
        for (victim, count) in [(0, 3_000_000), (1, 3_000_000), (0, 4), (1, 4)] {
            let mut job = Job::joined(3, transport, LONG_MS);
            job.group.tell(0, &format!("messages_loop alone send:int64:{count}:1"));
            job.group.tell(1, &format!("messages_loop alone recv:int64:{count}:0"));
            for rank in [0, 1] {
                job.expect(rank, "calling");
                job.expect(rank, "going");
            }
            // The third waits in a call of all ranks, and hears of it too.
            job.call(2, &Call::all_reduce(10));
            let killed = Instant::now();
            job.kill(victim);
            for rank in job.others(victim) {
                let returned = job.expect(rank, "returned");
                let report = job.report(rank);
                let what = format!("{transport}, {count} elements, rank {rank}");
                let named = report.blames("PeerLost", &[victim as u32]);
                job.must(named, &format!("rank {victim} is named; {what}"), &report);
                let after = returned.at.saturating_duration_since(killed);
                job.must(after < KNOWN_WITHIN, &format!("at once, not after {after:?}; {what}"), &report);
                job.stays_aborted(rank, &report);
            }
            job.end();
        }
    }
}

/// The report of a message that nobody met.
#[track_caller]
fn unmet(job: &mut Job, rank: usize, peer: u32, named: &[&str]) -> Report {
    let report = job.report(rank);
    job.must(report.blames("Timeout", &[peer]), &format!("rank {rank} names rank {peer}"), &report);
    for text in named {
        job.must(report.text.contains(text), &format!("rank {rank} is told {text:?}"), &report);
    }
    job.must(report.output == "untouched" || report.output == "right", "nothing is written", &report);
    report
}

pub(crate) fn unreceived() {
    for transport in TRANSPORTS {
        // Both wait for the other to send.
        let mut job = Job::joined(2, transport, DEADLINE_MS);
        tell(&mut job, 0, "alone recv:int32:12:1");
        tell(&mut job, 1, "alone recv:int32:13:0");
        for rank in [0, 1] {
            let report = job.report(rank);
            // Whose deadline comes first tells the other, and both say the same.
            let named = [(1, "recv int32[12] from rank 1"), (0, "recv int32[13] from rank 0")];
            let named = named
                .iter()
                .any(|(peer, during)| report.blames("Timeout", &[*peer]) && report.text.contains(during));
            job.must(named, "what is waited for is named", &report);
            job.must(report.text.contains("alive, but in another call"), "and where the peer is", &report);
        }
        job.end();

        // Who does not come is in no call, or in one of all ranks; the third does not matter.
        let mut job = Job::joined(3, transport, DEADLINE_MS);
        tell(&mut job, 0, "group send:float:40000:1 recv:float:12:1 recv:float:12:1");
        let named = ["group: send float[40000] to rank 1 and 1 more", "alive, but not in a call"];
        let report = unmet(&mut job, 0, 1, &named);
        job.stays_aborted(0, &report);
        job.end();
    }
}

pub(crate) fn stopped() {
    for transport in TRANSPORTS {
        let mut job = Job::joined(3, transport, DEADLINE_MS);
        job.group.signal(1, Signal::STOP);
        host::wait_until_stopped(job.group.pid(1));
        tell(&mut job, 0, "group recv:float:12:1 recv:float:12:2");
        tell(&mut job, 2, "alone send:float:12:0");
        job.succeeds(2);
        let report = job.report(0);
        let named = report.blames("Timeout", &[1]) && report.text.contains("stopped by a signal");
        job.must(named && report.text.contains("group: recv float[12] from rank 1"), "it is named", &report);
        job.kill(1);
        job.end();
    }
}

pub(crate) fn leaves() {
    for transport in TRANSPORTS {
        let mut job = Job::joined(3, transport, LONG_MS);
        job.all_succeed(&Call::all_reduce(10));
        // A rank that has no part in the messages may go, and so may a sender whose message was accepted.
        job.group.tell(2, "leave");
        job.expect(2, "left");
        good(&mut job, "alone send:int32:50000:1", "group recv:int32:50000:0");
        tell(&mut job, 0, "group send:int32:300000:1 recv:int32:3:1");
        tell(&mut job, 1, "group recv:int32:300000:0 send:int32:3:0");
        job.group.tell(1, "leave");
        for rank in [0, 1] {
            job.succeeds(rank);
        }
        job.expect(1, "left");
        tell(&mut job, 0, "alone recv:int32:3:1");
        let report = job.report(0);
        job.must(report.blames("PeerLost", &[1]), "a rank that has left is named", &report);
        job.must(report.text.contains("recv int32[3] from rank 1"), "and what it was to send", &report);
        job.end();
    }
}
