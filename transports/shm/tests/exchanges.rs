//! Small calls in one round over shared memory: they are made in one round when all come, and a peer that writes what it
//! likes ends them in an error that names it.
#![expect(unsafe_code, reason = "a hostile peer maps its segment itself")]

#[allow(dead_code, reason = "lines of other kinds are the matter of other files")]
mod join;
#[allow(dead_code, reason = "lines of other kinds are the matter of other files")]
mod villain;

use sohu_coll_conformance::Seeded;
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{EXCHANGE_MAX, Links, Met, Work};
use sohu_coll_mem::line::Line;
use sohu_coll_mem::region::{Loan, scope};
use sohu_coll_mem::{Ledger, View, ViewMut};
use sohu_coll_shm::{Layout, ShmLinks};
use villain::{BOARD, CHUNK, DATA, FIRST, HEADER, LANDED, SINK, Villain, call};

const PEER: Rank = Rank(1);

/// Boards of a rank.
const BOARDS: u64 = 10;

/// Numbers that overflow, wrap, or sit at an edge.
const EDGES: [u64; 8] = [2, 3, 1 << 31, 1 << 32, 1 << 63, u64::MAX - 7, u64::MAX - 1, u64::MAX];

fn offer(link: &mut ShmLinks, sequence: u32, bytes: &[u8]) {
    let own = link.rank();
    let peers: Vec<Rank> = (0..link.size()).map(Rank).filter(|peer| *peer != own).collect();
    assert_eq!(link.offer(&call(sequence), &peers, View::from(bytes), None), bytes.len(), "there is room");
}

fn bytes_of(view: &View<'_>) -> Vec<u8> {
    let mut bytes = vec![0; view.len()];
    view.copy_to(ViewMut::from(&mut bytes[..]));
    bytes
}

/// Meets the peers; what they said.
fn meet(link: &mut ShmLinks, len: usize) -> (Met, Vec<Vec<u8>>) {
    let mut said = Vec::new();
    let own = link.rank();
    let peers: Vec<Rank> = (0..link.size()).map(Rank).filter(|peer| *peer != own).collect();
    let take = &mut |views: &[View<'_>]| said = views.iter().map(bytes_of).collect();
    let met = link.meet(&peers, len, 3, Work::new(take));
    (met, said)
}

#[test]
fn ranks_that_all_came_are_done_in_one_round() {
    for size in [2, 3, 5] {
        let mut links = join::links(size, 1 << 16, 1 << 20);
        for (sequence, len) in (0..).zip([1, 40, 41, EXCHANGE_MAX].repeat(60)) {
            let said = |rank: u32| vec![(sequence + rank) as u8; len];
            for (rank, link) in (0..).zip(&mut links) {
                offer(link, sequence, &said(rank));
            }
            for (rank, link) in (0..).zip(&mut links) {
                let others = (0..size).filter(|other| *other != rank).map(said).collect();
                assert_eq!(meet(link, len), (Met::Settled, others), "rank {rank} in call {sequence}");
            }
        }
    }
}

/// A sender that is done does not read what was posted for it, and finds it before its peer's next call.
#[test]
fn memory_that_was_posted_too_late_does_not_keep_ranks_from_meeting() {
    const LEN: usize = 5000;
    let mut links = join::links(2, 1 << 16, 1 << 20);
    join::begin(&mut links);
    let sent = vec![3; LEN];
    assert_eq!(links[0].send(&[Rank(1)], View::from(&sent[..])), Ok(LEN));
    let mut output = links[1].heap().alloc(LEN).expect("the heap is empty");
    let loan = Loan::Apart { input: &[], output: &mut output };
    scope(&Ledger::new(), loan, &mut [], |regions| {
        let span = regions.output.post(0..LEN).expect("an empty ledger has room");
        links[1].post(Rank(0), 0, span).expect("registered memory can be posted");
        let mut taken = 0;
        while taken < LEN {
            taken += links[1].recv(Rank(0), regions.output.landing(taken..LEN)).expect("recv");
        }
    });
    for link in &mut links {
        link.poll().expect("poll");
        assert_eq!(link.settled(), Ok(true));
        offer(link, 1, &[7; 8]);
    }
    for link in &mut links {
        assert_eq!(meet(link, 8), (Met::Settled, vec![vec![7; 8]]));
    }
}

/// What the victim of `attack`, in an exchange of `len` bytes, is told by the ordinary methods; it met nobody. So it is where
/// it makes the exchange in one go.
fn told(len: usize, attack: impl Fn(&mut Villain)) -> (Result<usize, LinkError>, ShmLinks) {
    let attacked = |begin: &dyn Fn(&mut ShmLinks, &[u8]) -> Met| {
        let (mut villain, mut victim) = Villain::idle();
        attack(&mut villain);
        assert_eq!(begin(&mut victim, &vec![1; len]), Met::Otherwise);
        let mut bytes = vec![0; EXCHANGE_MAX];
        (victim.recv(PEER, ViewMut::from(&mut bytes[..])), victim)
    };
    let (told, victim) = attacked(&|victim, bytes| {
        offer(victim, 0, bytes);
        victim.meet(
            &[PEER],
            len,
            3,
            Work::new(&mut |_| panic!("bytes of an exchange that is none were taken")),
        )
    });
    let (again, _) = attacked(&|victim, bytes| {
        let take = &mut |_: &[View<'_>]| panic!("bytes of an exchange that is none were taken");
        let met = victim.exchange(&call(0), View::from(bytes), None, 3, Work::new(take));
        met.expect("the links are at rest")
    });
    assert_eq!(told, again, "in two steps, and in one go");
    (told, victim)
}

/// The victim of what `attack` wrote says that rank 1 is corrupt, and goes on saying so.
fn corrupt(what: &str, len: usize, attack: impl Fn(&mut Villain)) {
    let (told, mut victim) = told(len, attack);
    let Err(LinkError::Corrupt { peer: PEER, .. }) = told else { panic!("{what}: {told:?}") };
    assert_eq!(victim.verify().map(|_| 0), told, "{what}");
    assert_eq!(victim.offer(&call(1), &[PEER], View::from(&[1u8; 8][..]), None), 0, "{what}");
    assert_eq!(meet(&mut victim, 8), (Met::Otherwise, Vec::new()), "{what}");
    assert_eq!(victim.poll().map(|_| 0), told, "{what}");
}

#[test]
fn boards_that_are_not_there_are_corrupt() {
    let most = EXCHANGE_MAX as u64;
    let end = BOARDS * most;
    let mut bad = vec![[0, 0], [most, 0], [end, 100], [end - 99, 100], [0, most + 1], [most, most + 1]];
    bad.extend(EDGES.iter().filter(|at| **at > end).map(|at| [*at, 100]));
    bad.extend(EDGES.iter().filter(|len| **len > most).map(|len| [most, *len]));
    for words in bad {
        corrupt(&format!("{} bytes at {} of the boards", words[1], words[0]), 100, |villain| {
            villain.put(FIRST | BOARD, 0, &words);
        });
    }
    // The edges that are there.
    for len in [1, 41, most] {
        for at in [0, 3, most, end - len] {
            let (mut villain, mut victim) = Villain::idle();
            villain.put(FIRST | BOARD, 0, &[at, len]);
            let len = len as usize;
            offer(&mut victim, 0, &vec![1; len]);
            assert_eq!(meet(&mut victim, len), (Met::Settled, vec![vec![0; len]]), "a board at {at}");
        }
    }
}

#[test]
fn boards_after_the_first_line_are_corrupt() {
    corrupt("a board before any signature", 100, |villain| {
        villain.put(BOARD, 0, &[0, 100]);
    });
    corrupt("a board after the signature", 100, |villain| {
        villain.open().put(BOARD, 0, &[0, 100]);
    });
}

#[test]
fn offers_outside_the_segment_are_corrupt() {
    let (villain, _victim) = Villain::idle();
    let (start, end) = (villain.layout.staging().start as u64, villain.layout.len() as u64);
    let mut bad = vec![[0, 100], [start - 1, 100], [start, 0], [end - 99, 100], [end, 100]];
    bad.extend(EDGES.map(|offset| [offset, 100]));
    bad.extend(EDGES.iter().filter(|len| **len > end).map(|len| [start, *len]));
    bad.extend([[end - 8, u64::MAX - 7], [u64::MAX - 7, start + 16]]);
    for words in bad {
        corrupt(&format!("a chunk at {words:x?}"), 100, |villain| {
            villain.put(FIRST | CHUNK, 0, &words);
        });
    }
}

#[test]
fn inline_lengths_that_lines_do_not_have_are_corrupt() {
    for len in [0, 41, 56, 57, 255] {
        for expected in [8, 40, 41, 255] {
            corrupt(&format!("{len} bytes in a line"), expected, |villain| {
                villain.put(FIRST | DATA, len, &[]);
            });
        }
    }
}

/// Fewer bytes than the call has are taken as the first of them; more are found when the call is over.
#[test]
fn lengths_of_other_exchanges_are_not_met() {
    let attacks: [(u8, u8, [u64; 2], usize); 6] = [
        (DATA, 7, [0, 0], 8),
        (DATA, 9, [0, 0], 8),
        (BOARD, 0, [0, 99], 100),
        (BOARD, 0, [1, 101], 100),
        (CHUNK, 0, [0, 99], 100),
        (CHUNK, 0, [0, 101], 100),
    ];
    for (kind, inline, words, len) in attacks {
        let (mut villain, mut victim) = Villain::idle();
        let words = if kind == CHUNK { [villain.layout.staging().start as u64, words[1]] } else { words };
        let said = if kind == DATA { usize::from(inline) } else { words[1] as usize };
        villain.put(FIRST | kind, inline, &words);
        offer(&mut victim, 0, &vec![1; len]);
        assert_eq!(meet(&mut victim, len), (Met::Otherwise, Vec::new()), "kind {kind}");
        let mut bytes = vec![7; len];
        assert_eq!(victim.recv(PEER, ViewMut::from(&mut bytes[..])), Ok(said.min(len)), "kind {kind}");
        if said > len {
            let begun = victim.begin(&call(1));
            assert!(matches!(begun, Err(LinkError::Corrupt { peer: PEER, .. })), "kind {kind}: {begun:?}");
        }
    }
}

#[test]
fn acknowledgements_of_what_was_never_sent_are_corrupt_in_an_offer_too() {
    for (lines_ack, chunks_ack) in [(2, 0), (0, 1), (0x7fff, 0), (0, 0xffff), (0xc000, 0x4000)] {
        corrupt("acknowledged in an offer", 8, |villain| {
            let [a, b] = call(0).to_words();
            let words = [a, b, 0, 0, 0, 0, 0];
            villain.line(Line { kind: FIRST | DATA, len: 8, lines_ack, chunks_ack, words });
        });
    }
}

#[test]
fn offers_of_no_known_call_are_corrupt_and_of_another_are_a_mismatch() {
    for words in [[0, 0], [u64::MAX, u64::MAX], [0xff, 1000]] {
        corrupt("a signature of no call", 8, |villain| {
            let words = [words[0], words[1], 0, 0, 0, 0, 0];
            villain.line(Line { kind: FIRST | DATA, len: 8, words, ..Line::default() });
        });
    }
    let (told, _) = told(8, |villain| {
        let [a, b] = call(1).to_words();
        villain.line(Line { kind: FIRST | DATA, len: 8, words: [a, b, 0, 0, 0, 0, 0], ..Line::default() });
    });
    assert_eq!(told, Err(LinkError::Mismatch { peer: PEER, ours: call(0), theirs: call(1) }));
}

fn number(random: &mut Seeded, layout: &Layout) -> u64 {
    match random.below(4) {
        0 => EDGES[random.below(EDGES.len())],
        1 => (layout.staging().start + random.below(5000)) as u64,
        _ => [0, 1, 8, 100, 4096][random.below(5)],
    }
}

/// Any lines at all, before and between exchanges of any length: whatever the victim is handed has the length that it
/// asked for, and what it is told names the villain.
#[test]
fn random_lines_never_crash_a_victim_in_exchanges() {
    let (mut failures, mut meetings) = (0, 0);
    for seed in 0..3000 {
        let mut random = Seeded::new(seed);
        let (mut villain, mut victim) = Villain::idle();
        let layout = villain.layout;
        for sequence in 0..8 {
            let len = [8, 40, 100, EXCHANGE_MAX][random.below(4)];
            for _ in 0..random.below(3) {
                let kind = [DATA, DATA, CHUNK, BOARD, BOARD, SINK, LANDED, HEADER, 77][random.below(9)];
                let first = [0, FIRST, FIRST, FIRST][random.below(4)];
                let inline = [len.min(255) as u8, len.min(40) as u8, 0, 57, 255][random.below(5)];
                let at = if kind == BOARD {
                    random.below(3) as u64 * BOARDS / 2 * EXCHANGE_MAX as u64
                } else {
                    number(&mut random, &layout)
                };
                let said = if random.below(3) > 0 { len as u64 } else { number(&mut random, &layout) };
                let mut words = [0, 0, at, said, 0, 0, 0];
                if first == FIRST {
                    words[..2].copy_from_slice(&call(sequence).to_words());
                }
                villain.line(Line { kind: first | kind, len: inline, words, ..Line::default() });
            }
            match exchange(&mut random, &mut victim, sequence, len) {
                Ok(met) => meetings += u32::from(met),
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
    assert!(failures > 1000 && meetings > 300, "only {failures} attacks were noticed, and {meetings} met");
}

/// One call of the victim's, with a few ordinary steps where it met nobody. Returns whether it met.
fn exchange(
    random: &mut Seeded,
    victim: &mut ShmLinks,
    sequence: u32,
    len: usize,
) -> Result<bool, LinkError> {
    let (call, bytes) = (call(sequence), vec![1u8; len]);
    let mut said = Vec::new();
    let in_one_go = match random.below(2) {
        0 => {
            let take = &mut |views: &[View<'_>]| said = views.iter().map(bytes_of).collect();
            let (take, meanwhile) = (Work::new(take), &mut || panic!("nothing is lent"));
            let work = Work { meanwhile: Some(meanwhile), ..take };
            victim.exchange(&call, View::from(&bytes[..]), None, 3, work)
        }
        _ => None,
    };
    let sent =
        if in_one_go.is_some() { len } else { victim.offer(&call, &[PEER], View::from(&bytes[..]), None) };
    if sent == len {
        let (met, said) = in_one_go.map_or_else(|| meet(victim, len), |met| (met, said));
        if met == Met::Settled {
            assert_eq!(said[0].len(), len, "bytes that were not asked for");
            return Ok(true);
        }
        assert_eq!(said.len(), 0);
    }
    let mut bytes = vec![0; len];
    let mut taken = 0;
    for _ in 0..6 {
        match random.below(4) {
            0 => drop(victim.verify()?),
            1 => drop(victim.poll()?),
            2 => drop(victim.settled()?),
            _ => taken += victim.recv(PEER, ViewMut::from(&mut bytes[taken..]))?,
        }
    }
    Ok(false)
}
