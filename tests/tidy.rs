//! The house rules, as tests: each rule of `CONTRIBUTING.md` and each invariant of `ARCHITECTURE.md` that the
//! compiler, Cargo or clippy can not hold by itself.
//!
//! A failing rule lists every place that breaks it and says what to do instead.

#[path = "tidy/manifests.rs"]
mod manifests;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/source.rs"]
mod source;

use source::{Source, has_word, tree, words};
use std::path::Path;
use std::sync::OnceLock;

/// The most lines of a file.
const FILE_LINES_MAX: usize = 500;
/// The most lines of a function, from its `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Functions that are longer, with the most lines each may have: a ratchet, to be lowered and never raised.
const LONGER_FUNCTIONS: &[(&str, &str, usize)] = &[];
/// Lines of code that may stand between an unsafe block and its proof.
const SAFETY_LINES_MAX: usize = 6;
/// Lines of code that may stand between an ordering and the comment that names its partner.
const PARTNER_LINES_MAX: usize = 4;

/// Where `unsafe` may stand, by start of path.
const UNSAFE_HOMES: &[&str] = &["mem/", "transports/shm/", "core/src/kernel/", "tests/alloc.rs"];

/// Signs of unfinished work. Cut in two, so that this file does not have them.
const UNFINISHED: &[&str] = &[
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
    concat!("db", "g!"),
    concat!("#[", "ignore"),
];

/// Folders of somebody's machine. Cut in two, like the signs above.
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

/// Every file of the repository, read once.
fn files() -> &'static [Source] {
    static FILES: OnceLock<Vec<Source>> = OnceLock::new();
    FILES.get_or_init(|| tree(Path::new(env!("CARGO_MANIFEST_DIR"))))
}

/// Every Rust file.
fn rust() -> impl Iterator<Item = &'static Source> {
    files().iter().filter(|file| file.path.ends_with(".rs"))
}

/// Every Rust file under `folder`.
fn under(folder: &str) -> impl Iterator<Item = &'static Source> {
    rust().filter(move |file| file.path.starts_with(folder))
}

/// The text of one file.
fn text_of(path: &str) -> &'static str {
    let file = files().iter().find(|file| file.path == path);
    &file.unwrap_or_else(|| panic!("{path} is missing")).text
}

/// Fails with every complaint and what to do about them.
#[track_caller]
fn none(complaints: Vec<String>, remedy: &str) {
    assert!(complaints.is_empty(), "{remedy}:\n  {}\n", complaints.join("\n  "));
}

/// Complains about every shipped line of `files` that names one of `banned`.
fn banned_words(files: impl Iterator<Item = &'static Source>, banned: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (line, code) in file.shipped() {
            let named = banned.iter().filter(|word| has_word(code, word));
            complaints.extend(named.map(|word| format!("{} names {word}", file.at(line))));
        }
    }
    complaints
}

/// Complains about everything of `banned` that `files` name directly under the crate `root`.
fn banned_names(files: impl Iterator<Item = &'static Source>, root: &str, banned: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let names = file.names_under(root).into_iter().filter(|(_, name)| banned.contains(&name.as_str()));
        complaints.extend(names.map(|(line, name)| format!("{} names {root}::{name}", file.at(line))));
    }
    complaints
}

#[test]
fn the_tree_is_found() {
    assert!(rust().count() > 20, "only {} Rust files found", rust().count());
    for path in ["src/lib.rs", "core/src/lib.rs", "mem/src/lib.rs", "tests/tidy.rs", ".ci/run", "Cargo.lock"]
    {
        text_of(path);
    }
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let long = rust().filter(|file| file.text.lines().count() > FILE_LINES_MAX);
    let complaints = long.map(|file| format!("{}: {} lines", file.path, file.text.lines().count()));
    none(complaints.collect(), "split these files where the idea splits");
}

#[test]
fn no_function_is_longer_than_70_lines() {
    let mut complaints = Vec::new();
    for file in rust() {
        for function in file.functions() {
            let granted = LONGER_FUNCTIONS
                .iter()
                .find(|(path, name, _)| file.path == *path && function.name == *name)
                .map_or(FUNCTION_LINES_MAX, |&(_, _, lines)| lines);
            if function.lines > granted {
                let at = file.at(function.line);
                complaints.push(format!("{at}: `{}` has {} lines", function.name, function.lines));
            }
        }
    }
    none(complaints, "split these functions: branches in the parent, loops in the leaf");
}

#[test]
fn every_file_says_what_it_is_for() {
    // The tests of a module are for that module.
    let silent = rust().filter(|file| !is_module_test(file)).filter(|file| {
        let first = file.text.lines().find(|line| !line.trim().is_empty());
        first.is_some_and(|line| !line.starts_with("//!") || line.trim() == "//!")
    });
    none(silent.map(|file| file.path.clone()).collect(), "open these files with `//!` and what they are for");
}

/// Whether the file holds the tests of one module, beside it.
fn is_module_test(file: &Source) -> bool {
    file.path.ends_with("/tests.rs") || file.path.contains("/tests/")
}

#[test]
fn nothing_is_left_unfinished() {
    let mut complaints = Vec::new();
    for file in rust() {
        for (number, line) in file.text.lines().enumerate() {
            let signs = UNFINISHED.iter().filter(|sign| line.contains(*sign));
            complaints.extend(signs.map(|sign| format!("{}: {sign}", file.at(number))));
        }
    }
    none(complaints, "finish these, or take them out");
}

#[test]
fn no_path_of_one_machine_is_named() {
    let mut complaints = Vec::new();
    for file in files() {
        for (number, line) in file.text.lines().enumerate() {
            let named = MACHINE_PATHS.iter().filter(|path| line.contains(*path));
            complaints.extend(named.map(|path| format!("{}: {path}", file.at(number))));
        }
    }
    none(complaints, "name these by a path relative to the repository");
}

#[test]
fn unsafe_stays_in_its_homes() {
    let mut complaints = Vec::new();
    for file in rust().filter(|file| !UNSAFE_HOMES.iter().any(|home| file.path.starts_with(home))) {
        let lines = file.code.iter().enumerate().filter(|(_, code)| has_word(code, "unsafe"));
        complaints.extend(lines.map(|(line, _)| file.at(line)));
    }
    none(complaints, &format!("`unsafe` may stand in {UNSAFE_HOMES:?} only; a new home needs an ADR"));
}

#[test]
fn every_unsafe_block_is_proven() {
    let mut complaints = Vec::new();
    for file in rust() {
        let code = file.code.join("\n");
        for at in words(&code, "unsafe") {
            let next = code[at + "unsafe".len()..].trim_start();
            let line = code[..at].matches('\n').count();
            let block = next.starts_with('{') || next.starts_with("impl");
            if block && !file.commented(line, SAFETY_LINES_MAX, "SAFETY:") {
                complaints.push(file.at(line));
            }
        }
    }
    none(complaints, "write `// SAFETY:` and the proof above these unsafe blocks");
}

#[test]
fn atomics_are_named_in_one_file() {
    let elsewhere = rust().filter(|file| file.path != "mem/src/words.rs");
    let mut complaints = Vec::new();
    for file in elsewhere {
        let lines = file.shipped().filter(|(_, code)| code.contains("sync::atomic"));
        complaints.extend(lines.map(|(line, _)| file.at(line)));
    }
    none(complaints, "use `sohu_coll_mem::words`; atomics are named in mem/src/words.rs only");
}

#[test]
fn every_ordering_names_its_partner() {
    let mut complaints = Vec::new();
    for file in under("mem/src/") {
        for (line, code) in file.shipped().filter(|(_, code)| !code.trim_start().starts_with("use ")) {
            // `O::` is an ordering that a test can weaken: see `mem::words::Orders`.
            let strong = ["Acquire", "Release", "AcqRel", "SeqCst", "O"].into_iter();
            let strong =
                strong.filter(|name| *name != "O" || code.contains("O::")).find(|o| has_word(code, o));
            let named =
                ["airs with", "artner"].iter().any(|word| file.commented(line, PARTNER_LINES_MAX, word));
            if let (Some(ordering), false) = (strong, named) {
                complaints.push(format!("{}: {ordering}", file.at(line)));
            }
        }
    }
    none(complaints, "say above these orderings what each pairs with: `// Pairs with the Acquire in ...`");
}

#[test]
fn environment_variables_are_read_in_one_file() {
    let mut complaints = Vec::new();
    for file in rust().filter(|file| file.path != "src/config.rs") {
        let calls = ["env::var", "env::set_var", "env::remove_var"];
        let lines = file.code.iter().enumerate().filter(|(_, code)| calls.iter().any(|c| code.contains(c)));
        complaints.extend(lines.map(|(line, _)| file.at(line)));
    }
    none(complaints, "read these in src/config.rs and hand the value down");
}

#[test]
fn core_does_no_io_and_owns_no_clock() {
    let mut complaints = banned_names(under("core/src/"), "std", &["net", "thread", "env", "fs", "process"]);
    complaints.extend(banned_words(under("core/src/"), &["Instant", "SystemTime", "tokio", "rustix"]));
    none(complaints, "core is handed its world: move this to src/ or to a transport");
}

#[test]
fn algorithms_see_programs_and_nothing_else() {
    let banned = ["net", "thread", "env", "fs", "process"];
    let mut complaints = banned_names(under("algorithms/src/"), "std", &banned);
    complaints.extend(banned_names(under("algorithms/src/"), "sohu_coll_core", &["exec", "kernel", "link"]));
    complaints.extend(banned_words(
        under("algorithms/src/"),
        &["Instant", "SystemTime", "Links", "View", "ViewMut", "sohu_coll_mem"],
    ));
    none(complaints, "an algorithm is a pure writer of programs: no link, thread, clock or bytes");
}

#[test]
fn transports_see_bytes_and_nothing_else() {
    let transports = ["sohu_coll_shm", "sohu_coll_tcp", "sohu_coll_algorithms"];
    let meaning = ["plan", "exec", "kernel", "element", "topology", "DType", "ReduceOp", "Element"];
    let mut complaints = Vec::new();
    for (folder, own) in [("transports/shm/src/", "sohu_coll_shm"), ("transports/tcp/src/", "sohu_coll_tcp")]
    {
        let others: Vec<&str> = transports.into_iter().filter(|name| *name != own).collect();
        complaints.extend(banned_words(under(folder), &others));
        complaints.extend(banned_names(under(folder), "sohu_coll_core", &meaning));
    }
    complaints.extend(banned_words(under("transports/conformance/src/"), &transports));
    complaints.extend(banned_names(
        under("transports/conformance/src/"),
        "sohu_coll_core",
        &["plan", "exec", "kernel"],
    ));
    none(complaints, "a transport moves bytes: it knows no plan, type, operation or other transport");
}

#[test]
fn tools_use_the_facade_alone() {
    let inner = ["sohu_coll_core", "sohu_coll_mem", "sohu_coll_algorithms", "sohu_coll_shm", "sohu_coll_tcp"];
    let tools = ["tools/collbench/", "tools/sohu-coll/", "examples/"];
    let complaints = tools.into_iter().flat_map(|folder| banned_words(under(folder), &inner));
    none(
        complaints.collect(),
        "a tool uses the public items of `sohu_coll`; re-export there what is missing",
    );
}

#[test]
fn async_stays_in_the_bootstrap() {
    let data_path = rust().filter(|file| !file.path.starts_with("src/bootstrap"));
    none(banned_words(data_path, &["async", "await", "tokio"]), "links and calls are polled; see ADR 0005");
}

#[test]
fn strings_comments_and_tests_are_told_from_code() {
    let text = r##"//! unsafe
fn a<'x>(s: &'x str) -> char { /* { /* nested */ unsafe */ let _ = ("} unsafe", r#"" unsafe"#, b'\''); '{' }
#[cfg(test)]
mod tests {
    fn b() { unsafe {} }
}
fn c() {}
"##;
    let file = Source::new("x.rs", text.to_owned());
    let code: Vec<usize> =
        file.code.iter().enumerate().filter(|(_, c)| has_word(c, "unsafe")).map(|(l, _)| l).collect();
    assert_eq!(code, [4], "unsafe is code on line 5 alone");
    assert!(file.shipped().all(|(_, code)| !has_word(code, "unsafe")), "and that line is a test");
    let functions: Vec<(String, usize)> = file.functions().into_iter().map(|f| (f.name, f.lines)).collect();
    assert_eq!(functions, [("a".to_owned(), 1), ("b".to_owned(), 1), ("c".to_owned(), 1)]);
}

#[test]
fn grouped_imports_are_seen() {
    let file = Source::new("x.rs", "use std::{env, fs::File};\nlet x = std::net::TcpStream;\n".to_owned());
    let names: Vec<(usize, String)> = file.names_under("std");
    let expected = [(0, "env"), (0, "fs"), (0, "File"), (1, "net")].map(|(l, n)| (l, n.to_owned()));
    assert_eq!(names, expected);
}
