//! This rank's process on its host: its core, its name, its clock.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Binds this thread to one of the cores it may use: the one with the rank's number, counted round.
/// A host that refuses is measured without.
pub(crate) fn pin(rank: u32) {
    let cores = cores();
    if let Some(&core) = cores.get(rank as usize % cores.len().max(1)) {
        let mut only = CpuSet::new();
        only.set(core);
        if let Err(error) = sched_setaffinity(None, &only) {
            eprintln!("sohu-collbench: rank {rank} is not bound to core {core}: {error}");
        }
    }
}

/// The cores this thread may use, in order.
pub(crate) fn cores() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

/// How many cores the host has running.
pub(crate) fn online() -> usize {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines().filter(|line| line.starts_with("processor")).count()
}

/// Ends this process with the exit code of a timeout, `slack` after the `given` time, wherever it hangs then.
pub(crate) fn end_after(given: Duration, slack: Duration) {
    std::thread::spawn(move || {
        let start = std::time::Instant::now();
        while let Some(left) = (given + slack).checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left);
        }
        eprintln!(
            "sohu-collbench: timeout: the job was not done after {given:?}; raise --timeout if that is expected"
        );
        std::process::exit(4);
    });
}

/// The name of the host.
pub(crate) fn name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".into() } else { name.trim().into() }
}

/// The model of the processor.
pub(crate) fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    model.and_then(|line| line.split_once(": ")).map_or_else(|| "CPU".into(), |(_, name)| name.into())
}

/// The time of day as nccl-tests writes it, in UTC: `2026-11-22 13:45:18`.
pub(crate) fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    stamp(seconds)
}

/// Seconds since 1970 as a date. Days become dates by counting 400-year eras from 1 March of year 0, where
/// leap days come last.
fn stamp(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0 is March
    let date = day - (153 * month + 2) / 5 + 1;
    let (year, month) =
        if month < 10 { (era * 400 + year, month + 3) } else { (era * 400 + year + 1, month - 9) };
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_799, "2000-02-29 23:59:59"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_704_067_199, "2023-12-31 23:59:59"),
            (1_795_355_118, "2026-11-22 13:45:18"),
        ] {
            assert_eq!(stamp(seconds), text);
        }
    }

    #[test]
    fn a_thread_may_use_at_least_one_core() {
        assert!(!cores().is_empty());
    }
}
