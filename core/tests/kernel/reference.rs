//! Folds in plain arithmetic, one element at a time.

use half::{bf16, f16};
use sohu_coll_core::{DType, ReduceOp};

/// Random elements, with many of the values that are special to their type.
pub(crate) struct Bits(u64);

impl Bits {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn elements(&mut self, dtype: DType, count: usize) -> Vec<u8> {
        (0..count).flat_map(|_| self.element(dtype)).collect()
    }

    fn element(&mut self, dtype: DType) -> Vec<u8> {
        let bits = self.next();
        let special = usize::try_from(self.next() % 64).expect("it is below 64");
        // Of the wide types, random bits alone seldom meet; of the narrow ones they meet everything.
        match dtype {
            DType::F32 => match SPECIAL.get(special) {
                Some(&value) => (value as f32).to_le_bytes().to_vec(),
                None if special < 16 => ((bits as i32 >> 8) as f32).to_le_bytes().to_vec(),
                None => (bits as u32).to_le_bytes().to_vec(),
            },
            DType::F64 => match SPECIAL.get(special) {
                Some(value) => value.to_le_bytes().to_vec(),
                None if special < 16 => (bits.cast_signed() as f64).to_le_bytes().to_vec(),
                None => bits.to_le_bytes().to_vec(),
            },
            _ => bits.to_le_bytes()[..dtype.size()].to_vec(),
        }
    }
}

const SPECIAL: [f64; 8] = [0.0, -0.0, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1.0e-40];

/// What a fold must give, to the bit.
pub(crate) fn expected(dtype: DType, op: ReduceOp, sources: &[Vec<u8>], finish: Option<u32>) -> Vec<u8> {
    let finish = finish.filter(|_| op == ReduceOp::Avg);
    if sources.len() == 1 && finish.is_none() {
        return sources[0].clone();
    }
    let size = dtype.size();
    (0..sources[0].len())
        .step_by(size)
        .flat_map(|at| {
            let values: Vec<&[u8]> = sources.iter().map(|source| &source[at..at + size]).collect();
            element(dtype, op, &values, finish)
        })
        .collect()
}

fn element(dtype: DType, op: ReduceOp, values: &[&[u8]], finish: Option<u32>) -> Vec<u8> {
    match dtype {
        DType::I8 | DType::U8 | DType::I32 | DType::U32 | DType::I64 | DType::U64 => {
            integer(dtype, op, values, finish)
        }
        DType::F64 => {
            let values = values
                .iter()
                .map(|bytes| f64::from_le_bytes((*bytes).try_into().expect("an element has 8 bytes")));
            let result = values.reduce(|a, b| float(op, a, b)).expect("there is a source");
            let result = finish.map_or(result, |ranks| result / f64::from(ranks));
            if result.is_nan() { canonical_nan(dtype) } else { result.to_le_bytes().to_vec() }
        }
        _ => {
            // f64 has more than twice the digits, so rounding a sum or a product twice is rounding it once.
            let fold = |a: f32, b: f32| float(op, f64::from(a), f64::from(b)) as f32;
            let result =
                values.iter().map(|bytes| widen(dtype, bytes)).reduce(fold).expect("there is a source");
            narrow(dtype, finish.map_or(result, |ranks| result / ranks as f32))
        }
    }
}

fn float(op: ReduceOp, a: f64, b: f64) -> f64 {
    match op {
        ReduceOp::Sum | ReduceOp::Avg => a + b,
        ReduceOp::Prod => a * b,
        ReduceOp::Min | ReduceOp::Max if a.is_nan() || b.is_nan() => f64::NAN,
        ReduceOp::PreMulSum | ReduceOp::User => panic!("{op} is no fold by its name"),
        // The total order puts -0 before +0, and NaNs are gone.
        ReduceOp::Min => {
            if a.total_cmp(&b).is_le() {
                a
            } else {
                b
            }
        }
        ReduceOp::Max => {
            if a.total_cmp(&b).is_ge() {
                a
            } else {
                b
            }
        }
    }
}

fn integer(dtype: DType, op: ReduceOp, values: &[&[u8]], finish: Option<u32>) -> Vec<u8> {
    let signed = matches!(dtype, DType::I8 | DType::I32 | DType::I64);
    let size = dtype.size();
    let load = |bytes: &[u8]| {
        let negative = signed && bytes[size - 1] >= 0x80;
        let mut wide = [if negative { 0xff } else { 0 }; 16];
        wide[..size].copy_from_slice(bytes);
        i128::from_le_bytes(wide)
    };
    let result = values
        .iter()
        .map(|bytes| load(bytes))
        .reduce(|a, b| match op {
            ReduceOp::Sum | ReduceOp::Avg => a.wrapping_add(b),
            ReduceOp::Prod => a.wrapping_mul(b),
            ReduceOp::Min => a.min(b),
            ReduceOp::Max => a.max(b),
            ReduceOp::PreMulSum | ReduceOp::User => panic!("{op} is no fold by its name"),
        })
        .expect("there is a source");
    let wrapped = load(&result.to_le_bytes()[..size]);
    let finished = finish.map_or(wrapped, |ranks| wrapped / i128::from(ranks));
    finished.to_le_bytes()[..size].to_vec()
}

pub(crate) fn widen(dtype: DType, bytes: &[u8]) -> f32 {
    match dtype {
        DType::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        DType::Bf16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        DType::F32 => f32::from_le_bytes(bytes.try_into().expect("an element has 4 bytes")),
        DType::Fp8E4m3 => widen_e4m3(bytes[0]),
        DType::Fp8E5m2 => widen_e5m2(bytes[0]),
        _ => panic!("{dtype} is not folded in f32"),
    }
}

fn narrow(dtype: DType, x: f32) -> Vec<u8> {
    if x.is_nan() {
        return canonical_nan(dtype);
    }
    match dtype {
        DType::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
        DType::Bf16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        DType::F32 => x.to_le_bytes().to_vec(),
        DType::Fp8E4m3 => vec![narrow_e4m3(x)],
        DType::Fp8E5m2 => vec![narrow_e5m2(x)],
        _ => panic!("{dtype} is not folded in f32"),
    }
}

pub(crate) fn canonical_nan(dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F16 => 0x7e00_u16.to_le_bytes().to_vec(),
        DType::Bf16 => 0x7fc0_u16.to_le_bytes().to_vec(),
        DType::F32 => 0x7fc0_0000_u32.to_le_bytes().to_vec(),
        DType::F64 => 0x7ff8_0000_0000_0000_u64.to_le_bytes().to_vec(),
        DType::Fp8E4m3 => vec![0x7f],
        DType::Fp8E5m2 => vec![0x7e],
        _ => panic!("{dtype} has no NaN"),
    }
}

pub(crate) fn is_nan(dtype: DType, bytes: &[u8]) -> bool {
    widen(dtype, bytes).is_nan()
}

/// The definition in OCP's specification of 8-bit floats.
fn widen_e4m3(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(byte >> 3 & 0xf), f32::from(byte & 7));
    match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => sign * fraction / 8.0 * 2_f32.powi(-6),
        _ => sign * (1.0 + fraction / 8.0) * 2_f32.powi(exponent - 7),
    }
}

/// The definition in OCP's specification of 8-bit floats.
fn widen_e5m2(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(byte >> 2 & 0x1f), f32::from(byte & 3));
    match (exponent, byte & 3) {
        (31, 0) => sign * f32::INFINITY,
        (31, _) => f32::NAN,
        (0, _) => sign * fraction / 4.0 * 2_f32.powi(-14),
        _ => sign * (1.0 + fraction / 4.0) * 2_f32.powi(exponent - 15),
    }
}

/// Nearest even, saturating at 448.
pub(crate) fn narrow_e4m3(x: f32) -> u8 {
    let limited = x.clamp(-448.0, 448.0);
    if x.is_nan() { 0x7f } else { nearest(limited, 0..=0x7e, widen_e4m3) }
}

/// Nearest even, where infinity takes the place of 65536.
pub(crate) fn narrow_e5m2(x: f32) -> u8 {
    let limited = x.clamp(-65536.0, 65536.0);
    let widen = |code| if code == 0x7c { 65536.0 } else { widen_e5m2(code) };
    if x.is_nan() { 0x7e } else { nearest(limited, 0..=0x7c, widen) }
}

/// The code of the number nearest to `x`; of two equally near, the even one.
fn nearest(x: f32, codes: core::ops::RangeInclusive<u8>, widen: impl Fn(u8) -> f32) -> u8 {
    let distance = |code: u8| (f64::from(widen(code)) - f64::from(x.abs())).abs();
    let magnitude = codes
        .min_by(|&a, &b| distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1))))
        .expect("there is a code");
    if x.is_sign_negative() { magnitude | 0x80 } else { magnitude }
}
