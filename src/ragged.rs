//! Calls whose blocks are not equally long: the collectives that MPI names with a v.
//!
//! Invariant: no byte of a call moves before all ranks agree on all lengths. Where every rank is told all of them, the
//! signature carries a hash; an all-to-all compares what each pair says in two small calls before.

use crate::communicator::Communicator;
use crate::plans::ragged_plan;
use sohu_coll_core::{Collective, DType, Element, Error, Misuse, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::Loan;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

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
        let blocks = Blocks::packed(counts);
        let output_ranges =
            blocks.ranges(self.size(), output.len(), size_of::<T>(), ("all_gather_v", "output"))?;
        let own = self.own_block("all_gather_v", "input", input, counts)?;
        let call = self.ragged_call::<T>(Collective::AllGather, ReduceOp::Sum, 0, agreed(counts));
        self.ragged(call, (input, &[own]), (output, &output_ranges), &output_ranges)
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
        op: ReduceOp,
    ) -> Result<(), Error> {
        let blocks = Blocks::packed(counts);
        let input_ranges =
            blocks.ranges(self.size(), input.len(), size_of::<T>(), ("reduce_scatter_v", "input"))?;
        let own = self.own_block("reduce_scatter_v", "output", output, counts)?;
        let call = self.ragged_call::<T>(Collective::ReduceScatter, op, 0, agreed(counts));
        self.ragged(call, (input, &input_ranges), (output, &[own]), &input_ranges)
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
        let whole = if root == self.rank() { output.len() } else { total(counts) };
        let all =
            Blocks::packed(counts).ranges(self.size(), whole, size_of::<T>(), ("gather_v", "output"))?;
        let own = self.own_block("gather_v", "input", input, counts)?;
        self.is_root("gather_v", root)?;
        let call = self.ragged_call::<T>(Collective::Gather, ReduceOp::Sum, root, agreed(counts));
        let held: &[_] = if root == self.rank() { &all } else { &[] };
        self.ragged(call, (input, &[own]), (output, held), &all)
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
        let whole = if root == self.rank() { input.len() } else { total(counts) };
        let all =
            Blocks::packed(counts).ranges(self.size(), whole, size_of::<T>(), ("scatter_v", "input"))?;
        let own = self.own_block("scatter_v", "output", output, counts)?;
        self.is_root("scatter_v", root)?;
        let call = self.ragged_call::<T>(Collective::Scatter, ReduceOp::Sum, root, agreed(counts));
        let held: &[_] = if root == self.rank() { &all } else { &[] };
        self.ragged(call, (input, held), (output, &[own]), &all)
    }

    /// Block `s` of `output` becomes block `rank` of rank s's `input`, wherever the blocks lie: `gives` says it of the
    /// input, `gets` of the output. What rank r gives rank s must be as long as what rank s gets from rank r; any of them may be
    /// empty. Bytes of the output outside of all blocks stay as they are.
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
        const CALL: &str = "all_to_all_v";
        let (size, element) = (self.size(), size_of::<T>());
        let from = gives.ranges(size, input.len(), element, (CALL, "input"))?;
        let into = gets.ranges(size, output.len(), element, (CALL, "output"))?;
        if overlap(&into) {
            return Err(Misuse::Overlap { call: CALL, buffer: "output" }.into());
        }
        self.compare_counts(CALL, gives.counts, gets.counts)?;
        let call = self.ragged_call::<T>(Collective::AllToAll, ReduceOp::Sum, 0, 0);
        self.ragged(call, (input, &from), (output, &into), &[])
    }

    /// Tells every rank what it will get from this one, and all ranks of the first pair that disagrees.
    fn compare_counts(&mut self, call: &'static str, gives: &[usize], gets: &[usize]) -> Result<(), Error> {
        let given: Vec<u64> = gives.iter().map(|count| *count as u64).collect();
        let mut offered = vec![0u64; gives.len()];
        self.all_to_all(&given, &mut offered)?;
        let wrong =
            (0..).zip(offered.iter().zip(gets)).find(|(_, (offered, gets))| **offered != **gets as u64);
        // The pair, the giver first; 0 where all is well. And the two counts, of the rank that found the pair.
        let mut found = [0u64; 3];
        if let Some((giver, (offered, gets))) = wrong {
            let giver: u64 = giver;
            let pair = ((giver + 1) << 32) | (u64::from(self.rank()) + 1);
            found = [pair, *offered, *gets as u64];
        }
        let mut all = vec![0u64; 3 * self.size() as usize];
        self.all_gather(&found, &mut all)?;
        match all.chunks_exact(3).find(|found| found[0] != 0) {
            None => Ok(()),
            Some(found) => Err(Misuse::Disagree {
                call,
                from: Rank((found[0] >> 32) as u32 - 1),
                to: Rank(found[0] as u32 - 1),
                gives: found[1],
                gets: found[2],
            }
            .into()),
        }
    }

    fn is_root(&self, call: &'static str, root: u32) -> Result<(), Error> {
        let size = self.size();
        if root < size { Ok(()) } else { Err(Misuse::Root { call, root, size }.into()) }
    }

    /// The bytes of a buffer that must be this rank's block, and no longer.
    fn own_block<T>(
        &self,
        call: &'static str,
        buffer: &'static str,
        elements: &[T],
        counts: &[usize],
    ) -> Result<Range<usize>, Error> {
        let (found, expected) = (elements.len() as u64, counts[self.rank() as usize] as u64);
        let rule = "it is this rank's block";
        let wrong = Misuse::Length { call, buffer, found, expected, rule };
        if found == expected { Ok(0..size_of_val(elements)) } else { Err(wrong.into()) }
    }

    fn ragged_call<T: Element>(
        &self,
        collective: Collective,
        op: ReduceOp,
        root: u32,
        count: u64,
    ) -> Signature {
        let dtype: DType = T::DTYPE;
        let root = Rank(if collective.rooted() { root } else { 0 });
        let op = if collective.reduces() { op } else { ReduceOp::Sum };
        Signature { collective, dtype, op, algorithm: Signature::RAGGED, root, count, sequence: 0 }
    }

    /// Plans and makes a call. `held` are the byte ranges of the blocks that input and output hold, `blocks` those of
    /// the whole vector, for their lengths.
    fn ragged<T: Element>(
        &mut self,
        call: Signature,
        input: (&[T], &[Range<usize>]),
        output: (&mut [T], &[Range<usize>]),
        blocks: &[Range<usize>],
    ) -> Result<(), Error> {
        let (given, got) = (bytemuck::cast_slice(input.0), bytemuck::cast_slice_mut(output.0));
        let registered = [self.is_registered(given), self.is_registered(got)];
        let (rank, size) = (Rank(self.rank()), self.size());
        let mut executor = ragged_plan(rank, size, &call, [input.1, output.1], blocks, registered);
        self.make(&mut executor, call, Loan::Apart { input: given, output: got })
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
