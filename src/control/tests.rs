//! Ranks over pairs of sockets in one process: deaths, aborts, leaving, probes, and peers that lie.

use super::*;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

/// Long enough never to pass in a test that expects an answer.
const LONG: Duration = Duration::from_secs(60);

const IN_CALL: Status = Status { sequence: 5, in_call: true, waiting_on: None };

/// A socket for each rank to each other one.
fn sockets(size: u32) -> Vec<Vec<Option<UnixStream>>> {
    let mut rows: Vec<Vec<Option<UnixStream>>> = Vec::new();
    for _ in 0..size {
        let mut newest = Vec::new();
        for row in &mut rows {
            let (one, other) = UnixStream::pair().unwrap();
            one.set_nonblocking(true).unwrap();
            other.set_nonblocking(true).unwrap();
            row.push(Some(one));
            newest.push(Some(other));
        }
        newest.push(None);
        rows.push(newest);
    }
    rows
}

fn control(rank: u32, sockets: Vec<Option<UnixStream>>) -> Control {
    let size = sockets.len() as u32;
    let pid = Some(std::process::id());
    let sockets = (0..).zip(sockets).map(|(peer, s)| s.map(|s| PeerSocket::new(Rank(peer), s.into(), pid)));
    let roster = vec![HostFacts::default(); size as usize];
    Control::new(Place { rank, size }, roster, sockets.collect()).unwrap().started()
}

fn job(size: u32) -> Vec<Control> {
    (0..).zip(sockets(size)).map(|(rank, sockets)| control(rank, sockets)).collect()
}

/// Rank 0 as it should be, and its peers' ends as bare sockets for the test to write on.
fn against(size: u32) -> (Control, Vec<UnixStream>) {
    let mut rows = sockets(size).into_iter();
    let own = control(0, rows.next().unwrap());
    let ends = rows.map(|mut row| row[0].take().unwrap()).collect();
    (own, ends)
}

fn lost(peer: u32) -> Error {
    Error::PeerLost { peer: Rank(peer), how: "died", during: "call 5".into() }
}

#[test]
fn a_quiet_job_is_whole() {
    let mut ranks = job(3);
    for _ in 0..3 {
        for rank in &mut ranks {
            assert_eq!(rank.poll(&IN_CALL), Ok(()));
        }
    }
}

#[test]
fn a_control_plane_can_be_given_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Control>();
}

#[test]
fn a_peer_that_died_is_named_on_every_other_and_stays_named() {
    let mut ranks = job(4);
    drop(ranks.remove(2));
    for rank in &mut ranks {
        assert_eq!(rank.poll(&IN_CALL), Err(lost(2)));
        assert_eq!(rank.poll(&Status::default()), Err(lost(2)));
    }
}

#[test]
fn a_told_cause_is_preferred_to_what_is_seen() {
    let mut ranks = job(4);
    // Rank 3 died; rank 1 saw it, said so, and ended, all before rank 0 and rank 2 looked.
    drop(ranks.remove(3));
    let mut first = ranks.remove(1);
    let seen = first.poll(&IN_CALL).unwrap_err();
    first.abort(&seen);
    drop(first);
    for rank in &mut ranks {
        let Err(Error::Aborted { cause }) = rank.poll(&IN_CALL) else { panic!("not aborted") };
        assert_eq!(*cause, lost(3));
    }
}

#[test]
fn an_abort_is_preferred_to_the_death_of_a_lower_rank() {
    let mut ranks = job(3);
    let cause = Error::Refused("rank 2 ran out of something".into());
    ranks[2].abort(&cause);
    drop(ranks.remove(2));
    drop(ranks.remove(1));
    assert_eq!(ranks[0].poll(&IN_CALL).unwrap_err().root_cause(), &cause);
}

#[test]
fn who_is_blamed_and_told_a_cause_knows_best() {
    let mut ranks = job(4);
    let cause = Error::Corrupt { peer: Rank(0), what: "wrote nonsense".into() };
    ranks[3].abort(&cause);
    ranks[1].abort(&lost(3));
    ranks[2].abort(&lost(1));
    assert_eq!(ranks[0].poll(&IN_CALL).unwrap_err().root_cause(), &cause);
}

#[test]
fn ranks_that_blame_each_other_end_the_search() {
    let mut ranks = job(3);
    ranks[1].abort(&lost(2));
    ranks[2].abort(&lost(1));
    let error = ranks[0].poll(&IN_CALL).unwrap_err();
    assert!(matches!(error.root_cause(), Error::PeerLost { .. }), "{error}");
}

#[test]
fn the_first_cause_of_a_peer_counts() {
    let mut ranks = job(2);
    ranks[1].abort(&Error::Refused("first".into()));
    ranks[1].abort(&Error::Refused("second".into()));
    assert_eq!(ranks[0].poll(&IN_CALL).unwrap_err().root_cause(), &Error::Refused("first".into()));
}

#[test]
fn a_peer_that_left_after_this_call_is_no_news() {
    for (sequence, calls) in [(5, 6), (5, 7), (u32::MAX, 0)] {
        let mut ranks = job(2);
        ranks[1].bye(calls);
        drop(ranks.remove(1));
        let status = Status { sequence, ..IN_CALL };
        assert_eq!(ranks[0].poll(&status), Ok(()), "left after {calls} calls, in call {sequence}");
    }
}

#[test]
fn a_peer_that_left_before_this_call_is_named() {
    for (sequence, calls) in [(5, 5), (5, 0), (0, u32::MAX)] {
        let mut ranks = job(2);
        ranks[1].bye(calls);
        drop(ranks.remove(1));
        let status = Status { sequence, ..IN_CALL };
        let Err(Error::PeerLost { peer, how, .. }) = ranks[0].poll(&status) else { panic!("not lost") };
        assert_eq!((peer, how), (Rank(1), "left the communicator"));
    }
}

#[test]
fn a_peer_that_left_is_no_failure_until_it_is_needed() {
    let mut ranks = job(2);
    ranks[1].bye(5);
    drop(ranks.remove(1));
    assert_eq!(ranks[0].poll(&Status { in_call: false, ..IN_CALL }), Ok(()));
    assert_eq!(ranks[0].poll(&Status { sequence: 4, ..IN_CALL }), Ok(()));
    assert!(ranks[0].poll(&IN_CALL).is_err());
}

/// Polls each rank on a thread of its own until the test is over.
fn attended<T>(ranks: Vec<(Control, Status)>, test: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let mut ends = Vec::new();
        for (mut rank, status) in ranks {
            let (end, over) = mpsc::channel::<()>();
            ends.push(end);
            scope.spawn(move || {
                while over.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    let _ = rank.poll(&status);
                    thread::yield_now();
                }
            });
        }
        test()
    })
}

#[test]
fn a_probe_hears_what_every_peer_is_doing() {
    let mut ranks = job(3);
    let (third, second) = (ranks.pop().unwrap(), ranks.pop().unwrap());
    let doing = |sequence| Status { sequence, in_call: true, waiting_on: Some(Rank(0)) };
    let answers = attended(vec![(second, doing(8)), (third, doing(9))], || ranks[0].probe(LONG, &IN_CALL));
    assert_eq!(answers, [(Rank(1), Some(doing(8))), (Rank(2), Some(doing(9)))]);
}

#[test]
fn a_probe_finds_the_silent_one() {
    let mut ranks = job(3);
    let (silent, second) = (ranks.pop().unwrap(), ranks.pop().unwrap());
    let wait = Duration::from_millis(300);
    let answers = attended(vec![(second, IN_CALL)], || ranks[0].probe(wait, &IN_CALL));
    assert_eq!(answers, [(Rank(1), Some(IN_CALL)), (Rank(2), None)]);
    drop(silent);
}

#[test]
fn ranks_that_probe_each_other_answer_each_other() {
    let ranks = job(4);
    thread::scope(|scope| {
        let probes: Vec<_> = ranks
            .into_iter()
            .map(|mut rank| scope.spawn(move || (rank.probe(LONG, &IN_CALL), rank)))
            .collect();
        // Nobody ends before all have answered, or it would not be there to answer.
        let done: Vec<_> = probes.into_iter().map(|probe| probe.join().unwrap()).collect();
        assert!(done.iter().all(|(answers, _)| answers.len() == 3));
    });
}

#[test]
fn a_probe_does_not_wait_for_the_dead_and_leaves_their_death_to_the_poll() {
    let mut ranks = job(2);
    drop(ranks.pop());
    assert_eq!(ranks[0].probe(LONG, &IN_CALL), [(Rank(1), None)]);
    assert_eq!(ranks[0].poll(&IN_CALL), Err(lost(1)));
}

#[test]
fn an_answer_to_an_old_probe_is_none() {
    let (mut rank, mut peers) = against(2);
    let stale = encode(&PeerMessage::Answer { nonce: 0, status: IN_CALL });
    peers[0].write_all(&stale).unwrap();
    assert_eq!(rank.probe(Duration::ZERO, &IN_CALL), [(Rank(1), None)]);
    assert_eq!(rank.poll(&IN_CALL), Ok(()));
}

#[test]
fn peers_that_break_the_protocol_are_named() {
    let beyond = Cause::PeerLost { peer: Rank(2), how: How::Died, during: String::new() };
    let waits = Status { waiting_on: Some(Rank(u32::MAX)), ..IN_CALL };
    for nonsense in [
        vec![0xff; 100],
        vec![0; 4],
        vec![2, 0, 0, 0, 99, 99],
        encode(&PeerMessage::Abort(beyond)),
        encode(&PeerMessage::Answer { nonce: 1, status: waits }),
        encode(&PeerMessage::Blob { round: 1, file: false, bytes: vec![] }),
    ] {
        let (mut rank, mut peers) = against(2);
        peers[0].write_all(&nonsense).unwrap();
        let error = rank.poll(&IN_CALL).unwrap_err();
        assert!(matches!(error, Error::Corrupt { peer: Rank(1), .. }), "{error}");
    }
}

#[test]
fn frames_that_come_byte_by_byte_are_put_together() {
    let (mut rank, mut peers) = against(2);
    let frame = encode(&PeerMessage::Abort(Cause::Refused("slowly".into())));
    for (at, byte) in frame.iter().enumerate() {
        assert_eq!(rank.poll(&IN_CALL), Ok(()), "after {at} bytes");
        peers[0].write_all(&[*byte]).unwrap();
    }
    assert_eq!(rank.poll(&IN_CALL).unwrap_err().root_cause(), &Error::Refused("slowly".into()));
}

#[test]
fn a_peer_that_dies_in_the_middle_of_a_frame_died() {
    let (mut rank, mut peers) = against(2);
    peers[0].write_all(&encode(&PeerMessage::Bye { calls: 9 })[..3]).unwrap();
    peers.clear();
    assert_eq!(rank.poll(&IN_CALL), Err(lost(1)));
}

#[test]
fn a_peer_that_never_stops_does_not_hold_up_a_poll() {
    let (mut rank, mut peers) = against(2);
    let probe = encode(&PeerMessage::Probe { nonce: 7 });
    peers[0].write_all(&probe.repeat(3 * MESSAGES_MAX)).unwrap();
    peers[0].write_all(&encode(&PeerMessage::Abort(Cause::Refused("at last".into())))).unwrap();
    assert_eq!(rank.poll(&IN_CALL), Ok(()));
    let error = (0..4).find_map(|_| rank.poll(&IN_CALL).err()).unwrap();
    assert_eq!(error.root_cause(), &Error::Refused("at last".into()));
}

#[test]
fn a_peer_that_does_not_read_does_not_block_an_abort() {
    let (mut rank, peers) = against(2);
    for _ in 0..10_000 {
        rank.abort(&Error::Refused("x".repeat(500)));
    }
    drop(peers);
}

#[test]
fn more_peers_than_one_call_reports_are_all_heard() {
    let (mut rank, mut peers) = against(2 * EVENTS_MAX as u32 + 3);
    let last = peers.len() - 1;
    peers[last].write_all(&encode(&PeerMessage::Abort(Cause::Refused("the last".into())))).unwrap();
    peers.clear();
    assert_eq!(rank.poll(&IN_CALL).unwrap_err().root_cause(), &Error::Refused("the last".into()));
}

#[test]
fn the_kernel_says_what_a_peers_process_does() {
    let (rank, _peers) = against(2);
    assert!(rank.process_state(Rank(1)).is_some());
    assert_eq!(rank.process_state(Rank(0)), None);
    assert_eq!(rank.process_state(Rank(9)), None);
}
