//! Room: what a slow reader holds up, and what it must not.

mod join;

use sohu_coll_core::Rank;
use sohu_coll_core::link::Links;
use sohu_coll_core::pipe::Strand;
use sohu_coll_mem::{View, ViewMut};
use sohu_coll_shm::ShmLinks;

/// The least staging ring there can be.
const STAGING: usize = 4096;

/// More sends in a row are refused before a link counts as full than it takes to fall back on its slot.
const REFUSALS: u32 = 1000;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 251) as u8).collect()
}

/// Sends pieces of `bytes` over and over until the link is full. Returns how many bytes went.
fn fill(link: &mut ShmLinks, to: u32, bytes: &[u8]) -> usize {
    let (mut sent, mut refused) = (0, 0);
    while refused < REFUSALS {
        let moved = link.send(&[Rank(to)], View::from(bytes)).expect("send");
        sent += moved;
        refused = if moved == 0 { refused + 1 } else { 0 };
    }
    sent
}

/// Receives until nothing comes.
fn drain(link: &mut ShmLinks, from: u32) -> usize {
    let mut bytes = vec![0; 1 << 16];
    let mut taken = 0;
    loop {
        match link.recv(Rank(from), ViewMut::from(&mut bytes[..])).expect("recv") {
            0 => break,
            moved => taken += moved,
        }
    }
    link.poll().expect("poll");
    taken
}

#[test]
fn a_reader_that_never_takes_does_not_stop_another_link() {
    let mut links = join::links(3, STAGING, 4096);
    join::begin(&mut links);
    let stuck = fill(&mut links[0], 1, &pattern(10_000));
    assert!(stuck >= STAGING, "only {stuck} bytes went to the reader that takes nothing");
    let bytes = pattern(200_000);
    let (mut sent, mut got) = (0, vec![0; bytes.len()]);
    let (mut taken, mut idle) = (0, 0);
    while taken < bytes.len() {
        let moved = links[0].send(&[Rank(2)], View::from(&bytes[sent..])).expect("send");
        sent += moved;
        let came = links[2].recv(Rank(0), ViewMut::from(&mut got[taken..sent])).expect("recv");
        taken += came;
        links[2].poll().expect("poll");
        idle = if moved + came == 0 { idle + 1 } else { 0 };
        assert!(idle < REFUSALS, "the link to rank 2 stopped at {sent} bytes sent, {taken} taken");
    }
    assert!(got == bytes, "other bytes came through the slot");
    assert_eq!(drain(&mut links[1], 0), stuck);
}

#[test]
fn a_slot_serves_several_readers_at_once() {
    let mut links = join::links(4, STAGING, 4096);
    join::begin(&mut links);
    fill(&mut links[0], 1, &pattern(10_000));
    let bytes = pattern(20_000);
    let (mut sent, mut refused) = (0, 0);
    while sent == 0 {
        sent = links[0].send(&[Rank(3), Rank(2)], View::from(&bytes[..])).expect("send");
        refused += 1;
        assert!(refused < REFUSALS, "the slots are free and were not used");
    }
    for reader in [2, 3] {
        let mut got = vec![0; sent];
        assert_eq!(links[reader].recv(Rank(0), ViewMut::from(&mut got[..])), Ok(sent));
        assert!(got == bytes[..sent], "rank {reader} got other bytes");
    }
}

#[test]
fn a_full_ring_takes_more_once_its_reader_has_taken() {
    let mut links = join::links(2, STAGING, 4096);
    join::begin(&mut links);
    for _ in 0..100 {
        let sent = fill(&mut links[0], 1, &pattern(5000));
        assert!(sent >= STAGING, "a drained link took only {sent} bytes");
        assert_eq!(drain(&mut links[1], 0), sent);
    }
}

/// Lines tell of credits, but these stand behind one whose bytes the peer can not take yet.
#[test]
fn a_sender_hears_of_room_while_it_can_not_receive() {
    for bytes in [pattern(8), pattern(4096)] {
        let mut links = join::links(2, STAGING, 4096);
        join::begin(&mut links);
        let [first, second] = &mut links[..] else { panic!("there are two ranks") };
        let (mut sent, mut taken) = (0, 0);
        let mut back = 0;
        let mut got = vec![0; 1 << 16];
        // Rank 1 answers every piece, so it is its own lines that tell of credits; rank 0 reads none.
        let mut refused = 0;
        while refused < REFUSALS {
            let moved = first.send(&[Rank(1)], View::from(&bytes[..])).expect("send");
            refused = if moved == 0 { refused + 1 } else { 0 };
            sent += moved;
            if let came @ 1.. = second.recv(Rank(0), ViewMut::from(&mut got[..])).expect("recv") {
                taken += came;
                back += second.send(&[Rank(0)], View::from(&[1u8][..])).expect("send");
                second.poll().expect("poll");
            }
            // The slow path of a rank that waits.
            if refused > 0 {
                second.check().expect("rank 0 keeps the protocol");
            }
            if sent > 1 << 20 {
                break;
            }
        }
        assert!(
            sent > 1 << 20 || bytes.len() == 8 && sent > 1 << 12,
            "stuck after {sent} bytes, {taken} taken"
        );
        assert!(back > 0);
    }
}

/// A pipe of which one piece has come back takes as many more as before: its ring is not gone round for the sake of a place that
/// is free.
#[test]
fn a_pipe_whose_first_piece_was_taken_takes_many_more() {
    const PIECE: usize = 100;
    let mut links = join::links(2, STAGING, 4096);
    let put = |link: &mut ShmLinks| {
        link.pipes().put(Rank(1), Strand::Bytes, PIECE, &mut |room| {
            View::from(&pattern(PIECE)[..room.len()]).copy_to(room);
        })
    };
    for _ in 0..2 {
        assert_eq!(put(&mut links[0]), Ok(PIECE));
    }
    let taken = links[1].pipes().take(Rank(0), Strand::Bytes, PIECE, &mut |bytes| bytes.len());
    assert_eq!(taken, Ok(PIECE));
    links[1].pipes().flush(Rank(0)).expect("flush");
    let more = (0..40).take_while(|_| put(&mut links[0]) == Ok(PIECE)).count();
    assert_eq!(more, 40, "pieces of {PIECE} bytes");
}
