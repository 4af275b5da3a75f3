//! The seam for messages of two ranks: one pipe from each rank to each other rank.
//!
//! A call of all ranks goes over [`Links`](crate::link::Links), and every rank is in it. A message is the business of two
//! ranks, so it has ways of its own. A pipe goes one way: bytes flow forward, and short answers flow back in a strand of
//! their own, so that no answer waits behind bytes that nobody wants yet. Everything is polled; nothing blocks; how
//! bytes move is decided by the transport and seen by nobody else. Invariant: what goes through one strand of one pipe
//! depends on nothing in another strand, in another pipe, or on the links.

use crate::error::LinkError;
use crate::rank::Rank;
use sohu_coll_mem::{View, ViewMut};

/// The two strands of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strand {
    /// From the rank that the pipe comes from, to the one that it goes to.
    Bytes,
    /// Back: a few bytes about what came.
    Answers,
}

/// Up to this much is put whole or not at all: what fits a line of shared memory.
pub const WHOLE_BYTES: usize = 56;

/// As many bytes a strand takes, in pieces of 16 to [`WHOLE_BYTES`], while nobody takes any out.
pub const STRAND_BYTES_MIN: usize = 256;

/// What a [bid](Pipes::bid) puts into each strand before the bytes, as little-endian words.
pub type Note = [u64; 2];

/// Bids whose answers may be out: as many answers as are ever given ahead, and the one that is bid before the peer is heard.
pub const BIDS_MAX: usize = STRAND_BYTES_MIN / (2 * size_of::<Note>()) + 1;

/// The pipes of one rank, to and from every other.
///
/// What a rank puts into [`Strand::Bytes`] goes into its pipe to the peer; what it puts into [`Strand::Answers`] goes back
/// through the peer's pipe to it; and so on for what it takes.
///
/// Contract, each line a test in `transports/conformance`:
/// - bytes of one strand arrive once, in order, whatever the sizes of the pieces on either side;
/// - no method blocks; one that can move nothing returns 0 (or false) and changes nothing;
/// - a put takes at least [`WHOLE_BYTES`] (all, where there are fewer), or nothing;
/// - a strand that is full holds up no other strand, no other pipe, and no call on the links;
/// - what is clear arrives without its sender;
/// - words from a peer are bounded before they are used: garbage is [`LinkError::Corrupt`], never a crash;
/// - after an error, of the links too, every method returns an error.
pub trait Pipes: Send {
    /// Shows `work` room for the next bytes to `to`, at most `limit`; what it writes there is sent. Calls `work` at
    /// most once; returns how many bytes (0 when there is no room; `work` was not called then). In
    /// [`Strand::Answers`], `limit` is at most [`WHOLE_BYTES`].
    ///
    /// # Errors
    /// When the peer is gone or broke the protocol.
    fn put(
        &mut self,
        to: Rank,
        strand: Strand,
        limit: usize,
        work: &mut dyn FnMut(ViewMut<'_>),
    ) -> Result<usize, LinkError>;

    /// Hands `work` the next bytes from `from`, at most `limit`, in place; as many as it says are consumed then, the first ones.
    /// Calls `work` at most once; returns how many bytes were consumed (0 when none has come; `work` was not called then).
    ///
    /// # Errors
    /// When the peer is gone or broke the protocol.
    ///
    /// # Panics
    /// When `work` says that it used more than there was.
    fn take(
        &mut self,
        from: Rank,
        strand: Strand,
        limit: usize,
        work: &mut dyn FnMut(View<'_>) -> usize,
    ) -> Result<usize, LinkError>;

    /// Whether there may be something to [take](Pipes::take). It costs less to ask this of several strands than to take from each, since one answer
    /// does not wait for the one before.
    fn has_come(&mut self, from: Rank, strand: Strand) -> bool {
        let _ = (from, strand);
        true
    }

    /// Whether the reader of what is put towards `to` shares no cache with this rank, so that it is best written past
    /// the caches.
    fn is_far(&self, to: Rank) -> bool {
        let _ = to;
        false
    }

    /// Whether [`lend`](Pipes::lend) can do anything for these bytes.
    fn lends(&self, to: Rank, bytes: View<'_>) -> bool {
        let _ = (to, bytes);
        false
    }

    /// Lets `to` read the next bytes where they lie, if it can reach them and there is room to tell it. Counts as
    /// putting all of them. They must stay as they are until the pipe [is clear](Pipes::is_clear), or the call has
    /// failed.
    ///
    /// # Errors
    /// When the peer is gone or broke the protocol.
    fn lend(&mut self, to: Rank, bytes: View<'_>) -> Result<bool, LinkError> {
        let _ = (to, bytes);
        Ok(false)
    }

    /// Moves the next bytes from `from` to `into`, as many as fit, if they are lent and this moves them better than
    /// [`take`](Pipes::take), which takes any. Returns how many; 0 where there are no such.
    ///
    /// # Errors
    /// When the peer is gone or broke the protocol.
    fn fetch(&mut self, from: Rank, into: ViewMut<'_>) -> Result<usize, LinkError> {
        let _ = (from, into);
        Ok(0)
    }

    /// Puts `head` and some of `bytes` into [`Strand::Bytes`], and `answer` into [`Strand::Answers`], in one go; or lends
    /// the bytes, as [`lend`](Pipes::lend) does. `copy` moves them where they are staged. Returns how many of them went;
    /// `None` if nothing was put. Fewer than [`LEND_MIN`](crate::link::LEND_MIN) bytes are not lent, and need no more help of
    /// this rank.
    ///
    /// The other methods can do this, and `take` takes what was put. It is a method because a short message takes as long as
    /// the lines that it is made of. The answer may lie behind what was put into [`Strand::Bytes`] before: this is only for
    /// who knows that the peer takes all of that. An error is kept, and told by the method that is called next. No more than
    /// [`BIDS_MAX`] answers may be out.
    fn bid(
        &mut self,
        to: Rank,
        head: Note,
        answer: Note,
        bytes: View<'_>,
        copy: fn(View<'_>, ViewMut<'_>),
    ) -> Option<usize> {
        let _ = (to, head, answer, bytes, copy);
        None
    }

    /// Looks up to `looks` times more than once for what `from` has [bid](Pipes::bid), if it is next in both strands.
    /// Hands head, answer and the bytes that came with them, at most `limit` and none of those that [`fetch`](Pipes::fetch)
    /// moves, to `work`. That says how many of the bytes are consumed, with head and answer; or that nothing is. Returns
    /// whether something was; if not, everything is as it was, for
    /// the other methods.
    ///
    /// # Panics
    /// When `work` says that it used more than there was.
    fn deal(
        &mut self,
        from: Rank,
        limit: usize,
        looks: u32,
        work: &mut dyn FnMut(Note, Note, View<'_>) -> Option<usize>,
    ) -> bool {
        let _ = (from, limit, looks, work);
        false
    }

    /// Pushes on what is under way between this rank and `peer`: flushes buffers, gives back room. Returns whether anything
    /// moved.
    ///
    /// # Errors
    /// When the peer is gone or broke the protocol.
    fn flush(&mut self, peer: Rank) -> Result<bool, LinkError>;

    /// Whether all that was put towards `peer`, in both strands, has left this rank's private memory or will without its
    /// help, and nothing lent is out.
    ///
    /// # Errors
    /// When the peer is gone or broke the protocol.
    fn is_clear(&mut self, peer: Rank) -> Result<bool, LinkError>;
}
