//! Communicators that come out of communicators: who is in which, and that they do not disturb each other.

use crate::TIMEOUT_MS;
use crate::ranks::{Group, Member, Post, TRANSPORTS};
use sohu_coll::{Communicator, ReduceOp};

const WELL: &str = "well";

/// Starts `size` ranks in that role over each transport, and hears that all is well on them.
pub(crate) fn on_all_transports(role: &str, size: u32) {
    for transport in TRANSPORTS {
        let mut group = Group::start(role, size);
        for post in Post::all(size, transport, TIMEOUT_MS, "-") {
            group.tell(post.rank as usize, &post.line());
        }
        group.all_say(WELL);
        group.end();
    }
}

pub(crate) fn splits() {
    on_all_transports("split", 5);
}

/// The ranks of a communicator, in its order, by the number that each had in the whole job.
fn members(comm: &mut Communicator, number: u32) -> Vec<u32> {
    let mut all = vec![u32::MAX; comm.size() as usize];
    comm.all_gather(&[number], &mut all).expect("a good call");
    all
}

pub(crate) fn play_split(member: &mut Member) {
    let mut comm = Post::read(&member.hear()).join();
    let rank = comm.rank();

    // Odd and even, each backwards.
    let mut half = comm.split(Some(rank % 2), -i64::from(rank)).expect("all ranks split").expect("a colour");
    let expected: &[u32] = if rank.is_multiple_of(2) { &[4, 2, 0] } else { &[3, 1] };
    assert_eq!(members(&mut half, rank), expected);
    assert_eq!(expected[half.rank() as usize], rank);

    // Equal keys: the order of the ranks. Rank 2 wants none.
    let colour = (rank != 2).then_some(7);
    let rest = comm.split(colour, 0).expect("all ranks split");
    assert_eq!(rest.is_some(), rank != 2);
    if let Some(mut rest) = rest {
        assert_eq!(members(&mut rest, rank), [0, 1, 3, 4]);
    }

    // A part of a part, and a copy of the whole, all in use at once and each at its own pace.
    let mut alone = half.split(Some(half.rank()), 0).expect("the half splits").expect("a colour");
    let mut copy = comm.duplicate().expect("all ranks duplicate");
    assert_eq!((alone.size(), copy.rank(), copy.size()), (1, rank, 5));
    for round in 1..=20_u32 {
        for (comm, sum) in [(&mut alone, rank), (&mut half, expected.iter().sum()), (&mut copy, 10)] {
            for count in [1, 300, 20_000] {
                let mut data = vec![rank * round; count];
                comm.all_reduce_in_place(&mut data, ReduceOp::Sum).expect("a good call");
                assert!(data.iter().all(|found| *found == sum * round), "round {round}, {count} elements");
            }
        }
    }

    // What is left behind is not needed by what came out of it.
    drop(half);
    drop(copy);
    assert_eq!(members(&mut comm, rank), [0, 1, 2, 3, 4]);
    member.say(WELL);
}

/// All ranks in one process.
pub(crate) fn threads() {
    for size in [1, 2, 5] {
        let ranks = Communicator::local(size).expect("all ranks are here");
        assert_eq!(ranks.len(), size as usize);
        std::thread::scope(|scope| {
            for (rank, mut comm) in (0..).zip(ranks) {
                scope.spawn(move || {
                    assert_eq!((comm.rank(), comm.size()), (rank, size));
                    for count in [1, 100, 100_000] {
                        let mut data = vec![f64::from(rank); count];
                        comm.all_reduce_in_place(&mut data, ReduceOp::Max).expect("a good call");
                        assert!(data.iter().all(|found| *found == f64::from(size - 1)));
                    }
                });
            }
        });
    }
}
