//! Which rank this process is and of which job, from what its launcher left in the environment.
//!
//! Invariant: the first launcher in the order below that left anything decides, and a launcher that left half of what it
//! should is an error: two launchers are never mixed into one answer.

use sohu_coll_core::Error;

use crate::bootstrap::{HostIdentity, UniqueId};
use crate::config::{Config, number, setting};

/// The process of Hydra (MPICH, Intel MPI) that starts the ranks of one host.
const HYDRA_PROXY: &str = "hydra_pmi_proxy";

/// Who this process is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// This rank. Less than `size`.
    pub(crate) rank: u32,
    /// How many ranks there are.
    pub(crate) size: u32,
    /// What the ranks of the job share.
    pub(crate) id: UniqueId,
}

/// How one launcher tells its ranks who they are.
struct Launcher {
    name: &'static str,
    rank: &'static str,
    size: &'static str,
    /// How many of the ranks are on this host, where it says so.
    local: Option<&'static str>,
    /// What is the same for all ranks of one job and differs between jobs: any one of each row, and every row.
    job: &'static [&'static [&'static str]],
    /// What may be there besides, and then belongs to the job's identity.
    besides: &'static [&'static str],
}

/// In the order they are asked. Whoever starts Open MPI inside of a Slurm job means Open MPI.
const LAUNCHERS: [Launcher; 4] = [
    Launcher {
        name: "torchrun",
        rank: "RANK",
        size: "WORLD_SIZE",
        local: Some("LOCAL_WORLD_SIZE"),
        job: &[&["MASTER_ADDR"], &["MASTER_PORT"]],
        besides: &["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"],
    },
    Launcher {
        name: "Open MPI",
        rank: "OMPI_COMM_WORLD_RANK",
        size: "OMPI_COMM_WORLD_SIZE",
        local: Some("OMPI_COMM_WORLD_LOCAL_SIZE"),
        job: &[&["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"]],
        besides: &[],
    },
    // Hydra names no job; the process that started the ranks of this host stands for it.
    Launcher {
        name: "Hydra",
        rank: "PMI_RANK",
        size: "PMI_SIZE",
        local: Some("MPI_LOCALNRANKS"),
        job: &[],
        besides: &[],
    },
    Launcher {
        name: "Slurm",
        rank: "SLURM_PROCID",
        size: "SLURM_NTASKS",
        local: None,
        job: &[&["SLURM_JOB_ID"], &["SLURM_STEP_ID", "SLURM_STEPID"]],
        besides: &[],
    },
];

/// Finds out who this process is.
///
/// # Errors
/// [`sohu_coll_core::Misuse::Setting`] names a variable that is wrong or whose other half is missing;
/// [`Error::Refused`] says what was looked for when there is nothing, and when ranks are on other hosts.
pub(crate) fn discover(config: &Config) -> Result<Found, Error> {
    discover_on(config, &HostIdentity::here(HYDRA_PROXY))
}

/// The same, pure.
fn discover_on(config: &Config, host: &HostIdentity) -> Result<Found, Error> {
    let text = |number: Option<u32>| number.map(|number| number.to_string());
    let (rank, size) = (text(config.rank), text(config.size));
    let ours = ("SOHU_COLL_RANK", rank.as_deref(), "SOHU_COLL_WORLD_SIZE", size.as_deref());
    if let Some((rank, size)) = pair(ours)? {
        return Ok(Found { rank, size, id: unique_id(config, None, size, host)? });
    }
    for launcher in &LAUNCHERS {
        let get = |name: &str| config.launcher.get(name).map(String::as_str);
        let Some((rank, size)) =
            pair((launcher.rank, get(launcher.rank), launcher.size, get(launcher.size)))?
        else {
            continue;
        };
        on_one_host(config, launcher, size)?;
        return Ok(Found { rank, size, id: unique_id(config, Some(launcher), size, host)? });
    }
    let looked: Vec<String> =
        LAUNCHERS.iter().map(|l| format!("{} and {} ({})", l.rank, l.size, l.name)).collect();
    Err(Error::Refused(format!(
        "nothing says which rank this process is; looked for SOHU_COLL_RANK and SOHU_COLL_WORLD_SIZE, {}; \
         start it by a launcher, for example: sohu-coll run -n 2 -- program",
        looked.join(", ")
    )))
}

/// The rank and the size in two variables; `None` if neither is set.
fn pair(
    (rank_name, rank, size_name, size): (&str, Option<&str>, &str, Option<&str>),
) -> Result<Option<(u32, u32)>, Error> {
    let half = |set: &str, value: &str, missing: &str| {
        Err(setting(set, value, format!("is set but {missing} is not; set both or neither")))
    };
    let (rank_text, size_text) = match (rank, size) {
        (None, None) => return Ok(None),
        (Some(rank), None) => return half(rank_name, rank, size_name),
        (None, Some(size)) => return half(size_name, size, rank_name),
        (Some(rank), Some(size)) => (rank, size),
    };
    let size: u32 = number(size_name, size_text, "a number of ranks, 1 or more")?;
    if size == 0 {
        return Err(setting(size_name, size_text, "is no number of ranks; it must be 1 or more"));
    }
    let rank: u32 = number(rank_name, rank_text, "a rank, 0 or more")?;
    if rank >= size {
        let reason = format!("is not below {size_name}={size}; ranks are numbered 0 to {}", size - 1);
        return Err(setting(rank_name, rank_text, reason));
    }
    Ok(Some((rank, size)))
}

/// Says at once what would otherwise end as ranks that never come.
fn on_one_host(config: &Config, launcher: &Launcher, size: u32) -> Result<(), Error> {
    let Some((name, text)) = launcher.local.and_then(|name| Some((name, config.launcher.get(name)?))) else {
        return Ok(());
    };
    let local: u32 = number(name, text, "the number of ranks on this host")?;
    if local >= size {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "{} started {local} of {size} ranks on this host ({name}={local}, {}={size}); \
         all ranks must be on one host in this version",
        launcher.name, launcher.size
    )))
}

/// What the ranks share: a given secret if there is one, else what is known of the job.
fn unique_id(
    config: &Config,
    launcher: Option<&Launcher>,
    size: u32,
    host: &HostIdentity,
) -> Result<UniqueId, Error> {
    if let Some(secret) = config.secret()? {
        return Ok(UniqueId::with_secret(config.comm_id.as_deref(), secret));
    }
    if let Some(comm_id) = &config.comm_id {
        return Ok(UniqueId::derived("comm id", &[("SOHU_COLL_COMM_ID", comm_id)], host));
    }
    // Who sets our own variables inside of a launcher's job still has that launcher's job.
    let known = match launcher {
        Some(launcher) => job_of(config, launcher, host),
        None => LAUNCHERS.iter().find_map(|launcher| job_of(config, launcher, host)),
    };
    match known {
        Some(id) => Ok(id),
        None if size == 1 => Ok(UniqueId::new()),
        None => {
            let missing =
                launcher.map(|l| l.job.iter().map(|names| names[0]).collect::<Vec<_>>().join(" and "));
            let missing = missing.filter(|m| !m.is_empty()).map(|m| format!("{m} or ")).unwrap_or_default();
            Err(Error::Refused(format!(
                "rank and size are set, but nothing says which job this is; set {missing}SOHU_COLL_COMM_ID \
                 to a text that is the same for all ranks of this job and for no other, for example SOHU_COLL_COMM_ID=$$"
            )))
        }
    }
}

/// The id of the job that a launcher started; `None` where it did not start this process, or does not say which.
fn job_of(config: &Config, launcher: &Launcher, host: &HostIdentity) -> Option<UniqueId> {
    let get = |name: &'static str| Some((name, config.launcher.get(name)?.as_str()));
    let mut facts = Vec::new();
    for names in launcher.job {
        facts.push(names.iter().find_map(|name| get(name))?);
    }
    facts.extend(launcher.besides.iter().filter_map(|name| get(name)));
    let proxy = host.launcher.map(|(pid, started)| (pid.to_string(), started.to_string()));
    if launcher.job.is_empty() {
        get(launcher.rank)?;
        let (pid, started) = proxy.as_ref()?;
        facts.extend([("pid", pid.as_str()), ("started", started.as_str())]);
    }
    Some(UniqueId::derived(launcher.name, &facts, host))
}

#[cfg(test)]
mod tests;
