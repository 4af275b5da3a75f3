//! What ranks put in, and what must come out: inputs are a function of (rank, index), and the reference is computed by
//! every rank for itself, element by element, in plain scalar code.
//!
//! Inputs repeat with a period that is prime, so that no offset a transport could be wrong by is a multiple of it, and a
//! reference for a long vector costs no more than one for a short one.

use super::exact::{E4M3, E5M2, Tiny};
use sohu_coll::{DType, ReduceOp, bf16, f16};

/// After how many elements an input repeats.
pub(crate) const PERIOD: usize = 1021;

/// Which numbers are put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Integers of any size; floats for which every result at up to 8 ranks is exact, in any order.
    Exact,
    /// Floats with all their digits: what comes out depends on order and rounding.
    Rounded,
}

/// The inputs of all ranks of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values {
    pub(crate) dtype: DType,
    pub(crate) op: ReduceOp,
    pub(crate) kind: Kind,
    /// Differs from call to call, so that bytes of an earlier one are wrong in this one.
    pub(crate) salt: u64,
}

impl Values {
    /// The bytes of the first `count` elements of what `rank` puts in.
    pub(crate) fn tile(&self, rank: u32, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count * self.dtype.size());
        for index in 0..count {
            match integer(self.dtype) {
                Some(_) => push_integer(self.dtype, self.draw(rank, index), &mut bytes),
                None => push_float(self.dtype, self.float(rank, index), &mut bytes),
            }
        }
        bytes
    }

    /// The bytes of the first `count` elements of the reduction over `size` ranks: folded in the order of the ranks,
    /// rounded to the element type once.
    pub(crate) fn reduced(&self, size: u32, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count * self.dtype.size());
        for index in 0..count {
            match integer(self.dtype) {
                Some(signed) => push_integer(self.dtype, self.fold_integers(signed, size, index), &mut bytes),
                None => push_float(self.dtype, self.fold_floats(size, index), &mut bytes),
            }
        }
        bytes
    }

    /// What `rank` multiplies its input by, in a pre-multiplied sum: an element's bytes.
    pub(crate) fn scalar(&self, rank: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        match integer(self.dtype) {
            Some(_) => push_integer(self.dtype, self.factor_bits(rank), &mut bytes),
            None => push_float(self.dtype, self.factor(rank), &mut bytes),
        }
        bytes
    }

    fn factor_bits(&self, rank: u32) -> u64 {
        self.draw(rank, PERIOD - 1) | 1
    }

    /// As [`scalar`](Self::scalar), for floats: one that keeps exact results exact.
    fn factor(&self, rank: u32) -> f64 {
        let sign = if rank.is_multiple_of(3) { -1.0 } else { 1.0 };
        let few_digits = matches!(self.dtype, DType::Bf16 | DType::Fp8E4m3 | DType::Fp8E5m2);
        match self.kind {
            Kind::Exact if few_digits => 2.0 * sign,
            Kind::Exact => f64::from(1 + rank % 2) * sign,
            Kind::Rounded => held(self.dtype, sign * (0.6 + 0.1 * f64::from(rank))),
        }
    }

    /// What `rank` adds to a reduction: its input, or its input times its scalar, rounded.
    fn share(&self, rank: u32, index: usize) -> f64 {
        let own = self.float(rank, index);
        // The product of two numbers of at most 24 bits is exact in double precision.
        if self.op == ReduceOp::PreMulSum { held(self.dtype, own * self.factor(rank)) } else { own }
    }

    /// How far from the exact result an element may be when ranks fold in another order and round at every
    /// step; sums and averages only.
    pub(crate) fn tolerance(&self, size: u32, index: usize) -> f64 {
        let (digits, least) = match self.dtype {
            DType::F64 => (52, 0.0),
            DType::F32 => (23, 0.0),
            DType::F16 => (10, 2f64.powi(-24)),
            DType::Bf16 => (7, 0.0),
            DType::Fp8E4m3 => (3, 2f64.powi(-9)),
            _ => (2, 2f64.powi(-16)),
        };
        let all: f64 = (0..size).map(|rank| self.share(rank, index).abs()).sum();
        f64::from(size) * (all * 2f64.powi(-digits) + least)
    }

    /// Random bits for one element.
    fn draw(&self, rank: u32, index: usize) -> u64 {
        let seed = self.salt << 40 ^ u64::from(rank) << 20 ^ (index % PERIOD) as u64;
        // The finisher of splitmix64.
        let a = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let b = (a ^ a >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let c = (b ^ b >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        c ^ c >> 31
    }

    /// One element that is a float, as the element type holds it.
    fn float(&self, rank: u32, index: usize) -> f64 {
        let bits = self.draw(rank, index);
        if self.kind == Kind::Rounded {
            let unit = (bits >> 11) as f64 / (1u64 << 53) as f64;
            let value = unit * 4.0 - 2.0;
            return held(self.dtype, if self.dtype == DType::F64 { value } else { f64::from(value as f32) });
        }
        if self.op == ReduceOp::Prod {
            return [-2.0, -1.0, 1.0, 2.0][bits as usize % 4];
        }
        // Sums of 8 such have no more digits than the type's mantissa.
        let most = match self.dtype {
            DType::Fp8E5m2 => 1,
            DType::Fp8E4m3 => 2,
            DType::Bf16 => 30,
            _ => 100,
        };
        (bits % (2 * most + 1)) as f64 - most as f64
    }

    fn fold_integers(&self, signed: bool, size: u32, index: usize) -> u64 {
        let wide = |bits: u64| widen(self.dtype, signed, bits);
        let fold = |a: u64, b: u64| match self.op {
            ReduceOp::Prod => a.wrapping_mul(b),
            ReduceOp::Min => {
                if wide(b) < wide(a) {
                    b
                } else {
                    a
                }
            }
            ReduceOp::Max => {
                if wide(b) > wide(a) {
                    b
                } else {
                    a
                }
            }
            _ => a.wrapping_add(b),
        };
        let share = |rank| match self.op {
            ReduceOp::PreMulSum => self.draw(rank, index).wrapping_mul(self.factor_bits(rank)),
            _ => self.draw(rank, index),
        };
        let all = (0..size).map(share).reduce(fold).expect("there is a rank");
        if self.op == ReduceOp::Avg { (wide(all) / i128::from(size)) as u64 } else { all }
    }

    fn fold_floats(&self, size: u32, index: usize) -> f64 {
        let inputs = (0..size).map(|rank| self.share(rank, index));
        if self.dtype == DType::F64 {
            let all = inputs.reduce(|a, b| fold_pair(self.op, a, b)).expect("there is a rank");
            return if self.op == ReduceOp::Avg { all / f64::from(size) } else { all };
        }
        // Every other type is folded in single precision; two single numbers have an exact sum or product in double
        // precision, or one whose second rounding changes nothing.
        let single = |a: f64, b: f64| f64::from(fold_pair(self.op, a, b) as f32);
        let all = inputs.reduce(single).expect("there is a rank");
        if self.op == ReduceOp::Avg { f64::from((all / f64::from(size)) as f32) } else { all }
    }
}

fn fold_pair(op: ReduceOp, a: f64, b: f64) -> f64 {
    match op {
        ReduceOp::Prod => a * b,
        ReduceOp::Min => a.min(b),
        ReduceOp::Max => a.max(b),
        _ => a + b,
    }
}

/// Whether the type is an integer with a sign; `None` for floats.
fn integer(dtype: DType) -> Option<bool> {
    match dtype {
        DType::I8 | DType::I32 | DType::I64 => Some(true),
        DType::U8 | DType::U32 | DType::U64 => Some(false),
        _ => None,
    }
}

/// The number that the low bits are.
fn widen(dtype: DType, signed: bool, bits: u64) -> i128 {
    let unused = 64 - 8 * dtype.size() as u32;
    let high = bits << unused;
    if signed { i128::from(high.cast_signed() >> unused) } else { i128::from(high >> unused) }
}

fn push_integer(dtype: DType, bits: u64, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&bits.to_le_bytes()[..dtype.size()]);
}

fn push_float(dtype: DType, value: f64, bytes: &mut Vec<u8>) {
    match dtype {
        DType::F64 => bytes.extend_from_slice(&value.to_le_bytes()),
        DType::F32 => bytes.extend_from_slice(&(value as f32).to_le_bytes()),
        // From single precision, which holds the value: `half` looks at the upper half of a double only, and takes
        // numbers just beside the middle between two results for the middle.
        DType::F16 => bytes.extend_from_slice(&f16::from_f32(value as f32).to_le_bytes()),
        DType::Bf16 => bytes.extend_from_slice(&bf16::from_f32(value as f32).to_le_bytes()),
        _ => bytes.push(tiny(dtype).encode(value)),
    }
}

/// The float in the first bytes.
pub(crate) fn float_at(dtype: DType, bytes: &[u8]) -> f64 {
    match dtype {
        DType::F64 => f64::from_le_bytes(*bytes.first_chunk().expect("8 bytes")),
        DType::F32 => f64::from(f32::from_le_bytes(*bytes.first_chunk().expect("4 bytes"))),
        DType::F16 => f16::from_le_bytes(*bytes.first_chunk().expect("2 bytes")).to_f64(),
        DType::Bf16 => bf16::from_le_bytes(*bytes.first_chunk().expect("2 bytes")).to_f64(),
        _ => tiny(dtype).decode(bytes[0]),
    }
}

/// The number that is left of `value` in the type.
fn held(dtype: DType, value: f64) -> f64 {
    let mut bytes = Vec::new();
    push_float(dtype, value, &mut bytes);
    float_at(dtype, &bytes)
}

fn tiny(dtype: DType) -> Tiny {
    if dtype == DType::Fp8E4m3 { E4M3 } else { E5M2 }
}

/// Fills `bytes` with the repeated `tile`, starting at its element `phase`.
pub(crate) fn fill(bytes: &mut [u8], tile: &[u8], element: usize, phase: usize) {
    let mut at = 0;
    let mut from = (phase % PERIOD) * element;
    while at < bytes.len() {
        let take = (tile.len() - from).min(bytes.len() - at);
        bytes[at..at + take].copy_from_slice(&tile[from..from + take]);
        at += take;
        from = 0;
    }
}

/// The first element of `bytes` that is not what [`fill`] would have put there.
pub(crate) fn first_difference(bytes: &[u8], tile: &[u8], element: usize, phase: usize) -> Option<usize> {
    let mut at = 0;
    let mut from = (phase % PERIOD) * element;
    while at < bytes.len() {
        let take = (tile.len() - from).min(bytes.len() - at);
        let (found, expected) = (&bytes[at..at + take], &tile[from..from + take]);
        if found != expected {
            let byte = found.iter().zip(expected).position(|(a, b)| a != b)?;
            return Some((at + byte) / element);
        }
        at += take;
        from = 0;
    }
    None
}
