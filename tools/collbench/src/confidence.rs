//! How sure is it that one set of rounds is slower than another?
//!
//! Calls that follow each other share what the machine does at that moment, so a thousand of them are not a thousand
//! witnesses. Rounds that are seconds apart are far more so: what is compared is the medians of rounds, as logarithms, by
//! Yuen's test: means without the extremes, and the t distribution with as many degrees of freedom as both samples'
//! spreads give (Welch).
//!
//! Invariant: equal data give equal answers; nothing is drawn.

/// Rounds from which on their own spread says enough.
const ROUNDS_MIN: usize = 3;

/// Of so many rounds, the slowest and the fastest are left out: a machine that others use too is slow for a round now and
/// then.
const TRIM: usize = 4;

/// Degrees of freedom of a spread that comes from single calls: few, since those are no independent witnesses.
const FREEDOM_OF_SINGLES: f64 = 3.0;

/// What is known about the time of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Times {
    /// The median of each round, in microseconds.
    pub(crate) rounds: Vec<f64>,
    /// The spread of the single calls of each run, as a standard deviation of logarithms.
    pub(crate) spreads: Vec<f64>,
}

/// A mean of logarithms, with its own variance.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mean {
    mean: f64,
    variance: f64,
    freedom: f64,
}

impl Times {
    /// The median of the rounds, in microseconds.
    pub(crate) fn median(&self) -> f64 {
        crate::stats::median(&mut self.rounds.clone())
    }

    /// The variance of the logarithms of the rounds, with the extremes drawn in; `None` for too few rounds.
    pub(crate) fn variance(&self) -> Option<f64> {
        let (logs, trimmed) = self.logs();
        if logs.len() < ROUNDS_MIN {
            return None;
        }
        let inner = &logs[trimmed..logs.len() - trimmed];
        let drawn_in = logs.iter().map(|log| log.clamp(inner[0], inner[inner.len() - 1]));
        let mean = drawn_in.clone().sum::<f64>() / logs.len() as f64;
        let sum: f64 = drawn_in.map(|log| (log - mean).powi(2)).sum();
        Some(sum / (inner.len() as f64 - 1.0))
    }

    /// Sorted logarithms, and how many are extremes at either end.
    fn logs(&self) -> (Vec<f64>, usize) {
        let mut logs: Vec<f64> = self.rounds.iter().map(|time| time.ln()).collect();
        logs.sort_by(f64::total_cmp);
        let trimmed = logs.len() / TRIM;
        (logs, trimmed)
    }

    /// The mean, whose variance is taken to be at least that of rounds that vary by `least`.
    fn mean(&self, least: f64) -> Option<Mean> {
        let (logs, trimmed) = self.logs();
        let inner = &logs[trimmed..logs.len() - trimmed];
        let count = inner.len() as f64;
        let mean = inner.iter().sum::<f64>() / count;
        if let Some(variance) = self.variance() {
            return Some(Mean { mean, variance: variance.max(least) / count, freedom: count - 1.0 });
        }
        // Too few rounds: as sure as one single call, drawn from each of them, would make it.
        let spread = self.spreads.iter().copied().reduce(f64::max)?;
        let apart = logs.last()? - logs.first()?;
        let variance = spread.max(apart).powi(2).max(least);
        Some(Mean { mean, variance: variance / count, freedom: FREEDOM_OF_SINGLES })
    }
}

/// The spread of times that are sorted: the standard deviation of logarithms of which the middle half lies as theirs.
pub(crate) fn spread(sorted: &[f64]) -> Option<f64> {
    let at = |part: usize| sorted.get(sorted.len() * part / 4);
    // Half of a normal distribution lies within 0.6745 deviations of its middle.
    Some((at(3)? / at(1)?).ln() / (2.0 * 0.6745))
}

/// Between which factors times have changed from `old` to `new`, but for the chance `doubt`; `None` where neither rounds
/// nor single calls tell a spread. `least` is the least variance that logarithms of rounds are taken to have.
pub(crate) fn change(old: &Times, new: &Times, least: f64, doubt: f64) -> Option<[f64; 2]> {
    let (old, new) = (old.mean(least)?, new.mean(least)?);
    let variance = old.variance + new.variance;
    let parts = [old, new].map(|mean| mean.variance.powi(2) / mean.freedom);
    let freedom = if variance > 0.0 { variance.powi(2) / (parts[0] + parts[1]) } else { 1.0 };
    let reach = student(doubt / 2.0, freedom) * variance.sqrt();
    Some([-reach, reach].map(|reach| (new.mean - old.mean + reach).exp()))
}

/// The value that Student's t exceeds with the chance `tail`, below a half, with `freedom` degrees of freedom, at least 1.
///
/// With t = sqrt(f) tan(a), the density is as cos(a) to the f-1, on a from -90 to 90 degrees.
fn student(tail: f64, freedom: f64) -> f64 {
    const STEPS: usize = 4000;
    let quarter = core::f64::consts::FRAC_PI_2;
    let step = quarter / STEPS as f64;
    // From the far end inwards, so that small tails are sums of small numbers.
    let slice = |index: usize| ((index as f64 + 0.5) * step).sin().powf(freedom - 1.0);
    let half: f64 = (0..STEPS).map(slice).sum();
    let wanted = 2.0 * half * tail;
    let mut sum = 0.0;
    for index in 0..STEPS {
        let next = slice(index);
        if sum + next >= wanted {
            let angle = (index as f64 + (wanted - sum) / next) * step;
            return freedom.sqrt() / angle.tan();
        }
        sum += next;
    }
    0.0
}

#[cfg(test)]
mod tests;
