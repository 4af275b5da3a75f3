//! One rank in one exchange, as the checks play it: it offers and meets, or goes on by the ordinary methods.

use crate::play::{Patience, bytes_of, call};
use crate::seeded::stream;
use sohu_coll_core::Rank;
use sohu_coll_core::link::{Links, Met, Work};
use sohu_coll_mem::{ReadSpan, View, ViewMut};
use std::cell::{Cell, RefCell};

/// The most often that a check looks again for what has yet to come.
pub(crate) const LOOKS: u32 = 50;

/// Which way the bytes of an exchange go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From every rank to all others, the same ones.
    All,
    /// From one rank to all others, the same ones.
    Spread(Rank),
    /// From one rank to all others, a block each.
    Deal(Rank),
    /// From all ranks to one.
    Collect(Rank),
}

/// What `from` sends `to` in the call number `sequence`.
pub(crate) fn said(way: Way, from: Rank, to: Rank, sequence: u32, len: usize) -> Vec<u8> {
    let block = if let Way::Deal(_) = way { u64::from(to.0) + 1 } else { 0 };
    stream(block << 40 | u64::from(sequence) << 8 | u64::from(from.0), len)
}

/// Bytes that go to some ranks, and how many have gone.
struct Gift {
    to: Vec<Rank>,
    bytes: Vec<u8>,
    sent: usize,
}

/// Bytes in memory that can be lent, and what makes a span of them.
pub(crate) type Lent<'a> = (View<'a>, &'a dyn Fn() -> ReadSpan);

/// One rank in one call in which all that give any give the same number of bytes.
pub(crate) struct Side {
    rank: Rank,
    way: Way,
    sequence: u32,
    len: usize,
    gifts: Vec<Gift>,
    /// Whom it takes bytes from, and what came.
    from: Vec<Rank>,
    got: Vec<Vec<u8>>,
    /// Whether all of the bytes went with the offer, and the peers may still be met.
    pub(crate) meeting: bool,
    /// Whether nothing is left but to settle.
    taken: bool,
    pub(crate) verified: bool,
    pub(crate) done: bool,
}

impl Side {
    pub(crate) fn new(link: &dyn Links, way: Way, sequence: u32, len: usize) -> Self {
        let rank = link.rank();
        let peers: Vec<Rank> = (0..link.size()).map(Rank).filter(|peer| *peer != rank).collect();
        let (to, from) = match way {
            Way::All => (peers.clone(), peers),
            Way::Spread(root) | Way::Deal(root) if root == rank => (peers, vec![]),
            Way::Spread(root) | Way::Deal(root) => (vec![], vec![root]),
            Way::Collect(root) if root == rank => (vec![], peers),
            Way::Collect(root) => (vec![root], vec![]),
        };
        let gift = |to: Vec<Rank>| Gift { bytes: said(way, rank, to[0], sequence, len), to, sent: 0 };
        let gifts = match way {
            Way::Deal(_) => to.into_iter().map(|peer| gift(vec![peer])).collect(),
            _ if to.is_empty() => vec![],
            _ => vec![gift(to)],
        };
        let got = vec![Vec::new(); from.len()];
        Self {
            rank,
            way,
            sequence,
            len,
            gifts,
            from,
            got,
            meeting: false,
            taken: false,
            verified: false,
            done: false,
        }
    }

    /// Whether all of its bytes have gone.
    pub(crate) fn has_sent(&self) -> bool {
        self.gifts.iter().all(|gift| gift.sent == gift.bytes.len())
    }

    /// Begins the call as an exchange.
    pub(crate) fn offer(&mut self, link: &mut dyn Links, lent: Option<ReadSpan>) {
        let call = call(self.sequence);
        if let (Way::All | Way::Spread(_) | Way::Collect(_), [gift]) = (self.way, &mut *self.gifts) {
            gift.sent = link.offer(&call, &gift.to, View::from(&gift.bytes[..]), lent);
            assert!(gift.sent <= gift.bytes.len(), "{} bytes went", gift.sent);
            self.meeting = gift.sent == gift.bytes.len();
            return;
        }
        let to: Vec<Rank> = self.gifts.iter().flat_map(|gift| gift.to.clone()).collect();
        let blocks: Vec<View<'_>> = self.gifts.iter().map(|gift| View::from(&gift.bytes[..])).collect();
        self.meeting = link.offer_blocks(&call, &to, &blocks);
        if self.meeting {
            self.gifts.iter_mut().for_each(|gift| gift.sent = gift.bytes.len());
        }
    }

    /// Makes the call in one go, if links can: it is an exchange of two ranks then. `lent` are its bytes, and what makes a
    /// span of them. Returns whether that went.
    pub(crate) fn make(&mut self, link: &mut dyn Links, lent: Option<Lent<'_>>, looks: u32) -> bool {
        if self.way != Way::All || link.size() != 2 {
            return false;
        }
        let own = self.gifts[0].bytes.clone();
        let (bytes, lend) = lent.map_or((View::from(&own[..]), None), |(bytes, lend)| (bytes, Some(lend)));
        let (seen, meanwhile): (RefCell<Option<Vec<Vec<u8>>>>, _) = (RefCell::new(None), Cell::new(0));
        let take = &mut |views: &[View<'_>]| {
            let twice = seen.replace(Some(views.iter().map(|view| bytes_of(*view)).collect()));
            assert!(twice.is_none(), "taken twice");
        };
        let count = &mut || {
            assert!(lend.is_some() && seen.borrow().is_some(), "nothing is waited for");
            meanwhile.set(meanwhile.get() + 1);
        };
        let mut room = vec![0; self.len];
        let work = Work { take, into: self.place(&mut room), meanwhile: Some(count) };
        let met = link.exchange(&call(self.sequence), bytes, lend, looks, work);
        assert!(meanwhile.get() <= 1, "called {} times", meanwhile.get());
        let Some(met) = met else { return false };
        let seen = seen.into_inner();
        self.gifts[0].sent = self.len;
        self.came_to(link, met, seen);
        true
    }

    /// Meets the peers, if they may be met. Returns whether they were.
    pub(crate) fn meet(&mut self, link: &mut dyn Links, looks: u32) -> bool {
        if !self.meeting {
            return false;
        }
        let mut seen: Option<Vec<Vec<u8>>> = None;
        let take = &mut |views: &[View<'_>]| {
            assert!(seen.is_none(), "taken twice");
            seen = Some(views.iter().map(|view| bytes_of(*view)).collect());
        };
        let mut room = vec![0; self.len];
        let work = Work { into: self.place(&mut room), ..Work::new(take) };
        let met = link.meet(&self.from, self.len, looks, work);
        self.came_to(link, met, seen)
    }

    /// Where bytes go as they are: in every other call they go nowhere.
    fn place<'a>(&self, room: &'a mut [u8]) -> Option<ViewMut<'a>> {
        ((self.sequence as usize + self.len) % 2 == 1 && self.from.len() == 1).then(|| ViewMut::from(room))
    }

    /// Checks what a look for the peers came to. Returns whether they were there.
    fn came_to(&mut self, link: &mut dyn Links, met: Met, seen: Option<Vec<Vec<u8>>>) -> bool {
        self.meeting = met == Met::NotYet;
        let came = matches!(met, Met::Everybody | Met::Settled);
        assert_eq!(seen.is_some(), came, "{self}: {met:?}");
        if let Some(seen) = seen {
            self.got = seen;
            self.taken = true;
            self.verified = true;
            assert_eq!(link.verify(), Ok(true), "{self}: all is verified when all has come");
            self.check();
        }
        if met == Met::Settled {
            // Links may refuse now and then, but not for ever, and not for want of the peers.
            let mut patience = Patience::new();
            while !link.settled().expect("settled") {
                patience.note(false, &|| format!("{self} settled, and then did not"));
            }
            self.done = true;
        }
        came
    }

    /// Sends what is left to send, and tells peers of the call, without taking anything.
    pub(crate) fn push(&mut self, link: &mut dyn Links) -> bool {
        let mut moved = link.poll().unwrap_or_else(|error| panic!("{self}: poll: {error}"));
        for gift in self.gifts.iter_mut().filter(|gift| gift.sent < gift.bytes.len()) {
            let rest = View::from(&gift.bytes[gift.sent..]);
            let sent = link.send(&gift.to, rest).unwrap_or_else(|error| panic!("send: {error}"));
            gift.sent += sent;
            moved |= sent > 0;
        }
        let verified = link.verify().unwrap_or_else(|error| panic!("{self}: verify: {error}"));
        moved |= verified != self.verified;
        self.verified = verified;
        moved
    }

    /// Does a little of what is left to do, by the ordinary methods if the peers can not be met. Returns whether
    /// anything moved.
    pub(crate) fn step(&mut self, link: &mut dyn Links) -> bool {
        if self.meeting {
            return self.meet(link, 0) || !self.meeting;
        }
        if self.done {
            return false;
        }
        let mut moved = self.push(link);
        if !self.taken {
            for (peer, got) in self.from.iter().zip(&mut self.got) {
                let mut room = vec![0; self.len - got.len()];
                let taken = link.recv(*peer, ViewMut::from(&mut room[..]));
                let taken = taken.unwrap_or_else(|error| panic!("recv from {peer}: {error}"));
                got.extend(&room[..taken]);
                moved |= taken > 0;
            }
            self.taken = self.got.iter().all(|got| got.len() == self.len);
            if self.taken {
                self.check();
            }
        }
        if self.taken && self.verified && self.has_sent() && link.settled().expect("settled") {
            link.ring();
            self.done = true;
            moved = true;
        }
        moved
    }

    fn check(&self) {
        assert_eq!(self.got.len(), self.from.len(), "{self}: bytes of so many peers came");
        for (peer, got) in self.from.iter().zip(&self.got) {
            let right = *got == said(self.way, *peer, self.rank, self.sequence, self.len);
            assert!(right, "{self}: other bytes came of {peer} than it sent");
        }
    }
}

impl core::fmt::Display for Side {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} in call {} of {} bytes, {:?}", self.rank, self.sequence, self.len, self.way)
    }
}
