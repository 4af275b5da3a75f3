use super::lines::{Prefixer, relay};
use super::*;
use std::io::Write;
use std::os::fd::AsFd;

fn shell(script: &str) -> Launch {
    Launch::new("sh", ["-c", script]).output(Output::Raw)
}

#[test]
fn every_rank_has_its_number_the_size_and_the_job() {
    let script = r#"test "$SOHU_COLL_RANK" = "$LOCAL_RANK" && test "$SOHU_COLL_WORLD_SIZE" = 3 &&
        test -n "$SOHU_COLL_COMM_ID" && test "$SOHU_COLL_LAUNCHED" = 1 &&
        test "$(wc -c < /proc/self/fd/$SOHU_COLL_SECRET_FD)" = 32"#;
    assert_eq!(shell(script).ranks(3).run(), Ok(Ended::Well));
}

#[test]
fn the_first_failure_names_its_rank_and_its_code_is_passed_on() {
    let ended = shell("if [ $SOHU_COLL_RANK = 1 ]; then exit 7; fi; sleep 100")
        .ranks(3)
        .grace(Duration::from_millis(10))
        .run()
        .expect("a shell starts");
    assert_eq!(ended, Ended::Exited { rank: 1, code: 7 });
    assert_eq!(ended.code(), 7);
    assert_eq!(ended.to_string(), "rank 1 exited with 7, the first to fail");
}

#[test]
fn a_rank_killed_by_a_signal_gives_128_and_the_signal() {
    let ended = shell("kill -9 $$").run().expect("a shell starts");
    assert_eq!(ended, Ended::Killed { rank: 0, signal: 9 });
    assert_eq!(ended.code(), 137);
    assert_eq!(ended.to_string(), "rank 0 was killed by SIGKILL, the first to fail");
}

#[test]
fn a_rank_that_ignores_sigterm_ends_at_the_timeout_all_the_same() {
    let ended = shell("trap '' TERM; while :; do sleep 1; done")
        .ranks(2)
        .timeout(Duration::from_millis(100))
        .grace(Duration::from_millis(50))
        .run()
        .expect("a shell starts");
    assert_eq!(ended.code(), 4);
    assert_eq!(ended.to_string(), "timeout: ranks 0 and 1 had not ended after 100ms");
}

#[test]
fn a_rank_takes_the_processes_it_started_with_it() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    // The grandchild holds the writing end (not close-on-exec), so the pipe ends when the grandchild does.
    let keep = rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty());
    keep.expect("a descriptor to hand down");
    let ended = shell("sleep 1000 & exit 0").run();
    drop(writer);
    assert_eq!(ended, Ok(Ended::Well));
    let mut nothing = Vec::new();
    let read = std::io::Read::read_to_end(&mut reader, &mut nothing);
    assert_eq!(read.expect("a pipe that ended"), 0);
}

#[test]
fn no_rank_and_too_many_ranks_are_refused() {
    for ranks in [0, RANKS_MAX + 1] {
        let error = shell("true").ranks(ranks).run().expect_err("not a number of ranks");
        assert_eq!(error.to_string(), format!("ranks=\"{ranks}\": a job on this host has 1 to 1024 ranks"));
    }
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let error = Launch::new("no-such-program-here", [""; 0]).run().expect_err("no such program");
    assert_eq!(
        error.to_string(),
        "start of \"no-such-program-here\" as rank 0 failed: No such file or directory (os error 2); \
         is it in PATH? a program in this folder is ./name"
    );
}

#[test]
fn lines_come_out_whole_and_open_with_their_rank() {
    let mut lines = Prefixer::new(3);
    assert_eq!(lines.feed(b"he"), b"");
    assert_eq!(lines.feed(b"llo\n\nwor"), b"[3] hello\n[3] \n");
    assert_eq!(lines.feed(b"ld"), b"");
    assert_eq!(lines.finish(), b"[3] world\n");
    assert_eq!(lines.finish(), b"");
}

#[test]
fn a_line_without_end_comes_out_in_pieces() {
    for length in [(64 << 10) - 1, 64 << 10, (64 << 10) + 1, 3 * (64 << 10)] {
        let mut lines = Prefixer::new(0);
        let mut all = lines.feed(&vec![b'x'; length]);
        all.extend(lines.finish());
        assert_eq!(all.iter().filter(|&&b| b == b'x').count(), length);
        assert!(all.split(|&b| b == b'\n').all(|line| line.len() <= (64 << 10) + 4));
    }
}

#[test]
fn a_pipe_held_open_by_a_stranger_does_not_keep_the_relay() {
    let (mut pipe, mut held) = std::io::pipe().expect("a pipe");
    let (over, end) = std::io::pipe().expect("a pipe");
    held.write_all(b"last words").expect("room in the pipe");
    drop(end);
    let mut sink = Vec::new();
    relay(&mut pipe, over.as_fd(), Prefixer::new(1), &mut sink).expect("a vector takes everything");
    assert_eq!(sink, b"[1] last words\n");
}
