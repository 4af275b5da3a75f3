//! Rules about the documents: what they promise is there, and what they name exists.

use super::{files, none, rust, text_of};
use crate::source::Source;
use std::path::{Component, Path, PathBuf};

/// The command of README that shows a table.
const BENCH_COMMAND: &str =
    "cargo run --release --bin sohu-collbench -- all_reduce --ranks 2 -b 8 -e 64M -f 4";
/// The command of README that runs every test.
const TEST_COMMAND: &str = "cargo test --workspace";

fn documents() -> impl Iterator<Item = &'static Source> {
    files().iter().filter(|file| file.path.ends_with(".md"))
}

fn decisions() -> Vec<&'static Source> {
    documents()
        .filter(|file| file.path.starts_with("docs/adr/") && !file.path.ends_with("README.md"))
        .collect()
}

#[test]
fn decisions_are_numbered_without_gaps() {
    let decisions = decisions();
    assert!(decisions.len() >= 8, "only {} decisions found in docs/adr", decisions.len());
    let wrong = decisions.iter().enumerate().filter(|(index, file)| {
        let start = format!("docs/adr/{:04}-", index + 1);
        !file.path.starts_with(&start) || !file.text.starts_with(&format!("# {}. ", index + 1))
    });
    none(
        wrong.map(|(_, file)| file.path.clone()).collect(),
        "name decisions docs/adr/NNNN-title.md, in a row, each opening with `# N. Title`",
    );
}

#[test]
fn every_decision_has_a_status_and_its_price() {
    let parts = ["Status: ", "## Context", "## Choice", "## What we gave up"];
    let mut complaints = Vec::new();
    for file in decisions() {
        let missing = parts.iter().filter(|part| !file.text.lines().any(|line| line.starts_with(*part)));
        complaints.extend(missing.map(|part| format!("{}: no `{part}`", file.path)));
    }
    none(complaints, "a decision has a status, a context, a choice and what was given up");
}

#[test]
fn every_decision_is_linked_from_the_architecture() {
    let architecture = text_of("ARCHITECTURE.md");
    let unlinked = decisions().into_iter().filter(|file| !architecture.contains(&format!("({})", file.path)));
    none(unlinked.map(|file| file.path.clone()).collect(), "link these from ARCHITECTURE.md");
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut complaints = Vec::new();
    for file in documents() {
        let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        for (number, line) in file.text.lines().enumerate() {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
            let local = targets.filter(|target| !target.is_empty() && !target.contains("://"));
            let dead = local.filter(|target| !root.join(plain(&folder.join(target))).exists());
            complaints.extend(dead.map(|target| format!("{}: {target}", file.at(number))));
        }
    }
    none(complaints, "these links lead nowhere");
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::Normal(name) => plain.push(name),
            _ => {}
        }
    }
    plain
}

#[test]
fn readme_shows_the_commands_that_ci_runs() {
    let (readme, xtask, ci) = (text_of("README.md"), text_of("tools/xtask/src/main.rs"), text_of(".ci/run"));
    for command in [BENCH_COMMAND, TEST_COMMAND] {
        assert!(readme.contains(command), "README.md does not show `{command}`");
        let arguments = command.trim_start_matches("cargo ");
        assert!(xtask.contains(arguments), "`cargo xtask ci` does not run `{command}`");
    }
    assert!(ci.contains("cargo xtask ci"), ".ci/run does not run `cargo xtask ci`");
}

#[test]
fn readme_shows_the_example_that_is_compiled() {
    let example = text_of("examples/all_reduce.rs");
    let code: Vec<&str> =
        example.lines().skip_while(|line| line.starts_with("//!") || line.is_empty()).collect();
    assert!(
        text_of("README.md").contains(&code.join("\n")),
        "the example in README.md differs from examples/all_reduce.rs; copy it from there"
    );
}

#[test]
fn readme_explains_every_setting() {
    let (readme, config) = (text_of("README.md"), text_of("src/config.rs"));
    let quoted = config.split('"').filter(|text| text.len() > "SOHU_COLL_".len());
    let settings = quoted.filter(|text| text.strip_prefix("SOHU_COLL_").is_some_and(is_upper));
    let unsaid = settings.filter(|name| !readme.contains(&format!("`{name}`")));
    none(unsaid.map(str::to_owned).collect(), "add these to the settings of README.md");
}

fn is_upper(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

#[test]
fn architecture_names_every_folder_with_code() {
    let architecture = text_of("ARCHITECTURE.md");
    let mut folders: Vec<&str> = rust().filter_map(|file| file.path.split("/src/").next()).collect();
    folders.retain(|folder| !folder.ends_with(".rs") && !folder.starts_with("src/"));
    folders.sort_unstable();
    folders.dedup();
    let unnamed = folders.into_iter().filter(|folder| !architecture.contains(&format!("{folder}/")));
    none(unnamed.map(str::to_owned).collect(), "add these folders to the code map of ARCHITECTURE.md");
}
