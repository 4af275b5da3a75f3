//! What the executor itself costs: programs run over links that move everything at once and copy nothing,
//! on a few bytes, so that what is left is the walk through the passes. Also what a span of memory costs.
//!
//! `cargo bench --bench executor`. The rate printed counts steps of the program.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sohu_coll_algorithms::by_name;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::exec::{Binding, Bound, Executor, Fetched, Progress};
use sohu_coll_core::kernel::{Kernel, Store};
use sohu_coll_core::link::{LinkCaps, Links, Window};
use sohu_coll_core::pipe::Pipes;
use sohu_coll_core::plan::{Extents, Job, fuse::fuse};
use sohu_coll_core::{Collective, DType, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::{Loan, scope};
use sohu_coll_mem::{Ledger, View, ViewMut};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// The most bytes that a pass moves here.
const BYTES_MAX: usize = 1 << 10;

/// Links to ranks that have always sent what is asked for, and take everything.
struct Nowhere {
    size: u32,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Links for Nowhere {
    fn transport(&self) -> &'static str {
        "nowhere"
    }

    fn rank(&self) -> Rank {
        Rank(0)
    }

    fn size(&self) -> u32 {
        self.size
    }

    fn caps(&self, _peer: Rank) -> LinkCaps {
        LinkCaps {
            latency_ns: 1.0,
            bytes_per_ns: 1.0,
            inline_bytes: 0,
            window_bytes: BYTES_MAX,
            lends: false,
        }
    }

    fn begin(&mut self, _call: &Signature) -> Result<(), LinkError> {
        Ok(())
    }

    fn verify(&mut self) -> Result<bool, LinkError> {
        Ok(true)
    }

    fn send(&mut self, _to: &[Rank], bytes: View<'_>) -> Result<usize, LinkError> {
        Ok(black_box(bytes).len())
    }

    fn recv(&mut self, _from: Rank, into: ViewMut<'_>) -> Result<usize, LinkError> {
        Ok(black_box(into).len())
    }

    fn pass(
        &mut self,
        from: &[Rank],
        to: &[Rank],
        limit: usize,
        _granule: usize,
        work: &mut dyn FnMut(Window<'_>),
    ) -> Result<usize, LinkError> {
        let incoming = [View::from(&self.incoming[..limit]); 8];
        let outgoing = (!to.is_empty()).then(|| ViewMut::from(&mut self.outgoing[..limit]));
        work(Window { incoming: &incoming[..from.len()], outgoing, past_caches: false });
        Ok(limit)
    }

    fn poll(&mut self) -> Result<bool, LinkError> {
        Ok(false)
    }

    fn settled(&mut self) -> Result<bool, LinkError> {
        Ok(true)
    }

    fn pipes(&mut self) -> &mut dyn Pipes {
        unreachable!("an executor sends no messages")
    }
}

/// Runs all-reduces of `count` floats by one algorithm.
fn all_reduces(c: &mut Criterion) {
    let mut group = c.benchmark_group("executor/all_reduce");
    for (algorithm, size, count) in
        [("one_shot", 2, 2), ("one_shot", 2, 256), ("one_shot", 8, 2), ("two_shot", 8, 16), ("ring", 8, 16)]
    {
        let job = Job::new(Collective::AllReduce, size);
        let program = by_name(algorithm).expect("it is in the table").program(&job, Rank(0));
        let binding = Binding {
            kernel: Kernel::new(DType::F32, ReduceOp::Sum),
            element: 4,
            slice: BYTES_MAX,
            store: Store::Cached,
            input_registered: false,
            output_registered: false,
            fetched: Fetched::Nothing,
            within: None,
        };
        let bound = Bound::new(&program, &fuse(&program), &Extents::bind(&program, count, 4), &binding);
        let mut scratch = vec![0; bound.scratch_bytes];
        let mut executor = Executor::new(Arc::new(bound));
        let mut links = Nowhere { size, incoming: vec![0; BYTES_MAX], outgoing: vec![0; BYTES_MAX] };
        let (input, mut output) = (vec![0u8; count * 4], vec![0u8; count * 4]);
        let ledger = Ledger::new();
        group.throughput(Throughput::Elements(program.steps.len() as u64));
        group.bench_function(format!("{algorithm}/{size} ranks/{} bytes", count * 4), |b| {
            let loan = Loan::Apart { input: &input, output: &mut output };
            scope(&ledger, loan, &mut scratch, |regions| {
                b.iter(|| {
                    let call = Signature::none();
                    let mut progress = executor.begin(&call, 0, regions, &mut links);
                    while progress.expect("these links do not fail") != Progress::Done {
                        progress = executor.poll(regions, &mut links);
                    }
                });
            });
        });
    }
}

/// Opening and closing the buffers of a call, and taking spans of them.
fn spans(c: &mut Criterion) {
    let mut group = c.benchmark_group("spans");
    let (input, mut output) = (vec![0u8; 8192], vec![0u8; 8192]);
    let ledger = Ledger::new();
    group.bench_function("scope", |b| {
        b.iter(|| {
            let loan = Loan::Apart { input: &input, output: &mut output };
            scope(&ledger, loan, &mut [], |regions| black_box(regions.input.len()))
        });
    });
    let loan = Loan::Apart { input: &input, output: &mut output };
    scope(&ledger, loan, &mut [], |regions| {
        let range = || black_box(0..4096);
        group.bench_function("read and write, nothing out", |b| {
            b.iter(|| (black_box(regions.input.read(range())), black_box(regions.output.write(range()))));
        });
        group.bench_function("lend and return", |b| b.iter(|| black_box(regions.output.lend(range()))));
        group.bench_function("post and return", |b| b.iter(|| black_box(regions.output.post(range()))));
        let out = regions.output.lend(4096..8192);
        group.bench_function("read and write, one out", |b| {
            b.iter(|| (black_box(regions.input.read(range())), black_box(regions.output.write(range()))));
        });
        group.bench_function("lend and return, one out", |b| {
            b.iter(|| black_box(regions.output.lend(range())));
        });
        drop(out);
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = all_reduces, spans
}
criterion_main!(benches);
