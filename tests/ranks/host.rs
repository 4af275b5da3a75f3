//! What the kernel tells about processes: open files, mappings, sockets, states.

use rustix::process::Pid;
use std::collections::BTreeSet;
use std::fs;

/// Open file descriptors of this process.
pub(crate) fn descriptors() -> usize {
    // The folder itself is open while it is read, each time.
    fs::read_dir("/proc/self/fd").expect("a process can see its descriptors").count()
}

/// Mappings of this process, all of them.
pub(crate) fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").expect("a process can see its mappings").lines().count()
}

/// Mappings of shared memory in this process.
pub(crate) fn shared_mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("a process can see its mappings");
    maps.lines().filter(|line| line.contains("/memfd:") || line.contains("/dev/shm")).count()
}

/// To whom the system gives huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HugePages {
    Always,
    /// To those who ask.
    Asked,
    /// To nobody, or there are none of 2 MiB, or they can not be asked for at once: before Linux 6.1.
    Never,
}

/// What this system does.
pub(crate) fn huge_pages() -> HugePages {
    let setting = |name: &str| {
        let path = format!("/sys/kernel/mm/transparent_hugepage/{name}");
        fs::read_to_string(path).unwrap_or_default()
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match setting("enabled") {
        enabled if enabled.contains("[always]") => HugePages::Always,
        enabled
            if enabled.contains("[madvise]")
                && setting("hpage_pmd_size").trim() == "2097152"
                && version >= (6, 1) =>
        {
            HugePages::Asked
        }
        _ => HugePages::Never,
    }
}

/// How many KiB of the mapping that holds `address` are in huge pages.
pub(crate) fn huge_kib_at(address: usize) -> usize {
    let maps = fs::read_to_string("/proc/self/smaps").expect("a process can see its mappings");
    let holds = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some((number(start)?..number(end)?).contains(&address))
    };
    let mut lines = maps.lines().skip_while(|line| holds(line) != Some(true));
    let huge = lines.find_map(|line| line.strip_prefix("AnonHugePages:"));
    huge.and_then(|kib| kib.trim().strip_suffix(" kB")?.parse().ok()).expect("the buffer is mapped")
}

/// The inodes of the sockets that a process has open.
pub(crate) fn sockets(pid: Pid) -> BTreeSet<String> {
    let Ok(folder) = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())) else { return BTreeSet::new() };
    let links = folder.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let inode = |link: std::path::PathBuf| {
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    links.filter_map(inode).collect()
}

/// The unix sockets of the host among `inodes`, as the kernel prints them.
pub(crate) fn unix_sockets(inodes: &BTreeSet<String>) -> Vec<String> {
    let all = fs::read_to_string("/proc/net/unix").expect("a process can see the sockets of its host");
    let ours = |line: &&str| line.split_whitespace().nth(6).is_some_and(|inode| inodes.contains(inode));
    all.lines().filter(ours).map(str::to_owned).collect()
}

/// Files of ours where shared memory with a name would be.
pub(crate) fn named_memory() -> Vec<String> {
    let Ok(folder) = fs::read_dir("/dev/shm") else { return Vec::new() };
    let names = folder.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains("sohu")).collect()
}

/// What a process is doing, and how much it has done: its state (`R`, `S`, `T`, ...) and the clock ticks it has used.
/// `None` when it is gone.
pub(crate) fn state(pid: Pid) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    // The name in parentheses may hold anything, a parenthesis too.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((fields.first()?.chars().next()?, ticks(11)? + ticks(12)?))
}

/// Returns when `pid` is stopped by a signal.
pub(crate) fn wait_until_stopped(pid: Pid) {
    while state(pid).is_some_and(|(state, _)| state != 'T') {
        std::thread::yield_now();
    }
}

/// Returns when `pid`, which is in a call, must be waiting in it: it sleeps, or has worked for some ticks of the clock
/// since, where a tick is a hundred times what the call takes.
pub(crate) fn wait_until_waiting(pid: Pid) {
    const TICKS: u64 = 5;
    let Some((_, begun)) = state(pid) else { return };
    while state(pid).is_some_and(|(state, ticks)| state != 'S' && ticks < begun + TICKS) {
        std::thread::yield_now();
    }
}
