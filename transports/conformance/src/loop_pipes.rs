//! The pipes of [`LoopLinks`]: a queue for each strand, with the same faults.

use crate::LoopLinks;
use sohu_coll_core::Rank;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::pipe::{Note, Pipes, STRAND_BYTES_MIN, Strand, WHOLE_BYTES};
use sohu_coll_mem::{View, ViewMut};

impl Pipes for LoopLinks {
    fn put(
        &mut self,
        to: Rank,
        strand: Strand,
        limit: usize,
        work: &mut dyn FnMut(ViewMut<'_>),
    ) -> Result<usize, LinkError> {
        self.run(|links| {
            if limit == 0 || links.refuses() {
                return Ok(0);
            }
            let faults = links.fabric.faults;
            let (from, end) = if strand == Strand::Bytes { (links.rank, to) } else { (to, links.rank) };
            let mut queue = links.fabric.strand(from, end, strand);
            if queue.closed {
                return Err(LinkError::Closed { peer: to });
            }
            let room = faults.window_bytes.max(STRAND_BYTES_MIN).saturating_sub(queue.bytes.len());
            let count = limit.min(faults.max_piece.max(WHOLE_BYTES)).min(room);
            if count < limit.min(WHOLE_BYTES) {
                return Ok(0);
            }
            let mut bytes = vec![0; count];
            work(ViewMut::from(&mut bytes[..]));
            queue.bytes.extend(bytes);
            Ok(count)
        })
    }

    fn take(
        &mut self,
        from: Rank,
        strand: Strand,
        limit: usize,
        work: &mut dyn FnMut(View<'_>) -> usize,
    ) -> Result<usize, LinkError> {
        self.run(|links| {
            if limit == 0 || links.refuses() {
                return Ok(0);
            }
            let (start, to) = if strand == Strand::Bytes { (from, links.rank) } else { (links.rank, from) };
            let mut queue = links.fabric.strand(start, to, strand);
            let count = queue.bytes.len().min(limit).min(links.fabric.faults.max_piece);
            if count == 0 {
                return if queue.closed { Err(LinkError::Closed { peer: from }) } else { Ok(0) };
            }
            let mut bytes = vec![0; count];
            queue.peek(&mut bytes);
            let used = work(View::from(&bytes[..]));
            queue.take(used);
            Ok(used)
        })
    }

    fn lends(&self, to: Rank, bytes: View<'_>) -> bool {
        let _ = to;
        bytes.len() >= self.fabric.faults.lends_from
    }

    fn lend(&mut self, to: Rank, bytes: View<'_>) -> Result<bool, LinkError> {
        self.run(|links| {
            if !links.lends(to, bytes) || links.refuses() {
                return Ok(false);
            }
            let mut queue = links.fabric.strand(links.rank, to, Strand::Bytes);
            if queue.closed {
                return Err(LinkError::Closed { peer: to });
            }
            queue.bytes.extend(copied(bytes));
            queue.lent = queue.bytes.len();
            Ok(true)
        })
    }

    fn bid(
        &mut self,
        to: Rank,
        head: Note,
        answer: Note,
        bytes: View<'_>,
        copy: fn(View<'_>, ViewMut<'_>),
    ) -> Option<usize> {
        if !self.bids(to) {
            return None;
        }
        let lends = self.lends(to, bytes);
        let most = if lends { bytes.len() } else { self.fabric.faults.max_piece };
        let count = bytes.len().min(most);
        let mut piece = vec![0; count];
        copy(bytes.first(count), ViewMut::from(&mut piece[..]));
        let mut queue = self.fabric.strand(self.rank, to, Strand::Bytes);
        queue.bytes.extend(head.iter().flat_map(|word| word.to_le_bytes()));
        queue.bytes.extend(piece);
        if lends {
            queue.lent = queue.bytes.len();
        }
        drop(queue);
        let mut queue = self.fabric.strand(to, self.rank, Strand::Answers);
        queue.bytes.extend(answer.iter().flat_map(|word| word.to_le_bytes()));
        Some(count)
    }

    fn deal(
        &mut self,
        from: Rank,
        limit: usize,
        looks: u32,
        work: &mut dyn FnMut(Note, Note, View<'_>) -> Option<usize>,
    ) -> bool {
        let _ = looks;
        const NOTE: usize = size_of::<Note>();
        if self.failed.is_some() || self.refuses() {
            return false;
        }
        let mut bytes = self.fabric.strand(from, self.rank, Strand::Bytes);
        let mut answers = self.fabric.strand(self.rank, from, Strand::Answers);
        if bytes.bytes.len() < NOTE || answers.bytes.len() < NOTE {
            return false;
        }
        let mut said = vec![0; bytes.bytes.len().min(NOTE + limit)];
        let mut answer = [0; NOTE];
        bytes.peek(&mut said);
        answers.peek(&mut answer);
        let used = work(note(&said[..NOTE]), note(&answer), View::from(&said[NOTE..]));
        if let Some(used) = used {
            bytes.take(NOTE + used);
            answers.take(NOTE);
        }
        used.is_some()
    }

    fn flush(&mut self, peer: Rank) -> Result<bool, LinkError> {
        let _ = peer;
        self.run(|_| Ok(false))
    }

    fn is_clear(&mut self, peer: Rank) -> Result<bool, LinkError> {
        // What was put lies in the peers' queues, which need no help.
        self.run(|links| {
            let lent = links.fabric.strand(links.rank, peer, Strand::Bytes).lent;
            Ok(lent == 0 && !links.refuses())
        })
    }
}

impl LoopLinks {
    /// Whether there is room for a bid, and nothing is broken.
    fn bids(&mut self, to: Rank) -> bool {
        let window = self.fabric.faults.window_bytes.max(STRAND_BYTES_MIN);
        let most = window - WHOLE_BYTES;
        let has_room = |from, to, strand| {
            let queue = self.fabric.strand(from, to, strand);
            !queue.closed && queue.bytes.len() <= most
        };
        let room = has_room(self.rank, to, Strand::Bytes) && has_room(to, self.rank, Strand::Answers);
        room && self.failed.is_none() && !self.refuses()
    }
}

fn copied(bytes: View<'_>) -> Vec<u8> {
    let mut copy = vec![0; bytes.len()];
    bytes.copy_to(ViewMut::from(&mut copy[..]));
    copy
}

fn note(bytes: &[u8]) -> Note {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    [word(0), word(8)]
}
