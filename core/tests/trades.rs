//! Trades: a send to a rank and a receive from it in one call, over pipes in memory that stumble by seed. To the other rank it
//! is the same whether they are one call or two. A failing run prints its seed.

use sohu_coll_conformance::{Faults, LoopLinks, Seeded};
use sohu_coll_core::exec::Progress;
use sohu_coll_core::link::Links;
use sohu_coll_core::transfer::{Courier, Disagreement, Item};
use sohu_coll_core::{DType, Rank, Transfer, Way};

/// What outputs hold before a call.
const UNTOUCHED: u8 = 0xee;

/// What a rank makes of its two transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One call, in this order.
    Trade([Way; 2]),
    /// Two calls, in this order.
    Apart([Way; 2]),
}

const SEND_FIRST: [Way; 2] = [Way::Send, Way::Recv];
const RECV_FIRST: [Way; 2] = [Way::Recv, Way::Send];

fn pick<T: Copy>(random: &mut Seeded, from: &[T]) -> T {
    from[random.below(from.len())]
}

/// What rank 0 and rank 1 make, so that neither waits for ever.
fn forms(random: &mut Seeded) -> [Form; 2] {
    let any = |random: &mut Seeded| match random.below(4) {
        0 => Form::Apart(SEND_FIRST),
        1 => Form::Apart(RECV_FIRST),
        2 => Form::Trade(SEND_FIRST),
        _ => Form::Trade(RECV_FIRST),
    };
    loop {
        let forms = [any(random), any(random)];
        match forms {
            [Form::Apart(one), Form::Apart(two)] if one == two => {}
            _ => return forms,
        }
    }
}

/// One rank's messages in a round: what it sends, and the type and count of what it expects.
struct Side<'a> {
    rank: usize,
    sends: (DType, &'a [u8]),
    expects: (DType, &'a mut [u8]),
    form: Form,
    /// How many of its calls are over, and whether the next was begun.
    at: usize,
    begun: bool,
    told: Vec<Disagreement>,
    /// Whether a call was over when it was opened.
    quick: bool,
}

impl Side<'_> {
    fn calls(&self) -> usize {
        if let Form::Trade(_) = self.form { 1 } else { 2 }
    }

    fn step(&mut self, random: &mut Seeded, courier: &mut Courier, links: &mut LoopLinks) -> bool {
        if self.at == self.calls() {
            return false;
        }
        let peer = Rank(1 - self.rank as u32);
        let ways = match self.form {
            Form::Trade(ways) => ways.to_vec(),
            Form::Apart(ways) => vec![ways[self.at]],
        };
        let mut into = Some(&mut *self.expects.1);
        let item = |way: &Way| match way {
            Way::Send => Item::send(self.sends.0, self.sends.1, peer),
            Way::Recv => Item::recv(self.expects.0, into.take().expect("received once"), peer),
        };
        let mut items: Vec<Item<'_>> = ways.iter().map(item).collect();
        let over = if self.begun {
            match courier.poll(&mut items, links.pipes()).expect("links that do not break") {
                Progress::Done => true,
                progress => return progress == Progress::Moved,
            }
        } else {
            let looks = random.below(3) as u32;
            self.begun = true;
            let over = courier.open(&mut items, looks, links.pipes()).expect("nothing is for this rank");
            self.quick |= over;
            if !over {
                return true;
            }
            self.at += 1;
            self.begun = false;
            return true;
        };
        assert!(over && courier.is_over(0..items.len()));
        self.told.extend(courier.disagreement(&items, 0..items.len()));
        self.at += 1;
        self.begun = false;
        true
    }
}

/// What a message holds.
fn content(from: usize, round: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at + 7 * from + 31 * round) % 251) as u8).collect()
}

/// What the calls of a rank must tell: one tells the first of its messages that went wrong, in its order. `says` has, by sender, what
/// sender and receiver say of its message.
fn disagreements(side: &Side<'_>, says: &[[(DType, usize); 2]; 2]) -> Vec<Disagreement> {
    let mut told = Vec::new();
    let (Form::Trade(ways) | Form::Apart(ways)) = side.form;
    let [own, peer] = [side.rank, 1 - side.rank].map(|rank| Rank(rank as u32));
    for way in ways {
        let (said, back) = match way {
            Way::Send => (says[side.rank], Way::Recv),
            Way::Recv => (says[1 - side.rank], Way::Send),
        };
        let transfer = |way, peer| {
            let (dtype, len) = said[way as usize];
            Transfer { way, dtype, count: len as u64, peer }
        };
        if said[0] != said[1] {
            told.push(Disagreement { ours: transfer(way, peer), theirs: transfer(back, own) });
        }
    }
    if let Form::Trade(_) = side.form {
        told.truncate(1);
    }
    told
}

/// Plays one seed; says how often a trade was over at once.
fn simulate(seed: u64) -> usize {
    let mut random = Seeded::new(seed);
    let crumbs = random.below(3) == 0;
    let faults = Faults {
        seed: random.next(),
        max_piece: if crumbs { pick(&mut random, &[1, 3, 17]) } else { usize::MAX },
        refuse_percent: pick(&mut random, &[0, 0, 20, 60]),
        window_bytes: pick(&mut random, &[64, 1000, 1 << 18]),
        lends_from: pick(&mut random, &[1024, 70_000, usize::MAX]),
        ..Faults::NONE
    };
    let mut links = LoopLinks::fabric(2, faults);
    let mut couriers = [0, 1].map(|rank| Courier::new(Rank(rank), 2));
    let mut quick = 0;
    for round in 0..6 {
        let long = if crumbs { 300 } else { pick(&mut random, &[65_536, 65_537, 200_000]) };
        let says = [0, 1].map(|_| {
            let len = pick(&mut random, &[0, 8, 8, 24, 25, 1000, long]);
            let other = if random.below(5) == 0 { len + 1 } else { len };
            let dtype = if random.below(9) == 0 { DType::I8 } else { DType::U8 };
            [(DType::U8, len), (dtype, other)]
        });
        let gives = [0, 1].map(|rank| content(rank, round, says[rank][0].1));
        let mut gets = [1, 0].map(|from: usize| vec![UNTOUCHED; says[from][1].1]);
        let forms = forms(&mut random);
        let what = format!("seed {seed}, round {round}: {forms:?}, {says:?}");
        let [get0, get1] = &mut gets;
        let side = |rank: usize, get| Side {
            rank,
            sends: (says[rank][0].0, &gives[rank]),
            expects: (says[1 - rank][1].0, get),
            form: forms[rank],
            at: 0,
            begun: false,
            told: Vec::new(),
            quick: false,
        };
        let mut sides = [side(0, &mut get0[..]), side(1, &mut get1[..])];
        let mut idle = 0;
        while sides.iter().any(|side| side.at < side.calls()) {
            let rank = random.below(2);
            let moved = sides[rank].step(&mut random, &mut couriers[rank], &mut links[rank]);
            idle = if moved { 0 } else { idle + 1 };
            assert!(idle < 4_000, "{what}: nothing moves any more");
        }
        for side in &sides {
            quick += usize::from(side.quick);
            assert_eq!(side.told, disagreements(side, &says), "{what}");
        }
        for (into, from) in [(0, 1), (1, 0)] {
            let right = match says[from][0] == says[from][1] {
                true => gives[from].clone(),
                false => vec![UNTOUCHED; gets[into].len()],
            };
            assert!(gets[into] == right, "{what}: rank {into} has other bytes than it should");
        }
    }
    quick
}

#[test]
fn a_trade_meets_whatever_the_other_rank_makes_of_its_half() {
    let quick: usize = (0..3_000).map(simulate).sum();
    assert!(quick > 500, "only {quick} trades were over at once");
}
