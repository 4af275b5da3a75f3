//! Calls that own their buffers: started and waited for later, or planned once and made many times.
//!
//! For each blocking call `x` there is `start_x`, which gives a [`Pending`], and `plan_x`, which gives a [`Persistent`].

mod messages;
mod ragged;
mod untyped;

use crate::communicator::Communicator;
use crate::drive::Until;
use crate::operation::{Folding, Operation};
use crate::owned::{Apart, Bare, Holder, Owned, Shared, given};
use crate::pending::{Failed, Pending};
use crate::persistent::Persistent;
use crate::queue::{Goal, Job, PENDING_MAX};
use crate::terms::{Lengths, Task, Terms};
use crate::ticket::{Kept, Ticket};
use sohu_coll_core::{Collective, DType, Element, Error, Misuse, ReduceOp, Signature};
use std::sync::Arc;

/// Writes the calls of one collective. `$folding`, `$root` and `$lengths` say what is asked for, by the names of the arguments.
macro_rules! calls {
    ($(
        $collective:ident ($($argument:ident: $type:ty),*), $folding:expr, $root:expr, $lengths:expr;
        $apart:literal: $start:ident, $plan:ident;
        $in_place:literal: $start_in_place:ident, $plan_in_place:ident;
    )*) => {
        impl Communicator {$(
            #[doc = concat!("Starts a call as [`", $apart, "`](Self::", $apart, ") is; it owns its buffers until it is over.")]
            ///
            /// # Errors
            #[doc = concat!("As for [`", $apart, "`](Self::", $apart, "), and [`Misuse::Pending`] when too many calls are pending.")]
            /// [`Failed`] gives the buffers back.
            pub fn $start<B, O>(
                &mut self,
                input: B,
                output: O,
                $($argument: $type,)*
            ) -> Result<Pending<(B, O)>, Failed<(B, O)>>
            where
                B: Owned,
                O: Owned<Element = B::Element>,
            {
                let terms = terms::<B>(Collective::$collective, $folding, $root, $lengths);
                self.start(terms, Apart(input, output))
            }

            #[doc = concat!("Plans calls as [`", $apart, "`](Self::", $apart, ") is, on these buffers.")]
            ///
            /// # Errors
            #[doc = concat!("[`Misuse`](crate::Misuse) as for [`", $apart, "`](Self::", $apart, "); [`Failed`] gives the buffers back.")]
            pub fn $plan<B, O>(
                &mut self,
                input: B,
                output: O,
                $($argument: $type,)*
            ) -> Result<Persistent<(B, O)>, Failed<(B, O)>>
            where
                B: Owned,
                O: Owned<Element = B::Element>,
            {
                let terms = terms::<B>(Collective::$collective, $folding, $root, $lengths);
                self.plan(terms, Apart(input, output))
            }

            #[doc = concat!("Starts a call as [`", $in_place, "`](Self::", $in_place, ") is; it owns its buffer until it is over.")]
            ///
            /// # Errors
            #[doc = concat!("As for [`", $in_place, "`](Self::", $in_place, "), and [`Misuse::Pending`] when too many calls are pending.")]
            /// [`Failed`] gives the buffer back.
            pub fn $start_in_place<B: Owned>(
                &mut self,
                data: B,
                $($argument: $type,)*
            ) -> Result<Pending<B>, Failed<B>> {
                let terms = terms::<B>(Collective::$collective, $folding, $root, $lengths);
                self.start(terms, Shared(data))
            }

            #[doc = concat!("Plans calls as [`", $in_place, "`](Self::", $in_place, ") is, on this buffer.")]
            ///
            /// # Errors
            #[doc = concat!("[`Misuse`](crate::Misuse) as for [`", $in_place, "`](Self::", $in_place, "); [`Failed`] gives the buffer back.")]
            pub fn $plan_in_place<B: Owned>(
                &mut self,
                data: B,
                $($argument: $type,)*
            ) -> Result<Persistent<B>, Failed<B>> {
                let terms = terms::<B>(Collective::$collective, $folding, $root, $lengths);
                self.plan(terms, Shared(data))
            }
        )*}
    };
}
use calls;

calls! {
    AllReduce(op: impl Operation<B::Element>), op.folding(), 0, None;
        "all_reduce": start_all_reduce, plan_all_reduce;
        "all_reduce_in_place": start_all_reduce_in_place, plan_all_reduce_in_place;
    ReduceScatter(op: impl Operation<B::Element>), op.folding(), 0, None;
        "reduce_scatter": start_reduce_scatter, plan_reduce_scatter;
        "reduce_scatter_in_place": start_reduce_scatter_in_place, plan_reduce_scatter_in_place;
    AllGather(), none(), 0, None;
        "all_gather": start_all_gather, plan_all_gather;
        "all_gather_in_place": start_all_gather_in_place, plan_all_gather_in_place;
    Broadcast(root: u32), none(), root, None;
        "broadcast": start_broadcast, plan_broadcast;
        "broadcast_in_place": start_broadcast_in_place, plan_broadcast_in_place;
    Reduce(op: impl Operation<B::Element>, root: u32), op.folding(), root, None;
        "reduce": start_reduce, plan_reduce;
        "reduce_in_place": start_reduce_in_place, plan_reduce_in_place;
    Gather(root: u32), none(), root, None;
        "gather": start_gather, plan_gather;
        "gather_in_place": start_gather_in_place, plan_gather_in_place;
    Scatter(root: u32), none(), root, None;
        "scatter": start_scatter, plan_scatter;
        "scatter_in_place": start_scatter_in_place, plan_scatter_in_place;
    AllToAll(), none(), 0, None;
        "all_to_all": start_all_to_all, plan_all_to_all;
        "all_to_all_in_place": start_all_to_all_in_place, plan_all_to_all_in_place;
}

pub use untyped::Untyped;

/// What starting a call comes to.
type Started<B> = Result<Pending<B>, Failed<B>>;

/// What planning a call comes to.
type Planned<B> = Result<Persistent<B>, Failed<B>>;

/// Of what does not reduce.
fn none() -> Folding {
    Folding::by_name(ReduceOp::Sum)
}

fn terms<B: Owned>(
    collective: Collective,
    folding: Folding,
    root: u32,
    lengths: Option<Arc<Lengths>>,
) -> Terms {
    Terms { collective, dtype: B::Element::DTYPE, folding, root, flags: 0, lengths }
}

impl Communicator {
    /// Starts a [`barrier`](Self::barrier): it is over when every rank has started or called it.
    ///
    /// # Errors
    /// As for [`barrier`](Self::barrier), and [`Misuse::Pending`] when too many calls are pending.
    pub fn start_barrier(&mut self) -> Started<()> {
        let (collective, dtype, op) = (Collective::AllReduce, DType::U8, ReduceOp::Max);
        let folding = Folding::by_name(op);
        let terms = Terms { collective, dtype, folding, root: 0, flags: Signature::BARRIER, lengths: None };
        self.start(terms, Bare([0]))
    }

    fn keep<W: Holder>(&self, task: Task, owner: W) -> Kept {
        let ticket = Arc::new(Ticket::default());
        Kept { owner: Box::new(owner), pinned: None, task, ticket, queue: self.own_queue() }
    }

    fn start<W: Holder>(&mut self, terms: Terms, owner: W) -> Started<W::Given> {
        let mut kept = self.keep(Task::Call(terms), owner);
        match self.check(&kept.task, &mut *kept.owner) {
            Ok(()) => self.start_kept(kept, given::<W>),
            Err(error) => Err(Failed { error: error.into(), buffers: given::<W>(kept) }),
        }
    }

    /// Starts a call that was checked, and drives it a little.
    pub(crate) fn start_kept<B>(&mut self, kept: Kept, rebuild: fn(Kept) -> B) -> Started<B> {
        self.hand_over();
        let Kept { owner, pinned, task, ticket, queue } = kept;
        if let Err(job) = queue.push(Job { owner, pinned, task: task.clone(), ticket: ticket.clone() }) {
            let Job { owner, pinned, task, ticket } = job;
            let error = Error::from(Misuse::Pending { call: task.name(), max: PENDING_MAX });
            let kept = Kept { owner, pinned, task, ticket, queue };
            return Err(Failed { error: error.into(), buffers: rebuild(kept) });
        }
        queue.wait(Goal::Call(&ticket), Until::Idle);
        let failed = ticket.has_failed();
        let mut pending = Pending::new(ticket, queue, task, rebuild);
        match failed {
            true => pending.take().expect("what has failed is over").map(|_| unreachable!("it has failed")),
            false => Ok(pending),
        }
    }

    /// Plans a call now, if no call is pending, or when it is first made.
    fn plan<W: Holder>(&mut self, terms: Terms, owner: W) -> Planned<W::Given> {
        let mut kept = self.keep(Task::Call(terms.clone()), owner);
        let planned = self
            .check(&kept.task, &mut *kept.owner)
            .and_then(|()| self.idle_lane().map(|lane| lane.pin(&terms, &mut *kept.owner)).transpose());
        match planned {
            Ok(pinned) => Ok(Persistent::new::<W>(Kept { pinned, ..kept })),
            Err(error) => Err(Failed { error: error.into(), buffers: given::<W>(kept) }),
        }
    }
}
