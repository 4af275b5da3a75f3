//! A rank that does what its test says, line by line, and reports how it went.

use crate::letter::{self, Letter};
use crate::ranks::values::{Kind, PERIOD, Values, fill, first_difference};
use crate::ranks::{Member, Post, host, report};
use sohu_coll::{
    Buffers, Collective, Communicator, DType, Error, Failed, Pending, ReduceOp, Request, Scalar, UserOp,
};
use std::time::{Duration, Instant};

/// What nobody wrote yet.
const BLANK: u8 = 0xa5;

/// One call, as a line says it: `all_reduce float sum 1000 0 apart`.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) collective: Collective,
    pub(crate) dtype: DType,
    pub(crate) op: ReduceOp,
    pub(crate) count: usize,
    pub(crate) root: u32,
    pub(crate) in_place: bool,
}

impl Call {
    /// An all-reduce of 32-bit integers.
    pub(crate) fn all_reduce(count: usize) -> Self {
        let (dtype, op) = (DType::I32, ReduceOp::Sum);
        Self { collective: Collective::AllReduce, dtype, op, count, root: 0, in_place: false }
    }

    /// Calls of which a rank that is ended is in many, in one that it may leave before its peers come to it, and in one
    /// for long.
    pub(crate) fn few_and_many() -> [Self; 3] {
        let few = Self::all_reduce(4);
        [Self { collective: Collective::Broadcast, ..few.clone() }, few, Self::all_reduce(2_000_000)]
    }

    /// The words of the line.
    pub(crate) fn words(&self) -> String {
        let Self { collective, dtype, op, count, root, in_place } = self;
        let form = if *in_place { "in_place" } else { "apart" };
        format!("{collective} {dtype} {op} {count} {root} {form}")
    }

    fn read(words: &[&str]) -> Self {
        let [collective, dtype, op, count, root, form] = words else {
            panic!("a call has six words: {words:?}");
        };
        let found = "the test names what there is";
        Self {
            collective: Collective::ALL.into_iter().find(|c| c.name() == *collective).expect(found),
            dtype: DType::ALL.into_iter().find(|d| d.name() == *dtype).expect(found),
            op: ReduceOp::ALL
                .into_iter()
                .chain([ReduceOp::PreMulSum])
                .find(|o| o.name() == *op)
                .expect(found),
            count: count.parse().expect("a count"),
            root: root.parse().expect("a root"),
            in_place: *form == "in_place",
        }
    }
}

/// The buffers of one call and what must be in them.
struct Buffered {
    call: Call,
    values: Values,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Buffered {
    fn new(call: Call, rank: u32, size: u32) -> Self {
        let values = Values { dtype: call.dtype, op: call.op, kind: Kind::Exact, salt: call.count as u64 };
        let block = call.count * call.dtype.size();
        let all = block * size as usize;
        let (given, got) = match call.collective {
            Collective::AllReduce | Collective::Broadcast | Collective::Reduce => (block, block),
            Collective::AllGather => (block, all),
            Collective::ReduceScatter => (all, block),
            other => panic!("no script makes a {other}"),
        };
        let mut input = vec![0; given];
        fill(&mut input, &values.tile(rank, PERIOD), call.dtype.size(), 0);
        Self { call, values, input, output: vec![BLANK; got] }
    }

    /// Makes the call. In-place calls are for collectives whose input is as long as their output.
    fn make(&mut self, comm: &mut Communicator) -> (Result<(), Error>, Duration) {
        let Call { collective, dtype, op, root, in_place, .. } = self.call;
        if in_place {
            self.output.copy_from_slice(&self.input);
        } else {
            self.output.fill(BLANK);
        }
        let buffers = match in_place {
            true => Buffers::InPlace(&mut self.output),
            false => Buffers::Apart { input: &self.input, output: &mut self.output },
        };
        let begun = Instant::now();
        let request = Request { collective, dtype, op, root, buffers };
        let result = match op {
            ReduceOp::PreMulSum => {
                let scalar = Scalar::from_bytes(dtype, &self.values.scalar(comm.rank()));
                comm.run_scaled(request, scalar.expect("one element"))
            }
            _ => comm.run(request),
        };
        (result, begun.elapsed())
    }

    /// What became of the output.
    fn output(&self, rank: u32, size: u32) -> &'static str {
        let element = self.call.dtype.size();
        let own = self.values.tile(rank, PERIOD);
        let untouched = match self.call.in_place {
            true => first_difference(&self.output, &own, element, 0).is_none(),
            false => self.output.iter().all(|byte| *byte == BLANK),
        };
        let holds =
            |bytes: &[u8], tile: &[u8], phase| first_difference(bytes, tile, element, phase).is_none();
        let right = match self.call.collective {
            Collective::AllReduce => holds(&self.output, &self.values.reduced(size, PERIOD), 0),
            Collective::ReduceScatter => {
                holds(&self.output, &self.values.reduced(size, PERIOD), rank as usize * self.call.count)
            }
            Collective::Broadcast => holds(&self.output, &self.values.tile(self.call.root, PERIOD), 0),
            Collective::Reduce if rank != self.call.root => untouched,
            Collective::Reduce => holds(&self.output, &self.values.reduced(size, PERIOD), 0),
            Collective::AllGather => (0..size).all(|peer| {
                let block = self.call.count * element;
                holds(&self.output[peer as usize * block..][..block], &self.values.tile(peer, PERIOD), 0)
            }),
            other => panic!("no script makes a {other}"),
        };
        match (right, untouched) {
            (true, _) => "right",
            (false, true) => "untouched",
            (false, false) => "wrong",
        }
    }
}

/// A rank that is or is not in a job.
#[derive(Default)]
struct Actor {
    comm: Option<Communicator>,
}

/// The role: obeys until the test has nothing more to say, and then exits as a program that is done.
pub(crate) fn play(member: &mut Member) {
    let mut actor = Actor::default();
    while let Some(line) = member.hear_more() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["join", ..] => {
                let post = Post::read(line.strip_prefix("join").expect("it was matched"));
                let begun = Instant::now();
                let joined = post.builder().build();
                let took = begun.elapsed();
                let result = joined.map(|comm| actor.comm = Some(comm));
                member.say(&report::line(&result, took, "none"));
            }
            ["call", ref call @ ..] => actor.calls(member, Call::read(call), 1),
            ["loop", ref call @ ..] => actor.calls(member, Call::read(call), u64::MAX),
            ["messages", form, ref messages @ ..] => actor.messages(member, form, messages, 1),
            ["messages_loop", form, ref messages @ ..] => actor.messages(member, form, messages, u64::MAX),
            ["pend_messages", ref messages @ ..] => actor.pend_messages(member, messages),
            ["pend", ref counts @ ..] => actor.pend(member, counts),
            ["lengths", input, output] => actor.lengths(member, input, output),
            ["tuned", path, ref post @ ..] => {
                let begun = Instant::now();
                let joined = Post::read(&post.join(" ")).builder().tuning_file(path).build();
                let took = begun.elapsed();
                let result = joined.map(|comm| actor.comm = Some(comm));
                member.say(&report::line(&result, took, "none"));
            }
            ["chosen", count] => {
                let count = count.parse().expect("a count");
                let comm = actor.comm();
                let said =
                    comm.explain(Collective::AllReduce, DType::I32, ReduceOp::Sum, count, false, false);
                let said = said.expect("a good question");
                member.say(&format!("{} by slices of {}", said.algorithm, said.slice));
            }
            ["using", algorithm, count] => actor.using(member, algorithm, count),
            ["user", name, count] => actor.user(member, name, count),
            ["panics", count] => actor.panics(member, count),
            ["leave"] => {
                actor.comm = None;
                member.say("left");
            }
            ["count"] => {
                let (files, memory) = (host::descriptors(), host::shared_mappings());
                member.say(&format!("files {files} shared {memory}"));
            }
            _ => panic!("no such line: {line:?}"),
        }
    }
}

impl Actor {
    fn comm(&mut self) -> &mut Communicator {
        self.comm.as_mut().expect("the test has this rank join before it calls")
    }

    /// Makes a call up to `times` times, until one fails, and reports the last. Says `calling` before the first, and
    /// of more than one `going` after the first.
    fn calls(&mut self, member: &mut Member, call: Call, times: u64) {
        let comm = self.comm();
        let (rank, size) = (comm.rank(), comm.size());
        let mut buffered = Buffered::new(call, rank, size);
        member.say("calling");
        for time in 0..times {
            let (result, took) = buffered.make(comm);
            if result.is_err() || time + 1 == times {
                // Before the output is looked at, which takes its time: the test may time the failure.
                if result.is_err() {
                    member.say("returned");
                }
                member.say(&report::line(&result, took, buffered.output(rank, size)));
                return;
            }
            if time == 0 {
                member.say("going");
            }
        }
    }

    /// Starts all-reduces of so many elements each, says `calling`, then waits for all and reports each.
    fn pend(&mut self, member: &mut Member, counts: &[&str]) {
        let comm = self.comm();
        let (rank, size) = (comm.rank(), comm.size());
        let start = |count: &&str| {
            let count: usize = count.parse().expect("a count");
            let input = vec![rank.cast_signed() + 1; count];
            comm.start_all_reduce(input, vec![-1; count], ReduceOp::Sum)
        };
        let begun = Instant::now();
        let started: Vec<_> = counts.iter().map(start).collect();
        member.say("calling");
        let sum = (size * (size + 1) / 2).cast_signed();
        for pending in started {
            let ended = pending.and_then(Pending::wait);
            let took = begun.elapsed();
            let (result, (_, output)) = match ended {
                Ok(buffers) => (Ok(()), buffers),
                Err(Failed { error, buffers }) => (Err(*error), buffers),
            };
            let all = |expected: i32| output.iter().all(|element| *element == expected);
            let state = if all(sum) {
                "right"
            } else if all(-1) {
                "untouched"
            } else {
                "wrong"
            };
            member.say(&report::line(&result, took, state));
        }
    }

    /// Starts messages, says `calling`, then waits for all in their order and reports each.
    fn pend_messages(&mut self, member: &mut Member, messages: &[&str]) {
        let comm = self.comm();
        let letters: Vec<Letter> = messages.iter().map(|text| Letter::read(text, comm.rank())).collect();
        let begun = Instant::now();
        let started: Vec<_> = letters.into_iter().map(|letter| letter.start(comm)).collect();
        member.say("calling");
        for started in started {
            let (result, output) = started.wait();
            member.say(&report::line(&result, begun.elapsed(), output));
        }
    }

    /// Makes an all-reduce by this algorithm.
    fn using(&mut self, member: &mut Member, algorithm: &str, count: &str) {
        let input = vec![1i32; count.parse().expect("a length")];
        let mut output = vec![-1i32; input.len()];
        let begun = Instant::now();
        let comm = self.comm().using(algorithm);
        let made = comm.and_then(|mut comm| comm.all_reduce(&input, &mut output, ReduceOp::Sum));
        let untouched = output.iter().all(|element| *element == -1);
        member.say(&report::line(&made, begun.elapsed(), if untouched { "untouched" } else { "right" }));
    }

    /// Makes an all-reduce by the user operation of this name.
    fn user(&mut self, member: &mut Member, name: &str, count: &str) {
        // As in a program whose ranks all make the same operations.
        let sum = |name: &str| UserOp::new(name, |a: i32, b: i32| a.wrapping_add(b)).expect("a good name");
        let operations = ["one", "two"].map(sum);
        let operation = operations.iter().find(|operation| operation.name() == name);
        let input = vec![1i32; count.parse().expect("a length")];
        let mut output = vec![-1i32; input.len()];
        let begun = Instant::now();
        let made = match operation {
            Some(operation) => self.comm().all_reduce(&input, &mut output, operation),
            None => self.comm().all_reduce(&input, &mut output, ReduceOp::Sum),
        };
        let untouched = output.iter().all(|element| *element == -1);
        member.say(&report::line(&made, begun.elapsed(), if untouched { "untouched" } else { "right" }));
    }

    /// Makes all-reduces until one fails. Of rank 1, the function panics in the third.
    fn panics(&mut self, member: &mut Member, count: &str) {
        let comm = self.comm();
        let is_one = comm.rank() == 1;
        // All ranks give threes then, so whatever has been folded before is a multiple of three.
        let careful = move |a: i32, b: i32| {
            assert!(!is_one || b % 3 != 0, "rank 1 has met a multiple of 3");
            a.wrapping_add(b)
        };
        let careful = UserOp::new("careful", careful).and_then(UserOp::commutative).expect("a good name");
        let mut data = vec![0i32; count.parse().expect("a length")];
        let begun = Instant::now();
        let failed = (1..).find_map(|time| {
            data.fill(time);
            let made = comm.all_reduce_in_place(&mut data, &careful);
            made.is_err().then_some(made)
        });
        member.say(&report::line(&failed.expect("it goes on until one fails"), begun.elapsed(), "none"));
    }

    /// Makes an all-reduce of buffers of these many elements.
    fn lengths(&mut self, member: &mut Member, input: &str, output: &str) {
        let input = vec![1i32; input.parse().expect("a length")];
        let mut output = vec![-1i32; output.parse().expect("a length")];
        let begun = Instant::now();
        let result = self.comm().all_reduce(&input, &mut output, ReduceOp::Sum);
        let took = begun.elapsed();
        let untouched = output.iter().all(|element| *element == -1);
        member.say(&report::line(&result, took, if untouched { "untouched" } else { "right" }));
    }

    /// Makes messages up to `times` times, until a call fails. Says what [`calls`](Self::calls) says.
    fn messages(&mut self, member: &mut Member, form: &str, messages: &[&str], times: u64) {
        let comm = self.comm();
        let rank = comm.rank();
        let mut letters: Vec<Letter> = messages.iter().map(|text| Letter::read(text, rank)).collect();
        member.say("calling");
        for time in 0..times {
            letters.iter_mut().for_each(Letter::blank);
            let begun = Instant::now();
            let result = letter::make(comm, &mut letters, form == "group");
            let took = begun.elapsed();
            if result.is_err() || time + 1 == times {
                if result.is_err() {
                    member.say("returned");
                }
                member.say(&report::line(&result, took, letter::output(&letters)));
                return;
            }
            if time == 0 {
                member.say("going");
            }
        }
    }
}
