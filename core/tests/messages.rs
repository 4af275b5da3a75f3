//! The courier over pipes in memory that stumble by seed: messages of any type and length, in groups of any order,
//! some of which the ranks do not agree on. Every byte of every buffer is looked at. A failing run prints its seed.

use sohu_coll_conformance::{Faults, LoopLinks, Seeded};
use sohu_coll_core::error::LinkError;
use sohu_coll_core::exec::Progress;
use sohu_coll_core::link::Links;
use sohu_coll_core::pipe::Strand;
use sohu_coll_core::transfer::{Courier, Disagreement, Item, Muddle};
use sohu_coll_core::{DType, Rank, Transfer, Way};
use sohu_coll_mem::View;
use std::collections::BTreeMap;
use std::ops::Range;

/// Polls in a row in which no rank moves before a run counts as stuck.
const IDLE_MAX: u32 = 4_000;

/// What outputs hold before a call.
const UNTOUCHED: u8 = 0xee;

fn pick<T: Copy>(random: &mut Seeded, from: &[T]) -> T {
    from[random.below(from.len())]
}

/// One message, as its two ranks see it.
#[derive(Clone, Copy, Debug)]
struct Message {
    from: u32,
    to: u32,
    key: usize,
    /// Type and count: of the sender, of the receiver.
    says: [(DType, u64); 2],
}

impl Message {
    fn agreed(&self) -> bool {
        self.says[0] == self.says[1]
    }

    fn bytes(&self, way: Way) -> usize {
        let (dtype, count) = self.says[way as usize];
        dtype.size() * count as usize
    }

    fn content(&self, at: usize) -> u8 {
        ((at + self.key * 31) % 251) as u8
    }

    /// This message as a transfer of the rank that does `way`.
    fn transfer(&self, way: Way) -> Transfer {
        let (dtype, count) = self.says[way as usize];
        Transfer { way, dtype, count, peer: Rank(if way == Way::Send { self.to } else { self.from }) }
    }
}

/// The messages between `size` ranks in one round.
fn messages(random: &mut Seeded, size: u32, crumbs: bool) -> Vec<Message> {
    let mut drawn = Vec::new();
    for key in 0..random.below(4 * size as usize) {
        let (from, to) = (random.below(size as usize) as u32, random.below(size as usize) as u32);
        let dtype = pick(random, &DType::ALL);
        let most = if crumbs { 700 } else { pick(random, &[20_000, 70_000]) };
        let count = pick(random, &[0, 1, 3, 40, 41, 500, most]) as u64;
        let other = match random.below(6) {
            0 => (dtype, count + 1),
            1 => (pick(random, &DType::ALL), count),
            2 if count > 0 => (dtype, count - 1),
            _ => (dtype, count),
        };
        // What a rank sends to itself is compared before anything moves: another test.
        let other = if from == to { (dtype, count) } else { other };
        drawn.push(Message { from, to, key, says: [(dtype, count), other] });
    }
    drawn
}

/// What one rank does in a round: calls one after the other, each of which is transfers by the number of their message.
type Calls = Vec<Vec<(usize, Way)>>;

/// The transfers of `rank`, in a random order that keeps that of each pipe.
fn shuffled(random: &mut Seeded, rank: u32, messages: &[Message]) -> Vec<(usize, Way)> {
    let mut queues: Vec<Vec<(usize, Way)>> = Vec::new();
    for way in [Way::Send, Way::Recv] {
        let ends = |m: &Message| if way == Way::Send { (m.from, m.to) } else { (m.to, m.from) };
        for peer in 0..=messages.iter().map(|m| m.from.max(m.to)).max().unwrap_or(0) {
            let own = messages.iter().enumerate().filter(|(_, m)| ends(m) == (rank, peer));
            queues.push(own.map(|(index, _)| (index, way)).rev().collect());
        }
    }
    let mut order = Vec::new();
    queues.retain(|queue| !queue.is_empty());
    while !queues.is_empty() {
        let at = random.below(queues.len());
        order.extend(queues[at].pop());
        queues.retain(|queue| !queue.is_empty());
    }
    order
}

/// One rank may do its transfers one after the other where all others do theirs at once: as one call, or as many that go on
/// side by side. Says which rank it is.
fn calls(random: &mut Seeded, size: u32, messages: &[Message]) -> (u32, Vec<Calls>) {
    let alone = random.below(2 * size as usize) as u32;
    let one = |rank| {
        let all = shuffled(random, rank, messages);
        if rank != alone && random.below(2) == 0 {
            return vec![all];
        }
        let (own, others) = all.into_iter().partition(|(m, _)| messages[*m].from == messages[*m].to);
        let others: Vec<(usize, Way)> = others;
        std::iter::once(own).chain(others.into_iter().map(|transfer| vec![transfer])).collect()
    };
    (alone, (0..size).map(one).collect())
}

/// One rank in a round.
struct Player<'a> {
    calls: Vec<Vec<Item<'a>>>,
    /// The call that it is in, or that is the next to join the others; and whether that was begun.
    at: usize,
    begun: bool,
    /// Whether its calls go on side by side.
    joins: bool,
    /// The items of the calls that go on side by side, with vacant ones between, and which are whose.
    items: Vec<Item<'a>>,
    open: Vec<(usize, Range<usize>)>,
    /// What its calls ended with.
    told: BTreeMap<usize, Option<Disagreement>>,
}

impl<'a> Player<'a> {
    fn new(calls: Vec<Vec<Item<'a>>>, joins: bool) -> Self {
        let (items, open, told) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { calls, at: 0, begun: false, joins, items, open, told }
    }

    fn is_through(&self) -> bool {
        self.at == self.calls.len() && self.open.is_empty() && !self.begun
    }

    /// Does something. Says whether anything moved.
    fn step(&mut self, random: &mut Seeded, courier: &mut Courier, links: &mut LoopLinks) -> bool {
        if !self.joins {
            return self.one_by_one(random, courier, links);
        }
        if self.at < self.calls.len() && random.below(4) == 0 {
            self.join(courier);
            return true;
        }
        if !self.begun {
            return false;
        }
        let progress = courier.poll(&mut self.items, links.pipes()).expect("links that do not break");
        let ended = courier.take_ended();
        let (over, open) = self.open.drain(..).partition(|(_, place)| courier.is_over(place.clone()));
        self.open = open;
        let over: Vec<(usize, Range<usize>)> = over;
        assert!(over.is_empty() || ended, "calls end with an item");
        for (call, place) in over {
            self.told.insert(call, courier.disagreement(&self.items, place.clone()));
            // Their bytes are their caller's again.
            self.items[place].fill_with(Item::vacant);
        }
        self.begun = progress != Progress::Done || !self.open.is_empty();
        progress != Progress::Idle
    }

    /// Adds the next call to those that go on, where there is room among them.
    fn join(&mut self, courier: &mut Courier) {
        let call = std::mem::take(&mut self.calls[self.at]);
        let is_free = |at: usize| !self.open.iter().any(|(_, place)| place.contains(&at));
        let first = (0..).find(|first| (*first..first + call.len()).all(is_free)).expect("at the end");
        let place = first..first + call.len();
        if !self.begun {
            courier.begin(&mut []).expect("nothing is in it");
        }
        let len = self.items.len().max(place.end);
        self.items.resize_with(len, Item::vacant);
        for (into, item) in self.items[place.clone()].iter_mut().zip(call) {
            *into = item;
        }
        courier.join(&mut self.items, place.clone()).expect("what a rank sends to itself fits");
        self.open.push((self.at, place));
        self.at += 1;
        self.begun = true;
    }

    fn one_by_one(&mut self, random: &mut Seeded, courier: &mut Courier, links: &mut LoopLinks) -> bool {
        let Some(items) = self.calls.get_mut(self.at) else { return false };
        if !self.begun {
            let looks = random.below(3) as u32;
            if courier.open(items, looks, links.pipes()).expect("what a rank sends to itself fits") {
                self.told.insert(self.at, None);
                self.at += 1;
                return true;
            }
            self.begun = true;
            return true;
        }
        let progress = courier.poll(items, links.pipes()).expect("links that do not break");
        if progress == Progress::Done {
            assert_eq!(courier.waiting_on().count() + courier.waiting_for().count(), 0);
            assert!(courier.is_over(0..items.len()));
            self.told.insert(self.at, courier.disagreement(items, 0..items.len()));
            self.at += 1;
            self.begun = false;
        } else {
            assert!(courier.waiting_on().count() > 0, "a call that is not done waits for somebody");
        }
        progress != Progress::Idle
    }
}

fn simulate(seed: u64) {
    let mut random = Seeded::new(seed);
    let size = pick(&mut random, &[1, 2, 2, 3, 5]);
    let crumbs = random.below(3) == 0;
    let faults = Faults {
        seed: random.next(),
        max_piece: if crumbs { pick(&mut random, &[1, 3, 17]) } else { usize::MAX },
        refuse_percent: pick(&mut random, &[0, 20, 60]),
        window_bytes: pick(&mut random, &[64, 1000, 1 << 16]),
        lends_from: pick(&mut random, &[1024, 70_000, usize::MAX]),
        ..Faults::NONE
    };
    let mut links = LoopLinks::fabric(size, faults);
    let past_from = pick(&mut random, &[0, 5000, usize::MAX]);
    let courier = |rank| Courier::new(Rank(rank), size).storing_past_caches_from(past_from);
    let mut couriers: Vec<Courier> = (0..size).map(courier).collect();
    for round in 0..3 {
        let messages = messages(&mut random, size, crumbs);
        let (alone, calls) = calls(&mut random, size, &messages);
        play(
            &format!("seed {seed}, round {round}"),
            &mut random,
            &messages,
            (alone, &calls),
            &mut couriers,
            &mut links,
        );
    }
}

fn play(
    what: &str,
    random: &mut Seeded,
    messages: &[Message],
    (alone, calls): (u32, &[Calls]),
    couriers: &mut [Courier],
    links: &mut [LoopLinks],
) {
    let gives: Vec<Vec<u8>> =
        messages.iter().map(|m| (0..m.bytes(Way::Send)).map(|at| m.content(at)).collect()).collect();
    let mut gets: Vec<Vec<u8>> = messages.iter().map(|m| vec![UNTOUCHED; m.bytes(Way::Recv)]).collect();
    let mut outputs: Vec<Option<&mut [u8]>> = gets.iter_mut().map(|bytes| Some(&mut bytes[..])).collect();
    let mut item = |(index, way): (usize, Way)| {
        let message = &messages[index];
        let Transfer { dtype, peer, .. } = message.transfer(way);
        match way {
            Way::Send => Item::send(dtype, &gives[index], peer),
            Way::Recv => Item::recv(dtype, outputs[index].take().expect("received once"), peer),
        }
    };
    let mut players: Vec<Player<'_>> = Vec::new();
    for (rank, calls) in (0..).zip(calls) {
        let calls = calls.iter().map(|call| call.iter().map(|one| item(*one)).collect()).collect();
        players.push(Player::new(calls, rank != alone));
    }
    let mut idle = 0;
    while !players.iter().all(Player::is_through) {
        let rank = random.below(players.len());
        let moved = players[rank].step(random, &mut couriers[rank], &mut links[rank]);
        idle = if moved { 0 } else { idle + 1 };
        assert!(idle < IDLE_MAX, "{what}: nothing moves any more");
    }
    for (player, calls) in players.iter().zip(calls) {
        assert_eq!(player.told.len(), calls.len(), "{what}: every call ends");
        for (told, call) in player.told.values().zip(calls) {
            let first = call.iter().find(|(index, _)| !messages[*index].agreed());
            let expected = first.map(|(index, way)| {
                let other = if *way == Way::Send { Way::Recv } else { Way::Send };
                let message = &messages[*index];
                Disagreement { ours: message.transfer(*way), theirs: message.transfer(other) }
            });
            assert_eq!(*told, expected, "{what}");
        }
    }
    drop(players);
    for (message, bytes) in messages.iter().zip(&gets) {
        let right = |(at, byte): (usize, &u8)| *byte == message.content(at);
        match message.agreed() {
            true => assert!(bytes.iter().enumerate().all(right), "{what}: {message:?} came wrong"),
            false => assert!(bytes.iter().all(|byte| *byte == UNTOUCHED), "{what}: {message:?} was written"),
        }
    }
}

#[test]
fn messages_of_any_order_arrive_and_disagreements_are_told_to_both() {
    (0..1_500).for_each(simulate);
}

/// Polls both ranks until neither moves.
fn exhaust(couriers: &mut [Courier; 2], items: &mut [Vec<Item<'_>>; 2], links: &mut [LoopLinks]) {
    for _ in 0..50 {
        for rank in 0..2 {
            couriers[rank].poll(&mut items[rank], links[rank].pipes()).expect("a good link");
        }
    }
}

#[test]
fn what_is_waited_for_is_named() {
    let (one, mut two) = ([0; 40], [0; 48]);
    let mut links = LoopLinks::fabric(2, Faults::NONE);
    let mut couriers = [0, 1].map(|rank| Courier::new(Rank(rank), 2));
    let mut items =
        [vec![Item::send(DType::F32, &one, Rank(1)), Item::recv(DType::F32, &mut two, Rank(1))], vec![]];
    couriers[0].begin(&mut items[0]).expect("nothing to itself");
    exhaust(&mut couriers, &mut items, &mut links);
    let waits = couriers[0].waiting_for().map(|index| items[0][index].transfer().to_string());
    let waits: Vec<String> = waits.collect();
    assert_eq!(waits, ["send float[10] to rank 1", "recv float[12] from rank 1"]);
    assert!(couriers[0].waiting_on().all(|rank| rank == Rank(1)));
}

#[test]
fn more_messages_than_may_be_without_an_answer_wait_for_theirs() {
    let bytes = [7; 8];
    let mut into = [[0; 8]; 100];
    let mut links = LoopLinks::fabric(2, Faults::NONE);
    let mut couriers = [0, 1].map(|rank| Courier::new(Rank(rank), 2));
    let sends: Vec<Item<'_>> = (0..100).map(|_| Item::send(DType::U8, &bytes, Rank(1))).collect();
    let mut items = [sends, vec![]];
    couriers[0].begin(&mut items[0]).expect("nothing to itself");
    exhaust(&mut couriers, &mut items, &mut links);
    let mut came = 0;
    while links[1].pipes().take(Rank(0), Strand::Bytes, 1, &mut |view| view.len()) != Ok(0) {
        came += 1;
    }
    // Head and bytes, as often as there is room for answers that nobody takes.
    assert!(came > 0 && came <= 24 * 16, "{came} bytes went ahead");
    // A rank that takes what is there can go on: 100 messages later all have come.
    let mut links = LoopLinks::fabric(2, Faults::NONE);
    let mut couriers = [0, 1].map(|rank| Courier::new(Rank(rank), 2));
    let sends: Vec<Item<'_>> = (0..100).map(|_| Item::send(DType::U8, &bytes, Rank(1))).collect();
    let recvs = into.iter_mut().map(|into| Item::recv(DType::U8, into, Rank(0))).collect();
    let mut items = [sends, recvs];
    for (courier, items) in couriers.iter_mut().zip(&mut items) {
        courier.begin(items).expect("nothing to itself");
    }
    exhaust(&mut couriers, &mut items, &mut links);
    drop(items);
    assert_eq!(into, [[7; 8]; 100]);
}

#[test]
fn a_rank_s_messages_to_itself_must_fit() {
    let (one, other) = ([1; 4], [2; 4]);
    let mut into = [0; 4];
    let mut courier = Courier::new(Rank(1), 2);
    let alone = courier.begin(&mut [Item::send(DType::U8, &one, Rank(1))]);
    assert!(matches!(alone, Err(Muddle::Alone(Transfer { way: Way::Send, .. }))), "{alone:?}");
    let mut items = [
        Item::recv(DType::U8, &mut into[..3], Rank(1)),
        Item::send(DType::U8, &one[..3], Rank(1)),
        Item::send(DType::U8, &other, Rank(1)),
    ];
    assert!(matches!(courier.begin(&mut items), Err(Muddle::Alone(Transfer { count: 4, .. }))));
    assert_eq!(into, [0; 4], "a call that makes no sense wrote");
    let mut items = [Item::recv(DType::I8, &mut into, Rank(1)), Item::send(DType::U8, &one, Rank(1))];
    let differ = courier.begin(&mut items);
    assert!(matches!(differ, Err(Muddle::Differ(told)) if told.ours.way == Way::Send), "{differ:?}");
    let (mut first, mut second) = ([0; 4], [0; 4]);
    let mut items = [
        Item::recv(DType::U8, &mut first, Rank(1)),
        Item::send(DType::U8, &one, Rank(1)),
        Item::send(DType::U8, &other, Rank(1)),
        Item::recv(DType::U8, &mut second, Rank(1)),
    ];
    courier.begin(&mut items).expect("two of each");
    assert_eq!((first, second), (one, other));
}

#[test]
fn garbage_of_a_peer_is_corrupt_and_nothing_is_written() {
    let mut noticed = 0;
    for seed in 0..2_000 {
        let mut random = Seeded::new(seed);
        let mut links = LoopLinks::fabric(2, Faults::NONE);
        let mut courier = Courier::new(Rank(0), 2);
        let (from, mut into) = (vec![1; 30_000], vec![UNTOUCHED; 30_000]);
        let mut items = [Item::send(DType::U8, &from, Rank(1)), Item::recv(DType::U8, &mut into, Rank(1))];
        courier.begin(&mut items).expect("nothing to itself");
        // Mostly what a peer would say, with one byte or more that it would not.
        let mut record = [0; 16];
        (record[0], record[1]) = (1 + random.below(2) as u8, DType::U8 as u8);
        record[8..].copy_from_slice(&30_000u64.to_le_bytes());
        for _ in 0..=random.below(3) {
            record[random.below(16)] = random.next() as u8;
        }
        let strand = [Strand::Bytes, Strand::Answers][random.below(2)];
        let put =
            links[1].pipes().put(Rank(0), strand, 16, &mut |room| View::from(&record[..]).copy_to(room));
        assert_eq!(put, Ok(16));
        for _ in 0..4 {
            if let Err(error) = courier.poll(&mut items, links[0].pipes()) {
                assert!(matches!(error, LinkError::Corrupt { peer: Rank(1), .. }), "seed {seed}: {error}");
                noticed += 1;
                break;
            }
        }
        assert!(into.iter().all(|byte| *byte == UNTOUCHED), "seed {seed}: something was written");
    }
    assert!(noticed > 500, "only {noticed} attacks were noticed");
}

#[test]
fn a_call_that_joins_others_ends_although_the_one_behind_it_is_never_met() {
    let (one, other, mut into) = ([1; 40_000], [2; 40_000], [0; 40_000]);
    {
        let mut links = LoopLinks::fabric(2, Faults::NONE);
        let mut couriers = [0, 1].map(|rank| Courier::new(Rank(rank), 2));
        let mut sends: Vec<Item<'_>> = Vec::new();
        couriers[0].begin(&mut sends).expect("nothing is in it");
        // Two to the same rank, and the second of them has no receiver.
        for (call, bytes) in [&one, &other].into_iter().enumerate() {
            sends.push(Item::send(DType::U8, bytes, Rank(1)));
            couriers[0].join(&mut sends, call..call + 1).expect("nothing to itself");
            assert!(!couriers[0].is_over(call..call + 1));
        }
        let mut items = [sends, vec![Item::recv(DType::U8, &mut into, Rank(0))]];
        couriers[1].begin(&mut items[1]).expect("nothing to itself");
        exhaust(&mut couriers, &mut items, &mut links);
        assert!(couriers[0].take_ended() && !couriers[0].take_ended());
        assert!(couriers[0].is_over(0..1) && !couriers[0].is_over(1..2));
        assert!(couriers[1].is_over(0..1));
    }
    assert_eq!(into, one);
}

/// A rank that has sent all it had may leave while others of the same call go on: nobody waits for it.
#[test]
fn a_rank_is_not_waited_for_when_all_that_it_sends_has_come() {
    let mut links = LoopLinks::boxed(3, Faults::NONE);
    let (given, mut here, mut there) = ([7u8; 300], [0u8; 300], [0u8; 300]);
    let mut sender = Courier::new(Rank(0), 3);
    let mut receiver = Courier::new(Rank(1), 3);
    let mut out = [Item::send(DType::U8, &given, Rank(1))];
    let mut into = [Item::recv(DType::U8, &mut here, Rank(0)), Item::recv(DType::U8, &mut there, Rank(2))];
    sender.begin(&mut out).expect("it makes sense");
    receiver.begin(&mut into).expect("it makes sense");
    let mut over = false;
    for _ in 0..50 {
        over |= sender.poll(&mut out, links[0].pipes()).expect("poll") == Progress::Done;
        receiver.poll(&mut into, links[1].pipes()).expect("poll");
    }
    assert!(over, "the sender is through");
    assert_eq!(receiver.waiting_on().collect::<Vec<_>>(), [Rank(2)]);
}
