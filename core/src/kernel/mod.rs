//! Reduction kernels: folds and copies of foreign memory at the speed of the memory.
//!
//! # What a fold computes
//!
//! The invariant: the bits of an element of the result depend on the bits of that element of the sources,
//! on their order and on nothing else: not on where the element lies, on lengths, on alignment, or on the
//! instructions ([`Isa`]) used. (The floating-point environment is Rust's: nearest even, subnormals kept.)
//!
//! - Integers are folded in their own type. Sums and products wrap; an average divides the wrapped sum,
//!   towards zero.
//! - `f32` and `f64` are folded in their own type, in the order of the sources.
//! - `f16`, `bf16` and the 8-bit floats are folded in `f32` (E4M3: times 2^-8, which only shows where a product
//!   leaves the range of `f32`), divided there for an average, and rounded once, at the end, to nearest even. `f16`, `bf16` and E5M2 overflow to infinity; E4M3, which has none,
//!   saturates to 448 (OCP's "satfinite"), infinite accumulators included.
//! - A pre-multiplied sum forms the product of a rank's input and its scalar as a product of two elements, rounds it to
//!   the type (what other ranks fold is that, too), and goes on as a sum.
//! - Least and greatest take -0 for less than +0, and are NaN if any source is, so that the order of the sources
//!   cannot show in their result.
//! - A NaN that is a result is always the same one: quiet, positive, without payload (E4M3: 0x7f, E5M2: 0x7e).
//!   A fold of one source that does not divide moves the bits as they are.
//!
//! # Memory
//!
//! Sources may be memory that others write meanwhile: they are read through raw pointers, each element
//! once. A fold allocates nothing.

#![expect(unsafe_code, reason = "SIMD and raw views")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod copy;
mod fold;
mod format;
mod fp8;
mod integer;
mod isa;
mod portable;
mod table;
mod user;
mod words;

use crate::element::{DType, ReduceOp, Scalar};
use core::{fmt, ptr};
use fold::Sink;
use sohu_coll_mem::{View, ViewMut};
use table::Loops;

pub use isa::Isa;
pub use user::{ByFunction, Fold};

/// How results are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Through the caches: for what is read again soon, or is small.
    Cached,
    /// Past the caches: for outputs much larger than they are. Applies to `into`, not to `also`, which somebody
    /// is waiting for. The stores are ordered before whatever the caller stores next. Below 2 KiB, as `Cached`.
    Streaming,
    /// As `Streaming`, and `also` too where it lies to cache lines as `into` does: for two such outputs.
    StreamingBoth,
}

/// Below this, waiting for the streamed stores at the end takes longer than it saves.
const STREAM_BYTES_MIN: usize = 2048;

/// Below this, the standard library's copy is the fastest; above, its string instructions are slow on some
/// machines where source and destination are not aligned alike.
const PLAIN_BYTES_MAX: usize = 1024;

/// One operation on one element type, with the loops chosen for this CPU. Cheap to copy; make it once a call. One of
/// [`ReduceOp::User`] folds nothing: its folds panic.
#[derive(Clone, Copy)]
pub struct Kernel {
    loops: Loops,
    dtype: DType,
    op: ReduceOp,
    isa: Isa,
}

impl Kernel {
    /// The kernel with the best instructions that this CPU has.
    pub fn new(dtype: DType, op: ReduceOp) -> Kernel {
        Self::build(dtype, op, Isa::best())
    }

    /// The kernel with given instructions; `None` if the CPU lacks them.
    pub fn with_isa(dtype: DType, op: ReduceOp, isa: Isa) -> Option<Kernel> {
        isa.available().then(|| Self::build(dtype, op, isa))
    }

    fn build(dtype: DType, op: ReduceOp, isa: Isa) -> Kernel {
        Kernel { loops: table::loops(dtype, op, isa), dtype, op, isa }
    }

    /// The type of the elements.
    #[inline]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The operation.
    #[inline]
    pub fn op(&self) -> ReduceOp {
        self.op
    }

    /// Folds the sources in order: element `i` of `into` becomes
    /// `finish(((sources[0][i] op sources[1][i]) op sources[2][i]) ..)`, rounded once. The module says what
    /// each type does.
    ///
    /// `into` and `also` are each exactly the same memory as a source, or disjoint from it, and disjoint from
    /// each other. `also` gets the same result in the same trip. `finish` is the number of ranks, where
    /// the result is the complete reduction: [`ReduceOp::Avg`] divides by it; other operations ignore it.
    ///
    /// # Panics
    /// Without a source; if the lengths differ or are not a multiple of the element size; if an average
    /// is divided by zero.
    #[inline]
    pub fn fold(
        &self,
        into: ViewMut<'_>,
        sources: &[View<'_>],
        also: Option<ViewMut<'_>>,
        finish: Option<u32>,
        store: Store,
    ) {
        let bytes = into.len();
        check(self.dtype, bytes, sources, also);
        let divisor = match finish {
            Some(ranks) if self.op == ReduceOp::Avg => {
                assert!(ranks > 0, "average over 0 ranks");
                ranks
            }
            _ => 0,
        };
        match *sources {
            [one] if divisor == 0 => move_with(|| self.isa, one, into, also, store),
            [one, two] if divisor == 0 && !streams(store, bytes) => {
                let (into, also) = (into.as_mut_ptr(), pointer(also));
                // SAFETY: all views have `bytes` bytes and do not overlap in part; `isa` is available.
                unsafe { (self.loops.pair)(into, also, one.as_ptr(), two.as_ptr(), bytes) }
            }
            _ => {
                let into = into.as_mut_ptr();
                // An element must not lie across the start of the first whole line.
                let streams = streams(store, bytes) && whole_elements(self.dtype, into.addr());
                let also = pointer(also);
                let both = streams && !also.is_null() && store == Store::StreamingBoth && alike(into, also);
                let sink = Sink { into, also, bytes, divisor, streams, both };
                let many = if divisor == 0 { self.loops.many } else { self.loops.finishing };
                // SAFETY: as above.
                unsafe { many(&sink, sources) }
            }
        }
    }
}

impl Kernel {
    /// [`fold`](Self::fold) of two sources into a third place, for few bytes: with as little around the loop as there can be.
    ///
    /// # Panics
    /// As for [`fold`](Self::fold).
    #[inline]
    pub fn fold_pair(&self, into: ViewMut<'_>, one: View<'_>, two: View<'_>, finish: Option<u32>) {
        if finish.is_some() && self.op == ReduceOp::Avg {
            return self.fold(into, &[one, two], None, finish, Store::Cached);
        }
        let bytes = into.len();
        assert!(
            one.len() == bytes && two.len() == bytes,
            "{} and {} bytes into {bytes}",
            one.len(),
            two.len()
        );
        assert!(whole_elements(self.dtype, bytes), "{bytes} bytes of {}", self.dtype);
        // SAFETY: all views have `bytes` bytes and do not overlap in part; `isa` is available.
        unsafe { (self.loops.pair)(into.as_mut_ptr(), ptr::null_mut(), one.as_ptr(), two.as_ptr(), bytes) }
    }
}

impl Kernel {
    /// As [`fold`](Self::fold) for a sum, with every element of the source at `place` multiplied by `scalar` first, and the
    /// product rounded to the type. One source is enough.
    ///
    /// # Panics
    /// As for [`fold`](Self::fold); if there is no source at `place`; if `scalar` is of another type.
    pub fn fold_scaled(
        &self,
        into: ViewMut<'_>,
        sources: &[View<'_>],
        also: Option<ViewMut<'_>>,
        (place, scalar): (usize, Scalar),
        store: Store,
    ) {
        let bytes = into.len();
        check(self.dtype, bytes, sources, also);
        assert!(place < sources.len(), "source {place} of {} is to be scaled", sources.len());
        assert!(scalar.dtype() == self.dtype, "{} times a {}", self.dtype, scalar.dtype());
        let into = into.as_mut_ptr();
        let streams = streams(store, bytes) && whole_elements(self.dtype, into.addr());
        let sink = Sink { into, also: pointer(also), bytes, divisor: 0, streams, both: false };
        // SAFETY: all views have `bytes` bytes and do not overlap in part; `isa` is available.
        unsafe { table::scaled(self.dtype, self.isa)(&sink, sources, place, scalar) }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({} of {} with {:?})", self.op, self.dtype, self.isa)
    }
}

#[inline]
fn check(dtype: DType, bytes: usize, sources: &[View<'_>], also: Option<ViewMut<'_>>) {
    assert!(!sources.is_empty(), "fold of no sources");
    assert!(whole_elements(dtype, bytes), "{bytes} bytes of {dtype}");
    for source in sources {
        assert!(source.len() == bytes, "source of {} bytes folded into {bytes}", source.len());
    }
    if let Some(also) = also {
        assert!(also.len() == bytes, "second copy of {} bytes beside {bytes}", also.len());
    }
}

/// Whether `bytes` is a multiple of the element size, without a division: it would take as long as a tiny fold.
#[inline]
fn whole_elements(dtype: DType, bytes: usize) -> bool {
    debug_assert!(dtype.size().is_power_of_two());
    bytes & (dtype.size() - 1) == 0
}

#[inline]
fn streams(store: Store, bytes: usize) -> bool {
    store != Store::Cached && bytes >= STREAM_BYTES_MIN
}

/// Whether two places lie alike to cache lines.
#[inline]
fn alike(one: *mut u8, two: *mut u8) -> bool {
    (one.addr() ^ two.addr()).is_multiple_of(64)
}

#[inline]
fn pointer(view: Option<ViewMut<'_>>) -> *mut u8 {
    view.map_or(ptr::null_mut(), |view| view.as_mut_ptr())
}

/// Moves `from` to `into`, and to `also` in the same trip.
///
/// A destination is exactly the same memory as `from` (then nothing happens to it) or disjoint from it.
///
/// # Panics
/// If the lengths differ.
#[inline]
pub fn copy(from: View<'_>, into: ViewMut<'_>, also: Option<ViewMut<'_>>, store: Store) {
    assert!(from.len() == into.len(), "copy of {} bytes into {}", from.len(), into.len());
    if let Some(also) = also {
        assert!(also.len() == into.len(), "second copy of {} bytes beside {}", also.len(), into.len());
    }
    move_with(Isa::best, from, into, also, store);
}

/// Bytes of each of two moves that are done together before the next of the one are.
const BESIDE: usize = 2048;

/// Moves `own` and `theirs`, from the first to the second each, as two [`copy`]s would, a little of the one and of the other in
/// turn. While some of `own` is moved, what comes next of `theirs` is asked for: it lies in another core's cache, and the one
/// move hides how long that takes.
///
/// # Panics
/// When two views of a move differ in length.
pub fn copy_beside(own: (View<'_>, ViewMut<'_>), theirs: (View<'_>, ViewMut<'_>), store: Store) {
    let (own_len, theirs_len) = (own.0.len(), theirs.0.len());
    assert!(own_len == own.1.len(), "copy of {own_len} bytes into {}", own.1.len());
    assert!(theirs_len == theirs.1.len(), "copy of {theirs_len} bytes into {}", theirs.1.len());
    let is_moved = |(from, into): (View<'_>, ViewMut<'_>)| !ptr::eq(from.as_ptr(), into.as_mut_ptr());
    let mut both = own_len.min(theirs_len) / BESIDE * BESIDE;
    if store != Store::Cached || !is_moved(own) || !is_moved(theirs) {
        both = 0;
    }
    let moves = table::moves(Isa::best());
    for at in (0..both).step_by(BESIDE) {
        let block = |(from, into): (View<'_>, ViewMut<'_>)| {
            (from.as_ptr().wrapping_add(at), into.as_mut_ptr().wrapping_add(at))
        };
        let ((from, into), (next, landing)) = (block(own), block(theirs));
        // SAFETY: all views have this many bytes at `at`, and a source is not its destination; `best` is available.
        unsafe { (moves.fetching)(from, into, next, BESIDE) };
        // SAFETY: as above.
        unsafe { (moves.cached)(next, landing, ptr::null_mut(), BESIDE) };
    }
    for (from, into) in [own, theirs] {
        let rest = both..from.len();
        copy(from.slice(rest.clone()), into.slice(rest), None, store);
    }
}

#[inline]
fn move_with(
    isa: impl FnOnce() -> Isa,
    from: View<'_>,
    into: ViewMut<'_>,
    also: Option<ViewMut<'_>>,
    store: Store,
) {
    let (from, bytes) = (from.as_ptr(), from.len());
    let (mut into, mut also, mut store) = (into.as_mut_ptr(), pointer(also), store);
    if ptr::eq(also, from) {
        also = ptr::null_mut();
    }
    if ptr::eq(into, from) {
        if also.is_null() {
            return;
        }
        (into, also, store) = (also, ptr::null_mut(), Store::Cached);
    }
    if bytes < PLAIN_BYTES_MAX && also.is_null() {
        // SAFETY: all views have `bytes` bytes, and those of the same memory are gone.
        return unsafe { ptr::copy_nonoverlapping(from, into, bytes) };
    }
    let moves = table::moves(isa());
    let loops = if streams(store, bytes) { moves.streaming } else { moves.cached };
    // SAFETY: all views have `bytes` bytes, and those of the same memory are gone; `isa()` is available.
    unsafe { loops(from, into, also, bytes) }
}
