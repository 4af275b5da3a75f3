//! The bound programs of a communicator: planned once for each shape of call, then found again.

use crate::wish::Wish;
use sohu_coll_algorithms as algorithms;
use sohu_coll_algorithms::tuner::{Choice, Tuner};
use sohu_coll_core::exec::{Binding, Bound, Executor};
use sohu_coll_core::kernel::{Kernel, Store};
use sohu_coll_core::plan::fuse::{Room, fuse_for};
use sohu_coll_core::plan::{Algorithm, Extents, Job};
use sohu_coll_core::{Collective, DType, Error, Misuse, Rank, ReduceOp, Signature};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// The most shapes that are kept. An inference step makes a few dozen; beyond this the oldest goes.
const PLANS_MAX: usize = 512;

/// Shapes that are compared before one is hashed: more than a layer of a model alternates between.
const RECENT: usize = 4;

/// Outputs from this size on are stored past the cache: they would not be found there when they are read.
/// Twice the last-level cache's share of a core on the machines measured; see docs/measurements.
const STREAM_FROM: usize = 16 << 20;

/// Slice of calls whose blocks have lengths of their own: right for a block of some 100 KiB.
const RAGGED_SLICE: usize = 64 << 10;

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
}

impl Shape {
    /// The shape in two words, to compare it fast. Two shapes have the same key only if they are the same.
    #[inline]
    fn key(&self) -> [u64; 2] {
        let flags = u64::from(self.in_place)
            | u64::from(self.input_registered) << 1
            | u64::from(self.output_registered) << 2;
        let kinds = u64::from(self.collective as u8)
            | u64::from(self.dtype as u8) << 8
            | u64::from(self.op as u8) << 16
            | flags << 24
            | u64::from(self.root.0) << 32;
        [kinds, self.count as u64]
    }

    /// The job without its bytes.
    pub(crate) fn job(&self, size: u32) -> Job {
        Job { root: self.root, in_place: self.in_place, ..Job::new(self.collective, size) }
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

/// One planned call.
#[derive(Debug)]
pub(crate) struct Plan {
    shape: Shape,
    key: [u64; 2],
    pub(crate) executor: Executor,
    /// The call's signature, but for its sequence.
    pub(crate) signature: Signature,
}

/// All plans of a communicator.
#[derive(Debug)]
pub(crate) struct Plans {
    rank: Rank,
    size: u32,
    tuner: Tuner,
    wish: Option<Wish>,
    /// Whether only algorithms may be chosen whose results do not depend on the choice.
    reproducible: bool,
    plans: Vec<Plan>,
    places: HashMap<Shape, usize>,
    /// Places of the last few shapes, the latest first.
    recent: [usize; RECENT],
    oldest: usize,
}

impl Plans {
    pub(crate) fn new(rank: Rank, size: u32, tuner: Tuner, wish: Option<Wish>, reproducible: bool) -> Self {
        Self {
            rank,
            size,
            tuner,
            wish,
            reproducible,
            plans: Vec::new(),
            places: HashMap::new(),
            recent: [0; RECENT],
            oldest: 0,
        }
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
        let in_order = self.reproducible && shape.collective.reduces();
        if self.wish.is_none() && !in_order {
            return Ok(self.tuner.choose(&job, bytes, shape.registered()));
        }
        let may = |name: &str| {
            let wished = self.wish.as_ref().is_none_or(|wish| wish.allows(shape.collective, name));
            wished && (!in_order || algorithms::by_name(name).is_some_and(|a| a.folds_in_rank_order()))
        };
        self.tuner.choose_among(&job, bytes, shape.registered(), may).map_err(|fitting| {
            let algorithm = self.wish.as_ref().map_or_else(String::new, |wish| wish.text().into());
            let (call, size) = (shape.collective.name(), self.size);
            Misuse::Algorithm { call, algorithm, size, known: fitting.join(", ") }.into()
        })
    }

    /// The plan for calls of this shape, made now if there is none.
    ///
    /// # Errors
    /// When an algorithm was forced that can not do it.
    #[inline]
    pub(crate) fn find(&mut self, shape: &Shape) -> Result<&mut Plan, Error> {
        // A few shapes in turn are what inference does; comparing them beats hashing one.
        let key = shape.key();
        let is_here = |place: &usize| self.plans.get(*place).is_some_and(|plan| plan.key == key);
        let place = match self.recent.iter().find(|place| is_here(place)) {
            Some(place) => *place,
            None => self.look_up(shape)?,
        };
        Ok(&mut self.plans[place])
    }

    #[cold]
    fn look_up(&mut self, shape: &Shape) -> Result<usize, Error> {
        let place = match self.places.get(shape) {
            Some(place) => *place,
            None => self.add(shape)?,
        };
        self.recent.rotate_right(1);
        self.recent[0] = place;
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
            self.places.remove(&self.plans[place].shape);
            self.plans[place] = plan;
            place
        };
        self.places.insert(*shape, place);
        Ok(place)
    }

    fn plan(&self, shape: &Shape) -> Result<Plan, Error> {
        let choice = self.choose(shape)?;
        let (number, algorithm) = (0..)
            .zip(algorithms::all())
            .find(|(_, algorithm)| algorithm.name() == choice.algorithm)
            .expect("the tuner chooses among the algorithms that there are");
        let program = algorithm.program(&Job { pieces: choice.pieces, ..shape.job(self.size) }, self.rank);
        let element = shape.dtype.size();
        let extents = Extents::bind(&program, shape.count, element);
        let streams = shape.longest(self.size) >= STREAM_FROM;
        let binding = Binding {
            kernel: Kernel::new(shape.dtype, shape.op),
            element,
            slice: choice.slice,
            store: if streams { Store::Streaming } else { Store::Cached },
            input_registered: shape.input_registered,
            output_registered: shape.output_registered,
        };
        let fused = |room| Bound::new(&program, &fuse_for(&program, room), &extents, &binding);
        // A lent chunk needs no room on its link, so any chunk fits; of what is copied only a slice is sure to.
        let bound = Some(fused(Room::Chunk)).filter(Bound::lends_all);
        let bound = bound.unwrap_or_else(|| fused(Room::Slice));
        Ok(Plan {
            shape: *shape,
            key: shape.key(),
            executor: Executor::new(Arc::new(bound)),
            signature: Signature {
                collective: shape.collective,
                dtype: shape.dtype,
                op: shape.op,
                algorithm: number | if shape.registered() { Signature::REGISTERED } else { 0 },
                root: shape.root,
                count: shape.count as u64,
                sequence: 0,
            },
        })
    }
}

/// A plan for one call whose blocks have lengths of their own: the direct algorithm, which is right for any lengths.
/// `held` are the byte ranges that the rank's input and output hold, in order; `blocks` those of the whole vector.
pub(crate) fn ragged_plan(
    rank: Rank,
    size: u32,
    call: &Signature,
    held: [&[Range<usize>]; 2],
    blocks: &[Range<usize>],
    registered: [bool; 2],
) -> Executor {
    let job = Job { root: call.root, ..Job::new(call.collective, size) };
    let program = algorithms::OneShot.program(&job, rank);
    let extents = Extents::ragged(&program, held, blocks);
    let binding = Binding {
        kernel: Kernel::new(call.dtype, call.op),
        element: call.dtype.size(),
        slice: RAGGED_SLICE,
        store: Store::Cached,
        input_registered: registered[0],
        output_registered: registered[1],
    };
    Executor::new(Arc::new(Bound::new(&program, &fuse_for(&program, Room::Slice), &extents, &binding)))
}
