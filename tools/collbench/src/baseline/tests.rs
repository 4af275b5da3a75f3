use super::*;
use crate::pattern::mix;
use serde_json::{Value, json};
use sohu_coll::{Collective, DType, ReduceOp};

/// A report of one row, with the rounds of both halves.
fn report(state: &str, halves: [&[f64]; 2]) -> Value {
    let half = |rounds: &[f64]| {
        let all: Vec<Value> = rounds.iter().map(|time| json!({ "med_us": time, "state": state })).collect();
        json!({ "med_us": rounds[rounds.len() / 2], "state": state, "rounds": all })
    };
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

/// Rounds around `center`, with a spread of `width`.
fn around(center: f64, width: f64) -> Vec<f64> {
    (0..8).map(|i| center + width * (f64::from(i) / 7.0 - 0.5)).collect()
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
    let [low, high] = slower.interval.expect("rounds have a spread");
    assert!((1.05..=1.1).contains(&low) && (1.1..1.15).contains(&high), "{low} {high}");
    // The same medians, but too much noise to be sure, and too little slowness.
    assert_eq!(compared(&around(10.0, 18.0), &around(11.0, 18.0), 5.0).slower, []);
    assert_eq!(compared(&narrow, &around(10.4, 0.2), 5.0).slower, []);
    assert_eq!(compared(&narrow, &narrow, 0.0).slower, []);
    assert_eq!(compared(&narrow, &around(9.0, 0.2), 0.0).slower, []);
}

/// A report of 20 sizes. The machine is slow now and then for some rounds of all rows, and rounds vary, as much as large
/// calls on a shared machine; calls of a MiB and more take `factor` times as long.
fn noisy(seed: u64, factor: f64) -> Measured {
    let mut drawn = mix(seed);
    let mut uniform = || {
        drawn = mix(drawn);
        (drawn >> 11) as f64 / (1u64 << 53) as f64
    };
    let slow: Vec<f64> = (0..12).map(|_| if uniform() < 0.1 { 1.5 } else { 1.0 }).collect();
    let mut rows = Vec::new();
    for power in 3..23 {
        let size = 1u64 << power;
        let time = (0.2 + size as f64 / 8e3) * if power >= 20 { factor } else { 1.0 };
        let rounds = |uniform: &mut dyn FnMut() -> f64| -> Vec<f64> {
            slow.iter()
                .map(|slow| time * slow * (1.0 + 0.1 * (uniform() + uniform() + uniform() - 1.5)))
                .collect()
        };
        let halves = [rounds(&mut uniform), rounds(&mut uniform)];
        let mut row = report("near", [&halves[0], &halves[1]])["results"][0].take();
        row["size"] = size.into();
        rows.push(row);
    }
    let mut whole = report("near", [&[1.0], &[1.0]]);
    whole["results"] = rows.into();
    measured(whole)
}

#[test]
fn a_run_compared_with_its_like_does_not_fail_and_one_a_fifth_slower_at_large_sizes_does() {
    let failures =
        (0..100).filter(|run| !compare(&noisy(0, 1.0), &noisy(1 + run, 1.0), 5.0).slower.is_empty());
    let failures = failures.count();
    assert!(failures <= 5, "{failures} of 100 fail that are as fast");
    let slower = (0..100).map(|run| compare(&noisy(200 + run, 1.0), &noisy(400 + run, 1.2), 5.0).slower);
    let slower: Vec<Vec<Slower>> = slower.collect();
    let seen = slower.iter().filter(|rows| !rows.is_empty()).count();
    assert!(seen >= 85, "{seen} of 100 fail that are a fifth slower");
    let small = slower.iter().flatten().filter(|row| row.call.size < 1 << 20).count();
    assert!(small <= 5, "{small} rows are told that are as fast");
}

#[test]
fn every_round_counts_in_its_own_state() {
    let mut before = report("near", [&around(10.0, 0.2), &around(10.0, 0.2)]);
    let mut now = before.clone();
    for (report, slow) in [(&mut before, 30.0), (&mut now, 40.0)] {
        let rounds = report["results"][0]["in_place"]["rounds"].as_array_mut().expect("rounds");
        rounds.extend(around(slow, 0.2).iter().map(|time| json!({ "med_us": time, "state": "far" })));
    }
    let result = compare(&measured(before), &measured(now), 5.0);
    assert_eq!(result.compared, 3);
    let states: Vec<&str> = result.slower.iter().map(|slower| slower.state.as_str()).collect();
    assert_eq!(states, ["far"]);
}

#[test]
fn a_run_that_was_not_measured_in_rounds_is_as_sure_as_its_single_calls() {
    let run = |times: &[f64]| {
        let mut report = report("near", [times, times]);
        for half in ["out_of_place", "in_place"] {
            report["results"][0][half].as_object_mut().expect("a half").remove("rounds");
        }
        measured(report)
    };
    let (calm, wild) = (around(10.0, 0.2), around(10.0, 16.0));
    assert_eq!(compare(&run(&calm), &run(&calm), 5.0).slower, []);
    assert_eq!(compare(&run(&calm), &run(&around(20.0, 0.2)), 5.0).slower.len(), 2);
    assert_eq!(compare(&run(&wild), &run(&around(20.0, 16.0)), 5.0).slower, []);
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
fn the_rounds_of_all_cycles_count_together() {
    let mut twice = report("near", [&[10.0], &[10.0]]);
    let second = report("near", [&[10.0], &[9.0, 30.0]])["results"][0].clone();
    twice["results"].as_array_mut().expect("rows").push(second);
    let measured = measured(twice);
    let rounds: Vec<&[f64]> = measured.times.values().map(|times| times.rounds.as_slice()).collect();
    assert_eq!(rounds, [&[10.0, 10.0][..], &[10.0, 9.0, 30.0]]);
}

#[test]
fn older_reports_with_every_single_time_tell_a_spread_too() {
    let mut older = report("near", [&[10.0], &[10.0]]);
    older["results"][0]["in_place_per_iter"] = json!({ "times_us": [30.0, 10.0, 20.0, 10.0] });
    let measured = measured(older);
    let in_place = measured.times.iter().find(|((call, _), _)| call.in_place).expect("both places");
    assert_eq!(in_place.1.spreads, [spread(&[10.0, 10.0, 20.0, 30.0]).expect("there are times")]);
}

#[test]
fn calls_without_an_in_place_form_have_one_measurement() {
    let mut apart = report("near", [&[10.0], &[10.0]]);
    for half in ["in_place", "in_place_per_iter"] {
        apart["results"][0].as_object_mut().expect("a row").remove(half);
    }
    assert_eq!(measured(apart).times.len(), 1);
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
