//! Errands: calls of a short message, or of one each way with different ranks, which are over when they are opened if what the
//! peers have to say is there.

use sohu_coll_conformance::{Faults, LoopLinks, Seeded};
use sohu_coll_core::error::LinkError;
use sohu_coll_core::exec::Progress;
use sohu_coll_core::link::Links;
use sohu_coll_core::pipe::{Pipes, Strand};
use sohu_coll_core::transfer::{Courier, Disagreement, Item};
use sohu_coll_core::{DType, Rank, Transfer, Way};
use sohu_coll_mem::{View, ViewMut};

/// What outputs hold before a call.
const UNTOUCHED: u8 = 0xee;

/// The longest message of an errand.
const LONGEST: usize = 4 << 10;

fn couriers<const RANKS: usize>() -> [Courier; RANKS] {
    std::array::from_fn(|rank| Courier::new(Rank(rank as u32), RANKS as u32))
}

/// Opens a call; says whether it was over with that.
fn open(courier: &mut Courier, items: &mut [Item<'_>], links: &mut LoopLinks) -> bool {
    courier.open(items, 0, links.pipes()).expect("nothing is for this rank")
}

/// Drives a call to its end.
fn finish(courier: &mut Courier, items: &mut [Item<'_>], links: &mut LoopLinks) -> Option<Disagreement> {
    let over = (0..50).any(|_| courier.poll(items, links.pipes()) == Ok(Progress::Done));
    assert!(over && courier.is_over(0..items.len()), "it waits for {:?}", courier.waiting_on().next());
    courier.disagreement(items, 0..items.len())
}

#[test]
fn who_comes_last_in_a_ring_is_through_at_once() {
    for len in [0, 1, 40, 41, 1023, 1024, LONGEST] {
        let mut links = LoopLinks::fabric(3, Faults::NONE);
        let mut couriers = couriers::<3>();
        // Each of them is the last once, and the messages have other numbers each time.
        for turn in 0..6 {
            let gives = [0, 1, 2].map(|rank| vec![rank as u8 + 3 * turn as u8; len]);
            let mut gets = [0; 3].map(|_| vec![UNTOUCHED; len]);
            let mut into = gets.iter_mut();
            let mut items = [0, 1, 2].map(|rank| {
                let (next, before) = (Rank((rank as u32 + 1) % 3), Rank((rank as u32 + 2) % 3));
                let into = into.next().expect("one each");
                let mut items =
                    vec![Item::send(DType::U8, &gives[rank], next), Item::recv(DType::U8, into, before)];
                if turn % 2 == 1 {
                    items.reverse();
                }
                items
            });
            let order = [turn, turn + 1, turn + 2].map(|rank| rank % 3);
            let over = order.map(|rank| open(&mut couriers[rank], &mut items[rank], &mut links[rank]));
            assert_eq!(over, [false, false, true], "{len} bytes, turn {turn}");
            for rank in &order[..2] {
                assert_eq!(finish(&mut couriers[*rank], &mut items[*rank], &mut links[*rank]), None);
            }
            drop(items);
            assert_eq!(gets, [2, 0, 1].map(|from| gives[from].clone()), "{len} bytes, turn {turn}");
        }
    }
}

#[test]
fn a_ping_and_a_pong_are_errands() {
    let mut links = LoopLinks::fabric(2, Faults::NONE);
    let mut couriers = couriers::<2>();
    for turn in 0..40u8 {
        let (from, to) = (usize::from(turn) % 2, 1 - usize::from(turn) % 2);
        let (gives, mut gets) = ([turn; 100], [UNTOUCHED; 100]);
        let mut out = [Item::send(DType::U8, &gives, Rank(to as u32))];
        let mut into = [Item::recv(DType::U8, &mut gets, Rank(from as u32))];
        let sends_first = turn % 4 < 2;
        if sends_first {
            assert!(!open(&mut couriers[from], &mut out, &mut links[from]));
        }
        assert_eq!(open(&mut couriers[to], &mut into, &mut links[to]), sends_first);
        if sends_first {
            assert_eq!(finish(&mut couriers[from], &mut out, &mut links[from]), None);
        } else {
            assert!(
                open(&mut couriers[from], &mut out, &mut links[from]),
                "its receiver has said that it waits"
            );
            assert_eq!(finish(&mut couriers[to], &mut into, &mut links[to]), None);
        }
        assert_eq!(gets, gives);
    }
}

#[test]
fn however_long_it_is_out_it_says_who_is_missing_and_ends_when_they_come() {
    // Rank 0 polls so often before rank 1, which it sends to, is there, and so often before rank 2 is, which it receives from.
    for (waits, more) in (0..6).flat_map(|waits| (0..6).map(move |more| (waits, more))) {
        let mut links = LoopLinks::fabric(3, Faults::NONE);
        let mut couriers = couriers::<3>();
        for turn in 0..3u8 {
            let (gives, comes, mut gets, mut got) =
                ([turn; 20], [turn + 9; 20], [UNTOUCHED; 20], [UNTOUCHED; 20]);
            let mut items =
                [Item::send(DType::U8, &gives, Rank(1)), Item::recv(DType::U8, &mut gets, Rank(2))];
            assert!(!open(&mut couriers[0], &mut items, &mut links[0]));
            let out = |couriers: &[Courier; 3], missing: &[u32]| {
                let peers: Vec<u32> = couriers[0].waiting_on().map(|peer| peer.0).collect();
                let transfers: Vec<usize> = couriers[0].waiting_for().collect();
                assert_eq!(peers, missing, "{waits} polls, {more} more");
                assert_eq!(transfers, missing.iter().map(|peer| *peer as usize - 1).collect::<Vec<_>>());
                assert!(!couriers[0].is_over(0..2));
            };
            out(&couriers, &[1, 2]);
            for _ in 0..waits {
                assert_eq!(couriers[0].poll(&mut items, links[0].pipes()), Ok(Progress::Idle));
                out(&couriers, &[1, 2]);
            }
            let mut into = [Item::recv(DType::U8, &mut got, Rank(0))];
            assert!(open(&mut couriers[1], &mut into, &mut links[1]));
            for at in 0..more {
                let expected = if at == 0 { Progress::Moved } else { Progress::Idle };
                assert_eq!(couriers[0].poll(&mut items, links[0].pipes()), Ok(expected));
                out(&couriers, &[2]);
            }
            let mut from = [Item::send(DType::U8, &comes, Rank(0))];
            assert!(open(&mut couriers[2], &mut from, &mut links[2]));
            assert_eq!(couriers[0].poll(&mut items, links[0].pipes()), Ok(Progress::Done));
            assert!(couriers[0].is_over(0..2) && couriers[0].waiting_on().next().is_none());
            assert_eq!(couriers[0].disagreement(&items, 0..2), None);
            assert_eq!((gets, got), (comes, gives));
        }
    }
}

/// Pipes that count how often they are flushed.
struct Flushed<'a> {
    pipes: &'a mut dyn Pipes,
    flushes: u32,
}

impl Pipes for Flushed<'_> {
    fn put(
        &mut self,
        to: Rank,
        strand: Strand,
        limit: usize,
        work: &mut dyn FnMut(ViewMut<'_>),
    ) -> Result<usize, LinkError> {
        self.pipes.put(to, strand, limit, work)
    }

    fn take(
        &mut self,
        from: Rank,
        strand: Strand,
        limit: usize,
        work: &mut dyn FnMut(View<'_>) -> usize,
    ) -> Result<usize, LinkError> {
        self.pipes.take(from, strand, limit, work)
    }

    fn flush(&mut self, peer: Rank) -> Result<bool, LinkError> {
        self.flushes += 1;
        self.pipes.flush(peer)
    }

    fn is_clear(&mut self, peer: Rank) -> Result<bool, LinkError> {
        self.pipes.is_clear(peer)
    }
}

/// What is put moves on by itself for a while, and not for ever.
#[test]
fn who_is_out_for_long_sees_to_its_pipes() {
    let mut links = LoopLinks::fabric(3, Faults::NONE);
    let mut courier = Courier::new(Rank(0), 3);
    let (gives, mut gets) = ([7; 20], [UNTOUCHED; 20]);
    let mut items = [Item::send(DType::U8, &gives, Rank(1)), Item::recv(DType::U8, &mut gets, Rank(2))];
    let mut pipes = Flushed { pipes: links[0].pipes(), flushes: 0 };
    assert_eq!(courier.open(&mut items, 5, &mut pipes), Ok(false));
    let flushes = [0; 5].map(|_| {
        assert_eq!(courier.poll(&mut items, &mut pipes), Ok(Progress::Idle));
        pipes.flushes
    });
    assert_eq!(
        flushes,
        [0, 0, 1, 2, 3],
        "of the pipe that something is to come from, from the third poll on"
    );
}

/// A message from rank 0 to rank 1, which comes later. Says whether it was through at once.
fn told_late(faults: Faults, len: usize, expects: usize) -> bool {
    let mut links = LoopLinks::fabric(2, faults);
    let mut couriers = couriers::<2>();
    let (gives, mut gets) = (vec![7; len], vec![UNTOUCHED; expects]);
    let mut out = [Item::send(DType::U8, &gives, Rank(1))];
    let mut into = [Item::recv(DType::U8, &mut gets, Rank(0))];
    assert!(!open(&mut couriers[0], &mut out, &mut links[0]));
    let quick = open(&mut couriers[1], &mut into, &mut links[1]);
    let told = (0..50).map(|_| {
        couriers[0].poll(&mut out, links[0].pipes()).expect("links that do not break");
        if !quick {
            couriers[1].poll(&mut into, links[1].pipes()).expect("links that do not break");
        }
    });
    told.for_each(drop);
    let transfer = |way, peer, len| Transfer { way, dtype: DType::U8, count: len as u64, peer: Rank(peer) };
    let [send, recv] = [transfer(Way::Send, 1, len), transfer(Way::Recv, 0, expects)];
    let differ = |ours: Transfer, theirs: Transfer| (len != expects).then_some(Disagreement { ours, theirs });
    assert_eq!(couriers[0].disagreement(&out, 0..1), differ(send, transfer(Way::Recv, 0, expects)));
    if !quick {
        assert_eq!(couriers[1].disagreement(&into, 0..1), differ(recv, transfer(Way::Send, 1, len)));
    }
    assert!(gets.iter().all(|byte| *byte == if len == expects { 7 } else { UNTOUCHED }));
    quick
}

#[test]
fn what_is_long_or_lent_or_not_expected_goes_the_ordinary_way() {
    let lends = Faults { lends_from: 1024, ..Faults::NONE };
    assert!(told_late(Faults::NONE, LONGEST, LONGEST));
    assert!(!told_late(Faults::NONE, LONGEST + 1, LONGEST + 1));
    assert!(told_late(lends, 1023, 1023));
    assert!(!told_late(lends, 2048, 2048));
    for (len, expects) in [(8, 9), (9, 8), (0, 1), (1, 0), (LONGEST, LONGEST + 1), (LONGEST + 1, LONGEST)] {
        assert!(!told_late(Faults::NONE, len, expects), "{len} bytes for {expects}");
    }
}

#[test]
fn garbage_is_corrupt_and_nothing_is_written() {
    let mut noticed = 0;
    for seed in 0..2_000 {
        let mut random = Seeded::new(seed);
        let mut links = LoopLinks::fabric(3, Faults::NONE);
        let mut courier = Courier::new(Rank(0), 3);
        let (from, mut into) = ([1; 30], [UNTOUCHED; 30]);
        let mut items = [Item::send(DType::U8, &from, Rank(1)), Item::recv(DType::U8, &mut into, Rank(2))];
        // Mostly what the peer would say, with one byte that it would not.
        let (peer, strand) = [(1, Strand::Answers), (2, Strand::Bytes)][random.below(2)];
        let mut said = vec![0; 16 + if peer == 2 { 30 } else { 0 }];
        (said[0], said[1], said[8]) = (if peer == 2 { 1 } else { 2 }, DType::U8 as u8, 30);
        // But for a bit that says that all bytes go ahead, as they do.
        let bit = [0..16, 17..128].into_iter().flatten().nth(random.below(127)).expect("one of them");
        said[bit / 8] ^= 1 << (bit % 8);
        let say = |links: &mut [LoopLinks]| {
            let pipes = links[peer].pipes();
            let put = pipes.put(Rank(0), strand, said.len(), &mut |room| View::from(&said[..]).copy_to(room));
            assert_eq!(put, Ok(said.len()));
        };
        // Before the errand, or while it is out.
        let late = random.below(2) == 1;
        if !late {
            say(&mut links);
        }
        assert!(!open(&mut courier, &mut items, &mut links[0]), "seed {seed}");
        if late {
            assert_eq!(courier.poll(&mut items, links[0].pipes()), Ok(Progress::Idle), "seed {seed}");
            say(&mut links);
        }
        let told = (0..4).find_map(|_| courier.poll(&mut items, links[0].pipes()).err());
        // Some are another message.
        if let Some(error) = told {
            assert!(matches!(error, LinkError::Corrupt { peer: Rank(1 | 2), .. }), "seed {seed}: {error}");
            noticed += 1;
        }
        assert_eq!(into, [UNTOUCHED; 30], "seed {seed}: something was written");
    }
    assert!(noticed > 500, "only {noticed} attacks were noticed");
}

/// Rank 0 sends rank 1 a message in a call that joins others.
fn joined(couriers: &mut [Courier; 2], links: &mut [LoopLinks], key: u8) {
    let (gives, mut gets) = ([key; 9], [UNTOUCHED; 9]);
    let mut out = [Item::send(DType::U8, &gives, Rank(1))];
    let mut into = [Item::recv(DType::U8, &mut gets, Rank(0))];
    couriers[0].join(&mut out, 0..1).expect("nothing is for this rank");
    couriers[1].join(&mut into, 0..1).expect("nothing is for this rank");
    for _ in 0..50 {
        couriers[0].poll(&mut out, links[0].pipes()).expect("links that do not break");
        couriers[1].poll(&mut into, links[1].pipes()).expect("links that do not break");
    }
    assert!(couriers[0].is_over(0..1) && couriers[1].is_over(0..1));
    assert_eq!(gets, gives);
}

/// The routes of calls before do not know of what was over at once.
#[test]
fn calls_join_others_behind_what_was_over_at_once() {
    for trades in [false, true] {
        let mut links = LoopLinks::fabric(2, Faults::NONE);
        let mut couriers = couriers::<2>();
        couriers.iter_mut().for_each(|courier| courier.begin(&mut []).expect("nothing is in it"));
        joined(&mut couriers, &mut links, 1);
        for turn in 0..3 {
            let (gives, mut gets, mut back) = ([turn; 8], [UNTOUCHED; 8], [UNTOUCHED; 8]);
            let mut out = vec![Item::send(DType::U8, &gives, Rank(1))];
            let mut into = vec![Item::recv(DType::U8, &mut gets, Rank(0))];
            if trades {
                out.push(Item::recv(DType::U8, &mut back, Rank(1)));
                into.push(Item::send(DType::U8, &gives, Rank(0)));
            }
            assert!(!open(&mut couriers[0], &mut out, &mut links[0]));
            assert!(open(&mut couriers[1], &mut into, &mut links[1]));
            assert_eq!(finish(&mut couriers[0], &mut out, &mut links[0]), None);
            assert_eq!((gets, trades), (gives, back == gives));
            joined(&mut couriers, &mut links, 2);
        }
    }
}
