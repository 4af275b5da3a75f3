//! Calls whose blocks are not equally long: the collectives that MPI names with a v.
//!
//! Invariant: no byte of an output is written before all ranks agree on all lengths. Where every rank is told all of them,
//! the signature carries a hash. Before an all-to-all ranks tell each other what they give and expect in one small call, in
//! which short blocks go along: in [memos](Memos), or, where there are too many ranks for that, in [words](Words).

mod agree;
mod cut;
mod memos;
pub(crate) mod plans;
mod words;

use crate::communicator::Communicator;
use crate::operation::Operation;
use crate::request::Buffers;
pub(crate) use cut::Cut;
pub(crate) use memos::{Memos, Said};
use sohu_coll_core::operation::Operand;
use sohu_coll_core::{Collective, Element, Error, Misuse, Signature};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
pub(crate) use words::Words;

/// Where the blocks of one buffer lie, one for each rank, in elements.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    /// How long each is.
    pub counts: &'a [usize],
    /// Where each starts; `None` where they follow each other without gaps.
    pub displacements: Option<&'a [usize]>,
}

impl<'a> Blocks<'a> {
    /// Blocks that follow each other without gaps.
    pub fn packed(counts: &'a [usize]) -> Self {
        Self { counts, displacements: None }
    }

    /// Each block as a range of bytes, if all lie inside a buffer of `count` elements.
    fn ranges(
        &self,
        size: u32,
        count: usize,
        element: usize,
        place: (&'static str, &'static str),
    ) -> Result<Vec<Range<usize>>, Error> {
        let (call, buffer) = place;
        let length = |found: usize, expected: usize, rule| Misuse::Length {
            call,
            buffer,
            found: found as u64,
            expected: expected as u64,
            rule,
        };
        let lists = [Some(self.counts), self.displacements];
        for list in lists.into_iter().flatten() {
            if list.len() != size as usize {
                let rule = "there is a count, and a displacement, for each rank";
                return Err(length(list.len(), size as usize, rule).into());
            }
        }
        let mut next = 0usize;
        let mut ranges = Vec::with_capacity(self.counts.len());
        for (rank, &len) in self.counts.iter().enumerate() {
            let start = self.displacements.map_or(next, |starts| starts[rank]);
            let end = start.checked_add(len).filter(|end| *end <= count);
            let Some(end) = end else {
                let rule = "every block lies inside its buffer";
                return Err(length(count, start.saturating_add(len), rule).into());
            };
            next = end;
            ranges.push(start * element..end * element);
        }
        if self.displacements.is_none() && next != count {
            return Err(length(count, next, "blocks without gaps fill their buffer").into());
        }
        Ok(ranges)
    }
}

/// Whether two of the ranges share a byte.
fn overlap(ranges: &[Range<usize>]) -> bool {
    let mut sorted: Vec<&Range<usize>> = ranges.iter().filter(|range| !range.is_empty()).collect();
    sorted.sort_unstable_by_key(|range| range.start);
    sorted.windows(2).any(|pair| pair[1].start < pair[0].end)
}

/// How long blocks of these lengths are together, or the most there can be.
fn total(counts: &[usize]) -> usize {
    counts.iter().fold(0, |sum: usize, count| sum.saturating_add(*count))
}

/// A count for the signature that two lists of lengths share only by a chance of one in 2^48.
fn agreed(counts: &[usize]) -> u64 {
    let mut hasher = DefaultHasher::new();
    counts.hash(&mut hasher);
    hasher.finish() & Signature::COUNT_MAX
}

impl Communicator {
    /// `output` becomes all ranks' `input`, in rank order; that of rank r is `counts[r]` elements long. All ranks must give
    /// the same `counts`.
    ///
    /// # Errors
    /// [`Misuse::Length`] when the buffers do not fit the counts; [`Error::Mismatch`] when ranks disagree on them; else as
    /// described at [`Communicator`].
    pub fn all_gather_v<T: Element>(
        &mut self,
        input: &[T],
        output: &mut [T],
        counts: &[usize],
    ) -> Result<(), Error> {
        let cut = Cut::new(Collective::AllGather, T::DTYPE, 0, Blocks::packed(counts));
        self.lane().run_ragged(&cut, Buffers::apart(input, output), Operand::None)
    }

    /// Every block of `data` becomes the block of its rank; that of rank r is `counts[r]` elements long. This rank gives its own
    /// block, which lies where it belongs. All ranks must give the same `counts`.
    ///
    /// # Errors
    /// As for [`all_gather_v`](Self::all_gather_v).
    pub fn all_gather_v_in_place<T: Element>(
        &mut self,
        data: &mut [T],
        counts: &[usize],
    ) -> Result<(), Error> {
        let cut = Cut::new(Collective::AllGather, T::DTYPE, 0, Blocks::packed(counts));
        self.lane().run_ragged(&cut, Buffers::in_place(data), Operand::None)
    }

    /// `output` becomes block `rank` of the reduction of all ranks' `input`; block r is `counts[r]` elements long. All
    /// ranks must give the same `counts`.
    ///
    /// # Errors
    /// As for [`all_gather_v`](Self::all_gather_v).
    pub fn reduce_scatter_v<T: Element>(
        &mut self,
        input: &[T],
        output: &mut [T],
        counts: &[usize],
        op: impl Operation<T>,
    ) -> Result<(), Error> {
        let folding = op.folding();
        let cut = Cut::reduces(T::DTYPE, &folding, counts);
        self.lane().run_ragged(&cut, Buffers::apart(input, output), folding.operand)
    }

    /// Block `rank` of `data` becomes that block of the reduction of all ranks' `data`; the others stay. Block r is
    /// `counts[r]` elements long. All ranks must give the same `counts`.
    ///
    /// # Errors
    /// As for [`all_gather_v`](Self::all_gather_v).
    pub fn reduce_scatter_v_in_place<T: Element>(
        &mut self,
        data: &mut [T],
        counts: &[usize],
        op: impl Operation<T>,
    ) -> Result<(), Error> {
        let folding = op.folding();
        let cut = Cut::reduces(T::DTYPE, &folding, counts);
        self.lane().run_ragged(&cut, Buffers::in_place(data), folding.operand)
    }

    /// The root's `output` becomes all ranks' `input`, in rank order; that of rank r is `counts[r]` elements long. All ranks
    /// must give the same `counts`. Other ranks' `output` is not looked at, and may be empty.
    ///
    /// # Errors
    /// As for [`all_gather_v`](Self::all_gather_v); [`Misuse::Root`] when there is no such rank.
    pub fn gather_v<T: Element>(
        &mut self,
        input: &[T],
        output: &mut [T],
        counts: &[usize],
        root: u32,
    ) -> Result<(), Error> {
        let cut = Cut::new(Collective::Gather, T::DTYPE, root, Blocks::packed(counts));
        self.lane().run_ragged(&cut, Buffers::apart(input, output), Operand::None)
    }

    /// Every block of the root's `data` becomes the block of its rank; that of rank r is `counts[r]` elements long. The root
    /// gives its own block, which lies where it belongs; any other rank gives all of its `data`, which is its block. All
    /// ranks must give the same `counts`.
    ///
    /// # Errors
    /// As for [`gather_v`](Self::gather_v).
    pub fn gather_v_in_place<T: Element>(
        &mut self,
        data: &mut [T],
        counts: &[usize],
        root: u32,
    ) -> Result<(), Error> {
        let cut = Cut::new(Collective::Gather, T::DTYPE, root, Blocks::packed(counts));
        self.lane().run_ragged(&cut, Buffers::in_place(data), Operand::None)
    }

    /// `output` becomes block `rank` of the root's `input`; block r is `counts[r]` elements long. All ranks must give the
    /// same `counts`. Other ranks' `input` is not looked at, and may be empty.
    ///
    /// # Errors
    /// As for [`gather_v`](Self::gather_v).
    pub fn scatter_v<T: Element>(
        &mut self,
        input: &[T],
        output: &mut [T],
        counts: &[usize],
        root: u32,
    ) -> Result<(), Error> {
        let cut = Cut::new(Collective::Scatter, T::DTYPE, root, Blocks::packed(counts));
        self.lane().run_ragged(&cut, Buffers::apart(input, output), Operand::None)
    }

    /// `data`, which is this rank's block, becomes that block of the root's `data`, which has all of them and stays. Block r
    /// is `counts[r]` elements long. All ranks must give the same `counts`.
    ///
    /// # Errors
    /// As for [`gather_v`](Self::gather_v).
    pub fn scatter_v_in_place<T: Element>(
        &mut self,
        data: &mut [T],
        counts: &[usize],
        root: u32,
    ) -> Result<(), Error> {
        let cut = Cut::new(Collective::Scatter, T::DTYPE, root, Blocks::packed(counts));
        self.lane().run_ragged(&cut, Buffers::in_place(data), Operand::None)
    }

    /// The algorithm that calls of `collective` whose blocks have lengths of their own are made with: the direct one, `one_shot`; and
    /// `pairwise` for an all-to-all of so many ranks that a direct one would have more sends outstanding at once.
    pub fn ragged_algorithm(&self, collective: Collective) -> &'static str {
        plans::algorithm(collective, self.size()).name()
    }

    /// Block `s` of `output` becomes block `rank` of rank s's `input`, wherever the blocks lie: `gives` says it of the
    /// input, `gets` of the output. What rank r gives rank s must be as long as what rank s gets from rank r; any of them may be
    /// empty. Bytes of the output outside of all blocks stay as they are. However many ranks there are, at most 16 sends of each are
    /// outstanding at once, but in the small calls before, which compare the lengths and take short blocks along.
    ///
    /// Short blocks go along when ranks tell each other their lengths: from the second such call on, or, of some bytes, at once. Short
    /// is what each rank has for all others together where it is at most 4088 bytes, of two ranks, 2088 of four, or 1024 of eight; and more
    /// where ranks share cores.
    ///
    /// # Errors
    /// [`Misuse::Length`] when a block lies outside its buffer, [`Misuse::Overlap`] when two blocks of the output share an
    /// element, [`Misuse::Disagree`], on all ranks, when two ranks disagree on a block (the communicator stays usable);
    /// else as described at [`Communicator`].
    pub fn all_to_all_v<T: Element>(
        &mut self,
        input: &[T],
        gives: Blocks<'_>,
        output: &mut [T],
        gets: Blocks<'_>,
    ) -> Result<(), Error> {
        let cut = Cut::new(Collective::AllToAll, T::DTYPE, 0, gives);
        let cut = Cut { blocks: [gives, gets], ..cut };
        self.lane().run_ragged(&cut, Buffers::apart(input, output), Operand::None)
    }

    /// Block `s` of `data` becomes block `rank` of rank s's `data`, wherever the blocks lie. So each rank gets from another as
    /// much as it gives it: the block that rank r has for rank s is as long as the one that rank s has for rank r. Blocks are
    /// swapped slice by slice, without memory for a second copy. What lies outside of all blocks stays as it is.
    ///
    /// # Errors
    /// As for [`all_to_all_v`](Self::all_to_all_v).
    pub fn all_to_all_v_in_place<T: Element>(
        &mut self,
        data: &mut [T],
        blocks: Blocks<'_>,
    ) -> Result<(), Error> {
        let cut = Cut::new(Collective::AllToAll, T::DTYPE, 0, blocks);
        self.lane().run_ragged(&cut, Buffers::in_place(data), Operand::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_where_they_are_said_to_be() {
        let ranges = |blocks: Blocks<'_>, count| blocks.ranges(3, count, 4, ("call", "input")).ok();
        assert_eq!(ranges(Blocks::packed(&[2, 0, 1]), 3), Some(vec![0..8, 8..8, 8..12]));
        assert_eq!(ranges(Blocks::packed(&[2, 0, 1]), 4), None, "a gap at the end");
        assert_eq!(ranges(Blocks::packed(&[2, 1]), 3), None, "a rank without a count");
        let apart = Blocks { counts: &[1, 1, 1], displacements: Some(&[4, 0, 2]) };
        assert_eq!(ranges(apart, 5), Some(vec![16..20, 0..4, 8..12]));
        assert_eq!(ranges(apart, 4), None, "a block beyond the end");
        let far = Blocks { counts: &[1, usize::MAX, 1], displacements: Some(&[0, 2, 0]) };
        assert_eq!(ranges(far, 4), None, "a sum beyond all numbers");
    }

    #[test]
    fn blocks_that_share_an_element_overlap_and_empty_ones_do_not() {
        assert!(overlap(&[4..8, 0..5]));
        assert!(!overlap(&[4..8, 0..4, 6..6]));
    }

    #[test]
    fn other_counts_are_other_calls() {
        assert_ne!(agreed(&[1, 2]), agreed(&[2, 1]));
        assert!(agreed(&[1, 2]) <= Signature::COUNT_MAX);
    }
}
