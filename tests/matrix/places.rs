//! Ranks of one call of which some are in place and others not: they plan by what all of them know.

use crate::TIMEOUT_MS;
use crate::ranks::{Group, Member, Post, TRANSPORTS};
use sohu_coll::{Communicator, Element, ReduceOp};

const WELL: &str = "well";

pub(crate) fn places() {
    for transport in TRANSPORTS {
        let mut group = Group::start("places", 4);
        for post in Post::all(4, transport, TIMEOUT_MS, "-") {
            group.tell(post.rank as usize, &post.line());
        }
        group.all_say(WELL);
        group.end();
    }
}

/// The least of what the ranks have, where every other rank is in place.
fn least<T: Element + PartialEq>(comm: &mut Communicator, own: Vec<T>, least: T) {
    let mut result = own.clone();
    if comm.rank().is_multiple_of(2) {
        comm.all_reduce_in_place(&mut result, ReduceOp::Min).expect("a good call");
    } else {
        comm.all_reduce(&own, &mut result, ReduceOp::Min).expect("a good call");
    }
    assert!(result.iter().all(|one| *one == least), "{} elements", own.len());
}

pub(crate) fn play_places(member: &mut Member) {
    let mut comm = Post::read(&member.hear()).join();
    let rank = comm.rank();
    // One byte is what a barrier has; 4 MiB go in one piece or in several.
    least(&mut comm, vec![rank as u8 + 3], 3);
    for count in [10, 1000, 1 << 20] {
        least(&mut comm, vec![rank as f32 - 7.0; count], -7.0);
    }
    member.say(WELL);
}
