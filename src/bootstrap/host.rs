//! What this process can find out about itself and the host it runs on.
//!
//! Invariant: nothing here is secret and nothing is trusted; it names processes in messages, helps to
//! choose cores, and keeps the ids of two jobs apart.

use serde::{Deserialize, Serialize};
use std::fs;

/// The most processors one rank reports: as many as the kernel's own mask holds.
const CPUS_MAX: usize = 1024;
/// The longest host name that is reported, in bytes. Linux allows 64.
const HOST_BYTES_MAX: usize = 64;
/// How many ancestors are asked whether they are the launcher.
const ANCESTORS_MAX: usize = 16;

/// What a rank tells every other rank about where it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostFacts {
    /// Its process id, as the process itself sees it.
    pub(crate) pid: u32,
    /// The name of its host.
    pub(crate) host: String,
    /// The processors it may run on, in ascending order.
    pub(crate) cpus: Vec<u32>,
}

impl HostFacts {
    /// The facts of this process, as of now. What can not be found out is left empty.
    pub(crate) fn of_this_process() -> Self {
        let cpus = match rustix::thread::sched_getaffinity(None) {
            Ok(set) => (0..CPUS_MAX).filter(|cpu| set.is_set(*cpu)).map(|cpu| cpu as u32).collect(),
            Err(_) => Vec::new(),
        };
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self { pid: std::process::id(), host: host.trim().to_owned(), cpus }
    }

    /// The same facts, cut to what one message may carry.
    pub(super) fn bounded(mut self) -> Self {
        self.cpus.truncate(CPUS_MAX);
        self.host = clip(&self.host, HOST_BYTES_MAX);
        self
    }
}

/// What tells one job on this host from another where no job id was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostIdentity {
    /// The kernel's id of this boot, or empty.
    pub(crate) boot: String,
    /// Process id and start time (in ticks since boot) of the launcher's process that started this rank.
    pub(crate) launcher: Option<(u32, u64)>,
}

impl HostIdentity {
    /// The identity of this host, and of the nearest ancestor whose name is `launcher`; where none has that name, of
    /// the parent. (A rank that is started through a shell has the shell for a parent.)
    pub(crate) fn here(launcher: &str) -> Self {
        let boot =
            fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let mut ancestors = Vec::new();
        let mut next = Process::read(std::process::id()).map(|p| p.parent);
        while let Some(process) = next.filter(|_| ancestors.len() < ANCESTORS_MAX).and_then(Process::read) {
            next = Some(process.parent).filter(|parent| *parent != 0);
            ancestors.push(process);
        }
        let found = ancestors.iter().find(|p| p.name == launcher).or(ancestors.first());
        Self { boot, launcher: found.map(|p| (p.pid, p.started)) }
    }
}

/// One line of the kernel's process table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its process id.
    pub(crate) pid: u32,
    /// Its name, at most 15 bytes.
    pub(crate) name: String,
    /// What it is doing: `R` running, `S` sleeping, `T` stopped by a signal, `Z` dead and not yet waited for...
    pub(crate) state: char,
    /// Its parent.
    pub(crate) parent: u32,
    /// When it started, in ticks since boot.
    pub(crate) started: u64,
}

impl Process {
    /// Asks the kernel; `None` when there is no such process.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name may hold blanks and brackets, so the fields are counted from the last bracket.
        let (opening, closing) = (stat.find('(')?, stat.rfind(')')?);
        let fields: Vec<&str> = stat.get(closing + 1..)?.split_whitespace().collect();
        Some(Self {
            pid: stat.get(..opening)?.trim().parse().ok()?,
            name: stat.get(opening + 1..closing)?.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

/// The text, cut to `bytes_max` bytes at the border of a character.
pub(crate) fn clip(text: &str, bytes_max: usize) -> String {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_name_has_brackets_is_read() {
        let stat = "12 (a) (b c) T 7 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 8899 0 0";
        let process = Process::parse(stat).unwrap();
        assert_eq!(
            process,
            Process { pid: 12, name: "a) (b c".into(), state: 'T', parent: 7, started: 8899 }
        );
        assert_eq!(Process::parse("12 (cut"), None);
        assert_eq!(Process::parse(""), None);
    }

    #[test]
    fn this_process_has_facts() {
        let facts = HostFacts::of_this_process();
        assert_eq!(facts.pid, std::process::id());
        assert!(!facts.cpus.is_empty());
        assert_eq!(Process::read(facts.pid).unwrap().pid, facts.pid);
    }

    #[test]
    fn two_looks_at_the_host_agree() {
        let here = HostIdentity::here("no such launcher");
        assert_eq!(here, HostIdentity::here("no such launcher"));
        assert!(here.launcher.is_some());
    }

    #[test]
    fn clipping_keeps_whole_characters() {
        assert_eq!(clip("abc", 5), "abc");
        assert_eq!(clip("abc", 2), "ab");
        assert_eq!(clip("aé", 2), "a");
        assert_eq!(clip("", 0), "");
    }
}
