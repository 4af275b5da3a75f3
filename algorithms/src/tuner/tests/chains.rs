//! Where ranks share cores, what is long and is folded goes down chains.

use super::*;

const FOLDED: [Collective; 3] = [Collective::AllReduce, Collective::ReduceScatter, Collective::Reduce];

/// Bytes from 64 to 64 Mi, an eighth apart.
fn dense() -> impl Iterator<Item = usize> {
    (6..26).flat_map(|power| (8..16).map(move |eighths| eighths << power >> 3))
}

#[test]
fn short_messages_of_ranks_that_share_cores_are_exchanged_directly() {
    for (size, cores) in [(2, 1), (4, 2), (8, 2)] {
        for registered in [false, true] {
            for bytes in [8, 512, 1 << 10] {
                let found = chosen(Machine::shm(size, cores), bytes, registered);
                assert_eq!(found, "one_shot", "{bytes} bytes, {size} ranks, {cores} cores");
            }
        }
    }
    for bytes in BYTES.into_iter().filter(|bytes| *bytes <= 32 << 10) {
        assert_eq!(chosen(Machine::shm(2, 1), bytes, false), "one_shot", "{bytes} bytes, one core");
    }
    for size in [4, 8] {
        assert_eq!(chosen(Machine::shm(size, 2), 64 << 10, false), "two_shot", "{size} ranks");
    }
    for (size, block) in [(4, 64 << 10), (8, 32 << 10)] {
        let found = chosen_for(Collective::ReduceScatter, Machine::shm(size, 2), block);
        assert_eq!(found, "one_shot", "a reduce-scatter on {size} ranks");
    }
}

#[test]
fn long_folds_of_private_memory_go_down_chains_where_ranks_share_cores() {
    for (size, cores) in [(2, 1), (3, 2), (4, 2), (8, 2), (16, 2), (33, 8)] {
        for collective in FOLDED {
            let chosen = |bytes| chosen_for(collective, Machine::shm(size, cores), bytes);
            assert_ne!(chosen(1 << 10), "chains", "{collective} of {size} ranks on {cores} cores");
            // With two ranks to a core, one of them folds either way.
            if collective == Collective::AllReduce || size > 3 {
                let found = chosen(4 << 20);
                assert_eq!(found, "chains", "{collective} of {size} ranks on {cores} cores");
            }
        }
    }
}

#[test]
fn chains_are_not_for_a_core_each_nor_for_sockets_nor_for_what_is_read_where_it_lies() {
    for size in [2, 3, 4, 5, 8, 16] {
        let shared = [1, 2, 4].map(|cores| [Machine::shm(size, cores), fetching(size, cores)]);
        let others =
            [Machine::shm(size, size), fetching(size, size), Machine::tcp(size, size), Machine::tcp(size, 2)];
        for collective in FOLDED {
            for bytes in dense() {
                let chosen = |machine, registered| {
                    let job = Job::new(collective, size);
                    let found = Tuner::new(machine).choose(&job, bytes, registered).algorithm;
                    assert_ne!(
                        found, "chains",
                        "{collective} of {bytes} bytes, registered {registered}, {machine:?}"
                    );
                };
                for machine in others {
                    chosen(machine, false);
                    chosen(machine, true);
                }
                for machine in shared.into_iter().flatten().filter(|machine| machine.cores < size) {
                    chosen(machine, true);
                }
            }
        }
    }
}

#[test]
fn ranks_choose_alike_whether_in_place_or_not() {
    for (size, cores) in [(2, 2), (2, 1), (3, 2), (4, 2), (8, 2), (14, 8), (16, 1), (24, 2), (32, 2), (64, 8)]
    {
        let machines = [Machine::shm(size, cores), fetching(size, cores), Machine::tcp(size, cores)];
        for (tuner, collective) in machines.iter().flat_map(|m| FOLDED.map(|c| (Tuner::new(*m), c))) {
            // With a core each, an all-reduce that can not be fetched is made otherwise: all are in place then, or none.
            if collective == Collective::AllReduce
                && tuner.machine().fetched_min < usize::MAX
                && cores >= size
            {
                continue;
            }
            for bytes in dense() {
                let [apart, placed] = [false, true].map(|in_place| {
                    let choice = tuner.choose(&Job { in_place, ..Job::new(collective, size) }, bytes, false);
                    (choice.algorithm, choice.pieces)
                });
                assert_eq!(apart, placed, "{collective} of {bytes} bytes on {size} ranks, {cores} cores");
            }
        }
    }
}

#[test]
fn chains_keep_to_a_part_of_the_staging_memory_in_one_piece() {
    let machine = fetching(8, 2);
    for bytes in [64 << 10, 4 << 20, 64 << 20] {
        for registered in [false, true] {
            let choice = forced(&Tuner::new(machine), "chains", &all_reduce(8), bytes, registered);
            assert_eq!((choice.protocol, choice.pieces), ("staged", 1), "{bytes} bytes");
            let within = choice.within.expect("a part");
            // One rank fills a slice while the next one has the other.
            assert!(2 * choice.slice <= within, "{bytes} bytes: {choice:?}");
        }
    }
    assert_eq!(forced(&Tuner::new(machine), "two_shot", &all_reduce(8), 4 << 20, false).within, None);
}

#[test]
fn a_job_is_on_no_more_cores_than_it_has_ranks() {
    for (size, cores, expected) in [(8, 2, 2), (4, 4, 4), (2, 64, 2), (5, 1, 1)] {
        assert_eq!(Tuner::new(Machine::shm(size, cores)).place(all_reduce(size)).cores, expected);
    }
}
