//! Whether a peer's core shares a cache with this rank's: found out by looking how long a few lines take.
//!
//! What a core has just written comes to another one with a last-level cache of its own at 2 GB/s: each line takes four times as long as from
//! a neighbour (200 ns against 50 on the first machine measured), and few are fetched at once. Written past the caches, into
//! memory, the same bytes are read at 10. Between neighbours it is the other way round (64 KiB: 4 us and 10). Which of the two a
//! pair of ranks is can change while they run, where a hypervisor moves their processors about. So every now and then a rank
//! stores to the lines of a beacon before it sends a chunk, and the reader of the chunk times how long they take, all asked for at once:
//! how long a single one takes says little (80 ns on a machine with one cache for sixty cores, which 64 KiB still cross in 4 us).
//! Not the chunk itself: its lines may have been fetched ahead. And each reader has a beacon of its own: of two that share a core or
//! a cache, the second would find the lines that the first one has fetched.

use super::ShmLinks;
use super::peer::Peer;
use core::hint::black_box;
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_mem::words::{Mapped, Ordering, Words};
use std::time::Instant;

/// A beacon is lit for one chunk in so many, by its number on the link: both sides count.
const LIT_EVERY: u64 = 32;

/// And it is lit for the first few, so that a link whose ends are far apart is known early. The first look of all does not
/// count: it meets a page that was never touched.
pub(super) const LIT_FIRST: u64 = 4;

/// Shorter chunks are staged in the cache, near and far, and nobody looks at the beacon for them.
pub(super) const PAST_FROM: usize = 2048;

/// The lines of a beacon.
pub(super) type Lines = [usize; 16];

/// The lines of a beacon's page that are stored to and timed: in no order that a prefetcher follows, and of every pair of
/// neighbours one, since these are fetched together.
pub(super) const LINES: Lines = lines(0);

/// Those for messages. A look fetches the lines, so two that do not know of each other need lines of their own.
pub(super) const MESSAGE_LINES: Lines = lines(16);

/// A line that takes longer than this in the crowd, in nanoseconds, comes from a cache far away: 16 at once took 5 to 22 each between
/// cores of one last-level cache, the longer the busier it was, and a stream of them takes more than 30 each where that is not so.
const FAR_NS: u32 = 27;

/// Sixteen lines of a page: of the permutation of its pairs, those from the `first` on.
const fn lines(first: usize) -> Lines {
    let mut lines = [0; 16];
    let mut at = 0;
    while at < 16 {
        lines[at] = (first + at) * 19 % 32 * 2;
        at += 1;
    }
    lines
}

/// How far away a peer seems to be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Distance {
    pub(super) far: bool,
    /// Whether the last look said the opposite. It takes two: a single one may have met an interrupt.
    doubted: bool,
    /// Whether a look has counted, here or on the other side.
    pub(super) known: bool,
    /// Whether the peer says that it sees this rank far away: it may be the only one that receives.
    pub(super) told: bool,
}

/// What a rank notes beside its credits when it sees the writer far away.
pub(super) const FAR_NOTE: u16 = 1;

impl Distance {
    /// Looks at the beacon with the chunk of that number and length, if it is lit for it. Says what to note then: for the
    /// writer, who may receive nothing itself.
    #[inline]
    pub(super) fn look(&mut self, (beacon, lines): (&Mapped, Lines), chunk: u64, len: usize) -> Option<u16> {
        if !is_lit(chunk) || len < PAST_FROM {
            return None;
        }
        let far = line_ns(beacon, lines) > FAR_NS;
        if chunk > 0 {
            self.known = true;
            self.looked(far);
        }
        Some(if self.far { FAR_NOTE } else { 0 })
    }

    /// Whether what this rank stages for the peer travels far.
    pub(super) fn is_far(&self) -> bool {
        self.far || self.told
    }

    fn looked(&mut self, far: bool) {
        if far == self.far {
            self.doubted = false;
        } else if self.doubted {
            (self.far, self.doubted) = (far, false);
        } else {
            self.doubted = true;
        }
    }
}

impl ShmLinks {
    /// Whether one of these peers is far.
    #[inline]
    pub(super) fn is_far(&self, to: &[Rank]) -> bool {
        to.iter().any(|rank| self.peers.at(*rank).distance.is_far())
    }

    /// Whether any peer is far.
    #[inline]
    pub(super) fn has_far_peer(&self) -> bool {
        self.peers.iter().any(|peer| peer.distance.is_far())
    }

    /// Hears how far away those of these peers see this rank that will look at its beacon with the chunk of `len` bytes that comes
    /// next: who only sends, and never lacks room, reads their credits at no other time.
    #[inline]
    pub(super) fn listen(&mut self, to: &[Rank], len: usize) -> Result<(), LinkError> {
        if len < PAST_FROM {
            return Ok(());
        }
        for rank in to {
            let peer = self.peers.at_mut(*rank);
            if is_lit(peer.chunks_put) {
                peer.collect(&mut self.shared)?;
            }
        }
        Ok(())
    }

    /// Lights the beacon of each of these peers that will look at it with the chunk of `len` bytes that comes next.
    #[inline]
    pub(super) fn light(&self, to: &[Rank], len: usize) {
        if len < PAST_FROM {
            return;
        }
        for peer in to.iter().map(|rank| self.peers.at(*rank)) {
            if is_lit(peer.chunks_put) {
                light(&peer.own_beacon, LINES);
            }
        }
    }
}

/// Whether the beacon is lit for the chunk with this number.
#[inline]
pub(super) fn is_lit(chunk: u64) -> bool {
    chunk < LIT_FIRST || chunk.is_multiple_of(LIT_EVERY)
}

/// Stores to the lines, so that they lie in this core's cache and in no other one.
#[cold]
pub(super) fn light(beacon: &Mapped, lines: Lines) {
    for line in lines {
        let word = beacon.word(line * 8);
        // What is stored does not matter, and it is read for nothing else.
        word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

impl Peer {
    /// Looks how far away the peer is, if its beacon is lit for the staged chunk of `len` bytes that has come.
    #[inline]
    pub(super) fn look_out(&mut self, len: usize) {
        if let Some(note) = self.distance.look((&self.beacon, LINES), self.chunks_taken, len) {
            self.credit_tx.leave_note(note);
        }
    }
}

/// Average time to fetch a line of the beacon, in nanoseconds, of all that are asked for at once.
#[cold]
fn line_ns(beacon: &Mapped, lines: Lines) -> u32 {
    let begun = Instant::now();
    let mut seen = 0u64;
    for line in lines {
        seen = seen.wrapping_add(beacon.word(line * 8).load(Ordering::Relaxed));
    }
    black_box(seen);
    begun.elapsed().subsec_nanos() / lines.len() as u32
}

#[cfg(test)]
mod tests {
    use super::super::room::Room;
    use super::super::room::tests::{idle_links, pair};
    use super::*;
    use crate::Layout;
    use sohu_coll_core::Signature;
    use sohu_coll_core::link::Links;
    use sohu_coll_mem::{View, ViewMut};

    /// The links of rank 0 of three. Rank 1 is far.
    fn links() -> ShmLinks {
        let mut links = idle_links(Layout::new(3, 64 << 10, 0));
        links.peers.at_mut(Rank(1)).distance.far = true;
        links
    }

    #[test]
    fn what_near_ranks_alone_read_is_not_staged_where_a_far_one_reads() {
        let mut links = links();
        let (near, far) = (Rank(2), Rank(1));
        let split = 64 << 10;
        let cases: [(&[Rank], usize, bool, bool); 5] = [
            (&[near], 8192, true, false),
            (&[far], 8192, false, true),
            (&[near, far], 8192, false, true),
            (&[near], 100, true, false),
            // Too short to go past the caches, and yet apart from what near ranks read.
            (&[far], 100, false, false),
        ];
        for (to, len, is_near, past) in cases {
            let (room, found) = links.room(to, len).expect("the links are well");
            let Room::Staged(at) = room else { panic!("{len} bytes to {to:?} are staged") };
            assert_eq!((found, at >= split, links.shared.past_caches), (len, is_near, past), "{to:?} {len}");
        }
        // Where nobody is far, all share the one ring.
        links.peers.at_mut(far).distance.far = false;
        let (room, _) = links.room(&[near], 8192).expect("the links are well");
        assert!(matches!(room, Room::Staged(at) if at < split));
    }

    #[test]
    fn who_only_sends_hears_that_it_is_seen_far_away() {
        let [mut sender, mut receiver] = pair(Layout::new(2, 64 << 10, 0));
        receiver.peers.at_mut(Rank(0)).distance.far = true;
        for links in [&mut sender, &mut receiver] {
            links.begin(&Signature::none()).expect("the links are well");
        }
        let bytes = [7; PAST_FROM];
        let mut told = Vec::new();
        // One look says that the sender is near, which the second would have to confirm.
        for _ in 0..2 {
            assert_eq!(sender.send(&[Rank(1)], View::from(&bytes[..])), Ok(PAST_FROM));
            told.push(sender.peers.at(Rank(1)).distance.told);
            let mut got = [0; PAST_FROM];
            assert_eq!(receiver.recv(Rank(0), ViewMut::from(&mut got[..])), Ok(PAST_FROM));
            assert_eq!(receiver.poll(), Ok(true), "what was taken is credited");
        }
        assert_eq!(told, [false, true]);
    }

    #[test]
    fn a_link_is_looked_at_early_and_then_now_and_then() {
        let lit: Vec<u64> = (0..100).filter(|chunk| is_lit(*chunk)).collect();
        assert_eq!(lit, [0, 1, 2, 3, 32, 64, 96]);
    }

    #[test]
    fn the_beacons_of_two_readers_share_no_line() {
        let links = links();
        let light = |rank| light(&links.peers.at(rank).own_beacon, LINES);
        let seen = |rank: Rank| {
            let layout = *links.layout();
            let page = links.segment.map.view(layout.beacon(rank.index()).start, layout.beacon(0).len());
            let mut bytes = vec![0; page.len()];
            page.copy_to(ViewMut::from(&mut bytes[..]));
            bytes.iter().filter(|byte| **byte != 0).count()
        };
        light(Rank(1));
        assert_eq!((seen(Rank(1)), seen(Rank(2))), (LINES.len(), 0));
        light(Rank(2));
        assert_eq!((seen(Rank(1)), seen(Rank(2))), (LINES.len(), LINES.len()));
    }

    #[test]
    fn calls_and_messages_look_at_no_pair_of_lines_that_the_other_looks_at() {
        let pairs = |lines: Lines| lines.map(|line| line / 2);
        assert!(pairs(LINES).iter().all(|pair| !pairs(MESSAGE_LINES).contains(pair)));
        assert!(LINES.iter().chain(&MESSAGE_LINES).all(|line| *line < 64), "a page has 64");
    }

    #[test]
    fn two_looks_in_a_row_change_the_distance_and_one_does_not() {
        let mut distance = Distance::default();
        for (look, far) in
            [(true, false), (false, false), (true, false), (true, true), (false, true), (false, false)]
        {
            distance.looked(look);
            assert_eq!(distance.far, far);
        }
    }
}
