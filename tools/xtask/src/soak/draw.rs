//! The sequence of calls: a function of the seed and the number of ranks, the same on every rank.
//!
//! Invariant: every rank draws every step, also those of groups that it is not in, so all agree on which groups there are
//! and who is in them. Groups live no longer than their chapter, and each chapter is drawn for itself.

mod messages;
mod ragged;
mod rng;
#[cfg(test)]
mod tests;

pub(super) use messages::{COUNT_MAX as MESSAGES_MAX, Message, Messages, Part};
pub(super) use ragged::{Lay, Ragged};
pub(super) use rng::{Rng, mix};

use sohu_coll::{Collective, DType, ReduceOp};

/// What a call reduces by: an operation of the library's, or a function of this program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Op {
    /// One of the library's.
    Known(ReduceOp),
    /// A user operation in which the order of the ranks shows: each element is a map, and they are applied one after another.
    Compose,
    /// A user operation that is declared commutative: exclusive or.
    Xor,
}

impl Op {
    /// The operations there are to draw.
    pub(super) const ALL: [Self; 8] = [
        Self::Known(ReduceOp::Sum),
        Self::Known(ReduceOp::Prod),
        Self::Known(ReduceOp::Min),
        Self::Known(ReduceOp::Max),
        Self::Known(ReduceOp::Avg),
        Self::Known(ReduceOp::PreMulSum),
        Self::Compose,
        Self::Xor,
    ];

    /// What a request calls it.
    pub(super) fn name(self) -> ReduceOp {
        match self {
            Self::Known(op) => op,
            Self::Compose | Self::Xor => ReduceOp::User,
        }
    }
}

/// Steps of a chapter, the last of which drops all groups but the world.
pub(super) const CHAPTER: u64 = 64;
/// The longest buffer of a rank, in bytes.
pub(super) const BYTES_MAX: usize = 16 << 20;
/// Bytes between the start of a buffer's memory and its first guard, at most.
pub(super) const OFFSET_MAX: usize = 63;
/// Groups that live at once: each has links and memory of its own.
pub(super) const LIVE_MAX: usize = 7;
/// Groups that one split can make.
const COLOURS: [u32; 3] = [0, 7, u32::MAX];
/// Where the library changes what it does, in bytes: a line, the least that is lent, pages, slices, the rings of both
/// transports, what is announced once it has landed, and staging. A size is drawn at these, and beside them.
const EDGES: [usize; 12] = [
    64,
    1 << 10,
    2 << 10,
    4 << 10,
    8 << 10,
    32 << 10,
    64 << 10,
    128 << 10,
    256 << 10,
    1 << 20,
    2 << 20,
    4 << 20,
];
/// How many of the latest shapes can come again, to meet plans that were made before.
const RECENT: usize = 8;
/// Rounds of busy work of the rank that is late: up to some milliseconds.
const LATE_MAX: u64 = 4 << 20;
/// The longest buffer of a call that is started or planned: several are there at once.
const STARTED_MAX: usize = 2 << 20;
/// Calls of a group that can be pending.
pub(super) const FLIGHTS_MAX: usize = 6;
/// The most runs of a persistent call.
const RUNS_MAX: u64 = 4;

/// Where a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// In memory of the process.
    Private,
    /// In registered memory of the group, used before.
    Registered,
    /// In registered memory that is taken for this call and given back after it.
    Fresh,
}

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It returns when it is over.
    Blocking,
    /// It is started, and waited for when the script says so.
    Started,
    /// It is started, and nobody waits for it.
    Forgotten,
    /// It is planned, and made so many times.
    Persistent(u64),
}

/// What of a call can come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) collective: Collective,
    pub(super) dtype: DType,
    pub(super) op: Op,
    /// Elements of a block.
    pub(super) count: usize,
    pub(super) in_place: bool,
    /// Of the input and the output; in place the output's is used.
    pub(super) homes: [Home; 2],
}

/// One collective call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// The name of the group that calls.
    pub(super) group: u32,
    pub(super) shape: Shape,
    pub(super) how: How,
    /// A rank of the group; given also where the collective has none.
    pub(super) root: u32,
    /// Differs from call to call, so that bytes of an earlier one are wrong in this one.
    pub(super) salt: u64,
    /// Bytes between the start of the memory and the first guard, on the group's rank 0.
    pub(super) offset: usize,
    /// Bytes of a buffer that a rank hands over and does not need.
    pub(super) spare: usize,
    /// A rank of the group that comes late, and by how much work.
    pub(super) late: Option<(u32, u64)>,
}

/// Ranks with a communicator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Its number, never used again within a chapter. 0 is the world.
    pub(super) name: u32,
    /// Ranks of the world, in the order of their ranks here.
    pub(super) members: Vec<u32>,
}

/// What all ranks do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A group makes a call.
    Call(Call),
    /// A group makes a call whose blocks have lengths of their own.
    Ragged(Ragged),
    /// Ranks of a group send each other messages.
    Messages(Messages),
    /// A group waits for one of its calls that are pending. Each rank takes one by its own number, so the orders differ.
    Wait { group: u32, salt: u64 },
    /// A group parts. What each of its ranks says, and what must come of it.
    Split { parent: u32, said: Vec<(Option<u32>, i64)>, made: Vec<Group> },
    /// A group gets a second communicator.
    Duplicate { parent: u32, made: Group },
    /// The ranks of a group drop it, each when it comes to it.
    Drop { group: u32 },
    /// All groups but the world are dropped: the end of a chapter.
    Rest,
}

/// All steps, with their numbers.
#[derive(Clone, Debug)]
pub(super) struct Script {
    seed: u64,
    number: u64,
    rng: Rng,
    live: Vec<Group>,
    names: u32,
    recent: Vec<Shape>,
}

impl Script {
    /// The steps of a world of `ranks`, from the chapter that `from` is in.
    pub(super) fn new(seed: u64, ranks: u32, from: u64) -> Self {
        let world = Group { name: 0, members: (0..ranks).collect() };
        let number = from - from % CHAPTER;
        Self { seed, number, rng: Rng::new(seed, 0), live: vec![world], names: 0, recent: Vec::new() }
    }

    fn step(&mut self) -> Step {
        if self.number.is_multiple_of(CHAPTER) {
            self.rng = Rng::new(self.seed, self.number);
            self.names = 0;
            self.recent.clear();
        }
        if self.number % CHAPTER == CHAPTER - 1 {
            self.live.truncate(1);
            return Step::Rest;
        }
        // All memory that is kept is at its largest before it is counted.
        if self.number < 2 * Collective::ALL.len() as u64 {
            return Step::Call(self.largest());
        }
        let room = self.live.len() + COLOURS.len() <= LIVE_MAX;
        match self.rng.below(72) {
            64..=71 => Step::Ragged(self.ragged()),
            56..=63 => Step::Messages(self.messages()),
            48..=55 => {
                let group = self.parent().name;
                Step::Wait { group, salt: self.rng.next() }
            }
            0 | 1 if room => self.split(),
            2 if room => self.duplicate(),
            3 | 4 if self.live.len() > 1 => {
                let at = 1 + self.rng.index(self.live.len() - 1);
                Step::Drop { group: self.live.remove(at).name }
            }
            _ => Step::Call(self.call()),
        }
    }

    fn parent(&mut self) -> Group {
        // The world is half of it: its calls alone have a past that is longer than a chapter.
        let at = if self.rng.once_in(2) { 0 } else { self.rng.index(self.live.len()) };
        self.live[at].clone()
    }

    fn name(&mut self) -> u32 {
        self.names += 1;
        self.names
    }

    fn split(&mut self) -> Step {
        let parent = self.parent();
        let none_in = self.rng.one_of(&[1_000_000, 5, 2]);
        let keys = self.rng.one_of(&[&[0, 0][..], &[-2, -1, 0, 1, 2], &[i64::MIN, -1, i64::MAX]]);
        let mut say = || {
            let colour = self.rng.one_of(&COLOURS);
            ((!self.rng.once_in(none_in)).then_some(colour), self.rng.one_of(keys))
        };
        let said: Vec<(Option<u32>, i64)> = parent.members.iter().map(|_| say()).collect();
        let mut made = Vec::new();
        for colour in COLOURS {
            let mut members: Vec<(i64, usize)> = Vec::new();
            members.extend((0..).zip(&said).filter(|(_, s)| s.0 == Some(colour)).map(|(at, s)| (s.1, at)));
            members.sort_unstable();
            if !members.is_empty() {
                let members = members.into_iter().map(|(_, at)| parent.members[at]).collect();
                made.push(Group { name: self.name(), members });
            }
        }
        self.live.extend(made.iter().cloned());
        Step::Split { parent: parent.name, said, made }
    }

    fn duplicate(&mut self) -> Step {
        let parent = self.parent();
        let made = Group { name: self.name(), members: parent.members };
        self.live.push(made.clone());
        Step::Duplicate { parent: parent.name, made }
    }

    fn call(&mut self) -> Call {
        let group = self.parent();
        let size = group.members.len() as u32;
        let again = !self.recent.is_empty() && self.rng.once_in(4);
        let shape = if again { self.rng.one_of(&self.recent) } else { self.shape() };
        let how = match self.rng.below(8) {
            0 | 1 => How::Started,
            2 => How::Forgotten,
            3 => How::Persistent(1 + self.rng.below(RUNS_MAX)),
            _ => How::Blocking,
        };
        // What needs a function is started by its type alone, and calls are untyped here.
        let how = if shape.op.name() == ReduceOp::User { How::Blocking } else { how };
        let longest = if how == How::Blocking { BYTES_MAX } else { STARTED_MAX };
        // A shape of a smaller group may be too long for this one.
        let shape = Shape { count: shape.count.min(count_max(&shape, size, longest)), ..shape };
        if !again {
            self.recent.truncate(RECENT - 1);
            self.recent.insert(0, shape);
        }
        let late = self.late(size);
        Call {
            group: group.name,
            shape,
            how,
            root: self.rng.below(size.into()) as u32,
            salt: self.rng.next(),
            offset: self.offset(),
            spare: self.rng.one_of(&[0, 0, 1, 13, 4096]),
            late,
        }
    }

    /// How a call is made of which no buffer is longer than so many bytes, and that is not planned.
    fn fate(&mut self, longest: usize) -> How {
        match self.rng.below(6) {
            0 | 1 if longest <= STARTED_MAX => How::Started,
            2 if longest <= STARTED_MAX => How::Forgotten,
            _ => How::Blocking,
        }
    }

    /// A rank that comes late, now and then.
    fn late(&mut self, size: u32) -> Option<(u32, u64)> {
        self.rng.once_in(4).then(|| (self.rng.below(size.into()) as u32, self.rng.below(LATE_MAX)))
    }

    fn offset(&mut self) -> usize {
        if self.rng.once_in(4) { self.rng.index(OFFSET_MAX + 1) } else { 0 }
    }

    fn homes(&mut self) -> [Home; 2] {
        let homes = [Home::Private, Home::Private, Home::Registered, Home::Fresh];
        let input = self.rng.one_of(&homes);
        let output = if self.rng.once_in(3) { self.rng.one_of(&homes) } else { input };
        [input, output]
    }

    fn shape(&mut self) -> Shape {
        let dtype = self.rng.one_of(&DType::ALL);
        let homes = self.homes();
        Shape {
            collective: self.rng.one_of(&Collective::ALL),
            dtype,
            op: self.rng.one_of(&Op::ALL),
            count: self.bytes().min(BYTES_MAX) / dtype.size(),
            in_place: self.rng.once_in(3),
            homes,
        }
    }

    /// Bytes of a block: small ones, ones at the edges of what the library does, any, and now and then large ones.
    fn bytes(&mut self) -> usize {
        match self.rng.below(16) {
            0..=2 => self.rng.index(80),
            3..=6 => self.rng.index(5_000),
            7..=11 => {
                // Beside an edge by an element of any type, for the block or for all the blocks of a vector.
                let blocks = self.rng.one_of(&[1, 1, 2, 3, 5]);
                let beside = self.rng.one_of(&[0, 0, 1, 2, 4, 8, 16]);
                let edge = self.rng.one_of(&EDGES) / blocks;
                if self.rng.once_in(2) { edge + beside } else { edge.saturating_sub(beside) }
            }
            12..=14 => self.up_to(18),
            _ => self.up_to(24),
        }
    }

    /// Any size below 2 to the `bits`, small ones as often as large ones.
    fn up_to(&mut self, bits: u64) -> usize {
        let most = 1 << (1 + self.rng.below(bits));
        self.rng.index(most + 1)
    }

    fn largest(&mut self) -> Call {
        let at = self.number as usize;
        let home = if at < Collective::ALL.len() { Home::Private } else { Home::Fresh };
        let shape = Shape {
            collective: Collective::ALL[at % Collective::ALL.len()],
            dtype: DType::F32,
            op: Op::Known(ReduceOp::Sum),
            count: BYTES_MAX,
            in_place: false,
            homes: [home; 2],
        };
        let size = self.live[0].members.len() as u32;
        let shape = Shape { count: count_max(&shape, size, BYTES_MAX), ..shape };
        let how = How::Blocking;
        Call { group: 0, shape, how, root: size - 1, salt: self.rng.next(), offset: 0, spare: 0, late: None }
    }
}

/// The most elements of a block with which no buffer is longer than `longest`.
fn count_max(shape: &Shape, size: u32, longest: usize) -> usize {
    let held = shape.collective.held(size, true);
    longest / held[0].max(held[1]) as usize / shape.dtype.size()
}

impl Iterator for Script {
    type Item = (u64, Step);

    fn next(&mut self) -> Option<(u64, Step)> {
        let step = self.step();
        self.number += 1;
        Some((self.number - 1, step))
    }
}
