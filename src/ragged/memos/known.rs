//! What is known of a call that is made again, so that it need not be found out anew.
//!
//! Programs make the same call over and over. Once all blocks went along in it twice, and in no other one in between, a rank need not
//! write its counts, which are still there, and if all others' memos begin as they did, all agree as they did, and every block goes where
//! it went. Invariant: what is known holds of the call with that number and memos of that length alone, and is forgotten as soon as
//! another one is made.

/// Bytes that are copied from one place to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) len: usize,
}

impl Part {
    #[inline]
    pub(super) fn copy(self, from: &[u8], to: &mut [u8]) {
        to[self.to..][..self.len].copy_from_slice(&from[self.from..][..self.len]);
    }
}

/// What is known of the call before.
#[derive(Debug)]
pub(super) struct Known {
    /// Its number, while it is known; else 0.
    number: u64,
    /// The number of the last call of which all blocks went along.
    last: u64,
    /// How long memos were.
    len: usize,
    /// What the memos of all ranks began with, one after the other, and how long each of these is.
    heads: Vec<u8>,
    head: usize,
}

impl Known {
    /// Of no call yet, of so many ranks whose memos begin with so many bytes.
    pub(super) fn new(size: usize, head: usize) -> Self {
        Self { number: 0, last: 0, len: 0, heads: Vec::with_capacity(size * head), head }
    }

    /// Whether the call with this number, and memos of this length, is the known one.
    #[inline]
    pub(super) fn is(&self, number: u64, len: usize) -> bool {
        number != 0 && (self.number, self.len) == (number, len)
    }

    /// Another call is made, or this one differs.
    #[inline]
    pub(super) fn forget(&mut self) {
        self.number = 0;
    }

    /// Whether all these memos but that of `rank` begin as those of the known call did.
    #[inline]
    pub(super) fn is_said_again<'a>(&self, told: impl Iterator<Item = &'a [u8]>, rank: usize) -> bool {
        let mut heads = &self.heads[..];
        told.enumerate().all(|(other, memo)| {
            let (head, behind) = heads.split_at(self.head);
            heads = behind;
            other == rank || memo[..self.head] == *head
        })
    }

    /// The call with this number was made, with memos of this length that began so, and all blocks went along. It is known if it was
    /// made before: where lengths differ from call to call, nothing is kept.
    #[inline]
    pub(super) fn made<'a>(&mut self, number: u64, len: usize, heads: impl Iterator<Item = &'a [u8]>) {
        if std::mem::replace(&mut self.last, number) != number || number == 0 {
            return;
        }
        (self.number, self.len) = (number, len);
        self.heads.clear();
        heads.for_each(|head| self.heads.extend_from_slice(head));
    }
}
