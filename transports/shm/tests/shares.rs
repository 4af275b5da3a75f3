//! A rank that has less to copy than the one receiver of what it sends from registered memory shares the copying with it.

mod join;

use sohu_coll_algorithms::by_name;
use sohu_coll_core::exec::{Binding, Bound, Executor, Fetched, Progress};
use sohu_coll_core::kernel::{Kernel, Store};
use sohu_coll_core::link::Links;
use sohu_coll_core::plan::fuse::fuse_for;
use sohu_coll_core::plan::{Extents, Job, Program, Room};
use sohu_coll_core::{Collective, DType, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::{Loan, scope};
use sohu_coll_mem::{Ledger, Regions, ViewMut};
use sohu_coll_shm::ShmLinks;
use std::sync::Arc;

const HEAP: usize = 1 << 20;
const SLICE: usize = 4096;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| 1 + (at * 7 % 251) as u8).collect()
}

/// The side of rank 0.
fn rank_0(job: &Job, extents: impl FnOnce(&Program) -> Extents) -> Executor {
    let program = by_name("one_shot").expect("there is one").program(job, Rank(0));
    let extents = extents(&program);
    let binding = Binding {
        kernel: Kernel::new(DType::U8, ReduceOp::Sum),
        element: 1,
        slice: SLICE,
        store: Store::Cached,
        input_registered: true,
        output_registered: true,
        fetched: Fetched::Nothing,
        within: None,
    };
    Executor::new(Arc::new(Bound::new(&program, &fuse_for(&program, Room::Chunk), &extents, &binding)))
}

/// The root's side of a broadcast of `len` bytes, in place.
fn root(len: usize) -> Executor {
    rank_0(&Job { in_place: true, ..Job::new(Collective::Broadcast, 2) }, |program| {
        Extents::bind(program, len, 1)
    })
}

/// What the root of a broadcast of `len` bytes writes by itself to the memory that the other rank posts: before that rank has
/// received a byte. Then the other rank receives all. Where it does not post, nothing is written.
fn written_by_the_root(len: usize, posts: bool) -> Vec<u8> {
    let mut links = join::links(2, 1 << 16, HEAP);
    let call = Signature { collective: Collective::Broadcast, count: len as u64, ..Signature::none() };
    let mut sent = links[0].heap().alloc(len).expect("the heap is empty");
    sent.copy_from_slice(&pattern(len));
    let mut taken = links[1].heap().alloc(len).expect("the heap is empty");
    let (ours, theirs) = (Ledger::new(), Ledger::new());
    let mut written = Vec::new();
    scope(&ours, Loan::Shared { buffer: &mut sent, input: 0..len, output: 0..len }, &mut [], |ours| {
        scope(&theirs, Loan::Apart { input: &[], output: &mut taken }, &mut [], |theirs| {
            let mut root = root(len);
            root.begin(&call, 0, ours, &mut links[0]).expect("begin");
            // All that can be done alone.
            while root.poll(ours, &mut links[0]).expect("poll") == Progress::Moved {}
            links[1].begin(&call).expect("begin");
            if posts {
                let span = theirs.output.post(0..len).expect("an empty ledger has room");
                links[1].post(Rank(0), 0, span).expect("registered memory can be posted");
            }
            links[1].verify().expect("verify");
            while root.poll(ours, &mut links[0]).expect("poll") == Progress::Moved {}
            written = vec![0; len];
            theirs.output.landing(0..len).as_view().copy_to(ViewMut::from(&mut written[..]));
            receive(len, theirs, (&mut root, ours), &mut links);
        });
    });
    assert_eq!(&taken[..], &pattern(len)[..]);
    written
}

/// Rank 1 receives all, and rank 0 sees its call end.
fn receive(
    len: usize,
    theirs: &Regions<'_>,
    (executor, ours): (&mut Executor, &Regions<'_>),
    links: &mut [ShmLinks],
) {
    let mut done = 0;
    while done < len {
        done += links[1].recv(Rank(0), theirs.output.landing(done..len)).expect("recv");
        links[1].poll().expect("poll");
        executor.poll(ours, &mut links[0]).expect("poll");
    }
    links[1].poll().expect("poll");
    assert_eq!(executor.poll(ours, &mut links[0]).expect("poll"), Progress::Done);
}

#[test]
fn the_root_writes_the_second_part_and_the_receiver_reads_the_first() {
    for len in [16 << 10, (16 << 10) + 1, 100_003] {
        let written = written_by_the_root(len, true);
        let cut = written.iter().take_while(|byte| **byte == 0).count();
        assert_eq!(written[cut..], pattern(len)[cut..], "{len} bytes");
        assert!((len / 2..len / 2 + 3000).contains(&cut), "{cut} of {len} bytes were left to the receiver");
    }
}

#[test]
fn a_short_one_is_all_the_receivers() {
    assert!(written_by_the_root((16 << 10) - 1, true).iter().all(|byte| *byte == 0));
}

#[test]
fn what_the_receiver_does_not_post_it_reads() {
    assert!(written_by_the_root(100_003, false).iter().all(|byte| *byte == 0));
}

/// Makes an all-to-all of two ranks that have so many bytes for themselves and for each other: `[0 to 0, 0 to 1, 1 to 0]`. Says how many
/// of those for rank 1 rank 0 wrote to the memory that rank 1 posts.
fn written_in_an_all_to_all([own, sent, taken]: [usize; 3]) -> usize {
    let mut links = join::links(2, 1 << 16, HEAP);
    let job = Job::new(Collective::AllToAll, 2);
    let call = Signature { collective: Collective::AllToAll, count: sent as u64, ..Signature::none() };
    let [gives, gets] = [sent, taken].map(|theirs| [0..own, own..own + theirs]);
    let mut executor = rank_0(&job, |program| Extents::ragged(program, [&gives, &gets], &[]));
    let input = pattern(own + sent);
    let mut given = links[0].heap().alloc(input.len()).expect("the heap has room");
    given.copy_from_slice(&input);
    let mut output = links[0].heap().alloc(own + taken).expect("the heap has room");
    let mut theirs_in = links[1].heap().alloc(taken).expect("the heap has room");
    theirs_in.copy_from_slice(&pattern(taken));
    let mut theirs_out = links[1].heap().alloc(sent).expect("the heap has room");
    let (ours, theirs) = (Ledger::new(), Ledger::new());
    let mut written = 0;
    scope(&ours, Loan::Apart { input: &given, output: &mut output }, &mut [], |ours| {
        let loan = Loan::Apart { input: &theirs_in, output: &mut theirs_out };
        scope(&theirs, loan, &mut [], |theirs| {
            executor.begin(&call, 0, ours, &mut links[0]).expect("begin");
            links[1].begin(&call).expect("begin");
            let span = theirs.output.post(0..sent).expect("an empty ledger has room");
            links[1].post(Rank(0), 0, span).expect("registered memory can be posted");
            if taken > 0 {
                let span = theirs.input.lend(0..taken).expect("an empty ledger has room");
                links[1].lend(&[Rank(0)], span).expect("a loan");
            }
            links[1].verify().expect("verify");
            while executor.poll(ours, &mut links[0]).expect("poll") == Progress::Moved {}
            let mut bytes = vec![0; sent];
            theirs.output.landing(0..sent).as_view().copy_to(ViewMut::from(&mut bytes[..]));
            written = bytes.iter().filter(|byte| **byte != 0).count();
            assert_eq!(bytes[sent - written..], input[own + sent - written..], "the last of them");
            receive(sent, theirs, (&mut executor, ours), &mut links);
            assert!(links[1].settled().expect("settled"), "what was lent is back");
        });
    });
    assert_eq!(theirs_out[..], input[own..]);
    assert_eq!(output[..own], input[..own]);
    assert_eq!(output[own..], pattern(taken)[..]);
    written
}

#[test]
fn of_two_ranks_the_one_that_has_less_to_copy_writes_for_the_other() {
    let about = |found: usize, expected: usize| {
        assert!((expected - 3000..=expected).contains(&found), "{found}, not {expected}");
    };
    // Rank 0 gets little of both, so it takes it that rank 1 gets much of both.
    about(written_in_an_all_to_all([5_000, 100_000, 5_000]), 95_000);
    about(written_in_an_all_to_all([0, 100_000, 20_000]), 40_000);
    about(written_in_an_all_to_all([20_000, 100_000, 0]), 40_000);
    for equal in [[50_000, 50_000, 50_000], [60_000, 60_000, 10_000], [0, 50_000, 60_000]] {
        assert_eq!(written_in_an_all_to_all(equal), 0, "{equal:?}");
    }
}
