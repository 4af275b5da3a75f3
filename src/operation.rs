//! What the calls that reduce can fold by: the operations of [`ReduceOp`], sums of scaled inputs, and functions of the caller's.

use crate::communicator::Communicator;
use crate::request::Request;
use sohu_coll_core::kernel::{ByFunction, Fold};
use sohu_coll_core::operation::{Operand, Tag};
use sohu_coll_core::{Collective, DType, Element, Error, Misuse, ReduceOp, Scalar};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// The longest name of a user operation, in bytes: errors quote it.
const NAME_MAX: usize = 64;

mod sealed {
    use super::{PreMulSum, ReduceOp, UserOp};

    pub trait Sealed {}
    impl Sealed for ReduceOp {}
    impl<T> Sealed for PreMulSum<T> {}
    impl<T> Sealed for &UserOp<T> {}
}

/// What elements of type `T` can be reduced by. Sealed: a [`ReduceOp`], a [`PreMulSum`] or a reference to a [`UserOp`].
pub trait Operation<T>: sealed::Sealed {
    /// Makes a call with this operation.
    #[doc(hidden)]
    fn make(self, comm: &mut Communicator, request: Request<'_>) -> Result<(), Error>;

    /// The operation by itself.
    #[doc(hidden)]
    fn folding(self) -> Folding;
}

/// An operation, with what it needs besides its name.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Folding {
    pub(crate) op: ReduceOp,
    /// Which user operation it is; none, where `op` is no such.
    pub(crate) tag: Tag,
    pub(crate) operand: Operand,
}

impl Folding {
    /// One that is complete by its name, or lacks what it needs.
    pub(crate) fn by_name(op: ReduceOp) -> Self {
        Self { op, tag: Tag::default(), operand: Operand::None }
    }

    /// A pre-multiplied sum of elements of this type.
    ///
    /// # Errors
    /// When the scalar is of another type.
    pub(crate) fn scaled(collective: Collective, dtype: DType, scalar: Scalar) -> Result<Self, Error> {
        let op = ReduceOp::PreMulSum;
        if scalar.dtype() != dtype {
            let reason = format!("needs a scalar of {dtype}, not of {}", scalar.dtype());
            let (call, operation) = (collective.name(), op.name().into());
            return Err(Misuse::Operation { call, operation, reason }.into());
        }
        Ok(Self { operand: Operand::Scalar(scalar), ..Self::by_name(op) })
    }

    /// Whether it lacks what it needs besides its name.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.op.is_open() && matches!(self.operand, Operand::None)
    }
}

impl<T> Operation<T> for ReduceOp {
    #[inline]
    fn make(self, comm: &mut Communicator, request: Request<'_>) -> Result<(), Error> {
        comm.run(Request { op: self, ..request })
    }

    fn folding(self) -> Folding {
        Folding::by_name(self)
    }
}

/// The pre-multiplied sum: every rank's input times that rank's scalar, rounded to the type, and then summed. Integers wrap.
///
/// Ranks may give different scalars. The product is formed while the input is read for the first time, so a long call costs about
/// what a sum costs; a small one takes some 0.1 us more, and registered inputs are staged, since what peers need is not what
/// lies there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PreMulSum<T>(pub T);

impl<T: Element> Operation<T> for PreMulSum<T> {
    fn make(self, comm: &mut Communicator, request: Request<'_>) -> Result<(), Error> {
        comm.run_scaled(request, Scalar::of(self.0))
    }

    fn folding(self) -> Folding {
        let operand = Operand::Scalar(Scalar::of(self.0));
        Folding { operand, ..Folding::by_name(ReduceOp::PreMulSum) }
    }
}

/// An operation of the caller's: a function of two elements, with a name.
///
/// The function must be associative: how the inputs are grouped is not said. They are folded in the order of the ranks,
/// `((x0 . x1) . x2) ..`, unless the operation is declared [`commutative`](Self::commutative): then in any order. It must give the
/// same result for the same elements on every rank, or ranks end with different results.
///
/// Every rank of a call gives an operation of the same name and property; one that gives another is told so by
/// [`Error::Mismatch`], which names both (one that only the other process has made, by a number). Names are compared by 22 bits
/// of a hash. Whether two functions of one name do the same is for the program to know.
///
/// A function that panics ends the call with [`Error::Panicked`], here and on the other ranks, and the communicator is aborted.
/// Buffers that the call was to write may be written in part. A rank that needs nothing more from this one may have ended
/// the call well before it heard of it.
///
/// ```no_run
/// use sohu_coll::{Communicator, UserOp};
///
/// # fn main() -> Result<(), sohu_coll::Error> {
/// # let mut comm = Communicator::from_env()?;
/// let farthest = UserOp::new("farthest", |a: f32, b: f32| if b.abs() > a.abs() { b } else { a })?;
/// let mut data = [1.0, -2.0, 3.0];
/// comm.all_reduce_in_place(&mut data, &farthest)?;
/// # Ok(())
/// # }
/// ```
pub struct UserOp<T> {
    fold: Arc<dyn Fold>,
    tag: Tag,
    elements: PhantomData<fn(T, T) -> T>,
}

impl<T: Element> UserOp<T> {
    /// An operation that folds two elements by `function`.
    ///
    /// # Errors
    /// [`Misuse::Operation`] when `name` is empty or longer than 64 bytes, or has the number of another name that this process
    /// has given.
    pub fn new(name: &str, function: impl Fn(T, T) -> T + Send + Sync + 'static) -> Result<Self, Error> {
        let tag = tag(name, false)?;
        let fold = Arc::new(ByFunction::new(name, function));
        Ok(Self { fold, tag, elements: PhantomData })
    }

    /// The same operation, declared to give the same result for two elements in either order. More algorithms can do it.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn commutative(self) -> Result<Self, Error> {
        let tag = tag(self.name(), true)?;
        Ok(Self { tag, ..self })
    }
}

impl<T> UserOp<T> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.fold.name()
    }
}

fn tag(name: &str, commutative: bool) -> Result<Tag, Error> {
    let wrong = |reason: String| Misuse::Operation {
        call: "UserOp::new",
        operation: name.chars().take(NAME_MAX).collect(),
        reason,
    };
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(wrong(format!("needs a name of 1 to {NAME_MAX} bytes, not {}", name.len())).into());
    }
    let clash =
        |other| wrong(format!("has the number of operation {other:?}; give one of them another name"));
    Tag::of(name, commutative).map_err(|other| clash(other).into())
}

impl<T> Clone for UserOp<T> {
    fn clone(&self) -> Self {
        Self { fold: self.fold.clone(), tag: self.tag, elements: PhantomData }
    }
}

impl<T> fmt::Debug for UserOp<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserOp({})", self.tag)
    }
}

impl<T: Element> Operation<T> for &UserOp<T> {
    fn make(self, comm: &mut Communicator, request: Request<'_>) -> Result<(), Error> {
        comm.run_with(request, ReduceOp::User, self.tag, Operand::Fold(self.fold.clone()))
    }

    fn folding(self) -> Folding {
        Folding { op: ReduceOp::User, tag: self.tag, operand: Operand::Fold(self.fold.clone()) }
    }
}

impl Communicator {
    /// Makes a [pre-multiplied sum](PreMulSum), untyped: the operation of `request` is not looked at.
    ///
    /// # Errors
    /// [`Misuse::Operation`] when the scalar is of another type than the elements; else as for [`run`](Self::run).
    pub fn run_scaled(&mut self, request: Request<'_>, scalar: Scalar) -> Result<(), Error> {
        let folding = Folding::scaled(request.collective, request.dtype, scalar)?;
        self.run_with(request, folding.op, folding.tag, folding.operand)
    }
}
