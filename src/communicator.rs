//! The communicator: a fixed group of ranks, and the collectives they call together.

use crate::buffer::Buffer;
use crate::builder::Builder;
use crate::connect::Fabric;
use crate::control::Control;
use crate::drive::Manners;
use crate::engine::Engine;
use crate::explain::Explanation;
use crate::plans::{Asked, Plans, Shape};
use sohu_coll_core::exec::Executor;
use sohu_coll_core::link::LEND_MIN;
use sohu_coll_core::{Collective, DType, Element, Error, Misuse, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::Loan;
use std::ops::Range;
use std::sync::Arc;

/// A group of ranks with links between them.
///
/// Every rank makes the same calls in the same order. A call that differs (collective, count, type,
/// operation, root) is an error on every rank, before any output is written. After a call has failed
/// in any other way than [`Error::Misuse`], the communicator is aborted on all ranks: further calls return
/// [`Error::Aborted`] with the first cause.
#[derive(Debug)]
pub struct Communicator {
    rank: Rank,
    size: u32,
    engine: Engine,
    plans: Plans,
    sequence: u32,
    /// The settings that communicators made out of this one have too.
    template: Builder,
    failed: Option<Arc<Error>>,
}

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
    /// Reduction; ignored where the collective does not reduce.
    pub op: ReduceOp,
    /// The root; ignored where there is none.
    pub root: u32,
    /// The bytes.
    pub buffers: Buffers<'a>,
}

impl Communicator {
    /// A builder, for who knows its rank, or wants other than default settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Joins the job that the environment describes: that of `sohu-coll run`, torchrun, Open MPI, Hydra
    /// (MPICH, Intel MPI) or Slurm.
    ///
    /// # Errors
    /// As for [`Builder::build`]; also when the environment names no rank.
    pub fn from_env() -> Result<Self, Error> {
        Self::builder().from_env()?.build()
    }

    pub(crate) fn new(
        rank: Rank,
        fabric: Fabric,
        control: Control,
        plans: Plans,
        template: Builder,
        manners: Manners,
    ) -> Self {
        let size = fabric.size();
        Self {
            rank,
            size,
            engine: Engine::new(fabric, control, template.patience(), manners),
            plans,
            sequence: 0,
            template,
            failed: None,
        }
    }

    pub(crate) fn template(&self) -> Builder {
        self.template.clone()
    }

    /// This rank, `0..size`.
    pub fn rank(&self) -> u32 {
        self.rank.0
    }

    /// How many ranks there are.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// What connects the ranks: `shm` or `tcp`.
    pub fn transport(&self) -> &'static str {
        self.engine.fabric.name()
    }

    /// Makes any call, untyped.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the request makes no sense; else as described at [`Communicator`].
    #[inline]
    pub fn run(&mut self, request: Request<'_>) -> Result<(), Error> {
        let asked = Asked::new(&request);
        let fabric = &self.engine.fabric;
        let Some(plan) = self.plans.recall(&asked).filter(|plan| plan.fits(&request.buffers, fabric)) else {
            return self.run_anew(request, asked);
        };
        if self.failed.is_some() {
            return self.run_anew(request, asked);
        }
        let call = Signature { sequence: self.sequence, ..plan.signature };
        let loan = plan.loan(request.buffers);
        let made = self.engine.make(&mut plan.executor, call, loan);
        self.end(made)
    }

    /// As [`run`](Self::run), for a request that was not among the last few.
    #[cold]
    fn run_anew(&mut self, request: Request<'_>, asked: Asked) -> Result<(), Error> {
        let (shape, loan) = self.shape(request)?;
        if let Some(cause) = &self.failed {
            return Err(Error::Aborted { cause: cause.clone() });
        }
        let plan = self.plans.find(&shape, asked)?;
        let call = Signature { sequence: self.sequence, ..plan.signature };
        let made = self.engine.make(&mut plan.executor, call, loan);
        self.end(made)
    }

    /// Makes a call that was planned for this once.
    pub(crate) fn make(
        &mut self,
        executor: &mut Executor,
        call: Signature,
        loan: Loan<'_>,
    ) -> Result<(), Error> {
        if let Some(cause) = &self.failed {
            return Err(Error::Aborted { cause: cause.clone() });
        }
        let call = Signature { sequence: self.sequence, ..call };
        let made = self.engine.make(executor, call, loan);
        self.end(made)
    }

    #[inline]
    fn end(&mut self, made: Result<(), Box<Error>>) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        match made {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fail(*error)),
        }
    }

    /// Whether bytes lie in memory of [`alloc`](Self::alloc).
    pub(crate) fn is_registered(&self, bytes: &[u8]) -> bool {
        self.engine.fabric.is_registered(bytes)
    }

    /// Ends the communicator here and on all peers.
    #[cold]
    fn fail(&mut self, error: Error) -> Error {
        self.engine.control.abort(&error);
        self.failed = Some(Arc::new(error.clone()));
        error
    }

    /// What a request asks for, checked.
    fn shape<'a>(&self, request: Request<'a>) -> Result<(Shape, Loan<'a>), Error> {
        let Request { collective, dtype, op, root, buffers } = request;
        if collective.rooted() && root >= self.size {
            return Err(Misuse::Root { call: collective.name(), root, size: self.size }.into());
        }
        let held = collective.held(self.size, root == self.rank.0).map(|blocks| blocks as usize);
        let op = if collective.reduces() { op } else { ReduceOp::Sum };
        let root = Rank(if collective.rooted() { root } else { 0 });
        let shape = |block: usize, in_place, input: &[u8], output: &[u8]| {
            // By what the root holds, so that all ranks say the same.
            let most = collective.held(self.size, true);
            let lends = block * most[0].max(most[1]) as usize >= LEND_MIN;
            let count = block / dtype.size();
            // Where a rank has no input or no output, the other counts as both.
            let (given, got) = match held {
                [0, _] => (output, output),
                [_, 0] => (input, input),
                _ => (input, output),
            };
            let input_registered = lends && self.engine.fabric.is_registered(given);
            let output_registered = lends && self.engine.fabric.is_registered(got);
            Shape { collective, dtype, op, root, count, in_place, input_registered, output_registered }
        };
        match buffers {
            Buffers::Apart { input, output } => {
                let block = match held {
                    [_, 1] => output.len(),
                    [1, _] => input.len(),
                    [_, gets] => output.len() / gets,
                };
                self.whole(collective, dtype, block)?;
                for (bytes, blocks, name) in
                    [(input.len(), held[0], "input"), (output.len(), held[1], "output")]
                {
                    if blocks > 0 && bytes != blocks * block {
                        return Err(self.length(collective, dtype, (blocks * block, bytes, name)));
                    }
                }
                Ok((shape(block, false, input, output), Loan::Apart { input, output }))
            }
            Buffers::InPlace(buffer) => {
                let blocks = held[0].max(held[1]);
                let block = buffer.len() / blocks;
                self.whole(collective, dtype, block)?;
                if block * blocks != buffer.len() {
                    let whole = block.next_multiple_of(dtype.size()) * blocks;
                    return Err(self.length(collective, dtype, (whole, buffer.len(), "buffer")));
                }
                let shape = shape(block, true, buffer, buffer);
                let bytes = |blocks: Range<u32>| blocks.start as usize * block..blocks.end as usize * block;
                let [input, output] = shape.job(self.size).sharing(self.rank).map(bytes);
                Ok((shape, Loan::Shared { buffer, input, output }))
            }
        }
    }

    /// Whether `bytes` are a whole number of elements that one call can carry.
    #[inline]
    fn whole(&self, collective: Collective, dtype: DType, bytes: usize) -> Result<(), Error> {
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
    fn length(&self, collective: Collective, dtype: DType, found: (usize, usize, &'static str)) -> Error {
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

    /// Zeroed memory for `count` elements that local peers can read and write in place. It is this rank's own
    /// business: no rank waits for another. On a transport without such memory it is ordinary memory.
    ///
    /// # Errors
    /// [`Misuse::Alloc`] when there is not enough.
    pub fn alloc<T: Element>(&mut self, count: usize) -> Result<Buffer<T>, Error> {
        let too_long = || Misuse::Alloc { bytes: usize::MAX, reason: "more than there are addresses".into() };
        let bytes = count.checked_mul(size_of::<T>()).ok_or_else(too_long)?;
        self.engine.fabric.alloc(bytes).map_err(|reason| Misuse::Alloc { bytes, reason }.into())
    }

    /// What a call would do and how long it should take: the algorithm chosen, and what else there is.
    ///
    /// # Errors
    /// [`Misuse::Algorithm`] when an algorithm is forced that can not do it.
    pub fn explain(
        &self,
        collective: Collective,
        dtype: DType,
        op: ReduceOp,
        count: usize,
        in_place: bool,
        registered: bool,
    ) -> Result<Explanation, Error> {
        let held = collective.held(self.size, true);
        let lends = registered && count * dtype.size() * held[0].max(held[1]) as usize >= LEND_MIN;
        let shape = Shape {
            collective,
            dtype,
            op,
            root: Rank(0),
            count,
            in_place,
            input_registered: lends,
            output_registered: lends,
        };
        Explanation::of(&self.plans, &shape, self.size)
    }

    /// One-way time of a cache line from rank 0 to rank 1, in nanoseconds, measured now. Every rank must call
    /// it; all get the same figure, NaN where there is none (one rank, or no shared memory).
    ///
    /// # Errors
    /// As described at [`Communicator`].
    pub fn handover_ns(&mut self) -> Result<f64, Error> {
        const ROUNDS: u64 = 1_000; // ~0.1 ms near, ~0.6 ms far: short against the seconds a state lasts
        self.barrier()?;
        let measured = self.engine.fabric.handover_ns(ROUNDS);
        self.tell(measured)
    }

    /// Time for a sleeping rank 1 to wake and answer rank 0, in nanoseconds, measured now. As for
    /// [`handover_ns`](Self::handover_ns).
    ///
    /// # Errors
    /// As described at [`Communicator`].
    pub fn wake_ns(&mut self) -> Result<f64, Error> {
        const ROUNDS: u64 = 50;
        self.barrier()?;
        let measured = self.engine.fabric.wake_ns(ROUNDS);
        self.tell(measured)
    }

    /// Rank 0's figure, on every rank.
    fn tell(&mut self, measured: Option<f64>) -> Result<f64, Error> {
        let mut figure = [measured.unwrap_or(f64::NAN)];
        self.broadcast_in_place(&mut figure, 0)?;
        Ok(figure[0])
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.engine.fabric.links().ring();
        self.engine.control.bye(self.sequence);
    }
}
