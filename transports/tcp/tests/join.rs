//! Who is let in when ranks join, and what happens when somebody is not who it should be.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::Links;
use sohu_coll_tcp::{Listener, TcpLinks};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const JOB: [u8; 16] = [3; 16];
const SECRET: [u8; 32] = [5; 32];

fn listeners(count: usize) -> (Vec<Listener>, Vec<SocketAddr>) {
    let listeners: Vec<Listener> = (0..count).map(|_| Listener::bind(LOOPBACK).unwrap()).collect();
    let addresses = listeners.iter().map(Listener::address).collect();
    (listeners, addresses)
}

/// A deadline that is only reached when something hangs.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Two ranks join, each with its own secret and job, while `meanwhile` runs with rank 0's address.
fn join_two(
    secrets: [[u8; 32]; 2],
    jobs: [[u8; 16]; 2],
    deadline: Instant,
    meanwhile: impl FnOnce(SocketAddr),
) -> [Result<TcpLinks, LinkError>; 2] {
    let (mut both, addresses) = listeners(2);
    let (second, first) = (both.pop().unwrap(), both.pop().unwrap());
    meanwhile(addresses[0]);
    thread::scope(|scope| {
        let addresses = &addresses;
        let zero =
            scope.spawn(move || TcpLinks::join(Rank(0), 2, first, addresses, &secrets[0], jobs[0], deadline));
        let one = TcpLinks::join(Rank(1), 2, second, addresses, &secrets[1], jobs[1], deadline);
        [zero.join().unwrap(), one]
    })
}

#[test]
fn ranks_with_one_secret_join() {
    for size in [1, 2, 5] {
        let links = TcpLinks::local(size, far()).unwrap();
        assert!(links.iter().enumerate().all(|(rank, links)| links.rank() == Rank(rank as u32)));
    }
}

#[test]
fn a_rank_with_another_secret_is_told_and_the_other_names_it() {
    let deadline = Instant::now() + Duration::from_millis(300);
    let [zero, one] = join_two([SECRET, [6; 32]], [JOB; 2], deadline, |_| {});
    let what = "it does not know the job's secret";
    assert_eq!(one.unwrap_err(), LinkError::Corrupt { peer: Rank(0), what });
    let timed_out = rustix::io::Errno::TIMEDOUT.raw_os_error();
    let late = LinkError::System { peer: Rank(1), call: "accept", errno: timed_out };
    assert_eq!(zero.unwrap_err(), late);
}

#[test]
fn a_rank_of_another_job_does_not_join() {
    let deadline = Instant::now() + Duration::from_millis(300);
    let [zero, one] = join_two([SECRET; 2], [JOB, [4; 16]], deadline, |_| {});
    let named = |error: LinkError| match error {
        LinkError::System { peer, .. } => peer,
        other => panic!("{other}"),
    };
    assert_eq!(named(zero.unwrap_err()), Rank(1));
    assert_eq!(named(one.unwrap_err()), Rank(0));
}

#[test]
fn a_stranger_with_garbage_is_dropped_and_the_ranks_join() {
    let mut stranger = None;
    let links = join_two([SECRET; 2], [JOB; 2], far(), |address| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(&[b'G'; 1000]).unwrap();
        stranger = Some(socket);
    });
    assert!(links.iter().all(Result::is_ok));
    let mut answer = Vec::new();
    // The end of the connection, or its reset: the garbage was not all read.
    let _: std::io::Result<usize> = stranger.unwrap().read_to_end(&mut answer);
    assert!(answer.is_empty(), "garbage was answered");
}

#[test]
fn more_silent_strangers_than_are_let_in_do_not_keep_the_ranks_apart() {
    let mut strangers = Vec::new();
    let links = join_two([SECRET; 2], [JOB; 2], far(), |address| {
        strangers = (0..65).map(|_| TcpStream::connect(address).unwrap()).collect();
    });
    assert!(links.iter().all(Result::is_ok));
}

#[test]
fn a_rank_that_never_comes_is_named_at_the_deadline() {
    let (mut three, addresses) = listeners(3);
    let listener = three.remove(0);
    let deadline = Instant::now() + Duration::from_millis(100);
    let error = TcpLinks::join(Rank(0), 3, listener, &addresses, &SECRET, JOB, deadline).unwrap_err();
    assert!(matches!(error, LinkError::System { peer: Rank(1), .. }), "{error}");
    assert!(Instant::now() >= deadline);
}

#[test]
fn a_rank_that_nobody_answers_for_is_named_at_the_deadline() {
    let (mut two, addresses) = listeners(2);
    let listener = two.pop().unwrap();
    drop(two);
    let deadline = Instant::now() + Duration::from_millis(100);
    let error = TcpLinks::join(Rank(1), 2, listener, &addresses, &SECRET, JOB, deadline).unwrap_err();
    let refused = rustix::io::Errno::CONNREFUSED.raw_os_error();
    assert_eq!(error, LinkError::System { peer: Rank(0), call: "connect", errno: refused });
}
