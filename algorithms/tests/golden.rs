//! What every algorithm writes at 4 ranks is what the files in `golden/` say.
//!
//! The files are not edited by hand: `cargo xtask golden` writes them, and the diff is reviewed.

use sohu_coll_algorithms::{golden_files, golden_text};
use sohu_coll_core::Collective;
use sohu_coll_core::plan::text;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The lines around the first difference, marked as a diff marks them.
fn difference(old: &str, new: &str) -> String {
    const SHOWN: usize = 6; // lines of either side
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    // The program that the difference is in.
    let from = old[..same].iter().rposition(|l| l.starts_with("program")).unwrap_or(0);
    let tail = |lines: &[&str], mark: &str| -> String {
        lines[same..].iter().take(SHOWN).map(|l| format!("{mark} {l}\n")).collect()
    };
    let head = old.get(from).filter(|_| from < same).map_or(String::new(), |l| format!("  {l}\n  ...\n"));
    format!("line {}:\n{head}{}{}", same + 1, tail(&old, "-"), tail(&new, "+"))
}

#[test]
fn programs_are_those_of_the_golden_files() {
    let mut wrong = String::new();
    let files = golden_files();
    for (name, text) in &files {
        match fs::read_to_string(folder().join(name)) {
            Err(error) => wrong += &format!("\n{name}: {error}\n"),
            Ok(golden) if golden != *text => wrong += &format!("\n{name}, {}", difference(&golden, text)),
            Ok(_) => {}
        }
    }
    let known: BTreeSet<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    for entry in fs::read_dir(folder()).expect("the golden files are in the source tree") {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !known.contains(name.as_str()) {
            wrong += &format!("\n{name}: no algorithm writes this any more\n");
        }
    }
    assert!(
        wrong.is_empty(),
        "{wrong}\nif that is meant: `cargo xtask golden` writes the files anew; review the diff"
    );
}

#[test]
fn every_golden_program_reads_back() {
    for (name, text) in golden_files() {
        for rank in text.split("\n\n") {
            let program = rank.split("passes ").next().unwrap();
            let back = text::parse(program).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(back.to_string().trim_end(), program.trim_end(), "{name}");
        }
    }
}

#[test]
fn there_is_no_text_for_what_does_not_exist() {
    assert_eq!(golden_text("tree", Collective::AllReduce, 4, false), None);
    assert_eq!(golden_text("two_shot", Collective::AllGather, 4, false), None);
    assert_eq!(golden_text("ring", Collective::AllReduce, 0, false), None);
    assert!(golden_text("ring", Collective::AllReduce, 1, false).is_some());
}

#[test]
fn the_difference_shows_both_sides_and_the_program() {
    let found = difference("program a\n 0 x\n 1 y\n", "program a\n 0 x\n 1 z\n");
    assert_eq!(found, "line 3:\n  program a\n  ...\n-  1 y\n+  1 z\n");
}
