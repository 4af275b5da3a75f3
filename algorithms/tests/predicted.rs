//! The timeline walks what every algorithm is fused to, and agrees with the tuner on what matters.

use sohu_coll_core::plan::timeline::timeline;
use sohu_coll_core::plan::{Extents, Job, fuse};
use sohu_coll_core::topology::{Host, Topology, Wire};
use sohu_coll_core::{Collective, Rank};

/// Time of one call of `count` bytes on ranks that share memory, with a core each.
fn predicted_ns(name: &str, job: &Job, count: usize) -> f64 {
    let algorithm = sohu_coll_algorithms::by_name(name).expect("a known name");
    let programs: Vec<_> = (0..job.size).map(|rank| algorithm.program(job, Rank(rank))).collect();
    let passes: Vec<_> = programs.iter().map(fuse::fuse).collect();
    let extents: Vec<_> = programs.iter().map(|program| Extents::bind(program, count, 1)).collect();
    let wire = Wire { latency_ns: 60.0, bytes_per_ns: 100.0, lanes: 1 };
    let host = Host { cores: job.size, bytes_per_ns: 100.0, slice_ns: 20.0, switch_ns: 1500.0 };
    timeline(&passes, &extents, &Topology::uniform(job.size, wire, host), 32 << 10).total_ns
}

#[test]
fn every_plan_ends_and_more_bytes_take_longer() {
    for algorithm in sohu_coll_algorithms::all() {
        for collective in Collective::ALL {
            for size in [2, 3, 4, 5, 8, 13] {
                for in_place in [false, true] {
                    let job = Job { in_place, ..Job::new(collective, size) };
                    if !algorithm.fits(&job) {
                        continue;
                    }
                    let name = algorithm.name();
                    let at = |count| predicted_ns(name, &job, count);
                    assert_eq!(at(0), 0.0, "{name}, {job:?}");
                    let [few, some, many] = [1, 64 << 10, 1 << 20].map(at);
                    assert!(0.0 < few && few < some && some < many, "{name}, {job:?}: {few} {some} {many}");
                }
            }
        }
    }
}

#[test]
fn one_shot_wins_when_small_and_two_shot_when_large_with_more_than_two_ranks() {
    for size in [4, 8] {
        let job = Job::new(Collective::AllReduce, size);
        let small = ["one_shot", "two_shot", "ring"].map(|name| predicted_ns(name, &job, 8));
        assert!(small[0] < small[1] && small[0] < small[2], "{size} ranks: {small:?}");
        let large = ["one_shot", "two_shot"].map(|name| predicted_ns(name, &job, 4 << 20));
        assert!(large[1] < large[0], "{size} ranks: {large:?}");
    }
}
