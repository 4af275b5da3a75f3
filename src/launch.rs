//! Starts the ranks of a job on this host and sees them to their end.
//!
//! Invariant: when [`Launch::run`] returns, every process it started has ended and been waited for, and
//! so has every process those started, unless it left the process group of its rank on purpose. Every
//! wait ends by a rank's exit or by a deadline that ends in SIGKILL.
//!
//! Each rank leads a process group of its own. A Ctrl-C at the terminal therefore reaches the launcher
//! alone, which hands it on exactly once, and a rank that is a shell script goes with its children.
//!
//! The program that calls this is a launcher: while it runs, its signals belong to the job.

mod job;
mod lines;
mod signals;
#[cfg(test)]
mod tests;

use crate::UniqueId;
use core::fmt;
use rustix::fs::{MemfdFlags, SealFlags};
use sohu_coll_core::error::{Error, Misuse};
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The most ranks one job may have on this host: the bound of every table here.
pub const RANKS_MAX: u32 = 1024;

/// How long ranks may take to end by themselves after one of them failed, so that each can report its own
/// error naming the culprit; and then again between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Where the output of the ranks goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Line by line to the launcher's own output, each line opened by its rank: `[1] text`.
    Prefixed,
    /// The ranks write to the launcher's output themselves.
    Raw,
}

/// A job to start: a program, and how many ranks of it.
///
/// ```no_run
/// use sohu_coll::launch::Launch;
/// let ended = Launch::new("./train", ["--steps", "100"]).ranks(4).run()?;
/// std::process::exit(ended.code().into());
/// # Ok::<(), sohu_coll::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Launch {
    program: OsString,
    arguments: Vec<OsString>,
    ranks: u32,
    environment: Vec<(OsString, OsString)>,
    timeout: Option<Duration>,
    output: Output,
    grace: Duration,
}

impl Launch {
    /// A job of one rank, to be changed by the methods below. A `program` without a slash is looked for in `PATH`.
    pub fn new(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            ranks: 1,
            environment: Vec::new(),
            timeout: None,
            output: Output::Prefixed,
            grace: GRACE,
        }
    }

    /// How many ranks to start: 1 to [`RANKS_MAX`].
    #[must_use]
    pub fn ranks(mut self, ranks: u32) -> Self {
        self.ranks = ranks;
        self
    }

    /// One more variable in the environment of every rank.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The most time the whole job may take. Without it a job may run for ever.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Where the output of the ranks goes; [`Output::Prefixed`] unless said otherwise.
    #[must_use]
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// How long the other ranks may take to end by themselves after one failed, and then to end after SIGTERM;
    /// 2 seconds unless said otherwise.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Starts the ranks and returns when all have ended. SIGINT, SIGTERM, SIGHUP and SIGQUIT go on to all ranks
    /// and end the job; the second one ends it at once. A terminal's stop and continue stop and continue the ranks.
    ///
    /// Calls from the thread that started it die with it ([`die_with_parent`]), so the calling thread must stay.
    ///
    /// # Errors
    /// When no rank, too many ranks, or a program that can not be started was asked for. No process is left then.
    pub fn run(&self) -> Result<Ended, Error> {
        if self.ranks == 0 || self.ranks > RANKS_MAX {
            let reason = format!("a job on this host has 1 to {RANKS_MAX} ranks");
            return Err(setting("ranks", &self.ranks.to_string(), &reason));
        }
        let mut job = job::Job::start(self)?;
        Ok(job.attend())
    }

    /// The command that starts `rank`, and the memory it inherits, which must live until it is started.
    fn command(&self, rank: u32, id: &UniqueId) -> Result<(Command, OwnedFd), Error> {
        let secret = inherited_secret(id)?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env_remove("SOHU_COLL_SECRET_FILE")
            .env("SOHU_COLL_LAUNCHED", "1")
            .env("SOHU_COLL_RANK", rank.to_string())
            .env("SOHU_COLL_WORLD_SIZE", self.ranks.to_string())
            .env("SOHU_COLL_COMM_ID", id.job())
            .env("SOHU_COLL_SECRET_FD", secret.as_raw_fd().to_string())
            .env("LOCAL_RANK", rank.to_string())
            .process_group(0);
        // Only rank 0 reads what is piped in. Nobody reads a terminal: a process group in the background
        // that tries is stopped by the kernel.
        let piped = rank == 0 && !std::io::stdin().is_terminal();
        command.stdin(if piped { Stdio::inherit() } else { Stdio::null() });
        if self.output == Output::Prefixed {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        Ok((command, secret))
    }
}

/// The secret of `id` in sealed memory that the next child inherits, so that it is in no argument, no environment
/// and no file. Each rank gets its own, because a shared one would share its read position.
///
/// The descriptor is not close-on-exec: a safe program has no other way to hand one to a child. It lives
/// only while one rank starts, and a launcher starts nothing else.
fn inherited_secret(id: &UniqueId) -> Result<OwnedFd, Error> {
    let fail = |errno: rustix::io::Errno| Error::System {
        call: "memfd_create for the job's secret".into(),
        errno: errno.raw_os_error(),
        hint: String::new(),
    };
    let memory = rustix::fs::memfd_create("sohu-coll secret", MemfdFlags::ALLOW_SEALING).map_err(fail)?;
    let bytes = id.secret();
    let written = rustix::io::pwrite(&memory, bytes, 0).map_err(fail)?;
    assert!(written == bytes.len(), "memory took {written} of {} bytes", bytes.len());
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals).map_err(fail)?;
    Ok(memory)
}

/// How a job ended: by the first thing that went wrong, or well.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// Every rank exited with 0.
    Well,
    /// A rank exited with another code, before any other did.
    Exited {
        /// Which rank.
        rank: u32,
        /// Its exit code.
        code: u8,
    },
    /// A rank was killed by a signal, before anything else happened.
    Killed {
        /// Which rank.
        rank: u32,
        /// The number of the signal.
        signal: u8,
    },
    /// The launcher was told to end by a signal.
    Interrupted {
        /// The number of the signal.
        signal: u8,
    },
    /// The job took longer than it was given.
    TimedOut {
        /// How long it was given.
        after: Duration,
        /// The ranks that had not ended.
        running: Vec<u32>,
    },
    /// Nobody reads the launcher's output any more, as after `| head`.
    Unread,
}

impl Ended {
    /// The exit code to pass on: 0, the rank's own, 128 and the signal, or 4 when the time was up.
    pub fn code(&self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Exited { code, .. } => *code,
            Self::Killed { signal, .. } | Self::Interrupted { signal } => 128 | signal,
            Self::TimedOut { .. } => 4,
            Self::Unread => 128 + 13, // as if SIGPIPE had ended it
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("every rank exited with 0"),
            Self::Exited { rank, code } => write!(f, "rank {rank} exited with {code}, the first to fail"),
            Self::Killed { rank, signal } => {
                write!(f, "rank {rank} was killed by {}, the first to fail", signals::name(*signal))
            }
            Self::Interrupted { signal } => write!(f, "ended by {}", signals::name(*signal)),
            Self::TimedOut { after, running } => {
                let ranks: Vec<_> = running.iter().map(|&r| sohu_coll_core::rank::Rank(r)).collect();
                let ranks = sohu_coll_core::error::list(&ranks);
                write!(f, "timeout: {ranks} had not ended after {after:?}")
            }
            Self::Unread => f.write_str("nobody reads the output any more"),
        }
    }
}

/// Makes this process end by SIGKILL when the thread that started it ends, so that no rank outlives a launcher that
/// was killed itself. A communicator built under a launcher calls this; a rank's program may call it earlier.
pub fn die_with_parent() {
    // The kernel has no reason to refuse. If it did, the job would run all the same.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

fn setting(name: &str, value: &str, reason: &str) -> Error {
    Misuse::Setting { name: name.into(), value: value.into(), reason: reason.into() }.into()
}
