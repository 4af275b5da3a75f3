//! `sohu-coll`: the launcher of ranks on this host.
//!
//! Invariant: when it exits, no rank it started is left, and its exit code says how the job ended.

mod cli;

use clap::Parser;
use cli::{Cli, Task};
use sohu_coll::Error;
use sohu_coll::launch::{Ended, Launch, Output};
use std::process::ExitCode;

/// Exit codes of the launcher itself; any other is a rank's.
mod code {
    /// The command line makes no sense.
    pub(crate) const USAGE: u8 = 2;
    /// The host would not do what is needed.
    pub(crate) const ENVIRONMENT: u8 = 5;
}

fn main() -> ExitCode {
    let Task::Run(run) = Cli::parse().task;
    match launch(&run).run() {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(ended) => {
            // A reader that has left does not want to be told.
            if ended != Ended::Unread {
                eprintln!("sohu-coll: {ended}");
            }
            ExitCode::from(ended.code())
        }
        Err(error) => {
            eprintln!("sohu-coll: {error}");
            ExitCode::from(if matches!(error, Error::Misuse(_)) { code::USAGE } else { code::ENVIRONMENT })
        }
    }
}

/// The job that the command line asks for.
fn launch(run: &cli::Run) -> Launch {
    let (program, arguments) = run.program.split_first().expect("the command line has a program");
    let mut launch = Launch::new(program, arguments).ranks(run.ranks);
    if run.no_prefix {
        launch = launch.output(Output::Raw);
    }
    if let Some(timeout) = run.timeout {
        launch = launch.timeout(timeout);
    }
    if let Some(transport) = run.transport {
        launch = launch.env("SOHU_COLL_TRANSPORT", transport.name());
    }
    for (name, value) in &run.env {
        launch = launch.env(name, value);
    }
    launch
}
