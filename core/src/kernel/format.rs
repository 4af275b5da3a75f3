//! How the elements of a register become accumulators and how accumulators become elements again.
//!
//! The invariant: the bits of a result depend on the values of its element and on their order, and on
//! nothing else: not on the element's place, the instruction set or the lengths.

use super::fp8::{Layout, narrow, widen};
use super::isa::Simd;
use core::marker::PhantomData;

/// An element type, as the loops see it: one register of elements is one `Acc`.
pub(super) trait Format<S: Simd> {
    /// The accumulators of one register of elements.
    type Acc: Copy;

    fn widen(s: S, raw: S::Register) -> Self::Acc;
    /// Rounds, once. NaNs become canonical.
    fn narrow(s: S, acc: Self::Acc) -> S::Register;
    fn sum(s: S, a: Self::Acc, b: Self::Acc) -> Self::Acc;
    fn product(s: S, a: Self::Acc, b: Self::Acc) -> Self::Acc;
    fn least(s: S, a: Self::Acc, b: Self::Acc) -> Self::Acc;
    fn greatest(s: S, a: Self::Acc, b: Self::Acc) -> Self::Acc;
    /// Divides by the number of ranks.
    fn divide(s: S, acc: Self::Acc, by: u32) -> Self::Acc;
}

/// What a fold does with two accumulators.
pub(super) trait Operation {
    /// Whether the result is divided.
    const DIVIDES: bool = false;
    fn fold<S: Simd, F: Format<S>>(s: S, a: F::Acc, b: F::Acc) -> F::Acc;
}

macro_rules! operations {
    ($($name:ident: $verb:ident, $divides:literal;)*) => {$(
        pub(super) struct $name;
        impl Operation for $name {
            const DIVIDES: bool = $divides;
            #[inline(always)]
            fn fold<S: Simd, F: Format<S>>(s: S, a: F::Acc, b: F::Acc) -> F::Acc {
                F::$verb(s, a, b)
            }
        }
    )*};
}

operations! {
    Sum: sum, false;
    Mean: sum, true;
    Product: product, false;
    Least: least, false;
    Greatest: greatest, false;
}

/// `f64`, folded in its own type.
pub(super) struct Double;

impl<S: Simd> Format<S> for Double {
    type Acc = S::F64;
    #[inline(always)]
    fn widen(s: S, raw: S::Register) -> S::F64 {
        s.to_f64(raw)
    }
    #[inline(always)]
    fn narrow(s: S, acc: S::F64) -> S::Register {
        s.of_f64(s.canonical_f64(acc))
    }
    #[inline(always)]
    fn sum(s: S, a: S::F64, b: S::F64) -> S::F64 {
        s.add_f64(a, b)
    }
    #[inline(always)]
    fn product(s: S, a: S::F64, b: S::F64) -> S::F64 {
        s.mul_f64(a, b)
    }
    #[inline(always)]
    fn least(s: S, a: S::F64, b: S::F64) -> S::F64 {
        s.min_f64(a, b)
    }
    #[inline(always)]
    fn greatest(s: S, a: S::F64, b: S::F64) -> S::F64 {
        s.max_f64(a, b)
    }
    #[inline(always)]
    fn divide(s: S, acc: S::F64, by: u32) -> S::F64 {
        s.div_f64(acc, s.splat_f64(f64::from(by)))
    }
}

/// The types that are folded as `f32`: how `PARTS` registers of `f32` come from one register of elements.
pub(super) trait Narrow<S: Simd, const PARTS: usize> {
    /// What the parts are times too small: a power of two.
    const SCALE: f32 = 1.0;
    fn widen(s: S, raw: S::Register) -> [S::F32; PARTS];
    fn narrow(s: S, parts: [S::F32; PARTS]) -> S::Register;
}

/// A type that is folded as `f32`, in `PARTS` registers.
pub(super) struct AsF32<N, const PARTS: usize>(PhantomData<N>);

/// Applies one operation to each of the parts. A loop and not a closure, so that all of it is inlined
/// into code that may use the vector instructions.
macro_rules! parts {
    ($s:ident.$verb:ident($a:ident, $b:expr)) => {{
        let mut made = $a;
        let mut part = 0;
        while part < PARTS {
            made[part] = $s.$verb($a[part], $b[part]);
            part += 1;
        }
        made
    }};
}

impl<S: Simd, N: Narrow<S, PARTS>, const PARTS: usize> Format<S> for AsF32<N, PARTS> {
    type Acc = [S::F32; PARTS];
    #[inline(always)]
    fn widen(s: S, raw: S::Register) -> Self::Acc {
        N::widen(s, raw)
    }
    #[inline(always)]
    fn narrow(s: S, acc: Self::Acc) -> S::Register {
        N::narrow(s, acc)
    }
    #[inline(always)]
    fn sum(s: S, a: Self::Acc, b: Self::Acc) -> Self::Acc {
        parts!(s.add_f32(a, b))
    }
    #[inline(always)]
    fn product(s: S, a: Self::Acc, b: Self::Acc) -> Self::Acc {
        if N::SCALE == 1.0 {
            return parts!(s.mul_f32(a, b));
        }
        let scale = [s.splat_f32(N::SCALE); PARTS];
        let b = parts!(s.mul_f32(b, scale));
        parts!(s.mul_f32(a, b))
    }
    #[inline(always)]
    fn least(s: S, a: Self::Acc, b: Self::Acc) -> Self::Acc {
        parts!(s.min_f32(a, b))
    }
    #[inline(always)]
    fn greatest(s: S, a: Self::Acc, b: Self::Acc) -> Self::Acc {
        parts!(s.max_f32(a, b))
    }
    #[inline(always)]
    fn divide(s: S, acc: Self::Acc, by: u32) -> Self::Acc {
        let by = [s.splat_f32(by as f32); PARTS];
        parts!(s.div_f32(acc, by))
    }
}

/// `f32`.
pub(super) struct Single;

impl<S: Simd> Narrow<S, 1> for Single {
    #[inline(always)]
    fn widen(s: S, raw: S::Register) -> [S::F32; 1] {
        [s.to_f32(raw)]
    }
    #[inline(always)]
    fn narrow(s: S, [x]: [S::F32; 1]) -> S::Register {
        s.of_f32(s.canonical_f32(x))
    }
}

/// IEEE half precision: the two parts are the lower and the upper half of the register.
pub(super) struct Half;

impl<S: Simd> Narrow<S, 2> for Half {
    #[inline(always)]
    fn widen(s: S, raw: S::Register) -> [S::F32; 2] {
        s.widen_f16(raw)
    }
    #[inline(always)]
    fn narrow(s: S, [lower, upper]: [S::F32; 2]) -> S::Register {
        s.narrow_f16([s.canonical_f32(lower), s.canonical_f32(upper)])
    }
}

/// bfloat16: the two parts are the even and the odd elements, which costs no shuffle.
pub(super) struct Brain;

impl<S: Simd> Narrow<S, 2> for Brain {
    #[inline(always)]
    fn widen(s: S, raw: S::Register) -> [S::F32; 2] {
        let odd = s.and(raw, s.splat32(0xffff_0000));
        [s.to_f32(s.shl32::<16>(raw)), s.to_f32(odd)]
    }
    #[inline(always)]
    fn narrow(s: S, [even, odd]: [S::F32; 2]) -> S::Register {
        let even = s.shr32::<16>(round_to_upper(s, even));
        s.or(even, s.and(round_to_upper(s, odd), s.splat32(0xffff_0000)))
    }
}

/// Rounds to the upper 16 bits, to nearest even; what is left in the lower 16 has no meaning. The carry out
/// of the greatest number makes infinity, and the canonical NaN is too far from a carry to change.
#[inline(always)]
fn round_to_upper<S: Simd>(s: S, x: S::F32) -> S::Register {
    let bits = s.of_f32(s.canonical_f32(x));
    let odd = s.and(s.shr32::<16>(bits), s.splat32(1));
    s.add32(s.add32(bits, s.splat32(0x7fff)), odd)
}

/// An 8-bit float: the parts are the halves of the even and of the odd elements.
pub(super) struct Byte<L>(PhantomData<L>);

impl<S: Simd, L: Layout> Narrow<S, 4> for Byte<L> {
    const SCALE: f32 = L::SCALE;
    #[inline(always)]
    fn widen(s: S, raw: S::Register) -> [S::F32; 4] {
        widen::<S, L>(s, raw)
    }
    #[inline(always)]
    fn narrow(s: S, parts: [S::F32; 4]) -> S::Register {
        narrow::<S, L>(s, parts)
    }
}
