//! The small call, end to end: all-reduces of a few bytes between two threads of this process, each on a
//! core of its own, over shared memory; by the executor alone, and as a user calls it.
//!
//! `cargo bench --bench small_call`. Threads share an address space, which processes do not; the cache
//! lines that go back and forth are the same.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use sohu_coll::{Communicator, UniqueId};
use sohu_coll_algorithms::by_name;
use sohu_coll_core::exec::{Binding, Bound, Executor, Fetched, Progress};
use sohu_coll_core::kernel::{Kernel, Store};
use sohu_coll_core::link::Links;
use sohu_coll_core::plan::{Extents, Job, fuse::fuse};
use sohu_coll_core::{Collective, DType, Rank, ReduceOp, Signature};
use sohu_coll_mem::Ledger;
use sohu_coll_mem::region::{Loan, scope};
use sohu_coll_shm::{Layout, Segment, ShmLinks};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// Polls that move nothing before a thread lets others run: ranks may share a core.
const SPINS: u32 = 10_000;

/// Pins the thread of `rank` to the core of that number among those allowed, if there is one.
fn pin(rank: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let core = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).nth(rank);
    if let Some(core) = core {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set).expect("the core is one of those allowed");
    }
}

/// Runs `calls` times what `call` does, on two threads at once; the time that rank 0 took.
fn time<R: Send>(ranks: &mut [R; 2], calls: u64, call: impl Fn(&mut R) + Sync) -> Duration {
    let start = Barrier::new(2);
    let [first, second] = ranks;
    let run = |rank: usize, state: &mut R| {
        pin(rank);
        start.wait();
        let begun = Instant::now();
        for _ in 0..calls {
            call(state);
        }
        begun.elapsed()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(1, second));
        scope.spawn(|| run(0, first)).join().expect("a rank does not panic")
    })
}

/// One rank, without the facade.
struct Bare {
    links: ShmLinks,
    executor: Executor,
    ledger: Box<Ledger>,
    call: Signature,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Bare {
    fn new(rank: Rank, links: ShmLinks, count: usize) -> Self {
        let job = Job::new(Collective::AllReduce, 2);
        let program = by_name("one_shot").expect("it is in the table").program(&job, rank);
        let binding = Binding {
            kernel: Kernel::new(DType::F32, ReduceOp::Sum),
            element: 4,
            slice: 1 << 16,
            store: Store::Cached,
            input_registered: false,
            output_registered: false,
            fetched: Fetched::Nothing,
            within: None,
        };
        let bound = Bound::new(&program, &fuse(&program), &Extents::bind(&program, count, 4), &binding);
        Self {
            links,
            executor: Executor::new(Arc::new(bound)),
            ledger: Ledger::new(),
            call: Signature { dtype: DType::F32, count: count as u64, sequence: 0, ..Signature::none() },
            input: vec![0; count * 4],
            output: vec![0; count * 4],
        }
    }

    fn call(&mut self) {
        let loan = Loan::Apart { input: &self.input, output: &mut self.output };
        scope(&self.ledger, loan, &mut [], |regions| {
            let mut idle = 0u32;
            let mut progress = self.executor.begin(&self.call, SPINS, regions, &mut self.links);
            loop {
                match progress.expect("the peer keeps the protocol") {
                    Progress::Done => break,
                    Progress::Moved => idle = 0,
                    Progress::Idle if idle < SPINS => {
                        idle += 1;
                        std::hint::spin_loop();
                    }
                    Progress::Idle => std::thread::yield_now(),
                }
                progress = self.executor.poll(regions, &mut self.links);
            }
        });
        self.links.ring();
        self.call.sequence = self.call.sequence.wrapping_add(1);
    }
}

fn links() -> [ShmLinks; 2] {
    let layout = Layout::new(2, 1 << 20, 1 << 20);
    let segments = [0, 1].map(|_| Segment::create(layout).expect("a memfd can be made"));
    let fds: [OwnedFd; 2] =
        [0, 1].map(|rank: usize| segments[rank].fd().try_clone_to_owned().expect("a descriptor is free"));
    let mut fds = [[None, Some(fds[1].as_fd())], [Some(fds[0].as_fd()), None]].into_iter();
    let mut rank = 0;
    segments.map(|segment| {
        let handed = fds.next().expect("there are two ranks");
        rank += 1;
        ShmLinks::join(Rank(rank - 1), segment, &handed).expect("segments of one layout join")
    })
}

fn executor(c: &mut Criterion) {
    let mut group = c.benchmark_group("small call/executor");
    for bytes in [8, 1024] {
        let [first, second] = links();
        let mut ranks = [Bare::new(Rank(0), first, bytes / 4), Bare::new(Rank(1), second, bytes / 4)];
        group.bench_function(BenchmarkId::from_parameter(format!("{bytes} bytes")), |b| {
            b.iter_custom(|calls| time(&mut ranks, calls, Bare::call));
        });
    }
}

/// One rank, as a user has it.
struct User {
    communicator: Communicator,
    input: Vec<f32>,
    output: Vec<f32>,
}

fn users(count: usize) -> [User; 2] {
    let id = UniqueId::new();
    let user = |rank| User {
        communicator: Communicator::builder()
            .rank(rank)
            .size(2)
            .id(&id)
            .timeout(Duration::from_secs(60))
            .build()
            .expect("two threads can join"),
        input: vec![0.0; count],
        output: vec![0.0; count],
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| user(0));
        let second = user(1);
        [first.join().expect("rank 0 joins too"), second]
    })
}

fn facade(c: &mut Criterion) {
    let mut group = c.benchmark_group("small call/facade");
    for bytes in [8, 1024] {
        let mut ranks = users(bytes / 4);
        group.bench_function(BenchmarkId::from_parameter(format!("{bytes} bytes")), |b| {
            b.iter_custom(|calls| {
                time(&mut ranks, calls, |user| {
                    let User { communicator, input, output } = user;
                    communicator
                        .all_reduce(input, output, ReduceOp::Sum)
                        .expect("the peer makes the same call");
                })
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = executor, facade
}
criterion_main!(benches);
