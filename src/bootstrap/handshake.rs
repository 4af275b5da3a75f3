//! How two ends of a socket show each other that they hold the job's secret, without saying it.
//!
//! Each side sends a [`Hello`] with a fresh nonce; then first the side that took the connection and after it the side
//! that made it sends an HMAC-SHA-256, keyed with the secret, over its own label and both hellos. The
//! labels differ, so a proof can not be mirrored; the nonces are fresh, so it can not be replayed; and
//! everything a hello claims is under the proof. Invariant: nothing that a peer says sizes, allocates or changes
//! anything before its proof was checked.

use hmac::{Hmac, KeyInit, Mac};
use rustix::process::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;
use sohu_coll_core::Error;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::Place;
use super::id::UniqueId;
use super::wire::{HEAD_BYTES, Hello, MAGIC, Purpose, WIRE_VERSION, body_bytes, decode, encode, library};

const LABEL_TAKEN: &[u8] = b"sohu-coll: took the connection";
const LABEL_MADE: &[u8] = b"sohu-coll: made the connection";
const PROOF_BYTES: usize = 32;

/// Why one attempt to read from or to agree with the other end of a socket came to nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// The other end closed, or the socket failed.
    Gone,
    /// The other end is no part of this library.
    Stranger,
    /// The other end holds another secret, or is of another job.
    Secret,
    /// The other end is ours, and sent what no rank sends.
    Broken(&'static str),
}

impl From<io::Error> for Fault {
    fn from(_: io::Error) -> Self {
        Fault::Gone
    }
}

/// What one rank says about itself on every connection.
#[derive(Clone)]
pub(super) struct Party {
    pub(super) id: UniqueId,
    pub(super) place: Place,
    /// Tests pretend to be other versions.
    pub(super) library: [u8; 16],
    pub(super) wire: u32,
}

impl Party {
    pub(super) fn new(id: &UniqueId, place: Place) -> Self {
        Self { id: id.clone(), place, library: library(), wire: WIRE_VERSION }
    }

    fn hello(&self, purpose: Purpose) -> io::Result<Hello> {
        let mut hello = Hello::new_zeroed();
        hello.magic = MAGIC;
        hello.wire = self.wire.into();
        hello.purpose = (purpose as u32).into();
        hello.library = self.library;
        hello.job = self.id.job_bytes();
        hello.rank = self.place.rank.into();
        hello.size = self.place.size.into();
        hello.pid = std::process::id().into();
        getrandom::fill(&mut hello.nonce).map_err(io::Error::other)?;
        Ok(hello)
    }

    fn mac(&self, label: &[u8], made: &Hello, took: &Hello) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.id.secret())
            .expect("HMAC takes keys of any length");
        mac.update(label);
        mac.update(made.as_bytes());
        mac.update(took.as_bytes());
        mac
    }

    fn proof(&self, label: &[u8], made: &Hello, took: &Hello) -> [u8; PROOF_BYTES] {
        self.mac(label, made, took).finalize().into_bytes().into()
    }

    fn check(&self, label: &[u8], made: &Hello, took: &Hello, proof: &[u8]) -> Result<(), Fault> {
        // Compares in constant time.
        self.mac(label, made, took).verify_slice(proof).map_err(|_| Fault::Secret)
    }

    fn known(&self, hello: &Hello, purpose: Purpose) -> Result<(), Fault> {
        if hello.magic != MAGIC || hello.purpose != purpose as u32 {
            return Err(Fault::Stranger);
        }
        if hello.job == self.id.job_bytes() { Ok(()) } else { Err(Fault::Secret) }
    }

    /// Whether the speaker of `hello` runs the same build as this rank. One of another build can be understood no
    /// further than its hello; both sides find that out for themselves.
    pub(super) fn same_build(&self, hello: &Hello, pid: Option<u32>) -> Result<(), Error> {
        if hello.library == self.library && hello.wire.get() == self.wire {
            return Ok(());
        }
        let mut ours = Hello::new_zeroed();
        (ours.library, ours.wire) = (self.library, self.wire.into());
        Err(Error::Refused(format!(
            "rank {}{} runs sohu-coll {}, rank {} runs {}; start every rank with the same build",
            hello.rank,
            super::process(pid),
            hello.version(),
            self.place.rank,
            ours.version(),
        )))
    }

    /// The side that made the connection. Gives the other side's hello.
    pub(super) async fn greet(&self, stream: &mut UnixStream, purpose: Purpose) -> Result<Hello, Fault> {
        let ours = self.hello(purpose)?;
        stream.write_all(ours.as_bytes()).await?;
        let theirs = read_hello(stream).await?;
        self.known(&theirs, purpose)?;
        let mut proof = [0; PROOF_BYTES];
        stream.read_exact(&mut proof).await?;
        self.check(LABEL_TAKEN, &ours, &theirs, &proof)?;
        stream.write_all(&self.proof(LABEL_MADE, &ours, &theirs)).await?;
        Ok(theirs)
    }

    /// The side that took the connection. Gives the other side's hello.
    pub(super) async fn admit(&self, stream: &mut UnixStream, purpose: Purpose) -> Result<Hello, Fault> {
        let theirs = read_hello(stream).await?;
        self.known(&theirs, purpose)?;
        let ours = self.hello(purpose)?;
        stream.write_all(ours.as_bytes()).await?;
        stream.write_all(&self.proof(LABEL_TAKEN, &theirs, &ours)).await?;
        let mut proof = [0; PROOF_BYTES];
        stream.read_exact(&mut proof).await?;
        self.check(LABEL_MADE, &theirs, &ours, &proof)?;
        Ok(theirs)
    }
}

async fn read_hello(stream: &mut UnixStream) -> Result<Hello, Fault> {
    let mut bytes = [0; size_of::<Hello>()];
    stream.read_exact(&mut bytes).await?;
    Ok(Hello::read_from_bytes(&bytes).expect("the array has the size of a hello, and any bytes are one"))
}

/// Whether the kernel says that a process of this user is at the other end, and its process id where it can tell
/// (it can not across pid namespaces).
pub(super) fn same_user(stream: &UnixStream) -> io::Result<Result<Option<u32>, u32>> {
    let peer = stream.peer_cred()?;
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
    Ok(if peer.uid() == geteuid().as_raw() { Ok(pid) } else { Err(peer.uid()) })
}

/// Reads one frame, and not one byte more. Not to be given up half-way on a socket that is used afterwards.
pub(super) async fn read_frame<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
) -> Result<T, Fault> {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let mut body = vec![0; body_bytes(head, bytes_max).map_err(Fault::Broken)?];
    stream.read_exact(&mut body).await?;
    decode(&body).map_err(Fault::Broken)
}

/// Writes one frame.
pub(super) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> io::Result<()> {
    stream.write_all(&encode(message)).await
}
