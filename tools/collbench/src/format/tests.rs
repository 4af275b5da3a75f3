//! The expected lines are those that nccl-tests 2.19.6 prints for the same numbers, trailing spaces included.

use super::*;
use crate::measure::Strict;
use sohu_coll::{Collective, DType, ReduceOp};

fn half(time_us: f64, wrong: Option<u64>) -> Half {
    Half {
        wrong,
        time_us,
        bulk_us: time_us,
        iterations_us: vec![1.0, 2.0, 3.0, 2.0],
        skipped: 0,
        handover_ns: 55.4,
        limit_us: time_us / 2.0,
        explained: Explained {
            algorithm: "one_shot".into(),
            protocol: "line".into(),
            predicted_us: 1.234,
            outstanding_max: None,
        },
        rounds: Vec::new(),
        strict: None,
    }
}

fn sample(collective: Collective) -> Row {
    let shape = Shape::new((collective, DType::F32, ReduceOp::Sum, 0), 2, 1 << 20);
    Row { shape, halves: vec![half(100.0, Some(0)), half(12_345_678.9, Some(3))] }
}

const PLAIN: Columns = Columns { per_iter: false, explain: false, strict: false };

#[test]
fn numbers_lose_decimals_before_they_lose_their_column() {
    for (value, width, text) in [
        (0.0, 7, "   0.00"),
        (9.876, 7, "   9.88"),
        (1234.56, 7, "1234.56"),
        (12_345.67, 7, "12345.7"),
        (123_456.7, 7, " 123457"),
        (1_234_567.0, 7, "1234567"),
        (12_345_678.0, 7, "1.2e+07"),
        (999.99, 6, "999.99"),
        (999.996, 6, "1000.0"),
        (99_999.0, 6, " 99999"),
        (1_234_567.0, 6, "1e+06"),
    ] {
        assert_eq!(number(value, width), text);
    }
}

#[test]
fn the_general_form_is_that_of_c() {
    for (value, text) in [
        (0.0, "0"),
        (1.0, "1"),
        (123.4, "123.4"),
        (1_234_567.0, "1.23457e+06"),
        (999_999.5, "1e+06"),
        (0.000_012_34, "1.234e-05"),
        (0.5, "0.5"),
        (100_000.0, "100000"),
        (f64::NAN, "nan"),
    ] {
        assert_eq!(general(value), text);
    }
}

#[test]
fn the_header_is_that_of_nccl_tests() {
    assert_eq!(
        header(PLAIN),
        "#\n\
         #                                                              out-of-place                       in-place          \n\
         #       size         count      type   redop    root     time   algbw   busbw  #wrong     time   algbw   busbw  #wrong \n\
         #        (B)    (elements)                               (us)  (GB/s)  (GB/s)             (us)  (GB/s)  (GB/s)         \n"
    );
}

#[test]
fn rows_are_those_of_nccl_tests() {
    assert_eq!(
        row(&sample(Collective::AllReduce), PLAIN),
        "     1048576        262144     float     sum      -1   100.00   10.49   10.49       0  1.2e+07    0.00    0.00       3\n"
    );
    assert_eq!(
        row(&sample(Collective::AllGather), PLAIN),
        "     1048576        131072     float    none      -1   100.00   10.49    5.24       0  1.2e+07    0.00    0.00       3\n"
    );
    assert_eq!(
        row(&sample(Collective::Broadcast), PLAIN),
        "     1048576        262144     float    none       0   100.00   10.49   10.49       0  1.2e+07    0.00    0.00       3\n"
    );
}

#[test]
fn a_row_that_was_not_checked_says_so() {
    let mut unchecked = sample(Collective::AllReduce);
    unchecked.halves[0].wrong = None;
    assert!(row(&unchecked, PLAIN).contains("   100.00   10.49   10.49     N/A  1.2e+07"));
}

#[test]
fn single_calls_follow_each_half() {
    let columns = Columns { per_iter: true, explain: false, strict: false };
    assert_eq!(
        row(&sample(Collective::AllReduce), columns),
        "     1048576        262144     float     sum      -1   100.00   10.49   10.49       0     1.00     3.00     3.00    35.36  \
         1.2e+07    0.00    0.00       3     1.00     3.00     3.00    35.36\n"
    );
    let header = header(columns);
    assert!(header.contains("#wrong    i_min    i_max    i_p99    i_cv%     time"), "{header}");
    assert!(header.contains("  out-of-place (+ per-iteration)    "), "{header}");
}

#[test]
fn explanations_come_last_and_under_their_names() {
    let columns = Columns { per_iter: false, explain: true, strict: false };
    let (header, row) = (header(columns), row(&sample(Collective::AllReduce), columns));
    assert!(
        row.ends_with("       3            one_shot      line       1.23      50      55   near\n"),
        "{row}"
    );
    let names = header.lines().nth(2).expect("a line of names");
    assert!(
        names.ends_with("#wrong                algo     proto      model  %limit    line  state"),
        "{names}"
    );
    assert_eq!(names.len(), row.trim_end().len());
    let mut bounded = sample(Collective::AllToAll);
    bounded.halves[0].explained.algorithm = "pairwise".into();
    bounded.halves[0].explained.outstanding_max = Some(8);
    let text = super::row(&bounded, columns);
    assert!(text.contains("     pairwise, 8 out      line"), "{text}");
}

#[test]
fn what_was_not_measured_is_a_dash() {
    let mut unknown = sample(Collective::AllReduce);
    for half in &mut unknown.halves {
        (half.handover_ns, half.limit_us) = (f64::NAN, f64::NAN);
    }
    let text = row(&unknown, Columns { per_iter: false, explain: true, strict: false });
    assert!(text.ends_with("      line       1.23       -       -      -\n"), "{text}");
}

#[test]
fn the_footer_is_that_of_nccl_tests() {
    assert_eq!(
        footer("all_reduce_perf", 0, 12.345_678),
        "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 12.3457 \n#\n\
         # Collective test concluded: all_reduce_perf\n#\n"
    );
    assert!(
        footer("x", 2, 0.0).starts_with("# Out of bounds values : 2 FAILED\n# Avg bus bandwidth    : 0 \n")
    );
}

#[test]
fn what_reproducible_results_cost_follows_each_half() {
    let columns = Columns { per_iter: false, explain: false, strict: true };
    let mut sample = sample(Collective::AllReduce);
    for half in &mut sample.halves {
        let explained = half.explained.clone();
        let ratios = vec![[1.25, 1.5], [1.0, 1.0], [1.5, 1.0]];
        half.strict = Some(Strict { time_us: 125.0, med_us: 120.0, explained, ratios });
    }
    let text = row(&sample, columns);
    assert!(text.contains("  100.00   10.49   10.49       0   125.00    1.25  1.2e+07"), "{text}");
    let header = header(columns);
    let names = header.lines().nth(2).expect("a line of names");
    assert!(names.contains("#wrong    repro    cost     time"), "{names}");
    assert_eq!(names.trim_end().len(), text.trim_end().len());
}

#[test]
fn a_form_that_a_call_does_not_have_is_not_available() {
    let mut sample = sample(Collective::AllToAll);
    sample.halves.truncate(1);
    for columns in [PLAIN, Columns { per_iter: true, ..PLAIN }] {
        let (text, header) = (row(&sample, columns), header(columns));
        assert!(text.contains("    N/A     N/A     N/A     N/A"), "{text}");
        assert_eq!(text.trim_end().len(), header.lines().nth(2).expect("names").trim_end().len(), "{text}");
    }
}
