//! Private memory is not staged: the kernel fetches what is lent from where it lies, and a peer that lies about where that is
//! is told apart from one that is gone.
#![expect(unsafe_code, reason = "a hostile peer maps its segment itself")]

mod join;
#[allow(dead_code, reason = "lines of other kinds are the matter of other files")]
mod villain;

use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{Links, Met, Window, Work};
use sohu_coll_core::pipe::Strand;
use sohu_coll_mem::line::Line;
use sohu_coll_mem::region::{Loan, scope};
use sohu_coll_mem::{Ledger, Regions, View, ViewMut};
use sohu_coll_shm::{Process, ShmLinks};
use villain::{FIRST, Villain};

/// More than is fetched in one go for a pass, and no multiple of anything.
const LEN: usize = 300_007;

/// The kind of a line that tells of private memory.
const PRIVATE: u8 = 0x20;

const PEER: Rank = Rank(1);

fn own() -> Process {
    Process::of(std::process::id())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 251) as u8).collect()
}

/// Runs `work` on the links of `size` ranks that are in a call and fetch, with a private [`pattern`]. Nothing is out afterwards.
fn with(size: u32, work: impl FnOnce(&mut [ShmLinks], &Regions<'_>, &Ledger)) {
    let mut links = join::fetching(size, 1 << 16, 1 << 16);
    join::begin(&mut links);
    let (input, ledger) = (pattern(LEN), Ledger::new());
    scope(&ledger, Loan::Apart { input: &input, output: &mut [] }, &mut [], |regions| {
        work(&mut links, regions, &ledger);
        assert_eq!(ledger.out(), 0, "spans are out");
    });
}

fn lend(links: &mut ShmLinks, to: &[Rank], regions: &Regions<'_>, range: std::ops::Range<usize>) {
    let span = regions.input.lend(range).expect("the ledger has room");
    links.lend(to, span).expect("private memory can be lent");
}

fn recv(links: &mut ShmLinks, from: Rank, into: &mut [u8]) -> Result<usize, LinkError> {
    links.recv(from, ViewMut::from(into))
}

#[test]
fn what_is_lent_is_received_in_pieces_and_back_after_the_last() {
    with(2, |links, regions, ledger| {
        // What is sent lies between two loans, and an element across each border.
        lend(&mut links[0], &[PEER], regions, 0..100_001);
        assert_eq!(links[0].send(&[PEER], regions.input.read(100_001..100_010)), Ok(9));
        lend(&mut links[0], &[PEER], regions, 100_010..LEN);
        let (mut got, mut taken) = (vec![0; LEN], 0);
        while taken < LEN - 1 {
            let end = (taken + 70_000).min(LEN - 1);
            let moved = recv(&mut links[1], Rank(0), &mut got[taken..end]).expect("recv");
            assert!(moved > 0, "{taken} bytes came");
            taken += moved;
        }
        links[1].poll().expect("poll");
        assert_eq!((links[0].settled(), ledger.out()), (Ok(false), 1), "a byte is still to be fetched");
        assert_eq!(recv(&mut links[1], Rank(0), &mut got[LEN - 1..]), Ok(1));
        links[1].poll().expect("poll");
        assert_eq!((links[0].settled(), got), (Ok(true), pattern(LEN)));
    });
}

#[test]
fn passes_fold_what_several_ranks_lent() {
    // Elements of 8 bytes, of which the first one is torn: 5 bytes of it are copied ahead of the loan.
    const LEN: usize = 300_000;
    with(3, |links, regions, _| {
        for rank in [0, 2] {
            assert_eq!(links[rank].send(&[PEER], regions.input.read(0..5)), Ok(5));
            lend(&mut links[rank], &[PEER], regions, 5..LEN);
        }
        let mut folded: Vec<u8> = Vec::new();
        while folded.len() < LEN {
            let limit = LEN - folded.len();
            let moved = links[1].pass(&[Rank(0), Rank(2)], &[], limit, 8, &mut |window: Window<'_>| {
                let [one, other] = [0, 1].map(|at| {
                    let mut bytes = vec![0; window.incoming[at].len()];
                    window.incoming[at].copy_to(ViewMut::from(&mut bytes[..]));
                    bytes
                });
                folded.extend(one.iter().zip(&other).map(|(a, b)| a.wrapping_add(*b)));
            });
            assert!(moved.expect("pass") > 0, "{} bytes were folded", folded.len());
        }
        assert!(folded.iter().zip(pattern(LEN)).all(|(sum, byte)| *sum == byte.wrapping_mul(2)));
        links[1].poll().expect("poll");
        for rank in [0, 2] {
            assert_eq!(links[rank].settled(), Ok(true));
        }
    });
}

#[test]
fn messages_beyond_the_longest_are_copied() {
    let (mut links, said) = (join::fetching(2, 1 << 16, 1 << 16), pattern(LEN));
    links[0].fetch_from(&[own(); 2], None, LEN - 1);
    assert!(links[0].pipes().lends(PEER, View::from(&said[..LEN - 1])));
    assert!(!links[0].pipes().lends(PEER, View::from(&said[..])));
}

#[test]
fn messages_are_fetched_to_where_they_go() {
    let (mut links, said) = (join::fetching(2, 1 << 16, 1 << 16), pattern(LEN));
    let [first, second] = links.get_disjoint_mut([0, 1]).expect("there are two");
    let (sender, receiver) = (first.pipes(), second.pipes());
    let mut got = vec![0; LEN];
    assert_eq!(receiver.fetch(Rank(0), ViewMut::from(&mut got[..])), Ok(0), "nothing has come");
    assert!(!sender.lends(PEER, View::from(&said[..100])), "short ones are copied");
    assert_eq!(sender.lend(PEER, View::from(&said[..])), Ok(true));
    let mut taken = 0;
    // To fetch and to take are of one stream.
    for turn in 0.. {
        if taken == LEN {
            break;
        }
        assert_eq!(sender.is_clear(PEER), Ok(false), "{taken} bytes were taken");
        let end = (taken + 50_000).min(LEN);
        let into = &mut got[taken..end];
        taken += if turn % 2 == 0 {
            receiver.fetch(Rank(0), ViewMut::from(into)).expect("fetch")
        } else {
            let mut work = |view: View<'_>| {
                view.copy_to(ViewMut::from(&mut into[..view.len()]));
                view.len()
            };
            receiver.take(Rank(0), Strand::Bytes, end - taken, &mut work).expect("take")
        };
    }
    assert_eq!((sender.is_clear(PEER), got), (Ok(true), said));
    // What is put is not fetched.
    let put = sender
        .put(PEER, Strand::Bytes, 40_000, &mut |room| View::from(&vec![1; room.len()][..]).copy_to(room));
    assert!(put.expect("put") > 0);
    assert_eq!(receiver.fetch(Rank(0), ViewMut::from(&mut [0; 100][..])), Ok(0));
}

/// What the victim of a line says of rank 1, both of a call's lines and of a pipe's.
fn told(words: [u64; 2], fetches: bool) -> [Result<usize, LinkError>; 2] {
    let (mut villain, mut victim) = Villain::new();
    if fetches {
        victim.fetch_from(&[own(); 2], None, usize::MAX);
    }
    villain.open().put(PRIVATE, 0, &words);
    let call = recv(&mut victim, PEER, &mut [0; 100]);
    let (mut villain, mut victim) = Villain::idle();
    if fetches {
        victim.fetch_from(&[own(); 2], None, usize::MAX);
    }
    let words = [words[0], words[1], 0, 0, 0, 0, 0];
    villain.pipe(Strand::Bytes, Line { kind: PRIVATE, words, ..Line::default() });
    let mut bytes = [0; 100];
    let pipe = victim.pipes().take(PEER, Strand::Bytes, 100, &mut |view| {
        view.copy_to(ViewMut::from(&mut bytes[..view.len()]));
        view.len()
    });
    [call, pipe]
}

#[test]
fn private_memory_that_is_none_is_corrupt() {
    let good = pattern(100);
    let address = good.as_ptr().addr() as u64;
    assert_eq!(told([address, 100], true), [Ok(100), Ok(100)]);
    let bad = [
        [address, 0],
        [address, 1 << 63],
        [address, u64::MAX],
        [u64::MAX - 7, 8],
        [u64::MAX - 50, 100],
        [0, 8],
    ];
    for (words, fetches) in bad.into_iter().map(|words| (words, true)).chain([([address, 100], false)]) {
        for told in told(words, fetches) {
            let Err(LinkError::Corrupt { peer: PEER, .. }) = told else {
                panic!("{words:x?}, {fetches}: {told:?}")
            };
        }
    }
}

/// What the victim of a first line of an exchange comes to, in one go and in two steps, to a place of its own and not, and what it is told
/// by the ordinary methods where it met nobody.
fn exchanged(place: [u64; 2], process: Process, meets: bool) -> Option<Result<usize, LinkError>> {
    let mut told = Vec::new();
    for (in_one_go, stored) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut villain, mut victim) = Villain::idle();
        victim.fetch_from(&[process; 2], None, usize::MAX);
        villain.put(FIRST | PRIVATE, 0, &place);
        let (bytes, mut room, mut seen) = (vec![1; 100], [7; 100], Vec::new());
        let take = &mut |views: &[View<'_>]| {
            seen = vec![0; views[0].len()];
            views[0].copy_to(ViewMut::from(&mut seen[..]));
        };
        let work = Work { into: stored.then(|| ViewMut::from(&mut room[..])), ..Work::new(take) };
        let met = if in_one_go {
            victim.exchange(&join::call(0), View::from(&bytes[..]), None, 3, work).expect("it is at rest")
        } else {
            assert_eq!(victim.offer(&join::call(0), &[PEER], View::from(&bytes[..]), None), 100);
            victim.meet(&[PEER], 100, 3, work)
        };
        assert_eq!(met, if meets { Met::Settled } else { Met::Otherwise }, "{place:x?}");
        if meets {
            assert_eq!(seen, pattern(100));
            assert!(!stored || room[..] == seen[..], "it was stored where it goes");
            continue;
        }
        assert_eq!((seen, room), (vec![], [7; 100]), "{place:x?}");
        told.push(recv(&mut victim, PEER, &mut [0; 100]));
    }
    assert!(told.windows(2).all(|two| two[0] == two[1]), "{told:?}");
    told.pop()
}

#[test]
fn what_an_exchange_fetches_is_bounded_like_any_other() {
    let good = pattern(100);
    let address = good.as_ptr().addr() as u64;
    assert_eq!(exchanged([address, 100], own(), true), None);
    for place in [[address, 0], [address, u64::MAX], [u64::MAX - 50, 100], [0, 100]] {
        let Some(Err(LinkError::Corrupt { peer: PEER, .. })) = exchanged(place, own(), false) else {
            panic!("{place:x?}")
        };
    }
    // Other bytes than those of the call are left to the ordinary way.
    assert_eq!(exchanged([address, 99], own(), false), Some(Ok(99)));
    let gone = Process::of(i32::MAX as u32);
    assert_eq!(
        exchanged([address, 100], gone, false),
        Some(Ok(0)),
        "of a process that is gone nothing comes"
    );
}

#[test]
fn of_a_process_that_is_gone_nothing_comes() {
    let (mut villain, mut victim) = Villain::new();
    // Beyond all processes.
    victim.fetch_from(&[Process::of(i32::MAX as u32); 2], None, usize::MAX);
    villain.open().put(PRIVATE, 0, &[4096, 100]);
    let mut bytes = [7; 100];
    // Who watches over the ranks says so; to the links it is a peer that does nothing.
    for _ in 0..3 {
        assert_eq!(recv(&mut victim, PEER, &mut bytes), Ok(0));
        assert_eq!(victim.pass(&[PEER], &[], 100, 1, &mut |_| panic!("there is nothing to work on")), Ok(0));
    }
    assert_eq!((bytes, victim.poll().map(drop)), ([7; 100], Ok(())));
}

#[test]
fn what_is_withdrawn_is_not_taken_for_what_was_lent() {
    let mut links = join::fetching(3, 1 << 16, 1 << 16);
    join::begin(&mut links);
    let (mut input, ledger) = (pattern(LEN), Ledger::new());
    scope(&ledger, Loan::Apart { input: &input, output: &mut [] }, &mut [], |regions| {
        lend(&mut links[0], &[PEER, Rank(2)], regions, 0..LEN);
        let mut got = vec![0; LEN];
        assert_eq!(recv(&mut links[1], Rank(0), &mut got[..100]), Ok(100));
        // The call of rank 0 fails, and its memory is its caller's again.
        links[0].abandon();
    });
    input.fill(0);
    let closed = Err(LinkError::Closed { peer: Rank(0) });
    assert_eq!(recv(&mut links[1], Rank(0), &mut [0; 100]), closed);
    assert_eq!(links[2].pass(&[Rank(0)], &[], 100, 1, &mut |_| panic!("these are other bytes")), closed);
    let mut pipes = join::fetching(2, 1 << 16, 1 << 16);
    assert_eq!(pipes[0].pipes().lend(PEER, View::from(&input[..])), Ok(true));
    pipes[0].abandon();
    assert_eq!(pipes[1].pipes().fetch(Rank(0), ViewMut::from(&mut [0; 100][..])), closed);
}
