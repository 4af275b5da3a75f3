//! Comparison with an earlier report of `-J`: what is slower than it was, and not by chance?
//!
//! Each round of a row counts in its own near or far state.
//!
//! Invariant: only times measured in the same way are compared: the same call on as many ranks over the same transport, in
//! the same place (out of place or in place) and with the ranks' cores in the same near or far state.

use crate::confidence::{Times, change, spread};
use crate::failure::Failure;
use crate::geometry::Shape;
use crate::json::Report;
use crate::json::read::Row;
use crate::stats::{median, quantiles};
use core::fmt;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The most times of one measurement that a report keeps and that are compared.
pub(crate) const KEPT: usize = 200;

/// How unlikely it is that anything at all is called slower that is not.
const DOUBT: f64 = 0.05;

/// How a run was measured, as far as it is the same for all rows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Conditions {
    transport: String,
    ranks: u32,
    registered: String,
    aggregated_iterations: u32,
    // Older reports do not say.
    #[serde(default)]
    unalign: u32,
    #[serde(default = "one")]
    overlap: u32,
    #[serde(default)]
    traffic: String,
}

/// Calls in flight where a report does not say.
fn one() -> u32 {
    1
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffers = if self.registered == "true" { "registered" } else { "private" };
        write!(
            f,
            "{} ranks over {}, {buffers} buffers, -m {}, -u {}",
            self.ranks, self.transport, self.aggregated_iterations, self.unalign
        )?;
        if self.overlap > 1 {
            write!(f, ", {} calls in flight", self.overlap)?;
        }
        match &*self.traffic {
            "" => Ok(()),
            traffic => write!(f, ", {traffic}"),
        }
    }
}

/// What was called, and in which place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    program: String,
    dtype: String,
    op: String,
    root: String,
    size: usize,
    in_place: bool,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, dtype, op, root, size, in_place } = self;
        let place = if *in_place { "in place" } else { "out of place" };
        write!(f, "{program} {dtype} {op} root {root} size {size} {place}")
    }
}

/// All times of a report.
#[derive(Debug)]
pub(crate) struct Measured {
    conditions: Conditions,
    /// By call and state.
    times: BTreeMap<(Call, String), Times>,
}

/// What is read of a report.
#[derive(Deserialize)]
struct File {
    config: Conditions,
    results: Vec<Row<Half, Singles>>,
}

#[derive(Deserialize)]
struct Half {
    med_us: f64,
    state: String,
    /// None in older reports: then the half is one round.
    #[serde(default)]
    rounds: Vec<Round>,
}

#[derive(Clone, Deserialize)]
struct Round {
    med_us: f64,
    state: String,
}

#[derive(Deserialize)]
struct Singles {
    #[serde(default)]
    quantiles_us: Vec<f64>,
    #[serde(default)]
    times_us: Vec<f64>,
}

impl Measured {
    /// Reads a report.
    ///
    /// # Errors
    /// When there is none at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let told = |why: String| Failure::Usage(format!("--baseline {}: {why}", path.display()));
        let text = std::fs::read(path).map_err(|error| told(error.to_string()))?;
        let file: File = serde_json::from_slice(&text)
            .map_err(|error| told(format!("this is no report of sohu-collbench -J: {error}")))?;
        Self::of(file).map_err(told)
    }

    /// The times of this run.
    pub(crate) fn now(report: &Report) -> Self {
        let file = serde_json::to_value(report).and_then(serde_json::from_value);
        Self::of(file.expect("what we write can be read")).expect("measured times are positive")
    }

    fn of(file: File) -> Result<Self, String> {
        let mut times = BTreeMap::new();
        for entry in file.results {
            let apart = (false, Some((entry.out_of_place, entry.out_of_place_per_iter)));
            let in_place = (true, entry.in_place.zip(entry.in_place_per_iter));
            for (in_place, half) in [apart, in_place] {
                let Some((half, singles)) = half else { continue };
                let call = Call {
                    program: entry.experiment_name.clone(),
                    dtype: entry.dtype.clone(),
                    op: entry.redop.clone(),
                    root: entry.root.trim().into(),
                    size: entry.size,
                    in_place,
                };
                add(&mut times, &call, half, &singles)?;
            }
        }
        Ok(Self { conditions: file.config, times })
    }

    fn knows(&self, program: &str, shape: &Shape) -> bool {
        let root = shape.root_number().to_string();
        let wanted = (program, shape.dtype.name(), shape.op_name(), root.as_str(), shape.bytes());
        self.times.keys().any(|(call, _)| {
            let Call { program, dtype, op, root, size, .. } = call;
            (program.as_str(), dtype.as_str(), op.as_str(), root.as_str(), *size) == wanted
        })
    }

    /// Whether anything of a run can be compared with this report.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn fits(&self, run: &Report, program: &str, shapes: &[Shape]) -> Result<(), Failure> {
        let now = Self::now(run).conditions;
        if now != self.conditions {
            let before = &self.conditions;
            return Err(Failure::Usage(format!(
                "the report of --baseline was measured with {before}; this run has {now}"
            )));
        }
        let known = shapes.iter().any(|shape| self.knows(program, shape));
        match known {
            true => Ok(()),
            false => Err(Failure::Usage(format!(
                "the report of --baseline has no row of this run; it is for other sizes, types, operations or roots, or \
                 not for {program}"
            ))),
        }
    }
}

/// Adds what one half tells to the times of its call, each round in its own state.
fn add(
    times: &mut BTreeMap<(Call, String), Times>,
    call: &Call,
    half: Half,
    singles: &Singles,
) -> Result<(), String> {
    let sorted = match singles.quantiles_us.is_empty() {
        true => quantiles(&singles.times_us, KEPT),
        false => singles.quantiles_us.clone(),
    };
    let rounds = match half.rounds.is_empty() {
        true => vec![Round { med_us: half.med_us, state: half.state }],
        false => half.rounds,
    };
    let all = sorted.iter().copied().chain(rounds.iter().map(|round| round.med_us));
    if all.chain([half.med_us]).any(|time| time.is_nan() || time <= 0.0) {
        return Err(format!("{call} has times that are not positive"));
    }
    for round in rounds {
        let all = times.entry((call.clone(), round.state)).or_default();
        all.rounds.push(round.med_us);
        all.spreads.extend(spread(&sorted));
    }
    Ok(())
}

/// One measurement that is slower than it was.
#[derive(Debug, PartialEq)]
pub(crate) struct Slower {
    call: Call,
    state: String,
    /// The medians in microseconds, before and now.
    medians: [f64; 2],
    /// Time is between so and so many times what it was, with a probability of 95 % for all measurements together; `None`
    /// where a report tells nothing of spread.
    interval: Option<[f64; 2]>,
}

impl fmt::Display for Slower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |ratio: f64| (ratio - 1.0) * 100.0;
        let [before, now] = self.medians;
        let Self { call, state, .. } = self;
        write!(
            f,
            "slower: {call}, {state}: {now:.2} us, was {before:.2} us: {:+.1} %",
            percent(now / before)
        )?;
        match self.interval {
            Some(ends) => {
                let [low, high] = ends.map(percent);
                write!(f, " (surely {low:+.1} to {high:+.1} %)")
            }
            None => f.write_str(" (medians only)"),
        }
    }
}

/// What a comparison came to.
#[derive(Debug, PartialEq)]
pub(crate) struct Comparison {
    /// Measurements with a counterpart.
    compared: usize,
    /// Measurements with one in another near or far state only.
    other_state: usize,
    /// Measurements with none.
    missing: usize,
    /// What got slower.
    pub(crate) slower: Vec<Slower>,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compared, other_state, missing, slower } = self;
        write!(
            f,
            "{compared} measurements compared, {} slower; {other_state} not, for another near or far state, {missing} for no \
             counterpart",
            slower.len()
        )
    }
}

/// Compares a run with an earlier one. A measurement is slower when that is sure of more than `percent`: the chance that
/// any is called so by mistake is 5 %, all measurements together. Where a report tells nothing of spread, the medians alone
/// decide.
pub(crate) fn compare(before: &Measured, now: &Measured, percent: f64) -> Comparison {
    let mut result = Comparison { compared: 0, other_state: 0, missing: 0, slower: Vec::new() };
    let allowed = 1.0 + percent / 100.0;
    let mut pairs = Vec::new();
    for (key @ (call, _), new) in &now.times {
        match before.times.get(key) {
            Some(old) => pairs.push((key, old, new)),
            None if before.times.keys().any(|(other, _)| other == call) => result.other_state += 1,
            None => result.missing += 1,
        }
    }
    result.compared = pairs.len();
    let doubt = DOUBT / pairs.len().max(1) as f64;
    // Rounds that agree by chance are believed no more than rounds usually are here.
    let mut variances: Vec<f64> =
        pairs.iter().flat_map(|(_, old, new)| [old.variance(), new.variance()]).flatten().collect();
    let usual = if variances.is_empty() { 0.0 } else { median(&mut variances) };
    for ((call, state), old, new) in pairs {
        let interval = change(old, new, usual, 2.0 * doubt);
        let medians = [old.median(), new.median()];
        let least = interval.map_or(medians[1] / medians[0], |[low, _]| low);
        if least > allowed {
            result.slower.push(Slower { call: call.clone(), state: state.clone(), medians, interval });
        }
    }
    result
}

#[cfg(test)]
mod tests;
