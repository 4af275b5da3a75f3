//! Pipes over sockets: one socket for each ordered pair of ranks, whose two directions are the two strands.
//!
//! No framing: a strand is a stream, and the kernel keeps the streams apart. Invariant: a queue holds bytes of one strand of one
//! pipe.

use crate::links::TcpLinks;
use crate::queue::Queue;
use crate::stream::Stream;
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::pipe::{Pipes, STRAND_BYTES_MIN, Strand, WHOLE_BYTES};
use sohu_coll_mem::{View, ViewMut};
use std::net::TcpStream;

/// Bytes of one pipe that wait for a socket, and that were read ahead.
const QUEUE_BYTES: usize = 256 << 10;

/// The same, of answers.
const ANSWER_BYTES: usize = 16 * STRAND_BYTES_MIN;

/// One end of a pipe.
pub(crate) struct End {
    stream: Stream,
    outgoing: Queue,
    incoming: Queue,
}

/// Both pipes between this rank and a peer.
pub(crate) struct PipePair {
    source: End,
    drain: End,
}

impl PipePair {
    /// Bytes of the queues of both.
    pub(crate) const BYTES: usize = 2 * (QUEUE_BYTES + ANSWER_BYTES);

    /// Over the socket of the pipe to `peer` and that of the one from there.
    pub(crate) fn new(peer: Rank, to: TcpStream, from: TcpStream) -> Self {
        let end = |socket, outgoing, incoming| {
            let (outgoing, incoming) = (Queue::new(outgoing), Queue::new(incoming));
            End { stream: Stream::new(peer, socket), outgoing, incoming }
        };
        Self { source: end(to, QUEUE_BYTES, ANSWER_BYTES), drain: end(from, ANSWER_BYTES, QUEUE_BYTES) }
    }

    fn ends(&mut self) -> [&mut End; 2] {
        [&mut self.source, &mut self.drain]
    }
}

impl End {
    fn put(&mut self, limit: usize, work: &mut dyn FnMut(ViewMut<'_>)) -> Result<usize, LinkError> {
        let least = limit.min(WHOLE_BYTES);
        if self.outgoing.room() < limit {
            self.stream.flush(&mut self.outgoing)?;
        }
        let count = self.outgoing.room().min(limit);
        if count < least || count == 0 {
            return Ok(0);
        }
        work(ViewMut::from(&mut self.outgoing.spare(count)[..count]));
        self.outgoing.produced(count);
        self.stream.flush(&mut self.outgoing)?;
        Ok(count)
    }

    fn take(&mut self, limit: usize, work: &mut dyn FnMut(View<'_>) -> usize) -> Result<usize, LinkError> {
        if self.incoming.is_empty() {
            self.stream.fill(&mut self.incoming, 1)?;
        }
        if self.incoming.is_empty() && self.stream.ended {
            return Err(LinkError::Closed { peer: self.stream.peer });
        }
        let count = self.incoming.len().min(limit);
        if count == 0 {
            return Ok(0);
        }
        let used = work(View::from(&self.incoming.live()[..count]));
        assert!(used <= count, "{used} of {count} bytes");
        self.incoming.consumed(used);
        Ok(used)
    }
}

impl Pipes for TcpLinks {
    fn put(
        &mut self,
        to: Rank,
        strand: Strand,
        limit: usize,
        work: &mut dyn FnMut(ViewMut<'_>),
    ) -> Result<usize, LinkError> {
        self.with_pipes(to, |pair| match strand {
            Strand::Bytes => pair.source.put(limit, work),
            Strand::Answers => pair.drain.put(limit, work),
        })
    }

    fn take(
        &mut self,
        from: Rank,
        strand: Strand,
        limit: usize,
        work: &mut dyn FnMut(View<'_>) -> usize,
    ) -> Result<usize, LinkError> {
        self.with_pipes(from, |pair| match strand {
            Strand::Bytes => pair.drain.take(limit, work),
            Strand::Answers => pair.source.take(limit, work),
        })
    }

    fn flush(&mut self, peer: Rank) -> Result<bool, LinkError> {
        self.with_pipes(peer, |pair| {
            let [source, drain] = pair.ends().map(|end| end.stream.flush(&mut end.outgoing));
            Ok(source? | drain?)
        })
    }

    fn is_clear(&mut self, peer: Rank) -> Result<bool, LinkError> {
        self.flush(peer)?;
        self.with_pipes(peer, |pair| Ok(pair.ends().iter().all(|end| end.outgoing.is_empty())))
    }
}
