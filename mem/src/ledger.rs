//! Which bytes of this process are out with a link.
//!
//! The thread that runs a call books bytes and asks about them; whoever holds a booking gives it back, from any
//! thread, with one store. The invariant: bytes that the owner finds free are no longer touched by who held them.

use crate::words::{AtomicU64, Ordering, Orders, Sound, Word, Words};
use core::cell::Cell;
use core::marker::PhantomData;

/// The most bookings that can be out at once. A full ledger is back-pressure, not an error.
pub const SPANS_MAX: usize = 64;

/// Which bytes are out with a link: lent (a peer may read them) or posted (a peer may write them). One for a
/// communicator, at one place for as long as a call runs.
pub struct Ledger<W: Words = Box<[AtomicU64]>, O: Orders = Sound> {
    /// For each entry its first byte, as an address; 0 when it is free.
    starts: W,
    ends: [Cell<u64>; SPANS_MAX],
    /// A bit for each entry that was booked and not yet seen free. While it is 0, and it nearly always is,
    /// nothing else is read.
    booked: Cell<u64>,
    /// A bit for each entry whose bytes the peer writes.
    posted: Cell<u64>,
    orders: PhantomData<fn() -> O>,
}

impl<W: Words, O: Orders> core::fmt::Debug for Ledger<W, O> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Ledger({} out)", self.out())
    }
}

impl Ledger {
    /// A ledger with nothing out.
    #[must_use]
    pub fn new() -> Box<Self> {
        Box::new(Self::over((0..SPANS_MAX).map(|_| AtomicU64::new(0)).collect()))
    }
}

impl<W: Words, O: Orders> Ledger<W, O> {
    /// A ledger whose bookings are given back through these words, which are zero. There may be fewer of them than
    /// [`SPANS_MAX`]; so many bookings can be out then.
    pub fn over(starts: W) -> Self {
        Self {
            starts,
            ends: [const { Cell::new(0) }; SPANS_MAX],
            booked: Cell::new(0),
            posted: Cell::new(0),
            orders: PhantomData,
        }
    }

    /// How many bookings are out.
    #[inline]
    pub fn out(&self) -> usize {
        if self.booked.get() == 0 { 0 } else { self.count() }
    }

    #[cold]
    fn count(&self) -> usize {
        self.entries().count()
    }

    /// Whether some of `len` bytes at `start` are out: posted ones, and lent ones too when `also_lent`.
    #[inline]
    pub fn touches(&self, start: usize, len: usize, also_lent: bool) -> bool {
        self.booked.get() != 0 && self.find(start as u64, len as u64, also_lent)
    }

    #[cold]
    fn find(&self, start: u64, len: u64, also_lent: bool) -> bool {
        self.entries().any(|(index, first)| {
            let overlaps = first < start + len && start < self.ends[index].get();
            overlaps && (also_lent || self.posted.get() & 1 << index != 0)
        })
    }

    /// The entries that are out, with their first bytes. Those that were given back are free from here on.
    fn entries(&self) -> impl Iterator<Item = (usize, u64)> {
        let mut left = self.booked.get();
        core::iter::from_fn(move || {
            while left != 0 {
                let index = left.trailing_zeros() as usize;
                left &= left - 1;
                // Pairs with the store in `give_back`: whoever held the bytes is done with them.
                match self.starts.word(index).load(O::SPAN_LOOK) {
                    0 => self.booked.set(self.booked.get() & !(1 << index)),
                    first => return Some((index, first)),
                }
            }
            None
        })
    }

    /// Books the bytes. `None` when the ledger is full, there are no bytes, or some of them are out in a way that does
    /// not go with this one: posted bytes with anything.
    #[inline]
    pub fn book(&self, start: usize, len: usize, posted: bool) -> Option<usize> {
        if len == 0 || self.touches(start, len, posted) {
            return None;
        }
        let mut index = self.booked.get().trailing_ones() as usize;
        if index >= self.starts.len().min(SPANS_MAX) {
            let _: usize = self.count();
            index = self.booked.get().trailing_ones() as usize;
        }
        if index >= self.starts.len().min(SPANS_MAX) {
            return None;
        }
        let bit = 1 << index;
        self.booked.set(self.booked.get() | bit);
        self.posted.set(self.posted.get() & !bit | u64::from(posted) << index);
        self.ends[index].set((start + len) as u64);
        self.starts.word(index).store(start as u64, Ordering::Relaxed);
        Some(index)
    }

    /// The word through which a booking is given back.
    #[inline]
    pub fn entry(&self, index: usize) -> &W::Word {
        self.starts.word(index)
    }
}

/// Gives a booking back by its [`entry`](Ledger::entry), or the part of it before `first`, which is not 0 then.
/// What the holder did to those bytes comes before. From any thread.
#[inline]
pub fn give_back<O: Orders>(entry: &impl Word, first: usize) {
    // Pairs with the load in `Ledger::entries`.
    entry.store(first as u64, O::SPAN_RETURN);
}
