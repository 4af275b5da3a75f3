//! Messages out of private memory: the kernel fetches them from where they lie.

use super::{End, Front};
use crate::links::fetched::bounded_private;
use crate::links::protocol::{CHUNK, PRIVATE, place_words};
use sohu_coll_core::error::LinkError;
use sohu_coll_mem::ViewMut;

/// Bytes that are fetched at once where nobody says where to: of messages that are refused, which nobody keeps.
pub(in crate::links) const BOUNCE_BYTES: usize = 4 << 10;

/// The shortest message, or rest of one, that is fetched. Where ranks send each other something, 16 KiB take
/// two thirds as long as staged, 64 KiB half as long, 16 MiB four fifths, and 32 MiB as long.
pub(in crate::links) const FETCHED_MIN: usize = 8 << 10;

/// Where lent bytes lie.
#[derive(Clone, Copy)]
pub(in crate::links) enum Lent {
    /// At this byte of this rank's segment.
    Segment(usize),
    /// At this address of this process.
    Private(usize),
}

impl Lent {
    /// The kind of a line that tells of it, of the two, and its first word.
    pub(super) fn line(self, [segment, private]: [u8; 2]) -> (u8, u64) {
        match self {
            Self::Segment(offset) => (segment, offset as u64),
            Self::Private(address) => (private, address as u64),
        }
    }
}

impl End {
    /// Tells the peer of memory that it may read until it says that it has.
    pub(in crate::links) fn lend(&mut self, lent: Lent, len: usize) -> Result<bool, LinkError> {
        if !self.has_line()? {
            return Ok(false);
        }
        self.fly_loan();
        let (kind, place) = lent.line([CHUNK, PRIVATE]);
        self.line(kind, 0, &place_words(place, len));
        Ok(true)
    }

    /// A chunk of the peer's private memory, as it named it. Only bytes that go forward lie there.
    pub(super) fn private(&self, address: u64, len: u64) -> Result<Front, LinkError> {
        let len = bounded_private(self.fetched.as_ref(), address, len);
        Ok(Front::Private { address, len: len.map_err(|what| self.corrupt(what))? })
    }

    /// Moves the next bytes to `into` if they lie in the peer's private memory and are next. Returns how many.
    pub(in crate::links) fn fetch(&mut self, into: ViewMut<'_>) -> Result<usize, LinkError> {
        let (Some(Front::Private { address, len }), Some(fetched)) = (self.look()?, &self.fetched) else {
            return Ok(0);
        };
        let len = (len - self.at).min(into.len());
        if !fetched.read(address + self.at as u64, into.first(len))? {
            return Ok(0);
        }
        self.used(len);
        Ok(len)
    }
}
