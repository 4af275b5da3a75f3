//! What is fetched out of private memory, and what is staged.

use super::{Machine, Tuner, fetching, forced};
use sohu_coll_core::Collective;
use sohu_coll_core::plan::Job;

#[test]
fn private_memory_is_fetched_where_that_was_faster() {
    // Of the direct algorithm: others may have shorter parts.
    let protocol = |machine: Machine, collective, bytes, registered| {
        let job = Job::new(collective, machine.size);
        forced(&Tuner::new(machine), "one_shot", &job, bytes, registered).protocol
    };
    let (kib, mib) = (|kib: usize| kib << 10, |mib: usize| mib << 20);
    // From the first of these many bytes to the last it is fetched; those of a block, where there are several. With a core for each rank.
    for (collective, first, last) in [
        (Collective::AllReduce, kib(32), mib(5) - 1),
        (Collective::AllGather, kib(16), mib(64) / 6),
        (Collective::ReduceScatter, kib(16), mib(64) / 6),
        (Collective::AllToAll, kib(16), mib(8)),
        (Collective::Broadcast, kib(8), mib(1)),
        (Collective::Gather, kib(8), mib(1)),
        (Collective::Scatter, kib(8), mib(1)),
        (Collective::Reduce, kib(16), kib(128)),
    ] {
        for (bytes, expected) in
            [(first - 1, "staged"), (first, "fetched"), (last, "fetched"), (last + 1, "staged")]
        {
            let chosen = |machine, registered| protocol(machine, collective, bytes, registered);
            assert_eq!(chosen(fetching(2, 2), false), expected, "{collective} of {bytes} bytes");
            assert_eq!(chosen(fetching(2, 2), true), "direct", "{collective} of {bytes} bytes");
            assert_eq!(chosen(Machine::shm(2, 2), false), "staged", "{collective} of {bytes} bytes");
        }
    }
    // What is stored over can not be lent.
    for (collective, expected) in [
        (Collective::AllReduce, "staged"),
        (Collective::AllToAll, "staged"),
        (Collective::AllGather, "fetched"),
    ] {
        let job = Job { in_place: true, ..Job::new(collective, 2) };
        let chosen = forced(&Tuner::new(fetching(2, 2)), "one_shot", &job, kib(256), false).protocol;
        assert_eq!(chosen, expected, "{collective} in place");
    }
    // Ranks that share cores have better things to do than to wait for what they lent.
    for (collective, first) in [
        (Collective::AllReduce, None),
        (Collective::Broadcast, None),
        (Collective::Gather, None),
        (Collective::AllGather, Some(kib(128))),
        (Collective::ReduceScatter, Some(kib(128))),
        (Collective::AllToAll, Some(kib(32))),
    ] {
        let chosen = |bytes| protocol(fetching(4, 2), collective, bytes, false);
        assert_eq!(chosen(kib(1024)) == "fetched", first.is_some(), "{collective}");
        if let Some(first) = first {
            assert_eq!([chosen(first - 1), chosen(first)], ["staged", "fetched"], "{collective}");
        }
    }
}
