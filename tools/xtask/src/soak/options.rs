//! The flags of `cargo xtask soak`.

use sohu_coll::TransportKind;

/// What the command line can be.
pub(crate) const HELP: &str = "\
Real processes make random calls, and every result is checked.

Usage: cargo xtask soak [--seconds 120 | --until CALL | --cycles 10000] [FLAGS]

  --seconds N         for how long; 120 unless set
  --seed S            which calls; 1 unless set. If it is odd, a proxy thread drives those that are started
  --ranks N           1 to 8; 2 unless set
  --transport NAME    shm (unless set) or tcp
  --until CALL        makes the calls before this number and ends, however long they take
  --from CALL         leaves out the chapters (64 calls each) before this number
  --cycles N          makes, uses and drops a communicator so many times instead, and looks for what is left of it
";

/// The most ranks: with more, sums of the smallest floats have no room for all their digits.
const RANKS_MAX: u32 = 8;

/// What is to be done, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Random calls, for so many seconds.
    Seconds(u64),
    /// Random calls, until a number.
    Calls,
    /// Communicators that come and go, so many.
    Cycles(u64),
}

/// Everything that decides what a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) task: Task,
    pub(super) seed: u64,
    pub(super) ranks: u32,
    pub(super) transport: TransportKind,
    pub(super) from: u64,
    pub(super) until: Option<u64>,
    /// Whether this process is a rank already.
    pub(super) launched: bool,
}

impl Options {
    /// Reads the arguments after `soak`.
    ///
    /// # Errors
    /// Names the argument that makes no sense.
    pub(super) fn read(arguments: &[&str]) -> Result<Self, String> {
        let mut options = Self {
            task: Task::Seconds(120),
            seed: 1,
            ranks: 2,
            transport: TransportKind::Shm,
            from: 0,
            until: None,
            launched: false,
        };
        let (mut seconds, mut cycles) = (None, None);
        let mut rest = arguments.iter();
        while let Some(&flag) = rest.next() {
            if flag == "--launched" {
                options.launched = true;
                continue;
            }
            let value = rest.next().copied();
            let number = || {
                let parsed = value.and_then(|value| value.parse::<u64>().ok());
                parsed.ok_or_else(|| format!("{flag} needs a number\n\n{HELP}"))
            };
            match (flag, value) {
                ("--seconds", _) => seconds = Some(number()?),
                ("--cycles", _) => cycles = Some(number()?),
                ("--seed", _) => options.seed = number()?,
                ("--until", _) => options.until = Some(number()?),
                ("--from", _) => options.from = number()?,
                ("--ranks", _) => match u32::try_from(number()?) {
                    Ok(ranks) if (1..=RANKS_MAX).contains(&ranks) => options.ranks = ranks,
                    _ => return Err(format!("--ranks is 1 to {RANKS_MAX}")),
                },
                ("--transport", Some("shm")) => options.transport = TransportKind::Shm,
                ("--transport", Some("tcp")) => options.transport = TransportKind::Tcp,
                ("--transport", _) => return Err("--transport is shm or tcp".into()),
                _ => return Err(format!("`{flag}` is no flag of soak\n\n{HELP}")),
            }
        }
        options.task = match (seconds, options.until, cycles) {
            (Some(seconds), None, None) => Task::Seconds(seconds),
            (None, Some(_), None) => Task::Calls,
            (None, None, Some(cycles)) => Task::Cycles(cycles),
            (None, None, None) => options.task,
            _ => return Err("one of --seconds, --until and --cycles, please".into()),
        };
        Ok(options)
    }

    /// Whether a thread drives the calls that are started.
    pub(super) fn proxy(&self) -> bool {
        self.seed % 2 == 1
    }

    /// The command that does the same.
    pub(super) fn again(&self) -> String {
        let name = if self.transport == TransportKind::Tcp { "tcp" } else { "shm" };
        let mut line =
            format!("cargo xtask soak --seed {} --ranks {} --transport {name}", self.seed, self.ranks);
        let mut add = |flag: &str, value: u64| line.push_str(&format!(" --{flag} {value}"));
        if self.from > 0 {
            add("from", self.from);
        }
        match (self.until, self.task) {
            (Some(until), _) => add("until", until),
            (None, Task::Cycles(cycles)) => add("cycles", cycles),
            (None, Task::Seconds(seconds)) => add("seconds", seconds),
            (None, Task::Calls) => {}
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_is_printed_does_the_same() {
        for line in [
            "--seed 7 --ranks 3 --transport tcp --seconds 5",
            "--seed 7 --ranks 8 --from 640 --until 700",
            "--cycles 10",
            "",
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            let options = Options::read(&words).expect(line);
            let again = options.again();
            let words: Vec<&str> = again.split(' ').skip(3).collect();
            assert_eq!(Options::read(&words).expect(&again), options);
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (line, why) in [
            ("--seed", "--seed needs a number"),
            ("--seed x", "--seed needs a number"),
            ("--ranks 0", "1 to 8"),
            ("--ranks 9", "1 to 8"),
            ("--transport rdma", "shm or tcp"),
            ("--second 4", "`--second` is no flag"),
            ("--seconds 4 --until 9", "one of"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let error = Options::read(&words).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
