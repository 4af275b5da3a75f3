//! One call with blocks of any lengths, its buffers apart: whether it makes sense on given buffers, and where its blocks lie.

use super::plans::{Key, Layout};
use super::{Blocks, agreed, overlap, total};
use crate::connect::Fabric;
use crate::operation::Folding;
use crate::request::{Buffers, incomplete};
use sohu_coll_core::operation::Tag;
use sohu_coll_core::{Collective, DType, Error, Misuse, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::Loan;
use std::ops::Range;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut<'a> {
    pub(crate) collective: Collective,
    pub(crate) dtype: DType,
    pub(crate) op: ReduceOp,
    /// Which user operation it is; none, where `op` is no such.
    pub(crate) tag: Tag,
    /// Whether the operation lacks what it needs besides its name.
    pub(crate) is_incomplete: bool,
    pub(crate) root: u32,
    /// The blocks of the input and of the output; the same twice where there is one list.
    pub(crate) blocks: [Blocks<'a>; 2],
}

impl<'a> Cut<'a> {
    /// A call that does not reduce, with one list of blocks.
    pub(crate) fn new(collective: Collective, dtype: DType, root: u32, blocks: Blocks<'a>) -> Self {
        let (op, tag) = (ReduceOp::Sum, Tag::default());
        Self { collective, dtype, op, tag, is_incomplete: false, root, blocks: [blocks; 2] }
    }

    /// A reduce-scatter.
    pub(crate) fn reduces(dtype: DType, folding: &Folding, counts: &'a [usize]) -> Self {
        let cut = Self::new(Collective::ReduceScatter, dtype, 0, Blocks::packed(counts));
        Self { op: folding.op, tag: folding.tag, is_incomplete: folding.is_incomplete(), ..cut }
    }

    /// The name of the call, for errors.
    pub(crate) fn name(&self) -> &'static str {
        match self.collective {
            Collective::AllGather => "all_gather_v",
            Collective::ReduceScatter => "reduce_scatter_v",
            Collective::Gather => "gather_v",
            Collective::Scatter => "scatter_v",
            Collective::AllToAll => "all_to_all_v",
            // Those whose vector is one block have no form with blocks.
            other => other.name(),
        }
    }

    /// Whether ranks tell each other their lengths before the call: nobody knows those of all.
    pub(crate) fn is_compared(&self) -> bool {
        self.collective == Collective::AllToAll
    }

    /// The signature, but for its sequence.
    pub(crate) fn call(&self) -> Signature {
        let Self { collective, dtype, op, tag, root, blocks: [_, gets], .. } = *self;
        let count = match (self.is_compared(), op) {
            (true, _) => 0,
            (false, ReduceOp::User) => Signature::count_for(agreed(gets.counts), tag),
            (false, _) => agreed(gets.counts),
        };
        let root = Rank(if collective.rooted() { root } else { 0 });
        Signature { collective, dtype, op, algorithm: Signature::RAGGED, root, count, sequence: 0 }
    }

    /// Everything that decides how the call is made on these buffers.
    pub(crate) fn key(&self, buffers: &Buffers<'_>, fabric: &Fabric) -> Key<'a> {
        let [input, output] = match buffers {
            Buffers::Apart { input, output } => [input, &**output],
            Buffers::InPlace(buffer) => [&**buffer; 2],
        };
        Key {
            call: self.call(),
            in_place: matches!(buffers, Buffers::InPlace(_)),
            lengths: [input.len(), output.len()],
            registered: [fabric.is_registered(input), fabric.is_registered(output)],
            blocks: self.blocks,
        }
    }

    /// Where the blocks lie in these buffers of `rank`, one of `size`.
    ///
    /// # Errors
    /// [`Error::Misuse`] says what makes no sense.
    pub(crate) fn lay(&self, rank: Rank, size: u32, buffers: &Buffers<'_>) -> Result<Layout, Error> {
        if self.is_incomplete {
            return Err(incomplete(self.name(), self.op));
        }
        if self.collective.rooted() && self.root >= size {
            return Err(Misuse::Root { call: self.name(), root: self.root, size }.into());
        }
        let lengths = match buffers {
            Buffers::Apart { input, output } => [("input", input.len()), ("output", output.len())],
            Buffers::InPlace(buffer) => [("buffer", buffer.len()); 2],
        };
        let [given, got] = lengths.map(|(name, bytes)| (name, bytes / self.dtype.size()));
        if self.collective == Collective::AllToAll {
            return self.lay_pairs(size, given, got);
        }
        // The buffer that holds the whole vector, where this rank has one, and the one that holds this rank's block.
        let [whole, own] = match self.collective {
            Collective::AllGather | Collective::Gather => [got, given],
            _ => [given, got],
        };
        let in_place = matches!(buffers, Buffers::InPlace(_));
        let has_whole = !self.collective.rooted() || rank.0 == self.root;
        let (buffer, length) = whole;
        let length = if has_whole { length } else { total(self.blocks[0].counts) };
        let all = self.blocks[0].ranges(size, length, self.dtype.size(), (self.name(), buffer))?;
        if !(in_place && has_whole) {
            self.is_own_block(rank, own)?;
        }
        let block = 0..all[rank.index()].len();
        let block = vec![block];
        let held_whole = if has_whole { all.clone() } else { Vec::new() };
        let held = match self.collective {
            Collective::AllGather | Collective::Gather => [block, held_whole],
            _ => [held_whole, block],
        };
        Ok(Layout { held, blocks: all })
    }

    /// As [`lay`](Self::lay), where there is a block for each pair of ranks.
    fn lay_pairs(
        &self,
        size: u32,
        (input, given): (&'static str, usize),
        (output, got): (&'static str, usize),
    ) -> Result<Layout, Error> {
        let ([gives, gets], element, call) = (self.blocks, self.dtype.size(), self.name());
        let from = gives.ranges(size, given, element, (call, input))?;
        let into = gets.ranges(size, got, element, (call, output))?;
        if overlap(&into) {
            return Err(Misuse::Overlap { call, buffer: output }.into());
        }
        Ok(Layout { held: [from, into], blocks: Vec::new() })
    }

    /// Whether a buffer is this rank's block and nothing more.
    fn is_own_block(&self, rank: Rank, (buffer, length): (&'static str, usize)) -> Result<(), Error> {
        let (found, expected) = (length as u64, self.blocks[0].counts[rank.index()] as u64);
        let rule = "it is this rank's block";
        let wrong = Misuse::Length { call: self.name(), buffer, found, expected, rule };
        if found == expected { Ok(()) } else { Err(wrong.into()) }
    }

    /// The buffers, which were [found](Self::lay) to fit, as the call of `rank` borrows them.
    pub(crate) fn loan<'b>(&self, rank: Rank, buffers: Buffers<'b>) -> Loan<'b> {
        let buffer = match buffers {
            Buffers::Apart { input, output } => return Loan::Apart { input, output },
            Buffers::InPlace(buffer) => buffer,
        };
        let (element, counts) = (self.dtype.size(), self.blocks[0].counts);
        let start = total(&counts[..rank.index()]) * element;
        let own = start..start + counts[rank.index()] * element;
        let (all, none): (Range<usize>, Range<usize>) = (0..buffer.len(), 0..0);
        let is_root = rank.0 == self.root;
        let (input, output) = match self.collective {
            Collective::AllGather => (own, all),
            Collective::ReduceScatter => (all, own),
            Collective::Gather if is_root => (own, all),
            Collective::Gather => (all, none),
            Collective::Scatter if is_root => (all, own),
            Collective::Scatter => (none, all),
            _ => (all.clone(), all),
        };
        Loan::Shared { buffer, input, output }
    }
}
