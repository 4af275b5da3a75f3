//! What this process holds of the host, as the kernel counts it.

use core::fmt;
use std::fs;

/// How much more memory at the end is no leak: a tenth, and what caches that still fill take.
const GROWTH_MAX_KIB: u64 = 8 << 10;

/// The allocator may split or join its own mappings by one; what leaks grows with the calls.
const MAPPINGS_SLACK: u64 = 1;

/// What is held at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    descriptors: u64,
    threads: u64,
    mappings: u64,
    resident_kib: u64,
}

impl Usage {
    /// What is held now.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(super) fn now() -> Result<Self, String> {
        let fail = |error: std::io::Error| format!("what this process holds can not be read: {error}");
        let status = fs::read_to_string("/proc/self/status").map_err(fail)?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            word.ok_or_else(|| format!("the kernel does not tell {name} of this process"))
        };
        Ok(Self {
            // The folder itself is open while it is read, each time.
            descriptors: fs::read_dir("/proc/self/fd").map_err(fail)?.count() as u64,
            threads: field("Threads:")?,
            mappings: fs::read_to_string("/proc/self/maps").map_err(fail)?.lines().count() as u64,
            resident_kib: field("VmRSS:")?,
        })
    }

    /// The same as numbers that ranks can send.
    pub(super) fn words(&self) -> [u64; 4] {
        [self.descriptors, self.threads, self.mappings, self.resident_kib]
    }

    /// Reads such numbers.
    ///
    /// # Panics
    /// When there are not four.
    pub(super) fn of(words: &[u64]) -> Self {
        let &[descriptors, threads, mappings, resident_kib] = words else {
            panic!("a usage is four words, not {}", words.len())
        };
        Self { descriptors, threads, mappings, resident_kib }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptors, threads, mappings, resident_kib } = self;
        write!(
            f,
            "descriptors {descriptors}, threads {threads}, mappings {mappings}, resident {resident_kib} KiB"
        )
    }
}

/// What has grown from `first` to `last` that must not.
pub(super) fn judged(first: &Usage, last: &Usage) -> Option<String> {
    let mut grown = Vec::new();
    let mut hold = |name: &str, found: u64, most: u64| {
        if found > most {
            grown.push(format!("{found} {name} are more than {most}"));
        }
    };
    hold("descriptors", last.descriptors, first.descriptors);
    hold("threads", last.threads, first.threads);
    hold("mappings", last.mappings, first.mappings + MAPPINGS_SLACK);
    let most = first.resident_kib + first.resident_kib / 10 + GROWTH_MAX_KIB;
    hold("KiB of resident memory", last.resident_kib, most);
    (!grown.is_empty()).then(|| grown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_holds_is_counted_and_can_be_sent() {
        let now = Usage::now().expect("a process can see itself");
        assert!(
            now.descriptors > 2 && now.threads > 0 && now.mappings > 5 && now.resident_kib > 100,
            "{now}"
        );
        assert_eq!(Usage::of(&now.words()), now);
    }

    #[test]
    fn what_grows_is_told_and_what_may_grow_is_not() {
        let first = Usage { descriptors: 10, threads: 1, mappings: 50, resident_kib: 100_000 };
        let most = Usage { mappings: 51, resident_kib: 110_000 + (8 << 10), ..first };
        assert_eq!(judged(&first, &most), None);
        for (last, word) in [
            (Usage { descriptors: 11, ..first }, "11 descriptors"),
            (Usage { threads: 2, ..first }, "2 threads"),
            (Usage { mappings: 52, ..first }, "52 mappings"),
            (Usage { resident_kib: most.resident_kib + 1, ..first }, "KiB of resident memory"),
        ] {
            let complaint = judged(&first, &last).expect(word);
            assert!(complaint.contains(word) && !complaint.contains(", "), "{complaint}");
        }
    }
}
