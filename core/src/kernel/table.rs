//! From a type, an operation and a family of instructions to the compiled loop.
//!
//! Every loop is generic and inlined into an entry here that is compiled for its family, so this is the
//! one place where a family's presence has to be known.

use super::copy::{self, Moves};
use super::fold::{self, ManyFn, PairFn, Scaled, ScaledFn, Sink, Two};
use super::format::{AsF32, Brain, Byte, Double, Format, Half, Operation, Single};
use super::format::{Greatest, Least, Mean, Product, Sum};
use super::fp8::{E4m3, E5m2};
use super::integer::Int;
use super::isa::{Isa, Simd};
use super::portable::Portable;
use crate::element::{DType, ReduceOp, Scalar};
use sohu_coll_mem::View;

#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// The loops of one operation on one type.
#[derive(Clone, Copy)]
pub(super) struct Loops {
    pub(super) pair: PairFn,
    pub(super) many: ManyFn,
    /// As `many`, with the division that completes an average; for other operations the same as `many`.
    pub(super) finishing: ManyFn,
}

/// A family's entries. They may be called where the family is available.
trait Entries: Simd {
    fn pair<F: Format<Self>, O: Operation, const COUNT: usize>() -> PairFn;
    fn many<F: Format<Self>, O: Operation, const COUNT: usize>() -> ManyFn;
    fn scaled<F: Format<Self>, const COUNT: usize>() -> ScaledFn;
}

macro_rules! entries {
    ($module:ident, $family:ty, $token:expr, $features:literal) => {
        mod $module {
            use super::*;

            /// # Safety
            /// As [`fold::fold`], and the family is available.
            #[target_feature(enable = $features)]
            unsafe fn pair<F: Format<$family>, O: Operation, const COUNT: usize>(
                into: *mut u8,
                also: *mut u8,
                one: *const u8,
                two: *const u8,
                bytes: usize,
            ) {
                let token = $token;
                let sink = Sink { into, also, bytes, divisor: 0, streams: false, both: false };
                let from = Two(one, two);
                // SAFETY: the caller's contract is the same.
                unsafe { fold::fold::<$family, F, O, Two, COUNT, false>(token, &sink, from) }
            }

            /// # Safety
            /// As [`fold::fold`], and the family is available.
            #[target_feature(enable = $features)]
            unsafe fn many<F: Format<$family>, O: Operation, const COUNT: usize>(
                sink: &Sink,
                from: &[View<'_>],
            ) {
                let token = $token;
                // SAFETY: the caller's contract is the same.
                unsafe { fold::fold::<$family, F, O, &[View<'_>], COUNT, true>(token, sink, from) }
            }

            /// # Safety
            /// As [`fold::fold`], and the family is available.
            #[target_feature(enable = $features)]
            unsafe fn scaled<F: Format<$family>, const COUNT: usize>(
                sink: &Sink,
                all: &[View<'_>],
                place: usize,
                scalar: Scalar,
            ) {
                let token = $token;
                let from = Scaled { all, place, scalar: fold::splat::<$family, F>(token, scalar) };
                // SAFETY: the caller's contract is the same.
                unsafe { fold::fold::<$family, F, Sum, Scaled<'_, F::Acc>, COUNT, true>(token, sink, from) }
            }

            /// # Safety
            /// As [`copy::cached`], and the family is available.
            #[target_feature(enable = $features)]
            unsafe fn cached(from: *const u8, into: *mut u8, also: *mut u8, bytes: usize) {
                let token = $token;
                // SAFETY: the caller's contract is the same.
                unsafe { copy::cached::<$family>(token, from, into, also, bytes) }
            }

            /// # Safety
            /// As [`copy::streaming`], and the family is available.
            #[target_feature(enable = $features)]
            unsafe fn streaming(from: *const u8, into: *mut u8, also: *mut u8, bytes: usize) {
                let token = $token;
                // SAFETY: the caller's contract is the same.
                unsafe { copy::streaming::<$family>(token, from, into, also, bytes) }
            }

            /// # Safety
            /// As [`copy::fetching`], and the family is available.
            #[target_feature(enable = $features)]
            unsafe fn fetching(from: *const u8, into: *mut u8, ahead: *const u8, bytes: usize) {
                let token = $token;
                // SAFETY: the caller's contract is the same.
                unsafe { copy::fetching::<$family>(token, from, into, ahead, bytes) }
            }

            pub(super) const MOVES: Moves = Moves { cached, streaming, fetching };

            impl Entries for $family {
                fn pair<F: Format<$family>, O: Operation, const COUNT: usize>() -> PairFn {
                    pair::<F, O, COUNT>
                }
                fn many<F: Format<$family>, O: Operation, const COUNT: usize>() -> ManyFn {
                    many::<F, O, COUNT>
                }
                fn scaled<F: Format<$family>, const COUNT: usize>() -> ScaledFn {
                    scaled::<F, COUNT>
                }
            }
        }
    };
}

/// Made small, not fast: no loop for two sources, and one register at a time.
mod portable {
    use super::*;

    /// # Safety
    /// As [`fold::fold`].
    unsafe fn pair<F: Format<Portable>, O: Operation>(
        into: *mut u8,
        also: *mut u8,
        one: *const u8,
        two: *const u8,
        bytes: usize,
    ) {
        let sink = Sink { into, also, bytes, divisor: 0, streams: false, both: false };
        // SAFETY: the caller lends the bytes for this call.
        let one = unsafe { View::from_raw(one, bytes) };
        // SAFETY: the caller lends the bytes for this call.
        let two = unsafe { View::from_raw(two, bytes) };
        // SAFETY: the caller's contract is the same.
        unsafe { many::<F, O>(&sink, &[one, two]) }
    }

    /// # Safety
    /// As [`fold::fold`].
    unsafe fn many<F: Format<Portable>, O: Operation>(sink: &Sink, from: &[View<'_>]) {
        // SAFETY: the caller's contract is the same.
        unsafe { fold::fold::<Portable, F, O, &[View<'_>], 1, false>(Portable, sink, from) }
    }

    /// # Safety
    /// As [`fold::fold`].
    unsafe fn scaled<F: Format<Portable>>(sink: &Sink, all: &[View<'_>], place: usize, scalar: Scalar) {
        let from = Scaled { all, place, scalar: fold::splat::<Portable, F>(Portable, scalar) };
        // SAFETY: the caller's contract is the same.
        unsafe { fold::fold::<Portable, F, Sum, Scaled<'_, F::Acc>, 1, false>(Portable, sink, from) }
    }

    /// # Safety
    /// As [`copy::cached`].
    unsafe fn copy(from: *const u8, into: *mut u8, also: *mut u8, bytes: usize) {
        // SAFETY: the caller's contract is the same.
        unsafe { copy::cached::<Portable>(Portable, from, into, also, bytes) }
    }

    /// # Safety
    /// As [`copy::fetching`].
    unsafe fn fetching(from: *const u8, into: *mut u8, ahead: *const u8, bytes: usize) {
        // SAFETY: the caller's contract is the same.
        unsafe { copy::fetching::<Portable>(Portable, from, into, ahead, bytes) }
    }

    pub(super) const MOVES: Moves = Moves { cached: copy, streaming: copy, fetching };

    impl Entries for Portable {
        fn pair<F: Format<Self>, O: Operation, const COUNT: usize>() -> PairFn {
            pair::<F, O>
        }
        fn many<F: Format<Self>, O: Operation, const COUNT: usize>() -> ManyFn {
            many::<F, O>
        }
        fn scaled<F: Format<Self>, const COUNT: usize>() -> ScaledFn {
            scaled::<F>
        }
    }
}

#[cfg(target_arch = "x86_64")]
entries!(
    avx2,
    Avx2,
    {
        // SAFETY: an entry is called only where its family is available.
        unsafe { Avx2::assume() }
    },
    "avx2,f16c"
);
#[cfg(target_arch = "x86_64")]
entries!(
    avx512,
    Avx512,
    {
        // SAFETY: an entry is called only where its family is available.
        unsafe { Avx512::assume() }
    },
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c,bmi2"
);

/// Calls a generic function with the family's token type.
macro_rules! for_family {
    ($isa:expr, $function:ident($($arg:expr),*)) => {
        match $isa {
            Isa::Scalar => $function::<Portable>($($arg),*),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => $function::<Avx2>($($arg),*),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => $function::<Avx512>($($arg),*),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => unreachable!("{:?} is not available here", $isa),
        }
    };
}

/// Calls a generic function with the format of a type and how many registers to work on at a time: more
/// where there is little to do for each.
macro_rules! for_format {
    ($dtype:expr, $function:ident::<$family:ident>($($arg:expr),*)) => {
        match $dtype {
            DType::I8 => $function::<$family, Int<i8>, 4>($($arg),*),
            DType::U8 => $function::<$family, Int<u8>, 4>($($arg),*),
            DType::I32 => $function::<$family, Int<i32>, 4>($($arg),*),
            DType::U32 => $function::<$family, Int<u32>, 4>($($arg),*),
            DType::I64 => $function::<$family, Int<i64>, 4>($($arg),*),
            DType::U64 => $function::<$family, Int<u64>, 4>($($arg),*),
            DType::F16 => $function::<$family, AsF32<Half, 2>, 2>($($arg),*),
            DType::Bf16 => $function::<$family, AsF32<Brain, 2>, 2>($($arg),*),
            DType::F32 => $function::<$family, AsF32<Single, 1>, 4>($($arg),*),
            DType::F64 => $function::<$family, Double, 4>($($arg),*),
            DType::Fp8E4m3 => $function::<$family, AsF32<Byte<E4m3>, 4>, 1>($($arg),*),
            DType::Fp8E5m2 => $function::<$family, AsF32<Byte<E5m2>, 4>, 1>($($arg),*),
        }
    };
}

/// The loops of `op` on `dtype`.
pub(super) fn loops(dtype: DType, op: ReduceOp, isa: Isa) -> Loops {
    fn of_family<S: Entries>(dtype: DType, op: ReduceOp) -> Loops {
        for_format!(dtype, of_format::<S>(op))
    }
    fn of_format<S: Entries, F: Format<S>, const COUNT: usize>(op: ReduceOp) -> Loops {
        let same = |pair, many| Loops { pair, many, finishing: many };
        match op {
            ReduceOp::Sum | ReduceOp::PreMulSum => {
                same(S::pair::<F, Sum, COUNT>(), S::many::<F, Sum, COUNT>())
            }
            ReduceOp::Prod => same(S::pair::<F, Product, COUNT>(), S::many::<F, Product, COUNT>()),
            ReduceOp::Min => same(S::pair::<F, Least, COUNT>(), S::many::<F, Least, COUNT>()),
            ReduceOp::Max => same(S::pair::<F, Greatest, COUNT>(), S::many::<F, Greatest, COUNT>()),
            ReduceOp::Avg => {
                let finishing = S::many::<F, Mean, COUNT>();
                Loops { finishing, ..same(S::pair::<F, Sum, COUNT>(), S::many::<F, Sum, COUNT>()) }
            }
            ReduceOp::User => same(no_pair, no_many),
        }
    }
    for_family!(isa, of_family(unsigned(dtype, op), op))
}

/// The loop of an operation that has none.
///
/// # Safety
/// None is needed.
unsafe fn no_pair(_: *mut u8, _: *mut u8, _: *const u8, _: *const u8, _: usize) {
    panic!("a user's operation is folded by its function");
}

/// As [`no_pair`].
///
/// # Safety
/// None is needed.
unsafe fn no_many(_: &Sink, _: &[View<'_>]) {
    panic!("a user's operation is folded by its function");
}

/// The type whose loops give the same bits: the sign does not show in wrapping sums and products.
fn unsigned(dtype: DType, op: ReduceOp) -> DType {
    match (op, dtype) {
        (ReduceOp::Sum | ReduceOp::Prod | ReduceOp::PreMulSum, DType::I8) => DType::U8,
        (ReduceOp::Sum | ReduceOp::Prod | ReduceOp::PreMulSum, DType::I32) => DType::U32,
        (ReduceOp::Sum | ReduceOp::Prod | ReduceOp::PreMulSum, DType::I64) => DType::U64,
        _ => dtype,
    }
}

/// The loop of a sum with one source multiplied first.
pub(super) fn scaled(dtype: DType, isa: Isa) -> ScaledFn {
    fn of_family<S: Entries>(dtype: DType) -> ScaledFn {
        for_format!(dtype, of_format::<S>())
    }
    fn of_format<S: Entries, F: Format<S>, const COUNT: usize>() -> ScaledFn {
        S::scaled::<F, COUNT>()
    }
    for_family!(isa, of_family(unsigned(dtype, ReduceOp::PreMulSum)))
}

/// The loops that copy.
#[inline]
pub(super) fn moves(isa: Isa) -> Moves {
    match isa {
        Isa::Scalar => portable::MOVES,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::MOVES,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::MOVES,
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::Avx512 => unreachable!("{isa:?} is not available here"),
    }
}
