//! What ranks tell each other before an all-to-all whose blocks have lengths of their own, and short blocks that go along.
//!
//! Every rank tells all others the same memo: what it gives each of them, what it expects of each, and then all its blocks, if
//! there is room. Invariant: all ranks have all memos, and come by them to the same: whether all agree, and if not who differs;
//! whether all blocks went along; and how much room the memos of the next call have.

use super::{Blocks, Cut};
use crate::lane::Pinned;
use crate::owned::Owner;
use crate::request::Buffers;
use sohu_coll_algorithms::OneShot;
use sohu_coll_core::exec::{Binding, Bound, Executor, Fetched};
use sohu_coll_core::kernel::{Kernel, Store};
use sohu_coll_core::link::EXCHANGE_MAX;
use sohu_coll_core::plan::fuse::{Room, fuse_for};
use sohu_coll_core::plan::{Algorithm, Extents, Job};
use sohu_coll_core::{Collective, DType, Error, Misuse, Rank, ReduceOp, Signature};
use sohu_coll_mem::region::Loan;
use std::sync::Arc;

/// The most ranks that use memos. With more of them, what all ranks have to say of each other is too much for each to hear.
const RANKS_MAX: u32 = 32;

/// How long memos may be, in bytes: what goes along with a signature in a line of shared memory, and whole lines up to what an
/// exchange takes. Far, each line takes some 25 ns, so there are many lengths, and a block of two ranks that is as long as a power
/// of two finds room in a memo that is a line longer. Longer ones are for ranks that share cores.
const LENGTHS: [usize; 15] =
    [40, 128, 192, 320, 448, 576, 832, 1088, 1536, 2112, 3072, EXCHANGE_MAX, 6400, 8448, 16640];

/// The most bytes of all memos together, where they hold blocks: up to there it is cheaper to hear what concerns others than to
/// make another call. Where ranks share cores, times the square of how many share one: another call is another turn of each, and
/// each waits for all turns. With 4 ranks on 2 cores 8 KiB take 8.6 us in memos and 11.4 in two calls, 16 KiB 12 either way; with 8 ranks
/// 16 KiB take 31 and 52.
const ALL_MAX: usize = 8 * 1088;

/// The slice of memos that are no exchange.
const SLICE: usize = 32 << 10;

/// Bytes of the two counts of one pair of ranks.
const PAIR: usize = 8;

/// Stands for counts that a memo can not tell, where a memo begins.
const UNTOLD: u32 = u32::MAX;

/// Why the plan of a memo's length is here.
const PLANNED: &str = "memos are told in one call at a time, and are as long as was planned";

/// The memos of one communicator's ranks.
#[derive(Debug)]
pub(crate) struct Memos {
    rank: usize,
    size: usize,
    /// The most bytes of all together, where they hold blocks.
    most: usize,
    /// Those of all ranks, one after the other, with room for the longest.
    all: Vec<u8>,
    /// Bytes of one of them.
    len: usize,
    /// How many bytes of blocks the next ones should have room for.
    room: usize,
    /// How memos of each length are told, where they may be so long. One is out while its call is made.
    plans: [Option<Box<Pinned>>; LENGTHS.len()],
}

/// What the memos say of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// All agree, and all blocks are where they belong.
    Everything,
    /// All agree.
    Agreed,
    /// Some rank has counts that fit no memo.
    Unclear,
}

impl Memos {
    /// Whether so many ranks use memos. One rank has nobody to tell.
    pub(crate) fn are_for(size: u32) -> bool {
        (2..=RANKS_MAX).contains(&size)
    }

    /// Those of `size` ranks, as many as [use them](Self::are_for), of which so many share a core.
    pub(crate) fn new(rank: Rank, size: u32, sharing: u32) -> Self {
        let job = Job { in_place: true, ..Job::new(Collective::AllGather, size) };
        let program = OneShot.program(&job, rank);
        let passes = fuse_for(&program, Room::Slice);
        let plan = |len: usize| {
            let binding = Binding {
                kernel: Kernel::new(DType::U8, ReduceOp::Sum),
                element: 1,
                slice: SLICE,
                store: Store::Cached,
                input_registered: false,
                output_registered: false,
                fetched: Fetched::Nothing,
                within: None,
            };
            let bound = Bound::new(&program, &passes, &Extents::bind(&program, len, 1), &binding);
            let signature = Signature {
                collective: Collective::AllToAll,
                dtype: DType::U8,
                op: ReduceOp::Sum,
                algorithm: Signature::RAGGED,
                root: Rank(0),
                count: len as u64,
                sequence: 0,
            };
            Box::new(Pinned { executor: Executor::new(Arc::new(bound)), signature, comparison: None })
        };
        let (rank, size) = (rank.index(), size as usize);
        let most = ALL_MAX * (sharing as usize).pow(2);
        let plans = LENGTHS.map(|len| may_be(len, size, most).then(|| plan(len)));
        let longest = LENGTHS.into_iter().rfind(|len| may_be(*len, size, most)).expect(PLANNED);
        Self { rank, size, most, all: vec![0; longest * size], len: longest, room: 0, plans }
    }

    /// Writes this rank's memo. Gives what tells it to all, which is to be [put back](Self::put_back).
    pub(crate) fn write(&mut self, cut: &Cut<'_>, buffers: &Buffers<'_>) -> Box<Pinned> {
        let (rank, size) = (self.rank, self.size);
        self.len = length(size, self.most, self.room);
        let memo = &mut self.all[rank * self.len..][..self.len];
        if write_counts(memo, rank, cut.blocks) {
            let input = match buffers {
                Buffers::Apart { input, .. } => input,
                Buffers::InPlace(buffer) => &**buffer,
            };
            let element = cut.dtype.size();
            let mut at = header(size);
            if given(memo, size, element) <= (self.len - at) as u64 {
                for (other, start) in starts(cut.blocks[0]).enumerate().filter(|(other, _)| *other != rank) {
                    let bytes = cut.blocks[0].counts[other] * element;
                    memo[at..at + bytes].copy_from_slice(&input[start * element..][..bytes]);
                    at += bytes;
                }
            }
        } else {
            memo[..4].copy_from_slice(&UNTOLD.to_le_bytes());
        }
        let mut pinned = self.plans[place(self.len)].take().expect(PLANNED);
        pinned.signature.dtype = cut.dtype;
        pinned
    }

    /// All memos, as the call in which they are told borrows them.
    pub(crate) fn loan(&mut self) -> Loan<'_> {
        let (rank, size) = (Rank(self.rank as u32), self.size as u32);
        self.buffers().told_loan(rank, size)
    }

    /// What [`write`](Self::write) gave is needed no more.
    pub(crate) fn put_back(&mut self, pinned: Box<Pinned>) {
        self.plans[place(self.len)] = Some(pinned);
    }

    /// What the memos of all say, once they are here. Blocks that all went along are put where they belong.
    ///
    /// # Errors
    /// [`Misuse::Disagree`] names the first two ranks that disagree.
    pub(crate) fn read(&mut self, cut: &Cut<'_>, buffers: &mut Buffers<'_>) -> Result<Said, Error> {
        let (size, element) = (self.size, cut.dtype.size());
        let is_untold = |rank| pairs(self.memo(rank), size).next().is_some_and(|pair| pair.gives == UNTOLD);
        if (0..size).any(is_untold) {
            return Ok(Said::Unclear);
        }
        if !self.all_agree() {
            return Err(self.disagreement(cut).into());
        }
        let most = self.all.chunks_exact(self.len).take(size).map(|memo| given(memo, size, element)).max();
        let most = usize::try_from(most.unwrap_or(0)).unwrap_or(usize::MAX);
        self.room = room(size, self.most, (self.room, most));
        if most > self.len - header(size) {
            return Ok(Said::Agreed);
        }
        self.deliver(cut, buffers);
        Ok(Said::Everything)
    }

    /// Whether every rank gives every other what that expects: with short blocks, a good part of the call.
    fn all_agree(&self) -> bool {
        (1..self.size).all(|rank| {
            // With those before it: each two ranks once. Their memos have its pair in the same place.
            let at = PAIR * place_of(0, rank);
            let mut others =
                pairs(self.memo(rank), self.size).zip(self.all.chunks_exact(self.len)).take(rank);
            others.all(|(own, memo)| {
                memo[at..].first_chunk().is_some_and(|bytes| own == Pair::from_bytes(*bytes).turned())
            })
        })
    }

    /// The first two ranks that do not agree, and what they say.
    #[cold]
    fn disagreement(&self, cut: &Cut<'_>) -> Misuse {
        let find = |getter: usize| {
            others(getter, self.size).find_map(|giver| {
                let gives = pair(self.memo(giver), giver, getter).gives.into();
                let gets = pair(self.memo(getter), getter, giver).gets.into();
                let (from, to) = (Rank(giver as u32), Rank(getter as u32));
                (gives != gets).then(|| Misuse::Disagree { call: cut.name(), from, to, gives, gets })
            })
        };
        (0..self.size).find_map(find).expect("they were found not to agree")
    }

    /// Puts the blocks that went along, and the one that stays, where they belong. By what the memos say, they fit.
    fn deliver(&self, cut: &Cut<'_>, buffers: &mut Buffers<'_>) {
        let (rank, size, element) = (self.rank, self.size, cut.dtype.size());
        let [gives, gets] = cut.blocks;
        let (input, output): (Option<&[u8]>, &mut [u8]) = match buffers {
            Buffers::Apart { input, output } => (Some(input), output),
            Buffers::InPlace(buffer) => (None, buffer),
        };
        for (from, start) in starts(gets).enumerate() {
            let bytes = gets.counts[from] * element;
            let block = if from == rank {
                // In place, what a rank gives itself is there already.
                let Some(input) = input else { continue };
                let own = starts(gives).nth(rank).unwrap_or(0) * element;
                &input[own..][..bytes]
            } else {
                let memo = self.memo(from);
                let before = pairs(memo, size).take(place_of(from, rank));
                let before = before.map(|pair| pair.gives as usize).sum::<usize>() * element;
                &memo[header(size) + before..][..bytes]
            };
            output[start * element..][..bytes].copy_from_slice(block);
        }
    }

    fn memo(&self, rank: usize) -> &[u8] {
        &self.all[rank * self.len..][..self.len]
    }
}

impl Owner for Memos {
    fn buffers(&mut self) -> Buffers<'_> {
        Buffers::InPlace(&mut self.all[..self.len * self.size])
    }
}

/// Whether the memos of so many ranks may be so long: so that they hold the counts, and longer if all together have no more than
/// `most` bytes.
fn may_be(len: usize, size: usize, most: usize) -> bool {
    let is_enough = |len: &usize| header(size) <= *len;
    is_enough(&len) && (len * size <= most || LENGTHS.into_iter().find(is_enough) == Some(len))
}

/// How long the memos of a call are that should have room for so many bytes of blocks: long enough, or else not longer than
/// the counts need.
fn length(size: usize, most: usize, room: usize) -> usize {
    let fits = |bytes: usize| LENGTHS.into_iter().find(|len| bytes <= *len && may_be(*len, size, most));
    let header = header(size);
    fits(header.saturating_add(room)).or_else(|| fits(header)).expect(PLANNED)
}

/// The place of a length among all.
fn place(len: usize) -> usize {
    LENGTHS.iter().position(|known| *known == len).expect(PLANNED)
}

/// How many bytes of blocks memos should have room for, after a call in which some rank gave others `given` and that should have
/// had room for `before`. It shrinks slowly: where short calls and long ones take turns, the short ones find room.
fn room(size: usize, most: usize, (before, given): (usize, usize)) -> usize {
    let fits = LENGTHS.into_iter().any(|len| may_be(len, size, most) && given <= len - header(size));
    let shrunk = before - before.div_ceil(8);
    if fits { given.max(shrunk) } else { shrunk }
}

/// Bytes of a memo before its blocks.
fn header(size: usize) -> usize {
    (size - 1) * PAIR
}

/// What a rank's memo says of one other.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Pair {
    /// What it gives that.
    gives: u32,
    /// What it expects of that.
    gets: u32,
}

impl Pair {
    /// What the other should say.
    fn turned(self) -> Self {
        Self { gives: self.gets, gets: self.gives }
    }

    fn from_bytes(bytes: [u8; PAIR]) -> Self {
        let both = u64::from_le_bytes(bytes);
        Self { gives: both as u32, gets: (both >> 32) as u32 }
    }

    fn to_bytes(self) -> [u8; PAIR] {
        (u64::from(self.gives) | u64::from(self.gets) << 32).to_le_bytes()
    }
}

/// What a memo says of each other rank, in order.
fn pairs(memo: &[u8], size: usize) -> impl Iterator<Item = Pair> {
    memo[..header(size)].as_chunks().0.iter().map(|bytes| Pair::from_bytes(*bytes))
}

/// Which of `rank`'s pairs is of `other`.
fn place_of(rank: usize, other: usize) -> usize {
    other - usize::from(other > rank)
}

/// What the memo of `rank` says of `other`.
fn pair(memo: &[u8], rank: usize, other: usize) -> Pair {
    Pair::from_bytes(memo.as_chunks().0[place_of(rank, other)])
}

/// Writes what a memo begins with. Says whether it can tell these counts.
fn write_counts(memo: &mut [u8], rank: usize, [gives, gets]: [Blocks<'_>; 2]) -> bool {
    // A rank's block for itself concerns nobody else, unless it is wrong.
    let is_right = gives.counts[rank] == gets.counts[rank];
    is_right
        && others(rank, gives.counts.len()).all(|other| {
            let pair = [gives.counts[other], gets.counts[other]].map(|count| u32::try_from(count).ok());
            let [Some(gives), Some(gets)] = pair.map(|count| count.filter(|count| *count != UNTOLD)) else {
                return false;
            };
            memo.as_chunks_mut().0[place_of(rank, other)] = Pair { gives, gets }.to_bytes();
            true
        })
}

/// Bytes that a rank gives others, by its memo.
fn given(memo: &[u8], size: usize, element: usize) -> u64 {
    pairs(memo, size).map(|pair| u64::from(pair.gives)).sum::<u64>() * element as u64
}

fn others(rank: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..size).filter(move |other| *other != rank)
}

/// Where each block starts, in elements. The blocks were found to lie inside their buffer.
fn starts(blocks: Blocks<'_>) -> impl Iterator<Item = usize> {
    let mut next = 0;
    blocks.counts.iter().enumerate().map(move |(rank, count)| {
        let start = blocks.displacements.map_or(next, |starts| starts[rank]);
        next = start + count;
        start
    })
}

#[cfg(test)]
mod tests;
