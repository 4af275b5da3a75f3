//! Proves every algorithm on symbols, and that the proof notices what is wrong.

use sohu_coll_algorithms::{OneShot, all, by_name};
use sohu_coll_core::plan::check::{PlanError, Reason, check};
use sohu_coll_core::plan::{Action, Algorithm, Job, Program, Room, Source, Writer, fuse};
use sohu_coll_core::plan::{input, output, scratch};
use sohu_coll_core::{Collective, Rank};

const SIZE_MAX: u32 = 33;

fn programs(algorithm: &dyn Algorithm, job: &Job) -> Vec<Program> {
    (0..job.size).map(|rank| algorithm.program(job, Rank(rank))).collect()
}

fn roots(collective: Collective, size: u32) -> u32 {
    if collective.rooted() { size } else { 1 }
}

/// Calls `visit` for every job that the algorithm fits.
fn each_job(algorithm: &dyn Algorithm, collective: Collective, mut visit: impl FnMut(&Job)) {
    for size in 1..=SIZE_MAX {
        for root in (0..roots(collective, size)).map(Rank) {
            for (in_place, pieces) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
                let job = Job { collective, size, root, in_place, pieces };
                if algorithm.fits(&job) {
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
fn folds_of_more_ranks_than_one_pass_takes_still_give_equal_bits() {
    for size in [64, 65, 66] {
        for in_place in [false, true] {
            let job = Job { in_place, ..all_reduce(size) };
            check(&job, &programs(&OneShot, &job)).unwrap();
        }
    }
}

#[test]
fn every_collective_has_three_algorithms_or_more_at_every_size() {
    for collective in Collective::ALL {
        for size in 1..=SIZE_MAX {
            let job = Job::new(collective, size);
            assert!(all().iter().filter(|a| a.fits(&job)).count() >= 3, "{collective} of {size}");
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
        let passes = fuse::fuse_for(&program, room).passes;
        passes.iter().find(|p| p.sources.len() == 4).expect("one fold of four").to.len()
    };
    assert_eq!((forwards(Room::Slice), forwards(Room::Chunk)), (0, 3));
}

#[test]
fn a_ring_with_room_for_a_chunk_stores_no_partial_results() {
    let job = Job::new(Collective::ReduceScatter, 5);
    let passes = fuse::fuse_for(&by_name("ring").unwrap().program(&job, Rank(2)), Room::Chunk);
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

/// Writes an action again.
fn emit(p: &mut Writer, action: Action) {
    match action {
        Action::Copy { from, into } => p.copy(from, into),
        Action::Reduce { from, into } => p.reduce(from, into),
        Action::Send { from, peer } => p.send(from, peer),
        Action::Recv { into, peer } => p.recv(into, peer),
        Action::RecvReduce { into, peer } => p.recv_reduce(into, peer),
    }
}

/// The program with its steps changed, and its dependencies derived again.
fn rewrite(program: &Program, change: impl FnOnce(&mut Vec<(Action, bool)>)) -> Program {
    let mut steps: Vec<(Action, bool)> = program.steps.iter().map(|s| (s.action, s.finishes)).collect();
    change(&mut steps);
    let mut writer = Writer::new(program.job, program.rank, program.chunks);
    for (action, finishes) in steps {
        emit(&mut writer, action);
        if let (true, Action::Reduce { into, .. } | Action::RecvReduce { into, .. }) = (finishes, action) {
            writer.finishes(into);
        }
    }
    writer.finish()
}

/// What the check says once rank `rank`'s program of that algorithm is changed.
fn verdict(
    algorithm: &str,
    job: &Job,
    rank: usize,
    change: impl FnOnce(&mut Vec<(Action, bool)>),
) -> PlanError {
    let mut programs = programs(by_name(algorithm).expect("tests name algorithms that there are"), job);
    programs[rank] = rewrite(&programs[rank], change);
    check(job, &programs).expect_err("a wrong plan passed")
}

fn all_reduce(size: u32) -> Job {
    Job::new(Collective::AllReduce, size)
}

#[test]
fn an_unchanged_rewrite_passes() {
    let job = all_reduce(4);
    for &algorithm in all() {
        let again: Vec<Program> = programs(algorithm, &job).iter().map(|p| rewrite(p, |_| {})).collect();
        check(&job, &again).unwrap();
    }
}

#[test]
fn swapped_sends_are_rejected() {
    // Rank 1's two gather sends to rank 2 trade places: right bytes in the wrong chunks.
    let error = verdict("ring", &all_reduce(4), 1, |steps| {
        let sends: Vec<usize> =
            (0..steps.len()).filter(|&i| matches!(steps[i].0, Action::Send { .. })).collect();
        steps.swap(sends[0], sends[1]);
    });
    assert!(matches!(error.reason, Reason::UnequalMessage { .. }), "{error}");
    // Blocks are equally long, so there the contents tell.
    let job = Job::new(Collective::ReduceScatter, 4);
    let error = verdict("one_shot", &job, 1, |steps| {
        for (action, _) in steps.iter_mut() {
            if let Action::Send { from, peer } = action {
                *from = input((peer.0 + 1) % 4, 1);
            }
        }
    });
    assert!(matches!(error.reason, Reason::MixedChunks { .. }), "{error}");
    let error = verdict("one_shot", &Job::new(Collective::AllGather, 4), 0, |steps| {
        for (action, _) in steps.iter_mut() {
            if let Action::Recv { into, .. } = action {
                *into = output(4 - into.first, 1);
            }
        }
    });
    assert!(matches!(error.reason, Reason::WrongResult { .. }), "{error}");
}

#[test]
fn a_send_to_another_rank_is_rejected() {
    let error = verdict("one_shot", &all_reduce(3), 0, |steps| {
        if let Action::Send { peer, .. } = &mut steps[0].0 {
            *peer = Rank(2);
        }
    });
    assert!(matches!(error.reason, Reason::Untaken { .. } | Reason::Unsent { .. }), "{error}");
}

#[test]
fn a_missing_receive_is_rejected() {
    for algorithm in ["one_shot", "two_shot", "ring", "recursive_doubling"] {
        let error = verdict(algorithm, &Job::new(Collective::Broadcast, 5), 3, |steps| {
            steps.retain(|s| !matches!(s.0, Action::Recv { .. }));
        });
        assert!(matches!(error.reason, Reason::Untaken { peer: Rank(3) }), "{algorithm}: {error}");
    }
}

#[test]
fn a_missing_send_is_rejected() {
    let error = verdict("ring", &all_reduce(3), 2, |steps| {
        let last = steps.iter().rposition(|s| matches!(s.0, Action::Send { .. })).unwrap();
        steps.remove(last);
    });
    assert!(matches!(error.reason, Reason::Unsent { peer: Rank(2) }), "{error}");
}

#[test]
fn a_double_reduce_is_rejected() {
    let error = verdict("one_shot", &all_reduce(3), 1, |steps| {
        steps.insert(4, (Action::Reduce { from: input(0, 1), into: output(0, 1) }, false));
    });
    assert!(matches!(error.reason, Reason::ReducedTwice { rank: Rank(1), chunk: 0 }), "{error}");
}

#[test]
fn a_fold_in_another_order_is_rejected() {
    let error = verdict("one_shot", &all_reduce(4), 2, |steps| {
        let folds: Vec<usize> =
            (0..steps.len()).filter(|&i| matches!(steps[i].0, Action::RecvReduce { .. })).collect();
        // Its own input last, instead of third: the mark moves with the place.
        let own = steps.iter().position(|s| matches!(s.0, Action::Reduce { .. })).unwrap();
        let last = *folds.last().unwrap();
        let (a, b) = (steps[own].0, steps[last].0);
        (steps[own].0, steps[last].0) = (b, a);
    });
    assert!(matches!(error.reason, Reason::UnequalBits { chunk: 0, .. }), "{error}");
}

#[test]
fn rounding_in_another_place_is_rejected() {
    // Three ranks fold all in one pass; rank 0 stores a partial result and folds that on. As steps it is
    // the same fold, but it rounds twice.
    let job = all_reduce(3);
    let error = verdict("one_shot", &job, 0, |steps| {
        steps.pop();
        steps.push((Action::Copy { from: output(0, 1), into: scratch(0, 1) }, false));
        steps.push((Action::RecvReduce { into: scratch(0, 1), peer: Rank(2) }, true));
        steps.push((Action::Copy { from: scratch(0, 1), into: output(0, 1) }, false));
    });
    assert!(matches!(error.reason, Reason::UnequalBits { .. }), "{error}");
}

#[test]
fn a_missing_mark_is_rejected() {
    for algorithm in ["one_shot", "two_shot", "ring", "recursive_doubling"] {
        let error = verdict(algorithm, &all_reduce(4), 1, |steps| {
            steps.iter_mut().for_each(|s| s.1 = false);
        });
        assert!(matches!(error.reason, Reason::Unmarked { .. }), "{algorithm}: {error}");
    }
}

#[test]
fn a_mark_on_a_partial_result_is_rejected() {
    let error = verdict("ring", &all_reduce(4), 1, |steps| {
        let first = steps.iter_mut().find(|s| matches!(s.0, Action::RecvReduce { .. })).unwrap();
        first.1 = true;
    });
    assert!(matches!(error.reason, Reason::MarkedEarly { .. }), "{error}");
}

#[test]
fn a_write_to_the_input_is_rejected() {
    let error = verdict("one_shot", &Job::new(Collective::Broadcast, 2), 1, |steps| {
        steps.push((Action::Copy { from: output(0, 1), into: input(0, 1) }, false));
    });
    assert!(matches!(error.reason, Reason::WritesInput { .. }), "{error}");
    // In place, only this rank's block is its output.
    let job = Job { in_place: true, ..Job::new(Collective::ReduceScatter, 2) };
    let error = verdict("one_shot", &job, 0, |steps| {
        steps.push((Action::Copy { from: input(0, 1), into: input(1, 1) }, false));
    });
    assert!(matches!(error.reason, Reason::WritesInput { .. }), "{error}");
}

#[test]
fn a_read_of_nothing_is_rejected() {
    let error = verdict("one_shot", &Job::new(Collective::Broadcast, 3), 1, |steps| {
        steps.insert(0, (Action::Copy { from: scratch(0, 1), into: output(0, 1) }, false));
    });
    assert!(matches!(error.reason, Reason::Unwritten { .. }), "{error}");
}

/// Two ranks each wait for the other's message before they send their own.
#[test]
fn a_deadlock_is_rejected() {
    let job = Job::new(Collective::AllGather, 2);
    let programs: Vec<Program> = (0..2)
        .map(|rank| {
            let (peer, mut p) = (1 - rank, Writer::new(job, Rank(rank), 2));
            p.copy(input(rank, 1), scratch(rank, 1));
            p.recv(output(peer, 1), Rank(peer));
            p.copy(output(peer, 1), scratch(0, 1));
            p.send(scratch(0, 1), Rank(peer));
            p.copy(input(rank, 1), output(rank, 1));
            p.finish()
        })
        .collect();
    let error = check(&job, &programs).expect_err("a deadlock passed");
    assert!(matches!(error.reason, Reason::Deadlock { .. }), "{error}");
    assert!(error.to_string().contains("symbolic.rs:"), "{error}");
}

/// Each rank takes the other's message only once all of its own is gone, which links that hold less than
/// that never let happen.
#[test]
fn a_plan_that_needs_links_to_hold_whole_messages_is_rejected() {
    let job = all_reduce(2);
    let programs: Vec<Program> = (0..2)
        .map(|rank| {
            let (peer, mut p) = (Rank(1 - rank), Writer::new(job, Rank(rank), 2));
            p.copy(input(0, 2), scratch(0, 2));
            p.send(scratch(0, 1), peer);
            p.send(scratch(1, 1), peer);
            p.copy(input(0, 2), scratch(0, 2));
            for chunk in 0..2 {
                p.recv_reduce(scratch(chunk, 1), peer);
                p.finishes(scratch(chunk, 1));
            }
            p.copy(scratch(0, 2), output(0, 2));
            p.finish()
        })
        .collect();
    let error = check(&job, &programs).expect_err("a deadlock passed");
    assert!(matches!(error.reason, Reason::Deadlock { .. }), "{error}");
}

#[test]
fn programs_of_another_job_are_rejected() {
    let job = all_reduce(3);
    let one_shot = programs(by_name("one_shot").unwrap(), &job);
    assert_eq!(check(&job, &one_shot[..2]).unwrap_err().reason, Reason::NotOnePlan);
    assert_eq!(check(&all_reduce(4), &one_shot).unwrap_err().reason, Reason::NotOnePlan);
}

#[test]
fn steps_without_their_dependencies_are_rejected() {
    let job = all_reduce(3);
    let mut plan = programs(by_name("ring").unwrap(), &job);
    plan[1].steps.last_mut().unwrap().after.clear();
    assert_eq!(check(&job, &plan).unwrap_err().reason, Reason::WrongEdges);
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
}
