//! The command line of `sohu-coll`.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::time::Duration;

/// Starts the ranks of a job.
#[derive(Debug, Parser)]
#[command(name = "sohu-coll", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// What the launcher does.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Start ranks of a program on this host and wait for all of them
    Run(Run),
}

const EXAMPLES: &str = "\
Each rank finds its number, the size and the job in its environment; Communicator::from_env() reads them.
Output is passed on line by line, opened by its rank. SIGINT, SIGTERM, SIGHUP and SIGQUIT go on to all ranks. When one
rank fails, the others have 2 s to end by themselves, then get SIGTERM, and 2 s later SIGKILL.

Exit code: 0 when every rank exited with 0; else that of the first rank that failed (128 and the signal if one killed it);
2 for a wrong command line, 4 when --timeout passed, 5 when the ranks could not be started.

Examples:
  sohu-coll run -n 4 ./my-program --its --flags
  sohu-coll run -n 2 --timeout 30s -- sohu-collbench all_reduce -b 8 -e 64M -f 4
  sohu-coll run -n 2 --transport tcp --env RUST_BACKTRACE=1 ./my-program";

/// One job.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    /// How many ranks to start
    #[arg(short = 'n', long = "ranks", value_name = "RANKS", value_parser = ranks)]
    pub(crate) ranks: u32,
    /// End the job after this long: 30 or 2.5 for seconds, 500ms, 2.5s, 2m, 1h
    #[arg(long, value_name = "TIME", value_parser = sohu_coll::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Let the ranks write to this terminal themselves, without [rank] before each line
    #[arg(long)]
    pub(crate) no_prefix: bool,
    /// How ranks reach each other (default: the library chooses)
    #[arg(long, value_enum)]
    pub(crate) transport: Option<Transport>,
    /// One more variable in the environment of every rank; can be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// The program, then its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

/// How ranks reach each other.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Transport {
    /// Shared memory.
    Shm,
    /// Sockets on loopback.
    Tcp,
}

impl Transport {
    /// Its name in the environment.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
        }
    }
}

fn ranks(text: &str) -> Result<u32, String> {
    let max = sohu_coll::launch::RANKS_MAX;
    match text.parse() {
        Ok(ranks) if (1..=max).contains(&ranks) => Ok(ranks),
        _ => Err(format!("a job on this host has 1 to {max} ranks")),
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("a variable is NAME=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Run, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| match cli.task {
            Task::Run(run) => run,
        })
    }

    #[test]
    fn flags_after_the_program_are_the_programs() {
        for line in ["sohu-coll run -n 4 prog -n 2 --x", "sohu-coll run -n 4 -- prog -n 2 --x"] {
            let run = run(line).expect("a good line");
            assert_eq!((run.ranks, run.program), (4, ["prog", "-n", "2", "--x"].map(Into::into).to_vec()));
        }
    }

    #[test]
    fn no_rank_no_program_and_bad_times_exit_with_2_and_say_why() {
        for (line, why) in [
            ("sohu-coll run -n 0 prog", "a job on this host has 1 to 1024 ranks"),
            ("sohu-coll run -n x prog", "a job on this host has 1 to 1024 ranks"),
            ("sohu-coll run -n 2", "PROGRAM"),
            ("sohu-coll run prog", "--ranks <RANKS>"),
            (
                "sohu-coll run -n 2 --timeout soon prog",
                "is no time; write 30 or 2.5 for seconds, or 500ms, 2.5s, 2m or 1h",
            ),
            ("sohu-coll run -n 2 --transport shn prog", "'shm'"),
            ("sohu-coll run -n 2 --env X prog", "a variable is NAME=VALUE"),
            ("sohu-coll runn -n 2 prog", "'run'"),
        ] {
            let error = run(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, ms) in [("30", 30_000), ("2.5s", 2_500), ("500ms", 500), ("1h", 3_600_000)] {
            let run = run(&format!("sohu-coll run -n 2 --timeout {text} prog")).expect(text);
            assert_eq!(run.timeout, Some(Duration::from_millis(ms)), "{text}");
        }
    }
}
