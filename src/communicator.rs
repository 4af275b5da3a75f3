//! The communicator: a fixed group of ranks, and the collectives they call together.

use crate::buffer::Buffer;
use crate::builder::Builder;
use crate::connect::{Fabric, Memory};
use crate::control::Control;
use crate::engine::Engine;
use crate::explain::Explanation;
use crate::lane::{self, Lane};
use crate::mail::Mail;
use crate::memory::{Account, MemoryUse};
use crate::others;
use crate::owned::Owner;
use crate::plans::{Forced, Plans, Shape};
use crate::proxy::Proxy;
use crate::queue::Queue;
use crate::ragged;
use crate::request::Request;
use crate::terms::Task;
use sohu_coll_core::link::LEND_MIN;
use sohu_coll_core::operation::{Operand, Tag};
use sohu_coll_core::{Collective, DType, Element, Error, Misuse, Rank, ReduceOp};
use sohu_coll_mem::doorbell::Patience;
use std::sync::Arc;

/// A group of ranks with links between them.
///
/// Every rank makes the same calls in the same order. A call that differs (collective, count, type,
/// operation, root) is an error on every rank, before any output is written. Small broadcasts, reduces, gathers and scatters
/// over shared memory wait only for the ranks that this one takes bytes from: if those made the same call it returns, and
/// is told of another rank that did not in a later call, at the latest in the ninth. After a call has failed
/// in any other way than [`Error::Misuse`] or [`Error::Mispaired`], the communicator is aborted on all ranks: further
/// calls return [`Error::Aborted`] with the first cause. Messages ([`send`](Self::send), [`recv`](Self::recv), [`group`](Self::group)) are
/// the business of the ranks that they are between, and do not count among the calls of all.
///
/// A call whose name starts with `start_` returns at once, with a [`Pending`](crate::Pending): it owns its buffers, and is made in its
/// turn. A blocking call makes those that are pending first; blocking messages go on beside messages that are pending. Dropping
/// the communicator makes them too.
#[derive(Debug)]
pub struct Communicator {
    rank: Rank,
    size: u32,
    /// While no call is pending; else it is with the queue.
    lane: Option<Lane>,
    queue: Arc<Queue>,
    /// The thread that drives pending calls, where one is wanted and a call was started.
    proxy: Option<Proxy>,
    /// Whether a call was ever started.
    has_started: bool,
    memory: Memory,
    account: Arc<Account>,
    transport: &'static str,
    /// The settings that communicators made out of this one have too.
    template: Builder,
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
        patience: Patience,
        account: Arc<Account>,
    ) -> Self {
        let (size, memory, transport) = (fabric.size(), fabric.memory(), fabric.name());
        account.connected(&memory);
        let engine = Engine::new(fabric, control, template.time_limit(), patience, account.clone());
        let mail = Mail::new(rank, plans.tuner());
        let name = template.shown_name();
        let ragged = ragged::plans::Plans::default();
        let lane = Some(Lane { rank, size, engine, plans, ragged, sequence: 0, mail, failed: None, name });
        Self {
            rank,
            size,
            lane,
            queue: Queue::new(),
            proxy: None,
            has_started: false,
            memory,
            account,
            transport,
            template,
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

    /// The name, where it has one: see [`Builder::name`].
    pub fn name(&self) -> Option<&str> {
        self.template.name_text()
    }

    /// What the communicator takes of this process's memory now, item by item: its staging, slots, lines and control words (or
    /// the queues of its sockets), registered memory in use, and scratch memory.
    pub fn memory(&self) -> MemoryUse {
        self.account.report(self.name())
    }

    /// The error, with the name if there is one.
    #[cold]
    pub(crate) fn named(&self, error: Error) -> Error {
        lane::named(self.template.shown_name().as_ref(), error)
    }

    /// What connects the ranks: `shm` or `tcp`.
    pub fn transport(&self) -> &'static str {
        self.transport
    }

    /// Makes any call, untyped.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the request makes no sense; else as described at [`Communicator`].
    #[inline]
    pub fn run(&mut self, request: Request<'_>) -> Result<(), Error> {
        self.lane().run(request, 0)
    }

    /// Makes a call whose operation is not complete by its name.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub(crate) fn run_with(
        &mut self,
        request: Request<'_>,
        op: ReduceOp,
        tag: Tag,
        operand: Operand,
    ) -> Result<(), Error> {
        self.lane().run_with(Request { op, ..request }, tag, operand)
    }

    /// Has an algorithm chosen for the calls from now on, or none. Returns what was forced before.
    pub(crate) fn force(&mut self, forced: Option<Forced>) -> Option<Forced> {
        self.lane().plans.force(forced)
    }

    /// The way to make calls, once the calls that are pending are over.
    #[inline]
    pub(crate) fn lane(&mut self) -> &mut Lane {
        if self.lane.is_none() {
            self.lane = Some(self.queue.drain());
        }
        self.lane.as_mut().expect("it was put here if it was not")
    }

    /// Hands the lane over to the queue of pending calls, if it is not there.
    pub(crate) fn hand_over(&mut self) {
        let Some(lane) = self.lane.take() else { return };
        self.queue.take_lane(lane);
        if !self.has_started {
            self.has_started = true;
            others::add(&self.queue);
        }
        if self.proxy.is_none() && self.template.wants_proxy() {
            self.proxy = Proxy::start(&self.queue);
        }
    }

    /// The lane, unless calls may be pending.
    pub(crate) fn idle_lane(&mut self) -> Option<&mut Lane> {
        self.lane.as_mut()
    }

    /// Whether messages are pending.
    pub(crate) fn is_mailing(&self) -> bool {
        self.lane.is_none() && self.queue.is_mailing()
    }

    /// The queue of pending calls.
    pub(crate) fn own_queue(&self) -> Arc<Queue> {
        self.queue.clone()
    }

    /// Whether this is the queue of this communicator.
    pub(crate) fn has_queue(&self, queue: &Arc<Queue>) -> bool {
        Arc::ptr_eq(&self.queue, queue)
    }

    /// Whether a call makes sense here on the buffers of its owner.
    ///
    /// # Errors
    /// [`Error::Misuse`] says what does not.
    pub(crate) fn check(&self, task: &Task, owner: &mut dyn Owner) -> Result<(), Error> {
        task.check(self.rank, self.size, owner).map_err(|error| self.named(error))
    }

    /// Makes all calls that are pending, and returns when they are over. What came of each is told where it is waited for.
    ///
    /// # Errors
    /// [`Error::Aborted`] when the communicator is aborted.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.lane().ready()
    }

    /// Zeroed memory for `count` elements that local peers can read and write in place. It is this rank's own
    /// business: no rank waits for another. On a transport without such memory it is ordinary memory.
    ///
    /// # Errors
    /// [`Misuse::Alloc`] when there is not enough, or more than [`Builder::max_memory`] leaves.
    pub fn alloc<T: Element>(&mut self, count: usize) -> Result<Buffer<T>, Error> {
        let too_long = || Misuse::Alloc { bytes: usize::MAX, reason: "more than there are addresses".into() };
        let bytes = count.checked_mul(size_of::<T>()).ok_or_else(|| self.named(too_long().into()))?;
        let taken = self.account.register(bytes, || self.memory.alloc(bytes));
        taken.map_err(|reason| self.named(Misuse::Alloc { bytes, reason }.into()))
    }

    /// What a call would do and how long it should take: the algorithm chosen, and what else there is. While another
    /// thread drives pending calls it waits for that thread.
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
            tag: Tag::default(),
        };
        let explained = match &self.lane {
            Some(lane) => Explanation::of(&lane.plans, &shape, self.size),
            None => self.queue.with_lane(|lane| Explanation::of(&lane.plans, &shape, self.size)),
        };
        explained.map_err(|error| self.named(error))
    }

    /// One-way time of a cache line from rank 0 to rank 1, in nanoseconds, measured now. Every rank must call
    /// it; all get the same figure, NaN where there is none (one rank, or no shared memory).
    ///
    /// # Errors
    /// As described at [`Communicator`].
    pub fn handover_ns(&mut self) -> Result<f64, Error> {
        const ROUNDS: u64 = 1_000; // ~0.1 ms near, ~0.6 ms far: short against the seconds a state lasts
        self.barrier()?;
        let measured = self.lane().engine.fabric.handover_ns(ROUNDS);
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
        let measured = self.lane().engine.fabric.wake_ns(ROUNDS);
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
        // What was started and never waited for happens all the same: peers count on it.
        let lane = self.lane();
        lane.engine.fabric.links().ring();
        lane.engine.control.bye(lane.sequence);
    }
}
