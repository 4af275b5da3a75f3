//! The credit word: how a reader tells a writer what it consumed when no line goes its way.

use crate::words::{Ordering, Orders, Sound, Word, Words};
use core::marker::PhantomData;

// Half of what a stale count may lag, so that one check before each line put is enough.
const REFRESH_AFTER: u16 = 1 << 13;

/// The reader's side of a credit word: tells the writer what was consumed when no line goes its way.
pub struct CreditTx<W: Words, O: Orders = Sound> {
    words: W,
    lines: u16,
    chunks: u16,
    note: u16,
    orders: PhantomData<fn() -> O>,
}

impl<W: Words> CreditTx<W> {
    /// Publishes in the first of `words`, which is zero at first and has a cache line to itself.
    ///
    /// # Panics
    /// When there is no word.
    pub fn new(words: W) -> Self {
        Self::with_orders(words)
    }
}

impl<W: Words, O: Orders> CreditTx<W, O> {
    /// As [`new`](CreditTx::new), with orderings to choose: for the tests that weaken one.
    ///
    /// # Panics
    /// As for [`new`](CreditTx::new).
    pub fn with_orders(words: W) -> Self {
        assert!(words.len() > 0, "a credit without a word");
        Self { words, lines: 0, chunks: 0, note: 0, orders: PhantomData }
    }

    /// Publishes how many lines and how many staged chunks were consumed, modulo 2^16. Costs nothing
    /// when neither has changed.
    #[inline]
    pub fn publish(&mut self, lines: u16, chunks: u16) {
        if (lines, chunks) == (self.lines, self.chunks) {
            return;
        }
        (self.lines, self.chunks) = (lines, chunks);
        let credit = u64::from(lines) | u64::from(self.note) << 16 | u64::from(chunks) << 32;
        // Pairs with the load in `CreditRx::read`: ends the reads of what is given back.
        // SAFETY: the constructor checked that there is a word 0.
        unsafe { self.words.word_unchecked(0) }.store(credit, O::CREDIT_PUBLISH);
    }

    /// Leaves a note for the writer, which goes out with the next counts that differ. It orders nothing.
    #[inline]
    pub fn leave_note(&mut self, note: u16) {
        self.note = note;
    }

    /// Publishes if the word lags far behind. To be called before every line that carries counts: else
    /// the word could lag by so much that an old count looks like a new one.
    #[inline]
    pub fn refresh(&mut self, lines: u16, chunks: u16) {
        let lag = lines.wrapping_sub(self.lines) | chunks.wrapping_sub(self.chunks);
        if lag >= REFRESH_AFTER {
            self.publish(lines, chunks);
        }
    }
}

/// The writer's side of a credit word.
pub struct CreditRx<W: Words, O: Orders = Sound> {
    words: W,
    orders: PhantomData<fn() -> O>,
}

impl<W: Words> CreditRx<W> {
    /// Reads the first of `words`.
    ///
    /// # Panics
    /// When there is no word.
    pub fn new(words: W) -> Self {
        Self::with_orders(words)
    }
}

impl<W: Words, O: Orders> CreditRx<W, O> {
    /// As [`new`](CreditRx::new), with orderings to choose: for the tests that weaken one.
    ///
    /// # Panics
    /// As for [`new`](CreditRx::new).
    pub fn with_orders(words: W) -> Self {
        assert!(words.len() > 0, "a credit without a word");
        Self { words, orders: PhantomData }
    }

    /// How many lines and how many staged chunks the reader says it consumed, modulo 2^16: for
    /// [`LineTx::credit`](crate::line::LineTx::credit) and [`catch_up`](crate::line::catch_up), which bound them.
    #[inline]
    pub fn read(&self) -> (u16, u16) {
        // Pairs with the store in `CreditTx::publish`: what is given back is no longer read.
        // SAFETY: the constructor checked that there is a word 0.
        let credit = unsafe { self.words.word_unchecked(0) }.load(O::CREDIT_READ);
        (credit as u16, (credit >> 32) as u16)
    }

    /// The note that came with the last counts; 0 at first.
    #[inline]
    pub fn note(&self) -> u16 {
        // SAFETY: the constructor checked that there is a word 0.
        let credit = unsafe { self.words.word_unchecked(0) }.load(Ordering::Relaxed);
        (credit >> 16) as u16
    }
}
