//! The loops: registers of every source in, one register out, the end of the buffer last.
//!
//! An accumulator never leaves the registers, whatever the number of sources, and each source byte is read once.
//! So a foreign writer can spoil a result but not make it differ between `into` and `also`.

use super::format::{Format, Operation};
use super::isa::Simd;
use crate::element::Scalar;
use sohu_coll_mem::View;

/// Where the sources are.
pub(super) trait Sources<S: Simd, F: Format<S>>: Copy {
    /// How many; at least one.
    fn count(self) -> usize;
    /// The first byte of one of them.
    fn base(self, index: usize) -> *const u8;
    /// What a register of one of them adds to the fold.
    #[inline(always)]
    fn widen(self, s: S, _index: usize, raw: S::Register) -> F::Acc {
        F::widen(s, raw)
    }
}

/// Exactly two: the count is known to the compiler.
#[derive(Clone, Copy)]
pub(super) struct Two(pub(super) *const u8, pub(super) *const u8);

impl<S: Simd, F: Format<S>> Sources<S, F> for Two {
    #[inline(always)]
    fn count(self) -> usize {
        2
    }
    #[inline(always)]
    fn base(self, index: usize) -> *const u8 {
        if index == 0 { self.0 } else { self.1 }
    }
}

impl<S: Simd, F: Format<S>> Sources<S, F> for &[View<'_>] {
    #[inline(always)]
    fn count(self) -> usize {
        self.len()
    }
    #[inline(always)]
    fn base(self, index: usize) -> *const u8 {
        self[index].as_ptr()
    }
}

/// Any number, one of which is multiplied by a scalar first. The product is rounded, as it would be where it travels to be
/// folded by another rank: so all ranks fold the same bits.
#[derive(Clone, Copy)]
pub(super) struct Scaled<'a, A> {
    pub(super) all: &'a [View<'a>],
    pub(super) place: usize,
    pub(super) scalar: A,
}

impl<S: Simd, F: Format<S>> Sources<S, F> for Scaled<'_, F::Acc> {
    #[inline(always)]
    fn count(self) -> usize {
        self.all.len()
    }
    #[inline(always)]
    fn base(self, index: usize) -> *const u8 {
        self.all[index].as_ptr()
    }
    #[inline(always)]
    fn widen(self, s: S, index: usize, raw: S::Register) -> F::Acc {
        let acc = F::widen(s, raw);
        if index == self.place { F::widen(s, F::narrow(s, F::product(s, acc, self.scalar))) } else { acc }
    }
}

/// A scalar in every lane.
#[inline(always)]
pub(super) fn splat<S: Simd, F: Format<S>>(s: S, scalar: Scalar) -> F::Acc {
    let lanes = [scalar.pattern(); REGISTER_MAX / 8];
    // SAFETY: a register is at most as long as the array.
    F::widen(s, unsafe { s.load(lanes.as_ptr().cast()) })
}

/// The most bytes of a register.
const REGISTER_MAX: usize = 64;

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
    /// Whether `also` is too; it lies to cache lines as `into` does then.
    pub(super) both: bool,
}

/// A fold of two sources without division: `into`, `also`, the sources, bytes. In registers, for tiny calls.
pub(super) type PairFn = unsafe fn(*mut u8, *mut u8, *const u8, *const u8, usize);
/// A fold of any number of sources.
pub(super) type ManyFn = unsafe fn(&Sink, &[View<'_>]);
/// As [`ManyFn`], with the source at a place multiplied by a scalar first.
pub(super) type ScaledFn = unsafe fn(&Sink, &[View<'_>], usize, Scalar);

/// Folds the whole of the sources, `COUNT` registers at a time.
///
/// `STREAMS` is whether `sink.streams` may be set. There are hundreds of instances of this function, so each
/// body occurs in it once.
///
/// # Safety
/// `bytes` are readable at every source and writable at `into` and, unless it is null, `also`. `into` and
/// `also` each are the same memory as a source or disjoint from it.
#[inline(always)]
pub(super) unsafe fn fold<S, F, O, P, const COUNT: usize, const STREAMS: bool>(s: S, sink: &Sink, from: P)
where
    S: Simd,
    F: Format<S>,
    O: Operation,
    P: Sources<S, F>,
{
    let streams = STREAMS && sink.streams;
    // A line that is streamed in parts costs a read of it from memory, so the first one is not streamed.
    let mut stop = if streams { sink.into.align_offset(64).min(sink.bytes) } else { 0 };
    let mut at = 0;
    loop {
        // On the first turn the head, on the second what is left.
        while at < stop {
            let len = (stop - at).min(S::WIDTH);
            // SAFETY: `at + len` is at most `stop`, which is at most `bytes`; `len` is at most a register.
            unsafe { part::<S, F, O, P>(s, sink, from, at, len) };
            at += len;
        }
        if stop == sink.bytes {
            break;
        }
        while at + COUNT * S::WIDTH <= sink.bytes {
            // SAFETY: the registers fit; if `streams`, `into + at` is a multiple of 64.
            unsafe { whole::<S, F, O, P, COUNT>(s, sink, from, at, streams) };
            at += COUNT * S::WIDTH;
        }
        stop = sink.bytes;
    }
    if streams {
        s.fence();
    }
}

/// Folds `COUNT` whole registers.
///
/// # Safety
/// As [`fold`], for `COUNT * S::WIDTH` bytes at `at`; if `streams`, `into + at` is a multiple of `S::WIDTH`.
#[inline(always)]
unsafe fn whole<S: Simd, F: Format<S>, O: Operation, P: Sources<S, F>, const COUNT: usize>(
    s: S,
    sink: &Sink,
    from: P,
    at: usize,
    streams: bool,
) {
    // SAFETY: the caller lends the registers.
    let first = unsafe { registers::<S, COUNT>(s, from.base(0).wrapping_add(at)) };
    let mut acc = [from.widen(s, 0, first[0]); COUNT];
    let mut register = 1;
    while register < COUNT {
        acc[register] = from.widen(s, 0, first[register]);
        register += 1;
    }
    let mut source = 1;
    while source < from.count() {
        // SAFETY: the caller lends the registers.
        let others = unsafe { registers::<S, COUNT>(s, from.base(source).wrapping_add(at)) };
        let mut register = 0;
        while register < COUNT {
            acc[register] = O::fold::<S, F>(s, acc[register], from.widen(s, source, others[register]));
            register += 1;
        }
        source += 1;
    }
    let mut register = 0;
    while register < COUNT {
        let raw = finish::<S, F, O>(s, acc[register], sink.divisor);
        let place = at + register * S::WIDTH;
        let into = sink.into.wrapping_add(place);
        if streams {
            // SAFETY: `register < COUNT`, and the caller aligned `into + at`.
            unsafe { s.stream(into, raw) };
        } else {
            // SAFETY: `register < COUNT`.
            unsafe { s.store(into, raw) };
        }
        let also = sink.also.wrapping_add(place);
        if streams && sink.both {
            // SAFETY: as for `into`, which `also` is aligned like.
            unsafe { s.stream(also, raw) };
        } else if !sink.also.is_null() {
            // SAFETY: `register < COUNT`, and `also` is there.
            unsafe { s.store(also, raw) };
        }
        register += 1;
    }
}

/// Reads `COUNT` registers.
///
/// # Safety
/// `COUNT * S::WIDTH` bytes at `from` are readable.
#[inline(always)]
pub(super) unsafe fn registers<S: Simd, const COUNT: usize>(s: S, from: *const u8) -> [S::Register; COUNT] {
    // SAFETY: the first of the registers that the caller lends.
    let mut raws = [unsafe { s.load(from) }; COUNT];
    let mut register = 1;
    while register < COUNT {
        // SAFETY: `register < COUNT`.
        raws[register] = unsafe { s.load(from.wrapping_add(register * S::WIDTH)) };
        register += 1;
    }
    raws
}

/// Folds `len` bytes, at most a register.
///
/// # Safety
/// As [`fold`], for `len <= S::WIDTH` bytes at `at`.
#[inline(always)]
unsafe fn part<S: Simd, F: Format<S>, O: Operation, P: Sources<S, F>>(
    s: S,
    sink: &Sink,
    from: P,
    at: usize,
    len: usize,
) {
    // SAFETY: the caller lends `len` bytes at `at`.
    let mut acc = from.widen(s, 0, unsafe { s.load_part(from.base(0).wrapping_add(at), len) });
    let mut source = 1;
    while source < from.count() {
        // SAFETY: the caller lends `len` bytes at `at`.
        let other = unsafe { s.load_part(from.base(source).wrapping_add(at), len) };
        acc = O::fold::<S, F>(s, acc, from.widen(s, source, other));
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
