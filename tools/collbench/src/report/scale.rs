//! Logarithmic axes: where a value lies, and which values are marked.

/// Marks of an axis that are not too many to read.
const MARKS: i32 = 8;

/// An axis from one value to a greater one, along some length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    /// Where the low end lies, and where the high end does.
    ends: [f64; 2],
}

impl Axis {
    /// An axis that holds all of `values` that are positive numbers, with ends at whole powers of `base`.
    pub(super) fn over(values: impl Iterator<Item = f64>, base: f64, ends: [f64; 2]) -> Self {
        let there = values.filter(|value| value.is_finite() && *value > 0.0);
        let (low, high) = there.fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = if high == 0.0 { (1.0, 1.0) } else { (low, high) };
        // A hair inside, so that a value that is a power up to rounding is an end itself.
        let hair = 1e-9;
        let (mut first, mut last) = ((low.log(base) + hair).floor(), (high.log(base) - hair).ceil());
        if first >= last {
            (first, last) = (first - 1.0, first + 1.0);
        }
        Self { low: base.powf(first), high: base.powf(last), ends }
    }

    /// Where a value lies; outside of the axis, at its nearer end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let way = (value.clamp(self.low, self.high) / self.low).ln() / (self.high / self.low).ln();
        self.ends[0] + way * (self.ends[1] - self.ends[0])
    }

    /// Powers of 2 to mark, evenly spaced.
    pub(super) fn sizes(&self) -> Vec<(f64, String)> {
        let (first, last) = (self.low.log2().round() as i32, self.high.log2().round() as i32);
        let step = (last - first).div_euclid(MARKS) + 1;
        let powers = (first..=last).step_by(step as usize);
        powers.map(|power| (f64::from(power).exp2(), size_name(f64::from(power).exp2()))).collect()
    }

    /// Powers of 10 to mark, and 2 and 5 times them where there are few.
    pub(super) fn decades(&self) -> Vec<(f64, String)> {
        let (first, last) = (self.low.log10().round() as i32, self.high.log10().round() as i32);
        let step = (last - first).div_euclid(MARKS) + 1;
        let between: &[f64] = if last - first <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let all = (first..=last).step_by(step as usize);
        let all = all.flat_map(|power| between.iter().map(move |part| part * 10f64.powi(power)));
        all.filter(|value| *value <= self.high * 1.001).map(|value| (value, decimal(value))).collect()
    }
}

/// `512`, `4K`, `64M`: bytes with binary units.
pub(super) fn size_name(bytes: f64) -> String {
    let units = [(30, "G"), (20, "M"), (10, "K")];
    let unit = units.iter().find(|(shift, _)| bytes >= f64::from(1u32 << shift));
    match unit {
        Some((shift, name)) => format!("{}{name}", decimal(bytes / f64::from(1u32 << shift))),
        None => decimal(bytes),
    }
}

/// A number with three digits that count, and no zeros behind the point.
pub(super) fn decimal(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    let before = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    let text = format!("{value:.*}", (2 - before).max(0) as usize);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ratios_are_equal_lengths_and_ends_hold_everything() {
        let axis = Axis::over([0.2, f64::NAN, 0.0, 700.0].into_iter(), 10.0, [0.0, 40.0]);
        let places = [0.05, 0.1, 1.0, 10.0, 1000.0, 5000.0].map(|value| axis.at(value).round());
        assert_eq!(places, [0.0, 0.0, 10.0, 20.0, 40.0, 40.0]);
    }

    #[test]
    fn a_single_value_and_none_have_room_around_them() {
        for values in [vec![1000.0], vec![], vec![f64::NAN]] {
            let axis = Axis::over(values.into_iter(), 10.0, [0.0, 1.0]);
            assert!(axis.low < axis.high, "{axis:?}");
        }
    }

    #[test]
    fn marks_are_few_and_named() {
        let names = |marks: Vec<(f64, String)>| marks.into_iter().map(|mark| mark.1).collect::<Vec<_>>();
        let wide = Axis::over([8.0, f64::from(1 << 26)].into_iter(), 2.0, [0.0, 1.0]);
        assert_eq!(names(wide.sizes()), ["8", "64", "512", "4K", "32K", "256K", "2M", "16M"]);
        let times = Axis::over([0.12, 20_000.0].into_iter(), 10.0, [0.0, 1.0]);
        assert_eq!(names(times.decades()), ["0.1", "1", "10", "100", "1000", "10000", "100000"]);
        let near = Axis::over([3.0, 40.0].into_iter(), 10.0, [0.0, 1.0]);
        assert_eq!(names(near.decades()), ["1", "2", "5", "10", "20", "50", "100"]);
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (value, text) in [
            (0.0, "0"),
            (0.012_345, "0.0123"),
            (1.5, "1.5"),
            (12.345, "12.3"),
            (123_456.0, "123456"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(decimal(value), text);
        }
        for (bytes, text) in [(1023.0, "1023"), (1536.0, "1.5K"), (67_108_864.0, "64M")] {
            assert_eq!(size_name(bytes), text);
        }
    }
}
