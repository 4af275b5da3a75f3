use super::*;
use crate::pattern::mix;

/// Numbers of a normal distribution, always the same for a seed.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 += 1;
        (mix(self.0) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// Rounds around a time: each varies by `width`, and one in `rare` takes much longer.
fn rounds(noise: &mut Noise, count: usize, time: f64, width: f64, rare: f64) -> Times {
    let round = |_| {
        let late = if noise.uniform() < rare { 2.0 + noise.uniform() } else { 1.0 };
        time * (width * noise.normal()).exp() * late
    };
    Times { rounds: (0..count).map(round).collect(), spreads: vec![0.02] }
}

#[test]
fn students_values_are_those_of_tables() {
    for (tail, freedom, value) in [
        (0.025, 1.0, 12.706),
        (0.025, 5.0, 2.571),
        (0.025, 14.0, 2.145),
        (0.001, 8.0, 4.501),
        (0.0005, 3.0, 12.924),
        (0.025, 1000.0, 1.962),
    ] {
        let found = student(tail, freedom);
        assert!((found / value - 1.0).abs() < 2e-3, "{tail} {freedom}: {found}, not {value}");
    }
}

#[test]
fn an_interval_holds_the_true_change_about_as_often_as_it_says() {
    for (count, width, rare) in
        [(8, 0.05, 0.0), (8, 0.3, 0.0), (12, 0.05, 0.1), (5, 0.1, 0.0), (3, 0.1, 0.0), (24, 0.1, 0.05)]
    {
        let mut noise = Noise(mix(count as u64));
        let holds = (0..2000).filter(|_| {
            let old = rounds(&mut noise, count, 10.0, width, rare);
            let new = rounds(&mut noise, count, 12.0, width, rare);
            let [low, high] = change(&old, &new, 0.0, 0.05).expect("rounds have a spread");
            (low..=high).contains(&1.2)
        });
        let part = holds.count() as f64 / 2000.0;
        assert!((0.92..=0.995).contains(&part), "{count} rounds, {width}, {rare}: {part}");
    }
}

#[test]
fn a_fifth_slower_is_seen_through_the_noise_of_rounds_and_nothing_is_seen_where_nothing_is() {
    // Forty rows are compared, and more than 5 % is too slow.
    let doubt = 0.05 / 40.0;
    let slower = |noise: &mut Noise, factor: f64, width: f64| {
        let old = rounds(noise, 12, 5000.0, width, 0.05);
        let new = rounds(noise, 12, 5000.0 * factor, width, 0.05);
        change(&old, &new, 0.0, doubt).expect("rounds have a spread")[0] > 1.05
    };
    let mut noise = Noise(5);
    let seen = (0..500).filter(|_| slower(&mut noise, 1.2, 0.03)).count();
    assert!(seen > 450, "{seen} of 500");
    for width in [0.01, 0.05, 0.3] {
        let wrong = (0..4000).filter(|_| slower(&mut noise, 1.0, width)).count();
        assert!(wrong <= 4, "{wrong} of 4000 at {width}");
    }
}

#[test]
fn a_round_that_was_disturbed_changes_little() {
    let calm = Times { rounds: vec![10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 10.1, 9.9], spreads: Vec::new() };
    let mut disturbed = calm.clone();
    disturbed.rounds[3] = 90.0;
    let [low, high] = change(&calm, &disturbed, 0.0, 0.05).expect("rounds have a spread");
    assert!(0.97 < low && high < 1.04, "{low} {high}");
}

#[test]
fn rounds_that_agree_by_chance_are_not_believed_beyond_what_others_show() {
    let [old, new] = [10.0, 12.0].map(|time| Times { rounds: vec![time; 8], spreads: Vec::new() });
    let [low, high] = change(&old, &new, 0.0, 0.05).expect("rounds have a spread");
    assert!((low - 1.2).abs() < 1e-9 && (high - 1.2).abs() < 1e-9, "{low} {high}");
    let [low, high] = change(&old, &new, 0.01, 0.05).expect("rounds have a spread");
    assert!(low < 1.1 && high > 1.3, "{low} {high}");
}

#[test]
fn few_rounds_are_as_sure_as_their_single_calls_or_not_at_all() {
    let few = |rounds: &[f64], spread: Option<f64>| Times {
        rounds: rounds.into(),
        spreads: spread.into_iter().collect(),
    };
    let low = |old: &Times, new: &Times| change(old, new, 0.0, 0.05).expect("there is a spread")[0];
    // A single round of each run: calls within a hundredth of each other tell a doubling, calls all over the place do not.
    assert!(low(&few(&[10.0], Some(0.01)), &few(&[20.0], Some(0.01))) > 1.5);
    assert!(low(&few(&[10.0], Some(0.5)), &few(&[20.0], Some(0.5))) < 1.0);
    // Two rounds that lie apart tell as much as they differ.
    assert!(low(&few(&[10.0, 20.0], Some(0.01)), &few(&[20.0, 20.0], Some(0.01))) < 1.0);
    assert_eq!(change(&few(&[10.0], None), &few(&[20.0], None), 0.0, 0.05), None);
}

#[test]
fn a_spread_is_that_of_the_middle_half() {
    let even: Vec<f64> = (0..1000).map(|i| (f64::from(i) / 1000.0).exp()).collect();
    let found = spread(&even).expect("there are times");
    assert!((found - 0.5 / 1.349).abs() < 1e-3, "{found}");
    assert_eq!(spread(&[3.0]), Some(0.0));
    assert_eq!(spread(&[]), None);
}
