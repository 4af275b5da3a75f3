//! Registered memory that is lent to peers, until the last of them has read it.

use sohu_coll_mem::{ReadSpan, WriteSpan};

/// The most loans that are out at once, the ledger's own bound.
const LOANS_MAX: usize = sohu_coll_mem::region::SPANS_MAX;

/// What is lent, and how many peers have yet to return it. Without a span it is the memory of the answer that is awaited.
type Loan = (Option<ReadSpan>, u32);

/// Loans to peers, each with the number of readers that have not returned it.
pub(super) struct Loans {
    slots: Box<[Option<Loan>]>,
    /// How many are out.
    pub(super) out: usize,
    /// In a swap: memory that the peer has written to, from this byte of its stream on, when it returns what was lent.
    pub(super) answer: Option<(u64, WriteSpan)>,
}

impl Loans {
    pub(super) fn new() -> Self {
        Self { slots: (0..LOANS_MAX).map(|_| None).collect(), out: 0, answer: None }
    }

    /// Notes that `readers` peers have a span; none where what they have is the [`answer`](Self::answer)'s own memory.
    pub(super) fn book(&mut self, span: Option<ReadSpan>, readers: usize) -> Result<usize, Option<ReadSpan>> {
        let Some(index) = self.slots.iter().position(Option::is_none) else { return Err(span) };
        self.slots[index] = Some((span, readers as u32));
        self.out += 1;
        Ok(index)
    }

    pub(super) fn release(&mut self, index: usize) {
        let Some((_, readers)) = &mut self.slots[index] else { return };
        *readers -= 1;
        if *readers == 0 {
            self.slots[index] = None;
            self.answer = None;
            self.out -= 1;
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots.fill_with(|| None);
        self.answer = None;
        self.out = 0;
    }
}
