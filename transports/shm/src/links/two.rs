//! An exchange of two ranks from beginning to end: see [`Links::exchange`](sohu_coll_core::link::Links::exchange).
//!
//! The lines say what they say in any other call. What is left out is what a rank notes for the case that it has to come
//! back: where the streams are, what is under way, what is lent. Where the peer does not come soon, or something else
//! comes, that is noted [then](ShmLinks::come_back), and the ordinary way goes on from there.

use super::exchange::INLINE_MAX;
use super::peer::Peer;
use super::protocol::{BOARD, CHUNK, DATA, FIRST, Flight, Front, PRIVATE, SIGNATURE_WORDS};
use super::{Call, Few, ShmLinks};
use sohu_coll_core::Signature;
use sohu_coll_core::link::{EXCHANGE_MAX, Met, Work};
use sohu_coll_mem::line::PAYLOAD_WORDS;
use sohu_coll_mem::words::{after_own_stores, between_looks, head_start};
use sohu_coll_mem::{ReadSpan, View, WriteSpan};

const CHUNK_FIRST: u8 = FIRST | CHUNK;
const BOARD_FIRST: u8 = FIRST | BOARD;
const PRIVATE_FIRST: u8 = FIRST | PRIVATE;

/// The head start of the other rank, in looks: as far as two ranks that do the same are apart, 17 ns on a Xeon on which a hand-over takes
/// 150. Twice as much gains nothing, and three times as much costs more than it saves.
pub(super) const HEAD_START: u32 = 5;

/// Who has copied more than that to staging memory comes late enough.
const HEAD_START_MAX: usize = 2 << 10;

/// What the peer says of its bytes.
#[derive(Clone, Copy)]
enum Theirs {
    /// They are in its line.
    Inline,
    /// They lie there in its segment, and it waits for their return, or not.
    At { offset: usize, lent: bool },
    /// They are in its private memory, and it waits for their return.
    Private { address: u64 },
}

/// Memory of the caller's is out without a span that says so. It is forgotten, and dropped only where `work` panics: then the memory
/// would go back to the caller while the peer may still use it, as it may in a scope that ends with a span out.
pub(super) struct Out;

impl Drop for Out {
    #[cold]
    fn drop(&mut self) {
        eprintln!("sohu-coll: memory is lent at the end of a call that panicked; this is a bug");
        std::process::abort();
    }
}

/// What makes a span of this rank's bytes, where they are lent.
type Lend<'a> = Option<&'a dyn Fn() -> ReadSpan>;

impl ShmLinks {
    /// Does what [`Links::exchange`](sohu_coll_core::link::Links::exchange) says.
    #[inline]
    pub(super) fn exchange_two(
        &mut self,
        call: &Signature,
        bytes: View<'_>,
        (lend, looks): (Lend<'_>, u32),
        work: Work<'_>,
    ) -> Option<Met> {
        let len = bytes.len();
        if self.failed.is_some() || !self.peers.only()?.is_at_rest() {
            return None;
        }
        let signature = call.to_words();
        let lend = self.put_two(signature, bytes, lend)?;
        let Some(peer) = self.peers.only() else { unreachable!("there was one") };
        if looks > 0 && (len <= HEAD_START_MAX || lend.is_some()) {
            let asks = lend.is_none() && (INLINE_MAX + 1..=self.ahead.theirs).contains(&len);
            // What was asked for before the peer has stored it would be taken from it.
            if asks {
                after_own_stores();
            }
            head_start(HEAD_START);
            if asks {
                peer.rx.ask_next();
                peer.next_board(len).ask();
            }
        }
        peer.spin(looks);
        let Some(theirs) = peer.theirs(len, signature) else {
            return Some(self.come_back(call, len, lend, work));
        };
        let bytes = match theirs {
            Theirs::Inline => Some(peer.rx.payload().slice(SIGNATURE_WORDS * 8..SIGNATURE_WORDS * 8 + len)),
            Theirs::At { offset, .. } => Some(peer.map.view(offset, len)),
            Theirs::Private { address } => peer.fetch_whole(address, len, work.into),
        };
        let Some(bytes) = bytes else { return Some(self.come_back(call, len, lend, work)) };
        // Not `then_some`, which makes one where nothing is lent and drops it.
        let out = if lend.is_some() { Some(Out) } else { None };
        (work.take)(&[bytes]);
        peer.opened = true;
        peer.rx.advance();
        if let Theirs::At { lent: true, .. } | Theirs::Private { .. } = theirs {
            // The peer waits for it.
            peer.chunks_taken += 1;
            peer.publish_credit();
        }
        // The next call is likely to be such a one, and to come soon.
        peer.tx.claim_next();
        self.open = 0;
        let Some(lend) = lend else {
            if len > self.ahead.early {
                self.claim_board(len);
            }
            return Some(Met::Settled);
        };
        // A hand-over from now the peer knows that its bytes were read, and so does this rank of its own.
        if let Some(meanwhile) = work.meanwhile {
            meanwhile();
        }
        core::mem::forget(out);
        if peer.is_returned(looks) {
            return Some(Met::Settled);
        }
        self.call = Call::new(call, signature);
        self.book_two(Some(lend()), None);
        Some(Met::Everybody)
    }

    /// Says in the call's first line what this rank's bytes are, or where. Returns what makes a span of them if they are
    /// lent now; nothing where they can not go out.
    #[inline]
    fn put_two<'a>(
        &mut self,
        signature: [u64; SIGNATURE_WORDS],
        bytes: View<'_>,
        lend: Lend<'a>,
    ) -> Option<Lend<'a>> {
        let len = bytes.len();
        let mut words = [0; PAYLOAD_WORDS];
        words[..SIGNATURE_WORDS].copy_from_slice(&signature);
        if len <= INLINE_MAX {
            bytes.load_words(&mut words[SIGNATURE_WORDS..]);
            self.peers.only()?.put_first(DATA, &words, len as u8);
            return Some(None);
        }
        if lend.is_some() {
            let (kind, place) = self.lent_at(bytes.as_ptr(), len)?;
            words[SIGNATURE_WORDS..][..2].copy_from_slice(&[place, len as u64]);
            let peer = self.peers.only()?;
            peer.chunks_put += 1;
            peer.put_first(kind, &words, 0);
            return Some(lend);
        }
        if len > EXCHANGE_MAX {
            return None;
        }
        let board = self.put_on_board(&mut words, &[bytes])?;
        let peer = self.peers.only()?;
        peer.put_first(BOARD, &words, 0);
        peer.note_board(board);
        if len <= self.ahead.early {
            self.claim_board(len);
        }
        Some(None)
    }

    /// The peer has not come, or not as it should: notes what the ordinary way needs, and goes it.
    #[cold]
    fn come_back(&mut self, call: &Signature, len: usize, lend: Lend<'_>, work: Work<'_>) -> Met {
        self.begin_two(call, len);
        if let Some(lend) = lend {
            self.book_two(Some(lend()), None);
        }
        self.meet_all(len, 0, work)
    }

    /// Notes that the call has begun, and that its first line with all of its bytes is out.
    pub(super) fn begin_two(&mut self, call: &Signature, len: usize) {
        self.call = Call::new(call, call.to_words());
        self.open = 1;
        self.awaited = Few::ALL;
        self.peers.iter_mut().for_each(Peer::reset);
        self.offered(len);
    }

    /// Notes what is lent, and posted, and still out.
    #[cold]
    pub(super) fn book_two(&mut self, lent: Option<ReadSpan>, answer: Option<(u64, WriteSpan)>) {
        let Ok(loan) = self.shared.loans.book(lent, 1) else {
            unreachable!("nothing is out at the beginning of a call");
        };
        self.shared.loans.answer = answer;
        self.peers.iter_mut().for_each(|peer| peer.flights.push_back(Flight::Lent(loan)));
    }
}

impl Peer {
    /// Whether the last call is over in every respect, and a line can go out now.
    #[inline]
    pub(super) fn is_at_rest(&self) -> bool {
        self.may_offer() && self.owed.is_empty() && self.flights.is_empty()
    }

    /// What the line in front says of the `len` bytes of the call with this signature; nothing if it says anything else,
    /// or there is none.
    #[inline]
    fn theirs(&mut self, len: usize, signature: [u64; SIGNATURE_WORDS]) -> Option<Theirs> {
        let line = self.rx.head()?;
        let (kind, inline, lines, chunks) = (line.kind, line.len, line.lines_ack, line.chunks_ack);
        let is_same = [self.rx.word(0), self.rx.word(1)] == signature;
        if !is_same || chunks != self.chunks_back as u16 {
            return None;
        }
        let start = SIGNATURE_WORDS;
        let theirs = if kind == FIRST | DATA {
            (usize::from(inline) == len && len <= INLINE_MAX).then_some(Theirs::Inline)?
        } else {
            let (at, length) = (self.rx.word(start), self.rx.word(start + 1));
            let lies = match kind {
                _ if length != len as u64 => return None,
                CHUNK_FIRST => self.chunk(at, length),
                BOARD_FIRST => self.board(at, length),
                PRIVATE_FIRST => self.private(at, length),
                _ => return None,
            };
            match lies.ok()? {
                Front::Private { address, .. } => Theirs::Private { address },
                lies => Theirs::At { offset: lies.offset()?, lent: kind == CHUNK_FIRST },
            }
        };
        self.tx.credit(lines).ok()?;
        Some(theirs)
    }

    /// Looks `looks` times more than once whether the peer has returned everything that was lent.
    #[inline]
    pub(super) fn is_returned(&mut self, looks: u32) -> bool {
        let mut left = looks;
        loop {
            let (lines, chunks) = self.credit_rx.read();
            if chunks == self.chunks_put as u16 && self.tx.credit(lines).is_ok() {
                self.chunks_back = self.chunks_put;
                return true;
            }
            if left == 0 {
                return false;
            }
            left -= 1;
            between_looks();
        }
    }
}
