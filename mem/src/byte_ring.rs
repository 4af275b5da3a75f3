//! The writer's bookkeeping of a staging ring: which bytes are free, and who still reads the others.
//!
//! The bytes lie in shared memory and are not touched here. A segment is a contiguous run of them that
//! some number of readers must release. The invariant: what [`ByteRing::reserve`] gives out overlaps no
//! segment that a reader has not released; space comes back in the order it was given.

use core::ops::Range;

/// Segments start at multiples of this, in bytes: a cache line, so that no two share one.
pub const SEGMENT_ALIGN: usize = 64;

/// A committed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentId(u64);

#[derive(Clone, Copy)]
struct Segment {
    // With padding, and with the end of the ring when the next segment did not fit there.
    bytes: usize,
    readers: u32,
}

/// A ring of bytes with one writer, which may have many readers for each segment.
pub struct ByteRing {
    capacity: usize,
    // Where the next segment starts unless it wraps. A multiple of SEGMENT_ALIGN below `capacity`.
    at: usize,
    // Bytes from the oldest segment up to `at`. Counted, so that full and empty differ.
    used: usize,
    segments: Box<[Segment]>,
    segments_max: u64,
    // Segments `oldest..next` are out; segment `id` is at `id & (segments.len() - 1)`.
    oldest: u64,
    next: u64,
}

impl ByteRing {
    /// A ring of `capacity` bytes, of which at most `segments_max` segments are out at a time.
    ///
    /// # Panics
    /// When `capacity` is not a positive multiple of [`SEGMENT_ALIGN`], or `segments_max` is 0.
    #[must_use]
    pub fn new(capacity: usize, segments_max: usize) -> Self {
        assert!(
            capacity > 0 && capacity.is_multiple_of(SEGMENT_ALIGN),
            "a ring of {capacity} bytes, which is not a multiple of {SEGMENT_ALIGN}"
        );
        assert!(segments_max > 0, "a ring without segments");
        let none = Segment { bytes: 0, readers: 0 };
        Self {
            capacity,
            at: 0,
            used: 0,
            segments: vec![none; segments_max.next_power_of_two()].into(),
            segments_max: segments_max as u64,
            oldest: 0,
            next: 0,
        }
    }

    /// How many bytes the ring has.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many bytes are free. They may lie in two pieces, at the end and at the start.
    #[inline]
    #[must_use]
    pub fn free(&self) -> usize {
        self.capacity - self.used
    }

    /// How many segments are out.
    #[inline]
    #[must_use]
    pub fn outstanding(&self) -> usize {
        (self.next - self.oldest) as usize
    }

    /// Finds `want` contiguous free bytes, or fewer but at least `least` (then a multiple of
    /// [`SEGMENT_ALIGN`]). Their start is a multiple of [`SEGMENT_ALIGN`]. Nothing is taken until
    /// [`commit`](ByteRing::commit), and segments may be released meanwhile.
    ///
    /// # Panics
    /// When `least` is 0 or more than `want`.
    #[inline]
    #[must_use]
    pub fn reserve(&mut self, want: usize, least: usize) -> Option<Range<usize>> {
        self.reserve_within(want, least, self.capacity)
    }

    /// As [`reserve`](ByteRing::reserve), but wraps after the first `within` bytes of the ring: for a writer that
    /// knows how much of the ring is best kept in a cache.
    ///
    /// # Panics
    /// As [`reserve`](ByteRing::reserve).
    #[inline]
    #[must_use]
    pub fn reserve_within(&mut self, want: usize, least: usize, within: usize) -> Option<Range<usize>> {
        assert!(0 < least && least <= want, "at least {least} of {want} bytes");
        if self.next - self.oldest == self.segments_max {
            return None;
        }
        if self.used == 0 && want > within.saturating_sub(self.at) {
            // Nothing is out: a wrap wastes nothing. Here and not in `release`, which may be called between this
            // and `commit`.
            self.at = 0;
        }
        let (end, front) = self.pieces();
        let end = end.min(within.saturating_sub(self.at));
        // A wrap wastes the end of the ring, so only what does not fit there goes to the front.
        let range = if end >= want {
            self.at..self.at + want
        } else if front >= want {
            0..want
        } else if end >= least {
            self.at..self.at + end
        } else if front >= least {
            0..front
        } else {
            return None;
        };
        Some(range)
    }

    /// Where [`reserve_within`](ByteRing::reserve_within) would find `want` bytes, if those before them were free: a guess.
    #[inline]
    #[must_use]
    pub fn next_within(&self, want: usize, within: usize) -> Range<usize> {
        let start = if want <= within.saturating_sub(self.at) { self.at } else { 0 };
        start..start + want.min(self.capacity)
    }

    /// The free bytes from `at` on, and those at the start of the ring beyond its end.
    #[inline]
    fn pieces(&self) -> (usize, usize) {
        let end = (self.capacity - self.at).min(self.free());
        (end, self.free() - end)
    }

    /// Takes `len` bytes from `start`, which [`reserve`](ByteRing::reserve) has just given, until `readers`
    /// readers have released them.
    ///
    /// # Panics
    /// When the bytes are not free or not next, `len` or `readers` is 0, or too many segments are out.
    #[inline]
    pub fn commit(&mut self, start: usize, len: usize, readers: u32) -> SegmentId {
        assert!(len > 0 && readers > 0, "a segment of {len} bytes for {readers} readers");
        assert!(self.next - self.oldest < self.segments_max, "more than {} segments", self.segments_max);
        let (end, front) = self.pieces();
        let room = if start == self.at { end } else { front };
        assert!(
            (start == self.at || start == 0) && len <= room,
            "{len} bytes at {start}, where {room} are free and {} is next",
            self.at
        );
        if start != self.at && self.used > 0 {
            // The end of the ring is skipped: it comes back with the segment before it.
            self.segment(self.next - 1).bytes += end;
            self.used += end;
        }
        // No overflow, and still within `room`: `room` is a multiple of the alignment.
        let padded = len.next_multiple_of(SEGMENT_ALIGN);
        self.at = start + padded;
        if self.at == self.capacity {
            self.at = 0;
        }
        self.used += padded;
        let id = self.next;
        *self.segment(id) = Segment { bytes: padded, readers };
        self.next += 1;
        SegmentId(id)
    }

    /// One reader no longer needs the segment.
    ///
    /// # Panics
    /// When all its readers have released it already.
    #[inline]
    pub fn release(&mut self, id: SegmentId) {
        assert!((self.oldest..self.next).contains(&id.0), "segment {} released too often", id.0);
        let segment = self.segment(id.0);
        assert!(segment.readers > 0, "segment {} released too often", id.0);
        segment.readers -= 1;
        while self.oldest < self.next {
            let segment = *self.segment(self.oldest);
            if segment.readers > 0 {
                return;
            }
            self.used -= segment.bytes;
            self.oldest += 1;
        }
    }

    #[inline]
    fn segment(&mut self, id: u64) -> &mut Segment {
        let mask = self.segments.len() - 1;
        &mut self.segments[id as usize & mask]
    }
}
