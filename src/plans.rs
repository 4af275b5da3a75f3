//! The bound programs of a communicator: planned once for each shape of call, then found again.

use crate::connect::Fabric;
use crate::request::{Buffers, Request};
use crate::tuning::{Sought, Tuning};
use crate::wish::Wish;
use sohu_coll_algorithms as algorithms;
use sohu_coll_algorithms::tuner::{Choice, Tuner};
use sohu_coll_core::exec::{Binding, Bound, Executor, Fetched};
use sohu_coll_core::kernel::{Kernel, Store};
use sohu_coll_core::link::LEND_MIN;
use sohu_coll_core::operation::Tag;
use sohu_coll_core::plan::fuse::{Room, fuse_for};
use sohu_coll_core::plan::{Extents, Job, Pass, Program, Source, input, output};
use sohu_coll_core::{ChannelId, Collective, DType, Error, Misuse, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::Loan;
use std::collections::HashMap;
use std::ops::Range;
use std::panic::Location;
use std::sync::Arc;

/// The most shapes that are kept. An inference step makes a few dozen; beyond this the oldest goes.
const PLANS_MAX: usize = 512;

/// Shapes that are compared before one is hashed: more than a layer of a model alternates between.
const RECENT: usize = 4;

/// Everything of a call that decides what is done, and not to which bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub(crate) collective: Collective,
    pub(crate) dtype: DType,
    pub(crate) op: ReduceOp,
    pub(crate) root: Rank,
    pub(crate) count: usize,
    pub(crate) in_place: bool,
    pub(crate) input_registered: bool,
    pub(crate) output_registered: bool,
    /// Which user operation it is; none, where `op` is no such.
    pub(crate) tag: Tag,
}

/// A request but for its addresses, in words that compare fast. Requests that ask for the same are checked once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked([u64; 3]);

impl Asked {
    #[inline]
    pub(crate) fn new(request: &Request<'_>) -> Self {
        let kinds = u64::from(request.collective as u8)
            | u64::from(request.dtype as u8) << 8
            | u64::from(request.op as u8) << 16
            | u64::from(request.root) << 32;
        Self(match &request.buffers {
            Buffers::Apart { input, output } => [kinds, input.len() as u64, output.len() as u64],
            Buffers::InPlace(buffer) => [kinds | 1 << 24, 0, buffer.len() as u64],
        })
    }

    /// The same with an operand: what no request without one asks for.
    pub(crate) fn with_operand(self, tag: Tag) -> Self {
        let Self([kinds, input, output]) = self;
        let tag = u64::from(tag.bits());
        // Buffers are shorter than 2^48 bytes.
        Self([kinds | 1 << 25, input | tag << 48, output | (tag >> 16) << 48])
    }
}

impl Shape {
    /// The job without its bytes.
    pub(crate) fn job(&self, size: u32) -> Job {
        Job { root: self.root, in_place: self.in_place, ..Job::new(self.collective, size) }
    }

    /// What a tuning file looks at.
    fn sought(&self, size: u32) -> Sought {
        let (collective, bytes, dtype) = (self.collective, self.bytes(), self.dtype);
        Sought { collective, size, bytes, dtype, registered: self.registered() }
    }

    /// Bytes of `count` elements.
    pub(crate) fn bytes(&self) -> usize {
        self.count * self.dtype.size()
    }

    /// Bytes of the longest buffer that a rank has.
    fn longest(&self, size: u32) -> usize {
        let held = self.collective.held(size, true);
        self.bytes() * held[0].max(held[1]) as usize
    }

    /// Whether ranks plan for registered memory. All must say the same, so a collective of which only the root has an
    /// input, or an output, asks only for what every rank has.
    pub(crate) fn registered(&self) -> bool {
        let [gives, gets] = self.collective.held(2, false).map(|blocks| blocks > 0);
        (self.input_registered || !gives) && (self.output_registered || !gets)
    }
}

/// An algorithm that is to do the calls, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Forced(u8);

impl Forced {
    /// The algorithm of that name, if there is one.
    pub(crate) fn named(name: &str) -> Option<Self> {
        (0..).zip(algorithms::all()).find(|(_, known)| known.name() == name).map(|(number, _)| Self(number))
    }

    fn name(self) -> &'static str {
        algorithms::all()[usize::from(self.0)].name()
    }
}

/// How the algorithm of a call is chosen.
#[derive(Debug)]
pub(crate) struct Settings {
    /// What may be chosen.
    pub(crate) wish: Option<Wish>,
    /// What is chosen before the tuner is asked.
    pub(crate) tuning: Option<Tuning>,
    /// Whether only algorithms may be chosen whose results do not depend on the choice.
    pub(crate) reproducible: bool,
}

/// One planned call.
#[derive(Debug)]
pub(crate) struct Plan {
    shape: Shape,
    /// The last request that was found to ask for this.
    asked: Asked,
    /// Whether it matters which buffers are registered.
    lends: bool,
    /// Whether this rank has an input, and an output.
    holds: [bool; 2],
    /// In place: which bytes of the buffer are the input, and which the output.
    shared: [Range<usize>; 2],
    forced: Option<Forced>,
    pub(crate) executor: Executor,
    /// The call's signature, but for its sequence.
    pub(crate) signature: Signature,
}

impl Plan {
    /// Whether buffers, of the lengths that were asked for, are registered as the plan has them.
    #[inline]
    pub(crate) fn fits(&self, buffers: &Buffers<'_>, fabric: &Fabric) -> bool {
        let [input, output] = match buffers {
            _ if !self.lends => return true,
            Buffers::Apart { input, output } => match self.holds {
                [true, true] => [fabric.is_registered(input), fabric.is_registered(output)],
                [gives, _] => [fabric.is_registered(if gives { input } else { output }); 2],
            },
            Buffers::InPlace(buffer) => [fabric.is_registered(buffer); 2],
        };
        self.shape.input_registered == input && self.shape.output_registered == output
    }

    /// The buffers, as the call borrows them.
    #[inline]
    pub(crate) fn loan<'a>(&self, buffers: Buffers<'a>) -> Loan<'a> {
        match buffers {
            Buffers::Apart { input, output } => Loan::Apart { input, output },
            Buffers::InPlace(buffer) => {
                let [input, output] = self.shared.clone();
                Loan::Shared { buffer, input, output }
            }
        }
    }
}

/// All plans of a communicator.
#[derive(Debug)]
pub(crate) struct Plans {
    rank: Rank,
    size: u32,
    tuner: Tuner,
    settings: Settings,
    forced: Option<Forced>,
    plans: Vec<Plan>,
    places: HashMap<(Shape, Option<Forced>), usize>,
    /// Places of the last few shapes, the latest first.
    recent: [usize; RECENT],
    oldest: usize,
}

impl Plans {
    pub(crate) fn new(rank: Rank, size: u32, tuner: Tuner, settings: Settings) -> Self {
        Self {
            rank,
            size,
            tuner,
            settings,
            forced: None,
            plans: Vec::new(),
            places: HashMap::new(),
            recent: [0; RECENT],
            oldest: 0,
        }
    }

    /// Has an algorithm chosen for the calls from now on, or none. Returns what was forced before.
    pub(crate) fn force(&mut self, forced: Option<Forced>) -> Option<Forced> {
        // What is recent was planned otherwise; what becomes recent from now on was planned so.
        self.recent = [usize::MAX; RECENT];
        core::mem::replace(&mut self.forced, forced)
    }

    /// Whether somebody else than the tuner may choose.
    pub(crate) fn is_steered(&self) -> bool {
        self.forced.is_some() || self.settings.wish.is_some()
    }

    pub(crate) fn tuner(&self) -> &Tuner {
        &self.tuner
    }

    /// What is done for calls of this shape.
    ///
    /// # Errors
    /// When an algorithm was forced that can not do it.
    pub(crate) fn choose(&self, shape: &Shape) -> Result<Choice, Error> {
        let job = shape.job(self.size);
        let bytes = shape.bytes();
        // What is scaled goes through staging, wherever it lies.
        let is_scaled = shape.op == ReduceOp::PreMulSum;
        let registered = shape.registered() && !is_scaled;
        let tuner = if is_scaled { self.tuner.staging() } else { self.tuner };
        let ordered = shape.op == ReduceOp::User && !shape.tag.is_commutative();
        let in_order = (self.settings.reproducible || ordered) && shape.collective.reduces();
        let Settings { wish, tuning, .. } = &self.settings;
        let keeps_order =
            |name: &str| !in_order || algorithms::by_name(name).is_some_and(|a| a.folds_in_rank_order());
        let among = |may: &dyn Fn(&str) -> bool, told: &dyn Fn() -> String| {
            let chosen = tuner.choose_among(&job, bytes, registered, |name| may(name) && keeps_order(name));
            chosen.map_err(|fitting| {
                let (call, size, known) = (shape.collective.name(), self.size, fitting.join(", "));
                Error::from(Misuse::Algorithm { call, algorithm: told(), size, known })
            })
        };
        if let Some(forced) = self.forced {
            return among(&|name| name == forced.name(), &|| forced.name().into());
        }
        let wished = |name: &str| wish.as_ref().is_none_or(|wish| wish.allows(shape.collective, name));
        let may = |name: &str| wished(name) && keeps_order(name);
        if let Some(tuning) = tuning
            && let Some(line) = tuning.find(&shape.sought(self.size), may)
        {
            let choice = among(&|name| name == line.algorithm, &|| tuning.tell(line))?;
            // No slice is longer than what it may be staged in.
            let most = choice.within.map_or(usize::MAX, |within| within / 2);
            return Ok(Choice { slice: line.slice.unwrap_or(choice.slice).min(most), ..choice });
        }
        if wish.is_none() && !in_order {
            return Ok(tuner.choose(&job, bytes, registered));
        }
        among(&wished, &|| wish.as_ref().map_or_else(String::new, |wish| wish.text().into()))
    }

    /// The plan for a request that was made before, if it is one of the last few. A few in turn are what inference
    /// does; comparing them beats checking one anew, and hashing its shape.
    #[inline]
    pub(crate) fn recall(&mut self, asked: &Asked) -> Option<&mut Plan> {
        let is_here = |place: &&usize| self.plans.get(**place).is_some_and(|plan| plan.asked == *asked);
        let place = *self.recent.iter().find(is_here)?;
        self.plans.get_mut(place)
    }

    /// The plan for calls of this shape, made now if there is none; from now on it is [recalled](Self::recall).
    ///
    /// # Errors
    /// When an algorithm was forced that can not do it.
    pub(crate) fn find(&mut self, shape: &Shape, asked: Asked) -> Result<&mut Plan, Error> {
        let place = self.look_up(shape)?;
        let plan = &mut self.plans[place];
        plan.asked = asked;
        Ok(plan)
    }

    fn look_up(&mut self, shape: &Shape) -> Result<usize, Error> {
        let place = match self.places.get(&(*shape, self.forced)) {
            Some(place) => *place,
            None => self.add(shape)?,
        };
        if !self.recent.contains(&place) {
            self.recent.rotate_right(1);
            self.recent[0] = place;
        }
        Ok(place)
    }

    #[cold]
    fn add(&mut self, shape: &Shape) -> Result<usize, Error> {
        let plan = self.plan(shape)?;
        let place = if self.plans.len() < PLANS_MAX {
            self.plans.push(plan);
            self.plans.len() - 1
        } else {
            let place = self.oldest;
            self.oldest = (self.oldest + 1) % PLANS_MAX;
            let old = &self.plans[place];
            self.places.remove(&(old.shape, old.forced));
            self.plans[place] = plan;
            place
        };
        self.places.insert((*shape, self.forced), place);
        Ok(place)
    }

    fn plan(&self, shape: &Shape) -> Result<Plan, Error> {
        let choice = self.choose(shape)?;
        let (number, algorithm) = (0..)
            .zip(algorithms::all())
            .find(|(_, algorithm)| algorithm.name() == choice.algorithm)
            .expect("the tuner chooses among the algorithms that there are");
        let program = algorithm
            .program(&Job { pieces: choice.pieces, ..self.tuner.place(shape.job(self.size)) }, self.rank);
        let element = shape.dtype.size();
        let extents = Extents::bind(&program, shape.count, element);
        let lends = choice.lends();
        let binding = Binding {
            kernel: Kernel::new(shape.dtype, shape.op),
            element,
            slice: choice.slice,
            store: if choice.streams { Store::Streaming } else { Store::Cached },
            input_registered: lends && shape.input_registered,
            output_registered: lends && shape.output_registered,
            fetched: if choice.fetches() {
                Fetched::All
            } else if choice.fetches_inputs() {
                Fetched::Inputs
            } else {
                Fetched::Nothing
            },
            within: choice.within,
        };
        let fused = |room| {
            let mut passes = fuse_for(&program, room);
            if shape.op == ReduceOp::PreMulSum && passes.passes.is_empty() {
                passes.passes.push(scale_alone(&program));
            }
            Bound::new(&program, &passes, &extents, &binding)
        };
        // A lent chunk needs no room on its link, so any chunk fits; of what is copied only a slice is sure to.
        let bound = Some(fused(Room::Chunk)).filter(Bound::lends_all);
        let bound = bound.unwrap_or_else(|| fused(Room::Slice));
        let bytes =
            |blocks: Range<u32>| blocks.start as usize * shape.bytes()..blocks.end as usize * shape.bytes();
        Ok(Plan {
            shape: *shape,
            asked: Asked::default(),
            lends: shape.longest(self.size) >= LEND_MIN,
            holds: shape.collective.held(self.size, shape.root == self.rank).map(|blocks| blocks > 0),
            shared: shape.job(self.size).sharing(self.rank).map(bytes),
            forced: self.forced,
            executor: Executor::new(Arc::new(bound)),
            signature: Signature {
                collective: shape.collective,
                dtype: shape.dtype,
                op: shape.op,
                algorithm: number
                    | if shape.registered() { Signature::REGISTERED } else { 0 }
                    | if choice.pieces > 1 { Signature::PIECES } else { 0 },
                root: shape.root,
                count: match shape.op {
                    ReduceOp::User => Signature::count_for(shape.count as u64, shape.tag),
                    _ => shape.count as u64,
                },
                sequence: 0,
            },
        })
    }
}

/// What there is to do in place for a rank without peers, whose input is its output but for the scalar.
pub(crate) fn scale_alone(program: &Program) -> Pass {
    let [from, into] = [input(0, program.chunks), output(0, program.chunks)];
    Pass {
        sources: vec![Source::Local(from)],
        into: Some(into),
        to: Vec::new(),
        extent: into,
        channel: ChannelId::default(),
        finishes: false,
        after: Vec::new(),
        steps: Vec::new(),
        written_at: Location::caller(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sohu_coll_algorithms::tuner::Machine;

    #[test]
    fn a_plan_stages_where_its_choice_says_and_in_slices_that_fit_there() {
        let tuning =
            Tuning::parse("table", "all_reduce * 1M.. * * chains slice=256K").expect("it is well written");
        let settings = Settings { wish: None, tuning: Some(tuning), reproducible: false };
        let mut plans = Plans::new(Rank(0), 8, Tuner::new(Machine::shm(8, 2)), settings);
        for (count, within) in [(1 << 10, None), (1 << 20, Some(256 << 10))] {
            let shape = Shape {
                collective: Collective::AllReduce,
                dtype: DType::F32,
                op: ReduceOp::Sum,
                root: Rank(0),
                count,
                in_place: false,
                input_registered: false,
                output_registered: false,
                tag: Tag::default(),
            };
            let slice = plans.choose(&shape).expect("there is an algorithm").slice;
            let plan = plans.find(&shape, Asked::default()).expect("there is an algorithm");
            assert_eq!(plan.executor.bound().within, within, "{count} floats");
            assert!(within.is_none_or(|within| slice == within / 2), "{slice} bytes in {within:?}");
        }
    }
}
