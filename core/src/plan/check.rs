//! Proves that the programs of all ranks together do what their collective promises.
//!
//! Chunks hold symbolic values ([`value`]) and flow along the messages ([`order`]), so what is proven holds
//! for every input. It is proven three times: for the steps as written, and for the passes that run, fused for
//! links with little room and with much. Costs O(ranks x steps): for tests and for tools, not for every call.
//!
//! What holds of programs that pass:
//! - every send meets a receive of as many bytes, in order on each link;
//! - no rank reads what it has not written or been given, and none writes to its input;
//! - nothing is reduced twice, and the collective's postcondition holds;
//! - a result that several ranks hold was folded and rounded the same way on all of them: equal bits;
//! - each result is marked as finished by exactly the fold that completed it;
//! - the plan ends on links that hold one slice (or, fused for [`Room::Chunk`], one chunk and one slice);
//! - the dependencies that steps carry are those that follow from what they touch.

mod fault;
mod order;
mod value;

pub use fault::{PlanError, Reason};

use super::fuse::{self, Room};
use super::memory::{overlap, place};
use super::write::{first_wrong_edge, peer, runs};
use super::{Buffer, Chunks, Holding, Job, Passes, Program, Source, input, output};
use crate::rank::Rank;
use crate::signature::Collective;
use order::{Messages, Net};
use value::{ValueId, Values};

/// What a plan that passed is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Steps of all ranks.
    pub steps: usize,
    /// Passes of all ranks, fused for [`Room::Slice`].
    pub passes: usize,
    /// Messages of all ranks.
    pub messages: usize,
    /// Messages on the longest chain in which each waits for the one before.
    pub hops: u32,
    /// The most chunks of scratch memory that a rank needs.
    pub scratch_chunks: u32,
}

/// Checks the programs of all ranks, in rank order.
///
/// # Errors
/// The first thing that does not hold, with the rank and step where it shows.
pub fn check(job: &Job, programs: &[Program]) -> Result<Report, PlanError> {
    validate(job, programs)?;
    let mut values = Values::new(job.size);
    let plain: Vec<Passes> = programs.iter().map(fuse::plain).collect();
    let written = Plan { job, programs, passes: &plain };
    written.prove(Room::Slice, &mut values)?;

    let fused: Vec<Passes> = programs.iter().map(fuse::fuse).collect();
    let slice = Plan { job, programs, passes: &fused };
    let proof = slice.prove(Room::Slice, &mut values)?;

    let roomy: Vec<Passes> = programs.iter().map(|p| fuse::fuse_for(p, Room::Chunk)).collect();
    let chunk = Plan { job, programs, passes: &roomy };
    if chunk.prove(Room::Chunk, &mut values)?.results != proof.results {
        return Err(PlanError::of(Rank(0), Reason::RoundingDependsOnRoom));
    }
    Ok(Report {
        steps: programs.iter().map(|p| p.steps.len()).sum(),
        passes: fused.iter().map(|p| p.passes.len()).sum(),
        messages: proof.messages,
        hops: proof.hops,
        scratch_chunks: fused.iter().map(|p| p.scratch_chunks).max().unwrap_or(0),
    })
}

/// Checks that the programs are one plan and that each step makes sense by itself. The writer
/// panics on most of this; programs read from text come here unseen.
fn validate(job: &Job, programs: &[Program]) -> Result<(), PlanError> {
    let chunks = programs.first().map_or(0, |p| p.chunks);
    let shape = job.size > 0
        && job.root.0 < job.size
        && programs.len() == job.size as usize
        && job.can_have(chunks)
        && (0..).zip(programs).all(|(r, p)| p.rank == Rank(r) && p.job == *job && p.chunks == chunks);
    if !shape {
        return Err(PlanError::of(Rank(0), Reason::NotOnePlan));
    }
    for program in programs {
        for (index, step) in (0..).zip(&program.steps) {
            let fail = |reason| Err(PlanError::at(program, index, reason));
            let [from, into] = runs(&step.action);
            for run in [from, into].into_iter().flatten() {
                let inside = match run.buffer {
                    Buffer::Scratch => {
                        let end = run.first.checked_add(run.count);
                        run.count > 0 && end.is_some_and(|end| end <= program.scratch_chunks.min(chunks))
                    }
                    buffer => Holding::of(job, program.rank, chunks, buffer).contains(run),
                };
                if !inside {
                    return fail(Reason::OutOfRange { chunks: run });
                }
            }
            if peer(&step.action).is_some_and(|peer| peer == program.rank || peer.0 >= job.size) {
                return fail(Reason::NoPeer);
            }
            if let (Some(from), Some(into)) = (from, into)
                && (!equal_length(job, chunks, from, into) || overlap(place(job, from), place(job, into)))
            {
                return fail(Reason::UnequalRuns { from, into });
            }
        }
        if let Some(index) = first_wrong_edge(program) {
            return Err(PlanError::at(program, index, Reason::WrongEdges));
        }
    }
    Ok(())
}

/// Whether two runs have as many bytes, whatever the count of the call.
fn equal_length(job: &Job, chunks: u32, a: Chunks, b: Chunks) -> bool {
    // Blocks are equally long and equally cut; the chunks within one need not be equal.
    let period = chunks / job.blocks();
    a.count == b.count && a.first % period == b.first % period
}

/// All ranks' passes.
struct Plan<'a> {
    job: &'a Job,
    programs: &'a [Program],
    passes: &'a [Passes],
}

/// What was found on the way.
struct Proof {
    /// The value of every output chunk of every rank.
    results: Vec<ValueId>,
    messages: usize,
    hops: u32,
}

impl Plan<'_> {
    fn prove(&self, room: Room, values: &mut Values) -> Result<Proof, PlanError> {
        let net = Net::new(self.passes);
        let fault = |node: usize, reason| self.fault(&net, node, reason);
        let messages = Messages::pair(&net).map_err(|(node, reason)| fault(node, reason))?;
        for (from, into) in messages.all() {
            let (sent, taken) = (net.pass(from).extent, net.pass(into).extent);
            if !equal_length(self.job, self.programs[0].chunks, sent, taken) {
                return Err(fault(into, Reason::UnequalMessage { peer: net.rank(from), sent, taken }));
            }
        }
        let deadlock = |(node, with): (usize, usize)| {
            fault(node, Reason::Deadlock { with: net.rank(with), step: net.pass(with).steps[0] })
        };
        let order = messages.order(&net).map_err(deadlock)?;
        messages.ends(&net, room).map_err(deadlock)?;
        let results = self.evaluate(&net, &messages, &order, values)?;
        Ok(Proof { results, messages: messages.all().count(), hops: messages.hops(&net, &order) })
    }

    fn fault(&self, net: &Net<'_>, node: usize, reason: Reason) -> PlanError {
        PlanError::at(&self.programs[net.rank(node).index()], net.pass(node).steps[0], reason)
    }

    /// Runs the plan on symbols, in an order that its dependencies allow.
    fn evaluate(
        &self,
        net: &Net<'_>,
        messages: &Messages,
        order: &[usize],
        values: &mut Values,
    ) -> Result<Vec<ValueId>, PlanError> {
        let mut memories: Vec<Memory> = self.programs.iter().map(|p| Memory::new(p, values)).collect();
        let mut sent: Vec<Vec<ValueId>> = vec![Vec::new(); net.len()];
        for &node in order {
            let memory = &mut memories[net.rank(node).index()];
            let pass = net.pass(node);
            let fail = |reason| self.fault(net, node, reason);
            let mut result = Vec::with_capacity(pass.extent.count as usize);
            for offset in 0..pass.extent.count {
                let mut operands = Vec::with_capacity(pass.sources.len());
                for source in &pass.sources {
                    operands.push(match *source {
                        Source::Local(run) => memory.read(run, offset).map_err(fail)?,
                        Source::Peer(peer) => sent[messages.sender(net, node, peer)][offset as usize],
                    });
                }
                result.push(values.fold(&operands, pass.finishes).map_err(fail)?);
            }
            if let Some(into) = pass.into {
                memory.write(into, &result).map_err(fail)?;
            }
            if !pass.to.is_empty() {
                sent[node] = result;
            }
        }
        self.results(&mut memories, values)
    }

    /// Compares every output chunk with what the collective promises.
    fn results(&self, memories: &mut [Memory], values: &mut Values) -> Result<Vec<ValueId>, PlanError> {
        let chunks = self.programs[0].chunks;
        let mut reductions: Vec<Option<(Rank, ValueId)>> = vec![None; chunks as usize];
        let mut results = Vec::new();
        for program in self.programs {
            for chunk in Holding::of(self.job, program.rank, chunks, Buffer::Output).chunks() {
                let fail = |reason| Err(PlanError::of(program.rank, reason));
                let Some(value) = memories[program.rank.index()].output(chunk) else {
                    return fail(Reason::NoResult { chunk });
                };
                let owner = Rank(chunk / (chunks / self.job.blocks()));
                let right = match self.job.collective {
                    Collective::AllReduce | Collective::ReduceScatter | Collective::Reduce => {
                        values.is_reduction(value, chunk)
                    }
                    Collective::AllGather | Collective::Gather => value == values.leaf(owner, chunk),
                    Collective::Broadcast | Collective::Scatter => value == values.leaf(self.job.root, chunk),
                    Collective::AllToAll => value == values.leaf(Rank(chunk / self.job.size), chunk),
                };
                if !right {
                    return fail(Reason::WrongResult { chunk, holds: values.describe(value) });
                }
                match reductions[chunk as usize] {
                    Some((other, theirs)) if theirs != value => {
                        return fail(Reason::UnequalBits { chunk, other });
                    }
                    _ => reductions[chunk as usize] = Some((program.rank, value)),
                }
                results.push(value);
            }
        }
        Ok(results)
    }
}

/// What one rank's chunks hold.
struct Memory {
    job: Job,
    /// What may be written of the output.
    writable: Holding,
    cells: [Vec<Option<ValueId>>; 3],
}

impl Memory {
    fn new(program: &Program, values: &mut Values) -> Self {
        let (job, chunks) = (program.job, program.chunks);
        let cells = [Buffer::Input, Buffer::Output, Buffer::Scratch].map(|_| vec![None; chunks as usize]);
        let held = |buffer| Holding::of(&job, program.rank, chunks, buffer);
        let mut memory = Self { job, writable: held(Buffer::Output), cells };
        for chunk in held(Buffer::Input).chunks() {
            *memory.cell(input(chunk, 1), 0) = Some(values.leaf(program.rank, chunk));
        }
        memory
    }

    fn cell(&mut self, run: Chunks, offset: u32) -> &mut Option<ValueId> {
        let placed = place(&self.job, run);
        &mut self.cells[placed.buffer as usize][(placed.first + offset) as usize]
    }

    fn read(&mut self, run: Chunks, offset: u32) -> Result<ValueId, Reason> {
        let unwritten = Reason::Unwritten { chunks: Chunks { first: run.first + offset, count: 1, ..run } };
        self.cell(run, offset).ok_or(unwritten)
    }

    fn write(&mut self, run: Chunks, result: &[ValueId]) -> Result<(), Reason> {
        let allowed = match run.buffer {
            Buffer::Input => self.job.in_place && self.writable.contains(output(run.first, run.count)),
            Buffer::Output => self.writable.contains(run),
            Buffer::Scratch => true,
        };
        if !allowed {
            return Err(Reason::WritesInput { chunks: run });
        }
        for (offset, &value) in (0..).zip(result) {
            *self.cell(run, offset) = Some(value);
        }
        Ok(())
    }

    fn output(&mut self, chunk: u32) -> Option<ValueId> {
        *self.cell(output(chunk, 1), 0)
    }
}
