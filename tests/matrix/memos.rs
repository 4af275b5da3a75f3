//! All-to-alls whose blocks are so short, or nearly so, that they go along when ranks tell each other their lengths.

use crate::TIMEOUT_MS;
use crate::ranks::{Group, Member, Post, TRANSPORTS};
use crate::started::{WELL, input, join};
use sohu_coll::{Blocks, Communicator, Error, Failed, Misuse, Pending};

const BLANK: u8 = 0xa5;

/// How long a memo may be, in bytes: the shortest, some others, and the longest.
const LENGTHS: [usize; 5] = [40, 128, 576, 1536, 4096];

/// More ranks than tell each other memos.
const MANY: u32 = 33;

pub(crate) fn memos() {
    for transport in TRANSPORTS {
        for (size, driver) in [(2, "caller"), (2, "proxy"), (3, "proxy"), (5, "caller"), (7, "caller")] {
            on("memos", size, transport, driver);
        }
    }
}

pub(crate) fn too_many_for_memos() {
    on("too_many", MANY, "shm", "caller");
}

fn on(role: &str, size: u32, transport: &str, driver: &str) {
    let mut group = Group::start(role, size);
    for post in Post::all(size, transport, TIMEOUT_MS, "-") {
        group.tell(post.rank as usize, &format!("{driver} {}", post.line()));
    }
    group.all_say(WELL);
    group.end();
}

pub(crate) fn play_memos(member: &mut Member) {
    let mut comm = join(member);
    let comm = &mut comm;
    let mut turn = 0;
    for counts in tables(comm.size() as usize) {
        // Often enough that memos have become as long as they should.
        for _ in 0..4 {
            all_to_all(comm, &counts, turn);
            in_place(comm, &counts, turn);
            turn += 1;
        }
    }
    repeats(comm);
    disagreements(comm);
    mismatches(comm);
    member.say(WELL);
}

/// How many bytes each rank gives each, in calls of which some just find room in memos and some just do not.
fn tables(size: usize) -> Vec<Vec<Vec<usize>>> {
    // Two counts for each other rank, and what they come to.
    let header = (size - 1) * 8 + if size < 7 { 0 } else { 8 };
    let mut tables = vec![vec![vec![0; size]; size]];
    for len in LENGTHS.into_iter().filter(|len| *len >= header) {
        let room = len - header;
        // What a rank gives others: all of it to the next one, or something to each.
        let next = |from: usize| (from + 1) % size;
        let to_one = |room: usize| -> Vec<Vec<usize>> {
            (0..size)
                .map(|from| (0..size).map(|to| if to == next(from) { room } else { 0 }).collect())
                .collect()
        };
        let to_each = |room: usize| -> Vec<Vec<usize>> {
            let share = room / (size - 1);
            let last = room - share * (size - 2);
            (0..size)
                .map(|from| (0..size).map(|to| if to == next(from) { last } else { share }).collect())
                .collect()
        };
        for room in [room.saturating_sub(1), room, room + 1] {
            tables.extend([to_one(room), to_each(room)]);
        }
        // One rank has a long block while all others' are short, and the other way round.
        for from in 0..size {
            let mut table = to_each(size - 1);
            table[from][next(from)] = room + 1;
            tables.push(table);
            let mut table = to_one(room + 1);
            table[from] = vec![1; size];
            tables.push(table);
            tables.push(to_each(room.min(3 * (size - 1))));
        }
    }
    tables
}

fn content(from: usize, to: usize, count: usize, turn: usize) -> Vec<u8> {
    input((from * 100 + to) as u32, count, turn as u32).iter().map(|value| *value as u8).collect()
}

/// Each rank makes the same call in a way of its own: it blocks, or starts it, or plans it before.
fn all_to_all(comm: &mut Communicator, counts: &[Vec<usize>], turn: usize) {
    let (rank, size) = (comm.rank() as usize, comm.size() as usize);
    let gives = &counts[rank];
    let gets: Vec<usize> = counts.iter().map(|row| row[rank]).collect();
    let given: Vec<u8> = (0..size).flat_map(|to| content(rank, to, gives[to], turn)).collect();
    // The blocks that come, last rank first and with a gap of 3 before each: in some rounds.
    let gap = if turn.is_multiple_of(3) { 3 } else { 0 };
    let mut starts = vec![0; size];
    let mut next = 0;
    for from in (0..size).rev() {
        starts[from] = next + gap;
        next = starts[from] + gets[from];
    }
    let mut expected = vec![BLANK; next];
    for from in 0..size {
        let block = content(from, rank, gets[from], turn);
        expected[starts[from]..][..gets[from]].copy_from_slice(&block);
    }
    let (from, into) = (Blocks::packed(gives), Blocks { counts: &gets, displacements: Some(&starts) });
    let mut output = vec![BLANK; next];
    let got = match (rank + turn) % 4 {
        0 => {
            comm.all_to_all_v(&given, from, &mut output, into).expect("a good call");
            output
        }
        1 => {
            comm.start_all_to_all_v(given, from, output, into).and_then(Pending::wait).expect("a good call").1
        }
        2 => {
            let mut plan = comm.plan_all_to_all_v(given, from, output, into).expect("a good call");
            plan.run(comm).expect("a good call");
            plan.into_buffers().1
        }
        _ => {
            let plan = comm.plan_all_to_all_v(given, from, output, into).expect("a good call");
            plan.start(comm).expect("it starts").wait().expect("a good call").into_buffers().1
        }
    };
    assert!(got == expected, "{counts:?} in turn {turn}");
}

/// The same call over and over, in all ways, each time with other bytes; and then some ranks make another one, and others do not.
fn repeats(comm: &mut Communicator) {
    let size = comm.size() as usize;
    let one: Vec<Vec<usize>> =
        (0..size).map(|from| (0..size).map(|to| 1 + (from + to) % 2).collect()).collect();
    let mut other = one.clone();
    other[size - 2][size - 1] += 1;
    // With a gap before each block, and without.
    for gap in [0, 1] {
        for (round, counts) in [&one, &other, &one].into_iter().enumerate() {
            // Three times in a row in the same way, and so in all ways.
            for turn in (0..16).map(|at| 3 * (at + 4 * round) + gap) {
                (0..3).for_each(|again| all_to_all(comm, counts, turn + 12 * again));
            }
        }
        (0..16).for_each(|turn| in_place(comm, &one, turn));
    }
}

/// The same in place, where what a rank gives another is as long as what it gets from it.
fn in_place(comm: &mut Communicator, counts: &[Vec<usize>], turn: usize) {
    let (rank, size) = (comm.rank() as usize, comm.size() as usize);
    let counts: Vec<usize> = (0..size).map(|peer| counts[rank.min(peer)][rank.max(peer)]).collect();
    let mut data: Vec<u8> = (0..size).flat_map(|to| content(rank, to, counts[to], turn)).collect();
    let expected: Vec<u8> = (0..size).flat_map(|from| content(from, rank, counts[from], turn)).collect();
    let blocks = Blocks::packed(&counts);
    let got = match (rank + turn) % 4 {
        0 => {
            comm.all_to_all_v_in_place(&mut data, blocks).expect("a good call");
            data
        }
        1 => comm.start_all_to_all_v_in_place(data, blocks).and_then(Pending::wait).expect("a good call"),
        2 => {
            let mut plan = comm.plan_all_to_all_v_in_place(data, blocks).expect("a good call");
            plan.run(comm).expect("a good call");
            plan.into_buffers()
        }
        _ => {
            let plan = comm.plan_all_to_all_v_in_place(data, blocks).expect("a good call");
            plan.start(comm).expect("it starts").wait().expect("a good call").into_buffers()
        }
    };
    assert!(got == expected, "{counts:?} in place in turn {turn}");
}

/// What the call says on this rank when `getter` expects a byte more from `giver` than it is given, and `others` more do so too.
fn disagree(comm: &mut Communicator, pairs: &[(usize, usize)], count: usize, is_started: bool) -> String {
    let (rank, size) = (comm.rank() as usize, comm.size() as usize);
    let gives = vec![count; size];
    let mut gets = gives.clone();
    for (giver, _) in pairs.iter().filter(|(_, getter)| *getter == rank) {
        gets[*giver] += 1;
    }
    let given = vec![rank as u8; gives.iter().sum()];
    let mut output = vec![BLANK; gets.iter().sum()];
    let (from, into) = (Blocks::packed(&gives), Blocks::packed(&gets));
    let (error, output) = if is_started {
        let wrong = comm.start_all_to_all_v(given, from, output, into).and_then(Pending::wait);
        let Failed { error, buffers } = wrong.expect_err("ranks disagree");
        (*error, buffers.1)
    } else {
        let wrong = comm.all_to_all_v(&given, from, &mut output, into).expect_err("ranks disagree");
        (wrong, output)
    };
    assert!(matches!(error, Error::Misuse(Misuse::Disagree { .. })), "{error}");
    assert!(output.iter().all(|found| *found == BLANK), "the output was written");
    error.to_string()
}

/// Where two ranks disagree, or one with itself, all are told the same, and the next call is made.
fn disagreements(comm: &mut Communicator) {
    let size = comm.size() as usize;
    let last = size - 1;
    let even = vec![vec![3; size]; size];
    for count in [0, 1, 3, 5000] {
        for (pairs, first) in [
            (vec![(0, 1)], (0, 1)),
            (vec![(last, 0)], (last, 0)),
            // The first is that of the least rank which expects something else.
            (vec![(0, last), (last, 0)], (last, 0)),
            (vec![(last, last)], (last, last)),
            (vec![(0, last), (1, 1)], (1, 1)),
        ] {
            let (giver, getter) = if size == 2 && pairs.len() == 2 && first == (1, 1) {
                // Here both expect it on the same rank.
                (0, 1)
            } else {
                first
            };
            let text = disagree(comm, &pairs, count, (comm.rank() as usize + count).is_multiple_of(2));
            let told = format!(
                "rank {giver} gives rank {getter} {count} elements, but rank {getter} expects {}",
                count + 1
            );
            assert!(text.contains(&told), "{pairs:?}: {text}");
            all_to_all(comm, &even, count % 7);
        }
    }
}

/// Calls that look like what ranks tell each other are none to them, and elements of another type are told apart.
fn mismatches(comm: &mut Communicator) {
    let (rank, size) = (comm.rank(), comm.size() as usize);
    let counts = vec![1; size];
    let blocks = Blocks::packed(&counts);
    for call in 0..4 {
        let mut copy = comm.duplicate().expect("a good call");
        let mut output = vec![0xa5a5_a5a5u32; size];
        let wrong = match (rank, call) {
            (0, _) => copy.all_to_all_v(&vec![7u32; size], blocks, &mut output, blocks),
            (_, 0) => copy.all_to_all(&vec![1u64; size], &mut vec![0u64; size]),
            (_, 1) => copy.all_gather(&[1u8; 40], &mut vec![0u8; 40 * size]),
            (_, 2) => copy.all_to_all_v(&vec![7f32; size], blocks, &mut vec![0f32; size], blocks),
            _ => copy.all_gather_v(&[1u32], &mut vec![0u32; size], &counts),
        };
        let error = wrong.expect_err("rank 0 makes another call");
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
        assert!(error.to_string().contains("all_to_all_v uint32"), "{error}");
        assert!(output.iter().all(|found| *found == 0xa5a5_a5a5), "the output was written");
    }
    all_to_all(comm, &vec![counts; size], 1);
}

/// So many ranks tell each other lengths alone.
pub(crate) fn play_too_many(member: &mut Member) {
    let mut comm = join(member);
    let size = comm.size() as usize;
    for turn in 0..3 {
        let table: Vec<Vec<usize>> =
            (0..size).map(|from| (0..size).map(|to| (from * 3 + to * 5 + turn) % 4).collect()).collect();
        all_to_all(&mut comm, &table, turn);
        in_place(&mut comm, &table, turn);
    }
    let text = disagree(&mut comm, &[(2, 1)], 1, false);
    assert!(text.contains("rank 2 gives rank 1 1 elements, but rank 1 expects 2"), "{text}");
    all_to_all(&mut comm, &vec![vec![1; size]; size], 3);
    member.say(WELL);
}
