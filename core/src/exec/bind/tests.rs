use super::*;
use crate::element::{DType, ReduceOp};
use crate::plan::fuse::fuse;
use crate::plan::{Job, Writer, input, output, scratch};
use crate::signature::Collective;

fn binding(registered: bool) -> Binding {
    Binding {
        kernel: Kernel::new(DType::F32, ReduceOp::Sum),
        element: 4,
        slice: 4096,
        store: Store::Cached,
        input_registered: registered,
        output_registered: registered,
        fetched: Fetched::Nothing,
        within: None,
    }
}

/// Binds what `write` writes for rank 0 of 3, in `chunks` chunks of an all-reduce of `count` floats.
fn bound(in_place: bool, chunks: u32, count: usize, registered: bool, write: impl Fn(&mut Writer)) -> Bound {
    let job = Job { in_place, ..Job::new(Collective::AllReduce, 3) };
    let mut writer = Writer::new(job, Rank(0), chunks);
    write(&mut writer);
    let program = writer.finish();
    let extents = Extents::bind(&program, count, 4);
    Bound::new(&program, &fuse(&program), &extents, &binding(registered))
}

fn edges(pass: &BoundPass) -> Vec<(u32, bool)> {
    pass.after.iter().map(|edge| (edge.on, edge.wait == Wait::Whole)).collect()
}

#[test]
fn passes_are_sends_receives_or_folds() {
    let bound = bound(false, 1, 100, false, |p| {
        p.send(input(0, 1), Rank(1));
        p.copy(input(0, 1), output(0, 1));
        p.recv_reduce(output(0, 1), Rank(1));
        p.finishes(output(0, 1));
        p.recv(output(0, 1), Rank(2));
    });
    let kinds: Vec<Kind> = bound.passes.iter().map(|pass| pass.kind).collect();
    assert_eq!(kinds, [Kind::Send, Kind::Fold, Kind::Recv]);
    assert_eq!((bound.passes[1].locals.len(), &*bound.passes[1].from), (1, [Rank(1)].as_slice()));
    assert!(bound.passes[1].finishes && bound.passes.iter().all(|pass| pass.len == 400));
}

#[test]
fn receives_know_where_in_the_peers_stream_they_start() {
    let bound = bound(false, 3, 48, true, |p| {
        p.recv(output(0, 1), Rank(1));
        p.recv(output(1, 1), Rank(2));
        p.recv(output(2, 1), Rank(1));
    });
    let starts: Vec<u64> = bound.passes.iter().map(|pass| pass.stream_at).collect();
    assert_eq!(starts, [0, 0, 64]);
    assert!(bound.passes.iter().all(|pass| pass.posts));
    assert_eq!(bound.posts, 3);
}

/// 16 floats in 3 chunks of 16, 0 and 0.
#[test]
fn what_follows_an_empty_pass_waits_for_what_stands_before_it() {
    let bound = bound(false, 3, 16, false, |p| {
        p.recv(output(1, 1), Rank(1));
        p.recv(output(0, 1), Rank(1));
        p.recv(output(2, 1), Rank(1));
        p.recv(output(1, 1), Rank(1));
        p.recv(scratch(0, 1), Rank(1));
    });
    let lens: Vec<usize> = bound.passes.iter().map(|pass| pass.len).collect();
    assert_eq!(lens, [0, 64, 0, 0, 64]);
    assert_eq!(edges(&bound.passes[1]), []);
    assert_eq!(edges(&bound.passes[4]), [(1, true)], "through two empty passes");
}

#[test]
fn of_two_waits_for_a_pass_the_stricter_stays() {
    let bound = bound(false, 3, 16, false, |p| {
        p.recv(output(0, 1), Rank(1));
        p.recv(output(1, 1), Rank(1));
        // Streams behind the first receive, and stands behind the second, which has no bytes, on the link.
        p.recv_reduce(output(0, 1), Rank(1));
    });
    let last = bound.passes.last().expect("there are passes");
    assert_eq!(edges(last), [(0, true)]);
}

#[test]
fn only_registered_memory_is_lent_and_posted() {
    let write = |p: &mut Writer| {
        p.send(input(0, 1), Rank(1));
        p.recv(output(0, 1), Rank(1));
    };
    let private = bound(false, 1, 1000, false, write);
    assert!(private.passes.iter().all(|pass| !pass.lends && !pass.posts) && !private.lends_all());
    let registered = bound(false, 1, 1000, true, write);
    assert!(registered.passes[0].lends && registered.passes[1].posts && registered.lends_all());
    let short = bound(false, 1, LEND_MIN / 4 - 1, true, write);
    assert!(!short.passes[0].lends && !short.lends_all(), "a loan costs more than the copy");
    assert!(bound(false, 1, LEND_MIN / 4, true, write).lends_all());
}

#[test]
fn scratch_is_neither_lent_nor_posted() {
    let bound = bound(false, 1, 100, true, |p| {
        p.recv(scratch(0, 1), Rank(1));
        p.reduce(input(0, 1), scratch(0, 1));
        p.send(scratch(0, 1), Rank(2));
        p.copy(scratch(0, 1), output(0, 1));
    });
    let of_scratch = |pass: &&BoundPass| pass.into.is_some_and(|into| into.buffer == Buffer::Scratch);
    assert!(bound.passes.iter().filter(of_scratch).all(|pass| !pass.lends && !pass.posts));
    assert_eq!(bound.scratch_bytes, 400);
}

#[test]
fn what_a_later_pass_stores_over_is_not_lent() {
    let exchange = |p: &mut Writer| {
        p.send(input(0, 1), Rank(1));
        p.recv(output(0, 1), Rank(1));
    };
    assert!(!bound(true, 1, 1000, true, exchange).passes[0].lends, "in place, the input is the output");
    assert!(bound(false, 1, 1000, true, exchange).passes[0].lends);
    let apart = bound(true, 2, 2000, true, |p| {
        p.send(input(0, 1), Rank(1));
        p.recv(output(1, 1), Rank(1));
    });
    assert!(apart.passes[0].lends, "other chunks of the same buffer do not matter");
}

#[test]
fn private_memory_that_is_fetched_is_lent_from_a_length_on_and_never_posted() {
    // Sends input, scratch and what it received, in place or not.
    let bound = |in_place, bytes: usize, fetched| {
        let job = Job { in_place, ..Job::new(Collective::AllReduce, 3) };
        let mut writer = Writer::new(job, Rank(0), 1);
        writer.send(input(0, 1), Rank(1));
        writer.recv(scratch(0, 1), Rank(1));
        writer.send(scratch(0, 1), Rank(2));
        writer.recv(output(0, 1), Rank(2));
        writer.send(output(0, 1), Rank(1));
        let program = writer.finish();
        let extents = Extents::bind(&program, bytes / 4, 4);
        Bound::new(&program, &fuse(&program), &extents, &Binding { fetched, ..binding(false) })
    };
    let lends = |in_place, bytes, fetched| {
        let bound = bound(in_place, bytes, fetched);
        assert!(
            bound.fetches == (fetched == Fetched::All) && bound.posts == 0 && bound.exchange.is_none(),
            "{bytes} bytes"
        );
        let sends = bound.passes.iter().filter(|pass| !pass.to.is_empty());
        let lends: Vec<(Buffer, bool)> = sends.map(|pass| (pass.out_of.buffer, pass.lends)).collect();
        lends
    };
    let [input, scratch, output] = [Buffer::Input, Buffer::Scratch, Buffer::Output];
    let all = |in_place, bytes| lends(in_place, bytes, Fetched::All);
    let inputs = |in_place, bytes| lends(in_place, bytes, Fetched::Inputs);
    let none = [(input, false), (scratch, false), (output, false)];
    assert_eq!(all(false, FETCH_MIN), [(input, true), (scratch, false), (output, true)]);
    assert_eq!(all(true, FETCH_MIN), [(input, false), (scratch, false), (output, true)], "stored over");
    assert_eq!(inputs(false, FETCH_MIN), [(input, true), (scratch, false), (output, false)]);
    assert_eq!(inputs(true, FETCH_MIN), none, "stored over");
    assert_eq!([all(false, FETCH_MIN - 4), inputs(false, FETCH_MIN - 4)], [none, none]);
}

#[test]
fn memory_is_posted_once_those_that_use_it_are_done_whatever_the_order_on_the_link() {
    let bound = bound(true, 3, 300, true, |p| {
        p.send(input(0, 1), Rank(1));
        p.recv(output(2, 1), Rank(2));
        p.recv(output(0, 1), Rank(2));
    });
    assert_eq!(&*bound.passes[1].conflicts, &[] as &[u32]);
    assert_eq!(&*bound.passes[2].conflicts, &[0], "not the receive before it on the link");
}

#[test]
#[should_panic(expected = "slices of 100 bytes")]
fn slices_that_split_elements_panic() {
    let job = Job::new(Collective::AllReduce, 2);
    let program = Writer::new(job, Rank(0), 1).finish();
    let extents = Extents::bind(&program, 1, 4);
    let _bound = Bound::new(&program, &fuse(&program), &extents, &Binding { slice: 100, ..binding(false) });
}

/// What of its own input each pass reads that `write` writes, in 2 chunks.
fn inputs_of(in_place: bool, write: impl Fn(&mut Writer)) -> Vec<Option<usize>> {
    let job = Job { in_place, ..Job::new(Collective::AllReduce, 3) };
    let mut writer = Writer::new(job, Rank(0), 2);
    write(&mut writer);
    let program = writer.finish();
    inputs(&program, &fuse(&program))
}

#[test]
fn in_place_memory_is_input_until_a_pass_has_stored_there() {
    let write = |p: &mut Writer| {
        p.send(output(0, 2), Rank(1));
        p.recv_reduce(output(0, 1), Rank(1));
        p.send(output(0, 1), Rank(2));
        p.send(output(1, 1), Rank(2));
    };
    assert_eq!(inputs_of(true, write), [Some(0), Some(0), Some(0)]);
    let apart = |p: &mut Writer| {
        p.send(input(0, 2), Rank(1));
        p.recv(output(0, 1), Rank(1));
        p.reduce(input(0, 1), output(0, 1));
        p.send(scratch(0, 1), Rank(2));
    };
    assert_eq!(inputs_of(false, apart), [Some(0), Some(1), None]);
}

#[test]
#[should_panic(expected = "is input in part")]
fn a_run_that_is_input_in_part_can_not_be_scaled() {
    inputs_of(true, |p| {
        p.recv_reduce(output(0, 1), Rank(1));
        p.send(output(0, 2), Rank(1));
    });
}

/// Which pass is the own copy, and which one carries it, in a call of `ranks` ranks that `write` writes for rank 0, in chunks of
/// `chunk` bytes.
fn own(
    ranks: u32,
    chunk: usize,
    registered: bool,
    write: impl Fn(&mut Writer),
) -> Option<(usize, Option<usize>)> {
    let job = Job::new(Collective::AllReduce, ranks);
    let mut writer = Writer::new(job, Rank(0), ranks);
    write(&mut writer);
    let program = writer.finish();
    let extents = Extents::bind(&program, chunk * ranks as usize / 4, 4);
    let bound = Bound::new(&program, &fuse(&program), &extents, &binding(registered));
    bound.own.map(|own| (own.copy, own.send))
}

fn gather(p: &mut Writer) {
    let peers: Vec<Rank> = (1..p.size()).map(Rank).collect();
    peers.iter().for_each(|peer| p.send(input(0, 1), *peer));
    p.copy(input(0, 1), output(0, 1));
    peers.iter().for_each(|peer| p.recv(output(peer.0, 1), *peer));
}

#[test]
fn a_copy_that_nothing_waits_for_is_the_own_one_of_two_ranks() {
    assert_eq!(own(2, 4096, false, gather), Some((1, None)));
    assert_eq!(own(3, 4096, false, gather), None, "of three ranks");
    // A peer writes to what is posted, so there is no receive to take it along.
    assert_eq!(own(2, 4096, true, gather), None);
    // What is copied is what is sent on, in one pass.
    let sent = |p: &mut Writer| {
        p.copy(input(0, 1), output(0, 1));
        p.send(output(0, 1), Rank(1));
        p.recv(output(1, 1), Rank(1));
    };
    assert_eq!(own(2, 4096, false, sent), None);
    // A rank that only takes.
    let root = |p: &mut Writer| {
        p.copy(input(0, 1), output(0, 1));
        p.recv(output(1, 1), Rank(1));
    };
    assert_eq!(own(2, 4096, false, root), None);
    // What stores to the place of the copy waits for it.
    let stored = |p: &mut Writer| {
        p.send(input(0, 1), Rank(1));
        p.copy(input(0, 1), output(0, 1));
        p.recv(output(0, 1), Rank(1));
    };
    assert_eq!(own(2, 4096, false, stored), None);
}

#[test]
fn a_long_own_copy_of_two_ranks_goes_with_the_send_of_the_same_bytes() {
    let long = 128 << 10;
    assert_eq!(own(2, long - 64, false, gather), Some((1, None)));
    assert_eq!(own(2, long, false, gather), Some((1, Some(0))));
    let other = |p: &mut Writer| {
        p.send(input(1, 1), Rank(1));
        p.copy(input(0, 1), output(0, 1));
        p.recv(output(1, 1), Rank(1));
    };
    assert_eq!(own(2, long, false, other), None, "other bytes are sent");
    assert_eq!(own(2, long - 64, false, other), Some((1, None)), "short enough to ride on the receive");
}
