//! Whole collectives on one thread: an executor for each rank, over any links, polled in an order that a seed
//! decides.
//!
//! Over links that a seed decides too ([`LoopLinks`](sohu_coll_conformance::LoopLinks)) a run is the same every time, so a
//! failing one prints its seed and comes again. What is looked at: every byte of every buffer of every rank,
//! that spans are back when a call ends, and that a run in which nothing moves any more says what each
//! rank waits for.

mod expected;

use core::ops::DerefMut;
use sohu_coll_conformance::Seeded;
use sohu_coll_core::error::{LinkError, list};
use sohu_coll_core::exec::{Binding, Bound, Executor, Fetched, Progress};
use sohu_coll_core::kernel::{Kernel, Store};
use sohu_coll_core::link::Links;
use sohu_coll_core::plan::fuse::fuse_for;
use sohu_coll_core::plan::{Algorithm, Extents, Job, Room};
use sohu_coll_core::{DType, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::{Loan, scope};
use sohu_coll_mem::{Ledger, Regions};
use std::sync::Arc;

/// Rounds in a row in which no rank moves before a run counts as stuck: links may refuse at times, but not
/// as often as this.
const IDLE_ROUNDS: u32 = 400;

/// Idle rounds between two runs of the slow path of a wait.
const SLOW_PATH_EVERY: u32 = 50;

/// What outputs hold before a call.
const UNTOUCHED: u8 = 0xee;

/// One rank's call.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    /// Writes the program.
    pub(crate) algorithm: &'a dyn Algorithm,
    /// What it writes it for.
    pub(crate) job: Job,
    /// Element type: `F32`, `I64` or `Bf16`.
    pub(crate) dtype: DType,
    /// Reduction.
    pub(crate) op: ReduceOp,
    /// Elements, as NCCL counts them.
    pub(crate) count: usize,
    /// The most bytes of one pass that move in one trip.
    pub(crate) slice: usize,
    /// How much every link is sure to hold. Of registered memory it is [`Room::Slice`] all the same where a rank
    /// can not lend everything that it sends.
    pub(crate) room: Room,
    /// Whether the buffers are registered memory.
    pub(crate) registered: bool,
    /// How results are stored.
    pub(crate) store: Store,
}

impl core::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { job, dtype, op, count, slice, room, registered, .. } = self;
        let name = self.algorithm.name();
        write!(f, "{name} {job:?} {dtype}[{count}] {op:?} slice {slice} {room:?} registered {registered}")
    }
}

impl Call<'_> {
    /// Bytes of one rank's block, or of the whole where there are no blocks.
    fn block(&self) -> usize {
        self.count * self.dtype.size()
    }

    fn held_bytes(&self, rank: Rank) -> [usize; 2] {
        let held = self.job.collective.held(self.job.size, rank == self.job.root);
        held.map(|blocks| blocks as usize * self.block())
    }

    /// Where the input and the output lie in the one buffer of a call in place.
    fn places(&self, rank: Rank) -> [core::ops::Range<usize>; 2] {
        let block = self.block();
        self.job.sharing(rank).map(|blocks| blocks.start as usize * block..blocks.end as usize * block)
    }

    fn bind(&self, rank: Rank, sequence: u32) -> Player {
        let program = self.algorithm.program(&self.job, rank);
        let element = self.dtype.size();
        let binding = Binding {
            kernel: Kernel::new(self.dtype, self.op),
            element,
            slice: self.slice,
            store: self.store,
            input_registered: self.registered,
            output_registered: self.registered,
            fetched: Fetched::Nothing,
            within: None,
        };
        let extents = Extents::bind(&program, self.count, element);
        let fused = |room| Bound::new(&program, &fuse_for(&program, room), &extents, &binding);
        let mut bound = fused(self.room);
        if self.registered && !bound.lends_all() {
            bound = fused(Room::Slice);
        }
        Player { executor: Executor::new(Arc::new(bound)), signature: self.signature(sequence) }
    }

    fn signature(&self, sequence: u32) -> Signature {
        let reduces = self.job.collective.reduces();
        Signature {
            collective: self.job.collective,
            dtype: self.dtype,
            op: if reduces { self.op } else { ReduceOp::Sum },
            algorithm: 0,
            root: self.job.root,
            count: self.count as u64,
            sequence,
        }
    }
}

/// One rank in one call.
struct Player {
    executor: Executor,
    signature: Signature,
}

/// One rank's buffers of one call. In place there is only the output, which holds both.
struct Memory<M> {
    rank: Rank,
    input: Option<M>,
    output: M,
    scratch: Vec<u8>,
    places: [core::ops::Range<usize>; 2],
    /// What the buffers held before the call.
    before: (Vec<u8>, Vec<u8>),
}

impl<M: DerefMut<Target = [u8]>> Memory<M> {
    fn new(
        call: &Call<'_>,
        rank: Rank,
        seed: u64,
        scratch: usize,
        alloc: &mut dyn FnMut(usize) -> M,
    ) -> Self {
        let places = call.places(rank);
        let given = expected::given(call, rank, seed);
        let [gives, gets] = call.held_bytes(rank);
        let mut input = (!call.job.in_place).then(|| alloc(gives));
        let mut output = alloc(if call.job.in_place { gives.max(gets) } else { gets });
        output.fill(UNTOUCHED);
        match &mut input {
            Some(input) => input.copy_from_slice(&given),
            None => output[places[0].clone()].copy_from_slice(&given),
        }
        let before = (input.as_ref().map_or(Vec::new(), |input| input.to_vec()), output.to_vec());
        Self { rank, input, output, scratch: vec![UNTOUCHED; scratch], places, before }
    }

    fn unchanged(&self) -> bool {
        self.output[..] == self.before.1
    }

    /// Compares all bytes with what a call that ended well leaves.
    fn check(&self, call: &Call<'_>, seed: u64) {
        let result = expected::result(call, self.rank, seed);
        let mut whole = self.before.1.clone();
        let at = if call.job.in_place { self.places[1].clone() } else { 0..whole.len() };
        whole[at].copy_from_slice(&result);
        let wrong = self.output.iter().zip(&whole).position(|(found, expected)| found != expected);
        if let Some(byte) = wrong {
            let element = byte / call.dtype.size();
            let (found, expected) = (&self.output[byte..], &whole[byte..]);
            let some = |bytes: &[u8]| format!("{:02x?}", &bytes[..bytes.len().min(8)]);
            panic!(
                "{}: {call:?}: output element {element} (byte {byte}) is wrong: {}, not {}",
                self.rank,
                some(found),
                some(expected)
            );
        }
        if let Some(input) = &self.input {
            assert!(input[..] == self.before.0, "{}: its input was written", self.rank);
        }
    }
}

/// How a call ended on one rank.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// What the executor said; `None` when it never ended, as its links do not tell of peers that are gone.
    pub(crate) result: Option<Result<(), LinkError>>,
    /// Whether every byte of the output is as it was.
    pub(crate) unchanged: bool,
}

/// Prints what was being run when a check panics.
struct Note(String);

impl Drop for Note {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("while simulating {}", self.0);
        }
    }
}

/// Opens the buffers of all ranks and calls at once.
fn open<M: DerefMut<Target = [u8]>>(
    ledgers: &[Box<Ledger>],
    memories: &mut [Memory<M>],
    before: Option<&Opened<'_>>,
    work: &mut dyn FnMut(&[Regions<'_>]),
) {
    let Some((first, rest)) = memories.split_first_mut() else {
        let mut all: Vec<Regions<'_>> = Vec::new();
        let mut next = before;
        while let Some(opened) = next {
            all.push(opened.regions);
            next = opened.before;
        }
        all.reverse();
        return work(&all);
    };
    let [input, output] = first.places.clone();
    let loan = match &first.input {
        Some(input) => Loan::Apart { input, output: &mut first.output },
        None => Loan::Shared { buffer: &mut first.output, input, output },
    };
    scope(&ledgers[first.rank.index()], loan, &mut first.scratch, |regions| {
        open(ledgers, rest, Some(&Opened { regions: *regions, before }), work);
    });
}

struct Opened<'a> {
    regions: Regions<'a>,
    before: Option<&'a Opened<'a>>,
}

/// Runs calls on all ranks, each rank at its own pace, and compares what it leaves with what it should.
///
/// `calls[k][r]` is what rank r makes as its call k; `alloc` makes a buffer that its links know. A rank
/// that fails drops its links. Returns how each call ended, in the same order.
///
/// # Panics
/// When nothing moves any more and no rank has failed; when a buffer of a call that ended well, on ranks that
/// all made the same one, holds a wrong byte; when a span is out after a call.
pub(crate) fn run<L: Links, M: DerefMut<Target = [u8]>>(
    seed: u64,
    links: Vec<L>,
    calls: &[Vec<Call<'_>>],
    mut alloc: impl FnMut(&L, usize) -> M,
) -> Vec<Vec<Ending>> {
    let _note = Note(format!("seed {seed}: {calls:?}"));
    let ranks = links.len();
    let mut players: Vec<Player> = Vec::new();
    let mut memories: Vec<Memory<M>> = Vec::new();
    for (number, calls) in (0u32..).zip(calls) {
        for ((rank, call), link) in (0..).map(Rank).zip(calls).zip(&links) {
            let player = call.bind(rank, number);
            let scratch = player.executor.bound().scratch_bytes;
            let mut alloc = |len| alloc(link, len);
            memories.push(Memory::new(call, rank, seed + u64::from(number), scratch, &mut alloc));
            players.push(player);
        }
    }
    let ledgers: Vec<Box<Ledger>> = (0..ranks).map(|_| Ledger::new()).collect();
    let mut stage = Stage::new(seed, links, &ledgers, calls.len());
    open(&ledgers, &mut memories, None, &mut |regions| stage.play(&mut players, regions));
    let mut results = stage.results.into_iter();
    let mut memories = memories.into_iter();
    let mut endings = Vec::new();
    for (number, calls) in (0u32..).zip(calls) {
        let same = calls.iter().all(|call| format!("{call:?}") == format!("{:?}", calls[0]));
        let ended =
            calls.iter().zip(memories.by_ref()).zip(results.by_ref()).map(|((call, memory), result)| {
                if same && result == Some(Ok(())) {
                    memory.check(call, seed + u64::from(number));
                }
                Ending { result, unchanged: memory.unchanged() }
            });
        endings.push(ended.collect());
    }
    endings
}

/// Where one rank is.
#[derive(Clone, Copy, Default)]
struct Turn {
    call: usize,
    begun: bool,
    /// How often the rank is passed over before it begins.
    late: usize,
}

/// All ranks while they run.
struct Stage<'s, L> {
    random: Seeded,
    links: Vec<Option<L>>,
    ledgers: &'s [Box<Ledger>],
    calls: usize,
    turns: Vec<Turn>,
    /// A rank that is polled only now and then.
    lazy: usize,
    /// By call, then by rank.
    results: Vec<Option<Result<(), LinkError>>>,
}

impl<'s, L: Links> Stage<'s, L> {
    fn new(seed: u64, links: Vec<L>, ledgers: &'s [Box<Ledger>], calls: usize) -> Self {
        let ranks = links.len();
        let mut random = Seeded::new(seed);
        let late = |random: &mut Seeded| Turn { late: random.below(20), ..Turn::default() };
        Self {
            turns: (0..ranks).map(|_| late(&mut random)).collect(),
            lazy: random.below(2 * ranks),
            links: links.into_iter().map(Some).collect(),
            ledgers,
            calls,
            results: vec![None; calls * ranks],
            random,
        }
    }

    fn is_over(&self, rank: usize) -> bool {
        self.links[rank].is_none() || self.turns[rank].call == self.calls
    }

    fn play(&mut self, players: &mut [Player], regions: &[Regions<'_>]) {
        let ranks = self.turns.len();
        let mut order: Vec<usize> = (0..ranks).collect();
        let mut idle = 0;
        while !(0..ranks).all(|rank| self.is_over(rank)) {
            for at in 1..ranks {
                order.swap(at, self.random.below(at + 1));
            }
            let mut moved = false;
            for &rank in &order {
                if rank == self.lazy && idle == 0 && self.random.below(16) != 0 {
                    moved = true;
                    continue;
                }
                for _ in 0..=self.random.below(3) {
                    moved |= self.step(rank, players, regions);
                }
            }
            idle = if moved { 0 } else { idle + 1 };
            if idle > 0 && idle % SLOW_PATH_EVERY == 0 {
                self.slow_path();
            }
            if idle > IDLE_ROUNDS {
                let failed = self.links.iter().any(Option::is_none);
                assert!(failed, "nothing moves any more: {}", self.stuck(players));
                break;
            }
        }
        for link in self.links.iter_mut().flatten() {
            link.abandon();
        }
    }

    /// One poll of one rank. Returns whether anything moved.
    fn step(&mut self, rank: usize, players: &mut [Player], regions: &[Regions<'_>]) -> bool {
        let index = self.turns[rank].call * self.turns.len() + rank;
        let (turn, Some(link)) = (&mut self.turns[rank], &mut self.links[rank]) else { return false };
        if turn.call == self.calls {
            return false;
        }
        if turn.late > 0 {
            turn.late -= 1;
            return true;
        }
        let player = &mut players[index];
        let polled = if turn.begun {
            player.executor.poll(&regions[index], link)
        } else {
            turn.begun = true;
            player.executor.begin(&player.signature, self.random.below(3) as u32, &regions[index], link)
        };
        match polled {
            Ok(Progress::Moved) => true,
            Ok(Progress::Idle) => false,
            Ok(Progress::Done) => {
                assert_eq!(
                    self.ledgers[rank].out(),
                    0,
                    "rank {rank}: spans are out after call {}",
                    turn.call
                );
                link.ring();
                self.results[index] = Some(Ok(()));
                *turn = Turn { call: turn.call + 1, begun: false, late: self.random.below(4) };
                true
            }
            Err(error) => {
                link.abandon();
                self.results[index] = Some(Err(error));
                self.links[rank] = None;
                true
            }
        }
    }

    /// What a rank does that has waited for long.
    fn slow_path(&mut self) {
        for (rank, slot) in self.links.iter_mut().enumerate() {
            if let Some(link) = slot {
                link.ring();
                link.check().unwrap_or_else(|error| panic!("rank {rank}: {error}"));
            }
        }
    }

    /// What every rank waits for.
    fn stuck(&self, players: &[Player]) -> String {
        let state = |(rank, turn): (usize, &Turn)| {
            let Some(link) = &self.links[rank] else { return format!("rank {rank} failed") };
            let Some(player) = players.get(turn.call * self.turns.len() + rank) else {
                return format!("rank {rank} is done");
            };
            match (&link.unverified()[..], player.executor.waiting_for()) {
                ([], Some((peers, at))) => {
                    format!("rank {rank} waits in call {} for {} at {at}", turn.call, list(&peers))
                }
                ([], None) => format!("rank {rank} waits in call {} for its links to settle", turn.call),
                (peers, _) => format!("rank {rank} waits for {} to make call {}", list(peers), turn.call),
            }
        };
        let states: Vec<String> = self.turns.iter().enumerate().map(state).collect();
        states.join("; ")
    }
}
