//! User operations: functions of the caller's, folded in the order of the ranks or in any, on every algorithm.

use crate::ranks::{Group, Member, Post, TRANSPORTS};
use crate::{ALGORITHMS, TIMEOUT_MS};
use sohu_coll::{Communicator, E4m3, Element, Error, Misuse, PreMulSum, ReduceOp, UserOp};

const WELL: &str = "well";
/// Elements of a block.
const COUNTS: [usize; 6] = [0, 1, 7, 511, 4097, 70_001];

pub(crate) fn ordered() {
    for transport in TRANSPORTS {
        for size in [1, 2, 3, 5, 8] {
            run("ordered", size, transport, "-");
        }
    }
    run("ordered", 4, "shm", "two_shot");
    // There is no other that keeps the order.
    run("refused", 4, "shm", "ring");
}

pub(crate) fn commutative() {
    for algorithm in ALGORITHMS {
        for size in [2, 3, 4, 8] {
            run("commutative", size, "shm", algorithm);
        }
    }
    run("commutative", 4, "tcp", "ring");
    run("commutative", 3, "shm", "-");
}

#[track_caller]
fn run(part: &str, size: u32, transport: &str, algorithm: &str) {
    let mut group = Group::start("operations", size);
    for post in Post::all(size, transport, TIMEOUT_MS, algorithm) {
        group.tell(post.rank as usize, &format!("{part} {}", post.line()));
    }
    group.all_say(WELL);
    group.end();
}

pub(crate) fn play(member: &mut Member) {
    let line = member.hear();
    let (part, post) = line.split_once(' ').expect("a part and a post");
    let mut comm = Post::read(post).join();
    match part {
        "ordered" => in_rank_order(&mut comm),
        "refused" => refused(&mut comm),
        _ => in_any_order(&mut comm),
    }
    member.say(WELL);
}

/// Digits one after the other, and how many they are in the highest byte.
fn joined(a: u64, b: u64) -> u64 {
    const DIGITS: u64 = (1 << 56) - 1;
    let lengths = (a & !DIGITS) + (b & !DIGITS);
    lengths | ((a & DIGITS) << (4 * (b >> 56))) | (b & DIGITS)
}

fn digit(rank: u32, index: usize) -> u64 {
    (1 << 56) + (u64::from(rank) * 7 + index as u64) % 16
}

fn in_rank_order(comm: &mut Communicator) {
    let join = UserOp::new("joined", joined).expect("a good name");
    all_forms(comm, &join, digit, |size, index| {
        (0..size).map(|rank| digit(rank, index)).reduce(joined).expect("there is a rank")
    });
    // What the first rank gives: right only if it comes first, and of a type of one byte.
    let first = UserOp::new("first", |a: E4m3, _| a).expect("a good name");
    let value = |rank: u32, index: usize| E4m3((u64::from(rank) * 31 + index as u64) as u8);
    all_forms(comm, &first, value, |_, index| value(0, index));
}

fn in_any_order(comm: &mut Communicator) {
    let far = |a: i32, b: i32| if b.unsigned_abs() > a.unsigned_abs() { b } else { a };
    let farthest = UserOp::new("farthest", far).and_then(UserOp::commutative).expect("a good name");
    // Two ranks never give opposite numbers, between which the function is not commutative.
    let value = |rank: u32, index: usize| {
        let size = (index as i32).wrapping_mul(7919).wrapping_add(rank as i32 * 1_000_003) % 5_000 * 16;
        if (index + rank as usize).is_multiple_of(2) { size + rank as i32 } else { -size - rank as i32 }
    };
    all_forms(comm, &farthest, value, |size, index| {
        (0..size).map(|rank| value(rank, index)).reduce(far).expect("there is a rank")
    });
}

fn refused(comm: &mut Communicator) {
    let join = UserOp::new("joined", joined).expect("a good name");
    let error = comm.all_reduce_in_place(&mut [1, 2], &join).expect_err("a ring folds in another order");
    assert!(matches!(error, Error::Misuse(Misuse::Algorithm { .. })), "{error}");
    // Nothing moved, and what the algorithm does is done.
    comm.all_reduce_in_place(&mut [1u64, 2], ReduceOp::Sum).expect("a good call");
    let error = comm.all_reduce_in_place(&mut [1u64], ReduceOp::PreMulSum).expect_err("no scalar");
    assert!(error.to_string().contains("\"mulsum\" needs a scalar"), "{error}");
    let error = comm.all_reduce_in_place(&mut [1u64], ReduceOp::User).expect_err("no function");
    assert!(error.to_string().contains("needs a function"), "{error}");
    let error = comm.reduce_scatter_v(&[1u64; 4], &mut [0; 1], &[1; 4], ReduceOp::PreMulSum);
    assert!(matches!(error, Err(Error::Misuse(Misuse::Operation { .. }))), "{error:?}");
    let mut scaled = [comm.rank(), 1];
    let factor = comm.rank() + 1;
    comm.all_reduce_in_place(&mut scaled, PreMulSum(factor)).expect("a good call");
    assert_eq!(scaled, [2 + 2 * 3 + 3 * 4, 1 + 2 + 3 + 4]);
}

/// The three collectives that reduce, apart and in place, in private and in registered memory; skips what the forced
/// algorithm does not do.
fn all_forms<T: Element + PartialEq>(
    comm: &mut Communicator,
    op: &UserOp<T>,
    value: impl Fn(u32, usize) -> T,
    reduced: impl Fn(u32, usize) -> T,
) {
    let (rank, size) = (comm.rank(), comm.size());
    let does = |result: Result<(), Error>| match result {
        Ok(()) => true,
        Err(Error::Misuse(Misuse::Algorithm { .. })) => false,
        Err(error) => panic!("rank {rank}: {error}"),
    };
    for count in COUNTS {
        let right = |got: &[T], first: usize| {
            let wrong = (0..got.len()).find(|index| got[*index] != reduced(size, first + index));
            assert_eq!(wrong, None, "{op:?} of {count} elements on rank {rank}");
        };
        let whole = count * size as usize;
        let own: Vec<T> = (0..whole).map(|index| value(rank, index)).collect();
        let mut registered = comm.alloc::<T>(whole.max(1)).expect("the heap is large");
        let (mut output, mut data) = (vec![T::zeroed(); count], own.clone());
        let root = count as u32 % size;
        if does(comm.all_reduce(&own[..count], &mut output, op)) {
            right(&output, 0);
        }
        if does(comm.all_reduce_in_place(&mut data, op)) {
            right(&data, 0);
        }
        registered[..whole].copy_from_slice(&own);
        if does(comm.all_reduce_in_place(&mut registered[..whole], op)) {
            right(&registered[..whole], 0);
        }
        if does(comm.reduce(&own[..count], &mut output, op, root)) && rank == root {
            right(&output, 0);
        }
        if does(comm.reduce_scatter(&own, &mut output, op)) {
            right(&output, rank as usize * count);
        }
        data.copy_from_slice(&own);
        if does(comm.reduce_scatter_in_place(&mut data, op)) {
            let first = rank as usize * count;
            right(&data[first..first + count], first);
        }
    }
}
