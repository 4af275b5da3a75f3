//! Memory that the receiver of a stream posted for it: where the sender writes straight to.

use crate::layout::LINES;
use crate::links::Call;
use crate::links::protocol::{Front, LANDED, LANDED_MIN, SINK, SINKS_MAX, Sink, bounded};
use sohu_coll_core::error::LinkError;
use sohu_coll_mem::WriteSpan;

use super::Peer;

impl Peer {
    pub(in crate::links) fn landed(&self, len: u64) -> Result<Front, LinkError> {
        match self.posted.front() {
            Some((at, span)) if *at == self.in_at && len > 0 && len <= span.len() as u64 => {
                Ok(Front::Landed { len: len as usize })
            }
            _ => Err(self.corrupt("bytes landed where none were asked for")),
        }
    }

    pub(in crate::links) fn sink(&mut self, at: u64, offset: u64, len: u64) -> Result<(), LinkError> {
        let (offset, len) =
            bounded(offset, len, &self.layout.heap()).ok_or(self.corrupt("a sink outside the heap"))?;
        // Those that the stream went past in other ways are closed.
        while self.sinks.front().is_some_and(|first| first.at + first.len as u64 <= self.out_at) {
            self.sinks.pop_front();
        }
        if self.sinks.len() == SINKS_MAX {
            return Err(self.corrupt("more sinks than a peer may open"));
        }
        let in_order = self.sinks.back().is_none_or(|last| at >= last.at + last.len as u64);
        if !in_order || at.checked_add(len as u64).is_none() {
            return Err(self.corrupt("sinks out of order"));
        }
        self.sinks.push_back(Sink { at, offset, len });
        Ok(())
    }

    /// Posted memory comes back as its part of the stream does, whichever way the bytes came.
    #[cold]
    pub(in crate::links) fn land(&mut self, len: usize) {
        let Some((at, span)) = self.posted.front_mut() else { return };
        if *at == self.in_at {
            let len = len.min(span.len());
            span.landed(len);
            *at += len as u64;
            if span.is_empty() {
                self.posted.pop_front();
            }
        }
    }

    /// Notes that `len` bytes were written to the peer's sink, and says so once it is full; there must be room
    /// for a line. Not a line for each slice: the peer may be unable to take any before this rank is done.
    pub(in crate::links) fn wrote_sink(&mut self, len: usize, ours: &Call) {
        self.out_at += len as u64;
        self.landed_due += len;
        // The next sink may follow at once, but a line tells of one sink only: it is the first, as `sink_now` found it.
        if self.sinks.front().is_none_or(|sink| sink.at + sink.len as u64 <= self.out_at) {
            self.put_landed(ours);
        }
    }

    pub(in crate::links) fn put_landed(&mut self, ours: &Call) {
        let len = core::mem::take(&mut self.landed_due);
        self.put(LANDED, 0, &[len as u64], ours);
    }

    /// Tells the peer of what it can go on with, if it is much and lines are plenty.
    #[inline]
    pub(in crate::links) fn report_landed(&mut self, ours: &Call) {
        if self.landed_due >= LANDED_MIN && self.tx.room() > LINES / 2 {
            self.put_landed(ours);
        }
    }

    /// Asks the peer to write this call's stream, from `at` on, to `span`.
    pub(in crate::links) fn put_sink(&mut self, at: u64, offset: usize, span: WriteSpan, ours: &Call) {
        let told = (self.lines_told, self.chunks_told);
        self.put(SINK, 0, &[at, offset as u64, span.len() as u64], ours);
        // A peer that receives nothing does not look at this line, so what it says of credits has to
        // be said again.
        (self.lines_told, self.chunks_told) = told;
        self.posted.push_back((at, span));
    }

    /// Whether memory can be posted for the stream from `at` on.
    pub(in crate::links) fn may_post(&self, at: u64) -> bool {
        let end = |(at, span): &(u64, WriteSpan)| *at + span.len() as u64;
        self.posted.len() < SINKS_MAX && at >= self.in_at && self.posted.back().is_none_or(|p| at >= end(p))
    }

    /// Where the peer wants the next bytes written, and how many of them.
    pub(in crate::links) fn sink_now(&mut self) -> Option<(usize, usize)> {
        while let Some(sink) = self.sinks.front() {
            if self.out_at < sink.at {
                return None;
            }
            let done = (self.out_at - sink.at) as usize;
            if done < sink.len {
                return Some((sink.offset + done, sink.len - done));
            }
            self.sinks.pop_front();
        }
        None
    }

    /// How many bytes the peer has posted memory for, from the next one on.
    pub(in crate::links) fn sink_len(&self) -> usize {
        let at = |sink: &&Sink| sink.at <= self.out_at && self.out_at < sink.at + sink.len as u64;
        self.sinks.iter().find(at).map_or(0, |sink| sink.len - (self.out_at - sink.at) as usize)
    }
}
