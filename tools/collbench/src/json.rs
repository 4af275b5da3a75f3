//! Reports for programs: the JSON of nccl-tests (version 3) with our keys added, and lines with the keys of the benchmark
//! that measures other libraries.
//!
//! As nccl-tests has it, truth values are the texts `"true"` and `"false"`, and a number that is none is `"nan"`.

pub(crate) mod read;

use crate::baseline::KEPT;
use crate::failure::Failure;
use crate::measure::{Half, Row, Strict, state};
use crate::stats::{Stats, quantiles};
use serde::{Serialize, Serializer};
use sohu_coll::{Collective, DType, ReduceOp};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The whole report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) version: u32,
    pub(crate) start_time: String,
    pub(crate) args: Vec<String>,
    /// Always empty: the environment holds the job's secrets.
    pub(crate) env: Vec<String>,
    pub(crate) nccl_version: u32,
    pub(crate) sohu_coll_version: &'static str,
    pub(crate) config: Config,
    pub(crate) results: Vec<Entry>,
    pub(crate) out_of_bounds: Count,
    pub(crate) average_bus_bandwidth: Average,
    pub(crate) errors: Vec<String>,
    pub(crate) end_time: String,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Config {
    pub(crate) nthreads: u32,
    pub(crate) ngpus: u32,
    pub(crate) minimum_bytes: u64,
    pub(crate) maximum_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step_factor: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step_bytes: Option<u64>,
    pub(crate) warmup_iters: u32,
    pub(crate) iterations: u32,
    pub(crate) aggregated_iterations: u32,
    /// How many calls were in flight at once.
    pub(crate) overlap: u32,
    pub(crate) validation: u32,
    pub(crate) graph: u32,
    pub(crate) blocking_collectives: &'static str,
    pub(crate) per_iter_timing: &'static str,
    pub(crate) per_iter_skip: u32,
    pub(crate) parallel_init: &'static str,
    /// Seconds that each timed loop filled, where no number of calls was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) budget_s: Option<f64>,
    pub(crate) transport: String,
    pub(crate) ranks: u32,
    pub(crate) registered: &'static str,
    /// How many bytes after a cache line buffers started.
    pub(crate) unalign: u32,
    /// Where the lengths of blocks come from, where they have lengths of their own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) traffic: String,
    /// In how many rounds each row was measured.
    pub(crate) rounds: u32,
    pub(crate) devices: Vec<Device>,
}

/// One rank's place.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Device {
    pub(crate) rank: u32,
    pub(crate) group: u32,
    pub(crate) pid: u64,
    pub(crate) hostname: String,
    pub(crate) device: u64,
    pub(crate) device_hex: &'static str,
    pub(crate) device_info: String,
}

/// One row.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    size: usize,
    count: usize,
    #[serde(rename = "type")]
    dtype: &'static str,
    redop: &'static str,
    root: String,
    out_of_place: Place,
    out_of_place_per_iter: PerIteration,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_place: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_place_per_iter: Option<PerIteration>,
    actual_iterations: usize,
    experiment_name: String,
    handover_ns: Num,
    state: &'static str,
    algorithm: String,
    protocol: String,
    predicted_us: Num,
    limit_pct: Num,
}

#[derive(Debug, Serialize)]
struct Place {
    time: Num,
    alg_bw: Num,
    bus_bw: Num,
    nwrong: Option<u64>,
    med_us: Num,
    min_us: Num,
    p99_us: Num,
    bulk_us: Num,
    handover_ns: Num,
    state: &'static str,
    algorithm: String,
    protocol: String,
    predicted_us: Num,
    limit_pct: Num,
    limit_us: Num,
    /// What each round came to.
    rounds: Vec<Round>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reproducible: Option<Reproducible>,
}

/// One round of a half.
#[derive(Debug, Serialize)]
struct Round {
    med_us: Num,
    state: &'static str,
}

/// The same calls with reproducible results.
#[derive(Debug, Serialize)]
struct Reproducible {
    time: Num,
    med_us: Num,
    algorithm: String,
    protocol: String,
    /// How many times as long a call takes, back to back: the median of the rounds.
    cost: Num,
    /// The same of single calls.
    cost_single: Num,
    /// The same of each round, back to back.
    costs: Vec<Num>,
}

#[derive(Debug, Serialize)]
struct PerIteration {
    skipped_iterations: usize,
    min_us: Num,
    max_us: Num,
    avg_us: Num,
    p50_us: Num,
    p95_us: Num,
    p99_us: Num,
    stdev_us: Num,
    cv_pct: Num,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    times_us: Vec<f64>,
    /// The times or, where there are many, evenly spaced ones of their order: what a later run is compared with.
    quantiles_us: Vec<f64>,
}

/// Rows with wrong data.
#[derive(Debug, Serialize)]
pub(crate) struct Count {
    pub(crate) count: u64,
    pub(crate) okay: &'static str,
}

/// The mean of all bus bandwidths.
#[derive(Debug, Serialize)]
pub(crate) struct Average {
    pub(crate) bandwidth: Num,
    pub(crate) okay: &'static str,
}

/// A number; `"nan"` if it is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Num(pub(crate) f64);

impl Serialize for Num {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_nan() { serializer.serialize_str("nan") } else { serializer.serialize_f64(self.0) }
    }
}

/// A truth value as nccl-tests writes it.
pub(crate) fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

impl Entry {
    /// The row; with every single time where `all_times` asks for it.
    pub(crate) fn of(row: &Row, program: &str, all_times: bool) -> Self {
        let (apart, in_place) = (&row.halves[0], row.halves.get(1));
        Self {
            size: row.shape.bytes(),
            count: row.shape.count,
            dtype: row.shape.dtype.name(),
            redop: row.shape.op_name(),
            root: format!("{:6}", row.shape.root_number()),
            out_of_place: Place::of(row, apart),
            out_of_place_per_iter: PerIteration::of(apart, all_times),
            in_place: in_place.map(|half| Place::of(row, half)),
            in_place_per_iter: in_place.map(|half| PerIteration::of(half, all_times)),
            actual_iterations: apart.skipped + apart.iterations_us.len(),
            experiment_name: program.into(),
            handover_ns: Num(row.handover_ns()),
            state: row.state(),
            algorithm: apart.explained.algorithm.clone(),
            protocol: apart.explained.protocol.clone(),
            predicted_us: Num(apart.explained.predicted_us),
            limit_pct: Num(apart.limit_pct()),
        }
    }
}

impl Place {
    fn of(row: &Row, half: &Half) -> Self {
        let stats = Stats::of(&half.iterations_us);
        Self {
            time: Num(half.time_us),
            alg_bw: Num(row.shape.algbw(half.time_us)),
            bus_bw: Num(row.shape.busbw(half.time_us)),
            nwrong: half.wrong,
            med_us: Num(stats.p50),
            min_us: Num(stats.min),
            p99_us: Num(stats.p99),
            bulk_us: Num(half.bulk_us),
            handover_ns: Num(half.handover_ns),
            state: state(half.handover_ns),
            algorithm: half.explained.algorithm.clone(),
            protocol: half.explained.protocol.clone(),
            predicted_us: Num(half.explained.predicted_us),
            limit_pct: Num(half.limit_pct()),
            limit_us: Num(half.limit_us),
            rounds: half
                .rounds
                .iter()
                .map(|round| Round {
                    med_us: Num(picoseconds(round.med_us)),
                    state: state(round.handover_ns),
                })
                .collect(),
            reproducible: half.strict.as_ref().map(Reproducible::of),
        }
    }
}

impl Reproducible {
    fn of(strict: &Strict) -> Self {
        Self {
            time: Num(strict.time_us),
            med_us: Num(strict.med_us),
            algorithm: strict.explained.algorithm.clone(),
            protocol: strict.explained.protocol.clone(),
            cost: Num(strict.cost()),
            cost_single: Num(strict.cost_single()),
            costs: strict.ratios.iter().map(|ratios| Num(ratios[0])).collect(),
        }
    }
}

impl PerIteration {
    fn of(half: &Half, all_times: bool) -> Self {
        let stats = Stats::of(&half.iterations_us);
        Self {
            skipped_iterations: half.skipped,
            min_us: Num(stats.min),
            max_us: Num(stats.max),
            avg_us: Num(stats.mean),
            p50_us: Num(stats.p50),
            p95_us: Num(stats.p95),
            p99_us: Num(stats.p99),
            stdev_us: Num(stats.deviation),
            cv_pct: Num(stats.spread_pct()),
            times_us: if all_times { half.iterations_us.clone() } else { Vec::new() },
            quantiles_us: quantiles(&half.iterations_us, KEPT).into_iter().map(picoseconds).collect(),
        }
    }
}

/// A time in microseconds, rounded to the picosecond: no clock is better.
fn picoseconds(time: f64) -> f64 {
    (time * 1e6).round() / 1e6
}

/// Who measured, for a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// The library.
    pub(crate) peer: &'a str,
    /// The transport.
    pub(crate) mode: &'a str,
    /// Which repetition.
    pub(crate) rep: u32,
}

/// The out-of-place half of a row as one line (of a broadcast, which other libraries make in one buffer, the other half),
/// with the keys, order and digits of the benchmark that measures them. `pp_ns` is the hand-over; -1 where there is none. The bytes of a call
/// with blocks of any lengths, and its bandwidths, are those of what the busiest rank gives, as that benchmark counts them; in
/// the table they are those of the busiest rank whichever way.
pub(crate) fn line(row: &Row, origin: Origin<'_>) -> String {
    let half = &row.halves[usize::from(row.shape.collective == Collective::Broadcast)];
    let stats = Stats::of(&half.iterations_us);
    let ranks = row.shape.ranks;
    let bytes = if row.shape.traffic.is_some() { row.shape.input_bytes() } else { row.shape.bytes() };
    let share = bytes as f64 / row.shape.bytes().max(1) as f64;
    let handover = if half.handover_ns.is_nan() { -1.0 } else { half.handover_ns };
    let text = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        "{{\"peer\":{},\"mode\":{},\"coll\":\"{}\",\"ranks\":{ranks},\"size\":{},\"bytes\":{bytes},\"iters\":{},\
         \"min_us\":{:.3},\"med_us\":{:.3},\"p99_us\":{:.3},\"bulk_us\":{:.3},\"algbw\":{:.4},\"busbw\":{:.4},\
         \"wrong\":{},\"pp_ns\":{handover:.0},\"rep\":{}}}",
        text(origin.peer),
        text(origin.mode),
        short_name(row),
        row.shape.asked,
        half.iterations_us.len(),
        stats.min,
        stats.p50,
        stats.p99,
        half.bulk_us,
        row.shape.algbw(stats.p50) * share,
        row.shape.busbw(stats.p50) * share,
        half.wrong.unwrap_or(0),
        origin.rep,
    )
}

/// `allreduce`; `allreduce_i32` or `allreduce_bf16` for other types, and so on for other operations.
fn short_name(row: &Row) -> String {
    let mut name = match row.shape.collective {
        _ if row.shape.is_ring() => "sendrecv",
        _ if row.shape.traffic.is_some() => "alltoallv",
        Collective::AllReduce => "allreduce",
        Collective::AllGather => "allgather",
        Collective::ReduceScatter => "reduce_scatter",
        Collective::Broadcast => "bcast",
        Collective::AllToAll => "alltoall",
        other => other.name(),
    }
    .to_owned();
    match row.shape.dtype {
        DType::F32 => {}
        DType::I32 => name += "_i32",
        DType::Bf16 => name += "_bf16",
        other => name = format!("{name}_{other}"),
    }
    if row.shape.collective.reduces() && row.shape.op != ReduceOp::Sum {
        name = format!("{name}_{}", row.shape.op);
    }
    name
}

/// Why there is no report.
pub(crate) fn unwritable(path: Option<&Path>, error: &io::Error) -> Failure {
    let path = path.unwrap_or(Path::new("")).display();
    Failure::Environment(format!("no report can be written to {path}: {error}"))
}

/// Makes the file for a report, or the first of `FILE.0`, `FILE.1`, ... that is not there yet: no earlier report is lost.
///
/// # Errors
/// When no file can be made there.
pub(crate) fn create(path: &Path) -> io::Result<(PathBuf, File)> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for candidate in std::iter::once(path.to_owned()).chain((0..10_000).map(numbered)) {
        match File::create_new(&candidate) {
            Ok(file) => return Ok((candidate, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests;
