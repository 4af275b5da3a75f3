//! Algorithms by call and by tuning file: ranks that choose differently, and choices that can not be made.

use crate::job::{Job, LONG_MS};
use crate::ranks::{Post, TRANSPORTS};
use crate::script::Call;
use std::fs;
use std::path::PathBuf;

/// A file of the test's own.
fn table(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    fs::write(&path, text).expect("the folder is there");
    path
}

/// Every rank must hear that they planned the call differently, and have its output as it was.
#[track_caller]
fn told(job: &mut Job) {
    for rank in job.ranks() {
        let report = job.report(rank);
        job.must(report.cause == "Mismatch", "another choice is a mismatch", &report);
        job.must(report.text.contains("planned it differently"), "the reason is told", &report);
        job.must(report.output == "untouched", "the output is left alone", &report);
        job.stays_aborted(rank, &report);
    }
}

pub(crate) fn mismatches() {
    for transport in TRANSPORTS {
        for count in [1, 100_000] {
            let mut job = Job::joined(3, transport, LONG_MS);
            for (rank, algorithm) in ["ring", "two_shot", "ring"].into_iter().enumerate() {
                job.group.tell(rank, &format!("using {algorithm} {count}"));
            }
            told(&mut job);
            job.end();
            let ring = table("ring.txt", "all_reduce * * * * ring");
            let two_shot = table("two_shot.txt", "all_reduce * * * * two_shot");
            let mut job = Job::start(3);
            for (post, path) in Post::all(3, transport, LONG_MS, "-").iter().zip([&ring, &ring, &two_shot]) {
                let line = format!("tuned {} {}", path.display(), post.line());
                job.group.tell(post.rank as usize, &line);
            }
            for rank in job.ranks() {
                let report = job.report(rank);
                job.must(report.error.is_none(), "the rank joins", &report);
            }
            for rank in job.ranks() {
                job.call(rank, &Call::all_reduce(count));
            }
            told(&mut job);
            job.end();
        }
    }
}

pub(crate) fn misuse() {
    let mut job = Job::joined(2, "shm", LONG_MS);
    for (algorithm, says) in [
        (
            "rings",
            "using: algorithm rings does not do this on 2 ranks; it can be one of one_shot, two_shot, ring",
        ),
        ("bruck", "all_reduce: algorithm bruck does not do this on 2 ranks; it can be one of one_shot"),
    ] {
        job.group.tell_all(&format!("using {algorithm} 10"));
        for rank in job.ranks() {
            let report = job.report(rank);
            job.must(report.error.as_deref() == Some("Misuse"), "it is misuse", &report);
            job.must(report.text.contains(says), &format!("rank {rank} hears: {says}"), &report);
            job.must(report.output == "untouched", "the output is left alone", &report);
        }
    }
    job.group.tell_all("using ring 10");
    for rank in job.ranks() {
        let report = job.report(rank);
        job.must(report.error.is_none() && report.output == "right", "the next call is made", &report);
    }
    // What was forced is over.
    job.all_succeed(&Call::all_reduce(10));
    job.end();
}

pub(crate) fn files() {
    let text = "# by count\nall_reduce 2 0..1K int32 private ring slice=8K\nall_reduce 2 1K.. * * bruck\n";
    let path = table("good.txt", text);
    let mut job = Job::start(2);
    for post in Post::all(2, "shm", LONG_MS, "-") {
        job.group.tell(post.rank as usize, &format!("tuned {} {}", path.display(), post.line()));
    }
    for rank in job.ranks() {
        let report = job.report(rank);
        job.must(report.error.is_none(), "the rank joins", &report);
    }
    job.group.tell_all("chosen 255");
    job.ranks().for_each(|rank| drop(job.expect(rank, "ring by slices of 8192")));
    job.all_succeed(&Call::all_reduce(255));
    for rank in job.ranks() {
        job.call(rank, &Call::all_reduce(256));
    }
    for rank in job.ranks() {
        let report = job.report(rank);
        let says = format!("all_reduce: algorithm bruck (line 3 of {}) does not do this", path.display());
        job.must(report.error.as_deref() == Some("Misuse"), "it is misuse", &report);
        job.must(report.text.contains(&says), &format!("rank {rank} hears: {says}"), &report);
    }
    job.all_succeed(&Call::all_reduce(7));
    job.end();
    let bad = table("bad.txt", "* * * * * ring\nall_reduce 2 1K float private ring\n* x * * * ring\n");
    for (path, says) in [
        (bad, "line 3, column 3: \"x\" is no range; write for example 2, 2..=8 or *"),
        (PathBuf::from("/nowhere/table.txt"), "can not be opened"),
    ] {
        let mut job = Job::start(1);
        let post = &Post::all(1, "shm", LONG_MS, "-")[0];
        job.group.tell(0, &format!("tuned {} {}", path.display(), post.line()));
        let report = job.report(0);
        job.must(report.error.as_deref() == Some("Misuse"), "it is misuse", &report);
        let all = report.text.contains(says) && report.text.contains("SOHU_COLL_TUNING_FILE");
        job.must(all, &format!("file and place are named: {says}"), &report);
        job.end();
    }
}
