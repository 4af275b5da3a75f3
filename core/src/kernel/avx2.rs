//! [`Simd`] with AVX2 and F16C: registers of 32 bytes.

use super::isa::{Lanes, NAN_F32, NAN_F64, Simd};
use super::words;
use core::arch::x86_64::*;

/// Runs one intrinsic that only needs the instruction to exist.
macro_rules! op {
    ($call:expr) => {
        // SAFETY: `self` proves that the CPU has the instruction, and it touches registers only.
        unsafe { $call }
    };
}

/// Proof that the CPU has AVX2 and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// [`Isa::Avx2`](super::Isa::Avx2) is available.
    #[inline(always)]
    pub(super) unsafe fn assume() -> Self {
        Self(())
    }

    /// The mask of the lanes of 32 bits in the first `len` bytes.
    #[inline(always)]
    fn first(self, len: usize) -> __m256i {
        let lanes = op!(_mm256_set1_epi32((len / 4) as i32));
        let places = op!(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        op!(_mm256_cmpgt_epi32(lanes, places))
    }
}

impl Simd for Avx2 {
    const WIDTH: usize = 32;
    type Register = __m256i;
    type F32 = __m256;
    type F64 = __m256d;

    #[inline(always)]
    unsafe fn load(self, from: *const u8) -> __m256i {
        // SAFETY: the caller lends 32 readable bytes; the load may be unaligned.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_part(self, from: *const u8, len: usize) -> __m256i {
        if len == Self::WIDTH {
            // SAFETY: the caller lends a whole register.
            return unsafe { self.load(from) };
        }
        if len.is_multiple_of(4) {
            // SAFETY: the mask keeps the access inside the `len` bytes that the caller lends.
            return unsafe { _mm256_maskload_epi32(from.cast(), self.first(len)) };
        }
        // SAFETY: the caller's contract is the same.
        let words = unsafe { words::load_part::<4>(from, len) };
        // SAFETY: both are 32 bytes, and every pattern of bits is a valid register.
        unsafe { core::mem::transmute(words) }
    }
    #[inline(always)]
    unsafe fn store(self, into: *mut u8, raw: __m256i) {
        // SAFETY: the caller lends 32 writable bytes; the store may be unaligned.
        unsafe { _mm256_storeu_si256(into.cast(), raw) }
    }
    #[inline(always)]
    unsafe fn store_part(self, into: *mut u8, raw: __m256i, len: usize) {
        if len == Self::WIDTH {
            // SAFETY: the caller lends a whole register.
            return unsafe { self.store(into, raw) };
        }
        if len.is_multiple_of(4) {
            // SAFETY: the mask keeps the access inside the `len` bytes that the caller lends.
            return unsafe { _mm256_maskstore_epi32(into.cast(), self.first(len), raw) };
        }
        // SAFETY: both are 32 bytes, and every pattern of bits is a valid integer.
        let words: [u64; 4] = unsafe { core::mem::transmute(raw) };
        // SAFETY: the caller's contract is the same.
        unsafe { words::store_part(into, words, len) };
    }
    #[inline(always)]
    unsafe fn stream(self, into: *mut u8, raw: __m256i) {
        // SAFETY: the caller lends 32 writable bytes at a multiple of 32, and fences.
        unsafe { _mm256_stream_si256(into.cast(), raw) }
    }
    #[inline(always)]
    fn fence(self) {
        op!(_mm_sfence())
    }

    #[inline(always)]
    fn to_f32(self, raw: __m256i) -> __m256 {
        op!(_mm256_castsi256_ps(raw))
    }
    #[inline(always)]
    fn of_f32(self, x: __m256) -> __m256i {
        op!(_mm256_castps_si256(x))
    }
    #[inline(always)]
    fn splat_f32(self, x: f32) -> __m256 {
        op!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    fn add_f32(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub_f32(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul_f32(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div_f32(self, a: __m256, b: __m256) -> __m256 {
        op!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn min_f32(self, a: __m256, b: __m256) -> __m256 {
        // Equal numbers have equal bits but for the zeros; there the sign decides.
        let zero = op!(_mm256_or_ps(a, b));
        let equal = op!(_mm256_cmp_ps::<_CMP_EQ_OQ>(a, b));
        let unordered = op!(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, b));
        let found = op!(_mm256_min_ps(a, b));
        let found = op!(_mm256_blendv_ps(found, zero, equal));
        let nan = self.splat_f32(NAN_F32);
        op!(_mm256_blendv_ps(found, nan, unordered))
    }
    #[inline(always)]
    fn max_f32(self, a: __m256, b: __m256) -> __m256 {
        // Equal numbers have equal bits but for the zeros; there the sign decides.
        let zero = op!(_mm256_and_ps(a, b));
        let equal = op!(_mm256_cmp_ps::<_CMP_EQ_OQ>(a, b));
        let unordered = op!(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, b));
        let found = op!(_mm256_max_ps(a, b));
        let found = op!(_mm256_blendv_ps(found, zero, equal));
        let nan = self.splat_f32(NAN_F32);
        op!(_mm256_blendv_ps(found, nan, unordered))
    }
    #[inline(always)]
    fn canonical_f32(self, x: __m256) -> __m256 {
        let unordered = op!(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
        let nan = self.splat_f32(NAN_F32);
        op!(_mm256_blendv_ps(x, nan, unordered))
    }

    #[inline(always)]
    fn to_f64(self, raw: __m256i) -> __m256d {
        op!(_mm256_castsi256_pd(raw))
    }
    #[inline(always)]
    fn of_f64(self, x: __m256d) -> __m256i {
        op!(_mm256_castpd_si256(x))
    }
    #[inline(always)]
    fn splat_f64(self, x: f64) -> __m256d {
        op!(_mm256_set1_pd(x))
    }
    #[inline(always)]
    fn add_f64(self, a: __m256d, b: __m256d) -> __m256d {
        op!(_mm256_add_pd(a, b))
    }
    #[inline(always)]
    fn mul_f64(self, a: __m256d, b: __m256d) -> __m256d {
        op!(_mm256_mul_pd(a, b))
    }
    #[inline(always)]
    fn div_f64(self, a: __m256d, b: __m256d) -> __m256d {
        op!(_mm256_div_pd(a, b))
    }
    #[inline(always)]
    fn min_f64(self, a: __m256d, b: __m256d) -> __m256d {
        // Equal numbers have equal bits but for the zeros; there the sign decides.
        let zero = op!(_mm256_or_pd(a, b));
        let equal = op!(_mm256_cmp_pd::<_CMP_EQ_OQ>(a, b));
        let unordered = op!(_mm256_cmp_pd::<_CMP_UNORD_Q>(a, b));
        let found = op!(_mm256_min_pd(a, b));
        let found = op!(_mm256_blendv_pd(found, zero, equal));
        let nan = self.splat_f64(NAN_F64);
        op!(_mm256_blendv_pd(found, nan, unordered))
    }
    #[inline(always)]
    fn max_f64(self, a: __m256d, b: __m256d) -> __m256d {
        // Equal numbers have equal bits but for the zeros; there the sign decides.
        let zero = op!(_mm256_and_pd(a, b));
        let equal = op!(_mm256_cmp_pd::<_CMP_EQ_OQ>(a, b));
        let unordered = op!(_mm256_cmp_pd::<_CMP_UNORD_Q>(a, b));
        let found = op!(_mm256_max_pd(a, b));
        let found = op!(_mm256_blendv_pd(found, zero, equal));
        let nan = self.splat_f64(NAN_F64);
        op!(_mm256_blendv_pd(found, nan, unordered))
    }
    #[inline(always)]
    fn canonical_f64(self, x: __m256d) -> __m256d {
        let unordered = op!(_mm256_cmp_pd::<_CMP_UNORD_Q>(x, x));
        let nan = self.splat_f64(NAN_F64);
        op!(_mm256_blendv_pd(x, nan, unordered))
    }

    #[inline(always)]
    fn widen_f16(self, raw: __m256i) -> [__m256; 2] {
        let lower = op!(_mm256_castsi256_si128(raw));
        let upper = op!(_mm256_extracti128_si256::<1>(raw));
        [op!(_mm256_cvtph_ps(lower)), op!(_mm256_cvtph_ps(upper))]
    }
    #[inline(always)]
    fn narrow_f16(self, [lower, upper]: [__m256; 2]) -> __m256i {
        let lower = op!(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(lower));
        let upper = op!(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(upper));
        op!(_mm256_set_m128i(upper, lower))
    }

    #[inline(always)]
    fn splat32(self, x: u32) -> __m256i {
        op!(_mm256_set1_epi32(x.cast_signed()))
    }
    #[inline(always)]
    fn splat16(self, x: u16) -> __m256i {
        op!(_mm256_set1_epi16(x.cast_signed()))
    }
    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_and_si256(a, b))
    }
    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_or_si256(a, b))
    }
    #[inline(always)]
    fn add32(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_add_epi32(a, b))
    }
    #[inline(always)]
    fn min32(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_min_epu32(a, b))
    }
    #[inline(always)]
    fn max32(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_max_epu32(a, b))
    }
    #[inline(always)]
    fn min16(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_min_epu16(a, b))
    }
    #[inline(always)]
    fn if_greater16(self, a: __m256i, b: __m256i, then: __m256i, or_else: __m256i) -> __m256i {
        let greater = op!(_mm256_cmpgt_epi16(a, b));
        op!(_mm256_blendv_epi8(or_else, then, greater))
    }
    #[inline(always)]
    fn shl32<const BY: u32>(self, a: __m256i) -> __m256i {
        // The compiler makes the form with an immediate of it.
        let by = op!(_mm_cvtsi32_si128(const { BY.cast_signed() }));
        op!(_mm256_sll_epi32(a, by))
    }
    #[inline(always)]
    fn shr32<const BY: u32>(self, a: __m256i) -> __m256i {
        // The compiler makes the form with an immediate of it.
        let by = op!(_mm_cvtsi32_si128(const { BY.cast_signed() }));
        op!(_mm256_srl_epi32(a, by))
    }
    #[inline(always)]
    fn shl16<const BY: u32>(self, a: __m256i) -> __m256i {
        // The compiler makes the form with an immediate of it.
        let by = op!(_mm_cvtsi32_si128(const { BY.cast_signed() }));
        op!(_mm256_sll_epi16(a, by))
    }
    #[inline(always)]
    fn shr16<const BY: u32>(self, a: __m256i) -> __m256i {
        // The compiler makes the form with an immediate of it.
        let by = op!(_mm_cvtsi32_si128(const { BY.cast_signed() }));
        op!(_mm256_srl_epi16(a, by))
    }
}

macro_rules! lanes {
    ($($int:ty),*) => {$(
        impl Lanes<$int> for Avx2 {
            type Raw = __m256i;
            type Array = [$int; 32 / size_of::<$int>()];
            #[inline(always)]
            fn unpack(self, raw: __m256i) -> Self::Array {
                // SAFETY: both are 32 bytes, and every pattern of bits is a valid integer.
                unsafe { core::mem::transmute(raw) }
            }
            #[inline(always)]
            fn pack(self, lanes: Self::Array) -> __m256i {
                // SAFETY: both are 32 bytes, and every pattern of bits is a valid register.
                unsafe { core::mem::transmute(lanes) }
            }
        }
    )*};
}

lanes!(i8, u8, i32, u32, i64, u64);
