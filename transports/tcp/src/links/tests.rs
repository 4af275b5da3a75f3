//! What a peer can do to the links with the bytes it sends.

use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;

fn call() -> Signature {
    Signature {
        collective: sohu_coll_core::Collective::AllReduce,
        dtype: sohu_coll_core::DType::F32,
        op: sohu_coll_core::ReduceOp::Sum,
        algorithm: 2,
        root: Rank(0),
        count: 12,
        sequence: 5,
    }
}

/// Links of rank 0 in a call, and the raw sockets of its peer, rank 1, by purpose.
fn raw_peers() -> (TcpLinks, [TcpStream; 3]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in Purpose::ALL {
        theirs.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        ours.push(socket);
    }
    let mut links = TcpLinks::over(Rank(0), vec![ours.try_into().unwrap()]);
    links.begin(&call()).unwrap();
    (links, theirs.try_into().unwrap())
}

/// The same, with the socket of the link alone: the others are closed.
fn raw_peer() -> (TcpLinks, TcpStream) {
    let (links, [link, ..]) = raw_peers();
    (links, link)
}

fn header(words: [u64; 3]) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn good_header() -> Vec<u8> {
    let [first, second] = call().to_words();
    header([MAGIC, first, second])
}

/// What `recv` ends with, and what it left in the buffer.
fn recv_until_error(links: &mut TcpLinks) -> (LinkError, [u8; 8]) {
    let mut bytes = [7; 8];
    loop {
        match links.recv(Rank(1), ViewMut::from(&mut bytes[..])) {
            Ok(count) => assert_eq!(count, 0, "bytes were handed over"),
            Err(error) => return (error, bytes),
        }
    }
}

#[test]
fn a_header_without_the_magic_is_corrupt() {
    let (mut links, mut peer) = raw_peer();
    peer.write_all(&[b'x'; 4096]).unwrap();
    let what = "no call begins where one should";
    assert_eq!(recv_until_error(&mut links), (LinkError::Corrupt { peer: Rank(1), what }, [7; 8]));
}

#[test]
fn a_header_that_names_no_call_is_corrupt() {
    let (mut links, mut peer) = raw_peer();
    peer.write_all(&header([MAGIC, u64::MAX, u64::MAX])).unwrap();
    let what = "its header names no call";
    assert_eq!(recv_until_error(&mut links), (LinkError::Corrupt { peer: Rank(1), what }, [7; 8]));
}

#[test]
fn a_header_cut_short_is_closed() {
    for len in [0, 1, HEADER_BYTES - 1] {
        let (mut links, mut peer) = raw_peer();
        peer.write_all(&good_header()[..len]).unwrap();
        drop(peer);
        assert_eq!(recv_until_error(&mut links).0, LinkError::Closed { peer: Rank(1) });
    }
}

#[test]
fn an_element_cut_short_is_closed_and_not_shown() {
    let (mut links, mut peer) = raw_peer();
    peer.write_all(&good_header()).unwrap();
    peer.write_all(&[1, 2, 3]).unwrap();
    drop(peer);
    let mut work = |_: Window<'_>| panic!("work saw part of an element");
    let error = loop {
        match links.pass(&[Rank(1)], &[], 8, 4, &mut work) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => break error,
        }
    };
    assert_eq!(error, LinkError::Closed { peer: Rank(1) });
}

#[test]
fn a_header_that_comes_byte_by_byte_is_heard_when_it_is_whole() {
    let (mut links, mut peer) = raw_peer();
    peer.set_nodelay(true).unwrap();
    for byte in good_header() {
        assert!(!links.verify().unwrap());
        peer.write_all(&[byte]).unwrap();
    }
    while !links.verify().unwrap() {
        std::thread::yield_now();
    }
    let mut told = [0; HEADER_BYTES];
    peer.read_exact(&mut told).unwrap();
    assert_eq!(told[..], good_header());
}

#[test]
fn a_peer_that_floods_fills_its_queue_and_no_more() {
    let (mut links, mut peer) = raw_peer();
    peer.set_nonblocking(true).unwrap();
    peer.write_all(&good_header()).unwrap();
    let (mut flooded, mut refused) = (0, 0);
    while refused < 100 {
        match peer.write(&[1; 65_536]) {
            Ok(count) => (flooded, refused) = (flooded + count, 0),
            Err(_) => refused += 1,
        }
        links.poll().unwrap();
    }
    assert!(flooded > QUEUE_BYTES);
    assert!(links.incoming[0].len() <= QUEUE_BYTES);
}

#[test]
fn a_mismatch_is_told_before_the_links_fail() {
    let (mut links, mut peer) = raw_peer();
    let other = Signature { count: 13, ..call() };
    let [first, second] = other.to_words();
    peer.write_all(&header([MAGIC, first, second])).unwrap();
    let (error, _) = recv_until_error(&mut links);
    assert_eq!(error, LinkError::Mismatch { peer: Rank(1), ours: call(), theirs: other });
    let mut told = [0; HEADER_BYTES];
    peer.read_exact(&mut told).unwrap();
    assert_eq!(told[..], good_header());
}

#[test]
#[should_panic(expected = "before it was verified")]
fn leaving_a_call_before_it_was_verified_is_a_bug() {
    let (mut links, _peer) = raw_peer();
    links.begin(&call()).ok();
}

#[test]
#[should_panic(expected = "rank 0 has no link to rank 0")]
fn a_link_to_oneself_is_a_bug() {
    let (mut links, _peer) = raw_peer();
    links.send(&[Rank(0)], View::from(&[1u8][..])).ok();
}
