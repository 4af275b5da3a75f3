//! Calls whose blocks are not equally long: the collectives that MPI names with a v.
//!
//! Invariant: no byte of a call moves before all ranks agree on all lengths. Where every rank is told all of them, the
//! signature carries a hash; an all-to-all compares what each pair says in two small calls before.

pub(crate) mod plans;

use crate::communicator::Communicator;
use crate::request::incomplete;
use plans::{Key, Layout, Words};
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
        const CALL: &str = "all_gather_v";
        let call = self.ragged_call::<T>(Collective::AllGather, ReduceOp::Sum, 0, agreed(counts));
        let (given, got) = (input.len(), output.len());
        self.ragged(call, input, output, [Blocks::packed(counts); 2], |comm| {
            let all = comm.whole::<T>(CALL, "output", got, counts)?;
            let own = comm.own_block::<T>(CALL, "input", given, counts)?;
            Ok(Layout { held: [vec![own], all.clone()], blocks: all })
        })
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
        const CALL: &str = "reduce_scatter_v";
        if op.is_open() {
            return Err(incomplete(CALL, op));
        }
        let call = self.ragged_call::<T>(Collective::ReduceScatter, op, 0, agreed(counts));
        let (given, got) = (input.len(), output.len());
        self.ragged(call, input, output, [Blocks::packed(counts); 2], |comm| {
            let all = comm.whole::<T>(CALL, "input", given, counts)?;
            let own = comm.own_block::<T>(CALL, "output", got, counts)?;
            Ok(Layout { held: [all.clone(), vec![own]], blocks: all })
        })
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
        const CALL: &str = "gather_v";
        let call = self.ragged_call::<T>(Collective::Gather, ReduceOp::Sum, root, agreed(counts));
        let (given, got, is_root) = (input.len(), output.len(), root == self.rank());
        self.ragged(call, input, output, [Blocks::packed(counts); 2], |comm| {
            let length = if is_root { got } else { total(counts) };
            let all = comm.whole::<T>(CALL, "output", length, counts)?;
            let own = comm.own_block::<T>(CALL, "input", given, counts)?;
            comm.is_root(CALL, root)?;
            let held = if is_root { all.clone() } else { Vec::new() };
            Ok(Layout { held: [vec![own], held], blocks: all })
        })
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
        const CALL: &str = "scatter_v";
        let call = self.ragged_call::<T>(Collective::Scatter, ReduceOp::Sum, root, agreed(counts));
        let (given, got, is_root) = (input.len(), output.len(), root == self.rank());
        self.ragged(call, input, output, [Blocks::packed(counts); 2], |comm| {
            let length = if is_root { given } else { total(counts) };
            let all = comm.whole::<T>(CALL, "input", length, counts)?;
            let own = comm.own_block::<T>(CALL, "output", got, counts)?;
            comm.is_root(CALL, root)?;
            let held = if is_root { all.clone() } else { Vec::new() };
            Ok(Layout { held: [held, vec![own]], blocks: all })
        })
    }

    /// The algorithm that calls of `collective` whose blocks have lengths of their own are made with: the direct one, `one_shot`; and
    /// `pairwise` for an all-to-all of so many ranks that a direct one would have more sends outstanding at once.
    pub fn ragged_algorithm(&self, collective: Collective) -> &'static str {
        plans::algorithm(collective, self.size()).name()
    }

    /// Block `s` of `output` becomes block `rank` of rank s's `input`, wherever the blocks lie: `gives` says it of the
    /// input, `gets` of the output. What rank r gives rank s must be as long as what rank s gets from rank r; any of them may be
    /// empty. Bytes of the output outside of all blocks stay as they are. However many ranks there are, at most 16 sends of each are
    /// outstanding at once.
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
        let call = self.ragged_call::<T>(Collective::AllToAll, ReduceOp::Sum, 0, 0);
        let (size, element) = (self.size(), size_of::<T>());
        let (given, got) = (input.len(), output.len());
        self.ragged(call, input, output, [gives, gets], |_| {
            let from = gives.ranges(size, given, element, (CALL, "input"))?;
            let into = gets.ranges(size, got, element, (CALL, "output"))?;
            if overlap(&into) {
                return Err(Misuse::Overlap { call: CALL, buffer: "output" }.into());
            }
            Ok(Layout { held: [from, into], blocks: Vec::new() })
        })
    }

    /// Tells every rank what it will get from this one, and all ranks of the first pair that disagrees.
    fn compare_counts(&mut self, gives: &[usize], gets: &[usize], words: &mut Words) -> Result<(), Error> {
        let Words { given, offered, found: all } = words;
        given.clear();
        given.extend(gives.iter().map(|count| *count as u64));
        offered.resize(given.len(), 0);
        self.all_to_all(given, offered)?;
        let wrong =
            (0..).zip(offered.iter().zip(gets)).find(|(_, (offered, gets))| **offered != **gets as u64);
        // The pair, the giver first; 0 where all is well. And the two counts, of the rank that found the pair.
        let mut found = [0u64; 3];
        if let Some((giver, (offered, gets))) = wrong {
            let giver: u64 = giver;
            let pair = ((giver + 1) << 32) | (u64::from(self.rank()) + 1);
            found = [pair, *offered, *gets as u64];
        }
        all.resize(3 * given.len(), 0);
        self.all_gather(&found, all)?;
        match all.chunks_exact(3).find(|found| found[0] != 0) {
            None => Ok(()),
            Some(found) => Err(Misuse::Disagree {
                call: "all_to_all_v",
                from: Rank((found[0] >> 32) as u32 - 1),
                to: Rank(found[0] as u32 - 1),
                gives: found[1],
                gets: found[2],
            }
            .into()),
        }
    }

    /// The blocks of a buffer of `length` elements that holds all of them, in bytes.
    fn whole<T>(
        &self,
        call: &'static str,
        buffer: &'static str,
        length: usize,
        counts: &[usize],
    ) -> Result<Vec<Range<usize>>, Error> {
        Blocks::packed(counts).ranges(self.size(), length, size_of::<T>(), (call, buffer))
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
        length: usize,
        counts: &[usize],
    ) -> Result<Range<usize>, Error> {
        let (found, expected) = (length as u64, counts[self.rank() as usize] as u64);
        let rule = "it is this rank's block";
        let wrong = Misuse::Length { call, buffer, found, expected, rule };
        if found == expected { Ok(0..length * size_of::<T>()) } else { Err(wrong.into()) }
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

    /// Makes a call, planned now if it is a new one: then `lay` checks it and says where its blocks lie.
    fn ragged<T: Element>(
        &mut self,
        call: Signature,
        input: &[T],
        output: &mut [T],
        blocks: [Blocks<'_>; 2],
        lay: impl FnOnce(&Self) -> Result<Layout, Error>,
    ) -> Result<(), Error> {
        let (input, output) = (bytemuck::cast_slice(input), bytemuck::cast_slice_mut(output));
        let registered = [self.is_registered(input), self.is_registered(output)];
        let key = Key { call, lengths: [input.len(), output.len()], registered, blocks };
        let found = self.ragged_plans.find(&key);
        let layout = match found {
            Some(_) => None,
            None => Some(lay(self).map_err(|error| self.named(error))?),
        };
        if call.collective == Collective::AllToAll {
            // Each rank knows its own lengths alone, so those of others may have changed where these have not.
            let mut words = std::mem::take(&mut self.ragged_plans.words);
            let agreed = self.compare_counts(blocks[0].counts, blocks[1].counts, &mut words);
            self.ragged_plans.words = words;
            agreed.map_err(|error| self.named(error))?;
        }
        let place = match (found, layout) {
            (Some(place), _) => place,
            (None, Some(layout)) => self.ragged_plans.add(Rank(self.rank()), self.size(), &key, &layout),
            (None, None) => unreachable!("what was not found was laid out"),
        };
        let mut executor = self.ragged_plans.take(place);
        let made = self.make(&mut executor, call, Loan::Apart { input, output });
        self.ragged_plans.put_back(place, executor);
        made
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
