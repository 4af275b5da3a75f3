//! Faults before the first call.

use crate::job::{Job, LONG_MS};
use crate::ranks::report::Report;
use crate::ranks::{Post, TRANSPORTS};

/// Long enough for every process to come on a busy machine, short enough to wait for.
const SHORT_MS: u64 = 2_000;

/// Tells the processes to join with these posts, and gives their reports.
#[track_caller]
fn join(job: &mut Job, posts: &[Post]) -> Vec<Report> {
    for (process, post) in posts.iter().enumerate() {
        job.join(process, post);
    }
    job.ranks().map(|process| job.report(process)).collect()
}

pub(crate) fn missing() {
    for (size, absent) in [(2, 0), (2, 1), (4, 0), (4, 2)] {
        let mut posts = Post::all(size, "shm", SHORT_MS, "-");
        posts.remove(absent as usize);
        let mut job = Job::start(size - 1);
        let reports = join(&mut job, &posts);
        job.note_sockets();
        for report in &reports {
            job.must(report.blames("Missing", &[absent]), &format!("rank {absent} is missing"), report);
        }
        job.end();
    }
}

pub(crate) fn duplicate() {
    for twice in [0, 1] {
        // Rank 2 is late, so that the job can not be complete before the second comes.
        let mut posts = Post::all(3, "shm", LONG_MS, "-");
        posts.remove(2);
        posts.push(posts[twice].clone());
        let mut job = Job::start(3);
        let reports = join(&mut job, &posts);
        for report in &reports {
            job.must(report.error.is_some(), "every rank fails", report);
            job.must(report.cause == "Refused", "they are refused", report);
            job.must(
                report.text.contains(&format!("rank {twice}")),
                &format!("rank {twice} is named"),
                report,
            );
        }
        job.end();
    }
}

pub(crate) fn out_of_range() {
    let mut posts = Post::all(3, "shm", SHORT_MS, "-");
    posts[2].rank = 3;
    let mut job = Job::start(3);
    let reports = join(&mut job, &posts);
    job.must(reports[2].cause == "Misuse", "rank 3 is told what ranks there are", &reports[2]);
    job.must(reports[2].text.contains("0..3"), "rank 3 is told what ranks there are", &reports[2]);
    for report in &reports[..2] {
        job.must(report.blames("Missing", &[2]), "rank 2 is missing", report);
    }
    job.end();
}

pub(crate) fn two_sizes() {
    for (first, other) in [(2, 3), (3, 2)] {
        // Ranks 0 and 1 of two sizes: no job can be complete, whichever size is right.
        let mut posts = Post::all(2, "shm", LONG_MS, "-");
        posts[0].size = first;
        posts[1].size = other;
        let mut job = Job::start(2);
        let reports = join(&mut job, &posts);
        for report in &reports {
            job.must(report.error.is_some() && report.cause == "Refused", "every rank is refused", report);
            for size in [first, other] {
                job.must(report.text.contains(&size.to_string()), &format!("size {size} is named"), report);
            }
        }
        job.end();
    }
}

pub(crate) fn dies() {
    for (transport, victim) in TRANSPORTS.into_iter().flat_map(|transport| [(transport, 0), (transport, 2)]) {
        let posts = Post::all(4, transport, SHORT_MS, "-");
        let mut job = Job::start(4);
        // The last rank never comes, so that the others are at the start when one of them dies.
        for post in &posts[..3] {
            job.join(post.rank as usize, post);
        }
        // It has a socket once it looks for the others.
        while crate::ranks::host::sockets(job.group.pid(victim)).is_empty() {
            std::thread::yield_now();
        }
        job.kill(victim);
        for rank in [0, 1, 2].into_iter().filter(|rank| *rank != victim) {
            let report = job.report(rank);
            let named =
                report.text.contains(&format!("rank {victim}")) || report.culprits.contains(&(victim as u32));
            job.must(
                report.error.is_some() && named,
                &format!("rank {victim} is named to rank {rank}"),
                &report,
            );
        }
        job.end();
    }
}
