//! Making and taking connections between ranks that know each other's socket names.
//!
//! Invariant: a stranger costs one socket for two seconds, of which there are a bounded number; it can not hold up a
//! rank, because every connection is shown in by its own task and a rank that was turned away for
//! the crowd knocks again.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sohu_coll_core::{Error, Rank};
use std::collections::VecDeque;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::handshake::{Fault, Party, read_frame, same_user, write_frame};
use super::wire::{Hello, Purpose, START_BYTES_MAX, Start};

/// How long a connection may take to show who it is. A rank that is slower than that knocks again.
const SHOW_IN: Duration = Duration::from_secs(2);
/// How many connections may be about to show who they are, besides one for every rank; the oldest gives way.
const STRANGERS_MAX: usize = 64;
/// How long taking connections pauses when the process has no file descriptor left, instead of spinning.
const BREATH: Duration = Duration::from_millis(10);

/// An open connection to a rank that has shown who it is.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) stream: UnixStream,
    /// The process at the other end, where the kernel can tell.
    pub(super) pid: Option<u32>,
}

/// Somebody who came through the door.
#[derive(Debug)]
pub(super) struct Entrant {
    pub(super) line: Line,
    pub(super) hello: Hello,
    /// What it said first; `None` from a rank of another build.
    pub(super) first: Option<Start>,
}

/// A listening socket that lets in whoever holds the secret.
pub(super) struct Door {
    listener: UnixListener,
    party: Arc<Party>,
    purpose: Purpose,
    shown_in: JoinSet<Option<Entrant>>,
    /// The tasks in `shown_in`, oldest first; some may have ended.
    order: VecDeque<AbortHandle>,
    /// The last failure to take a connection, for the message at the deadline.
    pub(super) trouble: Option<io::Error>,
}

impl Door {
    /// Listens at an abstract socket name. Must be called inside of the runtime.
    pub(super) fn open(name: &[u8], party: &Arc<Party>, purpose: Purpose) -> io::Result<Self> {
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            party: Arc::clone(party),
            purpose,
            shown_in: JoinSet::new(),
            order: VecDeque::new(),
            trouble: None,
        })
    }

    /// The next one who shows that it holds the secret. May be given up and called again.
    pub(super) async fn next(&mut self) -> Entrant {
        loop {
            tokio::select! {
                Some(done) = self.shown_in.join_next(), if !self.shown_in.is_empty() => {
                    if let Ok(Some(entrant)) = done {
                        return entrant;
                    }
                }
                taken = self.listener.accept() => match taken {
                    Ok((stream, _)) => self.show_in(stream),
                    Err(error) => {
                        self.trouble = Some(error);
                        self.make_room(0);
                        tokio::time::sleep(BREATH).await;
                    }
                }
            }
        }
    }

    fn show_in(&mut self, mut stream: UnixStream) {
        // Processes of other users are not worth a task.
        let Ok(Ok(pid)) = same_user(&stream) else { return };
        self.make_room(STRANGERS_MAX + self.party.place.size as usize - 1);
        let (party, purpose) = (Arc::clone(&self.party), self.purpose);
        self.order.push_back(self.shown_in.spawn(async move {
            let shown = timeout(SHOW_IN, async {
                let hello = party.admit(&mut stream, purpose).await?;
                let first = match party.same_build(&hello, pid) {
                    Ok(()) => Some(read_frame::<Start>(&mut stream, START_BYTES_MAX).await?),
                    Err(_) => None,
                };
                Ok::<_, Fault>((hello, first))
            });
            let (hello, first) = shown.await.ok()?.ok()?;
            if first.is_some() {
                // Only who reads this knows that it need not knock again; these few bytes always find room.
                write_frame(&mut stream, &Start::Welcome).await.ok()?;
            }
            Some(Entrant { line: Line { stream, pid }, hello, first })
        }));
    }

    /// Ends the oldest attempts until at most `left` are under way.
    fn make_room(&mut self, left: usize) {
        self.order.retain(|task| !task.is_finished());
        while self.order.len() > left {
            if let Some(oldest) = self.order.pop_front() {
                oldest.abort();
            }
        }
    }
}

/// Why a knock did not open a connection.
#[derive(Debug)]
pub(super) enum Knock {
    /// Nobody listens at that name.
    NobodyThere,
    /// It was crowded, or the other side was closing: try again.
    Again,
    /// Trying again would not help.
    Failed(Error),
}

/// Connects to the rank `host` at an abstract socket name, shows who we are and says `first`.
pub(super) async fn knock(
    name: &[u8],
    host: Rank,
    party: &Party,
    purpose: Purpose,
    first: &Start,
) -> Result<Line, Knock> {
    let mut stream = dial(name)?;
    let pid =
        match same_user(&stream).map_err(|e| Knock::Failed(super::system("getsockopt(SO_PEERCRED)", &e)))? {
            Ok(pid) => pid,
            Err(uid) => {
                return Err(Knock::Failed(Error::Refused(format!(
                    "the socket of {host} of {} belongs to user {uid}, not to this one; \
                 is another user's job using the same job id?",
                    party.id
                ))));
            }
        };
    let hello =
        party.greet(&mut stream, purpose).await.map_err(|fault| turned_away(fault, host, pid, party))?;
    party.same_build(&hello, pid).map_err(Knock::Failed)?;
    if hello.rank != host.0 {
        let what = format!("{host} answers as rank {}", hello.rank);
        return Err(Knock::Failed(Error::Corrupt { peer: host, what }));
    }
    write_frame(&mut stream, first).await.map_err(|_| Knock::Again)?;
    match read_frame(&mut stream, START_BYTES_MAX).await {
        Ok(Start::Welcome) => Ok(Line { stream, pid }),
        Ok(_) => Err(turned_away(Fault::Broken("did not say welcome"), host, pid, party)),
        Err(fault) => Err(turned_away(fault, host, pid, party)),
    }
}

fn dial(name: &[u8]) -> Result<UnixStream, Knock> {
    let failed = |call: &str, error: io::Error| Knock::Failed(super::system(call, &error));
    // Not through std: its connect would block in the kernel for as long as the other side's queue is full.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|e| failed("socket", e.into()))?;
    let address =
        SocketAddrUnix::new_abstract_name(name).map_err(|e| failed("the name of a socket", e.into()))?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => UnixStream::from_std(StdStream::from(socket)).map_err(|e| failed("epoll_ctl", e)),
        Err(Errno::CONNREFUSED) => Err(Knock::NobodyThere),
        Err(Errno::AGAIN | Errno::INTR) => Err(Knock::Again),
        Err(error) => Err(failed("connect", error.into())),
    }
}

fn turned_away(fault: Fault, host: Rank, pid: Option<u32>, party: &Party) -> Knock {
    match fault {
        Fault::Gone => Knock::Again,
        Fault::Stranger => Knock::Failed(Error::Refused(format!(
            "the socket of {host} of {} belongs to something else{}; use another job id",
            party.id,
            super::process(pid)
        ))),
        Fault::Secret => Knock::Failed(Error::Refused(format!(
            "{host}{} of {} holds another secret than {}; give every rank the same unique id or secret",
            super::process(pid),
            party.id,
            Rank(party.place.rank),
        ))),
        Fault::Broken(what) => Knock::Failed(Error::Corrupt { peer: host, what: what.into() }),
    }
}
