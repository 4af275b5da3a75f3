//! Ranks of one call of which some are in place and others not: they plan by what all of them know.

use crate::groups::on_all_transports;
use crate::ranks::{Member, Post};
use sohu_coll::{Communicator, Element, ReduceOp};

pub(crate) fn places() {
    on_all_transports("places", 4);
}

/// Sums what `of` says of each rank and place, where every other rank is in place. No two places near each other have the same, so that
/// bytes which are taken for others show.
fn sums<T: Element + PartialEq>(comm: &mut Communicator, count: usize, of: impl Fn(usize) -> T) {
    let (rank, size) = (comm.rank() as usize, comm.size() as usize);
    let own: Vec<T> = (0..count).map(|at| of(rank + at % 251)).collect();
    let mut result = own.clone();
    if rank.is_multiple_of(2) {
        comm.all_reduce_in_place(&mut result, ReduceOp::Sum).expect("a good call");
    } else {
        comm.all_reduce(&own, &mut result, ReduceOp::Sum).expect("a good call");
    }
    let of_all = |at: usize| (0..size).map(|rank| rank + at % 251).sum();
    assert!((0..count).all(|at| result[at] == of(of_all(at))), "{count} elements");
}

pub(crate) fn play_places(member: &mut Member) {
    let mut comm = Post::read(&member.hear()).join();
    // One byte is what a barrier has; 4 MiB go in one piece or in several.
    sums(&mut comm, 1, |value| value as u8);
    for count in [10, 1000, 1 << 20] {
        sums(&mut comm, count, |value| value as f32);
    }
    member.say("well");
}
