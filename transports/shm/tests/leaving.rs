//! Exchanges that a rank leaves before its peers come to them, over shared memory: it is not held up, what it sent stays
//! until it was read, and a peer that writes what it likes is found out when what it owes is compared.
#![expect(unsafe_code, reason = "a hostile peer maps its segment itself")]

#[allow(dead_code, reason = "lines of other kinds are the matter of other files")]
mod join;
#[allow(dead_code, reason = "lines of other kinds are the matter of other files")]
mod villain;

use sohu_coll_conformance::Seeded;
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{EXCHANGE_MAX, Links, Met, OWED_MAX, Work};
use sohu_coll_mem::line::Line;
use sohu_coll_mem::{View, ViewMut};
use sohu_coll_shm::ShmLinks;
use villain::{BOARD, CHUNK, DATA, FIRST, HEADER, LANDED, SINK, Villain, call};

const PEER: Rank = Rank(1);

/// The most calls ahead of a peer that has made none.
const AHEAD: u32 = OWED_MAX as u32;

/// Gives `bytes` to all others; what came of that.
fn spread(link: &mut ShmLinks, sequence: u32, bytes: &[u8]) -> Met {
    let own = link.rank();
    let to: Vec<Rank> = (0..link.size()).map(Rank).filter(|peer| *peer != own).collect();
    assert_eq!(link.offer(&call(sequence), &to, View::from(bytes), None), bytes.len(), "there is room");
    link.meet(&[], bytes.len(), 3, Work::new(&mut |views| assert!(views.is_empty())))
}

/// Takes `len` bytes of rank 0, if they have come.
fn take(link: &mut ShmLinks, sequence: u32, len: usize) -> (Met, Vec<u8>) {
    assert!(link.offer_blocks(&call(sequence), &[], &[]), "there is room");
    let mut taken = vec![0; len];
    let take = &mut |views: &[View<'_>]| views[0].copy_to(ViewMut::from(&mut taken[..]));
    let met = link.meet(&[Rank(0)], len, 3, Work::new(take));
    (met, taken)
}

#[test]
fn a_rank_that_takes_nothing_leaves_at_once_until_a_peer_owes_too_much() {
    for size in [2, 3, 5] {
        for len in [1, 40, 41, EXCHANGE_MAX] {
            let mut links = join::links(size, 1 << 16, 1 << 20);
            let said = |sequence: u32| vec![sequence as u8; len];
            for round in 0..40 {
                // Always as far ahead as may be: one call goes on each time that all others have made one.
                let first = if round == 0 { 0 } else { AHEAD + round };
                for sequence in first..=AHEAD + round {
                    let met = spread(&mut links[0], sequence, &said(sequence));
                    assert_eq!(met, if sequence < AHEAD { Met::Settled } else { Met::NotYet }, "{sequence}");
                }
                for link in &mut links[1..] {
                    assert_eq!(take(link, round, len), (Met::Settled, said(round)), "call {round}");
                }
                let met = links[0].meet(&[], len, 0, Work::new(&mut |_| {}));
                assert_eq!(met, Met::Settled, "all have made call {round}");
            }
        }
    }
}

#[test]
fn a_rank_that_waits_for_nobody_more_names_nobody() {
    let mut links = join::links(3, 1 << 16, 1 << 20);
    for sequence in 0..=AHEAD {
        assert!(links[2].offer_blocks(&call(sequence), &[], &[]));
        assert_eq!(links[2].meet(&[Rank(0)], 8, 0, Work::new(&mut |_| {})), Met::NotYet);
        let owing: Vec<Rank> = [Rank(1)].into_iter().filter(|_| sequence == AHEAD).collect();
        let awaited: Vec<Rank> = [Rank(0)].into_iter().chain(owing).collect();
        assert_eq!(links[2].unverified(), awaited, "call {sequence}");
        spread(&mut links[0], sequence, &[7; 8]);
        let met = links[2].meet(&[Rank(0)], 8, 0, Work::new(&mut |_| {}));
        assert_eq!(met, if sequence < AHEAD { Met::Settled } else { Met::NotYet }, "call {sequence}");
    }
}

/// A victim that has left its first call, in its second one: what its ordinary methods tell of what `attack` wrote.
fn told(attack: impl FnOnce(&mut Villain)) -> Result<bool, LinkError> {
    let (mut villain, mut victim) = Villain::idle();
    assert_eq!(spread(&mut victim, 0, &[1; 8]), Met::Settled);
    attack(&mut villain);
    assert_eq!(victim.offer(&call(1), &[PEER], View::from(&[1u8; 8][..]), None), 8);
    let met = victim.meet(&[PEER], 8, 3, Work::new(&mut |_| panic!("bytes came before what was owed")));
    assert_eq!(met, Met::Otherwise);
    let told = victim.verify();
    assert_eq!(victim.verify(), told, "an error stays");
    told
}

#[test]
fn what_is_owed_is_no_known_call_and_so_corrupt() {
    for words in [[0, 0], [u64::MAX, u64::MAX], [0xff, 1000]] {
        let told = told(|villain| {
            let words = [words[0], words[1], 0, 0, 0, 0, 0];
            villain.line(Line { kind: FIRST | HEADER, words, ..Line::default() });
        });
        assert!(matches!(told, Err(LinkError::Corrupt { peer: PEER, .. })), "{words:x?}: {told:?}");
    }
}

#[test]
fn bytes_in_a_call_that_has_none_for_the_rank_are_corrupt() {
    for kind in [DATA, CHUNK, BOARD, LANDED, 77] {
        let told = told(|villain| {
            villain.put(FIRST | kind, 8, &[villain.layout.staging().start as u64, 8]);
        });
        assert!(matches!(told, Err(LinkError::Corrupt { peer: PEER, .. })), "kind {kind}: {told:?}");
    }
    let told = told(|villain| {
        villain.put(FIRST | HEADER, 0, &[]).put(DATA, 8, &[1]);
    });
    assert!(matches!(told, Err(LinkError::Corrupt { peer: PEER, .. })), "after the signature: {told:?}");
}

#[test]
fn another_call_than_the_one_that_is_owed_is_a_mismatch_of_that_one() {
    for kind in [HEADER, DATA, SINK] {
        let told = told(|villain| {
            let [a, b] = call(1).to_words();
            villain.line(Line {
                kind: FIRST | kind,
                len: 8,
                words: [a, b, 0, 0, 0, 0, 0],
                ..Line::default()
            });
        });
        assert_eq!(
            told,
            Err(LinkError::Mismatch { peer: PEER, ours: call(0), theirs: call(1) }),
            "kind {kind}"
        );
    }
}

/// Memory that a peer posts in a call that was left is of no use any more, and no harm.
#[test]
fn memory_that_is_posted_in_a_call_that_was_left_is_passed_over() {
    for first in [HEADER, SINK] {
        let (mut villain, mut victim) = Villain::idle();
        let heap = villain.layout.heap().start as u64;
        assert_eq!(spread(&mut victim, 0, &[1; 8]), Met::Settled);
        villain.put(FIRST | first, 0, &[0, heap, 64]).put(SINK, 0, &[64, heap, 64]);
        let [a, b] = call(1).to_words();
        villain.line(Line { kind: FIRST | DATA, len: 8, words: [a, b, 5, 0, 0, 0, 0], ..Line::default() });
        assert_eq!(victim.offer(&call(1), &[PEER], View::from(&[1u8; 8][..]), None), 8);
        let mut seen = 0;
        let mut met = Met::NotYet;
        while met == Met::NotYet {
            met = victim.meet(&[PEER], 8, 0, Work::new(&mut |views| seen = views[0].len()));
        }
        assert_eq!((met, seen), (Met::Settled, 8));
    }
}

/// Any lines at all, in and between calls that are left: what the victim is told names the villain.
#[test]
fn random_lines_never_crash_a_victim_that_leaves_calls() {
    let (mut failures, mut left) = (0, 0);
    for seed in 0..3000 {
        let mut random = Seeded::new(seed);
        let (mut villain, mut victim) = Villain::idle();
        for sequence in 0..2 * AHEAD {
            for _ in 0..random.below(3) {
                let kind = [HEADER, HEADER, HEADER, DATA, SINK, BOARD, LANDED, 77][random.below(8)];
                let first = [0, FIRST, FIRST, FIRST][random.below(4)];
                let mut words = [0, 0, random.next(), random.below(100) as u64, random.next(), 0, 0];
                let of = (sequence + random.below(2) as u32).saturating_sub(random.below(2) as u32);
                if first == FIRST {
                    words[..2].copy_from_slice(&call(of).to_words());
                }
                villain.line(Line {
                    kind: first | kind,
                    len: random.below(60) as u8,
                    words,
                    ..Line::default()
                });
            }
            if victim.offer(&call(sequence), &[PEER], View::from(&[1u8; 8][..]), None) == 8
                && victim.meet(&[], 8, 1, Work::new(&mut |_| {})) == Met::Settled
            {
                left += 1;
                continue;
            }
            let mut told = Ok(false);
            for _ in 0..4 {
                told = victim.verify().and_then(|verified| victim.poll().map(|_| verified));
            }
            match told {
                // The villain says no more, so the call can not be left.
                Ok(false) => break,
                Ok(true) => {}
                Err(error) => {
                    failures += 1;
                    let fair = matches!(
                        error,
                        LinkError::Corrupt { peer: PEER, .. } | LinkError::Mismatch { peer: PEER, .. }
                    );
                    assert!(fair, "seed {seed}: {error}");
                    break;
                }
            }
        }
    }
    assert!(failures > 1000 && left > 1000, "only {failures} attacks were noticed, and {left} calls left");
}
