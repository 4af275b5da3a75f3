//! How many sends of a rank may be outstanding at once, by the dependencies that were derived.

mod common;

use common::{all_reduce, programs};
use sohu_coll_algorithms::pairwise::OUTSTANDING_MAX;
use sohu_coll_algorithms::{Pairwise, all};
use sohu_coll_core::plan::fuse::{Passes, Room, fuse_for};
use sohu_coll_core::plan::{Action, Algorithm, Edge, Job, Program, Source, Wait, Writer, input, output};
use sohu_coll_core::{Collective, Rank};

/// What is known of a program or of its passes: what each entry waits for, whom it sends to, whom it takes from.
struct Order {
    after: Vec<Vec<Edge>>,
    to: Vec<Vec<Rank>>,
    from: Vec<Vec<Rank>>,
}

impl Order {
    fn of_steps(program: &Program) -> Self {
        let peer = |sends: bool| {
            let of = |action: &Action| match *action {
                Action::Send { peer, .. } if sends => vec![peer],
                Action::Recv { peer, .. } | Action::RecvReduce { peer, .. } if !sends => vec![peer],
                _ => Vec::new(),
            };
            program.steps.iter().map(|step| of(&step.action)).collect()
        };
        let after = program.steps.iter().map(|step| step.after.clone()).collect();
        Self { after, to: peer(true), from: peer(false) }
    }

    fn of_passes(passes: &Passes) -> Self {
        let peers = |sources: &[Source]| {
            let peer = |source: &Source| match *source {
                Source::Peer(peer) => Some(peer),
                Source::Local(_) => None,
            };
            sources.iter().filter_map(peer).collect()
        };
        Self {
            after: passes.passes.iter().map(|pass| pass.after.clone()).collect(),
            to: passes.passes.iter().map(|pass| pass.to.clone()).collect(),
            from: passes.passes.iter().map(|pass| peers(&pass.sources)).collect(),
        }
    }

    /// For each entry, which earlier ones are complete before it begins: what it waits for as a whole, and what lies behind that or behind
    /// what it follows slice by slice.
    fn complete_before(&self) -> Vec<Vec<bool>> {
        let mut complete: Vec<Vec<bool>> = Vec::new();
        let mut touched: Vec<Vec<bool>> = Vec::new();
        for edges in &self.after {
            let (mut whole, mut any) = (vec![false; self.after.len()], vec![false; self.after.len()]);
            for Edge { on, wait } in edges {
                let on = *on as usize;
                any[on] = true;
                whole[on] |= *wait == Wait::Whole;
                for behind in 0..on {
                    any[behind] |= touched[on][behind];
                    whole[behind] |= complete[on][behind] || *wait == Wait::Whole && touched[on][behind];
                }
            }
            complete.push(whole);
            touched.push(any);
        }
        complete
    }

    /// The most sends that can have begun and not be over at one moment, whatever peers do. A send is over when it is complete and so is
    /// what takes the next thing from its peer, if there is such.
    fn outstanding(&self) -> usize {
        let complete = self.complete_before();
        let mut answered = vec![false; self.after.len()];
        let mut sends: Vec<(usize, Option<usize>)> = Vec::new();
        for at in 0..self.after.len() {
            for peer in &self.to[at] {
                let answers = |later: &usize| self.from[*later].contains(peer) && !answered[*later];
                let answer = (at + 1..self.after.len()).find(answers);
                answer.into_iter().for_each(|answer| answered[answer] = true);
                sends.push((at, answer));
            }
        }
        let over = |earlier: usize, later: usize| {
            let ((first, answer), (second, _)) = (sends[earlier], sends[later]);
            let is_complete = |entry: usize| complete[second][entry];
            is_complete(first) && answer.is_none_or(is_complete)
        };
        // Of sends that come one after another at most one is outstanding, so it is as many as there must be such chains: each send
        // ends a chain that is not continued, or is continued by one later send (a greatest matching).
        let mut before: Vec<Option<usize>> = vec![None; sends.len()];
        let continued = (0..sends.len()).filter(|&earlier| {
            let mut tried = vec![false; sends.len()];
            continues(earlier, &over, &mut before, &mut tried)
        });
        sends.len() - continued.count()
    }
}

/// Finds a send to follow `earlier` in its chain, and others for those that followed elsewhere.
fn continues(
    earlier: usize,
    over: &dyn Fn(usize, usize) -> bool,
    before: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for later in earlier + 1..before.len() {
        if over(earlier, later) && !std::mem::replace(&mut tried[later], true) {
            let free = match before[later] {
                None => true,
                Some(other) => continues(other, over, before, tried),
            };
            if free {
                before[later] = Some(earlier);
                return true;
            }
        }
    }
    false
}

fn every(program: &Program) -> [usize; 3] {
    let fused = [Room::Slice, Room::Chunk].map(|room| Order::of_passes(&fuse_for(program, room)));
    let [slice, chunk] = fused.map(|order| order.outstanding());
    [Order::of_steps(program).outstanding(), slice, chunk]
}

fn jobs(size: u32) -> [Job; 2] {
    [false, true].map(|in_place| Job { in_place, ..Job::new(Collective::AllToAll, size) })
}

#[test]
fn a_pairwise_exchange_has_sixteen_sends_outstanding_and_no_more() {
    for size in 1..=33 {
        for job in jobs(size) {
            let most = (size - 1).min(OUTSTANDING_MAX);
            assert_eq!(Pairwise.outstanding_max(&job).unwrap_or(0), most);
            for program in programs(&Pairwise, &job) {
                assert_eq!(every(&program), [most as usize; 3], "{job:?}, {}", program.rank);
            }
        }
    }
}

#[test]
fn no_algorithm_has_more_sends_outstanding_than_it_says() {
    for &algorithm in all() {
        for collective in Collective::ALL {
            for size in [2, 3, 8, 17, 18, 24] {
                let job = Job::new(collective, size);
                let bound = Some(()).filter(|()| algorithm.fits(&job));
                let Some(most) = bound.and_then(|()| algorithm.outstanding_max(&job)) else { continue };
                for program in programs(algorithm, &job) {
                    let found = every(&program);
                    let name = algorithm.name();
                    assert!(found.iter().all(|found| *found <= most as usize), "{name} {job:?}: {found:?}");
                }
            }
        }
    }
}

/// The same steps without a bound, or with another one.
fn rewritten(size: u32, bound: Option<u32>) -> Program {
    let job = Job::new(Collective::AllToAll, size);
    let mut writer = Writer::new(job, Rank(0), Pairwise.chunks(&job)).bounded(bound);
    Pairwise.write(&job, &mut writer);
    writer.finish()
}

#[test]
fn the_count_sees_a_bound_that_is_missing_or_another() {
    for (bound, found) in [(None, 32), (Some(9), 9), (Some(1), 1), (Some(40), 32)] {
        assert_eq!(every(&rewritten(33, bound)), [found; 3], "{bound:?}");
    }
    // Sends alone are complete as soon as a link has taken them: that is no bound.
    let mut program = rewritten(33, Some(8));
    let receives: Vec<bool> =
        program.steps.iter().map(|step| matches!(step.action, Action::Recv { .. })).collect();
    for step in &mut program.steps {
        step.after.retain(|edge| !receives[edge.on as usize]);
    }
    assert_eq!(Order::of_steps(&program).outstanding(), 32);
}

#[test]
fn a_send_waits_for_the_one_before_the_bound_and_for_what_came_in_return() {
    let job = Job::new(Collective::AllToAll, 4);
    let mut writer = Writer::new(job, Rank(0), 16).bounded(Some(2));
    writer.send(input(1, 1), Rank(1));
    writer.send(input(2, 1), Rank(2));
    writer.recv(output(4, 1), Rank(1));
    writer.send(input(3, 1), Rank(3));
    writer.recv(output(8, 1), Rank(2));
    writer.recv(output(12, 1), Rank(3));
    let after: Vec<Vec<u32>> =
        writer.finish().steps.iter().map(|step| step.after.iter().map(|edge| edge.on).collect()).collect();
    assert_eq!(after, [vec![], vec![], vec![], vec![0, 2], vec![], vec![]]);
}

#[test]
#[should_panic(expected = "no send may be outstanding")]
fn a_bound_of_nothing_panics() {
    let _writer = Writer::new(all_reduce(2), Rank(0), 2).bounded(Some(0));
}
