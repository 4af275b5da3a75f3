//! A job of ranks that follow a script, and what must be true of it when it is over.

use crate::ranks::report::Report;
use crate::ranks::{Group, Line, Post, host};
use crate::script::Call;
use rustix::process::Signal;
use std::collections::BTreeSet;

/// A timeout that no test waits for.
pub(crate) const LONG_MS: u64 = 45_000;

/// The processes of a job, with what the kernel knew of them.
pub(crate) struct Job {
    pub(crate) group: Group,
    sockets: BTreeSet<String>,
}

impl Job {
    /// Starts `size` processes that have not joined yet.
    pub(crate) fn start(size: u32) -> Self {
        Self { group: Group::start("script", size), sockets: BTreeSet::new() }
    }

    /// Starts a job whose ranks have all joined.
    #[track_caller]
    pub(crate) fn joined(size: u32, transport: &str, timeout_ms: u64) -> Self {
        let mut job = Self::start(size);
        for post in Post::all(size, transport, timeout_ms, "-") {
            job.join(post.rank as usize, &post);
        }
        for rank in job.ranks() {
            let report = job.report(rank);
            if report.error.is_some() {
                job.group.fail(&format!("rank {rank} did not join: {}", report.text));
            }
        }
        job.note_sockets();
        job
    }

    /// Tells one process to join.
    pub(crate) fn join(&mut self, process: usize, post: &Post) {
        self.group.tell(process, &format!("join {}", post.line()));
    }

    /// Remembers the sockets that the processes have open now.
    pub(crate) fn note_sockets(&mut self) {
        for rank in self.ranks() {
            self.sockets.extend(host::sockets(self.group.pid(rank)));
        }
    }

    /// All ranks, or processes.
    pub(crate) fn ranks(&self) -> std::ops::Range<usize> {
        0..self.group.len()
    }

    /// All ranks but one.
    pub(crate) fn others(&self, rank: usize) -> Vec<usize> {
        self.ranks().filter(|other| *other != rank).collect()
    }

    /// Tells one rank to make a call, and waits until it is about to.
    #[track_caller]
    pub(crate) fn call(&mut self, rank: usize, call: &Call) {
        self.group.tell(rank, &format!("call {}", call.words()));
        self.expect(rank, "calling");
    }

    /// The next line of one rank, which must be this.
    #[track_caller]
    pub(crate) fn expect(&mut self, rank: usize, text: &str) -> Line {
        let line = self.group.hear(rank);
        if line.text != text {
            self.group.fail(&format!("rank {rank} said {:?}, not {text:?}", line.text));
        }
        line
    }

    /// The next report of one rank.
    #[track_caller]
    pub(crate) fn report(&mut self, rank: usize) -> Report {
        loop {
            let line = self.group.hear(rank);
            match Report::read(&line) {
                Some(report) => return report,
                None if line.text == "returned" => {}
                None => self.group.fail(&format!("rank {rank} reports nothing, but says {:?}", line.text)),
            }
        }
    }

    /// Every rank makes the call, which must end well.
    #[track_caller]
    pub(crate) fn all_succeed(&mut self, call: &Call) {
        for rank in self.ranks() {
            self.call(rank, call);
        }
        for rank in self.ranks() {
            self.succeeds(rank);
        }
    }

    /// One rank's report must be of a call that ended well.
    #[track_caller]
    pub(crate) fn succeeds(&mut self, rank: usize) {
        let report = self.report(rank);
        if report.error.is_some() || report.output != "right" {
            self.group.fail(&format!("rank {rank} should have succeeded: {report:?}"));
        }
    }

    /// Fails the test unless `holds`.
    #[track_caller]
    pub(crate) fn must(&mut self, holds: bool, claim: &str, report: &Report) {
        if !holds {
            self.group.fail(&format!("not so: {claim}\n{report:?}"));
        }
    }

    /// A call after the failure must say that the communicator is aborted, and repeat the cause.
    #[track_caller]
    pub(crate) fn stays_aborted(&mut self, rank: usize, cause: &Report) {
        self.call(rank, &Call::all_reduce(5));
        let report = self.report(rank);
        let repeated = report.cause == cause.cause && report.culprits == cause.culprits;
        self.must(repeated, &format!("rank {rank} repeats {cause:?}"), &report);
        self.must(report.error.as_deref() == Some("Aborted"), "a later call is Aborted", &report);
        self.must(report.output == "untouched", "a later call leaves its output alone", &report);
    }

    /// Ends one rank at once.
    pub(crate) fn kill(&mut self, rank: usize) {
        self.group.signal(rank, Signal::KILL);
    }

    /// Ends all ranks; nothing of the job may be left.
    #[track_caller]
    pub(crate) fn end(self) {
        self.group.end();
        let left = host::unix_sockets(&self.sockets);
        assert!(left.is_empty(), "sockets of the job are left: {left:?}");
        let named = host::named_memory();
        assert!(named.is_empty(), "named memory is left: {named:?}");
    }
}
