//! Buffers that a call has taken over from its caller, for calls that outlive the function that started them.
//!
//! [`scope`](crate::region::scope) borrows the buffers of a call and ends with it. A call that is driven now and then,
//! by whoever comes, has nobody to borrow from: it owns its buffers, and everything that must live as long as a span
//! of them. Invariant: from [`Custody::new`] to [`Custody::end`] nobody reaches the buffers but through the regions and
//! their spans, and they are freed or given back only while no span is out. One that is leaked keeps all of it for
//! ever, so its spans stay good.

use crate::region::{Ledger, Loan, Places, Regions, check_in};
use core::ptr::NonNull;

/// The buffers of one call, with what owns them, and the ledger that says which of their bytes are out.
///
/// Dropping it while a span is out ends the process: going on would be unsound, waiting would hang. Whoever holds the
/// links gives the spans back first (`Links::abandon`).
pub struct Custody<O: ?Sized> {
    /// From a box, and back into it at the end. A pointer, since a box says that nothing else points where it does.
    owner: Option<NonNull<O>>,
    places: Places,
    scratch: Vec<u8>,
    ledger: Option<Box<Ledger>>,
}

// SAFETY: it is what it was made of, all of which may change threads: the owner, a vector and a ledger. The places
// point into what the owner owns, which does not move with it.
unsafe impl<O: ?Sized + Send> Send for Custody<O> {}

impl<O: ?Sized + Send> Custody<O> {
    /// Takes over `owner`. `lend` says which of its bytes are the call's; it is asked once.
    ///
    /// # Panics
    /// When a range of a shared buffer lies outside it. `owner` is leaked then.
    pub fn new(
        owner: Box<O>,
        ledger: Box<Ledger>,
        scratch: Vec<u8>,
        lend: impl for<'a> FnOnce(&'a mut O) -> Loan<'a>,
    ) -> Self {
        let mut owner = NonNull::from(Box::leak(owner));
        // SAFETY: it came from a box just now, and nothing else points to it. The loan borrows all of it, for as long as
        // we like: nobody reaches the owner again before `take_owner`, which ends what was made of the loan.
        let loan = lend(unsafe { owner.as_mut() });
        Self { owner: Some(owner), places: Places::of(loan), scratch, ledger: Some(ledger) }
    }

    /// The regions, to work on now.
    pub fn regions(&mut self) -> Regions<'_> {
        let scratch = (self.scratch.as_mut_ptr(), self.scratch.len());
        let ledger = self.ledger.as_deref().expect("there until the end");
        // SAFETY: the places are in what `owner` owns, which nobody reaches as long as this lives, and so is the scratch
        // memory in `self`; neither, nor the ledger, goes before `check_in` (`end`, `drop`). `&mut self` lasts as long as
        // the regions.
        unsafe { self.places.regions(scratch, ledger) }
    }

    /// Gives everything back: the owner, the ledger, and the scratch memory.
    ///
    /// Ends the process when a span is still out.
    #[must_use]
    pub fn end(mut self) -> (Box<O>, Box<Ledger>, Vec<u8>) {
        let owner = self.take_owner().expect("there until the end");
        let ledger = self.ledger.take().expect("there until the end");
        (owner, ledger, core::mem::take(&mut self.scratch))
    }
}

impl<O: ?Sized> Custody<O> {
    /// The owner, if it is still here.
    fn take_owner(&mut self) -> Option<Box<O>> {
        if let Some(ledger) = &self.ledger {
            check_in(ledger);
        }
        let owner = self.owner.take()?;
        // SAFETY: it came from a box, and is taken once. No span is out, and regions live no longer than a borrow of
        // `self`, so nothing that was made of the loan is used again.
        Some(unsafe { Box::from_raw(owner.as_ptr()) })
    }
}

impl<O: ?Sized> Drop for Custody<O> {
    fn drop(&mut self) {
        drop(self.take_owner());
    }
}

impl<O: ?Sized> core::fmt::Debug for Custody<O> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Custody({:?})", self.ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pair = (Vec<u8>, Vec<u8>);

    fn custody(len: usize) -> Custody<Pair> {
        let owner: Box<Pair> = Box::new((vec![1; len], vec![0; len]));
        Custody::new(owner, Ledger::new(), vec![0; 8], |(input, output)| Loan::Apart { input, output })
    }

    #[test]
    fn spans_outlive_a_borrow_of_the_regions_and_are_found_by_the_next() {
        let mut custody = custody(64);
        let span = custody.regions().output.post(0..32).expect("an empty ledger has room");
        assert!(!custody.regions().output.is_free(0..1));
        // On another thread, as when another one drives the call.
        let mut custody = std::thread::spawn(move || custody).join().expect("it only moves");
        assert!(!custody.regions().output.is_free(31..32));
        drop(span);
        assert!(custody.regions().output.is_free(0..64));
        let ((input, output), ledger, scratch) = {
            let (owner, ledger, scratch) = custody.end();
            (*owner, ledger, scratch)
        };
        assert_eq!((input, output, scratch.len(), ledger.out()), (vec![1; 64], vec![0; 64], 8, 0));
    }

    #[test]
    fn what_is_written_to_the_regions_is_in_the_owner() {
        for len in [0, 1, 9] {
            let mut custody = custody(len);
            let regions = custody.regions();
            regions.input.read(0..len).copy_to(regions.output.write(0..len));
            assert_eq!(custody.end().0.1, vec![1; len]);
        }
    }

    #[test]
    fn a_leaked_one_keeps_the_memory_of_its_spans() {
        let mut custody = custody(4096);
        let span = custody.regions().output.post(0..4096).expect("an empty ledger has room");
        core::mem::forget(custody);
        let words = [7u8; 4096];
        crate::View::from(&words[..]).copy_to(span.view());
        let mut read = [0u64; 512];
        assert_eq!(span.view().as_view().load_words(&mut read), 512);
        assert_eq!(read, [0x0707_0707_0707_0707; 512]);
    }

    #[test]
    fn an_owner_behind_a_trait_is_as_good() {
        let owner: Box<dyn AsMut<[u8]> + Send> = Box::new(vec![3u8; 16]);
        let mut custody = Custody::new(owner, Ledger::new(), Vec::new(), |owner| Loan::Shared {
            buffer: owner.as_mut(),
            input: 0..8,
            output: 8..16,
        });
        let regions = custody.regions();
        assert_eq!((regions.input.len(), regions.output.len()), (8, 8));
        assert_eq!(custody.end().0.as_mut().as_mut(), [3; 16]);
    }
}
