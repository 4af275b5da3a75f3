//! The settings that come from environment variables, and the only place that reads them.
//!
//! Invariant: a variable of ours that makes no sense is an error that names it, its value and what would be right; one
//! that we do not know is a warning, since another version may know it. An empty variable counts as not set.

use sohu_coll_core::{Error, Misuse};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Once;
use std::time::Duration;

use crate::bootstrap::id::{SECRET_BYTES, Secret, unhex};
use crate::duration::parse_duration;
use crate::{Fetch, TransportKind};

const RANK: &str = "SOHU_COLL_RANK";
const WORLD_SIZE: &str = "SOHU_COLL_WORLD_SIZE";
const COMM_ID: &str = "SOHU_COLL_COMM_ID";
const SECRET_FD: &str = "SOHU_COLL_SECRET_FD";
const SECRET_FILE: &str = "SOHU_COLL_SECRET_FILE";
const TIMEOUT: &str = "SOHU_COLL_TIMEOUT";
const TRANSPORT: &str = "SOHU_COLL_TRANSPORT";
const ALGO: &str = "SOHU_COLL_ALGO";
const TUNING_FILE: &str = "SOHU_COLL_TUNING_FILE";
const CPUS: &str = "SOHU_COLL_CPUS";
const HEAP: &str = "SOHU_COLL_HEAP";
const FETCH: &str = "SOHU_COLL_FETCH";
const HUGE_PAGES: &str = "SOHU_COLL_HUGE_PAGES";
const NAME: &str = "SOHU_COLL_NAME";
const MAX_MEMORY: &str = "SOHU_COLL_MAX_MEMORY";
const REPRODUCIBLE: &str = "SOHU_COLL_REPRODUCIBLE";
const PROXY: &str = "SOHU_COLL_PROXY";
const LAUNCHED: &str = "SOHU_COLL_LAUNCHED";

const PREFIX: &str = "SOHU_COLL_";
/// Every variable of ours.
const OURS: [&str; 18] = [
    RANK,
    WORLD_SIZE,
    COMM_ID,
    SECRET_FD,
    SECRET_FILE,
    TIMEOUT,
    TRANSPORT,
    ALGO,
    TUNING_FILE,
    CPUS,
    HEAP,
    FETCH,
    HUGE_PAGES,
    NAME,
    MAX_MEMORY,
    REPRODUCIBLE,
    PROXY,
    LAUNCHED,
];

/// The variables of launchers that discovery looks at.
const LAUNCHERS: [&str; 21] = [
    "RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "OMPI_MCA_ess_base_jobid",
    "PMIX_NAMESPACE",
    "PMI_RANK",
    "PMI_SIZE",
    "MPI_LOCALNRANKS",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "SLURM_STEPID",
    "SLURM_STEP_NUM_NODES",
];

/// Processors are numbered below this.
const CPUS_MAX: u32 = 1024;
/// A name this many edits away from one of ours is taken for a slip of the hand.
const EDITS_MAX: usize = 3;

static WARNED: Once = Once::new();

/// What the environment says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    /// `SOHU_COLL_RANK`.
    pub(crate) rank: Option<u32>,
    /// `SOHU_COLL_WORLD_SIZE`.
    pub(crate) size: Option<u32>,
    /// `SOHU_COLL_COMM_ID`: what tells this job from others on the host. Not secret.
    pub(crate) comm_id: Option<String>,
    /// `SOHU_COLL_SECRET_FD` or `SOHU_COLL_SECRET_FILE`: where the secret is.
    secret: Option<SecretSource>,
    /// `SOHU_COLL_TIMEOUT`.
    pub(crate) timeout: Option<Duration>,
    /// `SOHU_COLL_TRANSPORT`.
    pub(crate) transport: Option<TransportKind>,
    /// `SOHU_COLL_ALGO`; whether there is such an algorithm depends on the call.
    pub(crate) algorithm: Option<String>,
    /// `SOHU_COLL_TUNING_FILE`: a table of choices, read when the communicator is built.
    pub(crate) tuning_file: Option<PathBuf>,
    /// `SOHU_COLL_CPUS`: the processors the ranks of this host are to run on, in the order of the ranks.
    pub(crate) cpus: Option<Vec<u32>>,
    /// `SOHU_COLL_HEAP`: address space of a rank's registered memory, in bytes.
    pub(crate) heap_bytes: Option<usize>,
    /// `SOHU_COLL_FETCH`: whether private memory is fetched by the kernel.
    pub(crate) fetch: Option<Fetch>,
    /// `SOHU_COLL_HUGE_PAGES`: whether private memory that is lent often is moved to huge pages.
    pub(crate) huge_pages: Option<bool>,
    /// `SOHU_COLL_NAME`: what the communicator is called in errors.
    pub(crate) name: Option<String>,
    /// `SOHU_COLL_MAX_MEMORY`: the most bytes that all communicators of the process may take.
    pub(crate) max_memory: Option<usize>,
    /// `SOHU_COLL_REPRODUCIBLE`: whether results may not depend on how they are computed.
    pub(crate) reproducible: Option<bool>,
    /// `SOHU_COLL_PROXY`: whether a thread drives pending calls.
    pub(crate) proxy: Option<bool>,
    /// `SOHU_COLL_LAUNCHED`: our own launcher started this process, and it ends with it.
    pub(crate) launched: bool,
    /// What launchers say, by the names of their variables.
    pub(crate) launcher: BTreeMap<&'static str, String>,
    /// What the user should know about variables that were not understood.
    pub(crate) warnings: Vec<String>,
}

#[derive(Clone, Debug)]
enum SecretSource {
    Fd(u32),
    File(String),
}

impl Config {
    /// Reads the environment of this process. Prints warnings to standard error, once per process.
    ///
    /// # Errors
    /// [`Misuse::Setting`] names the variable, its value and what would be right.
    pub(crate) fn from_env() -> Result<Self, Error> {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
        let vars = std::env::vars_os();
        // What is not text becomes text that no setting can be, and is reported like any other bad value.
        let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
        let config = Self::from_vars(vars.map(|(name, value)| (text(name), text(value))))?;
        WARNED.call_once(|| {
            config.warnings.iter().for_each(|warning| eprintln!("sohu-coll: warning: {warning}"))
        });
        Ok(config)
    }

    /// The settings in the given variables. Touches nothing else.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub(crate) fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let mut config = Self::default();
        let mut secrets = Vec::new();
        let mut vars: Vec<_> = vars.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        // The environment has no order; errors and warnings should not depend on it.
        vars.sort();
        for (name, value) in vars {
            if let Some(known) = LAUNCHERS.iter().find(|known| **known == name) {
                config.launcher.insert(known, value);
                continue;
            }
            let bad = |reason: String| setting(&name, &value, reason);
            match name.as_str() {
                RANK => config.rank = Some(number(&name, &value, "a rank, 0 or more")?),
                WORLD_SIZE => config.size = Some(number(&name, &value, "a number of ranks, 1 or more")?),
                COMM_ID => config.comm_id = Some(value),
                SECRET_FD => {
                    secrets.push(SecretSource::Fd(number(
                        &name,
                        &value,
                        "the number of an open file descriptor",
                    )?));
                }
                SECRET_FILE => secrets.push(SecretSource::File(value)),
                TIMEOUT => config.timeout = Some(parse_duration(&value).map_err(bad)?),
                TRANSPORT => config.transport = Some(transport(&value).map_err(bad)?),
                ALGO => config.algorithm = Some(value),
                TUNING_FILE => config.tuning_file = Some(value.into()),
                CPUS => config.cpus = Some(cpus(&value).map_err(bad)?),
                HEAP => config.heap_bytes = Some(bytes(&value).map_err(bad)?),
                FETCH => config.fetch = Some(fetch(&value).map_err(bad)?),
                HUGE_PAGES => config.huge_pages = Some(yes(&value).map_err(bad)?),
                NAME => config.name = Some(value),
                MAX_MEMORY => config.max_memory = Some(bytes(&value).map_err(bad)?),
                REPRODUCIBLE => config.reproducible = Some(yes(&value).map_err(bad)?),
                PROXY => config.proxy = Some(yes(&value).map_err(bad)?),
                LAUNCHED => config.launched = value != "0",
                other if other.starts_with(PREFIX) => config.warnings.push(unknown(other)),
                _ => {}
            }
        }
        if secrets.len() > 1 {
            return Err(Error::Refused(format!(
                "both {SECRET_FD} and {SECRET_FILE} are set; set one of them"
            )));
        }
        config.secret = secrets.pop();
        Ok(config)
    }

    /// Reads the secret from where the environment says it is; `None` where it says nothing.
    ///
    /// # Errors
    /// [`Misuse::Setting`] when there is no secret, or when others than this user can read it.
    pub(crate) fn secret(&self) -> Result<Option<Secret>, Error> {
        let (name, value, path) = match &self.secret {
            None => return Ok(None),
            // Opened by name, the file is read from its beginning however far anybody else has read it.
            Some(SecretSource::Fd(fd)) => (SECRET_FD, fd.to_string(), format!("/proc/self/fd/{fd}")),
            Some(SecretSource::File(path)) => (SECRET_FILE, path.clone(), path.clone()),
        };
        let private = name == SECRET_FILE;
        read_secret(Path::new(&path), private).map(Some).map_err(|reason| setting(name, &value, reason))
    }
}

fn read_secret(path: &Path, private: bool) -> Result<Secret, String> {
    // Before it is opened: opening a pipe could wait for ever.
    let about = fs::metadata(path).map_err(|e| format!("can not be opened: {e}"))?;
    if !about.is_file() {
        return Err(format!(
            "is no file; it must be one of {SECRET_BYTES} bytes, or that many in hexadecimal digits"
        ));
    }
    if private && about.mode() & 0o077 != 0 {
        return Err(format!("others can read it (mode {:03o}); chmod 600 it", about.mode() & 0o777));
    }
    let mut text = Vec::new();
    let limit = 4 * SECRET_BYTES as u64;
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut text));
    read.map_err(|e| format!("can not be read: {e}"))?;
    let secret = secret_in(&text);
    text.fill(0);
    secret.ok_or_else(|| {
        format!("holds no secret: it must be {SECRET_BYTES} bytes, or that many in hexadecimal digits")
    })
}

/// The secret in a file of raw bytes or of hexadecimal digits.
fn secret_in(text: &[u8]) -> Option<Secret> {
    if let Ok(raw) = <[u8; SECRET_BYTES]>::try_from(text) {
        return Some(Secret::new(raw));
    }
    let mut bytes = unhex(std::str::from_utf8(text).ok()?.trim())?;
    let secret = <[u8; SECRET_BYTES]>::try_from(bytes.as_slice()).ok().map(Secret::new);
    bytes.fill(0);
    secret
}

/// An error about one variable.
pub(crate) fn setting(name: &str, value: &str, reason: impl Into<String>) -> Error {
    Misuse::Setting { name: name.into(), value: value.into(), reason: reason.into() }.into()
}

/// The number in a variable.
///
/// # Errors
/// [`Misuse::Setting`] says that it should be `what`.
pub(crate) fn number<T: FromStr>(name: &str, value: &str, what: &str) -> Result<T, Error> {
    value.trim().parse().map_err(|_| setting(name, value, format!("is not {what}")))
}

fn yes(value: &str) -> Result<bool, String> {
    match value {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err("is neither 1 nor 0".into()),
    }
}

fn transport(text: &str) -> Result<TransportKind, String> {
    match text.trim() {
        "shm" => Ok(TransportKind::Shm),
        "tcp" => Ok(TransportKind::Tcp),
        _ => Err("is no transport; it can be shm or tcp".into()),
    }
}

fn fetch(text: &str) -> Result<Fetch, String> {
    match text.trim() {
        "auto" => Ok(Fetch::Auto),
        "always" => Ok(Fetch::Always),
        "never" => Ok(Fetch::Never),
        _ => Err("is no way to fetch; it can be auto, always or never".into()),
    }
}

/// `0-3,8`: ranges and single processors, in the order they are to be used.
fn cpus(text: &str) -> Result<Vec<u32>, String> {
    let bad = || format!("is no list of processors below {CPUS_MAX}; write for example 0-3,8");
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let parse = |cpu: &str| cpu.trim().parse::<u32>().map_err(|_| bad());
        let (first, last) = (parse(first)?, parse(last)?);
        if first > last || last >= CPUS_MAX {
            return Err(bad());
        }
        cpus.extend(first..=last);
    }
    let mut once = cpus.clone();
    once.sort_unstable();
    once.dedup();
    if once.len() < cpus.len() {
        return Err("names a processor twice".into());
    }
    Ok(cpus)
}

/// `1048576`, `512K`, `64M`, `2G`: bytes, by powers of 1024.
fn bytes(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let (count, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        Some((at, 'T' | 't')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let bytes = count.trim_end().parse::<usize>().ok().and_then(|count| count.checked_mul(1 << shift));
    bytes.ok_or_else(|| "is no number of bytes; write for example 1048576, 512K, 64M or 2G".into())
}

fn unknown(name: &str) -> String {
    let nearest = OURS.iter().map(|known| (edits(name, known), *known)).min();
    match nearest {
        Some((edits, known)) if edits <= EDITS_MAX => {
            format!("{name} is not known and ignored; did you mean {known}?")
        }
        _ => format!("{name} is not known and ignored; known are {}", OURS.join(", ")),
    }
}

/// How many letters must be added, removed or replaced to make one word of the other (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
