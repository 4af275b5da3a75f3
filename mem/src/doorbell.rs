//! Sleeping until another rank rings, and when to sleep at all.
//!
//! One word of shared memory says whether its owner sleeps. The invariant: a sleeper announces itself
//! before its last poll, a ringer sends before it looks for the announcement, and a full fence stands
//! between the two steps on either side. So one of them sees the other: no wake-up is lost.
//!
//! Rings are many and sleeps are few, so where the system can do it the sleeper pays for both fences: it makes
//! every ringer's thread pass one, wherever it is ([`Futex::barrier`]). A second word tells the ringers so.

use core::marker::PhantomData;

use crate::words::{Ordering, Orders, Sound, Word, Words, compiler_fence};

const AWAKE: u64 = 0;
const ASLEEP: u64 = 1;

/// In the second word: the sleeper ends each announcement with a [`Futex::barrier`].
const BARRIERS: u64 = 1;

/// The system's means to sleep on a word and to wake who sleeps on it. The transport supplies it.
pub trait Futex<W> {
    /// Sleeps while the low 32 bits of `word` are `expected`, for at most `nanos` nanoseconds; the
    /// comparison and the start of the sleep are one step. May return early for no reason.
    fn wait(&self, word: &W, expected: u32, nanos: u64);

    /// Wakes all who sleep on `word`.
    fn wake(&self, word: &W);

    /// Makes the thread of every [`Ringer`] that is `light` pass a full fence between this call's beginning and its end,
    /// wherever it is.
    fn barrier(&self);
}

/// The owner's side of a doorbell: the rank that sleeps.
pub struct Sleeper<W: Words, O: Orders = Sound> {
    words: W,
    barriers: bool,
    orders: PhantomData<fn() -> O>,
}

impl<W: Words> Sleeper<W> {
    /// Sleeps on the first of `words`, of which there are two, zero at first. It takes the fence off the ringers if it has
    /// `barriers`: if [`Futex::barrier`] works.
    ///
    /// # Panics
    /// When there are fewer than two words.
    pub fn new(words: W, barriers: bool) -> Self {
        Self::with_orders(words, barriers)
    }
}

impl<W: Words, O: Orders> Sleeper<W, O> {
    /// As [`new`](Sleeper::new), with orderings to choose: for the tests that weaken one.
    ///
    /// # Panics
    /// As for [`new`](Sleeper::new).
    pub fn with_orders(words: W, barriers: bool) -> Self {
        assert!(words.len() > 1, "a doorbell without its words");
        // A ringer that sees this late has fenced itself until then. All announcements come after it, and have a barrier.
        words.word(1).store(if barriers { BARRIERS } else { 0 }, Ordering::Relaxed);
        Self { words, barriers, orders: PhantomData }
    }

    /// Announces that this rank is about to sleep. What it waits for must be polled once more after
    /// this, and then either [`sleep`](Sleeper::sleep) or [`cancel`](Sleeper::cancel) called.
    pub fn prepare(&self, system: &impl Futex<W::Word>) {
        // A swap and not a store: it comes after every ring so far in the word's own history, so that a
        // late ringer never takes an old ring for an answer to this announcement.
        self.words.word(0).swap(ASLEEP, Ordering::Relaxed);
        // Pairs with the fence in `Ringer::ring`: the poll that follows sees what was sent before a ring
        // that missed the announcement.
        self.words.fence(O::SLEEP_FENCE);
        if self.barriers {
            // Stands for the fence in `Ringer::ring`: either what was sent is seen by the poll that follows, or the
            // announcement by the ringer's look, which comes after.
            system.barrier();
        }
    }

    /// Sleeps until a ring, but at most `nanos` nanoseconds. May return early for no reason.
    pub fn sleep(&self, futex: &impl Futex<W::Word>, nanos: u64) {
        futex.wait(self.words.word(0), ASLEEP as u32, nanos);
        self.cancel();
    }

    /// Takes the announcement back.
    pub fn cancel(&self) {
        self.words.word(0).store(AWAKE, Ordering::Relaxed);
    }
}

/// The other side of a doorbell: a rank that has sent something to its owner.
pub struct Ringer<W: Words, O: Orders = Sound> {
    words: W,
    light: bool,
    orders: PhantomData<fn() -> O>,
}

impl<W: Words> Ringer<W> {
    /// Rings who sleeps on the first of `words`. It leaves the fence to sleepers that have barriers if it is `light`: if
    /// its thread is one that [`Futex::barrier`] reaches.
    ///
    /// # Panics
    /// When there are fewer than two words.
    pub fn new(words: W, light: bool) -> Self {
        Self::with_orders(words, light)
    }
}

impl<W: Words, O: Orders> Ringer<W, O> {
    /// As [`new`](Ringer::new), with orderings to choose: for the tests that weaken one.
    ///
    /// # Panics
    /// As for [`new`](Ringer::new).
    pub fn with_orders(words: W, light: bool) -> Self {
        assert!(words.len() > 1, "a doorbell without its words");
        Self { words, light, orders: PhantomData }
    }

    /// Wakes the owner if it sleeps or is about to; says whether it did. Called after what was sent.
    #[inline]
    pub fn ring(&self, futex: &impl Futex<W::Word>) -> bool {
        // A sleeper that claims barriers and has none misses rings, and harms itself alone.
        if self.light && self.words.word(1).load(Ordering::Relaxed) == BARRIERS {
            // Pairs with the barrier in `Sleeper::prepare`, which is the processor's fence; this one is for the compiler.
            compiler_fence(Ordering::SeqCst);
        } else {
            // Pairs with the fence in `Sleeper::prepare`: the load below sees an announcement whose poll
            // missed what was sent.
            self.words.fence(O::RING_FENCE);
        }
        let word = self.words.word(0);
        // The load first: a swap would take the cache line from an owner that is awake.
        if word.load(Ordering::Relaxed) == AWAKE || word.swap(AWAKE, Ordering::Relaxed) == AWAKE {
            return false;
        }
        futex.wake(word);
        true
    }
}

/// What to do before the next poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Poll again at once.
    Spin,
    /// Offer the core to another thread.
    Yield,
    /// Sleep on the doorbell.
    Sleep,
}

/// How long a wait goes on spinning, then yielding, before it sleeps: a count of polls, no clock.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    spins: u32,
    yields_end: u32,
    spent: u32,
}

impl Patience {
    /// Spins `spins` times, then yields `yields` times, then sleeps. Where ranks share cores `spins` is
    /// 0: a rank that spins keeps the one it waits for from running.
    #[must_use]
    pub fn new(spins: u32, yields: u32) -> Self {
        Self { spins, yields_end: spins.saturating_add(yields), spent: 0 }
    }

    /// How often it spins before it first yields.
    #[inline]
    #[must_use]
    pub fn spins(&self) -> u32 {
        self.spins
    }

    /// What to do now that a poll has found nothing.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "a policy that never ends is no iterator")]
    pub fn next(&mut self) -> Pause {
        if self.spent >= self.yields_end {
            return Pause::Sleep;
        }
        self.spent += 1;
        if self.spent <= self.spins { Pause::Spin } else { Pause::Yield }
    }

    /// Starts over, now that a poll has found something.
    #[inline]
    pub fn reset(&mut self) {
        self.spent = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use super::*;
    use crate::words::AtomicU64;

    #[derive(Default)]
    struct Calls {
        waits: Cell<u32>,
        wakes: Cell<u32>,
        barriers: Cell<u32>,
    }

    impl Futex<AtomicU64> for Calls {
        fn wait(&self, word: &AtomicU64, expected: u32, _nanos: u64) {
            assert_eq!(word.load(Ordering::Relaxed) as u32, expected);
            self.waits.set(self.waits.get() + 1);
        }

        fn wake(&self, _word: &AtomicU64) {
            self.wakes.set(self.wakes.get() + 1);
        }

        fn barrier(&self) {
            self.barriers.set(self.barriers.get() + 1);
        }
    }

    fn bell() -> Arc<[AtomicU64]> {
        Arc::new([AtomicU64::new(0), AtomicU64::new(0)])
    }

    #[test]
    fn ring_wakes_an_announced_sleeper_once() {
        let (bell, calls) = (bell(), Calls::default());
        let sleeper = Sleeper::new(Arc::clone(&bell), false);
        let (one, other) = (Ringer::new(Arc::clone(&bell), true), Ringer::new(bell, false));
        sleeper.prepare(&calls);
        assert!(one.ring(&calls));
        assert!(!other.ring(&calls));
        assert_eq!(calls.wakes.get(), 1);
    }

    #[test]
    fn ring_leaves_an_awake_rank_alone() {
        let (bell, calls) = (bell(), Calls::default());
        let sleeper = Sleeper::new(Arc::clone(&bell), false);
        let ringer = Ringer::new(bell, false);
        assert!(!ringer.ring(&calls));
        sleeper.prepare(&calls);
        sleeper.cancel();
        assert!(!ringer.ring(&calls));
        sleeper.prepare(&calls);
        sleeper.sleep(&calls, 1);
        assert!(!ringer.ring(&calls));
        assert_eq!((calls.waits.get(), calls.wakes.get()), (1, 0));
    }

    #[test]
    fn sleeper_with_barriers_makes_one_for_each_announcement() {
        let (bell, calls) = (bell(), Calls::default());
        let sleeper = Sleeper::new(Arc::clone(&bell), true);
        let ringer = Ringer::new(bell, true);
        sleeper.prepare(&calls);
        assert_eq!(calls.barriers.get(), 1);
        assert!(ringer.ring(&calls));
        sleeper.cancel();
        assert!(!ringer.ring(&calls));
        sleeper.prepare(&calls);
        assert_eq!(calls.barriers.get(), 2);
    }

    #[test]
    fn patience_spins_then_yields_then_sleeps_for_good() {
        let mut patience = Patience::new(2, 1);
        let pauses: Vec<Pause> = (0..5).map(|_| patience.next()).collect();
        assert_eq!(pauses, [Pause::Spin, Pause::Spin, Pause::Yield, Pause::Sleep, Pause::Sleep]);
        patience.reset();
        assert_eq!(patience.next(), Pause::Spin);
    }

    #[test]
    fn patience_without_spins_yields_first() {
        assert_eq!(Patience::new(0, 1).next(), Pause::Yield);
        assert_eq!(Patience::new(0, 0).next(), Pause::Sleep);
        let mut patience = Patience::new(u32::MAX, u32::MAX);
        assert_eq!(patience.next(), Pause::Spin);
    }
}
