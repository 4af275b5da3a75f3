//! The words that ranks share, and the one place of the library that names atomics.
//!
//! The lock-free pieces of this crate are written against [`Words`], not against memory: in production
//! the words are [`Mapped`], under loom they are loom's. The invariant: a word is only ever reached
//! through an atomic operation, and only ever inside the words it was lent with.

use core::any::Any;
use core::ptr::NonNull;
use std::sync::Arc;

pub use core::sync::atomic::{Ordering, compiler_fence, fence};

// Aliases and not re-exports: clippy sees through a re-export and would complain where it is used.
/// A flag that threads share.
#[expect(clippy::disallowed_types, reason = "this is the place that names atomics")]
pub type AtomicBool = core::sync::atomic::AtomicBool;
/// A 32-bit word that threads share.
#[expect(clippy::disallowed_types, reason = "this is the place that names atomics")]
pub type AtomicU32 = core::sync::atomic::AtomicU32;
/// A 64-bit word that threads or ranks share.
#[expect(clippy::disallowed_types, reason = "this is the place that names atomics")]
pub type AtomicU64 = core::sync::atomic::AtomicU64;
/// A word of the size of a pointer that threads share.
#[expect(clippy::disallowed_types, reason = "this is the place that names atomics")]
pub type AtomicUsize = core::sync::atomic::AtomicUsize;

/// How many 64-bit words make a cache line.
pub const LINE_WORDS: usize = 8;

/// One shared 64-bit word.
pub trait Word {
    /// Reads the word.
    fn load(&self, order: Ordering) -> u64;
    /// Writes the word.
    fn store(&self, value: u64, order: Ordering);
    /// Writes the word and returns what it held, in one step.
    fn swap(&self, value: u64, order: Ordering) -> u64;
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    #[inline]
    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.swap(value, order)
    }
}

/// A run of shared words.
pub trait Words {
    /// What one word is.
    type Word: Word;

    /// The word at `index`.
    ///
    /// # Panics
    /// When there is no such word.
    fn word(&self, index: usize) -> &Self::Word;

    /// How many words. The answer never changes.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Orders what this thread did before against what it does after.
    fn fence(&self, order: Ordering);

    /// Tells the processor (or the model checker) that this thread waits for another.
    fn spin(&self);

    /// Asks for the cache line of the word at `index`, to be written soon: a hint, that changes nothing else.
    ///
    /// # Panics
    /// May panic when there is no such word.
    #[inline]
    fn claim(&self, index: usize) {
        let _ = index;
    }

    /// As [`claim`](Self::claim), to be read soon.
    ///
    /// # Panics
    /// May panic when there is no such word.
    #[inline]
    fn ask(&self, index: usize) {
        let _ = index;
    }

    /// The word at `index`, for callers that have bounded it once and for all.
    ///
    /// # Safety
    /// `index` must be less than `len()`.
    #[inline]
    unsafe fn word_unchecked(&self, index: usize) -> &Self::Word {
        self.word(index)
    }
}

/// Between two looks at a word that another thread is about to store to: lets the first end before the next one begins.
///
/// A processor that does not wait reads on, far ahead of a look whose answer is still on its way, and has to throw all that away when
/// the store comes: as long a stall as half of a hand-over. A pause instruction is no remedy where it takes that long by itself.
#[inline]
pub fn between_looks() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has it, and it touches no memory.
    unsafe {
        // Loads are not begun before those in front of it are done.
        core::arch::x86_64::_mm_lfence();
    }
    #[cfg(not(target_arch = "x86_64"))]
    core::hint::spin_loop();
}

/// Before the first look at a word that another thread stores to at about the same time as this one stored its own: gives that a head
/// start, as long as so many looks.
///
/// A look that comes too soon takes the line out of the cache of who is about to write it. That has to take it back, and the next look takes
/// it again: two hand-overs more.
#[inline]
pub fn head_start(looks: u32) {
    (0..looks).for_each(|_| between_looks());
}

/// Waits until what this core has stored can be seen by others. Orders nothing that is not in order without it: a store says what it
/// says whenever it is seen. But who is about to look for what another thread stores at the same time, and does the same, had better do so when
/// that can be there.
#[inline]
pub fn after_own_stores() {
    // Pairs with nothing: wanted for the wait that it is, not for an order. Not `mfence`, which waits for loads too: an exchange of
    // 1 KiB takes 0.35 us with that, and 0.28 with what this comes to.
    fence(Ordering::SeqCst);
}

/// Asks for the cache line at `address`, to be read soon.
#[inline]
pub fn ask(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing as far as the program can tell, and does nothing where nothing is mapped.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Asks for the cache line at `address`, to be written soon.
#[inline]
pub fn claim(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // No intrinsic: theirs becomes a fetch to read unless the whole program is built for processors that have
    // this instruction. The others of 64 bits take it for nothing.
    // SAFETY: a prefetch neither reads nor writes as far as the program can tell, and does nothing where nothing is mapped.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Words in memory that other processes may have mapped too.
#[derive(Clone)]
pub struct Mapped {
    base: NonNull<AtomicU64>,
    len: usize,
    keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the words are atomics, which any thread may use, and `keep` holds their mapping wherever they go.
unsafe impl Send for Mapped {}
// SAFETY: as above: shared access only ever performs atomic operations.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// The `len` words at `base`, which stay mapped as long as `keep` lives.
    ///
    /// # Safety
    /// While `keep` lives, `len` words from `base` on must be mapped, readable and writable, and must be
    /// accessed by atomic operations only.
    ///
    /// # Panics
    /// When `base` is null or not aligned to 8 bytes.
    pub unsafe fn new(base: *mut u64, len: usize, keep: Arc<dyn Any + Send + Sync>) -> Self {
        let base = NonNull::new(base.cast::<AtomicU64>()).expect("mapped words have an address");
        assert!(base.is_aligned(), "words at {base:p}, which is not a multiple of 8");
        Self { base, len, keep }
    }

    /// The `len` words from `start` on, over the same mapping.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn part(&self, start: usize, len: usize) -> Self {
        assert!(
            start <= self.len && len <= self.len - start,
            "{len} words from {start} on, of {} mapped",
            self.len
        );
        // SAFETY: `start <= self.len`, so the pointer stays inside the mapped words or one past them.
        let base = unsafe { self.base.add(start) };
        Self { base, len, keep: Arc::clone(&self.keep) }
    }
}

impl Words for Mapped {
    type Word = AtomicU64;

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len, "word {index} of {} mapped", self.len);
        // SAFETY: `index < self.len`, as asserted.
        unsafe { self.word_unchecked(index) }
    }

    #[inline]
    fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        fence(order);
    }

    #[inline]
    fn spin(&self) {
        core::hint::spin_loop();
    }

    #[inline]
    fn claim(&self, index: usize) {
        claim(core::ptr::from_ref(self.word(index)).cast());
    }

    #[inline]
    fn ask(&self, index: usize) {
        ask(core::ptr::from_ref(self.word(index)).cast());
    }

    #[inline]
    unsafe fn word_unchecked(&self, index: usize) -> &AtomicU64 {
        // SAFETY: the caller bounds `index` by `len`, so the pointer stays inside the mapped words.
        let word = unsafe { self.base.add(index) };
        // SAFETY: mapped for as long as `self.keep`, hence `self`, lives; aligned by the assert in `new`;
        // others access it atomically too, by the contract of `new`.
        unsafe { word.as_ref() }
    }
}

impl Words for Arc<[AtomicU64]> {
    type Word = AtomicU64;

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        &self[index]
    }

    #[inline]
    fn len(&self) -> usize {
        self.as_ref().len()
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        fence(order);
    }

    #[inline]
    fn spin(&self) {
        core::hint::spin_loop();
    }
}

impl Words for Box<[AtomicU64]> {
    type Word = AtomicU64;

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        &self[index]
    }

    #[inline]
    fn len(&self) -> usize {
        self.as_ref().len()
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        fence(order);
    }

    #[inline]
    fn spin(&self) {
        core::hint::spin_loop();
    }
}

/// The orderings of the lock-free pieces, by name, so that a test can weaken exactly one of them and
/// see the model checker reject it. Production code uses [`Sound`] and pays nothing for the choice.
pub trait Orders {
    /// The writer's store of a line's head. Pairs with [`LINE_LOOK`](Orders::LINE_LOOK): publishes the
    /// payload and the staged bytes, and (as a piggybacked ack) ends the reads of what it acknowledges.
    const LINE_PUT: Ordering = Ordering::Release;
    /// The reader's load of a line's head. Pairs with [`LINE_PUT`](Orders::LINE_PUT).
    const LINE_LOOK: Ordering = Ordering::Acquire;
    /// The reader's store of the credit word. Pairs with [`CREDIT_READ`](Orders::CREDIT_READ): ends the
    /// reads of the lines and staged bytes it gives back.
    const CREDIT_PUBLISH: Ordering = Ordering::Release;
    /// The writer's load of the credit word. Pairs with [`CREDIT_PUBLISH`](Orders::CREDIT_PUBLISH).
    const CREDIT_READ: Ordering = Ordering::Acquire;
    /// The fence between announcing sleep and the last poll. Pairs with
    /// [`RING_FENCE`](Orders::RING_FENCE): one of the two sides sees what the other stored.
    const SLEEP_FENCE: Ordering = Ordering::SeqCst;
    /// The fence between what was sent and the look for a sleeper. Pairs with
    /// [`SLEEP_FENCE`](Orders::SLEEP_FENCE).
    const RING_FENCE: Ordering = Ordering::SeqCst;
    /// The holder's store that gives booked bytes back. Pairs with [`SPAN_LOOK`](Orders::SPAN_LOOK): ends
    /// the holder's accesses to them.
    const SPAN_RETURN: Ordering = Ordering::Release;
    /// The owner's look whether they are back. Pairs with [`SPAN_RETURN`](Orders::SPAN_RETURN).
    const SPAN_LOOK: Ordering = Ordering::Acquire;
}

/// The orderings that hold.
#[derive(Clone, Copy, Debug)]
pub struct Sound;

impl Orders for Sound {}
