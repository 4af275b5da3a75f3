//! What the lines of a link mean.

use super::staging::Staged;
use crate::layout::LINES;
use core::ops::Range;
use sohu_coll_core::link::{LOANS_AHEAD_MAX, OWED_MAX};
use sohu_coll_mem::line::PAYLOAD_WORDS;

/// Set in the kind of a call's first line on a link: its payload starts with the signature's two words.
pub(super) const FIRST: u8 = 0x80;
/// Nothing but the signature.
pub(super) const HEADER: u8 = 1;
/// Bytes of the stream.
pub(super) const DATA: u8 = 2;
/// Bytes of the stream that lie in the sender's segment: offset, length.
pub(super) const CHUNK: u8 = 3;
/// Memory of the sender's that it wants the stream written to: position, offset, length.
pub(super) const SINK: u8 = 4;
/// Bytes of the stream that were written to the receiver's sink: length.
pub(super) const LANDED: u8 = 5;

/// Bytes of an exchange, on one of the sender's boards: offset from the first board, length.
pub(super) const BOARD: u8 = 6;

/// A chunk, and memory for what becomes of it, in a call's first line: offset, length, the memory's offset, its
/// position in the receiver's stream.
pub(super) const SWAP: u8 = 7;

/// Bytes of the stream that lie in the sender's private memory: address, length. In pipes too, where the kinds from 8 on are bids.
pub(super) const PRIVATE: u8 = 0x20;

pub(super) const SIGNATURE_WORDS: usize = 2;

/// The most sinks a peer may have open at once: one for each receive of a program that is posted ahead.
pub(super) const SINKS_MAX: usize = 16;

// Each of these takes a line, and so do the last loan, a header, and each call that was left before its peer came to it: a rank whose lines are full of what its peer
// can not take yet would wait for ever.
const _: () = assert!(LINES >= SINKS_MAX + LOANS_AHEAD_MAX + 2 + OWED_MAX);

/// A peer whose memory is being written is told of this much at a time, so that it can go on with it.
pub(super) const LANDED_MIN: usize = 1 << 20;

/// The most chunks out to one peer: each has a line, and lines are fewer.
pub(super) const FLIGHTS_MAX: usize = 2 * LINES;

/// What the next bytes of the incoming stream are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Front {
    /// In the current line, from this byte of its payload on.
    Data { start: usize, len: usize },
    /// In the peer's segment.
    Chunk { offset: usize, len: usize },
    /// On a board of the peer's.
    Board { offset: usize, len: usize },
    /// In the peer's private memory.
    Private { address: u64, len: usize },
    /// Where this rank posted memory for them.
    Landed { len: usize },
    /// In this rank's own memory: an element that came in several pieces.
    Gathered { len: usize },
}

impl Front {
    /// How many bytes.
    pub(super) fn len(&self) -> usize {
        match *self {
            Self::Data { len, .. } | Self::Chunk { len, .. } | Self::Board { len, .. } => len,
            Self::Private { len, .. } | Self::Landed { len } | Self::Gathered { len } => len,
        }
    }

    /// Where it lies in the peer's segment, if it does.
    pub(super) fn offset(&self) -> Option<usize> {
        match *self {
            Self::Chunk { offset, .. } | Self::Board { offset, .. } => Some(offset),
            _ => None,
        }
    }
}

/// What a chunk that is out returns when the peer has consumed it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flight {
    Staged(Staged),
    Lent(usize),
    /// In the link's own slot.
    Slot,
}

/// Memory of the peer's to write the stream to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sink {
    pub(super) at: u64,
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// A run of bytes that a peer named, if it is not empty and lies in `within`.
pub(super) fn bounded(offset: u64, len: u64, within: &Range<usize>) -> Option<(usize, usize)> {
    let (offset, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
    let inside = within.contains(&offset) && len <= within.end - offset;
    (len > 0 && inside).then_some((offset, len))
}

/// The payload of a line that tells where `len` bytes lie.
#[inline]
pub(super) fn place_words(place: u64, len: usize) -> [u64; PAYLOAD_WORDS] {
    let mut words = [0; PAYLOAD_WORDS];
    words[..2].copy_from_slice(&[place, len as u64]);
    words
}
