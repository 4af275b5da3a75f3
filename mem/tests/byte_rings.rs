//! The bookkeeping of the staging ring against an oracle that knows of every byte who holds it.

use std::collections::VecDeque;
use std::ops::Range;

use proptest::prelude::*;
use sohu_coll_mem::byte_ring::{ByteRing, SEGMENT_ALIGN, SegmentId};

/// A segment that the oracle knows to be out.
struct Held {
    id: SegmentId,
    bytes: Range<usize>,
    readers: u32,
}

/// What a run of the oracle does next.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Reserves, and commits that part of what it got (in 256ths) for so many readers; half of the runs
    /// release one segment in between.
    Take { want: usize, least: usize, part: usize, readers: u32, release_between: bool },
    /// Lets one reader of some segment go.
    Release(usize),
}

fn act(capacity: usize) -> impl Strategy<Value = Act> {
    let take = (1..capacity + 65, 1..capacity + 65, 0..=256usize, 1..4u32, any::<bool>()).prop_map(
        |(one, other, part, readers, release_between)| Act::Take {
            want: one.max(other),
            least: one.min(other),
            part,
            readers,
            release_between,
        },
    );
    prop_oneof![1 => take, 2 => any::<usize>().prop_map(Act::Release)]
}

struct Oracle {
    capacity: usize,
    segments_max: usize,
    held: VecDeque<Held>,
}

impl Oracle {
    /// The free pieces: after the newest segment, and at the start of the ring.
    fn pieces(&self) -> (Range<usize>, Range<usize>) {
        let (Some(oldest), Some(newest)) = (self.held.front(), self.held.back()) else {
            return (0..self.capacity, 0..0);
        };
        let end = newest.bytes.end.next_multiple_of(SEGMENT_ALIGN);
        if newest.bytes.start >= oldest.bytes.start {
            (end..self.capacity, 0..oldest.bytes.start)
        } else {
            (end..oldest.bytes.start, 0..0)
        }
    }

    fn expect(&self, want: usize, least: usize) -> Option<usize> {
        let (end, front) = self.pieces();
        let best = end.len().max(front.len());
        match () {
            () if self.held.len() == self.segments_max => None,
            () if best >= want => Some(want),
            () if end.len() >= least => Some(end.len()),
            () if front.len() >= least => Some(front.len()),
            () => None,
        }
    }

    fn release(&mut self, ring: &mut ByteRing, which: usize) {
        let mut with_readers: Vec<&mut Held> = self.held.iter_mut().filter(|held| held.readers > 0).collect();
        if with_readers.is_empty() {
            return;
        }
        let which = which % with_readers.len();
        with_readers[which].readers -= 1;
        ring.release(with_readers[which].id);
        while self.held.front().is_some_and(|held| held.readers == 0) {
            self.held.pop_front();
        }
    }
}

proptest! {
    #[test]
    fn no_byte_has_two_owners_and_none_is_lost(
        (capacity, acts) in (1..20usize).prop_flat_map(|lines| {
            let capacity = lines * SEGMENT_ALIGN;
            (Just(capacity), prop::collection::vec(act(capacity), 0..200))
        }),
        segments_max in 1..7usize,
    ) {
        let mut ring = ByteRing::new(capacity, segments_max);
        let mut oracle = Oracle { capacity, segments_max, held: VecDeque::new() };
        for act in acts {
            match act {
                Act::Release(which) => oracle.release(&mut ring, which),
                Act::Take { want, least, part, readers, release_between } => {
                    let range = ring.reserve(want, least);
                    prop_assert_eq!(range.as_ref().map(Range::len), oracle.expect(want, least));
                    let Some(range) = range else { continue };
                    prop_assert!(range.end <= capacity && range.start.is_multiple_of(SEGMENT_ALIGN));
                    prop_assert!(range.len() == want || range.len().is_multiple_of(SEGMENT_ALIGN));
                    for held in &oracle.held {
                        let apart = range.end <= held.bytes.start || held.bytes.end <= range.start;
                        prop_assert!(apart, "{:?} overlaps {:?}", range, held.bytes);
                    }
                    if release_between {
                        oracle.release(&mut ring, part);
                    }
                    let len = (range.len() * part / 256).max(1);
                    let id = ring.commit(range.start, len, readers);
                    oracle.held.push_back(Held { id, bytes: range.start..range.start + len, readers });
                }
            }
            prop_assert_eq!(ring.outstanding(), oracle.held.len());
            if oracle.held.is_empty() {
                prop_assert_eq!(ring.free(), capacity);
            } else {
                let (end, front) = oracle.pieces();
                prop_assert_eq!(ring.free(), end.len() + front.len());
            }
        }
    }
}

#[test]
fn a_full_ring_is_not_an_empty_one() {
    let mut ring = ByteRing::new(128, 4);
    let all = ring.reserve(128, 128).expect("an empty ring");
    assert_eq!(all, 0..128);
    let id = ring.commit(0, 128, 1);
    assert_eq!(ring.free(), 0);
    assert_eq!(ring.reserve(1, 1), None);
    ring.release(id);
    assert_eq!(ring.free(), 128);
    assert_eq!(ring.reserve(128, 1), Some(0..128));
}

#[test]
fn a_wrap_is_preferred_where_it_gives_all() {
    let mut ring = ByteRing::new(256, 4);
    let first = ring.commit(0, 128, 1);
    ring.commit(128, 64, 1);
    assert_eq!(ring.reserve(128, 64), Some(192..256), "the front is still read");
    ring.release(first);
    assert_eq!(ring.reserve(128, 64), Some(0..128));
    assert_eq!(ring.reserve(129, 64), Some(192..256), "no piece has all");
    assert_eq!(ring.reserve(200, 65), Some(0..128), "the end is short of the least");
    assert_eq!(ring.reserve(200, 129), None);
}

#[test]
fn a_skipped_end_comes_back_with_the_segment_before_it() {
    let mut ring = ByteRing::new(256, 4);
    let first = ring.commit(0, 128, 1);
    let second = ring.commit(128, 64, 1);
    ring.release(first);
    ring.commit(0, 128, 1);
    assert_eq!(ring.free(), 0);
    ring.release(second);
    assert_eq!(ring.reserve(128, 1), Some(128..256));
}

#[test]
fn the_next_place_is_guessed_right_where_it_is_free() {
    let mut ring = ByteRing::new(1024, 8);
    let mut last = None;
    // Round the first 512 bytes, each while the one before is still read.
    for want in [64, 100, 1, 128, 200, 64, 150, 128].repeat(9) {
        let guess = ring.next_within(want, 512);
        assert_eq!(ring.reserve_within(want, want, 512), Some(guess.clone()));
        let id = ring.commit(guess.start, want, 1);
        last.replace(id).into_iter().for_each(|id| ring.release(id));
    }
    assert_eq!(ring.next_within(5000, 1024).len(), 1024, "there is no more");
}

#[test]
fn space_comes_back_in_order() {
    let mut ring = ByteRing::new(128, 2);
    let first = ring.commit(0, 1, 2);
    let second = ring.commit(64, 1, 1);
    ring.release(second);
    ring.release(first);
    assert_eq!(ring.free(), 0, "the first has a reader left");
    ring.release(first);
    assert_eq!(ring.free(), 128);
}

#[test]
#[should_panic(expected = "released too often")]
fn a_reader_too_many_is_a_bug() {
    let mut ring = ByteRing::new(128, 2);
    let first = ring.commit(0, 1, 1);
    ring.release(first);
    ring.release(first);
}

#[test]
#[should_panic(expected = "2 bytes at 64")]
fn only_what_was_reserved_is_committed() {
    ByteRing::new(128, 2).commit(64, 2, 1);
}
