//! `docs/numbers.md`, row by row, in numbers that can be checked by hand, on every instruction set that this CPU has.

use half::{bf16, f16};
use sohu_coll_core::element::{E4m3, E5m2};
use sohu_coll_core::kernel::{Isa, Kernel, Store};
use sohu_coll_core::{Element, ReduceOp, Scalar};
use sohu_coll_mem::{View, ViewMut};

/// The bytes of each source folded to, at every place of a buffer longer than a register, with every instruction set.
#[track_caller]
fn every<T: Element>(sources: &[T], want: T, run: impl Fn(Isa, ViewMut<'_>, &[View<'_>])) {
    const COUNT: usize = 71;
    let contents: Vec<Vec<T>> = sources.iter().map(|source| vec![*source; COUNT]).collect();
    let views: Vec<View<'_>> =
        contents.iter().map(|content| View::from(bytemuck::cast_slice::<T, u8>(content))).collect();
    let want = bytemuck::cast_slice::<T, u8>(&[want; COUNT]).to_vec();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        let mut into = vec![0x5a; want.len()];
        run(isa, ViewMut::from(&mut into[..]), &views);
        assert!(into == want, "{:02x?}, not {:02x?}, with {isa:?}", &into[..8], &want[..8]);
    }
}

/// `sources`, folded; an average is finished.
#[track_caller]
fn folds<T: Element>(op: ReduceOp, sources: &[T], want: T) {
    every(sources, want, |isa, into, views| {
        let kernel = Kernel::with_isa(T::DTYPE, op, isa).expect("it is available");
        kernel.fold(into, views, None, Some(views.len() as u32), Store::Cached);
    });
}

/// `value` times `scalar`, and `more`.
#[track_caller]
fn scales<T: Element>(value: T, scalar: T, more: T, want: T) {
    every(&[value, more], want, |isa, into, views| {
        let kernel = Kernel::with_isa(T::DTYPE, ReduceOp::PreMulSum, isa).expect("it is available");
        kernel.fold_scaled(into, views, None, (0, Scalar::of(scalar)), Store::Cached);
    });
}

use ReduceOp::{Avg, Max, Min, Prod, Sum};

fn half(value: f32) -> f16 {
    f16::from_f32(value)
}

fn brain(value: f32) -> bf16 {
    bf16::from_f32(value)
}

#[test]
fn integers_wrap_and_averages_divide_the_wrapped_sum_towards_zero() {
    folds(Sum, &[100i8, 100], -56);
    folds(Sum, &[200u8, 100], 44);
    folds(Prod, &[1u32 << 31, 2], 0);
    folds(Prod, &[i64::MAX, 2], -2);
    folds(Sum, &[u64::MAX, 2], 1);
    folds(Avg, &[100i8, 100], -28);
    folds(Avg, &[-3i32, 0], -1);
    folds(Avg, &[3i32, 0], 1);
    folds(Avg, &[i64::MIN, i64::MIN], 0);
    folds(Avg, &[u64::MAX, 3], 1);
}

#[test]
fn wide_floats_are_folded_in_their_own_type() {
    // Half a step is lost, one after the other.
    let step = f32::EPSILON;
    folds(Sum, &[1.0, step / 2.0, step / 2.0], 1.0);
    folds(Sum, &[step / 2.0, step / 2.0, 1.0], 1.0 + step);
    folds(Sum, &[f32::MAX, f32::MAX, -f32::MAX], f32::INFINITY);
    folds(Avg, &[f32::MAX, f32::MAX], f32::INFINITY);
    folds(Sum, &[1.0, f64::EPSILON / 2.0, f64::EPSILON / 2.0], 1.0);
}

#[test]
fn narrow_floats_are_folded_in_f32_and_rounded_once_to_nearest_even() {
    // The middle between 1 and the next number goes to the even one; two such are a whole step.
    let (one, step) = (brain(1.0), bf16::EPSILON.to_f32());
    folds(Sum, &[one, brain(step / 2.0)], one);
    folds(Sum, &[brain(1.0 + step), brain(step / 2.0)], brain(1.0 + 2.0 * step));
    folds(Sum, &[one, brain(step / 2.0), brain(step / 2.0)], brain(1.0 + step));
    folds(Sum, &[half(2048.0), half(1.0), half(1.0)], half(2050.0));
    folds(Sum, &[E4m3(0x58), E4m3(0x38), E4m3(0x38)], E4m3(0x59)); // 16 + 1 + 1
    folds(Sum, &[E4m3(0x58), E4m3(0x38)], E4m3(0x58)); // 17 is the middle of 16 and 18
    folds(Sum, &[E5m2(0x48), E5m2(0x3c)], E5m2(0x48)); // 9 is the middle of 8 and 10
}

#[test]
fn an_average_divides_in_the_type_of_the_fold_before_it_is_rounded() {
    folds(Avg, &[half(65504.0), half(65504.0)], half(65504.0));
    folds(Avg, &[E4m3(0x7e), E4m3(0x7e)], E4m3(0x7e));
    folds(Avg, &[E5m2(0x7b), E5m2(0x7b)], E5m2(0x7b));
    folds(Avg, &[1.0f32, 0.0, 0.0], 1.0 / 3.0);
    folds(Avg, &[brain(1.0), brain(0.0), brain(0.0)], brain(1.0f32 / 3.0));
    folds(Avg, &[E4m3(0x38), E4m3(0x38), E4m3(0x40)], E4m3(0x3b)); // 4 / 3, to 1.375
}

#[test]
fn what_is_too_large_is_infinite_or_saturates() {
    folds(Sum, &[half(65504.0), half(65504.0)], f16::INFINITY);
    folds(Sum, &[bf16::MIN, bf16::MIN], bf16::NEG_INFINITY);
    folds(Sum, &[E5m2(0x7b), E5m2(0x7b)], E5m2(0x7c));
    folds(Sum, &[E4m3(0x7e), E4m3(0x7e)], E4m3(0x7e));
    folds(Sum, &[E4m3(0xfe), E4m3(0xfe)], E4m3(0xfe));
    folds(Prod, &[E4m3(0x7e), E4m3(0xfe), E4m3(0x7e)], E4m3(0xfe));
}

#[test]
fn a_nan_among_the_inputs_makes_the_one_nan() {
    let (odd, nan) = (f32::from_bits(0xffc0_1234), f32::from_bits(0x7fc0_0000));
    for op in [Sum, Prod, Min, Max, Avg] {
        folds(op, &[1.0, odd], nan);
        folds(op, &[odd, 1.0], nan);
        folds(op, &[f64::from_bits(0xfff8_0000_0000_0001), 1.0], f64::from_bits(0x7ff8_0000_0000_0000));
        folds(op, &[f16::from_bits(0xfe01), half(1.0)], f16::from_bits(0x7e00));
        folds(op, &[brain(1.0), bf16::from_bits(0xffc1)], bf16::from_bits(0x7fc0));
        folds(op, &[E4m3(0xff), E4m3(0x38)], E4m3(0x7f));
        folds(op, &[E5m2(0x38), E5m2(0xfd)], E5m2(0x7e));
    }
    folds(Sum, &[f32::INFINITY, f32::NEG_INFINITY], nan);
    folds(Prod, &[f32::INFINITY, 0.0], nan);
    folds(Sum, &[f32::INFINITY, 1.0], f32::INFINITY);
    folds(Min, &[f64::NEG_INFINITY, 1.0], f64::NEG_INFINITY);
}

#[test]
fn minus_zero_is_less_than_zero_and_subnormals_are_kept() {
    for [a, b] in [[-0.0f32, 0.0], [0.0, -0.0]] {
        folds(Min, &[a, b], -0.0);
        folds(Max, &[a, b], 0.0);
        folds(Min, &[f64::from(a), f64::from(b)], -0.0);
        folds(Max, &[half(a), half(b)], half(0.0));
        folds(Min, &[E4m3((a.to_bits() >> 24) as u8), E4m3((b.to_bits() >> 24) as u8)], E4m3(0x80));
    }
    folds(Sum, &[f32::from_bits(1), f32::from_bits(1)], f32::from_bits(2));
    folds(Sum, &[f64::from_bits(1), 0.0], f64::from_bits(1));
    folds(Sum, &[f16::from_bits(1), f16::from_bits(2)], f16::from_bits(3));
    folds(Sum, &[bf16::from_bits(1), bf16::from_bits(2)], bf16::from_bits(3));
    folds(Sum, &[E4m3(1), E4m3(2)], E4m3(3));
    folds(Sum, &[E5m2(1), E5m2(1)], E5m2(2));
}

#[test]
fn a_scaled_input_is_rounded_by_itself_before_it_is_summed() {
    // 1.5 times the number after 1 lies in the middle, and goes up to the even one, and so does what is half a step less. A fold
    // in f32 alone would end a step lower.
    let (after, step) = (brain(1.0 + bf16::EPSILON.to_f32()), bf16::EPSILON.to_f32());
    scales(after, brain(1.5), brain(-step / 2.0), brain(1.5 + 2.0 * step));
    scales(100i8, 3, 1, 45);
    scales((1i64 << 53) + 1, 1, 0, (1 << 53) + 1);
    scales(half(65504.0), half(2.0), half(-65504.0), f16::INFINITY);
    scales(E4m3(0x7e), E4m3(0x7e), E4m3(0xfe), E4m3(0)); // 448 times 448 saturates; minus 448
    scales(f32::INFINITY, 0.0, 1.0, f32::from_bits(0x7fc0_0000));
    scales(1.0f32, f32::from_bits(0xffc0_1234), 1.0, f32::from_bits(0x7fc0_0000));
}

#[test]
fn one_input_stays_as_it_is() {
    let odd = f32::from_bits(0x7f80_0001);
    folds(Sum, &[odd], odd);
    folds(Max, &[E4m3(0xff)], E4m3(0xff));
    folds(Avg, &[-0.0f32], -0.0);
}
