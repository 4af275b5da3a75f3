//! The communicator: a fixed group of ranks, and the collectives they call together.

use crate::buffer::Buffer;
use crate::builder::Builder;
use crate::connect::Fabric;
use crate::control::Control;
use crate::drive::{Driver, Manners};
use crate::explain::Explanation;
use crate::plans::{Plans, Shape};
use sohu_coll_core::{Collective, DType, Element, Error, Misuse, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::{Ledger, Loan, scope};
use std::sync::Arc;
use std::time::Duration;

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
    fabric: Fabric,
    control: Control,
    plans: Plans,
    ledger: Box<Ledger>,
    scratch: Vec<u8>,
    sequence: u32,
    timeout: Duration,
    manners: Manners,
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
        timeout: Duration,
        manners: Manners,
    ) -> Self {
        let size = fabric.size();
        Self {
            rank,
            size,
            fabric,
            control,
            plans,
            ledger: Ledger::new(),
            scratch: Vec::new(),
            sequence: 0,
            timeout,
            manners,
            failed: None,
        }
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
        self.fabric.name()
    }

    /// `output` becomes the reduction of all ranks' `input`, on every rank.
    ///
    /// # Errors
    /// [`Misuse::Length`] when the buffers differ in length; else as described at [`Communicator`].
    #[inline]
    pub fn all_reduce<T: Element>(
        &mut self,
        input: &[T],
        output: &mut [T],
        op: ReduceOp,
    ) -> Result<(), Error> {
        self.apart(Collective::AllReduce, input, output, op, 0)
    }

    /// `data` becomes the reduction of all ranks' `data`, on every rank.
    ///
    /// # Errors
    /// As described at [`Communicator`].
    #[inline]
    pub fn all_reduce_in_place<T: Element>(&mut self, data: &mut [T], op: ReduceOp) -> Result<(), Error> {
        self.in_place(Collective::AllReduce, data, op, 0)
    }

    /// `output` becomes block `rank` of the reduction of all ranks' `input`, which has `size` blocks of
    /// `output.len()` elements.
    ///
    /// # Errors
    /// [`Misuse::Length`] when the lengths do not fit; else as described at [`Communicator`].
    pub fn reduce_scatter<T: Element>(
        &mut self,
        input: &[T],
        output: &mut [T],
        op: ReduceOp,
    ) -> Result<(), Error> {
        self.apart(Collective::ReduceScatter, input, output, op, 0)
    }

    /// Block `rank` of `data` becomes that block of the reduction of all ranks' `data`; the others stay.
    ///
    /// # Errors
    /// [`Misuse::Length`] when `data` is no `size` equal blocks; else as described at [`Communicator`].
    pub fn reduce_scatter_in_place<T: Element>(&mut self, data: &mut [T], op: ReduceOp) -> Result<(), Error> {
        self.in_place(Collective::ReduceScatter, data, op, 0)
    }

    /// `output` becomes all ranks' `input`, in rank order.
    ///
    /// # Errors
    /// [`Misuse::Length`] when `output` is not `size` times as long; else as described at [`Communicator`].
    pub fn all_gather<T: Element>(&mut self, input: &[T], output: &mut [T]) -> Result<(), Error> {
        self.apart(Collective::AllGather, input, output, ReduceOp::Sum, 0)
    }

    /// Every block of `data` becomes the block of its rank; this rank gives block `rank`.
    ///
    /// # Errors
    /// [`Misuse::Length`] when `data` is no `size` equal blocks; else as described at [`Communicator`].
    pub fn all_gather_in_place<T: Element>(&mut self, data: &mut [T]) -> Result<(), Error> {
        self.in_place(Collective::AllGather, data, ReduceOp::Sum, 0)
    }

    /// `output` becomes the root's `input`, on every rank. Other ranks' `input` is not looked at, and may be empty.
    ///
    /// # Errors
    /// [`Misuse::Root`] when there is no such rank; else as described at [`Communicator`].
    pub fn broadcast<T: Element>(&mut self, input: &[T], output: &mut [T], root: u32) -> Result<(), Error> {
        self.apart(Collective::Broadcast, input, output, ReduceOp::Sum, root)
    }

    /// `data` becomes the root's `data`, on every rank.
    ///
    /// # Errors
    /// [`Misuse::Root`] when there is no such rank; else as described at [`Communicator`].
    pub fn broadcast_in_place<T: Element>(&mut self, data: &mut [T], root: u32) -> Result<(), Error> {
        self.in_place(Collective::Broadcast, data, ReduceOp::Sum, root)
    }

    /// Returns when every rank has called it.
    ///
    /// # Errors
    /// As described at [`Communicator`].
    pub fn barrier(&mut self) -> Result<(), Error> {
        self.all_reduce_in_place(&mut [0u8], ReduceOp::Max)
    }

    #[inline]
    fn apart<T: Element>(
        &mut self,
        collective: Collective,
        input: &[T],
        output: &mut [T],
        op: ReduceOp,
        root: u32,
    ) -> Result<(), Error> {
        let input = bytemuck::cast_slice(input);
        let output = bytemuck::cast_slice_mut(output);
        let buffers = Buffers::Apart { input, output };
        self.run(Request { collective, dtype: T::DTYPE, op, root, buffers })
    }

    #[inline]
    fn in_place<T: Element>(
        &mut self,
        collective: Collective,
        data: &mut [T],
        op: ReduceOp,
        root: u32,
    ) -> Result<(), Error> {
        let buffers = Buffers::InPlace(bytemuck::cast_slice_mut(data));
        self.run(Request { collective, dtype: T::DTYPE, op, root, buffers })
    }

    /// Makes any call, untyped.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the request makes no sense; else as described at [`Communicator`].
    #[inline]
    pub fn run(&mut self, request: Request<'_>) -> Result<(), Error> {
        let (shape, loan) = self.shape(request)?;
        if let Some(cause) = &self.failed {
            return Err(Error::Aborted { cause: cause.clone() });
        }
        let plan = self.plans.find(&shape)?;
        let scratch_bytes = plan.executor.bound().scratch_bytes;
        if self.scratch.len() < scratch_bytes {
            self.scratch.resize(scratch_bytes, 0);
        }
        let call = Signature { sequence: self.sequence, ..plan.signature };
        let links = self.fabric.links();
        let control = &mut self.control;
        let Manners { patience, ref mates } = self.manners;
        let mut driver = Driver { links, control, timeout: self.timeout, patience, mates, call };
        let executor = &mut plan.executor;
        let result = scope(&self.ledger, loan, &mut self.scratch, |regions| driver.run(executor, regions));
        driver.links.ring();
        self.sequence = self.sequence.wrapping_add(1);
        match result {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fail(*error)),
        }
    }

    /// Ends the communicator here and on all peers.
    #[cold]
    fn fail(&mut self, error: Error) -> Error {
        self.control.abort(&error);
        self.failed = Some(Arc::new(error.clone()));
        error
    }

    /// What a request asks for, checked. Inlined, because what it returns is long: passed on through memory, its
    /// parts would be stored and read back at another width, which stalls.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "measured: 15 ns of an 8-byte call")]
    fn shape<'a>(&self, request: Request<'a>) -> Result<(Shape, Loan<'a>), Error> {
        let Request { collective, dtype, op, root, buffers } = request;
        if collective.rooted() && root >= self.size {
            return Err(Misuse::Root { call: collective.name(), root, size: self.size }.into());
        }
        let (blocks, gives) = match collective {
            Collective::AllGather => (self.size as usize, true),
            Collective::ReduceScatter => (self.size as usize, true),
            Collective::AllReduce => (1, true),
            Collective::Broadcast => (1, root == self.rank.0),
        };
        let shape = |bytes: usize, in_place, input: &[u8], output: &[u8]| Shape {
            collective,
            dtype,
            op: if collective.reduces() { op } else { ReduceOp::Sum },
            root: Rank(if collective.rooted() { root } else { 0 }),
            count: bytes / dtype.size(),
            in_place,
            input_registered: self.fabric.is_registered(input),
            output_registered: self.fabric.is_registered(output),
        };
        match buffers {
            Buffers::Apart { input, output } => {
                let (block, expected) = match collective {
                    Collective::AllGather => (input.len(), (input.len() * blocks, output.len(), "output")),
                    _ => (output.len(), (output.len() * blocks, input.len(), "input")),
                };
                self.whole(collective, dtype, block)?;
                if gives && expected.0 != expected.1 {
                    return Err(self.length(collective, dtype, expected));
                }
                // Only the root gives something to a broadcast: elsewhere the input counts as what the output is.
                let shape = shape(block, false, if gives { input } else { output }, output);
                Ok((shape, Loan::Apart { input, output }))
            }
            Buffers::InPlace(buffer) => {
                let block = buffer.len() / blocks;
                self.whole(collective, dtype, block)?;
                if block * blocks != buffer.len() {
                    let whole = block.next_multiple_of(dtype.size()) * blocks;
                    return Err(self.length(collective, dtype, (whole, buffer.len(), "buffer")));
                }
                let shape = shape(block, true, buffer, buffer);
                let (all, own) =
                    (0..buffer.len(), self.rank.index() * block..(self.rank.index() + 1) * block);
                let (input, output) = match collective {
                    Collective::AllGather => (own, all),
                    Collective::ReduceScatter => (all, own),
                    Collective::AllReduce | Collective::Broadcast => (all.clone(), all),
                };
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
            Collective::Broadcast => "input and output are equally long at the root",
            Collective::AllGather => "the output has a block as long as the input for each rank",
            Collective::ReduceScatter => "the input has a block as long as the output for each rank",
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
        self.fabric.alloc(bytes).map_err(|reason| Misuse::Alloc { bytes, reason }.into())
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
        let shape = Shape {
            collective,
            dtype,
            op,
            root: Rank(0),
            count,
            in_place,
            input_registered: registered,
            output_registered: registered,
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
        let measured = self.fabric.handover_ns(ROUNDS);
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
        let measured = self.fabric.wake_ns(ROUNDS);
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
        self.fabric.links().ring();
        self.control.bye(self.sequence);
    }
}
