//! Many calls in one job: every combination of a set, each checked to the last byte on every rank.

use crate::ranks::values::{Kind, PERIOD, Values, fill, first_difference, float_at};
use crate::ranks::{Member, Post};
use sohu_coll::{Buffer, Buffers, Collective, Communicator, DType, Error, Misuse, ReduceOp, Request, Scalar};
use std::hash::{DefaultHasher, Hasher};
use std::ops::{Deref, DerefMut, Range};

/// The largest size of the matrix, in elements of the whole vector.
const LARGE: usize = (1 << 20) + 12;
/// What nobody wrote yet.
const BLANK: u8 = 0xa5;
/// What a rank has in a buffer that it gives to nobody.
const JUNK: u8 = 0x5a;
/// Bytes before and after every output that must stay blank.
const GUARD: usize = 64;

/// Where buffers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Private,
    Registered,
}

/// A set of combinations.
struct Set {
    dtypes: &'static [DType],
    ops: &'static [ReduceOp],
    counts: &'static [usize],
    kind: Kind,
    /// Where inputs and outputs are; each pair in turn.
    homes: &'static [(Home, Home)],
    /// Bytes between the start of a buffer's memory and its first element.
    offset: usize,
}

/// Every operation that has a name.
const OPS: [ReduceOp; 6] =
    [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Min, ReduceOp::Max, ReduceOp::Avg, ReduceOp::PreMulSum];

const PRIVATE: &[(Home, Home)] = &[(Home::Private, Home::Private)];

impl Set {
    fn named(name: &str) -> Self {
        use DType::{Bf16, F16, F32, F64, Fp8E4m3, Fp8E5m2, I8, I64};
        use ReduceOp::{Avg, Max, PreMulSum, Prod, Sum};
        let set = Set {
            dtypes: &DType::ALL,
            ops: &OPS,
            counts: &[0, 1, 3, 7, 4095, 4096, 4097, LARGE],
            kind: Kind::Exact,
            homes: PRIVATE,
            offset: 0,
        };
        match name {
            "all" => set,
            "wide" => Set { counts: &[0, 1, 4097, 70_001], ..set },
            "few" => Set {
                dtypes: &[I8, F16, F32, F64],
                ops: &[Sum, Avg, PreMulSum],
                counts: &[0, 1, 7, 4097],
                ..set
            },
            "forced" => Set {
                dtypes: &[I8, Bf16, F32],
                ops: &[Sum, Avg, PreMulSum],
                counts: &[0, 1, 7, 4097, 70_001],
                ..set
            },
            "registered" => Set {
                dtypes: &[I8, Bf16, F32],
                ops: &[Sum, Max, Avg, PreMulSum],
                // 300 and 900: blocks too short to lend, in buffers that are long enough.
                counts: &[0, 1, 7, 300, 900, 4097, LARGE],
                homes: &[(Home::Registered, Home::Registered)],
                ..set
            },
            "mixed" => Set {
                dtypes: &[F32],
                ops: &[Sum],
                counts: &[0, 1, 4097, 300_001],
                homes: &[(Home::Registered, Home::Private), (Home::Private, Home::Registered)],
                ..set
            },
            "odd" => Set {
                dtypes: &[Bf16, F32, F64, I64],
                ops: &[Sum],
                counts: &[1, 7, 4097, 70_001],
                offset: 1,
                ..set
            },
            "rounded" => Set {
                dtypes: &[F16, Bf16, F32, F64, Fp8E4m3, Fp8E5m2],
                ops: &[Sum, Prod, Avg, PreMulSum],
                counts: &[1, 1000, 4097, 70_001],
                kind: Kind::Rounded,
                ..set
            },
            other => panic!("no set is called {other}"),
        }
    }

    /// Every call of the set, in the same order on every rank.
    fn cases(&self, size: u32) -> Vec<Case> {
        let mut cases = Vec::new();
        for collective in Collective::ALL {
            let ops = if collective.reduces() { self.ops } else { &[ReduceOp::Sum] };
            for &dtype in self.dtypes {
                for &op in ops {
                    for &count in self.counts {
                        for in_place in [false, true] {
                            for &homes in self.homes {
                                let salt = cases.len() as u64;
                                let values = Values { dtype, op, kind: self.kind, salt };
                                let count = block(collective, count, size);
                                let root =
                                    if collective.rooted() { (salt % u64::from(size)) as u32 } else { 0 };
                                cases.push(Case { collective, values, count, in_place, homes, root });
                            }
                        }
                    }
                }
            }
        }
        cases
    }
}

/// Elements of one block: the greatest sizes are of the whole vector, as nccl-tests counts them, to keep 5 ranks with
/// 5 blocks each within the memory and time of a small machine; all others are of each block.
fn block(collective: Collective, count: usize, size: u32) -> usize {
    match collective {
        Collective::AllReduce | Collective::Broadcast | Collective::Reduce => count,
        _ if count >= LARGE => count.div_ceil(size as usize),
        _ => count,
    }
}

/// One call.
#[derive(Debug)]
struct Case {
    collective: Collective,
    values: Values,
    count: usize,
    in_place: bool,
    homes: (Home, Home),
    root: u32,
}

impl Case {
    /// Blocks of a rank's input and output.
    fn blocks(&self, rank: u32, size: u32) -> [usize; 2] {
        let (all, root) = (size as usize, usize::from(rank == self.root));
        match self.collective {
            Collective::AllReduce => [1, 1],
            Collective::Broadcast => [root, 1],
            Collective::Reduce => [1, root],
            Collective::AllGather => [1, all],
            Collective::ReduceScatter => [all, 1],
            Collective::Gather => [1, root * all],
            Collective::Scatter => [root * all, 1],
            Collective::AllToAll => [all, all],
        }
    }

    /// Bytes of a block.
    fn block(&self) -> usize {
        self.count * self.values.dtype.size()
    }

    /// Bytes of the buffers that a rank hands over. A buffer that it does not need is a block long, and must stay as it is.
    fn lengths(&self, rank: u32, size: u32) -> [usize; 2] {
        self.blocks(rank, size).map(|blocks| blocks.max(1) * self.block())
    }

    /// In place: where the input and the output lie in the one buffer.
    fn places(&self, rank: u32, size: u32) -> [Range<usize>; 2] {
        let (blocks, block) = (self.blocks(rank, size), self.block());
        let most = blocks[0].max(blocks[1]);
        blocks.map(|held| {
            let first = if held == 1 && most > 1 { rank as usize } else { 0 };
            first * block..(first + held) * block
        })
    }
}

/// Memory of one buffer, with room for guards.
enum Memory {
    Private(Vec<u8>),
    Registered(Buffer<u8>),
}

impl Memory {
    fn new(comm: &mut Communicator, home: Home, bytes: usize) -> Self {
        match home {
            Home::Registered if bytes > 0 => Self::Registered(comm.alloc(bytes).expect("the heap is large")),
            _ => Self::Private(vec![0; bytes]),
        }
    }
}

impl Deref for Memory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Private(bytes) => bytes,
            Self::Registered(bytes) => bytes,
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Private(bytes) => bytes,
            Self::Registered(bytes) => bytes,
        }
    }
}

/// One rank's part in a set.
struct Sweep {
    comm: Communicator,
    set: Set,
    /// Whether all folds are in the order of the ranks, with one rounding.
    ordered: bool,
    hasher: DefaultHasher,
}

/// The role: hears a set and a post, makes all calls, and says how many were made, how many the forced algorithm does
/// not do, and a hash of everything that must be equal on all ranks; or what was wrong first.
pub(crate) fn play(member: &mut Member) {
    let line = member.hear();
    let (set, post) = line.split_once(' ').expect("a set and a post");
    let post = Post::read(post);
    let ordered = ["one_shot", "two_shot"].contains(&post.algorithm.as_str());
    let comm = post.join();
    let mut sweep = Sweep { comm, set: Set::named(set), ordered, hasher: DefaultHasher::new() };
    let cases = sweep.set.cases(post.size);
    let ranks = || 0..post.size;
    let lengths = |case: &Case| ranks().flat_map(|rank| case.lengths(rank, post.size)).max().unwrap_or(0);
    let most = cases.iter().map(lengths);
    let bytes = most.max().unwrap_or(0) + 2 * GUARD + sweep.set.offset;
    let mut memories = Vec::new();
    for home in [Home::Private, Home::Registered] {
        let used = |pick: fn(&(Home, Home)) -> Home| sweep.set.homes.iter().any(|homes| pick(homes) == home);
        let (input, output) = (used(|homes| homes.0), used(|homes| homes.1));
        let sizes = [if input { bytes } else { 0 }, if output { bytes } else { 0 }];
        memories.push(sizes.map(|bytes| Memory::new(&mut sweep.comm, home, bytes)));
    }
    let (mut made, mut skipped) = (0, 0);
    for case in &cases {
        let mut pick = |home: Home, side: usize| {
            std::mem::replace(&mut memories[home as usize][side], Memory::Private(Vec::new()))
        };
        let mut input = pick(case.homes.0, 0);
        let mut output = pick(case.homes.1, 1);
        match sweep.make(case, &mut input, &mut output) {
            Ok(true) => made += 1,
            Ok(false) => skipped += 1,
            Err(wrong) => return member.say(&format!("wrong: {case:?}: {wrong}")),
        }
        memories[case.homes.0 as usize][0] = input;
        memories[case.homes.1 as usize][1] = output;
    }
    member.say(&format!("made {made} skipped {skipped} hash {:016x}", sweep.hasher.finish()));
}

impl Sweep {
    /// Makes one call and checks it. Says whether the algorithm does such calls.
    fn make(&mut self, case: &Case, input: &mut [u8], output: &mut [u8]) -> Result<bool, String> {
        let (rank, size) = (self.comm.rank(), self.comm.size());
        let element = case.values.dtype.size();
        let [given, got] = case.lengths(rank, size);
        let longest = given.max(got);
        let own = case.values.tile(rank, (longest / element).min(PERIOD));
        let start = self.set.offset + GUARD;
        let gives = case.blocks(rank, size)[0] > 0;
        let reach = if case.in_place { longest } else { got };
        output[self.set.offset..start + reach + GUARD].fill(BLANK);
        let (result, expected_at, before) = if case.in_place {
            let data = &mut output[start..start + longest];
            let [from, into] = case.places(rank, size);
            data.fill(JUNK);
            fill(&mut data[from], &own, element, 0);
            let before = data.to_vec();
            (self.call(case, Buffers::InPlace(data)), into, before)
        } else {
            let input = &mut input[start..start + given];
            if gives {
                fill(input, &own, element, 0)
            } else {
                input.fill(JUNK)
            }
            let result = self.call(case, Buffers::Apart { input, output: &mut output[start..start + got] });
            let kept = if gives {
                first_difference(input, &own, element, 0)
            } else {
                input.iter().position(|b| *b != JUNK)
            };
            if let Some(at) = kept {
                return Err(format!("element {at} of the input was changed"));
            }
            let into = 0..case.blocks(rank, size)[1] * case.block();
            (result, into, vec![BLANK; got])
        };
        match result {
            Ok(()) => {}
            Err(Error::Misuse(Misuse::Algorithm { .. })) => return Ok(false),
            Err(error) => return Err(error.to_string()),
        }
        let guards = [&output[self.set.offset..start], &output[start + reach..start + reach + GUARD]];
        if guards.iter().any(|guard| guard.iter().any(|byte| *byte != BLANK)) {
            return Err("bytes outside of the output were changed".into());
        }
        let after = &output[start..start + reach];
        let outside = [0..expected_at.start, expected_at.end..reach];
        if outside.into_iter().any(|range| after[range.clone()] != before[range]) {
            return Err("bytes of the buffer that are no output were changed".into());
        }
        self.check(case, &after[expected_at]).map(|()| true)
    }

    fn call(&mut self, case: &Case, buffers: Buffers<'_>) -> Result<(), Error> {
        let Values { dtype, op, .. } = case.values;
        let request = Request { collective: case.collective, dtype, op, root: case.root, buffers };
        if op == ReduceOp::PreMulSum {
            let scalar = Scalar::from_bytes(dtype, &case.values.scalar(self.comm.rank()));
            return self.comm.run_scaled(request, scalar.expect("one element"));
        }
        self.comm.run(request)
    }

    /// Checks what is in the output.
    fn check(&mut self, case: &Case, output: &[u8]) -> Result<(), String> {
        let (rank, size) = (self.comm.rank(), self.comm.size());
        let element = case.values.dtype.size();
        let block = case.block();
        let first = rank as usize * case.count;
        let same = |bytes: &[u8], from: u32, phase: usize, what: &str| {
            let tile = case.values.tile(from, (phase + case.count).min(PERIOD));
            let at = first_difference(bytes, &tile, element, phase);
            at.map_or(Ok(()), |at| {
                let expected = ((at + phase) % PERIOD) * element;
                let (found, expected) = (&bytes[at * element..][..element], &tile[expected..][..element]);
                Err(format!("rank {rank}: element {at} of {what} is {found:02x?}, not {expected:02x?}"))
            })
        };
        let blocks = |phase| {
            let block_of = |peer: u32| &output[peer as usize * block..][..block];
            (0..size).try_for_each(|peer| same(block_of(peer), peer, phase, &format!("block {peer}")))
        };
        let is_root = rank == case.root;
        match case.collective {
            Collective::AllReduce => self.check_reduced(case, output, 0)?,
            Collective::AllGather => blocks(0)?,
            Collective::Broadcast => same(output, case.root, 0, "the output")?,
            // What follows differs from rank to rank.
            Collective::Reduce if is_root => return self.check_reduced(case, output, 0),
            Collective::ReduceScatter => return self.check_reduced(case, output, first),
            Collective::Gather if is_root => return blocks(0),
            Collective::Scatter => return same(output, case.root, first, "the output"),
            Collective::AllToAll => return blocks(first),
            Collective::Reduce | Collective::Gather => return Ok(()),
        }
        if output.len() <= 1 << 20 {
            self.hasher.write(output);
        }
        Ok(())
    }

    /// Checks a reduction whose first element is that of index `phase` in the inputs.
    fn check_reduced(&self, case: &Case, output: &[u8], phase: usize) -> Result<(), String> {
        let (rank, size) = (self.comm.rank(), self.comm.size());
        let Values { dtype, op, kind, .. } = case.values;
        let element = dtype.size();
        let expected = case.values.reduced(size, (phase + output.len() / element).min(PERIOD));
        let exact = kind == Kind::Exact || self.ordered;
        let Some(at) = first_difference(output, &expected, element, phase) else { return Ok(()) };
        if exact {
            let expected = &expected[(phase + at) % PERIOD * element..][..element];
            let found = &output[at * element..][..element];
            return Err(format!("rank {rank}: element {at} is {found:02x?}, not {expected:02x?}"));
        }
        if op == ReduceOp::Prod {
            // How far products may be off depends on every factor; other kinds of numbers show that they are right.
            return Ok(());
        }
        let used = expected.len() / element;
        let tolerances: Vec<f64> = (0..used).map(|place| case.values.tolerance(size, place)).collect();
        for index in 0..output.len() / element {
            let place = (phase + index) % PERIOD;
            let found = float_at(dtype, &output[index * element..]);
            let exact = float_at(dtype, &expected[place * element..]);
            if (found - exact).abs() > tolerances[place] {
                return Err(format!("rank {rank}: element {index} is {found}, far from {exact}"));
            }
        }
        Ok(())
    }
}
