//! Binding: passes and extents become offsets, lengths and a kernel, once for each shape of call.

use crate::kernel::{Kernel, Store};
use crate::plan::{Buffer, Chunks, Edge, Extents, Pass, Passes, Program, Source};
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

#[derive(Clone, Copy, Debug)]
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
    pub(super) after: Box<[Edge]>,
    /// Whether `out_of` lies in registered memory.
    pub(super) lends: bool,
    /// Whether the destination of this receive lies in registered memory.
    pub(super) posts: bool,
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
        Self {
            passes: bound.collect(),
            kernel: binding.kernel,
            granule: binding.element,
            slice: binding.slice,
            store: binding.store,
            ranks: program.job.size,
            scratch_bytes: extents.scratch_bytes(passes.scratch_chunks),
        }
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
    // A pass that neither stores nor has a source of its own only relays; it never lends.
    let relay = Spot { buffer: Buffer::Scratch, start: 0 };
    let out_of = into.or(locals.first().map(|l| l.1)).unwrap_or(relay);
    BoundPass {
        kind,
        lends: !pass.to.is_empty() && registered(&out_of) && (into.is_some() || kind == Kind::Send),
        posts: kind == Kind::Recv && len > 0 && into.as_ref().is_some_and(registered),
        locals: locals.into(),
        from: from.into(),
        from_places: from_places.into(),
        into,
        out_of,
        to: pass.to.clone().into(),
        len,
        finishes: pass.finishes,
        after: pass.after.clone().into(),
        stream_at,
        written_at: pass.written_at,
    }
}

/// Whether `later` depends on `earlier` only by its place in the order of a link, not by memory.
pub(super) fn only_order(earlier: &BoundPass, later: &BoundPass) -> bool {
    let Some(into) = later.into else { return true };
    let overlaps = |spot: &Spot| {
        let same = match (spot.buffer, into.buffer) {
            // Input and output may be one buffer; offsets then differ only by where each starts, so any
            // pair of them counts as touching.
            (Buffer::Input, Buffer::Output) | (Buffer::Output, Buffer::Input) => true,
            (a, b) => a == b && spot.start < into.start + later.len && into.start < spot.start + earlier.len,
        };
        same && earlier.len > 0
    };
    !earlier.locals.iter().any(|(_, spot)| overlaps(spot)) && !earlier.into.as_ref().is_some_and(overlaps)
}
