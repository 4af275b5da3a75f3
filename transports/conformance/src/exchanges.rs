//! Checks of exchanges: every rank offers all others the same few bytes and meets theirs, or one rank gives to all or
//! takes from all; or they go on by the ordinary methods, and get the same bytes either way.

use crate::Harness;
use crate::calls::failures;
use crate::play::{FITS_MAX, Patience, call, until};
use crate::seeded::Seeded;
use crate::side::{LOOKS, Side, Way, said};
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{EXCHANGE_LENT_MAX, EXCHANGE_MAX, LEND_MIN, Links, Met, Work};
use sohu_coll_core::{Rank, Signature};
use sohu_coll_mem::region::{Loan, scope};
use sohu_coll_mem::{Ledger, ReadSpan, Regions, View, ViewMut};

/// How often something that must not happen is given the chance to.
const TRIES: u32 = 200;

/// Either side of where bytes travel in another way, and odd ones.
const SIZES: [usize; 9] = [1, 7, 24, 39, 40, 41, 1001, EXCHANGE_MAX - 1, EXCHANGE_MAX];

/// All ranks in the call number `sequence`.
fn sides(links: &[Box<dyn Links>], way: Way, sequence: u32, len: usize) -> Vec<Side> {
    links.iter().map(|link| Side::new(link.as_ref(), way, sequence, len)).collect()
}

/// Steps all sides until each is done.
fn finish(links: &mut [Box<dyn Links>], sides: &mut [Side]) {
    until("finishing an exchange", links, |links| {
        for (link, side) in links.iter_mut().zip(&mut *sides) {
            side.step(link.as_mut());
        }
        sides.iter().all(|side| side.done)
    });
}

/// Offered by all and then met by all, or begun by each as the one before it meets: every rank gets what the others
/// sent, in the order of their ranks.
///
/// # Panics
/// When the contract is broken.
pub fn an_exchange_gives_every_rank_the_bytes_of_all_others<H: Harness>() {
    for size in [2, 3, 5] {
        let mut links = H::links(size);
        for (sequence, len) in (0..).zip(SIZES.repeat(3)) {
            let mut sides = sides(&links, Way::All, sequence, len);
            let way = sequence as usize / SIZES.len();
            let all_first = way == 0;
            if way == 2 {
                // In one go: the first comes too early, and the last finds it there.
                let last = size as usize - 1;
                for (link, side) in links.iter_mut().zip(&mut sides).take(last) {
                    let made = side.make(link.as_mut(), None, LOOKS);
                    assert_eq!(made, H::IN_ONE_GO && size == 2, "{side} in one go");
                    if made {
                        assert!(!side.done, "{side} ended without its peers");
                    } else {
                        side.offer(link.as_mut(), None);
                    }
                }
                if !sides[last].make(links[last].as_mut(), None, LOOKS) {
                    sides[last].offer(links[last].as_mut(), None);
                }
                finish(&mut links, &mut sides);
                continue;
            }
            if all_first {
                links.iter_mut().zip(&mut sides).for_each(|(link, side)| side.offer(link.as_mut(), None));
            }
            for (link, side) in links.iter_mut().zip(&mut sides) {
                if !all_first {
                    side.offer(link.as_mut(), None);
                }
                side.meet(link.as_mut(), LOOKS);
            }
            finish(&mut links, &mut sides);
        }
    }
}

/// Whether the call number `sequence` of a check is offered, which way its bytes go, and how many: exchanges that use the
/// same room as the one before or not, and ordinary calls between them.
fn shape(sequence: u32, size: u32, most: usize) -> (bool, Way, usize) {
    let mut random = Seeded::new(u64::from(sequence));
    let root = Rank(random.below(size as usize) as u32);
    let way = [Way::All, Way::All, Way::Spread(root), Way::Deal(root), Way::Collect(root)][random.below(5)];
    // All blocks together are no more than the bytes of an exchange.
    let most = if let Way::Deal(_) = way { most / (size as usize - 1) } else { most };
    (random.below(4) > 0, way, [1, 8, 40, 41, 300, 41 + random.below(most - 40), most][random.below(7)])
}

/// One rank in a row of calls.
struct Player {
    random: Seeded,
    sequence: u32,
    side: Option<Side>,
}

impl Player {
    fn new(seed: u64) -> Self {
        Self { random: Seeded::new(seed), sequence: 0, side: None }
    }

    /// Does a little. Returns whether anything moved.
    fn step(&mut self, link: &mut dyn Links, most: usize) -> bool {
        let Some(side) = &mut self.side else {
            let (exchanged, way, len) = shape(self.sequence, link.size(), most);
            let side = self.side.insert(Side::new(link, way, self.sequence, len));
            let looks = self.random.below(LOOKS as usize) as u32;
            if exchanged && self.random.below(2) == 0 && side.make(link, None, looks) {
                // It may be over with that.
            } else if exchanged {
                side.offer(link, None);
            } else {
                link.begin(&call(self.sequence)).expect("begin");
            }
            return true;
        };
        // Most look until the peers come; who does not goes on by the ordinary methods.
        side.meeting &= self.random.below(8) > 0;
        let looks = self.random.below(LOOKS as usize) as u32;
        let moved = side.meet(link, looks) || side.step(link);
        if side.done {
            self.side = None;
            self.sequence += 1;
            return true;
        }
        moved
    }
}

/// Exchanges and ordinary calls follow each other, each rank at a pace that a seed decides: lines go round their
/// rings, and room for longer bytes is used again.
///
/// # Panics
/// When the contract is broken.
pub fn exchanges_go_on_in_any_order_of_the_ranks<H: Harness>() {
    for (size, seed, calls) in [(2, 1, 200), (3, 2, 200), (5, 3, 40)] {
        let mut links = H::links(size);
        let mut players: Vec<Player> =
            (0..u64::from(size)).map(|rank| Player::new(seed << 8 | rank)).collect();
        let mut order = Seeded::new(seed);
        let mut patience = Patience::new();
        while players.iter().any(|player| player.sequence < calls) {
            let turn = order.below(players.len());
            for _ in 0..=order.below(6) {
                if players[turn].sequence < calls {
                    let moved = players[turn].step(links[turn].as_mut(), EXCHANGE_MAX);
                    patience.note(moved, &|| format!("{size} ranks with seed {seed}"));
                }
            }
        }
    }
}

/// The same, with a thread for each rank.
///
/// # Panics
/// When the contract is broken.
pub fn exchanges_work_across_threads<H: Harness>() {
    for size in [2, 3] {
        let links = H::links(size);
        std::thread::scope(|scope| {
            for mut link in links {
                scope.spawn(move || {
                    let mut player = Player::new(u64::from(link.rank().0));
                    let mut patience = Patience::new();
                    while player.sequence < H::CALLS / 10 {
                        let moved = player.step(link.as_mut(), 600);
                        patience.note(moved, &|| format!("{} in call {}", link.rank(), player.sequence));
                    }
                });
            }
        });
    }
}

/// One rank gives all others the same bytes, or a block each, or takes from all: whoever gets bytes gets the right ones,
/// in the order of their ranks.
///
/// # Panics
/// When the contract is broken.
pub fn an_exchange_of_one_rank_with_all_gives_whoever_takes_its_bytes<H: Harness>() {
    for size in [2, 3, 5] {
        let mut links = H::links(size);
        let mut sequence = 0;
        for root in (0..size).map(Rank) {
            for way in [Way::Spread(root), Way::Deal(root), Way::Collect(root)] {
                for len in SIZES {
                    let len = if let Way::Deal(_) = way {
                        len.min(EXCHANGE_MAX / (size as usize - 1))
                    } else {
                        len
                    };
                    let mut sides = sides(&links, way, sequence, len);
                    links.iter_mut().zip(&mut sides).for_each(|(link, side)| side.offer(link.as_mut(), None));
                    for (link, side) in links.iter_mut().zip(&mut sides) {
                        side.meet(link.as_mut(), LOOKS);
                    }
                    finish(&mut links, &mut sides);
                    sequence += 1;
                }
            }
        }
    }
}

/// While one rank has not come, the others meet nobody, and lose nothing by having looked.
///
/// # Panics
/// When the contract is broken.
pub fn an_exchange_without_one_rank_takes_nothing<H: Harness>() {
    for size in [2, 3, 5] {
        let mut links = H::links(size);
        for (sequence, len) in (0..).zip(SIZES.into_iter().chain(SIZES)) {
            let late = sequence as usize % links.len();
            let mut sides = sides(&links, Way::All, sequence, len);
            let others = || (0..size as usize).filter(move |rank| *rank != late);
            for rank in others() {
                sides[rank].offer(links[rank].as_mut(), None);
                for _ in 0..TRIES {
                    assert!(!sides[rank].meet(links[rank].as_mut(), LOOKS), "rank {late} is late");
                }
            }
            // Some then go on by the ordinary methods, and find no more.
            for rank in others().filter(|rank| rank % 2 == 0) {
                sides[rank].meeting = false;
                for _ in 0..TRIES {
                    sides[rank].push(links[rank].as_mut());
                    assert!(!sides[rank].verified, "rank {late} is late");
                }
            }
            sides[late].offer(links[late].as_mut(), None);
            sides[late].meet(links[late].as_mut(), LOOKS);
            finish(&mut links, &mut sides);
        }
    }
}

/// Rank 0 is always a call ahead: its next bytes are under way while the others have yet to take its last.
///
/// # Panics
/// When the contract is broken.
pub fn a_rank_may_offer_while_its_peers_are_in_the_last_call<H: Harness>() {
    for size in [2, 3] {
        let mut links = H::links(size);
        let begin = |link: &mut dyn Links, sequence: u32| {
            let (exchanged, way, len) = shape(sequence, link.size(), FITS_MAX);
            let mut side = Side::new(link, way, sequence, len);
            if exchanged && sequence.is_multiple_of(2) && side.make(link, None, 3) {
                // It may be over with that, if the rank that is ahead has come.
            } else if exchanged {
                side.offer(link, None);
            } else {
                link.begin(&call(sequence)).expect("begin");
            }
            side
        };
        let mut ahead = begin(links[0].as_mut(), 0);
        for sequence in 0..200 {
            let mut rest: Vec<Side> =
                links[1..].iter_mut().map(|link| begin(link.as_mut(), sequence)).collect();
            until("getting ahead", &mut links, |links| {
                for (link, side) in links[1..].iter_mut().zip(&mut rest).filter(|(_, side)| !side.meeting) {
                    side.push(link.as_mut());
                }
                ahead.step(links[0].as_mut());
                ahead.done
            });
            ahead = begin(links[0].as_mut(), sequence + 1);
            finish(&mut links[1..], &mut rest);
        }
    }
}

/// Offers of different calls: nobody meets, every side is told which calls they were, and no byte is handed over.
///
/// # Panics
/// When the contract is broken.
pub fn an_offer_of_another_call_is_told_and_not_handed_over<H: Harness>() {
    let (ours, theirs) = (call(3), Signature { count: 999, ..call(3) });
    for (size, len) in [(2, 8), (2, 41), (2, EXCHANGE_MAX), (3, 8), (3, 41)] {
        for receives in [false, true] {
            let mut links = H::links(size);
            let odd = Rank(size - 1);
            let bytes = vec![9; len];
            for link in &mut links {
                let signature = if link.rank() == odd { theirs } else { ours };
                let peers: Vec<Rank> = (0..size).map(Rank).filter(|peer| *peer != link.rank()).collect();
                link.offer(&signature, &peers, View::from(&bytes[..]), None);
            }
            for link in &mut links {
                let peers: Vec<Rank> = (0..size).map(Rank).filter(|peer| *peer != link.rank()).collect();
                let take = &mut |_: &[View<'_>]| panic!("bytes of another call were taken");
                let met = link.meet(&peers, len, LOOKS, Work::new(take));
                assert!(matches!(met, Met::NotYet | Met::Otherwise), "{met:?}");
            }
            let all: Vec<usize> = (0..size as usize).collect();
            let mut room = vec![7; len];
            let errors = failures(&mut links, &all, |link| {
                if !receives {
                    return link.verify().map(drop);
                }
                let peer = if link.rank() == odd { Rank(0) } else { odd };
                // A rank whose bytes did not fit its offer says what it does by this.
                link.poll()?;
                let sent = link.send(&[peer], View::EMPTY)?;
                let taken = link.recv(peer, ViewMut::from(&mut room[..]))?;
                assert_eq!((sent, taken), (0, 0), "bytes of another call were handed over");
                Ok(())
            });
            assert_eq!(room, vec![7; len]);
            for (rank, error) in errors.iter().enumerate().take(size as usize - 1) {
                assert_eq!(*error, LinkError::Mismatch { peer: odd, ours, theirs }, "rank {rank}");
            }
            let told = matches!(&errors[odd.index()],
                LinkError::Mismatch { peer, ours: own, theirs: other } if *peer != odd && *own == theirs && *other == ours);
            assert!(told, "{}", errors[odd.index()]);
        }
    }
}

/// After an error nothing is offered and nobody met; a span that was offered comes back at once, and the error is
/// told by the method that is called next.
///
/// # Panics
/// When the contract is broken.
pub fn failed_links_neither_offer_nor_meet<H: Harness>() {
    let (mut links, memory) = H::lending(2, LEND_MIN);
    links[0].begin(&call(0)).expect("begin");
    links[1].begin(&call(1)).expect("begin");
    failures(&mut links, &[0, 1], |link| link.verify().map(drop));
    for (link, memory) in links.iter_mut().zip(&memory) {
        let peer = Rank(1 - link.rank().0);
        lent(memory, &mut |regions, ledger| {
            let span = regions.input.lend(0..LEND_MIN);
            assert_eq!(link.offer(&call(2), &[peer], regions.input.read(0..LEND_MIN), span), 0);
            assert_eq!(ledger.out(), 0, "the span is out with links that failed");
            let take = &mut |_: &[View<'_>]| panic!("failed links gave bytes");
            let met = link.meet(&[peer], LEND_MIN, LOOKS, Work::new(take));
            assert_eq!(met, Met::Otherwise);
            let lend = || -> ReadSpan { panic!("a span was asked for by links that failed") };
            let bytes = regions.input.read(0..LEND_MIN);
            let meanwhile = &mut || panic!("failed links wait for nothing");
            let work = Work { meanwhile: Some(meanwhile), ..Work::new(take) };
            assert_eq!(link.exchange(&call(2), bytes, Some(&lend), LOOKS, work), None);
            assert!(matches!(link.verify(), Err(LinkError::Mismatch { .. })));
        });
    }
}

/// Runs `work` with `memory` as its input.
fn lent(memory: &[u8], work: &mut dyn FnMut(&Regions<'_>, &Ledger)) {
    let ledger = Ledger::new();
    scope(&ledger, Loan::Apart { input: memory, output: &mut [] }, &mut [], |regions| work(regions, &ledger));
}

/// Two ranks make a call in one go, and rank 0 lends its bytes in it. A span is asked for when rank 1 is late, and out until
/// that has read the bytes.
///
/// # Panics
/// When the contract is broken.
pub fn a_span_is_made_of_bytes_that_are_still_out_at_the_end_of_an_exchange<H: Harness>() {
    for len in [LEND_MIN, LEND_MIN + 1, EXCHANGE_MAX, EXCHANGE_MAX + 1, EXCHANGE_LENT_MAX] {
        for late_by_a_look in [false, true] {
            let (mut links, mut memory) = H::lending(2, len);
            let mut sides = sides(&links, Way::All, 0, len);
            memory[0].copy_from_slice(&said(Way::All, Rank(0), Rank(1), 0, len));
            lent(&memory[0], &mut |regions, ledger| {
                let lend = || regions.input.lend(0..len).expect("nothing else is out");
                let lent = (regions.input.read(0..len), &lend as &dyn Fn() -> ReadSpan);
                if late_by_a_look {
                    sides[1].offer(links[1].as_mut(), None);
                }
                let made = sides[0].make(links[0].as_mut(), Some(lent), LOOKS);
                assert_eq!(made, H::IN_ONE_GO, "an exchange of two ranks in one go");
                if !made {
                    return;
                }
                assert!(!sides[0].done && ledger.out() == 1, "rank 1 has yet to read");
                for _ in 0..TRIES {
                    sides[0].step(links[0].as_mut());
                    assert!(!sides[0].done && ledger.out() == 1, "rank 1 has yet to read");
                }
                if !late_by_a_look && !sides[1].make(links[1].as_mut(), None, LOOKS) {
                    sides[1].offer(links[1].as_mut(), None);
                }
                finish(&mut links, &mut sides);
                assert_eq!(ledger.out(), 0, "spans are out after the call");
            });
        }
    }
}

/// Rank 0 lends what it offers: the span is back when its exchange is settled, and not while a peer, which looks
/// late, has yet to read.
///
/// # Panics
/// When the contract is broken.
pub fn a_span_that_was_offered_is_back_when_its_last_reader_is_done<H: Harness>() {
    for size in [2, 3, 5] {
        for (sequence, len) in
            (0..).zip([LEND_MIN, LEND_MIN + 1, EXCHANGE_MAX, EXCHANGE_MAX + 1, EXCHANGE_LENT_MAX])
        {
            let (mut links, mut memory) = H::lending(size, len);
            let mut sides = sides(&links, Way::All, sequence, len);
            memory[0].copy_from_slice(&said(Way::All, Rank(0), Rank(1), sequence, len));
            let lends = links[0].caps(Rank(1)).lends;
            lent(&memory[0], &mut |regions, ledger| {
                let span = regions.input.lend(0..len);
                sides[0].offer(links[0].as_mut(), span);
                assert_eq!(ledger.out(), usize::from(lends), "whether a peer may read it still");
                assert!(!lends || sides[0].has_sent(), "a loan counts in full at once");
                for rank in 1..size as usize {
                    sides[rank].offer(links[rank].as_mut(), None);
                }
                // The last of them looks late.
                for rank in 0..size as usize - 1 {
                    sides[rank].meet(links[rank].as_mut(), LOOKS);
                }
                for _ in 0..TRIES {
                    for rank in 0..size as usize - 1 {
                        sides[rank].step(links[rank].as_mut());
                    }
                    assert_eq!(ledger.out(), usize::from(lends), "a peer has yet to read");
                    assert!(!(lends && sides[0].done), "a peer has yet to read");
                }
                let last = size as usize - 1;
                sides[last].meet(links[last].as_mut(), LOOKS);
                finish(&mut links, &mut sides);
                assert_eq!(ledger.out(), 0, "spans are out after the call");
            });
        }
    }
}
