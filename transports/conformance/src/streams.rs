//! Checks of sending and receiving: bytes arrive once, in order, and nothing blocks.

use crate::Harness;
use crate::play::{Flow, Patience, Script, begin_all, call, end_all, ranks, recv_all, send_all, until};
use crate::seeded::{Seeded, stream};
use sohu_coll_core::Rank;
use sohu_coll_core::link::{Links, Window};
use sohu_coll_mem::{View, ViewMut};

/// How often in a row a link has to refuse before a check believes that it is full: links may refuse
/// at times without being full.
const REFUSALS: u32 = 2_000;

/// No link buffers this much: the check of a full link ends here.
const BUFFERED_MAX: usize = 1 << 30;

/// Links know their rank, size and numbers.
///
/// # Panics
/// When the contract is broken.
pub fn links_say_who_they_are<H: Harness>() {
    for size in 1..=4 {
        let links = H::links(size);
        assert_eq!(links.len(), size as usize);
        for (rank, link) in links.iter().enumerate() {
            assert_eq!(link.rank().index(), rank);
            assert_eq!(link.size(), size);
            assert!(!link.transport().is_empty());
            for peer in (0..size).map(Rank).filter(|peer| peer.index() != rank) {
                let caps = link.caps(peer);
                assert!(
                    caps.latency_ns > 0.0 && caps.bytes_per_ns > 0.0 && caps.window_bytes > 0,
                    "{caps:?}"
                );
            }
        }
    }
}

/// Every rank sends to every other at once, in random pieces, over calls of random sizes.
///
/// # Panics
/// When the contract is broken.
pub fn bytes_arrive_once_and_in_order<H: Harness>() {
    for (size, seed) in [(2, 1), (3, 2), (4, 3), (2, 4), (3, 5)] {
        let flows = |call: u32| {
            let mut random = Seeded::new(seed * 1000 + u64::from(call));
            let mut flows = Vec::new();
            for from in 0..size {
                for to in (0..size).filter(|to| *to != from) {
                    let bytes = [0, 1, 7, 24, 63, 64, 65, 4095, 4096, 4097, 70_001][random.below(11)];
                    flows.push(Flow::new(from, &[to], bytes));
                }
            }
            flows
        };
        Script { seed, calls: 40, flows: &flows }.play(&mut H::links(size));
    }
}

/// Messages of many windows, both ways at once.
///
/// # Panics
/// When the contract is broken.
pub fn large_messages_arrive_both_ways<H: Harness>() {
    let large = H::LARGE_BYTES;
    let flows = move |call: u32| match call {
        0 => vec![Flow::new(0, &[1], large), Flow::new(1, &[0], large)],
        1 => vec![Flow::new(0, &[1], large + 1)],
        _ => vec![Flow::new(0, &[1], large / 8 + 3), Flow::new(1, &[0], large / 3 - 1)],
    };
    Script { seed: 11, calls: 3, flows: &flows }.play(&mut H::links(2));
}

/// A thread for each rank: random sizes, single and fanned-out flows, calls back to back.
///
/// # Panics
/// When the contract is broken.
pub fn bytes_arrive_across_threads<H: Harness>() {
    let flows = |call: u32| {
        let mut random = Seeded::new(u64::from(call));
        let sizes: Vec<usize> = (0..3).map(|_| random.piece(H::LARGE_BYTES / 16)).collect();
        match call % 3 {
            0 => (0..3).map(|from| Flow::new(from, &others(from, 3), sizes[from as usize])).collect(),
            1 => (0..3).map(|from| Flow::new(from, &[(from + 1) % 3], sizes[from as usize])).collect(),
            _ => vec![Flow::new(call / 3 % 3, &others(call / 3 % 3, 3), sizes[0])],
        }
    };
    Script { seed: 21, calls: 60, flows: &flows }.play_threads(&mut H::links(3));
}

fn others(rank: u32, size: u32) -> Vec<u32> {
    (0..size).filter(|other| *other != rank).collect()
}

/// A receive, a pass and a send of nothing return 0, and the stream is where it was.
///
/// # Panics
/// When the contract is broken.
pub fn recv_of_nothing_changes_nothing<H: Harness>() {
    let mut links = H::links(2);
    begin_all(&mut links, &call(0));
    let mut bytes = [7u8; 100];
    for _ in 0..50 {
        assert_eq!(links[1].recv(Rank(0), ViewMut::from(&mut bytes[..])).expect("recv"), 0);
        let mut work = |_: Window<'_>| panic!("work was called with nothing to do");
        assert_eq!(links[1].pass(&[Rank(0)], &[], 64, 8, &mut work).expect("pass"), 0);
        assert_eq!(links[0].send(&[Rank(1)], View::EMPTY).expect("send"), 0);
    }
    assert_eq!(bytes, [7; 100]);
    let sent = stream(5, 333);
    send_all(&mut links, 0, &[Rank(1)], &sent);
    assert_eq!(links[1].recv(Rank(0), ViewMut::EMPTY).expect("recv"), 0);
    assert_eq!(recv_all(&mut links, 1, 0, 333), sent);
    assert_eq!(links[1].recv(Rank(0), ViewMut::EMPTY).expect("recv"), 0);
    end_all(&mut links);
}

/// Sends until the link refuses for good; returns how many bytes of the stream went.
pub(crate) fn send_until_full(links: &mut [Box<dyn Links>], to: &[Rank], bytes: &[u8]) -> usize {
    let (mut sent, mut refused) = (0, 0);
    while refused < REFUSALS {
        let at = sent % bytes.len();
        let moved = links[0].send(to, View::from(&bytes[at..])).expect("send");
        sent += moved;
        refused = if moved == 0 { refused + 1 } else { 0 };
        assert!(sent < BUFFERED_MAX, "a link took {sent} bytes that nobody received");
        links[0].poll().expect("poll");
    }
    sent
}

/// A send that nobody takes from returns 0 at last, and works again when the peer has taken.
///
/// # Panics
/// When the contract is broken.
pub fn send_refuses_when_full_and_works_again_after_a_drain<H: Harness>() {
    let mut links = H::links(2);
    begin_all(&mut links, &call(0));
    let bytes = stream(9, 1 << 16);
    let mut sent = 0;
    for _ in 0..2 {
        let start = sent % bytes.len();
        let turned: Vec<u8> = bytes[start..].iter().chain(&bytes[..start]).copied().collect();
        let batch = send_until_full(&mut links, &[Rank(1)], &turned);
        assert!(batch > 0, "an empty link took nothing");
        let taken = recv_all(&mut links, 1, 0, batch);
        let wrong = taken.iter().enumerate().position(|(at, byte)| *byte != turned[at % turned.len()]);
        assert_eq!(wrong, None, "of {batch} bytes");
        sent += batch;
    }
    end_all(&mut links);
}

/// One send to several ranks: each gets all the bytes, whatever else the ranks send meanwhile.
///
/// # Panics
/// When the contract is broken.
pub fn a_fanned_out_send_gives_all_the_same_bytes<H: Harness>() {
    let large = H::LARGE_BYTES / 8;
    for (size, seed) in [(3, 31), (4, 32)] {
        let flows = |call: u32| match call % 3 {
            0 => (0..size).map(|from| Flow::new(from, &others(from, size), 10_007)).collect(),
            1 => vec![Flow::new(0, &others(0, size), large + call as usize)],
            _ => vec![Flow::new(1, &[0, 2], 4097), Flow::new(2, &[0], 100_003), Flow::new(0, &[2, 1], 63)],
        };
        Script { seed, calls: 12, flows: &flows }.play(&mut H::links(size));
    }
}

/// A send to two ranks takes no more than the one that does not drain has room for.
///
/// # Panics
/// When the contract is broken.
pub fn a_fanned_out_send_waits_for_the_slowest<H: Harness>() {
    wait_for_the_slowest(&mut H::links(3), 1, 2);
    wait_for_the_slowest(&mut H::links(3), 2, 1);
}

/// Rank `fast` takes all the time, `slow` never: the link is full when `fast` has all and no more goes.
fn wait_for_the_slowest(links: &mut [Box<dyn Links>], fast: u32, slow: u32) {
    begin_all(links, &call(0));
    let both = ranks(&[1, 2]);
    let bytes = stream(13, 1 << 16);
    let (mut sent, mut taken, mut refused) = (0, 0, 0);
    let mut buffer = vec![0; 1 << 16];
    let mut patience = Patience::new();
    while refused < REFUSALS || taken < sent {
        let moved = links[0].send(&both, View::from(&bytes[sent % bytes.len()..])).expect("send");
        sent += moved;
        refused = if moved == 0 { refused + 1 } else { 0 };
        assert!(sent < BUFFERED_MAX, "a link took {sent} bytes that one rank never received");
        let room = ViewMut::from(&mut buffer[..(sent - taken).min(1 << 16)]);
        let got = links[fast as usize].recv(Rank(0), room).expect("recv");
        assert!((0..got).all(|i| buffer[i] == bytes[(taken + i) % bytes.len()]));
        taken += got;
        let polled = links[0].poll().expect("poll");
        patience.note(moved > 0 || got > 0 || polled, &|| format!("{taken} of {sent} bytes"));
    }
    let late = recv_all(links, slow, 0, sent);
    assert!(late.iter().enumerate().all(|(at, byte)| *byte == bytes[at % bytes.len()]));
    until("sending again", links, |links| links[0].send(&both, View::from(&[5u8][..])).expect("send") == 1);
    assert_eq!(recv_all(links, 1, 0, 1), [5]);
    assert_eq!(recv_all(links, 2, 0, 1), [5]);
    end_all(links);
}

/// Once `settled` says yes, the bytes arrive although the sender's links are not touched any more.
///
/// # Panics
/// When the contract is broken.
pub fn what_is_settled_arrives_without_its_sender<H: Harness>() {
    let mut links = H::links(2);
    begin_all(&mut links, &call(0));
    let bytes = stream(17, 1 << 16);
    let sent = send_until_full(&mut links, &[Rank(1)], &bytes);
    let (mut got, mut taken) = (vec![0; sent], 0);
    let mut patience = Patience::new();
    let mut settled = false;
    while taken < sent {
        settled = settled || links[0].settled().expect("settled");
        let room = ViewMut::from(&mut got[taken..sent.min(taken + 1000)]);
        let moved = links[1].recv(Rank(0), room).expect("recv");
        taken += moved;
        patience.note(moved > 0, &|| format!("{taken} of {sent} bytes came, settled {settled}"));
    }
    assert!(got.iter().enumerate().all(|(at, byte)| *byte == bytes[at % bytes.len()]));
    end_all(&mut links);
}
