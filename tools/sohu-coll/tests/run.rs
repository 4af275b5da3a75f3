//! `sohu-coll run` as a user meets it: output, exit codes, signals, and that no process is left.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// A shell that says who it is, and then waits until it is told to end.
const WAITER: &str = "echo $SOHU_COLL_RANK $$; exec sleep 1000";

fn launcher(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sohu-coll"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the launcher to its end.
fn run(arguments: &[&str]) -> Output {
    launcher(arguments).output().expect("the launcher starts")
}

/// Runs a shell as every rank.
fn shell(ranks: &str, script: &str) -> Output {
    run(&["run", "-n", ranks, "--", "sh", "-c", script])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines of an output in an order that does not depend on which rank was faster.
fn sorted(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = text(bytes).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A launcher whose ranks wait.
struct Waiting {
    launcher: Child,
    /// Until a test closes it.
    output: Option<BufReader<ChildStdout>>,
    /// By rank.
    ranks: Vec<OwnedFd>,
    pids: Vec<Pid>,
}

impl Waiting {
    /// Starts ranks of a shell that first writes its rank and its process id.
    fn start(ranks: usize, script: &str) -> Self {
        let count = ranks.to_string();
        let mut command = launcher(&["run", "-n", &count, "--", "sh", "-c", script]);
        let mut launcher =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the launcher starts");
        let mut output = BufReader::new(launcher.stdout.take().expect("it was asked for"));
        let mut pids = vec![None; ranks];
        while pids.iter().any(Option::is_none) {
            let mut line = String::new();
            let read = output.read_line(&mut line).expect("text");
            assert!(read > 0, "the launcher ended before every rank had said who it is");
            if let [_, rank, pid] = line.split_whitespace().collect::<Vec<_>>()[..] {
                pids[rank.parse::<usize>().expect("a rank")] = Pid::from_raw(pid.parse().expect("a process"));
            }
        }
        let pids: Vec<Pid> = pids.into_iter().map(|pid| pid.expect("every rank is there once")).collect();
        let open = |pid: &Pid| pidfd_open(*pid, PidfdFlags::empty()).expect("the rank waits");
        Self { ranks: pids.iter().map(open).collect(), launcher, output: Some(output), pids }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.launcher), signal).expect("the launcher runs");
    }

    /// Waits for the launcher and gives its exit code and what it said on standard error.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut errors = String::new();
        let mut stream = self.launcher.stderr.take().expect("it was asked for");
        stream.read_to_string(&mut errors).expect("text");
        (self.launcher.wait().expect("it was started").code(), errors)
    }

    /// Whether every rank is gone, now or within a time that no test should take.
    fn all_gone(&self) -> bool {
        self.ranks.iter().all(|rank| {
            let mut fds = [PollFd::new(rank, PollFlags::IN)];
            let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
            poll(&mut fds, Some(&patience)).expect("a process can be waited for") == 1
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
        // Only what was not seen to end, so that no number is signalled that belongs to another process by now.
        for (rank, pid) in self.ranks.iter().zip(&self.pids) {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let ended =
                poll(&mut [PollFd::new(rank, PollFlags::IN)], Some(&now)).is_ok_and(|count| count == 1);
            if !ended {
                let _ = kill_process(*pid, Signal::KILL);
            }
        }
    }
}

#[test]
fn every_line_is_opened_by_its_rank() {
    let ended = shell("3", "echo one from $SOHU_COLL_RANK of $SOHU_COLL_WORLD_SIZE; echo two >&2");
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert_eq!(sorted(&ended.stdout), ["[0] one from 0 of 3", "[1] one from 1 of 3", "[2] one from 2 of 3"]);
    assert_eq!(sorted(&ended.stderr), ["[0] two", "[1] two", "[2] two"]);
}

#[test]
fn a_line_without_an_end_is_passed_on() {
    let ended = shell("1", "printf unfinished");
    assert_eq!(text(&ended.stdout).trim_end(), "[0] unfinished");
}

#[test]
fn no_prefix_leaves_the_output_to_the_ranks() {
    let ended = run(&["run", "-n", "2", "--no-prefix", "--", "sh", "-c", "echo same"]);
    assert_eq!(text(&ended.stdout), "same\nsame\n");
}

#[test]
fn the_secret_is_in_no_argument_and_no_variable() {
    let ended =
        shell("1", "env; tr '\\0' '\\n' < /proc/$$/cmdline; wc -c < /proc/$$/fd/$SOHU_COLL_SECRET_FD");
    let told = text(&ended.stdout);
    assert!(told.contains("SOHU_COLL_SECRET_FD="), "{told}");
    assert_eq!(told.lines().last(), Some("[0] 32"), "the secret comes in a file without a name: {told}");
}

#[test]
fn variables_are_passed_on() {
    let ended = run(&[
        "run",
        "-n",
        "1",
        "--env",
        "COLOUR=green",
        "--transport",
        "tcp",
        "--",
        "sh",
        "-c",
        "echo $COLOUR $SOHU_COLL_TRANSPORT",
    ]);
    assert_eq!(text(&ended.stdout), "[0] green tcp\n");
}

#[test]
fn the_exit_code_is_that_of_the_first_rank_that_failed() {
    // The other ranks end by themselves, after the first: they wait until it is gone.
    let script =
        "test $SOHU_COLL_RANK = 1 && exit 7; trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done";
    let ended = shell("3", script);
    assert_eq!(ended.status.code(), Some(7), "{}", text(&ended.stderr));
    assert!(text(&ended.stderr).contains("rank 1 exited with 7"), "{}", text(&ended.stderr));
}

#[test]
fn a_rank_that_is_killed_ends_the_others() {
    let mut job = Waiting::start(3, WAITER);
    kill_process(job.pids[2], Signal::KILL).expect("the rank waits");
    let (code, errors) = job.end();
    assert_eq!(code, Some(128 + 9), "{errors}");
    assert!(errors.contains("rank 2 was killed by SIGKILL"), "{errors}");
    assert!(job.all_gone());
}

/// Whether this process, and what it starts, ignores the signal of this number.
fn is_ignored(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).expect("a line of it");
    u64::from_str_radix(ignored, 16).expect("a mask of bits") >> (number - 1) & 1 == 1
}

#[test]
fn signals_end_all_ranks() {
    for (signal, number) in [(Signal::INT, 2), (Signal::TERM, 15), (Signal::HUP, 1)] {
        // As `nohup` has it, for all that it starts.
        if is_ignored(number) {
            continue;
        }
        let mut job = Waiting::start(2, WAITER);
        job.signal(signal);
        let (code, errors) = job.end();
        assert_eq!(code, Some(128 + number), "{errors}");
        assert!(job.all_gone(), "a rank is left");
    }
}

#[test]
fn ranks_that_ignore_the_first_signal_end_by_the_second() {
    let mut job =
        Waiting::start(2, "trap '' INT TERM; echo $SOHU_COLL_RANK $$; while :; do sleep 0.01; done");
    job.signal(Signal::INT);
    job.signal(Signal::INT);
    let (code, errors) = job.end();
    assert_eq!(code, Some(128 + 2), "{errors}");
    assert!(job.all_gone(), "a rank is left");
}

#[test]
fn children_of_a_rank_end_with_it() {
    let script = "sleep 1000 & echo $SOHU_COLL_RANK $!; wait";
    let mut job = Waiting::start(2, script);
    job.signal(Signal::TERM);
    let (code, errors) = job.end();
    assert_eq!(code, Some(128 + 15), "{errors}");
    assert!(job.all_gone(), "a child of a rank is left");
}

#[test]
fn the_time_of_a_job_is_bounded() {
    let ended = run(&["run", "-n", "2", "--timeout", "300ms", "--", "sh", "-c", "exec sleep 1000"]);
    assert_eq!(ended.status.code(), Some(4), "{}", text(&ended.stderr));
    assert!(text(&ended.stderr).contains("timeout: ranks 0 and 1"), "{}", text(&ended.stderr));
}

#[test]
fn ranks_see_the_end_of_their_output_s_reader() {
    let mut job = Waiting::start(2, "echo $SOHU_COLL_RANK $$; while :; do echo more; done");
    job.output = None;
    let (code, errors) = job.end();
    assert_eq!(code, Some(128 + 13), "{errors}");
    assert!(job.all_gone(), "a rank is left");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let ended = run(&["run", "-n", "2", "--", "no-such-program-anywhere"]);
    assert_eq!(ended.status.code(), Some(5));
    assert!(text(&ended.stderr).contains("no-such-program-anywhere"), "{}", text(&ended.stderr));
}

#[test]
fn a_wrong_command_line_exits_with_2_and_says_what_would_be_right() {
    for (arguments, told) in [
        (&["runn", "-n", "2", "true"][..], "'run'"),
        (&["run", "-n", "0", "true"], "1 to 1024 ranks"),
        (&["run", "--rank", "2", "true"], "--ranks <RANKS>"),
        (&["run", "-n", "2", "--transport", "shn", "true"], "'shm'"),
        (&["run", "-n", "2"], "PROGRAM"),
    ] {
        let ended = run(arguments);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        assert!(text(&ended.stderr).contains(told), "{arguments:?}: {}", text(&ended.stderr));
    }
}
