//! A rank's staging memory: a ring for all of its peers, and a narrow one for those that are near while others are far.
//!
//! A line that a far core has read lies in that core's cache, and storing to it through this core's takes it back at the pace of
//! far lines. So where some peers are far and some are near, what only near ones read has memory that no far one ever reads.

use crate::layout::Layout;
use core::ops::Range;
use sohu_coll_mem::byte_ring::{ByteRing, SegmentId};

/// A staged piece that is out: its segment, of the near ring or of the one for all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged {
    segment: SegmentId,
    near: bool,
}

/// Both rings. A place in them is told in bytes from the start of the staging memory.
pub(super) struct Staging {
    ring: ByteRing,
    near: Option<ByteRing>,
}

impl Staging {
    pub(super) fn new(layout: &Layout, segments_max: usize) -> Self {
        let near = layout.near_staging().len();
        Self {
            ring: ByteRing::new(layout.staging().len() - near, segments_max),
            near: (near > 0).then(|| ByteRing::new(near, segments_max)),
        }
    }

    /// As [`ByteRing::reserve_within`]; in the ring for near peers where only such will read it.
    #[inline]
    pub(super) fn reserve(
        &mut self,
        want: usize,
        least: usize,
        within: usize,
        near_only: bool,
    ) -> Option<Range<usize>> {
        match &mut self.near {
            Some(near) if near_only => {
                let start = self.ring.capacity();
                // Bounded, so that it starts anew where nothing is out: it is narrow.
                let range = near.reserve_within(want, least, within.min(near.capacity()))?;
                Some(start + range.start..start + range.end)
            }
            _ => self.ring.reserve_within(want, least, within),
        }
    }

    /// As [`ByteRing::commit`].
    #[inline]
    pub(super) fn commit(&mut self, start: usize, len: usize, readers: u32) -> Staged {
        match (start.checked_sub(self.ring.capacity()), &mut self.near) {
            (Some(start), Some(near)) => Staged { segment: near.commit(start, len, readers), near: true },
            _ => Staged { segment: self.ring.commit(start, len, readers), near: false },
        }
    }

    /// As [`ByteRing::release`].
    #[inline]
    pub(super) fn release(&mut self, staged: Staged) {
        match &mut self.near {
            Some(near) if staged.near => near.release(staged.segment),
            _ => self.ring.release(staged.segment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_near_peers_lies_where_nothing_else_does() {
        let layout = Layout::new(3, 64 << 10, 0);
        let mut staging = Staging::new(&layout, 8);
        let near = layout.near_staging().start - layout.staging().start..layout.staging().len();
        let mut out = Vec::new();
        for (near_only, len) in
            [(false, 60 << 10), (true, 1), (false, 1000), (true, 40 << 10), (true, 16 << 10)]
        {
            let range = staging.reserve(len, len, usize::MAX, near_only).expect("there is room");
            assert_eq!(near_only, near.start <= range.start && range.end <= near.end, "{range:?}");
            out.push(staging.commit(range.start, len, 1));
        }
        assert!(staging.reserve(8 << 10, 8 << 10, usize::MAX, true).is_none(), "the near ring is too full");
        // What comes back makes room in its own ring.
        staging.release(out[0]);
        assert!(staging.reserve(8 << 10, 8 << 10, usize::MAX, true).is_none());
        [1, 3, 4].into_iter().for_each(|at| staging.release(out[at]));
        assert_eq!(staging.reserve(near.len(), near.len(), usize::MAX, true), Some(near));
    }

    #[test]
    fn a_pair_of_ranks_has_one_ring() {
        let layout = Layout::new(2, 64 << 10, 0);
        let mut staging = Staging::new(&layout, 8);
        assert_eq!(layout.near_staging().len(), 0);
        assert_eq!(staging.reserve(64 << 10, 1, usize::MAX, true), Some(0..64 << 10));
    }
}
