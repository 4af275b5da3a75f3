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
    /// The cuts of a block, in bytes from its start: its chunk `c` is `cuts[c]..cuts[c + 1]`.
    cuts: Box<[usize]>,
    /// What the caller's input and output hold.
    held: [Holding; 2],
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
        Self { cuts: cuts.collect(), held }
    }

    /// Bytes of the first `chunks` chunks of as many blocks as it takes, one after the other.
    fn end(&self, chunks: u32) -> usize {
        let per_block = self.cuts.len() - 1;
        let (block, chunk) = (chunks as usize / per_block, chunks as usize % per_block);
        block * self.cuts[per_block] + self.cuts[chunk]
    }

    /// The bytes of `chunks` in their buffer.
    ///
    /// # Panics
    /// When the chunks lie outside their buffer: the checker proves that they do not.
    pub fn bytes(&self, chunks: Chunks) -> Range<usize> {
        let per_block = (self.cuts.len() - 1) as u32;
        let (block, chunk) = (chunks.first / per_block, chunks.first % per_block);
        let position = match chunks.buffer {
            Buffer::Input => self.held[0].position(block),
            Buffer::Output => self.held[1].position(block),
            Buffer::Scratch => Some(block),
        };
        let position = position.unwrap_or_else(|| panic!("{chunks:?} lies outside its buffer"));
        let first = position * per_block + chunk;
        self.end(first)..self.end(first + chunks.count)
    }

    /// Bytes of the first `chunks` scratch chunks: what passes that use so many need.
    pub fn scratch_bytes(&self, chunks: u32) -> usize {
        self.end(chunks)
    }
}
