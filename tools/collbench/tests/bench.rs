//! `sohu-collbench` as a user meets it: the table, exit codes, signals, and that no process is left.

#[path = "bench/ends.rs"]
mod ends;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const BENCH: &str = env!("CARGO_BIN_EXE_sohu-collbench");

/// Two ranks, and as little measuring as there can be.
const QUICK: [&str; 8] = ["--ranks", "2", "-n", "2", "-w", "1", "--timeout", "60"];

fn bench(arguments: &[&str]) -> Output {
    Command::new(BENCH).args(arguments).stdin(Stdio::null()).output().expect("the bench starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The rows of a table: every line that is no comment, in words.
fn rows(ended: &Output) -> Vec<Vec<String>> {
    assert_eq!(ended.status.code(), Some(0), "{}{}", text(&ended.stdout), text(&ended.stderr));
    let table = text(&ended.stdout);
    let lines = table.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// Both `#wrong` columns of a row of nccl-tests' table.
fn wrong(row: &[String]) -> [&str; 2] {
    assert!(row.len() >= 13, "a row has 13 columns: {row:?}");
    [&row[8], &row[12]]
}

#[test]
fn the_table_has_a_row_for_each_size_and_nothing_is_wrong() {
    for transport in ["shm", "tcp"] {
        let ended = bench(
            &[&["all_reduce", "-b", "8", "-e", "64K", "-f", "8", "--transport", transport], &QUICK[..]]
                .concat(),
        );
        let rows = rows(&ended);
        let sizes: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(sizes, ["8", "64", "512", "4096", "32768"], "{}", text(&ended.stdout));
        for row in &rows {
            assert_eq!(wrong(row), ["0", "0"], "{row:?}");
            assert_eq!(row[2..4], ["float", "sum"], "{row:?}");
        }
    }
}

#[test]
fn an_algorithm_of_the_environment_is_for_what_is_measured_alone() {
    // `bruck` does none of the sums and barriers that the bench itself needs; and blocks of any lengths know one way.
    for (collective, algorithm) in [("alltoall", "bruck"), ("alltoallv", "ring")] {
        let mut command = Command::new(BENCH);
        command.args([&[collective, "-b", "1K", "-e", "1K"], &QUICK[..]].concat());
        let ended = command.env("SOHU_COLL_ALGO", algorithm).stdin(Stdio::null()).output();
        let rows = rows(&ended.expect("the bench starts"));
        assert_eq!(rows[0][8], "0", "{rows:?}");
    }
}

const COLLECTIVES: [&str; 8] =
    ["all_reduce", "reduce_scatter", "all_gather", "broadcast", "reduce", "gather", "scatter", "all_to_all"];

#[test]
fn every_collective_type_and_operation_is_measured_and_right() {
    for collective in COLLECTIVES {
        let ended =
            bench(&[&[collective, "-b", "1K", "-e", "1K", "-d", "all", "-o", "all"], &QUICK[..]].concat());
        let rows = rows(&ended);
        let operations = if collective.contains("reduce") { 6 } else { 1 };
        assert_eq!(rows.len(), 12 * operations, "{}", text(&ended.stdout));
        assert!(rows.iter().all(|row| wrong(row) == ["0", "0"]), "{}", text(&ended.stdout));
    }
}

#[test]
fn every_root_in_turn_is_measured_and_right() {
    let flags = ["-b", "12", "-e", "300000", "-f", "9", "-r", "all", "-n", "1", "-w", "0", "--ranks", "3"];
    for (collective, transport) in
        [("broadcast", "shm"), ("reduce", "shm"), ("gather", "shm"), ("scatter", "shm"), ("reduce", "tcp")]
    {
        let ended = bench(&[&[collective, "--transport", transport], &flags[..]].concat());
        let rows = rows(&ended);
        assert_eq!(rows.len(), 3 * 5, "{}", text(&ended.stdout));
        let roots: Vec<&str> = rows.iter().step_by(5).map(|row| row[4].as_str()).collect();
        assert_eq!(roots, ["0", "1", "2"], "{}", text(&ended.stdout));
        assert!(rows.iter().all(|row| wrong(row) == ["0", "0"]), "{}", text(&ended.stdout));
    }
}

#[test]
fn sizes_and_counts_are_those_of_nccl_tests() {
    for (collective, count) in
        [("all_reduce", "256"), ("reduce", "256"), ("gather", "128"), ("alltoall_perf", "128")]
    {
        let ended = bench(&[&[collective, "-b", "1K", "-e", "1K"], &QUICK[..]].concat());
        assert_eq!(rows(&ended)[0][..2], ["1024", count], "{}", text(&ended.stdout));
        let name = if collective.contains("perf") { collective.into() } else { format!("{collective}_perf") };
        assert!(text(&ended.stdout).contains(&format!("# Collective test concluded: {name}\n")));
    }
}

#[test]
fn registered_buffers_and_odd_addresses_are_right_too() {
    for collective in COLLECTIVES {
        for flags in [["-R", "1"], ["-u", "3"]] {
            let sizes = [collective, "-b", "4", "-e", "1M", "-f", "64"];
            let ended = bench(&[&sizes[..], &flags, &QUICK[..]].concat());
            assert!(rows(&ended).iter().all(|row| wrong(row) == ["0", "0"]), "{}", text(&ended.stdout));
        }
    }
}

#[test]
fn more_ranks_than_cores_are_right() {
    for (collective, ranks) in [("all_reduce", "4"), ("reduce", "5"), ("gather", "3"), ("all_to_all", "3")] {
        let ended =
            bench(&[collective, "--ranks", ranks, "-b", "8", "-e", "64K", "-f", "32", "-n", "2", "-w", "1"]);
        assert!(rows(&ended).iter().all(|row| wrong(row) == ["0", "0"]), "{}", text(&ended.stdout));
    }
}

#[test]
fn a_wrong_command_line_exits_with_2_and_says_what_would_be_right() {
    for (arguments, told) in [
        (&["all_reduc", "--ranks", "2"][..], "all_reduce"),
        (&["all_reduce", "--rnaks", "2"], "--ranks"),
        (&["all_reduce", "--ranks", "2", "-d", "flaot"], "did you mean float?"),
        (&["all_reduce", "--ranks", "2", "-o", "summ"], "did you mean sum?"),
        (
            &["all_reduce", "--ranks", "2", "-b", "2", "-e", "2"],
            "size 2 is below one float element (4 bytes)",
        ),
        (&["all_reduce", "--ranks", "2", "-b", "64", "-e", "8"], "-b 64 is more than -e 8"),
        (&["all_reduce", "--ranks", "2", "-b", "8x"], "\"8x\" is no size"),
        (&["broadcast", "--ranks", "2", "-r", "2"], "root 2 is not a rank of a job of 2"),
        (
            &["broadcast", "--ranks", "2", "--reproducible"],
            "it does to all_reduce, reduce_scatter and reduce",
        ),
        (&["all_reduce", "--ranks", "2", "--transport", "shn"], "'shm'"),
        (&["all_reduce", "-b", "8"], "add --ranks 2"),
        (&["alltoallv", "--ranks", "2", "--spread", "zip:1"], "spreads are zipf:1.2"),
        (&["sendrecv", "--ranks", "2", "--algo", "ring"], "--algo makes no difference to sendrecv"),
        (&["alltoallv", "--ranks", "2", "--spread", "hot:3"], "hot:3 is more ranks than the job's 2"),
        (&["alltoallv", "--ranks", "2", "--matrix", "/no/such/file"], "--matrix /no/such/file: No such file"),
    ] {
        let ended = bench(arguments);
        let errors = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(told), "{arguments:?}: {errors}");
        assert!(ended.stdout.is_empty(), "{arguments:?}: {}", text(&ended.stdout));
    }
}

#[test]
fn what_reproducible_results_cost_is_in_the_table_and_in_the_report() {
    let report = Report::path("reproducible");
    let flags = ["--ranks", "4", "--reproducible", "-b", "8", "-e", "64K", "-f", "64", "-n", "8", "-w", "1"];
    for more in
        [&["all_reduce"][..], &["reduce_scatter", "-R", "1"], &["reduce", "--algo", "binomial,one_shot"]]
    {
        let ended = bench(&[more, &flags, &["-J", report.text()]].concat());
        for row in rows(&ended) {
            let [free, strict, cost] =
                [row[5].as_str(), &row[9], &row[10]].map(|n| n.parse::<f64>().expect("a number"));
            assert!(free > 0.0 && strict > 0.0 && cost > 0.0, "{row:?}");
            assert_eq!((row[8].as_str(), row[14].as_str()), ("0", "0"), "{row:?}");
        }
        let written = fs::read(&report.0).expect("the report is there");
        fs::remove_file(&report.0).expect("the report is ours");
        let value: serde_json::Value = serde_json::from_slice(&written).expect("it is JSON");
        let told = &value["results"][0]["in_place"]["reproducible"];
        assert_eq!(told["costs"].as_array().map(Vec::len), Some(8), "{told}");
        assert_eq!(told["algorithm"], "one_shot", "{more:?}: {told}");
    }
}

#[test]
fn an_algorithm_that_is_not_there_is_refused_with_those_that_are() {
    let ended = bench(&[&["all_reduce", "-b", "8", "-e", "8", "--algo", "rign"], &QUICK[..]].concat());
    let errors = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{errors}");
    assert!(errors.contains("rign") && errors.contains("ring"), "{errors}");
}

#[test]
fn every_json_line_says_what_it_measured() {
    let ended = bench(&[&["all_reduce", "-b", "8", "-e", "16", "-f", "2", "--jsonl"], &QUICK[..]].concat());
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    let lines = text(&ended.stdout);
    let sizes: Vec<u64> = lines
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).expect("a line is a JSON value");
            assert_eq!((&value["ranks"], &value["wrong"]), (&2.into(), &0.into()), "{line}");
            // The near or far state of the cores, without which no two rows can be compared.
            assert!(value["pp_ns"].as_f64().is_some_and(|nanoseconds| nanoseconds > 0.0), "{line}");
            value["size"].as_u64().expect("bytes")
        })
        .collect();
    assert_eq!(sizes, [8, 16]);
}

#[test]
fn the_report_is_a_json_value_with_every_row() {
    let folder = std::env::temp_dir().join(format!("sohu-collbench-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder for one file");
    let file = folder.join("report.json");
    let path = file.to_str().expect("the folder of temporary files has a name in text");
    let ended = bench(&[&["all_reduce", "-b", "8", "-e", "64", "-f", "8", "-J", path], &QUICK[..]].concat());
    let written = fs::read_to_string(&file);
    fs::remove_dir_all(&folder).expect("the folder is ours");
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    let report: serde_json::Value =
        serde_json::from_str(&written.expect("the report is there")).expect("it is JSON");
    assert_eq!(report["results"].as_array().map(Vec::len), Some(2), "{report}");
}

/// The report of a run as a file of its own, gone when dropped.
struct Report(PathBuf);

impl Report {
    /// `name` tells the reports of this process apart.
    fn path(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("sohu-collbench-{}-{name}.json", std::process::id())))
    }

    /// Measured with `flags`, with every time in it multiplied by `factor`.
    fn measured(name: &str, flags: &[&str], factor: f64) -> Self {
        let report = Self::path(name);
        let ended = bench(&[flags, &["-J", report.text()]].concat());
        assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
        let written = fs::read(&report.0).expect("the report is there");
        let mut value: serde_json::Value = serde_json::from_slice(&written).expect("it is JSON");
        for entry in value["results"].as_array_mut().expect("rows") {
            for half in ["out_of_place", "in_place"] {
                let median = entry[half]["med_us"].as_f64().expect("a time");
                entry[half]["med_us"] = (median * factor).into();
                for round in entry[half]["rounds"].as_array_mut().expect("rounds") {
                    round["med_us"] = (round["med_us"].as_f64().expect("a time") * factor).into();
                }
                let singles =
                    entry[format!("{half}_per_iter")]["quantiles_us"].as_array_mut().expect("times");
                singles.iter_mut().for_each(|time| *time = (time.as_f64().expect("a time") * factor).into());
            }
        }
        fs::write(&report.0, value.to_string()).expect("it can be written");
        report
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("the folder of temporary files has a name in text")
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Over TCP no state of the cores parts the rows.
const COMPARED: [&str; 9] = ["all_to_all", "-b", "1K", "-e", "2K", "-f", "2", "--transport", "tcp"];

#[test]
fn a_run_slower_than_its_baseline_exits_with_3_and_names_each_row() {
    let flags = [&COMPARED[..], &["--ranks", "2", "-n", "24", "-w", "1", "--timeout", "60"]].concat();
    let before = Report::measured("faster", &flags, 1e-6);
    let compared = [&flags[..], &["--baseline", before.text(), "--fail-on", "10%"]].concat();
    let ended = bench(&compared);
    let table = text(&ended.stdout);
    assert_eq!(ended.status.code(), Some(3), "{table}{}", text(&ended.stderr));
    for call in ["size 1024 out of place", "size 2048 in place"] {
        assert!(table.contains(&format!("# slower: alltoall_perf float none root -1 {call}")), "{table}");
    }
    assert!(table.contains("4 measurements compared, 4 slower;"), "{table}");
    // The lines for programs stay alone on standard output.
    let lines = bench(&[&compared[..], &["--jsonl"]].concat());
    assert_eq!(lines.status.code(), Some(3), "{}", text(&lines.stderr));
    assert!(text(&lines.stdout).lines().all(|line| line.starts_with('{')), "{}", text(&lines.stdout));
    assert!(text(&lines.stderr).contains("slower: "), "{}", text(&lines.stderr));
}

#[test]
fn a_run_faster_than_its_baseline_exits_with_0() {
    let flags = [&COMPARED[..], &QUICK].concat();
    let before = Report::measured("slower", &flags, 1e6);
    let ended = bench(&[&flags[..], &["--baseline", before.text()]].concat());
    let table = text(&ended.stdout);
    assert_eq!(ended.status.code(), Some(0), "{table}{}", text(&ended.stderr));
    assert!(table.contains("4 measurements compared, 0 slower;"), "{table}");
}

#[test]
fn a_baseline_that_can_not_be_compared_with_exits_with_2_and_says_why() {
    let flags = [&COMPARED[..], &QUICK].concat();
    let other = Report::measured("other", &flags, 1.0);
    let broken = Report::path("broken");
    fs::write(&broken.0, "{\"results\":[]}").expect("it can be written");
    let absent = Report::path("absent");
    for (path, more, told) in [
        (absent.text(), &[][..], "No such file"),
        (broken.text(), &[], "this is no report of sohu-collbench -J: missing field `config`"),
        (
            other.text(),
            &["-m", "2"],
            "was measured with 2 ranks over tcp, private buffers, -m 1, -u 0; this run",
        ),
        (other.text(), &["-d", "half"], "has no row of this run"),
    ] {
        let ended = bench(&[&flags[..], &["--baseline", path], more].concat());
        let errors = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{more:?}: {errors}");
        assert!(errors.contains(told), "{more:?}: {errors}");
        assert!(ended.stdout.is_empty(), "{more:?}: {}", text(&ended.stdout));
    }
}

#[test]
fn blocks_of_any_lengths_are_measured_and_right() {
    let matrix = Report::path("matrix");
    fs::write(&matrix.0, "# who gives whom\n0, 7, 0\n0, 0, 0\n1, 1, 30\n").expect("it can be written");
    let flags = ["--ranks", "3", "-b", "12", "-e", "1M", "-f", "97", "-n", "2", "-w", "1"];
    for more in [
        &["alltoallv", "--spread", "zipf:1.2"][..],
        &["alltoallv", "--spread", "uniform:0.5", "-d", "double", "-u", "1"],
        &["alltoallv_perf", "--spread", "hot:1", "--seed", "5", "-R", "1"],
        &["alltoallv", "--matrix", matrix.text(), "--transport", "tcp"],
        &["alltoallv"],
    ] {
        let ended = bench(&[more, &flags].concat());
        let rows = rows(&ended);
        assert_eq!(rows.len(), 3, "{}", text(&ended.stdout));
        assert!(rows.iter().all(|row| wrong(row) == ["0", "N/A"]), "{}", text(&ended.stdout));
        assert!(text(&ended.stdout).contains("# Collective test concluded: alltoallv_perf\n"));
    }
    // Where each rank gives another as much as it gets from it, the call is made in place too.
    fs::write(&matrix.0, "2 7 0\n7 0 1\n0 1 3\n").expect("it can be written");
    for more in [
        &["alltoallv", "--exact", "--matrix", matrix.text()][..],
        &["alltoallv", "--exact", "--matrix", matrix.text(), "-R", "1", "-d", "double", "-c", "2"],
    ] {
        let ended = bench(&[more, &flags].concat());
        assert_eq!(wrong(&rows(&ended)[0]), ["0", "0"], "{}", text(&ended.stdout));
    }
    fs::write(&matrix.0, "# who gives whom\n0, 7, 0\n0, 0, 0\n1, 1, 30\n").expect("it can be written");
    let ended = bench(&[&["alltoallv", "--exact", "--matrix", matrix.text()], &flags[..]].concat());
    assert_eq!(rows(&ended)[0][..2], ["28", "0"], "rank 2 gives itself 7 elements: {}", text(&ended.stdout));
}

#[test]
fn several_calls_in_flight_are_measured_and_right() {
    let flags = ["--ranks", "3", "-b", "12", "-e", "1M", "-f", "97", "-n", "2", "-w", "1", "--overlap", "4"];
    for (more, in_place) in [
        (&["all_reduce"][..], "0"),
        (&["all_gather", "-R", "1"], "0"),
        (&["reduce", "--transport", "tcp", "-r", "2"], "0"),
        (&["reduce_scatter", "-o", "mulsum"], "0"),
        (&["alltoallv", "--spread", "distance:1"], "N/A"),
        (&["alltoallv", "--spread", "hot:3"], "0"),
        (&["sendrecv"], "N/A"),
        (&["sendrecv", "-R", "1"], "N/A"),
    ] {
        let ended = bench(&[more, &flags].concat());
        let rows = rows(&ended);
        assert_eq!(rows.len(), 3, "{}", text(&ended.stdout));
        assert!(rows.iter().all(|row| wrong(row) == ["0", in_place]), "{}", text(&ended.stdout));
        assert!(text(&ended.stdout).contains("# 4 calls in flight at once"), "{}", text(&ended.stdout));
    }
}

#[test]
fn messages_are_right_from_each_rank_to_the_next() {
    for case in [
        &["sendrecv", "--ranks", "3"][..],
        &["sendrecv_perf", "--ranks", "2", "-R", "1", "-d", "half"],
        &["sendrecv", "--ranks", "1"],
        &["sendrecv", "--ranks", "4", "--transport", "tcp", "-u", "1", "-d", "double"],
    ] {
        let ended = bench(&[case, &["-b", "8", "-e", "200K", "-f", "25000", "-n", "3", "-w", "1"]].concat());
        assert!(ended.status.success(), "{}", text(&ended.stderr));
        let rows = rows(&ended);
        assert_eq!(rows.len(), 2, "{}", text(&ended.stdout));
        for row in &rows {
            assert_eq!(wrong(row), ["0", "N/A"], "{}", text(&ended.stdout));
            assert_eq!(row[6], row[7], "busbw is algbw: {}", text(&ended.stdout));
        }
        assert!(text(&ended.stdout).contains("# Collective test concluded: sendrecv_perf\n"));
    }
}

#[test]
fn a_page_is_drawn_of_this_run_and_of_reports() {
    let (report, page) = (Report::path("drawn"), Report::path("page"));
    let flags =
        ["all_reduce", "-b", "8", "-e", "64", "-f", "8", "-J", report.text(), "--report", page.text()];
    rows(&bench(&[&flags[..], &QUICK].concat()));
    let points =
        |page: &Report| fs::read_to_string(&page.0).expect("text").matches("class=\"point\"").count();
    // Two rows, two halves, two charts.
    assert_eq!(points(&page), 8);
    let drawn = bench(&["report", page.text(), report.text(), report.text()]);
    assert_eq!(drawn.status.code(), Some(0), "{}", text(&drawn.stderr));
    assert_eq!(points(&page), 16);
}

#[test]
fn a_page_that_can_not_be_written_is_said_before_anything_is_measured() {
    let ended = bench(
        &[&["all_reduce", "-b", "8", "-e", "8", "--report", "/no/such/folder/page.html"], &QUICK[..]]
            .concat(),
    );
    let errors = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(5), "{errors}");
    assert!(errors.contains("no report can be written to /no/such/folder/page.html"), "{errors}");
    assert!(ended.stdout.is_empty(), "{}", text(&ended.stdout));
    let ended = bench(&["report", "/tmp/never.html", "/no/such/report.json"]);
    assert_eq!(ended.status.code(), Some(2), "{}", text(&ended.stderr));
    assert!(text(&ended.stderr).contains("/no/such/report.json: No such file"), "{}", text(&ended.stderr));
}

#[test]
fn aggregated_waiting_and_skipped_calls_are_told_in_the_report_and_right() {
    let report = Report::path("aggregated");
    let flags = ["reduce", "-b", "8", "-e", "8", "-m", "7", "-z", "1", "-K", "1", "-J", report.text()];
    let ended = bench(&[&flags[..], &QUICK].concat());
    assert_eq!(wrong(&rows(&ended)[0]), ["0", "0"]);
    assert!(text(&ended.stdout).contains(" iters: 2 agg iters: 7 validation: 1 "), "{}", text(&ended.stdout));
    let written = fs::read(&report.0).expect("the report is there");
    let value: serde_json::Value = serde_json::from_slice(&written).expect("it is JSON");
    let config = &value["config"];
    assert_eq!(
        (&config["aggregated_iterations"], &config["blocking_collectives"]),
        (&7.into(), &"true".into())
    );
    let row = &value["results"][0];
    assert_eq!(row["actual_iterations"], 2);
    let singles = &row["in_place_per_iter"];
    assert_eq!(singles["skipped_iterations"], 1);
    assert_eq!(singles["quantiles_us"].as_array().map(Vec::len), Some(1));
}

#[test]
fn limits_are_measured() {
    let ended = bench(&["limits", "--ranks", "2", "--seconds", "0.01"]);
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    let table = text(&ended.stdout);
    for word in ["copy_cached", "copy_nt", "add_cached", "cacheline_handover", "futex_wake"] {
        assert!(table.contains(word), "{word} is not in:\n{table}");
    }
}

#[test]
fn a_tuning_file_is_written_with_what_was_measured_and_can_be_used() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tuned-{}.txt", std::process::id()));
    let name = path.to_str().expect("a path that is text");
    let series = ["all_reduce", "-b", "8", "-e", "64", "-f", "8", "--ranks", "2", "--timeout", "60"];
    let measured = rows(&bench(&[&series[..], &["--tune", name, "--budget", "0.002"]].concat()));
    for size in ["8", "64"] {
        let of = |row: &&Vec<String>| row[0] == size;
        assert!(measured.iter().filter(of).any(|row| row.contains(&"ring".into())), "{measured:?}");
        assert_eq!(
            measured.iter().filter(of).filter(|row| row[2].starts_with('*')).count(),
            1,
            "{measured:?}"
        );
    }
    let table = fs::read_to_string(&path).expect("it was written");
    let lines: Vec<&str> = table.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines[0].starts_with("all_reduce 2 0.."), "{table}");
    let mut used = Command::new(BENCH);
    used.args(series).args(["-n", "2", "--explain"]).env("SOHU_COLL_TUNING_FILE", name);
    let used = used.stdin(Stdio::null()).output().expect("the bench starts");
    let algorithm = lines[0].split_whitespace().nth(5).expect("six columns");
    assert!(rows(&used)[0].iter().any(|word| word == algorithm), "{table}{}", text(&used.stdout));
    fs::write(&path, "all_reduce 2 * * * rings").expect("it can be written");
    let refused =
        Command::new(BENCH).args(series).env("SOHU_COLL_TUNING_FILE", name).output().expect("it starts");
    assert!(
        text(&refused.stderr).contains("line 1, column 20: names \"rings\""),
        "{}",
        text(&refused.stderr)
    );
    fs::remove_file(&path).expect("it is there");
}
