use super::*;
use crate::geometry::Shape;
use crate::measure::{Explained, Round, Strict};
use crate::traffic::{Source, Spread};
use serde_json::Value;

fn half(handover_ns: f64) -> Half {
    Half {
        wrong: Some(0),
        time_us: 2.0,
        bulk_us: 2.5,
        iterations_us: vec![3.0, 1.0, 2.0],
        skipped: 1,
        handover_ns,
        limit_us: 0.5,
        explained: Explained {
            algorithm: "two_shot".into(),
            protocol: "staged".into(),
            predicted_us: 1.5,
            outstanding_max: None,
        },
        rounds: vec![Round { med_us: 2.0, handover_ns }],
        strict: None,
    }
}

fn row(handover_ns: f64) -> Row {
    let shape = Shape::new((Collective::AllReduce, DType::F32, ReduceOp::Sum, 0), 2, 1026);
    Row { shape, halves: vec![half(handover_ns), half(40.0)] }
}

fn entry(row: &Row, all_times: bool) -> Value {
    serde_json::to_value(Entry::of(row, "all_reduce_perf", all_times)).expect("an entry is JSON")
}

#[test]
fn a_row_has_the_keys_of_nccl_tests_and_ours() {
    let entry = entry(&row(60.0), false);
    for key in [
        "size",
        "count",
        "type",
        "redop",
        "root",
        "out_of_place",
        "in_place",
        "out_of_place_per_iter",
        "in_place_per_iter",
        "actual_iterations",
        "experiment_name",
        "handover_ns",
        "state",
        "algorithm",
        "protocol",
        "predicted_us",
        "limit_pct",
    ] {
        assert!(entry.get(key).is_some(), "{key}");
    }
    for key in ["time", "alg_bw", "bus_bw", "nwrong", "med_us", "min_us", "p99_us", "bulk_us"] {
        assert!(entry["in_place"].get(key).is_some(), "{key}");
    }
    for key in [
        "skipped_iterations",
        "min_us",
        "max_us",
        "avg_us",
        "p50_us",
        "p95_us",
        "p99_us",
        "stdev_us",
        "cv_pct",
        "quantiles_us",
    ] {
        assert!(entry["out_of_place_per_iter"].get(key).is_some(), "{key}");
    }
    assert_eq!(entry["root"], "    -1");
    assert_eq!((&entry["size"], &entry["state"]), (&Value::from(1024), &Value::from("near")));
    assert_eq!(entry["limit_pct"], 25.0);
    assert_eq!(
        (&entry["actual_iterations"], &entry["in_place_per_iter"]["skipped_iterations"]),
        (&4.into(), &1.into())
    );
}

#[test]
fn single_times_are_there_when_asked_for() {
    assert!(entry(&row(60.0), false)["in_place_per_iter"].get("times_us").is_none());
    assert_eq!(entry(&row(60.0), true)["in_place_per_iter"]["times_us"], serde_json::json!([3.0, 1.0, 2.0]));
}

#[test]
fn some_single_times_are_always_there_in_order() {
    let mut row = row(60.0);
    let kept = |row: &Row| entry(row, false)["in_place_per_iter"]["quantiles_us"].clone();
    assert_eq!(kept(&row), serde_json::json!([1.0, 2.0, 3.0]));
    row.halves[1].iterations_us = (0..5000).map(f64::from).collect();
    assert_eq!(kept(&row).as_array().map(Vec::len), Some(KEPT));
}

#[test]
fn a_number_that_is_none_is_the_text_nan() {
    let mut row = row(f64::NAN);
    row.halves[1].handover_ns = f64::NAN;
    let entry = entry(&row, false);
    assert_eq!((&entry["handover_ns"], &entry["state"]), (&Value::from("nan"), &Value::from("-")));
}

#[test]
fn a_line_has_the_keys_of_the_peers_benchmark() {
    let origin = Origin { peer: "sohu", mode: "shm", rep: 3 };
    assert_eq!(
        line(&row(59.6), origin),
        "{\"peer\":\"sohu\",\"mode\":\"shm\",\"coll\":\"allreduce\",\"ranks\":2,\"size\":1026,\"bytes\":1024,\"iters\":3,\
         \"min_us\":1.000,\"med_us\":2.000,\"p99_us\":3.000,\"bulk_us\":2.500,\"algbw\":0.5120,\"busbw\":0.5120,\
         \"wrong\":0,\"pp_ns\":60,\"rep\":3}"
    );
    assert!(line(&row(f64::NAN), origin).contains("\"pp_ns\":-1,"));
}

#[test]
fn a_line_of_a_broadcast_is_of_the_one_buffer_that_others_have() {
    let mut row = row(60.0);
    row.halves[1].bulk_us = 7.0;
    let origin = Origin { peer: "sohu", mode: "shm", rep: 3 };
    assert!(line(&row, origin).contains("\"bulk_us\":2.500"));
    row.shape.collective = Collective::Broadcast;
    assert!(line(&row, origin).contains("\"bulk_us\":7.000"));
}

#[test]
fn lines_of_messages_and_of_blocks_of_any_lengths_have_the_same_keys() {
    let origin = Origin { peer: "sohu", mode: "shm", rep: 3 };
    let keys = |row: &Row| {
        let line: Value = serde_json::from_str(&line(row, origin)).expect("a line is JSON");
        line.as_object().expect("of keys").keys().cloned().collect::<Vec<_>>()
    };
    let mut row = row(60.0);
    let expected = keys(&row);
    row.halves.truncate(1);
    // All of it to rank 0: that rank gets twice what each gives.
    let skewed = Source::Spread(Spread::First(1_000.0), 1).traffic(2, 1_024, 4);
    for (name, traffic) in [("sendrecv", Source::Ring.traffic(2, 1_024, 4)), ("alltoallv", skewed)] {
        row.shape = Shape::ragged(DType::F32, 2, 1_024, traffic);
        assert_eq!(keys(&row), expected);
        let factor = if name == "sendrecv" { 0.512 } else { 0.256 };
        let expected = format!("\"coll\":\"{name}\",\"ranks\":2,\"size\":1024,\"bytes\":1024,");
        let text = line(&row, origin);
        assert!(text.contains(&expected), "{text}");
        assert!(text.contains(&format!("\"algbw\":0.5120,\"busbw\":{factor:.4},")), "{text}");
    }
}

#[test]
fn lines_name_other_types_and_operations() {
    let mut row = row(60.0);
    row.shape.dtype = DType::Bf16;
    assert_eq!(short_name(&row), "allreduce_bf16");
    row.shape.op = ReduceOp::Max;
    row.shape.dtype = DType::F64;
    assert_eq!(short_name(&row), "allreduce_double_max");
    row.shape.collective = Collective::Broadcast;
    assert_eq!(short_name(&row), "bcast_double");
}

#[test]
fn an_earlier_report_is_not_overwritten() {
    let folder = std::env::temp_dir().join(format!("sohu-collbench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("out.json");
    let names: Vec<PathBuf> = (0..3).map(|_| create(&path).expect("a file").0).collect();
    assert_eq!(names, [path.clone(), folder.join("out.json.0"), folder.join("out.json.1")]);
    assert!(create(&folder.join("no/such/folder")).is_err());
    std::fs::remove_dir_all(&folder).expect("the folder goes");
}

#[test]
fn rounds_and_the_cost_of_reproducible_results_are_told_of_each_half() {
    let mut row = row(60.0);
    assert!(entry(&row, false)["in_place"].get("reproducible").is_none());
    let explained = row.halves[1].explained.clone();
    let ratios = vec![[1.5, 1.0], [1.25, 2.0], [2.0, 3.0]];
    row.halves[1].strict = Some(Strict { time_us: 3.0, med_us: 2.5, explained, ratios });
    let entry = entry(&row, false);
    let told = &entry["in_place"]["reproducible"];
    assert_eq!(
        (&told["time"], &told["med_us"], &told["algorithm"]),
        (&3.0.into(), &2.5.into(), &"two_shot".into())
    );
    assert_eq!((&told["cost"], &told["cost_single"]), (&1.5.into(), &2.0.into()));
    assert_eq!(told["costs"], serde_json::json!([1.5, 1.25, 2.0]));
    assert_eq!(entry["out_of_place"]["rounds"], serde_json::json!([{ "med_us": 2.0, "state": "near" }]));
}

#[test]
fn a_call_without_an_in_place_form_has_one_half() {
    let mut row = row(60.0);
    row.halves.truncate(1);
    let entry = entry(&row, false);
    assert!(entry.get("in_place").is_none() && entry.get("in_place_per_iter").is_none(), "{entry}");
    assert_eq!(entry["state"], "near");
}
