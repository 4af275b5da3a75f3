//! Data whose right result is known: what each rank puts in, and what must come out.
//!
//! Element i of a buffer is taken from a short table, rotated differently in every period, so that data is made and
//! compared at the speed of memory, and bytes that come from the wrong place are seen. Reductions use small integers
//! whose every partial result is exact in the element type, whatever the order: any right implementation gives these
//! very bits. What only moves bytes uses random ones, different on every rank.
//!
//! Invariant: [`Pattern::fill`] leaves no byte of the output as it must become (where input and output do not overlap), so that
//! an element nobody wrote is counted as wrong. What must stay as it was is known as well, and counted where it does not.

use crate::geometry::Shape;
use sohu_coll::{Collective, DType, ReduceOp, Scalar};
use std::ops::Range;

/// Elements of a table: a prime, so that rotation never falls in step with chunks.
const PERIOD: usize = 1021;

/// Whether input and output are two buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// They are.
    Apart,
    /// They are one, laid out as NCCL wants it.
    InPlace,
}

/// A run of elements of one table.
struct Part {
    table: Table,
    /// The element it starts with.
    first: usize,
    bytes: usize,
}

/// The data of one shape on one rank.
pub(crate) struct Pattern {
    shape: Shape,
    rank: u32,
    /// What this rank puts in.
    input: Table,
    /// What comes out, part after part; none where nothing does.
    output: Vec<Part>,
    /// What lies in an output that must not be touched.
    untouched: Table,
}

impl Pattern {
    /// The data of `rank`.
    pub(crate) fn new(shape: Shape, rank: u32) -> Self {
        let bytes = |rank| Table::of_bytes(rank, shape.dtype);
        let input = if shape.collective.reduces() { Table::of_rank(&shape, rank) } else { bytes(rank) };
        let own_block = rank as usize * shape.count;
        let (tables, first) = match shape.collective {
            _ if !shape.gets(rank) || shape.traffic.is_some() => (Vec::new(), 0),
            Collective::AllReduce | Collective::Reduce => (vec![Table::reduced(&shape)], 0),
            Collective::ReduceScatter => (vec![Table::reduced(&shape)], own_block),
            Collective::AllGather | Collective::Gather => ((0..shape.ranks).map(bytes).collect(), 0),
            Collective::Broadcast => (vec![bytes(shape.root)], 0),
            Collective::Scatter => (vec![bytes(shape.root)], own_block),
            Collective::AllToAll => ((0..shape.ranks).map(bytes).collect(), own_block),
        };
        let part = shape.output_in_place(rank).len() / tables.len().max(1);
        let mut output: Vec<Part> =
            tables.into_iter().map(|table| Part { table, first, bytes: part }).collect();
        if let Some(traffic) = shape.traffic {
            let got = (0..).zip(traffic.gets(rank));
            let part = |(from, bytes)| Part {
                table: Table::of_bytes(from, shape.dtype),
                first: traffic.before(from, rank),
                bytes,
            };
            output = got.map(part).collect();
        }
        // Bytes that no rank has, so that whatever is written there is seen.
        let untouched = bytes(shape.ranks + rank);
        Self { shape, rank, input, output, untouched }
    }

    /// Writes this rank's input, and into the output what must not stay there (or must, where nothing comes out).
    pub(crate) fn fill(&self, place: Place, input: &mut [u8], output: &mut [u8]) {
        match place {
            Place::Apart if self.output.is_empty() => self.untouched.lay(0, output),
            Place::Apart => self.spoil(output),
            Place::InPlace => self.spoil(&mut output[self.shape.output_in_place(self.rank)]),
        }
        match place {
            Place::Apart => self.input.lay(0, input),
            Place::InPlace => self.input.lay(0, &mut output[self.shape.input_in_place(self.rank)]),
        }
    }

    /// How many elements of the output (in place: of the whole buffer) are not what they must be.
    pub(crate) fn wrong(&self, place: Place, output: &[u8]) -> u64 {
        match place {
            Place::Apart if self.output.is_empty() => self.untouched.differences(0, output),
            Place::Apart => self.wrong_output(output),
            Place::InPlace => {
                let range = self.shape.output_in_place(self.rank);
                self.wrong_output(&output[range.clone()]) + self.wrong_rest(range, output)
            }
        }
    }

    fn wrong_output(&self, output: &[u8]) -> u64 {
        let mut rest = output;
        let mut wrong = 0;
        for part in &self.output {
            let (got, after) = rest.split_at(part.bytes);
            wrong += part.table.differences(part.first, got);
            rest = after;
        }
        wrong
    }

    /// In place, input that the output does not lie upon stays.
    fn wrong_rest(&self, output: Range<usize>, buffer: &[u8]) -> u64 {
        let input = self.shape.input_in_place(self.rank);
        let before = input.start..output.start.clamp(input.start, input.end);
        let after = output.end.clamp(before.end, input.end)..input.end;
        let stays = |bytes: Range<usize>| {
            let first = (bytes.start - input.start) / self.shape.dtype.size();
            self.input.differences(first, &buffer[bytes])
        };
        stays(before) + stays(after)
    }

    fn spoil(&self, output: &mut [u8]) {
        let mut rest = &mut *output;
        for part in &self.output {
            let (bytes, after) = rest.split_at_mut(part.bytes);
            part.table.lay(part.first, bytes);
            rest = after;
        }
        output.iter_mut().for_each(|byte| *byte = !*byte);
    }
}

/// One period of elements, twice, so that every rotation of it is one piece.
struct Table {
    element: usize,
    bytes: Vec<u8>,
}

impl Table {
    fn new(dtype: DType, mut value: impl FnMut(usize) -> f64) -> Self {
        let mut bytes = Vec::with_capacity(2 * PERIOD * dtype.size());
        for j in 0..PERIOD {
            encode(dtype, value(j), &mut bytes);
        }
        bytes.extend_from_within(..);
        Self { element: dtype.size(), bytes }
    }

    /// What `rank` puts into a reduction.
    fn of_rank(shape: &Shape, rank: u32) -> Self {
        Self::new(shape.dtype, |j| value(shape, rank, j))
    }

    /// What comes out of a reduction.
    fn reduced(shape: &Shape) -> Self {
        Self::new(shape.dtype, |j| reduced(shape, j))
    }

    /// What `rank` puts into a collective that only moves bytes.
    fn of_bytes(rank: u32, dtype: DType) -> Self {
        let random = |j| mix(u64::from(rank) << 32 | j as u64).to_le_bytes();
        let mut bytes: Vec<u8> = (0..PERIOD).flat_map(|j| random(j).into_iter().take(dtype.size())).collect();
        bytes.extend_from_within(..);
        Self { element: dtype.size(), bytes }
    }

    /// Writes elements `first..` into `into`.
    fn lay(&self, first: usize, into: &mut [u8]) {
        self.pieces(first, into.len(), |at, piece| into[at..at + piece.len()].copy_from_slice(piece));
    }

    /// Counts the elements of `got` that are not elements `first..`.
    fn differences(&self, first: usize, got: &[u8]) -> u64 {
        let mut count = 0;
        self.pieces(first, got.len(), |at, piece| {
            let got = &got[at..at + piece.len()];
            if got != piece {
                let pairs = got.chunks_exact(self.element).zip(piece.chunks_exact(self.element));
                count += pairs.filter(|(got, right)| got != right).count() as u64;
            }
        });
        count
    }

    /// Walks `len` bytes of elements from `first` on, period by period: where in them, and what belongs there.
    fn pieces(&self, first: usize, len: usize, mut each: impl FnMut(usize, &[u8])) {
        let mut at = 0;
        while at < len {
            let index = first + at / self.element;
            let (period, within) = (index / PERIOD, index % PERIOD);
            let start = (mix(period as u64) as usize % PERIOD + within) * self.element;
            let bytes = ((PERIOD - within) * self.element).min(len - at);
            each(at, &self.bytes[start..start + bytes]);
            at += bytes;
        }
    }
}

/// Spreads the bits of a number (the finisher of SplitMix64).
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The greatest integer up to which every integer is exact in the type (or a million, which is enough).
fn exact_max(dtype: DType) -> u64 {
    match dtype {
        DType::Fp8E5m2 => 8,
        DType::Fp8E4m3 => 16,
        DType::I8 => 127,
        DType::U8 => 255,
        DType::Bf16 => 256,
        DType::F16 => 2048,
        DType::I32 | DType::U32 | DType::I64 | DType::U64 | DType::F32 | DType::F64 => 1 << 20,
    }
}

/// The greatest power of two that products may reach.
fn power_max(dtype: DType) -> u64 {
    match dtype {
        DType::I8 => 6,
        DType::U8 | DType::Fp8E4m3 => 7,
        DType::F16 | DType::Fp8E5m2 => 14,
        _ => 30,
    }
}

fn signed(dtype: DType) -> bool {
    !matches!(dtype, DType::U8 | DType::U32 | DType::U64)
}

fn integer(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::U8 | DType::I32 | DType::U32 | DType::I64 | DType::U64)
}

/// What `rank` puts into entry `j` of a reduction's table. Every partial result of any subset of ranks is exact.
fn value(shape: &Shape, rank: u32, j: usize) -> f64 {
    let (ranks, rank) = (u64::from(shape.ranks), u64::from(rank));
    let max = exact_max(shape.dtype);
    let noise = mix(rank << 32 | j as u64);
    let turn = (rank + j as u64) % ranks;
    // A number from -most to most, or from 0 where there is no sign.
    let upto = |most: u64| match signed(shape.dtype) {
        true => (noise % (2 * most + 1)) as f64 - most as f64,
        false => (noise % (most + 1)) as f64,
    };
    match shape.op {
        ReduceOp::Min | ReduceOp::Max => upto(max),
        ReduceOp::Sum if max >= ranks => upto(max / ranks),
        ReduceOp::Sum => f64::from(u8::from(turn < max)),
        // Some ranks double what they put in.
        ReduceOp::PreMulSum if max / 2 >= ranks => upto(max / 2 / ranks),
        ReduceOp::PreMulSum => f64::from(u8::from(turn < max / 2)),
        ReduceOp::Prod => {
            let twos = mix(j as u64) % (power_max(shape.dtype).min(ranks) + 1);
            if turn < twos { 2.0 } else { 1.0 }
        }
        // A sum that the number of ranks divides: equal numbers, but for one more here and one less there.
        ReduceOp::Avg if max > ranks => {
            let base = 1 + mix(j as u64) % ((max - 1) / ranks);
            let more = f64::from(u8::from(turn == 0));
            let less = f64::from(u8::from(turn == ranks / 2));
            base as f64 + more - less
        }
        ReduceOp::Avg => f64::from(u8::from(turn == 0)) * max as f64,
        ReduceOp::User => unreachable!("no flag asks for a user operation"),
    }
}

/// What `rank` multiplies its input by, in a pre-multiplied sum.
fn factor(rank: u32) -> f64 {
    f64::from(1 + rank % 2)
}

/// The same, as an element.
pub(crate) fn scalar(dtype: DType, rank: u32) -> Scalar {
    let mut bytes = Vec::new();
    encode(dtype, factor(rank), &mut bytes);
    Scalar::from_bytes(dtype, &bytes).expect("one element was encoded")
}

/// What comes out at entry `j` of a reduction's table, before it is rounded to the type.
fn reduced(shape: &Shape, j: usize) -> f64 {
    let values = (0..shape.ranks).map(|rank| value(shape, rank, j));
    match shape.op {
        ReduceOp::Sum => values.sum(),
        ReduceOp::Prod => values.product(),
        ReduceOp::Min => values.fold(f64::INFINITY, f64::min),
        ReduceOp::Max => values.fold(f64::NEG_INFINITY, f64::max),
        ReduceOp::Avg => {
            let mean = values.sum::<f64>() / f64::from(shape.ranks);
            if integer(shape.dtype) { mean.trunc() } else { mean }
        }
        ReduceOp::PreMulSum => (0..shape.ranks).map(|rank| factor(rank) * value(shape, rank, j)).sum(),
        ReduceOp::User => unreachable!("no flag asks for a user operation"),
    }
}

/// Appends `value` as one element of the type, rounded to the nearest.
fn encode(dtype: DType, value: f64, into: &mut Vec<u8>) {
    match dtype {
        DType::I8 => into.extend((value as i8).to_le_bytes()),
        DType::U8 => into.push(value as u8),
        DType::I32 => into.extend((value as i32).to_le_bytes()),
        DType::U32 => into.extend((value as u32).to_le_bytes()),
        DType::I64 => into.extend((value as i64).to_le_bytes()),
        DType::U64 => into.extend((value as u64).to_le_bytes()),
        DType::F32 => into.extend((value as f32).to_le_bytes()),
        DType::F64 => into.extend(value.to_le_bytes()),
        DType::F16 => into.extend(small_float(value, 5, 10).to_le_bytes()),
        DType::Bf16 => into.extend(small_float(value, 8, 7).to_le_bytes()),
        DType::Fp8E4m3 => into.push(small_float(value, 4, 3) as u8),
        DType::Fp8E5m2 => into.push(small_float(value, 5, 2) as u8),
    }
}

/// The bits of a float of at most 16 bits nearest to `value`, which is in its range.
fn small_float(value: f64, exponent_bits: u32, mantissa_bits: u32) -> u16 {
    if value == 0.0 {
        return 0;
    }
    let bias = (1 << (exponent_bits - 1)) - 1;
    let exponent = ((value.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(1 - bias);
    let scaled = value.abs() * f64::from(mantissa_bits as i32 - exponent).exp2();
    // The leading one of the mantissa is not stored; where rounding carries it upwards, it adds to the exponent.
    let mantissa = scaled.round_ties_even() as i32 - (1 << mantissa_bits);
    let magnitude = ((exponent + bias) << mantissa_bits) + mantissa;
    let sign = u16::from(value < 0.0) << (exponent_bits + mantissa_bits);
    sign | magnitude as u16
}

#[cfg(test)]
mod tests;
