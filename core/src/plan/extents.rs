//! From chunks to bytes, for one call.

use super::{Buffer, Chunks, Program};
use crate::signature::Collective;
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
    /// Chunk `c` of the logical vector is the bytes `cuts[c]..cuts[c + 1]`.
    cuts: Box<[usize]>,
    /// Where the caller's input starts in the logical vector, and where its output does.
    starts: [usize; 2],
}

impl Extents {
    /// Binds a program to `count` elements (as NCCL counts them for the collective) of `element` bytes.
    pub fn bind(program: &Program, count: usize, element: usize) -> Self {
        let (job, chunks) = (program.job, program.chunks as usize);
        let size = job.size as usize;
        let mut cuts = Vec::with_capacity(chunks + 1);
        cuts.push(0);
        let blocked = matches!(job.collective, Collective::AllGather | Collective::ReduceScatter);
        let (blocks, per_block) = if blocked { (size, chunks / size) } else { (1, chunks) };
        // 64 bytes: chunks that start on a cache line do not share one with their neighbour.
        let align = (64 / element).max(1);
        for block in 0..blocks {
            let split = EvenSplit::new(count, per_block.max(1), align);
            cuts.extend((0..per_block).map(|i| (block * count + split.part(i).end) * element));
        }
        let own = if blocked { program.rank.index() * count * element } else { 0 };
        let starts = match job.collective {
            Collective::AllGather => [own, 0],
            Collective::ReduceScatter => [0, own],
            _ => [0, 0],
        };
        Self { cuts: cuts.into(), starts }
    }

    /// The bytes of `chunks` in their buffer.
    ///
    /// # Panics
    /// When the chunks lie outside their buffer: the checker proves that they do not.
    pub fn bytes(&self, chunks: Chunks) -> Range<usize> {
        let start = match chunks.buffer {
            Buffer::Input => self.starts[0],
            Buffer::Output => self.starts[1],
            Buffer::Scratch => 0,
        };
        let first = self.cuts[chunks.first as usize];
        let end = self.cuts[(chunks.first + chunks.count) as usize];
        assert!(first >= start, "{chunks:?} lies before its buffer");
        first - start..end - start
    }

    /// Bytes of the first `chunks` scratch chunks: what passes that use so many need.
    pub fn scratch_bytes(&self, chunks: u32) -> usize {
        self.cuts[chunks as usize]
    }
}
