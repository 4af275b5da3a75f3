//! The proof notices what is wrong: plans of the library with one thing changed, and plans that never were right.

mod common;

use common::{all_reduce, programs};
use sohu_coll_algorithms::{all, by_name};
use sohu_coll_core::plan::check::{PlanError, Reason, check};
use sohu_coll_core::plan::{Action, Job, Program, Writer};
use sohu_coll_core::plan::{input, output, scratch};
use sohu_coll_core::{Collective, Rank};

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
    let mut writer = Writer::new(program.job, program.rank, program.chunks).bounded(program.outstanding_max);
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

#[test]
fn an_unchanged_rewrite_passes() {
    for job in Collective::ALL.map(|collective| Job::new(collective, 4)) {
        for &algorithm in all().iter().filter(|a| a.fits(&job)) {
            let again: Vec<Program> = programs(algorithm, &job).iter().map(|p| rewrite(p, |_| {})).collect();
            check(&job, &again).unwrap();
        }
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
fn waits_that_do_not_keep_the_stated_bound_are_rejected() {
    let job = Job::new(Collective::AllToAll, 20);
    for bound in [None, Some(15), Some(17)] {
        let mut programs = programs(by_name("pairwise").expect("there is one"), &job);
        assert_eq!(programs[3].outstanding_max, Some(16));
        programs[3].outstanding_max = bound;
        let error = check(&job, &programs).expect_err("the waits are those of another bound");
        assert_eq!(error.reason, Reason::WrongEdges, "{bound:?}");
    }
}

#[test]
fn blocks_in_each_others_places_are_rejected() {
    for (name, collective, rank) in [
        ("binomial", Collective::Gather, 0),
        ("one_shot", Collective::Gather, 0),
        ("one_shot", Collective::AllToAll, 2),
    ] {
        let error = verdict(name, &Job::new(collective, 4), rank, |steps| {
            let own: Vec<usize> =
                (0..steps.len()).filter(|&i| matches!(steps[i].0, Action::Recv { .. })).collect();
            let runs: Vec<_> = own.iter().map(|&i| steps[i].0).collect();
            let [Action::Recv { into: one, .. }, .., Action::Recv { into: other, .. }] = runs[..] else {
                panic!("{runs:?}")
            };
            for &at in &own {
                if let Action::Recv { into, .. } = &mut steps[at].0 {
                    let first = if *into == one { other.first } else { one.first };
                    *into = if *into == one || *into == other { output(first, into.count) } else { *into };
                }
            }
        });
        assert!(
            matches!(error.reason, Reason::WrongResult { .. } | Reason::NoResult { .. }),
            "{name}: {error}"
        );
    }
    // Scattered from the wrong block.
    let error = verdict("binomial", &Job::new(Collective::Scatter, 4), 0, |steps| {
        for (action, _) in steps.iter_mut() {
            if let Action::Send { from, .. } = action {
                *from = input(0, from.count);
            }
        }
    });
    assert!(matches!(error.reason, Reason::WrongResult { .. }), "{error}");
    let error = verdict("bruck", &Job::new(Collective::AllToAll, 4), 1, |steps| {
        let send = steps.iter_mut().find(|s| matches!(s.0, Action::Send { .. })).unwrap();
        send.0 = Action::Send { from: input(4, 2), peer: Rank(3) };
    });
    assert!(matches!(error.reason, Reason::WrongResult { .. }), "{error}");
}

#[test]
fn a_tree_with_a_fold_twice_or_none_is_rejected() {
    let is_fold = |s: &(Action, bool)| matches!(s.0, Action::RecvReduce { .. });
    for name in ["double_tree", "binomial"] {
        let job = Job::new(Collective::Reduce, 6);
        let error = verdict(name, &job, 0, |steps| {
            let last = steps.iter().rposition(is_fold).unwrap();
            steps.remove(last);
        });
        assert!(matches!(error.reason, Reason::Untaken { .. }), "{name}: {error}");
        let error = verdict(name, &job, 0, |steps| {
            let last = steps.iter().rposition(is_fold).unwrap();
            let Action::RecvReduce { into, .. } = steps[last].0 else { unreachable!() };
            let again = Action::Reduce { from: input(into.first, 1), into };
            steps.insert(last, (again, false));
        });
        assert!(matches!(error.reason, Reason::ReducedTwice { .. }), "{name}: {error}");
    }
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
    let error = verdict("one_shot", &Job::new(Collective::Broadcast, 2), 0, |steps| {
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
    assert!(error.to_string().contains("rejected.rs:"), "{error}");
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
