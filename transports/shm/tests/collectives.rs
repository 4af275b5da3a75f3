//! Every algorithm over shared memory, with ranks polled in an order that a seed decides: registered
//! buffers and private ones, and staging so narrow that everything waits for room.

mod join;
#[path = "../../../core/tests/simulate/mod.rs"]
mod simulate;

use simulate::{Call, run};
use sohu_coll_algorithms::{all, by_name};
use sohu_coll_conformance::Seeded;
use sohu_coll_core::kernel::Store;
use sohu_coll_core::link::Links;
use sohu_coll_core::plan::{Algorithm, Job, Room};
use sohu_coll_core::{Collective, DType, Rank, ReduceOp};
use sohu_coll_shm::{HeapBytes, ShmLinks};

const HEAP: usize = 64 << 20;

fn pick<T: Copy>(random: &mut Seeded, from: &[T]) -> T {
    from[random.below(from.len())]
}

fn draw<'a>(random: &mut Seeded, algorithm: &'a dyn Algorithm, job: Job, registered: bool) -> Call<'a> {
    Call {
        algorithm,
        job: Job {
            root: Rank(if job.collective.rooted() { random.below(job.size as usize) as u32 } else { 0 }),
            pieces: pick(random, &[1, 1, 2, 4]),
            ..job
        },
        dtype: pick(random, &[DType::F32, DType::I64, DType::Bf16]),
        op: pick(random, &ReduceOp::ALL),
        count: pick(random, &[0, 1, 7, 64, 1000, 5003, 9000, 40_000]),
        slice: pick(random, &[64, 4096, 1 << 16]),
        room: if registered { Room::Chunk } else { Room::Slice },
        registered,
        store: pick(random, &[Store::Cached, Store::Streaming]),
    }
}

fn registered(links: &ShmLinks, len: usize) -> HeapBytes {
    links.heap().alloc(len).expect("the heap has room")
}

fn private(_: &ShmLinks, len: usize) -> Vec<u8> {
    vec![0; len]
}

/// Runs three calls of one algorithm in a row, all of it decided by `seed`.
fn simulate(seed: u64, algorithm: &dyn Algorithm, job: Job, in_heap: bool, staging_bytes: usize) {
    let mut random = Seeded::new(seed);
    let calls: Vec<Vec<Call<'_>>> =
        (0..3).map(|_| vec![draw(&mut random, algorithm, job, in_heap); job.size as usize]).collect();
    let links = join::links(job.size, staging_bytes, HEAP);
    let endings =
        if in_heap { run(seed, links, &calls, registered) } else { run(seed, links, &calls, private) };
    for ending in endings.iter().flatten() {
        assert_eq!(ending.result, Some(Ok(())), "seed {seed}");
    }
}

fn every_algorithm(first_seed: u64, in_heap: bool, staging_bytes: usize) {
    let mut seed = first_seed;
    for &algorithm in all() {
        for collective in Collective::ALL {
            for size in [2, 3, 4, 7] {
                for in_place in [false, true] {
                    let job = Job { in_place, ..Job::new(collective, size) };
                    if algorithm.fits(&job) {
                        seed += 10;
                        simulate(seed, algorithm, job, in_heap, staging_bytes);
                    }
                }
            }
        }
    }
}

#[test]
fn registered_buffers_end_right() {
    every_algorithm(1_000_000, true, 1 << 20);
}

#[test]
fn registered_buffers_end_right_with_the_least_staging() {
    every_algorithm(2_000_000, true, 4096);
}

#[test]
fn private_buffers_end_right() {
    every_algorithm(3_000_000, false, 1 << 20);
}

#[test]
fn private_buffers_end_right_with_the_least_staging() {
    every_algorithm(4_000_000, false, 4096);
}

#[test]
fn a_two_shot_all_reduce_of_four_ranks_ends_with_the_least_staging() {
    let two_shot = by_name("two_shot").expect("there is one");
    for (seed, slice) in [(1, 64), (2, 4096), (3, 1 << 16), (4, 1 << 20)] {
        for in_place in [false, true] {
            let job = Job { in_place, ..Job::new(Collective::AllReduce, 4) };
            let call = Call {
                count: 100_000,
                slice,
                dtype: DType::F32,
                ..draw(&mut Seeded::new(seed), two_shot, job, false)
            };
            let endings = run(seed, join::links(4, 4096, 4096), &[vec![call; 4]], private);
            assert!(endings[0].iter().all(|ending| ending.result == Some(Ok(()))), "seed {seed}");
        }
    }
}

#[test]
fn a_call_that_differs_writes_no_output_byte_on_any_rank() {
    for seed in 0..60 {
        let mut random = Seeded::new(seed);
        let in_place = random.below(2) == 0;
        let job = Job { in_place, ..Job::new(Collective::AllReduce, 4) };
        let fitting: Vec<_> = all().iter().copied().filter(|algorithm| algorithm.fits(&job)).collect();
        let algorithm = fitting[random.below(fitting.len())];
        let call = draw(&mut random, algorithm, job, true);
        let mut calls = vec![call; 4];
        calls[random.below(4)].count += 1;
        let endings = run(seed, join::links(4, 1 << 16, HEAP), &[calls], registered).remove(0);
        for (rank, ending) in endings.iter().enumerate() {
            assert!(matches!(ending.result, Some(Err(_))), "seed {seed}: rank {rank}: {:?}", ending.result);
            assert!(ending.unchanged, "seed {seed}: the output of rank {rank} was written");
        }
    }
}

#[test]
fn links_say_that_they_lend() {
    let links = join::links(2, 4096, 4096);
    assert!(links[0].caps(Rank(1)).lends);
}
