//! From chunks to bytes, for one call.

use super::{Buffer, Chunks, Holding, Program};
use core::ops::Range;

/// `count` elements cut into `parts` runs as equal as they can be, the cuts at multiples of `align`
/// elements (so that slices of most chunks start at a cache line). Later parts may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvenSplit {
    count: usize,
    part: usize,
    parts: usize,
}

impl EvenSplit {
    /// Cuts `count` elements into `parts` at multiples of `align`.
    ///
    /// # Panics
    /// When `parts` or `align` is 0.
    pub fn new(count: usize, parts: usize, align: usize) -> Self {
        assert!(parts > 0 && align > 0, "{parts} parts, aligned to {align}");
        Self { count, part: count.div_ceil(parts).next_multiple_of(align), parts }
    }

    /// The elements of part `index`.
    ///
    /// # Panics
    /// When there is no such part.
    pub fn part(&self, index: usize) -> Range<usize> {
        assert!(index < self.parts, "part {index} of {}", self.parts);
        let cut = |i: usize| i.saturating_mul(self.part).min(self.count);
        if index + 1 == self.parts {
            // The last part takes what alignment left over.
            return cut(index)..self.count;
        }
        cut(index)..cut(index + 1)
    }
}

/// How the chunks of one program become byte ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents {
    lengths: Lengths,
    /// What the caller's input and output hold.
    held: [Holding; 2],
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Lengths {
    /// Every block is as long as the next. Its chunk `c` is the bytes `cuts[c]..cuts[c + 1]` of it.
    Even { cuts: Box<[usize]> },
    /// Each block has a length and a place of its own, and is one chunk.
    Ragged {
        /// The ranges of the blocks that input and output hold.
        held: [Box<[Range<usize>]>; 2],
        /// Where scratch chunk `c` starts, and the next one.
        scratch: Box<[usize]>,
    },
}

impl Extents {
    /// Binds a program to `count` elements (as NCCL counts them for the collective) of `element` bytes.
    pub fn bind(program: &Program, count: usize, element: usize) -> Self {
        let per_block = (program.chunks / program.job.blocks()) as usize;
        // 64 bytes: chunks that start on a cache line do not share one with their neighbour.
        let split = EvenSplit::new(count, per_block, (64 / element).max(1));
        let cuts = core::iter::once(0).chain((0..per_block).map(|chunk| split.part(chunk).end * element));
        let held = [Buffer::Input, Buffer::Output]
            .map(|buffer| Holding::of(&program.job, program.rank, program.chunks, buffer));
        Self { lengths: Lengths::Even { cuts: cuts.collect() }, held }
    }

    /// Binds a program to blocks that have lengths of their own. `ranges` are the byte ranges of the blocks that the rank's
    /// input and output hold, in order; `blocks` those of all blocks of the logical vector, for the lengths of
    /// scratch chunks (none where the program uses no scratch memory).
    ///
    /// # Panics
    /// When the program cuts blocks, or holds another number of them.
    pub fn ragged(program: &Program, ranges: [&[Range<usize>]; 2], blocks: &[Range<usize>]) -> Self {
        assert!(program.chunks == program.job.blocks(), "{:?} cuts its blocks", program.job);
        let held = [Buffer::Input, Buffer::Output]
            .map(|buffer| Holding::of(&program.job, program.rank, program.chunks, buffer));
        for (held, ranges) in held.iter().zip(ranges) {
            assert!(
                held.blocks() as usize == ranges.len(),
                "{} blocks, {} ranges",
                held.blocks(),
                ranges.len()
            );
        }
        let mut end = 0;
        let ends = blocks.iter().map(|block| {
            end += block.len();
            end
        });
        let scratch = core::iter::once(0).chain(ends).collect();
        Self { lengths: Lengths::Ragged { held: ranges.map(Box::from), scratch }, held }
    }

    /// The bytes of `chunks` in their buffer.
    ///
    /// # Panics
    /// When the chunks lie outside their buffer: the checker proves that they do not.
    pub fn bytes(&self, chunks: Chunks) -> Range<usize> {
        let side = usize::from(chunks.buffer == Buffer::Output);
        let position = |block| match chunks.buffer {
            Buffer::Scratch => block,
            _ => self.held[side].position(block).unwrap_or_else(|| panic!("{chunks:?} is in no buffer")),
        };
        match &self.lengths {
            Lengths::Even { cuts } => {
                let per_block = (cuts.len() - 1) as u32;
                let (block, chunk) = (chunks.first / per_block, chunks.first % per_block);
                let first = position(block) * per_block + chunk;
                end(cuts, first)..end(cuts, first + chunks.count)
            }
            Lengths::Ragged { scratch, .. } if chunks.buffer == Buffer::Scratch => {
                scratch[chunks.first as usize]..scratch[(chunks.first + chunks.count) as usize]
            }
            Lengths::Ragged { held, .. } => {
                assert!(chunks.count == 1, "{chunks:?}: blocks of their own lengths move one by one");
                held[side][position(chunks.first) as usize].clone()
            }
        }
    }

    /// Bytes of the first `chunks` scratch chunks: what passes that use so many need.
    pub fn scratch_bytes(&self, chunks: u32) -> usize {
        match &self.lengths {
            Lengths::Even { cuts } => end(cuts, chunks),
            Lengths::Ragged { scratch, .. } => scratch[chunks as usize],
        }
    }
}

/// Bytes of the first `chunks` chunks of as many equal blocks as it takes, one after the other.
fn end(cuts: &[usize], chunks: u32) -> usize {
    let per_block = cuts.len() - 1;
    let (block, chunk) = (chunks as usize / per_block, chunks as usize % per_block);
    block * cuts[per_block] + cuts[chunk]
}
