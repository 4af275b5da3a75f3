//! A bounded queue of bytes in one piece, so that what is in it can be shown as one view.
//!
//! Invariant: `start <= end <= bytes.len()`, and an empty queue starts at 0. Nothing allocates after `new`.

/// Bytes between a socket and its user.
pub(crate) struct Queue {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Queue {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity].into(), start: 0, end: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The bytes in the queue.
    pub(crate) fn live(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether the live bytes can be moved to the front for no more than it cost to bring them in: at least
    /// as many were consumed before them.
    fn can_shift(&self) -> bool {
        self.len() <= self.start
    }

    /// How many bytes [`spare`](Queue::spare) can give.
    pub(crate) fn room(&self) -> usize {
        self.bytes.len() - if self.can_shift() { self.len() } else { self.end }
    }

    /// Room behind the live bytes: at least `want` where [`room`](Queue::room) says so.
    pub(crate) fn spare(&mut self, want: usize) -> &mut [u8] {
        if self.bytes.len() - self.end < want && self.can_shift() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.bytes[self.end..]
    }

    /// The first `count` spare bytes were written and are live now.
    pub(crate) fn produced(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.end, "{count} bytes were written past the queue");
        self.end += count;
    }

    /// The first `count` live bytes were used.
    pub(crate) fn consumed(&mut self, count: usize) {
        assert!(count <= self.len(), "{count} of {} bytes were used", self.len());
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;

    fn push(queue: &mut Queue, bytes: &[u8]) {
        queue.spare(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        queue.produced(bytes.len());
    }

    #[test]
    fn room_is_what_spare_gives() {
        for (filled, used) in
            [(0, 0), (1, 0), (15, 0), (16, 0), (16, 7), (16, 8), (16, 9), (16, 15), (16, 16), (10, 5)]
        {
            let mut queue = Queue::new(16);
            push(&mut queue, &vec![1; filled]);
            queue.consumed(used);
            let room = queue.room();
            assert!(queue.spare(room).len() >= room, "{filled} filled, {used} used");
            assert!(queue.room() >= room);
        }
    }

    #[test]
    fn bytes_keep_their_order_across_a_shift() {
        let mut queue = Queue::new(8);
        push(&mut queue, &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(queue.room(), 0);
        queue.consumed(5);
        push(&mut queue, &[9, 10, 11, 12, 13]);
        assert_eq!(queue.live(), [6, 7, 8, 9, 10, 11, 12, 13]);
        queue.consumed(8);
        assert_eq!(queue.room(), 8);
    }

    #[test]
    #[should_panic(expected = "past the queue")]
    fn more_than_the_room_is_a_bug() {
        let mut queue = Queue::new(8);
        queue.produced(9);
    }
}
