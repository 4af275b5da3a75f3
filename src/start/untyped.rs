//! Started and planned calls on bytes, for callers that learn the element type at run time.

use super::{Planned, Started};
use crate::communicator::Communicator;
use crate::operation::Folding;
use crate::owned::{Apart, Owned, Shared};
use crate::pending::Failed;
use crate::terms::Terms;
#[cfg(doc)]
use sohu_coll_core::Misuse;
use sohu_coll_core::{Collective, DType, ReduceOp, Scalar};

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
        Self { collective, dtype, folding: Folding::by_name(op), root, flags: 0, lengths: None }
    }
}

impl Communicator {
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

    /// Starts a [pre-multiplied sum](crate::PreMulSum), on bytes: the operation of `call` is not looked at.
    ///
    /// # Errors
    /// As for [`run_scaled`](Self::run_scaled), and [`Misuse::Pending`] when too many calls are pending. [`Failed`] gives the
    /// buffers back.
    pub fn start_scaled<I, O>(
        &mut self,
        call: Untyped,
        scalar: Scalar,
        input: I,
        output: O,
    ) -> Started<(I, O)>
    where
        I: Owned<Element = u8>,
        O: Owned<Element = u8>,
    {
        match call.scaled(scalar, (input, output)) {
            Ok((terms, (input, output))) => self.start(terms, Apart(input, output)),
            Err(failed) => Err(failed),
        }
    }

    /// Starts a pre-multiplied sum in place, on bytes.
    ///
    /// # Errors
    /// As for [`start_scaled`](Self::start_scaled).
    pub fn start_scaled_in_place<D>(&mut self, call: Untyped, scalar: Scalar, data: D) -> Started<D>
    where
        D: Owned<Element = u8>,
    {
        match call.scaled(scalar, data) {
            Ok((terms, data)) => self.start(terms, Shared(data)),
            Err(failed) => Err(failed),
        }
    }

    /// Plans a pre-multiplied sum, on bytes: the operation of `call` is not looked at.
    ///
    /// # Errors
    /// [`Misuse`](crate::Misuse) as for [`run_scaled`](Self::run_scaled); [`Failed`] gives the buffers back.
    pub fn plan_scaled<I, O>(&mut self, call: Untyped, scalar: Scalar, input: I, output: O) -> Planned<(I, O)>
    where
        I: Owned<Element = u8>,
        O: Owned<Element = u8>,
    {
        match call.scaled(scalar, (input, output)) {
            Ok((terms, (input, output))) => self.plan(terms, Apart(input, output)),
            Err(failed) => Err(failed),
        }
    }

    /// Plans a pre-multiplied sum in place, on bytes.
    ///
    /// # Errors
    /// As for [`plan_scaled`](Self::plan_scaled).
    pub fn plan_scaled_in_place<D>(&mut self, call: Untyped, scalar: Scalar, data: D) -> Planned<D>
    where
        D: Owned<Element = u8>,
    {
        match call.scaled(scalar, data) {
            Ok((terms, data)) => self.plan(terms, Shared(data)),
            Err(failed) => Err(failed),
        }
    }
}

impl Untyped {
    /// The terms of a pre-multiplied sum; the buffers, if the scalar is of another type.
    fn scaled<B>(self, scalar: Scalar, buffers: B) -> Result<(Terms, B), Failed<B>> {
        match Folding::scaled(self.collective, self.dtype, scalar) {
            Ok(folding) => Ok((Terms { folding, ..self.into() }, buffers)),
            Err(error) => Err(Failed { error: error.into(), buffers }),
        }
    }
}
