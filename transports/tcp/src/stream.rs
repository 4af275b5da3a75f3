//! Moving bytes between a socket and a queue, as far as the socket lets them.

use crate::queue::Queue;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use std::net::TcpStream;

/// One socket to a peer.
pub(crate) struct Stream {
    pub(crate) peer: Rank,
    socket: TcpStream,
    /// Whether the peer's side has ended: no more bytes will come.
    pub(crate) ended: bool,
}

impl Stream {
    /// The socket, which does not block.
    pub(crate) fn new(peer: Rank, socket: TcpStream) -> Self {
        Self { peer, socket, ended: false }
    }

    /// Writes what the socket takes. Returns whether it took any.
    pub(crate) fn flush(&self, outgoing: &mut Queue) -> Result<bool, LinkError> {
        let mut moved = false;
        while !outgoing.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, outgoing.live(), flags) {
                Ok(count) => {
                    outgoing.consumed(count);
                    moved = true;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(LinkError::Closed { peer: self.peer }),
                Err(errno) => return Err(self.system("send", errno)),
            }
        }
        Ok(moved)
    }

    /// Reads until there are `want` bytes, as far as they have come. Returns whether any came.
    /// An end of the stream is only noted: what came before it is still good.
    pub(crate) fn fill(&mut self, incoming: &mut Queue, want: usize) -> Result<bool, LinkError> {
        let mut moved = false;
        while incoming.len() < want && !self.ended {
            let missing = want - incoming.len();
            match rustix::net::recv(&self.socket, incoming.spare(missing), RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET) => self.ended = true,
                Ok((count, _)) => {
                    incoming.produced(count);
                    moved = true;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(self.system("recv", errno)),
            }
        }
        Ok(moved)
    }

    fn system(&self, call: &'static str, errno: Errno) -> LinkError {
        LinkError::System { peer: self.peer, call, errno: errno.raw_os_error() }
    }
}
