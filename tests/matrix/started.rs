//! Calls that are started and waited for later, and calls that are planned once and made many times.

use crate::TIMEOUT_MS;
use crate::ranks::{Group, Member, Post, TRANSPORTS};
use sohu_coll::{Buffer, Communicator, Error, Failed, Misuse, Owned, Pending, ReduceOp, Waited};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

pub(crate) const WELL: &str = "well";
pub(crate) const SUM: ReduceOp = ReduceOp::Sum;

/// Sizes of blocks: none, one, inline, an exchange, odd, lent, and large.
pub(crate) const COUNTS: [usize; 7] = [0, 1, 7, 300, 4097, 20_000, 300_001];

/// Plays a role on both transports, at 2 and 3 ranks, with and without a thread that drives.
pub(crate) fn on_all(role: &str) {
    for transport in TRANSPORTS {
        for size in [2, 3] {
            for driver in ["proxy", "caller"] {
                let mut group = Group::start(role, size);
                for post in Post::all(size, transport, TIMEOUT_MS, "-") {
                    group.tell(post.rank as usize, &format!("{driver} {}", post.line()));
                }
                group.all_say(WELL);
                group.end();
            }
        }
    }
}

pub(crate) fn join(member: &mut Member) -> Communicator {
    let line = member.hear();
    let (driver, post) = line.split_once(' ').expect("a driver and a post");
    Post::read(post).builder().proxy(driver == "proxy").build().expect("every rank comes")
}

/// What `rank` gives at `index` in call `call`.
pub(crate) fn value(rank: u32, index: usize, call: u32) -> u32 {
    rank.wrapping_mul(0x9e37).wrapping_add(index as u32 * 3).wrapping_add(call * 1_000_003)
}

pub(crate) fn input(rank: u32, count: usize, call: u32) -> Vec<u32> {
    (0..count).map(|index| value(rank, index, call)).collect()
}

/// The sum of what all ranks give.
pub(crate) fn sum(size: u32, count: usize, call: u32) -> Vec<u32> {
    let at = |index| (0..size).fold(0u32, |sum, rank| sum.wrapping_add(value(rank, index, call)));
    (0..count).map(at).collect()
}

/// A registered buffer with this in it.
pub(crate) fn registered(comm: &mut Communicator, elements: &[u32]) -> Buffer<u32> {
    let mut buffer = comm.alloc(elements.len()).expect("the heap is large");
    buffer.copy_from_slice(elements);
    buffer
}

#[track_caller]
pub(crate) fn well<B>(pending: Result<Pending<B>, Failed<B>>) -> B {
    pending.expect("a good call starts").wait().expect("a good call")
}

pub(crate) fn play_started(member: &mut Member) {
    let mut comm = join(member);
    for (call, count) in (1..).zip(COUNTS) {
        every_call(&mut comm, count, call);
        rooted_calls(&mut comm, count, call);
    }
    member.say(WELL);
}

/// Every call without a root, in both forms.
fn every_call(comm: &mut Communicator, count: usize, call: u32) {
    let (rank, size) = (comm.rank(), comm.size());
    let (mine, all) = (input(rank, count, call), count * size as usize);
    let (long, own) = (input(rank, all, call), rank as usize * count..(rank as usize + 1) * count);
    let empty = |count: usize| vec![u32::MAX; count].into_boxed_slice();
    let total = sum(size, count, call);

    let (given, got) = well(comm.start_all_reduce(mine.clone(), empty(count), SUM));
    assert_eq!((&given, &*got), (&mine, &*total), "all_reduce of {count}");
    let (given, got) = (registered(comm, &mine), registered(comm, &empty(count)));
    let (given, got) = well(comm.start_all_reduce(given, got, SUM));
    assert_eq!((&*given, &*got), (&*mine, &*total), "registered all_reduce of {count}");
    let data = registered(comm, &mine);
    assert_eq!(*well(comm.start_all_reduce_in_place(data, SUM)), *total, "all_reduce_in_place of {count}");

    let long_sum = sum(size, all, call);
    let (_, got) = well(comm.start_reduce_scatter(long.clone(), empty(count), SUM));
    assert_eq!(*got, long_sum[own.clone()], "reduce_scatter of {count}");
    let data = well(comm.start_reduce_scatter_in_place(long.clone(), SUM));
    assert_eq!(data[own.clone()], long_sum[own.clone()], "reduce_scatter_in_place of {count}");

    let everyone: Vec<u32> = (0..size).flat_map(|rank| input(rank, count, call)).collect();
    let (_, got) = well(comm.start_all_gather(mine.clone(), empty(all)));
    assert_eq!(*got, *everyone, "all_gather of {count}");
    let mut data = vec![0; all];
    data[own].copy_from_slice(&mine);
    assert_eq!(well(comm.start_all_gather_in_place(data)), everyone, "all_gather_in_place of {count}");

    let block = |peer: u32| input(peer, all, call)[rank as usize * count..][..count].to_vec();
    let turned: Vec<u32> = (0..size).flat_map(block).collect();
    let (_, got) = well(comm.start_all_to_all(long.clone(), empty(all)));
    assert_eq!(*got, *turned, "all_to_all of {count}");
    assert_eq!(well(comm.start_all_to_all_in_place(long)), turned, "all_to_all_in_place of {count}");
    well(comm.start_barrier());
}

/// Every call with a root, in both forms, from each.
fn rooted_calls(comm: &mut Communicator, count: usize, call: u32) {
    let (rank, size) = (comm.rank(), comm.size());
    let (mine, all) = (input(rank, count, call), count * size as usize);
    let (total, everyone) =
        (sum(size, count, call), (0..size).flat_map(|rank| input(rank, count, call)).collect::<Vec<_>>());
    for root in 0..size {
        let is_root = root == rank;
        let theirs = input(root, count, call);
        let given = if is_root { mine.clone() } else { Vec::new() };
        let (_, got) = well(comm.start_broadcast(given, vec![0; count], root));
        assert_eq!(got, theirs, "broadcast of {count}");
        assert_eq!(well(comm.start_broadcast_in_place(mine.clone(), root)), theirs, "in place, {count}");

        let output = vec![0; if is_root { count } else { 0 }];
        let (_, got) = well(comm.start_reduce(mine.clone(), output, SUM, root));
        assert_eq!(got, if is_root { total.clone() } else { Vec::new() }, "reduce of {count}");
        let got = well(comm.start_reduce_in_place(mine.clone(), SUM, root));
        assert_eq!(got, if is_root { &total } else { &mine }[..], "reduce_in_place of {count}");

        let output = vec![0; if is_root { all } else { 0 }];
        let (_, wide) = well(comm.start_gather(mine.clone(), output, root));
        assert_eq!(wide, if is_root { everyone.clone() } else { Vec::new() }, "gather of {count}");
        let (_, got) = well(comm.start_scatter(wide.clone(), vec![0; count], root));
        assert_eq!(got, mine, "scatter of {count}");
        let data = if is_root { wide } else { mine.clone() };
        let data = well(comm.start_gather_in_place(data, root));
        let data = well(comm.start_scatter_in_place(data, root));
        assert_eq!(
            data,
            if is_root { &everyone } else { &mine }[..],
            "gather and scatter in place of {count}"
        );
    }
}

pub(crate) fn play_order(member: &mut Member) {
    let mut comm = join(member);
    let (rank, size) = (comm.rank(), comm.size());
    let counts = |call: u32| COUNTS[call as usize * 5 % 6];
    for round in 0..6 {
        let mut pending = Vec::new();
        for call in 0..24 {
            // A half is registered, and registered memory can be had while calls are pending.
            if call % 2 == 0 {
                let data = registered(&mut comm, &input(rank, counts(call), call));
                let start = comm.start_all_reduce_in_place(data, SUM).expect("a good call starts");
                pending.push((call, Box::new(move || start.wait().expect("a good call").to_vec()) as Wait));
            } else {
                let data = input(rank, counts(call), call);
                let start = comm.start_all_reduce_in_place(data, SUM).expect("a good call starts");
                pending.push((call, Box::new(move || start.wait().expect("a good call"))));
            }
        }
        // Each rank waits in an order of its own, and for some of them a blocking call comes first.
        let turn = (round + rank as usize * 7) % pending.len();
        pending.rotate_left(turn);
        if (round + rank as usize).is_multiple_of(2) {
            pending.reverse();
        }
        let late = pending.split_off(if round % 2 == 0 { 12 } else { 0 });
        for (call, wait) in pending {
            assert_eq!(wait(), sum(size, counts(call), call), "call {call} of round {round}");
        }
        let mut blocking = input(rank, 5, 99);
        comm.all_reduce_in_place(&mut blocking, SUM).expect("a good call");
        assert_eq!(blocking, sum(size, 5, 99), "a blocking call after those that are pending");
        for (call, wait) in late {
            assert_eq!(wait(), sum(size, counts(call), call), "call {call} of round {round}");
        }
    }
    member.say(WELL);
}

type Wait = Box<dyn FnOnce() -> Vec<u32>>;

pub(crate) fn play_forgotten(member: &mut Member) {
    let mut comm = join(member);
    let (rank, size) = (comm.rank(), comm.size());
    for count in COUNTS {
        // One rank waits for what the others drop and leak.
        let data = registered(&mut comm, &input(rank, count, 1));
        let first = comm.start_all_reduce_in_place(data, SUM).expect("a good call starts");
        let data = registered(&mut comm, &input(rank, count, 2));
        let second = comm.start_all_reduce_in_place(data, SUM).expect("a good call starts");
        let third = comm.start_all_reduce(input(rank, count, 3), vec![0; count], SUM);
        let third = third.expect("a good call starts");
        if rank == 0 {
            assert_eq!(*first.wait().expect("a good call"), sum(size, count, 1), "{count}");
            assert_eq!(*second.wait().expect("a good call"), sum(size, count, 2), "{count}");
            assert_eq!(third.wait().expect("a good call").1, sum(size, count, 3), "{count}");
        } else {
            drop(first);
            std::mem::forget(second);
            drop(third);
        }
        comm.barrier().expect("a later call makes the earlier ones");
    }
    // The last ones are made when the communicator goes.
    let data = registered(&mut comm, &input(rank, 70_001, 4));
    let last = comm.start_all_reduce_in_place(data, SUM).expect("a good call starts");
    if rank == 0 {
        drop(last);
        drop(comm);
    } else {
        drop(comm);
        let data = last.wait().expect("it was made when the communicator was dropped");
        assert_eq!(*data, sum(size, 70_001, 4));
    }
    member.say(WELL);
}

pub(crate) fn play_early(member: &mut Member) {
    let mut comm = join(member);
    let mut ready = comm.duplicate().expect("all ranks duplicate");
    let (rank, size) = (comm.rank(), comm.size());
    let last = size - 1;
    for (call, count) in (1..).zip(COUNTS) {
        if rank == last {
            // The others have shown that their call is not over without this one.
            ready.barrier().expect("every rank comes");
        }
        let data = input(rank, count, call);
        let mut start = comm.start_all_reduce_in_place(data, SUM).expect("a good call starts");
        if rank != last {
            assert!(!start.test(), "over before every rank has come");
            assert!(format!("{start:?}").contains("all_reduce, pending"), "{start:?}");
            for most in [Duration::ZERO, Duration::from_millis(3)] {
                start = match start.wait_for(most).expect("nothing is wrong") {
                    Waited::NotYet(start) => start,
                    Waited::Over(_) => panic!("over before every rank has come"),
                };
            }
            ready.barrier().expect("every rank comes");
        }
        while !start.test() {
            std::thread::yield_now();
        }
        match start.wait_for(Duration::ZERO).expect("a good call") {
            Waited::Over(data) => assert_eq!(data, sum(size, count, call)),
            Waited::NotYet(start) => panic!("tested to be over: {start:?}"),
        }
    }
    drop(ready);
    member.say(WELL);
}

/// The buffers come back as they were, in the place where they were.
#[track_caller]
fn refused<D: Owned>(result: Result<Pending<D>, Failed<D>>, at: *const D::Element, text: &str) {
    let Err(Failed { error, buffers }) = result else { panic!("it makes no sense") };
    assert!(matches!(*error, Error::Misuse(_)) && error.to_string().contains(text), "{error}");
    assert_eq!(buffers.elements().as_ptr(), at);
}

pub(crate) fn play_misuse(member: &mut Member) {
    let mut comm = join(member);
    let size = comm.size();
    let odd = vec![1u32; size as usize + 1];
    let at = odd.as_ptr();
    refused(comm.start_all_to_all_in_place(odd), at, "all_to_all: ");
    let data = vec![1u32; 3];
    let at = data.as_ptr();
    refused(comm.start_broadcast_in_place(data, size), at, "is not a rank");
    let failed = comm.start_all_reduce(vec![1u32; 10], vec![1u32; 11], SUM).expect_err("lengths differ");
    assert_eq!((failed.buffers.0.len(), failed.buffers.1.len()), (10, 11));
    assert!(failed.to_string().contains("input has 10 elements, not 11"), "{failed}");
    let failed = comm.plan_all_reduce(vec![1u32; 10], vec![1u32; 11], SUM).expect_err("lengths differ");
    assert_eq!((failed.buffers.0.len(), failed.buffers.1.len()), (10, 11));
    let mut other = comm.duplicate().expect("all ranks duplicate");
    let plan = comm.plan_all_reduce_in_place(vec![7u32; 3], SUM).expect("a good call is planned");
    let mut plan = plan.start(&mut other).expect_err("another communicator").buffers;
    assert!(plan.run(&mut other).expect_err("again").to_string().contains("another communicator"));
    plan.run(&mut comm).expect("a good call");
    assert_eq!(plan.into_buffers(), [7 * size; 3]);

    // As many as can be pending, all of which rank 0 holds up, and one more.
    const MOST: usize = 1024;
    if comm.rank() == 0 {
        other.barrier().expect("every rank comes");
    }
    let mut pending = Vec::new();
    for _ in 0..MOST {
        pending.push(comm.start_barrier().expect("there is room"));
    }
    if comm.rank() != 0 {
        let failed = comm.start_barrier().expect_err("there is no room");
        let full = Error::from(Misuse::Pending { call: "barrier", max: MOST });
        assert_eq!(*failed.error, full);
        other.barrier().expect("every rank comes");
    }
    pending.into_iter().for_each(|barrier| barrier.wait().expect("a good call"));
    comm.flush().expect("a communicator in order");
    // A barrier is no call of a byte. All ranks are told, and by that name.
    let error = match comm.rank() {
        0 => comm.barrier().expect_err("a mismatch"),
        _ => comm.all_reduce_in_place(&mut [1u8], ReduceOp::Max).expect_err("a mismatch"),
    };
    let (text, cause) = (error.to_string(), error.root_cause());
    assert!(matches!(cause, Error::Mismatch { .. }) && text.contains(" barrier"), "{text}");
    member.say(WELL);
}

pub(crate) fn play_persistent(member: &mut Member) {
    let mut comm = join(member);
    let (rank, size) = (comm.rank(), comm.size());
    for count in COUNTS {
        let data = registered(&mut comm, &input(rank, count, 0));
        let mut one = comm.plan_all_reduce_in_place(data, SUM).expect("a good call is planned");
        let output = vec![0; count * size as usize];
        let mut two = comm.plan_all_gather(vec![0; count], output).expect("a good call is planned");
        for call in 1..6 {
            one.data_mut().copy_from_slice(&input(rank, count, call));
            two.input_mut().copy_from_slice(&input(rank, count, call));
            if call % 2 == 0 {
                one.run(&mut comm).expect("a good call");
                two.run(&mut comm).expect("a good call");
            } else {
                // Other calls in between, of the same shape too, and more of them than there are plans kept.
                let first = one.start(&mut comm).expect("a good call starts");
                let between = comm.start_all_reduce_in_place(input(rank, count, 50), SUM);
                let second = two.start(&mut comm).expect("a good call starts");
                assert_eq!(well(between), sum(size, count, 50), "{count}");
                two = second.wait().expect("a good call");
                one = first.wait().expect("a good call");
            }
            assert_eq!(one.data(), sum(size, count, call), "run {call} of {count}");
            let everyone: Vec<u32> = (0..size).flat_map(|rank| input(rank, count, call)).collect();
            assert_eq!(two.output(), everyone, "run {call} of {count}");
        }
        assert_eq!(*one.into_buffers(), sum(size, count, 5));
    }
    // A plan outlives the plans that are kept.
    let plan = comm.plan_all_reduce_in_place(input(rank, 7, 1), SUM).expect("a good call is planned");
    for count in 8..600 {
        comm.all_reduce_in_place(&mut vec![1u8; count], SUM).expect("a good call");
    }
    let plan = plan.start(&mut comm).expect("a good call starts").wait().expect("a good call");
    assert_eq!(plan.data(), sum(size, 7, 1));
    member.say(WELL);
}

/// Wakes a thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            // It is woken when there is something to do: else the test would never end.
            Poll::Pending => std::thread::park(),
        }
    }
}

pub(crate) fn play_futures(member: &mut Member) {
    let mut comm = join(member);
    let (rank, size) = (comm.rank(), comm.size());
    for count in COUNTS {
        let mut pending = Vec::new();
        for call in 0..4 {
            pending.push(comm.start_all_reduce_in_place(input(rank, count, call), SUM).expect("it starts"));
        }
        // The last first: those before it are made on the way.
        for (call, start) in (0..4).zip(pending).rev() {
            assert_eq!(block_on(start).expect("a good call"), sum(size, count, call), "{count}");
        }
    }
    member.say(WELL);
}

/// Two communicators of the same ranks, whose calls ranks wait for in opposite orders: on one thread, which drives
/// but what it waits for and helps with the rest, or looks at it again and again, and on a thread for each.
pub(crate) fn play_opposite(member: &mut Member) {
    let mut one = join(member);
    let mut two = one.duplicate().expect("all ranks duplicate");
    let (rank, size) = (one.rank(), one.size());
    let odd = rank % 2 == 1;
    // The sum where ranks of even number gave what is of one call, and the others what is of another.
    let mixed = |count: usize, calls: [u32; 2]| -> Vec<u32> {
        let of = |rank: u32, index| value(rank, index, calls[rank as usize % 2]);
        (0..count).map(|index| (0..size).fold(0u32, |sum, rank| sum.wrapping_add(of(rank, index)))).collect()
    };
    let wait = |pending: Pending<Vec<u32>>| pending.wait().expect("a good call");
    // In one round by asking, in another by waiting for no time at all.
    let look = |mut pending: Pending<Vec<u32>>, asks: bool| loop {
        if asks && pending.test() {
            return wait(pending);
        }
        if !asks {
            match pending.wait_for(Duration::ZERO).expect("a good call") {
                Waited::Over(data) => return data,
                Waited::NotYet(again) => pending = again,
            }
        }
        std::thread::yield_now();
    };
    for (round, count) in (0..).zip([1, 20_000, 300_001, 300_001, 20_000, 1]) {
        let a = one.start_all_reduce_in_place(input(rank, count, round), SUM).expect("it starts");
        let b = two.start_all_reduce_in_place(input(rank, count, 9), SUM).expect("it starts");
        let (a, b) = match (round % 3, odd) {
            (0, false) => (wait(a), wait(b)),
            (0, true) => {
                let b = wait(b);
                (wait(a), b)
            }
            (1, false) => (look(a, round == 1), look(b, round == 1)),
            (1, true) => {
                let b = look(b, round == 1);
                (look(a, round == 1), b)
            }
            _ => std::thread::scope(|scope| {
                let b = scope.spawn(move || wait(b));
                (wait(a), b.join().expect("it waits"))
            }),
        };
        assert!(a == sum(size, count, round) && b == sum(size, count, 9), "round {round} of {count}");
        // A blocking call of one, while one of the other is pending: the other way round on ranks of odd number.
        let (starts, blocks) = if odd { (&mut one, &mut two) } else { (&mut two, &mut one) };
        let pending = starts.start_all_reduce_in_place(input(rank, count, 4), SUM).expect("it starts");
        let mut data = input(rank, count, 3);
        blocks.all_reduce_in_place(&mut data, SUM).expect("a good call");
        let (of_one, of_two) = (mixed(count, [3, 4]), mixed(count, [4, 3]));
        let expected = if odd { (of_two, of_one) } else { (of_one, of_two) };
        assert!((data, wait(pending)) == expected, "round {round} of {count}");
    }
    member.say(WELL);
}

/// All ranks of this process.
fn local(size: u32, proxy: bool) -> Vec<Communicator> {
    let id = sohu_coll::UniqueId::new();
    let build = |rank| {
        let builder = Communicator::builder().rank(rank).size(size).id(&id).proxy(proxy);
        std::thread::spawn(move || builder.build().expect("every rank comes"))
    };
    let threads: Vec<_> = (0..size).map(build).collect();
    threads.into_iter().map(|thread| thread.join().expect("it is built")).collect()
}

/// Panics on the thread that drives.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

pub(crate) fn panics() {
    let mut ranks = local(2, true);
    let mut other = ranks.remove(1);
    let mut comm = ranks.remove(0);
    let mut first = comm.start_all_reduce_in_place(vec![1u32; 10], SUM).expect("it starts");
    let second = comm.start_all_reduce_in_place(vec![2u32; 10], SUM).expect("it starts");
    let waker = Waker::from(Arc::new(Panics));
    assert!(
        pin!(&mut first).poll(&mut Context::from_waker(&waker)).is_pending(),
        "the other rank has not come"
    );
    let one = other.start_all_reduce_in_place(vec![1u32; 10], SUM).expect("it starts");
    assert_eq!(one.wait().expect("a call that all ranks made"), [2; 10]);
    // This thread must not drive, or it would be the one that panics.
    while !format!("{first:?}").contains("over") {
        std::thread::yield_now();
    }
    // The first was over when its waker panicked.
    assert_eq!(first.wait().expect("a good call"), [2; 10]);
    let failed = second.wait().expect_err("the proxy has panicked");
    assert_eq!(failed.buffers.len(), 10);
    let named = |error: &Error| {
        let cause = error.root_cause().to_string();
        assert!(cause.contains("rank 0 panicked") && cause.contains("a waker that panics"), "{error}");
    };
    named(&failed.error);
    named(&comm.barrier().expect_err("the communicator is aborted"));
    let two = other.start_all_reduce_in_place(vec![2u32; 10], SUM).and_then(Pending::wait);
    named(&two.expect_err("rank 0 did not make it").error);
}
