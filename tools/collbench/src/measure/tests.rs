use super::*;
use sohu_coll::{Collective, DType, ReduceOp};

#[test]
fn states_part_at_185_ns() {
    for (ns, name) in [(55.0, "near"), (184.9, "near"), (185.0, "far"), (290.0, "far"), (f64::NAN, "-")] {
        assert_eq!(state(ns), name);
    }
}

#[test]
fn rounds_share_all_calls_evenly() {
    for (count, rounds) in [(20, 8), (8, 8), (1, 1), (5, 2), (1_000_000, 7)] {
        let shares: Vec<u32> = (0..rounds).map(|round| Turn { round, rounds }.share(count)).collect();
        assert_eq!(shares.iter().sum::<u32>(), count);
        assert!(
            shares.iter().all(|share| (count / rounds..=count / rounds + 1).contains(share)),
            "{shares:?}"
        );
    }
    assert!(Turn { round: 0, rounds: 2 }.is_first() && !Turn { round: 0, rounds: 2 }.is_last());
    assert!(Turn { round: 0, rounds: 1 }.is_last());
}

fn round(time_us: f64, handover_ns: f64, strict_us: Option<f64>) -> Row {
    let explained = |name: &str| Explained {
        algorithm: name.into(),
        protocol: "line".into(),
        predicted_us: 1.0,
        outstanding_max: None,
    };
    let half = Half {
        wrong: Some(1),
        time_us,
        bulk_us: 2.0 * time_us,
        iterations_us: vec![time_us, time_us + 1.0],
        skipped: 1,
        handover_ns,
        limit_us: time_us / 2.0,
        explained: explained("ring"),
        rounds: vec![Round { med_us: time_us, handover_ns }],
        strict: strict_us.map(|strict| Strict {
            time_us: strict,
            med_us: strict,
            explained: explained("one_shot"),
            ratios: vec![[strict / time_us, 2.0 * strict / time_us]],
        }),
    };
    let shape = Shape::new((Collective::AllReduce, DType::F32, ReduceOp::Sum, 0), 2, 1024);
    Row { shape, halves: vec![half.clone(), half] }
}

#[test]
fn rounds_join_to_one_row_with_every_time_in_it() {
    let row = Row::joined(vec![round(1.0, 50.0, None), round(4.0, 300.0, None), round(1.0, 60.0, None)]);
    let half = &row.halves[1];
    assert_eq!((half.time_us, half.bulk_us, half.skipped, half.wrong), (2.0, 4.0, 3, Some(3)));
    assert_eq!(half.iterations_us, [1.0, 2.0, 4.0, 5.0, 1.0, 2.0]);
    let rounds: Vec<(f64, &str)> = half.rounds.iter().map(|b| (b.med_us, state(b.handover_ns))).collect();
    assert_eq!(rounds, [(1.0, "near"), (4.0, "far"), (1.0, "near")]);
    assert_eq!(half.limit_us, 0.5);
    // One far moment does not make the row far.
    assert_eq!((row.halves.len(), row.state()), (2, "near"));
}

#[test]
fn the_cost_of_reproducible_results_is_that_of_the_middle_round() {
    let rounds = [(1.0, 1.2), (1.0, 9.0), (10.0, 11.0)];
    let row = Row::joined(rounds.map(|(free, strict)| round(free, 50.0, Some(strict))).into());
    let strict = row.halves[0].strict.as_ref().expect("it was measured");
    assert_eq!((strict.cost(), strict.cost_single()), (1.2, 2.4));
    assert_eq!((strict.time_us, strict.med_us), (21.2 / 3.0, 9.0));
    assert_eq!(strict.explained.algorithm, "one_shot");
}
