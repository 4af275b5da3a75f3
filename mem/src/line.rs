//! Small messages: a ring of cache lines from one writer to one reader, with payload and sequence in the
//! same line, so that a message costs one hand-over of one line between two cores.
//!
//! The head word of a line is stored last and loaded first. It carries the line's turn (how often the
//! ring has come round, plus one): a slot holds the turn the reader expects, or the one before. The
//! invariant: the writer never stores into a line before the reader has said that it consumed it, by a
//! cumulative count that travels in lines of the other direction or in a credit word.
//!
//! Counts travel modulo 2^16. They stay unambiguous because at most [`OUTSTANDING_MAX`] lines (or chunks)
//! are out at a time, and because a credit word lags by less than that: see [`CreditTx::refresh`](crate::credit::CreditTx::refresh).

use core::marker::PhantomData;

use crate::words::{LINE_WORDS, Ordering, Orders, Sound, Word, Words};

/// How many words of payload a line carries.
pub const PAYLOAD_WORDS: usize = LINE_WORDS - 1;
/// How many bytes of payload a line carries.
pub const PAYLOAD_BYTES: usize = PAYLOAD_WORDS * 8;
/// The most lines, or staged chunks, that may be out at a time: a quarter of what 16 bits count, so that
/// an old count, a new one and a wrong one can be told apart.
pub const OUTSTANDING_MAX: usize = 1 << 14;

/// A word from the other rank that breaks the protocol, and what is wrong with it.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Corrupt(pub &'static str);

impl core::fmt::Display for Corrupt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Corrupt {}

/// One line: a header of a few small numbers and up to 56 bytes. What the numbers mean is the
/// transport's business; a reader must bound them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line {
    /// What the line is.
    pub kind: u8,
    /// How many bytes of payload count. From another rank it may be any number: see [`bytes`](Line::bytes).
    pub len: u8,
    /// How many lines of the other direction the sender of this line has consumed, modulo 2^16.
    pub lines_ack: u16,
    /// How many staged chunks the sender of this line has consumed, modulo 2^16.
    pub chunks_ack: u16,
    /// The payload. Words past those that were put hold what an older line left there.
    pub words: [u64; PAYLOAD_WORDS],
}

impl Line {
    /// The payload as bytes: `len` of them, or 56 if `len` claims more.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let len = usize::from(self.len).min(PAYLOAD_BYTES);
        let base = self.words.as_ptr().cast::<u8>();
        // SAFETY: `len` is at most the 56 bytes of `words`, all initialised, borrowed as long as `self`.
        unsafe { core::slice::from_raw_parts(base, len) }
    }

    /// All 56 bytes of payload, to write.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8; PAYLOAD_BYTES] {
        let base = self.words.as_mut_ptr().cast::<[u8; PAYLOAD_BYTES]>();
        // SAFETY: `words` is exactly 56 initialised bytes, borrowed mutably as long as `self`; every bit
        // pattern is a valid word.
        unsafe { &mut *base }
    }

    #[inline]
    fn head(kind: u8, len: u8, lines_ack: u16, chunks_ack: u16, turn: u16) -> u64 {
        u64::from(turn)
            | u64::from(kind) << 16
            | u64::from(len) << 24
            | u64::from(lines_ack) << 32
            | u64::from(chunks_ack) << 48
    }

    #[inline]
    fn set_head(&mut self, head: u64) {
        self.kind = (head >> 16) as u8;
        self.len = (head >> 24) as u8;
        self.lines_ack = (head >> 32) as u16;
        self.chunks_ack = (head >> 48) as u16;
    }
}

/// Brings a cumulative count up to date: `known` is what it was, `ack` is what came, modulo 2^16, and
/// `most` what it can be at most (`most - known` is at most [`OUTSTANDING_MAX`]). An `ack` that is older
/// than `known` changes nothing: counts travel by two ways, and one may overtake the other.
///
/// # Errors
/// When `ack` is beyond `most`, or older than any way can deliver.
#[inline]
pub fn catch_up(known: u64, ack: u16, most: u64) -> Result<u64, Corrupt> {
    let ahead = ack.wrapping_sub(known as u16);
    if u64::from(ahead) <= most.saturating_sub(known) {
        return Ok(known + u64::from(ahead));
    }
    let behind = (known as u16).wrapping_sub(ack);
    if usize::from(behind) <= OUTSTANDING_MAX && u64::from(behind) <= known {
        return Ok(known);
    }
    Err(Corrupt("acknowledges what was never sent"))
}

/// The most words from one line to the next, as a log: two cache lines.
const PITCH_MAX: u32 = 4;

/// Where line `count` lies: its first word and its turn.
#[derive(Clone, Copy)]
struct Place {
    mask: u64,
    shift: u32,
    /// Log of the words from one line to the next.
    pitch: u32,
}

impl Place {
    fn new(lines: usize, words: usize) -> Self {
        assert!(lines.is_power_of_two(), "a ring of {lines} lines, which is not a power of two");
        assert!(lines <= OUTSTANDING_MAX, "a ring of {lines} lines, more than {OUTSTANDING_MAX}");
        assert!(lines * LINE_WORDS <= words, "a ring of {lines} lines in {words} words");
        let pitch = (words / lines).ilog2().min(PITCH_MAX);
        Self { mask: lines as u64 - 1, shift: lines.trailing_zeros(), pitch }
    }

    #[inline]
    fn lines(self) -> u64 {
        self.mask + 1
    }

    /// Inside the words, and so are the 7 words after it: a pitch is at least a line, and no more than the words over
    /// the lines.
    #[inline]
    fn word(self, count: u64) -> usize {
        ((count & self.mask) as usize) << self.pitch
    }

    #[inline]
    fn turn(self, count: u64) -> u16 {
        ((count >> self.shift) + 1) as u16
    }
}

/// The writing end of a ring of lines.
pub struct LineTx<W: Words, O: Orders = Sound> {
    words: W,
    place: Place,
    sent: u64,
    // Lines that the reader has said it consumed; `sent - credited <= lines`.
    credited: u64,
    orders: PhantomData<fn() -> O>,
}

impl<W: Words> LineTx<W> {
    /// The writing end of a ring of `lines` lines in `words`, which are zero at first. With 16 words a line
    /// or more, lines lie two cache lines apart: processors fetch neighbours ahead, and the neighbour of a line that is
    /// read is the one that is about to be written.
    ///
    /// # Panics
    /// When `lines` is not a power of two of at most [`OUTSTANDING_MAX`], or `words` are fewer than 8 a line.
    pub fn new(words: W, lines: usize) -> Self {
        Self::starting_at(words, lines, 0)
    }
}

impl<W: Words, O: Orders> LineTx<W, O> {
    /// As [`new`](LineTx::new), as if `count` lines had come and gone: for tests of the wrap of the
    /// counters. Must be made before the reading end starts at the same count.
    ///
    /// # Panics
    /// As for [`new`](LineTx::new), and when `count` is not a multiple of `lines`.
    pub fn starting_at(words: W, lines: usize, count: u64) -> Self {
        let place = Place::new(lines, words.len());
        assert!(count & place.mask == 0, "a ring of {lines} lines can not start at line {count}");
        if count != 0 {
            for slot in 0..lines {
                let before = Line::head(0, 0, 0, 0, place.turn(count).wrapping_sub(1));
                words.word(slot << place.pitch).store(before, Ordering::Relaxed);
            }
        }
        Self { words, place, sent: count, credited: count, orders: PhantomData }
    }

    /// How many lines may be put now.
    #[inline]
    pub fn room(&self) -> usize {
        (self.place.lines() - (self.sent - self.credited)) as usize
    }

    /// How many lines were put.
    #[inline]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Puts a line; says no, and does nothing, when there is no room.
    #[inline]
    #[must_use]
    pub fn put(&mut self, line: &Line) -> bool {
        self.put_whole(line.kind, line.len, line.lines_ack, line.chunks_ack, &line.words)
    }

    /// Puts a line of which only the first words matter: the reader finds old bytes in the others.
    /// Says no, and does nothing, when there is no room.
    ///
    /// # Panics
    /// When there are more than 7 `words`.
    #[inline]
    #[must_use]
    pub fn put_words(&mut self, kind: u8, len: u8, lines_ack: u16, chunks_ack: u16, words: &[u64]) -> bool {
        self.put_parts(kind, len, lines_ack, chunks_ack, [&[], words])
    }

    /// As [`put_words`](LineTx::put_words), for words that lie in two places: to bring them together would cost
    /// another store and load of each.
    ///
    /// # Panics
    /// When there are more than 7 words.
    #[inline]
    #[must_use]
    pub fn put_parts(
        &mut self,
        kind: u8,
        len: u8,
        lines_ack: u16,
        chunks_ack: u16,
        parts: [&[u64]; 2],
    ) -> bool {
        let count = parts[0].len() + parts[1].len();
        assert!(count <= PAYLOAD_WORDS, "{count} words in a line of 7");
        if self.sent - self.credited == self.place.lines() {
            return false;
        }
        let start = self.place.word(self.sent) + 1;
        for (at, part) in [(start, parts[0]), (start + parts[0].len(), parts[1])] {
            for (index, &word) in part.iter().enumerate() {
                // SAFETY: at most 7 more than the line's first word; `Place::new` checked that the words hold it.
                unsafe { self.words.word_unchecked(at + index) }.store(word, Ordering::Relaxed);
            }
        }
        self.publish(Line::head(kind, len, lines_ack, chunks_ack, self.place.turn(self.sent)));
        true
    }

    /// Puts a line of which all words matter, or cost nothing: without a branch for each.
    /// Says no, and does nothing, when there is no room.
    #[inline]
    #[must_use]
    pub fn put_whole(
        &mut self,
        kind: u8,
        len: u8,
        lines_ack: u16,
        chunks_ack: u16,
        words: &[u64; PAYLOAD_WORDS],
    ) -> bool {
        if self.sent - self.credited == self.place.lines() {
            return false;
        }
        let first = self.place.word(self.sent) + 1;
        for (index, word) in words.iter().enumerate() {
            // SAFETY: at most 7 more than the line's first word; `Place::new` checked that the words hold it.
            unsafe { self.words.word_unchecked(first + index) }.store(*word, Ordering::Relaxed);
        }
        self.publish(Line::head(kind, len, lines_ack, chunks_ack, self.place.turn(self.sent)));
        true
    }

    /// Stores the head of the next line, whose payload is stored.
    #[inline]
    fn publish(&mut self, head: u64) {
        // SAFETY: inside the ring; `Place::new` checked that the words hold it.
        let slot = unsafe { self.words.word_unchecked(self.place.word(self.sent)) };
        // Pairs with the load in `LineRx::look_head`: publishes the payload, and ends what `lines_ack` and
        // `chunks_ack` say was read.
        slot.store(head, O::LINE_PUT);
        self.sent += 1;
    }

    /// Asks for the next line's memory ahead of the next put: the reader's cache still has a copy of it, and to take that
    /// away is half of a hand-over.
    #[inline]
    pub fn claim_next(&self) {
        self.words.claim(self.place.word(self.sent));
    }

    /// Learns how many lines the reader has consumed, modulo 2^16. An old count changes nothing.
    ///
    /// The count must have been loaded with Acquire (from a line or the credit word) before this call:
    /// that is what orders the reader's loads before the stores that reuse its lines.
    ///
    /// # Errors
    /// When the reader claims lines that were never put.
    #[inline]
    pub fn credit(&mut self, lines_ack: u16) -> Result<(), Corrupt> {
        self.credited = catch_up(self.credited, lines_ack, self.sent)?;
        Ok(())
    }
}

/// The reading end of a ring of lines.
pub struct LineRx<W: Words, O: Orders = Sound> {
    words: W,
    place: Place,
    consumed: u64,
    seen: bool,
    // Whether the payload is in `line` too, and not only the head.
    copied: bool,
    // A copy, so that a writer that breaks the protocol can not change a line after it was looked at.
    line: Line,
    orders: PhantomData<fn() -> O>,
}

impl<W: Words> LineRx<W> {
    /// The reading end of a ring of `lines` lines in `words`, which are zero at first.
    ///
    /// # Panics
    /// As for [`LineTx::new`].
    pub fn new(words: W, lines: usize) -> Self {
        Self::starting_at(words, lines, 0)
    }
}

impl<W: Words, O: Orders> LineRx<W, O> {
    /// As [`new`](LineRx::new), as if `count` lines had come and gone: see [`LineTx::starting_at`].
    ///
    /// # Panics
    /// As for [`LineTx::starting_at`].
    pub fn starting_at(words: W, lines: usize, count: u64) -> Self {
        let place = Place::new(lines, words.len());
        assert!(count & place.mask == 0, "a ring of {lines} lines can not start at line {count}");
        Self {
            words,
            place,
            consumed: count,
            seen: false,
            copied: false,
            line: Line::default(),
            orders: PhantomData,
        }
    }

    /// Asks for the next line ahead of the look for it. A processor has room for so many lines that are under way: the one that all others
    /// are for had better be the first of them.
    #[inline]
    pub fn ask_next(&self) {
        self.words.ask(self.place.word(self.consumed));
    }

    /// The next line, if it has come. The same one again until [`advance`](LineRx::advance).
    #[inline]
    pub fn peek(&mut self) -> Option<&Line> {
        if self.copied || self.look() { Some(&self.line) } else { None }
    }

    /// The head of the next line, if it has come: [`peek`](LineRx::peek) without the payload, which
    /// [`word`](LineRx::word) reads where it lies. A copy is another store and load of every word, and costs as
    /// much as the rest of a small message.
    #[inline]
    pub fn head(&mut self) -> Option<&Line> {
        if self.seen || self.look_head() { Some(&self.line) } else { None }
    }

    /// A word of the current line's payload, read now: keep it, for another read may give another word if the
    /// writer breaks the protocol.
    ///
    /// # Panics
    /// When a line has no such word.
    #[inline]
    pub fn word(&self, index: usize) -> u64 {
        assert!(index < PAYLOAD_WORDS, "word {index} of a line's 7");
        // SAFETY: at most 7 words after the line's first, inside the ring; `Place::new` checked.
        unsafe { self.words.word_unchecked(self.place.word(self.consumed) + 1 + index) }
            .load(Ordering::Relaxed)
    }

    #[inline]
    fn look_head(&mut self) -> bool {
        // SAFETY: inside the ring; `Place::new` checked that the words hold it.
        let slot = unsafe { self.words.word_unchecked(self.place.word(self.consumed)) };
        // Pairs with the store in `LineTx::put_words`: the payload is there when the turn is.
        let head = slot.load(O::LINE_LOOK);
        if head as u16 != self.place.turn(self.consumed) {
            return false;
        }
        self.line.set_head(head);
        self.seen = true;
        true
    }

    #[inline]
    fn look(&mut self) -> bool {
        if !self.seen && !self.look_head() {
            return false;
        }
        self.copied = true;
        let at = self.place.word(self.consumed);
        // All seven words, whatever `len` says: they came in the same cache line, and a fixed count of
        // loads costs less than a branch that is predicted wrong.
        for (index, word) in self.line.words.iter_mut().enumerate() {
            // SAFETY: `at + 7` is inside the ring too.
            *word = unsafe { self.words.word_unchecked(at + 1 + index) }.load(Ordering::Relaxed);
        }
        true
    }

    /// Consumes the line that [`peek`](LineRx::peek) showed. The writer may reuse it once
    /// [`consumed`](LineRx::consumed) was told to it.
    ///
    /// # Panics
    /// When no line was peeked.
    #[inline]
    pub fn advance(&mut self) {
        assert!(self.seen, "advance past line {} before it was peeked", self.consumed);
        self.seen = false;
        self.copied = false;
        self.consumed += 1;
    }

    /// How many lines were consumed.
    #[inline]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Whether the slot of the next line holds something a writer can have left there. For the slow
    /// path of a wait: a line with a wrong turn is never seen by [`peek`](LineRx::peek).
    ///
    /// # Errors
    /// When the slot's turn is neither the expected one nor the one before.
    pub fn check(&self) -> Result<(), Corrupt> {
        let head = self.words.word(self.place.word(self.consumed)).load(Ordering::Relaxed);
        let early = (head as u16).wrapping_sub(self.place.turn(self.consumed).wrapping_sub(1));
        if early <= 1 { Ok(()) } else { Err(Corrupt("a line with a turn that can not be")) }
    }
}

impl LineRx<crate::words::Mapped> {
    /// The payload of the current line, where it lies. Its writer may be writing it if it breaks the protocol.
    #[inline]
    pub fn payload(&self) -> crate::View<'_> {
        let first = self.words.word(self.place.word(self.consumed) + 1);
        // SAFETY: the 7 words after a line's first are mapped for as long as `self` holds the words.
        unsafe { crate::View::from_raw(core::ptr::from_ref(first).cast(), PAYLOAD_BYTES) }
    }
}
