//! Memory lent to the library for one call, and the spans of it that are out with a link.
//!
//! A [`Region`] is a buffer of the caller's, for the length of one call. The executor works on it through
//! views. A link that moves bytes later than it was told to (a peer reads them in place, a peer writes into
//! them, a kernel does) gets an owned span instead, and the [`Ledger`] remembers which bytes are out until
//! the span is dropped. Invariant: nobody writes bytes that are lent, nobody touches bytes that are posted,
//! and memory does not go back to its caller while a span is out ([`scope`], and
//! [`Custody`](crate::Custody) for a call that outlives the function that started it).

use crate::ledger::give_back;
use crate::view::{View, ViewMut};
use crate::words::{AtomicU64, Sound};
use core::ops::Range;
use core::ptr::NonNull;

pub use crate::ledger::{Ledger, SPANS_MAX};

/// Bytes lent to a link: a peer may read them until the span is dropped.
#[derive(Debug)]
pub struct ReadSpan {
    base: *const u8,
    len: usize,
    /// In the ledger, which outlives the span: whoever borrows or owns it does not let go while a span is out.
    entry: NonNull<AtomicU64>,
}

// SAFETY: the span only carries the address; the bytes stay valid until it is dropped (`check_in`), on any thread.
unsafe impl Send for ReadSpan {}

impl ReadSpan {
    /// Where the bytes are.
    pub fn as_ptr(&self) -> *const u8 {
        self.base
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none (never: an empty span cannot be lent).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn view(&self) -> View<'_> {
        // SAFETY: `check_in` keeps the bytes mapped until this span is dropped.
        unsafe { View::from_raw(self.base, self.len) }
    }
}

impl Drop for ReadSpan {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the ledger's words stay where they are until this span is dropped (`check_in`).
        let entry = unsafe { self.entry.as_ref() };
        give_back::<Sound>(entry, 0);
    }
}

/// Bytes posted with a link: a peer may write them until the span is dropped.
#[derive(Debug)]
pub struct WriteSpan {
    base: *mut u8,
    len: usize,
    /// In the ledger, which outlives the span: whoever borrows or owns it does not let go while a span is out.
    entry: NonNull<AtomicU64>,
}

// SAFETY: as for `ReadSpan`.
unsafe impl Send for WriteSpan {}

impl WriteSpan {
    /// Where the bytes are.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.base
    }

    /// How many bytes are still posted.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether all have landed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn view(&self) -> ViewMut<'_> {
        // SAFETY: `check_in` keeps the bytes mapped until this span is dropped.
        unsafe { ViewMut::from_raw(self.base, self.len) }
    }

    /// The first `count` bytes have landed: they may be read and written again by this rank.
    ///
    /// # Panics
    /// When fewer are posted.
    pub fn landed(&mut self, count: usize) {
        assert!(count <= self.len, "{count} of {} posted bytes landed", self.len);
        self.base = self.base.wrapping_add(count);
        self.len -= count;
        if self.len > 0 {
            // SAFETY: the ledger's words stay where they are until this span is dropped (`check_in`).
            let entry = unsafe { self.entry.as_ref() };
            give_back::<Sound>(entry, self.base.addr());
        }
    }
}

impl Drop for WriteSpan {
    fn drop(&mut self) {
        // SAFETY: the ledger's words stay where they are until this span is dropped (`check_in`).
        let entry = unsafe { self.entry.as_ref() };
        give_back::<Sound>(entry, 0);
    }
}

/// One buffer of a call.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    base: *mut u8,
    len: usize,
    writable: bool,
    ledger: &'a Ledger,
}

impl<'a> Region<'a> {
    /// How many bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the buffer is.
    pub fn as_ptr(&self) -> *const u8 {
        self.base
    }

    #[inline]
    #[track_caller]
    fn at(&self, range: &Range<usize>) -> (*mut u8, usize) {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of a buffer of {} bytes",
            self.len
        );
        (self.base.wrapping_add(range.start), range.end - range.start)
    }

    /// The bytes at `range`, to read now.
    ///
    /// # Panics
    /// When they lie outside the buffer, or a peer may be writing them (a bug: the plan orders the two).
    #[inline]
    #[track_caller]
    pub fn read(&self, range: Range<usize>) -> View<'a> {
        let (base, len) = self.at(&range);
        assert!(!self.ledger.touches(base.addr(), len, false), "read of bytes {range:?} that are posted");
        // SAFETY: the buffer is mapped for 'a (`Places::regions`) and `at` bounded the range.
        unsafe { View::from_raw(base, len) }
    }

    /// How many spans of this communicator are out, of this buffer or another.
    #[inline]
    pub fn spans_out(&self) -> usize {
        self.ledger.out()
    }

    /// Whether the bytes at `range` may be written now: no span of them is out.
    #[inline]
    pub fn is_free(&self, range: Range<usize>) -> bool {
        let (base, len) = self.at(&range);
        !self.ledger.touches(base.addr(), len, true)
    }

    /// The bytes at `range`, to write now.
    ///
    /// # Panics
    /// When they lie outside the buffer, the buffer is only an input, or a span of them is out.
    #[inline]
    #[track_caller]
    pub fn write(&self, range: Range<usize>) -> ViewMut<'a> {
        let (base, len) = self.at(&range);
        assert!(self.writable, "write to bytes {range:?} of an input");
        assert!(!self.ledger.touches(base.addr(), len, true), "write to bytes {range:?} while a span is out");
        // SAFETY: the buffer is mapped and writable for 'a (`Places::regions`) and `at` bounded the range.
        unsafe { ViewMut::from_raw(base, len) }
    }

    /// Where posted bytes have landed: the bytes at `range`, to pass to `recv` for memory that is posted
    /// or free. Only the link that holds the span writes there before it gives the bytes back.
    ///
    /// # Panics
    /// When they lie outside the buffer, or the buffer is only an input.
    #[inline]
    #[track_caller]
    pub fn landing(&self, range: Range<usize>) -> ViewMut<'a> {
        let (base, len) = self.at(&range);
        assert!(self.writable, "write to bytes {range:?} of an input");
        // SAFETY: as in `write`; the link tells posted bytes by their address and does not write them twice.
        unsafe { ViewMut::from_raw(base, len) }
    }

    /// Lends the bytes at `range`. `None` when the ledger is full, the range is empty, or the bytes are posted.
    #[track_caller]
    #[inline]
    pub fn lend(&self, range: Range<usize>) -> Option<ReadSpan> {
        let (base, len) = self.at(&range);
        let entry = self.ledger.book(base.addr(), len, false)?;
        Some(ReadSpan { base, len, entry: NonNull::from_ref(self.ledger.entry(entry)) })
    }

    /// Posts the bytes at `range`. `None` when the ledger is full, the range is empty, some of the bytes are
    /// out, or the buffer is only an input.
    #[track_caller]
    pub fn post(&self, range: Range<usize>) -> Option<WriteSpan> {
        let (base, len) = self.at(&range);
        if !self.writable {
            return None;
        }
        let entry = self.ledger.book(base.addr(), len, true)?;
        Some(WriteSpan { base, len, entry: NonNull::from_ref(self.ledger.entry(entry)) })
    }
}

/// The buffers of one call.
#[derive(Clone, Copy, Debug)]
pub struct Regions<'a> {
    /// What the caller gives; the output's own region where the call is in place.
    pub input: Region<'a>,
    /// What the caller gets.
    pub output: Region<'a>,
    /// Memory of the library's own.
    pub scratch: Region<'a>,
}

/// The caller's side of [`scope`]: two buffers, or one that is both.
#[derive(Debug)]
pub enum Loan<'a> {
    /// Input and output are apart.
    Apart {
        /// What the caller gives.
        input: &'a [u8],
        /// What the caller gets.
        output: &'a mut [u8],
    },
    /// One buffer holds both: `input` and `output` are ranges of it.
    Shared {
        /// The buffer.
        buffer: &'a mut [u8],
        /// Which bytes are the input.
        input: Range<usize>,
        /// Which bytes are the output.
        output: Range<usize>,
    },
}

/// Where the input and the output of one call lie: base, length, and whether it may be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places([(*mut u8, usize, bool); 2]);

impl Places {
    /// The places of what is lent.
    ///
    /// # Panics
    /// When a range of a shared buffer lies outside it.
    #[inline]
    pub(crate) fn of(loan: Loan<'_>) -> Self {
        Self(match loan {
            Loan::Apart { input, output } => {
                [(input.as_ptr().cast_mut(), input.len(), false), (output.as_mut_ptr(), output.len(), true)]
            }
            Loan::Shared { buffer, input, output } => {
                let (base, len) = (buffer.as_mut_ptr(), buffer.len());
                assert!(input.end <= len && output.end <= len, "{input:?} and {output:?} of {len} bytes");
                let part = |range: &Range<usize>| (base.wrapping_add(range.start), range.len(), true);
                [part(&input), part(&output)]
            }
        })
    }

    /// The regions there.
    ///
    /// # Safety
    /// For `'a` the places and the `len` bytes at `scratch` must stay mapped, writable where they are said to be, and
    /// must be reached through the regions and the spans of `ledger` alone. The owner of the ledger must see to it that
    /// none of its spans is out when one of them goes ([`check_in`]).
    #[inline]
    pub(crate) unsafe fn regions<'a>(&self, scratch: (*mut u8, usize), ledger: &'a Ledger) -> Regions<'a> {
        let region = |(base, len, writable)| Region { base, len, writable, ledger };
        let [input, output] = self.0;
        Regions {
            input: region(input),
            output: region(output),
            scratch: region((scratch.0, scratch.1, true)),
        }
    }
}

/// Ends the process when a span is out. Called before memory goes back to whom it belongs.
#[inline]
pub(crate) fn check_in(ledger: &Ledger) {
    if ledger.out() != 0 {
        // Going on would let the caller free memory that a peer or a kernel may still use.
        eprintln!("sohu-coll: {} spans are out at the end of a call; this is a bug", ledger.out());
        std::process::abort();
    }
}

struct Closed<'a>(&'a Ledger);

impl Drop for Closed<'_> {
    #[inline]
    fn drop(&mut self) {
        check_in(self.0);
    }
}

/// Lends the buffers of one call for as long as `work` runs. Whoever took a span must have dropped it by
/// then, also when `work` fails.
///
/// # Panics
/// When a range of a shared buffer lies outside it.
///
/// Aborts the process when a span is still out at the end: going on would be unsound, waiting would hang.
#[inline]
pub fn scope<R>(
    ledger: &Ledger,
    loan: Loan<'_>,
    scratch: &mut [u8],
    work: impl FnOnce(&Regions<'_>) -> R,
) -> R {
    let closed = Closed(ledger);
    // SAFETY: what is lent, the scratch memory and the ledger are borrowed until this returns, and `closed` does not let
    // it return, nor unwind, while a span is out.
    let regions = unsafe { Places::of(loan).regions((scratch.as_mut_ptr(), scratch.len()), ledger) };
    let result = work(&regions);
    drop(closed);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<R>(work: impl FnOnce(&Regions<'_>) -> R) -> R {
        let (input, mut output) = (vec![1u8; 64], vec![0u8; 64]);
        let loan = Loan::Apart { input: &input, output: &mut output };
        scope(&Ledger::new(), loan, &mut [], work)
    }

    #[test]
    fn lent_bytes_are_not_free_until_the_span_is_back() {
        with(|regions| {
            let span = regions.output.lend(0..32).expect("an empty ledger has room");
            assert!(!regions.output.is_free(31..33));
            assert!(regions.output.is_free(32..64));
            regions.output.read(0..64);
            drop(span);
            assert!(regions.output.is_free(0..64));
        });
    }

    #[test]
    fn posted_bytes_come_back_as_they_land() {
        with(|regions| {
            let mut span = regions.output.post(0..32).expect("an empty ledger has room");
            assert!(regions.output.lend(0..8).is_none());
            span.landed(16);
            regions.output.read(0..16);
            assert!(regions.output.is_free(0..16));
            assert!(!regions.output.is_free(16..17));
            span.landed(16);
        });
    }

    #[test]
    #[should_panic(expected = "while a span is out")]
    fn write_to_lent_bytes_is_a_bug() {
        with(|regions| {
            let _span = regions.output.lend(0..32);
            regions.output.write(0..1);
        });
    }

    #[test]
    #[should_panic(expected = "of an input")]
    fn write_to_an_input_is_a_bug() {
        with(|regions| {
            regions.input.write(0..1);
        });
    }

    #[test]
    fn a_full_ledger_lends_no_more_and_recovers() {
        let mut output = vec![0u8; SPANS_MAX + 1];
        let loan = Loan::Apart { input: &[], output: &mut output };
        scope(&Ledger::new(), loan, &mut [], |regions| {
            let mut spans: Vec<_> = (0..SPANS_MAX).map(|i| regions.output.lend(i..i + 1)).collect();
            assert!(spans.iter().all(Option::is_some));
            assert!(regions.output.lend(SPANS_MAX..SPANS_MAX + 1).is_none());
            spans.pop();
            assert!(regions.output.lend(SPANS_MAX..SPANS_MAX + 1).is_some());
        });
    }
}
