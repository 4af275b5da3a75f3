//! Probes of the machine: how long a cache line takes from one rank's core to another's, and how long a
//! sleeping rank takes to wake.
//!
//! A probe word hands over its own value and no other memory, so its loads and stores are relaxed: all that is asked of
//! them is that the value arrives. That a sleeper misses none is the work of the doorbell's fences, which stand between
//! the word and the bell on both sides.

use super::ShmLinks;
use crate::futex::SharedFutex;
use sohu_coll_core::Rank;
use sohu_coll_core::link::Links;
use sohu_coll_mem::words::{Ordering, Word, Words};
use std::time::{Duration, Instant};

/// Round trips before the clock starts.
const WARM_UP: u64 = 100;

/// Polls between looks at the clock, for the deadline.
const POLLS: u32 = 4096;

/// How long the waking side leaves the other to fall asleep. Too short only means that the probe measures a
/// wake that was not needed; the least of several is not taken for that reason, but the median.
const FALL_ASLEEP: Duration = Duration::from_micros(300);

impl ShmLinks {
    /// One-way time of a cache line between ranks 0 and 1, in nanoseconds, by `rounds` round trips. Both must
    /// call it, between calls; other ranks get `None`, and so does a rank whose peer does not come in a second.
    pub fn handover_ns(&mut self, rounds: u64) -> Option<f64> {
        let (mine, theirs) = self.probe_words()?;
        let start = mine.word(0).load(Ordering::Relaxed);
        let mut begun = Instant::now();
        let deadline = begun + Duration::from_secs(1);
        for round in 1..=WARM_UP + rounds {
            if round == WARM_UP {
                begun = Instant::now();
            }
            if self.rank.0 == 0 {
                mine.word(0).store(start + round, Ordering::Relaxed);
                await_word(&theirs, start + round, deadline)?;
            } else {
                await_word(&theirs, start + round, deadline)?;
                mine.word(0).store(start + round, Ordering::Relaxed);
            }
        }
        Some(begun.elapsed().as_nanos() as f64 / rounds as f64 / 2.0)
    }

    /// Time from a ring to the answer of a rank that slept, in nanoseconds: the median of `rounds`. Both ranks 0
    /// and 1 must call it, between calls; others get `None`.
    pub fn wake_ns(&mut self, rounds: u64) -> Option<f64> {
        let (mine, theirs) = self.probe_words()?;
        let start = mine.word(0).load(Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut times = Vec::with_capacity(rounds as usize);
        for round in start + 1..=start + rounds {
            if self.rank.0 == 0 {
                std::thread::sleep(FALL_ASLEEP);
                let begun = Instant::now();
                mine.word(0).store(round, Ordering::Relaxed);
                self.peers.at(Rank(1)).ringer.ring(&SharedFutex);
                await_word(&theirs, round, deadline)?;
                times.push(begun.elapsed().as_nanos() as f64);
            } else {
                while theirs.word(0).load(Ordering::Relaxed) != round {
                    self.bell.prepare(&SharedFutex);
                    if theirs.word(0).load(Ordering::Relaxed) == round || Instant::now() > deadline {
                        self.bell.cancel();
                        break;
                    }
                    self.bell.sleep(&SharedFutex, 10_000_000);
                }
                mine.word(0).store(round, Ordering::Relaxed);
            }
        }
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().or(Some(f64::NAN))
    }

    fn probe_words(&self) -> Option<(impl Words + use<>, impl Words + use<>)> {
        let other = match self.rank().0 {
            0 if self.peers.ranks() > 1 => self.peers.at(Rank(1)),
            1 => self.peers.at(Rank(0)),
            _ => return None,
        };
        let at = self.segment.layout().probe();
        Some((self.segment.map.words(at, 8), other.probe_words(at)))
    }
}

fn await_word(words: &impl Words, value: u64, deadline: Instant) -> Option<()> {
    let mut polls = 0u32;
    while words.word(0).load(Ordering::Relaxed) != value {
        core::hint::spin_loop();
        polls += 1;
        if polls.is_multiple_of(POLLS) {
            std::thread::yield_now();
            if Instant::now() > deadline {
                return None;
            }
        }
    }
    Some(())
}
