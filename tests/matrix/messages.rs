//! Messages of two ranks: in rings, between all pairs in any order, alone and in groups, beside calls of all ranks.

use crate::TIMEOUT_MS;
use crate::ranks::{Group, Member, Post, TRANSPORTS};
use sohu_coll::{Communicator, DType, Misuse, ReduceOp};

const WELL: &str = "well";
const BLANK: u8 = 0xa5;

/// Bytes of a message that go ahead of the receiver's answer, over any transport.
const EAGER: usize = 64 << 10;

/// Bytes of the head, which goes with the first of them; with a bid it lies in the line.
const HEAD: usize = 16;

/// What pipes of shared memory tell apart, in bytes: up to so many lie in a line, in the line of a bid, or at the front of the ring, or go
/// into the ring at once; from so many on registered memory is lent, and what is left of a message keeps to a part of the ring.
const LINE: usize = 56;
const BID_LINE: usize = 24;
const FRONT: usize = 2 << 10;
const PIECE: usize = (64 << 10) + 64;
const LENT: usize = 1 << 10;
const LARGE: usize = 512 << 10;

/// The longest ring of a pipe.
const RING: usize = 2 << 20;

/// Lengths of messages at one side of which something goes another way than at the other: with their head, where that lies
/// with them, and behind what goes ahead of the answer.
const EDGES: [usize; 10] = [
    BID_LINE,
    LINE - HEAD,
    LENT,
    FRONT - HEAD,
    FRONT,
    EAGER,
    PIECE - HEAD,
    EAGER + PIECE,
    LARGE - HEAD,
    EAGER + LARGE,
];

/// Each edge with its neighbours, of elements of so many bytes.
pub(crate) fn beside_edges(element: usize) -> impl Iterator<Item = usize> {
    EDGES.into_iter().map(move |edge| edge / element).flat_map(|edge| [edge - 1, edge, edge + 1])
}

pub(crate) fn messages() {
    for transport in TRANSPORTS {
        for size in [1, 2, 3, 4, 5, 8] {
            let mut group = Group::start("messages", size);
            for post in Post::all(size, transport, TIMEOUT_MS, "-") {
                group.tell(post.rank as usize, &post.line());
            }
            group.all_say(WELL);
            group.end();
        }
    }
}

pub(crate) fn play_messages(member: &mut Member) {
    let mut comm = Post::read(&member.hear()).join();
    rings(&mut comm);
    for round in 0..12 {
        all_pairs(&mut comm, round);
        sum(&mut comm);
    }
    chains(&mut comm);
    alone_meets_group(&mut comm);
    beside_calls(&mut comm);
    member.say(WELL);
}

/// A draw that every rank makes alike.
pub(crate) fn mixed(seed: u64) -> u64 {
    let a = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ a >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ b >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    c ^ c >> 31
}

/// What message `key` from one rank to another holds.
pub(crate) fn content(from: u32, to: u32, key: usize, bytes: usize) -> Vec<u8> {
    let seed = mixed(u64::from(from) << 40 | u64::from(to) << 20 | key as u64);
    (0..bytes).map(|at| (seed >> (at % 7 * 8)) as u8 ^ (at / 7 % 253) as u8).collect()
}

/// A call of all ranks in between, whose result must not depend on what messages there were.
fn sum(comm: &mut Communicator) {
    let size = u64::from(comm.size());
    let mut data = [u64::from(comm.rank()); 3];
    comm.all_reduce_in_place(&mut data, ReduceOp::Sum).expect("a good call");
    assert_eq!(data, [size * (size - 1) / 2; 3]);
}

/// Every type and length once round the ring, every rank in one group.
fn rings(comm: &mut Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    let (next, last) = ((rank + 1) % size, (rank + size - 1) % size);
    for (key, dtype) in DType::ALL.into_iter().enumerate() {
        let element = dtype.size();
        let mut counts = vec![0, 1, 3, 1021, (RING + 12) / element];
        counts.extend(beside_edges(element));
        // The longest with a type of one byte, and with one of more: they take most of the time.
        let most = if matches!(dtype, DType::F32 | DType::U8) { usize::MAX } else { LARGE / 2 };
        for count in counts.into_iter().filter(|count| count * element <= most) {
            let mine = content(rank, next, key + count, count * element);
            let mut theirs = vec![BLANK; mine.len()];
            comm.group(|group| {
                group.recv_bytes(dtype, &mut theirs, last).send_bytes(dtype, &mine, next);
            })
            .expect("a good group");
            assert!(theirs == content(last, rank, key + count, theirs.len()), "{dtype}[{count}] of {size}");
        }
    }
}

/// Messages between all pairs of ranks, a rank and itself too: 0 to 3 each, of drawn lengths, every rank in an order
/// of its own. Some buffers are registered.
fn all_pairs(comm: &mut Communicator, round: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    let draw = |from: u32, to: u32, what: usize| {
        mixed((round * 1_000_003 + what) as u64 ^ u64::from(from) << 50 ^ u64::from(to) << 40) as usize
    };
    let length = |from, to, key| match draw(from, to, key + 10) % 8 {
        0 => 0,
        1 => 1,
        2 | 3 => draw(from, to, key + 20) % 100,
        4 | 5 => draw(from, to, key + 20) % 5_000,
        6 => draw(from, to, key + 20) % (3 * EAGER),
        _ => draw(from, to, key + 20) % (6 * EAGER),
    };
    let keys = |from, to| 0..draw(from, to, 0) % 4;
    let mut out = Vec::new();
    let mut gets = Vec::new();
    for peer in 0..size {
        for key in keys(rank, peer) {
            let bytes = content(rank, peer, key, length(rank, peer, key));
            let registered = draw(rank, peer, key + 30) % 3 == 0;
            let mut buffer = registered.then(|| comm.alloc::<u8>(bytes.len()).expect("the heap is large"));
            if let Some(buffer) = &mut buffer {
                buffer.copy_from_slice(&bytes);
            }
            out.push((peer, bytes, buffer));
        }
        for key in keys(peer, rank) {
            gets.push((peer, key, vec![BLANK; length(peer, rank, key)]));
        }
    }
    comm.group(|group| {
        // Sends and receives in any order, but for those of one pair and way: a draw says who is next.
        let mut sends: Vec<Vec<&[u8]>> = vec![Vec::new(); size as usize];
        for (peer, bytes, buffer) in out.iter().rev() {
            sends[*peer as usize].push(buffer.as_ref().map_or(&bytes[..], |buffer| &buffer[..]));
        }
        let mut recvs: Vec<Vec<&mut [u8]>> = (0..size).map(|_| Vec::new()).collect();
        for (peer, _, bytes) in gets.iter_mut().rev() {
            recvs[*peer as usize].push(bytes);
        }
        for turn in 0.. {
            if sends.iter().all(Vec::is_empty) && recvs.iter().all(Vec::is_empty) {
                break;
            }
            let drawn = mixed((turn * 64 + rank as usize + round * 7919) as u64);
            let peer = (drawn >> 8) % u64::from(size);
            let (at, peer) = (peer as usize, peer as u32);
            if drawn.is_multiple_of(2) {
                sends[at].pop().map(|bytes| group.send(bytes, peer));
            } else {
                recvs[at].pop().map(|bytes| group.recv(bytes, peer));
            }
        }
    })
    .expect("a good group");
    for (peer, key, bytes) in gets {
        assert!(bytes == content(peer, rank, key, bytes.len()), "round {round}: {key} from {peer}");
    }
}

/// Down a chain of ranks and back, one call after the other.
fn chains(comm: &mut Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    let some = [0, 1, 10, 1000, 5 * EAGER + 3, RING + 1];
    for (key, count) in some.into_iter().chain(beside_edges(1)).enumerate() {
        let mut data = vec![BLANK; count];
        if rank == 0 {
            data = content(0, 0, key, count);
        } else {
            comm.recv(&mut data, rank - 1).expect("a good message");
        }
        if rank + 1 < size {
            comm.send(&data, rank + 1).expect("a good message");
            data.fill(BLANK);
            comm.recv(&mut data, rank + 1).expect("a good message");
        }
        if rank > 0 {
            comm.send(&data, rank - 1).expect("a good message");
        }
        assert!(data == content(0, 0, key, count), "{count} bytes down the chain");
    }
}

/// Rank 0 sends to one after the other and hears from one after the other; the others do both at once.
fn alone_meets_group(comm: &mut Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    for count in [1, 2 * EAGER, RING + 1] {
        if rank > 0 {
            let mine = content(rank, 0, 9, count);
            let mut theirs = vec![BLANK; count];
            comm.group(|group| {
                group.send(&mine, 0).recv(&mut theirs, 0);
            })
            .expect("a good group");
            assert!(theirs == content(0, rank, 9, count));
            continue;
        }
        for peer in 1..size {
            comm.send(&content(0, peer, 9, count), peer).expect("a good message");
        }
        for peer in (1..size).rev() {
            let mut theirs = vec![BLANK; count];
            comm.recv(&mut theirs, peer).expect("a good message");
            assert!(theirs == content(peer, 0, 9, count));
        }
        comm.group(|_| {}).expect("nothing to do");
    }
    let itself = comm.send(&[1u8], rank).expect_err("nobody receives it").to_string();
    assert!(itself.contains(&format!("send uint8[1] to rank {rank}, which is this rank")), "{itself}");
    let nobody = comm.recv(&mut [1u8], size);
    assert!(matches!(nobody, Err(sohu_coll::Error::Misuse(Misuse::Peer { .. }))), "{nobody:?}");
    // The first that makes no sense, and nothing of the others.
    let mine = [7u8; 3];
    let mut theirs = [BLANK; 3];
    let odd = comm.group(|group| {
        group.send(&mine, rank).recv(&mut theirs, rank).send_bytes(DType::F32, &mine, rank);
    });
    assert!(matches!(odd, Err(sohu_coll::Error::Misuse(Misuse::Bytes { bytes: 3, .. }))), "{odd:?}");
    assert_eq!(theirs, [BLANK; 3]);
}

/// The last ranks are in a call of all ranks while the first two still have messages for each other.
fn beside_calls(comm: &mut Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    for round in 0..30 {
        let count = [1, 100, EAGER + 1, LARGE + 1][round % 4];
        let mut data = vec![BLANK; count];
        match rank {
            0 if size > 1 => comm.send(&content(0, 1, round, count), 1).expect("a good message"),
            1 => {
                comm.recv(&mut data, 0).expect("a good message");
                assert!(data == content(0, 1, round, count));
            }
            _ => {}
        }
        sum(comm);
    }
}
