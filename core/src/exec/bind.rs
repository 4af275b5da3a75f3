//! Binding: passes and extents become offsets, lengths and a kernel, once for each shape of call.

use super::exchange::{self, Round};
use super::own::{self, Own};
use super::share;
use crate::element::ReduceOp;
use crate::kernel::{Kernel, Store};
use crate::link::{FETCH_MIN, LEND_MIN};
use crate::plan::{Buffer, Chunks, Edge, Extents, Pass, Passes, Program, Source, Wait};
use crate::rank::Rank;
use core::panic::Location;
use sohu_coll_mem::{Region, Regions};

/// What a call adds to a program.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Folds the elements.
    pub kernel: Kernel,
    /// Bytes of one element, a power of two.
    pub element: usize,
    /// The most bytes of one pass that move in one trip. A multiple of 64.
    pub slice: usize,
    /// How results are stored.
    pub store: Store,
    /// Whether the input lies in registered memory, so that it can be lent.
    pub input_registered: bool,
    /// Whether the output lies in registered memory, so that it can be lent and posted.
    pub output_registered: bool,
    /// What can be lent wherever it lies, from [`FETCH_MIN`] bytes on, for the links to fetch.
    pub fetched: Fetched,
    /// Bytes that what is staged had best go round in: see [`Links::stage_within`](crate::link::Links::stage_within). None: all there are.
    pub within: Option<usize>,
}

/// What of private memory is lent, for the links to fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fetched {
    /// Nothing: all of it is copied.
    #[default]
    Nothing,
    /// What the caller gives. What the call makes is copied, since it is in the cache of the core that made it.
    Inputs,
    /// What the caller gives, and what it gets.
    All,
}

/// A program that is ready to run on buffers of one shape.
#[derive(Debug)]
pub struct Bound {
    pub(super) passes: Box<[BoundPass]>,
    pub(super) kernel: Kernel,
    pub(super) granule: usize,
    pub(super) slice: usize,
    pub(super) store: Store,
    pub(super) ranks: u32,
    /// How the call is made in one round of small messages, if it can be.
    pub(super) exchange: Option<Round>,
    /// Passes whose destination can be posted.
    pub(super) posts: usize,
    /// Where the one send is cut, if both ranks copy what it sends.
    pub(super) shared_at: Option<usize>,
    /// The copy of what is this rank's own, where it can be done at any time.
    pub(super) own: Option<Own>,
    /// Whether all that comes is fetched, so that the links move it best themselves.
    pub(super) fetches: bool,
    /// As in [`Binding::within`].
    pub within: Option<usize>,
    /// Bytes of scratch memory that a call needs.
    pub scratch_bytes: usize,
}

/// What a pass is to the executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Local bytes go to peers.
    Send,
    /// A peer's bytes are stored.
    Recv,
    /// Everything else: sources are folded (one source: copied), stored and forwarded.
    Fold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    buffer: Buffer,
    /// First byte, from the start of the buffer.
    pub(super) start: usize,
}

impl Spot {
    #[inline]
    pub(super) fn region<'r, 'a>(&self, regions: &'r Regions<'a>) -> &'r Region<'a> {
        match self.buffer {
            Buffer::Input => &regions.input,
            Buffer::Output => &regions.output,
            Buffer::Scratch => &regions.scratch,
        }
    }
}

#[derive(Debug)]
pub(super) struct BoundPass {
    pub(super) kind: Kind,
    /// Own sources: which place among all sources, and where.
    pub(super) locals: Box<[(usize, Spot)]>,
    /// Peers that are sources, in order.
    pub(super) from: Box<[Rank]>,
    /// Their places among all sources.
    pub(super) from_places: Box<[usize]>,
    pub(super) into: Option<Spot>,
    /// What is sent: the stored result, or the source of a pure send.
    pub(super) out_of: Spot,
    pub(super) to: Box<[Rank]>,
    pub(super) len: usize,
    pub(super) finishes: bool,
    /// The place of the source that is multiplied by the call's scalar: this rank's input as the caller gave it, in a
    /// pre-multiplied sum.
    pub(super) scaled: Option<usize>,
    pub(super) after: Box<[Edge]>,
    /// Whether it takes bytes from every peer, and forwards none: it can not move before all of them have made this
    /// call. (One that forwards would not find the memory that is posted for it: links use that once all is verified.)
    /// Or whether it writes nothing of the caller's and takes nothing: what is scaled and sent.
    pub(super) hears_all: bool,
    /// Whether `out_of` can be lent where it lies.
    pub(super) lends: bool,
    /// Whether the destination of this receive lies in registered memory.
    pub(super) posts: bool,
    /// Where that is so, the earlier passes that use the destination: it is posted once they are done.
    pub(super) conflicts: Box<[u32]>,
    /// Where in the peer's stream a receive starts.
    pub(super) stream_at: u64,
    pub(super) written_at: &'static Location<'static>,
}

impl Bound {
    /// Binds the passes of `program` to byte ranges.
    ///
    /// # Panics
    /// When the element size is no power of two or the slice is no multiple of 64.
    pub fn new(program: &Program, passes: &Passes, extents: &Extents, binding: &Binding) -> Self {
        assert!(binding.element.is_power_of_two(), "element of {} bytes", binding.element);
        assert!(
            binding.slice > 0 && binding.slice.is_multiple_of(64),
            "slices of {} bytes split elements",
            binding.slice
        );
        let mut streams = vec![0u64; program.job.size as usize];
        let bound = passes.passes.iter().map(|pass| bind_pass(pass, extents, binding, &mut streams));
        let mut bound: Box<[BoundPass]> = bound.collect();
        if binding.kernel.op() == ReduceOp::PreMulSum {
            let inputs = inputs(program, passes);
            bound.iter_mut().zip(inputs).for_each(|(pass, input)| scale(pass, input));
        }
        skip_empty(&mut bound);
        let fetches = binding.fetched != Fetched::Nothing;
        let least = if fetches { FETCH_MIN } else { LEND_MIN };
        for (index, pass) in bound.iter_mut().enumerate() {
            // In this order: to look for who stores over it takes long in a long program.
            pass.lends = pass.lends && pass.len >= least && !is_overwritten(program, passes, index);
            if pass.posts {
                pass.conflicts = conflicts(program, passes, index);
            }
        }
        Self {
            // An exchange offers bytes as they lie, and folds them without an operand.
            exchange: exchange::find(&bound, program.job.size, fetches)
                .filter(|_| !binding.kernel.op().is_open()),
            posts: bound.iter().filter(|pass| pass.posts).count(),
            shared_at: share::find(&bound, program.job.size).filter(|_| !fetches),
            own: own::find(&bound, program.job.size).filter(|_| !fetches),
            fetches: binding.fetched == Fetched::All,
            within: binding.within,
            passes: bound,
            kernel: binding.kernel,
            granule: binding.element,
            slice: binding.slice,
            store: binding.store,
            ranks: program.job.size,
            scratch_bytes: extents.scratch_bytes(passes.scratch_chunks),
        }
    }
}

impl Bound {
    /// Whether every byte that is sent is lent, so that sending never waits for room.
    pub fn lends_all(&self) -> bool {
        self.passes.iter().all(|pass| pass.to.is_empty() || pass.lends)
    }
}

/// The source of each pass that is this rank's input as the caller gave it. In place, memory is that until a pass has stored
/// there.
///
/// # Panics
/// When a pass has several, or one that is only in part as it was given: an algorithm that does so can not do pre-multiplied
/// sums.
pub fn inputs(program: &Program, passes: &Passes) -> Vec<Option<usize>> {
    let job = &program.job;
    let mut stored: Vec<Chunks> = Vec::new();
    let mut found = Vec::with_capacity(passes.passes.len());
    for pass in &passes.passes {
        let is_given = |chunks: Chunks| {
            let mut kept = (chunks.first..chunks.first + chunks.count)
                .map(|first| Chunks { first, count: 1, ..chunks })
                .map(|chunk| !stored.iter().any(|into| job.overlap(*into, chunk)));
            let first = kept.next().unwrap_or(false);
            assert!(kept.all(|kept| kept == first), "{}: {chunks:?} is input in part", program.rank);
            first
        };
        let mut given = pass.sources.iter().enumerate().filter(|(_, source)| match **source {
            Source::Local(chunks) => match chunks.buffer {
                Buffer::Input => is_given(chunks),
                Buffer::Output => job.in_place && is_given(chunks),
                Buffer::Scratch => false,
            },
            Source::Peer(_) => false,
        });
        let place = given.next().map(|(place, _)| place);
        assert!(given.next().is_none(), "{}: a pass folds its own input twice", program.rank);
        found.push(place);
        stored.extend(pass.into);
    }
    found
}

/// Has the source at `place` of a pass multiplied by the call's scalar.
fn scale(pass: &mut BoundPass, place: Option<usize>) {
    pass.scaled = place;
    if place.is_some() && pass.kind == Kind::Send {
        // What goes is not what lies here, so it can not be lent; it is folded, out of one source, on its way.
        pass.kind = Kind::Fold;
        pass.hears_all = true;
        pass.lends = false;
    }
}

/// Whether what a pass sends is stored over by a later pass. Then it can not be lent: the later pass would wait
/// for the peer to return it, and the peer may be waiting for this rank in the same way.
fn is_overwritten(program: &Program, passes: &Passes, index: usize) -> bool {
    let pass = &passes.passes[index];
    let own = pass.sources.iter().find_map(|source| match source {
        Source::Local(chunks) => Some(*chunks),
        Source::Peer(_) => None,
    });
    let Some(sent) = pass.into.or(own) else { return false };
    passes.passes[index + 1..]
        .iter()
        .filter_map(|later| later.into)
        .any(|into| program.job.overlap(sent, into))
}

/// The earlier passes that read or write what the pass at `index` writes.
fn conflicts(program: &Program, passes: &Passes, index: usize) -> Box<[u32]> {
    let Some(into) = passes.passes[index].into else { return Box::default() };
    let touches = |pass: &Pass| {
        let reads = pass.sources.iter().any(|source| match source {
            Source::Local(chunks) => program.job.overlap(*chunks, into),
            Source::Peer(_) => false,
        });
        reads || pass.into.is_some_and(|written| program.job.overlap(written, into))
    };
    (0..).zip(&passes.passes[..index]).filter(|(_, pass)| touches(pass)).map(|(at, _)| at).collect()
}

/// Replaces dependencies on passes without bytes by what those wait for. Such a pass counts as complete from
/// the start, but what stands behind it must still wait for what stands before it.
fn skip_empty(passes: &mut [BoundPass]) {
    for index in 0..passes.len() {
        let (before, rest) = passes.split_at_mut(index);
        let after = &mut rest[0].after;
        if after.iter().all(|edge| before[edge.on as usize].len > 0) {
            continue;
        }
        let mut edges: Vec<Edge> = Vec::with_capacity(after.len());
        for edge in &*after {
            let on = &before[edge.on as usize];
            // Those of an earlier pass have been replaced already, so none of them is empty.
            let whole = on.after.iter().map(|edge| Edge { wait: Wait::Whole, ..*edge });
            edges.extend(core::iter::once(*edge).filter(|_| on.len > 0));
            edges.extend(whole.filter(|_| on.len == 0));
        }
        // Of the waits for one pass the stricter one stays: it stands first.
        edges.sort_by_key(|edge| (edge.on, edge.wait == Wait::Streaming));
        edges.dedup_by_key(|edge| edge.on);
        *after = edges.into();
    }
}

fn bind_pass(pass: &Pass, extents: &Extents, binding: &Binding, streams: &mut [u64]) -> BoundPass {
    let spot = |chunks: Chunks| Spot { buffer: chunks.buffer, start: extents.bytes(chunks).start };
    let len = extents.bytes(pass.extent).len();
    let registered = |spot: &Spot| match spot.buffer {
        Buffer::Input => binding.input_registered,
        Buffer::Output => binding.output_registered,
        Buffer::Scratch => false,
    };
    let (mut locals, mut from, mut from_places) = (Vec::new(), Vec::new(), Vec::new());
    let mut stream_at = 0;
    for (place, source) in pass.sources.iter().enumerate() {
        match *source {
            Source::Local(chunks) => locals.push((place, spot(chunks))),
            Source::Peer(peer) => {
                from.push(peer);
                from_places.push(place);
                stream_at = streams[peer.index()];
                streams[peer.index()] += len as u64;
            }
        }
    }
    let into = pass.into.map(spot);
    let kind = match (&*locals, &*from, into) {
        ([_], [], None) => Kind::Send,
        ([], [_], Some(_)) if pass.to.is_empty() && !pass.finishes => Kind::Recv,
        _ => Kind::Fold,
    };
    let fetched = |spot: &Spot| match binding.fetched {
        Fetched::Nothing => false,
        Fetched::Inputs => spot.buffer == Buffer::Input,
        Fetched::All => spot.buffer != Buffer::Scratch,
    };
    let lent = |spot: &Spot| registered(spot) || fetched(spot);
    // A pass that neither stores nor has a source of its own only relays; it never lends.
    let relay = Spot { buffer: Buffer::Scratch, start: 0 };
    let out_of = into.or(locals.first().map(|l| l.1)).unwrap_or(relay);
    BoundPass {
        kind,
        hears_all: pass.to.is_empty() && from.len() + 1 == streams.len(),
        lends: !pass.to.is_empty() && lent(&out_of) && (into.is_some() || kind == Kind::Send),
        posts: kind == Kind::Recv && len > 0 && into.as_ref().is_some_and(registered),
        locals: locals.into(),
        from: from.into(),
        from_places: from_places.into(),
        into,
        out_of,
        to: pass.to.clone().into(),
        len,
        finishes: pass.finishes,
        scaled: None,
        after: pass.after.clone().into(),
        conflicts: Box::default(),
        stream_at,
        written_at: pass.written_at,
    }
}

#[cfg(test)]
mod tests;
