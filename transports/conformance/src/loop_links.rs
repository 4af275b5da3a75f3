//! Links in memory: a bounded queue of bytes for each ordered pair of ranks, with faults decided by a seed.
//!
//! The reference for the contract, and the fabric for simulations: links that move one byte at a time,
//! refuse, or break, the same way every time for the same seed. Invariant: a queue holds, for each call in turn,
//! the signature and then the call's bytes, so that what a peer reads is decided by what was written alone.

use crate::loop_fabric::{Fabric, Faults};
use crate::seeded::Seeded;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{LinkCaps, Links, Met, OWED_MAX, SOURCES_MAX, Window, Work};
use sohu_coll_core::pipe::Pipes;
use sohu_coll_core::{Rank, Signature};
use sohu_coll_mem::{ReadSpan, View, ViewMut};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of a signature in a queue.
const HEADER_BYTES: usize = 16;

/// One rank's links in memory. Dropping them closes them for the peers.
pub struct LoopLinks {
    pub(crate) rank: Rank,
    pub(crate) fabric: Arc<Fabric>,
    random: Seeded,
    call: Option<Signature>,
    /// To whom this call's signature went.
    told: Vec<bool>,
    /// Whose signature came.
    heard: Vec<bool>,
    /// Calls that were left before a peer's signature came, by peer.
    owed: Vec<VecDeque<Signature>>,
    /// Whether this call was met, and waits for no more signatures.
    met: bool,
    /// What this call asked to be staged within.
    within: Option<usize>,
    sent_bytes: u64,
    scratch: Vec<u8>,
    pub(crate) failed: Option<LinkError>,
}

impl LoopLinks {
    /// What the call asked to be [staged within](Links::stage_within), which these links, without staging memory, only note.
    pub fn within(&self) -> Option<usize> {
        self.within
    }

    /// Links between `size` ranks; those of rank r at index r.
    ///
    /// # Panics
    /// When the faults leave no way to ever move a byte.
    pub fn fabric(size: u32, faults: Faults) -> Vec<LoopLinks> {
        let fabric = Arc::new(Fabric::new(size, faults));
        let links = |rank: u32| LoopLinks {
            rank: Rank(rank),
            fabric: fabric.clone(),
            random: Seeded::new(faults.seed ^ u64::from(rank) << 32),
            call: None,
            told: vec![false; size as usize],
            heard: vec![false; size as usize],
            owed: vec![VecDeque::new(); size as usize],
            met: false,
            within: None,
            sent_bytes: 0,
            scratch: Vec::new(),
            failed: None,
        };
        (0..size).map(links).collect()
    }

    /// The same, ready to be mixed with other transports.
    pub fn boxed(size: u32, faults: Faults) -> Vec<Box<dyn Links>> {
        Self::fabric(size, faults).into_iter().map(|links| Box::new(links) as Box<dyn Links>).collect()
    }

    /// Runs one method: refuses when the links have failed, and remembers it when they do.
    pub(crate) fn run<T>(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = body(self);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    pub(crate) fn refuses(&mut self) -> bool {
        self.chance(self.fabric.faults.refuse_percent)
    }

    fn chance(&mut self, percent: u8) -> bool {
        percent > 0 && self.random.below(100) < usize::from(percent)
    }

    fn call(&self) -> Signature {
        self.call.expect("begin comes before bytes")
    }

    /// All other ranks.
    fn peers(&self) -> impl Iterator<Item = Rank> + use<> {
        let own = self.rank;
        (0..self.fabric.size).map(Rank).filter(move |peer| *peer != own)
    }

    fn tell_all(&mut self) {
        self.peers().for_each(|peer| self.tell(peer));
    }

    /// Puts this call's signature into the queue to `peer`, past the window if need be: a rank is
    /// few calls ahead, so that is bounded.
    fn tell(&mut self, peer: Rank) {
        if self.told[peer.index()] {
            return;
        }
        let words = self.call().to_words();
        let mut pipe = self.fabric.pipe(self.rank, peer);
        for word in words {
            pipe.bytes.extend(word.to_le_bytes());
        }
        self.told[peer.index()] = true;
    }

    /// Whether the signature of `peer` for this call has come and is ours, after those that it owes.
    fn hear(&mut self, peer: Rank) -> Result<bool, LinkError> {
        while !self.heard[peer.index()] {
            let owed = self.owed[peer.index()].front().copied();
            if !self.hear_one(peer, owed.unwrap_or(self.call()))? {
                return Ok(false);
            }
            match owed {
                Some(_) => drop(self.owed[peer.index()].pop_front()),
                None => self.heard[peer.index()] = true,
            }
        }
        Ok(true)
    }

    /// Takes the next signature of `peer`, if it has come and is `ours`.
    fn hear_one(&mut self, peer: Rank, ours: Signature) -> Result<bool, LinkError> {
        let mut pipe = self.fabric.pipe(peer, self.rank);
        if pipe.bytes.len() < HEADER_BYTES {
            return if pipe.closed { Err(LinkError::Closed { peer }) } else { Ok(false) };
        }
        let mut header = [0; HEADER_BYTES];
        pipe.peek(&mut header);
        let word =
            |at: usize| header[at..at + 8].iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        let theirs = Signature::from_words([word(0), word(8)])
            .ok_or(LinkError::Corrupt { peer, what: "its header names no call" })?;
        if theirs != ours {
            return Err(LinkError::Mismatch { peer, ours, theirs });
        }
        pipe.bytes.drain(..HEADER_BYTES);
        Ok(true)
    }

    /// How many bytes all of `to` have room for.
    fn room(&self, to: &[Rank]) -> Result<usize, LinkError> {
        let mut room = usize::MAX;
        for &peer in to {
            let pipe = self.fabric.pipe(self.rank, peer);
            if pipe.closed {
                return Err(LinkError::Closed { peer });
            }
            room = room.min(self.fabric.faults.window_bytes.saturating_sub(pipe.bytes.len()));
        }
        Ok(room)
    }

    /// Cuts `count` bytes towards `to`, in whole granules, off where this rank's links are to break, and
    /// breaks them when they are there.
    fn cut(&mut self, count: usize, to: &[Rank], granule: usize) -> Result<usize, LinkError> {
        let whole = |count: usize| count - count % granule;
        let (Some((rank, after)), Some(&peer)) = (self.fabric.faults.break_after, to.first()) else {
            return Ok(whole(count));
        };
        if rank != self.rank || whole(count) == 0 {
            return Ok(whole(count));
        }
        let left = usize::try_from(after - self.sent_bytes).unwrap_or(usize::MAX);
        if whole(left) == 0 {
            self.fabric.close(self.rank);
            return Err(LinkError::Closed { peer });
        }
        Ok(whole(count.min(left)))
    }

    fn push(&mut self, to: &[Rank], bytes: &[u8]) {
        for &peer in to {
            self.tell(peer);
            self.fabric.pipe(self.rank, peer).bytes.extend(bytes);
        }
        if !to.is_empty() {
            self.sent_bytes += bytes.len() as u64;
        }
    }

    /// How many bytes of this call every one of `from` has ready; none of them comes from another call
    /// as long as no rank asks past the end of its call.
    fn ready(&mut self, from: &[Rank], granule: usize) -> Result<usize, LinkError> {
        let mut ready = usize::MAX;
        for &peer in from {
            if !self.hear(peer)? {
                return Ok(0);
            }
            let pipe = self.fabric.pipe(peer, self.rank);
            if pipe.bytes.len() < granule && pipe.closed {
                return Err(LinkError::Closed { peer });
            }
            ready = ready.min(pipe.bytes.len());
        }
        Ok(ready)
    }

    /// Whether `len` bytes of each rank of `from` have come, and all others owe less than they may, as an answer of `meet`:
    /// `Settled` when it is so. A peer whose signature came without all of its bytes sends them in pieces, and what is
    /// wrong is for the method that is called next: both are `Otherwise`.
    fn look(&mut self, from: &[Rank], len: usize) -> Met {
        let mut met = Met::Settled;
        for peer in self.peers() {
            match self.hear(peer) {
                Ok(true) if !from.contains(&peer) => {}
                Ok(false) | Err(LinkError::Closed { .. })
                    if !from.contains(&peer) && self.owed[peer.index()].len() < OWED_MAX => {}
                Ok(true) if self.fabric.pipe(peer, self.rank).bytes.len() >= len => {}
                Ok(false) => met = Met::NotYet,
                _ => return Met::Otherwise,
            }
        }
        met
    }

    /// Hands the next `len` bytes of each rank of `from` to `work`, and takes them.
    fn take_all(&mut self, from: &[Rank], len: usize, work: Work<'_>) {
        let mut bytes = vec![0; len * from.len()];
        for (peer, bytes) in from.iter().zip(bytes.chunks_mut(len)) {
            let mut pipe = self.fabric.pipe(*peer, self.rank);
            pipe.peek(bytes);
            pipe.bytes.drain(..len);
        }
        let views: Vec<View<'_>> = bytes.chunks(len).map(View::from).collect();
        match (&*views, work.into) {
            // In every other call, as links that have to fetch do.
            ([bytes], Some(into)) if self.call().sequence % 2 == 1 => {
                bytes.copy_to(into);
                (work.take)(&[into.as_view()]);
            }
            _ => (work.take)(&views),
        }
    }

    fn move_window(
        &mut self,
        from: &[Rank],
        to: &[Rank],
        limit: usize,
        granule: usize,
        work: &mut dyn FnMut(Window<'_>),
    ) -> Result<usize, LinkError> {
        let most = limit.min(self.fabric.faults.max_piece.max(granule));
        let count = most.min(self.ready(from, granule)?).min(self.room(to)?);
        let count = self.cut(count, to, granule)?;
        if count == 0 {
            return Ok(0);
        }
        let mut scratch = core::mem::take(&mut self.scratch);
        scratch.resize(count * (from.len() + 1), 0);
        let (incoming, outgoing) = scratch.split_at_mut(count * from.len());
        for (&peer, bytes) in from.iter().zip(incoming.chunks_mut(count)) {
            let mut pipe = self.fabric.pipe(peer, self.rank);
            pipe.peek(bytes);
            pipe.bytes.drain(..count);
        }
        let mut views = [View::EMPTY; SOURCES_MAX];
        for (view, bytes) in views.iter_mut().zip(incoming.chunks(count)) {
            *view = View::from(bytes);
        }
        let room = (!to.is_empty()).then(|| ViewMut::from(&mut *outgoing));
        work(Window { incoming: &views[..from.len()], outgoing: room, past_caches: false });
        self.push(to, outgoing);
        self.scratch = scratch;
        Ok(count)
    }
}

impl Drop for LoopLinks {
    fn drop(&mut self) {
        self.fabric.close(self.rank);
    }
}

impl Links for LoopLinks {
    fn transport(&self) -> &'static str {
        "loop"
    }

    fn rank(&self) -> Rank {
        self.rank
    }

    fn size(&self) -> u32 {
        self.fabric.size
    }

    fn caps(&self, _peer: Rank) -> LinkCaps {
        LinkCaps {
            latency_ns: 100.0,
            bytes_per_ns: 1.0,
            inline_bytes: 0,
            window_bytes: self.fabric.faults.window_bytes,
            lends: false,
        }
    }

    fn begin(&mut self, call: &Signature) -> Result<(), LinkError> {
        self.run(|links| {
            let left = links.call.is_some() && !links.is_verified();
            assert!(!left, "{} left {} before it was verified", links.rank, links.call());
            links.call = Some(*call);
            links.told.fill(false);
            links.heard.fill(false);
            links.met = false;
            links.within = None;
            Ok(())
        })
    }

    fn stage_within(&mut self, bytes: usize) {
        self.within = Some(bytes);
    }

    fn offer(&mut self, call: &Signature, to: &[Rank], bytes: View<'_>, lent: Option<ReadSpan>) -> usize {
        drop(lent);
        if self.begin(call).is_err() {
            return 0;
        }
        self.tell_all();
        self.send(to, bytes).unwrap_or(0)
    }

    fn offer_blocks(&mut self, call: &Signature, to: &[Rank], blocks: &[View<'_>]) -> bool {
        if self.begin(call).is_err() || self.refuses() {
            return false;
        }
        // All blocks go, whole, or none; links that are to break do so in the ordinary way.
        let faults = self.fabric.faults;
        let len = blocks.first().map_or(0, View::len);
        let fits = faults.max_piece >= len && self.room(to).is_ok_and(|room| room >= len);
        if !fits || faults.break_after.is_some() {
            return false;
        }
        self.tell_all();
        for (peer, block) in to.iter().zip(blocks) {
            let mut copy = vec![0; len];
            block.copy_to(ViewMut::from(&mut copy[..]));
            self.push(&[*peer], &copy);
        }
        true
    }

    fn meet(&mut self, from: &[Rank], len: usize, looks: u32, work: Work<'_>) -> Met {
        // Whatever more there is to come needs the other ranks to run: one look is as good as many.
        let _ = looks;
        if self.failed.is_some() || self.chance(self.fabric.faults.misses_percent) {
            return Met::Otherwise;
        }
        let met = self.look(from, len);
        if met != Met::Settled {
            return met;
        }
        self.take_all(from, len, work);
        for peer in self.peers().filter(|peer| !self.heard[peer.index()]) {
            let call = self.call();
            self.owed[peer.index()].push_back(call);
        }
        self.met = true;
        if self.refuses() { Met::Everybody } else { Met::Settled }
    }

    fn verify(&mut self) -> Result<bool, LinkError> {
        self.run(|links| {
            if links.is_verified() {
                return Ok(true);
            }
            if links.refuses() {
                return Ok(false);
            }
            let peers = (0..links.size()).map(Rank).filter(|peer| *peer != links.rank);
            let peers: Vec<Rank> = peers.collect();
            for &peer in &peers {
                links.tell(peer);
            }
            let mut verified = true;
            for &peer in &peers {
                verified &= links.hear(peer)?;
            }
            Ok(verified)
        })
    }

    fn send(&mut self, to: &[Rank], bytes: View<'_>) -> Result<usize, LinkError> {
        self.run(|links| {
            if bytes.is_empty() || links.refuses() {
                return Ok(0);
            }
            let count = bytes.len().min(links.fabric.faults.max_piece).min(links.room(to)?);
            let count = links.cut(count, to, 1)?;
            if count > 0 {
                let mut copy = core::mem::take(&mut links.scratch);
                copy.resize(count, 0);
                bytes.first(count).copy_to(ViewMut::from(&mut copy[..]));
                links.push(to, &copy);
                links.scratch = copy;
            }
            Ok(count)
        })
    }

    fn recv(&mut self, from: Rank, into: ViewMut<'_>) -> Result<usize, LinkError> {
        self.run(|links| {
            if into.is_empty() || links.refuses() {
                return Ok(0);
            }
            let count = into.len().min(links.fabric.faults.max_piece).min(links.ready(&[from], 1)?);
            if count > 0 {
                let mut copy = core::mem::take(&mut links.scratch);
                copy.resize(count, 0);
                let mut pipe = links.fabric.pipe(from, links.rank);
                pipe.peek(&mut copy);
                pipe.bytes.drain(..count);
                drop(pipe);
                View::from(&copy[..]).copy_to(into.first(count));
                links.scratch = copy;
            }
            Ok(count)
        })
    }

    fn pass(
        &mut self,
        from: &[Rank],
        to: &[Rank],
        limit: usize,
        granule: usize,
        work: &mut dyn FnMut(Window<'_>),
    ) -> Result<usize, LinkError> {
        self.run(|links| {
            if limit == 0 || from.is_empty() && to.is_empty() || links.refuses() {
                return Ok(0);
            }
            links.move_window(from, to, limit, granule, work)
        })
    }

    fn poll(&mut self) -> Result<bool, LinkError> {
        self.run(|_| Ok(false))
    }

    fn pipes(&mut self) -> &mut dyn Pipes {
        self
    }

    fn settled(&mut self) -> Result<bool, LinkError> {
        // What was sent lies in the peers' queues, which need no help.
        self.run(|links| Ok(!links.refuses()))
    }
}

impl LoopLinks {
    fn is_verified(&self) -> bool {
        if self.met {
            return true;
        }
        self.heard.iter().enumerate().all(|(rank, heard)| *heard || rank == self.rank.index())
            && self.told.iter().enumerate().all(|(rank, told)| *told || rank == self.rank.index())
    }
}
