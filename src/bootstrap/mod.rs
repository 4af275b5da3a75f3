//! How the ranks of one host find each other.
//!
//! Rank 0 listens at an abstract unix socket whose name follows from the job id; every other rank connects to it,
//! is checked, learns of all others, and connects to each of them. Abstract names live in the kernel
//! and vanish with their process, so nothing is left behind. This is the one asynchronous place of the library: a
//! runtime exists inside of [`join`] only, and no thread afterwards.
//!
//! Invariants: every wait ends at the deadline; the kernel has said that the other end is this user's and the other
//! end has shown that it holds the secret before anything it says counts; after a failure all ranks that came
//! report the same cause.

mod door;
mod handshake;
pub(crate) mod host;
pub(crate) mod id;
mod member;
mod mesh;
mod root;
mod socket;
pub(crate) mod wire;

pub(crate) use host::{HostFacts, HostIdentity};
pub use id::UniqueId;
pub(crate) use mesh::Mesh;
pub(crate) use socket::{PeerSocket, Trouble};

use rustix::io::Errno;
use sohu_coll_core::{Error, Rank};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

use door::{Door, Knock, Line, knock};
use handshake::{Party, read_frame};
use root::Root;
use wire::{Member, Purpose, RANKS_MAX, ROSTER_BYTES_MAX, Start};

/// What a rank is doing when it finds the others, as errors name it.
pub(crate) const START: &str = "start";
/// How often rank 0 looks whether another process still holds its socket name.
const RETRY: Duration = Duration::from_millis(10);
/// The longest time that is counted: beyond it clocks could overflow, and nobody waits that long.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Which rank this is, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// This rank. Less than `size`.
    pub(crate) rank: u32,
    /// How many ranks there are. At least 1.
    pub(crate) size: u32,
}

/// What the bootstrap gives: who the ranks are, and a socket to each.
struct Joined {
    roster: Vec<HostFacts>,
    lines: Vec<Option<Line>>,
}

/// Finds the other ranks of the job `id` and connects to all of them. Collective: every rank of the job must call it,
/// each with its own rank and all with the same size and id. A job of one rank touches no socket.
///
/// # Errors
/// [`Error::Missing`] names the ranks that did not come within `timeout` of any rank that did;
/// [`Error::Refused`] says who does not fit the job, or why this rank does not; [`Error::PeerLost`] names a rank that
/// died meanwhile; [`Error::Timeout`] one that came and then fell silent.
pub(crate) fn join(place: Place, id: &UniqueId, timeout: Duration, facts: HostFacts) -> Result<Mesh, Error> {
    if place.rank >= place.size || place.size > RANKS_MAX {
        return Err(Error::Refused(format!(
            "rank {} of {} is not possible: a job has 1 to {RANKS_MAX} ranks, numbered from 0",
            place.rank, place.size
        )));
    }
    let facts = facts.bounded();
    if place.size == 1 {
        return Mesh::new(id.clone(), place, vec![facts], vec![None]);
    }
    let party = Arc::new(Party::new(id, place));
    let run = || run(party, timeout.min(TIMEOUT_MAX), facts);
    if tokio::runtime::Handle::try_current().is_err() {
        return run();
    }
    // The caller's thread already drives a runtime, and one thread can not drive two: borrow another thread.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("sohu-coll start".into()).spawn_scoped(scope, run);
        let thread = thread.map_err(|e| system("clone (a thread for the start)", &e))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn run(party: Arc<Party>, timeout: Duration, facts: HostFacts) -> Result<Mesh, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|e| system("epoll_create", &e))?;
    runtime.block_on(async {
        let started = Instant::now();
        let deadline = started + timeout;
        let joined = if party.place.rank == 0 {
            let door = listen(&party, &facts, deadline).await?;
            Root::new(&party, started, deadline).run(door, facts).await?
        } else {
            member::run(&party, facts, started, deadline).await?
        };
        let mut sockets = Vec::with_capacity(joined.lines.len());
        for (rank, line) in joined.lines.into_iter().enumerate() {
            sockets.push(match line {
                Some(Line { stream, pid }) => {
                    let stream = stream.into_std().map_err(|e| system("epoll_ctl", &e))?;
                    Some(PeerSocket::new(Rank(rank as u32), stream.into(), pid))
                }
                None => None,
            });
        }
        Mesh::new(party.id.clone(), party.place, joined.roster, sockets)
    })
}

/// Opens rank 0's socket. If another process has it, this rank joins there as one rank 0 too many, so that
/// everyone is told; if that one is only just ending, waits for the name.
async fn listen(party: &Arc<Party>, facts: &HostFacts, deadline: Instant) -> Result<Door, Error> {
    let name = party.id.root_name();
    loop {
        match Door::open(&name, party, Purpose::Start) {
            Ok(door) => return Ok(door),
            Err(error) if error.raw_os_error() == Some(Errno::ADDRINUSE.raw_os_error()) => {}
            Err(error) => return Err(system("listen", &error)),
        }
        let first = Start::Join(Member { facts: facts.clone(), door: [0; 16] }, u64::MAX);
        let told = timeout_at(deadline, async {
            let mut line = knock(&name, Rank(0), party, Purpose::Start, &first).await?;
            // If it ends without a word, its name is free then.
            let verdict =
                read_frame::<Start>(&mut line.stream, ROSTER_BYTES_MAX).await.map_err(|_| Knock::Again)?;
            Ok(member::refusal(Ok(verdict)))
        });
        match told.await {
            Ok(Ok(error) | Err(Knock::Failed(error))) => return Err(error),
            Ok(Err(Knock::NobodyThere | Knock::Again)) if Instant::now() < deadline => sleep(RETRY).await,
            Ok(Err(_)) | Err(_) => {
                return Err(Error::Refused(format!(
                    "another process has the socket of rank 0 of {} and does not answer; use another job id",
                    party.id
                )));
            }
        }
    }
}

/// An [`Error::System`] for a failed call, with a hint where one helps.
fn system(call: &str, error: &io::Error) -> Error {
    let hint = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE) => {
            "; every rank needs a socket for every other rank: raise the limit of open files (ulimit -n)"
        }
        _ => "",
    };
    let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
    Error::System { call: call.to_owned(), errno, hint: hint.to_owned() }
}

/// ` (pid 12)`, or nothing where the pid is not known.
fn process(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// ` (pid 12 and pid 14)`, or what of it is known.
fn processes(first: Option<u32>, second: Option<u32>) -> String {
    match (first, second) {
        (Some(first), Some(second)) => format!(" (pid {first} and pid {second})"),
        (one, other) => process(one.or(other)),
    }
}

#[cfg(test)]
mod tests;
