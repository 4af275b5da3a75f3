//! 8-bit floats, by way of half precision.
//!
//! An E5M2 number is the upper byte of a half precision number. An E4M3 number, moved one bit to the right in
//! the upper byte of a half precision number, is that number times 2^-8. So the conversions of half precision
//! do the work, subnormal numbers included; what is left is rounding (once, from `f32`), NaN and saturation.
//! E4M3 stays scaled while it is folded: the exponent of the accumulator is 8 lower than the number's.

use super::isa::Simd;

/// What sets the two kinds apart.
pub(super) trait Layout {
    /// Bits of the significand after the point.
    const FRACTION: u32;
    /// What a number is times the half precision number that stands for it. If not 1, there are no infinities.
    const SCALE: f32;
    /// The canonical NaN.
    const NAN: u16;
}

/// OCP E4M3: sums beyond 448 and infinities become 448.
pub(super) struct E4m3;

impl Layout for E4m3 {
    const FRACTION: u32 = 3;
    const SCALE: f32 = 256.0;
    const NAN: u16 = 0x7f;
}

/// OCP E5M2: rounds like an IEEE type, so sums from 61440 on become infinity.
pub(super) struct E5m2;

impl Layout for E5m2 {
    const FRACTION: u32 = 2;
    const SCALE: f32 = 1.0;
    const NAN: u16 = 0x7e;
}

/// The four parts, divided by `L::SCALE`: lower and upper half of the even bytes, lower and upper half of the odd ones.
#[inline(always)]
pub(super) fn widen<S: Simd, L: Layout>(s: S, raw: S::Register) -> [S::F32; 4] {
    let even = widen_upper::<S, L>(s, s.shl16::<8>(raw));
    let odd = widen_upper::<S, L>(s, raw);
    [even[0], even[1], odd[0], odd[1]]
}

/// Widens the upper byte of each 16 bits.
#[inline(always)]
fn widen_upper<S: Simd, L: Layout>(s: S, raw: S::Register) -> [S::F32; 2] {
    if L::SCALE == 1.0 {
        return s.widen_f16(s.and(raw, s.splat16(0xff00)));
    }
    let magnitude = s.and(raw, s.splat16(0x7f00));
    let half = s.or(s.and(raw, s.splat16(0x8000)), s.shr16::<1>(magnitude));
    // The largest magnitude is no number but the NaN.
    let half = s.if_greater16(magnitude, s.splat16(0x7eff), s.splat16(0x7e00), half);
    s.widen_f16(half)
}

/// The inverse of [`widen`].
#[inline(always)]
pub(super) fn narrow<S: Simd, L: Layout>(s: S, parts: [S::F32; 4]) -> S::Register {
    let even = narrow_code::<S, L>(s, [parts[0], parts[1]]);
    let odd = narrow_code::<S, L>(s, [parts[2], parts[3]]);
    s.or(even, s.shl16::<8>(odd))
}

/// Narrows to the lower byte of each 16 bits; the upper byte is zero.
#[inline(always)]
fn narrow_code<S: Simd, L: Layout>(s: S, [lower, upper]: [S::F32; 2]) -> S::Register {
    let half = s.narrow_f16([round::<S, L>(s, lower), round::<S, L>(s, upper)]);
    let magnitude = s.and(half, s.splat16(0x7fff));
    let sign = s.shr16::<8>(s.and(half, s.splat16(0x8000)));
    let code = if L::SCALE == 1.0 {
        s.shr16::<8>(magnitude)
    } else {
        // 0x7e is the largest number; infinity and all beyond saturate.
        s.min16(s.shr16::<7>(magnitude), s.splat16(0x7e))
    };
    s.if_greater16(magnitude, s.splat16(0x7c00), s.splat16(L::NAN), s.or(code, sign))
}

/// Rounds to the precision of the 8-bit type, to nearest even, as a number that half precision holds exactly.
///
/// Adding and subtracting `1.5 * 2^k` rounds to multiples of `2^(k - 23)`. `k` follows the exponent of `x`, but
/// not below the least normal number, where the multiples stay as wide as a subnormal's; nor above any
/// number of the type, so that it cannot leave the range of `f32`.
#[inline(always)]
fn round<S: Simd, L: Layout>(s: S, x: S::F32) -> S::F32 {
    const LEAST: u32 = (127 - 14) << 23;
    const MOST: u32 = (127 + 20) << 23;
    let bits = s.of_f32(x);
    let exponent = s.and(bits, s.splat32(0x7f80_0000));
    let exponent = s.min32(s.max32(exponent, s.splat32(LEAST)), s.splat32(MOST));
    let anchor = s.to_f32(s.add32(exponent, s.splat32(((23 - L::FRACTION) << 23) | 0x0040_0000)));
    let rounded = s.of_f32(s.sub_f32(s.add_f32(x, anchor), anchor));
    // A negative number that rounds to zero keeps its sign.
    s.to_f32(s.or(rounded, s.and(bits, s.splat32(0x8000_0000))))
}
