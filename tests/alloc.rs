//! The second of two equal calls allocates nothing, by the count of the allocator itself.
#![expect(unsafe_code, reason = "an allocator that counts is an unsafe trait")]

mod ranks;

use ranks::{Group, Member, Post, TRANSPORTS};
use sohu_coll::{Blocks, Communicator, Error, PreMulSum, ReduceOp, UserOp};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::process::ExitCode;
use std::sync::LazyLock;

/// Counts the calling thread's allocations. Calls are driven by the thread that makes them, and no other is there.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// One more. A thread that is ending has nothing left to count in, and makes no calls.
fn count() {
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every method hands its arguments on to the system's allocator unchanged, and returns what that returns; the
// count is a constant-initialised cell without a destructor, so that counting allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above; `memory` came from `System`, as all memory here does.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; `memory` came from `System`, as all memory here does.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often equal calls are made after the first.
const REPEATS: usize = 3;

fn main() -> ExitCode {
    ranks::main(
        &[
            ("the_allocator_counts", the_allocator_counts),
            ("the_second_equal_call_allocates_nothing_at_2_ranks", || second_call("count", 2)),
            ("the_second_equal_call_allocates_nothing_at_3_ranks", || second_call("count", 3)),
            ("a_persistent_call_allocates_nothing_at_2_ranks", || second_call("persistent", 2)),
            ("a_persistent_call_allocates_nothing_at_3_ranks", || second_call("persistent", 3)),
        ],
        &[("count", play), ("persistent", play_persistent)],
    )
}

fn the_allocator_counts() {
    let before = ALLOCATIONS.get();
    let boxed = std::hint::black_box(Box::new(1));
    assert_eq!(ALLOCATIONS.get(), before + 1);
    drop(boxed);
}

fn second_call(role: &str, size: u32) {
    for transport in TRANSPORTS {
        let mut group = Group::start(role, size);
        for post in Post::all(size, transport, 60_000, "-") {
            group.tell(post.rank as usize, &post.line());
        }
        group.all_say("none");
        group.end();
    }
}

/// A call to make again and again: with which communicator, from where, to where.
type Call = (&'static str, fn(&mut Communicator, &[f32], &mut [f32]) -> Result<(), Error>);

/// An operation of the test's own.
static ADDED: LazyLock<UserOp<f32>> =
    LazyLock::new(|| UserOp::new("added", |a, b| a + b).expect("a good name"));

/// Collectives, in both forms, those with blocks of any lengths, and messages round the ring, as a group and alone.
const CALLS: [Call; 20] = [
    ("group", |comm, input, output| {
        let (rank, size) = (comm.rank(), comm.size());
        comm.group(|group| {
            group.send(input, (rank + 1) % size).recv(output, (rank + size - 1) % size);
        })
    }),
    ("send and recv", |comm, input, output| {
        let (rank, size) = (comm.rank(), comm.size());
        if rank > 0 {
            comm.recv(output, rank - 1)?;
        }
        comm.send(input, (rank + 1) % size)?;
        if rank == 0 { comm.recv(output, size - 1) } else { Ok(()) }
    }),
    ("all_reduce", |comm, input, output| {
        let count = input.len() / comm.size() as usize;
        comm.all_reduce(&input[..count], &mut output[..count], ReduceOp::Sum)
    }),
    ("all_reduce_in_place", |comm, _, output| comm.all_reduce_in_place(output, ReduceOp::Sum)),
    ("reduce_scatter", |comm, input, output| {
        let count = input.len() / comm.size() as usize;
        comm.reduce_scatter(input, &mut output[..count], ReduceOp::Sum)
    }),
    ("reduce_scatter_in_place", |comm, _, output| comm.reduce_scatter_in_place(output, ReduceOp::Sum)),
    ("all_gather", |comm, input, output| {
        let count = input.len() / comm.size() as usize;
        comm.all_gather(&input[..count], output)
    }),
    ("all_gather_in_place", |comm, _, output| comm.all_gather_in_place(output)),
    ("broadcast", |comm, input, output| comm.broadcast(input, output, 1)),
    ("broadcast_in_place", |comm, _, output| comm.broadcast_in_place(output, 1)),
    ("all_to_all_v", |comm, input, output| {
        let (counts, size) = (ragged_counts(comm.rank(), comm.size(), input.len()), comm.size() as usize);
        let sum = counts.iter().sum();
        let blocks = Blocks::packed(&counts[..size]);
        comm.all_to_all_v(&input[..sum], blocks, &mut output[..sum], blocks)
    }),
    ("all_gather_v", |comm, input, output| {
        let (counts, size) = (ragged_counts(0, comm.size(), input.len()), comm.size() as usize);
        let own = counts[comm.rank() as usize];
        comm.all_gather_v(&input[..own], &mut output[..counts.iter().sum()], &counts[..size])
    }),
    ("reduce_scatter_v", |comm, input, output| {
        let (counts, size) = (ragged_counts(0, comm.size(), input.len()), comm.size() as usize);
        let own = counts[comm.rank() as usize];
        let sum = counts.iter().sum();
        comm.reduce_scatter_v(&input[..sum], &mut output[..own], &counts[..size], ReduceOp::Sum)
    }),
    ("all_to_all_v_in_place", |comm, _, output| {
        let (counts, size) = (ragged_counts(comm.rank(), comm.size(), output.len()), comm.size() as usize);
        let sum = counts.iter().sum();
        comm.all_to_all_v_in_place(&mut output[..sum], Blocks::packed(&counts[..size]))
    }),
    ("all_gather_v_in_place", |comm, _, output| {
        let (counts, size) = (ragged_counts(0, comm.size(), output.len()), comm.size() as usize);
        comm.all_gather_v_in_place(&mut output[..counts.iter().sum()], &counts[..size])
    }),
    ("reduce_scatter_v_in_place", |comm, _, output| {
        let (counts, size) = (ragged_counts(0, comm.size(), output.len()), comm.size() as usize);
        comm.reduce_scatter_v_in_place(&mut output[..counts.iter().sum()], &counts[..size], ReduceOp::Max)
    }),
    ("reduce_scatter_v, by a function", |comm, input, output| {
        let (counts, size) = (ragged_counts(0, comm.size(), input.len()), comm.size() as usize);
        let (own, sum) = (counts[comm.rank() as usize], counts.iter().sum());
        comm.reduce_scatter_v(&input[..sum], &mut output[..own], &counts[..size], &*ADDED)
    }),
    ("all_reduce, scaled", |comm, input, output| comm.all_reduce(input, output, PreMulSum(0.5))),
    ("all_reduce, by a function", |comm, input, output| comm.all_reduce(input, output, &*ADDED)),
    ("reduce_scatter_in_place, by a function", |comm, _, output| {
        comm.reduce_scatter_in_place(output, &*ADDED)
    }),
];

/// What a rank gives each rank, and gets from it: nothing here, more there.
fn ragged_counts(rank: u32, size: u32, elements: usize) -> [usize; 3] {
    let unit = elements / 4;
    [0, 1, 2].map(|peer| if peer < size { unit * ((rank + peer) % size) as usize } else { 0 })
}

/// The role: makes every call more than once, and says which of the later ones allocated how often.
fn play(member: &mut Member) {
    let post = Post::read(&member.hear());
    let mut comm = post.join();
    let mut complaints = Vec::new();
    for count in [2, 100, 3_000, 200_000] {
        let elements = count * comm.size() as usize;
        let (input, mut output) = (vec![0.0; elements], vec![0.0; elements]);
        let registered_input = comm.alloc(elements).expect("the heap is large");
        let mut registered_output = comm.alloc(elements).expect("the heap is large");
        for (name, call) in CALLS {
            for (home, from, to) in [
                ("private", &input[..], &mut output[..]),
                ("registered", &registered_input[..], &mut registered_output[..]),
            ] {
                call(&mut comm, from, to).expect("a good call");
                let before = ALLOCATIONS.get();
                for _ in 0..REPEATS {
                    call(&mut comm, from, to).expect("a good call");
                }
                let made = ALLOCATIONS.get() - before;
                if made > 0 {
                    complaints
                        .push(format!("{name} of {elements} elements, {home}: {made} in {REPEATS} calls"));
                }
            }
        }
    }
    member.say(if complaints.is_empty() { "none".into() } else { complaints.join("; ") }.as_str());
}

/// The role: makes calls that were planned once, blocking and started, one and two at a time, and says which allocated.
fn play_persistent(member: &mut Member) {
    let mut comm = Post::read(&member.hear()).join();
    let mut complaints = Vec::new();
    for count in [0, 2, 100, 3_000, 200_000] {
        let elements = count * comm.size() as usize;
        let mut reduces =
            comm.plan_all_reduce_in_place(vec![1f32; count], ReduceOp::Max).expect("a good call");
        let input = comm.alloc::<f32>(count).expect("the heap is large");
        let output = comm.alloc::<f32>(elements).expect("the heap is large");
        let mut gathers = comm.plan_all_gather(input, output).expect("a good call");
        let (counts, size) = (ragged_counts(comm.rank(), comm.size(), elements), comm.size() as usize);
        let (blocks, sum) = (Blocks::packed(&counts[..size]), counts.iter().sum());
        let swaps = comm.plan_all_to_all_v(vec![1f32; sum], blocks, vec![0f32; sum], blocks);
        let mut swaps = swaps.expect("a good call");
        let folds = comm.plan_all_reduce_in_place(vec![1f32; count], &*ADDED);
        let mut folds = folds.expect("a good call");
        let mut before = 0;
        for round in 0..2 + REPEATS {
            // The first two are for what is made when it is first needed.
            if round == 2 {
                before = ALLOCATIONS.get();
            }
            reduces.run(&mut comm).expect("a good call");
            swaps.run(&mut comm).expect("a good call");
            swaps = swaps.start(&mut comm).expect("it starts").wait().expect("a good call");
            folds = folds.start(&mut comm).expect("it starts").wait().expect("a good call");
            gathers = gathers.start(&mut comm).expect("it starts").wait().expect("a good call");
            let one = reduces.start(&mut comm).expect("it starts");
            let mut two = gathers.start(&mut comm).expect("it starts");
            while !two.test() {
                std::thread::yield_now();
            }
            gathers = two.wait().expect("a good call");
            reduces = one.wait().expect("a good call");
            gathers.run(&mut comm).expect("a good call");
        }
        let made = ALLOCATIONS.get() - before;
        if made > 0 {
            complaints.push(format!("{made} for {elements} elements"));
        }
    }
    member.say(if complaints.is_empty() { "none".into() } else { complaints.join("; ") }.as_str());
}
