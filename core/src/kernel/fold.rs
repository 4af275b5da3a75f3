//! The loops: registers of every source in, one register out, the end of the buffer last.
//!
//! An accumulator never leaves the registers, whatever the number of sources, and each source byte is read once.
//! So a foreign writer can spoil a result but not make it differ between `into` and `also`.

use super::format::{Format, Operation};
use super::isa::Simd;
use sohu_coll_mem::View;

/// Where the sources are.
pub(super) trait Sources: Copy {
    /// How many; at least one.
    fn count(self) -> usize;
    /// The first byte of one of them.
    fn base(self, index: usize) -> *const u8;
}

/// Exactly two: the count is known to the compiler.
#[derive(Clone, Copy)]
pub(super) struct Two(pub(super) *const u8, pub(super) *const u8);

impl Sources for Two {
    #[inline(always)]
    fn count(self) -> usize {
        2
    }
    #[inline(always)]
    fn base(self, index: usize) -> *const u8 {
        if index == 0 { self.0 } else { self.1 }
    }
}

impl Sources for &[View<'_>] {
    #[inline(always)]
    fn count(self) -> usize {
        self.len()
    }
    #[inline(always)]
    fn base(self, index: usize) -> *const u8 {
        self[index].as_ptr()
    }
}

/// Where results go.
#[derive(Clone, Copy)]
pub(super) struct Sink {
    pub(super) into: *mut u8,
    /// The second copy; null where there is none.
    pub(super) also: *mut u8,
    /// Bytes of `into`, of `also`, and of each source: a multiple of the element size.
    pub(super) bytes: usize,
    /// What the result is divided by, where the operation divides.
    pub(super) divisor: u32,
    /// Whether `into` is stored past the caches. It is a multiple of the element size then.
    pub(super) streams: bool,
}

/// A fold of two sources: `into`, `also`, the sources, bytes, divisor. In registers, for tiny calls.
pub(super) type PairFn = unsafe fn(*mut u8, *mut u8, *const u8, *const u8, usize, u32);
/// A fold of any number of sources.
pub(super) type ManyFn = unsafe fn(&Sink, &[View<'_>]);
/// A source times a number: `into`, the source, bytes, the number.
pub(super) type ScaleFn = unsafe fn(*mut u8, *const u8, usize, f64);

/// Folds the whole of the sources.
///
/// # Safety
/// `bytes` are readable at every source and writable at `into` and, unless it is null, `also`. `into` and
/// `also` each are the same memory as a source or disjoint from it.
#[inline(always)]
pub(super) unsafe fn fold<S: Simd, F: Format<S>, O: Operation, P: Sources>(s: S, sink: &Sink, from: P) {
    let mut at = 0;
    if sink.streams {
        // A line that is written in parts costs a read of it from memory.
        let head = sink.into.align_offset(64).min(sink.bytes);
        while at + S::WIDTH <= head {
            // SAFETY: the register ends at most at `head`, inside the bytes.
            unsafe { whole::<S, F, O, P, 1, false>(s, sink, from, at) };
            at += S::WIDTH;
        }
        if at < head {
            // SAFETY: the part ends at `head`, inside the bytes.
            unsafe { part::<S, F, O, P>(s, sink, from, at, head - at) };
            at = head;
        }
        while at + 4 * S::WIDTH <= sink.bytes {
            // SAFETY: four registers fit; `into + at` is a multiple of 64.
            unsafe { four::<S, F, O, P, true>(s, sink, from, at) };
            at += 4 * S::WIDTH;
        }
        s.fence();
    }
    while at + 4 * S::WIDTH <= sink.bytes {
        // SAFETY: four registers fit.
        unsafe { four::<S, F, O, P, false>(s, sink, from, at) };
        at += 4 * S::WIDTH;
    }
    while at + S::WIDTH <= sink.bytes {
        // SAFETY: one register fits.
        unsafe { whole::<S, F, O, P, 1, false>(s, sink, from, at) };
        at += S::WIDTH;
    }
    if at < sink.bytes {
        // SAFETY: what is left is less than a register.
        unsafe { part::<S, F, O, P>(s, sink, from, at, sink.bytes - at) };
    }
}

/// Folds four registers, as many at a time as the format likes.
///
/// # Safety
/// As [`fold`], for `4 * S::WIDTH` bytes at `at`; if `STREAM`, `into + at` is a multiple of `S::WIDTH`.
#[inline(always)]
unsafe fn four<S: Simd, F: Format<S>, O: Operation, P: Sources, const STREAM: bool>(
    s: S,
    sink: &Sink,
    from: P,
    at: usize,
) {
    match F::UNROLL {
        4 => {
            // SAFETY: the caller's contract is the same.
            unsafe { whole::<S, F, O, P, 4, STREAM>(s, sink, from, at) }
        }
        2 => {
            // SAFETY: the first half of what the caller lends.
            unsafe { whole::<S, F, O, P, 2, STREAM>(s, sink, from, at) };
            // SAFETY: the second half of what the caller lends.
            unsafe { whole::<S, F, O, P, 2, STREAM>(s, sink, from, at + 2 * S::WIDTH) };
        }
        _ => {
            let mut register = 0;
            while register < 4 {
                // SAFETY: one of the four registers that the caller lends.
                unsafe { whole::<S, F, O, P, 1, STREAM>(s, sink, from, at + register * S::WIDTH) };
                register += 1;
            }
        }
    }
}

/// Folds `COUNT` whole registers.
///
/// # Safety
/// As [`fold`], for `COUNT * S::WIDTH` bytes at `at`; if `STREAM`, `into + at` is a multiple of `S::WIDTH`.
#[inline(always)]
unsafe fn whole<S: Simd, F: Format<S>, O: Operation, P: Sources, const COUNT: usize, const STREAM: bool>(
    s: S,
    sink: &Sink,
    from: P,
    at: usize,
) {
    let base = from.base(0).wrapping_add(at);
    // SAFETY: the first of the registers that the caller lends.
    let first = F::widen(s, unsafe { s.load(base) });
    let mut acc = [first; COUNT];
    for (register, acc) in acc.iter_mut().enumerate().skip(1) {
        // SAFETY: `register < COUNT`.
        *acc = F::widen(s, unsafe { s.load(base.wrapping_add(register * S::WIDTH)) });
    }
    let mut source = 1;
    while source < from.count() {
        let base = from.base(source).wrapping_add(at);
        for (register, acc) in acc.iter_mut().enumerate() {
            // SAFETY: `register < COUNT`.
            let other = unsafe { s.load(base.wrapping_add(register * S::WIDTH)) };
            *acc = O::fold::<S, F>(s, *acc, F::widen(s, other));
        }
        source += 1;
    }
    for (register, acc) in acc.into_iter().enumerate() {
        let raw = finish::<S, F, O>(s, acc, sink.divisor);
        let place = at + register * S::WIDTH;
        if STREAM {
            // SAFETY: `register < COUNT`, and the caller aligned `into + at`.
            unsafe { s.stream(sink.into.wrapping_add(place), raw) };
        } else {
            // SAFETY: `register < COUNT`.
            unsafe { s.store(sink.into.wrapping_add(place), raw) };
        }
        if !sink.also.is_null() {
            // SAFETY: `register < COUNT`, and `also` is there.
            unsafe { s.store(sink.also.wrapping_add(place), raw) };
        }
    }
}

/// Folds `len` bytes, less than a register.
///
/// # Safety
/// As [`fold`], for `len < S::WIDTH` bytes at `at`.
#[inline(always)]
unsafe fn part<S: Simd, F: Format<S>, O: Operation, P: Sources>(
    s: S,
    sink: &Sink,
    from: P,
    at: usize,
    len: usize,
) {
    // SAFETY: the caller lends `len` bytes at `at`.
    let mut acc = F::widen(s, unsafe { s.load_part(from.base(0).wrapping_add(at), len) });
    let mut source = 1;
    while source < from.count() {
        // SAFETY: the caller lends `len` bytes at `at`.
        let other = unsafe { s.load_part(from.base(source).wrapping_add(at), len) };
        acc = O::fold::<S, F>(s, acc, F::widen(s, other));
        source += 1;
    }
    let raw = finish::<S, F, O>(s, acc, sink.divisor);
    // SAFETY: the caller lends `len` bytes at `at`.
    unsafe { s.store_part(sink.into.wrapping_add(at), raw, len) };
    if !sink.also.is_null() {
        // SAFETY: the caller lends `len` bytes at `at`, and `also` is there.
        unsafe { s.store_part(sink.also.wrapping_add(at), raw, len) };
    }
}

#[inline(always)]
fn finish<S: Simd, F: Format<S>, O: Operation>(s: S, acc: F::Acc, divisor: u32) -> S::Register {
    if O::DIVIDES { F::narrow(s, F::divide(s, acc, divisor)) } else { F::narrow(s, acc) }
}

/// Multiplies by a number.
///
/// # Safety
/// `bytes` are readable at `from` and writable at `into`, which is the same memory or disjoint.
#[inline(always)]
pub(super) unsafe fn scale<S: Simd, F: Format<S>>(
    s: S,
    into: *mut u8,
    from: *const u8,
    bytes: usize,
    scalar: f64,
) {
    let scalar = F::splat(s, scalar);
    let mut at = 0;
    while at + S::WIDTH <= bytes {
        // SAFETY: one register fits.
        let raw = unsafe { s.load(from.wrapping_add(at)) };
        let raw = F::narrow(s, F::product(s, F::widen(s, raw), scalar));
        // SAFETY: one register fits.
        unsafe { s.store(into.wrapping_add(at), raw) };
        at += S::WIDTH;
    }
    if at < bytes {
        // SAFETY: what is left is less than a register.
        let raw = unsafe { s.load_part(from.wrapping_add(at), bytes - at) };
        let raw = F::narrow(s, F::product(s, F::widen(s, raw), scalar));
        // SAFETY: what is left is less than a register.
        unsafe { s.store_part(into.wrapping_add(at), raw, bytes - at) };
    }
}
