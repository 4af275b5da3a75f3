//! The bound programs of calls whose blocks have lengths of their own, found again by all of those lengths.
//!
//! Invariant: a plan is found only for a call that is the same in everything that was checked before it was planned, so a
//! call whose plan is found need not be checked again.

use super::{Blocks, Memos, Words};
use crate::plans::scale_alone;
use sohu_coll_algorithms::tuner::{Machine, SLICE_FETCHED, Tuner};
use sohu_coll_algorithms::{self as algorithms, pairwise::OUTSTANDING_MAX};
use sohu_coll_core::exec::{Binding, Bound, Executor, Fetched};
use sohu_coll_core::kernel::{Kernel, Store};
use sohu_coll_core::plan::fuse::{Passes, Room, fuse_for};
use sohu_coll_core::plan::{Algorithm, Extents, Job, Program};
use sohu_coll_core::{Collective, Rank, ReduceOp, Signature};
use std::ops::Range;
use std::sync::Arc;

/// The most plans that are kept: where lengths differ from call to call, none is found again, and each takes memory.
const PLANS_MAX: usize = 64;

/// The most programs that are kept: one for each collective and form, and for each root of those that have one.
const PROGRAMS_MAX: usize = 64;

/// The least and the largest slice of calls whose blocks have lengths of their own. A quarter of the longest block is one, in between:
/// 64 KiB take 4.3 us in slices of 32 KiB and 5.2 in those of 128, 4 MiB 407 and 305.
const SLICES: [usize; 2] = [32 << 10, 256 << 10];

/// Everything that decides how a call is made, apart from which bytes it moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    /// The signature, but for its sequence.
    pub(crate) call: Signature,
    /// Whether input and output are the same memory.
    pub(crate) in_place: bool,
    /// Bytes of the input and of the output; of the one buffer twice.
    pub(crate) lengths: [usize; 2],
    /// Whether the input and the output are registered.
    pub(crate) registered: [bool; 2],
    /// The blocks that were given for the input and the output; the same twice where there is one list.
    pub(crate) blocks: [Blocks<'a>; 2],
}

impl Key<'_> {
    fn lists(&self) -> [&[usize]; 4] {
        let [gives, gets] = &self.blocks;
        [gives.counts, gives.displacements.unwrap_or(&[]), gets.counts, gets.displacements.unwrap_or(&[])]
    }

    /// Which of the two have displacements. Those may be none, and too few.
    fn displaced(&self) -> [bool; 2] {
        self.blocks.map(|blocks| blocks.displacements.is_some())
    }
}

/// Where the blocks lie, in bytes.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Those that the input and the output hold, in order.
    pub(crate) held: [Vec<Range<usize>>; 2],
    /// Those of the whole vector, for their lengths.
    pub(crate) blocks: Vec<Range<usize>>,
}

impl Layout {
    /// Bytes of the longest block.
    fn longest(&self) -> usize {
        let [gives, gets] = &self.held;
        gives.iter().chain(gets).chain(&self.blocks).map(Range::len).max().unwrap_or(0)
    }

    /// Bytes of a block of the input, on average: there may be gaps between them, and the same bytes may be in several.
    fn mean_given(&self) -> usize {
        let [gives, _] = &self.held;
        gives.iter().map(Range::len).sum::<usize>() / gives.len().max(1)
    }
}

#[derive(Debug)]
struct Plan {
    call: Signature,
    in_place: bool,
    lengths: [usize; 2],
    registered: [bool; 2],
    displaced: [bool; 2],
    lists: [Box<[usize]>; 4],
    /// No other plan has the same, ever.
    number: u64,
    /// Out while its call is made; none before it is first needed.
    executor: Option<Executor>,
}

impl Plan {
    fn is_for(&self, key: &Key<'_>) -> bool {
        self.call == key.call
            && self.in_place == key.in_place
            && self.lengths == key.lengths
            && self.registered == key.registered
            && self.displaced == key.displaced()
            // Number by number: to compare the bytes of two empty lists, which are nowhere, took one machine 100 ns.
            && self.lists.iter().zip(key.lists()).all(|(kept, asked)| kept.iter().eq(asked))
    }
}

/// A program with its passes: the same for all lengths.
#[derive(Debug)]
struct Written {
    job: Job,
    /// Whether this rank's input is multiplied by its scalar.
    scaled: bool,
    program: Program,
    passes: Passes,
}

/// The plans of one communicator.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    plans: Vec<Plan>,
    /// Where the last one that was asked for is: calls repeat.
    latest: usize,
    oldest: usize,
    /// How many there have been.
    added: u64,
    written: Vec<Written>,
    /// What ranks tell each other before a call; kept, so that it is allocated once. Out while they do.
    pub(crate) memos: Option<Box<Memos>>,
    /// The same without memos.
    pub(crate) words: Words,
}

impl Plans {
    /// The place of the plan for such a call, if there is one.
    pub(crate) fn find(&mut self, key: &Key<'_>) -> Option<usize> {
        let is_at = |place: &usize| self.plans.get(*place).is_some_and(|plan| plan.is_for(key));
        let place = Some(self.latest).filter(is_at).or_else(|| (0..self.plans.len()).find(is_at))?;
        self.latest = place;
        Some(place)
    }

    /// The memos, for one call, where so many ranks use them.
    pub(crate) fn take_memos(&mut self, rank: Rank, machine: &Machine) -> Option<Box<Memos>> {
        let Machine { size, cores, .. } = *machine;
        let is_first = self.memos.is_none() && Memos::are_for(size);
        if is_first {
            Some(Box::new(Memos::new(rank, size, size.div_ceil(cores))))
        } else {
            self.memos.take()
        }
    }

    /// Keeps such a call, which was found to make sense; gives the place of its plan, which is bound when it is first needed:
    /// where lengths differ from call to call, and all blocks go along in memos, blocking calls never need it.
    pub(crate) fn add(&mut self, key: &Key<'_>) -> usize {
        self.added += 1;
        let plan = Plan {
            call: key.call,
            in_place: key.in_place,
            lengths: key.lengths,
            registered: key.registered,
            displaced: key.displaced(),
            lists: key.lists().map(Box::from),
            number: self.added,
            executor: None,
        };
        self.latest = if self.plans.len() < PLANS_MAX {
            self.plans.push(plan);
            self.plans.len() - 1
        } else {
            let place = self.oldest;
            self.oldest = (self.oldest + 1) % PLANS_MAX;
            self.plans[place] = plan;
            place
        };
        self.latest
    }

    /// Binds the program of such a call of `rank`.
    pub(crate) fn bind(&mut self, rank: Rank, tuner: &Tuner, key: &Key<'_>, layout: &Layout) -> Executor {
        let size = tuner.machine().size;
        let written = self.written(rank, size, key);
        let Written { program, passes, .. } = &self.written[written];
        let extents = Extents::ragged(program, [&layout.held[0], &layout.held[1]], &layout.blocks);
        let [gives, gets] = key.lengths;
        let own = if key.in_place { gives.max(gets) } else { gives + gets };
        // As if all ranks had as much.
        let (held, registered) = (f64::from(size) * own as f64, key.registered == [true; 2]);
        let streams = tuner.streams(held, registered);
        let longest = layout.longest();
        let is_traded = key.call.collective == Collective::AllToAll;
        // What is stored over, or scaled on its way, is staged.
        let is_kept = key.call.op != ReduceOp::PreMulSum && !(is_traded && key.in_place);
        // Of an all-to-all, as if they got what they give: else only the rank that gets the most would copy for the others.
        let held = if is_traded { f64::from(size) * 2.0 * gives as f64 } else { held };
        let mean = if is_traded { layout.mean_given() } else { longest };
        let fetches = tuner.fetches_blocks(key.call.collective, [longest, mean], held);
        let fetched = !registered && is_kept && fetches;
        let binding = Binding {
            kernel: Kernel::new(key.call.dtype, key.call.op),
            element: key.call.dtype.size(),
            slice: if fetched { SLICE_FETCHED } else { slice(longest) },
            store: if streams { Store::Streaming } else { Store::Cached },
            input_registered: key.registered[0],
            output_registered: key.registered[1],
            fetched: if fetched { Fetched::All } else { Fetched::Nothing },
            within: None,
        };
        Executor::new(Arc::new(Bound::new(program, passes, &extents, &binding)))
    }

    /// Where the program of the call's job is, written now if it was not.
    fn written(&mut self, rank: Rank, size: u32, key: &Key<'_>) -> usize {
        let Key { call, in_place, .. } = *key;
        let job = Job { root: call.root, in_place, ..Job::new(call.collective, size) };
        let scaled = call.op == ReduceOp::PreMulSum;
        let is_it = |written: &Written| written.job == job && written.scaled == scaled;
        if let Some(place) = self.written.iter().position(is_it) {
            return place;
        }
        if self.written.len() == PROGRAMS_MAX {
            self.written.clear();
        }
        let program = algorithm(call.collective, size).program(&job, rank);
        let mut passes = fuse_for(&program, Room::Slice);
        if scaled && passes.passes.is_empty() {
            passes.passes.push(scale_alone(&program));
        }
        self.written.push(Written { job, scaled, program, passes });
        self.written.len() - 1
    }

    /// The number of the plan at a place, from 1 on.
    pub(crate) fn number(&self, place: usize) -> u64 {
        self.plans[place].number
    }

    /// The executor of the plan at a place, for one call; none if the plan is not bound.
    pub(crate) fn take(&mut self, place: usize) -> Option<Executor> {
        self.plans[place].executor.take()
    }

    /// The call is over.
    pub(crate) fn put_back(&mut self, place: usize, executor: Executor) {
        self.plans[place].executor = Some(executor);
    }
}

/// The slice for blocks of which this is the longest.
fn slice(longest: usize) -> usize {
    (longest / 4).next_power_of_two().clamp(SLICES[0], SLICES[1])
}

/// What such calls are made with: the direct algorithm, which is right for any lengths; or, where that would have more sends of a
/// rank outstanding than the pairwise exchange, the latter.
pub(crate) fn algorithm(collective: Collective, size: u32) -> &'static dyn Algorithm {
    let many = size > OUTSTANDING_MAX + 1;
    if collective == Collective::AllToAll && many { &algorithms::Pairwise } else { &algorithms::OneShot }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sohu_coll_core::DType;

    fn call(root: u32) -> Signature {
        Signature {
            collective: Collective::AllToAll,
            dtype: DType::F32,
            op: ReduceOp::Sum,
            algorithm: Signature::RAGGED,
            root: Rank(root),
            count: 0,
            sequence: 0,
        }
    }

    /// A call of rank 0 of 2 with such blocks.
    fn key<'a>(gives: Blocks<'a>, gets: Blocks<'a>) -> Key<'a> {
        let bytes = |blocks: Blocks<'_>| blocks.counts.iter().sum::<usize>() * 4;
        Key {
            call: call(0),
            in_place: false,
            lengths: [bytes(gives), bytes(gets)],
            registered: [false; 2],
            blocks: [gives, gets],
        }
    }

    fn added(plans: &mut Plans, key: &Key<'_>) -> usize {
        let place = plans.add(key);
        assert!(plans.take(place).is_none(), "it is bound before it is needed");
        let ranges = |blocks: Blocks<'_>| {
            let mut next = 0;
            let range = |count: &usize| {
                next += count * 4;
                next - count * 4..next
            };
            blocks.counts.iter().map(range).collect::<Vec<_>>()
        };
        let held = key.blocks.map(ranges);
        let tuner = Tuner::new(Machine::shm(2, 2));
        let executor = plans.bind(Rank(0), &tuner, key, &Layout { held, blocks: Vec::new() });
        plans.put_back(place, executor);
        place
    }

    #[test]
    fn slices_are_a_quarter_of_the_longest_block_wherever_it_is_told() {
        let block = |len: usize| vec![0..100, 100..100 + len];
        for (longest, expected) in [
            (0, 32 << 10),
            (128 << 10, 32 << 10),
            (200 << 10, 64 << 10),
            (512 << 10, 128 << 10),
            (9 << 20, 256 << 10),
        ] {
            let [gives, gets, all] = [0, 1, 2].map(|place| {
                let mut lists = [block(1), block(1), Vec::new()];
                lists[place] = block(longest);
                let [gives, gets, blocks] = lists;
                slice(Layout { held: [gives, gets], blocks }.longest())
            });
            assert_eq!([gives, gets, all], [expected; 3], "{longest} bytes");
        }
    }

    #[test]
    fn blocks_are_as_long_on_average_as_they_are_and_not_as_the_buffer_is() {
        let mean = |gives: &[Range<usize>]| {
            Layout { held: [gives.to_vec(), Vec::new()], blocks: Vec::new() }.mean_given()
        };
        assert_eq!(mean(&[0..37, 37..46, 46..55, 55..64]), 16);
        assert_eq!(mean(&[0..10, 1000..1010]), 10, "with a gap");
        assert_eq!(mean(&[0..64, 0..64, 0..64, 0..64]), 64, "the same to all");
        assert_eq!(mean(&[]), 0);
    }

    #[test]
    fn a_plan_is_found_for_the_same_blocks_alone() {
        let mut plans = Plans::default();
        let even = key(Blocks::packed(&[2, 2]), Blocks::packed(&[2, 2]));
        assert_eq!(plans.find(&even), None);
        let place = added(&mut plans, &even);
        assert_eq!(plans.find(&even), Some(place));
        // As long together, but cut elsewhere, laid elsewhere, from elsewhere, or for another root.
        let starts = [2, 0];
        let apart = Blocks { counts: &[2, 2], displacements: Some(&starts) };
        for other in [
            key(Blocks::packed(&[1, 3]), Blocks::packed(&[2, 2])),
            key(Blocks::packed(&[2, 2]), Blocks::packed(&[3, 1])),
            key(Blocks::packed(&[2, 2]), apart),
            key(apart, Blocks::packed(&[2, 2])),
            key(Blocks { counts: &[2, 2], displacements: Some(&[]) }, Blocks::packed(&[2, 2])),
            key(Blocks::packed(&[2, 2]), Blocks { counts: &[2, 2], displacements: Some(&[]) }),
            Key { registered: [true, false], ..even },
            Key { lengths: [16, 20], ..even },
            Key { in_place: true, ..even },
            Key { call: call(1), ..even },
        ] {
            assert_eq!(plans.find(&other), None, "{other:?}");
        }
        assert!(plans.take(place).is_some());
    }

    #[test]
    fn however_many_ranks_there_are_sixteen_sends_of_one_are_outstanding() {
        for size in 2..=40 {
            let name = algorithm(Collective::AllToAll, size).name();
            assert_eq!(name, if size <= 17 { "one_shot" } else { "pairwise" }, "{size} ranks");
            assert_eq!(algorithm(Collective::AllGather, size).name(), "one_shot");
        }
    }

    #[test]
    fn the_oldest_plan_goes_and_programs_are_written_once() {
        let mut plans = Plans::default();
        for count in 0..PLANS_MAX + 2 {
            let counts = [count, 1];
            added(&mut plans, &key(Blocks::packed(&counts), Blocks::packed(&counts)));
        }
        let has = |plans: &mut Plans, count| {
            let counts = [count, 1];
            plans.find(&key(Blocks::packed(&counts), Blocks::packed(&counts))).is_some()
        };
        let kept: Vec<bool> = (0..PLANS_MAX + 2).map(|count| has(&mut plans, count)).collect();
        assert_eq!(kept.iter().position(|kept| *kept), Some(2));
        assert!(kept[2..].iter().all(|kept| *kept));
        assert_eq!(plans.written.len(), 1);
    }
}
