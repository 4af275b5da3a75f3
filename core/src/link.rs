//! The seam between the executor and a transport: all of one rank's links over that transport.
//!
//! A link is a reliable, ordered stream of bytes to one peer and one back. Links come in a
//! bundle because a transport shares work between them: one staged copy serves every reader, one
//! system call serves every socket. Everything is polled; nothing blocks; how bytes move (inside a
//! cache line, through staging, out of a lent buffer, into a posted one, through a socket) is decided here
//! and seen by nobody else.

use crate::error::LinkError;
use crate::pipe::Pipes;
use crate::rank::Rank;
use crate::signature::Signature;
use sohu_coll_mem::{ReadSpan, View, ViewMut, WriteSpan};

/// What a link is like, as numbers, so that choosing an algorithm is arithmetic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkCaps {
    /// One-way time of a minimal message, in nanoseconds.
    pub latency_ns: f64,
    /// Bytes per nanosecond (GB/s) of one direction, for large messages.
    pub bytes_per_ns: f64,
    /// The most bytes that travel with their own header (no second trip to fetch them).
    pub inline_bytes: usize,
    /// The most bytes in flight before the peer must take some.
    pub window_bytes: usize,
    /// Whether memory of this rank can be lent to the peer and posted for it ([`Links::lend`], [`Links::post`]).
    pub lends: bool,
}

/// The span came back: there was no room, or the link moves such bytes better by a copy.
#[derive(Debug)]
pub struct Refused<S>(pub S);

/// What one [`Links::pass`] sees: the next bytes from every source, in the order they were named, and
/// room for as many bytes towards the destinations. All have the same length.
pub struct Window<'a> {
    /// The bytes that came, one view for each rank of `from`.
    pub incoming: &'a [View<'a>],
    /// Where to write the bytes that go to every rank of `to`; `None` when `to` is empty.
    pub outgoing: Option<ViewMut<'a>>,
    /// Whether they are best written past the caches: where the reader's core shares none with this one. Where nothing goes out,
    /// whether the one source is so far away.
    pub past_caches: bool,
}

/// What came of [`Links::meet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// Some bytes have yet to come. Nothing was taken: meet again.
    NotYet,
    /// Something else came, or the links have failed. Nothing was taken: the call goes on by the other methods.
    Otherwise,
    /// The bytes were taken; [`Links::settled`] has yet to say so.
    Everybody,
    /// The bytes were taken and nothing is out: the call is done.
    Settled,
}

/// What a rank does in an exchange with what its peers send it.
pub struct Work<'a> {
    /// Takes what came: one view for each rank that gives bytes, in order. Called once at most.
    pub take: &'a mut dyn FnMut(&[View<'_>]),
    /// Where the bytes of the one such rank go, if all of them go there as they are. Links that can not show them where they lie store them there
    /// instead, and show `take` that place.
    pub into: Option<ViewMut<'a>>,
    /// What else there is to do. Called once at most, after `take`, where this rank has nothing left to do but to wait for the return of
    /// what it lent; or not at all.
    pub meanwhile: Option<&'a mut dyn FnMut()>,
}

impl<'a> Work<'a> {
    /// Nothing but `take`.
    pub fn new(take: &'a mut dyn FnMut(&[View<'_>])) -> Self {
        Self { take, into: None, meanwhile: None }
    }
}

/// What a rank gives the other one in a swap: the part that the other is to work on.
pub struct Half<'a> {
    /// The bytes.
    pub bytes: View<'a>,
    /// Where the answer goes, equally long: the same memory, or other.
    pub answer: ViewMut<'a>,
    /// From which byte of the peer's stream on the answer comes.
    pub at: u64,
    /// How many bytes the other rank gives: the part that this one works on.
    pub theirs: usize,
    /// Gives the span that is lent, unless the bytes lie where the answer goes, and the one that is posted.
    pub spans: &'a dyn Fn() -> (Option<ReadSpan>, WriteSpan),
}

/// The links from one rank to its peers over one transport.
///
/// Contract, each line a test in `transports/conformance`:
/// - bytes of one call arrive once, in order, whatever the sizes of the pieces on either side;
/// - no method blocks; a method that can move nothing returns 0 (or [`Refused`]) and changes nothing;
/// - [`begin`](Links::begin) starts a call: stream positions in both directions start from 0, and the
///   signature goes to every peer ahead of the call's first byte;
/// - no byte of a call is handed over before the peer's signature for it was compared: a difference is
///   [`LinkError::Mismatch`] and the bytes stay where they are;
/// - a rank may begin its next call while peers are still in the last one, or where [`meet`](Links::meet) did not wait for
///   them in one of the last [`OWED_MAX`]: bytes of different calls never mix;
/// - a lent span is dropped when the peer has consumed its last byte, or when the links fail;
/// - after an error every method returns an error;
/// - words from a peer are bounded before they are used: garbage is [`LinkError::Corrupt`], never a crash.
pub trait Links: Send {
    /// The transport's name: `shm`, `tcp`.
    fn transport(&self) -> &'static str;

    /// This rank.
    fn rank(&self) -> Rank;

    /// How many ranks there are, this one included.
    fn size(&self) -> u32;

    /// What the link to `peer` is like.
    fn caps(&self, peer: Rank) -> LinkCaps;

    /// Starts a call. The bytes of the call before must all have been sent and received, and
    /// [`settled`](Links::settled) must have said so. Signatures of peers may be owed, where [`meet`](Links::meet) did not
    /// wait for them.
    ///
    /// # Errors
    /// When the links have failed.
    fn begin(&mut self, call: &Signature) -> Result<(), LinkError>;

    /// Of the call that was just begun: `bytes` bytes of the memory that what is sent is copied to are enough, and best used over and
    /// over, since what is there is soon read on the same core. A hint, for links that have such memory.
    fn stage_within(&mut self, _bytes: usize) {}

    /// Begins an exchange: a call in which a rank sends the same few bytes to some peers or to all, takes as many from
    /// some or from all, and has nothing else to do with them. Does [`begin`](Links::begin), sends `bytes` to all of
    /// `to`, or lends them, where `lent` is a span of the same bytes. Returns how many
    /// bytes went; if all did, so has the signature to all others.
    ///
    /// The other methods can do this, and go on from here; it is a method because a small call takes as
    /// long as the calls that it is made of. An error is kept, and told by the method that is called next.
    fn offer(&mut self, call: &Signature, to: &[Rank], bytes: View<'_>, lent: Option<ReadSpan>) -> usize {
        drop(lent);
        if self.begin(call).is_err() {
            return 0;
        }
        let sent = self.send(to, bytes).unwrap_or(0);
        if to.len() + 1 < self.size() as usize {
            // Whoever gets no bytes hears of the call by this.
            let _: Result<bool, LinkError> = self.verify();
        }
        sent
    }

    /// Begins an exchange as [`offer`](Links::offer) does, in which each rank of `to` gets a block of its own: the one in
    /// the same place of `blocks`, which are equally long and no more than [`EXCHANGE_MAX`] bytes together. There may be
    /// none, where this rank only takes. Returns whether they went; if not, the call has begun, nothing was sent, and it
    /// goes on by the other methods.
    fn offer_blocks(&mut self, call: &Signature, to: &[Rank], blocks: &[View<'_>]) -> bool {
        let _ = (to, blocks);
        let _: Result<(), LinkError> = self.begin(call);
        false
    }

    /// Ends an exchange if the ranks of `from` come soon: looks for the `len` bytes of each of them, which are in order,
    /// and `looks` times more. When all have come it hands them to `work`, one view for each, and consumes them; all that
    /// this call waits for is verified then.
    ///
    /// It waits for nobody else. The signature of a peer that has not come is *owed*: it is compared with the one of this
    /// call when it comes, in a later call, before anything else of that peer is; a difference is an error of that call. A
    /// peer owes at most [`OWED_MAX`] signatures: this waits for one that owes so many.
    ///
    /// What there is to prepare for the bytes is best done before this and after [`offer`](Links::offer), while they
    /// are under way. Until this ends the exchange, or says that something else came, no method that moves bytes or
    /// verifies is called in between.
    fn meet(&mut self, from: &[Rank], len: usize, looks: u32, work: Work<'_>) -> Met {
        let _ = (from, len, looks, work);
        Met::Otherwise
    }

    /// Makes an exchange of two ranks from beginning to end, as [`offer`](Links::offer) and [`meet`](Links::meet) with the
    /// same `looks` do, and with nothing kept that only those would want who have to come back. Where the peer does
    /// not come soon, it is as if both had been called.
    ///
    /// `lend` gives a span of the same bytes, where they can be lent. Those that are read in place are lent without one
    /// until this ends: it is asked for when they are still out then.
    ///
    /// Returns nothing, and has done nothing, where this is no faster, or not possible now.
    fn exchange(
        &mut self,
        call: &Signature,
        bytes: View<'_>,
        lend: Option<&dyn Fn() -> ReadSpan>,
        looks: u32,
        work: Work<'_>,
    ) -> Option<Met> {
        let _ = (call, bytes, lend, looks, work);
        None
    }

    /// Makes a swap from beginning to end, as [`exchange`](Links::exchange) does an exchange: a call of two ranks in which each
    /// works on a part of both inputs and gives the other its part of the result. Gives the peer its `half`, and hands `work`
    /// the peer's bytes and the memory for the answer to them. Where the peer does not come soon the call has begun, and
    /// [`meet_swap`](Links::meet_swap) looks for the peer again.
    ///
    /// Returns nothing, and has done nothing, where this is no faster, or not possible now: the other methods can do all this too.
    fn swap(
        &mut self,
        call: &Signature,
        half: Half<'_>,
        looks: u32,
        work: &mut dyn FnMut(View<'_>, ViewMut<'_>),
    ) -> Option<Met> {
        let _ = (call, half, looks, work);
        None
    }

    /// Ends a [`swap`](Links::swap) if the peer's part of it comes soon, as [`meet`](Links::meet) ends an exchange: hands `work` the `len`
    /// bytes that the peer lent and the memory, equally long, that it posted for what becomes of them. After
    /// [`Met::Settled`] the answer is where it was posted for; after [`Met::Everybody`] it is once
    /// [`settled`](Links::settled) says so; after [`Met::Otherwise`] what was lent and posted is still out.
    fn meet_swap(&mut self, len: usize, looks: u32, work: &mut dyn FnMut(View<'_>, ViewMut<'_>)) -> Met {
        let _ = (len, looks, work);
        Met::Otherwise
    }

    /// Sees to it that every peer gets this call's signature (those to which bytes went have it already),
    /// and says whether every peer's signature has come and equals ours; or, once [`meet`](Links::meet) has ended the
    /// call, those that it waited for. Cheap to call again.
    ///
    /// # Errors
    /// [`LinkError::Mismatch`] names the peer that made another call: this one, or one before that it owed.
    fn verify(&mut self) -> Result<bool, LinkError>;

    /// Takes as many of `bytes` as there is room for now, for every rank of `to`: all of them get the
    /// same bytes. Returns how many; the rest are offered again later. The bytes are copied before it returns.
    ///
    /// # Errors
    /// When a peer is gone or broke the protocol.
    fn send(&mut self, to: &[Rank], bytes: View<'_>) -> Result<usize, LinkError>;

    /// Moves the next bytes from `from` into `into`, as many as have come and fit. Returns how many.
    ///
    /// # Errors
    /// When the peer is gone, broke the protocol, or made another call.
    fn recv(&mut self, from: Rank, into: ViewMut<'_>) -> Result<usize, LinkError>;

    /// One trip over memory: hands `work` the next bytes from each rank of `from` and room for as many
    /// towards every rank of `to`, at most `limit` bytes and a multiple of `granule`; what `work` saw is
    /// then consumed and what it wrote is sent. Calls `work` at most once; returns how many bytes (0 when some
    /// source has none yet or some destination no room; `work` was not called then).
    /// `limit` is a multiple of `granule`. `from` has at most [`SOURCES_MAX`] ranks.
    ///
    /// # Errors
    /// As for [`send`](Links::send) and [`recv`](Links::recv).
    fn pass(
        &mut self,
        from: &[Rank],
        to: &[Rank],
        limit: usize,
        granule: usize,
        work: &mut dyn FnMut(Window<'_>),
    ) -> Result<usize, LinkError>;

    /// Lends memory to every rank of `to`: they read the bytes in place, in stream order. The span
    /// is dropped once all have. Counts in full at once; [`settled`](Links::settled) tells of the return.
    ///
    /// # Errors
    /// The span comes back where it can not be lent (not reachable by the peer, too small, no room, or the
    /// peer has posted memory to write into): then [`send`](Links::send) moves it.
    fn lend(&mut self, to: &[Rank], span: ReadSpan) -> Result<(), Refused<ReadSpan>> {
        let _ = to;
        Err(Refused(span))
    }

    /// Offers memory to `from`: it may write the bytes of this call's stream from position `at` on straight
    /// into the span. [`recv`](Links::recv) must still be called, with views of the same memory, and
    /// returns without copying for bytes that came so.
    ///
    /// # Errors
    /// The span comes back where it can not be posted: then `recv` copies.
    fn post(&mut self, from: Rank, at: u64, span: WriteSpan) -> Result<(), Refused<WriteSpan>> {
        let _ = (from, at);
        Err(Refused(span))
    }

    /// How many bytes `to` has posted memory for, at this call's present position towards it: a
    /// [`pass`](Links::pass) to it alone writes straight there.
    fn posted(&self, to: Rank) -> usize {
        let _ = to;
        0
    }

    /// The peers whose signature for this call has not come yet and is waited for.
    fn unverified(&self) -> Vec<Rank> {
        (0..self.size()).map(Rank).filter(|peer| self.is_unverified(*peer)).collect()
    }

    /// Whether this peer is one of those. Allocates nothing.
    fn is_unverified(&self, peer: Rank) -> bool {
        let _ = peer;
        false
    }

    /// Gives back every span at once, whatever peers may still do with the bytes. Called when a
    /// call has failed; the links are not used again but for this and to be dropped.
    fn abandon(&mut self) {}

    /// Pushes on what is under way: flushes buffers, returns credits, ends loans.
    /// Returns whether anything moved.
    ///
    /// # Errors
    /// As for [`send`](Links::send) and [`recv`](Links::recv).
    fn poll(&mut self) -> Result<bool, LinkError>;

    /// Whether the call can return to its caller: nothing lent or posted is still out, and everything sent has
    /// left this rank's private memory or will without its help.
    fn settled(&mut self) -> Result<bool, LinkError>;

    /// Wakes peers that may be asleep waiting for what was sent. Called when this rank is about to wait
    /// for long, or leaves the call.
    fn ring(&mut self) {}

    /// Looks for signs that a peer broke the protocol which moving bytes would not meet. For the slow
    /// path of a wait.
    ///
    /// # Errors
    /// [`LinkError::Corrupt`] names the peer.
    fn check(&mut self) -> Result<(), LinkError> {
        Ok(())
    }

    /// The ways of messages between two ranks, which go on beside these calls.
    fn pipes(&mut self) -> &mut dyn Pipes;

    /// Says where this rank sleeps, if the transport can wake it: see [`Sleep`].
    fn sleeper(&mut self) -> Option<&mut dyn Sleep> {
        None
    }
}

/// Below this many bytes a message is copied even out of registered memory, and loans are not asked for: a loan
/// costs a second hand-over, for its return. Over a mesh 1 KiB both ways takes 0.34 us lent and 0.29 copied, 2 KiB 0.39 and 0.53.
pub const LEND_MIN: usize = 1536;

/// Shorter parts of a call are not lent out of private memory, even where links fetch it: the system call for it takes as long as a copy
/// of half of them. A link takes what is left of a longer one from [`LEND_MIN`] on.
pub const FETCH_MIN: usize = 8 << 10;

/// Spans that may be out when part of a result is lent ahead of the rest. A link must have room for as many loans, and
/// for one more, whatever it uses room for besides.
pub const LOANS_AHEAD_MAX: usize = 16;

/// The most bytes of an exchange ([`Links::offer`]): what fits a piece of staging that stays in the writer's cache.
pub const EXCHANGE_MAX: usize = 4096;

/// The most calls that a rank leaves before it has heard a peer's signature for the first of them ([`Links::meet`]): how
/// far it may be ahead of that peer.
pub const OWED_MAX: usize = 8;

/// The most bytes of an exchange whose bytes are lent: what is as fast in one piece.
pub const EXCHANGE_LENT_MAX: usize = 64 << 10;

/// The same where they are fetched to where they go. Nobody looks at a deadline meanwhile.
pub const EXCHANGE_FETCHED_MAX: usize = 512 << 10;

/// The most ranks one pass takes from at once.
pub const SOURCES_MAX: usize = 64;

/// A place to sleep until a peer rings.
pub trait Sleep {
    /// Sleeps until a peer rings, `nanos` pass, or at once when something came since `prepare`.
    /// The caller polls its links between `prepare` and `sleep`.
    fn sleep(&mut self, nanos: u64);
    /// Announces that this rank is about to sleep.
    fn prepare(&mut self);
    /// Takes the announcement back.
    fn cancel(&mut self);
}
