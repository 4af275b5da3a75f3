//! A small call that was made before makes no system call, where each rank has a core to itself.
//!
//! Shown by the kernel: in strict secure computing mode it kills a thread at its first system call other than `read`,
//! `write` and `exit`. Ranks enter it after they have warmed up, make their calls, and write that they did. The
//! library is right to give up the core when a peer does not answer for long, and on a machine that others use a peer
//! may be taken off its core at any time; so what is claimed is that an undisturbed row of calls gets through, and an
//! attempt that was disturbed is made again.

mod ranks;

use ranks::{Group, Line, Member, Post};
use rustix::thread::{SecureComputingMode, set_secure_computing_mode};
use sohu_coll::{Communicator, ReduceOp};
use std::process::ExitCode;

/// Calls of one attempt in strict mode.
const CALLS: usize = 50;
/// Attempts before the claim counts as wrong. One takes some hundredths of a second.
const ATTEMPTS: usize = 200;
/// What a rank writes when it got through.
const THROUGH: &str = "through";

fn main() -> ExitCode {
    ranks::main(
        &[
            ("strict_mode_kills_at_a_system_call", strict_mode_kills),
            ("repeated_8_byte_all_reduces_of_private_buffers_make_no_system_call", || {
                no_system_call("private")
            }),
            ("repeated_8_byte_all_reduces_of_registered_buffers_make_no_system_call", || {
                no_system_call("registered")
            }),
        ],
        &[("calls", play), ("yields", play_yields)],
    )
}

fn strict_mode_kills() {
    let mut group = Group::start("yields", 1);
    assert_eq!(group.hear(0).text, "before");
    assert!(group.ends(0), "a system call went through in strict mode");
}

fn play_yields(member: &mut Member) {
    member.say("before");
    set_secure_computing_mode(SecureComputingMode::Strict).expect("the kernel has strict mode");
    std::thread::yield_now();
    member.say(THROUGH);
}

fn no_system_call(home: &str) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        // The claim is about ranks with a core each; here they must give up the one core for each other.
        println!("one core: nothing is claimed");
        return;
    }
    for _ in 0..ATTEMPTS {
        if attempt(home) {
            return;
        }
    }
    panic!("no {CALLS} calls of {ATTEMPTS} attempts got through without a system call");
}

/// Whether both ranks got through.
fn attempt(home: &str) -> bool {
    let mut group = Group::start("calls", 2);
    for post in Post::all(2, "shm", 10_000, "-") {
        group.tell(post.rank as usize, &format!("{home} {}", post.line()));
    }
    group.all_say("warm");
    group.tell_all("go");
    let mut through = true;
    for rank in 0..2 {
        // A rank that is alone because its peer was killed ends as that one did, at its own first system call.
        let line: Option<Line> = group.hear_or_end(rank);
        through &= line.is_some_and(|line| line.text == THROUGH);
    }
    through
}

/// The role: warms up, and makes calls in strict mode.
fn play(member: &mut Member) {
    let line = member.hear();
    let (home, post) = line.split_once(' ').expect("a home and a post");
    let mut comm = Post::read(post).join();
    if home == "registered" {
        let (input, mut output) =
            (comm.alloc(2).expect("a small heap"), comm.alloc(2).expect("a small heap"));
        calls(member, &mut comm, &input, &mut output);
    } else {
        calls(member, &mut comm, &[1.0, 2.0], &mut [0.0; 2]);
    }
}

fn calls(member: &mut Member, comm: &mut Communicator, input: &[f32], output: &mut [f32]) {
    let mut call = || comm.all_reduce(input, output, ReduceOp::Sum);
    for _ in 0..1000 {
        call().expect("a good call");
    }
    member.say("warm");
    assert_eq!(member.hear(), "go");
    // The ranks meet here, so that they enter strict mode at about the same time.
    for _ in 0..10 {
        call().expect("a good call");
    }
    set_secure_computing_mode(SecureComputingMode::Strict).expect("the kernel has strict mode");
    let good = (0..CALLS).all(|_| call().is_ok());
    member.say(if good { THROUGH } else { "a call failed" });
    // What ends a process is a system call too: the kernel kills it now, when all has been said.
}
