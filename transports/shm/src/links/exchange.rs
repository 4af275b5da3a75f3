//! A whole small call in one trip: see [`Links::offer`](sohu_coll_core::link::Links::offer).
//!
//! The lines say what they say in any other call; this is only a shorter way through them. Whatever is not as
//! it should be is left where it lies, for the ordinary way to find and to name.

use super::peer::Peer;
use super::protocol::{BOARD, CHUNK, DATA, FIRST, Flight, Front, PRIVATE, SIGNATURE_WORDS, SINK};
use super::{Call, Shared, ShmLinks};
use crate::layout::{BOARDS, LINES};
use sohu_coll_core::Signature;
use sohu_coll_core::error::LinkError;
use sohu_coll_core::link::{EXCHANGE_MAX, Met, SOURCES_MAX, Work};
use sohu_coll_mem::line::PAYLOAD_WORDS;
use sohu_coll_mem::words::{between_looks, head_start};
use sohu_coll_mem::{ReadSpan, View, ViewMut};

/// The most bytes that travel in a call's first line.
pub(super) const INLINE_MAX: usize = (PAYLOAD_WORDS - SIGNATURE_WORDS) * 8;

/// The head start of a rank whose bytes this one waits for and has none of its own to put: it has little more to do.
const HEAD_START_ONE_WAY: u32 = 3;

/// What of the next board is asked for ahead of time, and of the place of the next message.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// The most bytes.
    pub(super) most: usize,
    /// The most bytes of a call whose next board is asked for while its own is under way.
    pub(super) early: usize,
    /// The most bytes of a peer's board that are asked for when it is about to say that they are there; half as many, where bytes go one way.
    pub(super) theirs: usize,
    /// The most bytes of each peer's board that are asked for, with the lines that tell of them, by a rank that has its turn on a core; if
    /// ranks share cores.
    pub(super) turn: Option<usize>,
}

impl Ahead {
    /// A processor has room for so many lines that are under way, and those of a longer call would wait for that.
    pub(super) const SOME: Self = Self { most: 1024, early: 2048, theirs: 0, turn: None };

    /// Where lines take long, over a mesh, all at once are best: an all-gather of 8 KiB takes 0.96 us so, and 1.13, an all-reduce of 4 KiB 0.99
    /// and 1.16. And all at once with the line that tells of them: 1 KiB takes 0.21 us so, and 0.28. Who writes more takes too long for that.
    pub(super) const ALL: Self = Self { most: EXCHANGE_MAX, early: EXCHANGE_MAX, theirs: 2048, turn: None };

    /// 8 ranks on 2 cores gather 8 bytes in 5.8 us so, and in 5.95, 512 in 5.95 and 6.35, and of 1 KiB each 4 of them in 2.8 and 2.6.
    pub(super) const TURN: usize = 512;
}

/// What a look for a peer's bytes came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Meeting {
    NotYet,
    Here,
    /// Something else came: for the ordinary way.
    Otherwise,
}

impl ShmLinks {
    /// Begins the call and says in its first line to every peer what its bytes are, or where, if there is room
    /// for a line to each.
    #[inline]
    pub(super) fn try_offer(
        &mut self,
        call: &Signature,
        bytes: View<'_>,
        lent: Option<ReadSpan>,
    ) -> Result<usize, LinkError> {
        let len = bytes.len();
        if !self.peers.iter().all(Peer::may_offer) {
            self.try_begin(call)?;
            return Ok(0);
        }
        let mut words = [0; PAYLOAD_WORDS];
        words[..SIGNATURE_WORDS].copy_from_slice(&call.to_words());
        if len <= INLINE_MAX {
            bytes.load_words(&mut words[SIGNATURE_WORDS..]);
            for peer in self.peers.iter_mut() {
                peer.put_first(DATA, &words, len as u8);
            }
        } else if let Some(span) = lent {
            return self.offer_loan(call, words, span);
        } else if len <= EXCHANGE_MAX {
            let Some(board) = self.put_on_board(&mut words, &[bytes]) else {
                self.try_begin(call)?;
                return Ok(0);
            };
            for peer in self.peers.iter_mut() {
                peer.put_first(BOARD, &words, 0);
                peer.note_board(board);
            }
            self.claim_board(len);
        } else {
            self.try_begin(call)?;
            return Ok(0);
        }
        // The bytes are under way, and what follows takes no time of theirs.
        self.try_begin(call)?;
        self.offered(len);
        Ok(len)
    }

    /// A board that every peer has read. The first two take turns: while all ranks wait for each other, a peer's line says
    /// that it has read the board of the call before.
    #[inline]
    pub(super) fn free_board(&self) -> Option<usize> {
        let turn = [self.turn ^ 1, self.turn].into_iter();
        turn.chain(2..BOARDS).find(|board| self.peers.iter().all(|peer| peer.has_read(*board)))
    }

    /// Asks for the memory of the board whose turn is next, as much as the last call took: the peers have read what was there,
    /// or are about to have, and their caches hold it still.
    #[inline]
    pub(super) fn claim_board(&self, len: usize) {
        let at = self.segment.layout().boards().start + (self.turn ^ 1) * EXCHANGE_MAX;
        self.segment.map.view_mut(at, len.min(self.ahead.most)).claim();
    }

    fn offer_loan(
        &mut self,
        call: &Signature,
        mut words: [u64; PAYLOAD_WORDS],
        span: ReadSpan,
    ) -> Result<usize, LinkError> {
        let (address, len) = (span.as_ptr(), span.len());
        let Some((kind, place)) = self.lent_at(address, len) else {
            self.try_begin(call)?;
            return Ok(0);
        };
        let Ok(loan) = self.shared.loans.book(Some(span), self.peers.ranks() - 1) else {
            self.try_begin(call)?;
            return Ok(0);
        };
        words[SIGNATURE_WORDS..][..2].copy_from_slice(&[place, len as u64]);
        for peer in self.peers.iter_mut() {
            peer.fly(Flight::Lent(loan));
            peer.put_first(kind, &words, 0);
        }
        self.try_begin(call)?;
        self.offered(len);
        Ok(len)
    }

    /// How a peer is told of the `len` bytes at `address` that are lent to it: the kind of line, and the place that it names.
    #[inline]
    pub(super) fn lent_at(&mut self, address: *const u8, len: usize) -> Option<(u8, u64)> {
        if let Some(offset) = self.segment.map.offset_of(address, len) {
            return Some((CHUNK, offset as u64));
        }
        if !self.fetches() {
            return None;
        }
        self.huge.note(address.addr(), len);
        Some((PRIVATE, address.addr() as u64))
    }

    /// The call has begun, and its first line with all of its bytes is out.
    #[inline]
    pub(super) fn offered(&mut self, len: usize) {
        for peer in self.peers.iter_mut() {
            peer.header_due = false;
            peer.out_at = len as u64;
        }
    }

    /// Looks for every peer's bytes, `looks` times more than once, and hands them to `work` when all are there.
    #[inline]
    pub(super) fn meet_all(&mut self, len: usize, looks: u32, work: Work<'_>) -> Met {
        self.ask_in_turn(len);
        if looks > 0
            && (INLINE_MAX + 1..=self.ahead.theirs / 2).contains(&len)
            && let Some(peer) = self.peers.only()
        {
            head_start(HEAD_START_ONE_WAY);
            peer.rx.ask_next();
            peer.next_board(len).ask();
        }
        // One after the other, for all are needed.
        let mut left = self.peers.iter_mut().fold(looks, |left, peer| peer.spin(left));
        loop {
            let mut missing = false;
            for peer in self.peers.iter_mut().filter(|peer| peer.front.is_none()) {
                match peer.meet(len, &self.call, &mut self.shared) {
                    Meeting::Here => {}
                    Meeting::NotYet => missing = true,
                    Meeting::Otherwise => return Met::Otherwise,
                }
            }
            if !missing {
                break;
            }
            if left == 0 {
                return Met::NotYet;
            }
            left -= 1;
            between_looks();
        }
        if let Some(peer) = self.peers.only() {
            let Some(bytes) = peer.met_or_fetched(len, work.into) else { return Met::Otherwise };
            (work.take)(&[bytes]);
            peer.part(len);
        } else {
            let mut views = [View::EMPTY; SOURCES_MAX];
            let mut count = 0;
            for (view, peer) in views.iter_mut().zip(self.peers.iter()) {
                let Some(bytes) = peer.met(len) else { return Met::Otherwise };
                *view = bytes;
                count += 1;
            }
            (work.take)(&views[..count]);
            self.peers.iter_mut().for_each(|peer| peer.part(len));
        }
        self.open = 0;
        if self.shared.loans.out == 0 { Met::Settled } else { self.settle(looks) }
    }

    /// Asks for what has not been seen of all peers at once, where this rank shares its core: most of it has come while others had their turn.
    #[inline]
    pub(super) fn ask_in_turn(&self, len: usize) {
        let Some(most) = self.ahead.turn else { return };
        let missing = || self.peers.iter().filter(|peer| peer.front.is_none());
        missing().for_each(|peer| peer.rx.ask_next());
        if (INLINE_MAX + 1..=most).contains(&len) {
            missing().for_each(|peer| peer.next_board(len).ask());
        }
    }

    /// Looks for the return of what was lent.
    pub(super) fn settle(&mut self, looks: u32) -> Met {
        for _ in 0..=looks {
            let collected = self.peers.iter_mut().try_for_each(|peer| peer.collect(&mut self.shared));
            if collected.is_err() {
                break; // `settled` meets the same, and says so
            }
            if self.shared.loans.out == 0 {
                return Met::Settled;
            }
            between_looks();
        }
        Met::Everybody
    }
}

impl Peer {
    /// Whether the peer has read what it was last told of this board.
    #[inline]
    pub(super) fn has_read(&self, board: usize) -> bool {
        let outstanding = LINES - self.tx.room();
        self.boards[board] + outstanding as u64 <= self.tx.sent()
    }

    /// The last line named this board.
    #[inline]
    pub(super) fn note_board(&mut self, board: usize) {
        self.boards[board] = self.tx.sent();
    }

    /// Looks up to `looks` times for a line, whatever it is, and for nothing else: the sooner it is seen. Returns how many
    /// looks are left.
    #[inline]
    pub(super) fn spin(&mut self, looks: u32) -> u32 {
        let mut left = looks;
        while left > 0 && self.rx.head().is_none() {
            left -= 1;
            between_looks();
        }
        left
    }

    /// Looks for the first line of the peer's call, with all of its bytes, and puts them in front.
    #[inline(always)]
    pub(super) fn meet(&mut self, len: usize, ours: &Call, shared: &mut Shared) -> Meeting {
        let Some(line) = self.rx.head() else { return Meeting::NotYet };
        let (kind, inline) = (line.kind, usize::from(line.len));
        let acks = (line.lines_ack, line.chunks_ack);
        let start = SIGNATURE_WORDS;
        let front = match (kind & FIRST, kind & !FIRST) {
            // The commonest, without the detour of a result: a line that is as long as it should be.
            (FIRST, DATA) if inline == len && len <= INLINE_MAX => Front::Data { start: start * 8, len },
            (FIRST, BOARD | CHUNK | PRIVATE) => {
                let (at, length) = (self.rx.word(start), self.rx.word(start + 1));
                match self.named(kind, at, length) {
                    Ok(front) if front.len() == len => front,
                    _ => return Meeting::Otherwise,
                }
            }
            // Memory that the peer posted in its last call, when this rank had sent it everything.
            (0, SINK) if !self.opened && self.absorb(acks.0, acks.1, shared).is_ok() => {
                self.rx.advance();
                return Meeting::NotYet;
            }
            _ => return self.meet_late(len, ours, shared),
        };
        let is_same = [self.rx.word(0), self.rx.word(1)] == ours.words && self.owed.is_empty();
        if !is_same || self.absorb(acks.0, acks.1, shared).is_err() {
            return Meeting::Otherwise;
        }
        self.front = Some(front);
        self.opened = true;
        self.front_is_first = true;
        Meeting::Here
    }

    /// The line is not such a one; the next may be, if the peer owed this one.
    #[cold]
    #[inline(never)]
    fn meet_late(&mut self, len: usize, ours: &Call, shared: &mut Shared) -> Meeting {
        if self.take_owed(shared) { self.meet(len, ours, shared) } else { Meeting::Otherwise }
    }

    /// Where the first line of an exchange, of this kind, says that its bytes lie.
    #[inline]
    pub(super) fn named(&mut self, kind: u8, at: u64, len: u64) -> Result<Front, LinkError> {
        match kind & !FIRST {
            BOARD => self.board(at, len),
            CHUNK => self.chunk(at, len),
            _ => self.private(at, len),
        }
    }

    /// The bytes that were met, where they lie; nothing if they have to be fetched.
    #[inline]
    pub(super) fn met(&self, len: usize) -> Option<View<'_>> {
        match self.front {
            Some(Front::Data { start, .. }) => Some(self.rx.payload().slice(start..start + len)),
            Some(Front::Private { .. }) => None,
            _ => Some(self.view(len)),
        }
    }

    /// The same, fetched if that has to be, to `into` if that is where they go; nothing if it fails, as it will again in the ordinary way.
    #[inline]
    pub(super) fn met_or_fetched<'a>(
        &'a mut self,
        len: usize,
        into: Option<ViewMut<'a>>,
    ) -> Option<View<'a>> {
        match self.front {
            Some(Front::Private { address, .. }) => self.fetch_whole(address, len, into),
            _ => self.met(len),
        }
    }

    /// What was met is done with: all there was to the call.
    #[inline]
    pub(super) fn part(&mut self, len: usize) {
        self.in_at = len as u64;
        let lent = matches!(self.front, Some(Front::Chunk { .. } | Front::Private { .. }));
        self.front = None;
        self.rx.advance();
        // The next call is likely to be such a one, and to come soon.
        self.tx.claim_next();
        self.front_is_first = false;
        if lent {
            // The peer waits for it.
            self.chunks_taken += 1;
            self.publish_credit();
        }
    }
}
