//! How a bench ends before it is done: by a signal, or because a rank or the launcher is killed. No process is left.

use crate::BENCH;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

/// A bench that measures until it is stopped, and its ranks.
struct Endless {
    bench: Child,
    ranks: Vec<(Pid, OwnedFd)>,
}

impl Endless {
    /// Returns when the first row was printed: then all ranks are in their calls.
    fn start() -> Self {
        let mut command = Command::new(BENCH);
        command.args(["all_reduce", "--ranks", "3", "-N", "0", "-b", "8", "-e", "8", "-n", "2", "-w", "1"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut bench = command.spawn().expect("the bench starts");
        let mut output = BufReader::new(bench.stdout.take().expect("it was asked for"));
        let mut line = String::new();
        while line.starts_with('#') || line.trim().is_empty() {
            line.clear();
            assert!(output.read_line(&mut line).expect("text") > 0, "the bench ended before its first row");
        }
        // Somebody must go on reading, or the bench would wait for that.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let pids = children(Pid::from_child(&bench));
        let open = |pid: Pid| (pid, pidfd_open(pid, PidfdFlags::empty()).expect("the rank measures"));
        Self { bench, ranks: pids.into_iter().map(open).collect() }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.bench), signal).expect("the bench runs");
    }

    /// Waits for the launcher and gives its exit code and what was said on standard error.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut errors = String::new();
        let mut stream = self.bench.stderr.take().expect("it was asked for");
        stream.read_to_string(&mut errors).expect("text");
        (self.bench.wait().expect("it was started").code(), errors)
    }

    /// Whether every rank is gone, now or within a time that no test should take.
    fn all_gone(&self) -> bool {
        self.ranks.iter().all(|(_, rank)| {
            let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
            poll(&mut [PollFd::new(rank, PollFlags::IN)], Some(&patience)).expect("it can be waited for") == 1
        })
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.bench.kill();
        let _ = self.bench.wait();
        for (pid, rank) in &self.ranks {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            // Only what was not seen to end: another's number may be the same by now.
            if poll(&mut [PollFd::new(rank, PollFlags::IN)], Some(&now)).is_ok_and(|count| count == 0) {
                let _ = kill_process(*pid, Signal::KILL);
            }
        }
    }
}

/// The processes whose parent is `parent`.
fn children(parent: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("processes can be seen").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // The name in parentheses may hold anything; after it come the state and the parent.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if after.and_then(Pid::from_raw) == Some(parent) {
            found.push(pid);
        }
    }
    found
}

#[test]
fn ctrl_c_ends_all_ranks() {
    let mut bench = Endless::start();
    assert_eq!(bench.ranks.len(), 3);
    bench.signal(Signal::INT);
    let (code, errors) = bench.end();
    assert_eq!(code, Some(130), "{errors}");
    assert!(bench.all_gone());
}

#[test]
fn a_rank_that_is_killed_ends_the_others_and_is_named() {
    let mut bench = Endless::start();
    kill_process(bench.ranks[1].0, Signal::KILL).expect("the rank measures");
    let (code, errors) = bench.end();
    assert!(code.is_some_and(|code| code != 0), "{errors}");
    assert!(errors.contains("lost rank"), "{errors}");
    assert!(bench.all_gone());
}

#[test]
fn a_launcher_that_is_killed_takes_its_ranks_along() {
    let mut bench = Endless::start();
    bench.signal(Signal::KILL);
    bench.bench.wait().expect("it was started");
    assert!(bench.all_gone());
}
