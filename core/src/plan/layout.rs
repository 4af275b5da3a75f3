//! Which blocks of a collective's logical vector lie in which rank's buffers, and where.
//!
//! The logical vector is all that the ranks together hold or reduce. It is one block (all-reduce, reduce,
//! broadcast), one for each rank (all-gather, reduce-scatter, gather, scatter), or one for each pair of ranks (all-to-all:
//! block `s * size + d` is what rank s has for rank d). Every buffer holds some of the blocks, in order.

use super::{Buffer, Chunks, Job};
use crate::rank::Rank;
use crate::signature::Collective;

/// The blocks that one buffer of one rank holds: every `step`th from the first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The first block.
    first: u32,
    /// From one block to the next.
    step: u32,
    /// How many.
    blocks: u32,
    /// Chunks of a block.
    per_block: u32,
}

impl Holding {
    /// What `buffer` of `rank` holds of a logical vector of `chunks` chunks. (Scratch holds whatever is put there.)
    pub fn of(job: &Job, rank: Rank, chunks: u32, buffer: Buffer) -> Self {
        let per_block = chunks / job.blocks();
        let [gives, gets] = job.collective.held(job.size, rank == job.root);
        let (blocks, is_output) = match buffer {
            Buffer::Input => (gives, false),
            Buffer::Output => (gets, true),
            Buffer::Scratch => (job.blocks(), false),
        };
        let (first, step) = match job.collective {
            Collective::AllToAll if is_output => (rank.0, job.size),
            Collective::AllToAll if buffer == Buffer::Input => (rank.0 * job.size, 1),
            // One block of those that there are one of for each rank is the rank's own.
            _ if blocks == 1 && blocks < job.blocks() => (rank.0, 1),
            _ => (0, 1),
        };
        Self { first, step, blocks, per_block }
    }

    /// How many blocks.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Whether it holds all of `chunks`, side by side.
    pub fn contains(&self, chunks: Chunks) -> bool {
        let Some(end) = chunks.first.checked_add(chunks.count).filter(|end| *end > chunks.first) else {
            return false;
        };
        let (first, last) = (chunks.first / self.per_block, (end - 1) / self.per_block);
        let whole = self.step == 1 || first == last;
        whole && self.position(first).is_some() && self.position(last).is_some()
    }

    /// Where in the buffer a block lies, counted in blocks; `None` when it is not held.
    pub fn position(&self, block: u32) -> Option<u32> {
        let distance = block.checked_sub(self.first)?;
        let held = distance.is_multiple_of(self.step) && distance / self.step < self.blocks;
        held.then_some(distance / self.step)
    }

    /// The chunks that it holds, in order.
    pub fn chunks(&self) -> impl Iterator<Item = u32> + use<> {
        let Self { first, step, blocks, per_block } = *self;
        let block = move |k: u32| (first + k * step) * per_block;
        (0..blocks).flat_map(move |k| block(k)..block(k) + per_block)
    }
}

impl core::fmt::Display for Holding {
    /// As an error names it.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (first, per) = (self.first * self.per_block, self.per_block);
        match self.step {
            1 => write!(f, "{first}..{}", first + self.blocks * per),
            step => write!(f, "{per} chunks from {first} on and from every {}th after it", step * per),
        }
    }
}

impl Job {
    /// How many blocks the logical vector has.
    pub fn blocks(&self) -> u32 {
        self.collective.blocks(self.size)
    }

    /// In place: which blocks of the one buffer are the input, and which are the output. There are as many as the longer of
    /// the two holds; the other is the rank's own block of it.
    #[inline]
    pub fn sharing(&self, rank: Rank) -> [core::ops::Range<u32>; 2] {
        let held = self.collective.held(self.size, rank == self.root);
        let most = held[0].max(held[1]);
        held.map(|blocks| match blocks {
            1 if most > 1 => rank.0..rank.0 + 1,
            _ => 0..blocks,
        })
    }

    /// In place: the input chunk that lies where this output chunk does.
    pub(super) fn input_place(&self, output: u32) -> u32 {
        match self.collective {
            // What rank r gets from rank s lies where it has what it gives to rank s. A block is one chunk here.
            Collective::AllToAll => output % self.size * self.size + output / self.size,
            _ => output,
        }
    }

    /// Whether a logical vector of this job can have so many chunks.
    pub(super) fn can_have(&self, chunks: u32) -> bool {
        let blocks = self.blocks();
        match self.collective {
            // Messages stream by slices, so cutting a block gains nothing, and the blocks are many.
            Collective::AllToAll => chunks == blocks,
            _ => chunks > 0 && chunks.is_multiple_of(blocks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{input, output};

    #[test]
    fn an_all_to_all_gives_a_row_and_gets_a_column() {
        let job = Job::new(Collective::AllToAll, 3);
        let [row, column] =
            [Buffer::Input, Buffer::Output].map(|buffer| Holding::of(&job, Rank(1), 18, buffer));
        assert_eq!(row.chunks().collect::<Vec<_>>(), [6, 7, 8, 9, 10, 11]);
        assert_eq!(column.chunks().collect::<Vec<_>>(), [2, 3, 8, 9, 14, 15]);
        assert!(row.contains(input(7, 3)) && !row.contains(input(5, 2)));
        assert!(column.contains(output(8, 2)) && !column.contains(output(9, 2)));
        assert_eq!((row.position(4), column.position(4), column.position(5)), (Some(1), Some(1), None));
    }

    #[test]
    fn in_place_an_all_to_all_gets_a_block_where_it_gave_one() {
        let job = Job::new(Collective::AllToAll, 3);
        // What rank 1 gets from rank 2 (block 7) lies where it has what it gives to rank 2 (block 5).
        assert_eq!(job.input_place(7), 5);
        assert!(job.can_have(9) && !job.can_have(18));
    }

    #[test]
    fn only_the_root_of_a_gather_gets_and_only_that_of_a_scatter_gives() {
        let blocks = |collective, rank, buffer| {
            let job = Job { root: Rank(2), ..Job::new(collective, 4) };
            Holding::of(&job, Rank(rank), 4, buffer).blocks()
        };
        assert_eq!([2, 1].map(|rank| blocks(Collective::Gather, rank, Buffer::Output)), [4, 0]);
        assert_eq!([2, 1].map(|rank| blocks(Collective::Gather, rank, Buffer::Input)), [1, 1]);
        assert_eq!([2, 1].map(|rank| blocks(Collective::Scatter, rank, Buffer::Input)), [4, 0]);
        assert_eq!([2, 1].map(|rank| blocks(Collective::Reduce, rank, Buffer::Output)), [1, 0]);
    }
}
