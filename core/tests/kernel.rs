//! The kernels against plain arithmetic, on every instruction set that this CPU has.

#[path = "kernel/reference.rs"]
mod reference;

use float8::{F8E4M3, F8E5M2};
use proptest::prelude::*;
use reference::{Bits, expected, narrow_e4m3, narrow_e5m2};
use sohu_coll_core::element::{E4m3, E5m2};
use sohu_coll_core::kernel::{self, ByFunction, Fold, Isa, Kernel, Store};
use sohu_coll_core::{DType, Element, ReduceOp, Scalar};
use sohu_coll_mem::{View, ViewMut};

const GUARD: usize = 80;
const FILL: u8 = 0xa5;

/// Bytes at a chosen distance from a multiple of 64, between guards.
struct Buffer {
    bytes: Vec<u8>,
    at: usize,
    len: usize,
}

impl Buffer {
    fn new(len: usize, offset: usize) -> Self {
        let mut bytes = vec![FILL; len + 2 * GUARD + 64];
        let at = GUARD + bytes[GUARD..].as_mut_ptr().align_offset(64) + offset % 16;
        Self { bytes, at, len }
    }
    fn of(content: &[u8], offset: usize) -> Self {
        let mut buffer = Self::new(content.len(), offset);
        buffer.bytes[buffer.at..][..content.len()].copy_from_slice(content);
        buffer
    }
    fn view(&self) -> View<'_> {
        View::from(self.content())
    }
    fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::from(&mut self.bytes[self.at..self.at + self.len])
    }
    fn content(&self) -> &[u8] {
        &self.bytes[self.at..self.at + self.len]
    }
    fn assert_guards(&self) {
        let (before, rest) = self.bytes.split_at(self.at);
        assert!(before.iter().chain(&rest[self.len..]).all(|&byte| byte == FILL), "wrote outside the view");
    }
}

fn views(sources: &[Buffer]) -> Vec<View<'_>> {
    sources.iter().map(Buffer::view).collect()
}

fn kernels(dtype: DType, op: ReduceOp) -> impl Iterator<Item = (Isa, Kernel)> {
    Isa::ALL.into_iter().filter_map(move |isa| Some((isa, Kernel::with_isa(dtype, op, isa)?)))
}

/// The result of one fold of one element vector on the best instruction set.
fn fold(dtype: DType, op: ReduceOp, sources: &[&[u8]], finish: Option<u32>) -> Vec<u8> {
    let mut into = Buffer::new(sources[0].len(), 0);
    let sources: Vec<View<'_>> = sources.iter().map(|&source| View::from(source)).collect();
    Kernel::new(dtype, op).fold(into.view_mut(), &sources, None, finish, Store::Cached);
    into.content().to_vec()
}

/// Folds out of place, with and without a second copy, and in place of each source; all must be `expected`.
fn assert_folds(kernel: Kernel, sources: &[Buffer], finish: Option<u32>, expected: &[u8], what: &str) {
    for store in [Store::Cached, Store::Streaming, Store::StreamingBoth] {
        for with_also in [false, true] {
            let mut into = Buffer::new(expected.len(), sources[0].at);
            // Both are streamed only where they lie alike.
            let at = if store == Store::StreamingBoth { sources[0].at } else { 5 };
            let mut also = Buffer::new(expected.len(), at);
            let second = with_also.then(|| also.view_mut());
            kernel.fold(into.view_mut(), &views(sources), second, finish, store);
            assert_eq!(into.content(), expected, "{what}, {store:?}");
            into.assert_guards();
            also.assert_guards();
            if with_also {
                assert_eq!(also.content(), expected, "second copy: {what}, {store:?}");
            }
        }
        for place in 0..sources.len() {
            let mut own = Buffer::of(sources[place].content(), sources[place].at);
            let into = own.view_mut();
            let mut list = views(sources);
            list[place] = into.as_view();
            kernel.fold(into, &list, None, finish, store);
            assert_eq!(own.content(), expected, "in place of {place}: {what}, {store:?}");
            own.assert_guards();
        }
    }
}

fn every_size(dtype: DType) {
    let mut bits = Bits::new(dtype as u64);
    for count in [0, 1, 3, 7, 15, 16, 17, 63, 64, 65, 1000, 4097] {
        for source_count in [1, 2, 3, 5] {
            let contents: Vec<Vec<u8>> = (0..source_count).map(|_| bits.elements(dtype, count)).collect();
            for op in ReduceOp::ALL {
                for finish in [None, Some(3)] {
                    if finish.is_some() && op != ReduceOp::Avg {
                        continue;
                    }
                    let expected = expected(dtype, op, &contents, finish);
                    for offset in [0, 1, 8] {
                        let sources: Vec<Buffer> = contents
                            .iter()
                            .enumerate()
                            .map(|(index, content)| Buffer::of(content, offset * (index + 1)))
                            .collect();
                        for (isa, kernel) in kernels(dtype, op) {
                            let what =
                                format!("{op} of {source_count} x {count} {dtype} + {offset}, {isa:?}");
                            assert_folds(kernel, &sources, finish, &expected, &what);
                        }
                    }
                }
            }
        }
    }
}

macro_rules! every_size_of {
    ($($test:ident: $dtype:ident,)*) => {$(
        #[test]
        fn $test() {
            every_size(DType::$dtype);
        }
    )*};
}

every_size_of! {
    i8_folds_like_the_reference: I8,
    u8_folds_like_the_reference: U8,
    i32_folds_like_the_reference: I32,
    u32_folds_like_the_reference: U32,
    i64_folds_like_the_reference: I64,
    u64_folds_like_the_reference: U64,
    f16_folds_like_the_reference: F16,
    bf16_folds_like_the_reference: Bf16,
    f32_folds_like_the_reference: F32,
    f64_folds_like_the_reference: F64,
    e4m3_folds_like_the_reference: Fp8E4m3,
    e5m2_folds_like_the_reference: Fp8E5m2,
}

#[test]
fn every_pair_of_bytes_of_an_8_bit_float_folds_like_the_float8_crate_decodes() {
    let one: Vec<u8> = (0..=u16::MAX).map(|pair| pair as u8).collect();
    let two: Vec<u8> = (0..=u16::MAX).map(|pair| (pair >> 8) as u8).collect();
    let e4m3 = |byte| F8E4M3::from_bits(byte).to_f32();
    let e5m2 = |byte| F8E5M2::from_bits(byte).to_f32();
    for (op, apply) in
        [(ReduceOp::Sum, (|a, b| a + b) as fn(f32, f32) -> f32), (ReduceOp::Prod, |a, b| a * b)]
    {
        let want: Vec<u8> =
            one.iter().zip(&two).map(|(&a, &b)| narrow_e4m3(apply(e4m3(a), e4m3(b)))).collect();
        assert_eq!(fold(DType::Fp8E4m3, op, &[&one, &two], None), want, "e4m3 {op}");
        let want: Vec<u8> =
            one.iter().zip(&two).map(|(&a, &b)| narrow_e5m2(apply(e5m2(a), e5m2(b)))).collect();
        assert_eq!(fold(DType::Fp8E5m2, op, &[&one, &two], None), want, "e5m2 {op}");
    }
}

#[test]
fn every_number_of_a_narrow_type_survives_widening_and_rounding() {
    for dtype in [DType::F16, DType::Bf16, DType::Fp8E4m3, DType::Fp8E5m2] {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for (isa, kernel) in kernels(dtype, ReduceOp::Avg) {
            let mut into = Buffer::new(all.len(), 0);
            kernel.fold(into.view_mut(), &[View::from(&all[..])], None, Some(1), Store::Cached);
            let size = dtype.size();
            for (from, into) in all.chunks(size).zip(into.content().chunks(size)) {
                let nan = reference::is_nan(dtype, from);
                let want = if nan { reference::canonical_nan(dtype) } else { from.to_vec() };
                assert_eq!(into, want, "{from:?} as {dtype} with {isa:?}");
            }
        }
    }
}

#[test]
fn a_wide_product_of_e4m3_saturates_and_of_e5m2_is_infinite() {
    // 448 and 57344, forty times: far beyond f32.
    for (dtype, greatest, want) in [(DType::Fp8E4m3, 0x7e, 0x7e), (DType::Fp8E5m2, 0x7b, 0x7c)] {
        let source = vec![greatest; 67];
        let sources: Vec<&[u8]> = vec![&source; 40];
        assert_eq!(fold(dtype, ReduceOp::Prod, &sources, None), vec![want; 67], "{dtype}");
    }
}

#[test]
fn a_half_sum_of_several_sources_rounds_once() {
    // Each 2^-12 alone is lost beside 1; together they are a step of f16.
    let one = half::f16::from_f32(1.0).to_le_bytes();
    let small = half::f16::from_f32(1.0 / 4096.0).to_le_bytes();
    let sum = fold(DType::F16, ReduceOp::Sum, &[&one, &small, &small, &small, &small], None);
    assert_eq!(sum, half::f16::from_f32(1.0 + 1.0 / 1024.0).to_le_bytes());
}

#[test]
fn hundred_sources_fold_in_order() {
    let mut bits = Bits::new(100);
    for dtype in [DType::F32, DType::Bf16, DType::Fp8E4m3] {
        let contents: Vec<Vec<u8>> = (0..100).map(|_| bits.elements(dtype, 333)).collect();
        let sources: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        for op in [ReduceOp::Sum, ReduceOp::Max] {
            assert_eq!(
                fold(dtype, op, &sources, None),
                expected(dtype, op, &contents, None),
                "{op} of {dtype}"
            );
        }
    }
}

#[test]
fn one_source_moves_as_it_is_even_if_it_is_a_nan() {
    let source = 0x7f80_0001_u32.to_le_bytes();
    assert_eq!(fold(DType::F32, ReduceOp::Sum, &[&source], Some(4)), source);
}

#[test]
fn copies_reach_both_destinations_and_nothing_else() {
    let mut bits = Bits::new(7);
    for len in (0..=300).chain([511, 512, 513, 1023, 1024, 1025, 4096, 70_001]) {
        let content = bits.elements(DType::U8, len);
        for (offset, store) in
            [(0, Store::Cached), (3, Store::Cached), (0, Store::Streaming), (5, Store::StreamingBoth)]
        {
            let (mut into, mut also) = (Buffer::new(len, offset), Buffer::new(len, offset + 2));
            kernel::copy(View::from(&content[..]), into.view_mut(), Some(also.view_mut()), store);
            assert_eq!(into.content(), content, "{len} bytes, {store:?}");
            assert_eq!(also.content(), content, "{len} bytes, {store:?}");
            let mut alone = Buffer::new(len, offset);
            kernel::copy(View::from(&content[..]), alone.view_mut(), None, store);
            assert_eq!(alone.content(), content, "{len} bytes, {store:?}");
            into.assert_guards();
            also.assert_guards();
            alone.assert_guards();
        }
    }
}

#[test]
fn a_copy_onto_itself_still_reaches_the_second_destination() {
    let content: Vec<u8> = (0..100).collect();
    let (mut own, mut also) = (Buffer::of(&content, 1), Buffer::new(100, 2));
    let into = own.view_mut();
    kernel::copy(into.as_view(), into, Some(also.view_mut()), Store::Streaming);
    kernel::copy(into.as_view(), into, None, Store::Cached);
    assert_eq!(also.content(), content);
    assert_eq!(own.content(), content);
}

#[test]
fn two_moves_beside_each_other_reach_both_destinations_and_nothing_else() {
    let mut bits = Bits::new(8);
    let lens = [0, 1, 2047, 2048, 2049, 4095, 6000, 70_001];
    for (own, theirs) in lens.into_iter().flat_map(|own| lens.map(|theirs| (own, theirs))) {
        let contents = [bits.elements(DType::U8, own), bits.elements(DType::U8, theirs)];
        for (offset, store) in [(0, Store::Cached), (3, Store::Cached), (5, Store::Streaming)] {
            let (mut kept, mut landed) = (Buffer::new(own, offset), Buffer::new(theirs, offset + 2));
            let [from, came] = [View::from(&contents[0][..]), View::from(&contents[1][..])];
            kernel::copy_beside((from, kept.view_mut()), (came, landed.view_mut()), store);
            let what = format!("{own} bytes beside {theirs}, {store:?}");
            assert_eq!([kept.content(), landed.content()], contents, "{what}");
            kept.assert_guards();
            landed.assert_guards();
        }
    }
}

#[test]
fn a_copy_onto_itself_beside_another_leaves_both_right() {
    let content: Vec<u8> = (0..5000).map(|at| at as u8).collect();
    let (mut own, mut landed) = (Buffer::of(&content, 1), Buffer::new(5000, 2));
    let kept = own.view_mut();
    kernel::copy_beside((kept.as_view(), kept), (View::from(&content[..]), landed.view_mut()), Store::Cached);
    assert_eq!(own.content(), content);
    assert_eq!(landed.content(), content);
}

/// A sum whose source at `place` is multiplied by `scalar`, an element: in two steps of plain arithmetic.
fn expected_scaled(dtype: DType, contents: &[Vec<u8>], place: usize, scalar: &[u8]) -> Vec<u8> {
    let count = contents[place].len() / dtype.size();
    let factors = scalar.repeat(count);
    let mut sources = contents.to_vec();
    sources[place] = expected(dtype, ReduceOp::Prod, &[contents[place].clone(), factors], None);
    expected(dtype, ReduceOp::Sum, &sources, None)
}

#[test]
fn a_scaled_source_is_a_product_rounded_once_and_then_summed() {
    let mut bits = Bits::new(11);
    for dtype in DType::ALL {
        // Special values come up among the scalars, too: infinities, NaNs, zeros of either sign.
        for (count, turn) in
            [0, 1, 3, 17, 64, 65, 1000, 4097].into_iter().zip(0..).chain((0..40).map(|t| (33, t)))
        {
            let source_count = turn % 3 + 1;
            let place = turn % source_count;
            let scalar = bits.elements(dtype, 1);
            let contents: Vec<Vec<u8>> = (0..source_count).map(|_| bits.elements(dtype, count)).collect();
            let want = expected_scaled(dtype, &contents, place, &scalar);
            let scalar = Scalar::from_bytes(dtype, &scalar).expect("one element");
            for (isa, kernel) in kernels(dtype, ReduceOp::PreMulSum) {
                for store in [Store::Cached, Store::Streaming] {
                    let what = format!("{source_count} x {count} {dtype}, {place} times {scalar:?}, {isa:?}");
                    let sources: Vec<Buffer> =
                        contents.iter().map(|content| Buffer::of(content, turn)).collect();
                    let (mut into, mut also) = (Buffer::new(want.len(), 3), Buffer::new(want.len(), 5));
                    let second = Some(also.view_mut());
                    kernel.fold_scaled(into.view_mut(), &views(&sources), second, (place, scalar), store);
                    assert_eq!(into.content(), want, "{what}");
                    assert_eq!(also.content(), want, "second copy: {what}");
                    into.assert_guards();
                    also.assert_guards();
                    let mut own = Buffer::of(&contents[place], turn);
                    let into = own.view_mut();
                    let mut list = views(&sources);
                    list[place] = into.as_view();
                    kernel.fold_scaled(into, &list, None, (place, scalar), store);
                    assert_eq!(own.content(), want, "in place: {what}");
                }
            }
        }
    }
}

/// The one element of a scaled source alone.
fn scaled<T: Element>(value: T, scalar: T) -> Vec<u8> {
    let source = bytemuck::bytes_of(&value).to_vec();
    let mut into = Buffer::new(source.len(), 0);
    let kernel = Kernel::new(T::DTYPE, ReduceOp::PreMulSum);
    let scalar = (0, Scalar::of(scalar));
    kernel.fold_scaled(into.view_mut(), &[View::from(&source[..])], None, scalar, Store::Cached);
    into.content().to_vec()
}

#[test]
fn scaled_integers_wrap_and_scaled_floats_saturate_as_their_type_does() {
    assert_eq!(scaled(100i8, 3), [44]);
    assert_eq!(scaled(200u8, 255), [56]);
    assert_eq!(scaled(u64::MAX, 3), (u64::MAX - 2).to_le_bytes());
    assert_eq!(scaled((1i64 << 53) + 1, 1), ((1i64 << 53) + 1).to_le_bytes(), "no float on the way");
    assert_eq!(scaled(E4m3(0x7e), E4m3(0x7e)), [0x7e], "448 times 448");
    assert_eq!(scaled(E5m2(0x7b), E5m2(0xfb)), [0xfc], "57344 times -57344");
    assert_eq!(scaled(f32::INFINITY, 0.0), 0x7fc0_0000_u32.to_le_bytes());
    assert_eq!(scaled(-1.0e-45f32, 0.5), (-0.0f32).to_le_bytes());
}

#[test]
fn a_function_folds_elements_by_value_in_the_order_of_the_sources() {
    let fold = ByFunction::new("minus", |a: i32, b: i32| a.wrapping_sub(b));
    for count in [0, 1, 7, 1000] {
        let contents: Vec<Vec<i32>> = (0..4).map(|k| (0..count).map(|i| i * (3 + k)).collect()).collect();
        let sources: Vec<Buffer> =
            contents.iter().map(|content| Buffer::of(bytemuck::cast_slice(content), 1)).collect();
        let (mut into, mut also) = (Buffer::new(4 * count as usize, 1), Buffer::new(4 * count as usize, 2));
        fold.fold(into.view_mut(), Some(also.view_mut()), &views(&sources));
        let want: Vec<i32> = (0..count).map(|i| i * 3 - i * 4 - i * 5 - i * 6).collect();
        assert_eq!(into.content(), bytemuck::cast_slice::<i32, u8>(&want));
        assert_eq!(also.content(), bytemuck::cast_slice::<i32, u8>(&want));
        into.assert_guards();
        also.assert_guards();
    }
}

#[test]
#[should_panic(expected = "a user's operation is folded by its function")]
fn a_kernel_of_a_user_operation_folds_nothing() {
    fold(DType::F32, ReduceOp::User, &[&[0; 8], &[0; 8]], None);
}

#[test]
#[should_panic(expected = "int32 times a float")]
fn a_scalar_of_another_type_is_refused() {
    let mut into = Buffer::new(4, 0);
    let source = [0; 4];
    let scalar = (0, Scalar::of(1.0f32));
    let kernel = Kernel::new(DType::I32, ReduceOp::PreMulSum);
    kernel.fold_scaled(into.view_mut(), &[View::from(&source[..])], None, scalar, Store::Cached);
}

#[test]
#[should_panic(expected = "source of 4 bytes folded into 8")]
fn sources_of_another_length_are_refused() {
    fold(DType::F32, ReduceOp::Sum, &[&[0; 8], &[0; 4]], None);
}

#[test]
#[should_panic(expected = "6 bytes of float")]
fn a_split_element_is_refused() {
    fold(DType::F32, ReduceOp::Sum, &[&[0; 6], &[0; 6]], None);
}

#[test]
#[should_panic(expected = "fold of no sources")]
fn no_sources_are_refused() {
    let mut into = Buffer::new(4, 0);
    Kernel::new(DType::F32, ReduceOp::Sum).fold(into.view_mut(), &[], None, None, Store::Cached);
}

proptest! {
    #[test]
    fn random_bits_fold_to_the_same_bits_everywhere(
        (dtype, op) in (prop::sample::select(&DType::ALL), prop::sample::select(&ReduceOp::ALL)),
        count in 0_usize..700,
        source_count in 2_usize..7,
        seed: u64,
        finish in prop::option::of(1_u32..400),
        streaming: bool,
    ) {
        let mut bits = Bits::new(seed);
        let contents: Vec<Vec<u8>> = (0..source_count).map(|_| bits.elements(dtype, count)).collect();
        let want = expected(dtype, op, &contents, finish);
        let store = if streaming { Store::Streaming } else { Store::Cached };
        for (isa, kernel) in kernels(dtype, op) {
            let sources: Vec<Buffer> =
                contents.iter().enumerate().map(|(index, bytes)| Buffer::of(bytes, index)).collect();
            let mut into = Buffer::new(want.len(), seed as usize);
            kernel.fold(into.view_mut(), &views(&sources), None, finish, store);
            prop_assert_eq!(into.content(), &want, "{:?}", isa);
        }
    }

    #[test]
    fn least_and_greatest_do_not_show_the_order_of_the_sources(
        dtype in prop::sample::select(&DType::ALL),
        count in 1_usize..100,
        seed: u64,
    ) {
        let mut bits = Bits::new(seed);
        let (one, two) = (bits.elements(dtype, count), bits.elements(dtype, count));
        for op in [ReduceOp::Min, ReduceOp::Max] {
            prop_assert_eq!(fold(dtype, op, &[&one, &two], None), fold(dtype, op, &[&two, &one], None));
        }
    }
}
