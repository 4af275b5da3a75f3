//! Transfers that own their bytes, to be started and waited for later.

use crate::messages::whole;
use crate::owned::{Holder, Owned, Owner};
use crate::request::Buffers;
use sohu_coll_core::transfer::Item;
use sohu_coll_core::{DType, Element, Misuse, Rank, Way};

/// A send or a receive with its buffer, for [`start_group`](crate::Communicator::start_group).
///
/// ```no_run
/// use sohu_coll::{Communicator, Error, Letter};
///
/// # fn compute() {}
/// # fn example(comm: &mut Communicator) -> Result<(), Error> {
/// let (rank, size) = (comm.rank(), comm.size());
/// let (next, last) = ((rank + 1) % size, (rank + size - 1) % size);
/// let round = (Letter::send(vec![rank; 1000], next), Letter::recv(vec![0u32; 1000], last));
/// let pending = comm.start_group(round)?;
/// compute();
/// let (_, theirs) = pending.wait()?;
/// let theirs: Vec<u32> = theirs.into_data();
/// # drop(theirs);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Letter<D> {
    way: Way,
    dtype: DType,
    peer: u32,
    data: D,
}

impl<D: Owned> Letter<D> {
    /// Sends `data` to rank `to`.
    pub fn send(data: D, to: u32) -> Self {
        Self { way: Way::Send, dtype: D::Element::DTYPE, peer: to, data }
    }

    /// Receives `data` from rank `from`.
    pub fn recv(data: D, from: u32) -> Self {
        Self { way: Way::Recv, dtype: D::Element::DTYPE, peer: from, data }
    }

    /// The elements.
    pub fn data(&self) -> &[D::Element] {
        self.data.elements()
    }

    /// The elements, to change them before the letter is started again.
    pub fn data_mut(&mut self) -> &mut [D::Element] {
        self.data.elements_mut()
    }

    /// The buffer.
    pub fn into_data(self) -> D {
        self.data
    }
}

impl<D: Owned<Element = u8>> Letter<D> {
    /// As [`send`](Self::send), for callers that learn the element type at run time.
    pub fn send_bytes(dtype: DType, data: D, to: u32) -> Self {
        Self { dtype, ..Self::send(data, to) }
    }

    /// As [`recv`](Self::recv), for callers that learn the element type at run time.
    pub fn recv_bytes(dtype: DType, data: D, from: u32) -> Self {
        Self { dtype, ..Self::recv(data, from) }
    }
}

mod sealed {
    use super::{Item, Misuse};

    pub trait Sealed {
        /// Hands over the transfers, in their order, or what is wrong with one.
        fn transfers<'a>(&'a mut self, each: &mut dyn FnMut(Result<Item<'a>, Misuse>));
    }
}
pub(crate) use sealed::Sealed;

/// Letters that are started together: a [`Letter`], a vector or an array of them, or up to six in a tuple, of any types. Sealed.
pub trait Letters: Sealed + Send + 'static {}

impl<D: Owned> Sealed for Letter<D> {
    fn transfers<'a>(&'a mut self, each: &mut dyn FnMut(Result<Item<'a>, Misuse>)) {
        let Self { way, dtype, peer, data } = self;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(data.elements_mut());
        let call = if *way == Way::Send { "send" } else { "recv" };
        each(whole(call, *dtype, bytes.len()).map(|()| match way {
            Way::Send => Item::send(*dtype, bytes, Rank(*peer)),
            Way::Recv => Item::recv(*dtype, bytes, Rank(*peer)),
        }));
    }
}

impl<D: Owned> Letters for Letter<D> {}

impl<L: Letters> Sealed for Vec<L> {
    fn transfers<'a>(&'a mut self, each: &mut dyn FnMut(Result<Item<'a>, Misuse>)) {
        self.iter_mut().for_each(|letters| letters.transfers(each));
    }
}

impl<L: Letters> Letters for Vec<L> {}

impl<L: Letters, const COUNT: usize> Sealed for [L; COUNT] {
    fn transfers<'a>(&'a mut self, each: &mut dyn FnMut(Result<Item<'a>, Misuse>)) {
        self.iter_mut().for_each(|letters| letters.transfers(each));
    }
}

impl<L: Letters, const COUNT: usize> Letters for [L; COUNT] {}

macro_rules! tuples {
    ($(($($letters:ident $at:tt),+)),+) => {$(
        impl<$($letters: Letters),+> Sealed for ($($letters,)+) {
            fn transfers<'a>(&'a mut self, each: &mut dyn FnMut(Result<Item<'a>, Misuse>)) {
                $(self.$at.transfers(each);)+
            }
        }

        impl<$($letters: Letters),+> Letters for ($($letters,)+) {}
    )+};
}

tuples!(
    (A 0),
    (A 0, B 1),
    (A 0, B 1, C 2),
    (A 0, B 1, C 2, D 3),
    (A 0, B 1, C 2, D 3, E 4),
    (A 0, B 1, C 2, D 3, E 4, F 5)
);

/// A group that was started.
pub(crate) struct Posted<L>(pub(crate) L);

/// A letter that was started alone.
pub(crate) struct Alone<D>(pub(crate) Letter<D>);

impl<L: Letters> Owner for Posted<L> {
    fn buffers(&mut self) -> Buffers<'_> {
        Buffers::InPlace(&mut [])
    }

    fn transfers<'a>(&'a mut self, each: &mut dyn FnMut(Result<Item<'a>, Misuse>)) {
        self.0.transfers(each);
    }
}

impl<L: Letters> Holder for Posted<L> {
    type Given = L;

    fn give_back(self) -> L {
        self.0
    }
}

impl<D: Owned> Owner for Alone<D> {
    fn buffers(&mut self) -> Buffers<'_> {
        Buffers::InPlace(&mut [])
    }

    fn transfers<'a>(&'a mut self, each: &mut dyn FnMut(Result<Item<'a>, Misuse>)) {
        self.0.transfers(each);
    }
}

impl<D: Owned> Holder for Alone<D> {
    type Given = D;

    fn give_back(self) -> D {
        self.0.data
    }
}
