//! Integers: folded in their own type, wrapping.

use super::format::Format;
use super::isa::{Lanes, Simd};
use core::marker::PhantomData;

/// An integer element.
pub(super) trait Integer: Copy {
    fn sum(self, other: Self) -> Self;
    fn product(self, other: Self) -> Self;
    fn least(self, other: Self) -> Self;
    fn greatest(self, other: Self) -> Self;
    /// Divides by a positive number, towards zero.
    fn divide(self, by: u32) -> Self;
}

macro_rules! integers {
    ($($int:ty, ($value:ident, $by:ident) => $divide:expr;)*) => {$(
        impl Integer for $int {
            #[inline(always)]
            fn sum(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn product(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn least(self, other: Self) -> Self {
                Ord::min(self, other)
            }
            #[inline(always)]
            fn greatest(self, other: Self) -> Self {
                Ord::max(self, other)
            }
            #[inline(always)]
            fn divide(self, $by: u32) -> Self {
                let $value = self;
                $divide
            }
        }
    )*};
}

// A float wide enough to hold dividend and quotient exactly divides many lanes at once; the quotient of two
// integers below 2^32 is never closer to the next integer than f64 can tell, nor of one below 2^8 and any `u32`
// than f32 can.
integers! {
    i8, (value, by) => (f32::from(value) / by as f32) as i8;
    u8, (value, by) => (f32::from(value) / by as f32) as u8;
    i32, (value, by) => (f64::from(value) / f64::from(by)) as i32;
    u32, (value, by) => (f64::from(value) / f64::from(by)) as u32;
    i64, (value, by) => value / i64::from(by);
    u64, (value, by) => value / u64::from(by);
}

/// An integer type. The accumulators are a register of elements.
pub(super) struct Int<T>(PhantomData<T>);

/// Applies one operation to each pair of lanes. A loop that the compiler makes vector instructions of, and no
/// closure, so that it is inlined into code that may use them.
macro_rules! each {
    ($s:ident, $a:ident.$verb:ident($b:ident)) => {{
        let mut made = Lanes::<T>::unpack($s, $a);
        let others = Lanes::<T>::unpack($s, $b);
        for (a, b) in made.as_mut().iter_mut().zip(others.as_ref()) {
            *a = a.$verb(*b);
        }
        Lanes::<T>::pack($s, made)
    }};
}

impl<T: Integer, S: Simd + Lanes<T, Raw = <S as Simd>::Register>> Format<S> for Int<T> {
    type Acc = S::Register;

    #[inline(always)]
    fn widen(_: S, raw: S::Register) -> S::Register {
        raw
    }
    #[inline(always)]
    fn narrow(_: S, acc: S::Register) -> S::Register {
        acc
    }
    #[inline(always)]
    fn sum(s: S, a: S::Register, b: S::Register) -> S::Register {
        each!(s, a.sum(b))
    }
    #[inline(always)]
    fn product(s: S, a: S::Register, b: S::Register) -> S::Register {
        each!(s, a.product(b))
    }
    #[inline(always)]
    fn least(s: S, a: S::Register, b: S::Register) -> S::Register {
        each!(s, a.least(b))
    }
    #[inline(always)]
    fn greatest(s: S, a: S::Register, b: S::Register) -> S::Register {
        each!(s, a.greatest(b))
    }
    #[inline(always)]
    fn divide(s: S, acc: S::Register, by: u32) -> S::Register {
        let mut made = Lanes::<T>::unpack(s, acc);
        for lane in made.as_mut() {
            *lane = lane.divide(by);
        }
        Lanes::<T>::pack(s, made)
    }
}
