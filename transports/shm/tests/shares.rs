//! A rank that only sends, and from registered memory, shares the copying with the one receiver.

mod join;

use sohu_coll_algorithms::by_name;
use sohu_coll_core::exec::{Binding, Bound, Executor, Progress};
use sohu_coll_core::kernel::{Kernel, Store};
use sohu_coll_core::link::Links;
use sohu_coll_core::plan::fuse::fuse_for;
use sohu_coll_core::plan::{Extents, Job, Room};
use sohu_coll_core::{Collective, DType, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::{Loan, scope};
use sohu_coll_mem::{Ledger, ViewMut};
use sohu_coll_shm::ShmLinks;
use std::sync::Arc;

const HEAP: usize = 1 << 20;
const SLICE: usize = 4096;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| 1 + (at * 7 % 251) as u8).collect()
}

/// The root's side of a broadcast of `len` bytes, in place.
fn root(len: usize) -> Executor {
    let job = Job { in_place: true, ..Job::new(Collective::Broadcast, 2) };
    let program = by_name("one_shot").expect("there is one").program(&job, Rank(0));
    let binding = Binding {
        kernel: Kernel::new(DType::U8, ReduceOp::Sum),
        element: 1,
        slice: SLICE,
        store: Store::Cached,
        input_registered: true,
        output_registered: true,
    };
    let extents = Extents::bind(&program, len, 1);
    Executor::new(Arc::new(Bound::new(&program, &fuse_for(&program, Room::Chunk), &extents, &binding)))
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
            let mut done = 0;
            while done < len {
                done += links[1].recv(Rank(0), theirs.output.landing(done..len)).expect("recv");
                links[1].poll().expect("poll");
                root.poll(ours, &mut links[0]).expect("poll");
            }
            assert_eq!(end(&mut root, ours, &mut links), Progress::Done);
        });
    });
    assert_eq!(&taken[..], &pattern(len)[..]);
    written
}

fn end(root: &mut Executor, regions: &sohu_coll_mem::Regions<'_>, links: &mut [ShmLinks]) -> Progress {
    links[1].poll().expect("poll");
    root.poll(regions, &mut links[0]).expect("poll")
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
