//! Messages that are started and waited for later: in any order, beside each other and among other calls, dropped, leaked.

use crate::messages::{beside_edges, content, mixed};
use crate::ranks::Member;
use crate::started::{SUM, WELL, join};
use sohu_coll::{Buffer, Communicator, DType, Error, Failed, Letter, Misuse, Owned, Pending, Waited};
use std::time::Duration;

const BLANK: u8 = 0xa5;

/// None, one, all that lie beside an edge, and more than a ring has.
fn lengths() -> Vec<usize> {
    [0, 1].into_iter().chain(beside_edges(1)).chain([3_000_001]).collect()
}

fn registered(comm: &mut Communicator, bytes: &[u8]) -> Buffer<u8> {
    let mut buffer = comm.alloc(bytes.len()).expect("the heap is large");
    buffer.copy_from_slice(bytes);
    buffer
}

fn neighbours(comm: &Communicator) -> (u32, u32, u32) {
    let (rank, size) = (comm.rank(), comm.size());
    (rank, (rank + 1) % size, (rank + size - 1) % size)
}

pub(crate) fn play_mirrored(member: &mut Member) {
    let mut comm = join(member);
    let (rank, next, last) = neighbours(&comm);
    for (key, bytes) in lengths().into_iter().enumerate() {
        for turn in 0..4 {
            let mine = content(rank, next, key, bytes);
            let send = |comm: &mut Communicator| {
                let data = registered(comm, &mine);
                comm.start_send(data, next).expect("a good message starts")
            };
            let recv = |comm: &mut Communicator| {
                comm.start_recv(vec![BLANK; bytes], last).expect("a good message starts")
            };
            // All receive first; all send first; and each in another order than its peers.
            let recv_first = [true, false, rank.is_multiple_of(2), !rank.is_multiple_of(2)][turn];
            let (sent, came) = if recv_first {
                let came = recv(&mut comm);
                (send(&mut comm), came)
            } else {
                let sent = send(&mut comm);
                (sent, recv(&mut comm))
            };
            // Waited for in both orders too, and by two threads at once.
            let (sent, came) = match (turn + rank as usize) % 3 {
                0 => (sent.wait(), came.wait()),
                1 => {
                    let came = came.wait();
                    (sent.wait(), came)
                }
                _ => std::thread::scope(|scope| {
                    let sent = scope.spawn(move || sent.wait());
                    let came = came.wait();
                    (sent.join().expect("it waits"), came)
                }),
            };
            assert!(*sent.expect("a good message") == mine, "{bytes} bytes came back otherwise");
            assert!(came.expect("a good message") == content(last, rank, key, bytes), "{bytes} bytes");
        }
    }
    member.say(WELL);
}

pub(crate) fn play_beside(member: &mut Member) {
    let mut comm = join(member);
    let (rank, next, last) = neighbours(&comm);
    for (key, bytes) in lengths().into_iter().enumerate() {
        // What every program does that receives early: the blocking send may not wait for the receive before it.
        let mine = content(rank, next, key, bytes);
        let came = comm.start_recv(vec![BLANK; bytes], last).expect("it starts");
        comm.send(&mine, next).expect("a good message");
        assert!(came.wait().expect("a good message") == content(last, rank, key, bytes), "{bytes} bytes");

        let sent = comm.start_send(mine.clone(), next).expect("it starts");
        let mut theirs = vec![BLANK; bytes];
        comm.recv(&mut theirs, last).expect("a good message");
        assert!(theirs == content(last, rank, key, bytes), "{bytes} bytes, received by a blocking call");
        assert!(sent.wait().expect("a good message") == mine);

        let came = comm.start_recv(vec![BLANK; bytes], last).expect("it starts");
        let mut second = vec![BLANK; bytes + 1];
        let more = content(rank, next, key + 1, bytes + 1);
        comm.group(|group| {
            group.recv(&mut second, last).send(&mine, next).send(&more, next);
        })
        .expect("a good group");
        assert!(second == content(last, rank, key + 1, bytes + 1), "{bytes} bytes in a group");
        assert!(came.wait().expect("a good message") == content(last, rank, key, bytes));
    }
    // What differs is told here as well, nothing is written, and the message before it is made.
    let came = comm.start_recv(vec![BLANK; 10], last).expect("it starts");
    comm.send(&[1u8; 10], next).expect("a good message");
    let mut theirs = [BLANK; 3];
    // It may be told as soon as it is started.
    let other = comm.start_send(vec![2u8; 4], next);
    let wrong = comm.recv(&mut theirs, last).expect_err("four, not three").to_string();
    assert!(wrong.contains("send uint8[4]") && wrong.contains("recv uint8[3]"), "{wrong}");
    assert_eq!(theirs, [BLANK; 3]);
    let told = other.and_then(Pending::wait).expect_err("it is told too");
    assert!(matches!(*told.error, Error::Mispaired { .. }), "{told}");
    assert_eq!(came.wait().expect("a good message"), [1; 10]);
    member.say(WELL);
}

pub(crate) fn play_behind(member: &mut Member) {
    let mut comm = join(member);
    let mut other = comm.duplicate().expect("all ranks duplicate");
    let rank = comm.rank();
    for (key, bytes) in lengths().into_iter().enumerate() {
        let lengths = [bytes, 50_000];
        let [first, second] = [0, 1].map(|which| content(0, 1, key + which, lengths[which]));
        if rank == 0 {
            // Registered: what is lent for the second message may not keep the first from its end.
            let one = registered(&mut comm, &first);
            let two = registered(&mut comm, &second);
            let one = comm.start_send(one, 1).expect("it starts");
            let two = comm.start_send(two, 1).expect("it starts");
            let stuck = comm.start_recv(vec![BLANK; 5], 1).expect("it starts");
            one.wait().expect("a good message");
            other.barrier().expect("every rank comes");
            two.wait().expect("a good message");
            assert_eq!(stuck.wait().expect("a good message"), [7; 5]);
            continue;
        }
        if rank == 1 {
            let mut into = vec![BLANK; bytes];
            comm.recv(&mut into, 0).expect("a good message");
            assert!(into == first, "{bytes} bytes");
        }
        other.barrier().expect("every rank comes");
        if rank == 1 {
            let mut into = vec![BLANK; second.len()];
            comm.recv(&mut into, 0).expect("a good message");
            assert!(into == second, "behind {bytes} bytes");
            comm.send(&[7u8; 5], 0).expect("a good message");
        }
    }
    // One that waits all the time, beside far more than can be pending at once. Of two ranks, both ways are taken.
    let (_, next, last) = neighbours(&comm);
    if next == last {
        return member.say(WELL);
    }
    let stuck = comm.start_recv(vec![0u32; 1], next).expect("it starts");
    let mut before: Option<(Pending<_>, Pending<_>)> = None;
    for turn in 0..3_000u32 {
        let sent = comm.start_send(vec![turn; 1 + turn as usize % 40], next).expect("it starts");
        let came = comm.start_recv(vec![0u32; 1 + turn as usize % 40], last).expect("it starts");
        if let Some((sent, came)) = before.replace((sent, came)) {
            sent.wait().expect("a good message");
            assert!(came.wait().expect("a good message").iter().all(|got| *got == turn - 1), "{turn}");
        }
    }
    comm.send(&[rank], last).expect("a good message");
    assert_eq!(stuck.wait().expect("a good message"), [next]);
    drop(before);
    member.say(WELL);
}

/// Something that is waited for, with what must come of it.
type Wait = Box<dyn FnOnce()>;

pub(crate) fn play_letters(member: &mut Member) {
    let mut comm = join(member);
    for round in 0..10 {
        let mut waits = all_pairs(&mut comm, round);
        // Calls of all ranks are made in their turn, behind the messages before and before the messages behind.
        let size = comm.size();
        let sum = comm.start_all_reduce_in_place(vec![round as u32; 300], SUM).expect("it starts");
        let check = move || assert_eq!(sum.wait().expect("a good call"), [round as u32 * size; 300]);
        waits.push(Box::new(check));
        if round % 3 > 0 {
            waits.append(&mut all_pairs(&mut comm, round + 100));
        }
        // Each rank waits in an order of its own.
        let mut seed = (round as u64) << 8 | u64::from(comm.rank());
        while !waits.is_empty() {
            seed = mixed(seed);
            waits.swap_remove(seed as usize % waits.len())();
        }
        if round % 2 == 0 {
            comm.barrier().expect("a good call");
        }
    }
    member.say(WELL);
}

/// Starts messages between all pairs of ranks, of drawn lengths, every rank in an order of its own.
fn all_pairs(comm: &mut Communicator, round: usize) -> Vec<Wait> {
    let (rank, size) = (comm.rank(), comm.size());
    let draw = |from: u32, to: u32, what: usize| {
        mixed((round * 1_000_003 + what) as u64 ^ u64::from(from) << 50 ^ u64::from(to) << 40) as usize
    };
    // The longest would take most of the time.
    let lengths = lengths();
    let length = |from, to, key| lengths[draw(from, to, key + 10) % (lengths.len() - 1)];
    let mut todo: Vec<(bool, u32, usize)> = Vec::new();
    for peer in (0..size).filter(|peer| *peer != rank) {
        todo.extend((0..draw(rank, peer, 0) % 5).map(|key| (true, peer, key)));
        todo.extend((0..draw(peer, rank, 0) % 5).map(|key| (false, peer, key)));
    }
    // Those of one pipe stay in their order.
    todo.sort_by_key(|(sends, peer, key)| {
        let pipe =
            mixed((round as u64) << 20 | u64::from(rank) << 10 | u64::from(*peer) << 1 | u64::from(*sends));
        (key * 7 + pipe as usize % 13, pipe)
    });
    let mut waits: Vec<Wait> = Vec::new();
    for (sends, peer, key) in todo {
        let (from, to) = if sends { (rank, peer) } else { (peer, rank) };
        let bytes = content(from, to, key, length(from, to, key));
        let blank = vec![BLANK; bytes.len()];
        let data = if sends { &bytes } else { &blank };
        if draw(rank, peer, key + 20) % 3 == 0 {
            let data = registered(comm, data);
            waits.push(posted(comm, sends, data, peer, bytes));
        } else {
            let data = data.clone();
            waits.push(posted(comm, sends, data, peer, bytes));
        }
    }
    waits
}

fn posted<D>(comm: &mut Communicator, sends: bool, data: D, peer: u32, expected: Vec<u8>) -> Wait
where
    D: Owned<Element = u8>,
{
    let pending = match sends {
        true => comm.start_send_bytes(DType::U8, data, peer),
        false => comm.start_recv_bytes(DType::U8, data, peer),
    };
    let pending = pending.expect("a good message starts");
    Box::new(move || {
        let data = pending.wait().expect("a good message");
        assert!(data.elements() == expected, "{} bytes, {sends}, with {peer}", expected.len());
    })
}

pub(crate) fn play_groups(member: &mut Member) {
    let mut comm = join(member);
    let (rank, next, last) = neighbours(&comm);
    for (key, count) in [0, 1, 11, 4_000, 70_000].into_iter().enumerate() {
        // Types and buffers of all kinds, one to the rank itself, and a list.
        let mine = registered(&mut comm, &content(rank, next, key, count));
        let many = |peer, way: fn(Vec<u32>, u32) -> Letter<Vec<u32>>| -> Vec<_> {
            (0..3u32).map(|which| way(vec![rank * 10 + which; count + which as usize], peer)).collect()
        };
        let own = [
            Letter::recv(vec![0f64; count].into_boxed_slice(), rank),
            Letter::send(vec![0.5; count].into(), rank),
        ];
        let group = (
            own,
            Letter::recv(vec![BLANK; count], last),
            many(last, Letter::recv),
            (Letter::send(mine, next), many(next, Letter::send)),
        );
        let group = comm.start_group(group).expect("a good group starts");
        let text = format!("{group:?}");
        assert!(text.starts_with("Pending(group, "), "{text}");
        let ([came, sent], theirs, lists, (mine, _)) = group.wait().expect("a good group");
        assert_eq!(came.data(), sent.data());
        assert!(theirs.into_data() == content(last, rank, key, count), "{count}");
        assert!(mine.data() == content(rank, next, key, count));
        for (which, list) in (0..).zip(lists) {
            assert_eq!(list.into_data(), vec![last * 10 + which; count + which as usize]);
        }
    }
    assert_eq!(
        comm.start_group(Vec::<Letter<Vec<u8>>>::new())
            .expect("it starts")
            .wait()
            .expect("nothing to do")
            .len(),
        0
    );
    disagreements(&mut comm);
    misuse(&mut comm);
    member.say(WELL);
}

/// A message that ranks disagree on is told to both, and hurts neither the rest of its group nor what goes on beside it.
fn disagreements(comm: &mut Communicator) {
    let (rank, next, last) = neighbours(comm);
    for count in [3, 70_000] {
        let before = comm.start_recv(vec![0u32; 9], last).expect("it starts");
        let letters = (
            Letter::send(vec![rank; 9], next),
            Letter::send(vec![7f32; count], next),
            Letter::recv(vec![BLANK; 4 * count], last),
            Letter::recv(vec![0u32; 2], last),
            Letter::send(vec![rank; 2], next),
        );
        let behind = comm.start_group(letters).and_then(Pending::wait);
        let Failed { error, buffers } = behind.expect_err("another type");
        let (ours, theirs) = (format!("send float[{count}]"), format!("uint8[{}]", 4 * count));
        assert!(matches!(*error, Error::Mispaired { .. }), "{error}");
        assert!(error.to_string().contains(&ours) && error.to_string().contains(&theirs), "{error}");
        assert!(buffers.2.data().iter().all(|byte| *byte == BLANK), "something was written");
        assert_eq!(buffers.3.data(), [last; 2], "the rest of the group is made");
        assert_eq!(before.wait().expect("a good message"), [last; 9]);
        comm.barrier().expect("the communicator is in order");
    }
}

fn misuse(comm: &mut Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    let data = vec![1u8; 6];
    let at = data.as_ptr();
    let Failed { error, buffers } = comm.start_send(data, rank).expect_err("nobody would receive it");
    assert!(matches!(*error, Error::Misuse(Misuse::Lonely { .. })), "{error}");
    let Failed { error, buffers } = comm.start_recv(buffers, size).expect_err("no such rank");
    assert!(matches!(*error, Error::Misuse(Misuse::Peer { call: "recv", .. })), "{error}");
    let failed = comm.start_send_bytes(DType::F32, buffers, (rank + 1) % size).expect_err("no whole element");
    assert!(matches!(*failed.error, Error::Misuse(Misuse::Bytes { bytes: 6, .. })), "{failed}");
    assert_eq!(failed.buffers.as_ptr(), at);
    // The other half is missing, or differs; and nothing of the group was made.
    let next = (rank + 1) % size;
    let group = (Letter::send(failed.buffers, rank), Letter::send(vec![1u32], next));
    let failed = comm.start_group(group).expect_err("half a message");
    assert!(matches!(*failed.error, Error::Misuse(Misuse::Lonely { .. })), "{failed}");
    let group = (failed.buffers.0, Letter::recv(vec![BLANK; 5], rank));
    let failed = comm.start_group(group).expect_err("six are no five");
    assert!(matches!(*failed.error, Error::Mispaired { .. }), "{failed}");
    assert_eq!(failed.buffers.1.data(), [BLANK; 5]);
    assert_eq!(failed.buffers.0.data().as_ptr(), at);
    comm.barrier().expect("the communicator is in order");
}

pub(crate) fn play_lost(member: &mut Member) {
    let mut comm = join(member);
    let (rank, next, last) = neighbours(&comm);
    for (key, bytes) in lengths().into_iter().enumerate() {
        // One rank waits for what the others drop and leak.
        let data = registered(&mut comm, &content(rank, next, key, bytes));
        let sent = comm.start_send(data, next).expect("it starts");
        let mut came = comm.start_recv(vec![BLANK; bytes], last).expect("it starts");
        if rank == 0 {
            // A wait that ends early can be taken up again.
            let came = match came.wait_for(Duration::from_millis(1)).expect("nothing is wrong") {
                Waited::NotYet(later) => later.wait().expect("a good message"),
                Waited::Over(data) => data,
            };
            assert!(came == content(last, rank, key, bytes), "{bytes} bytes");
            std::mem::forget(sent);
        } else if key % 2 == 0 {
            drop(sent);
            std::mem::forget(came);
        } else {
            while !came.test() {
                std::thread::yield_now();
            }
            assert!(came.wait().expect("a good message") == content(last, rank, key, bytes), "{bytes} bytes");
            drop(sent);
        }
        comm.barrier().expect("a later call makes the earlier ones");
    }
    // The last ones are made when the communicator goes.
    let sent = comm.start_send(content(rank, next, 1, 70_001), next).expect("it starts");
    let came = comm.start_recv(vec![BLANK; 70_001], last).expect("it starts");
    drop(comm);
    drop(sent);
    let came = came.wait().expect("it was made when the communicator was dropped");
    assert!(came == content(last, rank, 1, 70_001));
    member.say(WELL);
}
