//! Registered memory: buffers that local peers have mapped, so that nothing is staged.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use sohu_coll_core::Element;
use sohu_coll_shm::HeapBytes;

/// A buffer of elements for use in calls, from [`Communicator::alloc`](crate::Communicator::alloc).
///
/// Calls on registered buffers move bytes straight from one rank's buffer to another's where the transport can
/// (shared memory can); any other buffer works too, through one staged copy. Every rank of a call should use
/// registered buffers, or none: a rank whose choice differs is told so by a mismatch.
///
/// After a call that failed, the contents of its registered buffers are undefined.
#[derive(Debug)]
pub struct Buffer<T> {
    bytes: Bytes,
    elements: PhantomData<T>,
}

#[derive(Debug)]
enum Bytes {
    /// In the segment that peers have mapped.
    Registered(HeapBytes),
    /// Anywhere, where the transport has no use for registered memory; words, to be aligned for any element.
    Private(Vec<u64>, usize),
}

impl<T: Element> Buffer<T> {
    pub(crate) fn registered(bytes: HeapBytes) -> Self {
        Self { bytes: Bytes::Registered(bytes), elements: PhantomData }
    }

    pub(crate) fn private(len: usize) -> Self {
        Self { bytes: Bytes::Private(vec![0; len.div_ceil(8)], len), elements: PhantomData }
    }
}

impl<T: Element> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.bytes {
            Bytes::Registered(bytes) => bytemuck::cast_slice(bytes),
            Bytes::Private(words, len) => {
                bytemuck::cast_slice(&bytemuck::cast_slice::<u64, u8>(words)[..*len])
            }
        }
    }
}

impl<T: Element> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.bytes {
            Bytes::Registered(bytes) => bytemuck::cast_slice_mut(bytes),
            Bytes::Private(words, len) => {
                bytemuck::cast_slice_mut(&mut bytemuck::cast_slice_mut::<u64, u8>(words)[..*len])
            }
        }
    }
}
