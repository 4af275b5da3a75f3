//! Which vector instructions there are, and what the loops need of them.
//!
//! A type that implements [`Simd`] is a token: a value of it exists only where the CPU has the instructions,
//! so its methods are safe. All implementations give the same bits for the same input.

use std::sync::OnceLock;

/// A family of vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What the target has without asking.
    Scalar,
    /// AVX2 with F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Isa {
    /// Every family there is, the widest last.
    pub const ALL: [Isa; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// The widest family that this CPU has. Asked once per process.
    #[inline]
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            Self::ALL.into_iter().rev().find(|isa| isa.available()).expect("scalar is always available")
        })
    }

    /// Whether this CPU has the family.
    pub fn available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }
}

/// The one NaN that is ever a result.
pub(super) const NAN_F32: f32 = f32::from_bits(0x7fc0_0000);
/// The one NaN that is ever a result.
pub(super) const NAN_F64: f64 = f64::from_bits(0x7ff8_0000_0000_0000);

/// Registers as arrays of integers.
pub(super) trait Lanes<T>: Copy {
    /// The bytes of one register.
    type Raw: Copy;
    /// As many `T` as fit.
    type Array: Copy + AsMut<[T]> + AsRef<[T]>;
    /// The register as an array.
    fn unpack(self, raw: Self::Raw) -> Self::Array;
    /// The array as a register.
    fn pack(self, lanes: Self::Array) -> Self::Raw;
}

/// The operations on registers that the folds are made of.
///
/// `Raw` is a register of [`Simd::WIDTH`] bytes in memory order; methods that end in 32 or 16 take it for
/// lanes of that many bits.
pub(super) trait Simd:
    Copy
    + Lanes<i8, Raw = Self::Register>
    + Lanes<u8, Raw = Self::Register>
    + Lanes<i32, Raw = Self::Register>
    + Lanes<u32, Raw = Self::Register>
    + Lanes<i64, Raw = Self::Register>
    + Lanes<u64, Raw = Self::Register>
{
    /// Bytes of a register: a power of two, at most 64.
    const WIDTH: usize;
    /// A register of bytes.
    type Register: Copy;
    /// A register of `f32`.
    type F32: Copy;
    /// A register of `f64`.
    type F64: Copy;

    /// Reads a register.
    ///
    /// # Safety
    /// `WIDTH` bytes at `from` are readable.
    unsafe fn load(self, from: *const u8) -> Self::Register;
    /// Reads `len` bytes; the others are zero.
    ///
    /// # Safety
    /// `len <= WIDTH` bytes at `from` are readable.
    unsafe fn load_part(self, from: *const u8, len: usize) -> Self::Register;
    /// Writes a register.
    ///
    /// # Safety
    /// `WIDTH` bytes at `into` are writable.
    unsafe fn store(self, into: *mut u8, raw: Self::Register);
    /// Writes the first `len` bytes of a register.
    ///
    /// # Safety
    /// `len <= WIDTH` bytes at `into` are writable.
    unsafe fn store_part(self, into: *mut u8, raw: Self::Register, len: usize);
    /// Writes a register past the caches. [`Simd::fence`] must follow before others are told.
    ///
    /// # Safety
    /// `WIDTH` bytes at `into` are writable, and `into` is a multiple of `WIDTH`.
    unsafe fn stream(self, into: *mut u8, raw: Self::Register);
    /// Orders the streamed stores before every later store.
    fn fence(self);

    fn to_f32(self, raw: Self::Register) -> Self::F32;
    fn of_f32(self, x: Self::F32) -> Self::Register;
    fn splat_f32(self, x: f32) -> Self::F32;
    fn add_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn sub_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn div_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The lesser; NaN if either is; -0 is less than +0.
    fn min_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The greater; NaN if either is; -0 is less than +0.
    fn max_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `x`, but every NaN is the quiet one with no sign and no payload.
    fn canonical_f32(self, x: Self::F32) -> Self::F32;

    fn to_f64(self, raw: Self::Register) -> Self::F64;
    fn of_f64(self, x: Self::F64) -> Self::Register;
    fn splat_f64(self, x: f64) -> Self::F64;
    fn add_f64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    fn mul_f64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    fn div_f64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    /// As [`Simd::min_f32`].
    fn min_f64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    /// As [`Simd::max_f32`].
    fn max_f64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    /// As [`Simd::canonical_f32`].
    fn canonical_f64(self, x: Self::F64) -> Self::F64;

    /// The IEEE half precision numbers in the lower and in the upper half of the register.
    fn widen_f16(self, raw: Self::Register) -> [Self::F32; 2];
    /// The inverse, rounding to nearest even.
    fn narrow_f16(self, halves: [Self::F32; 2]) -> Self::Register;

    fn splat32(self, x: u32) -> Self::Register;
    fn splat16(self, x: u16) -> Self::Register;
    fn and(self, a: Self::Register, b: Self::Register) -> Self::Register;
    fn or(self, a: Self::Register, b: Self::Register) -> Self::Register;
    fn add32(self, a: Self::Register, b: Self::Register) -> Self::Register;
    /// The lesser as unsigned numbers.
    fn min32(self, a: Self::Register, b: Self::Register) -> Self::Register;
    /// The greater as unsigned numbers.
    fn max32(self, a: Self::Register, b: Self::Register) -> Self::Register;
    /// The lesser as unsigned numbers.
    fn min16(self, a: Self::Register, b: Self::Register) -> Self::Register;
    /// `then` in the lanes where `a > b` as signed numbers, `or_else` in the others.
    fn if_greater16(
        self,
        a: Self::Register,
        b: Self::Register,
        then: Self::Register,
        or_else: Self::Register,
    ) -> Self::Register;
    fn shl32<const BY: u32>(self, a: Self::Register) -> Self::Register;
    fn shr32<const BY: u32>(self, a: Self::Register) -> Self::Register;
    fn shl16<const BY: u32>(self, a: Self::Register) -> Self::Register;
    fn shr16<const BY: u32>(self, a: Self::Register) -> Self::Register;
}
