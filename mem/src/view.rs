//! Views of bytes: pointers with a length and a lifetime, and no promise that the bytes stand still.
//!
//! A `&[u8]` tells the compiler that nobody writes the bytes while it lives. That is false for memory
//! another process has mapped, and false inside one call where input and output may be the same buffer.
//! A view only promises that its bytes stay mapped and may be read (or written) for its lifetime;
//! what is read may be torn or stale if a peer breaks the protocol, and is never used as a length or an
//! address without being bounded.

use core::marker::PhantomData;
use core::ops::Range;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Bytes that may be read, and may change while they are.
#[derive(Clone, Copy)]
pub struct View<'a> {
    base: *const u8,
    len: usize,
    lives: PhantomData<&'a [core::cell::Cell<u8>]>,
}

/// Bytes that may be read and written, and may be seen by others meanwhile.
#[derive(Clone, Copy)]
pub struct ViewMut<'a> {
    base: *mut u8,
    len: usize,
    lives: PhantomData<&'a [core::cell::Cell<u8>]>,
}

impl<'a> View<'a> {
    /// A view of `len` bytes at `base`.
    ///
    /// # Safety
    /// The bytes must stay mapped and readable for `'a`, and no `&mut` to them may be used meanwhile.
    #[inline]
    pub unsafe fn from_raw(base: *const u8, len: usize) -> Self {
        Self { base, len, lives: PhantomData }
    }

    /// A view of nothing.
    pub const EMPTY: View<'static> =
        View { base: core::ptr::without_provenance(64), len: 0, lives: PhantomData };

    /// How many bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Asks for the cache lines of the view ahead of a load from them: a hint, that changes nothing.
    #[inline]
    pub fn ask(&self) {
        for at in (0..self.len).step_by(LINE) {
            crate::words::ask(self.base.wrapping_add(at));
        }
    }

    /// Where the bytes are.
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.base
    }

    /// The part of the view at `range`, in bytes.
    ///
    /// # Panics
    /// When `range` does not lie inside the view.
    #[inline]
    #[track_caller]
    pub fn slice(&self, range: Range<usize>) -> View<'a> {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of a view of {} bytes",
            self.len
        );
        View { base: self.base.wrapping_add(range.start), len: range.end - range.start, lives: PhantomData }
    }

    /// The first `len` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline]
    #[track_caller]
    pub fn first(&self, len: usize) -> View<'a> {
        self.slice(0..len)
    }

    /// Loads the bytes as little-endian words, the last one filled up with zeros. Returns how many words.
    ///
    /// # Panics
    /// When there are fewer `words`.
    #[inline]
    pub fn load_words(&self, words: &mut [u64]) -> usize {
        let count = self.len.div_ceil(8);
        for (index, word) in words[..count].iter_mut().enumerate() {
            let left = self.len - index * 8;
            let from = self.base.wrapping_add(index * 8);
            *word = if left >= 8 {
                // SAFETY: 8 bytes are left of the view; the load may be unaligned.
                u64::from_le(unsafe { from.cast::<u64>().read_unaligned() })
            } else {
                let mut bytes = [0; 8];
                // SAFETY: `left` bytes are left of the view, and there is room for 8.
                unsafe { core::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), left) };
                u64::from_le_bytes(bytes)
            };
        }
        count
    }

    /// Copies the bytes into `into`, which may overlap.
    ///
    /// # Panics
    /// When the lengths differ.
    #[inline]
    #[track_caller]
    pub fn copy_to(&self, into: ViewMut<'_>) {
        assert!(self.len == into.len, "copy of {} bytes into {}", self.len, into.len);
        // SAFETY: both views are mapped for `len` bytes by their invariant, and `copy` allows overlap.
        unsafe { core::ptr::copy(self.base, into.base, self.len) };
    }
}

impl<'a> ViewMut<'a> {
    /// A view of `len` bytes at `base`.
    ///
    /// # Safety
    /// The bytes must stay mapped, readable and writable for `'a`, and no reference to them may be used
    /// meanwhile but by code that expects them to change.
    #[inline]
    pub unsafe fn from_raw(base: *mut u8, len: usize) -> Self {
        Self { base, len, lives: PhantomData }
    }

    /// A view of nothing.
    pub const EMPTY: ViewMut<'static> =
        ViewMut { base: core::ptr::without_provenance_mut(64), len: 0, lives: PhantomData };

    /// How many bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the bytes are.
    #[inline]
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.base
    }

    /// Asks for the cache lines of the view ahead of a store to them: a hint, that changes nothing.
    #[inline]
    pub fn claim(&self) {
        for at in (0..self.len).step_by(LINE) {
            crate::words::claim(self.base.wrapping_add(at));
        }
    }

    /// The same bytes, to read.
    #[inline]
    pub fn as_view(&self) -> View<'a> {
        View { base: self.base, len: self.len, lives: PhantomData }
    }

    /// The part of the view at `range`, in bytes.
    ///
    /// # Panics
    /// When `range` does not lie inside the view.
    #[inline]
    #[track_caller]
    pub fn slice(&self, range: Range<usize>) -> ViewMut<'a> {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of a view of {} bytes",
            self.len
        );
        ViewMut {
            base: self.base.wrapping_add(range.start),
            len: range.end - range.start,
            lives: PhantomData,
        }
    }

    /// The first `len` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline]
    #[track_caller]
    pub fn first(&self, len: usize) -> ViewMut<'a> {
        self.slice(0..len)
    }
}

impl<'a> From<&'a [u8]> for View<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Self { base: bytes.as_ptr(), len: bytes.len(), lives: PhantomData }
    }
}

impl<'a> From<&'a mut [u8]> for ViewMut<'a> {
    #[inline]
    fn from(bytes: &'a mut [u8]) -> Self {
        Self { base: bytes.as_mut_ptr(), len: bytes.len(), lives: PhantomData }
    }
}

impl core::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "View({} bytes at {:p})", self.len, self.base)
    }
}

impl core::fmt::Debug for ViewMut<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ViewMut({} bytes at {:p})", self.len, self.base)
    }
}
