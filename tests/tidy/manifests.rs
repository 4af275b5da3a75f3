//! Rules about `Cargo.toml` files, `Cargo.lock` and `deny.toml`.

use super::{files, none, text_of};
use crate::source::Source;

/// A crate that may not be in the lock file, or only from some version on.
struct Floor {
    name: &'static str,
    /// The first version that is good; `None` where none is.
    from: Option<(u64, u64, u64)>,
    why: &'static str,
}

const fn from(name: &'static str, from: (u64, u64, u64), why: &'static str) -> Floor {
    Floor { name, from: Some(from), why }
}

const fn never(name: &'static str, why: &'static str) -> Floor {
    Floor { name, from: None, why }
}

/// Known bad versions. `deny.toml` says the same to cargo-deny; this table works without a network.
const FLOORS: &[Floor] = &[
    never("bincode", "RUSTSEC-2025-0141: unmaintained; 3.0.0 does not compile; see ADR 0006"),
    from("bytes", (1, 11, 1), "RUSTSEC-2026-0007"),
    from("crossbeam-epoch", (0, 9, 20), "RUSTSEC-2026-0204"),
    from("crossbeam-channel", (0, 5, 15), "RUSTSEC-2025-0024"),
    from("memmap2", (0, 9, 11), "RUSTSEC-2026-0186"),
    from("quick-xml", (0, 41, 0), "RUSTSEC-2026-0194, RUSTSEC-2026-0195"),
    from("pyo3", (0, 29, 0), "RUSTSEC-2026-0176, RUSTSEC-2026-0177"),
    from("rkyv", (0, 8, 17), "RUSTSEC-2026-0235"),
    from("rustls-webpki", (0, 103, 13), "RUSTSEC-2026-0098, RUSTSEC-2026-0099, RUSTSEC-2026-0104"),
    from("aws-lc-sys", (0, 39, 0), "RUSTSEC-2026-0044, RUSTSEC-2026-0048"),
    from("snow", (0, 9, 5), "RUSTSEC-2024-0011"),
    from("tracing-subscriber", (0, 3, 20), "RUSTSEC-2025-0055"),
    never("tokio-uring", "no maintainer; pins io-uring 0.6"),
    never("shared_memory", "stale; names its segments in a filesystem"),
    never("memmap", "unmaintained"),
    never("hwloc", "RUSTSEC-2024-0382: unmaintained"),
    never("paste", "RUSTSEC-2024-0436: unmaintained"),
    never("number_prefix", "RUSTSEC-2025-0119: unmaintained"),
    never("atty", "unmaintained; std has `IsTerminal`"),
    never("instant", "unmaintained"),
];

/// What each member may depend on among the crates of this workspace (tests apart).
const DIRECTION: &[(&str, &[&str])] = &[
    ("mem", &[]),
    ("core", &["sohu-coll-mem"]),
    ("algorithms", &["sohu-coll-core"]),
    ("transports/shm", &["sohu-coll-core", "sohu-coll-mem"]),
    ("transports/tcp", &["sohu-coll-core", "sohu-coll-mem"]),
    ("transports/conformance", &["sohu-coll-core", "sohu-coll-mem"]),
    ("tools/collbench", &["sohu-coll"]),
    ("tools/sohu-coll", &["sohu-coll"]),
    ("tools/xtask", &["sohu-coll"]),
];

fn manifests() -> impl Iterator<Item = &'static Source> {
    files().iter().filter(|file| file.path.ends_with("Cargo.toml"))
}

/// The lines of one section of a manifest, `[dependencies]` for one.
fn section<'a>(manifest: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let header = format!("[{name}]");
    let lines = manifest.lines().skip_while(move |line| line.trim() != header).skip(1);
    lines.take_while(|line| !line.starts_with('['))
}

/// The folders that the root manifest lists as members, each with the line above it.
fn members() -> Vec<(&'static str, &'static str)> {
    let lines: Vec<&str> = text_of("Cargo.toml").lines().map(str::trim).collect();
    let start = lines.iter().position(|line| line.starts_with("members")).expect("a workspace has members");
    let inside = lines[start..].windows(2).take_while(|pair| pair[0] != "]");
    let entries = inside.filter(|pair| pair[1].starts_with('"'));
    entries.map(|pair| (pair[1].trim_matches(['"', ',']), pair[0])).collect()
}

#[test]
fn every_member_says_what_it_is_for() {
    let members = members();
    assert!(members.len() >= DIRECTION.len(), "only {} members found", members.len());
    let silent = members
        .into_iter()
        .filter(|(_, above)| above.trim_start_matches('#').trim().is_empty() || !above.starts_with('#'));
    none(silent.map(|(name, _)| name.to_owned()).collect(), "put a one-line comment above these members");
}

#[test]
fn every_member_takes_the_lints_of_the_workspace() {
    let deaf = manifests().filter(|m| !section(&m.text, "lints").any(|line| line == "workspace = true"));
    none(deaf.map(|m| m.path.clone()).collect(), "add `[lints] workspace = true` to these manifests");
}

#[test]
fn dependencies_point_one_way() {
    let mut complaints = Vec::new();
    for (member, _) in members() {
        let Some((_, allowed)) = DIRECTION.iter().find(|(name, _)| *name == member) else {
            complaints.push(format!("{member} is not in the table of tests/tidy/manifests.rs"));
            continue;
        };
        let manifest = text_of_manifest(member);
        let named = section(manifest, "dependencies").filter_map(|line| line.split(['.', ' ', '=']).next());
        let wrong = named.filter(|name| name.starts_with("sohu-coll") && !allowed.contains(name));
        complaints.extend(wrong.map(|name| format!("{member} depends on {name}")));
    }
    none(complaints, "the direction is mem <- core <- algorithms, transports <- sohu-coll <- tools");
}

fn text_of_manifest(member: &str) -> &'static str {
    text_of(&format!("{member}/Cargo.toml"))
}

#[test]
fn mem_depends_on_nothing() {
    let named = section(text_of_manifest("mem"), "dependencies").filter(|line| line.contains('='));
    none(named.map(str::to_owned).collect(), "mem has no dependencies, so that loom can explore all of it");
}

#[test]
fn versions_are_given_once_in_the_root_manifest() {
    let mut complaints = Vec::new();
    for manifest in manifests() {
        for name in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let own =
                section(&manifest.text, name).filter(|line| line.contains('=') && !line.starts_with('#'));
            let own = own.filter(|line| !line.contains("workspace = true"));
            complaints.extend(own.map(|line| format!("{}: {line}", manifest.path)));
        }
    }
    none(complaints, "move the version to [workspace.dependencies] and write `name.workspace = true`");
}

#[test]
fn no_known_bad_version_is_locked() {
    let mut complaints = Vec::new();
    let mut packages = 0;
    for package in text_of("Cargo.lock").split("[[package]]").skip(1) {
        let field = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key));
            line.expect("every locked package has a name and a version").trim_matches('"')
        };
        let (name, version) = (field("name = "), field("version = "));
        packages += 1;
        for floor in FLOORS.iter().filter(|floor| floor.name == name) {
            if floor.from.is_none_or(|first_good| number(version) < first_good) {
                complaints.push(format!("{name} {version}: {}", floor.why));
            }
        }
    }
    assert!(packages > 10, "only {packages} packages found in Cargo.lock");
    none(complaints, "these are banned; take another crate or `cargo update -p` to a good version");
}

/// `1.11.1-rc.1+build` as `(1, 11, 1)`.
fn number(version: &str) -> (u64, u64, u64) {
    let digits = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = digits.split('.').map(|part| part.parse().expect("a version is numbers and dots"));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

#[test]
fn deny_toml_bans_the_same_crates() {
    let deny = text_of("deny.toml");
    let unsaid = FLOORS.iter().filter(|floor| {
        let spec = match floor.from {
            Some((major, minor, patch)) => format!("\"{}:<{major}.{minor}.{patch}\"", floor.name),
            None => format!("\"{}\"", floor.name),
        };
        !deny.contains(&spec)
    });
    none(unsaid.map(|floor| floor.name.to_owned()).collect(), "add these to `deny` in deny.toml");
}

#[test]
fn versions_compare_as_numbers() {
    assert_eq!(number("0.103.13"), (0, 103, 13));
    assert!(number("1.9.0") < number("1.11.1"));
    assert_eq!(number("1.1.3+spec-1.1.0"), (1, 1, 3));
}
