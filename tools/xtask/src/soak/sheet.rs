//! What is in the buffers of a call, before it and after it, block by block.
//!
//! Invariant: every byte of every buffer has something that must be in it after the call, and guards lie on both sides.

mod ragged;
#[cfg(test)]
mod tests;

use super::draw::{Call, Shape};
use super::values::{PERIOD, Values, fill, first_difference};
use sohu_coll::Collective;
use std::ops::Range;

/// Bytes before and after every buffer that must stay as they are.
pub(super) const GUARD: usize = 64;
/// What nobody wrote yet.
const BLANK: u8 = 0xa5;
/// What a rank has in a buffer that it gives to nobody.
const JUNK: u8 = 0x5a;

/// What is in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The same byte everywhere.
    Byte(u8),
    /// What a rank gives, from its element `phase` on.
    Of { rank: u32, phase: usize },
    /// The reduction of what all ranks give, from element `phase` on.
    Folded { phase: usize },
}

/// One buffer: what is in each of its blocks, and how many bytes that is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sheet {
    blocks: Vec<(Content, usize)>,
}

/// One rank's buffers of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sheets {
    /// The input, which stays as it is; none in place.
    pub(super) input: Option<Sheet>,
    /// The output, or the buffer that is both, before the call.
    pub(super) before: Sheet,
    /// The same after the call.
    pub(super) after: Sheet,
}

impl Sheets {
    /// The buffers of `rank` in a call of `size` ranks.
    pub(super) fn of(call: &Call, rank: u32, size: u32) -> Self {
        let Call { shape, root, .. } = call;
        let block = shape.count * shape.dtype.size();
        let [gives, gets] = held(shape.collective, size as usize, rank == *root);
        let given = |held: usize| (0..held).map(|at| Content::Of { rank, phase: at * shape.count });
        let results = results(shape, *root, rank, size, gets);
        if shape.in_place {
            let most = gives.max(gets);
            // One block of several is that of the rank.
            let first = |held: usize| if held == 1 && most > 1 { rank as usize } else { 0 };
            let mut blocks = vec![Content::Byte(JUNK); most];
            blocks[first(gives)..][..gives]
                .iter_mut()
                .zip(given(gives))
                .for_each(|(block, own)| *block = own);
            let before = Sheet::even(block, blocks.clone());
            blocks[first(gets)..][..gets].copy_from_slice(&results);
            return Self { input: None, before, after: Sheet::even(block, blocks) };
        }
        let given = (gives > 0).then(|| Sheet::even(block, given(gives)));
        let got = (gets > 0).then(|| Sheet::even(block, results));
        Self::apart(given, got, call.spare)
    }

    /// Bytes of all buffers.
    pub(super) fn bytes(&self) -> usize {
        self.input.as_ref().map_or(0, Sheet::bytes) + self.before.bytes()
    }

    /// Buffers apart; where there is none, so many bytes that nobody needs.
    fn apart(given: Option<Sheet>, got: Option<Sheet>, spare: usize) -> Self {
        let spare = |byte| Sheet::even(spare, [Content::Byte(byte)]);
        let after = got.unwrap_or_else(|| spare(BLANK));
        Self { input: Some(given.unwrap_or_else(|| spare(JUNK))), before: after.blank(), after }
    }
}

/// Blocks of a rank's input and output.
fn held(collective: Collective, all: usize, is_root: bool) -> [usize; 2] {
    let root = usize::from(is_root);
    match collective {
        Collective::AllReduce => [1, 1],
        Collective::Broadcast => [root, 1],
        Collective::Reduce => [1, root],
        Collective::AllGather => [1, all],
        Collective::ReduceScatter => [all, 1],
        Collective::Gather => [1, root * all],
        Collective::Scatter => [root * all, 1],
        Collective::AllToAll => [all, all],
    }
}

/// What is in the output's blocks after the call.
fn results(shape: &Shape, root: u32, rank: u32, size: u32, gets: usize) -> Vec<Content> {
    // Where this rank's block starts in a vector of one block for each rank.
    let own = rank as usize * shape.count;
    let all = |phase| (0..size).map(|peer| Content::Of { rank: peer, phase }).collect();
    if gets == 0 {
        return Vec::new();
    }
    match shape.collective {
        Collective::AllReduce | Collective::Reduce => vec![Content::Folded { phase: 0 }],
        Collective::ReduceScatter => vec![Content::Folded { phase: own }],
        Collective::Broadcast => vec![Content::Of { rank: root, phase: 0 }],
        Collective::Scatter => vec![Content::Of { rank: root, phase: own }],
        Collective::AllGather | Collective::Gather => all(0),
        Collective::AllToAll => all(own),
    }
}

impl Sheet {
    /// Blocks of `bytes` bytes each.
    fn even(bytes: usize, contents: impl IntoIterator<Item = Content>) -> Self {
        Self { blocks: contents.into_iter().map(|content| (content, bytes)).collect() }
    }

    /// The same buffer before anybody wrote to it.
    fn blank(&self) -> Self {
        Self { blocks: self.blocks.iter().map(|block| (Content::Byte(BLANK), block.1)).collect() }
    }

    /// Bytes of the buffer.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.1).sum()
    }

    /// Each block, with its bytes in `room`.
    fn places(&self) -> impl Iterator<Item = (&Content, Range<usize>)> {
        let mut at = GUARD;
        self.blocks.iter().map(move |(content, bytes)| {
            at += bytes;
            (content, at - bytes..at)
        })
    }

    /// Bytes of the buffer and its guards.
    pub(super) fn room(&self) -> usize {
        self.bytes() + 2 * GUARD
    }

    /// Puts guards and contents into `room`.
    pub(super) fn fill(&self, room: &mut [u8], values: &Values, size: u32) {
        room[..GUARD].fill(BLANK);
        room[GUARD + self.bytes()..].fill(BLANK);
        for (content, place) in self.places() {
            let bytes = &mut room[place];
            match content {
                Content::Byte(byte) => bytes.fill(*byte),
                _ => {
                    let (tile, phase) = content.tile(bytes.len(), values, size);
                    fill(bytes, &tile, values.dtype.size(), phase);
                }
            }
        }
    }

    /// Looks at every byte of `room`.
    ///
    /// # Errors
    /// Names the first that is wrong.
    pub(super) fn check(&self, room: &[u8], values: &Values, size: u32) -> Result<(), String> {
        let element = values.dtype.size();
        for (name, guard) in [("before", &room[..GUARD]), ("after", &room[GUARD + self.bytes()..])] {
            if let Some(at) = guard.iter().position(|byte| *byte != BLANK) {
                return Err(format!("byte {at} of the guard {name} it was changed to {:#04x}", guard[at]));
            }
        }
        for (at, (content, place)) in self.places().enumerate() {
            let bytes = &room[place];
            let wrong = match content {
                Content::Byte(byte) => bytes.iter().position(|found| found != byte).map(|at| (at, *byte)),
                _ => {
                    let (tile, phase) = content.tile(bytes.len(), values, size);
                    first_difference(bytes, &tile, element, phase)
                }
            };
            if let Some((byte, expected)) = wrong {
                let (found, index) = (bytes[byte], byte / element);
                let length = bytes.len();
                return Err(format!(
                    "byte {byte} (element {index}) of block {at} of {length} bytes is {found:#04x}, \
                     not {expected:#04x}: {content:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Content {
    /// A period of what is in a block of so many bytes, or as much as the block has of it.
    fn tile(&self, bytes: usize, values: &Values, size: u32) -> (Vec<u8>, usize) {
        let count = |phase: usize| (phase + bytes / values.dtype.size()).min(PERIOD);
        match *self {
            Self::Of { rank, phase } => (values.tile(rank, count(phase)), phase),
            Self::Folded { phase } => (values.folded(size, count(phase)), phase),
            Self::Byte(byte) => (vec![byte; PERIOD], 0),
        }
    }
}
