//! Writes programs: five verbs in textbook order.
//!
//! The author says what happens to which chunks; which step waits for which is derived, so a hazard can not
//! be forgotten. Panics here are bugs of an algorithm, and say where it wrote the step.

use super::memory::{Access, Direction, Hazards, overlap, place};
use super::{Action, Buffer, Chunks, Holding, Job, Program, Step};
use crate::rank::{ChannelId, Rank};
use core::panic::Location;

/// Collects the steps of one rank.
#[derive(Debug)]
pub struct Writer {
    job: Job,
    rank: Rank,
    chunks: u32,
    steps: Vec<Step>,
    outstanding_max: Option<u32>,
}

impl Writer {
    /// A writer for `rank`'s part in `job`, over a logical vector of `chunks` chunks.
    ///
    /// # Panics
    /// When there is no such rank, or the chunks can not be dealt out evenly to the blocks of a collective
    /// that has them.
    pub fn new(job: Job, rank: Rank, chunks: u32) -> Self {
        assert!(rank.0 < job.size && job.root.0 < job.size, "{rank} and root {} of {}", job.root.0, job.size);
        assert!(job.can_have(chunks), "{chunks} chunks for {job:?}");
        Self { job, rank, chunks, steps: Vec::new(), outstanding_max: None }
    }

    /// The same with a bound on the sends that are outstanding at once: see
    /// [`Algorithm::outstanding_max`](super::Algorithm::outstanding_max).
    ///
    /// # Panics
    /// When the bound is 0: nothing could ever be sent.
    #[must_use]
    pub fn bounded(self, outstanding_max: Option<u32>) -> Self {
        assert_ne!(outstanding_max, Some(0), "{}: no send may be outstanding", self.rank);
        Self { outstanding_max, ..self }
    }

    /// Whose steps are written.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// How many ranks there are.
    pub fn size(&self) -> u32 {
        self.job.size
    }

    /// How many chunks the logical vector has.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// `into` becomes `from`. Writes nothing where both are the same memory (in place).
    ///
    /// # Panics
    /// When a run is empty, outside its buffer, or overlaps the other in part.
    #[track_caller]
    pub fn copy(&mut self, from: Chunks, into: Chunks) {
        if place(&self.job, from) != place(&self.job, into) {
            self.push(Action::Copy { from, into });
        }
    }

    /// `into` becomes `into` op `from`.
    ///
    /// # Panics
    /// When a run is empty, outside its buffer, or overlaps the other.
    #[track_caller]
    pub fn reduce(&mut self, from: Chunks, into: Chunks) {
        self.push(Action::Reduce { from, into });
    }

    /// `from` goes to `peer`.
    ///
    /// # Panics
    /// When the run is empty or outside its buffer, or the peer is no other rank.
    #[track_caller]
    pub fn send(&mut self, from: Chunks, peer: Rank) {
        self.push(Action::Send { from, peer });
    }

    /// `into` becomes what `peer` sent.
    ///
    /// # Panics
    /// When the run is empty or outside its buffer, or the peer is no other rank.
    #[track_caller]
    pub fn recv(&mut self, into: Chunks, peer: Rank) {
        self.push(Action::Recv { into, peer });
    }

    /// `into` becomes `into` op what `peer` sent.
    ///
    /// # Panics
    /// When the run is empty or outside its buffer, or the peer is no other rank.
    #[track_caller]
    pub fn recv_reduce(&mut self, into: Chunks, peer: Rank) {
        self.push(Action::RecvReduce { into, peer });
    }

    /// Says that `chunks` now hold the finished reduction of all ranks: an average divides in the step
    /// that wrote them.
    ///
    /// # Panics
    /// When no step wrote exactly these chunks last.
    #[track_caller]
    pub fn finishes(&mut self, chunks: Chunks) {
        let placed = place(&self.job, chunks);
        let job = self.job;
        let writer = self
            .steps
            .iter_mut()
            .rev()
            .find(|step| written(&step.action).is_some_and(|into| overlap(place(&job, into), placed)));
        match writer {
            Some(step) if written(&step.action).is_some_and(|into| place(&job, into) == placed) => {
                step.finishes = true;
            }
            _ => panic!("{}: no step wrote exactly {chunks:?} last", self.rank),
        }
    }

    /// The program, with its dependencies.
    pub fn finish(self) -> Program {
        let Self { job, rank, chunks, mut steps, outstanding_max } = self;
        let mut hazards = Hazards::new(outstanding_max);
        let mut scratch_chunks = 0;
        for (index, step) in (0..).zip(&mut steps) {
            step.after = hazards.note(index, &access(&job, step));
            for run in runs(&step.action).into_iter().flatten().filter(|c| c.buffer == Buffer::Scratch) {
                scratch_chunks = scratch_chunks.max(run.first + run.count);
            }
        }
        Program { job, rank, chunks, steps, scratch_chunks, outstanding_max }
    }

    #[track_caller]
    fn push(&mut self, action: Action) {
        let [from, into] = runs(&action);
        for run in [from, into].into_iter().flatten() {
            let held = Holding::of(&self.job, self.rank, self.chunks, run.buffer);
            assert!(held.contains(run), "{}: {action:?} is not within {held}", self.rank);
        }
        if let (Some(from), Some(into)) = (from, into) {
            let apart = !overlap(place(&self.job, from), place(&self.job, into));
            assert!(
                apart && from.count == into.count,
                "{}: {action:?} needs two equal runs apart",
                self.rank
            );
        }
        if let Some(peer) = peer(&action) {
            assert!(peer != self.rank && peer.0 < self.job.size, "{}: {action:?} needs a peer", self.rank);
        }
        self.steps.push(Step {
            action,
            channel: ChannelId::default(),
            finishes: false,
            after: Vec::new(),
            written_at: Location::caller(),
        });
    }
}

/// The run that an action writes.
pub(super) fn written(action: &Action) -> Option<Chunks> {
    runs(action)[1]
}

/// The runs that an action names: what it moves from, what it moves into.
pub(super) fn runs(action: &Action) -> [Option<Chunks>; 2] {
    match *action {
        Action::Copy { from, into } | Action::Reduce { from, into } => [Some(from), Some(into)],
        Action::Send { from, .. } => [Some(from), None],
        Action::Recv { into, .. } | Action::RecvReduce { into, .. } => [None, Some(into)],
    }
}

/// The peer of an action.
pub(super) fn peer(action: &Action) -> Option<Rank> {
    match *action {
        Action::Send { peer, .. } | Action::Recv { peer, .. } | Action::RecvReduce { peer, .. } => Some(peer),
        Action::Copy { .. } | Action::Reduce { .. } => None,
    }
}

/// The first step whose dependencies are not those that follow from what it and the steps before touch.
pub(super) fn first_wrong_edge(program: &Program) -> Option<u32> {
    let mut hazards = Hazards::new(program.outstanding_max);
    (0..)
        .zip(&program.steps)
        .find(|(i, s)| hazards.note(*i, &access(&program.job, s)) != s.after)
        .map(|(i, _)| i)
}

fn access(job: &Job, step: &Step) -> Access {
    let [from, into] = runs(&step.action).map(|run| run.map(|c| place(job, c)));
    let mut access = Access { reads: from.into_iter().collect(), write: into, lanes: Vec::new() };
    if matches!(step.action, Action::Reduce { .. } | Action::RecvReduce { .. }) {
        access.reads.extend(into);
    }
    let direction = if from.is_some() { Direction::Out } else { Direction::In };
    access.lanes.extend(peer(&step.action).map(|peer| (peer, step.channel, direction)));
    access
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Edge, Wait, input, output, scratch};
    use crate::signature::Collective;

    fn writer(collective: Collective, in_place: bool) -> Writer {
        Writer::new(Job { in_place, ..Job::new(collective, 2) }, Rank(1), 4)
    }

    #[test]
    fn the_same_chunks_stream_and_others_wait_for_the_whole() {
        let mut p = writer(Collective::AllReduce, false);
        p.copy(input(0, 2), output(0, 2));
        p.recv_reduce(output(0, 2), Rank(0));
        p.send(output(1, 1), Rank(0));
        p.send(input(0, 1), Rank(0));
        p.recv(output(1, 1), Rank(0));
        let after: Vec<Vec<Edge>> = p.finish().steps.into_iter().map(|s| s.after).collect();
        let streaming = |on| Edge { on, wait: Wait::Streaming };
        let whole = |on| Edge { on, wait: Wait::Whole };
        // The last one overwrites what step 2 sends, by slices, and receives after step 1.
        let expected =
            [vec![], vec![streaming(0)], vec![whole(1)], vec![whole(2)], vec![whole(1), streaming(2)]];
        assert_eq!(after, expected);
    }

    #[test]
    fn in_place_the_input_is_the_output() {
        let mut p = writer(Collective::AllReduce, true);
        p.send(input(0, 1), Rank(0));
        p.copy(input(0, 1), output(0, 1));
        p.recv(output(0, 1), Rank(0));
        let program = p.finish();
        assert_eq!(program.steps.len(), 2, "a copy onto itself is no step");
        assert_eq!(program.steps[1].after, [Edge { on: 0, wait: Wait::Streaming }]);
    }

    #[test]
    fn scratch_chunks_are_counted_and_steps_know_where_they_were_written() {
        let mut p = writer(Collective::AllReduce, false);
        p.copy(input(1, 2), scratch(1, 2));
        let line = line!() - 1;
        let program = p.finish();
        assert_eq!((program.scratch_chunks, program.steps[0].written_at.line()), (3, line));
    }

    #[test]
    #[should_panic(expected = "needs a peer")]
    fn a_send_to_oneself_panics() {
        writer(Collective::AllReduce, false).send(input(0, 1), Rank(1));
    }

    #[test]
    #[should_panic(expected = "is not within 2..4")]
    fn another_ranks_block_panics() {
        writer(Collective::AllGather, false).copy(input(1, 1), output(1, 1));
    }

    #[test]
    #[should_panic(expected = "is not within 0..4")]
    fn an_empty_run_panics() {
        writer(Collective::AllReduce, false).send(input(0, 0), Rank(0));
    }

    #[test]
    #[should_panic(expected = "two equal runs apart")]
    fn a_reduction_of_a_chunk_with_itself_panics() {
        writer(Collective::AllReduce, true).reduce(input(0, 1), output(0, 1));
    }

    #[test]
    #[should_panic(expected = "no step wrote exactly")]
    fn a_mark_on_chunks_that_no_step_wrote_panics() {
        let mut p = writer(Collective::AllReduce, false);
        p.recv_reduce(output(0, 2), Rank(0));
        p.finishes(output(0, 1));
    }
}
