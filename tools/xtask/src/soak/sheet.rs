//! What is in the buffers of a call, before it and after it, block by block.
//!
//! Invariant: every byte of every buffer has something that must be in it after the call, and guards lie on both sides.

use super::draw::{Call, Shape};
use super::values::{PERIOD, Values, fill, first_difference};
use sohu_coll::Collective;

/// Bytes before and after every buffer that must stay as they are.
pub(super) const GUARD: usize = 64;
/// What nobody wrote yet.
const BLANK: u8 = 0xa5;
/// What a rank has in a buffer that it gives to nobody.
const JUNK: u8 = 0x5a;

/// What is in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// The same byte everywhere.
    Byte(u8),
    /// What a rank gives, from its element `phase` on.
    Of { rank: u32, phase: usize },
    /// The reduction of what all ranks give, from element `phase` on.
    Folded { phase: usize },
}

/// One buffer: equally long blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sheet {
    block: usize,
    blocks: Vec<Content>,
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
            let before = Sheet { block, blocks };
            let mut after = before.clone();
            after.blocks[first(gets)..][..gets].copy_from_slice(&results);
            return Self { input: None, before, after };
        }
        let spare = |byte| Sheet { block: call.spare, blocks: vec![Content::Byte(byte)] };
        let input = match gives {
            0 => spare(JUNK),
            _ => Sheet { block, blocks: given(gives).collect() },
        };
        let (before, after) = match gets {
            0 => (spare(BLANK), spare(BLANK)),
            _ => {
                (Sheet { block, blocks: vec![Content::Byte(BLANK); gets] }, Sheet { block, blocks: results })
            }
        };
        Self { input: Some(input), before, after }
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
    /// Bytes of the buffer.
    pub(super) fn bytes(&self) -> usize {
        self.block * self.blocks.len()
    }

    /// Bytes of the buffer and its guards.
    pub(super) fn room(&self) -> usize {
        self.bytes() + 2 * GUARD
    }

    /// Puts guards and contents into `room`.
    pub(super) fn fill(&self, room: &mut [u8], values: &Values, size: u32) {
        room[..GUARD].fill(BLANK);
        room[GUARD + self.bytes()..].fill(BLANK);
        for (at, content) in self.blocks.iter().enumerate() {
            let bytes = &mut room[GUARD + at * self.block..][..self.block];
            match content {
                Content::Byte(byte) => bytes.fill(*byte),
                _ => {
                    let (tile, phase) = self.tile(content, values, size);
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
        for (at, content) in self.blocks.iter().enumerate() {
            let bytes = &room[GUARD + at * self.block..][..self.block];
            let wrong = match content {
                Content::Byte(byte) => bytes.iter().position(|found| found != byte).map(|at| (at, *byte)),
                _ => {
                    let (tile, phase) = self.tile(content, values, size);
                    first_difference(bytes, &tile, element, phase)
                }
            };
            if let Some((byte, expected)) = wrong {
                let (found, index) = (bytes[byte], byte / element);
                let length = self.block;
                return Err(format!(
                    "byte {byte} (element {index}) of block {at} of {length} bytes is {found:#04x}, \
                     not {expected:#04x}: {content:?}"
                ));
            }
        }
        Ok(())
    }

    /// A period of what is in a block, or as much as the block has of it.
    fn tile(&self, content: &Content, values: &Values, size: u32) -> (Vec<u8>, usize) {
        let count = |phase: usize| (phase + self.block / values.dtype.size()).min(PERIOD);
        match *content {
            Content::Of { rank, phase } => (values.tile(rank, count(phase)), phase),
            Content::Folded { phase } => (values.folded(size, count(phase)), phase),
            Content::Byte(byte) => (vec![byte; PERIOD], 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draw::{Home, How};
    use super::*;
    use sohu_coll::{DType, ReduceOp};

    fn call(collective: Collective, in_place: bool) -> Call {
        let homes = [Home::Private; 2];
        let shape = Shape { collective, dtype: DType::U8, op: ReduceOp::Sum, count: 5, in_place, homes };
        let how = How::Blocking;
        Call { group: 0, shape, how, root: 1, salt: 3, offset: 0, spare: 2, late: None }
    }

    #[test]
    fn in_place_the_input_or_the_output_is_the_block_of_the_rank() {
        let of = |rank, phase| Content::Of { rank, phase };
        let junk = Content::Byte(JUNK);
        for (collective, rank, before, after) in [
            (Collective::AllGather, 1, vec![junk, of(1, 0), junk], vec![of(0, 0), of(1, 0), of(2, 0)]),
            (
                Collective::ReduceScatter,
                2,
                vec![of(2, 0), of(2, 5), of(2, 10)],
                vec![of(2, 0), of(2, 5), Content::Folded { phase: 10 }],
            ),
            (
                Collective::Scatter,
                1,
                vec![of(1, 0), of(1, 5), of(1, 10)],
                vec![of(1, 0), of(1, 5), of(1, 10)],
            ),
            (Collective::Scatter, 2, vec![junk], vec![of(1, 10)]),
            (Collective::Gather, 1, vec![junk, of(1, 0), junk], vec![of(0, 0), of(1, 0), of(2, 0)]),
            (Collective::Gather, 0, vec![of(0, 0)], vec![of(0, 0)]),
            (Collective::Reduce, 0, vec![of(0, 0)], vec![of(0, 0)]),
            (Collective::Broadcast, 0, vec![junk], vec![of(1, 0)]),
            (
                Collective::AllToAll,
                0,
                vec![of(0, 0), of(0, 5), of(0, 10)],
                vec![of(0, 0), of(1, 0), of(2, 0)],
            ),
        ] {
            let sheets = Sheets::of(&call(collective, true), rank, 3);
            assert_eq!((sheets.before.blocks, sheets.after.blocks), (before, after), "{collective} {rank}");
        }
    }

    #[test]
    fn every_wrong_byte_is_found_in_the_buffer_and_in_its_guards() {
        let sheets = Sheets::of(&call(Collective::AllToAll, false), 1, 3);
        let values = Values { dtype: DType::U8, op: ReduceOp::Sum, salt: 3 };
        let mut room = vec![0; sheets.after.room()];
        sheets.after.fill(&mut room, &values, 3);
        assert_eq!(sheets.after.check(&room, &values, 3), Ok(()));
        for at in 0..room.len() {
            room[at] ^= 0x10;
            let told = sheets.after.check(&room, &values, 3).expect_err("a byte is wrong");
            assert_eq!(told.contains("guard"), !(GUARD..GUARD + 15).contains(&at), "{at}: {told}");
            room[at] ^= 0x10;
        }
        assert!(sheets.before.check(&room, &values, 3).is_err(), "a call that did nothing is seen");
    }

    #[test]
    fn a_buffer_that_is_not_needed_is_spare_and_stays() {
        let sheets = Sheets::of(&call(Collective::Gather, false), 0, 3);
        assert_eq!((sheets.before.bytes(), &sheets.before), (2, &sheets.after));
        let sheets = Sheets::of(&call(Collective::Scatter, false), 0, 3);
        assert_eq!(sheets.input.expect("apart").blocks, [Content::Byte(JUNK)]);
    }
}
