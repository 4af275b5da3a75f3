use super::*;
use crate::cli::{Cli, Work};
use clap::Parser;

fn flags(line: &str) -> (Collective, Box<Flags>) {
    match Cli::try_parse_from(line.split_whitespace()).expect(line).task.work() {
        Work::Sweep(collective, flags) => (collective, flags),
        Work::Limits(_) | Work::Report(_) | Work::Ragged(_) | Work::Ring(_) => {
            unreachable!("the line names a collective")
        }
    }
}

fn refusal(line: &str) -> String {
    let (collective, flags) = flags(line);
    let failure = Plan::new(collective, &flags).expect_err(line);
    assert_eq!(failure.code(), 2, "{line}");
    failure.to_string()
}

fn count(line: &str, ranks: u32) -> usize {
    let (collective, flags) = flags(line);
    Plan::new(collective, &flags).expect(line).shapes(ranks).len()
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    for (line, why) in [
        ("bench all_reduce -b 2", "size 2 is below one float element (4 bytes); give -b 4 or more"),
        ("bench all_reduce -b 0", "size 0 is below one float element (4 bytes); give -b 4 or more"),
        ("bench all_reduce -b 2 -d all", "size 2 is below one uint64 element (8 bytes); give -b 8 or more"),
        ("bench all_reduce -b 2K -e 1K", "-b 2048 is more than -e 1024; the smallest size comes first"),
        (
            "bench all_reduce -b 8 -e 16 -i 0",
            "-i 0 never gets from -b to -e; give -i 1M, or -f 2 to multiply",
        ),
        (
            "bench all_reduce -b 8 -e 1G -i 1",
            "-b, -e and -i make more than 100000 sizes; give -f 2, or a greater -i",
        ),
        (
            "bench all_reduce --baseline old.json -N 0",
            "--baseline compares when all is measured, which -N 0 never is; give -N 1 or more",
        ),
        (
            "bench all_reduce -n 5 -K 5",
            "-K 5 leaves none of the 5 iterations of -n; give -K less, or -n more",
        ),
        (
            "bench all_reduce -n 5 --rounds 6",
            "--rounds 6 can not share the 5 iterations of -n; give --rounds 5 or less",
        ),
        (
            "bench gather --reproducible",
            "--reproducible makes no difference to gather, which folds nothing; it does to all_reduce, reduce_scatter and reduce",
        ),
        ("bench broadcast --ranks 2 -r 2", "root 2 is not a rank of a job of 2; ranks are 0..2"),
    ] {
        let told = refusal(line);
        assert!(told == why || line.contains("-d all") && told.contains("is below one"), "{line}: {told}");
    }
}

#[test]
fn the_default_is_one_size_and_a_smallest_size_moves_the_greatest() {
    assert_eq!(count("bench all_reduce", 2), 1);
    assert_eq!(count("bench all_reduce -b 64M", 2), 1);
    assert_eq!(count("bench all_reduce -b 30M", 2), 3);
}

#[test]
fn all_means_every_type_operation_and_root() {
    assert_eq!(count("bench all_reduce -b 8 -e 8 -d all -o all", 3), 12 * 6);
    assert_eq!(count("bench all_gather -b 8 -e 8 -d all -o all", 3), 12);
    assert_eq!(count("bench broadcast -b 8 -e 32 -f 2 -r all", 3), 9);
    assert_eq!(count("bench all_reduce -b 8 -e 8 -r all", 3), 1);
    assert_eq!(count("bench reduce -b 8 -e 8 -d all -o all -r all", 3), 12 * 6 * 3);
    assert_eq!(count("bench scatter -b 8 -e 8 -o all -r all", 3), 3);
    assert_eq!(count("bench all_to_all -b 8 -e 8 -o all -r all", 3), 1);
}

#[test]
fn rows_have_rounds_where_runs_or_settings_are_compared() {
    for (line, rounds) in [
        ("bench all_reduce", 1),
        ("bench all_reduce -n 20", 1),
        ("bench all_reduce --reproducible", 12),
        ("bench all_reduce -J x.json", 12),
        ("bench all_reduce -J x.json -n 20", 12),
        ("bench all_reduce -J x.json -n 3", 3),
        ("bench all_reduce -J x.json -K 1", 1),
        ("bench all_reduce -J x.json --rounds 2", 2),
        ("bench all_reduce --rounds 5", 5),
    ] {
        let (collective, flags) = flags(line);
        assert_eq!(Plan::new(collective, &flags).expect(line).rounds(), rounds, "{line}");
    }
}
