//! `sohu-collbench`: bandwidth and latency of collectives, in the manner of nccl-tests, and the limits of the machine.
//!
//! Invariant: no row is printed whose data was not checked on every rank, before and after it was timed (unless `-c 0`
//! asked for that), and rank 0 alone prints.

mod baseline;
mod bound;
mod caller;
mod cli;
mod confidence;
mod failure;
mod format;
mod geometry;
mod host;
mod json;
mod limits;
mod measure;
mod memory;
mod overlap;
mod parse;
mod pattern;
mod printer;
mod report;
mod stats;
mod sweep;
mod team;
mod traffic;
mod tune;

use clap::Parser;
use cli::{Cli, Common, Work};
use failure::Failure;
use sohu_coll::launch::{Ended, Launch, Output};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use team::Team;

/// How much later than the communicator's deadline the whole job's is, so that the error that names a rank comes first.
const SLACK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments = cli::arguments(std::env::args_os().collect());
    let done = match Cli::parse_from(&arguments).task.work() {
        Work::Limits(options) => {
            start(&options.common, &arguments, false, |team| limits::run(team, &options))
        }
        Work::Report(flags) => report::draw(&flags.page, &flags.reports),
        Work::Sweep(collective, flags) => {
            sweep::Plan::new(collective, &flags).and_then(|plan| measure(&plan, &arguments))
        }
        Work::Ring(flags) => sweep::Plan::ring(&flags).and_then(|plan| measure(&plan, &arguments)),
        Work::Ragged(flags) => sweep::Plan::ragged(&flags).and_then(|plan| measure(&plan, &arguments)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            // In one piece: other ranks write there at the same time. Where nobody reads, the exit code says enough.
            let _ = std::io::stderr().write_all(format!("sohu-collbench: {failure}\n").as_bytes());
            ExitCode::from(failure.code())
        }
    }
}

fn measure(plan: &sweep::Plan<'_>, arguments: &[OsString]) -> Result<u8, Failure> {
    let flags = plan.flags;
    start(&flags.common, arguments, flags.reproducible, |team| sweep::run(team, plan))
}

/// Does `work` as one rank of a job (with a communicator for reproducible results too, where asked for), or starts the job's ranks when `--ranks` asks for it.
fn start(
    common: &Common,
    arguments: &[OsString],
    reproducible: bool,
    work: impl FnOnce(&mut Team) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    if let (Some(ranks), false) = (common.ranks, common.launched) {
        return launch(ranks, common, arguments);
    }
    if common.launched {
        sohu_coll::launch::die_with_parent();
    }
    if let Some(timeout) = common.timeout {
        host::end_after(timeout, SLACK);
    }
    let mut team = Team::join(common, reproducible)?;
    let rank = team.rank();
    if !common.no_pin {
        host::pin(rank);
    }
    work(&mut team).map_err(|failure| failure.on(rank))
}

/// Starts this program again, once for each rank.
fn launch(ranks: u32, common: &Common, arguments: &[OsString]) -> Result<u8, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::Environment(format!("where this program is can not be told: {error}")))?;
    let again = arguments.iter().skip(1).cloned().chain([OsString::from("--launched")]);
    let mut launch = Launch::new(program, again).ranks(ranks).output(Output::Raw);
    if let Some(timeout) = common.timeout {
        // The ranks end themselves first; this ends those that can not.
        launch = launch.timeout(timeout + 2 * SLACK);
    }
    let ended = launch.run()?;
    // A rank that exits with a code has said why.
    if !matches!(ended, Ended::Well | Ended::Exited { .. }) {
        eprintln!("sohu-collbench: {ended}");
    }
    Ok(ended.code())
}
