//! What a message costs in the lock-free pieces: the ring of lines, and the bookkeeping of the staging ring.
//!
//! `cargo bench --bench queues`. The words are checked against their bounds here, which mapped ones are not:
//! that is part of a nanosecond a line. The ping-pong needs two cores, and says how far apart they are.

use criterion::{Criterion, criterion_group, criterion_main};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use sohu_coll_mem::byte_ring::ByteRing;
use sohu_coll_mem::line::{LineRx, LineTx};
use sohu_coll_mem::words::{AtomicU64, LINE_WORDS, Ordering, Words, fence};
use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lines of a ring, as between two ranks.
const LINES: usize = 64;

/// Words that start on a cache line.
#[derive(Clone)]
struct Aligned {
    words: Arc<[AtomicU64]>,
    start: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let words: Arc<[AtomicU64]> = (0..len + LINE_WORDS).map(|_| AtomicU64::new(0)).collect();
        let start = words.as_ptr().align_offset(64);
        Self { words, start }
    }
}

impl Words for Aligned {
    type Word = AtomicU64;

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        &self.words[self.start + index]
    }

    fn len(&self) -> usize {
        self.words.len() - LINE_WORDS
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        fence(order);
    }

    #[inline]
    fn spin(&self) {
        spin_loop();
    }
}

type Ends = (LineTx<Aligned>, LineRx<Aligned>);

fn ring() -> Ends {
    let words = Aligned::new(LINES * LINE_WORDS);
    (LineTx::new(words.clone(), LINES), LineRx::new(words, LINES))
}

/// One message through a ring, by one thread: no cache line moves.
fn one_thread(c: &mut Criterion) {
    let mut group = c.benchmark_group("lines/one thread");
    for words in [1, 7] {
        let (mut tx, mut rx) = ring();
        let payload = [7u64; 7];
        group.bench_function(format!("{} bytes", words * 8), |b| {
            b.iter(|| {
                let put = tx.put_words(2, 8, 0, 0, black_box(&payload[..words]));
                assert!(put, "the reader keeps up");
                black_box(rx.peek().expect("it was put just now").words[0]);
                rx.advance();
                tx.credit(rx.consumed() as u16).expect("it was sent");
            });
        });
    }
}

/// Puts a line, with credits for what came.
fn put((tx, rx): &mut Ends, number: u64) {
    assert!(tx.put_words(2, 8, rx.consumed() as u16, 0, &[number]), "the peer has answered");
}

/// Takes the next line.
fn take((tx, rx): &mut Ends) -> u64 {
    let (number, lines_ack) = loop {
        match rx.peek() {
            Some(line) => break (line.words[0], line.lines_ack),
            None => spin_loop(),
        }
    };
    rx.advance();
    tx.credit(lines_ack).expect("the peer keeps the protocol");
    number
}

/// The first two cores that this process may use.
fn two_cores() -> Option<[usize; 2]> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    Some([cores.next()?, cores.next()?])
}

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).expect("the core is one of those allowed");
}

/// There and back between two cores: two hand-overs of a line.
fn two_threads(c: &mut Criterion) {
    let Some(cores) = two_cores() else {
        eprintln!("lines/ping-pong needs two cores");
        return;
    };
    let rounds = |iterations: u64| -> Duration {
        let ((here_tx, there_rx), (there_tx, here_rx)) = (ring(), ring());
        let (mut here, mut there) = ((here_tx, here_rx), (there_tx, there_rx));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                pin(cores[1]);
                for _ in 0..=iterations {
                    let number = take(&mut there);
                    put(&mut there, number);
                }
            });
            let timed = scope.spawn(move || {
                pin(cores[0]);
                // The first answer comes once the other thread runs.
                put(&mut here, 0);
                take(&mut here);
                let begun = Instant::now();
                for number in 0..iterations {
                    put(&mut here, number);
                    black_box(take(&mut here));
                }
                begun.elapsed()
            });
            timed.join().expect("a ping-pong does not panic")
        })
    };
    c.bench_function("lines/ping-pong/8 bytes", |b| b.iter_custom(rounds));
}

/// Room for a staged message found, taken and given back.
fn staging(c: &mut Criterion) {
    let mut group = c.benchmark_group("byte ring");
    for (name, bytes) in [("4 KiB", 4096), ("64 KiB", 65_536)] {
        for readers in [1, 3] {
            let mut ring = ByteRing::new(1 << 20, 256);
            // One message is always out, so that the ring turns.
            let mut last = ring.commit(0, bytes, 1);
            let mut left = 1;
            group.bench_function(format!("{name} for {readers}"), |b| {
                b.iter(|| {
                    let range = ring.reserve(black_box(bytes), 4096).expect("one message is out");
                    let next = ring.commit(range.start, range.len(), readers);
                    for _ in 0..left {
                        ring.release(last);
                    }
                    (last, left) = (next, readers);
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400));
    targets = one_thread, two_threads, staging
}
criterion_main!(benches);
