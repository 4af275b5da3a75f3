//! Communicators over their lives: calls by type, several at once, many in a row.

use crate::TIMEOUT_MS;
use crate::groups::on_all_transports;
use crate::ranks::values::{Kind, Values};
use crate::ranks::{Group, Member, Post, TRANSPORTS, host};
use sohu_coll::{Communicator, E4m3, E5m2, Element, Misuse, ReduceOp, bf16, f16};

/// What one rank says when all is well.
const WELL: &str = "well";

pub(crate) fn typed_calls() {
    on_all_transports("typed", 3);
}

pub(crate) fn play_typed(member: &mut Member) {
    let post = Post::read(&member.hear());
    let mut comm = post.join();
    let transport = if post.transport == "tcp" { "tcp" } else { "shm" };
    assert_eq!((comm.rank(), comm.size(), comm.transport()), (post.rank, post.size, transport));
    typed::<i8>(&mut comm);
    typed::<u8>(&mut comm);
    typed::<i32>(&mut comm);
    typed::<u32>(&mut comm);
    typed::<i64>(&mut comm);
    typed::<u64>(&mut comm);
    typed::<f16>(&mut comm);
    typed::<bf16>(&mut comm);
    typed::<f32>(&mut comm);
    typed::<f64>(&mut comm);
    typed::<E4m3>(&mut comm);
    typed::<E5m2>(&mut comm);
    comm.barrier().expect("every rank comes");
    let refused = comm.alloc::<f64>(usize::MAX / 4).expect_err("no host has so much");
    assert!(matches!(refused, sohu_coll::Error::Misuse(Misuse::Alloc { .. })), "{refused}");
    comm.barrier().expect("a refused allocation ends nothing");
    member.say(WELL);
}

/// Every typed call once.
fn typed<T: Element>(comm: &mut Communicator) {
    const COUNT: usize = 37;
    let (rank, size) = (comm.rank() as usize, comm.size());
    let all = COUNT * size as usize;
    let op = ReduceOp::Sum;
    let values = Values { dtype: T::DTYPE, op, kind: Kind::Exact, salt: 7 };
    let element = size_of::<T>();
    let elements =
        |bytes: Vec<u8>| bytes.chunks_exact(element).map(bytemuck::pod_read_unaligned).collect::<Vec<T>>();
    let (mine, long) = (elements(values.tile(rank as u32, COUNT)), elements(values.tile(rank as u32, all)));
    let (sum, long_sum) = (elements(values.reduced(size, COUNT)), elements(values.reduced(size, all)));
    let everyone: Vec<T> = (0..size).flat_map(|rank| elements(values.tile(rank, COUNT))).collect();
    let bytes = |elements: &[T]| bytemuck::cast_slice::<T, u8>(elements).to_vec();
    let mut output = vec![T::zeroed(); COUNT];

    comm.all_reduce(&mine, &mut output, op).expect("a good call");
    assert_eq!(bytes(&output), bytes(&sum), "all_reduce {}", T::DTYPE);
    let mut data = mine.clone();
    comm.all_reduce_in_place(&mut data, op).expect("a good call");
    assert_eq!(bytes(&data), bytes(&sum), "all_reduce_in_place {}", T::DTYPE);

    let own = rank * COUNT..(rank + 1) * COUNT;
    comm.reduce_scatter(&long, &mut output, op).expect("a good call");
    assert_eq!(bytes(&output), bytes(&long_sum[own.clone()]), "reduce_scatter {}", T::DTYPE);
    let mut data = long.clone();
    comm.reduce_scatter_in_place(&mut data, op).expect("a good call");
    assert_eq!(
        bytes(&data[own.clone()]),
        bytes(&long_sum[own.clone()]),
        "reduce_scatter_in_place {}",
        T::DTYPE
    );

    let mut wide = vec![T::zeroed(); all];
    comm.all_gather(&mine, &mut wide).expect("a good call");
    assert_eq!(bytes(&wide), bytes(&everyone), "all_gather {}", T::DTYPE);
    let mut wide = vec![T::zeroed(); all];
    wide[own].copy_from_slice(&mine);
    comm.all_gather_in_place(&mut wide).expect("a good call");
    assert_eq!(bytes(&wide), bytes(&everyone), "all_gather_in_place {}", T::DTYPE);

    for root in 0..size {
        let theirs = bytes(&everyone[root as usize * COUNT..][..COUNT]);
        // Only the root needs an input.
        let input = if root == comm.rank() { mine.as_slice() } else { &[] };
        comm.broadcast(input, &mut output, root).expect("a good call");
        assert_eq!(bytes(&output), theirs, "broadcast {} from {root}", T::DTYPE);
        let mut data = mine.clone();
        comm.broadcast_in_place(&mut data, root).expect("a good call");
        assert_eq!(bytes(&data), theirs, "broadcast_in_place {} from {root}", T::DTYPE);
    }

    typed_rooted(comm, &values, &mine, &sum);
    let mut data = long.clone();
    let mut turned = vec![T::zeroed(); all];
    comm.all_to_all(&data, &mut turned).expect("a good call");
    comm.all_to_all_in_place(&mut data).expect("a good call");
    let theirs = |peer| elements(values.tile(peer, all))[rank * COUNT..(rank + 1) * COUNT].to_vec();
    let exchanged: Vec<T> = (0..size).flat_map(theirs).collect();
    assert_eq!(bytes(&turned), bytes(&exchanged), "all_to_all {}", T::DTYPE);
    assert_eq!(bytes(&data), bytes(&exchanged), "all_to_all_in_place {}", T::DTYPE);

    let mut registered = comm.alloc::<T>(COUNT).expect("the heap is large");
    assert!(bytes(&registered).iter().all(|byte| *byte == 0), "fresh memory is zero");
    registered.copy_from_slice(&mine);
    comm.all_reduce_in_place(&mut registered, op).expect("a good call");
    assert_eq!(bytes(&registered), bytes(&sum), "all_reduce of registered {}", T::DTYPE);
}

/// Every typed call that has a root, once for each.
fn typed_rooted<T: Element>(comm: &mut Communicator, values: &Values, mine: &[T], sum: &[T]) {
    let (count, size) = (mine.len(), comm.size());
    let bytes = |elements: &[T]| bytemuck::cast_slice::<T, u8>(elements).to_vec();
    let block = |rank: u32| values.tile(rank, count);
    let everyone: Vec<u8> = (0..size).flat_map(block).collect();
    for root in 0..size {
        let is_root = root == comm.rank();
        // Only the root needs an output, or an input.
        let mut wide = vec![T::zeroed(); if is_root { count * size as usize } else { 0 }];
        comm.gather(mine, &mut wide, root).expect("a good call");
        assert_eq!(bytes(&wide), if is_root { everyone.clone() } else { Vec::new() }, "gather {}", T::DTYPE);
        let mut output = vec![T::zeroed(); count];
        comm.scatter(&wide, &mut output, root).expect("a good call");
        assert_eq!(bytes(&output), bytes(mine), "scatter {}: what was gathered comes back", T::DTYPE);

        let mut data = if is_root { wide.clone() } else { mine.to_vec() };
        comm.gather_in_place(&mut data, root).expect("a good call");
        assert_eq!(bytes(&data), if is_root { everyone.clone() } else { bytes(mine) }, "gather_in_place");
        comm.scatter_in_place(&mut data, root).expect("a good call");
        assert_eq!(bytes(&data), if is_root { everyone.clone() } else { bytes(mine) }, "scatter_in_place");

        let mut total = vec![T::zeroed(); if is_root { count } else { 0 }];
        comm.reduce(mine, &mut total, ReduceOp::Sum, root).expect("a good call");
        assert_eq!(bytes(&total), if is_root { bytes(sum) } else { Vec::new() }, "reduce {}", T::DTYPE);
        let mut data = mine.to_vec();
        comm.reduce_in_place(&mut data, ReduceOp::Sum, root).expect("a good call");
        assert_eq!(bytes(&data), if is_root { bytes(sum) } else { bytes(mine) }, "reduce_in_place");
    }
}

pub(crate) fn several_communicators() {
    for transport in TRANSPORTS {
        let mut group = Group::start("several", 3);
        for _ in 0..2 {
            for post in Post::all(3, transport, TIMEOUT_MS, "-") {
                group.tell(post.rank as usize, &post.line());
            }
        }
        group.all_say(WELL);
        group.end();
    }
}

pub(crate) fn play_several(member: &mut Member) {
    let posts = [member.hear(), member.hear()].map(|line| Post::read(&line));
    let mut alone = Communicator::builder().rank(0).size(1).build().expect("one rank needs nobody");
    let [mut first, mut second] = posts.map(|post| post.join());
    let (rank, size) = (first.rank(), first.size());
    let ranks = size * (size - 1) / 2;
    for round in 0..50 {
        // More and more elements, so that the two are never at the same place of their rings.
        let count = 1 + round as usize * 97;
        let (mut one, mut two) = (vec![rank + round; count], vec![rank * 1000; count * 2]);
        first.all_reduce_in_place(&mut one, ReduceOp::Sum).expect("a good call");
        second.all_reduce_in_place(&mut two, ReduceOp::Sum).expect("a good call");
        assert!(one.iter().all(|sum| *sum == ranks + size * round), "round {round} of the first");
        assert!(two.iter().all(|sum| *sum == ranks * 1000), "round {round} of the second");
        alone.all_reduce_in_place(&mut one, ReduceOp::Sum).expect("a good call");
        assert!(one.iter().all(|sum| *sum == ranks + size * round), "one rank's sum is its input");
    }
    drop(first);
    second.barrier().expect("the end of one communicator is nothing to another");
    member.say(WELL);
}

/// How many communicators come and go.
const CYCLES: usize = 200;
/// How many of them come before the first count: until then caches fill.
const WARM: usize = 20;

pub(crate) fn coming_and_going() {
    for transport in TRANSPORTS {
        let mut group = Group::start("cycles", 2);
        for _ in 0..CYCLES {
            for post in Post::all(2, transport, TIMEOUT_MS, "-") {
                group.tell(post.rank as usize, &post.line());
            }
        }
        group.all_say(WELL);
        group.end();
    }
}

pub(crate) fn play_cycles(member: &mut Member) {
    let mut before = (0, 0);
    for cycle in 0..CYCLES {
        let post = Post::read(&member.hear());
        let mut comm = post.join();
        let mut buffer = comm.alloc::<u32>(5000).expect("the heap is large");
        buffer.fill(1);
        comm.all_reduce_in_place(&mut buffer, ReduceOp::Sum).expect("a good call");
        let mut private = buffer.to_vec();
        comm.all_reduce_in_place(&mut private, ReduceOp::Sum).expect("a good call");
        assert!(private.iter().all(|sum| *sum == 4), "cycle {cycle}");
        drop((buffer, comm));
        assert_eq!(host::shared_mappings(), 0, "shared memory is mapped after cycle {cycle}");
        let now = (host::descriptors(), host::mappings());
        if cycle < WARM {
            before = now;
        }
        // The allocator may split or join its own mappings by one; what leaks grows with the cycles.
        let flat = now.0 == before.0 && now.1 <= before.1 + 1;
        assert!(flat, "cycle {cycle}: descriptors and mappings went from {before:?} to {now:?}");
    }
    member.say(WELL);
}
