use super::*;
use serde_json::{Value, json};
use sohu_coll::{Collective, DType, ReduceOp};

/// A report of one row, with the single times of both halves.
fn report(state: &str, halves: [&[f64]; 2]) -> Value {
    let half = |singles: &[f64]| json!({ "med_us": singles[singles.len() / 2], "state": state });
    let [apart, in_place] = halves;
    json!({
        "config": {
            "transport": "shm",
            "ranks": 2,
            "registered": "false",
            "aggregated_iterations": 1,
        },
        "results": [{
            "experiment_name": "all_reduce_perf",
            "type": "float",
            "redop": "sum",
            "root": "    -1",
            "size": 1024,
            "out_of_place": half(apart),
            "out_of_place_per_iter": { "quantiles_us": apart },
            "in_place": half(in_place),
            "in_place_per_iter": { "quantiles_us": in_place },
        }],
    })
}

fn measured(report: Value) -> Measured {
    Measured::of(serde_json::from_value(report).expect("a report")).expect("positive times")
}

/// Times around `center`, with a spread of `width`.
fn around(center: f64, width: f64) -> Vec<f64> {
    (0..100).map(|i| center + width * (f64::from(i) / 99.0 - 0.5)).collect()
}

fn compared(before: &[f64], now: &[f64], percent: f64) -> Comparison {
    let (before, now) = (report("near", [before, before]), report("near", [now, before]));
    compare(&measured(before), &measured(now), percent)
}

#[test]
fn a_time_is_slower_when_even_the_low_end_of_the_interval_is() {
    let narrow = around(10.0, 0.2);
    let result = compared(&narrow, &around(11.0, 0.2), 5.0);
    assert_eq!((result.compared, result.slower.len()), (2, 1));
    let slower = &result.slower[0];
    assert!(!slower.call.in_place);
    let [low, high] = slower.interval.expect("both have single times");
    assert!((1.05..=1.1).contains(&low) && (1.1..1.12).contains(&high), "{low} {high}");
    // The same medians, but too much noise to be sure, and too little slowness.
    assert_eq!(compared(&around(10.0, 18.0), &around(11.0, 18.0), 5.0).slower, []);
    assert_eq!(compared(&narrow, &around(10.4, 0.2), 5.0).slower, []);
    assert_eq!(compared(&narrow, &narrow, 0.0).slower, []);
    assert_eq!(compared(&narrow, &around(9.0, 0.2), 0.0).slower, []);
}

#[test]
fn the_same_reports_give_the_same_interval() {
    let (old, new) = ([around(10.0, 5.0)], [around(12.0, 5.0)]);
    assert_eq!(interval(&old, &new), interval(&old, &new));
    assert_eq!(interval(&[vec![2.0]], &[vec![3.0]]), [1.5, 1.5]);
}

#[test]
fn what_differs_between_cycles_widens_the_interval() {
    let before = vec![around(10.0, 0.2); 4];
    let calm = vec![around(12.0, 0.2); 4];
    let restless = [9.0, 12.0, 12.0, 12.0].map(|center| around(center, 0.2));
    assert!(interval(&before, &calm)[0] > 1.15);
    assert!(interval(&before, &restless)[0] < 1.0);
}

#[test]
fn the_interval_holds_the_true_ratio_about_19_times_of_20() {
    // Samples of one distribution: the true ratio is 1.
    let sample = |seed: u64| {
        [(0..60).map(|i| 10.0 + (mix(seed << 16 | i) % 1000) as f64 / 100.0).collect::<Vec<f64>>()]
    };
    let holds = (0..200).filter(|&pair| {
        let [low, high] = interval(&sample(2 * pair), &sample(2 * pair + 1));
        low <= 1.0 && 1.0 <= high
    });
    let count = holds.count();
    assert!((180..=199).contains(&count), "{count} of 200");
}

#[test]
fn medians_are_compared_where_a_report_has_no_single_times() {
    let mut before = report("near", [&[10.0], &[10.0]]);
    for half in ["out_of_place_per_iter", "in_place_per_iter"] {
        before["results"][0][half] = json!({});
    }
    let now = measured(report("near", [&[10.4], &[10.6]]));
    let result = compare(&measured(before), &now, 5.0);
    let lines: Vec<String> = result.slower.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "slower: all_reduce_perf float sum root -1 size 1024 in place, near: 10.60 us, was 10.00 us: +6.0 % \
          (medians only)"
        ]
    );
}

#[test]
fn another_state_and_another_call_are_not_compared() {
    let now = measured(report("near", [&[99.0], &[99.0]]));
    let result = compare(&measured(report("far", [&[1.0], &[1.0]])), &now, 5.0);
    assert_eq!(result, Comparison { compared: 0, other_state: 2, missing: 0, slower: Vec::new() });
    let mut other = report("near", [&[1.0], &[1.0]]);
    other["results"][0]["size"] = 2048.into();
    let result = compare(&measured(other), &now, 5.0);
    assert_eq!(result, Comparison { compared: 0, other_state: 0, missing: 2, slower: Vec::new() });
    assert_eq!(
        result.to_string(),
        "0 measurements compared, 0 slower; 0 not, for another near or far state, 2 for no counterpart"
    );
}

#[test]
fn the_times_of_all_cycles_count_together() {
    let mut twice = report("near", [&[10.0], &[10.0]]);
    let mut second = twice["results"][0].clone();
    second["in_place_per_iter"]["quantiles_us"] = json!([9.0, 30.0]);
    twice["results"].as_array_mut().expect("rows").push(second);
    let measured = measured(twice);
    let singles: Vec<&[Vec<f64>]> = measured.times.values().map(|times| times.singles.as_slice()).collect();
    assert_eq!(singles, [[vec![10.0], vec![10.0]], [vec![10.0], vec![9.0, 30.0]]]);
}

#[test]
fn older_reports_with_every_single_time_have_single_times_too() {
    let mut older = report("near", [&[10.0], &[10.0]]);
    older["results"][0]["in_place_per_iter"] = json!({ "times_us": [3.0, 1.0, 2.0] });
    let measured = measured(older);
    let in_place = measured.times.iter().find(|((call, _), _)| call.in_place).expect("both places");
    assert_eq!(in_place.1.singles, [[1.0, 2.0, 3.0]]);
}

#[test]
fn times_that_are_not_positive_are_refused() {
    for times in [[0.0], [-1.0]] {
        let file = serde_json::from_value(report("near", [&[1.0], &times])).expect("a report");
        let why = Measured::of(file).expect_err("no time is zero");
        assert_eq!(
            why,
            "all_reduce_perf float sum root -1 size 1024 in place has times that are not positive"
        );
    }
}

#[test]
fn a_row_is_known_by_all_that_makes_its_call() {
    let before = measured(report("near", [&[1.0], &[1.0]]));
    let shape = |dtype, op, size| Shape::new((Collective::AllReduce, dtype, op, 0), 2, size);
    let known = |program: &str, shape: Shape| before.knows(program, &shape);
    assert!(known("all_reduce_perf", shape(DType::F32, ReduceOp::Sum, 1024)));
    assert!(!known("all_reduce_perf", shape(DType::F64, ReduceOp::Sum, 1024)));
    assert!(!known("all_reduce_perf", shape(DType::F32, ReduceOp::Max, 1024)));
    assert!(!known("all_reduce_perf", shape(DType::F32, ReduceOp::Sum, 2048)));
    assert!(!known("reduce_perf", shape(DType::F32, ReduceOp::Sum, 1024)));
}
