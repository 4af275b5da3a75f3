use super::*;
use crate::parse::OPS;

fn shape(collective: Collective, dtype: DType, op: ReduceOp, ranks: u32, asked: u64) -> Shape {
    Shape::new((collective, dtype, op, 0), ranks, asked)
}

/// What the bits of a float of at most 16 bits mean.
fn decode_small(bits: u16, exponent_bits: u32, mantissa_bits: u32) -> f64 {
    let bias = (1 << (exponent_bits - 1)) - 1;
    let sign = if bits >> (exponent_bits + mantissa_bits) & 1 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> mantissa_bits & ((1 << exponent_bits) - 1));
    let mantissa = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
    match exponent {
        0 => sign * mantissa * f64::from(1 - bias).exp2(),
        _ => sign * (1.0 + mantissa) * f64::from(exponent - bias).exp2(),
    }
}

fn decode(dtype: DType, bytes: &[u8]) -> f64 {
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |word, b| word << 8 | u64::from(*b));
    let bits = word(bytes);
    match dtype {
        DType::I8 => f64::from(bits as u8 as i8),
        DType::I32 => f64::from(bits as u32 as i32),
        DType::I64 => bits as i64 as f64,
        DType::U8 | DType::U32 | DType::U64 => bits as f64,
        DType::F32 => f64::from(f32::from_bits(bits as u32)),
        DType::F64 => f64::from_bits(bits),
        DType::F16 => decode_small(bits as u16, 5, 10),
        DType::Bf16 => decode_small(bits as u16, 8, 7),
        DType::Fp8E4m3 => decode_small(bits as u16, 4, 3),
        DType::Fp8E5m2 => decode_small(bits as u16, 5, 2),
    }
}

fn survives(dtype: DType, value: f64) -> bool {
    let mut bytes = Vec::new();
    encode(dtype, value, &mut bytes);
    bytes.len() == dtype.size() && decode(dtype, &bytes) == value
}

#[test]
fn every_partial_result_is_exact_in_every_type() {
    for dtype in DType::ALL {
        for op in OPS {
            for ranks in [1, 2, 3, 5, 7, 8, 33, 300] {
                let shape = shape(Collective::AllReduce, dtype, op, ranks, 64);
                for j in (0..PERIOD).step_by(7) {
                    let by = |rank| if op == ReduceOp::PreMulSum { factor(rank) } else { 1.0 };
                    let values: Vec<f64> = (0..ranks).map(|rank| by(rank) * value(&shape, rank, j)).collect();
                    let fold = |parts: &[f64]| match op {
                        ReduceOp::Prod => parts.iter().product(),
                        ReduceOp::Min | ReduceOp::Max => parts.iter().copied().fold(parts[0], f64::max),
                        _ => parts.iter().sum::<f64>(),
                    };
                    for cut in 0..values.len() {
                        for part in [&values[..=cut], &values[cut..], &values[cut..=cut]] {
                            assert!(
                                survives(dtype, fold(part)),
                                "{dtype} {op} {ranks} ranks, entry {j}: {part:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn inputs_differ_between_ranks() {
    for op in OPS {
        for dtype in DType::ALL {
            let shape = shape(Collective::AllReduce, dtype, op, 2, 4096);
            let (mine, theirs) = (Table::of_rank(&shape, 0), Table::of_rank(&shape, 1));
            assert_ne!(mine.bytes, theirs.bytes, "{dtype} {op}");
            assert_ne!(mine.bytes, Table::reduced(&shape).bytes, "{dtype} {op}");
        }
    }
}

#[test]
fn small_floats_round_to_the_nearest_even() {
    for (value, bits) in
        [(1.0, 0x38), (0.0, 0), (-2.0, 0xc0), (17.0, 0x58), (19.0, 0x5a), (15.9, 0x58), (0.015_625, 0x08)]
    {
        assert_eq!(small_float(value, 4, 3), bits, "{value}");
    }
    for (value, bits) in [(1.0, 0x3c00), (2048.0, 0x6800), (-1.5, 0xbe00)] {
        assert_eq!(small_float(value, 5, 10), bits, "{value}");
    }
    assert_eq!(small_float(1.0, 8, 7), 0x3f80);
    assert_eq!(small_float(2.0_f64.powi(-16), 5, 2), 0x01);
}

/// The input and the output of `rank` (in place: nothing and the buffer), filled.
fn filled(shape: &Shape, place: Place, rank: u32) -> [Vec<u8>; 2] {
    let [mut input, mut output] = match place {
        Place::Apart => [vec![0; shape.input_bytes()], vec![0; shape.output_bytes()]],
        Place::InPlace => [Vec::new(), vec![0; shape.in_place_bytes(rank)]],
    };
    Pattern::new(*shape, rank).fill(place, &mut input, &mut output);
    [input, output]
}

/// The output of a collective, computed from every rank's input.
fn reference(shape: &Shape, place: Place, rank: u32) -> Vec<u8> {
    let inputs: Vec<Vec<u8>> = (0..shape.ranks)
        .map(|r| {
            let [input, buffer] = filled(shape, place, r);
            if place == Place::Apart { input } else { buffer[shape.input_in_place(r)].to_vec() }
        })
        .collect();
    let element = shape.dtype.size();
    let sum = |at: usize| {
        let parts = inputs.iter().map(|input| decode(shape.dtype, &input[at * element..][..element]));
        let mut bytes = Vec::new();
        encode(shape.dtype, parts.sum(), &mut bytes);
        bytes
    };
    let first = rank as usize * shape.count;
    let own_block = |input: &Vec<u8>| input[first * element..][..shape.count * element].to_vec();
    match shape.collective {
        _ if !shape.gets(rank) => Vec::new(),
        Collective::AllReduce | Collective::Reduce => (0..shape.count).flat_map(sum).collect(),
        Collective::ReduceScatter => (first..first + shape.count).flat_map(sum).collect(),
        Collective::AllGather | Collective::Gather => inputs.concat(),
        Collective::Broadcast => inputs[shape.root as usize].clone(),
        Collective::Scatter => own_block(&inputs[shape.root as usize]),
        Collective::AllToAll => inputs.iter().flat_map(own_block).collect(),
    }
}

/// Every collective at several sizes, as the first, a middle and the last rank see it with the given root.
fn each_shape(root: u32, mut each: impl FnMut(Shape, u32)) {
    for collective in Collective::ALL {
        for ranks in [1, 2, 3, 5] {
            for count in [1, 3, 1020, 1021, 1022, 4099] {
                let call = (collective, DType::F32, ReduceOp::Sum, root % ranks);
                let shape = Shape::new(call, ranks, count * 4 * u64::from(ranks));
                [0, ranks / 2, ranks - 1].into_iter().for_each(|rank| each(shape, rank));
            }
        }
    }
}

#[test]
fn a_right_result_has_no_wrong_element_and_an_untouched_one_is_all_wrong() {
    each_shape(1, |shape, rank| {
        let pattern = Pattern::new(shape, rank);
        for place in [Place::Apart, Place::InPlace] {
            let [_, mut output] = filled(&shape, place, rank);
            let range = match place {
                Place::Apart if !shape.gets(rank) => 0..0,
                Place::Apart => 0..shape.output_bytes(),
                Place::InPlace => shape.output_in_place(rank),
            };
            if place == Place::Apart {
                assert_eq!(pattern.wrong(place, &output), range.len() as u64 / 4, "{shape:?} rank {rank}");
            }
            output[range.clone()].copy_from_slice(&reference(&shape, place, rank));
            assert_eq!(pattern.wrong(place, &output), 0, "{shape:?} {place:?} rank {rank}");
        }
    });
}

#[test]
fn any_other_byte_of_an_output_or_of_what_must_stay_is_a_wrong_element() {
    each_shape(0, |shape, rank| {
        let pattern = Pattern::new(shape, rank);
        for place in [Place::Apart, Place::InPlace] {
            let [_, mut output] = filled(&shape, place, rank);
            let range = match place {
                Place::Apart if !shape.gets(rank) => 0..0,
                Place::Apart => 0..shape.output_bytes(),
                Place::InPlace => shape.output_in_place(rank),
            };
            output[range.clone()].copy_from_slice(&reference(&shape, place, rank));
            for at in [0, range.start, range.end.saturating_sub(1), output.len() - 1] {
                output[at] ^= 1;
                assert_eq!(pattern.wrong(place, &output), 1, "{shape:?} {place:?} rank {rank}, byte {at}");
                output[at] ^= 1;
            }
        }
    });
}

#[test]
fn a_buffer_shifted_by_one_period_is_seen() {
    let table = Table::of_bytes(0, DType::F32);
    let mut bytes = vec![0; 4 * PERIOD * 8];
    table.lay(0, &mut bytes);
    assert_eq!(table.differences(0, &bytes), 0);
    let shifted = &bytes[4 * PERIOD..];
    assert!(table.differences(0, shifted) > 6 * PERIOD as u64);
}

#[test]
fn blocks_of_their_own_lengths_come_from_where_they_should() {
    for element in [DType::F32, DType::U8, DType::F64] {
        let size = element.size();
        let gives = vec![vec![3, 0, 1500], vec![0, 0, 0], vec![1021, 7, 2]];
        let shape = Shape::ragged(element, 3, 0, crate::traffic::Traffic::new(gives.clone(), size));
        let patterns: Vec<Pattern> = (0..3).map(|rank| Pattern::new(shape, rank)).collect();
        let inputs: Vec<Vec<u8>> = (0..3)
            .map(|rank| {
                let [input, output] = shape.apart_bytes(rank);
                let [mut input, mut output] = [vec![0; input], vec![0; output]];
                patterns[rank as usize].fill(Place::Apart, &mut input, &mut output);
                let elements = output.len() as u64 / size as u64;
                assert_eq!(patterns[rank as usize].wrong(Place::Apart, &output), elements);
                input
            })
            .collect();
        for rank in 0..3 {
            let block = |from: usize| {
                let before: usize = gives[from][..rank].iter().sum();
                inputs[from][before * size..][..gives[from][rank] * size].to_vec()
            };
            let mut output = (0..3).flat_map(block).collect::<Vec<u8>>();
            assert_eq!(patterns[rank].wrong(Place::Apart, &output), 0, "{element} rank {rank}");
            if let Some(last) = output.last_mut() {
                *last ^= 1;
                assert_eq!(patterns[rank].wrong(Place::Apart, &output), 1, "{element} rank {rank}");
            }
        }
    }
}
