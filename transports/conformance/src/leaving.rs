//! Checks of exchanges that a rank may leave before others come to them: it may get ahead of them, but only so far, and
//! what they owe is compared when it comes.

use crate::Harness;
use crate::calls::failures;
use crate::play::{Patience, call, until};
use crate::side::{LOOKS, Side, Way};
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{EXCHANGE_MAX, Links, Met, OWED_MAX, Work};
use sohu_coll_core::{Rank, Signature};
use sohu_coll_mem::View;

/// How often ranks that can not go on are given the chance to.
const TRIES: u32 = 200;

/// Calls of each check: more than a rank may be ahead.
const CALLS: u32 = 2 * OWED_MAX as u32 + 3;

/// One rank in a row of exchanges that go the same way.
struct Runner {
    way: Way,
    len: usize,
    sequence: u32,
    side: Option<Side>,
}

impl Runner {
    /// Does a little, in the ordinary way if the peers can not be met. Returns whether anything moved.
    fn step(&mut self, link: &mut dyn Links) -> bool {
        if self.sequence == CALLS {
            return false;
        }
        let is_new = self.side.is_none();
        let side = self.side.get_or_insert_with(|| Side::new(link, self.way, self.sequence, self.len));
        if is_new {
            side.offer(link, None);
        }
        let moved = side.meet(link, LOOKS) || side.step(link);
        if side.done {
            self.side = None;
            self.sequence += 1;
        }
        moved || is_new
    }
}

/// While one rank has not come, the others go on with calls in which they need nothing from it, each as far as it may;
/// when it comes, it finds all bytes.
///
/// # Panics
/// When the contract is broken.
pub fn ranks_get_ahead_of_one_that_is_late_but_only_so_far<H: Harness>() {
    for size in [2, 3, 5] {
        let last = Rank(size - 1);
        for (way, late) in
            [(Way::Spread(Rank(0)), last), (Way::Deal(last), Rank(0)), (Way::Collect(last), last)]
        {
            for len in [1, 40, 41, 300, EXCHANGE_MAX / size as usize] {
                let mut links = H::links(size);
                let mut runners: Vec<Runner> =
                    links.iter().map(|_| Runner { way, len, sequence: 0, side: None }).collect();
                let mut idle = 0;
                while idle < TRIES {
                    idle += 1;
                    for (link, runner) in links.iter_mut().zip(&mut runners) {
                        if link.rank() != late && runner.step(link.as_mut()) {
                            idle = 0;
                        }
                    }
                }
                let most = runners.iter().map(|runner| runner.sequence).max();
                assert!(
                    most <= Some(OWED_MAX as u32),
                    "{way:?} of {len} bytes: {most:?} calls without {late}"
                );
                until("catching up", &mut links, |links| {
                    for (link, runner) in links.iter_mut().zip(&mut runners) {
                        runner.step(link.as_mut());
                    }
                    runners.iter().all(|runner| runner.sequence == CALLS)
                });
            }
        }
    }
}

/// One rank of a call makes another one. Whoever has left the call by then is told in its next one, and both calls are
/// named as they were.
///
/// # Panics
/// When the contract is broken.
pub fn another_call_is_told_to_ranks_that_have_left<H: Harness>() {
    let (ours, theirs) = (call(3), Signature { count: 999, ..call(3) });
    for size in [2, 3, 5] {
        for len in [8, 100] {
            let mut links = H::links(size);
            let odd = Rank(size - 1);
            let bytes = vec![9; len];
            let root = Rank(0);
            let mut has_left = vec![false; size as usize];
            let others: Vec<Rank> = (1..size).map(Rank).collect();
            for link in &mut links {
                let signature = if link.rank() == odd { theirs } else { ours };
                if link.rank() == root {
                    link.offer(&signature, &others, View::from(&bytes[..]), None);
                } else {
                    link.offer_blocks(&signature, &[], &[]);
                }
            }
            for (link, has_left) in links.iter_mut().zip(&mut has_left) {
                let from: &[Rank] = if link.rank() == root { &[] } else { &[root] };
                let own = link.rank();
                let take = &mut |_: &[View<'_>]| assert!(own != odd, "bytes of another call");
                let met = link.meet(from, len, LOOKS, Work::new(take));
                *has_left = matches!(met, Met::Settled | Met::Everybody);
            }
            let mut patience = Patience::new();
            for (link, has_left) in links.iter_mut().zip(&has_left).filter(|(_, has_left)| **has_left) {
                while !link.settled().expect("what was met settles") {
                    patience.note(false, &|| format!("{has_left} and not settled"));
                }
                link.begin(&call(4)).expect("nobody has looked yet");
            }
            let all: Vec<usize> = (0..size as usize).collect();
            let errors = failures(&mut links, &all, |link| link.verify().map(drop));
            for (rank, error) in errors.iter().enumerate().take(odd.index()) {
                assert_eq!(*error, LinkError::Mismatch { peer: odd, ours, theirs }, "rank {rank}");
            }
            let told = matches!(&errors[odd.index()],
                LinkError::Mismatch { peer, ours: own, theirs: other } if *peer != odd && *own == theirs && *other == ours);
            assert!(told, "{}", errors[odd.index()]);
        }
    }
}
