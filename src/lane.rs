//! One communicator's way to make calls, one after another: links, plans, and the number of the next call.
//!
//! Invariant: a lane is in one call at a time, and the calls have the order in which they were made. A communicator holds
//! its lane itself while no call is pending, and else the lane is with the [`Queue`](crate::queue::Queue).

use crate::engine::Engine;
use crate::mail::Mail;
use crate::owned::Owner;
use crate::plans::{Asked, Plans};
use crate::ragged::{self, Cut, Words};
use crate::request::{Buffers, Request};
use crate::terms::Terms;
use sohu_coll_core::exec::Executor;
use sohu_coll_core::operation::{Operand, Tag};
use sohu_coll_core::{Error, Rank, Signature};
use sohu_coll_mem::region::Loan;
use std::sync::Arc;

/// Everything that a call needs, its buffers apart.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) rank: Rank,
    pub(crate) size: u32,
    pub(crate) engine: Engine,
    pub(crate) plans: Plans,
    /// Plans of calls whose blocks have lengths of their own.
    pub(crate) ragged: ragged::plans::Plans,
    /// The number of the next call.
    pub(crate) sequence: u32,
    pub(crate) mail: Mail,
    /// The first failure, without the name. It stays, and every later call tells it.
    pub(crate) failed: Option<Arc<Error>>,
    /// The communicator's name, for errors.
    pub(crate) name: Option<Arc<str>>,
}

/// A call that is planned for itself, apart from the plans that are kept and may go.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) executor: Executor,
    /// The call's signature, but for its sequence.
    pub(crate) signature: Signature,
    /// The [`number`](crate::ragged::plans::Plans::number) of calls with the same blocks; 0 where there are none.
    pub(crate) number: u64,
    /// How ranks tell each other their lengths first, where they do so without memos.
    pub(crate) comparison: Option<Box<Comparison>>,
}

/// The two calls before one whose lengths no rank knows all of, where there are no memos: see [`Words`].
#[derive(Debug)]
pub(crate) struct Comparison {
    /// Out, as one of the plans is, while one of the two is made.
    pub(crate) words: Option<Box<Words>>,
    /// The plans of both.
    pub(crate) pins: [Option<Box<Pinned>>; 2],
}

impl Lane {
    /// Makes a call whose request is for `flags` too: see [`Signature::algorithm`].
    ///
    /// # Errors
    /// [`Error::Misuse`] when the request makes no sense; else as described at
    /// [`Communicator`](crate::Communicator).
    #[inline]
    pub(crate) fn run(&mut self, request: Request<'_>, flags: u8) -> Result<(), Error> {
        let asked = Asked::new(&request);
        let fabric = &self.engine.fabric;
        let Some(plan) = self.plans.recall(&asked).filter(|plan| plan.fits(&request.buffers, fabric)) else {
            return self.run_anew(request, flags, asked);
        };
        if self.failed.is_some() {
            return self.run_anew(request, flags, asked);
        }
        let algorithm = plan.signature.algorithm | flags;
        let call = Signature { sequence: self.sequence, algorithm, ..plan.signature };
        let loan = plan.loan(request.buffers);
        let made = self.engine.make(&mut plan.executor, call, loan);
        self.end(made)
    }

    /// As [`run`](Self::run), for a request that was not among the last few.
    #[cold]
    fn run_anew(&mut self, request: Request<'_>, flags: u8, asked: Asked) -> Result<(), Error> {
        let fabric = &self.engine.fabric;
        let (shape, loan) = match request.shape(self.rank, self.size, |bytes| fabric.is_registered(bytes)) {
            Ok(asked) => asked,
            Err(error) => return Err(self.named(error)),
        };
        self.ready()?;
        let plan = match self.plans.find(&shape, asked) {
            Ok(plan) => plan,
            Err(error) => return Err(named(self.name.as_ref(), error)),
        };
        let algorithm = plan.signature.algorithm | flags;
        let call = Signature { sequence: self.sequence, algorithm, ..plan.signature };
        let made = self.engine.make(&mut plan.executor, call, loan);
        self.end(made)
    }

    /// Makes a call whose operation is not complete by its name.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub(crate) fn run_with(&mut self, request: Request<'_>, tag: Tag, operand: Operand) -> Result<(), Error> {
        let asked = Asked::new(&request).with_operand(tag);
        let fabric = &self.engine.fabric;
        let recalled = self.plans.recall(&asked).is_some_and(|plan| plan.fits(&request.buffers, fabric));
        let (plan, loan) = if recalled && self.failed.is_none() {
            let plan = self.plans.recall(&asked).expect("it was recalled");
            let loan = plan.loan(request.buffers);
            (plan, loan)
        } else {
            let shape = request.shape_with(self.rank, self.size, |bytes| fabric.is_registered(bytes), tag);
            let (shape, loan) = shape.map_err(|error| self.named(error))?;
            self.ready()?;
            let plan = self.plans.find(&shape, asked);
            (plan.map_err(|error| named(self.name.as_ref(), error))?, loan)
        };
        let call = Signature { sequence: self.sequence, ..plan.signature };
        plan.executor.fold_with(operand);
        let made = self.engine.make(&mut plan.executor, call, loan);
        plan.executor.fold_with(Operand::None);
        self.end(made)
    }

    /// Makes a call that was planned apart.
    ///
    /// # Errors
    /// As described at [`Communicator`](crate::Communicator).
    #[inline]
    pub(crate) fn make(
        &mut self,
        executor: &mut Executor,
        call: Signature,
        loan: Loan<'_>,
    ) -> Result<(), Error> {
        self.ready()?;
        let call = Signature { sequence: self.sequence, ..call };
        let made = self.engine.make(executor, call, loan);
        self.end(made)
    }

    /// Makes a call that was pinned.
    ///
    /// # Errors
    /// As described at [`Communicator`](crate::Communicator).
    pub(crate) fn make_pinned(
        &mut self,
        terms: &Terms,
        pinned: &mut Pinned,
        mut buffers: Buffers<'_>,
    ) -> Result<(), Error> {
        if let Some(cut) = terms.cut().filter(Cut::is_compared)
            && self.agree(&cut, &mut buffers, pinned.number)?
        {
            return Ok(());
        }
        let loan = terms.loan(self.rank, self.size, buffers)?;
        self.make(&mut pinned.executor, pinned.signature, loan)
    }

    /// A plan for such calls that is nobody else's.
    ///
    /// # Errors
    /// When an algorithm was forced that can not do it.
    pub(crate) fn pin(&mut self, terms: &Terms, owner: &mut dyn Owner) -> Result<Box<Pinned>, Error> {
        if let Some(cut) = terms.cut() {
            return self.pin_ragged(&cut, &terms.folding.operand, owner.buffers());
        }
        let (asked, fabric) = (terms.asked(owner.buffers()), &self.engine.fabric);
        let is_registered = |bytes: &[u8]| fabric.is_registered(bytes);
        let shape = terms.shape(self.rank, self.size, owner.buffers(), is_registered);
        let planned = shape.and_then(|(shape, _)| self.plans.find(&shape, asked));
        let plan = planned.map_err(|error| named(self.name.as_ref(), error))?;
        let algorithm = plan.signature.algorithm | terms.flags;
        let signature = Signature { algorithm, ..plan.signature };
        let mut executor = plan.executor.twin();
        executor.fold_with(terms.folding.operand.clone());
        Ok(Box::new(Pinned { executor, signature, number: 0, comparison: None }))
    }

    /// Whether calls can be made.
    ///
    /// # Errors
    /// [`Error::Aborted`] with the first failure.
    #[inline]
    pub(crate) fn ready(&self) -> Result<(), Error> {
        match &self.failed {
            None => Ok(()),
            Some(cause) => Err(self.named(Error::Aborted { cause: cause.clone() })),
        }
    }

    /// The error, with the communicator's name if it has one.
    #[cold]
    pub(crate) fn named(&self, error: Error) -> Error {
        named(self.name.as_ref(), error)
    }

    /// A call is over.
    #[inline]
    pub(crate) fn end(&mut self, made: Result<(), Box<Error>>) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        match made {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fail(*error)),
        }
    }

    /// Ends the communicator here and on all peers.
    #[cold]
    pub(crate) fn fail(&mut self, error: Error) -> Error {
        self.engine.control.abort(&error);
        self.failed = Some(Arc::new(error.clone()));
        self.named(error)
    }
}

/// The error, with a name if there is one.
#[cold]
pub(crate) fn named(name: Option<&Arc<str>>, error: Error) -> Error {
    match name {
        Some(name) => error.named(name),
        None => error,
    }
}
