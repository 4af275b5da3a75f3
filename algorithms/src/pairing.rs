//! Which ranks pair off where that takes a power of two of them.
//!
//! The ranks above the greatest power of two are *extra*: before, each hands its input to a partner, and after, gets
//! its result from it.

use sohu_coll_core::Rank;

/// The ranks that pair off, a power of two. Of the first `2 * extra` ranks, the odd ones stand in for the even
/// ones before them.
pub(crate) struct Core {
    /// How many.
    pub(crate) size: u32,
    extra: u32,
}

impl Core {
    pub(crate) fn new(size: u32) -> Self {
        let core = 1 << size.ilog2();
        Self { size: core, extra: size - core }
    }

    pub(crate) fn is_extra(&self, rank: Rank) -> bool {
        rank.0 < 2 * self.extra && rank.0.is_multiple_of(2)
    }

    pub(crate) fn stands_in(&self, rank: Rank) -> bool {
        rank.0 < 2 * self.extra && !rank.0.is_multiple_of(2)
    }

    /// The place of a rank among those that pair off.
    pub(crate) fn place(&self, rank: Rank) -> u32 {
        if rank.0 < 2 * self.extra { rank.0 / 2 } else { rank.0 - self.extra }
    }

    pub(crate) fn rank(&self, place: u32) -> Rank {
        Rank(if place < self.extra { 2 * place + 1 } else { place + self.extra })
    }

    /// The first block of those for which the rank at `place` answers; the next place's blocks follow.
    pub(crate) fn first_block(&self, place: u32) -> u32 {
        if place < self.extra { 2 * place } else { place + self.extra }
    }
}
