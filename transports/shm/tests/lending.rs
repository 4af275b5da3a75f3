//! Registered memory is not copied: peers read what is lent, and write what is posted, in place.

mod join;

use sohu_coll_core::Rank;
use sohu_coll_core::link::{Links, Refused};
use sohu_coll_mem::region::{Loan, scope};
use sohu_coll_mem::{Ledger, Regions, View, ViewMut};
use sohu_coll_shm::ShmLinks;

const LEN: usize = 100_000;
const HEAP: usize = 1 << 20;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 251) as u8).collect()
}

/// Runs `work` on the links of `size` ranks that are in a call, with registered buffers of `rank`: the input
/// holds [`pattern`], the output zeroes. Nothing is out afterwards.
fn with(size: u32, rank: usize, work: impl FnOnce(&mut [ShmLinks], &Regions<'_>, &Ledger)) {
    let mut links = join::links(size, 1 << 16, HEAP);
    join::begin(&mut links);
    let mut input = links[rank].heap().alloc(LEN).expect("the heap is empty");
    input.copy_from_slice(&pattern(LEN));
    let mut output = links[rank].heap().alloc(LEN).expect("the heap has room");
    let ledger = Ledger::new();
    scope(&ledger, Loan::Apart { input: &input, output: &mut output }, &mut [], |regions| {
        work(&mut links, regions, &ledger);
        assert_eq!(ledger.out(), 0, "spans are out");
    });
}

fn take(link: &mut ShmLinks, from: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut taken = 0;
    while taken < len {
        let moved = link.recv(Rank(from), ViewMut::from(&mut bytes[taken..])).expect("recv");
        assert!(moved > 0, "{taken} of {len} bytes came");
        taken += moved;
    }
    bytes
}

fn bytes(view: View<'_>) -> Vec<u8> {
    let mut bytes = vec![0; view.len()];
    view.copy_to(ViewMut::from(&mut bytes[..]));
    bytes
}

#[test]
fn a_loan_is_back_when_the_peer_has_read_it_and_not_before() {
    with(2, 0, |links, regions, ledger| {
        let span = regions.input.lend(0..LEN).expect("an empty ledger has room");
        links[0].lend(&[Rank(1)], span).expect("registered memory can be lent");
        assert_eq!(links[0].settled(), Ok(false));
        let first = take(&mut links[1], 0, LEN - 1);
        links[1].poll().expect("poll");
        assert_eq!((links[0].settled(), ledger.out()), (Ok(false), 1), "a byte is still to be read");
        assert_eq!([first, take(&mut links[1], 0, 1)].concat(), pattern(LEN));
        links[1].poll().expect("poll");
        assert_eq!((links[0].settled(), ledger.out()), (Ok(true), 0));
    });
}

#[test]
fn a_loan_to_several_is_back_when_the_last_has_read_it() {
    with(4, 2, |links, regions, ledger| {
        let span = regions.input.lend(0..LEN).expect("an empty ledger has room");
        links[2].lend(&[Rank(3), Rank(0), Rank(1)], span).expect("registered memory can be lent");
        for reader in [1, 3, 0] {
            assert_eq!((links[2].settled(), ledger.out()), (Ok(false), 1));
            assert_eq!(take(&mut links[reader], 2, LEN), pattern(LEN));
            links[reader].poll().expect("poll");
        }
        assert_eq!((links[2].settled(), ledger.out()), (Ok(true), 0));
    });
}

#[test]
fn lent_and_copied_bytes_keep_their_order() {
    with(2, 0, |links, regions, _| {
        let (mut sent, mut got) = (0, Vec::new());
        for (turn, piece) in [5000, 40, 9000, 3, 2048, 2047, 30_000].into_iter().enumerate() {
            if turn % 2 == 0 {
                let span = regions.input.lend(sent..sent + piece).expect("the ledger has room");
                links[0].lend(&[Rank(1)], span).expect("registered memory can be lent");
            } else {
                let moved = links[0].send(&[Rank(1)], regions.input.read(sent..sent + piece));
                assert_eq!(moved, Ok(piece));
            }
            sent += piece;
        }
        got.extend(take(&mut links[1], 0, sent));
        assert_eq!(got, pattern(LEN)[..sent]);
        links[1].poll().expect("poll");
        assert_eq!(links[0].settled(), Ok(true));
    });
}

#[test]
fn short_and_foreign_memory_is_not_lent() {
    let foreign = pattern(LEN);
    with(2, 0, |links, regions, _| {
        let span = regions.input.lend(0..64).expect("an empty ledger has room");
        let Err(Refused(span)) = links[0].lend(&[Rank(1)], span) else { panic!("64 bytes were lent") };
        assert_eq!(span.len(), 64);
        drop(span);
        let loan = Loan::Apart { input: &foreign, output: &mut [] };
        scope(&Ledger::new(), loan, &mut [], |regions| {
            let span = regions.input.lend(0..LEN).expect("an empty ledger has room");
            assert!(links[0].lend(&[Rank(1)], span).is_err(), "private memory was lent");
        });
        assert_eq!(links[0].settled(), Ok(true));
    });
}

/// Lets the sender of rank 0 see what rank 1 posted: it looks at lines when it receives.
fn show(links: &mut [ShmLinks]) {
    assert_eq!(links[0].recv(Rank(1), ViewMut::EMPTY), Ok(0));
}

#[test]
fn posted_memory_is_written_in_place_before_it_is_received() {
    let sent = pattern(LEN);
    with(2, 1, |links, regions, ledger| {
        let span = regions.output.post(0..LEN).expect("an empty ledger has room");
        links[1].post(Rank(0), 0, span).expect("registered memory can be posted");
        show(links);
        assert_eq!(links[0].posted(Rank(1)), LEN);
        assert_eq!(links[0].send(&[Rank(1)], View::from(&sent[..])), Ok(LEN));
        assert_eq!(bytes(regions.output.landing(0..LEN).as_view()), sent, "the bytes are not there yet");
        assert_eq!(ledger.out(), 1);
        let mut taken = 0;
        while taken < LEN {
            let end = (taken + 30_000).min(LEN);
            taken += links[1].recv(Rank(0), regions.output.landing(taken..end)).expect("recv");
            // What was received is this rank's again.
            assert_eq!(bytes(regions.output.read(0..taken)), sent[..taken]);
        }
        assert_eq!((links[1].settled(), ledger.out()), (Ok(true), 0));
    });
}

#[test]
fn memory_that_is_posted_late_takes_what_is_left() {
    let sent = pattern(LEN);
    with(2, 1, |links, regions, _| {
        // These are on their way before the sender hears of the sink, and some are out of what is posted.
        assert_eq!(links[0].send(&[Rank(1)], View::from(&sent[..20_000])), Ok(20_000));
        let span = regions.output.post(10_000..LEN).expect("an empty ledger has room");
        links[1].post(Rank(0), 10_000, span).expect("registered memory can be posted");
        show(links);
        assert_eq!(links[0].posted(Rank(1)), LEN - 20_000);
        assert_eq!(links[0].send(&[Rank(1)], View::from(&sent[20_000..])), Ok(LEN - 20_000));
        let mut taken = 0;
        while taken < LEN {
            let end = if taken < 10_000 { 10_000 } else { LEN };
            taken += links[1].recv(Rank(0), regions.output.landing(taken..end)).expect("recv");
        }
        assert_eq!(bytes(regions.output.read(0..LEN)), sent);
    });
}

#[test]
fn memory_is_not_lent_to_a_peer_that_has_posted_for_the_same_bytes() {
    let mut links = join::links(2, 1 << 16, HEAP);
    join::begin(&mut links);
    let input = links[0].heap().alloc(LEN).expect("the heap is empty");
    let mut output = links[1].heap().alloc(LEN).expect("the heap is empty");
    let (lent, posted) = (Ledger::new(), Ledger::new());
    scope(&lent, Loan::Apart { input: &input, output: &mut [] }, &mut [], |ours| {
        scope(&posted, Loan::Apart { input: &[], output: &mut output }, &mut [], |theirs| {
            let span = theirs.output.post(0..LEN).expect("an empty ledger has room");
            links[1].post(Rank(0), 0, span).expect("registered memory can be posted");
            show(&mut links);
            let span = ours.input.lend(0..LEN).expect("an empty ledger has room");
            assert!(links[0].lend(&[Rank(1)], span).is_err(), "it would be read and then written again");
            assert_eq!(links[0].send(&[Rank(1)], ours.input.read(0..LEN)), Ok(LEN));
            assert_eq!(links[1].recv(Rank(0), theirs.output.landing(0..LEN)), Ok(LEN));
        });
    });
}

#[test]
fn more_receives_are_posted_over_a_call_than_may_be_at_once() {
    with(2, 1, |links, regions, _| {
        let piece = 2048;
        for turn in 0..40 {
            let range = turn * piece..(turn + 1) * piece;
            let span = regions.output.post(range.clone()).expect("the ledger has room");
            links[1].post(Rank(0), range.start as u64, span).expect("there is room for a sink");
            // The sender looks at sinks, but always sends in another way.
            show(links);
            let bytes = pattern(piece);
            let both = [Rank(1)];
            let moved = links[0].pass(&[], &both, piece, 1, &mut |window| {
                if let Some(out) = window.outgoing {
                    View::from(&bytes[..]).copy_to(out);
                }
            });
            assert_eq!(moved, Ok(piece));
            assert_eq!(links[1].recv(Rank(0), regions.output.landing(range)), Ok(piece));
        }
    });
}

#[test]
fn abandoning_gives_back_every_span() {
    with(2, 0, |links, regions, ledger| {
        let span = regions.input.lend(0..LEN).expect("an empty ledger has room");
        links[0].lend(&[Rank(1)], span).expect("registered memory can be lent");
        let span = regions.output.post(0..LEN).expect("the ledger has room");
        links[0].post(Rank(1), 0, span).expect("registered memory can be posted");
        assert_eq!(ledger.out(), 2);
        links[0].abandon();
        assert_eq!(ledger.out(), 0);
    });
}

#[test]
fn a_loan_comes_back_to_a_lender_that_does_not_receive() {
    with(2, 0, |links, regions, _| {
        let span = regions.input.lend(0..LEN).expect("an empty ledger has room");
        links[0].lend(&[Rank(1)], span).expect("registered memory can be lent");
        assert_eq!(take(&mut links[1], 0, LEN), pattern(LEN));
        // The line with the sink tells of the loan too, but nobody reads it.
        let mut output = links[1].heap().alloc(LEN).expect("the heap has room");
        scope(&Ledger::new(), Loan::Apart { input: &[], output: &mut output }, &mut [], |theirs| {
            let span = theirs.output.post(0..LEN).expect("an empty ledger has room");
            links[1].post(Rank(0), LEN as u64, span).expect("registered memory can be posted");
            links[1].poll().expect("poll");
            assert_eq!(links[0].settled(), Ok(true));
            links[1].abandon();
        });
    });
}

#[test]
fn receives_that_follow_each_other_may_both_be_posted() {
    let sent = pattern(LEN);
    with(2, 1, |links, regions, _| {
        let cuts = [0, 3000, 10_000, LEN];
        for cut in cuts.windows(2) {
            let span = regions.output.post(cut[0]..cut[1]).expect("the ledger has room");
            links[1].post(Rank(0), cut[0] as u64, span).expect("registered memory can be posted");
        }
        show(links);
        let mut gone = 0;
        while gone < LEN {
            gone += links[0].send(&[Rank(1)], View::from(&sent[gone..])).expect("send");
            links[0].poll().expect("poll");
        }
        for cut in cuts.windows(2) {
            let mut taken = cut[0];
            while taken < cut[1] {
                let moved = links[1].recv(Rank(0), regions.output.landing(taken..cut[1])).expect("recv");
                assert!(moved > 0, "{taken} bytes came");
                taken += moved;
            }
        }
        assert_eq!(bytes(regions.output.read(0..LEN)), sent);
    });
}
