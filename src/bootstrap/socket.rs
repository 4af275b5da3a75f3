//! One unix socket to one peer: frames both ways, without ever blocking, with a file descriptor now and then.
//!
//! Invariant: no call here waits, and reading stops exactly at the end of a frame, because a file descriptor
//! belongs to the frame whose first byte it came with.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};
use sohu_coll_core::{Error, Rank};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::wire::{HEAD_BYTES, How, PEER_BYTES_MAX, PeerMessage, body_bytes, decode};

/// The most bytes that wait for a peer that does not read: a few blobs. What does not fit is not sent.
const OUTGOING_BYTES_MAX: usize = 4 * PEER_BYTES_MAX;
/// Bytes set aside for a frame at the start, enough for any frame but a blob.
const INCOMING_BYTES: usize = 4 << 10;

/// Why nothing more comes from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Its end is closed.
    Gone,
    /// It sent what no rank sends.
    Broke(&'static str),
    /// The kernel refused.
    System(&'static str, Errno),
}

impl Trouble {
    /// As an error about `peer`, which was lost the given way during the given thing.
    pub(crate) fn error(&self, peer: Rank, how: How, during: &str) -> Error {
        match self {
            Trouble::Gone => Error::PeerLost { peer, how: how.text(), during: during.into() },
            Trouble::Broke(what) => Error::Corrupt { peer, what: (*what).into() },
            Trouble::System(call, errno) => super::system(&format!("{call} for {peer}"), &(*errno).into()),
        }
    }
}

/// A socket to one peer.
#[derive(Debug)]
pub(crate) struct PeerSocket {
    peer: Rank,
    fd: OwnedFd,
    pid: Option<u32>,
    /// Head and body of the frame that is coming in; the first `got` bytes are there.
    incoming: Vec<u8>,
    got: usize,
    /// What came with the first byte of that frame.
    file: Option<OwnedFd>,
    /// Frames of which the first `written` bytes are sent.
    outgoing: Vec<u8>,
    written: usize,
    /// Whether the next byte to go out takes the caller's file descriptor along.
    file_due: bool,
    /// The peer's end is closed for writing; what it sent before may still be read.
    deaf: bool,
}

impl PeerSocket {
    /// Takes over a connected, non-blocking unix stream socket.
    pub(crate) fn new(peer: Rank, fd: OwnedFd, pid: Option<u32>) -> Self {
        Self {
            peer,
            fd,
            pid,
            incoming: Vec::with_capacity(INCOMING_BYTES),
            got: 0,
            file: None,
            outgoing: Vec::new(),
            written: 0,
            file_due: false,
            deaf: false,
        }
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> Rank {
        self.peer
    }

    /// The process at the other end, where the kernel could tell.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The socket, to wait on.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether something is still to be sent, to a peer that can still hear it.
    pub(crate) fn is_sending(&self) -> bool {
        !self.deaf && self.written < self.outgoing.len()
    }

    /// Sends a frame as far as it goes now; the rest goes with later calls of [`PeerSocket::flush`]. A frame for
    /// which there is no room is dropped.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        if self.queue(frame) {
            self.flush(None);
        }
    }

    /// Queues a frame. `flush` must be given the file descriptor that goes with it, if `with_file`.
    pub(crate) fn queue_with(&mut self, frame: &[u8], with_file: bool) {
        if self.queue(frame) {
            self.file_due = with_file;
        }
    }

    fn queue(&mut self, frame: &[u8]) -> bool {
        if self.deaf || self.outgoing.len() + frame.len() > OUTGOING_BYTES_MAX {
            return false;
        }
        self.outgoing.extend_from_slice(frame);
        true
    }

    /// Sends what the kernel takes now.
    pub(crate) fn flush(&mut self, file: Option<BorrowedFd<'_>>) {
        while self.is_sending() {
            match self.send_some(file) {
                Ok(bytes) => {
                    self.written += bytes;
                    self.file_due = false;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Its end is closed. Why, stands in what it sent before, so only reading reports it.
                Err(_) => self.deaf = true,
            }
        }
        self.outgoing.clear();
        self.written = 0;
    }

    fn send_some(&self, file: Option<BorrowedFd<'_>>) -> Result<usize, Errno> {
        let bytes = &self.outgoing[self.written..];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let Some(file) = file.filter(|_| self.file_due) else { return send(&self.fd, bytes, flags) };
        let files = [file];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(
            control.push(SendAncillaryMessage::ScmRights(&files)),
            "the space is for one file descriptor"
        );
        sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, flags)
    }

    /// The next message, with the file descriptor that came with it; `None` when it is not here yet.
    ///
    /// # Errors
    /// When no message will come any more.
    pub(crate) fn receive(&mut self) -> Result<Option<(PeerMessage, Option<OwnedFd>)>, Trouble> {
        loop {
            let needed = self.needed()?;
            if self.got < needed {
                match self.receive_some(needed) {
                    Ok(0) | Err(Trouble::System(_, Errno::CONNRESET)) => return Err(Trouble::Gone),
                    Ok(bytes) => self.got += bytes,
                    Err(Trouble::System(_, Errno::INTR)) => {}
                    Err(Trouble::System(_, Errno::AGAIN)) => return Ok(None),
                    Err(trouble) => return Err(trouble),
                }
            } else {
                let message = decode(&self.incoming[HEAD_BYTES..needed]).map_err(Trouble::Broke)?;
                self.got = 0;
                return Ok(Some((message, self.file.take())));
            }
        }
    }

    /// How many bytes make the frame complete, as far as is known.
    fn needed(&self) -> Result<usize, Trouble> {
        if self.got < HEAD_BYTES {
            return Ok(HEAD_BYTES);
        }
        let mut head = [0; HEAD_BYTES];
        head.copy_from_slice(&self.incoming[..HEAD_BYTES]);
        Ok(HEAD_BYTES + body_bytes(head, PEER_BYTES_MAX).map_err(Trouble::Broke)?)
    }

    fn receive_some(&mut self, needed: usize) -> Result<usize, Trouble> {
        self.incoming.resize(needed, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut slices = [IoSliceMut::new(&mut self.incoming[self.got..needed])];
        let received =
            recvmsg(&self.fd, &mut slices, &mut control, flags).map_err(|e| Trouble::System("recvmsg", e))?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                // The padding has room for a second one, which no rank sends; it is closed here.
                self.file = files.into_iter().next().or(self.file.take());
            }
        }
        // What the kernel could not hand over, it dropped: this process has no room for a file descriptor.
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Trouble::System("recvmsg (a file descriptor)", Errno::MFILE));
        }
        Ok(received.bytes)
    }
}
