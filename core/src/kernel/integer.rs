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
// than f32 can. A conversion that looks whether the quotient fits is not made vector instructions of: it takes four to
// eight times as long.
integers! {
    i8, (value, by) => {
        let quotient = f32::from(value) / by.max(1) as f32;
        // SAFETY: divided by at least one, it is no farther from zero than `value`.
        unsafe { quotient.to_int_unchecked::<i32>() as i8 }
    };
    u8, (value, by) => {
        let quotient = f32::from(value) / by.max(1) as f32;
        // SAFETY: as above, and not negative.
        unsafe { quotient.to_int_unchecked::<i32>() as u8 }
    };
    i32, (value, by) => {
        let quotient = f64::from(value) / f64::from(by.max(1));
        // SAFETY: divided by at least one, it is no farther from zero than `value`.
        unsafe { quotient.to_int_unchecked::<i32>() }
    };
    u32, (value, by) => {
        let quotient = f64::from(value) / f64::from(by.max(1));
        // SAFETY: as above, and not negative.
        unsafe { quotient.to_int_unchecked::<u32>() }
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_those_of_integers_towards_zero() {
        let divisors = (1..=300).chain([65_535, 65_537, 1 << 24, (1 << 24) + 1, i32::MAX as u32, u32::MAX]);
        for by in divisors {
            for value in i8::MIN..=i8::MAX {
                assert_eq!(i64::from(value.divide(by)), i64::from(value) / i64::from(by), "{value} / {by}");
            }
            for value in u8::MIN..=u8::MAX {
                assert_eq!(u64::from(value.divide(by)), u64::from(value) / u64::from(by), "{value} / {by}");
            }
            let multiple = by.wrapping_mul(u32::MAX / by);
            for around in [0, 1, by, multiple, 1 << 24, i32::MAX as u32, u32::MAX] {
                for value in [around.wrapping_sub(1), around, around.wrapping_add(1)] {
                    assert_eq!(
                        u64::from(value.divide(by)),
                        u64::from(value) / u64::from(by),
                        "{value} / {by}"
                    );
                    let value = value.cast_signed();
                    assert_eq!(
                        i64::from(value.divide(by)),
                        i64::from(value) / i64::from(by),
                        "{value} / {by}"
                    );
                }
            }
        }
    }
}
