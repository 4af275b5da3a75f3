//! Calls whose blocks have lengths of their own.

use crate::TIMEOUT_MS;
use crate::ranks::{Group, Member, Post, TRANSPORTS};
use sohu_coll::{Blocks, Collective, Communicator, DType, Error, Misuse, PreMulSum, ReduceOp, UserOp};

const WELL: &str = "well";
const BLANK: u32 = u32::MAX;

/// More ranks than an all-to-all may have sends outstanding, and one.
const MANY: u32 = 19;

pub(crate) fn ragged_calls() {
    for size in [1, 2, 3, 5] {
        on_all("ragged", size);
    }
}

pub(crate) fn in_place_calls() {
    for size in [1, 2, 3, 5] {
        on_all("ragged_in_place", size);
    }
}

pub(crate) fn many_ranks() {
    on_all("many", MANY);
}

fn on_all(play: &str, size: u32) {
    for transport in TRANSPORTS {
        let mut group = Group::start(play, size);
        for post in Post::all(size, transport, TIMEOUT_MS, "-") {
            group.tell(post.rank as usize, &post.line());
        }
        group.all_say(WELL);
        group.end();
    }
}

/// Lengths that every rank draws alike: none, few, and one of a block that is far longer than the others.
fn length(round: usize, from: u32, to: u32) -> usize {
    let drawn = (round * 31 + from as usize * 7 + to as usize * 13) % 11;
    match drawn {
        0..=3 => 0,
        4 => 300_000 / (1 + round % 3),
        other => other * other * 37,
    }
}

/// Element `index` of what `from` has for `to`.
fn element(round: usize, from: u32, to: u32, index: usize) -> u32 {
    (round as u32 * 1000 + from * 100 + to * 10).wrapping_add(index as u32 % 9973)
}

pub(crate) fn play_ragged(member: &mut Member) {
    let mut comm = Post::read(&member.hear()).join();
    for round in 0..30 {
        gathers(&mut comm, round);
        scatters(&mut comm, round);
        all_to_alls(&mut comm, round);
    }
    disagreements(&mut comm);
    all_to_alls_as_ever(&mut comm);
    a_mismatch(&mut comm);
    member.say(WELL);
}

/// Blocks of any lengths are exchanged as ever, whatever is chosen for other calls, and so is what ranks say of them.
fn all_to_alls_as_ever(comm: &mut Communicator) {
    for algorithm in ["ring", "bruck", "double_tree"] {
        let mut comm = comm.using(algorithm).expect("there is one");
        all_to_alls(&mut comm, 0);
        in_place_all_to_alls(&mut comm, 1);
        disagreements(&mut comm);
        let counts = vec![2; comm.size() as usize];
        let data = vec![7u32; 2 * counts.len()];
        let pending = comm.start_all_to_all_v_in_place(data.clone(), Blocks::packed(&counts));
        assert!(pending.expect("a good call").wait().expect("a good call") == data);
    }
}

/// Where sends are bounded: blocks that are longer than what links hold, and blocks that are empty.
pub(crate) fn play_many(member: &mut Member) {
    let mut comm = Post::read(&member.hear()).join();
    assert_eq!(comm.ragged_algorithm(Collective::AllToAll), "pairwise");
    assert_eq!(comm.ragged_algorithm(Collective::AllGather), "one_shot");
    for round in 0..3 {
        all_to_alls(&mut comm, round);
        in_place_all_to_alls(&mut comm, round);
    }
    let (rank, size) = (comm.rank(), comm.size());
    let mut comm = comm.using("pairwise").expect("there is one");
    for count in [1, 1_000, 20_000] {
        let told = comm.explain(Collective::AllToAll, DType::U32, ReduceOp::Sum, count, false, false);
        assert_eq!(told.expect("it can be explained").outstanding_max, Some(16));
        let input: Vec<u32> = (0..size).flat_map(|to| block(1, rank, to, count)).collect();
        let expected: Vec<u32> = (0..size).flat_map(|from| block(1, from, rank, count)).collect();
        let mut output = vec![BLANK; input.len()];
        comm.all_to_all(&input, &mut output).expect("a good call");
        assert!(output == expected, "{count} elements");
        let mut data = input;
        comm.all_to_all_in_place(&mut data).expect("a good call");
        assert!(data == expected, "{count} elements in place");
    }
    member.say(WELL);
}

pub(crate) fn play_ragged_in_place(member: &mut Member) {
    let mut comm = Post::read(&member.hear()).join();
    for round in 0..30 {
        // Every other round in registered memory.
        in_place_gathers(&mut comm, round);
        in_place_scatters(&mut comm, round);
        operations(&mut comm, round);
        in_place_all_to_alls(&mut comm, round);
    }
    in_place_misuse(&mut comm);
    member.say(WELL);
}

fn block(round: usize, from: u32, to: u32, count: usize) -> Vec<u32> {
    (0..count).map(|index| element(round, from, to, index)).collect()
}

fn gathers(comm: &mut Communicator, round: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    let counts: Vec<usize> = (0..size).map(|from| length(round, from, 0)).collect();
    let own = block(round, rank, 0, counts[rank as usize]);
    let all: Vec<u32> = (0..size).flat_map(|from| block(round, from, 0, counts[from as usize])).collect();
    let mut output = vec![BLANK; all.len()];
    comm.all_gather_v(&own, &mut output, &counts).expect("a good call");
    assert!(output == all, "all_gather_v in round {round}");

    let root = round as u32 % size;
    let mut output = vec![BLANK; if rank == root { all.len() } else { 0 }];
    comm.gather_v(&own, &mut output, &counts, root).expect("a good call");
    assert!(rank != root || output == all, "gather_v in round {round}");
}

fn scatters(comm: &mut Communicator, round: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    let counts: Vec<usize> = (0..size).map(|to| length(round, 0, to)).collect();
    let all = |from: u32| -> Vec<u32> {
        (0..size).flat_map(|to| block(round, from, to, counts[to as usize])).collect()
    };
    let own = counts[rank as usize];
    let root = round as u32 % size;
    let input = if rank == root { all(root) } else { Vec::new() };
    let mut output = vec![BLANK; own];
    comm.scatter_v(&input, &mut output, &counts, root).expect("a good call");
    assert!(output == block(round, root, rank, own), "scatter_v in round {round}");

    comm.reduce_scatter_v(&all(rank), &mut output, &counts, ReduceOp::Sum).expect("a good call");
    let sum = |index| (0..size).fold(0u32, |sum, from| sum.wrapping_add(element(round, from, rank, index)));
    assert!((0..own).all(|index| output[index] == sum(index)), "reduce_scatter_v in round {round}");
}

fn all_to_alls(comm: &mut Communicator, round: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    let gives: Vec<usize> = (0..size).map(|to| length(round, rank, to)).collect();
    let gets: Vec<usize> = (0..size).map(|from| length(round, from, rank)).collect();
    let input: Vec<u32> = (0..size).flat_map(|to| block(round, rank, to, gives[to as usize])).collect();
    let expected: Vec<Vec<u32>> =
        (0..size).map(|from| block(round, from, rank, gets[from as usize])).collect();
    let mut output = vec![BLANK; gets.iter().sum()];
    comm.all_to_all_v(&input, Blocks::packed(&gives), &mut output, Blocks::packed(&gets))
        .expect("a good call");
    assert!(output == expected.concat(), "all_to_all_v in round {round}");

    // The blocks that come, last rank first and with a gap of 3 before each.
    let mut next = 0;
    let mut starts = vec![0; size as usize];
    for from in (0..size as usize).rev() {
        starts[from] = next + 3;
        next = starts[from] + gets[from];
    }
    let mut output = vec![BLANK; next];
    let into = Blocks { counts: &gets, displacements: Some(&starts) };
    comm.all_to_all_v(&input, Blocks::packed(&gives), &mut output, into).expect("a good call");
    let mut gaps = vec![true; next];
    for (from, expected) in expected.iter().enumerate() {
        let range = starts[from]..starts[from] + gets[from];
        assert!(output[range.clone()] == **expected, "all_to_all_v with gaps in round {round}");
        gaps[range].fill(false);
    }
    assert!(gaps.iter().zip(&output).all(|(gap, found)| !gap || *found == BLANK), "a gap was written");

    // In registered memory one of two ranks copies for the other where it has less to do.
    let mut given = comm.alloc::<u32>(input.len()).expect("the heap is large");
    let mut taken = comm.alloc::<u32>(next).expect("the heap is large");
    given.copy_from_slice(&input);
    taken.fill(BLANK);
    comm.all_to_all_v(&given, Blocks::packed(&gives), &mut taken, into).expect("a good call");
    assert!(taken[..] == output, "all_to_all_v in registered memory in round {round}");
}

/// Ranks that say different things are told so, all of them, and nothing is written.
fn disagreements(comm: &mut Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    let even = vec![2; size as usize];
    let input = vec![rank; 2 * size as usize];
    let mut output = vec![BLANK; 2 * size as usize];
    let same = [0; 5];
    let overlapping = Blocks { counts: &even, displacements: Some(&same[..size as usize]) };
    if size == 1 {
        return;
    }
    let wrong = comm.all_to_all_v(&input, Blocks::packed(&even), &mut output, overlapping);
    assert!(matches!(wrong, Err(Error::Misuse(Misuse::Overlap { .. }))), "{wrong:?}");

    // Rank 1 gives rank 0 one element less than that expects.
    let mut gives = even.clone();
    gives[0] -= usize::from(rank == 1);
    let given = &input[..gives.iter().sum()];
    let wrong = comm.all_to_all_v(given, Blocks::packed(&gives), &mut output, Blocks::packed(&even));
    let text = wrong.expect_err("ranks 1 and 0 disagree").to_string();
    assert!(text.contains("rank 1 gives rank 0 1 elements, but rank 0 expects 2"), "{text}");
    assert!(output.iter().all(|found| *found == BLANK), "the output was written");

    comm.all_to_all_v(&input, Blocks::packed(&even), &mut output, Blocks::packed(&even))
        .expect("the communicator is still usable");
}

/// Ranks whose calls are not the same are told so, and nothing is written. No further call is possible.
fn a_mismatch(comm: &mut Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    if size == 1 {
        return;
    }
    let mut counts = vec![2; size as usize];
    counts[0] += rank as usize;
    let mut output = vec![BLANK; counts.iter().sum()];
    let own = vec![0u32; counts[rank as usize]];
    let wrong = comm.all_gather_v(&own, &mut output, &counts);
    assert!(matches!(wrong, Err(Error::Mismatch { .. })), "{wrong:?}");
    assert!(output.iter().all(|found| *found == BLANK), "the output was written");
}

/// Makes a call in place on `data`, in registered memory in every other round. Gives back what it became.
fn in_place(
    comm: &mut Communicator,
    round: usize,
    data: Vec<u32>,
    call: impl FnOnce(&mut Communicator, &mut [u32]) -> Result<(), Error>,
) -> Vec<u32> {
    let mut data = data;
    if round.is_multiple_of(2) {
        call(comm, &mut data).expect("a good call");
        return data;
    }
    let mut registered = comm.alloc::<u32>(data.len()).expect("the heap is large");
    registered.copy_from_slice(&data);
    call(comm, &mut registered).expect("a good call");
    registered.to_vec()
}

/// Where the block of `rank` lies.
fn place(counts: &[usize], rank: u32) -> std::ops::Range<usize> {
    let start = counts[..rank as usize].iter().sum();
    start..start + counts[rank as usize]
}

fn in_place_gathers(comm: &mut Communicator, round: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    let counts: Vec<usize> = (0..size).map(|from| length(round, from, 0)).collect();
    let own = block(round, rank, 0, counts[rank as usize]);
    let all: Vec<u32> = (0..size).flat_map(|from| block(round, from, 0, counts[from as usize])).collect();
    let mut whole = vec![BLANK; all.len()];
    whole[place(&counts, rank)].copy_from_slice(&own);
    let got = in_place(comm, round, whole.clone(), |comm, data| comm.all_gather_v_in_place(data, &counts));
    assert!(got == all, "all_gather_v in place in round {round}");

    let root = round as u32 % size;
    let data = if rank == root { whole } else { own.clone() };
    let got = in_place(comm, round, data, |comm, data| comm.gather_v_in_place(data, &counts, root));
    assert!(got == if rank == root { all } else { own }, "gather_v in place in round {round}");
}

fn in_place_scatters(comm: &mut Communicator, round: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    let counts: Vec<usize> = (0..size).map(|to| length(round, 0, to)).collect();
    let all = |from: u32| -> Vec<u32> {
        (0..size).flat_map(|to| block(round, from, to, counts[to as usize])).collect()
    };
    let (own, root) = (counts[rank as usize], round as u32 % size);
    let data = if rank == root { all(root) } else { vec![BLANK; own] };
    let got = in_place(comm, round, data, |comm, data| comm.scatter_v_in_place(data, &counts, root));
    let expected = if rank == root { all(root) } else { block(round, root, rank, own) };
    assert!(got == expected, "scatter_v in place in round {round}");

    let got = in_place(comm, round, all(rank), |comm, data| {
        comm.reduce_scatter_v_in_place(data, &counts, ReduceOp::Sum)
    });
    let sum = |index| (0..size).fold(0u32, |sum, from| sum.wrapping_add(element(round, from, rank, index)));
    let mut expected = all(rank);
    // The other blocks stay.
    expected[place(&counts, rank)].copy_from_slice(&(0..own).map(sum).collect::<Vec<_>>());
    assert!(got == expected, "reduce_scatter_v in place in round {round}");
}

/// A reduce-scatter by a scalar of each rank's own, and by a function that takes ranks in their order, in both forms.
fn operations(comm: &mut Communicator, round: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    let counts: Vec<usize> = (0..size).map(|to| length(round, 0, to)).collect();
    let input: Vec<u32> = (0..size).flat_map(|to| block(round, rank, to, counts[to as usize])).collect();
    let after = UserOp::new("after", |a: u32, b: u32| a.wrapping_mul(31).wrapping_add(b)).expect("a name");
    let scaled = |from: u32, index| element(round, from, rank, index).wrapping_mul(from + 3);
    let folded = |index| (0..size).fold(0u32, |sum, from| sum.wrapping_add(scaled(from, index)));
    let chained = |index| {
        let given = |from| element(round, from, rank, index);
        (1..size).fold(given(0), |all, from| all.wrapping_mul(31).wrapping_add(given(from)))
    };
    let own = counts[rank as usize];
    let mut output = vec![BLANK; own];
    comm.reduce_scatter_v(&input, &mut output, &counts, PreMulSum(rank + 3)).expect("a good call");
    assert!((0..own).all(|index| output[index] == folded(index)), "scaled in round {round}");
    comm.reduce_scatter_v(&input, &mut output, &counts, &after).expect("a good call");
    assert!((0..own).all(|index| output[index] == chained(index)), "by a function in round {round}");

    let got = in_place(comm, round, input.clone(), |comm, data| {
        comm.reduce_scatter_v_in_place(data, &counts, PreMulSum(rank + 3))
    });
    let got = &got[place(&counts, rank)];
    assert!((0..own).all(|index| got[index] == folded(index)), "scaled in place in round {round}");
    let got =
        in_place(comm, round, input, |comm, data| comm.reduce_scatter_v_in_place(data, &counts, &after));
    let got = &got[place(&counts, rank)];
    assert!((0..own).all(|index| got[index] == chained(index)), "by a function in place in round {round}");
}

fn in_place_all_to_alls(comm: &mut Communicator, round: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    // As long one way as the other.
    let counts: Vec<usize> = (0..size).map(|peer| length(round, rank.min(peer), rank.max(peer))).collect();
    let blocks = |turned: bool| -> Vec<Vec<u32>> {
        let ends = |peer| if turned { (peer, rank) } else { (rank, peer) };
        let of = |peer: u32| block(round, ends(peer).0, ends(peer).1, counts[peer as usize]);
        (0..size).map(of).collect()
    };
    let got = in_place(comm, round, blocks(false).concat(), |comm, data| {
        comm.all_to_all_v_in_place(data, Blocks::packed(&counts))
    });
    assert!(got == blocks(true).concat(), "all_to_all_v in place in round {round}");

    // Last rank first, with a gap of 3 before each: on ranks of even number alone.
    let mut starts = vec![0; size as usize];
    let mut next = 0;
    for peer in 0..size as usize {
        let peer = if rank.is_multiple_of(2) { size as usize - 1 - peer } else { peer };
        starts[peer] = next + if rank.is_multiple_of(2) { 3 } else { 0 };
        next = starts[peer] + counts[peer];
    }
    let lay = |blocks: Vec<Vec<u32>>| {
        let mut data = vec![BLANK; next];
        for (start, block) in starts.iter().zip(blocks) {
            data[*start..start + block.len()].copy_from_slice(&block);
        }
        data
    };
    let got = in_place(comm, round, lay(blocks(false)), |comm, data| {
        comm.all_to_all_v_in_place(data, Blocks { counts: &counts, displacements: Some(&starts) })
    });
    assert!(got == lay(blocks(true)), "all_to_all_v in place with gaps in round {round}");
}

/// What is not the in-place form is refused, and the data stays as it is.
fn in_place_misuse(comm: &mut Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    let even = vec![2; size as usize];
    let mut data = vec![rank; 2 * size as usize];
    let before = data.clone();
    let same = [0; 5];
    if size > 1 {
        let overlapping = Blocks { counts: &even, displacements: Some(&same[..size as usize]) };
        let wrong = comm.all_to_all_v_in_place(&mut data, overlapping).expect_err("blocks overlap");
        assert_eq!(
            wrong.to_string(),
            "all_to_all_v: blocks of the buffer overlap; each element can come from one rank only"
        );
    }
    let mut short = data[1..].to_vec();
    for wrong in [
        comm.all_gather_v_in_place(&mut short, &even),
        comm.reduce_scatter_v_in_place(&mut short, &even, ReduceOp::Sum),
        comm.all_to_all_v_in_place(&mut short, Blocks::packed(&even)),
        comm.gather_v_in_place(&mut short, &even, rank),
        // Of a rank that is not the root, the buffer is one block.
        comm.scatter_v_in_place(&mut short, &even, if size > 1 { (rank + 1) % size } else { 0 }),
        comm.reduce_scatter_v_in_place(&mut data, &even[1..], ReduceOp::Sum),
    ] {
        assert!(matches!(wrong, Err(Error::Misuse(Misuse::Length { .. }))), "{wrong:?}");
    }
    let open = comm.reduce_scatter_v_in_place(&mut data, &even, ReduceOp::PreMulSum);
    assert!(matches!(open, Err(Error::Misuse(Misuse::Operation { .. }))), "{open:?}");
    let root = comm.gather_v_in_place(&mut data[..2], &even, size);
    assert!(matches!(root, Err(Error::Misuse(Misuse::Root { .. }))), "{root:?}");
    assert_eq!(data, before);
    if size > 1 {
        // What rank 1 would swap with rank 0 is longer than what rank 0 would swap with it: all are told.
        let mut counts = even.clone();
        counts[0] += usize::from(rank == 1);
        let mut data = vec![BLANK; counts.iter().sum()];
        let wrong = comm.all_to_all_v_in_place(&mut data, Blocks::packed(&counts));
        let text = wrong.expect_err("ranks 1 and 0 disagree").to_string();
        assert!(text.contains("rank 1 gives rank 0 3 elements, but rank 0 expects 2"), "{text}");
    }
    comm.all_to_all_v_in_place(&mut data, Blocks::packed(&even)).expect("the communicator is still usable");
}
