//! Where things lie in a segment. The same on every rank of a communicator, but for the heap's length.

use core::ops::Range;
use sohu_coll_core::link::{EXCHANGE_MAX, OWED_MAX};

/// Bytes of one cache line.
pub(crate) const LINE: usize = 64;

pub(crate) const LINES: usize = Layout::LINES;

/// Bytes of the slot that each link has to itself. Whatever other readers of the staging ring do, a link
/// whose peer has taken everything accepts this much: that is what proves plans free of deadlock.
pub(crate) const SLOT: usize = 32 << 10;

/// Lines of a pipe: forward, and back for the answers.
pub(crate) const PIPE_LINES: usize = 64;
pub(crate) const ANSWER_LINES: usize = 16;

/// Bytes of a pipe's ring: no more than this for all of a rank's together, and for one no less and no more than these.
/// With 2 MiB, 64 KiB each way take 4.4 us, with 1 MiB 6.2: a line is then out of the reader's cache before it is written anew.
/// And no more than staging, which is less where ranks share cores: 64 KiB round 8 ranks on 2 cores take 39 us with 1 MiB, 36 with half.
const PIPE_RINGS: usize = 8 << 20;
pub(crate) const PIPE_RING_MIN: usize = 128 << 10;
const PIPE_RING_MAX: usize = 2 << 20;

/// Lines and credits of the pipes to and from one peer.
const PIPE_CONTROL: usize = (PIPE_LINES + ANSWER_LINES) * Layout::LINE_PITCH + 4 * LINE;

const PAGE: usize = 4096;

/// Bytes of the ring for near peers, which has no more than the one for all: a quarter of a core's own cache. There it
/// stays, so that ranks of one core find in it what they gave each other: twice as much made 512 KiB on 4 ranks no faster.
const NEAR_BYTES: usize = 256 << 10;

/// Places for the bytes of exchanges, and the bytes of all of them.
/// Two are enough while all ranks wait for each other. A rank that leaves [`OWED_MAX`] calls before it hears of the first has as
/// many out, and the one of the call that its peers were in before.
pub(crate) const BOARDS: usize = OWED_MAX + 2;
pub(crate) const BOARD_BYTES: usize = BOARDS * EXCHANGE_MAX;

/// The parts of a segment.
///
/// | part | length | written by | read by |
/// |---|---|---|---|
/// | control | a page | the owner (probe words: ranks 0 and 1) | peers |
/// | credits | a line for each rank | the owner, for what it consumed | the rank the line is for |
/// | lines | 64 lines for each rank | the owner | the rank the lines are for |
/// | boards | ten of 4 KiB | the owner | all peers |
/// | beacons | a page for each rank | the owner | the rank the page is for |
/// | staging | as configured, and up to 256 KiB more for near peers where there are several | the owner | all peers |
/// | slots | 32 KiB for each rank | the owner | the rank the slot is for |
/// | pipe control | 80 lines and two credits for each rank | the owner | the rank it is for |
/// | pipe rings | 128 KiB to 2 MiB for each rank, as much as staging at most, sparse | the owner | the rank the ring is for |
/// | heap | as configured, sparse | the owner, and peers where memory is posted | all peers |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    ranks: usize,
    staging_bytes: usize,
    heap_bytes: usize,
}

impl Layout {
    /// The most ranks that shared memory connects: 8 KiB of lines for each pair is 512 KiB a rank then.
    pub const RANKS_MAX: u32 = 64;

    /// Lines in the ring to one peer: enough that a sender of small messages seldom waits for credits, which
    /// come back a quarter of the ring at a time, and few enough to stay in a core's first cache.
    pub const LINES: usize = 64;

    /// Bytes from one line to the next. Two cache lines, because processors fetch them in pairs: an exchange of
    /// lines that were neighbours took 66 ns, and takes 57.
    pub const LINE_PITCH: usize = 2 * LINE;

    /// A layout for `ranks` ranks; lengths are rounded up to whole pages.
    ///
    /// # Panics
    /// When there are no ranks, more than [`RANKS_MAX`](Self::RANKS_MAX), or no staging.
    pub fn new(ranks: u32, staging_bytes: usize, heap_bytes: usize) -> Self {
        assert!((1..=Self::RANKS_MAX).contains(&ranks), "{ranks} ranks");
        assert!(staging_bytes >= PAGE, "{staging_bytes} bytes of staging");
        Self {
            ranks: ranks as usize,
            staging_bytes: staging_bytes.next_multiple_of(PAGE),
            heap_bytes: heap_bytes.next_multiple_of(PAGE),
        }
    }

    /// How many ranks it is for.
    pub(crate) fn ranks(&self) -> usize {
        self.ranks
    }

    /// Bytes of the whole segment.
    pub fn len(&self) -> usize {
        self.heap().end
    }

    /// Bytes of each part but the heap, which takes memory as it is used. So do the rings of pipes; here they count in full.
    pub fn parts(&self) -> [(&'static str, usize); 5] {
        let lines = self.lines(self.ranks) - self.lines(0);
        let (staging, slots) = (self.staging().len(), self.pipe_lines(0) - self.staging().end);
        let pipes = self.heap().start - self.pipe_lines(0);
        let control = self.heap().start - lines - staging - slots - pipes;
        [("staging", staging), ("slots", slots), ("lines", lines), ("pipes", pipes), ("control", control)]
    }

    /// Whether the segment is empty: never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The doorbell's word.
    pub(crate) fn doorbell(&self) -> usize {
        0
    }

    /// The word that the hand-over probe of ranks 0 and 1 uses, two lines away from its neighbours (adjacent
    /// lines are fetched in pairs).
    pub(crate) fn probe(&self) -> usize {
        4 * LINE
    }

    /// The word that says that the owner's loans are not good any more.
    pub(crate) fn withdrawn(&self) -> usize {
        8 * LINE
    }

    /// Where the credits for lines that `peer` sent to the owner lie, in bytes from the start of the segment.
    pub fn credit(&self, peer: usize) -> usize {
        PAGE + peer * LINE
    }

    /// Where the lines that the owner sends to `peer` lie, in bytes from the start of the segment.
    pub fn lines(&self, peer: usize) -> usize {
        (PAGE + self.ranks * LINE).next_multiple_of(PAGE) + peer * LINES * Self::LINE_PITCH
    }

    /// The boards, where a rank puts what it has to say in exchanges.
    pub(crate) fn boards(&self) -> Range<usize> {
        let start = self.lines(self.ranks).next_multiple_of(PAGE);
        start..start + BOARD_BYTES
    }

    /// The page whose lines tell `peer` how far away the owner's core is.
    pub(crate) fn beacon(&self, peer: usize) -> Range<usize> {
        let start = self.boards().end.next_multiple_of(PAGE) + peer * PAGE;
        start..start + PAGE
    }

    /// The staging memory: the ring for all peers, and behind it the one for near peers.
    pub fn staging(&self) -> Range<usize> {
        let start = self.beacon(self.ranks).start;
        // One peer is near or far, but never are some of them one and some the other.
        let near = if self.ranks > 2 { self.staging_bytes.min(NEAR_BYTES) } else { 0 };
        start..start + self.staging_bytes + near
    }

    /// The ring for what is staged for near peers alone, while others are far.
    pub(crate) fn near_staging(&self) -> Range<usize> {
        let staging = self.staging();
        staging.start + self.staging_bytes..staging.end
    }

    /// The slot of the link to `peer`.
    pub(crate) fn slot(&self, peer: usize) -> usize {
        self.staging().end + peer * SLOT
    }

    /// Where the lines that the owner puts into its pipe to `peer` lie, in bytes from the start of the segment.
    pub fn pipe_lines(&self, peer: usize) -> usize {
        self.slot(self.ranks) + peer * PIPE_CONTROL
    }

    /// Where the owner's answers to what came through the pipe from `peer` lie.
    pub fn pipe_answers(&self, peer: usize) -> usize {
        self.pipe_lines(peer) + PIPE_LINES * Self::LINE_PITCH
    }

    /// Where the owner says what it consumed: of the answers that came back through its pipe to `peer`, if it is the
    /// `source` of the pipe, else of what came through the pipe from `peer`.
    pub fn pipe_credit(&self, peer: usize, source: bool) -> usize {
        self.pipe_answers(peer) + ANSWER_LINES * Self::LINE_PITCH + if source { 2 * LINE } else { 0 }
    }

    /// The ring of the pipe from the owner to `peer`.
    pub fn pipe_ring(&self, peer: usize) -> Range<usize> {
        let share = 1 << (PIPE_RINGS / self.ranks).min(self.staging_bytes).ilog2();
        let len: usize = share.clamp(PIPE_RING_MIN, PIPE_RING_MAX);
        let start = self.pipe_lines(self.ranks).next_multiple_of(PAGE) + peer * len;
        start..start + len
    }

    /// The registered heap.
    pub fn heap(&self) -> Range<usize> {
        let start = self.pipe_ring(self.ranks).start;
        // Systems map segments next to each other, so the length is the distance between equal buffers of two ranks. An odd
        // number of pages keeps them apart in the tables that a core looks addresses up in by a few of their bits: 64 KiB
        // between two ranks took 1.45 us with 0x421 pages and the heap, and mostly 5 us with 0x420.
        let odd = if ((start + self.heap_bytes) / PAGE).is_multiple_of(2) { PAGE } else { 0 };
        start + odd..start + odd + self.heap_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_start_on_lines() {
        for ranks in 1..=Layout::RANKS_MAX {
            let layout = Layout::new(ranks, 5000, 1);
            let last = ranks as usize - 1;
            assert!(layout.probe() + LINE <= layout.withdrawn());
            assert!(layout.withdrawn() + LINE <= layout.credit(0));
            assert!(layout.credit(last) + LINE <= layout.lines(0));
            assert!(layout.lines(last) + LINES * Layout::LINE_PITCH <= layout.boards().start);
            assert!(layout.boards().end <= layout.beacon(0).start);
            assert_eq!(layout.beacon(last).end, layout.staging().start);
            assert_eq!(layout.slot(last) + SLOT, layout.pipe_lines(0));
            assert!(layout.pipe_credit(last, true) + LINE <= layout.pipe_ring(0).start);
            assert!(layout.pipe_ring(last).end <= layout.heap().start);
            assert_eq!(layout.len() / PAGE % 2, 1, "{ranks} ranks");
            assert!(
                layout.pipe_ring(0).len().is_power_of_two() && layout.pipe_ring(0).len() >= PIPE_RING_MIN
            );
            assert_eq!(layout.parts().iter().map(|part| part.1).sum::<usize>(), layout.heap().start);
            for at in [layout.credit(1), layout.lines(1), layout.staging().start, layout.heap().start] {
                assert_eq!(at % LINE, 0);
            }
            for at in [layout.pipe_lines(1), layout.pipe_answers(1), layout.pipe_credit(1, true)] {
                assert_eq!(at % LINE, 0);
            }
            assert!(layout.pipe_credit(0, true) + LINE <= layout.pipe_lines(1));
        }
    }
}
