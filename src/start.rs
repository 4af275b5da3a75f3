//! Calls that own their buffers: started and waited for later, or planned once and made many times.
//!
//! For each blocking call `x` there is `start_x`, which gives a [`Pending`], and `plan_x`, which gives a [`Persistent`].

use crate::communicator::Communicator;
use crate::drive::Until;
use crate::owned::{Apart, Bare, Holder, Owned, Shared, Terms, given};
use crate::pending::{Failed, Pending};
use crate::persistent::Persistent;
use crate::queue::{Goal, Job, PENDING_MAX};
use crate::ticket::{Kept, Ticket};
use sohu_coll_core::{Collective, DType, Element, Error, Misuse, ReduceOp, Signature};
use std::sync::Arc;

/// Writes the calls of one collective. `$op` and `$root` say what is asked for, by the names of the arguments.
macro_rules! calls {
    ($(
        $collective:ident ($($argument:ident: $type:ty),*), $op:expr, $root:expr;
        $apart:literal: $start:ident, $plan:ident;
        $in_place:literal: $start_in_place:ident, $plan_in_place:ident;
    )*) => {
        impl Communicator {$(
            #[doc = concat!("Starts a call as [`", $apart, "`](Self::", $apart, ") is; it owns its buffers until it is over.")]
            ///
            /// # Errors
            #[doc = concat!("As for [`", $apart, "`](Self::", $apart, "), and [`Misuse::Pending`] when too many calls are pending.")]
            /// [`Failed`] gives the buffers back.
            pub fn $start<I, O>(
                &mut self,
                input: I,
                output: O,
                $($argument: $type,)*
            ) -> Result<Pending<(I, O)>, Failed<(I, O)>>
            where
                I: Owned,
                O: Owned<Element = I::Element>,
            {
                self.start(terms::<I>(Collective::$collective, $op, $root), Apart(input, output))
            }

            #[doc = concat!("Plans calls as [`", $apart, "`](Self::", $apart, ") is, on these buffers.")]
            ///
            /// # Errors
            #[doc = concat!("[`Misuse`](crate::Misuse) as for [`", $apart, "`](Self::", $apart, "); [`Failed`] gives the buffers back.")]
            pub fn $plan<I, O>(
                &mut self,
                input: I,
                output: O,
                $($argument: $type,)*
            ) -> Result<Persistent<(I, O)>, Failed<(I, O)>>
            where
                I: Owned,
                O: Owned<Element = I::Element>,
            {
                self.plan(terms::<I>(Collective::$collective, $op, $root), Apart(input, output))
            }

            #[doc = concat!("Starts a call as [`", $in_place, "`](Self::", $in_place, ") is; it owns its buffer until it is over.")]
            ///
            /// # Errors
            #[doc = concat!("As for [`", $in_place, "`](Self::", $in_place, "), and [`Misuse::Pending`] when too many calls are pending.")]
            /// [`Failed`] gives the buffer back.
            pub fn $start_in_place<D: Owned>(
                &mut self,
                data: D,
                $($argument: $type,)*
            ) -> Result<Pending<D>, Failed<D>> {
                self.start(terms::<D>(Collective::$collective, $op, $root), Shared(data))
            }

            #[doc = concat!("Plans calls as [`", $in_place, "`](Self::", $in_place, ") is, on this buffer.")]
            ///
            /// # Errors
            #[doc = concat!("[`Misuse`](crate::Misuse) as for [`", $in_place, "`](Self::", $in_place, "); [`Failed`] gives the buffer back.")]
            pub fn $plan_in_place<D: Owned>(
                &mut self,
                data: D,
                $($argument: $type,)*
            ) -> Result<Persistent<D>, Failed<D>> {
                self.plan(terms::<D>(Collective::$collective, $op, $root), Shared(data))
            }
        )*}
    };
}

calls! {
    AllReduce(op: ReduceOp), op, 0;
        "all_reduce": start_all_reduce, plan_all_reduce;
        "all_reduce_in_place": start_all_reduce_in_place, plan_all_reduce_in_place;
    ReduceScatter(op: ReduceOp), op, 0;
        "reduce_scatter": start_reduce_scatter, plan_reduce_scatter;
        "reduce_scatter_in_place": start_reduce_scatter_in_place, plan_reduce_scatter_in_place;
    AllGather(), ReduceOp::Sum, 0;
        "all_gather": start_all_gather, plan_all_gather;
        "all_gather_in_place": start_all_gather_in_place, plan_all_gather_in_place;
    Broadcast(root: u32), ReduceOp::Sum, root;
        "broadcast": start_broadcast, plan_broadcast;
        "broadcast_in_place": start_broadcast_in_place, plan_broadcast_in_place;
    Reduce(op: ReduceOp, root: u32), op, root;
        "reduce": start_reduce, plan_reduce;
        "reduce_in_place": start_reduce_in_place, plan_reduce_in_place;
    Gather(root: u32), ReduceOp::Sum, root;
        "gather": start_gather, plan_gather;
        "gather_in_place": start_gather_in_place, plan_gather_in_place;
    Scatter(root: u32), ReduceOp::Sum, root;
        "scatter": start_scatter, plan_scatter;
        "scatter_in_place": start_scatter_in_place, plan_scatter_in_place;
    AllToAll(), ReduceOp::Sum, 0;
        "all_to_all": start_all_to_all, plan_all_to_all;
        "all_to_all_in_place": start_all_to_all_in_place, plan_all_to_all_in_place;
}

/// What an untyped call is, its buffers apart: for callers that learn the element type at run time, as
/// [`Request`](crate::Request).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untyped {
    /// Which collective.
    pub collective: Collective,
    /// Element type.
    pub dtype: DType,
    /// Reduction; ignored where the collective does not reduce.
    pub op: ReduceOp,
    /// The root; ignored where there is none.
    pub root: u32,
}

impl From<Untyped> for Terms {
    fn from(call: Untyped) -> Self {
        let Untyped { collective, dtype, op, root } = call;
        Self { collective, dtype, op, root, flags: 0 }
    }
}

/// What starting a call comes to.
type Started<B> = Result<Pending<B>, Failed<B>>;

/// What planning a call comes to.
type Planned<B> = Result<Persistent<B>, Failed<B>>;

fn terms<B: Owned>(collective: Collective, op: ReduceOp, root: u32) -> Terms {
    Terms { collective, dtype: B::Element::DTYPE, op, root, flags: 0 }
}

impl Communicator {
    /// Starts a [`barrier`](Self::barrier): it is over when every rank has started or called it.
    ///
    /// # Errors
    /// As for [`barrier`](Self::barrier), and [`Misuse::Pending`] when too many calls are pending.
    pub fn start_barrier(&mut self) -> Started<()> {
        let (collective, dtype, op) = (Collective::AllReduce, DType::U8, ReduceOp::Max);
        let terms = Terms { collective, dtype, op, root: 0, flags: Signature::BARRIER };
        self.start(terms, Bare([0]))
    }

    /// Starts any call, on bytes.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and [`Misuse::Pending`] when too many calls are pending. [`Failed`] gives the buffers back.
    pub fn start_untyped<I, O>(&mut self, call: Untyped, input: I, output: O) -> Started<(I, O)>
    where
        I: Owned<Element = u8>,
        O: Owned<Element = u8>,
    {
        self.start(call.into(), Apart(input, output))
    }

    /// Starts any call in place, on bytes.
    ///
    /// # Errors
    /// As for [`start_untyped`](Self::start_untyped).
    pub fn start_untyped_in_place<D: Owned<Element = u8>>(&mut self, call: Untyped, data: D) -> Started<D> {
        self.start(call.into(), Shared(data))
    }

    /// Plans any call, on bytes.
    ///
    /// # Errors
    /// [`Misuse`](crate::Misuse) as for [`run`](Self::run); [`Failed`] gives the buffers back.
    pub fn plan_untyped<I, O>(&mut self, call: Untyped, input: I, output: O) -> Planned<(I, O)>
    where
        I: Owned<Element = u8>,
        O: Owned<Element = u8>,
    {
        self.plan(call.into(), Apart(input, output))
    }

    /// Plans any call in place, on bytes.
    ///
    /// # Errors
    /// As for [`plan_untyped`](Self::plan_untyped).
    pub fn plan_untyped_in_place<D: Owned<Element = u8>>(&mut self, call: Untyped, data: D) -> Planned<D> {
        self.plan(call.into(), Shared(data))
    }

    fn keep<W: Holder>(&self, terms: Terms, owner: W) -> Kept {
        let ticket = Arc::new(Ticket::default());
        Kept { owner: Box::new(owner), pinned: None, terms, ticket, queue: self.own_queue() }
    }

    fn start<W: Holder>(&mut self, terms: Terms, owner: W) -> Started<W::Given> {
        self.start_kept(self.keep(terms, owner), given::<W>)
    }

    /// Starts a call, and drives it a little.
    pub(crate) fn start_kept<B>(&mut self, mut kept: Kept, rebuild: fn(Kept) -> B) -> Started<B> {
        if let Err(error) = self.check(kept.terms.request(kept.owner.buffers())) {
            return Err(Failed { error: error.into(), buffers: rebuild(kept) });
        }
        self.hand_over();
        let Kept { owner, pinned, terms, ticket, queue } = kept;
        if let Err(job) = queue.push(Job { owner, pinned, terms, ticket: ticket.clone() }) {
            let Job { owner, pinned, terms, ticket } = job;
            let kept = Kept { owner, pinned, terms, ticket, queue };
            let error = Error::from(Misuse::Pending { call: terms.call(), max: PENDING_MAX });
            return Err(Failed { error: error.into(), buffers: rebuild(kept) });
        }
        queue.wait(Goal::Call(&ticket), Until::Idle);
        let failed = ticket.has_failed();
        let mut pending = Pending::new(ticket, queue, terms, rebuild);
        match failed {
            true => pending.take().expect("what has failed is over").map(|_| unreachable!("it has failed")),
            false => Ok(pending),
        }
    }

    /// Plans a call now, if no call is pending, or when it is first made.
    fn plan<W: Holder>(&mut self, terms: Terms, owner: W) -> Planned<W::Given> {
        let mut kept = self.keep(terms, owner);
        let planned = self.check(terms.request(kept.owner.buffers())).and_then(|()| {
            let request = terms.request(kept.owner.buffers());
            self.idle_lane().map(|lane| lane.pin(request, terms.flags)).transpose()
        });
        match planned {
            Ok(pinned) => Ok(Persistent::new::<W>(Kept { pinned, ..kept })),
            Err(error) => Err(Failed { error: error.into(), buffers: given::<W>(kept) }),
        }
    }
}
