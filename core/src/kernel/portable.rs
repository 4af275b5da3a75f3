//! [`Simd`] with arrays of 16 bytes: the code that every machine can run, and that the others must equal.

use super::isa::{Lanes, NAN_F32, NAN_F64, Simd};
use super::words;
use bytemuck::cast;
use core::array::from_fn;
use half::f16;

/// Needs nothing of the CPU.
#[derive(Clone, Copy)]
pub(super) struct Portable;

type Bytes = [u64; 2];
type F32 = [f32; 4];
type F64 = [f64; 2];

/// Applies one operation to each pair of lanes.
#[inline(always)]
fn each<T: Copy, const N: usize>(a: [T; N], b: [T; N], make: impl Fn(T, T) -> T) -> [T; N] {
    from_fn(|lane| make(a[lane], b[lane]))
}

/// As [`each`], for lanes of 32 bits.
#[inline(always)]
fn each32(a: Bytes, b: Bytes, make: impl Fn(u32, u32) -> u32) -> Bytes {
    cast(each::<u32, 4>(cast(a), cast(b), make))
}

/// As [`each`], for lanes of 16 bits.
#[inline(always)]
fn each16(a: Bytes, b: Bytes, make: impl Fn(u16, u16) -> u16) -> Bytes {
    cast(each::<u16, 8>(cast(a), cast(b), make))
}

/// The least or the greatest of two floats, which order NaNs and zeros as the module says.
macro_rules! choose {
    ($a:expr, $b:expr, $better:tt, $zero:tt, $nan:expr, $float:ty) => {{
        let (a, b): ($float, $float) = ($a, $b);
        if a.is_nan() || b.is_nan() {
            $nan
        } else if a == b {
            <$float>::from_bits(a.to_bits() $zero b.to_bits())
        } else if a $better b {
            a
        } else {
            b
        }
    }};
}

// The constant conversions do not ask at each number whether the CPU has F16C. They are long: not inlined.
#[inline(never)]
fn widen(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32_const()
}

#[inline(never)]
fn narrow(wide: f32) -> u16 {
    f16::from_f32_const(wide).to_bits()
}

impl Simd for Portable {
    const WIDTH: usize = 16;
    type Register = Bytes;
    type F32 = F32;
    type F64 = F64;

    #[inline(always)]
    unsafe fn load(self, from: *const u8) -> Bytes {
        // SAFETY: the caller lends 16 readable bytes.
        unsafe { from.cast::<Bytes>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_part(self, from: *const u8, len: usize) -> Bytes {
        // SAFETY: the caller's contract is the same.
        let words: [u64; 2] = unsafe { words::load_part(from, len) };
        words.map(u64::to_le)
    }
    #[inline(always)]
    unsafe fn store(self, into: *mut u8, raw: Bytes) {
        // SAFETY: the caller lends 16 writable bytes.
        unsafe { into.cast::<Bytes>().write_unaligned(raw) }
    }
    #[inline(always)]
    unsafe fn store_part(self, into: *mut u8, raw: Bytes, len: usize) {
        // SAFETY: the caller's contract is the same.
        unsafe { words::store_part(into, raw.map(u64::from_le), len) }
    }
    #[inline(always)]
    unsafe fn stream(self, into: *mut u8, raw: Bytes) {
        // SAFETY: the caller's contract is stronger.
        unsafe { self.store(into, raw) }
    }
    #[inline(always)]
    fn fence(self) {}

    #[inline(always)]
    fn to_f32(self, raw: Bytes) -> F32 {
        cast(raw)
    }
    #[inline(always)]
    fn of_f32(self, x: F32) -> Bytes {
        cast(x)
    }
    #[inline(always)]
    fn splat_f32(self, x: f32) -> F32 {
        [x; 4]
    }
    #[inline(always)]
    fn add_f32(self, a: F32, b: F32) -> F32 {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub_f32(self, a: F32, b: F32) -> F32 {
        each(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul_f32(self, a: F32, b: F32) -> F32 {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div_f32(self, a: F32, b: F32) -> F32 {
        each(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn min_f32(self, a: F32, b: F32) -> F32 {
        each(a, b, |a, b| choose!(a, b, <, |, NAN_F32, f32))
    }
    #[inline(always)]
    fn max_f32(self, a: F32, b: F32) -> F32 {
        each(a, b, |a, b| choose!(a, b, >, &, NAN_F32, f32))
    }
    #[inline(always)]
    fn canonical_f32(self, x: F32) -> F32 {
        x.map(|x| if x.is_nan() { NAN_F32 } else { x })
    }

    #[inline(always)]
    fn to_f64(self, raw: Bytes) -> F64 {
        cast(raw)
    }
    #[inline(always)]
    fn of_f64(self, x: F64) -> Bytes {
        cast(x)
    }
    #[inline(always)]
    fn splat_f64(self, x: f64) -> F64 {
        [x; 2]
    }
    #[inline(always)]
    fn add_f64(self, a: F64, b: F64) -> F64 {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn mul_f64(self, a: F64, b: F64) -> F64 {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div_f64(self, a: F64, b: F64) -> F64 {
        each(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn min_f64(self, a: F64, b: F64) -> F64 {
        each(a, b, |a, b| choose!(a, b, <, |, NAN_F64, f64))
    }
    #[inline(always)]
    fn max_f64(self, a: F64, b: F64) -> F64 {
        each(a, b, |a, b| choose!(a, b, >, &, NAN_F64, f64))
    }
    #[inline(always)]
    fn canonical_f64(self, x: F64) -> F64 {
        x.map(|x| if x.is_nan() { NAN_F64 } else { x })
    }

    #[inline(always)]
    fn widen_f16(self, raw: Bytes) -> [F32; 2] {
        let bits: [u16; 8] = cast(raw);
        cast(bits.map(widen))
    }
    #[inline(always)]
    fn narrow_f16(self, halves: [F32; 2]) -> Bytes {
        let wide: [f32; 8] = cast(halves);
        cast(wide.map(narrow))
    }

    #[inline(always)]
    fn splat32(self, x: u32) -> Bytes {
        cast([x; 4])
    }
    #[inline(always)]
    fn splat16(self, x: u16) -> Bytes {
        cast([x; 8])
    }
    #[inline(always)]
    fn and(self, a: Bytes, b: Bytes) -> Bytes {
        each(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn or(self, a: Bytes, b: Bytes) -> Bytes {
        each(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn add32(self, a: Bytes, b: Bytes) -> Bytes {
        each32(a, b, u32::wrapping_add)
    }
    #[inline(always)]
    fn min32(self, a: Bytes, b: Bytes) -> Bytes {
        each32(a, b, u32::min)
    }
    #[inline(always)]
    fn max32(self, a: Bytes, b: Bytes) -> Bytes {
        each32(a, b, u32::max)
    }
    #[inline(always)]
    fn min16(self, a: Bytes, b: Bytes) -> Bytes {
        each16(a, b, u16::min)
    }
    #[inline(always)]
    fn if_greater16(self, a: Bytes, b: Bytes, then: Bytes, or_else: Bytes) -> Bytes {
        let (a, b): ([i16; 8], [i16; 8]) = (cast(a), cast(b));
        let (then, or_else): ([i16; 8], [i16; 8]) = (cast(then), cast(or_else));
        cast(from_fn::<i16, 8, _>(|lane| if a[lane] > b[lane] { then[lane] } else { or_else[lane] }))
    }
    #[inline(always)]
    fn shl32<const BY: u32>(self, a: Bytes) -> Bytes {
        each32(a, a, |a, _| a << BY)
    }
    #[inline(always)]
    fn shr32<const BY: u32>(self, a: Bytes) -> Bytes {
        each32(a, a, |a, _| a >> BY)
    }
    #[inline(always)]
    fn shl16<const BY: u32>(self, a: Bytes) -> Bytes {
        each16(a, a, |a, _| a << BY)
    }
    #[inline(always)]
    fn shr16<const BY: u32>(self, a: Bytes) -> Bytes {
        each16(a, a, |a, _| a >> BY)
    }
}

macro_rules! lanes {
    ($($int:ty),*) => {$(
        impl Lanes<$int> for Portable {
            type Raw = Bytes;
            type Array = [$int; 16 / size_of::<$int>()];
            #[inline(always)]
            fn unpack(self, raw: Bytes) -> Self::Array {
                cast(raw)
            }
            #[inline(always)]
            fn pack(self, lanes: Self::Array) -> Bytes {
                cast(lanes)
            }
        }
    )*};
}

lanes!(i8, u8, i32, u32, i64, u64);
