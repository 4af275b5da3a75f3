//! Moving bytes: one trip over the source, one or two destinations.

use super::fold::registers;
use super::isa::Simd;
use sohu_coll_mem::words::{ask, claim};

/// A copy loop of one family of instructions: the source, `into`, `also` (null where there is none), bytes.
pub(super) type MoveFn = unsafe fn(*const u8, *mut u8, *mut u8, usize);

/// A copy loop that asks for other bytes meanwhile: the source, `into`, what is asked for, bytes.
pub(super) type FetchFn = unsafe fn(*const u8, *mut u8, *const u8, usize);

/// How far ahead of its stores a copy asks for the lines of its destination. In staging memory these lie in the cache of the core that
/// read them last; stores wait for them one by one where that is far over a mesh. 8 KiB to 1 MiB take 8 to 18 % less time there. The last
/// part of a copy asks for 16 lines that it does not store to, which somebody else may have to take back.
const CLAIM_AHEAD: usize = 1024;
/// Shorter copies do not: they are over before it helps.
const CLAIM_MIN: usize = 2048;

/// What a family copies with.
#[derive(Clone, Copy)]
pub(super) struct Moves {
    pub(super) cached: MoveFn,
    pub(super) streaming: MoveFn,
    pub(super) fetching: FetchFn,
}

/// Moves all bytes, with ordinary stores.
///
/// # Safety
/// `bytes` are readable at `from` and writable at `into` and, unless it is null, `also`, both disjoint
/// from `from`.
#[inline(always)]
pub(super) unsafe fn cached<S: Simd>(s: S, from: *const u8, into: *mut u8, also: *mut u8, bytes: usize) {
    let job = Move { from, into, also };
    let mut at = 0;
    // Beyond the end too: long copies are made in parts, one after the other.
    while bytes >= CLAIM_MIN && at + 4 * S::WIDTH <= bytes {
        for line in (at..at + 4 * S::WIDTH).step_by(64) {
            claim(into.wrapping_add(line + CLAIM_AHEAD));
        }
        // SAFETY: four registers fit.
        unsafe { job.whole::<S, false>(s, at) };
        at += 4 * S::WIDTH;
    }
    while at + 4 * S::WIDTH <= bytes {
        // SAFETY: four registers fit.
        unsafe { job.whole::<S, false>(s, at) };
        at += 4 * S::WIDTH;
    }
    // SAFETY: `at <= bytes`.
    unsafe { job.parts(s, at, bytes) };
}

/// Moves all bytes, past the caches but for the ends and for `also`.
///
/// # Safety
/// As [`cached`].
#[inline(always)]
pub(super) unsafe fn streaming<S: Simd>(s: S, from: *const u8, into: *mut u8, also: *mut u8, bytes: usize) {
    let job = Move { from, into, also };
    let mut at = into.align_offset(64).min(bytes);
    // SAFETY: `at <= bytes`.
    unsafe { job.parts(s, 0, at) };
    while at + 4 * S::WIDTH <= bytes {
        // SAFETY: four registers fit; `into + at` is a multiple of 64.
        unsafe { job.whole::<S, true>(s, at) };
        at += 4 * S::WIDTH;
    }
    s.fence();
    // SAFETY: `at <= bytes`.
    unsafe { job.parts(s, at, bytes) };
}

/// Moves all bytes, with ordinary stores, and asks for as many at `ahead`: they are about to be read, and come from far.
///
/// # Safety
/// As [`cached`]. Nothing is asked of `ahead`.
#[inline(always)]
pub(super) unsafe fn fetching<S: Simd>(s: S, from: *const u8, into: *mut u8, ahead: *const u8, bytes: usize) {
    let job = Move { from, into, also: core::ptr::null_mut() };
    let mut at = 0;
    while at + 4 * S::WIDTH <= bytes {
        for line in (at..at + 4 * S::WIDTH).step_by(64) {
            ask(ahead.wrapping_add(line));
        }
        // SAFETY: four registers fit.
        unsafe { job.whole::<S, false>(s, at) };
        at += 4 * S::WIDTH;
    }
    // SAFETY: `at <= bytes`.
    unsafe { job.parts(s, at, bytes) };
}

/// From where to where.
#[derive(Clone, Copy)]
struct Move {
    from: *const u8,
    into: *mut u8,
    also: *mut u8,
}

impl Move {
    /// # Safety
    /// As [`cached`], for `4 * S::WIDTH` bytes at `at`; if `STREAM`, `into + at` is a multiple of `S::WIDTH`.
    #[inline(always)]
    unsafe fn whole<S: Simd, const STREAM: bool>(self, s: S, at: usize) {
        // SAFETY: the caller lends the registers.
        let raws = unsafe { registers::<S, 4>(s, self.from.wrapping_add(at)) };
        for (register, raw) in raws.into_iter().enumerate() {
            let place = at + register * S::WIDTH;
            if STREAM {
                // SAFETY: `register < 4`, and the caller aligned `into + at`.
                unsafe { s.stream(self.into.wrapping_add(place), raw) };
            } else {
                // SAFETY: `register < 4`.
                unsafe { s.store(self.into.wrapping_add(place), raw) };
            }
            if !self.also.is_null() {
                // SAFETY: `register < 4`, and `also` is there.
                unsafe { s.store(self.also.wrapping_add(place), raw) };
            }
        }
    }

    /// # Safety
    /// As [`cached`], for the bytes from `at` to `end`.
    #[inline(always)]
    unsafe fn parts<S: Simd>(self, s: S, mut at: usize, end: usize) {
        while at < end {
            let len = (end - at).min(S::WIDTH);
            // SAFETY: `at + len <= end`; `len` is at most a register.
            let raw = unsafe { s.load_part(self.from.wrapping_add(at), len) };
            // SAFETY: as above.
            unsafe { s.store_part(self.into.wrapping_add(at), raw, len) };
            if !self.also.is_null() {
                // SAFETY: as above, and `also` is there.
                unsafe { s.store_part(self.also.wrapping_add(at), raw, len) };
            }
            at += len;
        }
    }
}
