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
        (Collective::AllReduce, kib(8), mib(5) - 1),
        (Collective::AllGather, kib(8), mib(64) / 6),
        (Collective::ReduceScatter, kib(8), mib(64) / 6),
        (Collective::AllToAll, kib(8), mib(8)),
        (Collective::Broadcast, kib(8), mib(1)),
        (Collective::Gather, kib(8), mib(1)),
        (Collective::Scatter, kib(8), mib(1)),
        (Collective::Reduce, kib(8), kib(128)),
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
    // Ranks that share cores wait for what they lent where it is worth it.
    for (collective, first) in [
        (Collective::AllReduce, None),
        (Collective::Broadcast, None),
        (Collective::Gather, Some(kib(32))),
        (Collective::Scatter, Some(kib(32))),
        (Collective::AllGather, Some(kib(128))),
        (Collective::ReduceScatter, Some(kib(64))),
        (Collective::AllToAll, Some(kib(32))),
    ] {
        let chosen = |bytes| protocol(fetching(4, 2), collective, bytes, false);
        assert_eq!(chosen(kib(1024)) == "fetched", first.is_some(), "{collective}");
        if let Some(first) = first {
            assert_eq!([chosen(first - 1), chosen(first)], ["staged", "fetched"], "{collective}");
        }
    }
}

#[test]
fn ranks_that_share_cores_fetch_long_inputs_and_stage_what_they_fold() {
    let choice = |machine: Machine, job: &Job, kib: usize, registered| {
        forced(&Tuner::new(machine), "two_shot", job, kib << 10, registered)
    };
    let job = Job::new(Collective::AllReduce, 4);
    let crowded = fetching(4, 2);
    for (kib, expected) in [(1023, "staged"), (1024, "mixed"), (512 << 10, "mixed")] {
        let choice = choice(crowded, &job, kib, false);
        assert_eq!((choice.protocol, choice.lends()), (expected, false), "{kib} KiB");
        assert_eq!((choice.fetches(), choice.fetches_inputs()), (false, expected == "mixed"), "{kib} KiB");
        assert_eq!(choice.pieces > 1, expected == "staged", "{kib} KiB");
    }
    let protocol = |machine, job: &Job, registered| choice(machine, job, 1024, registered).protocol;
    assert_eq!(protocol(crowded, &job, true), "direct");
    let placed = choice(crowded, &Job { in_place: true, ..job }, 1024, false);
    assert_eq!((placed.protocol, placed.pieces), ("mixed", 1), "a rank in place makes the same call");
    assert!(!Tuner::new(crowded).staging().choose(&job, 4 << 20, false).fetches_inputs());
    assert_eq!(protocol(crowded, &Job { collective: Collective::Broadcast, ..job }, false), "staged");
    assert_eq!(protocol(Machine::shm(4, 2), &job, false), "staged");
    assert_eq!(protocol(fetching(4, 4), &job, false), "fetched", "with a core each");
    // Nothing of a block that is folded at once is worth a turn round the ring.
    let job = Job::new(Collective::ReduceScatter, 4);
    assert_eq!(Tuner::new(crowded).choose(&job, 32 << 20, false).protocol, "fetched");
}

#[test]
fn two_ranks_fetch_a_short_broadcast_in_one_go() {
    let job = Job::new(Collective::Broadcast, 2);
    for kib in [8, 16, 64, 512] {
        let choice = Tuner::new(fetching(2, 2)).choose(&job, kib << 10, false);
        assert_eq!((choice.algorithm, choice.protocol), ("one_shot", "fetched"), "{kib} KiB");
    }
}

#[test]
fn blocks_of_any_lengths_are_fetched_by_the_longest_or_where_ranks_share_cores_by_the_mean() {
    let held = 1e6;
    let fetches = |machine, longest, mean| {
        Tuner::new(machine).fetches_blocks(
            Collective::AllToAll,
            [longest, mean].map(|kib: usize| kib << 10),
            held,
        )
    };
    let (apart, crowded) = (fetching(4, 4), fetching(4, 2));
    assert!(fetches(apart, 37, 1) && !fetches(apart, 4, 4) && !fetches(apart, 3 << 10, 3 << 10));
    assert!(!fetches(crowded, 37, 15) && fetches(crowded, 37, 16) && fetches(crowded, 32, 32));
    assert!(fetches(crowded, 8 << 10, 3 << 10), "they had something else to do");
    assert!(!fetches(Machine::shm(4, 2), 8 << 10, 3 << 10), "nothing is fetched");
}
