//! The executor over links in memory that stumble by seed: every algorithm, every collective, every byte.
//!
//! A failing run prints its seed and its calls.

mod simulate;

use simulate::{Call, Ending, run};
use sohu_coll_algorithms::{all, by_name};
use sohu_coll_conformance::{Faults, LoopLinks, Seeded};
use sohu_coll_core::error::LinkError;
use sohu_coll_core::kernel::Store;
use sohu_coll_core::plan::{Algorithm, Job, Room, Writer, input, output};
use sohu_coll_core::{Collective, DType, Rank, ReduceOp};

/// Runs for one algorithm, collective, number of ranks and place.
const DRAWS: u64 = 5;

/// Bytes of a call from which on links do not move byte by byte: a run would take seconds.
const CRUMBS_MAX: usize = 20_000;

fn pick<T: Copy>(random: &mut Seeded, from: &[T]) -> T {
    from[random.below(from.len())]
}

/// A call of the given kind with everything else drawn.
fn draw<'a>(random: &mut Seeded, algorithm: &'a dyn Algorithm, job: Job) -> Call<'a> {
    Call {
        algorithm,
        job: Job {
            root: Rank(if job.collective.rooted() { random.below(job.size as usize) as u32 } else { 0 }),
            pieces: pick(random, &[1, 1, 2, 3]),
            cores: pick(random, &[1, 2, 3, job.size]).min(job.size),
            ..job
        },
        dtype: pick(random, &[DType::F32, DType::I64, DType::Bf16]),
        op: pick(random, &ReduceOp::ALL),
        count: pick(random, &[0, 1, 7, 64, 1000]),
        slice: pick(random, &[64, 128, 1024, 4096]),
        room: pick(random, &[Room::Slice, Room::Chunk]),
        registered: false,
        store: pick(random, &[Store::Cached, Store::Streaming]),
    }
}

/// The most bytes that one pass of the calls sends.
fn longest(calls: &[Call<'_>]) -> usize {
    let bytes = |call: &Call<'_>| call.count * call.dtype.size() * call.job.size as usize;
    calls.iter().map(bytes).max().unwrap_or(0)
}

/// Faults that leave the links with as much room as the calls are planned for.
fn faults(random: &mut Seeded, calls: &[Call<'_>]) -> Faults {
    let slice = calls.iter().map(|call| call.slice).max().unwrap_or(0);
    let chunk = calls.iter().any(|call| call.room == Room::Chunk);
    let least = if chunk { longest(calls) + slice } else { slice };
    let pieces: &[usize] =
        if longest(calls) <= CRUMBS_MAX { &[1, 3, 13, 64, usize::MAX] } else { &[13, 333, usize::MAX] };
    Faults {
        seed: random.next(),
        max_piece: pick(random, pieces),
        refuse_percent: pick(random, &[0, 0, 20, 60]),
        misses_percent: pick(random, &[0, 50, 100]),
        break_after: None,
        window_bytes: least + pick(random, &[0, 0, 5, 1 << 16]),
        lends_from: usize::MAX,
    }
}

fn same_on_all(call: Call<'_>) -> Vec<Call<'_>> {
    vec![call; call.job.size as usize]
}

/// Buffers for [`run`], on no boundary in particular.
fn memory(_: &LoopLinks, len: usize) -> Vec<u8> {
    vec![0; len]
}

/// Calls `visit` with every algorithm that does `collective` on each of `sizes`, in place and not.
fn each_job(
    collective: Collective,
    sizes: impl Iterator<Item = u32> + Clone,
    mut visit: impl FnMut(&'static dyn Algorithm, Job),
) {
    for &algorithm in all() {
        for size in sizes.clone() {
            for in_place in [false, true] {
                let job = Job { in_place, ..Job::new(collective, size) };
                if algorithm.fits(&job) {
                    visit(algorithm, job);
                }
            }
        }
    }
}

/// Three calls in a row, the first as given and the others of any kind that the algorithm does.
fn three<'a>(random: &mut Seeded, algorithm: &'a dyn Algorithm, job: Job) -> Vec<Vec<Call<'a>>> {
    let mut calls = vec![same_on_all(draw(random, algorithm, job))];
    while calls.len() < 3 {
        let collective = pick(random, &Collective::ALL);
        let next = Job { in_place: random.below(2) == 0, ..Job::new(collective, job.size) };
        if algorithm.fits(&next) {
            calls.push(same_on_all(draw(random, algorithm, next)));
        }
    }
    calls
}

fn every_call_ends_right(collective: Collective) {
    let mut seed = collective as u64 * 1_000_000;
    each_job(collective, (1..=9).chain([16, 17]), |algorithm, job| {
        let draws = if job.size > 9 { 1 } else { DRAWS };
        for _ in 0..draws {
            seed += 10;
            simulate(seed, algorithm, job);
        }
    });
}

/// One run, all of it decided by `seed`.
fn simulate(seed: u64, algorithm: &dyn Algorithm, job: Job) {
    let mut random = Seeded::new(seed);
    let calls = three(&mut random, algorithm, job);
    let shape: Vec<Call<'_>> = calls.iter().map(|calls| calls[0]).collect();
    let links = LoopLinks::fabric(job.size, faults(&mut random, &shape));
    let endings = run(seed, links, &calls, memory);
    for ending in endings.iter().flatten() {
        assert_eq!(ending.result, Some(Ok(())), "seed {seed}");
    }
}

#[test]
fn all_reduces_end_right_over_links_that_stumble() {
    every_call_ends_right(Collective::AllReduce);
}

#[test]
fn reduce_scatters_end_right_over_links_that_stumble() {
    every_call_ends_right(Collective::ReduceScatter);
}

#[test]
fn all_gathers_end_right_over_links_that_stumble() {
    every_call_ends_right(Collective::AllGather);
}

#[test]
fn broadcasts_end_right_over_links_that_stumble() {
    every_call_ends_right(Collective::Broadcast);
}

#[test]
fn reduces_end_right_over_links_that_stumble() {
    every_call_ends_right(Collective::Reduce);
}

#[test]
fn gathers_end_right_over_links_that_stumble() {
    every_call_ends_right(Collective::Gather);
}

#[test]
fn scatters_end_right_over_links_that_stumble() {
    every_call_ends_right(Collective::Scatter);
}

#[test]
fn all_to_alls_end_right_over_links_that_stumble() {
    every_call_ends_right(Collective::AllToAll);
}

#[test]
fn a_link_that_breaks_ends_every_rank_and_those_that_end_well_are_right() {
    let mut failed = 0;
    for collective in Collective::ALL {
        each_job(collective, 2..=6, |algorithm, job| {
            for draw_number in 0..4 {
                let seed = 77_000_000 + 1000 * failed + draw_number;
                let mut random = Seeded::new(seed);
                let call = Call { count: 64, ..draw(&mut random, algorithm, job) };
                let bytes = call.count * call.dtype.size();
                let broken = Rank(random.below(job.size as usize) as u32);
                let after = random.below(bytes) as u64;
                let faults = Faults { break_after: Some((broken, after)), ..faults(&mut random, &[call]) };
                let links = LoopLinks::fabric(job.size, faults);
                let endings = run(seed, links, &[same_on_all(call)], memory).remove(0);
                let ended = endings.iter().all(|ending| ending.result.is_some());
                assert!(ended, "seed {seed}: a rank hangs: {endings:?} {call:?} {faults:?}");
                for error in endings.iter().filter_map(error) {
                    assert!(matches!(error, LinkError::Closed { .. }), "seed {seed}: {error}");
                }
                failed += u64::from(endings.iter().any(|ending| error(ending).is_some()));
            }
        });
    }
    assert!(failed > 100, "only {failed} runs broke");
}

fn error(ending: &Ending) -> Option<&LinkError> {
    ending.result.as_ref().and_then(|result| result.as_ref().err())
}

/// The call that one rank makes instead.
fn other<'a>(random: &mut Seeded, call: Call<'a>) -> Call<'a> {
    match random.below(4) {
        0 => Call { count: call.count + 1 + random.below(100), ..call },
        1 => Call { dtype: if call.dtype == DType::F32 { DType::I64 } else { DType::F32 }, ..call },
        2 if call.job.collective.reduces() => {
            Call { op: if call.op == ReduceOp::Sum { ReduceOp::Max } else { ReduceOp::Sum }, ..call }
        }
        _ => {
            let next = (call.job.collective as usize) % Collective::ALL.len();
            let job = Job { collective: Collective::ALL[next], ..call.job };
            Call { algorithm: by_name("one_shot").expect("it does everything"), job, ..call }
        }
    }
}

#[test]
fn ranks_that_make_other_calls_are_told_before_any_output_byte_of_theirs_is_written() {
    let mut seed = 88_000_000;
    let mut left = 0;
    for collective in Collective::ALL {
        each_job(collective, 2..=5, |algorithm, job| {
            for _ in 0..4 {
                seed += 1;
                let mut random = Seeded::new(seed);
                let call = draw(&mut random, algorithm, job);
                let mut calls = same_on_all(call);
                let odd = random.below(calls.len());
                calls[odd] = other(&mut random, call);
                // Who leaves the call before it hears of the odd one is told in a call that all wait for.
                let algorithm = by_name("one_shot").expect("it does everything");
                let next =
                    Call { algorithm, job: Job::new(Collective::AllReduce, job.size), count: 3, ..call };
                let links = LoopLinks::fabric(job.size, faults(&mut random, &calls));
                let endings = run(seed, links, &[calls, same_on_all(next)], memory);
                let both = || endings[0].iter().zip(&endings[1]).enumerate();
                for (rank, (first, second)) in both() {
                    let told = error(first).or(error(second));
                    let good = matches!(told, Some(LinkError::Mismatch { .. } | LinkError::Closed { .. }));
                    assert!(good, "seed {seed}: rank {rank} ended with {first:?}, {second:?}");
                    assert!(
                        second.unchanged,
                        "seed {seed}: rank {rank} wrote in a call that is not its peers'"
                    );
                    let is_left = first.result == Some(Ok(()));
                    assert!(is_left || first.unchanged, "seed {seed}: output of rank {rank} was written");
                    left += u32::from(is_left);
                }
                let mismatch = |ending: &Ending| matches!(error(ending), Some(LinkError::Mismatch { .. }));
                let told = both().any(|(_, (first, second))| mismatch(first) || mismatch(second));
                assert!(told, "seed {seed}: nobody was told why");
            }
        });
    }
    assert!(left > 10, "only {left} ranks left a call early");
}

/// Every rank receives before it sends what the other waits for.
struct Stuck;

impl Algorithm for Stuck {
    fn name(&self) -> &'static str {
        "stuck"
    }

    fn fits(&self, _: &Job) -> bool {
        true
    }

    fn chunks(&self, _: &Job) -> u32 {
        1
    }

    fn write(&self, _: &Job, p: &mut Writer) {
        let peer = Rank(1 - p.rank().0);
        p.recv(output(0, 1), peer);
        p.send(output(0, 1), peer);
        p.recv(output(0, 1), peer);
        p.send(input(0, 1), peer);
    }
}

#[test]
#[should_panic(expected = "rank 1 waits in call 0 for rank 0 at pass 1 of ")]
fn a_deadlock_says_what_each_rank_waits_for() {
    let call = Call { count: 64, ..draw(&mut Seeded::new(1), &Stuck, Job::new(Collective::AllReduce, 2)) };
    let links = LoopLinks::fabric(2, Faults { seed: 1, refuse_percent: 20, ..Faults::NONE });
    run(1, links, &[same_on_all(call)], memory);
}

#[test]
fn the_same_seed_ends_the_same_way() {
    let once = || {
        let job = Job::new(Collective::AllReduce, 4);
        let call = Call { count: 1000, ..draw(&mut Seeded::new(5), by_name("ring").expect("a ring"), job) };
        let faults = Faults {
            break_after: Some((Rank(2), 999)),
            max_piece: 7,
            refuse_percent: 30,
            seed: 5,
            ..Faults::NONE
        };
        run(5, LoopLinks::fabric(4, faults), &[same_on_all(call)], memory)
    };
    assert_eq!(once(), once());
}
