//! Registered memory that is lent to peers, until the last of them has read it.

use sohu_coll_mem::ReadSpan;

/// The most loans that are out at once, the ledger's own bound.
const LOANS_MAX: usize = sohu_coll_mem::region::SPANS_MAX;

/// Loans to peers, each with the number of readers that have not returned it.
pub(super) struct Loans {
    slots: Box<[Option<(ReadSpan, u32)>]>,
    /// How many are out.
    pub(super) out: usize,
}

impl Loans {
    pub(super) fn new() -> Self {
        Self { slots: (0..LOANS_MAX).map(|_| None).collect(), out: 0 }
    }

    pub(super) fn book(&mut self, span: ReadSpan, readers: usize) -> Result<usize, ReadSpan> {
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
            self.out -= 1;
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots.fill_with(|| None);
        self.out = 0;
    }
}
