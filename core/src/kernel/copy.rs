//! Moving bytes: one trip over the source, one or two destinations.

use super::Store;
use super::fold::registers;
use super::isa::Simd;

/// What one copy moves.
#[derive(Clone, Copy)]
pub(super) struct Move {
    pub(super) from: *const u8,
    pub(super) into: *mut u8,
    /// The second copy; null where there is none.
    pub(super) also: *mut u8,
    pub(super) bytes: usize,
    pub(super) store: Store,
}

/// A copy loop of one family of instructions.
pub(super) type MoveFn = unsafe fn(&Move);

/// Moves the whole.
///
/// # Safety
/// `bytes` are readable at `from` and writable at `into` and, unless it is null, `also`. Both are disjoint
/// from `from`, or the same memory.
#[inline(always)]
pub(super) unsafe fn copy<S: Simd>(s: S, job: &Move) {
    if job.bytes >= STREAM_MIN && job.store == Store::Streaming {
        // SAFETY: the caller's contract is the same.
        return unsafe { stream(s, job) };
    }
    // SAFETY: the caller's contract is the same.
    unsafe { cached(s, job, 0) };
}

/// Below this, the head and the tail that cannot be streamed are most of it.
const STREAM_MIN: usize = 1024;

/// Moves what is left from `at`, with ordinary stores.
///
/// # Safety
/// As [`copy`], and `at <= bytes`.
#[inline(always)]
unsafe fn cached<S: Simd>(s: S, job: &Move, mut at: usize) {
    while at + 4 * S::WIDTH <= job.bytes {
        // SAFETY: four registers fit.
        unsafe { whole::<S, 4, false>(s, job, at) };
        at += 4 * S::WIDTH;
    }
    while at + S::WIDTH <= job.bytes {
        // SAFETY: one register fits.
        unsafe { whole::<S, 1, false>(s, job, at) };
        at += S::WIDTH;
    }
    if at < job.bytes {
        // SAFETY: what is left is less than a register.
        unsafe { part(s, job, at, job.bytes - at) };
    }
}

/// Moves with stores past the caches, but for the ends.
///
/// # Safety
/// As [`copy`], and `bytes >= 64`.
#[inline(always)]
unsafe fn stream<S: Simd>(s: S, job: &Move) {
    let head = job.into.align_offset(64);
    // SAFETY: the head is less than 64 bytes.
    unsafe { cached(s, &Move { bytes: head, ..*job }, 0) };
    let mut at = head;
    while at + 4 * S::WIDTH <= job.bytes {
        // SAFETY: four registers fit; `into + at` is a multiple of 64.
        unsafe { whole::<S, 4, true>(s, job, at) };
        at += 4 * S::WIDTH;
    }
    s.fence();
    // SAFETY: `at` is still inside the bytes.
    unsafe { cached(s, job, at) };
}

/// # Safety
/// As [`copy`], for `COUNT * S::WIDTH` bytes at `at`; if `STREAM`, `into + at` is a multiple of `S::WIDTH`.
#[inline(always)]
unsafe fn whole<S: Simd, const COUNT: usize, const STREAM: bool>(s: S, job: &Move, at: usize) {
    // SAFETY: the caller lends the registers.
    let raws = unsafe { registers::<S, COUNT>(s, job.from.wrapping_add(at)) };
    for (register, raw) in raws.into_iter().enumerate() {
        let place = at + register * S::WIDTH;
        if STREAM {
            // SAFETY: `register < COUNT`, and the caller aligned `into + at`.
            unsafe { s.stream(job.into.wrapping_add(place), raw) };
        } else {
            // SAFETY: `register < COUNT`.
            unsafe { s.store(job.into.wrapping_add(place), raw) };
        }
        if !job.also.is_null() {
            // SAFETY: `register < COUNT`, and `also` is there.
            unsafe { s.store(job.also.wrapping_add(place), raw) };
        }
    }
}

/// # Safety
/// As [`copy`], for `len <= S::WIDTH` bytes at `at`.
#[inline(always)]
unsafe fn part<S: Simd>(s: S, job: &Move, at: usize, len: usize) {
    // SAFETY: the caller lends `len` bytes at `at`.
    let raw = unsafe { s.load_part(job.from.wrapping_add(at), len) };
    // SAFETY: the caller lends `len` bytes at `at`.
    unsafe { s.store_part(job.into.wrapping_add(at), raw, len) };
    if !job.also.is_null() {
        // SAFETY: the caller lends `len` bytes at `at`, and `also` is there.
        unsafe { s.store_part(job.also.wrapping_add(at), raw, len) };
    }
}
