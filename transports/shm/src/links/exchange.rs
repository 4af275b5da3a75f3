//! A whole small call in one trip: see [`Links::offer`](sohu_coll_core::link::Links::offer).
//!
//! The lines say what they say in any other call; this is only a shorter way through them. Whatever is not as
//! it should be is left where it lies, for the ordinary way to find and to name.

use super::peer::Peer;
use super::protocol::{CHUNK, DATA, FIRST, SIGNATURE_WORDS};
use super::room::Room;
use super::{Call, Shared, ShmLinks};
use sohu_coll_core::error::LinkError;
use sohu_coll_core::kernel::{self, Store};
use sohu_coll_core::link::SOURCES_MAX;
use sohu_coll_core::{Rank, Signature};
use sohu_coll_mem::View;
use sohu_coll_mem::line::PAYLOAD_WORDS;

/// The most bytes that travel in a call's first line.
const INLINE_MAX: usize = (PAYLOAD_WORDS - SIGNATURE_WORDS) * 8;

/// What a look for a peer's bytes came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meeting {
    NotYet,
    Here,
    /// Something else came: for the ordinary way.
    Otherwise,
}

impl ShmLinks {
    #[inline]
    pub(super) fn try_offer(
        &mut self,
        call: &Signature,
        peers: &[Rank],
        bytes: View<'_>,
    ) -> Result<usize, LinkError> {
        self.try_begin(call)?;
        let sent = if bytes.len() <= INLINE_MAX { self.give_lines(bytes) } else { self.give_staged(peers, bytes)? };
        Ok(if sent { bytes.len() } else { 0 })
    }

    pub(super) fn meet_all(
        &mut self,
        len: usize,
        looks: u32,
        work: &mut dyn FnMut(&[View<'_>]),
    ) -> bool {
        let mut looked = 0;
        for peer in self.peers.iter_mut().flatten() {
            loop {
                match peer.meet(len, &self.call, &mut self.shared) {
                    Meeting::Here => break,
                    Meeting::NotYet if looked < looks => looked += 1,
                    Meeting::NotYet | Meeting::Otherwise => return false,
                }
            }
        }
        self.open = 0;
        let mut peers = self.peers.iter_mut().flatten();
        if let (Some(peer), None) = (peers.next(), peers.next()) {
            work(&[peer.view(len)]);
            peer.consume(len);
            return true;
        }
        let mut views = [View::EMPTY; SOURCES_MAX];
        let mut count = 0;
        for (view, peer) in views.iter_mut().zip(self.peers.iter().flatten()) {
            *view = peer.view(len);
            count += 1;
        }
        work(&views[..count]);
        self.peers.iter_mut().flatten().for_each(|peer| peer.consume(len));
        true
    }

    /// Sends `bytes` in the first line of the call to every peer, if there is room for all of them.
    #[inline]
    fn give_lines(&mut self, bytes: View<'_>) -> bool {
        let mut words = [0; PAYLOAD_WORDS];
        words[..SIGNATURE_WORDS].copy_from_slice(&self.call.words);
        bytes.load_words(&mut words[SIGNATURE_WORDS..]);
        if !self.peers.iter().flatten().all(Peer::has_line) {
            return false;
        }
        for peer in self.peers.iter_mut().flatten() {
            peer.put_first(&words, bytes.len());
        }
        true
    }

    /// Sends `bytes` through the staging ring, if it has room for all of them at once.
    fn give_staged(&mut self, peers: &[Rank], bytes: View<'_>) -> Result<bool, LinkError> {
        let (room, granted) = self.room(peers, bytes.len())?;
        let Room::Staged(at) = room else { return Ok(false) };
        if granted < bytes.len() {
            return Ok(false);
        }
        let out = self.segment.map.view_mut(self.segment.layout().staging().start + at, bytes.len());
        kernel::copy(bytes, out, None, Store::Cached);
        self.dispatch(peers, &room, &[], bytes.len());
        Ok(true)
    }
}

impl Peer {
    /// Looks for the first line of the peer's call, with all of its bytes, and puts them in front.
    #[inline]
    fn meet(&mut self, len: usize, ours: &Call, shared: &mut Shared) -> Meeting {
        let Some(line) = self.rx.head() else { return Meeting::NotYet };
        let (kind, inline) = (line.kind, usize::from(line.len));
        let acks = (line.lines_ack, line.chunks_ack);
        let word = |index| self.rx.word(index);
        let start = SIGNATURE_WORDS;
        let front = match (kind & FIRST, kind & !FIRST) {
            (FIRST, DATA) => self.data(start * 8, inline),
            (FIRST, CHUNK) => self.chunk(word(start), word(start + 1)),
            _ => return Meeting::Otherwise,
        };
        let same = [word(0), word(1)] == ours.words;
        match front {
            Ok(front) if same && front.len() == len && self.absorb(acks.0, acks.1, shared).is_ok() => {
                self.front = Some(front);
                self.opened = true;
                self.front_is_first = true;
                Meeting::Here
            }
            _ => Meeting::Otherwise,
        }
    }
}
