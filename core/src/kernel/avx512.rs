//! [`Simd`] with AVX-512: registers of 64 bytes, masked loads and stores at the ends.

use super::isa::{Lanes, NAN_F32, NAN_F64, Simd};
use core::arch::x86_64::*;

/// Runs one intrinsic that only needs the instruction to exist.
macro_rules! op {
    ($call:expr) => {
        // SAFETY: `self` proves that the CPU has the instruction, and it touches registers only.
        unsafe { $call }
    };
}

/// Proof that the CPU has AVX-512 F, BW, DQ and VL, and with them AVX2, F16C and BMI2.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// [`Isa::Avx512`](super::Isa::Avx512) is available.
    #[inline(always)]
    pub(super) unsafe fn assume() -> Self {
        Self(())
    }

    /// The mask of the first `len <= 64` bytes.
    #[inline(always)]
    fn first(self, len: usize) -> __mmask64 {
        debug_assert!(len <= 64);
        op!(_bzhi_u64(u64::MAX, len as u32))
    }
}

impl Simd for Avx512 {
    const WIDTH: usize = 64;
    type Register = __m512i;
    type F32 = __m512;
    type F64 = __m512d;

    #[inline(always)]
    unsafe fn load(self, from: *const u8) -> __m512i {
        // SAFETY: the caller lends 64 readable bytes; the load may be unaligned.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_part(self, from: *const u8, len: usize) -> __m512i {
        // SAFETY: the mask keeps the access inside the `len` bytes that the caller lends.
        unsafe { _mm512_maskz_loadu_epi8(self.first(len), from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, into: *mut u8, raw: __m512i) {
        // SAFETY: the caller lends 64 writable bytes; the store may be unaligned.
        unsafe { _mm512_storeu_si512(into.cast(), raw) }
    }
    #[inline(always)]
    unsafe fn store_part(self, into: *mut u8, raw: __m512i, len: usize) {
        // SAFETY: the mask keeps the access inside the `len` bytes that the caller lends.
        unsafe { _mm512_mask_storeu_epi8(into.cast(), self.first(len), raw) }
    }
    #[inline(always)]
    unsafe fn stream(self, into: *mut u8, raw: __m512i) {
        // SAFETY: the caller lends 64 writable bytes at a multiple of 64, and fences.
        unsafe { _mm512_stream_si512(into.cast(), raw) }
    }
    #[inline(always)]
    fn fence(self) {
        op!(_mm_sfence())
    }

    #[inline(always)]
    fn to_f32(self, raw: __m512i) -> __m512 {
        op!(_mm512_castsi512_ps(raw))
    }
    #[inline(always)]
    fn of_f32(self, x: __m512) -> __m512i {
        op!(_mm512_castps_si512(x))
    }
    #[inline(always)]
    fn splat_f32(self, x: f32) -> __m512 {
        op!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn add_f32(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub_f32(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul_f32(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div_f32(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn min_f32(self, a: __m512, b: __m512) -> __m512 {
        // VRANGE orders the zeros as we do, but drops NaNs.
        let least = op!(_mm512_range_ps::<0b0100>(a, b));
        let unordered = op!(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b));
        let nan = self.splat_f32(NAN_F32);
        op!(_mm512_mask_mov_ps(least, unordered, nan))
    }
    #[inline(always)]
    fn max_f32(self, a: __m512, b: __m512) -> __m512 {
        let greatest = op!(_mm512_range_ps::<0b0101>(a, b));
        let unordered = op!(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b));
        let nan = self.splat_f32(NAN_F32);
        op!(_mm512_mask_mov_ps(greatest, unordered, nan))
    }
    #[inline(always)]
    fn canonical_f32(self, x: __m512) -> __m512 {
        let unordered = op!(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x));
        let nan = self.splat_f32(NAN_F32);
        op!(_mm512_mask_mov_ps(x, unordered, nan))
    }

    #[inline(always)]
    fn to_f64(self, raw: __m512i) -> __m512d {
        op!(_mm512_castsi512_pd(raw))
    }
    #[inline(always)]
    fn of_f64(self, x: __m512d) -> __m512i {
        op!(_mm512_castpd_si512(x))
    }
    #[inline(always)]
    fn splat_f64(self, x: f64) -> __m512d {
        op!(_mm512_set1_pd(x))
    }
    #[inline(always)]
    fn add_f64(self, a: __m512d, b: __m512d) -> __m512d {
        op!(_mm512_add_pd(a, b))
    }
    #[inline(always)]
    fn mul_f64(self, a: __m512d, b: __m512d) -> __m512d {
        op!(_mm512_mul_pd(a, b))
    }
    #[inline(always)]
    fn div_f64(self, a: __m512d, b: __m512d) -> __m512d {
        op!(_mm512_div_pd(a, b))
    }
    #[inline(always)]
    fn min_f64(self, a: __m512d, b: __m512d) -> __m512d {
        let least = op!(_mm512_range_pd::<0b0100>(a, b));
        let unordered = op!(_mm512_cmp_pd_mask::<_CMP_UNORD_Q>(a, b));
        let nan = self.splat_f64(NAN_F64);
        op!(_mm512_mask_mov_pd(least, unordered, nan))
    }
    #[inline(always)]
    fn max_f64(self, a: __m512d, b: __m512d) -> __m512d {
        let greatest = op!(_mm512_range_pd::<0b0101>(a, b));
        let unordered = op!(_mm512_cmp_pd_mask::<_CMP_UNORD_Q>(a, b));
        let nan = self.splat_f64(NAN_F64);
        op!(_mm512_mask_mov_pd(greatest, unordered, nan))
    }
    #[inline(always)]
    fn canonical_f64(self, x: __m512d) -> __m512d {
        let unordered = op!(_mm512_cmp_pd_mask::<_CMP_UNORD_Q>(x, x));
        let nan = self.splat_f64(NAN_F64);
        op!(_mm512_mask_mov_pd(x, unordered, nan))
    }

    #[inline(always)]
    fn widen_f16(self, raw: __m512i) -> [__m512; 2] {
        let lower = op!(_mm512_castsi512_si256(raw));
        let upper = op!(_mm512_extracti64x4_epi64::<1>(raw));
        [op!(_mm512_cvtph_ps(lower)), op!(_mm512_cvtph_ps(upper))]
    }
    #[inline(always)]
    fn narrow_f16(self, [lower, upper]: [__m512; 2]) -> __m512i {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        let lower = op!(_mm512_cvtps_ph::<NEAREST>(lower));
        let upper = op!(_mm512_cvtps_ph::<NEAREST>(upper));
        let lower = op!(_mm512_castsi256_si512(lower));
        op!(_mm512_inserti64x4::<1>(lower, upper))
    }

    #[inline(always)]
    fn splat32(self, x: u32) -> __m512i {
        op!(_mm512_set1_epi32(x.cast_signed()))
    }
    #[inline(always)]
    fn splat16(self, x: u16) -> __m512i {
        op!(_mm512_set1_epi16(x.cast_signed()))
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn add32(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn min32(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_min_epu32(a, b))
    }
    #[inline(always)]
    fn max32(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_max_epu32(a, b))
    }
    #[inline(always)]
    fn min16(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_min_epu16(a, b))
    }
    #[inline(always)]
    fn if_greater16(self, a: __m512i, b: __m512i, then: __m512i, or_else: __m512i) -> __m512i {
        let greater = op!(_mm512_cmpgt_epi16_mask(a, b));
        op!(_mm512_mask_mov_epi16(or_else, greater, then))
    }
    #[inline(always)]
    fn shl32<const BY: u32>(self, a: __m512i) -> __m512i {
        op!(_mm512_slli_epi32::<BY>(a))
    }
    #[inline(always)]
    fn shr32<const BY: u32>(self, a: __m512i) -> __m512i {
        op!(_mm512_srli_epi32::<BY>(a))
    }
    #[inline(always)]
    fn shl16<const BY: u32>(self, a: __m512i) -> __m512i {
        op!(_mm512_slli_epi16::<BY>(a))
    }
    #[inline(always)]
    fn shr16<const BY: u32>(self, a: __m512i) -> __m512i {
        op!(_mm512_srli_epi16::<BY>(a))
    }
}

macro_rules! lanes {
    ($($int:ty),*) => {$(
        impl Lanes<$int> for Avx512 {
            type Raw = __m512i;
            type Array = [$int; 64 / size_of::<$int>()];
            #[inline(always)]
            fn unpack(self, raw: __m512i) -> Self::Array {
                // SAFETY: both are 64 bytes, and every pattern of bits is a valid integer.
                unsafe { core::mem::transmute(raw) }
            }
            #[inline(always)]
            fn pack(self, lanes: Self::Array) -> __m512i {
                // SAFETY: both are 64 bytes, and every pattern of bits is a valid register.
                unsafe { core::mem::transmute(lanes) }
            }
        }
    )*};
}

lanes!(i8, u8, i32, u32, i64, u64);
