//! What ranks put in, and what must come out, in plain scalar code that shares nothing with the library's kernels.
//!
//! Inputs are a function of the call, the rank and the element's index. Integers are any bits and wrap; floats are such
//! that every sum, product and average of up to 8 ranks is exact in its type before the one division, so the order in
//! which ranks are folded does not show. Inputs repeat with a period that is prime, so that no offset a transport could be
//! wrong by is a multiple of it.

#[cfg(test)]
mod tests;

use super::draw::{Op, mix};
use sohu_coll::{DType, ReduceOp, Scalar, bf16, f16};
use std::sync::OnceLock;

/// After how many elements an input repeats.
pub(super) const PERIOD: usize = 1021;

/// The inputs of all ranks of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values {
    pub(super) dtype: DType,
    pub(super) op: Op,
    pub(super) salt: u64,
}

impl Values {
    /// The bytes of the first `count` elements of what `rank` puts in.
    pub(super) fn tile(&self, rank: u32, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count * self.dtype.size());
        for index in 0..count {
            match signed(self.dtype) {
                None if self.op.name() != ReduceOp::User => {
                    push_float(self.dtype, self.float(rank, index), &mut bytes);
                }
                _ => push_integer(self.dtype, self.draw(rank, index), &mut bytes),
            }
        }
        bytes
    }

    /// The bytes of the first `count` elements of the reduction over `size` ranks.
    pub(super) fn folded(&self, size: u32, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count * self.dtype.size());
        for index in 0..count {
            if let Some(fold) = self.raw() {
                let all = (0..size).map(|rank| self.draw(rank, index)).reduce(fold);
                push_integer(self.dtype, all.expect("there is a rank"), &mut bytes);
                continue;
            }
            match signed(self.dtype) {
                Some(signed) => push_integer(self.dtype, self.fold_integers(signed, size, index), &mut bytes),
                None => push_float(self.dtype, self.fold_floats(size, index), &mut bytes),
            }
        }
        bytes
    }

    /// The user operation that this is, on the bits of two elements.
    fn raw(&self) -> Option<impl Fn(u64, u64) -> u64 + use<>> {
        let width = 8 * self.dtype.size() as u32;
        let op = self.op;
        (op.name() == ReduceOp::User).then_some(move |a, b| by_bits(op, width, a, b))
    }

    /// Random bits for one element.
    fn draw(&self, rank: u32, index: usize) -> u64 {
        mix(self.salt ^ mix(u64::from(rank) << 32 | (index % PERIOD) as u64))
    }

    /// One element that is a float.
    fn float(&self, rank: u32, index: usize) -> f64 {
        let bits = self.draw(rank, index);
        if self.op.name() == ReduceOp::Prod {
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

    /// What `rank` multiplies its input by in a pre-multiplied sum.
    pub(super) fn scalar(&self, rank: u32) -> Scalar {
        let mut bytes = Vec::new();
        match signed(self.dtype) {
            Some(_) => push_integer(self.dtype, factor(rank) as u64, &mut bytes),
            None => push_float(self.dtype, f64::from(factor(rank)), &mut bytes),
        }
        Scalar::from_bytes(self.dtype, &bytes).expect("one element was pushed")
    }

    fn fold_integers(&self, signed: bool, size: u32, index: usize) -> u64 {
        let wide = |bits: u64| widen(self.dtype, signed, bits);
        let share = |rank| match self.op.name() {
            ReduceOp::PreMulSum => self.draw(rank, index).wrapping_mul(factor(rank) as u64),
            _ => self.draw(rank, index),
        };
        let all = (0..size).map(share);
        let all = match self.op.name() {
            ReduceOp::Prod => all.reduce(u64::wrapping_mul),
            ReduceOp::Min => all.min_by_key(|bits| wide(*bits)),
            ReduceOp::Max => all.max_by_key(|bits| wide(*bits)),
            _ => all.reduce(u64::wrapping_add),
        };
        let all = all.expect("there is a rank");
        if self.op.name() == ReduceOp::Avg { (wide(all) / i128::from(size)) as u64 } else { all }
    }

    fn fold_floats(&self, size: u32, index: usize) -> f64 {
        let by = |rank| if self.op.name() == ReduceOp::PreMulSum { f64::from(factor(rank)) } else { 1.0 };
        let all = (0..size).map(|rank| by(rank) * self.float(rank, index));
        match self.op.name() {
            ReduceOp::Prod => all.product(),
            ReduceOp::Min => all.fold(f64::INFINITY, f64::min),
            ReduceOp::Max => all.fold(f64::NEG_INFINITY, f64::max),
            // Not `sum`, which begins with a negative zero.
            ReduceOp::Sum | ReduceOp::PreMulSum => all.fold(0.0, |a, b| a + b),
            ReduceOp::User => unreachable!("it works on bits"),
            ReduceOp::Avg => {
                let average = all.fold(0.0, |a, b| a + b) / f64::from(size);
                // All but doubles are divided in single precision.
                if self.dtype == DType::F64 { average } else { f64::from(average as f32) }
            }
        }
    }
}

/// A user operation on the bits of two elements of so many bits each.
///
/// Composed, the low half of an element (which counts as odd) is what a map multiplies by, the high half what it adds, and
/// the map of the left element comes first: grouping does not matter, order does.
pub(super) fn by_bits(op: Op, width: u32, left: u64, right: u64) -> u64 {
    if op == Op::Xor {
        return left ^ right;
    }
    let half = width / 2;
    let mask = (1 << half) - 1;
    let [(times, plus), (then_times, then_plus)] =
        [left, right].map(|bits| (bits & mask | 1, bits >> half & mask));
    let low = times.wrapping_mul(then_times) & mask;
    let high = plus.wrapping_mul(then_times).wrapping_add(then_plus) & mask;
    high << half | low
}

/// What a rank multiplies its input by in a pre-multiplied sum. Twos keep sums as exact as they are.
fn factor(rank: u32) -> i32 {
    if rank.is_multiple_of(2) { 2 } else { -2 }
}

/// Whether the type is an integer with a sign; `None` for floats.
fn signed(dtype: DType) -> Option<bool> {
    match dtype {
        DType::I8 | DType::I32 | DType::I64 => Some(true),
        DType::U8 | DType::U32 | DType::U64 => Some(false),
        DType::F16 | DType::Bf16 | DType::F32 | DType::F64 | DType::Fp8E4m3 | DType::Fp8E5m2 => None,
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
        DType::F16 => bytes.extend_from_slice(&f16::from_f32(value as f32).to_le_bytes()),
        DType::Bf16 => bytes.extend_from_slice(&bf16::from_f32(value as f32).to_le_bytes()),
        DType::Fp8E4m3 => bytes.push(tiny(3).encode(value)),
        _ => bytes.push(tiny(2).encode(value)),
    }
}

/// A float of 8 bits, by the values of its codes without a sign, which are in the order of the codes.
struct Tiny {
    values: Vec<f64>,
}

/// The type with so many bits of mantissa: OCP E4M3 or E5M2.
fn tiny(mantissa_bits: u32) -> &'static Tiny {
    static E5M2: OnceLock<Tiny> = OnceLock::new();
    static E4M3: OnceLock<Tiny> = OnceLock::new();
    let (place, largest) = if mantissa_bits == 2 { (&E5M2, 0x7b) } else { (&E4M3, 0x7e) };
    place.get_or_init(|| Tiny { values: (0..=largest).map(|code| tiny_value(mantissa_bits, code)).collect() })
}

fn tiny_value(mantissa_bits: u32, code: u8) -> f64 {
    let bias = (1 << (6 - mantissa_bits)) - 1;
    let exponent = i32::from(code >> mantissa_bits);
    let steps = f64::from(1u32 << mantissa_bits);
    let fraction = f64::from(code & ((1 << mantissa_bits) - 1)) / steps;
    match exponent {
        0 => fraction * 2f64.powi(1 - bias),
        _ => (1.0 + fraction) * 2f64.powi(exponent - bias),
    }
}

impl Tiny {
    /// The code nearest to a number that is not beyond the largest; of two as near, the even one.
    fn encode(&self, value: f64) -> u8 {
        let (sign, size) = (if value.is_sign_negative() { 0x80 } else { 0 }, value.abs());
        let above = self.values.partition_point(|known| *known < size);
        let high = *self.values.get(above).expect("what ranks put in is chosen not to be too large");
        let code = match above.checked_sub(1) {
            Some(below) => {
                let (down, up) = (size - self.values[below], high - size);
                let nearer_below = down < up || (down == up && below.is_multiple_of(2));
                if nearer_below { below } else { above }
            }
            None => above,
        };
        sign | code as u8
    }
}

/// Fills `bytes` with the repeated `tile`, starting at its element `phase`.
pub(super) fn fill(bytes: &mut [u8], tile: &[u8], element: usize, phase: usize) {
    let mut from = (phase % PERIOD) * element;
    let mut rest = bytes;
    while !rest.is_empty() {
        let take = (tile.len() - from).min(rest.len());
        let (now, later) = rest.split_at_mut(take);
        now.copy_from_slice(&tile[from..from + take]);
        (rest, from) = (later, 0);
    }
}

/// The first byte of `bytes` that is not what [`fill`] would have put there, and what that would have been.
pub(super) fn first_difference(
    bytes: &[u8],
    tile: &[u8],
    element: usize,
    phase: usize,
) -> Option<(usize, u8)> {
    let mut at = 0;
    let mut from = (phase % PERIOD) * element;
    while at < bytes.len() {
        let take = (tile.len() - from).min(bytes.len() - at);
        let (found, expected) = (&bytes[at..at + take], &tile[from..from + take]);
        if found != expected {
            let byte = found.iter().zip(expected).position(|(a, b)| a != b)?;
            return Some((at + byte, expected[byte]));
        }
        (at, from) = (at + take, 0);
    }
    None
}
