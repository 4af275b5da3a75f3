//! What a call that outlives its caller's function can own: buffers, and how they are given back.

use crate::buffer::Buffer;
use crate::request::Buffers;
use crate::ticket::Kept;
use sohu_coll_core::transfer::Item;
use sohu_coll_core::{Element, Misuse};
use std::any::Any;

mod sealed {
    pub trait Sealed {}
}

/// A buffer that a started call can own: a `Vec`, a boxed slice, or registered memory. Sealed.
pub trait Owned: sealed::Sealed + Send + 'static {
    /// What is in it.
    type Element: Element;

    /// The elements.
    fn elements(&self) -> &[Self::Element];

    /// The elements, to change them.
    fn elements_mut(&mut self) -> &mut [Self::Element];
}

macro_rules! owned {
    ($($buffer:ty),*) => {$(
        impl<T: Element> sealed::Sealed for $buffer {}
        impl<T: Element> Owned for $buffer {
            type Element = T;

            fn elements(&self) -> &[T] {
                self
            }

            fn elements_mut(&mut self) -> &mut [T] {
                self
            }
        }
    )*};
}

owned!(Vec<T>, Box<[T]>, Buffer<T>);

/// The buffers of one call, whatever their types.
pub(crate) trait Owner: Any + Send {
    /// As a blocking call would lend them. Messages have none.
    fn buffers(&mut self) -> Buffers<'_>;

    /// The transfers of messages, in their order, or what is wrong with one. Other calls have none.
    fn transfers<'a>(&'a mut self, each: &mut dyn FnMut(Result<Item<'a>, Misuse>)) {
        let _ = each;
    }
}

/// An [`Owner`] that can be given back as what it was made of.
pub(crate) trait Holder: Owner {
    /// What the caller gave.
    type Given;

    fn give_back(self) -> Self::Given;
}

/// One buffer that is input and output.
pub(crate) struct Shared<D>(pub(crate) D);

/// Input and output.
pub(crate) struct Apart<I, O>(pub(crate) I, pub(crate) O);

/// The byte of a barrier.
pub(crate) struct Bare(pub(crate) [u8; 1]);

impl<D: Owned> Owner for Shared<D> {
    fn buffers(&mut self) -> Buffers<'_> {
        Buffers::InPlace(bytemuck::cast_slice_mut(self.0.elements_mut()))
    }
}

impl<D: Owned> Holder for Shared<D> {
    type Given = D;

    fn give_back(self) -> D {
        self.0
    }
}

impl<I: Owned, O: Owned> Owner for Apart<I, O> {
    fn buffers(&mut self) -> Buffers<'_> {
        let input = bytemuck::cast_slice(self.0.elements());
        Buffers::Apart { input, output: bytemuck::cast_slice_mut(self.1.elements_mut()) }
    }
}

impl<I: Owned, O: Owned> Holder for Apart<I, O> {
    type Given = (I, O);

    fn give_back(self) -> (I, O) {
        (self.0, self.1)
    }
}

impl Owner for Bare {
    fn buffers(&mut self) -> Buffers<'_> {
        Buffers::InPlace(&mut self.0)
    }
}

impl Holder for Bare {
    type Given = ();

    fn give_back(self) {}
}

/// What was kept of a call, as what its caller gave.
///
/// # Panics
/// When it was made of something else: its handle names the wrong type.
pub(crate) fn given<W: Holder>(kept: Kept) -> W::Given {
    let owner: Box<dyn Any> = kept.owner;
    let owner = owner.downcast::<W>().expect("a call gives back what it was given");
    owner.give_back()
}
