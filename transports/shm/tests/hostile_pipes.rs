//! Whatever a peer writes into its pipes, its victim says that it is corrupt: no crash, and no byte from outside the
//! rings and heaps.
#![expect(unsafe_code, reason = "a hostile peer maps its segment itself")]

#[allow(dead_code, reason = "lines of links are the matter of other files")]
mod villain;

use sohu_coll_conformance::Seeded;
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::Links;
use sohu_coll_core::pipe::{BIDS_MAX, Strand};
use sohu_coll_mem::line::Line;
use sohu_coll_mem::{View, ViewMut};
use sohu_coll_shm::{Layout, ShmLinks};
use villain::{ANSWER_LINES, CHUNK, DATA, PIPE_LINES, Villain};

const PEER: Rank = Rank(1);

/// Kinds of lines: see `links/pipe/trade.rs`.
const BID: u8 = 8;
const BID_CHUNK: u8 = 9;

const STRANDS: [Strand; 2] = [Strand::Bytes, Strand::Answers];

/// Takes up to 256 bytes, and copies them as the engine would.
fn take(victim: &mut ShmLinks, strand: Strand) -> Result<usize, LinkError> {
    let mut bytes = [0u8; 256];
    victim.pipes().take(PEER, strand, 256, &mut |view| {
        view.copy_to(ViewMut::from(&mut bytes[..view.len()]));
        view.len()
    })
}

fn chunk(words: [u64; 2]) -> Line {
    Line { kind: CHUNK, words: [words[0], words[1], 0, 0, 0, 0, 0], ..Line::default() }
}

/// A victim that takes from `strand` after `attack` says that rank 1 is corrupt, and goes on saying so.
fn corrupt(what: &str, strand: Strand, attack: impl FnOnce(&mut Villain)) {
    let (mut villain, mut victim) = Villain::idle();
    attack(&mut villain);
    let told = take(&mut victim, strand);
    let Err(LinkError::Corrupt { peer: PEER, .. }) = told else { panic!("{what}: {told:?}") };
    assert_eq!(victim.pipes().is_clear(PEER).map(|_| 0), told, "{what}");
    assert_eq!(victim.poll().map(|_| 0), told, "{what}");
}

#[test]
fn lines_that_are_none_are_corrupt() {
    for strand in STRANDS {
        for kind in [0, 1, 4, 5, 6, 7, 0x7f, 0x80 | DATA] {
            corrupt("an unknown kind", strand, |villain| {
                villain.pipe(strand, Line { kind, len: 8, ..Line::default() });
            });
        }
        for len in [0, 57, 128, 255] {
            corrupt("a wrong length", strand, |villain| {
                villain.pipe(strand, Line { kind: DATA, len, ..Line::default() });
            });
        }
    }
}

#[test]
fn chunks_outside_the_ring_of_the_pipe_and_the_heap_are_corrupt() {
    let (villain, _victim) = Villain::idle();
    let (ring, heap) = (villain.layout.pipe_ring(0), villain.layout.heap());
    let bounds = [ring.start, ring.end, heap.start, heap.end].map(|at| at as u64);
    let [start, end, first, last] = bounds;
    // The villain's pipe to itself, which nobody has, lies between its pipe to the victim and the heap.
    assert!(end + (end - start) <= first);
    let bad = [
        [0, 8],
        [start - 1, 1],
        [start - 1, 2],
        [start, 0],
        [start, end - start + 1],
        [end - 1, 2],
        [end, 1],
        [first - 1, 1],
        [first - 1, 2],
        [first, last - first + 1],
        [last - 1, 2],
        [last, 1],
        [u64::MAX, 1],
        [u64::MAX - 7, start + 16],
        [start + 8, u64::MAX],
        [end - 8, u64::MAX - 7],
    ];
    for words in bad {
        corrupt(&format!("a chunk at {words:x?}"), Strand::Bytes, |villain| {
            villain.pipe(Strand::Bytes, chunk(words));
        });
    }
    for words in [[start, 1], [start, end - start], [end - 1, 1], [first, last - first], [last - 1, 1]] {
        let (mut villain, mut victim) = Villain::idle();
        villain.pipe(Strand::Bytes, chunk(words));
        let expected = words[1].min(256) as usize;
        assert_eq!(take(&mut victim, Strand::Bytes), Ok(expected), "a chunk at {words:x?}");
        // Answers are never longer than a line.
        corrupt("an answer that is a chunk", Strand::Answers, |villain| {
            villain.pipe(Strand::Answers, chunk(words));
        });
    }
}

fn bid(kind: u8, len: u8, place: [u64; 2]) -> Line {
    Line { kind, len, words: [1, 2, 3, 4, place[0], place[1], 0], ..Line::default() }
}

#[test]
fn bids_that_are_none_are_corrupt_in_both_strands() {
    for strand in STRANDS {
        for len in [25, 56, 57, 255] {
            corrupt("a bid with more bytes than there is room for", strand, |villain| {
                villain.pipe(Strand::Bytes, bid(BID, len, [0; 2]));
            });
        }
        let ring = Villain::idle().0.layout.pipe_ring(0);
        for place in [[ring.start as u64 - 1, 8], [ring.end as u64 - 1, 2], [ring.start as u64, 0]] {
            corrupt("a bid whose bytes lie nowhere", strand, |villain| {
                villain.pipe(Strand::Bytes, bid(BID_CHUNK, 0, place));
            });
        }
    }
    let told = |count| {
        let (mut villain, mut victim) = Villain::idle();
        (0..count).for_each(|_| _ = villain.pipe(Strand::Bytes, bid(BID, 8, [0; 2])));
        (0..count).map(|_| take(&mut victim, Strand::Bytes)).last().expect("there are some")
    };
    // More answers than can be out, none of which is taken.
    assert_eq!(told(BIDS_MAX), Ok(24));
    assert!(matches!(told(BIDS_MAX + 3), Err(LinkError::Corrupt { peer: PEER, .. })));
}

#[test]
fn a_bid_that_is_no_good_is_not_dealt_with_and_told_by_the_next_method() {
    let acknowledges = Line { lines_ack: 1, ..bid(BID, 8, [0; 2]) };
    for bad in [bid(BID, 25, [0; 2]), acknowledges] {
        let (mut villain, mut victim) = Villain::idle();
        villain.pipe(Strand::Bytes, bad);
        assert!(!victim.pipes().deal(PEER, 100, 5, &mut |_, _, _| panic!("it is no good")));
        assert!(matches!(take(&mut victim, Strand::Answers), Err(LinkError::Corrupt { peer: PEER, .. })));
    }
}

#[test]
fn acknowledgements_of_what_was_never_sent_are_corrupt() {
    for (lines_ack, chunks_ack) in [(1, 0), (0, 1), (0x7fff, 0), (0, 0xffff), (0xc000, 0x4000)] {
        for strand in STRANDS {
            corrupt("acknowledged in a line", strand, |villain| {
                villain.pipe(strand, Line { kind: DATA, len: 8, lines_ack, chunks_ack, ..Line::default() });
            });
        }
    }
    for (lines, chunks) in [(65u64, 0u64), (0, 65), (0x8000, 0), (0, 0xffff)] {
        let (mut villain, mut victim) = Villain::idle();
        villain.poke(villain.layout.pipe_credit(0, false), lines | chunks << 32);
        // The credit word is read when the victim runs out of lines.
        let told = (0..=PIPE_LINES).map(|_| {
            victim.pipes().put(PEER, Strand::Bytes, 8, &mut |room| View::from(&[7; 8][..]).copy_to(room))
        });
        let told = told.last().expect("lines were put");
        assert!(matches!(told, Err(LinkError::Corrupt { peer: PEER, .. })), "{lines}, {chunks}: {told:?}");
    }
}

#[test]
fn a_line_with_a_wrong_turn_is_found_by_check() {
    for turn in [2u64, 3, 0x8000, 0xffff] {
        for at in [Layout::pipe_lines, Layout::pipe_answers] {
            let (mut villain, mut victim) = Villain::idle();
            assert_eq!(victim.check(), Ok(()));
            villain.poke(at(&villain.layout, 0), turn);
            let told = victim.check();
            assert!(matches!(told, Err(LinkError::Corrupt { peer: PEER, .. })), "turn {turn}: {told:?}");
        }
    }
}

/// Any lines and credits at all: whatever the victim does, it ends in an error that names the villain, or not
/// at all.
#[test]
fn random_lines_never_crash_the_victim() {
    let mut failures = 0;
    for seed in 0..3000 {
        let mut random = Seeded::new(seed);
        let (mut villain, mut victim) = Villain::idle();
        let layout = villain.layout;
        let places =
            [0, layout.pipe_ring(0).start, layout.pipe_ring(0).end, layout.heap().start, layout.len()];
        for _ in 0..random.below(ANSWER_LINES) {
            let number = |random: &mut Seeded| match random.below(3) {
                0 => random.next(),
                _ => {
                    (places[random.below(5)] as u64).wrapping_add(random.below(200) as u64).wrapping_sub(100)
                }
            };
            let len = [8, 56, 1, 0, 57][random.below(5)];
            // Bids among them, and answers that say behind how many bids they come.
            let kind = [DATA, CHUNK, BID, BID_CHUNK, DATA | 1 << 3, 15][random.below(6)];
            let (lines_ack, chunks_ack) = (random.below(4) as u16 / 3, random.below(4) as u16 / 3);
            let place = [number(&mut random), random.below(300) as u64];
            let words = [place[0], place[1], 0, 0, place[0], place[1], 0];
            villain.pipe(STRANDS[random.below(2)], Line { kind, len, lines_ack, chunks_ack, words });
        }
        for source in [false, true] {
            if random.below(4) == 0 {
                let credit = random.below(3) as u64 | (random.below(3) as u64) << 32;
                villain.poke(layout.pipe_credit(0, source), credit);
            }
        }
        if let Err(error) = act(&mut random, &mut victim) {
            failures += 1;
            assert!(matches!(error, LinkError::Corrupt { peer: PEER, .. }), "seed {seed}: {error}");
        }
    }
    assert!(failures > 1000, "only {failures} attacks were noticed");
}

/// Uses pipes in all ways, in random order.
fn act(random: &mut Seeded, victim: &mut ShmLinks) -> Result<(), LinkError> {
    let memory = victim.alloc(4096).expect("the heap is empty");
    for _ in 0..60 {
        match random.below(8) {
            6 => drop(victim.pipes().bid(PEER, [1, 2], [3, 4], View::from(&[5; 30][..]), |from, into| {
                from.copy_to(into);
            })),
            7 => {
                let used = random.below(20);
                victim.pipes().deal(PEER, 100, 1, &mut |_, _, view| Some(used.min(view.len())));
            }
            0 => drop(victim.pipes().flush(PEER)?),
            1 => drop(victim.pipes().is_clear(PEER)?),
            2 => victim.check()?,
            3 => drop(victim.pipes().lend(PEER, View::from(&memory[..]))?),
            4 => {
                let strand = STRANDS[random.below(2)];
                let most = if strand == Strand::Answers { 56 } else { 5000 };
                let limit = 1 + random.below(most);
                let mut fill = |room: ViewMut<'_>| View::from(&vec![1; room.len()][..]).copy_to(room);
                victim.pipes().put(PEER, strand, limit, &mut fill)?;
            }
            _ => drop(take(victim, STRANDS[random.below(2)])?),
        }
    }
    Ok(())
}
