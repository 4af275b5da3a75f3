//! A whole small call in one trip: see [`Links::offer`](sohu_coll_core::link::Links::offer).
//!
//! The lines say what they say in any other call; this is only a shorter way through them. Whatever is not as
//! it should be is left where it lies, for the ordinary way to find and to name.

use super::peer::Peer;
use super::protocol::{BOARD, CHUNK, DATA, FIRST, SIGNATURE_WORDS};
use super::{Call, Shared, ShmLinks};
use sohu_coll_core::error::LinkError;
use sohu_coll_core::kernel::{self, Store};
use sohu_coll_core::Signature;
use sohu_coll_core::link::{EXCHANGE_MAX, SOURCES_MAX};
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
    /// Begins the call and sends `bytes` in its first line to every peer, or on a board, if there is room for a
    /// line to each.
    #[inline]
    pub(super) fn try_offer(&mut self, call: &Signature, bytes: View<'_>) -> Result<usize, LinkError> {
        self.try_begin(call)?;
        let len = bytes.len();
        if len > EXCHANGE_MAX || !self.peers.iter().flatten().all(Peer::has_line) {
            return Ok(0);
        }
        let mut words = [0; PAYLOAD_WORDS];
        words[..SIGNATURE_WORDS].copy_from_slice(&self.call.words);
        let (kind, inline) = if len <= INLINE_MAX {
            bytes.load_words(&mut words[SIGNATURE_WORDS..]);
            (DATA, len as u8)
        } else {
            // Every peer has read what this board held two exchanges ago: its line of the last one came after that.
            let which = self.boards_used & 1;
            self.boards_used += 1;
            let board = self.segment.map.view_mut(self.segment.layout().board(which), len);
            kernel::copy(bytes, board, None, Store::Cached);
            words[SIGNATURE_WORDS..][..2].copy_from_slice(&[which as u64, len as u64]);
            (BOARD, 0)
        };
        for peer in self.peers.iter_mut().flatten() {
            peer.put_first(kind, &words, inline, len);
        }
        Ok(len)
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
            (FIRST, BOARD) => self.board(word(start), word(start + 1)),
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
