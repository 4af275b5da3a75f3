//! Started and planned calls with blocks of any lengths, and with operations that take more than their names.

use crate::ranks::Member;
use crate::started::{SUM, WELL, input, join, registered, value, well};
use sohu_coll::{Blocks, Communicator, Error, Failed, Misuse, Pending, PreMulSum, UserOp};
use std::ops::Range;

const BLANK: u32 = u32::MAX;

/// Lengths that all ranks draw alike: none, one, odd, some that are far longer than others, and nothing at all.
fn lengths(size: u32, round: usize) -> Vec<usize> {
    let units = [[0, 1, 7], [300, 0, 4097], [40_001, 0, 0], [5, 5, 5], [0, 0, 0], [1, 200_003, 2]];
    (0..size as usize).map(|rank| units[round % units.len()][(rank + round) % 3]).collect()
}

const ROUNDS: usize = 12;

/// Where the block of `rank` lies.
fn place(counts: &[usize], rank: u32) -> Range<usize> {
    let start = counts[..rank as usize].iter().sum();
    start..start + counts[rank as usize]
}

/// What `rank` has for each rank, one block after the other.
fn blocks(rank: u32, counts: &[usize], call: u32) -> Vec<u32> {
    input(rank, counts.iter().sum(), call)
}

/// Starts a call, or plans it, starts that and takes its buffers back: in turn.
macro_rules! made {
    ($comm:ident, $round:ident, $start:ident, $plan:ident ($($argument:expr),*)) => {
        match $round % 3 {
            0 => well($comm.$start($($argument),*)),
            1 => well($comm.$plan($($argument),*).expect("a good call").start($comm)).into_buffers(),
            _ => {
                let mut plan = $comm.$plan($($argument),*).expect("a good call");
                plan.run($comm).expect("a good call");
                plan.into_buffers()
            }
        }
    };
}

pub(crate) fn play_ragged(member: &mut Member) {
    let mut comm = join(member);
    for round in 0..ROUNDS {
        gathers(&mut comm, round);
        scatters(&mut comm, round);
        all_to_alls(&mut comm, round);
    }
    disagreements(&mut comm);
    repeated(&mut comm);
    misuse(&mut comm);
    member.say(WELL);
}

fn gathers(comm: &mut Communicator, round: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    let (counts, call) = (lengths(size, round), round as u32);
    let own = input(rank, counts[rank as usize], call);
    let all: Vec<u32> = (0..size).flat_map(|from| input(from, counts[from as usize], call)).collect();
    let blank = vec![BLANK; all.len()];
    let (given, got) =
        made!(comm, round, start_all_gather_v, plan_all_gather_v(own.clone(), blank.clone(), &counts));
    assert!(given == own && got == all, "all_gather_v in round {round}");
    let mut whole = blank.clone();
    whole[place(&counts, rank)].copy_from_slice(&own);
    let data = registered(comm, &whole);
    let got = well(comm.start_all_gather_v_in_place(data, &counts));
    assert!(*got == *all, "all_gather_v in place in round {round}");

    let root = call % size;
    let output = if rank == root { blank } else { Vec::new() };
    let (_, got) =
        made!(comm, round, start_gather_v, plan_gather_v(own.clone(), output.clone(), &counts, root));
    assert!(rank != root || got == all, "gather_v in round {round}");
    let data = if rank == root { whole } else { own.clone() };
    let got =
        made!(comm, round, start_gather_v_in_place, plan_gather_v_in_place(data.clone(), &counts, root));
    assert!(got == if rank == root { all } else { own }, "gather_v in place in round {round}");
}

fn scatters(comm: &mut Communicator, round: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    let (counts, call) = (lengths(size, round), round as u32 + 50);
    let (own, root) = (place(&counts, rank), call % size);
    let theirs = blocks(root, &counts, call)[own.clone()].to_vec();
    let given = if rank == root { blocks(rank, &counts, call) } else { Vec::new() };
    let blank = vec![BLANK; own.len()];
    let (_, got) =
        made!(comm, round, start_scatter_v, plan_scatter_v(given.clone(), blank.clone(), &counts, root));
    assert!(got == theirs, "scatter_v in round {round}");
    let data = if rank == root { given } else { blank.clone() };
    let got =
        made!(comm, round, start_scatter_v_in_place, plan_scatter_v_in_place(data.clone(), &counts, root));
    assert!(got == if rank == root { blocks(rank, &counts, call) } else { theirs }, "in place in {round}");

    let mine = blocks(rank, &counts, call);
    let start = own.start;
    let sum = |at: usize| (0..size).fold(0u32, |sum, from| sum.wrapping_add(value(from, start + at, call)));
    let sums: Vec<u32> = (0..own.len()).map(sum).collect();
    let (given, got) = made!(
        comm,
        round,
        start_reduce_scatter_v,
        plan_reduce_scatter_v(mine.clone(), blank.clone(), &counts, SUM)
    );
    assert!(given == mine && got == sums, "reduce_scatter_v in round {round}");
    let scalar = PreMulSum(rank + 2);
    let scaled = |at: usize| {
        let one = |from| value(from, start + at, call).wrapping_mul(from + 2);
        (0..size).fold(0u32, |sum, from| sum.wrapping_add(one(from)))
    };
    let got = made!(
        comm,
        round,
        start_reduce_scatter_v_in_place,
        plan_reduce_scatter_v_in_place(mine.clone(), &counts, scalar)
    );
    let mut expected = mine;
    expected[own.clone()].copy_from_slice(&(0..own.len()).map(scaled).collect::<Vec<_>>());
    assert!(got == expected, "reduce_scatter_v in place in round {round}");
}

fn all_to_alls(comm: &mut Communicator, round: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    let call = round as u32 + 90;
    let row = |from: u32| -> Vec<usize> { lengths(size, round + from as usize) };
    let gives = row(rank);
    let gets: Vec<usize> = (0..size).map(|from| row(from)[rank as usize]).collect();
    let block = |from: u32| blocks(from, &row(from), call)[place(&row(from), rank)].to_vec();
    let expected: Vec<u32> = (0..size).flat_map(block).collect();
    let (given, blank) = (blocks(rank, &gives, call), vec![BLANK; expected.len()]);
    let (from, into) = (Blocks::packed(&gives), Blocks::packed(&gets));
    let (_, got) = made!(
        comm,
        round,
        start_all_to_all_v,
        plan_all_to_all_v(given.clone(), from, blank.clone().into_boxed_slice(), into)
    );
    assert!(*got == *expected, "all_to_all_v in round {round}");

    // As long one way as the other.
    let between = |a: u32, b: u32| lengths(size, round + a.min(b) as usize)[a.max(b) as usize];
    let row = |from: u32| -> Vec<usize> { (0..size).map(|to| between(from, to)).collect() };
    let counts = row(rank);
    let block = |from: u32| blocks(from, &row(from), call)[place(&row(from), rank)].to_vec();
    let expected: Vec<u32> = (0..size).flat_map(block).collect();
    let data = blocks(rank, &counts, call);
    let got = made!(
        comm,
        round,
        start_all_to_all_v_in_place,
        plan_all_to_all_v_in_place(data.clone(), Blocks::packed(&counts))
    );
    assert!(got == expected, "all_to_all_v in place in round {round}");
}

/// Ranks that disagree are all told so where they wait, get their buffers back as they were, and can go on: with what was
/// started behind it too.
fn disagreements(comm: &mut Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    for planned in [false, true] {
        let mut gives = vec![2; size as usize];
        let gets = gives.clone();
        gives[0] -= usize::from(rank == 1);
        let data = vec![rank; gives.iter().sum()];
        let output = vec![BLANK; 2 * size as usize];
        let (from, into) = (Blocks::packed(&gives), Blocks::packed(&gets));
        let wrong: Result<_, Failed<_>> = match planned {
            false => comm.start_all_to_all_v(data.clone(), from, output.clone(), into),
            true => {
                let mut plan =
                    comm.plan_all_to_all_v(data.clone(), from, output.clone(), into).expect("planned");
                let text = plan.run(comm).expect_err("ranks 1 and 0 disagree").to_string();
                assert!(text.contains("rank 1 gives rank 0 1 elements, but rank 0 expects 2"), "{text}");
                let (given, got) = plan.into_buffers();
                comm.start_all_to_all_v(given, from, got, into)
            }
        };
        let behind = comm.start_all_reduce_in_place(vec![1u32; 10], SUM);
        let Failed { error, buffers } = wrong.and_then(Pending::wait).expect_err("ranks 1 and 0 disagree");
        let text = error.to_string();
        assert!(text.contains("rank 1 gives rank 0 1 elements, but rank 0 expects 2"), "{text}");
        assert_eq!(buffers, (data, output));
        assert_eq!(well(behind), [size; 10]);
    }
}

/// A planned call is made again and again, among others of its like, and in the end dropped and leaked while it is pending.
fn repeated(comm: &mut Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    let counts = lengths(size, 3);
    let blocks = Blocks::packed(&counts);
    let (input, output) = (vec![0u32; 5 * size as usize], vec![0u32; 5 * size as usize]);
    let mut swap = comm.plan_all_to_all_v(input, blocks, output, blocks).expect("a good call");
    let data = vec![0u32; 5 * size as usize];
    let mut folds = comm.plan_reduce_scatter_v_in_place(data, &counts, SUM).expect("a good call");
    for turn in 0..6 {
        swap.input_mut().fill(rank + turn);
        folds.data_mut().fill(rank + turn);
        let one = swap.start(comm).expect("it starts");
        let two = folds.start(comm).expect("it starts");
        let third = comm.start_barrier().expect("it starts");
        folds = two.wait().expect("a good call");
        swap = one.wait().expect("a good call");
        third.wait().expect("a good call");
        let expected: Vec<u32> = (0..size).flat_map(|from| [from + turn; 5]).collect();
        assert_eq!(swap.output(), expected);
        let sum = (0..size).map(|from| from + turn).sum::<u32>();
        assert_eq!(folds.data()[place(&counts, rank)], [sum; 5]);
    }
    drop(swap.start(comm).expect("it starts"));
    std::mem::forget(folds.start(comm).expect("it starts"));
    comm.barrier().expect("a later call makes the earlier ones");
}

fn misuse(comm: &mut Communicator) {
    let size = comm.size() as usize;
    let (even, same) = (vec![2; size], vec![0; size]);
    let data = vec![7u32; 2 * size];
    let at = data.as_ptr();
    let overlapping = Blocks { counts: &even, displacements: Some(&same) };
    let Failed { error, buffers } =
        comm.start_all_to_all_v_in_place(data, overlapping).expect_err("blocks overlap");
    assert!(matches!(*error, Error::Misuse(Misuse::Overlap { call: "all_to_all_v", .. })), "{error}");
    assert_eq!(buffers.as_ptr(), at);
    let failed = comm.plan_all_gather_v(vec![1u32], buffers, &even).expect_err("a block has two");
    assert!(failed.to_string().starts_with("all_gather_v: "), "{failed}");
    assert_eq!(failed.buffers.1.as_ptr(), at);
    let failed =
        comm.start_gather_v_in_place(failed.buffers.1, &even, size as u32).expect_err("no such rank");
    assert!(matches!(*failed.error, Error::Misuse(Misuse::Root { .. })), "{failed}");
}

pub(crate) fn play_operations(member: &mut Member) {
    let mut comm = join(member);
    let (rank, size) = (comm.rank(), comm.size());
    let after = UserOp::new("after", |a: u32, b: u32| a.wrapping_mul(31).wrapping_add(b)).expect("a name");
    let comm = &mut comm;
    for (round, count) in [0, 1, 7, 300, 4097, 20_000, 300_001, 10, 11].into_iter().enumerate() {
        let call = round as u32;
        let mine = input(rank, count, call);
        let own = rank as usize * count..(rank as usize + 1) * count;
        let (long, blank) = (input(rank, count * size as usize, call), vec![BLANK; count]);
        let chained = |start: usize| -> Vec<u32> {
            let fold = |at| {
                (1..size).fold(value(0, at, call), |all, from| {
                    all.wrapping_mul(31).wrapping_add(value(from, at, call))
                })
            };
            (start..start + count).map(fold).collect()
        };
        let scaled = |start: usize| -> Vec<u32> {
            let one = |from: u32, at| value(from, at, call).wrapping_mul(from + 3);
            let fold = |at| (0..size).fold(0u32, |sum, from| sum.wrapping_add(one(from, at)));
            (start..start + count).map(fold).collect()
        };
        let scalar = PreMulSum(rank + 3);
        let (given, got) =
            made!(comm, round, start_all_reduce, plan_all_reduce(mine.clone(), blank.clone(), scalar));
        assert!(given == mine && got == scaled(0), "all_reduce, scaled, of {count}");
        let got =
            made!(comm, round, start_all_reduce_in_place, plan_all_reduce_in_place(mine.clone(), &after));
        assert!(got == chained(0), "all_reduce in place, by a function, of {count}");
        // Several in flight, of one shape: each has its own operand.
        let first = comm.start_all_reduce_in_place(mine.clone(), PreMulSum(rank + 3));
        let second = comm.start_all_reduce_in_place(mine.clone(), PreMulSum(1));
        let third = comm.start_all_reduce_in_place(mine.clone(), SUM);
        let (second, third, first) = (well(second), well(third), well(first));
        assert!(first == scaled(0) && second == third, "scaled each by its own, of {count}");

        let (_, got) = made!(
            comm,
            round,
            start_reduce_scatter,
            plan_reduce_scatter(long.clone(), blank.clone(), &after)
        );
        assert!(got == chained(own.start), "reduce_scatter, by a function, of {count}");
        let got = made!(
            comm,
            round,
            start_reduce_scatter_in_place,
            plan_reduce_scatter_in_place(long.clone(), scalar)
        );
        assert!(got[own.clone()] == scaled(own.start), "reduce_scatter in place, scaled, of {count}");
        let root = call % size;
        let output = if rank == root { blank.clone() } else { Vec::new() };
        let (_, got) =
            made!(comm, round, start_reduce, plan_reduce(mine.clone(), output.clone(), scalar, root));
        assert!(rank != root || got == scaled(0), "reduce, scaled, of {count}");
        let got = made!(comm, round, start_reduce_in_place, plan_reduce_in_place(mine.clone(), &after, root));
        assert!(got == if rank == root { chained(0) } else { mine }, "reduce in place of {count}");
    }
    kept(comm);
    drop(comm.start_all_reduce_in_place(vec![rank; 5], PreMulSum(2)).expect("it starts"));
    std::mem::forget(comm.start_all_reduce_in_place(vec![rank; 50_000], &after).expect("it starts"));
    member.say(WELL);
}

/// A plan keeps its operation when the caller's is gone; and what lacks its operand is refused.
fn kept(comm: &mut Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    let data = registered(comm, &[rank]);
    let plan = {
        let last = UserOp::new("last", |_: u32, b: u32| b).expect("a good name");
        comm.plan_all_reduce_in_place(data, &last).expect("a good call is planned")
    };
    let plan = well(plan.start(comm));
    assert_eq!(plan.data(), [size - 1]);
    let failed = comm.start_all_reduce_in_place(vec![1u32], sohu_coll::ReduceOp::PreMulSum);
    assert!(matches!(*failed.expect_err("no scalar").error, Error::Misuse(Misuse::Operation { .. })));
}
