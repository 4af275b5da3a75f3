//! Folds by a function of the caller's.
//!
//! Invariant: the function gets elements by value, each read once: never a reference to memory that a peer may write. What it
//! panics with goes on to whoever called the fold, with nothing more written.

use crate::element::Element;
use core::marker::PhantomData;
use sohu_coll_mem::{View, ViewMut};

/// A fold that is not one of the library's own.
pub trait Fold: Send + Sync {
    /// The name its user gave it.
    fn name(&self) -> &str;

    /// Element `i` of `into`, and of `also`, becomes the fold of element `i` of the sources, in their order. `into` and `also` are
    /// each exactly the same memory as a source, or disjoint from it, and disjoint from each other.
    ///
    /// # Panics
    /// If the function does; without a source; if the lengths differ or are no multiple of the element size.
    fn fold(&self, into: ViewMut<'_>, also: Option<ViewMut<'_>>, sources: &[View<'_>]);
}

/// The fold by a function.
pub struct ByFunction<T, F> {
    name: Box<str>,
    function: F,
    elements: PhantomData<fn(T, T) -> T>,
}

impl<T: Element, F: Fn(T, T) -> T + Send + Sync> ByFunction<T, F> {
    /// The fold by `function`, which is called `name`.
    pub fn new(name: &str, function: F) -> Self {
        Self { name: name.into(), function, elements: PhantomData }
    }
}

impl<T: Element, F: Fn(T, T) -> T + Send + Sync> Fold for ByFunction<T, F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn fold(&self, into: ViewMut<'_>, also: Option<ViewMut<'_>>, sources: &[View<'_>]) {
        super::check(T::DTYPE, into.len(), sources, also);
        let (first, rest) = sources.split_first().expect("checked: there is a source");
        for index in 0..into.len() / size_of::<T>() {
            let mut folded = element::<T>(first, index);
            for source in rest {
                folded = (self.function)(folded, element(source, index));
            }
            put(into, index, folded);
            if let Some(also) = also {
                put(also, index, folded);
            }
        }
    }
}

/// Element `index` of a view.
#[inline(always)]
fn element<T: Element>(view: &View<'_>, index: usize) -> T {
    debug_assert!((index + 1) * size_of::<T>() <= view.len(), "element {index} of {} bytes", view.len());
    let from = view.as_ptr().cast::<T>().wrapping_add(index);
    // SAFETY: the view has the element, as `check` found; it may lie at any address; any bytes are an element.
    unsafe { from.read_unaligned() }
}

/// Stores element `index` of a view.
#[inline(always)]
fn put<T: Element>(view: ViewMut<'_>, index: usize, value: T) {
    debug_assert!((index + 1) * size_of::<T>() <= view.len(), "element {index} of {} bytes", view.len());
    let into = view.as_mut_ptr().cast::<T>().wrapping_add(index);
    // SAFETY: the view has the element, as `check` found; it may lie at any address.
    unsafe { into.write_unaligned(value) };
}
