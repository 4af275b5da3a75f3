//! How fast folds and copies run: per call where they are tiny, per byte of result where they are not.
//!
//! `cargo bench --bench kernel -- 64KiB/float` runs a part. Every result is one vector of the named size; a
//! fold of two sources reads twice and writes once as much. The views are not hidden from the compiler: that would
//! store and reload them, which takes longer than a tiny fold.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sohu_coll_core::kernel::{self, Isa, Kernel, Store};
use sohu_coll_core::{DType, ReduceOp};
use sohu_coll_mem::{View, ViewMut};
use std::hint::black_box;
use std::time::Duration;

const KIB: usize = 1024;
/// Fits the L2 cache with all its operands.
const SLICE: usize = 64 * KIB;
/// Larger than the L3 slice of a core: for streaming stores.
const LARGE: usize = 64 * KIB * KIB;

/// Bytes that start at a multiple of 64, as registered memory does.
struct Aligned {
    bytes: Vec<u8>,
    at: usize,
    len: usize,
}

impl Aligned {
    /// Ones in the type, so that no sum or product leaves its range or meets slow numbers.
    fn ones(dtype: DType, len: usize) -> Self {
        let one: &[u8] = match dtype {
            DType::F16 => &[0x00, 0x3c],
            DType::Bf16 => &[0x80, 0x3f],
            DType::F32 => &[0x00, 0x00, 0x80, 0x3f],
            DType::F64 => &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f],
            DType::Fp8E4m3 => &[0x38],
            DType::Fp8E5m2 => &[0x3c],
            _ => &1_u64.to_le_bytes()[..dtype.size()],
        };
        let mut bytes = vec![0; len + 64];
        let at = bytes.as_mut_ptr().align_offset(64);
        bytes[at..at + len]
            .chunks_mut(one.len())
            .for_each(|chunk| chunk.copy_from_slice(&one[..chunk.len()]));
        Self { bytes, at, len }
    }
    fn view(&self) -> View<'_> {
        View::from(&self.bytes[self.at..self.at + self.len])
    }
    fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::from(&mut self.bytes[self.at..self.at + self.len])
    }
}

fn size_name(bytes: usize) -> String {
    if bytes < KIB { format!("{bytes}B") } else { format!("{}KiB", bytes / KIB) }
}

/// A fold of `source_count` sources.
fn fold(
    c: &mut Criterion,
    group: &str,
    name: &str,
    kernel: Kernel,
    source_count: usize,
    bytes: usize,
    store: Store,
) {
    let sources: Vec<Aligned> = (0..source_count).map(|_| Aligned::ones(kernel.dtype(), bytes)).collect();
    let mut into = Aligned::ones(kernel.dtype(), bytes);
    let views: Vec<View<'_>> = sources.iter().map(Aligned::view).collect();
    let into = into.view_mut();
    let finish = (kernel.op() == ReduceOp::Avg).then_some(3);
    let mut group = c.benchmark_group(format!("{group}/{}", size_name(bytes)));
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(BenchmarkId::from_parameter(name), |b| {
        b.iter(|| black_box(&kernel).fold(into, &views, None, finish, store));
    });
}

/// What one small all-reduce pays per source and call.
fn tiny(c: &mut Criterion) {
    for (dtype, bytes) in
        [(DType::F32, 8), (DType::Bf16, 8), (DType::F32, 64), (DType::F32, 256), (DType::F32, 1000)]
    {
        let kernel = Kernel::new(dtype, ReduceOp::Sum);
        for source_count in [2, 4] {
            let name = format!("{dtype}/{source_count}");
            fold(c, "tiny", &name, kernel, source_count, bytes, Store::Cached);
        }
    }
}

/// Every type and operation, out of L2.
fn cached(c: &mut Criterion) {
    for dtype in DType::ALL {
        for op in ReduceOp::ALL {
            for isa in Isa::ALL {
                let Some(kernel) = Kernel::with_isa(dtype, op, isa) else { continue };
                fold(c, "fold", &format!("{dtype}/{op}/{isa:?}"), kernel, 2, SLICE, Store::Cached);
            }
        }
    }
    for dtype in [DType::F32, DType::Bf16, DType::Fp8E4m3] {
        let kernel = Kernel::new(dtype, ReduceOp::Sum);
        fold(c, "fold", &format!("{dtype}/eight sources"), kernel, 8, SLICE, Store::Cached);
    }
}

/// Results that no cache holds.
fn large(c: &mut Criterion) {
    for dtype in [DType::F32, DType::Bf16, DType::Fp8E4m3] {
        let kernel = Kernel::new(dtype, ReduceOp::Sum);
        for store in [Store::Cached, Store::Streaming] {
            fold(c, "fold", &format!("{dtype}/{store:?}"), kernel, 2, LARGE, store);
        }
    }
}

/// Copies beside the one of the standard library.
fn copies(c: &mut Criterion) {
    for bytes in [8, 64, 200, KIB, 4 * KIB, 16 * KIB, SLICE, 512 * KIB, LARGE] {
        let from = Aligned::ones(DType::U8, bytes);
        let mut into = Aligned::ones(DType::U8, bytes);
        let mut also = Aligned::ones(DType::U8, bytes);
        let (from, into, also) = (from.view(), into.view_mut(), also.view_mut());
        let mut group = c.benchmark_group(format!("copy/{}", size_name(bytes)));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("standard", |b| b.iter(|| from.copy_to(into)));
        for store in [Store::Cached, Store::Streaming] {
            group.bench_function(format!("{store:?}"), |b| {
                b.iter(|| kernel::copy(from, into, None, store));
            });
        }
        group.bench_function("two destinations", |b| {
            b.iter(|| kernel::copy(from, into, Some(also), Store::Cached));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200));
    targets = tiny, cached, large, copies
}
criterion_main!(benches);
