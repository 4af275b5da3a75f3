//! Calls that are planned once and made many times.
//!
//! Invariant: a persistent call is either here, with its buffers, or pending; so nobody touches the buffers of a call that is
//! being made.

use crate::communicator::Communicator;
use crate::owned::{Apart, Holder, Owned, Shared, given};
use crate::pending::{Failed, Pending};
use crate::terms::Task;
use crate::ticket::Kept;
use sohu_coll_core::{Error, Misuse};
use std::any::Any;
use std::fmt;

/// A call that owns its buffers and its plan, to be made again and again without planning or allocating anything.
///
/// [`run`](Self::run) makes it and waits; [`start`](Self::start) gives a [`Pending`] that gives it back when it is over. Any number of
/// persistent calls can be pending at once. It belongs to the communicator that planned it, and borrows nothing from it.
/// Its place among the calls of the communicator is that of each run, not that of the plan.
///
/// ```no_run
/// use sohu_coll::{Communicator, Error, ReduceOp};
///
/// # fn example(comm: &mut Communicator) -> Result<(), Error> {
/// let mut reduce = comm.plan_all_reduce_in_place(vec![0f32; 1000], ReduceOp::Sum)?;
/// for step in 0..100 {
///     reduce.data_mut().fill(step as f32);
///     reduce.run(comm)?;
///     reduce = reduce.start(comm)?.wait()?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Persistent<B> {
    kept: Kept,
    rebuild: fn(Kept) -> B,
    again: fn(Kept) -> Persistent<B>,
}

impl<B> Persistent<B> {
    /// A call that is planned and has never been made.
    pub(crate) fn new<W: Holder<Given = B>>(kept: Kept) -> Self {
        Self { kept, rebuild: given::<W>, again: Self::new::<W> }
    }

    /// Makes the call, after those that are pending, and returns when it is over.
    ///
    /// # Errors
    /// [`Misuse::Elsewhere`] when another communicator planned it; else as described at [`Communicator`].
    pub fn run(&mut self, comm: &mut Communicator) -> Result<(), Error> {
        self.check(comm)?;
        let lane = comm.lane();
        let Kept { owner, pinned, task: Task::Call(terms), .. } = &mut self.kept else {
            unreachable!("messages are not planned")
        };
        let pinned = match pinned {
            Some(pinned) => pinned,
            None => pinned.insert(lane.pin(terms, &mut **owner)?),
        };
        lane.make_pinned(terms, pinned, owner.buffers())
    }

    /// Starts the call. What is pending gives it back, to be started again.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and [`Misuse::Pending`] when too many are pending; [`Failed`] gives it back.
    pub fn start(self, comm: &mut Communicator) -> Result<Pending<Self>, Failed<Self>> {
        match self.check(comm) {
            Ok(()) => comm.start_kept(self.kept, self.again),
            Err(error) => Err(Failed { error: error.into(), buffers: self }),
        }
    }

    /// The buffers, for good.
    pub fn into_buffers(self) -> B {
        (self.rebuild)(self.kept)
    }

    fn check(&self, comm: &Communicator) -> Result<(), Error> {
        let own = comm.has_queue(&self.kept.queue);
        if own { Ok(()) } else { Err(Misuse::Elsewhere { call: self.kept.task.name() }.into()) }
    }

    fn owner<W: Holder>(&self) -> &W {
        let owner: &dyn Any = &*self.kept.owner;
        owner.downcast_ref().expect("a persistent call keeps what it was planned for")
    }

    fn owner_mut<W: Holder>(&mut self) -> &mut W {
        let owner: &mut dyn Any = &mut *self.kept.owner;
        owner.downcast_mut().expect("a persistent call keeps what it was planned for")
    }
}

/// In place.
impl<D: Owned> Persistent<D> {
    /// The buffer.
    pub fn data(&self) -> &[D::Element] {
        self.owner::<Shared<D>>().0.elements()
    }

    /// The buffer, to change what is in it before the next run.
    pub fn data_mut(&mut self) -> &mut [D::Element] {
        self.owner_mut::<Shared<D>>().0.elements_mut()
    }
}

/// Out of place.
impl<I: Owned, O: Owned> Persistent<(I, O)> {
    /// The input.
    pub fn input(&self) -> &[I::Element] {
        self.owner::<Apart<I, O>>().0.elements()
    }

    /// The input, to change what is in it before the next run.
    pub fn input_mut(&mut self) -> &mut [I::Element] {
        self.owner_mut::<Apart<I, O>>().0.elements_mut()
    }

    /// The output.
    pub fn output(&self) -> &[O::Element] {
        self.owner::<Apart<I, O>>().1.elements()
    }

    /// The output, to change what is in it before the next run.
    pub fn output_mut(&mut self) -> &mut [O::Element] {
        self.owner_mut::<Apart<I, O>>().1.elements_mut()
    }
}

impl<B> fmt::Debug for Persistent<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Persistent({})", self.kept.task.name())
    }
}
