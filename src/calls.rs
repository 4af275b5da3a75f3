//! The typed calls: one method for each collective, out of place and in place. All end in [`Communicator::run`].

use crate::communicator::Communicator;
use crate::operation::Operation;
use crate::request::{Buffers, Request};
#[cfg(doc)]
use sohu_coll_core::Misuse;
use sohu_coll_core::{Collective, DType, Element, Error, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::Loan;

impl Communicator {
    /// `output` becomes the reduction of all ranks' `input`, on every rank. `op` is a [`ReduceOp`], a
    /// [`PreMulSum`](crate::PreMulSum), or a [`&UserOp`](crate::UserOp), as in every call that reduces.
    ///
    /// # Errors
    /// [`Misuse::Length`] when the buffers differ in length; else as described at [`Communicator`].
    #[inline]
    pub fn all_reduce<T: Element>(
        &mut self,
        input: &[T],
        output: &mut [T],
        op: impl Operation<T>,
    ) -> Result<(), Error> {
        op.make(self, Request::apart(Collective::AllReduce, input, output, 0))
    }

    /// `data` becomes the reduction of all ranks' `data`, on every rank.
    ///
    /// # Errors
    /// As described at [`Communicator`].
    #[inline]
    pub fn all_reduce_in_place<T: Element>(
        &mut self,
        data: &mut [T],
        op: impl Operation<T>,
    ) -> Result<(), Error> {
        op.make(self, Request::in_place(Collective::AllReduce, data, 0))
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
        op: impl Operation<T>,
    ) -> Result<(), Error> {
        op.make(self, Request::apart(Collective::ReduceScatter, input, output, 0))
    }

    /// Block `rank` of `data` becomes that block of the reduction of all ranks' `data`; the others stay.
    ///
    /// # Errors
    /// [`Misuse::Length`] when `data` is no `size` equal blocks; else as described at [`Communicator`].
    pub fn reduce_scatter_in_place<T: Element>(
        &mut self,
        data: &mut [T],
        op: impl Operation<T>,
    ) -> Result<(), Error> {
        op.make(self, Request::in_place(Collective::ReduceScatter, data, 0))
    }

    /// `output` becomes all ranks' `input`, in rank order.
    ///
    /// # Errors
    /// [`Misuse::Length`] when `output` is not `size` times as long; else as described at [`Communicator`].
    pub fn all_gather<T: Element>(&mut self, input: &[T], output: &mut [T]) -> Result<(), Error> {
        self.apart(Collective::AllGather, input, output, 0)
    }

    /// Every block of `data` becomes the block of its rank; this rank gives block `rank`.
    ///
    /// # Errors
    /// [`Misuse::Length`] when `data` is no `size` equal blocks; else as described at [`Communicator`].
    pub fn all_gather_in_place<T: Element>(&mut self, data: &mut [T]) -> Result<(), Error> {
        self.in_place(Collective::AllGather, data, 0)
    }

    /// `output` becomes the root's `input`, on every rank. Other ranks' `input` is not looked at, and may be empty.
    ///
    /// # Errors
    /// [`Misuse::Root`] when there is no such rank; else as described at [`Communicator`].
    pub fn broadcast<T: Element>(&mut self, input: &[T], output: &mut [T], root: u32) -> Result<(), Error> {
        self.apart(Collective::Broadcast, input, output, root)
    }

    /// `data` becomes the root's `data`, on every rank.
    ///
    /// # Errors
    /// [`Misuse::Root`] when there is no such rank; else as described at [`Communicator`].
    pub fn broadcast_in_place<T: Element>(&mut self, data: &mut [T], root: u32) -> Result<(), Error> {
        self.in_place(Collective::Broadcast, data, root)
    }

    /// The root's `output` becomes the reduction of all ranks' `input`. Other ranks' `output` is not looked at, and may
    /// be empty.
    ///
    /// # Errors
    /// [`Misuse::Length`] when the root's buffers differ in length, [`Misuse::Root`] when there is no such rank; else as
    /// described at [`Communicator`].
    pub fn reduce<T: Element>(
        &mut self,
        input: &[T],
        output: &mut [T],
        op: impl Operation<T>,
        root: u32,
    ) -> Result<(), Error> {
        op.make(self, Request::apart(Collective::Reduce, input, output, root))
    }

    /// The root's `data` becomes the reduction of all ranks' `data`; that of other ranks stays.
    ///
    /// # Errors
    /// As for [`reduce`](Self::reduce).
    pub fn reduce_in_place<T: Element>(
        &mut self,
        data: &mut [T],
        op: impl Operation<T>,
        root: u32,
    ) -> Result<(), Error> {
        op.make(self, Request::in_place(Collective::Reduce, data, root))
    }

    /// The root's `output` becomes all ranks' `input`, in rank order. Other ranks' `output` is not looked at, and may be
    /// empty.
    ///
    /// # Errors
    /// [`Misuse::Length`] when the root's output is not `size` times as long as its input, [`Misuse::Root`] when there
    /// is no such rank; else as described at [`Communicator`].
    pub fn gather<T: Element>(&mut self, input: &[T], output: &mut [T], root: u32) -> Result<(), Error> {
        self.apart(Collective::Gather, input, output, root)
    }

    /// Every block of the root's `data` becomes the block of its rank. The root gives block `root` of its `data`, any
    /// other rank gives all of its `data`, which is one block.
    ///
    /// # Errors
    /// As for [`gather`](Self::gather).
    pub fn gather_in_place<T: Element>(&mut self, data: &mut [T], root: u32) -> Result<(), Error> {
        self.in_place(Collective::Gather, data, root)
    }

    /// `output` becomes block `rank` of the root's `input`. Other ranks' `input` is not looked at, and may be empty.
    ///
    /// # Errors
    /// [`Misuse::Length`] when the root's input is not `size` times as long as its output, [`Misuse::Root`] when there
    /// is no such rank; else as described at [`Communicator`].
    pub fn scatter<T: Element>(&mut self, input: &[T], output: &mut [T], root: u32) -> Result<(), Error> {
        self.apart(Collective::Scatter, input, output, root)
    }

    /// `data`, which is one block, becomes block `rank` of the root's `data`, which stays.
    ///
    /// # Errors
    /// As for [`scatter`](Self::scatter).
    pub fn scatter_in_place<T: Element>(&mut self, data: &mut [T], root: u32) -> Result<(), Error> {
        self.in_place(Collective::Scatter, data, root)
    }

    /// Block `s` of `output` becomes block `rank` of rank s's `input`. There is a block for each rank. Where each rank is to have at
    /// most 16 sends outstanding at once, however many ranks there are, [force](Self::using) `pairwise`.
    ///
    /// # Errors
    /// [`Misuse::Length`] when the buffers differ in length or are no `size` equal blocks; else as described at
    /// [`Communicator`].
    pub fn all_to_all<T: Element>(&mut self, input: &[T], output: &mut [T]) -> Result<(), Error> {
        self.apart(Collective::AllToAll, input, output, 0)
    }

    /// Block `s` of `data` becomes block `rank` of rank s's `data`.
    ///
    /// # Errors
    /// [`Misuse::Length`] when `data` is no `size` equal blocks; else as described at [`Communicator`].
    pub fn all_to_all_in_place<T: Element>(&mut self, data: &mut [T]) -> Result<(), Error> {
        self.in_place(Collective::AllToAll, data, 0)
    }

    /// Returns when every rank has called it.
    ///
    /// # Errors
    /// As described at [`Communicator`].
    pub fn barrier(&mut self) -> Result<(), Error> {
        let request = Request {
            collective: Collective::AllReduce,
            dtype: DType::U8,
            op: ReduceOp::Max,
            root: 0,
            buffers: Buffers::InPlace(&mut [0]),
        };
        self.lane().run(request, Signature::BARRIER)
    }

    #[inline]
    fn apart<T: Element>(
        &mut self,
        collective: Collective,
        input: &[T],
        output: &mut [T],
        root: u32,
    ) -> Result<(), Error> {
        self.run(Request::apart(collective, input, output, root))
    }

    #[inline]
    fn in_place<T: Element>(
        &mut self,
        collective: Collective,
        data: &mut [T],
        root: u32,
    ) -> Result<(), Error> {
        self.run(Request::in_place(collective, data, root))
    }
}

impl<'a> Request<'a> {
    /// A call on two buffers; its operation is put in where it has one.
    #[inline]
    pub(crate) fn apart<T: Element>(
        collective: Collective,
        input: &'a [T],
        output: &'a mut [T],
        root: u32,
    ) -> Self {
        let buffers = Buffers::apart(input, output);
        Self { collective, dtype: T::DTYPE, op: ReduceOp::Sum, root, buffers }
    }

    /// As [`apart`](Self::apart), on one buffer.
    #[inline]
    fn in_place<T: Element>(collective: Collective, data: &'a mut [T], root: u32) -> Self {
        Self { collective, dtype: T::DTYPE, op: ReduceOp::Sum, root, buffers: Buffers::in_place(data) }
    }
}

impl<'a> Buffers<'a> {
    /// Input and output apart.
    #[inline]
    pub(crate) fn apart<T: Element>(input: &'a [T], output: &'a mut [T]) -> Self {
        Self::Apart { input: bytemuck::cast_slice(input), output: bytemuck::cast_slice_mut(output) }
    }

    /// One buffer that is both.
    #[inline]
    pub(crate) fn in_place<T: Element>(data: &'a mut [T]) -> Self {
        Self::InPlace(bytemuck::cast_slice_mut(data))
    }

    /// What ranks tell each other before a call, as `rank`, one of `size`, lends it: apart; or this rank's part among those of all.
    pub(crate) fn told_loan(self, rank: Rank, size: u32) -> Loan<'a> {
        match self {
            Self::Apart { input, output } => Loan::Apart { input, output },
            Self::InPlace(buffer) => {
                let (own, all) = (buffer.len() / size as usize, 0..buffer.len());
                let input = own * rank.index()..own * (rank.index() + 1);
                Loan::Shared { buffer, input, output: all }
            }
        }
    }
}
