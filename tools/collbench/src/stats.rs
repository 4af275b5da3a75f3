//! Percentiles and spread of a list of times, as nccl-tests computes them.

/// Statistics of times, in the unit of the times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stats {
    /// The least.
    pub(crate) min: f64,
    /// The greatest.
    pub(crate) max: f64,
    /// The mean.
    pub(crate) mean: f64,
    /// The median: the upper of the two in the middle.
    pub(crate) p50: f64,
    /// 95 of 100 are not above, by nearest rank.
    pub(crate) p95: f64,
    /// 99 of 100 are not above, by nearest rank; the greatest when there are fewer than 100.
    pub(crate) p99: f64,
    /// Standard deviation.
    pub(crate) deviation: f64,
}

impl Stats {
    /// The statistics of `times`; all zero when there are none.
    pub(crate) fn of(times: &[f64]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else { return Self::default() };
        let count = sorted.len() as f64;
        let mean = sorted.iter().sum::<f64>() / count;
        let variance = sorted.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / count;
        Self {
            min,
            max,
            mean,
            p50: sorted[sorted.len() / 2],
            p95: sorted[nearest_rank(sorted.len(), 95)],
            p99: sorted[nearest_rank(sorted.len(), 99)],
            deviation: variance.sqrt(),
        }
    }

    /// The standard deviation in percent of the mean.
    pub(crate) fn spread_pct(&self) -> f64 {
        if self.mean > 0.0 { self.deviation / self.mean * 100.0 } else { 0.0 }
    }
}

/// The median of `values`: the upper of the two in the middle.
///
/// # Panics
/// When there are none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// At most `most` of the times, sorted: evenly spaced ones of their order.
pub(crate) fn quantiles(times: &[f64], most: usize) -> Vec<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.len() <= most {
        return sorted;
    }
    // The middles of `most` equal parts.
    (0..most).map(|part| sorted[(2 * part + 1) * sorted.len() / (2 * most)]).collect()
}

/// Where in `count` sorted values the percentile is.
fn nearest_rank(count: usize, percent: usize) -> usize {
    ((count * percent).div_ceil(100) - 1).min(count - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        for (count, p95, p99) in
            [(1, 1, 1), (2, 2, 2), (20, 19, 20), (99, 95, 99), (100, 95, 99), (101, 96, 100)]
        {
            let times: Vec<f64> = (1..=count).rev().map(f64::from).collect();
            let stats = Stats::of(&times);
            assert_eq!((stats.p95, stats.p99), (f64::from(p95), f64::from(p99)), "{count} times");
            assert_eq!((stats.min, stats.max), (1.0, f64::from(count)));
        }
    }

    #[test]
    fn the_median_of_an_even_number_is_the_upper_one() {
        assert_eq!(Stats::of(&[4.0, 1.0, 3.0, 2.0]).p50, 3.0);
    }

    #[test]
    fn spread_is_the_deviation_over_the_mean() {
        let stats = Stats::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!((stats.mean, stats.deviation, stats.spread_pct()), (5.0, 2.0, 40.0));
    }

    #[test]
    fn quantiles_are_evenly_spaced_and_at_most_so_many() {
        assert_eq!(quantiles(&[3.0, 1.0, 2.0], 3), [1.0, 2.0, 3.0]);
        assert_eq!(quantiles(&[], 3), [0.0; 0]);
        let times: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!(quantiles(&times, 4), [12.0, 37.0, 62.0, 87.0]);
        assert_eq!(quantiles(&times, 99).len(), 99);
    }

    #[test]
    fn no_times_give_zeros() {
        assert_eq!(Stats::of(&[]), Stats::default());
    }
}
