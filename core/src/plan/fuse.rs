//! From steps to passes: one trip over memory instead of several.
//!
//! A pass reads its sources slice by slice, folds them in order, stores the result and forwards it, all
//! while the slice is in the cache. `Copy, RecvReduce, RecvReduce, Send, Send` over one chunk is one pass.
//! Fusion is a pure function of the program, so every rank that runs the same steps rounds in the same places:
//! a fold of several sources rounds once. Which sources are folded together does not depend on [`Room`].
//!
//! The passes stand in an order in which they could run one after the other. A step joins an earlier pass
//! only if it may trade places with every pass in between.

use super::memory::{Access, Direction, Hazards, overlap, place};
use super::{Action, Buffer, Chunks, Edge, Holding, Job, Program, Step, Wait, output};
use crate::link::SOURCES_MAX;
use crate::rank::{ChannelId, Rank};
use core::panic::Location;
use std::collections::HashSet;

/// Where a pass reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This rank's own memory.
    Local(Chunks),
    /// The next bytes from a peer.
    Peer(Rank),
}

/// One trip over memory: fold `sources` in order, store into `into`, forward to `to`. Slice k of every
/// local source is read before slice k of `into` is stored, so a source may be `into`.
#[derive(Clone, Debug)]
pub struct Pass {
    /// What is folded, in order; at least one. With one source it is a move.
    pub sources: Vec<Source>,
    /// Where the result is stored; `None` for a pure send, and where nobody reads what would be stored.
    pub into: Option<Chunks>,
    /// Who gets the result.
    pub to: Vec<Rank>,
    /// The chunks whose length the pass has (`into`, or those of its first source).
    pub extent: Chunks,
    /// On which copy of the links.
    pub channel: ChannelId,
    /// Whether the result is the finished reduction of all ranks.
    pub finishes: bool,
    /// Dependencies on earlier passes, order on the links included.
    pub after: Vec<Edge>,
    /// The steps of the program that it does, by index.
    pub steps: Vec<u32>,
    /// Where the first of them was written.
    pub written_at: &'static Location<'static>,
}

/// One rank's passes, in program order.
#[derive(Clone, Debug)]
pub struct Passes {
    /// The passes.
    pub passes: Vec<Pass>,
    /// Chunks of scratch memory that they use; fewer than the program's where a pass stores straight into
    /// the place that a later step would have copied to.
    pub scratch_chunks: u32,
}

/// How much every link is sure to hold before its reader takes any. A pass that receives and forwards
/// holds up its receives until the peer takes what was sent to it before, so how far sends may be tied to
/// receives without a deadlock depends on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// One slice, whatever the size of the chunks.
    Slice,
    /// The longest run of chunks that one pass sends, and one slice more.
    Chunk,
}

/// Fuses the steps of a program for links that hold one slice or more.
pub fn fuse(program: &Program) -> Passes {
    fuse_for(program, Room::Slice)
}

/// Fuses the steps of a program for links that hold as much as `room` says.
pub fn fuse_for(program: &Program, room: Room) -> Passes {
    let outstanding_max = program.outstanding_max;
    let mut fuser = Fuser { job: program.job, room, outstanding_max, drafts: Vec::new() };
    for (index, step) in (0..).zip(&program.steps) {
        fuser.fold(index, step);
    }
    fuser.retarget();
    // A send that rides on another pass would have that pass wait for what the bound has it wait for.
    if outstanding_max.is_none() {
        fuser.forward();
    }
    fuser.skip_dead_stores(program);
    fuser.finish()
}

/// Each step as a pass of its own, with the step's dependencies.
pub(super) fn plain(program: &Program) -> Passes {
    let pass = |(index, step): (u32, &Step)| Pass { after: step.after.clone(), ..single(index, step) };
    Passes { passes: (0..).zip(&program.steps).map(pass).collect(), scratch_chunks: program.scratch_chunks }
}

/// A pass in the making, with what it touches.
#[derive(Debug)]
struct Draft {
    pass: Pass,
    access: Access,
}

#[derive(Debug)]
struct Fuser {
    job: Job,
    room: Room,
    outstanding_max: Option<u32>,
    drafts: Vec<Draft>,
}

impl Fuser {
    /// Adds a step: to an open fold of the chunks it reduces into, or as a pass of its own.
    fn fold(&mut self, index: u32, step: &Step) {
        let pass = single(index, step);
        if let (&[_, added], Some(into)) = (pass.sources.as_slice(), pass.into) {
            // What is added to `into`: the same step without its read of `into`.
            let addition = Pass { sources: vec![added], ..pass.clone() };
            if let Some(at) = self.open_fold(into, &access(&self.job, &addition)) {
                let draft = &mut self.drafts[at];
                draft.pass.sources.push(added);
                draft.pass.steps.push(index);
                draft.pass.finishes = step.finishes;
                draft.access = access(&self.job, &draft.pass);
                return;
            }
        }
        self.drafts.push(Draft { access: access(&self.job, &pass), pass });
    }

    /// The pass that made `into` what it is and may take one source more.
    fn open_fold(&self, into: Chunks, addition: &Access) -> Option<usize> {
        let placed = place(&self.job, into);
        let at = self.drafts.iter().rposition(|d| d.access.write.is_some_and(|w| overlap(w, placed)))?;
        let open = &self.drafts[at];
        let fits = open.access.write == Some(placed)
            && !open.pass.finishes
            && open.pass.sources.len() < SOURCES_MAX
            && addition
                .lanes
                .iter()
                .all(|lane| lane.1 == open.pass.channel && !open.access.lanes.contains(lane));
        // What stands between must not need the open pass either: it would wait for the new source too.
        let free = |d: &Draft| !d.access.conflicts(addition) && !d.access.conflicts(&open.access);
        (fits && self.drafts[at + 1..].iter().all(free)).then_some(at)
    }

    /// Lets a fold into scratch memory store straight into the place its result is copied to.
    fn retarget(&mut self) {
        for copy in 0..self.drafts.len() {
            let Draft { pass, .. } = &self.drafts[copy];
            let ([Source::Local(from)], Some(into)) = (pass.sources.as_slice(), pass.into) else { continue };
            let from = *from;
            if from.buffer != Buffer::Scratch {
                continue;
            }
            let Some(fold) = self.folds_for(copy, from, place(&self.job, into)) else { continue };
            let moved = self.drafts[copy].pass.clone();
            let draft = &mut self.drafts[fold];
            draft.pass.into = Some(into);
            draft.pass.extent = into;
            draft.pass.finishes |= moved.finishes;
            draft.pass.steps.extend(moved.steps);
            draft.access = access(&self.job, &draft.pass);
            self.drafts[copy].pass.sources.clear();
            self.drafts[copy].access = Access::default();
        }
        self.drafts.retain(|d| !d.pass.sources.is_empty());
    }

    /// The pass that may store into `into` what draft `copy` copies there out of scratch memory.
    fn folds_for(&self, copy: usize, from: Chunks, into: Chunks) -> Option<usize> {
        let fold =
            self.drafts[..copy].iter().rposition(|d| d.access.write.is_some_and(|w| overlap(w, from)))?;
        let exact = |&c: &Chunks| c == into || !overlap(c, into);
        let legal = self.drafts[fold].access.write == Some(from)
            && self.drafts[fold].access.reads.iter().all(exact)
            && self.drafts[fold + 1..copy].iter().all(|d| !d.access.touches(from) && !d.access.touches(into));
        let next = self.drafts[copy + 1..].iter().find(|d| d.access.touches(from));
        let dead = next.is_none_or(|d| {
            d.access.write == Some(from) && !d.access.reads.iter().any(|&r| overlap(r, from))
        });
        (legal && dead).then_some(fold)
    }

    /// Lets sends ride on the pass that makes what they send, or on another send of the same chunks.
    fn forward(&mut self) {
        let mut hazards = Hazards::default();
        let mut waits: Vec<Vec<Edge>> = Vec::new();
        for (index, draft) in (0..).zip(&self.drafts) {
            waits.push(hazards.note(index, &draft.access));
        }
        // Where the work of a draft is done now.
        let mut home: Vec<usize> = (0..self.drafts.len()).collect();
        for send in 0..self.drafts.len() {
            let Draft { pass, access: sent } = &self.drafts[send];
            let (None, [peer], [from]) = (pass.into, pass.to.as_slice(), sent.reads.as_slice()) else {
                continue;
            };
            let (peer, from) = (*peer, *from);
            let Some(host) = self.host(send, peer, from, &waits, &home) else { continue };
            let moved = self.drafts[send].pass.clone();
            let draft = &mut self.drafts[host];
            draft.pass.to.push(peer);
            draft.pass.steps.extend(moved.steps);
            draft.access = access(&self.job, &draft.pass);
            self.drafts[send].pass.sources.clear();
            self.drafts[send].access = Access::default();
            home[send] = host;
            let inherited = waits[send].clone();
            waits[host].extend(inherited.into_iter().filter(|e| home[e.on as usize] < host));
        }
        self.drafts.retain(|d| !d.pass.sources.is_empty());
    }

    /// The pass that may do draft `send` along with its own work.
    fn host(
        &self,
        send: usize,
        peer: Rank,
        from: Chunks,
        waits: &[Vec<Edge>],
        home: &[usize],
    ) -> Option<usize> {
        let channel = self.drafts[send].pass.channel;
        let lane = (peer, channel, Direction::Out);
        for at in (0..send).rev() {
            let Draft { pass, access } = &self.drafts[at];
            let makes = access.write == Some(from);
            let sends = pass.into.is_none() && access.reads == [from];
            if (makes || sends) && pass.channel == channel && !access.lanes.contains(&lane) {
                let held_up = self.room == Room::Slice
                    && (self.adds_waiting(at, lane, waits, home) || self.delays(at, send));
                if !held_up {
                    return Some(at);
                }
            }
            if access.write.is_some_and(|w| overlap(w, from)) || access.lanes.contains(&lane) {
                return None;
            }
        }
        None
    }

    /// Whether sending on `lane` would make the receives of draft `at` wait for the whole of an earlier send
    /// for which they do not wait now.
    fn adds_waiting(
        &self,
        at: usize,
        lane: (Rank, ChannelId, Direction),
        waits: &[Vec<Edge>],
        home: &[usize],
    ) -> bool {
        if !self.drafts[at].access.lanes.iter().any(|l| l.2 == Direction::In) {
            return false;
        }
        let Some(before) = self.drafts[..at].iter().rposition(|d| d.access.lanes.contains(&lane)) else {
            return false;
        };
        // Waiting for the whole of anything on the way is waiting for the whole of what that waits for.
        let mut seen = vec![[false; 2]; at + 1];
        let mut open = vec![(at, false)];
        while let Some((next, whole)) = open.pop() {
            if next == before && whole {
                return false;
            }
            for edge in &waits[next] {
                let (on, whole) = (home[edge.on as usize], whole || edge.wait == Wait::Whole);
                if on >= before && !core::mem::replace(&mut seen[on][usize::from(whole)], true) {
                    open.push((on, whole));
                }
            }
        }
        true
    }

    /// Whether a pass between `at` and `send` waits for draft `at`, and so would wait for the send too.
    fn delays(&self, at: usize, send: usize) -> bool {
        let host = &self.drafts[at].access;
        self.drafts[at + 1..send].iter().any(|d| d.access.conflicts(host))
    }

    /// Drops stores that nobody reads, of passes that forward their result.
    fn skip_dead_stores(&mut self, program: &Program) {
        let held = Holding::of(&self.job, program.rank, program.chunks, Buffer::Output);
        let result: HashSet<u32> =
            held.chunks().map(|first| place(&self.job, output(first, 1)).first).collect();
        let mut live: [Vec<bool>; 3] = [Buffer::Input, Buffer::Output, Buffer::Scratch].map(|buffer| {
            (0..program.chunks.max(program.scratch_chunks))
                .map(|c| buffer == Buffer::Output && result.contains(&c))
                .collect()
        });
        let cells = |c: Chunks| c.first as usize..(c.first + c.count) as usize;
        for draft in self.drafts.iter_mut().rev() {
            if let Some(write) = draft.access.write {
                let wanted = &mut live[write.buffer as usize][cells(write)];
                if !draft.pass.to.is_empty() && !wanted.contains(&true) {
                    draft.pass.into = None;
                    draft.access = access(&self.job, &draft.pass);
                }
                wanted.fill(false);
            }
            for &read in &draft.access.reads {
                live[read.buffer as usize][cells(read)].fill(true);
            }
        }
    }

    /// Derives the order of the passes.
    fn finish(self) -> Passes {
        let mut hazards = Hazards::new(self.outstanding_max);
        let mut passes = Vec::with_capacity(self.drafts.len());
        let mut scratch_chunks = 0;
        for (index, Draft { mut pass, access }) in (0..).zip(self.drafts) {
            pass.after = hazards.note(index, &access);
            for run in access.reads.iter().chain(&access.write).filter(|c| c.buffer == Buffer::Scratch) {
                scratch_chunks = scratch_chunks.max(run.first + run.count);
            }
            passes.push(pass);
        }
        Passes { passes, scratch_chunks }
    }
}

/// The pass that does one step and no more; without its dependencies.
fn single(index: u32, step: &Step) -> Pass {
    let (sources, extent) = match step.action {
        Action::Copy { from, into } => (vec![Source::Local(from)], into),
        Action::Reduce { from, into } => (vec![Source::Local(into), Source::Local(from)], into),
        Action::Send { from, .. } => (vec![Source::Local(from)], from),
        Action::Recv { into, peer } => (vec![Source::Peer(peer)], into),
        Action::RecvReduce { into, peer } => (vec![Source::Local(into), Source::Peer(peer)], into),
    };
    let to = if let Action::Send { peer, .. } = step.action { vec![peer] } else { Vec::new() };
    Pass {
        sources,
        into: to.is_empty().then_some(extent),
        to,
        extent,
        channel: step.channel,
        finishes: step.finishes,
        after: Vec::new(),
        steps: vec![index],
        written_at: step.written_at,
    }
}

/// What a pass touches.
fn access(job: &Job, pass: &Pass) -> Access {
    let mut access = Access { write: pass.into.map(|c| place(job, c)), ..Access::default() };
    for source in &pass.sources {
        match *source {
            Source::Local(chunks) => access.reads.push(place(job, chunks)),
            Source::Peer(peer) => access.lanes.push((peer, pass.channel, Direction::In)),
        }
    }
    access.lanes.extend(pass.to.iter().map(|&peer| (peer, pass.channel, Direction::Out)));
    access
}
