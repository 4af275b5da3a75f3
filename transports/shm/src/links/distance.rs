//! Whether a peer's core shares a cache with this rank's: found out by looking at some of what it stages.
//!
//! A line that lies in the cache of a core with its own last-level cache comes four times as slowly as one from a
//! neighbour (200 ns against 50 on the machine measured), and few are fetched at once: staging through the caches moves
//! 2 GB/s there. Written past the caches, into memory, the same bytes are read at 10. Between neighbours it is the other way
//! round (64 KiB: 4 us and 10). Which of the two a pair of ranks is can change while they run, where a hypervisor moves their
//! processors about; so every now and then a chunk is written in the cached way, and its reader times a few of its
//! lines.

use super::ShmLinks;
use super::peer::Peer;
use core::hint::black_box;
use sohu_coll_core::Rank;
use sohu_coll_core::kernel::Store;
use sohu_coll_mem::View;
use std::time::Instant;

/// One chunk in so many is a sample, by its number on the link: both sides count.
const SAMPLE_EVERY: u64 = 32;

/// A sample is at least this long, or it is none, and at most so long, because in the far state it is slow.
const SAMPLE_MIN: usize = 4096;
const SAMPLE_MAX: usize = 8192;

/// The lines of a sample that are timed: far apart and in no order that a prefetcher follows.
const HOPS: [usize; 6] = [19, 53, 7, 38, 60, 27];

/// A line that takes longer than this on average, in nanoseconds, comes from a cache far away. On the machine measured
/// 95 in 100 samples took less than 40 between neighbours; half of those from afar took more than 100.
const FAR_NS: u32 = 60;

/// How far away a peer seems to be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Distance {
    pub(super) far: bool,
    /// Whether the last sample said the opposite. It takes two: a single one may have met an interrupt, and the first one
    /// meets pages that were never touched.
    doubted: bool,
}

impl Distance {
    fn sampled(&mut self, far: bool) {
        if far == self.far {
            self.doubted = false;
        } else if self.doubted {
            *self = Self { far, doubted: false };
        } else {
            self.doubted = true;
        }
    }
}

impl ShmLinks {
    /// How the next `want` bytes to `to` are staged, and how many of them.
    #[inline]
    pub(super) fn store_for(&self, to: &[Rank], want: usize) -> (Store, usize) {
        if want < SAMPLE_MIN {
            return (Store::Cached, want);
        }
        let peers = || to.iter().map(|rank| self.peers.at(*rank));
        if peers().any(Peer::next_is_sample) {
            return (Store::Cached, want.min(SAMPLE_MAX));
        }
        let far = peers().any(|peer| peer.distance.far);
        (if far { Store::Streaming } else { Store::Cached }, want)
    }
}

impl Peer {
    fn next_is_sample(&self) -> bool {
        self.chunks_put.is_multiple_of(SAMPLE_EVERY)
    }

    /// Looks how far away the peer is, if the chunk that has come to the front is a sample.
    #[inline]
    pub(super) fn sample(&mut self, offset: usize, len: usize) {
        let staged = self.layout.staging().contains(&offset);
        if self.chunks_taken.is_multiple_of(SAMPLE_EVERY) && len >= SAMPLE_MIN && staged {
            self.distance.sampled(hop_ns(self.map.view(offset, len)) > FAR_NS);
        }
    }
}

/// Average time to fetch a line of the chunk, in nanoseconds, one after the other.
#[cold]
fn hop_ns(chunk: View<'_>) -> u32 {
    let begun = Instant::now();
    let mut word = [0];
    for line in HOPS {
        // Where the next line is depends on what the last one held, as far as the processor knows.
        let at = line * 64 + (word[0] as usize & black_box(0));
        chunk.slice(at..at + 8).load_words(&mut word);
    }
    black_box(word);
    begun.elapsed().subsec_nanos() / HOPS.len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_samples_in_a_row_change_the_distance_and_one_does_not() {
        let mut distance = Distance::default();
        for (sample, far) in
            [(true, false), (false, false), (true, false), (true, true), (false, true), (false, false)]
        {
            distance.sampled(sample);
            assert_eq!(distance.far, far);
        }
    }

    #[test]
    fn hops_lie_inside_the_shortest_sample() {
        assert!(HOPS.iter().all(|line| line * 64 + 8 <= SAMPLE_MIN));
    }
}
