use super::*;

/// The value of one element that is a float, by another way than encoding.
fn decode(dtype: DType, bytes: &[u8]) -> f64 {
    let tiny = |mantissa_bits| {
        let size = tiny_value(mantissa_bits, bytes[0] & 0x7f);
        if bytes[0] & 0x80 == 0 { size } else { -size }
    };
    match dtype {
        DType::F64 => f64::from_le_bytes(bytes.try_into().unwrap()),
        DType::F32 => f32::from_le_bytes(bytes.try_into().unwrap()).into(),
        DType::F16 => f16::from_le_bytes(bytes.try_into().unwrap()).into(),
        DType::Bf16 => bf16::from_le_bytes(bytes.try_into().unwrap()).into(),
        DType::Fp8E4m3 => tiny(3),
        _ => tiny(2),
    }
}

const FLOATS: [DType; 6] = [DType::F16, DType::Bf16, DType::F32, DType::F64, DType::Fp8E4m3, DType::Fp8E5m2];

#[test]
fn every_order_of_folding_floats_is_exact_in_their_type() {
    for dtype in FLOATS {
        for op in [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Min, ReduceOp::Max] {
            let values = Values { dtype, op: Op::Known(op), salt: 9 };
            let element = dtype.size();
            let folded = values.folded(8, PERIOD);
            for index in 0..PERIOD {
                // Backwards, and rounded to the type after every step.
                let own = |rank| decode(dtype, &values.tile(rank, index + 1)[index * element..]);
                let step = |a: f64, b: f64| {
                    let exact = match op {
                        ReduceOp::Prod => a * b,
                        ReduceOp::Min => a.min(b),
                        ReduceOp::Max => a.max(b),
                        _ => a + b,
                    };
                    let mut bytes = Vec::new();
                    push_float(dtype, exact, &mut bytes);
                    assert_eq!(decode(dtype, &bytes), exact, "{dtype} {op}");
                    exact
                };
                if index % 10 == 0 {
                    let back = (0..8).rev().map(own).reduce(step).unwrap();
                    assert_eq!(decode(dtype, &folded[index * element..][..element]), back, "{dtype} {op}");
                }
            }
        }
    }
}

#[test]
fn tiny_floats_are_encoded_by_their_definition() {
    for (mantissa_bits, value, code) in [
        (3, 0.0, 0x00),
        (3, 1.0, 0x38),
        (3, -2.0, 0xc0),
        (3, 448.0, 0x7e),
        (3, 1.0625, 0x38), // in the middle: the even one
        (3, 1.1875, 0x3a),
        (3, 2f64.powi(-9), 0x01),
        (2, 1.0, 0x3c),
        (2, -57344.0, 0xfb),
        (2, 1.125, 0x3c),
        (2, 2f64.powi(-16), 0x01),
    ] {
        assert_eq!(tiny(mantissa_bits).encode(value), code, "{value} with {mantissa_bits} bits");
    }
    for mantissa_bits in [2, 3] {
        let tiny = tiny(mantissa_bits);
        let wrong = (0..tiny.values.len()).find(|&code| tiny.encode(tiny.values[code]) as usize != code);
        assert_eq!(wrong, None, "with {mantissa_bits} bits");
    }
}

#[test]
fn integers_wrap_and_averages_truncate_towards_zero() {
    for dtype in [DType::I8, DType::U8, DType::I32, DType::U64] {
        for op in Op::ALL.map(Op::name) {
            if op == ReduceOp::User {
                continue;
            }
            let values = Values { dtype, op: Op::Known(op), salt: 4 };
            let folded = values.folded(3, 50);
            for index in 0..50 {
                let at = index * dtype.size();
                let number = |bytes: &[u8]| {
                    let mut word = [0; 8];
                    word[..dtype.size()].copy_from_slice(&bytes[at..at + dtype.size()]);
                    let negative = signed(dtype) == Some(true) && bytes[at + dtype.size() - 1] & 0x80 != 0;
                    let number = i128::from(u64::from_le_bytes(word));
                    if negative { number - (1 << (8 * dtype.size())) } else { number }
                };
                let [a, b, c] = [0, 1, 2].map(|rank| number(&values.tile(rank, 50)));
                let range = 1i128 << (8 * dtype.size());
                let wrap = |exact: i128| {
                    let low = exact.rem_euclid(range);
                    if signed(dtype) == Some(true) && low >= range / 2 { low - range } else { low }
                };
                let expected = match op {
                    ReduceOp::Sum => wrap(a + b + c),
                    // What is lost is a multiple of the range.
                    ReduceOp::Prod => wrap(wrap(a.wrapping_mul(b)).wrapping_mul(c)),
                    ReduceOp::Min => a.min(b).min(c),
                    ReduceOp::Max => a.max(b).max(c),
                    ReduceOp::Avg => wrap(a + b + c) / 3,
                    ReduceOp::PreMulSum => wrap(2 * (a - b + c)),
                    ReduceOp::User => unreachable!("left out above"),
                };
                assert_eq!(number(&folded), expected, "{dtype} {op} {index}");
            }
        }
    }
}

#[test]
fn what_is_filled_has_no_difference_and_each_byte_that_is_changed_has() {
    let values = Values { dtype: DType::U32, op: Op::Known(ReduceOp::Sum), salt: 1 };
    let tile = values.tile(2, PERIOD);
    let mut bytes = vec![0; 3000 * 4];
    fill(&mut bytes, &tile, 4, 1000);
    assert_eq!(bytes[..4], tile[1000 * 4..1001 * 4]);
    assert_eq!(first_difference(&bytes, &tile, 4, 1000), None);
    for at in [0, 83, 84, 5000, bytes.len() - 1] {
        bytes[at] ^= 1;
        assert_eq!(first_difference(&bytes, &tile, 4, 1000), Some((at, bytes[at] ^ 1)));
        bytes[at] ^= 1;
    }
}

#[test]
fn user_operations_are_associative_and_the_order_shows_in_one_of_them() {
    for width in [8, 16, 32, 64] {
        let low = u64::MAX >> (64 - width);
        let mut differ = 0;
        for salt in 0..200 {
            let [a, b, c] = [1, 2, 3].map(|place| mix(salt << 8 | place) & low);
            for op in [Op::Compose, Op::Xor] {
                let by = |a, b| by_bits(op, width, a, b);
                assert_eq!(by(by(a, b), c), by(a, by(b, c)), "{op:?} of {width} bits");
                assert!(by(a, b) <= low);
            }
            assert_eq!(by_bits(Op::Xor, width, a, b), by_bits(Op::Xor, width, b, a));
            differ += u32::from(by_bits(Op::Compose, width, a, b) != by_bits(Op::Compose, width, b, a));
        }
        assert!(differ > 100, "{differ} of 200 pairs of {width} bits differ by their order");
    }
    // (x * 3 + 2) * 5 + 1
    assert_eq!(by_bits(Op::Compose, 16, 0x0203, 0x0105), 0x0b0f);
}

#[test]
fn user_operations_take_any_bits_of_any_type() {
    for dtype in [DType::I8, DType::F32, DType::Bf16] {
        let values = Values { dtype, op: Op::Compose, salt: 2 };
        let element = dtype.size();
        let bits = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..element].copy_from_slice(&bytes[5 * element..6 * element]);
            u64::from_le_bytes(word)
        };
        let [a, b] = [0, 1].map(|rank| bits(&values.tile(rank, 6)));
        assert_eq!(bits(&values.folded(2, 6)), by_bits(Op::Compose, 8 * element as u32, a, b));
    }
}
