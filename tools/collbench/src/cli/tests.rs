use super::*;

fn parse(line: &str) -> Result<Task, clap::Error> {
    let given = line.split_whitespace().map(OsString::from).collect();
    Cli::try_parse_from(arguments(given)).map(|cli| cli.task)
}

fn sweep(line: &str) -> (Collective, Box<Flags>) {
    match parse(line).expect(line).work() {
        Work::Sweep(collective, flags) => (collective, flags),
        Work::Limits(_) | Work::Report(_) | Work::Ragged(_) | Work::Ring(_) => {
            panic!("{line} is no collective")
        }
    }
}

fn flags(line: &str) -> Box<Flags> {
    sweep(line).1
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn defaults_are_those_of_nccl_tests() {
    let flags = flags("sohu-collbench all_reduce");
    assert_eq!((flags.min, flags.max, flags.step, flags.factor), (32 << 20, None, 1 << 20, None));
    assert_eq!((flags.average, flags.check, flags.cycles, flags.register), (1, 1, 1, 0));
    assert_eq!((flags.op, flags.dtype), (Choice::One(ReduceOp::Sum), Choice::One(DType::F32)));
    assert_eq!((flags.root, flags.iters, flags.warmup), (Choice::One(0), None, None));
    assert_eq!((flags.aggregate, flags.blocking), (1, 0));
}

#[test]
fn letters_of_nccl_tests_mean_what_they_mean_there() {
    let flags = flags(
        "sohu-collbench broadcast -b 8 -e 128M -f 2 -n 20 -w 5 -c 1 -d half -o max -r 1 -t 1 -g 1 -a 3 -T 60 -u 3 -m 4 \
         -N 2 -I 1 -R 1 -z 1 -J out.json",
    );
    assert_eq!((flags.min, flags.max, flags.factor), (8, Some(128 << 20), Some(2)));
    assert_eq!((flags.iters, flags.warmup, flags.average, flags.unalign), (Some(20), Some(5), 3, 3));
    assert_eq!((flags.dtype, flags.op), (Choice::One(DType::F16), Choice::One(ReduceOp::Max)));
    assert_eq!((flags.root, flags.cycles, flags.per_iter, flags.register), (Choice::One(1), 2, 1, 1));
    assert_eq!((flags.aggregate, flags.blocking), (4, 1));
    assert_eq!(flags.common.timeout, Some(Duration::from_secs(60)));
}

#[test]
fn per_iteration_times_need_no_value() {
    assert_eq!(flags("sohu-collbench all_reduce -I -n 5").per_iter, 1);
}

#[test]
fn the_programs_name_gives_the_collective() {
    for (line, collective) in [
        ("all_reduce_perf -b 8", Collective::AllReduce),
        ("/usr/bin/reduce_scatter_perf -b 8", Collective::ReduceScatter),
        ("./all_gather_perf", Collective::AllGather),
        ("broadcast_perf --ranks 2", Collective::Broadcast),
        ("sohu-collbench allreduce", Collective::AllReduce),
        ("sohu-collbench all_gather_perf", Collective::AllGather),
        ("sohu-collbench bcast", Collective::Broadcast),
        ("reduce_perf", Collective::Reduce),
        ("gather_perf", Collective::Gather),
        ("scatter_perf", Collective::Scatter),
        ("alltoall_perf -b 8", Collective::AllToAll),
        ("sohu-collbench alltoall", Collective::AllToAll),
        ("sohu-collbench alltoall_perf", Collective::AllToAll),
    ] {
        assert_eq!(sweep(line).0, collective, "{line}");
    }
}

#[test]
fn every_collective_has_its_own_name_and_that_of_nccl_tests() {
    for collective in Collective::ALL {
        assert_eq!(sweep(&format!("sohu-collbench {collective}")).0, collective);
        assert_eq!(sweep(&format!("sohu-collbench {collective}_perf")).0, collective);
        assert_eq!(sweep(&format!("{collective}_perf")).0, collective);
    }
}

#[test]
fn the_all_to_all_with_blocks_of_any_lengths_has_a_spread_or_a_matrix() {
    for line in
        ["alltoallv_perf -b 8", "sohu-collbench alltoallv", "sohu-collbench all_to_all_v --spread distance:1"]
    {
        let Work::Ragged(flags) = parse(line).expect(line).work() else { panic!("{line}") };
        assert_eq!((flags.spread, flags.seed, flags.exact), (Spread::Distance(1.0), 1, false));
    }
    let line = "sohu-collbench alltoallv --matrix x.txt --exact -d half";
    let Work::Ragged(flags) = parse(line).expect(line).work() else { panic!("{line}") };
    assert!(flags.exact && flags.matrix == Some("x.txt".into()));
    for line in ["--matrix x --spread hot:1", "--exact", "--spread warm:1"] {
        assert!(parse(&format!("sohu-collbench alltoallv {line}")).is_err(), "{line}");
    }
}

#[test]
fn messages_have_the_flags_of_any_collective() {
    for line in ["sendrecv_perf -b 8", "sohu-collbench sendrecv -b 8", "sohu-collbench sendrecv_perf -b 8"] {
        let Work::Ring(flags) = parse(line).expect(line).work() else { panic!("{line}") };
        assert_eq!(flags.min, 8);
    }
}

#[test]
fn the_flags_that_readme_explains_are_there() {
    use clap::CommandFactory;
    let command = Cli::command();
    let readme = include_str!("../../../../README.md");
    let row = |line: &'static str| line.strip_prefix("| `-").and_then(|line| line.split_once(" | "));
    let cells: Vec<String> = readme.lines().filter_map(row).map(|(cell, _)| format!("-{cell}")).collect();
    let explained: Vec<&str> =
        cells.iter().flat_map(|cell| cell.split(['`', ' '])).filter(|word| word.starts_with('-')).collect();
    assert!(explained.len() >= 15, "{explained:?}");
    // It has all flags that any other has.
    let ragged = command.find_subcommand("alltoallv").expect("a collective");
    for word in explained {
        let known = ragged.get_arguments().any(|flag| match word.strip_prefix("--") {
            Some(long) => flag.get_long() == Some(long),
            None => flag.get_short().is_some_and(|short| word == format!("-{short}")),
        });
        assert!(known, "{word}");
    }
}

#[test]
fn what_is_not_known_exits_with_2_and_a_suggestion() {
    for (line, why) in [
        ("sohu-collbench all_redcue", "all_reduce"),
        ("hypercube_perf -b 8", "unrecognized subcommand 'hypercube_perf'"),
        ("sohu-collbench all_reduce --rank 2", "--ranks"),
        ("sohu-collbench all_reduce -d flaot", "did you mean float?"),
        ("sohu-collbench all_reduce -o summ", "did you mean sum?"),
        ("sohu-collbench all_reduce -b 8X", "sizes are 8, 64K, 1M, 1G"),
        (
            "sohu-collbench all_reduce -t 2",
            "only 1 is supported: a process is one rank; start more with --ranks",
        ),
        (
            "sohu-collbench all_reduce -g 4",
            "only 1 is supported: a process is one rank; start more with --ranks",
        ),
        ("sohu-collbench all_reduce -m 0", "1..=1000000"),
        ("sohu-collbench all_reduce -z 2", "only 0 and 1 are supported"),
        ("sohu-collbench all_reduce -V 8", "only 16 is supported: there is no device"),
        ("sohu-collbench all_reduce --fail-on 5%", "--baseline"),
        ("sohu-collbench all_reduce --baseline x --fail-on much", "a percentage is a number as 5%"),
        ("sohu-collbench all_reduce -G 1", "there is no graph to launch"),
        ("sohu-collbench all_reduce -f 1", "2.."),
        ("sohu-collbench all_reduce -n 0", "1..=1000000"),
        ("sohu-collbench all_reduce -a 4", "0..=3"),
        ("sohu-collbench all_reduce -R 2", "0..=1"),
        ("sohu-collbench all_reduce --ranks 0", "1..=1024"),
        ("sohu-collbench all_reduce --transport rdma", "shm"),
        ("sohu-collbench all_reduce --budget 0", "a number of seconds"),
        (
            "sohu-collbench all_reduce -T soon",
            "is no time; write 30 or 2.5 for seconds, or 500ms, 2.5s, 2m or 1h",
        ),
        ("sohu-collbench all_reduce 8", "unexpected argument"),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(why), "{line}: {error}");
    }
}
