//! The `limits` command: what the machine can do at best, measured by the ranks themselves on their own cores, all at
//! once.

use crate::bound::Level;
use crate::cli::{Flags, LimitFlags};
use crate::failure::{self, Failure};
use crate::measure::state;
use crate::team::Team;
use crate::{host, json};
use serde::Serialize;
use sohu_coll::limits::{Store, copy_gbps, reduce_gbps};
use sohu_coll::{Error, ReduceOp};
use std::io::Write;

/// Sizes of one buffer, and where the buffers of one rank then are on today's server processors.
const LEVELS: [(usize, &str); 4] =
    [(16 << 10, "16K (L1)"), (256 << 10, "256K (L2)"), (4 << 20, "4M (L3)"), (64 << 20, "64M (DRAM)")];

/// Seconds per measurement where limits are only a yardstick for other rows.
const QUICK: f64 = 0.03;

/// One limit.
#[derive(Clone, Debug, Serialize)]
struct Limit {
    limit: &'static str,
    param: String,
    value: json::Num,
    unit: &'static str,
    rep: u32,
}

/// The report of `-J`.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    start_time: String,
    transport: String,
    ranks: u32,
    hostname: String,
    device_info: String,
    state: &'static str,
    limits: Vec<Limit>,
    end_time: String,
}

/// Measures and prints everything.
pub(crate) fn run(team: &mut Team, options: &LimitFlags) -> Result<u8, Failure> {
    let common = &options.common;
    let start_time = host::now();
    let rank = team.rank();
    let ranks = team.size();
    let file = match (&common.output_file, rank) {
        (Some(path), 0) => json::create(path).map(Some),
        _ => Ok(None),
    };
    let code = team.first_says(if file.is_ok() { 0 } else { failure::ENVIRONMENT })?;
    let mut file = file.map_err(|error| json::unwritable(common.output_file.as_deref(), &error))?;
    if code != 0 {
        return Ok(code);
    }
    if rank == 0 && !common.jsonl {
        print_header(team);
    }
    let mut limits = Vec::new();
    let mut tell = |limit: &'static str, param: &str, value: f64, unit: &'static str| {
        let limit = Limit { limit, param: param.into(), value: json::Num(value), unit, rep: common.rep };
        if rank == 0 {
            print_limit(&limit, common.jsonl);
        }
        limits.push(limit);
    };
    measure(team, options.seconds, &mut tell)?;
    let roomy = ranks as usize <= host::online();
    let handover = if roomy { team.own().handover_ns()? } else { f64::NAN };
    tell("cacheline_handover", "one way, ranks 0 and 1", handover, "ns");
    let wake = team.own().wake_ns()?;
    tell("futex_wake", "one way, ranks 0 and 1", wake / 1e3, "us");
    if let Some((path, file)) = &mut file {
        let report = Report {
            version: 1,
            start_time,
            transport: team.transport().into(),
            ranks,
            hostname: host::name(),
            device_info: host::processor(),
            state: state(handover),
            limits,
            end_time: host::now(),
        };
        write_json(file, &report)
            .map_err(|error| Failure::Environment(format!("writing {} failed: {error}", path.display())))?;
    }
    team.own().barrier()?;
    Ok(0)
}

/// Writes a report as JSON and a line end.
pub(crate) fn write_json(file: &mut std::fs::File, report: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *file, report)?;
    file.write_all(b"\n")?;
    file.flush()
}

/// The levels that rows are compared with; none where nobody asked, or where bytes do not move through memory alone.
pub(crate) fn levels(team: &mut Team, flags: &Flags) -> Result<Vec<Level>, Error> {
    let wanted = flags.explain || flags.common.output_file.is_some() || flags.report.is_some();
    if !wanted || team.transport() != "shm" || team.size() < 2 {
        return Ok(Vec::new());
    }
    measure(team, QUICK, &mut |_, _, _, _| {})
}

/// Measures copy and reduction at every level with both kinds of store, all ranks at once; rates are summed over ranks.
fn measure(
    team: &mut Team,
    seconds: f64,
    tell: &mut dyn FnMut(&'static str, &str, f64, &'static str),
) -> Result<Vec<Level>, Error> {
    let mut levels = Vec::new();
    for (bytes, place) in LEVELS {
        let mut level = Level { bytes, copy: [0.0; 2], fold: [0.0; 2] };
        for (kind, store) in [Store::Cached, Store::Streaming].into_iter().enumerate() {
            level.copy[kind] = together(team, || copy_gbps(bytes, store, seconds))?;
            tell(["copy_cached", "copy_nt"][kind], place, level.copy[kind], "GB/s");
            level.fold[kind] = together(team, || reduce_gbps(bytes, store, seconds))?;
            tell(["add_cached", "add_nt"][kind], place, level.fold[kind], "GB/s");
        }
        levels.push(level);
    }
    Ok(levels)
}

/// The sum over ranks of what each measures, all at the same time.
fn together(team: &mut Team, measure: impl FnOnce() -> f64) -> Result<f64, Error> {
    team.own().barrier()?;
    let mut rate = [measure()];
    team.own().all_reduce_in_place(&mut rate, ReduceOp::Sum)?;
    Ok(rate[0])
}

fn print_header(team: &Team) {
    println!(
        "# sohu-collbench limits: {} ranks over {} on {}, {}",
        team.size(),
        team.transport(),
        host::name(),
        host::processor()
    );
    println!(
        "# all ranks at once, each on its own core; rates summed over ranks, payload counted once; GB/s = 1e9 B/s"
    );
    println!("# nt: non-temporal stores, past the caches; add: float, two inputs, bytes of one of them");
    println!("#");
    println!("# {:<20}  {:<22}  {:>10}  unit", "limit", "where", "value");
}

fn print_limit(limit: &Limit, as_json: bool) {
    if as_json {
        println!("{}", serde_json::to_string(limit).expect("a limit has no keys that are not text"));
    } else {
        let value = if limit.value.0.is_nan() { "-".into() } else { format!("{:.2}", limit.value.0) };
        println!("  {:<20}  {:<22}  {value:>10}  {}", limit.limit, limit.param, limit.unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_one_line_of_json() {
        let limit =
            Limit { limit: "copy_nt", param: "4M (L3)".into(), value: json::Num(1.5), unit: "GB/s", rep: 2 };
        let line = serde_json::to_string(&limit).expect("JSON");
        assert_eq!(line, r#"{"limit":"copy_nt","param":"4M (L3)","value":1.5,"unit":"GB/s","rep":2}"#);
    }
}
