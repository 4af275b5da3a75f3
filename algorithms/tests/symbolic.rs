//! Proves every algorithm on symbols. That the proof notices what is wrong is for `rejected.rs`.

mod common;

use common::{all_reduce, programs};
use sohu_coll_algorithms::{Chains, OneShot, all, by_name};
use sohu_coll_core::exec::bind::inputs;
use sohu_coll_core::plan::check::check;
use sohu_coll_core::plan::fuse::fuse_for;
use sohu_coll_core::plan::{Action, Algorithm, Job, Room, Source, fuse};
use sohu_coll_core::plan::{input, output};
use sohu_coll_core::{Collective, Rank};

const SIZE_MAX: u32 = 33;

fn roots(collective: Collective, size: u32) -> u32 {
    if collective.rooted() { size } else { 1 }
}

/// On how many cores: most algorithms do not ask. Few ranks are on any number, more of them on some.
fn cores(algorithm: &dyn Algorithm, size: u32) -> Vec<u32> {
    match algorithm.name() {
        "chains" if size <= 10 => (1..=size).collect(),
        "chains" => vec![1, 2, 3, 4, 7],
        _ => vec![size],
    }
}

/// Calls `visit` for every job that the algorithm fits.
fn each_job(algorithm: &dyn Algorithm, collective: Collective, mut visit: impl FnMut(&Job)) {
    for size in 1..=SIZE_MAX {
        for root in (0..roots(collective, size)).map(Rank) {
            let places = [(false, 1), (true, 1), (false, 2), (true, 2)].into_iter();
            for ((in_place, pieces), cores) in
                places.flat_map(|place| cores(algorithm, size).into_iter().map(move |c| (place, c)))
            {
                let job = Job { collective, size, root, in_place, pieces, cores };
                let whole = Job { pieces: 1, ..job };
                // Most algorithms write the same whatever the pieces; for the others, some roots do.
                let some_root = [0, size / 2, size - 1].contains(&root.0);
                let cut = some_root && algorithm.chunks(&job) != algorithm.chunks(&whole);
                if algorithm.fits(&job) && (pieces == 1 || cut) {
                    visit(&job);
                }
            }
        }
    }
}

fn every_job_passes(collective: Collective) {
    for &algorithm in all() {
        each_job(algorithm, collective, |job| {
            if let Err(error) = check(job, &programs(algorithm, job)) {
                panic!("{} {job:?}: {error}", algorithm.name());
            }
        });
    }
}

#[test]
fn every_all_reduce_passes() {
    every_job_passes(Collective::AllReduce);
}

#[test]
fn every_reduce_scatter_passes() {
    every_job_passes(Collective::ReduceScatter);
}

#[test]
fn every_all_gather_passes() {
    every_job_passes(Collective::AllGather);
}

#[test]
fn every_broadcast_passes() {
    every_job_passes(Collective::Broadcast);
}

#[test]
fn every_reduce_passes() {
    every_job_passes(Collective::Reduce);
}

#[test]
fn every_gather_passes() {
    every_job_passes(Collective::Gather);
}

#[test]
fn every_scatter_passes() {
    every_job_passes(Collective::Scatter);
}

#[test]
fn every_all_to_all_passes() {
    every_job_passes(Collective::AllToAll);
}

#[test]
fn folds_of_more_ranks_than_one_pass_takes_still_give_equal_bits() {
    for size in [64, 65, 66] {
        for in_place in [false, true] {
            let job = Job { in_place, ..all_reduce(size) };
            check(&job, &programs(&OneShot, &job)).unwrap();
            // A core each: as many chains end at each part.
            check(&job, &programs(&Chains, &job)).unwrap();
        }
    }
}

#[test]
fn every_collective_has_two_algorithms_or_more_at_every_size() {
    for collective in Collective::ALL {
        for size in 1..=SIZE_MAX {
            let job = Job::new(collective, size);
            assert!(all().iter().filter(|a| a.fits(&job)).count() >= 2, "{collective} of {size}");
        }
    }
}

#[test]
fn names_find_their_algorithm() {
    for &algorithm in all() {
        assert_eq!(by_name(algorithm.name()).map(|a| a.name()), Some(algorithm.name()));
    }
    assert!(by_name("rings").is_none());
}

#[test]
fn what_takes_more_ranks_does_not_fit_fewer() {
    let least = |name, collective| {
        (1..=SIZE_MAX).find(|&size| by_name(name).unwrap().fits(&Job::new(collective, size)))
    };
    for collective in [Collective::AllReduce, Collective::Broadcast, Collective::Reduce] {
        assert_eq!(least("double_tree", collective), Some(3));
    }
    assert_eq!(least("halving_doubling", Collective::AllReduce), Some(4));
}

#[test]
fn trees_take_as_many_hops_as_the_ranks_double() {
    for (size, hops) in [(2, 1), (4, 2), (8, 3), (16, 4), (32, 5)] {
        for (name, collective) in [
            ("binomial", Collective::Reduce),
            ("binomial", Collective::Gather),
            ("binomial", Collective::Scatter),
            ("bruck", Collective::AllToAll),
        ] {
            let job = Job::new(collective, size);
            let report = check(&job, &programs(by_name(name).unwrap(), &job)).unwrap();
            assert_eq!(report.hops, hops, "{name}, {collective} of {size}");
        }
    }
}

#[test]
fn bruck_sends_a_message_for_each_hop_and_the_first_straight_out_of_the_input() {
    let job = Job::new(Collective::AllToAll, 8);
    let programs = programs(by_name("bruck").unwrap(), &job);
    let report = check(&job, &programs).unwrap();
    assert_eq!(report.messages, 3 * 8);
    assert!(matches!(programs[4].steps[0].action, Action::Send { from, .. } if from == input(4 * 8, 4)));
}

#[test]
fn a_one_shot_all_reduce_is_two_passes_in_rank_order() {
    for in_place in [false, true] {
        let job = Job { in_place, ..Job::new(Collective::AllReduce, 4) };
        for rank in (0..4).map(Rank) {
            let passes = fuse::fuse(&by_name("one_shot").unwrap().program(&job, rank));
            let [send, fold] = passes.passes.as_slice() else { panic!("{passes:?}") };
            let expected: Vec<Source> = (0..4)
                .map(|r| if r == rank.0 { Source::Local(input(0, 1)) } else { Source::Peer(Rank(r)) })
                .collect();
            assert_eq!((send.to.len(), &fold.sources, fold.into), (3, &expected, Some(output(0, 1))));
            assert!(fold.finishes);
            assert_eq!(passes.scratch_chunks, 0, "the fold stores straight into the output");
        }
    }
}

#[test]
fn a_two_shot_fold_forwards_in_the_same_pass_only_with_room_for_a_chunk() {
    let job = Job::new(Collective::AllReduce, 4);
    let program = by_name("two_shot").unwrap().program(&job, Rank(1));
    let forwards = |room| {
        let passes = fuse_for(&program, room).passes;
        passes.iter().find(|p| p.sources.len() == 4).expect("one fold of four").to.len()
    };
    assert_eq!((forwards(Room::Slice), forwards(Room::Chunk)), (0, 3));
}

#[test]
fn a_ring_with_room_for_a_chunk_stores_no_partial_results() {
    let job = Job::new(Collective::ReduceScatter, 5);
    let passes = fuse_for(&by_name("ring").unwrap().program(&job, Rank(2)), Room::Chunk);
    assert_eq!(passes.scratch_chunks, 0);
    assert_eq!(passes.passes.len(), 5, "one send, three that pass on, one that ends");
    assert!(passes.passes[1..4].iter().all(|p| p.into.is_none() && p.to == [Rank(3)]));
}

#[test]
fn a_binomial_broadcast_receives_and_forwards_in_one_pass() {
    let job = Job::new(Collective::Broadcast, 8);
    let passes = fuse::fuse(&by_name("recursive_doubling").unwrap().program(&job, Rank(4))).passes;
    assert_eq!((passes.len(), passes[0].to.as_slice()), (1, [Rank(6), Rank(5)].as_slice()));
}

#[test]
fn the_report_counts_hops_and_messages() {
    let report = |name: &str, size| {
        let job = all_reduce(size);
        let report = check(&job, &programs(by_name(name).unwrap(), &job)).unwrap();
        (report.hops, report.messages)
    };
    assert_eq!(report("one_shot", 8), (1, 8 * 7));
    assert_eq!(report("two_shot", 8), (2, 2 * 8 * 7));
    assert_eq!(report("ring", 8), (14, 14 * 8));
    assert_eq!(report("recursive_doubling", 8), (3, 3 * 8));
    assert_eq!(report("recursive_doubling", 7), (4, 2 * 4 + 2 * 3));
    assert_eq!(report("halving_doubling", 8), (6, 6 * 8));
    assert_eq!(report("halving_doubling", 7), (6, 4 * 4 + 2 * 3));
    // Two trees of 7 edges, three hops deep, up and down.
    assert_eq!(report("double_tree", 8), (6, 2 * 7 * 2));
}

/// What a rank multiplies its input by must reach all of it, and nothing that is not its input any more.
#[test]
fn every_input_is_read_as_it_was_given_and_told_from_what_is_not() {
    for &algorithm in all() {
        for collective in [Collective::AllReduce, Collective::ReduceScatter, Collective::Reduce] {
            each_job(algorithm, collective, |job| {
                for program in programs(algorithm, job).iter().filter(|_| job.size > 1) {
                    for room in [Room::Slice, Room::Chunk] {
                        let passes = fuse_for(program, room);
                        let mut read = vec![false; program.chunks as usize];
                        for (pass, place) in passes.passes.iter().zip(inputs(program, &passes)) {
                            if let Some(Source::Local(chunks)) = place.map(|place| pass.sources[place]) {
                                let range = chunks.first as usize..(chunks.first + chunks.count) as usize;
                                read[range].fill(true);
                            }
                        }
                        let what = format!("{} {job:?}, {}", algorithm.name(), program.rank);
                        assert!(!read.contains(&false), "{what}: some of the input is never read");
                    }
                }
            });
        }
    }
}
