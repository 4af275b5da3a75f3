//! Comparison with an earlier report of `-J`: what is slower than it was, and not by chance?
//!
//! Invariant: only times measured in the same way are compared: the same call on as many ranks over the same transport, in
//! the same place (out of place or in place) and with the ranks' cores in the same near or far state.

use crate::failure::Failure;
use crate::geometry::Shape;
use crate::json::Report;
use crate::pattern::mix;
use crate::stats::quantiles;
use core::fmt;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The most times of one measurement that a report keeps and that are compared.
pub(crate) const KEPT: usize = 200;

/// How often both samples are drawn anew for an interval.
const DRAWS: usize = 1000;

/// How a run was measured, as far as it is the same for all rows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Conditions {
    transport: String,
    ranks: u32,
    registered: String,
    aggregated_iterations: u32,
    // Reports of 0.1.0 do not say.
    #[serde(default)]
    unalign: u32,
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffers = if self.registered == "true" { "registered" } else { "private" };
        write!(
            f,
            "{} ranks over {}, {buffers} buffers, -m {}, -u {}",
            self.ranks, self.transport, self.aggregated_iterations, self.unalign
        )
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

/// The times of one call in one state, of all cycles, in microseconds.
#[derive(Clone, Debug, Default)]
struct Times {
    /// Of each cycle.
    medians: Vec<f64>,
    /// Single calls of each cycle; none in a report that kept none.
    singles: Vec<Vec<f64>>,
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
    results: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    experiment_name: String,
    #[serde(rename = "type")]
    dtype: String,
    redop: String,
    root: String,
    size: usize,
    out_of_place: Half,
    out_of_place_per_iter: Singles,
    in_place: Half,
    in_place_per_iter: Singles,
}

#[derive(Deserialize)]
struct Half {
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
        let mut times: BTreeMap<_, Times> = BTreeMap::new();
        for entry in file.results {
            let halves = [
                (false, entry.out_of_place, entry.out_of_place_per_iter),
                (true, entry.in_place, entry.in_place_per_iter),
            ];
            for (in_place, half, singles) in halves {
                let call = Call {
                    program: entry.experiment_name.clone(),
                    dtype: entry.dtype.clone(),
                    op: entry.redop.clone(),
                    root: entry.root.trim().into(),
                    size: entry.size,
                    in_place,
                };
                let singles = match singles.quantiles_us.is_empty() {
                    true => quantiles(&singles.times_us, KEPT),
                    false => singles.quantiles_us,
                };
                if singles.iter().chain([&half.med_us]).any(|time| *time <= 0.0) {
                    return Err(format!("{call} has times that are not positive"));
                }
                let all = times.entry((call, half.state)).or_default();
                all.medians.push(half.med_us);
                all.singles.extend(Some(singles).filter(|singles| !singles.is_empty()));
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

/// One measurement that is slower than it was.
#[derive(Debug, PartialEq)]
pub(crate) struct Slower {
    call: Call,
    state: String,
    /// The medians in microseconds, before and now.
    medians: [f64; 2],
    /// With a probability of 95 %, time is between so and so many times what it was; `None` where a report has medians
    /// only.
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
                write!(f, " (95 % sure: {low:+.1} to {high:+.1} %)")
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

/// Compares a run with an earlier one. A measurement is slower when its median is, by more than `percent`, and where
/// both sides have single times, with a probability of 95 %.
pub(crate) fn compare(before: &Measured, now: &Measured, percent: f64) -> Comparison {
    let mut result = Comparison { compared: 0, other_state: 0, missing: 0, slower: Vec::new() };
    let allowed = 1.0 + percent / 100.0;
    for (key @ (call, state), new) in &now.times {
        let Some(old) = before.times.get(key) else {
            let known = before.times.keys().any(|(other, _)| other == call);
            *(if known { &mut result.other_state } else { &mut result.missing }) += 1;
            continue;
        };
        result.compared += 1;
        let both = !old.singles.is_empty() && !new.singles.is_empty();
        let medians = [old, new].map(|times| match both {
            true => median(&mut times.singles.concat()),
            false => median(&mut times.medians.clone()),
        });
        let interval = both.then(|| interval(&old.singles, &new.singles));
        let least = interval.map_or(medians[1] / medians[0], |[low, _]| low);
        if least > allowed {
            result.slower.push(Slower { call: call.clone(), state: state.clone(), medians, interval });
        }
    }
    result
}

/// The median: the upper of the two in the middle.
fn median(times: &mut [f64]) -> f64 {
    let middle = times.len() / 2;
    *times.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// Where the ratio of the medians lies with a probability of 95 %, by the bootstrap: many times, as many cycles as there are
/// are drawn from them, and of each drawn one as many times as it has. So what differs from cycle to cycle widens the
/// interval. Draws are always the same, so that equal reports give equal answers.
fn interval(old: &[Vec<f64>], new: &[Vec<f64>]) -> [f64; 2] {
    let mut drawn = 0;
    let mut draw = |from: usize| {
        drawn += 1;
        (mix(drawn) % from as u64) as usize
    };
    let mut again = |cycles: &[Vec<f64>]| {
        let mut times = Vec::new();
        for _ in cycles {
            let cycle = &cycles[draw(cycles.len())];
            times.extend(cycle.iter().map(|_| cycle[draw(cycle.len())]));
        }
        median(&mut times)
    };
    let mut ratios: Vec<f64> = (0..DRAWS).map(|_| again(new) / again(old)).collect();
    ratios.sort_by(f64::total_cmp);
    [ratios[DRAWS * 25 / 1000], ratios[DRAWS * 975 / 1000 - 1]]
}

#[cfg(test)]
mod tests;
