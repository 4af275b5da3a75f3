//! Element types and reduction operations.

use core::fmt;
use serde::{Deserialize, Serialize};

/// The type of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum DType {
    /// Signed byte.
    I8 = 1,
    /// Unsigned byte.
    U8,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// 8-bit float, 4 exponent bits, no infinities (OCP E4M3).
    Fp8E4m3,
    /// 8-bit float, 5 exponent bits (OCP E5M2).
    Fp8E5m2,
}

impl DType {
    /// Every type there is.
    pub const ALL: [DType; 12] = [
        Self::I8,
        Self::U8,
        Self::I32,
        Self::U32,
        Self::I64,
        Self::U64,
        Self::F16,
        Self::Bf16,
        Self::F32,
        Self::F64,
        Self::Fp8E4m3,
        Self::Fp8E5m2,
    ];

    /// Bytes of one element.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Fp8E4m3 | Self::Fp8E5m2 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// The name nccl-tests uses: `float`, `bfloat16`, `f8e4m3`.
    pub fn name(self) -> &'static str {
        match self {
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::I32 => "int32",
            Self::U32 => "uint32",
            Self::I64 => "int64",
            Self::U64 => "uint64",
            Self::F16 => "half",
            Self::Bf16 => "bfloat16",
            Self::F32 => "float",
            Self::F64 => "double",
            Self::Fp8E4m3 => "f8e4m3",
            Self::Fp8E5m2 => "f8e5m2",
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|d| *d as u8 == code)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How elements are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum ReduceOp {
    /// The sum.
    Sum = 1,
    /// The product.
    Prod,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The sum divided by the number of ranks (integers truncate towards zero).
    Avg,
    /// The sum of what every rank's input is times a [`Scalar`] of its own. Not complete by its name: a call gives the
    /// scalar.
    PreMulSum,
    /// A function of the caller's. Not complete by its name: a call gives the function, and its
    /// [`signature`](crate::Signature) a tag of the function's name.
    User = 0x80,
}

impl ReduceOp {
    /// Every operation that is complete by its name.
    pub const ALL: [ReduceOp; 5] = [Self::Sum, Self::Prod, Self::Min, Self::Max, Self::Avg];

    /// Whether a call must give something besides the name.
    #[inline]
    pub fn is_open(self) -> bool {
        self as u8 > Self::Avg as u8
    }

    /// The name nccl-tests uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Prod => "prod",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
            Self::PreMulSum => "mulsum",
            Self::User => "user operation",
        }
    }

    /// The operation of a signature's byte; the low bits of a user operation are of its tag.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        match code {
            _ if code & Self::User as u8 != 0 => Some(Self::User),
            _ if code == Self::PreMulSum as u8 => Some(Self::PreMulSum),
            _ => Self::ALL.into_iter().find(|o| *o as u8 == code),
        }
    }
}

impl fmt::Display for ReduceOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that a collective can move and reduce. Sealed: the types are those of [`DType`].
pub trait Element: bytemuck::Pod + sealed::Sealed + Send + Sync {
    /// Its name among the types.
    const DTYPE: DType;
}

/// One element, whatever its type: what a rank multiplies its input by in a [pre-multiplied sum](ReduceOp::PreMulSum).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scalar {
    dtype: DType,
    /// The element's bytes, repeated.
    pattern: [u8; 8],
}

impl Scalar {
    /// An element.
    #[inline]
    pub fn of<T: Element>(value: T) -> Self {
        Self::repeated(T::DTYPE, bytemuck::bytes_of(&value))
    }

    /// The element that these bytes are, in the order of this machine; `None` if they are not as long as one.
    pub fn from_bytes(dtype: DType, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == dtype.size()).then(|| Self::repeated(dtype, bytes))
    }

    fn repeated(dtype: DType, bytes: &[u8]) -> Self {
        let mut pattern = [0; 8];
        pattern.chunks_exact_mut(bytes.len()).for_each(|place| place.copy_from_slice(bytes));
        Self { dtype, pattern }
    }

    /// Its type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its bytes, repeated to the length of the longest type.
    pub fn pattern(&self) -> [u8; 8] {
        self.pattern
    }
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {$(
        impl sealed::Sealed for $rust {}
        impl Element for $rust {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}

elements! {
    i8 => I8, u8 => U8, i32 => I32, u32 => U32, i64 => I64, u64 => U64,
    half::f16 => F16, half::bf16 => Bf16, f32 => F32, f64 => F64,
    E4m3 => Fp8E4m3, E5m2 => Fp8E5m2,
}

/// The bits of an 8-bit float with 4 exponent bits (OCP E4M3: largest 448, one NaN, no infinity).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct E4m3(pub u8);

/// The bits of an 8-bit float with 5 exponent bits (OCP E5M2: largest 57344, infinities, NaNs).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct E5m2(pub u8);
