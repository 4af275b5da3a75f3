//! Building a communicator: who this rank is, and how the job wants it.

use crate::bootstrap::{self, HostFacts, Place, UniqueId};
use crate::communicator::Communicator;
use crate::config::Config;
use crate::connect::{FETCHED, Fabric, Sharing};
use crate::lane;
use crate::memory::Account;
use crate::plans::{Plans, Settings};
use crate::tuning::Tuning;
use crate::wish::Wish;
use crate::{discover, launch};
use rustix::thread::{CpuSet, sched_setaffinity};
use sohu_coll_algorithms::tuner::{Machine, Tuner};
use sohu_coll_core::link::{FETCH_MIN, LEND_MIN};
use sohu_coll_core::{Error, Misuse, Rank};
use sohu_coll_mem::doorbell::Patience;
use sohu_coll_shm::Fetch;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait for ranks to come, and for a call to end, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Address space of a rank's registered memory unless told otherwise. Only what is allocated takes memory.
const HEAP_BYTES: usize = 64 << 30;

/// Polls of shared memory before the core is yielded, with a core for each rank: some 20 us, about as long as
/// a peer's share of a large slice takes, and less than waking a sleeper does.
const SPINS_SHM: u32 = 1_000;

/// Polls of sockets before the core is yielded: each is system calls, so fewer make up the same time.
const SPINS_TCP: u32 = 50;

/// Yields before a rank sleeps: about a millisecond where nobody else wants the core.
const YIELDS: u32 = 2_000;

/// Bytes of the longest name.
const NAME_MAX: usize = 64;

/// What connects the ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportKind {
    /// Shared memory: all ranks are on this host.
    #[default]
    Shm,
    /// TCP over the loopback interface.
    Tcp,
}

/// Settings of a communicator that is to be.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    rank: Option<u32>,
    size: Option<u32>,
    id: Option<UniqueId>,
    timeout: Option<Duration>,
    transport: Option<TransportKind>,
    algorithm: Option<String>,
    tuning_file: Option<PathBuf>,
    heap_bytes: Option<usize>,
    fetch: Option<Fetch>,
    huge_pages: Option<bool>,
    reproducible: Option<bool>,
    proxy: Option<bool>,
    name: Option<Arc<str>>,
    max_memory: Option<usize>,
    /// Processors for the ranks of this host, in the order of the ranks.
    cpus: Option<Vec<u32>>,
}

impl Builder {
    /// This rank, `0..size`.
    pub fn rank(mut self, rank: u32) -> Self {
        self.rank = Some(rank);
        self
    }

    /// How many ranks the job has.
    pub fn size(mut self, size: u32) -> Self {
        self.size = Some(size);
        self
    }

    /// What the ranks of the job have in common: made once, by [`UniqueId::new`], and shipped to all.
    pub fn id(mut self, id: &UniqueId) -> Self {
        self.id = Some(id.clone());
        self
    }

    /// How long to wait for ranks to come, and for each call to end. 30 seconds unless set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What connects the ranks. Shared memory unless set.
    pub fn transport(mut self, transport: TransportKind) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Which algorithms may be chosen, in the grammar of `NCCL_ALGO`: the name of one (`one_shot`, `two_shot`, `ring`,
    /// `recursive_doubling`, `binomial`, `bruck`, `double_tree`, `halving_doubling`, `pairwise`, `star`, `chains`), several with commas
    /// between them, or all but some (`^ring`); for all collectives, or for one (`all_reduce:ring;broadcast:^ring`). A call that
    /// none of them does is refused.
    pub fn algorithm(mut self, wish: &str) -> Self {
        self.algorithm = Some(wish.into());
        self
    }

    /// What [`algorithm`](Self::algorithm) or, after [`from_env`](Self::from_env), `SOHU_COLL_ALGO` asked for.
    pub fn wished_algorithm(&self) -> Option<&str> {
        self.algorithm.as_deref()
    }

    /// A tuning file: a table that says which algorithm does which calls, where [`algorithm`](Self::algorithm) and
    /// [`reproducible`](Self::reproducible) allow it; the tuner chooses where no line fits. A line is, for example,
    /// `all_reduce 2..=4 0..64K float private one_shot slice=32K`: the collective, the ranks, the bytes of `count` elements, the element
    /// type, `registered` or `private`, the algorithm, and settings. `*` stands for any, `#` begins a comment, and the first line that
    /// fits decides. Must say the same on every rank: ranks that choose differently are told so by a mismatch.
    pub fn tuning_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tuning_file = Some(path.into());
        self
    }

    /// Address space for registered memory, in bytes; only what is allocated takes memory. 64 GiB unless set.
    /// Must be the same on every rank.
    pub fn heap_bytes(mut self, bytes: usize) -> Self {
        self.heap_bytes = Some(bytes);
        self
    }

    /// Whether long messages in private memory are fetched by the kernel instead of staged in shared memory: unless set, where all
    /// ranks may read each other's memory and their kernels copy fast enough. [`Fetch::Never`] on one rank holds for all: memory that the
    /// kernel does not read for others, as that of devices, needs it.
    pub fn fetch(mut self, fetch: Fetch) -> Self {
        self.fetch = Some(fetch);
        self
    }

    /// Whether private memory that is lent again and again, for the kernel to fetch, is moved to huge pages, out of which it
    /// fetches faster: memory of this process in stretches of 2 MiB that hold what calls are given, and all of which is in memory. What it
    /// holds stays as it is. Unless set it is, where the system has such pages and its administrator has not turned them off.
    pub fn huge_pages(mut self, yes: bool) -> Self {
        self.huge_pages = Some(yes);
        self
    }

    /// Whether results may not depend on how they are computed. If so, element i of a reduction has the same bits
    /// whatever the size of the call and wherever a tensor was cut: they depend on the ranks' inputs at i, in the order of
    /// the ranks, alone. Costs the algorithms that fold in another order. Must be the same on every rank; no unless set.
    pub fn reproducible(mut self, yes: bool) -> Self {
        self.reproducible = Some(yes);
        self
    }

    /// Whether a thread of the communicator's own drives calls that were started, while their callers do something else. It
    /// is there from the first such call on, runs on the processors that its caller may use, and sleeps while no call is
    /// pending. No unless set: then calls go on while somebody waits for one, or tests one.
    pub fn proxy(mut self, yes: bool) -> Self {
        self.proxy = Some(yes);
        self
    }

    /// What the communicator is called in errors: `on communicator 'tp'`. At most 64 letters, digits and signs; no name unless
    /// set. It is this rank's own business: others may call it otherwise.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The most bytes that all communicators of this process together may take, when this one is made, allocates registered
    /// memory, or needs more scratch memory: see [`Communicator::memory`]. Not bounded unless set.
    pub fn max_memory(mut self, bytes: usize) -> Self {
        self.max_memory = Some(bytes);
        self
    }

    /// The settings for a communicator that comes out of one with these.
    pub(crate) fn named_after(mut self, suffix: &str) -> Self {
        let longer = self.name.as_ref().map(|name| format!("{name}/{suffix}"));
        // One that came out of many says no more than where it began.
        if let Some(name) = longer.filter(|name| name.len() <= NAME_MAX) {
            self.name = Some(name.into());
        }
        self
    }

    pub(crate) fn shown_name(&self) -> Option<Arc<str>> {
        self.name.clone()
    }

    pub(crate) fn name_text(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Takes what was not set yet from the environment: rank, size and job from the launcher's variables,
    /// settings from `SOHU_COLL_*`.
    ///
    /// # Errors
    /// [`Misuse::Setting`] names a variable that makes no sense; [`Error::Refused`] says what was looked for when
    /// no launcher's variables are there.
    pub fn from_env(mut self) -> Result<Self, Error> {
        let config = Config::from_env()?;
        if config.launched {
            launch::die_with_parent();
        }
        if self.rank.is_none() || self.size.is_none() || self.id.is_none() {
            let found = discover::discover(&config)?;
            self.rank = self.rank.or(Some(found.rank));
            self.size = self.size.or(Some(found.size));
            self.id = self.id.or(Some(found.id));
        }
        self.timeout = self.timeout.or(config.timeout);
        self.transport = self.transport.or(config.transport);
        self.algorithm = self.algorithm.or(config.algorithm);
        self.tuning_file = self.tuning_file.or(config.tuning_file);
        self.heap_bytes = self.heap_bytes.or(config.heap_bytes);
        self.fetch = self.fetch.or(config.fetch);
        self.huge_pages = self.huge_pages.or(config.huge_pages);
        self.reproducible = self.reproducible.or(config.reproducible);
        self.proxy = self.proxy.or(config.proxy);
        self.name = self.name.or(config.name.map(Into::into));
        self.max_memory = self.max_memory.or(config.max_memory);
        self.cpus = config.cpus;
        Ok(self)
    }

    /// How long calls of the communicator may take.
    pub(crate) fn time_limit(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// Whether pending calls are driven by a thread of their own.
    pub(crate) fn wants_proxy(&self) -> bool {
        self.proxy.unwrap_or(false)
    }

    /// Joins the job: returns when every rank has come and is linked.
    ///
    /// # Errors
    /// [`Error::Missing`] names the ranks that did not come within the timeout; [`Error::Refused`] says which ranks
    /// disagree about the job; [`Misuse::Setting`] names what was not set or makes no sense; [`Error::Memory`] says what takes
    /// how much, where [`max_memory`](Self::max_memory) leaves too little.
    pub fn build(self) -> Result<Communicator, Error> {
        let name = self.name.clone();
        if let Some(name) = name.as_deref()
            && (name.is_empty() || name.len() > NAME_MAX || name.chars().any(|c| c.is_control() || c == '\''))
        {
            let reason =
                format!("is no name; one has 1 to {NAME_MAX} bytes, no quotes and nothing unprintable");
            return Err(Misuse::Setting { name: "SOHU_COLL_NAME".into(), value: name.into(), reason }.into());
        }
        self.join().map_err(|error| lane::named(name.as_ref(), error))
    }

    fn join(self) -> Result<Communicator, Error> {
        let template = Self { rank: None, size: None, id: None, cpus: None, ..self.clone() };
        let timeout = self.time_limit();
        let missing = |name: &str, what: &str| {
            let reason = format!("{what}; set it, or take it from a launcher by from_env");
            Error::from(Misuse::Setting { name: name.into(), value: String::new(), reason })
        };
        let rank = self.rank.ok_or_else(|| missing("rank", "this rank's number is not known"))?;
        let size = self.size.ok_or_else(|| missing("size", "the number of ranks is not known"))?;
        if rank >= size {
            let reason = format!("ranks of a job of {size} are 0..{size}");
            return Err(Misuse::Setting { name: "rank".into(), value: rank.to_string(), reason }.into());
        }
        let id = match &self.id {
            Some(id) => id.clone(),
            None if size == 1 => UniqueId::new(),
            None => return Err(missing("id", "the job's unique id is not known")),
        };
        if let Some(cpus) = &self.cpus {
            pin(rank, cpus)?;
        }
        let settings = self.settings()?;
        let deadline = Instant::now() + timeout;
        let facts = HostFacts::of_this_process();
        let mut mesh = bootstrap::join(Place { rank, size }, &id, timeout, facts)?;
        let cores: BTreeSet<u32> =
            mesh.roster().iter().flat_map(|facts| facts.cpus.iter().copied()).collect();
        let cores = cores.len() as u32;
        let kind = self.transport.unwrap_or_default();
        let sharing = Sharing {
            heap_bytes: self.heap_bytes.unwrap_or(HEAP_BYTES),
            fetch: self.fetch.unwrap_or_default(),
            huge_pages: self.huge_pages.unwrap_or(true),
        };
        let connected = Account::open(size, Fabric::items(kind, size, cores, sharing), self.max_memory)
            .and_then(|account| {
                let fabric = Fabric::connect(kind, &mut mesh, cores, sharing, deadline)?;
                if !fabric.fetches() {
                    account.without(FETCHED);
                }
                Ok((account, fabric))
            });
        // Else the others would only see that this rank is gone.
        let (account, fabric) = connected.inspect_err(|error| mesh.abort(error))?;
        let crowded = size > cores;
        let spins = match (crowded, kind) {
            (true, _) => 0,
            (false, TransportKind::Shm) => SPINS_SHM,
            (false, TransportKind::Tcp) => SPINS_TCP,
        };
        let machine = match kind {
            TransportKind::Shm => {
                let machine = Machine { lent_min: LEND_MIN, ..Machine::shm(size, cores) };
                if fabric.fetches() { machine.fetching(FETCH_MIN) } else { machine }
            }
            TransportKind::Tcp => Machine::tcp(size, cores),
        };
        let rank = Rank(rank);
        let plans = Plans::new(rank, size, Tuner::new(machine), settings);
        let patience = Patience::new(spins, YIELDS);
        Ok(Communicator::new(rank, fabric, mesh.into_control(), plans, template, patience, account))
    }
}

impl Builder {
    /// How algorithms are chosen.
    fn settings(&self) -> Result<Settings, Error> {
        let wrong = |name: &'static str, value: String| {
            move |reason| Error::from(Misuse::Setting { name: name.into(), value, reason })
        };
        let text = self.algorithm.clone().unwrap_or_default();
        let wish = self.algorithm.as_deref().map(Wish::parse).transpose();
        let path = self.tuning_file.as_deref();
        let named = path.map(|path| path.display().to_string()).unwrap_or_default();
        let tuning = path.map(Tuning::read).transpose();
        Ok(Settings {
            wish: wish.map_err(wrong("SOHU_COLL_ALGO", text))?,
            tuning: tuning.map_err(wrong("SOHU_COLL_TUNING_FILE", named))?,
            reproducible: self.reproducible.unwrap_or(false),
        })
    }
}

/// Keeps this thread on the processor of its rank; with more ranks than processors they take turns.
fn pin(rank: u32, cpus: &[u32]) -> Result<(), Error> {
    let Some(cpu) = cpus.get(rank as usize % cpus.len().max(1)) else { return Ok(()) };
    let mut only = CpuSet::new();
    only.set(*cpu as usize);
    sched_setaffinity(None, &only).map_err(|error| {
        let reason =
            format!("rank {rank} can not run on processor {cpu}: {error}; is there one of that number");
        let value = cpu.to_string();
        Misuse::Setting { name: "SOHU_COLL_CPUS".into(), value, reason }.into()
    })
}
