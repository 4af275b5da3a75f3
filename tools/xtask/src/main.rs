//! `cargo xtask`: what CI runs, as commands for everybody.
//!
//! Invariant: CI runs `cargo xtask ci` and nothing else, so what is green here is green there.

mod soak;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

const HELP: &str = "\
What CI runs, as commands.

Usage: cargo xtask <COMMAND>

Commands:
  ci      all of the checks below that CI runs, in order; stops at the first that fails
  fmt     formatting
  lint    clippy on every target, warnings are errors
  test    every test of the workspace
  smoke   two ranks all-reduce over shared memory, every size checked
  golden  writes algorithms/tests/golden anew from the algorithms; read the diff before you commit it
  soak    random calls of several processes, every result checked; soak --help says more
  help    this text
";

/// One check: its name, and what cargo is told to do.
struct Check {
    name: &'static str,
    cargo: &'static str,
}

/// What CI runs, in order: the quickest first. README shows the last two.
const CI: &[Check] = &[
    Check { name: "fmt", cargo: "fmt --all --check" },
    Check { name: "lint", cargo: "clippy --workspace --all-targets -- -D warnings" },
    Check { name: "test", cargo: "test --workspace" },
    Check {
        name: "smoke",
        cargo: "run --release --bin sohu-collbench -- all_reduce --ranks 2 -b 8 -e 64M -f 4",
    },
];

/// Not a check: it changes the tree.
const GOLDEN: Check = Check {
    name: "golden",
    cargo: "run --package sohu-coll-algorithms --example golden -- algorithms/tests/golden",
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["soak", flags @ ..] = words.as_slice() {
        return soak(flags);
    }
    let done = match words.as_slice() {
        ["ci"] => CI.iter().try_for_each(run),
        ["golden"] => run(&GOLDEN),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        [name] => match CI.iter().find(|check| check.name == *name) {
            Some(check) => run(check),
            None => Err(format!("`{name}` is no command\n\n{HELP}")),
        },
        _ => Err(format!("one command, please\n\n{HELP}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Random calls, by processes of this program.
fn soak(flags: &[&str]) -> ExitCode {
    if matches!(flags, ["help" | "--help" | "-h"]) {
        print!("{}", soak::HELP);
        return ExitCode::SUCCESS;
    }
    soak::main(flags).unwrap_or_else(|reason| {
        eprintln!("xtask: soak: {reason}");
        ExitCode::FAILURE
    })
}

/// Runs one check in the root of the repository, and says how long it took.
fn run(check: &Check) -> Result<(), String> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let Check { name, cargo } = check;
    eprintln!("xtask: {name}: cargo {cargo}");
    let started = Instant::now();
    let status = Command::new("cargo")
        .args(cargo.split(' '))
        .current_dir(root)
        .status()
        .map_err(|error| format!("{name}: cargo can not be started: {error}"))?;
    if !status.success() {
        return Err(format!("{name}: `cargo {cargo}` failed: {status}"));
    }
    eprintln!("xtask: {name}: passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}
