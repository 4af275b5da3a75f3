//! What is asked for: a collective, and the buffers it is to work on, before it is known to make sense.

use crate::plans::Shape;
use sohu_coll_core::link::LEND_MIN;
use sohu_coll_core::operation::Tag;
use sohu_coll_core::{Collective, DType, Error, Misuse, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::Loan;
use std::ops::Range;

/// The buffers of an untyped call.
#[derive(Debug)]
pub enum Buffers<'a> {
    /// Input and output are apart.
    Apart {
        /// What this rank gives. Ignored where it gives nothing (broadcast, but at the root).
        input: &'a [u8],
        /// What this rank gets.
        output: &'a mut [u8],
    },
    /// One buffer holds both, by NCCL's rules: for all-gather the input is block `rank` of the buffer, for
    /// reduce-scatter the output is; otherwise the buffer is both.
    InPlace(&'a mut [u8]),
}

/// A call without Rust types: for callers that learn the element type at run time.
#[derive(Debug)]
pub struct Request<'a> {
    /// Which collective.
    pub collective: Collective,
    /// Element type.
    pub dtype: DType,
    /// Reduction; ignored where the collective does not reduce. One that is complete by its name: see
    /// [`Communicator::run_scaled`](crate::Communicator::run_scaled) for the other.
    pub op: ReduceOp,
    /// The root; ignored where there is none.
    pub root: u32,
    /// The bytes.
    pub buffers: Buffers<'a>,
}

impl<'a> Request<'a> {
    /// As [`shape`](Self::shape), of a request whose operation may take more than its name: `tag` is that of a user operation.
    ///
    /// # Errors
    /// As for [`shape`](Self::shape).
    pub(crate) fn shape_with(
        self,
        rank: Rank,
        size: u32,
        is_registered: impl Fn(&[u8]) -> bool,
        tag: Tag,
    ) -> Result<(Shape, Loan<'a>), Error> {
        let op = if self.collective.reduces() { self.op } else { ReduceOp::Sum };
        let (shape, loan) = Request { op: ReduceOp::Sum, ..self }.shape(rank, size, is_registered)?;
        let (count, max) = (shape.count as u64, Signature::USER_COUNT_MAX);
        if op == ReduceOp::User && count > max {
            return Err(Misuse::Count { call: shape.collective.name(), count, max }.into());
        }
        Ok((Shape { op, tag, ..shape }, loan))
    }

    /// What a request asks for, checked.
    ///
    /// # Errors
    /// [`Error::Misuse`] says what makes no sense.
    pub(crate) fn shape(
        self,
        rank: Rank,
        size: u32,
        is_registered: impl Fn(&[u8]) -> bool,
    ) -> Result<(Shape, Loan<'a>), Error> {
        let Request { collective, dtype, op, root, buffers } = self;
        if collective.rooted() && root >= size {
            return Err(Misuse::Root { call: collective.name(), root, size }.into());
        }
        let held = collective.held(size, root == rank.0).map(|blocks| blocks as usize);
        let op = if collective.reduces() { op } else { ReduceOp::Sum };
        if op.is_open() {
            return Err(incomplete(collective.name(), op));
        }
        let root = Rank(if collective.rooted() { root } else { 0 });
        let shape = |block: usize, in_place, input: &[u8], output: &[u8]| {
            // By what the root holds, so that all ranks say the same.
            let most = collective.held(size, true);
            let lends = block * most[0].max(most[1]) as usize >= LEND_MIN;
            let count = block / dtype.size();
            // Where a rank has no input or no output, the other counts as both.
            let (given, got) = match held {
                [0, _] => (output, output),
                [_, 0] => (input, input),
                _ => (input, output),
            };
            let input_registered = lends && is_registered(given);
            let output_registered = lends && is_registered(got);
            let tag = Tag::default();
            Shape { collective, dtype, op, root, count, in_place, input_registered, output_registered, tag }
        };
        match buffers {
            Buffers::Apart { input, output } => {
                let block = match held {
                    [_, 1] => output.len(),
                    [1, _] => input.len(),
                    [_, gets] => output.len() / gets,
                };
                whole(collective, dtype, block)?;
                for (bytes, blocks, name) in
                    [(input.len(), held[0], "input"), (output.len(), held[1], "output")]
                {
                    if blocks > 0 && bytes != blocks * block {
                        return Err(length(collective, dtype, (blocks * block, bytes, name)));
                    }
                }
                Ok((shape(block, false, input, output), Loan::Apart { input, output }))
            }
            Buffers::InPlace(buffer) => {
                let blocks = held[0].max(held[1]);
                let block = buffer.len() / blocks;
                whole(collective, dtype, block)?;
                if block * blocks != buffer.len() {
                    let whole = block.next_multiple_of(dtype.size()) * blocks;
                    return Err(length(collective, dtype, (whole, buffer.len(), "buffer")));
                }
                let shape = shape(block, true, buffer, buffer);
                let bytes = |blocks: Range<u32>| blocks.start as usize * block..blocks.end as usize * block;
                let [input, output] = shape.job(size).sharing(rank).map(bytes);
                Ok((shape, Loan::Shared { buffer, input, output }))
            }
        }
    }
}

/// The error of an operation that was given by its name alone, and takes more.
#[cold]
pub(crate) fn incomplete(call: &'static str, op: ReduceOp) -> Error {
    let reason = match op {
        ReduceOp::PreMulSum => "needs a scalar: give PreMulSum(scalar), or call run_scaled",
        _ => "needs a function: give a UserOp",
    };
    Misuse::Operation { call, operation: op.name().into(), reason: reason.into() }.into()
}

/// Whether `bytes` are a whole number of elements that one call can carry.
#[inline]
fn whole(collective: Collective, dtype: DType, bytes: usize) -> Result<(), Error> {
    let (call, element) = (collective.name(), dtype.size());
    if bytes & (element - 1) != 0 {
        return Err(Misuse::Bytes { call, bytes, dtype: dtype.name(), element }.into());
    }
    let (count, max) = ((bytes / element) as u64, Signature::COUNT_MAX);
    if count > max {
        return Err(Misuse::Count { call, count, max }.into());
    }
    Ok(())
}

#[cold]
fn length(collective: Collective, dtype: DType, found: (usize, usize, &'static str)) -> Error {
    let (expected, found, buffer) = found;
    let element = dtype.size();
    let rule = match collective {
        Collective::AllReduce => "input and output are equally long",
        Collective::Broadcast | Collective::Reduce => "input and output are equally long at the root",
        Collective::AllGather => "the output has a block as long as the input for each rank",
        Collective::Gather => "the root's output has a block as long as its input for each rank",
        Collective::ReduceScatter => "the input has a block as long as the output for each rank",
        Collective::Scatter => "the root's input has a block as long as its output for each rank",
        Collective::AllToAll => "input and output are equally long and have a block for each rank",
    };
    let (found, expected) = ((found / element) as u64, (expected / element) as u64);
    Misuse::Length { call: collective.name(), buffer, found, expected, rule }.into()
}
